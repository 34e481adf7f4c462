# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Reports, exports, forecasts and reconciliation over rows; who a token belongs to."""

from __future__ import annotations

import csv
import hashlib
import http.server
import io
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bzzz_setup.gateway import reports
from bzzz_setup.gateway.budgets import NANO, Budgets, load
from bzzz_setup.gateway.ledger import SPENT, UNKNOWN, Call, Ledger, Outcome
from bzzz_setup.gateway.reports import HOUR, history
from bzzz_setup.gateway.tokens import FileTokens, Identity, NodeTokens, Unsure

NOW = datetime(2026, 11, 10, 12, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")


def row(**more: Any) -> dict[str, Any]:
    """A settled call of 1000 tokens in, 100 out."""
    at = more.pop("at", NOW)
    blank = {"id": os.urandom(8).hex(), "at_ms": int(at.timestamp() * 1000), "user": "anna", "project": "search", "task": "coding"}
    blank |= {"model": "good", "provider": "openai", "deployment": "openai/gpt-4o", "organization": "org-1", "openai_project": "proj_1"}
    blank |= {"state": SPENT, "status": "ok", "tokens_in": 1000, "tokens_out": 100, "tokens_cached": 0, "latency_ms": 100}
    return {**blank, "estimate_nano": 9_000_000, "cost_nano": 3_500_000, **more}


rows = st.lists(
    st.builds(
        lambda user, model, hours, cost, state: row(
            user=user, model=model, at=NOW + timedelta(hours=hours), cost_nano=cost if state == SPENT else 0, state=state
        ),
        st.sampled_from(["anna", "bert"]),
        st.sampled_from(["good", "cheap"]),
        st.integers(-1000, 1000),
        st.integers(0, 10**9),
        st.sampled_from([SPENT, UNKNOWN]),
    ),
    max_size=30,
)


@pytest.mark.requirement("4.3.2", part="sums")
@pytest.mark.requirement("4.2.3", part="hour, day, month")
@given(rows, st.sampled_from([None, "hour", "day", "month"]), st.lists(st.sampled_from(reports.DIMENSIONS), unique=True))
def test_every_way_to_sum_has_the_same_sum(calls: list[dict[str, Any]], period: str | None, by: list[str]) -> None:
    told = history(calls, by, period, BERLIN)
    assert sum(each["cost_nano"] for each in told) == sum(each["cost_nano"] for each in calls)
    assert sum(each["calls"] for each in told) == len(calls)
    assert len({(each["start"], *(each[name] for name in by)) for each in told}) == len(told)


@pytest.mark.requirement("4.3.2", part="days and hours of a zone")
def test_days_and_hours_are_those_of_the_zone() -> None:
    calls = [
        row(at=datetime.fromisoformat(each))
        for each in ("2026-10-24T21:59Z", "2026-10-24T22:00Z", "2026-10-25T00:30Z", "2026-10-25T01:30Z")
    ]
    assert [(each["start"].isoformat(), each["calls"]) for each in history(calls, zone=BERLIN)] == [
        ("2026-10-23T22:00:00+00:00", 1),
        ("2026-10-24T22:00:00+00:00", 3),
    ]
    assert len(history(calls, period=HOUR, zone=BERLIN)) == 4, "two o'clock comes twice, and is two hours"
    assert history(calls[:1], period=HOUR, zone=ZoneInfo("Asia/Kolkata"))[0]["start"].minute == 30


@pytest.mark.requirement("4.2.4", part="CSV and FOCUS")
def test_exports_keep_every_nano_and_no_formula() -> None:
    calls = [
        row(cost_nano=1),
        row(cost_nano=2, task="=cmd()"),
        row(state=UNKNOWN, cost_nano=0),
        row(user="bert", at=NOW + timedelta(hours=1)),
    ]
    read = list(csv.DictReader(io.StringIO(reports.as_csv(reports.calls(calls)))))
    assert sum(Decimal(each["cost_usd"]) for each in read) * NANO == 3_500_003 and read[1]["task"] == "'=cmd()"
    told = reports.focus(calls, "our cluster")
    assert sum(Decimal(each["BilledCost"] or 0) for each in told) * NANO == 3_500_003 and len(told) == 3
    last = told[-1]
    assert (last["ChargePeriodStart"], last["ChargePeriodEnd"]) == ("2026-11-10T13:00:00Z", "2026-11-10T14:00:00Z")
    assert (last["BillingPeriodStart"], last["BillingPeriodEnd"]) == ("2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z")
    assert last["ProviderName"] == "OpenAI" and last["SubAccountId"] == "proj_1" and last["ConsumedQuantity"] == "1100"
    assert json.loads(last["Tags"] or "") == {"project": "search", "task": "coding", "user": "bert"}
    # Those that FOCUS 1.0 wants in each record.
    mandatory = """BilledCost BillingAccountId BillingAccountName BillingCurrency BillingPeriodEnd BillingPeriodStart ChargeCategory
        ChargeClass ChargeDescription ChargePeriodEnd ChargePeriodStart ContractedCost EffectiveCost InvoiceIssuerName ListCost
        PricingQuantity PricingUnit ProviderName PublisherName ServiceCategory ServiceName"""
    assert set(mandatory.split()) <= set(last)


@pytest.mark.requirement("4.3.3", part="by model and task")
@pytest.mark.requirement("4.3.4", part="other models, cache")
def test_recommendations_tell_what_a_task_would_cost_elsewhere() -> None:
    prices = {"good": _price(2500, 1250, 10000), "cheap": _price(150, 75, 600), "dear": _price(9000, 9000, 9000), "local": _price(0, 0, 0)}
    calls = [
        row(),
        row(tokens_cached=400, cost_nano=3_000_000),
        row(task="review", model="cheap", cost_nano=210_000),
        row(status="cached", cost_nano=0),
    ]
    told = [(each["task"], each["model"], each["other"], each["other_nano"]) for each in reports.recommendations(calls, prices)]
    assert told == [
        ("coding", "good", "local", 0),
        ("coding", "good", "cheap", 3 * (150_000 + 60_000) - 400 * 75),
        ("review", "cheap", "local", 0),
    ]
    assert reports.caching(calls) == {"calls": 4, "cached_calls": 1, "tokens_in": 4000, "tokens_cached": 400}


def _price(*nano: int) -> reports.Price:
    return Decimal(nano[0]), Decimal(nano[1]), Decimal(nano[2])


def test_a_forecast_goes_on_as_the_last_days_did() -> None:
    calls = [row(at=NOW - timedelta(days=days), cost_nano=NANO) for days in range(1, 40)]
    told = reports.forecast(calls, NOW, ZoneInfo("UTC"))
    assert told["spent_nano"] == 9 * NANO and told["expected_nano"] == pytest.approx((9 + 20.5) * NANO)
    young = reports.forecast([row(at=NOW - timedelta(days=1), cost_nano=NANO)], NOW, ZoneInfo("UTC"))
    assert young["expected_nano"] == pytest.approx(21.5 * NANO)
    assert reports.forecast([], NOW, BERLIN) == {"spent_nano": 0, "expected_nano": 0}


@pytest.mark.requirement("4.2.4", part="differences")
def test_differences_to_the_providers_report_are_told_by_day() -> None:
    day = int(datetime(2026, 11, 10, tzinfo=UTC).timestamp())
    costs = {"data": [{"start_time": day, "results": [{"amount": {"value": 0.003, "currency": "usd"}}, {"amount": {"value": 0.0015}}]}]}
    calls = [row(), row(state=UNKNOWN, cost_nano=0), row(provider="ollama", cost_nano=0), row(at=NOW - timedelta(days=1))]
    first, second = reports.reconcile(calls, [costs])
    assert (first["provider_nano"], first["difference_nano"]) == (0, -3_500_000)
    assert second == {
        **second,
        "ledger_nano": 3_500_000,
        "provider_nano": 4_500_000,
        "difference_nano": 1_000_000,
        "unknown_nano": 9_000_000,
    }


@pytest.mark.requirement("4.2.4", part="unknown calls")
@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 500), st.booleans()), min_size=1, max_size=12))
def test_what_the_provider_counted_is_given_to_unknown_calls(calls: list[tuple[int, int, bool]]) -> None:
    """Whatever was lost: with the provider's usage, tokens and costs are its own."""
    told = {"model": "gpt-4o-2024-08-06", "input_tokens": sum(each[0] for each in calls), "output_tokens": sum(each[1] for each in calls)}
    ledger = [
        row(tokens_in=spent, tokens_out=out, cost_nano=spent * 2500 + out * 10000)
        if heard
        else row(state=UNKNOWN, tokens_in=0, tokens_out=0, cost_nano=0, estimate_nano=spent)
        for spent, out, heard in calls
    ]
    found = dict(reports.unknown_by_usage(ledger, [{"data": [{"results": [told]}]}], lambda _: _price(2500, 1250, 10000)))
    assert set(found) == {each["id"] for each in ledger if each["state"] == UNKNOWN}
    if found:
        heard = [Outcome(each["cost_nano"], each["tokens_in"], each["tokens_out"]) for each in ledger if each["state"] == SPENT]
        whole = [*heard, *found.values()]
        assert (
            sum(each.tokens_in for each in whole) == told["input_tokens"]
            and sum(each.tokens_out for each in whole) == told["output_tokens"]
        )
        assert sum(each.cost_nano for each in whole) == told["input_tokens"] * 2500 + told["output_tokens"] * 10000
        assert all(each.cost_nano >= 0 for each in found.values())


