# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""GPUs: real captures and stand-in tools, libraries and sysfs trees. No GPU has been seen by these tests."""

from __future__ import annotations

import json
import sys
import tempfile
import time
import types
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.bzzz.cluster.plugins.module_utils.node import gpu, gpu_amd, gpu_nvidia
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

FIXTURES = Path(__file__).parent.parent / "fixtures" / "gpu"
NVIDIA = sorted(FIXTURES.glob("nvidia-smi-q-x.*.xml"))
ROCM = sorted(FIXTURES.glob("rocm-smi.*.json"))
GIB = 1024
SWITCH = "pci0000:00/0000:00:01.0/0000:01:00.0"

# By capture: how many devices, and of the first one model, memory, driver, UUID, PCI address, runtime.
EXPECTED: dict[str, tuple[int, str, int, str, str | None, str, str | None]] = {
    "nvidia-smi-q-x.a100-sxm4-v12.xml": (
        1, "NVIDIA A100-SXM4-80GB", 80 * GIB, "535.54.03", "GPU-513536b6-7d19-9063-b049-1e69664bb298", "0000:01:00.0", "12.2",
    ),
    "nvidia-smi-q-x.gtx-1660-ti.xml": (
        1, "TU116 [GeForce GTX 1660]", 5912, "418.43", "GPU-304a277d-3545-63b8-3a36-dfde3c992989", "0000:43:00.0", "10.1",
    ),
    "nvidia-smi-q-x.quadro-p2000-v12.xml": (
        1, "Quadro P2000", 5 * GIB, "525.125.06", "GPU-396caaed-39ca-3199-2e68-717cdb786ec6", "0000:17:00.0", "12.0",
    ),
    "nvidia-smi-q-x.rtx-4000-sff-ada-v13.xml": (
        1, "NVIDIA RTX 4000 SFF Ada Generation", 20475, "595.84", "GPU-37037c3f-65c8-ec4d-24a9-420204ad8026", "0000:06:00.0", "13.2",
    ),
    "nvidia-smi-q-x.tesla-t4.xml": (
        1, "Tesla T4", 15 * GIB, "515.105.01", "GPU-d37e67a5-91dd-3774-a5cb-99096249601a", "0000:00:1e.0", "11.7",
    ),
    "rocm-smi.mi100_rocm602.json": (
        4, "Arcturus GL-XL [Instinct MI100]", 34342961152 >> 20, "6.3.6", "0x79ccd55167a2124a", "0000:83:00.0", None,
    ),
    "rocm-smi.rx6700xt_rocm612.json": (
        1, "Navi 22 [Radeon RX 6700/6700 XT / 6800M]", 12868124672 >> 20, "6.3.6", None, "0000:07:00.0", None,
    ),
    "rocm-smi.vega-20-WKS-GL-XE.json": (
        1, "Radeon Instinct MI50 32GB", 34342961152 >> 20, "5.9.17", "0x02f048617326b1ea", "0000:63:00.0", None,
    ),
}  # fmt: skip


