# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The rules, one by one: what they find, what they let pass, and the remedy they give."""

from __future__ import annotations

import base64
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.bzzz.cluster.plugins.module_utils import rules
from ansible_collections.bzzz.cluster.plugins.module_utils.cluster import resolve
from ansible_collections.bzzz.cluster.plugins.module_utils.declaration import load_specs, options_of
from ansible_collections.bzzz.cluster.plugins.module_utils.problems import errors
from ansible_collections.bzzz.cluster.plugins.module_utils.rules import firewall, ranges, ssh
from ansible_collections.bzzz.cluster.plugins.module_utils.rules.network import places
from ansible_collections.bzzz.cluster.plugins.module_utils.rules.ports import own_ports
from ansible_collections.bzzz.cluster.plugins.module_utils.rules.resources import mount_of
from ansible_collections.bzzz.cluster.plugins.module_utils.rules.ssh import judge_key
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from declarations import about, cluster_of, declared_of, facts_of, interface, judge, judge_on, listener, route
from hypothesis import given, settings
from hypothesis import strategies as st

ETH0 = interface("eth0", "10.0.0.11/24", "fe80::1/64")
NODE = facts_of(ETH0, routes=(route("default", "eth0", "10.0.0.1"), route("10.0.0.0/24", "eth0")))
ONE = cluster_of(1)


def test_a_plain_declaration_has_no_problems() -> None:
    assert judge() == []
    assert judge_on({"n1": NODE}) == []


# --- cluster ---


def test_an_inventory_without_nodes() -> None:
    assert [found["option"] for found in judge(cluster=cluster_of(0))] == ["bzzz"]


@pytest.mark.parametrize(("name", "better"), [("My Cluster", "my-cluster"), ("bzzz_1", "bzzz-1"), ("-", "bzzz"), ("x" * 70, "x" * 42)])
def test_cluster_names(name: str, better: str) -> None:
    (found, *_) = about(judge({"declaration_cluster_name": name}), "declaration_cluster_name")
    assert found["remedy"] == f"Write {better}."
    assert judge({"declaration_cluster_name": better}) == []


def test_node_names_and_addresses() -> None:
    cluster = cluster_of()
    cluster["nodes"][0]["name"] = "gpu_1"
    cluster["nodes"][1]["address"] = None
    cluster["nodes"][2]["name"] = long = "N3." + "x" * 61 + ".y"
    cluster["coordinators"] = ["gpu_1"]
    problems = judge(cluster=cluster)
    found = [(one["option"], one["node"]) for one in problems]
    assert found == [("inventory_hostname", "gpu_1"), ("inventory_hostname", long), ("network_address", "n2")]
    assert "gpu-1" in problems[0]["remedy"]
    assert problems[1]["remedy"] == "Name the node N3 in the inventory."
    assert "host_vars/n2.yml" in problems[2]["remedy"]


def test_names_that_differ_in_case_only() -> None:
    cluster = cluster_of(2, coordinators=1)
    cluster["nodes"][1]["name"] = "N1"
    (found,) = judge(cluster=cluster)
    assert found["node"] == "n1, N1"


def test_two_nodes_with_one_address() -> None:
    cluster = cluster_of()
    cluster["nodes"][2]["address"] = "10.0.0.11"
    (found,) = judge(cluster=cluster)
    assert (found["option"], found["value"], found["node"]) == ("network_address", "10.0.0.11", "n1, n3")


def test_a_loopback_address_is_no_use_to_peers() -> None:
    cluster = cluster_of(address="127.0.0.1")
    assert [found["node"] for found in judge(cluster=cluster)] == ["n1", "n2", "n3"]
    assert judge(cluster=cluster_of(1, address="127.0.0.1")) == [], "a cluster of one needs no other"


def test_what_must_be_the_same_everywhere() -> None:
    (found,) = judge(n2={"coordination_lease_seconds": 9})
    assert found["option"] == "coordination_lease_seconds"
    assert "n2 has another value than n1" in found["message"]


def test_names_are_resolved_side_by_side() -> None:
    assert resolve(["localhost", "10.0.0.1", "no such host"]) == {"localhost": "127.0.0.1", "10.0.0.1": "10.0.0.1"}
    assert resolve([]) == {}


# --- network ---


@pytest.mark.requirement("1.1.3")
@pytest.mark.parametrize(
    ("subnet", "says", "remedy"),
    [
        ("10.0.0.5/24", "host bits", "Write 10.0.0.0/24."),
        ("10.0.0.0/33", "/0 to /32", "192.168.1.0/24"),
        ("abc", "no IPv4 or IPv6 address", "192.168.1.0/24"),
        ("fd00::5/64", "host bits", "Write fd00::/64."),
    ],
)
def test_subnet_form(subnet: str, says: str, remedy: str) -> None:
    found = about(judge({"network_subnet": subnet}), "network_subnet")
    assert [one["node"] for one in found] == ["n1", "n2", "n3"]
    assert says in found[0]["message"]
    assert remedy in found[0]["remedy"]


@pytest.mark.requirement("1.1.2", part="declaration")
@pytest.mark.parametrize("subnet", ["10.0.0.0/24", "10.0.0.0/28", "10.0.0.0/8"])
def test_any_subnet_that_holds_the_nodes(subnet: str) -> None:
    assert judge({"network_subnet": subnet}) == []
    declared, _ = declared_of(cluster_of(), {"network_subnet": subnet})
    assert {roles["network"]["subnet"] for roles in declared.values()} == {subnet}


@pytest.mark.requirement("1.1.2", part="declaration")
def test_an_ipv6_subnet() -> None:
    cluster = cluster_of(1, address="fd00::11")
    facts = {"n1": facts_of(interface("eth0", "10.0.0.11/24", "fd00::11/64"))}
    assert judge({"network_subnet": "fd00::/64"}, cluster) == []
    assert judge_on(facts, {"network_subnet": "fd00::/64"}, cluster) == []
    declared, _ = declared_of(cluster, {"network_subnet": "fd00::/64"})
    assert places(declared, cluster, facts)["n1"] == {"subnet": "fd00::/64", "interface": "eth0", "address": "fd00::11"}


@pytest.mark.parametrize("subnet", ["0.0.0.0/0", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "::1/128", "fe80::/64"])
def test_networks_that_cannot_be_a_clusters(subnet: str) -> None:
    assert "cannot be a cluster's" in about(judge({"network_subnet": subnet}), "network_subnet")[0]["message"]


def test_a_subnet_without_room() -> None:
    found = about(judge({"network_subnet": "10.0.0.10/31"}), "network_subnet")
    assert "room for 2 hosts" in found[0]["message"]


@pytest.mark.requirement("1.1.12", part="address inside the declared subnet")
def test_an_address_outside_of_the_subnet() -> None:
    found = judge({"network_subnet": "10.0.1.0/24"})
    assert len(found) == 3
    assert "10.0.0.11 is not inside" in found[0]["message"]
    assert "network_address in host_vars/n1.yml" in found[0]["remedy"]


@pytest.mark.parametrize(
    ("name", "option", "value"), [("network_interface", "eth0 eth1", None), ("network_address", "10.0.0.5/24", "Write 10.0.0.5.")]
)
def test_interface_and_address_form(name: str, option: str, value: str | None) -> None:
    found = about(judge({name: option}), name)
    assert found
    assert value is None or found[0]["remedy"] == value


@pytest.mark.requirement("1.1.10", part="declaration")
def test_subnet_and_interface_are_settled_from_facts() -> None:
    def placed(given: dict[str, Any], facts: dict[str, Any], cluster: Any = ONE) -> dict[str, Any]:
        declared, _ = declared_of(cluster, given)
        return dict(places(declared, cluster, {"n1": facts})["n1"])

    two = facts_of(
        interface("eth0", "10.0.0.11/24"), interface("eth1", "10.9.0.11/24"), interface("docker0", "172.17.0.1/16", kind="bridge")
    )
    assert placed({}, two) == {"subnet": "10.0.0.0/24", "interface": "eth0", "address": "10.0.0.11"}
    assert placed({"network_subnet": "10.9.0.0/16"}, two) == {"subnet": "10.9.0.0/16", "interface": "eth1", "address": "10.0.0.11"}
    assert placed({"network_interface": "eth1"}, two)["subnet"] == "10.9.0.0/24"
    isolated = facts_of(interface("a0", "10.9.0.11/24"), interface("b0", "10.0.0.11/24"), primary=None)
    assert placed({}, isolated)["interface"] == "b0", "without a default route, the one that Ansible uses"
    dual = facts_of(interface("eth0", "192.168.7.7/24", "10.0.0.11/24", "fd00::11/64"))
    assert placed({}, dual)["subnet"] == "10.0.0.0/24", "the network of the node's own address"
    assert placed({}, facts_of(primary=None)) == {"subnet": None, "interface": None, "address": "10.0.0.11"}
    alone = cluster_of(1, address="127.0.0.1")
    assert placed({}, two, alone) == {"subnet": "10.0.0.0/24", "interface": "eth0", "address": "10.0.0.11"}


