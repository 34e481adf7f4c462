# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ports, peers, short-lived listeners and throughput, with real sockets on the loopback."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.bzzz.cluster.plugins.module_utils import probe
from ansible_collections.bzzz.cluster.plugins.module_utils.node import bench, listen, peers, probes
from hypothesis import given
from hypothesis import strategies as st

PYTHON = Path("/usr/bin/python3")  # the tests' own may lie in a home directory


def look(kind: str, args: Any, **more: Any) -> dict[str, Any]:
    entry = probe.understand("test", {"id": "x", "title": "x", "remedy": "x", kind: args, **more})
    (found,) = probes.main(probe.question("me", [entry]))["outcomes"]
    return found


@pytest.fixture
def open_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield server.getsockname()[1]


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port whose queue is full: the kernel drops further connections without a word, as a firewall does."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        waiting = []
        for _ in range(4):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(server.getsockname())
            waiting.append(one)
        time.sleep(0.1)
        yield server.getsockname()[1]
        for one in waiting:
            one.close()


@pytest.mark.requirement("1.3.3", part="open, closed and blocked on the loopback")
def test_a_port_is_open_closed_or_blocked(open_port: int, closed_port: int, silent_port: int) -> None:
    began = time.monotonic()
    replies = peers.connect([("127.0.0.1", port) for port in (open_port, silent_port, closed_port)] * 10, timeout=0.5)
    assert [reply.state for reply in replies] == ["open", "blocked", "closed"] * 10
    assert time.monotonic() - began < 2  # ten silent ports cost one time-out, not ten
    assert replies[0].milliseconds < 500 and replies[1].why == "no answer in 0.5 s"
    bounded = peers.connect([("127.0.0.1", port) for port in (open_port, closed_port)] * 20, timeout=2, at_once=3)
    assert [reply.state for reply in bounded] == ["open", "closed"] * 20


@pytest.mark.requirement("1.3.2", part="the remedy is the command for the peer's own firewall")
def test_a_remedy_is_the_peers_own(closed_port: int) -> None:
    others = [{"name": "n2", "address": "127.0.0.1", "let_in": "ufw allow <port>/tcp"}]
    entry = probe.understand(
        "test", {"id": "x", "title": "x", "remedy": "On <peer>: <let_in>", "reach": {"peers": others, "ports": [closed_port]}}
    )
    (check,) = probe.judge("me", [entry], probes.main(probe.question("me", [entry]))["outcomes"])
    assert check["remedy"] == f"On n2: ufw allow {closed_port}/tcp"
    assert "let_in" not in check["data"]["rows"][0]


@pytest.mark.requirement("1.3.3", part="a blocked port is named, with both nodes")
def test_reach_names_the_blocked_one(open_port: int, closed_port: int, silent_port: int) -> None:
    others = [{"name": "me", "address": "192.0.2.1"}, {"name": "node2", "address": "127.0.0.1"}]  # never itself
    assert look("reach", {"peers": others, "ports": [open_port]})["seen"] == "open on all 1 peers"
    found = look("reach", {"peers": others, "ports": [open_port, closed_port, silent_port], "timeout": 0.3})
    assert found["status"] == "fail"
    assert found["seen"] == (
        f"from me to node2 (127.0.0.1) port {closed_port} closed: Connection refused; "
        f"from me to node2 (127.0.0.1) port {silent_port} blocked: no answer in 0.3 s"
    )
    assert [row["state"] for row in found["data"]["rows"]] == ["open", "closed", "blocked"]
    assert look("reach", {"peers": others, "ports": [silent_port], "state": "blocked", "timeout": 0.3})["status"] == "pass"
    assert look("reach", {"peers": others, "ports": [open_port], "state": "blocked"})["status"] == "fail"
    assert look("reach", {"peers": [{"name": "a", "address": "no.such.host.invalid"}], "ports": [1]})["status"] == "fail"
    assert look("reach", {"peers": [], "ports": [1]})["seen"] == "no peers"


