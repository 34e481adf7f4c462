# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What role ollama makes of a declaration and a node's facts: instances, their ports, environments and archives."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.bzzz.cluster.plugins.module_utils.declaration import declare, load_specs
from ansible_collections.bzzz.cluster.plugins.module_utils.models.wanted import served
from ansible_collections.bzzz.cluster.plugins.module_utils.node import gpu_watch

ROLES = Path(__file__).parents[2] / "roles"
INSTALL = {"ollama_manage": "install", "ollama_version": "0.11.4", "ollama_sha256_amd64": "a" * 64}
PER_GPU = {**INSTALL, "ollama_instances": "per_gpu"}


def card(uuid: str | None, address: str | None, vendor: str = "nvidia", health: str | None = "ok") -> dict[str, Any]:
    return {"uuid": uuid, "pci_address": address, "vendor": vendor, "health": health}


TWO = [card("GPU-b", "0000:02:00.0"), card("GPU-a", "0000:01:00.0")]


class Role:
    """The variables of roles declaration and ollama on one node."""

    def __init__(self, options: dict[str, Any], devices: list[dict[str, Any]], architecture: str = "x86_64") -> None:
        readers = {name: lambda value=value: value for name, value in options.items()}
        specs = load_specs()
        effective, problems = declare({role: specs[role] for role in ("ollama", "models")}, readers, "n1")
        assert problems == []
        loader = DataLoader()
        given: dict[str, Any] = {}
        for role in ("declaration", "ollama"):
            given |= loader.load_from_file(str(ROLES / role / "vars/main.yml"), trusted_as_template=True)
        given |= {"declared": effective, "inventory_hostname": "n1", "inventory_dir": "/cluster", "__ollama_proxies": ""}
        given["ansible_facts"] = {"bzzz_gpu": {"devices": devices}, "bzzz_system": {"os": {"architecture": architecture}}}
        # Its filter is only found where Ansible itself runs.
        given["__ollama_served"] = served(effective["ollama"], effective["models"]["wanted"])
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


@pytest.mark.requirement("3.5.2", part="roles: cards of two vendors")
def test_an_instance_is_kept_from_the_other_vendors_cards() -> None:
    role = Role(PER_GPU, [card("GPU-a", "0000:01:00.0"), card("0x02f048617326b1ea", "0000:02:00.0", "amd")])
    seen = [{key: value for key, value in role.environment(number).items() if "VISIBLE" in key} for number in (0, 1)]
    assert seen == [
        {"CUDA_VISIBLE_DEVICES": "GPU-a", "ROCR_VISIBLE_DEVICES": "-1"},
        {"CUDA_VISIBLE_DEVICES": "-1", "ROCR_VISIBLE_DEVICES": "GPU-02f048617326b1ea"},
    ]
    assert gpu_watch.NONE == "-1" and gpu_watch.visible("0x02f048617326b1ea") == "GPU-02f048617326b1ea"
    assert "ROCR_VISIBLE_DEVICES" not in Role(PER_GPU, TWO).environment(0)
    assert not any("VISIBLE" in name for name in Role(INSTALL, TWO).environment(0))


@pytest.mark.requirement("3.3.1", part="roles: archives")
@pytest.mark.parametrize(
    ("version", "form"),
    [("0.5.7", "tgz"), ("0.9.0", "tgz"), ("0.13.5", "tgz"), ("0.14.0", "tar.zst"), ("0.32.7", "tar.zst"), ("1.0.0", "tar.zst")],
)
def test_the_public_archive_is_in_the_form_of_its_version(version: str, form: str) -> None:
    (archive,) = Role({**INSTALL, "ollama_version": version}, TWO)["__ollama_archives"]
    assert archive["src"] == f"https://github.com/ollama/ollama/releases/download/v{version}/ollama-linux-amd64.{form}"


@pytest.mark.requirement("3.3.1", part="roles: libraries for AMD GPUs")
def test_rocm_is_unpacked_into_the_release_of_nodes_with_amd_gpus() -> None:
    rocm = {**INSTALL, "ollama_version": "0.14.0", "ollama_rocm_sha256": "B" * 64}
    amd = [card(None, "0000:02:00.0", "amd")]
    base, libraries = Role(rocm, amd)["__ollama_archives"]
    assert libraries["path"] == base["path"] + "/lib/ollama/rocm" and libraries["within"] == "lib/ollama/rocm"
    assert libraries["src"].endswith("/v0.14.0/ollama-linux-amd64-rocm.tar.zst") and libraries["sha256"] == "b" * 64
    assert libraries["notify"] == ["restart:bzzz-ollama@0.service"]
    _, libraries = Role({**rocm, "ollama_rocm_archive": "rocm.tgz"}, amd)["__ollama_archives"]
    assert libraries["src"] == "/cluster/rocm.tgz"
    for options, devices, architecture in ((rocm, TWO, "x86_64"), (INSTALL, amd, "x86_64"), (rocm, amd, "aarch64")):
        assert len(Role(options, devices, architecture)["__ollama_archives"]) == 1


