# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Probe of what a configuration set has loaded into the kernel or a daemon: is it still so, line by line?"""

from __future__ import annotations

import difflib

from . import state
from .probes import Node, Outcome, outcome

SHOWN = 5  # lines that differ


def loaded(_node: Node, *, set: str, name: str) -> Outcome:
    """What `config_set` loaded under this name is in force as it was after the last apply."""
    expected = "as applied"
    applied = state.read_state(set)["applied"].get(name)
    if applied is None:
        return outcome(False, "nothing was applied yet", expected)
    now = state.loaded_now(applied)["answer"]
    if now == applied["answer"]:
        return outcome(True, expected, expected)
    if not now.startswith("0\n"):  # the query's exit code
        return outcome(False, "nothing of it is in force any more", expected)
    lines = [line for line in difflib.ndiff(applied["answer"].splitlines(), now.splitlines()) if line[:2] in ("+ ", "- ")]
    said = [f"{'added' if line[0] == '+' else 'missing'}: {line[2:].strip()}" for line in lines]
    more = [f"and {len(said) - SHOWN} more lines"] if len(said) > SHOWN else []
    return outcome(False, "; ".join(said[:SHOWN] + more), expected)


KINDS = {"loaded": loaded}
