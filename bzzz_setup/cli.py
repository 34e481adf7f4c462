# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The command line: bzzz-setup."""

from __future__ import annotations

import contextlib
import functools
import getpass
import importlib
import json
import os
import re
import shlex
import sys
import webbrowser
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from ansible_collections.bzzz.cluster.plugins.module_utils import discovery
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress as Bar
from rich.prompt import Confirm, Prompt

from bzzz_setup import host_keys, keys, paths, run, steps, terminal
from bzzz_setup import init as new
from bzzz_setup.declaration import Declaration, inventory_names, write
from bzzz_setup.events import Event, ExitCode, Refusal
from bzzz_setup.report import Report, count, few

EPILOG = (
    "Exit codes: 0 fine, 1 checks failed, 2 declaration or option refused, 3 nodes failed or unreachable, "
    "4 another run holds the cluster, 130 interrupted."
)
PASSPHRASE = "ansible_ssh_private_key_passphrase"  # noqa: S105 - an option's name
# Command -> module and attribute, loaded only when it is wanted.
ELSEWHERE = {
    "export": ("portable", "export"),
    "import": ("portable", "import_"),
    "web": ("web.command", "web"),
    "watch": ("watch", "watch"),
    "try": ("web.trying", "try_"),
    "secret": ("secret", "secret"),
    "models": ("models", "app"),
    "cost": ("cost", "app"),
    "lab": ("lab", "app"),
    "demo": ("lab", "demo"),
    "test": ("testing", "test"),
    "bench": ("testing", "bench"),
}


class Commands(typer.core.TyperGroup):
    """Adds the commands that live in modules of their own."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), *(name for name in ELSEWHERE if self._elsewhere(name))]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return super().get_command(ctx, cmd_name) or (self._elsewhere(cmd_name) if cmd_name in ELSEWHERE else None)

    @staticmethod
    @functools.cache
    def _elsewhere(name: str) -> Any:
        module, attribute = ELSEWHERE[name]
        try:
            found = getattr(importlib.import_module(f"bzzz_setup.{module}"), attribute)
        except ModuleNotFoundError as error:
            # A wheel carries the front only; what tests it needs the checkout and its tools.
            if error.name and error.name.split(".")[0] in ("bzzz_setup", "tests"):
                return None
            raise
        if isinstance(found, typer.Typer):
            command: Any = typer.main.get_group(found)
        else:
            single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
            single.command(name)(found)
            command = typer.main.get_command(single)
        command.name = name
        return command


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    # A traceback with local variables could show secrets.
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog=EPILOG,
    context_settings={"help_option_names": ["--help", "-h"]},
)

InventoryOption = Annotated[
    Path | None,
    typer.Option(
        "--inventory",
        "-i",
        envvar="BZZZ_INVENTORY",
        metavar="FOLDER",
        help="The cluster's inventory folder. Default: the only one there is.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
LimitOption = Annotated[
    str | None, typer.Option(metavar="NODES", help="Only these nodes, for example node1,node2 (an Ansible host pattern).")
]


AskPassOption = Annotated[bool, typer.Option("--ask-pass", "-k", help="Ask for the SSH password to log in with.")]
AskBecomePassOption = Annotated[bool, typer.Option("--ask-become-pass", "-K", help="Ask for sudo's password; empty: the same.")]


@dataclass
class Settings:
    """What was given before the command's name."""

    inventory: Path | None = None
    as_json: bool = False


given = Settings()


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"bzzz-setup {metadata.version('bzzz-setup')}, ansible-core {metadata.version('ansible-core')}")
        raise typer.Exit


VersionOption = Annotated[bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)]


@app.callback()
def common(inventory: InventoryOption = None, as_json: JsonOption = False, version: VersionOption = False) -> None:
    """Sets up a BZZZ cluster on Linux machines over SSH, in eight steps.

    Begin with [bold]init[/], which asks for the machines. Then [bold]detect[/] looks at them, [bold]plan[/] shows what
    would be done, [bold]apply[/] does it and [bold]verify[/] checks the result. Every command can be repeated at any time.
    """
    given.inventory, given.as_json = inventory, as_json


