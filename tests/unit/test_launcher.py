# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The launcher's decisions, with a stand-in Python: what it installs for real is what CI does from a clean clone."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

LAUNCHER = Path(__file__).parents[2] / "bzzz"

# As `python -m venv` and `pip install` would, it makes an environment that holds the stand-in and a bzzz-setup.
PYTHON = """\
#!/bin/sh
echo "$*" >> "$CALLS"
case "$*" in
    *"import sys, venv"*) exit "${NO_VENV:-0}" ;;
    "-m venv "*) mkdir -p "$3/bin" "$3/lib/python3.11/site-packages"; cp "$0" "$3/bin/python" ;;
    "-m pip "*)
        [ -z "${PIP_FAILS:-}" ] || { echo "no matching distribution" >&2; exit 1; }
        printf '#!/bin/sh\\necho "front $*"\\n' > "$(dirname "$0")/bzzz-setup"; chmod +x "$(dirname "$0")/bzzz-setup" ;;
esac
"""


class Checkout:
    def __init__(self, root: Path) -> None:
        self.root = root / "checkout"
        self.root.mkdir()
        shutil.copy(LAUNCHER, self.root / "bzzz")
        (self.root / "pyproject.toml").write_text("first")
        (root / "bin").mkdir()
        for name in ("python3", "python3.14", "python3.13", "python3.12", "python3.11"):
            (root / "bin" / name).write_text(PYTHON)
            (root / "bin" / name).chmod(0o755)
        self.calls = root / "calls"
        self.environment = {"PATH": f"{root / 'bin'}:/usr/bin:/bin", "CALLS": str(self.calls)}

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        self.calls.write_text("")
        return subprocess.run(
            [self.root / "bzzz", *arguments], env=self.environment | environment, capture_output=True, text=True, check=False
        )

    @property
    def made(self) -> bool:
        return "-m venv" in self.calls.read_text()

    @property
    def installed(self) -> bool:
        return "-m pip install" in self.calls.read_text()


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_first_use_makes_the_environment_and_hands_over(checkout: Checkout) -> None:
    done = checkout.run("status", "two words")
    assert (done.returncode, done.stdout) == (0, "front status two words\n")
    assert checkout.made and checkout.installed
    link = checkout.root / ".venv/lib/python3.11/site-packages/ansible_collections/bzzz/cluster"
    assert link.resolve() == checkout.root


def test_a_companys_certificates_reach_pip(checkout: Checkout) -> None:
    """Old pips heed names of their own only."""
    for name in ("python3", "python3.11"):
        program = checkout.root.parent / "bin" / name
        program.write_text(program.read_text().replace('echo "$*" >>', 'echo "$* cert=${PIP_CERT:-}" >>'))
    checkout.run(SSL_CERT_FILE="/etc/company.pem")
    assert "cert=/etc/company.pem" in checkout.calls.read_text()
    (checkout.root / "pyproject.toml").write_text("second")
    checkout.run(SSL_CERT_FILE="/etc/company.pem", REQUESTS_CA_BUNDLE="/etc/other.pem")
    assert checkout.installed and "/etc/company.pem" not in checkout.calls.read_text()


def test_a_ready_environment_is_not_touched(checkout: Checkout) -> None:
    checkout.run()
    done = checkout.run("apply")
    assert done.stdout == "front apply\n" and done.stderr == ""
    assert checkout.calls.read_text() == ""


def test_changed_dependencies_are_installed_into_it(checkout: Checkout) -> None:
    checkout.run()
    (checkout.root / "pyproject.toml").write_text("second")
    assert checkout.run().returncode == 0
    assert checkout.installed and not checkout.made


def test_an_interrupted_first_installation_begins_anew(checkout: Checkout) -> None:
    failed = checkout.run(PIP_FAILS="1")
    assert failed.returncode == 3 and "no matching distribution" in failed.stderr
    assert checkout.run("again").stdout == "front again\n"
    assert checkout.made


def test_a_moved_checkout_begins_anew(checkout: Checkout, tmp_path: Path) -> None:
    checkout.run()
    checkout.root = checkout.root.rename(tmp_path / "moved")
    assert checkout.run().returncode == 0
    assert checkout.made


def test_it_works_through_a_link_from_anywhere(checkout: Checkout, tmp_path: Path) -> None:
    link = tmp_path / "bin/bzzz"
    link.symlink_to(checkout.root / "bzzz")
    done = subprocess.run([link, "x"], cwd="/", env=checkout.environment, capture_output=True, text=True, check=False)
    assert done.stdout == "front x\n"


@pytest.fixture
def other_user(tmp_path: Path) -> list[str]:
    """The words that run a command as somebody who is not root."""
    if os.geteuid() != 0:
        return []
    folder = tmp_path
    while folder != Path("/tmp") and folder != folder.parent:
        folder.chmod(0o755)
        folder = folder.parent
    return ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


def test_a_read_only_checkout_is_told_what_to_do(checkout: Checkout, other_user: list[str]) -> None:
    checkout.root.chmod(0o555)
    done = subprocess.run([*other_user, checkout.root / "bzzz"], env=checkout.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "not writable" in done.stderr and "Copy the checkout" in done.stderr


def test_a_missing_venv_module_is_told_to_who_is_not_root(checkout: Checkout, other_user: list[str]) -> None:
    # Nothing but the stand-ins: this machine's own Python may well do.
    for folder in (checkout.root, checkout.calls.parent):
        folder.chmod(0o777)
    tools = checkout.calls.parent / "bin"
    for name in ("sh", "readlink", "dirname", "cksum", "cat", "id", "mkdir", "flock", "tail"):
        (tools / name).symlink_to(shutil.which(name) or name)
    setpriv = [shutil.which(other_user[0]) or "", *other_user[1:]] if other_user else []
    environment = {"PATH": str(tools), "CALLS": "/dev/null", "NO_VENV": "1"}
    done = subprocess.run([*setpriv, checkout.root / "bzzz"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "apt-get install python3 python3-venv" in done.stderr
