# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where models go: weights + KV cache + overhead against free VRAM, memory and disk. Pure; docs/models.md has the formulas and guarantees.

Replicas are placed one after the other: higher priority first, then those whose nodes are declared, then the larger ones. Each goes
where it fits best, whole on one GPU before over several of a node, and on GPUs before in memory; one that fits nowhere is refused, and
those after it go on.
"""

from __future__ import annotations

import bisect
import functools
import itertools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ..node.gguf import Geometry

MIB = 1 << 20
BATCH = 512  # tokens that are computed at once: Ollama's and llama.cpp's default
GPU_PROCESS = 457 * MIB  # a loaded model is a process, with a context on each of its GPUs; Ollama's least (ml/device.go, MinimumMemory)
PADDING = 256  # llama.cpp rounds a cache's cells up to this
# Cache type -> elements of a block, bytes of a block: ggml's types.
CACHE_TYPES = {"f16": (1, 2), "q8_0": (32, 34), "q4_0": (32, 18)}


@dataclass(frozen=True)
class Gpu:
    """A GPU, and what of its memory may be given away."""

    uuid: str
    free_bytes: int
    name: str = ""
    vendor: str = ""  # no model lies on GPUs of two


@dataclass(frozen=True)
class Node:
    """A node, and what of it may be given away. `left_out`: GPUs that are there and not used, each with the reason."""

    name: str
    ram_bytes: int
    disk_bytes: int
    gpus: tuple[Gpu, ...] = ()
    present: frozenset[str] = frozenset()  # digests or names of models whose files are on its disk
    left_out: tuple[str, ...] = ()
    replicas: frozenset[str] = frozenset()  # names of models of which it has one already, beside those that are to be placed
    loaded: frozenset[str] = frozenset()  # names of models that have taken their memory here
    apart: bool = False  # whether each GPU has an Ollama of its own, so that no model can lie on two


@dataclass(frozen=True)
class Model:
    """A model and what is wished of it. Layers are what may lie on different GPUs; `rest_bytes` stays together, on the last one."""

    name: str
    layer_weights: tuple[int, ...]
    layer_cache: tuple[int, ...]
    rest_bytes: int = 0
    overhead_bytes: int = 0  # in memory, or on each GPU that takes part
    disk_bytes: int = 0
    digest: str | None = None
    nodes: tuple[str, ...] = ()  # one replica on each; when empty, `replicas` wherever they fit
    replicas: int = 1
    gpu: str = "preferred"  # required, preferred, never
    split: bool = True
    priority: int = 0
    process_bytes: int = 0  # on each GPU beside the overhead

    def __post_init__(self) -> None:
        """Each layer has weights and a cache."""
        if len(self.layer_weights) != len(self.layer_cache):
            raise ValueError(f"{self.name}: {len(self.layer_weights)} layers of weights, but {len(self.layer_cache)} of cache.")
        if min((*self.layer_weights, *self.layer_cache, self.rest_bytes, self.overhead_bytes, self.process_bytes, self.disk_bytes)) < 0:
            raise ValueError(f"{self.name}: no size may be less than 0.")
        if self.gpu not in ("required", "preferred", "never"):
            raise ValueError(f"{self.name}: gpu is {self.gpu!r}; required, preferred or never is wanted.")

    @functools.cached_property
    def weights_bytes(self) -> int:
        """All of its weights."""
        return sum(self.layer_weights) + self.rest_bytes

    @functools.cached_property
    def cache_bytes(self) -> int:
        """All of its KV cache."""
        return sum(self.layer_cache)

    @functools.cached_property
    def whole_bytes(self) -> int:
        """What it takes in memory."""
        return self.weights_bytes + self.cache_bytes + self.overhead_bytes

    @functools.cached_property
    def gpu_bytes(self) -> int:
        """What it takes on one GPU."""
        return self.whole_bytes + self.process_bytes

    @functools.cached_property
    def sums(self) -> tuple[int, ...]:
        """What the first layers take, by their number; the rest is with the last."""
        sizes = [weights + cache for weights, cache in zip(self.layer_weights, self.layer_cache, strict=True)]
        if sizes:
            sizes[-1] += self.rest_bytes
        return tuple(itertools.accumulate(sizes, initial=0))

    @functools.cached_property
    def key(self) -> str:
        """What its files are known by."""
        return self.digest or self.name


@dataclass(frozen=True)
class Share:
    """What a replica takes of one GPU."""

    uuid: str
    layers: int
    weights_bytes: int
    cache_bytes: int
    overhead_bytes: int
    free_bytes: int  # before it came

    @property
    def bytes(self) -> int:
        """All of it."""
        return self.weights_bytes + self.cache_bytes + self.overhead_bytes


@dataclass(frozen=True)
class Placed:
    """A replica that has a place; without shares it is in memory and takes `ram_bytes` of it, or nothing, since it is loaded already."""

    model: str
    replica: int
    node: str
    shares: tuple[Share, ...]
    ram_bytes: int
    disk_bytes: int  # 0 where its files are there already
    why: str


@dataclass(frozen=True)
class Refused:
    """A replica that fits nowhere; `node` where one was declared."""

    model: str
    replica: int
    node: str | None
    why: str
    remedy: str


@dataclass(frozen=True)
class Plan:
    """All decisions, by model and replica."""

    placed: tuple[Placed, ...]
    refused: tuple[Refused, ...]


def cache_bytes(geometry: Geometry, context: int, parallel: int = 1, cache_type: str = "f16") -> tuple[int, ...]:
    """The KV cache of each layer, or what a recurrent one keeps instead. Where flash attention cannot be, Ollama keeps f16."""
    block, size = CACHE_TYPES[cache_type if geometry.flash else "f16"]
    cells = _up(context * parallel, PADDING)
    near = min(cells, _up((geometry.sliding_window or cells) * parallel + BATCH, PADDING))
    sliding = geometry.sliding or (False,) * geometry.block_count

    def one(heads: int, slides: bool) -> int:
        rows = (-(-heads * length // block) * size for length in (geometry.key_length, geometry.value_length))
        return (near if slides else cells) * sum(rows) if heads else geometry.state_bytes * parallel

    return tuple(one(heads, slides) for heads, slides in zip(geometry.head_count_kv, sliding, strict=True))


def overhead_bytes(geometry: Geometry, context: int, parallel: int = 1, *, flash: bool = False) -> int:
    """Room for computing, as Ollama estimates it of the llama family; an estimate for every other."""
    embedding, tokens = geometry.embedding_length, context * parallel
    output = 4 * BATCH * (embedding + geometry.vocabulary)
    most = max(4 * BATCH * (1 + 4 * embedding + tokens * (1 + geometry.head_count)), output)
    if not (flash and geometry.flash):
        return most
    # No head's scores are kept, but the mask in f32 and f16, and of a quantized cache one layer as f16.
    return min(most, 4 * BATCH * (1 + 4 * embedding + 2 * tokens) + output + max(cache_bytes(geometry, context, parallel)))


def model_of(
    name: str,
    geometry: Geometry,
    *,
    context: int,
    parallel: int = 1,
    cache_type: str = "f16",
    flash: bool = False,
    overhead: int | None = None,
    **wishes: Any,
) -> Model:
    """A model to be placed, of its geometry. Where the weights of each layer are not known, each counts as an equal part, rounded up."""
    context = min(context, geometry.context_length or context)  # Ollama gives no model more
    layers = geometry.layer_bytes
    if not layers:
        layers = (-(-geometry.weights_bytes // geometry.block_count),) * geometry.block_count
    return Model(
        name=name,
        layer_weights=layers,
        layer_cache=cache_bytes(geometry, context, parallel, cache_type),
        rest_bytes=max(geometry.weights_bytes - sum(layers), 0),
        overhead_bytes=overhead_bytes(geometry, context, parallel, flash=flash) if overhead is None else overhead,
        process_bytes=GPU_PROCESS if overhead is None else 0,
        disk_bytes=geometry.file_bytes,
        digest=geometry.digest,
        **wishes,
    )


def node_of(
    name: str,
    facts: Mapping[str, Any],
    *,
    disk_mib: int,
    vram_reserve_mib: int = 0,
    ram_reserve_mib: int = 0,
    ram_max_mib: int = 0,
    present: Iterable[str] = (),
    loaded: Iterable[str] = (),
    apart: bool = False,
) -> Node:
    """A node of its facts `bzzz_gpu` and `bzzz_system`; `disk_mib` is what may be used where its models lie, `ram_max_mib` 0 no limit."""
    gpus: list[Gpu] = []
    left_out: list[str] = []
    for device in (facts.get("bzzz_gpu") or {}).get("devices") or []:
        key, label = device.get("uuid"), device.get("model") or "GPU"
        total, used = device.get("memory_total_mib"), device.get("memory_used_mib")
        reason = None
        if not key:
            reason = "nothing tells its UUID"
        elif total is None or used is None:
            reason = "nothing tells how much of its memory is free"
        elif (device.get("mig") or {}).get("enabled"):
            reason = "MIG is on, and MIG devices are not planned"
        elif device.get("health") == "failed":
            reason = "it has failed"
        if reason:
            left_out.append(f"{label} ({key or device.get('pci_address') or device.get('index')}): {reason}")
        else:
            gpus.append(Gpu(key, max(total - used - vram_reserve_mib, 0) * MIB, label, device.get("vendor") or ""))
    available = ((facts.get("bzzz_system") or {}).get("memory") or {}).get("available_mib") or 0
    ram = min(max(available - ram_reserve_mib, 0), ram_max_mib or available) * MIB
    disk = max(disk_mib, 0) * MIB
    return Node(name, ram, disk, tuple(gpus), frozenset(present), tuple(left_out), loaded=frozenset(loaded), apart=apart)


@dataclass(eq=False)
class _Room:
    """What is left of a node."""

    node: Node
    ram: int
    disk: int
    gpus: dict[str, int]
    present: set[str]
    holds: dict[str, int] = field(default_factory=dict)  # model -> replicas here

    # Of each vendor what is free on its GPUs, and these, those with most free first.
    orders: list[tuple[int, list[tuple[int, str]]]] = field(default_factory=list)

    def sort(self) -> None:
        """Puts the GPUs in order after a change."""
        vendors: dict[str, list[tuple[int, str]]] = {}
        for gpu in self.node.gpus:
            vendors.setdefault(gpu.vendor, []).append((-self.gpus[gpu.uuid], gpu.uuid))
        self.orders = [(-sum(free for free, _uuid in order), sorted(order)) for order in vendors.values()]

    def disk_for(self, model: Model) -> int:
        return 0 if model.key in self.present else model.disk_bytes


class _Cluster:
    """What is left of all nodes; GPUs also in order of what is free on them, and nodes by the models that are loaded there."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.rooms: dict[str, _Room] = {}
        for node in sorted(nodes, key=lambda node: node.name):
            gpus = {gpu.uuid: gpu.free_bytes for gpu in sorted(node.gpus, key=lambda gpu: gpu.uuid)}
            if node.name in self.rooms or len(gpus) != len(node.gpus):
                raise ValueError(f"Node {node.name} or one of its GPUs is named twice.")
            if min((node.ram_bytes, node.disk_bytes, *gpus.values())) < 0:
                raise ValueError(f"Node {node.name} has less than nothing free.")
            self.rooms[node.name] = _Room(node, node.ram_bytes, node.disk_bytes, gpus, set(node.present), dict.fromkeys(node.replicas, 1))
            self.rooms[node.name].sort()
        self.loaded: dict[str, list[str]] = {}
        for name, room in self.rooms.items():
            for model in room.node.loaded:
                self.loaded.setdefault(model, []).append(name)
        self.free = sorted((free, name, uuid) for name, room in self.rooms.items() for uuid, free in room.gpus.items())

    def choose(self, model: Model, among: Sequence[str]) -> tuple[_Room, list[tuple[str, int, int]] | None] | None:
        """The best place: the room, and its GPUs with the first layer and the one after the last; None for memory."""
        rooms = [self.rooms[name] for name in among if name in self.rooms]
        able = {room.node.name: room for room in rooms if model.disk_bytes <= room.disk or model.key in room.present}
        if model.gpu != "never":
            single = self._single(model, able)
            if single:
                return single
            if model.split:
                several = [(room, spread) for room in able.values() if (spread := _spread(model, room))]
                if several:
                    return min(several, key=lambda found: (*_order(model, found[0]), len(found[1]), found[0].node.name))
        if model.gpu != "required":
            fits = [room for room in able.values() if model.whole_bytes <= room.ram]
            if fits:
                return min(fits, key=lambda room: (*_order(model, room), room.ram, room.node.name)), None
        return None

    def _single(self, model: Model, able: Mapping[str, _Room]) -> tuple[_Room, list[tuple[str, int, int]]] | None:
        """The GPU on which the least is left over, on a node that has no replica yet, and its files, where there is one."""
        # They are in order of what is free, so the first of each kind of node is the best of that kind.
        best: dict[tuple[int, bool], tuple[str, str]] = {}
        known = any(model.key in room.present for room in able.values())
        for at in range(bisect.bisect_left(self.free, (model.gpu_bytes,)), len(self.free)):
            _free, name, uuid = self.free[at]
            if name in able:
                best.setdefault(_order(model, able[name]), (name, uuid))
                if (0, not known) in best:
                    break
        if not best:
            return None
        name, uuid = best[min(best)]
        return able[name], [(uuid, 0, len(model.layer_weights))]

    def has_loaded(self, model: Model) -> list[str]:
        """The nodes where it lies already as it is wished."""
        return [name for name in self.loaded.get(model.name, ()) if model.gpu != "required" or self.rooms[name].gpus]

    def take(self, model: Model, room: _Room, spread: list[tuple[str, int, int]] | None) -> tuple[Share, ...]:
        """Takes it away from what is left."""
        shares: list[Share] = []
        for uuid, first, end in spread or []:
            share = _share(model, uuid, first, end, room.gpus[uuid])
            self.free.remove((share.free_bytes, room.node.name, uuid))
            room.gpus[uuid] -= share.bytes
            bisect.insort(self.free, (room.gpus[uuid], room.node.name, uuid))
            shares.append(share)
        room.sort()
        room.ram -= model.whole_bytes if spread is None else 0
        room.disk -= room.disk_for(model)
        room.present.add(model.key)
        room.holds[model.name] = room.holds.get(model.name, 0) + 1
        return tuple(shares)


