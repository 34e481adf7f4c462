# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Models as they are declared: what is refused, what is planned, and how the plan is printed."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import jinja2
import pytest
from ansible_collections.bzzz.cluster.plugins.module_utils.models import holding, wanted
from ansible_collections.bzzz.cluster.plugins.module_utils.models.placement import MIB
from ansible_collections.bzzz.cluster.plugins.module_utils.rules import models
from declarations import about, cluster_of, declared_of, facts_of, interface, judge, judge_on
from rich.console import Console
from rich.text import Text

from bzzz_setup.models import WIDTH, bar, show_plan

ROOT = Path(__file__).parents[2]
ETH0 = interface("eth0", "10.0.0.11/24")
ONE = cluster_of(1)
GEOMETRY = {"layers": 36, "embedding": 4096, "heads": 32, "heads_kv": 8, "head_length": 128, "vocabulary": 151936}
QWEN = {"name": "qwen3:8b", "size_mib": 5000, "overhead_mib": 300, "geometry": GEOMETRY}


def facts(*free_mib: int, ollama: dict[str, Any] | None = None, ram: int = 4048, disk: int = 50000) -> dict[str, Any]:
    """A node with GPUs of 16 GiB of which so much is free, and two GiB more memory than models may have."""
    seen = facts_of(
        ETH0,
        system={
            "memory": {"total_mib": 16000, "available_mib": ram},
            "mounts": [{"path": "/", "available_mib": disk}],
            "ollama": ollama,
        },
    )
    devices = [
        {"uuid": f"GPU-{at}", "model": "A4000", "memory_total_mib": 16384, "memory_used_mib": 16384 - free, "health": "ok", "mig": None}
        for at, free in enumerate(free_mib)
    ]
    return {**seen, "bzzz_gpu": {"devices": devices}}


def planned(given: dict[str, Any], seen: dict[str, Any]) -> dict[str, Any]:
    declared, problems = declared_of(cluster_of(len(seen)), given)
    assert not problems, problems
    return wanted.told(wanted.outlook(declared, seen), declared, seen)


@pytest.mark.requirement("3.6.1", part="plan")
@pytest.mark.parametrize(
    ("one", "says", "remedy"),
    [
        ({"name": "qwen 8b"}, "no name of a model", "qwen3:8b"),
        ({"name": "../x"}, "no name of a model", "qwen3:8b"),
        ({"digest": "46e0c10c"}, "no SHA-256", "64"),
        ({"nodes": ["n11"]}, "no node n11", "Write n1."),
        ({"nodes": ["elsewhere"]}, "no node elsewhere", "Write n1."),
        ({"nodes": ["n1"], "replicas": 2}, "as well", "Remove nodes or replicas"),
        ({"context": 0}, "context must be 1 to", "right number"),
        ({"geometry": {**GEOMETRY, "heads": 0}}, "geometry.heads must be 1 to", "right number"),
        ({"gpu": "maybe"}, "Entry 1 (qwen3:8b): gpu cannot be maybe", "Write one of required, preferred, never"),
        ({"geometry": {**GEOMETRY, "layer": 1}}, "Entry 1 (qwen3:8b): geometry: there is no layer", "Write layers"),
        ({"contxt": 1}, "Entry 1 (qwen3:8b): there is no contxt", "Write context"),
    ],
)
def test_what_is_wrong_with_a_model(one: dict[str, Any], says: str, remedy: str) -> None:
    (found,) = judge({"models_wanted": [{**QWEN, **one}]}, ONE)
    assert found["option"] == "models_wanted" and found["severity"] == "error"
    assert says in found["message"] and remedy in found["remedy"]


@pytest.mark.parametrize(("count", "remedy"), [(3, "Write n1 or n2 or n3."), (20, "Write n19."), (0, "Name nodes of group bzzz")])
def test_a_node_that_is_none_is_told_with_those_there_are(count: int, remedy: str) -> None:
    """Of few, one as near as the others is not picked."""
    declared, _ = declared_of(cluster_of(1), {"models_wanted": [{"name": "a", "nodes": ["n19x"]}]})
    (found,) = models.literal(declared, cluster_of(count))
    assert remedy in found["remedy"]


