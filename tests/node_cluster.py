# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A whole cluster on loopback: three etcd members under mutual TLS, and node services started from the built artifact."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import ipaddress
import json
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import tarfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
import sockets
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

TOKEN = "canary-token-5fd1c0f0b7"
PASSWORD = "canary correct horse battery"


# Below those that the kernel gives to outgoing connections, and each once: who asked for one may not listen on it yet.
_ports = iter(random.sample(range(15000, 32000), 17000))


def free_ports(number: int) -> list[int]:
    """Ports that nobody listens on, nor will."""
    found: list[int] = []
    while len(found) < number:
        port = next(_ports)
        with socket.socket() as trial, contextlib.suppress(OSError):
            trial.bind(("127.0.0.1", port))
            found.append(port)
    return found


def wait_for(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """The condition's first true value; fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        if value := condition():
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.05)


LOOPBACK = ipaddress.ip_address("127.0.0.1")


class Authority:
    """A test CA and leaves signed by it, as the role `tls` makes them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test CA")])
        builder = self._builder(self.name, self.key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        certificate = builder.add_extension(self._usage(signs=True), critical=True).sign(self.key, hashes.SHA256())
        self.ca = folder / "ca.crt"
        self.ca.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.timezone.utc)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(days=1))
            # Python 3.13 insists on these.
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )

    @staticmethod
    def _usage(signs: bool) -> x509.KeyUsage:
        others = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only", "decipher_only")
        return x509.KeyUsage(digital_signature=True, key_cert_sign=signs, crl_sign=signs, **dict.fromkeys(others, False))

    def leaf(self, name: str, address: str = "127.0.0.1") -> tuple[Path, Path]:
        """Certificate and key for an address, good for server and client (etcd's gateway is its own client)."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            self._builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key.public_key())
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address)), x509.DNSName(name)]), critical=False)
            .add_extension(self._usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        paths = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        return paths


def etcd_program() -> str:
    """The etcd to test with. Where it or etcdctl is missing, the test is skipped with the remedy; in CI that is a failure."""
    program = os.environ.get("BZZZ_TEST_ETCD", "etcd")
    if not shutil.which(program) or not shutil.which("etcdctl"):
        missing = "etcd is not installed here. Remedy: apt-get install etcd-server etcd-client"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return program


class EtcdCluster:
    """Three etcd members; each can be killed, paused and started again."""

    def __init__(self, folder: Path, authority: Authority, program: str = "etcd", members: int = 3) -> None:
        self.folder, self.program = folder, program
        ports = free_ports(2 * members)
        self.clients, self.peers = ports[:members], ports[members:]
        self.endpoints = [f"https://127.0.0.1:{port}" for port in self.clients]
        self.certificate, self.key = authority.leaf("etcd")
        self.ca = authority.ca
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        for index in range(members):
            self.start(index)
        wait_for(lambda: all(self.healthy(index) for index in range(members)), 30, "etcd is healthy")

    def start(self, index: int) -> None:
        tls = [f"--cert-file={self.certificate}", f"--key-file={self.key}", f"--trusted-ca-file={self.ca}", "--client-cert-auth"]
        tls += [f"--peer-{option[2:]}" for option in tls]
        cluster = ",".join(f"m{number}=https://127.0.0.1:{port}" for number, port in enumerate(self.peers))
        command = [
            self.program,
            f"--name=m{index}",
            f"--data-dir={self.folder / f'etcd{index}'}",
            f"--listen-client-urls={self.endpoints[index]}",
            f"--advertise-client-urls={self.endpoints[index]}",
            f"--listen-peer-urls=https://127.0.0.1:{self.peers[index]}",
            f"--initial-advertise-peer-urls=https://127.0.0.1:{self.peers[index]}",
            f"--initial-cluster={cluster}",
            "--logger=zap",
            *tls,
        ]
        with (self.folder / f"etcd{index}.log").open("ab") as log:
            self.processes[index] = subprocess.Popen(command, stdout=log, stderr=log)

    def kill(self, index: int) -> None:
        self.processes[index].kill()
        self.processes[index].wait()

    def pause(self, index: int) -> None:
        """Stand still, and not know it afterwards: as cut off as a member can be."""
        self.processes[index].send_signal(signal.SIGSTOP)

    def resume(self, index: int) -> None:
        self.processes[index].send_signal(signal.SIGCONT)

    def ctl(self, *arguments: str, index: int = 0) -> subprocess.CompletedProcess[str]:
        command = [
            "etcdctl",
            f"--endpoints={self.endpoints[index]}",
            f"--cacert={self.ca}",
            f"--cert={self.certificate}",
            f"--key={self.key}",
        ]
        environ = {**os.environ, "ETCDCTL_API": "3"}
        return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, env=environ, timeout=30)

    def healthy(self, index: int) -> bool:
        return self.ctl("endpoint", "health", index=index).returncode == 0

    def leader(self) -> int:
        """The index of the member that leads."""
        for index, process in self.processes.items():
            if process.poll() is None:
                answer = self.ctl("endpoint", "status", "--write-out=json", index=index)
                if answer.returncode == 0:
                    status = json.loads(answer.stdout)[0]["Status"]
                    if status["leader"] == status["header"]["member_id"]:
                        return index
        raise AssertionError("etcd has no leader")

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()


class Node:
    """One node service, as a process of its own."""

    def __init__(self, cluster: Cluster, name: str, roles: list[str], primary: str | None, endpoints: list[str]) -> None:
        self.name, self.cluster = name, cluster
        self.port, self.events_port, self.mcp_port = free_ports(3)
        self.folder = cluster.folder / name
        self.data = self.folder / "data"
        self.data.mkdir(parents=True)
        self.log = self.folder / "log"
        certificate, key = cluster.authority.leaf(name)
        self.config = self.folder / "config.yaml"
        self.settings: dict[str, Any] = {
            "node": {"name": name, "address": "127.0.0.1", "roles": roles, "labels": {"rack": "a"}},
            "cluster": {"name": "test"},
            "listen": {
                "address": "127.0.0.1",
                "port": self.port,
                "web_port": self.port,
                "websocket_port": self.events_port,
                "mcp_port": self.mcp_port,
            },
            "tls": {"certificate": str(certificate), "key": str(key), "ca": str(cluster.authority.ca)},
            "auth": {"token_sha256": [hashlib.sha256(TOKEN.encode()).hexdigest()]},
            "etcd": {"endpoints": endpoints, "lease_seconds": cluster.lease_seconds, "primary": primary},
            "paths": {"data": str(self.data)},
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, program: str = "python3", **environ: str) -> None:
        self.config.write_text(yaml.safe_dump(self.settings))
        command = [program, "-sE", str(self.cluster.artifact / "bin" / "bzzz-node"), "--config", str(self.config)]
        # Nothing of the test's own environment, as under systemd.
        clean = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", **environ}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", env=clean)

    def reload(self) -> None:
        """Write the settings anew and have the running service read them."""
        assert self.process
        self.config.write_text(yaml.safe_dump(self.settings))
        self.process.send_signal(signal.SIGHUP)

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        assert self.process
        self.process.terminate()
        return self.process.wait(20)

    def pause(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGCONT)

    def request(
        self, path: str, token: str | None = TOKEN, body: bytes | None = None, timeout: float = 5, port: int | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers (lower case) and body; redirections are not followed."""
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        handlers = (urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=self.tls()), _NoRedirect())
        opener = urllib.request.build_opener(*handlers)
        request = urllib.request.Request(f"https://127.0.0.1:{port or self.port}{path}", data=body, headers=headers)
        try:
            with opener.open(request, timeout=timeout) as answer:
                return answer.status, {key.lower(): value for key, value in answer.headers.items()}, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, {key.lower(): value for key, value in error.headers.items()}, error.read()

    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.cluster.authority.ca))

    def events(self, last: str = "", token: str = TOKEN) -> sockets.Client:
        """A client of the event port."""
        url = f"wss://127.0.0.1:{self.events_port}/events?last={last}"
        return sockets.Client(url, ssl=self.tls(), additional_headers={"Authorization": f"Bearer {token}"})

    def get(self, path: str, timeout: float = 5) -> dict[str, Any] | None:
        """A JSON answer, whatever its status; None when there is none."""
        try:
            document: dict[str, Any] = json.loads(self.request(path, timeout=timeout)[2])
            return document
        except (OSError, ValueError):
            return None

    def ready(self) -> bool:
        try:
            return self.request("/health/ready")[0] == 200
        except OSError:
            return False

    def members(self) -> set[str]:
        cluster = self.get("/api/v1/cluster")
        return {member["name"] for member in cluster["members"]} if cluster and cluster["current"] else set()

    def primary(self) -> str | None:
        """Who this node takes for the primary, as confirmed by etcd now."""
        cluster = self.get("/api/v1/cluster")
        return cluster["primary"] if cluster and cluster["current"] else None

    def claims(self, timeout: float = 5) -> bool:
        """Whether this node takes itself for the primary."""
        node = self.get("/api/v1/node", timeout)
        return bool(node and node["primary"])


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_arguments: Any, **_options: Any) -> None:
        return None


