# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The finished cluster's network: ports from each peer, the nodes' matrix, and what `verify` says when something is off.

The nodes share one kernel and so one clock; a wrong one is that of a Python whose time is ahead.
"""

from __future__ import annotations

import itertools
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import BIN, Tools

from bzzz_setup.declaration import dump, write

PORTS = [3000, 8080, 8081, 9100, 2379, 2380]
CHECK = {"id", "requirement", "role", "node", "title", "status", "seen", "expected", "remedy", "data", "step"}
# Exits 0 where the connection is made, 1 where it is refused, 124 where nothing answers.
TRY = "timeout 1 bash -c 'exec 3<>/dev/tcp/{address}/{port}' 2>/dev/null; echo $?"


def shell(tools: Tools, node: str, script: str) -> str:
    """What a script says that runs as root on a node, beside SSH."""
    done = tools.lab.exec(node, ["sh", "-euc", script], check=False)
    assert done.returncode == 0, f"{node}: {script}\n{done.stdout}{done.stderr}"
    return done.stdout


def ways(tools: Tools) -> list[tuple[str, str, str]]:
    """Node, peer and the peer's address, of every two nodes."""
    address = {node.name: node.address for node in tools.lab.nodes}
    return [(node, peer, address[peer]) for node, peer in itertools.permutations(tools.nodes, 2)]


@pytest.fixture(scope="module")
def verified(cluster: Tools) -> dict[str, Any]:
    return cluster.document("verify")


@pytest.mark.requirement("1.3.3")
def test_each_needed_port_is_open_to_each_peer(verified: dict[str, Any], cluster: Tools) -> None:
    """All three are coordinators. The test tries for itself, too, and another program's port is shut."""
    for node in cluster.nodes:
        shell(cluster, node, "systemd-run --quiet --unit=other python3 -m http.server 9999")
    try:
        for node in cluster.nodes:
            shell(cluster, node, "for try in $(seq 300); do ss -Htln sport = 9999 | grep -q . && exit; sleep 0.1; done; exit 1")
        for node, peer, address in ways(cluster):
            assert {int(port): state for port, state in verified["matrix"][node][peer]["ports"].items()} == dict.fromkeys(PORTS, "open")
            tried = "; ".join(TRY.format(address=address, port=port) for port in [22, 8080, 2379, 9100, 9999])
            assert shell(cluster, node, f"set +e; {tried}").split() == ["0", "0", "0", "0", "124"], f"{node} to {peer}"
    finally:
        for node in cluster.nodes:
            shell(cluster, node, "systemctl stop other.service")


@pytest.mark.requirement("1.3.1", part="nftables where ufw is absent")
def test_the_firewall_lets_in_ssh_and_the_clusters_ports_only(cluster: Tools) -> None:
    for node in cluster.nodes:
        assert not cluster.host(node).exists("ufw")
        (chain,) = re.findall(
            r"chain input \{(.*?)\}", shell(cluster, node, "nft -n list table inet bzzz").replace("{ 1, 58 }", "1,58"), re.S
        )
        assert "policy drop" in chain
        accepted = re.findall(r"^\s*(?:ip saddr (\S+) )?tcp dport (\d+) accept", chain, re.M)
        assert {(source, int(port)) for source, port in accepted} == {("", 22), *((str(cluster.lab.subnet), port) for port in PORTS)}


@pytest.mark.requirement("1.3.4")
def test_the_matrix_holds_every_two_nodes(verified: dict[str, Any], cluster: Tools) -> None:
    assert set(verified["matrix"]) == set(cluster.nodes)
    for node, peer, address in ways(cluster):
        way = verified["matrix"][node][peer]
        assert way["reachable"] is True and way["address"] == address
        assert 0 < way["latency_ms"] < 50
        assert (way["mtu"], way["interface"], way["interface_mtu"]) == (1500, "eth0", 1500)
        assert way["resolves"] == [address]
        assert (way["sent"], way["lost"], way["mtu_arrives"]) == (20, 0, 1500)
        assert abs(way["clock_offset_seconds"]) <= way["clock_uncertainty_seconds"] + 0.05
    between = {check["id"]: check["status"] for check in verified["checks"] if check["id"].endswith("_between_nodes")}
    assert between == {"clocks_between_nodes": "pass", "mtu_between_nodes": "pass"}


