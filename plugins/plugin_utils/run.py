# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tell one run of ansible-playbook from every other, so that what is done once a run can be recognised as done."""

from __future__ import annotations

import os
from pathlib import Path


def run_id(proc: str = "/proc") -> str:
    """``<boot>-<pid>-<start time>`` of the ansible-playbook process; for use in action plugins.

    An action runs in a worker whose parent is that process. The process id alone comes back after a while, the start
    time (clock ticks since boot) after a reboot: facts in a persistent cache must not pass for this run's.
    """
    pid = os.getppid()
    boot = Path(proc, "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    # The program's name is in brackets and may hold anything; the start time is the 20th field after it.
    started = Path(proc, str(pid), "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
    return f"{boot}-{pid}-{started}"
