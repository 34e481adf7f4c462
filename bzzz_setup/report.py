# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a run did, as far as its events tell: the sum of them, live or read back from the journal."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from ansible_collections.bzzz.cluster.plugins.module_utils.node.causes import cause
from ansible_collections.bzzz.cluster.plugins.module_utils.node.machine import dig, items
from ansible_collections.bzzz.cluster.plugins.module_utils.probe import matrix
from ansible_collections.bzzz.cluster.plugins.module_utils.problems import Problem, errors, merged, problem

from bzzz_setup import paths
from bzzz_setup.events import (
    Event,
    ExitCode,
    Message,
    Paused,
    Resumed,
    RunFinished,
    RunStarted,
    StepStarted,
    TaskFinished,
    TaskStarted,
)
from bzzz_setup.steps import steps


@dataclass
class Tally:
    """Of one node, in one step or in the whole run. `seconds` is the time its tasks took, waiting for other nodes left out."""

    changed: int = 0
    failed: bool = False
    seconds: float = 0.0


@dataclass
class StepReport:
    """`state`: waiting, running, done or failed."""

    number: int
    title: str
    state: str = "waiting"
    started: float = 0.0
    seconds: float = 0.0
    nodes: dict[str, Tally] = field(default_factory=dict)

    @property
    def changed(self) -> int:
        return sum(tally.changed for tally in self.nodes.values())


