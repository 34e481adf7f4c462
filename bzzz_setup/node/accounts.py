# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""``bzzz-node users …`` and ``bzzz-node tokens …``: on a coordinator, as root, with the cluster's own token.

A client of this node's own REST API, so that rules and the audit log are the same as everybody's. Passwords come from the
terminal or, where there is none, as standard input's first line; never as an argument.
"""

from __future__ import annotations

import argparse
import getpass
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .auth.principals import ROLES, SCOPES
from .config import Settings
from .own import SECRET, Failed, Own


def add_to(commands: Any) -> None:
    """The sub-commands of bzzz-node's parser."""
    users = _group(commands, "users", "list, add, change and remove users")
    users.add_parser("list")
    for name, text in (("add", "asks for the password"), ("password", "asks for another password"), ("role", "give another role")):
        one = users.add_parser(name, help=text)
        one.add_argument("name")
        if name != "password":
            one.add_argument("--role", choices=ROLES, required=True)
    for name, text in (("unlock", "end a lock-out"), ("remove", "the user is out at once")):
        users.add_parser(name, help=text).add_argument("name")
    tokens = _group(commands, "tokens", "list, issue and revoke tokens")
    tokens.add_parser("list")
    issue = tokens.add_parser("issue", help="prints the token, this once")
    issue.add_argument("name")
    issue.add_argument("--role", choices=ROLES, default=ROLES[0])
    issue.add_argument("--scope", choices=list(SCOPES), action="append", default=[], dest="scopes", help="default: all that the role has")
    issue.add_argument("--days", type=float, default=90)
    tokens.add_parser("revoke", help="it is refused at once").add_argument("id")


def _group(commands: Any, name: str, text: str) -> Any:
    parser = commands.add_parser(name, help=text, description=__doc__)
    parser.add_argument("--token-file", type=Path, default=SECRET, help="an administrator's token; default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print what the API answers")
    return parser.add_subparsers(dest="action", required=True, metavar="ACTION")


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Do what was asked for; prints the answer."""
    try:
        answer = _Api(settings, arguments.token_file).do(arguments)
    except Failed as failed:
        print(failed, file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps(answer))
    else:
        _show(answer)
    return 0


def _password() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    first = getpass.getpass("Password: ")
    if getpass.getpass("Once more: ") != first:
        raise Failed("These are two passwords. Nothing was changed.")
    return first


class _Api:
    """This node's own API."""

    def __init__(self, settings: Settings, token_file: Path) -> None:
        own = Own(settings, token_file)
        self._token = own.token
        self._base = f"https://{own.host}:{settings.listen.port}/api/v1"
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=own.context))

    def do(self, arguments: argparse.Namespace) -> Any:
        what = arguments.command, arguments.action
        if what == ("users", "add"):
            return self._ask("POST", "/users", {"name": arguments.name, "role": arguments.role, "password": _password()})
        if what == ("tokens", "issue"):
            fields = {name: getattr(arguments, name) for name in ("name", "role", "scopes", "days")}
            return self._ask("POST", "/tokens", fields)
        if arguments.action == "list":
            return self._ask("GET", f"/{arguments.command}")
        if what == ("tokens", "revoke"):
            return self._ask("DELETE", f"/tokens/{quote(arguments.id, safe='')}")
        user = f"/users/{quote(arguments.name, safe='')}"
        if arguments.action == "remove":
            return self._ask("DELETE", user)
        changes: dict[str, Any] = {"unlock": {"locked": False}}.get(arguments.action, {})
        if arguments.action == "role":
            changes = {"role": arguments.role}
        if arguments.action == "password":
            changes = {"password": _password()}
        return self._ask("PATCH", user, changes)

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._base + path, data, headers, method=method)  # noqa: S310 - https
        try:
            with self._opener.open(request, timeout=30) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            with error:
                raise Failed(_detail(error.read()) or f"The service answers with status {error.code}.") from None
        except OSError as error:
            raise Failed(f"The node service does not answer ({getattr(error, 'reason', error)}). Remedy: systemctl status bzzz") from None
        return json.loads(text) if text else {}


def _detail(text: bytes) -> str:
    try:
        return str(json.loads(text)["detail"])
    except (ValueError, KeyError, TypeError):
        return ""


def _show(answer: dict[str, Any]) -> None:
    """For people: a table of what is listed, else a line a field."""
    rows: list[dict[str, Any]] = answer.get("users", answer.get("tokens", []))
    if "users" in answer or "tokens" in answer:
        lines = [list(rows[0]), *([_text(value) for value in row.values()] for row in rows)] if rows else [["none"]]
        widths = [max(map(len, column)) for column in zip(*lines)]
        for line in lines:
            print("  ".join(word.ljust(width) for word, width in zip(line, widths)).rstrip())
    else:
        for key, value in answer.items():
            print(f"{key}: {_text(value)}")


def _text(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else ",".join(value) if isinstance(value, list) else str(value)
