# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From a list of nodes to an inventory folder: who answers, who does what, how one logs in."""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible_collections.bzzz.cluster.plugins.module_utils.addresses import address_of, short_names
from ansible_collections.bzzz.cluster.plugins.module_utils.discovery import Machine, Search, check, discover
from ansible_collections.bzzz.cluster.plugins.module_utils.problems import Problem, errors

from bzzz_setup.declaration import NAME, typed
from bzzz_setup.events import ExitCode, Refusal

# Quoted twice: for Ansible, which splits the options, and for ssh, which splits the file names.
_SSH_OPTIONS = (
    """-o {{ ('UserKnownHostsFile="' ~ inventory_dir ~ '/known_hosts.txt"') | quote }} """
    "-o GlobalKnownHostsFile=/dev/null -o StrictHostKeyChecking=yes "
    # A machine's key is its own, whatever port sshd moves to.
    "-o HostKeyAlias={{ ansible_host | default(inventory_hostname) }}"
)
# Options of the search that are called otherwise here.
_HERE = {"subnets": "subnet", "name_servers": "name_server", "mdns": "discover", "mdns_interfaces": "interface"}


def found(search: Search, on_knock: Callable[[], None]) -> tuple[list[Machine], list[Problem]]:
    """The machines, and warnings. Raises Refusal where there are none, or not all that were asked for."""
    code = ExitCode.REFUSED if check(search) else ExitCode.NODES_FAILED
    machines, problems = discover(search, on_knock)
    for one in problems:
        one["option"] = _HERE.get(one["option"], one["option"])
    if errors(problems):
        refused = Refusal("machines cannot be found", "", code)
        refused.problems = problems
        raise refused
    return machines, problems


def chosen(wanted: str, nodes: dict[str, Machine]) -> dict[str, Machine]:
    """Those of the nodes that are named, or whose addresses are; all of nothing. Raises Refusal for what is none of them."""
    words = {word for word in re.split(r"[,\s]+", wanted.lower()) if word}
    for word in sorted(words):
        if not any(word in {name, *machine.known_as} for name, machine in nodes.items()):
            raise Refusal(f"'{word}' is none of the machines found", f"Name some of: {', '.join(nodes)}.", option="nodes")
    return {name: machine for name, machine in nodes.items() if not words or words & {name, *machine.known_as}}


def named(addresses: list[str]) -> dict[str, str]:
    """Node name to address: host names keep theirs (the first label, where that is unambiguous), addresses become node1, node2, ..."""
    short = short_names([address for address in addresses if address_of(address) is None])
    free = (name for name in (f"node{number}" for number in range(1, 2 * len(addresses) + 1)) if name not in set(short))
    own = iter(short)
    return {next(own if address_of(address) is None else free): address for address in addresses}


def choose_coordinators(wanted: str | None, nodes: dict[str, str]) -> list[str]:
    """The coordinators' names, of a number, of names or addresses, or of nothing: the first three, or one of fewer. Raises Refusal."""
    names = list(nodes)
    if wanted is None:
        return names[: 3 if len(names) >= 3 else 1]
    if re.fullmatch("[0-9]+", wanted):
        if len(wanted) > 9 or not 1 <= int(wanted) <= len(names):
            raise Refusal(
                f"{wanted} coordinators of {len(names)} nodes are not possible",
                f"Give a number from 1 to {len(names)}, best an odd one.",
                option="coordinators",
            )
        return names[: int(wanted)]
    by_address = {address: name for name, address in nodes.items()}
    chosen = [by_address.get(word, word) for word in re.split(r"[,\s]+", wanted) if word]
    for name in chosen:
        if name not in nodes:
            raise Refusal(f"'{name}' is none of the nodes", f"Name some of: {', '.join(names)}.", option="coordinators")
    if not chosen:
        raise Refusal("no coordinator is named", f"Give a number from 1 to {len(names)}, or names.", option="coordinators")
    return list(dict.fromkeys(chosen))


def hosts(nodes: dict[str, str], coordinators: list[str], ports: dict[str, int]) -> dict[str, Any]:
    """The content of hosts.yml. Every node works, the coordinators too. `ports` is SSH's by address, where it is not 22."""
    connection = {
        name: typed({"ansible_host": address, **({"ansible_port": ports[address]} if ports.get(address, 22) != 22 else {})})
        for name, address in nodes.items()
    }
    return {
        "bzzz": {
            "hosts": connection,
            "children": {
                "coordinators": {"hosts": {name: {} for name in coordinators}},
                "workers": {"hosts": {name: {} for name in nodes}},
                "storage": {"hosts": {}},
            },
        }
    }


def check_names(cluster: str, secrets: list[str]) -> None:
    """Raises Refusal for a cluster's name that is none, since paths are made of it, and for options that none can be called."""
    if not NAME.fullmatch(cluster):
        remedy = "Use lower-case letters, digits and hyphens, for example --name lab-1."
        raise Refusal(f"'{cluster}' is no cluster name", remedy, option="name")
    for option in secrets:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", option) or keyword.iskeyword(option):
            remedy = "Name one as in the inventory, for example --secret ansible_become_password."
            raise Refusal(f"'{option}' is no option's name", remedy, option="secret")


def options(name: str, user: str, key: Path | None, public_keys: list[str], *, passphrase: bool) -> dict[str, Any]:
    """The content of group_vars/bzzz/main.yml. `passphrase`: the vault holds that of the private key.

    Raises Refusal for a user's name that is none.
    """
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", user):
        raise Refusal(f"'{user}' is no user name", "Give the user that may log in to the nodes, for example --user root.", option="user")
    return {
        "declaration_cluster_name": name,
        "ansible_user": typed(user),
        **({"ansible_ssh_private_key_file": typed(str(key))} if key else {}),
        # Ansible unlocks the key's text into an agent of its own; ssh could only ask for the passphrase of a file.
        **({"ansible_ssh_private_key": "{{ lookup('ansible.builtin.file', ansible_ssh_private_key_file) }}"} if passphrase else {}),
        "ansible_become": True,
        "ansible_python_interpreter": "/usr/bin/python3",
        # Only keys pinned in this folder count, also where the environment would switch the check off, as AWX does.
        "ansible_host_key_checking": True,
        # An agent with many keys would otherwise offer others first, until sshd hangs up.
        "ansible_ssh_common_args": _SSH_OPTIONS + (" -o IdentitiesOnly=yes" if key else ""),
        **({"ssh_key_source": "provided", "ssh_public_keys": typed(public_keys)} if public_keys else {}),
    }
