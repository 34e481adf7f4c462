# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The cluster as a whole: etcd, membership by lease, the primary coordinator, and what happens when nodes are lost."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from conftest import Tools
from rest import Api, wait_for

from bzzz_setup.declaration import HOSTS, dump, load, write

ETCD = "bzzz-etcd.service"
LEASE_SECONDS = 6
CREDENTIALS = ["--cacert=/etc/bzzz/tls/ca.crt", "--cert=/etc/bzzz/tls/node.crt", "--key=/etc/bzzz/tls/node.key"]


@pytest.fixture(scope="module")
def api(cluster: Tools, tmp_path_factory: pytest.TempPathFactory) -> Api:
    return Api(cluster, tmp_path_factory.mktemp("api"))


def etcdctl(cluster: Tools, node: str, *arguments: str) -> Any:
    argv = ["env", "ETCDCTL_API=3", "etcdctl", "--endpoints=https://127.0.0.1:2379", *CREDENTIALS, "-w", "json", *arguments]
    return json.loads(cluster.lab.exec(node, argv).stdout)


# --- as it was formed ---


@pytest.mark.requirement("F7", part="etcd of every coordinator")
def test_etcd_has_three_healthy_members(cluster: Tools) -> None:
    members = etcdctl(cluster, cluster.nodes[0], "member", "list")["members"]
    assert {member["name"] for member in members} == set(cluster.nodes)
    assert all(url.startswith("https://") for member in members for url in member["peerURLs"] + member["clientURLs"])
    health = etcdctl(cluster, cluster.nodes[1], "endpoint", "health", "--cluster")
    assert [one["health"] for one in health] == [True] * 3


@pytest.mark.requirement("F7", part="mutual TLS between members and with clients")
@pytest.mark.parametrize("port", [2379, 2380])
def test_etcd_talks_to_holders_of_a_cluster_certificate_only(cluster: Tools, api: Api, port: int) -> None:
    node, peer = cluster.nodes[0], cluster.nodes[1]
    url = f"https://{api.addresses[node]}:{port}/version"
    with pytest.raises(requests.RequestException, match=r"(?i)certificate required|bad certificate|alert"):
        requests.get(url, verify=str(api.ca), timeout=5)
    with pytest.raises(requests.RequestException):
        requests.get(url.replace("https", "http"), timeout=5).raise_for_status()
    program = (
        "import ssl, sys, urllib.request as r; c = ssl.create_default_context(cafile='/etc/bzzz/tls/ca.crt'); "
        "c.load_cert_chain('/etc/bzzz/tls/node.crt', '/etc/bzzz/tls/node.key'); print(r.urlopen(sys.argv[1], context=c, timeout=5).read())"
    )
    assert "etcdserver" in cluster.lab.exec(peer, ["python3", "-c", program, url]).stdout


@pytest.mark.requirement("F7", part="every node tells of the same cluster")
@pytest.mark.requirement("8.1.4", part="same state everywhere")
@pytest.mark.requirement("8.1.1")
def test_every_node_tells_of_the_same_cluster_with_an_elected_primary(cluster: Tools, api: Api) -> None:
    told = api.agreed()
    assert told["coordinators"] == cluster.nodes and told["preferred_primary"] is None
    assert told["primary"] in cluster.nodes
    assert [member["name"] for member in told["members"] if member["primary"]] == [told["primary"]]
    claims = [node for node in cluster.nodes if api.get(node, "/api/v1/node").json()["primary"]]
    assert claims == [told["primary"]]


# --- nodes that are lost ---


@pytest.mark.requirement("F7", part="membership by lease")
@pytest.mark.requirement("8.2.4", part="a lost node is noticed, and returns by itself")
def test_a_silent_node_is_no_member_after_its_lease_and_returns_by_itself(cluster: Tools, api: Api) -> None:
    """Frozen, so that systemd does not restart it at once; then killed."""
    primary = api.agreed()["primary"]
    lost = next(node for node in cluster.nodes if node != primary)
    before = api.member(lost, primary)
    cluster.lab.exec(lost, ["systemctl", "kill", "-s", "STOP", "bzzz.service"])
    silent = time.monotonic()
    try:
        wait_for(f"end of {lost}'s membership", lambda: api.member(lost, primary) is None)
        took = time.monotonic() - silent
        assert LEASE_SECONDS / 2 < took <= LEASE_SECONDS + 2, f"gone after {took:.1f} s"
    finally:
        cluster.lab.exec(lost, ["systemctl", "kill", "-s", "KILL", "bzzz.service"])
    after = wait_for(f"return of {lost}", lambda: api.member(lost, primary))
    assert before is not None and after["started"] > before["started"]
    assert api.agreed()["primary"] == primary