def _out(as_json: bool) -> Console:
    """Where people read: not where the JSON document goes."""
    return terminal.console(stderr=as_json)


@contextlib.contextmanager
def _command(inventory: Path | None, as_json: bool) -> Iterator[Settings]:
    """The two global options, wherever they were given; refusals become output and exit code."""
    call = Settings(inventory or given.inventory, as_json or given.as_json)
    try:
        yield call
    except Refusal as refused:
        _tell(refused, call.as_json)
        raise typer.Exit(refused.code) from None


def _tell(refused: Refusal, as_json: bool) -> None:
    if as_json:
        _print_json({"problems": refused.problems, "exit_code": int(refused.code)})
    else:
        terminal.show_problems(terminal.console(stderr=True), refused.problems)


def _print_json(data: Any) -> None:
    print(json.dumps(data, indent=2, ensure_ascii=False))


def _run(job: run.Job, as_json: bool) -> tuple[Report, Path | None]:
    """Run with progress, and keep the report beside the journal; returns its page, too."""
    report = Report()
    progress = contextlib.nullcontext() if as_json else terminal.Progress(_out(False), report)
    with progress as show:

        def take(event: Event) -> None:
            report.add(event)
            if show:
                show(event)

        folder = run.execute(job, take)
    return report, run.keep(folder, report) if folder else None


def _keep_page(file: Path, told: dict[str, Any], as_json: bool) -> None:
    """Write charts into a file. Raises Refusal where that is not possible."""
    from bzzz_setup import reports  # noqa: PLC0415 - its template engine is wanted only here

    try:
        write(file.absolute(), reports.charts(told), 0o600)
    except OSError as error:
        raise Refusal(f"{file} cannot be written: {error.strerror}", "Name a file that you may write.", option="html") from error
    if not as_json:
        _out(False).print(f"Written: {file}", highlight=False, markup=False)


def _meant(limit: str, source: Path) -> None:
    """Raises Refusal where a plain name is neither node nor group: Ansible would go on with the others."""
    from ansible.inventory.manager import split_host_pattern  # noqa: PLC0415 - takes 0.4 s

    if source.is_dir():  # a plugin's, which would look for machines twice
        return
    groups, nodes = inventory_names(source)
    if not groups:  # Ansible cannot read it, and says so
        return
    names = [name for part in split_host_pattern(limit) if re.fullmatch(r"[\w.-]+", name := part.lstrip("&!"))]
    if unknown := [name for name in names if name not in (*nodes, *groups, "ungrouped")]:
        remedy = f"It has the nodes {few(nodes, 12)}, in groups {', '.join(groups)}."
        raise Refusal(f"{source} has no node or group {unknown[0]}", remedy, option="limit")


def _job(command: str, chosen: tuple[steps.Step, ...], inventory: Path | None, limit: str | None, **more: Any) -> run.Job:
    folder = paths.inventory(inventory)
    if limit:
        _meant(limit, Declaration.read(folder).source())
    if any(step.slug == "services" for step in chosen):
        declaration = Declaration.read(folder)
        if "service_release_index" not in declaration.options:
            _build_release(declaration)
    if any(step.slug == "ai" for step in chosen) and command in ("apply", "plan"):
        declaration = Declaration.read(folder)
        if declaration.options.get("gateway_enabled") is True and "gateway_release_index" not in declaration.options:
            _build_gateway(declaration)
    return run.Job(command, folder, steps.playbooks(chosen), [step.number for step in chosen], limit, **more)


def _passwords(ask_pass: bool, ask_become_pass: bool) -> dict[str, str]:
    """What is asked for, by Ansible's own prompts. One line of standard input each where nobody can be asked."""
    wanted = {"--ask-pass": ask_pass, "--ask-become-pass": ask_become_pass}
    words = {"--ask-pass": "SSH password: ", "--ask-become-pass": "Password of sudo: "}
    answers: dict[str, str] = {}
    for option in (name for name, yes in wanted.items() if yes):
        said = getpass.getpass(words[option]) if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
        said = said or answers.get(run.PROMPTS["--ask-pass"], "")
        if not said:
            raise Refusal(f"no password was given for {option}", f"Type it, or give it as a line of standard input; or leave {option} out.")
        answers[run.PROMPTS[option]] = said
    return answers


