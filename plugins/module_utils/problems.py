# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Problems of a declaration: what is wrong, where, and how to put it right."""

from __future__ import annotations

import difflib
import json
from typing import TYPE_CHECKING, Any, Literal, Optional, TypedDict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Severity = Literal["error", "warning"]


class Problem(TypedDict):
    """One finding. `option` is the inventory variable to change; `value` is None for secrets and where nothing was set.

    `node` is a node's name, several joined by ", ", or None where the whole cluster is meant.
    """

    severity: Severity
    option: str
    value: Any
    node: Optional[str]
    message: str
    remedy: str


def problem(option: str, message: str, remedy: str, *, value: Any = None, node: str | None = None, severity: Severity = "error") -> Problem:
    """A problem; an error unless told otherwise."""
    return {"severity": severity, "option": option, "value": value, "node": node, "message": message, "remedy": remedy}


def errors(problems: Iterable[Problem]) -> list[Problem]:
    """Those that forbid to go on."""
    return [found for found in problems if found["severity"] == "error"]


def merged(problems: Iterable[Problem], nodes: Sequence[str]) -> list[Problem]:
    """The same finding on several nodes told once, errors first: what a group variable says goes wrong on every node alike."""
    where: dict[str, tuple[Problem, list[str]]] = {}
    for found in problems:
        key = json.dumps({**found, "node": None}, sort_keys=True, default=str)
        on = where.setdefault(key, (found.copy(), []))[1]
        if found["node"] is not None and found["node"] not in on:
            on.append(found["node"])
    result: list[Problem] = []
    for found, on in where.values():
        everywhere = len(nodes) > 1 and set(on) == set(nodes)
        found["node"] = None if everywhere or not on else ", ".join(on)
        result.append(found)
    return sorted(result, key=lambda found: found["severity"] != "error")


def readable(problems: Sequence[Problem]) -> str:
    """One line per problem, for people."""
    return "\n".join(
        f"{found['severity']}: {found['option']}{_shown(found['value'])}{' (' + found['node'] + ')' if found['node'] else ''}: "
        f"{found['message']} Remedy: {found['remedy']}"
        for found in problems
    )


def _shown(value: Any) -> str:
    return "" if value is None else " = " + json.dumps(value, ensure_ascii=False, default=str)


def nearest(word: str, words: Iterable[str], cutoff: float = 0.7) -> str | None:
    """The word most like this one, or None where none is like it."""
    found = difflib.get_close_matches(word, list(words), n=1, cutoff=cutoff)
    return found[0] if found else None


def by_node(values: Mapping[str, Any]) -> str:
    """`n1 10.0.0.0/24, n2 10.0.1.0/24` for messages that compare nodes."""
    return ", ".join(f"{node} {value}" for node, value in values.items())
