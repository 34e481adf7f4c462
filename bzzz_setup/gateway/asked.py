# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What administrators ask of the ledger on the gateway's node: ``bzzz-gateway ledger``, a question on stdin, its answer on stdout, in JSON.

A question is ``{kind: report|calls|focus, since, until, by, per, account}``: days as ``2026-11-01`` in the gateway's time zone, from the
former to before the latter, each may be missing; ``by`` some of ``reports.DIMENSIONS``, ``per`` hour, day, month or whole.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from . import reports
from .budgets import DAY, MONTH, Problem, load, milliseconds, period_of
from .ledger import Ledger
from .settings import DEFAULT, VARIABLE

NODE_DEFAULT = "/etc/bzzz/gateway/gateway.yaml"


def opened(path: Path) -> Ledger:
    """The ledger of a gateway's file; who calls and by which tokens is not looked at."""
    import yaml  # noqa: PLC0415 - comes with LiteLLM

    document = yaml.safe_load(path.read_bytes())
    url = document.get("ledger") or Path(document["ledger_file"]).read_text(encoding="utf-8").strip()
    return Ledger(url, load(document.get("budgets"), document.get("time_zone", "UTC")), document.get("gateway", ""))


def answer(ledger: Ledger, question: Mapping[str, Any]) -> dict[str, Any]:
    """Amounts in nano-USD, as everywhere here; moments as UTC's text."""
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
        "month": reports.forecast(month, now, zone),
        "budgets": [
            {"scope": str(limit.scope), "period": limit.period, "limit_nano": limit.nano, "spent_nano": spent, "held_nano": held}
            for limit, spent, held in ledger.budgeted()
        ],
    }


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
        ledger = opened(path)
        json.dump(answer(ledger, json.load(sys.stdin)), sys.stdout)
    except Exception as error:  # whatever it is, who asks is to read it in a line
        print(
            Problem(str(path), f"{type(error).__name__}: {error}", "see that the gateway runs: journalctl -u bzzz-gateway"), file=sys.stderr
        )
        return 1
    return 0
