# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One inventory folder: what the operator declared.

What a person types is data. Strings that could be read as anything else are written `!unsafe`, so that Ansible never
evaluates them as templates; what an operator writes into the files by hand stays as it is.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets as randomness
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.bzzz.cluster.plugins.module_utils.node.machine import natural
from ansible_collections.bzzz.cluster.plugins.module_utils.problems import Problem, nearest, problem

from bzzz_setup import paths
from bzzz_setup.events import Refusal

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?")
_PLAIN = re.compile(r"[A-Za-z0-9_.:/@+-]*")
_DEFAULT_NAME = "bzzz"
MAIN, VAULT, HOSTS, KNOWN_HOSTS = "group_vars/bzzz/main.yml", "group_vars/bzzz/vault.yml", "hosts.yml", "known_hosts.txt"


class Unsafe(str):
    """Text that is never a template."""


class Vaulted(str):
    """A single encrypted value; kept as it is."""


class Block(str):
    """Text of several lines, written as such."""


class _Loader(yaml.SafeLoader):
    pass


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True


_Loader.add_constructor("!unsafe", lambda loader, node: Unsafe(loader.construct_scalar(node)))  # type: ignore[arg-type]
_Loader.add_constructor("!vault", lambda loader, node: Vaulted(loader.construct_scalar(node)))  # type: ignore[arg-type]


def _written(tag: str, style: str | None) -> Callable[[_Dumper, str], yaml.Node]:
    """A representer of text. Only in double quotes do the rarer line breaks stay what they are."""
    return lambda dumper, value: dumper.represent_scalar(tag, str(value), '"' if re.search("[\r\x85\u2028\u2029]", value) else style)


_Dumper.add_representer(str, _written("tag:yaml.org,2002:str", None))
_Dumper.add_representer(Block, _written("tag:yaml.org,2002:str", "|"))
_Dumper.add_representer(Unsafe, _written("!unsafe", '"'))
_Dumper.add_representer(Vaulted, _written("!vault", "|"))


def load(text: str) -> Any:
    return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader


def dump(data: Any) -> str:
    return "---\n" + yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)


