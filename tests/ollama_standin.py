# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A stand-in for Ollama, on loopback, and the node service's /ollama before it over TLS, in this process.

It answers as Ollama's API is documented: ``/api/tags``, ``/api/chat`` (in lines of JSON where it streams), ``/api/show``, ``/api/version``,
``/v1/embeddings``.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import uvicorn
from node_cluster import free_ports, wait_for
from starlette.routing import Mount

from bzzz_setup.node import ollama
from bzzz_setup.node.web import application

SHOWN = {"model_info": {}, "details": {}, "capabilities": ["completion"]}
TOKEN = "canary-of-the-gateway-7d1f"


class StandIn:
    """One Ollama with these models; ``asked`` are the requests that reached it, ``cut`` how many answers nobody heard to their end."""

    def __init__(self, *models: str, pieces: int = 3, seconds: float = 0.0) -> None:
        self.models, self.pieces, self.seconds = list(models), pieces, seconds
        self.asked: list[str] = []
        self.show: Callable[[dict[str, Any]], dict[str, Any]] = lambda _asked: dict(SHOWN)
        self.cut = 0
        standin = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                standin.asked.append(f"GET {self.path}")
                tags = {"models": [{"name": name, "model": name} for name in standin.models]}
                self._send({"/api/tags": tags, "/api/ps": {"models": []}}.get(self.path, {"version": "0.0.0-stand-in"}))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                standin.asked.append(f"POST {self.path}")
                if self.path == "/api/show":
                    return self._send(standin.show(body))
                if self.path == "/v1/embeddings":
                    vectors = [{"object": "embedding", "index": index, "embedding": [0.5, 0.25]} for index, _ in enumerate(body["input"])]
                    usage = {"prompt_tokens": len(vectors), "total_tokens": len(vectors)}
                    return self._send({"object": "list", "model": body["model"], "data": vectors, "usage": usage})
                about = {"model": body["model"], "created_at": "2026-11-28T00:00:00Z"}
                end = {**about, "done": True, "done_reason": "stop", "prompt_eval_count": 7, "eval_count": standin.pieces}
                message = {"role": "assistant", "content": "word " * standin.pieces}
                if body.get("stream") is False:
                    time.sleep(standin.seconds)
                    return self._send({**end, "message": message})
                self.send_response(200)
                self.send_header("Content-Type", "application/x-ndjson")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                try:
                    for _ in range(standin.pieces):
                        self._line({**about, "done": False, "message": {"role": "assistant", "content": "word "}})
                        time.sleep(standin.seconds)
                    self._line({**end, "message": {"role": "assistant", "content": ""}})
                    self.wfile.write(b"0\r\n\r\n")
                except OSError:
                    standin.cut += 1
                    self.close_connection = True
                return None

            def _line(self, document: Any) -> None:
                line = json.dumps(document).encode() + b"\n"
                self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
                self.wfile.flush()

            def _send(self, document: Any) -> None:
                body = json.dumps(document).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def service(endpoints: list[str], members: list[dict[str, Any]]) -> Any:
    """As much of a node service as /ollama asks; the lists may change meanwhile."""
    return SimpleNamespace(
        settings=SimpleNamespace(ollama=SimpleNamespace(token_sha256=(hashlib.sha256(TOKEN.encode()).hexdigest(),))),
        detector=SimpleNamespace(facts={"system": {"ollama": {"endpoints": endpoints}}}),
        cluster=lambda: {"members": members},
    )


@contextlib.contextmanager
def serving(about: Any, certificate: tuple[Path, Path] | None = None, handed: ollama.Ollama | None = None) -> Iterator[int]:
    """The port of /ollama of such a service, over TLS where there is a certificate."""
    (port,) = free_ports(1)
    files = {"ssl_certfile": str(certificate[0]), "ssl_keyfile": str(certificate[1])} if certificate else {}
    app = application([Mount(ollama.PREFIX, handed or ollama.Ollama(about))])
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error", **files))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_for(lambda: server.started, 20, "the node service listens")
    try:
        yield port
    finally:
        server.should_exit = True
        thread.join(10)
