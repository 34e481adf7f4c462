# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The models of the cluster: where they would go, where they are, and having them there (`bzzz-setup models`)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from ansible_collections.bzzz.cluster.plugins.module_utils.addresses import AddressError, parse_network
from ansible_collections.bzzz.cluster.plugins.module_utils.models.holding import amount
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bzzz_setup import cli, paths, run, terminal
from bzzz_setup.declaration import Declaration
from bzzz_setup.events import ExitCode, Refusal
from bzzz_setup.report import Report, clock, count, gib
from bzzz_setup.reports import figures

PLAN, PULL, LIST = (f"bzzz.cluster.models_{what}" for what in ("plan", "pull", "list"))
WIDTH = 24
# Part -> what it is called, its letter in a bar, and its colour.
PARTS = {
    "weights_bytes": ("weights", "█", "blue"),
    "cache_bytes": ("KV cache", "▓", "magenta"),
    "overhead_bytes": ("overhead", "▒", "yellow"),
    "reserved_bytes": ("in use or reserved", "░", "dim"),
    "free_bytes": ("free", "·", "green"),
}

app = typer.Typer(help="The models of the cluster.", no_args_is_help=True, epilog=cli.EPILOG)


@app.callback()
def models() -> None:
    """Which models the cluster is to hold, and which it holds."""


@app.command("plan")
def plan(
    limit: cli.LimitOption = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a picture of it into this HTML file as well.")] = None,
    ask_pass: cli.AskPassOption = False,
    ask_become_pass: cli.AskBecomePassOption = False,
    inventory: cli.InventoryOption = None,
    as_json: cli.JsonOption = False,
) -> None:
    """Show which model would go on which node and GPU, with the figures, and what fits nowhere. Changes nothing."""
    with cli._command(inventory, as_json) as call:
        passwords = cli._passwords(ask_pass, ask_become_pass)
        job = run.Job("models-plan", paths.inventory(call.inventory), [PLAN], limit=limit, passwords=passwords)
        report, _ = cli._run(job, call.as_json)
        found = next((facts["bzzz_models"] for facts in report.facts.values() if "bzzz_models" in facts), None)
        if call.as_json:
            rest = {"problems": report.problems, "failures": report.failures, "exit_code": int(report.exit_code)}
            cli._print_json({**(found or {"nodes": {}, "placed": [], "refused": [], "unknown": []}), **rest})
        else:
            show(cli._out(False), report, found)
        if html and found:
            cli._keep_page(html, figures.fit(Declaration.read(paths.inventory(call.inventory)).cluster, found), call.as_json)
        raise typer.Exit(report.exit_code)


@app.command("pull")
def pull(
    limit: cli.LimitOption = None,
    check: Annotated[bool, typer.Option("--check", help="Only say what would be pulled, copied and removed.")] = False,
    ask_pass: cli.AskPassOption = False,
    ask_become_pass: cli.AskBecomePassOption = False,
    inventory: cli.InventoryOption = None,
    as_json: cli.JsonOption = False,
) -> None:
    """Have the nodes hold their models, as step 4 does: pulled by their Ollamas, or copied from a node that has them."""
    with cli._command(inventory, as_json) as call:
        passwords = cli._passwords(ask_pass, ask_become_pass)
        job = run.Job("models-pull", paths.inventory(call.inventory), [PULL], limit=limit, check=check, passwords=passwords)
        report, _ = cli._run(job, call.as_json)
        changes = [change for change in report.changes if change["kind"] == "model"]
        if call.as_json:
            rest = {"problems": report.problems, "failures": report.failures, "checks": report.checks, "exit_code": int(report.exit_code)}
            cli._print_json({"models": [{key: one[key] for key in ("node", "name", "what")} for one in changes], **rest})
        else:
            out = cli._out(False)
            if changes:
                table = _table("node", "model", "")
                for one in changes:
                    table.add_row(*(escape(str(one[part])) for part in ("node", "name", "what")))
                out.print(table)
            elif report.exit_code == ExitCode.FINE:
                out.print("Every node holds the models that it is to hold.")
            terminal.show_report(out, report)
        raise typer.Exit(report.exit_code)


