# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Calls, tokens, costs and budgets as Prometheus metrics, on a port of their own: LiteLLM's hooks can serve none on its."""

from __future__ import annotations

import logging
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, Counter, Histogram, make_wsgi_app
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from .budgets import NANO
from .ledger import Call, Ledger, Outcome
from .settings import Metrics

log = logging.getLogger("bzzz.gateway")
_WHO = ("user", "project", "model", "task")


class Measures:
    """What was counted since the start; budgets are of the ledger."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._calls = Counter("bzzz_ai_calls", "Calls, by how they ended.", [*_WHO, "status"], registry=self.registry)
        self._tokens = Counter("bzzz_ai_tokens", "Tokens: in, of those cached, and out.", [*_WHO, "kind"], registry=self.registry)
        self._cost = Counter("bzzz_ai_cost_usd", "What calls have cost.", _WHO, registry=self.registry)
        self._seconds = Histogram("bzzz_ai_latency_seconds", "From a call's coming to its whole answer.", _WHO, registry=self.registry)

    def refused(self, call: Call) -> None:
        self._calls.labels(call.user, call.project, call.model, call.task, "refused").inc()

    def ended(self, call: Call, outcome: Outcome, seconds: float) -> None:
        who = call.user, call.project, call.model, call.task
        self._calls.labels(*who, outcome.status).inc()
        for kind, number in (("in", outcome.tokens_in), ("out", outcome.tokens_out), ("cached", outcome.tokens_cached)):
            self._tokens.labels(*who, kind).inc(number)
        self._cost.labels(*who).inc(outcome.cost_nano / NANO)
        self._seconds.labels(*who).observe(seconds)

    def serve(self, ledger: Ledger, where: Metrics | None) -> None:
        self.registry.register(_Budgets(ledger))
        if where:
            try:
                server = _Server(where, make_wsgi_app(self.registry))
                threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
            except OSError as error:  # calls are worth more than their figures
                log.error("metrics cannot be served on %s port %s: %s", where.address, where.port, error.strerror)


class _Handler(WSGIRequestHandler):
    timeout = 10

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads who has asked."""


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, where: Metrics, app: Any) -> None:
        self.where = where
        self.address_family = socket.AF_INET6 if ":" in where.address else socket.AF_INET
        super().__init__((where.address, where.port), _Handler)
        self.set_app(app)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """In a thread of its own, so that who does not speak keeps nobody waiting. Certificates are read each time: they change."""
        if self.where.certificate:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.where.client_ca)
            context.minimum_version, context.verify_mode = ssl.TLSVersion.TLSv1_2, ssl.CERT_REQUIRED
            context.load_cert_chain(self.where.certificate, self.where.key)
            request.settimeout(_Handler.timeout)
            request = context.wrap_socket(request, server_side=True)
        try:
            super().finish_request(request, client_address)
        finally:
            request.close()

    def server_bind(self) -> None:
        # Without the look-up of this host's name, which may take its time.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever is not let in, or has gone."""
        log.debug("metrics were not served", exc_info=True)


class _Budgets(Collector):
    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def describe(self) -> list[Metric]:
        return []  # nothing is asked before the first scrape

    def collect(self) -> Iterator[Metric]:
        labels = ["scope", "name", "period"]
        families = [
            GaugeMetricFamily("bzzz_budget_limit_usd", "What may be spent in a period.", labels=labels),
            GaugeMetricFamily("bzzz_budget_spent_usd", "What is spent in this period.", labels=labels),
            GaugeMetricFamily("bzzz_budget_held_usd", "What calls under way, or of unknown outcome, may cost.", labels=labels),
        ]
        answers = GaugeMetricFamily("bzzz_ledger_up", "1 where the ledger answers; without it no call is made.")
        try:
            budgeted, warned = self.ledger.budgeted(), self.ledger.warned()
        except SQLAlchemyError:
            answers.add_metric([], 0)
            yield answers
            return
        answers.add_metric([], 1)
        yield answers
        for limit, spent, held in budgeted:
            for family, amount in zip(families, (limit.nano, spent, held), strict=True):
                family.add_metric([limit.scope.kind, limit.scope.name, limit.period], amount / NANO)
        yield from families
        reached = GaugeMetricFamily("bzzz_budget_warning", "1 when a threshold is reached in this period.", labels=[*labels, "percent"])
        for kind, name, period, percent in warned:
            reached.add_metric([kind, name, period, str(percent)], 1)
        yield reached
