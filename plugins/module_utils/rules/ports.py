# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ports: no two alike, none that is reserved, none that somebody else holds."""

from __future__ import annotations

import fnmatch
import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

from ..addresses import AddressError, parse_ports
from ..problems import Problem, problem
from .cost import database_node
from .ranges import is_port

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping

    from ..cluster import Cluster
    from ..declaration import Declared

# The service serves the web UI itself, so these two may be one.
SHARED = frozenset({"service_port", "service_web_port"})
# Belongs to an Ollama that is there already.
FOREIGN = "ollama_port"
# Used by nobody but where it is asked for.
GATEWAY = ("gateway_port", "gateway_metrics_port")
# Used where the ledger's PostgreSQL is.
DATABASE = "cost_database_port"
# Used where there are channels for alerts.
ALERTING = ("alerting_port", "alerting_cluster_port")
# Used while models are copied.
COPY = "models_copy_port"
# Used where throughput between the nodes is measured.
NETWORK = "validation_network_port"
# sshd's own port, which is Ansible's as well once the move to it is done, and the units that listen on it.
SSH, SSHD_UNITS = "ssh_port", ("ssh.service", "sshd.service", "ssh.socket", "sshd.socket")
# Where an authority comes to see whose a name is; no option, since authorities know no other port.
ACME, ACME_PORT = "tls_acme_challenge", 80
# What listens for a moment so that the peers can try a port; see node/listen.py.
OWN_PROGRAM = "bzzz-listen"
OWN_UNITS = ("bzzz*.service", "bzzz*.scope")


class Packaged(NamedTuple):
    """A unit of a distribution's package, and what a config set that takes it for the cluster means to others who use it."""

    config_set: str
    option: str
    what: str
    remedy: str


PACKAGED = {
    "etcd.service": Packaged(
        "coordination",
        "coordinators",
        "step 7 would stop and disable it, whatever its ports",
        "Let another node be a coordinator in its place (group coordinators); "
        "or, where nobody needs it any more, stop it yourself: systemctl disable --now etcd.service.",
    ),
    "prometheus-alertmanager.service": Packaged(
        "alerting",
        "alerting_email_to",
        "step 5 would stop and disable it, whatever its ports",
        "Where nobody needs it any more, stop it yourself: systemctl disable --now prometheus-alertmanager.service. "
        "To keep it, declare no channels here, and have it told by the node service's events.",
    ),
    "prometheus-node-exporter.service": Packaged(
        "metrics",
        "metrics_node_exporter_port",
        "step 5 would give it the cluster's arguments and certificates, so that whoever reads it now could not any more",
        "If the cluster may have it: systemctl disable --now prometheus-node-exporter.service "
        "(its /etc/default/prometheus-node-exporter is then kept in /var/lib/bzzz/sets/metrics/originals). "
        "To keep it as it is, run it from a unit of another name, and choose another port here.",
    ),
}


def ports_of(roles: Declared) -> dict[str, int]:
    """Every port that is declared, by option."""
    tls = roles.get("tls") or {}
    return {
        f"{role}_{option}": value
        for role, options in roles.items()
        for option, value in options.items()
        if is_port(option) and isinstance(value, int) and 1 <= value <= 65535 and _used(f"{role}_{option}", options, roles)
    } | ({ACME: ACME_PORT} if (tls.get("mode"), tls.get("acme_challenge")) == ("acme", "http-01") else {})


def _used(option: str, options: Mapping[str, Any], roles: Declared) -> bool:
    if option == DATABASE:
        return bool(database_node(roles))
    if option in ALERTING:
        return bool(options["email_to"] or options["webhook_urls"] or options["slack_url"])
    if option == COPY:
        return bool(options["copy"] and options["wanted"])
    if option == NETWORK:
        return bool(options["benchmark"] and options["network_min_mib_per_second"])
    return option not in GATEWAY or bool(options["enabled"])


def own_ports(roles: Declared, coordinates: bool, node: str) -> dict[str, int]:
    """The ports that the cluster itself listens on, on this node, which is a coordinator or is none."""
    return {
        option: port
        for option, port in ports_of(roles).items()
        if option != FOREIGN
        and (coordinates or not option.startswith(("coordination_", "alerting_", *GATEWAY)))
        and (option != DATABASE or node == database_node(roles))
    }


def is_own(listener: Mapping[str, Any], seen: Mapping[str, Any]) -> bool:
    """Whether a unit of the cluster listens there; `seen` are the node's facts."""
    unit = listener.get("unit") or ""
    if unit in PACKAGED:
        return PACKAGED[unit].config_set in ((seen.get("bzzz_system") or {}).get("sets") or [])
    return listener.get("program") == OWN_PROGRAM or any(fnmatch.fnmatchcase(unit, pattern) for pattern in OWN_UNITS)


