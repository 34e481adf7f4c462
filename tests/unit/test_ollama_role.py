# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What role ollama makes of a declaration and a node's facts: instances, their ports, environments and archives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.bzzz.cluster.plugins.module_utils.declaration import declare, load_specs

ROLES = Path(__file__).parents[2] / "roles"
INSTALL = {"ollama_manage": "install", "ollama_version": "0.11.4", "ollama_sha256_amd64": "a" * 64}
PER_GPU = {**INSTALL, "ollama_instances": "per_gpu"}


def card(uuid: str | None, address: str | None, vendor: str = "nvidia") -> dict[str, Any]:
    return {"uuid": uuid, "pci_address": address, "vendor": vendor}


TWO = [card("GPU-b", "0000:02:00.0"), card("GPU-a", "0000:01:00.0")]


class Role:
    """The variables of roles declaration and ollama on one node."""

    def __init__(self, options: dict[str, Any], devices: list[dict[str, Any]], architecture: str = "x86_64") -> None:
        readers = {name: lambda value=value: value for name, value in options.items()}
        effective, problems = declare({"ollama": load_specs()["ollama"]}, readers, "n1")
        assert problems == []
        loader = DataLoader()
        given: dict[str, Any] = {}
        for role in ("declaration", "ollama"):
            given |= loader.load_from_file(str(ROLES / role / "vars/main.yml"), trusted_as_template=True)
        given |= {"declared": effective, "inventory_hostname": "n1", "inventory_dir": "/cluster", "__ollama_proxies": ""}
        given["ansible_facts"] = {"bzzz_gpu": {"devices": devices}, "bzzz_system": {"os": {"architecture": architecture}}}
        self.loader, self.variables = loader, given

    def __getitem__(self, name: str) -> Any:
        return Templar(self.loader, variables=self.variables).template(self.variables[name])

    def file(self, name: str, **more: Any) -> str:
        text = trust_as_template((ROLES / "ollama/templates" / name).read_text())
        return str(Templar(self.loader, variables={**self.variables, **more}).template(text))

    def environment(self, number: int) -> dict[str, str]:
        text = self.file("instance.env.j2", __ollama_number=number, __ollama_device=self["__ollama_instances"][number])
        return dict(line.split("=", 1) for line in text.splitlines() if not line.startswith("#"))


@pytest.mark.requirement("3.5.2", part="roles: a port for each instance")
@pytest.mark.parametrize(
    ("options", "devices", "ports"),
    [
        ({}, [], [11434]),
        ({"ollama_port": 11500}, TWO, [11500]),
        ({**INSTALL, "ollama_port": 11500}, TWO, [11500]),
        ({**PER_GPU, "ollama_port": 11500}, TWO, [11500, 11501]),
        ({"ollama_instances": "per_gpu"}, TWO, [11434]),
        (PER_GPU, [*TWO, card(None, "0000:00:02.0", "amd"), card("GPU-c", None)], [11434, 11435, 11436]),
    ],
)
def test_the_node_service_looks_where_the_instances_are(options: dict[str, Any], devices: list[Any], ports: list[int]) -> None:
    role = Role(options, devices)
    assert role["bzzz_ollama_ports"] == ports
    if options.get("ollama_manage"):
        listening = [role.environment(number)["OLLAMA_HOST"] for number in role["__ollama_numbers"]]
        assert listening == [f"127.0.0.1:{port}" for port in ports]


@pytest.mark.requirement("3.5.2", part="roles: instances by the cards' places")
def test_a_card_without_uuid_gets_no_instance() -> None:
    role = Role(PER_GPU, [card(None, None, "amd"), card("GPU-c", None), *TWO])
    assert [each["uuid"] for each in role["__ollama_instances"]] == ["GPU-a", "GPU-b", "GPU-c"]
    assert {key: [each["uuid"] for each in gpus] for key, gpus in role["__ollama_watched"].items()} == {
        "0": ["GPU-a"],
        "1": ["GPU-b"],
        "2": ["GPU-c"],
    }