def _build_release(declaration: Declaration) -> None:
    """In a checkout the release that the collection would carry is made when it is missing or outdated."""
    from bzzz_setup import downloading, release  # noqa: PLC0415 - only these commands need it

    if not (release.ROOT / "pyproject.toml").exists():
        return
    try:
        with downloading.for_pip(downloading.declared(declaration)):
            release.build_all()
    except release.ReleaseError as error:
        remedy = "Check that this host reaches PyPI (the downloads_* options and pip's own settings count), or set service_release_index."
        raise Refusal(str(error), remedy) from error


def _build_gateway(declaration: Declaration) -> None:
    """In a checkout the AI gateway's release is made when it is asked for. It is large, so that is told, and done once."""
    from bzzz_setup import downloading, release  # noqa: PLC0415 - only these commands need it

    if not (release.ROOT / "pyproject.toml").exists() or release.is_built(release.GATEWAY_PRODUCT):
        return
    told = "The AI gateway's release is made, once: LiteLLM is fetched for every Python of the nodes, some 100 MB each. This takes minutes."
    print(told, file=sys.stderr)
    try:
        with downloading.for_pip(downloading.declared(declaration)):
            release.build_all(product=release.GATEWAY_PRODUCT)
    except release.ReleaseError as error:
        remedy = "Check that this host reaches PyPI (the downloads_* options and pip's own settings count), or set gateway_release_index."
        raise Refusal(str(error), remedy) from error


