# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The wizard as a person starts it, and as a browser shows it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bzzz_setup import machine
from bzzz_setup.events import Refusal

PASSWORD = "correct horse battery"


def canary(option: str, number: int) -> str:
    """A secret that is told from all others, in the form that the option wants."""
    text = f"c4nary-{number}-of-a-secret-that-is-long-enough"
    forms = {"alerting_slack_url": "https://h/{}", "cost_database_url": "postgresql://u:{}@h/l", "downloads_proxy_credentials": "u:{}"}
    return forms.get(option, "{}").format(text)


@dataclass
class Server:
    """`bzzz-setup web` as a person starts it; `said` is what it printed."""

    inventory: Path
    home: Path
    more: dict[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    said: list[str] = field(default_factory=list)
    process: subprocess.Popen[str] | None = None

    def start(self, port: int = 0) -> None:
        environment = {**os.environ, "HOME": str(self.home), "COLUMNS": "200"}
        environment = {name: value for name, value in environment.items() if not name.startswith(("XDG_", "BZZZ_"))}
        environment |= self.more
        command = [sys.executable, "-m", "bzzz_setup", "web", "-i", str(self.inventory), *(self.arguments or ("--port", str(port)))]
        self.process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr
        threading.Thread(target=self._read, args=(self.process.stderr,), daemon=True).start()
        until = time.monotonic() + 240  # the first time, the page is built
        while not self.link:
            assert self.process.poll() is None and time.monotonic() < until, self.said
            time.sleep(0.1)

    def _read(self, stream: Any) -> None:
        for line in stream:
            self.said.append(line)

    @property
    def link(self) -> str:
        found = re.findall(r"https?://\S+", "".join(self.said))
        return found[-1] if found else ""

    @property
    def address(self) -> str:
        return self.link.partition("#")[0].rstrip("/")

    def stop(self) -> None:
        assert self.process
        self.process.terminate()
        self.process.wait(20)


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """A real browser. Where none can be had, the test is skipped with the reason; in CI that is a failure."""
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


def own_home(base: Path) -> Path:
    """A home directory, from which this machine gets at packages as it does."""
    home = base / "home"
    home.mkdir(exist_ok=True)
    return with_npm(home)


def with_npm(home: Path) -> Path:
    if (npmrc := Path.home() / ".npmrc").is_file():
        shutil.copy(npmrc, home)
    return home


@dataclass
class Screen:
    """A page, and what its console complained about."""

    page: Any
    complaints: list[str] = field(default_factory=list)

    def heading(self, text: str, seconds: float = 30) -> None:
        self.page.get_by_role("heading", level=1).filter(has_text=text).wait_for(timeout=seconds * 1000)

    def surely(self, name: str) -> None:
        """Press a button that asks first, and mean it."""
        self.page.get_by_role("button", name=name).click()
        self.page.get_by_role("alertdialog").get_by_role("button", name=name).click()

    def ended(self, seconds: float = 300) -> None:
        """The run that is shown has ended well."""
        self.page.get_by_text("Fine", exact=True).wait_for(timeout=seconds * 1000)
