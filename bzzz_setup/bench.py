# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""`bzzz-setup bench`: what a run costs, against what Ansible itself costs in the same minutes on the same nodes.

Every run is one ansible-playbook process with the front's own settings and new SSH connections; the counting is done
by tests/bench/callback from outside, the product knows nothing of it. Needs the checkout.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from bzzz_setup import release, run, steps, terminal
from bzzz_setup.events import ExitCode, Refusal
from bzzz_setup.lab import CHECKOUT, Lab, System

BENCH = CHECKOUT / "tests/bench"


@dataclass
class Run:
    """One run: wall time, how often each node was sent a module or asked a question, by play, and how long its own tasks took."""

    seconds: float
    modules: Counter[tuple[str, str]] = field(default_factory=Counter)
    questions: Counter[tuple[str, str]] = field(default_factory=Counter)
    changed: dict[str, int] = field(default_factory=dict)
    own_seconds: dict[str, float] = field(default_factory=dict)

    def per_node(self, counts: Counter[tuple[str, str]], play: str | None = None) -> int:
        """Of the node that has most."""
        by_node: Counter[str] = Counter()
        for (node, of_play), count in counts.items():
            if play in (None, of_play):
                by_node[node] += count
        return max(by_node.values(), default=0)

    def as_dict(self, plays: list[str]) -> dict[str, Any]:
        by_play = {play: {"modules": self.per_node(self.modules, play), "questions": self.per_node(self.questions, play)} for play in plays}
        return {
            "seconds": round(self.seconds, 2),
            "modules_per_node": self.per_node(self.modules),
            "questions_per_node": self.per_node(self.questions),
            "changed": self.changed,
            "plays": by_play,
        }


def measure(lab: Lab, playbook: str) -> Run:
    """Run a playbook on the lab's inventory. Raises Refusal when a node fails."""
    names = {node.address: node.name for node in lab.nodes}
    with tempfile.TemporaryDirectory(prefix="bzzz-bench-") as folder:
        private = Path(folder)
        (private / "ssh").mkdir(mode=0o700)
        environment = run._environment(lab.id, private, private / "ssh") | {
            "ANSIBLE_CALLBACK_PLUGINS": str(BENCH / "callback"),
            "ANSIBLE_CALLBACKS_ENABLED": "bzzz_count",
            "BZZZ_COUNT_FILE": str(private / "count"),
        }
        started = time.monotonic()
        done = subprocess.run(
            [*run.PLAYBOOK, "-i", str(lab.inventory / "hosts.yml"), playbook],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        measured = Run(time.monotonic() - started)
        run._close_masters(private / "ssh")
        if done.returncode:
            raise Refusal(f"{playbook} failed:\n{done.stdout[-4000:]}{done.stderr[-2000:]}", "Mend it first.", ExitCode.NODES_FAILED)
        for line in (private / "count").read_text(encoding="utf-8").splitlines():
            seen = json.loads(line)
            if seen["kind"] == "stats":
                measured.changed, measured.own_seconds = seen["changed"], seen["own_seconds"]
            else:
                getattr(measured, seen["kind"])[names.get(seen["address"], seen["address"]), seen["play"]] += 1
    return measured


def bench(
    nodes: Annotated[int, typer.Option(min=1, help="How many lab nodes.")] = 3,
    repeat: Annotated[int, typer.Option(min=1, help="How often baseline and re-run are measured, in turns; medians count.")] = 3,
    system: System = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the lab nodes up.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")] = False,
) -> None:
    """Measure first set-up, converged re-run and the joining of one more node on fresh lab nodes, against bare Ansible on the same."""
    out = terminal.console(stderr=as_json)
    lab = Lab("bench", out.print)
    try:
        lab.down()
        lab.up(nodes, system=system)
        release.build_all()
        out.print("first set-up…")
        first = measure(lab, "bzzz.cluster.setup")
        baselines, reruns = [], []
        for number in range(repeat):
            out.print(f"baseline and converged re-run, {number + 1} of {repeat}…")
            baselines.append(measure(lab, str(BENCH / "baseline.yml")))
            reruns.append(measure(lab, "bzzz.cluster.setup"))
        out.print("one more node…")
        lab.up(nodes + 1)
        joined = measure(lab, "bzzz.cluster.setup")
    except Refusal as refused:
        terminal.show_problems(terminal.console(stderr=True), refused.problems)
        raise typer.Exit(refused.code) from None
    finally:
        if not keep:
            lab.down()
    plays = [step.play for step in steps.steps()]
    base = statistics.median(measured.seconds for measured in baselines)
    again = sorted(reruns, key=lambda measured: measured.seconds)[len(reruns) // 2]
    # What a node had to itself of the first set-up, where all are set up side by side.
    own = statistics.median(first.own_seconds.values())
    result = {
        "nodes": nodes,
        "os": system or "bookworm",
        "load": [round(value, 2) for value in os.getloadavg()],
        "baseline": {
            "seconds": round(base, 2),
            "all_seconds": [round(measured.seconds, 2) for measured in baselines],
            "modules_per_node": baselines[0].per_node(baselines[0].modules),
        },
        "first": first.as_dict(plays) | {"ratio": round(first.seconds / base, 2)},
        "converged": again.as_dict(plays)
        | {"ratio": round(again.seconds / base, 2), "all_seconds": [round(measured.seconds, 2) for measured in reruns]},
        "joined": joined.as_dict(plays)
        | {
            "ratio_to_first_per_node": round(joined.seconds / own, 2),
            "ratio_to_first_divided": round(joined.seconds * nodes / first.seconds, 2),
        },
    }
    if as_json:
        print(json.dumps(result, indent=2))
        return
    table = Table(title=f"{nodes} nodes; per node: modules sent / questions asked")
    for heading in ("", "first set-up", "converged re-run", "one more node"):
        table.add_column(heading, justify="left" if not heading else "right")
    for step in steps.steps():
        cells = [f"{one.per_node(one.modules, step.play)} / {one.per_node(one.questions, step.play)}" for one in (first, again, joined)]
        table.add_row(f"{step.number} {step.title}", *cells)
    table.add_section()
    table.add_row("all", *(f"{one.per_node(one.modules)} / {one.per_node(one.questions)}" for one in (first, again, joined)))
    table.add_row("changed", *(str(sum(one.changed.values())) for one in (first, again, joined)))
    table.add_row("seconds", *(f"{one.seconds:.1f}" for one in (first, again, joined)))
    table.add_row(f"x baseline ({base:.1f} s)", *(f"{one.seconds / base:.2f}" for one in (first, again, joined)))
    out.print(table)
    out.print(
        f"One more node took {joined.seconds / own:.2f} x the {own:.1f} s that a node's own tasks took in the first set-up; "
        f"{joined.seconds * nodes / first.seconds:.2f} x the first set-up divided by {nodes}, which were set up side by side."
    )
