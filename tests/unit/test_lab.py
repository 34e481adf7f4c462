# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import ipaddress
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bzzz_setup import lab, machine
from bzzz_setup.events import Refusal

networks = st.builds(
    lambda address, length: ipaddress.IPv4Network((address, length), strict=False),
    st.integers(int(lab.POOL.network_address), int(lab.POOL.broadcast_address)),
    st.integers(18, 32),
)


@given(st.text(), st.lists(networks, max_size=40))
def test_a_lab_network_never_overlaps_one_in_use(seed: str, taken: list[ipaddress.IPv4Network]) -> None:
    try:
        found = lab.free_subnet(seed, taken)
    except Refusal:
        left = [subnet for subnet in lab.POOL.subnets(new_prefix=24) if not any(subnet.overlaps(network) for network in taken)]
        assert not left
    else:
        assert found.prefixlen == 24 and found.subnet_of(lab.POOL)
        assert not any(found.overlaps(network) for network in taken)


def test_a_machine_without_a_free_network_is_told_what_to_remove() -> None:
    with pytest.raises(Refusal) as refused:
        lab.free_subnet("any", [ipaddress.IPv4Network("10.0.0.0/8")])
    assert "lab down" in refused.value.problems[0]["remedy"]


def test_labs_of_other_names_and_checkouts_do_not_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    here = [lab.Lab("one").id, lab.Lab("two").id]
    monkeypatch.setattr(lab, "CHECKOUT", Path("/elsewhere"))
    assert len({*here, lab.Lab("one").id, lab.Lab("two").id}) == 4


@pytest.mark.parametrize("name", ["", "-a", "a/b", "A", "a b", "x" * 21, "../a"])
def test_a_name_that_docker_or_a_path_could_misread_is_refused(name: str) -> None:
    with pytest.raises(Refusal):
        lab.Lab(name)


@pytest.mark.parametrize("count", [0, -1, 201])
def test_the_number_of_nodes_is_bounded(count: int) -> None:
    with pytest.raises(Refusal):
        lab.Lab("any").up(count)


def _tools(folder: Path, **scripts: str) -> None:
    for name, script in scripts.items():
        file = folder / name
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)


def test_without_root_what_is_missing_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _tools(tmp_path, docker="exit 0", ip="exit 0")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Refusal) as refused:
        machine.prepare(lab.quiet)
    assert "apt-get install mmdebstrap openssh-client" in refused.value.problems[0]["remedy"]


def test_a_docker_that_does_not_answer_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _tools(
        tmp_path,
        docker="echo 'permission denied on the socket' >&2; exit 1",
        ip="exit 0",
        ssh="exit 0",
        mmdebstrap="exit 0",
        dockerd="exit 0",
    )
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Refusal) as refused:
        machine.prepare(lab.quiet)
    assert "permission denied on the socket" in refused.value.problems[0]["message"]


@pytest.mark.parametrize(("elsewhere", "remedy"), [(None, "apt-get install docker.io"), ("tcp://192.0.2.1:2376", "DOCKER_HOST")])
def test_a_docker_client_alone_is_no_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, elsewhere: str | None, remedy: str) -> None:
    _tools(tmp_path, docker="echo 'Cannot connect' >&2; exit 1", ip="exit 0", ssh="exit 0", mmdebstrap="exit 0")
    monkeypatch.setattr(machine, "SBIN", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    if elsewhere:
        monkeypatch.setenv("DOCKER_HOST", elsewhere)
    with pytest.raises(Refusal) as refused:
        machine.prepare(lab.quiet)
    assert remedy in refused.value.problems[0]["remedy"]


def test_a_failing_apt_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _tools(tmp_path, **{"apt-get": "echo 'E: no network' >&2; exit 100"})
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    said: list[str] = []
    with pytest.raises(Refusal) as refused:
        machine._install(["mmdebstrap"], said.append)
    assert said == ["installing mmdebstrap (apt)…"]
    assert "E: no network" in refused.value.problems[0]["message"]


def test_the_process_id_that_a_killed_daemon_left_is_no_daemon(tmp_path: Path) -> None:
    pid_file = tmp_path / "docker.pid"
    pid_file.write_text(str(os.getpid()))
    assert machine._program_of(pid_file) not in (None, "dockerd")
    ended = subprocess.Popen(["true"])
    ended.wait()
    pid_file.write_text(str(ended.pid))
    assert machine._program_of(pid_file) is None


@pytest.mark.parametrize(
    ("resolv", "expected"),
    [
        ("nameserver 192.0.2.53\nnameserver 2001:db8::1\noptions edns0\n", ["192.0.2.53"]),
        ("nameserver 127.0.0.53\nnameserver 127.0.0.1\n", []),
        ("# nameserver 192.0.2.1\n", []),
    ],
)
def test_only_name_servers_that_a_node_can_reach_are_given_to_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, resolv: str, expected: list[str]
) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text(resolv)
    monkeypatch.setattr(lab, "RESOLVERS", (file, tmp_path / "missing"))
    assert lab.name_servers() == expected


def test_programs_of_a_package_are_had_without_installing_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tools, folder = tmp_path / "bin", tmp_path / "unpacked"
    tools.mkdir()
    log = tmp_path / "log"
    _tools(tools, **{"apt-get": f'echo "$*" >> {log}; case "$*" in *download*) touch any_1.deb ;; esac'})
    _tools(tools, **{"dpkg-deb": 'mkdir -p "$3/usr/bin"; printf x > "$3/usr/bin/no-such-tool"; chmod +x "$3/usr/bin/no-such-tool"'})
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    for _ in range(2):
        machine.unpacked({"no-such-tool": "any", "sh": "dash"}, folder, lab.quiet)
        assert any((place / "no-such-tool").exists() for place in machine.places(folder))
    assert [line.split()[-1] for line in log.read_text().splitlines() if "download" in line] == ["any"]
    assert "install" not in log.read_text()


@pytest.mark.requirement("F1", part="this machine, where no lab can be had")
def test_where_no_lab_can_be_had_the_demo_looks_at_this_machine(tmp_path: Path) -> None:
    environment = {**os.environ, "DOCKER_HOST": "tcp://127.0.0.1:1", "HOME": str(tmp_path), "COLUMNS": "200"}
    command = [Path(sys.executable).with_name("bzzz-setup"), "demo"]
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 3 and "Docker does not answer" in done.stderr and "DOCKER_HOST names" in done.stderr
    assert "nothing is changed on it" in done.stdout and f"{os.cpu_count()} x " in done.stdout
    assert "detect of cluster single" in done.stdout and "plan of cluster single" in done.stdout and "Traceback" not in done.stdout
    assert done.stdout.rstrip().endswith("apply -i inventories/single")
