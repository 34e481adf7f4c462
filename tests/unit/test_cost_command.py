# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""`bzzz-setup cost`: what a month would cost, what the ledger answers, and what of it is shown and written."""

from __future__ import annotations

import csv
import grp
import http.server
import io
import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from ansible_collections.bzzz.cluster.plugins.module_utils import forecast
from ansible_collections.bzzz.cluster.plugins.module_utils.forecast import DAYS, NANO
from ansible_collections.bzzz.cluster.plugins.module_utils.problems import errors
from declarations import cluster_of, declared_of, judge
from hypothesis import given
from hypothesis import strategies as st
from test_portable import front
from typer.testing import CliRunner

from bzzz_setup import cli, cost, run
from bzzz_setup.declaration import Declaration
from bzzz_setup.events import Refusal
from bzzz_setup.gateway.asked import answer
from bzzz_setup.gateway.budgets import load
from bzzz_setup.gateway.ledger import Call, Ledger, Outcome
from bzzz_setup.gateway.settings import Alerts
from bzzz_setup.lab import CHECKOUT
from bzzz_setup.portable import FACTS
from bzzz_setup.report import Report

KEY = "sk-c4nary-0f-a-key"
ON: dict[str, Any] = {
    "gateway_enabled": True,
    "openai_api_key": KEY,
    "gateway_endpoints": [{"name": "here", "kind": "ollama", "url": "http://127.0.0.1:11434", "weight": 3}],
    "gateway_models": [
        {"name": "mixed", "model": "gpt-5-mini", "input_usd_per_million": 1.0, "output_usd_per_million": 2.0},
        {"name": "mixed", "model": "llama3.2:3b", "endpoint": "here"},
        {"name": "odd", "model": "gpt-unheard-of"},
    ],
    "gateway_tasks": {"coding": "gpt-5"},
}


def options(**given: Any) -> dict[str, Any]:
    declared, problems = declared_of(cluster_of(1), {**ON, **given})
    assert problems == []
    return declared["n1"]


def expected(model: str, calls: float, **more: Any) -> dict[str, Any]:
    return {"model": model, "calls_per_day": calls, **more}


@pytest.mark.requirement("L8", part="by prices, expected use, shares of endpoints, machines and limits")
def test_a_month_is_forecast_by_prices_use_machines_and_limits() -> None:
    prices = {"gpt-5": (Decimal("1.25"), Decimal("0.125"), Decimal(10))}
    use = [expected("coding", 100, tokens_in=2000, tokens_out=500, cached_percent=50.0), expected("mixed", 1000), expected("odd", 1)]
    machines = [{"name": "RTX 4090", "count": 4, "usd_per_hour": 0.12}]
    found = forecast.forecast(options(cost_expected=use, cost_machines=machines, cost_all={"day_usd": 1}), prices)
    coding, mixed, odd = found["models"]
    # 1000 fresh, 1000 cached, 500 out.
    assert coding["nano"] == round((1000 * 1250 + 1000 * 125 + 500 * 10_000) * 100 * DAYS) and coding["calls"] == round(100 * DAYS)
    # A quarter of the calls by weight goes to what costs something; at most all.
    assert mixed["most_nano"] == round((1000 * 1000 + 300 * 2000) * 1000 * DAYS) and abs(mixed["nano"] * 4 - mixed["most_nano"]) <= 4
    assert not odd["priced"] and found["unpriced"] == ["odd"]
    assert found["machines"][0]["nano"] == round(Decimal("0.12") * 4 * 24 * DAYS * NANO)
    assert found["nano"] == found["calls_nano"] + found["machines"][0]["nano"] and found["limit_nano"] == 31 * NANO
    told = " ".join(forecast.told(found))
    assert "percent of that use: the calls beyond are refused" in told and "price of odd is not known" in told
    assert "A month would cost about" in told and f"{Decimal(found['nano']) / NANO:,.2f} USD" in told


def test_small_sums_are_told_by_their_first_digits() -> None:
    told = [forecast.usd(nano) for nano in (0, 1_234_560_000, 50_000_000, 12_300, 4_900, -4, 99_999_999)]
    assert told == [f"{usd} USD" for usd in ("0.00", "1.23", "0.05", "0.000012", "0.0000049", "-0.000000004", "0.10")], "as the wizard does"


