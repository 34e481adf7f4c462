# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""`bzzz-setup web`: the wizard, on this host alone or, with a certificate, for others too."""

from __future__ import annotations

import hashlib
import ipaddress
import shutil
import socket
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from ansible_collections.bzzz.cluster.plugins.module_utils.problems import Problem, errors

from bzzz_setup import cli, paths, portable, steps, terminal
from bzzz_setup.declaration import Declaration
from bzzz_setup.events import Refusal
from bzzz_setup.node.auth import audit
from bzzz_setup.node.auth.audit import Audit
from bzzz_setup.node.auth.directory import Directory
from bzzz_setup.node.auth.gate import COOKIE, Gate
from bzzz_setup.node.config import Auth
from bzzz_setup.web import form, frontend, importing
from bzzz_setup.web.accounts import Claim, FileStore
from bzzz_setup.web.app import build
from bzzz_setup.web.draft import Draft
from bzzz_setup.web.outside import Authorities
from bzzz_setup.web.wizard import Wizard


def web(
    host: Annotated[str, typer.Option("--host", metavar="ADDRESS", help="Listen on this address of this host.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Listen on this port; 0 takes a free one.")] = 8088,
    certificate: Annotated[
        Path | None,
        typer.Option("--certificate", metavar="FILE", exists=True, dir_okay=False, help="Certificate with its chain, for HTTPS."),
    ] = None,
    key: Annotated[Path | None, typer.Option("--key", metavar="FILE", exists=True, dir_okay=False, help="The certificate's key.")] = None,
    name: Annotated[
        list[str] | None,
        typer.Option("--name", metavar="HOST", help="Answer to this name, too, as browsers call this host. May be repeated."),
    ] = None,
    answers: Annotated[
        str | None,
        typer.Option("--answers", metavar="FILE|-", help="Serve nobody: take in this declaration, as export yaml writes it, and apply it."),
    ] = None,
    secret: portable.SecretOption = None,
    inventory: cli.InventoryOption = None,
    as_json: cli.JsonOption = False,
) -> None:
    """Serve the wizard: declare, plan, apply and watch in a browser. Ends with Ctrl-C; runs that it has started go on."""
    with cli._command(inventory, as_json) as call:
        folder = _folder(call.inventory)
        if answers is not None:
            _unattended(folder, answers, secret or [], call.as_json)
        if secret:
            raise Refusal("--secret goes with --answers", "Leave it out: secrets are typed into the page.", option="secret")
        _check(host, certificate, key)
        page = frontend.built(terminal.console(stderr=True).print)
        wizard, names = _wizard(folder, secure=certificate is not None), {host, *(name or [])}
        if _is_loopback(host):
            names |= {"127.0.0.1", "localhost", "::1"}
        _serve(wizard, page, frozenset(names), (name or [host])[0], host, port, certificate, key)


def _folder(named: Path | None) -> Path:
    """The inventory folder: the one named, the only one there is, or one that is yet to be made. Raises Refusal where there are more."""
    if named is not None:
        return named.absolute()
    return paths.inventory(None) if paths.inventories() else paths.new_inventory("bzzz").absolute()


