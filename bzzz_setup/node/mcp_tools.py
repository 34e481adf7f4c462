# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The MCP server's tools. Importing this loads the SDK, see ``mcp_server``.

What nodes publish may be another release's: whatever has not the type that a tool's schema promises is left out.
"""

from __future__ import annotations

import collections
from typing import Any

from cryptography import x509
from mcp.server.context import CallNext, ServerRequestContext
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from mcp_types import ToolAnnotations
from pydantic import BaseModel
from typing_extensions import TypedDict

from .checks import FAIL, published
from .config import Settings
from .service import Service

BODY_BYTES = 64 * 1024
INSTRUCTIONS = (
    "The state of one BZZZ cluster of AI machines, as one of its nodes sees it. Everything here is read-only. "
    "Begin with cluster_status; where its 'current' is false, the rest is as last seen."
)


class Run(TypedDict):
    """The last set-up run that validated the cluster."""

    time: str
    outcome: str
    passed: int
    warned: int
    failed: int


class ClusterStatus(TypedDict):
    """``current``: whether etcd confirms this now; ``reason``: why it does not."""

    cluster: str
    asked_node: str
    current: bool
    reason: str | None
    primary: str | None
    term: int | None
    coordinators: list[str]
    nodes: int
    failing_nodes: list[str]
    last_run: Run | None


class Gpu(TypedDict):
    vendor: str | None
    model: str | None
    memory_total_mib: int | None
    health: str | None


class Node(TypedDict):
    name: str
    address: str | None
    roles: list[str]
    labels: dict[str, str]
    primary: bool
    health: str
    version: str | None
    started: str | None
    cpu_model: str | None
    cpu_threads: int | None
    memory_total_mib: int | None
    gpus: list[Gpu]


class Nodes(TypedDict):
    nodes: list[Node]


class Place(TypedDict):
    node: str
    endpoint: str | None


class Model(TypedDict):
    name: str
    places: list[Place]


class Models(TypedDict):
    models: list[Model]


class NodeCheck(TypedDict):
    """``status``: pass, warn or fail."""

    node: str
    name: str
    status: str
    message: str


class Checks(TypedDict):
    checks: list[NodeCheck]


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _node(member: dict[str, Any]) -> Node:
    has = _dict(member.get("capabilities"))
    cpu = _dict(has.get("cpu"))
    return {
        "name": str(member["name"]),
        "address": _text(member.get("address")),
        "roles": [str(role) for role in _list(member.get("roles"))],
        "labels": {str(key): str(value) for key, value in _dict(member.get("labels")).items()},
        "primary": member["primary"],
        "health": member["health"],
        "version": _text(member.get("version")),
        "started": _text(member.get("started")),
        "cpu_model": _text(cpu.get("model")),
        "cpu_threads": _number(cpu.get("threads")),
        "memory_total_mib": _number(has.get("memory_total_mib")),
        "gpus": [
            {
                "vendor": _text(gpu.get("vendor")),
                "model": _text(gpu.get("model")),
                "memory_total_mib": _number(gpu.get("memory_total_mib")),
                "health": _text(gpu.get("health")),
            }
            for gpu in map(_dict, _list(has.get("gpus")))
        ],
    }


def _run(record: Any) -> Run | None:
    run = _dict(record)
    counts = _dict(run.get("checks"))
    if not run:
        return None
    return {
        "time": str(run.get("time", "")),
        "outcome": str(run.get("outcome", "")),
        "passed": _number(counts.get("pass")) or 0,
        "warned": _number(counts.get("warn")) or 0,
        "failed": _number(counts.get("fail")) or 0,
    }


def server(service: Service, calls: collections.Counter[tuple[str, str]]) -> MCPServer[Any]:
    """The MCP server; ``calls`` counts by (tool, outcome)."""
    cluster_name = service.settings.cluster.name
    made: MCPServer[Any] = MCPServer(
        name="bzzz", title=f"BZZZ cluster {cluster_name}", version=service.version, instructions=INSTRUCTIONS, subscriptions=False
    )
    reading = ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False)

    @made.tool(title="Cluster status", annotations=reading, structured_output=True)
    def cluster_status() -> ClusterStatus:
        """Whether the cluster works: its primary coordinator, how many nodes it has, which of them are failing, its last set-up run."""
        seen = service.cluster()
        return {
            "cluster": seen["name"],
            "asked_node": service.settings.node.name,
            "current": seen["current"],
            "reason": seen["reason"],
            "primary": seen["primary"],
            "term": seen["term"],
            "coordinators": seen["coordinators"],
            "nodes": len(seen["members"]),
            "failing_nodes": [member["name"] for member in seen["members"] if member["health"] == FAIL],
            "last_run": _run(seen["last_run"]),
        }

    @made.tool(title="Nodes", annotations=reading, structured_output=True)
    def nodes() -> Nodes:
        """Every node of the cluster: address, roles, labels, health, CPU, memory and GPUs."""
        return {"nodes": [_node(member) for member in service.cluster()["members"]]}

    @made.tool(title="Models", annotations=reading, structured_output=True)
    def models() -> Models:
        """Every AI model that some node has, and on which nodes it is."""
        places: dict[str, list[Place]] = {}
        for member in service.cluster()["members"]:
            ollama = _dict(_dict(member.get("capabilities")).get("ollama"))
            for name in _list(ollama.get("models")):
                places.setdefault(str(name), []).append({"node": str(member["name"]), "endpoint": _text(ollama.get("endpoint"))})
        return {"models": [{"name": name, "places": found} for name, found in sorted(places.items())]}

    @made.tool(title="Checks", annotations=reading, structured_output=True)
    def checks(node: str | None = None) -> Checks:
        """The health checks of every node, or of one: which pass, and what is wrong with those that don't."""
        members = {str(member["name"]): member for member in service.cluster()["members"]}
        here = service.settings.node.name
        if node is not None and node not in {*members, here}:
            raise ToolError(f"there is no node {node!r}. Nodes: {', '.join(sorted({*members, here}))}.")
        found = {name: list(published(member).values()) for name, member in members.items()}
        found[here] = service.checks()
        return {
            "checks": [
                {"node": name, "name": check.name, "status": check.status, "message": check.message}
                for name in sorted(found)
                if node in (None, name)
                for check in found[name]
            ]
        }

    async def count(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> BaseModel | dict[str, Any] | None:
        if ctx.method != "tools/call":
            return await call_next(ctx)
        tool = str(_dict(ctx.params).get("name"))
        known = tool if tool in {each.name for each in await made.list_tools()} else "unknown"
        try:
            result = await call_next(ctx)
        except BaseException:
            calls[known, "error"] += 1
            raise
        calls[known, "error" if getattr(result, "is_error", False) or _dict(result).get("isError") else "ok"] += 1
        return result

    made.middleware.append(count)
    return made


def hosts(settings: Settings) -> list[str]:
    """What clients may call this server: the names in the node's own certificate, with the port."""
    certificate = x509.load_pem_x509_certificate(settings.tls.certificate.read_bytes())
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    found = names.get_values_for_type(x509.DNSName)
    found += [f"[{address}]" if address.version == 6 else str(address) for address in names.get_values_for_type(x509.IPAddress)]
    return [*(f"{name}:{settings.listen.mcp_port}" for name in found), *(found if settings.listen.mcp_port == 443 else ())]


def manager(service: Service, calls: collections.Counter[tuple[str, str]]) -> StreamableHTTPSessionManager:
    """The server behind streamable HTTP: no sessions, plain JSON answers, no browsers, small requests."""
    security = TransportSecuritySettings(allowed_hosts=hosts(service.settings), allowed_origins=[])
    made = server(service, calls)
    made.streamable_http_app(stateless_http=True, json_response=True, transport_security=security, max_request_body_size=BODY_BYTES)
    return made.session_manager
