# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs that the wizard starts: the terminal's own command in a process of its own, followed by its journal.

Neither a closed browser nor a stopped wizard touches one. The number of a line in the journal is the event's id.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ansible_collections.bzzz.cluster.plugins.module_utils.problems import Problem, errors, problem

from bzzz_setup import paths, run
from bzzz_setup.events import Event, ExitCode, Refusal, TaskFinished
from bzzz_setup.report import Report

START_SECONDS = 60
# Processes that answer a question, at a time.
QUESTIONS = 2
COMMAND = (sys.executable, "-m", "bzzz_setup")


@dataclasses.dataclass
class Started:
    """A command on its way to being a run. `document` is what it printed, once it has ended."""

    process: subprocess.Popen[str]
    document: dict[str, Any] | None = None


class Journal:
    """The journal of a run, read on as it grows. Methods may be called from any thread."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._file = folder, folder / "events.jsonl"
        self._report = Report()
        # Where each whole line begins, and the next one will.
        self._places = [0]
        self._lock = threading.RLock()

    @property
    def size(self) -> int:
        try:
            return self._file.stat().st_size
        except FileNotFoundError:
            return 0

    @property
    def last(self) -> int:
        """The id of the last event that has been read."""
        return len(self._places) - 1

    @contextlib.contextmanager
    def read(self) -> Iterator[Report]:
        """What the run did so far; nobody reads on meanwhile."""
        with self._lock:
            if self.size > self._places[-1]:
                with self._file.open("rb") as stream:
                    stream.seek(self._places[-1])
                    for line in stream:
                        if not line.endswith(b"\n"):
                            break
                        self._places.append(self._places[-1] + len(line))
                        with contextlib.suppress(ValueError, KeyError, TypeError):
                            self._report.add(Event.from_json(line.decode()))
            yield self._report

    def lines(self, after: int, most: int) -> list[str]:
        """Whole lines behind the first `after`, at most so many."""
        with self.read():
            places = self._places[after : after + most + 1]
        if len(places) < 2:
            return []
        with self._file.open("rb") as stream:
            stream.seek(places[0])
            return stream.read(places[-1] - places[0]).decode().split("\n")[:-1]

    def plain(self, line: str) -> dict[str, Any]:
        """Of one of its lines, what `Report.plain` tells; nothing where it is no task's end."""
        with contextlib.suppress(ValueError, KeyError, TypeError):
            event = Event.from_json(line)
            if isinstance(event, TaskFinished):
                return self._report.plain(event)
        return {}


