# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The status page and its sign-in form: whole documents, rendered here, that load nothing from anywhere.

The script fetches the page again when an event comes, and puts the parts marked ``data-live`` in place of the old ones.
"""

from __future__ import annotations

import base64
import calendar
import hashlib
import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .checks import FAIL, PASS, published

if TYPE_CHECKING:
    from .events import Journal
    from .service import Service

STYLE = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
SCRIPT = Path(__file__).with_name("page.js").read_text(encoding="utf-8")
EVENTS = 12
QUIET = "<li><span>Nothing has happened since this service started.</span></li>"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


_STYLE_HASH, _SCRIPT_HASH = _hash(STYLE), _hash(SCRIPT)


def content_security_policy(host: str, websocket_port: int) -> str:
    """``host``: as the browser wrote it; it may talk to this very host, and to its event port."""
    name = re.fullmatch(r"([A-Za-z0-9.-]+)(?::\d+)?", host)
    # A policy cannot name an IPv6 address.
    events = f"wss://{name[1] if name else '*'}:{websocket_port}"
    return (
        f"default-src 'none'; style-src {_STYLE_HASH}; script-src {_SCRIPT_HASH}; connect-src 'self' {events}; "
        "img-src data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    )


WORDS = {"pass": "healthy", "warn": "attention", "fail": "failing"}
CHECK_WORDS = {"pass": "passes", "warn": "attention", "fail": "fails"}


def _document(title: str, body: str, attributes: str = "", script: bool = False, go: str = "") -> str:
    """go: where the browser goes by itself."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        + (f'<meta http-equiv="refresh" content="0;url={escape(go)}">' if go else "")
        + '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">'
        f'<title>{escape(title)}</title><link rel="icon" href="data:,"><style>{STYLE}</style></head>\n<body{attributes}>{body}'
        + (f"<script>{SCRIPT}</script>" if script else "")
        + "</body></html>\n"
    )


def signed_in(cluster: str) -> str:
    """Goes on to the status page."""
    body = f'<main class="narrow"><h1>{escape(cluster)}</h1><p>Signed in. <a href="/">Go on to the status page</a></p></main>'
    return _document(f"Signed in · {cluster}", body, go="/")


def sign_in(cluster: str, node: str, error: str = "", by_token: bool = False, other: str = "") -> str:
    """The form that asks for user and password, or for a token. by_token: which of them the error is about; other: a provider's title."""
    said = f'<p role="alert" id="error" class="fail">{escape(error)}</p>' if error else ""
    wrong = ' aria-describedby="error" aria-invalid="true"' if error else ""
    user, token = ("", f"{wrong} autofocus") if by_token else (wrong, "")
    first = "" if by_token else " autofocus"
    return _document(
        f"Sign in · {cluster}",
        f'<main class="narrow"><h1>{escape(cluster)}</h1><p>Node {escape(node)}. Sign in as a user, or with a token.</p>{said}'
        '<form method="post" action="/sign-in"><label for="user">User</label>'
        f'<input id="user" name="user" autocomplete="username" autocapitalize="none" spellcheck="false"{user}{first}>'
        '<label for="password">Password</label>'
        f'<input id="password" name="password" type="password" autocomplete="current-password"{user}>'
        '<p class="or">or</p><label for="token">Token</label>'
        f'<input id="token" name="token" type="password" autocomplete="off"{token}>'
        '<button type="submit">Sign in</button></form>'
        + (f'<p class="or">or</p><p><a href="/sign-in/oidc">Sign in with {escape(other)}</a></p>' if other else "")
        + "</main>",
    )


def no_wizard(cluster: str, node: str) -> str:
    """What `/setup` shows where nobody serves the wizard."""
    return _document(
        f"Set-up · {cluster}",
        f'<main class="narrow"><h1>{escape(cluster)}</h1><p>The set-up wizard is not running on node {escape(node)}.</p>'
        "<p>On a node that has the cluster's inventory, start it as root: <code>bzzz-setup web --coordinator</code>.</p>"
        '<p><a href="/">Status page</a></p></main>',
    )


def _badge(status: str, words: Mapping[str, str] = WORDS) -> str:
    kind = status if status in WORDS else FAIL
    return f'<span class="badge {kind}">{words[kind]}</span>'


def _size(mib: Any) -> str:
    return f"{mib / 1024:.0f} GiB" if isinstance(mib, (int, float)) and not isinstance(mib, bool) else ""


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else []


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _since(moment: Any) -> str:
    """How long ago ``2026-01-31T12:00:00Z`` was, in words; empty when that is no time."""
    try:
        seconds = max(0, int(time.time() - calendar.timegm(time.strptime(str(moment), "%Y-%m-%dT%H:%M:%SZ"))))
    except ValueError:
        return ""
    days, hours, minutes = seconds // 86400, seconds // 3600 % 24, seconds // 60 % 60
    return f"{days} d {hours} h" if days else f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else "less than a minute"