@pytest.mark.requirement("1.1.12", part="rules")
@pytest.mark.parametrize(
    ("given", "facts", "option", "says"),
    [
        ({"network_interface": "eth7"}, NODE, "network_interface", "has no interface eth7. It has: eth0 (10.0.0.11/24"),
        ({}, facts_of(interface("eth0", "10.0.0.11/24", up=False, state="down")), "network_interface", "eth0 is down"),
        ({}, facts_of(interface("eth0", "10.0.0.11/24", carrier=False, state="down")), "network_interface", "has no carrier"),
        ({}, facts_of(interface("eth0"), primary=None), "network_interface", "No interface of the node has an address"),
        ({"network_subnet": "10.0.0.0/24"}, facts_of(interface("eth0", "10.1.0.11/24")), "network_subnet", "no address inside 10.0.0.0/24"),
        (
            {"network_interface": "eth1", "network_subnet": "10.0.0.0/24"},
            facts_of(interface("eth0", "10.0.0.11/24"), interface("eth1", "10.1.0.11/24")),
            "network_interface",
            "eth1 has no address inside",
        ),
        ({}, facts_of(interface("eth0", "10.0.0.99/24")), "network_address", "10.0.0.11 is not on eth0"),
        ({}, facts_of(interface("eth0", "10.5.0.9/24"), interface("eth1", "10.0.0.11/24")), "network_address", "it is on eth1"),
    ],
)
def test_interfaces_as_the_node_has_them(given: dict[str, Any], facts: dict[str, Any], option: str, says: str) -> None:
    (found,) = errors(judge_on({"n1": facts}, given, ONE))
    assert (found["option"], found["node"]) == (option, "n1")
    assert says in found["message"]


def test_the_remedy_for_a_translated_address_is_the_line_to_write() -> None:
    (found,) = judge_on({"n1": facts_of(interface("eth0", "172.31.0.9/20"))}, {}, cluster_of(1, address="203.0.113.5"))
    assert "network_address: 172.31.0.9 in host_vars/n1.yml" in found["remedy"]


@pytest.mark.requirement("1.1.1", part="different subnets are reported")
def test_nodes_in_different_subnets() -> None:
    cluster = cluster_of(2, coordinators=1)
    cluster["nodes"][1]["address"] = "10.1.0.12"
    (found,) = judge_on({"n1": NODE, "n2": facts_of(interface("ens3", "10.1.0.12/24"), primary="ens3")}, {}, cluster)
    assert (found["severity"], found["node"]) == ("warning", None)
    assert "n1 10.0.0.0/24 (eth0), n2 10.1.0.0/24 (ens3)" in found["message"]


@pytest.mark.requirement("1.1.4", part="rules")
@pytest.mark.parametrize(
    ("other", "routes", "severity", "network", "name"),
    [
        (interface("docker0", "10.0.0.129/25", kind="bridge"), (), "error", "10.0.0.128/25", "docker0"),
        (interface("docker0", "10.0.0.1/16", kind="bridge", state="down"), (), "error", "10.0.0.0/16", "docker0"),
        (interface("br-1a2b", "10.0.0.1/24", kind="bridge"), (), "error", "10.0.0.0/24", "br-1a2b"),
        (interface("wlan0", "10.0.0.50/24", kind="wifi"), (), "warning", "10.0.0.0/24", "wlan0"),
        (interface("tun0", "10.8.0.2/32", kind="tun"), (route("10.0.0.0/8", "tun0"),), "warning", "10.0.0.0/8", "tun0"),
        (interface("tun0", "10.8.0.2/32", kind="tun"), (route("10.0.0.64/26", "tun0", "10.8.0.1"),), "error", "10.0.0.64/26", "tun0"),
        (interface("eth1"), (route("10.0.0.128/28", "eth0", "10.0.0.254"),), "error", "10.0.0.128/28", "eth0"),
    ],
)
def test_networks_that_overlap(other: dict[str, Any], routes: tuple[dict[str, Any], ...], severity: str, network: str, name: str) -> None:
    (found,) = judge_on({"n1": facts_of(ETH0, other, routes=(route("default", "eth0", "10.0.0.1"), *routes))}, {}, ONE)
    assert (found["option"], found["severity"], found["node"]) == ("network_subnet", severity, "n1")
    assert network in found["message"] and name in found["message"] and "n1" in found["message"]
    assert ("daemon.json" in found["remedy"]) == name.startswith(("docker", "br-"))


@pytest.mark.requirement("1.1.4", part="rules")
def test_networks_that_do_not() -> None:
    beside = (
        interface("docker0", "172.17.0.1/16", kind="bridge"),
        interface("tun0", "10.8.0.2/32", "fd00::1/64", kind="tun"),
        interface("lo2", "10.0.0.200/32", kind="loopback"),
    )
    vpn = (route("0.0.0.0/1", "tun0"), route("128.0.0.0/1", "tun0"), route("10.0.0.0/24", "eth0"))
    assert judge_on({"n1": facts_of(ETH0, *beside, routes=vpn)}, {}, ONE) == []


@pytest.mark.requirement("1.1.4", part="rules")
def test_a_bridge_on_one_node_in_the_network_of_another() -> None:
    cluster = cluster_of(2, coordinators=1)
    cluster["nodes"][1]["address"] = "192.168.1.12"
    bridge = interface("docker0", "10.0.0.1/20", kind="bridge")
    found = judge_on({"n1": NODE, "n2": facts_of(interface("eth0", "192.168.1.12/24"), bridge)}, {}, cluster)
    assert [(one["severity"], one["node"]) for one in found] == [("warning", None), ("error", "n2")]


@pytest.mark.requirement("1.1.4", part="rules")
def test_the_way_out_of_a_node_that_is_a_container_is_no_network_of_its_own() -> None:
    """There eth0 is a veth. n2 is in the cluster by another interface, and its way out is in n1's network."""
    cluster = cluster_of(2, coordinators=1)
    cluster["nodes"][1]["address"] = "10.1.0.12"
    node = facts_of(interface("eth0", "10.0.0.12/24", kind="veth"), interface("eth1", "10.1.0.12/24", kind="veth"))
    found = judge_on({"n1": NODE, "n2": node}, {}, cluster, n2={"network_interface": "eth1"})
    assert [(one["severity"], one["node"]) for one in found] == [("warning", None), ("warning", "n2")]


# --- ports ---

PORTS = ["service_port", "service_mcp_port", "service_web_port", "service_websocket_port", "coordination_client_port"]


@pytest.mark.requirement("1.2.1", part="form")
@pytest.mark.requirement("1.2.2", part="form")
@pytest.mark.requirement("1.2.3", part="form")
@pytest.mark.requirement("1.2.4", part="form")
@pytest.mark.parametrize("option", [name for name in options_of(load_specs()) if name.endswith("_port")])
@pytest.mark.parametrize("port", [0, -1, 65536, 10**30])
def test_ports_that_do_not_exist(option: str, port: int) -> None:
    found = about(judge({option: port}, ONE), option)
    assert [one["value"] for one in found] == [port]
    assert ("1 or more" if port < 1 else "65535 or less") in found[0]["remedy"]


@pytest.mark.requirement("1.2.1", part="default")
@pytest.mark.requirement("1.2.2", part="default")
@pytest.mark.requirement("1.2.3", part="default")
@pytest.mark.requirement("1.2.4", part="default")
def test_default_ports() -> None:
    service = declared_of(ONE, {})[0]["n1"]["service"]
    assert (service["port"], service["mcp_port"], service["web_port"], service["websocket_port"]) == (8080, 3000, 8080, 8081)


@pytest.mark.requirement("1.2.6", part="inside the configuration")
@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(PORTS, 2)))
def test_no_two_ports_may_be_one_except_service_and_web(first: str, second: str) -> None:
    found = judge({first: 7000, second: 7000}, ONE)
    if {first, second} == {"service_port", "service_web_port"}:
        assert found == []
    else:
        assert {one["option"] for one in found} <= {first, second} and found
        assert "7001 is free" in found[0]["remedy"]


@pytest.mark.requirement("1.2.3", part="may share or not")
def test_service_and_web_port_may_differ_too() -> None:
    assert judge({"service_web_port": 9443}, ONE) == []


@pytest.mark.parametrize(("option", "port", "other"), [("service_port", 22, "ansible_port"), ("service_mcp_port", 11434, "ollama_port")])
def test_ports_of_others(option: str, port: int, other: str) -> None:
    found = judge({option: port}, ONE)
    assert other in json.dumps(found)


@pytest.mark.requirement("1.2.5", part="operator's ranges")
def test_reserved_ranges() -> None:
    (found,) = judge({"network_reserved_ports": "2900-3100, 3101"}, ONE)
    assert (found["option"], found["value"]) == ("service_mcp_port", 3000)
    assert "2900-3100" in found["message"]
    assert "3102 is free" in found["remedy"]
    (wrong,) = judge({"network_reserved_ports": ["6100-6000"]}, ONE)
    assert wrong["remedy"] == "Write 6000-6100."


@pytest.mark.requirement("1.2.5", part="kernel's ranges")
def test_ranges_of_the_kernel() -> None:
    facts = facts_of(ETH0, ports={"reserved": ["3000", "3001-3005"]})
    (found,) = judge_on({"n1": facts}, {}, ONE)
    assert (found["option"], found["severity"]) == ("service_mcp_port", "error")
    assert "ip_local_reserved_ports" in found["message"] and "3006 is free" in found["remedy"]
    (found,) = judge_on({"n1": facts_of(ETH0)}, {"service_mcp_port": 40000}, ONE)
    assert found["severity"] == "warning"
    assert "32768 to 60999" in found["message"] and "61000 is free" in found["remedy"]


@pytest.mark.requirement("1.2.6", part="listeners of others")
def test_a_port_that_somebody_else_holds() -> None:
    facts = facts_of(ETH0, listeners=(listener(8081), listener(8082, "python3", None, "127.0.0.1")))
    found = about(judge_on({"n1": facts}, {}, ONE), "service_websocket_port")
    assert [one["severity"] for one in found] == ["error"]
    assert "nginx (pid 4711, unit nginx.service) on 0.0.0.0" in found[0]["message"]
    assert "8083 is free" in found[0]["remedy"]
    assert "systemctl disable --now nginx.service" in found[0]["remedy"]