def _unattended(folder: Path, answers: str, secret: list[str], as_json: bool) -> NoReturn:
    """What the wizard does, without one: the file's declaration becomes the inventory folder's, and is applied."""
    text, given = portable.asked(answers, secret)
    draft = _draft(folder)
    if draft.changes:
        by = ", ".join(sorted({change.by for change in draft.changes.values()}))
        raise Refusal(
            f"values that {by} has typed into the wizard are not applied yet",
            "Apply or discard them there first: bzzz-setup web.",
            option="answers",
        )
    fresh = not folder.exists()
    taken = importing.take(draft, text, draft.revision, "answers", given)
    if errors(found := form.judged(draft.view())["problems"]):
        draft.discard()
        if fresh:
            shutil.rmtree(folder)
        refused = Refusal("the declaration has problems", "Correct the file.")
        refused.problems = [Problem(**{key: one[key] for key in Problem.__annotations__}) for one in found]
        raise refused
    draft.publish()
    err = terminal.console(stderr=True)
    for what, names in (
        ("No form has a place for", taken.left),
        ("Not in the file, since secret, and not set here", taken.secrets_missing),
    ):
        if names:
            err.print(f"[yellow]![/] {what}: {', '.join(names)}", highlight=False)
    cli._finish(cli._job("apply", steps.steps(), folder, None), as_json)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check(host: str, certificate: Path | None, key: Path | None) -> None:
    """Raises Refusal where strangers could listen in, or get in first."""
    if (certificate is None) != (key is None):
        raise Refusal("a certificate and its key go together", "Give both --certificate and --key.", option="certificate")
    if _is_loopback(host):
        return
    if certificate is None:
        raise Refusal(
            f"on {host} passwords would cross the network in clear",
            "Give --certificate and --key, or leave --host out and come by: ssh -L 8088:127.0.0.1:8088 THIS-HOST.",
            option="host",
        )
    if not _directory().refresh().users:
        raise Refusal(
            "there is no account yet, and whoever came first could make one",
            "Start it without --host once, and make an account with the token that it shows.",
            option="host",
        )


def _directory() -> Directory:
    settings = Auth()
    return Directory(FileStore(paths.config(".web") / "accounts.json"), settings.lockout_failures, settings.lockout_seconds)


def _wizard(folder: Path, *, secure: bool) -> Wizard:
    directory = _directory()
    directory.refresh()
    directory.start()
    gate = Gate(
        Auth(),
        directory,
        cluster=Declaration.read(folder).cluster,
        audit=Audit(socket.gethostname()),
        # Without TLS a browser would refuse that one; and other wizards on this host have cookies of their own.
        cookie=COOKIE if secure else f"bzzz-setup-{_mark(folder)}",
    )
    view = directory.view
    claim = Claim()
    if view and view.users:
        claim.use()
    authorities = Authorities(folder, gate, lambda told: terminal.console(stderr=True).print(told, markup=False))
    authorities.refresh()
    return Wizard(_draft(folder), gate, claim, authorities)


def _mark(folder: Path) -> str:
    return hashlib.sha256(str(folder).encode()).hexdigest()[:12]


def _draft(folder: Path) -> Draft:
    return Draft(folder, paths.state(".web") / _mark(folder) / "draft.json")


def listening(host: str, port: int) -> socket.socket:
    """Raises Refusal where it cannot be listened on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # By its protocol asyncio knows it for TCP: no answer's body waits until its head is acknowledged, which takes 40 ms.
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
        found.listen(128)  # whoever follows the link at once waits, and is not refused
    except OSError as error:
        raise Refusal(
            f"{host} port {port} cannot be listened on: {error.strerror}",
            "Stop what listens there, or choose another with --port.",
            option="port",
        ) from error
    return found


def _serve(
    wizard: Wizard, page: Path, names: frozenset[str], called: str, host: str, port: int, certificate: Path | None, key: Path | None
) -> None:
    import uvicorn  # noqa: PLC0415 - slow to import

    out = terminal.console(stderr=True)
    bound = listening(host, port)
    shown = f"[{called}]" if ":" in called else called
    url = f"{'https' if certificate else 'http'}://{shown}:{bound.getsockname()[1]}/"
    audit.configure()
    # The token is in the fragment, which browsers keep to themselves: it reaches no log.
    out.print(
        f"The wizard is at [bold]{url}[/]" + (f"#claim={wizard.claim.token}" if wizard.claim.open else ""), highlight=False, soft_wrap=True
    )
    if wizard.claim.open:
        out.print("The link makes the first account, once: whoever has it is the administrator.")
    out.print("Ctrl-C ends it; runs that it has started go on.")
    app = build(wizard, names, page)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ssl_certfile=certificate,
        ssl_keyfile=key,
        ws_max_size=65536,
        timeout_graceful_shutdown=3,
    )
    uvicorn.Server(config).run(sockets=[bound])
    sys.stderr.flush()
