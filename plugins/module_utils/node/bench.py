# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Small, bounded measurements of this node: disk, HTTP latency, throughput to a peer, hashing, models' tokens a second."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import statistics
import struct
import tempfile
import time
import urllib.request
from typing import Any, Callable

from .listen import GREETING
from .web import authorised, fetch

MIB = 1 << 20
LARGEST_MIB = 64


def disk(path: str, mib: int = LARGEST_MIB, seconds: float = 5) -> dict[str, Any]:
    """Write speed of the file system at `path` in MiB/s, down to the device. The file never has a name that could be left."""
    block = os.urandom(MIB)
    written = 0.0
    with tempfile.TemporaryFile(dir=path, buffering=0) as scratch:
        began = time.monotonic()
        while written < min(mib, LARGEST_MIB) and time.monotonic() - began < seconds:
            for _round in range(8):
                written += scratch.write(block) / MIB
            os.fsync(scratch.fileno())
        took = time.monotonic() - began
    return {"mib": round(written), "mib_per_second": round(written / took, 1)}


def http(url: str, requests: int = 5, timeout: float = 5, **how: Any) -> dict[str, Any]:
    """Median and slowest latency in milliseconds, each request on a new connection, one after the other."""
    how["headers"] = authorised(how.get("headers"), how.pop("token_file", None))
    times = []
    for _round in range(max(1, min(requests, 200))):
        status, _body, seconds = fetch(url, timeout, **how)
        if status != 200:
            raise OSError(f"status {status} from {url}")
        times.append(seconds * 1000)
    return {"requests": len(times), "median_ms": round(statistics.median(times), 2), "slowest_ms": round(max(times), 2)}


def network(name: str, address: str, port: int, mib: int = LARGEST_MIB, seconds: float = 3) -> dict[str, Any]:
    """Throughput to a peer's `listen` in MiB/s, by what has arrived there."""
    block = memoryview(os.urandom(MIB))
    sent = 0
    with socket.create_connection((address, port), seconds + 5) as way:
        if _exactly(way, len(GREETING)) != GREETING:
            raise OSError(f"port {port} of {name} is another service's")
        began = time.monotonic()
        while sent < min(mib, LARGEST_MIB) * MIB and time.monotonic() - began < seconds:
            sent += way.send(block)
        way.shutdown(socket.SHUT_WR)
        (arrived,) = struct.unpack("!Q", _exactly(way, 8))
        took = time.monotonic() - began
    return {"peer": name, "mib": round(arrived / MIB), "mib_per_second": round(arrived / MIB / took, 1)}


def _exactly(way: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        part = way.recv(count - len(found))
        if not part:
            raise OSError("the connection ended early")
        found += part
    return found


def cpu(seconds: float = 0.5) -> dict[str, Any]:
    """SHA-256 of one thread in MiB/s."""
    block, done = bytes(MIB), 0
    began = time.monotonic()
    while (took := time.monotonic() - began) < min(seconds, 5):
        hashlib.sha256(block).digest()
        done += 1
    return {"mib_per_second": round(done / took, 1)}


def models(url: str, names: list[str], tokens: int = 32, seconds: float = 60) -> dict[str, Any]:
    """Tokens a second that each of these models writes, as its Ollama counts them, and the least of it.

    Only those that this node holds; one that was not loaded before is unloaded again.
    """
    base = url.rstrip("/")
    held = {one["name"] for one in _ollama(f"{base}/api/tags", seconds)["models"]}
    loaded = {one["name"] for one in _ollama(f"{base}/api/ps", seconds)["models"]}
    found = {}
    for name in sorted(held & set(names)):
        asked: dict[str, Any] = {"model": name, "prompt": "Count to a hundred.", "stream": False, "options": {"num_predict": tokens}}
        told = _ollama(f"{base}/api/generate", seconds, asked if name in loaded else {**asked, "keep_alive": 0})
        if not told.get("eval_count") or not told.get("eval_duration"):
            raise OSError(f"{name} wrote nothing")
        found[name] = round(told["eval_count"] / told["eval_duration"] * 1e9, 1)
    return {"tokens_per_second": min(found.values()), "models": found} if found else {}


def _ollama(url: str, seconds: float, asked: dict[str, Any] | None = None) -> dict[str, Any]:
    """Of this node's own, to which no proxy leads."""
    body = None if asked is None else json.dumps(asked).encode()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, body, {"Content-Type": "application/json"}), timeout=seconds) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


KINDS: dict[str, Callable[..., dict[str, Any]]] = {
    "disk": disk,
    "http": http,
    "gateway": http,
    "network": network,
    "cpu": cpu,
    "models": models,
}


def main(payload: dict[str, Any]) -> dict[str, Any]:
    """Kind -> its arguments; the answer has each one's figures, or ``{"error": why}``. One after the other: they share the node."""
    answer = {}
    for kind, args in payload.items():
        try:
            answer[kind] = KINDS[kind](**args)
        except Exception as error:
            answer[kind] = {"error": f"{type(error).__name__}: {error}"}
    return answer
