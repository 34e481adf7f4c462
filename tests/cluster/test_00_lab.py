# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The lab's nodes are machines of their own, as far as anything that runs on them can tell."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bzzz_setup.lab import CHECKOUT, Lab, tool


def test_nodes_are_reached_by_ssh_with_pinned_host_keys(lab: Lab) -> None:
    for node in lab.nodes:
        assert lab.ssh(node.name, "hostname; sudo -n id -u").stdout.split() == [node.name, "0"]
    pinned = (lab.inventory / "known_hosts.txt").read_text().splitlines()
    ed25519 = [line.split()[2] for line in pinned if " ssh-ed25519 " in line]
    assert len(set(ed25519)) == len(lab.nodes) == 3
    assert Path(lab.key).stat().st_mode & 0o077 == 0


def test_nodes_differ_in_identity(lab: Lab) -> None:
    identities = [lab.exec(node.name, ["cat", "/etc/machine-id"]).stdout.strip() for node in lab.nodes]
    assert len(set(identities)) == 3 and all(len(identity) == 32 for identity in identities)


def test_files_and_name_resolution_are_the_nodes_own(lab: Lab) -> None:
    node = lab.nodes[0].name
    mounts = lab.exec(node, ["cat", "/proc/self/mountinfo"]).stdout
    assert not [line for line in mounts.splitlines() if line.split()[4] in ("/etc/hosts", "/etc/resolv.conf", "/etc/hostname", "/proc/sys")]
    assert "127.0.0.11" not in lab.exec(node, ["cat", "/etc/resolv.conf"]).stdout
    assert lab.exec(node, ["getent", "hosts", lab.nodes[2].name]).stdout.split()[0] == lab.nodes[2].address


def test_limits_reach_the_kernel(lab: Lab) -> None:
    """Of either version of control groups: the files' names differ."""
    node = lab.nodes[0].name
    unit = ["systemd-run", "--quiet", "--unit=limited", "-p", "MemoryMax=64M", "-p", "CPUQuota=25%", "-p", "Type=exec", "sleep", "infinity"]
    lab.exec(node, unit)
    try:
        find = "find /sys/fs/cgroup -path '*/limited.service/*' \\( {} \\) -exec cat {{}} +"
        memory = lab.exec(node, ["sh", "-c", find.format("-name memory.limit_in_bytes -o -name memory.max")]).stdout.split()
        cpu = lab.exec(node, ["sh", "-c", find.format("-name cpu.cfs_quota_us -o -name cpu.max")]).stdout.split()
    finally:
        lab.exec(node, ["systemctl", "stop", "limited"])
    assert memory == [str(64 << 20)]
    assert cpu in (["25000"], ["25000", "100000"])


def test_a_killed_node_comes_back_as_it_was(lab: Lab) -> None:
    node = lab.nodes[2].name
    read = ["sh", "-c", "cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub /root/mark"]
    lab.exec(node, ["sh", "-c", "echo here > /root/mark; sync"])
    before = lab.exec(node, read).stdout
    lab.kill(node)
    assert lab.exec(node, ["true"], check=False).returncode != 0
    lab.start(node)
    assert lab.exec(node, read).stdout == before
    assert lab.ssh(node, "systemctl is-system-running").stdout.strip() == "running"


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("moment", ["make the network", "start nodes", "waiting for systemd"])
def test_what_a_killed_lab_up_left_does_not_stop_the_next(moment: str) -> None:
    other = Lab("killed")
    command = [tool("bzzz-setup"), "lab", "up", "--nodes", "1", "--name", other.name]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    try:
        with subprocess.Popen(command, cwd=CHECKOUT, env=environment, stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout or ():
                if line.startswith(moment):
                    process.send_signal(signal.SIGKILL)
                    break
        assert process.returncode == -signal.SIGKILL
        subprocess.run(command, check=True, stdout=sys.stderr)
        assert other.ssh(other.nodes[0].name, "hostname").stdout == "bzzz-node1\n"
    finally:
        other.down()
    assert other.nodes == [] and not other.directory.exists()
