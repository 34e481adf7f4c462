# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A company's certificate on the cluster's own nodes: refused while it is wrong, then shown to clients, renewed, and taken back.

It is for names that clients know the nodes by, never for their addresses, as a public one would be.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import re
import secrets as randomness
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import leaks
import pytest
from conftest import Tools
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pki import Issued, issue
from rest import Api, wait_for
from test_40_security import key_line
from trouble import Run, eventually

from bzzz_setup.declaration import VAULT, dump, write

PORTS = {"service": 8080, "events": 8081, "MCP": 3000}
INSIDE = {"etcd": 2379, "node_exporter": 9100}
# Everything that certificates are about on a node, down to times.
LOOK = """
find /etc/bzzz /usr/local/share/ca-certificates /etc/ssl/certs /var/lib/bzzz/sets/tls* -printf '%p %l %m %u %g %T@\\n' | sort
systemctl show -p MainPID bzzz.service bzzz-etcd.service
"""
# A program that knows nothing of us, and goes by what the system trusts.
STRANGER = """
import ssl, socket, sys
host, name, port = sys.argv[1:]
try:
    with ssl.create_default_context().wrap_socket(socket.create_connection((host, int(port)), 10), server_hostname=name) as wrapped:
        print(wrapped.getpeercert()["serialNumber"])
except ssl.SSLCertVerificationError as error:
    print(error.verify_message)
"""

# A client that trusts what the node tells it to, anew each time: of the services of all nodes, and of etcd by whichever member answers.
CLIENT = """
import json, os, ssl, sys, time, urllib.request
stop, *members = sys.argv[1:]
asked, failed = 0, []
def ask(url, ca, body=None):
    context = ssl.create_default_context(cafile=ca)
    if body:
        context.load_cert_chain("/etc/bzzz/tls/node.crt", "/etc/bzzz/tls/node.key")
    urllib.request.urlopen(urllib.request.Request(url, data=body), context=context, timeout=10)
while not os.path.exists(stop):
    for urls in [[f"https://{one}:8080/health/live"] for one in members] + [[f"https://{one}:2379/v3/kv/range" for one in members]]:
        said = []
        for url in urls:
            try:
                ask(url, *(["/etc/bzzz/tls/ca.crt", b'{"key": "YQ=="}'] if "range" in url else ["/etc/bzzz/cluster-ca.crt"]))
                break
            except Exception as error:
                said.append(f"{url}: {error!r}")
        asked += 1
        failed += [said] if len(said) == len(urls) else []
    time.sleep(0.1)
print(json.dumps({"asked": asked, "failed": failed}))
"""
# What a certificate in a folder opens, of what asks for one.
LET_IN = """
import json, ssl, sys, urllib.request
found = {}
for url in sys.argv[2:]:
    context = ssl.create_default_context(cafile="/etc/bzzz/tls/ca.crt")
    context.load_cert_chain(f"{sys.argv[1]}/node.crt", f"{sys.argv[1]}/node.key")
    try:
        found[url] = urllib.request.urlopen(url, context=context, timeout=10).status
    except OSError:
        found[url] = 0
print(json.dumps(found))
"""


def client_name(node: str) -> str:
    return f"{node}.lab.test"


def main_pid(cluster: Tools, node: str) -> str:
    return cluster.lab.exec(node, ["systemctl", "show", "-p", "MainPID", "--value", "bzzz.service"]).stdout.strip()


