# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A cluster's beginning, or more machines for it: find them, compare their host keys, take them. What `bzzz-setup init` asks."""

from __future__ import annotations

import getpass
from typing import Any

from ansible_collections.bzzz.cluster.plugins.module_utils import discovery
from fastapi import FastAPI
from pydantic import Field

from bzzz_setup import host_keys, init, keys
from bzzz_setup.declaration import KNOWN_HOSTS, Declaration
from bzzz_setup.events import Refusal
from bzzz_setup.web import answers
from bzzz_setup.web.answers import bad
from bzzz_setup.web.draft import NODES, Draft
from bzzz_setup.web.shapes import API, Body, Machine, Operator, Request, secret
from bzzz_setup.web.wizard import Wizard

PASSPHRASE = "ansible_ssh_private_key_passphrase"  # noqa: S105 - an option's name


class FindBody(Body):
    nodes: str = Field("", max_length=10_000, description="Addresses, ranges, networks and names: '10.0.0.10-20, gpu1, 10.0.1.0/28'.")
    announced: bool = Field(False, description="Also those that announce themselves by mDNS.")
    domain: str | None = Field(None, max_length=253, description="Also those that this DNS domain names.")
    port: int = Field(22, ge=1, le=65535, description="Their SSH port.")


class Found(Machine):
    name: str = Field(max_length=63, pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")


class TakeBody(Body):
    machines: list[Found] = Field(min_length=1, max_length=200)
    known_hosts: str = Field(max_length=2_000_000, description="Their host keys, as /find has told them and a person has compared them.")
    cluster: str = Field("bzzz", max_length=42, description="The cluster's name. For its first machines only, as what follows.")
    user: str = Field("", max_length=64, description="Whom to log in as; needs sudo unless it is root. Who runs the wizard, when empty.")
    key: str | None = Field(
        None, max_length=200, description="Fingerprint of the key to log in with, of /keys; ssh's own choice when null."
    )
    passphrase: str | None = secret("The private key's, where it has one and no agent holds the key.")


def routes(app: FastAPI, wizard: Wizard) -> None:
    """Add them to the application."""
    draft = wizard.draft

    @app.get(f"{API}/keys", tags=["machines"], response_model=None, responses={200: {"model": answers.Keys}})
    def offered(_who: Operator) -> dict[str, Any]:
        """SSH keys that this host has, to log in with, and who runs the wizard."""
        return {"user": getpass.getuser(), "keys": [key.as_dict() for key in keys.offered()]}

    @app.post(
        f"{API}/find",
        tags=["machines"],
        response_model=None,
        responses={200: {"model": answers.FoundMachines}, **bad(_502="The network cannot be asked")},
    )
    def find(who: Operator, request: Request, body: FindBody) -> dict[str, Any]:
        """Machines that answer, by the names that they would get, and their host keys. May take half a minute."""
        known = draft.view()["nodes"]
        search = discovery.Search(
            nodes=(body.nodes,) if body.nodes else (), mdns=body.announced, domain=body.domain or None, port=body.port
        )
        machines, warnings = init.found(search, lambda: None)
        fresh = [machine for machine in machines if not machine.known_as & {node["address"] for node in known.values()}]
        names = dict(zip(init.named([machine.name or machine.host for machine in fresh]), fresh, strict=True))
        lines = host_keys.known_hosts({machine.host: machine.port for machine in fresh}, None) if fresh else ""
        marks: dict[str, list[dict[str, str]]] = {}
        for host, kind, fingerprint in host_keys.fingerprints(lines) if lines else ():
            marks.setdefault(host, []).append({"kind": kind, "fingerprint": fingerprint})
        taken = set(known)
        found = []
        for name, machine in names.items():
            free = _free(name, taken)
            taken.add(free)
            found.append({"name": free, "address": machine.host, "port": machine.port, "keys": marks.get(machine.host, [])})
        return {"machines": found, "known": len(machines) - len(fresh), "known_hosts": lines, "warnings": warnings}

    @app.post(
        f"{API}/machines",
        tags=["machines"],
        status_code=201,
        response_model=None,
        responses={201: {"model": answers.View}, **bad(_409="Changed by somebody else meanwhile")},
    )
    def take(who: Operator, request: Request, body: TakeBody) -> dict[str, Any]:
        """Take machines in: the first ones make the inventory folder, more of them go into the draft."""
        nodes = {machine.name: machine.address for machine in body.machines}
        if missing := host_keys.without_key(body.known_hosts, list(nodes.values())):
            raise Refusal(f"there is no host key of {', '.join(missing)}", "Send what /find has told.", option=KNOWN_HOSTS)
        if draft.source.exists():
            if there := sorted(set(nodes) & set(draft.view()["nodes"])):
                raise Refusal(f"there is a machine called {there[0]} already, perhaps by now", "Look for machines again.", option=NODES)
            changes: dict[str, Any] = {}
            for machine in body.machines:
                changes[f"{NODES}/{machine.name}"] = machine.model_dump(exclude={"name"})
                own = [line for line in body.known_hosts.splitlines() if line.partition(" ")[0] == machine.address]
                changes[f"{KNOWN_HOSTS}/{machine.address}"] = "\n".join(own)
            draft.change(draft.revision, changes, str(who))
            return draft.view()
        _begin(draft, body, nodes)
        return draft.view()


def _free(name: str, taken: set[str]) -> str:
    """The name, or node1, node2, … where another machine has it."""
    return next(one for one in (name, *(f"node{number}" for number in range(1, len(taken) + 2))) if one not in taken)


def _begin(draft: Draft, body: TakeBody, nodes: dict[str, str]) -> None:
    """Make the inventory folder. Raises Refusal."""
    init.check_names(body.cluster, [])
    login = keys.chosen(body.key) if body.key else None
    secrets = {}
    if login and login.locked and not login.agent:
        if not body.passphrase:
            raise Refusal(
                f"{login.file} wants a passphrase, and no agent holds it", "Give it; it is kept in the vault file.", option="passphrase"
            )
        if not login.file or not keys.opens(login.file, body.passphrase):
            raise Refusal("this passphrase does not open the private key", "Give the key's own passphrase.", option="passphrase")
        secrets[PASSPHRASE] = body.passphrase
    identity = keys.identity(login, body.cluster) if login else None
    options = init.options(body.cluster, body.user or getpass.getuser(), identity, [], passphrase=bool(secrets))
    named = {machine.name for machine in body.machines if "coordinators" in machine.groups}
    coordinators = init.choose_coordinators(", ".join(name for name in nodes if name in named) or None, nodes)
    ports = {machine.address: machine.port for machine in body.machines}
    declaration = Declaration(draft.source, init.hosts(nodes, coordinators, ports), options, body.known_hosts, secrets)
    if login and identity:
        keys.keep(login, identity)
    declaration.create()
