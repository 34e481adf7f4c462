# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ollamas of several nodes behind a real LiteLLM, by the node service's own /ollama over TLS; the Ollamas are stand-ins, on loopback.

Slow: LiteLLM takes minutes to install and half a minute to start.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import ollama_standin
import pytest
import requests
from gateway import Gateway, StandIn
from node_cluster import Authority, wait_for
from ollama_standin import TOKEN, service, serving

from bzzz_setup.declaration import load
from bzzz_setup.gateway import reports
from bzzz_setup.lab import CHECKOUT

pytestmark = pytest.mark.slow


# How LiteLLM calls what is declared as gateway_balancing.
STRATEGIES = load((CHECKOUT / "roles/gateway/vars/main.yml").read_text(encoding="utf-8"))["__gateway_strategies"]


def member(name: str, port: int, *models: str, vram_gib: int = 0) -> dict[str, Any]:
    gpus = [{"memory_total_mib": vram_gib << 10}] if vram_gib else []
    return {"name": name, "address": "127.0.0.1", "port": port, "capabilities": {"ollama": {"models": list(models)}, "gpus": gpus}}


class Nodes:
    """Two node services that share one view of the cluster, and a gateway."""

    def __init__(
        self, folder: Path, upstream: StandIn, stack: ExitStack, balancing: str = "round_robin", vram_gib: tuple[int, int] = (0, 0)
    ):
        authority = Authority(folder)
        self.members: list[dict[str, Any]] = []
        self.ollamas = [ollama_standin.StandIn("tiny:latest") for _ in range(2)]
        certificates = [authority.leaf(name) for name in ("n1", "n2")]
        ports = [
            stack.enter_context(serving(service([each.url], self.members), certificate))
            for each, certificate in zip(self.ollamas, certificates, strict=True)
        ]
        self.all = [member(f"n{place + 1}", ports[place], "tiny:latest", vram_gib=vram_gib[place]) for place in range(2)]
        self.members += self.all
        (folder / "token").write_text(TOKEN)
        shared = {
            "url": f"https://127.0.0.1:{ports[0]}",
            "ca": str(authority.ca),
            "token_file": str(folder / "token"),
            "models": [
                {"name": "local", "model": "tiny", "weight": 1, "parameters": {"temperature": 0.1}},
                {"name": "gone", "model": "huge"},
                {"name": "priced", "model": "tiny", "input_usd_per_million": 1, "output_usd_per_million": 2},
            ],
        }
        self.gateway = Gateway(folder / "gateway", upstream, {"shared": shared, "in_turn": balancing == "round_robin"})
        config = json.loads((folder / "gateway/litellm.yaml").read_text())
        config["router_settings"] |= {"fallbacks": [{"local": ["cheap"]}], "routing_strategy": STRATEGIES[balancing]}
        (folder / "gateway/litellm.yaml").write_text(json.dumps(config))
        self.ca = authority.ca

    @contextmanager
    def started(self) -> Iterator[Nodes]:
        with pytest.MonkeyPatch.context() as patch:
            # As the nodes' system trusts the cluster's authority.
            patch.setenv("SSL_CERT_FILE", str(self.ca))
            self.gateway.start()
        try:
            yield self
        finally:
            self.gateway.kill()

    def asked(self) -> list[int]:
        return [each.asked.count("POST /api/chat") for each in self.ollamas]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    upstream = StandIn()
    with ExitStack() as stack, Nodes(tmp_path_factory.mktemp("places"), upstream, stack).started() as found:
        yield found
    upstream.stop()


