# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ollama: endpoints are base URLs; what is installed is pinned, fits the node, and takes nobody's place unasked."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..addresses import address_of, is_host_name
from ..node.models import short
from ..problems import Problem, problem
from .ports import own_ports, strangers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..cluster import Cluster
    from ..declaration import Declared

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
DURATION = (r"-1|([0-9]+(\.[0-9]+)?(ms|s|m|h))+", "a duration", "Write for example 30s, 5m or 1h30m.")
# These go into paths, units and environments as they are.
FORMS = {
    "version": (r"[0-9][\w.+-]*", "a version", "Write it as Ollama tells it, for example 0.11.4, without a v."),
    "sha256_amd64": (r"[0-9a-fA-F]{64}", "a SHA-256 checksum", "Write the 64 hexadecimal digits that sha256sum prints."),
    "sha256_arm64": (r"[0-9a-fA-F]{64}", "a SHA-256 checksum", "Write the 64 hexadecimal digits that sha256sum prints."),
    "rocm_sha256": (r"[0-9a-fA-F]{64}", "a SHA-256 checksum", "Write the 64 hexadecimal digits that sha256sum prints."),
    "migrate_unit": (r"[\w:.\\-]+\.service", "a service", "Write for example ollama.service."),
    "user": (r"[a-z_][a-z0-9_-]{0,31}", "a user's name", "Write for example ollama."),
    "models_path": (r"/[\w./+-]*[\w+-]", "an absolute path of plain letters", "Write for example /srv/bzzz/models."),
    "keep_alive": DURATION,
    "load_timeout": DURATION,
}


# What is set of the cluster's own Ollama alone, where nothing is declared.
OWN: dict[str, Any] = {
    **dict.fromkeys(("version", "archive_amd64", "archive_arm64", "sha256_amd64", "sha256_arm64")),
    **{"instances": "one", "migrate": False, "flash_attention": False, "kv_cache_type": "f16", "memory_max_mib": 0},
}


def literal(declared: Mapping[str, Declared], cluster: Cluster) -> Iterator[Problem]:
    """Endpoints that are no base URL; one that carries a password is not repeated."""
    for node, roles in declared.items():
        for url in roles["ollama"]["endpoints"]:
            message, correct = _wrong(url)
            if message:
                remedy = f"Write {correct}." if correct else "Write a base URL such as https://gpu9.example.com:11434."
                yield problem("ollama_endpoints", message, remedy, value=None if "@" in url else url, node=node)
        options = roles["ollama"]
        for option, (pattern, what, remedy) in FORMS.items():
            value = options[option]
            if value and not re.fullmatch(pattern, value, re.ASCII):
                yield problem(f"ollama_{option}", f"This is not {what}.", remedy, value=value, node=node)
        for option in (*(f"archive_{architecture}" for architecture in ARCHITECTURES.values()), "rocm_archive"):
            archive = options[option]
            if archive and "://" in archive and (not archive.startswith("https://") or "@" in archive):
                message = "Archives are fetched over HTTPS, from addresses without a password."
                yield problem(f"ollama_{option}", message, "Give an https:// URL, or a path on the admin host.", node=node)
        if options["manage"] == "install":
            yield from _install(options, node)
        elif vain := sorted(f"ollama_{name}" for name, value in OWN.items() if options[name] != value):
            message = f"{', '.join(vain)} {'has' if len(vain) == 1 else 'have'} no effect: the Ollama that is there is used as it is."
            yield problem(
                "ollama_manage", message, "Set ollama_manage: install, or take them out.", value="adopt", node=node, severity="warning"
            )


