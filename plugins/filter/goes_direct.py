# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: goes_direct
short_description: Whether an address is reached without a proxy
version_added: "0.1.0"
author:
  - BZZZ cluster setup maintainers
description:
  - Whether the host of a URL is declared to be reached without a proxy, or in a domain or network that is, or a node of the cluster.
options:
  _input:
    description: The URL.
    type: str
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
- name: Whether a webhook is called by way of the proxy
  ansible.builtin.debug:
    msg: "{{ not 'https://hooks.corp.example/x' | bzzz.cluster.goes_direct(['.corp.example'], bzzz_cluster.nodes, none) }}"
"""

RETURN = r"""
_value:
  description: Whether it is.
  type: bool
"""

from typing import Any
from urllib.parse import urlsplit

from ansible_collections.bzzz.cluster.plugins.module_utils import downloads


def goes_direct(url: str, no_proxy: list[str], nodes: list[Any], subnet: str | None) -> bool:
    return downloads.goes_direct(urlsplit(url).hostname or "", downloads.without_proxy(no_proxy, nodes, subnet))


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"goes_direct": goes_direct}
