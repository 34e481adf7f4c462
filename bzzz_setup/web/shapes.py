# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What requests have in common: where they begin, how bodies are read, and who may send them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import Depends, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from bzzz_setup.node.auth.gate import Gate
from bzzz_setup.node.auth.principals import Principal
from bzzz_setup.web.guard import same_site

__all__ = ["API", "Body", "Machine", "Operator", "Request", "Viewer", "own_page", "secret"]

API = "/api/v1"


class Body(BaseModel):
    """What is sent: a field that is unknown is refused, and no value is quoted in an error."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class Machine(Body):
    address: str = Field(max_length=253)
    port: int = Field(22, ge=1, le=65535)
    groups: list[Literal["coordinators", "workers", "storage"]] = ["workers"]


def secret(description: str, default: Any = None) -> Any:
    """A field that is written and never read back."""
    return Field(default, max_length=256, description=description, json_schema_extra={"format": "password", "writeOnly": True})


def _may(scope: str) -> Callable[[Request], Principal]:
    def check(request: Request) -> Principal:
        gate: Gate = request.app.state.gate
        who = gate.require(request, scope)
        if request.method not in ("GET", "HEAD") and not gate.bears(request) and not same_site(request):
            raise HTTPException(403, "Browsers may change something from this server's own page only")
        return who

    return check


def own_page(request: Request) -> None:
    """Of a browser's page that is not this server's, raises 403."""
    if "origin" in request.headers and not same_site(request):
        raise HTTPException(403, "Browsers may sign in from this server's own page only")


Viewer = Annotated[Principal, Depends(_may("api"))]
Operator = Annotated[Principal, Depends(_may("setup"))]
