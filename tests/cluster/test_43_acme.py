# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Certificates by ACME on the cluster's own nodes, from a real authority: proven both ways, renewed by the timer's unit, taken back.

The first and the last node prove their names by HTTP, the one between by DNS, for a wildcard.
"""

from __future__ import annotations

import datetime
import json
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import leaks
import pytest
from acme import ACCOUNT, DNS, DOMAIN, MANAGEMENT, PORT, Authority
from conftest import Tools
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pki import Issued, issue
from rest import wait_for

from bzzz_setup.declaration import VAULT, dump, write

PORTS = (8080, 8081, 3000)
SHOWN = "/etc/bzzz/tls/acme"


@pytest.fixture(scope="module")
def authority(cluster: Tools, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authority]:
    made = Authority(cluster, tmp_path_factory.mktemp("authority"))
    yield made
    made.remove()


class Operator:
    """Who declares; `names` are those by which clients come to the nodes."""

    def __init__(self, cluster: Tools, authority: Authority, base: Path) -> None:
        self.cluster, self.authority, self.base = cluster, authority, base
        self.by_dns = cluster.nodes[1]
        self.names = {node: f"*.{node}.{DOMAIN}" if node == self.by_dns else f"{node}.{DOMAIN}" for node in cluster.nodes}

    def declare(self, name: str, **per_node: dict[str, Any]) -> Path:
        folder = self.base / name
        nodes: dict[str, dict[str, Any]] = {
            node: {
                "tls_mode": "acme",
                "tls_acme_directory": self.authority.directory,
                "tls_acme_accept_terms": True,
                "tls_acme_email": "admin@example.com",
                "tls_acme_ca_file": str(self.authority.ca_file),
                "tls_acme_eab_id": ACCOUNT,
                "tls_ca_file": "root.pem",
                # Clients by address are none of this authority's.
                "tls_extra_names": [self.names[node], "192.0.2.1"],
            }
            for node in self.cluster.nodes
        }
        nodes[self.by_dns] |= {
            "tls_acme_challenge": "dns-01",
            "tls_acme_dns_server": self.authority.host.address,
            "tls_acme_dns_key_name": "lab",
            "tls_acme_dns_wait_seconds": 1,
        }
        nodes[self.authority.host.name]["firewall_open_ports"] = [f"{PORT}/tcp", f"{MANAGEMENT}/tcp", f"{DNS}/udp", f"{DNS}/tcp"]
        for node, own in per_node.items():
            nodes[node.replace("_", "-")] |= own
        self.cluster.declare(folder, nodes=nodes)
        write(folder / "root.pem", self.authority.root)
        secrets = {"tls_acme_eab_key": self.authority.account_key, "tls_acme_dns_key": self.authority.dns_key}
        write(folder / VAULT, dump(secrets), 0o600)
        return folder

    def shown(self, node: str, port: int = 8080) -> x509.Certificate:
        """What a client is shown that knows the node's name and trusts the authority's root only; an OSError where it would not stay."""
        address = next(found.address for found in self.cluster.lab.nodes if found.name == node)
        context = ssl.create_default_context(cadata=self.authority.root)
        name = self.names[node].replace("*", "any")
        with socket.create_connection((address, port), 20) as plain, context.wrap_socket(plain, server_hostname=name) as wrapped:
            return x509.load_der_x509_certificate(wrapped.getpeercert(binary_form=True) or b"")

    def serial(self, node: str) -> int | None:
        try:
            return self.shown(node).serial_number
        except OSError:
            return None

    def exec(self, node: str, script: str, *, check: bool = True) -> Any:
        return self.cluster.lab.exec(node, ["sh", "-c", script], check=check)

    def main_pid(self, node: str) -> str:
        return str(self.exec(node, "systemctl show -p MainPID --value bzzz.service").stdout.strip())


@pytest.fixture(scope="module")
def operator(cluster: Tools, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Operator:
    return Operator(cluster, authority, tmp_path_factory.mktemp("operator"))


@pytest.mark.requirement("2.3.3", part="refused before a machine is touched")
def test_names_that_nobody_can_certify_are_refused_before_a_machine_is_touched(cluster: Tools, operator: Operator) -> None:
    first, second, third = (node.replace("-", "_") for node in cluster.nodes)
    wrong = {
        first: {"tls_extra_names": ["node.local"]},
        second: {"tls_acme_accept_terms": False},
        third: {"tls_extra_names": ["*.lab.test"]},
    }
    told = cluster.document("apply", "--only", "3", folder=operator.declare("refused", **wrong), code=2)
    assert told["changes"] == []
    found = {problem["node"]: (problem["option"], problem["message"]) for problem in told["problems"]}
    assert set(found) == set(cluster.nodes)
    assert "node.local" in found[cluster.nodes[0]][1] and "no DNS" in found[cluster.nodes[0]][1]
    assert found[cluster.nodes[1]][0] == "tls_acme_accept_terms"
    assert "http-01" in found[cluster.nodes[2]][1]


@pytest.fixture(scope="module")
def failed(cluster: Tools, operator: Operator) -> dict[str, Any]:
    """Three nodes, three things that an authority does not go along with: firewalls are right from here on."""
    first, second, third = (node.replace("-", "_") for node in cluster.nodes)
    wrong = {
        first: {"tls_extra_names": [f"gone.{DOMAIN}"]},
        second: {"tls_acme_eab_id": "kid-unknown"},
        third: {"tls_acme_directory": f"https://127.0.0.1:{PORT + 1}/dir"},
    }
    return cluster.document("apply", "--only", "2", "--only", "3", folder=operator.declare("failed", **wrong), code=3)


@pytest.mark.requirement("2.3.3", part="what the authority answers is told, with its remedy")
def test_what_the_authority_answers_is_told_with_its_remedy(cluster: Tools, operator: Operator, failed: dict[str, Any]) -> None:
    told = {failure["node"]: failure for failure in failed["failures"]}
    words = [
        ("could not reach the node under this name", f"gone.{DOMAIN}"),
        ("outside of ACME", "tls_acme_eab_key"),
        ("does not answer", "127.0.0.1"),
    ]
    for node, (cause, named) in zip(cluster.nodes, words, strict=True):
        assert cause in told[node]["message"] and named in told[node]["remedy"], told[node]
        # What was shown before, is.
        assert operator.exec(node, "readlink /etc/bzzz/tls/service.key").stdout == "node.key\n"


@dataclass
class Obtained:
    folder: Path
    pids: dict[str, str]
    again: dict[str, Any]
    watch: leaks.Watch
    secrets: dict[str, str]


@pytest.fixture(scope="module")
def obtained(cluster: Tools, operator: Operator, failed: dict[str, Any]) -> Iterator[Obtained]:
    """The certificates in use, and what a second run had to do."""
    folder = operator.declare("obtained")
    secrets = {"account": operator.authority.account_key, "updates": operator.authority.dns_key}
    pids = {node: operator.main_pid(node) for node in cluster.nodes}
    with leaks.Watch(secrets, cluster.home) as watch:
        cluster.setup("apply", "--only", "3", folder=folder)
    again = cluster.document("apply", "--only", "2", "--only", "3", "--only", "6", folder=folder)
    yield Obtained(folder, pids, again, watch, secrets)
    if operator.exec(cluster.nodes[0], "test -e /etc/bzzz/acme/acme.sh", check=False).returncode == 0:
        cluster.setup("apply", "--only", "2", "--only", "3")


@pytest.mark.requirement("2.3.3")
def test_clients_are_shown_what_the_authority_has_issued(cluster: Tools, operator: Operator, obtained: Obtained) -> None:
    for node in cluster.nodes:
        for port in PORTS:
            leaf = wait_for(f"certificate on {node}:{port}", lambda node=node, port=port: _shown(operator, node, port), 10)
            names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            assert names.get_values_for_type(x509.DNSName) == [operator.names[node]]
        assert operator.main_pid(node) == obtained.pids[node]
        key = cluster.host(node).file("/etc/bzzz/tls/service.key").linked_to
        assert operator.exec(node, f"stat -c '%a %U %G' {key}").stdout == "640 root bzzz-tls\n"
        for path in ("/var/lib/bzzz/acme", "/etc/bzzz/acme/certbot.ini"):
            assert operator.exec(node, f"stat -c %U:%a {path}").stdout in ("root:700\n", "root:600\n")


@pytest.mark.requirement("2.3.3", part="a second run changes nothing, and every check finds it right")
def test_a_second_run_changes_nothing_and_every_check_holds(obtained: Obtained) -> None:
    assert obtained.again["changes"] == []
    assert {check["status"] for check in obtained.again["checks"]} <= {"pass", "skip"}
    held = {check["id"] for check in obtained.again["checks"] if check["status"] == "pass"}
    assert {"service-certificate", "service-certificate-days", "acme-timer", "service-live", "service-events", "service-mcp"} <= held


@pytest.mark.requirement("2.3.3", "F3", part="the keys that prove and bind stay unseen")
def test_keys_are_nowhere_else(cluster: Tools, obtained: Obtained) -> None:
    assert obtained.watch.programs and obtained.watch.found == set()
    assert not [name for name, text in obtained.secrets.items() if text in json.dumps(obtained.again)]
    assert leaks.in_files([cluster.home], obtained.secrets) == set()


def _shown(operator: Operator, node: str, port: int) -> x509.Certificate | None:
    try:
        return operator.shown(node, port)
    except OSError:
        return None


def near_its_end(operator: Operator, node: str) -> Issued:
    """Put in place of what a node shows one that has three days left: so it would be after months."""
    key = load_pem_private_key(operator.exec(node, f"cat {SHOWN}/privkey.pem").stdout.encode(), None)
    old = issue(DOMAIN, issue("Earlier"), operator.names[node], begins=-87, ends=3, key=key)
    operator.cluster.lab.exec(node, ["sh", "-c", f"cat >{SHOWN}/fullchain.pem"], stdin=old.pem)
    return old


@pytest.mark.requirement("2.3.3")
def test_the_timers_unit_renews_and_services_show_it_without_a_restart(cluster: Tools, operator: Operator, obtained: Obtained) -> None:
    before = {node: operator.shown(node) for node in cluster.nodes}
    for node in cluster.nodes:
        # The timer starts it twice a day, and mostly there is nothing to renew.
        assert "bzzz-acme.service" in operator.exec(node, "systemctl list-timers bzzz-acme.timer").stdout
        operator.exec(node, "systemctl start bzzz-acme.service")
        assert operator.serial(node) == before[node].serial_number
    for node in cluster.nodes[:2]:
        near_its_end(operator, node)
        operator.exec(node, "systemctl start bzzz-acme.service")
        wait_for(f"renewed certificate on {node}", lambda node=node: operator.serial(node) not in (None, before[node].serial_number), 10)
        shown = operator.shown(node)
        assert shown.not_valid_after_utc > datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=60)
        assert operator.exec(node, "ls -d /etc/bzzz/tls/.acme.* | wc -l").stdout.strip() == "1"
        assert operator.main_pid(node) == obtained.pids[node]


@pytest.mark.requirement("2.3.3", part="a renewal that fails leaves what works, and is told")
def test_a_renewal_that_fails_leaves_what_works_and_is_told(cluster: Tools, operator: Operator, obtained: Obtained) -> None:
    node = cluster.nodes[-1]
    shown = operator.serial(node)
    old = near_its_end(operator, node)
    operator.authority.stop()
    assert operator.exec(node, "systemctl start bzzz-acme.service", check=False).returncode != 0
    assert operator.exec(node, "systemctl is-failed bzzz-acme.service").stdout == "failed\n"
    assert "Connection refused" in operator.exec(node, "journalctl -u bzzz-acme -n 20 -o cat").stdout
    assert operator.serial(node) == shown
    assert operator.exec(node, f"cat {SHOWN}/fullchain.pem").stdout == old.pem
    # Seen before the certificate ends, and mended by what the check says once the authority is back.
    told = cluster.document("verify", folder=obtained.folder, code=None)
    (warned,) = (check for check in told["checks"] if check["id"] == "service-certificate-days" and check["node"] == node)
    assert warned["status"] == "warn" and 2 < warned["data"]["days_left"] < 3.1 and "systemctl start bzzz-acme" in warned["remedy"]
    operator.authority.start()
    operator.exec(node, "systemctl start bzzz-acme.service")
    wait_for(f"renewed certificate on {node}", lambda: operator.serial(node) not in (None, shown), 10)


@pytest.mark.requirement("2.3.3", part="back to the cluster's own, and nothing is left")
def test_back_to_the_clusters_own(cluster: Tools, operator: Operator, obtained: Obtained) -> None:
    assert "dport 80 accept" in operator.exec(cluster.nodes[0], "nft list table inet bzzz").stdout
    cluster.setup("apply", "--only", "2", "--only", "3")
    paths = "/etc/bzzz/acme/* /etc/bzzz/tls/*acme* /etc/bzzz/tls/.acme.* /etc/systemd/system/*acme* /var/lib/bzzz/acme/live"
    for node in cluster.nodes:
        assert operator.exec(node, f"ls -d {paths} 2>/dev/null", check=False).stdout == ""
        assert operator.exec(node, "readlink /etc/bzzz/tls/service.key").stdout == "node.key\n"
        assert operator.exec(node, "nft list table inet bzzz | grep -c 'dport 80 accept'", check=False).stdout == "0\n"
        assert operator.main_pid(node) == obtained.pids[node]
    assert cluster.document("apply", "--only", "3")["changes"] == []
