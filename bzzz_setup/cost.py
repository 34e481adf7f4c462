# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What models cost: `bzzz-setup cost report`, `export`, `reconcile` and `forecast`."""

from __future__ import annotations

import contextlib
import enum
import itertools
import json
import tempfile
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from ansible_collections.bzzz.cluster.plugins.module_utils import forecast as forecasts
from ansible_collections.bzzz.cluster.plugins.module_utils.forecast import NANO, amount, told, usd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bzzz_setup import billing, cli, paths, run
from bzzz_setup.declaration import Declaration, write
from bzzz_setup.events import ExitCode, Refusal
from bzzz_setup.portable import remembered_facts
from bzzz_setup.report import Report, count
from bzzz_setup.reports import figures
from bzzz_setup.web.trying import options_of

PLAYBOOK = "bzzz.cluster.cost"
DIMENSIONS = ("user", "project", "model", "task")
# OpenAI's figures of a day may change for a while after it.
LATE_HOURS = 6
# Runs, of the latest ones, that may tell of a node's GPUs.
LOOKED_INTO = 5
# How `gateway_models` names the cluster's own nodes.
CLUSTER = "cluster"
# Of dollars a million tokens, nano-dollars a token.
NANO_A_TOKEN = NANO // forecasts.MILLION

app = typer.Typer(help="What models cost.", no_args_is_help=True, epilog=cli.EPILOG)


class Per(enum.StrEnum):
    """Lengths of a report's lines."""

    hour = "hour"
    day = "day"
    month = "month"
    whole = "whole"


class Kind(enum.StrEnum):
    """What is exported."""

    csv = "csv"
    focus = "focus"


SinceOption = Annotated[str | None, typer.Option(metavar="DAY", help="From this day on, such as 2026-11-01. Default: this month's first.")]
UntilOption = Annotated[str | None, typer.Option(metavar="DAY", help="Before this day. Default: up to now.")]


HtmlOption = Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write charts of it into this HTML file, by day.")]


@app.callback()
def cost() -> None:
    """What calls through the AI gateway have cost, from its ledger, and what the declared models would cost."""


@app.command("report")
def report(
    by: Annotated[str, typer.Option(metavar="NAMES", help="Lines by some of user, project, model, task, with commas.")] = "model,task",
    per: Annotated[Per, typer.Option(help="A line for each of these.")] = Per.whole,
    since: SinceOption = None,
    until: UntilOption = None,
    html: HtmlOption = None,
    ask_pass: cli.AskPassOption = False,
    ask_become_pass: cli.AskBecomePassOption = False,
    inventory: cli.InventoryOption = None,
    as_json: cli.JsonOption = False,
) -> None:
    """Show what was called and what it has cost, the budgets, and this month's end at the last days' pace. Asks the gateway's node."""
    with cli._command(inventory, as_json) as call:
        if html:
            asked: dict[str, Any] = {"kind": "report", "by": DIMENSIONS, "per": Per.day.value, **_range(since, until)}
            found = _asked(call.inventory, asked, cli._passwords(ask_pass, ask_become_pass))
            name = Declaration.read(paths.inventory(call.inventory)).cluster
            cli._keep_page(html, figures.spending(name, found, usd), call.as_json)
            if call.as_json:
                cli._print_json(found)
            return
        names = [name.strip() for name in by.split(",") if name.strip()]
        if wrong := [name for name in names if name not in DIMENSIONS]:
            raise Refusal(f"nothing is counted by {wrong[0]}", f"Name some of {', '.join(DIMENSIONS)}.", option="by")
        options = _declared(call.inventory)
        prices = _texts(forecasts.prices(options)) if options else {}
        question = {"kind": "report", "by": names, "per": per.value, "prices": prices, **_range(since, until)}
        found = _asked(call.inventory, question, cli._passwords(ask_pass, ask_become_pass))
        own = options and _own(options) and "served" in found  # the gateway may be of an earlier release
        found = {"served": {}, **found, "idle": _idle(paths.inventory(call.inventory), found["served"]) if own else []}
        if call.as_json:
            cli._print_json(found)
        else:
            show(cli._out(False), found, names)


