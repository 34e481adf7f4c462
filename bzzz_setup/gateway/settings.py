# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The gateway's file, which ``BZZZ_GATEWAY_CONFIG`` names: YAML, or JSON, which is YAML, too. docs/cost.md describes it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .budgets import Budgets, Invalid, Problem, load
from .tokens import FileTokens, NodeTokens, Source

VARIABLE = "BZZZ_GATEWAY_CONFIG"
DEFAULT = "/etc/bzzz/gateway.yaml"


@dataclasses.dataclass(frozen=True)
class OpenAI:
    """What OpenAI bills a call to. ``projects``: OpenAI's project of each of ours; ``project`` for all others."""

    organization: str = ""
    project: str = ""
    projects: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def project_of(self, project: str) -> str:
        return self.projects.get(project, self.project)


@dataclasses.dataclass(frozen=True)
class Metrics:
    """Where Prometheus asks: plain, or over TLS by who shows a certificate of ``client_ca``."""

    port: int
    address: str = "127.0.0.1"
    certificate: str = ""
    key: str = ""
    client_ca: str = ""


@dataclasses.dataclass(frozen=True)
class Shared:
    """Models at the Ollamas of the cluster's nodes. ``url``: this node's service, which knows who holds them.

    ``models``: ``{name, model, weight, parameters}`` each, the name as calls use it.
    """

    url: str
    ca: str | None
    token_file: str
    models: tuple[Mapping[str, Any], ...]


@dataclasses.dataclass(frozen=True)
class Alerts:
    """The file of ``alerts``, and the group that may read it."""

    file: str
    group: str


@dataclasses.dataclass(frozen=True)
class Settings:
    """``default_model``: of calls that name none. ``tasks``: the model of each task's name.

    ``max_tokens``: what a call is given that states no most of its own. ``in_turn``: whether a model's deployments have turns.
    ``former_ledger``: a file of SQLite whose calls go into the ledger.
    """

    ledger: str
    budgets: Budgets
    tokens: Source
    former_ledger: str = ""
    gateway: str = ""
    default_model: str = ""
    tasks: Mapping[str, str] = dataclasses.field(default_factory=dict)
    openai: OpenAI = dataclasses.field(default_factory=OpenAI)
    max_tokens: int = 16384
    in_turn: bool = False
    call_seconds: float = 3600
    metrics: Metrics | None = None
    alerts: Alerts | None = None
    shared: Shared | None = None


_STRINGS = {"gateway": "", "default_model": "", "ledger": "", "ledger_file": "", "former_ledger": "", "time_zone": "UTC"}
_NUMBERS: dict[str, tuple[type, float, float, Any]] = {
    "max_tokens": (int, 1, 10_000_000, 16384),
    "call_seconds": (float, 10, 86400, 3600.0),
}
_MAPPINGS = {
    "budgets": None,
    "tokens": ("file", "node", "ca"),
    "openai": ("organization", "project", "projects"),
    "metrics": ("address", "port", "certificate", "key", "client_ca"),
    "alerts": ("file", "group"),
    "shared": ("url", "ca", "token_file", "models"),
}
_NAMES = ("tasks", "members")
KNOWN = (*_STRINGS, *_NUMBERS, *_MAPPINGS, *_NAMES, "in_turn")


