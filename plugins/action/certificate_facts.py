# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Controller side of ``certificate_facts``: one question."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from ..plugin_utils.question import ask


class ActionModule(ActionBase):
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _validated, payload = self.validate_argument_spec(
            argument_spec={
                "tls_directory": {"type": "path", "required": True},
                "ca_directory": {"type": "path", "required": True},
                "names": {"type": "list", "elements": "str", "required": True},
                "renew_before_days": {"type": "int", "required": True},
            }
        )
        answer = ask(self, "certificates", payload, task_vars or {})
        result.update({part: answer[part] for part in ("authority", "next", "held", "leaf")})
        problems = result["leaf"]["problems"]
        # In check mode nothing is issued: the plan must show here what would be.
        result["changed"] = bool(problems) and self._task.check_mode
        result["changes"] = (
            [{"kind": "certificate", "name": "node.crt", "what": f"issue: {'; '.join(problems)}"}] if result["changed"] else []
        )
        return result
