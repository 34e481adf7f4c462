# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""All eight steps on three nodes: a working cluster, and a second run that changes nothing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from conftest import Tools

STEPS = ["Detection", "Network", "Security", "AI integration", "Resources", "Services", "Cluster formation", "Validation"]


@pytest.fixture(scope="module")
def again(cluster: Tools) -> dict[str, Any]:
    return cluster.document("apply")


@pytest.mark.requirement("F3", "F4", "F5", "F6", "F7", "F8", part="the eight steps in order, each verified")
def test_the_steps_run_in_order_and_every_check_passes(cluster: Tools, again: dict[str, Any]) -> None:
    assert [step["title"] for step in again["steps"]] == STEPS
    assert all(step["state"] == "done" and set(step["nodes"]) == set(cluster.nodes) for step in again["steps"])
    assert again["checks"] and {check["status"] for check in again["checks"]} <= {"pass", "skip"}
    assert {check["node"] for check in again["checks"]} >= set(cluster.nodes)
    assert again["outcome"] == "fine" and again["exit_code"] == 0


@pytest.mark.requirement("L2", part="second run changes nothing")
def test_a_second_run_changes_nothing(again: dict[str, Any]) -> None:
    assert again["changes"] == []
    assert {node["changed"] for node in again["nodes"].values()} == {0}


@pytest.mark.requirement("L1", part="check mode on a converged cluster")
def test_a_plan_of_the_finished_cluster_is_empty(cluster: Tools) -> None:
    assert cluster.document("plan")["changes"] == []


def test_ansible_alone_does_the_same(cluster: Tools) -> None:
    """Without the front: changed=0 on each node, no module sent, no warning."""
    done = cluster.playbook("bzzz.cluster.setup")
    counted = re.findall(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", done.stdout, re.MULTILINE)
    assert {name: tuple(map(int, numbers)) for name, *numbers in counted} == dict.fromkeys(cluster.nodes, (0, 0, 0))
    assert "WARNING" not in done.stdout + done.stderr


@pytest.mark.requirement("F8", part="benchmark and report")
def test_the_benchmark_measures_disk_and_service(again: dict[str, Any], cluster: Tools) -> None:
    for node in cluster.nodes:
        measured = {check["id"]: check for check in again["checks"] if check["node"] == node and check["id"].startswith("bench_")}
        assert set(measured) == {"bench_disk", "bench_http"}, f"not measured on {node}"
        assert all(re.search(r"\d", check["seen"]) for check in measured.values())


@pytest.mark.requirement("F8", part="throughput between nodes against a minimum")
def test_throughput_between_nodes_is_measured_where_it_is_asked_for(cluster: Tools, tmp_path: Path) -> None:
    node, command = cluster.nodes[0], ("apply", "--only", "2,8")
    port = ["sh", "-c", "nft list ruleset | grep -c 5201 || true"]
    assert cluster.lab.exec(node, port).stdout.strip() == "0"
    folder = cluster.declare(tmp_path / "asked", {"validation_network_min_mib_per_second": 1})
    measured = {check["node"]: check for check in cluster.document(*command, folder=folder)["checks"] if check["id"] == "bench_network"}
    assert {name: check["status"] for name, check in measured.items()} == dict.fromkeys(cluster.nodes, "pass")
    for name, after in zip(cluster.nodes, [*cluster.nodes[1:], node], strict=True):
        assert re.fullmatch(rf"[\d.]+ MiB/s to {after}", measured[name]["seen"]), measured[name]
    too_much = cluster.declare(tmp_path / "too_much", {"validation_network_min_mib_per_second": 10**6})
    done = cluster.document(*command, folder=too_much, code=1)
    assert done["changes"] == [], "the port was open already"
    failed = [check for check in done["checks"] if check["status"] == "fail"]
    assert {check["id"] for check in failed} == {"bench_network"} and all("cabling" in check["remedy"] for check in failed)
    cluster.setup(*command)
    assert cluster.lab.exec(node, port).stdout.strip() == "0"


def test_state_is_the_nodes_not_the_admin_hosts(cluster: Tools) -> None:
    """Generations and journals lie on the node, for root only, and nothing is left pending."""
    for node in cluster.nodes:
        state = cluster.host(node).file("/var/lib/bzzz/sets/service")
        assert state.is_directory and state.mode == 0o700
        left = cluster.lab.exec(node, ["sh", "-c", "cat /var/lib/bzzz/sets/*/state.json"]).stdout
        assert '"pending": []' in left and not re.search(r'"pending": \[[^\]]|"committing": \{|"armed": \{', left)
