# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Interfaces, addresses and routes, asked of the kernel by rtnetlink(7): no iproute2, no subprocess, every address."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import struct
import sys
from typing import TYPE_CHECKING, Any

from .machine import Machine, integer

if TYPE_CHECKING:
    from collections.abc import Iterator

# linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h
NEWLINK, GETLINK, NEWADDR, GETADDR, NEWROUTE, GETROUTE = 16, 18, 20, 22, 24, 26
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST_DUMP = 0x301
TABLE_MAIN, UNICAST = 254, 1
IFF_UP, IFA_TEMPORARY, IFA_PERMANENT = 0x1, 0x01, 0x80
STATES = ("unknown", "notpresent", "down", "lowerlayerdown", "testing", "dormant", "up")
SCOPES = {0: "global", 200: "site", 253: "link", 254: "host"}
ROUTES_MAX = 256


def main(payload: dict[str, Any]) -> dict[str, Any]:
    """``{interfaces, routes, primary_interface, admin_address, problems}``."""
    machine = Machine(payload)
    try:
        links, addresses, routes = dump(GETLINK, 16), dump(GETADDR, 8), dump(GETROUTE, 12)
    except OSError as error:
        links = addresses = routes = b""
        machine.problem(
            f"The kernel did not answer about interfaces ({error}); only their names are known.",
            "Let the node's Python open rtnetlink sockets (a sandbox or security module refuses them).",
        )
    return report(machine, links, addresses, routes)


