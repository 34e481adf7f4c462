# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How the fact programs look at a machine: its files, its tools and its local HTTP services. Nothing here raises."""

from __future__ import annotations

import itertools
import json
import os
import re
import select
import signal
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

if TYPE_CHECKING:
    from collections.abc import Callable

# sudo and non-login shells often leave these out.
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/rocm/bin:/snap/bin"
OUTPUT_LIMIT = 16 << 20


class Said(NamedTuple):
    """What a tool said. ``code`` is None when it was ended for taking too long (or for saying too much)."""

    code: Optional[int]
    out: str
    err: str


class Machine:
    """One look at a machine.

    payload: ``root`` (where /sys, /proc and /etc hang, default ``/``), ``path`` (where tools are looked for, instead of
    PATH and the system's directories), ``tool_timeout_seconds`` (default 10).
    What could not be read is in ``problems``: a list of ``{message, remedy}``.
    """

    def __init__(self, payload: dict[str, Any]) -> None:
        self.root = Path(payload.get("root") or "/")
        self.path = str(payload.get("path") or os.environ.get("PATH", "") + ":" + SYSTEM_PATH)
        self.timeout = float(payload.get("tool_timeout_seconds") or 10)
        self.problems: list[dict[str, str]] = []

    def problem(self, message: str, remedy: str) -> None:
        self.problems.append({"message": message, "remedy": remedy})

    def read(self, name: str, limit: int = -1) -> str:
        """A file's text without surrounding blanks; "" where there is none or it can't be read."""
        try:
            with (self.root / name).open("rb") as stream:
                return stream.read(limit).decode(errors="replace").strip()
        except OSError:
            return ""

    def integer(self, name: str) -> int | None:
        return integer(self.read(name))

    def names(self, folder: str) -> list[str]:
        """What is in a directory, in natural order (``cpu2`` before ``cpu10``)."""
        try:
            return sorted(os.listdir(self.root / folder), key=natural)
        except OSError:
            return []

    def target(self, name: str) -> str | None:
        """The last part of what a symbolic link points to; in sysfs that is a device's driver."""
        try:
            return os.readlink(self.root / name).rpartition("/")[2]
        except OSError:
            return None

    def which(self, name: str) -> str | None:
        for folder in self.path.split(":"):
            candidate = Path(folder, name)
            if folder and os.access(candidate, os.X_OK) and candidate.is_file():
                return str(candidate)
        return None

    def run(self, *argv: str) -> Said | None:
        """Run a tool with the time-out; None where it isn't installed, and a problem where it hung."""
        program = self.which(argv[0])
        if program is None:
            return None
        environment = {**os.environ, "PATH": self.path, "LC_ALL": "C"}
        said = bounded(lambda: os.execve(program, argv, environment), self.timeout)
        if said.code is None:
            self.problem(
                f"{' '.join(argv)} did not finish within {self.timeout:g} s and was ended",
                f"Run it on the node by hand and look at `dmesg`; if it is only slow, raise detection_tool_timeout_seconds. "
                f"A hung {argv[0]} usually means a driver that needs a reboot.",
            )
        return said


def bounded(work: Callable[[], str], timeout: float) -> Said:
    """Run ``work`` in a child process and return its answer (or output, if it becomes a tool) as ``out``.

    After ``timeout`` seconds the child's whole process group is killed. A child, since neither a library's call nor a process in
    uninterruptible sleep can be ended otherwise. Not the subprocess module: importing that costs as much as everything else here.
    """
    deadline = time.monotonic() + timeout
    reader, writer = os.pipe()
    errors = os.memfd_create("stderr")
    child = os.fork()
    if child == 0:
        failed = 127
        try:
            os.setsid()
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(writer, 1)
            os.dup2(errors, 2)
            said = work().encode(errors="replace")
            while said:
                said = said[os.write(1, said) :]
            failed = 0
        except BaseException as error:
            os.write(2, repr(error).encode(errors="replace"))
        finally:
            os._exit(failed)
    os.close(writer)
    poller = select.poll()
    poller.register(reader, select.POLLIN)
    pieces: list[bytes] = []
    size = 0
    code = None
    while size < OUTPUT_LIMIT:
        left = deadline - time.monotonic()
        if left <= 0 or not poller.poll(left * 1000):
            break
        piece = os.read(reader, 1 << 16)
        if not piece:
            code = _reap(child, deadline)
            break
        pieces.append(piece)
        size += len(piece)
    if code is None:
        try:
            os.killpg(child, signal.SIGKILL)
        except ProcessLookupError:  # it hasn't come to setsid yet
            os.kill(child, signal.SIGKILL)
        _reap(child, time.monotonic() + 0.5)  # one that even SIGKILL doesn't end is left to init
    os.close(reader)
    err = os.pread(errors, 1 << 16, 0)
    os.close(errors)
    return Said(code, b"".join(pieces).decode(errors="replace"), err.decode(errors="replace"))


def _reap(child: int, until: float) -> int | None:
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= until:
            return None
        time.sleep(0.002)


def http_json(address: tuple[str, int] | str, path: str, timeout: float) -> Any:
    """The JSON that ``GET path`` answers at a TCP address or a Unix socket's path; None where nothing sensible answers.

    Not urllib: importing it costs more than all the facts. HTTP/1.0, so that answers come unchunked.
    """
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    deadline = time.monotonic() + timeout
    answer = b""
    try:
        with socket.socket(family, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout)
            connection.connect(address)
            connection.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\nAccept: application/json\r\n\r\n".encode())
            while len(answer) < OUTPUT_LIMIT:
                connection.settimeout(max(deadline - time.monotonic(), 0.001))
                piece = connection.recv(1 << 16)
                if not piece:
                    break
                answer += piece
    except (OSError, ValueError):
        return None
    head, _blank, body = answer.partition(b"\r\n\r\n")
    return json_in(body.decode(errors="replace")) if re.match(rb"HTTP/1\.\d 200 ", head) else None


def json_in(text: str) -> Any:
    """The JSON value in a tool's output, warnings before or after it left aside; None where there is none."""
    for start in itertools.islice(re.finditer(r"^[ \t]*[\[{]", text, re.MULTILINE), 20):
        try:
            return json.JSONDecoder().raw_decode(text, start.end() - 1)[0]
        except (ValueError, RecursionError):
            continue
    return None


def dig(data: object, *keys: str | int) -> Any:
    """``data[k1][k2]…``; None as soon as something on the way isn't there or isn't a mapping or list."""
    for key in keys:
        try:
            data = data[key]  # type: ignore[index]
        except (LookupError, TypeError):
            return None
    return data


def items(data: object, *keys: str | int) -> list[Any]:
    """The list at that place; empty where there is none."""
    found = dig(data, *keys)
    return found if isinstance(found, list) else []


def integer(text: object, base: int = 10) -> int | None:
    """A whole number from a short text; None where it isn't one."""
    try:
        return int(str(text)[:40], base)
    except ValueError:
        return None


def natural(name: str) -> list[tuple[int, str]]:
    """Sorting key: digits by value."""
    return [(int(part[:18]), part) if part.isdecimal() and part.isascii() else (-1, part) for part in re.split(r"([0-9]+)", name)]
