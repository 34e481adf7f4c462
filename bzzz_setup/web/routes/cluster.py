# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What there is: the machines as they were seen, the last checks, and the cluster as it is now."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from fastapi import FastAPI, Response, WebSocket
from starlette.websockets import WebSocketDisconnect

from bzzz_setup.report import Report
from bzzz_setup.reports.machines import hardware, topologies
from bzzz_setup.web import answers
from bzzz_setup.web.shapes import API, Viewer
from bzzz_setup.web.sockets import may_listen, until_gone
from bzzz_setup.web.wizard import Wizard


def routes(app: FastAPI, wizard: Wizard) -> None:
    """Add them to the application."""
    gate, runs = wizard.gate, wizard.runs

    @app.get(f"{API}/checks", tags=["cluster"], response_model=None, responses={200: {"model": answers.Checks}})
    def checks(_who: Viewer) -> Response:
        """The last answer to each check, and which run asked: the last apply or verify; null where there was none."""

        def make() -> dict[str, Any]:
            report = next((report for report in runs.reports() if report.command in ("apply", "verify")), None)
            if report is None:
                return {"run": None, "at": None, "checks": []}
            return {"run": report.run, "at": report.started + report.seconds, "checks": answers.without_data(report.checks)}

        return wizard.answer("checks", runs.stamp(), make)

    @app.get(f"{API}/nodes", tags=["cluster"], response_model=None, responses={200: {"model": answers.Nodes}})
    def nodes(_who: Viewer) -> Response:
        """What the last runs have seen of each machine, and how the GPUs of those that are alike lie."""

        def make() -> dict[str, Any]:
            facts, when = wizard.facts()
            report = Report(facts=facts)
            return {"seen": when, "nodes": {name: _seen(report, name) for name in facts}, "topologies": topologies(report, list(facts))}

        return wizard.answer("nodes", runs.stamp(), make)

    @app.websocket(f"{API}/cluster/socket")
    async def look(websocket: WebSocket) -> None:
        """The cluster as it is and what happens in it, as `bzzz-setup watch --json` tells. Ends when it cannot go on: come back."""
        if not may_listen(gate, websocket):
            await websocket.close(1008)
            return
        await websocket.accept()
        gone = asyncio.create_task(until_gone(websocket))
        telling = asyncio.create_task(_tell(websocket))
        try:
            await asyncio.wait({gone, telling}, return_when=asyncio.FIRST_COMPLETED)
            if not gone.done():
                with contextlib.suppress(WebSocketDisconnect, RuntimeError):
                    await websocket.close(1013)
        finally:
            gone.cancel()
            telling.cancel()

    async def _tell(websocket: WebSocket) -> None:
        async with contextlib.aclosing(wizard.watching.lines()) as lines:
            async for line in lines:
                if not gate.allows(websocket, "events"):
                    return
                await websocket.send_json(line)


def _seen(report: Report, name: str) -> dict[str, Any]:
    """A machine in a line, its interfaces and its GPUs, in the words of the report's page."""
    found = hardware(report, name)
    return {"hardware": found["summary"], "interfaces": found["interfaces"], "gpus": found["gpus"]}
