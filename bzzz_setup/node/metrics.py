# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The service as Prometheus metrics."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cryptography import x509
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from .checks import FAIL

if TYPE_CHECKING:
    from .config import Settings
    from .mcp_server import McpServer
    from .service import Service
    from .stream import Stream

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


class _Service(Collector):
    def __init__(self, service: Service, stream: Stream, mcp: McpServer) -> None:
        self.service, self.stream, self.mcp = service, stream, mcp

    def collect(self) -> Iterator[Metric]:
        service = self.service
        cluster, membership = service.cluster(), service.membership

        info = GaugeMetricFamily("bzzz_node_info", "This node; always 1.", labels=["cluster", "node", "roles", "version", "revision"])
        node = service.settings.node
        info.add_metric([service.settings.cluster.name, node.name, ",".join(node.roles), service.version, service.settings.revision], 1)
        yield info

        yield GaugeMetricFamily("bzzz_uptime_seconds", "Seconds since the service started.", value=service.uptime_seconds)
        yield GaugeMetricFamily("bzzz_ready", "1 when this node is fit for work.", value=not service.unready())
        checks = GaugeMetricFamily("bzzz_check", "1 when a check of this node's health does not fail.", labels=["check"])
        for check in service.checks():
            checks.add_metric([check.name], check.status != FAIL)
        yield checks

        ends = GaugeMetricFamily(
            "bzzz_certificate_expiry_timestamp_seconds",
            "When a certificate ends: the node's own (node), its authority's (ca), the one shown to clients (service).",
            labels=["certificate"],
        )
        for name, at in _expiries(service.settings):
            ends.add_metric([name], at)
        yield ends

        yield GaugeMetricFamily("bzzz_cluster_current", "1 when etcd confirms this node's view of the cluster.", value=cluster["current"])
        yield GaugeMetricFamily("bzzz_cluster_members", "Nodes with a live lease.", value=len(cluster["members"]))
        yield GaugeMetricFamily(
            "bzzz_cluster_primary_known", "1 when the cluster has a primary coordinator.", value=cluster["primary"] is not None
        )
        if membership:
            yield GaugeMetricFamily("bzzz_primary", "1 when this node is the primary coordinator.", value=membership.term is not None)
            yield CounterMetricFamily(
                "bzzz_elections_won", "Times this process became the primary coordinator.", value=membership.elections
            )

        yield GaugeMetricFamily("bzzz_detection_seconds", "How long the last detection took.", value=service.detector.seconds)
        yield from self._gpus()
        yield from self._clients()
        sign_ins = CounterMetricFamily("bzzz_sign_ins", "Sign-ins, by how, and how they ended.", labels=["method", "outcome"])
        for (method, outcome), number in sorted(self.stream.gate.sign_ins.items()):
            sign_ins.add_metric([method, outcome], number)
        yield sign_ins

    def _clients(self) -> Iterator[Metric]:
        stream, mcp = self.stream, self.mcp
        yield GaugeMetricFamily("bzzz_event_clients", "Clients of the event port.", value=stream.clients)
        events = CounterMetricFamily("bzzz_events", "Events since the service started.", labels=["type"])
        for kind in ("alert", "cluster", "node", "run"):
            events.add_metric([kind], stream.journal.counts[kind])
        yield events
        dropped = CounterMetricFamily(
            "bzzz_event_clients_dropped", "Clients of the event port that were sent away, and why.", labels=["reason"]
        )
        for reason in ("behind", "full", "slow", "unwelcome"):
            dropped.add_metric([reason], stream.dropped[reason])
        yield dropped
        yield GaugeMetricFamily("bzzz_mcp_requests_running", "Requests of MCP clients that are under way.", value=mcp.running)
        calls = CounterMetricFamily("bzzz_mcp_calls", "Tools called by MCP clients.", labels=["tool", "outcome"])
        for (tool, outcome), number in sorted(mcp.calls.items()):
            calls.add_metric([tool, outcome], number)
        yield calls

    def _gpus(self) -> Iterator[Metric]:
        labels = ["uuid", "index", "model"]
        families = {
            "memory_total_mib": GaugeMetricFamily("bzzz_gpu_memory_total_bytes", "Memory of the GPU.", labels=labels),
            "memory_used_mib": GaugeMetricFamily("bzzz_gpu_memory_used_bytes", "Memory in use on the GPU.", labels=labels),
            "temperature_c": GaugeMetricFamily("bzzz_gpu_temperature_celsius", "Temperature of the GPU.", labels=labels),
        }
        for device in (self.service.detector.facts.get("gpu") or {}).get("devices") or []:
            for key, family in families.items():
                value = device.get(key)
                if isinstance(value, (int, float)):
                    scale = 1024 * 1024 if key.endswith("_mib") else 1
                    family.add_metric([str(device.get(label) or "") for label in labels], value * scale)
        yield from families.values()


def _expiries(settings: Settings) -> Iterator[tuple[str, float]]:
    """Which certificate (node, ca, service) ends when, in seconds since 1970; what cannot be read is left out."""
    tls = settings.tls
    for name, path in (("node", tls.certificate), ("ca", tls.ca), ("service", tls.shown[0])):
        with contextlib.suppress(OSError, ValueError):
            yield name, x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc.timestamp()


def text(service: Service, stream: Stream, mcp: McpServer) -> bytes:
    """Everything in the text format."""
    registry = CollectorRegistry()
    registry.register(_Service(service, stream, mcp))
    ProcessCollector(registry=registry)
    return generate_latest(registry)
