# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""SSH keys that are there already, given, replaced; and what an outside auditor says of sshd."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import leaks
import pytest
from conftest import BIN, Tools
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from test_40_security import encrypt, login
from trouble import eventually

from bzzz_setup.declaration import HOSTS, KNOWN_HOSTS, dump, load, write
from bzzz_setup.lab import USER

ADMIN = "bzzz-admin"
PASSPHRASE = "canary-Passphrase-5d02"


def audit(cluster: Tools, node: str) -> dict[str, set[str]]:
    """What ssh-audit warns of, and fails, of a node's sshd: notes with their algorithms."""
    address = next(found.address for found in cluster.lab.nodes if found.name == node)
    # Its test of connection rates takes half a minute, and would be one of the network in between.
    argv = [BIN / "ssh-audit", "--json", "--skip-rate-test", address]
    said = json.loads(subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False).stdout)
    assert all(said[kind] for kind in ("kex", "key", "enc", "mac")), said
    found: dict[str, set[str]] = {"fail": set(), "warn": set()}
    for kind in ("kex", "key", "enc", "mac"):
        for one in said[kind]:
            for severity, notes in found.items():
                notes |= {f"{one['algorithm']}: {note}" for note in one.get("notes", {}).get(severity, [])}
    assert not said["cves"]
    return found


def fingerprint(public: Path) -> str:
    return subprocess.run(["ssh-keygen", "-lf", public], capture_output=True, text=True, check=True).stdout.split()[1]


def askpass(folder: Path) -> Path:
    """A program that gives ssh what the variable ANSWER holds."""
    write(folder / "answer", "#!/bin/sh\necho $ANSWER\n", 0o700)
    return folder / "answer"


@dataclass
class Hardened:
    folder: Path
    own_key: Path
    before: dict[str, dict[str, set[str]]]
    first: dict[str, Any]

    def key(self, cluster: Tools) -> Path:
        return cluster.home / ".config/bzzz" / cluster.lab.id / "id_ed25519"


@pytest.fixture(scope="module")
def hardened(cluster: Tools, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hardened]:
    """A hardened sshd, and a public key that was given as a file."""
    base = tmp_path_factory.mktemp("hardened")
    own = base / "own"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "someone (at work)", "-f", own], check=True)
    folder = cluster.declare(base / "inventory", {"ssh_hardened": True, "ssh_public_keys": [str(own.with_suffix(".pub"))]})
    before = {node: audit(cluster, node) for node in cluster.nodes}
    yield Hardened(folder, own, before, cluster.document("apply", "--only", "3", folder=folder))
    for file in (cluster.home / ".config/bzzz" / cluster.lab.id).iterdir():
        file.unlink()  # the last key has a passphrase, as the vault has a key; the others have neither
    cluster.setup("apply", "--only", "3")


@pytest.mark.requirement("F3")
def test_an_outside_auditor_finds_no_failure(cluster: Tools, hardened: Hardened) -> None:
    assert {check["status"] for check in hardened.first["checks"] if check["id"] == "ssh-hardened"} == {"pass"}
    for node in cluster.nodes:
        assert hardened.before[node]["fail"], "the auditor finds nothing to fail where nothing was done, so it proves nothing"
        after = audit(cluster, node)
        assert after["fail"] == set()
        # Kept for clients that are older than 2022, and for paramiko.
        assert all(re.match(r"curve25519-sha256(@libssh\.org)?: .*post-quantum", note) for note in after["warn"]), after["warn"]
        assert cluster.lab.exec(node, ["/usr/sbin/sshd", "-T"]).stdout.count("permitrootlogin without-password") == 1


@pytest.mark.requirement("2.1.2")
def test_a_public_key_that_was_given_is_authorised_on_each_node(cluster: Tools, hardened: Hardened) -> None:
    for node in cluster.nodes:
        assert login(cluster, node, ADMIN, hardened.own_key, "id -un").stdout == f"{ADMIN}\n"
    assert cluster.document("apply", "--only", "3", folder=hardened.folder)["changes"] == []


