# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: direct_hosts
short_description: Hosts that are reached without a proxy
version_added: "0.1.0"
author:
  - BZZZ cluster setup maintainers
description:
  - The single hosts that are declared to be reached without a proxy, the cluster's nodes, and those hosts of some addresses
    that are in a domain or network which is.
options:
  _input:
    description: Addresses (URLs) that will be downloaded from.
    type: list
    elements: str
    required: true
  no_proxy:
    description: Hosts, domains and networks.
    type: list
    elements: str
    required: true
  nodes:
    description: Nodes of the cluster, as in C(bzzz_cluster.nodes).
    type: list
    elements: dict
    required: true
  subnet:
    description: Subnet of the cluster.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: What apt is to reach directly
  ansible.builtin.debug:
    msg: "{{ ['https://mirror.corp.example/debian'] | bzzz.cluster.direct_hosts(['.corp.example'], bzzz_cluster.nodes, none) }}"
"""

RETURN = r"""
_value:
  description: Host names and addresses.
  type: list
  elements: str
"""

from typing import Any

from ansible_collections.bzzz.cluster.plugins.module_utils import downloads


def direct_hosts(urls: list[str], no_proxy: list[str], nodes: list[Any], subnet: str | None) -> list[str]:
    return downloads.direct_hosts(urls, downloads.without_proxy(no_proxy, nodes, subnet))


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"direct_hosts": direct_hosts}