class Node:
    """A stand-in machine: a root for /sys and /proc, and a directory of tools."""

    def __init__(self, folder: Path) -> None:
        self.root, self.bin = folder / "root", folder / "bin"
        self.root.mkdir()
        self.bin.mkdir()

    def tool(self, name: str, code: int = 0, **said: str | Path) -> None:
        """Says the text or file for its first argument (``_q`` stands for ``-q``), else that of ``otherwise``."""
        cases = []
        for number, (argument, output) in enumerate(said.items()):
            if isinstance(output, str):
                path = self.bin / f"{name}.{number}"
                path.write_bytes(output.encode(errors="surrogatepass"))
            else:
                path = output
            pattern = "*" if argument == "otherwise" else argument.replace("_", "-") + "*"
            cases.append(f"{pattern}) /bin/cat '{path}'; exit {code};;")
        self.script(name, f'case "$1" in {" ".join(cases)} esac; exit 9')

    def script(self, name: str, body: str) -> None:
        (self.bin / name).write_text(f"#!/bin/sh\n{body}\n")
        (self.bin / name).chmod(0o755)

    def file(self, name: str, text: object) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")

    def card(self, place: str, vendor: str, device: str, driver: str | None, pci_class: str = "0x030200", numa: int = -1) -> Path:
        """A PCI device at ``pci0000:00/…/<address>`` in sysfs."""
        folder = self.root / "sys/devices" / place
        folder.mkdir(parents=True)
        devices = self.root / "sys/bus/pci/devices"
        devices.mkdir(parents=True, exist_ok=True)
        (devices / folder.name).symlink_to(folder)
        facts = {"vendor": vendor, "device": device, "class": pci_class, "numa_node": numa, "max_link_speed": "16.0 GT/s PCIe"}
        for name, value in {**facts, "max_link_width": 16}.items():
            (folder / name).write_text(f"{value}\n")
        if driver:
            (folder / "driver").symlink_to(f"../../../bus/pci/drivers/{driver}")
        return folder

    def facts(self, seconds: float = 10) -> dict[str, Any]:
        return gpu.main({"root": str(self.root), "path": str(self.bin), "tool_timeout_seconds": seconds})


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def messages(facts: dict[str, Any]) -> str:
    assert all(problem["message"] and problem["remedy"] for problem in facts["problems"])
    return "\n".join(problem["message"] for problem in facts["problems"])


@pytest.mark.requirement("5.4.1", part="parser")
@pytest.mark.requirement("5.4.2", part="parser")
@pytest.mark.parametrize("capture", NVIDIA + ROCM, ids=lambda path: path.name)
def test_every_capture_tells_model_memory_driver_and_identity(node: Node, capture: Path) -> None:
    node.file("usr/share/misc/pci.ids", "10de  NVIDIA Corporation\n\t2182  TU116 [GeForce GTX 1660 Ti]\n\t2184  TU116 [GeForce GTX 1660]")
    node.file("opt/rocm-6.1.2/.info/version", "6.1.2-119")
    if capture in NVIDIA:
        node.tool("nvidia-smi", _q=capture)
    else:
        node.tool("rocm-smi", otherwise=capture)
    facts = node.facts()
    count, model, memory, driver, uuid, address, runtime = EXPECTED[capture.name]
    assert len(facts["devices"]) == count
    first = facts["devices"][0]
    assert (first["model"], first["memory_total_mib"], first["driver_version"]) == (model, memory, driver)
    assert (first["uuid"], first["pci_address"], first["runtime_version"]) == (uuid, address, runtime or "6.1.2-119")
    assert ("does not tell its uuid" in messages(facts)) == (uuid is None)


@pytest.mark.requirement("5.4.1", part="parser")
def test_every_capture_is_expected() -> None:
    assert {path.name for path in NVIDIA + ROCM} == set(EXPECTED)


@pytest.mark.requirement("5.4.1", part="parser")
def test_nvidia_details(node: Node) -> None:
    node.tool("nvidia-smi", _q=FIXTURES / "nvidia-smi-q-x.a100-sxm4-v12.xml", __query_gpu="GPU-513536b6-7d19-9063-b049-1e69664bb298, 8.0\n")
    folder = node.card("pci0000:00/0000:00:01.0/0000:01:00.0", "0x10de", "0x20b2", "nvidia", numa=1)
    facts = node.facts()
    (device,) = facts["devices"]
    assert folder.exists()
    assert (device["compute_capability"], device["architecture"], device["ecc"]) == ("8.0", "Ampere", True)
    assert (device["temperature_c"], device["power_draw_w"], device["power_limit_w"]) == (27, 67.03, 500)
    assert (device["numa_node"], device["pcie_gts"], device["pcie_width"]) == (1, 16.0, 16)
    assert device["mig"]["enabled"] is True
    assert [part["memory_total_mib"] for part in device["mig"]["devices"]] == [19968] * 4
    assert "counts 4 GPUs, but describes 1" in messages(facts)


@pytest.mark.requirement("5.4.1", part="parser")
def test_a_card_that_its_driver_does_not_know(node: Node) -> None:
    node.tool("nvidia-smi", _q=FIXTURES / "nvidia-smi-q-x.gtx-1660-ti.xml")
    facts = node.facts()
    assert facts["devices"][0]["model"] == "Graphics Device"
    assert "driver 418.43 does not know this card (10de:2184)" in messages(facts)


