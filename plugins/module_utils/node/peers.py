# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Probes from this node to its peers: ports, latency, path MTU, name resolution. All connections at once, none waits for another."""

from __future__ import annotations

import collections
import contextlib
import errno
import fcntl
import os
import selectors
import socket
import statistics
import struct
import threading
import time
from typing import Any, NamedTuple

from .probes import Node, Outcome, outcome

AT_ONCE = 256
ROUNDS = 3
# Missing from Python's socket module; values of Linux's <netinet/in.h>.
IP_MTU_DISCOVER, IP_MTU, IPV6_MTU_DISCOVER, IPV6_MTU, PMTUDISC_DO = 10, 14, 23, 24, 2
TCPI_RTT_OFFSET = 68  # of struct tcp_info in <linux/tcp.h>, microseconds


class Reply(NamedTuple):
    """`state`: open, closed (refused) or blocked (no answer, unreachable); `why` in words.

    The time of an open one is the round trip that the kernel measured: ours would hold this program's own threads.
    """

    state: str
    milliseconds: float
    why: str


def connect(targets: list[tuple[str, int]], timeout: float, at_once: int = AT_ONCE) -> list[Reply]:
    """Try a TCP connection to each (address, port); the replies in the same order."""
    replies: list[Reply] = [Reply("blocked", 0, "not tried")] * len(targets)
    waiting = collections.deque(enumerate(targets))
    with selectors.DefaultSelector() as selector:
        while waiting or selector.get_map():
            while waiting and len(selector.get_map()) < at_once:
                at, target = waiting.popleft()
                began = time.monotonic()
                try:
                    family, kind, protocol, _name, endpoint = socket.getaddrinfo(*target, type=socket.SOCK_STREAM)[0]
                    attempt = socket.socket(family, kind, protocol)
                except (OSError, ValueError, TypeError, OverflowError) as error:
                    replies[at] = Reply("blocked", 0, str(error))
                    continue
                attempt.setblocking(False)
                code = attempt.connect_ex(endpoint)
                if code == errno.EINPROGRESS:
                    selector.register(attempt, selectors.EVENT_WRITE, (at, began))
                else:
                    replies[at] = _reply(code, began, attempt)
            oldest = min((key.data[1] for key in selector.get_map().values()), default=0.0)
            for key, _events in selector.select(max(0.0, oldest + timeout - time.monotonic())) if oldest else ():
                at, began = key.data
                attempt = _taken(selector, key)
                replies[at] = _reply(attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), began, attempt)
            for key in [key for key in selector.get_map().values() if time.monotonic() - key.data[1] >= timeout]:
                _taken(selector, key).close()
                replies[key.data[0]] = Reply("blocked", timeout * 1000, f"no answer in {timeout:g} s")
    return replies


def _taken(selector: selectors.BaseSelector, key: selectors.SelectorKey) -> socket.socket:
    attempt: socket.socket = key.fileobj  # type: ignore[assignment]
    selector.unregister(attempt)
    return attempt


def _reply(code: int, began: float, attempt: socket.socket) -> Reply:
    took = time.monotonic() - began
    with attempt:
        if code == 0:
            (microseconds,) = struct.unpack_from("I", attempt.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), TCPI_RTT_OFFSET)
            took = microseconds / 1e6 or took  # 0 where the first attempt was lost
    state = {0: "open", errno.ECONNREFUSED: "closed"}.get(code, "blocked")
    return Reply(state, round(took * 1000, 3), os.strerror(code) if code else "connected")


def reach(node: Node, *, peers: list[dict[str, str]], ports: list[int], state: str = "open", timeout: float = 2) -> Outcome:
    """Every port of every peer but this node itself is in `state`: open, closed or blocked.

    A remedy may say ``<peer>``, ``<address>``, ``<port>`` and ``<state>``.
    """
    others = [peer for peer in peers if peer["name"] != node.name]
    wanted = [(peer, port) for peer in others for port in ports]
    replies = connect([(peer["address"], port) for peer, port in wanted], timeout)
    rows = [
        {
            "peer": peer["name"],
            "address": peer["address"],
            "port": port,
            "state": reply.state,
            "latency_ms": reply.milliseconds,
            "why": reply.why,
        }
        for (peer, port), reply in zip(wanted, replies)
    ]
    off = [row for row in rows if row["state"] != state]
    names = ", ".join(map(str, ports))
    seen = "; ".join(f"from {node.name} to {row['peer']} ({row['address']}) port {row['port']} {row['state']}: {row['why']}" for row in off)
    if not off:
        seen = f"{state} on all {len(others)} peers" if others else "no peers"
    return outcome(not off, seen, f"ports {names} {state} on every peer", data={"rows": rows}, about=off)


