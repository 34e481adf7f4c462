# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Membership by lease, and election of the primary coordinator.

Each node keeps a lease in etcd; under it lie its record, ``nodes/<name>``, and, at one coordinator, ``primary``. A
node that falls silent loses both with the lease.

Never two primaries: a claim holds only while, by this node's own clock, less than two thirds of the lease have passed
since the last renewal and since the last majority-confirmed read were *sent*. etcd ends the lease no earlier than a
whole lease after the renewal arrived; the third between the two is margin for an etcd leader that was cut off and
renewed once more before it noticed. Who wants to resign stops claiming first and deletes the key then.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from .store import Entry, Unavailable

log = logging.getLogger(__name__)

PRIMARY = "primary"
NODES = "nodes/"
RUN = "run"
NOT_ASKED = "etcd has not been asked yet"
Record = dict[str, Any]


def clock() -> float:
    """Seconds that no clock jump moves and that go on while the machine sleeps: etcd's leases do, too."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Store(Protocol):
    """What membership asks of etcd, see ``etcd.Store``."""

    def grant(self, seconds: int) -> int: ...
    def keep_alive(self, lease: int) -> bool: ...
    def revoke(self, lease: int) -> None: ...
    def put(self, key: str, value: str, lease: int) -> None: ...
    def create(self, key: str, value: str, lease: int) -> None: ...
    def delete(self, key: str, created: int) -> None: ...
    def read(self) -> dict[str, Entry]: ...
    def connect(self) -> None: ...


@dataclasses.dataclass(frozen=True)
class View:
    """The cluster as last read. ``term`` is the revision at which the primary was elected: it only grows.

    run: what the last set-up run that validated the cluster left there, see ``plugins/modules/run_record.py``.
    """

    members: Mapping[str, Record]
    primary: str | None
    term: int
    at: float
    run: Record | None = None


@dataclasses.dataclass(frozen=True)
class _Claim:
    term: int
    until: float


def eligible(members: Mapping[str, Record], preferred: str | None) -> set[str]:
    """Who may be primary: the preferred coordinator when it is healthy, else any healthy one, else any."""
    coordinators = {name for name, record in members.items() if "coordinator" in record.get("roles", ())}
    healthy = {name for name in coordinators if members[name].get("healthy")}
    return healthy & {preferred} or healthy or coordinators


class Membership:
    """This node's part in the cluster. ``step`` does one round; ``start`` runs rounds in a thread of their own.

    record: called each round for what this node publishes; ``roles`` and ``healthy`` in it matter to the election.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        lease_seconds: int,
        preferred: str | None,
        record: Callable[[], Record],
        now: Callable[[], float] = clock,
    ) -> None:
        self._store = store
        self._name = name
        self._ttl = lease_seconds
        self._preferred = preferred
        self._record = record
        self._now = now
        self._lease: int | None = None
        self._renewed = 0.0
        self._resigned = 0
        self._claim: _Claim | None = None
        self._view: View | None = None
        self._reason: str | None = NOT_ASKED
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="membership", daemon=True)
        self.last_step = now()
        self.elections = 0

    # Read from other threads: each is one look at an attribute that is replaced whole.

    @property
    def view(self) -> View | None:
        """The last view, however old: see ``reason``."""
        return self._view

    @property
    def term(self) -> int | None:
        """The term this node is primary in, by its own clock and now; None when it is not."""
        claim = self._claim
        return claim.term if claim and self._now() < claim.until else None

    @property
    def reason(self) -> str | None:
        """Why this node is no working member now; None when it is one."""
        view = self._view
        if view is None or (self._reason is not None and self._now() - view.at >= self._ttl * 2 / 3):
            return self._reason
        if self._now() - view.at >= self._ttl:
            return "etcd has not answered for a whole lease"
        return None

    @property
    def period(self) -> float:
        """Seconds between two rounds."""
        return min(1.0, self._ttl / 6)

    def step(self) -> None:
        """One round: renew the lease, read the cluster, correct this node's record, take or give up the primary's key."""
        self.last_step = self._now()
        try:
            self._renew()
            view, entries = self._read()
            for _ in range(3):  # at most: record, resignation or election, and a look at the outcome
                if not self._correct(view, entries):
                    break
                view, entries = self._read()
            if self._reason is not None:
                log.info("member of the cluster: %d nodes, primary %s", len(view.members), view.primary)
            self._reason = None
        except Unavailable as error:
            if self._reason != str(error):
                log.warning("%s", error)
            self._reason = str(error)

    def _renew(self) -> None:
        now = self._now()
        if self._lease is not None and now - self._renewed >= self._ttl / 3:
            if self._store.keep_alive(self._lease):
                self._renewed = now
            else:
                log.warning("the lease has ended at etcd: registering anew")
                self._lease = self._claim = None
        if self._lease is None:
            now = self._now()
            self._lease = self._store.grant(self._ttl)
            self._renewed = now

    def _read(self) -> tuple[View, dict[str, Entry]]:
        at = self._now()
        entries = self._store.read()
        members = {key[len(NODES) :]: _decode(key, entry) for key, entry in entries.items() if key.startswith(NODES)}
        key = entries.get(PRIMARY)
        run = _decode(RUN, entries[RUN]) if RUN in entries else None
        view = View(members, key.value.decode(errors="replace") if key else None, key.created if key else 0, at, run or None)
        before = self._view
        self._view = view
        if key and key.lease == self._lease and key.created != self._resigned and not self._stop.is_set():
            if self._claim is None or self._claim.term != key.created:
                log.info("primary coordinator, term %d", key.created)
                self.elections += 1
            self._claim = _Claim(key.created, min(at, self._renewed) + self._ttl * 2 / 3)
        else:
            if self._claim is not None:
                log.info("no longer primary coordinator")
            self._claim = None
        if before is None or before.primary != view.primary:
            log.info("primary coordinator is %s", view.primary or "nobody")
        return view, entries

    def _correct(self, view: View, entries: dict[str, Entry]) -> bool:
        """Write what differs from what should be; True when something was written."""
        assert self._lease is not None
        record = self._record()
        mine = entries.get(NODES + self._name)
        if mine is None or mine.lease != self._lease or view.members[self._name] != record:
            if mine is not None and mine.lease != self._lease:
                log.warning("a record of %s under another lease is replaced: a restart, or two nodes of one name", self._name)
            self._store.put(NODES + self._name, json.dumps(record, sort_keys=True), self._lease)
            return True
        may = self._name in eligible(view.members, self._preferred)
        key = entries.get(PRIMARY)
        if key is None and may:
            self._store.create(PRIMARY, self._name, self._lease)
            return True
        if key is not None and key.lease == self._lease and (not may or key.created == self._resigned):
            log.info("giving up the primary's place")
            # In this order: a deletion that times out may still happen later.
            self._resigned = key.created
            self._claim = None
            self._store.delete(PRIMARY, key.created)
            return True
        return False

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.step()
            except Exception:
                # Anything unforeseen must not end membership silently: the claim lapses, the next round tries again.
                log.exception("a round of membership failed")
                self._reason = "a round of membership failed: see the service's log"
            self._stop.wait(self.period)

    def stop(self) -> None:
        """Step down, and end the lease so that peers see it at once."""
        self._stop.set()
        self._claim = None
        if self._thread.is_alive():
            self._thread.join(min(self._ttl, 10))
        self._claim = None  # a round that was under way may have claimed again
        if self._lease is not None and not self._thread.is_alive():
            try:
                self._store.revoke(self._lease)
            except Unavailable as error:
                log.info("the lease could not be revoked and will run out: %s", error)
            self._lease = None


def _decode(key: str, entry: Entry) -> Record:
    try:
        record = json.loads(entry.value)
    except ValueError:
        record = None
    if not isinstance(record, dict):
        log.warning("%s holds no record", key)
        return {}
    return record
