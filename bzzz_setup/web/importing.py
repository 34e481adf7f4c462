# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""An exported declaration taken in: as the inventory folder where there is none yet, else as changes of the draft, to be looked at."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.bzzz.cluster.plugins.module_utils.declaration import load_specs, options_of

from bzzz_setup import portable
from bzzz_setup.declaration import KNOWN_HOSTS, Declaration, is_template
from bzzz_setup.events import Refusal
from bzzz_setup.web.draft import NODES, OPTIONS, SECRETS, Draft, machines, refuse_private_key


@dataclasses.dataclass(frozen=True)
class Taken:
    """changed: paths of the draft. left: what a form has no place for, and so was not taken.

    secrets_missing: those that are set where it comes from, and not here.
    """

    changed: list[str]
    left: list[str]
    secrets_missing: list[str]


def take(draft: Draft, text: str, base: int, by: str, secrets: Mapping[str, str]) -> Taken:
    """Take the declaration in. secrets: those that come beside it. Raises Refusal and, as changing the draft does, Conflict."""
    declaration, lost = portable.declaration_of(text, draft.source, dict(secrets))
    if not draft.source.exists():
        for option, value in declaration.options.items():
            refuse_private_key(option, value)
        declaration.create()
        return Taken([], [], sorted({name for names in lost.values() for name in names}))
    if declaration.cluster != draft.declaration().cluster:
        raise Refusal(
            f"this is the declaration of cluster {declaration.cluster}, and here is {draft.declaration().cluster}",
            "Make an inventory folder of it: bzzz-setup import FILE -i FOLDER, then bzzz-setup web -i FOLDER.",
            option="declaration_cluster_name",
        )
    view = draft.view()
    changes = dict(_changes(view, declaration)) | {f"{SECRETS}/{name}": value for name, value in secrets.items()}
    left = _left(draft, declaration, {path for path, value in changes.items() if is_template(value)})
    if wanted := {path: value for path, value in changes.items() if not is_template(value)}:
        draft.change(base, wanted, by)
    missing = {name for names in lost.values() for name in names if not view["secrets"].get(name)}
    return Taken(sorted(wanted), left, sorted(missing - set(secrets)))


def _changes(view: dict[str, Any], declaration: Declaration) -> Iterator[tuple[str, Any]]:
    """Path and value of all that is to become as declared; what is not declared becomes unset."""
    known = {name for name, spec in options_of(load_specs()).items() if not spec.get("no_log")}

    def options(prefix: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        for name in sorted(known & {*before, *after}):
            if before.get(name) != after.get(name):
                yield f"{prefix}/{name}", after.get(name)

    yield from options(OPTIONS, view["options"], declaration.options)
    after = machines(declaration)
    for node in view["nodes"].keys() - after.keys():
        yield f"{NODES}/{node}", None
    pinned: dict[str, list[str]] = {}
    for line in declaration.known_hosts.splitlines():
        pinned.setdefault(line.partition(" ")[0], []).append(line)
    for node, machine in after.items():
        before = view["nodes"].get(node, {"options": {}})
        own = {part: machine[part] for part in ("address", "port", "groups")}
        if own != {part: before.get(part) for part in own}:
            yield f"{NODES}/{node}", own
            if keys := pinned.get(machine["address"]):
                yield f"{KNOWN_HOSTS}/{machine['address']}", "\n".join(keys)
        yield from options(f"{NODES}/{node}", before["options"], machine["options"])


def _left(draft: Draft, declaration: Declaration, templates: set[str]) -> list[str]:
    """What differs from the inventory folder, and a form has no place for."""
    known, own = options_of(load_specs()), draft.declaration()
    found = [f"{OPTIONS}/{name}" for name, value in declaration.options.items() if name not in known and own.options.get(name) != value]
    found += [file for file in declaration.variables if not file.startswith("host_vars/")]
    return sorted([*templates, *found])
