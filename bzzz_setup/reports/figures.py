# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What models have cost, and where they would fit, as pages of the report's kind: charts with the tables that they are made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from typing import Any

from ansible_collections.bzzz.cluster.plugins.module_utils.models.holding import amount as mebibytes
from ansible_collections.bzzz.cluster.plugins.module_utils.node.machine import natural

from bzzz_setup.report import count

DIMENSIONS = {"model": "By model", "task": "By task", "project": "By project", "user": "By user"}
# As many are told apart by colour; the rest is one.
APART = 5
REST, NONE = "others", "(none)"
PARTS = {
    "weights_bytes": "weights",
    "cache_bytes": "KV cache",
    "overhead_bytes": "overhead",
    "reserved_bytes": "in use or reserved",
    "free_bytes": "free",
}


def spending(cluster: str, found: Mapping[str, Any], usd: Any) -> dict[str, Any]:
    """Of the ledger's answer by day and all of DIMENSIONS. usd: writes nano-USD."""
    rows = found["rows"]
    sections = [_days(rows, usd)] if rows else []
    sections += [_shares(name, title, rows, usd) for name, title in DIMENSIONS.items() if any(row[name] for row in rows)]
    if found["budgets"]:
        sections.append(_budgets(found["budgets"], usd))
    month = found["month"]
    tiles = [
        ("Spent", usd(found["nano"]), f"{found['since'][:10]} to {found['until'][:10]}"),
        ("Calls", f"{found['calls']:,}", f"up to {usd(found['held_nano'])} of unknown outcome" if found["held_nano"] else ""),
        ("This month", usd(month["spent_nano"]), f"{usd(month['expected_nano'])} at its end, at the pace of the last seven days"),
    ]
    note = f"By the ledger of {found['gateway']}; days of {found['time_zone']}."
    return _page(cluster, "what models have cost", tiles, note if rows else f"{note} Nothing was called in this time.", sections)


def fit(cluster: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """Of a plan of models (`bzzz-setup models plan`)."""
    bars = []
    for name, node in sorted(found["nodes"].items(), key=lambda item: natural(item[0])):
        places = [(f"{name} {gpu['name']}", gpu["uuid"], gpu) for gpu in node["gpus"]]
        places += [(f"{name} memory", "", node["memory"])] if node["memory"]["models"] or not places else []
        bars += [_stack(label, key, place) for label, key, place in places]
    table = [(one["model"], one["node"], one["why"]) for one in found["placed"]]
    sections: list[dict[str, Any]] = [
        {"id": "fit", "title": "Memory of GPUs and nodes", "legend": list(PARTS.values()), "stacks": bars},
        {"id": "placed", "title": "Where models go, and why", "heads": ["Model", "Node", "Why"], "rows": table},
    ]
    left = [(one["model"], one["why"], one["remedy"]) for one in (*found["refused"], *found["unknown"])]
    if left:
        sections.append({"id": "left", "title": "What goes nowhere", "heads": ["Model", "Why", "Remedy"], "rows": left})
    tiles = [
        ("Placed", str(len(found["placed"])), count(len({one["node"] for one in found["placed"]}), "node")),
        ("Nowhere", str(len(found["refused"])), ""),
        ("Not known", str(len(found["unknown"])), ""),
    ]
    return _page(cluster, "where models fit", tiles, "Planned with what was free when the nodes were asked; see docs/models.md.", sections)


def _page(cluster: str, about: str, tiles: Iterable[tuple[str, str, str]], note: str, sections: list[dict[str, Any]]) -> dict[str, Any]:
    blank: dict[str, Any] = {"legend": [], "columns": None, "stacks": [], "bars": [], "heads": [], "rows": []}
    told = [{"label": label, "value": value, "more": more} for label, value, more in tiles]
    return {"cluster": cluster, "about": about, "tiles": told, "note": note, "sections": [{**blank, **one} for one in sections]}


def _days(rows: list[dict[str, Any]], usd: Any) -> dict[str, Any]:
    """A column a day from the first to the last with a call, of parts by model, dearest at the bottom."""
    sums: Counter[str] = Counter()
    parts: Counter[tuple[str, str]] = Counter()
    calls: Counter[str] = Counter()
    for row in rows:
        sums[row["model"]] += row["cost_nano"]
        calls[row["start"][:10]] += row["calls"]
    names = sorted(sums, key=lambda name: (-sums[name], name))
    apart = names if len(names) <= APART + 1 else names[:APART]
    for row in rows:
        parts[row["start"][:10], row["model"] if row["model"] in apart else REST] += row["cost_nano"]
    legend = [*apart, *([REST] if len(apart) < len(names) else [])]
    first, last = (date.fromisoformat(day) for day in (min(calls), max(calls)))
    days = [str(first + timedelta(number)) for number in range((last - first).days + 1)]
    whole = {day: sum(parts[day, name] for name in legend) for day in days}
    most, columns = max(whole.values()) or 1, []
    for place, day in enumerate(days):
        at, drawn = 100.0, []
        for number, name in enumerate(legend):
            height = parts[day, name] * 100 / most
            at -= height
            if height:
                drawn.append(
                    {"kind": number, "y": round(at, 3), "height": round(height, 3), "said": f"{day} {name}: {usd(parts[day, name])}"}
                )
        columns.append({"x": round(place * 100 / len(days), 3), "width": round(80 / len(days), 3), "parts": drawn})
    table = [(day, f"{calls[day]:,}", usd(whole[day])) for day in days if calls[day]]
    return {
        "id": "days",
        "title": "Day by day",
        "legend": legend,
        "columns": {"drawn": columns, "most": usd(most), "first": days[0], "last": days[-1]},
        "heads": ["Day", "Calls", "Cost"],
        "rows": table,
    }


def _shares(name: str, title: str, rows: list[dict[str, Any]], usd: Any) -> dict[str, Any]:
    sums: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for row in rows:
        sums[row[name]] += row["cost_nano"]
        calls[row[name]] += row["calls"]
    most = max(sums.values()) or 1
    bars = [
        {"label": each or NONE, "text": f"{usd(sums[each])}, {count(calls[each], 'call')}", "percent": round(sums[each] * 100 / most, 2)}
        for each in sorted(sums, key=lambda each: (-sums[each], each))
    ]
    return {"id": name, "title": title, "bars": bars}


def _budgets(budgets: list[dict[str, Any]], usd: Any) -> dict[str, Any]:
    bars = []
    for each in budgets:
        used = each["spent_nano"] + each["held_nano"]
        percent = min(round(used * 100 / each["limit_nano"], 2), 100) if each["limit_nano"] else 100
        text = f"{usd(each['spent_nano'])} of {usd(each['limit_nano'])}" + (f", {usd(each['held_nano'])} held" if each["held_nano"] else "")
        bars.append({"label": f"{each['scope']}, {each['period']}", "text": text, "percent": percent})
    return {"id": "budgets", "title": "Budgets now", "bars": bars}


def _stack(label: str, key: str, place: Mapping[str, Any]) -> dict[str, Any]:
    total, at, drawn = place["total_bytes"] or 1, 0.0, []
    for number, (part, name) in enumerate(PARTS.items()):
        width = max(place[part], 0) * 100 / total
        if width:
            drawn.append({"kind": number, "x": round(at, 3), "width": round(width, 3), "said": f"{label}: {name} {mebibytes(place[part])}"})
        at += width
    text = f"{mebibytes(place['free_bytes'])} of {mebibytes(place['total_bytes'])} free"
    return {"label": label, "key": key, "parts": drawn, "text": text, "models": ", ".join(place["models"])}
