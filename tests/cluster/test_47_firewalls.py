# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Nodes that have a firewall of somebody else's, or Docker: it keeps its own rules beside ours; and rules that are made by hand."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import Tools
from trouble import gets_in, in_force

from bzzz_setup.lab import Lab

# Docker and two firewalls are installed on the nodes.
pytestmark = pytest.mark.slow
APT = "export DEBIAN_FRONTEND=noninteractive; apt-get -qy {0} || {{ apt-get -q update && apt-get -qy {0}; }}"
DOCKER = "docker.io containerd runc busybox-static $(. /etc/os-release; [ $VERSION_ID = 12 ] || echo docker-cli)"
# A container that answers on a published port, of an image without any registry.
CONTAINER = """mkdir -p /tmp/rootfs/bin /tmp/rootfs/www
cp "$(command -v busybox)" /tmp/rootfs/bin/
echo from the container >/tmp/rootfs/www/index.html
tar -C /tmp/rootfs -c . | docker import - web
docker run -d --name web --restart always -p 8888:80 web /bin/busybox httpd -f -h /www -p 80"""
# A restrictive firewall for each of the tools: SSH, and nothing of the cluster's.
SHUT = {
    "firewalld": "firewall-cmd --permanent --add-port=4444/tcp; firewall-cmd --reload",
    "ufw": "ufw allow 22/tcp; ufw allow 4444/tcp comment mine; ufw --force enable",
    "nftables": """nft -f - <<'RULES'
table inet filter {
  chain input {
    type filter hook input priority filter; policy drop;
    ct state established,related accept
    iifname lo accept
    tcp dport { 22, 4444 } accept
    meta l4proto icmp accept
    counter drop
  }
}
RULES""",
    "iptables": """for tool in iptables ip6tables; do
  $tool -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
  $tool -A INPUT -i lo -j ACCEPT
  $tool -A INPUT -p tcp -m multiport --dports 22,4444 -j ACCEPT
  $tool -A INPUT -j DROP
  $tool -A FORWARD -i mine0 -j DROP
done""",
}
# The rules that are somebody else's, without figures that count on by themselves.
THEIRS = {
    "firewalld": "cd /etc/firewalld; find . -type f ! -name bzzz.xml | sort | xargs sha256sum; firewall-cmd --list-all-zones;"
    "firewall-cmd --permanent --list-all-zones",
    "ufw": "ufw show added | grep -v \"comment 'bzzz'\"; ufw status verbose | sed -n '/^Status/p; /^Default/p'",
    "nftables": "nft --stateless list table inet filter",
    "iptables": "{ iptables-save; ip6tables-save; } | grep -v -e ^# -e BZZZ | sed 's/ \\[.*//'",
}
UNDO = {
    "firewalld": f"{APT.format('purge firewalld')}; rm -rf /etc/firewalld",
    "ufw": f"ufw --force disable; {APT.format('purge ufw')}; rm -rf /etc/ufw",
    "nftables": "nft delete table inet filter; systemctl disable nftables; cp /root/nftables.conf /etc/nftables.conf",
    "iptables": f"{APT.format(f'purge iptables-persistent netfilter-persistent iptables {DOCKER}')};"
    "rm -rf /etc/iptables /var/lib/docker/*;"
    "for family in ip ip6; do for table in filter nat; do nft delete table $family $table; done; done;"
    "ip link delete docker0; cat /root/ip_forward >/proc/sys/net/ipv4/ip_forward",
}


def shell(lab: Lab, node: str, script: str) -> str:
    done = lab.exec(node, ["sh", "-euc", script], check=False)
    assert done.returncode == 0, f"{node}: {script}\n{done.stdout}{done.stderr}"
    return done.stdout


def is_open(lab: Lab, node: str, peer: str, port: int) -> bool:
    """Whether a node gets a connection to a peer's port; who listens there does not matter."""
    address = next(found.address for found in lab.nodes if found.name == peer)
    attempt = f"timeout 1 bash -c 'exec 3<>/dev/tcp/{address}/{port}' 2>&1 | grep -q refused && echo refused || true"
    code = lab.exec(node, ["timeout", "1", "bash", "-c", f"exec 3<>/dev/tcp/{address}/{port}"], check=False)
    return code.returncode == 0 or "refused" in shell(lab, node, attempt)


