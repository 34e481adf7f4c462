# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The front over a small collection of eight steps: real ansible-playbook processes, local nodes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import yaml

SLUGS = ["detection", "network", "security", "ai", "resources", "services", "formation", "validation"]

# Answers what it is told to, as the collection's engines would.
ANSWER = """\
from ansible.module_utils.basic import AnsibleModule
module = AnsibleModule({"result": {"type": "raw", "default": {}}, "secret": {"type": "str", "no_log": True}}, supports_check_mode=True)
module.exit_json(**module.params["result"])
"""
# The same without a process of its own, where nobody looks at how modules are run.
AT_ONCE = """\
from ansible.plugins.action import ActionBase
class ActionModule(ActionBase):
    _supports_check_mode = True
    def run(self, tmp=None, task_vars=None):
        args = self._task.args
        if "secret" in args or self._connection.transport != "local":
            return self._execute_module("bzzz.cluster.answer", args, task_vars=task_vars)
        return {"changed": False, **super().run(tmp, task_vars), **args.get("result", {})}
"""


class Front:
    """bzzz-setup with a home, a collection and an inventory of its own."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.home.mkdir()
        self.inventory = folder / "inventory"
        (self.inventory / "group_vars/bzzz").mkdir(parents=True)
        self.collection = folder / "collections/ansible_collections/bzzz/cluster"
        (self.collection / "playbooks").mkdir(parents=True)
        (self.collection / "plugins/modules").mkdir(parents=True)
        (self.collection / "plugins/modules/answer.py").write_text(ANSWER)
        (self.collection / "plugins/action").mkdir()
        (self.collection / "plugins/action/answer.py").write_text(AT_ONCE)
        for number in range(1, 9):
            self.step(number, [{"bzzz.cluster.answer": {"result": {}}}])
        names = [f"bzzz.cluster.step_{number}_{slug}" for number, slug in enumerate(SLUGS, 1)]
        self.playbook("setup", [{"import_playbook": name} for name in names])
        self.hosts("n1", "n2")
        self.options({"declaration_cluster_name": "trial", "ansible_connection": "local", "ansible_python_interpreter": sys.executable})
        self.environment = {
            "HOME": str(self.home),
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "ANSIBLE_COLLECTIONS_PATH": str(folder / "collections"),
            "XDG_RUNTIME_DIR": "",
        }

    def playbook(self, name: str, content: list[dict[str, object]]) -> None:
        (self.collection / "playbooks" / f"{name}.yml").write_text(yaml.safe_dump(content, sort_keys=False))

    def step(self, number: int, tasks: list[dict[str, object]], **play: object) -> None:
        slug = SLUGS[number - 1]
        head = {"name": f"Step {number} of 8: {slug}", "hosts": "bzzz", "gather_facts": False}
        self.playbook(f"step_{number}_{slug}", [{**head, **play, "tasks": tasks}])

    def hosts(self, *names: str, **settings: dict[str, object]) -> None:
        hosts = {name: settings.get(name, {}) for name in names}
        (self.inventory / "hosts.yml").write_text(yaml.safe_dump({"bzzz": {"hosts": hosts}}))

    def options(self, options: dict[str, object]) -> None:
        (self.inventory / "group_vars/bzzz/main.yml").write_text(yaml.safe_dump(options))

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "bzzz_setup", *arguments]

    def start(self, *arguments: str, **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments, "-i", str(self.inventory)),
            env={**self.environment, **more},
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, **more)
        out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def report(self, *arguments: str, code: int) -> dict[str, object]:
        """The JSON document of a command, which is all that it prints."""
        done = self.run(*arguments, "--json")
        assert (done.returncode, done.stderr) == (code, ""), done.stdout + done.stderr
        return json.loads(done.stdout)

    @property
    def state(self) -> Path:
        return self.home / ".local/state/bzzz/trial"

    def ran(self, report: dict[str, object]) -> list[int]:
        """The steps that Ansible really played, in its order."""
        journal = (self.state / "runs" / str(report["run"]) / "events.jsonl").read_text().splitlines()
        return [event["step"] for event in map(json.loads, journal) if event["event"] == "StepStarted"]