@app.command()
def init(
    nodes: Annotated[
        str | None, typer.Option(metavar="LIST", help="The machines: '10.0.0.10-20, gpu1, 10.0.1.0/28'. Of a network, those that answer.")
    ] = None,
    discover: Annotated[
        bool, typer.Option("--discover", help="Find machines that announce themselves by mDNS: _bzzz._tcp or _ssh._tcp.")
    ] = False,
    interface: Annotated[
        list[str] | None, typer.Option(metavar="NAME|ADDRESS", help="Listen to mDNS on this interface of this host. Default: on all.")
    ] = None,
    subnet: Annotated[list[str] | None, typer.Option(metavar="CIDR", help="Find the SSH servers in this network.")] = None,
    large_sweep: Annotated[bool, typer.Option("--large-sweep", help="Even in networks of more than 1024 addresses.")] = False,
    domain: Annotated[str | None, typer.Option(help="Find the machines that this DNS domain names: SRV records, then A and AAAA.")] = None,
    name_server: Annotated[list[str] | None, typer.Option(metavar="ADDRESS", help="Ask this DNS server. Default: this host's.")] = None,
    exclude: Annotated[str | None, typer.Option(metavar="LIST", help="Machines to leave out, in the notation of --nodes.")] = None,
    timeout_seconds: Annotated[float, typer.Option(help="The longest time for finding machines.")] = discovery.Search.timeout_seconds,
    name: Annotated[str, typer.Option(help="The cluster's name.")] = "bzzz",
    user: Annotated[str | None, typer.Option(help="User to log in as; needs sudo unless it is root. Default: you.")] = None,
    ssh_key: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|FINGERPRINT",
            help="Key to log in with: a private key, or one that ssh-agent holds. 'keys' lists them. Default: what your ssh uses.",
        ),
    ] = None,
    public_key: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE|TEXT", help="Public key that may log in as the cluster's SSH user, in place of a pair that is made."),
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="The machines' SSH port.")] = 22,
    coordinators: Annotated[
        str | None, typer.Option(metavar="N|NAMES", help="How many coordinators, or which. Default: the first 3, or 1 of fewer nodes.")
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OPTION",
            help="Put this option into the vault file, for example ansible_become_password; asked for, or one line of standard input each.",
        ),
    ] = None,
    accept_host_keys: Annotated[
        bool, typer.Option("--accept-host-keys", help="Pin the host keys that the machines present, unseen.")
    ] = False,
    known_hosts: Annotated[
        Path | None, typer.Option(metavar="FILE", exists=True, dir_okay=False, help="Pin the host keys of this file instead.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an inventory folder; the old one is put aside.")] = False,
    inventory: InventoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make an inventory folder: which machines, and how to get in."""
    with _command(inventory, as_json) as call:
        out = _out(call.as_json)
        asking = sys.stdin.isatty() and out.is_terminal
        ask = functools.partial(Prompt.ask, console=out)
        wanted = list(secret or [])
        new.check_names(name, wanted)
        folder = (call.inventory or paths.new_inventory(name)).absolute()
        if os.path.lexists(folder) and not force:
            raise Refusal(f"{folder} exists already", "Choose another folder with -i, or replace it with --force.", option="inventory")
        looking = bool(discover or subnet or domain)
        if nodes is None and asking and not looking:
            nodes = ask("Machines (addresses, ranges, networks, names)")
        if not nodes and not looking:
            remedy = "Name them like --nodes '10.0.0.10-20, gpu1, 10.0.1.0/28', or find them with --discover, --subnet or --domain."
            raise Refusal("no nodes are named", remedy, option="nodes")
        if user is None:
            user = ask("User to log in as", default=getpass.getuser()) if asking else getpass.getuser()
        public_keys = keys.public_keys(public_key or [])
        if ssh_key is None and asking and (offered := keys.offered()):
            terminal.show_keys(out, offered)
            said = ask("Key to log in with, by its number; empty: what your ssh uses", default="", show_default=False)
            ssh_key = offered[int(said) - 1].fingerprint if said in map(str, range(1, len(offered) + 1)) else said or None
        login = keys.chosen(ssh_key) if ssh_key else None
        if login and login.locked and not login.agent and PASSPHRASE not in wanted:
            if not asking:
                raise Refusal(
                    f"{login.file} wants a passphrase, and no agent holds it", keys.LOAD.format(file=login.file), option="ssh_key"
                )
            out.print(escape(f"{login.file} wants a passphrase. It is kept in the vault file."))
            wanted.append(PASSPHRASE)
        identity = keys.identity(login, name) if login else None
        options = new.options(name, user or "", identity, public_keys, passphrase=PASSPHRASE in wanted)

        search = discovery.Search(
            nodes=(nodes,) if nodes else (),
            exclude=(exclude,) if exclude else (),
            mdns=discover,
            mdns_interfaces=tuple(interface or ()),
            subnets=tuple(subnet or ()),
            large_sweep=large_sweep,
            domain=domain,
            name_servers=tuple(name_server or ()),
            port=port,
            timeout_seconds=timeout_seconds,
        )
        machines = _find(search, out)
        if any(machine.discovered_by != ("list",) for machine in machines.values()):
            terminal.show_machines(out, machines)
            if asking:
                machines = new.chosen(ask("Which of them (names or addresses)", default="all").removeprefix("all"), machines)
        named = {name: machine.host for name, machine in machines.items()}
        ports = {machine.host: machine.port for machine in machines.values()}
        chosen = new.choose_coordinators(coordinators, named)
        pinned = host_keys.known_hosts(ports, known_hosts)
        if not known_hosts:
            for host, kind, fingerprint in host_keys.fingerprints(pinned):
                out.print(escape(f"  {host}  {kind}  {fingerprint}"))
            if not accept_host_keys and not (asking and Confirm.ask("Are these the machines' own host keys?", console=out)):
                raise Refusal(
                    "the machines' host keys are not accepted",
                    "Compare them with what ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub says on each machine, "
                    "then give --accept-host-keys, or --known-hosts FILE.",
                    option="known_hosts",
                )
        secrets = {option: getpass.getpass(f"{option}: ") if asking else sys.stdin.readline().rstrip("\n") for option in wanted}
        if PASSPHRASE in secrets and not (login and login.file and keys.opens(login.file, secrets[PASSPHRASE])):
            raise Refusal(
                "this passphrase does not open the private key", "Give the key with --ssh-key, and its own passphrase.", option=PASSPHRASE
            )
        declaration = Declaration(folder, new.hosts(named, chosen, ports), options, pinned, secrets)
        if login and identity:
            keys.keep(login, identity)
        aside = declaration.create(force=force)
        if call.as_json:
            _print_json(
                {
                    "inventory": str(folder),
                    "cluster": name,
                    "nodes": named,
                    "discovered_by": {name: machine.discovered_by for name, machine in machines.items()},
                    "coordinators": chosen,
                    "put_aside": str(aside) if aside else None,
                }
            )
            return
        if aside:
            out.print(escape(f"The former inventory is now {aside}"))
        out.print(f"[green]✔[/] {count(len(named), 'node')}, coordinators: {', '.join(chosen)}. The inventory is {escape(str(folder))}")
        out.print(f"Next: [bold]bzzz-setup detect -i {escape(shlex.quote(str(folder)))}[/], then plan, then apply.")


@app.command("keys")
def keys_(as_json: JsonOption = False) -> None:
    """List the SSH keys that this host has: those of ssh-agent and of ~/.ssh. init takes one by its fingerprint."""
    with _command(None, as_json) as call:
        found = keys.offered()
        if call.as_json:
            _print_json({"keys": [one.as_dict() for one in found]})
        elif found:
            terminal.show_keys(_out(False), found)
        else:
            _out(False).print("There are none: no key in ~/.ssh, none in an ssh-agent. Make one with: ssh-keygen -t ed25519")


@app.command("host-keys")
def host_keys_(
    node: Annotated[str | None, typer.Argument(metavar="[NODE]", help="This node only.")] = None,
    accept: Annotated[
        str | None,
        typer.Option(metavar="FINGERPRINT", help="Pin the key of this fingerprint, as NODE's console told it, in place of the old ones."),
    ] = None,
    inventory: InventoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the host keys that the machines present with those that the inventory pins; accept a machine that was set up anew."""
    with _command(inventory, as_json) as call:
        if accept and not node:
            raise Refusal("--accept is for one node", "Name it: bzzz-setup host-keys NODE --accept SHA256:...", option="accept")
        declaration = Declaration.read(paths.inventory(call.inventory))
        found = host_keys.compared(declaration, node)
        if accept:
            host_keys.accept(declaration, found[0], accept)
            found = host_keys.compared(declaration, node)
        if call.as_json:
            _print_json({"nodes": {one.name: one.as_dict() for one in found}})
        else:
            terminal.show_host_keys(_out(False), found)
        raise typer.Exit(ExitCode.FINE if all(one.trusted for one in found) else ExitCode.CHECKS_FAILED)