def _tile(name: str, value: str, note: str = "") -> str:
    return f"<div><dt>{escape(name)}</dt><dd>{escape(value)}{f' <small>{escape(note)}</small>' if note else ''}</dd></div>"


def _facts(pairs: Iterable[tuple[str, str]]) -> str:
    """A list of names and (already escaped) values, without those that are empty."""
    return f"<dl>{''.join(f'<div><dt>{name}</dt><dd>{value}</dd></div>' for name, value in pairs if value)}</dl>"


def _gpus(member: dict[str, Any]) -> list[dict[str, Any]]:
    return [_dict(gpu) for gpu in _list(_dict(member.get("capabilities")).get("gpus"))]


def _models(member: dict[str, Any]) -> list[str]:
    return [str(name) for name in _list(_dict(_dict(member.get("capabilities")).get("ollama")).get("models"))]


def _card(member: dict[str, Any], here: str) -> str:
    name = str(member["name"])
    has = _dict(member.get("capabilities"))
    cpu, ollama, system = _dict(has.get("cpu")), _dict(has.get("ollama")), _dict(has.get("os"))
    chips = ['<span class="chip primary">primary coordinator</span>'] if member["primary"] else []
    chips += [f'<span class="chip">{escape(str(role))}</span>' for role in _list(member.get("roles"))]
    labels = _dict(member.get("labels"))
    chips += [f'<span class="chip label">{escape(f"{key}={labels[key]}")}</span>' for key in sorted(labels)]
    kinds = Counter(" · ".join(filter(None, [str(gpu.get("model") or "GPU"), _size(gpu.get("memory_total_mib"))])) for gpu in _gpus(member))
    gpus = "<br>".join((f"{number} &times; " if number > 1 else "") + escape(kind) for kind, number in kinds.items())
    models = _models(member)
    listed = (
        f'<details id="models-{escape(name)}"><summary>{_count(len(models), "model")}</summary>'
        f"<ul>{''.join(f'<li>{escape(model)}</li>' for model in models)}</ul></details>"
        if models
        else ("no models" if ollama else "")
    )
    wrong = "".join(
        f'<li class="{check.status}">{escape(check.name)}: {escape(check.message)}</li>'
        for check in published(member).values()
        if check.status != PASS
    )
    threads = f"{cpu['threads']} threads" if cpu.get("threads") else ""
    facts = _facts(
        [
            ("CPU", escape(" · ".join(filter(None, [threads, str(cpu.get("model") or "")])))),
            ("Memory", _size(has.get("memory_total_mib"))),
            ("GPU", gpus or ("none" if has else "")),
            ("Ollama", " · ".join(filter(None, [escape(str(ollama.get("version") or "")), listed])) if ollama else ""),
            ("System", escape(" ".join(str(system[key]) for key in ("id", "version", "architecture") if key in system))),
            (
                "Service",
                escape(" · ".join(filter(None, [f"up {since}" if (since := _since(member.get("started"))) else "", _version(member)]))),
            ),
        ]
    )
    return (
        f'<li class="card {escape(member["health"])}"><h3>{escape(name)}{" <small>this node</small>" if name == here else ""}</h3>'
        f'{_badge(member["health"])}<p class="address">{escape(str(member.get("address") or ""))}</p><p class="chips">{" ".join(chips)}</p>'
        f"{facts if has else '<p>Its hardware has not been detected yet.</p>'}{f'<ul class=wrong>{wrong}</ul>' if wrong else ''}</li>"
    )


def _version(member: dict[str, Any]) -> str:
    return f"version {member['version']}" if member.get("version") else ""


def sentence(event: dict[str, Any]) -> str:
    """An event, for people."""
    data, node = _dict(event.get("data")), event.get("node")
    check = f"{node}: the check of {data.get('check')}"
    said = {
        "seen": f"{_count(len(_list(data.get('members'))), 'node')} seen, {data.get('primary') or 'nobody'} is the primary coordinator",
        "member_joined": f"{node} joined the cluster",
        "member_left": f"{node} left the cluster",
        "primary_changed": f"{data.get('to') or 'Nobody'} is the primary coordinator now; it was {data.get('from') or 'nobody'}",
        "restarted": f"The service of {node} was restarted",
        "configuration_changed": f"{node} has another configuration",
        "health_changed": f"{node} is {WORDS.get(str(data.get('to')))} now; it was {WORDS.get(str(data.get('from')))}",
        "capabilities_changed": f"{node} has detected its hardware"
        if data.get("first")
        else f"{node} has other capabilities: {', '.join(map(str, _list(data.get('changed'))))}",
        "began": f"{check} {'fails' if data.get('status') == FAIL else 'calls for attention'}: {data.get('message')}",
        "ended": f"{check} passes again",
        "recorded": f"Set-up run {_outcome(data)}",
    }
    return said.get(str(event.get("event")), str(event.get("event")))


