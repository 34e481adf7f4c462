# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a careless operator could declare: refused before a machine is touched, or put back by the machine itself.

A case is a line of REFUSED, of NODE_REFUSES or of what cuts off; those of other roles belong here, too. Those of certificates are in
test_42.
None may need a console.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import Tools
from test_70_safety import gets_in, in_force
from trouble import unfinished

from bzzz_setup.declaration import KNOWN_HOSTS
from bzzz_setup.lab import USER

TAKEN = 4422  # another program listens on it, see `taker`
SHORT = {"firewall_revert_seconds": 20}
PRIVATE = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n-----END OPENSSH PRIVATE KEY-----"


@dataclass
class Refused:
    """Options of all nodes, the step that would act on them, and the option that is to be named."""

    options: dict[str, Any]
    named: str
    step: str = "3"
    says: str = ""


REFUSED = {
    "the login's own sudo taken away": Refused({"ssh_user": USER, "ssh_sudo": "none"}, "ssh_sudo", says="no run could follow"),
    "the login's own sudo cut down": Refused(
        {"ssh_user": USER, "ssh_sudo": "commands", "ssh_sudo_commands": ["/usr/bin/id"]}, "ssh_sudo", says="no run could follow"
    ),
    "sudo by a command of no path": Refused({"ssh_sudo": "commands", "ssh_sudo_commands": ["systemctl"]}, "ssh_sudo_commands"),
    "sudo by a list in one line": Refused({"ssh_sudo": "commands", "ssh_sudo_commands": ["/bin/ls, ALL"]}, "ssh_sudo_commands"),
    "a service's account for people": Refused({"ssh_user": "etcd"}, "ssh_user"),
    "keys only, where a password logs in": Refused({"ssh_key_only": True, "ansible_password": "secret"}, "ssh_key_only"),
    "sshd on the API's port": Refused({"ssh_port": 8080}, "ssh_port", says="also service_port"),
    "sshd on a port kept for others": Refused({"ssh_port": 6022, "network_reserved_ports": ["6000-6100"]}, "ssh_port"),
    "sshd on a port that is taken": Refused({"ssh_port": TAKEN}, "ssh_port", says="taker.service"),
    "a list that leaves the login out": Refused({"ssh_allow_users": ["bzzz-admin"]}, "ssh_allow_users", says=USER),
    "no key at all": Refused({"ssh_key_source": "provided"}, "ssh_public_keys"),
    "a private key for a public one": Refused({"ssh_public_keys": [PRIVATE]}, "ssh_public_keys", says="private key"),
    "sources that leave the admin host out": Refused(
        {"firewall_ssh_sources": ["192.0.2.0/24"]}, "firewall_ssh_sources", "2", "SSH would be cut"
    ),
}
# Sound by all rules, and refused by the node's own validators: (options, what they say).
NODE_REFUSES = {
    "sudoers that cannot be read": (
        {"ssh_sudo": "commands", "ssh_sudo_commands": ["/usr/bin/ id"]},
        r"visudo.* refuses .*nothing was changed",
    ),
}


@pytest.fixture(scope="module")
def before(cluster: Tools) -> Iterator[dict[str, dict[str, str]]]:
    """What is in force; after all cases it still is, nothing is left to be done, and a run finds nothing to change."""
    found = {node: in_force(cluster.lab, node) for node in cluster.nodes}
    yield found
    assert {node: in_force(cluster.lab, node) for node in cluster.nodes} == found
    assert not [left for node in cluster.nodes for left in unfinished(cluster.lab, node)]
    assert cluster.document("apply", "--only", "2,3")["changes"] == []


@pytest.fixture(scope="module")
def taker(cluster: Tools) -> Iterator[str]:
    """A node where another program listens on TAKEN."""
    node = cluster.nodes[1]
    cluster.lab.exec(node, ["systemd-run", "--quiet", "--unit=taker", "python3", "-m", "http.server", str(TAKEN)])
    cluster.lab.exec(node, ["sh", "-c", f"for try in $(seq 100); do ss -Htln sport = {TAKEN} | grep -q . && exit; sleep 0.1; done; exit 1"])
    yield node
    cluster.lab.exec(node, ["systemctl", "stop", "taker"])


