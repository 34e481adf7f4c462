# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A declaration as one file, without its secrets, and back; and what it makes of each node as files: `export` and `import`."""

from __future__ import annotations

import getpass
import json
import re
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from ansible_collections.bzzz.cluster.plugins.module_utils.declaration import load_specs, options_of

from bzzz_setup import cli, paths, run, terminal
from bzzz_setup.declaration import HOSTS, Block, Declaration, Vaulted, decrypted, dump, load, write
from bzzz_setup.events import Refusal
from bzzz_setup.report import Report

FORMAT = 1
KINDS = ("yaml", "env", "systemd", "compose", "all")
KEYS = {"bzzz_declaration", "hosts", "group_vars", "host_vars", "known_hosts", "secrets"}
# How Ansible gets in, where it takes a password for that.
PASSWORDS = re.compile(r"ansible_\w*pass(word|wd|phrase)?")
FACTS = ("bzzz_gpu", "bzzz_network", "bzzz_ports", "bzzz_system")
Secrets = dict[str, dict[str, str]]


def document(folder: Path) -> dict[str, Any]:
    """The whole declaration of an inventory folder; of secrets it says only which are set. Raises Refusal for what it cannot read."""
    source = folder if folder.is_dir() else folder.parent
    if not (source / HOSTS).is_file():
        raise Refusal(f"{source} has no {HOSTS}", "Write the inventory as YAML: ansible-inventory --list --yaml.", option="inventory")
    declaration = Declaration.read(folder)
    secrets: Secrets = {"group_vars/bzzz": {name: "not set" for name, spec in options_of(load_specs()).items() if spec.get("no_log")}}
    variables = {
        kind: {name: _open(found, f"{kind}/{name}", secrets) for name, found in _variables(declaration, kind, secrets)}
        for kind in ("group_vars", "host_vars")
    }
    hosts = {group: _group(content, f"hosts/{group}", secrets) for group, content in declaration.hosts.items()}
    return {
        "bzzz_declaration": FORMAT,
        "hosts": hosts,
        **variables,
        "known_hosts": Block(declaration.known_hosts),
        "secrets": secrets,
    }


def _variables(declaration: Declaration, kind: str, secrets: Secrets) -> Iterator[tuple[str, dict[str, Any]]]:
    """Group or node, and its variables; of several files for one, as Ansible does, a folder before a file, and later ones win."""
    root = (declaration.folder if declaration.folder.is_dir() else declaration.folder.parent) / kind
    seen: set[str] = set()
    for path in sorted(root.iterdir(), key=lambda path: (path.stem, not path.is_dir())) if root.is_dir() else ():
        name = path.name if path.is_dir() else path.stem
        if path.name.startswith(".") or path.name.endswith("~") or name in seen or (not path.is_dir() and not _is_yaml(path)):
            continue
        seen.add(name)
        merged: dict[str, Any] = {}
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and _is_yaml(file) and not file.name.startswith("."):
                text = file.read_text(encoding="utf-8")
                if text.startswith("$ANSIBLE_VAULT"):
                    known = decrypted(text, declaration.cluster)
                    told = known if known is not None else {f"({file.name}, encrypted with another key)": None}
                    secrets.setdefault(f"{kind}/{name}", {}).update(dict.fromkeys(told, "set"))
                else:
                    merged |= _mapping(text, file)
        yield name, merged


def _is_yaml(path: Path) -> bool:
    return path.suffix in (".yml", ".yaml", ".json", "")


def _mapping(text: str, what: object) -> dict[str, Any]:
    try:
        data = load(text)
    except yaml.YAMLError as error:
        raise Refusal(f"{what} is not YAML: {error}", "Correct it at the place named.") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise Refusal(f"{what} is to be a mapping of names to values", "Correct the file.")
    return data


def _open(variables: dict[str, Any], where: str, secrets: Secrets) -> dict[str, Any]:
    """The variables without secrets, which are noted instead."""
    specs = options_of(load_specs())
    hidden = {
        name
        for name, value in variables.items()
        if specs.get(name, {}).get("no_log") or PASSWORDS.fullmatch(str(name)) or _holds_vaulted(value)
    }
    if hidden:
        secrets.setdefault(where, {}).update(dict.fromkeys(sorted(map(str, hidden)), "set"))
    return {name: value for name, value in variables.items() if name not in hidden}


def _holds_vaulted(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_vaulted, value.values()))
    return any(map(_holds_vaulted, value)) if isinstance(value, list) else isinstance(value, Vaulted)