def serves(lab: Lab, node: str) -> bool:
    """Whether the container there is reached from a peer at its published port, and itself reaches that peer."""
    address, peer = (next((one.name, one.address) for one in lab.nodes if (one.name == node) is own) for own in (True, False))
    shell(lab, node, "for _ in $(seq 100); do docker exec web /bin/busybox true && exit; sleep 0.1; done 2>/dev/null")
    get = f"exec 3<>/dev/tcp/{address[1]}/8888; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3"
    published = lab.exec(peer[0], ["timeout", "5", "bash", "-c", get], check=False).stdout
    outward = lab.exec(node, ["docker", "exec", "web", "/bin/busybox", "nc", "-w", "5", peer[1], "22"], check=False).stdout
    return "from the container" in published and outward.startswith("SSH-")


def told_of_docker(document: dict[str, Any], node: str) -> bool:
    """That this port is open in spite of the rules, and not that they shut it."""
    found = [one for one in document["problems"] if "8888/tcp" in one["message"]]
    assert [(one["severity"], one["option"], one["node"]) for one in found] == [("warning", "firewall_open_ports", node)]
    return "Docker lets everybody in" in found[0]["message"] and "(container web)" in found[0]["message"]


@pytest.fixture(scope="module")
def tools(cluster: Tools) -> Iterator[dict[str, str]]:
    """Tool -> the node that has it, installed and in force with rules of its own; nftables, iptables and Docker share one."""
    node1, node2, node3 = cluster.nodes
    where = {"firewalld": node1, "ufw": node2, "iptables": node3, "nftables": node3}
    before = {node: in_force(cluster.lab, node) for node in cluster.nodes}
    packages = {node1: "install firewalld", node2: "install ufw", node3: f"install iptables-persistent {DOCKER}"}
    shell(cluster.lab, node3, "cp /etc/nftables.conf /proc/sys/net/ipv4/ip_forward /root/")
    try:
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda node: shell(cluster.lab, node, APT.format(packages[node])), packages))
        shell(cluster.lab, node3, CONTAINER)
        for tool in ("firewalld", "ufw", "iptables"):
            shell(cluster.lab, where[tool], SHUT[tool])
        yield where
    finally:
        for tool, node in where.items():
            cluster.lab.exec(node, ["sh", "-c", UNDO[tool]])
        cluster.setup("apply", "--only", "2")
        assert {node: in_force(cluster.lab, node) for node in cluster.nodes} == before


def theirs(lab: Lab, tools: dict[str, str], *which: str) -> dict[str, str]:
    return {tool: shell(lab, tools[tool], THEIRS[tool]) for tool in which}


