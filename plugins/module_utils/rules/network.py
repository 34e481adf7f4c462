# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Network: the subnet's form, the interface that carries it, and whatever else on a node claims its addresses."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Optional, TypedDict
from urllib.parse import urlsplit

from ..addresses import AddressError, Network, address_of, is_host_name, parse_network
from ..problems import Problem, by_node, problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..cluster import Cluster, Node
    from ..declaration import Declared

    Facts = Mapping[str, Mapping[str, Any]]

# Networks behind these kinds of interface are the node's own (containers, mostly): whoever is in them looks for any of
# the network's addresses there, so even a wider one is in the way.
INNER = ("bridge", "veth", "macvlan", "ipvlan", "vxlan", "dummy")
# Words of network_egress that stand for what each node knows by itself.
EGRESS = ("packages", "time")


class Place(TypedDict):
    """Where a node is in the cluster's network; None where that cannot be told."""

    subnet: Optional[str]
    interface: Optional[str]
    address: Optional[str]


class Neighbour(NamedTuple):
    """A network that a node knows beside the cluster's. kind: the interface's; inner: it ends within the node, as containers' do."""

    interface: str
    kind: Optional[str]
    network: Network
    gateway: Optional[str]
    inner: bool

    def severity(self, subnet: Network) -> Literal["error", "warning"] | None:
        """`error` where it hides addresses of the cluster's network, `warning` where it may, None where the two are apart."""
        other = self.network
        # Halves of the default route (0.0.0.0/1), as VPNs set them, say nothing about a network of ours.
        if other.version != subnet.version or not other.overlaps(subnet) or other.prefixlen < 8 or self.kind == "loopback":
            return None
        return "error" if self.inner or self.narrower(subnet) else "warning"

    def narrower(self, subnet: Network) -> bool:
        """Whether it is a part of the cluster's network, and more than one address of it."""
        return subnet.prefixlen < self.network.prefixlen < self.network.max_prefixlen


def cidr_problem(option: str, text: str, node: str) -> Problem | None:
    """What is wrong with a network in CIDR notation, with the corrected form where there is one."""
    try:
        parse_network(text)
    except AddressError as error:
        remedy = f"Write {error.correct}." if error.correct else "Write a network such as 192.168.1.0/24 or fd00::/64."
        return problem(option, str(error), remedy, value=text, node=node)
    return None


def network_of(text: str | None) -> Network | None:
    """The network, or None where the text is none (which a rule of its own tells)."""
    try:
        return parse_network(text) if text else None
    except AddressError:
        return None


def literal(declared: Mapping[str, Declared], cluster: Cluster) -> Iterator[Problem]:
    """The form of subnet, interface and address, and what contradicts itself."""
    addresses = {node["name"]: node["address"] for node in cluster["nodes"]}
    for node, roles in declared.items():
        network = roles["network"]
        yield from _subnet(network["subnet"], addresses, node)
        name = network["interface"]
        if name is not None and not re.fullmatch(r"[^\s/:]{1,15}", name):
            message = "An interface's name has at most 15 characters, none of them a space, slash or colon."
            yield problem("network_interface", message, "Write a name as `ip link` shows it, for example eth0.", value=name, node=node)
        if network["address"] is not None and address_of(network["address"]) is None:
            message = "This is no IPv4 or IPv6 address."
            base = network["address"].partition("/")[0]
            remedy = f"Write {base}." if address_of(base) else "Write an address such as 192.168.1.10."
            yield problem("network_address", message, remedy, value=network["address"], node=node)
        for target in network["egress"]:
            yield from _egress(target, node)


