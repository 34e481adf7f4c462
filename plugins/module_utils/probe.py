# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The controller's side of a probe: what an entry may say, and what the node's outcomes mean.

An **entry** is ``{id, title, requirement, remedy, severity, within, <kind>: {...}}`` with exactly one kind, already templated.
A **check** is ``{id, requirement, role, node, title, status: pass|warn|fail|skip, seen, expected, remedy, data}``.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable
from typing import Any, Callable

from .node import egress, in_force, listening, model_server, peers, probes, web

KINDS: dict[str, tuple[str, Callable[..., Any]]] = {
    kind: (module.__name__.rpartition(".")[2], function)
    for module in (probes, listening, web, peers, in_force, egress, model_server)
    for kind, function in module.KINDS.items()
}
# `when`, `skip` and `loop` are the action's: they are gone once an entry has been templated.
ENTRY_KEYS = ("id", "title", "requirement", "remedy", "severity", "within", "when", "skip", "loop")
# About the machine itself, not about what a role brings there: these are judged in check mode as well.
OF_THE_MACHINE = frozenset({"value", "disk_free", "peers", "clock"})
_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "str": ((str,), "a string (numbers in quotes)"),
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "bool": ((bool,), "true or false"),
    "list": ((list, tuple), "a list"),
    "dict": ((dict,), "a mapping"),
}
_CHOICES = {
    ("file", "state"): ("file", "directory", "link", "absent"),
    ("listener", "protocol"): ("tcp", "udp"),
    ("user", "sudo"): ("none", "password", "commands", "passwordless"),
    ("reach", "state"): ("open", "closed", "blocked"),
    ("tls", "min_version"): tuple(web.VERSIONS),
    ("model_server", "api"): tuple(model_server.LISTS),
}
_PRIVATE = ("headers", "content")  # may hold a secret, so never quoted


class Refused(Exception):
    """An entry that can't be meant; the message names role, entry, key and the nearest right one."""