@app.command("list")
def list_(
    discover: Annotated[bool, typer.Option("--discover", help="Also look for other Ollamas on the cluster's subnets.")] = False,
    subnet: Annotated[
        list[str] | None, typer.Option(metavar="CIDR", help="With --discover: look there instead. As often as wanted.")
    ] = None,
    limit: cli.LimitOption = None,
    ask_pass: cli.AskPassOption = False,
    ask_become_pass: cli.AskBecomePassOption = False,
    inventory: cli.InventoryOption = None,
    as_json: cli.JsonOption = False,
) -> None:
    """List which Ollama holds which model, how large it is, and whether it is loaded. Changes nothing."""
    with cli._command(inventory, as_json) as call:
        if subnet and not discover:
            raise Refusal("--subnet says where to look", "Give --discover as well.", option="subnet")
        for one in subnet or ():
            try:
                parse_network(one)
            except AddressError as error:
                raise Refusal(str(error), "Write it as 192.168.1.0/24.", option="subnet") from None
        passwords = cli._passwords(ask_pass, ask_become_pass)
        variables = {"discover_ollamas": str(discover).lower(), "discover_subnets": ",".join(subnet or ())}
        job = run.Job("models-list", paths.inventory(call.inventory), [LIST], limit=limit, passwords=passwords, variables=variables)
        report, _ = cli._run(job, call.as_json)
        told = {node: facts["bzzz_models_held"] for node, facts in report.facts.items() if "bzzz_models_held" in facts}
        found, code = holdings(told), report.exit_code
        # As with `verify`: a node's own Ollama must answer, and of a server outside it is only told.
        if code == ExitCode.FINE and any(one["node"] for one in found["silent"]):
            code = ExitCode.CHECKS_FAILED
        if call.as_json:
            rest = {"problems": report.problems, "failures": report.failures, "exit_code": int(code)}
            cli._print_json({**found, **rest})
        else:
            out = cli._out(False)
            if told:
                show_holdings(out, found)
            if report.exit_code != ExitCode.FINE:
                terminal.show_report(out, report)
        raise typer.Exit(code)


def holdings(told: dict[str, Any]) -> dict[str, Any]:
    """`{models, silent, discovered, looked_in}`: a row for each model of each endpoint, and the endpoints that do not answer, with why.

    The Ollama of a node is told by that node; a server outside, by the first node that reaches it. `discovered` are servers of which the
    declaration knows nothing, on the networks that were `looked_in`.
    """
    models: list[dict[str, Any]] = []
    silent: dict[tuple[str | None, str], str] = {}
    outside: set[str] = set()
    for node, held in sorted(told.items()):
        for url, answer in held["endpoints"].items():
            mine = url in held["instances"]
            where = (node if mine else None, url)
            if "error" in answer:
                silent.setdefault(where, answer["error"])
            elif mine or url not in outside:
                outside.update([] if mine else [url])
                told_of = ("digest", "bytes", "loaded_bytes")
                rows = (one for _name, one in sorted(answer["models"].items()))
                models += [
                    {"node": where[0], "endpoint": url, "model": one["name"], **{part: one[part] for part in told_of}} for one in rows
                ]
    declared = {url for held in told.values() for url in held["endpoints"]}
    swept: dict[str, Any] = next((held["found"] for held in told.values() if held.get("found")), {"subnets": [], "ollamas": {}})
    discovered = [
        {"endpoint": url, "version": one["version"], "models": sorted(model["name"] for model in one["models"].values())}
        for url, one in sorted(swept["ollamas"].items())
        if url not in declared
    ]
    still = {where: why for where, why in silent.items() if where[1] not in outside or where[0]}
    silences = [{"node": node, "endpoint": url, "why": why} for (node, url), why in still.items()]
    return {"models": models, "silent": silences, "discovered": discovered, "looked_in": swept["subnets"]}


