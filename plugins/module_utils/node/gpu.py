# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""GPUs and the links between them.

The PCI bus tells which GPUs are there, whatever is installed. What they are and have is told by the vendor's library or tool, and
where that is missing by the kernel. Whatever a source says is taken with care: a value that isn't understood is None, and what an
operator needs and doesn't get is a problem.
"""

from __future__ import annotations

import itertools
import re
from typing import Any

from .gpu_device import EMPTY, link, pci_name
from .machine import Machine, dig

VENDORS = {"0x10de": "nvidia", "0x1002": "amd"}
TOOLS = {"nvidia": ("nvidia-smi",), "amd": ("amd-smi", "rocm-smi")}
_PCI_PART = re.compile(r"pci.*|[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")


def main(payload: dict[str, Any]) -> dict[str, Any]:
    """``{devices, links, problems}``."""
    machine = Machine(payload)
    cards = pci_cards(machine)
    devices: list[dict[str, Any]] = []
    links: list[dict[str, Any]] = []
    for vendor, tools in TOOLS.items():
        there = [card for card in cards if card["vendor"] == vendor]
        if there or any(map(machine.which, tools)):
            found, joined = ask(vendor, machine, there)
            found = complete(machine, vendor, found, there)
            devices += found
            links += place_links(machine, vendor, found, joined)
    return {"devices": devices, "links": links, "problems": machine.problems}


def ask(vendor: str, machine: Machine, cards: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Devices and links; a vendor's program is only compiled where it is needed."""
    if vendor == "nvidia":
        from .gpu_nvidia import nvidia  # noqa: PLC0415

        return nvidia(machine, cards)
    from .gpu_amd import amd  # noqa: PLC0415

    return amd(machine, cards)


def pci_cards(machine: Machine) -> list[dict[str, Any]]:
    """GPUs by their PCI class (display controller or processing accelerator), with what sysfs tells of them."""
    cards = []
    for address in machine.names("sys/bus/pci/devices"):
        folder = f"sys/bus/pci/devices/{address}"
        vendor = VENDORS.get(machine.read(f"{folder}/vendor"))
        if vendor and machine.read(f"{folder}/class")[:4] in ("0x03", "0x12"):
            node = machine.integer(f"{folder}/numa_node")
            speed = re.match(r"[0-9]{1,3}(\.[0-9])?", machine.read(f"{folder}/max_link_speed"))
            device = machine.read(f"{folder}/device")[2:]
            cards.append(
                {
                    "vendor": vendor,
                    "pci_address": address,
                    "pci_id": f"{machine.read(f'{folder}/vendor')[2:]}:{device}",
                    "numa_node": node if node is not None and node >= 0 else None,
                    "pcie_gts": float(speed[0]) if speed else None,
                    "pcie_width": machine.integer(f"{folder}/max_link_width") or None,
                    "driver": machine.target(f"{folder}/driver"),
                }
            )
    return cards


def complete(machine: Machine, vendor: str, found: list[dict[str, Any]], cards: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The devices with what the PCI bus adds, those cards that no tool told of, and problems for what is missing."""
    by_address = {card["pci_address"]: card for card in cards}
    for device in found:
        card = by_address.pop(device["pci_address"], {})
        for name, value in card.items():
            if name in device and device[name] is None:
                device[name] = value
    for card in by_address.values():
        found.append({**EMPTY, **{name: value for name, value in card.items() if name in EMPTY}, "source": "pci"})
        _unserved(machine, card)
    for device in found:
        name = f"{vendor.upper()} GPU {device['pci_address'] or device['index']}"
        if device["model"] is None or device["model"] == "Graphics Device":
            known = pci_name(machine, device["pci_id"])
            if device["model"]:
                machine.problem(
                    f"{name}: driver {device['driver_version']} does not know this card ({known or device['pci_id']}).",
                    "Install a newer driver.",
                )
            device["model"] = known or device["model"]
        lacking = [what for what in ("model", "uuid", "driver_version", "memory_total_mib") if device[what] is None]
        if lacking and device["source"] != "pci":
            machine.problem(
                f"{name}: {device['source']} does not tell its {', '.join(lacking)}.",
                "Nothing to do, if the card has none (consumer cards have no unique id; use the PCI address); else update driver and tool.",
            )
        if dig(device, "mig", "enabled") and not device["mig"]["devices"]:
            machine.problem(
                f"{name}: MIG is on, but no MIG device has been made: nothing can compute on it.",
                "Make one (nvidia-smi mig -cgi 0 -C) or turn MIG off (nvidia-smi -mig 0).",
            )
    return found


def _unserved(machine: Machine, card: dict[str, Any]) -> None:
    vendor, driver, address = card["vendor"], card["driver"], card["pci_address"]
    install = "apt-get install nvidia-driver nvidia-smi" if vendor == "nvidia" else "install AMD's amdgpu driver and ROCm"
    if driver == "vfio-pci":
        what, remedy = "is kept for virtual machines (vfio-pci)", "Nothing to do, if that is wanted; else unbind it from vfio-pci."
    elif driver == "nouveau":
        what, remedy = "is driven by nouveau, which cannot compute", f"Install the vendor's driver ({install}) and reboot."
    elif driver:
        what, remedy = (
            f"has driver {driver}, but nothing answers for it",
            f"Look at `dmesg`; reinstall it ({install}) and reboot.",
        )
    else:
        what, remedy = "has no driver", f"Install it ({install}) and reboot, or leave the GPU unused."
    machine.problem(f"{vendor.upper()} GPU {address} ({card['pci_id']}) {what}.", remedy)


def place_links(machine: Machine, vendor: str, devices: list[dict[str, Any]], told: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Told links between devices that are there; what the tool left out is read off the PCI tree."""
    there = {device["index"]: device for device in devices if device["index"] is not None}
    links: dict[tuple[int, int], dict[str, Any]] = {(one["between"][0], one["between"][1]): one for one in told}
    strangers = {index for pair in links for index in pair} - set(there)
    if strangers and there:
        machine.problem(
            f"The {vendor.upper()} topology names {len(strangers)} GPUs that are not described otherwise "
            f"(index {', '.join(map(str, sorted(strangers)))}).",
            "Look whether a GPU has fallen off the bus (dmesg), or is hidden from the tool (a container, *_VISIBLE_DEVICES).",
        )
    for pair in itertools.combinations(sorted(there), 2):
        one = links.setdefault(pair, link(*pair, None))
        if one["path"] is None:
            one["path"] = pci_path(machine, *(there[index] for index in pair))
    return [{"vendor": vendor, **one} for pair, one in sorted(links.items()) if set(pair) <= set(there)]


def pci_path(machine: Machine, a: dict[str, Any], b: dict[str, Any]) -> str | None:
    """How far two devices are apart in the PCI tree; None where sysfs doesn't have them."""
    places = [machine.root / "sys/bus/pci/devices" / (one["pci_address"] or "none") for one in (a, b)]
    if not all(place.exists() for place in places):
        return None
    left, right = ([part for part in place.resolve().parts if _PCI_PART.fullmatch(part)] for place in places)
    common = 0
    while common < min(len(left), len(right)) and left[common] == right[common]:
        common += 1
    if common == 0:
        return "SYS" if a["numa_node"] != b["numa_node"] else "NODE"
    if common == 1:
        return "PHB"
    return "PIX" if max(len(left), len(right)) - common <= 2 else "PXB"