def _order(model: Model, room: _Room) -> tuple[int, bool]:
    return room.holds.get(model.name, 0), model.key not in room.present


def _share(model: Model, uuid: str, first: int, end: int, free: int) -> Share:
    rest = model.rest_bytes if end == len(model.layer_weights) else 0
    return Share(
        uuid,
        end - first,
        sum(model.layer_weights[first:end]) + rest,
        sum(model.layer_cache[first:end]),
        model.overhead_bytes + model.process_bytes,
        free,
    )


def _spread(model: Model, room: _Room) -> list[tuple[str, int, int]] | None:
    """Its layers over the fewest GPUs of a vendor; None where they do not fit so."""
    if room.node.apart:
        return None
    found = (_over(model, order) for total, order in room.orders if total >= model.gpu_bytes)
    return min((spread for spread in found if spread), key=lambda spread: (len(spread), spread), default=None)


def _over(model: Model, order: list[tuple[int, str]]) -> list[tuple[str, int, int]] | None:
    """Layers in their order over GPUs, those with most free first; None where they do not fit so."""
    sums, first = model.sums, 0
    spread: list[tuple[str, int, int]] = []
    for free, uuid in order:
        end = bisect.bisect_right(sums, sums[first] - free - model.overhead_bytes - model.process_bytes) - 1
        if end <= first:
            return None  # the next ones have no more
        spread.append((uuid, first, end))
        first = end
        if first == len(model.layer_weights):
            return spread
    return None


