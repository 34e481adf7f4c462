#!/usr/bin/python
# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: models_plan
short_description: Plan which model goes on which node and GPU
version_added: 0.1.0
description:
  - Places the models of C(models_wanted) on the nodes whose facts role C(declaration) has gathered in this run, and fails where one fits nowhere.
  - Contacts no node, and pulls nothing. Run it once, after role C(declaration).
  - What Ollamas and registries tell of the models, and what is loaded, is taken from stages V(look) and V(describe) of M(bzzz.cluster.models).
options: {}
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
- name: Where the models go
  bzzz.cluster.models_plan:
  run_once: true
"""

RETURN = r"""
plan:
  description:
    - C(nodes) (what each GPU, the memory and the disk of a node are given to, in bytes), C(placed) and C(refused) (replicas, each with why, and a remedy),
      and C(unknown) (models of which too little is known). The fact C(bzzz_models) is the same.
  returned: always
  type: dict
  sample: {"nodes": {}, "placed": [], "refused": [], "unknown": []}
checks:
  description: One for each replica, and for each model of which too little is known.
  returned: always
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
