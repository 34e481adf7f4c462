# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Budgets: amounts, shares that add up, and a gateway that holds calls to them. bzzz_setup/gateway/budgets.py reads the same once more."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..forecast import wrong
from ..problems import Problem, problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..cluster import Cluster
    from ..declaration import Declared

AMOUNTS = ("day_usd", "month_usd")
# bzzz_setup.gateway.budgets.HIGHEST_USD
HIGHEST_USD = 1_000_000_000


def literal(declared: Mapping[str, Declared], cluster: Cluster) -> Iterator[Problem]:
    for node, roles in declared.items():
        options = roles["cost"]
        if any(options[name] for name in ("all", "projects", "users")) and not roles["gateway"]["enabled"]:
            message = "Budgets are declared, and without the AI gateway nothing is held to them."
            yield problem("gateway_enabled", message, "Set gateway_enabled: true, or take the cost_ options out.", value=False, node=node)
        yield from _zone(options["time_zone"], node)
        shares = set(options["all"]) & {"project_shares", "user_shares"}
        yield from _budget("cost_all", options["all"], ("project_shares", "user_shares"), bool(shares), node)
        shared = options["all"].get("project_shares")
        for name, budget in options["projects"].items():
            of_all = isinstance(shared, dict) and name in shared
            wants = isinstance(budget, dict) and "user_shares" in budget and not of_all
            yield from _budget("cost_projects", budget, ("user_shares",), wants, node, f"{name}: ")
        for name, budget in options["users"].items():
            yield from _budget("cost_users", budget, (), False, node, f"{name}: ")
        yield from _compared(options, node)
        yield from _nobodys(roles, node)
        yield from _expected(roles, node)
        yield from _database(options, cluster, node)
        for percent in options["warn_percent"]:
            if not 1 <= percent <= 100:
                yield problem("cost_warn_percent", "This is no part of a budget.", "Write 1 to 100.", value=percent, node=node)


def _nobodys(roles: Declared, node: str) -> Iterator[Problem]:
    """Projects that no call can be for."""
    members = roles["gateway"]["members"]
    known = sorted({name for names in members.values() if isinstance(names, list) for name in names if isinstance(name, str)})
    shares = roles["cost"]["all"].get("project_shares")
    named = {"cost_projects": roles["cost"]["projects"], "cost_all": shares if isinstance(shares, dict) else {}}
    named["openai_projects"] = roles["openai"]["projects"]
    for option, projects in named.items() if known else ():
        for name in sorted(set(projects) - {*known, "*"}):
            message = f"{name} is a project of no member, so that no call is for it."
            remedy = f"Write one of {', '.join(known)}, or give somebody {name} in gateway_members."
            yield problem(option, message, remedy, value=name, node=node, severity="warning")


def _compared(options: Mapping[str, Any], node: str) -> Iterator[Problem]:
    """Limits that can never be reached."""
    whole = options["all"]
    for kind in ("projects", "users"):
        for name, budget in options[kind].items():
            if budget == {}:
                message = f"{name} has a budget without a limit."
                remedy = "Write for example {day_usd: 5}, or take it out."
                yield problem(f"cost_{kind}", message, remedy, node=node, severity="warning")
    named = [("cost_all", "", whole)]
    named += [(f"cost_{kind}", f"{name}: ", budget) for kind in ("projects", "users") for name, budget in options[kind].items()]
    for option, who, budget in named:
        amounts, most = (
            {name: _number(each.get(name), HIGHEST_USD) for name in AMOUNTS} if isinstance(each, dict) else {} for each in (budget, whole)
        )
        day, month = (amounts.get(name) for name in AMOUNTS)
        if day is not None and month is not None and day > month:
            message = f"{who}A day may have more than its month, whose limit holds first."
            yield problem(option, message, "Lower day_usd, or raise month_usd.", value=f"{day:g}", node=node, severity="warning")
        for name in AMOUNTS:
            own, of_all = amounts.get(name), most.get(name)
            if who and own is not None and of_all is not None and own > of_all:
                message = f"{who}{name} is more than all together may have, {of_all:g}, which holds first."
                yield problem(option, message, "Lower it, or raise cost_all's.", value=f"{own:g}", node=node, severity="warning")


def database_node(roles: Declared) -> str:
    """The node whose PostgreSQL has the ledger; empty where it is in SQLite or in somebody else's PostgreSQL, as `bzzz_ledger`."""
    cost, gateway = roles["cost"], roles["gateway"]
    if not gateway["enabled"] or cost["database_url"]:
        return ""
    return cost["database_node"] or (gateway["nodes"][0] if len(gateway["nodes"]) > 1 else "")


