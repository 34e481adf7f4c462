# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Controller side of ``run_record``: one question to one node. See plugins/modules/run_record.py."""

from __future__ import annotations

import hashlib
import time
from typing import Any

from ansible.plugins.action import ActionBase

from ..plugin_utils.question import ask
from ..plugin_utils.run import run_id

STATUSES = ("pass", "warn", "fail", "skip")
# The record is read by every node every second: it names the first that failed, not all.
NAMED = 20


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _validated, args = self.validate_argument_spec(
            {
                "cluster": {"type": "str", "required": True},
                "endpoints": {"type": "list", "elements": "str", "required": True},
                "nodes": {"type": "list", "elements": "str", "required": True},
                "checks": {"type": "list", "elements": "dict", "required": True},
            }
        )
        record = recorded(args["nodes"], args["checks"])
        record["run"] = hashlib.sha256(run_id().encode()).hexdigest()[:12]
        result.update(changed=False, record=record)
        if self._task.check_mode:
            return result
        payload = {"endpoints": args["endpoints"], "key": f"/bzzz/{args['cluster']}/run", "record": record}
        answer = ask(self, "run_record", payload, task_vars or {})
        if not answer["recorded"]:
            # The checks have said what is wrong; that nobody hears of them is no failure of its own.
            result["warnings"] = [f"this run was not recorded in the cluster: {str(answer['reason'])[:500]}"]
        return result


def recorded(nodes: list[str], checks: list[dict[str, Any]]) -> dict[str, Any]:
    """The record of a run over these nodes with these checks; a node without any was lost on the way."""
    lost = sorted(set(nodes) - {str(check.get("node")) for check in checks})
    failed = [check for check in checks if check.get("status") == "fail"]
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "outcome": "failed" if failed or lost else "passed",
        "nodes": sorted(set(nodes) - set(lost)),
        "lost": lost,
        "checks": {status: sum(check.get("status") == status for check in checks) for status in STATUSES},
        "failed": [{key: str(check.get(key, "")) for key in ("node", "role", "id", "title")} for check in failed[:NAMED]],
    }
