#!/usr/bin/python
# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: facts
short_description: All facts of a node in one look, once a run
version_added: 0.1.0
description:
  - Gathers what the four thin modules gather, in one execution.
  - In a play, its action plugin asks the node with one SSH command and sends no module; a node that has already been asked by
    the same run of C(ansible-playbook) is not asked again.
options:
  tool_timeout_seconds:
    description:
      - How long one tool on the node may take before its reading is given up and reported as a problem.
    type: int
    default: 10
  ollama_port:
    description:
      - Port on which an existing Ollama is looked for, besides those that a program named C(ollama) listens on.
    type: int
    default: 11434
  known:
    description:
      - Facts of an earlier run, taken for this run's without asking the node; an empty dictionary where there are none. In plays only.
    type: dict
author:
  - BZZZ cluster setup maintainers (@bzzz)
attributes:
  check_mode:
    support: full
    description: Can run in check mode without changing anything; it never changes anything.
  diff_mode:
    support: none
    description: Has nothing to compare.
  idempotent:
    support: full
    description: Looks only, and never changes anything.
  facts:
    support: full
    description: Returns its findings as C(ansible_facts).
  platform:
    support: full
    platforms: linux
    description: Reads the Linux kernel's own files and interfaces.
"""

EXAMPLES = r"""
- name: Gather what the roles need
  bzzz.cluster.facts:
    tool_timeout_seconds: 30
"""

RETURN = r"""
ansible_facts:
  description: The facts; absent where this run has gathered them before.
  type: dict
  returned: success
  contains:
    bzzz_gpu:
      description: See M(bzzz.cluster.gpu_facts).
      type: dict
      returned: success
    bzzz_network:
      description: See M(bzzz.cluster.network_facts).
      type: dict
      returned: success
    bzzz_ports:
      description: See M(bzzz.cluster.port_facts).
      type: dict
      returned: success
    bzzz_system:
      description: See M(bzzz.cluster.system_facts).
      type: dict
      returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bzzz.cluster.plugins.module_utils.node import facts


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "tool_timeout_seconds": {"type": "int", "default": 10},
            "ollama_port": {"type": "int", "default": 11434},
            "known": {"type": "dict"},  # its action's
        },
        supports_check_mode=True,
    )
    module.exit_json(ansible_facts=facts.main(module.params))


if __name__ == "__main__":
    main()