def _database(options: Mapping[str, Any], cluster: Cluster, node: str) -> Iterator[Problem]:
    name = options["database_node"]
    if name and options["database_url"]:
        message = "The ledger is in one place: in the cluster's PostgreSQL, or in that of cost_database_url."
        yield problem("cost_database_node", message, "Take one of the two out.", value=name, node=node)
    elif name and name not in cluster["coordinators"]:
        message = f"The ledger's PostgreSQL runs on a coordinator, and {name} is none."
        remedy = f"Name one of {', '.join(cluster['coordinators'])}." if cluster["coordinators"] else "Put a node into group coordinators."
        yield problem("cost_database_node", message, remedy, value=name, node=node)


def effective(declared: Mapping[str, Declared], cluster: Cluster, facts: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    """A ledger that would be left behind."""
    for node, seen in facts.items():
        roles, listeners = declared[node], (seen.get("bzzz_ports") or {}).get("listeners") or []
        wanted = database_node(roles)
        if roles["gateway"]["enabled"] and wanted != node and any(one.get("unit") == "bzzz-ledger.service" for one in listeners):
            message = f"The ledger is in PostgreSQL on {node} and would be left there: what is spent so far would not count any more."
            remedy = (
                f"Set cost_database_node: {node}. Or, where it need not count or was taken elsewhere (pg_dump), stop it there: "
                "systemctl disable --now bzzz-ledger.service; its data stays in /var/lib/bzzz-ledger."
            )
            yield problem("cost_database_node", message, remedy, value=wanted or None, node=node)


def _expected(roles: Declared, node: str) -> Iterator[Problem]:
    """What the forecast is made of."""
    for name in wrong(roles) if roles["gateway"]["enabled"] else ():
        gateway = roles["gateway"]
        known = sorted({gateway["default_model"], *gateway["tasks"], *(entry["name"] for entry in gateway["models"])})
        message = "No call could name this model or task."
        yield problem("cost_expected", message, f"Write one of {', '.join(known)}.", value=name, node=node)
    for option, names in (("expected", ("calls_per_day", "tokens_in", "tokens_out")), ("machines", ("count", "usd_per_hour"))):
        for entry in roles["cost"][option]:
            bounds = {**dict.fromkeys(names, HIGHEST_USD), "cached_percent": 100, "hours_per_day": 24}
            for name, most in bounds.items():
                if not 0 <= entry.get(name, 0) <= most:
                    message = f"{entry.get('model') or entry.get('name')}: {name} must be 0 to {most}."
                    yield problem(f"cost_{option}", message, f"Correct {name}.", value=entry[name], node=node)


def _zone(name: str, node: str) -> Iterator[Problem]:
    import zoneinfo  # noqa: PLC0415 - controllers have it

    try:
        zoneinfo.ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        yield problem(
            "cost_time_zone", "There is no such time zone.", "Write one of IANA's names, such as Europe/Berlin.", value=name, node=node
        )


def _number(value: Any, most: float) -> float | None:
    try:
        number = float(value) if not isinstance(value, bool) and isinstance(value, (int, float, str)) else math.nan
    except ValueError:
        return None
    return number if 0 <= number <= most else None


def _budget(option: str, budget: Any, parts: tuple[str, ...], shares: bool, node: str, who: str = "") -> Iterator[Problem]:
    """One budget. shares: it is divided, and so has to have something."""
    known = (*AMOUNTS, *parts)
    if not isinstance(budget, dict):
        yield problem(option, f"{who}This is no budget.", "Write for example {day_usd: 5, month_usd: 100}.", value=budget, node=node)
        return
    for name, value in budget.items():
        if name not in known:
            yield problem(option, f"{who}A budget has no {name}.", f"Write some of {', '.join(known)}.", node=node)
        elif name in AMOUNTS and _number(value, HIGHEST_USD) is None:
            yield problem(option, f"{who}{name} is no amount.", "Write dollars, such as 12.50.", value=value, node=node)
        elif name in parts:
            percents = [_number(each, 100) for each in value.values()] if isinstance(value, dict) else [None]
            if None in percents:
                message = f"{who}{name} are no shares."
                yield problem(option, message, "Write percent by name, such as {search: 60, web: 40}.", value=value, node=node)
            elif (total := sum(each or 0 for each in percents)) > 100 + 1e-9:
                message = f"{who}{name} sum to {total:g} percent of one budget."
                yield problem(option, message, "Lower some: together they may have 100 at most.", value=value, node=node)
    if shares and not any(budget.get(name) is not None for name in AMOUNTS):
        yield problem(option, f"{who}There is no limit that could be shared.", "Set its day_usd or month_usd.", node=node)
