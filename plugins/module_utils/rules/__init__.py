# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Rules: what argument specs cannot say about a declaration.

Each module has pure functions `literal(declared, cluster)`, which need nothing but the declaration, or
`effective(declared, cluster, facts)`, which need what the nodes reported; both yield problems.

- `declared`: node -> role -> option (without the role's prefix) -> value of the option's type, None where not set
- `cluster`: as `bzzz_cluster`, see `module_utils/cluster.py`
- `facts`: node -> the node's facts (`bzzz_network`, `bzzz_ports`, `bzzz_system`, `bzzz_gpu`); nodes not heard of are left out
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..problems import Problem
from . import (
    alerting,
    auth,
    coordination,
    cost,
    downloads,
    firewall,
    gateway,
    models,
    network,
    ollama,
    ports,
    ranges,
    resources,
    service,
    ssh,
    tls,
)
from . import cluster as cluster_rules

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..cluster import Cluster, Node
    from ..declaration import Declared

LITERAL = (
    cluster_rules,
    ranges,
    downloads,
    network,
    ports,
    firewall,
    ssh,
    tls,
    ollama,
    models,
    gateway,
    cost,
    resources,
    alerting,
    auth,
    service,
    coordination,
)
EFFECTIVE = (downloads, network, ports, firewall, ssh, ollama, models, cost, resources, coordination)


def literal(declared: Mapping[str, Declared], cluster: Cluster) -> list[Problem]:
    """What is wrong before any node is asked."""
    return [found for rules in LITERAL for found in rules.literal(declared, cluster)]


def founded(problems: Iterable[Problem], unread: Iterable[Problem]) -> list[Problem]:
    """Those problems that do not come of options that could not be read, in whose place the rules judge defaults.

    Left out is what names such an option, or is about one of the same role: it may be true, and is told once that one is mended.
    Numbers stay, and so ports: they are judged by themselves, or with others that are named.
    """
    names = {found["option"] for found in unread}
    roles = {name.partition("_")[0] for name in names}

    def of_default(found: Problem) -> bool:
        role, _line, option = found["option"].partition("_")
        if role in roles and (found["option"] in names or not ranges.limits(role, option)):
            return True
        return any(name in f"{found['message']} {found['remedy']}" for name in names)

    return [found for found in problems if not of_default(found)]


def effective(declared: Mapping[str, Declared], cluster: Cluster, facts: Mapping[str, Mapping[str, Any]]) -> list[Problem]:
    """What is wrong with it on these nodes."""
    return [found for rules in EFFECTIVE for found in rules.effective(declared, cluster, facts)]


def settled(
    declared: Mapping[str, Declared], cluster: Cluster, facts: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, Declared], Cluster]:
    """Declaration and cluster with what depends on facts filled in, for the nodes whose facts there are."""
    filled: dict[str, Declared] = dict(declared)
    found = network.places(declared, cluster, facts)
    for name, place in found.items():
        filled[name] = {**declared[name], "network": {**declared[name]["network"], **place}}
    nodes: list[Node] = [
        {**node, "address": found[node["name"]]["address"]} if node["name"] in found else node for node in cluster["nodes"]
    ]
    for node in nodes:
        if node["name"] in found:
            node["firewall"] = firewall.backend(declared[node["name"]], facts[node["name"]])
            node["sources"] = firewall.sources(found[node["name"]]["subnet"], nodes)
    return filled, {**cluster, "nodes": nodes, "settled": sorted(facts)}
