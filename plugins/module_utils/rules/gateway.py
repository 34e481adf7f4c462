# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The AI gateway: on coordinators, with models whose endpoints are declared."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..forecast import listed, price
from ..problems import Problem, nearest, problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..cluster import Cluster
    from ..declaration import Declared

OPENAI = "openai"
# The Ollamas of the cluster's own nodes.
CLUSTER = "cluster"
# LiteLLM's own of a deployment, which these would replace; and what would have calls made or billed that are not counted so.
TAKEN = ("model", "api_base", "api_key", "weight", "max_retries", "num_retries")
UNCOUNTED = ("silent_model", "fallbacks", "service_tier", "n", "tools", "functions", "web_search_options", "mock_response")
PRICES = ("input_usd_per_million", "output_usd_per_million")
DEAREST = 1_000_000
# Parameters of a call with bounds; and others that are often declared, by which a slip is known.
NUMBERS: dict[str, tuple[float, float]] = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
}
NUMBERS |= dict.fromkeys(("max_tokens", "max_completion_tokens", "num_ctx", "top_k"), (1, 10_000_000))
NUMBERS |= dict.fromkeys(("timeout", "stream_timeout"), (0.001, 86_400))
KNOWN = (*NUMBERS, "seed", "stop", "reasoning_effort", "verbosity", "min_p", "repetition_penalty", "response_format")


def literal(declared: Mapping[str, Declared], cluster: Cluster) -> Iterator[Problem]:
    for node, roles in declared.items():
        options = roles["gateway"]
        if options["enabled"]:
            yield from _place(options, cluster, node)
            yield from _endpoints(options, node)
            yield from _models(roles, node)
            yield from _fallbacks(options, node)
            if any(entry["endpoint"] == CLUSTER for entry in options["models"]) and roles["tls"]["mode"] != "private_ca":
                message = "The gateway comes to the cluster's nodes by their addresses, for which another authority's certificates are not."
                remedy = "Set tls_mode: private_ca, or declare the nodes' Ollamas in gateway_endpoints."
                yield problem("gateway_models", message, remedy, value=CLUSTER, node=node)
        index = options["release_index"]
        if index and "://" in index and not index.startswith("https://"):
            message = "The release index holds the checksums by which releases are trusted, so it has to come over HTTPS or from a file."
            yield problem(
                "gateway_release_index", message, "Write an https:// URL, or the path of a copy on the admin host.", value=index, node=node
            )
        yield from address("openai_base_url", roles["openai"]["base_url"], node)


def _place(options: Mapping[str, Any], cluster: Cluster, node: str) -> Iterator[Problem]:
    nodes = options["nodes"]
    if len(set(nodes)) < len(nodes):
        yield problem("gateway_nodes", "A node has one gateway.", f"Write {list(dict.fromkeys(nodes))}.", value=nodes, node=node)
    for name in nodes:
        if name not in cluster["coordinators"]:
            message = f"The gateway runs on a coordinator, and {name} is none."
            remedy = (
                f"Name one of {', '.join(cluster['coordinators'])}." if cluster["coordinators"] else "Put a node into group coordinators."
            )
            yield problem("gateway_nodes", message, remedy, value=nodes, node=node)


def _endpoints(options: Mapping[str, Any], node: str) -> Iterator[Problem]:
    seen = {OPENAI, CLUSTER}
    for entry in options["endpoints"]:
        name = entry["name"]
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name, re.ASCII) or name in seen:
            message = "Two endpoints have this name." if name in seen - {OPENAI, CLUSTER} else "An endpoint cannot have this name."
            yield problem("gateway_endpoints", message, "Give each a name of its own, of letters, digits, - and _.", value=name, node=node)
        seen.add(name)
        yield from address("gateway_endpoints", entry["url"], node)
        if entry["kind"] == "ollama" and entry["url"].rstrip("/").endswith("/v1"):
            message = f"{name} is an Ollama, which is called by its own API and not below /v1."
            yield problem("gateway_endpoints", message, "Take /v1 off, or set kind: openai.", value=entry["url"], node=node)
        yield from _weight("gateway_endpoints", entry, node)


