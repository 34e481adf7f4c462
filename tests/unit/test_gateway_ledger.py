# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The ledger: nothing lost, nothing twice; by many threads and processes, in SQLite and PostgreSQL."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from node_cluster import free_ports

from bzzz_setup.gateway.budgets import DAY, NANO, Budgets, Scope, load
from bzzz_setup.gateway.ledger import FREE, RESERVED, SPENT, UNKNOWN, Call, Ledger, Outcome, Refused, Writer, resolve
from bzzz_setup.lab import CHECKOUT

NONE = load({})


def call(identifier: str, estimate: int = 100, user: str = "anna", project: str = "search") -> Call:
    return Call(identifier, user, project, "coding", "gpt-5", estimate)


@contextlib.contextmanager
def opened(url: str, budgets: Budgets = NONE, **more: Any) -> Iterator[Ledger]:
    ledger = Ledger(url, budgets, "test", **more)
    ledger.start()
    try:
        yield ledger
    finally:
        ledger.close()


def postgres_programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL of its own, on a socket."""
    programs = postgres_programs()
    if programs is None:
        missing = "PostgreSQL is not here. Remedy: apt-get install postgresql"
        pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)
    folder = Path("/tmp") / f"bzzz-pg-{os.getpid()}"  # a socket's path is short
    folder.mkdir()
    root = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    if root:
        shutil.chown(folder, "postgres")
    data, port = folder / "data", free_ports(1)[0]

    def run(*command: Any) -> None:
        subprocess.run([*root, *command], check=True, stdout=subprocess.DEVNULL, cwd="/")

    try:
        run(programs / "initdb", "-D", data, "-A", "trust", "-U", "bzzz", "--no-sync")
        options = f"-c listen_addresses= -c port={port} -c unix_socket_directories={folder} -c max_connections=50"
        run(programs / "pg_ctl", "-D", data, "-w", "-o", options, "-l", folder / "log", "start")
        try:
            yield f"postgresql+psycopg://bzzz@/postgres?host={folder}&port={port}"
        finally:
            run(programs / "pg_ctl", "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    found: str = request.getfixturevalue("postgres_url")
    return found


@pytest.fixture
def postgres_url(postgres: str) -> str:
    """Without tables of earlier tests."""
    found = postgres
    with contextlib.closing(Ledger(found, NONE)) as ledger:
        from bzzz_setup.gateway.ledger import metadata

        metadata.drop_all(ledger.engine)
    return found


@pytest.mark.requirement("4.2.3", part="call")
def test_a_call_is_held_then_counted_once(url: str) -> None:
    with opened(url, load({"users": {"anna": {"day_usd": 1}}})) as ledger:
        with ledger.transaction() as connection:
            assert ledger.reserve(connection, call("a")) is None
            assert ledger.reserve(connection, call("a")) is None, "the same call is not held again"
        assert ledger.used("anna", "search")[DAY, Scope("user", "anna")] == (0, 100)
        done = Outcome(40, 10, 20, 5, 900, "ok", "openai", "openai/gpt-5", "org-1", "proj_1")
        with ledger.transaction() as connection:
            for _ in range(3):
                ledger.settle(connection, call("a"), done)
            assert not ledger.release(connection, "a", Outcome()) and not ledger.lose(connection, "a", "late")
        assert ledger.used("anna", "search")[DAY, Scope("member", "search/anna")] == (40, 0)
        (row,) = ledger.rows()
        assert row["state"] == SPENT and row["tokens_cached"] == 5 and row["organization"] == "org-1" and row["latency_ms"] == 900
        with ledger.transaction() as connection:  # what nobody had announced
            ledger.settle(connection, call("b"), dataclasses.replace(done, cost_nano=2))
        assert ledger.used()[DAY, Scope("all")] == (42, 0) and ledger.check() == []


@pytest.mark.requirement("4.1.1", part="ledger")
@pytest.mark.requirement("4.1.2", part="ledger")
@pytest.mark.requirement("4.1.3", part="ledger")
@pytest.mark.parametrize(
    "whose",
    [{"users": {"anna": {"day_usd": "0.0000002"}}}, {"projects": {"*": {"month_usd": "0.0000002"}}}, {"all": {"day_usd": "0.0000002"}}],
)
def test_the_call_over_the_limit_is_refused_and_a_free_one_is_not(tmp_path: Path, whose: dict[str, Any]) -> None:
    with opened(f"sqlite:///{tmp_path / 'l'}", load(whose)) as ledger, ledger.transaction() as connection:
        assert ledger.reserve(connection, call("a")) is None and ledger.reserve(connection, call("b")) is None
        refused = ledger.reserve(connection, call("c", 1))
        assert isinstance(refused, Refused) and refused.used == 200 and refused.limit.nano == 200
        assert ledger.reserve(connection, call("local", 0)) is None
        ledger.release(connection, "a", Outcome())
        assert ledger.reserve(connection, call("c", 1)) is None


@pytest.mark.requirement("4.2.2", part="ledger")
def test_a_limit_is_fresh_after_midnight_where_the_clock_says_so(tmp_path: Path) -> None:
    clock = [datetime.fromisoformat("2026-10-25T22:59:59+00:00").timestamp()]  # 23:59:59 in Berlin, after a day of 25 hours
    budgets = load({"users": {"anna": {"day_usd": "0.0000001"}}}, "Europe/Berlin")
    with opened(f"sqlite:///{tmp_path / 'l'}", budgets, now=lambda: clock[0]) as ledger:
        with ledger.transaction() as connection:
            assert ledger.reserve(connection, call("a")) is None
            assert isinstance(ledger.reserve(connection, call("b")), Refused)
            clock[0] += 1
            assert ledger.reserve(connection, call("b")) is None
            ledger.settle(connection, call("a"), Outcome(90))  # counts for the day that it was made on
            assert isinstance(ledger.reserve(connection, call("c", 1)), Refused)
        assert ledger.used("anna", "search")[DAY, Scope("user", "anna")] == (0, 100)


@pytest.mark.requirement("4.1.4", part="ledger")
def test_each_threshold_warns_once_a_period(url: str) -> None:
    clock = [1_790_000_000.0]
    budgets = load({"all": {"day_usd": "0.000001"}, "warn_percent": [50, 80]})
    with opened(url, budgets, now=lambda: clock[0]) as ledger:

        def settle(name: str, cost: int) -> list[int]:
            with ledger.transaction() as connection:
                ledger.reserve(connection, call(name, 0))
                return [each.percent for each in ledger.settle(connection, call(name), Outcome(cost))]

        assert settle("a", 499) == [] and settle("b", 1) == [50] and settle("c", 10) == settle("c", 10) == [] and settle("d", 400) == [80]
        assert [each[3] for each in ledger.warned()] == [50, 80]
        clock[0] += 86400
        assert ledger.warned() == [] and settle("e", 900) == [50, 80]


@pytest.mark.requirement("4.1.4", part="a limit that was lowered below what is spent")
def test_a_lowered_limit_warns_at_the_next_call_also_where_that_is_refused(url: str) -> None:
    def limited(usd: str) -> Any:
        return load({"users": {"anna": {"day_usd": usd}}, "warn_percent": [10, 50, 80, 100]})

    with opened(url, limited("1")) as ledger, ledger.transaction() as connection:
        ledger.reserve(connection, call("a", 600))
        assert ledger.settle(connection, call("a"), Outcome(600)) == []
    with opened(url, limited("0.000001")) as ledger, ledger.transaction() as connection:
        ledger.reserve(connection, call("b", 1))
        assert [each.percent for each in ledger.settle(connection, call("b"), Outcome(1))] == [10, 50], "neither was crossed by it"
        ledger.reserve(connection, call("c", 1))
        assert ledger.settle(connection, call("c"), Outcome(1)) == []
    with opened(url, limited("0.0000005")) as ledger, ledger.transaction() as connection:
        refused = [ledger.reserve(connection, call(name, 1)) for name in ("d", "e")]
        assert [[each.percent for each in one.warned] for one in refused if one] == [[80, 100], []]


steps = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "settle", "release", "lose", "resolve"]),
        st.integers(0, 5),
        st.integers(0, 300),
        st.sampled_from(["anna", "bert"]),
        st.sampled_from(["", "search"]),
    ),
    max_size=40,
)


@settings(max_examples=60)
@given(steps)
def test_totals_are_the_sums_of_calls_whatever_happens_in_whatever_order(did: list[tuple[str, int, int, str, str]]) -> None:
    settled: dict[str, int] = {}
    with opened("sqlite://", load({"all": {"day_usd": "0.0000005"}})) as ledger:
        for what, number, amount, user, project in did:
            name = str(number)
            if what == "resolve":
                before = {row["id"]: row["state"] for row in ledger.rows()}
                resolve(ledger, [(name, Outcome(amount))])
                if before.get(name) == UNKNOWN:
                    settled[name] = amount
                continue
            with ledger.transaction() as connection:
                if what == "reserve":
                    ledger.reserve(connection, call(name, amount, user, project))
                elif what == "settle":
                    ledger.settle(connection, call(name, amount, user, project), Outcome(amount))
                    settled.setdefault(name, amount)
                elif what == "release":
                    ledger.release(connection, name, Outcome())
                else:
                    ledger.lose(connection, name, "gone")
        assert ledger.check() == []
        assert {row["id"]: row["cost_nano"] for row in ledger.rows() if row["state"] == SPENT} == settled


@pytest.mark.requirement("4.1.3", part="concurrent calls in threads")
def test_many_threads_never_hold_more_than_the_limit(url: str) -> None:
    limit, estimate, actual = 50_000, 1000, 700
    with opened(url, load({"all": {"day_usd": "0.00005"}})) as ledger:
        writer, made, most = Writer(ledger), [], [0]

        def client(number: int) -> None:
            for turn in range(10):
                mine = call(f"{number}.{turn}", estimate, f"user{number}")
                if writer.ask(lambda connection, mine=mine: ledger.reserve(connection, mine)).result() is None:
                    spent, held = ledger.used()[DAY, Scope("all")]
                    most[0] = max(most[0], spent + held)
                    for _ in range(2):  # as when a hook is called twice
                        writer.ask(lambda connection, mine=mine: ledger.settle(connection, mine, Outcome(actual))).result()
                    made.append(mine.id)

        threads = [threading.Thread(target=client, args=[number]) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        writer.close()
        spent, held = ledger.used()[DAY, Scope("all")]
        assert held == 0 and spent == len(made) * actual and most[0] <= limit
        assert limit - estimate < spent <= limit, "the limit is used up, and not passed"
        assert ledger.check() == []


WORKER = """
import os, sys
from bzzz_setup.gateway.budgets import load
from bzzz_setup.gateway.ledger import Call, Ledger, Outcome, Writer
url, name, number, limit = sys.argv[1:]
ledger = Ledger(url, load({"all": {"day_usd": limit}}), name)
ledger.start()
writer = Writer(ledger)
for turn in range(int(number)):
    mine = Call(f"{os.getpid()}.{turn}", name, "search", "", "m", 1000)
    if writer.ask(lambda connection: ledger.reserve(connection, mine)).result() is None:
        print("made", flush=True)
        writer.ask(lambda connection: ledger.settle(connection, mine, Outcome(900))).result()
        print("done", flush=True)
