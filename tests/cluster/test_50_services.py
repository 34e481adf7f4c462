# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The node service on real nodes: files, sandbox, interfaces, ports, releases; resources and node metrics."""

from __future__ import annotations

import base64
import contextlib
import datetime
import functools
import hashlib
import http.server
import io
import ipaddress
import itertools
import json
import os
import re
import ssl
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from ansible_collections.bzzz.cluster.plugins.module_utils.releases import choose
from conftest import Tools
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from rest import Api, wait_for

from bzzz_setup.release import INDEX, OUTPUT

CAPTURE = Path(__file__).parents[1] / "fixtures/gpu/nvidia-smi-q-x.tesla-t4.xml"
STAND_IN = "/usr/local/bin/nvidia-smi"
SERVICE = "bzzz.service"


@pytest.fixture(scope="module")
def api(cluster: Tools, tmp_path_factory: pytest.TempPathFactory) -> Api:
    return Api(cluster, tmp_path_factory.mktemp("api"))


@contextlib.contextmanager
def gpu(cluster: Tools, node: str) -> Iterator[None]:
    """The node has a GPU meanwhile, as far as nvidia-smi tells."""
    shown = f"[ \"$*\" = '-q -x' ] || exit 1\ncat <<'END'\n{CAPTURE.read_text()}\nEND\n"
    cluster.lab.exec(node, ["sh", "-c", f"cat >{STAND_IN} && chmod 755 {STAND_IN}"], stdin=f"#!/bin/sh\n{shown}")
    try:
        yield
    finally:
        cluster.lab.exec(node, ["rm", "-f", STAND_IN])


@pytest.fixture(scope="module")
def gpu_node(cluster: Tools) -> Iterator[str]:
    """A node that gets a GPU while the module's first tests run."""
    with gpu(cluster, cluster.nodes[2]):
        yield cluster.nodes[2]


def show(cluster: Tools, node: str, unit: str, name: str) -> str:
    """A property of a unit."""
    return cluster.lab.exec(node, ["systemctl", "show", "--value", "-p", name, unit]).stdout.strip()


def kernel(cluster: Tools, node: str, unit: str, controller: str, file: str) -> int:
    """What the kernel enforces on a unit's control group (version 1)."""
    group = show(cluster, node, unit, "ControlGroup")
    return int(cluster.lab.exec(node, ["cat", f"/sys/fs/cgroup/{controller}{group}/{file}"]).stdout)


# --- as it was set up ---


@pytest.mark.requirement("F6", part="files and release on the node")
@pytest.mark.requirement("T3", part="configuration, environment and unit of the node service")
@pytest.mark.usefixtures("gpu_node")
def test_files_of_the_service(cluster: Tools, api: Api) -> None:
    index = json.loads((OUTPUT / INDEX).read_text())
    accepted = set()
    for node in cluster.nodes:
        host = cluster.host(node)
        for name in ("config.yaml", "bzzz.env"):
            file = host.file(f"/etc/bzzz/{name}")
            assert (file.user, file.group, file.mode) == ("root", "bzzz", 0o640)
            assert api.token not in file.content_string
        config = yaml.safe_load(host.file("/etc/bzzz/config.yaml").content_string)
        assert config["node"]["name"] == node and config["listen"]["port"] == 8080
        accepted |= set(config["auth"]["token_sha256"])
        release = choose(index, cluster.lab.exec(node, ["python3", "-V"]).stdout.split()[1], os.uname().machine)
        assert host.file("/opt/bzzz/current").linked_to == f"/opt/bzzz/releases/{release['version']}-{release['sha256'][:12]}"
        foreign = cluster.lab.exec(node, ["find", "/opt/bzzz", "(", "!", "-user", "root", "-o", "-perm", "/022", ")", "!", "-type", "l"])
        assert foreign.stdout == "", "others than root could change the program"
        assert host.user("bzzz").shell == "/usr/sbin/nologin"
        assert host.service(SERVICE).is_enabled and host.service(SERVICE).is_running
        secret = host.file("/var/lib/bzzz/secrets/service_token")
        assert secret.mode == 0o600 and secret.user == "root"
    assert accepted == {hashlib.sha256(api.token.encode()).hexdigest()}