def plan(nodes: Sequence[Node], models: Sequence[Model]) -> Plan:
    """Places what fits, and says of the rest why it does not. What is loaded where it may be, stays: it has its memory."""
    if len({model.name for model in models}) != len(models):
        raise ValueError("A model is named twice.")
    if len({(model.key, model.disk_bytes) for model in models}) != len({model.key for model in models}):
        raise ValueError("Models of one digest have files of different sizes.")
    cluster = _Cluster(nodes)
    placed: list[Placed] = []
    refused: list[Refused] = []
    for model in sorted(models, key=lambda model: (-model.priority, not model.nodes, -model.whole_bytes, model.name)):
        wanted: Sequence[str | None] = sorted(set(model.nodes)) or [None] * model.replicas
        loaded = cluster.has_loaded(model)
        for replica, node in enumerate(wanted, 1):
            there = node if node is not None or replica > len(loaded) else loaded[replica - 1]
            if there in loaded:
                room = cluster.rooms[there]
                room.present.add(model.key)
                room.holds[model.name] = room.holds.get(model.name, 0) + 1
                placed.append(Placed(model.name, replica, there, (), 0, 0, "it is loaded there, and has its memory already"))
                continue
            found = cluster.choose(model, list(cluster.rooms) if node is None else [node])
            if found is None:
                refused.append(_refusal(model, replica, node, cluster))
                if node is None:  # the next one would be told the same
                    refused += [replace(refused[-1], replica=later) for later in range(replica + 1, len(wanted) + 1)]
                    break
                continue
            room, spread = found
            ram, disk = room.ram, room.disk
            needs = room.disk_for(model)
            shares = cluster.take(model, room, spread)
            why = _why(model, shares, ram) + (f"; {_mib(needs)} of {_free(disk)} free on disk" if needs else "; its files are there")
            placed.append(Placed(model.name, replica, room.node.name, shares, 0 if shares else model.whole_bytes, needs, why))
    return Plan(
        tuple(sorted(placed, key=lambda found: (found.model, found.replica))),
        tuple(sorted(refused, key=lambda found: (found.model, found.replica))),
    )


