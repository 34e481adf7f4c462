# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Look whether things on this node are as they should be; nothing is changed.

A kind of probe is a function: its keyword-only parameters are what an entry may say (the controller refuses anything
else by them), its return value an outcome ``{status: pass|fail|warn|skip, seen, expected[, data, about]}``. ``about`` lists
what a remedy's ``<placeholders>`` stand for. Kinds that need more than this file are in siblings (``KINDS`` there);
the controller sends those only when an entry needs them.
"""

from __future__ import annotations

import functools
import grp
import hashlib
import importlib
import os
import pwd
import re
import signal
import stat
import subprocess
import threading
import time
from typing import Any, Callable

AT_ONCE = 64
LONGEST_SECONDS = 300.0
CGROUPS = "/sys/fs/cgroup"
UNIT_PROPERTIES = ("LoadState", "ActiveState", "SubState", "UnitFileState", "Result", "ControlGroup")
Outcome = dict[str, Any]


def outcome(held: bool | str, seen: str, expected: str = "", **more: Any) -> Outcome:
    """`held`: whether it is as expected, or a status by name."""
    return {"status": held if isinstance(held, str) else "pass" if held else "fail", "seen": seen, "expected": expected, **more}


def compare(expected: dict[str, Any], seen: dict[str, Any], note: str = "") -> Outcome:
    """Hold what was seen against what is expected, name by name; a failure tells only what differs."""
    off = [name for name in expected if expected[name] != seen.get(name)]
    shown = off or list(expected)
    return outcome(not off, _words(seen, shown) + (note if off else ""), _words(expected, shown))


def _words(values: dict[str, Any], names: list[str]) -> str:
    return ", ".join(f"{name} {_text(values.get(name))}" for name in names)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return {None: "unknown", True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, (bool, type(None))) else str(value)


def run(argv: list[str], timeout: float = 10, user: str | None = None) -> tuple[int, str, str]:
    """Exit code, stdout, stderr; 127 where the program can't be started, 124 where it took too long (its process group is killed)."""
    options: dict[str, Any] = {}
    if user is not None:
        account = pwd.getpwnam(user)
        groups = os.getgrouplist(user, account.pw_gid)
        options = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": groups, "cwd": "/"}
    try:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            **options,
        )
    except OSError as error:
        return 127, "", str(error)
    try:
        out, err = child.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait(timeout=5)
        return 124, "", f"no answer within {timeout:g} s"
    return child.returncode, out, err


class Node:
    """What several probes read, read once: systemd's units, dpkg's packages, and what siblings keep by `once`."""

    def __init__(self, name: str, entries: list[Any]) -> None:
        self.name = name
        self._read: dict[str, Any] = {}
        self._reading = threading.Lock()
        asked = [(entry.get("kind"), entry.get("args")) for entry in entries if isinstance(entry, dict)]
        args = [(kind, found) for kind, found in asked if isinstance(found, dict)]
        about_units = [found for kind, found in args if kind in ("unit", "unit_property", "cgroup")]
        properties = [key for kind, found in args if kind == "unit_property" for key in found]
        packages = [name for kind, found in args if kind == "packages" and isinstance(found.get("names"), list) for name in found["names"]]
        names = _like(r"[\w@:.\\-]+", [found.get("name") for found in about_units])
        self.units = _units(names, _like(r"[A-Z]\w+", [*UNIT_PROPERTIES, *properties]))
        self.installed = _installed(_like(r"[a-z0-9][a-z0-9+.:-]*", packages))

    def once(self, what: str, read: Callable[[], Any]) -> Any:
        with self._reading:
            if what not in self._read:
                self._read[what] = read()
            return self._read[what]


def _like(pattern: str, names: list[Any]) -> list[str]:
    """Those names that may go on a command line: neither an option nor a wildcard."""
    return sorted({name for name in names if isinstance(name, str) and re.fullmatch(pattern, name)})


def _units(names: list[str], properties: list[str]) -> dict[str, dict[str, str]]:
    """systemd's properties of each unit, in one call; nothing about a unit that systemd refuses to talk about."""
    if not names:
        return {}
    code, out, _err = run(["systemctl", "show", "--property=" + ",".join(properties), "--", *names])
    blocks = [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in out.split("\n\n")]
    if len(blocks) == len(names) and all(blocks):
        return dict(zip(names, blocks))
    return {} if len(names) == 1 or code == 124 else {name: found for one in names for name, found in _units([one], properties).items()}


