# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Events, and what the report makes of them."""

from __future__ import annotations

import dataclasses

import pytest
from ansible_collections.bzzz.cluster.plugins.module_utils.problems import problem
from hypothesis import given
from hypothesis import strategies as st

from bzzz_setup import events, steps, terminal
from bzzz_setup.events import (
    Event,
    ExitCode,
    Message,
    Paused,
    Resumed,
    RunFinished,
    RunStarted,
    StepStarted,
    TaskFinished,
    TaskStarted,
)
from bzzz_setup.report import Report, gib

EXPECTED = ["detection", "network", "security", "ai", "resources", "services", "formation", "validation"]
text = st.text(st.characters(codec="utf-8"))
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | text, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(text, inner, max_size=2)
)
known = [RunStarted, StepStarted, Paused, Resumed, TaskStarted, TaskFinished, Message, RunFinished]
made = {
    "int": st.integers(),
    "float": st.floats(allow_nan=False, allow_infinity=False),
    "str": text,
    "bool": st.booleans(),
    "list[int]": st.lists(st.integers()),
    "list[str]": st.lists(text),
    "dict[str, Any]": st.dictionaries(text, anything),
    "list[dict[str, Any]]": st.lists(st.dictionaries(text, anything), max_size=2),
    "list[Problem]": st.lists(st.dictionaries(text, anything), max_size=2),
}
any_event = st.sampled_from(known).flatmap(
    lambda kind: st.builds(kind, **{field.name: made[str(field.type)] for field in dataclasses.fields(kind)})
)


def test_every_kind_of_event_is_covered() -> None:
    assert {kind.__name__ for kind in known} == set(Event.kinds)


@given(any_event)
def test_an_event_is_one_line_and_reads_back(event: Event) -> None:
    line = event.to_json()
    assert "\n" not in line
    assert Event.from_json(line) == event


@given(any_event, st.data())
def test_a_line_that_was_cut_off_is_told(event: Event, data: st.DataObject) -> None:
    line = event.to_json()
    with pytest.raises(ValueError):
        Event.from_json(line[: data.draw(st.integers(0, len(line) - 1))])


def test_the_steps_are_the_collections() -> None:
    assert [(step.number, step.slug) for step in steps.steps()] == list(enumerate(EXPECTED, 1))
    assert [step.playbook for step in steps.choose("7")] == ["bzzz.cluster.step_7_formation", "bzzz.cluster.step_8_validation"]
    assert steps.playbooks(steps.choose()) == ["bzzz.cluster.setup"]


FAILED = {"step": 1, "node": "n1", "role": "r", "task": "t", "status": "failed"}
ERROR, WARNING = problem("o", "m", "r"), problem("o", "m", "r", severity="warning")
FAIL, PASS = {"id": "a", "status": "fail"}, {"id": "a", "status": "pass"}


@pytest.mark.parametrize(
    ("tasks", "end", "code"),
    [
        ([], {"returncode": 0}, ExitCode.FINE),
        ([], None, ExitCode.NODES_FAILED),
        ([], {"returncode": 1}, ExitCode.NODES_FAILED),
        ([{"status": "ok"}], {"returncode": -1, "interrupted": True}, ExitCode.INTERRUPTED),
        ([{"problems": [ERROR]}], {"returncode": 2, "failed": ["n1"]}, ExitCode.REFUSED),
        ([{"status": "ok", "problems": [WARNING]}], {"returncode": 0}, ExitCode.FINE),
        ([{"problems": [WARNING]}], {"returncode": 2, "failed": ["n1"]}, ExitCode.NODES_FAILED),
        ([{"checks": [FAIL]}], {"returncode": 2, "failed": ["n1"]}, ExitCode.CHECKS_FAILED),
        ([{"checks": [FAIL]}, {"node": "n2"}], {"returncode": 2, "failed": ["n1", "n2"]}, ExitCode.NODES_FAILED),
        (
            [{"checks": [FAIL]}, {"node": "n2", "status": "unreachable"}],
            {"returncode": 4, "failed": ["n1"], "unreachable": ["n2"]},
            ExitCode.NODES_FAILED,
        ),
        ([{"status": "ignored", "checks": [FAIL]}], {"returncode": 0}, ExitCode.CHECKS_FAILED),
        ([{"status": "ignored", "checks": [FAIL]}, {"status": "ok", "checks": [PASS], "step": 8}], {"returncode": 0}, ExitCode.FINE),
        ([{}], {"returncode": 0}, ExitCode.FINE),  # rescued
        ([{}, {"step": 2, "checks": [FAIL]}], {"returncode": 2, "failed": ["n1"]}, ExitCode.CHECKS_FAILED),  # the first was rescued
    ],
)
def test_exit_codes(tasks: list[dict[str, object]], end: dict[str, object] | None, code: ExitCode) -> None:
    told: list[Event] = [RunStarted(run="r", command="apply", cluster="c", inventory="/i", steps=[1, 2])]
    told += [TaskFinished(**{**FAILED, **task}) for task in tasks]  # type: ignore[arg-type]
    if end is not None:
        told.append(RunFinished(**end))  # type: ignore[arg-type]
    assert Report.of(told).exit_code == code


def test_a_refusal_names_code_and_remedy() -> None:
    refused = events.Refusal("no", "yes", ExitCode.BUSY, option="o")
    assert (refused.code, refused.problems) == (4, [problem("o", "no", "yes")])


@pytest.mark.parametrize(("mib", "said"), [(None, ""), (0, ""), (512, "0.5 GiB"), (15360, "15 GiB"), (81559, "80 GiB")])
def test_gib(mib: float | None, said: str) -> None:
    assert gib(mib) == said


@pytest.mark.parametrize(("seconds", "said"), [(0.04, "0.0 s"), (59.94, "59.9 s"), (60, "1:00"), (3725, "1:02:05")])
def test_clock(seconds: float, said: str) -> None:
    assert terminal.clock(seconds) == said
