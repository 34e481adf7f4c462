# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The cluster as it is now, for as long as somebody looks: one `bzzz-setup watch` for everybody, and its lines to each."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import os
import signal
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from bzzz_setup import paths
from bzzz_setup.web.runs import COMMAND

# Nobody looks any more, or only reloads the page.
LINGER_SECONDS = 30
EVENTS = 200
# A line is a snapshot of the whole cluster.
LINE_BYTES = 16 * 1024 * 1024
# Lines that wait for one who takes none.
WAITING = 1000
Line = dict[str, Any]


class Watching:
    """One event loop's."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lookers: set[asyncio.Queue[Line | None]] = set()
        self._task: asyncio.Task[None] | None = None
        self._events: collections.deque[Line] = collections.deque(maxlen=EVENTS)
        # The last of these types: what is so until another says otherwise.
        self._state: Line | None = None

    async def lines(self) -> AsyncGenerator[Line, None]:
        """What happened lately, what is now, and then what happens; ends for who takes too little."""
        queue: asyncio.Queue[Line | None] = asyncio.Queue(WAITING + EVENTS)
        for known in [*self._events, *([self._state] if self._state else [])]:
            queue.put_nowait(known)
        self._lookers.add(queue)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        try:
            while (line := await queue.get()) is not None:
                yield line
        finally:
            self._lookers.discard(queue)

    async def stop(self) -> None:
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        process = await asyncio.create_subprocess_exec(
            *COMMAND,
            *("watch", "--json", "-i", str(self._folder)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=LINE_BYTES,
            env={**os.environ, "BZZZ_INVENTORY": "", paths.TOLD_INVENTORY: str(self._folder)},
        )
        leaving = asyncio.create_task(self._until_alone())
        reading = asyncio.create_task(self._read(process))
        try:
            await asyncio.wait({leaving, reading}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            reading.cancel()
            self._state = None
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), 10)
            # Who still looks begins anew.
            for queue in self._lookers:
                _put(queue, None)

    async def _until_alone(self) -> None:
        alone = 0
        while alone < LINGER_SECONDS:
            await asyncio.sleep(1)
            alone = 0 if self._lookers else alone + 1

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout
        rest = b""
        async for text in process.stdout:
            try:
                line: Line = json.loads(text)
            except ValueError:
                rest += text
                continue
            self._take(line)
        with contextlib.suppress(ValueError, KeyError, TypeError):
            # It has refused; only that spans several lines.
            said = " ".join(f"{one['message']} {one['remedy']}" for one in json.loads(rest)["problems"])
            self._take({"type": "away", "data": {"message": said}})

    def _take(self, line: Line) -> None:
        if line.get("type") in ("snapshot", "away"):
            self._state = line
        elif line.get("type") not in ("quiet", "resumed"):
            self._events.append(line)
        for queue in list(self._lookers):
            _put(queue, line)


def _put(queue: asyncio.Queue[Line | None], line: Line | None) -> None:
    if queue.full():
        while not queue.empty():
            queue.get_nowait()
        line = None
    queue.put_nowait(line)
