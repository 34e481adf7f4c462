# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""``bzzz-node watch``: on a coordinator, as root, what has happened in the cluster since the last time, as JSON lines.

A client of this node's own event port, for a caller who comes by SSH and goes again: it waits until there is something
to tell, for ``--seconds`` at most, and ends. Lines are messages as of ``stream``; after events comes a snapshot of what is
now, and where nothing happened one line of type ``quiet`` with the id to come back with.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import ssl
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .config import Settings
from .events import utc
from .own import SECRET, Failed, Own

# What belongs together comes together.
MORE_SECONDS = 0.2


def add_to(commands: Any) -> None:
    """The sub-command of bzzz-node's parser."""
    parser = commands.add_parser("watch", help="what happens in the cluster, as JSON lines", description=__doc__)
    parser.add_argument("--last", default="", help="id of the last line seen; without, a snapshot")
    parser.add_argument("--seconds", type=float, default=20, help="to wait for something to happen; default: %(default)s")
    parser.add_argument("--token-file", type=Path, default=SECRET, help="a token's file; default: %(default)s")


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Print what has happened."""
    try:
        own = Own(settings, arguments.token_file)
        events = f"wss://{own.host}:{settings.listen.websocket_port}/events"
        for line in asyncio.run(heard(events, own.token, own.context, arguments.last, arguments.seconds)):
            print(line)
    except Failed as failed:
        print(failed, file=sys.stderr)
        return 1
    return 0


async def heard(events: str, token: str, context: ssl.SSLContext | None, last: str, seconds: float) -> list[str]:
    """The lines that an event port has for who was told up to ``last``. Failed: it does not answer."""
    from websockets.asyncio.client import connect  # noqa: PLC0415 - slow to import, and seldom needed
    from websockets.exceptions import WebSocketException  # noqa: PLC0415

    def listening(since: str) -> connect:
        headers = {"Authorization": f"Bearer {token}"}
        url = f"{events}?last={quote(since)}"
        return connect(url, ssl=context, additional_headers=headers, proxy=None, open_timeout=10, max_size=None)

    until = time.monotonic() + seconds
    try:
        async with listening(last) as first:
            told = str(await asyncio.wait_for(first.recv(), 10))
            if json.loads(told)["type"] == "snapshot":
                return [told]
            lines: list[str] = []
            while (left := MORE_SECONDS if lines else until - time.monotonic()) > 0:
                try:
                    lines.append(str(await asyncio.wait_for(first.recv(), left)))
                except (TimeoutError, asyncio.TimeoutError):
                    break
            if not lines:
                return [json.dumps({"id": last, "time": utc(), "type": "quiet"})]
            async with listening("") as again:
                now = str(await asyncio.wait_for(again.recv(), 10))
            # The caller comes back with its id: what happened up to there is told now or never.
            while json.loads(lines[-1])["id"] != json.loads(now)["id"]:
                lines.append(str(await asyncio.wait_for(first.recv(), 10)))
            return [*lines, now]
    except (OSError, TimeoutError, asyncio.TimeoutError, WebSocketException) as error:
        raise Failed(f"The node service's event port does not answer ({error}). Remedy: systemctl status bzzz") from None
