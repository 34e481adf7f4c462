# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which node is to hold which model, who fetches it from where, and what a manifest tells."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.server
import io
import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jinja2
import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.bzzz.cluster.plugins.action.models import ActionModule
from ansible_collections.bzzz.cluster.plugins.module_utils import downloads
from ansible_collections.bzzz.cluster.plugins.module_utils.models import holding, wanted
from ansible_collections.bzzz.cluster.plugins.module_utils.node import models
from declarations import about, cluster_of, declared_of, judge, judge_on
from hypothesis import given
from hypothesis import strategies as st
from ollama_standin import StandIn
from rich.console import Console
from stand_ins import Proxy
from test_gguf import written
from test_models_plan import QWEN, facts
from typer.testing import CliRunner

from bzzz_setup import cli, terminal
from bzzz_setup.events import Event, ExitCode, Message
from bzzz_setup.models import holdings, show_holdings
from bzzz_setup.report import Report
from bzzz_setup.run import PROGRESS, _Translator
from bzzz_setup.terminal import Progress

ROLES = Path(__file__).parents[2] / "roles"
A, B = "a" * 64, "b" * 64
ONE = {"digest": A, "bytes": 5000 << 20, "loaded_bytes": None, "parts": {}}
SMALL = {**QWEN, "size_mib": 100, "gpu": "never"}


