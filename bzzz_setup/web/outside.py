# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The provider and directory that role `auth` names in the inventory folder, asked here as the nodes ask them."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.bzzz.cluster.plugins.module_utils.cluster import Cluster
from ansible_collections.bzzz.cluster.plugins.module_utils.declaration import declare, load_specs
from ansible_collections.bzzz.cluster.plugins.module_utils.problems import errors, problem
from ansible_collections.bzzz.cluster.plugins.module_utils.rules import auth as rules

from bzzz_setup.declaration import VAULT, Declaration, Vaulted, decrypted, is_template
from bzzz_setup.events import Refusal
from bzzz_setup.node import config
from bzzz_setup.node.auth.directory import Directory
from bzzz_setup.node.auth.gate import Gate

# Of each way: what people call it, the option that turns it on, and its secret.
WAYS = {
    "oidc": ("OpenID Connect", "oidc_issuer", "oidc_client_secret"),
    "ldap": ("LDAP", "ldap_urls", "ldap_bind_password"),
}


@dataclasses.dataclass(frozen=True)
class Way:
    """As the node service's configuration would have it, but the secret is in no file."""

    kind: str
    settings: Any
    secret: str | None = dataclasses.field(repr=False)

    def authority(self, directory: Directory) -> Any:
        """Who is asked. Raises Refusal where the library for it is not installed."""
        try:
            # Loaded where they are wanted only.
            if self.kind == "oidc":
                from bzzz_setup.node.auth.oidc import Oidc  # noqa: PLC0415

                return Oidc(self.settings, secret=self.secret)
            from bzzz_setup.node.auth.ldap import Ldap  # noqa: PLC0415

            return Ldap(self.settings, directory, self.secret or "")
        except ModuleNotFoundError as missing:
            remedy = "Install it, pip install 'bzzz-setup[node]', and start the wizard again."
            raise Refusal(f"The Python package {missing.name} is not here.", remedy, option=f"auth_{WAYS[self.kind][1]}") from None


class Authorities:
    """Has the gate ask those that the inventory folder names. say: told of each way that cannot be had, and why."""

    def __init__(self, folder: Path, gate: Gate, say: Callable[[str], None]) -> None:
        self._folder, self._gate, self._say = folder, gate, say
        self._lock = threading.Lock()
        self._ways: dict[str, Way] = {}
        self._asked: dict[str, Any] = {}

    def refresh(self) -> None:
        """Look into the folder. Raises Refusal where it cannot be read."""
        with self._lock:
            self._refresh()

    def _refresh(self) -> None:
        declaration = Declaration.read(self._folder)
        ways: dict[str, Way] = {}
        for kind in WAYS:
            with self._telling(kind):
                if way := declared(declaration, kind):
                    ways[kind] = way
        if ways == self._ways:
            return
        self.stop()
        self._ways, self._asked = ways, {}
        assert self._gate.directory
        for kind, way in ways.items():
            with self._telling(kind):
                self._asked[kind] = way.authority(self._gate.directory)
        self._gate.consult(self._asked.get("ldap"), self._asked.get("oidc"))
        for one in self._asked.values():
            one.start()

    def stop(self) -> None:
        for one in self._asked.values():
            one.stop()

    @contextlib.contextmanager
    def _telling(self, kind: str) -> Iterator[None]:
        try:
            yield
        except Refusal as refused:
            for one in refused.problems:
                self._say(f"Nobody signs in here by {WAYS[kind][0]}. {one['option']}: {one['message']} {one['remedy']}")


def declared(declaration: Declaration, kind: str) -> Way | None:
    """A way as the folder's own options for the whole cluster have it; None where it has none. Raises Refusal."""
    _, switch, secret = WAYS[kind]
    given = {name: value for name, value in declaration.options.items() if name.startswith(f"auth_{kind}_")}
    if not given.get(f"auth_{switch}"):
        return None
    given |= {name: value for name, value in vault(declaration).items() if name.startswith(f"auth_{kind}_")}
    if unknown := [name for name, value in given.items() if is_template(value) or isinstance(value, Vaulted)]:
        remedy = "Write it out, a secret into the vault file; the nodes are not concerned."
        raise Refusal("Only Ansible can work this out.", remedy, option=unknown[0])
    specs = load_specs()
    options, found = declare({"auth": specs["auth"]}, {name: _reader(value) for name, value in given.items()}, "")
    cluster: Cluster = {"name": declaration.cluster, "run_id": "", "nodes": [], "coordinators": [], "settled": []}
    now = datetime.datetime.now(datetime.UTC)
    found += [*rules.literal({"": options}, cluster), *rules.files({"": options}, {"": declaration.folder}, now)]
    if wrong := [one for one in errors(found) if one["option"].startswith(f"auth_{kind}_")]:
        refused = Refusal(wrong[0]["message"], wrong[0]["remedy"])
        refused.problems = wrong
        raise refused
    kept = given.get(f"auth_{secret}")
    return Way(kind, _settings(kind, options["auth"], declaration.folder), None if kept is None else str(kept))


def _settings(kind: str, options: Mapping[str, Any], folder: Path) -> Any:
    """Options are called as the service's own settings are."""
    given: dict[str, Any] = {field.name: options.get(f"{kind}_{field.name}") for field in dataclasses.fields(config.SECTIONS[kind])}
    if file := options[f"{kind}_ca_file"]:
        given["ca"] = str(folder.absolute() / Path(file).expanduser())
    given["role_groups"] = {role: groups for role, groups in given["role_groups"].items() if groups}
    try:
        return config.parse_section(kind, given, {})
    except config.ConfigError as error:
        refused = Refusal(str(error), "")
        refused.problems = [problem(one.key, f"{one.message}.", f"{one.remedy}.") for one in error.problems]
        raise refused from None


def vault(declaration: Declaration) -> dict[str, Any]:
    file = declaration.folder / VAULT
    if not file.is_file():
        return {}
    if (found := decrypted(file.read_text(encoding="utf-8"), declaration.cluster)) is None:
        raise Refusal(f"The cluster's key on this host does not open {file}.", "Encrypt it by that key.", option="vault")
    return found


def _reader(value: Any) -> Callable[[], Any]:
    return lambda: value