def nearest(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?``, or all that there is."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, 1, 0.6)
    return f"; did you mean '{close[0]}'?" if close else f"; there are: {', '.join(known)}"


def understand(role: str, entry: Any) -> dict[str, Any]:
    """A templated entry -> ``{id, role, title, requirement, remedy, severity, within, kind, module, args}``. Raises Refused."""
    name = entry.get("id", "(no id)") if isinstance(entry, dict) else "(no id)"
    where = f"role {role or '-'}, probe {name}"
    if not isinstance(entry, dict):
        raise Refused(f"{where}: an entry is a mapping")
    for key in entry:
        if key not in ENTRY_KEYS and key not in KINDS:
            raise Refused(f"{where}: unknown key '{key}'{nearest(str(key), [*ENTRY_KEYS, *KINDS])}")
    kinds = [key for key in entry if key in KINDS]
    if len(kinds) != 1:
        raise Refused(f"{where}: exactly one kind of probe belongs into an entry, not {', '.join(kinds) or 'none'}{nearest('', KINDS)}")
    for key in ("id", "title", "remedy"):
        if not entry.get(key) or not isinstance(entry[key], str):
            raise Refused(f"{where}: '{key}' is missing or not a string")
    severity = entry.get("severity", "fail")
    if severity not in ("fail", "warn"):
        raise Refused(f"{where}: 'severity' is fail or warn, not {severity!r}")
    within = entry.get("within", 0)
    if isinstance(within, bool) or not isinstance(within, (int, float)) or not 0 <= within <= probes.LONGEST_SECONDS:
        raise Refused(f"{where}: 'within' is a number of seconds up to {probes.LONGEST_SECONDS:g}, not {within!r}")
    requirement = entry.get("requirement") or []
    return {
        "id": entry["id"],
        "role": role,
        "title": entry["title"],
        "requirement": ", ".join(map(str, requirement if isinstance(requirement, list) else [requirement])),
        "remedy": entry["remedy"],
        "severity": severity,
        "within": within,
        "kind": kinds[0],
        "module": KINDS[kinds[0]][0],
        "args": _arguments(where, kinds[0], entry[kinds[0]]),
    }


def _arguments(where: str, kind: str, given: Any) -> dict[str, Any]:
    """What the kind's function is to be called with; anything but a mapping is its first parameter."""
    parameters = [one for one in inspect.signature(KINDS[kind][1]).parameters.values() if one.kind is not one.POSITIONAL_OR_KEYWORD]
    named = {one.name: one for one in parameters if one.kind is one.KEYWORD_ONLY}
    if not isinstance(given, dict):
        given = {next(iter(named), ""): given}
    for name in given:
        if name not in named and len(named) == len(parameters):
            raise Refused(f"{where}: {kind} has no '{name}'{nearest(str(name), named)}")
    for name, parameter in named.items():
        if name not in given and parameter.default is parameter.empty:
            raise Refused(f"{where}: {kind} needs '{name}'")
        if name in given:
            _check_type(f"{where}: '{name}' of {kind}", str(parameter.annotation), given[name], name in _PRIVATE)
        choices = _CHOICES.get((kind, name))
        if choices and given.get(name) is not None and given[name] not in choices:
            raise Refused(f"{where}: '{name}' of {kind} can't be {given[name]!r}{nearest(str(given[name]), choices)}")
    return dict(given)


def _check_type(what: str, annotation: str, value: Any, private: bool) -> None:
    name = annotation.partition(" | ")[0].partition("[")[0]
    if (value is None and annotation.endswith(" | None")) or name not in _TYPES:
        return
    types, words = _TYPES[name]
    if not isinstance(value, types) or (isinstance(value, bool) and name != "bool"):
        raise Refused(f"{what} is to be {words}" + ("" if private else f", not {value!r}"))


def question(node: str, entries: list[dict[str, Any]], check_mode: bool = False) -> dict[str, Any]:
    """The payload of node program ``probes`` for understood entries. In check mode nothing is waited for: nothing is under way."""
    modules = sorted({entry["module"] for entry in entries} - {"probes"})
    asked = [
        {**{key: entry[key] for key in ("kind", "module", "args")}, "within": 0 if check_mode else entry["within"]} for entry in entries
    ]
    return {"node": node, "modules": modules, "probes": asked}


def clock_offset(asked: float, received: float, sent: float, answered: float) -> tuple[float, float]:
    """How far the node's clock is ahead of ours, and the uncertainty, in seconds (the NTP formula).

    `asked` and `answered` are by our clock, `received` and `sent` by the node's.
    """
    return ((received - asked) + (sent - answered)) / 2, max(0.0, ((answered - asked) - (sent - received)) / 2)


def judge(
    node: str,
    entries: list[dict[str, Any]],
    outcomes: list[dict[str, Any]],
    clock: tuple[float, float] | None = None,
    check_mode: bool = False,
) -> list[dict[str, Any]]:
    """One check for each understood entry. `clock` is the node's offset and its uncertainty, in seconds.

    In check mode what a role would bring is not there yet, so its absence is no failure.
    """
    checks = []
    for entry, answer in zip(entries, outcomes):
        by_clock = clock if entry["kind"] == "clock" else None
        found = _clock_outcome(by_clock, entry["args"]["max_offset_seconds"]) if by_clock else answer
        status, seen, data = found["status"], found["seen"], dict(found.get("data") or {})
        if clock and entry["kind"] == "peers":
            data["clock"] = _clock_data(clock)
        if status == "fail" and check_mode and entry["kind"] not in OF_THE_MACHINE:
            status, seen = "skip", f"not applied yet (check mode): {seen}"
        if status == "fail" and entry["severity"] == "warn":
            status = "warn"
        checks.append(
            {
                **{key: entry[key] for key in ("id", "requirement", "role", "title")},
                "node": node,
                "status": status,
                "seen": seen,
                "expected": found["expected"],
                "remedy": _remedy(entry["remedy"], found.get("about") or []),
                "data": data,
            }
        )
    return checks


def _remedy(remedy: str, about: list[dict[str, Any]]) -> str:
    """The remedy, once for each of what it is about where it has ``<placeholders>`` for that."""
    filled = []
    for one in about:
        text = remedy
        for key, value in one.items():
            text = text.replace(f"<{key}>", str(value))
        filled.append(text)
    return "; ".join(dict.fromkeys(filled)) or remedy


def _clock_data(clock: tuple[float, float]) -> dict[str, float]:
    return {"offset_seconds": round(clock[0], 4), "uncertainty_seconds": round(clock[1], 4)}


def _clock_outcome(clock: tuple[float, float], most: float) -> dict[str, Any]:
    """Fails only where the offset is surely too large; where the exchange took too long to tell, that is a warning."""
    offset, doubt = abs(clock[0]), clock[1]
    status = "fail" if offset - doubt > most else "warn" if offset + doubt > most else "pass"
    direction = "ahead of" if clock[0] > 0 else "behind"
    seen = f"{offset:.3f} s {direction} the controller, give or take {doubt:.3f} s"
    return {"status": status, "seen": seen, "expected": f"at most {most:g} s apart", "data": {"clock": _clock_data(clock)}}


def matrix(checks: Iterable[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """All nodes' checks of kinds `peers`, `reach` and `clock` -> ``{node: {peer: {...}}}``.

    A cell has ``reachable, latency_ms, sent, lost`` (echoes; connections where echoes are not answered), ``mtu`` (of the way, as the
    node's kernel knows it), ``mtu_arrives`` (largest echo that was answered), ``interface, interface_mtu, resolves, why``, ``ports``
    (port -> state) and, where both clocks are known, ``clock_offset_seconds`` (how far the peer's is ahead of the node's) with
    ``clock_uncertainty_seconds``.
    """
    cells: dict[str, dict[str, dict[str, Any]]] = {}
    clocks: dict[str, dict[str, float]] = {}
    for check in checks:
        data = check.get("data") or {}
        if "clock" in data:
            clocks[check["node"]] = data["clock"]
        for row in data.get("rows", ()):
            cell = cells.setdefault(check["node"], {}).setdefault(row["peer"], {"ports": {}})
            if "port" in row:
                cell["ports"][row["port"]] = row["state"]
            else:
                cell.update({key: value for key, value in row.items() if key != "peer"})
    for node, offsets in clock_offsets(clocks).items():
        for peer, found in offsets.items():
            if peer in cells.get(node, {}):
                cells[node][peer].update(found)
    return cells


def clock_offsets(clocks: dict[str, dict[str, float]]) -> dict[str, dict[str, dict[str, float]]]:
    """Each node's offset to the controller -> each node's to each other: ``{node: {peer: {clock_offset_seconds, ...}}}``."""
    return {
        node: {
            peer: {
                "clock_offset_seconds": round(theirs["offset_seconds"] - mine["offset_seconds"], 4),
                "clock_uncertainty_seconds": round(theirs["uncertainty_seconds"] + mine["uncertainty_seconds"], 4),
            }
            for peer, theirs in clocks.items()
            if peer != node
        }
        for node, mine in clocks.items()
    }


def clocks_apart(cells: dict[str, dict[str, dict[str, Any]]], most: float) -> list[str]:
    """Pairs of nodes whose clocks are surely more than `most` seconds apart, each pair once, in words."""
    pairs = {}
    for node, row in cells.items():
        for peer, cell in row.items():
            offset = cell.get("clock_offset_seconds")
            if offset is not None and abs(offset) - cell["clock_uncertainty_seconds"] > most:
                first, second = sorted((node, peer))
                pairs[first, second] = f"{first} and {second} are {abs(offset):.3f} s apart"
    return [pairs[pair] for pair in sorted(pairs)]


def carried(cell: dict[str, Any]) -> int | None:
    """The size in bytes up to which packets get to the peer and back, as far as is known."""
    mtu, arrives = cell.get("mtu"), cell.get("mtu_arrives")
    # Of a narrower way that its kernel has been told about it sends nothing larger.
    silent = isinstance(mtu, int) and isinstance(arrives, int) and mtu == cell.get("interface_mtu") and arrives < mtu
    return arrives if silent else mtu


def mtus_differ(cells: dict[str, dict[str, dict[str, Any]]]) -> list[str]:
    """Pairs of nodes one of which sends larger packets than the other or than arrive, each pair once, in words."""
    found = []
    for node, row in sorted(cells.items()):
        for peer, cell in sorted(row.items()):
            other = cells.get(peer, {}).get(node, {})
            there, back = cell.get("mtu"), other.get("mtu")
            if node >= peer and other:
                continue
            if there and back and there != back:
                found.append(f"{node} sends {peer} packets of up to {there} bytes, {peer} sends {node} up to {back}")
            elif there and (least := min(filter(None, (carried(cell), carried(other))))) < there:
                found.append(f"{node} and {peer} send each other packets of up to {there} bytes, of which those over {least} are lost")
    return found


def summary(node: str, checks: list[dict[str, Any]]) -> str:
    """What a person reads first: how many hold, and of those that don't what was seen and what to do."""
    count = {status: sum(check["status"] == status for check in checks) for status in ("pass", "warn", "fail", "skip")}
    lines = [f"{node}: " + (", ".join(f"{number} {status}" for status, number in count.items() if number) or "nothing to check")]
    for check in checks:
        if check["status"] in ("fail", "warn"):
            requirement = f" [{check['requirement']}]" if check["requirement"] else ""
            expected = f" (expected {check['expected']})" if check["expected"] else ""
            lines.append(f"- {check['status']} {check['role']}/{check['id']}{requirement} {check['title']}: {check['seen']}{expected}")
            lines.append(f"  Remedy: {check['remedy']}")
    return "\n".join(lines)