def _installed(names: list[str]) -> set[str] | None:
    """Those of the packages that are installed; None where dpkg gives no answer."""
    if not names:
        return set()
    code, out, _err = run(["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n", *names])
    return {line.split()[0] for line in out.splitlines() if line.endswith(" installed")} if code in (0, 1) else None


def file(
    _node: Node,
    *,
    path: str,
    state: str = "file",
    mode: str | None = None,
    owner: str | None = None,
    group: str | None = None,
    sha256: str | None = None,
    content: str | None = None,
    target: str | None = None,
) -> Outcome:
    expected: dict[str, Any] = {"state": state, "owner": owner, "group": group, "sha256": sha256, "target": target}
    expected = {name: value for name, value in expected.items() if value is not None}
    if mode is not None:
        expected["mode"] = f"{int(mode, 8):04o}"
    if content is not None:
        expected["content"] = "as declared"  # neither the content nor its hash: it may hold a secret
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return compare({"state": state}, {"state": "absent"})
    kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}
    seen: dict[str, Any] = {"state": kinds.get(stat.S_IFMT(found.st_mode), "special file"), "mode": f"{stat.S_IMODE(found.st_mode):04o}"}
    seen["owner"] = _account_name(pwd.getpwuid, found.st_uid)
    seen["group"] = _account_name(grp.getgrgid, found.st_gid)
    if seen["state"] == "link":
        seen["target"] = os.readlink(path)
    if seen["state"] == "file" and (sha256 is not None or content is not None):
        seen["sha256"] = _sha256(path)
        declared = hashlib.sha256((content or "").encode()).hexdigest()
        seen["content"] = "as declared" if seen["sha256"] == declared else "other"
    return compare(expected, seen)


def _account_name(by_id: Callable[[int], Any], number: int) -> str:
    try:
        return str(by_id(number)[0])
    except KeyError:
        return str(number)


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as source:
        while block := source.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def unit(node: Node, *, name: str, active: bool = True, enabled: bool | None = None) -> Outcome:
    found = node.units.get(name)
    expected = ("active" if active else "inactive") + ("" if enabled is None else ", enabled" if enabled else ", not enabled")
    if found is None:
        return outcome(False, "systemd gave no answer about it", expected)
    if found.get("LoadState") == "not-found":
        return outcome(not active and not enabled, "no such unit", expected)
    is_active = found.get("ActiveState") in ("active", "reloading")
    is_enabled = found.get("UnitFileState") in ("enabled", "enabled-runtime", "static", "alias", "indirect", "generated")
    seen = f"{found.get('ActiveState')} ({found.get('SubState')}), {found.get('UnitFileState') or 'not installed'}"
    if active and not is_active:
        _code, lines, _err = run(["journalctl", "--unit", name, "--lines=5", "--no-pager", "--quiet", "--output=cat"])
        seen += f", result {found.get('Result')}; journal: " + (" | ".join(lines.split("\n")).strip(" |") or "empty")
    return outcome(is_active == active and enabled in (None, is_enabled), seen, expected)


def unit_property(node: Node, *, name: str, **properties: Any) -> Outcome:
    expected = {key: _text(value) for key, value in properties.items()}
    return compare(expected, dict(node.units.get(name, {})))


def cgroup(
    node: Node,
    *,
    name: str,
    memory_max_mib: float | None = None,
    cpu_quota_percent: float | None = None,
    cpu_weight: float | None = None,
) -> Outcome:
    """What the kernel really enforces on a unit: read from its control group, version 1 or 2. 0 means no limit."""
    group = node.units.get(name, {}).get("ControlGroup")
    expected = {"memory MiB": memory_max_mib, "CPU per cent": cpu_quota_percent, "CPU weight": cpu_weight}
    wanted = {key: round(float(value), 1) for key, value in expected.items() if value is not None}
    if not group:
        return outcome(False, "no control group: the unit isn't running", _words(wanted, [*wanted]))
    seen = cgroup_limits(CGROUPS, group)
    return compare(wanted, {"memory MiB": seen[0], "CPU per cent": seen[1], "CPU weight": cgroup_weight(CGROUPS, group)})