@given(
    st.lists(st.builds(expected, st.sampled_from(["coding", "mixed", "odd", "gpt-5"]), st.floats(0, 1e6)), max_size=4),
    st.dictionaries(st.sampled_from(["day_usd", "month_usd"]), st.integers(0, 10**6)),
    st.sampled_from(["weighted", "least_busy"]),
)
@pytest.mark.requirement("L8", part="sums, bounds and words, whatever is declared")
def test_sums_add_up_and_more_use_never_costs_less(use: list[dict[str, Any]], limits: dict[str, int], balancing: str) -> None:
    given = options(cost_expected=use, cost_all=limits, gateway_balancing=balancing)
    found = forecast.forecast(given)
    assert found["nano"] == sum(row["nano"] for row in found["models"]) <= found["most_nano"]
    assert all(0 <= row["nano"] <= row["most_nano"] for row in found["models"])
    more = forecast.forecast(options(cost_expected=[{**each, "calls_per_day": each["calls_per_day"] + 1} for each in use]))
    assert more["most_nano"] >= found["most_nano"]
    assert forecast.told(found) and json.dumps(found)
    if found["limit_nano"] is not None:
        assert found["limit_nano"] <= min([*(31 * limits["day_usd"] * NANO for _ in [1] if "day_usd" in limits), 10**18])


@pytest.mark.requirement("L8", part="what cannot be meant is refused")
@pytest.mark.parametrize(
    ("given", "option"),
    [
        ({"cost_expected": [expected("gone", 1)]}, "cost_expected"),
        ({"cost_expected": [expected("mixed", -1)]}, "cost_expected"),
        ({"cost_expected": [expected("mixed", 1, cached_percent=101.0)]}, "cost_expected"),
        ({"cost_machines": [{"name": "x", "usd_per_hour": 1.0, "hours_per_day": 25.0}]}, "cost_machines"),
    ],
)
def test_what_cannot_be_expected_is_refused(given: dict[str, Any], option: str) -> None:
    assert [each["option"] for each in errors(judge({**ON, **given}, cluster_of(1)))] == [option]


def test_the_list_of_prices_is_that_of_the_gateway() -> None:
    assert forecast.listed()["gpt-4o-mini"] == (Decimal("0.15"), Decimal("0.075"), Decimal("0.6"))
    made = CHECKOUT / ".cache/litellm/pins"
    if not made.exists():
        return  # held against LiteLLM's own in test_gateway_proxy.py, which installs it
    from bzzz_setup.prices import wanted

    (package,) = made.parent.glob("lib/*/site-packages/litellm")
    assert wanted(package) == json.loads(forecast.PRICES.read_text())


@pytest.mark.requirement("L8", part="by the command line, and in plan's report")
def test_the_command_line_forecasts_without_a_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    hosts = {"bzzz": {"children": {"coordinators": {"hosts": {"n1": {"ansible_host": "10.0.0.11"}}}}}}
    given = {**ON, "declaration_cluster_name": "trial", "cost_expected": [expected("{{ 'cod' + 'ing' }}", 100)]}
    del given["openai_api_key"]
    Declaration(tmp_path / "inventory", hosts, given, "", {"openai_api_key": KEY}).create()
    found = json.loads(front("--json", "cost", "forecast", "-i", str(tmp_path / "inventory")))
    assert found["models"][0]["model"] == "coding" and found["nano"] == math.ceil((1000 * 1250 + 300 * 10_000) * 100 * DAYS)
    shown = front("cost", "forecast", "-i", str(tmp_path / "inventory"))
    assert "coding" in shown and "No limit holds all calls together" in shown and KEY not in shown
    report = Report(facts={"n1": {"bzzz_cost_forecast": found}})
    assert report.as_dict()["forecast"] == found["told"] and Report().forecast() == []
    assert Report(facts={"n1": {"bzzz_cost_forecast": "nonsense"}}).forecast() == []