SICK = """<nvidia_smi_log><driver_version>570.1</driver_version><attached_gpus>1</attached_gpus><gpu id="00000000:3B:00.0">
<product_name>NVIDIA H200</product_name><uuid>[Unknown Error]</uuid>
<mig_mode><current_mig>Enabled</current_mig><pending_mig>Disabled</pending_mig></mig_mode>
<fb_memory_usage><total>140.40 GiB</total><used>[Not Supported]</used></fb_memory_usage>
<temperature><gpu_temp>355 K</gpu_temp></temperature>
<power_readings><power_draw>[Not Supported]</power_draw><power_limit>0.7 kW</power_limit></power_readings>
<clocks_throttle_reasons><clocks_throttle_reason_hw_thermal_slowdown>Active</clocks_throttle_reason_hw_thermal_slowdown>
</clocks_throttle_reasons><ecc_errors><volatile><dram_uncorrectable>2</dram_uncorrectable></volatile></ecc_errors>
<remapped_rows><remapped_row_failure>Yes</remapped_row_failure><remapped_row_pending>Yes</remapped_row_pending></remapped_rows>
<retired_pages><pending_retirement>Yes</pending_retirement></retired_pages>
<gpu_reset_status><reset_required>Yes</reset_required></gpu_reset_status></gpu></nvidia_smi_log>"""


@pytest.mark.requirement("5.4.1", part="parser")
def test_odd_values_and_a_sick_gpu(node: Node) -> None:
    node.tool("nvidia-smi", _q="WARNING: infoROM is corrupted\n" + SICK)
    facts = node.facts()
    (device,) = facts["devices"]
    assert (device["memory_total_mib"], device["memory_used_mib"], device["uuid"]) == (143769, None, None)
    assert (device["temperature_c"], device["power_draw_w"], device["power_limit_w"]) == (None, None, 700)
    assert device["health"] == "failed"
    said = messages(facts)
    for part in ("must be reset", "could not be remapped", "is to be remapped", "are to be retired", "uncorrectable", "heat"):
        assert part in said
    assert "no MIG device has been made" in said
    assert "does not tell its uuid" in said


@pytest.mark.requirement("5.4.1", part="parser")
@pytest.mark.parametrize(
    ("wrong", "health"),
    [
        ("", "ok"),
        ("<clocks_event_reasons><clocks_event_reason_hw_thermal_slowdown>Active</clocks_event_reason_hw_thermal_slowdown></clocks_event_reasons>",
         "degraded"),
        ("<remapped_rows><remapped_row_pending>Yes</remapped_row_pending></remapped_rows>", "degraded"),
        ("<retired_pages><pending_retirement>Yes</pending_retirement></retired_pages>", "degraded"),
        ("<remapped_rows><remapped_row_pending>Yes</remapped_row_pending><remapped_row_failure>Yes</remapped_row_failure></remapped_rows>",
         "failed"),
        ("<gpu_reset_status><reset_required>Yes</reset_required></gpu_reset_status>", "failed"),
        ("<ecc_errors><volatile><dram_uncorrectable>2</dram_uncorrectable></volatile></ecc_errors>", "failed"),
    ],
)  # fmt: skip
def test_a_card_that_works_is_not_one_that_has_failed(wrong: str, health: str) -> None:
    (device,), problems = gpu_nvidia.parse_nvidia_smi(f"<nvidia_smi_log><gpu>{wrong}</gpu></nvidia_smi_log>")
    assert device["health"] == health and bool(problems) == (health != "ok")


