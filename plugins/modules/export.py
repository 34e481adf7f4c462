#!/usr/bin/python
# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin of the same name, which does the work."""

from __future__ import annotations

DOCUMENTATION = r"""
module: export
short_description: Write the files that the roles land on a node into a folder of the controller
description:
  - Renders what the C(bzzz.cluster.config_set) tasks of the eight steps' roles put in place, from the same tasks and templates,
    without contacting the node, and what roles name for exports alone in C(vars/export.yml). The files are byte for byte those of the
    node, but for secrets, which stay C(@@name@@).
  - What only the node can tell (certificates, tokens, or facts that no run has gathered) is left out and named in RV(problems).
version_added: 0.1.0
author:
  - BZZZ cluster setup maintainers (@bzzz)
options:
  directory:
    description: Folder on the controller; files go to C(<directory>/<node>/<path>), a listing to C(<directory>/<node>.json).
    type: path
    required: true
  kind:
    description: Units and drop-ins of systemd, environment files, Compose files that run the services without systemd, or all that the steps put there.
    type: str
    choices: [systemd, env, compose, all]
    default: all
attributes:
  check_mode:
    description: Changes no node, so check mode makes no difference.
    support: full
  diff_mode:
    description: Changes no node, so there is nothing to show.
    support: none
  idempotent:
    description: Writes the same files each time.
    support: full
notes:
  - Comes after role C(bzzz.cluster.declaration); see playbook C(bzzz.cluster.export).
  - There is no module behind it; it runs on the controller only.
seealso:
  - module: bzzz.cluster.config_set
"""

EXAMPLES = r"""
- name: Units of every node, below /tmp/units
  bzzz.cluster.export:
    directory: /tmp/units
    kind: systemd
"""

RETURN = r"""
files:
  description: What was written, without its content.
  returned: always
  type: list
  elements: dict
  contains:
    role:
      description: The role that lands it.
      type: str
      returned: always
    path:
      description: Where it lies on the node.
      type: str
      returned: always
    owner:
      description: Its owner there.
      type: str
      returned: always
    group:
      description: Its group there.
      type: str
      returned: always
    mode:
      description: Its mode there.
      type: str
      returned: always
units:
  description: Units of the roles that have such files, with C(name), C(enabled) and C(active).
  returned: always
  type: list
  elements: dict
problems:
  description: What was left out, as warnings.
  returned: always
  type: list
  elements: dict
"""