def test_an_unknown_call_that_the_provider_never_had_costs_nothing() -> None:
    ((_, outcome),) = reports.unknown_by_usage([row(state=UNKNOWN)], [], lambda _: _price(1, 1, 1))
    assert outcome.cost_nano == outcome.tokens_in == 0


def test_reports_are_of_the_ledgers_own_rows(tmp_path: Path) -> None:
    budgets: Budgets = load({})
    ledger = Ledger(f"sqlite:///{tmp_path / 'l'}", budgets, "test", now=NOW.timestamp)
    ledger.start()
    with ledger.transaction() as connection:
        ledger.settle(connection, Call("a", "anna", "search", "coding", "good", 5), Outcome(5, 1, 1))
    (total,) = history(ledger.rows(reports.milliseconds(NOW)), reports.DIMENSIONS)
    assert (total["user"], total["task"], total["cost_nano"]) == ("anna", "coding", 5)
    assert ledger.rows(reports.milliseconds(NOW) + 1) == ledger.rows(until_ms=reports.milliseconds(NOW)) == []


# --- tokens ---


def test_a_file_of_hashes_is_read_again_when_it_changes(tmp_path: Path) -> None:
    file, tokens = tmp_path / "tokens.json", FileTokens(tmp_path / "tokens.json")
    with pytest.raises(Unsure):
        tokens.find("good")

    def write(*entries: dict[str, Any]) -> None:
        other = tmp_path / "new"
        other.write_text(json.dumps({"tokens": entries}))
        other.rename(file)

    good = {"sha256": hashlib.sha256(b"good").hexdigest(), "user": "anna", "projects": ["search"]}
    write(good, {"sha256": hashlib.sha256(b"old").hexdigest(), "user": "bert", "expires": time.time() - 1})
    assert tokens.find("good") == Identity("anna", ("search",)) and tokens.find("old") is None and tokens.find(good["sha256"]) is None
    write()
    assert tokens.find("good") is None, "revoked"
    file.write_text("{")
    with pytest.raises(Unsure, match=r"tokens.json cannot be read"):
        tokens.find("good")