@pytest.mark.requirement("F2")
def test_step_2_alone_settles_and_tests_the_network(cluster: Tools) -> None:
    document = cluster.document("apply", "--only", "2")
    assert document["changes"] == [] and [step["title"] for step in document["steps"]] == ["Network"]
    passed = {node: {check["id"] for check in document["checks"] if check["node"] == node} for node in cluster.nodes}
    for ids in passed.values():
        assert ids == {"peers", "firewall-ruleset", "firewall-syntax", "firewall-at-boot", "cluster-ports", "coordinator-ports"}
    assert {check["status"] for check in document["checks"]} == {"pass"}


@pytest.mark.requirement("L7", part="checks of verify: what, where, why and remedy")
def test_verify_tells_its_checks_in_full(verified: dict[str, Any], cluster: Tools) -> None:
    assert verified["command"] == "verify" and verified["outcome"] == "fine" and verified["changes"] == []
    assert [step["number"] for step in verified["steps"]] == [8] and set(verified["nodes"]) == set(cluster.nodes)
    for check in verified["checks"]:
        assert set(check) == CHECK
        assert check["id"] and check["title"] and (check["remedy"] or check["status"] == "skip"), check
        assert check["status"] in ("pass", "skip") and (check["seen"] or check["status"] == "skip"), check
    roles = {check["role"] for check in verified["checks"]}
    assert roles >= {"detection", "network", "firewall", "ssh", "tls", "resources", "metrics", "service", "coordination", "validation"}
    proven = {identifier for check in verified["checks"] for identifier in re.split(r", *", check["requirement"]) if identifier}
    assert proven >= {"1.3.1", "1.3.3", "1.3.4", "5.1.1", "5.2.1", "5.3.1"}


@pytest.mark.requirement("1.3.4", part="packets that what is in between swallows")
def test_packets_that_are_too_large_for_the_way_are_told(cluster: Tools) -> None:
    """Two nodes send jumbo packets, through a network that does not let them pass and does not say so."""
    node1, node2, node3 = cluster.nodes
    try:
        for node in (node1, node2):
            shell(cluster, node, "ip link set dev eth0 mtu 9000")
        document = cluster.document("apply", "--only", "2")
    finally:
        for node in (node1, node2):
            shell(cluster, node, "ip link set dev eth0 mtu 1500")
    (warning,) = [check for check in document["checks"] if check["id"] == "mtu_between_nodes"]
    assert warning["status"] == "warn" and "switches between them" in warning["remedy"]
    assert f"{node1} and {node2} send each other packets of up to 9000 bytes, of which those over 1500 are lost" in warning["seen"]
    assert f"{node1} sends {node3} packets of up to 9000 bytes, {node3} sends {node1} up to 1500" in warning["seen"]


