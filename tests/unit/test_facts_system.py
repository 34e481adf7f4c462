# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""CPU, memory, disks, mounts, clock, Ollama, tools: this machine's own and stand-in trees."""

from __future__ import annotations

import base64
import http.server
import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from ansible_collections.bzzz.cluster.plugins.module_utils.node import machine, system
from ansible_collections.bzzz.cluster.plugins.module_utils.node.machine import Machine
from ansible_collections.bzzz.cluster.plugins.plugin_utils import question
from hypothesis import given
from hypothesis import strategies as st

PYTHON = Path("/usr/bin/python3")  # the tests' own may lie in a home directory


def tree(root: Path, files: dict[str, object]) -> Machine:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return Machine({"root": str(root), "path": str(root / "bin"), "tool_timeout_seconds": 2})


def tool(root: Path, name: str, body: str = "") -> None:
    path = root / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


@pytest.mark.requirement("5.1.1", part="parser")
def test_cpu_topology(tmp_path: Path) -> None:
    """Two sockets of two cores with two threads; one thread is offline."""
    files: dict[str, object] = {"sys/devices/system/cpu/online": "0-6"}
    for number in range(8):
        folder = f"sys/devices/system/cpu/cpu{number}/topology"
        files |= {f"{folder}/physical_package_id": number // 4, f"{folder}/core_id": number // 2 % 2}
    for node in range(2):
        files[f"sys/devices/system/node/node{node}/cpulist"] = f"{4 * node}-{4 * node + 3}"
        files[f"sys/devices/system/node/node{node}/meminfo"] = f"Node {node} MemTotal: {(node + 1) << 20} kB\nNode {node} MemFree: 1 kB"
    files["proc/cpuinfo"] = "processor\t: 0\nmodel name\t: Made Up 9000\nflags\t\t: fpu avx avx2 fma\n\nprocessor\t: 1\nmodel name\t: other"
    found = system.cpu(tree(tmp_path, files))
    assert (found["sockets"], found["cores"], found["threads"], found["model"]) == (2, 4, 7, "Made Up 9000")
    assert found["flags"] == ["avx", "avx2", "fma"]
    assert found["numa"] == [{"node": 0, "cpus": "0-3", "memory_total_mib": 1024}, {"node": 1, "cpus": "4-7", "memory_total_mib": 2048}]


@pytest.mark.requirement("5.1.1", part="parser")
@pytest.mark.requirement("5.2.1", part="parser")
@pytest.mark.requirement("5.3.1", part="parser")
def test_this_machine() -> None:
    found = system.main({"run_id": "this one", "path": "/usr/bin:/bin"})
    assert found["cpu"]["threads"] == len(system.id_list(Path("/sys/devices/system/cpu/online").read_text()))
    assert 1 <= found["cpu"]["sockets"] <= found["cpu"]["cores"] <= found["cpu"]["threads"]
    assert found["memory"]["total_mib"] == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    assert 0 < found["memory"]["available_mib"] < found["memory"]["total_mib"]
    root = next(one for one in found["mounts"] if one["path"] == "/")
    room = os.statvfs("/")
    assert root["total_mib"] == room.f_blocks * room.f_frsize >> 20
    assert 0 <= root["available_mib"] <= root["total_mib"]
    assert found["os"]["kernel"] == os.uname().release
    assert found["run_id"] == "this one"
    assert abs(found["clock"]["time"] - time.time()) < 60
    assert (found["clock"]["synchronised"] is False) == any("clock" in one["message"] for one in found["problems"])
    assert found["dependencies"]["openssl"]["path"] in ("/usr/bin/openssl", None)
    json.dumps(found)


@pytest.mark.requirement("5.2.1", part="parser")
def test_memory(tmp_path: Path) -> None:
    pool = "sys/kernel/mm/hugepages/hugepages-2048kB"
    files = {
        "proc/meminfo": "MemTotal:       65536000 kB\nMemFree: 1 kB\nMemAvailable:   32768000 kB\nSwapTotal: 2048 kB\nHugePages_Total: 16",
        f"{pool}/nr_hugepages": 16,
        f"{pool}/free_hugepages": 12,
        "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never",
        "proc/sys/vm/swappiness": 10,
    }
    found = system.memory(tree(tmp_path, files))
    assert (found["total_mib"], found["available_mib"], found["swap_total_mib"], found["swappiness"]) == (64000, 32000, 2, 10)
    assert found["huge_pages"] == [{"size_kib": 2048, "total": 16, "free": 12}]
    assert found["transparent_huge_pages"] == "madvise"


@pytest.mark.requirement("5.2.1", part="parser")
def test_unreadable_memory_is_a_problem(tmp_path: Path) -> None:
    node = tree(tmp_path, {})
    assert system.memory(node)["total_mib"] is None
    assert node.problems[0]["remedy"]


MOUNTS = r"""22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:21 / /proc rw,nosuid shared:5 - proc proc rw
24 22 0:22 / /run rw - tmpfs tmpfs rw
25 22 8:17 / /srv/my\040models ro,noatime shared:7 - xfs /dev/sdb1 rw
26 22 0:50 / /var/lib/docker/overlay2/abc/merged rw - overlay overlay rw
27 22 8:1 /etc/hosts /etc/hosts rw - ext4 /dev/sda1 rw
28 22 0:60 / /mnt/nfs rw - nfs4 server:/export rw
broken line - x
29 22"""


@pytest.mark.requirement("5.3.1", part="parser")
def test_mounts_that_hold_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = tree(tmp_path, {"proc/self/mountinfo": MOUNTS, "etc/hosts": ""})
    for path in ("srv/my models", "mnt/nfs", "run", "var/lib/docker/overlay2/abc/merged"):
        (tmp_path / path).mkdir(parents=True)
    real = system._room

    def room(path: str) -> Any:
        if path.endswith("nfs"):
            time.sleep(600)  # a server that is gone
        return real(path)

    monkeypatch.setattr(system, "_room", room)
    started = time.monotonic()
    found = {one["path"]: one for one in system.mounts(node)}
    assert time.monotonic() - started < 10
    assert set(found) == {"/", "/srv/my models", "/mnt/nfs"}
    assert (found["/srv/my models"]["read_only"], found["/srv/my models"]["type"]) == (True, "xfs")
    here = os.statvfs(tmp_path)
    assert found["/"]["total_mib"] == here.f_blocks * here.f_frsize >> 20
    assert (found["/mnt/nfs"]["total_mib"], found["/mnt/nfs"]["available_mib"]) == (None, None)
    assert "nfs4 file system on /mnt/nfs (from server:/export) does not answer" in node.problems[0]["message"]


@pytest.mark.requirement("5.3.1", part="parser")
def test_a_remote_file_system_that_answers(tmp_path: Path) -> None:
    node = tree(tmp_path, {"proc/self/mountinfo": "28 22 0:60 / /mnt/nfs rw - nfs4 server:/export rw"})
    (tmp_path / "mnt/nfs").mkdir(parents=True)
    (found,) = system.mounts(node)
    here = os.statvfs(tmp_path)
    assert found["total_mib"] == here.f_blocks * here.f_frsize >> 20
    assert found["inodes_available"] > 0
    assert node.problems == []


@pytest.mark.requirement("5.3.1", part="parser")
def test_disks(tmp_path: Path) -> None:
    files = {
        "sys/block/nvme0n1/size": 2 << 21, "sys/block/nvme0n1/queue/rotational": 0, "sys/block/nvme0n1/device/model": "Fast One",
        "sys/block/sda/size": 1 << 21, "sys/block/sda/queue/rotational": 1, "sys/block/loop0/size": 99, "sys/block/sr0/size": 99,
        "sys/block/sdb/size": 0,
    }  # fmt: skip
    found = [(one["name"], one["size_mib"], one["rotational"], one["model"]) for one in system.disks(tree(tmp_path, files))]
    assert found == [("nvme0n1", 2048, False, "Fast One"), ("sda", 1024, True, None)]


@pytest.mark.requirement("1.1.9", part="parser")
def test_dependencies_and_versions(tmp_path: Path) -> None:
    packages = [("openssl", "3.0.15-1", "ok installed"), ("nftables", "1.0.6", "ok installed"), ("ufw", "0.36", "ok config-files")]
    packages.append(("docker-ce-cli", "5:27.1-1", "ok installed"))
    stanzas = [f"Package: {name}\nStatus: install {state}\nDescription: x\n x\nVersion: {version}\n" for name, version, state in packages]
    tree(tmp_path, {"var/lib/dpkg/status": "\n".join(stanzas)})
    for name in ("openssl", "ufw", "docker", "etcd"):
        tool(tmp_path, name)
    (tmp_path / "bin/nft").write_text("not executable")
    found = system.main({"root": str(tmp_path), "path": str(tmp_path / "bin")})["dependencies"]
    assert found["openssl"] == {"path": str(tmp_path / "bin/openssl"), "version": "3.0.15-1"}
    assert found["docker"]["version"] == "5:27.1-1"
    assert found["etcd"] == {"path": str(tmp_path / "bin/etcd"), "version": None}
    assert found["ufw"] == {"path": str(tmp_path / "bin/ufw"), "version": None}  # removed, its configuration left behind
    assert found["nft"] == found["curl"] == {"path": None, "version": None}


RELEASE = r"""ID=ubuntu
ID_LIKE="debian x"
VERSION_ID='24.04'
VERSION_CODENAME=noble
PRETTY_NAME="Ubuntu 24.04 \"LTS\""
broken"""


@pytest.mark.requirement("1.1.9", part="parser")
def test_operating_system_and_clock(tmp_path: Path) -> None:
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    files = {
        "etc/os-release": RELEASE,
        "sys/class/dmi/id/sys_vendor": "Maker",
        "sys/class/dmi/id/product_name": "Box 1",
        "etc/machine-id": "abc",
        "run/chrony/chronyd.pid": 1,
    }
    node = tree(tmp_path, files)
    found = system.operating_system(node)
    assert (found["id"], found["version"], found["codename"], found["name"]) == ("ubuntu", "24.04", "noble", 'Ubuntu 24.04 "LTS"')
    assert (found["like"], found["service_manager"], found["hardware"], found["machine_id"]) == (
        ["debian", "x"],
        "systemd",
        "Maker Box 1",
        "abc",
    )
    (tmp_path / "etc/localtime").symlink_to("/usr/share/zoneinfo/Europe/Berlin")
    clock = system.clock(node)
    assert (clock["services"], clock["timezone"]) == (["chrony"], "Europe/Berlin")


ETCD_YAML = """# Managed by bzzz.cluster
name: "n1"
data-dir: "/var/lib/etcd/bzzz"
listen-client-urls: https://10.0.0.11:2389,https://127.0.0.1:2389
initial-cluster: n1=https://10.0.0.11:2380,n2.example=https://[fd00::12]:2380,n-3=https://10.0.0.13:2380

initial-cluster-state: new"""
# etcd 3.4 and 3.5; a member that has never been up has no client URLs, one added by hand no name either.
MEMBERS = {
    "header": {"member_id": 1},
    "members": [
        {"ID": 1, "name": "n1", "peerURLs": ["https://10.0.0.11:2380"], "clientURLs": ["https://10.0.0.11:2389"]},
        {"ID": 2, "name": "n2.example", "peerURLs": ["https://[fd00::12]:2380"]},
        {"ID": 3, "peerURLs": ["https://10.0.0.14:2380"]},
    ],
}
BZZZ_ETCD = [{"protocol": "tcp", "address": "127.0.0.1", "port": 2389, "pid": 1, "program": "etcd", "unit": "bzzz-etcd.service"}]


@pytest.mark.requirement("F7", part="a formed cluster is known by its members")
def test_etcd_that_answers_knows_its_members(tmp_path: Path) -> None:
    node = tree(tmp_path, {"etc/bzzz/etcd.yaml": ETCD_YAML, "var/lib/etcd/bzzz/member/wal/0": ""})
    tool(tmp_path, "etcdctl", f"PATH=/usr/bin:/bin\necho $ETCDCTL_API $* > $0.ran\ncat <<'END'\n{json.dumps(MEMBERS)}\nEND")
    (tmp_path / "bin/env").symlink_to("/usr/bin/env")
    found = system.etcd(node, BZZZ_ETCD)
    assert found == {"data_path": "/var/lib/etcd/bzzz", "members": ["n1", "n2.example"], "started": ["n1"]}
    ran = (tmp_path / "bin/etcdctl.ran").read_text()
    assert ran.startswith("3 --endpoints=https://127.0.0.1:2389 --cacert=/etc/bzzz/tls/ca.crt")
    assert ran.endswith("-w json member list\n")


@pytest.mark.requirement("F7", part="a formed cluster is known by its members")
@pytest.mark.parametrize("body", [None, "echo '{}'; exit 0", "echo context deadline exceeded >&2; exit 1", "exec sleep 60"])
def test_etcd_that_does_not_answer_is_known_by_its_configuration(tmp_path: Path, body: str | None) -> None:
    node = tree(tmp_path, {"etc/bzzz/etcd.yaml": ETCD_YAML, "var/lib/etcd/bzzz/member/wal/0": ""})
    node.timeout = 0.5
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/env").symlink_to("/usr/bin/env")
    if body:
        tool(tmp_path, "etcdctl", f"PATH=/usr/bin:/bin\n{body}")
    told = {"data_path": "/var/lib/etcd/bzzz", "members": ["n1", "n2.example", "n-3"], "started": None}
    assert system.etcd(node, BZZZ_ETCD) == told
    tool(tmp_path, "etcdctl", ": > $0.ran")
    assert system.etcd(node, []) == told and not (tmp_path / "bin/etcdctl.ran").exists(), "nobody listens, so nobody is asked"


def test_an_etcd_without_data_has_no_members(tmp_path: Path) -> None:
    """Killed before its first start, or built anew; or no coordinator at all."""
    assert system.etcd(tree(tmp_path, {}), []) is None
    node = tree(tmp_path, {"etc/bzzz/etcd.yaml": ETCD_YAML})
    (tmp_path / "var/lib/etcd/bzzz").mkdir(parents=True)
    assert system.etcd(node, []) is None


def test_sets_that_have_begun_to_land(tmp_path: Path) -> None:
    """The directory is made, and its lock, before anything is known to be ours."""
    tree(tmp_path, {"var/lib/bzzz/sets/metrics/state.json": "{}", "var/lib/bzzz/sets/coordination/lock": ""})
    assert system.main({"root": str(tmp_path), "path": str(tmp_path / "bin")})["sets"] == ["metrics"]


def test_numbers_of_the_services_user_and_groups(tmp_path: Path) -> None:
    node = tree(
        tmp_path, {"etc/passwd": "root:x:0:0::/:/bin/sh\nbzzz:x:998:997::/:/bin/sh\n", "etc/group": "bzzz:x:997:\nbzzz-tls:x:996:bzzz\n"}
    )
    assert system.ids(node) == {"user": 998, "group": 997, "tls_group": 996}


@pytest.mark.parametrize("passwd", [None, "bzzz\nbzzz2:x:1:1::/:/bin/sh\n", "bzzz:x::::\n"])
def test_where_there_are_none_none_are_told(tmp_path: Path, passwd: str | None) -> None:
    assert set(system.ids(tree(tmp_path, {"etc/passwd": passwd} if passwd else {})).values()) == {None}


@pytest.mark.skipif(os.geteuid() != 0 or not PYTHON.exists(), reason="becomes another user, who needs a Python")
def test_a_user_who_may_see_less_sees_the_rest() -> None:
    """As the node service, which detects without root's rights: what root alone may read is left out, and ends nothing."""
    with tempfile.TemporaryDirectory() as folder:  # not pytest's, which is closed to others
        root = Path(folder)
        root.chmod(0o755)
        files = {"var/lib/bzzz/sets/metrics/state.json": "{}", "etc/bzzz/etcd.yaml": ETCD_YAML, "sys/devices/system/cpu/online": "0-1"}
        tree(root, files)
        for closed in ("var/lib/bzzz/sets/metrics", "etc/bzzz"):
            (root / closed).chmod(0o700)
        text = question.script("system", {"root": folder, "path": f"{folder}/bin"})
        done = subprocess.run([PYTHON, "-sE", "-"], input=text, user=65534, capture_output=True, text=True, check=False)
    assert not done.stderr
    found = json.loads(base64.b64decode(done.stdout.removeprefix(question.ANSWER)))
    assert found["cpu"]["threads"] == 2 and found["sets"] == [] and found["etcd"] is None


class Ollama(http.server.BaseHTTPRequestHandler):
    models: ClassVar[Any] = [
        {
            "name": "llama3.1:8b",
            "digest": "46e0c1",
            "size": 4920753328,
            "details": {"parameter_size": "8.0B", "quantization_level": "Q4_K_M"},
        },
        {"name": "tiny", "size": "N/A"},
        "junk",
    ]

    def do_GET(self) -> None:
        said = {"/api/version": {"version": "0.13.0"}, "/api/tags": {"models": self.models}}.get(self.path)
        self.send_response(200 if said else 404)
        self.end_headers()
        self.wfile.write(json.dumps(said).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def ollama_port() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Ollama) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.mark.requirement("3.3.3", part="parser")
def test_an_existing_ollama_is_found_with_its_models(tmp_path: Path, ollama_port: int) -> None:
    node = tree(tmp_path, {"etc/systemd/system/ollama.service": "[Service]"})
    tool(tmp_path, "ollama", "echo ran > $0.ran")
    found = system.ollama(node, [], [ollama_port])
    assert found is not None
    assert (found["version"], found["endpoint"], found["unit"]) == ("0.13.0", f"http://127.0.0.1:{ollama_port}", "ollama.service")
    assert found["models"] == [
        {"name": "llama3.1:8b", "digest": "46e0c1", "size_mib": 4692, "parameters": "8.0B", "quantization": "Q4_K_M"},
        {"name": "tiny", "digest": None, "size_mib": None, "parameters": None, "quantization": None},
    ]
    assert not (tmp_path / "bin/ollama.ran").exists()
    assert node.problems == []


@pytest.mark.requirement("3.3.3", part="parser")
def test_an_ollama_on_another_port_is_found_by_its_process(tmp_path: Path, ollama_port: int) -> None:
    listener = {"protocol": "tcp", "address": "0.0.0.0", "port": ollama_port, "pid": 1, "program": "ollama", "unit": "my-ollama.service"}
    found = system.ollama(tree(tmp_path, {}), [listener], [1])
    assert found is not None
    assert (found["endpoint"], found["unit"], found["listens_on"]) == (f"http://127.0.0.1:{ollama_port}", "my-ollama.service", ["0.0.0.0"])


@pytest.mark.requirement("3.3.3", part="parser")
@pytest.mark.requirement("3.5.2", part="each of a node's instances is found")
def test_all_ports_of_an_ollama_are_tried(tmp_path: Path, ollama_port: int) -> None:
    """As the node service does, which is not root and sees nobody's listeners."""
    payload = {"root": str(tmp_path), "path": str(tmp_path / "bin"), "ollama_ports": [1, ollama_port]}
    found = system.main(payload, [])["ollama"]
    assert found["endpoints"] == [f"http://127.0.0.1:{ollama_port}"], "one that is stopped hides no other"


@pytest.mark.requirement("3.3.3", part="parser")
def test_an_ollama_that_does_not_run(tmp_path: Path) -> None:
    node = tree(tmp_path, {})
    assert system.ollama(node, [], [1]) is None
    assert node.problems == []
    tool(tmp_path, "ollama", "echo 'Warning: could not connect to a running Ollama instance'; echo 'Warning: client version is 0.12.6' >&2")
    found = system.ollama(node, [], [1])
    assert found is not None
    assert (found["version"], found["endpoint"], found["models"]) == ("0.12.6", None, [])
    assert "nothing answers on 127.0.0.1:1" in node.problems[0]["message"]


@pytest.mark.requirement("3.3.3", part="parser")
@pytest.mark.parametrize("models", [None, "junk", {"a": 1}, [None, 1, {"name": 3}, {"name": "x", "details": "y"}]])
def test_an_ollama_that_talks_nonsense(tmp_path: Path, ollama_port: int, monkeypatch: pytest.MonkeyPatch, models: object) -> None:
    monkeypatch.setattr(Ollama, "models", models)
    found = system.ollama(tree(tmp_path, {}), [], [ollama_port])
    assert found is not None
    assert [one["name"] for one in found["models"]] == (["x"] if isinstance(models, list) else [])


@pytest.mark.requirement("3.3.3", part="parser")
@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\n\r\n{", b"HTTP/1.1 500 No\r\n\r\n{}", None])
def test_something_else_on_the_port(answer: bytes | None) -> None:
    """None: it accepts and says nothing."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                if answer is None:
                    connection.settimeout(5)
                    while connection.recv(4096):
                        pass
                else:
                    connection.sendall(answer)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(4096):
                        pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        assert machine.http_json(server.getsockname(), "/api/version", 0.5) is None
        thread.join(5)
        assert not thread.is_alive()


@pytest.mark.requirement("1.1.9", part="parser")
def test_container_engine(tmp_path: Path) -> None:
    node = tree(tmp_path, {"usr/libexec/docker/cli-plugins/docker-compose": ""})
    assert system.container_engine(node) is None
    tool(tmp_path, "podman")
    assert system.container_engine(node) == {
        "name": "podman", "path": str(tmp_path / "bin/podman"), "version": None, "running": None, "compose": "plugin",
        "published": [],
    }  # fmt: skip
    tool(tmp_path, "docker")
    found = system.container_engine(node)
    assert found is not None
    assert (found["name"], found["running"], found["version"]) == ("docker", False, None)
    assert "its daemon does not answer" in node.problems[0]["message"]


class UnixServer(http.server.ThreadingHTTPServer):
    import socket

    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        self.socket.bind(self.server_address)


class Docker(Ollama):
    def do_GET(self) -> None:
        self.client_address = ("", 0)
        self.send_response(200)
        self.end_headers()
        port = {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"}
        ports = [port, {**port, "IP": "::"}, {**port, "IP": "127.0.0.1", "PublicPort": 8081}, {"PrivatePort": 81, "Type": "tcp"}]
        containers = [{"Names": ["/web"], "Ports": ports}, {"Ports": [{**port, "PublicPort": 53, "Type": "udp"}]}, {"Ports": None}, 1]
        said = containers if self.path == "/containers/json" else {"Version": "26.1.5", "ApiVersion": "1.45"}
        self.wfile.write(json.dumps(said).encode())


@pytest.mark.requirement("1.1.9", part="parser")
def test_a_running_docker(tmp_path: Path) -> None:
    tool(tmp_path, "docker")
    (tmp_path / "run").mkdir()
    with UnixServer(str(tmp_path / "run/docker.sock"), Docker) as server:  # type: ignore[arg-type]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found = system.container_engine(tree(tmp_path, {}))
        user, drop = "-A FORWARD -j DOCKER-USER", "-A DOCKER-USER -i eth0 -j DROP"
        docker = "-A FORWARD -o docker0 -j DOCKER"
        ruled = {}
        for rules in (
            (user, docker, "-A DOCKER-USER -j RETURN"),
            (docker, user, drop),
            (drop, docker),
            (user, docker, drop),
            ("-A FORWARD -j DOCKER-ISOLATION-STAGE-1", user, docker, drop),
        ):
            tool(tmp_path, "iptables", "\n".join(f"echo '{rule}'" for rule in rules))
            ruled[rules] = (system.container_engine(tree(tmp_path, {})) or {})["published"]
        server.shutdown()
    assert found is not None
    assert (found["version"], found["running"], found["compose"]) == ("26.1.5", True, None)
    assert found["published"] == [
        {"protocol": "tcp", "port": 8080, "container": "web", "filtered": False},
        {"protocol": "udp", "port": 53, "container": "?", "filtered": False},
    ]
    assert [[one["filtered"] for one in told] for told in ruled.values()] == [[False] * 2] * 3 + [[True] * 2] * 2


@pytest.mark.requirement("5.2.1", part="parser")
@given(st.text(), st.text("0123456789-,", max_size=12))
def test_any_text(said: str, numbers: str) -> None:
    assert all(isinstance(value, int) for value in system.meminfo(said).values())
    assert all(isinstance(value, str) for value in system.os_release(said).values())
    assert all(value >= 0 for value in system.id_list(numbers))
    system.package_version(said, "a b")
    machine.json_in(said)
    machine.natural(said)
    assert machine.integer(said) is None or said.strip()


@pytest.mark.requirement("5.3.1", part="parser")
@given(st.text(), st.text(max_size=4))
def test_unescape_undoes_the_kernel(text: str, more: str) -> None:
    whole = text + more
    kernel = "".join(f"\\{ord(one):03o}" if one in " \t\n\\" else one for one in whole)
    assert system.unescape(kernel) == whole


UFW_ON = {"etc/ufw/ufw.conf": "# /etc/ufw/ufw.conf\nENABLED=yes"}


@pytest.mark.requirement("1.3.1", part="which firewall is there, and whose it is")
@pytest.mark.parametrize(
    ("programs", "files", "tool_found", "active"),
    [
        ([], {}, "nftables", []),
        (["iptables"], {}, "iptables", []),
        (["iptables", "nft"], {}, "nftables", []),
        (["iptables", "nft", "ufw"], {}, "ufw", []),
        (["nft", "ufw"], UFW_ON, "ufw", ["ufw"]),
        (["nft", "ufw"], {**UFW_ON, "var/lib/bzzz/ufw-before": "Status: inactive"}, "ufw", []),
        (["nft", "ufw"], {**UFW_ON, "var/lib/bzzz/ufw-before": "Status: active\nDefault: deny"}, "ufw", ["ufw"]),
        (["nft"], UFW_ON, "nftables", []),  # removed, its configuration left behind
    ],
)
def test_the_firewall_that_is_there(
    tmp_path: Path, programs: list[str], files: dict[str, object], tool_found: str, active: list[str]
) -> None:
    for name in programs:
        tool(tmp_path, name)
    assert system.firewall(tree(tmp_path, files)) == {"tool": tool_found, "active": active}
    units = tmp_path / "run/systemd/units"
    units.mkdir(parents=True)
    (units / "invocation:firewalld.service").symlink_to("6dbcb7cf5c1a45ee9bda8d400bc2e520")
    assert system.firewall(tree(tmp_path, files)) == {"tool": "firewalld", "active": ["firewalld", *active]}
