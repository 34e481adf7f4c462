# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is answered, as `/api/v1/openapi.json` tells it.

Answers do not pass through these, which would take its time; tests/unit/test_web_described.py holds them to it.
"""

from __future__ import annotations

import re
from typing import Any, Literal

from fastapi import FastAPI, Response
from pydantic import BaseModel, ConfigDict, Field

from bzzz_setup.node.auth import records
from bzzz_setup.node.auth.principals import ROLES, SCOPES, VIEWER

PROBLEM = "application/problem+json"


class Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Finding(Answer):
    """What is wrong, where, and how to put it right."""

    severity: Literal["error", "warning"] = "error"
    option: str
    value: Any = None
    node: str | None = None
    message: str
    remedy: str


class Judged(Finding):
    step: int


class Changed(Answer):
    revision: int
    by: str
    at: float


class Newer(Changed):
    value: Any = Field(None, description="Of a secret it is not told.")


class Problem(Answer):
    """Problem details, RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    problems: list[Finding] = []
    changes: dict[str, Newer] = Field({}, description="What somebody else has changed meanwhile, by path.")
    hosts: list[str] = Field([], description="What this server is called, when it was called otherwise.")


class Me(Answer):
    name: str
    kind: str
    role: str
    scopes: list[str]


class Whoever(Me):
    """Whose session, and the session as a bearer."""

    expires: str
    token: str


class Account(Answer):
    name: str
    role: str
    created: str
    changed: str
    by: str
    locked: bool


class Accounts(Answer):
    users: list[Account]


class KnownToken(Answer):
    id: str
    name: str
    role: str
    scopes: list[str]
    created: str
    expires: str
    by: str
    expired: bool


class NewToken(KnownToken):
    token: str = Field(description="Told this once.")


class KnownTokens(Answer):
    tokens: list[KnownToken]


class Welcome(Answer):
    claimed: bool
    me: Me | None
    ways: list[Literal["password", "oidc"]]
    provider: str | None
    refused: str | None = Field(description="Why the last sign-in by the provider was no use.")


class Role(Answer):
    name: str
    title: str
    description: str
    essential: list[str]
    tests: list[str] = Field(description="What of it can be tried before it is applied.")
    options: dict[str, Any] = Field(alias="schema", description="JSON Schema of its options.")


class Step(Answer):
    number: int
    slug: str
    title: str
    roles: list[Role]


class Form(Answer):
    steps: list[Step]


class Member(Answer):
    address: str
    port: int
    groups: list[str]
    options: dict[str, Any]


class Elsewhere(Answer):
    file: str
    value: Any = Field(description="Null where it is a secret's.")


class View(Answer):
    revision: int
    cluster: str
    nodes: dict[str, Member]
    options: dict[str, Any]
    secrets: dict[str, bool] = Field(description="Whether they are set.")
    changed: dict[str, Changed]
    templates: list[str] = Field(description="Paths of values that only Ansible can work out.")
    elsewhere: dict[str, list[Elsewhere]] = Field(description="Option to where else in the folder it is set, which a form leaves alone.")


class Listener(Answer):
    node: str
    program: str | None
    pid: int | None
    unit: str | None


class Port(Answer):
    """A port that the cluster is to listen on, and who else does already."""

    option: str
    port: int
    protocol: str
    nodes: list[str]
    taken: list[Listener]
    own: list[str] = Field(description="Nodes on which the cluster itself listens there already.")


class Network(Answer):
    network: str
    interface: str | None
    kind: str | None
    gateway: str | None
    severity: Literal["error", "warning"] | None = Field(description="What the rules say of it beside the cluster's own.")
    nodes: list[str]


class Networks(Answer):
    subnets: list[str] = Field(description="The cluster's own.")
    others: list[Network]


class Draft(View):
    problems: list[Judged]
    detected: dict[str, dict[str, Any]] = Field(description="Option to node to what it is where it is not set.")
    ports: list[Port]
    networks: Networks
    facts_of: float | None = Field(description="When the machines were seen, in seconds since the epoch.")


