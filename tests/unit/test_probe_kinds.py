# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Kinds of probe that look at this machine, held against this machine; where systemd is asked, a stand-in for its command line."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.bzzz.cluster.plugins.module_utils import probe
from ansible_collections.bzzz.cluster.plugins.module_utils.node import probes, state
from hypothesis import given, settings
from hypothesis import strategies as st


def look(kind: str, args: Any, **more: Any) -> dict[str, Any]:
    """One probe, through the same door as the controller's question."""
    entry = probe.understand("test", {"id": "x", "title": "x", "remedy": "x", kind: args, **more})
    (found,) = probes.main(probe.question("me", [entry]))["outcomes"]
    assert json.loads(json.dumps(found)) == found
    return found


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put an executable of that name before all others on PATH."""
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    (tmp_path / "bin").mkdir()

    def put(name: str, script: str) -> None:
        path = tmp_path / "bin" / name
        path.write_text("#!/bin/sh\n" + script)
        path.chmod(0o755)

    return put


def test_file_compares_what_is_declared(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("hello\n")
    path.chmod(0o640)
    me = getpass.getuser()
    digest = hashlib.sha256(b"hello\n").hexdigest()
    assert look("file", {"path": str(path), "mode": "0640", "owner": me, "sha256": digest, "content": "hello\n"})["status"] == "pass"
    wrong = look("file", {"path": str(path), "mode": "0600", "owner": me, "content": "secret"})
    assert wrong["status"] == "fail"
    assert wrong["seen"] == "mode 0640, content other"
    assert wrong["expected"] == "mode 0600, content as declared"


def test_file_states(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("there")
    assert look("file", {"path": str(tmp_path), "state": "directory"})["status"] == "pass"
    assert look("file", str(tmp_path))["seen"] == "state directory"
    assert look("file", {"path": str(tmp_path / "link"), "state": "link", "target": "there"})["status"] == "pass"
    assert look("file", {"path": str(tmp_path / "link"), "state": "link", "target": "here"})["seen"] == "target there"
    assert look("file", {"path": str(tmp_path / "no"), "state": "absent"})["status"] == "pass"
    assert look("file", {"path": str(tmp_path / "no"), "mode": "0600"})["seen"] == "state absent"


# What `systemctl show` of systemd 252 prints: a block a unit, in the order asked for, an empty line between.
SHOW = """
case "$*" in
*"-- a.service b.service broken.service"*) cat <<'END'
LoadState=loaded
ActiveState=active
SubState=running
UnitFileState=enabled
Result=success
ControlGroup=/system.slice/a.service
MemoryMax=536870912
NoNewPrivileges=yes

LoadState=not-found
ActiveState=inactive
SubState=dead
UnitFileState=
Result=success
ControlGroup=
MemoryMax=infinity
NoNewPrivileges=no

