# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Copies of models between nodes, over mutual TLS with the cluster's certificates, for the length of a run.

A node that holds models serves their manifests and blobs, and nothing else, to the nodes that are named: who asks must show a
certificate of the cluster's authority for one of these names. Nobody has to be told a secret. What is taken is put in place only when its
SHA-256 is what its name says, the manifest last.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import socket
import ssl
import threading
import time
import urllib.parse
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from . import models

CA, CERTIFICATE, KEY = "/etc/bzzz/tls/ca.crt", "/etc/bzzz/tls/node.crt", "/etc/bzzz/tls/node.key"
LOCK = "/run/bzzz-models-serve.lock"
# The run ends it; this is for one that was killed. Takers come as Ansible's forks let them, hours after the first where models are large.
IDLE_SECONDS = 4 * 3600.0
STALL_SECONDS = 30.0
BLOCK = 1 << 20


# --- who has a model


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int, context: ssl.SSLContext, store: str, names: list[str], peers: list[str]) -> None:
        self.address_family = socket.AF_INET6 if _has_ipv6() else socket.AF_INET
        super().__init__(("::" if self.address_family == socket.AF_INET6 else "", port), _Answers)
        self.context, self.store, self.names, self.peers = context, store, set(names), set(peers)
        self.blobs: set[str] = set()
        self.used, self.busy, self.lock = time.monotonic(), 0, threading.Lock()

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)  # not HTTPServer's own, which asks a name server who this is

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A peer that has gone, or is none, is nothing to be told."""


def _has_ipv6() -> bool:
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close()
    except OSError:
        return False
    return True


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        """The handshake, in the connection's own thread: a peer that is slow or silent keeps nobody else waiting."""
        self.request.settimeout(STALL_SECONDS)
        self.request = self.server.context.wrap_socket(self.request, server_side=True)
        shown = self.request.getpeercert() or {}
        names = {text for _kind, text in shown.get("subjectAltName", ())}
        if not names & self.server.peers:
            raise ConnectionError("no node that is served")
        super().setup()

    def finish(self) -> None:
        """The socket of this thread is not the one that the server closes."""
        super().finish()
        self.request.close()

    def do_GET(self) -> None:
        """A manifest by its model's name, or a blob that one of these has named."""
        with self.server.lock:
            self.server.busy += 1
        try:
            self._answer(urllib.parse.unquote(self.path))
        finally:
            with self.server.lock:
                self.server.busy -= 1
                self.server.used = time.monotonic()

    def _answer(self, path: str) -> None:
        kind, what = path.split("/", 2)[1:]
        if kind == "manifests" and what in self.server.names:
            with open(models.manifest_path(self.server.store, what), "rb") as file:
                manifest = file.read(models.MANIFEST_BYTES)
            self.server.blobs.update(models.blobs(manifest))
            self._head(200, len(manifest))
            self.wfile.write(manifest)
        elif kind == "blobs" and what in self.server.blobs:
            with open(models.blob_path(self.server.store, what), "rb") as file:
                size = os.fstat(file.fileno()).st_size
                begin = re.fullmatch(r"bytes=([0-9]+)-", self.headers.get("Range") or "bytes=0-")
                start = min(int(begin[1]), size) if begin else 0
                file.seek(start)
                self._head(206 if start else 200, size - start)
                shutil.copyfileobj(file, self.wfile, BLOCK)
        else:
            self._head(404, 0)

    def _head(self, status: int, length: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, *_said: Any) -> None:
        """Nobody reads it."""