def assigned(wishes: list[dict[str, Any]], held: dict[str, Any], seen: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    declared, problems = declared_of(cluster_of(3), {"models_wanted": wishes, **more})
    assert not problems, problems
    return holding.assigned(declared, seen if seen is not None else {f"n{at}": facts() for at in (1, 2, 3)}, held)


def get(found: dict[str, Any]) -> dict[str, list[str]]:
    return {node: mine["get"] for node, mine in found["nodes"].items() if mine["get"]}


@pytest.mark.requirement("3.6.1", part="what is to be on which node")
def test_what_lies_where_it_may_stays() -> None:
    nothing: dict[str, Any] = {"n1": {}, "n2": {}, "n3": {}}
    assert len(get(assigned([{**SMALL, "replicas": 2}], nothing))) == 2
    there = {**nothing, "n3": {"qwen3:8b": {**ONE, "loaded_bytes": 1}}}
    # Loaded, it takes the memory that a new plan would miss.
    full = {node: facts(ram=2048) for node in ("n1", "n2", "n3")}
    kept = assigned([SMALL], there, full)
    assert get(kept) == {} and [one["name"] for one in kept["nodes"]["n3"]["models"]] == ["qwen3:8b"] and not kept["unplaced"]
    more = assigned([{**SMALL, "replicas": 2}], there)
    assert len(get(more)) == 1 and "n3" not in get(more)
    (unplaced,) = assigned([{**SMALL, "replicas": 2}], there, full)["unplaced"]
    assert unplaced["model"] == "qwen3:8b" and "Fits nowhere" in unplaced["why"] and unplaced["remedy"]


@pytest.mark.requirement("3.6.1", part="what is to be on which node")
def test_a_model_that_must_have_a_gpu_is_not_had_where_there_is_none() -> None:
    must = {**SMALL, "gpu": "required"}
    held: dict[str, Any] = {"n1": {"qwen3:8b": ONE}, "n2": {}, "n3": {}}
    seen = {"n1": facts(), "n2": facts(9000), "n3": facts(9000)}
    seen["n3"]["bzzz_gpu"]["devices"][0]["health"] = "failed"
    assert get(assigned([must], held, seen)) == {"n2": ["qwen3:8b"]} and get(assigned([SMALL], held, seen)) == {}
    assert get(assigned([must], {**held, "n2": {"qwen3:8b": ONE}}, seen)) == {}
    (unplaced,) = assigned([must], held, {**seen, "n2": facts()})["unplaced"]
    assert "no GPU is there that may be used" in unplaced["why"]


@pytest.mark.requirement("3.6.1", part="what is to be on which node")
def test_nodes_that_are_named_and_nodes_that_are_away() -> None:
    bare = {"name": "qwen3:8b", "nodes": ["n1", "n2"]}
    assert get(assigned([bare], {"n1": {"qwen3:8b": ONE}, "n2": {}, "n3": {}})) == {"n2": ["qwen3:8b"]}
    assert get(assigned([bare], {"n2": {}}, {"n2": facts()})) == {"n2": ["qwen3:8b"]}, "whatever the others are at"
    away = assigned([SMALL], {"n1": {}, "n2": {}}, {"n1": facts(), "n2": facts()})
    assert get(away) == {} and "Not placed while n3 may hold it" in away["unplaced"][0]["why"]
    assert "size_mib and geometry" in assigned([{"name": "x"}], {"n1": {}})["unplaced"][0]["why"]


@pytest.mark.requirement("3.6.5", part="digest and prune")
def test_another_digest_is_another_model_and_what_may_be_removed() -> None:
    held = {"n1": {"qwen3:8b": ONE, "old:latest": ONE}, "n2": {"qwen3:8b": ONE}, "n3": {}}
    pinned = {"name": "qwen3:8b", "nodes": ["n1"], "digest": f"sha256:{B}"}
    assert get(assigned([pinned], held)) == {"n1": ["qwen3:8b"]} and get(assigned([{**pinned, "digest": A.upper()}], held)) == {}
    assert all(not mine["prune"] for mine in assigned([pinned], held)["nodes"].values()), "only where that is asked for"
    pruned = assigned([pinned], held, models_prune=True)["nodes"]
    assert pruned["n1"]["prune"] == ["old:latest"] and pruned["n2"]["prune"] == ["qwen3:8b"]
    assert assigned([SMALL], held, models_prune=True)["nodes"]["n2"]["prune"] == [], "a plan may give it to any node"
    called = {"gateway_enabled": True, "gateway_models": [{"name": "mine", "model": "old", "endpoint": "cluster"}, {"name": "qwen3:8b"}]}
    routed = assigned([pinned], held, models_prune=True, **called)["nodes"]
    assert routed["n1"]["prune"] == [] and routed["n2"]["prune"] == ["qwen3:8b"], "what the gateway calls there stays"
    own = {"gateway_endpoints": [{"name": "own", "kind": "ollama", "url": "http://127.0.0.1:11434"}]}
    called["gateway_models"] = [{"name": "mine", "model": "old", "endpoint": "own"}]
    assert assigned([pinned], held, models_prune=True, **called, **own)["nodes"]["n1"]["prune"] == []
    there = {"n1": facts(ollama={"models": []}), "n2": facts()}
    (found,) = about(judge_on(there, {"models_prune": True}, cluster_of(2)), "models_prune")
    assert (found["node"], found["severity"]) == ("n1", "warning") and "models_prune: false" in found["remedy"]
    (found,) = judge({"models_wanted": [{**pinned, "update": "schedule"}]}, cluster_of(1))
    assert "Remove digest" in found["remedy"]
    (found,) = about(judge({"models_update_schedule": "daily\nExecStart=x"}, cluster_of(1)), "models_update_schedule")
    assert "Sun 03:00" in found["remedy"]


@pytest.mark.requirement("3.6.5", part="a schedule that systemd does not know is refused")
@pytest.mark.parametrize(
    ("schedule", "good"),
    [
        *(
            (one, True)
            for one in ("daily", "Sun 03:00", "*-*-01 04:30", "Mon..Fri 22:30", "Sat,Sun *-*-* 1:00:00", "*:0/15", "monthly UTC")
        ),
        *((one, True) for one in ("Mon *-05~03", "2027-01-01", "quarterly", "Sunday", "03:00 Europe/Berlin", "*-*-* 00,12:00:00")),
        *((one, False) for one in ("every sunday", "0 3 * * 0", "Sunday 25:00", "03", "", "daily\nExecStart=x", "Sun 3:60", "tomorrow")),
    ],
)
def test_a_schedule_is_systemds(schedule: str, good: bool) -> None:
    found = about(judge({"models_update_schedule": schedule}, cluster_of(1)), "models_update_schedule")
    assert (found == []) == good and all("systemd-analyze calendar" in one["remedy"] for one in found)


@pytest.mark.requirement("3.6.3", part="one download")
@given(st.lists(st.sets(st.sampled_from(["n1", "n2", "n3"]), min_size=1), min_size=1, max_size=4), st.data())
def test_each_model_is_pulled_by_one_node_and_copied_by_the_rest(places: list[set[str]], data: Any) -> None:
    wishes = [{"name": f"m{at}", "nodes": sorted(nodes)} for at, nodes in enumerate(places)]
    held = {node: {} for node in ("n1", "n2", "n3")}
    for one in wishes:
        for node in data.draw(st.sets(st.sampled_from(one["nodes"]))):
            held[node][f"{one['name']}:latest"] = ONE
    found = assigned(wishes, held)
    pulls = holding.seeds(found, held)
    pulled = sorted(name for names in pulls.values() for name in names)
    assert pulled == [one["name"] for one in wishes if not any(f"{one['name']}:latest" in there for there in held.values())]
    for node, names in pulls.items():
        assert set(names) <= set(found["nodes"][node]["get"])
        held[node].update({f"{name}:latest": ONE for name in names})
    serves = {node: holding.serving(node, found, held)[0] for node in held}
    for node, mine in found["nodes"].items():
        for one in mine["models"]:
            if f"{one['name']}:latest" not in held[node]:
                peer = holding.source(one, node, found, held, serves)
                assert peer and peer != node and f"{one['name']}:latest" in held[peer] and node in holding.serving(peer, found, held)[1]
                assert holding.source(one, node, found, held, {}) is None, "where nobody serves it, it is pulled"


@pytest.mark.requirement("3.6.4", part="refused with figures")
def test_too_little_room_is_told_with_figures() -> None:
    need = {"a": {"lacking_bytes": 3 << 30}, "b": {"lacking_bytes": 512 << 20}}
    assert holding.short_of("n1", need, 6 << 30, 2 << 30, "/models") is None
    said = holding.short_of("n1", need, 5 << 30, 2 << 30, "/models") or ""
    assert "3.5 GiB are needed (a 3.0 GiB, b 512.0 MiB), and 3.0 GiB are free in /models beside the 2.0 GiB" in said and "Remedy" in said
    assert [holding.amount(size) for size in (0, 2048, 3 << 19)] == ["0 bytes", "2.0 KiB", "1.5 MiB"]


@pytest.mark.requirement("3.6.3", part="names")
@pytest.mark.parametrize(
    ("name", "parts", "listed"),
    [
        ("qwen3", ("registry.ollama.ai", "library", "qwen3", "latest"), "qwen3:latest"),
        ("registry.ollama.ai/library/qwen3:8b", ("registry.ollama.ai", "library", "qwen3", "8b"), "qwen3:8b"),
        ("me/mine:v1.0", ("registry.ollama.ai", "me", "mine", "v1.0"), "me/mine:v1.0"),
        (
            "registry.example.com:5000/library/a",
            ("registry.example.com:5000", "library", "a", "latest"),
            "registry.example.com:5000/library/a:latest",
        ),
        ("hf.co/me/Mine-GGUF:Q4_K_M", ("hf.co", "me", "Mine-GGUF", "Q4_K_M"), "hf.co/me/Mine-GGUF:Q4_K_M"),
    ],
)
def test_names_as_ollama_completes_them(name: str, parts: tuple[str, ...], listed: str) -> None:
    assert models.split(name) == parts and models.listed(name) == listed == models.listed(listed)
    assert models.short(name) == listed.lower() == wanted.full(name.upper()), "Ollama takes them in any case"


@pytest.mark.requirement("3.6.3", part="names")
def test_a_name_in_another_case_is_the_same_model(tmp_path: Path) -> None:
    assert get(assigned([{"name": "Qwen3:8B", "nodes": ["n1"]}], {"n1": {"qwen3:8b": ONE}})) == {}
    (found,) = judge({"models_wanted": [{"name": "Qwen3:8b"}, {"name": "qwen3:8b"}]}, cluster_of(1))
    assert "in the list already, as Qwen3:8b" in found["message"]
    there = tmp_path / "manifests/hf.co/me/Mine-GGUF/Q4"
    there.parent.mkdir(parents=True)
    there.write_text(json.dumps(MANIFEST))
    with contextlib.closing(StandIn("hf.co/me/Mine-GGUF:Q4")) as ollama:
        (key, one), *_ = models.held(ollama.url, str(tmp_path)).items()
    assert (key, one["name"]) == ("hf.co/me/mine-gguf:q4", "hf.co/me/Mine-GGUF:Q4") and len(one["parts"]) == 2
    assert models.manifest_path(str(tmp_path), key) == str(there)
    assert models.manifest_path(str(tmp_path), "hf.co/Me/mine-gguf:Q8") == str(there.with_name("Q8"))


MANIFEST: dict[str, Any] = {
    "schemaVersion": 2,
    "mediaType": "m",
    "config": {"mediaType": "c", "digest": f"sha256:{A}", "size": 10},
    "layers": [{"mediaType": "l", "digest": f"sha256:{B}", "size": 1 << 20}],
}


@pytest.mark.requirement("3.6.4", "3.6.5", part="manifests")
def test_what_a_manifest_tells() -> None:
    raw = json.dumps(MANIFEST, indent=3).encode()
    assert models.blobs(raw) == {f"sha256:{A}": 10, f"sha256:{B}": 1 << 20}
    tight = json.dumps(MANIFEST, separators=(",", ":")).encode()
    # Ollama writes it anew, unless it is a release that does not.
    assert models.digests(raw) == [hashlib.sha256(one).hexdigest() for one in (raw, tight)] and len(models.digests(tight)) == 1
    for broken in (b"", b"[]", b'{"config": {}, "layers": []}', raw.replace(b"sha256", b"md5")):
        with pytest.raises(models.Refused):
            models.blobs(broken)


@pytest.fixture
def registry() -> Iterator[str]:
    """Offers the manifest as one/model:latest, and wants a login for everything else."""

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            there = self.path == "/v2/one/model/manifests/latest" and "Python" not in self.headers["User-Agent"]
            self.send_response(200 if there else 401)
            self.end_headers()
            self.wfile.write(json.dumps(MANIFEST).encode() if there else b"")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.requirement("3.6.4", part="computed before the pull")
def test_what_a_pull_would_take(registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    one = {"name": f"{registry}/one/model", "insecure": True}
    other = {"name": f"{registry}/one/other", "insecure": True}
    payload = {
        "store": str(tmp_path),
        "models": [one, other, {**other, "name": f"{registry}/one/told", "bytes": 7}, {"name": "x", "from": {}, "bytes": 9}],
    }
    payload["models"][3].update({"from": {"name": "n1"}, "digest": B})
    found = models.room(payload)
    assert found["free_bytes"] > 0
    whole, refused, told, copied = found["models"].values()
    assert (whole["bytes"], whole["lacking_bytes"]) == ((1 << 20) + 10, (1 << 20) + 10) and "401" in refused["error"]
    assert (told["bytes"], copied["lacking_bytes"], copied["digests"]) == (7, 9, [B])
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    (blobs / f"sha256-{A}").write_bytes(bytes(10))
    (blobs / f"sha256-{B}-partial").write_bytes(b"x" * (1 << 19))
    assert models.room({"store": str(tmp_path), "models": [one, one]})["models"][one["name"]]["lacking_bytes"] <= 1 << 19
    with (blobs / f"sha256-{B}-partial").open("wb") as half:
        half.truncate(1 << 20)  # as long as the whole, and nothing in it yet
    assert models.room({"store": str(tmp_path), "models": [one]})["models"][one["name"]]["lacking_bytes"] == 1 << 20
    (blobs / f"sha256-{B}-partial").unlink()
    (blobs / f"sha256-{B}.bzzz").write_bytes(b"x" * (1 << 19))
    parts = {f"sha256:{A}": 10, f"sha256:{B}": 1 << 20}
    copy = {"name": "copy", "from": {"name": "n1"}, "digest": B, "bytes": (1 << 20) + 10, "parts": parts}
    gone_on = models.room({"store": str(tmp_path), "models": [copy]})
    assert gone_on["models"]["copy"]["lacking_bytes"] <= 1 << 19 and gone_on["freed_bytes"] == 0
    pulled = models.room({"store": str(tmp_path), "models": [one]})
    # Ollama does not go on with the half of a copy, which goes before the pull.
    assert pulled["models"][one["name"]]["lacking_bytes"] == 1 << 20 and pulled["freed_bytes"] >= 1 << 19
    secure = models.room({"store": None, "models": [{"name": f"{registry}/one/model"}]})["models"]
    assert "does not answer" in secure[f"{registry}/one/model"]["error"], "HTTP only where that is asked for"


@pytest.mark.requirement("3.6.4", part="computed before the pull")
def test_what_a_removal_frees(tmp_path: Path) -> None:
    """What models that stay name as well stays; what a wanted one would have had is to be fetched anew."""
    (tmp_path / "blobs").mkdir()
    for model, layers in (("old", (A, B)), ("stays", (A,))):
        path = Path(models.manifest_path(str(tmp_path), model))
        path.parent.mkdir(parents=True)
        parts = [{"digest": f"sha256:{digest}", "size": 1 << 16} for digest in layers]
        path.write_text(json.dumps({"config": parts[0], "layers": parts}))
    for digest in (A, B):
        (tmp_path / f"blobs/sha256-{digest}").write_bytes(b"x" * (1 << 16))
    new = {
        "name": "new",
        "from": {"name": "n1"},
        "digest": A,
        "bytes": 1 << 17,
        "parts": dict.fromkeys((f"sha256:{A}", f"sha256:{B}"), 1 << 16),
    }
    for remove, lacking in (([], 0), (["old:latest"], 1 << 16)):
        found = models.room({"store": str(tmp_path), "models": [new], "remove": remove})
        assert (found["models"]["new"]["lacking_bytes"], found["freed_bytes"]) == (lacking, lacking)


def action(
    monkeypatch: pytest.MonkeyPatch,
    asked: list[str],
    held: dict[str, Any],
    assigned: dict[str, Any],
    error: str = "",
    *,
    check: bool = False,
) -> ActionModule:
    """Of node n1, in whose place all is answered; ``error`` is why the registry has no model."""
    declared, _ = declared_of(cluster_of(2), {})
    facts = {node: {"bzzz_models_held": {"endpoint": "http://x", "models": there}} for node, there in held.items()}
    there = {"name": "new", "digest": A, "bytes": 9, "loaded_bytes": None, "parts": {}}
    results = {"new": {"how": "pulled", **there}}
    need = {"error": error} if error else {"bytes": 9, "lacking_bytes": 9, "digests": [A], "parts": {}}
    answers = {"room": {"models": {"new": need}, "free_bytes": 1 << 60, "freed_bytes": 0}, "wait": {"ended": True, "results": results}}
    found = ActionModule.__new__(ActionModule)
    found._node, found._roles, found._declared, found._cluster = "n1", declared["n1"], declared, cluster_of(2)
    found._variables = {"ansible_facts": {**facts["n1"], "bzzz_models_assigned": assigned}, "ansible_play_hosts": list(held)}
    found._endpoint, found._store, found._task = "http://x", "/store", SimpleNamespace(check_mode=check)
    monkeypatch.setattr(found, "_facts", lambda node: facts[node])
    monkeypatch.setattr(found, "_by_way", lambda one: one)
    monkeypatch.setattr(found, "_ask", lambda do, **_: asked.append(do) or answers.get(do, {}))
    return found


WISH = {"name": "new", "insecure": False, "pin": None, "bytes": None, "update": "manual"}


@pytest.mark.requirement("3.5.5", part="models, while an instance is stopped")
def test_a_node_with_an_ollama_for_each_gpu_is_asked_once_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """They share one store: what one has loaded is loaded, and one that is stopped for its GPU keeps nobody from the rest."""
    given = {"ollama_manage": "install", "ollama_instances": "per_gpu", "models_wanted": [{"name": "a", "nodes": ["n1"]}]}
    declared, _ = declared_of(cluster_of(1), given)
    found = action(monkeypatch, [], {"n1": {}}, {})
    found._declared, found._roles = declared, declared["n1"]
    urls = found._instances = found._ollamas(
        {"bzzz_gpu": {"devices": [{"uuid": f"GPU-{number}"} for number in range(3)] + [{"uuid": None}]}}
    )
    assert urls == [f"http://127.0.0.1:{port}" for port in (11434, 11435, 11436)]
    down: dict[str, Any] = {"error": "it does not answer"}
    loaded = {"a:latest": {**ONE, "loaded_bytes": 7}}
    answer = {urls[0]: down, urls[1]: {"models": {"a:latest": ONE}}, urls[2]: {"models": loaded}}
    monkeypatch.setattr(found, "_ask", lambda do, **_: {"endpoints": answer, "shown": {}})
    told = found._held()["ansible_facts"]["bzzz_models_held"]
    assert told["endpoint"] == urls[1] and told["models"] == loaded and told["instances"] == urls
    listed = holdings({"n1": {**told, "endpoints": {urls[1]: {"models": {"a:latest": {**ONE, "name": "a"}}}, urls[0]: down}}})
    assert [(one["node"], one["endpoint"]) for one in listed["models"] + listed["silent"]] == [("n1", urls[1]), ("n1", urls[0])]
    assert set(told["endpoints"]) == {urls[0], urls[1]}
    answer = dict.fromkeys(urls, down)
    with pytest.raises(AnsibleActionFail, match="a cannot be on n1: it does not answer"):
        found._held()


@pytest.mark.requirement("3.5.5", part="models, while an instance is stopped")
def test_a_nodes_own_list_asks_whichever_ollama_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(models, "HELD_HERE", str(tmp_path / "models.json"))
    with contextlib.closing(StandIn("a:latest")) as ollama:
        kept = {"endpoints": ["http://127.0.0.1:9", ollama.url], "models": [{"name": "a"}, {"name": "b"}]}
        (tmp_path / "models.json").write_text(json.dumps(kept))
        assert models.here(["there"]) == 0 and capsys.readouterr().out == "b:latest is not there\n"


@pytest.mark.requirement("3.6.5", part="update timer")
def test_a_run_and_the_update_timer_wait_for_each_other(tmp_path: Path) -> None:
    store = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(store, fcntl.LOCK_EX)
    waited: list[bool] = []
    models.only_here(str(tmp_path), lambda: waited.append(True) or fcntl.flock(store, fcntl.LOCK_UN))
    with pytest.raises(BlockingIOError):
        fcntl.flock(store, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(store)
    assert waited == [True]
    models.only_here(str(tmp_path / "none"), lambda: waited.append(False))
    assert waited == [True], "where there is no store, nobody waits"


@pytest.mark.requirement("3.6.5", part="update timer")
@pytest.mark.parametrize(("manage", "groups"), [("install", ["SupplementaryGroups=llm"]), ("adopt", [])])
def test_the_update_timers_service_may_look_into_the_store(manage: str, groups: list[str]) -> None:
    """Ollama's unit has UMask=0027."""
    declared, _ = declared_of(cluster_of(1), {"ollama_user": "llm", "ollama_manage": manage})
    template = (ROLES / "models/templates/bzzz-models-update.service.j2").read_text(encoding="utf-8")
    written = jinja2.Template(template, trim_blocks=True).render(declared=declared["n1"])
    assert [line for line in written.splitlines() if line.startswith("Supplementary")] == groups


@pytest.mark.requirement("3.6.5", part="digest and prune")
def test_nothing_is_removed_before_what_comes_instead_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = {"nodes": {"n1": {"models": [WISH], "get": ["new"], "prune": ["old:latest"]}}}
    asked: list[str] = []
    with pytest.raises(AnsibleActionFail, match=r"401.*Nothing was fetched or removed"):
        action(monkeypatch, asked, {"n1": {"old:latest": ONE}}, plan, "it answers 401")._pull()
    assert asked == ["room"]
    done = action(monkeypatch, asked, {"n1": {"old:latest": ONE}}, plan)._pull()
    assert asked[1:] == ["room", "remove", "start", "wait"]
    assert [change["what"] for change in done["changes"]] == ["removed, 4.9 GiB", "pulled, 9 bytes"]
    assert list(done["ansible_facts"]["bzzz_models_held"]["models"]) == ["new:latest"]
    asked.clear()
    would = action(monkeypatch, asked, {"n1": {"old:latest": ONE}}, plan, check=True)._pull()
    assert asked == ["room"] and [change["what"] for change in would["changes"]] == ["removed, 4.9 GiB", "would be pulled, 9 bytes"]


@pytest.mark.requirement("3.6.5", part="digest and prune")
@pytest.mark.parametrize(("lacking", "stages"), [(9, ["room", "start", "wait"]), (1 << 61, ["room", "remove", "start", "wait"])])
def test_while_copies_are_to_come_only_room_is_made(monkeypatch: pytest.MonkeyPatch, lacking: int, stages: list[str]) -> None:
    mine = {"models": [WISH, {**WISH, "name": "other"}], "get": ["new", "other"], "prune": ["old:latest"]}
    nodes = {"n1": mine, "n2": {"models": [], "get": [], "prune": []}}
    asked: list[str] = []
    found = action(monkeypatch, asked, {"n1": {"old:latest": ONE}, "n2": {"other:latest": ONE}}, {"nodes": nodes})
    ask = found._ask
    need = {"bytes": 9, "lacking_bytes": lacking, "digests": [A], "parts": {}}
    room = {"models": {"new": need}, "free_bytes": 1 << 60, "freed_bytes": 1 << 62}
    monkeypatch.setattr(found, "_ask", lambda do, **_: {**ask(do), **(room if do == "room" else {})})
    found._pull()
    assert asked == stages


@pytest.mark.requirement("3.6.5", part="digest and prune")
def test_what_a_peer_is_to_copy_is_removed_once_the_peer_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = {"n1": {"models": [], "get": [], "prune": ["new:latest"]}, "n2": {"models": [WISH], "get": ["new"], "prune": []}}
    asked: list[str] = []
    held: dict[str, Any] = {"n1": {"new:latest": ONE}, "n2": {}}
    for stage in ("_pull", "_copy", "_stop"):
        assert getattr(action(monkeypatch, asked, held, {"nodes": nodes}), stage)()["changes"] == [], stage
    held["n2"] = {"new:latest": ONE}
    assert action(monkeypatch, asked, held, {"nodes": nodes})._stop()["changes"][0]["what"].startswith("removed")
    assert asked == ["remove"]


class Files(http.server.ThreadingHTTPServer):
    """A registry of models by name, each of some bytes, handed out in ranges; ``asked`` are the files' paths and their ranges."""

    def __init__(self, files: dict[str, bytes], ranges: bool = True) -> None:
        self.asked: list[tuple[str, str | None]] = []
        registry = self
        blobs = {f"sha256:{hashlib.sha256(content).hexdigest()}": content for content in files.values()}

        class Answers(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                _, _v2, _space, model, kind, what = self.path.split("/")
                if kind == "manifests":
                    digest = f"sha256:{hashlib.sha256(files[model]).hexdigest()}"
                    weights = {"mediaType": models.WEIGHTS_TYPE, "digest": digest, "size": len(files[model])}
                    if model == "other":
                        weights["mediaType"] = "application/vnd.ollama.image.tensor"
                    manifest = {"config": {"digest": f"sha256:{A}", "size": 10}, "layers": [weights]}
                    return self.answer(200, json.dumps(manifest).encode())
                registry.asked.append((self.path, self.headers["Range"]))
                start, end = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
                return self.answer(206, blobs[what][start : end + 1]) if ranges else self.answer(200, blobs[what])

            def answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Answers)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def name(self, model: str) -> str:
        return f"127.0.0.1:{self.server_port}/team/{model}"


@pytest.mark.requirement("3.6.3", part="registries are asked by the declared proxies")
def test_registries_are_asked_by_the_declared_proxies() -> None:
    with Proxy("anna:p@ss").running() as proxy:
        url = proxy.url.replace("//", f"//{downloads.login('anna:wr@ng')}")
        one = {"name": "registry.invalid/team/a", "proxies": {"https": url}}
        refused = models.room({"store": None, "models": [one]})["models"][one["name"]]["error"]
        assert "407" in refused and "wr" not in refused
        assert models.describe({"models": [one]})["models"][one["name"]]["error"] == refused
        let_in = {**one, "proxies": {"https": proxy.url.replace("//", f"//{downloads.login('anna:p@ss')}")}}
        assert "407" not in models.room({"store": None, "models": [let_in]})["models"][one["name"]]["error"]
        models.room({"store": None, "models": [{**one, "proxies": {}}]})
    assert proxy.asked == [("registry.invalid:443", f"anna:{word}") for word in ("wr@ng", "wr@ng", "p@ss")]


@pytest.mark.requirement("3.6.2", part="geometry, from an Ollama that holds it")
def test_an_ollama_tells_what_of_a_model_is_needed() -> None:
    def stand_in(body: dict[str, Any]) -> dict[str, Any]:
        assert body == {"model": "tiny:latest", "verbose": True}, "else it leaves out what is told of each layer"
        info = {"general.architecture": "llama", "general.license": "x" * 9, "llama.attention.head_count_kv": [2, 0]}
        info |= {
            "llama.rope": 1.5,
            "llama.long": list(range(1 << 16)),
            "tokenizer.ggml.tokens": ["t"] * 5000,
            "tokenizer.ggml.merges": ["m"],
        }
        return {"model_info": info, "parameters": 'stop    "num_ctx 1"\nnum_ctx                        8192\ntemperature 1'}

    with contextlib.closing(StandIn("tiny:latest")) as ollama:
        ollama.show = stand_in
        shown = models.look({"endpoints": [ollama.url], "show": ["tiny:latest", "other:latest"]})["shown"]
        info = {"general.architecture": "llama", "llama.attention.head_count_kv": [2, 0], "llama.vocab_size": 5000}
        assert shown == {"tiny:latest": {"model_info": info, "num_ctx": 8192}}
        ollama.show = lambda _body: {}
        assert models.look({"endpoints": [ollama.url], "show": ["tiny"]})["shown"] == {}
        assert models.look({"endpoints": [ollama.url], "show": ["tiny:latest"]})["shown"]["tiny:latest"] == {
            "model_info": None,
            "num_ctx": None,
        }


@pytest.mark.requirement("3.6.2", part="geometry, from a registry")
def test_a_registry_tells_what_a_model_is_made_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(models, "HEADER_BYTES", 8192)
    file = written(tmp_path / "tiny.gguf", kv=[2, 0, 4]).read_bytes() + bytes(1 << 20)
    for ranges in (True, False):
        with Files({"tiny": file, "broken": b"PK" + bytes(100), "other": b"x"}, ranges) as registry:
            wishes = [{"name": registry.name(model), "insecure": True} for model in ("tiny", "broken", "other")]
            tiny, broken, other = models.describe({"models": wishes})["models"].values()
            registry.shutdown()
        assert "no GGUF file" in broken["error"] and "no GGUF file" in other["error"]
        if not ranges:
            assert "serves no parts of files" in tiny["error"]
            continue
        assert max(int(str(span).rpartition("-")[2]) for _path, span in registry.asked) < len(file) - (1 << 19), "the weights are not read"
        assert tiny["size"] == len(file) + 10 and tiny["model_info"]["llama.vocab_size"] == 5000 and "tokenizer" not in json.dumps(tiny)
        declared, _ = declared_of(cluster_of(1), {"models_wanted": [{"name": registry.name("tiny"), "context": 1024, "gpu": "never"}]})
        found = wanted.outlook(declared, {"n1": facts()}, {wanted.full(registry.name("tiny")): json.loads(json.dumps(tiny))})
        # Keys and values of two bytes: 6 heads of 16 numbers in three layers.
        assert found.unknown == () and found.models[0].cache_bytes == 1024 * 6 * 16 * 2 * 2 and found.plan.placed[0].node == "n1"


@pytest.mark.requirement("3.6.1", part="placed by what a registry tells")
def test_what_nobody_holds_is_placed_by_what_its_registry_tells(tmp_path: Path) -> None:
    info = {"general.architecture": "llama", "llama.block_count": 2, "llama.embedding_length": 64, "llama.attention.head_count": 4}
    declared, _ = declared_of(cluster_of(3), {"models_wanted": [{"name": "new", "gpu": "never"}]})
    seen = {f"n{at}": facts() for at in (1, 2, 3)}
    nothing: dict[str, Any] = {"n1": {}, "n2": {}, "n3": {}}
    placed = holding.assigned(declared, seen, nothing, {"new:latest": {"size": 9 << 20, "model_info": info}})
    assert len(get(placed)) == 1 and placed["unplaced"] == []
    (unplaced,) = holding.assigned(declared, seen, nothing, {"new:latest": {"error": "it answers 404"}})["unplaced"]
    assert "it answers 404" in unplaced["why"]


@pytest.mark.requirement("3.6.3", "3.6.5", part="what is fetched")
def test_a_copy_that_fails_is_a_pull_and_a_wrong_digest_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    there: dict[str, Any] = {}
    removed: list[str] = []
    monkeypatch.setattr(models, "held", lambda _endpoint, _store=None: dict(there))
    monkeypatch.setattr(models, "pull", lambda _endpoint, _one, _progress: there.update({"qwen3:8b": ONE}))
    monkeypatch.setattr(models, "_delete", lambda _endpoint, name: removed.append(name))
    one: dict[str, Any] = {"name": "qwen3:8b", "digest": A, "from": {"name": "n1", "address": "127.0.0.1", "port": 1}}
    half = tmp_path / f"blobs/sha256-{B}.bzzz"
    half.parent.mkdir()
    half.touch()
    one["parts"] = {f"sha256:{B}": 9}
    done = models.fetch("http://x", str(tmp_path), one, models._Silent(), "this node has no certificate")
    assert not half.exists(), "Ollama does not go on with it"
    assert (done["how"], done["from"], done["digest"]) == ("pulled", None, A)
    assert done["note"] == "it could not be copied from n1 (this node has no certificate)"
    there.clear()
    with pytest.raises(models.Refused, match=f"{A}, and {B} is declared"):
        models.fetch("http://x", None, {"name": "qwen3:8b", "pin": B}, models._Silent())
    assert removed == ["qwen3:8b"], "it was not there before"


@pytest.mark.requirement("3.4.3", part="list")
def test_the_list_of_models() -> None:
    own, outside, dead = "http://127.0.0.1:11434", "https://gpu9:11434", "https://gone:11434"
    answers = {
        own: {"models": {"a:latest": {**ONE, "name": "A:latest", "loaded_bytes": 1 << 30}}},
        outside: {"models": {"b:latest": {**ONE, "name": "b:latest"}}},
        dead: {"error": "dead"},
    }
    told = {
        "n1": {"instances": [own], "endpoints": {**answers, outside: {"error": "no way"}}},
        "n2": {"instances": [own], "endpoints": answers},
    }
    found = holdings(told)
    assert [(one["node"], one["model"]) for one in found["models"]] == [("n1", "A:latest"), ("n2", "A:latest"), (None, "b:latest")]
    assert set(found["models"][0]) == {"node", "endpoint", "model", "digest", "bytes", "loaded_bytes"}
    assert found["silent"] == [{"node": None, "endpoint": dead, "why": "dead"}]
    out = io.StringIO()
    show_holdings(Console(file=out, width=200), found)
    assert (
        "yes, 1.0 GiB" in out.getvalue() and "4.9 GiB" in out.getvalue() and "aaaaaaaaaaaa" in out.getvalue() and "dead" in out.getvalue()
    )


@pytest.mark.requirement("3.4.3", part="list")
def test_the_list_says_what_did_not_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    url, outside = "http://127.0.0.1:11434", "https://gpu9:11434"
    held = {"instances": [url], "endpoints": {url: {"models": {}}, outside: {"error": "dead"}}}
    silent = {"instances": [url], "endpoints": {url: {"error": "dead"}}}
    monkeypatch.setattr(terminal, "show_report", lambda *_: None)
    for told, fails, code in ((held, 0, 0), (silent, 0, 1), (None, 3, 3)):
        facts = {} if told is None else {"n1": {"bzzz_models_held": told}}
        report = SimpleNamespace(facts=facts, exit_code=ExitCode(fails), problems=[], failures=[])
        monkeypatch.setattr(cli, "_run", lambda *_, report=report: (report, None))
        done = CliRunner().invoke(cli.app, ["models", "list", "-i", str(tmp_path)])
        assert done.exit_code == code and "No Ollama of the cluster holds a model" not in done.output, done.output
        assert ("dead" in done.output) == (told is not None)
        assert json.loads(CliRunner().invoke(cli.app, ["--json", "models", "list", "-i", str(tmp_path)]).stdout)["exit_code"] == code


@pytest.mark.requirement("3.4.1", part="on a subnet, Ollama a stand-in")
def test_what_answers_on_a_subnet_is_found() -> None:
    with contextlib.closing(StandIn("tiny:latest")) as ollama, socket.create_server(("127.0.0.3", 0)) as mute:
        port = int(ollama.url.rpartition(":")[2])
        found = models.sweep({"networks": ["127.0.0.0/29"], "port": port, "except": []})["found"]
        assert found == {ollama.url: {"version": "0.0.0-stand-in", "models": {"tiny:latest": found[ollama.url]["models"]["tiny:latest"]}}}
        assert models.sweep({"networks": ["127.0.0.0/29"], "port": port, "except": ["127.0.0.1"]})["found"] == {}
        # One that takes connections and says nothing is no Ollama.
        threading.Thread(target=lambda: mute.accept()[0].close(), daemon=True).start()
        assert models.sweep({"networks": ["127.0.0.3/32"], "port": mute.getsockname()[1], "except": []})["found"] == {}
    mine = {"instances": [], "endpoints": {ollama.url: {"error": "it is away"}}}
    swept = {
        "subnets": ["127.0.0.0/29"],
        "ollamas": {ollama.url: {"version": "1", "models": {}}, "http://127.0.0.5:1": {"version": "[2]", "models": {}}},
    }
    shown = holdings({"n1": {**mine, "found": swept}, "n2": mine})
    assert shown["discovered"] == [{"endpoint": "http://127.0.0.5:1", "version": "[2]", "models": []}], "the other one is declared"
    out = io.StringIO()
    show_holdings(Console(file=out, width=200), shown)
    assert "http://127.0.0.5:1, Ollama [2]: no model" in out.getvalue() and "gateway_endpoints" in out.getvalue()
    show_holdings(Console(file=out, width=200), {**shown, "discovered": []})
    assert "No other Ollama answers in 127.0.0.0/29." in out.getvalue()


@pytest.mark.requirement("3.6.3", part="progress in a run")
def test_a_run_tells_how_far_a_pull_is() -> None:
    events: list[Event] = []
    translate = _Translator(events.append)
    translate({"event": "verbose", "stdout": f"{PROGRESS} n1: qwen3:8b 40 % of 4.9 GiB\r\n"})
    translate({"event": "verbose", "stdout": "anything else"})
    assert [event for event in events if isinstance(event, Message)] == events and len(events) == 1
    out, report = io.StringIO(), Report()
    report.add(events[0])
    Progress(Console(file=out, width=200), report)(events[0])
    assert out.getvalue().strip() == "… n1: qwen3:8b 40 % of 4.9 GiB" and report.messages == [], "nothing that a report would keep"


@pytest.mark.requirement("1.3.3", part="the port of copies")
def test_the_port_of_copies_is_one_of_the_clusters_while_models_are_wanted() -> None:
    clash = {"models_copy_port": 8080}
    assert judge(clash, cluster_of(1)) == []
    assert any("8080" in found["message"] for found in judge({**clash, "models_wanted": [{"name": "qwen3"}]}, cluster_of(1)))
    assert judge({**clash, "models_wanted": [{"name": "qwen3"}], "models_copy": False}, cluster_of(1)) == []
