# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: download
short_description: Text of a file that the admin host downloads the declared way
version_added: "0.1.0"
author:
  - BZZZ cluster setup maintainers (@bzzz)
description:
  - Goes by the proxy, its password and the certificates that role C(bzzz.cluster.downloads) is given; where it is given none,
    by those of the environment.
options:
  _terms:
    description: Addresses, C(https://) or C(http://).
    required: true
"""

EXAMPLES = r"""
- name: A release index
  ansible.builtin.debug:
    msg: "{{ lookup('bzzz.cluster.download', 'https://releases.example.com/index.json') | from_json }}"
"""

RETURN = r"""
_list:
  description: The texts.
  type: list
  elements: str
"""

from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible_collections.bzzz.cluster.plugins.module_utils.downloads import download
from ansible_collections.bzzz.cluster.plugins.plugin_utils.downloading import REMEDY, declared_way


class LookupModule(LookupBase):
    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        return [self._text(url, variables or {}) for url in terms]

    def _text(self, url: str, variables: dict[str, Any]) -> str:
        try:
            with download(url, declared_way(variables, self._templar)) as answer:
                return str(answer.read().decode())
        except (OSError, ValueError) as error:
            raise AnsibleLookupError(f"{url} could not be fetched: {error}. Remedy: {REMEDY}.") from None