def _install(options: Mapping[str, Any], node: str) -> Iterator[Problem]:
    """What an installation needs, and what its settings need of each other."""
    if not options["version"]:
        message = "What is installed must be pinned, and no version is declared."
        yield problem("ollama_version", message, "Set ollama_version, for example 0.11.4, and the checksum of its archive.", node=node)
    given = [architecture for architecture in ARCHITECTURES.values() if options[f"sha256_{architecture}"]]
    for architecture in ARCHITECTURES.values():
        if options[f"archive_{architecture}"] and architecture not in given:
            message = f"The archive for {architecture} has no checksum."
            yield problem(
                f"ollama_sha256_{architecture}", message, f"Set it to what sha256sum prints of the {architecture} archive.", node=node
            )
    if options["rocm_archive"] and not options["rocm_sha256"]:
        message = "The archive of ROCm's libraries has no checksum."
        yield problem("ollama_rocm_sha256", message, "Set it to what sha256sum prints of that archive.", node=node)
    if not given and not any(options[f"archive_{architecture}"] for architecture in ARCHITECTURES.values()):
        remedy = "Set ollama_sha256_amd64 or ollama_sha256_arm64: Ollama's release page lists them in sha256sum.txt."
        yield problem("ollama_sha256_amd64", "No archive has a checksum.", remedy, node=node)
    if options["flavor"] == "parallama" and not any(options[f"archive_{architecture}"] for architecture in ARCHITECTURES.values()):
        message = "Parallama has no known public release, so there is nothing to download."
        yield problem(
            "ollama_flavor", message, "Set ollama_archive_amd64 to your archive, and ollama_sha256_amd64.", value="parallama", node=node
        )
    if options["kv_cache_type"] != "f16" and not options["flash_attention"]:
        message = "Ollama uses such a cache with flash attention only, and would silently take f16."
        yield problem(
            "ollama_kv_cache_type", message, "Set ollama_flash_attention: true, or f16 here.", value=options["kv_cache_type"], node=node
        )
    if options["migrate"] and not options["models_path"]:
        message = "The Ollama whose place is taken has models somewhere, and they are to be kept."
        remedy = "Set it to their directory, as that Ollama has it (OLLAMA_MODELS); its installer's is /usr/share/ollama/.ollama/models."
        yield problem("ollama_models_path", message, remedy, node=node)


