# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the service's HTTP ports have in common: who may come in, security headers, errors as RFC 9457 problem details."""

from __future__ import annotations

import hashlib
import hmac
import http
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# The prefix makes browsers insist on Secure, the path / and this very host.
COOKIE = "__Host-bzzz"
SESSION_SECONDS = 12 * 3600

# No HSTS: it would hold for every port of the node's name, also those where others serve plain HTTP.
HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
_HEADERS = {name.encode(): value.encode() for name, value in HEADERS.items()}


class SecurityHeaders:
    """Every answer gets HEADERS, except those that it has of its own."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"].endswith("http.response.start"):  # also a refused WebSocket's
                own = dict(message["headers"])
                message = {**message, "headers": [*message["headers"], *((k, v) for k, v in _HEADERS.items() if k not in own)]}
            await send(message)

        await self.app(scope, receive, send_with_headers)


class Gate:
    """Who may come in: bearers of a token whose SHA-256 is listed, and browsers that have signed in with one.

    A session is signed with a key that lives as long as the process: neither the token nor anything that outlives the
    service lies in a browser.
    """

    def __init__(self, token_sha256: tuple[str, ...], now: Callable[[], float] = time.monotonic) -> None:
        self.token_sha256 = token_sha256
        self._key = secrets.token_bytes(32)
        self._now = now

    def knows(self, token: str) -> bool:
        given = hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()
        # Every hash is compared, so that the time tells nothing.
        return sum(hmac.compare_digest(given, known) for known in self.token_sha256) > 0

    def session(self) -> str:
        until = str(int(self._now() + SESSION_SECONDS))
        return f"{until}.{self._sign(until)}"

    def _sign(self, until: str) -> str:
        return hmac.new(self._key, until.encode(), "sha256").hexdigest()

    def bears(self, connection: HTTPConnection) -> bool:
        """Whether it shows a token, which no browser sends by itself."""
        scheme, _, token = connection.headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and self.knows(token.strip())

    def admits(self, connection: HTTPConnection) -> bool:
        if connection.headers.get("authorization", "").partition(" ")[0].lower() == "bearer":
            return self.bears(connection)
        until, _, signature = connection.cookies.get(COOKIE, "").partition(".")
        genuine = hmac.compare_digest(signature.encode(), self._sign(until).encode())
        return genuine and self._now() < int(until)


def problem(status: int, detail: str, headers: dict[str, str] | None = None, **more: Any) -> Response:
    """An error as RFC 9457 problem details."""
    body = {"type": "about:blank", "title": http.HTTPStatus(status).phrase, "status": status, "detail": detail, **more}
    return JSONResponse(body, status, headers, media_type="application/problem+json")


def challenge(cluster: str) -> Response:
    """The answer to who shows no token, or a wrong one."""
    return problem(401, "This needs the cluster's token: Authorization: Bearer <token>", {"WWW-Authenticate": f'Bearer realm="{cluster}"'})


async def _http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return problem(error.status_code, error.detail, dict(error.headers or {}))


async def _failure(_request: Request, _error: Exception) -> Response:
    return problem(500, "The service failed. Its log on the node says why: journalctl -u bzzz")


def application(routes: Sequence[BaseRoute]) -> Starlette:
    """An ASGI application of these routes."""
    return Starlette(
        routes=routes,
        middleware=[Middleware(SecurityHeaders)],
        exception_handlers={HTTPException: _http_error, 500: _failure},
    )


class ByPort:
    """One application per port of this process."""

    def __init__(self, apps: Mapping[int, ASGIApp]) -> None:
        self.apps = apps

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.apps[scope["server"][1]](scope, receive, send)
