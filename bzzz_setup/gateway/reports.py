# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the ledger's rows tell: sums over any range, exports, comparisons with what the provider says. Pure functions over rows."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from .budgets import DAY, MONTH, NANO, milliseconds, period_of
from .ledger import SPENT, UNKNOWN, Outcome

Row = Mapping[str, Any]
# Nano-USD a token: in, in from the provider's cache, out.
Price = tuple[Decimal, Decimal, Decimal]
DIMENSIONS = ("user", "project", "model", "task")
HOUR = "hour"
# Whose the cluster's own nodes are, among providers and endpoints.
CLUSTER = "cluster"
SUMMED = ("tokens_in", "tokens_out", "tokens_cached", "cost_nano", "latency_ms")


def usd(nano: int) -> str:
    """Exact."""
    return f"{Decimal(nano) / NANO:.9f}"


def _moment(row: Row) -> datetime:
    return datetime.fromtimestamp(row["at_ms"] / 1000, UTC)


def _start(moment: datetime, period: str | None, zone: ZoneInfo) -> datetime | None:
    if period is None:
        return None
    if period == HOUR:  # some zones are half an hour off
        off = moment.astimezone(zone).utcoffset() or timedelta()
        return (moment + off).replace(minute=0, second=0, microsecond=0) - off
    return period_of(moment, period, zone).start


def history(rows: Iterable[Row], by: Sequence[str] = (), period: str | None = DAY, zone: ZoneInfo | None = None) -> list[dict[str, Any]]:
    """Sums by hour, day, month or the whole range (None), and by some of ``DIMENSIONS``: calls, tokens, cost, mean latency.

    ``held_nano`` is what calls of unknown outcome may have cost beside ``cost_nano``.
    """
    zone = zone or ZoneInfo("UTC")
    sums: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        key = (_start(_moment(row), period, zone), *(row[name] for name in by))
        blank = {"calls": 0, "held_nano": 0, **dict.fromkeys(SUMMED, 0)}
        total = sums.setdefault(key, {"start": key[0], **dict(zip(by, key[1:], strict=True)), **blank})
        total["calls"] += 1
        total["held_nano"] += row["estimate_nano"] if row["state"] == UNKNOWN else 0
        for name in SUMMED:
            total[name] += row[name]
    for total in sums.values():
        total["latency_ms"] = round(total["latency_ms"] / total["calls"])
    return [sums[key] for key in sorted(sums, key=lambda key: (key[0] or datetime.min.replace(tzinfo=UTC), key[1:]))]


