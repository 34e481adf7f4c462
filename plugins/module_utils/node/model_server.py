# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Probe of a server of models: it answers, takes its key, has the models, and lets them be called.

What is wrong is told apart by where the way ends (`egress`) and by the server's own answer. No key, and nothing that may quote
one, is in what is told.
"""

from __future__ import annotations

import json
import re
from http.client import HTTPResponse
from typing import Any, Callable, Optional
from urllib.parse import SplitResult, urlsplit

from .egress import AUTHORITIES, Attempt, Way
from .probes import Node, Outcome, outcome

BODY_BYTES = 1 << 22
LISTS = {"openai": "/models", "ollama": "/api/tags"}
BILLING = re.compile(r"quota|billing|credit")
# Cause -> status, what was seen, remedy.
CAUSES = {
    "key": (
        "fail",
        "it does not take the key ({said})",
        "put a key that {host} takes into {option} (vault file); OpenAI's are made at platform.openai.com/api-keys",
    ),
    "no_key": ("fail", "it wants a key, and there is none ({said})", "put the key that {host} has given you into {option} (vault file)"),
    "organization": (
        "fail",
        "the key is not of the organisation {organization} ({said})",
        "correct openai_organization, or take it out: a key knows its own",
    ),
    "project": (
        "fail",
        "the key may not be used for the project {project} ({said})",
        "correct openai_project and openai_projects, or use a key that is not bound to another project",
    ),
    "denied": (
        "fail",
        "the key is known, and not permitted to do this ({said})",
        "give the key permission to list and call models, and see that {host} serves the place that the call comes from",
    ),
    "quota": (
        "fail",
        "the key is good, but there is no quota: credit is used up, a monthly limit is reached, or billing is not set up ({said})",
        "add credit or raise the limit at {host}; OpenAI's: platform.openai.com/settings/organization/billing",
    ),
    "rate": (
        "warn",
        "the key is good, but it has called too often for the moment ({said})",
        "try again in a minute; where it stays so, ask {host} for higher rate limits",
    ),
    "model": (
        "fail",
        "the key is good, but it has no model {model} ({said})",
        "name models that it has in gateway_default_model and gateway_models, or let the key's project use this one",
    ),
    "absent": ("fail", "there is no such interface ({said})", "correct the address: this one is asked for {path}"),
    "trouble": ("warn", "it is in trouble itself ({said})", "wait until it has recovered; OpenAI's state: status.openai.com"),
    "other": ("fail", "it does not answer as expected ({said})", "see what stands at {host}, and correct the address"),
}


class Declared(Way):
    """The way that the gateway has: by this proxy, or by none. Its password is where apt's is."""

    def __init__(self, proxy: Optional[str], authorities: str = AUTHORITIES) -> None:
        self.to, self.authorities = proxy, authorities

    def proxy(self, to: SplitResult) -> SplitResult | None:
        return urlsplit(self.to) if self.to else None


class Asked(Attempt):
    """One question, with its answer's status and JSON document; 0 and None where there is none."""

    def __init__(self, url: str, way: Way, seconds: float, headers: dict[str, str], document: Any = None) -> None:
        self.status: int = 0
        self.document: Any = None
        if document is not None:
            self.body = json.dumps(document).encode()
            headers = {**headers, "Content-Type": "application/json"}
        super().__init__(url, way, seconds, url, headers)
        self.thread.join(seconds)

    def judge(self, answer: HTTPResponse, through: bool = False) -> None:
        """What the server says is judged by its document; here only a proxy's own answers are."""
        plain = self.proxy is not None and self.to.scheme == "http"
        if through or (plain and (answer.status == 407 or answer.getheader("X-Squid-Error"))):
            super().judge(answer, through)

    def take(self, answer: HTTPResponse) -> None:
        text = answer.read(BODY_BYTES)
        try:
            self.document = json.loads(text)
        except ValueError:
            self.document = None
        self.status = answer.status

    @property
    def error(self) -> dict[str, Any]:
        found = self.document.get("error") if isinstance(self.document, dict) else None
        return found if isinstance(found, dict) else {}


def cause(status: int, error: dict[str, Any], key: bool) -> str:
    """What an answer that is no success means: a key of CAUSES. `error` as OpenAI has it: ``code``, ``type``, ``message``."""
    code = " ".join(str(error.get(name) or "").lower() for name in ("code", "type"))
    text = str(error.get("message") or "").lower()
    if status in (400, 402, 403, 429) and (status == 402 or BILLING.search(code)):
        return "quota"
    if status == 429:
        return "rate"
    if status in (401, 403, 404) and "organization" in code:
        return "organization"
    if status in (401, 403, 404) and "project" in code:
        return "project"
    if status == 403 or "insufficient permissions" in text or "missing scopes" in text:
        return "model" if "model" in code or "access to model" in text else "denied"
    if status == 401:
        return "key" if key else "no_key"
    if status == 404:
        return "model" if "model" in code else "absent"
    return "trouble" if status >= 500 else "other"