def _group(content: Any, where: str, secrets: Secrets) -> Any:
    """A group of hosts.yml, its own variables and its hosts' without secrets."""
    if not isinstance(content, dict):
        return content
    found = dict(content)
    if isinstance(found.get("vars"), dict):
        found["vars"] = _open(found["vars"], where, secrets)
    for part in ("hosts", "children"):
        if isinstance(found.get(part), dict):
            found[part] = {
                name: _group(inner, f"hosts/{name}", secrets)
                if part == "children"
                else _open(inner, f"hosts/{name}", secrets)
                if isinstance(inner, dict)
                else inner
                for name, inner in found[part].items()
            }
    return found


def text_of(found: dict[str, Any], cluster: str) -> str:
    head = f"# Declaration of the cluster {cluster}, without its secrets. Make an inventory of it with: bzzz-setup import FILE -i FOLDER\n"
    return head + dump(found)


def declaration_of(text: str, folder: Path, secrets: dict[str, str] | None = None) -> tuple[Declaration, Secrets]:
    """What an exported file declares, to be created in `folder`, and the secrets that it names as set. Raises Refusal."""
    found = _mapping(text, "the file")
    if found.get("bzzz_declaration") != FORMAT:
        raise Refusal(
            f"this is no exported declaration of format {FORMAT}: 'bzzz_declaration' says {found.get('bzzz_declaration')!r}",
            "Give a file that 'bzzz-setup export yaml' of this version has written.",
        )
    if unknown := sorted(str(key) for key in set(found) - KEYS):
        raise Refusal(f"an exported declaration has no '{unknown[0]}'", f"Take it out; there are {', '.join(sorted(KEYS))}.")
    variables: dict[str, dict[str, Any]] = {}
    for kind in ("hosts", "group_vars", "host_vars", "secrets"):
        part = found.get(kind) or {}
        if not isinstance(part, dict) or (kind != "hosts" and not all(isinstance(inner, dict) for inner in part.values())):
            raise Refusal(f"'{kind}' is to map names to their variables", "Correct the file.")
        for name, inner in part.items() if kind in ("group_vars", "host_vars") else ():
            if not isinstance(name, str) or not re.fullmatch(r"[^/\0.][^/\0]*", name):
                raise Refusal(f"'{name}' in '{kind}' can be no file's name", "Name the group or node otherwise.")
            variables[f"{kind}/{name}.yml"] = inner
    known_hosts = found.get("known_hosts") or ""
    if not isinstance(known_hosts, str):
        raise Refusal("'known_hosts' is to be text: lines as ssh-keyscan prints them", "Correct the file.")
    options = variables.pop("group_vars/bzzz.yml", {})
    declaration = Declaration(folder, found.get("hosts") or {}, options, str(known_hosts), secrets or {}, variables)
    lost = {where: {name for name, state in inner.items() if state == "set"} for where, inner in (found.get("secrets") or {}).items()}
    return declaration, {
        where: dict.fromkeys(sorted(names - set(secrets or {})), "set") for where, names in lost.items() if names - set(secrets or {})
    }


KindArgument = Annotated[
    str, typer.Argument(metavar="yaml|env|systemd|compose|all", help="The declaration, or what it makes of each node.")
]
NodeOption = Annotated[str | None, typer.Option("--node", metavar="NODES", help="Only the files of these nodes.")]
OutputOption = Annotated[str, typer.Option("--output", "-o", metavar="FOLDER|-", help="Write below this folder; - prints.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Overwrite what is there.")]


def export(
    kind: KindArgument,
    node: NodeOption = None,
    output: OutputOption = "-",
    force: ForceOption = False,
    inventory: cli.InventoryOption = None,
    as_json: cli.JsonOption = False,
) -> None:
    """Write the declaration as one file without its secrets (yaml), or the files that it makes of each node: environment files (env),
    systemd units (systemd), all that the steps put there (all); or a Docker Compose file for each node's service (compose). No node is
    contacted; import takes the declaration back."""
    with cli._command(inventory, as_json) as call:
        if kind not in KINDS:
            raise Refusal(f"there is no export of '{kind}'", "Choose yaml, env, systemd, compose or all.", option="kind")
        folder = paths.inventory(call.inventory)
        target = None if output == "-" else Path(output).expanduser().absolute()
        if target and target.exists() and not force and (not target.is_dir() or any(target.iterdir())):
            raise Refusal(f"{target} is not empty", "Choose another folder, or overwrite what is there with --force.", option="output")
        if kind == "yaml":
            if node:
                raise Refusal("the declaration is one for all nodes", "Leave --node out, or export env, systemd or compose.", option="node")
            _export_declaration(folder, target, call.as_json)
        else:
            _export_files(folder, kind, node, target, call.as_json)


def _export_declaration(folder: Path, target: Path | None, as_json: bool) -> None:
    found, cluster = document(folder), Declaration.read(folder).cluster
    text = text_of(found, cluster)
    file = target / f"{cluster}.yml" if target else None
    if file:
        write(file, text)
    if as_json:
        written = {"file": str(file)} if file else {"content": text}
        cli._print_json({"cluster": cluster, "kind": "yaml", **written, "secrets": found["secrets"]})
    elif file:
        terminal.console().print(f"[green]✔[/] {file}")
    else:
        sys.stdout.write(text)


