# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which requirement is proven by which tests.

``@pytest.mark.requirement("1.1.3")`` says that a test proves the whole of a requirement,
``requirement("T3", part="systemd")`` a part of it. IDs are those of requirements.txt beside this file. A requirement
counts as done when tests of its whole ran and no test that names it failed. The table is printed at the end of a run
and written to build/requirements.json with all tests' names. Runs of pytest that make one whole name a file of their
own by BZZZ_REQUIREMENTS: each adds its tests to it, and the last one's table is of them all.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

TITLES = dict(
    line.rstrip().split(maxsplit=1)
    for line in Path(__file__).with_name("requirements.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
)
WORST_FIRST = ("failed", "skipped", "passed")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "requirement(*ids, part=None): this test proves these requirements, or a part of them")
    config.pluginmanager.register(Requirements(config))


class Requirements:
    """``outcomes`` is {test: passed|failed|skipped}, ``claims`` {test: [(ID, part or None)]}."""

    def __init__(self, config: pytest.Config) -> None:
        self.shared = "BZZZ_REQUIREMENTS" in os.environ
        self.file = config.rootpath / os.environ.get("BZZZ_REQUIREMENTS", "build/requirements.json")
        self.claims: dict[str, list[tuple[str, str | None]]] = {}
        self.outcomes: dict[str, str] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        wrong = []
        for item in items:
            for mark in item.iter_markers("requirement"):
                unknown = [repr(identifier) for identifier in mark.args if identifier not in TITLES]
                if unknown or not mark.args or set(mark.kwargs) - {"part"}:
                    wrong.append(f"{item.nodeid}: {', '.join(unknown) or 'its mark'} is not as tests/requirements.txt knows it")
                self.claims.setdefault(item.nodeid, []).extend((identifier, mark.kwargs.get("part")) for identifier in mark.args)
        if wrong:
            raise pytest.UsageError("wrong requirement:\n" + "\n".join(wrong))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # Setup, call and teardown report one after the other; the worst of them is the test's outcome.
        outcomes = [report.outcome, self.outcomes.get(report.nodeid, "passed")]
        self.outcomes[report.nodeid] = min(outcomes, key=WORST_FIRST.index)

    def rows(self) -> Iterator[tuple[str, str | None, str, list[str]]]:
        """(ID, part or None for the whole, outcome, tests) of what ran, in the order of requirements.txt."""
        tests: dict[tuple[str, str | None], list[str]] = {}
        for test, claims in self.claims.items():
            if test in self.outcomes:
                for claim in dict.fromkeys(claims):
                    tests.setdefault(claim, []).append(test)
        for identifier in TITLES:
            for (claimed, part), named in sorted(tests.items(), key=lambda row: row[0][1] or ""):
                if claimed == identifier:
                    yield identifier, part, min((self.outcomes[test] for test in named), key=WORST_FIRST.index), named

    def document(self) -> dict[str, Any]:
        rows = list(self.rows())
        requirements = []
        for identifier, title in TITLES.items():
            mine = [row for row in rows if row[0] == identifier]
            whole = any(part is None and outcome == "passed" for _, part, outcome, _ in mine)
            failed = any(outcome == "failed" for _, _, outcome, _ in mine)
            state = "failed" if failed else "done" if whole else "in part" if any(row[2] == "passed" for row in mine) else "open"
            proofs = [
                {"part": part, "outcome": outcome, "tests": {test: self.outcomes[test] for test in tests}}
                for _, part, outcome, tests in mine
            ]
            requirements.append({"id": identifier, "title": title, "state": state, "proofs": proofs})
        states = [requirement["state"] for requirement in requirements]
        outcomes = list(self.outcomes.values())
        return {
            "outcomes": self.outcomes,
            "requirements": requirements,
            "states": {state: states.count(state) for state in ("done", "in part", "failed", "open")},
            "tests": {outcome: outcomes.count(outcome) for outcome in ("passed", "failed", "skipped")},
        }

    def absorb(self, document: dict[str, Any]) -> None:
        """Add what another run told."""
        self.outcomes = document["outcomes"] | self.outcomes
        for requirement in document["requirements"]:
            for proof in requirement["proofs"]:
                for test in proof["tests"]:
                    self.claims.setdefault(test, []).append((requirement["id"], proof["part"]))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        self.file.parent.mkdir(exist_ok=True)
        with self.file.open("a+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            if self.shared and (before := file.read()):
                self.absorb(json.loads(before))
            document = self.document()
            file.truncate(0)
            file.write(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
        rows = list(self.rows())
        if not rows:
            return
        terminalreporter.section("requirements")
        for identifier, part, outcome, tests in rows:
            more = f" and {len(tests) - 1} more" if len(tests) > 1 else ""
            scope = f"part: {part}" if part else "whole"
            terminalreporter.line(
                f"{identifier:<7}{TITLES[identifier]:<32.31}{scope:<36.35}{outcome:<9}{tests[0].removeprefix('tests/')}{more}",
                red=outcome == "failed",
                yellow=outcome == "skipped",
            )
        terminalreporter.line(
            ", ".join(f"{count} {state}" for state, count in document["states"].items()) + f" of {len(TITLES)} requirements"
        )
