# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Land a configuration set on this node so that a kill at any moment converges on the next call.

Order of a change: stage and validate; write the journal (what will be put where, and which actions that calls for)
in one atomic write; put everything in place; run the actions, striking each off as it is done. A later call first
finishes what the journal holds. The previous content of every path is kept with its generation.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shlex
import shutil
import tarfile
from collections.abc import Iterable
from typing import Any

from . import causes
from . import state as node_state
from .state import ARCHIVE_MARK, PARTIAL, REVERTED, file_sha256, group_id, inspect, read_state, run, state_directory, unit_states, user_id

ACTION_ORDER = ("daemon_reload", "run", "load", "restart", "reload")
# Packages must not start their services before these are configured; systemctl then does nothing and says so.
OFFLINE = {**os.environ, "SYSTEMD_OFFLINE": "1", "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
LOCKED = "Could not get lock"  # apt has waited long enough for whoever else installs
ZSTANDARD = b"\x28\xb5\x2f\xfd"
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
HIDDEN = "(not shown: it may hold secrets)\n"


class ConfigSetError(Exception):
    """The set could not be landed; the message says what, why and the remedy."""


class Effects:
    """Everything that changes the node, one atomic operation a method; the crash test counts and breaks these."""

    def __init__(self, root: str = "") -> None:
        self.root = root

    def write(self, path: str, data: bytes, mode: int, uid: int = 0, gid: int = 0) -> None:
        temporary = f"{os.path.dirname(path)}/.{os.path.basename(path)}.bzzz"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchown(descriptor, uid, gid)
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        os.replace(temporary, path)
        self._sync(path)

    def copy(self, source: str, path: str) -> None:
        """Copy a file or link with its attributes."""
        found = os.lstat(source)
        if os.path.islink(source):
            self.link(path, os.readlink(source))
        else:
            with open(source, "rb") as file:
                self.write(path, file.read(), found.st_mode & 0o7777, found.st_uid, found.st_gid)

    def link(self, path: str, target: str) -> None:
        temporary = f"{os.path.dirname(path)}/.{os.path.basename(path)}.bzzz"
        if os.path.lexists(temporary):
            os.unlink(temporary)
        os.symlink(target, temporary)
        os.replace(temporary, path)
        self._sync(path)

    def directory(self, path: str, mode: int, uid: int = 0, gid: int = 0) -> None:
        os.makedirs(path, exist_ok=True)
        # Whoever owns the directory above could put a link there at any moment, and be given what it points to.
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            os.fchown(descriptor, uid, gid)
            os.fchmod(descriptor, mode)
        finally:
            os.close(descriptor)

    def remove(self, path: str) -> None:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        elif os.path.lexists(path):
            os.unlink(path)

    def discard(self, path: str) -> None:
        """Remove an unpacked archive; what a kill leaves of it is known by its name."""
        partial = path.removesuffix(PARTIAL) + PARTIAL
        if path != partial:
            shutil.rmtree(partial, ignore_errors=True)
            os.rename(path, partial)
        shutil.rmtree(partial)

    def leave(self, path: str) -> bool:
        """Remove a directory that is empty; whether it is gone."""
        try:
            os.rmdir(path)
        except OSError:
            return not os.path.lexists(path)
        return True

    def unpack(self, archive: str, path: str, sha256: str, within: str = "") -> None:
        partial = path + PARTIAL
        shutil.rmtree(partial, ignore_errors=True)
        os.makedirs(partial, 0o755)
        found = False
        with tarfile.open(self._plain(archive)) as tar:
            for member in tar.getmembers():
                if within:
                    name = os.path.normpath(member.name)
                    if not name.startswith(within + "/"):
                        continue
                    member.name = name[len(within) + 1 :]
                found = True
                member.uid = member.gid = 0
                member.uname = member.gname = "root"
                member.mode = (member.mode | 0o444) & 0o755
                inside = os.path.realpath(partial) + "/"
                target = os.path.realpath(os.path.join(partial, member.name))
                # Links are a library's names. Every later member is looked at again, along the links that are there by then.
                linked = os.path.realpath(os.path.join(os.path.dirname(target), member.linkname)) if member.issym() else target
                plain = member.isfile() or member.isdir() or (member.issym() and not os.path.isabs(member.linkname))
                if not plain or not all((path + "/").startswith(inside) for path in (target, linked)):
                    raise ConfigSetError(
                        f"the archive for {path} holds '{member.name}', which is no plain file inside it; nothing was unpacked."
                    )
                if hasattr(tarfile, "data_filter"):
                    tar.extract(member, partial, filter="fully_trusted")
                else:
                    tar.extract(member, partial)
        if not found:
            raise ConfigSetError(f"the archive for {path} holds nothing in '{within or '.'}'; nothing was unpacked.")
        with open(f"{partial}/{ARCHIVE_MARK}", "w", encoding="ascii") as file:
            file.write(sha256 + "\n")
        os.sync()
        if os.path.lexists(path):
            shutil.rmtree(path)
        os.rename(partial, path)
        self._sync(path)

    @staticmethod
    def _plain(archive: str) -> str:
        """The archive in a form that tarfile reads: Python before 3.14 knows nothing of Zstandard."""
        with open(archive, "rb") as file:
            if file.read(4) != ZSTANDARD:
                return archive
        # Beside it, in the upload's own directory, which is removed with it.
        code, _out, error = run(["zstd", "-d", "-q", "-f", archive, "-o", f"{archive}.tar"], timeout=900)
        if code:
            raise ConfigSetError(f"the archive could not be decompressed by zstd: {_last(error)}; nothing was unpacked.")
        return f"{archive}.tar"

    def run(self, argv: list[str], timeout: float = 900, env: dict[str, str] | None = None) -> tuple[int, str, str]:
        return run(argv, timeout=timeout, env=env)

    @staticmethod
    def _sync(path: str) -> None:
        descriptor = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def fill_secrets(content: str, secrets: dict[str, str]) -> str:
    """Replace every ``@@name@@`` by its secret."""
    for name, value in secrets.items():
        content = content.replace(f"@@{name}@@", value)
    return content


class ConfigSet:
    """One set on one node. ``spec`` is the module's arguments; ``files`` carry ``content`` (with secret tokens) and ``sha256``."""

    def __init__(self, spec: dict[str, Any], secrets: dict[str, str] | None = None, effects: Effects | None = None, root: str = "") -> None:
        self.spec = spec
        self.secrets = secrets or {}
        self.root = root
        self.do = effects or Effects(root)
        self.directory = state_directory(spec["name"], root)
        self.state = read_state(spec["name"], root)
        self.notes: list[str] = []

    # -- the journal ---------------------------------------------------------------------------------------------

    def save(self) -> None:
        self.do.write(f"{self.directory}/state.json", json.dumps(self.state, sort_keys=True).encode(), 0o600)

    def generation(self, number: int) -> str:
        return f"{self.directory}/generations/{number}"

    def recover(self) -> None:
        """Finish a change that was cut short between its journal and its end."""
        if self.state["committing"]:
            self.commit()

    # -- the parts of a change -----------------------------------------------------------------------------------

    def install(self) -> None:
        """Packages, without starting their services; an installation cut short is finished first."""
        changes = node_state.missing_packages(self.spec["packages"])
        if not changes:
            return
        self.pend(["daemon_reload"])
        apt = ["apt-get", "-qy", "-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Options::=--force-confold", "-o", "Acquire::Retries=3"]
        install = [*apt, "install", "--no-install-recommends", *self.spec["packages"]]
        code, out, error = self.do.run(install, env=OFFLINE)  # waits while somebody else installs
        if code and LOCKED not in error:
            # An installation cut short is finished only by dpkg itself; on a fresh node, lists are often missing or old.
            self.do.run(["dpkg", "--configure", "-a", "--force-confold"], env=OFFLINE)
            # Otherwise it calls a mirror that does not answer a warning, and all is said to be well.
            updated, _out, update_error = self.do.run([*apt, "-o", "APT::Update::Error-Mode=any", "update"], env=OFFLINE)
            code, out, error = self.do.run(install, env=OFFLINE)
            error += f"\napt-get update: {_last(update_error)}" if code and updated else ""
        if code:
            packages = " ".join(self.spec["packages"])
            otherwise = f"on the node, run 'apt-get update' and 'apt-get install {packages}' and mend what it says."
            raise ConfigSetError(causes.explained(f"packages {packages} could not be installed: {_last(error or out)}", otherwise))

    def accounts(self) -> None:
        for change in node_state.missing_accounts(self.spec):
            name = change["name"]
            if change["kind"] == "group":
                self._must(["groupadd", "--system", name], f"group {name}")
        for user in self.spec["users"]:
            name = user["name"]
            if user_id(name) is None:
                argv = ["useradd", "--shell", user.get("shell") or "/usr/sbin/nologin", "--comment", user.get("comment") or ""]
                argv += ["--system"] if user.get("system") else ["--password", "*"]
                # A group of that name may be left of an earlier user, or of a useradd that was killed.
                argv += ["--user-group"] if group_id(name) is None else ["--gid", name]
                argv += ["--home-dir", user["home"]] if user.get("home") else []
                argv += ["--create-home"] if user.get("create_home") else ["--no-create-home"]
                argv += ["--groups", ",".join(user["groups"])] if user["groups"] else []
                self._must([*argv, name], f"user {name}")
            elif any(change["name"] == name for change in node_state.missing_accounts(self.spec)):
                self._must(["usermod", "--append", "--groups", ",".join(user["groups"]), name], f"user {name}")

    def unpack(self) -> None:
        for item in self.spec["archives"]:
            mark = f"{self.root}{item['path']}/{ARCHIVE_MARK}"
            if _read(mark).strip() == item["sha256"]:
                continue
            source = item.get("uploaded")
            if not source or file_sha256(source) != item["sha256"]:
                raise ConfigSetError(
                    f"the archive for {item['path']} does not have the checksum {item['sha256']}; nothing was changed. "
                    "Remedy: build or fetch the artifact again; its index names the checksum."
                )
            self.do.directory(self.root + os.path.dirname(item["path"]), 0o755)
            self.pend(item["notify"])
            self.do.unpack(source, self.root + item["path"], item["sha256"], item.get("within", ""))

    def stage(self) -> list[dict[str, Any]]:
        """Write what differs into the next generation's directory, validate it, and return the operations that land it."""
        changed = {(change["kind"], change["name"]) for change in node_state.path_changes(self.spec, self.state, self.root)}
        number = self.state["generation"] + 1
        directory = self.generation(number)
        self.do.remove(directory)
        operations: list[dict[str, Any]] = []
        for item in self.spec["directories"]:
            if ("directory", item["path"]) in changed:
                operations.append({"kind": "directory", "notify": item["notify"], **_owned(item)})
        staged: dict[str, str] = {}
        self.do.directory(directory, 0o700)
        for index, item in enumerate(self.spec["files"]):
            staged[item["path"]] = f"{directory}/{index}"
            if ("file", item["path"]) in changed or self.spec["validators"]:
                self.do.write(staged[item["path"]], self.content(item), 0o600)
            if ("file", item["path"]) in changed:
                operation = {"kind": "file", "notify": item["notify"], "staged": str(index), "secret": self.secret(item)}
                operations.append({**operation, **_owned(item)})
        for item in self.spec["links"]:
            if ("link", item["path"]) in changed:
                operations.append({"kind": "link", "path": item["path"], "target": item["target"], "notify": item["notify"]})
        for item in self.spec["absent"]:
            if ("path", item["path"]) in changed:
                operations.append({"kind": "absent", "path": item["path"], "notify": item["notify"]})
        for gone in node_state.undeclared(self.spec, self.state):
            operations.append({"kind": "gone", "path": gone, "notify": self.state["landed"][gone]["notify"]})
        for operation in operations:
            self.fits(operation)
            if operation["kind"] in ("directory", "file", "link"):
                place = operation["path"] if operation["kind"] == "directory" else os.path.dirname(operation["path"])
                operation["makes"] = node_state.missing_directories(place, self.root)
        if operations:
            self.validate(staged)
        return operations

    def fits(self, operation: dict[str, Any]) -> None:
        """Refuse what could not be put in place: once it is in the journal, every later call would fail at it."""
        path, kind = self.root + operation["path"], operation["kind"]
        there, link = os.path.isdir(path), os.path.islink(path)
        if kind == "directory" and os.path.lexists(path) and (link or not there):
            raise ConfigSetError(
                f"{path} is {'a link' if link else 'no directory'}, but a directory is to be there; nothing was changed. "
                "Remedy: move it away, or declare where it really is, and run again."
            )
        if kind in ("file", "link", "gone") and there and not link:
            raise ConfigSetError(
                f"{path} is a directory, but a file or link of the set '{self.spec['name']}' belongs there; nothing was changed. "
                "Remedy: move it away and run again."
            )

    def validate(self, staged: dict[str, str]) -> None:
        """Run the validators over the staged files; ``{path}`` of a file in an argv stands for its staged copy."""
        for validator in self.spec["validators"]:
            argv = [_placed(word, staged) for word in validator["argv"]]
            code, out, error = run(argv, timeout=60)
            if code == 127:
                self.notes.append(f"{argv[0]} is not installed here yet, so '{_shown(validator['argv'])}' was not run")
            elif code:
                said = (error or out).strip()
                for path, copy in staged.items():
                    said = said.replace(copy, path)
                for value in self.secrets.values():
                    said = said.replace(value, "********") if value else said
                raise ConfigSetError(f"'{_shown(validator['argv'])}' refuses the new configuration, so nothing was changed: {said[-1000:]}")

    def save_previous(self, operations: list[dict[str, Any]]) -> None:
        """Keep what lies at every path that is about to change; a foreign file met for the first time is kept for good."""
        number = self.state["generation"] + 1
        for index, operation in enumerate(operations):
            path = self.root + operation["path"]
            # A link to a directory is kept as well: it may be what leads to the release that ran.
            if operation["kind"] == "directory" or not os.path.lexists(path) or (os.path.isdir(path) and not os.path.islink(path)):
                continue
            operation["previous"] = f"previous-{index}"
            self.do.copy(path, f"{self.generation(number)}/previous-{index}")
            if operation["kind"] in ("file", "link") and operation["path"] not in self.state["landed"]:
                operation["original"] = hashlib.sha256(operation["path"].encode()).hexdigest()[:16]
                self.do.directory(f"{self.directory}/originals", 0o700)
                self.do.copy(path, f"{self.directory}/originals/{operation['original']}")

    def commit(self) -> None:
        """Put the journaled operations in place; doing one twice is harmless."""
        journal = self.state["committing"]
        directory = self.generation(journal["generation"])
        for operation in journal["operations"]:
            path = self.root + operation["path"]
            kind = operation["kind"]
            if kind == "directory":
                self.do.directory(path, int(operation["mode"], 8), self._uid(operation), self._gid(operation))
                continue
            if not os.path.isdir(os.path.dirname(path)):
                self.do.directory(os.path.dirname(path), 0o755)
            if kind == "file":
                with open(f"{directory}/{operation['staged']}", "rb") as file:
                    data = file.read()
                self.do.write(path, data, int(operation["mode"], 8), self._uid(operation), self._gid(operation))
            elif kind == "link":
                self.do.link(path, operation["target"])
            else:
                original = self.state["landed"].get(operation["path"], {}).get("original")
                if kind == "gone" and original:
                    self.do.copy(f"{self.directory}/originals/{original}", path)
                else:
                    self.do.remove(path)
        for operation in journal["operations"]:
            if operation["kind"] in ("file", "link"):
                known = self.state["landed"].get(operation["path"], {})
                original = known.get("original") or operation.get("original")
                self.state["landed"][operation["path"]] = {
                    "original": original,
                    "secret": operation.get("secret", False),
                    "notify": operation["notify"],
                }
            else:
                self.state["landed"].pop(operation["path"], None)
        self.tidy(made for operation in journal["operations"] for made in operation.get("makes", []))
        self.state["generation"] = journal["generation"]
        self.state["committing"] = None
        self.save()

    def tidy(self, made: Iterable[str]) -> None:
        """Note the directories that were made, and remove those that nothing of this set, and nobody else, uses any more."""
        used = {item["path"] for kind in ("directories", "archives") for item in self.spec[kind]} | set(self.state["landed"])
        directories = sorted({*self.state["directories"], *made}, reverse=True)  # what is inside of one comes first
        self.state["directories"] = [
            path for path in directories if any(f"{one}/".startswith(f"{path}/") for one in used) or not self.do.leave(self.root + path)
        ]

    def pend(self, actions: list[str]) -> None:
        new = [action for action in actions if action not in self.state["pending"]]
        if new:
            self.state["pending"] += new
            self.save()

    def retire(self) -> None:
        """Stop, disable and unload what this set no longer names, while its files are still there."""
        for name in sorted(set(self.state["applied"]) - {item["name"] for item in self.spec["loaded"]}):
            self.do.run(self.state["applied"][name]["undo"])
            del self.state["applied"][name]
            self.save()
        for unit in sorted(set(self.state["units"]) - {unit["name"] for unit in self.spec["units"]}):
            self.do.run(["systemctl", "disable", "--now", "--", unit])
            self.state["units"].remove(unit)
            self.save()

    def act(self) -> None:
        """Do the pending actions in their order and strike each off once it is done."""
        units = unit_states([unit["name"] for unit in self.spec["units"]])
        if any(found.get("NeedDaemonReload") == "yes" for found in units.values()):
            self.pend(["daemon_reload"])
        if "daemon_reload" in self.state["pending"]:
            self._enabled_unseen()
        restarted = set()
        for action in sorted(self.state["pending"], key=lambda action: ACTION_ORDER.index(action.split(":", 1)[0])):
            verb, _colon, name = action.partition(":")
            if verb == "daemon_reload":
                self._must(["systemctl", "daemon-reload"], action)
            elif verb == "run":
                command = next((command for command in self.spec["commands"] if command["name"] == name), None)
                if command:
                    self._must(command["argv"], f"command {name}")
            elif verb == "load":
                self.load([item for item in self.spec["loaded"] if item["name"] == name])
            elif any(unit["name"] == name and unit.get("active") is not False for unit in self.spec["units"]):
                # One that has just started has read all, and may not know yet what to do with a signal.
                if name not in restarted:
                    self._systemctl("restart" if verb == "restart" else "reload-or-restart", name)
                restarted.add(name)
            self.state["pending"].remove(action)
            self.save()
        self.load([item for item in self.spec["loaded"] if self.state["applied"].get(item["name"]) != node_state.loaded_now(item)])
        self.units()

    def _enabled_unseen(self) -> None:
        """Enable and disable what is to be, of which the reload that is due tells systemd: else each has it read all units again."""
        changes = node_state.unit_changes(self.spec, {"units": []})
        for verb in ("enable", "disable"):
            if names := [change["name"] for change in changes if change["what"] == verb]:
                self.do.run(["systemctl", verb, "--no-reload", "--", *names])  # what fails is tried again by itself, and told

    def load(self, items: list[dict[str, Any]]) -> None:
        for item in items:
            self._must(item["apply"], item["name"])
            self.state["applied"][item["name"]] = node_state.loaded_now(item)
            self.save()

    def claim(self) -> None:
        """Note the units that this set will start or enable, before anything (a pending reload, too) does so.

        One that was enabled and running before this set came is not taken away with it.
        """
        wrong = node_state.unit_changes(self.spec, {"units": []})
        new = {change["name"] for change in wrong if change["what"] in ("enable", "start")} - set(self.state["units"])
        if new:
            self.state["units"] += sorted(new)
            self.save()

    def units(self) -> None:
        for change in node_state.unit_changes(self.spec, {"units": []}):
            if change["what"] in ("enable", "disable", "start", "stop"):
                self._systemctl(change["what"], change["name"])

    # -- the revert timer ----------------------------------------------------------------------------------------

    def arm(self, operations: list[dict[str, Any]]) -> None:
        """Let the node put everything back by itself unless ``confirm`` comes in time. The timer survives a reboot.

        Back is what was really there: what somebody took out of the kernel before this change is not loaded again.
        """
        seconds = self.spec["revert_seconds"]
        directory = self.generation(self.state["generation"] + 1)
        unit = f"bzzz-revert-{self.spec['name']}"
        names = list(dict.fromkeys([item["name"] for item in self.spec["units"]] + self.state["units"]))
        seen = unit_states(names)
        active = [name for name in names if seen.get(name, {}).get("ActiveState") in ("active", "reloading")]
        enabled = [name for name in names if seen.get(name, {}).get("UnitFileState") == "enabled"]
        loaded = node_state.in_force(self.state)
        lines = [
            "#!/bin/sh",
            f"# Puts back what was there before generation {self.state['generation'] + 1} of '{self.spec['name']}'; twice does no harm.",
            *(shlex.join(item["undo"]) for item in self.spec["loaded"] if item["name"] not in loaded),
            *(f"systemctl disable --no-reload {shlex.quote(name)}" for name in names if name not in enabled),
            *(f"systemctl stop {shlex.quote(name)}" for name in names if name not in active),
        ]
        for operation in operations:
            path = shlex.quote(self.root + operation["path"])
            if "previous" in operation:
                lines.append(f"cp -a {shlex.quote(directory + '/' + operation['previous'])} {path}.bzzz && mv -fT {path}.bzzz {path}")
            elif operation["kind"] != "directory":
                lines.append(f"rm -f {path}")
        lines += [f"systemctl enable --no-reload {shlex.quote(name)}" for name in enabled]
        lines.append("systemctl daemon-reload")
        lines += [shlex.join(item["apply"]) for _name, item in sorted(loaded.items())]
        lines += [f"systemctl start {shlex.quote(name)}" for name in active]
        for action in _notified(operations):
            verb, _colon, name = action.partition(":")
            if verb in ("restart", "reload") and name in active:
                lines.append(f"systemctl {'restart' if verb == 'restart' else 'reload-or-restart'} {shlex.quote(name)}")
        lines += [
            f"touch {shlex.quote(self.directory)}/{REVERTED}",
            *(f"rm -f {shlex.quote(self.root)}/etc/systemd/system/{name}" for name in (f"{unit}.service", f"{unit}.timer")),
            f"rm -f {shlex.quote(self.root)}/etc/systemd/system/timers.target.wants/{unit}.timer",
            "systemctl daemon-reload",
            "",
        ]
        self.do.remove(f"{self.directory}/{REVERTED}")
        self.do.write(f"{self.directory}/revert.sh", "\n".join(lines).encode(), 0o700)
        service = (
            f"[Unit]\nDescription=Put back the configuration set {self.spec['name']}\n"
            # The lock: never while a call is at work.
            f"[Service]\nType=oneshot\nExecStart=/usr/bin/flock {self.directory}/lock /bin/sh {self.directory}/revert.sh\n"
        )
        timer = (
            f"[Unit]\nDescription=Deadline of the configuration set {self.spec['name']}\n"
            f"[Timer]\nOnActiveSec={seconds}\nAccuracySec=100ms\n[Install]\nWantedBy=timers.target\n"
        )
        self.do.write(f"{self.root}/etc/systemd/system/{unit}.service", service.encode(), 0o644)
        self.do.write(f"{self.root}/etc/systemd/system/{unit}.timer", timer.encode(), 0o644)
        before = {**{key: self.state[key] for key in node_state.UNDONE}, "applied": loaded, "undone": self.spec["change"]}
        self.state["armed"] = json.loads(json.dumps(before))
        self.save()
        self._must(["systemctl", "enable", "--no-reload", f"{unit}.timer"], "the revert timer")
        self._must(["systemctl", "daemon-reload"], "the revert timer")
        self.do.run(["systemctl", "stop", f"{unit}.service"])
        self._must(["systemctl", "restart", f"{unit}.timer"], "the revert timer")

    def settle(self) -> None:
        """Undo an earlier change that nobody confirmed: how far it came, and whether it cuts off, is not known."""
        if self.state["armed"]:
            if not self._reverted():
                self._must(["sh", f"{self.directory}/revert.sh"], "putting back what was there before an unconfirmed change")
            disarm(self.spec["name"], self.state, True, self.root, self.do)

    # -- the whole -----------------------------------------------------------------------------------------------

    def land(self) -> list[dict[str, str]]:
        """Make the node so; returns what was changed. ConfigSetError where it could not."""
        self.do.directory(self.directory, 0o700)
        with open(f"{self.directory}/lock", "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.state = read_state(self.spec["name"], self.root)
            changes = inspect(self.spec, self.root)
            if [change["kind"] for change in changes] == ["revert"] and not self._reverted():
                # A killed run's change was finished while this call waited: it is this one's to confirm.
                self.state["armed"]["undone"] = self.spec["change"]
                self.save()
                return changes
            self.settle()
            self.recover()
            self.install()
            self.accounts()
            self.unpack()
            operations = self.stage()
            self.save_previous(operations)
            if self.spec["revert_seconds"]:
                self.arm(operations)
            self.retire()
            self.claim()
            if operations:
                self.state["committing"] = {"generation": self.state["generation"] + 1, "operations": operations}
                self.state["pending"] += [action for action in _notified(operations) if action not in self.state["pending"]]
                self.save()
                self.commit()
            self.act()
            self.prune()
            return changes

    def preview(self) -> list[dict[str, str]]:
        """What ``land`` would change; the staged files are validated in a directory that is removed again."""
        changes = inspect(self.spec, self.root)
        if self.spec["validators"]:
            directory = f"/run/bzzz-preview-{os.getpid()}"
            os.mkdir(directory, 0o700)
            try:
                staged = {}
                for index, item in enumerate(self.spec["files"]):
                    staged[item["path"]] = f"{directory}/{index}"
                    with open(staged[item["path"]], "wb") as file:
                        file.write(self.content(item))
                self.validate(staged)
            finally:
                shutil.rmtree(directory, ignore_errors=True)
        return changes

    def diff(self) -> list[dict[str, str]]:
        """Before and after of every file that differs, with secrets as tokens. Ask before landing."""
        found = []
        for change in node_state.path_changes(self.spec, self.state, self.root):
            item = next((item for item in self.spec["files"] if change["kind"] == "file" and item["path"] == change["name"]), None)
            if item is None:
                found.append(
                    {"before_header": change["name"], "after_header": change["name"], "before": "", "after": change["what"] + "\n"}
                )
                continue
            before = _read(self.root + item["path"])
            known = self.state["landed"].get(item["path"], {})
            if before and (self.secret(item) or known.get("secret")):
                before = HIDDEN
            found.append({"before_header": item["path"], "after_header": item["path"], "before": before, "after": item["content"]})
        return found

    def prune(self) -> None:
        """Keep the last generations and archives only."""
        for item in self.spec["archives"]:
            for gone in node_state.surplus(self.spec, item, self.root):
                self.do.discard(self.root + gone)
        parent = f"{self.directory}/generations"
        for name in os.listdir(parent) if os.path.isdir(parent) else []:
            if name.isdigit() and not self.state["generation"] - self.spec["keep"] < int(name) <= self.state["generation"]:
                self.do.remove(f"{parent}/{name}")

    # -- small things --------------------------------------------------------------------------------------------

    def content(self, item: dict[str, Any]) -> bytes:
        return fill_secrets(item["content"], self.secrets).encode()

    def secret(self, item: dict[str, Any]) -> bool:
        return any(f"@@{name}@@" in item["content"] for name in self.secrets)

    def _reverted(self) -> bool:
        return os.path.exists(f"{self.directory}/{REVERTED}")

    def _uid(self, operation: dict[str, Any]) -> int:
        found = user_id(operation["owner"])
        if found is None:
            raise ConfigSetError(f"{operation['path']} is to belong to user '{operation['owner']}', who does not exist on this node.")
        return found

    def _gid(self, operation: dict[str, Any]) -> int:
        found = group_id(operation["group"])
        if found is None:
            raise ConfigSetError(f"{operation['path']} is to belong to group '{operation['group']}', which does not exist on this node.")
        return found

    def _must(self, argv: list[str], what: str) -> None:
        code, out, error = self.do.run(argv)
        if code:
            raise ConfigSetError(causes.explained(f"{what}: '{' '.join(argv)}' failed with exit code {code}: {_last(error or out)}"))

    def _systemctl(self, verb: str, name: str) -> None:
        if verb in ("start", "restart"):
            self.do.run(["systemctl", "reset-failed", "--", name])
        code, _out, error = self.do.run(["systemctl", verb, "--", name])
        if code:
            _code, said, _error = self.do.run(["journalctl", "-u", name, "-n", "15", "--no-pager", "-o", "cat"], timeout=20)
            journal = COLOURS.sub("", said)
            raise ConfigSetError(
                f"'systemctl {verb} {name}' failed: {_last(error)}\nIts journal ends with:\n{journal.strip()}\n"
                f"Remedy: mend the cause ('journalctl -u {name}' on the node), then run again; what is still to be done is remembered."
            )


def confirm(name: str, change: str | None, root: str = "", effects: Effects | None = None) -> dict[str, bool]:
    """Disarm the revert timer of a set. ``reverted`` tells that the node has put the old state back, also when asked again.

    ``change`` is the mark that the change was sent with, None where it is not known.
    A change that was cut short stays armed, since what is still missing of it may be what cuts off.
    """
    directory = state_directory(name, root)
    with open(f"{directory}/lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        state = read_state(name, root)
        # Another run may have put that change back and made its own, which is not for this one to confirm.
        armed = bool(state["armed"]) and change in (None, state["armed"]["undone"])
        reverted = armed and os.path.exists(f"{directory}/{REVERTED}")
        if armed and (reverted or not (state["committing"] or state["pending"])):
            disarm(name, state, reverted, root, effects or Effects(root))
        return {"reverted": reverted or (change is not None and state["undone"] == change)}


def disarm(name: str, state: dict[str, Any], reverted: bool, root: str, do: Effects) -> None:
    """Take the revert timer away; the set's lock is held. After reverting, the state is as if the change had never been."""
    unit = f"bzzz-revert-{name}"
    directory = state_directory(name, root)
    do.run(["systemctl", "disable", "--no-reload", f"{unit}.timer"])
    do.run(["systemctl", "stop", f"{unit}.timer", f"{unit}.service"])  # the service can only be waiting for the lock
    if reverted:
        state.update(state["armed"], committing=None)
    state["armed"] = None
    do.write(f"{directory}/state.json", json.dumps(state, sort_keys=True).encode(), 0o600)
    for kind in ("service", "timer"):
        do.remove(f"{root}/etc/systemd/system/{unit}.{kind}")
    do.run(["systemctl", "daemon-reload"])
    do.remove(f"{directory}/{REVERTED}")
    do.remove(f"{directory}/revert.sh")


def _owned(item: dict[str, Any]) -> dict[str, Any]:
    return {key: item[key] for key in ("path", "owner", "group", "mode")}


def _notified(operations: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(action for operation in operations for action in operation["notify"]))


def _shown(argv: list[str]) -> str:
    return " ".join(word.strip("{}") for word in argv)


def _placed(word: str, staged: dict[str, str]) -> str:
    for path, copy in staged.items():
        word = word.replace("{" + path + "}", copy)
    return word


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _last(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return " / ".join(lines[-3:])