class Runs:
    """The runs of one cluster. Methods may be called from any thread."""

    def __init__(self, inventory: Path, cluster: Callable[[], str]) -> None:
        self._inventory, self._cluster = inventory, cluster
        self._turns = threading.BoundedSemaphore(QUESTIONS)
        self._journals: dict[Path, Journal] = {}
        self._lock = threading.Lock()

    def folders(self) -> list[Path]:
        return run.runs(self._cluster())

    def folder(self, name: str) -> Path:
        """Raises Refusal for a run that there is not."""
        found = next((folder for folder in self.folders() if folder.name == name), None)
        if found is None:
            raise Refusal(f"there is no run {name}", "The last 20 are kept: see /api/v1/runs.", option="run")
        return found

    def journal(self, name: str) -> Journal:
        """Raises Refusal for a run that there is not."""
        folder = self.folder(name)
        with self._lock:
            for gone in [known for known in self._journals if not known.is_dir()]:
                del self._journals[gone]
            return self._journals.setdefault(folder, Journal(folder))

    def reports(self) -> Iterator[Report]:
        """What the runs did so far, the newest first."""
        for folder in reversed(self.folders()):
            with self.journal(folder.name).read() as report:
                yield report

    def stamp(self) -> tuple[tuple[str, int], ...]:
        """Other when a run has said more."""
        return tuple((folder.name, self.journal(folder.name).size) for folder in self.folders())

    def start(
        self,
        command: str,
        folder: Path,
        steps: list[int],
        limit: str | None,
        passwords: dict[str, str],
        ended: Callable[[], None] = lambda: None,
    ) -> str:
        """Have a command run over an inventory folder; returns the run's name once it has begun.

        passwords: `ssh` and `become`, handed on by standard input. ended: called when it is over. Raises Refusal where it does not begin.
        """
        asked = [option for name, option in (("ssh", "--ask-pass"), ("become", "--ask-become-pass")) if name in passwords]
        given = [part for number in steps for part in ("--only", str(number))] if command in ("plan", "apply") else []
        arguments = [command, "-i", str(folder), "--json", *given, *(["--limit", limit] if limit else []), *asked]
        before = {found.name for found in self.folders()}
        process = subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            env=self._environment(),
        )
        started = Started(process)
        words = "".join(f"{passwords[name]}\n" for name in ("ssh", "become") if name in passwords)
        threading.Thread(target=_follow, args=(started, words, ended), daemon=True).start()
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            new = [found.name for found in self.folders() if found.name not in before and found.name.endswith(f"-{process.pid}-{command}")]
            if new and self.journal(new[0]).lines(0, 1):
                return new[0]
            if started.document is not None:
                break
            time.sleep(0.05)
        raise _refused(command, started.document or {})

    def files(self, kind: str, folder: Path) -> bytes:
        """What an inventory folder makes of each node, as `bzzz-setup export` writes it, in one ZIP archive. Raises Refusal."""
        with tempfile.TemporaryDirectory(prefix="bzzz-export-") as scratch:
            written = Path(scratch, "files")
            document, code = self._answer("export", kind, "-i", str(folder), "--output", str(written))
            if code:
                raise _refused("export", document)
            held = io.BytesIO()
            with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
                for file in sorted(path for path in written.rglob("*") if path.is_file()):
                    archive.write(file, file.relative_to(written))
            return held.getvalue()

    def problems(self, folder: Path) -> list[Problem]:
        """What `bzzz-setup check` finds in an inventory folder. Raises Refusal where it cannot look."""
        document, code = self._answer("check", "-i", str(folder))
        if code not in (ExitCode.FINE, ExitCode.REFUSED) or "problems" not in document:
            raise _refused("check", document)
        found: list[Problem] = document["problems"]
        return found

    def fit(self, folder: Path) -> dict[str, Any]:
        """`bzzz-setup models plan` of an inventory folder. Raises Refusal where there is no plan."""
        document, code = self._answer("models", "plan", "-i", str(folder))
        if code not in (ExitCode.FINE, ExitCode.CHECKS_FAILED) or "placed" not in document:
            raise _refused("models plan", document)
        return document

    def spent(self, *arguments: str) -> dict[str, Any]:
        """`bzzz-setup cost report`. Raises Refusal where the ledger cannot be asked, or there is none."""
        document, code = self._answer("cost", "report", "-i", str(self._inventory), *arguments)
        if code != ExitCode.FINE or "rows" not in document:
            raise _refused("cost report", document)
        return document

    def _answer(self, *arguments: str) -> tuple[dict[str, Any], int]:
        """What a command that is soon over prints, and its exit code."""
        if not self._turns.acquire(blocking=False):
            raise Refusal("as much as can be is being worked out at this moment", "Ask again in some seconds.", ExitCode.BUSY)
        try:
            done = subprocess.run(
                [*COMMAND, *arguments, "--json"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=self._environment(),
                check=False,
            )
        finally:
            self._turns.release()
        return _document(done.stdout), done.returncode

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "BZZZ_INVENTORY": "", paths.TOLD_INVENTORY: str(self._inventory)}

    def cancel(self) -> bool:
        """Ask the run that holds the cluster to end, whoever has started it; False where there is none."""
        held = run.holder(self._cluster())
        if not held or not held["pid"]:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(held["pid"]), signal.SIGINT)
            return True
        return False


def _follow(started: Started, words: str, ended: Callable[[], None]) -> None:
    out, _ = started.process.communicate(words)
    started.document = _document(out)
    ended()


def _document(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _refused(command: str, said: dict[str, Any]) -> Refusal:
    """What a command that did not begin said."""
    refused = Refusal(
        f"{command} did not begin", "Try it on the terminal: it says more.", ExitCode(said.get("exit_code", ExitCode.REFUSED))
    )
    failed = [
        problem("", f"{one['node']}: {one['message']}", one.get("remedy") or "", node=one["node"]) for one in said.get("failures") or []
    ]
    refused.problems = errors(said.get("problems") or []) or failed or refused.problems
    return refused
