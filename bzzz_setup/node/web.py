# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the service's HTTP ports have in common: security headers, bodies, errors as RFC 9457 problem details."""

from __future__ import annotations

import http
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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

# What a browser's Host is made of.
HOST = re.compile(r"[A-Za-z0-9.:\[\]-]{1,255}")


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


def problem(status: int, detail: str, headers: dict[str, str] | None = None, **more: Any) -> Response:
    """An error as RFC 9457 problem details."""
    body = {"type": "about:blank", "title": http.HTTPStatus(status).phrase, "status": status, "detail": detail, **more}
    return JSONResponse(body, status, headers, media_type="application/problem+json")


def from_here(connection: HTTPConnection, ports: Collection[int]) -> bool:
    """Whether a browser shows one of this node's pages, on these ports: a cookie goes with any site's request."""
    try:
        page, asked = urlsplit(connection.headers.get("origin", "")), urlsplit(f"//{connection.headers.get('host', '')}")
        port = page.port or 443
    except ValueError:
        return False
    return page.scheme == "https" and page.hostname == asked.hostname and port in ports


async def body_of(request: Request, most: int) -> bytes:
    """The body; raises 413 beyond so many bytes."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise HTTPException(413, f"At most {most} bytes are read here")
    return body


def refusal(error: HTTPException) -> Response:
    return problem(error.status_code, error.detail, dict(error.headers or {}))


async def _http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return refusal(error)


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