def _egress(target: str, node: str) -> Iterator[Problem]:
    if target in EGRESS:
        return
    example = "https://api.openai.com or time.example.com:4460"
    message, remedy = "This is neither packages, time, an address (URL) nor host:port.", f"Write for example {example}."
    try:
        parts = urlsplit(target if "://" in target else f"tcp://{target}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        yield problem("network_egress", message, remedy, value=target, node=node)
        return
    if "@" in target:
        shown = re.sub(r"[^/@]*@", "********@", target)
        message = "It holds a user or a password, which would be readable in reports."
        yield problem("network_egress", message, "Take it out: any answer will do, also one that asks for it.", value=shown, node=node)
    elif not (address_of(host) or is_host_name(host)) or not target.isascii() or re.search(r"[\s\x00-\x1f\x7f]", target):
        yield problem("network_egress", message, remedy, value=target, node=node)
    elif port == 0 or parts.scheme not in ("tcp", "http", "https"):
        message = "There is no port 0." if port == 0 else f"'{parts.scheme}' addresses are not tried."
        yield problem("network_egress", message, remedy, value=target, node=node)
    elif parts.scheme == "tcp" and (not port or parts.path or parts.query or parts.fragment):
        known = f"Write https://{target}, or {host}:{port}." if port else f"Write {host}:443 or https://{host}, or whatever is meant."
        yield problem("network_egress", message, known, value=target, node=node)


def _subnet(text: str | None, addresses: Mapping[str, str | None], node: str) -> Iterator[Problem]:
    if text is None:
        return
    wrong = cidr_problem("network_subnet", text, node)
    if wrong:
        yield wrong
        return
    subnet = parse_network(text)
    base = subnet.network_address
    kinds = {
        "the whole internet": subnet.prefixlen == 0,
        "the loopback network": base.is_loopback,
        "a link-local network": base.is_link_local,
        "a multicast network": base.is_multicast,
    }
    for kind in (kind for kind, applies in kinds.items() if applies):
        message = f"This is {kind}, which cannot be a cluster's."
        yield problem("network_subnet", message, "Write the network that the nodes share, for example 10.1.0.0/24.", value=text, node=node)
        return
    room = subnet.num_addresses - (2 if subnet.version == 4 and subnet.prefixlen < 31 else 0)
    if room < len(addresses):
        message = f"The network has room for {room} hosts, but the cluster has {len(addresses)} nodes."
        wider = subnet.supernet(new_prefix=max(subnet.max_prefixlen - len(addresses).bit_length() - 1, 0))
        yield problem("network_subnet", message, f"Use a wider network, for example {wider}.", value=text, node=node)
    address = address_of(addresses.get(node) or "")
    if address is not None and not address.is_loopback and address not in subnet:
        message = f"The node's address {address} is not inside the cluster's network {subnet}."
        remedy = f"Set network_address in host_vars/{node}.yml to the node's address in {subnet}, or correct network_subnet."
        yield problem("network_subnet", message, remedy, value=text, node=node)


def places(declared: Mapping[str, Declared], cluster: Cluster, facts: Facts) -> dict[str, Place]:
    """Subnet, interface and address of every node that reported its facts."""
    nodes = {node["name"]: node for node in cluster["nodes"]}
    return {name: _place(declared[name]["network"], nodes[name], seen.get("bzzz_network") or {}) for name, seen in facts.items()}


def _place(network: Mapping[str, Any], node: Node, seen: Mapping[str, Any]) -> Place:
    interfaces = {interface["name"]: interface for interface in seen.get("interfaces") or []}
    subnet = network_of(network["subnet"])
    reached = address_of(node["address"] or "")
    primary = seen.get("primary_interface")
    name = network["interface"]
    if name is None:
        # In this order: in the declared subnet, carrying the default route, having the address that Ansible uses.
        ranked = sorted(
            (interface for interface in interfaces.values() if _global(interface)),
            key=lambda interface: (
                not any(subnet and address_of(a["address"]) in subnet for a in interface["addresses"]),
                interface["name"] != primary,
                not any(address_of(a["address"]) == reached for a in interface["addresses"]),
                interface["name"],
            ),
        )
        name = ranked[0]["name"] if ranked else None
    own = _global(interfaces.get(name or "", {}))
    if subnet is None and network["subnet"] is None and own:
        holding = [a for a in own if address_of(a["address"]) == reached]
        subnet = parse_network((holding or own)[0]["network"])
    address = node["address"]
    if reached is not None and reached.is_loopback:
        # A cluster of one, reached over the loopback; to itself and to clients it is known by its real address.
        address = next((a["address"] for a in own if subnet and address_of(a["address"]) in subnet), address)
    return {"subnet": str(subnet) if subnet else network["subnet"], "interface": name, "address": address}


def _global(interface: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Addresses that other machines can use, lasting ones and IPv4 first."""
    if interface.get("kind") == "loopback":
        return []
    usable = [a for a in interface.get("addresses", []) if a["scope"] not in ("link", "host") and not a.get("temporary")]
    return sorted(usable, key=lambda a: a["family"])


def effective(declared: Mapping[str, Declared], cluster: Cluster, facts: Facts) -> Iterator[Problem]:
    """Interfaces, addresses and neighbouring networks as the nodes have them."""
    found = places(declared, cluster, facts)
    for node, place in found.items():
        seen = facts[node].get("bzzz_network") or {}
        if seen.get("interfaces"):
            yield from _interface(place, declared[node]["network"], seen, node)
    subnets = {place["subnet"]: None for place in found.values() if place["subnet"]}
    if len(subnets) > 1:
        shown = by_node({node: f"{place['subnet']} ({place['interface']})" for node, place in found.items()})
        message = f"The nodes are in different networks: {shown}. Traffic between them goes through a router and may be filtered there."
        remedy = "Set network_subnet or network_interface so that all nodes share one network, if that was not meant."
        yield problem("network_subnet", message, remedy, value=list(subnets), severity="warning")
    for node, place in found.items():
        seen = facts[node].get("bzzz_network") or {}
        for subnet in [network for network in map(network_of, subnets) if network]:
            yield from _overlaps(subnet, place, seen, node)


def _interface(place: Place, wanted: Mapping[str, Any], seen: Mapping[str, Any], node: str) -> Iterator[Problem]:
    interfaces = {interface["name"]: interface for interface in seen["interfaces"]}
    here = f"host_vars/{node}.yml"
    shown = ", ".join(
        f"{name} ({', '.join(a['address'] + '/' + str(a['prefix']) for a in interface['addresses']) or 'no address'})"
        for name, interface in interfaces.items()
        if interface["kind"] != "loopback"
    )
    name, subnet = place["interface"], network_of(place["subnet"])
    if name is None or name not in interfaces:
        message = f"The node has no interface {name}." if name else "No interface of the node has an address that others can use."
        yield problem("network_interface", f"{message} It has: {shown or 'none'}.", f"Name one of them in {here}.", value=name, node=node)
        return
    interface = interfaces[name]
    if interface["up"] is False or interface["state"] in ("down", "lowerlayerdown", "notpresent") or interface["carrier"] is False:
        state = "down" if interface["up"] is False else "up, but has no carrier (no cable, or nothing at its other end)"
        remedy = f"Bring it up (ip link set {name} up), look at the cable, or name another interface in {here}. The node has: {shown}."
        yield problem("network_interface", f"The interface {name} is {state}.", remedy, value=name, node=node)
    inside = [a["address"] for a in interface["addresses"] if subnet and address_of(a["address"]) in subnet]
    if subnet and not inside:
        option = "network_interface" if wanted["interface"] else "network_subnet"
        message = f"The interface {name} has no address inside {subnet}. The node has: {shown}."
        remedy = f"Correct network_subnet, name another interface in {here}, or give {name} an address in {subnet}."
        yield problem(option, message, remedy, value=wanted["interface"] or place["subnet"], node=node)
        return
    address = address_of(place["address"] or "")
    if address is None or address.is_loopback or any(address_of(a["address"]) == address for a in interface["addresses"]):
        return
    elsewhere = [other for other, its in interfaces.items() if any(address_of(a["address"]) == address for a in its["addresses"])]
    where = f"is on {elsewhere[0]}" if elsewhere else "is on none of the node's interfaces (behind a jump host or address translation?)"
    message = f"The node's address {address} is not on {name}, which carries the cluster's traffic; it {where}."
    remedy = f"Set network_address: {inside[0]} in {here}" if inside else f"Set network_address in {here}"
    remedy += f", or network_interface: {elsewhere[0]}." if elsewhere else "."
    yield problem("network_address", message, remedy, value=place["address"], node=node)


def neighbours(place: Place, seen: Mapping[str, Any]) -> Iterator[Neighbour]:
    """The networks that a node of these network facts has beside the interface that carries the cluster's traffic."""
    kinds = {interface["name"]: interface["kind"] for interface in seen.get("interfaces") or []}
    # (interface, network) -> gateway; a network that is on the wire is also in the routing table.
    others: dict[tuple[str, str], str | None] = {
        (interface["name"], address["network"]): None
        for interface in seen.get("interfaces") or []
        for address in interface["addresses"]
        if interface["name"] != place["interface"]
    }
    for route in seen.get("routes") or []:
        if route["destination"] != "default" and (route["interface"] != place["interface"] or route["gateway"]):
            others.setdefault((route["interface"], route["destination"]), route["gateway"])
    for (name, text), gateway in others.items():
        if network := network_of(text):
            # The node may itself be a container, whose way out is such an interface.
            inner = kinds.get(name) in INNER and name != seen.get("primary_interface")
            yield Neighbour(name, kinds.get(name), network, gateway, inner)


def _overlaps(subnet: Network, place: Place, seen: Mapping[str, Any], node: str) -> Iterator[Problem]:
    for one in neighbours(place, seen):
        severity, name, other = one.severity(subnet), one.interface, one.network
        if severity is None:
            continue
        by = f"route by way of {one.gateway} on {name}" if one.gateway else f"interface {name} ({one.kind or 'unknown kind'})"
        message = f"The cluster's network {subnet} overlaps {other}, {by} of node {node}"
        if severity == "error":
            message += ": addresses in it cannot be reached from there."
        elif other == subnet:
            message += ": traffic to peers may leave by either."
        else:
            message += ": only the cluster's network, the narrower, can be reached."
        if name.startswith(("docker", "br-")):
            remedy = "Choose another network_subnet, or move Docker's (bip and default-address-pools in /etc/docker/daemon.json)."
        else:
            remedy = f"Choose another network_subnet, or take the network off {name} (ip route; ip address show dev {name})."
        yield problem("network_subnet", message, remedy, value=str(subnet), node=node, severity=severity)
