# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Machines that nothing has been done to yet: what detection tells of them, declarations that are refused, and the plan.

No GPU has been seen by these tests: their tools are stand-ins that print captures from real machines. A second interface
is one end of a veth pair, since not every kernel has dummy interfaces.
"""

from __future__ import annotations

import ipaddress
import json
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Tools

from bzzz_setup.lab import Lab

GPU = Path(__file__).parent.parent / "fixtures/gpu"
PORTS = {"service_port": 8090, "service_mcp_port": 3010, "service_web_port": 8443, "service_websocket_port": 8091}
# Written by the machine itself at any time, or whenever somebody logs in; in /tmp and /run things may come and go.
OF_THE_MACHINE = re.compile(
    r"/run|/tmp|/(var/log|run/(log|systemd|user|sudo|udev|utmp|motd\.dynamic)|dev/shm/before|var/lib/systemd)(/.*)?"
)


def shell(lab: Lab, node: str, script: str) -> str:
    """What a script says that runs as root on a node, beside SSH."""
    done = lab.exec(node, ["sh", "-euc", script], check=False)
    assert done.returncode == 0, f"{node}: {script}\n{done.stdout}{done.stderr}"
    return done.stdout


def about(problems: list[dict[str, Any]], option: str, **found: Any) -> list[dict[str, Any]]:
    """The problems of an option, and of a node, a severity…"""
    return [one for one in problems if one["option"] == option and all(one[key] == value for key, value in found.items())]


def connections(lab: Lab) -> dict[str, int]:
    """How many TCP connections each node has taken since it was switched on."""
    counted = {}
    for node in lab.nodes:
        names, values = [line.split() for line in shell(lab, node.name, "cat /proc/net/snmp").splitlines() if line.startswith("Tcp:")]
        counted[node.name] = int(values[names.index("PassiveOpens")])
    return counted


@contextmanager
def untouched(lab: Lab) -> Iterator[None]:
    """On no node a file, directory or link is made, changed or removed meanwhile; nor does a process stay."""
    before = {}
    for node in lab.nodes:
        shell(lab, node.name, "touch /dev/shm/before")
        before[node.name] = shell(lab, node.name, "pgrep -a python || true")
    yield
    for node in lab.nodes:
        found = shell(lab, node.name, "find / /tmp /run /dev/shm -xdev -cnewer /dev/shm/before").splitlines()
        assert [path for path in found if not OF_THE_MACHINE.fullmatch(path)] == [], node.name
        assert shell(lab, node.name, "pgrep -a python || true") == before[node.name]


def pair(lab: Lab, node: str, name: str, address: str = "", state: str = "up") -> None:
    """A second interface."""
    given = f"ip address add {address} dev {name};" if address else ""
    shell(lab, node, f"ip link add {name} type veth peer name {name}p; {given} ip link set {name} up; ip link set {name}p {state}")


@pytest.fixture(scope="module", autouse=True)
def fresh(lab: Lab) -> None:
    for node in lab.nodes:
        assert lab.exec(node.name, ["test", "-e", "/var/lib/bzzz"], check=False).returncode == 1, "this lab has been used: remove it"


@pytest.fixture
def restored(lab: Lab) -> Iterator[None]:
    """Afterwards the nodes' interfaces, kernel parameters and processes are as they were."""
    yield
    undo = (
        "for link in $(ls /sys/class/net); do case $link in lo|eth0|bonding_masters) ;; *) ip link del $link || true;; esac; done;"
        "ip route flush type unreachable; ip -6 route flush type unreachable || true; sysctl -qw net.ipv4.ip_local_reserved_ports=;"
        "ip route show | grep ' via ' | grep -v '^default' | while read route; do ip route del $route; done;"
        "sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1; systemctl stop other.service 2>/dev/null || true"
    )
    for node in lab.nodes:
        shell(lab, node.name, undo)


# --- detection ---


@pytest.fixture(scope="module")
def detected(bzzz: Tools) -> dict[str, Any]:
    with untouched(bzzz.lab):
        return bzzz.document("detect")


@pytest.mark.requirement("F1")
def test_detection_looks_at_every_node_and_leaves_nothing_behind(detected: dict[str, Any], bzzz: Tools) -> None:
    """That nothing is left is asserted by fixture `detected`."""
    assert set(detected["nodes"]) == set(bzzz.nodes)
    for node, facts in detected["nodes"].items():
        assert set(facts) == {"bzzz_gpu", "bzzz_network", "bzzz_ports", "bzzz_system"}
        assert facts["bzzz_system"]["os"]["hostname"] == node
        assert facts["bzzz_gpu"] == {"devices": [], "links": [], "problems": []}
    assert {(check["node"], check["status"]) for check in detected["checks"]} == {(node, "pass") for node in bzzz.nodes}
    assert detected["exit_code"] == 0 and detected["problems"] == []


