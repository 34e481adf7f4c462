# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which node is to hold which model, who fetches it from where, and what is too much. Pure.

What lies where it may, stays: a model that is loaded takes the very memory that a new plan would miss, and would be moved for nothing.
Only replicas that no node holds are given a place by the plan, and only once all nodes have told what they hold.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from . import wanted
from .placement import MIB, plan

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ..declaration import Declared

Held = dict[str, dict[str, Any]]  # model -> digest, bytes, loaded_bytes, parts


def pin(one: Mapping[str, Any]) -> str | None:
    """The digest that a model must have, as Ollama tells it."""
    return str(one["digest"]).lower().removeprefix("sha256:") if one["digest"] else None


def has(held: Mapping[str, Held], node: str, one: Mapping[str, Any]) -> bool:
    """Whether a node holds what is wished."""
    found = held.get(node, {}).get(wanted.full(one["name"]))
    return found is not None and pin(one) in (None, found["digest"])


def loaded(declared: Mapping[str, Declared], held: Mapping[str, Held]) -> dict[str, frozenset[str]]:
    """By node, the full names of wanted models that are loaded there, and so have taken their memory."""
    wishes = wanted.wanted(declared)
    return {
        node: frozenset(
            name for one in wishes if has(held, node, one) and there[name := wanted.full(one["name"])].get("loaded_bytes") is not None
        )
        for node, there in held.items()
    }