@pytest.mark.requirement("F6", part="hardened unit")
def test_the_unit_is_locked_in(cluster: Tools) -> None:
    node = cluster.nodes[0]
    said = cluster.lab.exec(node, ["systemd-analyze", "security", "--no-pager", SERVICE]).stdout
    found = re.search(r"exposure level for bzzz\.service: ([0-9.]+)", said)
    assert found and float(found[1]) <= 2.0, said
    status = cluster.lab.exec(node, ["cat", f"/proc/{show(cluster, node, SERVICE, 'MainPID')}/status"]).stdout
    seen = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(seen["CapEff"], 16) == int(seen["CapBnd"], 16) == 0
    assert (seen["NoNewPrivs"], seen["Seccomp"]) == ("1", "2")
    assert seen["Uid"].split()[0] == str(cluster.host(node).user("bzzz").uid)


@pytest.mark.requirement("F6", part="health")
@pytest.mark.requirement("T4", part="service health")
def test_health_needs_no_token_and_tells_nothing_but_health(cluster: Tools, api: Api) -> None:
    for node in cluster.nodes:
        assert api.get(node, "/health/live", token="").json() == {"live": True}
        assert api.get(node, "/health/ready", token="").json() == {"ready": True}
        health = api.get(node, "/health", token="").json()
        assert {check["name"]: check["status"] for check in health["checks"]}.items() >= {"coordination": "pass", "storage": "pass"}.items()


def test_everything_else_needs_the_token(cluster: Tools, api: Api) -> None:
    for path in ("/metrics", "/api/v1/node", "/api/v1/cluster"):
        for wrong in ("", "wrong", api.token[:-1]):
            refused = api.get(cluster.nodes[1], path, token=wrong)
            assert refused.status_code == 401 and "members" not in refused.text
            assert refused.headers["www-authenticate"].startswith("Bearer")
        assert api.get(cluster.nodes[1], path).status_code == 200


def test_only_the_clusters_authority_vouches_for_it(cluster: Tools, api: Api) -> None:
    address = api.addresses[cluster.nodes[0]]
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(f"https://{address}:8080/health/live", timeout=5)


@pytest.mark.requirement("7.3.1", part="the service's own metrics, over TLS")
def test_metrics_tell_the_node_and_the_cluster(cluster: Tools, api: Api) -> None:
    node = cluster.nodes[1]
    text = api.get(node, "/metrics").text
    assert f'bzzz_node_info{{cluster="{api.cluster(node)["name"]}",node="{node}"' in text
    assert re.search(r"^bzzz_cluster_members 3\.0$", text, re.MULTILINE)
    (memory,) = re.findall(r"^process_resident_memory_bytes (\S+)$", text, re.MULTILINE)
    status = cluster.lab.exec(node, ["cat", f"/proc/{show(cluster, node, SERVICE, 'MainPID')}/status"]).stdout
    (resident,) = re.findall(r"VmRSS:\s+(\d+) kB", status)
    assert float(memory) == pytest.approx(int(resident) * 1024, rel=0.2)


@pytest.mark.requirement("1.2.3", part="the service serves the UI on its port")
def test_the_status_page_after_signing_in(cluster: Tools, api: Api) -> None:
    browser = requests.Session()
    browser.trust_env, browser.verify = False, str(api.ca)
    page = f"https://{api.addresses[cluster.nodes[0]]}:8080"
    asked = browser.get(page, timeout=5)
    assert 'name="token"' in asked.text and cluster.nodes[1] not in asked.text
    assert browser.post(f"{page}/sign-in", data={"token": "wrong"}, timeout=5).status_code == 401
    shown = browser.post(f"{page}/sign-in", data={"token": api.token}, timeout=5)
    assert shown.status_code == 200 and all(node in shown.text for node in cluster.nodes)
    policy = shown.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and shown.headers["x-frame-options"] == "DENY"
    for kind in ("style", "script"):
        (inline,) = re.findall(rf"<{kind}>(.*?)</{kind}>", shown.text, re.DOTALL)
        assert f"'sha256-{base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()}'" in policy
    assert api.token not in shown.text + str(browser.cookies)
    cookie = next(iter(browser.cookies))
    assert cookie.secure and cookie.has_nonstandard_attr("HttpOnly")


