# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who asks, by the token that comes with a call: from a file of hashes, or from this node's service, which knows the cluster's tokens."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Identity:
    """``projects``: those that the user may name; the first is what counts when none is named. Empty: none at all."""

    user: str
    projects: tuple[str, ...] = ()


class Unsure(Exception):
    """Whether a token is good cannot be told now."""


class Source(Protocol):
    """Looks a token up; None when nobody has it. Raises Unsure. ``known`` waits for nobody: None where ``find`` has to."""

    def known(self, token: str) -> tuple[Identity | None] | None: ...

    def find(self, token: str) -> Identity | None: ...


def hashed(token: str) -> str:
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()


class FileTokens:
    """``{"tokens": [{"sha256": …, "user": "anna", "projects": ["search"], "expires": 1790000000}]}``; looked at again when it has changed.

    The hash is the cluster's (role auth: SHA-256 of the whole token, which is random, so that no slower hash is needed).
    A file that cannot be read any more keeps nobody in.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: tuple[int, ...] = ()
        self._known: dict[str, tuple[Identity, float]] = {}
        self._lock = threading.Lock()

    def known(self, token: str) -> tuple[Identity | None] | None:
        return (self.find(token),)

    def find(self, token: str) -> Identity | None:
        with self._lock:
            try:
                about = self.path.stat()
                stamp = (about.st_mtime_ns, about.st_size, about.st_ino)
                if stamp != self._stamp:
                    self._known, self._stamp = _read(self.path.read_bytes()), stamp
            except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
                self._stamp = ()
                raise Unsure(f"{self.path} cannot be read: {type(error).__name__}") from error
            identity, expires = self._known.get(hashed(token), (None, 0.0))
        return identity if identity and time.time() < expires else None


def _read(content: bytes) -> dict[str, tuple[Identity, float]]:
    known = {}
    for each in json.loads(content)["tokens"]:
        projects = each.get("projects", [])
        if not isinstance(each["user"], str) or not each["user"] or not isinstance(projects, list):
            raise ValueError("user or projects")
        known[each["sha256"]] = (Identity(each["user"], tuple(map(str, projects))), float(each.get("expires", "inf")))
    return known


class NodeTokens:
    """Asks the node service (``GET /api/v1/me``) and believes its answer for ``seconds``; so what is revoked is refused soon after.

    The service knows names, but no projects: those are of the gateway's file (``members``).
    """

    def __init__(self, url: str, ca: str | None, members: Mapping[str, tuple[str, ...]], seconds: float = 5) -> None:
        import httpx  # noqa: PLC0415 - comes with LiteLLM

        self.url, self.members, self.seconds = url.rstrip("/") + "/api/v1/me", members, seconds
        self._client = httpx.Client(verify=_context(ca), timeout=5, trust_env=False)
        self._known: dict[str, tuple[Identity | None, float]] = {}
        self._lock = threading.Lock()

    def known(self, token: str) -> tuple[Identity | None] | None:
        """What is believed of a token now, without asking; None where it has to be asked for."""
        with self._lock:
            identity, until = self._known.get(hashed(token), (None, 0.0))
        return (identity,) if time.monotonic() < until else None

    def find(self, token: str) -> Identity | None:
        if known := self.known(token):
            return known[0]
        key, now = hashed(token), time.monotonic()
        identity = self._ask(token)
        with self._lock:
            if len(self._known) > 10_000:  # wrong ones are remembered, too
                self._known.clear()
            self._known[key] = (identity, now + self.seconds)
        return identity

    def _ask(self, token: str) -> Identity | None:
        try:
            answer = self._client.get(self.url, headers={"Authorization": f"Bearer {token}"})
            if answer.status_code in (401, 403):
                return None
            answer.raise_for_status()
            about: dict[str, Any] = answer.json()
            # `api`: a node service that is older than this gateway does not tell of models.
            if not {"models", "api"} & set(about["scopes"]):
                return None
            # A token's name comes with its number: the next one of that name goes on with the same budget.
            name = str(about["name"] or about["kind"]).partition("/")[0]
            return Identity(name, self.members.get(name, ()))
        except Exception as error:  # whatever it is: the message of a client may tell what was sent
            raise Unsure(f"the node service at {self.url} does not answer: {type(error).__name__}") from None


def _context(ca: str | None) -> Any:
    import ssl  # noqa: PLC0415 - where there is one to ask

    return ssl.create_default_context(cafile=ca)
