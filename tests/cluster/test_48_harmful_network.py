# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Declarations about network and firewall that would do harm: refused before a node is touched, or put back by the node itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from conftest import Tools
from trouble import gets_in, in_force, unfinished

SHORT = {"firewall_revert_seconds": 20, "firewall_backend": "nftables"}


class Harm(NamedTuple):
    """What one node is declared to be like, the option that a refusal names, and a word of what is said about it.

    `when`: without a node (the declaration is read), by the node's facts, by the node (it tries the rules), or by being cut off.
    """

    when: str
    options: dict[str, Any]
    option: str
    said: str


HARMFUL = {
    "a subnet that no node is in": Harm("read", {"network_subnet": "192.0.2.0/24"}, "network_subnet", "not inside"),
    "IPv6 only, on nodes that have IPv4": Harm("read", {"network_subnet": "fd00::/64"}, "network_subnet", "not inside"),
    "a rule that flushes all": Harm(
        "read", {**SHORT, "firewall_extra_rules": ["accept\nflush ruleset"]}, "firewall_extra_rules", "one line"
    ),
    "a rule that its firewall does not know": Harm(
        "read", {"firewall_extra_rules": ["tcp dport 22 drop"]}, "firewall_extra_rules", "nftables"
    ),
    "no time to come back in": Harm("read", {"firewall_revert_seconds": 1}, "firewall_revert_seconds", "20"),
    "a service on SSH's port": Harm("read", {"service_port": 22}, "service_port", "22"),
    "SSH from elsewhere only": Harm("facts", {"firewall_ssh_sources": ["192.0.2.0/24"]}, "firewall_ssh_sources", "SSH would be cut"),
    "SSH by IPv6 only": Harm("facts", {"firewall_ssh_sources": ["fd00::/8"]}, "firewall_ssh_sources", "SSH would be cut"),
    "SSH from the node itself only": Harm("facts", {"firewall_ssh_sources": ["127.0.0.0/8"]}, "firewall_ssh_sources", "SSH would be cut"),
    "an interface that is not there": Harm("facts", {"network_interface": "nosuch0"}, "network_interface", "no interface nosuch0"),
    "the loopback as the cluster's interface": Harm("facts", {"network_interface": "lo"}, "network_address", "not on lo"),
    "a firewall that is not running": Harm("facts", {"firewall_backend": "firewalld"}, "firewall_backend", "not running"),
    "a rule that nft cannot read": Harm(
        "node",
        {**SHORT, "firewall_extra_rules": ["tcp dport httpx accept"]},
        "firewall",
        "httpx.*nothing was changed|nothing was changed.*httpx",
    ),
    "a list of ports without SSH": Harm(
        "cut",
        {**SHORT, "firewall_extra_rules": ["tcp dport { 80, 443 } accept", "tcp dport 1-1023 drop"]},
        "firewall",
        "cut this admin host off",
    ),
    "nothing that the node asks is answered": Harm(
        "cut", {**SHORT, "firewall_extra_rules": ["ct state established,related drop"]}, "firewall", "cut this admin host off"
    ),
}
CODES = {"read": 2, "facts": 2, "node": 3, "cut": 3}


@pytest.fixture(scope="module")
def told(cluster: Tools, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[str, dict[str, Any]]]]:
    """Harm -> its node and what `apply` said. As many at a time as there are nodes, each on its own."""
    before = {node: in_force(cluster.lab, node) for node in cluster.nodes}
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for code, kinds in ((2, {"read"}), (2, {"facts"}), (3, {"node", "cut"})):
        names = [name for name, harm in HARMFUL.items() if harm.when in kinds]
        for at in range(0, len(names), len(cluster.nodes)):
            where = dict(zip(cluster.nodes, names[at : at + len(cluster.nodes)], strict=False))
            folder = cluster.declare(
                tmp_path_factory.mktemp("harm") / "inventory", nodes={node: HARMFUL[name].options for node, name in where.items()}
            )
            document = cluster.document("apply", "--only", "2", folder=folder, code=code)
            found |= {name: (node, document) for node, name in where.items()}
            assert {node: in_force(cluster.lab, node) for node in cluster.nodes} == before, where
            assert all(gets_in(cluster.lab, node) and not unfinished(cluster.lab, node) for node in cluster.nodes), where
    yield found
    assert cluster.document("apply", "--only", "2")["changes"] == []


@pytest.mark.requirement("1.3.1", part="harmful declarations: refused, or put back by the node")
@pytest.mark.parametrize("name", HARMFUL)
def test_harm_is_refused_or_put_back(name: str, told: dict[str, tuple[str, dict[str, Any]]]) -> None:
    """That rules, sshd and sudo are as they were, and the operator gets in, is asserted by fixture `told`."""
    harm, (node, document) = HARMFUL[name], told[name]
    if CODES[harm.when] == 2:
        wrong = [one for one in document["problems"] if one["severity"] == "error" and one["option"] == harm.option and node in one["node"]]
        assert wrong and all(one["remedy"] for one in wrong), document["problems"]
        assert any(harm.said in one["message"] + one["remedy"] for one in wrong), wrong
        assert document["changes"] == []
    else:
        (failure,) = [one for one in document["failures"] if one["node"] == node]
        assert re.search(harm.said, failure["message"], re.S) and failure["role"] == harm.option, failure
        assert harm.when == "node" or "correct the firewall_* options" in failure["remedy"]