@app.command("export")
def export(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The file to write.")],
    kind: Annotated[Kind, typer.Option("--format", help="csv: every call. focus: FOCUS 1.0 records by hour, as CSV.")] = Kind.csv,
    since: SinceOption = None,
    until: UntilOption = None,
    account: Annotated[str, typer.Option(metavar="NAME", help="Name of the billing account in FOCUS records.")] = "",
    ask_pass: cli.AskPassOption = False,
    ask_become_pass: cli.AskBecomePassOption = False,
    inventory: cli.InventoryOption = None,
    as_json: cli.JsonOption = False,
) -> None:
    """Write calls and their costs into a file, for spreadsheets (csv) or for programs that bring bills together (focus)."""
    with cli._command(inventory, as_json) as call:
        question = {"kind": "calls" if kind is Kind.csv else "focus", "account": account, **_range(since, until)}
        found = _asked(call.inventory, question, cli._passwords(ask_pass, ask_become_pass))
        try:
            write(output.absolute(), found["csv"], 0o600)
        except OSError as error:
            raise Refusal(f"{output} cannot be written: {error.strerror}", "Name a file that you may write.", option="output") from error
        about = {name: found[name] for name in ("gateway", "time_zone", "since", "until", "calls")}
        if call.as_json:
            cli._print_json({**about, "file": str(output), "format": kind.value})
        else:
            cli._out(False).print(f"{count(found['calls'], 'call')} from {found['since']} to {found['until']}: {escape(str(output))}")


@app.command("reconcile")
def reconcile(
    since: Annotated[str | None, typer.Option(metavar="DAY", help="From this day of UTC on. Default: this month's first.")] = None,
    until: Annotated[str | None, typer.Option(metavar="DAY", help="Before this day. Default: the days that are over.")] = None,
    settle: Annotated[
        bool, typer.Option("--settle", help="Settle calls of unknown outcome by what OpenAI has counted, and free what they hold.")
    ] = False,
    tolerance: Annotated[float, typer.Option(metavar="USD", min=0, help="Difference of a day that is none.")] = 0.01,
    ask_pass: cli.AskPassOption = False,
    ask_become_pass: cli.AskBecomePassOption = False,
    inventory: cli.InventoryOption = None,
    as_json: cli.JsonOption = False,
) -> None:
    """Hold the ledger against what OpenAI has billed, day by day. Exit code 1: a difference is not explained. Wants openai_admin_key."""
    with cli._command(inventory, as_json) as call:
        first, end = _days(since, until, datetime.now(UTC))
        bill = billing.asked(paths.inventory(call.inventory), first, end, usage=settle)
        question = {
            "kind": "reconcile",
            "since": f"{first:%Y-%m-%d}",
            "until": f"{end:%Y-%m-%d}",
            "project": bill.project,
            "costs": bill.costs,
            "usage": bill.usage,
            "settle": settle,
            "prices": _texts(forecasts.listed()),
        }
        found = _asked(call.inventory, question, cli._passwords(ask_pass, ask_become_pass))
        least = round(tolerance * NANO)
        for day in found["days"]:
            difference = day["difference_nano"]
            day["explained"] = -least <= difference <= day["unknown_nano"] + least
        code = ExitCode.FINE if all(day["explained"] for day in found["days"]) else ExitCode.CHECKS_FAILED
        if call.as_json:
            cli._print_json({**found, "exit_code": int(code)})
        else:
            show_reconciled(cli._out(False), found, bill.project)
    raise typer.Exit(code)


@app.command("forecast")
def forecast(inventory: cli.InventoryOption = None, as_json: cli.JsonOption = False) -> None:
    """Show what a month of the declared models would cost, by cost_expected and cost_machines. Touches no node."""
    with cli._command(inventory, as_json) as call:
        done, _ = cli._run(run.Job("check", paths.inventory(call.inventory), ["bzzz.cluster.check"], journal=False), call.as_json)
        if done.exit_code != ExitCode.FINE:
            refused = Refusal("the declaration is refused", "See: bzzz-setup check.")
            refused.problems = done.problems or refused.problems
            raise refused
        found = next((facts["bzzz_cost_forecast"] for facts in done.facts.values() if "bzzz_cost_forecast" in facts), None)
        if found is None:
            raise Refusal("there is no AI gateway in this declaration", "Set gateway_enabled: true.", option="gateway_enabled")
        if call.as_json:
            cli._print_json(found)
        else:
            show_forecast(cli._out(False), found)


def _range(since: str | None, until: str | None) -> dict[str, str]:
    found = {name: value for name, value in (("since", since), ("until", until)) if value}
    for name, value in found.items():
        try:
            date.fromisoformat(value)
        except ValueError:
            raise Refusal(f"{value} is no day", "Write it as 2026-11-30.", option=name) from None
    if len(found) == 2 and not found["since"] < found["until"]:
        raise Refusal("there is nothing between these days", "Give --until a later day than --since.", option="until")
    return found


