# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ask the AI gateway's ledger. See plugins/modules/ledger.py."""

from __future__ import annotations

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
        done = self._low_level_execute_command(shlex.join(["sh", "-c", ASK]), in_data=json.dumps(args["question"]).encode())
        if done["rc"] == 42:
            return {**result, "changed": False, "found": False}
        try:
            told = json.loads(done["stdout"]) if done["rc"] == 0 else None
        except ValueError:
            told = None
        if not isinstance(told, dict):
            said = " ".join(f"{done['stderr']} {done['stdout'][:500]}".split())[-1000:]
            raise AnsibleActionFail(f"the ledger cannot be asked: {said or 'it says nothing'}. Remedy: bzzz-setup apply --only 4")
        # Who has called what is no part of a run's journal.
        # Several gateways share a ledger and tell the same: one of their answers is left, whole.
        own = f"{args['answer']}.{os.getpid()}"
        with os.fdopen(os.open(own, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as stream:
            json.dump(told, stream)
        Path(own).replace(args["answer"])
        return {**result, "changed": False, "found": True}
