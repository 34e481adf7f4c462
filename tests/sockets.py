# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A WebSocket client for tests that are not asynchronous themselves.

websockets' own (`websockets.sync`) reads and writes one TLS connection from two threads, which Python's ssl does not
bear before 3.13: now and then it waited for minutes for an answer that was there.
"""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Any

from anyio.from_thread import BlockingPortal, start_blocking_portal
from websockets.asyncio.client import ClientConnection, connect

OPEN_SECONDS = 20


class Client:
    """Connected while entered; exceptions are websockets' own."""

    def __init__(self, url: str, **options: Any) -> None:
        self.url, self.options = url, {"open_timeout": OPEN_SECONDS, "proxy": None, **options}

    def __enter__(self) -> Client:
        self._stack = contextlib.ExitStack()
        with contextlib.ExitStack() as stack:
            self._portal: BlockingPortal = stack.enter_context(start_blocking_portal())
            self._connection: ClientConnection = self._portal.call(self._connect)
            stack.callback(self._portal.call, self._close)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    def recv(self, seconds: float | None = None) -> Any:
        """The next message; raises TimeoutError, or ConnectionClosed."""
        return self._portal.call(self._recv, seconds)

    def send(self, message: str) -> None:
        self._portal.call(self._connection.send, message)

    async def _connect(self) -> ClientConnection:
        return await connect(self.url, **self.options)

    async def _close(self) -> None:
        await self._connection.close()

    async def _recv(self, seconds: float | None) -> Any:
        return await asyncio.wait_for(self._connection.recv(), seconds)