def listens(port: int, seen: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Who listens on a port, the cluster or others; `seen` are the node's facts."""
    listeners = (seen.get("bzzz_ports") or {}).get("listeners") or []
    return [one for one in listeners if one["protocol"] == "tcp" and one["port"] == port]


def strangers(option: str, port: int, seen: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Who listens on this port of an option and is none of the cluster; `seen` are the node's facts."""
    return [one for one in listens(port, seen) if not is_own(one, seen) and not (option == SSH and one.get("unit") in SSHD_UNITS)]


def ranges_of(texts: list[str]) -> list[range]:
    """The ranges among these texts; those that are none have a problem of their own."""
    found = []
    for text in texts:
        try:
            found.append(parse_ports(text))
        except AddressError:
            continue
    return found


def free_port(wanted: int, *taken: Container[int]) -> str:
    """A port near the one wanted that is in none of the given sets, for a remedy's text."""
    candidates = itertools.chain(range(max(wanted, 1024) + 1, 65536), range(1024, max(wanted, 1024)))
    port = next((port for port in candidates if not any(port in ports for ports in taken)), None)
    return str(port) if port else "another port"


def literal(declared: Mapping[str, Declared], cluster: Cluster) -> Iterator[Problem]:
    """Ports that clash with each other, with SSH, or with the ranges that the operator keeps for others."""
    ssh = {node["name"]: node["ssh_port"] for node in cluster["nodes"]}
    for node, roles in declared.items():
        reserved = roles["network"]["reserved_ports"]
        for text in reserved:
            try:
                parse_ports(text)
            except AddressError as error:
                remedy = f"Write {error.correct}." if error.correct else "Write ports and ranges such as 6000 or 6000-6100."
                yield problem("network_reserved_ports", str(error), remedy, value=text, node=node)
        kept = ranges_of(reserved)
        taken = {*ports_of(roles).values(), ssh[node]}
        seen: dict[int, str] = {ssh[node]: "ansible_port (SSH)"}
        for option, port in sorted(ports_of(roles).items(), key=lambda item: item[0] == FOREIGN):
            free = free_port(port, taken, *kept)
            if option == SSH and port == ssh[node]:
                continue
            if port in seen and {option, seen[port]} != SHARED:
                message = f"Port {port} is also {seen[port]}."
                remedy = f"Choose another port for one of the two; {free} is free."
                if option == ACME:
                    remedy = f"{_remedy(option, free)}, or set {seen[port]} to another port; {free} is free."
                yield problem(option, message, remedy, value=port, node=node)
            seen.setdefault(port, option)
            span = next((span for span in kept if port in span), None)
            if span is not None and option != FOREIGN:
                message = f"Port {port} is in {span[0]}-{span[-1]}, which network_reserved_ports keeps for others."
                yield problem(option, message, f"{_remedy(option, free)}.", value=port, node=node)


def effective(declared: Mapping[str, Declared], cluster: Cluster, facts: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    """Ports that somebody else listens on, or that the node's kernel keeps or gives away."""
    for node, seen in facts.items():
        roles, ports = declared[node], seen.get("bzzz_ports") or {}
        listeners = [one for one in ports.get("listeners") or [] if one["protocol"] == "tcp"]
        kernel = ranges_of(ports.get("reserved") or [])
        span = ports.get("ephemeral")
        ephemeral = range(span["first"], span["last"] + 1) if span else range(0)
        taken = {*ports_of(roles).values(), *(one["port"] for one in listeners)}
        kept = ranges_of(roles["network"]["reserved_ports"])
        others = [one for one in listeners if not is_own(one, seen)]
        # Those of a unit that would be taken over: then another port is no remedy.
        packaged = {unit: [one for one in others if one.get("unit") == unit] for unit in PACKAGED}
        if node not in cluster["coordinators"]:
            del packaged["etcd.service"]
        if "alerting_port" not in own_ports(roles, node in cluster["coordinators"], node):
            del packaged["prometheus-alertmanager.service"]
        for unit, mine in packaged.items():
            if mine:
                where = " and ".join(dict.fromkeys(str(one["port"]) for one in mine))
                message = f"{unit} ran here before the cluster came, on port {where}, and {PACKAGED[unit].what}."
                yield problem(PACKAGED[unit].option, message, PACKAGED[unit].remedy, node=node)
        for option, port in own_ports(roles, node in cluster["coordinators"], node).items():
            remedy = f"{_remedy(option, free_port(port, taken, *kept, *kernel, ephemeral))}."
            foreign = [one for one in strangers(option, port, seen) if one.get("unit") not in packaged]
            if foreign:
                message = f"Port {port} is taken by {_who(foreign[0])}."
                yield problem(option, message, remedy[:-1] + _stop(foreign[0]), value=port, node=node)
            if any(port in one for one in kernel):
                message = f"Port {port} is kept for another program (net.ipv4.ip_local_reserved_ports)."
                yield problem(option, message, remedy, value=port, node=node)
            elif port in ephemeral:
                message = f"The kernel gives ports {ephemeral[0]} to {ephemeral[-1]} to outgoing connections: it may be taken at any start."
                yield problem(option, message, remedy, value=port, node=node, severity="warning")


def _remedy(option: str, free: str) -> str:
    return "Set tls_acme_challenge: dns-01, which needs no port" if option == ACME else f"Choose another port; {free} is free"


def _who(listener: Mapping[str, Any]) -> str:
    details = [f"pid {listener['pid']}" if listener.get("pid") else "", f"unit {listener['unit']}" if listener.get("unit") else ""]
    known = ", ".join(filter(None, details))
    return f"{listener.get('program') or 'a program that could not be read'}{f' ({known})' if known else ''} on {listener['address']}"


def _stop(listener: Mapping[str, Any]) -> str:
    unit = listener.get("unit") or ""
    return f". Or stop it: systemctl disable --now {unit}" if unit.endswith(".service") else "."
