# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a month of the declared models would cost: pure rules over the options of roles gateway, openai and cost.

Money is whole nano-USD, a thousand millionth of a dollar. A month is a twelfth of 365 days.
"""

from __future__ import annotations

import functools
import json
import re
from decimal import ROUND_CEILING, Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NANO = 10**9
MILLION = 10**6
DAYS = Decimal(365) / 12
PRICES = Path(__file__).resolve().parent.parent.parent / "roles" / "cost" / "files" / "prices.json"
# Dollars a million tokens: in, in from the provider's cache, out.
Price = tuple[Decimal, Decimal, Decimal]
FREE: Price = (Decimal(0), Decimal(0), Decimal(0))


@functools.cache
def listed() -> dict[str, Price]:
    """OpenAI's models by name: the list that the gateway's LiteLLM has (``python -m bzzz_setup.prices``)."""
    found = json.loads(PRICES.read_text(encoding="utf-8"), parse_float=Decimal, parse_int=Decimal)
    return {name: (row[0], row[1], row[2]) for name, row in found.items()}


def price(options: Mapping[str, Any], entry: Mapping[str, Any], prices: Mapping[str, Price]) -> Optional[Price]:
    """Of an entry of C(gateway_models), as the gateway counts: its own, none for Ollama's, else the list's. None where nobody knows it."""
    if entry.get("input_usd_per_million") is not None:
        fresh, out = (Decimal(str(entry.get(f"{kind}_usd_per_million") or 0)) for kind in ("input", "output"))
        return fresh, fresh, out
    if entry["endpoint"] == "cluster":
        return FREE
    endpoint = next((each for each in options["gateway"]["endpoints"] if each["name"] == entry["endpoint"]), None)
    if endpoint is not None and endpoint["kind"] == "ollama":
        return FREE
    return prices.get(entry.get("model") or entry["name"])


def prices(options: Mapping[str, Any]) -> dict[str, Price]:
    """Of each model that calls can name: the dearest of its entries, in each kind of token. Without those whose price nobody knows."""
    found: dict[str, Price] = {}
    for name, entries in _entries(options).items():
        known = [price(options, entry, listed()) for entry in entries]
        if all(known):
            fresh, of_cache, out = (max(kind) for kind in zip(*(each for each in known if each)))
            found[name] = fresh, of_cache, out
    return found


def forecast(options: Mapping[str, Any], prices: Optional[Mapping[str, Price]] = None) -> dict[str, Any]:
    """Of a cluster with these options (role -> option -> value).

    ``models``: one a model of C(cost_expected), ``{model, calls, tokens_in, tokens_out, nano, most_nano, priced}`` a month; ``most_nano``
    is where all of its calls go to its dearest entry. ``machines``: C(cost_machines) with ``nano``. ``nano``, ``most_nano``: the sums.
    ``limit_nano``: what the budget of all lets a month cost; None for no limit. ``unpriced``: models whose price nobody knows.
    ``idle``: declared models of which no use is expected.
    """
    prices = listed() if prices is None else prices
    gateway, cost = options["gateway"], options["cost"]
    entries = _entries(options)
    rows: list[dict[str, Any]] = []
    for use in cost["expected"]:
        name = gateway["tasks"].get(use["model"], use["model"])
        calls = Decimal(str(use["calls_per_day"])) * DAYS
        cached = Decimal(str(use["cached_percent"])) / 100
        costs, weights = [], []
        for entry in entries.get(name, []):
            if (known := price(options, entry, prices)) is not None:
                fresh, of_cache, out = known
                each = use["tokens_in"] * ((1 - cached) * fresh + cached * of_cache) + use["tokens_out"] * out
                costs.append(each / MILLION * NANO * calls)
                weights.append(_weight(gateway, entry))
        priced = bool(costs) and len(costs) == len(entries.get(name, []))
        mean = sum((c * w for c, w in zip(costs, weights)), Decimal(0)) / sum(weights) if costs else Decimal(0)
        rows.append(
            {
                "model": use["model"],
                "calls": round(calls),
                "tokens_in": round(calls * use["tokens_in"]),
                "tokens_out": round(calls * use["tokens_out"]),
                "nano": _up(mean),
                "most_nano": _up(max(costs, default=Decimal(0))),
                "priced": priced,
            }
        )
    machines = [{**each, "nano": _up(_running(each))} for each in cost["machines"]]
    standing = sum(each["nano"] for each in machines)
    used = {gateway["tasks"].get(use["model"], use["model"]) for use in cost["expected"]}
    limit = monthly(cost["all"])
    return {
        "models": rows,
        "machines": machines,
        "nano": standing + sum(row["nano"] for row in rows),
        "most_nano": standing + sum(row["most_nano"] for row in rows),
        "calls_nano": sum(row["nano"] for row in rows),
        "limit_nano": limit,
        "unpriced": sorted({row["model"] for row in rows if not row["priced"]}),
        "idle": sorted(set(entries) - used),
    }


def told(found: Mapping[str, Any]) -> list[str]:
    """In words: the sum, what holds it, and what is not known."""
    if not found["models"] and not found["machines"]:
        limit = found["limit_nano"]
        held = f"Calls are held to {usd(limit)} a month." if limit is not None else "No limit holds all calls together (cost_all)."
        return [f"What a month would cost is not known: cost_expected names no use. {held}"]
    lines = [f"A month would cost about {usd(found['nano'])}, at most {usd(found['most_nano'])} for this use."]
    limit, calls = found["limit_nano"], found["calls_nano"]
    if limit is None:
        lines.append("No limit holds all calls together (cost_all): more use costs more.")
    elif calls > limit:
        part = Decimal(limit) * 100 / calls
        lines.append(f"The limit of {usd(limit)} a month is enough for {part:.0f} percent of that use: the calls beyond are refused.")
    else:
        lines.append(f"The limit lets calls cost {usd(limit)} a month at most.")
    if found["unpriced"]:
        names = ", ".join(found["unpriced"])
        lines.append(f"Not all is counted: the price of {names} is not known. Set input_usd_per_million and output_usd_per_million.")
    return lines


def amount(nano: int) -> str:
    """Dollars as people read them: cents, and of less than ten the first two digits."""
    value = Decimal(nano) / NANO
    digits = min(9, max(2, 1 - value.adjusted())) if value else 2
    return re.sub(r"(\.\d\d+?)0+$", r"\1", f"{value:,.{digits}f}")


def usd(nano: int) -> str:
    return f"{amount(nano)} USD"


def monthly(budget: Mapping[str, Any]) -> Optional[int]:
    """What a budget lets a month cost at most: its month's, or 31 of its days; None for no limit."""
    amounts = [Decimal(str(budget["month_usd"]))] if budget.get("month_usd") is not None else []
    amounts += [Decimal(str(budget["day_usd"])) * 31] if budget.get("day_usd") is not None else []
    return int(min(amounts) * NANO) if amounts else None


