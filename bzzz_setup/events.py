# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the front's parts tell each other: exit codes, refusals and the events of a run."""

from __future__ import annotations

import enum
import json
import time
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from ansible_collections.bzzz.cluster.plugins.module_utils.problems import Problem, problem


class ExitCode(enum.IntEnum):
    FINE = 0
    CHECKS_FAILED = 1
    REFUSED = 2
    NODES_FAILED = 3
    BUSY = 4
    INTERRUPTED = 130


class Refusal(Exception):
    """The command cannot go on. Shown as problems with their remedies, never as a traceback."""

    def __init__(self, message: str, remedy: str, code: ExitCode = ExitCode.REFUSED, *, option: str = "", node: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.problems = [problem(option, message, remedy, node=node)]


@dataclass(kw_only=True)
class Event:
    """`at` is seconds since the epoch. One event is one line of events.jsonl."""

    at: float = field(default_factory=time.time)
    kinds: ClassVar[dict[str, type[Event]]] = {}

    def __init_subclass__(cls) -> None:
        Event.kinds[cls.__name__] = cls

    def to_json(self) -> str:
        return json.dumps({"event": type(self).__name__, **asdict(self)}, ensure_ascii=False)

    @staticmethod
    def from_json(line: str) -> Event:
        """Raises ValueError for a line that is cut off, KeyError or TypeError for one that is no event."""
        data = json.loads(line)
        return Event.kinds[data.pop("event")](**data)


@dataclass(kw_only=True)
class RunStarted(Event):
    run: str
    command: str
    cluster: str
    inventory: str
    steps: list[int]
    # What the front itself has found in the inventory's files.
    problems: list[Problem] = field(default_factory=list)


@dataclass(kw_only=True)
class StepStarted(Event):
    step: int


@dataclass(kw_only=True)
class Paused(Event):
    """The run waits, as it was asked to, before this step."""

    step: int


@dataclass(kw_only=True)
class Resumed(Event):
    """It goes on."""


@dataclass(kw_only=True)
class TaskStarted(Event):
    """`step` is 0 for a play that is none of the eight steps."""

    step: int
    node: str
    role: str
    task: str


@dataclass(kw_only=True)
class TaskFinished(Event):
    """`status`: ok, changed, failed, unreachable, skipped or ignored (failed, and allowed to)."""

    step: int
    node: str
    role: str
    task: str
    status: str
    seconds: float = 0.0
    message: str = ""
    changes: list[dict[str, Any]] = field(default_factory=list)
    diff: list[dict[str, Any]] = field(default_factory=list)
    checks: list[dict[str, Any]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class Message(Event):
    """What Ansible itself has to say. `level`: warning or error; or progress, how far a long task is."""

    level: str
    text: str


@dataclass(kw_only=True)
class RunFinished(Event):
    """`failed` and `unreachable` name the nodes that Ansible gave up; `returncode` is ansible-playbook's."""

    returncode: int
    failed: list[str] = field(default_factory=list)
    unreachable: list[str] = field(default_factory=list)
    interrupted: bool = False
