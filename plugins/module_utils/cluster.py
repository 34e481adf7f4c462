# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who belongs to the cluster, by inventory alone."""

from __future__ import annotations

import concurrent.futures
import socket
from typing import TYPE_CHECKING, Optional, TypedDict

from .addresses import address_of

if TYPE_CHECKING:
    from collections.abc import Iterable


class Node(TypedDict):
    """A node as its peers and Ansible see it. `address` is None where a name could not be resolved."""

    name: str
    address: Optional[str]
    groups: list[str]
    ssh_port: int
    # None where neither inventory nor configuration names the user that Ansible logs in as.
    ssh_user: Optional[str]
    # Whether Ansible logs in with a password.
    ssh_password: bool
    # Whether Ansible's login relies on sudo, and whether it is given a password for it.
    become: bool
    become_password: bool
    # The firewall that its rules go into; None until the node's facts are known.
    firewall: Optional[str]
    # From where its peers come to it, as networks and addresses; empty until its facts are known.
    sources: list[str]


class Cluster(TypedDict):
    """`bzzz_cluster`. `settled` lists the nodes whose facts the effective declaration has taken in."""

    name: str
    run_id: str
    nodes: list[Node]
    coordinators: list[str]
    settled: list[str]


def resolve(names: Iterable[str]) -> dict[str, str]:
    """Addresses by name, IPv4 first, for those that resolve. Asked side by side: one dead name server should not cost minutes."""
    wanted = sorted(set(names))
    if not wanted:
        return {}
    with concurrent.futures.ThreadPoolExecutor(max_workers=min(32, len(wanted))) as pool:
        return {name: address for name, address in zip(wanted, pool.map(_resolve, wanted)) if address}


def _resolve(name: str) -> str | None:
    if address_of(name):
        return str(address_of(name))
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return None
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    return str(found[0][4][0])