@pytest.mark.requirement("5.4.1", part="parser")
@pytest.mark.requirement("3.5.5", part="a card that is off the bus")
def test_a_card_that_makes_the_tool_fail_hides_no_other(node: Node) -> None:
    text = (FIXTURES / "nvidia-smi-q-x.tesla-t4.xml").read_text().replace("<attached_gpus>1<", "<attached_gpus>3<")
    for slot in ("1e", "1f", "20"):
        node.card(f"pci0000:00/0000:00:{slot}.0", "0x10de", "0x1eb8", "nvidia")
        (node.bin / slot).write_text(
            text.replace("00000000:00:1E.0", f"00000000:00:{slot.upper()}.0").replace("GPU-d37e67a5", f"GPU-{slot}")
        )
    lost = "Unable to determine the device handle for GPU 0000:00:1F.0: Unknown Error"
    alone = 'case "$4" in 0000:00:1[f].0|"") echo "$LOST"; exit 15;; esac; s=${4#0000:00:}; /bin/cat "${0%/*}/${s%.0}"'
    node.script("nvidia-smi", f'LOST=\'{lost}\'; [ "$1" = -q ] || {{ echo "$LOST"; exit 15; }}; {alone}')
    node.file("proc/driver/nvidia/gpus/0000:00:1f.0/information", "Model: \t T4\nGPU UUID: \t GPU-3")
    facts = node.facts()
    assert [(one["pci_address"], one["source"], one["index"]) for one in facts["devices"]] == [
        ("0000:00:1e.0", "nvidia-smi", 0), ("0000:00:20.0", "nvidia-smi", 1), ("0000:00:1f.0", "pci", None),
    ]  # fmt: skip
    said = messages(facts)
    assert lost in said and "0000:00:1f.0 (10de:1eb8) has driver nvidia, but nothing answers" in said and "counts" not in said
    assert [link["between"] for link in facts["links"]] == [[0, 1]]


@pytest.mark.requirement("5.4.2", part="parser")
def test_amd_smi(node: Node) -> None:
    node.tool(
        "amd-smi",
        static=FIXTURES / "amd-smi.static.json",
        metric=FIXTURES / "amd-smi.metric.json",
        topology=FIXTURES / "amd-smi.topology.json",
    )
    node.tool("rocm-smi", otherwise=FIXTURES / "rocm-smi.vega-20-WKS-GL-XE.json")
    facts = node.facts()
    first, second = facts["devices"]
    assert first["source"] == second["source"] == "amd-smi"
    assert (first["model"], first["memory_total_mib"], first["driver_version"]) == ("AMD Instinct MI300X", 196592, "6.10.5")
    assert (first["uuid"], first["compute_capability"], first["ecc"]) == ("0x04edfb117a17a07d", "gfx942", True)
    assert (first["temperature_c"], first["power_draw_w"], first["power_limit_w"], first["health"]) == (41, 142, 750, "ok")
    assert (second["model"], second["memory_total_mib"], second["memory_used_mib"]) == ("AMD Instinct MI300X OAM", 196592, None)
    assert (second["temperature_c"], second["power_draw_w"], second["power_limit_w"], second["health"]) == (39, 139, 750, "failed")
    assert facts["links"] == [{"vendor": "amd", "between": [0, 1], "kind": "xgmi", "path": "XGMI", "hops": 1, "weight": 15}]
    assert "GPU 0000:44:00.0: amd-smi does not tell its uuid" in messages(facts)


@pytest.mark.requirement("5.4.2", part="parser")
def test_an_old_rocm_smi_that_lacks_an_option(node: Node) -> None:
    node.script("rocm-smi", f"[ \"$1\" = -a ] || exit 2; /bin/cat '{FIXTURES / 'rocm-smi.mi100_rocm602.json'}'")
    facts = node.facts()
    assert [device["uuid"] for device in facts["devices"]] == [
        "0x79ccd55167a2124a", "0x04edfb117a17a07d", "0xd4a9ec48d03d261d", "0x1b9dd972253c3736",
    ]  # fmt: skip
    assert len(facts["links"]) == 6