@pytest.mark.requirement("1.2.6", part="our own listeners are no clash")
@pytest.mark.parametrize(
    "unit", ["bzzz.service", "bzzz-node.service", "bzzz-etcd.service", "etcd.service", "prometheus-node-exporter.service"]
)
def test_our_own_listeners_are_no_clash(unit: str) -> None:
    listeners = tuple(listener(port, "x", unit) for port in (8080, 2379, 2380, 9100))
    assert judge_on({"n1": facts_of(ETH0, listeners=listeners, system={"sets": ["coordination", "metrics"]})}, {}, ONE) == []


@pytest.mark.requirement("1.2.6", part="services of packages that were there before")
def test_an_etcd_that_was_there_before_is_not_taken_from_its_operator() -> None:
    """On whatever port it is; once the set has begun to land, the unit is the cluster's."""
    heard = (listener(2379, "etcd", "etcd.service", "127.0.0.1"), listener(4001, "etcd", "etcd.service", "127.0.0.1"))
    for listeners in (heard, heard[1:]):
        (found,) = judge_on({"n1": facts_of(ETH0, listeners=listeners, system={"sets": ["metrics"]})}, {}, ONE)
        assert (found["option"], found["severity"], found["node"]) == ("coordinators", "error", "n1")
        assert "etcd.service ran here before the cluster came" in found["message"] and "stop and disable" in found["message"]
        assert all(str(one["port"]) in found["message"] for one in listeners)
        assert "another node" in found["remedy"] and "systemctl disable --now etcd.service" in found["remedy"]
    assert judge_on({"n1": facts_of(ETH0, listeners=heard, system={"sets": ["coordination"]})}, {}, ONE) == []
    # The remedy holds: where no coordinator is, neither unit nor ports are wanted.
    assert judge_on({"n4": facts_of(interface("eth0", "10.0.0.14/24"), listeners=heard)}, {}, cluster_of(4)) == []
    (found,) = judge_on(
        {"n4": facts_of(interface("eth0", "10.0.0.14/24"), listeners=(listener(9100, "etcd", "etcd.service"),))}, {}, cluster_of(4)
    )
    assert found["option"] == "metrics_node_exporter_port" and "unit etcd.service" in found["message"]


@pytest.mark.requirement("1.2.6", part="services of packages that were there before")
@pytest.mark.parametrize("port", [9100, 9111])
def test_a_node_exporter_that_was_there_before_is_not_taken_from_its_operator(port: int) -> None:
    heard = (listener(port, "prometheus-node-exporter", "prometheus-node-exporter.service", "127.0.0.1"),)
    (found,) = judge_on({"n1": facts_of(ETH0, listeners=heard, system={"sets": ["coordination"]})}, {}, ONE)
    assert (found["option"], found["severity"], found["node"]) == ("metrics_node_exporter_port", "error", "n1")
    assert f"on port {port}" in found["message"]
    assert "systemctl disable --now prometheus-node-exporter.service" in found["remedy"] and "originals" in found["remedy"]
    assert judge_on({"n1": facts_of(ETH0, listeners=heard, system={"sets": ["metrics"]})}, {}, ONE) == []


def test_the_port_trials_own_listeners_are_no_clash() -> None:
    assert judge_on({"n1": facts_of(ETH0, listeners=(listener(8080, "bzzz-listen", "session-1.scope"),))}, {}, ONE) == []


def test_a_listener_that_could_not_be_read_is_foreign() -> None:
    found = about(judge_on({"n1": facts_of(ETH0, listeners=({**listener(8080, None, None), "pid": None},))}, {}, ONE), "service_port")
    assert "a program that could not be read on 0.0.0.0" in found[0]["message"]


def test_udp_and_an_existing_ollama_are_no_clash() -> None:
    facts = facts_of(
        ETH0, listeners=(listener(8080, protocol="udp", where="127.0.0.1"), listener(11434, "ollama", "ollama.service", "127.0.0.1"))
    )
    assert judge_on({"n1": facts}, {}, ONE) == []


def test_every_port_option_is_known_by_its_name() -> None:
    declared, _ = declared_of(ONE, {})
    assert set(own_ports(declared["n1"], True, "n1")) == {*PORTS, "coordination_peer_port", "metrics_node_exporter_port"}
    assert set(own_ports(declared["n1"], False, "n1")) == {*PORTS, "metrics_node_exporter_port"} - {"coordination_client_port"}


# --- firewall ---


@pytest.mark.parametrize("option", ["firewall_ssh_sources", "firewall_web_sources"])
def test_sources_are_networks(option: str) -> None:
    (found,) = judge({option: ["10.0.0.0/8", "10.0.0.5", "fd00::/8"]}, ONE)
    assert (found["option"], found["value"], found["remedy"]) == (option, "10.0.0.5", "Write 10.0.0.5/32.")


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("443", "Write 443/tcp."),
        ("443/sctp", "Write 443/tcp."),
        ("6100-6000/tcp", "Write 6000-6100."),
        ("6000:6100/udp", "Write 6000-6100/udp."),
        ("http", "443/tcp"),
        ("443/TCP", "Write 443/tcp."),
        ("6000 - 6100/udp", "Write 6000-6100/udp."),
        ("0443/tcp", "Write 443/tcp."),
    ],
)
def test_open_ports_form(text: str, remedy: str) -> None:
    (found,) = judge({"firewall_open_ports": ["443/tcp", "6000-6100/udp", text]}, ONE)
    assert found["value"] == text
    assert remedy in found["remedy"]


def test_extra_rules_need_nftables_and_stay_in_their_line() -> None:
    rule = "ip saddr { 10.1.0.0/16, 10.2.0.0/16 } tcp dport 8443 accept"
    assert judge({"firewall_extra_rules": [rule], "firewall_backend": "nftables"}, ONE) == []
    for backend in ("auto", "ufw", "firewalld", "iptables"):
        (found,) = judge({"firewall_extra_rules": [rule], "firewall_backend": backend}, ONE)
        assert "nftables" in found["remedy"]
    for bad in ("accept\nflush ruleset", "accept; drop", "} chain x {", 'include "/etc/passwd"'):
        assert len(judge({"firewall_extra_rules": [bad], "firewall_backend": "nftables"}, ONE)) == 1, bad


@pytest.mark.requirement("1.3.1", part="the admin host is not shut out")
@pytest.mark.parametrize(
    ("admin", "sources", "cut"),
    [
        ("10.0.0.2", ["10.1.0.0/16"], True),
        ("::ffff:10.0.0.2", ["10.1.0.0/16"], True),
        ("fd00::2", ["10.0.0.0/8"], True),
        ("10.0.0.2", ["10.1.0.0/16", "10.0.0.0/24"], False),
        ("::ffff:10.0.0.2", ["10.0.0.0/24"], False),
        ("10.0.0.2", [], False),
        (None, ["10.1.0.0/16"], False),
        ("127.0.0.1", ["10.1.0.0/16"], False),
    ],
)
def test_ssh_sources_keep_the_admin_host_in(admin: str | None, sources: list[str], cut: bool) -> None:
    facts = {"n1": facts_of(ETH0, network={"admin_address": admin})}
    found = judge_on(facts, {"firewall_ssh_sources": sources}, ONE)
    assert [one["severity"] for one in found] == ["error"] * cut
    assert not cut or "SSH would be cut" in found[0]["message"]
    assert judge_on(facts, {"firewall_ssh_sources": sources, "firewall_mode": "off"}, ONE) == []


@pytest.mark.requirement("1.3.1", part="a firewall of somebody else's is not fought")
@pytest.mark.parametrize(
    ("declared", "tool", "active", "said"),
    [
        ("auto", "ufw", ["ufw"], None),
        ("auto", "firewalld", ["firewalld"], None),
        ("auto", "nftables", [], None),
        ("iptables", "nftables", [], None),
        ("nftables", "ufw", [], None),
        ("nftables", "ufw", ["ufw"], "ufw disable"),
        ("iptables", "firewalld", ["firewalld"], "systemctl disable --now firewalld"),
        ("ufw", "firewalld", ["firewalld"], "firewall_backend to firewalld or auto"),
        ("auto", "firewalld", ["firewalld", "ufw"], "ufw disable"),
        ("firewalld", "ufw", [], "systemctl enable --now firewalld"),
    ],
)
def test_another_firewall_in_force_is_not_fought(declared: str, tool: str, active: list[str], said: str | None) -> None:
    facts = {"n1": facts_of(ETH0, system={"firewall": {"tool": tool, "active": active}})}
    found = judge_on(facts, {"firewall_backend": declared}, ONE)
    assert [(one["severity"], one["option"], one["node"]) for one in found] == [("error", "firewall_backend", "n1")] * (said is not None)
    assert said is None or said in found[0]["remedy"]
    for mode in ("manual", "off"):
        assert judge_on(facts, {"firewall_backend": declared, "firewall_mode": mode}, ONE) == []


def test_what_the_rules_are_made_with() -> None:
    options = declared_of(ONE, {})[0]["n1"]
    for tool in ("ufw", "firewalld", "nftables", "iptables"):
        assert firewall.backend(options, facts_of(ETH0, system={"firewall": {"tool": tool, "active": []}})) == tool
    assert firewall.backend(options, facts_of(ETH0)) == "nftables"  # facts of an older journal
    assert firewall.backend(declared_of(ONE, {"firewall_backend": "iptables"})[0]["n1"], NODE) == "iptables"


def test_peers_beyond_a_router_are_let_in_by_their_addresses() -> None:
    cluster = cluster_of(4)
    for node, address in zip(cluster["nodes"][1:], ("192.0.2.9", "2001:db8::9", None)):
        node["address"] = address
    assert firewall.sources("10.0.0.0/24", cluster["nodes"]) == ["10.0.0.0/24", "192.0.2.9", "2001:db8::9"]
    assert firewall.sources(None, cluster["nodes"]) == ["10.0.0.11", "192.0.2.9", "2001:db8::9"]


