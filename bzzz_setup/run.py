# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs of ansible-playbook through ansible-runner: typed events, journaled, one run at a time per cluster."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bzzz_setup import paths, steps
from bzzz_setup.declaration import Declaration, write
from bzzz_setup.events import (
    Event,
    ExitCode,
    Message,
    Paused,
    Refusal,
    Resumed,
    RunFinished,
    RunStarted,
    StepStarted,
    TaskFinished,
    TaskStarted,
)
from bzzz_setup.report import Report

RUNS_KEPT = 20
CANCEL_GRACE_SECONDS = 10
FORKS = 25
# What an action says while it works: how far it is.
PROGRESS = "bzzz-progress:"
LOOKS, LOOK_SECONDS = 10, 0.03
# Plugins that ansible-playbook loads for the front.
CALLBACKS = Path(__file__).with_name("callbacks")

# What ansible-playbook gets of the caller's environment; everything else may hold secrets that are none of its business.
_PASSED = re.compile(
    r"HOME|PATH|USER|LOGNAME|SHELL|TMPDIR|TZ|LANG|LC_\w+|XDG_\w+|SSH_AUTH_SOCK|(https?|no|all|ftp)_proxy|"
    r"SSL_CERT_(FILE|DIR)|(REQUESTS|CURL)_CA_BUNDLE|NODE_EXTRA_CA_CERTS|ANSIBLE_\w+",
    re.IGNORECASE,
)

# Ansible must not outlive us: it runs in a session of its own, and a front that was killed has let go of the lock.
# SIGTERM, which it hands on to its workers and they to ssh. Its pid is left where we can tell it to stop, too.
_TETHER = """\
import ctypes, os, sys
parent, pid_file, *command = sys.argv[1:]
libc = ctypes.CDLL(None)
if hasattr(libc, "prctl"):
    libc.prctl(1, 15)
if os.getppid() != int(parent):
    sys.exit("the front is gone")
with open(pid_file, "w") as stream:
    stream.write(str(os.getpid()))
os.execv(command[0], command)
"""
# What a run makes lives until its end: Python would look for garbage in it again and again, a sixth of the time of a mere check.
_ANSIBLE = """\
import gc, runpy
gc.set_threshold(50_000, 20, 100)
runpy.run_module("ansible", run_name="__main__", alter_sys=True)
"""
PLAYBOOK = (sys.executable, "-c", _ANSIBLE, "playbook")
# Ansible looks for results a thousand times a second, which is nothing for a run and a lot for one that goes on for hours.
_PATIENT = "import ansible.constants\nansible.constants.DEFAULT_INTERNAL_POLL_INTERVAL = 0.25\n"


# Options of ansible-playbook that ask, and the prompts that they ask with.
PROMPTS = {"--ask-pass": r"SSH password:\s*?$", "--ask-become-pass": r"BECOME password.*:\s*?$"}


@dataclass(frozen=True)
class Job:
    """What to run. `playbooks` are names as Ansible takes them; `journal` is off for what touches no node."""

    command: str
    inventory: Path
    playbooks: list[str]
    steps: list[int] = field(default_factory=list)
    limit: str | None = None
    check: bool = False
    journal: bool = True
    # Whether it goes on for as long as somebody is there, and mostly waits.
    patient: bool = False
    # Whether it logs in with a key that Ansible has to unlock.
    unlocks: bool = False
    # Ansible's prompts and what to answer; they stay in memory.
    passwords: dict[str, str] = field(default_factory=dict, repr=False)
    # No secrets: they end up on Ansible's command line.
    variables: dict[str, str] = field(default_factory=dict)


def runs(cluster: str) -> list[Path]:
    """Folders of the runs that are kept, oldest first."""
    folder = paths.state(cluster) / "runs"
    return sorted(folder.iterdir()) if folder.is_dir() else []


def events(run: Path) -> Iterator[Event]:
    """The journal of a run. The last line of one that was killed may be cut off and is left out."""
    journal = run / "events.jsonl"
    for line in journal.read_text(encoding="utf-8").split("\n") if journal.is_file() else ():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            yield Event.from_json(line)


