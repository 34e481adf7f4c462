# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Events of the node service: what is noticed, resuming by id, and clients that are slow, many or unwelcome."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from node_cluster import wait_for
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from bzzz_setup.node import page, stream
from bzzz_setup.node.auth.gate import COOKIE, Gate
from bzzz_setup.node.checks import Check
from bzzz_setup.node.config import Auth, Listen
from bzzz_setup.node.events import Journal, Seen, changes
from bzzz_setup.node.watching import heard

TOKEN = "a token of these tests"
HANDSHAKE = (
    "GET /events HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
).encode()


# --- what is noticed ---

_checks = st.lists(
    st.fixed_dictionaries({"name": st.sampled_from(["storage", "detection"]), "status": st.sampled_from(["pass", "warn", "fail", 3])}),
    max_size=2,
)
_record = st.fixed_dictionaries(
    {},
    optional={
        "healthy": st.booleans(),
        "roles": st.just(["worker"]),
        "started": st.sampled_from(["a", "b"]),
        "revision": st.sampled_from(["1", "2"]),
        "capabilities": st.sampled_from([{}, {"gpus": []}, {"gpus": [{"model": "T4"}], "os": {}}, "nonsense"]),
        "checks": _checks | st.just("nonsense"),
    },
)
_names = st.sampled_from(["a", "b", "c"])
_own = st.dictionaries(st.sampled_from(["storage", "coordination"]), st.sampled_from(["pass", "warn", "fail"]), max_size=2)
_seen = st.builds(
    lambda members, primary, run, own: Seen(
        "a", members, primary, 1, run, {name: Check(name, status, "m") for name, status in own.items()}
    ),
    st.dictionaries(_names, _record, max_size=3),
    st.none() | _names,
    st.none()
    | st.fixed_dictionaries({"run": st.sampled_from(["1", "2"])}, optional={"checks": st.sampled_from([{"pass": 3}, {"pass": "x"}, 7])}),
    _own,
)


@pytest.mark.requirement("F7", part="events, any change")
@given(_seen, _seen)
def test_events_carry_a_client_from_one_state_to_the_next(before: Seen, after: Seen) -> None:
    """Whoever applies the events to what was before has what is now."""
    assert before.members is not None and after.members is not None
    members, primary, run = set(before.members), before.primary, before.run
    for kind, event, node, data in changes(before, after):
        assert kind in ("cluster", "node", "run", "alert") and json.dumps(data)
        assert page.sentence({"event": event, "node": node, "data": data})
        if event == "member_left":
            members.remove(node or "")
        elif event == "member_joined":
            assert node not in members
            members.add(node or "")
        elif event == "primary_changed":
            assert data["from"] == primary
            primary = data["to"]
        elif event == "recorded":
            run = data
        elif event in ("health_changed", "capabilities_changed", "restarted", "configuration_changed"):
            assert node in before.members and node in after.members
        else:
            assert event in ("began", "ended") and data["was"] != data["status"]
    assert (members, primary) == (set(after.members), after.primary)
    assert run == (after.run or before.run)
    assert not list(changes(after, after))


def test_the_first_view_is_one_event_and_own_checks_need_none() -> None:
    full = {"check": Check("storage", "fail", "disk full")}
    blind = Seen("a", None, None, None, None, {})
    found = list(changes(blind, Seen("a", {"a": {"address": "x"}}, "a", 7, None, full)))
    assert [(kind, event) for kind, event, _, _ in found] == [("alert", "began"), ("cluster", "seen")]
    assert found[1][3] == {"members": [{"address": "x", "name": "a"}], "primary": "a", "term": 7, "last_run": None}
    assert [event for _, event, _, _ in changes(Seen("a", {}, None, None, None, full), blind)] == []
    ended = list(changes(Seen("a", {}, None, None, None, full), Seen("a", {}, None, None, None, {"check": Check("storage", "pass", "")})))
    assert [(event, node, data["was"]) for _, event, node, data in ended] == [("ended", "a", "fail")]


@given(st.integers(0, 30), st.integers(0, 40))
def test_resuming_gives_all_that_was_missed_or_says_that_it_cannot(written: int, last: int) -> None:
    journal = Journal(kept=10)
    for number in range(written):
        journal.append("node", "restarted", "a", {"number": number + 1})
    place, why = journal.place(f"{journal.life}-{last}")
    if last > written:
        assert why == "unknown_id"
    elif written - last > 10:
        assert why == "too_old" and place == written
    else:
        assert why is None
        missed = [json.loads(text)["id"] for text in journal.after(place) or []]
        assert missed == [f"{journal.life}-{number}" for number in range(last + 1, written + 1)]
    assert journal.place(f"{Journal().life}-{last}")[1] == "other_life"
    assert journal.place(None)[1] == journal.place("")[1] == "new"


