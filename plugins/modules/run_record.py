#!/usr/bin/python
# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: run_record
short_description: Record a set-up run in the cluster
version_added: 0.1.0
description:
  - Counts the checks of a run and puts the result into the cluster's etcd, where every node's service sees it and tells its clients.
  - It takes the place of the record before. Changes nothing else, so it is never C(changed); in check mode nothing is recorded.
  - Where etcd cannot be reached the task warns and does not fail.
  - Run it once, on any node that holds a certificate of the cluster.
options:
  cluster:
    description: The cluster's name.
    type: str
    required: true
  endpoints:
    description: URLs of etcd on the coordinators.
    type: list
    elements: str
    required: true
  nodes:
    description: Every node that the run was for.
    type: list
    elements: str
    required: true
  checks:
    description: Checks of all nodes, in one list.
    type: list
    elements: dict
    required: true
attributes:
  check_mode:
    description: Can run in check mode.
    support: full
  diff_mode:
    description: Shows what differs in diff mode.
    support: none
  idempotent:
    description: Each run is recorded anew, in the place of the one before; no node changes.
    support: full
author:
  - BZZZ cluster setup maintainers (@bzzz)
"""

EXAMPLES = r"""
- name: Record the run
  bzzz.cluster.run_record:
    cluster: bzzz
    endpoints: ["https://192.0.2.11:2379"]
    nodes: "{{ ansible_play_hosts_all }}"
    checks: "{{ ansible_play_hosts_all | map('extract', hostvars) | map(attribute='probed.checks', default=[]) | flatten }}"
  run_once: true
"""

RETURN = r"""
record:
  description: What was recorded.
  returned: success
  type: dict
  sample: {"run": "3f2b8c11d0aa", "time": "2026-01-31T12:00:00Z", "outcome": "passed", "nodes": ["node1"], "lost": [],
    "checks": {"pass": 40, "warn": 0, "fail": 0, "skip": 2}, "failed": []}
"""