@pytest.fixture(scope="class")
def disturbed(cluster: Tools, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, Any], str]]:
    """Node 2 takes nothing on port 8081 from node 1, node 3 sends small packets and is ahead, node 1 doesn't know node 3's name.

    Half of what node 2 sends node 1 is lost. That is nftables' work: not every kernel has netem.
    """
    node1, node2, node3 = cluster.nodes
    first, second, _third = (node.address for node in cluster.lab.nodes)
    loss = f"nft add rule inet foreign input ip saddr {second} icmp type echo-request numgen inc mod 2 == 0 drop"
    rule = f"nft add rule inet foreign input ip saddr {first} tcp dport 8081 drop"
    chain = "nft add chain inet foreign input '{ type filter hook input priority -10; }'"
    # Ansible runs it with -sE, by which the variable would be ignored.
    python = '#!/bin/sh\n[ "$1" != -sE ] || shift\nPYTHONPATH=/opt/ahead exec /usr/bin/python3 "$@"\n'
    ahead = "import time\nkernel = time.time\ntime.time = lambda: kernel() + 90\n"
    folder = cluster.declare(
        tmp_path_factory.mktemp("ahead") / "inventory",
        # The first is what node 1 gets no answer from, and the last one answers.
        {"network_egress": ["packages", "time", f"{second}:8081", "127.0.0.1:1", "nobody.invalid:25", f"https://{second}:8080/"]},
        nodes={node3: {"ansible_python_interpreter": "/opt/ahead/python"}},
    )
    try:
        shell(cluster, node2, f"nft add table inet foreign; {chain}; {rule}")
        shell(cluster, node1, f"nft add table inet foreign; {chain}; {loss}")
        for name, text in {"python": python, "sitecustomize.py": ahead}.items():
            write = f"mkdir -p /opt/ahead; cat > /opt/ahead/{name}; chmod 755 /opt/ahead/{name}"
            cluster.lab.exec(node3, ["sh", "-c", write], stdin=text)
        shell(cluster, node3, "ip link set dev eth0 mtu 1400")
        # As chrony 4 tells of a source that has not answered.
        says = "echo '^,?,time.corp.test,0,6,0,4294967295,0.000000000,0.000000000,0.000000000'"
        stand_in = "mkdir -p /run/chrony; touch /run/chrony/chronyd.pid; cat >/usr/local/bin/chronyc; chmod +x /usr/local/bin/chronyc"
        cluster.lab.exec(node2, ["sh", "-euc", stand_in], stdin=f"#!/bin/sh\n{says}\n")
        shell(cluster, node1, f"cp /etc/hosts /dev/shm/hosts; grep -v {node3} /dev/shm/hosts > /etc/hosts")
        yield cluster.document("verify", folder=folder, code=1), cluster.setup("verify", folder=folder, code=1).stdout
    finally:
        for node in (node1, node2):
            shell(cluster, node, "nft delete table inet foreign; rm -rf /run/chrony /usr/local/bin/chronyc")
        shell(cluster, node3, "ip link set dev eth0 mtu 1500; rm -r /opt/ahead")
        shell(cluster, node1, "cat /dev/shm/hosts > /etc/hosts; rm /dev/shm/hosts")


