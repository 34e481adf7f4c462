# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: authority
short_description: Whose certificate authority signs, and how far its rotation has come
version_added: "0.1.0"
author:
  - BZZZ cluster setup maintainers
description:
  - Judges what C(certificate_facts) has found on all nodes of a run, once for all of them.
options:
  _input:
    description: What was found, by node of this run.
    type: dict
    required: true
  coordinators:
    description: The cluster's coordinators, in this run or not.
    type: list
    elements: str
    required: true
  nodes:
    description: The cluster's nodes, in this run or not.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Who signs
  ansible.builtin.debug:
    msg: "{{ {'node1': found} | bzzz.cluster.authority(['node1'], ['node1', 'node2']) }}"
"""

RETURN = r"""
_value:
  description:
    - C(coordinators) of this run, and those that are C(missing); the C(keepers) of the authority, and the one that C(signs) with it;
      whether C(copies_missing) on others; fingerprints that C(differ) where one was to be.
    - All that are C(trusted), each as C(certificate) and C(fingerprint), the authority first; the C(next) one, if there is any, which
      C(next_keeper) keeps, and whether it was only announced (C(held)).
    - Whether all nodes of the cluster trust the next one (C(next_trusted)), and have their certificates by it (C(next_used));
      whether a rotation is C(unfinished).
  type: dict
"""

from typing import Any

from ansible_collections.bzzz.cluster.plugins.module_utils.authority import judge


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"authority": judge}