@pytest.mark.requirement("5.4.2", part="parser")
@pytest.mark.requirement("3.5.1", part="parser")
def test_amd_without_any_tool(node: Node) -> None:
    for number, (place, location) in enumerate([("0000:03:00.0", 0x300), ("0000:04:00.0", 0x400)]):
        folder = node.card(f"pci0000:00/0000:00:0{number + 1}.0/{place}", "0x1002", "0x740f", "amdgpu", "0x038000", numa=0)
        (folder / "mem_info_vram_total").write_text(f"{64 << 30}\n")
        (folder / "mem_info_vram_used").write_text(f"{10 << 20}\n")
        (folder / "unique_id").write_text(f"0edfb117a17a07{number}d\n")
        (folder / "product_name").write_text("Instinct MI210\n" if number == 0 else "\n")
        (folder / "hwmon/hwmon4").mkdir(parents=True)
        (folder / "hwmon/hwmon4/temp1_input").write_text("42000\n")
        (folder / "hwmon/hwmon4/power1_cap").write_text("300000000\n")
        kfd = f"sys/class/kfd/kfd/topology/nodes/{number + 1}"
        node.file(f"{kfd}/properties", f"simd_count 416\ngfx_target_version 90010\nlocation_id {location}\ndomain 0")
        node.file(f"{kfd}/io_links/0/properties", f"type 11\nnode_from {number + 1}\nnode_to {2 - number}\nweight 15")
    node.file("sys/class/kfd/kfd/topology/nodes/0/properties", "cpu_cores_count 64\ngfx_target_version 0")
    node.file("proc/sys/kernel/osrelease", "6.1.0-31-amd64")
    node.file("usr/share/misc/pci.ids", "1002  Advanced Micro Devices, Inc. [AMD/ATI]\n\t740f  Aldebaran [Instinct MI210]")
    facts = node.facts()
    first, second = facts["devices"]
    assert (first["model"], second["model"]) == ("Instinct MI210", "Aldebaran [Instinct MI210]")
    assert (first["memory_total_mib"], first["memory_used_mib"], first["driver_version"]) == (64 * GIB, 10, "6.1.0-31-amd64")
    assert (first["uuid"], first["compute_capability"]) == ("0x0edfb117a17a070d", "gfx90a")
    assert (first["temperature_c"], first["power_limit_w"], first["pcie_width"]) == (42, 300, 16)
    assert facts["links"] == [{"vendor": "amd", "between": [0, 1], "kind": "xgmi", "path": "XGMI", "hops": None, "weight": 15}]
    assert facts["problems"] == []


@pytest.mark.requirement("3.5.1", part="parser")
def test_links_told_by_nvidia_smi() -> None:
    links = gpu_nvidia.parse_nvidia_topology((FIXTURES / "nvidia-smi-topo-m.txt").read_text())
    assert [(link["between"], link["kind"], link["path"]) for link in links] == [
        ([0, 1], "nvlink", "NV12"),
        ([0, 2], "pcie", "SYS"),
        ([1, 2], "pcie", "PHB"),
    ]


@pytest.mark.requirement("3.5.1", part="parser")
@pytest.mark.parametrize(
    ("one", "other", "numa", "path"),
    [
        (f"{SWITCH}/0000:02:00.0/0000:03:00.0", f"{SWITCH}/0000:02:01.0/0000:04:00.0", 0, "PIX"),
        (f"{SWITCH}/0000:02:00.0/0000:05:00.0/0000:06:00.0/0000:03:00.0", f"{SWITCH}/0000:02:01.0/0000:04:00.0", 0, "PXB"),
        ("pci0000:00/0000:00:01.0/0000:03:00.0", "pci0000:00/0000:00:02.0/0000:04:00.0", 0, "PHB"),
        ("pci0000:00/0000:00:01.0/0000:03:00.0", "pci0000:40/0000:40:01.0/0000:44:00.0", 0, "NODE"),
        ("pci0000:00/0000:00:01.0/0000:03:00.0", "pci0000:80/0000:80:01.0/0000:83:00.0", 1, "SYS"),
    ],
)
def test_links_read_off_the_pci_tree(node: Node, one: str, other: str, numa: int, path: str) -> None:
    for place, where in ((one, 0), (other, numa)):
        folder = node.card(place, "0x1002", "0x740f", "amdgpu", numa=where)
        (folder / "mem_info_vram_total").write_text(str(1 << 30))
    assert [(link["between"], link["path"]) for link in node.facts()["links"]] == [([0, 1], path)]


