# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What an outside auditor, Debian's testssl.sh, finds at every listener of the cluster: protocols, ciphers, chain."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import Tools
from rest import wait_for

from bzzz_setup.lab import Node

FAULTS = {"LOW", "MEDIUM", "HIGH", "CRITICAL", "FATAL"}
# What it holds against certificates of a private authority.
PRIVATE = {"cert_revocation", "DNS_CAArecord"}


def listeners(cluster: Tools, node: Node) -> set[int]:
    """The ports that the cluster's own units, all in one slice, listen on for others than the node itself."""
    found = cluster.lab.exec(node.name, ["ss", "-Hltne"]).stdout
    lines = [line.split() for line in found.splitlines() if "/bzzz.slice/" in line]
    return {int(line[3].rpartition(":")[2]) for line in lines if not line[3].startswith("127.")}


def scan(cluster: Tools, auditor: Node, target: Node, port: int) -> dict[str, tuple[str, str]]:
    """(severity, finding) by what was looked at."""
    path = f"/tmp/scan-{target.name}-{port}.json"
    how = "--quiet --warnings off --color 0 --protocols --std --server-defaults --add-ca /etc/bzzz/tls/ca.crt"
    cluster.lab.exec(
        auditor.name, ["sh", "-c", f"rm -f {path}; cd /tmp; testssl {how} --jsonfile {path} {target.address}:{port} >&2"], check=False
    )
    told = json.loads(cluster.lab.exec(auditor.name, ["cat", path]).stdout)
    return {one["id"].split()[0]: (one["severity"], one["finding"]) for one in told}


@pytest.mark.requirement("F3")
@pytest.mark.requirement("2.3.1", "2.3.4", part="a scan of every listener is clean: protocols, ciphers, chain")
def test_a_scan_of_every_listener_is_clean(cluster: Tools) -> None:
    first, auditor = cluster.lab.nodes[:2]
    install = "DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends testssl.sh"
    cluster.lab.exec(auditor.name, ["sh", "-c", install])
    ports = wait_for("all listeners", lambda: len(found := listeners(cluster, auditor)) >= 6 and found)
    assert ports == {8080, 8081, 3000, 9100, 2379, 2380}
    # Debian's releases have different versions of etcd.
    targets = [(auditor, port) for port in sorted(ports)] + [(first, 2379)]
    with ThreadPoolExecutor(3) as pool:
        found = dict(zip(targets, pool.map(lambda target: scan(cluster, auditor, *target), targets), strict=True))
    for (node, port), told in found.items():
        wrong = {what: one for what, one in told.items() if one[0] in FAULTS and what not in PRIVATE}
        assert not wrong, f"{node.name}:{port}: {wrong}"
        assert told["cert_chain_of_trust"] == ("OK", "passed."), f"{node.name}:{port}"
        good = {"TLS1_2": "offered", "TLS1_3": "offered", "cipherlist_STRONG_FS": "offered"}
        bad = dict.fromkeys(("SSLv3", "TLS1", "TLS1_1", "cipherlist_OBSOLETED", "cipherlist_STRONG_NOFS"), "not offered")
        seen = {what: told[what][1].removesuffix(" with final") for what in good | bad}
        assert seen == good | bad, f"{node.name}:{port}"
