# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Machines are found by what really answers: avahi on one node, dnsmasq on another, and sshd on the third, which announces nothing.

All that is sent stays on the lab's own network: mDNS is bound to the admin host's address there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pexpect
import pytest
import yaml
from conftest import BIN, KEPT, Tools

from bzzz_setup.declaration import Declaration
from bzzz_setup.lab import USER

AVAHI, SILENT, DNS = "bzzz-node1", "bzzz-node2", "bzzz-node3"
PACKAGES = {AVAHI: "avahi-daemon", DNS: "dnsmasq-base"}
INSTALL = """
export DEBIAN_FRONTEND=noninteractive
dpkg -s {0} >/dev/null 2>&1 || {{ apt-get -qq update && apt-get -qq install -y --no-install-recommends {0}; }}
"""
ANNOUNCE = """
set -e
cat > /etc/avahi/services/test.service <<'XML'
<?xml version="1.0" standalone="no"?>
<!DOCTYPE service-group SYSTEM "avahi-service.dtd">
<service-group>
  <name replace-wildcards="yes">%h</name>
  <service><type>_bzzz._tcp</type><port>8080</port></service>
  <service><type>_ssh._tcp</type><port>22</port></service>
</service-group>
XML
systemctl restart avahi-daemon
"""


@dataclass
class Site:
    """The lab's addresses, and discovery on it."""

    bzzz: Tools
    addresses: dict[str, str]
    work: Path

    @property
    def first(self) -> str:
        """A network of 16 addresses that holds all nodes."""
        return str(ip_network(f"{self.addresses[AVAHI]}/28", strict=False))

    @property
    def here(self) -> str:
        """The admin host's address on the lab's network."""
        return str(ip_network(f"{self.addresses[AVAHI]}/24", strict=False)[1])

    @property
    def nowhere(self) -> str:
        """An address at which there is nobody."""
        return str(ip_network(f"{self.addresses[AVAHI]}/24", strict=False)[250])

    def inventory(self, *sources: dict[str, Any], code: int = 0) -> tuple[dict[str, Any], str]:
        """What `ansible-inventory` makes of these discovery.yml together, and its complaints. No other file may come about."""
        folder = self.work / f"{time.monotonic_ns()}"
        folder.mkdir()
        files = [folder / f"{number}.discovery.yml" for number in range(len(sources))]
        for file, options in zip(files, sources, strict=True):
            file.write_text(yaml.safe_dump({"plugin": "bzzz.cluster.discovery", **options}))
        done = subprocess.run(
            [BIN / "ansible-inventory", *(word for file in files for word in ("-i", file)), "--list", "--export"],
            env=self.bzzz.environment(ANSIBLE_INVENTORY_UNPARSED_FAILED="True", HOME=str(self.work)),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert bool(done.returncode) == bool(code), done.stdout + done.stderr
        assert sorted(folder.iterdir()) == files and not (self.work / ".ssh").exists()
        return json.loads(done.stdout or "{}"), " ".join(done.stderr.split())


def plain(value: Any) -> Any:
    """Ansible marks text that it won't take for templates."""
    if isinstance(value, dict):
        return value["__ansible_unsafe"] if "__ansible_unsafe" in value else {name: plain(one) for name, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def site(bzzz: Tools, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    lab = bzzz.lab
    site = Site(bzzz, {node.name: node.address for node in lab.nodes}, tmp_path_factory.mktemp("discovery"))
    records = f"""
no-resolv
no-hosts
local=/corp.test/
srv-host=_ssh._tcp.lab.corp.test,gpu1.lab.corp.test,22
srv-host=_ssh._tcp.lab.corp.test,gpu2.lab.corp.test,2222
srv-host=_ssh._tcp.dead.corp.test,gone.corp.test,22
host-record=gpu1.lab.corp.test,{site.addresses[AVAHI]}
host-record=gpu2.lab.corp.test,{site.addresses[SILENT]},fd00::12
host-record=plain.corp.test,{site.addresses[SILENT]}
host-record=plain.corp.test,{site.addresses[DNS]}
txt-record=empty.corp.test,nothing
"""
    with ThreadPoolExecutor() as pool:
        installed = [pool.submit(lab.exec, node, ["sh", "-c", INSTALL.format(package)]) for node, package in PACKAGES.items()]
        for one in installed:
            one.result()
    lab.exec(AVAHI, ["sh", "-c", ANNOUNCE])
    lab.exec(DNS, ["sh", "-c", "cat > /etc/test-dns.conf"], stdin=records)
    run = ["systemd-run", "--quiet", "--collect", "--unit=test-dns", "-p", "Type=forking", "dnsmasq", "--conf-file=/etc/test-dns.conf"]
    lab.exec(DNS, ["systemctl", "stop", "test-dns"], check=False)
    lab.exec(DNS, run)
    # Of a lab that is set up already. One looks for machines before that, as a rule.
    for node in PACKAGES:
        lab.exec(node, ["nft", "insert", "rule", "inet", "bzzz", "input", "meta", "l4proto", "udp", "accept"], check=False)
    yield site
    # Other tests want the nodes as they were.
    lab.exec(DNS, ["systemctl", "stop", "test-dns"])
    lab.exec(AVAHI, ["systemctl", "disable", "--quiet", "--now", "avahi-daemon.service", "avahi-daemon.socket"])
    for node, package in PACKAGES.items():
        lab.exec(node, ["nft", "-f", "/etc/bzzz/firewall.nft"], check=False)
        if not KEPT:
            lab.exec(node, ["dpkg", "--purge", package])
            lab.exec(node, ["rm", "-rf", "/etc/avahi", "/etc/test-dns.conf"])


@pytest.mark.requirement("1.1.5", "1.1.8")
def test_machines_that_announce_themselves_and_machines_that_do_not(site: Site) -> None:
    ways = {"mdns": True, "mdns_interfaces": [site.here], "subnets": [site.first]}
    found, said = site.inventory({**ways, "coordinators": [AVAHI]})
    silent = {f"node-{site.addresses[node].replace('.', '-')}": node for node in (SILENT, DNS)}
    hosts = plain(found["_meta"]["hostvars"])
    assert set(hosts) == {AVAHI, *silent} == set(found["bzzz"]["hosts"]) == set(found["workers"]["hosts"])
    assert found["coordinators"]["hosts"] == [AVAHI]
    assert hosts[AVAHI] == {"ansible_host": site.addresses[AVAHI], "ansible_port": 22, "bzzz_discovered_by": ["mdns", "sweep"]}
    for name, node in silent.items():
        assert hosts[name] == {"ansible_host": site.addresses[node], "ansible_port": 22, "bzzz_discovered_by": ["sweep"]}
    assert "WARNING" not in said


@pytest.mark.requirement("1.1.7")
def test_machines_that_dns_names(site: Site) -> None:
    """SRV records first, with their ports; then a domain's own addresses."""
    found, _ = site.inventory(
        *({"domain": domain, "name_servers": [site.addresses[DNS]]} for domain in ("lab.corp.test", "plain.corp.test"))
    )
    hosts = plain(found["_meta"]["hostvars"])
    assert hosts.pop("gpu1") == {"ansible_host": site.addresses[AVAHI], "ansible_port": 22, "bzzz_discovered_by": ["dns"]}
    assert hosts.pop("gpu2") == {"ansible_host": site.addresses[SILENT], "ansible_port": 2222, "bzzz_discovered_by": ["dns"]}
    assert {host["ansible_host"] for host in hosts.values()} == {site.addresses[SILENT], site.addresses[DNS]}


@pytest.mark.requirement("1.1.7", part="what does not answer is explained")
def test_dns_that_does_not_help_is_explained(site: Site) -> None:
    servers = [site.addresses[DNS]]
    cases = {
        ("gone.corp.test", servers[0]): 'domain = "gone.corp.test": There is no such domain',
        ("empty.corp.test", servers[0]): "neither SRV records of _bzzz._tcp.empty.corp.test",
        ("dead.corp.test", servers[0]): "name gone.corp.test, which has no address",
        ("elsewhere.test", servers[0]): f"The DNS server ({servers[0]}) cannot answer",
        ("lab.corp.test", site.nowhere): f"The DNS server ({site.nowhere}) gave no answer within 1 s",
    }

    common = {"probe_timeout_seconds": 1, "nodes": ["192.0.2.1"]}
    found, said = site.inventory(*({"domain": domain, "name_servers": [server], **common} for domain, server in cases), code=1)
    assert not found.get("_meta", {}).get("hostvars")
    for expected in cases.values():
        assert expected in said
        assert "Remedy: " in said.partition(expected)[2][:400]


@pytest.mark.requirement("1.1.5", part="bounded in time and size")
def test_a_network_too_large_is_refused_before_anything_is_sent(site: Site) -> None:
    large = str(ip_network(f"{site.addresses[AVAHI]}/16", strict=False))
    _, said = site.inventory({"subnets": [large]}, code=1)
    assert f'subnets = "{large}": These are 65536 addresses' in said and "large_sweep" in said


@pytest.mark.requirement("1.1.5", "1.1.6", "1.1.7", part="init")
def test_init_finds_machines_and_writes_an_ordinary_inventory(site: Site, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    ways = ["--discover", "--interface", site.here, "--subnet", site.first, "--domain", "lab.corp.test"]
    ways += ["--name-server", site.addresses[DNS], "--nodes", site.addresses[DNS]]
    login = ["--user", USER, "--ssh-key", str(site.bzzz.lab.key), "--accept-host-keys"]
    made = site.bzzz.document("init", *ways, *login, "--exclude", site.addresses[SILENT], folder=folder)
    assert made["nodes"] == {"node1": site.addresses[DNS], "gpu1": site.addresses[AVAHI]}
    assert made["discovered_by"] == {"node1": ["list", "sweep"], "gpu1": ["dns", "mdns", "sweep"]}
    known = (folder / "known_hosts.txt").read_text()
    assert {line.split()[0] for line in known.splitlines()} == set(made["nodes"].values())
    asked = subprocess.run(
        [BIN / "ansible", "-i", folder / "hosts.yml", "bzzz", "-m", "ansible.builtin.raw", "-a", "hostname"],
        env=site.bzzz.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert asked.returncode == 0 and AVAHI in asked.stdout and DNS in asked.stdout, asked.stdout + asked.stderr


@pytest.mark.requirement("1.1.5", part="init asks which of the machines found")
def test_init_lets_the_operator_choose(site: Site, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    command = ["-m", "bzzz_setup", "init", "-i", str(folder), "--subnet", site.first, "--user", USER]
    child = pexpect.spawn(
        sys.executable, command, env={**os.environ, "TERM": "xterm", "COLUMNS": "120"}, encoding="utf-8", timeout=60, dimensions=(40, 120)
    )
    for address in sorted(site.addresses.values()):
        child.expect_exact(address)
    child.expect_exact("Which of them")
    child.sendline(f"node1, {site.addresses[DNS]}")
    child.expect("own host keys")
    child.sendline("y")
    rest = child.read()
    child.close()
    assert child.exitstatus == 0, rest
    written = Declaration.read(folder).hosts["bzzz"]["hosts"]
    assert [host["ansible_host"] for host in written.values()] == [site.addresses[AVAHI], site.addresses[DNS]]
