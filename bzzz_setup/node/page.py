# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The status page and its sign-in form: whole documents, rendered here, that load nothing from anywhere."""

from __future__ import annotations

import base64
import hashlib
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .service import Service

STYLE = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
SCRIPT = Path(__file__).with_name("page.js").read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src {_hash(STYLE)}; script-src {_hash(SCRIPT)}; connect-src 'self'; "
    "img-src data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)

WORDS = {"pass": "healthy", "warn": "attention", "fail": "failing"}


def _document(title: str, body: str, script: bool = False) -> str:
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">'
        f'<title>{escape(title)}</title><link rel="icon" href="data:,"><style>{STYLE}</style></head>\n<body>{body}'
        + (f"<script>{SCRIPT}</script>" if script else "")
        + "</body></html>\n"
    )


def sign_in(cluster: str, node: str, error: str = "") -> str:
    """The form that asks for the token."""
    said = f'<p role="alert" id="error" class="fail">{escape(error)}</p>' if error else ""
    described = ' aria-describedby="error" aria-invalid="true"' if error else ""
    return _document(
        f"Sign in · {cluster}",
        f"<main class=narrow><h1>{escape(cluster)}</h1><p>Node {escape(node)}. Sign in with the cluster's token.</p>{said}"
        '<form method="post" action="/sign-in"><label for="token">Token</label>'
        f'<input id="token" name="token" type="password" autocomplete="current-password" required autofocus{described}>'
        '<button type="submit">Sign in</button></form></main>',
    )


def _badge(status: str) -> str:
    return f'<span class="badge {escape(status)}">{escape(WORDS.get(status, status))}</span>'


def _size(mib: Any) -> str:
    return f"{mib / 1024:.0f} GiB" if isinstance(mib, (int, float)) else ""


def _capabilities(member: dict[str, Any]) -> str:
    has = member.get("capabilities") or {}
    cpu = has.get("cpu") or {}
    ollama = has.get("ollama") or {}
    parts = [
        *(" ".join(filter(None, [str(gpu.get("model") or "GPU"), _size(gpu.get("memory_total_mib"))])) for gpu in has.get("gpus") or []),
        f"{cpu['threads']} threads" if cpu.get("threads") else "",
        f"{_size(has['memory_total_mib'])} memory" if has.get("memory_total_mib") else "",
        f"Ollama {ollama.get('version') or ''}, {len(ollama.get('models') or [])} models" if ollama else "",
    ]
    return "<br>".join(escape(part) for part in parts if part) or "not detected yet"


def _row(member: dict[str, Any], here: str) -> str:
    name = escape(str(member["name"])) + (" <small>(this node)</small>" if member["name"] == here else "")
    roles = ", ".join(str(role) for role in member.get("roles", ()))
    primary = ' <span class="badge primary">primary</span>' if member["primary"] else ""
    labels = " ".join(f"<code>{escape(f'{key}={value}')}</code>" for key, value in sorted((member.get("labels") or {}).items()))
    return (
        f'<tr><th scope="row">{name}<br><small>{escape(str(member.get("address", "")))}</small></th>'
        f"<td>{_badge(member['health'])}</td><td>{escape(roles)}{primary} {labels}</td><td>{_capabilities(member)}</td>"
        f"<td>{escape(str(member.get('version', '')))}<br><small>since {escape(str(member.get('started', '')))}</small></td></tr>"
    )


def status(service: Service) -> str:
    """The cluster as this node sees it."""
    cluster, health = service.cluster(), service.health()
    here = service.settings.node.name
    primary = escape(cluster["primary"]) if cluster["primary"] else "nobody"
    preferred = f" (preferred: {escape(cluster['preferred_primary'])})" if cluster["preferred_primary"] else ""
    age = "" if cluster["age_seconds"] is None else f" The list below is {cluster['age_seconds']:.0f} seconds old."
    stale = "" if cluster["current"] else f'<p role="alert" class="fail">{escape(str(cluster["reason"]))}.{age}</p>'
    rows = "".join(_row(member, here) for member in cluster["members"])
    checks = "".join(
        f"<li>{_badge(check['status'])} {escape(check['name'])}: {escape(check['message'])}</li>" for check in health["checks"]
    )
    return _document(
        f"{cluster['name']} · {here}",
        f'<main><header><h1>{escape(cluster["name"])}</h1><form method="post" action="/sign-out"><button>Sign out</button></form></header>'
        f"{stale}<dl><div><dt>Primary coordinator</dt><dd>{primary}{preferred}</dd></div>"
        f"<div><dt>Coordinators</dt><dd>{escape(', '.join(cluster['coordinators'])) or 'none'}</dd></div>"
        f"<div><dt>Nodes</dt><dd>{len(cluster['members'])}</dd></div></dl>"
        '<div class="wide" tabindex="0" role="region" aria-labelledby="nodes"><table><caption id="nodes">Nodes</caption><thead><tr>'
        '<th scope="col">Node</th><th scope="col">Health</th><th scope="col">Roles</th><th scope="col">Capabilities</th>'
        f'<th scope="col">Version</th></tr></thead><tbody>{rows}</tbody></table></div>'
        f"<h2>This node, {escape(here)} {_badge(health['status'])}</h2><ul>{checks}</ul>"
        f"<p><small>Service {escape(service.version)}, configuration {escape(service.settings.revision)}, "
        f"up {int(service.uptime_seconds) // 3600} h {int(service.uptime_seconds) // 60 % 60} min. "
        'See <a href="/api/v1/cluster">cluster</a>, <a href="/api/v1/node">node</a>, <a href="/metrics">metrics</a>.</small></p></main>',
        script=True,
    )