class TestDisturbed:
    @pytest.mark.requirement("1.3.3")
    def test_a_blocked_port_is_named_with_both_nodes_and_a_remedy(self, disturbed: tuple[dict[str, Any], str], cluster: Tools) -> None:
        document, text = disturbed
        node1, node2, _ = cluster.nodes
        address = next(node.address for node in cluster.lab.nodes if node.name == node2)
        failed_ones = {check["id"] for check in document["checks"] if check["status"] == "fail"}
        assert failed_ones == {"cluster-ports", "clocks_between_nodes", "egress"}
        (failed,) = [check for check in document["checks"] if check["id"] == "cluster-ports" and check["status"] == "fail"]
        assert failed["node"] == node1
        assert failed["seen"] == f"from {node1} to {node2} ({address}) port 8081 blocked: no answer in 2 s"
        assert f"'nft list ruleset' on {node2} must let in TCP port 8081 from this node" in failed["remedy"]
        assert re.search(r"bzzz-setup apply -i \S+/ahead0/inventory --only 2", failed["remedy"])
        for said in (failed["seen"], failed["remedy"]):
            assert "".join(said.split()) in "".join(text.split())
        states = {(node, peer): way["ports"]["8081"] for node, row in document["matrix"].items() for peer, way in row.items()}
        assert states == {(node, peer): "blocked" if (node, peer) == (node1, node2) else "open" for node, peer, _ in ways(cluster)}

    @pytest.mark.requirement("1.3.3", part="step 2 fails on the node that is shut out, by Ansible alone")
    def test_step_2_names_the_blocked_port_without_the_front(self, disturbed: tuple[dict[str, Any], str], cluster: Tools) -> None:
        done = cluster.playbook("bzzz.cluster.step_2_network", code=2)
        node1, node2, _ = cluster.nodes
        failed = re.findall(r"^(\S+)\s+: ok=.* failed=1", done.stdout, re.M)
        assert failed == [node1] and re.search(rf"from {node1} to {node2} \(\S+\) port 8081 blocked", done.stdout)

    @pytest.mark.requirement("1.3.4", part="what is needed outside and is not reached")
    def test_what_is_not_reached_outside_is_told_with_its_cause(self, disturbed: tuple[dict[str, Any], str], cluster: Tools) -> None:
        document, text = disturbed
        node1, node2, node3 = cluster.nodes
        second = next(node.address for node in cluster.lab.nodes if node.name == node2)
        checks = {check["node"]: check for check in document["checks"] if check["id"] == "egress"}
        for node in (node1, node2, node3):
            said = checks[node]["seen"].split("; ")
            assert [one for one in said if one.startswith("nobody.invalid:25: ")], said
            assert "127.0.0.1:1: 127.0.0.1:1 refuses the connection" in said
            assert (f"{second}:8081: {second}:8081 gave no answer within 4 s" in said) == (node == node1)
            assert len(said) == (3 if node == node1 else 2), "the last one answers"
            assert "take it out of network_egress" in checks[node]["remedy"] and checks[node]["seen"] in text

    @pytest.mark.requirement("1.3.4", part="time source that does not answer")
    def test_a_time_source_that_does_not_answer_is_a_warning(self, disturbed: tuple[dict[str, Any], str], cluster: Tools) -> None:
        document, text = disturbed
        checks = {check["node"]: check for check in document["checks"] if check["id"] == "egress-time"}
        seen = {node: (check["status"], check["seen"]) for node, check in checks.items()}
        assert seen.pop(cluster.nodes[1]) == ("warn", "chrony has no answer from time.corp.test")
        assert set(seen.values()) == {("skip", "a container has the clock of the machine that it runs on")}
        assert "UDP port 123" in checks[cluster.nodes[1]]["remedy"] and "chrony has no answer from time.corp.test" in text

    @pytest.mark.requirement("1.3.4")
    def test_a_clock_that_is_ahead_fails(self, disturbed: tuple[dict[str, Any], str], cluster: Tools) -> None:
        document, text = disturbed
        node1, node2, node3 = cluster.nodes
        (failed,) = [check for check in document["checks"] if check["id"] == "clocks_between_nodes"]
        apart = re.findall(r"(\S+) and (\S+) are (\S+) s apart", failed["seen"])
        assert [pair[:2] for pair in apart] == [(node1, node3), (node2, node3)] and "timedatectl set-ntp true" in failed["remedy"]
        for node in (node1, node2):
            way = document["matrix"][node][node3]
            assert way["clock_offset_seconds"] == pytest.approx(90, abs=way["clock_uncertainty_seconds"] + 0.05)
        assert re.search(rf"^{node1} .*clock \+\d\d\.\d+ s", text, re.M)

    @pytest.mark.requirement("1.3.4")
    def test_lost_packets_are_counted_and_a_warning(self, disturbed: tuple[dict[str, Any], str], cluster: Tools) -> None:
        document, text = disturbed
        node1, node2, _ = cluster.nodes
        (warning,) = [check for check in document["checks"] if check["id"] == "peers" and check["status"] == "warn"]
        assert warning["node"] == node2 and "cable" in warning["remedy"] and node1 in warning["remedy"]
        said = f"between {node2} and {node1} (\\d+) of 20 packets were lost"
        # The two runs of verify count for themselves, and their large packets come in between the small ones.
        counted = [int(count) for where in (warning["seen"], text) for count in re.findall(said, where)]
        assert len(counted) >= 2 and set(counted) <= {9, 10, 11}
        lost = {(node, peer): way["lost"] for node, row in document["matrix"].items() for peer, way in row.items()}
        assert lost == {(node, peer): counted[0] if (node, peer) == (node2, node1) else 0 for node, peer, _ in ways(cluster)}
        assert re.search(rf"^{node2} .*(45|50|55) % lost", text, re.M)

    @pytest.mark.requirement("1.3.4")
    def test_another_mtu_is_a_warning_and_an_unknown_name_is_told(self, disturbed: tuple[dict[str, Any], str], cluster: Tools) -> None:
        document, text = disturbed
        node1, node2, node3 = cluster.nodes
        (warning,) = [check for check in document["checks"] if check["id"] == "mtu_between_nodes"]
        assert warning["status"] == "warn" and "ip link set dev" in warning["remedy"]
        for node in (node1, node2):
            assert f"{node} sends {node3} packets of up to 1500 bytes, {node3} sends {node} up to 1400" in warning["seen"]
        assert f"{node1} sends {node2}" not in warning["seen"]
        assert {peer: way["mtu"] for peer, way in document["matrix"][node3].items()} == {node1: 1400, node2: 1400}
        assert {node: document["matrix"][node][node3]["mtu_arrives"] for node in (node1, node2)} == {node1: 1400, node2: 1400}
        assert document["matrix"][node1][node3]["resolves"] == [] and document["matrix"][node2][node3]["resolves"] != []
        assert re.search(rf"^{node1} .*MTU 1400, clock \S+ s, name unknown *$", text, re.M)


