# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A node's Ollama for the gateway: who is let in, what is handed on, and which nodes calls go to. Ollama is a stand-in."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from declarations import cluster_of, judge
from hypothesis import given
from hypothesis import strategies as st
from node_cluster import wait_for
from ollama_standin import TOKEN, StandIn, service, serving

from bzzz_setup.gateway.places import Places, deployments
from bzzz_setup.gateway.settings import Shared, parse
from bzzz_setup.node import ollama
from bzzz_setup.node.ollama import ALLOWED

ON: dict[str, Any] = {"gateway_enabled": True, "openai_api_key": "sk-c4nary-0f-a-key"}


@pytest.fixture
def ollamas() -> Iterator[list[StandIn]]:
    found = [StandIn("tiny:latest", seconds=0.2), StandIn("tiny:latest", seconds=0.2)]
    yield found
    for each in found:
        each.close()


def member(name: str, *models: str, vram: int = 0, port: int = 8080) -> dict[str, Any]:
    has = {"ollama": {"models": list(models)} if models else {}, "gpus": [{"memory_total_mib": vram}] if vram else []}
    return {"name": name, "address": "127.0.0.1", "port": port, "capabilities": has}


@pytest.mark.requirement("3.4.1", part="the cluster's own nodes: handed on by the node service, Ollama a stand-in")
def test_only_the_gateway_uses_models_and_only_uses_them(ollamas: list[StandIn]) -> None:
    endpoints = [ollamas[0].url]
    with serving(service(endpoints, [member("n1", "tiny:latest", vram=24576), member("n2")])) as port:
        url = f"http://127.0.0.1:{port}/ollama"

        def ask(method: str, path: str, token: str = TOKEN, **more: Any) -> requests.Response:
            return requests.request(method, url + path, headers={"Authorization": f"Bearer {token}"}, timeout=20, **more)

        assert ask("GET", "/api/tags").json()["models"][0]["name"] == "tiny:latest"
        place = {"node": "n1", "address": "127.0.0.1", "port": 8080, "models": ["tiny:latest"], "vram_mib": 24576}
        assert ask("GET", "/places").json() == {"places": [place]}
        for token in ("", "wrong", TOKEN + "x"):
            assert ask("GET", "/api/tags", token).status_code == ask("GET", "/places", token).status_code == 401
        before = list(ollamas[0].asked)
        for method, path in (
            ("POST", "/api/pull"), ("POST", "/api/create"), ("POST", "/api/push"), ("POST", "/api/copy"), ("DELETE", "/api/delete"),
            ("DELETE", "/api/tags"), ("POST", "/api/blobs/sha256:x"), ("POST", "/v1/../api/pull"), ("POST", "/api/chat/../pull"),
            ("POST", "/api/chat%2f..%2fpull"), ("POST", "//api/pull"),
        ):  # fmt: skip
            prepared = requests.Request(method, url, headers={"Authorization": f"Bearer {TOKEN}"}, json={"model": "tiny"}).prepare()
            prepared.url = url + path  # as it is
            assert requests.Session().send(prepared, timeout=20).status_code in (403, 404), path
        assert ollamas[0].asked == before, "nothing of that has reached it"

        body = {"model": "tiny", "messages": [{"role": "user", "content": "?"}]}
        came = []
        with ask("POST", "/api/chat", json=body, stream=True) as answer:
            began = time.monotonic()
            for line in answer.iter_lines():
                came.append((time.monotonic() - began, json.loads(line)))
        assert len(came) == 4 and came[-1][1]["done"] and came[1][0] > 0.1 and came[0][0] < came[-1][0] - 0.3, "piece by piece"
        ollamas[0].pieces = 200
        with ask("POST", "/api/chat", json=body, stream=True) as answer:
            next(answer.iter_lines())
        wait_for(lambda: ollamas[0].cut, 10, "Ollama is told that nobody listens any more")
        endpoints[:] = []
        assert ask("GET", "/api/tags").status_code == 503
        endpoints[:] = ["http://127.0.0.1:9"]
        assert ask("GET", "/api/tags").status_code == 502


@pytest.mark.requirement("3.4.4", part="least busy among the instances of a node")
def test_calls_go_to_the_instance_with_the_fewest(ollamas: list[StandIn]) -> None:
    with serving(service([each.url for each in ollamas], [])) as port:
        body = {"model": "tiny", "messages": []}
        answers = [
            requests.post(
                f"http://127.0.0.1:{port}/ollama/api/chat", json=body, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=20, stream=True
            )
            for _ in range(2)
        ]
        assert all(answer.status_code == 200 for answer in answers)
        for answer in answers:
            answer.close()
    assert [each.asked for each in ollamas] == [["POST /api/chat"]] * 2


@pytest.mark.requirement("3.4.4", part="an instance that is stopped gets no calls")
def test_calls_pass_by_an_instance_that_is_stopped(ollamas: list[StandIn]) -> None:
    about = service(["http://127.0.0.1:9", ollamas[0].url], [])
    handed = ollama.Ollama(about)
    body = {"model": "tiny", "messages": [], "stream": False}
    with serving(about, handed=handed) as port:
        for _ in range(3):
            answer = requests.post(
                f"http://127.0.0.1:{port}/ollama/api/chat", json=body, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=20
            )
            assert answer.status_code == 200 and answer.json()["done"]
    assert ollamas[0].asked == ["POST /api/chat"] * 3
    assert handed._endpoints()[-1] == "127.0.0.1:9" and handed.away, "it is asked last"
    about.detector.facts = dict(about.detector.facts)
    assert handed._endpoints()[0] == "127.0.0.1:9" and not handed.away, "until the next detection"


