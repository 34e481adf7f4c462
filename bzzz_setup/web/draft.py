# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What people have typed and not applied yet: changes laid over the inventory folder, kept on the server.

A change is a path and a value. Paths: `options/<option>` for the cluster, `nodes/<node>` for a machine itself,
`nodes/<node>/<option>` for what differs on it, `secrets/<option>`. Each has a revision, so that who has not seen a change
made meanwhile is told before it is overwritten. Secrets are kept by the cluster's vault key, and never read back.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.bzzz.cluster.plugins.module_utils.declaration import Spec, load_specs, options_of
from ansible_collections.bzzz.cluster.plugins.module_utils.rules.ranges import unfit
from ansible_collections.bzzz.cluster.plugins.module_utils.rules.ssh import holds_private_key

from bzzz_setup import paths
from bzzz_setup.declaration import (
    HOSTS,
    KNOWN_HOSTS,
    MAIN,
    NAME,
    VAULT,
    Declaration,
    Vaulted,
    decrypted,
    dump,
    encrypted,
    is_template,
    mapping,
    typed,
    with_secrets,
    write,
)
from bzzz_setup.editing import REMOVED, edited
from bzzz_setup.events import ExitCode, Refusal

OPTIONS, NODES, SECRETS = "options", "nodes", "secrets"
# A run over a copy is over by then.
COPY_SECONDS = 24 * 3600
NODE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}")
GROUPS = ("coordinators", "workers", "storage")


@dataclasses.dataclass(frozen=True)
class Change:
    """value: None takes it away; of a secret it is the vault's text. at: seconds since the epoch."""

    value: Any
    revision: int
    by: str
    at: float


class Conflict(Exception):
    """Somebody else has changed the same meanwhile. changes: those, by path."""

    def __init__(self, changes: dict[str, Change]) -> None:
        super().__init__(", ".join(changes))
        self.changes = changes


