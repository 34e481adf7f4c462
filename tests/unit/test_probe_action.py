# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The actions through ansible-playbook: files of probes, templating, check mode, failures, and what must not be seen."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.bzzz.cluster.plugins.plugin_utils import question

CANARY = "canary-51d0"


class Play:
    """A directory with a play of local hosts; the tasks' results come back as the `json` callback has them."""

    def __init__(self, where: Path) -> None:
        self.where = where

    def probes(self, entries: list[dict[str, Any]], role: str = "demo") -> str:
        path = self.where / "roles" / role / "probes" / "main.yml"
        path.parent.mkdir(parents=True)
        path.write_text(yaml.safe_dump(entries))
        return str(path.relative_to(self.where))

    def run(
        self, tasks: list[dict[str, Any]], *options: str, hosts: tuple[str, ...] = ("node1",), **variables: Any
    ) -> tuple[int, list[dict[str, Any]], str]:
        """Exit code, each task's results by host, and all that was said."""
        inventory = {"all": {"hosts": {host: {"ansible_connection": "local"} for host in hosts}, "vars": variables}}
        inventory["all"]["vars"].setdefault("ansible_python_interpreter", sys.executable)
        (self.where / "hosts.yml").write_text(yaml.safe_dump(inventory))
        play = [{"name": "Probes", "hosts": "all", "gather_facts": False, "tasks": tasks}]
        (self.where / "play.yml").write_text(yaml.safe_dump(play))
        environment = {"ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json", "ANSIBLE_HOME": str(self.where / "home"), "ANSIBLE_PIPELINING": "1"}
        done = subprocess.run(
            [Path(sys.executable).with_name("ansible-playbook"), "-i", "hosts.yml", "play.yml", *options],
            cwd=self.where,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        said = done.stdout + done.stderr
        document = json.loads(done.stdout[done.stdout.index("{\n") :])
        return done.returncode, [task["hosts"] for task in document["plays"][0]["tasks"]], said


@pytest.fixture
def play(tmp_path: Path) -> Play:
    return Play(tmp_path)


def entry(name: str, **kind: Any) -> dict[str, Any]:
    return {"id": name, "title": f"{name} holds", "requirement": "F2", "remedy": f"mend {name} on {{{{ inventory_hostname }}}}", **kind}


def test_a_file_of_probes_is_templated_and_evaluated(play: Play, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("x")
    path = play.probes(
        [
            entry("there", file={"path": "{{ folder }}/there", "mode": "{{ omit }}"}),
            entry("dropped", file="{{ nowhere }}", when="nowhere is defined"),
            entry("told", skip="not on {{ inventory_hostname }}", when=["true", "{{ folder == '/' }}"], file="{{ nowhere }}"),
            entry("port-{{ item }}", loop="{{ ports }}", value={"seen": "{{ item }}", "min": 1}),
            entry("warned", severity="warn", value={"seen": "{{ small }}", "min": 5, "unit": "MiB"}),
        ]
    )
    code, (results,), _said = play.run(
        [{"bzzz.cluster.probe": {"path": path}}], hosts=("node1", "node2"), folder=str(tmp_path), ports=[80, 443], small=3
    )
    assert code == 0
    checks = results["node2"]["checks"]
    assert [(check["id"], check["status"], check["node"], check["role"]) for check in checks] == [
        ("there", "pass", "node2", "demo"),
        ("port-80", "pass", "node2", "demo"),
        ("port-443", "pass", "node2", "demo"),
        ("warned", "warn", "node2", "demo"),
        ("told", "skip", "node2", "demo"),
    ]
    warned = checks[3]
    assert warned == {
        "id": "warned",
        "title": "warned holds",
        "requirement": "F2",
        "role": "demo",
        "node": "node2",
        "status": "warn",
        "seen": "3 MiB",
        "expected": "at least 5 MiB",
        "remedy": "mend warned on node2",
        "data": {},
    }
    assert checks[4]["seen"] == "not on node2"
    assert results["node1"]["msg"].startswith("node1: 3 pass, 1 warn, 1 skip\n- warn demo/warned [F2] warned holds: 3 MiB")


def test_a_failed_check_fails_the_task_unless_told_otherwise(play: Play) -> None:
    wrong = [entry("gone", file="/no/such/file")]
    code, results, _said = play.run(
        [
            {"bzzz.cluster.probe": {"probes": wrong, "fail": False}, "register": "found"},
            {"ansible.builtin.assert": {"that": ["found.checks[0].status == 'fail'"]}},
            {"bzzz.cluster.probe": {"probes": wrong}},
        ]
    )
    assert code == 2
    assert not results[0]["node1"].get("failed") and results[2]["node1"]["failed"]
    assert results[2]["node1"]["changed"] is False
    assert results[2]["node1"]["msg"] == (
        "node1: 1 fail\n- fail /gone [F2] gone holds: state absent (expected state file)\n  Remedy: mend gone on node1"
    )


def test_check_mode_knows_that_nothing_is_applied_yet(play: Play) -> None:
    probes = [entry("gone", file="/no/such/file", within=60), entry("memory", value={"seen": 1, "min": 1})]
    code, (results,), _said = play.run([{"bzzz.cluster.probe": {"probes": probes}}], "--check")
    assert code == 0
    gone, memory = results["node1"]["checks"]
    assert (gone["status"], gone["seen"]) == ("skip", "not applied yet (check mode): state absent")
    assert memory["status"] == "pass"
    code, (results,), _said = play.run([{"bzzz.cluster.probe": {"probes": [entry("cpu", value={"seen": 1, "min": 2})]}}], "--check")
    assert code == 2  # a machine that is too small stays too small


@pytest.mark.parametrize(
    ("probes", "message"),
    [
        ([entry("x", fil={"path": "/"})], "role demo, probe x: unknown key 'fil'; did you mean 'file'?"),
        ([entry("x", file={"paht": "/"})], "role demo, probe x: file has no 'paht'; did you mean 'path'?"),
        ([entry("x", mount="/"), entry("x", mount="/")], "role demo, probe x: the id is used twice"),
        ([entry("x", file="{{ nowhere }}")], "role demo, probe x: "),
        ([entry("x", mount="/", when="{{ 'yes' }}")], "role demo, probe x: "),
    ],
)
def test_a_mistake_is_named(play: Play, probes: list[dict[str, Any]], message: str) -> None:
    code, (results,), _said = play.run([{"bzzz.cluster.probe": {"path": play.probes(probes)}}])
    assert code == 2
    assert message in results["node1"]["msg"]


def test_other_mistakes(play: Play) -> None:
    (play.where / "odd.yml").write_text("a: mapping\n")
    tasks = [
        {"bzzz.cluster.probe": arguments, "ignore_errors": True}
        for arguments in ({"roles": ["no_such_role"]}, {"path": "none.yml"}, {"path": "odd.yml"}, {}, {"rolls": ["x"]})
    ]
    _code, results, _said = play.run(tasks)
    messages = [found["node1"]["msg"] for found in results]
    assert "role 'no_such_role' has no probes/main.yml" in messages[0]
    assert "No such file or directory" in messages[1]
    assert "probes are a list of entries" in messages[2]
    assert "give roles, path or probes" in messages[3]
    assert "rolls" in messages[4]


def test_a_stranger_s_text_is_never_a_template(play: Play) -> None:
    """What a fact or a typed value holds is data, even where it looks like a template."""
    path = play.probes([entry("data", value={"seen": "{{ fact }}", "expected": "x"})])
    tasks = [
        {"ansible.builtin.slurp": {"src": str(play.where / "evil")}, "register": "evil"},
        {"ansible.builtin.set_fact": {"fact": "{{ evil.content | b64decode }}"}},
        {"bzzz.cluster.probe": {"path": path, "fail": False}},
    ]
    (play.where / "evil").write_text("{{ lookup('pipe', 'echo run') }}")
    code, results, _said = play.run(tasks)
    assert code == 0
    assert results[2]["node1"]["checks"][0]["seen"] == "{{ lookup('pipe', 'echo run') }}"


def test_secrets_are_in_no_output_and_no_argument(play: Play) -> None:
    """The server sees the token; neither the most talkative output nor the node's process list does."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        path = play.probes(
            [
                entry("header", http={"url": url, "headers": {"Authorization": "Bearer {{ secret }}"}, "timeout": 1}),
                entry("argv", command={"argv": ["sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"], "stdout": "no-such-thing"}),
            ]
        )
        (play.where / "secret.yml").write_text(f"secret: {CANARY}\n")
        tasks = [{"ansible.builtin.include_vars": "secret.yml", "no_log": True}, {"bzzz.cluster.probe": {"path": path, "fail": False}}]
        _code, results, said = play.run(tasks, "-vvvv")
        caller, _address = server.accept()
        with caller:
            assert CANARY.encode() in caller.recv(4096)
    assert [check["status"] for check in results[1]["node1"]["checks"]] == ["fail", "fail"]
    assert CANARY not in said


def test_the_module_by_itself_is_the_same_program(play: Play) -> None:
    """Packed as a module, with every sibling that a kind needs."""
    (play.where / "action_plugins").mkdir()
    (play.where / "action_plugins" / "packed.py").write_text(
        "from ansible.plugins.action import ActionBase\n"
        "class ActionModule(ActionBase):\n"
        "    def run(self, tmp=None, task_vars=None):\n"
        "        return self._execute_module('bzzz.cluster.probe', module_args=self._task.args, task_vars=task_vars)\n"
    )
    headers = {"headers": {"X": CANARY}, "url": "http://127.0.0.1:1/"}
    probes = [
        entry("file", file="/no/such/file"),
        entry("http", http=headers),
        entry("reach", reach={"peers": [{"name": "a", "address": "127.0.0.1"}], "ports": [1]}),
        entry("listener", listener={"port": 1}),
    ]
    code, results, said = play.run(
        [
            {"packed": {"probes": probes, "fail": False}},
            {"packed": {"probes": [entry("x", moutn="/")]}, "ignore_errors": True},
            {"packed": {"probes": probes[:1]}},
        ],
        "-vvv",
    )
    assert code == 2
    assert [check["status"] for check in results[0]["node1"]["checks"]] == ["fail"] * 4
    assert "did you mean 'mount'?" in results[1]["node1"]["msg"]
    assert results[2]["node1"]["failed"] is True
    assert CANARY not in json.dumps(results[0]["node1"])
    assert said


@pytest.mark.requirement("1.3.3", part="listen, try, let go, over a play")
@pytest.mark.requirement("1.3.4", part="matrix over a play")
@pytest.mark.requirement("F8", part="benchmark over a play")
def test_listen_reach_matrix_and_benchmark(play: Play, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with socket.create_server(("127.0.0.1", 0), backlog=64) as ssh:
        nodes = [{"name": name, "address": "127.0.0.1"} for name in ("node1", "node2")]
        probes = [
            entry("peers", peers={"peers": "{{ nodes }}", "port": ssh.getsockname()[1]}),
            entry("ports", reach={"peers": "{{ nodes }}", "ports": [port]}),
            entry("clock", clock={"max_offset_seconds": 60}),
        ]
        gathered = "{{ ansible_play_hosts | map('extract', hostvars, ['found', 'checks']) | flatten }}"
        disk = {"path": str(tmp_path), "mib": 8, "min_mib_per_second": 1e9}
        # The listeners are one node's only: there is one loopback, and a second listener would take the place of the first.
        code, results, _said = play.run(
            [
                {"bzzz.cluster.port_listen": {"ports": [port]}, "run_once": True},
                {"bzzz.cluster.probe": {"path": play.probes(probes)}, "register": "found"},
                {"bzzz.cluster.matrix": {"checks": gathered, "clock_offset_max_seconds": 60}, "run_once": True},
                {"bzzz.cluster.benchmark": {"disk": disk, "network": {"peers": nodes, "port": port, "mib": 8}, "fail": False}},
                {"bzzz.cluster.port_listen": {"state": "stopped"}, "run_once": True},
                {"bzzz.cluster.benchmark": {"disk": disk}},
            ],
            hosts=("node1", "node2"),
            nodes=nodes,
        )
    assert code == 2  # the last task's: no disk writes 1e9 MiB/s
    assert results[0]["node1"]["listening"] == [port]
    cells = results[2]["node1"]["matrix"]
    assert cells["node1"]["node2"]["ports"] == {str(port): "open"}
    assert cells["node2"]["node1"]["reachable"] is True
    assert abs(cells["node1"]["node2"]["clock_offset_seconds"]) < 5
    assert results[2]["node1"]["checks"][0]["status"] == "pass"
    figures = results[3]["node1"]["figures"]
    assert figures["network"]["peer"] == "node2" and figures["network"]["mib"] == 8
    assert [check["status"] for check in results[3]["node1"]["checks"]] == ["fail", "pass"]
    assert results[5]["node2"]["failed"] and "The disk writes fast enough" in results[5]["node2"]["msg"]


def test_a_question_holds_only_the_modules_it_needs() -> None:
    assert set(question.sources("probes")) == {"probes"}
    assert len(question.script("probes", {"probes": []})) < len(question.script("probes", {"probes": [], "modules": ["web"]}))
    assert set(question.sources("bench")) == {"bench", "listen", "web", "probes"}