def _days(since: str | None, until: str | None, now: datetime) -> tuple[datetime, datetime]:
    """Whole days of UTC that are over. Raises Refusal."""
    given = {name: datetime.fromisoformat(day).replace(tzinfo=UTC) for name, day in _range(since, until).items()}
    over = (now - timedelta(hours=LATE_HOURS)).replace(hour=0, minute=0, second=0, microsecond=0)
    end = given.get("until", over)
    if end > over:
        raise Refusal(
            f"{end - timedelta(days=1):%Y-%m-%d} is not over yet, or OpenAI may still count",
            f"Give {over:%Y-%m-%d} at most.",
            option="until",
        )
    first = given.get("since", (end - timedelta(days=1)).replace(day=1))
    if not first < end:
        raise Refusal("there is no whole day to compare", f"Give an earlier day than {end:%Y-%m-%d}.", option="since")
    return first, end


def _declared(inventory: Path | None) -> dict[str, Any] | None:
    """What is declared of models and their cost; None where only Ansible can work it out, and a report does not want for it."""
    with contextlib.suppress(Refusal):
        return dict(options_of(Declaration.read(paths.inventory(inventory)), "openai", "gateway", "cost")[0])
    return None


def _own(options: Mapping[str, Any]) -> bool:
    """Whether calls may go to the cluster's own nodes."""
    return any(model.get("endpoint") == CLUSTER for model in options["gateway"]["models"])


def _idle(folder: Path, served: Mapping[str, int]) -> list[dict[str, str]]:
    """`{node, gpus}` of the nodes that had GPUs when a run last looked at them, and have had no call."""
    known = Report()
    journals = itertools.islice(reversed(run.runs(Declaration.read(folder).cluster)), LOOKED_INTO)
    known.facts, _ = remembered_facts(Report.of(run.events(journal)) for journal in journals)
    return [{"node": node, "gpus": gpus} for node in sorted(known.facts) if (gpus := known.gpus(node)) and not served.get(node)]


def _texts(prices: dict[str, forecasts.Price]) -> dict[str, list[str]]:
    return {name: [str(each * NANO_A_TOKEN) for each in price] for name, price in prices.items()}


def _asked(inventory: Path | None, question: dict[str, Any], passwords: dict[str, str]) -> dict[str, Any]:
    """The ledger's answer; see bzzz_setup/gateway/asked.py. Raises Refusal where there is none."""
    with tempfile.TemporaryDirectory(prefix="bzzz-cost-") as scratch:
        asked, answer, report = Path(scratch, "question"), Path(scratch, "answer"), Report()
        # OpenAI's pages are more than an argument may hold, and nobody else's to read.
        write(asked, json.dumps(question), 0o600)
        variables = {"ledger_question": str(asked), "ledger_answer": str(answer)}
        job = run.Job("cost", paths.inventory(inventory), [PLAYBOOK], journal=False, passwords=passwords, variables=variables)
        run.execute(job, report.add)
        if answer.exists():
            found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
            return found
    if report.problems or report.failures:
        said = "; ".join(dict.fromkeys(f"{each['node']}: {each['message']}" for each in report.failures))
        remedies = [each["remedy"] for each in report.failures if each["remedy"]]
        refused = Refusal(said or "the ledger cannot be asked", remedies[0] if remedies else "See the message.", ExitCode.NODES_FAILED)
        refused.problems = report.problems or refused.problems
        raise refused
    raise Refusal("no coordinator has an AI gateway", "Set gateway_enabled: true, and apply step 4.", option="gateway_enabled")


