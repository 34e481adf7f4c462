# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Plan where the models go; no node is contacted. See plugins/modules/models_plan.py."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.bzzz.cluster.plugins.module_utils import probe
from ansible_collections.bzzz.cluster.plugins.module_utils.models import holding, wanted


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        variables = task_vars or {}
        result: dict[str, Any] = super().run(tmp, variables)
        self.validate_argument_spec({})
        own = variables.get("ansible_facts") or {}
        if "bzzz_declared" not in own:
            raise AnsibleActionFail("There is no declaration. Remedy: use role bzzz.cluster.declaration before.")
        declared, cluster = own["bzzz_declared"], own["bzzz_cluster"]
        facts = {name: variables["hostvars"].raw_get(name).get("ansible_facts", {}) for name in cluster["settled"]}
        shown = dict(own.get("bzzz_models_described") or {})
        looked = {name: seen["bzzz_models_held"] for name, seen in facts.items() if "bzzz_models_held" in seen}
        for seen in looked.values():
            shown.update(seen["shown"])
        loaded = holding.loaded(declared, {name: seen["models"] for name, seen in looked.items()})
        told = wanted.told(wanted.outlook(declared, facts, shown, loaded), declared, facts)
        checks = [_check(one, "pass", one["why"], "") for one in told["placed"]]
        checks += [_check(one, "fail", one["why"], one["remedy"]) for one in told["refused"]]
        checks += [_check({**one, "replica": 1, "node": None}, "warn", one["why"], one["remedy"]) for one in told["unknown"]]
        result.update(changed=False, plan=told, checks=checks, failed=bool(told["refused"]), msg=probe.summary("models", checks))
        return {**result, "ansible_facts": {"bzzz_models": told}}


def _check(one: dict[str, Any], status: str, seen: str, remedy: str) -> dict[str, Any]:
    return {
        "id": f"models-{one['model']}-{one['replica']}",
        "requirement": "3.6.2",
        "role": "models",
        "node": one["node"] or "",
        "title": f"{one['model']}, replica {one['replica']}, has a place",
        "status": status,
        "seen": seen,
        "expected": "room for weights, KV cache and overhead, and for its files on disk",
        "remedy": remedy,
        "data": {},
    }
