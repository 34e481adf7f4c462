# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Coordinators: whether there are enough to agree, and whether they stay in touch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..problems import Problem, nearest, problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..cluster import Cluster
    from ..declaration import Declared


def literal(declared: Mapping[str, Declared], cluster: Cluster) -> Iterator[Problem]:
    """Nobody to coordinate, numbers that gain nothing, a primary that is none of them."""
    coordinators = cluster["coordinators"]
    count = len(coordinators)
    if declared and not count:
        message = "No node of the cluster is in group 'coordinators', so nothing can hold its state."
        yield problem("coordinators", message, "Put one node, or better three, into group coordinators, a child of group bzzz.")
    elif count and count % 2 == 0:
        survives = count // 2 - 1
        majority = f"a majority of {count} is {count // 2 + 1}"
        message = f"{count} coordinators survive the loss of {survives or 'none'}, no more than {count - 1} would: {majority}."
        remedy = f"Have {count - 1} or {count + 1} nodes in group coordinators."
        yield problem("coordinators", message, remedy, value=coordinators, severity="warning")
    elif count > 7:
        message = f"{count} coordinators slow every write down and gain little: each write waits for {count // 2 + 1} of them."
        yield problem("coordinators", message, "Have 3 or 5 nodes in group coordinators.", value=coordinators, severity="warning")
    for node, roles in declared.items():
        primary = roles["coordination"]["primary"]
        if primary is not None and primary not in coordinators:
            like = nearest(primary, coordinators)
            message = f"'{primary}' is none of the coordinators ({', '.join(coordinators) or 'there are none'})."
            remedy = f"Write {like}." if like else "Name one of them, or put the node into group coordinators."
            yield problem("coordination_primary", message, remedy, value=primary, node=node)


def effective(declared: Mapping[str, Declared], cluster: Cluster, facts: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    """A peer port other than the one by which the members of a formed cluster know each other."""
    for node in sorted(facts.keys() & set(cluster["coordinators"])):
        port = declared[node]["coordination"]["peer_port"]
        listeners = (facts[node].get("bzzz_ports") or {}).get("listeners") or []
        used = sorted({one["port"] for one in listeners if one.get("unit") == "bzzz-etcd.service"})
        if used and port not in used:
            message = (
                f"etcd runs already, on ports {' and '.join(map(str, used))}, and its members would lose each other on another peer port."
            )
            remedy = "Put the old port back. Where no cluster has ever formed, stop bzzz-etcd.service on every coordinator first."
            yield problem("coordination_peer_port", message, remedy, value=port, node=node)
