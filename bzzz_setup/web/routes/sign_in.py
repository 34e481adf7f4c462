# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who asks: the first account, signing in by password or by the OpenID Connect provider, and out."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any, Literal

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from pydantic import Field
from starlette.exceptions import HTTPException

from bzzz_setup.node.auth import api
from bzzz_setup.node.auth.gate import FLOW_SECONDS, address
from bzzz_setup.node.auth.passwords import hashed
from bzzz_setup.node.auth.principals import ADMIN, SCOPES, USER, Principal
from bzzz_setup.node.auth.records import NEW_USER, Invalid, User, asked
from bzzz_setup.node.web import HOST, problem
from bzzz_setup.web import answers
from bzzz_setup.web.answers import bad
from bzzz_setup.web.guard import same_site
from bzzz_setup.web.shapes import API, Body, own_page, secret
from bzzz_setup.web.wizard import Wizard

# What a browser is told when it comes back from a provider in vain, and for how long.
REFUSED, REFUSED_SECONDS = "refused", 60


class ClaimBody(Body):
    token: str = Field(max_length=200, description="As the terminal showed it when the wizard was started.")
    name: str = Field(max_length=64)
    password: str = secret("At least 12 characters.", ...)


class SignInBody(Body):
    user: str = Field("", max_length=256)
    password: str = secret("The account's.", "")
    token: str = secret("An issued token, instead of user and password.", "")


def routes(app: FastAPI, wizard: Wizard) -> None:
    """Add them to the application."""
    gate = wizard.gate

    # Comes back with a browser from the provider's pages, unlike a session; then it holds why nobody was signed in.
    flow_cookie = f"{gate.cookie}-oidc"

    def keep(request: Request, response: Response, cookie: str, value: str, seconds: int) -> Response:
        """Have the browser keep it for so long; 0 takes it away."""
        site: Literal["lax", "strict"] = "lax" if cookie == flow_cookie else "strict"
        path = root(request) or "/"
        response.set_cookie(cookie, value, seconds, path=path, secure=request.url.scheme == "https", httponly=True, samesite=site)
        return response

    def root(request: Request) -> str:
        """What comes before the wizard's paths."""
        return str(request.scope.get("root_path", ""))

    def signed_in(request: Request, who: Principal, response: Response | None = None) -> Response:
        response = response or JSONResponse(about(who), 201)
        keep(request, response, flow_cookie, "", 0)
        return keep(request, response, gate.cookie, gate.session(who), gate.session_seconds)

    def about(who: Principal) -> dict[str, Any]:
        return {"name": who.name, "kind": who.kind, "role": who.role, "scopes": [scope for scope in SCOPES if who.may(scope)]}

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
        return signed_in(request, await gate.sign_in(address(request), body.user, body.password, body.token))

    @app.delete(f"{API}/session", tags=["auth"], status_code=204, dependencies=[Depends(own_page)])
    async def sign_out(request: Request) -> Response:
        return keep(request, Response(status_code=204), gate.cookie, "", 0)

    def refused_outside(request: Request, refused: HTTPException) -> Response:
        """Back to the page, which is told why."""
        return keep(request, RedirectResponse(f"{root(request)}/", 303), flow_cookie, gate.seal(REFUSED, refused.detail), REFUSED_SECONDS)

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
            url, flow = await gate.leave(address(request), f"{request.url.scheme}://{host}{root(request)}{API}/sign-in/oidc/callback")
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
        return signed_in(request, who, RedirectResponse(f"{root(request)}/", 303))

    # Users and tokens, as on the nodes: docs/node-service.md describes them.
    for route in api.routes(gate, same_site):
        for method in (route.methods or set()) - {"HEAD"}:
            told: dict[str, Any] = {**answers.ACCOUNTS[method, route.path]}
            told["openapi_extra"] = {**told["openapi_extra"], "parameters": answers.of_path(route.path)}
            app.add_api_route(route.path, route.endpoint, methods=[method], response_model=None, **told)