@pytest.mark.requirement("3.5.1", part="parser")
def test_links_of_a_capture_that_lacks_devices(node: Node) -> None:
    node.tool("rocm-smi", otherwise=FIXTURES / "rocm-smi.vega-20-WKS-GL-XE.json")
    facts = node.facts()
    assert facts["links"] == []
    assert "names 7 GPUs that are not described otherwise (index 1, 2, 3, 4, 5, 6, 7)" in messages(facts)


@pytest.mark.requirement("5.4.1", part="parser")
@pytest.mark.parametrize(
    ("driver", "said"),
    [
        (None, "has no driver"),
        ("nouveau", "driven by nouveau"),
        ("vfio-pci", "kept for virtual machines"),
        ("nvidia", "nothing answers for it"),
    ],
)
def test_a_gpu_without_a_working_driver_is_seen(node: Node, driver: str | None, said: str) -> None:
    node.card("pci0000:00/0000:01:00.0", "0x10de", "0x2204", driver, "0x030000")
    node.card("pci0000:00/0000:01:00.1", "0x10de", "0x1aef", None, "0x040300")  # its sound device
    node.card("pci0000:00/0000:05:00.0", "0x1a03", "0x2000", "ast", "0x030000")  # the board's own graphics
    facts = node.facts()
    assert [(device["pci_address"], device["source"]) for device in facts["devices"]] == [("0000:01:00.0", "pci")]
    assert said in messages(facts)


@pytest.mark.requirement("5.4.1", part="parser")
def test_the_nvidia_driver_without_its_tools(node: Node) -> None:
    node.card("pci0000:00/0000:01:00.0", "0x10de", "0x2204", "nvidia", "0x030000")
    node.file("proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024")
    node.file(
        "proc/driver/nvidia/gpus/0000:01:00.0/information", "Model: \t\t NVIDIA GeForce RTX 3090\nGPU UUID: \t GPU-1-2\nBus Type: \t PCIe"
    )
    facts = node.facts()
    (device,) = facts["devices"]
    assert (device["model"], device["uuid"], device["driver_version"]) == ("NVIDIA GeForce RTX 3090", "GPU-1-2", "535.183.01")
    assert "neither NVML nor nvidia-smi" in messages(facts)
    assert "does not tell its memory_total_mib" in messages(facts)
    node.file("proc/driver/nvidia/gpus/0000:01:00.0/information", "GPU UUID: \t GPU-????????-????-????-????-????????????")
    assert node.facts()["devices"][0]["uuid"] is None, "an idle driver does not know it"


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.requirement("5.4.1", part="parser")
@pytest.mark.requirement("5.4.2", part="parser")
@pytest.mark.parametrize("name", ["nvidia-smi", "amd-smi", "rocm-smi"])
def test_a_hung_tool_is_ended_with_all_its_children(node: Node, name: str) -> None:
    # It answers nothing, ignores SIGTERM and has a child that holds its output open.
    node.script(name, f"trap '' TERM; /bin/sleep 600 & echo $! $$ > {node.bin}/pids; echo '<nvidia_smi_log>'; wait")
    started = time.monotonic()
    facts = node.facts(seconds=0.4)
    assert time.monotonic() - started < 5
    assert facts["devices"] == []
    assert f"{name} " in messages(facts)
    assert "did not finish within 0.4 s" in messages(facts)
    pids = [int(pid) for pid in (node.bin / "pids").read_text().split()]
    assert len(pids) == 2
    deadline = time.monotonic() + 5
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(map(alive, pids))


@pytest.mark.requirement("5.4.1", part="parser")
def test_a_tool_that_fails_is_quoted(node: Node) -> None:
    node.tool("nvidia-smi", 9, _q="NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.")
    node.tool("amd-smi", 1, static="ERROR:root:Unable to detect any GPU devices, check amdgpu version and module status")
    facts = node.facts()
    assert facts["devices"] == []
    assert "couldn't communicate with the NVIDIA driver" in messages(facts)
    assert "Unable to detect any GPU devices" in messages(facts)


@pytest.mark.requirement("5.4.1", part="parser")
def test_nothing_is_run_where_there_is_no_gpu(node: Node) -> None:
    assert node.facts() == {"devices": [], "links": [], "problems": []}


# NVML: a stand-in for pynvml with its names, and the values of its two H100s.


