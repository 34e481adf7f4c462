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
    """Whatever would part the members of a formed cluster: other members, lost data, another peer port."""
    yield from _members(declared, cluster, facts)
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


def _members(declared: Mapping[str, Declared], cluster: Cluster, facts: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    """etcd keeps the members that it was formed with; a machine that only the declaration makes one finds no place among them."""
    coordinators = cluster["coordinators"]
    known = {node: found for node in sorted(facts) if (found := (facts[node].get("bzzz_system") or {}).get("etcd"))}
    answered = {node: found for node, found in known.items() if found["started"] is not None}
    # An etcd that runs knows better than a file that may be old.
    for node, found in (answered or known).items():
        members = sorted(found["members"])
        if members and set(members) != set(coordinators):
            names, path = ", ".join(members), declared[node]["coordination"]["data_path"]
            message = f"etcd has formed with the members {names}, and coordinators cannot be added or replaced yet."
            remedy = f"Have just these in group coordinators: {names}; other nodes may come and go."
            gone = ", ".join(sorted(set(members) - set(coordinators)))
            if not answered:
                remedy += f" If no cluster ever came up, stop bzzz-etcd.service and remove {path} on all of them."
            elif gone:
                remedy += f" If {gone} is to leave for good, first {_leave(declared, node)}."
            yield problem("coordinators", message, remedy, value=coordinators, node=node)
    for node in (name for name in coordinators if name in facts):
        path = declared[node]["coordination"]["data_path"]
        if node in known and known[node]["data_path"].rstrip("/") != path.rstrip("/"):
            message = f"etcd's data are in {known[node]['data_path']}: in another directory it would begin without them."
            yield problem("coordination_data_path", message, "Put the old path back.", value=path, node=node)
        helper = next((other for other, found in answered.items() if node in found["started"]), None)
        if node not in known and helper:
            message = (
                f"{node} is a member of the running etcd, but has no data of it in {path}: "
                "as a machine built anew it would be refused by its peers."
            )
            remedy = (
                f"Put a copy of {path} back. Or let {node} leave: take it out of group coordinators, "
                f"and {_leave(declared, helper)}. It may stay as a worker; to coordinate again it has to wait for a later version."
            )
            yield problem("coordinators", message, remedy, value=coordinators, node=node)


def _leave(declared: Mapping[str, Declared], node: str) -> str:
    """How a member leaves, told on another member."""
    port = declared[node]["coordination"]["client_port"]
    tls = "--cacert=/etc/bzzz/tls/ca.crt --cert=/etc/bzzz/tls/node.crt --key=/etc/bzzz/tls/node.key"
    command = f"ETCDCTL_API=3 etcdctl --endpoints=https://127.0.0.1:{port} {tls} member"
    return f"run as root on {node}: {command} remove ID (the ID is in: {command} list)"