def test_the_value_of_an_unknown_field_is_not_shown() -> None:
    """A key may have been put where none belongs."""
    found = judge({"gateway_endpoints": [{"name": "x", "url": "https://h/v1", "key": "sk-canary"}]}, ONE)
    assert any("there is no key" in one["message"] for one in found) and "sk-canary" not in str(found)


def test_models_that_are_fine() -> None:
    names = ["qwen3", "qwen3:8b", "me/mine:v1.0", "hf.co/me/Mine-GGUF:Q4_K_M", "registry.example.com:5000/library/a:b"]
    assert judge({"models_wanted": [{"name": name} for name in names]}) == []


def test_a_model_twice_and_lists_that_differ() -> None:
    (found,) = judge({"models_wanted": [{"name": "qwen3"}, {"name": "qwen3:latest"}]})
    assert "qwen3:latest is in the list already, as qwen3." in found["message"]
    (found,) = judge({"models_wanted": [QWEN]}, n2={"models_wanted": []})
    assert "the same on every node" in found["message"]


@pytest.mark.requirement("3.6.1", part="plan")
def test_nodes_that_must_be_declared() -> None:
    (found,) = judge({"models_wanted": [QWEN], "models_placement": "declared"})
    assert "names no nodes" in found["message"]
    assert judge({"models_wanted": [{**QWEN, "nodes": ["n1", "n2"]}], "models_placement": "declared"}) == []


@pytest.mark.requirement("3.6.2", part="plan")
def test_what_fits_nowhere_is_said_with_figures() -> None:
    given = {"models_wanted": [QWEN]}
    assert about(judge_on({"n1": facts(7000)}, given, ONE), "models_wanted") == []
    (found,) = about(judge_on({"n1": facts(6000)}, given, ONE), "models_wanted")
    assert found["severity"] == "warning" and found["value"] == "qwen3:8b"
    assert "KV cache 576 MiB" in found["message"] and "5,488 MiB (n1, GPU-0)" in found["message"]
    assert "smaller context" in found["remedy"]
    assert about(judge_on({"n1": facts(6000)}, given), "models_wanted") == [], "two nodes have not answered"


@pytest.mark.requirement("3.6.2", part="plan")
def test_a_model_of_which_too_little_is_known() -> None:
    given = {"models_wanted": [{"name": "qwen3:8b"}]}
    assert about(judge_on({"n1": facts(9000)}, given, ONE), "models_wanted") == [], "the plan asks the registry"
    declared, _ = declared_of(ONE, given)
    (unknown,) = wanted.outlook(declared, {"n1": facts(9000)}, {"qwen3:8b": {"error": "registry.example.com does not answer"}}).unknown
    assert "size_mib and geometry" in unknown[1] and "registry.example.com does not answer" in unknown[1] and "docs/models.md" in unknown[2]
    (gpu,) = planned({"models_wanted": [{**QWEN, "context": 8192}]}, {"n1": facts(9000)})["nodes"]["n1"]["gpus"]
    ollama = {"ollama_context_length": 2048, "ollama_num_parallel": 2}
    (more,) = planned({"models_wanted": [QWEN], "ollama_manage": "install", **ollama}, {"n1": facts(9000)})["nodes"]["n1"]["gpus"]
    assert gpu["cache_bytes"] == more["cache_bytes"] == 2 * 576 * MIB, "what Ollama is set to give each model is taken, too"
    two, apart = facts(4000, 4000, ram=0), {"ollama_manage": "install", "ollama_instances": "per_gpu"}
    assert len(planned({"models_wanted": [QWEN]}, {"n1": two})["placed"][0]["shares"]) == 2
    assert planned({"models_wanted": [QWEN], **apart}, {"n1": two})["refused"], "no instance has both"
    held = {"models": [{"name": "qwen3:8b", "digest": "a" * 64, "size_mib": 5000}]}
    seen = {"n1": facts(9000, ollama=held)}
    assert about(judge_on(seen, given, ONE), "models_wanted") == [], "the plan asks the Ollama"
    assert "tells its geometry" in planned(given, seen)["unknown"][0]["why"], "which did not answer"