class Draft:
    """The changes over one inventory folder, in one file. Methods may be called from any thread."""

    def __init__(self, source: Path, file: Path) -> None:
        self.source, self.file = source, file
        self._lock = threading.RLock()
        self.revision, self.changes = self._read()
        self._seen: tuple[Any, dict[str, Any]] | None = None
        for left in self.file.parent.glob("folder-*"):  # by a wizard that was killed
            if time.time() - left.stat().st_mtime > COPY_SECONDS:
                shutil.rmtree(left, ignore_errors=True)

    def _read(self) -> tuple[int, dict[str, Change]]:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            kept = json.loads(self.file.read_text(encoding="utf-8"))
            return int(kept["revision"]), {path: Change(**change) for path, change in kept["changes"].items()}
        return 0, {}

    def _keep(self) -> None:
        self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        changes = {path: dataclasses.asdict(change) for path, change in self.changes.items()}
        write(self.file, json.dumps({"revision": self.revision, "changes": changes}, ensure_ascii=False) + "\n", 0o600)

    def change(self, base: int, wanted: Mapping[str, Any], by: str) -> int:
        """Lay these values over; returns the new revision. base: the revision that was seen by who asks.

        Raises Conflict where one of them was changed since, by somebody else or in another window, and Refusal for a path that is none.
        """
        with self._lock:
            newer = {path: self.changes[path] for path in wanted if path in self.changes and self.changes[path].revision > base}
            if newer := {path: change for path, change in newer.items() if change.value != wanted[path]}:
                raise Conflict(newer)
            for path, value in wanted.items():
                _check(path, value)
            self.revision += 1
            for path, value in wanted.items():
                kept = self._sealed(value) if path.startswith(f"{SECRETS}/") and value is not None else value
                self.changes[path] = Change(kept, self.revision, by, time.time())
            self._keep()
            return self.revision

    def discard(self) -> int:
        """Forget all changes; returns the new revision."""
        with self._lock:
            self.changes.clear()
            self.revision += 1
            self._keep()
            return self.revision

    def _sealed(self, value: Any) -> str:
        if not isinstance(value, str):
            raise Refusal("a secret is text", "Give it as text.", option=SECRETS)
        return encrypted(dump({"value": value}), self.declaration().cluster)

    def _unsealed(self, change: Change) -> Any:
        found = None if change.value is None else decrypted(change.value, self.declaration().cluster)
        return found["value"] if found else None

    # --- the folder with the changes in it ---

    def declaration(self) -> Declaration:
        """The folder's own, without the changes; an empty one where there is none yet."""
        return Declaration.read(self.source)

    def files(self) -> dict[str, str]:
        """The files that are to become others, by their names within the folder, and their texts. Raises Refusal."""
        with self._lock:
            found = {name: edited(self._text(name), changes, self.source / name) for name, changes in self._by_file().items()}
            if secrets := self._with_prefix(SECRETS):
                found[VAULT] = self._vault({name: self._unsealed(change) for name, change in secrets.items()})
            if keys := self._with_prefix(KNOWN_HOSTS):
                kept = [line for line in self._text(KNOWN_HOSTS).splitlines() if line.partition(" ")[0] not in keys]
                added = [line for change in keys.values() for line in (change.value or "").splitlines()]
                found[KNOWN_HOSTS] = "".join(f"{line}\n" for line in [*kept, *added])
            return {name: text for name, text in found.items() if text != self._text(name)}

    def _text(self, name: str) -> str:
        file = self.source / name
        return file.read_text(encoding="utf-8") if file.is_file() else ""

    def _with_prefix(self, kind: str) -> dict[str, Change]:
        return {path.removeprefix(f"{kind}/"): change for path, change in self.changes.items() if path.startswith(f"{kind}/")}

    def _by_file(self) -> dict[str, dict[tuple[str, ...], Any]]:
        """File -> path in its YAML -> value."""
        found: dict[str, dict[tuple[str, ...], Any]] = {}

        def put(file: str, *path: str, value: Any) -> None:
            found.setdefault(file, {})[path] = value

        hosts = self.declaration().hosts
        for option, change in self._with_prefix(OPTIONS).items():
            put(MAIN, option, value=change.value)
        for option, change in self._with_prefix(SECRETS).items():
            # One that an operator keeps beside the vault would still be in force.
            if change.value is None and option in self.declaration().options:
                put(MAIN, option, value=None)
        for rest, change in self._with_prefix(NODES).items():
            node, _, option = rest.partition("/")
            if option:
                put(f"host_vars/{node}.yml", option, value=change.value)
                continue
            machine = change.value
            places = {way: own for way, own in _places(hosts) if node in own}
            if machine is None:
                for way in places:
                    put(HOSTS, *way, node, value=REMOVED)
                continue
            # Where its address is now, or where all are.
            home = next((way for way, own in places.items() if "ansible_host" in (own[node] or {})), ("bzzz", "hosts"))
            put(HOSTS, *home, node, value={**(places.get(home, {}).get(node) or {}), **_connection(machine)})
            for group in GROUPS:
                way = ("bzzz", "children", group, "hosts")
                if group in machine["groups"] and way not in places:
                    put(HOSTS, *way, node, value={})
                elif group not in machine["groups"] and way in places and way != home:
                    put(HOSTS, *way, node, value=REMOVED)
        return found

    def _vault(self, wanted: dict[str, Any]) -> str:
        return with_secrets(self._text(VAULT), self.declaration().cluster, wanted, self.source / VAULT)

    @contextlib.contextmanager
    def folder(self) -> Iterator[Path]:
        """A copy of the inventory folder with the changes in it, for as long as it is wanted; the folder itself where there are none."""
        with self._lock:
            if not self.changes:
                changed = None
            else:
                changed = self.file.with_name(f"folder-{time.time_ns()}")
                if self.source.is_dir():
                    shutil.copytree(self.source, changed, symlinks=True)
                _write(changed, self.files())
        try:
            yield changed or self.source
        finally:
            if changed:
                shutil.rmtree(changed, ignore_errors=True)

    def publish(self) -> list[str]:
        """Put the changes into the inventory folder; returns the names of the files that are others now. The draft is empty then.

        What was there before lies beside the draft's own file. Raises Refusal when something cannot be written: nothing is lost then.
        """
        with self._lock:
            new = self.files()
            try:
                if before := {name: self._text(name) for name in new if self._text(name)}:
                    _write(self.file.with_name("replaced") / time.strftime("%Y%m%d-%H%M%S"), before)
                _write(self.source, new)
            except OSError as error:
                why = f"{error.filename} cannot be written: {error.strerror}"
                raise Refusal(why, "Start bzzz-setup web as a user who may write the inventory.", option="inventory") from error
            self.changes.clear()
            self.revision += 1
            self._keep()
            return sorted(new)

    # --- what a form shows ---

    def stamp(self) -> tuple[Any, ...]:
        """Other when the draft, or what it lies over, has become another."""
        found: list[Any] = [self.revision]
        for file in (*self.source.rglob("*"), *paths.config("*").parent.glob("*/vault-key")):
            with contextlib.suppress(FileNotFoundError):
                seen = file.stat()
                found.append((str(file), seen.st_mtime_ns, seen.st_size))
        return tuple(found)

    def view(self) -> dict[str, Any]:
        """`{revision, cluster, nodes, options, secrets, changed, templates, elsewhere}`, as they are to become: shared, do not change it.

        Of secrets it is told only whether they are set; `templates` are paths of values that Ansible works out.
        """
        with self._lock:
            stamp = self.stamp()
            if self._seen is None or self._seen[0] != stamp:
                self._seen = stamp, self._view()
            return self._seen[1]

    def _view(self) -> dict[str, Any]:
        with self._lock:
            declaration, specs = self.declaration(), options_of(load_specs())
            hidden = {name for name, spec in specs.items() if spec.get("no_log")}
            options = {name: value for name, value in declaration.options.items() if name in specs and name not in hidden}
            secrets = {name: name in declaration.secrets_set() | set(declaration.options) for name in hidden}
            nodes = machines(declaration)
            for path, change in sorted(self.changes.items(), key=lambda item: item[1].revision):
                kind, _, rest = path.partition("/")
                node, _, option = rest.partition("/")
                if kind == OPTIONS:
                    _put(options, rest, typed(change.value))
                elif kind == SECRETS:
                    secrets[rest] = change.value is not None
                elif kind == NODES and not option:
                    _put(nodes, node, {"options": {}, **nodes.get(node, {}), **change.value} if change.value else None)
                elif kind == NODES and node in nodes:
                    _put(nodes[node]["options"], option, typed(change.value))
            changed = {
                path: {"revision": change.revision, "by": change.by, "at": change.at}
                for path, change in self.changes.items()
                if not path.startswith(KNOWN_HOSTS) and not _nothing(path, change, declaration)
            }
            # Paths are made of it: one that is none is told by the rules, and stays out of them.
            typed_name = str(options.get("declaration_cluster_name", ""))
            cluster = typed_name if NAME.fullmatch(typed_name) else declaration.cluster
            templates = [f"{OPTIONS}/{name}" for name, value in options.items() if is_template(value)]
            templates += [
                f"{NODES}/{node}/{name}" for node, own in nodes.items() for name, value in own["options"].items() if is_template(value)
            ]
            return {
                "revision": self.revision,
                "cluster": cluster,
                "nodes": nodes,
                "options": options,
                "secrets": secrets,
                "changed": changed,
                "templates": templates,
                "elsewhere": _elsewhere(declaration, specs),
            }


