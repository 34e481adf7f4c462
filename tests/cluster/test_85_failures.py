# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What most often goes wrong, caused for real: told with node, reason and the command that mends it; mended, it converges.

Beside these: a node that is down, a taken port, networks that overlap and interfaces that are down (test_10_fresh), a shut
port and a clock that is ahead (test_30_network), another host key (test_40_security), too little space and an artifact that is not the
index's (test_50_services), a lost majority and a coordinator without its data (test_60_topology), what cuts off (test_70_safety),
two runs at once (test_80_kills).
"""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import BIN, Tools

from bzzz_setup.declaration import VAULT
from bzzz_setup.lab import USER

pytestmark = pytest.mark.beside

PACKAGE = "prometheus-node-exporter"


@contextlib.contextmanager
def done(cluster: Tools, node: str, damage: str, repair: str) -> Iterator[None]:
    """A shell line's damage to a node, while entered."""
    cluster.lab.exec(node, ["sh", "-ec", damage])
    try:
        yield
    finally:
        cluster.lab.exec(node, ["sh", "-ec", repair])


def told(cluster: Tools, node: str, step: str, folder: Path | None = None) -> dict[str, Any]:
    """The one failure of a run of one step on one node, which the text for people has as well."""
    command = ["apply", "--only", step, "--limit", node]
    document = cluster.document(*command, folder=folder, code=3)
    (failure,) = document["failures"]
    assert failure["node"] == node and failure["task"] and failure["remedy"], failure
    assert "Traceback" not in failure["message"] and "{0}" not in failure["remedy"]
    found: dict[str, Any] = failure
    return found


@pytest.fixture(scope="module")
def node(cluster: Tools) -> Iterator[str]:
    """The node that everything happens to; when all is mended, nothing is left to do."""
    name = cluster.nodes[2]
    yield name
    cluster.setup("apply", "--only", "5", "--only", "6", "--limit", name)
    assert cluster.document("apply")["changes"] == []


