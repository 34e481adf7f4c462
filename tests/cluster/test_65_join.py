# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A node more: it joins a running cluster, whose other nodes see no change."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from conftest import Tools
from rest import Api, wait_for
from test_60_topology import etcdctl

UNITS = ["bzzz.service", "bzzz-etcd.service", "prometheus-node-exporter.service", "ssh.service"]


def started(cluster: Tools, node: str) -> str:
    return str(cluster.lab.exec(node, ["systemctl", "show", "-p", "Id,InvocationID,ExecMainPID", *UNITS]).stdout)


@pytest.mark.requirement("F7")
def test_a_fourth_node_joins_and_the_others_see_no_change(cluster: Tools, tmp_path: Path, record_property: pytest.RecordProperty) -> None:
    """Discovered by its inventory line, joined, told of the same replicated state as all others, and tested."""
    lab, nodes = cluster.lab, cluster.nodes
    before = {node: started(cluster, node) for node in nodes}
    try:
        new = lab.up(len(nodes) + 1)[-1].name
        document = cluster.document("apply")
        record_property("joining_seconds", document["seconds"])
        print(f"joining of one node: {document['seconds']:.1f} s")
        assert document["outcome"] == "fine" and {change["node"] for change in document["changes"]} == {new}
        assert {check["status"] for check in document["checks"]} <= {"pass", "skip"}
        (members,) = {check["status"] for check in document["checks"] if check["id"] == "cluster-members"}
        assert members == "pass" and {node: started(cluster, node) for node in nodes} == before
        assert not cluster.host(new).file("/var/lib/bzzz/ca").exists, "it is no coordinator, and has nothing of the authority"
        api = Api(cluster, tmp_path)
        told = api.agreed()
        assert {member["name"] for member in told["members"]} == {*nodes, new} and told["coordinators"] == nodes
        # What one coordinator has written, each holds in its own store, whether or not the others are there to ask.
        etcdctl(cluster, nodes[0], "put", "/test/replicated", "by the first")
        for node in nodes:
            (found,) = etcdctl(cluster, node, "get", "--consistency=s", "/test/replicated")["kvs"]
            assert base64.b64decode(found["value"]) == b"by the first"
        etcdctl(cluster, nodes[2], "del", "/test/replicated")
        again = cluster.document("apply")
        assert again["changes"] == [] and set(again["nodes"]) == {*nodes, new}
    finally:
        lab.up(len(nodes))
    api = Api(cluster, tmp_path)
    wait_for("end of its membership", lambda: api.member(new, nodes[0]) is None, 30)
    assert cluster.document("apply")["changes"] == []