@contextmanager
def killed(cluster: Tools, node: str) -> Iterator[float]:
    """A node without power, in the block; the time at which it lost it."""
    since = time.monotonic()
    cluster.lab.kill(node)
    try:
        yield since
    finally:
        cluster.lab.start(node)


@pytest.mark.requirement("8.1.1")
@pytest.mark.requirement("8.1.2")
@pytest.mark.requirement("8.1.4", part="after the loss of a node")
def test_the_declared_primary_leads_whenever_it_is_there(
    cluster: Tools, api: Api, tmp_path: Path, record_property: pytest.RecordProperty
) -> None:
    wanted = next(node for node in reversed(cluster.nodes) if node != api.agreed()["primary"])
    others = [node for node in cluster.nodes if node != wanted]
    try:
        folder = cluster.declare(tmp_path / "inventory", {"coordination_primary": wanted})
        cluster.setup("apply", "--only", "6", folder=folder)
        first = wait_for(f"primary {wanted}", lambda: (told := api.agreed())["primary"] == wanted and told)
        with killed(cluster, wanted) as since:
            told = wait_for(f"a primary other than {wanted}", lambda: _leads(api, others, wanted), 30)
            took = time.monotonic() - since
            record_property("failover_seconds", round(took, 1))
            print(f"failover of the primary coordinator: {took:.1f} s")
            assert took < 2 * LEASE_SECONDS + 3, f"failover took {took:.1f} s"
            assert told["term"] > first["term"]
        back = wait_for(f"{wanted} as primary again", lambda: (told := api.agreed())["primary"] == wanted and told, 90)
        assert back["term"] > told["term"]
    finally:
        cluster.setup("apply", "--only", "6")
    assert api.agreed()["preferred_primary"] is None


def _leads(api: Api, nodes: list[str], lost: str) -> dict[str, Any] | None:
    """What the remaining nodes tell, once they agree on a primary among them."""
    told = [api.cluster(node) for node in nodes]
    fine = all(one["current"] and one["primary"] in nodes and one["primary"] == told[0]["primary"] for one in told)
    return told[0] if fine and lost not in {member["name"] for member in told[0]["members"]} else None


@pytest.mark.requirement("8.4.3", part="without a majority nobody acts")
def test_without_a_majority_the_primary_steps_down_and_recovers_by_itself(cluster: Tools, api: Api) -> None:
    primary = api.agreed()["primary"]
    stopped = [node for node in cluster.nodes if node != primary]
    stop = ["systemctl", "stop", ETCD]
    try:
        for node in stopped:
            cluster.lab.exec(node, stop)
        for node in cluster.nodes:
            told = wait_for(f"the loss at {node}", lambda node=node: not (told := api.cluster(node))["current"] and told)
            assert "etcd" in told["reason"]
            # The others may still name whom they last saw, and that this is not confirmed.
            assert told["primary"] in ((None,) if node == primary else (None, primary))
            assert not api.get(node, "/api/v1/node").json()["primary"]
            assert api.get(node, "/health/ready").status_code == 503 and api.get(node, "/health/live").status_code == 200
    finally:
        for node in stopped:
            cluster.lab.exec(node, ["systemctl", "start", "--no-block", ETCD])
    wait_for("recovery", lambda: all(api.get(node, "/health/ready").status_code == 200 for node in cluster.nodes), 90)
    assert api.agreed()["primary"] in cluster.nodes


# --- changes of a running cluster ---


class Watch(threading.Thread):
    """Looks at every node all the time: how often one was not sure of the cluster."""

    def __init__(self, api: Api) -> None:
        super().__init__(daemon=True)
        self.api, self.over = api, threading.Event()
        self.samples, self.lost = 0, list[str]()

    def run(self) -> None:
        while not self.over.wait(0.2):
            for node in self.api.addresses:
                self.samples += 1
                try:
                    if not (told := self.api.cluster(node))["current"]:
                        self.lost.append(f"{node}: {told['reason']}")
                except requests.RequestException as error:
                    self.lost.append(f"{node}: {error}")


def downtimes(cluster: Tools) -> dict[str, tuple[int, int]]:
    """When each node's etcd last stopped serving, and when it served again; microseconds of the one kernel's clock."""
    found = {}
    for node in cluster.nodes:
        names = ["-p", "ActiveExitTimestampMonotonic", "-p", "ActiveEnterTimestampMonotonic"]
        told = cluster.lab.exec(node, ["systemctl", "show", *names, ETCD]).stdout
        seen = dict(line.split("=") for line in told.split())
        found[node] = (int(seen["ActiveExitTimestampMonotonic"]), int(seen["ActiveEnterTimestampMonotonic"]))
    return found