@app.command("rotate-key")
def rotate_key(
    ask_pass: AskPassOption = False,
    ask_become_pass: AskBecomePassOption = False,
    inventory: InventoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give the cluster a new SSH key; the old one is revoked when every node has let the new one in. Interrupted, repeat it."""
    with _command(inventory, as_json) as call:
        folder, passwords = paths.inventory(call.inventory), _passwords(ask_pass, ask_become_pass)
        unlocks = "ssh_key_passphrase" in Declaration.read(folder).secrets_set()
        _finish(run.Job("rotate-key", folder, ["bzzz.cluster.rotate_ssh_key"], unlocks=unlocks, passwords=passwords), call.as_json)


@app.command("rotate-ca")
def rotate_ca(
    announce: Annotated[
        bool,
        typer.Option("--announce", help="Only have it trusted beside the old one, so that clients can be given it; go on without."),
    ] = False,
    ask_pass: AskPassOption = False,
    ask_become_pass: AskBecomePassOption = False,
    inventory: InventoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give the cluster a new certificate authority; the old one leaves when every node has a new certificate. Interrupted, repeat it."""
    with _command(inventory, as_json) as call:
        folder, passwords = paths.inventory(call.inventory), _passwords(ask_pass, ask_become_pass)
        variables = {"rotate_ca_announce": "true"} if announce else {}
        _finish(run.Job("rotate-ca", folder, ["bzzz.cluster.rotate_ca"], passwords=passwords, variables=variables), call.as_json)


def _find(search: discovery.Search, out: Console) -> dict[str, discovery.Machine]:
    """The machines by the names that they get. What is odd about them is told."""
    total = sum(network.num_addresses for network in discovery.to_sweep(search)) if not discovery.check(search) else 0
    with Bar(console=out, transient=True, disable=not out.is_terminal) as bar:
        task = bar.add_task("Looking for machines", total=total or None)
        machines, warnings = new.found(search, lambda: bar.advance(task))
    terminal.show_problems(out, warnings)
    return dict(zip(new.named([machine.name or machine.host for machine in machines]), machines, strict=True))


@app.command()
def detect(
    limit: LimitOption = None,
    ask_pass: AskPassOption = False,
    ask_become_pass: AskBecomePassOption = False,
    inventory: InventoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look at the machines (step 1): system, CPU, memory, disks, GPUs, network. Changes nothing."""
    with _command(inventory, as_json) as call:
        report, _ = _run(
            _job("detect", (steps.steps()[0],), call.inventory, limit, passwords=_passwords(ask_pass, ask_become_pass)), call.as_json
        )
        if call.as_json:
            own = ("bzzz_gpu", "bzzz_network", "bzzz_ports", "bzzz_system")
            facts = {name: {part: value for part, value in report.facts.get(name, {}).items() if part in own} for name in report.nodes}
            _print_json(
                {
                    "nodes": facts,
                    "places": report.places(),
                    "checks": report.checks,
                    "problems": report.problems,
                    "failures": report.failures,
                    "exit_code": int(report.exit_code),
                }
            )
        else:
            terminal.show_detected(_out(False), report)
            terminal.show_report(_out(False), report)
        raise typer.Exit(report.exit_code)


@app.command()
def check(inventory: InventoryOption = None, as_json: JsonOption = False) -> None:
    """Check the declaration, without touching a node."""
    with _command(inventory, as_json) as call:
        report, _ = _run(run.Job("check", paths.inventory(call.inventory), ["bzzz.cluster.check"], journal=False), call.as_json)
        if call.as_json:
            _print_json({"problems": report.problems, "exit_code": int(report.exit_code)})
        else:
            terminal.show_report(_out(False), report)
        raise typer.Exit(report.exit_code)


StartOption = Annotated[str | None, typer.Option("--from", metavar="STEP", help="Start with this step, by number or name.")]
OnlyOption = Annotated[list[str] | None, typer.Option("--only", metavar="STEP", help="Run this step only; may be repeated.")]


def _finish(job: run.Job, as_json: bool, *, diff: bool = False) -> NoReturn:
    report, page = _run(job, as_json)
    if as_json:
        _print_json({**report.as_dict(), **({"diffs": report.diffs} if diff else {})})
    else:
        terminal.show_report(_out(False), report, diff=diff)
        terminal.show_page(_out(False), page)
    raise typer.Exit(report.exit_code)


@app.command()
def plan(
    start: StartOption = None,
    only: OnlyOption = None,
    limit: LimitOption = None,
    diff: Annotated[bool, typer.Option("--diff", help="Show every change, and what differs in files. Secrets are masked.")] = False,
    ask_pass: AskPassOption = False,
    ask_become_pass: AskBecomePassOption = False,
    inventory: InventoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what apply would change, per step and node. Changes nothing."""
    with _command(inventory, as_json) as call:
        passwords = _passwords(ask_pass, ask_become_pass)
        _finish(_job("plan", steps.choose(start, only), call.inventory, limit, check=True, passwords=passwords), call.as_json, diff=diff)


@app.command()
def apply(
    start: StartOption = None,
    only: OnlyOption = None,
    limit: LimitOption = None,
    ask_pass: AskPassOption = False,
    ask_become_pass: AskBecomePassOption = False,
    inventory: InventoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make the machines as declared: all eight steps, or some. Repeat it at will; what is right stays untouched."""
    with _command(inventory, as_json) as call:
        passwords = _passwords(ask_pass, ask_become_pass)
        _finish(_job("apply", steps.choose(start, only), call.inventory, limit, passwords=passwords), call.as_json)


@app.command()
def verify(
    limit: LimitOption = None,
    ask_pass: AskPassOption = False,
    ask_become_pass: AskBecomePassOption = False,
    inventory: InventoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check that the machines are as declared (step 8)."""
    with _command(inventory, as_json) as call:
        passwords = _passwords(ask_pass, ask_become_pass)
        _finish(_job("verify", (steps.steps()[-1],), call.inventory, limit, passwords=passwords), call.as_json)


@app.command()
def pause(inventory: InventoryOption = None, as_json: JsonOption = False) -> None:
    """Have the run that goes on wait before its next step, until resume. It holds the cluster meanwhile."""
    with _command(inventory, as_json) as call:
        _pause(call, True)


@app.command()
def resume(inventory: InventoryOption = None, as_json: JsonOption = False) -> None:
    """Let a run that pause has asked to wait go on."""
    with _command(inventory, as_json) as call:
        _pause(call, False)


def _pause(call: Settings, wanted: bool) -> None:
    cluster = Declaration.read(paths.inventory(call.inventory)).cluster
    folder = run.going_on(cluster)
    if folder is None:
        raise Refusal(f"no run of cluster {cluster} is going on", "See how the last one ended with: bzzz-setup status")
    run.pause(folder, wanted)
    if call.as_json:
        _print_json({"cluster": cluster, "run": folder.name, "pausing": wanted})
    else:
        _out(False).print(f"{folder.name} waits before its next step." if wanted else f"{folder.name} goes on.", highlight=False)


@app.command()
def status(inventory: InventoryOption = None, as_json: JsonOption = False) -> None:
    """Show how the last apply or verify ended, and whether a run is going on."""
    with _command(inventory, as_json) as call:
        cluster = Declaration.read(paths.inventory(call.inventory)).cluster
        _, report = run.last(cluster) or (None, None)
        held = run.holder(cluster)
        if call.as_json:
            _print_json({"cluster": cluster, "running": held, "report": report.as_dict() if report else None})
            return
        out = _out(False)
        if held:
            out.print(f"[cyan]…[/] {held['command']} is going on: pid {held['pid']}, since {held['since']}.")
        if report is None:
            out.print(f"Nothing has been applied to cluster {cluster} yet. Next: bzzz-setup plan, then apply.")
            return
        if not held or report.finished:
            terminal.show_run(out, report)


@app.command()
def report(
    named: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="A kept run's name. Default: the last apply, verify or plan.")
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in this computer's browser.")] = False,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write the page to this file, for others to read.")] = None,
    listed: Annotated[bool, typer.Option("--list", help="List the runs that are kept.")] = False,
    inventory: InventoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a run did: here in short, and as a page for a browser or a printer, which needs nothing else."""
    with _command(inventory, as_json) as call:
        cluster, out = Declaration.read(paths.inventory(call.inventory)).cluster, _out(call.as_json)
        if listed:
            kept = [Report.of(run.events(folder)) for folder in reversed(run.runs(cluster))]
            if call.as_json:
                parts = ("run", "command", "started", "seconds", "exit_code", "outcome")
                _print_json({"cluster": cluster, "runs": [{part: one.as_dict()[part] for part in parts} for one in kept]})
            else:
                terminal.show_runs(out, kept)
            return
        folder, found = run.find(cluster, named)
        page = run.keep(folder, found)
        if html:
            try:
                write(html.absolute(), page.read_text(encoding="utf-8"), 0o600)
            except OSError as error:
                raise Refusal(f"{html} cannot be written: {error.strerror}", "Name a file that you may write.", option="html") from error
            page = html.absolute()
        if call.as_json:
            _print_json(found.as_dict())
        else:
            terminal.show_run(out, found)
            terminal.show_page(out, page)
        if open_page and not webbrowser.open(page.as_uri()):
            raise Refusal(
                "no browser is found on this computer", f"Copy {page} to one that has a browser, and open it there.", option="open"
            )


def main() -> None:
    # What was given may be no text at all: it is told as it can be.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        app(prog_name="bzzz-setup")
    except Refusal as refused:
        # From a command that lives elsewhere.
        _tell(refused, given.as_json)
        sys.exit(refused.code)