def dump(kind: int, header: int) -> bytes:
    """Every answer to one rtnetlink dump request whose family header is ``header`` bytes long; raises OSError."""
    answers = b""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, getattr(socket, "NETLINK_ROUTE", 0)) as netlink:
        netlink.settimeout(5)
        netlink.send(struct.pack("=IHHII", 16 + header, kind, NLM_F_REQUEST_DUMP, 1, 0) + bytes(header))
        while True:
            answer = netlink.recv(1 << 18)
            answers += answer
            if not answer or any(message[0] in (NLMSG_DONE, NLMSG_ERROR) for message in messages(answer)):
                return answers


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and body of each netlink message."""
    while len(data) >= 16:
        length, kind = struct.unpack_from("=IH", data)
        if not 16 <= length <= len(data):
            return
        yield kind, data[16:length]
        data = data[(length + 3) & ~3 :]


def attributes(data: bytes) -> dict[int, bytes]:
    """Netlink attributes by type; what is cut off is left out."""
    found = {}
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if not 4 <= length <= len(data):
            break
        found[kind & 0x3FFF] = data[4:length]
        data = data[(length + 3) & ~3 :]
    return found


def report(machine: Machine, links: bytes, addresses: bytes, routes: bytes) -> dict[str, Any]:
    """The facts from three rtnetlink dumps and what sysfs adds to them."""
    interfaces = {index: interface for kind, body in messages(links) if kind == NEWLINK for index, interface in _link(machine, body)}
    named = {index: interface["name"] for index, interface in interfaces.items()}
    if not interfaces:
        interfaces = {-n: _interface(machine, name) for n, name in enumerate(machine.names("sys/class/net"))}
    for interface in interfaces.values():
        interface["master"] = named.get(interface["master"])
    for kind, body in messages(addresses):
        if kind == NEWADDR and len(body) >= 8 and (address := _address(body)):
            index = struct.unpack_from("=I", body, 4)[0]
            if index in interfaces:
                interfaces[index]["addresses"].append(address)
    table = [route for kind, body in messages(routes) if kind == NEWROUTE for route in _routes(body, named)]
    # The kernel prefers the lowest metric; IPv4 first, since that is what most clusters run on.
    defaults = sorted((r for r in table if r["destination"] == "default"), key=lambda r: (r["family"], r["metric"]))
    if len(table) > ROUTES_MAX:
        machine.problem(
            f"The main routing table has {len(table)} routes; {ROUTES_MAX} are kept.",
            "Nothing to do, unless the cluster's own network is reached by one of the others.",
        )
    return {
        "interfaces": sorted(interfaces.values(), key=lambda interface: str(interface["name"])),
        "routes": (defaults + [r for r in table if r["destination"] != "default"])[:ROUTES_MAX],
        "primary_interface": defaults[0]["interface"] if defaults else None,
        "admin_address": admin_address(machine),
        "problems": machine.problems,
    }


def admin_address(machine: Machine) -> str | None:
    """Where the SSH session that asks this comes from; None when it isn't asked over SSH.

    sudo takes it out of the environment, so the processes above are looked at too.
    """
    pid = os.getpid()
    for _level in range(64):
        session = re.search(r"(?:^|\0)SSH_CONNECTION=([0-9a-fA-F.:]+)", machine.read(f"proc/{pid}/environ"))
        if session:
            return session[1]
        pid = integer("".join(machine.read(f"proc/{pid}/stat").rpartition(")")[2].split()[1:2])) or 0
        if pid == 0:
            break
    return None


def _interface(machine: Machine, name: str) -> dict[str, Any]:
    folder = f"sys/class/net/{name}"
    # Virtual cards and interfaces that are down say -1 or nothing.
    speed = machine.integer(f"{folder}/speed") or 0
    return {
        "name": name,
        "kind": None,
        "state": None,
        "up": None,
        "carrier": None,
        "speed_mbps": speed if 0 < speed < 1 << 31 else None,
        "mtu": None,
        "mac": None,
        "driver": machine.target(f"{folder}/device/driver"),
        "master": None,
        "addresses": [],
    }


def _link(machine: Machine, body: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    if len(body) < 16:
        return
    hardware, index, flags = struct.unpack_from("=xxHiI", body)
    found = attributes(body[16:])
    name = _text(found.get(3))
    if not name or "/" in name:
        return
    interface = _interface(machine, name)
    folder = machine.root / "sys/class/net" / name
    kind = _text(attributes(found.get(18, b"")).get(1))
    if not kind:
        device = (folder / "device").exists()
        wireless = (folder / "wireless").exists()
        kind = {772: "loopback", 32: "infiniband"}.get(hardware) or ("wifi" if wireless else "physical" if device else "virtual")
    mac = found.get(1, b"")
    interface.update(
        kind=kind,
        up=bool(flags & IFF_UP),
        state=dict(enumerate(STATES)).get(_number(found.get(16)) or 0, "unknown"),
        carrier=bool(_number(found[33])) if 33 in found else None,
        mtu=_number(found.get(4)),
        mac=mac.hex(":") if any(mac) else None,
        master=_number(found.get(10)),
    )
    yield index, interface


def _address(body: bytes) -> dict[str, Any] | None:
    family, prefix, flags, scope = struct.unpack_from("=BBBB", body)
    found = attributes(body[8:])
    # On a point-to-point link IFA_ADDRESS is the peer's.
    address = _ip(found.get(2) or found.get(1, b""))
    if family not in (socket.AF_INET, socket.AF_INET6) or address is None or prefix > address.max_prefixlen:
        return None
    flags = _number(found.get(8)) or flags
    return {
        "address": str(address),
        "prefix": prefix,
        "network": str(ipaddress.ip_network((address, prefix), strict=False)),
        "family": address.version,
        "scope": SCOPES.get(scope, str(scope)),
        "dynamic": not flags & IFA_PERMANENT,
        "temporary": address.version == 6 and bool(flags & IFA_TEMPORARY),
    }


def _routes(body: bytes, named: dict[int, str]) -> Iterator[dict[str, Any]]:
    """A route of the main table; one for each next hop where there are several."""
    if len(body) < 12:
        return
    length, table, kind = struct.unpack_from("=xBxxBxxB", body)
    found = attributes(body[12:])
    if (_number(found.get(15)) or table) != TABLE_MAIN or kind != UNICAST:
        return
    target = _ip(found.get(1, b""))
    if target is not None and length > target.max_prefixlen:
        return
    hops = [(_number(found.get(4)), found)]
    several = found.get(9, b"")
    while len(several) >= 8:
        size, index = struct.unpack_from("=HxxI", several)
        if not 8 <= size <= len(several):
            break
        hops.append((index, {**found, **attributes(several[8:size])}))
        several = several[(size + 3) & ~3 :]
    for hop, details in hops:
        if hop in named:
            # RTA_VIA: an IPv4 route by way of an IPv6 gateway
            gateway = _ip(details.get(5, b"") or details.get(18, b"")[2:])
            yield {
                "destination": str(ipaddress.ip_network((target, length), strict=False)) if length and target else "default",
                "gateway": str(gateway) if gateway else None,
                "interface": named[hop],
                "metric": _number(details.get(6)) or 0,
                "source": str(_ip(details.get(7, b"")) or "") or None,
                "family": 4 if body[0] == socket.AF_INET else 6,
            }


def _number(value: bytes | None) -> int | None:
    return int.from_bytes(value, sys.byteorder) if value else None


def _text(value: bytes | None) -> str:
    return (value or b"").rstrip(b"\0").decode(errors="replace")


def _ip(value: bytes) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    return ipaddress.ip_address(value) if len(value) in (4, 16) else None