def test_listeners_that_the_firewall_would_close() -> None:
    listeners = (
        listener(80),
        listener(80, where="::"),
        listener(53, "dnsmasq", "dnsmasq.service", protocol="udp"),
        listener(22, "sshd", "ssh.service"),
        listener(5432, "postgres", where="127.0.0.1"),
        listener(443),
        listener(68, "dhclient", protocol="udp"),
        listener(8080, "bzzz-node", "bzzz.service"),
    )
    (found,) = judge_on({"n1": facts_of(ETH0, listeners=listeners)}, {"firewall_open_ports": ["443/tcp"]}, ONE)
    assert (found["severity"], found["option"]) == ("warning", "firewall_open_ports")
    assert "80/tcp (nginx, unit nginx.service), 53/udp (dnsmasq, unit dnsmasq.service)." in found["message"]
    assert "[80/tcp, 53/udp]" in found["remedy"]
    for mode in ("off", "manual"):
        assert judge_on({"n1": facts_of(ETH0, listeners=listeners)}, {"firewall_mode": mode}, ONE) == []
    adding = {"firewall": {"tool": "firewalld", "active": ["firewalld"]}}
    assert judge_on({"n1": facts_of(ETH0, listeners=listeners, system=adding)}, {}, ONE) == []


def test_what_announces_nodes_is_not_closed() -> None:
    facts = {"n1": facts_of(ETH0, listeners=(listener(5353, "avahi-daemon", "avahi-daemon.service", protocol="udp"),))}
    assert "5353/udp" in judge_on(facts, {}, ONE)[0]["message"]
    assert judge_on(facts, {"network_announce": True}, ONE) == []


@pytest.mark.requirement("1.3.4", part="what is needed outside: form")
@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("openai", "Write openai:443 or https://openai"),
        ("api.openai.com", "Write api.openai.com:443 or https://api.openai.com"),
        ("api.openai.com/v1", "Write api.openai.com:443 or https://api.openai.com"),
        ("api.openai.com:443/v1", "Write https://api.openai.com:443/v1, or api.openai.com:443."),
        ("2001:db8::1", "Write for example"),
        ("ftp://there.test/", "'ftp' addresses are not tried."),
        ("there.test:70000", "Write for example"),
        ("there.test:0", "There is no port 0."),
        ("https://there.test/a b", "Write for example"),
        ("https:///v1", "Write for example"),
        ("", "Write for example"),
        ("https://me:canary@there.test/", "It holds a user or a password"),
    ],
)
def test_what_is_needed_outside(target: str, says: str) -> None:
    (found,) = judge({"network_egress": ["packages", target]}, ONE)
    assert found["option"] == "network_egress" and says in f"{found['message']} {found['remedy']}"
    assert "canary" not in str(found)


def test_what_is_needed_outside_has_two_forms_and_two_words() -> None:
    targets = [
        "packages",
        "time",
        "https://api.openai.com",
        "http://10.1.0.9:8080/x?y=z",
        "[2001:db8::1]:25",
        "there.test:4460",
        "10.1.0.9:25",
    ]
    assert judge({"network_egress": targets}, ONE) == []
    assert judge({"network_egress": []}, ONE) == []


@pytest.mark.requirement("3.3.3", part="one that others use is not cut off without a word")
@pytest.mark.parametrize("where", ["0.0.0.0", "::", "10.0.0.11"])
def test_an_ollama_that_others_use(where: str) -> None:
    facts = {"n1": facts_of(ETH0, listeners=(listener(11434, "ollama", "ollama.service", where),))}
    (found,) = judge_on(facts, {}, ONE)
    assert (found["severity"], found["option"], found["node"]) == ("warning", "firewall_open_ports", "n1")
    assert "11434/tcp (ollama, unit ollama.service)" in found["message"] and "firewall_open_ports: [11434/tcp]" in found["remedy"]
    assert judge_on(facts, {"firewall_open_ports": ["11434/tcp"]}, ONE) == []


@pytest.mark.requirement("1.3.1", part="ports that Docker publishes")
@pytest.mark.parametrize("backend", ["nftables", "iptables", "ufw", "firewalld"])
def test_what_docker_publishes_is_told_to_be_open_not_shut(backend: str) -> None:
    published = [
        {"protocol": "tcp", "port": 8888, "container": "web", "filtered": False},
        {"protocol": "udp", "port": 5353, "container": "names", "filtered": False},
    ]
    system: dict[str, Any] = {
        "container_engine": {"name": "docker", "published": published},
        "firewall": {"tool": backend, "active": [backend] if backend in ("ufw", "firewalld") else []},
    }
    facts = {"n1": facts_of(ETH0, listeners=(listener(8888, "docker-proxy", "docker.service"),), system=system)}
    (found,) = judge_on(facts, {}, ONE)
    assert (found["severity"], found["option"], found["node"]) == ("warning", "firewall_open_ports", "n1")
    assert "8888/tcp (container web), 5353/udp (container names)" in found["message"] and "DOCKER-USER" in found["remedy"]
    assert judge_on(facts, {"firewall_open_ports": ["8888/tcp", "5353/udp"]}, ONE) == []
    assert judge_on(facts, {"firewall_mode": "off"}, ONE) == []
    system["container_engine"]["published"] = [{**one, "filtered": True} for one in published]
    assert judge_on({"n1": facts_of(ETH0, listeners=facts["n1"]["bzzz_ports"]["listeners"], system=system)}, {}, ONE) == []


def test_an_etcd_of_a_worker_is_closed_with_a_warning() -> None:
    facts = {"n4": facts_of(interface("eth0", "10.0.0.14/24"), listeners=(listener(2379, "etcd", "etcd.service"),))}
    (found,) = judge_on(facts, {}, cluster_of(4))
    assert found["severity"] == "warning" and "2379/tcp (etcd, unit etcd.service)" in found["message"]


# --- SSH ---


def line(key: Any) -> str:
    return str(key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()) + " someone@somewhere"


GOOD = line(ed25519.Ed25519PrivateKey.generate())
SK = (
    "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIEX/dQ0v4127bEo8eeG1EV0ApO2lWbSnN6RWusn/"
    "NjqIAAAABHNzaDo= demos@siril"
)


@pytest.mark.requirement("2.1.2", part="form, type and strength")
def test_good_public_keys() -> None:
    for key in (GOOD, line(ec.generate_private_key(ec.SECP256R1())), line(rsa.generate_private_key(65537, 3072)), SK, f"  {GOOD}\n"):
        assert judge_key(key) is None, key
    assert judge({"ssh_public_keys": [GOOD], "ssh_key_source": "provided"}, ONE) == []


@pytest.mark.requirement("2.1.2", part="form, type and strength")
@pytest.mark.parametrize(
    ("key", "says"),
    [
        (line(rsa.generate_private_key(65537, 2048)), "2048 bits is too weak"),
        (line(rsa.generate_private_key(65537, 3064)), "3064 bits is too weak"),
        ("ssh-dss AAAAB3NzaC1kc3MAAACB", "DSA"),
        (GOOD.replace("ssh-ed25519", "ssh-rsa", 1), "no public key"),
        (GOOD[:40], "no public key"),
        (GOOD.split()[1], "no public key"),
        ("ssh-ed25519-cert-v01@openssh.com AAAA", "certificate"),
        ("---- BEGIN SSH2 PUBLIC KEY ---- AAAA", "one-line form"),
        (f"{GOOD}\n{GOOD}", "longer than one line"),
        ("", "no public key"),
        ("gibberish", "no public key"),
    ],
)
def test_bad_public_keys(key: str, says: str) -> None:
    (found,) = judge({"ssh_public_keys": [GOOD, key]}, ONE)
    # Without the value, which may be a part of a private key.
    assert (found["severity"], found["option"], found["value"]) == ("error", "ssh_public_keys", None)
    assert found["message"].startswith("Key 2: ") and says in found["message"]
    assert len(key) < 12 or key not in json.dumps(found)


@pytest.mark.requirement("2.1.2", part="form, type and strength")
@given(st.text() | st.binary(max_size=90).map(lambda data: f"ssh-ed25519 {base64.b64encode(data).decode()} me"))
def test_whatever_is_given_for_a_public_key_has_an_answer(text: str) -> None:
    assert all(judge_key(text) or [""])


@pytest.mark.requirement("2.1.2", part="form, type and strength")
def test_public_keys_in_files(tmp_path: Path) -> None:
    good, empty, private = (tmp_path / name for name in ("good.pub", "empty", "id"))
    good.write_text(f"# mine\n{GOOD}\n\n{SK}\n")
    empty.write_text("\n")
    private.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nCANARY\n")
    declared = {"n1": {"ssh": {"public_keys": [str(good), GOOD]}}}
    assert ssh.files(declared) == [] and declared["n1"]["ssh"]["public_keys"] == [GOOD, SK, GOOD]
    wrong = [str(empty), str(private), str(tmp_path / "none"), "~nobody-at-all/x"]
    declared = {"n1": {"ssh": {"public_keys": wrong}}}
    found = ssh.files(declared)
    says = ["holds no key", "private key", "No such file", "cannot be read"]
    assert all(word in one["message"] for word, one in zip(says, found, strict=True)), found
    assert "CANARY" not in json.dumps([found, declared]) and declared["n1"]["ssh"]["public_keys"] == []


def test_keys_that_are_missing_or_listed_twice() -> None:
    assert [found["option"] for found in judge({"ssh_key_source": "provided"}, ONE)] == ["ssh_public_keys"]
    assert [found["severity"] for found in judge({"ssh_public_keys": [GOOD, GOOD]}, ONE)] == ["warning"]


