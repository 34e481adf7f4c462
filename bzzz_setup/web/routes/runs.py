# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs: begun, followed, told to wait, ended, and looked at afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Annotated, Any, Literal

from ansible_collections.bzzz.cluster.plugins.module_utils.probe import matrix
from ansible_collections.bzzz.cluster.plugins.module_utils.problems import Problem, errors
from fastapi import FastAPI, Query, Request, Response, WebSocket
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import Field
from starlette.exceptions import HTTPException

from bzzz_setup import reports, run, steps
from bzzz_setup.events import Refusal
from bzzz_setup.node.auth.gate import address
from bzzz_setup.report import Report
from bzzz_setup.reports.network import network
from bzzz_setup.web import answers, form
from bzzz_setup.web.answers import bad
from bzzz_setup.web.runs import Journal
from bzzz_setup.web.shapes import API, Body, Operator, Viewer, secret
from bzzz_setup.web.sockets import may_listen, until_gone
from bzzz_setup.web.wizard import Wizard

LINES = 500
# How often a socket looks at a journal that grows.
LOOK_SECONDS = 0.1


class RunBody(Body):
    command: Literal["detect", "plan", "apply", "verify"]
    steps: list[int] = Field([], max_length=8, description="Only these; all when empty. For plan and apply.")
    limit: str | None = Field(None, max_length=1000, pattern=r"^[A-Za-z0-9_.:,*!&\[\]-]+$", description="Only these nodes.")
    base: int | None = Field(None, ge=0, description="Refuse when the draft is of another revision.")
    ssh_password: str | None = secret("Asked for by machines that know no key yet.")
    become_password: str | None = secret("Sudo's, where it asks for one.")


class PauseBody(Body):
    pausing: bool = Field(description="Whether it is to wait before its next step.")


