# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: served
short_description: What the cluster's own Ollama is set to give each model
version_added: "0.1.0"
author:
  - BZZZ cluster setup maintainers
description:
  - Context length and requests at the same time, as declared, else the most that a wanted model wishes. The plan of models counts the same.
options:
  _input:
    description: The declared options of role ollama.
    type: dict
    required: true
  wishes:
    description: The wanted models, as C(models_wanted) has them.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Context of each model
  ansible.builtin.debug:
    msg: "{{ (declared.ollama | bzzz.cluster.served(declared.models.wanted)).context_length }}"
"""

RETURN = r"""
_value:
  description: C(context_length) and C(num_parallel).
  type: dict
"""

from typing import Any

from ansible_collections.bzzz.cluster.plugins.module_utils.models.wanted import served


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"served": served}
