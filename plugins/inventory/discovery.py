# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: discovery
short_description: Machines that announce themselves, that DNS names, that answer, or that are listed
version_added: "0.1.0"
author:
  - BZZZ cluster setup maintainers (@bzzz)
description:
  - Finds the machines of a cluster by mDNS, by a sweep of subnets for SSH servers, by DNS and by a list; all ways that are asked for,
    side by side. A machine that is found in several ways is one host.
  - Connects to no machine other than to see whether its SSH server greets, changes nothing, and takes nothing over from DHCP or DNS.
  - Host keys are neither fetched nor accepted. Whatever a network says, connections want a key that somebody has compared and pinned,
    as with any other inventory.
  - The hosts are found anew whenever the inventory is read. A machine that is switched off is missing then, unless it is listed or DNS
    names it. For a cluster that is to stay as it was formed, let C(bzzz-setup init --discover) write down what was found.
  - When a way fails, the inventory does, since half a cluster would be taken for the whole.
  - The file's name ends in C(discovery.yml) or C(discovery.yaml).
requirements:
  - zeroconf, for O(mdns)
  - dnspython, for O(domain)
extends_documentation_fragment:
  - ansible.builtin.constructed
options:
  plugin:
    description: This plugin's name.
    type: str
    required: true
    choices: [bzzz.cluster.discovery]
  nodes:
    description:
      - "Machines that are there, whether they answer or not: addresses, ranges (C(10.0.0.10-20)), host names."
      - Of a network (C(10.0.0.0/28)) those whose SSH servers answer, as with O(subnets).
    type: list
    elements: str
    default: []
  exclude:
    description: Machines that are no part of the cluster, in the same notation. Of a host name the first label is enough.
    type: list
    elements: str
    default: []
  mdns:
    description: Listen to what announces O(services) by mDNS/DNS-SD (UDP port 5353) for O(probe_timeout_seconds).
    type: bool
    default: false
  mdns_interfaces:
    description: This host's interfaces to do that on, by name or IPv4 address. All, when empty.
    type: list
    elements: str
    default: []
  services:
    description:
      - DNS-SD service types that a machine of the cluster may have. By mDNS all count; of DNS the first one that has SRV records.
      - The port of C(_ssh._tcp) is taken as SSH's.
    type: list
    elements: str
    default: [_bzzz._tcp, _ssh._tcp]
  subnets:
    description: Networks in CIDR notation, each of whose addresses is tried for an SSH server on O(port).
    type: list
    elements: str
    default: []
  large_sweep:
    description: Do so even if these are more than 1024 addresses (a C(/22)).
    type: bool
    default: false
  domain:
    description:
      - The DNS domain of the cluster. Its SRV records (C(_ssh._tcp.example.com)) name the machines.
      - Where it has none, its own A records are the machines' addresses; AAAA records where it has no A records either.
    type: str
  name_servers:
    description: Addresses of DNS servers to ask for O(domain). Those of this host, when empty.
    type: list
    elements: str
    default: []
  port:
    description: SSH's port where nothing tells another.
    type: int
    default: 22
  timeout_seconds:
    description: The longest time for all.
    type: float
    default: 30
  probe_timeout_seconds:
    description: The longest time for one answer.
    type: float
    default: 3
  group:
    description: The group that gets all hosts. The roles look at V(bzzz).
    type: str
    default: bzzz
  coordinators:
    description:
      - The hosts of group C(coordinators), by name or address. It is an error when one of them is not found.
      - All hosts are in group C(workers).
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
# discovery.yml: whatever announces itself, and what answers in one network but for the router
plugin: bzzz.cluster.discovery
mdns: true
mdns_interfaces: [eth1]
subnets: [10.0.0.0/24]
exclude: [10.0.0.1]
coordinators: [gpu1, gpu2, gpu3]
---
# The machines that DNS knows, asked at a server of the site; hosts with gpu in their name in a group of their own
plugin: bzzz.cluster.discovery
domain: cluster.example.com
name_servers: [10.0.0.53]
groups:
  gpus: "'gpu' in inventory_hostname"
---
# A list
plugin: bzzz.cluster.discovery
nodes: [10.0.0.11-13, storage1.example.com]
"""

from dataclasses import fields
from typing import Any

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Constructable
from ansible_collections.bzzz.cluster.plugins.module_utils.discovery import Machine, Search, discover, names
from ansible_collections.bzzz.cluster.plugins.module_utils.problems import errors, problem, readable


class InventoryModule(BaseInventoryPlugin, Constructable):
    """Sets of each host: ansible_host, ansible_port, bzzz_discovered_by (a list of dns, list, mdns, sweep)."""

    NAME = "bzzz.cluster.discovery"

    def verify_file(self, path: str) -> bool:
        return bool(super().verify_file(path)) and path.endswith(("discovery.yml", "discovery.yaml"))

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        given = {option.name: self.get_option(option.name) for option in fields(Search)}
        search = Search(**{name: tuple(value) if isinstance(value, list) else value for name, value in given.items()})
        machines, problems = discover(search)
        if errors(problems):
            raise AnsibleParserError(readable(problems))
        for found in problems:
            self.display.warning(readable([found]))
        self._fill(dict(zip(names(machines), machines)))

    def _fill(self, hosts: dict[str, Machine]) -> None:
        group = self.inventory.add_group(self.get_option("group"))
        coordinators = self._coordinators(hosts)
        for child, members in (("coordinators", coordinators), ("workers", list(hosts)), ("storage", [])):
            self.inventory.add_child(group, self.inventory.add_group(child))
            for name in members:
                self.inventory.add_host(name, group=child)
        for name, machine in hosts.items():
            self.inventory.add_host(name, group=group)
            self.inventory.set_variable(name, "ansible_host", machine.host)
            self.inventory.set_variable(name, "ansible_port", machine.port)
            self.inventory.set_variable(name, "bzzz_discovered_by", list(machine.discovered_by))
            strict = self.get_option("strict")
            self._set_composite_vars(self.get_option("compose"), self.inventory.get_host(name).get_vars(), name, strict=strict)
            self._add_host_to_composed_groups(self.get_option("groups"), {}, name, strict=strict)
            self._add_host_to_keyed_groups(self.get_option("keyed_groups"), {}, name, strict=strict)

    def _coordinators(self, hosts: dict[str, Machine]) -> list[str]:
        chosen, missing = [], []
        for word in self.get_option("coordinators"):
            known = [name for name, machine in hosts.items() if word == name or word.lower() in machine.known_as]
            chosen += known
            missing += [] if known else [word]
        if missing:
            message = f"Not found: {', '.join(missing)}. Found were: {', '.join(hosts)}."
            remedy = "Switch them on, correct their names, or list them under nodes, which are there whether they answer or not."
            raise AnsibleParserError(readable([problem("coordinators", message, remedy, value=self.get_option("coordinators"))]))
        return list(dict.fromkeys(chosen))