def _sum(weights: int, cache: int, overhead: int) -> str:
    return f"weights {_mib(weights)} + KV cache {_mib(cache)} + overhead {_mib(overhead)} = {_mib(weights + cache + overhead)}"


def _why(model: Model, shares: tuple[Share, ...], ram: int) -> str:
    if not shares:
        return f"in memory: {_sum(model.weights_bytes, model.cache_bytes, model.overhead_bytes)} of {_free(ram)} free"
    return "; ".join(
        f"{share.uuid}: {share.layers} layers, {_sum(share.weights_bytes, share.cache_bytes, share.overhead_bytes)}"
        f" of {_free(share.free_bytes)} free"
        for share in shares
    )


def _refusal(model: Model, replica: int, node: str | None, cluster: _Cluster) -> Refused:
    """Why nothing is left for it, by what is nearest to enough."""
    if node is not None and node not in cluster.rooms:
        return Refused(model.name, replica, node, f"Nothing is known of node {node}.", "Name a node of the cluster that can be reached.")
    rooms = list(cluster.rooms.values()) if node is None else [cluster.rooms[node]]
    able = [room for room in rooms if room.disk_for(model) <= room.disk]
    process = model.process_bytes if model.gpu != "never" else 0
    needs = _sum(model.weights_bytes, model.cache_bytes, model.overhead_bytes + process)
    if process and model.gpu != "required":
        needs += f" ({_mib(process)} less in memory)"
    if not able:
        most = max(rooms, key=lambda room: room.disk, default=None)
        seen = f"; {most.node.name} has most, {_free(most.disk)} free" if most else "; there are no nodes"
        return Refused(
            model.name,
            replica,
            node,
            f"Its files need {_mib(model.disk_bytes)} of disk{seen}.",
            "Make room there, or put the models on a larger disk.",
        )
    parts: list[str] = []
    if model.gpu != "never":
        gpus = [(free, room.node.name, uuid) for room in able for uuid, free in room.gpus.items()]
        if gpus:
            free, name, uuid = max(gpus)
            parts.append(f"most free on one GPU is {_free(free)} ({name}, {uuid})")
            if model.split and (together := [room for room in able if not room.node.apart]):
                total, where = max((total, room.node.name) for room in together for total, _order in [*room.orders, (0, [])])
                parts.append(f"on all GPUs of one node and vendor {_free(total)} ({where})")
        else:
            parts.append("no GPU is there that may be used")
    if model.gpu != "required":
        most = max(able, key=lambda room: room.ram)
        parts.append(f"most free memory is {_free(most.ram)} ({most.node.name})")
    short = [room for room in rooms if room.disk_for(model) > room.disk]
    if short:
        parts.append(f"{len(short)} nodes have too little disk for its {_mib(model.disk_bytes)}")
    ways = ["a smaller context, fewer parallel requests", "a KV cache of q8_0 or q4_0", "a smaller quantization"]
    if not model.split and model.gpu != "never":
        ways.append("leave to split it over GPUs")
    if model.split and model.gpu != "never" and any(room.node.apart and len(room.gpus) > 1 for room in able):
        ways.append("one Ollama for all GPUs of a node (ollama_instances: one)")
    if model.gpu == "required":
        ways.append("let it use memory (gpu: preferred)")
    left_out = [reason for room in rooms for reason in room.node.left_out]
    hint = f" Not used: {', '.join(left_out[:3])}{' and others' if len(left_out) > 3 else ''}." if left_out else ""
    return Refused(model.name, replica, node, f"It needs {needs}; {', '.join(parts)}.{hint}", f"Choose {', or '.join(ways)}, or add a GPU.")


def _up(value: int, step: int) -> int:
    return -(-value // step) * step


def _mib(size: int) -> str:
    """What is needed, in whole MiB: rounded up."""
    return f"{-(-size // MIB):,} MiB"


def _free(size: int) -> str:
    """What is free, in whole MiB: rounded down."""
    return f"{size // MIB:,} MiB"
