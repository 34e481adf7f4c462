# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What differs between a configuration set and the node: the question behind ``config_set``.

The module decides by the same function, so whatever it would correct, the question sees.
A set is described in ``plugins/modules/config_set.py``; here a file carries ``sha256`` of its final content.
"""

from __future__ import annotations

import contextlib
import fcntl
import grp
import hashlib
import json
import os
import pwd
import signal
import stat
import struct
import subprocess
from typing import Any

STATE_ROOT = "/var/lib/bzzz/sets"
DPKG = "/var/lib/dpkg"
ARCHIVE_MARK = ".bzzz-sha256"
PARTIAL = ".partial"  # ends the name of an archive that is being unpacked or removed
EMPTY_STATE: dict[str, Any] = {
    "generation": 0,  # the last one landed
    "committing": None,  # operations of a generation that is being landed: {"generation", "operations"}
    "pending": [],  # actions that a landed change still needs
    "directories": [],  # that this set made, on the way to a file, too
    "landed": {},  # path -> {"original": name of the saved foreign file or None, "secret": holds some, "notify": actions}
    "units": [],  # units that this set started or enabled
    "applied": {},  # name -> what was loaded: {"answer" of the query after the last apply, "query", "apply", "undo"}
    "armed": None,  # the change is not confirmed: the state without it, under the keys UNDONE and "undone"
    "undone": None,  # the unconfirmed change that was put back last, by its mark
}
REVERTED = "reverted"  # mark in the set's directory: the revert timer has put back what was there before the unconfirmed change
UNDONE = ("generation", "pending", "landed", "units", "applied")
Change = dict[str, str]


def run(argv: list[str], timeout: float = 60, env: dict[str, str] | None = None, stdin: str | None = None) -> tuple[int, str, str]:
    """Exit code, stdout, stderr, in English unless `env` says otherwise; 127 where the program is missing, 124 where it took too long.

    One that took too long is ended with all that it has started: apt's dpkg would go on, and hold its lock.
    """
    env = env or {**os.environ, "LC_ALL": "C.UTF-8"}  # the operator's language comes in by SSH
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(
            argv,
            stdin=None if stdin is None else pipe,
            stdout=pipe,
            stderr=pipe,
            text=True,
            errors="replace",
            env=env,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        return 127, "", str(error)
    with process:
        try:
            out, error_text = process.communicate(stdin, timeout)
        except subprocess.TimeoutExpired:
            _end(process)
            return 124, "", f"no answer within {timeout:g} s"
    return process.returncode, out, error_text


def _end(process: subprocess.Popen[str], grace: float = 10) -> None:
    """End a process and its children, gently first: dpkg then notes what it has done."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=grace)  # until the last of them has let go of its output
            return


def state_directory(name: str, root: str = "") -> str:
    return f"{root}{STATE_ROOT}/{name}"


def read_state(name: str, root: str = "") -> dict[str, Any]:
    """The set's state on this node; an empty one where there is none."""
    state: dict[str, Any] = json.loads(json.dumps(EMPTY_STATE))
    directory = state_directory(name, root)
    try:
        with open(f"{directory}/state.json", encoding="utf-8") as file:
            state.update(json.load(file))
    except FileNotFoundError:
        return state
    if state["armed"] and os.path.exists(f"{directory}/{REVERTED}"):  # by the timer, whose script cannot write this file
        state.update(state["armed"], committing=None)
    return state


