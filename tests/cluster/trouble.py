# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs that are killed, and nodes that are stopped at a chosen moment."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self, TypeVar

import psutil
from conftest import Tools

from bzzz_setup.lab import USER, Lab

Found = TypeVar("Found")

# Stands in for a program, or runs as a hook: says who it is, and goes on when the hold is released.
_HOLD = """\
#!/bin/sh
if [ -e /run/bzzz-hold ] && {condition}; then
  echo $$ >/run/bzzz-held
  while [ -e /run/bzzz-hold ]; do sleep 0.1; done
fi
{proceed}
"""
# The held process and those above it, up to the module's Python.
_KILL_HELD = """
import os, signal
pid, line, name = int(open("/run/bzzz-held").read()), [], ""
while not name.startswith("python3"):
    assert pid > 1, "no module above the held process"
    line.append(pid)
    head, _, tail = open(f"/proc/{pid}/stat").read().rpartition(")")
    name, pid = head.partition("(")[2], int(tail.split()[1])
for pid in reversed(line):
    os.kill(pid, signal.SIGKILL)
print(len(line))
"""
# Everything of sshd's but its listener.
_KILL_SESSIONS = """
import os, signal, subprocess
listener = subprocess.run(["systemctl", "show", "-P", "MainPID", "ssh.service"], capture_output=True, text=True, check=True).stdout.strip()
killed = 0
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        name = open(f"/proc/{pid}/comm").read().strip()
    except OSError:
        continue
    if name.startswith("sshd") and pid != listener:
        os.kill(int(pid), signal.SIGKILL)
        killed += 1
print(killed)
"""


def eventually(what: str, look: Callable[[], Found], seconds: float = 120) -> Found:
    """What `look` returns, once it is true."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.1)
    return found


def state(lab: Lab, node: str, name: str) -> dict[str, Any]:
    """A configuration set's state on a node."""
    found: dict[str, Any] = json.loads(lab.exec(node, ["cat", f"/var/lib/bzzz/sets/{name}/state.json"]).stdout)
    return found


def callers(lab: Lab, node: str, name: str) -> int:
    """How many processes on a node are at work on a configuration set, or wait for their turn."""
    listed = lab.exec(node, ["sh", "-c", "ls -l /proc/[0-9]*/fd 2>/dev/null"], check=False).stdout
    return listed.count(f"-> /var/lib/bzzz/sets/{name}/lock\n")


def unfinished(lab: Lab, node: str) -> list[str]:
    """What sets on a node still have to do, and what else a run may leave: timers, half-installed packages."""
    states = lab.exec(node, ["sh", "-c", "cat /var/lib/bzzz/sets/*/state.json | sed 's/}{/}\\n{/g'"]).stdout
    left = [text for text in states.splitlines() if any(json.loads(text)[key] for key in ("committing", "pending", "armed"))]
    left += lab.exec(
        node, ["sh", "-c", "ls /etc/systemd/system | grep bzzz-revert; ls -d /var/lib/bzzz/sets/*/reverted"], check=False
    ).stdout.split()
    return left + lab.exec(node, ["dpkg", "--audit"]).stdout.splitlines()