class NVMLError(Exception):
    pass


class StandIn(types.ModuleType):
    NVMLError = NVMLError
    nvmlMemory_v2 = 0x2000028
    NVML_NVLINK_MAX_LINKS = 18

    def __init__(self, hangs: bool = False) -> None:
        super().__init__("pynvml")
        self.hangs = hangs

    def nvmlInit(self) -> None:
        if self.hangs:
            time.sleep(600)

    def nvmlSystemGetDriverVersion(self) -> bytes:  # older bindings answer in bytes
        return b"550.54.15"

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:
        return 12040

    def nvmlDeviceGetCount(self) -> int:
        return 3

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        if index == 2:
            raise NVMLError("GPU is lost")
        return f"gpu{index}"

    def nvmlDeviceGetName(self, handle: str) -> str:
        return "NVIDIA H100 80GB HBM3"

    def nvmlDeviceGetUUID(self, handle: str) -> str:
        return {"gpu0": "GPU-0", "gpu1": "GPU-1", "mig0": "MIG-0"}[handle]

    def nvmlDeviceGetPciInfo(self, handle: str) -> Any:
        return types.SimpleNamespace(busId=f"0000000{handle[-1]}:18:00.0".encode(), pciDeviceId=0x233010DE)

    def nvmlDeviceGetCudaComputeCapability(self, handle: str) -> tuple[int, int]:
        return (9, 0)

    def nvmlDeviceGetMemoryInfo(self, handle: str, version: int = 0) -> Any:
        if not version:
            raise AssertionError("the older structure counts reserved memory as used")
        return types.SimpleNamespace(total=10 << 30, used=0) if handle == "mig0" else types.SimpleNamespace(total=81559 << 20, used=3 << 20)

    def nvmlDeviceGetTemperature(self, handle: str, sensor: int) -> int:
        return 31

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: str) -> int:
        return 700000

    def nvmlDeviceGetEccMode(self, handle: str) -> list[int]:
        return [1, 1]

    def nvmlDeviceGetMigMode(self, handle: str) -> list[int]:
        if handle == "gpu1":
            raise NVMLError("Not Supported")
        return [1, 1]

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: str) -> int:
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: str, index: int) -> str:
        if handle == "gpu1" or index:
            raise NVMLError("Not Found")
        return "mig0"

    def nvmlDeviceGetNvLinkState(self, handle: str, lane: int) -> int:
        if lane >= 18:
            raise NVMLError("Invalid Argument")
        return int(lane < 4)

    def nvmlDeviceGetNvLinkRemotePciInfo(self, handle: str, lane: int) -> Any:
        return types.SimpleNamespace(busId={"gpu0": b"00000001:18:00.0", "gpu1": b"00000000:18:00.0"}[handle])

    def nvmlDeviceGetTopologyCommonAncestor(self, one: str, other: str) -> int:
        return 50


