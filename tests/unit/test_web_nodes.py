# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the wizard draws of the machines, from facts as the last runs have seen them; GPUs by recordings of real tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sights
from front import Front
from starlette.testclient import TestClient

from bzzz_setup import init
from bzzz_setup.declaration import HOSTS, dump
from bzzz_setup.web import command
from bzzz_setup.web.app import build
from bzzz_setup.web.shapes import API

ORIGIN = {"Origin": "http://testserver"}


@pytest.fixture
def front(tmp_path: Path) -> Front:
    return Front(tmp_path)


@pytest.fixture
def client(front: Front, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The wizard of two machines that were looked at, for who has made the first account."""
    (front.inventory / HOSTS).write_text(dump(init.hosts({"n1": "192.0.2.1", "n2": "192.0.2.2"}, ["n1"], {})))
    for name, value in front.environment.items():
        monkeypatch.setenv(name, value)
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    sights.detected(front.inventory, front.state, sights.machines())
    wizard = command._wizard(front.inventory)
    with TestClient(build(wizard, frozenset({"testserver"})), headers=ORIGIN) as client:
        body = {"token": wizard.claim.token, "name": "anna", "password": "correct horse battery"}
        assert client.post(f"{API}/claim", json=body).status_code == 201
        yield client
    assert wizard.gate.directory
    wizard.gate.directory.stop()


@pytest.mark.requirement("1.1.9", "1.1.10", "1.1.11", part="told to the wizard")
def test_every_interface_is_told_with_its_details_and_the_primary_one(client: TestClient) -> None:
    told = client.get(f"{API}/nodes").json()
    by_name = {one["name"]: one for one in told["nodes"]["n1"]["interfaces"]}
    assert set(by_name) == {"docker0", "eno1", "ib0", "br-lab"}
    assert by_name["eno1"] == {
        "name": "eno1",
        "primary": "primary",
        "kind": "physical",
        "state": "up",
        "addresses": "192.0.2.1/24",
        "speed": "1 Gb/s",
        "mtu": "1500",
        "mac": "02:00:00:00:00:01",
        "driver": "igb",
    }
    assert (by_name["ib0"]["primary"], by_name["ib0"]["speed"], by_name["ib0"]["kind"]) == ("", "200 Gb/s", "infiniband")
    assert client.get(f"{API}/draft").json()["detected"]["network_interface"] == {"n1": "eno1", "n2": "eno1"}
    assert client.get(f"{API}/draft").json()["detected"]["firewall_backend"] == {"n1": "nftables", "n2": "nftables"}


@pytest.mark.requirement("5.4.1", "5.4.2", "5.4.4", part="told to the wizard, by recordings of real tools")
def test_gpus_are_told_with_their_memory_driver_and_links(client: TestClient) -> None:
    told = client.get(f"{API}/nodes").json()
    assert told["seen"] and told["nodes"]["n1"]["hardware"].endswith("4 x NVIDIA A100-SXM4-80GB 80 GiB")
    first, *_, last = told["nodes"]["n1"]["gpus"]
    assert (first["name"], first["model"]) == ("nvidia 0", "NVIDIA A100-SXM4-80GB")
    assert first["memory"] == {"percent": 1.25, "text": "1.0 GiB of 80 GiB used", "full": False} and last["memory"]["percent"] > 30
    assert {"label": "NUMA node", "value": "0"} in first["details"] and "Driver" in {one["label"] for one in first["details"]}
    assert [one["name"].partition(" ")[0] for one in told["nodes"]["n2"]["gpus"]] == ["nvidia"] * 3 + ["amd"] * 4
    alike, mixed = told["topologies"]
    assert (alike["where"], mixed["where"]) == ("n1", "n2")
    assert [one["label"] for one in alike["fabrics"]] == ["NV12 between every two (NVLink, 12 bonded)"]
    assert {one["meaning"] for one in mixed["links"]} >= {"one PCIe switch", "between NUMA nodes"}


@pytest.mark.requirement("1.2.6", part="told to the wizard: every port, who has it already, and where")
def test_ports_are_told_with_who_listens_there_already(client: TestClient) -> None:
    draft = client.get(f"{API}/draft").json()
    ports = {one["option"]: one for one in draft["ports"]}
    assert ports["service_port"] == {
        "option": "service_port",
        "port": 8080,
        "protocol": "tcp",
        "nodes": ["n1", "n2"],
        "taken": [{"node": "n1", "program": "nginx", "pid": 4711, "unit": "nginx.service"}],
        "own": [],
    }
    assert ports["coordination_client_port"]["nodes"] == ["n1"]
    assert (ports["service_mcp_port"]["taken"], ports["service_mcp_port"]["own"]) == ([], ["n2"])
    (told,) = [one for one in draft["problems"] if one["option"] == "service_port"]
    assert told["value"] == 8080 and "nginx" in told["message"] and "is free" in told["remedy"]
    # What is wrong without looking at machines hides neither ports nor who has them.
    draft = client.patch(f"{API}/draft", json={"base": 0, "changes": {"options/service_mcp_port": 8080}}).json()
    assert {one["option"]: bool(one["taken"]) for one in draft["ports"] if one["port"] == 8080} == {
        "service_port": True,
        "service_mcp_port": True,
        "service_web_port": True,
    }


@pytest.mark.requirement("1.1.12", part="told to the wizard: each way between the machines")
def test_the_ways_between_machines_are_told_as_a_map(client: TestClient, front: Front) -> None:
    assert client.get(f"{API}/runs/20261118-120000-1-detect/ways").json() == {"ways": None}
    assert client.get(f"{API}/runs/20261118-120000-9-detect/ways").status_code == 404
    told = client.get(f"{API}/runs/{sights.tried(front.inventory, front.state, ['n1', 'n2', 'n3'])}/ways").json()["ways"]
    assert told["labels"] == ["n1", "n2", "n3"] and told["sentence"].startswith("5 of 6 ways between 3 nodes answer")
    latency = next(layer for layer in told["layers"] if layer["name"] == "latency")
    assert [cell["text"] for cell in latency["rows"][0]["cells"]][::2] == ["-", "✗"]
    assert told["odd"][0] == {"status": "fail", "node": "n1", "peer": "n3", "why": "no answer in 2 s"}


@pytest.mark.requirement("1.1.4", part="told to the wizard: the cluster's network among those of the machines")
def test_networks_are_told_with_what_the_rules_say_of_them(client: TestClient) -> None:
    networks = client.get(f"{API}/draft").json()["networks"]
    assert networks["subnets"] == ["192.0.2.0/24"]
    shown = {"interface": "br-lab", "kind": "bridge", "gateway": None}
    assert networks["others"][0] == {"network": "192.0.2.128/25", **shown, "severity": "error", "nodes": ["n1"]}
    assert [(one["network"], one["severity"], one["nodes"]) for one in networks["others"][1:]] == [
        ("10.9.0.0/16", None, ["n1", "n2"]),
        ("172.17.0.0/16", None, ["n1", "n2"]),
    ]
    moved = {"options/network_subnet": "172.17.0.0/24", "nodes/n1/network_interface": "docker0"}
    networks = client.patch(f"{API}/draft", json={"base": 0, "changes": moved}).json()["networks"]
    assert networks == {"subnets": [], "others": []}, "nothing is drawn of a declaration that is wrong by itself"
