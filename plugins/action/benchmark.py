# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Measure a node: disk, HTTP latency, throughput to a peer, hashing, models. See plugins/modules/benchmark.py."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.bzzz.cluster.plugins.module_utils import benchmark, probe
from ansible_collections.bzzz.cluster.plugins.plugin_utils.question import ask

HTTP: dict[str, Any] = {
    "type": "dict",
    "options": {
        "url": {"type": "str", "required": True},
        "requests": {"type": "int", "default": 5},
        "ca": {"type": "path"},
        "certificate": {"type": "path"},
        "key": {"type": "path", "no_log": False},
        "token_file": {"type": "path", "no_log": False},
        "server_name": {"type": "str"},
        "max_median_ms": {"type": "float", "default": 0},
    },
}
SPEC: dict[str, dict[str, Any]] = {
    "disk": {
        "type": "dict",
        "options": {
            "path": {"type": "path", "required": True},
            "mib": {"type": "int", "default": 32},
            "min_mib_per_second": {"type": "float", "default": 0},
        },
    },
    "http": HTTP,
    "gateway": HTTP,
    "models": {
        "type": "dict",
        "options": {
            "url": {"type": "str", "required": True},
            "names": {"type": "list", "elements": "str", "required": True},
            "tokens": {"type": "int", "default": 32},
            "min_tokens_per_second": {"type": "float", "default": 0},
        },
    },
    "network": {
        "type": "dict",
        "options": {
            "peers": {"type": "list", "elements": "dict", "required": True},
            "port": {"type": "int", "required": True},
            "mib": {"type": "int", "default": 32},
            "min_mib_per_second": {"type": "float", "default": 0},
        },
    },
    "cpu": {
        "type": "dict",
        "options": {"seconds": {"type": "float", "default": 0.5}, "min_mib_per_second": {"type": "float", "default": 0}},
    },
    "fail": {"type": "bool", "default": True},
}


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        _checked, args = self.validate_argument_spec(SPEC)
        fail = args.pop("fail")
        node = str(task_vars.get("inventory_hostname", ""))
        wanted, limits = benchmark.payload(node, args)
        result.update(changed=False, figures={}, checks=[], failed=False, msg="nothing was measured")
        if not wanted or self._task.check_mode:  # measuring writes and sends, and in check mode there may be nothing to measure yet
            return result
        figures = ask(self, "bench", wanted, task_vars)
        role = self._task._role.get_name().rpartition(".")[2] if self._task._role else ""
        checks = benchmark.checks(node, role, figures, limits)
        failed = fail and any(check["status"] == "fail" for check in checks)
        result.update(figures=figures, checks=checks, failed=failed, msg=probe.summary(node, checks))
        return result
