# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The controller's side of the benchmark: what a node is to measure, and what its figures mean."""

from __future__ import annotations

from typing import Any, NamedTuple

from .node.models import short


class Measure(NamedTuple):
    """A measurement: its figure and unit, the argument that limits it (from below, if `least`), title and remedy of its check.

    `broken` is the remedy where nothing could be measured.
    """

    figure: str
    unit: str
    limit: str
    least: bool
    title: str
    remedy: str
    broken: str


def _throughput(title: str, remedy: str, broken: str) -> Measure:
    return Measure("mib_per_second", "MiB/s", "min_mib_per_second", True, title, remedy, broken)


MEASURES = {
    "disk": _throughput(
        "The disk writes fast enough",
        "Put the path on a faster disk, or declare a smaller minimum.",
        "Free space there, or run step 5 again: bzzz-setup apply --only 5.",
    ),
    "http": Measure(
        "median_ms",
        "ms",
        "max_median_ms",
        False,
        "The service answers fast enough",
        "Look at the node's load and the service's journal, or declare a larger limit.",
        "Run step 6 again: bzzz-setup apply --only 6. If it fails again, 'journalctl -u bzzz' on the node says why.",
    ),
    "gateway": Measure(
        "median_ms",
        "ms",
        "max_median_ms",
        False,
        "The AI gateway answers fast enough",
        "Look at the node's load and 'journalctl -u bzzz-gateway', or declare a larger limit.",
        "Run step 4 again: bzzz-setup apply --only 4. If it fails again, 'journalctl -u bzzz-gateway' on the node says why.",
    ),
    "models": Measure(
        "tokens_per_second",
        "tokens/s",
        "min_tokens_per_second",
        True,
        "Models write fast enough",
        "See by 'bzzz-setup models plan' whether they are on GPUs, and by 'ollama ps' on the node; or declare a smaller minimum.",
        "Look at 'journalctl -u bzzz-ollama@0' on the node, or that of the Ollama that was there.",
    ),
    "network": _throughput(
        "The way to the next node is fast enough",
        "Look at link speed, duplex and cabling of both nodes (step 1 lists them), or declare a smaller minimum.",
        "Run step 2 again: bzzz-setup apply --only 2. It tries every port from every peer and names what is shut.",
    ),
    "cpu": _throughput(
        "The CPU hashes fast enough",
        "Look at the node's load and CPU governor, or declare a smaller minimum.",
        "Look at the node's journal (journalctl -p err -b).",
    ),
}


def payload(node: str, args: dict[str, Any]) -> tuple[dict[str, Any], dict[str, float]]:
    """What node program ``bench`` is to measure, and each measurement's limit (0: none). Models are called as Ollama lists them.

    Every node sends to the one after it in the order of names, so that each link carries one stream out and one in.
    """
    wanted: dict[str, Any] = {}
    limits: dict[str, float] = {}
    for kind, measure in MEASURES.items():
        if not args.get(kind):
            continue
        given = {key: value for key, value in args[kind].items() if value is not None}
        limits[kind] = given.pop(measure.limit, 0)
        if kind == "network":
            others = sorted(
                (peer for peer in given.pop("peers") if peer["name"] != node), key=lambda peer: (peer["name"] < node, peer["name"])
            )
            if not others:
                continue
            given.update(name=others[0]["name"], address=others[0]["address"])
        if kind == "models":
            given["names"] = [short(name) for name in given["names"]]
        wanted[kind] = given
    return wanted, limits


def checks(node: str, role: str, figures: dict[str, Any], limits: dict[str, float]) -> list[dict[str, Any]]:
    """The figures of node program ``bench`` as checks (requirement F8)."""
    found = []
    for kind, data in figures.items():
        if not data:  # there was nothing to measure
            continue
        measure, limit = MEASURES[kind], limits[kind]
        number = data.get(measure.figure)
        held = number is not None and (not limit or (number >= limit if measure.least else number <= limit))
        seen = data.get("error") or f"{number:g} {measure.unit}" + (f" to {data['peer']}" if "peer" in data else "")
        if each := data.get("models"):
            seen += f" ({', '.join(f'{name} {rate:g}' for name, rate in each.items())})"
        expected = f"at {'least' if measure.least else 'most'} {limit:g} {measure.unit}" if limit else "any figure"
        named = {"id": f"bench_{kind}", "requirement": "F8", "role": role, "node": node, "title": measure.title}
        status = "pass" if held else "fail"
        remedy = measure.broken if number is None else measure.remedy
        found.append({**named, "status": status, "seen": seen, "expected": expected, "remedy": remedy, "data": data})
    return found
