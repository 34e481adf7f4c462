# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The service's HTTP side. Health is open; everything else asks for a token, as bearer or once at the sign-in page."""

from __future__ import annotations

import hashlib
import hmac
import http
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from . import metrics, page
from .service import FAIL, Service

# The prefix makes browsers insist on Secure, the path / and this very host.
COOKIE = "__Host-bzzz"
SESSION_SECONDS = 12 * 3600
SIGN_IN_BYTES = 4096

# No HSTS: it would hold for every port of the node's name, also those where others serve plain HTTP.
HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": page.CONTENT_SECURITY_POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
_HEADERS = [(name.encode(), value.encode()) for name, value in HEADERS.items()]


class _SecurityHeaders:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *_HEADERS]}
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

    def admits(self, request: Request) -> bool:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self.knows(token.strip())
        until, _, signature = request.cookies.get(COOKIE, "").partition(".")
        genuine = hmac.compare_digest(signature.encode(), self._sign(until).encode())
        return genuine and self._now() < int(until)


def problem(status: int, detail: str, headers: dict[str, str] | None = None, **more: Any) -> Response:
    """An error as RFC 9457 problem details."""
    body = {"type": "about:blank", "title": http.HTTPStatus(status).phrase, "status": status, "detail": detail, **more}
    return JSONResponse(body, status, headers, media_type="application/problem+json")


async def _http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return problem(error.status_code, error.detail, dict(error.headers or {}))


async def _failure(_request: Request, _error: Exception) -> Response:
    return problem(500, "The service failed. Its log on the node says why: journalctl -u bzzz")


Handler = Callable[[Request], Awaitable[Response]]


def build(service: Service, gate: Gate) -> Starlette:
    """The ASGI application."""

    def guarded(handler: Handler) -> Handler:
        async def check(request: Request) -> Response:
            if not gate.admits(request):
                challenge = {"WWW-Authenticate": f'Bearer realm="{service.settings.cluster.name}"'}
                return problem(401, "This needs the cluster's token: Authorization: Bearer <token>", challenge)
            return await handler(request)

        return check

    async def health(_request: Request) -> Response:
        body = service.health()
        return JSONResponse(body, 503 if body["status"] == FAIL else 200)

    async def ready(_request: Request) -> Response:
        if reasons := service.unready():
            return problem(503, "; ".join(reasons), ready=False)
        return JSONResponse({"ready": True})

    async def live(_request: Request) -> Response:
        return JSONResponse({"live": True}) if service.alive else problem(503, "membership makes no more rounds", live=False)

    async def metrics_text(_request: Request) -> Response:
        return Response(metrics.text(service), media_type=metrics.CONTENT_TYPE)

    async def node(_request: Request) -> Response:
        return JSONResponse(service.node())

    async def cluster(_request: Request) -> Response:
        return JSONResponse(service.cluster())

    async def status(request: Request) -> Response:
        if not gate.admits(request):
            return HTMLResponse(page.sign_in(service.settings.cluster.name, service.settings.node.name))
        return HTMLResponse(page.status(service))

    async def sign_in(request: Request) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > SIGN_IN_BYTES:
                raise HTTPException(413, "A token is not that long")
        token = parse_qs(body.decode(errors="replace")).get("token", [""])[0].strip()
        if not gate.knows(token):
            name = service.settings.cluster.name
            return HTMLResponse(page.sign_in(name, service.settings.node.name, "That is not this cluster's token."), 401)
        response = RedirectResponse("/", 303)
        response.set_cookie(COOKIE, gate.session(), max_age=SESSION_SECONDS, secure=True, httponly=True, samesite="strict")
        return response

    async def sign_out(_request: Request) -> Response:
        response = RedirectResponse("/", 303)
        response.delete_cookie(COOKIE, secure=True, httponly=True, samesite="strict")
        return response

    return Starlette(
        routes=[
            Route("/", status),
            Route("/sign-in", sign_in, methods=["POST"]),
            Route("/sign-out", sign_out, methods=["POST"]),
            Route("/health", health),
            Route("/health/ready", ready),
            Route("/health/live", live),
            Route("/metrics", guarded(metrics_text)),
            Route("/api/v1/node", guarded(node)),
            Route("/api/v1/cluster", guarded(cluster)),
        ],
        middleware=[Middleware(_SecurityHeaders)],
        exception_handlers={HTTPException: _http_error, 500: _failure},
    )