# A UNIX socket as `bzzz-setup web --coordinator` makes it; it tells what it is asked, once.
WIZARD = """
import grp, http.server, os, socketserver
os.makedirs("/run/bzzz-setup", mode=0o750, exist_ok=True)
group = grp.getgrnam("bzzz").gr_gid
class Asked(http.server.BaseHTTPRequestHandler):
    client_address = ("", 0)
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"{self.path} for {self.headers['x-forwarded-for']}".encode())
    def log_message(self, *_):
        pass
os.umask(0o117)
with socketserver.UnixStreamServer("/run/bzzz-setup/wizard.sock", Asked) as server:
    for path in ("/run/bzzz-setup", server.server_address):
        os.chown(path, -1, group)
    server.handle_request()
os.unlink(server.server_address)
"""


@pytest.mark.requirement("T1", part="the sandbox lets the service reach the wizard of its node")
def test_setup_is_handed_on_to_a_wizard_that_runs_there(cluster: Tools, api: Api) -> None:
    node = cluster.nodes[0]
    assert api.get(node, "/setup/", token="").status_code == 503
    cluster.lab.exec(node, ["systemd-run", "--quiet", "--unit=wizard-stand-in", "python3", "-c", WIZARD])
    path = "/setup/step/2?x=1"
    answer = wait_for("the wizard answers", lambda: (told := api.get(node, path, token="")).status_code == 200 and told, 20)
    assert answer
    assert answer.text == f"/step/2?x=1 for {next(cluster.lab.subnet.hosts())}"


@pytest.mark.requirement("5.1.1")
@pytest.mark.requirement("5.2.1", part="published")
def test_published_capabilities_are_the_machines(cluster: Tools, api: Api) -> None:
    detected = cluster.document("detect")["nodes"]
    for node in cluster.nodes:
        cpu = detected[node]["bzzz_system"]["cpu"]
        numa = cluster.lab.exec(node, ["sh", "-c", "ls -d /sys/devices/system/node/node* | wc -l"]).stdout
        assert len(cpu["numa"]) == int(numa)
        has = wait_for("capabilities", lambda node=node: (api.member(node, cluster.nodes[0]) or {}).get("capabilities"))
        rows = cluster.lab.exec(node, ["lscpu", "-p=CPU,CORE,SOCKET"]).stdout.splitlines()
        cpus = [line.split(",") for line in rows if not line.startswith("#")]
        for seen in (has["cpu"], cpu):
            assert seen["threads"] == len(cpus)
            assert seen["cores"] == len({(core, package) for _cpu, core, package in cpus})
            assert seen["sockets"] == len({package for *_rest, package in cpus})
        total = int(re.findall(r"MemTotal:\s+(\d+)", cluster.lab.exec(node, ["cat", "/proc/meminfo"]).stdout)[0])
        assert has["memory_total_mib"] == total // 1024
        told = dict(line.split("=", 1) for line in cluster.lab.exec(node, ["cat", "/etc/os-release"]).stdout.splitlines())
        assert has["os"] == {"id": "debian", "version": told["VERSION_ID"].strip('"'), "architecture": os.uname().machine}


