# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: release
short_description: Choose a release of the node service from an index
version_added: "0.1.0"
author:
  - BZZZ cluster setup maintainers
description:
  - The newest release of a channel, or a given version, that fits a node's Python and architecture.
options:
  _input:
    description: The release index.
    type: dict
    required: true
  channel:
    description: Release channel.
    type: str
    required: true
  version:
    description: Version; when empty, the newest.
    type: str
    required: true
  python:
    description: The node's Python version.
    type: str
    required: true
  architecture:
    description: The node's architecture, as C(uname -m) says it.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: What would be installed
  ansible.builtin.debug:
    msg: "{{ index | bzzz.cluster.release('stable', '', '3.11', 'x86_64') }}"
"""

RETURN = r"""
_value:
  description: The entry of the index.
  type: dict
"""

from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.bzzz.cluster.plugins.module_utils.releases import ReleaseError, choose


def release(index: dict[str, Any], channel: str, version: str | None, python: str, architecture: str) -> dict[str, Any]:
    try:
        return choose(index, python, architecture, channel, version or None)
    except ReleaseError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"release": release}
