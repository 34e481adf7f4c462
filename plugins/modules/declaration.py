#!/usr/bin/python
# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin of the same name, which does the work."""

from __future__ import annotations

DOCUMENTATION = r"""
module: declaration
short_description: Read, check and settle the declaration of a BZZZ cluster
description:
  - Reads the C(<role>_<option>) variables of every host in group C(bzzz) of the inventory, also of those outside of C(--limit),
    fills in defaults, masks secrets, and refuses whatever is wrong with them, all at once, without contacting any node.
  - In stage C(effective) it settles what depends on the nodes' facts (subnet, interface) and checks the declaration against them.
  - Computed once a run of ansible-playbook; a second call in the same run returns at once.
  - Variables of plays and roles are refused, since the other nodes and steps would not see them.
version_added: 0.1.0
author:
  - BZZZ cluster setup maintainers (@bzzz)
options:
  stage:
    description:
      - V(literal) needs nothing but the inventory.
      - V(effective) comes after M(bzzz.cluster.facts).
    type: str
    choices: [literal, effective]
    required: true
  refuse:
    description:
      - Whether what the facts forbid fails the task. V(false) makes warnings of it, for a look at a cluster that stands, where the checks
        tell the rest.
      - What is wrong without any facts is always refused.
    type: bool
    default: true
attributes:
  check_mode:
    description: Changes nothing, so check mode makes no difference.
    support: full
  diff_mode:
    description: Changes nothing, so there is nothing to show.
    support: none
  idempotent:
    description: Looks only, and never changes anything.
    support: full
notes:
  - Use it through role C(bzzz.cluster.declaration), with C(run_once).
  - There is no module behind it; it runs on the controller only.
seealso:
  - module: bzzz.cluster.facts
"""

EXAMPLES = r"""
- name: Check the declaration without contacting a node
  bzzz.cluster.declaration:
    stage: literal
  run_once: true
"""

RETURN = r"""
problems:
  description: What is wrong or doubtful, errors first. Errors fail the task.
  returned: when computed
  type: list
  elements: dict
  contains:
    severity:
      description: C(error) or C(warning).
      type: str
      returned: always
    option:
      description: The inventory variable to change.
      type: str
      returned: always
    value:
      description: The value given; null for secrets and where nothing was given.
      type: raw
      returned: always
    node:
      description: The node, several joined by C(, ), or null for the whole cluster.
      type: str
      returned: always
    message:
      description: What is wrong.
      type: str
      returned: always
    remedy:
      description: How to put it right.
      type: str
      returned: always
ansible_facts:
  description: The declaration, the same for every host.
  returned: when computed and without errors
  type: dict
  contains:
    bzzz_declared:
      description: Effective options by node, role and option (without the role's prefix); secrets read as C(********).
      type: dict
      returned: always
    bzzz_cluster:
      description:
        - C(name), C(run_id), C(nodes) (name, address, groups, ssh_port, ssh_user, ssh_password, become, become_password), C(coordinators)
          and C(settled).
      type: dict
      returned: always
"""