def peers(node: Node, *, peers: list[dict[str, str]], port: int = 22, timeout: float = 2, latency_max_ms: float | None = None) -> Outcome:
    """This node's row of the matrix of all nodes. Latency is that of a TCP connection, the median of three."""
    others = [peer for peer in peers if peer["name"] != node.name]
    ways: dict[str, dict[str, Any]] = {peer["name"]: {"mtu": None, "resolves": []} for peer in others}
    lookers = [threading.Thread(target=_look, args=(peer, ways[peer["name"]]), daemon=True) for peer in others]
    for looker in lookers:
        looker.start()
    targets = [(peer["address"], port) for peer in others]
    first = connect(targets, timeout)
    answering = [at for at, reply in enumerate(first) if reply.state == "open"]
    latencies: dict[int, list[float]] = {at: [] for at in answering}
    for _round in range(ROUNDS):  # after the first, which pays for neighbour discovery
        for at, reply in zip(answering, connect([targets[at] for at in answering], timeout)):
            latencies[at] += [reply.milliseconds] if reply.state == "open" else []
    until = time.monotonic() + timeout
    for looker in lookers:
        looker.join(max(0.0, until - time.monotonic()))
    rows: list[dict[str, Any]] = []
    for at, peer in enumerate(others):
        latency = round(statistics.median(latencies[at]), 3) if latencies.get(at) else None
        missed = ROUNDS - len(latencies[at]) if at in latencies else None
        state = {"reachable": first[at].state == "open", "why": first[at].why, "latency_ms": latency, "lost": missed}
        rows.append({"peer": peer["name"], "address": peer["address"], **state, **ways[peer["name"]]})
    lost = [row for row in rows if not row["reachable"]]
    slow = [row for row in rows if latency_max_ms is not None and (row["latency_ms"] or 0) > latency_max_ms]
    said = [f"from {node.name} to {row['peer']} ({row['address']}) port {port} {row['why']}" for row in lost]
    said += [f"from {node.name} to {row['peer']} it takes {row['latency_ms']:g} ms" for row in slow]
    slowest = max((float(row["latency_ms"] or 0) for row in rows), default=0)
    seen = "; ".join(said) or (f"all {len(rows)} peers answer, the slowest in {slowest:g} ms" if rows else "no peers")
    expected = "every peer answers" + (f" within {latency_max_ms:g} ms" if latency_max_ms is not None else "")
    return outcome("fail" if lost else "warn" if slow else "pass", seen, expected, data={"rows": rows}, about=lost + slow)


def _look(peer: dict[str, str], into: dict[str, Any]) -> None:
    """What takes its time and is told, never required: path MTU, and whether the peer's name resolves."""
    into.update(zip(("mtu", "interface", "interface_mtu"), path_mtu(peer["address"])))
    with contextlib.suppress(OSError, ValueError, TypeError):
        into["resolves"] = sorted({str(found[4][0]) for found in socket.getaddrinfo(peer["name"], None, type=socket.SOCK_STREAM)})


def path_mtu(address: str) -> tuple[int | None, str | None, int | None]:
    """Largest packet in bytes on the way to `address` that the kernel knows of, the interface it leaves by and that one's MTU.

    A datagram of the interface's size is sent with "don't fragment"; a router in between that can't pass it answers, and
    the kernel remembers. A router that keeps silent is not found this way.
    """
    try:
        family, _kind, _protocol, _name, endpoint = socket.getaddrinfo(address, 9, type=socket.SOCK_DGRAM)[0]
        level, discover, known, overhead = (
            (socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_MTU, 48)
            if family == socket.AF_INET6
            else (socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_MTU, 28)
        )
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.setsockopt(level, discover, PMTUDISC_DO)
            probe.connect(endpoint)
            mtu = probe.getsockopt(level, known)
            interface = _interface(probe.getsockname()[0])
            for _round in range(2):  # the second shows what the first one's answer taught the kernel
                with contextlib.suppress(OSError):  # EMSGSIZE; ECONNREFUSED: the first one has arrived and nobody wanted it
                    probe.send(bytes(min(mtu, 65535) - overhead))
                time.sleep(0.02)
            mtu = probe.getsockopt(level, known)
    except (OSError, ValueError, TypeError):
        return None, None, None
    return mtu, interface, _interface_mtu(interface)


def _interface(local: str) -> str | None:
    """Name of the interface that has this address."""
    if ":" in local:
        packed = socket.inet_pton(socket.AF_INET6, local.partition("%")[0]).hex()
        with open("/proc/net/if_inet6", encoding="ascii") as source:
            return next((line.split()[5] for line in source if line.startswith(packed)), None)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        for _index, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(asker, 0x8915, struct.pack("256s", name.encode()[:15]))  # SIOCGIFADDR
            except OSError:
                continue
            if socket.inet_ntoa(answer[20:24]) == local:
                return name
    return None


def _interface_mtu(name: str | None) -> int | None:
    try:
        with open(f"/sys/class/net/{name}/mtu", encoding="ascii") as source:
            return int(source.read())
    except (OSError, ValueError):
        return None


def clock(_node: Node, *, max_offset_seconds: float) -> Outcome:
    """This node's clock against the controller's, which compares them: it knows when it asked and when the answer came."""
    return outcome("skip", "not compared", f"at most {max_offset_seconds:g} s apart")


KINDS = {"reach": reach, "peers": peers, "clock": clock}
