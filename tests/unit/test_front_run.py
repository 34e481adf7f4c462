# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs through the public command line: a small collection of eight steps, real ansible-playbook processes, local nodes."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import subprocess
import sys
import threading
import time
from importlib import metadata
from pathlib import Path

import pexpect
import pytest
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible_collections.bzzz.cluster.plugins.module_utils.node.gpu_device import EMPTY
from declarations import interface
from front import Front

from bzzz_setup import run


@pytest.fixture
def front(tmp_path: Path) -> Front:
    return Front(tmp_path)


def wait_for(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        time.sleep(0.02)


def held_open(front: Front, marker: Path) -> dict[str, object]:
    """A task that says that it began and then stays until it is killed."""
    return {
        "ansible.builtin.command": {"argv": ["/bin/sh", "-c", f"echo $$ > {marker}; exec sleep 300"]},
        "when": "inventory_hostname == 'n1'",
    }


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_version_is_told(front: Front) -> None:
    told = front.run("--version").stdout
    assert told == f"bzzz-setup {metadata.version('bzzz-setup')}, ansible-core {metadata.version('ansible-core')}\n"


@pytest.mark.requirement("F6", part="steps from the front")
def test_apply_runs_all_steps_and_reports_changes(front: Front) -> None:
    changes = [{"kind": "file", "name": "/etc/a", "what": "created"}, {"kind": "unit", "name": "a.service", "what": "restarted"}]
    front.step(2, [{"bzzz.cluster.answer": {"result": {"changed": True, "changes": changes}}}])
    front.step(3, [{"name": "Plain", "bzzz.cluster.answer": {"result": {"changed": True}}}])
    report = front.report("apply", code=0)
    assert front.ran(report) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [step["state"] for step in report["steps"]] == ["done"] * 8
    assert [step["changed"] for step in report["steps"]] == [0, 4, 2, 0, 0, 0, 0, 0]
    assert {node: tally["changed"] for node, tally in report["nodes"].items()} == {"n1": 3, "n2": 3}
    assert {"step": 2, "node": "n2", "role": "", **changes[1]} in report["changes"]
    assert {"step": 3, "node": "n1", "role": "", "kind": "task", "name": "Plain", "what": "changed"} in report["changes"]
    kept = json.loads((front.state / "runs" / report["run"] / "report.json").read_text())
    assert kept == report
    assert front.report("status", code=0)["report"] == {**report, "seconds": report["seconds"]}


@pytest.mark.requirement("L2", part="resume from the front")
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--from", "7"], [7, 8]),
        (["--from", "formation"], [7, 8]),
        (["--only", "network"], [2]),
        (["--only", "5", "--only", "2"], [2, 5]),
        (["--only", "3,1"], [1, 3]),
    ],
)
def test_apply_runs_the_steps_asked_for(front: Front, arguments: list[str], expected: list[int]) -> None:
    report = front.report("apply", *arguments, code=0)
    assert front.ran(report) == expected == [step["number"] for step in report["steps"]]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["apply", "--from", "9"], "no step '9'"),
        (["apply", "--only", "netwrk"], "no step 'netwrk'"),
        (["apply", "--only", "1", "--from", "2"], "exclude each other"),
        (["apply", "--nonsense"], "No such option"),
        (["frobnicate"], "No such command"),
        (["apply", "--limit", "n1,n7"], "no node or group n7"),
        (["apply", "--limit", "bzzz:!n7"], "no node or group n7"),
        (["apply", "--limit", "x*"], "no hosts"),
        (["status", "-i", "/nonexistent"], "no inventory at /nonexistent"),
    ],
)
def test_bad_options_are_refused_with_a_remedy(front: Front, arguments: list[str], said: str) -> None:
    inventory = [] if "-i" in arguments else ["-i", str(front.inventory)]
    if arguments == ["frobnicate"]:
        inventory = []
    done = subprocess.run(
        front.command(*arguments, *inventory), env=front.environment, capture_output=True, text=True, timeout=60, check=False
    )
    told = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 2, told
    assert said in told
    assert "Remedy:" in told or "--help" in told


