# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""AMD's GPUs: by amd-smi, else by rocm-smi, else by what the amdgpu driver tells in sysfs."""

from __future__ import annotations

import re
from typing import Any

from .gpu_device import CELSIUS, EMPTY, WATT, first_of, link, measure, mib, pci_address, pci_name, switch, text
from .machine import Machine, dig, integer, items, json_in, natural

_ROCM_LINK = re.compile(r"\(Topology\) (Weight|Hops|Link type) between DRM devices ([0-9]{1,4}) and ([0-9]{1,4})")


def amd(machine: Machine, cards: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Devices and links by the first source that knows any; the kernel fills in what a tool leaves out."""
    kernel = amd_sysfs(machine, cards)
    for source in (amd_smi, rocm_smi):
        devices, links = source(machine)
        if devices:
            break
    else:
        devices, links = kernel
    installed = [machine.read(f"opt/{name}/.info/version") for name in machine.names("opt") if name.startswith("rocm")]
    known = {device["pci_address"]: device for device in kernel[0]}
    for device in devices:
        device["runtime_version"] = next(filter(None, installed), None)
        for name, value in known.get(device["pci_address"], {}).items():
            if device[name] is None:
                device[name] = value
    return devices, links


def amd_smi(machine: Machine) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    said = machine.run("amd-smi", "static", "--json")
    if said is None or said.code is None:
        return [], []
    measured = machine.run("amd-smi", "metric", "--mem-usage", "--temperature", "--power", "--ecc", "--json")
    devices = parse_amd_smi(said.out, measured.out if measured else "")
    if not devices:
        machine.problem(
            f"amd-smi tells of no GPU: {' '.join((said.err or said.out).split())[:200] or 'no output'}",
            "Is the amdgpu module loaded (lsmod), and does it fit the installed ROCm?",
        )
        return [], []
    joined = machine.run("amd-smi", "topology", "--json") if len(devices) > 1 else None
    return devices, parse_amd_topology(joined.out) if joined else []


def _by_gpu(said: str) -> dict[int, dict[str, Any]]:
    """amd-smi's objects by GPU: a list, which newer ones wrap in ``gpu_data``."""
    data = json_in(said)
    return {one["gpu"]: one for one in items(data, "gpu_data") or items(data) if isinstance(dig(one, "gpu"), int)}


def parse_amd_smi(static: str, metric: str) -> list[dict[str, Any]]:
    """Devices from the texts of ``amd-smi static --json`` and ``amd-smi metric --json``."""
    devices = []
    measured = _by_gpu(metric)
    for index, said in sorted(_by_gpu(static).items()):
        now = measured.get(index, {})
        errors = integer(dig(now, "ecc", "total_uncorrectable_count"))
        device_id = (text(dig(said, "asic", "device_id")) or "").lower().removeprefix("0x")
        devices.append(
            {
                **EMPTY,
                "index": index,
                "vendor": "amd",
                "model": text(dig(said, "asic", "market_name")) or text(dig(said, "board", "product_name")),
                "uuid": unique_id(dig(said, "asic", "asic_serial")),
                "pci_address": pci_address(text(dig(said, "bus", "bdf"))),
                "pci_id": f"1002:{device_id}" if device_id else None,
                "driver_version": text(dig(said, "driver", "version")) or text(dig(said, "driver", "driver_version")),
                "compute_capability": text(dig(said, "asic", "target_graphics_version")),
                "memory_total_mib": mib(dig(said, "vram", "size")) or mib(dig(now, "mem_usage", "total_vram")),
                "memory_used_mib": mib(dig(now, "mem_usage", "used_vram")),
                "numa_node": integer(dig(said, "numa", "node")),
                "temperature_c": first_of(CELSIUS, *(dig(now, "temperature", name) for name in ("edge", "hotspot"))),
                "power_draw_w": first_of(WATT, *(dig(now, "power", f"{name}socket_power") for name in ("", "current_", "average_"))),
                "power_limit_w": first_of(WATT, dig(said, "limit", "max_power"), dig(said, "limit", "ppt0", "max_power_limit")),
                "ecc": switch(dig(said, "ras", "ecc_block_state", "UMC") or dig(said, "ras", "ecc_block_state", 0, "status")),
                "health": None if errors is None else "failed" if errors else "ok",
                "source": "amd-smi",
            }
        )
    return devices


def parse_amd_topology(said: str) -> list[dict[str, Any]]:
    """Links from the text of ``amd-smi topology --json``."""
    found = {}
    for a, one in _by_gpu(said).items():
        for other in items(one, "links"):
            b, kind = dig(other, "gpu"), text(dig(other, "link_type"))
            if isinstance(b, int) and a != b and kind:
                path = "XGMI" if kind == "XGMI" else None
                found[min(a, b), max(a, b)] = link(a, b, path, integer(dig(other, "num_hops")), integer(dig(other, "weight")))
    return list(found.values())


def rocm_smi(machine: Machine) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    wanted = ("id", "uniqueid", "productname", "bus", "driverversion", "temp", "power", "maxpower", "topo")
    said = machine.run("rocm-smi", *(f"--show{name}" for name in wanted), "--showmeminfo", "vram", "--json")
    if said and said.code not in (0, None) and not parse_rocm_smi(said.out)[0]:
        said = machine.run("rocm-smi", "-a", "--json")  # an old one that lacks an option
    if said is None or said.code is None:
        return [], []
    devices, links = parse_rocm_smi(said.out)
    if not devices:
        machine.problem(
            f"rocm-smi tells of no GPU: {' '.join((said.err or said.out).split())[:200] or 'no output'}",
            "Is the amdgpu module loaded (lsmod), and does it fit the installed ROCm?",
        )
    return devices, links


def parse_rocm_smi(said: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Devices and links from the JSON of rocm-smi."""
    data = json_in(said)
    data = data if isinstance(data, dict) else {}
    system = data["system"] if isinstance(data.get("system"), dict) else {}
    devices = []
    for card in sorted((name for name in data if re.fullmatch(r"card[0-9]{1,4}", name)), key=natural):
        # The case of the names has changed with ROCm 6.
        told = {name.lower(): value for name, value in data[card].items()} if isinstance(data[card], dict) else {}

        def first(*names: str, told: dict[str, Any] = told) -> str | None:
            return next((found for name in names if (found := text(told.get(name)))), None)

        model = first("card series", "market name", "device name", "card model")
        identity = re.fullmatch(r"0x([0-9a-f]{4})", (first("device id", "gpu id") or "").lower())
        numa = integer(first("(topology) numa node"))
        devices.append(
            {
                **EMPTY,
                "index": int(card[4:]),
                "vendor": "amd",
                "model": None if re.fullmatch(r"0x[0-9a-fA-F]+", model or "0x0") else model,
                "uuid": unique_id(first("unique id")),
                "pci_address": pci_address(first("pci bus")),
                "pci_id": f"1002:{identity[1]}" if identity else None,
                "driver_version": text(system.get("Driver version")),
                "compute_capability": first("gfx version"),
                "memory_total_mib": mib(f"{first('vram total memory (b)')} B"),
                "memory_used_mib": mib(f"{first('vram total used memory (b)')} B"),
                "numa_node": numa if numa is not None and numa >= 0 else None,
                "temperature_c": measure(first("temperature (sensor edge) (c)", "temperature (sensor junction) (c)"), CELSIUS),
                "power_draw_w": measure(first("average graphics package power (w)", "current socket graphics package power (w)"), WATT),
                "power_limit_w": measure(first("max graphics package power (w)"), WATT),
                "source": "rocm-smi",
            }
        )
    pairs: dict[tuple[int, int], dict[str, Any]] = {}
    for name, value in system.items():
        match = _ROCM_LINK.fullmatch(name)
        if match and match[2] != match[3]:
            pairs.setdefault((int(match[2]), int(match[3])), {})[match[1]] = value
    return devices, [
        link(a, b, "XGMI" if one.get("Link type") == "XGMI" else None, integer(one.get("Hops")), integer(one.get("Weight")))
        for (a, b), one in pairs.items()
    ]


def unique_id(value: object) -> str | None:
    """AMD's 64-bit unique id, with all its digits as ROCm's runtime has them; rocm-smi leaves zeros out, sysfs the prefix."""
    number = integer(text(value), 16)
    return f"0x{number:016x}" if number else None


def amd_sysfs(machine: Machine, cards: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What the amdgpu driver tells in sysfs; the links are those of its compute part (KFD)."""
    release = machine.read("sys/module/amdgpu/version") or machine.read("proc/sys/kernel/osrelease")
    devices: list[dict[str, Any]] = []
    for card in cards:
        if card["driver"] != "amdgpu":
            continue
        folder = f"sys/bus/pci/devices/{card['pci_address']}"
        sensors = f"{folder}/hwmon/" + next(iter(machine.names(f"{folder}/hwmon")), "none")
        total, used = (machine.integer(f"{folder}/mem_info_vram_{name}") for name in ("total", "used"))
        cap, draw = machine.integer(f"{sensors}/power1_cap"), machine.integer(f"{sensors}/power1_average")
        heat = machine.integer(f"{sensors}/temp1_input")
        devices.append(
            {
                **EMPTY,
                **{name: value for name, value in card.items() if name in EMPTY},
                "index": len(devices),
                "model": text(machine.read(f"{folder}/product_name")) or pci_name(machine, card["pci_id"]),
                "uuid": unique_id(machine.read(f"{folder}/unique_id")),
                "driver_version": text(release),
                "memory_total_mib": None if total is None else total >> 20,
                "memory_used_mib": None if used is None else used >> 20,
                "temperature_c": None if heat is None else heat / 1000,
                "power_draw_w": None if draw is None else draw / 1e6,
                "power_limit_w": None if cap is None else cap / 1e6,
                "source": "sysfs",
            }
        )
    return devices, _kfd(machine, devices)


def _kfd(machine: Machine, devices: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Fills in the graphics version; returns the links."""
    nodes, base = {}, "sys/class/kfd/kfd/topology/nodes"
    for node in machine.names(base):
        told = _properties(machine.read(f"{base}/{node}/properties"))
        location, version = told.get("location_id", 0), told.get("gfx_target_version", 0)
        address = f"{told.get('domain', 0):04x}:{location >> 8 & 0xFF:02x}:{location >> 3 & 0x1F:02x}.{location & 7}"
        for device in devices if version else []:
            if device["pci_address"] == address:
                nodes[node] = device["index"]
                device["compute_capability"] = f"gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}"
    links = []
    for node, index in nodes.items():
        around = [f"{base}/{node}/{kind}" for kind in ("io_links", "p2p_links")]
        for folder in (f"{kind}/{name}" for kind in around for name in machine.names(kind)):
            told = _properties(machine.read(f"{folder}/properties"))
            other = nodes.get(str(told.get("node_to")))
            if other is not None and other > index:
                links.append(link(index, other, "XGMI" if told.get("type") == 11 else None, None, told.get("weight")))
    return links


def _properties(said: str) -> dict[str, int]:
    return {name: int(value) for name, value in re.findall(r"^(\w+) ([0-9]{1,20})$", said, re.M)}
