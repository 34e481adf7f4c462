# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Probes from this node to its peers: ports, latency, path MTU, name resolution. All connections at once, none waits for another."""

from __future__ import annotations

import collections
import contextlib
import errno
import fcntl
import os
import select
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
ECHOES = 20
ECHO_INTERVAL = 0.002
ECHO_SECONDS = 1.0  # for the answers, which are waited for only while some are missing
ECHO_LIMIT_SECONDS = 10.0
# Bytes of a packet that are tried where the largest one gets no answer: what links and tunnels usually let through.
SIZES = (9000, 8000, 4000, 2000, 1500, 1492, 1480, 1476, 1460, 1450, 1440, 1420, 1400, 1380, 1350, 1300, 1280, 1000, 576)
# Missing from Python's socket module; values of Linux's <netinet/in.h>.
IP_MTU_DISCOVER, IP_MTU, IPV6_MTU_DISCOVER, IPV6_MTU, PMTUDISC_DO, PMTUDISC_PROBE = 10, 14, 23, 24, 2, 3
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

    A remedy may say ``<peer>``, ``<address>``, ``<port>`` and ``<state>``, and name whatever else a peer carries.
    """
    others = [peer for peer in peers if peer["name"] != node.name]
    wanted = [(peer, port) for peer in others for port in ports]
    replies = connect([(peer["address"], port) for peer, port in wanted], timeout)
    rows: list[dict[str, Any]] = [
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
    # What the peer carries comes first: it may hold placeholders of its own.
    about = [{**peer, **row} for (peer, _port), row in zip(wanted, rows) if row["state"] != state]
    names = ", ".join(map(str, ports))
    seen = "; ".join(f"from {node.name} to {row['peer']} ({row['address']}) port {row['port']} {row['state']}: {row['why']}" for row in off)
    if not off:
        seen = f"{state} on all {len(others)} peers" if others else "no peers"
    return outcome(not off, seen, f"ports {names} {state} on every peer", data={"rows": rows}, about=about)


def peers(
    node: Node,
    *,
    peers: list[dict[str, str]],
    port: int = 22,
    timeout: float = 2,
    latency_max_ms: float | None = None,
    loss_max_percent: float | None = None,
) -> Outcome:
    """This node's row of the matrix of all nodes. Latency is that of a TCP connection, the median of three; loss is that of echoes."""
    others = [peer for peer in peers if peer["name"] != node.name]
    ways: dict[str, dict[str, Any]] = {peer["name"]: {"mtu": None, "resolves": []} for peer in others}
    echoes: dict[str, Echoes] = {}
    lookers = [threading.Thread(target=_look, args=(peer, ways[peer["name"]]), daemon=True) for peer in others]
    echoing = threading.Thread(target=lambda: echoes.update(echo([peer["address"] for peer in others])), daemon=True)
    for looker in (echoing, *lookers):
        looker.start()
    targets = [(peer["address"], port) for peer in others]
    first = connect(targets, timeout)
    answering = [at for at, reply in enumerate(first) if reply.state == "open"]
    latencies: dict[int, list[float]] = {at: [] for at in answering}
    for _round in range(ROUNDS):  # after the first, which pays for neighbour discovery
        for at, reply in zip(answering, connect([targets[at] for at in answering], timeout)):
            latencies[at] += [reply.milliseconds] if reply.state == "open" else []
    until = time.monotonic() + timeout + ECHO_SECONDS
    for looker in lookers:
        looker.join(max(0.0, until - time.monotonic()))
    echoing.join(ECHO_LIMIT_SECONDS)  # ends by itself: a busy node only takes longer, and its figures are not to vanish
    rows: list[dict[str, Any]] = []
    for at, peer in enumerate(others):
        latency = round(statistics.median(latencies[at]), 3) if latencies.get(at) else None
        found = echoes.get(peer["address"])
        if found and found.answered:
            tried = {"sent": ECHOES, "lost": ECHOES - found.answered, "mtu_arrives": found.largest}
        else:  # its firewall may let no echo through, so connections count
            tried = {"sent": ROUNDS, "lost": ROUNDS - len(latencies[at]) if at in latencies else None, "mtu_arrives": None}
        state = {"reachable": first[at].state == "open", "why": first[at].why, "latency_ms": latency, **tried}
        rows.append({"peer": peer["name"], "address": peer["address"], **state, **ways[peer["name"]]})
    lost = [row for row in rows if not row["reachable"]]
    slow = [row for row in rows if latency_max_ms is not None and (row["latency_ms"] or 0) > latency_max_ms]
    leaky = [row for row in rows if loss_max_percent is not None and 100 * (row["lost"] or 0) / row["sent"] > loss_max_percent]
    said = [f"from {node.name} to {row['peer']} ({row['address']}) port {port} {row['why']}" for row in lost]
    said += [f"from {node.name} to {row['peer']} it takes {row['latency_ms']:g} ms" for row in slow]
    said += [f"between {node.name} and {row['peer']} {row['lost']} of {row['sent']} packets were lost" for row in leaky]
    slowest = max((float(row["latency_ms"] or 0) for row in rows), default=0)
    seen = "; ".join(said) or (f"all {len(rows)} peers answer, the slowest in {slowest:g} ms" if rows else "no peers")
    expected = "every peer answers" + (f" within {latency_max_ms:g} ms" if latency_max_ms is not None else "")
    expected += f", at most {loss_max_percent:g} % of packets lost" if loss_max_percent is not None else ""
    return outcome("fail" if lost else "warn" if slow or leaky else "pass", seen, expected, data={"rows": rows}, about=lost + slow + leaky)


