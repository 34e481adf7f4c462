# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is wanted: the form, the draft, what is wrong with it, and the whole of it as a file."""

from __future__ import annotations

import dataclasses
import gzip
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import Field, ValidationError

from bzzz_setup import portable
from bzzz_setup.web import answers, form, importing, trying
from bzzz_setup.web.answers import bad
from bzzz_setup.web.shapes import API, Body, Machine, Operator, Viewer
from bzzz_setup.web.wizard import Wizard


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


def routes(app: FastAPI, wizard: Wizard) -> None:
    """Add them to the application."""
    gate, draft, runs = wizard.gate, wizard.draft, wizard.runs

    @app.get(f"{API}/schema", tags=["declaration"], response_model=None, responses={200: {"model": answers.Form}})
    def schema(request: Request, _who: Viewer) -> Response:
        """Steps, roles and options, as the roles' argument specs declare them."""
        answer = wizard.answer("schema", None, form.form)
        if "gzip" not in request.headers.get("accept-encoding", ""):
            return answer
        # It holds nothing of anybody's, whose length could tell of it.
        headers = {"content-encoding": "gzip", "vary": "accept-encoding"}
        return Response(gzip.compress(bytes(answer.body)), media_type=answer.media_type, headers=headers)

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
        wizard.unchanged(base)
        draft.discard()
        return judged()

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
        f"{API}/models/plan",
        tags=["declaration"],
        response_model=None,
        responses={200: {"model": answers.Fit}, **bad(_409="Others ask already", _502="The machines cannot be asked")},
    )
    def fit(_who: Operator) -> dict[str, Any]:
        """Where the models of the draft would go, with what the machines have free now, as `bzzz-setup models plan` tells. Changes
        nothing. Takes some seconds."""
        with draft.folder() as folder:
            return {part: value for part, value in runs.fit(folder).items() if part in answers.Fit.model_fields}

    @app.post(
        f"{API}/tests/{{what}}",
        tags=["declaration"],
        response_model=None,
        responses={200: {"model": answers.Tried}, **bad(_502="It does not answer, or not so")},
    )
    def try_out(_who: Operator, what: Literal["ldap", "oidc", "openai", "endpoints", "alerts"]) -> dict[str, Any]:
        """Ask, from this host, whom the draft names: the LDAP directory as its service account, the provider for its keys, OpenAI by its
        key, for its models and for a call of one token, or the gateway's other endpoints for their models; or send a trial alert."""
        with draft.folder() as folder:
            return {"told": trying.out(folder, what, gate.directory)}

    @app.get(
        f"{API}/export",
        tags=["declaration"],
        response_class=answers.Yaml,
        responses={**answers.EXPORTED, **bad(_409="Others ask already", _502="The files cannot be made")},
    )
    def export(_who: Viewer, kind: Literal["yaml", "env", "systemd", "compose", "all"] = "yaml") -> Response:
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
    def take_in(who: Operator, body: ImportBody) -> dict[str, Any]:
        """Take in what export has written: as changes of the draft, or as the inventory folder where there is none yet."""
        taken = importing.take(draft, body.declaration, body.base, str(who), {})
        return dataclasses.asdict(taken)
