# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Checks of a node's health, and what they say about the node."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

PASS, WARN, FAIL = "pass", "warn", "fail"


@dataclasses.dataclass(frozen=True)
class Check:
    """One thing that health depends on.

    ready: whether failing it makes the node unfit for work; done: whether it has been looked at yet; public: whether it is told to
    whom nobody knows.
    """

    name: str
    status: str
    message: str
    ready: bool = True
    done: bool = True
    public: bool = True


def worst(statuses: Iterable[str]) -> str:
    found = set(statuses)
    return FAIL if FAIL in found else WARN if WARN in found else PASS


def publish(checks: Iterable[Check]) -> list[dict[str, str]]:
    """Checks as a member's record tells them: what passes has nothing to say, since that may change by the second."""
    return [
        {"name": check.name, "status": check.status, "message": "" if check.status == PASS else check.message}
        for check in checks
        if check.done
    ]


def published(record: dict[str, Any]) -> dict[str, Check]:
    """The checks that a member's record tells of, by name; one of another release may tell of none."""
    told = record.get("checks")
    return {
        str(each["name"]): Check(str(each["name"]), each["status"], str(each.get("message", "")))
        for each in (told if isinstance(told, list) else [])
        if isinstance(each, dict) and "name" in each and each.get("status") in (PASS, WARN, FAIL)
    }


def health(record: dict[str, Any]) -> str:
    """The health of the member with this record."""
    return worst(check.status for check in published(record).values()) if record.get("healthy") else FAIL
