# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What administrators ask of the ledger on the gateway's node: ``bzzz-gateway ledger``, a question on stdin, its answer on stdout, in JSON.

A question is ``{kind: report|calls|focus, since, until, by, per, account}``: days as ``2026-11-01`` in the gateway's time zone, from the
former to before the latter, each may be missing; ``by`` some of ``reports.DIMENSIONS``, ``per`` hour, day, month or whole. ``prices``:
nano-USD a token of models: in, in from the provider's cache, out.

Kind ``reconcile``: ``since`` and ``until`` are UTC's, ``costs`` OpenAI's pages of these days, of one ``project`` or of all; with
``settle``, calls of unknown outcome are settled by ``usage``, its pages by model, before.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from . import alerts, reports
from .budgets import DAY, MONTH, Problem, load, milliseconds, period_of
from .ledger import UNKNOWN, Ledger, resolve
from .settings import DEFAULT, VARIABLE, Alerts

FREE: reports.Price = (Decimal(0), Decimal(0), Decimal(0))
SNAPSHOT = re.compile(r"-\d{4}-\d\d-\d\d$")
# A cent: less is not worth another model.
WORTH_NANO = 10**7
MOST_ADVICE = 5
NODE_DEFAULT = "/etc/bzzz/gateway/gateway.yaml"


def opened(path: Path) -> tuple[Ledger, Alerts | None]:
    """Ledger and alerts of a gateway's file; who calls and by which tokens is not looked at."""
    import yaml  # noqa: PLC0415 - comes with LiteLLM

    document = yaml.safe_load(path.read_bytes())
    url = document.get("ledger") or Path(document["ledger_file"]).read_text(encoding="utf-8").strip()
    told = document.get("alerts")
    where = Alerts(told["file"], told["group"]) if told else None
    return Ledger(url, load(document.get("budgets"), document.get("time_zone", "UTC")), document.get("gateway", "")), where


def answer(ledger: Ledger, question: Mapping[str, Any], where: Alerts | None = None) -> dict[str, Any]:
    """Amounts in nano-USD, as everywhere here; moments as UTC's text. where: alerts of thresholds that are reached by it are told."""
    if question["kind"] == "reconcile":
        return _reconciled(ledger, question, where)
    zone, now = ledger.budgets.zone, datetime.fromtimestamp(ledger.now(), UTC)
    since = _day(question.get("since"), zone) or period_of(now, MONTH, zone).start
    until = _day(question.get("until"), zone) or now
    rows = ledger.rows(milliseconds(since), milliseconds(until))
    about = {
        "gateway": ledger.gateway,
        "time_zone": zone.key,
        "since": reports.iso(since),
        "until": reports.iso(until),
        "calls": len(rows),
    }
    if question["kind"] == "calls":
        return {**about, "csv": reports.as_csv(reports.calls(rows))}
    if question["kind"] == "focus":
        return {**about, "csv": reports.as_csv(reports.focus(rows, str(question.get("account") or ledger.gateway)))}
    per = question.get("per") or "whole"
    found = reports.history(rows, tuple(question.get("by") or ("model",)), None if per == "whole" else per, zone)
    month = ledger.rows(milliseconds(period_of(now, MONTH, zone).start) - 7 * 86_400_000)
    return {
        **about,
        "rows": [{**row, "start": row["start"] and row["start"].astimezone(zone).isoformat()} for row in found],
        "nano": sum(row["cost_nano"] for row in rows),
        "held_nano": sum(row["held_nano"] for row in found),
        "caching": reports.caching(rows),
        "recommendations": _advice(rows, _prices(question)),
        "served": reports.served(rows),
        "month": reports.forecast(month, now, zone),
        "budgets": [
            {"scope": str(limit.scope), "period": limit.period, "limit_nano": limit.nano, "spent_nano": spent, "held_nano": held}
            for limit, spent, held in ledger.budgeted()
        ],
    }


def _advice(rows: list[dict[str, Any]], prices: Mapping[str, reports.Price]) -> list[dict[str, Any]]:
    """The cheapest other model for each task on a model, where it is worth it."""
    best: dict[tuple[str, str], dict[str, Any]] = {}
    for each in reports.recommendations(rows, prices, WORTH_NANO):
        best.setdefault((each["task"], each["model"]), each)
    return list(best.values())[:MOST_ADVICE]


def _reconciled(ledger: Ledger, question: Mapping[str, Any], where: Alerts | None) -> dict[str, Any]:
    since, until = (datetime.fromisoformat(question[name]).replace(tzinfo=UTC) for name in ("since", "until"))
    project, prices, settled = question.get("project"), _prices(question), 0

    def rows() -> list[dict[str, Any]]:
        found = ledger.rows(milliseconds(since), milliseconds(until))
        return [row for row in found if project is None or row["openai_project"] == project or row["state"] == UNKNOWN]

    if question.get("settle"):
        known = [row for row in rows() if row["state"] != UNKNOWN or _price(row["deployment"].rpartition("/")[2], prices)]
        outcomes = reports.unknown_by_usage(known, question["usage"], lambda model: _price(model, prices) or FREE)
        settled, reached = resolve(ledger, outcomes)
        alerts.tell(where, reached)
    days = reports.reconcile(rows(), question["costs"])
    return {
        "gateway": ledger.gateway,
        "since": question["since"],
        "until": question["until"],
        "settled": settled,
        "days": [{**day, "day": f"{day['day']:%Y-%m-%d}"} for day in days],
    }


def _prices(question: Mapping[str, Any]) -> dict[str, reports.Price]:
    return {name: (Decimal(row[0]), Decimal(row[1]), Decimal(row[2])) for name, row in (question.get("prices") or {}).items()}


def _price(model: str, prices: Mapping[str, reports.Price]) -> reports.Price | None:
    """By a model's name, or that of its snapshot."""
    return prices.get(model) or prices.get(SNAPSHOT.sub("", model))


def _day(text: Any, zone: ZoneInfo) -> datetime | None:
    """A day's first instant."""
    if not text:
        return None
    day = date.fromisoformat(str(text))
    # Noon is in no gap.
    return period_of(datetime(day.year, day.month, day.day, 12, tzinfo=zone).astimezone(UTC), DAY, zone).start


def main() -> int:
    """Exit codes: 0 fine, 1 it cannot be told."""
    path = Path(os.environ.get(VARIABLE) or (NODE_DEFAULT if Path(NODE_DEFAULT).exists() else DEFAULT))
    try:
        ledger, where = opened(path)
        json.dump(answer(ledger, json.load(sys.stdin), where), sys.stdout)
    except Exception as error:  # whatever it is, who asks is to read it in a line
        print(
            Problem(str(path), f"{type(error).__name__}: {error}", "see that the gateway runs: journalctl -u bzzz-gateway"), file=sys.stderr
        )
        return 1
    return 0
