# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What happens in the cluster, as events: noticed by comparing what the service sees with what it saw before.

An event is ``{id, time, type, event, node, data}``, see docs/node-service.md. ``id`` is ``<life>-<number>``: the life is
this process's, the number grows by one with each event. Events live in memory, the last ``KEPT`` of them.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import secrets
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .checks import FAIL, PASS, Check, published

if TYPE_CHECKING:
    from .service import Service

KEPT = 1000
Record = dict[str, Any]
Change = tuple[str, str, str | None, Record]


@dataclasses.dataclass(frozen=True)
class Seen:
    """What the service saw at one moment. ``members`` is None before the first view of the cluster.

    own: this node's checks by name, the one of its coordination included.
    """

    node: str
    members: Mapping[str, Record] | None
    primary: str | None
    term: int | None
    run: Record | None
    own: Mapping[str, Check]


def changes(before: Seen, after: Seen) -> Iterator[Change]:
    """(type, event, node, data) of everything that differs, losses first."""
    yield from _alerts(after.node, before.own, after.own)
    if after.members is None:
        return
    if before.members is None:
        members = [{**after.members[name], "name": name} for name in sorted(after.members)]
        yield "cluster", "seen", None, {"members": members, "primary": after.primary, "term": after.term, "last_run": after.run}
        return
    old, new = before.members, after.members
    for name in sorted(old.keys() - new.keys()):
        yield "cluster", "member_left", name, {}
    for name in sorted(new.keys() - old.keys()):
        yield "cluster", "member_joined", name, {key: new[name].get(key) for key in ("address", "roles", "version")}
    if before.primary != after.primary:
        yield "cluster", "primary_changed", after.primary, {"from": before.primary, "to": after.primary, "term": after.term}
    for name in sorted(new):
        yield from _node(name, old.get(name) or {}, new[name], after.node)
    if after.run and after.run != before.run:
        yield "run", "recorded", None, after.run


def _node(name: str, old: Record, new: Record, here: str) -> Iterator[Change]:
    if old:
        if old.get("started") != new.get("started"):
            yield "node", "restarted", name, {"started": new.get("started"), "version": new.get("version")}
        if old.get("revision") != new.get("revision"):
            yield "node", "configuration_changed", name, {"from": old.get("revision"), "to": new.get("revision")}
        if (was := bool(old.get("healthy"))) != (is_now := bool(new.get("healthy"))):
            yield "node", "health_changed", name, {"from": PASS if was else FAIL, "to": PASS if is_now else FAIL}
        had, has = _dict(old.get("capabilities")), _dict(new.get("capabilities"))
        if had != has:
            changed = sorted(key for key in had.keys() | has.keys() if had.get(key) != has.get(key))
            yield "node", "capabilities_changed", name, {"first": not had, "changed": changed, "capabilities": has}
    if name != here:  # its own checks are known at first hand
        yield from _alerts(name, published(old), published(new))


def _dict(value: Any) -> Record:
    return value if isinstance(value, dict) else {}


def _alerts(node: str, before: Mapping[str, Check], after: Mapping[str, Check]) -> Iterator[Change]:
    for name in sorted(before.keys() | after.keys()):
        was = before[name].status if name in before else PASS
        # A check that is told of no more is not known to have ended well: only its node's record says so.
        now = after[name].status if name in after else was
        if was != now:
            data = {"check": name, "status": now, "was": was, "message": after[name].message}
            yield "alert", "ended" if now == PASS else "began", node, data


class Journal:
    """The events so far. One thread only: the event loop's."""

    def __init__(self, kept: int = KEPT) -> None:
        self.life = secrets.token_hex(4)
        self.number = 0
        self.counts: collections.Counter[str] = collections.Counter()
        self._texts: collections.deque[str] = collections.deque(maxlen=kept)
        self._seen: Seen | None = None

    @property
    def last_id(self) -> str:
        return f"{self.life}-{self.number}"

    def observe(self, seen: Seen) -> None:
        """Append what has changed since the last call; the first one only takes note."""
        before, self._seen = self._seen, seen
        if before is not None:
            for change in changes(before, seen):
                self.append(*change)

    def append(self, kind: str, event: str, node: str | None, data: Record) -> None:
        self.number += 1
        self.counts[kind] += 1
        document = {"id": self.last_id, "time": utc(), "type": kind, "event": event, "node": node, "data": data}
        self._texts.append(json.dumps(document, ensure_ascii=False))

    def after(self, number: int) -> list[str] | None:
        """The events after this one, as JSON texts; None when some of them are not kept any more, or it is none of ours."""
        missed = self.number - number
        if not 0 <= missed <= len(self._texts):
            return None
        return list(self._texts)[len(self._texts) - missed :]

    def latest(self, number: int) -> list[Record]:
        """The last events, the newest first."""
        return [json.loads(text) for text in reversed(list(self._texts)[-number:])]

    def place(self, last_id: str | None) -> tuple[int, str | None]:
        """Where a client goes on that has seen this id: the number, and why it needs a snapshot; None when it doesn't."""
        if not last_id:
            return self.number, "new"
        life, _, number = last_id.rpartition("-")
        if life != self.life:
            return self.number, "other_life"
        if not (number.isascii() and number.isdigit() and len(number) < 16) or int(number) > self.number:
            return self.number, "unknown_id"
        if self.after(int(number)) is None:
            return self.number, "too_old"
        return int(number), None


def utc() -> str:
    """The time in UTC, to the millisecond."""
    seconds, rest = divmod(time.time_ns() // 1_000_000, 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:03d}Z"


def look(service: Service) -> Seen:
    """What the service sees now."""
    view = service.membership.view if service.membership else None
    own = {check.name: check for check in service.checks() if check.done}
    if view is None:
        return Seen(service.settings.node.name, None, None, None, None, own)
    return Seen(service.settings.node.name, view.members, view.primary, view.term if view.primary else None, view.run, own)
