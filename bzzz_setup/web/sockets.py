# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What WebSockets have in common."""

from __future__ import annotations

import contextlib

from fastapi import WebSocket
from starlette.websockets import WebSocketDisconnect

from bzzz_setup.node.auth.gate import Gate
from bzzz_setup.web.guard import same_site


def may_listen(gate: Gate, websocket: WebSocket) -> bool:
    """Whether who asks may hear, and no other site's page asks for them."""
    return gate.allows(websocket, "events") and (gate.bears(websocket) or same_site(websocket))


async def until_gone(websocket: WebSocket) -> None:
    """What clients say is of no interest, only that they are there."""
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        while True:
            await websocket.receive_text()
