# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Firewall: sources that are networks, and that nobody who is needed is shut out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ..addresses import AddressError, address_of, parse_ports
from ..problems import Problem, problem
from .network import cidr_problem, network_of
from .ports import is_own, own_ports

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping

    from ..addresses import Network
    from ..cluster import Cluster, Node
    from ..declaration import Declared

# One statement: sets in braces, but no end of line, statement or chain.
RULE = re.compile(r"(?!\s*include\b)[^\n\r;{}]*(\{[^\n\r;{}]*\}[^\n\r;{}]*)*")
OFF = {"ufw": "ufw disable", "firewalld": "systemctl disable --now firewalld"}
# DHCP answers come to these, and every firewall of ours lets them in.
DHCP_CLIENT = (("udp", 68), ("udp", 546))
MDNS = ("udp", 5353)


def literal(declared: Mapping[str, Declared], cluster: Cluster) -> Iterator[Problem]:
    """The form of sources, ports and extra rules."""
    for node, roles in declared.items():
        firewall = roles["firewall"]
        for option in ("ssh_sources", "web_sources"):
            for text in firewall[option]:
                wrong = cidr_problem(f"firewall_{option}", text, node)
                if wrong:
                    yield wrong
        for text in firewall["open_ports"]:
            wrong = _open_port(text, node)
            if wrong:
                yield wrong
        if firewall["extra_rules"] and firewall["backend"] != "nftables":
            message = f"These are nftables rules, but firewall_backend is '{firewall['backend']}'."
            remedy = "Set firewall_backend to nftables, or say it with firewall_open_ports."
            yield problem("firewall_extra_rules", message, remedy, value=firewall["extra_rules"], node=node)
        for rule in firewall["extra_rules"]:
            if not RULE.fullmatch(rule):
                message = "A rule is one line of an nftables chain."
                yield problem(
                    "firewall_extra_rules", message, "Write one rule per entry, for example: tcp dport 8443 accept", value=rule, node=node
                )


def open_port(text: str) -> tuple[range, str]:
    """`443/tcp` or `6000-6100/udp` as (ports, protocol); AddressError where it is neither."""
    ports, slash, protocol = text.strip().lower().partition("/")
    span = parse_ports(ports.replace(":", "-"))
    if protocol not in ("tcp", "udp"):
        message = f"'{text}' does not say tcp or udp." if not slash else f"'{protocol}' is no protocol that has ports here."
        raise AddressError(message, f"{ports}/tcp")
    plain = f"{span[0]}{f'-{span[-1]}' if len(span) > 1 else ''}/{protocol}"
    if text != plain:  # it goes into rules as it stands
        raise AddressError("A range is written with a hyphen." if ":" in ports else f"'{text}' is not the plain form.", plain)
    return span, protocol


def _open_port(text: str, node: str) -> Problem | None:
    try:
        open_port(text)
    except AddressError as error:
        remedy = f"Write {error.correct}." if error.correct else "Write ports such as 443/tcp or 6000-6100/udp."
        return problem("firewall_open_ports", str(error), remedy, value=text, node=node)
    return None


