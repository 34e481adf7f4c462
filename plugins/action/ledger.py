# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ask the AI gateway's ledger. See plugins/modules/ledger.py."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

CONFIGURATION = "/etc/bzzz/gateway/gateway.yaml"
PROGRAM = "/opt/bzzz/gateway/current/bin/bzzz-gateway"
# As the gateway's own user: a file that root makes beside the ledger would keep the gateway out.
ASK = f"test -e {CONFIGURATION} || exit 42; exec runuser -u bzzz-gateway -- /usr/bin/python3 -sE {PROGRAM} ledger"


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars or {})
        _checked, args = self.validate_argument_spec(
            {"question": {"type": "dict", "required": True}, "answer": {"type": "path", "required": True}}
        )
        answer = Path(args["answer"])
        # Several gateways share a ledger: the first that has one tells, and the others are not asked, nor told to settle anything.
        with answer.with_suffix(".lock").open("w") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            found = answer.exists() or self._told(args["question"], answer)
        return {**result, "changed": False, "found": found}

    def _told(self, question: dict[str, Any], answer: Path) -> bool:
        """Ask this node; whether it has a gateway."""
        done = self._low_level_execute_command(shlex.join(["sh", "-c", ASK]), in_data=json.dumps(question).encode())
        if done["rc"] == 42:
            return False
        try:
            told = json.loads(done["stdout"]) if done["rc"] == 0 else None
        except ValueError:
            told = None
        if not isinstance(told, dict):
            said = " ".join(f"{done['stderr']} {done['stdout'][:500]}".split())[-1000:]
            raise AnsibleActionFail(f"the ledger cannot be asked: {said or 'it says nothing'}. Remedy: bzzz-setup apply --only 4")
        # Who has called what is no part of a run's journal.
        with os.fdopen(os.open(answer, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as stream:
            json.dump(told, stream)
        return True
