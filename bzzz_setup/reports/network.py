# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The ways between the nodes as a heat map: one cell for each, or for each two blocks of nodes where there are many."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable
from typing import Any

from ansible_collections.bzzz.cluster.plugins.module_utils.node.machine import items, natural
from ansible_collections.bzzz.cluster.plugins.module_utils.probe import carried

from bzzz_setup.report import count, number

# Beyond this many nodes the cells stand for groups of them.
MATRIX_NODES = 40
GROUPS = 20
# That stand out, and are named.
WAYS = 20
# Milliseconds up to which a way counts as of this level of heat.
HEAT = (0.1, 0.3, 1, 3, 10, 30)


def network(cells: dict[str, dict[str, dict[str, Any]]]) -> dict[str, Any] | None:
    """Rows of cells `{text, heat, title}` for latency, and the same for the other layers; blocks of nodes where there are many."""
    names = sorted({*cells, *(peer for row in cells.values() for peer in row)}, key=natural)
    ways = {(node, peer): cell for node, row in cells.items() for peer, cell in row.items() if "reachable" in cell}
    if not ways:
        return None
    size = 1 if len(names) <= MATRIX_NODES else -(-len(names) // GROUPS)
    blocks = [names[at : at + size] for at in range(0, len(names), size)]
    labels = [block[0] if len(block) == 1 else f"{block[0]} … {block[-1]}" for block in blocks]
    at = {name: index for index, block in enumerate(blocks) for name in block}
    grid: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for (node, peer), cell in ways.items():
        grid.setdefault((at[node], at[peer]), []).append(cell)
    lost = [cell for cell in ways.values() if not cell["reachable"]]
    latencies = [cell["latency_ms"] for cell in ways.values() if cell["reachable"] and number(cell.get("latency_ms")) is not None]
    sentence = f"{len(ways) - len(lost)} of {count(len(ways), 'way')} between {len(names)} nodes answer"
    if latencies:
        sentence += f"; the median latency is {statistics.median(latencies):.2g} ms, the largest {max(latencies):.3g} ms"
    layers = [
        ("latency", "Latency in milliseconds", _latency),
        ("mtu", "Largest packet (MTU) in bytes that gets there", _mtu),
        ("clock", "Clock of the peer ahead of the node's, in milliseconds", _clock),
        ("lost", "Packets lost, in per cent", _lost),
    ]
    odd = _odd_ways(ways, latencies)
    return {
        "sentence": sentence + ".",
        "labels": labels,
        "size": size,
        "legend": [{"heat": level, "text": text} for level, text in enumerate([*(f"≤ {most:g}" for most in HEAT), f"> {HEAT[-1]:g}"])],
        "layers": [layer for name, title, cell in layers if (layer := _layer(name, title, cell, grid, labels, size))],
        "odd": odd[:WAYS],
        "more": max(0, len(odd) - WAYS),
    }


Cell = Callable[[list[dict[str, Any]]], tuple[str, float | None]]


def _layer(
    name: str, title: str, cell: Cell, grid: dict[tuple[int, int], list[dict[str, Any]]], labels: list[str], size: int
) -> dict[str, Any] | None:
    rows: list[dict[str, Any]] = []
    values: list[float] = []
    for node, label in enumerate(labels):
        row: list[dict[str, Any]] = []
        for peer in range(len(labels)):
            ways = grid.get((node, peer), [])
            if not ways:
                row.append({"text": "-" if node == peer else "·", "heat": "self" if node == peer else "none"})
                continue
            gone = sum(not way["reachable"] for way in ways)
            text, value = cell([way for way in ways if way["reachable"]])
            if value is not None:
                values.append(value)
            if gone:
                row.append({"text": "✗" if len(ways) == 1 else f"{gone} ✗", "heat": "gone"})
            else:
                row.append({"text": text, "heat": _heat(value) if name == "latency" and value is not None else "none"})
        rows.append({"label": label, "cells": row})
    if not values:
        return None
    low, high = min(values), max(values)
    same = f"{high:g} everywhere" if low == high else f"{low:g} to {high:g}"
    return {"name": name, "title": title, "same": same, "rows": rows}


def _heat(milliseconds: float) -> int:
    return sum(milliseconds > most for most in HEAT)


def _latency(ways: list[dict[str, Any]]) -> tuple[str, float | None]:
    """The slowest."""
    found = [value for way in ways if (value := number(way.get("latency_ms"))) is not None]
    return (f"{max(found):.2f}" if max(found) < 10 else f"{max(found):.0f}", max(found)) if found else ("?", None)


def _mtu(ways: list[dict[str, Any]]) -> tuple[str, float | None]:
    """The narrowest."""
    found = [value for way in ways if (value := number(carried(way))) is not None]
    return (f"{min(found):.0f}", min(found)) if found else ("?", None)


def _clock(ways: list[dict[str, Any]]) -> tuple[str, float | None]:
    """The largest offset."""
    found = [
        (1000 * value, 1000 * (number(way.get("clock_uncertainty_seconds")) or 0))
        for way in ways
        if (value := number(way.get("clock_offset_seconds"))) is not None
    ]
    if not found:
        return "?", None
    most, doubt = max(found, key=lambda one: abs(one[0]) - one[1])
    # What is less than the doubt is nothing that was seen.
    return (f"{most:+.1f}" if not doubt else f"{most:+.0f} ± {doubt:.0f}" if abs(most) > doubt else f"0 ± {doubt:.0f}"), round(most, 1)


def _lost(ways: list[dict[str, Any]]) -> tuple[str, float | None]:
    """The worst."""
    found = [loss for way in ways if (loss := _loss(way)) is not None]
    return (f"{max(found):.0f}", max(found)) if found else ("?", None)


def _loss(way: dict[str, Any]) -> float | None:
    """Per cent of what was sent."""
    lost, sent = number(way.get("lost")), number(way.get("sent"))
    return 100 * lost / sent if lost is not None and sent else None


def _odd_ways(ways: dict[tuple[str, str], dict[str, Any]], latencies: list[float]) -> list[dict[str, Any]]:
    """Ways that are cut, lossy, much slower than the others, narrower, or whose name does not resolve; worst first."""
    usual = statistics.median(latencies) if latencies else 0
    mtus = Counter(carried(cell) for cell in ways.values() if carried(cell))
    common = mtus.most_common(1)[0][0] if mtus else None
    told: list[tuple[float, dict[str, Any]]] = []
    for (node, peer), cell in ways.items():
        why, weight = [], 0.0
        latency = number(cell.get("latency_ms")) or 0
        if not cell["reachable"]:
            why, weight = [str(cell.get("why") or "does not answer")], 1e9
        elif latency > max(1, 5 * usual):
            why.append(f"{latency:g} ms")
            weight += latency
        if loss := _loss(cell):
            why.append(f"{loss:.0f} % of packets lost")
            weight += 10 * loss
        if (mtu := number(carried(cell))) and mtu != number(cell.get("mtu")):
            why.append(f"sends packets of up to {cell['mtu']} bytes, of which those over {mtu:g} are lost")
            weight += 1000
        elif mtu and common and mtu != common:
            why.append(f"MTU {mtu:g}, elsewhere {common}")
            weight += 1000
        if "resolves" in cell and cell.get("address") not in items(cell, "resolves"):
            resolved = items(cell, "resolves")
            why.append(f"its name is {resolved[0]} there" if resolved else "its name is not known there")
            weight += 0.5
        if why:
            status = "fail" if not cell["reachable"] else "warn" if weight > 0.5 else "skip"
            told.append((weight, {"status": status, "node": node, "peer": peer, "why": "; ".join(why)}))
    return [way for _, way in sorted(told, key=lambda one: (-one[0], natural(one[1]["node"]), natural(one[1]["peer"])))]
