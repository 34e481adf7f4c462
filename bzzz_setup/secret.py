# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""`bzzz-setup secret`: a secret option of an inventory folder, into its vault file."""

from __future__ import annotations

import getpass
import sys
from typing import Annotated

import typer
from ansible_collections.bzzz.cluster.plugins.module_utils.declaration import load_specs
from ansible_collections.bzzz.cluster.plugins.module_utils.rules.ranges import unfit

from bzzz_setup import cli, paths
from bzzz_setup.declaration import VAULT, Declaration, with_secrets, write
from bzzz_setup.events import Refusal

# Ansible's own.
CONNECTION = ("ansible_password", "ansible_become_password", cli.PASSPHRASE)


def secret(
    option: Annotated[str, typer.Argument(metavar="OPTION", help="A secret option, such as openai_api_key; docs/options.md lists them.")],
    remove: Annotated[bool, typer.Option("--remove", help="Take it out of the vault file.")] = False,
    inventory: cli.InventoryOption = None,
    as_json: cli.JsonOption = False,
) -> None:
    """Set a secret option: asked for in a terminal, else read from standard input, and kept in the vault file by the cluster's key."""
    with cli._command(inventory, as_json) as call:
        folder = paths.inventory(call.inventory)
        declaration = Declaration.read(folder)
        asking = sys.stdin.isatty() and not call.as_json
        value = None if remove else (getpass.getpass(f"{option}: ") if asking else sys.stdin.readline().rstrip("\n"))
        keep(declaration, option, value)
        told = f"{option} is {'taken out of' if remove else 'in'} {declaration.folder / VAULT}, encrypted."
        if call.as_json:
            cli._print_json({"told": told, "problems": [], "exit_code": 0})
        else:
            cli._out(False).print(f"[green]✔[/] {told}", highlight=False)


def keep(declaration: Declaration, option: str, value: str | None) -> None:
    """Into the vault file; None takes it out. Raises Refusal for what is no secret option, cannot be its value, or for another's vault."""
    roles = {name: role for role, spec in load_specs().items() for name, described in spec["options"].items() if described.get("no_log")}
    if option not in roles and option not in CONNECTION:
        remedy = f"Name one of {', '.join(sorted([*roles, *CONNECTION]))}; what is no secret goes into group_vars/bzzz/main.yml."
        raise Refusal(f"'{option}' is no secret option", remedy, option="option")
    if value == "":
        raise Refusal("nothing was given", "Type it, or give it on standard input; --remove takes it away.", option=option)
    if value is not None and option in roles and (wrong := unfit(roles[option], option.removeprefix(f"{roles[option]}_"), value, "")):
        raise Refusal(wrong["message"], wrong["remedy"], option=option)
    file = declaration.folder / VAULT
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    write(file, with_secrets(text, declaration.cluster, {option: value}, file), 0o600)
