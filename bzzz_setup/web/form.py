# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a form is made of, and what is wrong with what is in it: all from the roles' argument specs and the collection's rules."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.bzzz.cluster.plugins.module_utils import rules
from ansible_collections.bzzz.cluster.plugins.module_utils.cluster import Cluster, Node
from ansible_collections.bzzz.cluster.plugins.module_utils.declaration import Declared, Specs, declare, load_specs
from ansible_collections.bzzz.cluster.plugins.module_utils.problems import Problem, merged

from bzzz_setup import schema, steps
from bzzz_setup.declaration import is_template
from bzzz_setup.web import trying

# A role's argument spec names first what most people decide; the rest has defaults that fit.
ESSENTIAL = 4
# Within a step: what others build upon comes before them.
FIRST = ("declaration", "ollama", "models", "openai", "gateway", "cost", "service")
_STEP = re.compile(r"Step (\d+), (.+)")


def form() -> dict[str, Any]:
    """`{steps: [{number, slug, title, roles: [{name, title, description, essential, tests, schema}]}]}`.

    Roles of no step belong to the first.
    """
    definitions = schema.json_schema()["$defs"]
    found: list[dict[str, Any]] = [{"number": step.number, "slug": step.slug, "title": step.title, "roles": []} for step in steps.steps()]
    for name, definition in definitions.items():
        if not definition["properties"]:
            continue
        match = _STEP.fullmatch(definition["title"])
        number, title = (int(match[1]), match[2]) if match else (found[0]["number"], definition["title"])
        role = {
            "name": name,
            "title": title[:1].upper() + title[1:],
            "description": definition["description"],
            "essential": [*definition["properties"]][:ESSENTIAL],
            "tests": trying.OF_ROLE.get(name, []),
            "schema": {key: definition[key] for key in ("type", "properties", "required")},
        }
        next(step for step in found if step["number"] == number)["roles"].append(role)
    for step in found:
        step["roles"].sort(
            key=lambda role: (
                FIRST.index(role["name"]) if role["name"] in FIRST else len(FIRST),
                role["name"] != step["slug"],
                role["name"],
            )
        )
    return {"steps": found}


def step_of(option: str, specs: Specs | None = None) -> int:
    """The number of the step that an option belongs to; 1 for one that is no role's."""
    for description in (specs or load_specs()).values():
        if option in description["options"]:
            match = _STEP.fullmatch(str(description["short_description"]))
            return int(match[1]) if match else 1
    return 1


def judged(view: Mapping[str, Any], facts: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, Any]:
    """`{problems, detected, ports, networks}` of a draft's view on nodes with these facts.

    problems: what the rules say, each with the `step` to mend it in. detected: option -> node -> what it is where it is not set.
    ports and networks: what there is to draw of those, see `_ports` and `_networks`.
    Options that hold templates are left out: `bzzz-setup check` has Ansible work them out.
    """
    specs = load_specs()
    declared: dict[str, Declared] = {}
    told: list[Problem] = []
    for name, machine in view["nodes"].items():
        given = {
            **view["options"],
            **machine["options"],
            **dict.fromkeys((key for key, is_set in view["secrets"].items() if is_set), "********"),
        }
        readers = {option: _reader(value) for option, value in given.items() if not is_template(value)}
        declared[name], found = declare(specs, readers, name)
        told += [one for one in found if not view["secrets"].get(one["option"])]
    cluster = _cluster(view, declared)
    told += rules.founded(rules.literal(declared, cluster), told)
    known = {name: seen for name, seen in (facts or {}).items() if name in declared}
    detected: dict[str, dict[str, Any]] = {}
    networks: dict[str, Any] = {"subnets": [], "others": []}
    wrong = {str(one["option"]) for one in told if one["severity"] == "error"}
    if known and not wrong:
        told += rules.effective(declared, cluster, known)
    # What is detected is of the network, and does not go away for what is wrong elsewhere.
    if known and not any(name in specs[role]["options"] for role in ("network", "firewall") for name in wrong):
        filled, settled = rules.settled(declared, cluster, known)
        for node in known:
            for option, value in filled[node]["network"].items():
                if value is not None and declared[node]["network"][option] is None:
                    detected.setdefault(f"network_{option}", {})[node] = value
        for machine in settled["nodes"]:
            if machine["firewall"] and declared[machine["name"]]["firewall"]["backend"] == "auto":
                detected.setdefault("firewall_backend", {})[machine["name"]] = machine["firewall"]
        networks = _networks(declared, cluster, known)
    return {
        "problems": [{**one, "step": step_of(one["option"], specs)} for one in merged(told, list(declared))],
        "detected": detected,
        "ports": _ports(declared, cluster, known),
        "networks": networks,
    }


