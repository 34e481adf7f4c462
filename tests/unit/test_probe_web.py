# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Probes of HTTP, TLS and certificates against real servers on the loopback, with a certificate authority made for the test."""

from __future__ import annotations

import datetime
import ipaddress
import json
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.bzzz.cluster.plugins.module_utils import probe
from ansible_collections.bzzz.cluster.plugins.module_utils.node import bench, probes
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

CANARY = "canary-8c1f"


def look(kind: str, args: Any, **more: Any) -> dict[str, Any]:
    entry = probe.understand("test", {"id": "x", "title": "x", "remedy": "x", kind: args, **more})
    (found,) = probes.main(probe.question("me", [entry]))["outcomes"]
    assert CANARY not in json.dumps(found)
    return found


class Authority:
    """A certificate authority whose files are in a directory."""

    def __init__(self, where: Path, name: str) -> None:
        self.where, self.key = where, ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        extension = x509.BasicConstraints(ca=True, path_length=None)
        self.path = where / f"{name}.crt"
        self._write(self.path, self._builder(self.name, self.key, 3650).add_extension(extension, critical=True))

    def leaf(self, name: str, days: float = 90) -> tuple[str, str]:
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName("node1"), x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.IPAddress(ipaddress.ip_address("fd00::1"))]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        path, key_path = self.where / f"{name}.crt", self.where / f"{name}.key"
        self._write(path, self._builder(subject, key, days).add_extension(x509.SubjectAlternativeName(names), critical=False))
        key_path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        key_path.chmod(0o640)
        return str(path), str(key_path)

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, days: float) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.timezone.utc)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=30))
            .not_valid_after(now + datetime.timedelta(days=days))
        )

    def _write(self, path: Path, builder: x509.CertificateBuilder) -> None:
        path.write_bytes(builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/private" and self.headers["Authorization"] != f"Bearer {CANARY}":
            self._answer(401, b"who are you?")
        elif self.path == "/echo":
            self._answer(500, str(self.headers["Authorization"]).encode())
        elif self.path == "/slow":
            time.sleep(0.4)
            self._answer(200, b"late")
        elif self.path == "/text":
            self._answer(200, b"bzzz_up 1\n")
        else:
            self._answer(200, json.dumps({"status": "pass", "members": [{"name": "a"}, {"name": "b"}]}).encode())

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args: object) -> None:
        pass


def serve(context: ssl.SSLContext | None = None) -> tuple[ThreadingHTTPServer, int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server, server.server_address[1]


@pytest.fixture
def plain() -> Iterator[str]:
    server, port = serve()
    yield f"http://127.0.0.1:{port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ca")


def context_for(authority: Authority, days: float = 90) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.leaf("node1", days))
    return context


@pytest.fixture
def secure(authority: Authority) -> Iterator[int]:
    server, port = serve(context_for(authority))
    yield port
    server.shutdown()
    server.server_close()


def test_http_status_json_and_body(plain: str) -> None:
    found = look("http", {"url": plain + "/health", "json": {"status": "pass", "members.#": 2, "members.1.name": "b"}})
    assert found["status"] == "pass" and found["data"]["latency_ms"] > 0
    wrong = look("http", {"url": plain + "/health", "json": {"members.#": 3, "members.7.name": "c"}})
    assert wrong["status"] == "fail"
    assert "members.# = 2" in wrong["seen"] and "members.7.name = null" in wrong["seen"] and 'body: {"status"' in wrong["seen"]
    assert look("http", {"url": plain + "/text", "body": "^bzzz_up 1$"})["status"] == "pass"
    assert look("http", {"url": plain + "/text", "body": "^bzzz_up 0$"})["status"] == "fail"
    assert look("http", {"url": plain + "/text", "json": {"status": "pass"}})["status"] == "fail"
    assert "status 401" in look("http", plain + "/private")["seen"]


def test_http_that_is_slow_or_gone(plain: str) -> None:
    assert look("http", {"url": plain + "/slow", "latency_max_ms": 100})["status"] == "fail"
    assert look("http", {"url": plain + "/slow", "latency_max_ms": 5000})["status"] == "pass"
    began = time.monotonic()
    assert look("http", {"url": plain + "/slow", "timeout": 0.1})["seen"].startswith("no answer: TimeoutError")
    assert time.monotonic() - began < 0.35
    assert look("http", "http://127.0.0.1:1/")["seen"].startswith("no answer: ConnectionRefusedError")
    assert look("http", "nonsense")["status"] == "fail"


