# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A node whose only way out is a company's proxy: squid with a password, and behind it a mirror that a private authority vouches for.

The mirror listens on the loopback of the proxy's machine, so that nobody reaches it in another way.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import leaks
import pytest
from conftest import BIN, KEPT, Tools

from bzzz_setup.declaration import HOSTS, KNOWN_HOSTS, MAIN, dump, load, write
from bzzz_setup.events import Refusal
from bzzz_setup.lab import Lab
from bzzz_setup.machine import prepare

SITE, NODE = "bzzz-node1", "bzzz-node2"
USER, PASSWORD = "builder", "c4nary@pass:word%41#"
# What step 2 installs, and what a machine without ca-certificates needs to trust anybody.
PACKAGES = "nftables ca-certificates"
MAKE_SITE = f"""
set -eu
export DEBIAN_FRONTEND=noninteractive
[ -e /srv/mirror/key.asc ] && exit 0
apt-get -q update
mkdir -p /srv/mirror/pool/partial /srv/mirror/dists/bookworm/main/binary-$(dpkg --print-architecture)
cd /srv/mirror
apt-get -qy install --download-only --reinstall --no-install-recommends -o Dir::Cache::archives=$PWD/pool {PACKAGES}
rm -r pool/partial pool/lock
apt-get -qy install --no-install-recommends squid nginx-light apt-utils gnupg openssl
apt-ftparchive packages pool >dists/bookworm/main/binary-$(dpkg --print-architecture)/Packages
apt-ftparchive -o APT::FTPArchive::Release::Suite=bookworm -o APT::FTPArchive::Release::Components=main \\
  -o APT::FTPArchive::Release::Architectures=$(dpkg --print-architecture) release dists/bookworm >Release
mv Release dists/bookworm/
gpg --batch --quiet --passphrase '' --quick-gen-key mirror@corp.test ed25519 sign never
gpg --batch --quiet --clearsign -o dists/bookworm/InRelease dists/bookworm/Release
new="openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
$new -x509 -days 30000 -subj '/CN=Company CA' -keyout /root/ca.key -out ca.pem -addext keyUsage=critical,keyCertSign
$new -subj /CN=mirror.corp.test -keyout /root/mirror.key -out /root/mirror.csr
printf 'subjectAltName=DNS:mirror.corp.test\\n' >/root/san
openssl x509 -req -in /root/mirror.csr -CA ca.pem -CAkey /root/ca.key -days 30000 -extfile /root/san -out /root/mirror.crt
cat >/etc/nginx/sites-enabled/default <<'NGINX'
server {{
  listen 127.0.0.1:8443 ssl;
  ssl_certificate /root/mirror.crt;
  ssl_certificate_key /root/mirror.key;
  location /debian/ {{ alias /srv/mirror/; }}
}}
NGINX
echo '127.0.0.1 mirror.corp.test' >>/etc/hosts
cat >/etc/squid/squid.conf <<'SQUID'
http_port 3128
auth_param basic program /usr/lib/squid/basic_ncsa_auth /etc/squid/passwords
acl known proxy_auth REQUIRED
http_access allow known
http_access deny all
shutdown_lifetime 1 second
SQUID
printf '%s:%s\\n' {USER} "$(printf '%s' '{PASSWORD}' | openssl passwd -apr1 -stdin)" >/etc/squid/passwords
systemctl restart nginx squid
gpg --armor --export >key.asc
"""
# Everything that decides how apt downloads and whom the machine trusts, file by file.
LOOK = """
import hashlib, json, os
found = {}
for root in ("/etc/apt", "/usr/local/share/ca-certificates", "/etc/ssl/certs", "/etc/bzzz/try-downloads.sh"):
    for folder, _, names in os.walk(root) if os.path.isdir(root) else [(os.path.dirname(root), [], [os.path.basename(root)])]:
        for path in (os.path.join(folder, name) for name in names):
            if os.path.lexists(path):
                content = open(path, "rb").read() if os.path.exists(path) else b""
                found[path] = [oct(os.lstat(path).st_mode), os.lstat(path).st_uid, hashlib.sha256(content).hexdigest()]
print(json.dumps(found))
"""

pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def site() -> Iterator[Lab]:
    """A lab of its own: the proxy's machine, and a fresh node that reaches nothing beyond the lab."""
    lab = Lab(f"{KEPT}-way" if KEPT else "way")
    try:
        prepare(print)
        if not KEPT:
            lab.down()
        lab.up(2)
    except Refusal as refusal:
        pytest.skip(f"no lab: {refusal}")
    lab.exec(SITE, ["sh", "-c", MAKE_SITE])
    lab.exec(NODE, ["ip", "route", "del", "default"], check=False)
    yield lab
    if not KEPT:
        lab.down()


