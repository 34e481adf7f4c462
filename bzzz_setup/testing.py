# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""`bzzz-setup test`: everything that must hold before a change is merged, as CI runs it. Needs the checkout."""

from __future__ import annotations

import functools
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Annotated

import tomllib
import typer

from bzzz_setup import machine, release, terminal
from bzzz_setup.bench import bench as bench  # noqa: PLC0414 - the other command of the test tools
from bzzz_setup.events import Refusal
from bzzz_setup.lab import CHECKOUT
from bzzz_setup.report import clock

RESULTS = CHECKOUT / "build/requirements.json"
LINTERS = {
    "ruff": ["ruff", "check", "."],
    "ruff format": ["ruff", "format", "--check", "."],
    "mypy": ["mypy"],
    "ansible-lint": ["ansible-lint", "--offline", "--strict"],
    "generated files": [sys.executable, "-m", "bzzz_setup.schema", "--check"],
    "changelog": ["antsibull-changelog", "lint"],
    "docs": ["antsibull-docs", "lint-collection-docs", "--plugin-docs", "--validate-collection-refs", "dependent", "."],
    "sanity": [sys.executable, "tests/sanity.py"],
}
# What unit tests run for real, and the Debian packages it is in.
TOOLS = {
    "etcd": "etcd-server",
    "etcdctl": "etcd-client",
    "ssh-keygen": "openssh-client",
    "slapd": "slapd libltdl7 libwrap0 libnsl2 libodbc2",
}
UNPACKED = CHECKOUT / ".cache/tools"
PYTEST = [sys.executable, "-m", "pytest", "--durations=25"]
Stages = queue.SimpleQueue[tuple[str, list[str]]]
# What hangs is named while CI still listens, which it does for 90 minutes; a single test has its own limit (pyproject.toml).
BUDGET_SECONDS = 5250


def test(
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[PYTEST ARGUMENTS]", help="Only pytest, with these; options after --.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also the slow tests.")] = False,
    system: Annotated[
        str, typer.Option("--os", metavar="bookworm|trixie|mixed", help="Debian release of the lab's nodes.", envvar="BZZZ_TEST_OS")
    ] = "mixed",
    fast: Annotated[bool, typer.Option("--fast", help="Linters and unit tests only, without lab nodes.")] = False,
) -> None:
    """Run linters, unit tests and, on lab nodes, the cluster tests."""
    pytest = [*PYTEST, *(["--all"] if everything else [])]
    cluster = [*pytest, "tests/cluster", "-m"]
    # A browser's driver does not share a process with tests that use asyncio.
    first = {"cluster": [*cluster, "not beside and not alone"]}
    rest = LINTERS | {"unit": [*pytest, "tests/unit"], "browser": [*pytest, "tests/ui"]}
    rest |= {"faults": [*cluster, "beside"], "labs": [*cluster, "alone"]}
    if arguments:
        first, rest = {"pytest": [*pytest, *arguments]}, {}
    elif fast:
        first, rest = {}, {name: command for name, command in rest.items() if name in {*LINTERS, "unit"}}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"], *map(str, machine.places(UNPACKED))])
    os.environ |= {"PATH": path, "BZZZ_TEST_OS": system, "BZZZ_REQUIREMENTS": str(RESULTS)}
    RESULTS.unlink(missing_ok=True)
    browser = any("tests/ui" in argument for argument in arguments) if arguments else not fast
    _fetch("test", *(["ui"] if browser else []), *([] if shutil.which("npm") else ["node-js"]))
    deadline = time.monotonic() + BUDGET_SECONDS * (3 if everything else 1)
    with ThreadPoolExecutor() as pool:
        # Linters need nothing of it, and fill the time.
        prepared = pool.submit(_prepare, lab=not fast, browser=browser, ollama=everything and not arguments and not fast)
        stages = Stages()
        for stage in rest.items():
            stages.put(stage)
        # The longest is seen as it goes; whatever else there is prints when it has ended, on the other core and then on both.
        lanes = [pool.submit(_failing, own, stages, deadline, prepared) for own in (first, {})]
        failed = [name for lane in lanes for name in lane.result()]
    outcomes: dict[str, str] = json.loads(RESULTS.read_text(encoding="utf-8"))["outcomes"] if RESULTS.exists() else {}
    bad = [test for test, outcome in outcomes.items() if outcome == "failed"] + [name for name in failed if name in LINTERS]
    passed, skipped = (list(outcomes.values()).count(outcome) for outcome in ("passed", "skipped"))
    if failed:
        typer.secho(f"\nfailed: {', '.join(failed)}", fg="red")
        typer.echo("".join(f"  {one}\n" for one in bad), nl=False)
    typer.echo(f"{passed} passed, {max(len(bad), len(failed))} failed, {skipped} skipped")
    raise typer.Exit(1 if failed else 0)