@pytest.mark.requirement("1.3.4", part="a node's row on the loopback")
def test_row_of_peers(open_port: int, closed_port: int) -> None:
    others = [{"name": "localhost", "address": "127.0.0.1"}, {"name": "nowhere.invalid", "address": "127.0.0.1"}]
    found = look("peers", {"peers": others, "port": open_port})
    assert found["status"] == "pass" and found["seen"].startswith("all 2 peers answer")
    first, second = found["data"]["rows"]
    loopback_mtu = int(Path("/sys/class/net/lo/mtu").read_text())
    assert first["reachable"] is True and 0 < first["latency_ms"] < 1000 and first["lost"] == 0
    assert (first["interface"], first["interface_mtu"]) == ("lo", loopback_mtu)
    assert first["mtu"] == min(loopback_mtu, 65535)  # an IP packet is never larger
    assert "127.0.0.1" in first["resolves"] and second["resolves"] == []
    slow = look("peers", {"peers": others, "port": open_port, "latency_max_ms": 0.000001})
    assert slow["status"] == "warn" and "from me to localhost it takes" in slow["seen"]
    lost = look("peers", {"peers": others, "port": closed_port})
    assert lost["status"] == "fail"
    assert f"from me to localhost (127.0.0.1) port {closed_port} Connection refused" in lost["seen"]
    assert lost["data"]["rows"][0]["reachable"] is False and lost["data"]["rows"][0]["latency_ms"] is None


