# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Resources: paths that may be given away, memory and CPU that add up, disks with room."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING, Any

from ..problems import Problem, problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..cluster import Cluster
    from ..declaration import Declared

PATHS = (("resources", "data_path"), ("resources", "log_path"), ("resources", "models_path"), ("coordination", "data_path"))
# Nothing of ours in or below these ...
SYSTEM = (
    *("/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/run", "/sbin", "/sys", "/usr"),
    *("/tmp", "/var/tmp"),  # noqa: S108 - named to be refused
    *("/home", "/root"),  # the services' units do not see them
    *("/opt/bzzz", "/var/lib/bzzz/ca", "/var/lib/bzzz/secrets", "/var/lib/bzzz/sets"),
)
# ... nor in place of these.
SHARED = (
    *("/", "/media", "/mnt", "/opt", "/srv", "/var"),
    *("/var/cache", "/var/lib", "/var/lib/bzzz", "/var/log", "/var/spool"),
)


def literal(declared: Mapping[str, Declared], cluster: Cluster) -> Iterator[Problem]:
    """Paths, and sums that contradict each other."""
    for node, roles in declared.items():
        taken: dict[str, str] = {}
        for role, option in PATHS:
            path, name = roles[role][option], f"{role}_{option}"
            wrong = _wrong_path(path)
            if wrong:
                yield problem(name, *wrong, value=path, node=node)
            elif path.rstrip("/") in taken:
                message = f"This is also {taken[path.rstrip('/')]}; owners and modes of the two differ."
                yield problem(name, message, f"Give {name} a directory of its own.", value=path, node=node)
            elif role == "coordination" and (
                other := next((other for other in taken if _within(path, other) or _within(path=other, other=path)), None)
            ):
                message = f"{path} and {taken[other]} ({other}) are one inside the other, but belong to two users who keep others out."
                yield problem(name, message, f"Give {name} a directory beside it.", value=path, node=node)
            if not wrong:
                taken.setdefault(path.rstrip("/"), name)
        yield from _budget(roles["resources"], _needs(roles, node, cluster), node)


def _within(path: str, other: str) -> bool:
    return path.startswith(other.rstrip("/") + "/")


def _wrong_path(path: str) -> tuple[str, str] | None:
    """Message and remedy for a path that cannot or should not be used."""
    if not path.startswith("/") or path.startswith("//"):
        return "The path is not absolute.", "Begin the path with one slash, for example /srv/bzzz."
    if not re.fullmatch(r"[\w./@+-]+", path):
        return "The path holds characters that unit files and shells read in their own way.", "Use letters, digits and . _ @ + - only."
    clean = posixpath.normpath(path)
    if clean not in (path, path[:-1]):
        return "The path goes up or round about.", f"Write {clean}."
    if clean in SHARED or any(clean == system or clean.startswith(system + "/") for system in SYSTEM):
        return (
            f"{clean} belongs to the system; the cluster takes a directory over with owner and mode.",
            "Use a directory of its own, for example below /srv.",
        )
    return None


def _needs(roles: Declared, node: str, cluster: Cluster) -> dict[str, int]:
    """Memory limits of the services that run on the node, in MiB, by option."""
    needs = {"resources_service_memory_max_mib": roles["resources"]["service_memory_max_mib"]}
    if node in cluster["coordinators"]:
        needs["resources_coordination_memory_max_mib"] = roles["resources"]["coordination_memory_max_mib"]
    return needs


def _budget(resources: Mapping[str, Any], needs: Mapping[str, int], node: str) -> Iterator[Problem]:
    most, parts = resources["memory_max_mib"], " + ".join(f"{name} {value}" for name, value in needs.items())
    if most and sum(needs.values()) > most:
        message = f"The services together may use less than they may each: {parts} = {sum(needs.values())} MiB."
        remedy = f"Set resources_memory_max_mib to {sum(needs.values())} or more, or to 0, or lower the others."
        yield problem("resources_memory_max_mib", message, remedy, value=most, node=node)
    quota, share = resources["cpu_quota_percent"], resources["service_cpu_quota_percent"]
    if quota and share > quota:
        message = f"The node service alone may use more than all services together ({quota} %)."
        remedy = f"Set resources_service_cpu_quota_percent to {quota} or less, or raise resources_cpu_quota_percent."
        yield problem("resources_service_cpu_quota_percent", message, remedy, value=share, node=node)


def effective(declared: Mapping[str, Declared], cluster: Cluster, facts: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    """What does not fit on the node."""
    for node, seen in facts.items():
        roles, system = declared[node], seen.get("bzzz_system") or {}
        yield from _memory(roles["resources"], _needs(roles, node, cluster), system, node)
        yield from _threads(roles["resources"], system, node)
        yield from _disks(roles, node in cluster["coordinators"], system, node)


def _memory(resources: Mapping[str, Any], needs: Mapping[str, int], system: Mapping[str, Any], node: str) -> Iterator[Problem]:
    total = (system.get("memory") or {}).get("total_mib")
    if not total:
        return
    if resources["memory_max_mib"] > total:
        message = f"The node has {total} MiB of memory."
        remedy = f"Set resources_memory_max_mib to less than {total} for this node (host_vars), or to 0."
        yield problem("resources_memory_max_mib", message, remedy, value=resources["memory_max_mib"], node=node)
    if sum(needs.values()) > total:
        option = max(needs, key=lambda name: needs[name])
        message = f"The node has {total} MiB of memory, but the limits add up to {sum(needs.values())} MiB: "
        message += ", ".join(f"{name} {value}" for name, value in needs.items()) + "."
        yield problem(option, message, f"Lower {' or '.join(needs)} for this node (host_vars).", value=needs[option], node=node)


def _threads(resources: Mapping[str, Any], system: Mapping[str, Any], node: str) -> Iterator[Problem]:
    threads = (system.get("cpu") or {}).get("threads")
    for option in ("cpu_quota_percent", "service_cpu_quota_percent"):
        if threads and resources[option] > threads * 100:
            message = f"The node has {threads} threads, which is {threads * 100} per cent, so this limits nothing."
            remedy = f"Set resources_{option} to less than {threads * 100}, or to 0 for no limit."
            yield problem(f"resources_{option}", message, remedy, value=resources[option], node=node, severity="warning")


def _disks(roles: Declared, coordinator: bool, system: Mapping[str, Any], node: str) -> Iterator[Problem]:
    least = roles["resources"]["disk_free_min_mib"]
    for role, option in PATHS:
        if role == "coordination" and not coordinator:
            continue
        path = roles[role][option]
        mount = mount_of(path, system.get("mounts") or [])
        free = (mount or {}).get("available_mib")
        if mount and free is not None and free < least:
            message = f"{mount['path']}, where {path} is, has {free} MiB free; {least} are wanted."
            remedy = f"Make room there (df -h {mount['path']}), choose another {role}_{option}, or lower resources_disk_free_min_mib."
            yield problem(f"{role}_{option}", message, remedy, value=path, node=node)


def mount_of(path: str, mounts: list[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The mount that `path` is or would be on; later entries hide earlier ones of the same path."""
    on = [mount for mount in mounts if path == mount["path"] or path.startswith(mount["path"].rstrip("/") + "/")]
    return max(reversed(on), key=lambda mount: len(mount["path"]), default=None)