@given(st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH"]), st.text(alphabet="/.apivtchogetnrldusm1%?#\n\\ ", max_size=30))
def test_what_is_handed_on_has_no_way_around(method: str, path: str) -> None:
    if ALLOWED.fullmatch(f"{method} {path}"):
        assert path.startswith(("/api/", "/v1/")) and ".." not in path.split("/")
        assert not any(word in path for word in ("pull", "create", "delete", "push", "copy", "blob")) and not set(path) & set("%?#\n\\ ")


names = st.sampled_from(["tiny", "tiny:latest", "big:70b"])
places = st.lists(
    st.fixed_dictionaries(
        {
            "node": st.sampled_from(["n1", "n2", "n3"]),
            "address": st.sampled_from(["10.0.0.11", "fd00::1"]),
            "port": st.just(8080),
            "models": st.lists(names, max_size=2),
            "vram_mib": st.integers(0, 100_000),
        }
    ),
    max_size=3,
    unique_by=lambda place: place["node"],
)


@pytest.mark.requirement("3.4.3", part="the gateway calls nodes that hold the model")
@pytest.mark.requirement("3.4.4", part="weights by VRAM")
@given(st.lists(st.fixed_dictionaries({"name": names, "model": st.none() | names, "weight": st.integers(1, 5)}), max_size=3), places)
def test_each_node_that_holds_a_model_is_one_deployment(models: list[dict[str, Any]], there: list[dict[str, Any]]) -> None:
    found = deployments(models, there, TOKEN)
    expected = 0
    for model in models:
        wanted = model["model"] or model["name"]
        expected += sum(wanted in place["models"] or f"{wanted}:latest" in place["models"] for place in there)
    assert len(found) == expected
    for identifier, each in found.items():
        (place,) = (place for place in there if identifier.endswith(f"@{place['node']}"))
        params = each["litellm_params"]
        assert each["model_info"]["id"] == identifier and params["api_key"] == TOKEN and params["api_base"].endswith(":8080/ollama")
        assert params["weight"] % max(1, place["vram_mib"] // 1024) == 0 and params["weight"] > 0


class Router:
    def __init__(self) -> None:
        self.has: dict[str, Any] = {}

    def upsert_deployment(self, deployment: Any) -> None:
        self.has[deployment["model_info"]["id"]] = deployment

    def delete_deployment(self, id: str) -> None:
        del self.has[id]


@pytest.mark.requirement("3.4.3", part="models that come and go are followed")
def test_the_router_follows_the_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = [member("n1", "tiny:latest"), member("n2", "tiny:latest", vram=24576)]
    with serving(service([], members)) as port:
        shared = Shared(f"http://127.0.0.1:{port}", None, str(tmp_path / "token"), ({"name": "local", "model": "tiny", "weight": 2},))

        async def follow() -> None:
            places, router = Places(shared, lambda about: about), Router()
            assert not await places.fresh(router) and router.has == {}, "there is no token before step 6"
            (tmp_path / "token").write_text(f"{TOKEN}\n")
            assert await places.fresh(router)
            assert {identifier: each["litellm_params"]["weight"] for identifier, each in router.has.items()} == {
                "local/0@n1": 2,
                "local/0@n2": 48,
            }
            del members[0]
            assert not await places.fresh(router), "not asked before each call"
            monkeypatch.setattr("bzzz_setup.gateway.places.DUE_SECONDS", 0.0)
            await places.fresh(router)
            while len(router.has) == 2:
                await asyncio.sleep(0.01)
            assert set(router.has) == {"local/0@n2"}
            (tmp_path / "token").write_text("another")
            await places.fresh(router)
            assert places._looking and not await places._looking
            assert set(router.has) == {"local/0@n2"}, "what was known holds while nobody can be asked"

        asyncio.run(asyncio.wait_for(follow(), 30))


@pytest.mark.requirement("3.4.1", part="declared as one endpoint, cluster")
def test_what_is_declared_is_judged_and_read() -> None:
    local = {"gateway_models": [{"name": "local", "model": "tiny", "endpoint": "cluster"}]}
    assert judge({**ON, **local}, cluster_of(1)) == []
    (found,) = judge({**ON, **local, "gateway_endpoints": [{"name": "cluster", "url": "http://x"}]}, cluster_of(1))
    assert found["option"] == "gateway_endpoints"
    shared = {"url": "https://127.0.0.1:8080", "token_file": "/etc/bzzz/ollama-token", "models": [{"name": "local"}]}
    read = parse({"ledger": "sqlite://", "tokens": {"file": "x"}, "shared": shared}).shared
    assert read and read.models[0]["name"] == "local" and read.ca is None
    assert parse({"ledger": "sqlite://", "tokens": {"file": "x"}, "shared": None}).shared is None