class Company:
    """Its authority, and an inventory folder that brings its certificate for all nodes, with an encrypted key."""

    def __init__(self, cluster: Tools, base: Path) -> None:
        self.cluster, self.base = cluster, base
        self.passphrase = randomness.token_urlsafe(24)
        self.root = issue("Lab Root")
        self.middle = issue("Lab Issuing CA", self.root)
        self.leaf = self.server()
        self.trusting = ssl.create_default_context(cadata=self.root.pem)

    def server(self, *names: str, **how: Any) -> Issued:
        return issue("lab.test", self.middle, *(names or ("*.lab.test",)), **how)

    def declare(self, name: str, **per_node: dict[str, Any]) -> Path:
        """`per_node`: files by option, as text, or an option's value."""
        nodes: dict[str, dict[str, Any]] = {}
        folder = self.base / name
        for node in self.cluster.nodes:
            own = {
                "tls_mode": "uploaded",
                "tls_extra_names": [client_name(node)],
                "tls_certificate_file": "lab.pem",
                "tls_key_file": "private/lab.key",
                "tls_ca_file": str(folder / "root.pem"),
            }
            nodes[node] = {**own, **per_node.get(node.replace("-", "_"), {})}
        self.cluster.declare(folder, nodes=nodes)
        self.put(folder, self.leaf)
        write(folder / "root.pem", self.root.pem.replace("\n", "\r\n"))
        write(folder / VAULT, dump({"tls_key_passphrase": self.passphrase}), 0o600)
        return folder

    def put(self, folder: Path, leaf: Issued) -> None:
        """With the line ends of Windows, where many get their certificates."""
        write(folder / "lab.pem", (leaf.pem + self.middle.pem).replace("\n", "\r\n"))
        write(folder / "private/lab.key", leaf.key_pem(self.passphrase), 0o600)

    def shown(self, node: str, port: int, context: ssl.SSLContext | None = None, name: str | None = None) -> int:
        """Serial number of what a client on the admin host is shown that trusts the root only."""
        address = next(found.address for found in self.cluster.lab.nodes if found.name == node)
        with (
            socket.create_connection((address, port), 20) as plain,
            (context or self.trusting).wrap_socket(plain, server_hostname=name or client_name(node)) as wrapped,
        ):
            return x509.load_der_x509_certificate(wrapped.getpeercert(binary_form=True) or b"").serial_number


@pytest.fixture(scope="module")
def company(cluster: Tools, tmp_path_factory: pytest.TempPathFactory) -> Company:
    return Company(cluster, tmp_path_factory.mktemp("company"))


@pytest.fixture(scope="module")
def api(cluster: Tools, tmp_path_factory: pytest.TempPathFactory) -> Api:
    return Api(cluster, tmp_path_factory.mktemp("api"))


# As those of test_47_harmful; the other harmful declarations about certificates are in this test's own list.
HARMFUL: dict[str, dict[str, Any]] = {
    "ca_file": {"tls_ca_file": "nonsense.pem"},
    "acme_directory": {"tls_mode": "acme", "tls_acme_accept_terms": True, "tls_acme_directory": "http://ca.lab.test/directory"},
    "acme_accept_terms": {"tls_mode": "acme", "tls_acme_directory": "https://ca.lab.test/directory"},
    "leaf_valid_days": {"tls_ca_valid_days": 30},
}


@pytest.mark.requirement("2.3.2")
@pytest.mark.requirement("1.3.1", "2.3.3", part="harmful declarations are refused before a machine is touched")
def test_wrong_certificates_are_refused_before_a_machine_is_touched(cluster: Tools, company: Company) -> None:
    """Three nodes, a fault each: every one is told of its own node, with the option and a remedy."""
    texts = {
        "expired.pem": company.server(begins=-9, ends=-1, key=company.leaf.key).pem + company.middle.pem,
        "early.pem": company.server(begins=5, key=company.leaf.key).pem + company.middle.pem,
        "elsewhere.pem": company.server("www.lab.test", key=company.leaf.key).pem + company.middle.pem,
        "alone.pem": company.leaf.pem,
        "other.key": company.server().key_pem(company.passphrase),
        "locked.key": company.leaf.key_pem("another passphrase"),
        "key.pem": company.leaf.key_pem(company.passphrase),
        "nonsense.pem": "no authority at all",
    }
    faults = [
        [("certificate_file", "expired.pem", "has expired on"), ("certificate_file", "early.pem", "is not valid before"), None],
        [("certificate_file", "elsewhere.pem", "not for"), ("certificate_file", "alone.pem", "Lab Issuing CA, which is neither"), None],
        [("key_file", "other.key", "not the key of the certificate"), ("key_file", "locked.key", "does not open"), None],
        [("certificate_file", "key.pem", "private key, where only"), ("key_file", "gone.key", "No such file"), None],
    ]
    before = {node: cluster.lab.exec(node, ["sh", "-c", LOOK]).stdout for node in cluster.nodes}
    for number, (run, (harmful, options)) in enumerate(zip(faults, HARMFUL.items(), strict=True)):
        wrong = {node: fault for node, fault in zip(cluster.nodes, run, strict=True) if fault}
        per_node = {node.replace("-", "_"): {f"tls_{fault[0]}": fault[1]} for node, fault in wrong.items()}
        per_node[cluster.nodes[-1].replace("-", "_")] = options
        folder = company.declare(f"wrong-{number}", **per_node)
        for name, text in texts.items():
            write(folder / name, text, 0o600)
        told = cluster.document("apply", "--only", "3", folder=folder, code=2)
        assert told["changes"] == []
        problems = {problem["node"]: problem for problem in told["problems"] if problem["severity"] == "error" and problem["node"]}
        assert set(problems) == set(cluster.nodes)
        assert problems[cluster.nodes[-1]]["option"] == f"tls_{harmful}" and problems[cluster.nodes[-1]]["remedy"]
        for node, (option, value, message) in wrong.items():
            problem = problems[node]
            named = "tls_key_passphrase" if value == "locked.key" else f"tls_{option}"
            assert problem["option"] == named
            assert problem["value"] == (None if value == "locked.key" else value)
            assert message in problem["message"] and problem["remedy"]
        assert company.passphrase not in json.dumps(told)
    assert {node: cluster.lab.exec(node, ["sh", "-c", LOOK]).stdout for node in cluster.nodes} == before