@given(st.text())
def test_no_id_is_understood_by_mistake(text: str) -> None:
    journal = Journal()
    journal.append("run", "recorded", None, {})
    for last in (text, f"{journal.life}-{text}"):
        place, why = journal.place(last)
        assert why or (place, last) in [(0, f"{journal.life}-{text}"), (1, f"{journal.life}-{text}")]


# --- clients ---


class Stand:
    """What the stream asks of a service."""

    def __init__(self) -> None:
        self.membership = None
        self.settings = type("Settings", (), {})()
        self.settings.node = type("Node", (), {"name": "a"})()
        self.settings.cluster = type("Cluster", (), {"name": "test"})()
        self.settings.listen = Listen(port=8443, web_port=9443)

    def checks(self) -> list[Check]:
        return []

    def health(self) -> dict[str, Any]:
        return {"status": "pass"}

    def cluster(self) -> dict[str, Any]:
        return {"members": []}


class Port:
    """A served event port; ``do`` calls something in its event loop."""

    def __init__(self, ping: float | None = 0.5, **limits: Any) -> None:
        self.ping = ping
        self.gate = Gate(Auth((hashlib.sha256(TOKEN.encode()).hexdigest(),)))
        self.loop = asyncio.new_event_loop()
        self.limits = limits
        self.bound = socket.create_server(("127.0.0.1", 0))
        self.port = self.bound.getsockname()[1]
        self._began = threading.Event()
        self.thread = threading.Thread(target=self.loop.run_until_complete, args=(self._serve(),), daemon=True)
        self.thread.start()
        assert self._began.wait(10)

    async def _serve(self) -> None:
        self.stream = stream.Stream(Stand(), self.gate, Journal(kept=self.limits.pop("kept", 1000)), **self.limits)  # type: ignore[arg-type]
        app = stream.build(self.stream)
        config = uvicorn.Config(
            app, ws="websockets-sansio", lifespan="off", log_config=None, ws_ping_interval=self.ping, ws_ping_timeout=self.ping
        )
        self.server = uvicorn.Server(config)
        self._began.set()
        await self.server.serve([self.bound])

    def do(self, call: Callable[[], Any]) -> Any:
        async def inside() -> Any:
            return call()

        return asyncio.run_coroutine_threadsafe(inside(), self.loop).result(10)

    def happen(self, number: int = 1, size: int = 0) -> None:
        self.do(lambda: self.happen_here(number, size))

    def happen_here(self, number: int = 1, size: int = 0) -> None:
        """In the event loop."""
        for _ in range(number):
            self.stream.journal.append("node", "restarted", "a", {"filling": "x" * size})
        self.stream.wake()

    def connect(self, last: str = "", token: str | None = TOKEN, **headers: str) -> ClientConnection:
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        url = f"ws://127.0.0.1:{self.port}/events?last={last}"
        return connect(url, additional_headers=headers, proxy=None, open_timeout=10)

    def close(self) -> None:
        self.server.should_exit = True
        self.thread.join(10)


@contextlib.contextmanager
def served(**limits: Any) -> Iterator[Port]:
    with contextlib.closing(Port(**limits)) as port:
        yield port


def hear(client: ClientConnection, number: int = 1) -> list[dict[str, Any]]:
    return [json.loads(client.recv(10)) for _ in range(number)]


@pytest.mark.requirement("1.2.4", part="events, resumed by id")
def test_a_client_that_comes_back_misses_nothing() -> None:
    with served() as port:
        with port.connect() as client:
            (first,) = hear(client)
            assert (first["type"], first["reason"]) == ("snapshot", "new") and first["data"]["cluster"] == {"members": []}
            port.happen(2)
            ids = [event["id"] for event in hear(client, 2)]
        port.happen(3)
        with port.connect(ids[-1]) as client:
            resumed, *missed = hear(client, 4)
            assert (resumed["type"], resumed["id"], resumed["data"]) == ("resumed", ids[-1], {"missed": 3})
            port.happen()
            got = [*missed, *hear(client)]
        life = ids[0].partition("-")[0]
        assert ids + [event["id"] for event in got] == [f"{life}-{number}" for number in range(1, 7)]
        with port.connect("00000000-3") as client:
            assert hear(client)[0]["reason"] == "other_life"


@pytest.mark.requirement("T2", part="what happens between two looks is told")
def test_who_asks_again_and_again_misses_nothing_either(monkeypatch: pytest.MonkeyPatch) -> None:
    with served() as port:

        def told(last: str) -> list[dict[str, Any]]:
            return [json.loads(line) for line in asyncio.run(heard(f"ws://127.0.0.1:{port.port}/events", TOKEN, None, last, 0.2))]

        (first,) = told("")
        assert first["type"] == "snapshot" and [line["type"] for line in told(first["id"])] == ["quiet"]
        port.happen()
        # One more, after the last that was waited for and before the snapshot is made.
        place = port.stream.journal.place

        def meanwhile(last: str | None) -> tuple[int, str | None]:
            if not last:
                port.happen_here()
            return place(last)

        monkeypatch.setattr(port.stream.journal, "place", meanwhile)
        lines = told(first["id"])
        life = port.stream.journal.life
        assert [(line["type"], line["id"]) for line in lines] == [("node", f"{life}-1"), ("node", f"{life}-2"), ("snapshot", f"{life}-2")]


