# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""`/setup` on the service's own port: the wizard, where `bzzz-setup web --coordinator` runs on this node.

The wizard listens on a UNIX socket that only root makes; this hands on to it, and to nothing else. Who asks is told in
X-Forwarded-For, which no client can say for itself. What the wizard answers is its own: sign-in, sizes and rates are judged there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import h11
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse
from starlette.types import Receive, Scope, Send
from websockets.asyncio.client import ClientConnection, unix_connect
from websockets.exceptions import InvalidHandshake, WebSocketException

from . import page
from .config import Settings
from .web import body_of

PREFIX = "/setup"
# Of a request; no more is handed on, nor read by the wizard.
BODY_BYTES = 2 * 1024 * 1024
# Until an answer begins: some of them are worked out by Ansible.
ANSWER_SECONDS = 300
BLOCK_BYTES = 1 << 16
# Of one connection, or told by us.
_OURS = {
    b"connection",
    b"keep-alive",
    b"proxy-connection",
    b"te",
    b"trailer",
    b"upgrade",
    b"forwarded",
    b"x-forwarded-for",
    b"x-forwarded-proto",
}


class Setup:
    """The ASGI application below PREFIX."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.socket = settings, settings.paths.wizard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._talk(scope, receive, send)
            return
        body = await body_of(Request(scope, receive), BODY_BYTES)
        try:
            reader, writer = await asyncio.open_unix_connection(str(self.socket))
        except OSError:
            policy = page.content_security_policy("", self.settings.listen.websocket_port)
            document = page.no_wizard(self.settings.cluster.name, self.settings.node.name)
            await HTMLResponse(document, 503, {"content-security-policy": policy, "retry-after": "10"})(scope, receive, send)
            return
        try:
            headers = [*_headers(scope), (b"content-length", str(len(body)).encode()), (b"connection", b"close")]
            asked = h11.Request(method=scope["method"], target=_target(scope), headers=headers)
            await exchange(asked, body, send, reader, writer, "The wizard")
        finally:
            writer.close()

    async def _talk(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # websocket.connect
        headers = [(name.decode(), value.decode("latin-1")) for name, value in _headers(scope) if not _handshake(name)]
        connection = HTTPConnection(scope)
        try:
            upstream = await unix_connect(
                str(self.socket),
                f"ws://{connection.headers.get('host', '')}{_target(scope).decode('latin-1')}",
                origin=connection.headers.get("origin"),
                additional_headers=headers,
                user_agent_header=None,
                compression=None,
                max_size=None,  # the wizard's own, which go out as they come
            )
        except (OSError, ValueError, WebSocketException, InvalidHandshake):
            await send({"type": "websocket.close", "code": 1008})
            return
        async with upstream:
            await send({"type": "websocket.accept"})
            ways = [asyncio.ensure_future(_outward(upstream, send)), asyncio.ensure_future(_inward(upstream, receive))]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)


def _target(scope: Scope) -> bytes:
    """What is asked of the wizard: without PREFIX."""
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    query: bytes = scope.get("query_string", b"")
    return (path[len(PREFIX) :] or b"/") + (b"?" + query if query else b"")


def _headers(scope: Scope) -> Iterable[tuple[bytes, bytes]]:
    """The client's, and who it is."""
    yield from ((name, value) for name, value in scope["headers"] if name not in (*_OURS, b"content-length", b"transfer-encoding"))
    yield b"x-forwarded-for", (scope["client"][0] if scope.get("client") else "").encode()
    yield b"x-forwarded-proto", b"https"


def _handshake(name: bytes) -> bool:
    return name in (b"host", b"origin", b"user-agent") or name.startswith(b"sec-websocket-")


async def exchange(
    asked: h11.Request, body: bytes, send: Send, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, whom: str
) -> None:
    """One request and its answer, piece by piece as it comes. whom: who is asked, in words."""
    wire = h11.Connection(h11.CLIENT)
    for sent in (asked, h11.Data(data=body), h11.EndOfMessage()):
        writer.write(wire.send(sent) or b"")
    begun = False
    try:
        while True:
            event = wire.next_event()
            if event is h11.NEED_DATA:
                wire.receive_data(await asyncio.wait_for(reader.read(BLOCK_BYTES), ANSWER_SECONDS))
            elif isinstance(event, h11.Response):
                own = [(name, value) for name, value in event.headers if name not in (*_OURS, b"transfer-encoding")]
                await send({"type": "http.response.start", "status": event.status_code, "headers": own})
                begun = True
            elif isinstance(event, h11.Data):
                await send({"type": "http.response.body", "body": bytes(event.data), "more_body": True})
            elif not isinstance(event, h11.InformationalResponse):
                break
        await send({"type": "http.response.body", "body": b""})
    except (h11.RemoteProtocolError, ConnectionError, TimeoutError, asyncio.TimeoutError):
        if begun:
            raise  # what was cut off must not look whole
        raise HTTPException(502, f"{whom} has gone away, or did not answer in time") from None


async def _outward(upstream: ClientConnection, send: Send) -> None:
    async for message in upstream:
        await send({"type": "websocket.send", "text" if isinstance(message, str) else "bytes": message})
    await send({"type": "websocket.close", "code": upstream.close_code or 1000})


async def _inward(upstream: ClientConnection, receive: Receive) -> None:
    while (message := await receive())["type"] != "websocket.disconnect":
        await upstream.send(message["text"] if message.get("text") is not None else message["bytes"])
