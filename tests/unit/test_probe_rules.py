# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The controller's side of a probe: what is refused, and what outcomes mean."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.bzzz.cluster.plugins.module_utils import benchmark, probe
from hypothesis import given
from hypothesis import strategies as st

GOOD = {"id": "port", "title": "It listens", "remedy": "start it", "listener": {"port": 8080}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"listner": {}, "listener": None}, "unknown key 'listner'; did you mean 'listener'?"),
        ({"titel": "x"}, "unknown key 'titel'; did you mean 'title'?"),
        ({"listener": {"prot": 1}}, "listener has no 'prot'; did you mean 'port'?"),
        ({"listener": {}}, "listener needs 'port'"),
        ({"listener": {"port": "8080"}}, "'port' of listener is to be a whole number, not '8080'"),
        ({"listener": {"port": True}}, "'port' of listener is to be a whole number, not True"),
        ({"listener": {"port": 1, "protocol": "tpc"}}, "'protocol' of listener can't be 'tpc'; did you mean 'tcp'?"),
        ({"listener": None, "file": {"path": "/x", "mode": 0o640}}, "'mode' of file is to be a string (numbers in quotes), not 416"),
        ({"mount": "/"}, "exactly one kind of probe belongs into an entry, not listener, mount"),
        ({"remedy": ""}, "'remedy' is missing or not a string"),
        ({"severity": "error"}, "'severity' is fail or warn, not 'error'"),
        ({"within": 1e9}, "'within' is a number of seconds up to 300"),
    ],
)
def test_what_cannot_be_meant_is_refused(change: dict[str, Any], message: str) -> None:
    entry = {key: value for key, value in {**GOOD, **change}.items() if value is not None}
    with pytest.raises(probe.Refused) as refused:
        probe.understand("service", entry)
    assert str(refused.value).startswith("role service, probe port: ")
    assert message in str(refused.value)


def test_a_refusal_quotes_no_secret() -> None:
    entry = {**{key: value for key, value in GOOD.items() if key != "listener"}, "http": {"url": "http://x", "headers": "Bearer canary"}}
    with pytest.raises(probe.Refused, match=r"'headers' of http is to be a mapping$"):
        probe.understand("r", entry)


def test_a_bare_value_is_the_first_option() -> None:
    entry = {key: value for key, value in GOOD.items() if key != "listener"}
    assert probe.understand("r", {**entry, "packages": ["a"]})["args"] == {"names": ["a"]}
    assert probe.understand("r", {**entry, "mount": "/srv"})["args"] == {"path": "/srv"}
    assert probe.understand("r", {**entry, "unit_property": {"name": "a.service", "MemoryMax": 1}})["args"]["MemoryMax"] == 1


def test_only_what_is_needed_is_sent() -> None:
    entry = probe.understand("r", {**GOOD, "within": 5, "requirement": ["1.2.1", "F6"]})
    assert entry["requirement"] == "1.2.1, F6"
    asked = probe.question("node1", [entry])
    assert asked["modules"] == ["listening"]
    assert asked["probes"] == [{"kind": "listener", "module": "listening", "args": {"port": 8080}, "within": 5}]
    assert probe.question("node1", [entry], check_mode=True)["probes"][0]["within"] == 0