def announced(cluster: Tools, folder: Path, seconds: int = 1) -> dict[str, Any]:
    """Who is heard within that time on the lab's network to announce a node of a cluster, and how."""
    here = str(next(cluster.lab.subnet.hosts()))
    ways = {"mdns": True, "mdns_interfaces": [here], "services": ["_bzzz._tcp"], "probe_timeout_seconds": seconds}
    source = folder / "discovery.yml"
    write(source, dump({"plugin": "bzzz.cluster.discovery", **ways}))
    done = subprocess.run(
        [BIN / "ansible-inventory", "-i", source, "--list"],
        env=cluster.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)["_meta"]["hostvars"]
    return found


@pytest.mark.requirement("1.1.5", "1.3.1", part="nodes that announce themselves")
def test_a_node_announces_itself_while_that_is_wanted(cluster: Tools, tmp_path: Path) -> None:
    """One of them, by mDNS; all is shut and silent again afterwards."""
    node1, lab = cluster.nodes[0], cluster.lab
    address = next(node.address for node in lab.nodes if node.name == node1)
    steps = ("apply", "--only", "2", "--only", "6", "--limit", node1)
    before = shell(cluster, node1, "nft list table inet bzzz")
    folder = cluster.declare(tmp_path / "announced", nodes={node1: {"network_announce": True}})
    document = cluster.document(*steps, folder=folder)
    assert {change["name"] for change in document["changes"]} >= {"avahi-daemon.service", "/etc/avahi/services/bzzz.service"}
    # Avahi asks the network for a second or two whether its name is free before it answers to it.
    ((name, found),) = announced(cluster, tmp_path, seconds=8).items()
    assert name == node1 and "mdns" in str(found["bzzz_discovered_by"]) and address in str(found["ansible_host"])
    rule = f"ip saddr {lab.subnet} udp dport 5353 accept"
    assert rule in shell(cluster, node1, "nft -n list table inet bzzz")
    assert cluster.document(*steps, folder=folder)["changes"] == []
    assert cluster.document(*steps)["changes"]
    assert shell(cluster, node1, "nft list table inet bzzz") == before
    assert announced(cluster, tmp_path) == {}
    assert shell(cluster, node1, "ss -Hlun sport = 5353; ls /etc/avahi/services") == ""
    assert lab.exec(node1, ["systemctl", "is-enabled", "avahi-daemon.service", "avahi-daemon.socket"], check=False).stdout.split() == 2 * [
        "disabled"
    ]


@pytest.mark.requirement("1.3.1", part="beside services that load rules of their own")
def test_a_service_that_throws_all_rules_away_leaves_ours(cluster: Tools) -> None:
    """Debian's own begins by that, whoever starts it, and whenever."""
    node = cluster.nodes[-1]
    rules = "nft --stateless list table inet bzzz"
    before = shell(cluster, node, rules)
    assert "flush ruleset" in shell(
        cluster, node, "cat /etc/nftables.conf; nft add table ip somebody; systemctl is-active nftables || true"
    )
    for verb in ("start", "reload", "restart"):
        assert shell(cluster, node, f"systemctl {verb} nftables; {rules}") == before, verb
    assert "somebody" not in shell(cluster, node, "nft list tables")
    assert shell(cluster, node, f"systemctl stop nftables; systemctl start bzzz-firewall; {rules}") == before


def test_all_is_well_again(cluster: Tools) -> None:
    document = cluster.document("apply", "--only", "2", "--only", "6")
    assert document["changes"] == [] and {check["status"] for check in document["checks"]} <= {"pass", "skip"}
    assert json.dumps(document["matrix"]).count('"open"') == len(PORTS) * len(ways(cluster))