def test_files_of_variables_that_belong_to_nobody_are_warned_of(front: Front) -> None:
    """Ansible passes over them: budgets in group_vars/cost.yml would hold nobody, and nothing would say so."""
    front.hosts("n[1:2]")
    for name in ("bzz/main.yml", "cost.yml", "all.yml", "README.md", ".bzz.yml.swp"):
        (front.inventory / "group_vars" / name).parent.mkdir(exist_ok=True)
        (front.inventory / "group_vars" / name).write_text("{}\n")
    (front.inventory / "group_vars/empty").mkdir()
    (front.inventory / "host_vars").mkdir()
    for name in ("n2.yml", "n22.yml"):
        (front.inventory / "host_vars" / name).write_text("{}\n")
    told = {found["option"]: found for found in front.report("apply", "--only", "1", code=0)["problems"]}
    assert {found["severity"] for found in told.values()} == {"warning"}
    assert {name: found["remedy"] for name, found in told.items()} == {
        "group_vars/bzz": "Name it group_vars/bzzz, or remove it.",
        "group_vars/cost.yml": "Name it after one of all, bzzz, or remove it.",
        "host_vars/n22.yml": "Name it host_vars/n2.yml, or remove it.",
    }
    assert "No group is called cost" in told["group_vars/cost.yml"]["message"]


@pytest.mark.requirement("1.1.3", part="exit code and remedy of a refused declaration")
def test_declaration_problems_are_2(front: Front) -> None:
    problem = {
        "severity": "error",
        "option": "network_subnet",
        "value": "10.0.0.5/24",
        "node": None,
        "message": "Host bits are set.",
        "remedy": "Write 10.0.0.0/24.",
    }
    front.step(1, [{"bzzz.cluster.answer": {"result": {"failed": True, "msg": "refused", "problems": [problem]}}, "run_once": True}])
    front.playbook(
        "check", [{"hosts": "localhost", "gather_facts": False, "tasks": [{"bzzz.cluster.answer": {"result": {"problems": [problem]}}}]}]
    )
    report = front.report("apply", code=2)
    assert report["problems"] == [problem]
    assert front.ran(report) == [1]
    assert front.report("check", code=2)["problems"] == [problem]
    said = front.run("check")
    assert said.returncode == 2
    assert "network_subnet = '10.0.0.5/24'" in said.stdout
    assert "Remedy: Write 10.0.0.0/24." in said.stdout
    front.playbook(
        "check",
        [
            {
                "hosts": "localhost",
                "gather_facts": False,
                "tasks": [{"bzzz.cluster.answer": {"result": {"problems": [{**problem, "severity": "warning"}]}}}],
            }
        ],
    )
    assert front.report("check", code=0)["problems"][0]["severity"] == "warning"


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("hosts.yml", "bzzz: {hosts: [1"),
        ("hosts.yml", "bzzz: {hosts: {}}"),
        ("group_vars/bzzz/main.yml", "a: [1"),
        ("group_vars/bzzz/vault.yml", "x: [1"),
    ],
)
def test_an_unreadable_or_empty_inventory_is_2(front: Front, file: str, content: str) -> None:
    (front.inventory / file).write_text(content)
    document = front.report("apply", code=2)
    assert document["problems"][0]["message"]
    assert document["problems"][0]["remedy"]


@pytest.mark.requirement("L7", part="shown by the front")
def test_failed_checks_are_1_with_their_remedy(front: Front) -> None:
    check = {
        "id": "port-8080",
        "requirement": "1.2.2",
        "role": "network",
        "title": "port 8080 is free",
        "status": "fail",
        "seen": "nginx",
        "expected": "nobody",
        "remedy": "systemctl stop nginx",
        "data": {},
    }
    good = {**check, "id": "x", "status": "pass"}
    front.step(
        8,
        [
            {
                "bzzz.cluster.answer": {
                    "result": {"failed": "{{ inventory_hostname == 'n1' }}", "msg": "1 check failed", "checks": [good, check]}
                }
            }
        ],
    )
    report = front.report("verify", code=1)
    assert front.ran(report) == [8]
    assert len(report["checks"]) == 4
    assert {**check, "node": "n1", "step": 8} in report["checks"]
    said = front.run("verify")
    assert said.returncode == 1
    assert "port 8080 is free" in said.stdout
    assert "seen nginx, expected nobody  [1.2.2]" in said.stdout
    assert "  Remedy: systemctl stop nginx" in said.stdout.splitlines()