def fail(kind: str = "listener", **more: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    args: Any = {"listener": {"port": 1}, "value": {"seen": 1}, "reach": {"peers": [], "ports": []}, "clock": 1.0, "peers": {"peers": []}}[
        kind
    ]
    entry = probe.understand("r", {"id": "x", "title": "x", "remedy": "On <peer>: allow <port>", kind: args, **more})
    return entry, {"status": "fail", "seen": "nothing", "expected": "something"}


def test_severity_and_check_mode() -> None:
    def status(kind: str, check_mode: bool, **more: Any) -> str:
        entry, found = fail(kind, **more)
        return str(probe.judge("n", [entry], [found], None, check_mode)[0]["status"])

    assert status("listener", False) == "fail"
    assert status("listener", False, severity="warn") == "warn"
    assert status("listener", True) == "skip"
    assert status("listener", True, severity="warn") == "skip"
    assert status("value", True) == "fail"
    entry, found = fail()
    (check,) = probe.judge("n", [entry], [found], None, True)
    assert check["seen"] == "not applied yet (check mode): nothing"


def test_remedy_names_what_it_is_about() -> None:
    entry, found = fail("reach")
    found["about"] = [{"peer": "b", "port": 80}, {"peer": "c", "port": 80}, {"peer": "b", "port": 80}]
    (check,) = probe.judge("n", [entry], [found])
    assert check["remedy"] == "On b: allow 80; On c: allow 80"


@pytest.mark.requirement("1.3.4", part="clock offset")
@pytest.mark.parametrize(("clock", "status"), [((0.2, 0.1), "pass"), ((-3.0, 0.5), "fail"), ((0.9, 0.5), "warn"), ((1.2, 0.5), "warn")])
def test_a_clock_fails_only_when_that_is_sure(clock: tuple[float, float], status: str) -> None:
    entry, found = fail("clock")
    (check,) = probe.judge("n", [entry], [found], clock)
    assert check["status"] == status
    assert check["data"]["clock"] == {"offset_seconds": clock[0], "uncertainty_seconds": clock[1]}


@given(true=st.floats(-1e6, 1e6), out=st.floats(0, 5), back=st.floats(0, 5), work=st.floats(0, 60), began=st.floats(1e9, 2e9))
def test_clock_offset_is_right_within_its_uncertainty(true: float, out: float, back: float, work: float, began: float) -> None:
    received = began + out + true
    offset, doubt = probe.clock_offset(began, received, received + work, began + out + work + back)
    assert abs(offset - true) <= doubt + 1e-5
    assert doubt == pytest.approx((out + back) / 2, abs=1e-5)


def node_checks(node: str, others: list[str], offset: float) -> list[dict[str, Any]]:
    rows = [{"peer": other, "reachable": True, "latency_ms": 0.3, "mtu": 1500} for other in others]
    ports = [{"peer": other, "port": 8080, "state": "open"} for other in others]
    clock = {"offset_seconds": offset, "uncertainty_seconds": 0.05}
    return [{"node": node, "data": {"rows": rows, "clock": clock}}, {"node": node, "data": {"rows": ports}}, {"node": node, "data": {}}]


@pytest.mark.requirement("1.3.4", part="matrix of all nodes")
def test_matrix_of_all_nodes() -> None:
    names = {"a": 0.0, "b": 0.2, "c": -2.0}
    checks = [check for name, offset in names.items() for check in node_checks(name, [other for other in names if other != name], offset)]
    cells = probe.matrix(checks)
    assert cells["a"]["b"] == {
        "ports": {8080: "open"},
        "reachable": True,
        "latency_ms": 0.3,
        "mtu": 1500,
        "clock_offset_seconds": 0.2,
        "clock_uncertainty_seconds": 0.1,
    }
    assert cells["b"]["a"]["clock_offset_seconds"] == -0.2
    assert {node: set(row) for node, row in cells.items()} == {"a": {"b", "c"}, "b": {"a", "c"}, "c": {"a", "b"}}
    assert probe.clocks_apart(cells, 1) == ["a and c are 2.000 s apart", "b and c are 2.200 s apart"]
    assert probe.clocks_apart(cells, 3) == []
    assert probe.matrix([]) == {}


@pytest.mark.requirement("1.3.4", part="MTU both ways")
def test_an_mtu_that_differs_from_way_to_way_is_told_once_a_pair() -> None:
    cells = probe.matrix([check for name in "abc" for check in node_checks(name, [other for other in "abc" if other != name], 0)])
    assert probe.mtus_differ(cells) == []
    cells["b"]["a"]["mtu"] = cells["b"]["c"]["mtu"] = 1400
    cells["c"]["a"]["mtu"] = None
    assert probe.mtus_differ(cells) == [
        "a sends b packets of up to 1500 bytes, b sends a up to 1400",
        "b sends c packets of up to 1400 bytes, c sends b up to 1500",
    ]
    del cells["b"]
    assert probe.mtus_differ(cells) == []


@pytest.mark.requirement("1.3.4", part="packets that are lost without a word")
def test_a_way_that_swallows_large_packets_is_told() -> None:
    cells = probe.matrix([check for name in "ab" for check in node_checks(name, [other for other in "ab" if other != name], 0)])
    for node, peer in ("ab", "ba"):
        cells[node][peer].update(mtu=9000, interface_mtu=9000, mtu_arrives=9000)
    assert probe.mtus_differ(cells) == []
    cells["a"]["b"]["mtu_arrives"] = 1500
    assert probe.mtus_differ(cells) == ["a and b send each other packets of up to 9000 bytes, of which those over 1500 are lost"]
    assert [probe.carried(cells[node][peer]) for node, peer in ("ab", "ba")] == [1500, 9000]
    # The kernel knows of the narrower way, and sends nothing larger.
    cells["a"]["b"]["mtu"] = cells["b"]["a"]["mtu"] = 1500
    assert probe.mtus_differ(cells) == [] and probe.carried(cells["a"]["b"]) == 1500


def test_summary_leads_with_what_is_wrong() -> None:
    entry, found = fail(requirement="1.2.1")
    text = probe.summary("n", probe.judge("n", [entry], [found]))
    assert text == "n: 1 fail\n- fail r/x [1.2.1] x: nothing (expected something)\n  Remedy: On <peer>: allow <port>"


@pytest.mark.requirement("F8", part="minimums")
def test_benchmark_against_minimums() -> None:
    nodes = [{"name": name, "address": f"10.0.0.{at}"} for at, name in enumerate(("a", "b", "c"))]
    args = {
        "disk": {"path": "/srv", "min_mib_per_second": 100},
        "http": {"url": "https://x", "ca": None, "max_median_ms": 10},
        "network": {"peers": nodes, "port": 3000, "min_mib_per_second": 0},
        "cpu": None,
    }
    wanted, limits = benchmark.payload("b", args)
    assert wanted == {
        "disk": {"path": "/srv"},
        "http": {"url": "https://x"},
        "network": {"port": 3000, "name": "c", "address": "10.0.0.2"},
    }
    # A ring: every node sends to one and hears from one.
    assert [benchmark.payload(name, args)[0]["network"]["name"] for name in "abc"] == ["b", "c", "a"]
    assert "network" not in benchmark.payload("a", {"network": {"peers": nodes[:1], "port": 1}})[0]
    figures: dict[str, Any] = {
        "disk": {"mib_per_second": 99.0},
        "http": {"median_ms": 9.0},
        "network": {"mib_per_second": 0.1, "peer": "c"},
    }
    found = {check["id"]: check for check in benchmark.checks("b", "validation", figures, limits)}
    assert {name: check["status"] for name, check in found.items()} == {"bench_disk": "fail", "bench_http": "pass", "bench_network": "pass"}
    assert found["bench_disk"]["seen"] == "99 MiB/s" and found["bench_disk"]["expected"] == "at least 100 MiB/s"
    assert found["bench_network"]["seen"] == "0.1 MiB/s to c"
    (broken,) = benchmark.checks("b", "validation", {"disk": {"error": "OSError: full"}}, {"disk": 0})
    assert broken["status"] == "fail" and broken["seen"] == "OSError: full" and "apply --only 5" in broken["remedy"]


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(
    ANYTHING
    | st.fixed_dictionaries(
        {"id": st.text() | ANYTHING, "title": st.just("t") | ANYTHING, "remedy": st.just("r") | ANYTHING},
        optional=dict.fromkeys(("listener", "http", "file", "unit_property", "packages", "clock"), ANYTHING),
    )
)
def test_any_entry_is_understood_or_refused_by_name(entry: Any) -> None:
    try:
        found = probe.understand("r", entry)
    except probe.Refused as refused:
        assert str(refused).startswith("role r, probe ")
    else:
        assert found["kind"] in probe.KINDS


ROLE_PROBES = sorted((Path(__file__).parents[2] / "roles").glob("*/probes/main.yml"))


@pytest.mark.parametrize("path", ROLE_PROBES, ids=lambda path: path.parent.parent.name)
def test_probes_of_the_roles_are_spelt_right(path: Path) -> None:
    """As far as can be told before templating: a template may still yield the right type."""
    for entry in yaml.safe_load(path.read_text()):
        try:
            probe.understand(path.parent.parent.name, entry)
        except probe.Refused as refused:
            assert re.search(r"' of \w+ (is to be|can't be) .*\{\{", str(refused)), refused