@pytest.mark.requirement("5.4.1", part="parser")
@pytest.mark.requirement("3.5.1", part="parser")
def test_nvml_where_its_binding_is_installed(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", StandIn())
    node.tool("nvidia-smi", _q=FIXTURES / "nvidia-smi-q-x.tesla-t4.xml")
    facts = node.facts()
    first, second = facts["devices"]
    assert (first["model"], first["memory_total_mib"], first["memory_used_mib"]) == ("NVIDIA H100 80GB HBM3", 81559, 3)
    assert (first["uuid"], first["pci_address"], first["pci_id"]) == ("GPU-0", "0000:18:00.0", "10de:2330")
    assert (first["driver_version"], first["runtime_version"], first["compute_capability"]) == ("550.54.15", "12.4", "9.0")
    assert (first["temperature_c"], first["power_limit_w"], first["power_draw_w"], first["ecc"]) == (31, 700, None, True)
    assert first["mig"] == {"enabled": True, "devices": [{"index": 0, "uuid": "MIG-0", "memory_total_mib": 10240}]}
    assert second["mig"] is None
    assert first["source"] == "nvml"
    assert facts["links"] == [{"vendor": "nvidia", "between": [0, 1], "kind": "nvlink", "path": "NV4", "hops": None, "weight": None}]
    assert "GPU 2 does not answer" in messages(facts)


@pytest.mark.requirement("5.4.1", part="parser")
def test_a_hung_nvml_gives_way_to_the_tool(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", StandIn(hangs=True))
    node.tool("nvidia-smi", _q=FIXTURES / "nvidia-smi-q-x.tesla-t4.xml")
    facts = node.facts(seconds=0.5)
    assert facts["devices"][0]["model"] == "Tesla T4"
    assert "NVML did not answer within 0.5 s" in messages(facts)


# Whatever a tool prints.


def names(data: object) -> set[str]:
    """Every key in a JSON value."""
    inner = data.values() if isinstance(data, dict) else data if isinstance(data, list) else ()
    return set(data if isinstance(data, dict) else ()).union(*map(names, inner))


NAMES = sorted(names([json.loads(path.read_text()) for path in FIXTURES.glob("*.json")]))
VALUES = ["N/A", "0000:01:00.0", "16 GB", "XGMI", "0xff", "-1"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(VALUES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=6),
    max_leaves=20,
)
ODD = st.text(max_size=20) | st.sampled_from(["N/A", "-1", "9" * 5000, "[Not Supported]", "&lt;", "\x00", "½"])
CARDS = st.tuples(st.sampled_from(["0x10de", "0x1002", "junk"]), st.text(max_size=5), st.sampled_from(["amdgpu", "nvidia", None]))


@st.composite
def damaged(draw: st.DrawFn, captures: list[Path]) -> str:
    """A capture with a piece cut out and something put in its place."""
    text = draw(st.sampled_from(captures)).read_text()
    start = draw(st.integers(0, len(text)))
    end = draw(st.integers(start, min(len(text), start + 400)))
    return text[:start] + draw(ODD) + text[end:]


@pytest.mark.requirement("5.4.1", part="parser")
@given(st.text() | damaged(NVIDIA))
@settings(deadline=None)
def test_nvidia_parsers_take_any_text(said: str) -> None:
    devices, problems = gpu_nvidia.parse_nvidia_smi(said)
    json.dumps([devices, problems, gpu_nvidia.parse_nvidia_topology(said)])
    assert all(device["memory_total_mib"] is None or isinstance(device["memory_total_mib"], int) for device in devices)


@pytest.mark.requirement("5.4.2", part="parser")
@given(st.text() | damaged(ROCM) | JSON.map(json.dumps), st.text() | JSON.map(json.dumps))
@settings(deadline=None)
def test_amd_parsers_take_any_text(said: str, more: str) -> None:
    for devices in (gpu_amd.parse_rocm_smi(said)[0], gpu_amd.parse_amd_smi(said, more)):
        json.dumps(devices)
        assert all(device["memory_total_mib"] is None or isinstance(device["memory_total_mib"], int) for device in devices)
    json.dumps([gpu_amd.parse_rocm_smi(said)[1], gpu_amd.parse_amd_topology(said)])


@pytest.mark.requirement("5.4.1", part="parser")
@pytest.mark.requirement("5.4.2", part="parser")
@given(st.sampled_from(["nvidia-smi", "amd-smi", "rocm-smi"]), st.binary(max_size=200), st.integers(0, 255))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_tool_may_print_and_return_anything(name: str, said: bytes, code: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        node = Node(Path(folder))
        (node.bin / "said").write_bytes(said)
        node.script(name, f"/bin/cat {node.bin}/said; exit {code}")
        facts = node.facts()
        json.dumps(facts)
        assert facts["devices"] or facts["problems"]


@pytest.mark.requirement("5.4.2", part="parser")
@given(st.lists(CARDS, max_size=4))
@settings(max_examples=25, deadline=None)
def test_any_sysfs_is_read(cards: list[tuple[str, str, str | None]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        node = Node(Path(folder))
        for number, (vendor, junk, driver) in enumerate(cards):
            place = node.card(f"pci0000:00/0000:0{number}:00.0", vendor, junk, driver)
            for name in ("mem_info_vram_total", "unique_id", "product_name", "max_link_width", "max_link_speed", "numa_node"):
                (place / name).write_text(junk)
        json.dumps(node.facts())