@pytest.mark.requirement("L2", part="a lost node does not stop the others")
def test_an_unreachable_node_is_3_and_the_others_go_on(front: Front) -> None:
    lost = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1, "ansible_ssh_common_args": "-F /dev/null"}
    front.hosts("n1", "n2", n2=lost)
    report = front.report("apply", "--from", "6", code=3)
    assert front.ran(report) == [6, 7, 8]
    assert [(failure["node"], failure["step"], failure["kind"]) for failure in report["failures"]] == [("n2", 6, "unreachable")]
    assert [step["state"] for step in report["steps"]] == ["failed", "done", "done"]
    said = front.run("apply", "--from", "6").stdout
    assert "Remedy:" in said
    assert f"bzzz-setup apply -i {front.inventory} --from 6" in said
    assert front.report("apply", "--from", "6", "--limit", "n1", code=0)["nodes"].keys() == {"n1"}


def test_a_failed_task_is_3_unless_it_was_rescued_or_ignored(front: Front) -> None:
    fail = {"ansible.builtin.fail": {"msg": "disk is full"}}
    front.step(1, [{"block": [fail], "rescue": [{"ansible.builtin.debug": {"msg": "saved"}}]}, {**fail, "ignore_errors": True}])
    report = front.report("apply", "--only", "1,2", code=0)
    assert report["failures"] == []
    assert [step["state"] for step in report["steps"]] == ["done", "done"]
    assert not any(tally["failed"] for tally in report["nodes"].values())
    front.step(1, [{**fail, "when": "inventory_hostname == 'n2'"}])
    report = front.report("detect", code=3)
    assert [(failure["node"], failure["message"]) for failure in report["failures"]] == [("n2", "disk is full")]


@pytest.mark.requirement("L1", part="plan in the terminal")
def test_plan_changes_nothing_and_summarises(front: Front, tmp_path: Path) -> None:
    target = tmp_path / "landed"
    front.step(5, [{"ansible.builtin.copy": {"content": "new\n", "dest": str(target) + "-{{ inventory_hostname }}"}}])
    report = front.report("plan", "--from", "4", code=0)
    assert [step["changed"] for step in report["steps"]] == [0, 2, 0, 0, 0]
    assert list(tmp_path.glob("landed*")) == []
    said = front.run("plan", "--only", "5", "--diff")
    assert said.returncode == 0
    assert "+new" in said.stdout
    assert front.report("status", code=0)["report"] is None
    front.report("apply", "--only", "5", code=0)
    assert len(list(tmp_path.glob("landed*"))) == 2
    assert front.report("plan", "--only", "5", code=0)["changes"] == []


@pytest.mark.requirement("1.1.9", part="interfaces shown by detect")
def test_detect_shows_the_machines(front: Front) -> None:
    facts = {
        "bzzz_system": {
            "os": {"name": "Debian GNU/Linux 12 (bookworm)"},
            "cpu": {"threads": 8, "model": "EPYC"},
            "memory": {"total_mib": 64000},
            "mounts": [{"path": "/", "total_mib": 102400, "available_mib": 51200}],
            "problems": [{"message": "no clock service", "remedy": "apt-get install chrony"}],
        },
        "bzzz_gpu": {"devices": [{**EMPTY, "vendor": "nvidia", "model": "Tesla T4", "memory_total_mib": 15360}] * 2, "problems": []},
        "bzzz_network": {
            "primary_interface": "eth0",
            "interfaces": [
                interface("eth0", "10.0.0.4/24", mac="02:00:00:00:00:04", driver="virtio_net"),
                interface("eth1", carrier=False),
                interface("lo", kind="loopback"),
            ],
            "problems": [],
        },
    }
    front.step(1, [{"bzzz.cluster.answer": {"result": {"ansible_facts": facts}}}])
    assert front.report("detect", code=0)["nodes"] == {"n1": facts, "n2": facts}
    said = front.run("detect").stdout
    for part in ("8 x EPYC", "62 GiB", "50 GiB free of 100 GiB", "2 x Tesla T4 15 GiB", "eth0 10.0.0.4/24", "apt-get install chrony"):
        assert part in said, said
    assert re.search(r"^n1 +eth0 +physical +up +10.0.0.4/24 +1500 +1000 Mb/s +02:00:00:00:00:04 +virtio_net", said, re.MULTILINE), said
    assert re.search(r"^n2 +eth1 +physical +no carrier ", said, re.MULTILINE), said
    assert "n1, n2\n  no clock service" in said and "n1  lo" not in said


