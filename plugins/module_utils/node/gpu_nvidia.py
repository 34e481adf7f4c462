# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""NVIDIA's GPUs: by NVML, else by nvidia-smi, else by what the driver tells in /proc."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from .gpu_device import CELSIUS, EMPTY, WATT, first_of, link, measure, mib, pci_address, switch, text
from .machine import Machine, bounded, integer, items, json_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from xml.etree.ElementTree import Element

HEALTH = ("ok", "degraded", "failed")
XID = "Look at `nvidia-smi -q`, and at `dmesg` for Xid messages"
_GPU = re.compile(r"GPU[0-9]{1,4}")
_PATH = re.compile(r"NV[0-9]{1,3}|PIX|PXB|PHB|NODE|SYS|SOC")


def nvidia(machine: Machine, cards: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Devices and links by the first source that knows any."""
    devices, links = nvml(machine)
    if not devices:
        devices, links = nvidia_smi(machine, cards)
    return devices or nvidia_proc(machine), links


def nvml(machine: Machine) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """By NVIDIA's library, where its Python binding is installed; in a child process, since a sick driver hangs the caller."""
    said = bounded(lambda: json.dumps(_nvml()), machine.timeout)
    if said.code is None:
        machine.problem(f"NVML did not answer within {machine.timeout:g} s.", f"{XID}; a hung driver usually needs a reboot.")
    answer = json_in(said.out) if said.code == 0 else None
    for message in items(answer, "sick"):
        machine.problem(message, f"{XID}; reset the GPU or reboot.")
    return items(answer, "devices"), items(answer, "links")


def _nvml() -> dict[str, Any]:
    import pynvml as n  # type: ignore[import-untyped,import-not-found,unused-ignore]  # noqa: PLC0415 - only where there is an NVIDIA GPU

    n.nvmlInit()

    def ask(name: str, *arguments: Any) -> Any:
        """What the function answers; None where card, driver or binding doesn't know it."""
        try:
            answer = getattr(n, name)(*arguments)
        except (n.NVMLError, AttributeError):
            return None
        return answer.decode(errors="replace") if isinstance(answer, bytes) else answer

    def memory(handle: Any) -> tuple[int | None, int | None]:
        # The older structure counts what the driver keeps for itself as used.
        found = ask("nvmlDeviceGetMemoryInfo", handle, getattr(n, "nvmlMemory_v2", 0)) or ask("nvmlDeviceGetMemoryInfo", handle)
        return (found.total >> 20, found.used >> 20) if found else (None, None)

    def watts(milliwatts: int | None) -> float | None:
        return None if milliwatts is None else round(milliwatts / 1000, 2)

    cuda = ask("nvmlSystemGetCudaDriverVersion_v2") or ask("nvmlSystemGetCudaDriverVersion")
    handles = [ask("nvmlDeviceGetHandleByIndex", index) for index in range(ask("nvmlDeviceGetCount") or 0)]
    devices, sick = [], []
    for index, handle in enumerate(handles):
        if handle is None:
            sick.append(f"NVIDIA GPU {index} does not answer NVML.")
            continue
        bus, capability = ask("nvmlDeviceGetPciInfo", handle), ask("nvmlDeviceGetCudaComputeCapability", handle)
        ecc, mode = ask("nvmlDeviceGetEccMode", handle), ask("nvmlDeviceGetMigMode", handle)
        parts = [ask("nvmlDeviceGetMigDeviceHandleByIndex", handle, i) for i in range(ask("nvmlDeviceGetMaxMigDeviceCount", handle) or 0)]
        errors = ask("nvmlDeviceGetTotalEccErrors", handle, 1, 0)  # uncorrected, since the driver was loaded
        if errors:
            sick.append(f"NVIDIA GPU {index} has {errors} uncorrectable memory errors.")
        address = bus.busId.decode() if bus and isinstance(bus.busId, bytes) else bus.busId if bus else None
        total, used = memory(handle)
        devices.append(
            {
                **EMPTY,
                "index": index,
                "vendor": "nvidia",
                "model": text(ask("nvmlDeviceGetName", handle)),
                "uuid": text(ask("nvmlDeviceGetUUID", handle)),
                "pci_address": pci_address(address),
                "pci_id": f"10de:{bus.pciDeviceId >> 16:04x}" if bus else None,
                "driver_version": text(ask("nvmlSystemGetDriverVersion")),
                "runtime_version": f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else None,
                "compute_capability": ".".join(map(str, capability)) if capability else None,
                "memory_total_mib": total,
                "memory_used_mib": used,
                "temperature_c": ask("nvmlDeviceGetTemperature", handle, 0),
                "power_draw_w": watts(ask("nvmlDeviceGetPowerUsage", handle)),
                "power_limit_w": watts(ask("nvmlDeviceGetEnforcedPowerLimit", handle)),
                "ecc": bool(ecc[0]) if ecc else None,
                "mig": {
                    "enabled": bool(mode[0]),
                    "devices": [
                        {"index": i, "uuid": text(ask("nvmlDeviceGetUUID", part)), "memory_total_mib": memory(part)[0]}
                        for i, part in enumerate(parts)
                        if part is not None
                    ],
                }
                if mode
                else None,
                "health": "failed" if errors else "ok",
                "source": "nvml",
            }
        )
    return {"devices": devices, "links": list(_nvml_links(n, ask, handles, devices)), "sick": sick}


def _nvml_links(n: Any, ask: Any, handles: list[Any], devices: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    paths = {10: "PIX", 20: "PXB", 30: "PHB", 40: "NODE", 50: "SYS"}  # nvmlGpuTopologyLevel_t
    address = {device["pci_address"]: device["index"] for device in devices}
    bonds: dict[tuple[int, int], int] = {}
    for device in devices if len(devices) > 1 else []:
        for lane in range(getattr(n, "NVML_NVLINK_MAX_LINKS", 18)):
            if ask("nvmlDeviceGetNvLinkState", handles[device["index"]], lane) == 1:
                peer = ask("nvmlDeviceGetNvLinkRemotePciInfo", handles[device["index"]], lane)
                bus = getattr(peer, "busId", b"")
                other = address.get(pci_address(bus.decode() if isinstance(bus, bytes) else bus))
                if other is not None:
                    bonds[device["index"], other] = bonds.get((device["index"], other), 0) + 1
    for a in address.values():
        for b in address.values():
            if a < b:
                level = paths.get(ask("nvmlDeviceGetTopologyCommonAncestor", handles[a], handles[b]))
                count = bonds.get((a, b)) or bonds.get((b, a))
                yield link(a, b, f"NV{count}" if count else level)


def nvidia_smi(machine: Machine, cards: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    said = machine.run("nvidia-smi", "-q", "-x")
    if said is None or said.code is None:
        return [], []
    devices, problems = parse_nvidia_smi(said.out)
    quoted = " ".join((said.out[:300] if "<" not in said.out else said.err).split())[:200] or "no output"
    if not devices and said.code and len(cards) > 1:
        devices, problems = _one_by_one(machine, cards)
        if devices:
            machine.problem(f"nvidia-smi tells of all GPUs only one by one: {quoted}", f"{XID}; reset the GPU that fails, or reboot.")
    for message, remedy in problems:
        machine.problem(message, remedy)
    if not devices:
        machine.problem(
            f"nvidia-smi tells of no GPU: {quoted}",
            "If it cannot reach the driver: is the module loaded (lsmod), does it fit the running kernel (dkms status), was it updated "
            "without a reboot?",
        )
        return [], []
    capable = machine.run("nvidia-smi", "--query-gpu=uuid,compute_cap", "--format=csv,noheader")
    told = dict(re.findall(r"^(GPU-[0-9a-f-]+), *([0-9]{1,2}\.[0-9]{1,2})\s*$", capable.out if capable else "", re.M))
    for device in devices:
        device["compute_capability"] = told.get(device["uuid"])
    joined = machine.run("nvidia-smi", "topo", "-m") if len(devices) > 1 and not said.code else None
    return devices, parse_nvidia_topology(joined.out) if joined else []


def _one_by_one(machine: Machine, cards: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """The cards that answer when they are asked alone: one that is off the bus makes the question after all of them fail."""
    devices: list[dict[str, Any]] = []
    problems: list[tuple[str, str]] = []
    for card in cards:
        said = machine.run("nvidia-smi", "-q", "-x", "-i", card["pci_address"])
        if said is None or said.code is None:  # the driver hangs, and would for each
            return [], []
        found, wrong = parse_nvidia_smi(said.out, len(devices))
        devices += found
        problems += wrong
    return devices, problems


def parse_nvidia_smi(xml: str, only: int | None = None) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """Devices, and (message, remedy) pairs, from the text of ``nvidia-smi -q -x``; no devices where it isn't that.

    only: where one card alone was asked after, the index that it gets.
    """
    import xml.etree.ElementTree as tree  # noqa: PLC0415 - only where there is an NVIDIA GPU

    try:
        # Warnings may stand before the document. It comes from the node's own administrator.
        log = tree.fromstring(xml[max(xml.find("<nvidia_smi_log"), 0) :])
    except (tree.ParseError, ValueError, RecursionError):
        return [], []
    devices: list[dict[str, Any]] = []
    problems = []
    for index, gpu in enumerate(log.iter("gpu"), only or 0):
        reasons = dict(_sick(gpu))
        address = pci_address(gpu.findtext("pci/pci_bus_id") or gpu.get("id"))
        identity = re.fullmatch(r"([0-9A-F]{4})10DE", (gpu.findtext("pci/pci_device_id") or "").strip().upper())
        for reason in reasons:
            problems.append((f"NVIDIA GPU {address or index}: {reason}.", f"{XID}; reset the GPU or reboot."))
        # The names of power readings have changed with nearly every driver.
        power = [section for section in gpu if section.tag.endswith("power_readings")]

        def told(*names: str, power: list[Element] = power) -> list[str | None]:
            return [section.findtext(name) for name in names for section in power]

        mode = switch(gpu.findtext("mig_mode/current_mig"))
        devices.append(
            {
                **EMPTY,
                "index": index,
                "vendor": "nvidia",
                "model": text(gpu.findtext("product_name")),
                "uuid": text(gpu.findtext("uuid")),
                "pci_address": address,
                "pci_id": f"10de:{identity[1].lower()}" if identity else None,
                "driver_version": text(log.findtext("driver_version")),
                "runtime_version": text(log.findtext("cuda_version")),
                "architecture": text(gpu.findtext("product_architecture")),
                "memory_total_mib": mib(gpu.findtext("fb_memory_usage/total")),
                "memory_used_mib": mib(gpu.findtext("fb_memory_usage/used")),
                "temperature_c": measure(gpu.findtext("temperature/gpu_temp"), CELSIUS),
                "power_draw_w": first_of(WATT, *told("power_draw", "average_power_draw", "instant_power_draw")),
                "power_limit_w": first_of(WATT, *told("enforced_power_limit", "current_power_limit", "power_limit")),
                "ecc": switch(gpu.findtext("ecc_mode/current_ecc")),
                "mig": None
                if mode is None
                else {
                    "enabled": mode,
                    "devices": [
                        {
                            "index": integer(part.findtext("index")),
                            "uuid": text(part.findtext("uuid")),
                            "memory_total_mib": mib(part.findtext("fb_memory_usage/total")),
                        }
                        for part in gpu.iter("mig_device")
                    ],
                },
                "health": max(reasons.values(), default="ok", key=HEALTH.index),
                "source": "nvidia-smi",
            }
        )
    attached = integer(log.findtext("attached_gpus"))
    if only is None and attached is not None and attached != len(devices):
        problems.append(
            (
                f"nvidia-smi counts {attached} GPUs, but describes {len(devices)}.",
                "Look at `dmesg` whether one has fallen off the bus; reseat or reset it, or reboot.",
            )
        )
    return devices, problems


def _sick(gpu: Element) -> Iterator[tuple[str, str]]:
    """What is wrong with the card, and the health that it has by that."""
    if switch(gpu.findtext("gpu_reset_status/reset_required")):
        yield "it must be reset", "failed"
    if switch(gpu.findtext("remapped_rows/remapped_row_failure")):
        yield "a memory row could not be remapped; the card is worn out", "failed"
    if switch(gpu.findtext("remapped_rows/remapped_row_pending")):
        yield "a memory row is to be remapped at the next reset", "degraded"
    if switch(gpu.findtext("retired_pages/pending_retirement") or gpu.findtext("retired_pages/pending_blacklist")):
        yield "memory pages are to be retired at the next reset", "degraded"
    volatile = gpu.find("ecc_errors/volatile")
    if volatile is not None and any((integer(one.text) or 0) > 0 for one in volatile.iter() if "uncorrectable" in one.tag):
        yield "uncorrectable memory errors since the driver was loaded", "failed"
    # clocks_throttle_reasons before driver 535, clocks_event_reasons after
    if any(one.tag.endswith("_hw_thermal_slowdown") and text(one.text) == "Active" for one in gpu.iter()):
        yield "it is slowed down by heat", "degraded"


def parse_nvidia_topology(said: str) -> list[dict[str, Any]]:
    """Links from the matrix of ``nvidia-smi topo -m``."""
    columns: list[str] = []
    links = []
    for line in re.sub(r"\x1b\[[0-9;]*m", "", said).splitlines():
        words = line.split()
        if not columns and words[:1] == ["GPU0"] and "X" not in words:
            columns = words
        elif columns and words and _GPU.fullmatch(words[0]):
            for column, path in zip(columns, words[1:]):
                if _GPU.fullmatch(column) and _PATH.fullmatch(path) and int(words[0][3:]) < int(column[3:]):
                    links.append(link(int(words[0][3:]), int(column[3:]), path))
    return links


def nvidia_proc(machine: Machine) -> list[dict[str, Any]]:
    """What the driver itself tells, where neither NVML nor nvidia-smi is installed: no memory, no CUDA version."""
    version = re.search(r"\b([0-9]{3,4}\.[0-9]{1,4}(?:\.[0-9]{1,4})?)\b", machine.read("proc/driver/nvidia/version"))
    devices: list[dict[str, Any]] = []
    for address in machine.names("proc/driver/nvidia/gpus"):
        # An idle driver has not asked the card: GPU-????????-…
        said = dict(re.findall(r"^([^:\n]+):[ \t]*(.+)$", machine.read(f"proc/driver/nvidia/gpus/{address}/information"), re.M))
        devices.append(
            {
                **EMPTY,
                "index": len(devices),
                "vendor": "nvidia",
                "model": text(said.get("Model")),
                "uuid": text(said.get("GPU UUID")) if "?" not in said.get("GPU UUID", "") else None,
                "pci_address": pci_address(address),
                "driver_version": version[1] if version else None,
                "source": "the driver in /proc",
            }
        )
    if devices:
        machine.problem(
            "The NVIDIA driver is loaded, but neither NVML nor nvidia-smi answers.", "apt-get install nvidia-smi, of the driver's version."
        )
    return devices