def _entries(options: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for entry in options["gateway"]["models"]:
        found.setdefault(entry["name"], []).append(entry)
    default = options["gateway"]["default_model"]
    found.setdefault(default, [{"name": default, "endpoint": "openai", "weight": 1}])
    return found


def _weight(gateway: Mapping[str, Any], entry: Mapping[str, Any]) -> int:
    """An entry's part; where calls are not shared by weight, nobody knows it beforehand, and all are taken for alike."""
    if gateway["balancing"] != "weighted":
        return 1
    own = [each["weight"] for each in gateway["endpoints"] if each["name"] == entry["endpoint"]]
    return int(entry["weight"]) * int(own[0] if own else 1)


def _running(machine: Mapping[str, Any]) -> Decimal:
    return Decimal(str(machine["usd_per_hour"])) * int(machine["count"]) * Decimal(str(machine["hours_per_day"])) * DAYS * NANO


def _up(exact: Decimal) -> int:
    return int(exact.to_integral_value(rounding=ROUND_CEILING))


def wrong(options: Mapping[str, Any]) -> Sequence[str]:
    """Models of C(cost_expected) that no call could name."""
    known = {*_entries(options), *options["gateway"]["tasks"]}
    return [use["model"] for use in options["cost"]["expected"] if use["model"] not in known]
