# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How people and Ansible come in: sshd's port is moved and moved back, passwords are used once and then refused."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import leaks
import pytest
from conftest import Tools

from bzzz_setup.declaration import HOSTS, KNOWN_HOSTS, MAIN, dump, load, write
from bzzz_setup.lab import Lab

PORT = 2222
# Firewall and sshd: whatever else a run does, does not depend on how it came in.
STEPS = ("apply", "--only", "2,3")
PASSWORD = "canary-Passw0rd-a51c"


def listening(cluster: Tools, node: str) -> set[str]:
    """Where sshd listens."""
    return set(cluster.lab.exec(node, ["sh", "-c", "ss -Hltnp | grep '\"sshd\"' | awk '{print $4}' | sed 's/.*://'"]).stdout.split())


def rules_of(lab: Lab, node: str) -> str:
    return lab.exec(node, ["nft", "list", "table", "inet", "bzzz"]).stdout


def connect(folder: Path, **more: Any) -> None:
    """Change how Ansible comes in, in an inventory folder."""
    hosts = load((folder / HOSTS).read_text(encoding="utf-8"))
    connection = hosts["bzzz"]["vars"]
    connection.update(more)
    hosts["bzzz"]["vars"] = {name: value for name, value in connection.items() if value is not None}
    write(folder / HOSTS, dump(hosts))


@pytest.mark.requirement("2.2.3")
def test_sshd_moves_to_another_port_and_the_old_one_closes_last(cluster: Tools, tmp_path: Path) -> None:
    folder = cluster.declare(tmp_path / "inventory", {"ssh_port": PORT})
    main = folder / MAIN
    try:
        moving = cluster.document(*STEPS, folder=folder)
        (told,) = [one for one in moving["problems"] if one["option"] == "ssh_port"]
        assert told["severity"] == "warning" and f"set ansible_port to {PORT}" in told["remedy"]
        assert all(listening(cluster, node) == {"22", str(PORT)} for node in cluster.nodes), "one of the two is shut"
        assert all(f"tcp dport {PORT} accept" in rules_of(cluster.lab, node) for node in cluster.nodes)
        connect(folder, ansible_port=PORT)
        moved = cluster.document(*STEPS, folder=folder)
        assert all(listening(cluster, node) == {str(PORT)} for node in cluster.nodes), "the old port is open still"
        checks = {(check["node"], check["id"]): check["status"] for check in moved["checks"]}
        assert {checks[node, check] for node in cluster.nodes for check in ("ssh-port", "ssh-other-ports", "peers")} == {"pass"}
        again = cluster.document(*STEPS, folder=folder)
        assert again["changes"] == [] and again["problems"] == []
    finally:
        # Whatever stands, the new port is open, and the old one after this.
        write(main, dump({**load(main.read_text(encoding="utf-8")), "ssh_port": 22}))
        cluster.setup(*STEPS, folder=folder, code=None)
        cluster.setup(*STEPS)
    assert all(listening(cluster, node) == {"22"} for node in cluster.nodes)
    # Where no port is declared any more, the same run has shut it in the firewall.
    assert [node for node in cluster.nodes if str(PORT) in rules_of(cluster.lab, node)] == []
    assert cluster.document("apply", "--only", "2")["changes"] == []


@pytest.mark.requirement("2.2.4")
def test_a_password_opens_the_way_and_is_of_no_use_afterwards(cluster: Tools, tmp_path: Path) -> None:
    """A machine as its installer left it, which knows a user and a password; then the cluster's key, and no passwords."""
    for node in cluster.nodes:
        cluster.lab.exec(node, ["sh", "-euc", f"useradd -m -s /bin/bash -G sudo boot; echo 'boot:{PASSWORD}' | chpasswd"])
    try:
        folder = cluster.declare(tmp_path / "inventory")
        connect(folder, ansible_user="boot", ansible_ssh_private_key_file=None)
        command = ["bzzz-setup", "-i", str(folder), "--json", "detect", "--ask-pass", "--ask-become-pass"]
        with leaks.Watch({"password": PASSWORD}, cluster.home, folder) as watch:
            # That of sudo is left empty: it is the same.
            opened = subprocess.run(
                command, env=cluster.environment(), input=f"{PASSWORD}\n\n", capture_output=True, text=True, timeout=300, check=False
            )
        assert opened.returncode == 0, opened.stdout + opened.stderr
        assert not watch.found and PASSWORD not in opened.stdout + opened.stderr
        wrong = subprocess.run(
            command, env=cluster.environment(), input="not-it-at-all\n\n", capture_output=True, text=True, timeout=300, check=False
        )
        assert wrong.returncode == 3, wrong.stdout
        main = folder / MAIN
        write(main, dump({**load(main.read_text(encoding="utf-8")), "ssh_key_only": True}))
        shut = subprocess.run(
            [*command[:4], "apply", *command[5:]],
            env=cluster.environment(),
            input=f"{PASSWORD}\n\n",
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        (told,) = json.loads(shut.stdout)["problems"]
        assert shut.returncode == 2 and told["option"] == "ssh_key_only" and "boot" in told["message"]

        assert {password_login(cluster, node) for node in cluster.nodes} == {0}
        locked = cluster.declare(tmp_path / "locked", {"ssh_key_only": True})
        document = cluster.document("apply", "--only", "3", folder=locked)
        assert {check["status"] for check in document["checks"] if check["id"] == "ssh-key-only"} == {"pass"}
        assert {password_login(cluster, node) for node in cluster.nodes} == {255}
        assert cluster.document("apply", "--only", "3", folder=locked)["changes"] == []
    finally:
        cluster.setup("apply", "--only", "3")
        for node in cluster.nodes:
            cluster.lab.exec(node, ["userdel", "-rf", "boot"], check=False)


def password_login(cluster: Tools, node: str) -> int:
    """The exit code of an SSH login by password alone; 255 is a refusal."""
    address = next(found.address for found in cluster.lab.nodes if found.name == node)
    options = ["PreferredAuthentications=password,keyboard-interactive", "PubkeyAuthentication=no", "NumberOfPasswordPrompts=1"]
    options += [f"UserKnownHostsFile={cluster.folder / KNOWN_HOSTS}", "ControlPath=none"]
    askpass = cluster.home / "askpass"
    write(askpass, f"#!/bin/sh\necho '{PASSWORD}'\n", 0o700)
    try:
        return subprocess.run(
            ["ssh", "-F", "none", *(word for option in options for word in ("-o", option)), f"boot@{address}", "true"],
            env=cluster.environment(SSH_ASKPASS=str(askpass), SSH_ASKPASS_REQUIRE="force"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        ).returncode
    finally:
        askpass.unlink()