def _elsewhere(declaration: Declaration, specs: Mapping[str, Spec]) -> dict[str, list[dict[str, Any]]]:
    """Option -> `{file, value}`s, of what an operator keeps in other files of the folder than a form writes; no secret's value."""
    kept = {HOSTS: list(_variables(declaration.hosts))}
    own = {MAIN, VAULT, *(f"host_vars/{node}.yml" for node in machines(declaration))}
    tops = (declaration.folder / name for name in ("group_vars", "host_vars"))
    for file in sorted(file for top in tops for file in top.rglob("*.y*ml")):
        if (name := str(file.relative_to(declaration.folder))) not in own:
            with contextlib.suppress(Refusal):  # broken, or encrypted: Ansible says so
                kept[name] = [mapping(file)]
    found: dict[str, list[dict[str, Any]]] = {}
    for file_name, groups in kept.items():
        for variables in groups:
            for option, value in variables.items():
                if option in specs:
                    hidden = specs[option].get("no_log") or isinstance(value, Vaulted)
                    found.setdefault(option, []).append({"file": file_name, "value": None if hidden else value})
    return found


def _variables(groups: Any) -> Iterator[dict[str, Any]]:
    """Of groups, however they are nested, their variables."""
    for content in (groups or {}).values():
        if isinstance(content, dict):
            if isinstance(content.get("vars"), dict):
                yield content["vars"]
            yield from _variables(content.get("children"))