@pytest.mark.requirement("1.3.1", "2.2.2", "2.2.3", "2.2.4", part="harmful declarations are refused before a machine is touched")
@pytest.mark.parametrize("case", REFUSED)
def test_what_would_do_harm_is_refused(cluster: Tools, before: dict[str, Any], taker: str, tmp_path: Path, case: str) -> None:
    harm = REFUSED[case]
    told = cluster.document("apply", "--only", harm.step, folder=cluster.declare(tmp_path / "inventory", harm.options), code=2)
    wrong = [problem for problem in told["problems"] if problem["severity"] == "error" and problem["option"] == harm.named]
    assert wrong and all(problem["remedy"] and harm.says in problem["message"] for problem in wrong), told["problems"]
    assert told["changes"] == [] and PRIVATE.splitlines()[1] not in str(told)


@pytest.mark.requirement("2.2.2", part="invalid sudoers")
@pytest.mark.parametrize("case", NODE_REFUSES)
def test_what_only_the_node_can_tell_is_refused_there(cluster: Tools, before: dict[str, Any], tmp_path: Path, case: str) -> None:
    options, says = NODE_REFUSES[case]
    told = cluster.document("apply", "--only", "3", folder=cluster.declare(tmp_path / "inventory", options), code=3)
    assert {failure["node"] for failure in told["failures"]} == set(cluster.nodes)
    assert all(re.search(says, failure["message"], re.DOTALL) for failure in told["failures"])
    assert {node: in_force(cluster.lab, node) for node in cluster.nodes} == before
    assert all(gets_in(cluster.lab, node) and not unfinished(cluster.lab, node) for node in cluster.nodes)


@pytest.mark.requirement("2.1.4", "2.2.2", part="the node itself puts back what cuts off")
def test_what_cuts_off_is_put_back_by_the_node(cluster: Tools, before: dict[str, Any], tmp_path: Path) -> None:
    """Three nodes at once, each with harm of its own that no rule can foresee."""
    first, second, third = cluster.nodes
    other = (cluster.lab.key.with_suffix(".pub")).read_text().strip()
    clusters_key = str(cluster.home / ".config/bzzz" / cluster.lab.id / "id_ed25519")
    harm = {
        # The only host key that is pinned for it is of a kind that a hardened sshd no longer shows.
        first: {"ssh_hardened": True},
        # Ansible logs in by the key that is taken away.
        second: {
            "ansible_user": "bzzz-admin",
            "ansible_ssh_private_key_file": clusters_key,
            "ssh_key_source": "provided",
            "ssh_public_keys": [other],
        },
        # sudo is to ask for a password from now on, and the one that is declared is not right.
        third: {"ansible_user": "bzzz-admin", "ansible_ssh_private_key_file": clusters_key, "ssh_sudo": "password"}
        | {"ansible_become_password": "not-it"},
    }
    folder = cluster.declare(tmp_path / "inventory", nodes={node: {**SHORT, **options} for node, options in harm.items()})
    hosts, pins = folder / "hosts.yml", folder / KNOWN_HOSTS
    hosts.write_text(hosts.read_text().replace(str(cluster.folder), str(folder)))
    lines = pins.read_text().splitlines(keepends=True)
    pins.write_text("".join(line for line in lines if not line.startswith(f"{first},") or " ecdsa-" in line))
    told = cluster.document("apply", "--only", "3", folder=folder, code=3)
    failures = {failure["node"]: failure for failure in told["failures"]}
    assert set(failures) == set(cluster.nodes)
    for failure in failures.values():
        assert "the change of 'ssh' cut this admin host off" in failure["message"] and "20 s" in failure["message"], failure
        assert "correct the ssh_* options" in failure["remedy"]
    assert {node: in_force(cluster.lab, node) for node in cluster.nodes} == before
    assert all(gets_in(cluster.lab, node) and not unfinished(cluster.lab, node) for node in cluster.nodes)
