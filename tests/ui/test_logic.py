# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What logic the wizard's page has, by its own tests (Vitest), and that its types fit."""

from __future__ import annotations

import functools
import os
import subprocess

import pytest

from bzzz_setup import terminal
from bzzz_setup.web import frontend


@pytest.mark.parametrize("command", [["npm", "test"], ["npm", "exec", "--", "tsc", "--noEmit"]], ids=["tests", "types"])
def test_the_pages_own_tests_pass_and_its_types_fit(command: list[str]) -> None:
    part = functools.partial(terminal.part, terminal.console())
    frontend.built(part)
    environment = {**os.environ, "PATH": frontend.path_with_npm(part)}
    done = subprocess.run(command, cwd=frontend.UI, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
