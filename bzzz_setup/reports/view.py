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
from collections.abc import Iterable, Iterator
from typing import Any

from ansible_collections.bzzz.cluster.plugins.module_utils.benchmark import MEASURES
from ansible_collections.bzzz.cluster.plugins.module_utils.node.machine import dig, items, natural
from ansible_collections.bzzz.cluster.plugins.module_utils.probe import matrix

from bzzz_setup.events import ExitCode
from bzzz_setup.report import Report, StepReport, clock, count, few, number, unified
from bzzz_setup.reports.machines import hardware, share, topologies
from bzzz_setup.reports.network import network
from bzzz_setup.steps import steps

# Beyond these a page sums up; the journal and report.json have the rest.
STEP_NODES = 12
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
        "part": _part(report),
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
        "hardware": [hardware(report, name) for name in names if isinstance(dig(report.facts, name, "bzzz_system"), dict)],
        "topologies": topologies(report, names),
        "matrix": network(matrix(report.checks)),
        "benchmark": _benchmark(checks),
        "changes": _changes(report),
        "forecast": report.forecast(),
        "messages": [{"level": said.level, "text": said.text} for said in report.messages],
    }
    found["tiles"] = _tiles(report, found)
    return found


def _part(report: Report) -> str:
    """Which steps, where not all."""
    numbers = sorted(report.steps)
    if not numbers or len(numbers) == len(steps()):
        return ""
    return f"step{'s' * (len(numbers) > 1)} {few([str(number) for number in numbers], 8)}"


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
        left = share(step.started - report.started, whole) if step.started else 0
        failed = sorted((name for name, tally in step.nodes.items() if tally.failed), key=natural)
        told.append(
            {
                "number": step.number,
                "title": step.title,
                "status": status,
                "word": word,
                "took": clock(step.seconds) if step.seconds else "",
                "left": left,
                "width": max(0.4, min(share(step.seconds, whole), 100 - left)) if step.seconds else 0,
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
                "width": share(tally.seconds, slowest),
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
            row["percent"] = share(row["value"], max(values))
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