def _seen(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (facts.get("bzzz_system") or {}).get("firewall") or {}  # a journal may hold older facts
    return found


def sources(subnet: str | None, nodes: Iterable[Node]) -> list[str]:
    """From where a node's peers come to it: its own subnet, and those beyond a router by their addresses.

    All nodes of the cluster, since those outside of a run are let in, too.
    """
    network = network_of(subnet)
    beyond = [node["address"] for node in nodes if node["address"] and not _within(node["address"], network)]
    return ([subnet] if subnet else []) + sorted(beyond)


def _within(address: str, network: Network | None) -> bool:
    found = address_of(address)
    return found is not None and network is not None and found in network


def backend(roles: Declared, facts: Mapping[str, Any]) -> str:
    """What a node's rules are made with: what is declared, else what is best there."""
    wanted = str(roles["firewall"]["backend"])
    return wanted if wanted != "auto" else str(_seen(facts).get("tool") or "nftables")


def effective(declared: Mapping[str, Declared], cluster: Cluster, facts: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    """The admin host shut out of SSH, another firewall in force, and programs that others would no longer reach."""
    ssh = {node["name"]: node["ssh_port"] for node in cluster["nodes"]}
    for node, seen in facts.items():
        roles = declared[node]
        if roles["firewall"]["mode"] != "off":
            admin = (seen.get("bzzz_network") or {}).get("admin_address")
            yield from _admin(roles["firewall"]["ssh_sources"], admin, node)
        if roles["firewall"]["mode"] == "auto":
            chosen = backend(roles, seen)
            yield from _others(chosen, _seen(seen).get("active") or [], roles["firewall"]["backend"], node)
            wanted = {("tcp", port) for port in (ssh[node], *own_ports(roles, node in cluster["coordinators"], node).values())}
            published = ((seen.get("bzzz_system") or {}).get("container_engine") or {}).get("published") or []
            yield from _past(roles, published, node)
            if chosen != "firewalld":  # whose zones let in what they did before
                wanted.update(DHCP_CLIENT, [MDNS] if roles["network"]["announce"] else [])
                wanted.update((one["protocol"], one["port"]) for one in published)
                yield from _closed(roles, wanted, seen, node)


def _others(chosen: str, active: list[str], declared: str, node: str) -> Iterator[Problem]:
    """A firewall of somebody else's that is in force would still drop what ours lets in."""
    for other in (name for name in active if name != chosen):
        message = f"{other} is in force on this node and would still drop what rules in {chosen} let in."
        if chosen in active:
            remedy = f"Two firewalls in force are one too many: switch one off there ({OFF[other]}, or {OFF[chosen]})."
        else:
            remedy = f"Set firewall_backend to {other} or auto, which adds the cluster's rules to it; or switch it off there: {OFF[other]}."
        yield problem("firewall_backend", message, remedy, value=declared, node=node)
    if chosen == "firewalld" and chosen not in active:
        message = "firewalld is not running on this node."
        remedy = "Set firewall_backend to auto, or start it there: systemctl enable --now firewalld."
        yield problem("firewall_backend", message, remedy, value=declared, node=node)


def _admin(sources: list[str], admin: str | None, node: str) -> Iterator[Problem]:
    address = address_of(admin or "")
    # An IPv4 client of a listener on both protocols.
    address = getattr(address, "ipv4_mapped", None) or address
    if address is None or address.is_loopback or not sources or any(address in network for network in map(network_of, sources) if network):
        return
    message = f"The admin host reaches this node from {address}, which none of the networks holds: SSH would be cut."
    yield problem("firewall_ssh_sources", message, f"Add {address}/{address.max_prefixlen} or its network.", value=sources, node=node)


def _past(roles: Declared, published: Iterable[Mapping[str, Any]], node: str) -> Iterator[Problem]:
    """Docker forwards what it publishes before any rule for the node's own ports is asked."""
    spans = _spans(roles)
    let_in = {
        f"{one['port']}/{one['protocol']}": one["container"]
        for one in published
        if not one["filtered"] and not any(one["port"] in span and one["protocol"] == protocol for span, protocol in spans)
    }
    if let_in:
        told = ", ".join(f"{port} (container {name})" for port, name in let_in.items())
        message = f"Docker lets everybody in, past these rules, at what it publishes: {told}."
        remedy = (
            "Publish it on the loopback only (-p 127.0.0.1:PORT:PORT), or say who may in a rule of Docker's chain DOCKER-USER. "
            f"If everybody is meant to: firewall_open_ports: [{', '.join(let_in)}]."
        )
        yield problem("firewall_open_ports", message, remedy, value=roles["firewall"]["open_ports"], node=node, severity="warning")


def _spans(roles: Declared) -> list[tuple[range, str]]:
    """firewall_open_ports; those that are none have a problem of their own."""
    spans = []
    for text in roles["firewall"]["open_ports"]:
        try:
            spans.append(open_port(text))
        except AddressError:
            continue
    return spans


def _closed(roles: Declared, wanted: Container[tuple[str, int]], seen: Mapping[str, Any], node: str) -> Iterator[Problem]:
    spans = _spans(roles)
    closed: dict[str, str] = {}
    for one in (seen.get("bzzz_ports") or {}).get("listeners") or []:
        address, key = address_of(one["address"]), (one["protocol"], one["port"])
        opened = any(one["port"] in span and one["protocol"] == protocol for span, protocol in spans)
        if address is None or address.is_loopback or key in wanted or opened or is_own(one, seen):
            continue
        program, unit = one.get("program") or "unknown program", one.get("unit")
        closed.setdefault(f"{one['port']}/{one['protocol']}", f"{program}, unit {unit}" if unit else program)
    if closed:
        message = "Other machines will no longer reach: " + ", ".join(f"{port} ({program})" for port, program in closed.items()) + "."
        remedy = "If others need them, list them in firewall_open_ports: [" + ", ".join(closed) + "]."
        yield problem("firewall_open_ports", message, remedy, value=roles["firewall"]["open_ports"], node=node, severity="warning")