@pytest.mark.requirement("1.1.9", "1.1.11")
def test_interfaces_and_routes_are_the_nodes_own(detected: dict[str, Any], lab: Lab) -> None:
    """Compared with ip(8). Nodes of the lab have veth and loopback interfaces; other kinds, and drivers, are unit-tested."""
    for node, facts in detected["nodes"].items():
        told = {found["name"]: found for found in facts["bzzz_network"]["interfaces"]}
        links = json.loads(shell(lab, node, "ip -json -details address"))
        assert set(told) == {link["ifname"] for link in links}
        for link in links:
            found = told[link["ifname"]]
            assert found["kind"] == link.get("linkinfo", {}).get("info_kind", "loopback")
            assert (found["mtu"], found["state"]) == (link["mtu"], link["operstate"].lower())
            assert found["up"] == ("UP" in link["flags"]) and found["carrier"] == ("LOWER_UP" in link["flags"])
            assert found["mac"] == (link["address"] if link["ifname"] != "lo" else None)
            addresses = {(one["local"], one["prefixlen"], one["scope"]) for one in link["addr_info"]}
            assert {(one["address"], one["prefix"], one["scope"]) for one in found["addresses"]} == addresses
        speed = lab.exec(node, ["cat", "/sys/class/net/eth0/speed"]).stdout
        assert told["eth0"]["speed_mbps"] == int(speed)
        routes = json.loads(shell(lab, node, "ip -json route show"))
        seen = {(route["destination"], route["gateway"], route["interface"]) for route in facts["bzzz_network"]["routes"]}
        assert seen == {(route["dst"], route.get("gateway"), route["dev"]) for route in routes}


@pytest.mark.requirement("1.2.6")
def test_listeners_are_the_nodes_own(detected: dict[str, Any], lab: Lab) -> None:
    for node, facts in detected["nodes"].items():
        listening = re.findall(
            r'^LISTEN +\d+ +\d+ +(\S+):(\d+) .*users:\(\("([^"]+)",pid=(\d+)', shell(lab, node, "ss -Htlnp"), re.MULTILINE
        )
        wanted = {
            (address.strip("[]*").partition("%")[0] or "::", int(port), program, int(pid)) for address, port, program, pid in listening
        }
        told = [one for one in facts["bzzz_ports"]["listeners"] if one["protocol"] == "tcp"]
        mine = {(one["address"], one["port"], one["program"], one["pid"]) for one in told if one["pid"]}
        assert mine == wanted and any(port == 22 for _, port, _, _ in mine)
        assert {one["unit"] for one in told if one["port"] == 22} == {"ssh.service"}
        first, last = shell(lab, node, "cat /proc/sys/net/ipv4/ip_local_port_range").split()
        assert facts["bzzz_ports"]["ephemeral"] == {"first": int(first), "last": int(last)}


@pytest.mark.requirement("5.1.1")
def test_cpu_topology_is_the_nodes_own(detected: dict[str, Any], lab: Lab) -> None:
    for node, facts in detected["nodes"].items():
        rows = [line.split(",") for line in shell(lab, node, "lscpu -p=cpu,core,socket,node").splitlines() if not line.startswith("#")]
        cpu = facts["bzzz_system"]["cpu"]
        assert cpu["threads"] == len(rows)
        assert (cpu["cores"], cpu["sockets"]) == (len({row[1] for row in rows}), len({row[2] for row in rows}))
        assert cpu["model"] in shell(lab, node, "lscpu")
        nodes = shell(lab, node, "cd /sys/devices/system/node && for node in node[0-9]*; do echo $node $(cat $node/cpulist); done")
        assert {f"node{one['node']} {one['cpus']}" for one in cpu["numa"]} == set(nodes.splitlines())