class Company:
    """The product on the node behind the proxy."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.tools = Tools(lab, folder)
        self.folder = folder / "inventory"
        hosts = load((lab.inventory / HOSTS).read_text())
        address = next(node.address for node in lab.nodes if node.name == NODE)
        hosts["bzzz"]["children"] = {"coordinators": {"hosts": {NODE: {"ansible_host": address}}}}
        write(self.folder / HOSTS, dump(hosts))
        write(self.folder / KNOWN_HOSTS, (lab.inventory / KNOWN_HOSTS).read_text())
        for name in ("ca.pem", "key.asc"):
            write(self.folder / name, lab.exec(SITE, ["cat", f"/srv/mirror/{name}"]).stdout)

    def declare(self, *, password: str | None = PASSWORD, **options: Any) -> None:
        write(self.folder / MAIN, dump({"declaration_cluster_name": self.lab.id, **options}))
        write(
            self.folder / "group_vars/bzzz/vault.yml",
            dump({"downloads_proxy_credentials": f"{USER}:{password}"} if password else {}),
            0o600,
        )

    def apply(self, code: int = 0) -> dict[str, Any]:
        return self.tools.document("apply", "--only", "2", folder=self.folder, code=code)

    def look(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.lab.exec(NODE, ["python3", "-"], stdin=LOOK).stdout)
        return found

    def probe(self, **args: Any) -> str:
        """What a probe of kind egress on the node sees."""
        entry = {"id": "outside", "title": "outside", "remedy": "<remedy>", "egress": args}
        module = ["-m", "bzzz.cluster.probe", "-a", json.dumps({"probes": [entry], "fail": False}), "--become"]
        done = subprocess.run(
            [BIN / "ansible", "-i", self.folder, NODE, *module],
            env=self.tools.environment(ANSIBLE_STDOUT_CALLBACK="ansible.builtin.minimal"),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        (check,) = json.loads(done.stdout.partition("=>")[2])["checks"]
        return str(check["seen"])

    def count(self, playbook: str) -> dict[str, int]:
        """Modules and questions that a playbook sends to the node."""
        counted = self.folder.parent / "count"
        counted.write_text("")
        callbacks = str(Path(__file__).parents[1] / "bench/callback")
        more = {"ANSIBLE_CALLBACK_PLUGINS": callbacks, "ANSIBLE_CALLBACKS_ENABLED": "bzzz_count", "BZZZ_COUNT_FILE": str(counted)}
        self.tools.playbook(playbook, folder=self.folder, **more)
        kinds = [json.loads(line)["kind"] for line in counted.read_text().splitlines()]
        return {kind: kinds.count(kind) for kind in ("modules", "questions")}


@pytest.fixture(scope="module")
def company(site: Lab, tmp_path_factory: pytest.TempPathFactory) -> Company:
    return Company(site, tmp_path_factory.mktemp("company"))


@pytest.fixture(scope="module")
def way(site: Lab) -> dict[str, Any]:
    """The options that tell of the site's way."""
    return {
        "downloads_http_proxy": f"http://{SITE}:3128",
        "downloads_ca_files": ["ca.pem"],
        "downloads_apt_mirror": "https://mirror.corp.test:8443/debian",
        "downloads_apt_security_mirror": "",
        "downloads_apt_suites": ["bookworm"],
        "downloads_apt_key_file": "key.asc",
    }


@pytest.fixture(scope="module")
def before(company: Company) -> dict[str, Any]:
    """How the node was before anything was declared."""
    company.declare(password=None)
    if company.lab.exec(NODE, ["test", "-e", "/var/lib/bzzz/sets/downloads"], check=False).returncode == 0:
        company.apply()  # what an earlier run of these tests left
        company.lab.exec(NODE, ["rm", "-rf", "/var/lib/bzzz/sets/downloads"])
        company.lab.exec(NODE, ["dpkg", "--purge", "nftables"])
    return company.look()


FAILURES = {
    "a wrong password": ("", "wr0ng-canary", " 407 ", "downloads_proxy_credentials"),
    "a dead proxy": ("systemctl stop squid", PASSWORD, "Could not connect to bzzz-node1:3128", "downloads_http_proxy"),
}


@pytest.mark.requirement("L7", part="downloads that do not get through")
@pytest.mark.parametrize("case", FAILURES)
def test_a_way_that_does_not_work_is_told_plainly(company: Company, before: Any, way: dict[str, Any], case: str) -> None:
    damage, password, seen, option = FAILURES[case]
    company.declare(password=password, **way)
    if damage:
        company.lab.exec(SITE, ["sh", "-c", damage])
    try:
        told = company.apply(code=3)
    finally:
        company.lab.exec(SITE, ["systemctl", "start", "squid"])
    (failure,) = told["failures"]
    assert failure["node"] == NODE and failure["role"] == "downloads"
    assert seen in failure["message"] and option in failure["message"]
    assert f"bzzz-setup apply -i {company.folder} --only 2" in failure["message"]
    assert password not in json.dumps(told)
    assert company.lab.exec(NODE, ["dpkg-query", "-W", "nftables"], check=False).returncode, "there is another way out"


