# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Fresh lab nodes for tests, or those of the lab that BZZZ_TEST_LAB names, which stay."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest

from bzzz_setup.declaration import MAIN, dump, load, write
from bzzz_setup.events import Refusal
from bzzz_setup.lab import Lab
from bzzz_setup.machine import prepare

KEPT = os.environ.get("BZZZ_TEST_LAB")


@contextlib.contextmanager
def three_nodes(name: str, system: str) -> Iterator[Lab]:
    """Where no lab can be had, the test is skipped with the reason; in CI that is a failure."""
    lab = Lab(KEPT or name)
    try:
        prepare(print)
        if not KEPT:
            lab.down()  # what a killed run left
        if not (KEPT and lab.nodes):
            lab.up(3, system=system)
            # A mirror that is slow for a moment would be a warning in every test; test_30 looks for itself.
            options = load((lab.inventory / MAIN).read_text(encoding="utf-8"))
            write(lab.inventory / MAIN, dump({**options, "network_egress": []}))
    except Refusal as refusal:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"no lab: {refusal}")
    yield lab
    if not KEPT:
        lab.down()