def cgroup_limits(base: str, group: str) -> tuple[float | None, float | None]:
    """Memory in MiB and CPU in per cent of one thread; 0 where unlimited, None where the kernel has no such controller."""

    def there(controller: str) -> float | None:
        """A controller that systemd didn't need for this group has no file for it, and so no limit."""
        return 0.0 if os.path.isdir(f"{base}/{controller}") or os.path.isdir(base + group) else None

    memory = _first_line(f"{base}{group}/memory.max") or _first_line(f"{base}/memory{group}/memory.limit_in_bytes")
    cpu = _first_line(f"{base}{group}/cpu.max")
    if cpu is None:
        cpu = " ".join(_first_line(f"{base}/cpu{group}/cpu.cfs_{name}_us") or "" for name in ("quota", "period")).strip()
    memory_limit = (
        there("memory") if memory is None else 0.0 if memory == "max" or int(memory) >= 1 << 60 else round(int(memory) / (1 << 20), 1)
    )
    if not cpu:
        return memory_limit, there("cpu")
    quota, period = cpu.split()
    return memory_limit, 0.0 if quota in ("max", "-1") else round(int(quota) / int(period) * 100, 1)


def cgroup_weight(base: str, group: str) -> float | None:
    """1 to 10000, 100 by default; None where the kernel has no such controller. Version 1 counts in shares, 1024 by default."""
    weight, shares = _first_line(f"{base}{group}/cpu.weight"), _first_line(f"{base}/cpu{group}/cpu.shares")
    return float(weight) if weight else round(int(shares) / 10.24, 0) if shares else None


def _first_line(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as source:
            return source.readline().strip()
    except OSError:
        return None


def sysctl(_node: Node, **values: Any) -> Outcome:
    seen = {name: _first_line("/proc/sys/" + name.replace(".", "/")) for name in values}
    squeezed = {name: " ".join(value.split()) if value is not None else "not there" for name, value in seen.items()}
    return compare({name: " ".join(str(value).split()) for name, value in values.items()}, squeezed)


def mount(_node: Node, *, path: str, fstype: str | None = None) -> Outcome:
    with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as source:
        rows = [line.split() for line in source]
    found = [row for row in rows if re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), row[1]) == path.rstrip("/")]
    expected = f"{fstype or 'a file system'} mounted at {path}"
    if not found:
        return outcome(False, "nothing is mounted there", expected)
    return outcome(fstype in (None, found[-1][2]), f"{found[-1][2]} from {found[-1][0]}", expected)


def disk_free(_node: Node, *, path: str, min_mib: float) -> Outcome:
    """Of the file system that `path` is on, or will be on once it is made."""
    there = os.path.abspath(path)
    while not os.path.exists(there):
        there = os.path.dirname(there)
    figures = os.statvfs(there)
    free = figures.f_bavail * figures.f_frsize // (1 << 20)
    return outcome(free >= min_mib, f"{free} MiB free", f"at least {min_mib:g} MiB")


def packages(node: Node, *, names: list[str]) -> Outcome:
    if node.installed is None:
        return outcome(False, "dpkg gave no answer", "installed: " + ", ".join(names))
    missing = [name for name in names if name.split(":")[0] not in node.installed]
    return outcome(not missing, "missing: " + ", ".join(missing) if missing else "installed", "installed: " + ", ".join(names))


def user(_node: Node, *, name: str, groups: list[str] | None = None, shell: str | None = None, sudo: str | None = None) -> Outcome:
    """`sudo`: none, password, commands or passwordless."""
    try:
        account = pwd.getpwnam(name)
    except KeyError:
        return outcome(sudo == "none" and not groups and not shell, "no such user", f"user {name}")
    member = {_account_name(grp.getgrgid, number) for number in os.getgrouplist(name, account.pw_gid)}
    expected: dict[str, Any] = {"user": name}
    seen: dict[str, Any] = {"user": name, "shell": account.pw_shell}
    if groups is not None:
        expected["groups"], seen["groups"] = sorted(groups), sorted(member & set(groups))
    if shell is not None:
        expected["shell"] = shell
    if sudo is not None:
        code, out, err = run(["sudo", "-n", "-l", "-U", name])
        expected["sudo"] = sudo
        seen["sudo"] = "none" if code == 127 else sudo_rights(out + err) if code in (0, 1) else f"unknown: {err.strip()}"
    return compare(expected, seen)