@pytest.mark.requirement("1.3.1", part="firewalld, ufw and iptables take the rules, and keep their own; so does Docker")
def test_a_firewall_that_is_there_takes_our_rules_and_keeps_its_own(cluster: Tools, tools: dict[str, str], tmp_path: Path) -> None:
    """firewalld and ufw are found by themselves, iptables is declared; a node comes back from a power cut with its rules."""
    lab, names = cluster.lab, ("firewalld", "ufw", "iptables")
    node1, node2, node3 = cluster.nodes
    kept = theirs(lab, tools, *names)
    assert "--dport 8888 -j DNAT" in kept["iptables"] and serves(lab, node3), "where our nftables rules were there before Docker"
    # One that is in force is not fought, nor are two at once.
    fought = cluster.declare(tmp_path / "fought", nodes={node1: {"firewall_backend": "ufw"}, node2: {"firewall_backend": "nftables"}})
    refused = cluster.document("apply", "--only", "2", folder=fought, code=2)
    wrong = {one["node"]: one for one in refused["problems"] if one["severity"] == "error"}
    assert set(wrong) == {node1, node2} and {one["option"] for one in wrong.values()} == {"firewall_backend"}
    assert "firewalld is in force" in wrong[node1]["message"] and "ufw disable" in wrong[node2]["remedy"]

    folder = cluster.declare(tmp_path / "adopted", nodes={node3: {"firewall_backend": "iptables"}})
    document = cluster.document("apply", "--only", "2", folder=folder)
    assert {check["status"] for check in document["checks"]} == {"pass"}
    assert {(one["node"], one["name"]) for one in document["changes"] if one["kind"] == "loaded"} >= {
        (node1, "firewalld"),
        (node2, "ufw"),
        (node3, "iptables"),
    }
    assert theirs(lab, tools, *names) == kept
    assert serves(lab, node3) and told_of_docker(document, node3)
    for node in cluster.nodes:
        assert lab.exec(node, ["nft", "list", "table", "inet", "bzzz"], check=False).returncode, "two firewalls in force"
        assert gets_in(lab, node)
    assert (
        shell(lab, node3, "iptables -S INPUT").splitlines()[1]
        == "-A INPUT -j BZZZ"
        == shell(lab, node3, "ip6tables -S INPUT").splitlines()[1]
    )
    again = cluster.document("apply", "--only", "2", folder=folder)
    assert again["changes"] == [] and told_of_docker(again, node3)

    # A power cut, and rules changed by hand on all three.
    lab.kill(node3)
    lab.start(node3)
    assert shell(lab, node3, "iptables -S INPUT").splitlines()[1] == "-A INPUT -j BZZZ"
    assert serves(lab, node3), "where our iptables rules were there before Docker's"
    shell(lab, node1, "firewall-cmd --policy=bzzz --add-port=5555/tcp")
    shell(
        lab,
        node2,
        "ufw delete allow from $(ufw show added | sed -n \"s/^ufw allow from \\(.*port 8080 proto tcp\\) comment 'bzzz'/\\1/p\")",
    )
    shell(lab, node3, "ip6tables -I BZZZ -p tcp --dport 5555 -j ACCEPT; iptables -I INPUT 1 -p udp --dport 5555 -j ACCEPT")
    verified = cluster.document("verify", folder=folder, code=1)
    seen = {one["node"]: one["seen"] for one in verified["checks"] if one["id"] == "firewall-ruleset" and one["status"] == "fail"}
    assert "5555/tcp" in seen[node1] and re.fullmatch(r"missing: allow from \S+ to any port 8080 proto tcp", seen[node2])
    for rule in ("-A BZZZ -p tcp -m tcp", "-A INPUT -p udp -m udp"):
        assert f"added: {rule} --dport 5555 -j ACCEPT" in seen[node3]
    found = cluster.document("apply", "--only", "2", folder=folder)
    assert {(one["node"], one["kind"], one["name"]) for one in found["changes"]} == {
        (node, "loaded", name) for node, name in zip(cluster.nodes, names, strict=True)
    }
    shell(lab, node3, "iptables -D INPUT -p udp --dport 5555 -j ACCEPT")


def commands(lab: Lab, node: str, tool: str) -> str:
    """The part of a node's file that is for one tool, as an operator would run it."""
    text = shell(lab, node, "cat /etc/bzzz/firewall-commands.txt")
    (part,) = re.findall(rf"^# --- {tool} ---\n(.*?)(?=^# --- |\Z)", text, re.M | re.S)
    return str(part)


@pytest.fixture(scope="module")
def by_hand(cluster: Tools, tools: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], dict[str, str]]:
    """A folder with `firewall_mode: manual`, what its first run said, and the nodes' own rules before it."""
    lab = cluster.lab
    folder = cluster.declare(tmp_path_factory.mktemp("manual") / "inventory", {"firewall_mode": "manual"})
    shell(lab, tools["ufw"], "ufw deny 8081/tcp")
    shell(lab, tools["nftables"], f"iptables -F INPUT; ip6tables -F INPUT; {SHUT['nftables']}")
    kept = theirs(lab, tools, "firewalld", "ufw", "nftables")
    return folder, cluster.document("apply", "--only", "2", folder=folder, code=1), kept


