# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Three real nodes for the session, fresh at first; ``cluster`` sets them up once.

``BZZZ_TEST_LAB=<name>`` uses a lab that exists already, and leaves it standing; ``BZZZ_TEST_OS`` is what fresh nodes run (mixed).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import labs
import pytest
import testinfra
from labs import KEPT

from bzzz_setup.declaration import MAIN, dump, load, write
from bzzz_setup.lab import Lab

BIN = Path(sys.executable).parent
SYSTEM = os.environ.get("BZZZ_TEST_OS", "mixed")


@dataclass
class Tools:
    """The product as its users call it, on one lab's inventory folder."""

    lab: Lab
    home: Path

    @property
    def folder(self) -> Path:
        return self.lab.inventory

    @property
    def nodes(self) -> list[str]:
        return [node.name for node in self.lab.nodes]

    def environment(self, **more: str) -> dict[str, str]:
        return {**os.environ, "HOME": str(self.home), "PATH": f"{BIN}:{os.environ['PATH']}", "COLUMNS": "120", **more}

    def setup(
        self, *arguments: str, code: int | None = 0, folder: Path | None = None, given: str = "", **more: str
    ) -> subprocess.CompletedProcess[str]:
        """`bzzz-setup -i FOLDER …`; fails the test when the exit code is another than `code` (None: any). given: its standard input."""
        argv = ["bzzz-setup", "-i", str(folder or self.folder), *arguments]
        done = subprocess.run(argv, env=self.environment(**more), capture_output=True, text=True, input=given, timeout=900, check=False)
        assert code is None or done.returncode == code, f"{' '.join(argv)}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def document(self, *arguments: str, code: int | None = 0, folder: Path | None = None, **more: str) -> dict[str, Any]:
        """What `bzzz-setup --json …` prints."""
        found: dict[str, Any] = json.loads(self.setup("--json", *arguments, code=code, folder=folder, **more).stdout)
        return found

    def playbook(self, *arguments: str, code: int | None = 0, folder: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
        """`ansible-playbook -i FOLDER …`."""
        argv = ["ansible-playbook", "-i", str(folder or self.folder), *arguments]
        done = subprocess.run(
            argv, env=self.environment(**more), capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=900, check=False
        )
        assert code is None or done.returncode == code, f"{' '.join(argv)}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def declare(self, folder: Path, options: dict[str, Any] | None = None, nodes: dict[str, dict[str, Any]] | None = None) -> Path:
        """A copy of the lab's inventory folder with more options, of all or of single nodes."""
        shutil.copytree(self.folder, folder)
        write(folder / MAIN, dump({**load((folder / MAIN).read_text(encoding="utf-8")), **(options or {})}))
        for node, own in (nodes or {}).items():
            write(folder / f"host_vars/{node}.yml", dump(own))
        return folder

    def host(self, node: str) -> Any:
        """testinfra's view of a node."""
        return testinfra.get_host(f"docker://{self.lab.container(node)}")


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Three fresh nodes; others for the tests that run beside."""
    with labs.three_nodes("beside" if request.config.getoption("markexpr") == "beside" else "tests", SYSTEM) as lab:
        yield lab


@pytest.fixture(scope="session")
def bzzz(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Tools:
    """The product on the lab, with a home directory of its own."""
    home = tmp_path_factory.mktemp("home") if not KEPT else Path.home() / ".cache/bzzz/tests" / KEPT
    home.mkdir(parents=True, exist_ok=True)
    return Tools(lab, home)


@pytest.fixture(scope="session")
def cluster(bzzz: Tools) -> Tools:
    """The lab after one `bzzz-setup apply`."""
    bzzz.setup("apply")
    return bzzz
