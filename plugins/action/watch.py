# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Hand on what a coordinator tells of its cluster, as it happens. See plugins/modules/watch.py."""

from __future__ import annotations

import fcntl
import json
import shlex
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

PROGRAM = "/opt/bzzz/current/bin/bzzz-node"


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars or {})
        _checked, args = self.validate_argument_spec(
            {"feed": {"type": "path", "required": True}, "seconds": {"type": "float", "default": 20}}
        )
        feed = Path(args["feed"])
        count = 0
        # One coordinator tells; another takes its place when it cannot any more.
        with feed.with_suffix(".lock").open("w") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            last = ""
            while feed.exists():
                lines = self._told(last, args["seconds"])
                with feed.open("a", encoding="utf-8") as stream:
                    stream.writelines(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines)
                last, count = lines[-1]["id"], count + len(lines)
        result.update(changed=False, lines=count)
        return result

    def _told(self, last: str, seconds: float) -> list[dict[str, Any]]:
        asked = [PROGRAM, "watch", "--seconds", f"{seconds:g}", *(["--last", last] if last else [])]
        done = self._low_level_execute_command(shlex.join(["/usr/bin/python3", "-sE", *asked]))
        try:
            if done["rc"] == 0:
                found = [json.loads(line) for line in done["stdout"].splitlines() if line.startswith("{")]
                if found and all("id" in line for line in found):
                    return found
        except ValueError:
            pass
        said = " ".join(f"{done['stderr']} {done['stdout']}".split())[-500:]
        raise AnsibleActionFail(f"the node service cannot be listened to: {said or 'it says nothing'}. Remedy: bzzz-setup apply")