# --- the ledger ---


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Four calls: three of this November, in two zones' days, one of October."""
    times = iter([datetime(2026, 10, 31, 12, tzinfo=UTC), datetime(2026, 10, 31, 23, 30, tzinfo=UTC)])
    now = [0.0]
    budgets = load({"all": {"month_usd": 1}, "users": {"anna": {"day_usd": "0.5"}}, "warn_percent": [1]}, "Europe/Berlin")
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.sqlite", budgets, "n1", now=lambda: now[0])
    now[0] = next(times).timestamp()
    ledger.start()

    def spend(name: str, user: str, task: str, cost: int) -> None:
        call = Call(name, user, "search", task, "good", cost + 1, "openai", "openai/gpt-4o")
        with ledger.transaction() as connection:
            assert ledger.reserve(connection, call) is None
            ledger.settle(connection, call, Outcome(cost, 100, 10, 40, 200, provider="openai", deployment="openai/gpt-4o"))

    spend("a", "anna", "coding", 1_000_000)
    now[0] = next(times).timestamp()  # November the first, in Berlin
    spend("b", "anna", "coding", 2_000_000)
    now[0] = datetime(2026, 11, 2, 12, tzinfo=UTC).timestamp()
    spend("c", "=bert", "", 4_000_000)
    with ledger.transaction() as connection:
        ledger.reserve(connection, Call("d", "anna", "search", "", "good", 8_000_000))
        ledger.lose(connection, "d", "cut")
    now[0] += 60
    return ledger


