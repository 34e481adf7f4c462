# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The front as a wheel, made of what is committed: the wizard comes with its page, where there is neither checkout nor Node.js."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import requests
from front import Front
from wizard import Server, own_home

from bzzz_setup.lab import CHECKOUT
from bzzz_setup.web import frontend


def copied(target: Path) -> Path:
    """What is or would be committed; and what npm has fetched, which is no part of it."""
    listed = subprocess.run(["git", "ls-files", "-zco", "--exclude-standard"], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (CHECKOUT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, target / name)
    (target / "bzzz_setup/web/ui/node_modules").symlink_to(frontend.UI / "node_modules")
    return target


@pytest.mark.requirement("T1", part="an installed wheel carries the page")
def test_a_wheel_carries_the_page(tmp_path: Path) -> None:
    frontend.built(contextlib.nullcontext)
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    source = copied(tmp_path / "source")
    assert not (source / "bzzz_setup/web/ui/dist").exists()
    (source / "build/lib/bzzz_setup").mkdir(parents=True)
    (source / "build/lib/bzzz_setup/gone.py").touch()  # of an earlier wheel
    subprocess.run([*pip, "wheel", "--no-deps", "-w", tmp_path, source], check=True, timeout=300)
    (wheel,) = tmp_path.glob("bzzz_setup-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "bzzz_setup/gone.py" not in names
    assert not [name for name in names if "/ui/" in name and "/ui/dist/" not in name], "sources would be built anew"

    subprocess.run([*pip, "install", "--no-deps", "--target", tmp_path / "site", wheel], check=True, timeout=120)
    shutil.rmtree(source)
    front = Front(tmp_path)
    bare = tmp_path / "bin"  # no npm
    bare.mkdir()
    found = {"HOME": str(tmp_path), "PYTHONPATH": str(tmp_path / "site"), "PYTHONSAFEPATH": "1"}
    alone = subprocess.run([sys.executable, "-S", "-m", "bzzz_setup"], env=found, capture_output=True, text=True, timeout=60, check=False)
    assert alone.returncode == 2 and "Remedy: ansible-galaxy collection install" in alone.stderr
    environment = {"PYTHONPATH": str(tmp_path / "site"), "PYTHONSAFEPATH": "1", "PATH": str(bare)}
    server = Server(front.inventory, own_home(tmp_path), environment)
    server.start()
    try:
        page = requests.get(server.address, timeout=10)
        assert "BZZZ" in page.text
        for asset in re.findall(r'(?:src|href)="(/assets/[^"]+)"', page.text):
            assert requests.get(f"{server.address}{asset}", timeout=10).status_code == 200
        assert re.findall(r'src="/assets/', page.text)
        assert not any("building" in line for line in server.said)
    finally:
        server.stop()
