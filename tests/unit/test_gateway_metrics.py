# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The gateway's metrics: what Prometheus reads, and who may."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import requests
from node_cluster import Authority, free_ports
from prometheus_client.parser import text_string_to_metric_families

from bzzz_setup.gateway.budgets import Invalid, load
from bzzz_setup.gateway.ledger import Call, Ledger, Outcome
from bzzz_setup.gateway.measured import Measures
from bzzz_setup.gateway.settings import Metrics, parse


@pytest.mark.requirement("3.1.4", part="tokens, cost, latency by user, project, model, task as Prometheus reads them, over mutual TLS")
def test_prometheus_reads_usage_and_nobody_else_does(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    authority, other = Authority(tmp_path), Authority(tmp_path / "other")
    certificate, key = map(str, authority.leaf("n1"))
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.sqlite", load({"users": {"anna": {"day_usd": 1}}}), "n1")
    ledger.start()
    measures = Measures()
    call = Call("a", "anna", "search", "coding", "good", 5_000_000)
    with ledger.transaction() as connection:
        ledger.reserve(connection, call)
    measures.ended(call, Outcome(4_000_000, 1000, 100, 200), 1.5)
    (port,) = free_ports(1)
    measures.serve(ledger, Metrics(port, "127.0.0.1", certificate, key, str(authority.ca)))
    url = f"https://127.0.0.1:{port}/metrics"

    with socket.create_connection(("127.0.0.1", port)):  # who says nothing keeps nobody waiting
        text = requests.get(url, cert=(certificate, key), verify=str(authority.ca), timeout=5).text
    found = {
        (sample.name, *(sample.labels.get(name) for name in ("user", "project", "model", "task", "kind"))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("bzzz_ai") and "le" not in sample.labels
    }
    who = ("anna", "search", "good", "coding")
    assert found[("bzzz_ai_cost_usd_total", *who, None)] == 0.004
    assert [found[("bzzz_ai_tokens_total", *who, kind)] for kind in ("in", "out", "cached")] == [1000, 100, 200]
    assert [found[(f"bzzz_ai_latency_seconds_{part}", *who, None)] for part in ("count", "sum")] == [1, 1.5]
    assert 'bzzz_budget_held_usd{name="anna",period="day",scope="user"} 0.005' in text

    strangers = {None, tuple(map(str, other.leaf("n1")))}
    for stranger in strangers:
        with pytest.raises(requests.RequestException):
            requests.get(url, cert=stranger, verify=str(authority.ca), timeout=5)
    with pytest.raises(requests.RequestException):
        requests.get(url.replace("https", "http"), timeout=5)
    # A new certificate is shown without a restart.
    fresh = authority.leaf("n2")
    Path(certificate).write_bytes(fresh[0].read_bytes())
    Path(key).write_bytes(fresh[1].read_bytes())
    assert requests.get(url, cert=(certificate, key), verify=str(authority.ca), timeout=5).ok


def test_half_a_tls_is_refused() -> None:
    with pytest.raises(Invalid, match="half a TLS"):
        parse({"ledger": "sqlite://", "tokens": {"file": "x"}, "metrics": {"port": 1, "certificate": "x"}})