def _outcome(run: dict[str, Any]) -> str:
    passed, failed = (n if isinstance(n := _dict(run.get("checks")).get(status), int) else 0 for status in (PASS, FAIL))
    return f"{run.get('outcome')}: {_count(passed, 'check')} passed{f', {failed} failed' if failed else ''}"


def _event(event: dict[str, Any]) -> str:
    moment = str(event["time"])
    bad = (event["type"] == "alert" and event["event"] == "began") or event["event"] == "member_left"
    return (
        f'<li data-id="{escape(event["id"])}"{" class=warn" if bad else ""}>'
        f'<time datetime="{escape(moment)}">{escape(moment[11:19])}</time> <span>{escape(sentence(event))}</span></li>'
    )


def status(service: Service, journal: Journal) -> str:
    """The cluster as this node sees it."""
    cluster, health = service.cluster(), service.health()
    here, members = service.settings.node.name, cluster["members"]
    failing = sum(member["health"] == FAIL for member in members)
    attention = sum(member["health"] == "warn" for member in members)
    state = f"{failing} failing" if failing else f"{attention} in need of attention" if attention else "all healthy" if members else ""
    gpus = [gpu for member in members for gpu in _gpus(member)]
    memory = sum(size for gpu in gpus if isinstance(size := gpu.get("memory_total_mib"), int))
    preferred = cluster["preferred_primary"]
    run = cluster["last_run"]
    tiles = [
        _tile(
            "Primary coordinator",
            str(cluster["primary"] or "nobody"),
            f"preferred: {preferred}" if preferred and preferred != cluster["primary"] else "",
        ),
        _tile("Nodes", str(len(members)), state),
        _tile("GPUs", str(len(gpus)), _size(memory) if memory else ""),
        _tile("Models", str(len({model for member in members for model in _models(member)}))),
        _tile("Last set-up run", str(run.get("outcome") or ""), f"{_since(run.get('time'))} ago" if _since(run.get("time")) else "")
        if run
        else "",
    ]
    age = "" if cluster["age_seconds"] is None else f" What follows is {cluster['age_seconds']:.0f} seconds old."
    stale = "" if cluster["current"] else f'<p role="alert" class="notice">{escape(str(cluster["reason"]))}.{age}</p>'
    checks = "".join(
        f"<li>{_badge(check['status'], CHECK_WORDS)} <strong>{escape(check['name'])}</strong> {escape(check['message'])}</li>"
        for check in health["checks"]
    )
    events = "".join(_event(event) for event in journal.latest(EVENTS))
    return _document(
        f"{cluster['name']} · {here}",
        f"<header><div><h1>{escape(cluster['name'])}</h1><p>as {escape(here)} sees it</p></div>"
        '<p id="state" class="state" role="status">not live</p>'
        '<form method="post" action="/sign-out"><button>Sign out</button></form></header><main>'
        f'<div id="stale" data-live>{stale}</div><dl id="tiles" class="tiles" data-live>{"".join(tiles)}</dl>'
        f'<h2 id="nodes">Nodes</h2><ul id="cards" class="cards" aria-labelledby="nodes" data-live>'
        f"{''.join(_card(member, here) for member in members)}</ul>"
        f'<div class="columns"><section aria-labelledby="own"><h2 id="own">Checks of {escape(here)}</h2>'
        f'<ul id="checks" class="plain" data-live>{checks}</ul></section>'
        '<section aria-labelledby="recent"><h2 id="recent">Recent events <small>times in UTC</small></h2>'
        f'<ol id="events" class="plain" data-live>{events or QUIET}</ol></section></div>'
        '<p id="announce" class="hidden" aria-live="polite"></p></main>'
        f"<footer><p>Service {escape(service.version)}, configuration {escape(service.settings.revision)}. "
        'As JSON: <a href="/api/v1/cluster">cluster</a>, <a href="/api/v1/node">node</a>; <a href="/metrics">metrics</a>.</p></footer>',
        attributes=f' data-events-port="{service.settings.listen.websocket_port}"',
        script=True,
    )