def file_sha256(path: str) -> str | None:
    """Hash of a regular file's content; None for anything else."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    with os.fdopen(descriptor, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def user_id(name: str) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def group_id(name: str) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def attributes(path: str, item: dict[str, Any]) -> list[str]:
    """How owner, group and mode of an existing path differ, in words."""
    found = os.lstat(path)
    wrong = []
    if found.st_uid != user_id(item["owner"]):
        wrong.append(f"owner to {item['owner']}")
    if found.st_gid != group_id(item["group"]):
        wrong.append(f"group to {item['group']}")
    if stat.S_IMODE(found.st_mode) != int(item["mode"], 8):
        wrong.append(f"mode {stat.S_IMODE(found.st_mode):04o} to {item['mode']}")
    return wrong


def missing_packages(packages: list[str]) -> list[Change]:
    if not packages:
        return []
    _code, out, _error = run(["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\\n", *packages])
    installed = {line.split()[0] for line in out.splitlines() if line.endswith(" installed")}
    changes = [{"kind": "package", "name": name, "what": "install"} for name in packages if name not in installed]
    if changes or not interrupted():
        return changes
    return [{"kind": "package", "name": "dpkg", "what": "finish an interrupted installation"}]


def interrupted() -> bool:
    """Whether a dpkg was cut short. One that is still at work, for somebody else, looks the same but holds the lock."""
    # Looked at again after the lock: one that ended in between leaves nothing.
    return _unfinished() and not _locked(f"{DPKG}/lock") and _unfinished()


def _unfinished() -> bool:
    return os.path.isdir(f"{DPKG}/updates") and bool(os.listdir(f"{DPKG}/updates"))


def _locked(path: str) -> bool:
    """Whether another process holds a lock on the file; asked without taking it, which would make that process's next one fail."""
    layout = "hhqqi"  # struct flock: type, whence, start, length, pid
    try:
        with open(path, "rb") as file:
            found = fcntl.fcntl(file, fcntl.F_GETLK, struct.pack(layout, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except OSError:
        return False
    return bool(struct.unpack(layout, found)[0] != fcntl.F_UNLCK)


def missing_accounts(spec: dict[str, Any]) -> list[Change]:
    changes = [{"kind": "group", "name": name, "what": "create"} for name in spec["groups"] if group_id(name) is None]
    for user in spec["users"]:
        if user_id(user["name"]) is None:
            changes.append({"kind": "user", "name": user["name"], "what": "create"})
            continue
        member = {entry.gr_name for entry in grp.getgrall() if user["name"] in entry.gr_mem}
        member.add(_primary_group(user["name"]))
        changes += [
            {"kind": "user", "name": user["name"], "what": f"add to group {group}"} for group in user["groups"] if group not in member
        ]
    return changes


def _primary_group(user: str) -> str:
    try:
        return grp.getgrgid(pwd.getpwnam(user).pw_gid).gr_name
    except KeyError:
        return ""


def path_changes(spec: dict[str, Any], state: dict[str, Any], root: str = "") -> list[Change]:
    """Directories, files, links and archives that differ, and paths of this set that are wanted no more."""
    changes: list[Change] = []

    def note(kind: str, name: str, what: str) -> None:
        changes.append({"kind": kind, "name": name, "what": what})

    for item in spec["directories"]:
        path = root + item["path"]
        if not os.path.isdir(path) or os.path.islink(path):
            note("directory", item["path"], "create")
        elif wrong := attributes(path, item):
            note("directory", item["path"], ", ".join(wrong))
    for item in spec["archives"]:
        mark = f"{root}{item['path']}/{ARCHIVE_MARK}"
        try:
            with open(mark, encoding="ascii") as file:
                unpacked = file.read().strip()
        except OSError:
            unpacked = ""
        if unpacked != item["sha256"]:
            note("archive", item["path"], "unpack")
        for gone in surplus(spec, item, root):
            note("archive", gone, f"remove: the last {item['keep']} are kept")
    for item in spec["files"]:
        path = root + item["path"]
        if not os.path.lexists(path):
            note("file", item["path"], "create")
        elif file_sha256(path) != item["sha256"]:
            note("file", item["path"], "content")
        elif wrong := attributes(path, item):
            note("file", item["path"], ", ".join(wrong))
    for item in spec["links"]:
        path = root + item["path"]
        if not os.path.islink(path) or os.readlink(path) != item["target"]:
            note("link", item["path"], f"point to {item['target']}")
    for item in spec["absent"]:
        if os.path.lexists(root + item["path"]):
            note("path", item["path"], "remove")
    for gone in undeclared(spec, state):
        note(
            "path",
            gone,
            "no longer declared: put back what was there" if state["landed"][gone]["original"] else "no longer declared: remove",
        )
    return changes


def undeclared(spec: dict[str, Any], state: dict[str, Any]) -> list[str]:
    """Paths that the set has landed and says nothing about any more."""
    return sorted(set(state["landed"]) - {item["path"] for kind in ("files", "links", "absent") for item in spec[kind]})


def missing_directories(path: str, root: str = "") -> list[str]:
    """The directory and those above it, as far as they are not there."""
    missing = []
    while not os.path.isdir(root + path):
        missing.append(path)
        path = os.path.dirname(path)
    return missing


def surplus(spec: dict[str, Any], item: dict[str, Any], root: str = "") -> list[str]:
    """Archives unpacked beside this one that are kept no longer: all but the latest, and what a kill left of one."""
    parent = os.path.dirname(item["path"])
    if not item.get("keep") or not os.path.isdir(root + parent):
        return []
    wanted = {archive["path"] for archive in spec["archives"]}
    others, gone = [], []
    for path in (f"{parent}/{name}" for name in os.listdir(root + parent)):
        mark = f"{root}{path}/{ARCHIVE_MARK}"
        if path.endswith(PARTIAL):
            gone.append(path)
        elif path not in wanted and os.path.isfile(mark):
            others.append((os.stat(mark).st_mtime_ns, path))
    return gone + [path for _time, path in sorted(others, reverse=True)[item["keep"] - 1 :]]


def unit_states(names: list[str]) -> dict[str, dict[str, str]]:
    """systemd's view of units by name: LoadState, ActiveState, UnitFileState, NeedDaemonReload."""
    if not names:
        return {}
    fields = "--property=Id,LoadState,ActiveState,UnitFileState,NeedDaemonReload"
    _code, out, _error = run(["systemctl", "show", fields, "--", *names])
    blocks = [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in out.strip().split("\n\n")]
    return dict(zip(names, blocks)) if len(blocks) == len(names) else {}


def unit_changes(spec: dict[str, Any], state: dict[str, Any]) -> list[Change]:
    changes: list[Change] = []
    names = [unit["name"] for unit in spec["units"]]
    seen = unit_states(names)
    for unit in spec["units"]:
        found = seen.get(unit["name"], {})
        active = found.get("ActiveState") in ("active", "reloading")
        fixed = found.get("UnitFileState") in ("static", "alias", "indirect", "generated", "transient")
        enabled = found.get("UnitFileState") in ("enabled", "enabled-runtime")
        if unit.get("enabled") is not None and enabled != unit["enabled"] and not fixed:
            changes.append({"kind": "unit", "name": unit["name"], "what": "enable" if unit["enabled"] else "disable"})
        if unit.get("active") is not None and active != unit["active"]:
            changes.append({"kind": "unit", "name": unit["name"], "what": "start" if unit["active"] else "stop"})
        if found.get("NeedDaemonReload") == "yes":
            changes.append({"kind": "unit", "name": unit["name"], "what": "reload systemd's view of it"})
    for gone in sorted(set(state["units"]) - set(names)):
        changes.append({"kind": "unit", "name": gone, "what": "no longer declared: stop and disable"})
    return changes


def loaded_now(item: dict[str, Any]) -> dict[str, Any]:
    """What the kernel or a daemon has really loaded, by exit code and text of the query, and how to load and unload it."""
    code, out, _error = run(item["query"])
    return {"answer": f"{code}\n{out}", **{key: item[key] for key in ("query", "apply", "undo")}}


def in_force(state: dict[str, Any]) -> dict[str, Any]:
    """What the set has loaded and is there still, changed by hand or not: where it was taken away, its query fails."""
    return {name: item for name, item in state["applied"].items() if run(item["query"])[0] == 0}


def loaded_changes(spec: dict[str, Any], state: dict[str, Any]) -> list[Change]:
    changes = [
        {"kind": "loaded", "name": item["name"], "what": "apply"}
        for item in spec["loaded"]
        if state["applied"].get(item["name"]) != loaded_now(item)
    ]
    gone = sorted(set(state["applied"]) - {item["name"] for item in spec["loaded"]})
    return changes + [{"kind": "loaded", "name": name, "what": "no longer declared: undo"} for name in gone]


def inspect(spec: dict[str, Any], root: str = "") -> list[Change]:
    """Everything on this node that differs from the set: a list of {kind, name, what}."""
    state = read_state(spec["name"], root)
    changes: list[Change] = []
    if state["committing"]:
        changes.append({"kind": "journal", "name": spec["name"], "what": "finish an interrupted change"})
    changes += [{"kind": "action", "name": action, "what": "still to be done after an earlier change"} for action in state["pending"]]
    if state["armed"]:
        changes.append({"kind": "revert", "name": spec["name"], "what": "confirm an unconfirmed change"})
    changes += missing_packages(spec["packages"])
    changes += missing_accounts(spec)
    changes += path_changes(spec, state, root)
    changes += unit_changes(spec, state)
    changes += loaded_changes(spec, state)
    return changes


def main(payload: dict[str, Any]) -> dict[str, Any]:
    return {"changes": inspect(payload)}
