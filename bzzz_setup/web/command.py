# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""`bzzz-setup web`: the wizard, on this host alone or, with a certificate, for others too."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import ipaddress
import os
import shutil
import socket
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from ansible_collections.bzzz.cluster.plugins.module_utils.problems import Problem, errors

from bzzz_setup import cli, paths, portable, steps, terminal
from bzzz_setup.declaration import Declaration
from bzzz_setup.events import ExitCode, Refusal
from bzzz_setup.node.auth import audit
from bzzz_setup.node.auth.audit import Audit
from bzzz_setup.node.auth.directory import Directory
from bzzz_setup.node.auth.gate import COOKIE, Gate
from bzzz_setup.node.config import Auth, ConfigError, load
from bzzz_setup.node.setup import PREFIX
from bzzz_setup.web import form, frontend, importing
from bzzz_setup.web.accounts import Claim, FileStore
from bzzz_setup.web.app import build
from bzzz_setup.web.draft import Draft
from bzzz_setup.web.outside import Authorities
from bzzz_setup.web.wizard import Wizard

HOST, PORT = "127.0.0.1", 8088
NODE_CONFIG = Path("/etc/bzzz/config.yaml")


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the wizard is: a socket that is listened on, the address and names that browsers have for it, and how Uvicorn serves it.

    cookie: the session's, where it has a name of its own.
    """

    bound: socket.socket
    url: str
    names: frozenset[str]
    served: dict[str, Any]
    cookie: str | None = None


def web(
    host: Annotated[str, typer.Option("--host", metavar="ADDRESS", help="Listen on this address of this host.")] = HOST,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Listen on this port; 0 takes a free one.")] = PORT,
    certificate: Annotated[
        Path | None,
        typer.Option("--certificate", metavar="FILE", exists=True, dir_okay=False, help="Certificate with its chain, for HTTPS."),
    ] = None,
    key: Annotated[Path | None, typer.Option("--key", metavar="FILE", exists=True, dir_okay=False, help="The certificate's key.")] = None,
    name: Annotated[
        list[str] | None,
        typer.Option("--name", metavar="HOST", help="Answer to this name, too, as browsers call this host. May be repeated."),
    ] = None,
    coordinator: Annotated[
        bool,
        typer.Option(
            "--coordinator", help="On a coordinator, as root: serve it under /setup of the node's own Web UI, by its certificate."
        ),
    ] = False,
    node_config: Annotated[
        Path, typer.Option("--node-config", metavar="FILE", help="With --coordinator: the node service's settings.")
    ] = NODE_CONFIG,
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
        given = {"host": host != HOST, "port": port != PORT, "certificate": certificate, "key": key}
        if coordinator and (option := next((option for option, value in given.items() if value), None)):
            raise Refusal("the node's own Web UI has address, port and certificate", "Leave it out beside --coordinator.", option=option)
        if coordinator:
            place = _behind(node_config, name or [])
        else:
            _check(host, certificate, key)
            place = _listening(host, port, certificate, key, name or [])
        try:
            page = frontend.built(functools.partial(terminal.part, terminal.console(stderr=True)))
        except frontend.NoPage as missing:
            raise Refusal(str(missing), missing.remedy, ExitCode.NODES_FAILED) from missing
        _serve(_wizard(folder, place.cookie), page, place)


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


def _wizard(folder: Path, cookie: str | None = None) -> Wizard:
    directory = _directory()
    directory.refresh()
    directory.start()
    gate = Gate(
        Auth(),
        directory,
        cluster=Declaration.read(folder).cluster,
        audit=Audit(socket.gethostname()),
        # Without TLS a browser would refuse that one; and other wizards on this host have cookies of their own.
        cookie=cookie or f"bzzz-setup-{_mark(folder)}",
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


def _listening(host: str, port: int, certificate: Path | None, key: Path | None, called: list[str]) -> Place:
    """On this host, by itself. Raises Refusal."""
    bound = listening(host, port)
    shown = (called or [host])[0]
    url = f"{'https' if certificate else 'http'}://{f'[{shown}]' if ':' in shown else shown}:{bound.getsockname()[1]}/"
    names = {host, *called} | ({"127.0.0.1", "localhost", "::1"} if _is_loopback(host) else set())
    return Place(bound, url, frozenset(names), {"ssl_certfile": certificate, "ssl_keyfile": key}, COOKIE if certificate else None)


def _behind(config: Path, called: list[str]) -> Place:
    """Behind the node service of this coordinator, which alone may connect. Raises Refusal."""
    try:
        settings = load(config, {})
        names = _certified(settings.tls.shown[0])
    except (ConfigError, OSError, ValueError) as error:
        raise Refusal(
            f"this host is no node of a cluster: {error}",
            "Set it up first (bzzz-setup apply), or leave --coordinator out.",
            option="coordinator",
        ) from error
    if "coordinator" not in settings.node.roles:
        raise Refusal(f"{settings.node.name} is no coordinator", "Start it on one, or leave --coordinator out.", option="coordinator")
    path, listen = settings.paths.wizard, settings.listen
    with socket.socket(socket.AF_UNIX) as trial:
        if trial.connect_ex(str(path)) == 0:
            raise Refusal("a wizard serves this node's /setup already", "Use that one, or end it.", ExitCode.BUSY, option="coordinator")
    bound = socket.socket(socket.AF_UNIX)
    try:
        group = config.stat().st_gid  # the service's: whoever may read its settings may connect
        path.parent.mkdir(mode=0o750, exist_ok=True)
        path.unlink(missing_ok=True)
        os.chown(path.parent, -1, group)
        before = os.umask(0o117)
        try:
            bound.bind(str(path))
        finally:
            os.umask(before)
        os.chown(path, -1, group)
        bound.listen(128)
    except OSError as error:
        raise Refusal(f"{path} cannot be listened on: {error}", "Start it as root.", option="coordinator") from error
    names |= {settings.node.name, settings.node.address, *called}
    shown = (called or [settings.node.name])[0]
    url = f"https://{shown}{'' if listen.web_port == 443 else f':{listen.web_port}'}{PREFIX}/"
    # The node service says who asks; nobody else gets at the socket. The prefix of the cookie's name makes browsers insist on Secure.
    served = {"root_path": PREFIX, "proxy_headers": True, "forwarded_allow_ips": "*"}
    return Place(bound, url, frozenset(names), served, "__Secure-bzzz-setup")


def _certified(certificate: Path) -> set[str]:
    """The names that a certificate is for. Raises ValueError where it is none."""
    from cryptography import x509  # noqa: PLC0415 - slow to import

    try:
        extension = x509.load_pem_x509_certificate(certificate.read_bytes()).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return set()
    named = extension.value.get_values_for_type
    return {*named(x509.DNSName), *map(str, named(x509.IPAddress))}


def _serve(wizard: Wizard, page: Path, place: Place) -> None:
    import uvicorn  # noqa: PLC0415 - slow to import

    out = terminal.console(stderr=True)
    audit.configure()
    # The token is in the fragment, which browsers keep to themselves: it reaches no log.
    claim = f"#claim={wizard.claim.token}" if wizard.claim.open else ""
    out.print(f"The wizard is at [bold]{place.url}[/]{claim}", highlight=False, soft_wrap=True)
    if wizard.claim.open:
        out.print("The link makes the first account, once: whoever has it is the administrator.")
    out.print("Ctrl-C ends it; runs that it has started go on.")
    config = uvicorn.Config(
        build(wizard, place.names, page),
        log_level="warning",
        access_log=False,
        server_header=False,
        ws_max_size=65536,
        timeout_graceful_shutdown=3,
        **{"proxy_headers": False, **place.served},
    )
    uvicorn.Server(config).run(sockets=[place.bound])
    sys.stderr.flush()
