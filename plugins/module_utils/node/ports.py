# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who listens on which port, from /proc; and which of sshd's ports are ours."""

from __future__ import annotations

import os
import re
import socket
import struct
from typing import TYPE_CHECKING, Any

from .machine import Machine

if TYPE_CHECKING:
    from collections.abc import Iterator

# net/tcp_states.h: TCP_LISTEN; an unconnected UDP socket is in TCP_CLOSE.
LISTENING = {"tcp": "0A", "udp": "07"}
SSHD, SSHD_OURS = "etc/ssh/sshd_config", "etc/ssh/sshd_config.d/20-bzzz.conf"
_UNIT = re.compile(r"([^/\n]+\.(?:service|scope|socket))(?=/|$)", re.MULTILINE)


def main(payload: dict[str, Any]) -> dict[str, Any]:
    """``{listeners, reserved, ephemeral, unprivileged_start, sshd_ours, problems}``."""
    machine = Machine(payload)
    found = [
        (protocol, address, port, inode)
        for protocol in LISTENING
        for name in (protocol, protocol + "6")
        for address, port, inode in sockets(machine.read(f"proc/net/{name}"), LISTENING[protocol])
    ]
    owner = owners(machine, {entry[3] for entry in found})
    listeners: list[dict[str, Any]] = []
    for protocol, address, port, inode in found:
        pid = owner.get(inode)
        program, unit = process(machine, pid) if pid else (None, None)
        listener = {"protocol": protocol, "address": address, "port": port, "pid": pid, "program": program, "unit": unit}
        if listener not in listeners:  # SO_REUSEPORT: many sockets, one listener
            listeners.append(listener)
    if os.geteuid() != 0 and any(listener["pid"] is None for listener in listeners):
        machine.problem(
            "Not every listener's process could be read without root's rights.",
            "Gather these facts with become: true.",
        )
    ephemeral = numbers(machine.read("proc/sys/net/ipv4/ip_local_port_range"))
    return {
        "listeners": sorted(listeners, key=lambda one: (one["port"], one["protocol"], str(one["address"]))),
        "reserved": [one for one in machine.read("proc/sys/net/ipv4/ip_local_reserved_ports").split(",") if one],
        "ephemeral": {"first": ephemeral[0], "last": ephemeral[1]} if len(ephemeral) == 2 else None,
        "unprivileged_start": machine.integer("proc/sys/net/ipv4/ip_unprivileged_port_start"),
        "sshd_ours": sshd_ours(machine),
        "problems": machine.problems,
    }


def sshd_ours(machine: Machine) -> list[int]:
    """Ports that sshd has by the cluster's own file alone, and loses with it."""
    ours, others = set(ports_of(machine.read(SSHD_OURS))), [machine.read(SSHD)]
    if ours:
        folder = SSHD_OURS.rpartition("/")[0]
        names = [f"{folder}/{name}" for name in machine.names(folder) if name.endswith(".conf")]
        others += [machine.read(name) for name in names if name != SSHD_OURS]
    return sorted(ours - set([port for text in others for port in ports_of(text)] or [22]))


def ports_of(text: str) -> list[int]:
    """The ports that a configuration of sshd names."""
    return [int(port) for port in re.findall(r"^[ \t]*Port[ \t=]+\"?([0-9]{1,5})\b", text, re.MULTILINE | re.IGNORECASE)]


def numbers(text: str) -> list[int]:
    """The whole numbers in a text."""
    return [int(one) for one in re.findall(r"[0-9]{1,18}", text)]


def sockets(text: str, state: str) -> Iterator[tuple[str, int, str]]:
    """Address, port and inode of the sockets in that state, from the text of /proc/net/{tcp,udp}{,6}."""
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 9 and fields[3] == state and fields[2].endswith(":0000"):
            address, _colon, port = fields[1].partition(":")
            try:
                yield _address(address), int(port, 16), fields[9]
            except (ValueError, struct.error):
                continue


def _address(text: str) -> str:
    """Words of 32 bits in the host's byte order, hexadecimal."""
    packed = struct.pack(f"={len(text) // 8}I", *(int(text[i : i + 8], 16) for i in range(0, len(text), 8)))
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def owners(machine: Machine, inodes: set[str]) -> dict[str, int]:
    """The process that holds each socket; of several (a server and its workers) the one with the lowest id."""
    found: dict[str, int] = {}
    wanted = {f"socket:[{inode}]": inode for inode in inodes if inode != "0"}
    for pid in sorted(int(name) for name in machine.names("proc") if name.isdecimal() and name.isascii()):
        if len(found) == len(wanted):
            break
        try:
            with os.scandir(machine.root / f"proc/{pid}/fd") as descriptors:
                for descriptor in descriptors:
                    inode = wanted.get(_target(descriptor.path))
                    if inode:
                        found.setdefault(inode, pid)
        except OSError:  # it has ended, or belongs to another user
            continue
    return found


def _target(link: str) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return ""


def process(machine: Machine, pid: int) -> tuple[str | None, str | None]:
    """Name and systemd unit (service or scope) of a process."""
    program = machine.read(f"proc/{pid}/comm")
    if len(program) == 15:  # the kernel cuts it there
        whole = machine.read(f"proc/{pid}/cmdline").split("\0")[0].split(" ")[0].rpartition("/")[2]
        program = whole if whole.startswith(program) else program
    # One line in cgroup v2; in v1 systemd keeps its own hierarchy.
    groups = [line for line in machine.read(f"proc/{pid}/cgroup").splitlines() if line.startswith("0::/") or ":name=systemd:" in line]
    units = [unit for line in groups for unit in _UNIT.findall(line)[-1:]]
    return program or None, units[-1] if units else None