def as_csv(records: Sequence[Mapping[str, Any]]) -> str:
    """With a heading. What spreadsheets would take for a formula is made text."""
    if not records:
        return ""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(records[0])
    for record in records:
        writer.writerow([_cell(value) for value in record.values()])
    return text.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, datetime):
        return iso(value)
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def calls(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Every call, as people export them."""
    names = ("user", "project", "task", "model", "provider", "deployment", "state", "status", "tokens_in", "tokens_out", "tokens_cached")
    return [{"id": row["id"], "time": _moment(row), **{n: row[n] for n in names}, "cost_usd": usd(row["cost_nano"])} for row in rows]


def iso(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def focus(rows: Iterable[Row], account: str, publisher: Mapping[str, str] | None = None) -> list[dict[str, str | None]]:
    """FOCUS 1.0 records (focus.finops.org): one an hour and user, project, task and deployment, of calls that are settled."""
    names = {"openai": "OpenAI", **(publisher or {})}
    by = ("user", "project", "task", "model", "provider", "deployment", "organization", "openai_project")
    records = []
    for total in history((row for row in rows if row["state"] == SPENT), by, HOUR):
        start = total["start"]
        month = period_of(start, MONTH, ZoneInfo("UTC"))
        cost, tokens = usd(total["cost_nano"]), str(total["tokens_in"] + total["tokens_out"])
        issuer = names.get(total["provider"], total["provider"] or "local")
        records.append(
            {
                "BilledCost": cost,
                "BillingAccountId": total["organization"] or account,
                "BillingAccountName": account,
                "BillingCurrency": "USD",
                "BillingPeriodEnd": iso(month.end),
                "BillingPeriodStart": iso(month.start),
                "ChargeCategory": "Usage",
                "ChargeClass": None,
                "ChargeDescription": f"{total['calls']} calls to {total['deployment'] or total['model']}",
                "ChargeFrequency": "Usage-Based",
                "ChargePeriodEnd": iso(start + timedelta(hours=1)),
                "ChargePeriodStart": iso(start),
                "ConsumedQuantity": tokens,
                "ConsumedUnit": "Tokens",
                "ContractedCost": cost,
                "EffectiveCost": cost,
                "InvoiceIssuerName": issuer,
                "ListCost": cost,
                "PricingQuantity": tokens,
                "PricingUnit": "Tokens",
                "ProviderName": issuer,
                "PublisherName": issuer,
                "ResourceId": total["deployment"] or total["model"],
                "ResourceName": total["model"],
                "ResourceType": "Model",
                "ServiceCategory": "AI and Machine Learning",
                "ServiceName": f"{issuer} API",
                "SubAccountId": total["openai_project"] or total["project"] or None,
                "SubAccountName": total["project"] or None,
                "Tags": json.dumps({name: total[name] for name in ("user", "project", "task") if total[name]}, sort_keys=True),
            }
        )
    return records


# --- what might be ---


def would_cost(total: Mapping[str, Any], price: Price) -> int:
    """The same tokens at other prices, in nano-USD; other models count tokens a little otherwise."""
    fresh = total["tokens_in"] - total["tokens_cached"]
    exact: Decimal = fresh * price[0] + total["tokens_cached"] * price[1] + total["tokens_out"] * price[2]
    return round(exact)


def recommendations(rows: Iterable[Row], prices: Mapping[str, Price], least_nano: int = 0) -> list[dict[str, Any]]:
    """For each task and model, what it has cost and would cost on every cheaper model, the most saved first."""
    found = []
    for total in history((row for row in rows if row["state"] == SPENT), ("task", "model"), None):
        for model, price in prices.items():
            saved = total["cost_nano"] - (other := would_cost(total, price))
            if model != total["model"] and saved > least_nano:
                about = {"task": total["task"], "model": total["model"], "calls": total["calls"], "cost_nano": total["cost_nano"]}
                found.append({**about, "other": model, "other_nano": other, "saved_nano": saved})
    return sorted(found, key=lambda each: (-each["saved_nano"], each["task"], each["model"], each["other"]))


def caching(rows: Iterable[Row]) -> dict[str, int]:
    """How many calls the gateway answered from its own cache, and how many tokens the provider had in its."""
    told = {"calls": 0, "cached_calls": 0, "tokens_in": 0, "tokens_cached": 0}
    for row in rows:
        told["calls"] += 1
        told["cached_calls"] += row["status"] == "cached"
        told["tokens_in"] += row["tokens_in"]
        told["tokens_cached"] += row["tokens_cached"]
    return told


def served(rows: Iterable[Row]) -> dict[str, int]:
    """How many calls each node of the cluster has had."""
    found: dict[str, int] = {}
    for row in rows:
        _, told, node = row["deployment"].rpartition("@")
        if row["provider"] == CLUSTER and told:
            found[node] = found.get(node, 0) + 1
    return found


def forecast(rows: Iterable[Row], now: datetime, zone: ZoneInfo, days: int = 7) -> dict[str, int]:
    """What this month will have cost if it goes on as in the last days: spent so far, and the time left at their pace."""
    month = period_of(now, MONTH, zone)
    since = milliseconds(now - timedelta(days=days))
    now_ms = milliseconds(now)
    spent = recent = 0
    first = now_ms
    for row in rows:
        if row["at_ms"] < now_ms:
            spent += row["cost_nano"] if row["at_ms"] >= month.start_ms else 0
            recent += row["cost_nano"] if row["at_ms"] >= since else 0
            first = min(first, row["at_ms"])
    # A ledger younger than that has no such days.
    seen = now_ms - max(since, first)
    left = milliseconds(month.end) - now_ms
    return {"spent_nano": spent, "expected_nano": spent + (round(Decimal(recent) * left / seen) if seen else 0)}


# --- what the provider says ---


def _buckets(pages: Iterable[Mapping[str, Any]]) -> Iterable[Mapping[str, Any]]:
    for page in pages:
        yield from page["data"]


def reconcile(rows: Iterable[Row], pages: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The ledger beside OpenAI's ``/v1/organization/costs`` (daily, and so by UTC's days), with the difference of each day.

    ``unknown_nano``: up to so much of a difference is explained by calls whose outcome nobody heard.
    """
    theirs: dict[datetime, Decimal] = {}
    for bucket in _buckets(pages):
        day = datetime.fromtimestamp(bucket["start_time"], UTC)
        for result in bucket["results"]:
            theirs[day] = theirs.get(day, Decimal(0)) + Decimal(str(result["amount"]["value"]))
    ours: dict[datetime, list[int]] = {}
    for row in rows:
        if row["provider"] == "openai":
            both = ours.setdefault(_moment(row).replace(hour=0, minute=0, second=0, microsecond=0), [0, 0])
            both[0] += row["cost_nano"]
            both[1] += row["estimate_nano"] if row["state"] == UNKNOWN else 0
    told = []
    for day in sorted(theirs.keys() | ours.keys()):
        provider, (ledger, unknown) = round(theirs.get(day, Decimal(0)) * NANO), ours.get(day, [0, 0])
        about = {"day": day, "ledger_nano": ledger, "provider_nano": provider, "difference_nano": provider - ledger}
        told.append({**about, "unknown_nano": unknown})
    return told


def unknown_by_usage(rows: Iterable[Row], pages: Iterable[Mapping[str, Any]], price: Callable[[str], Price]) -> list[tuple[str, Outcome]]:
    """What calls of unknown outcome have used, by OpenAI's ``/v1/organization/usage/completions`` grouped by model, of the same range.

    What OpenAI counted and no settled call explains is theirs, spread by what each could have cost at most: their sum is right,
    each by itself a guess. For ``ledger.resolve``. The range has to begin and end when nothing was under way.
    """
    used: dict[str, list[int]] = {}
    for bucket in _buckets(pages):
        for result in bucket["results"]:
            sums = used.setdefault(result["model"], [0, 0, 0])
            for index, name in enumerate(("input_tokens", "input_cached_tokens", "output_tokens")):
                sums[index] += result.get(name) or 0
    unknown: dict[str, list[Row]] = {}
    for row in rows:
        model = _named(row["deployment"].partition("/")[2] or row["deployment"], used)
        if row["provider"] == "openai" and row["state"] == SPENT and model in used:
            for index, name in enumerate(("tokens_in", "tokens_cached", "tokens_out")):
                used[model][index] -= row[name]
        elif row["provider"] == "openai" and row["state"] == UNKNOWN:
            unknown.setdefault(model, []).append(row)
    found = []
    for model, lost in unknown.items():
        left = [max(0, each) for each in used.get(model, [0, 0, 0])]
        fresh, cached, out = price(model)
        cost = round((left[0] - left[1]) * fresh + left[1] * cached + left[2] * out)
        weights = [row["estimate_nano"] for row in lost]
        parts = zip(*(_spread(each, weights) for each in (*left, cost)), strict=True)
        for row, (spent, of_cache, told, nano) in zip(lost, parts, strict=True):
            found.append((row["id"], Outcome(nano, spent, told, of_cache, status="reconciled")))
    return found


def _named(model: str, known: Iterable[str]) -> str:
    """A model by the name that the provider reports it by, which may be that of its snapshot."""
    return max((each for each in known if each == model or each.startswith(f"{model}-20")), key=len, default=model)


def _spread(amount: int, weights: Sequence[int]) -> list[int]:
    """Whole parts in proportion, whose sum is the amount."""
    total, before, done = sum(weights) or len(weights), 0, 0
    parts = []
    for weight in weights if sum(weights) else [1] * len(weights):
        before += weight
        parts.append(amount * before // total - done)
        done += parts[-1]
    return parts
