# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The declaration through real ansible-playbook runs, on this machine only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

BIN = Path(sys.executable).parent
NODES = {f"n{number}": {"ansible_host": f"192.0.2.{number}"} for number in (1, 2, 3)}


@dataclass
class Run:
    """An ansible-playbook process that has ended."""

    code: int
    said: str
    events: list[dict[str, Any]]

    def results(self, task: str) -> list[dict[str, Any]]:
        return [
            host for play in self.events for one in play["tasks"] if one["task"]["name"].endswith(task) for host in one["hosts"].values()
        ]

    @property
    def problems(self) -> list[dict[str, Any]]:
        return [found for result in self.results("Read and check the declaration") for found in result.get("problems", [])]


class Inventory:
    """An inventory folder, and the plays run over it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write({"coordinators": NODES})

    def write(self, groups: dict[str, dict[str, Any]], **variables: Any) -> None:
        children = {group: {"hosts": hosts} for group, hosts in groups.items()}
        (self.folder / "group_vars" / "bzzz").mkdir(parents=True, exist_ok=True)
        (self.folder / "hosts.yml").write_text(yaml.safe_dump({"bzzz": {"children": children}}))
        self.declare(**variables)

    def declare(self, text: str = "", **variables: Any) -> None:
        (self.folder / "group_vars" / "bzzz" / "main.yml").write_text((yaml.safe_dump(variables) if variables else "") + text)

    def play(self, *arguments: str, **environment: str) -> Run:
        done = subprocess.run(
            [BIN / "ansible-playbook", "-i", self.folder / "hosts.yml", *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")},
                "ANSIBLE_HOME": str(self.folder / "home"),
                "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
                "ANSIBLE_SHOW_CUSTOM_STATS": "1",
                # Nobody may be contacted; an SSH client that was started after all would say so.
                "ANSIBLE_SSH_EXECUTABLE": str(self.folder / "no-ssh"),
                **environment,
            },
        )
        start = done.stdout.find("{\n")
        document = json.loads(done.stdout[start:]) if start >= 0 else {"plays": []}
        return Run(done.returncode, done.stdout + done.stderr, document["plays"])

    def check(self, *arguments: str) -> Run:
        return self.play("bzzz.cluster.check", *arguments)


@pytest.fixture
def inventory(tmp_path: Path) -> Inventory:
    (tmp_path / "no-ssh").write_text(f"#!/bin/sh\ntouch {tmp_path}/contacted\nexit 255\n")
    (tmp_path / "no-ssh").chmod(0o755)
    return Inventory(tmp_path)


@pytest.mark.requirement("L5", part="one declaration, checked before any node is touched")
def test_a_good_declaration_passes_and_nobody_is_contacted(inventory: Inventory) -> None:
    inventory.declare(network_subnet="192.0.2.0/24", service_port="{{ 9000 + 1 }}", validation_benchmark="no", firewall_mode=False)
    run = inventory.check()
    assert run.code == 0, run.said
    (result,) = run.results("Read and check the declaration")
    declared, cluster = result["ansible_facts"]["bzzz_declared"], result["ansible_facts"]["bzzz_cluster"]
    assert set(declared) == set(NODES)
    assert declared["n2"]["service"]["port"] == 9001
    assert declared["n2"]["validation"]["benchmark"] is False
    assert declared["n2"]["firewall"]["mode"] == "off"
    assert declared["n2"]["network"]["subnet"] == "192.0.2.0/24"
    assert cluster["coordinators"] == ["n1", "n2", "n3"]
    assert [(node["name"], node["address"], node["groups"]) for node in cluster["nodes"]] == [
        (name, variables["ansible_host"], ["bzzz", "coordinators"]) for name, variables in NODES.items()
    ]
    assert run.problems == []
    assert not (inventory.folder / "contacted").exists()


@pytest.mark.requirement("L5", part="all problems at once")
@pytest.mark.requirement("1.1.3", part="through the playbook")
@pytest.mark.requirement("1.2.6", part="inside the configuration, through the playbook")
def test_all_problems_come_at_once(inventory: Inventory) -> None:
    inventory.declare(
        service_prot=1,
        network_subnet="192.0.2.7/24",
        service_mcp_port=2379,
        service_websocket_port="abc",
        service_version="{{ nowhere }}",
        service_log_level="inof",
        coordination_primary="n9",
    )
    (inventory.folder / "host_vars").mkdir()
    (inventory.folder / "host_vars" / "n2.yml").write_text("network_address: nonsense\n")
    run = inventory.check()
    assert run.code == 2
    by_option = {found["option"]: found for found in run.problems}
    assert set(by_option) == {
        *("service_prot", "network_subnet", "service_mcp_port", "service_websocket_port", "service_version", "service_log_level"),
        *("coordination_primary", "network_address"),
    }
    assert by_option["service_prot"]["remedy"] == "Write service_port."
    assert by_option["network_subnet"]["remedy"] == "Write 192.0.2.0/24."
    assert by_option["service_log_level"]["remedy"] == "Write service_log_level: info."
    assert "'nowhere' is undefined" in by_option["service_version"]["message"]
    assert by_option["network_subnet"]["node"] is None, "told once for all nodes"
    assert by_option["network_address"]["node"] == "n2"
    message = run.results("Read and check the declaration")[0]["msg"]
    assert all(option in message for option in by_option)
    assert '"bzzz_problems"' in run.said
    assert not (inventory.folder / "contacted").exists()


def test_warnings_do_not_stop_it(inventory: Inventory) -> None:
    inventory.write({"coordinators": dict(list(NODES.items())[:2]), "workers": NODES})
    run = inventory.check()
    assert run.code == 0
    assert [(found["option"], found["severity"]) for found in run.problems] == [("coordinators", "warning")]
    assert "2 coordinators" in run.said


def test_an_inventory_without_the_group(inventory: Inventory) -> None:
    (inventory.folder / "hosts.yml").write_text("other: {hosts: {x: {}}}\n")
    run = inventory.check()
    assert run.code == 2
    assert [found["option"] for found in run.problems] == ["bzzz"]


def test_coordinators_outside_of_the_group(inventory: Inventory) -> None:
    (inventory.folder / "hosts.yml").write_text(yaml.safe_dump({"bzzz": {"hosts": NODES}, "coordinators": {"hosts": {"n1": {}, "x": {}}}}))
    run = inventory.check()
    assert [(found["option"], found["value"]) for found in run.problems] == [("coordinators", "x")]


def test_connection_details_decide_about_sudo(inventory: Inventory) -> None:
    inventory.declare(ansible_user="bzzz-admin", ansible_become=True, ssh_sudo="none", ansible_port=8080)
    problems = {found["option"]: found for found in inventory.check().problems}
    assert set(problems) == {"ssh_sudo", "service_port", "service_web_port"}
    assert "ansible_port" in problems["service_port"]["message"]


def test_connection_variables_that_are_wrong_are_problems_too(inventory: Inventory) -> None:
    inventory.declare(ansible_port="{{ nowhere }}", ansible_user="{{ nobody }}", service_port=0)
    (inventory.folder / "host_vars").mkdir()
    (inventory.folder / "host_vars" / "n2.yml").write_text("ansible_port: ssh\n")
    run = inventory.check()
    assert {(found["option"], found["node"]) for found in run.problems} == {
        ("ansible_port", "n1, n3"),
        ("ansible_port", "n2"),
        ("ansible_user", None),
        ("service_port", None),
    }


@pytest.mark.requirement("L5", part="secrets are masked")
def test_secrets_never_come_out(inventory: Inventory) -> None:
    key = inventory.folder / "key"
    key.write_text("vault key\n")
    key.chmod(0o600)
    vault = inventory.folder / "group_vars" / "bzzz" / "vault.yml"
    vault.write_text("service_token: CANARY1-CANARY1-CANARY1-CANARY1-CANARY1\nssh_key_passphrase: [CANARY2]\n")
    subprocess.run([BIN / "ansible-vault", "encrypt", "--vault-password-file", key, vault], check=True, capture_output=True)
    inventory.declare(
        ssh_public_keys=["-----BEGIN OPENSSH PRIVATE KEY-----\nCANARY3"], service_mcp_port="x", ollama_endpoints=["http://CANARY4@x"]
    )
    run = inventory.check("--vault-password-file", str(key), "-vvv", "--diff")
    assert {found["option"] for found in run.problems} == {"ssh_key_passphrase", "ssh_public_keys", "service_mcp_port", "ollama_endpoints"}
    assert "CANARY" not in run.said
    vault.write_text("")
    inventory.declare(service_token="CANARY1" * 5)
    run = inventory.check("-vvv")
    assert run.code == 0
    assert run.results("Read and check the declaration")[0]["ansible_facts"]["bzzz_declared"]["n1"]["service"]["token"] == "********"
    assert "CANARY" not in run.said


def test_a_vault_without_its_key_is_one_clear_problem(inventory: Inventory) -> None:
    key = inventory.folder / "key"
    key.write_text("vault key\n")
    encrypted = subprocess.run(
        [BIN / "ansible-vault", "encrypt_string", "--vault-password-file", key, "--name", "service_token", "CANARY"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    inventory.declare(encrypted)
    run = inventory.check()
    assert [found["option"] for found in run.problems] == ["service_token"]
    assert "vault password" in run.problems[0]["remedy"]


def test_what_a_person_typed_is_data(inventory: Inventory) -> None:
    inventory.declare(f"service_version: !unsafe \"{{{{ lookup('pipe', 'touch {inventory.folder}/ran') }}}}\"\n")
    run = inventory.check()
    declared = run.results("Read and check the declaration")[0]["ansible_facts"]["bzzz_declared"]
    assert declared["n1"]["service"]["version"].startswith("{{ lookup")
    assert not (inventory.folder / "ran").exists()


# --- the role, with facts of this machine ---

PLAY = """
- hosts: bzzz
  gather_facts: false
  tasks:
    - ansible.builtin.import_role: {name: dependant}
