# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Changes that cut the admin host off are put back by the node itself, whatever happens meanwhile; and both firewalls. See test_47."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Tools
from trouble import Run, eventually, gets_in, in_force, state, unfinished

from bzzz_setup.lab import USER, Lab

pytestmark = pytest.mark.beside

SHORT = {"firewall_revert_seconds": 20}
DROP = {"firewall_backend": "nftables", "firewall_extra_rules": ["tcp dport 22 drop"]}
ELSEWHERE = {"ssh_allow_users": [f"{USER}@192.0.2.1", "bzzz-admin"]}


def answers(lab: Lab, node: str) -> bool:
    """Whether a new connection to SSH's port comes about at all."""
    address = next(found.address for found in lab.nodes if found.name == node)
    try:
        with socket.create_connection((address, 22), timeout=3):
            return True
    except OSError:
        return False


@pytest.fixture(scope="module", autouse=True)
def converged(cluster: Tools) -> Iterator[None]:
    yield
    assert cluster.document("apply", "--only", "2,3")["changes"] == []


@pytest.fixture
def before(cluster: Tools) -> dict[str, dict[str, str]]:
    return {node: in_force(cluster.lab, node) for node in cluster.nodes}


@pytest.mark.requirement("1.3.1", "2.2.2", part="the node itself puts back what cuts off")
def test_what_cuts_off_is_put_back_by_the_node(cluster: Tools, tmp_path: Path, before: dict[str, Any]) -> None:
    """One node's firewall drops SSH, another's sshd lets the operator in from elsewhere only; both pass every check of their syntax."""
    _first, second, third = cluster.nodes
    options = {third: {**SHORT, **DROP}, second: {**SHORT, **ELSEWHERE}}
    folder = cluster.declare(tmp_path / "cut", nodes=options)
    told = cluster.document("apply", "--only", "2,3", folder=folder, code=3)
    for node, name, file in ((third, "firewall", "/etc/bzzz/firewall.nft"), (second, "ssh", "/etc/ssh/sshd_config.d/20-bzzz.conf")):
        (failure,) = (failure for failure in told["failures"] if failure["node"] == node)
        assert f"the change of '{name}' cut this admin host off" in failure["message"] and file in failure["message"]
        assert f"correct the {name}_* options" in failure["remedy"] and "20 s" in failure["message"]
    assert {failure["node"] for failure in told["failures"]} == {second, third}, "the third node's trouble is not the first's"
    assert {node: in_force(cluster.lab, node) for node in cluster.nodes} == before
    assert all(gets_in(cluster.lab, node) and not unfinished(cluster.lab, node) for node in cluster.nodes)
    # Corrected, it applies.
    corrected = {
        third: {**SHORT, **DROP, "firewall_extra_rules": ["tcp dport 8443 accept"]},
        second: {**SHORT, "ssh_allow_users": [USER, "bzzz-admin"]},
    }
    both = ["apply", "--only", "2,3", "--limit", f"{second},{third}"]
    cluster.setup(*both, folder=cluster.declare(tmp_path / "corrected", nodes=corrected))
    assert "dport 8443 accept" in in_force(cluster.lab, third)["firewall"]
    assert f"allowusers {USER}\nallowusers bzzz-admin" in in_force(cluster.lab, second)["sshd"]
    assert all(gets_in(cluster.lab, node) for node in cluster.nodes)
    cluster.setup(*both)
    assert {node: in_force(cluster.lab, node) for node in cluster.nodes} == before


@pytest.mark.requirement("1.3.1", "L2", part="reverts without the run that made the change, across a reboot")
def test_it_is_put_back_though_the_run_was_killed_and_the_node_rebooted(cluster: Tools, tmp_path: Path, before: dict[str, Any]) -> None:
    lab, node = cluster.lab, cluster.nodes[2]
    # Long enough for the boot to be seen before it is over.
    folder = cluster.declare(tmp_path / "cut", nodes={node: {**DROP, "firewall_revert_seconds": 25}})
    with Run(cluster, "apply", "--only", "2", "--limit", node, folder=folder) as run:
        eventually("the rule is loaded", lambda: "dport 22 drop" in lab.exec(node, ["nft", "list", "ruleset"]).stdout)
        run.kill()
    assert state(lab, node, "firewall")["armed"]
    assert not answers(lab, node)
    lab.kill(node)
    subprocess.run(["docker", "start", lab.container(node)], check=True, capture_output=True)
    timer = ["systemctl", "is-active", "bzzz-revert-firewall.timer"]
    eventually("the timer runs again", lambda: lab.exec(node, timer, check=False).stdout.strip() == "active")
    assert "dport 22 drop" in lab.exec(node, ["nft", "list", "ruleset"]).stdout, "the boot does not prove anything"
    assert not answers(lab, node)
    eventually("SSH answers again", lambda: answers(lab, node))
    lab.wait(node)
    assert gets_in(lab, node)
    assert in_force(lab, node) == before[node]
    # The next run is told of the revert and goes on: once with what was there before, once corrected.
    cluster.setup("apply", "--only", "2", "--limit", node)
    assert not unfinished(lab, node)
    corrected = cluster.declare(tmp_path / "corrected", nodes={node: {**DROP, "firewall_extra_rules": ["tcp dport 8443 accept"]}})
    cluster.setup("apply", "--only", "2", "--limit", node, folder=corrected)
    assert "dport 8443 accept" in in_force(lab, node)["firewall"] and gets_in(lab, node)
    cluster.setup("apply", "--only", "2", "--limit", node)
    assert in_force(lab, node) == before[node]


