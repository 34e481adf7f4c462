# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Look whether a node is as its roles' probes say: one question for all of them. See plugins/modules/probe.py."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.template import Templar, trust_as_template
from ansible_collections.bzzz.cluster.plugins.module_utils import probe
from ansible_collections.bzzz.cluster.plugins.plugin_utils import once
from ansible_collections.bzzz.cluster.plugins.plugin_utils.question import ask

ROLES = Path(__file__).resolve().parent.parent.parent / "roles"


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        _checked, args = self.validate_argument_spec(
            {
                "roles": {"type": "list", "elements": "str", "default": []},
                "path": {"type": "path"},
                "probes": {"type": "list", "elements": "dict", "default": []},
                "fail": {"type": "bool", "default": True},
            }
        )
        if not (args["roles"] or args["path"] or args["probes"]):
            raise AnsibleActionFail("nothing to look at: give roles, path or probes")
        node = str(task_vars.get("inventory_hostname", ""))
        checking = bool(self._task.check_mode)
        try:
            entries, skipped = self._entries(args, task_vars)
            checks = self._look(node, entries, task_vars, checking) + [{**check, "node": node} for check in skipped]
        except probe.Refused as error:
            raise AnsibleActionFail(str(error)) from error
        failed = args["fail"] and any(check["status"] == "fail" for check in checks)
        result.update(changed=False, checks=checks, failed=failed, msg=probe.summary(node, checks))
        return result

    def _look(self, node: str, entries: list[dict[str, Any]], task_vars: dict[str, Any], checking: bool) -> list[dict[str, Any]]:
        if not entries:
            return []
        asked = time.time()
        answer = ask(self, "probes", probe.question(node, entries, checking), task_vars)
        clock = probe.clock_offset(asked, answer["received"], answer["sent"], time.time())
        return probe.judge(node, entries, answer["outcomes"], clock, checking)

    def _entries(self, args: dict[str, Any], task_vars: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The entries that apply to this node, understood, and a skipped check for each that says why it doesn't apply."""
        entries: list[dict[str, Any]] = []
        skipped: list[dict[str, Any]] = []
        own: dict[str, tuple[dict[str, Any], Templar]] = {}
        # What every role reads is worked out once.
        shared = {name: self._templar.template(task_vars[name]) for name in self._role_vars("declaration") if name in task_vars}
        for role, raw in self._raw(args):
            if role not in own:
                search = [str(ROLES / role), *task_vars.get("ansible_search_path", [])]
                variables = {**self._role_vars(role), **task_vars, **shared, "ansible_search_path": search}
                own[role] = variables, once.settle(self._templar.copy_with_new_env(available_variables=variables))
            if not isinstance(raw, dict):
                raise probe.Refused(f"role {role or '-'}: an entry is a mapping, not {raw!r}")
            try:
                for entry, applies in self._templated(raw, *own[role]):
                    if applies:
                        entries.append(probe.understand(role, entry))
                    elif entry.get("skip"):
                        reason = {"status": "skip", "seen": str(entry["skip"]), "expected": "", "remedy": "", "data": {}}
                        named = {key: str(entry.get(key, "")) for key in ("id", "title", "requirement")}
                        skipped.append({"role": role, **named, **reason})
            except AnsibleError as error:
                raise AnsibleActionFail(f"role {role or '-'}, probe {raw.get('id', '(no id)')}: {error}") from error
        seen: set[tuple[str, str]] = set()
        for entry in entries:
            if (entry["role"], entry["id"]) in seen:
                raise probe.Refused(f"role {entry['role'] or '-'}, probe {entry['id']}: the id is used twice")
            seen.add((entry["role"], entry["id"]))
        return entries, skipped

    def _raw(self, args: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        """Role and entry, untemplated, of everything that was asked for."""
        files = []
        for role in args["roles"]:
            path = ROLES / role / "probes" / "main.yml"
            if not path.is_file():
                known = [found.parent.parent.name for found in ROLES.glob("*/probes/main.yml")]
                raise probe.Refused(f"role '{role}' has no probes/main.yml{probe.nearest(role, known)}")
            files.append((role, path))
        if args["path"]:
            path = Path(self._loader.path_dwim(args["path"]))
            files.append((path.parent.parent.name if path.parent.name == "probes" else path.stem, path))
        for role, path in files:
            found = self._load(path)
            if not isinstance(found, list):
                raise probe.Refused(f"{path}: probes are a list of entries")
            yield from ((role, entry) for entry in found)
        role = self._task._role.get_name() if self._task._role else ""
        yield from ((role.rpartition(".")[2], entry) for entry in args["probes"])

    def _role_vars(self, role: str) -> dict[str, Any]:
        """The role's own variables: its probes name them, and must also hold when another role asks (step 8 runs them all)."""
        path = ROLES / role / "vars" / "main.yml"
        found: dict[str, Any] = self._load(path) if role and path.is_file() else {}
        return found

    def _load(self, path: Path) -> Any:
        """A YAML file as an author wrote it; as with tasks, its templates are trusted."""
        try:
            return self._loader.load(trust_as_template(path.read_text(encoding="utf-8")), str(path))
        except OSError as error:
            raise probe.Refused(f"{path}: {error.strerror}") from error

    def _templated(self, raw: dict[str, Any], variables: dict[str, Any], templar: Templar) -> Iterator[tuple[dict[str, Any], bool]]:
        """The entry, once for each item of its loop, and whether it applies; one that doesn't keeps only what names it."""
        if "loop" not in raw:
            yield self._one(raw, templar)
            return
        for item in templar.template(raw["loop"]):
            yield self._one(raw, self._templar.copy_with_new_env(available_variables={**variables, "item": item}))

    def _one(self, raw: dict[str, Any], templar: Templar) -> tuple[dict[str, Any], bool]:
        conditions = raw.get("when", [])
        applies = all(
            # An expression as in a task, or a template that yields a boolean.
            templar.evaluate_conditional(templar.template(one) if templar.is_template(one) else one)
            for one in (conditions if isinstance(conditions, list) else [conditions])
        )
        said = {key: value for key, value in raw.items() if key not in ("when", "loop")}
        if not applies:
            said = {key: said[key] for key in ("id", "title", "requirement", "skip") if key in said}
        return templar.template(said), applies
