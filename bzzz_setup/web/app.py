# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The wizard's REST interface, `/api/v1`, described by `/api/v1/openapi.json`, and its page.

Errors are problem details (RFC 9457); what is wrong with what was sent is in `problems`, each with option, message and remedy.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from ansible_collections.bzzz.cluster.plugins.module_utils.problems import Problem, errors
from fastapi import Depends, FastAPI, Query, Request, Response, WebSocket
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse
from pydantic import Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocketDisconnect

from bzzz_setup import portable, reports, run, steps
from bzzz_setup.events import ExitCode, Refusal
from bzzz_setup.node.auth import api
from bzzz_setup.node.auth.gate import FLOW_SECONDS, Gate, address
from bzzz_setup.node.auth.passwords import hashed
from bzzz_setup.node.auth.principals import ADMIN, SCOPES, USER, Principal
from bzzz_setup.node.auth.records import NEW_USER, Invalid, User, asked
from bzzz_setup.node.web import HOST, SecurityHeaders, problem, refusal
from bzzz_setup.report import Report
from bzzz_setup.reports.machines import hardware, topologies
from bzzz_setup.web import answers, beginning, form, importing, trying
from bzzz_setup.web.accounts import Claim
from bzzz_setup.web.answers import Described, bad
from bzzz_setup.web.draft import Conflict, Draft
from bzzz_setup.web.guard import Guard, same_site
from bzzz_setup.web.outside import Authorities
from bzzz_setup.web.runs import Journal, Runs
from bzzz_setup.web.shapes import API, Body, Machine, Operator, Viewer, own_page, secret
from bzzz_setup.web.watching import Watching

LINES = 500
# What a browser is told when it comes back from a provider in vain, and for how long.
REFUSED, REFUSED_SECONDS = "refused", 60
# That are kept for the next who asks the same.
ANSWERS = 32
# How often a socket looks at a journal that grows.
LOOK_SECONDS = 0.1
STATUS = {ExitCode.BUSY: 409, ExitCode.NODES_FAILED: 502}


class ClaimBody(Body):
    token: str = Field(max_length=200, description="As the terminal showed it when the wizard was started.")
    name: str = Field(max_length=64)
    password: str = secret("At least 12 characters.", ...)


class SignInBody(Body):
    user: str = Field(max_length=256)
    password: str = secret("The account's.", ...)


class ChangesBody(Body):
    base: int = Field(ge=0, description="The draft's revision that was seen.")
    changes: dict[str, Any] = Field(
        min_length=1,
        max_length=1000,
        description="Path, as options/service_port or nodes/node1/network_address, to value; null takes it away.",
    )


class ImportBody(Body):
    base: int = Field(ge=0, description="The draft's revision that was seen.")
    declaration: str = Field(max_length=1_500_000, description="The text of the YAML file.")


class RunBody(Body):
    command: Literal["detect", "plan", "apply", "verify"]
    steps: list[int] = Field([], max_length=8, description="Only these; all when empty. For plan and apply.")
    limit: str | None = Field(None, max_length=1000, pattern=r"^[A-Za-z0-9_.:,*!&\[\]-]+$", description="Only these nodes.")
    base: int | None = Field(None, ge=0, description="Refuse when the draft is of another revision.")
    ssh_password: str | None = secret("Asked for by machines that know no key yet.")
    become_password: str | None = secret("Sudo's, where it asks for one.")


class PauseBody(Body):
    pausing: bool = Field(description="Whether it is to wait before its next step.")


class Wizard:
    """Everything that the routes share."""

    def __init__(self, draft: Draft, gate: Gate, claim: Claim, authorities: Authorities) -> None:
        self.draft, self.gate, self.claim, self.authorities = draft, gate, claim, authorities
        self.runs = Runs(draft.source, lambda: str(draft.view()["cluster"]))
        self.watching = Watching(draft.source)
        self._answers: collections.OrderedDict[str, tuple[Any, bytes]] = collections.OrderedDict()

    def facts(self) -> tuple[dict[str, dict[str, Any]], str | None]:
        """What the last runs have seen of each node, and when."""
        return portable.remembered_facts(self.runs.reports())

    def answer(self, what: str, stamp: Any, make: Callable[[], dict[str, Any]]) -> Response:
        """An answer, made anew when what it is made of is no longer as stamped: with a hundred machines that takes its time."""
        known = self._answers.get(what)
        if known is None or known[0] != stamp:
            known = stamp, bytes(JSONResponse(jsonable_encoder(make())).body)
            self._answers[what] = known
            while len(self._answers) > ANSWERS:
                self._answers.popitem(last=False)
        return Response(known[1], media_type="application/json")