@pytest.mark.requirement("3.4.1", part="the cluster's own nodes behind a real LiteLLM, Ollama a stand-in")
@pytest.mark.requirement("3.4.3", part="nodes that hold the model, as it changes, behind a real LiteLLM")
@pytest.mark.requirement("3.4.4", part="round robin among the cluster's nodes, behind a real LiteLLM")
def test_calls_are_shared_by_the_nodes_that_hold_the_model(nodes: Nodes) -> None:
    gateway = nodes.gateway
    for number in range(12):
        answer = gateway.chat(model="local", stream=number % 2 == 1)
        assert answer.status_code == 200 and "word" in answer.text, answer.text
    assert nodes.asked() == [6, 6], "they have turns"
    assert not any(line.startswith("POST /v1") for each in nodes.ollamas for line in each.asked)
    wait_for(lambda: [row["state"] for row in gateway.rows()] == ["spent"] * 12, 10, "all are counted")
    assert reports.served(gateway.rows()) == {"n1": 6, "n2": 6}
    assert all(row["cost_nano"] == 0 and row["tokens_in"] == 7 and row["model"] == "local" for row in gateway.rows())
    assert gateway.chat(model="gone").status_code == 503, "no node holds it"

    body = {"model": "local", "input": ["a", "b"]}
    vectors = requests.post(f"{gateway.url}/v1/embeddings", json=body, headers=gateway.client(), timeout=30)
    assert vectors.status_code == 200 and [each["embedding"] for each in vectors.json()["data"]] == [[0.5, 0.25]] * 2, vectors.text
    wait_for(lambda: gateway.rows()[-1]["state"] == "spent", 10, "it is counted")
    row = gateway.rows()[-1]
    assert (row["provider"], row["cost_nano"], row["tokens_in"]) == ("cluster", 0, 2)

    nodes.members.pop(0)  # as when its lease ends
    before = nodes.asked()

    def moved() -> bool:
        former = nodes.asked()
        assert all(gateway.chat(model="local").status_code == 200 for _ in range(4))
        return nodes.asked()[0] == former[0]

    wait_for(moved, 20, "calls go to the node that is left")
    assert nodes.asked()[1] > before[1]

    nodes.members.clear()
    wait_for(lambda: gateway.chat(model="local").text.count("word") == 20, 20, "without a node, the fallback answers")
    nodes.members[:] = nodes.all
    former = nodes.asked()

    def back() -> bool:
        gateway.chat(model="local")
        return nodes.asked()[0] > former[0] and nodes.asked()[1] > former[1]

    wait_for(back, 30, "nodes that come back are used again")
    assert TOKEN not in gateway.log.read_text()


@pytest.mark.requirement("4.2.2", part="own prices for the cluster's nodes, as the forecast counts them")
@pytest.mark.parametrize("stream", [False, True])
def test_calls_of_the_clusters_own_cost_what_is_declared(nodes: Nodes, stream: bool) -> None:
    gateway, before = nodes.gateway, len(nodes.gateway.rows())
    assert gateway.chat(model="priced", stream=stream).status_code == 200
    wait_for(lambda: len(rows := gateway.rows()) > before and rows[-1]["state"] == "spent", 10, "it is counted")
    row = gateway.rows()[-1]
    assert row["tokens_in"] and row["tokens_out"] and row["cost_nano"] == row["tokens_in"] * 1000 + row["tokens_out"] * 2000


@pytest.mark.requirement("3.4.4", part="a node that does not answer is left for others")
def test_a_node_that_does_not_answer_is_no_end(nodes: Nodes) -> None:
    nodes.members[:] = [member("n1", 9, "tiny:latest"), nodes.all[1]]
    time.sleep(6)  # until another look is due
    for _ in range(3):
        nodes.gateway.chat(model="local")
    time.sleep(1)
    answers = [nodes.gateway.chat(model="local") for _ in range(8)]
    assert all(answer.status_code == 200 for answer in answers), [answer.text for answer in answers]


@pytest.mark.requirement("3.4.4")
def test_calls_are_balanced_as_declared(tmp_path: Path) -> None:
    """In turn, by the VRAM of the nodes' GPUs, to who has the fewest calls, and to who answers fastest; one gateway each."""
    calls, upstream = 60, StandIn()

    def shared(balancing: str, seconds: float = 0.0, at_once: int = 1, vram_gib: tuple[int, int] = (0, 0)) -> list[int]:
        """How many calls each node has had, of which the first takes so long for an answer."""
        folder = tmp_path / balancing
        folder.mkdir()
        with ExitStack() as stack, Nodes(folder, upstream, stack, balancing, vram_gib).started() as nodes:
            nodes.ollamas[0].seconds = seconds
            with ThreadPoolExecutor(at_once) as pool:
                assert {answer.status_code for answer in pool.map(lambda _: nodes.gateway.chat(model="local"), range(calls))} == {200}
            return nodes.asked()

    try:
        assert shared("round_robin") == [calls // 2, calls // 2]
        first, second = shared("weighted", vram_gib=(72, 8))  # by chance: 54 of 60, with a deviation of 2.3
        assert first + second == calls and 40 <= first <= calls, (first, second)
        first, second = shared("least_busy", seconds=0.5, at_once=6)
        assert first + second == calls and second > 2 * first > 0, (first, second)
        first, second = shared("latency", seconds=0.3)
        assert first + second == calls and second > 4 * first > 0, (first, second)
    finally:
        upstream.stop()