@pytest.mark.requirement("5.3.1")
def test_disk_space_per_mount_is_known_and_checked_before_anything_lands(cluster: Tools, api: Api, tmp_path: Path) -> None:
    node = cluster.nodes[0]
    mounts = {mount["path"]: mount for mount in cluster.document("detect")["nodes"][node]["bzzz_system"]["mounts"]}
    df = cluster.lab.exec(node, ["df", "-B1M", "--output=size,avail", "/", "/tmp"]).stdout.splitlines()[1:]
    for path, line in zip(("/", "/tmp"), df, strict=True):
        size, free = map(int, line.split())
        assert mounts[path]["total_mib"] == pytest.approx(size, abs=2) and mounts[path]["available_mib"] == pytest.approx(free, abs=500)
    wanted = {"resources_disk_free_min_mib": 10**9, "resources_models_path": "/srv/elsewhere"}
    folder = cluster.declare(tmp_path / "inventory", wanted)
    refused = cluster.document("apply", "--only", "5", folder=folder, code=2)
    # Nodes that have the same left are told of together.
    told = [problem["node"] for problem in refused["problems"] if problem["option"] == "resources_models_path"]
    assert set(cluster.nodes) == {each for nodes in told for each in (nodes.split(", ") if nodes else cluster.nodes)}
    assert refused["changes"] == [] and not cluster.host(node).file("/srv/elsewhere").exists


@pytest.mark.requirement("F5", part="storage paths and shares")
@pytest.mark.requirement("5.1.1", part="kernel")
def test_storage_paths_and_limits(cluster: Tools) -> None:
    for node in cluster.nodes:
        for path, mode in {"/srv/bzzz/data": 0o750, "/var/log/bzzz": 0o750, "/srv/bzzz/models": 0o755}.items():
            found = cluster.host(node).file(path)
            assert (found.user, found.group, found.mode) == ("bzzz", "bzzz", mode)
        assert kernel(cluster, node, SERVICE, "memory", "memory.limit_in_bytes") == 512 << 20
        assert kernel(cluster, node, "bzzz-etcd.service", "memory", "memory.limit_in_bytes") == 1024 << 20
        for unit in (SERVICE, "bzzz-etcd.service", "prometheus-node-exporter.service"):
            assert show(cluster, node, unit, "Slice") == "bzzz.slice"


SCRAPE = """
import ssl, sys, urllib.request
context = ssl.create_default_context(cafile="/etc/bzzz/tls/ca.crt")
if sys.argv[2] == "with":
    context.load_cert_chain("/etc/bzzz/tls/node.crt", "/etc/bzzz/tls/node.key")
print(urllib.request.urlopen(sys.argv[1], context=context, timeout=10).read().decode())
"""


@pytest.mark.requirement("7.3.1", part="node_exporter, for holders of a cluster certificate")
@pytest.mark.requirement("F5", part="node metrics")
def test_node_metrics_are_for_the_clusters_machines_only(cluster: Tools, api: Api) -> None:
    node, peer = cluster.nodes[0], cluster.nodes[1]

    def scrape(certificate: str) -> Any:
        url = f"https://{api.addresses[node]}:9100/metrics"
        return cluster.lab.exec(peer, ["python3", "-c", SCRAPE, url, certificate], check=False)

    total = re.findall(r"^node_memory_MemTotal_bytes (\S+)$", scrape("with").stdout, re.MULTILINE)
    known = re.findall(r"MemTotal:\s+(\d+)", cluster.lab.exec(node, ["cat", "/proc/meminfo"]).stdout)
    assert [float(value) for value in total] == [int(value) * 1024 for value in known]
    refused = scrape("without")
    assert refused.returncode and re.search(r"certificate.required|bad certificate|alert", refused.stderr, re.IGNORECASE)
    with pytest.raises(requests.RequestException):
        requests.get(f"http://{api.addresses[node]}:9100/metrics", timeout=5).raise_for_status()


@pytest.mark.requirement("8.2.1")
def test_a_gpu_that_comes_and_goes_is_published_without_a_restart(cluster: Tools, api: Api, gpu_node: str) -> None:
    """Peers see it in the shared state within the refresh of half a minute; with the tool, it vanishes again."""
    peer = cluster.nodes[0]

    def gpus() -> tuple[Any, ...]:
        member = api.member(gpu_node, peer) or {}
        return member["started"], [(gpu["vendor"], gpu["model"], gpu["memory_total_mib"]) for gpu in member["capabilities"]["gpus"]]

    started, seen = wait_for("GPU of the stand-in", lambda: gpus() if gpus()[1] else None)
    assert seen == [("nvidia", "Tesla T4", 15360)]
    assert [device["driver_version"] for device in api.get(gpu_node, "/api/v1/node").json()["facts"]["gpu"]["devices"]]
    assert "bzzz_gpu_memory_total_bytes{" in api.get(gpu_node, "/metrics").text
    assert api.member(peer, gpu_node)["capabilities"]["gpus"] == []  # type: ignore[index]
    cluster.lab.exec(gpu_node, ["rm", "-f", STAND_IN])
    assert wait_for("end of the GPU", lambda: gpus() if not gpus()[1] else None) == (started, [])


