# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The wizard's REST interface, `/api/v1`, described by `/api/v1/openapi.json`, and its page.

Errors are problem details (RFC 9457); what is wrong with what was sent is in `problems`, each with option, message and remedy.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.staticfiles import StaticFiles

from bzzz_setup.events import ExitCode, Refusal
from bzzz_setup.node.web import SecurityHeaders, problem, refusal
from bzzz_setup.web import answers
from bzzz_setup.web.answers import Described
from bzzz_setup.web.draft import Conflict
from bzzz_setup.web.guard import Guard
from bzzz_setup.web.routes import cluster, declaration, machines, runs, sign_in, spend
from bzzz_setup.web.shapes import API
from bzzz_setup.web.wizard import Wizard

STATUS = {ExitCode.BUSY: 409, ExitCode.NODES_FAILED: 502}


def build(wizard: Wizard, hosts: frozenset[str], page: Path | None = None) -> FastAPI:
    """The application. hosts: the names that it is called by; page: the folder of the built frontend."""
    gate = wizard.gate

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

    for about in (sign_in, declaration, machines, cluster, spend, runs):
        about.routes(app, wizard)
    if page:
        _serve(app, page)
    return app


class Assets(StaticFiles):
    """Files whose names change with their contents."""

    def file_response(self, *arguments: Any, **more: Any) -> Response:
        answer = super().file_response(*arguments, **more)
        answer.headers["cache-control"] = "public, max-age=31536000, immutable"
        return answer


def _serve(app: FastAPI, page: Path) -> None:
    """The built frontend. Its page is answered for every address that is none of the interface's: the browser knows which it shows."""
    document = (page / "index.html").read_text(encoding="utf-8")

    def placed(request: Request) -> str:
        """The page, for where the wizard is: its own paths are relative to that, whatever the browser's address."""
        root = request.scope.get("root_path", "")
        return document.replace('"./', f'"{root}/').replace('"BASE"', f'"{root}"')

    app.mount("/assets", GZipMiddleware(Assets(directory=page / "assets")))
    files = {file.name: file for file in page.iterdir() if file.is_file() and file.suffix in (".js", ".svg", ".webmanifest")}

    @app.get("/{path:path}", include_in_schema=False)
    async def shell(request: Request, path: str) -> Response:
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
        return HTMLResponse(placed(request).replace("NONCE", nonce), headers={"content-security-policy": policy})