def test_secrets_are_sent_but_never_told(plain: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(CANARY + "\n")
    assert look("http", {"url": plain + "/private", "token_file": str(tmp_path / "token")})["status"] == "pass"
    assert look("http", {"url": plain + "/private", "headers": {"Authorization": f"Bearer {CANARY}"}})["status"] == "pass"
    echoed = look("http", {"url": plain + "/echo", "headers": {"Authorization": f"Bearer {CANARY}"}})
    assert echoed["status"] == "fail" and "********" in echoed["seen"]
    assert "control characters" in look("http", {"url": plain, "headers": {"X": f"{CANARY}\nX: y"}})["seen"]
    assert "No such file" in look("http", {"url": plain, "token_file": str(tmp_path / "none")})["seen"]


def test_no_proxy_is_asked(plain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert look("http", plain)["status"] == "pass"


def test_https_knows_its_authority(authority: Authority, secure: int, tmp_path: Path) -> None:
    url, ca = f"https://127.0.0.1:{secure}/health", str(authority.path)
    assert look("http", {"url": url, "ca": ca})["status"] == "pass"
    assert look("http", {"url": url, "ca": ca, "server_name": "node1"})["status"] == "pass"
    assert "CERTIFICATE_VERIFY_FAILED" in look("http", {"url": url, "ca": ca, "server_name": "node2"})["seen"]
    assert "CERTIFICATE_VERIFY_FAILED" in look("http", {"url": url, "ca": str(Authority(tmp_path, "other").path)})["seen"]


def test_https_with_a_client_certificate(authority: Authority) -> None:
    context = context_for(authority)
    context.load_verify_locations(authority.path)
    context.verify_mode = ssl.CERT_REQUIRED
    server, port = serve(context)
    url, (certificate, key) = f"https://127.0.0.1:{port}/", authority.leaf("client")
    assert look("http", {"url": url, "ca": str(authority.path), "certificate": certificate, "key": key})["status"] == "pass"
    assert look("http", {"url": url, "ca": str(authority.path)})["status"] == "fail"
    server.shutdown()
    server.server_close()


@pytest.mark.requirement("2.3.1", part="what a server presents")
def test_tls(authority: Authority, secure: int, tmp_path: Path) -> None:
    good = {"port": secure, "ca": str(authority.path)}
    found = look("tls", {**good, "sans": ["node1", "fd00::1"], "min_days_left": 30})
    assert found["status"] == "pass" and 89 <= found["data"]["days_left"] <= 90
    assert "fewer than 120 days left" in look("tls", {**good, "min_days_left": 120})["seen"]
    assert "not for node9" in look("tls", {**good, "sans": ["node1", "node9"]})["seen"]
    assert "also speaks TLSv1.2" in look("tls", {**good, "min_version": "TLSv1.3"})["seen"]
    assert "CERTIFICATE_VERIFY_FAILED" in look("tls", {"port": secure, "ca": str(Authority(tmp_path, "other").path)})["seen"]
    assert "CERTIFICATE_VERIFY_FAILED" in look("tls", {**good, "server_name": "node2"})["seen"]
    assert "refused" in look("tls", {**good, "port": 1})["seen"]


def test_tls_of_old_versions(authority: Authority) -> None:
    context = context_for(authority)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    server, port = serve(context)
    assert "also speaks TLSv1, also speaks TLSv1.1" in look("tls", {"port": port, "ca": str(authority.path)})["seen"]
    server.shutdown()
    server.server_close()


def test_expired_certificate(authority: Authority) -> None:
    server, port = serve(context_for(authority, days=-1))
    assert "certificate has expired" in look("tls", {"port": port, "ca": str(authority.path)})["seen"]
    server.shutdown()
    server.server_close()


@pytest.mark.requirement("2.3.1", part="certificate files")
def test_certificate_files(authority: Authority, tmp_path: Path) -> None:
    path, key = authority.leaf("node1")
    good = {"path": path, "ca": str(authority.path), "key": key, "owner": "root", "sans": ["node1", "127.0.0.1", "fd00:0::1"]}
    assert look("certificate", {**good, "min_days_left": 30})["status"] == "pass"
    assert "fewer than 120 days left" in look("certificate", {**good, "min_days_left": 120})["seen"]
    assert "not for node2" in look("certificate", {**good, "sans": ["node2"]})["seen"]
    _other, other_key = authority.leaf("other")
    assert "the key isn't this certificate's" in look("certificate", {**good, "key": other_key})["seen"]
    assert "isn't owned by nobody" in look("certificate", {**good, "owner": "nobody"})["seen"]
    stranger = Authority(tmp_path, "stranger")
    assert "not valid under its CA" in look("certificate", {**good, "ca": str(stranger.path)})["seen"]
    expired, _key = authority.leaf("old", days=-1)
    assert "fewer than 0 days left" in look("certificate", {"path": expired})["seen"]
    Path(key).chmod(0o644)
    assert "can be read by anyone" in look("certificate", good)["seen"]
    assert look("certificate", str(tmp_path / "none"))["status"] == "fail"
    (tmp_path / "junk").write_text("junk")
    assert look("certificate", str(tmp_path / "junk"))["status"] == "fail"


@pytest.mark.requirement("F8", part="latency and disk figures")
def test_bench_of_service_and_disk(plain: str, tmp_path: Path) -> None:
    wanted = {"http": {"url": plain + "/health", "requests": 5}, "disk": {"path": str(tmp_path), "mib": 16}, "cpu": {"seconds": 0.05}}
    found = bench.main(wanted)
    assert found["http"]["requests"] == 5 and 0 < found["http"]["median_ms"] <= found["http"]["slowest_ms"]
    assert found["disk"]["mib"] == 16 and found["disk"]["mib_per_second"] > 0
    assert found["cpu"]["mib_per_second"] > 0
    assert list(tmp_path.iterdir()) == []
    failing = bench.main({"http": {"url": plain + "/private"}, "disk": {"path": str(tmp_path / "none")}, "nope": {}})
    assert [set(one) for one in failing.values()] == [{"error"}] * 3
    assert "status 401" in failing["http"]["error"]