@pytest.mark.requirement("2.2.2", part="rules")
@pytest.mark.parametrize(
    ("mode", "connection", "refused"),
    [
        ("none", {"ssh_user": "bzzz-admin"}, True),
        ("commands", {"ssh_user": "bzzz-admin"}, True),
        ("password", {"ssh_user": "bzzz-admin"}, True),
        ("password", {"ssh_user": "bzzz-admin", "become_password": True}, False),
        ("passwordless", {"ssh_user": "bzzz-admin"}, False),
        ("none", {"ssh_user": "bzzz-admin", "become": False}, False),
        ("none", {"ssh_user": "operator"}, False),
        ("none", {"ssh_user": None}, False),
    ],
)
def test_sudo_that_ansible_itself_needs(mode: str, connection: dict[str, Any], refused: bool) -> None:
    given = {"ssh_sudo": mode, **({"ssh_sudo_commands": ["/usr/bin/id"]} if mode == "commands" else {})}
    found = judge(given, cluster_of(1, **connection))
    assert [one["option"] for one in found] == ["ssh_sudo"] * refused


@pytest.mark.requirement("2.2.2", part="rules")
def test_sudo_commands() -> None:
    assert [one["option"] for one in judge({"ssh_sudo": "commands"}, ONE)] == ["ssh_sudo_commands"]
    assert [one["severity"] for one in judge({"ssh_sudo_commands": ["/bin/ls"]}, ONE)] == ["warning"]
    given = {"ssh_sudo": "commands", "ssh_sudo_commands": ["/usr/bin/systemctl restart bzzz.service", "systemctl", "ALL", "/bin/ls\nALL"]}
    assert [one["value"] for one in judge(given, ONE)] == ["systemctl", "ALL", "/bin/ls\nALL"]
    given["ssh_sudo_commands"] = [r"/usr/bin/mount -o ro\,noexec /mnt", "/bin/ls, ALL", "/bin/kill -HUP #1"]
    assert [one["value"] for one in judge(given, ONE)] == ["/bin/ls, ALL", "/bin/kill -HUP #1"]


@pytest.mark.parametrize("user", ["Admin", "1st", "a b", "x" * 33, "root;", "bzzz", "etcd"])
def test_user_names(user: str) -> None:
    assert [one["option"] for one in judge({"ssh_user": user}, ONE)] == ["ssh_user"]


def test_users_that_the_list_leaves_out() -> None:
    assert judge({"ssh_allow_users": ["operator", "bzzz-*@10.0.0.0/8"]}, ONE) == []
    (found,) = judge({"ssh_allow_users": ["bzzz-admin"]}, ONE)
    assert "leaves out operator" in found["message"] and found["severity"] == "error"
    (found,) = judge({"ssh_allow_users": ["operator"]}, ONE)
    assert "leaves out bzzz-admin" in found["message"]
    assert "no user name" in judge({"ssh_allow_users": ["operator", "bzzz-admin", "a b"]}, ONE)[0]["message"]


@pytest.mark.requirement("2.2.3", part="rules")
def test_the_way_to_another_ssh_port() -> None:
    (found,) = judge({"ssh_port": 2222}, ONE)
    assert (found["severity"], found["option"]) == ("warning", "ssh_port") and "set ansible_port to 2222" in found["remedy"]
    assert judge({"ssh_port": 2222}, cluster_of(1, ssh_port=2222)) == []
    assert "error" in {one["severity"] for one in judge({"ssh_port": 8080}, ONE)}
    sshd = {"protocol": "tcp", "address": "0.0.0.0", "port": 2222, "program": "sshd", "pid": 1, "unit": "ssh.service"}
    for unit, refused in (("ssh.service", False), ("nginx.service", True), ("ssh.socket", True)):
        on = judge_on({"n1": {"bzzz_ports": {"listeners": [{**sshd, "unit": unit}]}}}, {"ssh_port": 2222}, cluster_of(1, ssh_port=2222))
        assert ("ssh_port" in {one["option"] for one in on}) == refused, unit


@pytest.mark.requirement("2.2.4", part="rules")
def test_passwords_are_not_taken_from_who_needs_them() -> None:
    assert judge({"ssh_key_only": True}, ONE) == []
    (found,) = judge({"ssh_key_only": True}, cluster_of(1, ssh_password=True))
    assert (found["severity"], found["option"]) == ("error", "ssh_key_only") and "ansible_ssh_private_key_file" in found["remedy"]


# --- certificates, Ollama ---


def test_certificate_lives() -> None:
    assert [one["option"] for one in judge({"tls_leaf_valid_days": 4000}, ONE)] == ["tls_leaf_valid_days"]
    assert [one["option"] for one in judge({"tls_renew_before_days": 397}, ONE)] == ["tls_renew_before_days"]
    names = ["a.example.com", "*.b.example.com", "10.0.0.1", "fd00::1", "a b", "FD00:0::1"]
    assert [one["value"] for one in judge({"tls_extra_names": names}, ONE)] == ["a b", "FD00:0::1"]


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("gpu9:11434", "Write http://gpu9:11434."),
        ("ftp://gpu9", "Write http://gpu9."),
        ("http://gpu9:11434/api/tags", "Write http://gpu9:11434."),
        ("https://", "base URL"),
        ("http://gpu9:99999", "base URL"),
        ("http://[::1", "base URL"),
    ],
)
def test_ollama_endpoints(url: str, remedy: str) -> None:
    (found,) = judge({"ollama_endpoints": ["https://gpu9.example.com:11434", "http://[fd00::1]:11434/", url]}, ONE)
    assert found["value"] == url
    assert remedy in found["remedy"]


def test_a_password_in_an_endpoint_is_not_repeated() -> None:
    found = judge({"ollama_endpoints": ["https://me:CANARY@gpu9"]}, ONE)
    assert len(found) == 1
    assert "CANARY" not in json.dumps(found)


INSTALLED = {"ollama_manage": "install", "ollama_version": "0.11.4", "ollama_sha256_amd64": "a" * 64}


@pytest.mark.parametrize(
    ("more", "option", "says"),
    [
        ({"ollama_version": None}, "ollama_version", "no version is declared"),
        ({"ollama_version": "../x"}, "ollama_version", "not a version"),
        ({"ollama_version": "v0.11.4"}, "ollama_version", "not a version"),
        ({"ollama_manage": "adopt"}, "ollama_manage", "ollama_sha256_amd64, ollama_version have no effect"),
        ({"ollama_sha256_amd64": None}, "ollama_sha256_amd64", "No archive has a checksum"),
        ({"ollama_archive_arm64": "a.tgz"}, "ollama_sha256_arm64", "has no checksum"),
        ({"ollama_archive_amd64": "http://example.com/a.tgz"}, "ollama_archive_amd64", "over HTTPS"),
        ({"ollama_flavor": "parallama"}, "ollama_flavor", "no known public release"),
        ({"ollama_kv_cache_type": "q8_0"}, "ollama_kv_cache_type", "flash attention"),
        ({"ollama_migrate": True}, "ollama_models_path", "are to be kept"),
        ({"ollama_keep_alive": "5 minutes\nX=1"}, "ollama_keep_alive", "not a duration"),
        ({"ollama_releases_kept": 1}, "ollama_releases_kept", "at least 2"),
        ({"ollama_rocm_archive": "rocm.tgz"}, "ollama_rocm_sha256", "has no checksum"),
        ({"ollama_rocm_archive": "http://example.com/a.tgz", "ollama_rocm_sha256": "b" * 64}, "ollama_rocm_archive", "over HTTPS"),
        ({"ollama_rocm_sha256": "b"}, "ollama_rocm_sha256", "not a SHA-256"),
    ],
)
@pytest.mark.requirement("3.3.1", "3.3.2", part="what is refused before any node is asked")
def test_installations_of_ollama_that_are_refused(more: dict[str, Any], option: str, says: str) -> None:
    assert judge(INSTALLED, ONE) == []
    (found,) = judge({**INSTALLED, **more}, ONE)
    assert found["option"] == option and says in found["message"] and found["remedy"]


@pytest.mark.requirement("3.3.3", part="nobody's place is taken unasked")
def test_who_has_the_port_of_an_installation() -> None:
    mine = listener(11434, "ollama", "bzzz-ollama@0.service", "127.0.0.1")
    other = listener(11434, "ollama", "ollama.service", "127.0.0.1")
    assert judge_on({"n1": facts_of(ETH0, listeners=(mine,))}, INSTALLED) == []
    (found,) = judge_on({"n1": facts_of(ETH0, listeners=(other,))}, INSTALLED)
    assert found["option"] == "ollama_port" and "ollama_migrate: true" in found["remedy"]
    migrating = {**INSTALLED, "ollama_migrate": True, "ollama_models_path": "/srv/models"}
    assert judge_on({"n1": facts_of(ETH0, listeners=(other,))}, migrating) == []
    nginx = listener(11434, "nginx", "nginx.service", "127.0.0.1")
    (found,) = judge_on({"n1": facts_of(ETH0, listeners=(nginx,))}, migrating)
    assert "nginx.service" in found["message"] and "migrate" not in found["remedy"]


@pytest.mark.requirement("3.5.2", "3.4.5", part="a node without GPUs")
def test_an_instance_per_gpu_needs_gpus() -> None:
    (found,) = judge_on({"n1": NODE}, {**INSTALLED, "ollama_instances": "per_gpu"})
    assert found["option"] == "ollama_instances" and "no GPU" in found["message"]
    two = {**NODE, "bzzz_gpu": {"devices": [{"uuid": "GPU-a"}, {"uuid": "GPU-b"}]}}
    assert judge_on({"n1": two}, {**INSTALLED, "ollama_instances": "per_gpu"}) == []
    (found,) = judge_on({"n1": two}, {**INSTALLED, "ollama_instances": "per_gpu", "ollama_port": 8079})
    assert found["option"] == "ollama_port" and "8080 is service_" in found["message"]


