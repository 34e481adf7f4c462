# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a run leaves in the cluster of itself, and what happens where it cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.bzzz.cluster.plugins.action.run_record import recorded
from ansible_collections.bzzz.cluster.plugins.module_utils.node import run_record
from node_cluster import Authority, free_ports


def check(node: str, status: str, identifier: str = "x") -> dict[str, Any]:
    return {"node": node, "status": status, "id": identifier, "role": "tls", "title": "t", "seen": "y" * 5000, "data": {}}


@pytest.mark.requirement("F8", part="record of a run")
def test_a_record_counts_every_check_and_names_what_failed_and_who_was_lost() -> None:
    good = recorded(["b", "a"], [check("a", "pass"), check("b", "warn"), check("b", "skip"), check("a, b", "pass")])
    assert (good["outcome"], good["nodes"], good["lost"], good["failed"]) == ("passed", ["a", "b"], [], [])
    assert good["checks"] == {"pass": 2, "warn": 1, "fail": 0, "skip": 1}
    bad = recorded(["a"], [check("a", "fail", f"check-{number}") for number in range(300)])
    assert (bad["outcome"], bad["checks"]["fail"]) == ("failed", 300)
    assert bad["failed"][0] == {"node": "a", "role": "tls", "id": "check-0", "title": "t"}
    assert len(json.dumps(bad)) < 4000, "every node reads it"
    lost = recorded(["a", "b"], [check("a", "pass")])
    assert (lost["outcome"], lost["nodes"], lost["lost"]) == ("failed", ["a"], ["b"])


def test_what_cannot_be_recorded_is_told_with_the_reason(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = map(str, authority.leaf("admin"))
    port = free_ports(1)[0]
    payload = {"endpoints": [f"https://127.0.0.1:{port}"], "key": "/bzzz/test/run", "record": {}, "ca": str(authority.ca)}
    answer = run_record.main({**payload, "certificate": certificate, "private_key": key})
    assert not answer["recorded"] and str(port) in answer["reason"] and "refused" in answer["reason"]
    answer = run_record.main({**payload, "certificate": str(tmp_path / "absent"), "private_key": key})
    assert not answer["recorded"] and "certificate" in answer["reason"]
