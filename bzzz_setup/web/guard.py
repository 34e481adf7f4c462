# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What stands before every request: how much, how often, and from where."""

from __future__ import annotations

import collections
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bzzz_setup.node.setup import BODY_BYTES
from bzzz_setup.node.web import problem

# Of one address: so many at once, and so many a second in the long run.
BURST, PER_SECOND = 300, 60
SOURCES = 1024


def same_site(connection: HTTPConnection) -> bool:
    """Whether the page that asks is one of this server's: a browser's cookie goes with any site's request."""
    origin, host = connection.headers.get("origin", ""), connection.headers.get("host", "")
    return bool(host) and urlsplit(origin).netloc.lower() == host.lower()


class Guard:
    """Answers 413 and 429, and 403 for a host name that this server does not have (DNS rebinding)."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str], now: Callable[[], float] = time.monotonic) -> None:
        self.app, self._hosts, self._now = app, hosts, now
        # Address -> what is left to it, and when that was.
        self._left: collections.OrderedDict[str, tuple[float, float]] = collections.OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refused = None
        if (urlsplit(f"//{headers.get('host', '')}").hostname or "") not in self._hosts:
            refused = problem(403, "This server is not called so", hosts=sorted(self._hosts))
        elif not self._may(scope["client"][0] if scope.get("client") else ""):
            refused = problem(429, "Too many requests from this address", {"Retry-After": "1"})
        elif headers.get("content-length", "0").isdecimal() and int(headers.get("content-length", "0")) > BODY_BYTES:
            refused = problem(413, f"At most {BODY_BYTES} bytes are read")
        if refused is None:
            await self.app(scope, _bounded(receive), send)
        elif scope["type"] == "http":
            if refused.status_code != 413:
                await _read(_bounded(receive))
            await refused(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    def _may(self, source: str) -> bool:
        now = self._now()
        left, since = self._left.get(source, (float(BURST), now))
        left = min(float(BURST), left + (now - since) * PER_SECOND)
        self._left[source] = (max(0.0, left - 1), now)
        self._left.move_to_end(source)
        if len(self._left) > SOURCES:
            self._left.popitem(last=False)
        return left >= 1


async def _read(receive: Receive) -> None:
    """Who still writes when the connection is closed may never see the answer, as the node service that hands on a request."""
    while (message := await receive())["type"] == "http.request" and message.get("more_body", False):
        pass


def _bounded(receive: Receive) -> Receive:
    """A body that is sent in pieces ends where it is too large."""
    seen = 0

    async def receive_some() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        return message if seen <= BODY_BYTES else {"type": "http.disconnect"}

    return receive_some
