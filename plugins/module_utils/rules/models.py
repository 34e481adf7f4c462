# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Models: names as Ollama has them, nodes that exist, figures that can be, and places for them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ..models import wanted as wishes
from ..problems import Problem, nearest, problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..cluster import Cluster
    from ..declaration import Declared

# Host with port, namespace, model, tag.
NAME = re.compile(r"([A-Za-z0-9][\w.-]*(:[0-9]+)?/)?([A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*(:[A-Za-z0-9_][\w.-]*)?", re.ASCII)
DIGEST = re.compile(r"(sha256:)?[0-9a-f]{64}", re.IGNORECASE)
OPTION = "models_wanted"
# So many nodes are all told, where one is named that is none.
FEW = 8
# Calendar events as systemd.time(7) has them, which go into a unit: days of the week, a date, a time, a zone. The node's systemd has the
# last word.
_WORDS = "minutely|hourly|daily|weekly|monthly|quarterly|semiannually|annually|yearly"
_DAY = "(?:mon(?:day)?|tue(?:s(?:day)?)?|wed(?:nesday)?|thu(?:r(?:s(?:day)?)?)?|fri(?:day)?|sat(?:urday)?|sun(?:day)?)"
_DAYS = rf"{_DAY}(?:(?:,|\.\.){_DAY})*"


def _some(one: str) -> str:
    return (part := rf"(?:\*|{one}(?:\.\.{one})?)(?:/[0-9]{{1,4}})?") + f"(?:,{part})*"


_NUMBERS = _some("[0-9]{1,4}")
_DATE = f"(?:{_NUMBERS}-)?{_NUMBERS}[-~]{_NUMBERS}"
_TIME = f"{_some('(?:[01]?[0-9]|2[0-3])')}:{_some('[0-5]?[0-9]')}(?::{_some('[0-5]?[0-9]')})?"
CALENDAR = re.compile(
    rf"(?:{_WORDS}|{_DAYS}|(?:{_DAYS} )?{_DATE}(?: {_TIME})?|(?:{_DAYS} )?{_TIME})(?: [a-z_]+(?:/[a-z_+0-9-]+)*)?", re.IGNORECASE | re.ASCII
)
# Entry -> least, greatest. Greater ones are slips, and would keep the planner busy for long.
BOUNDS = {"replicas": (1, 1000), "context": (1, 1 << 24), "parallel": (1, 1024), "size_mib": (1, 1 << 30), "overhead_mib": (0, 1 << 20)}
GEOMETRY = {
    "layers": (1, 4096),
    "embedding": (1, 1 << 20),
    "heads": (1, 1 << 16),
    "heads_kv": (0, 1 << 16),
    "head_length": (1, 1 << 16),
    "vocabulary": (0, 1 << 24),
}


def literal(declared: Mapping[str, Declared], cluster: Cluster) -> Iterator[Problem]:
    """Names and digests that are none, nodes that do not exist, figures that cannot be."""
    nodes = [node["name"] for node in cluster["nodes"]]
    placement = {roles["models"]["placement"] for roles in declared.values()}
    seen: dict[str, str] = {}
    for place, one in enumerate(wishes.wanted(declared), 1):
        name = one["name"]
        if not NAME.fullmatch(name):
            message = f"Entry {place}: {name!r} is no name of a model."
            yield problem(OPTION, message, "Write it as Ollama does, for example qwen3:8b.", value=name)
        if one["digest"] and not DIGEST.fullmatch(one["digest"]):
            remedy = "Write all 64 hexadecimal digits; /api/tags tells them, ollama list only the first."
            yield problem(OPTION, f"{name}: its digest is no SHA-256 checksum.", remedy, value=one["digest"])
        if one["digest"] and one["update"] == "schedule":
            message = f"{name}: its digest is declared, and it is to be pulled anew on a schedule."
            yield problem(OPTION, message, "Remove digest, or set update: manual.", value=name)
        for key in (wishes.full(name), (one["digest"] or "").lower().removeprefix("sha256:")):
            if key and key in seen:
                message = f"{name} is in the list already" + ("." if seen[key] == name else f", as {seen[key]}.")
                yield problem(OPTION, message, "Remove one of the two; nodes or replicas say how many there are to be.", value=name)
                break
            seen[key] = name
        yield from _places(one, nodes, "declared" in placement)
        told = one["geometry"] or {}
        for entry, (least, most) in (*BOUNDS.items(), *GEOMETRY.items()):
            value = told.get(entry) if entry in GEOMETRY else one[entry]
            if value is not None and not least <= value <= most:
                message = f"{name}: {'geometry.' if entry in GEOMETRY else ''}{entry} must be {least} to {most}."
                yield problem(OPTION, message, f"Set {entry} to the right number, or remove it.", value=value)
        if told and 0 < told["heads"] < told["heads_kv"]:
            message = f"{name}: geometry.heads_kv is more than geometry.heads, {told['heads']}."
            yield problem(OPTION, message, "Correct the two: heads share keys and values.", value=told["heads_kv"])

    for node, roles in declared.items():
        schedule = roles["models"]["update_schedule"]
        if not CALENDAR.fullmatch(schedule):
            message = "This is no time of systemd's, by whose timers models are updated."
            remedy = "Write for example daily, Sun 03:00 or *-*-01 04:30; 'systemd-analyze calendar' tells when that is."
            yield problem("models_update_schedule", message, remedy, value=schedule, node=node)


def _places(one: Mapping[str, Any], nodes: list[str], must: bool) -> Iterator[Problem]:
    name = one["name"]
    for node in one["nodes"] or ():
        if node not in nodes:
            # Names such as gpu1 are all near each other.
            like = nearest(node, nodes) if len(nodes) > FEW else " or ".join(nodes)
            remedy = f"Write {like}." if like else "Name nodes of group bzzz, as the inventory does."
            yield problem(OPTION, f"{name}: there is no node {node}.", remedy, value=node)
    if one["nodes"] and one["replicas"] != 1:
        message = f"{name}: it names its nodes, one replica on each, and a number of replicas as well."
        yield problem(OPTION, message, "Remove nodes or replicas.", value=one["replicas"])
    if must and not one["nodes"]:
        message = f"{name}: it names no nodes, and models_placement is declared."
        yield problem(OPTION, message, "Name its nodes, or set models_placement: planned.", value=name)


def effective(declared: Mapping[str, Declared], cluster: Cluster, facts: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    """What others' Ollamas would lose; what fits nowhere, once all nodes have answered: on fewer of them, less would fit.

    Warnings: it may be pulled and loaded already, and take the very memory that is missing here. Of models of which the facts tell too
    little, the plan and step 4 ask Ollamas and registries.
    """
    for node, seen in facts.items():
        roles = declared[node]
        if roles["models"]["prune"] and roles["ollama"]["manage"] == "adopt" and (seen.get("bzzz_system") or {}).get("ollama"):
            message = "The Ollama that is on this node is used as it is, and yet loses the models that nobody wants here."
            remedy = "Name in models_wanted what it is to keep, or set models_prune: false for this node."
            yield problem("models_prune", message, remedy, value=True, node=node, severity="warning")
    if not wishes.wanted(declared) or set(facts) != set(declared) or any(True for _each in literal(declared, cluster)):
        return
    found = wishes.outlook(declared, facts)
    for refused in found.plan.refused:
        where = f" on {refused.node}" if refused.node else ""
        message = f"{refused.model} (replica {refused.replica}) fits nowhere{where}: {refused.why}"
        yield problem(OPTION, message, refused.remedy, value=refused.model, severity="warning")
