# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What calls have cost, as the wizard tells it; the ledger is a real one, asked here and not on a node."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import spending
from front import Front
from starlette.testclient import TestClient
from test_web_nodes import client as client  # noqa: PLC0414 - fixtures
from test_web_nodes import front as front  # noqa: PLC0414

from bzzz_setup.declaration import MAIN
from bzzz_setup.gateway.asked import answer
from bzzz_setup.web import answers
from bzzz_setup.web.runs import Runs
from bzzz_setup.web.shapes import API


@pytest.fixture
def gateway(front: Front) -> None:
    """One is declared."""
    with (front.inventory / MAIN).open("a", encoding="utf-8") as file:
        file.write("gateway_enabled: true\n")


@pytest.mark.usefixtures("gateway")
@pytest.mark.requirement("4.3.2", "4.3.3", part="told to the wizard: any range, by model and task")
def test_spending_is_told_by_day_and_asked_for_once(client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, asked = spending.made(tmp_path), []

    def ask(_runs: Runs, *arguments: str) -> dict[str, Any]:
        asked.append(arguments)
        named = {name.removeprefix("--"): value for name, value in zip(arguments[::2], arguments[1::2], strict=True)}
        return {**json.loads(json.dumps(answer(ledger, {**named, "kind": "report", "by": [named["by"]]}))), "idle": []}

    monkeypatch.setattr(Runs, "spent", ask)
    told = client.get(f"{API}/cost?by=task&since=2026-11-01&until=2026-11-11").json()
    answers.Cost.model_validate(told)
    assert (told["per"], told["by"], told["calls"]) == ("day", "task", 10 * len(spending.MODELS))
    assert {row["task"] for row in told["rows"]} == {"coding", "review"} and len({row["start"] for row in told["rows"]}) == 10
    assert sum(row["cost_nano"] for row in told["rows"]) == told["nano"]
    assert told["budgets"][0]["scope"] == "the whole cluster"
    assert client.get(f"{API}/cost?by=task&since=2026-11-01&until=2026-11-11").json() == told and len(asked) == 1
    assert client.get(f"{API}/cost?by=model&since=2026-11-01&until=2026-11-03").json()["per"] == "hour" and len(asked) == 2


@pytest.mark.parametrize(
    ("query", "option"), [("since=2026-11-02&until=2026-11-01", "until"), ("since=yesterday", "since"), ("by=moon", "by")]
)
def test_what_cannot_be_asked_is_refused(client: TestClient, query: str, option: str) -> None:
    refused = client.get(f"{API}/cost?{query}")
    assert refused.status_code == 422 and refused.json()["problems"][0]["option"].endswith(option)


def test_where_there_is_no_gateway_nobody_is_asked(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Runs, "spent", lambda *_: pytest.fail("somebody is asked"))
    refused = client.get(f"{API}/cost")
    assert refused.status_code == 422 and refused.json()["problems"][0]["option"] == "gateway_enabled"


@pytest.mark.usefixtures("gateway")
def test_where_no_ledger_answers_that_is_told(client: TestClient) -> None:
    """By the terminal's own command: the machines of this inventory are none."""
    refused = client.get(f"{API}/cost")
    told = refused.json()["problems"][0]
    assert refused.status_code in (422, 502) and told["message"] and told["remedy"], told