@pytest.mark.requirement("5.2.1")
def test_memory_is_the_nodes_own(detected: dict[str, Any], lab: Lab) -> None:
    for node, facts in detected["nodes"].items():
        memory = facts["bzzz_system"]["memory"]
        kib = {name: int(value) for name, value in re.findall(r"^(\w+): +(\d+)", shell(lab, node, "cat /proc/meminfo"), re.MULTILINE)}
        assert (memory["total_mib"], memory["swap_total_mib"]) == (kib["MemTotal"] // 1024, kib["SwapTotal"] // 1024)
        assert memory["available_mib"] == pytest.approx(kib["MemAvailable"] / 1024, abs=kib["MemTotal"] / 1024 / 3)
        assert memory["swappiness"] == int(shell(lab, node, "cat /proc/sys/vm/swappiness"))
        pools = shell(lab, node, "cd /sys/kernel/mm/hugepages && for pool in *; do echo $pool $(cat $pool/nr_hugepages); done")
        assert {f"hugepages-{one['size_kib']}kB {one['total']}" for one in memory["huge_pages"]} == set(pools.splitlines())
        total = re.findall(r"MemTotal: +(\d+)", shell(lab, node, "cat /sys/devices/system/node/node*/meminfo"))
        assert [one["memory_total_mib"] for one in facts["bzzz_system"]["cpu"]["numa"]] == [int(one) // 1024 for one in total]


@pytest.mark.requirement("5.3.1")
def test_disks_and_mounts_are_the_nodes_own(detected: dict[str, Any], lab: Lab) -> None:
    for node, facts in detected["nodes"].items():
        mounts = {mount["path"]: mount for mount in facts["bzzz_system"]["mounts"]}
        rows = [line.split() for line in shell(lab, node, "df -PTk").splitlines()[1:]]
        room = {row[6]: (row[1], int(row[2]) // 1024, int(row[4]) // 1024) for row in rows if not re.match(r"/(dev|run|sys|proc)", row[6])}
        assert {"/", "/tmp", "/media/lab"} <= set(room) <= set(mounts)  # df names a device once
        for path, (kind, total, available) in room.items():
            assert (mounts[path]["type"], mounts[path]["total_mib"]) == (kind, total)
            assert mounts[path]["available_mib"] == pytest.approx(available, abs=2048)
        sizes = shell(lab, node, "lsblk -bdnro NAME,SIZE,TYPE").split("\n")
        wanted = {(name, int(size) >> 20) for name, size, kind in (line.split() for line in sizes if line) if kind == "disk" and int(size)}
        told = {(disk["name"], disk["size_mib"]) for disk in facts["bzzz_system"]["disks"]}
        assert told == {one for one in wanted if not one[0].startswith(("ram", "zram", "nbd", "fd"))}


@pytest.mark.requirement("F1")
def test_software_and_clock_are_the_nodes_own(detected: dict[str, Any], lab: Lab) -> None:
    for node, facts in detected["nodes"].items():
        system = facts["bzzz_system"]
        for tool, package in {"sshd": "openssh-server", "ip": "iproute2", "python3": "python3", "systemctl": "systemd"}.items():
            version = shell(lab, node, f"dpkg-query -W -f='${{Version}}' {package}")
            assert system["dependencies"][tool] == {"path": shell(lab, node, f"command -v {tool}").strip(), "version": version}
        assert {system["dependencies"][tool]["path"] for tool in ("nft", "ufw", "etcd", "docker", "nvidia-smi", "ollama")} == {None}
        assert system["container_engine"] is None and system["ollama"] is None
        synchronised = shell(lab, node, "timedatectl show --property NTPSynchronized --value").strip() == "yes"
        assert system["clock"]["synchronised"] == synchronised
        assert 0 <= time.time() - system["clock"]["time"] < 3600
        assert system["os"]["kernel"] == shell(lab, node, "uname -r").strip()


@pytest.fixture(scope="module")
def with_gpus(bzzz: Tools, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, Any], str]]:
    """What `detect` tells, as JSON and as text, of three NVIDIA GPUs, four AMD GPUs, and a tool that hangs."""
    capture = (GPU / "nvidia-smi-q-x.tesla-t4.xml").read_text(encoding="utf-8")
    (card,) = re.findall(r"^ *<gpu id=.*?^ *</gpu>\n", capture, re.DOTALL | re.MULTILINE)
    cards = [card]
    for number in (1, 2):  # more of the same kind, to have links between them
        cards.append(card.replace("GPU-d37e67a5", f"GPU-d37e67a{5 + number}").replace("00000000:00:1E.0", f"00000000:0{number}:1E.0"))
    three = capture.replace(card, "".join(cards)).replace("<attached_gpus>1<", "<attached_gpus>3<")
    nvidia = (
        "case $1 in -q) cat /dev/shm/gpus.xml;; topo) cat /dev/shm/topology.txt;; "
        "--query-gpu*) sed -n 's/.*<uuid>\\(.*\\)<.uuid>.*/\\1, 7.5/p' /dev/shm/gpus.xml;; esac"
    )
    node1, node2, node3 = bzzz.nodes
    tools = [
        (node1, "nvidia-smi", nvidia, {"gpus.xml": three, "topology.txt": (GPU / "nvidia-smi-topo-m.txt").read_text(encoding="utf-8")}),
        (node2, "rocm-smi", "cat /dev/shm/gpus.json", {"gpus.json": (GPU / "rocm-smi.mi100_rocm602.json").read_text(encoding="utf-8")}),
        (node3, "nvidia-smi", "exec sleep 987", {}),
    ]
    for node, tool, script, files in tools:
        for name, text in files.items():
            bzzz.lab.exec(node, ["sh", "-c", f"cat > /dev/shm/{name}"], stdin=text)
        bzzz.lab.exec(node, ["sh", "-c", f"cat > /usr/local/bin/{tool}; chmod 755 /usr/local/bin/{tool}"], stdin=f"#!/bin/sh\n{script}\n")
    folder = bzzz.declare(tmp_path_factory.mktemp("gpus") / "inventory", {"detection_tool_timeout_seconds": 1})
    yield bzzz.document("detect", folder=folder), bzzz.setup("detect", folder=folder).stdout
    for node, tool, _, files in tools:
        shell(bzzz.lab, node, f"rm -f /usr/local/bin/{tool} {' '.join(f'/dev/shm/{name}' for name in files)}")


@pytest.mark.requirement("5.4.1", "3.5.1")
def test_nvidia_gpus_arrive_in_facts_and_report(with_gpus: tuple[dict[str, Any], str], bzzz: Tools) -> None:
    """By a stand-in for nvidia-smi that prints a real capture, and a matrix of links made by hand; NVML and MIG are unit-tested."""
    document, text = with_gpus
    facts = document["nodes"][bzzz.nodes[0]]["bzzz_gpu"]
    assert [device["uuid"][:12] for device in facts["devices"]] == ["GPU-d37e67a5", "GPU-d37e67a6", "GPU-d37e67a7"]
    for device in facts["devices"]:
        assert (device["vendor"], device["model"], device["memory_total_mib"]) == ("nvidia", "Tesla T4", 15360)
        assert (device["driver_version"], device["runtime_version"], device["compute_capability"]) == ("515.105.01", "11.7", "7.5")
        assert device["ecc"] is True and device["mig"] is None
    assert {(*link["between"], link["path"]) for link in facts["links"]} == {(0, 1, "NV12"), (0, 2, "SYS"), (1, 2, "PHB")}
    assert "3 x Tesla T4 15 GiB" in text
    assert re.search(rf"^{bzzz.nodes[0]} +nvidia 0 +Tesla T4 +15 GiB +515.105.01 +11.7 +GPU-d37e67a5-91dd-\S+ +0000:00:1e.0", text, re.M)


@pytest.mark.requirement("5.4.2", "3.5.1")
def test_amd_gpus_arrive_in_facts_and_report(with_gpus: tuple[dict[str, Any], str], bzzz: Tools) -> None:
    """By a stand-in for rocm-smi that prints a real capture, links included; amd-smi and sysfs are unit-tested."""
    document, text = with_gpus
    facts = document["nodes"][bzzz.nodes[1]]["bzzz_gpu"]
    assert len(facts["devices"]) == 4 and len({device["uuid"] for device in facts["devices"]}) == 4
    for device in facts["devices"]:
        assert (device["vendor"], device["memory_total_mib"], device["driver_version"]) == ("amd", 32752, "6.3.6")
        assert "MI100" in device["model"]
    assert len(facts["links"]) == 6 and {link["weight"] for link in facts["links"]} >= {40}
    assert re.search(rf"^{bzzz.nodes[1]} +amd 0 .*MI100.* 32 GiB +6.3.6 .*0x79ccd55167a2124a", text, re.M)


@pytest.mark.requirement("F1")
def test_a_hung_tool_ends_as_a_finding(with_gpus: tuple[dict[str, Any], str], bzzz: Tools) -> None:
    document, text = with_gpus
    facts = document["nodes"][bzzz.nodes[2]]["bzzz_gpu"]
    assert facts["devices"] == []
    (finding,) = [one for one in facts["problems"] if "did not finish" in one["message"]]
    assert "nvidia-smi -q -x did not finish within 1 s" in finding["message"]
    assert "detection_tool_timeout_seconds" in finding["remedy"]
    assert finding["message"] in text and document["exit_code"] == 0
    left = bzzz.lab.exec(bzzz.nodes[2], ["pgrep", "-fx", "sleep 987"], check=False).stdout
    assert left == "", "the tool still runs"


@pytest.mark.requirement("F1")
def test_a_node_that_is_down_is_named_and_the_others_go_on(bzzz: Tools) -> None:
    """The first one, since that is where Ansible runs what is to run once."""
    down, *up = bzzz.nodes
    bzzz.lab.kill(down)
    try:
        document = bzzz.document("detect", code=3)
    finally:
        bzzz.lab.start(down)
    assert [(failure["node"], failure["kind"]) for failure in document["failures"]] == [(down, "unreachable")]
    assert "drops what is sent to it" in document["failures"][0]["message"] and "ping " in document["failures"][0]["remedy"]
    assert {check["node"] for check in document["checks"] if check["status"] == "pass"} == set(up)
    assert document["nodes"][down] == {} and all(document["nodes"][node]["bzzz_system"]["cpu"]["threads"] for node in up)
    assert set(document["places"]) == set(up)


# --- subnet and interface ---


@pytest.mark.requirement("1.1.1", "1.1.9", "1.1.10")
def test_each_nodes_subnet_is_detected_and_different_ones_are_reported(
    bzzz: Tools, detected: dict[str, Any], restored: None, tmp_path: Path
) -> None:
    """Of node 2's two interfaces the one with the default route is taken; node 3's is overridden, so its subnet is another."""
    places = {node.name: {"subnet": str(bzzz.lab.subnet), "interface": "eth0", "address": node.address} for node in bzzz.lab.nodes}
    assert detected["places"] == places
    _, node2, node3 = bzzz.nodes
    pair(bzzz.lab, node2, "aaa0", "10.89.0.2/24")
    pair(bzzz.lab, node3, "net1", "10.88.0.3/24")
    folder = bzzz.declare(tmp_path / "inventory", nodes={node3: {"network_interface": "net1", "network_address": "10.88.0.3"}})
    document = bzzz.document("detect", folder=folder)
    assert document["places"] == {**places, node3: {"subnet": "10.88.0.0/24", "interface": "net1", "address": "10.88.0.3"}}
    assert {found["severity"] for found in document["problems"]} == {"warning"}
    (found,) = [one for one in about(document["problems"], "network_subnet") if "different networks" in one["message"]]
    assert f"{node2} {bzzz.lab.subnet} (eth0), {node3} 10.88.0.0/24 (net1)" in found["message"]
    text = bzzz.setup("detect", folder=folder).stdout
    assert re.search(rf"^{node3} +net1 +cluster +veth +up +10.88.0.3/24 ", text, re.M) and "different networks" in text
    assert re.search(rf"^{node3} +eth0 +veth +up ", text, re.M)


@pytest.mark.requirement("1.1.9", "1.1.12")
def test_an_interface_is_refused_when_down_without_carrier_or_elsewhere(bzzz: Tools, restored: None, tmp_path: Path) -> None:
    """An interface that the peers cannot reach follows below."""
    subnet = bzzz.lab.subnet
    assert subnet
    node1, node2, node3 = bzzz.nodes
    shell(bzzz.lab, node1, f"ip link add idle0 type bridge; ip address add {subnet[201]}/32 dev idle0")
    pair(bzzz.lab, node2, "nocable0", f"{subnet[202]}/32", state="down")
    pair(bzzz.lab, node3, "other0", "192.168.77.1/24")
    chosen = {node1: "idle0", node2: "nocable0", node3: "other0"}
    folder = bzzz.declare(
        tmp_path / "inventory", {"network_subnet": str(subnet)}, {node: {"network_interface": name} for node, name in chosen.items()}
    )
    problems = bzzz.document("detect", folder=folder, code=2)["problems"]
    told = {node: [one["message"] for one in about(problems, "network_interface", node=node, severity="error")] for node in chosen}
    assert told[node1] == ["The interface idle0 is down."]
    assert told[node2] == ["The interface nocable0 is up, but has no carrier (no cable, or nothing at its other end)."]
    listed = f"The node has: eth0 ({bzzz.lab.nodes[2].address}/24), other0 (192.168.77.1/24), other0p (no address)."
    assert told[node3] == [f"The interface other0 has no address inside {subnet}. {listed}"]


@pytest.mark.requirement("1.1.2", "1.1.12")
def test_ipv6_subnets_and_a_node_that_its_peer_cannot_reach(bzzz: Tools, restored: None, tmp_path: Path) -> None:
    """Node 3 is in a network of its own, to which there is a way; the firewall of the others lets it in by its address."""
    node1, node2, node3 = bzzz.nodes
    networks = {node1: "fd00:199:0:1::", node2: "fd00:199:0:1::", node3: "fd00:199:0:2::"}
    address = {node: f"{networks[node]}1{number}" for number, node in enumerate(bzzz.nodes)}
    for node, network in networks.items():
        routes = "; ".join(f"ip -6 route replace {other}/64 dev eth0" for other in set(networks.values()) - {network})
        add = f"ip -6 address add {address[node]}/64 dev eth0 nodad"
        shell(bzzz.lab, node, f"sysctl -qw net.ipv6.conf.eth0.disable_ipv6=0; {add}; {routes}")
    shell(bzzz.lab, node1, f"ip -6 route add unreachable {address[node3]}/128")
    own = {node: {"network_subnet": f"{networks[node]}/64", "network_address": address[node]} for node in bzzz.nodes}
    document = bzzz.document("plan", "--only", "2", "--diff", folder=bzzz.declare(tmp_path / "inventory", nodes=own), code=1)
    failed = {check["node"]: check for check in document["checks"] if check["status"] == "fail"}
    assert {node: check["id"] for node, check in failed.items()} == {node1: "peers", node3: "peers"}  # no answer gets back, either
    for node, peer in ((node1, node3), (node3, node1)):
        assert failed[node]["seen"].startswith(f"from {node} to {peer} ({address[peer]}) port 22 ")
        assert f"firewall between here and {peer} ({address[peer]})" in failed[node]["remedy"]
        assert not document["matrix"][node][peer]["reachable"]
    for node, peer in ((node1, node2), (node2, node3), (node3, node2)):
        assert document["matrix"][node][peer]["reachable"] and document["matrix"][node][peer]["address"] == address[peer]
    assert [one["severity"] for one in document["problems"]] == ["warning"] and "different networks" in document["problems"][0]["message"]
    sources = {node: set(re.findall(r"saddr (\S+) tcp dport 8080 accept", diff_of(document, node, "/firewall.nft"))) for node in bzzz.nodes}
    assert sources[node1] == sources[node2] == {f"{networks[node1]}/64", address[node3]}
    assert sources[node3] == {f"{networks[node3]}/64", address[node1], address[node2]}


# --- refused declarations ---


@pytest.mark.requirement("1.1.3", "1.2.5", "1.2.6")
def test_a_wrong_declaration_is_refused_before_any_node_is_touched(bzzz: Tools, tmp_path: Path) -> None:
    """Everything at once, by `check` and by `apply` alike; no node has taken a connection meanwhile."""
    texts = dict(zip(bzzz.nodes, ("10.0.0.5/24", "10.0.0.0/33", "abc"), strict=True))
    folder = bzzz.declare(
        tmp_path / "inventory",
        {"network_reserved_ports": ["8000-8100", "9-"], "service_mcp_port": 2379, "service_port": 22},
        {node: {"network_subnet": text} for node, text in texts.items()},
    )
    before = connections(bzzz.lab)
    applied = bzzz.document("apply", folder=folder, code=2)
    problems = bzzz.document("check", folder=folder, code=2)["problems"]
    assert connections(bzzz.lab) == before
    assert applied["changes"] == [] and applied["outcome"] == "refused"
    assert {json.dumps(one, sort_keys=True) for one in applied["problems"]} == {json.dumps(one, sort_keys=True) for one in problems}
    messages = {node: about(problems, "network_subnet", node=node, value=text) for node, text in texts.items()}
    (host_bits,), (too_long,), (nonsense,) = messages.values()
    assert "host bits are set" in host_bits["message"] and host_bits["remedy"] == "Write 10.0.0.0/24."
    assert "prefix length '/33' is not possible" in too_long["message"] and "/0 to /32" in too_long["message"]
    assert "no IPv4 or IPv6 address" in nonsense["message"] and "192.168.1.0/24" in nonsense["remedy"]
    (reserved,) = about(problems, "service_websocket_port")
    assert "8081 is in 8000-8100, which network_reserved_ports keeps for others" in reserved["message"]
    assert "8101 is free" in reserved["remedy"]
    assert about(problems, "network_reserved_ports", value="9-")
    (clash,) = about(problems, "service_mcp_port")
    assert clash["message"] == "Port 2379 is also coordination_client_port." and "2381 is free" in clash["remedy"]
    (ssh,) = about(problems, "service_port")
    assert "ansible_port (SSH)" in ssh["message"]
    text = bzzz.setup("check", folder=folder, code=2)
    assert "Remedy: Write 10.0.0.0/24." in text.stdout + text.stderr


@pytest.mark.requirement("1.1.4", "1.2.5", "1.2.6", "5.3.1")
def test_what_the_nodes_have_already_is_not_run_over(bzzz: Tools, restored: None, tmp_path: Path) -> None:
    """A bridge like Docker's and a VPN's route in the cluster's network, a taken port, one that the kernel keeps, a small disk."""
    subnet = bzzz.lab.subnet
    assert subnet
    node1, node2, node3 = bzzz.nodes
    docker, vpn = list(subnet.subnets(new_prefix=26))[3], list(subnet.subnets(new_prefix=26))[2]
    shell(bzzz.lab, node1, f"ip link add docker0 type bridge; ip address add {docker[1]}/26 dev docker0; ip link set docker0 up")
    shell(bzzz.lab, node1, f"ip route add {vpn} via {subnet[1]}")
    shell(bzzz.lab, node2, "systemd-run --quiet --unit=other python3 -m http.server 8080")
    shell(bzzz.lab, node2, "for try in $(seq 300); do ss -Htln sport = 8080 | grep -q . && exit; sleep 0.1; done; exit 1")
    pid = shell(bzzz.lab, node2, "systemctl show --property MainPID --value other.service").strip()
    shell(bzzz.lab, node3, "sysctl -qw net.ipv4.ip_local_reserved_ports=3000,8082")
    folder = bzzz.declare(tmp_path / "inventory", nodes={node3: {"resources_disk_free_min_mib": 10**9, "service_websocket_port": 40000}})
    with untouched(bzzz.lab):
        document = bzzz.document("apply", folder=folder, code=2)
    assert document["changes"] == []
    problems = document["problems"]
    overlaps = about(problems, "network_subnet", node=node1, severity="error")
    assert len(overlaps) == 2
    (bridge,) = [one for one in overlaps if "docker0" in one["message"]]
    assert f"{subnet} overlaps {docker}, interface docker0 (bridge) of node {node1}" in bridge["message"]
    assert "daemon.json" in bridge["remedy"]
    (route,) = [one for one in overlaps if "route" in one["message"]]
    assert f"overlaps {vpn}, route by way of {subnet[1]} on eth0 of node {node1}" in route["message"]
    for option in ("service_port", "service_web_port"):
        (taken,) = about(problems, option, node=node2)
        assert f"Port 8080 is taken by python3 (pid {pid}, unit other.service) on 0.0.0.0." in taken["message"]
        assert "8082 is free" in taken["remedy"] and "systemctl disable --now other.service" in taken["remedy"]
    (kept,) = about(problems, "service_mcp_port", node=node3)
    assert (
        "Port 3000 is kept for another program (net.ipv4.ip_local_reserved_ports)" in kept["message"] and "3001 is free" in kept["remedy"]
    )
    (ephemeral,) = about(problems, "service_websocket_port", node=node3)
    assert ephemeral["severity"] == "warning" and "outgoing connections" in ephemeral["message"]
    small = about(problems, "resources_models_path", node=node3)
    assert re.search(r"^/, where /srv/bzzz/models is, has \d+ MiB free; 1000000000 are wanted", small[0]["message"])
    assert not [one for one in problems if one["severity"] == "error" and one["node"] is None]


# --- the plan ---


@pytest.fixture(scope="module")
def planned(bzzz: Tools, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """A plan of all steps with other ports, a narrower subnet and two secrets; and the secrets."""
    secrets = ["canary-token-5fe0a1b2c3d4e5f60718293a4b5c6d7e", "canary-passphrase-81b6"]
    folder = bzzz.declare(
        tmp_path_factory.mktemp("plan") / "inventory",
        {**PORTS, "network_subnet": narrower(bzzz), "service_token": secrets[0], "ssh_key_passphrase": secrets[1]},
    )
    look = "find /etc -type f -exec sha256sum {} +; dpkg-query -W; systemctl list-unit-files; systemctl list-units --type service,socket"
    before = {node: shell(bzzz.lab, node, look) for node in bzzz.nodes}
    with untouched(bzzz.lab):
        document = bzzz.document("plan", "--diff", folder=folder)
    for node in bzzz.nodes:
        assert shell(bzzz.lab, node, look) == before[node]
    yield document, secrets


def narrower(bzzz: Tools) -> str:
    """The least half of halves of the lab's network that still holds its nodes."""
    assert bzzz.lab.subnet
    return str(ipaddress.ip_network(f"{bzzz.lab.subnet[0]}/28"))


def diff_of(document: dict[str, Any], node: str, path: str) -> str:
    """What the plan would write into a file of a node."""
    (found,) = [one for one in document["diffs"] if one["node"] == node and str(one.get("after_header", "")).endswith(path)]
    assert not found["before"]
    return str(found["after"])


@pytest.mark.requirement("L1", part="a whole plan on fresh machines, with the diff, changes nothing")
def test_a_plan_of_fresh_machines_tells_every_change_and_makes_none(planned: tuple[dict[str, Any], list[str]], bzzz: Tools) -> None:
    """That the nodes stay as they are is asserted by fixture `planned`."""
    document, _ = planned
    assert document["exit_code"] == 0 and document["failures"] == []
    assert [step["state"] for step in document["steps"]] == ["done"] * 8
    changing = {(change["step"], change["node"]) for change in document["changes"]}
    assert changing >= {(step, node) for step in (2, 3, 5, 6, 7) for node in bzzz.nodes}
    told = {(change["role"], change["kind"], change["name"], change["what"]) for change in document["changes"]}
    assert told >= {
        ("firewall", "package", "nftables", "install"),
        ("firewall", "unit", "bzzz-firewall.service", "enable"),
        ("ssh", "user", "bzzz-admin", "create"),
        ("service", "unit", "bzzz.service", "start"),
        ("coordination", "file", "/etc/bzzz/etcd.yaml", "create"),
    }
    assert {check["status"] for check in document["checks"]} <= {"pass", "skip"}
    assert not list(bzzz.home.glob(".config/bzzz/*/id_ed25519")), "the key pair was made"


@pytest.mark.requirement("1.1.2")
def test_a_declared_subnet_replaces_the_detected_one(planned: tuple[dict[str, Any], list[str]], bzzz: Tools) -> None:
    document, _ = planned
    for node in bzzz.nodes:
        rules = diff_of(document, node, "/etc/bzzz/firewall.nft")
        assert f"ip saddr {narrower(bzzz)} tcp dport 9100 accept" in rules and str(bzzz.lab.subnet) not in rules


@pytest.mark.requirement("1.2.1", "1.2.2", "1.2.3", "1.2.4", part="planned: firewall, configuration and port test")
@pytest.mark.parametrize("option", PORTS)
def test_a_port_reaches_firewall_configuration_and_checks_alike(
    planned: tuple[dict[str, Any], list[str]], bzzz: Tools, option: str
) -> None:
    document, _ = planned
    for node in bzzz.nodes:
        rules = diff_of(document, node, "/etc/bzzz/firewall.nft")
        assert f"tcp dport {PORTS[option]} accept" in rules
        assert not re.search(r"dport (8080|8081|3000) ", rules)
        listen = yaml.safe_load(diff_of(document, node, "/etc/bzzz/config.yaml"))["listen"]
        assert listen[option.removeprefix("service_")] == PORTS[option]
        (tried,) = [check for check in document["checks"] if (check["node"], check["id"]) == (node, "cluster-ports")]
        assert str(PORTS[option]) in tried["expected"] and not re.search(r"\b(8080|8081|3000)\b", tried["expected"])


@pytest.mark.requirement("L1", part="secrets are masked in a plan")
def test_a_plan_shows_no_secret(planned: tuple[dict[str, Any], list[str]], bzzz: Tools) -> None:
    document, secrets = planned
    kept = [path.read_text(errors="replace") for path in bzzz.home.rglob("*") if path.is_file() and not path.is_symlink()]
    assert kept, "the run has left no journal"
    for secret in secrets:
        assert secret not in json.dumps(document) and not [text for text in kept if secret in text]
    token = [one for one in document["diffs"] if "service_token" in str(one.get("after_header"))]
    assert token and all(one["after"].strip() and secrets[0] not in one["after"] for one in token)


# --- init ---


def own_fingerprints(lab: Lab) -> dict[str, set[str]]:
    """Address to fingerprints, as each node itself says."""
    look = "for key in /etc/ssh/ssh_host_*_key.pub; do ssh-keygen -lf $key; done"
    return {node.address: {line.split()[1] for line in shell(lab, node.name, look).splitlines()} for node in lab.nodes}


def pinned_fingerprints(known_hosts: Path) -> dict[str, set[str]]:
    said = subprocess.run(["ssh-keygen", "-lf", known_hosts], capture_output=True, text=True, check=True).stdout
    found: dict[str, set[str]] = {}
    for line in said.splitlines():
        _, fingerprint, host, _ = line.split()
        found.setdefault(host, set()).add(fingerprint)
    return found


@pytest.mark.requirement("1.1.6")
def test_init_shows_the_machines_keys_and_pins_none_unseen(bzzz: Tools, tmp_path: Path) -> None:
    first, second, third = (node.address for node in bzzz.lab.nodes)
    assert second.rpartition(".")[0] == first.rpartition(".")[0]
    nodes = f"{first}-{second.rpartition('.')[2]}, {third}"
    refused = bzzz.setup("init", "--nodes", nodes, "--user", "operator", folder=tmp_path / "new", code=2)
    for address, fingerprints in own_fingerprints(bzzz.lab).items():
        assert {print_ for print_ in fingerprints if f"{print_}" in refused.stdout}, f"no key of {address} was shown: {refused.stdout}"
    assert "--accept-host-keys" in refused.stderr and not (tmp_path / "new").exists()


@pytest.mark.requirement("1.1.6")
def test_init_finds_the_machines_of_a_network_and_gets_in(bzzz: Tools, tmp_path: Path) -> None:
    """Of the eight addresses of the lab's own /29, and the range and address that name nodes once more, the three that answer."""
    assert bzzz.lab.subnet
    first, second, third = (node.address for node in bzzz.lab.nodes)
    network = next(one for one in bzzz.lab.subnet.subnets(new_prefix=29) if ipaddress.IPv4Address(first) in one)
    nodes = f"{network} {first}-{third.rpartition('.')[2]} {second}"
    arguments = ["--nodes", nodes, "--user", "operator", "--ssh-key", str(bzzz.lab.key), "--accept-host-keys", "--name", "found"]
    document = bzzz.document("init", *arguments, folder=tmp_path / "new")
    assert list(document["nodes"].values()) == [first, second, third] and document["coordinators"] == list(document["nodes"])
    own, pinned = own_fingerprints(bzzz.lab), pinned_fingerprints(tmp_path / "new/known_hosts.txt")
    assert set(pinned) == set(own) and all(pinned[address] and pinned[address] <= own[address] for address in own)
    detected = bzzz.document("detect", folder=tmp_path / "new")
    assert {facts["bzzz_system"]["os"]["hostname"] for facts in detected["nodes"].values()} == set(bzzz.nodes)


@pytest.mark.requirement("1.1.6")
def test_init_takes_host_names(bzzz: Tools, tmp_path: Path) -> None:
    """Names resolve in a mount namespace of its own, by a hosts file that nobody else sees."""
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{node.address} {node.name}.lab.test\n" for node in bzzz.lab.nodes))
    names = " ".join(f"{node}.lab.test" for node in bzzz.nodes[:2])
    command = f"mount --bind {shlex.quote(str(hosts))} /etc/hosts && exec bzzz-setup --json -i {shlex.quote(str(tmp_path / 'new'))} init"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f"{command} --nodes '{names}' --user operator --accept-host-keys"],
        env=bzzz.environment(),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["nodes"] == {node: f"{node}.lab.test" for node in bzzz.nodes[:2]}
    pinned, own = pinned_fingerprints(tmp_path / "new/known_hosts.txt"), own_fingerprints(bzzz.lab)
    for node in bzzz.lab.nodes[:2]:
        assert pinned[f"{node.name}.lab.test"] <= own[node.address]