def server_way() -> ssl.SSLContext:
    """With what this node shows who it is, and asks its peers. Raises OSError where it has no certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=CA)
    context.load_cert_chain(CERTIFICATE, KEY)
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def serve(payload: dict[str, Any]) -> dict[str, Any]:
    """``{port, store, names, peers}``: serve these models to these nodes, until ``stop``, or until nobody has asked for four hours."""
    from . import listen  # noqa: PLC0415

    lock = models.take_turn(LOCK)
    listen.stop()  # what was to be tried on this port has been
    try:
        server = _Server(int(payload["port"]), server_way(), payload["store"], payload["names"], payload["peers"])
    except OSError as error:
        os.close(lock)
        raise models.Refused(f"port {payload['port']}: {error}") from error
    if os.fork() == 0:
        try:
            os.pwrite(lock, str(os.getpid()).encode(), 0)
            listen.detach({lock, server.fileno()})
            models.become_owner(payload["store"])
            threading.Thread(target=server.serve_forever, daemon=True).start()
            while server.busy or time.monotonic() - server.used < IDLE_SECONDS:
                time.sleep(1)
        finally:
            os._exit(0)
    server.socket.close()
    os.close(lock)
    return {"serving": payload["names"]}


def stop(_payload: dict[str, Any]) -> dict[str, Any]:
    """End it."""
    models.end_turn(LOCK)
    return {"serving": []}


# --- who wants one


def client_way() -> ssl.SSLContext | str:
    """With what a peer is asked; why that cannot be, where this node has no certificate of the cluster."""
    try:
        context = ssl.create_default_context(cafile=CA)
        context.load_cert_chain(CERTIFICATE, KEY)
    except OSError as error:
        return f"this node has no certificate of the cluster: {error}"
    return context


class _Peer:
    """A connection to the node that has it, for one request after the other."""

    def __init__(self, name: str, address: str, port: int, way: ssl.SSLContext) -> None:
        self._connection = HTTPConnection(address, port, timeout=STALL_SECONDS)
        plain = socket.create_connection((address, port), STALL_SECONDS)
        self._connection.sock = way.wrap_socket(plain, server_hostname=name)

    def get(self, path: str, start: int = 0) -> Any:
        """The answer to a request; Refused where it is not what was asked for."""
        self._connection.request("GET", urllib.parse.quote(path), headers={"Range": f"bytes={start}-"} if start else {})
        answer = self._connection.getresponse()
        if answer.status != (206 if start else 200):
            raise models.Refused(f"it answers {answer.status} for {path}")
        return answer

    def close(self) -> None:
        """It is not needed any more."""
        self._connection.close()


def take(store: str, one: dict[str, Any], progress: models.Progress, way: ssl.SSLContext | str) -> None:
    """Copy a model, ``{name, digest, from: {name, address, port}}``, into this node's store. Raises Refused, OSError, HTTPException."""
    if isinstance(way, str):
        raise models.Refused(way)
    where = one["from"]
    with contextlib.closing(_Peer(where["name"], where["address"], int(where["port"]), way)) as peer:
        manifest = peer.get(f"/manifests/{models.short(one['name'])}").read(models.MANIFEST_BYTES)
        if hashlib.sha256(manifest).hexdigest() != one["digest"]:
            raise models.Refused(f"its manifest there has another digest than {one['digest']}")
        parts = models.blobs(manifest)
        done, total = 0, sum(parts.values())
        for digest, size in parts.items():
            path = models.blob_path(store, digest)
            if not (os.path.exists(path) and os.path.getsize(path) == size):
                _blob(peer, store, digest, size, lambda far, before=done: progress.tell(done_bytes=before + far, total_bytes=total))
            done += size
            progress.tell(done_bytes=done, total_bytes=total, doing="")
    # Ollama throws away what no manifest names, when it starts.
    if not all(os.path.exists(models.blob_path(store, digest)) for digest in parts):
        raise models.Refused("Ollama was started anew meanwhile")
    target = models.manifest_path(store, one["name"])
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with open(f"{target}.bzzz", "wb") as file:
        file.write(manifest)
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{target}.bzzz", target)


def _blob(peer: _Peer, store: str, digest: str, size: int, tell: Any) -> None:
    """One blob, from where an earlier attempt has ended; in place only when its checksum is right."""
    target = models.blob_path(store, digest)
    half = target + models.COPIED
    os.makedirs(os.path.dirname(target), exist_ok=True)
    checksum = hashlib.sha256()
    with open(os.open(half, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
        far = 0
        for block in iter(lambda: file.read(BLOCK), b""):
            checksum.update(block)
            far += len(block)
        if far < size:
            answer = peer.get(f"/blobs/{digest}", far)
            while block := answer.read(BLOCK):
                file.write(block)
                checksum.update(block)
                far += len(block)
                tell(far)
        file.flush()
        os.fsync(file.fileno())
    if f"sha256:{checksum.hexdigest()}" != digest:
        os.unlink(half)
        raise models.Refused(f"what came as {digest} has checksum {checksum.hexdigest()}")
    os.replace(half, target)