def keep(run: Path, report: Report) -> Path:
    """Leave the report beside the journal, for other programs and for people; returns the page's path."""
    from bzzz_setup import reports  # noqa: PLC0415 - its template engine is wanted only here

    write(run / "report.json", json.dumps(report.as_dict(), indent=2, ensure_ascii=False) + "\n", 0o600)
    write(run / "report.html", reports.html(report), 0o600)
    return run / "report.html"


def last(cluster: str, commands: Collection[str] = ("apply", "verify")) -> tuple[Path, Report] | None:
    """The last run of these commands and what it did; read from its journal, so that a killed run is told, too."""
    for folder in reversed(runs(cluster)):
        report = Report.of(events(folder))
        if report.command in commands:
            return folder, report
    return None


def find(cluster: str, named: str | None) -> tuple[Path, Report]:
    """The run of this name, or the last one that has a report. Raises Refusal."""
    if named is None:
        if found := last(cluster, ("apply", "verify", "plan")):
            return found
        raise Refusal(f"cluster {cluster} has had no apply, verify or plan yet", "Begin with: bzzz-setup plan", option="run")
    kept = {folder.name: folder for folder in runs(cluster)}
    if named not in kept:
        raise Refusal(f"there is no run {named} of cluster {cluster}", "Name one that 'bzzz-setup report --list' shows.", option="run")
    return kept[named], Report.of(events(kept[named]))


def holder(cluster: str) -> dict[str, Any] | None:
    """{pid, since, command} of the run that holds the cluster now, or None."""
    file = paths.state(cluster) / "lock"
    try:
        with file.open(encoding="utf-8") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return _holder(file)


def _holder(file: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        held = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(held, dict):
            return held
    return {"pid": None, "since": None, "command": None}


def pausing(run: Path) -> bool:
    """Whether the run of this folder is to wait before its next step."""
    return (run / "pause").exists()


def pause(run: Path, wanted: bool) -> None:
    """Have the run of this folder wait before its next step, or go on."""
    if wanted:
        (run / "pause").touch(mode=0o600)
    else:
        (run / "pause").unlink(missing_ok=True)


def going_on(cluster: str) -> Path | None:
    """The folder of the run that holds the cluster now, if one does."""
    held = holder(cluster)
    return next((folder for folder in runs(cluster) if held and f"-{held['pid']}-" in folder.name), None)


@contextlib.contextmanager
def lock(cluster: str, command: str) -> Iterator[None]:
    """Hold the cluster. The kernel frees it when the holder dies, however it dies. Raises Refusal (BUSY) when another holds it."""
    file = paths.state(cluster) / "lock"
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "r+", encoding="utf-8") as stream:
        for left in reversed(range(LOOKS)):
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                # Who only looks for a holder has it for a moment, too.
                if left:
                    time.sleep(LOOK_SECONDS)
                    continue
                held = _holder(file)
                raise Refusal(
                    f"another run holds the cluster {cluster}: {held['command']}, pid {held['pid']}, since {held['since']}",
                    f"Wait for it to end, or interrupt it (kill -INT {held['pid']}).",
                    ExitCode.BUSY,
                ) from None
        stream.truncate()
        json.dump({"pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S"), "command": command}, stream)
        stream.flush()
        yield


