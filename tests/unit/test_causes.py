# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What programs say when they fail, as they say it, and what is made of it."""

from __future__ import annotations

import pytest
from ansible_collections.bzzz.cluster.plugins.module_utils.node.causes import CAUSES, cause, explained
from hypothesis import given
from hypothesis import strategies as st

from bzzz_setup.events import TaskFinished
from bzzz_setup.report import Report

ACME = "certificate: 'sh /etc/bzzz/acme/acme.sh' failed with exit code 1: "
SAID = {
    f"{ACME}An unexpected error occurred: requests.exceptions.SSLError: HTTPSConnectionPool(host='ca.example.com', port=443): Max retries "
    "exceeded (Caused by SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed')))": (
        "does not trust",
        "tls_acme_ca_file",
    ),
    f"{ACME}An unexpected error occurred: ValueError: Requesting ca.example.com/dir: Connection refused": (
        "does not answer",
        "ca.example.com/",
    ),
    f"{ACME}HTTPSConnectionPool(host='ca.example.com', port=443): Max retries exceeded (ConnectTimeoutError)": (
        "does not answer",
        "ca.example.com/",
    ),
    f"{ACME}AttributeError: can't set attribute acme.messages.Error: urn:ietf:params:acme:error:rateLimited :: There were too many "
    "requests of a given type :: too many certificates (5) already issued for this exact set of domains": ("for a while", "staging"),
    f"{ACME}Unable to register an account with ACME server. Server requires external account binding.": ("outside", "tls_acme_eab_id"),
    f"{ACME}Unable to register an account. the field 'kid' references a key that is not known": ("outside", "tls_acme_eab_key"),
    f"{ACME}problems: Domain: a.example.com Type: connection Detail: timeout": ("could not reach", "curl http://a.example.com/"),
    f"{ACME}problems: Domain: a.example.com Type: dns Detail: NXDOMAIN": ("could not reach", "Look up a.example.com"),
    f"{ACME}problems: Domain: a.example.com Type: unauthorized Detail: Invalid response": ("another answer", "Have a.example.com lead"),
    f"{ACME}problems: Domain: a.example.com Type: caa Detail: CAA record": ("CAA record", "dig CAA a.example.com"),
    f"{ACME}Could not bind TCP port 80 because it is already in use": ("Another program", "sport = :80"),
    f"{ACME}Received response from server: NOTAUTH": ("updates of the domain", "tls_acme_dns_key_name"),
    "Host key verification failed.": ("pinned", "ssh-keygen -lf"),
    "admin@10.0.0.11: Permission denied (publickey,password).": ("lets this user", "ssh -i KEY admin@10.0.0.11"),
    "ssh: connect to host 10.0.0.11 port 22: Connection refused": ("no SSH server", "systemctl enable --now ssh"),
    "ssh: connect to host gpu1 port 22: No route to host": ("is down", "ping gpu1"),
    "ssh: connect to host gpu1 port 22: Connection timed out": ("is down", "ping gpu1"),
    "Connection timed out during banner exchange": ("is down", "ping ADDRESS"),
    "ssh: Could not resolve hostname gpu9: Name or service not known": ("does not know the name", "getent hosts gpu9"),
    "Task failed: Missing sudo password": ("password for sudo", "ansible-vault edit"),
    "sudo: a password is required": ("password for sudo", "visudo -c"),
    "admin is not in the sudoers file.": ("no right", "'admin ALL="),
    "Sorry, user admin is not allowed to execute '/bin/sh' as root on gpu1.": ("no right", "/etc/sudoers.d/admin "),
    "/bin/sh: 1: sudo: not found": ("no sudo", "apt-get install sudo"),
    "OSError: [Errno 28] No space left on device": ("full", "df -h"),
    "E: You don't have enough free space in /var/cache/apt/archives/.": ("full", "df -h"),
    "[Errno 30] Read-only file system: '/etc/bzzz'": ("read-only", "findmnt -O ro"),
    "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 714 (unattended-upgr)": ("Another program", "fuser -v"),
    "E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), is another process using it?": (
        "Another program",
        "fuser -v",
    ),
    "E: Could not get lock /var/lib/dpkg/lock-frontend - open (11: Resource temporarily unavailable)": ("Another program", "fuser -v"),
    "Err:1 http://deb.debian.org/debian bookworm InRelease / Temporary failure resolving 'deb.debian.org'": (
        "cannot look up names",
        "getent hosts deb.debian.org;",
    ),
    "E: Release file for http://deb.debian.org/debian/dists/bookworm-updates/InRelease is not valid yet (invalid for another 2d).": (
        "clock",
        "timedatectl",
    ),
    "Certificate verification failed: The certificate is NOT trusted.": ("not trusted", "CA certificate"),
    "W: Failed to fetch http://192.0.2.1/debian/dists/bookworm/InRelease  Could not connect to 192.0.2.1:80": (
        "mirror does not answer",
        "curl -I http://192.0.2.1/",
    ),
    "E: Unable to locate package nftables": ("has this package", "apt-cache policy nftables"),
    "[ERROR]: Attempting to decrypt but no vault secrets found.": ("vault file cannot be opened", "vault-key"),
    "[ERROR]: Specified inventory, host pattern and/or --limit leaves us with no hosts to target.": (
        "None of the inventory's nodes",
        "ansible-inventory",
    ),
    "fork: Cannot allocate memory": ("ran out of memory", "free -m"),
}


@pytest.mark.requirement("L7", part="causes of failures")
@pytest.mark.parametrize("said", SAID)
def test_what_programs_say_has_a_cause_and_a_command(said: str) -> None:
    why, remedy = SAID[said]
    found = cause(said)
    assert found and why in found.why and remedy in found.remedy
    assert "{0}" not in found.remedy
    text = explained(said, "do something else")
    assert text.startswith(said.rstrip(".")) and text.count("Remedy: ") == 1 and "something else" not in text
    report = Report()
    report.add(TaskFinished(step=2, node="gpu1", role="firewall", task="Rules", status="failed", message=text))
    (failure,) = report.failures
    assert failure["remedy"] == found.remedy and found.why in failure["message"] and "Remedy" not in failure["message"]
    report.add(TaskFinished(step=2, node="gpu2", role="firewall", task="Rules", status="unreachable", message=said))
    assert report.failures[1]["remedy"] == found.remedy and found.why in report.failures[1]["message"]


def test_every_known_cause_is_proven() -> None:
    assert {found.why for said in SAID if (found := cause(said))} == {why for _pattern, why, _remedy in CAUSES}


@given(st.text())
def test_anything_else_keeps_its_own_remedy(said: str) -> None:
    text = explained(said, "look at it")
    assert text.endswith("Remedy: look at it") or cause(said)