def read(path: Path | None = None) -> Settings:
    """Raises Invalid with every problem; its messages repeat no value."""
    import yaml  # noqa: PLC0415 - the rules need none

    path = path or Path(os.environ.get(VARIABLE, DEFAULT))
    try:
        return parse(yaml.safe_load(path.read_bytes()))
    except (OSError, yaml.YAMLError, UnicodeError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else "this is no YAML"
        raise Invalid(Problem(str(path), str(reason), f"let role gateway write it, or name another by {VARIABLE}")) from None


def parse(document: Any) -> Settings:
    problems: list[Problem] = []
    if not isinstance(document, dict):
        raise Invalid(Problem("the gateway's file", "this is no mapping", f"write some of {', '.join(KNOWN)}"))
    for key in document:
        if key not in KNOWN:
            problems.append(Problem(str(key), "there is no such option", f"write some of {', '.join(KNOWN)}"))
    text = {name: _text(document, name, default, problems) for name, default in _STRINGS.items()}
    number = {name: _number(document, name, *about, problems) for name, about in _NUMBERS.items()}
    part = {name: _part(document, name, names, problems) for name, names in _MAPPINGS.items()}
    names = {name: _part(document, name, None, problems) for name in _NAMES}
    url = text["ledger"]
    if text["ledger_file"]:
        try:
            url = Path(text["ledger_file"]).read_text(encoding="utf-8").strip()  # PostgreSQL's has a password
        except (OSError, UnicodeError):
            problems.append(Problem("ledger_file", "this file cannot be read", "write the database's URL into it"))
    elif not url:
        problems.append(
            Problem("ledger", "this is missing", "write a database's URL, such as sqlite:////var/lib/bzzz/gateway/ledger.sqlite")
        )
    tasks = names["tasks"]
    if not all(isinstance(model, str) and model for model in tasks.values()):
        problems.append(Problem("tasks", "there is a task without a model", "write task: model"))
    members = {user: tuple(map(str, each if isinstance(each, list) else [each])) for user, each in names["members"].items()}
    tokens = part["tokens"]
    if ("file" in tokens) == ("node" in tokens):
        problems.append(Problem("tokens", "there must be one place that knows them", "write file: PATH or node: URL"))
    metrics = part["metrics"]
    if metrics and (type(metrics.get("port")) is not int or not 0 < metrics["port"] < 65536):
        problems.append(Problem("metrics.port", "this is no port", "write 1 to 65535"))
    if metrics and 0 < sum(bool(metrics.get(name)) for name in ("certificate", "key", "client_ca")) < 3:
        problems.append(Problem("metrics", "this is half a TLS", "write certificate, key and client_ca, or none of them"))
    alerts = part["alerts"]
    if alerts and not (alerts.get("file") and alerts.get("group")):
        problems.append(Problem("alerts", "nobody could read them", "write file and group"))
    shared = part["shared"]
    models = shared.get("models") if shared else []
    if shared and not (isinstance(models, list) and all(isinstance(each, dict) and each.get("name") for each in models)):
        problems.append(Problem("shared.models", "these are no models", "write a list of {name, model}"))
    if shared and not (shared.get("url") and shared.get("token_file")):
        problems.append(Problem("shared", "nobody can be asked", "write url and token_file"))
    if type(document.get("in_turn", False)) is not bool:
        problems.append(Problem("in_turn", "this is neither true nor false", "write true or false"))
    openai = part["openai"]
    if not isinstance(openai.get("projects", {}), dict):
        problems.append(Problem("openai.projects", "this is no mapping", "write our project: OpenAI's project"))
    budgets = None
    try:
        budgets = load(document.get("budgets"), text["time_zone"])
    except Invalid as invalid:
        problems += invalid.problems
    if problems or budgets is None:
        raise Invalid(*problems)
    return Settings(
        ledger=url,
        budgets=budgets,
        tokens=FileTokens(Path(tokens["file"])) if "file" in tokens else NodeTokens(tokens["node"], tokens.get("ca"), members),
        former_ledger=text["former_ledger"],
        gateway=text["gateway"],
        default_model=text["default_model"],
        tasks=tasks,
        in_turn=bool(document.get("in_turn")),
        openai=OpenAI(str(openai.get("organization") or ""), str(openai.get("project") or ""), openai.get("projects") or {}),
        metrics=Metrics(**{name: value for name, value in metrics.items() if value}) if metrics else None,
        alerts=Alerts(str(alerts["file"]), str(alerts["group"])) if alerts else None,
        shared=Shared(shared["url"], shared.get("ca"), shared["token_file"], tuple(models)) if shared and models else None,
        **number,
    )


def _text(document: dict[Any, Any], name: str, default: str, problems: list[Problem]) -> str:
    value = document.get(name, default)
    if not isinstance(value, str):
        problems.append(Problem(name, "this is no text", "write it in quotes"))
        return default
    return value


def _number(document: dict[Any, Any], name: str, kind: type, least: float, most: float, default: Any, problems: list[Problem]) -> Any:
    value = document.get(name, default)
    if type(value) not in ((int,) if kind is int else (int, float)) or not least <= value <= most:
        problems.append(Problem(name, "this number cannot be", f"write {least} to {most}"))
        return default
    return value


def _part(document: dict[Any, Any], name: str, known: tuple[str, ...] | None, problems: list[Problem]) -> dict[str, Any]:
    value = document.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        problems.append(
            Problem(name, "this is no mapping", f"write some of {', '.join(known)}" if known else "write name: value, one a line")
        )
        return {}
    for key in value if known else ():
        if known and key not in known:
            problems.append(Problem(f"{name}.{key}", "there is no such option", f"write some of {', '.join(known)}"))
    return value
