# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The wizard's REST interface is what `/api/v1/openapi.json` says: requests, good and bad, are made from it, and answers held to it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import report_events
import schemathesis
import sights
import spending
from ansible_collections.bzzz.cluster.plugins.module_utils.declaration import load_specs, options_of
from ansible_collections.bzzz.cluster.plugins.module_utils.problems import problem
from front import Front
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode, checks
from schemathesis.core.media_types import YAML_MEDIA_TYPES
from starlette.testclient import TestClient

from bzzz_setup import init, paths
from bzzz_setup.declaration import HOSTS, MAIN, dump, load
from bzzz_setup.gateway.asked import answer
from bzzz_setup.node.auth.passwords import hashed
from bzzz_setup.node.auth.records import User
from bzzz_setup.web import command, guard, trying
from bzzz_setup.web.app import build
from bzzz_setup.web.runs import Runs
from bzzz_setup.web.shapes import API
from bzzz_setup.web.wizard import Wizard

PASSWORD = "correct horse battery"
HELD = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
# It asks a network that is not ours.
NOT_CALLED = {f"POST {API}/find"}
# What they want is not to be guessed: a password, the terminal's token, host keys, the draft's revision.
NEED_MORE = {
    *(f"POST {API}/{name}" for name in ("session", "sessions", "claim", "machines", "import", "tests/{what}")),
    *(f"GET {API}/sign-in/oidc{rest}" for rest in ("", "/callback")),
    *(f"DELETE {API}/{name}" for name in ("draft", "tokens/{id}")),
    f"PATCH {API}/me",
}
OTHERS = {"patch": "yann", "delete": "zoe"}
GOOD = {f"POST {API}/runs": {"command": "verify"}, f"PATCH {API}/users/{{name}}": {"role": "operator"}}
RUN = "20261118-120000-1-apply"


@schemathesis.deserializer(*YAML_MEDIA_TYPES)
def _as_ansible_reads_it(_context: Any, answer: Any) -> Any:
    """What is typed is exported `!unsafe`, which other readers do not know."""
    return load(answer.text)


@pytest.fixture
def wizard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wizard]:
    front = Front(tmp_path)
    (front.inventory / HOSTS).write_text(dump(init.hosts({"n1": "192.0.2.1", "n2": "192.0.2.2"}, ["n1"], {})))
    with (front.inventory / MAIN).open("a", encoding="utf-8") as file:
        file.write("gateway_enabled: true\n")
    for name, value in front.environment.items():
        monkeypatch.setenv(name, value)
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    run = paths.state("trial") / "runs" / RUN
    run.mkdir(parents=True)
    (run / "events.jsonl").write_text("".join(f"{event.to_json()}\n" for event in report_events.run(3, name="n{}")))
    monkeypatch.setattr(guard, "BURST", 10**6)
    monkeypatch.setattr(Runs, "start", started)
    monkeypatch.setattr(trying.model_server, "look", lambda *_, **__: ("pass", "it answers", ""))  # nobody outside is asked
    monkeypatch.setattr(trying.alerts, "send", lambda *_: [("pass", "it is sent", "", "")])
    monkeypatch.setattr(Runs, "cancel", lambda self: True)
    monkeypatch.setattr(Runs, "problems", lambda self, folder: [problem("service_port", "Port 3000 is also another's.", "Choose another.")])
    monkeypatch.setattr(Runs, "files", lambda self, kind, folder: b"PK")
    monkeypatch.setattr(Runs, "fit", lambda self, folder: {**sights.fit(), "exit_code": 1})
    ledger = spending.made(tmp_path)
    spent = json.loads(json.dumps(answer(ledger, {"kind": "report", "by": ["model"], "per": "day"})))
    monkeypatch.setattr(Runs, "spent", lambda self, *_: {**spent, "idle": []})
    wizard = command._wizard(front.inventory)
    yield wizard
    assert wizard.gate.directory
    wizard.gate.directory.stop()


def started(
    self: Runs, command: str, folder: Path, steps: list[int], limit: str | None, passwords: dict[str, str], ended: Callable[[], None]
) -> str:
    """Stands in for a process."""
    ended()
    return RUN