def show(out: Console, found: dict[str, Any], by: list[str]) -> None:
    """The lines of a report, its sum, the budgets and the month's end."""
    timed = any(row["start"] for row in found["rows"])
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in [*(["from"] if timed else []), *by]:
        table.add_column(column, overflow="fold")
    for column in ("calls", "tokens in", "cached", "out", "mean latency", "cost USD"):
        table.add_column(column, justify="right")
    for row in found["rows"]:
        start = [f"{datetime.fromisoformat(row['start']):%Y-%m-%d %H:%M}"] if timed else []
        tokens = (f"{row[f'tokens_{kind}']:,}" for kind in ("in", "cached", "out"))
        figures = [f"{row['calls']:,}", *tokens, f"{row['latency_ms'] / 1000:.2f} s", amount(row["cost_nano"])]
        table.add_row(*start, *(escape(row[name]) or "[dim]-[/]" for name in by), *figures)
    if found["rows"]:
        out.print(table)
    held = f", and up to {usd(found['held_nano'])} for calls of unknown outcome" if found["held_nano"] else ""
    period = f"from {found['since']} to {found['until']} (days of {found['time_zone']})"
    out.print(f"[bold]{usd(found['nano'])}[/] for {count(found['calls'], 'call')}{held}, {period}.", highlight=False)
    cached = found["caching"]
    if cached["tokens_in"]:
        out.print(
            f"{cached['tokens_cached'] * 100 // cached['tokens_in']} % of the tokens in came from providers' caches.", highlight=False
        )
    for each in found["recommendations"]:
        what = f"{each['task']} on {each['model']}" if each["task"] else each["model"]
        costs = [f"{amount(each[name])} USD" for name in ("cost_nano", "other_nano")]
        out.print(
            f"[cyan]i[/] {escape(what)} has cost {costs[0]}; the same tokens on {escape(each['other'])} cost {costs[1]}.", highlight=False
        )
    for each in found["idle"]:
        out.print(f"[cyan]i[/] {escape(each['node'])} ({escape(each['gpus'])}) has had no call in this time.", highlight=False)
    month = found["month"]
    out.print(
        f"This month: {usd(month['spent_nano'])} so far, {usd(month['expected_nano'])} at its end at the pace of the last seven days.",
        highlight=False,
    )
    if found["budgets"]:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for column in ("budget of", "each", "limit USD", "spent", "held", ""):
            table.add_column(column, justify="left" if column in ("budget of", "each") else "right")
        for each in found["budgets"]:
            part = (each["spent_nano"] + each["held_nano"]) * 100 // each["limit_nano"] if each["limit_nano"] else 100
            style = "red" if part >= 95 else "yellow" if part >= 80 else "green"
            amounts = (amount(each[name]) for name in ("limit_nano", "spent_nano", "held_nano"))
            table.add_row(escape(each["scope"]), each["period"], *amounts, f"[{style}]{part} %[/]")
        out.print(table)


def show_reconciled(out: Console, found: dict[str, Any], project: str | None) -> None:
    """A line for each day, and what it means."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("day (UTC)", "ledger USD", "OpenAI", "difference", "of unknown outcome", ""):
        table.add_column(column, justify="left" if column in ("day (UTC)", "") else "right")
    for day in found["days"]:
        held = f"up to {amount(day['unknown_nano'])}" if day["unknown_nano"] else ""
        mark = "[green]✔[/]" if day["explained"] else "[red]✘[/]"
        table.add_row(day["day"], *(amount(day[f"{name}_nano"]) for name in ("ledger", "provider", "difference")), held, mark)
    if found["days"]:
        out.print(table)
    whose = f"project {escape(project)}" if project else "the whole organisation"
    out.print(f"OpenAI's figures are those of {whose}, from {found['since']} to {found['until']}.", highlight=False)
    if found["settled"]:
        out.print(f"{count(found['settled'], 'call')} of unknown outcome {'is' if found['settled'] == 1 else 'are'} settled by them.")
    wrong = [day for day in found["days"] if not day["explained"]]
    if any(day["difference_nano"] > 0 for day in wrong):
        out.print(
            "[red]✘[/] OpenAI has billed more than the gateway has counted. Remedy: see whether something else uses the key or the "
            "project; give the gateway a project of its own (openai_project)."
        )
    if any(day["difference_nano"] < 0 for day in wrong):
        out.print(
            "[red]✘[/] The gateway has counted more than OpenAI has billed. Remedy: see whether calls go elsewhere (openai_base_url), "
            "whether OpenAI gives a discount, and whether the prices of gateway_models are right."
        )
    if not wrong:
        out.print("[green]✔[/] Ledger and bill agree.")


def show_forecast(out: Console, found: dict[str, Any]) -> None:
    """A line for each model and machine, and the sum in words."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("model or machine", "calls a month", "tokens in", "out", "USD a month", "at most"):
        table.add_column(column, justify="left" if column.startswith("model") else "right")
    for row in found["models"]:
        figures = (f"{row[name]:,}" for name in ("calls", "tokens_in", "tokens_out"))
        costs = (amount(row["nano"]), amount(row["most_nano"])) if row["priced"] else ("[yellow]unknown[/]", "")
        table.add_row(escape(row["model"]), *figures, *costs)
    for each in found["machines"]:
        table.add_row(escape(f"{each['count']} x {each['name']}"), "", "", "", amount(each["nano"]), amount(each["nano"]))
    if found["models"] or found["machines"]:
        out.print(table)
    for line in told(found):
        out.print(line, highlight=False)
    if found["idle"]:
        out.print(f"[dim]No use is expected of {escape(', '.join(found['idle']))}.[/]", highlight=False)