@pytest.mark.requirement("L2", part="one run at a time")
def test_a_second_run_is_4_and_a_killed_one_is_not_in_the_way(front: Front, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    front.step(4, [held_open(front, marker)])
    first = front.start("apply")
    wait_for(lambda: marker.exists() and marker.read_text().strip())
    busy = front.report("apply", code=4)
    assert f"pid {first.pid}" in busy["problems"][0]["message"]
    assert time.strftime("%Y-%m-%d") in busy["problems"][0]["message"]
    assert front.report("status", code=0)["running"]["pid"] == first.pid
    asleep = int(marker.read_text())
    first.send_signal(signal.SIGKILL)
    first.communicate()
    wait_for(lambda: not alive(asleep))  # Ansible and what it ran have gone with the front.
    front.step(4, [{"bzzz.cluster.answer": {}}])
    told = front.report("status", code=0)
    assert told["running"] is None
    assert [step["state"] for step in told["report"]["steps"]][:5] == ["done", "done", "done", "running", "waiting"]
    front.report("apply", code=0)
    assert list(front.state.glob("runs/*/private")) == []


@pytest.mark.requirement("L2", part="interruption")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_is_130_and_stops_what_it_started(front: Front, tmp_path: Path, number: signal.Signals) -> None:
    marker = tmp_path / "marker"
    front.step(2, [held_open(front, marker)])
    process = front.start("apply", "--json")
    wait_for(lambda: marker.exists() and marker.read_text().strip())
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "")
    assert not alive(int(marker.read_text()))
    report = json.loads(out)
    assert report["outcome"] == "interrupted"
    assert [step["state"] for step in report["steps"]][:3] == ["done", "failed", "waiting"]
    front.step(2, [{"bzzz.cluster.answer": {}}])
    front.report("apply", code=0)


def test_who_looks_for_a_holder_is_in_nobodys_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert run.holder("trial") is None
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            run.holder("trial")

    lookers = [threading.Thread(target=look) for _ in range(2)]
    for one in lookers:
        one.start()
    try:
        for _ in range(100):
            with run.lock("trial", "apply"):
                assert (run.holder("trial") or {})["command"] == "apply"
    finally:
        over.set()
        for one in lookers:
            one.join()
    assert run.holder("trial") is None


def test_only_the_last_runs_are_kept_and_they_are_private(front: Front) -> None:
    runs = front.state / "runs"
    for number in range(25):
        (runs / f"20000101-0000{number:02}-1-apply").mkdir(parents=True)
    report = front.report("apply", "--only", "1", code=0)
    kept = sorted(folder.name for folder in runs.iterdir())
    assert len(kept) == 20
    assert kept[-1] == report["run"]
    assert kept[0] == "20000101-000006-1-apply"
    for file in [runs / report["run"], *(runs / report["run"]).iterdir()]:
        assert file.stat().st_mode & 0o077 == 0, file


