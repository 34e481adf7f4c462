# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From declaration and facts to a plan, and what of it is told. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from ..node.gguf import Geometry, GgufError, from_ollama
from ..node.models import short
from ..rules.resources import mount_of
from .placement import CACHE_TYPES, MIB, Model, Node, Plan, model_of, node_of, plan

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..declaration import Declared

# What Ollama is set to give each model -> the wish that it follows where it is not declared, and what it is where nothing is wanted.
SERVED = {"context_length": ("context", 4096), "num_parallel": ("parallel", 1)}
# Where the models lie: of the cluster's own Ollama, and of one that Ollama's installer has made.
OWN_PATH, FOREIGN_PATH = "/var/lib/bzzz-ollama/models", "/usr/share/ollama/.ollama/models"


@dataclass(frozen=True)
class Outlook:
    """A plan, what it was made of, and the models of which too little is known: name, why, and what to do."""

    plan: Plan
    nodes: tuple[Node, ...]
    models: tuple[Model, ...]
    unknown: tuple[tuple[str, str, str], ...]


def full(name: str) -> str:
    """A name by which models are told apart, with its tag."""
    return short(name)


def wanted(declared: Mapping[str, Declared]) -> list[dict[str, Any]]:
    """The models that the cluster wants; the same on every node."""
    return next((roles["models"]["wanted"] for roles in declared.values()), [])