@pytest.mark.requirement("4.3.2", part="reports over any range, at the terminal")
@pytest.mark.requirement("4.3.3", part="table per model and task, at the terminal")
@pytest.mark.requirement("4.2.3", part="hour, day, month; user, project, model, task")
def test_the_ledger_answers_for_days_of_its_zone(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    found = json.loads(json.dumps(answer(ledger, {"kind": "report", "by": ["model", "task"]})))
    assert (found["since"], found["nano"], found["held_nano"]) == ("2026-10-31T23:00:00Z", 6_000_000, 8_000_000)
    assert {(row["task"], row["calls"], row["cost_nano"]) for row in found["rows"]} == {("", 2, 4_000_000), ("coding", 1, 2_000_000)}
    assert found["month"]["spent_nano"] == 6_000_000 < found["month"]["expected_nano"]
    assert ("user anna", "day", 500_000_000, 0, 8_000_000) in {tuple(each.values()) for each in found["budgets"]}
    daily = answer(ledger, {"kind": "report", "by": [], "per": "day", "since": "2026-10-31", "until": "2026-11-02"})
    assert [(row["start"], row["cost_nano"]) for row in daily["rows"]] == [
        ("2026-10-31T00:00:00+01:00", 1_000_000),
        ("2026-11-01T00:00:00+01:00", 2_000_000),
    ]
    asked: list[dict[str, Any]] = []

    def here(_inventory: Any, question: dict[str, Any], _passwords: Any) -> dict[str, Any]:
        asked.append(question)
        return json.loads(json.dumps(answer(ledger, question)))

    monkeypatch.setattr(cost, "_asked", here)
    monkeypatch.setenv("COLUMNS", "160")
    shown = CliRunner().invoke(cli.app, ["cost", "report", "--by", "user,task", "--per", "day"]).output
    assert "anna" in shown and "2026-11-01 00:00" in shown and "0.002" in shown and "user anna" in shown
    assert "0.006 USD for 3 calls, and up to 0.008 USD for calls of unknown outcome" in shown
    assert CliRunner().invoke(cli.app, ["cost", "report", "--by", "colour"]).exit_code == 2
    assert CliRunner().invoke(cli.app, ["cost", "report", "--since", "yesterday"]).exit_code == 2
    assert CliRunner().invoke(cli.app, ["cost", "report", "--since", "2026-11-02", "--until", "2026-11-01"]).exit_code == 2
    assert [(each["kind"], each["by"], each["per"]) for each in asked] == [("report", ["user", "task"], "day")]


@pytest.mark.requirement("4.2.4", part="export as CSV and FOCUS records, by the command line")
def test_exports_are_written(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "_asked", lambda _inventory, question, _passwords: answer(ledger, question))
    done = CliRunner().invoke(cli.app, ["--json", "cost", "export", "-o", str(tmp_path / "calls.csv"), "--since", "2026-10-01"])
    assert json.loads(done.output)["calls"] == 4
    text = (tmp_path / "calls.csv").read_bytes().decode()
    calls = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [call["cost_usd"] for call in calls] == ["0.001000000", "0.002000000", "0.004000000", "0.000000000"]
    assert calls[2]["user"] == "'=bert", "no formula of a spreadsheet"
    assert (tmp_path / "calls.csv").stat().st_mode & 0o777 == 0o600
    CliRunner().invoke(cli.app, ["cost", "export", "--format", "focus", "--account", "Lab", "-o", str(tmp_path / "focus.csv")])
    focus = list(csv.DictReader(io.StringIO((tmp_path / "focus.csv").read_bytes().decode(), newline="")))
    assert {row["BilledCost"] for row in focus} == {"0.002000000", "0.004000000"} and focus[0]["BillingAccountName"] == "Lab"


@pytest.mark.requirement("4.3.2", part="asked on the gateway's node")
def test_the_program_on_the_node_answers_in_json(ledger: Ledger, tmp_path: Path) -> None:
    settings = {
        "ledger": f"sqlite:///{tmp_path}/ledger.sqlite",
        "time_zone": "Europe/Berlin",
        "gateway": "n1",
        "tokens": {"node": "https://x"},
    }
    (tmp_path / "gateway.yaml").write_text(json.dumps(settings))
    run = [sys.executable, "-c", "from bzzz_setup.gateway.asked import main; raise SystemExit(main())"]
    environment = {"BZZZ_GATEWAY_CONFIG": str(tmp_path / "gateway.yaml"), "PYTHONPATH": str(CHECKOUT)}
    question = json.dumps({"kind": "report", "since": "2026-10-01", "until": "2027-01-01"})
    done = subprocess.run(run, input=question, capture_output=True, text=True, env=environment, check=True)
    assert json.loads(done.stdout)["nano"] == 7_000_000
    done = subprocess.run(run, input="{}", capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 1 and "Remedy: see that the gateway runs" in done.stderr and len(done.stderr.splitlines()) == 1


# --- what OpenAI has billed ---


class Billing:
    """OpenAI's costs and usage as its reference has them, in pages; ``mode``: the status that everything is refused with."""

    def __init__(self) -> None:
        self.costs: list[tuple[datetime, float]] = []
        self.usage: list[tuple[datetime, str, int, int]] = []
        self.refuse, self.asked = 0, list[tuple[str, dict[str, list[str]], str]]()
        billing = self

        class Answers(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                url = urlsplit(self.path)
                query = parse_qs(url.query)
                billing.asked.append((url.path, query, self.headers["Authorization"]))
                body = json.dumps(billing.page(url.path.removeprefix("/v1/organization/"), query)).encode()
                self.send_response(billing.refuse or 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def page(self, path: str, query: dict[str, list[str]]) -> dict[str, Any]:
        """A bucket a page."""
        if self.refuse:
            return {"error": {"code": "refused"}}
        since, until = (datetime.fromtimestamp(int(query[name][0]), UTC) for name in ("start_time", "end_time"))
        results: list[tuple[datetime, dict[str, Any]]] = []
        if path == "costs":
            results = [(at, {"amount": {"value": value, "currency": "usd"}, "project_id": None}) for at, value in self.costs]
        elif path == "usage/completions":
            results = [(at, {"model": name, "input_tokens": spent, "output_tokens": out}) for at, name, spent, out in self.usage]
        results = [each for each in results if since <= each[0] < until]
        place = int(query.get("page", ["0"])[0])
        data = [{"object": "bucket", "start_time": int(at.timestamp()), "results": [one]} for at, one in results[place : place + 1]]
        more = place + 1 < len(results)
        return {"object": "page", "data": data, "has_more": more, "next_page": str(place + 1) if more else None}


@pytest.mark.requirement("4.3.4", part="GPUs that no call went to, at the terminal; GPUs as an earlier run has recorded them")
def test_idle_gpus_are_told(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "_asked", lambda _inventory, question, _passwords: json.loads(json.dumps(answer(ledger, question))))
    with ledger.transaction() as connection:
        connection.exec_driver_sql("update calls set provider = 'cluster', deployment = 'ollama_chat/a@1@gpu1' where id = 'b'")
    card = {"model": "Tesla T4", "memory_total_mib": 15360}
    seen = {"gpu1": [card], "gpu2": [card, card], "n3": []}
    told = Report()
    told.facts = {node: {**{name: {} for name in FACTS}, "bzzz_gpu": {"devices": cards}} for node, cards in seen.items()}
    monkeypatch.setattr(run, "runs", lambda _cluster: [tmp_path])
    monkeypatch.setattr(Report, "of", lambda _events: told)
    own = {"gateway_models": [{"name": "local", "model": "tiny", "endpoint": "cluster"}]}
    hosts = {"bzzz": {"children": {"coordinators": {"hosts": {"n1": {"ansible_host": "10.0.0.11"}}}}}}
    for place, more in enumerate(({}, own)):
        folder = tmp_path / f"inventory{place}"
        Declaration(folder, hosts, {"declaration_cluster_name": "trial", "gateway_enabled": True, **more}, "", {}).create()
        found = json.loads(CliRunner().invoke(cli.app, ["--json", "cost", "report", "-i", str(folder)]).output)
        assert found["served"] == {"gpu1": 1}
        assert found["idle"] == ([{"node": "gpu2", "gpus": "2 x Tesla T4 15 GiB"}] if more else []), found["idle"]
    shown = CliRunner().invoke(cli.app, ["cost", "report", "-i", str(folder)]).output
    assert "gpu2 (2 x Tesla T4 15 GiB) has had no call in this time." in " ".join(shown.split()), shown


@pytest.fixture
def billing() -> Iterator[Billing]:
    found = Billing()
    yield found
    found.server.shutdown()
    found.server.server_close()


def declared(folder: Path, billing: Billing, secrets: dict[str, str], **more: Any) -> Path:
    hosts = {"bzzz": {"children": {"coordinators": {"hosts": {"n1": {"ansible_host": "10.0.0.11"}}}}}}
    given = {**ON, "declaration_cluster_name": "trial", "openai_base_url": billing.url, **more}
    del given["openai_api_key"]
    Declaration(folder, hosts, given, "", {"openai_api_key": KEY, **secrets}).create()
    return folder


def reconciled(folder: Path, *arguments: str) -> tuple[int, Any]:
    done = CliRunner().invoke(cli.app, ["--json", "cost", "reconcile", "-i", str(folder), "--since", "2026-11-01", *arguments])
    return done.exit_code, json.loads(done.output)


@pytest.mark.requirement("4.2.4", part="reconciled with OpenAI's costs, differences told, by the command line; OpenAI a stand-in")
def test_the_ledger_is_held_against_the_bill(ledger: Ledger, billing: Billing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    alerts = Alerts(str(tmp_path / "alerts"), grp.getgrgid(os.getgid()).gr_name)
    monkeypatch.setattr(cost, "_asked", lambda _inventory, question, _passwords: json.loads(json.dumps(answer(ledger, question, alerts))))
    admin = "sk-admin-c4nary"
    folder = declared(tmp_path / "inventory", billing, {"openai_admin_key": admin}, openai_project="proj_1")
    first, second = (datetime(2026, 11, day, tzinfo=UTC) for day in (1, 2))
    with ledger.transaction() as connection:
        connection.exec_driver_sql("update calls set openai_project = 'proj_1' where id != 'd'")
        connection.exec_driver_sql("update calls set provider = 'openai', deployment = 'openai/gpt-4o' where id = 'd'")
    # The call of that night in Berlin is of October in UTC; 0.004 were spent on the second, and up to 0.008 more by one that broke.
    billing.costs = [(second, 0.011)]
    code, found = reconciled(folder, "--until", "2026-11-04", "--tolerance", "0")
    assert code == 0 and [tuple(day.values()) for day in found["days"]] == [
        ("2026-11-02", 4_000_000, 11_000_000, 7_000_000, 8_000_000, True)
    ]
    (_, query, authorization) = billing.asked[0]
    assert query["project_ids"] == ["proj_1"] and query["start_time"] == [str(int(first.timestamp()))] and admin in authorization

    billing.costs.append((datetime(2026, 11, 3, tzinfo=UTC), 2.5))
    code, found = reconciled(folder, "--until", "2026-11-04")
    assert code == 1 and [day["explained"] for day in found["days"]] == [True, False] and len(billing.asked) == 3, "two pages"
    shown = CliRunner().invoke(cli.app, ["cost", "reconcile", "-i", str(folder), "--since", "2026-11-01", "--until", "2026-11-04"])
    assert shown.exit_code == 1 and "billed more than the gateway has counted. Remedy:" in shown.output and "2.50" in shown.output
    assert admin not in shown.output

    # The settled call had 100 tokens in, 40 of them cached, and 10 out; what is beyond them was the broken one's: 2000 in and 200 out.
    billing.costs, billing.usage = [(second, 0.011)], [(second, "gpt-4o-2024-08-06", 2100, 210)]
    code, found = reconciled(folder, "--until", "2026-11-04", "--settle")
    assert found["settled"] == 1 and found["days"][0]["unknown_nano"] == 0 and found["days"][0]["explained"]
    row = next(row for row in ledger.rows() if row["id"] == "d")
    assert (row["state"], row["status"], row["tokens_in"], row["cost_nano"]) == ("spent", "reconciled", 2000, 2000 * 2500 + 200 * 10_000)
    assert ledger.check() == [] and not any(held for _limit, _spent, held in ledger.budgeted())
    told = [json.loads(line)["name"] for line in Path(alerts.file).read_text().splitlines()]
    assert sorted(told) == ["budget all month 1", "budget user anna day 1"], "thresholds that only this has reached are told"
    assert reconciled(folder, "--until", "2026-11-04", "--settle")[1]["settled"] == 0


@pytest.mark.requirement("4.2.4", part="what keeps from asking OpenAI is told apart")
def test_why_openai_does_not_tell_is_told(ledger: Ledger, billing: Billing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "_asked", lambda *_: pytest.fail("the ledger is not asked then"))
    without = declared(tmp_path / "without", billing, {})
    code, found = reconciled(without)
    assert (code, found["problems"][0]["option"]) == (2, "openai_admin_key") and billing.asked == []
    folder = declared(tmp_path / "inventory", billing, {"openai_admin_key": "sk-admin-c4nary"})
    for status, option, words in (
        (401, "openai_admin_key", "take the key"),
        (403, "openai_admin_key", "may not read"),
        (500, "openai_base_url", "trouble"),
    ):
        billing.refuse = status
        code, found = reconciled(folder)
        assert code == 3 and found["problems"][0]["option"] == option and words in found["problems"][0]["message"]
        assert "sk-admin" not in json.dumps(found)
    billing.refuse = 200
    code, found = reconciled(folder)
    assert code == 3 and "as OpenAI does" in found["problems"][0]["message"]
    code, found = reconciled(folder, "--until", "2999-01-01")
    assert code == 2 and "is not over" in found["problems"][0]["message"] and found["problems"][0]["option"] == "until"


def test_what_openai_tells_may_be_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than an argument of a program; by Ansible itself, on this machine, which has no gateway."""
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    here = {"ansible_host": "127.0.0.1", "ansible_connection": "local", "ansible_become": False}
    hosts = {"bzzz": {"children": {"coordinators": {"hosts": {"n1": here}}}}}
    Declaration(tmp_path / "inventory", hosts, {"declaration_cluster_name": "trial"}, "", {}).create()
    with pytest.raises(Refusal, match="no coordinator has an AI gateway"):
        cost._asked(tmp_path / "inventory", {"kind": "reconcile", "costs": ["x" * 300_000]}, {})


@given(st.datetimes(datetime(2026, 1, 1), datetime(2030, 1, 1)))
def test_days_that_are_compared_are_over(now: datetime) -> None:
    first, end = cost._days(None, None, now.replace(tzinfo=UTC))
    assert first.day == 1 and first < end <= now.replace(tzinfo=UTC) and (end - first).days <= 31


@pytest.mark.requirement("4.3.4", part="other models, at the terminal, by declared prices")
def test_a_report_tells_what_other_models_would_cost(
    ledger: Ledger, billing: Billing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(cost, "_asked", lambda _inventory, question, _passwords: json.loads(json.dumps(answer(ledger, question))))
    folder = declared(tmp_path / "inventory", billing, {})
    with ledger.transaction() as connection:
        connection.exec_driver_sql("update calls set cost_nano = 1000000000 where id = 'b'")
    shown = CliRunner().invoke(cli.app, ["cost", "report", "-i", str(folder)]).output
    # "mixed" is no cheaper for what goes to its paid entry: 60 + 40 in at 1 USD, 10 out at 2 USD a million.
    assert "coding on good has cost 1.00 USD; the same tokens on mixed cost 0.00012 USD." in " ".join(shown.split()), shown
    assert "odd" not in shown and shown.count("the same tokens") == 1
