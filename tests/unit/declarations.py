# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Declarations and facts of small clusters, for tests of rules."""

from __future__ import annotations

from typing import Any

from ansible_collections.bzzz.cluster.plugins.module_utils.cluster import Cluster
from ansible_collections.bzzz.cluster.plugins.module_utils.declaration import Declared, declare, load_specs
from ansible_collections.bzzz.cluster.plugins.module_utils.problems import Problem
from ansible_collections.bzzz.cluster.plugins.module_utils.rules import effective, founded, literal


def cluster_of(count: int = 3, coordinators: int | None = None, **changes: Any) -> Cluster:
    """`count` nodes n1, n2 ... at 10.0.0.11, .12 ..., of which the first ones coordinate; `changes` go into every node."""
    names = [f"n{number}" for number in range(1, count + 1)]
    heads = names[: min(3, count) if coordinators is None else coordinators]
    return {
        "name": "bzzz",
        "run_id": "test",
        "nodes": [
            {
                "name": name,
                "address": f"10.0.0.{10 + number}",
                "groups": ["bzzz"],
                "ssh_port": 22,
                "ssh_user": "operator",
                "ssh_password": False,
                "become": True,
                "become_password": False,
                "firewall": None,
                "sources": [],
                **changes,
            }
            for number, name in enumerate(names, 1)
        ],
        "coordinators": heads,
        "settled": [],
    }


def declared_of(
    cluster: Cluster, given: dict[str, Any], per_node: dict[str, dict[str, Any]] | None = None
) -> tuple[dict[str, Declared], list[Problem]]:
    """Every node's declaration from group variables and host variables, with the problems of reading them."""
    declared, problems = {}, []
    for node in cluster["nodes"]:
        variables = {**given, **(per_node or {}).get(node["name"], {})}
        readers = {name: (lambda value=value: value) for name, value in variables.items()}
        declared[node["name"]], found = declare(load_specs(), readers, node["name"])
        problems += found
    return declared, problems


def judge(given: dict[str, Any] | None = None, cluster: Cluster | None = None, **per_node: dict[str, Any]) -> list[Problem]:
    """Problems of the literal stage."""
    cluster = cluster or cluster_of()
    declared, problems = declared_of(cluster, given or {}, per_node)
    return problems + founded(literal(declared, cluster), problems)


def judge_on(
    facts: dict[str, Any], given: dict[str, Any] | None = None, cluster: Cluster | None = None, **per_node: dict[str, Any]
) -> list[Problem]:
    """Problems of the effective stage, on nodes with these facts."""
    cluster = cluster or cluster_of()
    declared, problems = declared_of(cluster, given or {}, per_node)
    assert not problems, problems
    return effective(declared, cluster, facts)


def about(problems: list[Problem], option: str) -> list[Problem]:
    return [found for found in problems if found["option"] == option]


def address(text: str) -> dict[str, Any]:
    """An address as network facts show it, from `10.0.0.11/24`."""
    import ipaddress

    interface = ipaddress.ip_interface(text)
    return {
        "address": str(interface.ip),
        "prefix": interface.network.prefixlen,
        "network": str(interface.network),
        "family": interface.version,
        "scope": "link" if interface.is_link_local else "global",
        "dynamic": False,
        "temporary": False,
    }


def interface(name: str, *addresses: str, **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "kind": "physical",
        "state": "up",
        "up": True,
        "carrier": True,
        "speed_mbps": 1000,
        "mtu": 1500,
        "mac": None,
        "driver": None,
        "master": None,
        "addresses": [address(text) for text in addresses],
        **changes,
    }


def route(destination: str, by: str, gateway: str | None = None) -> dict[str, Any]:
    return {
        "destination": destination,
        "gateway": gateway,
        "interface": by,
        "metric": 0,
        "source": None,
        "family": 6 if ":" in destination else 4,
    }


def facts_of(
    *interfaces: dict[str, Any],
    routes: tuple[dict[str, Any], ...] = (),
    primary: str | None = "eth0",
    listeners: tuple[dict[str, Any], ...] = (),
    **changes: Any,
) -> dict[str, Any]:
    """A node's facts, as far as rules read them."""
    loopback = {**interface("lo", "127.0.0.1/8", kind="loopback"), "state": "unknown"}
    return {
        "bzzz_network": {
            "interfaces": [loopback, *interfaces],
            "routes": list(routes),
            "primary_interface": primary,
            "problems": [],
            **changes.get("network", {}),
        },
        "bzzz_ports": {
            "listeners": list(listeners),
            "reserved": [],
            "ephemeral": {"first": 32768, "last": 60999},
            "unprivileged_start": 1024,
            "problems": [],
            **changes.get("ports", {}),
        },
        "bzzz_system": {
            "cpu": {"threads": 4},
            "memory": {"total_mib": 16000},
            "mounts": [{"path": "/", "available_mib": 50000}],
            **changes.get("system", {}),
        },
    }


def listener(
    port: int, program: str | None = "nginx", unit: str | None = "nginx.service", where: str = "0.0.0.0", protocol: str = "tcp"
) -> dict[str, Any]:
    return {"protocol": protocol, "address": where, "port": port, "pid": 4711, "program": program, "unit": unit}