def show_holdings(out: Console, found: dict[str, Any]) -> None:
    """One line for each model of each endpoint."""
    table = _table("node", "endpoint", "model", "size", "loaded", "digest")
    for one in found["models"]:
        loaded = "[dim]no[/]" if one["loaded_bytes"] is None else f"[green]yes[/], {amount(one['loaded_bytes'])}"
        names = (escape(str(one[part] or "")) for part in ("node", "endpoint", "model"))
        table.add_row(*names, amount(one["bytes"]), loaded, escape(one["digest"][:12]))
    if found["models"]:
        out.print(table)
    elif not found["silent"]:
        out.print("No Ollama of the cluster holds a model.")
    for one in found["silent"]:
        out.print(f" [yellow]![/] {escape(one['node'] or 'outside')}: {escape(one['why'])}")
    for one in found["discovered"]:
        holds = ", ".join(one["models"]) or "no model"
        out.print(f" [cyan]+[/] {escape(one['endpoint'])}, Ollama {escape(one['version'])}: {escape(holds)}")
    if found["discovered"]:
        out.print("     Whoever reaches them can use them, this cluster as well: see ollama_endpoints, and gateway_endpoints for calls.")
    elif found["looked_in"]:
        out.print(f"No other Ollama answers in {escape(', '.join(found['looked_in']))}.")


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def show(out: Console, report: Report, found: dict[str, Any] | None) -> None:
    """The plan, or why there is none."""
    if found:
        show_plan(out, found)
    if found is None or report.exit_code not in (ExitCode.FINE, ExitCode.CHECKS_FAILED):
        terminal.show_report(out, report)
        return
    # What is said of the models is in the plan.
    terminal.show_problems(out, [one for one in report.problems if one["option"] != "models_wanted"])
    placed, refused, unknown = (len(found[part]) for part in ("placed", "refused", "unknown"))
    told = [f"{count(placed, 'replica')} placed", f"{refused} nowhere", f"{count(unknown, 'model')} not planned", clock(report.seconds)]
    out.print(("[red]Not all fits[/]" if refused else "[green]Fine[/]") + f". models plan of cluster {report.cluster}: {', '.join(told)}.")


def show_plan(out: Console, found: dict[str, Any]) -> None:
    """A bar for each GPU and each node's memory, then each decision in words."""
    if not (found["placed"] or found["refused"] or found["unknown"]):
        out.print("No models are wanted. Name them in models_wanted, in group_vars/bzzz/main.yml.")
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("node", "place", "", "weights", "KV cache", "overhead", "reserved", "free", "models"):
        table.add_column(column, overflow="fold", no_wrap=column == "")
    for name, node in found["nodes"].items():
        for gpu in node["gpus"]:
            table.add_row(*_row(name, f"{gpu['name']} {gpu['uuid']}".strip(), gpu))
        table.add_row(*_row(name, "memory", node["memory"]))
        path, taken, free = (node["disk"][part] for part in ("path", "taken_bytes", "free_bytes"))
        table.add_row(escape(name), escape(f"disk {path}"), "", "", "", "", "", _size(free), f"[dim]{_size(taken)} to pull[/]")
    out.print(table)
    out.print("  ".join(f"[{style}]{letter}[/] {words}" for words, letter, style in PARTS.values()))
    for name, node in found["nodes"].items():
        for reason in node["left_out"]:
            out.print(f" [yellow]![/] {escape(name)}: not used: {escape(reason)}")
    for one in found["placed"]:
        out.print(f" [green]✔[/] {escape(one['model'])} {one['replica']} on {escape(one['node'])}: {escape(one['why'])}")
    for one in found["refused"]:
        where = f" on {escape(one['node'])}" if one["node"] else ""
        out.print(f" [red]✘[/] {escape(one['model'])} {one['replica']} fits nowhere{where}. {escape(one['why'])}")
        out.print(f"     {escape(one['remedy'])}")
    for one in found["unknown"]:
        out.print(f" [yellow]![/] {escape(one['model'])}: {escape(one['why'])}")
        out.print(f"     {escape(one['remedy'])}")


def bar(parts: dict[str, Any], width: int = WIDTH) -> str:
    """One letter for each part of the whole, with Rich's markup."""
    total, before, told = parts["total_bytes"] or 1, 0, ""
    for part, (_, letter, style) in PARTS.items():
        after = before + parts[part]
        length = round(after * width / total) - round(before * width / total)
        told += f"[{style}]{letter * length}[/]" if length > 0 else ""
        before = after
    return told


def _row(node: str, place: str, parts: dict[str, Any]) -> list[str]:
    return [escape(node), escape(place), bar(parts), *(_size(parts[part]) for part in PARTS), escape(", ".join(parts["models"]))]


def _size(size: int) -> str:
    return gib(size / (1 << 20)) or "0"
