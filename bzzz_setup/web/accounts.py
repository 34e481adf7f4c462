# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who may use the wizard: the users and tokens of role `auth`, kept on this host until there is a cluster that keeps them.

The first of them is made with a claim: a token that is told once, on the terminal that the wizard was started from.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bzzz_setup.declaration import write
from bzzz_setup.node.store import Entry


class FileStore:
    """What `node.auth.directory.Directory` asks of etcd, in one file of this user's. Safe among processes."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def connect(self) -> None:
        """There is no connection."""

    def grant(self, seconds: int) -> int:
        """A lease is the time at which it ends."""
        return int(time.time()) + seconds

    def read(self) -> dict[str, Entry]:
        return {key: _entry(kept) for key, kept in self._kept()["entries"].items() if not _ended(kept)}

    def swap(self, key: str, value: str | None, modified: int, lease: int = 0) -> bool:
        with self._locked():
            kept = self._kept()
            entries = {name: entry for name, entry in kept["entries"].items() if not _ended(entry)}
            if entries.get(key, {}).get("modified", 0) != modified:
                return False
            revision = int(kept["revision"]) + 1
            if value is None:
                entries.pop(key, None)
            else:
                created = entries.get(key, {}).get("created", revision)
                text = base64.b64encode(value.encode()).decode()
                entries[key] = {"value": text, "created": created, "modified": revision, "lease": lease}
            write(self.file, json.dumps({"revision": revision, "entries": entries}) + "\n", 0o600)
            return True

    def _kept(self) -> dict[str, Any]:
        try:
            kept: dict[str, Any] = json.loads(self.file.read_text(encoding="utf-8"))
            return kept
        except FileNotFoundError:
            return {"revision": 0, "entries": {}}

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.file.with_name(f".{self.file.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _entry(kept: dict[str, Any]) -> Entry:
    return Entry(base64.b64decode(kept["value"]), kept["created"], kept["modified"], kept["lease"])


def _ended(kept: dict[str, Any]) -> bool:
    return bool(kept["lease"]) and bool(time.time() >= kept["lease"])


class Claim:
    """The one-time token for making the first account. Only its hash is kept, and only until it is used."""

    def __init__(self) -> None:
        self.token = secrets.token_urlsafe(24)
        self._sha256: str | None = hashlib.sha256(self.token.encode()).hexdigest()

    @property
    def open(self) -> bool:
        return self._sha256 is not None

    def fits(self, token: str) -> bool:
        given = hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()
        return self._sha256 is not None and hmac.compare_digest(given, self._sha256)

    def use(self) -> None:
        """It is good for nothing any more."""
        self._sha256 = None
