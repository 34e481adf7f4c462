# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The service's own port: health, metrics, REST and the status page.

Health is open; everything else asks for a token, as bearer or once at the sign-in page.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from . import metrics, page
from .checks import FAIL
from .mcp_server import McpServer
from .stream import Stream
from .web import COOKIE, SESSION_SECONDS, Gate, application, challenge, problem

SIGN_IN_BYTES = 4096

Handler = Callable[[Request], Awaitable[Response]]


def build(gate: Gate, stream: Stream, mcp: McpServer) -> Starlette:
    """The ASGI application."""
    service = stream.service

    def guarded(handler: Handler) -> Handler:
        async def check(request: Request) -> Response:
            if not gate.admits(request):
                return challenge(service.settings.cluster.name)
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
        return Response(metrics.text(service, stream, mcp), media_type=metrics.CONTENT_TYPE)

    async def node(_request: Request) -> Response:
        return JSONResponse(service.node())

    async def cluster(_request: Request) -> Response:
        return JSONResponse(service.cluster())

    def shown(request: Request, document: str, status_code: int = 200) -> Response:
        policy = page.content_security_policy(request.headers.get("host", ""), service.settings.listen.websocket_port)
        return HTMLResponse(document, status_code, {"content-security-policy": policy})

    async def status(request: Request) -> Response:
        if not gate.admits(request):
            return shown(request, page.sign_in(service.settings.cluster.name, service.settings.node.name))
        return shown(request, page.status(service, stream.journal))

    async def sign_in(request: Request) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > SIGN_IN_BYTES:
                raise HTTPException(413, "A token is not that long")
        token = parse_qs(body.decode(errors="replace")).get("token", [""])[0].strip()
        if not gate.knows(token):
            name = service.settings.cluster.name
            return shown(request, page.sign_in(name, service.settings.node.name, "That is not this cluster's token."), 401)
        response = RedirectResponse("/", 303)
        response.set_cookie(COOKIE, gate.session(), max_age=SESSION_SECONDS, secure=True, httponly=True, samesite="strict")
        return response

    async def sign_out(_request: Request) -> Response:
        response = RedirectResponse("/", 303)
        response.delete_cookie(COOKIE, secure=True, httponly=True, samesite="strict")
        return response

    return application(
        [
            Route("/", status),
            Route("/sign-in", sign_in, methods=["POST"]),
            Route("/sign-out", sign_out, methods=["POST"]),
            Route("/health", health),
            Route("/health/ready", ready),
            Route("/health/live", live),
            Route("/metrics", guarded(metrics_text)),
            Route("/api/v1/node", guarded(node)),
            Route("/api/v1/cluster", guarded(cluster)),
        ]
    )
