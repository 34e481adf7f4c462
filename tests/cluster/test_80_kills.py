# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Eight kills, one in each step: of the front, of sshd, of packages half-way, between a write and its restart, of a whole node.

After each, the same command converges: every check passes, nothing is left half-done, and once more changes nothing.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from conftest import Tools
from trouble import Run, callers, eventually, hold_before, hold_unpacked, kill_sessions, state, unfinished

from bzzz_setup.lab import Lab

pytestmark = pytest.mark.beside


def converges(cluster: Tools, *command: str, folder: Path | None = None) -> list[dict[str, Any]]:
    """The same command again, then once more. Returns what was still to be changed."""
    again = cluster.document(*command, folder=folder)
    assert again["checks"] and {check["status"] for check in again["checks"]} <= {"pass", "skip"}
    assert {node: unfinished(cluster.lab, node) for node in cluster.nodes} == {node: [] for node in cluster.nodes}
    assert cluster.document(*command, folder=folder)["changes"] == []
    changes: list[dict[str, Any]] = again["changes"]
    return changes


def served_names(lab: Lab, node: str) -> str:
    """The names in the certificate that the node service shows."""
    show = "openssl s_client -connect localhost:8080 </dev/null | openssl x509 -noout -ext subjectAltName"
    return lab.exec(node, ["sh", "-c", show]).stdout


def started(lab: Lab, node: str, unit: str) -> str:
    return lab.exec(node, ["systemctl", "show", "-P", "ExecMainStartTimestampMonotonic", unit]).stdout.strip()


@pytest.mark.requirement("L2", part="the front, in step 1")
def test_1_the_front_alone_is_killed(cluster: Tools) -> None:
    """Ansible, which it leaves behind, ends by itself; the next run is not told to wait."""
    with Run(cluster, "apply", "--only", "1") as run:
        run.until("TaskStarted", step=1, task="Ask every node for its facts")
        run.kill(alone=True)
    assert converges(cluster, "apply", "--only", "1") == []


@pytest.mark.requirement("L2", part="front and Ansible, in step 2, rules written and not loaded")
def test_2_everything_on_the_admin_host_is_killed(cluster: Tools, tmp_path: Path) -> None:
    """The node goes on alone and waits in vain for somebody to confirm; the next run meets it in the middle of that."""
    lab, node = cluster.lab, cluster.nodes[0]
    folder = cluster.declare(tmp_path / "declared", {"firewall_open_ports": ["8443/tcp"]})
    with hold_before(lab, node, "nft", "-f") as held:
        with Run(cluster, "apply", "--only", "2", folder=folder) as run:
            held.reached(run)
            run.kill()
        left = state(lab, node, "firewall")
        assert left["armed"] and "load:nftables" in left["pending"]
        assert "8443" in lab.exec(node, ["cat", "/etc/bzzz/firewall.nft"]).stdout
        assert "8443" not in lab.exec(node, ["nft", "list", "ruleset"]).stdout
        with Run(cluster, "apply", "--only", "2", folder=folder) as again:
            again.until("TaskStarted", step=2, task="Firewall rules", node=node)
            eventually("the next run waits for the one that was killed", lambda: callers(lab, node, "firewall") == 2)
            held.release()
            assert again.ended() == 0
    assert converges(cluster, "apply", "--only", "2", folder=folder) == []
    assert "8443" in lab.exec(node, ["nft", "list", "ruleset"]).stdout


@pytest.mark.requirement("L2", part="sshd's sessions, in step 3, certificate written and not yet read")
def test_3_the_sessions_of_sshd_are_killed(cluster: Tools, tmp_path: Path) -> None:
    lab, node = cluster.lab, cluster.nodes[1]
    folder = cluster.declare(tmp_path / "declared", {"tls_extra_names": ["kills.example"]})
    assert "kills.example" not in served_names(lab, node)
    with hold_before(lab, node, "systemctl", "try-reload-or-restart") as held:
        with Run(cluster, "apply", "--only", "3", folder=folder) as run:
            held.reached(run)
            assert kill_sessions(lab, node)
            assert run.ended() == 3
        assert "run:users" in state(lab, node, "tls")["pending"]
        assert "kills.example" not in served_names(lab, node), "it was reloaded, so nothing is proven"
    converges(cluster, "apply", "--only", "3", folder=folder)
    eventually("the service shows its new certificate", lambda: "kills.example" in served_names(lab, node))


@pytest.mark.requirement("L2", part="sshd, in step 4")
def test_4_sshd_is_killed(cluster: Tools) -> None:
    """With its listener, which systemd starts again. Whether the run survives depends on what was under way."""
    lab, node = cluster.lab, cluster.nodes[0]
    with Run(cluster, "apply", "--only", "4") as run:
        run.until("TaskStarted", step=4, node=node)
        lab.exec(node, ["systemctl", "kill", "-s", "KILL", "--kill-who=main", "ssh.service"])
        kill_sessions(lab, node)
        assert run.ended() in (0, 3)
    assert converges(cluster, "apply", "--only", "4") == []