@pytest.mark.requirement("1.2.4", part="events, too old to resume")
def test_who_was_away_for_too_long_is_told_so() -> None:
    with served(kept=5) as port:
        port.happen(9)
        with port.connect(f"{port.stream.journal.life}-3") as client:
            (first,) = hear(client)
            assert (first["reason"], first["id"]) == ("too_old", port.stream.journal.last_id)
            port.happen()
            assert hear(client)[0]["id"].endswith("-10")


def refused(port: Port, **how: Any) -> int:
    with pytest.raises(InvalidStatus) as caught, port.connect(**how):
        pass
    answer = caught.value.response
    assert answer.headers["content-type"] == "application/problem+json" and answer.headers["x-content-type-options"] == "nosniff"
    return answer.status_code


@pytest.mark.requirement("1.2.4", part="events, who may have them")
def test_strangers_and_other_sites_are_refused() -> None:
    with served() as port:
        assert {refused(port, token=token) for token in (None, "", "wrong", TOKEN + "x")} == {401}
        session = f"{COOKIE}={port.gate.session(port.gate.by_token(TOKEN))}"
        here = f"127.0.0.1:{port.port}"
        for origin in (
            "https://evil.example",
            "http://127.0.0.1:8443",
            "https://127.0.0.1",
            "https://127.0.0.1:1",
            "null",
            "https://[",
            "",
        ):
            assert refused(port, token=None, Cookie=session, Origin=origin) == 403
            assert refused(port, Origin=origin) == 403
        assert refused(port, token=None, Cookie=session) == 403, "browsers name their page"
        assert refused(port, token=None, Origin="https://127.0.0.1:8443", Cookie=session[:-1] + "_") == 401
        for page_port in (8443, 9443):
            with port.connect(token=None, Cookie=session, Origin=f"https://127.0.0.1:{page_port}") as client:
                assert hear(client)[0]["type"] == "snapshot", here


@pytest.mark.requirement("1.2.4", part="events, bounded")
def test_no_more_clients_than_there_is_room_for() -> None:
    with served(clients=2) as port:
        with port.connect() as one, port.connect() as two:
            hear(one), hear(two)
            assert refused(port) == 503
        wait_for(lambda: port.stream.clients == 0, 5, "their places are free")
        with port.connect() as again:
            assert hear(again)
        assert port.stream.dropped["full"] == 1


@pytest.mark.requirement("1.2.4", part="events, slow clients")
def test_a_client_that_takes_nothing_is_dropped_and_the_others_get_everything() -> None:
    with (
        served(ping=None, patience=0.5, kept=50) as port,
        port.connect() as quick,
        socket.create_connection(("127.0.0.1", port.port)) as slow,
    ):
        hear(quick)
        slow.sendall(HANDSHAKE)
        wait_for(lambda: port.stream.clients == 2, 10, "it is let in")
        got = []
        for _ in range(30):  # 30 MB: more than the sockets' buffers hold
            port.happen(size=1_000_000)
            got += [event["id"] for event in hear(quick)]
        wait_for(lambda: port.stream.clients == 1, 20, "it is dropped")
        assert port.stream.dropped["slow"] == 1
        port.happen()
        got += [event["id"] for event in hear(quick)]
        assert [identifier.partition("-")[2] for identifier in got] == [str(number) for number in range(1, 32)]


@pytest.mark.requirement("1.2.4", part="events, goodbye")
def test_clients_are_told_why_they_have_to_go() -> None:
    with served() as port:
        with port.connect() as client:
            hear(client)
            client.send("anything")  # is of no interest
            port.do(lambda: setattr(port.gate, "token_sha256", ()))
            port.do(port.stream.wake)
            with pytest.raises(ConnectionClosed) as caught:
                client.recv(10)
        assert caught.value.rcvd and caught.value.rcvd.code == 1008
        port.do(lambda: setattr(port.gate, "token_sha256", (hashlib.sha256(TOKEN.encode()).hexdigest(),)))
        with port.connect() as client:
            hear(client)
            port.do(port.stream.close)
            with pytest.raises(ConnectionClosed) as caught:
                client.recv(10)
        assert caught.value.rcvd and caught.value.rcvd.code == 1001
        assert refused(port) == 503


def test_a_client_that_no_longer_answers_is_dropped() -> None:
    with served() as port, socket.create_connection(("127.0.0.1", port.port)) as mute:
        mute.sendall(HANDSHAKE)
        wait_for(lambda: port.stream.clients == 1, 10, "it is let in")
        wait_for(lambda: port.stream.clients == 0, 10, "no pong, no place")