@pytest.mark.requirement("F7", part="a change of etcd's configuration keeps the majority")
@pytest.mark.requirement("5.2.2", part="etcd's memory, held by the kernel")
def test_a_change_of_etcd_keeps_the_majority_at_every_moment(cluster: Tools, api: Api, tmp_path: Path) -> None:
    api.agreed()
    before = downtimes(cluster)
    watch = Watch(api)
    watch.start()
    try:
        folder = cluster.declare(tmp_path / "inventory", {"resources_coordination_memory_max_mib": 900})
        checks = cluster.document("apply", "--only", "7", folder=folder)["checks"]
        changed = downtimes(cluster)
        told = api.agreed()
        seen = {check["seen"] for check in checks if check["id"] == "cluster-primary"}
        assert seen == {f"exit code 0: {told['primary']}"}, "the run's own checks name another primary"
        for node in cluster.nodes:
            group = cluster.lab.exec(node, ["systemctl", "show", "--value", "-p", "ControlGroup", ETCD]).stdout.strip()
            assert int(cluster.lab.exec(node, ["cat", f"/sys/fs/cgroup/memory{group}/memory.limit_in_bytes"]).stdout) == 900 << 20
    finally:
        cluster.setup("apply", "--only", "7")
        watch.over.set()
        watch.join()
    for old, new in ((before, changed), (changed, downtimes(cluster))):
        assert all(new[node][0] > old[node][1] for node in cluster.nodes), "not every member was restarted"
        spans = sorted(new.values())
        assert all(back <= next_stop for (_stop, back), (next_stop, _back) in zip(spans, spans[1:], strict=False)), spans
    assert watch.samples > 3 * len(cluster.nodes) and watch.lost == []


@pytest.mark.requirement("L7", part="a change that would part the members")
def test_a_formed_cluster_keeps_its_peer_port(cluster: Tools, tmp_path: Path) -> None:
    folder = cluster.declare(tmp_path / "inventory", {"coordination_peer_port": 2390})
    refused = cluster.document("plan", "--only", "7", folder=folder, code=2)
    assert {problem["option"] for problem in refused["problems"]} == {"coordination_peer_port"}


@pytest.mark.requirement("F7", part="a formed cluster keeps its coordinators")
def test_a_coordinator_without_its_data_begins_no_second_cluster(cluster: Tools, tmp_path: Path) -> None:
    """As a machine built anew; alone it cannot know of the others, with them it is told what to do."""
    lost, data = cluster.nodes[2], "/var/lib/etcd/bzzz"
    cluster.lab.exec(lost, ["sh", "-c", f"systemctl stop {ETCD} && mv {data} {data}.away"])
    try:
        alone = cluster.document("apply", "--only", "7", "--limit", lost, code=3)
        (failure,) = alone["failures"]
        assert f"{lost} has no data of etcd yet, and this run has only 1 of 3 coordinators" in failure["message"]
        assert "--limit" in failure["remedy"] and all(node in failure["remedy"] for node in cluster.nodes[:2])
        refused = cluster.document("apply", "--only", "7", code=2)
        (problem,) = (one for one in refused["problems"] if one["severity"] == "error")
        assert (problem["option"], problem["node"]) == ("coordinators", lost)
        assert "etcdctl" in problem["remedy"] and data in problem["remedy"]
        assert cluster.lab.exec(lost, ["ls", "-A", data], check=False).stdout == "", "it has begun anew"
        fewer = cluster.declare(tmp_path / "fewer")
        hosts = load((fewer / HOSTS).read_text())
        del hosts["bzzz"]["children"]["coordinators"]["hosts"][lost]
        write(fewer / HOSTS, dump(hosts))
        other = cluster.document("plan", "--only", "7", folder=fewer, code=2)
        assert {one["option"] for one in other["problems"] if one["severity"] == "error"} == {"coordinators"}
    finally:
        # An empty directory is what the refused runs may have left, no data.
        cluster.lab.exec(lost, ["sh", "-c", f"rmdir {data} 2>/dev/null; mv {data}.away {data} && systemctl start {ETCD}"])
    assert cluster.document("apply", "--only", "7")["changes"] == []


@pytest.mark.requirement("L2", part="converged after losses and changes")
def test_everything_is_as_before(cluster: Tools, api: Api) -> None:
    assert cluster.document("apply")["changes"] == []
    assert api.agreed()["coordinators"] == cluster.nodes
