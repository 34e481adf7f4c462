# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""REST: ``/api/v1/sessions`` and ``/api/v1/me`` for everybody, ``/api/v1/users`` and ``/api/v1/tokens`` for administrators."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ..store import Unavailable
from ..web import body_of, problem
from .directory import Directory, View
from .gate import UNSURE, Gate, address
from .principals import ADMIN, SCOPES, USER, Principal
from .records import CHANGED_USER, DAY, NEW_TOKEN, NEW_USER, OWN_PASSWORD, SESSION, TOKEN_DEFAULTS, Invalid, Token, User, asked

BODY_BYTES = 4096
ONLY_ADMIN = "You are the only administrator: make another one first"
AWAY = {"Retry-After": "5"}

Handler = Callable[[Request, Principal, Directory], Awaitable[Response]]


def _times(**times: int) -> dict[str, str]:
    return {name: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(value)) for name, value in times.items()}


def _user(user: User, directory: Directory, view: View) -> dict[str, Any]:
    times = _times(created=user.created, changed=user.changed)
    return {"name": user.name, "role": user.role, **times, "by": user.by, "locked": directory.locked(user.name, view)}


def _token(token: Token) -> dict[str, Any]:
    times = _times(created=token.created, expires=token.expires)
    fields = {"id": token.id, "name": token.name, "role": token.role, "scopes": list(token.scopes)}
    return {**fields, **times, "by": token.by, "expired": token.expired}


