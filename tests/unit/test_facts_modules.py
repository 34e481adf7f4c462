# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The modules document what they return, the question carries all it needs, and a run asks once."""

from __future__ import annotations

import base64
import importlib
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.bzzz.cluster.plugins.module_utils.node import facts, gpu
from ansible_collections.bzzz.cluster.plugins.plugin_utils import question
from ansible_collections.bzzz.cluster.plugins.plugin_utils.run import run_id

COLLECTION = Path(__file__).parent.parent.parent
FIXTURES = COLLECTION / "tests/fixtures/gpu"
KINDS = {"str": str, "int": int, "float": (int, float), "bool": bool, "list": list, "dict": dict}


def documented(module: str) -> dict[str, Any]:
    source = importlib.import_module(f"ansible_collections.bzzz.cluster.plugins.modules.{module}")
    found: dict[str, Any] = yaml.safe_load(source.RETURN)["ansible_facts"]["contains"]
    return found


def compare(where: str, document: dict[str, Any], value: Any) -> None:
    """The value has the documented type and, where the document names its parts, exactly those."""
    if value is None:
        return
    assert isinstance(value, KINDS[document["type"]]), where  # type: ignore[arg-type]
    for one in value if isinstance(value, list) else [value]:
        if "contains" in document:
            assert set(one) == set(document["contains"]), where
            for name, inner in document["contains"].items():
                compare(f"{where}.{name}", inner, one[name])


@pytest.mark.requirement("1.1.11", part="parser")
@pytest.mark.requirement("1.2.6", part="parser")
@pytest.mark.requirement("5.1.1", part="parser")
def test_every_returned_field_is_documented_and_every_documented_one_returned(tmp_path: Path) -> None:
    found = facts.main({})
    for module in ("gpu_facts", "network_facts", "port_facts", "system_facts"):
        for key, document in documented(module).items():
            compare(key, document, found[key])
    for name, argument in {"nvidia-smi": "nvidia-smi-q-x.a100-sxm4-v12.xml", "rocm-smi": "rocm-smi.mi100_rocm602.json"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\nexec /bin/cat {FIXTURES / argument}\n")
        (tmp_path / name).chmod(0o755)
    gpus = gpu.main({"root": str(tmp_path), "path": str(tmp_path)})
    assert len(gpus["devices"]) == 5
    assert gpus["links"]
    assert gpus["problems"]
    compare("bzzz_gpu", documented("gpu_facts")["bzzz_gpu"], gpus)
    assert set(documented("facts")) == set(found)


@pytest.mark.requirement("1.1.9", part="parser")
def test_the_question_runs_on_a_bare_python_and_is_cheap(tmp_path: Path) -> None:
    """As ``ask`` does it, with no package of ours in reach; the bound is of CPU time, three times what was measured."""
    payload = {"run_id": "here", "path": "/usr/bin:/bin"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = subprocess.run(
        [sys.executable, "-sE", "-I", "-"],
        input=question.script("facts", payload),
        capture_output=True, text=True, check=True, cwd=tmp_path, env={"PATH": "/nowhere"},
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    answer = json.loads(base64.b64decode(said.stdout.strip().removeprefix(question.ANSWER)))
    assert set(answer) == {"bzzz_gpu", "bzzz_network", "bzzz_ports", "bzzz_system"}
    assert answer["bzzz_system"]["run_id"] == "here"
    assert (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime) < 0.3
    assert said.stderr == ""


@pytest.mark.requirement("1.1.9", part="parser")
def test_run_id_tells_processes_apart(tmp_path: Path) -> None:
    assert run_id() == run_id()

    def tree(name: str, boot: str, started: int) -> str:
        stat = tmp_path / name / str(os.getppid()) / "stat"
        stat.parent.mkdir(parents=True)
        stat.write_text(f"{os.getppid()} (odd ) name 1 2) S {' '.join(['0'] * 18)} {started} 0 0\n")
        (tmp_path / name / "sys/kernel/random").mkdir(parents=True)
        (tmp_path / name / "sys/kernel/random/boot_id").write_text(boot + "\n")
        return run_id(str(tmp_path / name))

    assert tree("a", "boot1", 500) == f"boot1-{os.getppid()}-500"
    assert len({tree("b", "boot1", 500), tree("c", "boot2", 500), tree("d", "boot1", 501)}) == 3


def test_a_node_cannot_write_the_declaration(tmp_path: Path) -> None:
    """What a node answers becomes facts, where the controller keeps the declaration of all nodes, too."""
    answer = {name: {} for name in ("bzzz_gpu", "bzzz_network", "bzzz_ports", "bzzz_system")}
    forged = {"bzzz_declared": {"localhost": {"ssh": {"public_keys": ["mine"]}}}, "bzzz_cluster": {}, "add_host": {"host_name": "evil"}}
    program = tmp_path / "python3"
    encoded = base64.b64encode(json.dumps({**answer, **forged, "ansible_facts": forged}).encode()).decode()
    program.write_text(f"#!/bin/sh\ncat >/dev/null\necho {question.ANSWER}{encoded}\n")
    program.chmod(0o755)
    (tmp_path / "play.yml").write_text("""
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - bzzz.cluster.facts:
    - ansible.builtin.assert:
        that:
          - ansible_facts.bzzz_system is defined
          - ansible_facts.bzzz_declared is undefined
          - ansible_facts.bzzz_cluster is undefined
          - bzzz_declared is undefined
          - groups.all == ['localhost']
""")
    environment = {
        **os.environ,
        "ANSIBLE_LOCAL_TEMP": str(tmp_path / "local"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    argv = ["ansible-playbook", "-i", "localhost,", "-e", f"ansible_python_interpreter={program}", "play.yml"]
    done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


PLAYBOOK = """
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - bzzz.cluster.facts:
        ollama_port: 1
      vars:
        ansible_python_interpreter: "{{ first }}"
    - bzzz.cluster.facts:
      vars:
        ansible_python_interpreter: /nonexistent/python3
    - ansible.builtin.assert:
        that:
          - ansible_facts.bzzz_network.interfaces | length > 0
          - ansible_facts.bzzz_system.run_id | length > 20
"""


@pytest.mark.requirement("1.1.9", part="parser")
def test_a_run_asks_a_node_once_and_trusts_no_other_runs_facts(tmp_path: Path) -> None:
    (tmp_path / "play.yml").write_text(PLAYBOOK)
    environment = {
        **os.environ,
        "ANSIBLE_CACHE_PLUGIN": "ansible.builtin.jsonfile",
        "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(tmp_path / "cache"),
        "ANSIBLE_LOCAL_TEMP": str(tmp_path / "local"),
        "ANSIBLE_NOCOLOR": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }

    def play(interpreter: str) -> subprocess.CompletedProcess[str]:
        argv = ["ansible-playbook", "-i", "localhost,", "--check", "-e", f"first={interpreter}", "play.yml"]
        return subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    first = play(sys.executable)
    assert first.returncode == 0, first.stdout + first.stderr
    (cached,) = (tmp_path / "cache").iterdir()
    assert "run_id" in cached.read_text()
    # With the first run's facts in the cache, a second run asks again (and here finds no interpreter).
    second = play("/nonexistent/python3")
    assert second.returncode == 2
    assert "/nonexistent/python3 was not found on this node" in second.stdout