def routes(app: FastAPI, wizard: Wizard) -> None:
    """Add them to the application."""
    gate, draft, runs = wizard.gate, wizard.draft, wizard.runs

    @app.post(
        f"{API}/runs",
        tags=["runs"],
        status_code=202,
        response_model=None,
        responses={202: {"model": answers.Begun}, **bad(_409="Another run, or another draft", _502="It did not begin")},
    )
    def start(who: Operator, request: Request, body: RunBody) -> dict[str, Any]:
        """Begin a run: detect, plan and verify over the draft, apply over the inventory folder, into which the draft goes first."""
        wizard.unchanged(body.base)
        known = {step.number for step in steps.steps()}
        if unknown := sorted(set(body.steps) - known):
            raise Refusal(f"there is no step {unknown[0]}", f"Name some of {', '.join(map(str, sorted(known)))}.", option="steps")
        passwords = {name: given for name, given in (("ssh", body.ssh_password), ("become", body.become_password)) if given}
        with contextlib.ExitStack() as stack:
            if body.command == "apply":
                if wrong := errors(form.judged(draft.view())["problems"]):
                    refused = Refusal("the declaration has problems", "Correct them first.")
                    refused.problems = [Problem(**{key: one[key] for key in Problem.__annotations__}) for one in wrong]
                    raise refused
                draft.publish()
                wizard.authorities.refresh()
                folder = draft.source
            else:
                folder = stack.enter_context(draft.folder())
            later = stack.pop_all()
        try:
            name = runs.start(body.command, folder, sorted(body.steps), body.limit, passwords, later.close)
        except Refusal:
            later.close()
            raise
        gate.audit("run.start", who, address(request), run=name, steps=body.steps, limit=body.limit)
        return {"run": name}

    @app.get(f"{API}/runs", tags=["runs"], response_model=None, responses={200: {"model": answers.Runs}})
    def list_runs(_who: Viewer) -> Response:
        """The runs that are kept, newest first, and the one that holds the cluster now."""
        held = run.holder(str(draft.view()["cluster"]))

        def make() -> dict[str, Any]:
            kept = [
                {
                    "run": report.run,
                    "command": report.command,
                    "started": report.started,
                    "seconds": report.seconds,
                    "only": list(report.steps) if len(report.steps) == 1 else [],
                    "exit_code": int(report.exit_code),
                    "outcome": report.exit_code.name.lower(),
                }
                for report in runs.reports()
            ]
            return {"running": held, "runs": kept}

        return wizard.answer("runs", (runs.stamp(), str(held)), make)

    @app.get(f"{API}/runs/{{name}}", tags=["runs"], response_model=None, responses={200: {"model": answers.Run}, **bad(_404="No such run")})
    def one_run(_who: Viewer, name: str) -> Response:
        """What a run did so far. What checks have measured is in its report."""
        journal = kept(name)
        with journal.read() as report:
            running = report.finished is None and held_by(name)
            pausing = run.pausing(journal.folder)

            def make() -> dict[str, Any]:
                told = report.as_dict()
                del told["matrix"]
                told |= {"checks": answers.without_data(told["checks"]), "diffs": report.diffs}
                return {**told, "running": running, "pausing": pausing, "last": journal.last}

            return wizard.answer(name, (journal.last, running, pausing), make)

    def held_by(name: str) -> bool:
        held = run.holder(str(draft.view()["cluster"]))
        return bool(held) and f"-{held['pid']}-" in name if held else False

    def kept(name: str) -> Journal:
        try:
            return runs.journal(name)
        except Refusal as refused:
            raise HTTPException(404, str(refused)) from None

    @app.get(
        f"{API}/runs/{{name}}/events",
        tags=["runs"],
        response_model=None,
        responses={200: {"model": answers.Events}, **bad(_404="No such run")},
    )
    def some_events(
        _who: Viewer, name: str, after: Annotated[int, Query(ge=0)] = 0, most: Annotated[int, Query(ge=1, le=LINES)] = LINES
    ) -> Response:
        """Events behind the one of id `after`, a page of them."""
        journal = kept(name)
        lines = journal.lines(after, most)
        return JSONResponse({"events": [_short(journal, after + place, line) for place, line in enumerate(lines, 1)]})

    @app.get(
        f"{API}/runs/{{name}}/ways",
        tags=["runs"],
        response_model=None,
        responses={200: {"model": answers.Measured}, **bad(_404="No such run")},
    )
    def ways_of(_who: Viewer, name: str) -> dict[str, Any]:
        """How each node reaches each other, as a run has measured it: latency, size of packets, clocks, loss. By groups of many nodes."""
        return {"ways": network(matrix(Report.of(run.events(kept(name).folder)).checks))}

    @app.get(f"{API}/runs/{{name}}/report", tags=["runs"], response_class=HTMLResponse, responses=bad(_404="No such run"))
    def page_of(_who: Viewer, name: str) -> Response:
        """The report as one page."""
        report = Report.of(run.events(kept(name).folder))
        # A page by itself: it gets at nothing of this server's.
        policy = (
            "default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'unsafe-inline'; "
            "frame-ancestors 'none'; sandbox allow-scripts"
        )
        return HTMLResponse(reports.html(report), headers={"content-security-policy": policy})

    @app.delete(
        f"{API}/runs/{{name}}",
        tags=["runs"],
        status_code=202,
        response_model=None,
        responses={202: {"model": answers.Asked}, **bad(_404="No such run")},
    )
    def cancel(who: Operator, request: Request, name: str) -> dict[str, Any]:
        """Ask a run to end. Nodes finish what they are at; the next run goes on from there."""
        kept(name)
        asked_to = held_by(name) and runs.cancel()
        gate.audit("run.cancel", who, address(request), run=name)
        return {"asked": asked_to}

    @app.put(
        f"{API}/runs/{{name}}/pause",
        tags=["runs"],
        response_model=None,
        responses={200: {"model": answers.Pausing}, **bad(_404="No such run")},
    )
    def pause(who: Operator, request: Request, name: str, body: PauseBody) -> dict[str, Any]:
        """Have a run wait before its next step, or go on. One that is over is left as it is."""
        folder = kept(name).folder
        wanted = body.pausing and held_by(name)
        run.pause(folder, wanted)
        gate.audit("run.pause" if wanted else "run.resume", who, address(request), run=name)
        return {"pausing": wanted}

    @app.websocket(f"{API}/runs/{{name}}/socket")
    async def follow(websocket: WebSocket, name: str, after: int = 0) -> None:
        """Events as they come, from behind the id `after` on; the socket ends with the run."""
        if not may_listen(gate, websocket):
            await websocket.close(1008)
            return
        try:
            journal = await asyncio.to_thread(runs.journal, name)
        except Refusal:
            await websocket.close(1008)
            return
        await websocket.accept()
        gone = asyncio.create_task(until_gone(websocket))
        try:
            await _follow(websocket, journal, max(0, after), gone)
        finally:
            gone.cancel()

    async def _follow(websocket: WebSocket, journal: Journal, place: int, gone: asyncio.Task[None]) -> None:
        idle = 0.0
        while not gone.done():
            lines = await asyncio.to_thread(journal.lines, place, LINES)
            for line in lines:
                place += 1
                await websocket.send_json(_short(journal, place, line))
                if '"event": "RunFinished"' in line[:40]:
                    await websocket.close(1000)
                    return
            if lines:
                idle = 0.0
                continue
            idle += LOOK_SECONDS
            if idle > 2:  # a run that was killed says nothing any more
                idle = 0.0
                if not gate.allows(websocket, "events") or not await asyncio.to_thread(held_by, journal.folder.name):
                    await websocket.close(1000)
                    return
            await asyncio.sleep(LOOK_SECONDS)


def _short(journal: Journal, number: int, line: str) -> dict[str, Any]:
    """An event for a screen: facts and differences are read from the run itself, when it is looked at. What went wrong has its remedy."""
    event: dict[str, Any] = json.loads(line)
    event.pop("facts", None)
    event.pop("diff", None)
    return {"id": number, **event, **journal.plain(line)}
