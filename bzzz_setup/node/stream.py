# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The event port: ``/events?last=<id>`` sends what happens as JSON messages over a WebSocket.

The first message says where the client stands: ``resumed``, and what it missed follows; or ``snapshot``, the cluster as
it is now, and why. No client has a queue of its own: each is a place in the journal. One that falls out of the journal,
or takes nothing for ``PATIENCE`` seconds, is dropped; it comes back with its last id.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import logging

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from .auth.gate import Gate
from .events import Journal, look, utc
from .service import Service
from .web import application, from_here, problem, refusal

log = logging.getLogger("bzzz.node.events")

CLIENTS = 100
PATIENCE = 10.0
# How often everything is looked at, and how often a client's right to be here.
PERIOD = 0.5
GOING_AWAY, POLICY, TRY_AGAIN = 1001, 1008, 1013


class Stream:
    """The journal and its clients. ``watch`` fills it; ``close`` sends everyone away."""

    def __init__(
        self, service: Service, gate: Gate, journal: Journal | None = None, clients: int = CLIENTS, patience: float = PATIENCE
    ) -> None:
        self.service, self.gate = service, gate
        self.journal = journal or Journal()
        self.clients = 0
        self.dropped: collections.Counter[str] = collections.Counter()
        self._most, self._patience = clients, patience
        self._news = asyncio.Event()
        self._closing = False

    async def watch(self) -> None:
        """Look for changes until cancelled."""
        while True:
            try:
                self.observe()
            except Exception:
                # A record of another release may have any shape; the next one may be fine.
                log.exception("the cluster's changes were not understood")
            await asyncio.sleep(PERIOD)

    def observe(self) -> None:
        before = self.journal.number
        self.journal.observe(look(self.service))
        if self.journal.number != before:
            self.wake()

    def wake(self) -> None:
        """Have every client look again."""
        self._news.set()
        self._news = asyncio.Event()

    def close(self) -> None:
        """Tell every client that the service goes away."""
        self._closing = True
        self.wake()

    async def serve(self, websocket: WebSocket) -> None:
        """One client, from handshake to end."""
        if refusal := self._refusal(websocket):
            await websocket.send_denial_response(refusal)
            return
        self.clients += 1
        try:
            await websocket.accept()
            await self._talk(websocket)
        finally:
            self.clients -= 1

    def _refusal(self, websocket: WebSocket) -> Response | None:
        try:
            self.gate.require(websocket, "events")
        except HTTPException as refused:
            return refusal(refused)
        if not self._from_here(websocket):
            return problem(403, "Browsers may come from this node's status page only")
        if self._closing:
            return problem(503, "The service is stopping", {"Retry-After": "5"})
        if self.clients >= self._most:
            self.dropped["full"] += 1
            return problem(503, f"{self._most} clients are connected already", {"Retry-After": "10"})
        return None

    def _from_here(self, websocket: WebSocket) -> bool:
        """Whether no browser is asking, or one that shows this node's page."""
        if "origin" not in websocket.headers:
            return self.gate.bears(websocket)
        listen = self.service.settings.listen
        return from_here(websocket, (listen.port, listen.web_port))

    async def _talk(self, websocket: WebSocket) -> None:
        talk = asyncio.create_task(self._send_all(websocket))
        hear = asyncio.create_task(_until_gone(websocket))
        try:
            await asyncio.wait([talk, hear], return_when=asyncio.FIRST_COMPLETED)
            if talk.done():
                code, reason = talk.result()
                with contextlib.suppress(TimeoutError, asyncio.TimeoutError, RuntimeError):
                    await asyncio.wait_for(websocket.close(code, reason), 1)
        except (WebSocketDisconnect, OSError):
            pass  # gone while it was being told something
        finally:
            for task in (talk, hear):
                task.cancel()
            await asyncio.gather(talk, hear, return_exceptions=True)

    async def _send_all(self, websocket: WebSocket) -> tuple[int, str]:
        """Send what there is, and then what comes; returns why it ends."""
        self.observe()  # a snapshot tells of nothing that is yet to come as an event
        place, why = self.journal.place(websocket.query_params.get("last"))
        first = self._snapshot(why) if why else self._resumed(place)
        if not await self._send(websocket, first):
            return self._drop("slow")
        while True:
            news = self._news
            texts = self.journal.after(place)
            if texts is None:
                return self._drop("behind")
            for text in texts:
                if not await self._send(websocket, text):
                    return self._drop("slow")
            place += len(texts)
            if self._closing:
                return GOING_AWAY, "the service is stopping"
            if not self.gate.allows(websocket, "events"):
                self.dropped["unwelcome"] += 1
                return POLICY, "the token or session is not valid any more"
            if not texts:
                with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
                    await asyncio.wait_for(news.wait(), 15)

    async def _send(self, websocket: WebSocket, text: str) -> bool:
        try:
            await asyncio.wait_for(websocket.send_text(text), self._patience)
        except (TimeoutError, asyncio.TimeoutError):
            return False
        return True

    def _drop(self, why: str) -> tuple[int, str]:
        self.dropped[why] += 1
        log.info("a client that was too slow was dropped")
        return TRY_AGAIN, "too slow: come back with the last id"

    def _snapshot(self, why: str) -> str:
        service = self.service
        data = {"node": service.settings.node.name, "cluster": service.cluster(), "health": service.health()}
        return json.dumps({"id": self.journal.last_id, "time": utc(), "type": "snapshot", "reason": why, "data": data}, ensure_ascii=False)

    def _resumed(self, place: int) -> str:
        missed = self.journal.number - place
        return json.dumps({"id": f"{self.journal.life}-{place}", "time": utc(), "type": "resumed", "data": {"missed": missed}})


async def _until_gone(websocket: WebSocket) -> None:
    """What clients say is of no interest, only that they are there."""
    while (await websocket.receive())["type"] != "websocket.disconnect":
        pass


def build(stream: Stream) -> Starlette:
    """The event port's application."""

    async def events(request: Request) -> Response:
        stream.gate.require(request, "events")
        raise HTTPException(426, "This is a WebSocket: connect to wss://…/events", {"Upgrade": "websocket", "Connection": "Upgrade"})

    return application([WebSocketRoute("/events", stream.serve), Route("/events", events)])