@pytest.mark.requirement("1.3.2")
class TestByHand:
    def test_step_2_changes_no_rule_and_names_the_very_command(
        self, cluster: Tools, tools: dict[str, str], by_hand: tuple[Path, dict[str, Any], dict[str, str]]
    ) -> None:
        lab, (_folder, document, kept), subnet = cluster.lab, by_hand, cluster.lab.subnet
        assert theirs(lab, tools, *kept) == kept and serves(lab, tools["iptables"])
        assert "BZZZ" not in shell(lab, tools["iptables"], "iptables -S")
        (one, *_) = [found for found in document["checks"] if found["id"] == "cluster-ports" and found["node"] == tools["firewalld"]]
        assert one["status"] == "fail"
        for tool, command in {
            "ufw": f"ufw prepend allow from {subnet} to any port 8081 proto tcp",
            "nftables": f"nft insert rule inet filter input ip saddr {subnet} tcp dport 8081 accept",
        }.items():
            node = tools[tool]
            assert f"from {tools['firewalld']} to {node} " in one["seen"] and f"On {node}: {command}" in one["remedy"]
            assert not is_open(lab, tools["firewalld"], node, 8081)
            shell(lab, node, command)
            assert is_open(lab, tools["firewalld"], node, 8081)
        (two, *_) = [found for found in document["checks"] if found["id"] == "cluster-ports" and found["node"] == tools["ufw"]]
        let_in = "firewall-cmd --add-rich-rule='[^']* port=8081 [^']*' && firewall-cmd --runtime-to-permanent"
        command = re.search(f"On {tools['firewalld']}: ({let_in}) ", two["remedy"])
        assert command and not is_open(lab, tools["ufw"], tools["firewalld"], 8081)
        shell(lab, tools["firewalld"], command[1])
        assert is_open(lab, tools["ufw"], tools["firewalld"], 8081)

    @pytest.mark.parametrize("which", [("firewalld", "ufw", "nftables"), ("iptables",)], ids="+".join)
    def test_the_files_commands_open_what_the_cluster_needs(
        self, cluster: Tools, tools: dict[str, str], by_hand: tuple[Path, dict[str, Any], dict[str, str]], which: tuple[str, ...]
    ) -> None:
        lab, (folder, _document, _kept) = cluster.lab, by_hand
        peer = {tool: next(node for node in cluster.nodes if node != tools[tool]) for tool in which}
        if which == ("iptables",):
            shell(lab, tools["iptables"], f"nft delete table inet filter; {SHUT['iptables']}")
        for tool in which:
            assert not is_open(lab, peer[tool], tools[tool], 8080), tool
            shell(lab, tools[tool], commands(lab, tools[tool], tool))
        document = cluster.document("apply", "--only", "2", folder=folder)
        assert document["changes"] == [] and {check["status"] for check in document["checks"]} == {"pass"}
        once = theirs(lab, tools, *which)
        for tool in which:
            assert is_open(lab, peer[tool], tools[tool], 4444), f"{tool}: a rule of the operator's own is gone"
            assert not is_open(lab, peer[tool], tools[tool], 5555), f"{tool}: it lets in more than it should"
            shell(lab, tools[tool], commands(lab, tools[tool], tool))
        assert theirs(lab, tools, *which) == once
        assert all(gets_in(lab, node) for node in cluster.nodes)
        kept_for_boot = {
            "nftables": "nft -c -f /etc/nftables.conf; grep -c 'dport 2380 accept' /etc/nftables.conf; systemctl is-enabled nftables",
            "iptables": "grep -c -- '--dport 2380 -j ACCEPT' /etc/iptables/rules.v4; systemctl is-enabled netfilter-persistent",
        }
        for tool in set(which) & set(kept_for_boot):
            assert shell(lab, tools[tool], kept_for_boot[tool]).split() == ["1", "enabled"]


@pytest.mark.requirement("1.3.1", part="Docker under nftables, and who says who may")
def test_docker_keeps_its_rules_under_nftables_and_its_users_chain_is_heeded(cluster: Tools, tools: dict[str, str], tmp_path: Path) -> None:
    lab, node = cluster.lab, tools["iptables"]
    shell(lab, node, "iptables -F INPUT; ip6tables -F INPUT; iptables -I DOCKER-USER -s 192.0.2.1 -j DROP")
    kept = theirs(lab, tools, "iptables")
    folder = cluster.declare(tmp_path / "nftables", nodes={node: {"firewall_backend": "nftables"}})
    document = cluster.document("apply", "--only", "2", "--limit", node, folder=folder)
    assert in_force(lab, node) and theirs(lab, tools, "iptables") == kept and serves(lab, node)
    assert not [one for one in document["problems"] if "8888/tcp" in one["message"]], "who gets in is said in DOCKER-USER"
