# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What knows people outside of the cluster, and may be away: looked at now and then, so that health tells before anybody signs in."""

from __future__ import annotations

import abc
import contextlib
import logging
import threading
from collections.abc import Iterator

from ..checks import PASS, WARN, Check

log = logging.getLogger(__name__)

PERIOD, PERIOD_AWAY = 300.0, 15.0
# To connect, and to wait for each answer.
TIMEOUT = 5


class Away(Exception):
    """It could not be asked; the message is the reason, fit to be shown to anybody."""


class Locked(Exception):
    """Too many wrong passwords in a row."""


class Outside(abc.ABC):
    """``reason`` is why it cannot be asked, None when it can. ``look`` and what subclasses ask block."""

    def __init__(self, kind: str, address: str) -> None:
        self.kind, self.address = kind, address
        self.reason: str | None = None
        self.asked = False
        self._due = threading.Event()
        self._stop = False
        self._thread = threading.Thread(target=self._run, name=kind, daemon=True)

    @abc.abstractmethod
    def look(self) -> None:
        """Ask for what a sign-in needs; raises Away."""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop = True
        self._due.set()

    def soon(self) -> None:
        """Look without waiting for the period's end."""
        self._due.set()

    @contextlib.contextmanager
    def telling(self) -> Iterator[None]:
        """What is asked here may raise Away, and that is told; that it answers again is told by the next look."""
        try:
            yield
        except Away as away:
            self.told(str(away))
            self.soon()
            raise

    def _run(self) -> None:
        while not self._stop:
            self._due.clear()
            try:
                self.look()
                self.told(None)
            except Away as away:
                self.told(str(away))
            except Exception as error:
                log.exception("%s: %s could not be looked at", self.kind, self.address)
                self.told(f"its answer was not understood ({type(error).__name__})")
            self._due.wait(PERIOD_AWAY if self.reason else PERIOD)

    def told(self, reason: str | None) -> None:
        """Take note of how asking ended."""
        if reason != self.reason:
            log.log(
                logging.WARNING if reason else logging.INFO,
                "%s: %s",
                self.kind,
                f"nobody can sign in by {self.address}: {reason}" if reason else f"{self.address} answers again",
            )
        self.reason, self.asked = reason, True

    def check(self) -> Check:
        """The node is fit for work without it."""
        if self.reason:
            return Check(self.kind, WARN, f"{self.address}: {self.reason}", ready=False)
        return Check(self.kind, PASS, f"{self.address} answers", ready=False, done=self.asked)