def _export_files(folder: Path, kind: str, node: str | None, target: Path | None, as_json: bool) -> None:
    cluster = Declaration.read(folder).cluster
    with tempfile.TemporaryDirectory(prefix="bzzz-export-") as scratch:
        made = Path(scratch, "files")
        remembered, at = remembered_facts(Report.of(run.events(folder)) for folder in reversed(run.runs(cluster)))
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(at)) if at else None
        write(Path(scratch, "facts.json"), json.dumps(remembered), 0o600)
        variables = {"export_directory": str(made), "export_kind": kind, "export_facts": f"{scratch}/facts.json"}
        job = run.Job("export", folder, ["bzzz.cluster.export"], limit=node, journal=False, variables=variables)
        report, _page = cli._run(job, as_json=True)
        err = terminal.console(stderr=True)
        if report.exit_code:
            if as_json:
                cli._print_json(report.as_dict())
            else:
                terminal.show_report(err, report)
            raise typer.Exit(report.exit_code)
        listed = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(made.glob("*.json"))}
        if target:
            shutil.copytree(made, target, dirs_exist_ok=True)
        if as_json:
            for name, content in listed.items():
                for item in content["files"] if not target else ():
                    item["content"] = (made / f"{name}{item['path']}").read_text(encoding="utf-8")
            cli._print_json(
                {
                    "cluster": cluster,
                    "kind": kind,
                    "facts": when,
                    "output": str(target) if target else None,
                    "nodes": listed,
                    "problems": report.problems,
                }
            )
            return
        terminal.show_problems(err, report.problems)
        if when:
            err.print(f"[dim]What is known of the nodes is from {when}.[/]")
        for name, content in listed.items():
            for item in content["files"]:
                if target:
                    terminal.console().print(f"{target}/{name}{item['path']}")
                else:
                    print(f"# ==> {name}:{item['path']}  {item['owner']}:{item['group']} {item['mode']}")
                    sys.stdout.write((made / f"{name}{item['path']}").read_text(encoding="utf-8") + "\n")


def remembered_facts(reports: Iterable[Report]) -> tuple[dict[str, dict[str, Any]], float | None]:
    """What runs, the newest first, have seen of each node, and when the latest of them began: seconds since the epoch."""
    known: dict[str, dict[str, Any]] = {}
    latest = None
    for report in reports:
        for node, facts in report.facts.items():
            if set(FACTS) <= set(facts) and node not in known:
                known[node] = {name: facts[name] for name in FACTS}
                latest = latest or report.started
    return known, latest


SecretOption = Annotated[
    list[str] | None,
    typer.Option("--secret", metavar="OPTION", help="Put this option into the vault file; asked for, or one line of standard input each."),
]


def asked(file: str, secret: list[str]) -> tuple[str, dict[str, str]]:
    """The text of a file, - being standard input, and secrets as somebody gives them. Raises Refusal."""
    if file == "-" and secret:
        raise Refusal("standard input cannot be both the file and secrets", "Give the file's name.", option="secret")
    try:
        text = sys.stdin.read() if file == "-" else Path(file).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal(f"{file} cannot be read: {error}", "Name a file that 'bzzz-setup export yaml' has written.") from error
    asking = sys.stdin.isatty()
    return text, {option: getpass.getpass(f"{option}: ") if asking else sys.stdin.readline().rstrip("\n") for option in secret}


def import_(
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="What export yaml has written; - is standard input.")],
    secret: SecretOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an inventory folder; the old one is put aside.")] = False,
    inventory: cli.InventoryOption = None,
    as_json: cli.JsonOption = False,
) -> None:
    """Make an inventory folder of an exported declaration. Secrets are not in it: give them again with --secret."""
    with cli._command(inventory, as_json) as call:
        text, given = asked(file, secret or [])
        declaration, lost = declaration_of(text, Path(), given)
        folder = (call.inventory or paths.new_inventory(declaration.cluster)).absolute()
        declaration.folder = folder
        aside = declaration.create(force=force)
        if call.as_json:
            cli._print_json(
                {
                    "inventory": str(folder),
                    "cluster": declaration.cluster,
                    "secrets_missing": lost,
                    "put_aside": str(aside) if aside else None,
                }
            )
            return
        out = terminal.console()
        if aside:
            out.print(f"The former inventory is now {aside}")
        out.print(f"[green]✔[/] The inventory is {folder}")
        for where, names in lost.items():
            out.print(f"[yellow]![/] Set there, but not in the file, since secret ({where}): {', '.join(names)}. Give them with --secret.")
        out.print(f"Next: [bold]bzzz-setup check -i {shlex.quote(str(folder))}[/]")