@pytest.mark.requirement("3.5.2", part="cards that are not for models")
def test_cards_without_uuid_get_no_instance() -> None:
    """The processor's own GPU, and a card that is kept for virtual machines."""
    others = [{"vendor": "amd", "uuid": None, "pci_address": "0000:00:02.0"}, {"vendor": "nvidia", "uuid": None, "source": "pci"}]
    seen = {**NODE, "bzzz_gpu": {"devices": [{"uuid": "GPU-a", "vendor": "nvidia"}, *others]}}
    found = judge_on({"n1": seen}, {**INSTALLED, "ollama_instances": "per_gpu", "ollama_port": 8079})
    assert [(one["option"], one["severity"]) for one in found] == [("ollama_instances", "warning")] * 2, "one instance, on 8079 alone"
    assert "amd GPU 0000:00:02.0 tells no UUID" in found[0]["message"] and found[0]["remedy"]
    (found,) = judge_on({"n1": {**NODE, "bzzz_gpu": {"devices": others}}}, {**INSTALLED, "ollama_instances": "per_gpu"})
    assert (found["severity"], found["option"]) == ("error", "ollama_instances") and "None of" in found["message"]


@pytest.mark.requirement("3.4.3", part="a model that the gateway calls and no node has is told")
def test_a_model_of_the_gateways_that_nobody_holds() -> None:
    local = {"name": "local", "model": "llama3.2:3b", "endpoint": "cluster"}
    given = {**INSTALLED, "gateway_enabled": True, "openai_api_key": "sk-stand-in-0123456789abcdef", "gateway_models": [local]}

    def told(seen: dict[str, Any], **more: Any) -> list[str]:
        found = judge_on({"n1": seen}, {**given, **more}, cluster_of(1))
        return [one["remedy"] for one in about(found, "gateway_models") if one["severity"] == "warning"]

    (remedy,) = told(NODE)
    assert "Add {name: llama3.2:3b} to models_wanted" in remedy
    assert told(NODE, models_wanted=[{"name": "Llama3.2:3b"}]) == told(NODE, gateway_enabled=False) == []
    assert told({**NODE, "bzzz_system": {**NODE["bzzz_system"], "ollama": {"models": [{"name": "llama3.2:3b"}]}}}) == []


@pytest.mark.requirement("3.3.1", part="nodes with AMD GPUs")
@pytest.mark.parametrize(
    ("devices", "warned"),
    [
        ([("amd", "0x0edfb117a17a070d", "sysfs")], True),
        ([("amd", None, "sysfs")], True),
        ([("nvidia", "GPU-a", "nvidia-smi"), ("amd", "0x0edfb117a17a070d", "sysfs")], True),
        ([("nvidia", "GPU-a", "nvidia-smi"), ("amd", None, "sysfs")], False),
        ([("amd", None, "pci")], False),
        ([("nvidia", "GPU-a", "nvidia-smi")], False),
    ],
)
def test_amd_gpus_want_rocm(devices: list[tuple[str, str | None, str]], warned: bool) -> None:
    seen = {**NODE, "bzzz_gpu": {"devices": [dict(zip(("vendor", "uuid", "source"), one, strict=True)) for one in devices]}}
    found = judge_on({"n1": seen}, INSTALLED)
    assert [(one["option"], one["severity"]) for one in found] == ([("ollama_rocm_sha256", "warning")] if warned else [])
    assert judge_on({"n1": seen}, {**INSTALLED, "ollama_rocm_sha256": "b" * 64}) == []


# --- coordination ---


@pytest.mark.parametrize(
    ("count", "severity", "says"),
    [(0, "error", "nothing can hold"), (2, "warning", "loss of none"), (4, "warning", "loss of 1"), (9, "warning", "slow")],
)
def test_numbers_of_coordinators(count: int, severity: str, says: str) -> None:
    (found,) = judge(cluster=cluster_of(9, coordinators=count))
    assert (found["option"], found["severity"]) == ("coordinators", severity)
    assert says in found["message"]


@pytest.mark.parametrize("count", [1, 3, 5, 7])
def test_good_numbers_of_coordinators(count: int) -> None:
    assert judge(cluster=cluster_of(9, coordinators=count)) == []


@pytest.mark.requirement("8.1.1", part="declaration")
def test_the_primary_is_one_of_the_coordinators() -> None:
    assert judge({"coordination_primary": "n2"}) == []
    cluster = cluster_of(4, coordinators=3)
    found = judge({"coordination_primary": "n4"}, cluster)
    assert len(found) == 4 and "n1, n2, n3" in found[0]["message"]


@pytest.mark.requirement("F7", part="a formed cluster stays in touch")
def test_members_of_a_formed_cluster_keep_their_peer_port() -> None:
    running = facts_of(ETH0, listeners=(listener(2379, "etcd", "bzzz-etcd.service"), listener(2380, "etcd", "bzzz-etcd.service")))
    changed = {"coordination_peer_port": 2390}
    (found,) = about(judge_on({"n1": running}, changed), "coordination_peer_port")
    assert found["value"] == 2390 and found["node"] == "n1" and "2380" in found["message"]
    assert about(judge_on({"n1": running}), "coordination_peer_port") == []
    assert about(judge_on({"n1": NODE}, changed), "coordination_peer_port") == []  # no cluster yet
    assert about(judge_on({"n4": running}, changed, cluster_of(4)), "coordination_peer_port") == []  # no member


def member(number: int, *members: str, started: tuple[str, ...] | None = None, data_path: str = "/var/lib/etcd/bzzz") -> dict[str, Any]:
    """Facts of node n<number>, whose etcd has data, knows these members, and of these as having been up (None: doesn't run)."""
    etcd = {"data_path": data_path, "members": list(members), "started": None if started is None else list(started)}
    return facts_of(interface("eth0", f"10.0.0.{10 + number}/24"), system={"sets": ["coordination"], "etcd": etcd})


THREE = ("n1", "n2", "n3")


@pytest.mark.requirement("F7", part="a formed cluster keeps its coordinators")
@pytest.mark.parametrize("started", [THREE, None])
@pytest.mark.parametrize("coordinators", [("n1",), ("n1", "n2"), ("n1", "n2", "n4"), ("n1", "n2", "n3", "n4", "n5"), ("n4",)])
def test_a_formed_cluster_keeps_its_coordinators(coordinators: tuple[str, ...], started: tuple[str, ...] | None) -> None:
    """Told by any of its members, also by one that is to be none."""
    cluster = cluster_of(5)
    cluster["coordinators"] = list(coordinators)
    for number in (1, 3):
        found = about(judge_on({f"n{number}": member(number, *THREE, started=started)}, {}, cluster), "coordinators")
        assert [(one["severity"], one["value"]) for one in found] == [("error", list(coordinators))]
        assert "n1, n2, n3" in found[0]["message"] and "group coordinators: n1, n2, n3;" in found[0]["remedy"]
        leaves = started is not None and not set(THREE) <= set(coordinators)
        assert ("remove ID" in found[0]["remedy"]) == leaves
        assert ("If no cluster ever came up" in found[0]["remedy"]) == (started is None)


@pytest.mark.requirement("F7", part="a formed cluster keeps its coordinators")
def test_coordinators_that_stay_and_workers_that_come() -> None:
    formed = {"n1": member(1, *THREE, started=THREE), "n2": member(2, *THREE), "n3": member(3, *THREE, started=THREE)}
    worker = facts_of(interface("eth0", "10.0.0.14/24"))
    assert judge_on(formed) == []
    assert judge_on({**formed, "n4": worker}, {}, cluster_of(4)) == []
    assert judge_on({"n4": worker}, {}, cluster_of(4)) == []
    # n3 has been removed as a member; its files, and those of an etcd that is stopped, are old.
    left = {"n1": member(1, "n1", "n2", started=("n1", "n2")), "n2": member(2, *THREE), "n3": member(3, *THREE)}
    assert errors(judge_on(left, {}, cluster_of(3, coordinators=2))) == []


@pytest.mark.requirement("F7", part="a formed cluster keeps its coordinators")
def test_a_coordinator_built_anew_is_told_from_one_that_was_never_up() -> None:
    new = facts_of(interface("eth0", "10.0.0.13/24"))
    (found,) = judge_on({"n1": member(1, *THREE, started=THREE), "n3": new})
    assert (found["option"], found["severity"], found["node"]) == ("coordinators", "error", "n3")
    assert "no data of it in /var/lib/etcd/bzzz" in found["message"]
    assert "run as root on n1: ETCDCTL_API=3 etcdctl" in found["remedy"]
    assert judge_on({"n1": member(1, *THREE, started=("n1", "n2")), "n3": new}) == []
    assert judge_on({"n1": member(1, *THREE), "n3": new}) == []  # cut short at its first start, as far as can be told


def test_etcds_data_stay_where_they_are() -> None:
    (found,) = judge_on({"n1": member(1, *THREE)}, {"coordination_data_path": "/srv/etcd"})
    assert (found["option"], found["remedy"]) == ("coordination_data_path", "Put the old path back.")
    assert judge_on({"n1": member(1, *THREE, data_path="/srv/etcd/")}, {"coordination_data_path": "/srv/etcd"}) == []


# --- the node service ---


@pytest.mark.parametrize("index", ["http://example.org/index.json", "ftp://example.org/index.json"])
def test_a_release_index_comes_over_https_or_from_a_file(index: str) -> None:
    (found, *_) = about(judge({"service_release_index": index}), "service_release_index")
    assert "HTTPS" in found["message"]
    for fine in ("https://example.org/index.json", "/srv/index.json", "releases/index.json"):
        assert judge({"service_release_index": fine}) == []


