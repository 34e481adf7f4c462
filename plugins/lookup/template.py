# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: template
short_description: Text of a template file with the task's variables
version_added: "0.1.0"
author:
  - BZZZ cluster setup maintainers (@bzzz)
description:
  - What P(ansible.builtin.template#lookup) gives, without its options. That one first copies every variable of the task, deeply and for
    each file.
  - The variables C(template_path) and so on, C(ansible_managed), and includes of other files are not there.
options:
  _terms:
    description: Files, found as those of the role's templates are.
    required: true
"""

EXAMPLES = r"""
- name: A file as a template makes it
  ansible.builtin.debug:
    msg: "{{ lookup('bzzz.cluster.template', 'config.yaml.j2') }}"
"""

RETURN = r"""
_list:
  description: The texts.
  type: list
  elements: str
"""

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible.template import trust_as_template


class LookupModule(LookupBase):
    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        return [self._text(term, variables or {}) for term in terms]

    def _text(self, term: str, variables: dict[str, Any]) -> str:
        path = self.find_file_in_search_path(variables, "templates", term)
        if not path:
            raise AnsibleLookupError(f"the template file {term} was not found in this role's templates")
        source = Path(path).read_text(encoding="utf-8")
        return str(self._templar.template(trust_as_template(source), escape_backslashes=False))