@dataclass
class Uploaded:
    folder: Path
    pids: dict[str, str]
    told: dict[str, Any]
    again: dict[str, Any]
    watch: leaks.Watch
    said: str
    secrets: dict[str, str]


@pytest.fixture(scope="module")
def uploaded(cluster: Tools, company: Company) -> Iterator[Uploaded]:
    """The certificate in use; on the last node without the system's trust."""
    last = cluster.nodes[-1].replace("-", "_")
    folder = company.declare("uploaded", **{last: {"tls_trust_ca": False}})
    plain = company.leaf.key_pem().splitlines()
    secrets = {"passphrase": company.passphrase, "key": plain[len(plain) // 2]}
    pids = {node: main_pid(cluster, node) for node in cluster.nodes}
    with leaks.Watch(secrets, cluster.home) as watch:
        said = cluster.setup("plan", "--diff", "--only", "3", folder=folder).stdout
        told = cluster.document("apply", "--only", "3", folder=folder)
        again = cluster.document("apply", "--from", "3", folder=folder)
    yield Uploaded(folder, pids, told, again, watch, said, secrets)
    if cluster.lab.exec(cluster.nodes[0], ["readlink", "/etc/bzzz/tls/service.key"], check=False).returncode:
        cluster.setup("apply", "--only", "3")


@pytest.mark.requirement("2.3.2")
def test_clients_are_shown_the_chain_and_the_inside_stays_the_clusters_own(cluster: Tools, company: Company, uploaded: Uploaded) -> None:
    assert {change["node"] for change in uploaded.told["changes"]} == set(cluster.nodes)
    own = ssl.create_default_context(cadata=cluster.lab.exec(cluster.nodes[0], ["cat", "/etc/bzzz/tls/ca.crt"]).stdout)
    own.verify_flags &= ~ssl.VERIFY_X509_STRICT
    serial = company.leaf.certificate.serial_number
    for node in cluster.nodes:
        for name, port in PORTS.items():
            wait_for(f"the new certificate of {name} on {node}", lambda node=node, port=port: _serial(company, node, port) == serial, 10)
        for port in INSIDE.values():
            assert company.shown(node, port, own, node) != serial
        assert cluster.host(node).file("/etc/bzzz/tls/service.crt").content_string == company.leaf.pem + company.middle.pem
        key = cluster.host(node).file("/etc/bzzz/tls/service.key")
        assert (key.mode, key.user, key.group) == (0o640, "root", "bzzz-tls")
        # Reloaded, not restarted.
        assert main_pid(cluster, node) == uploaded.pids[node]
    # The same seen from a node, by openssl.
    first, second = (cluster.lab.nodes[0], cluster.lab.nodes[1])
    asked = f"openssl s_client -connect {second.address}:8080 -verify_hostname {client_name(second.name)} -verify_return_error -brief"
    assert "Verification: OK" in cluster.lab.exec(first.name, ["sh", "-c", f"{asked} </dev/null 2>&1"]).stdout


def _serial(company: Company, node: str, port: int) -> int | None:
    try:
        return company.shown(node, port)
    except OSError:
        return None


@pytest.mark.requirement("2.3.2", part="a second run changes nothing, and every check finds it right")
def test_a_second_run_changes_nothing_and_every_check_holds(uploaded: Uploaded) -> None:
    assert uploaded.again["changes"] == []
    assert {check["status"] for check in uploaded.again["checks"]} <= {"pass", "skip"}
    held = {check["id"] for check in uploaded.again["checks"] if check["status"] == "pass"}
    assert {"service-certificate", "service-certificate-days", "service-live", "service-events", "service-mcp", "node-ready"} <= held


@pytest.mark.requirement("2.3.2", "F3", part="key and passphrase stay unseen")
def test_key_and_passphrase_are_nowhere_else(cluster: Tools, uploaded: Uploaded) -> None:
    assert "service.key" in uploaded.said and uploaded.watch.programs
    assert uploaded.watch.found == set()
    told = uploaded.said + json.dumps([uploaded.told, uploaded.again])
    assert not [name for name, text in uploaded.secrets.items() if text in told]
    assert leaks.in_files([cluster.home], uploaded.secrets) == set()
    for node in cluster.nodes[:1]:
        places = leaks.on_node(cluster.lab, node, uploaded.secrets)
        own = re.compile(r"/etc/bzzz/tls/service\.key|/var/lib/bzzz/sets/tls/generations/\d+/(previous-)?\d+")
        assert places["passphrase"] == set() and places["key"] and all(own.fullmatch(path) for path in places["key"])


@pytest.mark.requirement("2.3.4")
def test_programs_on_the_nodes_trust_the_authorities(cluster: Tools, company: Company, uploaded: Uploaded) -> None:
    server = cluster.lab.nodes[0]
    for node in cluster.nodes:
        seen = [
            cluster.lab.exec(node, ["python3", "-", server.address, name, str(port)], stdin=STRANGER).stdout.strip()
            for name, port in ((client_name(server.name), PORTS["service"]), (server.name, INSIDE["node_exporter"]))
        ]
        if node == cluster.nodes[-1]:
            assert all("unable to get local issuer" in one or "self-signed" in one for one in seen), seen
        else:
            assert int(seen[0], 16) == company.leaf.certificate.serial_number and int(seen[1], 16)


@pytest.mark.requirement("2.3.4")
def test_the_end_is_foretold_and_a_renewed_certificate_is_shown_without_a_restart(
    cluster: Tools, company: Company, uploaded: Uploaded, api: Api
) -> None:
    soon = company.server(ends=9, key=company.leaf.key)
    company.put(uploaded.folder, soon)
    told = cluster.document("apply", "--only", "3", folder=uploaded.folder)
    assert [problem["severity"] for problem in told["problems"]] == ["warning"]
    warned = [check for check in told["checks"] if check["status"] == "warn"]
    assert {(check["id"], check["node"]) for check in warned} == {("service-certificate-days", node) for node in cluster.nodes}
    assert all(8 < check["data"]["days_left"] < 9.1 and "tls_certificate_file (lab.pem)" in check["remedy"] for check in warned)
    for node in cluster.nodes:
        wait_for(
            f"the renewed certificate on {node}",
            lambda node=node: _serial(company, node, PORTS["service"]) == soon.certificate.serial_number,
            10,
        )
        assert main_pid(cluster, node) == uploaded.pids[node]
    inside = x509.load_pem_x509_certificate(cluster.lab.exec(cluster.nodes[0], ["cat", "/etc/bzzz/tls/node.crt"]).stdout.encode())
    assert ends_by_metric(cluster, api, company.root.pem, client_name(cluster.nodes[0])) == {
        "service": soon.certificate.not_valid_after_utc.timestamp(),
        "node": inside.not_valid_after_utc.timestamp(),
        "ca": x509.load_pem_x509_certificate(api.ca.read_bytes()).not_valid_after_utc.timestamp(),
    }


def ends_by_metric(cluster: Tools, api: Api, ca: str, name: str) -> dict[str, float]:
    """What /metrics of the first node tells, asked as a client that knows the node by `name`."""
    node = cluster.lab.nodes[0]
    with (
        socket.create_connection((node.address, 8080), 20) as plain,
        ssl.create_default_context(cadata=ca).wrap_socket(plain, server_hostname=name) as wrapped,
    ):
        wrapped.sendall(
            f"GET /metrics HTTP/1.1\r\nHost: {name}:8080\r\nAuthorization: Bearer {api.token}\r\nConnection: close\r\n\r\n".encode()
        )
        answer = b"".join(iter(lambda: wrapped.recv(65536), b"")).decode()
    found = re.findall(r'^bzzz_certificate_expiry_timestamp_seconds\{certificate="(\w+)"\} (\S+)$', answer, re.MULTILINE)
    return {which: float(at) for which, at in found}


@pytest.mark.requirement("2.3.1", "2.3.2", part="rotation of the authority behind an uploaded certificate")
def test_the_authority_within_is_replaced_and_clients_notice_nothing(
    cluster: Tools, company: Company, uploaded: Uploaded, api: Api
) -> None:
    before = {node: (authorities(cluster, node), _serial(company, node, PORTS["service"])) for node in cluster.nodes}
    cluster.setup("rotate-ca", folder=uploaded.folder)
    for node in cluster.nodes:
        (new,) = authorities(cluster, node)
        assert [new] != before[node][0] and issuer_of(cluster, node, *before[node][0], new) == 1
        assert _serial(company, node, PORTS["service"]) == before[node][1] and main_pid(cluster, node) == uploaded.pids[node]
    api.ca.write_bytes(new.public_bytes(Encoding.PEM))


@pytest.mark.requirement("2.3.2", "2.3.4", part="back to the cluster's own without loss")
def test_back_to_the_clusters_own(cluster: Tools, company: Company, uploaded: Uploaded, api: Api) -> None:
    cluster.setup("apply", "--only", "3")
    for node in cluster.nodes:
        leaf = x509.load_pem_x509_certificate(cluster.lab.exec(node, ["cat", "/etc/bzzz/tls/node.crt"]).stdout.encode())
        # By address again, as the tests before and after ask.
        assert wait_for(f"the API of {node}", lambda node=node: api.get(node, "/health/live"), 10).status_code == 200
        own = ssl.create_default_context(cafile=str(api.ca))
        own.verify_flags &= ~ssl.VERIFY_X509_STRICT
        assert {company.shown(node, port, own, node) for port in PORTS.values()} == {leaf.serial_number}
        assert cluster.lab.exec(node, ["readlink", "/etc/bzzz/tls/service.key"]).stdout == "node.key\n"
        assert main_pid(cluster, node) == uploaded.pids[node]
        trusted = cluster.lab.exec(node, ["cat", "/etc/ssl/certs/ca-certificates.crt"]).stdout
        assert company.root.pem.split("\n")[1] not in trusted and api.ca.read_text().split("\n")[1] in trusted
    assert cluster.document("apply", "--only", "3")["changes"] == []


@contextlib.contextmanager
def client(cluster: Tools, node: str) -> Iterator[dict[str, Any]]:
    """While entered, CLIENT asks and asks on a node; what it found is there afterwards."""
    found: dict[str, Any] = {}
    cluster.lab.exec(node, ["rm", "-f", "/run/stop"])
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        argv = ["python3", "-", "/run/stop", *(one.address for one in cluster.lab.nodes)]
        asking = pool.submit(cluster.lab.exec, node, argv, stdin=CLIENT)
        try:
            yield found
        finally:
            cluster.lab.exec(node, ["touch", "/run/stop"])
        found.update(json.loads(asking.result().stdout))


def authorities(cluster: Tools, node: str, path: str = "/etc/bzzz/tls/ca.crt") -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(cluster.lab.exec(node, ["cat", path]).stdout.encode())


def issuer_of(cluster: Tools, node: str, *trusted: x509.Certificate) -> int:
    """Which of them the certificate is by that etcd shows to those who trust all of them."""
    address = next(found.address for found in cluster.lab.nodes if found.name == node)
    pem = "".join(one.public_bytes(Encoding.PEM).decode() for one in trusted)
    context = ssl.create_default_context(cadata=pem)
    with socket.create_connection((address, INSIDE["etcd"]), 20) as plain, context.wrap_socket(plain, server_hostname=address) as wrapped:
        leaf = x509.load_der_x509_certificate(wrapped.getpeercert(binary_form=True) or b"")
    return [one.subject for one in trusted].index(leaf.issuer)


def let_in(cluster: Tools, node: str, folder: str) -> dict[str, int]:
    urls = [f"https://{one.address}:{port}" for one in cluster.lab.nodes for port in ("2379/version", "9100/metrics")]
    found: dict[str, int] = json.loads(cluster.lab.exec(node, ["python3", "-", folder, *urls], stdin=LET_IN).stdout)
    return found


@dataclass
class Rotated:
    old: x509.Certificate
    following: x509.Certificate
    announced: dict[str, Any]
    held: dict[str, Any]
    without: dict[str, Any]
    signers: list[list[int]]
    seen: dict[str, Any]
    again: dict[str, Any]
    watch: leaks.Watch
    secrets: dict[str, str]


@pytest.fixture(scope="module")
def rotated(cluster: Tools) -> Rotated:
    """Announced, gone on and killed half-way, then a node is away; ended by `apply`."""
    lab, (first, *_, last) = cluster.lab, cluster.nodes
    lab.exec(first, ["sh", "-c", "mkdir -pm 700 /run/old && cp /etc/bzzz/tls/node.* /run/old"])
    (old,) = authorities(cluster, first)
    signers = []
    with client(cluster, first) as seen:
        announced = cluster.document("rotate-ca", "--announce")
        (following,) = authorities(cluster, first, "/var/lib/bzzz/ca/next.crt")

        def look() -> None:
            assert all(authorities(cluster, node) == [old, following] for node in cluster.nodes)
            signers.append([issuer_of(cluster, node, old, following) for node in cluster.nodes])

        look()
        secrets = {"key of the authority": key_line(lab.exec(first, ["cat", "/var/lib/bzzz/ca/next.key"]).stdout)}
        with leaks.Watch(secrets, cluster.home) as watch:
            held = cluster.document("apply", "--only", "3")
            with Run(cluster, "rotate-ca") as run:
                eventually(
                    "a certificate by the next authority", lambda: 1 in (issuer_of(cluster, node, old, following) for node in cluster.nodes)
                )
                run.kill()
            look()
            lab.exec(last, ["systemctl", "stop", "ssh"])
            try:
                without = cluster.document("apply", "--only", "3", code=3)
            finally:
                lab.exec(last, ["systemctl", "start", "ssh"])
            look()
            cluster.setup("apply", "--only", "3")
        again = cluster.document("apply", "--only", "3")
    return Rotated(old, following, announced, held, without, signers, seen, again, watch, secrets)


@pytest.mark.requirement("2.3.4")
@pytest.mark.requirement("2.3.1", part="rotation of the authority: clients see no failure, killed or not")
def test_the_authority_is_rotated_while_everything_runs(cluster: Tools, rotated: Rotated) -> None:
    warned = {check["node"] for check in rotated.announced["checks"] if (check["id"], check["status"]) == ("authority-rotation", "warn")}
    assert warned == set(cluster.nodes)
    # An ordinary run leaves alone what has only been announced.
    assert rotated.held["changes"] == []
    # And without a node, nothing of the old authority goes.
    assert {failure["node"] for failure in rotated.without["failures"]} == {cluster.nodes[-1]}
    begun, killed, without = rotated.signers
    assert begun == [0, 0, 0] and 1 in killed and killed == without
    assert rotated.seen["asked"] > 100 and rotated.seen["failed"] == []
    assert rotated.again["changes"] == [] and {check["status"] for check in rotated.again["checks"]} <= {"pass", "skip"}


@pytest.mark.requirement(
    "2.3.1", "2.3.4", part="rotation of the authority: the old one is refused, the new one's key is the coordinators' only"
)
def test_the_old_authority_is_gone(cluster: Tools, rotated: Rotated) -> None:
    first = cluster.nodes[0]
    assert set(let_in(cluster, first, "/run/old").values()) == {0}
    assert set(let_in(cluster, first, "/etc/bzzz/tls").values()) == {200}
    old, new = (one.public_bytes(Encoding.PEM).decode().splitlines()[2] for one in (rotated.old, rotated.following))
    for node in cluster.nodes:
        assert authorities(cluster, node) == authorities(cluster, node, "/etc/bzzz/cluster-ca.crt") == [rotated.following]
        trusted = cluster.lab.exec(node, ["cat", "/etc/ssl/certs/ca-certificates.crt"]).stdout
        assert new in trusted and old not in trusted
        assert sorted(cluster.lab.exec(node, ["ls", "/var/lib/bzzz/ca"]).stdout.split()) == ["ca.crt", "ca.key"]
    assert rotated.watch.found == set() and leaks.in_files([cluster.home], rotated.secrets) == set()
    own = re.compile(r"/var/lib/bzzz/ca/ca\.key|/var/lib/bzzz/sets/tls-authority/generations/\d+/(previous-)?\d+")
    (places,) = leaks.on_node(cluster.lab, first, rotated.secrets).values()
    assert places and all(own.fullmatch(path) for path in places)