def typed(value: Any) -> Any:
    """The same value, its strings marked as data that a person typed."""
    if isinstance(value, dict):
        return {key: typed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [typed(item) for item in value]
    return Unsafe(value) if isinstance(value, str) and not _PLAIN.fullmatch(value) else value


def is_template(value: Any) -> bool:
    """Whether only Ansible can tell what it is."""
    if isinstance(value, dict):
        return any(map(is_template, value.values()))
    if isinstance(value, list):
        return any(map(is_template, value))
    return isinstance(value, str) and not isinstance(value, Unsafe) and ("{{" in value or "{%" in value)


def write(file: Path, text: str, mode: int = 0o644) -> None:
    """Write a file whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        new.replace(file)
    finally:
        new.unlink(missing_ok=True)


def vault_key(cluster: str) -> str:
    """The key of the cluster's vault file, made on first use. Ansible is given the path of its 0600 file."""
    file = paths.vault_key(cluster)
    if not file.exists():
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write(file, randomness.token_urlsafe(32) + "\n", 0o600)
    return file.read_text(encoding="utf-8").strip()


def decrypted(text: str, cluster: str) -> dict[str, Any] | None:
    """The content of a vault file, be it encrypted or not; None where the cluster's key does not open it, or it is no YAML."""
    from ansible.parsing.vault import AnsibleVaultError, VaultLib, VaultSecret  # noqa: PLC0415 - slow to import, and seldom needed

    file = paths.vault_key(cluster)
    try:
        if text.startswith("$ANSIBLE_VAULT"):
            if not file.is_file():
                return None
            key = file.read_text(encoding="utf-8").strip().encode()
            text = VaultLib([("default", VaultSecret(key))]).decrypt(text).decode()
        found = load(text)
    except (AnsibleVaultError, yaml.YAMLError):
        return None
    return found if isinstance(found, dict) else {}


def with_secrets(text: str, cluster: str, wanted: Mapping[str, Any], file: Path) -> str:
    """A vault file's text with these values, None for none, encrypted by the cluster's key. Raises Refusal where that does not open it."""
    before = decrypted(text, cluster)
    if before is None:
        remedy = "Set secrets with ansible-vault, by the key that the file was encrypted with."
        raise Refusal(f"the cluster's key does not open {file}", remedy, option=next(iter(wanted)))
    new = {**before, **typed(wanted)}
    return encrypted(dump({name: value for name, value in new.items() if value is not None}), cluster)


def encrypted(text: str, cluster: str) -> str:
    """The text as a vault file, by the cluster's key, which is made on first use."""
    from ansible.parsing.vault import VaultLib, VaultSecret  # noqa: PLC0415 - slow to import, and seldom needed

    return str(VaultLib([("default", VaultSecret(vault_key(cluster).encode()))]).encrypt(text).decode())


def mapping(file: Path) -> dict[str, Any]:
    """What a YAML file holds; nothing where it is not there, or holds something else. Raises Refusal where it is no YAML."""
    if not file.is_file():
        return {}
    try:
        data = load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Refusal(f"{file} is not YAML: {error}", "Correct the file at the place named.") from error
    return data if isinstance(data, dict) else {}


def inventory_names(source: Path) -> tuple[list[str], list[str]]:
    """The groups and the nodes of an inventory file, as Ansible reads it. Nothing where it cannot."""
    from ansible.errors import AnsibleError  # noqa: PLC0415
    from ansible.inventory.manager import InventoryManager  # noqa: PLC0415 - takes 0.4 s
    from ansible.parsing.dataloader import DataLoader  # noqa: PLC0415

    try:
        known = InventoryManager(DataLoader(), [str(source)])
    except AnsibleError:  # the run will tell
        return [], []
    return sorted(set(known.groups) - {"ungrouped"}), sorted(known.hosts, key=natural)


def _keys(data: Any) -> set[str]:
    return {name for key, inner in data.items() for name in (str(key), *_keys(inner))} if isinstance(data, dict) else set()


def _variable_files(folder: Path) -> Iterator[tuple[Path, str]]:
    """What Ansible would read for a group or a node, and for which."""
    for file in (file for kind in ("group_vars", "host_vars") for file in sorted(folder.glob(f"{kind}/*"))):
        if file.name.startswith(".") or file.name.endswith("~"):
            continue
        if file.is_dir():
            if any(file.glob("*")):  # nothing, too, of one that may not be read, which Ansible will tell
                yield file, file.name
        elif file.is_file() and file.suffix in ("", ".yml", ".yaml", ".json"):
            yield file, file.stem


@dataclass
class Declaration:
    """`hosts` and `options` are hosts.yml and group_vars/bzzz/main.yml as they stand there.

    `secrets` (option name to value) is only ever written, into the vault file; so are `variables`, further files such as host_vars/n1.yml.
    """

    folder: Path
    hosts: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    known_hosts: str = ""
    secrets: dict[str, str] = field(default_factory=dict)
    variables: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, source: Path) -> Declaration:
        """`source` is an inventory folder or a file in one. Raises Refusal where YAML is broken."""
        folder = source.parent if source.is_file() else source

        known_hosts = folder / KNOWN_HOSTS
        pinned = known_hosts.read_text(encoding="utf-8") if known_hosts.is_file() else ""
        return cls(folder, mapping(folder / HOSTS), mapping(folder / MAIN), pinned)

    def of_node(self, name: str) -> dict[str, Any]:
        """The variables of a node's own file. Raises Refusal where it is no YAML."""
        file = f"host_vars/{name}.yml"
        return self.variables[file] if file in self.variables else mapping(self.folder / file)

    @property
    def cluster(self) -> str:
        """The cluster's name. Raises Refusal for one that is none, since paths are made of it."""
        name = str(self.options.get("declaration_cluster_name", _DEFAULT_NAME))
        if not NAME.fullmatch(name):
            raise Refusal(
                f"'{name}' is no cluster name",
                "Use lower-case letters, digits and hyphens, for example lab-1.",
                option="declaration_cluster_name",
            )
        return name

    def secrets_set(self) -> set[str]:
        """The names of the options in the vault file, as far as this host's key opens it."""
        file = self.folder / VAULT
        return set(decrypted(file.read_text(encoding="utf-8"), self.cluster) or {}) if file.is_file() else set()

    def source(self) -> Path:
        """What Ansible is given with -i."""
        return self.folder / HOSTS if (self.folder / HOSTS).is_file() else self.folder

    def astray(self) -> list[Problem]:
        """Warnings of files and folders of variables that Ansible passes over, since no group or node has their name."""
        if not (self.folder / HOSTS).is_file():  # a plugin's, which would look for machines
            return []
        found = []
        likely = _keys(self.hosts) | {"all", "ungrouped", "localhost"}
        for file, name in _variable_files(self.folder):
            if name in likely or file.name in likely:
                continue
            groups, nodes = inventory_names(self.folder / HOSTS)  # ranges of names, too
            kind, there = ("group", groups) if file.parent.name == "group_vars" else ("node", nodes)
            if there and not {name, file.name} & {*there, "localhost"}:
                like = nearest(name, there)
                what = f"Name it {file.parent.name}/{like}{file.name[len(name) :]}" if like else f"Name it after one of {', '.join(there)}"
                message = f"No {kind} is called {name}, so nothing that is in there holds."
                found.append(problem(f"{file.parent.name}/{file.name}", message, f"{what}, or remove it.", severity="warning"))
        return found

    def create(self, *, force: bool = False) -> Path | None:
        """Write the whole folder at once. With `force` an existing one is put aside; returns where.

        Raises Refusal when there is one already, or none can be written.
        """
        missing = [folder for folder in self.folder.parents if not os.path.lexists(folder)]
        try:
            return self._create(force)
        except (OSError, ValueError) as error:  # ValueError: a name that cannot be one
            file, why = getattr(error, "filename", None) or self.folder, getattr(error, "strerror", None) or str(error)
            raise Refusal(f"{file} cannot be written: {why}", "Name a folder that you may write with -i.", option="inventory") from error
        finally:
            for folder in missing:
                with contextlib.suppress(OSError):  # what it is for is in it
                    folder.rmdir()

    def _create(self, force: bool) -> Path | None:
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        new = self.folder.with_name(f".{self.folder.name}.{os.getpid()}")
        aside = None
        try:
            write(new / HOSTS, dump(self.hosts))
            write(new / MAIN, dump(self.options))
            write(new / KNOWN_HOSTS, self.known_hosts)
            (new / "host_vars").mkdir()
            for name, content in self.variables.items():
                write(new / name, dump(content))
            if self.secrets:
                write(new / VAULT, encrypted(dump(typed(self.secrets)), self.cluster), 0o600)
            if os.path.lexists(self.folder):
                if not force:
                    raise Refusal(
                        f"{self.folder} exists already", "Choose another folder with -i, or replace it with --force.", option="inventory"
                    )
                aside = self.folder.with_name(f"{self.folder.name}.{time.strftime('%Y%m%d-%H%M%S')}.bak")
                self.folder.rename(aside)
            new.rename(self.folder)
        finally:
            shutil.rmtree(new, ignore_errors=True)
        return aside
