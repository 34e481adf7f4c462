# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the benchmark makes of figures, and its measure of models, before a stand-in for Ollama's API."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.bzzz.cluster.plugins.module_utils import benchmark
from ansible_collections.bzzz.cluster.plugins.module_utils.node import bench

SPEEDS = {"tiny:latest": 20.0, "large:7b": 5.0, "mute:latest": 0.0}


@pytest.fixture
def ollama() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Its address, and what it was asked to write. It holds three models, of which one is loaded."""
    asked: list[dict[str, Any]] = []

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            names = ["tiny:latest"] if self.path == "/api/ps" else list(SPEEDS)
            self.answer({"models": [{"name": name} for name in names]})

        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            speed, tokens = SPEEDS[asked[-1]["model"]], asked[-1]["options"]["num_predict"]
            self.answer({"eval_count": tokens, "eval_duration": round(tokens / speed * 1e9)} if speed else {"done": True})

        def answer(self, document: Any) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(document).encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/", asked
    server.shutdown()
    server.server_close()


def measured(url: str, names: list[str], least: float = 0) -> list[dict[str, Any]]:
    wanted, limits = benchmark.payload("n1", {"models": {"url": url, "names": names, "tokens": 8, "min_tokens_per_second": least}})
    return benchmark.checks("n1", "validation", bench.main(wanted), limits)


@pytest.mark.requirement("F8", part="tokens a second of each model against a minimum, before a stand-in for Ollama")
def test_models_are_measured_and_left_as_they_were(ollama: tuple[str, list[dict[str, Any]]]) -> None:
    url, asked = ollama
    (check,) = measured(url, ["tiny", "large:7b", "elsewhere"], 5)
    assert (check["id"], check["status"], check["seen"]) == ("bench_models", "pass", "5 tokens/s (large:7b 5, tiny:latest 20)")
    assert {each["model"]: each.get("keep_alive") for each in asked} == {"large:7b": 0, "tiny:latest": None}, "unloaded where it was not"
    (slow,) = measured(url, ["large:7b"], 6)
    assert slow["status"] == "fail" and slow["expected"] == "at least 6 tokens/s" and "models plan" in slow["remedy"]
    (broken,) = measured(url, ["mute"])
    assert broken["status"] == "fail" and "mute:latest wrote nothing" in broken["seen"]
    assert measured(url, ["elsewhere"]) == [], "a node that holds none has nothing to measure"
    (gone,) = measured("http://127.0.0.1:9", ["tiny"])
    assert gone["status"] == "fail" and "refused" in gone["seen"]


def test_each_node_sends_to_the_next() -> None:
    peers = [{"name": f"n{number}", "address": f"192.0.2.{number}"} for number in (1, 2, 3)]
    to = {}
    for peer in peers:
        wanted, limits = benchmark.payload(peer["name"], {"network": {"peers": peers, "port": 5201, "min_mib_per_second": 100}})
        to[peer["name"]] = wanted["network"]["name"]
        assert limits == {"network": 100}
    assert to == {"n1": "n2", "n2": "n3", "n3": "n1"}
    assert benchmark.payload("n1", {"network": {"peers": peers[:1], "port": 5201}})[0] == {}
    figures = {"network": {"peer": "n2", "mib_per_second": 90.0}}
    (check,) = benchmark.checks("n1", "validation", figures, {"network": 100})
    assert (check["status"], check["seen"], check["expected"]) == ("fail", "90 MiB/s to n2", "at least 100 MiB/s")
