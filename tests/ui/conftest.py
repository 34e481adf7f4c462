# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A real browser. Where none can be had, the tests are skipped with the reason; in CI that is a failure."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from bzzz_setup import machine
from bzzz_setup.events import Refusal


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    try:
        program = machine.browser(print)
        from playwright.sync_api import sync_playwright
    except (Refusal, ModuleNotFoundError) as missing:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"no browser to test with: {missing}")
    with sync_playwright() as playwright:
        # Chromium's own sandbox needs what containers and root have not; the pages are ours.
        started = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()
