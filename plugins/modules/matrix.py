#!/usr/bin/python
# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: matrix
short_description: Put the nodes' views of each other together
version_added: 0.1.0
description:
  - Makes one table, node by node, of all nodes' checks of kinds C(peers), C(reach) and C(clock) of M(bzzz.cluster.probe),
    fails where two nodes' clocks are surely too far apart, and warns where they send each other packets of different size, or larger ones than arrive.
  - Contacts no node. Run it once, after the probes.
options:
  checks:
    description: Checks of all nodes, in one list.
    type: list
    elements: dict
    required: true
  clock_offset_max_seconds:
    description: How far two nodes' clocks may be apart, in seconds.
    type: float
    required: true
attributes:
  check_mode:
    description: Can run in check mode.
    support: full
  diff_mode:
    description: Shows what differs in diff mode.
    support: none
  idempotent:
    description: Looks only, and never changes anything.
    support: full
author:
  - BZZZ cluster setup maintainers (@bzzz)
"""

EXAMPLES = r"""
- name: Every node against every other
  bzzz.cluster.matrix:
    checks: "{{ ansible_play_hosts | map('extract', hostvars, ['network_probe', 'checks']) | flatten }}"
    clock_offset_max_seconds: 1
  run_once: true
"""

RETURN = r"""
matrix:
  description:
    - Node to peer to C(reachable), C(latency_ms), C(sent) and C(lost) (echoes; connections where echoes are not answered),
      C(mtu) (of the way, as the node's kernel knows it), C(mtu_arrives) (largest echo that was answered), C(interface), C(interface_mtu), C(resolves), C(why),
      C(ports) (port to state), C(clock_offset_seconds) (how far the peer's clock is ahead) and C(clock_uncertainty_seconds).
  returned: success
  type: dict
  sample: {"bzzz-node1": {"bzzz-node2": {"reachable": true, "latency_ms": 0.2, "mtu": 1500, "clock_offset_seconds": 0.003}}}
checks:
  description: The checks of the clocks and of the packets' size.
  returned: success
  type: list
  elements: dict
  contains:
    id: {description: The entry's name., type: str, sample: service-port}
    requirement: {description: "Requirements that it proves, separated by commas.", type: str, sample: "1.2.1"}
    role: {description: Role that the entry belongs to., type: str, sample: service}
    node: {description: Node that was looked at., type: str, sample: bzzz-node1}
    title: {description: What is to hold., type: str, sample: The service listens on its port}
    status: {description: "V(pass), V(warn), V(fail) or V(skip).", type: str, sample: fail}
    seen: {description: What was seen., type: str, sample: nothing listens there}
    expected: {description: What was expected., type: str, sample: tcp port 8080}
    remedy: {description: What to do about it., type: str, sample: systemctl restart bzzz}
    data: {description: Figures behind it., type: dict, sample: {}}
"""