def _weight(option: str, entry: Mapping[str, Any], node: str) -> Iterator[Problem]:
    if entry["weight"] < 1:
        remedy = "Write 1 or more, or take the entry out."
        yield problem(option, f"The weight of {entry['name']} is less than 1.", remedy, value=entry["weight"], node=node)


def address(option: str, url: str, node: str) -> Iterator[Problem]:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and not parts.query and not parts.fragment
    except ValueError:
        parts, good = urlsplit(""), False
    if "@" in url:
        message = "An address with user or password in it would be readable by everybody who sees the configuration."
        yield problem(option, message, "Write the address without it, and the key into gateway_endpoint_keys.", node=node)
    elif not good or re.search(r"\s", url):
        yield problem(option, "This is no base URL.", "Write for example https://gpu9.example.com/v1.", value=url, node=node)
    elif option == "openai_base_url" and parts.scheme == "http":
        message = "Over plain HTTP anybody on the way could read the API key."
        yield problem(option, message, "Write an https:// URL.", value=url, node=node, severity="warning")


def _models(roles: Declared, node: str) -> Iterator[Problem]:
    options, openai = roles["gateway"], roles["openai"]
    endpoints = {OPENAI, CLUSTER, *(entry["name"] for entry in options["endpoints"])}
    names = {options["default_model"], *(entry["name"] for entry in options["models"])}
    used = {entry["endpoint"] for entry in options["models"]}
    if options["default_model"] not in {entry["name"] for entry in options["models"]}:
        used.add(OPENAI)
    for name in sorted(name for name in names if "," in name):
        option = "gateway_default_model" if name == options["default_model"] else "gateway_models"
        yield problem(option, f"'{name}' cannot be called: a comma has no place in it.", "Take it out of the name.", value=name, node=node)
    for entry in options["models"]:
        if entry["endpoint"] not in endpoints:
            remedy = f"Write one of {', '.join(sorted(endpoints))}, or add it to gateway_endpoints."
            yield problem(
                "gateway_models", f"{entry['name']} is at an endpoint that is not declared.", remedy, value=entry["endpoint"], node=node
            )
        yield from _weight("gateway_models", entry, node)
        for name in TAKEN:
            if name in entry["parameters"]:
                message = f"{name} is no parameter of a call: it would change where and how often calls of {entry['name']} go."
                yield problem("gateway_models", message, "Take it out of parameters.", node=node)
        for name in UNCOUNTED:
            if name in entry["parameters"]:
                message = f"{name} would have calls of {entry['name']} cost more than is counted for them."
                yield problem("gateway_models", message, "Take it out of parameters.", node=node)
        yield from _parameters(entry, node)
        yield from _priced(roles, entry, "gateway_models", node)
    if options["default_model"] in options["tasks"]:
        message = "This is a task, and what a call without a model gets is a model."
        remedy = f"Write {options['tasks'][options['default_model']]}, or another model."
        yield problem("gateway_default_model", message, remedy, value=options["default_model"], node=node)
    elif not options["default_model"].strip():
        remedy = "Write one of gateway_models, or the name of a model of OpenAI's."
        yield problem("gateway_default_model", "There is no model of this name.", remedy, value=options["default_model"], node=node)
    elif options["default_model"] not in {entry["name"] for entry in options["models"]}:
        default = {"name": options["default_model"], "endpoint": OPENAI, **dict.fromkeys(PRICES)}
        yield from _priced(roles, default, "gateway_default_model", node)
    if OPENAI in used and not openai["api_key"]:
        message = "Models of OpenAI's are declared, and there is no key for them."
        remedy = "Put openai_api_key into the vault file, or set gateway_default_model and gateway_models to models of other endpoints."
        yield problem("openai_api_key", message, remedy, node=node)
    for task, model in options["tasks"].items():
        if model not in names:
            message = f"Task {task} has a model that is not declared."
            yield problem("gateway_tasks", message, f"Write one of {', '.join(sorted(names))}.", value=model, node=node)
        if task in {entry["name"] for entry in options["models"]}:
            message = f"A task and a model are called {task}, and calls name either."
            yield problem("gateway_tasks", message, "Give one of the two another name.", value=task, node=node)
    for user, projects in options["members"].items():
        if not isinstance(projects, list) or not all(isinstance(each, str) and each for each in projects):
            message = f"The projects of {user} are no list of names."
            yield problem("gateway_members", message, "Write for example {anna: [search, web]}.", value=projects, node=node)