# --- resources ---


@pytest.mark.requirement("5.3.2", part="rules")
def test_etcds_data_is_neither_inside_the_services_nor_around_it() -> None:
    paths = {"resources_data_path": "/srv/bzzz", "resources_models_path": "/srv/bzzz/models"}
    assert judge(paths, ONE) == []
    for path in ("/srv/bzzz/etcd", "/srv/bzzz/models/etcd"):
        assert [one["option"] for one in judge({**paths, "coordination_data_path": path}, ONE)] == ["coordination_data_path"]
    around = {"resources_data_path": "/srv/all/data", "coordination_data_path": "/srv/all"}
    assert [one["option"] for one in judge(around, ONE)] == ["coordination_data_path"]
    assert judge({**paths, "coordination_data_path": "/srv/bzzz2"}, ONE) == []


@pytest.mark.requirement("5.3.2", part="rules")
@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("data", "not absolute"),
        ("~/data", "not absolute"),
        ("//srv", "not absolute"),
        ("/", "belongs to the system"),
        ("/etc", "belongs"),
        ("/etc/bzzz", "belongs"),
        ("/usr/share/x", "belongs"),
        ("/var/lib/", "belongs"),
        ("/tmp/x", "belongs"),
        ("/home", "belongs"),
        ("/home/bzzz/data", "belongs"),
        ("/var/lib/bzzz/ca", "belongs"),
        ("/opt/bzzz/releases", "belongs"),
        ("/srv/a b", "characters"),
        ("/srv/%n", "characters"),
        ("/srv/x\ny", "characters"),
        ("/srv/../etc", "goes up"),
        ("/srv//x", "goes up"),
        ("/srv/bzzz/models/", "also resources_models_path"),
    ],
)
def test_paths_that_cannot_be_taken(path: str, says: str) -> None:
    found = judge({"resources_data_path": path}, ONE)
    assert len(found) == 1 and found[0]["option"] in ("resources_data_path", "resources_models_path")
    assert says in found[0]["message"] or "also resources_data_path" in found[0]["message"]


def test_paths_that_can() -> None:
    for path in ("/srv/bzzz", "/data", "/var/lib/bzzz/data/", "/mnt/disk-1/x_y", "/etcetera"):
        assert judge({"resources_data_path": path}, ONE) == [], path


@pytest.mark.requirement("5.2.2", part="sums")
def test_budgets_that_do_not_add_up() -> None:
    (found,) = judge({"resources_memory_max_mib": 1000}, ONE)
    assert "1536" in found["remedy"]
    assert judge({"resources_memory_max_mib": 1000}, cluster_of(2, coordinators=1), n1={"resources_memory_max_mib": 0}) == [], (
        "n2 is no coordinator"
    )
    (found,) = judge({"resources_cpu_quota_percent": 100, "resources_service_cpu_quota_percent": 150}, ONE)
    assert found["option"] == "resources_service_cpu_quota_percent"


@pytest.mark.requirement("5.2.2", part="sums against the node")
def test_budgets_that_do_not_fit_the_node() -> None:
    small = {"n1": facts_of(ETH0, system={"memory": {"total_mib": 1000}, "cpu": {"threads": 2}})}
    (found,) = judge_on(small, {}, ONE)
    assert found["option"] == "resources_coordination_memory_max_mib" and "1536 MiB" in found["message"]
    given = {"resources_memory_max_mib": 2000, "resources_coordination_memory_max_mib": 300, "resources_cpu_quota_percent": 300}
    assert [(one["option"], one["severity"]) for one in judge_on(small, given, ONE)] == [
        ("resources_memory_max_mib", "error"),
        ("resources_cpu_quota_percent", "warning"),
    ]


@pytest.mark.requirement("5.3.1", part="checked against the declaration")
def test_disks_without_room() -> None:
    mounts = [
        {"path": "/", "available_mib": 9000},
        {"path": "/srv", "available_mib": 500},
        {"path": "/srv/bzzz/models", "available_mib": None},
    ]
    (found,) = judge_on({"n1": facts_of(ETH0, system={"mounts": mounts})}, {}, ONE)
    assert found["option"] == "resources_data_path"
    assert "/srv, where /srv/bzzz/data is, has 500 MiB free; 1024 are wanted" in found["message"]
    full = [{"path": "/", "available_mib": 10}]
    assert len(judge_on({"n1": facts_of(ETH0, system={"mounts": full})}, {}, ONE)) == 4
    assert (
        len(judge_on({"n2": facts_of(interface("eth0", "10.0.0.12/24"), system={"mounts": full})}, {}, cluster_of(2, coordinators=1))) == 3
    )


def test_the_mount_of_a_path() -> None:
    mounts = [{"path": path} for path in ("/", "/srv", "/srv/bz", "/srv/bzzz")]
    assert mount_of("/srv/bzzz/data", mounts) == {"path": "/srv/bzzz"}
    assert mount_of("/srv/bzz", mounts) == {"path": "/srv"}
    assert mount_of("/x", []) is None


@pytest.mark.parametrize(
    "given",
    [
        {"ollama_manage": "install", "ollama_version": 0.11},
        {
            "gateway_enabled": True,
            "gateway_default_model": "local",
            "gateway_models": [{"name": "local", "endpoint": "cluster", "weight": "one"}],
            "gateway_tasks": {"chat": "local"},
            "gateway_fallbacks": {"local": ["local"]},
            "cost_expected": [{"model": "local", "calls_per_day": 5}],
        },
        {"coordination_client_port": "x", "service_port": 2379},
    ],
)
def test_of_an_option_that_cannot_be_read_nothing_else_is_told(given: dict[str, Any]) -> None:
    """Its default is judged in its place: models that are declared would be called undeclared."""
    declared, unread = declared_of(ONE, given)
    judged = rules.literal(declared, ONE)
    assert len(unread) == 1 and judged, "there is something to leave out"
    assert judge(given, ONE) == unread
    elsewhere = {"network_subnet": "0.0.0.0/0", "gateway_max_tokens": 0, "metrics_node_exporter_port": 22}
    told = {found["option"] for found in judge({**given, **elsewhere}, ONE)}
    assert told == {*elsewhere, unread[0]["option"]}, "what is wrong elsewhere is told, and what a number is wrong by itself"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("cost_users", {"anna": {"day_usd": 5}}),
        ("gateway_members", {"anna": ["search"]}),
        ("models_wanted", [{"name": "qwen3:8b", "digest": "0" * 64}]),
    ],
)
def test_what_is_the_clusters_is_the_same_on_every_node(option: str, value: Any) -> None:
    """A gateway reads its own node's: a budget in another's host_vars would hold nobody."""
    (found,) = about(errors(judge(n3={option: value})), option)
    assert found["message"] == "This must be the same on every node, but n3 has another value than n1."
    assert "nowhere in host_vars" in found["remedy"] and str(value) not in str(found)
    (found,) = about(errors(judge({option: value}, n1={option: None})), option)
    assert "but n1 has another value than n2." in found["message"]


def test_numbers_have_limits() -> None:
    for (role, option), (least, greatest, _) in ranges.RANGES.items():
        name = f"{role}_{option}"
        spec = options_of(load_specs())[name]
        assert least <= spec["default"] and (greatest is None or spec["default"] <= greatest), name
        assert about(judge({name: least - 1}, ONE), name), name
        assert greatest is None or about(judge({name: greatest + 1}, ONE), name), name


def test_a_number_below_its_least_is_not_told_why_there_is_a_greatest() -> None:
    (low,), (high,) = (about(judge({"models_update_jitter_minutes": value}, ONE), "models_update_jitter_minutes") for value in (-5, 10**6))
    assert low["message"] == "This must be at least 0: there is no less than nothing."
    assert "a later one would meet the next" in high["message"]


# --- anything at all ---

octet = st.integers(0, 255)
cidrs = st.builds(
    lambda a, b, c, d, prefix: f"{a}.{b}.{c}.{d}/{prefix}",
    st.sampled_from([10, 10, 172]),
    st.sampled_from([0, 1, 17]),
    octet,
    octet,
    st.integers(0, 32),
)
interfaces = st.builds(
    lambda name, addresses, kind, up, state, carrier: interface(name, *addresses, kind=kind, up=up, state=state, carrier=carrier),
    st.sampled_from(["eth0", "eth1", "docker0", "br-x"]),
    st.lists(cidrs | st.just("fd00::11/64"), max_size=3),
    st.sampled_from(["physical", "bridge", "tun", None]),
    st.sampled_from([True, False, None]),
    st.sampled_from(["up", "down", "unknown", None]),
    st.sampled_from([True, False, None]),
)
listeners = st.builds(
    listener,
    st.sampled_from([22, 80, 8080, 3000, 65535]),
    st.sampled_from(["nginx", None]),
    st.sampled_from(["bzzz.service", "x.service", None]),
    st.sampled_from(["0.0.0.0", "::", "127.0.0.1", "?"]),
)
nodes_facts = st.builds(
    lambda found, table, heard, ports: facts_of(*found, routes=tuple(table), primary="eth0", listeners=tuple(heard), ports=ports),
    st.lists(interfaces, max_size=4),
    st.lists(
        st.builds(route, cidrs | st.just("default"), st.sampled_from(["eth0", "eth9"]), st.sampled_from([None, "10.0.0.1"])), max_size=4
    ),
    st.lists(listeners, max_size=4),
    st.sampled_from([{}, {"ephemeral": None}, {"reserved": ["1-65535"]}, {"reserved": ["x"], "listeners": []}]),
) | st.sampled_from([{}, {"bzzz_network": None, "bzzz_ports": {}, "bzzz_system": {"memory": {}, "mounts": None}}])