@pytest.mark.requirement("3.6.2", part="plan")
def test_a_model_that_an_ollama_holds() -> None:
    seen = {"n1": facts(9000, ollama={"models": [{"name": "qwen3:latest", "digest": "a" * 64, "size_mib": 5000}]})}
    declared, _ = declared_of(ONE, {"models_wanted": [{"name": "qwen3"}]})
    info = {"general.architecture": "qwen3", "qwen3.block_count": 36, "qwen3.embedding_length": 4096, "qwen3.attention.head_count": 32}
    info |= {"qwen3.attention.head_count_kv": 8, "qwen3.attention.key_length": 128, "qwen3.attention.value_length": 128}
    found = wanted.outlook(declared, seen, {"qwen3:latest": {"model_info": info}})
    assert found.models[0].cache_bytes == 576 * MIB and found.plan.placed[0].disk_bytes == 0
    (unknown,) = wanted.outlook(declared, seen, {"qwen3:latest": {"model_info": {}}}).unknown
    assert unknown[0] == "qwen3" and unknown[1]


@pytest.mark.requirement("3.6.2", "3.6.4", part="plan")
def test_the_plan_uses_what_is_declared() -> None:
    found = planned({"models_wanted": [QWEN]}, {"n1": facts(7000), "n2": facts(8000)})
    (placed,) = found["placed"]
    (gpu,) = found["nodes"]["n1"]["gpus"]
    assert placed["node"] == "n1" and gpu["models"] == ["qwen3:8b"]
    parts = [gpu[part] // MIB for part in ("total_bytes", "weights_bytes", "cache_bytes", "overhead_bytes", "reserved_bytes", "free_bytes")]
    # Weights as equal parts of 36 layers, rounded up.
    assert parts == [16384, 5000, 576, 300, 16384 - 7000 + 512, 7000 - 512 - 5000 - 576 - 300 - 1]
    assert found["nodes"]["n1"]["disk"] == {
        "path": "/usr/share/ollama/.ollama/models",
        "taken_bytes": 5000 * MIB,
        "free_bytes": (50000 - 1024 - 5000) * MIB,
    }
    smaller = {"ollama_flash_attention": True, "ollama_kv_cache_type": "q8_0", "models_vram_reserve_mib": 100}
    own = {**smaller, "ollama_manage": "install"}
    for given, cache in ((own, 306), (smaller, 576), ({**own, "ollama_flash_attention": False}, 576)):
        (gpu,) = planned({"models_wanted": [QWEN], **given}, {"n1": facts(7000)})["nodes"]["n1"]["gpus"]
        assert gpu["cache_bytes"] == cache * MIB and gpu["reserved_bytes"] == (16384 - 7000 + 100) * MIB, "only what is in force counts"
    mixed, _ = declared_of(cluster_of(2), {"models_wanted": [QWEN], **own}, {"n2": {"ollama_manage": "adopt"}})
    assert wanted.outlook(mixed, {"n1": facts(7000)}).models[0].cache_bytes == 576 * MIB
    held = {"models": [{"name": "qwen3:8b", "digest": "a" * 64, "size_mib": 5000}]}
    for more in ({}, {"digest": "sha256:" + "A" * 64}):
        both = {"n1": facts(7000), "n2": facts(8000, ollama=held)}
        (placed,) = planned({"models_wanted": [{**QWEN, **more, "size_mib": None}]}, both)["placed"]
        assert (placed["node"], placed["disk_bytes"]) == ("n2", 0)


@pytest.mark.requirement("3.6.2", part="plan")
def test_what_ollama_leaves_to_others_and_may_not_pass() -> None:
    limits = {"ollama_gpu_overhead_mib": 2000, "ollama_memory_max_mib": 1000, "models_wanted": [{**QWEN, "gpu": "required"}]}
    for manage, reserved, ram in (("install", 2000, 1000), ("adopt", 512, 2000)):
        node = planned({**limits, "ollama_manage": manage}, {"n1": facts(9000)})["nodes"]["n1"]
        assert node["gpus"][0]["reserved_bytes"] == (16384 - 9000 + reserved) * MIB
        assert node["memory"]["free_bytes"] == ram * MIB
    more = planned({**limits, "ollama_manage": "install", "models_vram_reserve_mib": 2500}, {"n1": facts(9000)})
    assert more["nodes"]["n1"]["gpus"][0]["reserved_bytes"] == (16384 - 9000 + 2500) * MIB


@pytest.mark.requirement("3.6.2", part="plan")
def test_ollama_gives_each_model_what_is_planned() -> None:
    small, large = {**QWEN, "name": "a"}, {**QWEN, "name": "b", "context": 16384, "parallel": 2}
    room = {"n1": facts(ram=100000, disk=100000)}
    own = {"models_wanted": [small, large], "ollama_manage": "install"}
    for more, context, parallel in (({}, 16384, 2), ({"ollama_context_length": 32768, "ollama_num_parallel": 3}, 32768, 3)):
        declared, _ = declared_of(ONE, {**own, **more})
        told = environment(declared["n1"])
        assert {f"OLLAMA_CONTEXT_LENGTH={context}", f"OLLAMA_NUM_PARALLEL={parallel}"} <= told
        caches = {model.cache_bytes for model in wanted.outlook(declared, room).models}
        assert caches == {context // 4096 * parallel * 576 * MIB}, "each of them has as much"
    declared, _ = declared_of(ONE, {"ollama_manage": "install"})
    assert {"OLLAMA_CONTEXT_LENGTH=4096", "OLLAMA_NUM_PARALLEL=1"} <= environment(declared["n1"])
    declared, _ = declared_of(ONE, {**own, "ollama_manage": "adopt"})
    assert [model.cache_bytes // MIB for model in wanted.outlook(declared, room).models] == [576, 8 * 576], (
        "another's settings are not known"
    )


def environment(declared: Any) -> set[str]:
    """The lines of an instance's environment."""
    templates = jinja2.Environment(autoescape=False)
    templates.filters["regex_replace"] = None
    text = (ROOT / "roles/ollama/templates/instance.env.j2").read_text(encoding="utf-8")
    served = wanted.served(declared["ollama"], declared["models"]["wanted"])
    variables = {"__ollama_number": 0, "__ollama_models": "/m", "__ollama_device": {}, "__ollama_served": served}
    return set(templates.from_string(text).render(declared=declared, **variables).splitlines())


@pytest.mark.requirement("3.6.2", part="plan")
def test_a_context_of_the_model_s_own_file() -> None:
    info = {"general.architecture": "qwen3", "qwen3.block_count": 36, "qwen3.embedding_length": 4096, "qwen3.attention.head_count": 32}
    info |= {"qwen3.attention.head_count_kv": 8, "qwen3.attention.key_length": 128, "qwen3.attention.value_length": 128}
    one = {"name": "qwen3:8b", "size_mib": 5000}
    declared, _ = declared_of(ONE, {"models_wanted": [one], "ollama_context_length": 16384, "ollama_manage": "install"})
    for context, most, seen in ((8192, None, 8192), (None, None, 16384), (2048, None, 4096), (65536, 40960, 40960)):
        shown = {"qwen3:8b": {"model_info": {**info, "qwen3.context_length": most}, "num_ctx": context}}
        (model,) = wanted.outlook(declared, {"n1": facts()}, shown).models
        assert model.cache_bytes == seen // 4096 * 576 * MIB


@pytest.mark.requirement("3.6.2", part="plan")
def test_a_cluster_in_use() -> None:
    """What is loaded takes the very memory that the plan would miss."""
    seen = {"n1": facts(200), "n2": facts(200)}
    declared, _ = declared_of(cluster_of(2), {"models_wanted": [{**QWEN, "gpu": "required", "replicas": 2}]})
    held = {"qwen3:8b": {"digest": "a" * 64, "bytes": 1, "loaded_bytes": 1}}
    loaded = holding.loaded(declared, {"n1": held, "n2": {"qwen3:8b": {**held["qwen3:8b"], "loaded_bytes": None}}})
    assert loaded == {"n1": {"qwen3:8b"}, "n2": set()}
    found = wanted.told(wanted.outlook(declared, seen, None, loaded), declared, seen)
    assert [(one["node"], one["ram_bytes"]) for one in found["placed"]] == [("n1", 0)] and len(found["refused"]) == 1
    assert found["nodes"]["n1"]["memory"]["models"] == [] and found["nodes"]["n1"]["gpus"][0]["free_bytes"] == 0
    assert len(wanted.outlook(declared, seen, None, {node: ["qwen3:8b"] for node in seen}).plan.placed) == 2
    pinned, _ = declared_of(cluster_of(2), {"models_wanted": [{**QWEN, "digest": "b" * 64}]})
    assert holding.loaded(pinned, {"n1": held}) == {"n1": set()}, "another model of that name"


@pytest.mark.requirement("3.6.1", part="plan")
def test_a_node_that_was_not_asked() -> None:
    declared, _ = declared_of(cluster_of(2), {"models_wanted": [{**QWEN, "nodes": ["n2"]}, {**QWEN, "name": "b", "nodes": ["n1", "n2"]}]})
    found = wanted.outlook(declared, {"n1": facts(8000)})
    assert [(one.model, one.node) for one in found.plan.placed] == [("b:latest", "n1")] and not found.plan.refused
    assert [(name, remedy) for name, _why, remedy in found.unknown] == [
        (name, "Run without --limit, with all nodes up.") for name in ("qwen3:8b", "b")
    ]
    assert "Nothing was asked of n2" in found.unknown[0][1]


def test_memory_in_the_plan() -> None:
    found = planned({"models_wanted": [{**QWEN, "gpu": "never"}]}, {"n1": facts(ram=9000)})
    memory = found["nodes"]["n1"]["memory"]
    assert memory["models"] == ["qwen3:8b"] and memory["total_bytes"] == 16000 * MIB
    assert memory["reserved_bytes"] == (16000 - 9000 + 2048) * MIB
    assert sum(value for part, value in memory.items() if part.endswith("_bytes")) == 2 * memory["total_bytes"]


@pytest.mark.requirement("3.6.2", part="plan")
def test_the_plan_in_print() -> None:
    seen = {"n1": facts(7000), "n2": facts(6000)}
    seen["n2"]["bzzz_gpu"]["devices"].append({**seen["n1"]["bzzz_gpu"]["devices"][0], "uuid": None, "index": 1})
    models = [QWEN, {**QWEN, "name": "large", "size_mib": 40000}, {"name": "unheard-of"}]
    out = io.StringIO()
    show_plan(Console(file=out, width=400, highlight=False), planned({"models_wanted": models}, seen))
    said = out.getvalue()
    assert "A4000 GPU-0" in said and "█" * 7 in said and "░" in said and "·" in said
    assert "✔ qwen3:8b 1 on n1: GPU-0: 36 layers, weights 5,001 MiB + KV cache 576 MiB + overhead 300 MiB" in said
    assert "✘ large:latest 1 fits nowhere." in said and "add a GPU" in said
    assert "! unheard-of: Nothing tells its size_mib and geometry" in said
    assert "! n2: not used: A4000 (1): nothing tells its UUID" in said


def test_a_bar_is_as_long_as_its_parts() -> None:
    parts = {"total_bytes": 100, "weights_bytes": 50, "cache_bytes": 25, "overhead_bytes": 0, "reserved_bytes": 10, "free_bytes": 15}
    assert Text.from_markup(bar(parts, 20)).plain == "█" * 10 + "▓" * 5 + "░" * 2 + "·" * 3
    for width in range(1, 40):
        assert len(Text.from_markup(bar(parts, width)).plain) == width
    assert Text.from_markup(bar({**dict.fromkeys(parts, 0)})).plain == ""
    assert len(Text.from_markup(bar(parts)).plain) == WIDTH


def test_models_that_nobody_can_serve_are_warned_of() -> None:
    def warned(given: dict[str, Any], ollama: Any = None) -> list[str]:
        found = judge_on({"n1": facts(8000, ollama=ollama)}, given, ONE)
        return [one["option"] for one in found if "none of them has an Ollama" in one["message"] and one["severity"] == "warning"]

    called = {"gateway_enabled": True, "gateway_models": [{"name": "local", "model": "tiny", "endpoint": "cluster"}]}
    for given in ({"models_wanted": [QWEN]}, called):
        assert warned(given) == ["ollama_manage"]
        assert warned({**given, "ollama_manage": "install"}) == []
        assert warned(given, {"models": []}) == []
    assert warned({}) == []


def test_nothing_is_wanted() -> None:
    out = io.StringIO()
    show_plan(Console(file=out, width=200), planned({}, {"n1": facts()}))
    assert "models_wanted" in out.getvalue()