class Cluster:
    """The authority, etcd and nodes of one test; ``close`` ends every process."""

    def __init__(self, folder: Path, artifact: Path, lease_seconds: int = 3, etcd: str = "etcd") -> None:
        self.folder, self.lease_seconds = folder, lease_seconds
        self.artifact = folder / "current"
        with tarfile.open(artifact) as tar:
            tar.extractall(self.artifact)
        self.authority = Authority(folder)
        self.etcd = EtcdCluster(folder, self.authority, etcd)
        self.nodes: dict[str, Node] = {}

    def node(self, name: str, roles: list[str] | None = None, primary: str | None = None, endpoints: list[str] | None = None) -> Node:
        """A new node service, started."""
        # Each node's own etcd member comes first, as on a coordinator.
        turn = len(self.nodes) % len(self.etcd.endpoints)
        endpoints = endpoints or self.etcd.endpoints[turn:] + self.etcd.endpoints[:turn]
        node = Node(self, name, roles or ["coordinator", "worker"], primary, endpoints)
        self.nodes[name] = node
        node.start()
        return node

    def form(self, *names: str, primary: str | None = None) -> list[Node]:
        """These coordinators, started, and agreed on their primary."""
        nodes = [self.node(name, primary=primary) for name in names]
        wait_for(lambda: all(node.ready() and node.members() == set(names) for node in nodes), 20, "every node sees every node")
        wait_for(lambda: len({node.primary() for node in nodes}) == 1 and nodes[0].primary(), 10, "all agree on one primary")
        return nodes

    def close(self) -> None:
        for node in self.nodes.values():
            if node.process and node.process.poll() is None:
                node.resume()
                node.kill()
        self.etcd.close()
        shutil.rmtree(self.artifact, ignore_errors=True)