@contextmanager
def node(seen: list[str], code: list[int]) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            asked = self.headers["Authorization"].removeprefix("Bearer ")
            scopes = {"good": ["api", "events", "models"], "models": ["models"], "metrics": ["metrics", "events"]}
            body = json.dumps({"kind": "token", "name": "anna", "role": "viewer", "scopes": scopes.get(asked)}).encode()
            self.send_response(code[0] if asked in scopes else 401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_node_service_is_asked_and_believed_for_a_while() -> None:
    seen: list[str] = []
    code = [200]
    with node(seen, code) as url:
        tokens = NodeTokens(url, None, {"anna": ("search",)}, seconds=0.3)
        assert tokens.known("good") is None and not seen, "it has to be asked"
        assert [tokens.find("good") for _ in range(3)] == [Identity("anna", ("search",))] * 3 and seen == ["/api/v1/me"]
        assert tokens.find("bad") is None and tokens.find("bad") is None and len(seen) == 2
        other = NodeTokens(url, None, {})
        assert other.find("models") == Identity("anna") and other.find("metrics") is None, "a token for metrics spends nothing"
        del seen[2:]
        assert tokens.known("bad") == (None,) and tokens.known("good") == (Identity("anna", ("search",)),) and len(seen) == 2
        code[0] = 401
        deadline = time.monotonic() + 5
        while tokens.find("good") and time.monotonic() < deadline:
            time.sleep(0.05)
        assert tokens.find("good") is None, "revoked"
        code[0] = 503
        time.sleep(0.35)
        with pytest.raises(Unsure):
            tokens.find("good")
