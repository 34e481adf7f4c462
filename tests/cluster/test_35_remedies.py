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
# One fault of each kind, the check that tells of it, and a word of what it saw. None of them stops what runs already.
KINDS = {
    "connectivity": ("nft insert rule inet bzzz input tcp dport 8081 drop", "cluster-ports", "8081"),
    # Its watchdog would start it anew, on a busy machine before anybody has looked.
    "health": ("systemctl service-watchdogs no; systemctl kill --signal=STOP bzzz", "service-live", "time"),
    "rules": ("echo 'add rule inet bzzz input tcp dport httpx accept' >> /etc/bzzz/firewall.nft", "firewall-syntax", "httpx"),
    "configuration": ("sed -i 's/^  port: .*/  port: eighty/' /etc/bzzz/config.yaml", "service-configuration", "eighty"),
    "resources": ("mount -t tmpfs -o size=8m tmpfs /srv/bzzz/models", "models-space", "8"),
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
        named = re.findall(r"bzzz-setup (apply -i \S+ --only \d)", check["remedy"])
        assert named, f"no command: {check}"
        remedies |= set(named)
    shown = cluster.setup("report").stdout
    for (node, _), check in failed.items():
        assert node in shown and check["title"] in shown and re.sub(r"\s+", "", check["remedy"]) in re.sub(r"\s+", "", shown)
    for remedy in sorted(remedies):
        cluster.setup(*shlex.split(remedy))
    mended = cluster.document("apply")
    assert mended["changes"] == [] and {check["status"] for check in mended["checks"]} <= {"pass", "skip"}


@pytest.mark.requirement("T4")
def test_each_kind_of_fault_is_told_where_it_is(cluster: Tools) -> None:
    lab, (first, second, third) = cluster.lab, cluster.nodes[:3]
    where = {"connectivity": second, "health": third, "rules": third, "configuration": second, "resources": first}
    try:
        for kind, (fault, _, _) in KINDS.items():
            lab.exec(where[kind], ["sh", "-euc", fault])
        found = cluster.document("verify", code=1)
        checks = {(check["node"], check["id"]): check for check in found["checks"]}
        for kind, (fault, identity, word) in KINDS.items():
            # A port that is shut is seen from the peers.
            for node in [first, third] if kind == "connectivity" else [where[kind]]:
                told = checks[node, identity]
                assert told["status"] == "fail", f"'{fault}' on {where[kind]}: {told}"
                assert word in told["seen"] and (kind != "connectivity" or second in told["seen"]), told
            for node in cluster.nodes:
                if node != where[kind] and kind != "connectivity":
                    assert checks[node, identity]["status"] == "pass", f"'{fault}' on {where[kind]} is told of {node}"
        assert checks[second, "firewall-ruleset"]["seen"] == "added: tcp dport 8081 drop"
        # What could not be set up now is told, and is no reason not to look at the rest; to change it is refused.
        assert [(one["severity"], one["option"], one["node"]) for one in found["problems"]] == [("warning", "resources_models_path", first)]
        refused = cluster.document("apply", code=2)
        assert [(one["severity"], one["option"]) for one in refused["problems"]] == [("error", "resources_models_path")]
        assert refused["changes"] == []
    finally:
        lab.exec(where["resources"], ["umount", "/srv/bzzz/models"])
        lab.exec(where["health"], ["sh", "-c", "systemctl kill --signal=CONT bzzz; systemctl service-watchdogs yes"])
    for step in (2, 6):
        cluster.setup("apply", "--only", str(step))
    assert {check["status"] for check in cluster.document("verify")["checks"]} <= {"pass", "skip"}