def sessions(client: TestClient, wizard: Wizard) -> dict[str, dict[str, str]]:
    """Who -> the headers that their browser sends."""
    assert wizard.gate.directory
    now = int(time.time())
    for name, role in (("anna", "admin"), ("vera", "viewer"), *((name, "viewer") for name in OTHERS.values())):
        wizard.gate.directory.write(None, User(name, role, hashed(PASSWORD), now, now, "test"))
    wizard.gate.directory.refresh()
    origin = {"Origin": "http://testserver"}
    found = {"stranger": origin}
    for name in ("anna", "vera"):
        done = client.post(f"{API}/session", json={"user": name, "password": PASSWORD}, headers=origin)
        found[name] = {**origin, "Cookie": f"{wizard.gate.cookie}={done.cookies[wizard.gate.cookie]}"}
    return found


def sent(wizard: Wizard, operation: Any) -> st.SearchStrategy[Any]:
    """Requests as the description allows them, as it does not, and, where only few names are good ones, with those."""
    kinds = [operation.as_strategy(), operation.as_strategy(GenerationMode.NEGATIVE)]
    if "{name}" in operation.path:
        kinds.append(operation.as_strategy(path_parameters={"name": OTHERS[operation.method] if "/users/" in operation.path else RUN}))
    if operation.label in GOOD:
        kinds.append(st.builds(with_body, kinds[-1], st.just(GOOD[operation.label])))
    if operation.label == f"PATCH {API}/draft":
        known = [f"{kind}/{name}" for kind in ("options", "nodes/n1") for name in options_of(load_specs())]
        known += [f"secrets/{name}" for name in wizard.draft.view()["secrets"]] + ["nodes/n1", "nodes/n3", "nodes/n3/service_port"]
        machine = st.fixed_dictionaries({"address": st.text(max_size=9)}, optional={"groups": st.just(["coordinators"])})
        values = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text() | machine, st.lists, max_leaves=5)
        body = st.fixed_dictionaries({"base": st.just(10**6), "changes": st.dictionaries(st.sampled_from(known), values, min_size=1)})
        kinds.append(st.builds(with_body, operation.as_strategy(), body))
    return st.one_of(kinds)


def with_body(case: Any, body: dict[str, Any]) -> Any:
    case.body = body
    return case


def answers(wizard: Wizard, operation: Any, headers: dict[str, str], examples: int) -> set[int]:
    """The status codes of what an operation answers, each of them as described."""
    seen = set()

    @settings(max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(case=sent(wizard, operation))
    def hold(case: Any) -> None:
        answer = case.call(headers=headers)
        seen.add(answer.status_code)
        case.validate_response(answer, checks=HELD)

    hold()
    return seen


@pytest.mark.requirement("T2", part="the interface is as it is described, whatever is sent")
@pytest.mark.parametrize("who", ["anna", "vera", "stranger"])
@pytest.mark.parametrize("examples", [8, pytest.param(300, marks=pytest.mark.slow)])
def test_every_answer_is_one_that_the_description_tells(wizard: Wizard, subtests: pytest.Subtests, who: str, examples: int) -> None:
    app = build(wizard, frozenset({"testserver"}))
    seen = {}
    with TestClient(app) as client:
        headers = sessions(client, wizard)
        for path, operations in app.openapi()["paths"].items():
            for operation in operations.values():
                parts = [one["name"] for one in operation.get("parameters", []) if one["in"] == "path"]
                assert sorted(parts) == sorted(re.findall(r"{(\w+)}", path)), path
        described = schemathesis.openapi.from_asgi(f"{API}/openapi.json", app, headers=headers["anna"])
        for found in described.get_all_operations():
            operation = found.ok()
            if operation.label not in NOT_CALLED:
                with subtests.test(operation.label):
                    seen[operation.label] = answers(wizard, operation, headers[who], examples)
    if who == "anna":
        never = {label: codes for label, codes in seen.items() if label not in NEED_MORE and not codes & {200, 201, 202, 204}}
        assert never == {}
