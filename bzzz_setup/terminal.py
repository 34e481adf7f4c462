# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a person sees: progress while a run goes on, and reports when it has ended."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible_collections.bzzz.cluster.plugins.module_utils.discovery import Machine
from ansible_collections.bzzz.cluster.plugins.module_utils.probe import carried, matrix
from ansible_collections.bzzz.cluster.plugins.module_utils.problems import Problem
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.padding import Padding
from rich.progress import Progress as Bar
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from bzzz_setup.events import Event, ExitCode, Message, Paused, Resumed, RunFinished, StepStarted, TaskFinished, TaskStarted
from bzzz_setup.host_keys import HostKeys
from bzzz_setup.keys import Key
from bzzz_setup.report import Report, StepReport, clock, count, few, gib, unified

_MARKS = {"done": "[green]✔[/]", "failed": "[red]✘[/]", "running": "[cyan]…[/]", "waiting": "[dim]·[/]"}
_OUTCOMES = {
    ExitCode.FINE: "[green]Fine[/]",
    ExitCode.CHECKS_FAILED: "[red]Checks failed[/]",
    ExitCode.REFUSED: "[red]Refused[/]: the declaration needs correcting",
    ExitCode.NODES_FAILED: "[red]Nodes failed[/]",
    ExitCode.INTERRUPTED: "[yellow]Interrupted[/]",
}
MANY = 12


def console(*, stderr: bool = False) -> Console:
    # Unstyled output is for programs and files, and never folded.
    made = Console(stderr=stderr, highlight=False)
    return made if made.is_terminal else Console(stderr=stderr, highlight=False, width=10_000, soft_wrap=True)


@contextlib.contextmanager
def part(out: Console, what: str) -> Iterator[None]:
    """Show for how long something has been going on, and in the end how long it took."""
    began = time.monotonic()
    if out.is_terminal:
        bar = Bar(SpinnerColumn("dots", style="cyan"), TextColumn("{task.description}"), TimeElapsedColumn(), console=out, transient=True)
        with bar:
            bar.add_task(f"{escape(what)}…", total=None)
            yield
        out.print(f"{_MARKS['done']} {escape(what)} [dim]{clock(time.monotonic() - began)}[/]")
    else:
        out.print(f"{what}…", markup=False)
        yield
        out.print(f"{what}: done in {clock(time.monotonic() - began)}", markup=False)


class Progress:
    """Shows a run as its events come: a live line per step in a terminal, else plain lines."""

    def __init__(self, out: Console, report: Report) -> None:
        self._out = out
        self._report = report
        self._live = Live(self, console=out, refresh_per_second=8, transient=True) if out.is_terminal else None
        self._spinner = Spinner("dots", style="cyan")
        self._doing = ("", "")
        self._shown: set[tuple[str, str]] = set()
        self._told: set[int] = set()

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, event: Event) -> None:
        """After the report has taken the event in."""
        if isinstance(event, StepStarted):
            self._finished_steps()
            if not self._live:
                step = self._report.steps[event.step]
                self._out.print(f"step {step.number} of 8  {step.title}")
        elif isinstance(event, TaskStarted):
            doing = (event.role, event.task)
            # What every step begins with is told once.
            if not self._live and doing not in self._shown and event.role:
                self._shown.add(doing)
                self._out.print(f"  {time.strftime('%H:%M:%S')}  {escape(event.role)}: {escape(event.task)}")
            self._doing = doing
        elif isinstance(event, TaskFinished):
            if event.status in ("failed", "unreachable") and not event.problems:
                first = (event.message.splitlines() or [event.status])[0]
                self._out.print(f"   [red]✘[/] {escape(event.node)}: {escape(event.task)}: {escape(first)}")
        elif isinstance(event, Message) and event.level == "warning":
            self._out.print(f"   [yellow]![/] {escape(event.text)}")
        elif isinstance(event, Message) and event.level == "progress":
            self._out.print(f"   [cyan]…[/] {escape(event.text)}")
        elif isinstance(event, Paused):
            self._out.print(f"   [yellow]…[/] waiting before step {event.step}; go on with: bzzz-setup resume")
        elif isinstance(event, Resumed):
            self._out.print("   [yellow]…[/] going on")
        elif isinstance(event, RunFinished):
            self._finished_steps()

    def _finished_steps(self) -> None:
        for step in self._report.steps.values():
            if step.state in ("done", "failed") and step.number not in self._told:
                self._told.add(step.number)
                self._out.print(step_line(step))

    def __rich__(self) -> RenderableType:
        now = time.time()
        report = self._report
        grid = Table.grid(padding=(0, 1), expand=True)
        for options in (
            {"width": 1},
            {"no_wrap": True},
            {"justify": "right", "no_wrap": True},
            {"ratio": 1, "no_wrap": True, "overflow": "ellipsis"},
        ):
            grid.add_column(**options)
        running = [step for step in report.steps.values() if step.state == "running"]
        role, task = self._doing
        doing = ": ".join(part for part in (role, task) if part) or "starting"
        nodes = few(sorted(report.working), 2)
        text = Text.assemble(doing, ("  " + nodes, "dim"))
        for step in running:
            grid.add_row(self._spinner, Text(f"{step.number} of 8  {step.title}", style="bold"), clock(now - step.started), text)
        if not running:
            grid.add_row(self._spinner, report.command or "start", clock(now - report.started) if report.started else "", text)
        waiting = [step.title for step in report.steps.values() if step.state == "waiting"]
        rest = Text("  then " + ", ".join(waiting), style="dim", no_wrap=True, overflow="ellipsis") if waiting and running else Text("")
        return Group(grid, rest)


