# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Every call and what it cost, in SQLite (one gateway) or PostgreSQL (several).

A call is one row, whose state tells what it counts for:

    reserved  under way: its upper estimate is held against every limit
    spent     answered: its cost
    free      refused by the provider: nothing
    unknown   nobody heard how it ended: its upper estimate is held until the provider has told (``resolve``)

What counts is changed in the transaction that changes the row, and one writer at a time does that, so that nothing is lost or counted
twice. A call that a gateway had under way when it died becomes unknown: it may have been answered, and what may have been spent
must not be spent again.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import logging
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Engine

from .budgets import EVERY, PERIODS, Budgets, Limit, Period, Scope, period_of, scopes_of

log = logging.getLogger(__name__)
T = TypeVar("T")

RESERVED, SPENT, FREE, UNKNOWN = "reserved", "spent", "free", "unknown"
_LOCK = 0x62_7A_7A_7A  # of PostgreSQL, for whoever writes here
# PostgreSQL's connections, where the URL does not say otherwise: over TLS that is verified, and none that waits for ever for a server
# that does not answer, or holds the lock from a machine that is gone.
CONNECTION: dict[str, Any] = {
    "sslmode": "verify-full",
    "sslrootcert": "/etc/ssl/certs/ca-certificates.crt",
    "connect_timeout": 5,
    "tcp_user_timeout": 15000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
}
RETRY_SECONDS = 1.0

