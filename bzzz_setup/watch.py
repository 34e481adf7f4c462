# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The cluster as it is now, and what happens in it, as its coordinators tell: `bzzz-setup watch`.

By SSH, as everything else: no further port has to be open, and no token leaves the coordinators.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from bzzz_setup import cli, paths, run, terminal
from bzzz_setup.declaration import Declaration
from bzzz_setup.events import ExitCode, Refusal
from bzzz_setup.report import Report, gib, number

LOOK_SECONDS = 0.1
AGAIN_SECONDS, AGAIN_MOST_SECONDS = 5, 60
PLAYBOOK = "bzzz.cluster.watch"


def watch(inventory: cli.InventoryOption = None, as_json: cli.JsonOption = False) -> None:
    """Show the cluster as it is and what happens in it, until Ctrl-C. --json: a JSON object a line, see docs/node-service.md."""
    with cli._command(inventory, as_json) as call:
        folder = paths.inventory(call.inventory)
        tell = _print if call.as_json else Shown()
        wait = AGAIN_SECONDS
        while True:
            report, heard = followed(folder, tell)
            if report.exit_code == ExitCode.INTERRUPTED:
                return
            said = "; ".join(dict.fromkeys(f"{failure['node']}: {failure['message']}" for failure in report.failures))
            said = said or "; ".join(one["message"] for one in report.problems)
            if report.exit_code == ExitCode.REFUSED or not report.failures:
                refused = Refusal(said or "no coordinator can be asked", "See that the group coordinators is not empty.")
                refused.problems = report.problems or refused.problems
                raise refused
            tell({"type": "away", "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "data": {"message": said}})
            wait = AGAIN_SECONDS if heard else min(AGAIN_MOST_SECONDS, 2 * wait)
            time.sleep(wait)


def followed(folder: Path, tell: Callable[[dict[str, Any]], None]) -> tuple[Report, bool]:
    """Hand on each line that coordinators tell, until none of them can be asked any more or somebody interrupts.

    Returns what became of it, and whether anything was told.
    """
    report, heard = Report(), threading.Event()

    def take(line: dict[str, Any]) -> None:
        heard.set()
        tell(line)

    with tempfile.TemporaryDirectory(prefix="bzzz-watch-") as scratch:
        feed = Path(scratch, "feed")
        feed.touch(mode=0o600)
        over = threading.Event()
        reading = threading.Thread(target=_hand_on, args=(feed, over, take), daemon=True)
        reading.start()
        unlocks = "ansible_ssh_private_key" in Declaration.read(folder).options
        variables = {"watch_feed": str(feed)}
        job = run.Job("watch", folder, [PLAYBOOK], journal=False, patient=True, unlocks=unlocks, variables=variables)
        try:
            run.execute(job, report.add)
        finally:
            over.set()
            reading.join(5)
    return report, heard.is_set()


def _hand_on(feed: Path, over: threading.Event, tell: Callable[[dict[str, Any]], None]) -> None:
    for line in _lines(feed, over):
        try:
            tell(line)
        except BrokenPipeError:
            # Whoever has read them is gone.
            os.kill(os.getpid(), signal.SIGINT)
            return


def _lines(feed: Path, over: threading.Event) -> Iterator[dict[str, Any]]:
    with feed.open(encoding="utf-8") as stream:
        begun = ""
        while True:
            last = over.is_set()
            begun += stream.readline()
            if begun.endswith("\n"):
                with contextlib.suppress(ValueError):
                    yield json.loads(begun)
                begun = ""
            elif last:
                return
            else:
                over.wait(LOOK_SECONDS)


def _print(line: dict[str, Any]) -> None:
    print(json.dumps(line, ensure_ascii=False), flush=True)


class Shown:
    """For people: a table of the nodes whenever it is another one, and a line an event."""

    def __init__(self) -> None:
        self._out = terminal.console()
        self._before: list[tuple[str, ...]] = []

    def __call__(self, line: dict[str, Any]) -> None:
        if line["type"] == "snapshot":
            rows = [_row(member) for member in line["data"]["cluster"]["members"]]
            if rows != self._before:
                self._before = rows
                self._table(line["data"]["cluster"], rows)
        elif line["type"] == "away":
            self._out.print(f"[yellow]![/] {escape(line['data']['message'])}", highlight=False)
        elif line["type"] not in ("quiet", "resumed"):
            about = " ".join(f"{key}={value}" for key, value in line["data"].items() if isinstance(value, (str, int, float)))
            told = f"{line['time'][11:19]} {line.get('node') or ''} {line['event']} {about}"
            self._out.print(escape(" ".join(told.split())), highlight=False)

    def _table(self, cluster: dict[str, Any], rows: list[tuple[str, ...]]) -> None:
        table = Table(box=None, pad_edge=False)
        for head in ("Node", "Address", "Role", "Health", "Memory", "GPUs", "Models"):
            table.add_column(head)
        for row in rows:
            table.add_row(*map(escape, row))
        self._out.print(table)
        if cluster["reason"]:
            self._out.print(f"[yellow]![/] As last seen: {escape(cluster['reason'])}", highlight=False)


def _row(member: dict[str, Any]) -> tuple[str, ...]:
    has = member.get("capabilities") or {}
    role = "primary coordinator" if member["primary"] else ", ".join(member.get("roles", []))
    models = (has.get("ollama") or {}).get("models", [])
    gpus = ", ".join(str(gpu.get("model", "GPU")) for gpu in has.get("gpus", []))
    memory = gib(number(has.get("memory_total_mib")))
    return (member["name"], str(member.get("address", "")), role, member["health"], memory, gpus, ", ".join(models))