def effective(declared: Mapping[str, Declared], cluster: Cluster, facts: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    """Installations that do not fit the node: its architecture, its GPUs, and who has the ports."""
    for node, seen in facts.items():
        options = declared[node]["ollama"]
        if options["manage"] != "install":
            continue
        machine = ((seen.get("bzzz_system") or {}).get("os") or {}).get("architecture")
        architecture = ARCHITECTURES.get(machine or "x86_64")
        if architecture is None:
            yield problem("ollama_manage", f"There is no Ollama for {machine}.", "Set ollama_manage: adopt for this node.", node=node)
        elif not options[f"sha256_{architecture}"]:
            message = f"This node is {architecture}, and no checksum of an archive for it is declared."
            yield problem(f"ollama_sha256_{architecture}", message, "Set it to what sha256sum prints of that archive.", node=node)
        elif options["flavor"] == "parallama" and not options[f"archive_{architecture}"]:
            message = f"This node is {architecture}, and Parallama has no known public release."
            yield problem(f"ollama_archive_{architecture}", message, "Set it to your archive for this architecture.", node=node)
        devices = (seen.get("bzzz_gpu") or {}).get("devices") or []
        if architecture == "amd64" and options["flavor"] == "ollama" and not options["rocm_sha256"] and _for_rocm(devices):
            message = (
                "This node has AMD GPUs, and Ollama has ROCm's libraries in an archive of their own: models would run on the processor."
            )
            remedy = "Set ollama_rocm_sha256: Ollama's release page lists it in sha256sum.txt."
            yield problem("ollama_rocm_sha256", message, remedy, node=node, severity="warning")
        named = [device for device in devices if device.get("uuid")]
        if options["instances"] == "per_gpu":
            if not named:
                message = "None of the node's GPUs tells a UUID." if devices else "This node has no GPU."
                yield problem("ollama_instances", message, "Set ollama_instances: one for this node.", value="per_gpu", node=node)
                continue
            for device in devices:
                if not device.get("uuid"):
                    message = f"The {device.get('vendor')} GPU {device.get('pci_address')} tells no UUID, and gets no instance."
                    remedy = "Nothing is to be done where it is not for models; else see what detection says of it."
                    yield problem("ollama_instances", message, remedy, value="per_gpu", node=node, severity="warning")
        own = own_ports(declared[node], node in cluster["coordinators"], node)
        count = len(named) if options["instances"] == "per_gpu" else 1
        for port in range(options["port"], options["port"] + count):
            other = next((option for option, number in own.items() if number == port), None)
            if port > 65535 or other:
                message = f"{count} instances need ports from {options['port']} on, and {port} is {other or 'none'}."
                yield problem("ollama_port", message, f"Choose another first port, with {count} free from it on.", value=port, node=node)
            yield from _taken(options, port, seen, node)
    yield from _nobody(declared, facts)
    yield from _never_held(declared, facts)


def _for_rocm(devices: list[dict[str, Any]]) -> bool:
    """Whether AMD GPUs are there for models: the processor's own beside an NVIDIA card, without a UUID, is not."""
    amd = [device for device in devices if device.get("vendor") == "amd" and device.get("source") != "pci"]
    return bool(amd) and (len(amd) == len(devices) or any(device.get("uuid") for device in amd))


def _nobody(declared: Mapping[str, Declared], facts: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    """Models that the nodes are to serve, where none of them has an Ollama, nor is to get one."""
    wanted = any(roles["models"]["wanted"] for roles in declared.values())
    called = any(
        entry["endpoint"] == "cluster" for roles in declared.values() if roles["gateway"]["enabled"] for entry in roles["gateway"]["models"]
    )
    have = any((seen.get("bzzz_system") or {}).get("ollama") for seen in facts.values())
    if (
        (wanted or called)
        and set(facts) == set(declared)
        and not have
        and all(each["ollama"]["manage"] != "install" for each in declared.values())
    ):
        message = "The cluster's nodes are to serve models, and none of them has an Ollama."
        remedy = "Set ollama_manage: install, or have an Ollama run on one of them."
        yield problem("ollama_manage", message, remedy, value="adopt", severity="warning")


def _never_held(declared: Mapping[str, Declared], facts: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    """Models that the gateway calls at the cluster's nodes, where no node has them, nor is to get them: their fallbacks are called."""
    if set(facts) != set(declared):
        return
    wanted = {short(one["name"]) for roles in declared.values() for one in roles["models"]["wanted"]}
    ollamas = [(seen.get("bzzz_system") or {}).get("ollama") or {} for seen in facts.values()]
    held = {short(one["name"]) for ollama in ollamas for one in ollama.get("models") or [] if one.get("name")}
    called = {
        entry["name"]: entry["model"] or entry["name"]
        for roles in declared.values()
        if roles["gateway"]["enabled"]
        for entry in roles["gateway"]["models"]
        if entry["endpoint"] == "cluster"
    }
    for name, model in sorted(called.items()):
        if short(model) not in wanted | held:
            message = f"{name} is {model} of the cluster's nodes, none of which has it, and models_wanted does not name it."
            remedy = f"Add {{name: {model}}} to models_wanted. Until a node has it, calls go to its fallbacks."
            yield problem("gateway_models", message, remedy, value=model, severity="warning")


def _taken(options: Mapping[str, Any], port: int, seen: Mapping[str, Any], node: str) -> Iterator[Problem]:
    """Somebody else on an instance's port: an Ollama gives way where that is asked for, and nobody else does."""
    for one in strangers("ollama_port", port, seen):
        if options["migrate"] and one.get("unit") == options["migrate_unit"]:
            continue
        unit = one.get("unit") or ""
        message = f"Port {port} is taken by {one.get('program') or 'a program'} of {unit or 'no unit'}, which the cluster did not install."
        remedy = "Choose another ollama_port, or stop what listens there."
        if one.get("program") == "ollama" and unit.endswith(".service"):
            named = "" if unit == options["migrate_unit"] else f", ollama_migrate_unit: {unit}"
            remedy = (
                "To use it as it is, set ollama_manage: adopt. To take its place and keep its models, set ollama_migrate: true"
                f"{named} and ollama_models_path. Or choose another ollama_port."
            )
        yield problem("ollama_port", message, remedy, value=port, node=node)
        return


def _wrong(url: str) -> tuple[str | None, str | None]:
    """What is wrong with the URL, and how it was probably meant."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "This is no URL.", None
    if "@" in parts.netloc:
        return "An address with user or password in it would be readable by everybody who sees the configuration.", None
    if parts.scheme not in ("http", "https"):
        bare = url.partition("://")[2] if "://" in url else url
        host = bare.partition(":")[0].partition("/")[0]
        return "The URL does not begin with http:// or https://.", f"http://{bare}" if is_host_name(host) or address_of(host) else None
    if not (is_host_name(host) or address_of(host)):
        return "The URL names no host.", None
    if parts.path.startswith(("/api", "/v1")) or parts.query or parts.fragment:
        return "Only the base URL is wanted, without the API's path and without a query.", f"{parts.scheme}://{parts.netloc}"
    if port == 0:
        return "Port 0 does not exist.", None
    return None, None
