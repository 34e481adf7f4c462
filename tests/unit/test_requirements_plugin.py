# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import json
from typing import Any

import pytest


def run(pytester: pytest.Pytester, source: str) -> tuple[pytest.RunResult, dict[str, Any]]:
    pytester.makepyfile(f"import pytest\nrequirement = pytest.mark.requirement\n{source}")
    result = pytester.runpytest_subprocess("-p", "requirements_plugin", "--strict-markers")
    file = pytester.path / "build/requirements.json"
    document = json.loads(file.read_text()) if file.exists() else {}
    return result, {entry["id"]: entry for entry in document.get("requirements", [])}


@pytest.fixture(autouse=True)
def _plugin_is_found(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setenv("PYTHONPATH", str(request.config.rootpath / "tests"))
    monkeypatch.delenv("BZZZ_REQUIREMENTS", raising=False)  # names where this run's own results go


def test_whole_part_failed_and_open_are_told_apart(pytester: pytest.Pytester) -> None:
    result, found = run(
        pytester,
        """
@requirement("1.1.1", "1.1.2")
def test_both(): pass

@requirement("T3", part="systemd")
def test_a_part(): pass

@requirement("L1")
def test_good(): pass

@requirement("L1", part="masks")
def test_bad(): assert False

@requirement("L2")
@pytest.mark.skip
def test_left_out(): pass
""",
    )
    states = {identifier: entry["state"] for identifier, entry in found.items()}
    assert [states[i] for i in ("1.1.1", "1.1.2", "T3", "L1", "L2", "L3")] == ["done", "done", "in part", "failed", "open", "open"]
    assert found["T3"]["proofs"][0]["part"] == "systemd"
    result.stdout.fnmatch_lines(["*2 done, 1 in part, 1 failed, * open*"])


def test_a_failing_clean_up_is_a_failure(pytester: pytest.Pytester) -> None:
    _, found = run(
        pytester,
        """
@pytest.fixture
def thing():
    yield
    raise OSError

@requirement("1.1.1")
def test_it(thing): pass
""",
    )
    assert found["1.1.1"]["state"] == "failed"


@pytest.mark.parametrize("mark", ['requirement("9.9.9")', "requirement()", 'requirement("1.1.1", piece="x")'])
def test_a_mark_that_names_nothing_known_stops_the_run(pytester: pytest.Pytester, mark: str) -> None:
    result, _ = run(pytester, f"@{mark}\ndef test_it(): pass\n")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*wrong requirement*"])


def test_runs_of_one_whole_add_up(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BZZZ_REQUIREMENTS", "build/whole.json")
    good = '@requirement("1.1.1")\ndef test_it(): pass'
    bad = '@requirement("L1", part="x")\ndef test_it(): assert False'
    for name, source in (("one", good), ("two", bad)):
        path = pytester.makepyfile(**{f"test_{name}": f"import pytest\nrequirement = pytest.mark.requirement\n{source}"})
        result = pytester.runpytest_subprocess("-p", "requirements_plugin", path)
    result.stdout.fnmatch_lines(["1.1.1 *passed*", "L1 *failed*"])
    document = json.loads((pytester.path / "build/whole.json").read_text())
    assert document["tests"] == {"passed": 1, "failed": 1, "skipped": 0}