class Checked(Answer):
    problems: list[Judged]


class Tried(Answer):
    told: str = Field(description="What is well.")


class Imported(Answer):
    changed: list[str] = Field(description="Paths of the draft.")
    left: list[str] = Field(description="What was not taken, since a form has no place for it.")
    secrets_missing: list[str] = Field(description="Set where it comes from, and not here.")


class Checks(Answer):
    run: str | None
    at: float | None
    checks: list[dict[str, Any]]


class Spent(Answer):
    """Of an hour or a day, and of a model, task, project or user: whichever was asked for names its field."""

    start: str
    model: str | None = None
    task: str | None = None
    project: str | None = None
    user: str | None = None
    calls: int
    tokens_in: int
    tokens_out: int
    tokens_cached: int
    latency_ms: int = Field(description="Mean.")
    cost_nano: int = Field(description="In nano-USD.")
    held_nano: int = Field(description="What calls of unknown outcome may have cost beside that.")


class Budget(Answer):
    scope: str
    period: str
    limit_nano: int
    spent_nano: int
    held_nano: int


class Advice(Answer):
    """What a task's calls to a model have cost, and the same tokens would cost on another."""

    task: str
    model: str
    calls: int
    cost_nano: int
    other: str
    other_nano: int
    saved_nano: int


class Idle(Answer):
    """A node whose GPUs have had no call."""

    node: str
    gpus: str = Field(description="As a run has last seen them.")


class Cost(Answer):
    gateway: str
    time_zone: str
    since: str
    until: str
    by: str
    per: str
    calls: int
    nano: int
    held_nano: int
    rows: list[Spent]
    caching: dict[str, Any]
    month: dict[str, Any] = Field(description="spent_nano so far, and expected_nano at its end at the pace of the last seven days.")
    budgets: list[Budget]
    recommendations: list[Advice]
    served: dict[str, int] = Field(description="Calls that each node of the cluster has had.")
    idle: list[Idle] = Field(description="None where no model is the cluster's own.")


class Place(Answer):
    """A GPU, or a machine's memory: who would have what of it, in bytes."""

    models: list[str]
    total_bytes: int
    weights_bytes: int
    cache_bytes: int
    overhead_bytes: int
    reserved_bytes: int = Field(description="In use by others, or kept free as declared.")
    free_bytes: int


class GpuPlace(Place):
    uuid: str
    name: str


class DiskPlace(Answer):
    path: str
    taken_bytes: int
    free_bytes: int


class Room(Answer):
    gpus: list[GpuPlace]
    memory: Place
    disk: DiskPlace
    left_out: list[str] = Field(description="GPUs that are not used, and why.")


class Placed(Answer):
    model: str
    replica: int
    node: str
    why: str
    shares: list[dict[str, Any]]
    ram_bytes: int
    disk_bytes: int


class Unplaced(Answer):
    model: str
    replica: int
    node: str | None
    why: str
    remedy: str


class Unknown(Answer):
    model: str
    why: str
    remedy: str


class Fit(Answer):
    nodes: dict[str, Room]
    placed: list[Placed]
    refused: list[Unplaced] = Field(description="Replicas that fit nowhere.")
    unknown: list[Unknown] = Field(description="Models of which too little is known to place them.")


class Seen(Answer):
    hardware: str
    interfaces: list[dict[str, Any]]
    gpus: list[dict[str, Any]]


class Nodes(Answer):
    seen: float | None = Field(description="When, in seconds since the epoch.")
    nodes: dict[str, Seen]
    topologies: list[dict[str, Any]] = Field(description="How the GPUs of machines that are alike lie, as a picture's coordinates.")


class Summary(Answer):
    run: str
    command: str
    started: float
    seconds: float
    exit_code: int
    outcome: str
    only: list[int] = Field([], description="Its steps, where it was to do one alone.")


class Holder(Answer):
    pid: int | None
    since: str | None
    command: str | None


class Runs(Answer):
    running: Holder | None
    runs: list[Summary]