def sudo_rights(listing: str) -> str:
    """The widest right in the answer of ``sudo -l -U name``: passwordless, password, commands or none."""
    found = set()
    for line in listing.splitlines():
        if match := re.match(r"\s+\(.*?\)\s+(.*)", line):
            free = "NOPASSWD:" in match[1]
            everything = re.search(r"(^|[\s,])ALL\s*($|,)", match[1])
            found.add("passwordless" if free and everything else "commands" if free else "password")
    return next((right for right in ("passwordless", "password", "commands") if right in found), "none")


def command(
    _node: Node, *, argv: list[str], rc: int = 0, stdout: str | None = None, timeout: float = 10, user: str | None = None
) -> Outcome:
    """`stdout` is a regular expression that must be found in it."""
    code, out, err = run([str(word) for word in argv], min(timeout, LONGEST_SECONDS), user)
    said = " | ".join((out.strip() + "\n" + err.strip()).strip().splitlines()[-5:])
    matches = stdout is None or re.search(stdout, out, re.MULTILINE) is not None
    expected = f"exit code {rc}" + ("" if stdout is None else f", output like {stdout}")
    return outcome(code == rc and matches, f"exit code {code}" + (f": {said}" if said else ""), expected)


def value(
    _node: Node, *, seen: object, expected: object = None, min: float | None = None, max: float | None = None, unit: str = ""
) -> Outcome:
    """For what the controller already knows, such as a fact."""
    wanted = [f"at least {min:g}"] if min is not None else []
    wanted += [f"at most {max:g}"] if max is not None else []
    wanted += [_text(expected)] if expected is not None else []
    held = seen is not None and expected in (None, seen)
    if held and (min is not None or max is not None):
        number = float(str(seen))
        held = (min is None or number >= min) and (max is None or number <= max)
    return outcome(held, f"{_text(seen)} {unit}".strip(), f"{', '.join(wanted)} {unit}".strip())


KINDS: dict[str, Callable[..., Outcome]] = {
    kind.__name__: kind for kind in (file, unit, unit_property, cgroup, sysctl, mount, disk_free, packages, user, command, value)
}


def attempt(entry: dict[str, Any], node: Node) -> Outcome:
    """One look. Whatever goes wrong is what was seen."""
    try:
        module = entry["module"]
        kinds = KINDS if module == "probes" else importlib.import_module("." + module, __package__).KINDS
        result: Outcome = kinds[entry["kind"]](node, **entry["args"])
    except Exception as error:
        return outcome(False, f"{type(error).__name__}: {error}")
    return result


def judge(entry: dict[str, Any], node: Node) -> Outcome:
    """Look until it holds, for `within` seconds at most."""
    until = time.monotonic() + _seconds(entry, "within")
    result = attempt(entry, node)
    while result["status"] == "fail" and time.monotonic() < until:
        time.sleep(0.3)
        result = attempt(entry, Node(node.name, [entry]))
    return result


def _seconds(source: Any, name: str, otherwise: float = 0) -> float:
    found = source.get(name, otherwise) if isinstance(source, dict) else otherwise
    return min(float(found), LONGEST_SECONDS) if isinstance(found, (int, float)) and found > 0 else otherwise


def main(payload: dict[str, Any]) -> dict[str, Any]:
    """``{node, probes: [{kind, module, args, within}]}`` -> ``{outcomes, received, sent}``; the last two by this node's clock."""
    received = time.time()
    entries = payload["probes"]
    node = Node(payload.get("node", ""), entries)
    outcomes: list[Outcome | None] = [None] * len(entries)
    slots = threading.Semaphore(AT_ONCE)

    def work(at: int, entry: Any) -> None:
        with slots:
            outcomes[at] = judge(entry, node) if isinstance(entry, dict) else outcome(False, f"not a probe: {entry!r}")

    workers = [threading.Thread(target=work, args=pair, daemon=True) for pair in enumerate(entries)]
    for worker in workers:
        worker.start()
    started = time.monotonic()
    for worker, entry in zip(workers, entries):
        args = entry.get("args") if isinstance(entry, dict) else None
        limit = 10 + _seconds(entry, "within") + 4 * _seconds(args, "timeout", 10)
        worker.join(max(0.0, started + limit - time.monotonic()))
    late = functools.partial(outcome, False, "it gave no answer in time")
    return {"outcomes": [found or late() for found in outcomes], "received": received, "sent": time.time()}