"""


def work(url: str, name: str, number: int, limit: str = "0.0001") -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, url, name, str(number), limit], stdout=subprocess.PIPE, text=True, env=environment
    )


@pytest.mark.requirement("4.1.3", part="concurrent calls in processes")
def test_many_processes_never_spend_more_than_the_limit(url: str) -> None:
    with opened(url) as ledger:
        outs = [process.communicate(timeout=120)[0] for process in [work(url, f"node{number}", 40) for number in range(4)]]
        made = sum(out.count("made") for out in outs)
        spent, held = ledger.used()[DAY, Scope("all")]
        assert held == 0 and spent == made * 900 and 100_000 - 1000 < spent <= 100_000
        assert ledger.check() == []


@pytest.mark.requirement("4.2.3", part="killed processes")
def test_a_killed_process_leaves_unknown_calls_and_nothing_else(url: str) -> None:
    choose = random.Random(5)
    with opened(url) as ledger:
        made = told = 0
        for turn in range(5):
            process = work(url, "node1", 10**6 if turn < 4 else 0, "1000")
            assert process.stdout
            if turn < 4:
                process.stdout.readline()
                time.sleep(choose.uniform(0.05, 0.3))
                process.send_signal(signal.SIGKILL)
                said = process.stdout.read()
                made, told = made + 1 + said.count("made"), told + said.count("done")
            process.wait()
        states = [row["state"] for row in ledger.rows()]
        assert RESERVED not in states, "the last start told the dead one's"
        assert told <= states.count(SPENT) and made <= len(states) and states.count(UNKNOWN) <= 4
        assert ledger.used()[DAY, Scope("all")] == (states.count(SPENT) * 900, states.count(UNKNOWN) * 1000)
        assert ledger.check() == []


def test_what_another_process_has_under_way_stays_its_own(tmp_path: Path) -> None:
    with opened(f"sqlite:///{tmp_path / 'l'}") as ledger:
        with ledger.transaction() as connection:
            ledger.reserve(connection, call("a"))
        assert ledger.start() == 0 and Ledger(str(ledger.engine.url), NONE, "other").start() == 0
        assert ledger.rows()[0]["state"] == RESERVED
        with ledger.transaction() as connection:
            assert ledger.sweep(connection, -1) == 1
            assert ledger.settle(connection, call("a"), Outcome(7)) == [], "the late answer counts"
        assert ledger.rows()[0]["cost_nano"] == 7 and ledger.used()[DAY, Scope("all")] == (7, 0)


@pytest.mark.requirement("4.2.3", part="several gateways: what one had by itself still counts")
def test_what_one_gateway_had_goes_into_the_ledger_of_several(postgres_url: str, tmp_path: Path) -> None:
    budgets = load({"users": {"anna": {"day_usd": "0.0000005"}}, "warn_percent": [10]})
    former = tmp_path / "ledger.sqlite"
    with opened(f"sqlite:///{former}", budgets) as old, old.transaction() as connection:
        for name in ("spent", "lost", "free"):
            old.reserve(connection, call(name))
        old.settle(connection, call("spent"), Outcome(90))
        old.lose(connection, "lost", "gone")
        old.release(connection, "free", Outcome())
    with opened(postgres_url, budgets) as ledger:
        with ledger.transaction() as connection:
            ledger.reserve(connection, call("other"))
            ledger.settle(connection, call("other"), Outcome(10))
        assert ledger.take_over(former) == 3 and not former.exists()
        kept = former.with_name("ledger.sqlite.moved")
        assert kept.exists() and ledger.take_over(former) == 0
        kept.rename(former)  # as when the gateway was killed before it was put aside
        assert ledger.take_over(former) == 0 and not former.exists()
        assert ledger.check() == [] and {row["id"] for row in ledger.rows()} == {"spent", "lost", "free", "other"}
        assert ledger.used("anna", "search")[DAY, Scope("user", "anna")] == (100, 100) and ledger.warned()
        with ledger.transaction() as connection:
            assert isinstance(ledger.reserve(connection, call("over", 301)), Refused)


@pytest.mark.requirement("4.2.3", part="PostgreSQL that goes away and comes back")
def test_no_call_is_made_while_the_database_is_away_and_none_is_forgotten(postgres_url: str) -> None:
    made = sa.make_url(postgres_url)
    socket = Path(str(made.query["host"]), f".s.PGSQL.{made.query['port']}")
    hidden = socket.with_suffix(".hidden")

    def cut(connection: Any) -> None:
        connection.execute(sa.text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"))

    with opened(postgres_url) as ledger, contextlib.closing(Ledger(postgres_url, NONE)) as other:
        writer = Writer(ledger)
        ask = lambda work, **more: writer.ask(work, **more).result(20)  # noqa: E731
        for name in ("a", "b"):
            ask(lambda connection, name=name: ledger.reserve(connection, call(name)))
        with other.engine.connect() as connection:
            cut(connection)
        # It has restarted: nobody is refused for that.
        assert ask(lambda connection: ledger.reserve(connection, call("c"))) is None
        with other.engine.connect() as connection:
            socket.rename(hidden)
            cut(connection)
        settled = writer.ask(lambda connection: ledger.settle(connection, call("a"), Outcome(40)), lasting=True)
        with pytest.raises(sa.exc.OperationalError):
            ask(lambda connection: ledger.reserve(connection, call("d")))
        assert not settled.done()
        hidden.rename(socket)
        assert settled.result(20) == [] and ask(lambda connection: ledger.reserve(connection, call("e"))) is None
        writer.close()
        assert {row["id"]: row["state"] for row in ledger.rows()} == {"a": SPENT, "b": RESERVED, "c": RESERVED, "e": RESERVED}
        assert ledger.check() == []


def test_one_bad_piece_of_work_does_not_spoil_the_others(tmp_path: Path) -> None:
    with opened(f"sqlite:///{tmp_path / 'l'}") as ledger:
        writer, gate = Writer(ledger), threading.Event()
        first = writer.ask(lambda _: gate.wait(10))
        good = [writer.ask(lambda connection, n=n: ledger.reserve(connection, call(f"{n}"))) for n in range(5)]
        bad = writer.ask(lambda _: 1 // 0)
        given_up = writer.ask(lambda connection: ledger.reserve(connection, call("given up")))
        given_up.cancel()
        gate.set()
        assert first.result() and [each.result() for each in good] == [None] * 5
        with pytest.raises(ZeroDivisionError):
            bad.result()
        writer.close()
        assert len(ledger.rows()) == 6 and ledger.check() == [], "what nobody waits for is done, too"
        assert {row["state"] for row in ledger.rows()} == {RESERVED} and FREE not in {row["state"] for row in ledger.rows()}
        assert ledger.used()[DAY, Scope("all")] == (0, 600) and NANO == 10**9
