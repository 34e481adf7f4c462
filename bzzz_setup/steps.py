# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The eight steps, read from the collection's playbooks."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

import yaml

from bzzz_setup import paths
from bzzz_setup.events import Refusal

_FILE = re.compile(r"step_(\d+)_(\w+)\.yml")


@dataclass(frozen=True)
class Step:
    """`play` is the name by which Ansible's events tell the step."""

    number: int
    slug: str
    title: str
    play: str
    playbook: str


@functools.cache
def steps() -> tuple[Step, ...]:
    """All steps in order. Raises Refusal when the collection holds none."""
    found = []
    for file in (paths.collection() / "playbooks").glob("step_*.yml"):
        if match := _FILE.fullmatch(file.name):
            play = yaml.safe_load(file.read_text(encoding="utf-8"))[0]["name"]
            title = play.partition(": ")[2] or match[2].replace("_", " ")
            found.append(Step(int(match[1]), match[2], title[:1].upper() + title[1:], play, f"bzzz.cluster.{file.stem}"))
    if not found:
        raise Refusal("the collection holds no steps", "Install it again: its playbooks are missing.")
    return tuple(sorted(found, key=lambda step: step.number))


def find(name: str) -> Step:
    """The step of this number or name ("2", "network"). Raises Refusal."""
    for step in steps():
        if name.lower() in (str(step.number), step.slug, step.title.lower()):
            return step
    known = ", ".join(f"{step.number} {step.slug}" for step in steps())
    raise Refusal(f"there is no step '{name}'", f"Name one of: {known}.", option="step")


def choose(start: str | None = None, only: list[str] | None = None) -> tuple[Step, ...]:
    """The steps to run, in order: from `start` on, or only those named. Raises Refusal."""
    if start and only:
        raise Refusal("--from and --only exclude each other", "Give one of them.", option="step")
    if only:
        wanted = {find(name) for given in only for name in given.split(",")}
        return tuple(step for step in steps() if step in wanted)
    first = find(start).number if start else 1
    return tuple(step for step in steps() if step.number >= first)


def playbooks(chosen: tuple[Step, ...]) -> list[str]:
    """Fully qualified names of the playbooks that run these steps."""
    return ["bzzz.cluster.setup"] if chosen == steps() else [step.playbook for step in chosen]