def test_a_reload_reads_the_certificates_and_keeps_the_process(cluster: Tools, api: Api) -> None:
    """SIGHUP by systemd; what a renewed certificate calls for."""
    node = cluster.nodes[2]
    before = show(cluster, node, SERVICE, "MainPID")
    cursor = cluster.lab.exec(node, ["journalctl", "-u", SERVICE, "-n0", "--show-cursor"]).stdout.partition("-- cursor: ")[2].strip()
    cluster.lab.exec(node, ["systemctl", "try-reload-or-restart", "bzzz.servic[e]"])
    journal = ["journalctl", "-u", SERVICE, "-o", "cat", f"--after-cursor={cursor}"]
    wait_for("reload", lambda: "were read again" in cluster.lab.exec(node, journal).stdout)
    assert show(cluster, node, SERVICE, "MainPID") == before and api.get(node, "/health/ready").status_code == 200


# --- releases ---


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with releases 0.1.1 and 0.1.2, and 0.1.9 whose artifact is not what the index says."""
    folder = tmp_path_factory.mktemp("releases")
    entries = []
    for entry, version in itertools.product(json.loads((OUTPUT / INDEX).read_text())["releases"], ("0.1.1", "0.1.2", "0.1.9")):
        artifact = folder / f"bzzz-node-{version}-py{entry['python']}.tar.gz"
        with tarfile.open(OUTPUT / entry["url"]) as old, tarfile.open(artifact, "w:gz", compresslevel=1) as new:
            for member in old:
                data = old.extractfile(member).read() if member.isfile() else b""  # type: ignore[union-attr]
                if member.name in ("VERSION", "bin/bzzz-node"):
                    data = data.replace(entry["version"].encode(), version.encode())
                    member.size = len(data)
                new.addfile(member, io.BytesIO(data))
        sha256 = hashlib.sha256(artifact.read_bytes()).hexdigest()
        channel = "stable" if version != "0.1.9" else "development"
        entries.append({**entry, "version": version, "url": artifact.name, "sha256": sha256, "channel": channel})
        if version == "0.1.9":
            with artifact.open("ab") as damaged:
                damaged.write(b"damaged on the way")
    (folder / INDEX).write_text(json.dumps({"releases": entries}))
    return folder


@pytest.fixture(scope="module")
def https(releases: Path) -> Iterator[tuple[str, Path]]:
    """An HTTPS server with the releases: its URL, and the certificate to trust it by."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "releases")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = releases.parent / "server.pem"
    trusted = certificate.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    pem.write_bytes(trusted + secret)
    ca = releases.parent / "server.crt"
    ca.write_bytes(trusted)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(releases))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"https://127.0.0.1:{server.server_address[1]}/{INDEX}", ca
        server.shutdown()


def installed(cluster: Tools, node: str) -> tuple[str, set[str]]:
    """Version of the current release, and of all that are unpacked."""
    current = cluster.lab.exec(node, ["readlink", "/opt/bzzz/current"]).stdout
    names = cluster.lab.exec(node, ["ls", "-A", "/opt/bzzz/releases"]).stdout.split()
    return current.removeprefix("releases/").partition("-")[0], {name.partition("-")[0] for name in names}