"""

LOOK = """
- name: Look
  ansible.builtin.debug:
    msg:
      port: "{{ declared.service.port }}"
      network: "{{ declared.network }}"
      cluster: "{{ bzzz_cluster }}"
      pipelining: "{{ ansible_pipelining }}"
      template: "{{ lookup('template', 'x.j2') }}"
"""


@pytest.fixture
def local(inventory: Inventory) -> Inventory:
    """One node, which is this machine, and a role that depends on `declaration`."""
    inventory.write({"coordinators": {"n1": {"ansible_connection": "local", "ansible_host": "127.0.0.1"}}}, resources_disk_free_min_mib=0)
    role = inventory.folder / "roles" / "dependant"
    for name, text in {
        "meta/main.yml": "dependencies: [{role: bzzz.cluster.declaration}]",
        "templates/x.j2": "{{ declared.service.port }} {{ bzzz_cluster.name }} {{ declared.service.token }}",
        "tasks/main.yml": LOOK,
    }.items():
        (role / name).parent.mkdir(parents=True)
        (role / name).write_text(text)
    (inventory.folder / "play.yml").write_text(PLAY * 2)
    return inventory


@pytest.mark.requirement("1.1.1", part="declaration")
@pytest.mark.requirement("1.1.10", part="declaration")
def test_the_declaration_reaches_dependants_and_is_computed_once_a_run(local: Inventory) -> None:
    local.declare(service_port=9001, service_token="CANARY" * 6, resources_disk_free_min_mib=0)
    run = local.play("play.yml")
    assert run.code == 0, run.said
    first, second = (result["msg"] for result in run.results("Look"))
    assert first == second
    assert first["port"] == 9001
    assert first["template"] == "9001 bzzz ********"
    assert first["pipelining"] is True
    assert first["network"]["interface"] and "/" in first["network"]["subnet"]
    (node,) = first["cluster"]["nodes"]
    assert node["address"] == first["network"]["address"] != "127.0.0.1", "known by its real address"
    assert first["cluster"]["settled"] == ["n1"]
    for stage in ("Read and check the declaration", "Settle what depends on the facts"):
        assert ["ansible_facts" in result for result in run.results(stage)] == [True], stage


@pytest.mark.requirement("1.1.9", part="declaration")
@pytest.mark.requirement("1.1.12", part="unknown interface")
def test_what_the_node_says_is_judged(local: Inventory) -> None:
    local.declare(network_interface="nic9", resources_data_path="/srv/x", resources_disk_free_min_mib=10**9)
    run = local.play("play.yml")
    assert run.code == 2
    (result,) = run.results("Settle what depends on the facts")
    assert {"network_interface", "resources_data_path"} <= {found["option"] for found in result["problems"]}
    (found,) = (found for found in result["problems"] if found["option"] == "network_interface")
    assert "has no interface nic9. It has: " in found["message"]
    assert run.results("Look") == []


def test_a_cached_declaration_of_another_run_does_not_count(local: Inventory) -> None:
    cache = {"ANSIBLE_CACHE_PLUGIN": "ansible.builtin.jsonfile", "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(local.folder / "cache")}
    local.declare(service_port=9001, resources_disk_free_min_mib=0)
    assert local.play("play.yml", **cache).results("Look")[0]["msg"]["port"] == 9001
    local.declare(service_port=9002, resources_disk_free_min_mib=0, service_token="CANARY" * 6)
    assert local.play("play.yml", **cache).results("Look")[0]["msg"]["port"] == 9002
    assert "CANARY" not in "".join(path.read_text() for path in (local.folder / "cache").iterdir())


def test_defaults_and_role_variables_hide_nothing(local: Inventory) -> None:
    (local.folder / "play.yml").write_text(PLAY.replace("gather_facts: false", "gather_facts: false\n  vars: {service_port: 9005}"))
    run = local.play("play.yml")
    assert run.code == 2
    assert [found["option"] for found in run.problems] == ["service_port"]
    assert "group_vars/bzzz/main.yml" in run.problems[0]["remedy"]
    assert local.play("play.yml", "--extra-vars", "service_port=9006").results("Look")[0]["msg"]["port"] == 9006


def test_nodes_outside_of_the_limit_are_declared_too(local: Inventory) -> None:
    here = {"ansible_connection": "local", "ansible_host": "192.0.2.1"}
    local.write({"coordinators": {"n1": here, "n2": {"ansible_host": "192.0.2.2"}}})
    (local.folder / "host_vars").mkdir()
    (local.folder / "host_vars" / "n2.yml").write_text("service_prot: 1\n")
    run = local.play("play.yml", "--limit", "n1")
    assert run.code == 2
    assert ("service_prot", "n2") in [(found["option"], found["node"]) for found in run.problems]
    assert not (local.folder / "contacted").exists()


def test_tags_do_not_leave_the_declaration_out(local: Inventory) -> None:
    tasks = local.folder / "roles" / "dependant" / "tasks" / "main.yml"
    tasks.write_text(tasks.read_text() + "  tags: [look]\n")
    assert len(local.play("play.yml", "--tags", "look").results("Look")) == 2