def execute(job: Job, on_event: Callable[[Event], None]) -> Path | None:
    """Run the job to its end and hand each event on as it comes. Returns the run's folder, if it is journaled.

    SIGINT and SIGTERM end Ansible and with it the run; nodes finish what they are at, and the next run goes on from there.
    Raises Refusal when the cluster is held by another run.
    """
    declaration = Declaration.read(job.inventory)
    cluster = declaration.cluster
    identity = time.strftime("%Y%m%d-%H%M%S-") + f"{os.getpid()}-{job.command}"
    with contextlib.ExitStack() as stack:
        if job.journal:
            stack.enter_context(lock(cluster, job.command))
            for old in runs(cluster)[: -(RUNS_KEPT - 1)]:
                shutil.rmtree(old, ignore_errors=True)
            for old in runs(cluster):
                # Left by a run that was killed.
                shutil.rmtree(old / "private", ignore_errors=True)
            folder = paths.state(cluster) / "runs" / identity
            folder.mkdir(mode=0o700, parents=True)
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bzzz-run-")))
        journal = stack.enter_context(os.fdopen(os.open(folder / "events.jsonl", os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8"))
        private = folder / "private"
        private.mkdir(mode=0o700)
        stack.callback(shutil.rmtree, private, ignore_errors=True)

        def emit(event: Event) -> None:
            journal.write(event.to_json() + "\n")
            journal.flush()
            on_event(event)

        told = os.environ.get(paths.TOLD_INVENTORY) or str(job.inventory)
        astray = declaration.astray()
        emit(RunStarted(run=identity, command=job.command, cluster=cluster, inventory=told, steps=job.steps, problems=astray))
        emit(_ansible(job, declaration, private, emit))
        return folder if job.journal else None


def _ansible(job: Job, declaration: Declaration, private: Path, emit: Callable[[Event], None]) -> RunFinished:
    from ansible_runner import Runner, RunnerConfig  # noqa: PLC0415 - slow to import, and seldom needed

    # What touches no node runs beside a run that does, whose connections are none of its business.
    sockets = paths.control_sockets(declaration.cluster) if job.journal else private / "sockets"
    sockets.mkdir(exist_ok=True)
    _close_masters(sockets)
    config = RunnerConfig(
        private_data_dir=str(private),
        ident="run",
        playbook=_playbook(job.playbooks, private),
        inventory=str(declaration.source()),
        limit=job.limit,
        cmdline=_options(job),
        passwords=dict(job.passwords),
        quiet=True,
    )
    # Set after prepare(), which takes the whole environment along, and reads its settings from files only.
    config.prepare()
    config.suppress_output_file = True
    config.pexpect_timeout = 0.2
    config.env = {**_runner_environment(config.env), **_environment(declaration.cluster, private, sockets)}
    config.env["ANSIBLE_CALLBACK_PLUGINS"] += f"{os.pathsep}{CALLBACKS}"
    config.env["BZZZ_RUN_FOLDER"] = str(private.parent)
    pid_file = private / "pid"
    config.command = [sys.executable, "-c", _TETHER, str(os.getpid()), str(pid_file), *_playbook_command(job), *config.command[1:]]
    if job.unlocks or (job.journal and "ansible_ssh_private_key" in declaration.options):
        # Ansible unlocks keys into this agent, which ends with it. One that Ansible starts itself has too long a path.
        agent = sockets.with_suffix(".agent")
        agent.unlink(missing_ok=True)
        config.command = ["ssh-agent", "-a", str(agent), *config.command]
        config.env["ANSIBLE_SSH_AGENT"] = str(agent)

    translate = _Translator(emit)
    cancel, pauses = _Cancel(pid_file), _Pauses(private.parent, emit)

    def look() -> bool:
        pauses.look()
        return cancel.overdue()

    def scrub(status: dict[str, Any], runner_config: Any) -> None:
        # Holds the whole environment, and proxy URLs may hold passwords.
        (private / "artifacts/run/command").unlink(missing_ok=True)

    with cancel:
        runner = Runner(config, event_handler=translate, cancel_callback=look, status_handler=scrub)
        runner.run()
    pauses.look()
    _close_masters(sockets)
    with contextlib.suppress(OSError):
        sockets.rmdir()
    # Killed by a signal, a process has no exit code.
    returncode = -1 if runner.rc is None else int(runner.rc)
    if not translate.saw_task and not cancel.asked:
        # Ansible gave up before the first task: an inventory, a playbook or a vault that it cannot read.
        emit(Message(level="error", text=translate.said() or f"ansible-playbook ended with exit code {returncode}"))
    return RunFinished(
        returncode=returncode,
        failed=sorted(translate.stats.get("failures", {})),
        unreachable=sorted(translate.stats.get("dark", {})),
        interrupted=cancel.asked,
    )


def _playbook_command(job: Job) -> list[str]:
    python, switch, program, *rest = PLAYBOOK
    return [python, switch, _PATIENT + program if job.patient else program, *rest]


def _options(job: Job) -> str:
    """What was changed is told line by line, as what would be."""
    given = ["--extra-vars", json.dumps(job.variables)] if job.variables else []
    asked = [option for option, prompt in PROMPTS.items() if prompt in job.passwords]
    return shlex.join([*(["--check"] if job.check else []), *asked, "--diff", *given])


def _playbook(names: list[str], private: Path) -> str:
    """One playbook for all: of several given on one command line, Ansible skips the rest for every node once one node has failed."""
    if len(names) == 1:
        return names[0]
    file = private / "run.yml"
    file.write_text(yaml.safe_dump([{"import_playbook": name} for name in names]), encoding="utf-8")
    return str(file)


def _runner_environment(prepared: dict[str, str]) -> dict[str, str]:
    """What ansible-runner has set for its event callback."""
    names = (
        "AWX_ISOLATED_DATA_DIR",
        "ANSIBLE_CALLBACK_PLUGINS",
        "ANSIBLE_STDOUT_CALLBACK",
        "RUNNER_OMIT_EVENTS",
        "RUNNER_ONLY_FAILED_EVENTS",
    )
    return {name: prepared[name] for name in names}


def _environment(cluster: str, private: Path, sockets: Path) -> dict[str, str]:
    """The environment of ansible-playbook; an operator's own ANSIBLE_* settings stand, but for what safety needs."""
    defaults = {
        "ANSIBLE_FORKS": str(FORKS),
        "ANSIBLE_PIPELINING": "True",
        "ANSIBLE_TIMEOUT": "10",
        "ANSIBLE_SSH_ARGS": "-C -o ControlMaster=auto -o ControlPersist=60s -o ServerAliveInterval=15 -o ServerAliveCountMax=4",
        "ANSIBLE_DEPRECATION_WARNINGS": "False",
        # Each would be a variable of its own, which Ansible copies and cleans for every task; roles read ansible_facts.
        "ANSIBLE_INJECT_FACT_VARS": "False",
    }
    if paths.vault_key(cluster).is_file():
        defaults["ANSIBLE_VAULT_PASSWORD_FILE"] = str(paths.vault_key(cluster))
    passed = {name: value for name, value in os.environ.items() if _PASSED.fullmatch(name)}
    required = {
        "ANSIBLE_COLLECTIONS_PATH": str(paths.collection().parents[2]),
        "ANSIBLE_DISPLAY_ARGS_TO_STDOUT": "False",
        "ANSIBLE_HOST_KEY_CHECKING": "True",
        # Kept files turn pipelining off: modules' arguments, secrets too, would stay on the nodes.
        "ANSIBLE_KEEP_REMOTE_FILES": "False",
        "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "True",
        "ANSIBLE_LOCAL_TEMP": str(private / "tmp"),
        "ANSIBLE_NOCOLOR": "True",
        "ANSIBLE_NO_TARGET_SYSLOG": "True",
        "ANSIBLE_RETRY_FILES_ENABLED": "False",
        "ANSIBLE_SSH_CONTROL_PATH_DIR": str(sockets),
        # Facts of a big machine are events like any other.
        "MAX_EVENT_RES": str(50_000_000),
        "PYTHONDONTWRITEBYTECODE": os.environ.get("PYTHONDONTWRITEBYTECODE", ""),
    }
    kept = {name: value for name, value in passed.items() if name not in ("ANSIBLE_CALLBACK_PLUGINS", "ANSIBLE_STDOUT_CALLBACK")}
    return {**defaults, **kept, **required}


def _close_masters(sockets: Path) -> None:
    """End SSH masters of this and of killed runs: a run begins with new connections, since only those prove that one gets in."""
    asked = [
        subprocess.Popen(["ssh", "-o", f"ControlPath={socket}", "-O", "exit", "none"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for socket in sockets.iterdir()
        if socket.is_socket()
    ]
    for process in asked:
        process.wait()


class _Cancel:
    """While entered, SIGINT and SIGTERM ask Ansible to stop; `overdue` is true when it did not do so in time."""

    def __init__(self, pid_file: Path) -> None:
        self.asked_at = 0.0
        self._pid_file = pid_file
        self._before: dict[int, Any] = {}

    @property
    def asked(self) -> bool:
        return self.asked_at > 0

    def __enter__(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._stop)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, *_: object) -> None:
        self.asked_at = self.asked_at or time.monotonic()
        self._ask()

    def _ask(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            os.kill(int(self._pid_file.read_text(encoding="ascii")), signal.SIGTERM)

    def overdue(self) -> bool:
        if self.asked:
            self._ask()  # Again: the signal may have come before the process could take it.
        return self.asked and time.monotonic() - self.asked_at > CANCEL_GRACE_SECONDS


class _Pauses:
    """Tells when a run begins to wait between two steps, and when it goes on."""

    def __init__(self, folder: Path, emit: Callable[[Event], None]) -> None:
        self._waits, self._emit = folder / "waits", emit
        self._told = False

    def look(self) -> None:
        if self._waits.exists() == self._told:
            return
        self._told = not self._told
        if not self._told:
            self._emit(Resumed())
            return
        with contextlib.suppress(FileNotFoundError):
            play = self._waits.read_text(encoding="utf-8")
            self._emit(Paused(step=next((step.number for step in steps.steps() if step.play == play), 0)))


class _Translator:
    """ansible-runner's events, as they come, into ours."""

    def __init__(self, emit: Callable[[Event], None]) -> None:
        self.stats: dict[str, Any] = {}
        self.saw_task = False
        self._emit = emit
        self._lines: list[str] = []
        self._plays = {step.play: step.number for step in steps.steps()}

    def said(self) -> str:
        """The last of what Ansible printed beside its events."""
        return "\n".join(self._lines[-20:]).strip()

    def __call__(self, raw: dict[str, Any]) -> bool:
        """Returns False: nothing of it is to be written to ansible-runner's artifacts."""
        kind, data = str(raw.get("event")), raw.get("event_data") or {}
        if kind == "playbook_on_play_start" and data.get("play") in self._plays:
            self._emit(StepStarted(step=self._plays[data["play"]]))
        elif kind == "playbook_on_stats":
            self.stats = data
        elif kind == "runner_on_start":
            self.saw_task = True
            self._emit(TaskStarted(**self._where(data)))
        elif kind in _STATUS:
            self._emit(self._finished(_STATUS[kind], data))
        elif kind == "verbose" and PROGRESS in str(raw.get("stdout", "")):
            self._emit(Message(level="progress", text=_plain(str(raw["stdout"])).partition(PROGRESS)[2].strip()))
        elif kind in ("warning", "system_warning", "error", "verbose") and (text := _plain(str(raw.get("stdout", "")))):
            self._lines.append(text)
            if kind != "verbose" and (self.saw_task or kind != "error"):
                self._emit(Message(level=kind.removeprefix("system_"), text=text))
        elif kind == "playbook_on_no_hosts_matched":
            self._lines.append("no node matches: the group 'bzzz' of the inventory, or what --limit leaves of it, is empty")
        return False

    def _where(self, data: dict[str, Any]) -> dict[str, Any]:
        return {
            "step": self._plays.get(str(data.get("play")), 0),
            "node": data.get("host", ""),
            "role": str(data.get("role") or "").rpartition(".")[2],
            "task": data.get("task", ""),
        }

    def _finished(self, status: str, data: dict[str, Any]) -> TaskFinished:
        result = data.get("res")
        result = result if isinstance(result, dict) else {}
        if status == "ok" and result.get("changed"):
            status = "changed"
        if status == "failed" and data.get("ignore_errors"):
            status = "ignored"
        diff = result.get("diff") or []
        return TaskFinished(
            **self._where(data),
            status=status,
            seconds=round(float(data.get("duration") or 0), 3),
            message=_explanation(result) if status in ("failed", "unreachable", "ignored") else "",
            changes=_dicts(result.get("changes")),
            diff=_dicts(diff if isinstance(diff, list) else [diff]),
            checks=_dicts(result.get("checks")),
            problems=_dicts(result.get("problems")),
            facts={name: value for name, value in (result.get("ansible_facts") or {}).items() if name.startswith("bzzz_")},
        )


_STATUS = {"runner_on_ok": "ok", "runner_on_failed": "failed", "runner_on_unreachable": "unreachable", "runner_on_skipped": "skipped"}


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _plain(text: str) -> str:
    """Without colours, and without the line breaks that Ansible's terminal of 80 columns put in."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m", "", text).split())


def _explanation(result: dict[str, Any]) -> str:
    """Why a task failed: its message, and what the program it ran said last."""
    if "censored" in result:
        return "the reason is hidden, since it may hold a secret"
    parts = [str(result.get("msg") or "")]
    parts += [str(result.get(name) or "").strip()[-1000:] for name in ("module_stderr", "stderr")]
    parts += [_explanation(item) for item in _dicts(result.get("results")) if item.get("failed")]
    return "\n".join(dict.fromkeys(part for part in parts if part))
