# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a step's test button and `bzzz-setup try` ask: whether others answer whom the declaration names, before anything is applied."""

from __future__ import annotations

import ssl
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, cast
from urllib.parse import SplitResult, unquote, urlsplit

import typer
from ansible_collections.bzzz.cluster.plugins.module_utils import downloads
from ansible_collections.bzzz.cluster.plugins.module_utils.addresses import address_of
from ansible_collections.bzzz.cluster.plugins.module_utils.cluster import Cluster
from ansible_collections.bzzz.cluster.plugins.module_utils.declaration import declare, load_specs
from ansible_collections.bzzz.cluster.plugins.module_utils.node import model_server
from ansible_collections.bzzz.cluster.plugins.module_utils.node.egress import Way
from ansible_collections.bzzz.cluster.plugins.module_utils.problems import Problem, errors, problem
from ansible_collections.bzzz.cluster.plugins.module_utils.rules import alerting as alerting_rules
from ansible_collections.bzzz.cluster.plugins.module_utils.rules import gateway as rules

from bzzz_setup import cli, downloading, paths
from bzzz_setup.declaration import Declaration, Vaulted, is_template
from bzzz_setup.events import ExitCode, Refusal
from bzzz_setup.node.auth.directory import Directory
from bzzz_setup.node.auth.outside import Away
from bzzz_setup.web import alerts
from bzzz_setup.web.outside import WAYS, declared, vault

OPENAI, ENDPOINTS, ALERTS = "openai", "endpoints", "alerts"
# Role -> what can be tried of it.
OF_ROLE = {"auth": sorted(WAYS), "openai": [OPENAI], "gateway": [ENDPOINTS], "alerting": [ALERTS]}
SECONDS = 15.0


def out(folder: Path, what: str, directory: Directory | None = None) -> str:
    """Ask, from this host, whom an inventory folder names; returns what is well. Raises Refusal where it is not.

    directory: where failed sign-ins are counted; not wanted to look only.
    """
    if what == OPENAI:
        return _openai(folder)
    if what == ENDPOINTS:
        return _endpoints(folder)
    if what == ALERTS:
        return _alerts(folder)
    return _outside(folder, what, cast("Directory", directory))


def try_(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT", help="openai: its key; endpoints: the gateway's other servers of models; alerts: sends one; ldap; oidc."
        ),
    ],
    inventory: cli.InventoryOption = None,
    as_json: cli.JsonOption = False,
) -> None:
    """Ask, from this host, whether whom the declaration names answers and takes the key. Touches no node."""
    with cli._command(inventory, as_json) as call:
        known = [each for offered in OF_ROLE.values() for each in offered]
        if what not in known:
            raise Refusal(f"there is nothing called {what} to try", f"Name one of {', '.join(sorted(known))}.", option="what")
        told = out(paths.inventory(call.inventory), what)
        if call.as_json:
            cli._print_json({"told": told, "problems": [], "exit_code": 0})
        else:
            cli._out(False).print(f"[green]✔[/] {told}", highlight=False)


def _outside(folder: Path, kind: str, directory: Directory) -> str:
    title, switch, _secret = WAYS[kind]
    option = f"auth_{switch}"
    way = declared(Declaration.read(folder), kind)
    if way is None:
        raise Refusal(f"No {title} is declared.", f"Fill in {option} first.", option=option)
    authority = way.authority(directory)
    try:
        authority.look()
    except Away as away:
        raise Refusal(
            f"{authority.address}: {away}",
            "Correct what is typed, or see that it answers this host; the nodes ask it the same way.",
            ExitCode.NODES_FAILED,
            option=option,
        ) from None
    return f"{authority.address} answers."


class Here(Way):  # type: ignore[misc]
    """This host's way: by the declared proxies and authorities, else by those of its environment."""

    def __init__(self, by: downloads.Way) -> None:
        self.by = by

    def proxy(self, to: SplitResult) -> SplitResult | None:
        proxies = self.by.proxies(to.geturl())
        if proxies is None:
            proxies = {} if urllib.request.proxy_bypass(to.hostname or "") else urllib.request.getproxies()
        found = proxies.get(to.scheme)
        return urlsplit(found if "://" in found else f"http://{found}") if found else None

    def login(self, to: SplitResult) -> str | None:
        return None if to.username is None else f"{unquote(to.username)}:{unquote(to.password or '')}"

    def trusting(self) -> ssl.SSLContext:
        context: ssl.SSLContext = downloads.trust(self.by.certificates)
        return context


def _openai(folder: Path) -> str:
    declaration = Declaration.read(folder)
    options, secrets = options_of(declaration, "openai", "gateway")
    about, gateway = options["openai"], options["gateway"]
    key = str(secrets.get("openai_api_key") or "").strip()
    if not key:
        raise Refusal("There is no key.", "Fill in openai_api_key first; it is kept in the vault file.", option="openai_api_key")
    well_formed("openai_base_url", about["base_url"])
    models = _models(gateway, OPENAI) + ([] if _named(gateway, gateway["default_model"]) else [gateway["default_model"]])
    projects = [each for each in dict.fromkeys([about["project"], *about["projects"].values()]) if each]
    status, seen, remedy = model_server.look(
        Here(downloading.declared(declaration)),
        about["base_url"],
        key=key,
        organization=about["organization"] or "",
        projects=projects,
        models=models,
        call=models[0] if models and about["test_call"] else "",
        seconds=SECONDS,
    )
    return _told([(status, _from_here(seen), _from_here(remedy), "openai_api_key")])


