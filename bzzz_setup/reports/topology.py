# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where a node's GPUs lie, as a picture: boxes, lines and labels with their places in an SVG's coordinates."""

from __future__ import annotations

import itertools
import re
from typing import Any

from ansible_collections.bzzz.cluster.plugins.module_utils.node.machine import items

from bzzz_setup.report import gib, number

MEANINGS = {
    "NV": "NVLink",
    "XGMI": "Infinity Fabric",
    "PIX": "one PCIe switch",
    "PXB": "several PCIe switches",
    "PHB": "the PCIe host bridge",
    "NODE": "host bridges of one NUMA node",
    "SYS": "between NUMA nodes",
}
HEIGHT, GAP, PADDING, SPACE = 62, 14, 14, 26
ARCS = 12  # more lines than these are a tangle


def meaning(path: Any) -> str:
    """`NVLink, 12 bonded` of NV12; the path itself where it isn't known."""
    text = str(path or "")
    if text.startswith("NV") and text[2:].isdecimal():
        return f"NVLink, {text[2:]} bonded"
    return MEANINGS.get(text, text or "not known")


def topology(devices: list[dict[str, Any]], links: list[dict[str, Any]], numa: list[dict[str, Any]]) -> dict[str, Any] | None:
    """`{width, height, domains, gpus, arcs, fabrics, switches, between, links}`; None for less than two GPUs."""
    gpus = [(str(device.get("vendor") or ""), device.get("index"), device) for device in devices if isinstance(device.get("index"), int)]
    if len(gpus) < 2:
        return None
    width = 118 if len(gpus) <= 8 else 74
    known = {one.get("node"): str(one.get("cpus") or "") for one in numa if isinstance(one.get("node"), int)}
    places = sorted({_domain(device) for _, _, device in gpus}, key=lambda place: (place is None, place or 0))
    pairs = _pairs(links, {(vendor, index) for vendor, index, _ in gpus})
    fabrics = _fabrics(gpus, pairs)
    woven = {frozenset(pair) for fabric in fabrics for pair in itertools.combinations(fabric["members"], 2)}
    fast = {pair: one for pair, one in pairs.items() if one["fast"] and frozenset(pair) not in woven}
    top = 18 + 30 * len(fabrics) + (64 if fast and len(fast) <= ARCS else 0)
    boxes: list[dict[str, Any]] = []
    domains: list[dict[str, Any]] = []
    x = float(GAP)
    vendors = {vendor for vendor, _, _ in gpus}
    for place in places:
        mine = [gpu for gpu in gpus if _domain(gpu[2]) == place]
        start = x
        x += PADDING
        for vendor, index, device in mine:
            name = f"{vendor} {index}" if len(vendors) > 1 else f"GPU {index}"
            # Vendors put their own name first.
            whole = str(device.get("model") or "")
            bracketed = re.search(r"\[([^\[\]]+)\]", whole)  # PCI names: `Navi 22 [Radeon RX 6700]`
            model = bracketed[1] if bracketed else whole.removeprefix("NVIDIA ").removeprefix("AMD ")
            most = width // 7
            short = model if len(model) <= most else model[: most - 1] + "…"
            box = {"x": x, "y": top, "width": width, "height": HEIGHT, "middle": x + width / 2, "name": name}
            memory = gib(number(device.get("memory_total_mib")))
            boxes.append({**box, "key": (vendor, index), "memory": memory, "model": short, "whole": whole, "place": place})
            x += width + GAP
        x += PADDING - GAP
        label = "NUMA node not known" if place is None else f"NUMA {place}" + (f" · CPUs {known[place]}" if known.get(place) else "")
        domains.append({"x": start, "y": top - 12, "width": x - start, "height": 0, "label": label})
        x += SPACE
    switches = _switches(boxes, pairs, top + HEIGHT)
    room = HEIGHT + (64 if switches else 38)
    for domain in domains:
        domain["height"] = 12 + room
    at = {box["key"]: box for box in boxes}
    for level, fabric in enumerate(fabrics):
        ends = [at[member]["middle"] for member in fabric["members"]]
        fabric.update(y=12 + 30 * level, left=min(ends) - 12, width=max(ends) - min(ends) + 24, stubs=sorted(ends), bottom=top)
    arcs = []
    for (a, b), one in fast.items() if len(fast) <= ARCS else ():
        left, right = sorted((at[a]["middle"], at[b]["middle"]))
        peak = top - 18 - min(46, (right - left) / 7)
        arcs.append(
            {
                "path": f"M{left:g} {top} C{left:g} {peak:g} {right:g} {peak:g} {right:g} {top}",
                "x": (left + right) / 2,
                "y": peak + 9,
                "label": one["path"],
            }
        )
    sockets = [domain["x"] + domain["width"] / 2 for domain in domains]
    bottom = top + room
    between = {"left": min(sockets), "right": max(sockets), "y": bottom + 16, "ends": sockets} if len(domains) > 1 else None
    return {
        "width": x - SPACE + GAP,
        "height": bottom + (30 if between else 14),
        "domains": domains,
        "gpus": [{name: value for name, value in box.items() if name not in ("key", "place")} for box in boxes],
        "arcs": arcs,
        "fabrics": [{name: value for name, value in fabric.items() if name != "members"} for fabric in fabrics],
        "switches": switches,
        "between": between,
        "links": [
            {"a": at[a]["name"], "b": at[b]["name"], "path": one["path"] or "?", "meaning": meaning(one["path"]), "hops": one["hops"]}
            for (a, b), one in pairs.items()
        ],
    }


