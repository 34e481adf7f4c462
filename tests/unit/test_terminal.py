# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a person sees while something takes its time."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from bzzz_setup import terminal


@pytest.mark.parametrize("is_terminal", [True, False])
def test_what_takes_long_says_what_it_is_and_how_long_it_took(is_terminal: bool) -> None:
    out = Console(file=io.StringIO(), force_terminal=is_terminal, width=100)
    with terminal.part(out, "building the page [Vite]"):
        pass
    told = out.file.getvalue()  # type: ignore[attr-defined]
    assert "building the page [Vite]" in told and " s" in told


def test_what_fails_is_not_said_to_be_done() -> None:
    out = Console(file=io.StringIO(), force_terminal=True, width=100)
    with pytest.raises(ValueError), terminal.part(out, "building"):
        raise ValueError
    assert "✔" not in out.file.getvalue()  # type: ignore[attr-defined]
