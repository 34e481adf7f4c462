# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Listen for a short while on a node's ports that have no service yet. See plugins/modules/port_listen.py."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.bzzz.cluster.plugins.plugin_utils.question import ask


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        _checked, args = self.validate_argument_spec(
            {
                "ports": {"type": "list", "elements": "int", "default": []},
                "seconds": {"type": "int", "default": 30},
                "state": {"type": "str", "choices": ["started", "stopped"], "default": "started"},
            }
        )
        ports = args["ports"] if args["state"] == "started" else []
        result.update(changed=False, listening=[], taken={})  # what is gone by itself in half a minute is no change
        if not self._task.check_mode:
            answer = ask(self, "listen", {"ports": ports, "seconds": args["seconds"]}, task_vars)
            result.update(listening=answer["listening"], taken=answer["taken"])
        return result
