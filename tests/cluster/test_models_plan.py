# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""`bzzz-setup models plan` on a node. Of its GPU there is nvidia-smi's stand-in: a Tesla T4 as one really told of itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Tools

from bzzz_setup.events import Refusal
from bzzz_setup.lab import Lab

pytestmark = pytest.mark.alone
NODE = "bzzz-node1"
CAPTURE = Path(__file__).parents[1] / "fixtures/gpu/nvidia-smi-q-x.tesla-t4.xml"
GEOMETRY = {"layers": 36, "embedding": 4096, "heads": 32, "heads_kv": 8, "head_length": 128, "vocabulary": 151936}
# Answers as Ollama does, and has three models: of one it can tell nothing, and one is loaded.
OLLAMA = """
import http.server, json
INFO = {"general.architecture": "x"}
INFO |= {"x.block_count": 4, "x.embedding_length": 64, "x.attention.head_count": 4, "x.attention.head_count_kv": 2}
MODELS = [{"name": name, "size": 5000000} for name in ("held:latest", "mute:latest", "busy:latest")]
LOADED = [{"name": "busy:latest", "size": 6000000}]
class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer({"/api/version": {"version": "1.0.0"}, "/api/tags": {"models": MODELS}, "/api/ps": {"models": LOADED}}[self.path])
    def do_POST(self):
        wanted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if (self.path, wanted) == ("/api/show", {"model": "held:latest", "verbose": True}):
            self.answer({"model_info": INFO})
        else:
            self.send_error(500)
    def answer(self, said):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(said).encode())
http.server.HTTPServer(("127.0.0.1", 11434), Answers).serve_forever()
"""


@pytest.fixture(scope="module")
def bzzz(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tools]:
    lab = Lab("models")
    try:
        lab.down()  # what a killed run left
        lab.up(1)
    except Refusal as reason:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(reason))
    try:
        lab.exec(NODE, ["sh", "-c", "cat > /usr/local/share/gpus.xml"], stdin=CAPTURE.read_text(encoding="utf-8"))
        tool = "#!/bin/sh\ncase $1 in -q) cat /usr/local/share/gpus.xml;; esac\n"
        lab.exec(NODE, ["sh", "-c", "cat > /usr/local/bin/nvidia-smi; chmod 755 /usr/local/bin/nvidia-smi"], stdin=tool)
        lab.exec(NODE, ["systemd-run", "--unit=stand-in", "python3", "-c", OLLAMA])
        yield Tools(lab, tmp_path_factory.mktemp("home"))
    finally:
        lab.down()


@pytest.mark.requirement("3.6.1", part="plan")
@pytest.mark.requirement("3.6.2", "5.5.2")
def test_models_are_planned_on_what_the_node_has_free(bzzz: Tools, tmp_path: Path) -> None:
    fits = {"name": "qwen3:8b", "size_mib": 100, "gpu": "required", "geometry": GEOMETRY}
    folder = bzzz.declare(tmp_path / "fits", {"models_wanted": [fits, {"name": "held", "gpu": "never", "nodes": [NODE]}]})
    found = bzzz.document("models", "plan", folder=folder)
    held, placed = found["placed"]
    assert (held["model"], held["disk_bytes"], found["nodes"][NODE]["memory"]["cache_bytes"]) == ("held:latest", 0, 4 * 4096 * 2 * 32 * 2)
    (gpu,) = found["nodes"][NODE]["gpus"]
    assert placed["node"] == NODE and gpu["models"] == ["qwen3:8b"] and gpu["uuid"] == placed["shares"][0]["uuid"]
    parts = ("weights_bytes", "cache_bytes", "overhead_bytes", "reserved_bytes", "free_bytes")
    assert sum(gpu[part] for part in parts) == gpu["total_bytes"] and gpu["cache_bytes"] == 576 << 20
    assert (found["refused"], found["unknown"], found["exit_code"]) == ([], [], 0)

    # More than the node has: it is loaded, and so has it already.
    folder = bzzz.declare(tmp_path / "busy", {"models_wanted": [{**fits, "name": "library/busy", "size_mib": 400000}]})
    (busy,) = bzzz.document("models", "plan", folder=folder)["placed"]
    assert (busy["model"], busy["node"], busy["shares"], busy["ram_bytes"]) == ("busy:latest", NODE, [], 0)

    folder = bzzz.declare(
        tmp_path / "not", {"models_wanted": [fits, {**fits, "name": "large", "size_mib": 400000}, {"name": "unheard-of"}, {"name": "mute"}]}
    )
    said = bzzz.setup("models", "plan", folder=folder, code=1).stdout
    assert "✔ qwen3:8b 1 on bzzz-node1" in said and "✘ large:latest 1 fits nowhere" in said, said
    assert "unheard-of: Nothing tells its size_mib and geometry" in said and "mute: Nothing tells its geometry" in said, said
    assert "Not all fits" in said, said