def _endpoints(folder: Path) -> str:
    declaration = Declaration.read(folder)
    options, secrets = options_of(declaration, "gateway")
    gateway = options["gateway"]
    if not gateway["endpoints"]:
        raise Refusal("No endpoint is declared.", "Fill in gateway_endpoints first.", option="gateway_endpoints")
    keys = dict(pair.strip().split("=", 1) for pair in str(secrets.get("gateway_endpoint_keys") or "").split(",") if "=" in pair)
    way, found = Here(downloading.declared(declaration)), []
    for each in gateway["endpoints"]:
        well_formed("gateway_endpoints", each["url"])
        host = urlsplit(each["url"]).hostname or ""
        address = address_of(host)
        if host == "localhost" or (address and address.is_loopback):
            said = f"{each['name']} is on the gateway's own node: step 4 asks it from there, nothing was asked from here"
            found.append(("pass", said, "", "gateway_endpoints"))
            continue
        status, seen, remedy = model_server.look(
            way,
            each["url"],
            api=each["kind"],
            key=keys.get(each["name"], ""),
            option="gateway_endpoint_keys",
            models=_models(gateway, each["name"]),
            seconds=SECONDS,
        )
        found.append((status, f"{each['name']}: {_from_here(seen)}", _from_here(remedy), "gateway_endpoints"))
    return _told(found)


def _alerts(folder: Path) -> str:
    declaration = Declaration.read(folder)
    options, given = options_of(declaration, "alerting")
    alerting = options["alerting"]
    if not (alerting["email_to"] or alerting["webhook_urls"] or alerting["slack_url"]):
        raise Refusal("Nobody is to get alerts.", "Fill in alerting_email_to, alerting_webhook_urls or alerting_slack_url first.")
    cluster: Cluster = {"name": declaration.cluster, "run_id": "", "nodes": [], "coordinators": [""], "settled": []}
    _refuse(errors(alerting_rules.literal({"": options}, cluster)))
    secrets = {name: str(given.get(f"alerting_{name}") or "").strip() for name in alerts.SECRETS}
    found = alerts.send(Here(downloading.declared(declaration)), declaration.cluster, {**alerting, **secrets}, SECONDS)
    return _told([(status, _from_here(seen), _from_here(remedy), option) for status, seen, remedy, option in found])


def _told(found: list[tuple[str, str, str, str]]) -> str:
    """What was seen, with what to mind; raises Refusal with each that fails."""
    wrong = [
        problem(option, f"{seen}.", f"{remedy[:1].upper()}{remedy[1:]}.") for status, seen, remedy, option in found if status == "fail"
    ]
    if wrong:
        refused = Refusal(wrong[0]["message"], wrong[0]["remedy"], ExitCode.NODES_FAILED)
        refused.problems = wrong
        raise refused
    return " ".join(f"{seen}." + (f" To mend it, {remedy}." if status == "warn" else "") for status, seen, remedy, _option in found)


def _from_here(text: str) -> str:
    return text.replace("the node's", "this host's").replace("the node", "this host")


def _named(gateway: Mapping[str, Any], name: str) -> bool:
    return any(each["name"] == name for each in gateway["models"])


def _models(gateway: Mapping[str, Any], endpoint: str) -> list[str]:
    """By the endpoint's own names."""
    return list(dict.fromkeys(each["model"] or each["name"] for each in gateway["models"] if each["endpoint"] == endpoint))


def well_formed(option: str, url: str) -> None:
    _refuse(errors(rules.address(option, url, "")))


def options_of(declaration: Declaration, *roles: str) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Options of these roles for the whole cluster, and the values of those that are secret. Raises Refusal."""
    specs = {role: load_specs()[role] for role in roles}
    known = {name for spec in specs.values() for name in spec["options"]}
    given = {name: value for name, value in {**declaration.options, **vault(declaration)}.items() if name in known}
    if unknown := [name for name, value in given.items() if is_template(value) or isinstance(value, Vaulted)]:
        remedy = "Write it out, a secret into the vault file, or apply: the nodes ask it themselves."
        raise Refusal("Only Ansible can work this out.", remedy, option=unknown[0])
    options, found = declare(specs, {name: _reader(value) for name, value in given.items()}, "")
    _refuse(errors(found))
    return options, given


def _refuse(wrong: list[Problem]) -> None:
    if wrong:
        refused = Refusal(wrong[0]["message"], wrong[0]["remedy"])
        refused.problems = wrong
        raise refused


def _reader(value: Any) -> Callable[[], Any]:
    return lambda: value