@pytest.mark.requirement("L2", part="apt, dpkg and the module, in step 5, a package unpacked and not configured")
def test_5_an_installation_is_killed(cluster: Tools) -> None:
    lab, node, package = cluster.lab, cluster.nodes[1], "prometheus-node-exporter"
    lab.exec(node, ["sh", "-c", f"DEBIAN_FRONTEND=noninteractive apt-get -qy remove {package}"])
    with hold_unpacked(lab, node, package) as held:
        with Run(cluster, "apply", "--only", "5") as run:
            held.reached(run)
            assert held.kill() >= 4  # the hook, dpkg, apt-get and the module at least
            assert run.ended() == 3
        assert package in lab.exec(node, ["dpkg", "--audit"]).stdout
    changes = converges(cluster, "apply", "--only", "5")
    assert {change["node"] for change in changes} == {node}
    assert {"package", "unit"} <= {change["kind"] for change in changes}


@pytest.mark.requirement("L2", part="the module, in step 6, between a write and its restart")
def test_6_the_module_is_killed_between_write_and_restart(cluster: Tools, tmp_path: Path) -> None:
    lab, node = cluster.lab, cluster.nodes[2]
    folder = cluster.declare(tmp_path / "declared", {"service_log_level": "warn"})
    before = started(lab, node, "bzzz.service")
    with hold_before(lab, node, "systemctl", "restart") as held, Run(cluster, "apply", "--only", "6", folder=folder) as run:
        held.reached(run)
        held.kill()
        assert run.ended() == 3
    assert "warn" in lab.exec(node, ["cat", "/etc/bzzz/bzzz.env"]).stdout
    assert state(lab, node, "service")["pending"] == ["restart:bzzz.service"]
    assert started(lab, node, "bzzz.service") == before, "it was restarted, so nothing is proven"
    changes = converges(cluster, "apply", "--only", "6", folder=folder)
    assert [(change["node"], change["kind"], change["name"]) for change in changes] == [(node, "action", "restart:bzzz.service")]
    assert started(lab, node, "bzzz.service") != before


@pytest.mark.requirement("L2", part="a node, in step 7, its etcd about to restart")
def test_7_a_node_is_killed(cluster: Tools, tmp_path: Path) -> None:
    lab, node = cluster.lab, cluster.nodes[1]
    folder = cluster.declare(tmp_path / "declared", {"resources_coordination_memory_max_mib": 1000})
    with hold_before(lab, node, "systemctl", "restart") as held, Run(cluster, "apply", "--only", "7", folder=folder) as run:
        held.reached(run)
        lab.kill(node)
        lab.start(node)
        assert run.ended() == 3
    assert "restart:bzzz-etcd.service" in state(lab, node, "coordination")["pending"]
    converges(cluster, "apply", "--only", "7", folder=folder)
    assert lab.exec(node, ["systemctl", "show", "-P", "MemoryMax", "bzzz-etcd.service"]).stdout.strip() == str(1000 * 1024 * 1024)


@pytest.mark.requirement("L2", part="one run at a time, interruption")
def test_a_second_run_is_refused_and_an_interrupted_one_goes_on(cluster: Tools, tmp_path: Path) -> None:
    lab, node = cluster.lab, cluster.nodes[0]
    folder = cluster.declare(tmp_path / "declared", {"service_log_level": "error"})
    command = ["apply", "--only", "6", "--limit", node]
    with hold_before(lab, node, "systemctl", "restart") as held, Run(cluster, *command, folder=folder) as run:
        held.reached(run)
        (problem,) = cluster.document(*command, folder=folder, code=4)["problems"]
        assert str(run.process.pid) in problem["message"] and f"kill -INT {run.process.pid}" in problem["remedy"]
        assert json.loads(cluster.setup("--json", "status").stdout)["running"]["pid"] == run.process.pid
        run.process.send_signal(signal.SIGINT)
        assert run.ended() == 130
    cluster.setup(*command, folder=folder)
    assert cluster.document(*command, folder=folder)["changes"] == []
    assert not unfinished(lab, node)
    cluster.setup(*command)
    assert cluster.document(*command)["changes"] == []


@pytest.mark.requirement("L2", part="front and Ansible, in step 8")
def test_8_a_validation_is_killed(cluster: Tools) -> None:
    """The last, of all eight steps: it also takes back what the other kills had declared."""
    with Run(cluster, "apply") as run:
        run.until("TaskStarted", step=8, task="Benchmark")
        run.kill()
    assert converges(cluster, "apply") == []


@pytest.mark.slow
@pytest.mark.requirement("L2", part="the first set-up, killed in every step")
def test_a_first_set_up_is_killed_in_every_step(tmp_path: Path) -> None:
    """On fresh nodes: the same command again and again, and each time killed one step further."""
    lab = Lab("kills")
    lab.down()
    try:
        lab.up(3)
        tools = Tools(lab, tmp_path)
        for number in range(1, 9):
            with Run(tools, "apply") as run:
                run.until("TaskFinished", step=number)
                run.kill()
        # A kill that comes after the last change of a step leaves nothing to do; what counts is where it ends.
        converges(tools, "apply")
        for node in tools.nodes:
            assert tools.lab.exec(node, ["systemctl", "is-active", "bzzz.service", "bzzz-etcd.service"]).stdout.split() == ["active"] * 2
    finally:
        lab.down()
