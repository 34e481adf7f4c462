# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a GPU and a link between two of them look like, whoever made them; and how the values that tools print are read."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .machine import Machine

# nvidia-smi and amd-smi say MB where they mean MiB.
MIB: dict[str, float] = {"": 1, "b": 2**-20} | {
    prefix + unit: 1024.0**power for power, prefix in enumerate("kmgt", -1) for unit in ("b", "ib")
}
WATT: dict[str, float] = {"w": 1, "mw": 1e-3, "kw": 1e3, "": 1}
CELSIUS: dict[str, float] = {"c": 1, "": 1}
# A device, before anything is known of it.
EMPTY: dict[str, Any] = {
    "index": None,
    "vendor": None,
    "model": None,
    "uuid": None,
    "pci_address": None,
    "pci_id": None,
    "driver_version": None,
    "runtime_version": None,
    "compute_capability": None,
    "architecture": None,
    "memory_total_mib": None,
    "memory_used_mib": None,
    "numa_node": None,
    "pcie_gts": None,
    "pcie_width": None,
    "temperature_c": None,
    "power_draw_w": None,
    "power_limit_w": None,
    "ecc": None,
    "mig": None,
    "health": None,  # ok, degraded (it works, and wants a look), failed (it is not to be used)
    "source": None,
}
_NOTHING = re.compile(
    r"\[?(n/?a|none|null|not (supported|available|applicable|found)|unknown.*|requested functionality.*|insufficient permissions|"
    r"gpu is lost|gpu requires reset|err!?|error.*)?\]?",
    re.IGNORECASE,
)


def text(value: object) -> str | None:
    """A tool's text, or None for the many ways of saying that there is nothing to say."""
    if isinstance(value, dict):  # amd-smi: {"value": 16, "unit": "GB"}
        value = " ".join(str(value[name]) for name in ("value", "unit") if name in value)
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        value = " ".join(str(value).split())[:200]
        return None if _NOTHING.fullmatch(value) else value
    return None


def measure(value: object, units: dict[str, float]) -> float | None:
    """A number by its unit; None for a unit that isn't in ``units``."""
    match = re.fullmatch(r"(-?[0-9]{1,18}(?:\.[0-9]{1,9})?) ?([A-Za-z°]*)", text(value) or "")
    factor = units.get(match[2].lower().lstrip("°")) if match else None
    return round(float(match[1]) * factor, 2) if match and factor else None


def first_of(units: dict[str, float], *values: object) -> float | None:
    """The first of these measures that is known."""
    return next((found for value in values if (found := measure(value, units)) is not None), None)


def mib(value: object) -> int | None:
    found = measure(value, MIB)
    return None if found is None else int(found)


def switch(value: object) -> bool | None:
    return {"enabled": True, "disabled": False, "yes": True, "no": False, "active": True}.get((text(value) or "").lower())


def pci_address(text: str | None) -> str | None:
    """As sysfs writes it: ``0000:01:00.0``; nvidia-smi uses eight digits for the domain, and capitals."""
    match = re.fullmatch(r"(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}:[0-9a-f]{2}\.[0-7])", (text or "").strip().lower())
    return f"{int(match[1] or '0', 16):04x}:{match[2]}" if match else None


def pci_name(machine: Machine, pci_id: str | None) -> str | None:
    """The card's name by the PCI ID database, where it is installed."""
    vendor, _colon, device = (pci_id or "").partition(":")
    text = machine.read("usr/share/misc/pci.ids") or machine.read("usr/share/hwdata/pci.ids")
    block = re.search(rf"^{re.escape(vendor)}  .*\n((?:[\t#].*\n|\n)*)", text + "\n", re.M) if device else None
    line = re.search(rf"^\t{re.escape(device)}  (.+)$", block[1], re.M) if block else None
    return line[1].strip() if line else None


# Links: {vendor, between: [index, index], kind: nvlink|xgmi|pcie, path, hops, weight}.
# path, in nvidia-smi's terms: NV# (# bonded NVLinks), XGMI, PIX (one PCIe switch), PXB (several), PHB (the host bridge), NODE (host
# bridges of one NUMA node), SYS (across NUMA nodes).


def link(a: int, b: int, path: str | None, hops: int | None = None, weight: int | None = None) -> dict[str, Any]:
    kind = "nvlink" if re.match(r"NV[0-9]", path or "") else "xgmi" if path == "XGMI" else "pcie"
    return {"between": [min(a, b), max(a, b)], "kind": kind, "path": path, "hops": hops, "weight": weight}
