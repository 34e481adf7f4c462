# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Users, tokens and failed sign-ins of the cluster, in etcd: ``users/<name>``, ``tokens/<id>``, ``failures/<hash of the name>``.

Each node looks every ``PERIOD``, so that what is revoked on one is refused on all within seconds. Without etcd nothing of this
can be confirmed: after ``GRACE`` it holds no more. Counts of failures hang on a lease, so that a lock-out ends by itself.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ..membership import clock
from ..store import Entry, Unavailable
from .records import Token, User, account, dump, load_token, load_user

log = logging.getLogger(__name__)

PERIOD = 1.0
GRACE = 15.0
USERS, TOKENS, FAILURES = "users", "tokens", "failures"


class Store(Protocol):
    """What this asks of etcd, see ``etcd.Store``."""

    def grant(self, seconds: int) -> int: ...
    def swap(self, key: str, value: str | None, modified: int, lease: int = 0) -> bool: ...
    def read(self) -> dict[str, Entry]: ...
    def connect(self) -> None: ...


@dataclasses.dataclass(frozen=True)
class View:
    """Everything as of one moment. failures: number and revision, by hash of the name."""

    users: Mapping[str, User]
    tokens: Mapping[str, Token]
    failures: Mapping[str, tuple[int, int]]
    at: float


def _hidden(name: str) -> str:
    return hashlib.sha256(account(name).encode(errors="surrogatepass")).hexdigest()[:32]


def _excused(name: str) -> str:
    """The name by which is counted what `excuse` takes from a name."""
    return f"excused {account(name)}"


class Directory:
    """``view`` is replaced whole and may be read from any thread; everything else blocks, and raises Unavailable.

    changed: called, by the thread that looked, whenever something differs. lockout_failures, lockout_seconds: after so many failures in
    a row nobody gets in by that name for so long.
    """

    def __init__(self, store: Store, lockout_failures: int, lockout_seconds: int, now: Callable[[], float] = clock) -> None:
        self.lockout_failures, self.lockout_seconds = lockout_failures, lockout_seconds
        self.changed: Callable[[], None] = lambda: None
        self._store = store
        self._now = now
        self._lock = threading.Lock()
        self._view: View | None = None
        self._entries: dict[str, Entry] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="directory", daemon=True)

    @property
    def view(self) -> View | None:
        """The last view; None when it cannot be relied upon any more."""
        view = self._view
        return view if view and self._now() - view.at < GRACE else None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    def connect(self) -> None:
        """Use renewed certificates."""
        self._store.connect()

    def _run(self) -> None:
        reason = ""
        while not self._stop.is_set():
            try:
                self.refresh()
                reason = ""
            except Unavailable as error:
                if reason != str(error):  # membership tells of it, too
                    log.info("users and tokens cannot be looked up: %s", error)
                reason = str(error)
            except Exception:
                log.exception("users and tokens could not be looked up")
            if self.view is None and not self._stop.is_set():
                self.changed()  # who is connected by what cannot be relied upon any more has to go
            self._stop.wait(PERIOD)

    def refresh(self) -> View:
        """Look now."""
        with self._lock:
            return self._refresh()

    def _refresh(self) -> View:
        at = self._now()
        entries = self._store.read()
        if self._view and entries == self._entries:
            self._view = dataclasses.replace(self._view, at=at)
            return self._view
        users: dict[str, User] = {}
        tokens: dict[str, Token] = {}
        failures: dict[str, tuple[int, int]] = {}
        for key, entry in entries.items():
            kind, _, name = key.partition("/")
            if kind == USERS and (user := load_user(name, entry.value, entry.modified)):
                users[name] = user
            elif kind == TOKENS and (token := load_token(name, entry.value, entry.modified)):
                tokens[name] = token
            elif kind == FAILURES:
                failures[name] = _count(entry.value), entry.modified
        self._entries = entries
        self._view = View(users, tokens, failures, at)
        if not self._stop.is_set():
            self.changed()
        return self._view

    def write(self, before: User | Token | None, after: User | Token | None) -> bool:
        """Put one record in place of the other (None: none); False when it was not as it was before."""
        record = after or before
        assert record
        key = f"{USERS}/{record.name}" if isinstance(record, User) else f"{TOKENS}/{record.id}"
        with self._lock:
            done = self._store.swap(key, dump(after) if after else None, before.revision if before else 0)
            self._refresh()
            return done

    # --- failures ---

    def locked(self, name: str, view: View) -> bool:
        return self.guessed(name, view) or view.failures.get(_hidden(name), (0, 0))[0] >= self.lockout_failures

    def guessed(self, name: str, view: View) -> bool:
        """Whether a password that is kept here has been guessed at too often while another server was away."""
        return view.failures.get(_hidden(_excused(name)), (0, 0))[0] >= self.lockout_failures

    def attempt(self, name: str) -> bool:
        """Count a failure before the password is looked at, so that no two nodes take the last attempt; False when locked.

        Names that nobody has are counted, too: whether one is locked tells nothing.
        """
        return self._step(name, 1)

    def excuse(self, name: str) -> None:
        """What was counted was no failure: another server was away. It was a guess here, though, and is counted as that alone."""
        self._step(_excused(name), 1)
        self._step(name, -1)

    def _step(self, name: str, by: int) -> bool:
        key = _hidden(name)
        with self._lock:
            for _ in range(5):
                count, revision = self._refresh().failures.get(key, (0, 0))
                if by > 0 and count >= self.lockout_failures:
                    return False
                lease = self._store.grant(self.lockout_seconds)
                if self._store.swap(f"{FAILURES}/{key}", json.dumps({"count": max(0, count + by)}), revision, lease):
                    self._refresh()
                    return True
        raise Unavailable("too many sign-ins by one name at one time")

    def forgive(self, name: str) -> None:
        """Forget the failures."""
        with self._lock:
            failures = self._refresh().failures
            for key in (_hidden(name), _hidden(_excused(name))):
                _, revision = failures.get(key, (0, 0))
                if revision:
                    self._store.swap(f"{FAILURES}/{key}", None, revision)
                    self._refresh()


def _count(value: bytes) -> int:
    try:
        count: Any = json.loads(value)["count"]
    except (ValueError, TypeError, KeyError):
        return 0
    return count if isinstance(count, int) else 0
