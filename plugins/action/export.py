# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The files that roles land on a node, rendered from the roles' own tasks without asking the node. See plugins/modules/export.py."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template
from ansible_collections.bzzz.cluster.plugins.module_utils.problems import Problem, problem

COLLECTION = Path(__file__).resolve().parent.parent.parent
LANDS = "bzzz.cluster.config_set"
COMPOSE = "/etc/bzzz/compose.yaml"
KINDS = {
    "systemd": re.compile(r"/etc/systemd/system/.+"),
    "env": re.compile(r"/etc/bzzz/[^/]+\.env|/etc/default/[^/]+"),
    "compose": re.compile(re.escape(COMPOSE)),
    # What the steps put there, which is no Compose file.
    "all": re.compile(rf"(?!{re.escape(COMPOSE)}$)/.+"),
}
ATTRIBUTES = {"owner": "root", "group": "root", "mode": "0644"}


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _validated, args = self.validate_argument_spec(
            {"directory": {"type": "path", "required": True}, "kind": {"type": "str", "choices": list(KINDS), "default": "all"}}
        )
        variables = task_vars or {}
        node, kind = str(variables["inventory_hostname"]), args["kind"]
        files: list[dict[str, Any]] = []
        units: list[dict[str, Any]] = []
        problems: list[Problem] = []
        for role in self._roles():
            search = [str(COLLECTION / "roles" / role), *variables.get("ansible_search_path", [])]
            known = {**self._inherited(role), **self._vars(role, "main"), **self._vars(role, "export")}
            own = {**known, **variables, "ansible_search_path": search, "role_path": search[0]}
            templar = self._templar.copy_with_new_env(available_variables=own)
            for task, conditions in [*self._lands(role, "main.yml"), ({"files": known.get(f"__{role}_export_files", [])}, [])]:
                try:
                    found = [{"role": role, **item} for item in _files(templar, task, conditions, KINDS[kind])]
                    files += found
                    units += templar.template(task.get("units", [])) if found else []
                except AnsibleError as error:
                    problems.append(_unknown(role, node, error))
        _write(Path(args["directory"]), node, files, units)
        listed = [{key: value for key, value in item.items() if key != "content"} for item in files]
        return {**result, "changed": False, "files": listed, "units": units, "problems": problems}

    def _roles(self) -> Iterator[str]:
        """The roles in the order of the steps, as their playbooks name them."""
        for path in sorted((COLLECTION / "playbooks").glob("step_*.yml")):
            for play in self._load(path):
                for task in play["tasks"]:
                    name = str(task.get("ansible.builtin.import_role", {}).get("name", ""))
                    if name.startswith("bzzz.cluster."):
                        yield name.rpartition(".")[2]

    def _lands(self, role: str, file: str) -> Iterator[tuple[dict[str, Any], list[Any]]]:
        """The arguments of each config_set of a role, untemplated, and the conditions that it stands under."""
        yield from self._walk(role, self._load(COLLECTION / "roles" / role / "tasks" / file), [])

    def _walk(self, role: str, tasks: list[dict[str, Any]], above: list[Any]) -> Iterator[tuple[dict[str, Any], list[Any]]]:
        for task in tasks:
            own = task.get("when", [])
            conditions = above + (own if isinstance(own, list) else [own])
            if LANDS in task:
                yield task[LANDS], conditions
            yield from self._walk(role, task.get("block", []), conditions)
            for include in ("ansible.builtin.include_tasks", "ansible.builtin.import_tasks"):
                if include in task:
                    yield from self._walk(role, self._load(COLLECTION / "roles" / role / "tasks" / task[include]), conditions)

    def _vars(self, role: str, name: str) -> dict[str, Any]:
        path = COLLECTION / "roles" / role / "vars" / f"{name}.yml"
        return dict(self._load(path)) if path.is_file() else {}

    def _inherited(self, role: str) -> dict[str, Any]:
        """The variables of the roles that this one depends on."""
        found: dict[str, Any] = {}
        for dependency in self._load(COLLECTION / "roles" / role / "meta" / "main.yml").get("dependencies", []):
            found.update(self._vars(str(dependency["role"]).rpartition(".")[2], "main"))
        return found

    def _load(self, path: Path) -> Any:
        """A YAML file as an author wrote it; as with tasks, its templates are trusted."""
        return self._loader.load(trust_as_template(path.read_text(encoding="utf-8")), str(path)) or []


def _files(templar: Any, task: dict[str, Any], conditions: list[Any], wanted: re.Pattern[str]) -> Iterator[dict[str, Any]]:
    """The task's files, whole. What is not wanted is rendered only where it cannot be told apart before."""
    given = task.get("files", [])
    if isinstance(given, list):
        # Only what is known on the nodes alone may be missing from the rest.
        given = [item for item in given if wanted.fullmatch(str(templar.template(item["path"])))]
    if not given:
        return
    doubt = None
    try:
        if not all(templar.evaluate_conditional(condition) for condition in conditions):
            return
    except AnsibleError as error:
        doubt = error
    for item in templar.template(given):
        if wanted.fullmatch(str(item["path"])):
            if doubt:
                raise doubt
            yield {**ATTRIBUTES, **{key: str(value) for key, value in item.items() if key in (*ATTRIBUTES, "path", "content")}}


def _unknown(role: str, node: str, error: AnsibleError) -> Problem:
    """Something that only the node can tell; whatever else fails is no less told."""
    message = f"What role {role} puts there cannot be told without the node: {str(error).strip().splitlines()[0]}"
    remedy = "Let a run ask it (bzzz-setup detect), then export again. Certificates and tokens are made on the nodes and never exported."
    return problem("", message, remedy, node=node, severity="warning")


def _write(directory: Path, node: str, files: list[dict[str, Any]], units: list[dict[str, Any]]) -> None:
    """`<directory>/<node>/<path>` for each file, and `<directory>/<node>.json`: what a file's copy cannot say."""
    root = directory / node
    if root.parent != directory or node in (".", ".."):
        raise AnsibleActionFail(f"'{node}' can be no folder's name. Remedy: name the node otherwise in the inventory.")
    for item in files:
        path = Path(f"{root}{os.path.normpath(item['path'])}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(item["content"], encoding="utf-8")
        path.chmod(0o644 if int(item["mode"], 8) & 0o004 else 0o600)
    directory.mkdir(parents=True, exist_ok=True)
    listed = [{key: value for key, value in item.items() if key != "content"} for item in files]
    (directory / f"{node}.json").write_text(json.dumps({"files": listed, "units": units}, indent=1) + "\n", encoding="utf-8")
