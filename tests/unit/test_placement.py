# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The planner: nothing is given away twice, order does not matter, and what fits is not refused."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.bzzz.cluster.plugins.module_utils.models.placement import (
    GPU_PROCESS,
    MIB,
    Gpu,
    Model,
    Node,
    Plan,
    cache_bytes,
    model_of,
    node_of,
    overhead_bytes,
    plan,
)
from ansible_collections.bzzz.cluster.plugins.module_utils.node import gpu_nvidia
from ansible_collections.bzzz.cluster.plugins.module_utils.node.gguf import Geometry
from hypothesis import given, settings
from hypothesis import strategies as st

GIB = 1024 * MIB
CAPTURE = Path(__file__).parent.parent / "fixtures" / "gpu" / "nvidia-smi-q-x.a100-sxm4-v12.xml"
QWEN = Geometry(
    architecture="qwen3", weights_bytes=5 * GIB, file_bytes=5 * GIB, block_count=36, context_length=40960, embedding_length=4096,
    head_count=32, head_count_kv=(8,) * 36, key_length=128, value_length=128, vocabulary=151936,
)  # fmt: skip


def node(name: str = "n1", *free_gib: int, ram: int = 64, disk: int = 100, **more: Any) -> Node:
    return Node(name, ram * GIB, disk * GIB, tuple(Gpu(f"GPU-{name}-{number}", free * GIB) for number, free in enumerate(free_gib)), **more)