LoadState=loaded
ActiveState=failed
SubState=failed
UnitFileState=disabled
Result=exit-code
ControlGroup=
MemoryMax=infinity
NoNewPrivileges=no
END
echo called >> "$0.calls";;
*) exit 1;;
esac
"""


def test_all_units_in_one_call(tools: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools("systemctl", SHOW)
    tools("journalctl", 'echo "first line"; echo "cannot bind port"')
    group = tmp_path / "cgroup/system.slice/a.service"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("536870912\n")
    (group / "cpu.max").write_text("50000 100000\n")
    monkeypatch.setattr(probes, "CGROUPS", str(tmp_path / "cgroup"))
    raw: list[dict[str, Any]] = [
        {"unit": {"name": "a.service", "enabled": True}},
        {"unit": "b.service"},
        {"unit": {"name": "b.service", "active": False, "enabled": False}},
        {"unit": {"name": "broken.service", "enabled": True}},
        {"unit_property": {"name": "a.service", "MemoryMax": 536870912, "NoNewPrivileges": True}},
        {"unit_property": {"name": "a.service", "MemoryMax": 1}},
        {"cgroup": {"name": "a.service", "memory_max_mib": 512, "cpu_quota_percent": 50}},
        {"cgroup": {"name": "a.service", "memory_max_mib": 256}},
        {"cgroup": {"name": "broken.service", "memory_max_mib": 256}},
    ]
    entries = [probe.understand("r", {"id": str(at), "title": "t", "remedy": "r", **one}) for at, one in enumerate(raw)]
    found = probes.main(probe.question("me", entries))["outcomes"]
    assert [one["status"] for one in found] == ["pass", "fail", "pass", "fail", "pass", "fail", "pass", "fail", "fail"]
    assert found[1]["seen"] == "no such unit"
    assert found[3]["seen"] == "failed (failed), disabled, result exit-code; journal: first line | cannot bind port"
    assert found[3]["expected"] == "active, enabled"
    assert found[5]["seen"] == "MemoryMax 536870912"
    assert found[7]["seen"] == "memory MiB 512.0"
    assert found[8]["seen"] == "no control group: the unit isn't running"
    assert (tmp_path / "bin/systemctl.calls").read_text() == "called\n"


def test_limits_of_both_control_group_versions(tmp_path: Path) -> None:
    for name, text in {
        "memory/g/memory.limit_in_bytes": "268435456",
        "cpu/g/cpu.cfs_quota_us": "150000",
        "cpu/g/cpu.cfs_period_us": "100000",
        "memory/free/memory.limit_in_bytes": str(0x7FFFFFFFFFFFF000),
        "cpu/free/cpu.cfs_quota_us": "-1",
        "cpu/free/cpu.cfs_period_us": "100000",
        "v2/memory.max": "max",
        "v2/cpu.max": "max 100000",
        "v2/cpu.weight": "39",
        "cpu/g/cpu.shares": "2560",
        "cpu/least/cpu.shares": "10",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert probes.cgroup_limits(str(tmp_path), "/g") == (256.0, 150.0)
    assert probes.cgroup_limits(str(tmp_path), "/free") == (0.0, 0.0)
    assert probes.cgroup_limits(str(tmp_path), "/v2") == (0.0, 0.0)
    assert probes.cgroup_limits(str(tmp_path), "/none") == (0.0, 0.0)  # no limit was asked for, so systemd made no group
    assert [probes.cgroup_weight(str(tmp_path), group) for group in ("/v2", "/g", "/least", "/none")] == [39, 250, 1, None]
    (tmp_path / "empty").mkdir()
    assert probes.cgroup_limits(str(tmp_path / "empty"), "/none") == (None, None)


def test_systemd_without_an_answer_is_a_failure(tools: Any) -> None:
    tools("systemctl", "exit 1")
    assert look("unit", "a.service") == {"status": "fail", "seen": "systemd gave no answer about it", "expected": "active"}


@pytest.mark.requirement("1.2.1", part="listener")
def test_listener_is_told_with_its_program() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        program = Path("/proc/self/comm").read_text().strip()
        told = look("listener", {"port": port, "address": "127.0.0.1"}, within=5)
        assert told["status"] == "pass", told
        wrong = look("listener", {"port": port, "program": "sshd"})
        assert wrong["status"] == "fail"
        assert wrong["seen"].startswith(program) and "on 127.0.0.1" in wrong["seen"]
        assert look("listener", {"port": port, "address": "0.0.0.0"})["status"] == "fail"
        assert look("listener", {"port": port, "protocol": "udp"})["seen"] == "nothing listens there"
    assert look("listener", {"port": port})["seen"] == "nothing listens there"


def test_kernel_mounts_and_disk(tmp_path: Path) -> None:
    hostname = Path("/proc/sys/kernel/hostname").read_text().strip()
    assert look("sysctl", {"kernel.hostname": hostname})["status"] == "pass"
    assert look("sysctl", {"kernel.hostname": "x"})["seen"] == f"kernel.hostname {hostname}"
    assert look("sysctl", {"no.such": 1})["seen"] == "no.such not there"
    assert look("mount", "/proc")["seen"] == "proc from proc"
    assert look("mount", {"path": "/proc/", "fstype": "ext4"})["status"] == "fail"
    assert look("mount", str(tmp_path))["seen"] == "nothing is mounted there"
    assert look("disk_free", {"path": str(tmp_path / "not/yet"), "min_mib": 1})["status"] == "pass"
    full = look("disk_free", {"path": "/", "min_mib": 1 << 40})
    assert full["status"] == "fail" and full["seen"].endswith("MiB free")


def test_packages_and_users(tools: Any) -> None:
    assert look("packages", ["dpkg", "coreutils"])["status"] == "pass"
    assert look("packages", ["dpkg", "no-such-package", "-bad"])["seen"] == "missing: no-such-package, -bad"
    assert look("user", {"name": "root", "groups": ["root"], "shell": "/bin/bash"})["status"] == "pass"
    assert look("user", {"name": "root", "groups": ["nogroup"]})["seen"] == "groups none"
    assert look("user", "no-such-user")["seen"] == "no such user"
    tools("sudo", "printf 'User root may run the following commands on x:\\n    (ALL : ALL) NOPASSWD: ALL\\n'")
    assert look("user", {"name": "root", "sudo": "passwordless"})["status"] == "pass"
    assert look("user", {"name": "root", "sudo": "none"})["seen"] == "sudo passwordless"
    tools("dpkg-query", "exit 127")
    assert look("packages", ["dpkg"])["seen"] == "dpkg gave no answer"


@pytest.mark.parametrize(
    ("listing", "right"),
    [
        ("User x is not allowed to run sudo on node1.", "none"),
        ("User x may run the following commands on node1:\n    (ALL : ALL) ALL", "password"),
        ("User x may run the following commands on node1:\n    (ALL) NOPASSWD: ALL", "passwordless"),
        ("User x may run the following commands on node1:\n    (root) NOPASSWD: /usr/bin/systemctl restart ALLIN", "commands"),
        ("User x may run:\n    (root) NOPASSWD: /bin/a\n    (ALL : ALL) ALL", "password"),
    ],
)
def test_sudo_rights(listing: str, right: str) -> None:
    assert probes.sudo_rights(listing) == right


def test_command(tmp_path: Path) -> None:
    assert look("command", ["true"])["status"] == "pass"
    assert look("command", {"argv": ["sh", "-c", "echo ok; exit 3"], "rc": 3, "stdout": "^ok$"})["status"] == "pass"
    assert look("command", {"argv": ["sh", "-c", "echo out; echo why >&2; exit 1"]})["seen"] == "exit code 1: out | why"
    assert look("command", ["/no/such/program"])["seen"].startswith("exit code 127")
    assert look("command", {"argv": ["id", "-un"], "user": "nobody", "stdout": "^nobody$"})["status"] == "pass"
    assert look("command", {"argv": ["true"], "user": "no-such-user"})["status"] == "fail"
    # A tool that hangs is ended with all its children, and holds nothing up.
    mark = tmp_path / "mark"
    began = time.monotonic()
    hung = look("command", {"argv": ["sh", "-c", f"(sleep 2; touch {mark}) & sleep 60"], "timeout": 0.3})
    assert hung["seen"] == "exit code 124: no answer within 0.3 s"
    assert time.monotonic() - began < 2
    time.sleep(max(0.0, began + 2.5 - time.monotonic()))
    assert not mark.exists()


def test_value() -> None:
    assert look("value", {"seen": 2048, "min": 512, "unit": "MiB"}) == {
        "status": "pass",
        "seen": "2048 MiB",
        "expected": "at least 512 MiB",
    }
    assert look("value", {"seen": 100, "min": 512})["status"] == "fail"
    assert look("value", {"seen": "3.5", "max": 3})["status"] == "fail"
    assert look("value", {"seen": ["a"], "expected": ["a"]})["status"] == "pass"
    assert look("value", {"seen": None, "min": 1})["seen"] == "unknown"
    assert look("value", {"seen": "many", "min": 1})["status"] == "fail"


def test_probes_wait_side_by_side() -> None:
    entries = [probe.understand("r", {"id": str(at), "title": "t", "remedy": "r", "command": ["sleep", "0.5"]}) for at in range(12)]
    began = time.monotonic()
    found = probes.main(probe.question("me", entries))["outcomes"]
    assert {one["status"] for one in found} == {"pass"}
    assert time.monotonic() - began < 3  # one after the other it would be 6


def test_within_looks_again(tmp_path: Path) -> None:
    path = tmp_path / "late"
    timer = threading.Timer(0.5, path.touch)
    timer.start()
    assert look("file", str(path), within=10)["status"] == "pass"
    began = time.monotonic()
    assert look("file", str(tmp_path / "never"), within=0.5)["status"] == "fail"
    assert 0.5 <= time.monotonic() - began < 3


@pytest.mark.parametrize("kind", sorted(probe.KINDS))
def test_every_kind_survives_being_called_with_nothing(kind: str) -> None:
    (found,) = probes.main({"probes": [{"kind": kind, "module": probe.KINDS[kind][0], "args": {}}]})["outcomes"]
    assert found["status"] in ("pass", "fail")  # sysctl of nothing holds


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
# `command` would run what it is told, and the network kinds would go where they are told.
HARMLESS = sorted(set(probes.KINDS) - {"command"})
NAMES = ["path", "name", "names", "state", "mode", "min_mib", "seen", "min", "max", "expected", "groups", "content", "port", "fstype"]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        ANYTHING
        | st.fixed_dictionaries(
            {"kind": st.sampled_from([*HARMLESS, "nope"]), "module": st.sampled_from(["probes", "listening", "nope"]) | ANYTHING},
            optional={
                "args": ANYTHING | st.dictionaries(st.sampled_from(NAMES), ANYTHING, max_size=4),
                "within": st.just(0) | st.text(max_size=3),
            },
        ),
        max_size=4,
    )
)
def test_odd_questions_never_crash(entries: list[Any]) -> None:
    answer = probes.main({"node": "me", "probes": entries})
    assert len(answer["outcomes"]) == len(entries)
    assert {one["status"] for one in answer["outcomes"]} <= {"pass", "fail", "warn", "skip"}
    json.dumps(answer)


@pytest.mark.requirement("1.3.1", part="a rule added by hand is seen")
def test_what_was_loaded_is_held_against_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = tmp_path / "kernel"
    monkeypatch.setattr(state, "STATE_ROOT", str(tmp_path / "sets"))
    item = {"query": ["cat", str(kernel)], "apply": ["true"], "undo": ["true"]}
    args = {"set": "firewall", "name": "nftables"}
    assert look("loaded", args)["seen"] == "nothing was applied yet"
    kernel.write_text("chain input {\n  tcp dport 22 accept\n}\n")
    (tmp_path / "sets/firewall").mkdir(parents=True)
    (tmp_path / "sets/firewall/state.json").write_text(json.dumps({"applied": {"nftables": state.loaded_now(item)}}))
    assert look("loaded", args)["status"] == "pass"
    kernel.write_text("chain input {\n  tcp dport 4444 accept\n}\n")
    found = look("loaded", args)
    assert (found["status"], found["seen"]) == ("fail", "missing: tcp dport 22 accept; added: tcp dport 4444 accept")
    kernel.write_text("".join(f"rule {number}\n" for number in range(9)))
    assert look("loaded", args)["seen"].endswith("and 7 more lines")
    kernel.unlink()
    assert look("loaded", args)["seen"] == "nothing of it is in force any more"
