# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Controller side of ``kept_secrets``: one question; the task must have ``no_log``."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ..plugin_utils.question import ask


class ActionModule(ActionBase):
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        if not self._task.no_log:
            raise AnsibleActionFail("kept_secrets returns secrets: give the task 'no_log: true'.")
        result: dict[str, Any] = super().run(tmp, task_vars)
        _validated, payload = self.validate_argument_spec(argument_spec={"paths": {"type": "list", "elements": "path", "required": True}})
        result.update(changed=False, secrets=ask(self, "secret_store", payload, task_vars or {})["secrets"])
        return result
