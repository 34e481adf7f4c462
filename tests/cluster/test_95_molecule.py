# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Molecule's scenarios, each on lab nodes of its own: set up, again without a change, verified by the collection's own probes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from conftest import BIN

from bzzz_setup.lab import CHECKOUT
from bzzz_setup.machine import prepare

pytestmark = pytest.mark.alone


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")  # short: sockets are in it


def passes(scenario: str, home: Path) -> None:
    prepare(print)
    command = [BIN / "molecule", "test", "--scenario-name", scenario]
    environment = {**os.environ, "HOME": str(home), "PATH": f"{BIN}:{os.environ['PATH']}", "NO_COLOR": "1"}
    done = subprocess.run(
        command, cwd=CHECKOUT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=1800, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.requirement("1.3.1", part="the role alone, in a playbook of somebody else's")
def test_a_role_works_alone_on_hosts_of_another_group(home: Path) -> None:
    passes("firewall", home)


@pytest.mark.slow
@pytest.mark.requirement("F8", part="as Molecule runs it")
def test_the_whole_set_up(home: Path) -> None:
    passes("default", home)


@pytest.mark.slow
@pytest.mark.parametrize("release", ["bookworm", "trixie"])
def test_the_whole_set_up_on_a_release(home: Path, release: str) -> None:
    passes(release, home)


def test_every_scenario_has_its_test() -> None:
    assert {path.parent.name for path in CHECKOUT.glob("molecule/*/molecule.yml")} == {"default", "firewall", "bookworm", "trixie"}
