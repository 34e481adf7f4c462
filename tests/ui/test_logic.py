# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What logic the wizard's page has, by its own tests (Vitest)."""

from __future__ import annotations

import os
import subprocess

from bzzz_setup.web import frontend


def test_the_pages_own_tests_pass() -> None:
    frontend.built(print)
    environment = {**os.environ, "PATH": frontend.path_with_npm(print)}
    done = subprocess.run(["npm", "test"], cwd=frontend.UI, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