@pytest.mark.requirement("F3", part="secrets of a run")
def test_secrets_are_nowhere(front: Front, tmp_path: Path) -> None:
    """A vaulted option, a secret of the caller's environment: in no file, no argv, no environment, no output of the run."""
    key, vaulted, foreign = "canary-key-5d1f", "canary-vaulted-77ac", "canary-foreign-0b3e"
    folder = front.home / ".config/bzzz/trial"
    folder.mkdir(parents=True)
    (folder / "vault-key").write_text(key + "\n")
    (folder / "vault-key").chmod(0o600)
    vault = VaultLib([("default", VaultSecret(key.encode()))])
    (front.inventory / "group_vars/bzzz/vault.yml").write_bytes(vault.encrypt(f"service_token: {vaulted}\n"))
    proof, go = tmp_path / "proof", tmp_path / "go"
    front.step(
        1,
        [
            {"bzzz.cluster.answer": {"secret": "{{ service_token }}", "result": {"changed": True}}},
            {"ansible.builtin.copy": {"content": "{{ service_token | hash('sha256') }}", "dest": str(proof)}, "run_once": True},
            {"ansible.builtin.command": {"argv": ["/bin/sh", "-c", f"until test -e {go}; do sleep 0.05; done"]}, "run_once": True},
            {"ansible.builtin.fail": {"msg": "{{ service_token }}"}, "no_log": True, "when": "inventory_hostname == 'n1'"},
        ],
    )
    process = front.start("apply", BZZZ_TEST_SECRET=foreign)
    wait_for(proof.exists)
    seen = bytearray()
    children = {process.pid}
    for _ in range(3):
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                pid, parent = int(stat.parent.name), int(stat.read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            if parent in children:
                children.add(pid)
    assert len(children) >= 3
    for pid in children - {process.pid}:
        for part in ("cmdline", "environ"):
            try:
                seen += Path(f"/proc/{pid}/{part}").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
    assert b"ansible" in seen
    running = [file for file in front.home.rglob("*") if file.is_file()]
    go.touch()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 3, out + err
    assert proof.read_text() == hashlib.sha256(vaulted.encode()).hexdigest(), "the secret did reach the task"
    for file in {*running, *(file for file in front.home.rglob("*") if file.is_file())} - {folder / "vault-key"}:
        if file.exists():
            seen += file.read_bytes()
    seen += (out + err).encode()
    for canary in (key, vaulted, foreign):
        assert canary.encode() not in seen
    assert not list(front.state.glob("runs/*/private"))


def test_plain_lines_when_not_a_terminal(front: Front) -> None:
    done = front.run("apply", "--only", "2")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    lines = done.stdout.splitlines()
    assert lines[0] == "step 2 of 8  Network"
    assert lines[-2].startswith("Fine. apply of cluster trial: ")
    assert Path(lines[-1].removeprefix("Report: ")).read_text().startswith("<!DOCTYPE html>")


def test_live_progress_fits_eighty_columns(front: Front) -> None:
    front.step(2, [{"name": "A task whose name is much too long for one line of a terminal " * 2, "ansible.builtin.command": "sleep 0.6"}])
    arguments = ["-m", "bzzz_setup", "apply", "-i", str(front.inventory), "--only", "1,2"]
    environment = {**front.environment, "TERM": "xterm-256color"}
    child = pexpect.spawn(sys.executable, arguments, env=environment, dimensions=(24, 80), encoding="utf-8", timeout=60)
    shown = child.read()
    child.close()
    assert child.exitstatus == 0, shown
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", shown).splitlines()
    assert any("2 of 8" in line for line in lines)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    assert "A task whose name is much too" in text
    assert "✔ 1 Detection" in text
    # A path is left in one piece, so that it can be copied.
    assert max(len(line) for line in text.replace("\r", "\n").splitlines() if not line.startswith("Report: ")) <= 80


@pytest.mark.requirement("F8", part="a report a person can read")
def test_the_report_of_a_run_is_kept_listed_and_handed_out(front: Front, tmp_path: Path) -> None:
    told = front.run("report")
    assert told.returncode == 2 and "bzzz-setup plan" in told.stdout + told.stderr
    planned = front.report("plan", "--only", "1", code=0)
    applied = front.report("apply", "--only", "2", code=0)
    page = front.state / "runs" / str(applied["run"]) / "report.html"
    for file in (page, page.with_name("report.json")):
        assert file.stat().st_mode & 0o777 == 0o600
    assert str(applied["run"]) in page.read_text()
    assert front.report("report", code=0) == applied
    assert front.report("report", str(planned["run"]), code=0) == planned
    listed = front.report("report", "--list", code=0)
    assert [(run["run"], run["outcome"]) for run in listed["runs"]] == [(applied["run"], "fine"), (planned["run"], "fine")]

    page.unlink()  # as after a run that was killed before it could write one
    copy = tmp_path / "copy.html"
    shown = front.run("report", "--html", str(copy))
    assert shown.returncode == 0 and shown.stdout.splitlines()[-1] == f"Report: {copy}"
    assert copy.read_text() == page.read_text()
    for arguments, said in (["report", "nonesuch"], "--list"), (["report", "--html", "/proc/none"], "that you may write"):
        refused = front.run(*arguments)
        assert refused.returncode == 2 and said in refused.stdout + refused.stderr
    browserless = front.run("report", "--open", PATH=str(tmp_path), BROWSER="")
    assert browserless.returncode == 2 and str(page) in browserless.stdout


@pytest.mark.requirement("L2", part="a check beside a run leaves its connections alone")
def test_a_check_beside_a_run_leaves_its_connections_alone(front: Front, tmp_path: Path) -> None:
    marker = tmp_path / "began"
    front.step(1, [held_open(front, marker)])
    front.playbook("check", [{"name": "Check", "hosts": "bzzz", "gather_facts": False, "tasks": [{"bzzz.cluster.answer": {"result": {}}}]}])
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    run = front.start("detect", XDG_RUNTIME_DIR=str(runtime))
    try:
        wait_for(marker.exists)
        before = sorted(runtime.rglob("*"))
        assert front.run("check", XDG_RUNTIME_DIR=str(runtime)).returncode == 0
        assert sorted(runtime.rglob("*")) == before and before
    finally:
        run.send_signal(signal.SIGINT)
        run.communicate(timeout=60)
    assert run.returncode == 130