def model(name: str = "m", layers: int = 8, *, rest: int = 0, overhead: int = 0, disk: int = 1, **wishes: Any) -> Model:
    """A model of layers of 1 GiB each."""
    return Model(name, (GIB // 2,) * layers, (GIB // 2,) * layers, rest * GIB, overhead * GIB, disk * GIB, **wishes)


def test_cache_by_its_type_and_window() -> None:
    assert sum(cache_bytes(QWEN, 4096)) == 36 * 4096 * 8 * 256 * 2 == 576 * MIB
    assert sum(cache_bytes(QWEN, 4096, 4)) == 4 * 576 * MIB
    assert sum(cache_bytes(QWEN, 4096, 1, "q8_0")) == 576 * MIB // 64 * 34
    assert sum(cache_bytes(QWEN, 4096, 1, "q4_0")) == 576 * MIB // 64 * 18
    sliding = dataclasses.replace(QWEN, sliding_window=1024, sliding=(True, False) * 18)
    near, far = cache_bytes(sliding, 8192)[:2]
    assert near * 8192 == far * (1024 + 512)
    assert cache_bytes(sliding, 1024)[0] == cache_bytes(sliding, 1024)[1]
    assert cache_bytes(dataclasses.replace(QWEN, head_count_kv=(0, *(8,) * 35)), 4096)[0] == 0
    assert cache_bytes(dataclasses.replace(QWEN, head_count_kv=(0, *(8,) * 35), state_bytes=7), 4096, 3)[0] == 21
    assert cache_bytes(dataclasses.replace(QWEN, flash=False), 4096, 1, "q8_0") == cache_bytes(QWEN, 4096)


def test_overhead_is_ollama_s_estimate() -> None:
    assert overhead_bytes(QWEN, 4096) == max(4 * 512 * (1 + 4 * 4096 + 4096 * 33), 4 * 512 * (4096 + 151936))


@pytest.mark.requirement("3.6.2", part="plan")
def test_flash_attention_keeps_no_scores() -> None:
    large = overhead_bytes(QWEN, 32768, 2, flash=True)
    mask, output, layer = 4 * 512 * (1 + 4 * 4096 + 2 * 65536), 4 * 512 * (4096 + 151936), 65536 * 8 * 256 * 2
    assert large == mask + output + layer < overhead_bytes(QWEN, 32768, 2) // 4
    assert overhead_bytes(QWEN, 512, flash=True) == overhead_bytes(QWEN, 512), "it never takes more"
    assert overhead_bytes(dataclasses.replace(QWEN, flash=False), 32768, flash=True) == overhead_bytes(QWEN, 32768)


@pytest.mark.requirement("3.6.2", part="plan")
def test_no_more_context_than_the_model_has() -> None:
    assert model_of("m", QWEN, context=1 << 20) == model_of("m", QWEN, context=40960) != model_of("m", QWEN, context=40000)


@pytest.mark.requirement("3.6.2", part="plan")
def test_a_loaded_model_is_a_process_with_a_context_on_each_gpu() -> None:
    wanted = model_of("m", QWEN, context=4096)
    whole = wanted.whole_bytes + GPU_PROCESS
    (placed,) = plan([Node("n1", 0, 100 * GIB, (Gpu("A", whole),))], [wanted]).placed
    assert placed.shares[0].bytes == whole and placed.shares[0].overhead_bytes == overhead_bytes(QWEN, 4096) + GPU_PROCESS
    halves = (Gpu("A", whole // 2 + GIB), Gpu("B", whole // 2 + GIB))
    (placed,) = plan([Node("n1", 0, 100 * GIB, halves)], [wanted]).placed
    assert [share.overhead_bytes - wanted.overhead_bytes for share in placed.shares] == [GPU_PROCESS] * 2
    (refused,) = plan([Node("n1", 0, 100 * GIB, (Gpu("A", whole - 1),))], [wanted]).refused
    assert "(457 MiB less in memory)" in refused.why
    (placed,) = plan([Node("n1", wanted.whole_bytes, 100 * GIB)], [wanted]).placed
    assert placed.ram_bytes == wanted.whole_bytes == whole - GPU_PROCESS
    assert model_of("m", QWEN, context=4096, overhead=0).process_bytes == 0, "what is declared is all of it"


@pytest.mark.requirement("3.6.2", part="plan")
def test_a_decision_in_figures() -> None:
    wanted = model_of("qwen3:8b", QWEN, context=4096, overhead=300 * MIB)
    found = plan([node("n1", 8)], [wanted]).placed[0]
    assert "36 layers, weights 5,121 MiB + KV cache 576 MiB + overhead 300 MiB = 5,997 MiB of 8,192 MiB free" in found.why


@pytest.mark.requirement("3.5.2", part="plan")
def test_one_gpu_before_several_and_the_tightest_first() -> None:
    single = plan([node("n1", 24, 12, 10)], [model(layers=10)]).placed[0]
    assert [share.uuid for share in single.shares] == ["GPU-n1-2"]
    several = plan([node("n1", 4, 6)], [model(layers=10)]).placed[0]
    assert [(share.uuid, share.layers) for share in several.shares] == [("GPU-n1-1", 6), ("GPU-n1-0", 4)]
    refused = plan([node("n1", 4, 6)], [model(layers=10, split=False, gpu="required")]).refused[0]
    assert "most free on one GPU is 6,144 MiB" in refused.why
    assert "split" in refused.remedy


@pytest.mark.requirement("3.5.2", part="plan")
def test_no_model_on_gpus_of_two_vendors() -> None:
    cards = [Gpu(f"G{at}", free * GIB, vendor=vendor) for at, (free, vendor) in enumerate([(6, "nvidia"), (5, "amd"), (4, "nvidia")])]
    mixed = dataclasses.replace(node("n1"), gpus=tuple(cards))
    found = plan([mixed], [model(layers=10)]).placed[0]
    assert [(share.uuid, share.layers) for share in found.shares] == [("G0", 6), ("G2", 4)]
    (refused,) = plan([mixed], [model(layers=11, gpu="required")]).refused
    assert "on all GPUs of one node and vendor 10,240 MiB (n1)" in refused.why


@pytest.mark.requirement("3.6.2", part="plan")
def test_what_is_loaded_stays_with_the_memory_that_it_has() -> None:
    full = [node("n1", 0, ram=0, loaded=frozenset(["m"])), node("n2", ram=0, loaded=frozenset(["m"])), node("n3", ram=0)]
    found = plan(full, [model(replicas=2)])
    assert [(one.node, one.shares, one.ram_bytes) for one in found.placed] == [("n1", (), 0), ("n2", (), 0)] and not found.refused
    assert "loaded there" in found.placed[0].why
    found = plan(full, [model(replicas=2, gpu="required")])
    assert [one.node for one in found.placed] == ["n1"], "there is no GPU on n2"
    found = plan(full, [model(nodes=("n1", "n3"))])
    assert [one.node for one in found.placed] == ["n1"] and [one.node for one in found.refused] == ["n3"]
    roomy = [*full[:1], node("n2", 24)]
    assert sorted(one.node for one in plan(roomy, [model(replicas=2)]).placed) == ["n1", "n2"]


@pytest.mark.requirement("3.5.2", part="plan")
def test_an_instance_on_each_gpu() -> None:
    apart = dataclasses.replace(node("n1", 6, 6), apart=True)
    assert plan([node("n1", 6, 6)], [model(layers=8, gpu="required")]).placed
    (refused,) = plan([apart], [model(layers=8, gpu="required")]).refused
    assert "6,144 MiB" in refused.why and "ollama_instances" in refused.remedy
    found = plan([node("n1", 10, 10)], [model(layers=8, replicas=3, gpu="required")])
    assert sorted(replica.shares[0].uuid for replica in found.placed) == ["GPU-n1-0", "GPU-n1-1"]
    assert [(refused.replica, refused.node) for refused in found.refused] == [(3, None)]


def test_replicas_go_to_other_nodes_first() -> None:
    found = plan([node("n1", 10, 10), node("n2", 24)], [model(layers=8, replicas=2)])
    assert sorted(replica.node for replica in found.placed) == ["n1", "n2"]


def test_where_the_files_are_already() -> None:
    found = plan([node("n1", 10), node("n2", 24, disk=0, present=frozenset(["sha"]))], [model(digest="sha")]).placed[0]
    assert (found.node, found.disk_bytes) == ("n2", 0)


@pytest.mark.requirement("3.6.1", part="plan")
def test_declared_nodes() -> None:
    found = plan([node("n1", 24), node("n2", 24)], [model(nodes=("n2", "n9"))])
    assert [replica.node for replica in found.placed] == ["n2"]
    assert "n9" in found.refused[0].why


def test_memory_where_it_is_allowed() -> None:
    assert plan([node("n1", 4)], [model()]).placed[0].ram_bytes == 8 * GIB
    assert "gpu: preferred" in plan([node("n1", 4)], [model(gpu="required")]).refused[0].remedy
    assert not plan([node("n1", 24)], [model(gpu="never")]).placed[0].shares


def test_priority_comes_first() -> None:
    found = plan([node("n1", 8)], [model("big", 8, gpu="required"), model("dear", 4, gpu="required", priority=1)])
    assert [replica.model for replica in found.placed] == ["dear"]


@pytest.mark.requirement("3.6.4", part="plan")
def test_disk_that_is_short() -> None:
    refused = plan([node("n1", 24, disk=10)], [model(disk=20)]).refused[0]
    assert refused.why == "Its files need 20,480 MiB of disk; n1 has most, 10,240 MiB free."


@pytest.mark.requirement("3.6.4", part="plan")
def test_disk_is_given_away_once() -> None:
    found = plan([node("n1", 24, disk=10)], [model("a", 2, disk=6), model("b", 2, disk=6)])
    assert [(one.model, one.disk_bytes) for one in found.placed] == [("a", 6 * GIB)]
    assert "n1 has most, 4,096 MiB free" in found.refused[0].why


@pytest.mark.requirement("3.5.3", part="plan")
def test_nodes_of_facts() -> None:
    devices, _ = gpu_nvidia.parse_nvidia_smi(CAPTURE.read_text())
    card = node_of("n0", {"bzzz_gpu": {"devices": devices}}, disk_mib=1, vram_reserve_mib=512)
    assert card.gpus or card.left_out
    base = {"uuid": "GPU-1", "model": "A", "vendor": "amd", "memory_total_mib": 8192, "memory_used_mib": 192, "health": "ok", "mig": None}
    wrong = [
        {**base, "uuid": None, "pci_address": "0000:01:00.0"},
        {**base, "uuid": "GPU-2", "memory_used_mib": None},
        {**base, "uuid": "GPU-3", "mig": {"enabled": True}},
        {**base, "uuid": "GPU-4", "health": "failed"},
    ]
    facts = {"bzzz_gpu": {"devices": [base, *wrong]}, "bzzz_system": {"memory": {"available_mib": 4096}}}
    seen = node_of("n1", facts, disk_mib=100, vram_reserve_mib=1000, ram_reserve_mib=96)
    assert seen.gpus == (Gpu("GPU-1", 7000 * MIB, "A", "amd"),)
    assert (seen.ram_bytes, seen.disk_bytes) == (4000 * MIB, 100 * MIB)
    assert node_of("n1", facts, disk_mib=100, ram_reserve_mib=96, ram_max_mib=3000).ram_bytes == 3000 * MIB
    words = ["UUID", "free", "MIG", "failed"]
    assert [word for word, why in zip(words, seen.left_out, strict=True) if word in why] == words
    hot = {"bzzz_gpu": {"devices": [{**base, "health": "degraded"}]}}
    assert node_of("n1", hot, disk_mib=100).gpus == (Gpu("GPU-1", 8000 * MIB, "A", "amd"),), "it works"
    assert node_of("n2", {}, disk_mib=5) == Node("n2", 0, 5 * MIB)


@pytest.mark.requirement("3.6.2", part="plan")
@pytest.mark.parametrize("replicas", [1, 2])
def test_a_gpu_is_given_away_once(replicas: int) -> None:
    models = [model("a", 6, gpu="required", replicas=replicas), model("b", 5, gpu="required")]
    found = plan([node("n1", 10)], models)
    assert [(one.model, one.replica) for one in found.placed] == [("a", 1)]
    assert "most free on one GPU is 4,096 MiB" in found.refused[-1].why
    exactly = plan([node("n1", 10)], [model("a", 6, gpu="required"), model("b", 4, gpu="required")])
    assert [one.shares[0].free_bytes for one in exactly.placed] == [10 * GIB, 4 * GIB]


@pytest.mark.requirement("3.6.2", part="plan")
def test_memory_is_given_away_once() -> None:
    found = plan([node("n1", ram=10)], [model("a", 6, gpu="never"), model("b", 5, gpu="never")])
    assert [(one.model, one.ram_bytes) for one in found.placed] == [("a", 6 * GIB)]
    assert "most free memory is 4,096 MiB" in found.refused[0].why


@pytest.mark.requirement("3.6.2", part="plan")
def test_layers_as_they_are_split() -> None:
    """The rest goes with the last layer, the overhead on each GPU, and no layer is cut."""
    uneven = Model("m", (2, 3, 4), (1, 0, 1), rest_bytes=2, overhead_bytes=1)
    gpus = (Gpu("A", 8), Gpu("B", 7))
    (placed,) = plan([Node("n1", 0, 0, (Gpu("A", 9), Gpu("B", 8)))], [uneven]).placed
    assert [(share.uuid, share.layers, share.weights_bytes, share.cache_bytes, share.overhead_bytes) for share in placed.shares] == [
        ("A", 2, 5, 1, 1),
        ("B", 1, 6, 1, 1),
    ]
    assert plan([Node("n1", 0, 0, gpus)], [uneven]).refused, "the last layer, the rest and the overhead need 8"
    assert plan([Node("n1", 0, 0, (Gpu("A", 6), Gpu("B", 6), Gpu("C", 6)))], [dataclasses.replace(uneven, rest_bytes=0)]).placed
    assert plan([Node("n1", 0, 0, gpus)], [dataclasses.replace(uneven, split=False)]).refused


@pytest.mark.requirement("3.6.2", part="plan")
def test_the_larger_comes_first() -> None:
    """The smaller one, taken first, would leave too little for the larger."""
    for models in ([model("a", 4, gpu="required"), model("b", 8, gpu="required")], [model("b", 4), model("a", 8)]):
        found = plan([node("n1", 10, ram=0)], models)
        assert [one.model for one in found.placed] == [max(models, key=lambda each: each.whole_bytes).name]
    declared_first = plan([node("n1", 10, ram=0)], [model("a", 8), model("b", 4, nodes=("n1",))])
    assert [one.model for one in declared_first.placed] == ["b"]


SIZES = st.integers(0, 12)
NODES = st.lists(
    st.builds(
        lambda *room: room,
        st.lists(st.tuples(SIZES, st.sampled_from(["nvidia", "nvidia", "amd"])), max_size=4),
        SIZES,
        SIZES,
        st.sets(st.sampled_from("ab")),
        st.sets(st.sampled_from(["m0", "m1", "m2"])),
        st.booleans(),
    ),
    max_size=4,
).map(
    lambda rows: [
        Node(
            f"n{at}",
            ram,
            disk,
            tuple(Gpu(f"G{at}{of}", free, vendor=vendor) for of, (free, vendor) in enumerate(gpus)),
            frozenset(present),
            loaded=frozenset(loaded),
            apart=apart,
        )
        for at, (gpus, ram, disk, present, loaded, apart) in enumerate(rows)
    ]
)
MODELS = st.lists(
    st.builds(
        lambda layers, **rest: Model("", tuple(w for w, _ in layers), tuple(c for _, c in layers), **rest),
        st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=5),
        rest_bytes=st.integers(0, 3),
        overhead_bytes=st.integers(0, 2),
        process_bytes=st.integers(0, 2),
        disk_bytes=st.integers(0, 6),
        digest=st.sampled_from([None, "a", "b"]),
        nodes=st.sampled_from([(), (), ("n0",), ("n1", "n9")]),
        replicas=st.integers(1, 3),
        gpu=st.sampled_from(["required", "preferred", "never"]),
        split=st.booleans(),
        priority=st.integers(0, 1),
    ),
    max_size=6,
).map(
    lambda models: [
        dataclasses.replace(each, name=f"m{at}", disk_bytes={"a": 2, "b": 5}.get(each.digest or "", each.disk_bytes))
        for at, each in enumerate(models)
    ]
)


def left(nodes: list[Node], models: list[Model], found: Plan) -> dict[str, Node]:
    """What a plan leaves, added up independently of the planner."""
    rooms = {each.name: each for each in nodes}
    keys = {each.name: each.key for each in models}
    for each in found.placed:
        room = rooms[each.node]
        used = {share.uuid: share.bytes for share in each.shares}
        gpus = tuple(dataclasses.replace(gpu, free_bytes=gpu.free_bytes - used.get(gpu.uuid, 0)) for gpu in room.gpus)
        assert used.keys() <= {gpu.uuid for gpu in room.gpus}
        rooms[each.node] = dataclasses.replace(
            room,
            ram_bytes=room.ram_bytes - each.ram_bytes,
            disk_bytes=room.disk_bytes - each.disk_bytes,
            gpus=gpus,
            present=room.present | {keys[each.model]},
        )
    return rooms


@pytest.mark.requirement("3.6.2", part="plan")
@settings(max_examples=100, deadline=None)
@given(NODES, MODELS)
def test_nothing_is_given_away_twice(nodes: list[Node], models: list[Model]) -> None:
    found = plan(nodes, models)
    rooms = left(nodes, models, found)
    for room in rooms.values():
        assert min((room.ram_bytes, room.disk_bytes, *(gpu.free_bytes for gpu in room.gpus))) >= 0
    by_name = {each.name: each for each in models}
    for placed in found.placed:
        wanted = by_name[placed.model]
        if placed.shares:
            assert wanted.gpu != "never"
            assert sum(share.weights_bytes for share in placed.shares) == wanted.weights_bytes
            assert sum(share.cache_bytes for share in placed.shares) == wanted.cache_bytes
            assert all(share.overhead_bytes == wanted.overhead_bytes + wanted.process_bytes for share in placed.shares)
            vendors = {gpu.uuid: gpu.vendor for gpu in rooms[placed.node].gpus}
            assert len({vendors[share.uuid] for share in placed.shares}) == 1
            assert len(placed.shares) == 1 or (wanted.split and not rooms[placed.node].apart)
        else:
            assert wanted.gpu != "required" or (placed.model in rooms[placed.node].loaded and rooms[placed.node].gpus)
            # One replica has what is loaded there; a further one, where no other node has room, takes its own.
            assert placed.ram_bytes == wanted.whole_bytes or (placed.ram_bytes == 0 and placed.model in rooms[placed.node].loaded)
        assert not wanted.nodes or placed.node in wanted.nodes
    free = [(one.node, one.model) for one in found.placed if not one.shares and one.ram_bytes < by_name[one.model].whole_bytes]
    assert len(set(free)) == len(free)
    for each in models:
        replicas = [one.replica for one in (*found.placed, *found.refused) if one.model == each.name]
        assert sorted(replicas) == list(range(1, (len(each.nodes) or each.replicas) + 1))
    # Files that are not there yet are counted once on a node.
    for each in nodes:
        for key in {one.key for one in models}:
            first = [placed.disk_bytes for placed in found.placed if placed.node == each.name and by_name[placed.model].key == key]
            assert sum(1 for size in first if size) <= 1


@pytest.mark.requirement("3.6.2", part="plan")
@settings(max_examples=60, deadline=None)
@given(NODES, MODELS, st.randoms(use_true_random=False))
def test_order_does_not_matter(nodes: list[Node], models: list[Model], random: Any) -> None:
    shuffled = [dataclasses.replace(each, gpus=tuple(random.sample(each.gpus, len(each.gpus)))) for each in nodes]
    random.shuffle(shuffled)
    assert plan(shuffled, random.sample(models, len(models))) == plan(nodes, models)


@pytest.mark.requirement("3.6.2", part="plan")
@settings(max_examples=100, deadline=None)
@given(NODES, MODELS)
def test_what_fits_is_not_refused(nodes: list[Node], models: list[Model]) -> None:
    """By an own, simple look at what the finished plan leaves."""
    found = plan(nodes, models)
    rooms = left(nodes, models, found)
    by_name = {each.name: each for each in models}
    for refused in found.refused:
        wanted = by_name[refused.model]
        for room in rooms.values() if refused.node is None else [rooms[refused.node]] if refused.node in rooms else []:
            if wanted.key not in room.present and room.disk_bytes < wanted.disk_bytes:
                continue
            if wanted.gpu != "never":
                assert all(gpu.free_bytes < wanted.whole_bytes + wanted.process_bytes for gpu in room.gpus)
                for vendor in {gpu.vendor for gpu in room.gpus}:
                    frees = sorted((gpu.free_bytes for gpu in room.gpus if gpu.vendor == vendor), reverse=True)
                    assert room.apart or not (wanted.split and in_order(wanted, frees))
            assert wanted.gpu == "required" or room.ram_bytes < wanted.whole_bytes


def in_order(wanted: Model, frees: list[int]) -> bool:
    """Whether its layers fit one after the other, tried in every way of cutting them."""
    sizes = [weights + cache for weights, cache in zip(wanted.layer_weights, wanted.layer_cache, strict=True)]
    if not sizes:
        return False
    sizes[-1] += wanted.rest_bytes

    def fits(first: int, gpu: int) -> bool:
        if first == len(sizes):
            return True
        if gpu == len(frees):
            return False
        return fits(first, gpu + 1) or any(
            sum(sizes[first:end]) + wanted.overhead_bytes + wanted.process_bytes <= frees[gpu] and fits(end, gpu + 1)
            for end in range(first + 1, len(sizes) + 1)
        )

    return fits(0, 0)


@pytest.mark.requirement("3.6.2", part="plan")
def test_a_thousand_models_on_two_hundred_nodes() -> None:
    nodes = [node(f"n{at:03}", *[(8, 16, 24, 80)[(at + of) % 4] for of in range(at % 8)], ram=64, disk=500) for at in range(200)]
    models = [
        model(
            f"m{at:04}", 2 + at * 7 % 60, overhead=1, replicas=1 + at % 3, gpu=("required", "preferred", "never")[at % 3], split=at % 2 == 0
        )
        for at in range(1000)
    ]
    started = time.process_time()
    found = plan(nodes, models)
    took = time.process_time() - started
    print(f"{len(found.placed)} placed, {len(found.refused)} refused in {took:.2f} s")
    assert found.placed
    assert found.refused
    assert took < 2


@pytest.mark.parametrize(
    ("nodes", "models", "says"),
    [
        ([node("n1"), node("n1")], [], "named twice"),
        ([Node("n1", 1, 1, (Gpu("G", 1), Gpu("G", 1)))], [], "named twice"),
        ([Node("n1", -1, 1)], [], "less than nothing"),
        ([], [model("m"), model("m")], "named twice"),
        ([], [model("m", digest="a"), model("n", digest="a", disk=2)], "different sizes"),
    ],
)
def test_nonsense(nodes: list[Node], models: list[Model], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        plan(nodes, models)