@dataclass
class Report:
    run: str = ""
    command: str = ""
    cluster: str = ""
    inventory: str = ""
    started: float = 0.0
    seconds: float = 0.0
    finished: RunFinished | None = None
    # The step before which it waits, as it was asked to.
    paused: int | None = None
    steps: dict[int, StepReport] = field(default_factory=dict)
    nodes: dict[str, Tally] = field(default_factory=dict)
    changes: list[dict[str, Any]] = field(default_factory=list)
    diffs: list[dict[str, Any]] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    working: dict[str, TaskStarted] = field(default_factory=dict)
    _checks: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    _problems: list[Problem] = field(default_factory=list)
    _option: str = ""

    @classmethod
    def of(cls, events: Iterable[Event]) -> Report:
        report = cls()
        for event in events:
            report.add(event)
        return report

    def add(self, event: Event) -> None:
        self.seconds = round(event.at - self.started, 3) if self.started else 0.0
        if isinstance(event, RunStarted):
            self.started = event.at
            self._problems += event.problems
            self.run, self.command, self.cluster, self.inventory = event.run, event.command, event.cluster, event.inventory
            self._option = paths.inventory_option(event.inventory) if event.inventory else ""
            titles = {step.number: step.title for step in steps()}
            self.steps = {number: StepReport(number, titles.get(number, str(number))) for number in event.steps}
        elif isinstance(event, StepStarted):
            self._end_step(event.at)
            step = self.steps.setdefault(event.step, StepReport(event.step, str(event.step)))
            step.state, step.started = "running", event.at
        elif isinstance(event, Paused):
            # Ansible may have told of the step already.
            if (next_one := self.steps.get(event.step)) and next_one.state == "running":
                next_one.state = "waiting"
            self._end_step(event.at)
            self.paused = event.step
        elif isinstance(event, Resumed):
            if next_one := self.steps.get(self.paused or 0):
                next_one.state, next_one.started = "running", event.at
            self.paused = None
        elif isinstance(event, TaskStarted):
            self.working[event.node] = event
            self.nodes.setdefault(event.node, Tally())
        elif isinstance(event, TaskFinished):
            self._task(event)
        elif isinstance(event, Message):
            if event.level != "progress" and all(event.text != said.text for said in self.messages):
                self.messages.append(event)
        elif isinstance(event, RunFinished):
            self.finished = event
            self.working.clear()
            self.paused = None
            self._forget_rescued({*event.failed, *event.unreachable})
            self._end_step(event.at, interrupted=event.interrupted)

    def _forget_rescued(self, given_up: set[str]) -> None:
        """A playbook may rescue a node that has failed. One that it gave up ran nothing after the step in which it failed last."""
        last = {failure["node"]: failure["step"] for failure in self.failures if failure["node"] in given_up}
        self.failures = [failure for failure in self.failures if last.get(failure["node"]) == failure["step"]]
        for name, tally in self.nodes.items():
            tally.failed &= name in last
        for step in self.steps.values():
            for name, tally in step.nodes.items():
                tally.failed &= last.get(name) == step.number
            if step.state == "failed" and step.number not in last.values():
                step.state = "done"

    def _task(self, event: TaskFinished) -> None:
        self.working.pop(event.node, None)
        where = {"step": event.step, "node": event.node, "role": event.role}
        tallies = [self.nodes.setdefault(event.node, Tally())]
        if event.step in self.steps:
            tallies.append(self.steps[event.step].nodes.setdefault(event.node, Tally()))
        if event.status == "changed":
            changes = event.changes or [{"kind": "task", "name": event.task, "what": "changed"}]
            self.changes += [{**where, **change} for change in changes]
            self.diffs += [{**where, **diff} for diff in event.diff]
        for tally in tallies:
            tally.seconds = round(tally.seconds + event.seconds, 3)
            tally.changed += len(changes) if event.status == "changed" else 0
        plain = self.plain(event)
        if failure := plain["failure"]:
            for tally in tallies:
                # A refused declaration is no fault of the node that happened to be asked.
                tally.failed = failure["kind"] != "problems"
            self.failures.append(failure)
        for check in plain["checks"]:
            self._checks[check["node"], str(check.get("id"))] = check
        self._problems += plain["problems"]
        self.facts.setdefault(event.node, {}).update(event.facts)

    def plain(self, event: TaskFinished) -> dict[str, Any]:
        """What it means for whoever looks, with remedies as they are to be typed: `{failure, checks, problems}`, as they are in the report;
        `failure` is None where it did not fail."""
        failure = None
        if event.status in ("failed", "unreachable"):
            kind = "problems" if errors(event.problems) else "checks" if event.checks else event.status
            message, remedy = _told(event.message, unreachable=kind == "unreachable")
            told = {"message": self._complete(message), "remedy": remedy and self._complete(remedy)}
            failure = {"step": event.step, "node": event.node, "role": event.role, "task": event.task, "kind": kind, **told}
        # On whose behalf it was asked, not necessarily where.
        checks = [
            {
                **check,
                "node": str(check.get("node") or event.node),
                "remedy": self._complete(str(check.get("remedy") or "")),
                "step": event.step,
            }
            for check in event.checks
        ]
        return {
            "failure": failure,
            "checks": checks,
            "problems": [{**found, "remedy": self._complete(found["remedy"])} for found in event.problems],
        }

    def _complete(self, text: str) -> str:
        """The commands in it as they must be typed for this inventory; whoever wrote them knew of none."""
        return re.sub(r"\bbzzz-setup (?!init\b)((?:models )?[a-z][a-z-]+)(?! -i)", rf"bzzz-setup \1{self._option}", text)

    def _end_step(self, at: float, *, interrupted: bool = False) -> None:
        for step in self.steps.values():
            if step.state == "running":
                failed = interrupted or not self.nodes or any(failure["step"] == step.number for failure in self.failures)
                step.state = "failed" if failed else "done"
                step.seconds = round(at - step.started, 3)

    @property
    def checks(self) -> list[dict[str, Any]]:
        """The last answer to each check on each node."""
        return list(self._checks.values())

    @property
    def problems(self) -> list[Problem]:
        """Errors first. What Ansible could not even begin with is one, too."""
        found = list(self._problems)
        if self.finished and not self.nodes:
            for said in self.messages:
                if said.level == "error":
                    known = cause(said.text)
                    told = f"{said.text} {known.why}" if known else said.text
                    found.append(problem("", told, known.remedy if known else "Correct what Ansible names; nothing was done on any node."))
        return list(merged(found, list(self.nodes)))

    @property
    def exit_code(self) -> ExitCode:
        """Of a run that never ended (it was killed): nodes failed."""
        if self.finished is None:
            return ExitCode.NODES_FAILED
        if self.finished.interrupted:
            return ExitCode.INTERRUPTED
        if errors(self.problems):
            return ExitCode.REFUSED
        if self.finished.unreachable or any(failure["kind"] != "checks" for failure in self.failures):
            return ExitCode.NODES_FAILED
        if self.failures or any(check.get("status") == "fail" for check in self.checks):
            return ExitCode.CHECKS_FAILED
        return ExitCode.FINE if self.finished.returncode == 0 else ExitCode.NODES_FAILED

    def hardware(self, node: str) -> str:
        """A node in one line: `Debian 12, 8 threads, 62 GiB, 2 x NVIDIA A100 40 GiB`. Empty when nothing is known of it."""
        system = dig(self.facts, node, "bzzz_system")
        parts = [str(dig(system, "os", "name") or "").replace("GNU/Linux ", "")]
        if threads := number(dig(system, "cpu", "threads")):
            parts.append(f"{threads:g} threads")
        parts.append(gib(number(dig(system, "memory", "total_mib"))))
        return ", ".join(part for part in [*parts, self.gpus(node)] if part)

    def gpus(self, node: str) -> str:
        """`2 x NVIDIA A100 40 GiB, AMD MI100 32 GiB`; empty when the node has none."""
        kinds: dict[str, int] = {}
        for device in items(self.facts, node, "bzzz_gpu", "devices"):
            name = f"{dig(device, 'model') or dig(device, 'vendor') or 'GPU'} {gib(number(dig(device, 'memory_total_mib')))}".strip()
            kinds[name] = kinds.get(name, 0) + 1
        return ", ".join(f"{count} x {name}" if count > 1 else name for name, count in kinds.items())

    def places(self) -> dict[str, dict[str, Any]]:
        """Of each node whose facts are known `{subnet, interface, address}` in the cluster's network."""
        # Settled once for all nodes, and told by the one that was asked.
        declared: dict[str, Any] = next((facts["bzzz_declared"] for facts in self.facts.values() if "bzzz_declared" in facts), {})
        wanted = ("subnet", "interface", "address")
        return {
            node: {name: roles["network"][name] for name in wanted}
            for node, roles in declared.items()
            if "bzzz_network" in self.facts.get(node, {})
        }

    def members(self) -> list[dict[str, Any]]:
        """The cluster's nodes as declared, `{name, address, groups, coordinator}`, whether this run was about them or not."""
        cluster: dict[str, Any] = next((facts["bzzz_cluster"] for facts in self.facts.values() if "bzzz_cluster" in facts), {})
        coordinators = cluster.get("coordinators", [])
        return [
            {**{part: node[part] for part in ("name", "address", "groups")}, "coordinator": node["name"] in coordinators}
            for node in cluster.get("nodes", [])
        ]

    def forecast(self) -> list[str]:
        """What a month would cost, in words; nothing where no AI gateway is declared."""
        found = next((facts["bzzz_cost_forecast"] for facts in self.facts.values() if "bzzz_cost_forecast" in facts), None)
        told = found.get("told") if isinstance(found, dict) else None
        return [str(line) for line in told] if isinstance(told, list) else []

    def resume(self) -> str:
        """The command that goes on from where an apply to the last step, or a rotation, stopped; nothing where there is no such."""
        if self.command in ("rotate-ca", "rotate-key"):
            return f"bzzz-setup {self.command}{self._option}" if self.exit_code not in (ExitCode.FINE, ExitCode.REFUSED) else ""
        failed = [step.number for step in self.steps.values() if step.state in ("failed", "running")]
        if self.command != "apply" or not failed or max(self.steps) != steps()[-1].number or self.exit_code == ExitCode.REFUSED:
            return ""
        return f"bzzz-setup apply{self._option} --from {min(failed)}"

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON. Times in seconds, `started` since the epoch; facts and diffs stay in the journal."""
        return {
            "run": self.run,
            "command": self.command,
            "cluster": self.cluster,
            "inventory": self.inventory,
            "started": self.started,
            "seconds": self.seconds,
            "exit_code": int(self.exit_code),
            "outcome": self.exit_code.name.lower(),
            "paused": self.paused,
            "steps": [{**asdict(step), "changed": step.changed} for step in self.steps.values()],
            "nodes": {name: {**asdict(tally), "hardware": self.hardware(name)} for name, tally in self.nodes.items()},
            "changes": self.changes,
            "forecast": self.forecast(),
            "checks": self.checks,
            "matrix": matrix(self.checks),
            "problems": self.problems,
            "failures": self.failures,
            "messages": [{"level": said.level, "text": said.text} for said in self.messages],
        }


def _told(message: str, *, unreachable: bool) -> tuple[str, str | None]:
    """What went wrong and why, and the remedy: the one that the message names, else the known cause's."""
    said, _, remedy = message.rpartition("Remedy: ")
    if said:
        return said.rstrip(), remedy.strip()
    if found := cause(message):
        return f"{message.rstrip(' .')}. {found.why}", found.remedy
    return message, "See that it is up and that SSH gets in with user, key and port of the inventory." if unreachable else None


def gib(mib: float | None) -> str:
    """`24 GiB` of 24576 MiB; one decimal below 10 GiB; empty for nothing."""
    if not mib:
        return ""
    return f"{mib / 1024:.0f} GiB" if mib >= 10 * 1024 else f"{mib / 1024:.1f} GiB"


def clock(seconds: float) -> str:
    """`3.2 s`, `1:05`, `1:02:03`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def few(names: Iterable[str], most: int = 3) -> str:
    """`a, b, c and 5 more`."""
    listed = list(names)
    rest = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + rest


def unified(one: dict[str, Any]) -> Iterable[str]:
    """The lines of one of Ansible's diffs."""
    name = f"{one['node']}:{one.get('after_header') or one.get('before_header') or one.get('header') or ''}"
    if prepared := one.get("prepared"):
        return [name, *str(prepared).splitlines()]
    before, after = (str(one.get(side) or "").splitlines() for side in ("before", "after"))
    return difflib.unified_diff(before, after, name, name, lineterm="", n=2)


def number(value: Any) -> float | None:
    """The value where it is a number; what a node says may be anything."""
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e15 else None
