# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Things that go wrong on a running cluster: each is told with what, where and why, and the command that it names mends it."""

from __future__ import annotations

import re
import shlex

import pytest
from conftest import Tools

# What is done to a node, and the checks that then fail there. The shell lines are what people and accidents do.
DAMAGE = {
    "nft flush ruleset": {"firewall-ruleset"},
    "systemctl disable bzzz-firewall.service": {"firewall-at-boot"},
    "gpasswd -d bzzz bzzz-tls 2>/dev/null; rm /etc/sudoers.d/bzzz": {"sudo-rights"},
    "rm /etc/ssh/authorized_keys.d/*": {"ssh-keys"},
    "chmod 0755 /srv/bzzz/data": {"data-path"},
    "systemctl disable --now prometheus-node-exporter": {"node-exporter-unit", "node-exporter-tls"},
    "systemctl disable --now bzzz": {
        *("service-unit", "service-port", "service-live", "service-limits", "node-ready"),
        *("service-events-port", "service-events", "service-mcp-port", "service-mcp"),
    },
    "systemctl disable --now bzzz-etcd": {"etcd-unit", "etcd-healthy", "etcd-limits"},
}


@pytest.mark.requirement("L7")
def test_the_command_that_a_failed_check_names_mends_it(cluster: Tools) -> None:
    lab = cluster.lab
    victims = {damage: cluster.nodes[1 + index % 2] for index, damage in enumerate(DAMAGE)}
    for damage, node in victims.items():
        lab.exec(node, ["sh", "-c", damage])
    broken = cluster.document("verify", code=1)
    failed = {(check["node"], check["id"]): check for check in broken["checks"] if check["status"] == "fail"}
    for damage, node in victims.items():
        for check in DAMAGE[damage]:
            assert (node, check) in failed, f"'{damage}' on {node} is not told by {check}: {sorted(failed)}"
    remedies = set()
    for check in failed.values():
        assert check["title"] and check["seen"] and check["requirement"], check
        remedies |= set(re.findall(r"bzzz-setup (apply --only \d)", check["remedy"]))
        assert re.search(r"bzzz-setup apply --only \d", check["remedy"]), f"no command: {check}"
    shown = cluster.setup("verify", code=1).stdout
    for (node, _), check in failed.items():
        assert node in shown and check["title"] in shown and re.sub(r"\s+", "", check["remedy"]) in re.sub(r"\s+", "", shown)
    for remedy in sorted(remedies):
        cluster.setup(*shlex.split(remedy))
    mended = cluster.document("verify")
    assert {check["status"] for check in mended["checks"]} <= {"pass", "skip"}
    assert cluster.document("apply")["changes"] == []