@pytest.mark.requirement("3.5.4", part="roles")
def test_flash_attention_is_left_to_ollama_unless_declared() -> None:
    assert "OLLAMA_FLASH_ATTENTION" not in Role(INSTALL, []).environment(0)
    assert Role({**INSTALL, "ollama_flash_attention": True}, []).environment(0)["OLLAMA_FLASH_ATTENTION"] == "1"


@pytest.mark.requirement("3.5.1", part="roles: devices are there before Ollama")
@pytest.mark.parametrize("devices", [TWO, [card(None, None, "amd")], []])
def test_the_unit_waits_for_the_module_that_cuda_wants(devices: list[dict[str, Any]]) -> None:
    unit = Role(INSTALL, devices).file("bzzz-ollama@.service.j2").splitlines()
    wanted = {"Wants=modprobe@nvidia_uvm.service", "After=modprobe@nvidia_uvm.service", "ExecStartPre=-+/usr/bin/nvidia-modprobe -u"}
    assert wanted & set(unit) == (wanted if devices is TWO else set())
    assert "DeviceAllow=char-nvidia-uvm rwm" in unit, "a file for it can be made"


AT_START = 'time=2026-11-29 level=INFO source=types.go:60 msg="inference compute" id={} library={} compute="" total="31.0 GiB"\n'


@pytest.mark.requirement("3.5.2", part="roles: an instance that works on the processor is told of")
@pytest.mark.parametrize(
    ("driver", "journal", "told"),
    [
        (True, AT_START.format("cpu", "cpu"), True),
        (True, AT_START.format("GPU-a", "CUDA"), False),
        (True, AT_START.format("GPU-a", "rocm"), False),
        (True, "", False),
        (False, AT_START.format("cpu", "cpu"), False),
    ],
)
def test_an_instance_that_has_found_no_gpu(tmp_path: Path, driver: bool, journal: str, told: bool) -> None:
    role = Role(INSTALL, TWO)
    assert role["__ollama_device_files"] == ["/dev/nvidiactl"] and Role(INSTALL, [card(None, None, "amd")])["__ollama_device_files"] == []
    probes = role.loader.load_from_file(str(ROLES / "ollama/probes/main.yml"))
    (probe,) = (one for one in probes if one["id"].startswith("ollama-compute-"))
    for name, does in (("systemctl", "echo 4711"), ("journalctl", '[ "$4" = _SYSTEMD_INVOCATION_ID=4711 ] && cat "${0%/*}/journal"')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "journal").write_text(journal)
    file = str(tmp_path / "journal" if driver else tmp_path / "absent")
    argv = [*probe["command"]["argv"][:4], "0", file, file]
    done = subprocess.run(argv, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True, check=True)
    assert (bool(done.stdout), done.stderr, probe["severity"]) == (told, "", "warn")


def test_an_instance_that_starts_clears_nothing_away_that_another_pulls() -> None:
    """Ollama removes what no manifest names when it starts, halves of pulls as well; instances share the store."""
    role = Role(PER_GPU, TWO)
    assert [role.environment(number).get("OLLAMA_NOPRUNE") for number in (0, 1)] == [None, "1"]


@pytest.mark.requirement("3.5.4", part="roles: what is set is what the plan counts")
def test_ollama_is_set_to_what_is_planned() -> None:
    wishes = {"models_wanted": [{"name": "a", "context": 8192}, {"name": "b", "parallel": 3}]}
    for options, context, parallel in (
        (INSTALL, "4096", "1"),
        ({**INSTALL, **wishes}, "8192", "3"),
        ({**INSTALL, **wishes, "ollama_context_length": 2048}, "2048", "3"),
    ):
        made = Role(options, []).environment(0)
        assert (made["OLLAMA_CONTEXT_LENGTH"], made["OLLAMA_NUM_PARALLEL"]) == (context, parallel)


@pytest.mark.requirement("3.5.5", part="roles: a run leaves alone what the watch has stopped")
def test_an_instance_whose_gpus_have_failed_is_left_to_the_watch() -> None:
    hot, failed = card("GPU-b", "0000:02:00.0", health="degraded"), card("GPU-a", "0000:01:00.0", health="failed")

    def started(options: dict[str, Any], *devices: dict[str, Any]) -> list[bool]:
        role = Role(options, list(devices))
        units = [unit for unit in role["__ollama_units"] if unit["name"].startswith("bzzz-ollama@")]
        assert all(unit["enabled"] for unit in units) and role["__ollama_live"] == [n for n, unit in enumerate(units) if "active" in unit]
        return ["active" in unit for unit in units]

    assert started(PER_GPU, hot, failed) == [False, True]
    assert started(INSTALL, hot, failed) == started(INSTALL) == [True]
    assert started(INSTALL, failed) == [False]
    assert started({**INSTALL, "ollama_gpu_check_seconds": 0}, failed) == [True], "nobody would start it again"