Key = tuple[str, int]


def _domain(device: dict[str, Any]) -> int | None:
    place = device.get("numa_node")
    return place if isinstance(place, int) and not isinstance(place, bool) else None


def _pairs(links: list[dict[str, Any]], there: set[tuple[str, Any]]) -> dict[tuple[Key, Key], dict[str, Any]]:
    found = {}
    for one in links:
        vendor, between = str(one.get("vendor") or ""), items(one, "between")
        if len(between) == 2 and all(isinstance(end, int) and (vendor, end) in there for end in between) and between[0] != between[1]:
            a, b = sorted(between)
            path = str(one["path"])[:12] if one.get("path") else ""
            hops = one.get("hops") if isinstance(one.get("hops"), int) else None
            found[(vendor, a), (vendor, b)] = {"path": path, "hops": hops, "fast": one.get("kind") in ("nvlink", "xgmi")}
    return found


def _fabrics(gpus: list[tuple[str, Any, dict[str, Any]]], pairs: dict[tuple[Key, Key], dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each vendor, all of whose GPUs are joined alike and fast: one band says it better than a line for every two."""
    found = []
    for vendor in sorted({vendor for vendor, _, _ in gpus}):
        members = [(vendor, index) for of, index, _ in gpus if of == vendor]
        ways = [pairs.get(pair) for pair in itertools.combinations(sorted(members), 2)]
        if len(members) > 2 and all(way and way["fast"] for way in ways) and len({way["path"] for way in ways if way}) == 1:
            path = next(way["path"] for way in ways if way)
            found.append({"members": sorted(members), "label": f"{path} between every two ({meaning(path)})"})
    return found


def _switches(boxes: list[dict[str, Any]], pairs: dict[tuple[Key, Key], dict[str, Any]], y: int) -> list[dict[str, Any]]:
    """Brackets under neighbours that share a PCIe switch."""
    groups: list[list[dict[str, Any]]] = []
    for box in boxes:
        before = groups[-1][-1] if groups else None
        way = pairs.get(tuple(sorted((before["key"], box["key"])))) if before and before["place"] == box["place"] else None
        if way and way["path"] in ("PIX", "PXB"):
            groups[-1].append(box)
        else:
            groups.append([box])
    return [
        {
            "left": group[0]["middle"],
            "right": group[-1]["middle"],
            "y": y + 12,
            "ends": [box["middle"] for box in group],
            "label": "PCIe switch",
        }
        for group in groups
        if len(group) > 1
    ]