class Tally(Answer):
    changed: int
    failed: bool
    seconds: float


class Node(Tally):
    hardware: str


class StepOfRun(Answer):
    number: int
    title: str
    state: Literal["waiting", "running", "done", "failed"]
    started: float
    seconds: float
    changed: int
    nodes: dict[str, Tally]


class Said(Answer):
    level: str
    text: str


class Run(Summary):
    cluster: str
    inventory: str
    steps: list[StepOfRun]
    nodes: dict[str, Node]
    changes: list[dict[str, Any]]
    forecast: list[str] = Field(description="What a month would cost, in words; nothing where no AI gateway is declared.")
    diffs: list[dict[str, Any]]
    checks: list[dict[str, Any]]
    problems: list[Finding]
    failures: list[dict[str, Any]]
    messages: list[Said]
    running: bool
    pausing: bool = Field(description="Whether it is to wait before its next step.")
    paused: int | None = Field(description="The step before which it waits.")
    last: int = Field(description="The id of the last event that is in it.")


class Event(BaseModel):
    """More is in it by its kind; facts and differences are left out. Of a task that failed, `failure` tells why, and the remedy."""

    id: int
    event: str
    at: float


class Events(Answer):
    events: list[Event]


class Begun(Answer):
    run: str


class Way(Answer):
    text: str
    heat: int | str = Field(description="Of a latency, 0 to 6; `self`, `none`, or `gone` where there is no answer.")


class Ways(Answer):
    """From the machine of a row to that of a column."""

    label: str
    cells: list[Way]


class Layer(Answer):
    name: Literal["latency", "mtu", "clock", "lost"]
    title: str
    same: str = Field(description="From the least to the most.")
    rows: list[Ways]


class OddWay(Answer):
    status: Literal["fail", "warn", "skip"]
    node: str
    peer: str
    why: str


class Heat(Answer):
    heat: int
    text: str


class Connections(Answer):
    sentence: str
    labels: list[str] = Field(description="Machines, or groups of many.")
    size: int = Field(description="Of a group.")
    legend: list[Heat]
    layers: list[Layer]
    odd: list[OddWay] = Field(description="Ways unlike the others, the worst first.")
    more: int = Field(description="How many more of those there are.")


class Measured(Answer):
    ways: Connections | None = Field(description="Null where no run has tried them.")


class Pausing(Answer):
    pausing: bool


class Asked(Answer):
    asked: bool


class Key(Answer):
    name: str
    kind: str
    bits: str
    comment: str
    fingerprint: str
    agent: bool
    locked: bool


class Keys(Answer):
    user: str
    keys: list[Key]


class HostKey(Answer):
    kind: str
    fingerprint: str


class FoundMachine(Answer):
    name: str
    address: str
    port: int
    keys: list[HostKey]


class FoundMachines(Answer):
    machines: list[FoundMachine]
    known: int = Field(description="So many more are in the declaration already.")
    known_hosts: str
    warnings: list[Finding]


class Yaml(Response):
    media_type = "application/yaml"


class Zip(Response):
    media_type = "application/zip"


EXPORTED: dict[int | str, dict[str, Any]] = {
    200: {"content": {Yaml.media_type: {"schema": {"type": "object"}}, Zip.media_type: {"schema": {"type": "string", "format": "binary"}}}}
}


