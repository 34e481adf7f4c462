# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""`/ollama` on the service's own port: this node's Ollama, which listens on loopback, for the AI gateway and nobody else.

It hands on what uses models or lists them; nothing that pulls, makes or deletes them. ``/ollama/places`` tells which node of the
cluster holds which models.
"""

from __future__ import annotations

import asyncio
import collections
import hashlib
import hmac
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import h11
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from .setup import exchange
from .web import body_of

if TYPE_CHECKING:
    from .service import Service

PREFIX = "/ollama"
ALLOWED = re.compile(
    r"(GET|HEAD) /api/(tags|ps|version)|POST /api/(show|chat|generate|embed|embeddings)|"
    r"GET /v1/models(/[\w.:-]+)*|POST /v1/(chat/completions|completions|embeddings|responses)",
    re.ASCII,
)
# Pictures come within a request.
BODY_BYTES = 64 * 1024 * 1024
PASSED = (b"content-type", b"accept")


class Ollama:
    """The ASGI application below PREFIX."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.known = service.settings.ollama.token_sha256
        # Calls under way at each instance of this node, and those that were not there since the detector last looked.
        self.busy: collections.Counter[str] = collections.Counter()
        self.away: set[str] = set()
        self._seen: Any = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise HTTPException(404)
        request = Request(scope, receive)
        self._let_in(request)
        path = scope["path"].removeprefix(PREFIX) if scope["path"].startswith(PREFIX + "/") else scope["path"]
        if f"{request.method} {path}" == "GET /places":
            await JSONResponse({"places": self.places()})(scope, receive, send)
            return
        if not ALLOWED.fullmatch(f"{request.method} {path}"):
            raise HTTPException(
                403, f"{request.method} {path} is not handed on: models are used here, and neither pulled, made nor deleted"
            )
        body = await body_of(request, BODY_BYTES)
        for endpoint in self._endpoints():
            headers = [(name, value) for name, value in scope["headers"] if name in PASSED]
            headers += [(b"host", endpoint.encode()), (b"content-length", str(len(body)).encode()), (b"connection", b"close")]
            asked = h11.Request(method=request.method, target=path.encode(), headers=headers)
            self.busy[endpoint] += 1
            try:
                if await self._hand_on(endpoint, asked, body, receive, send):
                    return
            finally:
                self.busy[endpoint] -= 1
            self.away.add(endpoint)
        raise HTTPException(502, "This node's Ollama does not answer", {"Retry-After": "5"})

    def _let_in(self, request: Request) -> None:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        given = hashlib.sha256(token.strip().encode(errors="surrogateescape")).hexdigest()
        # Every hash is compared, so that the time tells nothing.
        if kind.lower() != "bearer" or not sum(hmac.compare_digest(given, known) for known in self.known):
            raise HTTPException(401, "Only the cluster's AI gateway is served here", {"WWW-Authenticate": "Bearer"})

    def _endpoints(self) -> list[str]:
        """``host:port`` of this node's instances; fewest calls first, away ones last. Raises 503 where there is none."""
        if self._seen is not self.service.detector.facts:
            self._seen, self.away = self.service.detector.facts, set()
        found: Any = (self._seen.get("system") or {}).get("ollama") or {}
        urls = found.get("endpoints") or [found.get("endpoint")]
        endpoints = [urlsplit(str(url)).netloc for url in urls if url and str(url).startswith("http://")]
        if not endpoints:
            raise HTTPException(503, "No Ollama answers on this node", {"Retry-After": "30"})
        return sorted(endpoints, key=lambda endpoint: (endpoint in self.away, self.busy[endpoint]))

    async def _hand_on(self, endpoint: str, asked: h11.Request, body: bytes, receive: Receive, send: Send) -> bool:
        """Until it is answered, or who asked has gone: then Ollama need not go on either. Whether there was anybody to hand it on to."""
        host, _, port = endpoint.rpartition(":")
        try:
            reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        except (OSError, ValueError):
            return False
        answering = asyncio.ensure_future(exchange(asked, body, send, reader, writer, "This node's Ollama"))
        leaving = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                answering.result()
        finally:
            answering.cancel()
            leaving.cancel()
            writer.close()
            await asyncio.gather(answering, leaving, return_exceptions=True)
        return True

    def places(self) -> list[dict[str, Any]]:
        """``{node, address, port, models, vram_mib}`` of each member that has an Ollama."""
        return [
            {
                "node": member["name"],
                "address": member["address"],
                "port": member["port"],
                "models": list(has.get("models") or []),
                "vram_mib": sum(int(gpu.get("memory_total_mib") or 0) for gpu in member["capabilities"].get("gpus") or []),
            }
            for member in self.service.cluster()["members"]
            if (has := (member.get("capabilities") or {}).get("ollama"))
        ]


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
