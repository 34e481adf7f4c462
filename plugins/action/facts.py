# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The controller's side of bzzz.cluster.facts: one question to the node, once a run."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.bzzz.cluster.plugins.plugin_utils.question import ask
from ansible_collections.bzzz.cluster.plugins.plugin_utils.run import run_id

# Only these are taken: facts also hold the declaration, which a node must not be able to write.
FACTS = ("bzzz_gpu", "bzzz_network", "bzzz_ports", "bzzz_system")
ARGUMENTS = {
    "tool_timeout_seconds": {"type": "int", "default": 10},
    "ollama_port": {"type": "int", "default": 11434},
    "known": {"type": "dict"},
}


class ActionModule(ActionBase):
    """Asks ``node/facts.py``; returns its answer as ansible_facts."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = self.validate_argument_spec(argument_spec=ARGUMENTS)[1]
        this_run = run_id()
        known = task_vars.get("ansible_facts") or {}
        if (known.get("bzzz_system") or {}).get("run_id") == this_run:
            return {**result, "changed": False, "msg": "This run has gathered the node's facts already."}
        remembered = arguments.pop("known")
        if remembered is not None:
            if not all(remembered.get(name) for name in FACTS):
                return {**result, "changed": False, "msg": "Nothing is remembered of this node."}
            answer = {**remembered, "bzzz_system": {**remembered["bzzz_system"], "run_id": this_run}}
        else:
            answer = ask(self, "facts", {**arguments, "run_id": this_run}, task_vars)
        return {**result, "changed": False, "ansible_facts": {name: answer[name] for name in FACTS}}