@pytest.mark.requirement("L7", part="declaration")
@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(["n1", "n2", "n3"]), nodes_facts), st.none() | cidrs, st.sampled_from([None, "eth0", "eth7"]))
def test_any_facts_are_judged_and_every_problem_has_option_and_remedy(facts: dict[str, Any], subnet: str | None, name: str | None) -> None:
    for found in judge_on(facts, {"network_subnet": subnet, "network_interface": name}):
        assert found["option"] in options_of(load_specs())
        assert found["message"] and found["remedy"]
        json.dumps(found)


# --- certificates by ACME ---

ACME = {"tls_mode": "acme", "tls_acme_accept_terms": True, "tls_extra_names": ["a.example.com"]}


@pytest.mark.requirement("2.3.3", part="every fault in its own words")
@pytest.mark.parametrize(
    ("given", "option", "word"),
    [
        ({"tls_acme_accept_terms": False}, "tls_acme_accept_terms", "terms"),
        ({"tls_extra_names": ["node.local"]}, "tls_extra_names", "no DNS"),
        ({"tls_extra_names": ["10.0.0.11"]}, "tls_extra_names", "without a domain"),
        ({"tls_extra_names": ["gpu1"]}, "tls_extra_names", "without a domain"),
        ({"tls_extra_names": ["gpu1.internal"]}, "tls_extra_names", "letsencrypt"),
        ({"tls_extra_names": ["*.example.com"]}, "tls_extra_names", "http-01"),
        ({"tls_acme_directory": "http://ca.example.com/dir"}, "tls_acme_directory", "https://"),
        ({"tls_acme_directory": "https://ca.example.com/dir\nconfig-dir = /"}, "tls_acme_directory", "https://"),
        ({"tls_acme_email": "admin"}, "tls_acme_email", "no e-mail"),
        ({"tls_acme_eab_id": "kid"}, "tls_acme_eab_key", "both"),
        ({"tls_acme_eab_key": "abc"}, "tls_acme_eab_id", "both"),
        ({"tls_acme_challenge": "dns-01", "tls_acme_dns_key_name": "k", "tls_acme_dns_key": "s"}, "tls_acme_dns_server", "let in"),
        (
            {
                "tls_acme_challenge": "dns-01",
                "tls_acme_dns_key_name": "k",
                "tls_acme_dns_key": "s",
                "tls_acme_dns_server": "ns.example.com",
            },
            "tls_acme_dns_server",
            "no address",
        ),
        ({"service_web_port": 80}, "tls_acme_challenge", "Port 80 is also service_web_port"),
        ({"network_reserved_ports": ["79-81"]}, "tls_acme_challenge", "keeps for others"),
    ],
)
def test_what_no_acme_authority_would_issue_for(given: dict[str, Any], option: str, word: str) -> None:
    assert judge(ACME, ONE) == []
    (found,) = judge({**ACME, **given}, ONE)
    assert (found["option"], found["severity"]) == (option, "error") and word in found["message"] and found["remedy"]
    if option == "tls_acme_challenge":
        assert "dns-01" in found["remedy"]


@pytest.mark.requirement("2.3.3", part="good declarations")
def test_what_acme_authorities_issue_for() -> None:
    dns = {"tls_acme_challenge": "dns-01", "tls_acme_dns_server": "10.0.0.53", "tls_acme_dns_key_name": "k.", "tls_acme_dns_key": "s"}
    own = {"tls_acme_directory": "https://ca.corp.internal/acme/acme/directory", "tls_extra_names": ["gpu1.corp.internal", "10.0.0.11"]}
    assert judge({**ACME, **dns, "tls_extra_names": ["*.example.com"], "service_web_port": 80}) == []
    assert judge({**ACME, **own}, ONE) == []
    # Nothing of it means anything in another mode, which is no fault.
    assert {one["severity"] for one in judge({"tls_acme_email": "a@example.com"}, ONE)} == {"warning"}


@pytest.mark.requirement("2.3.3", part="one node to a name by http-01")
def test_by_http_each_name_is_one_nodes() -> None:
    (found,) = errors(judge(ACME, cluster_of(2)))
    assert (found["option"], found["node"], found["value"]) == ("tls_extra_names", "n2", "a.example.com") and "n1" in found["message"]
    assert errors(judge(ACME, cluster_of(2), n2={"tls_extra_names": ["b.example.com"]})) == []


@pytest.mark.requirement("2.3.3", part="port 80 that somebody else has")
def test_http_needs_the_port_that_authorities_come_to() -> None:
    nginx = facts_of(ETH0, listeners=[listener(80, "nginx", "nginx.service")])
    (found,) = errors(judge_on({"n1": nginx}, ACME, ONE))
    assert found["option"] == "tls_acme_challenge" and "nginx" in found["message"]
    assert "dns-01" in found["remedy"] and "systemctl disable --now nginx.service" in found["remedy"]
    assert errors(judge_on({"n1": nginx}, None, ONE)) == []


# --- who signs in ---

OIDC = {
    "auth_oidc_issuer": "https://id.example.com/realms/main",
    "auth_oidc_client_id": "bzzz",
    "auth_oidc_role_groups": {"admin": ["ops"]},
}
LDAP = {
    "auth_ldap_urls": ["ldaps://dc1.example.com", "ldap://10.0.0.5:3389"],
    "auth_ldap_bind_dn": "bzzz@example.com",
    "auth_ldap_bind_password": "secret",
    "auth_ldap_user_base": "ou=people,dc=example,dc=com",
    "auth_ldap_group_base": "ou=groups,dc=example,dc=com",
    "auth_ldap_role_groups": {"viewer": ["cn=staff, ou=groups,dc=example,dc=com"]},
}


@pytest.mark.requirement("2.4.2", part="bad options are refused")
@pytest.mark.requirement("2.4.3", part="bad options are refused")
def test_who_signs_in() -> None:
    assert judge({**OIDC, **LDAP}) == []
    wrong: list[tuple[dict[str, Any], str, str]] = [
        ({"auth_oidc_issuer": "http://id.example.com"}, "auth_oidc_issuer", "plain HTTP"),
        ({"auth_oidc_issuer": "id.example.com"}, "auth_oidc_issuer", "no https:// URL"),
        ({"auth_oidc_issuer": "https://"}, "auth_oidc_issuer", "no https:// URL"),
        ({"auth_oidc_issuer": "https://u:canary@id.example.com"}, "auth_oidc_issuer", "no https:// URL"),
        ({"auth_oidc_issuer": "https://id.example.com/.well-known/openid-configuration"}, "auth_oidc_issuer", "discovery document"),
        ({"auth_oidc_client_id": None}, "auth_oidc_client_id", "needs it"),
        ({"auth_oidc_role_groups": {"admin": []}}, "auth_oidc_role_groups", "needs it"),
        ({"auth_oidc_role_groups": {"root": ["ops"]}}, "auth_oidc_role_groups", "root"),
        ({"auth_oidc_role_groups": ["ops"]}, "auth_oidc_role_groups", "dict"),
        ({"auth_oidc_scopes": ["profile"]}, "auth_oidc_scopes", "openid"),
        ({"auth_oidc_scopes": ["openid", "a b"]}, "auth_oidc_scopes", "no scope"),
        ({"auth_oidc_client_secret": "canary\n1"}, "auth_oidc_client_secret", "one line"),
        ({"auth_ldap_urls": ["dc1.example.com"]}, "auth_ldap_urls", "no address"),
        ({"auth_ldap_urls": ["https://dc1.example.com"]}, "auth_ldap_urls", "no address"),
        ({"auth_ldap_urls": ["ldaps://dc1.example.com:99999"]}, "auth_ldap_urls", "no address"),
        ({"auth_ldap_urls": ["ldaps://dc1.example.com/dc=example"]}, "auth_ldap_urls", "no address"),
        *[({option: None}, option, "needs it") for option in LDAP if option != "auth_ldap_urls"],
        ({"auth_ldap_user_base": "people"}, "auth_ldap_user_base", "no DN"),
        ({"auth_ldap_role_groups": {"admin": ["ops"]}}, "auth_ldap_role_groups", "no DN"),
        ({"auth_ldap_user_filter": "(uid=*)"}, "auth_ldap_user_filter", "everybody"),
        ({"auth_ldap_user_filter": "uid={name}"}, "auth_ldap_user_filter", "begins or ends"),
        ({"auth_ldap_user_filter": "(a=b)(uid={name})"}, "auth_ldap_user_filter", "begins or ends"),
        ({"auth_ldap_group_filter": "(&(member={dn})"}, "auth_ldap_group_filter", "do not match"),
        ({"auth_ldap_bind_password": "canary\n1"}, "auth_ldap_bind_password", "one line"),
    ]
    for changes, option, words in wrong:
        found = about(errors(judge({**OIDC, **LDAP, **changes})), option)
        assert found and any(words in one["message"] for one in found) and all(one["remedy"] for one in found), (changes, found)
        assert "canary" not in json.dumps(found)
    # What has no effect is pointed out, no more.
    idle = judge({"auth_oidc_client_id": "x", "auth_ldap_bind_password": "x"})
    assert {(one["option"], one["severity"]) for one in idle} == {
        ("auth_oidc_client_id", "warning"),
        ("auth_ldap_bind_password", "warning"),
    }


@given(
    st.dictionaries(
        st.sampled_from([*OIDC, *LDAP, "auth_ldap_user_filter", "auth_oidc_scopes"]), st.text() | st.lists(st.text()) | st.integers()
    )
)
def test_whatever_is_written_about_who_signs_in_gets_problems_with_a_remedy(changes: dict[str, Any]) -> None:
    assert all(found["message"] and found["remedy"] for found in judge({**OIDC, **LDAP, **changes}))