class Run:
    """A `bzzz-setup` going on in the background; its journal tells how far it is."""

    def __init__(self, tools: Tools, *arguments: str, folder: Path | None = None) -> None:
        self._runs = tools.home / ".local/state/bzzz" / tools.lab.id / "runs"
        self._before = set(self._runs.glob("*"))
        argv = ["bzzz-setup", "-i", str(folder or tools.folder), "--json", *arguments]
        environment = tools.environment(XDG_STATE_HOME="")
        self.process = psutil.Popen(
            argv,
            env=environment,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def events(self) -> list[dict[str, Any]]:
        found = []
        for file in (folder / "events.jsonl" for folder in set(self._runs.glob("*")) - self._before):
            for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
                with contextlib.suppress(ValueError):  # its last line is being written
                    found.append(json.loads(line))
        return found

    def until(self, kind: str, **wanted: Any) -> None:
        """Wait for an event such as TaskStarted, step=3, role="tls"."""

        def there() -> bool:
            if any(event["event"] == kind and wanted.items() <= event.items() for event in self.events()):
                return True
            self.alive(f"{kind} {wanted}")
            return False

        eventually(f"{kind} {wanted}", there)

    def alive(self, before: str) -> None:
        assert self.process.poll() is None, f"the run ended before {before}: {self.process.stdout.read()}"

    def kill(self, *, alone: bool = False) -> None:
        """kill -9 of the front alone, or of everything that it started as well; returns when all of it is gone."""
        family = [self.process, *(self.process.children(recursive=True) if self.process.poll() is None else [])]
        for process in family[:1] if alone else family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        _gone, alive = psutil.wait_procs(family, timeout=60)
        assert not alive, f"still there: {[process.cmdline() for process in alive]}"

    def ended(self) -> int:
        """Its exit code."""
        self.process.communicate(timeout=180)
        return int(self.process.returncode)


class Hold:
    """A process on a node that stands still."""

    def __init__(self, lab: Lab, node: str) -> None:
        self._lab, self._node = lab, node

    def reached(self, run: Run) -> None:
        """Wait until the run has come here."""

        def here() -> bool:
            run.alive(f"it was held on {self._node}")
            return self._lab.exec(self._node, ["test", "-s", "/run/bzzz-held"], check=False).returncode == 0

        eventually(f"held on {self._node}", here)

    def kill(self) -> int:
        """kill -9 of the module that is held, of what it waits for and of all in between; returns how many these were."""
        return int(self._lab.exec(self._node, ["python3", "-"], stdin=_KILL_HELD).stdout)

    def release(self) -> None:
        self._lab.exec(self._node, ["rm", "-f", "/run/bzzz-hold"])


@contextlib.contextmanager
def _hold(lab: Lab, node: str, path: str, text: str) -> Iterator[Hold]:
    put = f"rm -f /run/bzzz-held; touch /run/bzzz-hold; cat >{path}.new && chmod 755 {path}.new && mv {path}.new {path}"
    lab.exec(node, ["sh", "-c", put], stdin=text)
    try:
        yield Hold(lab, node)
    finally:
        lab.exec(node, ["rm", "-f", "/run/bzzz-hold", "/run/bzzz-held", path])


def hold_before(lab: Lab, node: str, program: str, first: str) -> contextlib.AbstractContextManager[Hold]:
    """While entered, ``program first …`` stops on this node before it has done anything."""
    real = lab.exec(node, ["sh", "-c", f"PATH=/usr/sbin:/usr/bin; command -v {program}"]).stdout.strip()
    return _hold(lab, node, f"/usr/local/sbin/{program}", _HOLD.format(condition=f'[ "$1" = "{first}" ]', proceed=f'exec {real} "$@"'))


@contextlib.contextmanager
def hold_unpacked(lab: Lab, node: str, package: str) -> Iterator[Hold]:
    """While entered, dpkg stops on this node when it has unpacked the package and not yet configured it."""
    hook, configuration = "/usr/local/sbin/bzzz-hold", "/etc/dpkg/dpkg.cfg.d/bzzz-hold"
    condition = f"dpkg-query -W -f '${{db:Status-Status}}' {package} | grep -qx unpacked"
    with _hold(lab, node, hook, _HOLD.format(condition=condition, proceed="")) as held:
        lab.exec(node, ["sh", "-c", f"echo post-invoke={hook} >{configuration}"])
        try:
            yield held
        finally:
            lab.exec(node, ["rm", "-f", configuration])


def kill_sessions(lab: Lab, node: str) -> int:
    """kill -9 of sshd's processes on a node, but for the one that listens; returns how many these were."""
    return int(lab.exec(node, ["python3", "-"], stdin=_KILL_SESSIONS).stdout)


def in_force(lab: Lab, node: str) -> dict[str, str]:
    """What decides who gets in and what they may do, as the kernel, sshd and sudo see it."""
    looks = {
        "firewall": ["nft", "-n", "list", "table", "inet", "bzzz"],
        "firewall at boot": ["sh", "-c", "cat /etc/bzzz/firewall.nft; systemctl is-enabled bzzz-firewall.service"],
        "sshd": ["/usr/sbin/sshd", "-T"],
        "sudo": ["sudo", "-l", "-U", USER],
        "keys": ["sh", "-c", "cat /etc/ssh/authorized_keys.d/* /etc/ssh/sshd_config.d/* /etc/sudoers.d/*"],
    }
    return {name: lab.exec(node, argv).stdout for name, argv in looks.items()}


def gets_in(lab: Lab, node: str) -> bool:
    """Whether the operator becomes root on a new connection."""
    return lab.ssh(node, "sudo -n id -u", check=False).stdout.strip() == "0"
