# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Host keys of machines: those that they present, those that are pinned, and whether the two agree."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bzzz_setup import paths
from bzzz_setup.declaration import KNOWN_HOSTS, Declaration, write
from bzzz_setup.events import ExitCode, Refusal


def known_hosts(ports: dict[str, int], file: Path | None) -> str:
    """known_hosts lines of machines (address to SSH port): this file's or, without one, those they present. Raises Refusal."""
    lines = ""
    for port in sorted(set(ports.values())):
        addresses = [address for address, own in ports.items() if own == port]
        lines += pinned(file, addresses, port) if file else scan_host_keys(addresses, port)
    return lines


def scan_host_keys(addresses: list[str], port: int) -> str:
    """known_hosts lines, without port, of the machines as they present themselves. Raises Refusal naming those that don't answer."""
    known_hosts = _presented(addresses, port)
    if missing := without_key(known_hosts, addresses):
        raise Refusal(
            f"no SSH server answers on port {port} of {', '.join(missing)}",
            "Start these machines and their SSH servers, give the right --port, or leave them out (--exclude).",
            ExitCode.NODES_FAILED,
            option="nodes",
        )
    return known_hosts


def _presented(addresses: list[str], port: int) -> str:
    found = subprocess.run(
        ["ssh-keyscan", "-T", "5", "-p", str(port), "-f", "-"],
        input="\n".join(addresses) + "\n",
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [re.sub(r"^\[(.+?)\]:\d+ ", r"\1 ", line) for line in found.stdout.splitlines() if line and not line.startswith("#")]
    return "".join(sorted(line + "\n" for line in lines))


@dataclass
class HostKeys:
    """A node's host keys. `pinned` is kind (ED25519, RSA…) to fingerprint, `presented` kind to (fingerprint, known_hosts line)."""

    name: str
    address: str
    pinned: dict[str, str]
    presented: dict[str, tuple[str, str]]

    @property
    def trusted(self) -> bool:
        """Whether it presents a pinned key, and of no kind another than the pinned one."""
        shown = {kind: mark for kind, (mark, _line) in self.presented.items() if kind in self.pinned}
        return bool(shown) and all(self.pinned[kind] == mark for kind, mark in shown.items())

    def as_dict(self) -> dict[str, Any]:
        presented = {kind: mark for kind, (mark, _line) in self.presented.items()}
        return {"address": self.address, "pinned": self.pinned, "presented": presented, "trusted": self.trusted}


def compared(declaration: Declaration, only: str | None = None) -> list[HostKeys]:
    """Host keys as the inventory folder pins them, and as the machines present them now. Raises Refusal for an unknown node."""
    vault = paths.vault_key(declaration.cluster)
    said = subprocess.run(
        [sys.executable, "-m", "ansible", "inventory", "-i", str(declaration.source()), "--list"],
        env={**({"ANSIBLE_VAULT_PASSWORD_FILE": str(vault)} if vault.is_file() else {}), **os.environ},
        capture_output=True,
        text=True,
        check=False,
    )
    if said.returncode:
        raise Refusal(f"the inventory cannot be read: {said.stderr.strip()[-500:]}", "Correct what Ansible names.", option="inventory")
    variables = json.loads(said.stdout)["_meta"]["hostvars"]
    nodes = {name: variables.get(name, {}) for name in variables if only in (None, name)}
    if not nodes:
        raise Refusal(f"there is no node {only} in the inventory", f"Name one of: {', '.join(variables)}.", option="node")
    by_port: dict[int, list[str]] = {}
    for name, given in nodes.items():
        by_port.setdefault(int(given.get("ansible_port", 22)), []).append(str(given.get("ansible_host", name)))
    lines = [line for port, addresses in by_port.items() for line in _presented(addresses, port).splitlines()]
    known_hosts = declaration.folder / KNOWN_HOSTS
    found = []
    for name, given in nodes.items():
        address = str(given.get("ansible_host", name))
        asked = ["ssh-keygen", "-F", address, "-f", str(known_hosts)]
        pinned = "".join(
            line + "\n"
            for line in subprocess.run(asked, capture_output=True, text=True, check=False).stdout.splitlines()
            if not line.startswith(("#", "@"))
        )
        own = [line for line in lines if line.partition(" ")[0] == address]
        presented = {kind: (fingerprint, line) for line in own for _host, kind, fingerprint in fingerprints(line + "\n")}
        found.append(HostKeys(name, address, {kind: mark for _host, kind, mark in fingerprints(pinned)} if pinned else {}, presented))
    return found


def accept(declaration: Declaration, node: HostKeys, fingerprint: str) -> None:
    """Pin the presented key of this fingerprint in place of all that are pinned for the node. Raises Refusal where it is not presented."""
    line = next((line for mark, line in node.presented.values() if mark == fingerprint), None)
    if line is None:
        raise Refusal(
            f"{node.name} does not present the host key {fingerprint}",
            f"Give one that it does: {', '.join(mark for mark, _line in node.presented.values()) or 'it does not answer'}. "
            "If the machine's console names another, another machine answers in its place.",
            ExitCode.NODES_FAILED,
            option="accept",
        )
    file = declaration.folder / KNOWN_HOSTS
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, KNOWN_HOSTS)  # ssh-keygen writes in place, and leaves the old file beside it
        copy.write_text(declaration.known_hosts, encoding="utf-8")
        subprocess.run(["ssh-keygen", "-R", node.address, "-f", str(copy)], capture_output=True, check=True)
        kept = copy.read_text(encoding="utf-8")
    write(file, kept + ("" if not kept or kept.endswith("\n") else "\n") + line + "\n")


def pinned(file: Path, addresses: list[str], port: int) -> str:
    """A known_hosts file's lines of these machines, hashed names too, without port. Raises Refusal naming those it doesn't hold."""
    lines, missing = [], []
    for address in addresses:
        said = subprocess.run(
            ["ssh-keygen", "-F", address if port == 22 else f"[{address}]:{port}", "-f", str(file)],
            capture_output=True,
            text=True,
            check=False,
        )
        found = [
            line if line.startswith("@") else f"{address} {line.partition(' ')[2]}"
            for line in said.stdout.splitlines()
            if line and not line.startswith("#")
        ]
        lines += found
        missing += [] if found else [address]
    if missing:
        raise Refusal(
            f"{file} holds no key of {', '.join(missing)}",
            "Add their keys to it, or let init ask the machines: leave --known-hosts out.",
            option="known_hosts",
        )
    return "".join(line + "\n" for line in dict.fromkeys(lines))


def without_key(known_hosts: str, addresses: list[str]) -> list[str]:
    """The addresses that have no key among these known_hosts lines."""
    named = {host for line in known_hosts.splitlines() if not line.startswith(("#", "@")) for host in line.partition(" ")[0].split(",")}
    return [address for address in addresses if address not in named]


def fingerprints(known_hosts: str) -> list[tuple[str, str, str]]:
    """(host, kind, fingerprint) of each key. Raises Refusal when ssh-keygen finds none."""
    said = subprocess.run(["ssh-keygen", "-lf", "-"], input=known_hosts, capture_output=True, text=True, check=False)
    found = re.findall(r"^\d+ (\S+) (\S+) \((.+)\)$", said.stdout, re.MULTILINE)
    if not found:
        raise Refusal("these are no SSH host keys", "Give lines as ssh-keyscan prints them: host, kind, key.", option="known_hosts")
    return [(host, kind, fingerprint) for fingerprint, host, kind in found]