def without_data(checks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Checks as a page shows them: what they have measured is in the report."""
    return [{part: value for part, value in check.items() if part != "data"} for check in checks]


def bad(**told: str) -> dict[int | str, dict[str, Any]]:
    """Errors by status, `_409`, and what they mean."""
    return {int(status[1:]): {"description": why, "model": Problem} for status, why in told.items()}


EVERYWHERE = bad(
    _400="What was sent is no text, or broke off",
    _401="Sign in first",
    _403="Not by this account, from this page or by this server's name",
    _413="More than is read",
    _422="What was sent, or what lies in the inventory folder, is not to be gone on with",
    _429="Too many requests",
)


def _sent(partly: bool = False, **fields: dict[str, Any]) -> dict[str, Any]:
    """A body that is read by `node.auth.records`. partly: no field has to be there."""
    needed = [] if partly else [name for name, about in fields.items() if "default" not in about]
    schema = {"type": "object", "properties": fields, "required": needed, "additionalProperties": False}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def of_path(path: str) -> list[dict[str, Any]]:
    """The parameters that stand in it."""
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in re.findall(r"{(\w+)}", path)]


_NAME = {"type": "string", "pattern": f"^{records.NAME.pattern}$", "maxLength": 64}
_ROLE = {"type": "string", "enum": list(ROLES)}
_SCOPES = {"type": "array", "items": {"type": "string", "enum": list(SCOPES)}, "default": [], "description": "None: all that the role has."}
_DAYS = {"type": "number", "exclusiveMinimum": 0, "maximum": records.LONGEST_DAYS, "default": 90}
_PASSWORD = {
    "type": "string",
    "minLength": records.PASSWORD_LENGTHS[0],
    "maxLength": records.PASSWORD_LENGTHS[1],
    "format": "password",
    "writeOnly": True,
}
_GIVEN = {"type": "string", "minLength": 1, "format": "password", "writeOnly": True}
_SIGN_IN, _OWN = _sent(user={"type": "string", "minLength": 1}, password=_GIVEN), _sent(old=_GIVEN, password=_PASSWORD)
_AWAY = bad(_503="It cannot be told now: ask again in some seconds")


def _account(summary: str, status: int, model: type[Answer] | None, sent: dict[str, Any] | None = None, **told: str) -> dict[str, Any]:
    answered: dict[int | str, dict[str, Any]] = {status: {"model": model} if model else {"description": "Done"}}
    about = {"summary": summary, "tags": ["accounts"], "status_code": status, "responses": {**answered, **bad(**told), **_AWAY}}
    return {**about, "openapi_extra": sent or {}}


_CHANGED, _NONE = "Somebody else has changed it meanwhile, or there would be no administrator any more", "There is none of that name"
# What is asked of the accounts, which nodes answer likewise (node.auth.api), by method and path.
ACCOUNTS = {
    ("POST", "/api/v1/sessions"): _account("Sign in for a bearer, good until it expires", 201, Whoever, _SIGN_IN),
    ("GET", "/api/v1/me"): _account("Who asks", 200, Me),
    ("PATCH", "/api/v1/me"): _account("Change the own password", 200, Account, _OWN, _409="It has none here"),
    ("GET", "/api/v1/users"): _account("All users", 200, Accounts),
    ("POST", "/api/v1/users"): _account(
        "Add a user", 201, Account, _sent(name=_NAME, role=_ROLE, password=_PASSWORD), _409="There is one of that name"
    ),
    ("PATCH", "/api/v1/users/{name}"): _account(
        "Change a user's role or password, or unlock it",
        200,
        Account,
        _sent(partly=True, role=_ROLE, password=_PASSWORD, locked={"const": False}),
        _404=_NONE,
        _409=_CHANGED,
    ),
    ("DELETE", "/api/v1/users/{name}"): _account("Remove a user", 204, None, _404=_NONE, _409=_CHANGED),
    ("GET", "/api/v1/tokens"): _account("All tokens, which are not told themselves", 200, KnownTokens),
    ("POST", "/api/v1/tokens"): _account(
        "Issue a token", 201, NewToken, _sent(name=_NAME, role={**_ROLE, "default": VIEWER}, scopes=_SCOPES, days=_DAYS)
    ),
    ("DELETE", "/api/v1/tokens/{id}"): _account("Revoke a token", 204, None, _404="There is none of that id"),
}


class Described(FastAPI):
    """An application whose every error is problem details."""

    def openapi(self) -> dict[str, Any]:
        if not self.openapi_schema:
            for operations in super().openapi()["paths"].values():
                for operation in operations.values():
                    for status, answer in operation["responses"].items():
                        if status >= "400":
                            answer["content"] = dict.fromkeys([PROBLEM], *answer["content"].values())
        return self.openapi_schema or {}