@pytest.mark.requirement("F6", part="a bad artifact changes nothing")
def test_a_bad_artifact_changes_nothing(cluster: Tools, api: Api, releases: Path, tmp_path: Path) -> None:
    node = cluster.nodes[0]
    before = installed(cluster, node), show(cluster, node, SERVICE, "MainPID")
    more = {"service_release_index": str(releases / INDEX), "service_release_channel": "development"}
    folder = cluster.declare(tmp_path / "inventory", more)
    failed = cluster.document("apply", "--only", "6", "--limit", node, folder=folder, code=3)
    assert any("does not have the checksum" in failure["message"] for failure in failed["failures"])
    assert (installed(cluster, node), show(cluster, node, SERVICE, "MainPID")) == before
    assert api.get(node, "/health/ready").status_code == 200


@pytest.mark.requirement("F6", part="releases side by side")
def test_releases_lie_side_by_side_and_the_link_switches(
    cluster: Tools, api: Api, releases: Path, https: tuple[str, Path], tmp_path: Path
) -> None:
    """From an index over HTTPS; older ones are kept up to service_releases_kept; the way back needs no download."""
    node, (url, ca) = cluster.nodes[0], https

    def apply(name: str, **options: Any) -> list[str]:
        folder = cluster.declare(tmp_path / name, options)
        done = cluster.document("apply", "--only", "6", "--limit", node, folder=folder, SSL_CERT_FILE=str(ca))
        return [change["kind"] for change in done["changes"]]

    try:
        assert "archive" in apply("newer", service_release_index=url, service_version="0.1.1")
        version, kept = installed(cluster, node)
        assert version == "0.1.1" and kept >= {"0.1.0", "0.1.1"}
        wait_for("the release at work", lambda: api.get(node, "/api/v1/node").json()["version"] == "0.1.1")
        apply("newest", service_release_index=url, service_releases_kept=2)
        assert installed(cluster, node) == ("0.1.2", {"0.1.1", "0.1.2"})
        for artifact in releases.glob("bzzz-node-0.1.1-*"):
            artifact.unlink()
        assert apply("back", service_release_index=url, service_version="0.1.1", service_releases_kept=2) == ["link"]
        wait_for("the older release at work", lambda: api.get(node, "/api/v1/node").json()["version"] == "0.1.1")
    finally:
        cluster.setup("apply", "--only", "6", "--limit", node)
    assert installed(cluster, node)[0] == "0.1.0"
    wait_for("our own release at work", lambda: api.get(node, "/api/v1/node").json()["version"] == "0.1.0")


# --- other ports and shares ---

PORTS = {"service_port": 18080, "service_mcp_port": 13000, "service_web_port": 443, "service_websocket_port": 18081}
SHARES = {
    "resources_cpu_weight": 250,
    "resources_cpu_quota_percent": 150,
    "resources_memory_max_mib": 2000,
    "resources_service_memory_max_mib": 300,
    "resources_service_cpu_quota_percent": 80,
    "service_log_level": "debug",
}