def call(node: Node, method: str, path: str, token: str | None = TOKEN, body: Any = None, **headers: str) -> tuple[int, Any]:
    """Status and JSON of a request that may change something."""
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    with httpx2.Client(verify=node.tls(), trust_env=False, timeout=10) as client:
        answer = client.request(method, f"https://127.0.0.1:{node.port}{path}", json=body, headers=headers)
    return answer.status_code, answer.json() if answer.content else None


def add_user(node: Node, name: str, role: str = "viewer") -> None:
    status, user = call(node, "POST", "/api/v1/users", body={"name": name, "role": role, "password": PASSWORD})
    assert (status, user["name"], user["role"], user["by"], user["locked"]) == (201, name, role, "cluster", False)


def issue(node: Node, name: str, **fields: Any) -> dict[str, Any]:
    status, token = call(node, "POST", "/api/v1/tokens", body={"name": name, **fields})
    assert status == 201, token
    return token  # type: ignore[no-any-return]


addresses = (f"127.{network}.{number}.1" for network in range(1, 255) for number in range(255))


def sign_in(node: Node, user: str, password: str = PASSWORD, source: str = "") -> tuple[int, str]:
    """Status, and the session's cookie; each time from another address, unless one is given."""
    source = source or next(addresses)
    with httpx2.Client(transport=httpx2.HTTPTransport(verify=node.tls(), local_address=source, trust_env=False), timeout=10) as client:
        answer = client.post(f"https://127.0.0.1:{node.port}/sign-in", data={"user": user, "password": password})
    return answer.status_code, answer.headers.get("set-cookie", "").partition(";")[0]


def audit(*nodes: Node, **fields: Any) -> list[dict[str, Any]]:
    """The lines of the audit log that have these fields."""
    lines = [json.loads(line) for node in nodes for line in node.log.read_text().splitlines() if line.startswith('{"audit"')]
    return [line for line in lines if fields.items() <= line.items()]


class Watch:
    """Samples who claims to be primary, on every node at once, until closed.

    A claim seen in answers of the same term, at first received at ``a`` and last asked for at ``b``, held from a to b for certain:
    such spans of two nodes must never overlap.
    """

    def __init__(self, nodes: list[Node], interval: float = 0.1) -> None:
        self.samples: dict[tuple[str, int], list[tuple[float, float]]] = {}
        self.count = 0
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(node, interval), daemon=True) for node in nodes]
        for thread in self._threads:
            thread.start()

    def _run(self, node: Node, interval: float) -> None:
        while not self._stop.is_set():
            asked = time.monotonic()
            answer = node.get("/api/v1/node", timeout=2)
            received = time.monotonic()
            with self._lock:
                self.count += answer is not None
                if answer and answer["primary"]:
                    self.samples.setdefault((node.name, answer["term"]), []).append((asked, received))
            self._stop.wait(interval)

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def spans(self) -> list[tuple[float, float, str, int]]:
        """(begin, end, node, term) during which a node was primary for certain, by begin."""
        return sorted((seen[0][1], max(seen[-1][0], seen[0][1]), *key) for key, seen in self.samples.items())

    def overlaps(self) -> list[str]:
        """Every pair of different primaries at one time; empty is right."""
        spans = self.spans()
        return [
            f"{one} and {other}"
            for index, one in enumerate(spans)
            for other in spans[index + 1 :]
            if one[2:] != other[2:] and one[1] > other[0]
        ]
