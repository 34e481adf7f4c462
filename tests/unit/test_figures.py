# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Charts of what models have cost and of where they fit, as pages that need nothing else."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import sights
import spending
from ansible_collections.bzzz.cluster.plugins.module_utils.forecast import usd
from test_model_server import declared
from test_reports import Page
from typer.testing import CliRunner

from bzzz_setup import cli, cost, reports
from bzzz_setup.gateway.asked import answer
from bzzz_setup.reports import figures

HOSTILE = "</title><script>alert(1)</script>"


@pytest.fixture
def spent(tmp_path: Path) -> dict[str, Any]:
    ledger = spending.made(tmp_path)
    found: dict[str, Any] = json.loads(json.dumps(answer(ledger, {"kind": "report", "by": list(cost.DIMENSIONS), "per": "day"})))
    return found


def fine(told: dict[str, Any]) -> Page:
    page = Page(reports.charts(told))
    assert page.wrong == [] and not page.of("script") and not any(one.get("src") or one.get("href", "#")[0] != "#" for _, one in page.tags)  # type: ignore[index]
    return page


@pytest.mark.requirement("4.3.2", part="charts over any range, as a page to hand on")
@pytest.mark.requirement("4.3.3", part="chart per model and task, as a page to hand on")
def test_costs_are_drawn_by_day_model_task_and_user(spent: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = figures.spending("trial", spent, usd)
    page = fine(told)
    for words in (
        "Day by day",
        "By model",
        "By task",
        "By user",
        "Budgets now",
        "gpt-5-mini",
        "coding",
        "anna",
        usd(spent["nano"]),
        "2026-11-04",
    ):
        assert words in page.text, words
    (days,) = [one for one in told["sections"] if one["id"] == "days"]
    columns = days["columns"]["drawn"]
    assert len(columns) == spending.DAYS and len(days["legend"]) == figures.APART + 1 and days["legend"][-1] == figures.REST
    tops = [sum(part["height"] for part in column["parts"]) for column in columns]
    assert max(tops) == pytest.approx(100, abs=0.1) and min(tops) > 0
    by_day = {day: 0 for day, _calls, _cost in days["rows"]}
    for row in spent["rows"]:
        by_day[row["start"][:10]] += row["cost_nano"]
    assert [tops[place] for place in range(len(tops))] == pytest.approx(
        [nano * 100 / max(by_day.values()) for nano in by_day.values()], abs=0.1
    )
    models = next(one for one in told["sections"] if one["id"] == "model")["bars"]
    assert models[0]["percent"] == 100 and len(models) == len(spending.MODELS)

    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(cost, "_asked", lambda *_: spent)
    folder, file = declared(tmp_path / "inventory", {}, {}), tmp_path / "costs.html"
    done = CliRunner().invoke(cli.app, ["cost", "report", "--html", str(file), "-i", str(folder)])
    assert done.exit_code == 0 and str(file) in done.output.replace("\n", "")
    assert "trial: what models have cost" in file.read_text() and file.stat().st_mode & 0o777 == 0o600
    nowhere = CliRunner().invoke(cli.app, ["cost", "report", "--html", str(tmp_path / "inventory"), "-i", str(folder)])
    assert nowhere.exit_code == 2 and "cannot be written" in nowhere.output


def test_nothing_called_and_hostile_names(spent: dict[str, Any]) -> None:
    empty = {**spent, "rows": [], "nano": 0, "calls": 0}
    assert "Nothing was called in this time." in fine(figures.spending("trial", empty, usd)).text
    for row in spent["rows"]:
        row["task"] = HOSTILE
    assert HOSTILE in fine(figures.spending(HOSTILE, spent, usd)).text
    free = copy.deepcopy(spent)
    for row in free["rows"]:
        row["cost_nano"] = 0
    assert fine(figures.spending("trial", free, usd))


@pytest.mark.requirement("3.6.2", part="drawn, as a page to hand on")
def test_a_plan_of_models_is_drawn_on_each_gpu() -> None:
    found = sights.fit()
    told = figures.fit("trial", found)
    page = fine(told)
    (drawn,) = [one for one in told["sections"] if one["id"] == "fit"]
    gpus = [gpu for node in found["nodes"].values() for gpu in node["gpus"]]
    assert len(drawn["stacks"]) >= len(gpus) > 0
    for stack in drawn["stacks"]:
        assert sum(part["width"] for part in stack["parts"]) == pytest.approx(100, abs=0.5), stack
    for one in found["placed"]:
        assert one["model"] in page.text and " ".join(one["why"].split()) in page.text
    for one in found["refused"]:
        assert " ".join(one["remedy"].split()) in page.text
