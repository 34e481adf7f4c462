# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The service's own port: health, metrics, REST and the status page.

Health is open; everything else asks for a token as bearer, or for a token or a password once at the sign-in page.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route

from . import metrics, ollama, page
from .auth import api
from .auth.gate import COOKIE, FLOW_SECONDS, Gate, address
from .auth.principals import Principal
from .checks import FAIL
from .mcp_server import McpServer
from .ollama import Ollama
from .setup import PREFIX, Setup
from .stream import Stream
from .web import HOST, application, body_of, from_here, problem

SIGN_IN_BYTES = 4096
# Comes back with a browser from the provider's pages, unlike a session.
FLOW_COOKIE = "__Host-bzzz-oidc"

Handler = Callable[[Request], Awaitable[Response]]


def build(gate: Gate, stream: Stream, mcp: McpServer) -> Starlette:
    """The ASGI application."""
    service = stream.service

    listen = service.settings.listen

    def guarded(handler: Handler, scope: str = "api") -> Handler:
        async def check(request: Request) -> Response:
            gate.require(request, scope)
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
        policy = page.content_security_policy(request.headers.get("host", ""), listen.websocket_port)
        return HTMLResponse(document, status_code, {"content-security-policy": policy})

    def asked(request: Request, refused: HTTPException | None = None, by_token: bool = False) -> Response:
        """The sign-in page, and why it was no use."""
        settings = service.settings
        other = settings.oidc.title if gate.oidc else ""
        error, code = (refused.detail, refused.status_code) if refused else ("", 200)
        answer = shown(request, page.sign_in(settings.cluster.name, settings.node.name, error, by_token, other), code)
        answer.headers.update((refused.headers if refused else None) or {})
        return answer

    def signed_in(response: Response, who: Principal) -> Response:
        response.set_cookie(COOKIE, gate.session(who), max_age=gate.session_seconds, secure=True, httponly=True, samesite="strict")
        return response

    async def status(request: Request) -> Response:
        if not gate.allows(request, "api"):
            return asked(request)
        return shown(request, page.status(service, stream.journal))

    async def sign_in(request: Request) -> Response:
        form = parse_qs((await body_of(request, SIGN_IN_BYTES)).decode(errors="replace"))
        token, user = (form.get(field, [""])[0].strip() for field in ("token", "user"))
        try:
            who = await gate.sign_in(address(request), user, form.get("password", [""])[0], token)
        except HTTPException as refused:
            return asked(request, refused, by_token=bool(token))
        return signed_in(RedirectResponse("/", 303), who)

    async def leave(request: Request) -> Response:
        host = request.headers.get("host", "")
        # As the browser names this node; the provider knows which addresses are ours.
        if not HOST.fullmatch(host):
            return problem(400, "The request's host is none")
        try:
            url, kept = await gate.leave(address(request), f"https://{host}/sign-in/oidc/callback")
        except HTTPException as refused:
            return asked(request, refused)
        response = RedirectResponse(url, 302)
        response.set_cookie(FLOW_COOKIE, kept, max_age=FLOW_SECONDS, secure=True, httponly=True, samesite="lax")
        return response

    async def come_back(request: Request) -> Response:
        try:
            who = await gate.come_back(address(request), request.cookies.get(FLOW_COOKIE, ""), request.query_params)
        except HTTPException as refused:
            response = asked(request, refused)
        else:
            # A redirection from another site would not bring the session along; this page's own does.
            response = signed_in(shown(request, page.signed_in(service.settings.cluster.name)), who)
        response.delete_cookie(FLOW_COOKIE, secure=True, httponly=True, samesite="lax")
        return response

    async def sign_out(_request: Request) -> Response:
        response = RedirectResponse("/", 303)
        response.delete_cookie(COOKIE, secure=True, httponly=True, samesite="strict")
        return response

    return application(
        [
            Route("/", status),
            Route("/sign-in", sign_in, methods=["POST"]),
            Route("/sign-in/oidc", leave),
            Route("/sign-in/oidc/callback", come_back),
            Route("/sign-out", sign_out, methods=["POST"]),
            Mount(PREFIX, Setup(service.settings)),
            *([Mount(ollama.PREFIX, Ollama(service))] if service.settings.ollama.token_sha256 else []),
            Route("/health", health),
            Route("/health/ready", ready),
            Route("/health/live", live),
            Route("/metrics", guarded(metrics_text, "metrics")),
            Route("/api/v1/node", guarded(node)),
            Route("/api/v1/cluster", guarded(cluster)),
            *api.routes(gate, lambda request: from_here(request, (listen.port, listen.web_port))),
        ]
    )