@pytest.mark.requirement("L7", part="getting in")
def test_a_key_that_is_not_let_in(cluster: Tools, node: str, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other")], check=True)
    folder = cluster.declare(tmp_path / "inventory", nodes={node: {"ansible_ssh_private_key_file": str(tmp_path / "other")}})
    failure = told(cluster, node, "5", folder)
    assert "lets this user with this key not in" in failure["message"]
    address = next(each.address for each in cluster.lab.nodes if each.name == node)
    assert f"ssh -i KEY {USER}@{address}" in failure["remedy"]


@pytest.mark.requirement("L7", part="getting in")
def test_an_ssh_server_that_is_stopped(cluster: Tools, node: str) -> None:
    with done(cluster, node, "systemctl stop ssh.socket ssh.service 2>/dev/null; systemctl stop ssh", "systemctl start ssh"):
        failure = told(cluster, node, "5")
    assert "no SSH server listens" in failure["message"] and "systemctl enable --now ssh" in failure["remedy"]


@pytest.mark.requirement("L7", part="becoming root")
def test_a_user_without_sudo(cluster: Tools, node: str) -> None:
    with done(cluster, node, f"mv /etc/sudoers.d/{USER} /root/", f"mv /root/{USER} /etc/sudoers.d/"):
        failure = told(cluster, node, "5")
    assert "sudo" in failure["message"] and "visudo -c" in failure["remedy"]


@pytest.mark.requirement("L7", part="becoming root")
def test_a_sudo_password_that_is_wrong(cluster: Tools, node: str, tmp_path: Path) -> None:
    damage = f"mv /etc/sudoers.d/{USER} /root/; echo '{USER} ALL=(ALL) ALL' >/etc/sudoers.d/{USER}; echo {USER}:right | chpasswd"
    folder = cluster.declare(tmp_path / "inventory", nodes={node: {"ansible_become_password": "CANARY-wrong"}})
    with done(cluster, node, damage, f"mv /root/{USER} /etc/sudoers.d/; passwd -l {USER}"):
        failure = told(cluster, node, "5", folder)
    assert "password for sudo" in failure["message"] and "ansible_become_password" in failure["remedy"]
    assert "CANARY" not in str(failure)


@pytest.mark.requirement("L7", part="Python")
def test_a_node_without_its_python(cluster: Tools, node: str, tmp_path: Path) -> None:
    folder = cluster.declare(tmp_path / "inventory", nodes={node: {"ansible_python_interpreter": "/usr/bin/python3.99"}})
    failure = told(cluster, node, "5", folder)
    assert "/usr/bin/python3.99 was not found" in failure["message"] and "apt-get install python3" in failure["remedy"]


@pytest.mark.requirement("L7", part="disks")
def test_a_file_system_that_is_full(cluster: Tools, node: str, tmp_path: Path) -> None:
    """The one that the set's generations are on; nothing of the new configuration is in place."""
    folder = cluster.declare(tmp_path / "inventory", {"service_log_level": "warn"})
    there = "/var/lib/bzzz/sets/service"
    with done(cluster, node, f"mount -t tmpfs -o size=12k tmpfs {there}", f"umount {there}"):
        failure = told(cluster, node, "6", folder)
        assert "warn" not in cluster.lab.exec(node, ["cat", "/etc/bzzz/bzzz.env"]).stdout
    assert "No space left" in failure["message"] and "is full" in failure["message"] and "df -h" in failure["remedy"]


@pytest.mark.requirement("L7", "L2", part="disks")
def test_a_file_system_that_is_read_only(cluster: Tools, node: str, tmp_path: Path) -> None:
    """What was begun is in the journal, and finished by the next run."""
    folder = cluster.declare(tmp_path / "inventory", {"service_log_level": "warn"})
    damage = "mount --bind /etc/bzzz /etc/bzzz; mount -o remount,bind,ro /etc/bzzz"
    with done(cluster, node, damage, "umount /etc/bzzz"):
        failure = told(cluster, node, "6", folder)
    assert "read-only" in failure["message"] and "findmnt -O ro" in failure["remedy"]
    cluster.setup("apply", "--only", "6", "--limit", node, folder=folder)
    assert "warn" in cluster.lab.exec(node, ["cat", "/etc/bzzz/bzzz.env"]).stdout


AWAY = f"systemctl stop {PACKAGE}; apt-get -qy purge {PACKAGE} >/dev/null; apt-get clean"


@pytest.mark.requirement("L7", part="packages")
@pytest.mark.parametrize(
    ("damage", "repair", "why", "remedy"),
    [
        (
            "cp /etc/resolv.conf /root/; echo nameserver 127.0.0.1 >/etc/resolv.conf",
            "cp /root/resolv.conf /etc/resolv.conf",
            "cannot look up names",
            "getent hosts",
        ),
        (
            "mkdir /root/apt; mv /etc/apt/sources.list* /root/apt; echo deb http://127.0.0.1:9/debian stable main >/etc/apt/sources.list",
            "rm -r /etc/apt/sources.list*; mv /root/apt/* /etc/apt/; rmdir /root/apt; apt-get -q update >/dev/null",
            "package mirror does not answer",
            "curl -I http://127.0.0.1/",
        ),
    ],
    ids=["no name service", "no mirror"],
)
def test_packages_that_cannot_be_fetched(cluster: Tools, node: str, damage: str, repair: str, why: str, remedy: str) -> None:
    # Lists that were never fetched: the package is known to none of them.
    with done(cluster, node, f"{AWAY}; rm -rf /var/lib/apt/lists/*; {damage}", repair):
        failure = told(cluster, node, "5")
    assert PACKAGE in failure["message"] and why in failure["message"] and remedy in failure["remedy"]
    cluster.setup("apply", "--only", "5", "--limit", node)


@pytest.mark.slow
@pytest.mark.requirement("L7", part="packages")
def test_packages_while_somebody_else_installs(cluster: Tools, node: str) -> None:
    """apt waits for five minutes."""
    hold = "import fcntl, time; f = open('/var/lib/dpkg/lock-frontend', 'w'); fcntl.lockf(f, fcntl.LOCK_EX); time.sleep(1500)"
    start = f'{AWAY}; systemd-run --unit=installer /usr/bin/python3 -c "{hold}"'
    with done(cluster, node, start, "systemctl stop installer"):
        failure = told(cluster, node, "5")
    assert "Another program installs packages" in failure["message"]
    assert "fuser -v /var/lib/dpkg/lock-frontend" in failure["remedy"]


@pytest.mark.requirement("L7", part="the release index")
def test_a_release_index_that_cannot_be_fetched(cluster: Tools, node: str, tmp_path: Path) -> None:
    index = "https://127.0.0.1:9/index.json"
    failure = told(cluster, node, "6", cluster.declare(tmp_path / "inventory", {"service_release_index": index}))
    assert f"{index} could not be fetched" in failure["message"] and "Connection refused" in failure["message"]
    assert "curl -I" in failure["remedy"] and "downloads_*" in failure["remedy"]


@pytest.mark.requirement("L7", part="the vault")
def test_a_vault_whose_key_is_elsewhere(cluster: Tools, tmp_path: Path) -> None:
    folder = cluster.declare(tmp_path / "inventory")
    (tmp_path / "key").write_text("elsewhere")
    (folder / VAULT).write_text("ssh_key_passphrase: CANARY-passphrase\n")
    encrypt = [BIN / "ansible-vault", "encrypt", "--vault-password-file", tmp_path / "key", folder / VAULT]
    subprocess.run(encrypt, check=True, capture_output=True)
    refused = cluster.document("apply", "--only", "5", folder=folder, code=2)
    (problem,) = refused["problems"]
    assert "vault file cannot be opened" in problem["message"] and "vault-key" in problem["remedy"]
    assert {step["state"] for step in refused["steps"]} == {"failed"} and refused["changes"] == []


@pytest.mark.requirement("L7", part="names")
def test_a_node_whose_name_nobody_knows(cluster: Tools, node: str, tmp_path: Path) -> None:
    folder = cluster.declare(tmp_path / "inventory", nodes={node: {"ansible_host": "no-such.invalid"}})
    (problem,) = cluster.document("apply", "--only", "5", folder=folder, code=2)["problems"]
    assert (problem["option"], problem["node"]) == ("network_address", node)
    assert "does not resolve" in problem["message"] and re.search(r"ansible_host in host_vars/", problem["remedy"])
