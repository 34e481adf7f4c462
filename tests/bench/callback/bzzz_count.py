# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""For `bzzz-setup bench`: counts what Ansible sends to nodes, modules and commands outside of modules (questions), and times tasks.

Workers are forked from the process that loads callbacks, so what is wrapped here is wrapped in them. One JSON object a
line goes to the file that BZZZ_COUNT_FILE names.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: bzzz_count
type: notification
short_description: counts modules and questions
description: [Counts modules and questions.]
"""

_play = ""
_execute_module = ActionBase._execute_module
_low_level_execute_command = ActionBase._low_level_execute_command


def _note(**what: Any) -> None:
    with open(os.environ["BZZZ_COUNT_FILE"], "a", encoding="utf-8") as stream:
        stream.write(json.dumps(what) + "\n")


def _count(action: ActionBase, kind: str) -> None:
    if action._connection.transport != "local":
        _note(kind=kind, play=_play, address=action._connection.get_option("host"))


def _counted_module(self: ActionBase, *args: Any, **kwargs: Any) -> Any:
    _count(self, "modules")
    self._bzzz_in_module = True
    try:
        return _execute_module(self, *args, **kwargs)
    finally:
        self._bzzz_in_module = False


def _counted_command(self: ActionBase, *args: Any, **kwargs: Any) -> Any:
    if not getattr(self, "_bzzz_in_module", False):
        _count(self, "questions")
    return _low_level_execute_command(self, *args, **kwargs)


class CallbackModule(CallbackBase):  # type: ignore[misc]
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "bzzz_count"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        ActionBase._execute_module = _counted_module
        ActionBase._low_level_execute_command = _counted_command
        self._began = 0.0
        self._own: Counter[str] = Counter()

    def v2_playbook_on_play_start(self, play: Any) -> None:
        global _play  # noqa: PLW0603 - what a forked worker inherits
        _play = play.get_name()

    def v2_playbook_on_task_start(self, _task: Any, is_conditional: bool) -> None:
        self._began = time.monotonic()

    def v2_runner_on_ok(self, result: Any) -> None:
        self._own[result.host.get_name()] += time.monotonic() - self._began

    def v2_playbook_on_stats(self, stats: Any) -> None:
        changed = {host: stats.summarize(host)["changed"] for host in stats.processed}
        _note(kind="stats", changed=changed, own_seconds=self._own)