def machines(declaration: Declaration) -> dict[str, dict[str, Any]]:
    """Node -> `{address, port, groups, options}`, as the inventory's files say."""
    found: dict[str, dict[str, Any]] = {}
    for way, hosts in _places(declaration.hosts):
        for name, given in hosts.items():
            one = found.setdefault(str(name), {"address": str(name), "port": 22, "groups": [], "options": {}})
            own = dict(given or {})
            one["address"] = str(own.pop("ansible_host", one["address"]))
            one["port"] = int(own.pop("ansible_port", one["port"]))
            one["options"] |= own
            one["groups"] += [group for group in GROUPS if way == ("bzzz", "children", group, "hosts")]
    for name, one in found.items():
        one["options"] |= declaration.of_node(name)
        one["groups"].sort(key=GROUPS.index)
    return found


def _places(groups: Any, way: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Of groups, however they are nested, the ways to their hosts, and these."""
    for group, content in (groups or {}).items():
        if isinstance(content, dict):
            if isinstance(content.get("hosts"), dict):
                yield (*way, str(group), "hosts"), content["hosts"]
            yield from _places(content.get("children"), (*way, str(group), "children"))


def _connection(machine: dict[str, Any]) -> dict[str, Any]:
    port = {"ansible_port": machine["port"]} if machine.get("port", 22) != 22 else {}
    return {"ansible_host": machine["address"], **port}


def _put(mapping: dict[str, Any], key: str, value: Any) -> None:
    if value is None:
        mapping.pop(key, None)
    else:
        mapping[key] = value


def _check(path: str, value: Any) -> None:
    """Raises Refusal for a path that leads nowhere, and for host keys that are another's."""
    kind, _, rest = path.partition("/")
    node, _, option = rest.partition("/")
    specs: dict[str, Spec] = options_of(load_specs())
    name = option if kind == NODES else rest
    secret = bool(specs.get(name, {}).get("no_log"))
    known = {
        OPTIONS: name in specs and not secret,
        SECRETS: secret,
        # Files are called by it.
        NODES: bool(NODE.fullmatch(node)) and (not option or (name in specs and not secret)),
        KNOWN_HOSTS: bool(rest) and isinstance(value, str) and all(line.startswith(f"{rest} ") for line in value.splitlines()),
    }
    if not known.get(kind):
        remedy = "Write options/<option>, nodes/<node>, nodes/<node>/<option> or secrets/<option>; the schema lists the options."
        raise Refusal(f"there is nothing at '{path}'", remedy, ExitCode.REFUSED, option=name or path)
    if not secret:
        refuse_private_key(name or path, value)
    elif isinstance(value, str):
        _fits(name, value)


def _nothing(path: str, change: Change, declaration: Declaration) -> bool:
    """Whether it takes away what is not there: somebody has typed a value and thought better of it."""
    kind, _, name = path.partition("/")
    there: dict[str, Iterable[str]] = {OPTIONS: declaration.options, SECRETS: declaration.secrets_set() | set(declaration.options)}
    return change.value is None and kind in there and name not in there[kind]


def _fits(name: str, secret: str) -> None:
    """Raises Refusal, which quotes nothing of it, for what cannot be this secret: once it is kept, nobody looks at it any more."""
    role = next(role for role, described in load_specs().items() if name in described["options"])
    if wrong := unfit(role, name.removeprefix(f"{role}_"), secret, ""):
        refused = Refusal(wrong["message"], wrong["remedy"], option=name)
        refused.problems = [{**wrong, "node": None}]
        raise refused


def refuse_private_key(option: str, value: Any) -> None:
    """Raises Refusal, which quotes nothing of it, where there is one in what is to be kept in clear."""
    if holds_private_key("\n".join(_texts(value))):
        remedy = "Give the public key, the file that ends in .pub. The private one stays where it is."
        raise Refusal("this is a private key. It is not kept, and was given to nobody", remedy, option=option)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from (*_texts(key), *_texts(inner))
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def _write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        write(folder / name, text, 0o600 if name == VAULT else 0o644)