def step_line(step: StepReport) -> str:
    failed = [node for node, tally in step.nodes.items() if tally.failed]
    what = f"[yellow]{count(step.changed, 'change')}[/]" if step.changed else "[dim]nothing to change[/]"
    if failed:
        what += f"  [red]failed on {escape(few(failed))}[/]"
    elif step.state == "failed":
        what = "[red]stopped[/]"
    if step.state == "waiting":
        return f" {_MARKS[step.state]} {step.number} {step.title:<22} {'':>8}   [dim]not reached[/]"
    return f" {_MARKS[step.state]} {step.number} {step.title:<22} {clock(step.seconds):>8}   {what}"


def show_report(out: Console, report: Report, *, diff: bool = False) -> None:
    """The end of a run: what is wrong with remedies, the nodes, one line for the whole."""
    if report.command == "plan":
        show_changes(out, report, diff=diff)
        for line in report.forecast():
            out.print(line, highlight=False, markup=False)
    show_problems(out, report.problems)
    show_failures(out, report)
    show_checks(out, report.checks)
    if report.command == "verify":
        _show_matrix(out, matrix(report.checks))
    if report.command in ("apply", "plan", "verify") and report.exit_code != ExitCode.REFUSED:
        out.print(_nodes(report))
    statuses = Counter(str(check.get("status")) for check in report.checks)
    told = [f"{clock(report.seconds)}"]
    if report.command in ("apply", "plan"):
        told.append(count(len(report.changes), "change") + (" to make" if report.command == "plan" else ""))
    if statuses:
        judged = sum(statuses.values()) - statuses["skip"]  # one that doesn't apply says nothing
        told.append(f"{statuses['pass']} of {count(judged, 'check')} passed")
    warned = statuses["warn"] + sum(found["severity"] == "warning" for found in report.problems)
    outcome = _OUTCOMES[report.exit_code] + (f", with [yellow]{count(warned, 'warning')}[/]" if warned else "")
    out.print(f"{outcome}. {report.command} of cluster {report.cluster}: {', '.join(told)}.")
    if resume := report.resume():
        out.print(f"Nothing is lost: what stands stays. Go on with: [bold]{escape(resume)}[/]")


def show_run(out: Console, report: Report) -> None:
    """A run that is over: when, its steps, and its end."""
    out.print(f"[dim]{_when(report)}  {escape(report.run)}[/]")
    for step in report.steps.values():
        out.print(step_line(step))
    show_report(out, report)


def show_runs(out: Console, reports: list[Report]) -> None:
    """One line for each."""
    table = _table("run", "began", "took", "command", "outcome")
    for report in reports:
        outcome = _OUTCOMES[report.exit_code].partition(":")[0] if report.finished else "[yellow]Not ended[/]"
        table.add_row(escape(report.run), _when(report), clock(report.seconds), report.command, outcome)
    out.print(table)


def show_keys(out: Console, keys: list[Key]) -> None:
    """SSH keys of this admin host, numbered."""
    table = _table("", "key", "type", "comment", "fingerprint", "")
    for number, key in enumerate(keys, 1):
        held = "in ssh-agent" if key.agent else "wants a passphrase" if key.locked else ""
        table.add_row(str(number), escape(key.name), f"{key.kind} {key.bits}", escape(key.comment), key.fingerprint, held)
    out.print(table)


def show_host_keys(out: Console, found: list[HostKeys]) -> None:
    """The nodes' host keys, as pinned and as they are presented."""
    table = _table("node", "presents", "", "pinned")
    for node in found:
        if not node.presented:
            table.add_row(escape(node.name), "[dim]no answer[/]", "", "")
        for kind, (fingerprint, _line) in node.presented.items():
            pinned = node.pinned.get(kind)
            said = "[green]as pinned[/]" if pinned == fingerprint else "[red]changed[/]" if pinned else "[yellow]not pinned[/]"
            table.add_row(escape(node.name), kind, fingerprint, said)
    out.print(table)


