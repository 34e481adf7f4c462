# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a page shows of a report: plain data in the order of reading, for a template or a browser's program.

Taken are named fields only, so that what else lies in facts (the declaration, a node's inventions) cannot get out. Whatever
a node said may have any shape: what isn't understood is left out.
"""

from __future__ import annotations

import itertools
import re
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ansible_collections.bzzz.cluster.plugins.module_utils.benchmark import MEASURES
from ansible_collections.bzzz.cluster.plugins.module_utils.node.machine import dig, items, natural
from ansible_collections.bzzz.cluster.plugins.module_utils.probe import matrix

from bzzz_setup.events import ExitCode
from bzzz_setup.report import Report, StepReport, clock, count, few, gib, number, unified
from bzzz_setup.reports.topology import topology

# Beyond these a page sums up; the journal and report.json have the rest.
MATRIX_NODES = 40
GROUPS = 20
STEP_NODES = 12
WAYS = 20
VARIANTS = 6
DIFF_LINES = 300
SEEN = 240

WORST_FIRST = ("fail", "warn", "pass", "skip")
OUTCOMES = {
    ExitCode.FINE: ("pass", "Fine"),
    ExitCode.CHECKS_FAILED: ("fail", "Checks failed"),
    ExitCode.REFUSED: ("fail", "Refused"),
    ExitCode.NODES_FAILED: ("fail", "Nodes failed"),
    ExitCode.INTERRUPTED: ("warn", "Interrupted"),
}
STATES = {"done": ("pass", "done"), "failed": ("fail", "failed"), "running": ("warn", "not ended"), "waiting": ("skip", "not reached")}
# Milliseconds up to which a way counts as of this level of heat.
HEAT = (0.1, 0.3, 1, 3, 10, 30)
_PROGRAMS = (
    "amd-smi ansible-[a-z]+ apt apt-get bzzz-setup chmod chown chronyc curl df dmesg docker dpkg du etcdctl getent gpasswd id ip "
    "iptables journalctl kill ls lsblk mkdir modprobe mount mv nft nvidia-smi openssl passwd ping resolvectl rm rocm-smi ss ssh "
    "ssh-copy-id ssh-keygen ssh-keyscan swapon sysctl systemctl systemd-analyze timedatectl ufw umount useradd usermod visudo"
).replace(" ", "|")
# Where prose has a command: in quotes, in brackets, or after what leads up to one, until the sentence goes on.
_COMMAND = re.compile(
    rf"""
    ' (?P<quoted> (?:sudo\ )? (?:{_PROGRAMS})\ [^'\n]+ ) '
    | ` (?P<ticked> [^`\n]+ ) `
    | \( (?P<inside> (?:sudo\ )? (?:{_PROGRAMS})\ [^()\n]+? ) (?= \ or\ | \ and\ | ,\ | \) )
    | (?: ^ | (?<=:\ ) | (?<=;\ ) | (?<=\brun\ ) | (?<=\bRun\ ) | (?<=\bor\ ) | (?<=\bthen\ ) )
      (?P<plain> (?:sudo\ )? (?:\./bzzz|{_PROGRAMS})\ (?: '[^'\n]*' | [^;,()'\n] )+? )
      (?= [.,:]? (?: \s*$ | \s*\n ) | ;\ | ,\ | [.:]\ | \ -\ | \ or\ | \ and\ | \ (?:says|shows|names)\b | [;)] )
    """,
    re.VERBOSE,
)


def view(report: Report) -> dict[str, Any]:
    """Everything that the page shows."""
    names = sorted(report.nodes, key=natural)
    checks = [{**check, "status": _status(check)} for check in report.checks]
    by_node: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    between: list[dict[str, Any]] = []
    for check in checks:
        by_node.get(str(check.get("node")), between).append(check)
    found = {
        "run": report.run,
        "command": report.command,
        "cluster": report.cluster,
        "inventory": report.inventory,
        "started": time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(report.started)) if report.started else "",
        "took": clock(report.seconds),
        "outcome": _outcome(report, checks),
        "resume": report.resume(),
        "counts": _counts(checks),
        "nodes": _nodes(report, names, by_node),
        "attention": _attention(report, checks),
        "steps": _steps(report),
        "checks": _checks(names, by_node, between),
        "hardware": [_hardware(report, name) for name in names if isinstance(dig(report.facts, name, "bzzz_system"), dict)],
        "topologies": _topologies(report, names),
        "matrix": _matrix(matrix(report.checks)),
        "benchmark": _benchmark(checks),
        "changes": _changes(report),
        "messages": [{"level": said.level, "text": said.text} for said in report.messages],
    }
    found["tiles"] = _tiles(report, found)
    return found


def _status(check: dict[str, Any]) -> str:
    status = check.get("status")
    return status if status in WORST_FIRST else "fail"


def _counts(checks: Iterable[dict[str, Any]]) -> dict[str, int]:
    counted = Counter(check["status"] for check in checks)
    return {status: counted[status] for status in WORST_FIRST}


def _outcome(report: Report, checks: list[dict[str, Any]]) -> dict[str, str]:
    """`{status, word, sentence}`."""
    code = report.exit_code
    status, word = OUTCOMES[code]
    done = sum(step.state == "done" for step in report.steps.values())
    counts = _counts(checks)
    judged = sum(counts.values()) - counts["skip"]
    passed = f"{counts['pass']} of {count(judged, 'check')} passed" if judged else ""
    steps = f"{done} of {count(len(report.steps), 'step')} done on {count(len(report.nodes), 'node')}"
    if report.finished is None:
        return {"status": "warn", "word": "Not ended", "sentence": f"The run was killed, or is still going on: {steps}."}
    if code == ExitCode.REFUSED:
        sentence = "The declaration needs correcting; no node was changed after that."
    elif code == ExitCode.INTERRUPTED:
        sentence = f"The run was interrupted: {steps}. What stands stays."
    elif code == ExitCode.NODES_FAILED:
        given_up = {*report.finished.failed, *report.finished.unreachable}
        who = few(sorted(given_up, key=natural), 5) or "Ansible"
        sentence = f"{who} did not get through: {steps}. The other nodes were finished."
    elif report.command == "plan":
        sentence = f"{count(len(report.changes), 'change')} to make, nothing was changed."
    elif code == ExitCode.CHECKS_FAILED:
        where = {str(check.get("node")) for check in checks if check["status"] == "fail"}
        sentence = f"{count(counts['fail'], 'check')} failed ({few(sorted(where, key=natural), 3)}). {steps}."
    else:
        sentence = f"{steps}."
    return {"status": status, "word": word, "sentence": " ".join(part for part in (sentence, passed and f"{passed}.") if part)}


def _tiles(report: Report, found: dict[str, Any]) -> list[dict[str, str]]:
    members = found["nodes"]
    coordinators = [node["name"] for node in members if node["coordinator"]]
    counts = found["counts"]
    judged = sum(counts.values()) - counts["skip"]
    gpus = sum(hardware["gpu_count"] for hardware in found["hardware"])
    tiles = [
        ("Nodes", str(len(members)), f"{len(report.nodes)} in this run" if len(members) != len(report.nodes) else ""),
        ("Coordinators", str(len(coordinators) or "-"), few(coordinators, 3)),
        ("GPUs", str(gpus), "") if found["hardware"] else ("GPUs", "-", "not looked for"),
        ("Checks", f"{counts['pass']} / {judged}", _said(counts)),
        ("To change" if report.command == "plan" else "Changes", str(len(report.changes)), ""),
        ("Time", clock(report.seconds), found["started"]),
    ]
    return [{"label": label, "value": value, "more": more} for label, value, more in tiles]


def _said(counts: dict[str, int]) -> str:
    words = {"fail": "failed", "warn": "warned", "skip": "did not apply"}
    return ", ".join(f"{counts[status]} {word}" for status, word in words.items() if counts[status])


def _nodes(report: Report, names: list[str], by_node: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    members = {member["name"]: member for member in report.members()}
    lost = set(report.finished.unreachable) if report.finished else set()
    failed = {failure["node"] for failure in report.failures if failure["kind"] != "problems"} | lost
    refused = report.exit_code == ExitCode.REFUSED
    told = []
    for name in sorted({*members, *names}, key=natural):
        member, tally = members.get(name, {}), report.nodes.get(name)
        counts = _counts(by_node.get(name, ()))
        status = "fail" if name in failed or counts["fail"] else "warn" if counts["warn"] else "pass"
        word = "unreachable" if name in lost else "failed" if name in failed else {"fail": "checks failed", "warn": "warnings"}.get(status)
        told.append(
            {
                "name": name,
                "status": status if tally and not refused else "skip",
                "word": ("not set up" if refused else word or "fine") if tally else "not in this run",
                "address": member.get("address") or "",
                "coordinator": member.get("coordinator", False),
                "groups": member.get("groups", []),
                "changed": tally.changed if tally else 0,
                "took": clock(tally.seconds) if tally else "",
                "counts": counts,
                "hardware": report.hardware(name),
            }
        )
    return told


# -- what is wrong ---------------------------------------------------------------------------------------------------


def remedy(text: Any) -> list[dict[str, Any]]:
    """A remedy in pieces `{text, command}`: what is a command can be copied as it stands."""
    said, at, pieces = str(text or ""), 0, []
    for match in _COMMAND.finditer(said):
        kind = match.lastgroup or "plain"
        pieces += [{"text": said[at : match.start(kind)], "command": False}, {"text": match[kind], "command": True}]
        at = match.end(kind)
    return [piece for piece in [*pieces, {"text": said[at:], "command": False}] if piece["text"]]


def _attention(report: Report, checks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Findings `{status, kind, where, title, seen, expected, requirement, remedy}`, worst first; the same one on several nodes once."""
    everywhere = len(report.nodes)

    def on(nodes: Iterable[str]) -> str:
        told = sorted(set(nodes), key=natural)
        return f"all {everywhere} nodes" if len(told) == everywhere > 1 else few(told, 6)

    told = []
    for found in report.problems:
        value = "" if found["value"] is None else f" = {found['value']!r}"
        status = "fail" if found["severity"] == "error" else "warn"
        told.append((status, "Declaration", found["node"] or "", f"{found['option']}{value}", found["message"], "", "", found["remedy"]))
    groups: dict[tuple[str, ...], list[str]] = {}
    for failure in report.failures:
        if failure["kind"] not in ("problems", "checks"):
            title = ": ".join(part for part in (failure["role"], failure["task"]) if part)
            kind = "Not reached" if failure["kind"] == "unreachable" else "Failed"
            groups.setdefault(("fail", kind, title, failure["message"], "", "", failure["remedy"] or ""), []).append(failure["node"])
    for status in ("fail", "warn"):
        for check in (check for check in checks if check["status"] == status):
            parts = (str(check.get(part) or "") for part in ("title", "seen", "expected", "requirement", "remedy"))
            groups.setdefault((status, {"fail": "Check failed", "warn": "Check"}[status], *parts), []).append(str(check.get("node")))
    for name, facts in report.facts.items():
        for part in facts.values():
            for found in (found for found in items(part, "problems") if isinstance(found, dict)):
                said = (str(found.get("message") or ""), "", "", str(found.get("remedy") or ""))
                groups.setdefault(("warn", "Machine", "", *said), []).append(name)
    told += [(status, kind, on(nodes), *rest) for (status, kind, *rest), nodes in groups.items()]  # type: ignore[misc]
    keys = ("status", "kind", "where", "title", "seen", "expected", "requirement")
    return [
        {**dict(zip(keys, found[:-1], strict=True)), "remedy": remedy(found[-1])}
        for found in sorted(told, key=lambda found: WORST_FIRST.index(found[0]))
    ]


# -- steps and checks ------------------------------------------------------------------------------------------------


def _steps(report: Report) -> list[dict[str, Any]]:
    ends = [step.started + step.seconds - report.started for step in report.steps.values() if step.started]
    whole = max([report.seconds, *ends, 0.001])
    told = []
    for step in report.steps.values():
        status, word = STATES.get(step.state, ("skip", step.state))
        left = _share(step.started - report.started, whole) if step.started else 0
        failed = sorted((name for name, tally in step.nodes.items() if tally.failed), key=natural)
        told.append(
            {
                "number": step.number,
                "title": step.title,
                "status": status,
                "word": word,
                "took": clock(step.seconds) if step.seconds else "",
                "left": left,
                "width": max(0.4, min(_share(step.seconds, whole), 100 - left)) if step.seconds else 0,
                "changed": step.changed,
                "failed": few(failed, 6),
                **_step_nodes(step),
            }
        )
    return told


def _step_nodes(step: StepReport) -> dict[str, Any]:
    """Nodes of a step, slowest first, where one differs from another by more than noise."""
    tallies = sorted(step.nodes.items(), key=lambda item: (not item[1].failed, -item[1].seconds, natural(item[0])))
    times = [tally.seconds for _, tally in tallies]
    differ = len(times) > 1 and (
        max(times) - min(times) > max(1, 0.25 * max(times))
        or len({tally.changed for _, tally in tallies}) > 1
        or any(tally.failed for _, tally in tallies)
    )
    slowest = max(times, default=0)
    shown = tallies[:STEP_NODES] if differ else []
    rest = times[len(shown) :] if differ else []
    return {
        "nodes": [
            {
                "name": name,
                "took": clock(tally.seconds),
                "width": _share(tally.seconds, slowest),
                "changed": tally.changed,
                "failed": tally.failed,
            }
            for name, tally in shown
        ],
        "rest": f"{count(len(rest), 'more node')}: {clock(min(rest))} to {clock(max(rest))}" if rest else "",
    }


def _checks(names: list[str], by_node: dict[str, list[dict[str, Any]]], between: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A group of rows for each node, those with failures first, and one for what is judged between nodes."""
    groups = [*((name, by_node[name]) for name in names), ("Between nodes", between)]
    told = []
    for name, checks in groups:
        rows = [
            {
                **{part: str(check.get(part) or "") for part in ("status", "title", "role", "requirement", "expected")},
                "seen": _short(check.get("seen"), check["status"]),
                "remedy": remedy(check.get("remedy")) if check["status"] in ("fail", "warn") else [],
            }
            for check in sorted(checks, key=lambda check: WORST_FIRST.index(check["status"]))
        ]
        if rows:
            told.append({"name": name, "counts": _counts(checks), "rows": rows})
    return sorted(told, key=lambda group: [-group["counts"][status] for status in ("fail", "warn")])


def _short(seen: Any, status: str) -> str:
    """Of what passed, no page full of a program's output."""
    text = str(seen if seen is not None else "")
    return text if status in ("fail", "warn") or len(text) <= SEEN else f"{text[:SEEN]} … ({len(text) - SEEN} more characters)"


# -- machines --------------------------------------------------------------------------------------------------------


def _share(part: Any, whole: Any) -> float:
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
    percent = _share(used, total)
    return {"percent": percent, "text": f"{gib(max(used, 0)) or '0 GiB'} of {gib(total)} used", "full": percent >= 90}


def _text(*parts: Any) -> str:
    return " ".join(str(part) for part in parts if part is not None and part != "" and not isinstance(part, (dict, list, bool)))


def _which(value: Any, true: str, false: str) -> str:
    return (true if value else false) if isinstance(value, bool) else ""


def _pairs(*rows: tuple[str, str]) -> list[dict[str, str]]:
    return [{"label": label, "value": value} for label, value in rows if value]


def _dicts(data: Any, *keys: str | int) -> list[dict[str, Any]]:
    return [one for one in items(data, *keys) if isinstance(one, dict)]


def _hardware(report: Report, name: str) -> dict[str, Any]:
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
                "percent": _share(disk.get("size_mib"), largest),
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
        "status": {"ok": "pass", "degraded": "fail"}.get(str(device.get("health")), "skip"),
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
    }


def _topologies(report: Report, names: list[str]) -> list[dict[str, Any]]:
    """One picture for all nodes whose GPUs lie alike."""
    told: dict[str, dict[str, Any]] = {}
    for name in names:
        gpus = dig(report.facts, name, "bzzz_gpu")
        if drawn := topology(_dicts(gpus, "devices"), _dicts(gpus, "links"), _dicts(report.facts, name, "bzzz_system", "cpu", "numa")):
            told.setdefault(repr(drawn), {**drawn, "nodes": [], "models": report.gpus(name)})["nodes"].append(name)
    return [{**drawn, "where": few(drawn["nodes"], 8)} for drawn in told.values()]


# -- the network -----------------------------------------------------------------------------------------------------


def _matrix(cells: dict[str, dict[str, dict[str, Any]]]) -> dict[str, Any] | None:
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
        ("mtu", "Largest packet (MTU) in bytes", _least("mtu", "{:.0f}")),
        ("clock", "Clock of the peer ahead of the node's, in milliseconds", _clock),
        ("lost", "Attempts that were lost, of three", _lost),
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


def _least(field: str, form: str) -> Cell:
    def cell(ways: list[dict[str, Any]]) -> tuple[str, float | None]:
        found = [value for way in ways if (value := number(way.get(field))) is not None]
        return (form.format(min(found)), min(found)) if found else ("?", None)

    return cell


def _clock(ways: list[dict[str, Any]]) -> tuple[str, float | None]:
    """The largest offset."""
    found = [1000 * value for way in ways if (value := number(way.get("clock_offset_seconds"))) is not None]
    if not found:
        return "?", None
    most = round(max(found) if max(found) >= -min(found) else min(found), 1)
    return f"{most:+.1f}", most


def _lost(ways: list[dict[str, Any]]) -> tuple[str, float | None]:
    found = [value for way in ways if (value := number(way.get("lost"))) is not None]
    return (f"{sum(found):g}", sum(found)) if found else ("?", None)


def _odd_ways(ways: dict[tuple[str, str], dict[str, Any]], latencies: list[float]) -> list[dict[str, Any]]:
    """Ways that are cut, much slower than the others, narrower, or whose name does not resolve; worst first."""
    usual = statistics.median(latencies) if latencies else 0
    mtus = Counter(cell.get("mtu") for cell in ways.values() if cell.get("mtu"))
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
        if (mtu := number(cell.get("mtu"))) and common and mtu != common:
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


# -- figures and changes ---------------------------------------------------------------------------------------------


def _benchmark(checks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each measurement the figures of the nodes, and the range."""
    told = []
    for kind, measure in MEASURES.items():
        rows = []
        for check in checks:
            value = number(dig(check, "data", measure.figure))
            if check.get("id") == f"bench_{kind}" and value is not None:
                rows.append(
                    {"node": str(check.get("node")), "status": check["status"], "text": str(check.get("seen") or ""), "value": value}
                )
        if not rows:
            continue
        values = [row["value"] for row in rows]
        for row in rows:
            row["percent"] = _share(row["value"], max(values))
        what = {
            "disk": "Disk, written",
            "http": "Service, answer",
            "network": "Network, to the next node",
            "cpu": "CPU, SHA-256 of one thread",
        }
        told.append(
            {
                "title": what.get(kind, kind),
                "better": "more is better" if measure.least else "less is better",
                "range": " / ".join(f"{value:.4g}" for value in (min(values), statistics.median(values), max(values))) + f" {measure.unit}",
                "rows": sorted(rows, key=lambda row: natural(row["node"])),
            }
        )
    return told


def _changes(report: Report) -> list[dict[str, Any]]:
    """Per step what was changed, on which nodes, and how the lines differ."""
    everywhere = len(report.nodes)
    diffs: dict[tuple[int, str, str], dict[str, list[str]]] = {}
    for one in report.diffs:
        name = str(one.get("after_header") or one.get("before_header") or one.get("header") or "")
        lines = "\n".join(itertools.islice(unified({**one, "node": ""}), DIFF_LINES + 3))
        if lines:
            diffs.setdefault((one["step"], str(one.get("role") or ""), name), {}).setdefault(lines, []).append(str(one["node"]))
    told = []
    numbers = {*(change["step"] for change in report.changes), *(step for step, _, _ in diffs)}
    for step in sorted(numbers):
        title = report.steps[step].title if step in report.steps else "Outside the steps"
        groups: dict[tuple[str, ...], list[str]] = {}
        for change in (change for change in report.changes if change["step"] == step):
            groups.setdefault(tuple(str(change.get(part) or "") for part in ("role", "kind", "name", "what")), []).append(
                str(change["node"])
            )
        rows = []
        for (role, kind, name, what), nodes in groups.items():
            of_file = diffs.pop((step, role, name), {}) if kind in ("file", "task") else {}
            rows.append(
                {
                    "role": role,
                    "kind": kind,
                    "name": name,
                    "what": what,
                    "where": _where(nodes, everywhere),
                    "diffs": _variants(of_file, everywhere),
                }
            )
        told_whole = {(role, name) for role, _, name, _ in groups}  # a directory's difference says what the change says
        for of_step, role, name in [key for key in diffs if key[0] == step and key[1:] not in told_whole]:
            of_file = diffs.pop((of_step, role, name))
            nodes = [node for among in of_file.values() for node in among]
            rows.append(
                {
                    "role": role,
                    "kind": "",
                    "name": name,
                    "what": "",
                    "where": _where(nodes, everywhere),
                    "diffs": _variants(of_file, everywhere),
                }
            )
        told.append({"number": step, "title": title, "rows": rows})
    return told


def _where(nodes: Iterable[str], everywhere: int) -> str:
    told = sorted(set(nodes), key=natural)
    return f"all {everywhere} nodes" if len(told) == everywhere > 1 else few(told, 4)


def _variants(of_file: dict[str, list[str]], everywhere: int) -> dict[str, Any] | None:
    if not of_file:
        return None
    most_first = sorted(of_file.items(), key=lambda item: -len(item[1]))
    shown = [{"where": _where(nodes, everywhere), "lines": list(_lines(text))} for text, nodes in most_first[:VARIANTS]]
    return {"shown": shown, "more": len(most_first) - len(shown)}


def _lines(text: str) -> Iterator[dict[str, str]]:
    """`{kind: add|del|at|same|more, text}`."""
    # Without the file's name, which stands above already.
    lines = text.split("\n")[2 if text.startswith("--- ") else 1 :]
    for line in lines[:DIFF_LINES]:
        yield {"kind": {"+": "add", "-": "del", "@": "at"}.get(line[:1], "same"), "text": line}
    if len(lines) > DIFF_LINES:
        yield {"kind": "at", "text": "… and more: bzzz-setup plan --diff shows whole files"}