def build(wizard: Wizard, hosts: frozenset[str], page: Path | None = None) -> FastAPI:
    """The application. hosts: the names that it is called by; page: the folder of the built frontend."""
    gate, draft, runs = wizard.gate, wizard.draft, wizard.runs

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await wizard.watching.stop()

    app = Described(
        title="BZZZ cluster setup",
        lifespan=lifespan,
        version="1",
        description=__doc__,
        openapi_url=f"{API}/openapi.json",
        docs_url=None,
        redoc_url=None,
        # Who asks is known by it; the schema is told to nobody else.
        responses=answers.EVERYWHERE,
    )
    app.state.gate = gate
    app.add_middleware(SecurityHeaders)
    app.add_middleware(Guard, hosts=hosts)

    @app.exception_handler(Refusal)
    async def _refused(_request: Request, error: Refusal) -> Response:
        return problem(STATUS.get(error.code, 422), str(error), problems=error.problems)

    @app.exception_handler(Conflict)
    async def _conflict(_request: Request, error: Conflict) -> Response:
        changes = {
            path: {
                "revision": change.revision,
                "by": change.by,
                "at": change.at,
                **({} if path.startswith("secrets/") else {"value": change.value}),
            }
            for path, change in error.changes.items()
        }
        return problem(409, "Somebody else has changed this meanwhile: look at it, and change it again", changes=changes)

    @app.exception_handler(HTTPException)
    async def _http(_request: Request, error: HTTPException) -> Response:
        return refusal(error)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_request: Request, error: RequestValidationError) -> Response:
        found = [
            {
                "option": ".".join(map(str, one["loc"][1:])),
                "message": one["msg"],
                "remedy": "See /api/v1/openapi.json for what is read here.",
            }
            for one in error.errors()
        ]
        return problem(422, "; ".join(f"{one['option']}: {one['message']}" for one in found), problems=found)

    # Comes back with a browser from the provider's pages, unlike a session; then it holds why nobody was signed in.
    flow_cookie = f"{gate.cookie}-oidc"

    def keep(request: Request, response: Response, cookie: str, value: str, seconds: int) -> Response:
        """Have the browser keep it for so long; 0 takes it away."""
        site: Literal["lax", "strict"] = "lax" if cookie == flow_cookie else "strict"
        response.set_cookie(cookie, value, seconds, secure=request.url.scheme == "https", httponly=True, samesite=site)
        return response

    def signed_in(request: Request, who: Principal, response: Response | None = None) -> Response:
        response = response or JSONResponse(about(who), 201)
        keep(request, response, flow_cookie, "", 0)
        return keep(request, response, gate.cookie, gate.session(who), gate.session_seconds)

    def about(who: Principal) -> dict[str, Any]:
        return {"name": who.name, "kind": who.kind, "role": who.role, "scopes": [scope for scope in SCOPES if who.may(scope)]}

    # --- who ---

    @app.get(f"{API}/welcome", tags=["auth"], response_model=None, responses={200: {"model": answers.Welcome}})
    async def welcome(request: Request) -> dict[str, Any]:
        """Whether there is an account yet, who asks, the ways to sign in, and why the last one by the provider was no use.

        Needs no sign-in.
        """
        who = gate.identify(request)
        return {
            "claimed": not wizard.claim.open,
            "me": about(who) if who else None,
            "ways": ["password", "oidc"] if gate.oidc else ["password"],
            "provider": gate.oidc.settings.title if gate.oidc else None,
            "refused": gate.unseal(REFUSED, request.cookies.get(flow_cookie, "")),
        }

    @app.post(
        f"{API}/claim",
        tags=["auth"],
        status_code=201,
        response_model=None,
        responses={201: {"model": answers.Me}, **bad(_409="Claimed")},
        dependencies=[Depends(own_page)],
    )
    async def claim(request: Request, body: ClaimBody) -> Response:
        """Make the first account, an administrator's, with the token that the terminal showed; once."""
        source = address(request)
        if not wizard.claim.open:
            raise HTTPException(409, "This wizard has been claimed already: sign in")
        gate.attempt_claim(source, wizard.claim.fits(body.token))
        try:
            fields = asked(json.dumps({"name": body.name, "role": ADMIN, "password": body.password}).encode(), NEW_USER)
        except Invalid as invalid:
            found = [{"option": one.key, "message": one.message, "remedy": one.remedy} for one in invalid.problems]
            return problem(422, str(invalid), problems=found)
        assert gate.directory
        now = int(time.time())
        user = User(fields["name"], ADMIN, await asyncio.to_thread(hashed, fields["password"]), now, now, "claim")
        wizard.claim.use()
        if not await asyncio.to_thread(gate.directory.write, None, user):
            raise HTTPException(409, f"There is a user {user.name} already")
        gate.audit("user.add", None, source, user=user.name, role=ADMIN, by="claim")
        view = await asyncio.to_thread(gate.directory.refresh)
        return signed_in(request, Principal(USER, user.name, ADMIN, since=str(view.users[user.name].revision)))

    @app.post(
        f"{API}/session",
        tags=["auth"],
        status_code=201,
        response_model=None,
        responses={201: {"model": answers.Me}, **bad(_503="Too many sign in at this moment")},
        dependencies=[Depends(own_page)],
    )
    async def sign_in(request: Request, body: SignInBody) -> Response:
        return signed_in(request, await gate.sign_in(address(request), body.user, body.password))

    @app.delete(f"{API}/session", tags=["auth"], status_code=204, dependencies=[Depends(own_page)])
    async def sign_out(request: Request) -> Response:
        return keep(request, Response(status_code=204), gate.cookie, "", 0)

    def refused_outside(request: Request, refused: HTTPException) -> Response:
        """Back to the page, which is told why."""
        return keep(request, RedirectResponse("/", 303), flow_cookie, gate.seal(REFUSED, refused.detail), REFUSED_SECONDS)

    @app.get(
        f"{API}/sign-in/oidc",
        tags=["auth"],
        response_class=RedirectResponse,
        status_code=302,
        responses={303: {"description": "Back to the page, which is told why that is of no use now"}},
    )
    async def leave(request: Request) -> Response:
        """For browsers: go to sign in at the OpenID Connect provider."""
        host = request.headers["host"]
        if not HOST.fullmatch(host):
            raise HTTPException(400, "The request's host is none")
        try:
            # As the browser names this host, by a name that the guard knows; the provider knows which addresses are ours.
            url, flow = await gate.leave(address(request), f"{request.url.scheme}://{host}{API}/sign-in/oidc/callback")
        except HTTPException as refused:
            return refused_outside(request, refused)
        return keep(request, RedirectResponse(url, 302), flow_cookie, flow, FLOW_SECONDS)

    @app.get(f"{API}/sign-in/oidc/callback", tags=["auth"], response_class=RedirectResponse, status_code=303)
    async def come_back(request: Request) -> Response:
        """For browsers: come back from there. The page, which then asks by itself, brings the session along."""
        try:
            who = await gate.come_back(address(request), request.cookies.get(flow_cookie, ""), request.query_params)
        except HTTPException as refused:
            return refused_outside(request, refused)
        return signed_in(request, who, RedirectResponse("/", 303))

    # --- what is wanted ---

    @app.get(f"{API}/schema", tags=["declaration"], response_model=None, responses={200: {"model": answers.Form}})
    def schema(_who: Viewer) -> Response:
        """Steps, roles and options, as the roles' argument specs declare them."""
        return wizard.answer("schema", None, form.form)

    @app.get(f"{API}/draft", tags=["declaration"], response_model=None, responses={200: {"model": answers.Draft}})
    def read_draft(_who: Viewer) -> Response:
        """The declaration as it is to become, and what the rules say of it. Of secrets only whether they are set."""
        return judged()

    def judged() -> Response:
        def make() -> dict[str, Any]:
            view = draft.view()
            facts, when = wizard.facts()
            return {**view, **form.judged(view, facts), "facts_of": when}

        return wizard.answer("draft", (draft.stamp(), runs.stamp()), make)

    @app.patch(
        f"{API}/draft",
        tags=["declaration"],
        response_model=None,
        responses={200: {"model": answers.Draft}, **bad(_409="Changed by somebody else meanwhile")},
    )
    def change_draft(who: Operator, body: ChangesBody) -> Response:
        """Change values. Somebody else's newer ones are not overwritten: 409 tells them."""
        for path, value in body.changes.items():
            if path.count("/") == 1 and path.startswith("nodes/") and value is not None:
                try:
                    body.changes[path] = Machine.model_validate(value).model_dump()
                except ValidationError as wrong:
                    raise RequestValidationError([{**one, "loc": ("body", path, *one["loc"])} for one in wrong.errors()]) from None
        draft.change(body.base, body.changes, str(who))
        return judged()

    @app.delete(
        f"{API}/draft",
        tags=["declaration"],
        response_model=None,
        responses={200: {"model": answers.Draft}, **bad(_409="Changed by somebody else meanwhile")},
    )
    def discard_draft(who: Operator, base: Annotated[int, Query(ge=0)]) -> Response:
        """Forget all changes that are not applied."""
        unchanged(base)
        draft.discard()
        return judged()

    def unchanged(base: int | None) -> None:
        if base is not None and base != draft.revision:
            newer = {path: change for path, change in draft.changes.items() if change.revision > base}
            raise Conflict(newer)

    @app.post(
        f"{API}/check",
        tags=["declaration"],
        response_model=None,
        responses={200: {"model": answers.Checked}, **bad(_409="Others ask already", _502="It cannot be worked out")},
    )
    def check(_who: Operator) -> dict[str, Any]:
        """What is wrong with the draft once Ansible has worked its values out, as `bzzz-setup check` tells. Takes some seconds."""
        with draft.folder() as folder:
            problems = runs.problems(folder)
        return {"problems": [{**one, "step": form.step_of(one["option"])} for one in problems]}

    @app.post(
        f"{API}/tests/{{what}}",
        tags=["declaration"],
        response_model=None,
        responses={200: {"model": answers.Tried}, **bad(_502="It does not answer, or not so")},
    )
    def try_out(who: Operator, request: Request, what: Literal["ldap", "oidc"]) -> dict[str, Any]:
        """Ask, from this host, whom the draft names: the LDAP directory as its service account, the provider for its keys."""
        assert gate.directory
        with draft.folder() as folder:
            return {"told": trying.outside(folder, what, gate.directory)}

    @app.get(
        f"{API}/export",
        tags=["declaration"],
        response_class=answers.Yaml,
        responses={**answers.EXPORTED, **bad(_409="Others ask already", _502="The files cannot be made")},
    )
    def export(_who: Viewer, kind: Literal["yaml", "env", "systemd", "all"] = "yaml") -> Response:
        """The declaration as one YAML file without its secrets, or what it makes of each node as an archive; see `bzzz-setup export`."""
        cluster = str(draft.view()["cluster"])
        answer: Response
        with draft.folder() as folder:
            if kind == "yaml":
                answer, name = answers.Yaml(portable.text_of(portable.document(folder), cluster)), f"{cluster}.yml"
            else:
                answer, name = answers.Zip(runs.files(kind, folder)), f"{cluster}-{kind}.zip"
        answer.headers["Content-Disposition"] = f'attachment; filename="{name}"'
        return answer

    @app.post(
        f"{API}/import",
        tags=["declaration"],
        response_model=None,
        responses={200: {"model": answers.Imported}, **bad(_409="Changed by somebody else meanwhile")},
    )
    def take_in(who: Operator, request: Request, body: ImportBody) -> dict[str, Any]:
        """Take in what export has written: as changes of the draft, or as the inventory folder where there is none yet."""
        taken = importing.take(draft, body.declaration, body.base, str(who), {})
        return dataclasses.asdict(taken)

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

    # --- runs ---

    @app.post(
        f"{API}/runs",
        tags=["runs"],
        status_code=202,
        response_model=None,
        responses={202: {"model": answers.Begun}, **bad(_409="Another run, or another draft", _502="It did not begin")},
    )
    def start(who: Operator, request: Request, body: RunBody) -> dict[str, Any]:
        """Begin a run: detect, plan and verify over the draft, apply over the inventory folder, into which the draft goes first."""
        unchanged(body.base)
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
        lines = kept(name).lines(after, most)
        return JSONResponse({"events": [_short(after + place, line) for place, line in enumerate(lines, 1)]})

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

    def may_listen(websocket: WebSocket) -> bool:
        return gate.allows(websocket, "events") and (gate.bears(websocket) or same_site(websocket))

    @app.websocket(f"{API}/runs/{{name}}/socket")
    async def follow(websocket: WebSocket, name: str, after: int = 0) -> None:
        """Events as they come, from behind the id `after` on; the socket ends with the run."""
        if not may_listen(websocket):
            await websocket.close(1008)
            return
        try:
            journal = await asyncio.to_thread(runs.journal, name)
        except Refusal:
            await websocket.close(1008)
            return
        await websocket.accept()
        gone = asyncio.create_task(_until_gone(websocket))
        try:
            await _follow(websocket, journal, max(0, after), gone)
        finally:
            gone.cancel()

    @app.websocket(f"{API}/cluster/socket")
    async def look(websocket: WebSocket) -> None:
        """The cluster as it is and what happens in it, as `bzzz-setup watch --json` tells. Ends when it cannot go on: come back."""
        if not may_listen(websocket):
            await websocket.close(1008)
            return
        await websocket.accept()
        gone = asyncio.create_task(_until_gone(websocket))
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

    async def _follow(websocket: WebSocket, journal: Journal, place: int, gone: asyncio.Task[None]) -> None:
        idle = 0.0
        while not gone.done():
            lines = await asyncio.to_thread(journal.lines, place, LINES)
            for line in lines:
                place += 1
                await websocket.send_json(_short(place, line))
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

    beginning.routes(app, draft)
    # Users and tokens, as on the nodes: docs/node-service.md describes them.
    app.router.routes += api.routes(gate, same_site)
    if page:
        _serve(app, page)
    return app