@pytest.fixture(scope="class")
def changed(cluster: Tools, api: Api, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The cluster with other ports and shares, and what the run that made it so reported."""
    steps = ("--only", "2", "--only", "5", "--only", "6")
    folder = cluster.declare(tmp_path_factory.mktemp("changed") / "inventory", {**PORTS, **SHARES})
    try:
        yield cluster.document("apply", *steps, folder=folder)
    finally:
        cluster.setup("apply", *steps)
    api.agreed()


KNOCK = """
import socket, sys
for port in sys.argv[2:]:
    with socket.socket() as one:
        one.settimeout(1)
        print(port, one.connect_ex((sys.argv[1], int(port))))
"""


@pytest.mark.requirement("1.2.3", part="no other pair may share a port")
def test_only_service_and_page_may_share_a_port(cluster: Tools, tmp_path: Path) -> None:
    folder = cluster.declare(tmp_path / "inventory", {"service_web_port": 3000})
    problems = cluster.document("check", folder=folder, code=2)["problems"]
    assert {problem["option"] for problem in problems} <= {"service_web_port", "service_mcp_port"} and "free" in problems[0]["remedy"]


class TestOtherPortsAndShares:
    @pytest.mark.requirement("1.2.1")
    @pytest.mark.requirement("1.2.2")
    @pytest.mark.requirement("1.2.3")
    @pytest.mark.requirement("1.2.4")
    def test_each_port_reaches_configuration_unit_firewall_and_checks(self, cluster: Tools, api: Api, changed: dict[str, Any]) -> None:
        node, peer = cluster.nodes[0], cluster.nodes[1]
        listen = yaml.safe_load(cluster.host(node).file("/etc/bzzz/config.yaml").content_string)["listen"]
        assert {f"service_{key}": value for key, value in listen.items() if key != "address"} == PORTS
        # The unit: ports below 1024 are root's, unless it is given the one capability for them.
        assert show(cluster, node, SERVICE, "AmbientCapabilities") == "cap_net_bind_service"
        # The firewall, as loaded into the kernel.
        rules = cluster.lab.exec(node, ["nft", "list", "table", "inet", "bzzz"]).stdout
        opened = {int(port) for port in re.findall(r"\b\d{2,5}\b", rules)}
        assert opened >= set(PORTS.values()) and not opened & {8080, 3000, 8081}
        # The service itself: the API on its port, the page on its own.
        wait_for("the service on its new port", lambda: api.cluster(node, port=18080)["current"])
        assert "Sign in" in api.get(node, "/", port=443, token="").text
        old = ["8080", "3000", "8081"]
        knocked = cluster.lab.exec(peer, ["python3", "-c", KNOCK, api.addresses[node], *old, "18080", "443"]).stdout.split()
        answers = dict(zip(knocked[::2], map(int, knocked[1::2]), strict=True))
        assert {port for port, error in answers.items() if error == 0} == {"18080", "443"}
        # The checks of the same run.
        told = "\n".join(
            f"{check['id']} {check['title']} {check['seen']} {check['expected']} {check['data']}" for check in changed["checks"]
        )
        assert all(re.search(rf"\b{port}\b", told) for port in PORTS.values())
        assert {check["status"] for check in changed["checks"]} <= {"pass", "skip"}

    @pytest.mark.requirement("5.1.1")
    @pytest.mark.requirement("5.2.2", part="MemoryMax, held by the kernel")
    @pytest.mark.requirement("F5", part="changed shares reach the kernel")
    @pytest.mark.usefixtures("changed")
    def test_the_kernel_has_the_declared_weights_and_limits(self, cluster: Tools) -> None:
        for node in cluster.nodes:
            assert kernel(cluster, node, "bzzz.slice", "cpu", "cpu.shares") == 250 * 1024 // 100
            for unit, memory_mib, cpu_percent in (("bzzz.slice", 2000, 150), (SERVICE, 300, 80)):
                assert kernel(cluster, node, unit, "memory", "memory.limit_in_bytes") == memory_mib << 20
                quota, period = (kernel(cluster, node, unit, "cpu", f"cpu.cfs_{name}_us") for name in ("quota", "period"))
                assert quota / period == cpu_percent / 100

    @pytest.mark.usefixtures("changed")
    def test_the_log_level_reaches_the_service(self, cluster: Tools, api: Api) -> None:
        node = cluster.nodes[0]
        api.get(node, "/health/live", port=18080)
        wait_for("debug lines", lambda: "GET /health/live" in cluster.lab.exec(node, ["journalctl", "-u", SERVICE, "-n", "200"]).stdout, 20)


@pytest.mark.requirement("L2", part="converged after changes and their reversal")
def test_everything_is_as_before(cluster: Tools, api: Api) -> None:
    assert cluster.document("apply", "--only", "2", "--only", "5", "--only", "6")["changes"] == []
    for node in cluster.nodes:
        assert kernel(cluster, node, "bzzz.slice", "cpu", "cpu.shares") == 1024
        assert kernel(cluster, node, "bzzz.slice", "cpu", "cpu.cfs_quota_us") == -1
        assert kernel(cluster, node, "bzzz.slice", "memory", "memory.limit_in_bytes") > 1 << 50
        assert show(cluster, node, "bzzz.slice", "DropInPaths") == ""
    assert {member["version"] for member in api.agreed()["members"]} == {"0.1.0"}