def _prepare(*, lab: bool, browser: bool, ollama: bool) -> None:
    """Have what tests run beside Python, as far as it can be had here; tests say themselves what they lack."""
    with ThreadPoolExecutor(1) as pool:
        release_made = pool.submit(_build_releases)
        wanted: list[Callable[[], object]] = [functools.partial(machine.unpacked, TOOLS, UNPACKED, typer.echo)]
        wanted += [functools.partial(machine.database, typer.echo)]
        wanted += [functools.partial(machine.prepare, typer.echo)] if lab else []
        wanted += [functools.partial(machine.browser, typer.echo)] if browser else []
        for have in wanted:  # apt does one thing at a time
            try:
                have()
            except Refusal as refused:
                terminal.show_problems(terminal.console(stderr=True), refused.problems)
        release_made.result()
    if ollama:
        # Minutes of compiling in a fresh home; the tests that want it wait for it.
        subprocess.Popen(
            [sys.executable, "tests/cluster/ollama.py"],
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


def _build_releases() -> None:
    try:
        release.build_all()  # once, with pip's own settings, which tests of the front take away
    except release.ReleaseError as error:
        typer.echo(error, err=True)


def _fetch(*extras: str) -> None:
    """Have the Python packages of some of pyproject's extras, by their pins. What lacks is told by the tests themselves."""
    optional = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    have = {f"{found.name.lower()}=={found.version}" for found in metadata.distributions()}
    if missing := [pin for extra in extras for pin in optional[extra] if pin not in have]:
        typer.echo(f"fetching {', '.join(missing)} (pip)…")
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-input", "--disable-pip-version-check", *missing], check=False)


def _failing(own: dict[str, list[str]], stages: Stages, deadline: float, prepared: Future[None]) -> list[str]:
    """Run the lane's own stages, then those that wait; the names of those that failed. All but the linters wait for what they run."""
    failed: list[str] = []
    while True:
        live = bool(own)
        try:
            name, command = own.popitem() if live else stages.get_nowait()
        except queue.Empty:
            return failed
        if name not in LINTERS:
            prepared.result()
        if not _passes(name, command, live, deadline):
            failed.append(name)


def _passes(name: str, command: list[str], live: bool, deadline: float) -> bool:
    head = typer.style(f"\n== {name}", bold=True)
    if live:
        typer.echo(head)
        sys.stdout.flush()
    started = time.monotonic()
    # A file, since a pipe would wait for whatever a test has left running. A debugger of pytest asks on the terminal.
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as told:
        given, out, error = (None, None, None) if live else (subprocess.DEVNULL, told, subprocess.STDOUT)
        try:
            left = max(1.0, deadline - started)
            code = subprocess.run(command, cwd=CHECKOUT, stdin=given, stdout=out, stderr=error, check=False, timeout=left).returncode
            end = "failed" if code else "passed"
        except subprocess.TimeoutExpired:
            code, end = 1, "stopped, since it did not end,"
        told.seek(0)
        if not live:
            typer.echo(f"{head}\n{told.read()}")
    typer.secho(f"== {name}: {end} in {clock(time.monotonic() - started)}", fg="red" if code else "green")
    sys.stdout.flush()
    return not code
