# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The machines of a report: plain data for bars, tables and the picture of GPUs. Taken are named facts only."""

from __future__ import annotations

from typing import Any

from ansible_collections.bzzz.cluster.plugins.module_utils.node.machine import dig, items

from bzzz_setup.report import Report, count, few, gib, number
from bzzz_setup.reports.topology import topology


def share(part: Any, whole: Any) -> float:
    """Percent of the whole, 0 to 100."""
    return round(max(0.0, min(100.0, 100 * part / whole)), 2) if number(part) is not None and number(whole) else 0.0


def _used(total: Any, free: Any = None, used: Any = None) -> dict[str, Any] | None:
    """A bar `{percent, text}` of MiB in use; None where the total isn't known."""
    total, free, used = number(total), number(free), number(used)
    if not total or total < 0:
        return None
    if used is None and free is not None:
        used = total - free
    if used is None:
        return {"percent": 0.0, "text": gib(total), "full": False}
    percent = share(used, total)
    return {"percent": percent, "text": f"{gib(max(used, 0)) or '0 GiB'} of {gib(total)} used", "full": percent >= 90}


def _text(*parts: Any) -> str:
    return " ".join(str(part) for part in parts if part is not None and part != "" and not isinstance(part, (dict, list, bool)))


def _which(value: Any, true: str, false: str) -> str:
    return (true if value else false) if isinstance(value, bool) else ""


def _pairs(*rows: tuple[str, str]) -> list[dict[str, str]]:
    return [{"label": label, "value": value} for label, value in rows if value]


def _dicts(data: Any, *keys: str | int) -> list[dict[str, Any]]:
    return [one for one in items(data, *keys) if isinstance(one, dict)]


def hardware(report: Report, name: str) -> dict[str, Any]:
    facts = report.facts[name]
    system, network = facts["bzzz_system"], facts.get("bzzz_network")
    memory, release = dig(system, "memory"), dig(system, "os")
    disks = _dicts(system, "disks")
    largest = max((number(disk.get("size_mib")) or 0 for disk in disks), default=0)
    gpus = [_gpu(device) for device in _dicts(facts, "bzzz_gpu", "devices")]
    return {
        "name": name,
        "summary": report.hardware(name),
        "gpu_count": len(gpus),
        "system": _pairs(
            ("System", _text(dig(release, "name"))),
            ("Kernel", _text(dig(release, "kernel"), dig(release, "architecture"))),
            (
                "Machine",
                _text(dig(release, "hardware")) or (f"container ({dig(release, 'container')})" if dig(release, "container") else ""),
            ),
            ("Python", _text(dig(release, "python_version"))),
        ),
        "cpu": _cpu(dig(system, "cpu")),
        "numa": [
            {"node": _text(one.get("node")), "cpus": _text(one.get("cpus")), "memory": gib(number(one.get("memory_total_mib")))}
            for one in _dicts(system, "cpu", "numa")
        ],
        "memory": _used(dig(memory, "total_mib"), dig(memory, "available_mib")),
        "swap": _used(dig(memory, "swap_total_mib"), dig(memory, "swap_free_mib")),
        "disks": [
            {
                "name": _text(disk.get("name")),
                "model": _text(disk.get("model")),
                "kind": _which(disk.get("rotational"), "rotating", "SSD"),
                "size": gib(number(disk.get("size_mib"))),
                "percent": share(disk.get("size_mib"), largest),
            }
            for disk in disks
        ],
        "mounts": [
            {
                "path": _text(mount.get("path")),
                "device": _text(mount.get("device")),
                "type": _text(mount.get("type"), "read-only" if mount.get("read_only") is True else ""),
                "used": _used(mount.get("total_mib"), mount.get("available_mib")),
            }
            for mount in _dicts(system, "mounts")
        ],
        "gpus": gpus,
        "interfaces": [
            _interface(one, dig(network, "primary_interface")) for one in _dicts(network, "interfaces") if one.get("kind") != "loopback"
        ],
    }


def _cpu(cpu: Any) -> list[dict[str, str]]:
    shape = [(dig(cpu, part), noun) for part, noun in (("sockets", "socket"), ("cores", "core"), ("threads", "thread"))]
    return _pairs(
        ("CPU", _text(dig(cpu, "model") or dig(cpu, "architecture"))),
        ("Shape", ", ".join(count(int(found), noun) for found, noun in shape if number(found))),
        ("For models", ", ".join(str(flag) for flag in items(cpu, "flags"))),
        ("Governor", _text(dig(cpu, "governor"))),
    )


def _gpu(device: dict[str, Any]) -> dict[str, Any]:
    draw, limit = number(device.get("power_draw_w")), number(device.get("power_limit_w"))
    heat, speed = number(device.get("temperature_c")), number(device.get("pcie_gts"))
    mig = dig(device, "mig", "enabled")
    return {
        "name": _text(device.get("vendor"), device.get("index")),
        "model": _text(device.get("model")) or "unknown model",
        "memory": _used(device.get("memory_total_mib"), used=device.get("memory_used_mib")),
        "health": _text(device.get("health")),
        "status": {"ok": "pass", "degraded": "warn", "failed": "fail"}.get(str(device.get("health")), "skip"),
        "details": _pairs(
            ("Driver", _text(device.get("driver_version"))),
            ("Runtime", _text(device.get("runtime_version"))),
            ("Capability", _text(device.get("compute_capability"))),
            ("Temperature", f"{heat:g} °C" if heat is not None else ""),
            ("Power", " of ".join(f"{watts:g} W" for watts in (draw, limit) if watts is not None)),
            (
                "PCI",
                _text(
                    device.get("pci_address"),
                    f"{speed:g} GT/s" if speed else "",
                    f"x{_text(device.get('pcie_width'))}" if device.get("pcie_width") else "",
                ),
            ),
            ("NUMA node", _text(device.get("numa_node"))),
            ("ECC", _which(device.get("ecc"), "on", "off")),
            ("MIG", f"on, {count(len(items(device, 'mig', 'devices')), 'device')}" if mig is True else ""),
            ("UUID", _text(device.get("uuid"))),
        ),
    }


def _interface(found: dict[str, Any], primary: Any) -> dict[str, str]:
    addresses = ", ".join(f"{one.get('address')}/{one.get('prefix')}" for one in _dicts(found, "addresses"))
    speed = number(found.get("speed_mbps"))
    return {
        "name": _text(found.get("name")),
        "primary": "primary" if found.get("name") and found.get("name") == primary else "",
        "kind": _text(found.get("kind")),
        "state": "no carrier" if found.get("up") and found.get("carrier") is False else _text(found.get("state")),
        "addresses": addresses,
        "speed": (f"{speed / 1000:g} Gb/s" if speed >= 1000 else f"{speed:g} Mb/s") if speed else "",
        "mtu": _text(found.get("mtu")),
        "mac": _text(found.get("mac")),
        "driver": _text(found.get("driver")),
    }


def topologies(report: Report, names: list[str]) -> list[dict[str, Any]]:
    """One picture for all nodes whose GPUs lie alike."""
    told: dict[str, dict[str, Any]] = {}
    for name in names:
        gpus = dig(report.facts, name, "bzzz_gpu")
        if drawn := topology(_dicts(gpus, "devices"), _dicts(gpus, "links"), _dicts(report.facts, name, "bzzz_system", "cpu", "numa")):
            told.setdefault(repr(drawn), {**drawn, "nodes": [], "models": report.gpus(name)})["nodes"].append(name)
    return [{**drawn, "where": few(drawn["nodes"], 8)} for drawn in told.values()]
