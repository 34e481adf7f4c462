# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The MCP port: streamable HTTP at ``/mcp``, stateless, by the official SDK.

The SDK costs a second and some 40 MiB: it is loaded when the first client with a token comes. Until then, and for
everyone without a token, this module answers.
"""

from __future__ import annotations

import asyncio
import collections
import logging
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from .auth.gate import Gate
from .service import Service
from .web import application, problem, refusal

if TYPE_CHECKING:
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

log = logging.getLogger("bzzz.node.mcp")

# Calls at one time; each is short.
CALLS = 32


class McpServer:
    """The server and what it has done. ``run`` carries it and lasts until cancelled."""

    def __init__(self, service: Service, gate: Gate) -> None:
        self.service, self.gate = service, gate
        self.calls: collections.Counter[tuple[str, str]] = collections.Counter()
        self.running = 0
        self._wanted = asyncio.Event()
        self._manager: asyncio.Future[StreamableHTTPSessionManager] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        await self._wanted.wait()
        try:
            manager = await asyncio.to_thread(self._load)
        except Exception as error:
            log.exception("the MCP SDK could not be loaded")
            self._manager.set_exception(error)
            return
        async with manager.run():
            self._manager.set_result(manager)
            await asyncio.Event().wait()

    def _load(self) -> StreamableHTTPSessionManager:
        from . import mcp_tools  # noqa: PLC0415 - late is what this module is for

        return mcp_tools.manager(self.service, self.calls)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._wanted.set()
        self.running += 1
        try:
            manager = await asyncio.shield(self._manager)
            await manager.handle_request(scope, receive, send)
        finally:
            self.running -= 1


class _Guarded:
    """An endpoint of its own class, since Starlette takes functions for handlers of requests."""

    def __init__(self, server: McpServer) -> None:
        self.server = server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        server, request = self.server, Request(scope)
        answer: ASGIApp = server
        # A browser's session does not count here: any site could have it sent along.
        try:
            server.gate.require(request, "mcp", cookies=False)
        except HTTPException as refused:
            await refusal(refused)(scope, receive, send)
            return
        if request.method != "POST":
            answer = problem(405, "This server keeps no sessions and sends nothing by itself: POST only", {"Allow": "POST"})
        elif server.running >= CALLS:
            answer = problem(503, f"{CALLS} calls are under way already", {"Retry-After": "1"})
        await answer(scope, receive, send)


def build(server: McpServer) -> Starlette:
    """The MCP port's application."""
    return application([Route("/mcp", _Guarded(server))])