def show_machines(out: Console, machines: dict[str, Machine]) -> None:
    """Machines that were found, and how."""
    table = _table("name", "address", "SSH port", "found by", "known as")
    for name, machine in machines.items():
        also = sorted(machine.known_as - {name, machine.host, machine.host.lower()})
        table.add_row(name, machine.host, str(machine.port), ", ".join(machine.discovered_by), ", ".join(also))
    out.print(table)


def show_page(out: Console, page: Path | None) -> None:
    if page:
        out.print(f"Report: {escape(str(page))}", soft_wrap=True)


def _when(report: Report) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(report.started))


def _show_matrix(out: Console, cells: dict[str, dict[str, dict[str, Any]]]) -> None:
    """How each node reaches each other, as far as that fits on a page."""
    if not 1 < len(cells) <= MANY:
        return
    table = _table("from, to", *sorted(cells))
    for node, row in sorted(cells.items()):
        table.add_row(escape(node), *(escape(_cell(row[peer])) if peer in row else "" for peer in sorted(cells)))
    out.print(table)


def _cell(way: dict[str, Any]) -> str:
    """`0.03 ms, MTU 1500, clock ±0.015 s`, or why not. MTU is the size up to which packets get there."""
    if not way.get("reachable"):
        return str(way.get("why") or "not tried")
    said = [f"{way['latency_ms']:g} ms", f"MTU {carried(way)}"]
    if way.get("lost"):
        said.append(f"{100 * way['lost'] / way['sent']:.0f} % lost")
    if "clock_offset_seconds" in way:
        ahead, doubt = way["clock_offset_seconds"], way.get("clock_uncertainty_seconds", 0)
        # What is less than the doubt is nothing that was seen.
        said.append(f"clock {ahead:+.3f} s" if abs(ahead) > doubt else f"clock ±{doubt:.3f} s")
    if way["address"] not in way["resolves"]:
        said.append("name unknown" if not way["resolves"] else f"name is {way['resolves'][0]}")
    return ", ".join(said)


def _nodes(report: Report) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("", "node", "changes", "checks", "machine"):
        table.add_column(column, justify="right" if column == "changes" else "left", overflow="fold")
    for name, tally in sorted(report.nodes.items()):
        failed = name in {failure["node"] for failure in report.failures}
        statuses = Counter(str(check.get("status")) for check in report.checks if check.get("node") == name)
        checks = " ".join(f"{statuses[status]} {status}" for status in ("pass", "warn", "fail") if statuses[status])
        table.add_row(_MARKS["failed" if failed else "done"], escape(name), str(tally.changed), checks, escape(report.hardware(name)))
    return table


def _finding(out: Console, mark: str, where: str, what: str, remedy: str | None) -> None:
    out.print(f"{mark} [bold]{escape(where)}[/]")
    for text, label in ((what, ""), (remedy, "[cyan]Remedy:[/] ")):
        if text:
            out.print(Padding(label + escape(str(text)), (0, 0, 0, 2), expand=False))


def show_problems(out: Console, problems: list[Problem]) -> None:
    for found in problems:
        mark = "[red]✘[/]" if found["severity"] == "error" else "[yellow]![/]"
        value = "" if found["value"] is None else f" = {found['value']!r}"
        where = f"{found['option'] or found['severity']}{value}" + (f" ({found['node']})" if found["node"] else "")
        _finding(out, mark, where, found["message"], found["remedy"])


def show_failures(out: Console, report: Report) -> None:
    for failure in report.failures:
        if failure["kind"] not in ("problems", "checks"):
            role = f"{failure['role']}: " if failure["role"] else ""
            _finding(out, "[red]✘[/]", f"{failure['node']}: {role}{failure['task']}", failure["message"], failure["remedy"])


def show_checks(out: Console, checks: list[dict[str, Any]]) -> None:
    """Those that did not pass, the same one on several nodes told once."""
    told: dict[tuple[str, ...], list[str]] = {}
    for check in checks:
        if check.get("status") in ("fail", "warn"):
            key = tuple(str(check.get(part) or "") for part in ("status", "role", "title", "seen", "expected", "requirement", "remedy"))
            told.setdefault(key, []).append(str(check.get("node")))
    for (status, role, title, seen, expected, requirement, remedy), nodes in sorted(told.items()):
        mark = "[red]✘[/]" if status == "fail" else "[yellow]![/]"
        what = (
            (f"seen {seen}" if seen else "")
            + (f", expected {expected}" if expected else "")
            + (f"  [{requirement}]" if requirement else "")
        )
        _finding(out, mark, f"{few(nodes)}: {role}: {title}", what.lstrip(", "), remedy)


