# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where models would go, as the wizard tells it; what `bzzz-setup models plan` prints is made of given machines."""

from __future__ import annotations

import json
from typing import Any

import pytest
import sights
from starlette.testclient import TestClient
from test_web_nodes import client as client  # noqa: PLC0414 - fixtures
from test_web_nodes import front as front  # noqa: PLC0414

from bzzz_setup.web import answers
from bzzz_setup.web.runs import Runs
from bzzz_setup.web.shapes import API


def printed(monkeypatch: pytest.MonkeyPatch, document: dict[str, Any], code: int) -> list[tuple[str, ...]]:
    """Has the command print this; returns what it is called with."""
    called: list[tuple[str, ...]] = []

    def answer(_runs: Runs, *arguments: str) -> tuple[dict[str, Any], int]:
        called.append(arguments)
        return document, code

    monkeypatch.setattr(Runs, "_answer", answer)
    return called


@pytest.mark.requirement("3.6.2", "3.6.4", part="told to the wizard")
def test_the_plan_of_the_draft_is_told(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = sights.fit()
    assert plan["placed"] and plan["refused"] and plan["unknown"] and plan["nodes"]["n1"]["gpus"]
    called = printed(monkeypatch, {**plan, "problems": [], "failures": [], "exit_code": 1}, 1)
    told = client.post(f"{API}/models/plan")
    assert told.status_code == 200
    answers.Fit.model_validate(told.json())
    assert {part: told.json()[part] for part in ("nodes", "placed", "refused", "unknown")} == json.loads(json.dumps(plan))
    (arguments,) = called
    assert arguments[:3] == ("models", "plan", "-i")


@pytest.mark.requirement("3.6.2", part="told to the wizard: why there is no plan")
def test_why_there_is_no_plan_is_told_with_the_machine(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = {
        "node": "n2",
        "step": None,
        "role": "",
        "task": "",
        "kind": "unreachable",
        "message": "No route to host.",
        "remedy": "Start it.",
    }
    printed(monkeypatch, {"nodes": {}, "placed": [], "refused": [], "unknown": [], "problems": [], "failures": [failed], "exit_code": 3}, 3)
    refused = client.post(f"{API}/models/plan")
    assert refused.status_code == 502
    (told,) = refused.json()["problems"]
    assert (told["message"], told["remedy"], told["node"]) == ("n2: No route to host.", "Start it.", "n2")
    wrong = {
        "severity": "error",
        "option": "models_wanted",
        "value": "x y",
        "node": None,
        "message": "Entry 1: no name.",
        "remedy": "Mend it.",
    }
    printed(monkeypatch, {"problems": [wrong], "failures": [failed], "exit_code": 2}, 2)
    refused = client.post(f"{API}/models/plan")
    assert refused.status_code == 422 and [one["option"] for one in refused.json()["problems"]] == ["models_wanted"]