class Echoes(NamedTuple):
    """How many small echoes an address has answered, and the largest packet in bytes that it has."""

    answered: int
    largest: int | None


def echo(addresses: list[str]) -> dict[str, Echoes]:
    """Send each address some small echoes and some as large as the interface lets out, which nobody on the way may cut up.

    Where only the large ones get no answer, smaller ones are tried: who is in the way keeps silent about it.
    Nothing where the node's system allows no raw sockets.
    """
    found: dict[str, Echoes] = {}
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            mine = {address: _interface_limit(address) for address in addresses if (":" in address) == (family == socket.AF_INET6)}
            if not mine:
                continue
            with Pinger(family) as pinger:
                small = [(address, 64) for _round in range(ECHOES) for address in mine]
                first = pinger.answered(small + 2 * [(address, limit) for address, limit in mine.items() if limit])
                deaf = {address for address, limit in mine.items() if first[address, 64] and limit and not first[address, limit]}
                smaller = [(address, size) for address in deaf for size in SIZES if size < (mine[address] or 0)]
                second = pinger.answered(2 * smaller) if smaller else {}
            for address, limit in mine.items():
                sizes = [size for (where, size), count in {**first, **second}.items() if where == address and count]
                found[address] = Echoes(first[address, 64], max(sizes) if limit and sizes else None)
    return found


class Pinger:
    """ICMP echoes by a raw socket of one family; needs root."""

    def __init__(self, family: int) -> None:
        six = family == socket.AF_INET6
        self.request, self.reply, self.header = (128, 129, 40) if six else (8, 0, 20)
        self.socket = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_ICMPV6 if six else socket.IPPROTO_ICMP)
        level, discover = (socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER) if six else (socket.IPPROTO_IP, IP_MTU_DISCOVER)
        # Not what the kernel remembers of the way decides, but the interface.
        self.socket.setsockopt(level, discover, PMTUDISC_PROBE)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.number = 0

    def __enter__(self) -> Pinger:
        return self

    def __exit__(self, *_error: object) -> None:
        self.socket.close()

    def answered(self, wanted: list[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """Send a packet for each (address, bytes with headers); how many of each were answered."""
        mark = os.urandom(8)  # whose answers these are: every raw socket of the machine sees them all
        waiting: dict[int, tuple[str, int]] = {}
        counts = dict.fromkeys(wanted, 0)
        for address, size in wanted:
            self.number = (self.number + 1) & 0xFFFF
            body = (mark + bytes(size))[: size - self.header - 8]
            with contextlib.suppress(OSError):  # EMSGSIZE, or no way there: then there is no answer
                self.socket.sendto(self._packet(self.number, body), (address, 0))
                waiting[self.number] = address, size
            self._collect(mark, waiting, counts, ECHO_INTERVAL / max(1, len({where for where, _size in counts})))
        until = time.monotonic() + ECHO_SECONDS
        while waiting and (left := until - time.monotonic()) > 0:
            self._collect(mark, waiting, counts, left)
        return counts

    def _packet(self, number: int, body: bytes) -> bytes:
        packet = struct.pack("!BBHHH", self.request, 0, 0, os.getpid() & 0xFFFF, number) + body
        # The kernel puts in that of ICMPv6.
        return packet[:2] + struct.pack("!H", checksum(packet)) + packet[4:]

    def _collect(self, mark: bytes, waiting: dict[int, tuple[str, int]], counts: dict[tuple[str, int], int], seconds: float) -> None:
        """Take in the answers that come within so many seconds."""
        until = time.monotonic() + seconds
        while waiting and select.select([self.socket], [], [], max(0.0, until - time.monotonic()))[0]:
            data = self.socket.recv(1 << 16)
            if self.socket.family == socket.AF_INET:
                data = data[(data[0] & 0x0F) * 4 :]
            if len(data) >= 16 and data[0] == self.reply and data[8:16] == mark:
                key = waiting.pop(struct.unpack_from("!H", data, 6)[0], None)
                if key:
                    counts[key] += 1


def checksum(data: bytes) -> int:
    """The internet checksum (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _interface_limit(address: str) -> int | None:
    """MTU in bytes of the interface that packets to this address leave by; nothing is sent."""
    try:
        family, _kind, _protocol, _name, endpoint = socket.getaddrinfo(address, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as way:
            way.connect(endpoint)
            return min(_interface_mtu(_interface(way.getsockname()[0])) or 0, 65535) or None
    except OSError:
        return None


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