def look(
    way: Way,
    url: str,
    *,
    api: str = "openai",
    key: str = "",
    option: str = "openai_api_key",
    organization: str = "",
    projects: Optional[list[str]] = None,
    models: Optional[list[str]] = None,
    call: str = "",
    seconds: float = 15,
) -> tuple[str, str, str]:
    """Status (pass, warn, fail), what was seen, and a remedy, of a server with this base URL.

    projects: each is asked for. models: those that it is to have. call: the model that is called, for a token, after the rest has
    held: OpenAI tells only then that there is no quota.
    """
    base, host = url.rstrip("/"), urlsplit(url).hostname or url
    about = {"host": host, "option": option, "organization": organization, "path": base + LISTS[api], "model": call, "project": ""}

    def ask(path: str, project: str, document: Any = None) -> tuple[Asked, Optional[tuple[str, str, str]]]:
        headers = {"Accept": "application/json"}
        headers.update({"Authorization": f"Bearer {key}"} if key else {})
        headers.update({"OpenAI-Organization": organization} if organization else {})
        headers.update({"OpenAI-Project": project} if project else {})
        asked = Asked(base + path, way, seconds, headers, document)
        if asked.ended is not None:
            return asked, ("fail", *asked.told())
        if 200 <= asked.status < 300 and isinstance(asked.document, dict):
            return asked, None
        # A refusal of a call as such (too few tokens for a thought, no chat model) comes from a model that may be called.
        why = cause(asked.status, asked.error, bool(key))
        if document is not None and asked.status == 400 and why == "other":
            return asked, None
        code = re.sub(r"[^\w.-]", "", str(asked.error.get("code") or asked.error.get("type") or ""))[:60]
        if key and key in code:
            code = ""
        status, seen, remedy = CAUSES[why]
        words = {**about, "project": project, "said": f"{asked.status} {code}".strip()}
        return asked, (status, f"{base}: {seen.format(**words)}", remedy.format(**words))

    names: set[str] = set()
    for project in projects or [""]:
        asked, wrong = ask(LISTS[api], project)
        if wrong:
            return wrong
        names |= _names(asked.document, api)
    seen = f"{base} answers, and has {len(names)} model{'' if len(names) == 1 else 's'}"
    if key:
        seen = f"{base} takes the key, which has {len(names)} model{'' if len(names) == 1 else 's'}"
    missing = [name for name in models or () if name not in names and f"{name}:latest" not in names]
    if call:
        body = {"model": call, "messages": [{"role": "user", "content": "1"}], "max_completion_tokens": 1}
        _asked, wrong = ask("/chat/completions", (projects or [""])[0], body)
        if wrong:
            return wrong
        seen += f"; {call} may be called"
    if missing:
        remedy = f"pull {', '.join(missing)} there, or" if api == "ollama" else "let the key use them, or"
        return "warn", f"{seen}; it does not list {', '.join(missing)}", f"{remedy} correct the names in gateway_models"
    return "pass", seen, ""


def _names(document: Any, api: str) -> set[str]:
    rows = document.get("models" if api == "ollama" else "data") or []
    rows = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    return {str(row.get("name" if api == "ollama" else "id") or "") for row in rows} - {""}


def _key(file: str, url: str) -> str:
    """The key that LiteLLM's file has for deployments at this address; empty for none."""
    with open(file, encoding="utf-8") as source:
        deployments = json.load(source)["model_list"]
    for each in deployments:
        if each["litellm_params"].get("api_base") == url.rstrip("/") and each["litellm_params"].get("api_key"):
            return str(each["litellm_params"]["api_key"])
    return ""


def model_server(
    _node: Node,
    *,
    url: str,
    api: str = "openai",
    key_file: str | None = None,
    option: str = "openai_api_key",
    organization: str | None = None,
    projects: list[str] | None = None,
    models: list[str] | None = None,
    call: str | None = None,
    proxy: str | None = None,
    timeout: float = 15,
) -> Outcome:
    """`key_file` is LiteLLM's own on this node. A remedy may say ``<remedy>``."""
    expected = "it answers, takes the key, and has the models"
    try:
        key = _key(key_file, url) if key_file else ""
    except (OSError, ValueError, KeyError, TypeError) as error:
        return outcome(False, f"{key_file} cannot be read: {type(error).__name__}", expected, about=[{"remedy": "run step 4 again"}])
    status, seen, remedy = look(
        Declared(proxy),
        url,
        api=api,
        key=key,
        option=option,
        organization=organization or "",
        projects=projects,
        models=models,
        call=call or "",
        seconds=timeout,
    )
    return outcome(status, seen, expected, about=[{"remedy": remedy}] if remedy else [])


KINDS: dict[str, Callable[..., Any]] = {"model_server": model_server}