def served(ollama: Mapping[str, Any], wishes: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """What the cluster's own Ollama is set to give each model: what is declared, else the most that a model wishes.

    Left to itself, it would take up to 256k tokens where the GPUs are large.
    """
    wishes = list(wishes)
    return {option: ollama[option] or max((one[wish] for one in wishes), default=otherwise) for option, (wish, otherwise) in SERVED.items()}


def disk(roles: Declared, seen: Mapping[str, Any]) -> tuple[str, int]:
    """Where a node's models lie, and how much of it may be used, in MiB."""
    path = roles["ollama"]["models_path"] or (OWN_PATH if roles["ollama"]["manage"] == "install" else FOREIGN_PATH)
    mount = mount_of(path, (seen.get("bzzz_system") or {}).get("mounts") or []) or {}
    return path, max((mount.get("available_mib") or 0) - roles["resources"]["disk_free_min_mib"], 0)


def outlook(
    declared: Mapping[str, Declared],
    facts: Mapping[str, Mapping[str, Any]],
    shown: Mapping[str, Any] | None = None,
    loaded: Mapping[str, Iterable[str]] | None = None,
) -> Outlook:
    """The plan for the nodes whose facts are known. The declaration has passed `rules.models.literal`.

    `shown`: by full name, what Ollama's /api/show tells of a model that it holds, or a registry of one that nobody does: that with its
    `size` in bytes, or with an `error`. `loaded`: by node, the full names of models that have taken their memory there.
    """
    found, (models, unknown) = nodes(declared, facts, loaded), reckoned(declared, facts, shown)
    return Outlook(plan(found, models), tuple(found), tuple(models), tuple(unknown))


def nodes(
    declared: Mapping[str, Declared], facts: Mapping[str, Mapping[str, Any]], loaded: Mapping[str, Iterable[str]] | None = None
) -> list[Node]:
    """What of each node may be given away."""
    found: list[Node] = []
    for name, seen in facts.items():
        options, ollama = declared[name]["models"], declared[name]["ollama"]
        own = ollama["manage"] == "install"  # what is declared of it has no effect on another
        found.append(
            node_of(
                name,
                seen,
                disk_mib=disk(declared[name], seen)[1],
                vram_reserve_mib=max(options["vram_reserve_mib"], ollama["gpu_overhead_mib"] if own else 0),
                ram_reserve_mib=options["ram_reserve_mib"],
                # Of several instances it is not known which one loads a model.
                ram_max_mib=ollama["memory_max_mib"] if own else 0,
                present=[key for one in _there(seen) for key in (full(one["name"]), one.get("digest")) if key],
                loaded=(loaded or {}).get(name, ()),
                apart=own and ollama["instances"] == "per_gpu",
            )
        )
    return found


def _there(seen: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The models that a node's Ollama holds, by its facts."""
    return [one for one in ((seen.get("bzzz_system") or {}).get("ollama") or {}).get("models") or [] if one.get("name")]


def reckoned(
    declared: Mapping[str, Declared], facts: Mapping[str, Mapping[str, Any]], shown: Mapping[str, Any] | None = None
) -> tuple[list[Model], list[tuple[str, str, str]]]:
    """The models that are wanted on these nodes, and those that cannot be planned; see `outlook`."""
    held = {full(one["name"]): one for seen in facts.values() for one in _there(seen)}
    # Where nodes differ, as for the one that needs most: a place is not known before.
    ollamas = [roles["ollama"] for roles in declared.values()]
    own = [one for one in ollamas if one["manage"] == "install"]
    gives = [*(served(one, wanted(declared)) for one in own), *ollamas]
    least = {option: max((one[option] for one in gives), default=0) for option in SERVED}
    # Another Ollama than the cluster's own has f16, as far as is known.
    flash = len(own) == len(ollamas) and all(one["flash_attention"] for one in own)
    caches = {one["kv_cache_type"] for one in own if one["flash_attention"]}
    cache_type = next((one for one in CACHE_TYPES if one in caches), "f16") if flash else "f16"
    models: list[Model] = []
    unknown: list[tuple[str, str, str]] = []
    for one in wanted(declared):
        name, show = full(one["name"]), (shown or {}).get(full(one["name"]))
        away = [node for node in one["nodes"] or () if node not in facts]
        if away:
            why = f"Nothing was asked of {', '.join(away)}, so it is not planned there."
            unknown.append((one["name"], why, "Run without --limit, with all nodes up."))
            one = {**one, "nodes": [node for node in one["nodes"] if node in facts]}  # noqa: PLW2901
            if not one["nodes"]:
                continue
        try:
            geometry = _geometry(one, held.get(name) or {}, show)
        except GgufError as error:
            remedy = f"Set size_mib and geometry of {one['name']} in models_wanted; docs/models.md says where to look."
            unknown.append((one["name"], str(error), remedy))
        else:
            # What its own file says comes before what the server gives.
            context = (show.get("num_ctx") if isinstance(show, dict) else None) or least["context_length"]
            parallel = max(one["parallel"], least["num_parallel"])
            models.append(
                _model(one, geometry, context=max(one["context"], context), parallel=parallel, cache_type=cache_type, flash=flash)
            )
    return models, unknown


def _geometry(one: Mapping[str, Any], held: Mapping[str, Any], show: Any) -> Geometry:
    """What is told comes first, then what an Ollama knows."""
    size: int | None = one["size_mib"] or held.get("size_mib")
    told, digest = one["geometry"], one["digest"] and one["digest"].removeprefix("sha256:").lower()
    if not told and not held and isinstance(show, dict) and "size" in show:
        return replace(from_ollama(show, show), digest=digest)
    if size and not told and isinstance(show, dict):
        # The facts have whole MiB, rounded down.
        return replace(from_ollama(show, {"size": (size if one["size_mib"] else size + 1) * MIB}), digest=digest)
    lacks = [option for option, there in (("size_mib", size), ("geometry", told)) if not there]
    if not size or not told:
        why = f" Its registry: {show['error']}." if isinstance(show, dict) and show.get("error") else ""
        raise GgufError(f"Nothing tells its {' and '.join(lacks)}, so it is not planned.{why}")
    head = told["head_length"] or max(told["embedding"] // told["heads"], 1)
    return Geometry(
        architecture="",
        weights_bytes=size * MIB,
        file_bytes=size * MIB,
        block_count=told["layers"],
        context_length=None,
        embedding_length=told["embedding"],
        head_count=told["heads"],
        head_count_kv=(told["heads_kv"],) * told["layers"],
        key_length=head,
        value_length=head,
        vocabulary=told["vocabulary"],
        digest=digest,
    )


def _model(one: Mapping[str, Any], geometry: Geometry, **given: Any) -> Model:
    return model_of(
        full(one["name"]),
        geometry,
        overhead=None if one["overhead_mib"] is None else one["overhead_mib"] * MIB,
        nodes=tuple(one["nodes"] or ()),
        **given,
        **{wish: one[wish] for wish in ("replicas", "gpu", "split", "priority")},
    )


def told(found: Outlook, declared: Mapping[str, Declared], facts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The plan as plain data, with what each GPU's and node's memory and disk are given to."""
    models = {model.name: model for model in found.models}
    rooms: dict[str, Any] = {}
    for node in found.nodes:
        seen, here = facts[node.name], [placed for placed in found.plan.placed if placed.node == node.name]
        devices = {device.get("uuid"): device for device in (seen.get("bzzz_gpu") or {}).get("devices") or []}
        gpus = []
        for gpu in node.gpus:
            total = devices[gpu.uuid]["memory_total_mib"] * MIB
            shares = [(placed.model, share) for placed in here for share in placed.shares if share.uuid == gpu.uuid]
            parts = {
                part: sum(getattr(share, part) for _model, share in shares) for part in ("weights_bytes", "cache_bytes", "overhead_bytes")
            }
            gpus.append(
                {"uuid": gpu.uuid, "name": gpu.name, "models": [model for model, _share in shares], **_parts(total, gpu.free_bytes, parts)}
            )
        inside = [models[placed.model] for placed in here if placed.ram_bytes]
        total = ((seen.get("bzzz_system") or {}).get("memory") or {}).get("total_mib") or 0
        parts = {part: sum(getattr(model, part) for model in inside) for part in ("weights_bytes", "cache_bytes", "overhead_bytes")}
        memory = {"models": [model.name for model in inside], **_parts(total * MIB, node.ram_bytes, parts)}
        taken = sum(placed.disk_bytes for placed in here)
        room = {"path": disk(declared[node.name], seen)[0], "taken_bytes": taken, "free_bytes": node.disk_bytes - taken}
        rooms[node.name] = {"gpus": gpus, "memory": memory, "disk": room, "left_out": list(node.left_out)}
    return {
        "nodes": rooms,
        "placed": [asdict(placed) for placed in found.plan.placed],
        "refused": [asdict(refused) for refused in found.plan.refused],
        "unknown": [{"model": name, "why": why, "remedy": remedy} for name, why, remedy in found.unknown],
    }


def _parts(total: int, given: int, parts: dict[str, int]) -> dict[str, int]:
    """Who has what of `total`, of which `given` may be given away."""
    return {"total_bytes": total, **parts, "reserved_bytes": max(total - given, 0), "free_bytes": given - sum(parts.values())}