def together(answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a node's Ollamas hold, which share one store: ``{models}``, loaded where one has loaded it; ``{error}`` where none answers."""
    there = [one["models"] for one in answers if "models" in one]
    if not there:
        return dict(answers[0]) if answers else {"models": {}}
    models = {}
    for name, one in there[0].items():
        loaded = [bytes_ for other in there if (bytes_ := other.get(name, {}).get("loaded_bytes")) is not None]
        models[name] = {**one, "loaded_bytes": sum(loaded) if loaded else None}
    return {"models": models}


def assigned(
    declared: Mapping[str, Declared],
    facts: Mapping[str, Mapping[str, Any]],
    held: Mapping[str, Held],
    shown: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """``{nodes: {node: {models, get, prune}}, unplaced: [{model, why, remedy}]}``.

    `held` has the nodes of this run that have an Ollama; `facts` are those of all that have answered. `models` are the wishes that the node
    fulfils or is to, `get` the names of those that it lacks, `prune` the names of what it holds in vain and may be removed.
    """
    wishes = wanted.wanted(declared)
    places: dict[str, list[str]] = {}
    must = any(one["gpu"] == "required" and not one["nodes"] for one in wishes)
    with_gpus = {node.name for node in wanted.nodes(declared, facts) if node.gpus} if must else set()
    unplaced: list[dict[str, str]] = []
    for one in wishes:
        name = wanted.full(one["name"])
        if one["nodes"]:
            places[name] = [node for node in one["nodes"] if node in held]
        else:
            may = with_gpus if one["gpu"] == "required" else declared
            places[name] = [node for node in declared if node in may and has(held, node, one)][: one["replicas"]]
    lacking = {wanted.full(one["name"]): one["replicas"] - len(places[wanted.full(one["name"])]) for one in wishes if not one["nodes"]}
    lacking = {name: count for name, count in lacking.items() if count > 0}
    if lacking and set(facts) != set(declared):
        away = ", ".join(sorted(set(declared) - set(facts)))
        remedy = "Run without --limit and with all nodes up; or name the model's nodes in models_wanted."
        unplaced += [{"model": name, "why": f"Not placed while {away} may hold it.", "remedy": remedy} for name in lacking]
    elif lacking and not held:
        why = "No node has an Ollama that answers."
        unplaced += [
            {"model": name, "why": why, "remedy": "Set ollama_manage: install, or start the Ollama that is there."} for name in lacking
        ]
    elif lacking:
        unplaced += _planned(declared, facts, held, shown, places, lacking)
    # What the gateway calls at an Ollama is not theirs to lose, whoever has put it there: a declared endpoint may be a node's own.
    called = {
        wanted.full(entry["model"] or entry["name"])
        for roles in declared.values()
        if roles["gateway"]["enabled"]
        for entry in roles["gateway"]["models"]
        if entry["endpoint"] in {"cluster", *(each["name"] for each in roles["gateway"]["endpoints"] if each["kind"] == "ollama")}
    }
    nodes = {}
    for node, there in held.items():
        mine = [one for one in wishes if node in places[wanted.full(one["name"])]]
        vain = [name for name in there if name not in called and not any(_may_stay(one, name, node) for one in wishes)]
        nodes[node] = {
            "models": [
                {
                    "name": one["name"],
                    "insecure": one["insecure"],
                    "pin": pin(one),
                    "bytes": one["size_mib"] and one["size_mib"] * MIB,
                    "update": one["update"],
                }
                for one in mine
            ],
            "get": [one["name"] for one in mine if not has(held, node, one)],
            "prune": sorted(vain) if declared[node]["models"]["prune"] else [],
        }
    return {"nodes": nodes, "unplaced": unplaced}


def _planned(
    declared: Mapping[str, Declared],
    facts: Mapping[str, Mapping[str, Any]],
    held: Mapping[str, Held],
    shown: Mapping[str, Any] | None,
    places: dict[str, list[str]],
    lacking: Mapping[str, int],
) -> list[dict[str, str]]:
    """Give replicas that nobody holds their places; what has none is returned, with why."""
    # As the Ollamas tell it now: the facts are of before the step, which may have installed them.
    seen = {
        node: {**facts[node], "bzzz_system": {**(facts[node].get("bzzz_system") or {}), "ollama": {"models": _models(held[node])}}}
        for node in held
    }
    models, (wishes, unknown), taken = [], wanted.reckoned(declared, seen, shown), loaded(declared, held)
    for model in wishes:
        there = places[model.name]
        later = replace(model, replicas=1, digest=None, disk_bytes=0)
        # What is loaded has taken its memory already; the rest will.
        models += [replace(later, name=f"{model.name} on {node}", nodes=(node,)) for node in there if model.name not in taken[node]]
        if model.name in lacking:
            models.append(replace(model, replicas=lacking[model.name]))
    nodes = [
        replace(node, replicas=frozenset(name for name, there in places.items() if node.name in there))
        for node in wanted.nodes(declared, seen)
    ]
    found = plan(nodes, models)
    for placed in found.placed:
        if placed.model in lacking and placed.node not in places[placed.model]:
            places[placed.model].append(placed.node)
    unplaced = [
        {"model": one.model, "why": f"Fits nowhere. {one.why}", "remedy": one.remedy}
        for one in found.refused
        if one.model in lacking and not one.node
    ]
    untold = [(wanted.full(name), why, remedy) for name, why, remedy in unknown]
    return unplaced + [{"model": name, "why": why, "remedy": remedy} for name, why, remedy in untold if name in lacking]


def _models(held: Held) -> list[dict[str, Any]]:
    return [{"name": name, "digest": one["digest"], "size_mib": one["bytes"] // MIB} for name, one in held.items()]


def _may_stay(one: Mapping[str, Any], name: str, node: str) -> bool:
    return wanted.full(one["name"]) == name and (not one["nodes"] or node in one["nodes"])


def seeds(found: Mapping[str, Any], held: Mapping[str, Held]) -> dict[str, list[str]]:
    """Node -> names that it pulls, since nobody holds them yet: each by one node, by those with the fewest; the others copy from there."""
    pulls: dict[str, list[str]] = {node: [] for node in found["nodes"]}
    takers: dict[str, list[str]] = {}
    for node, mine in found["nodes"].items():
        for one in mine["models"]:
            if one["name"] in mine["get"] and not holders(one, held):
                takers.setdefault(one["name"], []).append(node)
    for name, nodes in takers.items():
        pulls[min(nodes, key=lambda node: len(pulls[node]))].append(name)
    return pulls


def holders(one: Mapping[str, Any], held: Mapping[str, Held]) -> list[str]:
    """The nodes that have a model with its digest, where one is declared."""
    there = {node: models[wanted.full(one["name"])] for node, models in held.items() if wanted.full(one["name"]) in models}
    return [node for node, seen in there.items() if one["pin"] in (None, seen["digest"])]


def serving(node: str, found: Mapping[str, Any], held: Mapping[str, Held]) -> tuple[list[str], list[str]]:
    """What a node has that others lack, and who they are."""
    names: list[str] = []
    peers: list[str] = []
    for other, mine in found["nodes"].items():
        for one in mine["models"]:
            lacks = one["name"] in mine["get"] and other not in holders(one, held)
            if other != node and lacks and node in holders(one, held):
                names.append(wanted.full(one["name"]))
                peers.append(other)
    return sorted(set(names)), sorted(set(peers))


def source(
    one: Mapping[str, Any], node: str, found: Mapping[str, Any], held: Mapping[str, Held], serves: Mapping[str, Iterable[str]]
) -> str | None:
    """From which node this one copies: takers are spread over those that serve the model."""
    there = sorted(other for other in holders(one, held) if wanted.full(one["name"]) in serves.get(other, ()))
    takers = sorted(other for other, mine in found["nodes"].items() if one["name"] in mine["get"] and other not in there)
    return there[takers.index(node) % len(there)] if there and node in takers else None


def short_of(node: str, need: Mapping[str, Mapping[str, Any]], free: int, kept: int, path: str) -> str | None:
    """What is said where models do not fit on the disk; None where they do. Bytes."""
    whole = sum(one["lacking_bytes"] for one in need.values())
    room = max(free - kept, 0)
    if whole <= room:
        return None
    parts = ", ".join(f"{name} {amount(one['lacking_bytes'])}" for name, one in need.items())
    keeps = f" beside the {amount(kept)} that stay free" if kept else ""
    return (
        f"{node} lacks the disk space for its models: {amount(whole)} are needed ({parts}), and {amount(room)} are free in {path}{keeps}. "
        "Nothing was fetched or removed. Remedy: make room there, set ollama_models_path to a larger disk or resources_disk_free_min_mib "
        "to less, have what nobody wants removed (models_prune: true), or give the node fewer models."
    )


def amount(size: int) -> str:
    """Bytes as people read them."""
    for unit, words in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size / unit:.1f} {words}"
    return f"{size} bytes"
