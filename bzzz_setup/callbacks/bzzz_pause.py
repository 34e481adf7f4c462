# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Loaded by ansible-playbook, in its own process: lets a run wait between two steps for as long as it is asked to.

Between steps only: within one, a node may be waiting for a word that keeps it from rolling back.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

LOOK_SECONDS = 0.2
STEP = re.compile(r"Step \d+ of \d+")


class CallbackModule(CallbackBase):  # type: ignore[misc]
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "bzzz_pause"

    def v2_playbook_on_play_start(self, play: Any) -> None:
        if not STEP.match(play.get_name()):
            return
        folder = Path(os.environ["BZZZ_RUN_FOLDER"])
        waits = folder / "waits"
        try:
            while (folder / "pause").exists():
                waits.write_text(play.get_name(), encoding="utf-8")
                time.sleep(LOOK_SECONDS)
        finally:
            waits.unlink(missing_ok=True)