async def _until_gone(websocket: WebSocket) -> None:
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        while True:
            await websocket.receive_text()


def _short(number: int, line: str) -> dict[str, Any]:
    """An event for a screen: facts and differences are read from the run itself, when it is looked at."""
    event: dict[str, Any] = json.loads(line)
    event.pop("facts", None)
    event.pop("diff", None)
    return {"id": number, **event}


def _seen(report: Report, name: str) -> dict[str, Any]:
    """A machine in a line, its interfaces and its GPUs, in the words of the report's page."""
    found = hardware(report, name)
    return {"hardware": found["summary"], "interfaces": found["interfaces"], "gpus": found["gpus"]}


class Assets(StaticFiles):
    """Files whose names change with their contents."""

    def file_response(self, *arguments: Any, **more: Any) -> Response:
        answer = super().file_response(*arguments, **more)
        answer.headers["cache-control"] = "public, max-age=31536000, immutable"
        return answer


def _serve(app: FastAPI, page: Path) -> None:
    """The built frontend. Its page is answered for every address that is none of the interface's: the browser knows which it shows."""
    document = (page / "index.html").read_text(encoding="utf-8")
    app.mount("/assets", GZipMiddleware(Assets(directory=page / "assets")))
    files = {file.name: file for file in page.iterdir() if file.is_file() and file.suffix in (".js", ".svg", ".webmanifest")}

    @app.get("/{path:path}", include_in_schema=False)
    async def shell(path: str) -> Response:
        if path.startswith("api/"):
            raise HTTPException(404)
        if path in files:
            # Of these one is the service worker, which fetches the page's parts.
            policy = "default-src 'none'; script-src 'self'; connect-src 'self'; frame-ancestors 'none'"
            return FileResponse(files[path], headers={"cache-control": "no-cache", "content-security-policy": policy})
        nonce = secrets.token_urlsafe(16)
        policy = (
            f"default-src 'none'; script-src 'self'; style-src 'self' 'nonce-{nonce}'; img-src 'self' data:; font-src 'self'; "
            "connect-src 'self'; manifest-src 'self'; worker-src 'self'; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        return HTMLResponse(document.replace("NONCE", nonce), headers={"content-security-policy": policy})