@pytest.mark.requirement("1.3.1")
def test_ufw_and_nftables_each_do_it_alone(cluster: Tools, tmp_path: Path, before: dict[str, Any]) -> None:
    """ufw with a rule of the operator's own; rules that somebody took away; and back to nftables."""
    lab, node, other = cluster.lab, cluster.nodes[1], cluster.nodes[0]
    install = "apt-get -qy install ufw || { apt-get -q update && apt-get -qy install ufw; }"
    lab.exec(node, ["sh", "-c", f"export DEBIAN_FRONTEND=noninteractive; {install}; ufw allow 4444/tcp comment mine"])
    subnet = str(lab.subnet)
    ours = f"ufw allow from {subnet} to any port 8080 proto tcp comment 'bzzz'"
    folder = cluster.declare(
        tmp_path / "ufw",
        {**SHORT, "firewall_open_ports": ["6000-6003/udp"]},
        nodes={node: {"firewall_ssh_sources": [f"{subnet}", "198.51.100.7/32"]}},
    )

    step = ["apply", "--only", "2", "--limit", f"{node},{other}"]

    def rules() -> list[str]:
        return lab.exec(node, ["ufw", "show", "added"]).stdout.splitlines()[1:]

    # By itself, since ufw is there.
    cluster.setup(*step, folder=folder)
    status = lab.exec(node, ["ufw", "status", "verbose"]).stdout
    assert "Status: active" in status and "deny (incoming)" in status
    assert lab.exec(node, ["nft", "list", "table", "inet", "bzzz"], check=False).returncode, "two firewalls in force"
    assert "ufw allow 4444/tcp comment 'mine'" in rules() and ours in rules()
    assert "ufw allow 6000:6003/udp comment 'bzzz'" in rules()
    assert f"ufw allow from {subnet} to any port 22 proto tcp comment 'bzzz'" in rules()
    assert not any("22/tcp" in rule for rule in rules()), "SSH is open to more than the declared sources"
    assert gets_in(lab, node)
    assert cluster.document(*step, folder=folder)["changes"] == []

    # A rule of ufw's is removed by hand, on another node the whole table.
    there = rules()
    lab.exec(node, ["ufw", "delete", "allow", "from", subnet, "to", "any", "port", "8080", "proto", "tcp"])
    lab.exec(other, ["nft", "delete", "table", "inet", "bzzz"])
    found = cluster.document(*step, folder=folder)["changes"]
    assert {(change["node"], change["kind"], change["name"]) for change in found} == {
        (node, "loaded", "ufw"),
        (other, "loaded", "nftables"),
    }
    assert sorted(rules()) == sorted(there)
    assert "policy drop" in lab.exec(other, ["nft", "list", "table", "inet", "bzzz"]).stdout
    # Another declaration takes its rules away, and only them.
    fewer = cluster.declare(tmp_path / "fewer", SHORT)
    cluster.setup(*step, folder=fewer)
    assert "ufw allow 4444/tcp comment 'mine'" in rules() and ours in rules() and "ufw allow 22/tcp comment 'bzzz'" in rules()
    assert not any("6000" in rule or "198.51.100.7" in rule for rule in rules())

    # Back to nftables: ufw is as it was found, and so are the rules.
    back = cluster.declare(tmp_path / "back", SHORT, nodes={node: {"firewall_backend": "nftables"}})
    cluster.setup(*step, folder=back)
    assert rules() == ["ufw allow 4444/tcp comment 'mine'"]
    assert "Status: inactive" in lab.exec(node, ["ufw", "status"]).stdout
    lab.exec(node, ["sh", "-c", "DEBIAN_FRONTEND=noninteractive apt-get -qy purge ufw && rm -rf /etc/ufw"])
    assert in_force(lab, node) == before[node] and gets_in(lab, node)