def _ports(declared: Mapping[str, Declared], cluster: Cluster, facts: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """`{option, port, protocol, nodes, taken: [{node, program, pid, unit}], own}` of every port that the cluster is to listen on.

    taken: who else listens there. own: nodes on which the cluster does already.
    """
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for node, roles in declared.items():
        for option, port in rules.ports.own_ports(roles, node in cluster["coordinators"], node).items():
            one = found.setdefault((option, port), {"option": option, "port": port, "protocol": "tcp", "nodes": [], "taken": [], "own": []})
            one["nodes"].append(node)
            parts = ("program", "pid", "unit")
            seen = facts.get(node, {})
            # One program listens on several addresses.
            listening = {tuple(who.get(part) for part in parts): None for who in rules.ports.strangers(option, port, seen)}
            one["taken"] += [{"node": node, **dict(zip(parts, who, strict=True))} for who in listening]
            if not listening and rules.ports.listens(port, seen):
                one["own"].append(node)
    return sorted(found.values(), key=lambda one: one["port"])


def _networks(declared: Mapping[str, Declared], cluster: Cluster, facts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """`{subnets, others: [{network, interface, kind, gateway, severity, nodes}]}`: the cluster's own, and which others its nodes know.

    severity: the worst that the rules say of it, None where it is apart.
    """
    places = rules.network.places(declared, cluster, facts)
    subnets = {str(network): network for place in places.values() if (network := rules.network.network_of(place["subnet"]))}
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for node, place in places.items():
        for one in rules.network.neighbours(place, facts[node].get("bzzz_network") or {}):
            severity = min(filter(None, map(one.severity, subnets.values())), default=None)  # an error comes before a warning
            network = one.network
            of_one_host = network.prefixlen == network.max_prefixlen
            if severity or not (
                of_one_host or network.is_link_local or network.is_multicast or network.is_loopback or network.prefixlen < 8
            ):
                key = (severity is None, severity or "", network.version, network, one.interface, one.kind or "", one.gateway or "")
                shown = {
                    "network": str(network),
                    "interface": one.interface,
                    "kind": one.kind,
                    "gateway": one.gateway,
                    "severity": severity,
                }
                found.setdefault(key, {**shown, "nodes": []})["nodes"].append(node)
    return {"subnets": list(subnets), "others": [found[key] for key in sorted(found)]}


def _reader(value: Any) -> Callable[[], Any]:
    return lambda: value


def _cluster(view: Mapping[str, Any], declared: Mapping[str, Declared]) -> Cluster:
    nodes: list[Node] = [
        {
            "name": name,
            "address": declared[name]["network"]["address"] or machine["address"],
            "groups": sorted(machine["groups"]),
            "ssh_port": machine["port"],
            "ssh_user": "root",
            "ssh_password": False,
            "become": True,
            "become_password": False,
            "firewall": None,
            "sources": [],
        }
        for name, machine in view["nodes"].items()
    ]
    coordinators = [name for name, machine in view["nodes"].items() if "coordinators" in machine["groups"]]
    return {"name": str(view["cluster"]), "run_id": "", "nodes": nodes, "coordinators": coordinators, "settled": []}