def _parameters(entry: Mapping[str, Any], node: str) -> Iterator[Problem]:
    """Values that no call can have, and names that are slips. What LiteLLM may know beside them is taken."""
    for name, value in entry["parameters"].items():
        least, most = NUMBERS.get(name, (0, 0))
        if name in NUMBERS and (isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most):
            message = f"{entry['name']}: {name} must be a number, {least} to {most}."
            yield problem("gateway_models", message, f"Correct {name} in its parameters, or take it out.", value=value, node=node)
        elif name not in KNOWN and (meant := nearest(name, KNOWN)):
            message = f"{entry['name']}: {name} is no parameter that is known here."
            yield problem("gateway_models", message, f"Write {meant}, if that is meant.", value=name, node=node, severity="warning")


def _priced(roles: Declared, entry: Mapping[str, Any], option: str, node: str) -> Iterator[Problem]:
    """Prices that cannot be, and models that nobody could count."""
    both = f"Set {' and '.join(PRICES)}"
    given = {name: entry[name] for name in PRICES if entry[name] is not None}
    for name, value in given.items():
        if not 0 <= value <= DEAREST:  # nor is NaN
            yield problem(
                option, f"{entry['name']}: {name} must be 0 to {DEAREST}.", "Write dollars, such as 2.50.", value=value, node=node
            )
    if len(given) == 1:
        message = f"{entry['name']} has half a price: {', '.join(given)} alone."
        yield problem(option, message, f"{both}: 0 for what costs nothing.", node=node)
    elif given and entry["endpoint"] == OPENAI and not any(given.values()):
        message = f"{entry['name']} is OpenAI's and costs nothing by its declared price, so that no budget holds its calls."
        yield problem(option, message, f"Take {' and '.join(PRICES)} out, or write what it costs.", node=node, severity="warning")
    elif not given and price(roles, entry, listed()) is None:
        message = f"Nobody knows what {entry.get('model') or entry['name']} costs, so that the gateway refuses calls of {entry['name']}."
        remedy = f"Correct its name, or set {' and '.join(PRICES)}."
        if option != "gateway_models":
            remedy = "Correct its name, or have it in gateway_models with its price."
        yield problem(option, message, remedy, value=entry.get("model") or entry["name"], node=node, severity="warning")


def _fallbacks(options: Mapping[str, Any], node: str) -> Iterator[Problem]:
    names = {options["default_model"], *(entry["name"] for entry in options["models"])}
    for model, others in options["fallbacks"].items():
        able = ", ".join(sorted(names - {model})) or "models, which gateway_models declares"
        if model not in names:
            message = f"{model} is no model that is declared."
            yield problem("gateway_fallbacks", message, f"Write one of {', '.join(sorted(names))}.", value=model, node=node)
        if not isinstance(others, list) or not others or len(set(map(str, others))) < len(others):
            message = f"The fallbacks of {model} are no list of models, each once."
            yield problem("gateway_fallbacks", message, f"Write a list of {able}.", value=others, node=node)
            continue
        for other in others:
            if other == model:
                yield problem("gateway_fallbacks", f"{model} falls back to itself.", "Take it out of its own list.", value=other, node=node)
            elif other not in names:
                what = "is a task" if other in options["tasks"] else "is no model that is declared"
                remedy = f"Write one of {able}. One of OpenAI's has to be in gateway_models as well."
                yield problem("gateway_fallbacks", f"{other}, to which {model} falls back, {what}.", remedy, value=other, node=node)