def routes(gate: Gate, is_own: Callable[[Request], bool]) -> list[Route]:
    """is_own: whether a browser asks from a page that may ask for a change with its session."""

    def managed(handler: Handler, scope: str | None = "auth") -> Callable[[Request], Awaitable[Response]]:
        """scope: None for whoever is somebody."""

        async def answer(request: Request) -> Response:
            who = known(request) if scope is None else gate.require(request, scope)
            # A session's cookie goes with any page's request.
            if request.method not in ("GET", "HEAD") and not gate.bears(request) and not is_own(request):
                return problem(403, "Browsers may change something from this node's own page only")
            if gate.directory is None:
                return problem(503, "The cluster is not formed yet: there is no place to keep users and tokens")
            try:
                return await handler(request, who, gate.directory)
            except Invalid as invalid:
                return _invalid(invalid)
            except Unavailable:
                return problem(503, UNSURE, AWAY)

        return answer

    def known(request: Request) -> Principal:
        return gate.identify(request) or gate.require(request, "api")

    async def sign_in(request: Request) -> Response:
        try:
            fields = asked(await body_of(request, BODY_BYTES), SESSION)
        except Invalid as invalid:
            return _invalid(invalid)
        who = await gate.sign_in(address(request), fields["user"], fields["password"])
        expires = int(time.time()) + gate.session_seconds
        about = {"kind": who.kind, "name": who.name, "role": who.role, **_times(expires=expires)}
        return JSONResponse({**about, "token": gate.session(who)}, 201)

    async def own_password(request: Request, who: Principal, directory: Directory) -> Response:
        fields = asked(await body_of(request, BODY_BYTES), OWN_PASSWORD)
        if who.kind != USER:
            return problem(409, f"{who} has no password here")
        before = (await asyncio.to_thread(directory.refresh)).users.get(who.name)
        # Counted and throttled as any other guess; and not the directory server's password.
        again = await gate.sign_in(address(request), who.name, fields["old"])
        if before is None or again.kind != USER:
            return problem(401, "The old password is wrong.")
        user = dataclasses.replace(before, password=await _hashed(fields["password"]), changed=int(time.time()))
        if not await asyncio.to_thread(directory.write, before, user):
            return problem(409, f"{user.name} was changed by somebody else meanwhile: look again")
        gate.audit("user.change", who, address(request), user=user.name, fields=["password"], role=user.role)
        return JSONResponse(_user(user, directory, await asyncio.to_thread(directory.refresh)))

    async def me(request: Request) -> Response:
        who = known(request)
        may = [scope for scope in SCOPES if who.may(scope)]
        return JSONResponse({"kind": who.kind, "name": who.name, "role": who.role, "scopes": may})

    async def users(_request: Request, _who: Principal, directory: Directory) -> Response:
        view = await asyncio.to_thread(directory.refresh)
        return JSONResponse({"users": [_user(view.users[name], directory, view) for name in sorted(view.users)]})

    async def add_user(request: Request, who: Principal, directory: Directory) -> Response:
        fields = asked(await body_of(request, BODY_BYTES), NEW_USER)
        now = int(time.time())
        user = User(fields["name"], fields["role"], await _hashed(fields["password"]), now, now, str(who))
        if not await asyncio.to_thread(directory.write, None, user):
            taken = f"there is a user {user.name} already"
            return problem(409, taken.capitalize(), problems=[{"option": "name", "message": taken, "remedy": "choose another name"}])
        await asyncio.to_thread(directory.forgive, user.name)
        gate.audit("user.add", who, address(request), user=user.name, role=user.role)
        view = await asyncio.to_thread(directory.refresh)
        return JSONResponse(_user(user, directory, view), 201, {"Location": f"/api/v1/users/{user.name}"})

    async def change_user(request: Request, who: Principal, directory: Directory) -> Response:
        fields = asked(await body_of(request, BODY_BYTES), CHANGED_USER, partly=True)
        before = await _found(request, directory)
        if fields.get("role", ADMIN) != ADMIN and _only_admin(who, before, await asyncio.to_thread(directory.refresh)):
            return problem(409, ONLY_ADMIN)
        new: dict[str, Any] = {key: fields[key] for key in ("role",) if key in fields}
        if "password" in fields:
            new["password"] = await _hashed(fields["password"])
        user = dataclasses.replace(before, **new, changed=int(time.time())) if new else before
        if new and not await asyncio.to_thread(directory.write, before, user):
            return problem(409, f"{user.name} was changed by somebody else meanwhile: look again")
        if "password" in fields or "locked" in fields:
            await asyncio.to_thread(directory.forgive, user.name)
        gate.audit("user.change", who, address(request), user=user.name, fields=sorted(fields), role=user.role)
        return JSONResponse(_user(user, directory, await asyncio.to_thread(directory.refresh)))

    async def remove_user(request: Request, who: Principal, directory: Directory) -> Response:
        user = await _found(request, directory)
        if _only_admin(who, user, await asyncio.to_thread(directory.refresh)):
            return problem(409, ONLY_ADMIN)
        if not await asyncio.to_thread(directory.write, user, None):
            return problem(409, f"{user.name} was changed by somebody else meanwhile: look again")
        gate.audit("user.remove", who, address(request), user=user.name)
        return Response(status_code=204)

    async def tokens(_request: Request, _who: Principal, directory: Directory) -> Response:
        view = await asyncio.to_thread(directory.refresh)
        return JSONResponse({"tokens": [_token(each) for each in sorted(view.tokens.values(), key=lambda each: (each.name, each.id))]})

    async def issue_token(request: Request, who: Principal, directory: Directory) -> Response:
        fields = asked(await body_of(request, BODY_BYTES), NEW_TOKEN, TOKEN_DEFAULTS)
        number, now = secrets.token_hex(8), int(time.time())
        secret = f"bzzz_{number}_{secrets.token_urlsafe(32)}"
        sha256, expires = hashlib.sha256(secret.encode()).hexdigest(), now + max(1, int(fields["days"] * DAY))
        token = Token(number, fields["name"], fields["role"], fields["scopes"], sha256, now, expires, str(who))
        if not await asyncio.to_thread(directory.write, None, token):
            raise Unavailable("an id was there already")
        about = _token(token)
        gate.audit("token.issue", who, address(request), **{key: about[key] for key in ("id", "name", "role", "scopes", "expires")})
        # The one time that it is told.
        return JSONResponse({**about, "token": secret}, 201, {"Location": f"/api/v1/tokens/{number}"})

    async def revoke_token(request: Request, who: Principal, directory: Directory) -> Response:
        view = await asyncio.to_thread(directory.refresh)
        token = view.tokens.get(request.path_params["id"])
        if token is None:
            return problem(404, "There is no such token")
        await asyncio.to_thread(directory.write, token, None)
        gate.audit("token.revoke", who, address(request), id=token.id, name=token.name)
        return Response(status_code=204)

    return [
        Route("/api/v1/sessions", sign_in, methods=["POST"]),
        Route("/api/v1/me", me),
        Route("/api/v1/me", managed(own_password, None), methods=["PATCH"]),
        Route("/api/v1/users", managed(users)),
        Route("/api/v1/users", managed(add_user), methods=["POST"]),
        Route("/api/v1/users/{name}", managed(change_user), methods=["PATCH"]),
        Route("/api/v1/users/{name}", managed(remove_user), methods=["DELETE"]),
        Route("/api/v1/tokens", managed(tokens)),
        Route("/api/v1/tokens", managed(issue_token), methods=["POST"]),
        Route("/api/v1/tokens/{id}", managed(revoke_token), methods=["DELETE"]),
    ]


def _only_admin(who: Principal, user: User, view: View) -> bool:
    """Whether these are one, and nobody else of the users may let people in."""
    mine = who.kind == USER and who.name == user.name and user.role == ADMIN
    return mine and not any(other.role == ADMIN for name, other in view.users.items() if name != user.name)


def _invalid(invalid: Invalid) -> Response:
    found = [{"option": each.key, "message": each.message, "remedy": each.remedy} for each in invalid.problems]
    return problem(422, str(invalid), problems=found)


async def _hashed(password: str) -> str:
    from .passwords import hashed  # noqa: PLC0415 - not before it is needed

    return await asyncio.to_thread(hashed, password)


async def _found(request: Request, directory: Directory) -> User:
    view = await asyncio.to_thread(directory.refresh)
    user = view.users.get(request.path_params["name"])
    if user is None:
        raise HTTPException(404, "There is no such user")
    return user