def show_changes(out: Console, report: Report, *, diff: bool) -> None:
    """Per step: what would change, by node where nodes differ."""
    for step in report.steps.values():
        told: dict[tuple[str, ...], list[str]] = {}
        for change in report.changes:
            if change["step"] == step.number:
                key = tuple(str(change.get(part) or "") for part in ("role", "kind", "name", "what"))
                told.setdefault(key, []).append(change["node"])
        if not told:
            continue
        out.print(f" [bold]{step.number} {step.title}[/]")
        listed = list(told.items())
        for (role, kind, name, what), nodes in listed if diff else listed[:MANY]:
            everywhere = "" if len(nodes) == len(report.nodes) else f"  [dim]{escape(few(nodes))}[/]"
            out.print(f"     [dim]{escape(role)}[/] {escape(kind)} [bold]{escape(name)}[/] {escape(what)}{everywhere}")
        if len(listed) > MANY and not diff:
            out.print(f"     [dim]and {len(listed) - MANY} more: --diff shows all, with what differs[/]")
        for one in report.diffs if diff else ():
            if one["step"] == step.number:
                for line in unified(one):
                    style = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "dim")
                    out.print(Text("     " + line, style=style))


def show_detected(out: Console, report: Report) -> None:
    """Step 1's findings: tables of machines, interfaces and GPUs, then what is odd about them."""
    known = {name: facts for name, facts in sorted(report.facts.items()) if "bzzz_system" in facts}
    if not known:
        return
    machines = _table("node", "system", "CPU", "memory", "disk", "GPUs", "network")
    for name, facts in known.items():
        *machine, network = map(escape, _machine(facts))
        machines.add_row(escape(name), *machine, escape(report.gpus(name)) or "[dim]none[/]", network)
    out.print(machines)
    places = report.places()
    interfaces = _table("node", "interface", "", "kind", "state", "addresses", "MTU", "speed", "MAC", "driver")
    for name, facts in known.items():
        for found in facts["bzzz_network"]["interfaces"]:
            if found["kind"] != "loopback":
                interfaces.add_row(escape(name), *_interface(found, places.get(name, {}).get("interface")))
    out.print(interfaces)
    gpus = _table("node", "GPU", "model", "memory", "driver", "runtime", "UUID", "PCI address")
    for name, facts in known.items():
        for device in facts["bzzz_gpu"]["devices"]:
            rest = (device[part] for part in ("driver_version", "runtime_version", "uuid", "pci_address"))
            cells = (name, f"{device['vendor']} {device['index']}", device["model"], gib(device["memory_total_mib"]), *rest)
            gpus.add_row(*(escape(str(cell or "")) for cell in cells))
    if gpus.row_count:
        out.print(gpus)
    findings: dict[tuple[str, str], list[str]] = {}
    for name, facts in known.items():
        for part in facts.values():
            for finding in part.get("problems") or [] if isinstance(part, dict) else ():
                findings.setdefault((str(finding.get("message")), str(finding.get("remedy") or "")), []).append(name)
    for (message, remedy), names in findings.items():
        _finding(out, "[yellow]![/]", few(names), message, remedy)


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _interface(found: dict[str, Any], chosen: str | None) -> list[str]:
    """Cells of an interface; the one that carries the cluster's traffic is marked."""
    state = "no carrier" if found["up"] and found["carrier"] is False else str(found["state"] or "")
    addresses = ", ".join(f"{address['address']}/{address['prefix']}" for address in found["addresses"])
    speed = f"{found['speed_mbps']} Mb/s" if found["speed_mbps"] else ""
    cells = [found["name"], "cluster" if found["name"] == chosen else "", found["kind"], state]
    return [escape(str(cell or "")) for cell in (*cells, addresses, found["mtu"], speed, found["mac"], found["driver"])]


def _machine(facts: dict[str, Any]) -> list[str]:
    """System, CPU, memory, disk, primary interface with its addresses."""
    system, network = facts.get("bzzz_system") or {}, facts.get("bzzz_network") or {}
    cpu, memory = system.get("cpu") or {}, system.get("memory") or {}
    primary = network.get("primary_interface")
    addresses = [
        f"{address['address']}/{address['prefix']}"
        for interface in network.get("interfaces") or []
        if interface["name"] == primary
        for address in interface.get("addresses") or []
        if address.get("scope") != "link"
    ]
    roots = [mount for mount in system.get("mounts") or [] if mount.get("path") == "/"]
    free = f"{gib(roots[0].get('available_mib'))} free of {gib(roots[0].get('total_mib'))}" if roots else ""
    return [
        str((system.get("os") or {}).get("name") or ""),
        f"{cpu.get('threads') or '?'} x {cpu.get('model') or cpu.get('architecture') or ''}",
        gib(memory.get("total_mib")),
        free,
        " ".join(part for part in [str(primary or ""), ", ".join(addresses)] if part),
    ]