@pytest.mark.requirement("T4", "F2", part="downloads by proxy, password, private certificate and mirror")
def test_packages_come_by_the_declared_way_only(company: Company, before: Any, way: dict[str, Any], tmp_path: Path) -> None:
    company.declare(**way)
    with leaks.Watch({"password": PASSWORD}, tmp_path) as watch:
        told = company.apply()
    checks = {check["id"]: check["status"] for check in told["checks"] if check["role"] == "downloads"}
    assert checks == dict.fromkeys(("download-way", "download-proxy", "download-certificates"), "pass")
    assert any("ansible" in program for program in watch.programs) and watch.found == set()
    assert "https://mirror.corp.test:8443/debian bookworm/main" in company.lab.exec(NODE, ["apt-cache", "policy", "nftables"]).stdout
    assert company.lab.exec(NODE, ["nft", "--version"]).stdout
    # What is needed outside is tried the same way.
    outside = company.probe(sources=True, targets=["https://mirror.corp.test:8443/"])
    by_proxy = f"by the proxy {SITE}:3128"
    assert outside == f"https://mirror.corp.test:8443/debian answers {by_proxy}; https://mirror.corp.test:8443/ answers {by_proxy}"
    log = company.lab.exec(SITE, ["cat", "/var/log/squid/access.log"]).stdout
    assert f"CONNECT mirror.corp.test:8443 {USER}" in log
    places = leaks.on_node(company.lab, NODE, {"password": PASSWORD})["password"]
    own = "/var/lib/bzzz/sets/downloads/generations/"
    assert {place for place in places if not place.startswith(own)} == {"/etc/apt/auth.conf.d/bzzz-proxy.conf"}
    # A program that knows nothing of us trusts the company's authority, and so does any user's apt.
    assert company.lab.exec(NODE, ["sh", "-c", "grep -c . /etc/ssl/certs/bzzz-*.pem"]).returncode == 0
    assert company.lab.exec(NODE, ["su", "nobody", "-s", "/bin/sh", "-c", "apt-cache policy >/dev/null && apt-config dump"]).stdout


@pytest.mark.requirement("L2", part="second run changes nothing, behind a proxy")
def test_a_second_run_changes_nothing_and_damage_is_mended(company: Company, before: Any, way: dict[str, Any]) -> None:
    company.declare(**way)
    company.apply()
    assert company.apply()["changes"] == []
    landed = company.look()
    company.lab.exec(NODE, ["sh", "-c", ": >/etc/ssl/certs/ca-certificates.crt"])
    assert "the certificate of mirror.corp.test is not trusted" in company.probe(sources=True)
    company.lab.exec(NODE, ["sed", "-i", "$d", "/etc/apt/auth.conf.d/bzzz-proxy.conf"])
    assert company.probe(sources=True).endswith(f"the proxy {SITE}:3128 wants another user or password (407)")
    assert {change["name"] for change in company.apply()["changes"]} == {"/etc/apt/auth.conf.d/bzzz-proxy.conf", "trust"}
    assert company.look() == landed


@pytest.mark.requirement("T4", part="what a mirror took the place of comes back")
def test_without_the_options_all_is_as_before(company: Company, before: dict[str, Any], way: dict[str, Any]) -> None:
    company.declare(**way)
    company.apply()
    assert company.look() != before
    company.declare(password=None)
    assert company.apply()["changes"]
    assert company.look() == before
    assert company.apply()["changes"] == []


def test_nothing_declared_costs_nothing(company: Company, before: Any) -> None:
    """A node that never had such a set is not even asked about it."""
    company.declare(password=None)
    company.lab.exec(NODE, ["rm", "-rf", "/var/lib/bzzz/sets/downloads"])
    idle = company.count("bzzz.cluster.step_2_network")
    company.declare(password=None, downloads_ca_files=["ca.pem"])
    company.apply()
    assert company.count("bzzz.cluster.step_2_network") == {**idle, "questions": idle["questions"] + 1}
    company.declare(password=None)
    company.apply()


@pytest.mark.requirement("T4", part="certificates for a machine that trusts nobody yet")
def test_a_machine_without_ca_certificates_gets_them_this_way(company: Company, way: dict[str, Any]) -> None:
    company.lab.exec(NODE, ["dpkg", "--purge", "--force-depends", "ca-certificates"])
    company.declare(**way)
    told = company.apply()
    assert {check["status"] for check in told["checks"] if check["role"] == "downloads"} == {"pass"}
    assert company.lab.exec(NODE, ["dpkg-query", "-W", "-f", "${db:Status-Status}", "ca-certificates"]).stdout == "installed"
    company.declare(password=None)
    company.apply()