metadata = sa.MetaData()
_text = sa.String(255)
calls = sa.Table(
    "calls",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("at_ms", sa.BigInteger, nullable=False),  # UTC, as all times here
    sa.Column("user", _text, nullable=False),
    sa.Column("project", _text, nullable=False),
    sa.Column("task", _text, nullable=False),
    sa.Column("model", _text, nullable=False),
    sa.Column("provider", _text, nullable=False, default=""),
    sa.Column("deployment", _text, nullable=False, default=""),
    sa.Column("organization", _text, nullable=False, default=""),
    sa.Column("openai_project", _text, nullable=False, default=""),
    sa.Column("gateway", _text, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("status", _text, nullable=False, default=""),
    sa.Column("tokens_in", sa.BigInteger, nullable=False, default=0),
    sa.Column("tokens_out", sa.BigInteger, nullable=False, default=0),
    sa.Column("tokens_cached", sa.BigInteger, nullable=False, default=0),
    sa.Column("estimate_nano", sa.BigInteger, nullable=False),
    sa.Column("cost_nano", sa.BigInteger, nullable=False, default=0),
    sa.Column("latency_ms", sa.BigInteger, nullable=False, default=0),
    sa.Column("settled_ms", sa.BigInteger, nullable=False, default=0),
    sa.Index("calls_at", "at_ms"),
    sa.Index("calls_state", "state"),
)
# What each scope has spent and what is held for it, by period; always the sums of the calls.
totals = sa.Table(
    "totals",
    metadata,
    sa.Column("period", sa.String(8), primary_key=True),
    sa.Column("start_ms", sa.BigInteger, primary_key=True),
    sa.Column("kind", sa.String(8), primary_key=True),
    sa.Column("name", sa.String(511), primary_key=True),
    sa.Column("spent_nano", sa.BigInteger, nullable=False),
    sa.Column("held_nano", sa.BigInteger, nullable=False),
)
warnings = sa.Table(
    "warnings",
    metadata,
    sa.Column("period", sa.String(8), primary_key=True),
    sa.Column("start_ms", sa.BigInteger, primary_key=True),
    sa.Column("kind", sa.String(8), primary_key=True),
    sa.Column("name", sa.String(511), primary_key=True),
    sa.Column("percent", sa.Integer, primary_key=True),
    sa.Column("at_ms", sa.BigInteger, nullable=False),
)

# Made once: building a statement costs more than running it.
_by_id = sa.select(calls).where(calls.c.id == sa.bindparam("call"))
_BLANK: dict[str, Any] = dict.fromkeys(("provider", "deployment", "organization", "openai_project", "status"), "")
_BLANK |= dict.fromkeys(("tokens_in", "tokens_out", "tokens_cached", "cost_nano", "latency_ms", "settled_ms"), 0)
_forget = sa.delete(calls).where(calls.c.id == sa.bindparam("call"))
_update = (
    sa.update(calls)
    .where(calls.c.id == sa.bindparam("call"))
    .values(
        {name: sa.bindparam(f"new_{name}") for name in ("state", "status", "tokens_in", "tokens_out", "tokens_cached", "cost_nano")}
        | {
            name: sa.bindparam(f"new_{name}")
            for name in ("latency_ms", "settled_ms", "provider", "deployment", "organization", "openai_project")
        }
    )
)
_key = (totals.c.period, totals.c.start_ms, totals.c.kind, totals.c.name)
_used = sa.select(*_key, totals.c.spent_nano, totals.c.held_nano).where(
    sa.or_(
        *(
            sa.and_(totals.c.period == period, totals.c.start_ms == sa.bindparam(f"start_{period}"))
            & sa.or_(
                *(sa.and_(totals.c.kind == kind, totals.c.name == sa.bindparam(kind)) for kind in ("all", "user", "project", "member"))
            )
            for period in PERIODS
        )
    )
)


_record: Any = collections.namedtuple  # of names that no type checker can know


class _Prepared:
    """A statement as the driver takes it, given to the driver itself: SQLAlchemy's way there and back takes longer than SQLite does.

    Raises SQLAlchemy's own errors where the database does not answer.
    """

    def __init__(self, statement: sa.sql.Executable, dialect: sa.Dialect) -> None:
        compiled: Any = statement.compile(dialect=dialect)  # type: ignore[attr-defined]
        self._sql, self._fixed, self._order = str(compiled), compiled.params, compiled.positiontup
        driver: Any = dialect.dbapi
        self._away = driver.OperationalError, driver.InterfaceError
        self._row = _record("Row", [each.name for each in getattr(statement, "selected_columns", ())])

    def __call__(self, connection: Connection, *rows: Mapping[str, Any]) -> int:
        """How many rows it has changed."""
        return int(self._run(connection, rows).rowcount)

    def find(self, connection: Connection, row: Mapping[str, Any]) -> list[Any]:
        """The rows that it has found."""
        return list(map(self._row._make, self._run(connection, (row,)).fetchall()))

    def _run(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> Any:
        whole = [{**self._fixed, **row} for row in rows]
        given: Any = [[row[name] for name in self._order] for row in whole] if self._order else whole
        driver: Any = connection.connection.driver_connection
        try:
            cursor = driver.cursor()
            if len(given) > 1:
                cursor.executemany(self._sql, given)
            else:
                cursor.execute(self._sql, given[0])
        except self._away as error:
            raise sa.exc.OperationalError(self._sql, None, error) from error
        return cursor


@dataclasses.dataclass(frozen=True)
class Call:
    """A call that is to be made. ``estimate_nano``: the most that it can cost."""

    id: str
    user: str
    project: str
    task: str
    model: str
    estimate_nano: int
    provider: str = ""
    deployment: str = ""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a call ended."""

    cost_nano: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0
    latency_ms: int = 0
    status: str = "ok"
    provider: str = ""
    deployment: str = ""
    organization: str = ""
    openai_project: str = ""


@dataclasses.dataclass(frozen=True)
class Refused:
    """The limit that a call would break; used: what is spent and held of it; warned: thresholds that nobody was told of yet."""

    limit: Limit
    used: int
    period: Period
    warned: tuple[Warned, ...] = ()


@dataclasses.dataclass(frozen=True)
class Warned:
    """A threshold that was reached for the first time in a period."""

    limit: Limit
    percent: int
    spent: int
    period: Period


def own_name(gateway: str) -> str:
    """This process, never to be mistaken for another: number and start, in the kernel's count."""
    return f"{gateway} {os.getpid()} {_started(os.getpid())}"


def _started(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _lives(name: str) -> bool:
    _, pid, started = name.rsplit(" ", 2)
    return pid.isdecimal() and _started(int(pid)) == started != ""


class Ledger:
    """Everything here blocks; ``Writer`` does it for an event loop. ``now``: seconds since 1970, UTC."""

    def __init__(self, url: str, budgets: Budgets, gateway: str = "", now: Callable[[], float] = time.time) -> None:
        self.budgets = budgets
        self.gateway = gateway or socket.gethostname()
        self.process = own_name(self.gateway)
        self.now = now
        self._periods: dict[str, Period] = {}
        self._told: set[tuple[str, int, str, str, int]] = set()
        self._limits: dict[tuple[str, str], list[Limit]] = {}
        self.engine = _engine(url)
        insert: Any = sqlite.insert if self.engine.dialect.name == "sqlite" else postgresql.insert
        row = insert(totals)
        add = row.on_conflict_do_update(
            index_elements=["period", "start_ms", "kind", "name"],
            set_={name: totals.c[name] + row.excluded[name] for name in ("spent_nano", "held_nano")},
        )
        new = insert(calls).on_conflict_do_nothing(index_elements=["id"])
        warn = insert(warnings).on_conflict_do_nothing()
        self._add, self._new, self._warn, self._forget, self._find, self._update, self._used = (
            _Prepared(each, self.engine.dialect) for each in (add, new, warn, _forget, _by_id, _update, _used)
        )

    def close(self) -> None:
        self.engine.dispose()

    @contextlib.contextmanager
    def transaction(self, kept: Connection | None = None) -> Iterator[Connection]:
        """The only one that writes, as long as it lasts. kept: a connection that is used again."""
        with (
            kept.begin() if kept else contextlib.nullcontext(),
            contextlib.nullcontext(kept) if kept else self.engine.begin() as connection,
        ):
            assert connection
            if self.engine.dialect.name == "postgresql":
                connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
            yield connection

    def start(self) -> int:
        """Make the tables where there are none, and tell what earlier processes of this gateway left: how many calls became unknown."""
        if self.engine.dialect.name == "postgresql":
            with self.transaction() as connection:
                metadata.create_all(connection)
        else:
            metadata.create_all(self.engine)
        with self.transaction() as connection:
            rows = connection.execute(sa.select(calls.c.id, calls.c.gateway).where(calls.c.state == RESERVED)).all()
            mine = [row for row in rows if row.gateway.rsplit(" ", 2)[0] == self.gateway]
            dead = [row.id for row in mine if not _lives(row.gateway)]
            for each in dead:
                self.lose(connection, each, "gateway died")
        return len(dead)

    def take_over(self, former: Path) -> int:
        """Bring the calls of a gateway's own SQLite into this ledger that several share, so that what was spent still counts; how many.

        All in one transaction, and a call that is here already is not counted again: a kill at any moment does no harm. The file is
        then kept as ``….moved``.
        """
        if self.engine.dialect.name == "sqlite" or not former.exists():
            return 0
        old = Ledger(f"sqlite:///{former}", self.budgets, self.gateway, self.now)
        try:
            old.start()  # what was under way when it ended is of unknown outcome
            found = old.rows()
            with old.engine.connect().execution_options(reads=True) as connection:
                warned = [dict(row) for row in connection.execute(sa.select(warnings)).mappings()]
            with self.transaction() as connection:
                known: set[str] = set()
                for at in range(0, len(found), 1000):
                    some = [row["id"] for row in found[at : at + 1000]]
                    known.update(connection.scalars(sa.select(calls.c.id).where(calls.c.id.in_(some))))
                new = [row for row in found if row["id"] not in known]
                for at in range(0, len(new), 1000):
                    self._new(connection, *new[at : at + 1000])
                sums: dict[tuple[str, int, str, str], list[int]] = {}
                for row in new:
                    held = row["estimate_nano"] if row["state"] in (RESERVED, UNKNOWN) else 0
                    self._sum(sums, row["user"], row["project"], row["at_ms"] / 1000, row["cost_nano"], held)
                names = ("period", "start_ms", "kind", "name")
                added = [{**dict(zip(names, key, strict=True)), "spent_nano": each[0], "held_nano": each[1]} for key, each in sums.items()]
                if added:
                    self._add(connection, *added)
                for each in warned:
                    self._warn(connection, each)
        finally:
            old.close()
        former.rename(former.with_name(f"{former.name}.moved"))
        return len(new)

    def sweep(self, connection: Connection, seconds: float) -> int:
        """Of a call that was begun so long ago, by whichever gateway, nothing will be heard any more."""
        old = sa.select(calls.c.id).where(calls.c.state == RESERVED, calls.c.at_ms < int((self.now() - seconds) * 1000))
        return sum(self.lose(connection, each, "never ended") for each in connection.scalars(old).all())

    # --- one transaction each; the Writer puts many into one ---

    def reserve(self, connection: Connection, call: Call) -> Refused | None:
        """Hold what a call may cost; None when it may be made. A call that is known already is not held again."""
        at = self.now()
        fields = {**_BLANK, **vars(call), "at_ms": int(at * 1000), "gateway": self.process, "state": RESERVED}
        if not self._new(connection, fields):
            return None
        limits = self._limits_of(call.user, call.project) if call.estimate_nano else []
        used = self._totals(connection, call.user, call.project, at) if limits else {}
        for limit in limits:
            spent, held = used.get((limit.period, limit.scope.kind, limit.scope.name), (0, 0))
            if spent + held + call.estimate_nano > limit.nano:
                self._forget(connection, {"call": call.id})
                return Refused(limit, spent + held, self.period(limit.period, at), tuple(self._reached(connection, limits, used, 0, at)))
        self._count(connection, call.user, call.project, at, 0, call.estimate_nano)
        return None

    def settle(self, connection: Connection, call: Call, outcome: Outcome) -> list[Warned]:
        """Count what a call has cost, once; also one that was thought lost, or of which nothing is known."""
        row = self.find(connection, call.id)
        if row is None:
            fields = {**_BLANK, **vars(call), "at_ms": int(self.now() * 1000), "gateway": self.process, "state": FREE}
            self._new(connection, fields)
            row = self.find(connection, call.id)
        if row.state == SPENT:
            return []
        at = row.at_ms / 1000
        warns = outcome.cost_nano and self.budgets.warn_percent
        used = self._totals(connection, row.user, row.project, at) if warns else {}
        self._end(connection, row, SPENT, outcome)
        return self._reached(connection, self._limits_of(row.user, row.project), used, outcome.cost_nano, at) if warns else []

    def _reached(
        self, connection: Connection, limits: Iterable[Limit], used: Mapping[tuple[str, str, str], tuple[int, int]], more: int, at: float
    ) -> list[Warned]:
        """Thresholds that are told once a period, also where it is the limit that has changed since."""
        warned = []
        for limit in limits:
            spent = used.get((limit.period, limit.scope.kind, limit.scope.name), (0, 0))[0] + more
            for percent in self.budgets.reached(limit, spent):
                period = self.period(limit.period, at)
                key = (limit.period, period.start_ms, limit.scope.kind, limit.scope.name, percent)
                if key in self._told:
                    continue
                fields = dict(zip(("period", "start_ms", "kind", "name", "percent"), key, strict=True))
                if self._warn(connection, {**fields, "at_ms": int(self.now() * 1000)}):
                    warned.append(Warned(limit, percent, spent, period))
                else:
                    self._told.add(key)
        if len(self._told) > 10_000:
            self._told.clear()
        return warned

    def release(self, connection: Connection, call: str, outcome: Outcome) -> bool:
        """A call that has cost nothing; False when it was settled before, or is not known."""
        return self._leave(connection, call, FREE, outcome)

    def lose(self, connection: Connection, call: str, status: str, outcome: Outcome | None = None) -> bool:
        """A call of which nobody knows how it ended."""
        return self._leave(connection, call, UNKNOWN, dataclasses.replace(outcome or Outcome(), status=status))

    def _leave(self, connection: Connection, call: str, state: str, outcome: Outcome) -> bool:
        row = self.find(connection, call)
        if row is None or row.state not in (RESERVED, UNKNOWN) or row.state == state:
            return False
        kept = {name: getattr(outcome, name) or getattr(row, name) for name in ("provider", "deployment", "organization", "openai_project")}
        self._end(connection, row, state, dataclasses.replace(outcome, cost_nano=0, **kept))
        return True

    def _end(self, connection: Connection, row: Any, state: str, outcome: Outcome) -> None:
        fields = {f"new_{name}": value for name, value in vars(outcome).items()}
        self._update(connection, {**fields, "call": row.id, "new_state": state, "new_settled_ms": int(self.now() * 1000)})
        held = -row.estimate_nano if row.state in (RESERVED, UNKNOWN) else 0
        held += row.estimate_nano if state == UNKNOWN else 0
        self._count(connection, row.user, row.project, row.at_ms / 1000, outcome.cost_nano, held)

    def _count(self, connection: Connection, user: str, project: str, at: float, spent: int, held: int) -> None:
        if not spent and not held:
            return
        starts = {kind: self.period(kind, at).start_ms for kind in PERIODS}
        rows = [
            {"period": kind, "start_ms": start, "kind": scope.kind, "name": scope.name, "spent_nano": spent, "held_nano": held}
            for kind, start in starts.items()
            for scope in scopes_of(user, project)
        ]
        self._add(connection, *rows)

    def _sum(self, sums: dict[tuple[str, int, str, str], list[int]], user: str, project: str, at: float, spent: int, held: int) -> None:
        for kind in PERIODS:
            start = self.period(kind, at).start_ms
            for scope in scopes_of(user, project):
                both = sums.setdefault((kind, start, scope.kind, scope.name), [0, 0])
                both[0] += spent
                both[1] += held

    def _limits_of(self, user: str, project: str) -> list[Limit]:
        """As ``Budgets.of``; asked twice a call."""
        if len(self._limits) > 10_000:
            self._limits.clear()
        if (user, project) not in self._limits:
            self._limits[user, project] = list(self.budgets.of(user, project))
        return self._limits[user, project]

    def _totals(self, connection: Connection, user: str, project: str, at: float) -> dict[tuple[str, str, str], tuple[int, int]]:
        """What is spent and held, by period, kind and name of the scope."""
        starts = {f"start_{kind}": self.period(kind, at).start_ms for kind in PERIODS}
        names = {"all": "", "user": user, "project": project, "member": f"{project}/{user}"}
        rows = self._used.find(connection, {**starts, **names})
        return {(period, kind, name): (spent, held) for period, _, kind, name, spent, held in rows}

    def period(self, kind: str, at: float) -> Period:
        """As ``period_of``; the last one is kept."""
        moment = datetime.fromtimestamp(at, UTC)
        known = self._periods.get(kind)
        if known is None or not known.start <= moment < known.end:
            known = self._periods[kind] = period_of(moment, kind, self.budgets.zone)
        return known

    # --- looking ---

    def used(self, user: str = "", project: str = "", at: float | None = None) -> dict[tuple[str, Scope], tuple[int, int]]:
        """What is spent and held now of each total of this user and project."""
        with self.engine.connect().execution_options(reads=True) as connection:
            found = self._totals(connection, user, project, self.now() if at is None else at)
        return {(period, Scope(kind, name)): both for (period, kind, name), both in found.items()}

    def budgeted(self) -> list[tuple[Limit, int, int]]:
        """Each limit of a scope that has one of its own or has spent in this period, what is spent and what is held."""
        current = {kind: self.period(kind, self.now()).start_ms for kind in PERIODS}
        now = sa.or_(*(sa.and_(totals.c.period == kind, totals.c.start_ms == start) for kind, start in current.items()))
        with self.engine.connect().execution_options(reads=True) as connection:
            rows = connection.execute(sa.select(totals).where(now)).all()
        seen = {(Scope(row.kind, row.name), row.period): (row.spent_nano, row.held_nano) for row in rows}
        known = [(scope, period) for scope, period in self.budgets.limits if scope.name != EVERY]
        found = []
        for scope, period in dict.fromkeys([*known, *seen]):
            amount = self.budgets.amount(scope, period)
            if amount is not None:
                found.append((Limit(scope, period, amount), *seen.get((scope, period), (0, 0))))
        return found

    def warned(self) -> list[tuple[str, str, str, int]]:
        """The thresholds that are reached in the current periods: kind, name, period, percent."""
        current = {kind: self.period(kind, self.now()).start_ms for kind in PERIODS}
        with self.engine.connect().execution_options(reads=True) as connection:
            rows = connection.execute(sa.select(warnings)).all()
        return [(row.kind, row.name, row.period, row.percent) for row in rows if current.get(row.period) == row.start_ms]

    def find(self, connection: Connection, identifier: str) -> Any:
        """A call's row, or None."""
        return next(iter(self._find.find(connection, {"call": identifier})), None)

    def rows(self, since_ms: int = 0, until_ms: int = 2**62) -> list[dict[str, Any]]:
        """The calls that were made from then to before then, by time."""
        wanted = sa.select(calls).where(calls.c.at_ms >= since_ms, calls.c.at_ms < until_ms).order_by(calls.c.at_ms, calls.c.id)
        with self.engine.connect().execution_options(reads=True) as connection:
            return [dict(row) for row in connection.execute(wanted).mappings()]

    def check(self) -> list[str]:
        """Where totals are not the sums of their calls: always empty, unless the time zone was changed or something is broken."""
        sums: dict[tuple[str, int, str, str], list[int]] = {}
        with self.transaction() as connection:
            for row in connection.execute(sa.select(calls)).mappings():
                held = row["estimate_nano"] if row["state"] in (RESERVED, UNKNOWN) else 0
                self._sum(sums, row["user"], row["project"], row["at_ms"] / 1000, row["cost_nano"], held)
            seen = {
                tuple(row[:4]): [row.spent_nano, row.held_nano]
                for row in connection.execute(sa.select(*_key, totals.c.spent_nano, totals.c.held_nano))
            }
        wrong = {key for key in sums.keys() | seen.keys() if sums.get(key, [0, 0]) != seen.get(key, [0, 0])}
        return [f"{key}: calls {sums.get(key)}, totals {seen.get(key)}" for key in sorted(wrong)]


def _engine(url: str) -> Engine:
    made = sa.make_url(url)
    if made.get_backend_name() != "sqlite":
        # The driver that the release has, whichever the URL would have by default.
        made = made.set(drivername="postgresql+psycopg")
        about = {name: value for name, value in CONNECTION.items() if name not in made.query}
        return sa.create_engine(made, pool_pre_ping=True, connect_args=about)
    engine = sa.create_engine(made, connect_args={"timeout": 60, "check_same_thread": False})

    @sa.event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver's own BEGIN would come too late, and not be immediate
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")

    @sa.event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        # One that reads first and then writes would meet another that does so, too.
        connection.exec_driver_sql("BEGIN" if connection.get_execution_options().get("reads") else "BEGIN IMMEDIATE")

    return engine


@dataclasses.dataclass(frozen=True)
class _Asked:
    work: Callable[[Connection], Any]
    future: Future[Any]
    lasting: bool


class Writer:
    """Does in one thread what is asked for in many, as many as wait in one transaction: one wait for the disk serves them all.

    What lasts is done when the ledger can be written again; all else fails while it cannot.
    """

    def __init__(self, ledger: Ledger, most: int = 200) -> None:
        self.ledger, self.most = ledger, most
        self._wanted: queue.SimpleQueue[_Asked | None] = queue.SimpleQueue()
        self._kept: list[_Asked] = []
        self._connection: Connection | None = None
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    def ask(self, work: Callable[[Connection], T], lasting: bool = False) -> Future[T]:
        """Answered when it is on the disk. Work may be done twice, where nobody knows whether the first time was."""
        future: Future[T] = Future()
        self._wanted.put(_Asked(work, future, lasting))
        return future

    def close(self) -> None:
        self._wanted.put(None)
        self._thread.join()

    def _run(self) -> None:
        ended = False
        while not ended:
            batch, self._kept = self._kept, []
            with contextlib.suppress(queue.Empty):
                one = self._wanted.get(timeout=RETRY_SECONDS if batch else None)
                while one is not None:
                    # Who gives up waiting does not undo what was asked for.
                    batch.append(one if one.future.set_running_or_notify_cancel() else dataclasses.replace(one, future=Future()))
                    if len(batch) >= self.most or self._wanted.empty():
                        break
                    one = self._wanted.get()
                ended = one is None
            self._do(batch)
        for each in self._kept:
            each.future.set_exception(RuntimeError("the ledger could not be written before the gateway's end"))
        if self._connection is not None:
            self._connection.close()

    def _do(self, batch: Sequence[_Asked]) -> None:
        for again in (self._connection is not None, False):  # a connection that was kept may be of a server that has ended
            try:
                return self._together(batch)
            except (sa.exc.OperationalError, sa.exc.InterfaceError) as error:
                if not again:
                    return self._away(batch, error)
            except Exception as error:
                return self._apart(batch, error)
        return None

    def _together(self, batch: Sequence[_Asked]) -> None:
        if not batch:
            return
        try:
            # A connection of its own: fetching one takes as long as what is done with it.
            if self._connection is None:
                self._connection = self.ledger.engine.connect()
            answers = self._answers(batch)
        except Exception:
            if self._connection is not None:  # it may be the one that is broken
                with contextlib.suppress(Exception):
                    self._connection.invalidate()
                self._connection = None
            raise
        for each, answer in zip(batch, answers, strict=True):
            each.future.set_result(answer)

    def _answers(self, batch: Sequence[_Asked]) -> list[Any]:
        with self.ledger.transaction(self._connection) as connection:
            return [each.work(connection) for each in batch]

    def _away(self, batch: Sequence[_Asked], error: Exception) -> None:
        """None of them is at fault: the database does not answer, or its disk is full."""
        log.error("the ledger could not be written: %s", str(error).partition("\n")[0])
        for each in batch:
            if each.lasting:
                self._kept.append(each)
            else:
                each.future.set_exception(error)

    def _apart(self, batch: Sequence[_Asked], error: Exception) -> None:
        """One by one, since one of them may be at fault."""
        if len(batch) == 1:
            log.error("the ledger could not be written: %s", error)
            batch[0].future.set_exception(error)
            return
        for each in batch:
            self._do([each])


def resolve(ledger: Ledger, unknown: Iterable[tuple[str, Outcome]]) -> tuple[int, list[Warned]]:
    """Settle calls of unknown outcome by what the provider has told (``reports.unknown_by_usage``); how many there were, and what
    thresholds they have reached."""
    settled, reached = 0, list[Warned]()
    with ledger.transaction() as connection:
        for identifier, outcome in unknown:
            row = ledger.find(connection, identifier)
            if row is not None and row.state == UNKNOWN:
                kept = dataclasses.replace(
                    outcome,
                    latency_ms=row.latency_ms,
                    provider=row.provider,
                    deployment=row.deployment,
                    organization=row.organization,
                    openai_project=row.openai_project,
                )
                reached += ledger.settle(connection, Call(row.id, row.user, row.project, row.task, row.model, row.estimate_nano), kept)
                settled += 1
    return settled, reached
