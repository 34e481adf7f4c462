# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What an outside auditor, Debian's testssl.sh, finds at every listener of the cluster: protocols, ciphers, chain."""

from __future__ import annotations

import json
import re
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


def protocols(cluster: Tools, auditor: Node, target: Node, port: int) -> dict[str, str]:
    """Which versions of TLS a port speaks with openssl's client, which trusts the cluster's authority and offers every cipher."""
    ask = "openssl s_client -connect $0 -CAfile /etc/bzzz/tls/ca.crt -verify_return_error -cipher ALL:@SECLEVEL=0 -$1 </dev/null 2>&1"
    said = {
        version: cluster.lab.exec(auditor.name, ["sh", "-c", ask, f"{target.address}:{port}", version], check=False).stdout
        for version in ("tls1", "tls1_1", "tls1_2", "tls1_3")
    }
    # Without a certificate of the client's own, some end it after that.
    met = {version: re.search(r"^New, TLSv[\d.]+, Cipher is (?!\(NONE\))", text, re.MULTILINE) for version, text in said.items()}
    return {version: "yes" if met[version] and "Verification: OK" in text else "no" for version, text in said.items()}


@pytest.mark.requirement("F3")
@pytest.mark.requirement("2.3.1", "2.3.4", part="a scan of every listener is clean: protocols, ciphers, chain")
@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["one of each program", "every one"])
def test_a_scan_of_every_listener_is_clean(cluster: Tools, whole: bool) -> None:
    first, auditor = cluster.lab.nodes[:2]
    install = "DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends testssl.sh"
    cluster.lab.exec(auditor.name, ["sh", "-c", install])
    ports = wait_for("all listeners", lambda: len(found := listeners(cluster, auditor)) >= 6 and found)
    assert ports == {8080, 8081, 3000, 9100, 2379, 2380}
    # The node service has three ports, etcd two; Debian's releases have different versions of etcd.
    targets = [(auditor, port) for port in sorted(ports if whole else {8080, 9100, 2379})] + [(first, 2379)] * whole
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
    rest = [(node, port) for node in (first, auditor) for port in sorted(ports) if (node, port) not in targets]
    spoken = {(node.name, port): protocols(cluster, auditor, node, port) for node, port in rest}
    assert all(seen == {"tls1": "no", "tls1_1": "no", "tls1_2": "yes", "tls1_3": "yes"} for seen in spoken.values()), spoken