@pytest.mark.requirement("2.1.4", part="rotation")
def test_the_clusters_key_is_replaced_when_every_node_has_let_the_new_one_in(cluster: Tools, hardened: Hardened, tmp_path: Path) -> None:
    """A node is down at first; then the run was killed between its files; then it ends."""
    *up, down = cluster.nodes
    key, old = hardened.key(cluster), tmp_path / "old"
    old.write_bytes(key.read_bytes())
    old.chmod(0o600)
    cluster.lab.exec(down, ["systemctl", "stop", "ssh"])
    try:
        half = cluster.document("rotate-key", folder=hardened.folder, code=3)
    finally:
        cluster.lab.exec(down, ["systemctl", "start", "ssh"])
    (told,) = {failure["message"] for failure in half["failures"] if failure["kind"] == "failed"}
    assert f"{down} did not take the new SSH key" in told and "the old one stays" in told
    following = key.with_name("id_ed25519.next")
    assert key.read_bytes() == old.read_bytes()
    eventually("sshd is up again", lambda: login(cluster, down, ADMIN, old, "true").returncode == 0)
    for node in up:
        assert [login(cluster, node, ADMIN, one, "true").returncode for one in (old, following, hardened.own_key)] == [0, 0, 0]
    assert login(cluster, down, ADMIN, following, "true").returncode == 255
    fresh = following.read_bytes()
    key.with_suffix(".pub").unlink()
    following.replace(key)
    assert login(cluster, up[0], ADMIN, key, "true").returncode == 0, "what a killed run leaves does not let in"
    cluster.document("rotate-key", folder=hardened.folder)
    assert key.read_bytes() == fresh and not list(key.parent.glob("*.next*")), "another key was made"
    assert key.stat().st_mode & 0o7777 == 0o600
    for node in cluster.nodes:
        assert [login(cluster, node, ADMIN, one, "true").returncode for one in (old, key, hardened.own_key)] == [255, 0, 0]

    # One with a passphrase, which no process is given as an argument or in its environment.
    encrypt(cluster, hardened.folder, {"ssh_key_passphrase": PASSPHRASE})
    old.write_bytes(fresh)
    with leaks.Watch({"passphrase": PASSPHRASE}, cluster.home, hardened.folder) as watch:
        said = cluster.setup("rotate-key", folder=hardened.folder)
    assert not watch.found and PASSPHRASE not in said.stdout + said.stderr
    assert load_ssh_private_key(key.read_bytes(), PASSPHRASE.encode()).public_key()
    ask = {"SSH_ASKPASS": str(askpass(tmp_path)), "SSH_ASKPASS_REQUIRE": "force", "ANSWER": PASSPHRASE}
    for node in cluster.nodes:
        assert [login(cluster, node, ADMIN, one, "true", **ask).returncode for one in (old, key)] == [255, 0]
    assert cluster.document("apply", "--only", "3", folder=hardened.folder)["changes"] == []


def rename(cluster: Tools, folder: Path) -> None:
    """Give the nodes of a new inventory the names that they have in the cluster; how one logs in stays the new one's."""
    hosts = load((cluster.folder / HOSTS).read_text(encoding="utf-8"))
    del hosts["bzzz"]["vars"]
    write(folder / HOSTS, dump(hosts))


@pytest.fixture
def locked(cluster: Tools, tmp_path: Path) -> Iterator[Path]:
    """A key with a passphrase that the operator may log in with; nothing else of the operator's may."""
    key = tmp_path / "locked"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", PASSPHRASE, "-f", key], check=True)
    file = f"/home/{USER}/.ssh/authorized_keys"
    for node in cluster.nodes:
        cluster.lab.exec(node, ["sh", "-c", f"cp -p {file} {file}.kept; cat >{file}"], stdin=key.with_suffix(".pub").read_text())
    yield key
    for node in cluster.nodes:
        cluster.lab.exec(node, ["mv", f"{file}.kept", file])


@pytest.mark.requirement("2.1.3")
@pytest.mark.requirement("2.1.1", part="passphrase in the vault")
def test_a_key_of_an_agent_or_one_with_a_passphrase_in_the_vault_logs_in(cluster: Tools, locked: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    tools = Tools(cluster.lab, home)
    plain = {"HOME": str(home), "SSH_AUTH_SOCK": ""}
    nodes = ",".join(node.address for node in cluster.lab.nodes)
    reach = ["--nodes", nodes, "--user", USER, "--known-hosts", str(cluster.folder / KNOWN_HOSTS)]

    agent = subprocess.Popen(["ssh-agent", "-D", "-a", tmp_path / "agent"], stdout=subprocess.DEVNULL)
    try:
        held = {**plain, "SSH_AUTH_SOCK": str(tmp_path / "agent")}
        eventually("the agent listens", (tmp_path / "agent").exists)
        asked = {**os.environ, **held, "SSH_ASKPASS": str(askpass(tmp_path)), "SSH_ASKPASS_REQUIRE": "force", "ANSWER": PASSPHRASE}
        others = [tmp_path / f"other{number}" for number in range(7)]  # more than sshd lets one try
        for other in others:
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
        subprocess.run(["ssh-add", "-q", *others, locked], env=asked, check=True)
        folder, mine = tmp_path / "by-agent", fingerprint(locked.with_suffix(".pub"))
        tools.setup("init", *reach, "--ssh-key", mine, folder=folder, **held)
        rename(cluster, folder)
        locked.rename(tmp_path / "away")
        assert len(tools.document("detect", folder=folder, **held)["nodes"]) == len(cluster.nodes)
        without = tools.document("detect", "--limit", cluster.nodes[0], folder=folder, code=3, **plain)
        assert "lets this user with this key not in" in without["failures"][0]["message"]
        (tmp_path / "away").rename(locked)
    finally:
        agent.terminate()
        agent.wait()

    folder = tmp_path / "by-vault"
    argv = ["bzzz-setup", "-i", str(folder), "init", *reach, "--ssh-key", str(locked), "--secret", "ansible_ssh_private_key_passphrase"]
    with leaks.Watch({"passphrase": PASSPHRASE}, home, folder) as watch:
        subprocess.run(argv, env=tools.environment(**plain), input=f"{PASSPHRASE}\n", capture_output=True, text=True, check=True)
        rename(cluster, folder)
        said = tools.setup("--json", "detect", folder=folder, **plain)
    assert len(json.loads(said.stdout)["nodes"]) == len(cluster.nodes)
    assert not watch.found and PASSPHRASE not in said.stdout + said.stderr
    assert leaks.in_files([home, folder], {"passphrase": PASSPHRASE}) == set()