@pytest.mark.skipif(os.geteuid() != 0, reason="raw sockets are root's")
@pytest.mark.requirement("1.3.4", part="echoes on the loopback")
def test_echoes_count_what_was_lost_and_what_is_too_large(open_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = ["127.0.0.1", "::1"] if "lo" in Path("/proc/net/if_inet6").read_text() else ["127.0.0.1"]
    assert peers.echo(addresses) == dict.fromkeys(addresses, (peers.ECHOES, 65535))
    assert peers.echo(["no.such.host.invalid"]) == {"no.such.host.invalid": (0, None)} and peers.echo([]) == {}
    row = {"peers": [{"name": "localhost", "address": "127.0.0.1"}], "port": open_port, "loss_max_percent": 5}
    fine = look("peers", row)
    assert fine["status"] == "pass" and [(way["sent"], way["lost"]) for way in fine["data"]["rows"]] == [(20, 0)]
    # A way that swallows every tenth packet, and all that are larger than 1400 bytes.
    sent = peers.Pinger._packet

    def swallow(self: peers.Pinger, number: int, body: bytes) -> bytes:
        if number % 10 == 0 or len(body) > 1400 - 28:
            return b"\xff" + bytes(15)
        return sent(self, number, body)

    monkeypatch.setattr(peers.Pinger, "_packet", swallow)
    monkeypatch.setattr(peers, "ECHO_SECONDS", 0.3)
    assert peers.echo(["127.0.0.1"]) == {"127.0.0.1": (18, 1400)}
    found = look("peers", row)
    assert (found["status"], found["seen"]) == ("warn", "between me and localhost 2 of 20 packets were lost")
    # One that answers none at all: connections count.
    monkeypatch.setattr(peers.Pinger, "_packet", lambda *_: b"\xff" + bytes(15))
    (way,) = look("peers", row)["data"]["rows"]
    assert (way["sent"], way["lost"], way["mtu_arrives"]) == (3, 0, None)


@given(st.binary(max_size=99))
def test_a_packet_with_its_checksum_sums_up_to_nothing(data: bytes) -> None:
    data += b"\0" * (len(data) % 2)
    assert peers.checksum(data + struct.pack("!H", peers.checksum(data))) == 0


def test_thirty_peers_cost_no_more_than_the_slowest(open_port: int, silent_port: int) -> None:
    others = [{"name": f"node{at}", "address": "127.0.0.1"} for at in range(30)]
    began = time.monotonic()
    found = look("reach", {"peers": others, "ports": [open_port, silent_port], "timeout": 0.5})
    assert time.monotonic() - began < 2  # one after the other: 15 s
    assert sum(row["state"] == "blocked" for row in found["data"]["rows"]) == 30


def listeners() -> list[str]:
    """Our own children: nothing else here starts any, and other listeners on this machine are no business of ours."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
            if int(parent) == os.getpid() and state != "Z":
                found.append(path.parent.name)
    return found


def gone(pids: list[str], seconds: float = 5) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for pid in pids:
            try:
                os.waitpid(int(pid), os.WNOHANG)
            except ChildProcessError:
                pass
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def no_listener(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr(listen, "CONTROL", str(tmp_path / "control"))  # /run is root's, and others test there as well
    yield
    running = listeners()
    listen.stop()
    assert gone(running)


@pytest.mark.requirement("1.3.3", part="ports that have no service yet")
def test_listeners_come_and_go(no_listener: None, open_port: int, closed_port: int) -> None:
    assert listen.main({"ports": [closed_port, open_port], "seconds": 20}) == {
        "listening": [closed_port],
        "taken": {str(open_port): "Address already in use"},
    }
    running = listeners()
    others = [{"name": "v4", "address": "127.0.0.1"}, {"name": "v6", "address": "::1"}]
    assert len(running) == 1
    families = others if Path("/proc/net/if_inet6").exists() and Path("/proc/net/if_inet6").read_text() else others[:1]
    assert look("reach", {"peers": families, "ports": [closed_port]})["status"] == "pass"
    # Whoever looks at the node's ports sees what it is.
    assert look("listener", {"port": closed_port, "program": "bzzz-listen"}, within=10)["status"] == "pass"
    # A second call takes the first one's place, a stop frees the ports at once.
    assert listen.main({"ports": [closed_port], "seconds": 20})["listening"] == [closed_port]
    assert gone(running)
    running = listeners()
    assert listen.main({}) == {"listening": [], "taken": {}}
    with socket.create_server(("127.0.0.1", closed_port)):
        pass
    assert gone(running) and not listen.stop()


def test_listeners_end_by_themselves(no_listener: None, closed_port: int) -> None:
    listen.main({"ports": [closed_port], "seconds": 0.5})
    running = listeners()
    assert running and gone(running)
    assert look("reach", {"peers": [{"name": "a", "address": "127.0.0.1"}], "ports": [closed_port]})["status"] == "fail"


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
@pytest.mark.skipif(not PYTHON.exists(), reason="another user may not run this Python")
def test_another_user_can_neither_hinder_nor_end_a_listener(no_listener: None, closed_port: int) -> None:
    bind = "s = socket.socket(socket.AF_UNIX); s.bind('\\0bzzz-listen-0'); s.listen()"
    hold = f"import socket, time; {bind}; print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([PYTHON, "-c", hold], user=65534, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout and other.stdout.readline() == "held\n"
        assert listen.main({"ports": [closed_port], "seconds": 20})["listening"] == [closed_port]
        other.kill()
    assert stat.S_IMODE(os.stat(listen.CONTROL).st_mode) == 0o600, "others may end it"
    assert listeners() and listen.stop() and not Path(listen.CONTROL).exists()
    Path(listen.CONTROL).touch()  # as one that was killed leaves it
    assert listen.main({"ports": [closed_port], "seconds": 0.1})["listening"] == [closed_port]


@pytest.mark.requirement("F8", part="throughput between nodes, on the loopback")
def test_throughput_to_a_listener(no_listener: None, open_port: int, closed_port: int) -> None:
    listen.main({"ports": [closed_port], "seconds": 20})
    found = bench.main({"network": {"name": "node2", "address": "127.0.0.1", "port": closed_port, "mib": 16}})["network"]
    assert found["peer"] == "node2" and found["mib"] == 16 and found["mib_per_second"] > 1
    refused = bench.main({"network": {"name": "node2", "address": "127.0.0.1", "port": 1}})["network"]
    assert "refused" in refused["error"]


def test_throughput_is_never_sent_to_a_stranger(open_port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        received = bytearray()

        def greet() -> None:
            caller, _address = server.accept()
            with caller:
                caller.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
                with contextlib.suppress(ConnectionResetError):
                    while part := caller.recv(1 << 16):
                        received.extend(part)

        thread = threading.Thread(target=greet)
        thread.start()
        found = bench.main({"network": {"name": "b", "address": "127.0.0.1", "port": server.getsockname()[1]}})["network"]
        thread.join()
    assert "another service's" in found["error"] and not received
