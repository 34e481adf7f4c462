# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The cluster's own form: names, addresses, options that must agree."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from ..addresses import address_of, is_host_name
from ..problems import Problem, problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..cluster import Cluster
    from ..declaration import Declared

# Options that have one value for the whole cluster.
COMMON = (
    *(("declaration", "cluster_name"), ("coordination", "lease_seconds"), ("coordination", "primary"), ("tls", "mode")),
    *(("models", "wanted"), ("models", "placement"), ("validation", "network_port")),
    # A gateway reads those of its own node: another's would have no effect.
    *(("gateway", option) for option in ("enabled", "nodes", "models", "endpoints", "endpoint_keys", "default_model", "tasks")),
    *(("gateway", option) for option in ("fallbacks", "balancing", "members", "max_tokens")),
    *(("cost", option) for option in ("all", "projects", "users", "expected", "machines", "warn_percent", "time_zone")),
    *(("cost", option) for option in ("database_node", "database_port", "database_url")),
    # Those who agree on who tells what must know the same.
    *(("alerting", option) for option in ("port", "cluster_port", "email_to", "email_from", "smtp_server", "webhook_urls")),
    *(("alerting", option) for option in ("slack_url", "slack_channel", "repeat_hours")),
)


def literal(declared: Mapping[str, Declared], cluster: Cluster) -> Iterator[Problem]:
    """Names and addresses that are wrong or not unique, and options that differ where they must not."""
    if not declared:
        message = "The inventory has no group 'bzzz', or nobody is in it."
        yield problem("bzzz", message, "Name the cluster's machines in group bzzz of the inventory (bzzz-setup init writes one).")
    for node, roles in declared.items():
        name = roles["declaration"]["cluster_name"]
        if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?", name):
            message = "A cluster's name is made of lower-case letters, digits and inner hyphens, 42 characters at most."
            better = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:42].strip("-") or "bzzz"
            yield problem("declaration_cluster_name", message, f"Write {better}.", value=name, node=node)
        if not (is_host_name(node) or address_of(node)):
            message = "A node's name goes into certificates and must be a DNS host name: letters, digits, hyphens, dots."
            better = re.sub(r"[^A-Za-z0-9.-]+", "-", node).strip("-.") or "node1"
            yield problem("inventory_hostname", message, f"Name the node {better} in the inventory.", value=node, node=node)
        elif len(node) > 64:
            message = "A node's name goes into its certificate, where a common name has 64 characters at most."
            yield problem("inventory_hostname", message, f"Name the node {node.partition('.')[0]} in the inventory.", value=node, node=node)
    yield from _same("inventory_hostname", {node: node.lower() for node in declared}, "Nodes' names differ in upper and lower case only")
    addresses = {node["name"]: node["address"] for node in cluster["nodes"]}
    for name, address in addresses.items():
        if address is None:
            message = "The node's address is not known: its name in the inventory does not resolve on the admin host."
            yield problem("network_address", message, f"Set network_address or ansible_host in host_vars/{name}.yml.", node=name)
        elif len(addresses) > 1 and _loopback(address):
            message = f"{address} is the node itself for everybody: its peers cannot reach it there."
            remedy = f"Set network_address in host_vars/{name}.yml to the node's address in the cluster's network."
            yield problem("network_address", message, remedy, value=address, node=name)
    known = {name: address for name, address in addresses.items() if address and not _loopback(address)}
    yield from _same("network_address", known, "Two nodes have the same address")
    for role, option in COMMON:
        values = {node: str(roles[role][option]) for node, roles in declared.items()}
        usual = max(values.values(), key=[*values.values()].count, default="")
        if other := [node for node, value in values.items() if value != usual]:
            like = min(values, key=lambda node: values[node] != usual)  # the first of them
            have = "has" if len(other) == 1 else "have"
            message = f"This must be the same on every node, but {', '.join(other)} {have} another value than {like}."
            yield problem(f"{role}_{option}", message, "Set it once, in group_vars/bzzz/main.yml, and nowhere in host_vars.")


def _loopback(address: str) -> bool:
    parsed = address_of(address)
    return parsed is not None and parsed.is_loopback


def _same(option: str, values: Mapping[str, Any], message: str) -> Iterator[Problem]:
    nodes = defaultdict(list)
    for node, value in values.items():
        nodes[value].append(node)
    for value, sharing in nodes.items():
        if len(sharing) > 1:
            text = f"{message}: {', '.join(sharing)}."
            yield problem(
                option, text, "Give each node one of its own, or name the machine only once.", value=value, node=", ".join(sharing)
            )
