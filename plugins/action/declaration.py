# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The effective declaration of every node of the inventory, computed on the controller once a run."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible import constants
from ansible.errors import AnsibleActionFail
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible_collections.bzzz.cluster.plugins.module_utils import forecast, rules
from ansible_collections.bzzz.cluster.plugins.module_utils.cluster import Cluster, Node, resolve
from ansible_collections.bzzz.cluster.plugins.module_utils.declaration import Declared, declare, load_specs, options_of, unknown
from ansible_collections.bzzz.cluster.plugins.module_utils.problems import Problem, errors, merged, problem, readable
from ansible_collections.bzzz.cluster.plugins.module_utils.rules import auth, downloads, ssh, tls
from ansible_collections.bzzz.cluster.plugins.plugin_utils import once
from ansible_collections.bzzz.cluster.plugins.plugin_utils.run import run_id

if TYPE_CHECKING:
    from collections.abc import Mapping

GROUP = "bzzz"
once.keep()  # Ansible loads this before it has any variables of the nodes


class ActionModule(ActionBase):
    """Read the declaration of all hosts of group `bzzz` (stage literal), or settle what depends on facts (stage effective)."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _VALID_ARGS = frozenset({"stage", "refuse"})

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        stage = self._task.args.get("stage")
        if stage not in ("literal", "effective"):
            raise AnsibleActionFail(f"stage must be literal or effective, not {stage!r}.")
        seen = variables.get("ansible_facts", {})
        done = seen["bzzz_cluster"] if seen.get("bzzz_cluster", {}).get("run_id") == run_id() else None
        if stage == "literal":
            return result if done else {**result, **self._literal(variables)}
        if done is None:
            raise AnsibleActionFail("Stage effective comes after stage literal of the same run. Remedy: use role bzzz.cluster.declaration.")
        facts = self._facts(variables, done)
        if set(facts) == set(done["settled"]):
            return result
        refuse = boolean(self._task.args.get("refuse", True))
        return {**result, **self._effective(seen["bzzz_declared"], done, facts, refuse)}

    def _literal(self, variables: dict[str, Any]) -> dict[str, Any]:
        specs = load_specs()
        groups, hostvars = variables["groups"], variables["hostvars"]
        names: list[str] = list(groups.get(GROUP, []))
        declared: dict[str, Declared] = {}
        nodes: list[Node] = []
        problems: list[Problem] = []
        unread: list[Problem] = []
        for name in names:
            given = hostvars[name]
            if name == variables["inventory_hostname"]:
                problems += _outside_inventory(options_of(specs), variables, given, name)
            problems += unknown(specs, given, name)
            declared[name], found = declare(
                specs, {option: _reader(given, option) for option in given if option in options_of(specs)}, name
            )
            unread += found
            node, found = self._node(name, declared[name], given)
            nodes.append(node)
            problems += found
        addresses = resolve(node["address"] for node in nodes if node["address"])
        for node in nodes:
            node["address"] = addresses.get(node["address"] or "")
        folders = {name: Path(str(hostvars[name].get("inventory_dir") or ".")) for name in names}
        now = datetime.now(timezone.utc)
        judged = [*downloads.files(declared, folders, now), *ssh.files(declared), *auth.files(declared, folders, now)]
        # `declare` has found it readable, or has taken it for not given.
        passphrases = {name: str(hostvars[name]["tls_key_passphrase"]) for name in names if declared[name]["tls"]["key_passphrase"]}
        judged += tls.files(declared, folders, passphrases, now)
        coordinators = [name for name in groups.get("coordinators", []) if name in declared]
        for name in groups.get("coordinators", []):
            if name not in declared:
                message = f"{name} is in group coordinators, but not in group {GROUP}."
                problems.append(problem("coordinators", message, f"Make coordinators a child of group {GROUP}.", value=name, node=name))
        cluster: Cluster = {
            "name": declared[names[0]]["declaration"]["cluster_name"] if names else "",
            "run_id": run_id(),
            "nodes": nodes,
            "coordinators": coordinators,
            "settled": [],
        }
        judged += rules.literal(declared, cluster)
        answer = _answer(declared, cluster, problems + unread + rules.founded(judged, unread))
        asked = next((options for options in declared.values() if options["gateway"]["enabled"]), None)
        if asked and "ansible_facts" in answer:
            found = forecast.forecast(asked)
            answer["ansible_facts"]["bzzz_cost_forecast"] = {**found, "told": forecast.told(found)}
        return answer

    def _node(self, name: str, declared: Declared, given: Mapping[str, Any]) -> tuple[Node, list[Problem]]:
        """Name, groups and connection of a node; its address is still whatever the inventory says."""
        problems: list[Problem] = []

        def first(*options: str) -> Any:
            for option in options:
                try:
                    value = given.get(option)
                except Exception:  # whatever a template or a vault throws; its text may quote a password
                    message = "Its value cannot be worked out."
                    problems.append(problem(option, message, "Correct the template, or the vault password.", node=name))
                    continue
                if value is not None:
                    return value
            return None

        address = declared["network"]["address"] or first("ansible_host", "ansible_ssh_host") or name
        become = first("ansible_become")
        password = first("ansible_become_password", "ansible_become_pass", "ansible_sudo_pass")
        login = first("ansible_password", "ansible_ssh_password", "ansible_ssh_pass")
        user = (
            first("ansible_user", "ansible_ssh_user") or self._task.remote_user or constants.config.get_config_value("DEFAULT_REMOTE_USER")
        )
        port = first("ansible_port", "ansible_ssh_port") or constants.config.get_config_value("DEFAULT_REMOTE_PORT") or 22
        if not (str(port).isdecimal() and 1 <= int(port) <= 65535):
            problems.append(
                problem("ansible_port", "This is no port.", "Set it to 22, or to sshd's port on the node.", value=port, node=name)
            )
            port = 22
        node: Node = {
            "name": str(name),
            "address": str(address),
            "groups": sorted(str(group) for group in given["group_names"]),
            "ssh_port": int(port),
            "ssh_user": str(user) if user else None,
            "ssh_password": bool(login or self._play_context.password),
            "become": str(become if become is not None else self._task.become).lower() in ("true", "yes", "on", "1"),
            "become_password": bool(password or self._play_context.become_pass),
            "firewall": None,
            "sources": [],
        }
        return node, problems

    @staticmethod
    def _facts(variables: dict[str, Any], cluster: Cluster) -> dict[str, dict[str, Any]]:
        """Facts of the nodes that answered in this run; older ones from a cache would judge what may have changed."""
        hostvars = variables["hostvars"]
        facts = {node["name"]: hostvars.raw_get(node["name"]).get("ansible_facts", {}) for node in cluster["nodes"]}
        return {name: seen for name, seen in facts.items() if seen.get("bzzz_system", {}).get("run_id") == cluster["run_id"]}

    @staticmethod
    def _effective(declared: dict[str, Declared], cluster: Cluster, facts: dict[str, dict[str, Any]], refuse: bool) -> dict[str, Any]:
        problems = rules.effective(declared, cluster, facts)
        if not refuse:
            problems = [{**found, "severity": "warning"} for found in problems]
        return _answer(*rules.settled(declared, cluster, facts), problems)


def _reader(given: Mapping[str, Any], option: str) -> Any:
    return lambda: given[option]


def _outside_inventory(options: Mapping[str, Any], variables: Mapping[str, Any], given: Mapping[str, Any], node: str) -> list[Problem]:
    """Options set where only one play or role would see them, and the other nodes and steps would not."""
    return [
        problem(
            option,
            "This is set in a play or for a role, where the cluster's declaration does not look.",
            f"Set {option} in the inventory (group_vars/bzzz/main.yml), or give it with --extra-vars.",
            node=node,
        )
        for option, spec in options.items()
        if option in variables and option not in given and variables[option] != spec.get("default")
    ]


def _answer(declared: dict[str, Declared], cluster: Cluster, problems: list[Problem]) -> dict[str, Any]:
    told = merged(problems, list(declared))
    answer: dict[str, Any] = {"changed": False, "problems": told}
    wrong = errors(told)
    if wrong:
        count = f"{len(wrong)} problem{'s' if len(wrong) > 1 else ''}"
        return {**answer, "failed": True, "msg": f"The declaration has {count}:\n{readable(told)}"}
    if told:
        answer["warnings"] = readable(told).splitlines()
    return {**answer, "ansible_facts": {"bzzz_declared": declared, "bzzz_cluster": cluster}}
