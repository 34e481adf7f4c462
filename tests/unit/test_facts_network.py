# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Interfaces, routes and ports: this machine's own, and made-up rtnetlink messages and /proc trees."""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.bzzz.cluster.plugins.module_utils.node import network, ports
from ansible_collections.bzzz.cluster.plugins.module_utils.node.machine import Machine
from hypothesis import example, given
from hypothesis import strategies as st

# rtnetlink messages, packed as the kernel does.


def pad(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def attribute(kind: int, value: bytes | int) -> bytes:
    value = struct.pack("=I", value) if isinstance(value, int) else value
    return pad(struct.pack("=HH", 4 + len(value), kind) + value)


def message(kind: int, body: bytes) -> bytes:
    return pad(struct.pack("=IHHII", 16 + len(body), kind, 0, 1, 0) + body)


def link(index: int, name: str, kind: str | None = None, hardware: int = 1, up: bool = True, **more: int) -> bytes:
    body = (
        struct.pack("=BxHiII", 0, hardware, index, int(up), 0) + attribute(3, name.encode() + b"\0") + attribute(4, more.get("mtu", 1500))
    )
    body += attribute(1, bytes(more.get("mac", 2) for _ in range(6))) + attribute(16, bytes([6 if up else 2])) + attribute(33, bytes([up]))
    body += attribute(10, more["master"]) if "master" in more else b""
    return message(16, body + (attribute(18, attribute(1, kind.encode() + b"\0")) if kind else b""))


def address(index: int, cidr: str, flags: int = 0x80) -> bytes:
    ip = ipaddress.ip_interface(cidr)
    family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
    head = struct.pack("=BBBBI", family, ip.network.prefixlen, flags & 0xFF, 0, index)
    return message(20, head + attribute(1, ip.packed) + (attribute(2, ip.packed) if ip.version == 4 else b"") + attribute(8, flags))


def route(
    destination: str, index: int | None, gateway: str | None = None, metric: int = 0, table: int = 254, hops: list[int] | None = None
) -> bytes:
    target = ipaddress.ip_network(destination)
    family = socket.AF_INET if target.version == 4 else socket.AF_INET6
    body = struct.pack("=BBBBBBBBI", family, target.prefixlen, 0, 0, min(table, 255), 3, 0, 1, 0) + attribute(15, table)
    body += attribute(1, target.network_address.packed) if target.prefixlen else b""
    body += attribute(4, index) if index else b""
    body += attribute(5, ipaddress.ip_address(gateway).packed) if gateway else b""
    body += attribute(6, metric) if metric else b""
    several = b"".join(struct.pack("=HBBi", 16, 0, 0, hop) + attribute(5, bytes([10, 0, 0, hop])) for hop in hops or [])
    return message(24, body + (attribute(9, several) if hops else b""))


def report(root: Path, links: bytes, addresses: bytes = b"", routes: bytes = b"") -> dict[str, Any]:
    return network.report(Machine({"root": str(root)}), links, addresses, routes)


@pytest.fixture
def sysfs(tmp_path: Path) -> Path:
    """eth0 is a card of 10 Gbit/s with driver ixgbe; ib0 and wlan0 have a device too, dead0 is down."""
    for name, facts in {
        "eth0": {"speed": "10000"},
        "ib0": {},
        "wlan0": {},
        "dead0": {"speed": "-1"},
        "huge0": {"speed": "4294967295"},
    }.items():
        folder = tmp_path / "sys/class/net" / name
        (folder / "device").mkdir(parents=True)
        for fact, value in facts.items():
            (folder / fact).write_text(value + "\n")
    (tmp_path / "sys/class/net/eth0/device/driver").symlink_to("../../../../../../bus/pci/drivers/ixgbe")
    (tmp_path / "sys/class/net/wlan0/wireless").mkdir()
    return tmp_path


@pytest.mark.requirement("1.1.9", part="parser")
@pytest.mark.requirement("1.1.11", part="parser")
def test_interfaces_of_every_kind(sysfs: Path) -> None:
    links = [
        link(1, "lo", hardware=772, mac=0, mtu=65536), link(2, "eth0", mtu=9000, master=7), link(3, "ib0", hardware=32), link(4, "wlan0"),
        link(5, "wg0", "wireguard", hardware=65534), link(6, "veth1", "veth"), link(7, "br0", "bridge"), link(8, "bond0", "bond"),
        link(9, "dead0", up=False), link(10, "huge0"), link(11, "dummy0", "dummy"), link(12, "odd0"),
    ]  # fmt: skip
    addresses = (
        address(2, "192.168.1.10/24") + address(2, "192.168.1.11/24", 0) + address(2, "2001:db8::5/64", 0x301) + address(99, "10.0.0.1/8")
    )
    found = {one["name"]: one for one in report(sysfs, b"".join(links), addresses)["interfaces"]}
    assert {name: one["kind"] for name, one in found.items()} == {
        "lo": "loopback", "eth0": "physical", "ib0": "infiniband", "wlan0": "wifi", "wg0": "wireguard", "veth1": "veth", "br0": "bridge",
        "bond0": "bond", "dead0": "physical", "huge0": "physical", "dummy0": "dummy", "odd0": "virtual",
    }  # fmt: skip
    eth0 = found["eth0"]
    assert (eth0["speed_mbps"], eth0["driver"], eth0["mtu"], eth0["mac"], eth0["master"]) == (
        10000,
        "ixgbe",
        9000,
        "02:02:02:02:02:02",
        "br0",
    )
    assert (eth0["state"], eth0["up"], eth0["carrier"]) == ("up", True, True)
    assert (found["dead0"]["state"], found["dead0"]["up"], found["dead0"]["carrier"], found["dead0"]["speed_mbps"]) == (
        "down",
        False,
        False,
        None,
    )
    assert found["huge0"]["speed_mbps"] is found["lo"]["mac"] is found["veth1"]["driver"] is None
    assert [(one["address"], one["network"], one["dynamic"], one["temporary"]) for one in eth0["addresses"]] == [
        ("192.168.1.10", "192.168.1.0/24", False, False),
        ("192.168.1.11", "192.168.1.0/24", True, False),
        ("2001:db8::5", "2001:db8::/64", True, True),
    ]


@pytest.mark.requirement("1.1.10", part="parser")
@pytest.mark.parametrize(
    ("routes", "primary"),
    [
        ([route("0.0.0.0/0", 2, "192.168.1.1")], "eth0"),
        ([route("0.0.0.0/0", 3, "10.0.0.1", 600), route("0.0.0.0/0", 2, "192.168.1.1", 100)], "eth0"),
        ([route("::/0", 3, "fe80::1", 50), route("0.0.0.0/0", 2, "192.168.1.1", 1024)], "eth0"),
        ([route("::/0", 3, "fe80::1", 1024)], "eth1"),
        ([route("0.0.0.0/0", 3, "10.0.0.1", table=100), route("0.0.0.0/0", 2, "192.168.1.1", 9)], "eth0"),
        ([route("0.0.0.0/0", None, hops=[3, 2])], "eth1"),
        ([route("0.0.0.0/0", 99), route("10.0.0.0/8", 2)], None),
        ([], None),
    ],
    ids=["one", "lower metric", "IPv4 first", "only IPv6", "other table", "several hops", "no such interface", "none"],
)  # fmt: skip
def test_primary_interface_carries_the_default_route(tmp_path: Path, routes: list[bytes], primary: str | None) -> None:
    facts = report(tmp_path, link(2, "eth0") + link(3, "eth1"), routes=b"".join(routes))
    assert facts["primary_interface"] == primary


@pytest.mark.requirement("1.1.10", part="parser")
def test_routes(tmp_path: Path) -> None:
    table = [route("10.1.0.0/16", 2, "192.168.1.254", 5), route("0.0.0.0/0", 2, "192.168.1.1"), route("2001:db8::/32", 2)]
    facts = report(tmp_path, link(2, "eth0"), routes=b"".join(table))
    assert [(one["destination"], one["gateway"], one["metric"], one["family"]) for one in facts["routes"]] == [
        ("default", "192.168.1.1", 0, 4),
        ("10.1.0.0/16", "192.168.1.254", 5, 4),
        ("2001:db8::/32", None, 0, 6),
    ]
    many = b"".join(route(f"10.{n // 256}.{n % 256}.0/24", 2) for n in range(400)) + route("0.0.0.0/0", 2)
    facts = report(tmp_path, link(2, "eth0"), routes=many)
    assert len(facts["routes"]) == network.ROUTES_MAX
    assert facts["primary_interface"] == "eth0"
    assert "401 routes" in facts["problems"][0]["message"]


@pytest.mark.requirement("1.1.9", part="parser")
def test_where_rtnetlink_is_refused_names_remain(sysfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> bytes:
        raise PermissionError("no netlink here")

    monkeypatch.setattr(network, "dump", refused)
    facts = network.main({"root": str(sysfs)})
    assert [one["name"] for one in facts["interfaces"]] == ["dead0", "eth0", "huge0", "ib0", "wlan0"]
    assert "no netlink here" in facts["problems"][0]["message"]


@pytest.mark.requirement("1.1.9", part="parser")
@pytest.mark.requirement("1.1.11", part="parser")
def test_this_machine() -> None:
    facts = network.main({})
    assert facts["problems"] == []
    assert {one["name"] for one in facts["interfaces"]} == {name for _, name in socket.if_nameindex()}
    loopback = next(one for one in facts["interfaces"] if one["kind"] == "loopback")
    assert {"address": "127.0.0.1", "prefix": 8}.items() <= loopback["addresses"][0].items()
    assert loopback["mtu"] == int(Path(f"/sys/class/net/{loopback['name']}/mtu").read_text())
    lines = [line.split() for line in Path("/proc/net/route").read_text().splitlines()[1:]]
    defaults = sorted((int(line[6]), line[0]) for line in lines if line[1] == line[7] == "00000000")
    assert not defaults or facts["primary_interface"] == defaults[0][1]


@pytest.mark.requirement("1.3.1", part="parser")
@pytest.mark.parametrize(("client", "seen"), [("192.168.1.2", "192.168.1.2"), ("fe80::1%eth0", "fe80::1"), (None, None)])
def test_where_the_ssh_session_comes_from(tmp_path: Path, client: str | None, seen: str | None) -> None:
    """Python under sudo (which cleans the environment) under the session's shell."""
    shell = f"LANG=C\0SSH_CONNECTION={client} 51000 10.0.0.1 22\0X=1\0" if client else "LANG=C\0"
    for pid, parent, environment in ((os.getpid(), 901, "SUDO_UID=0\0"), (901, 900, "SUDO_UID=0\0"), (900, 1, shell), (1, 0, "")):
        folder = tmp_path / "proc" / str(pid)
        folder.mkdir(parents=True)
        (folder / "environ").write_text(environment)
        (folder / "stat").write_text(f"{pid} (a) b) S {parent} 1 1 0")
    assert network.admin_address(Machine({"root": str(tmp_path)})) == seen


@pytest.mark.requirement("1.1.11", part="parser")
@given(st.binary(max_size=120), st.binary(max_size=120), st.binary(max_size=120), st.integers(0, 60))
@example(b"", b"", b"", 30)
def test_any_bytes_from_the_kernel(links: bytes, addresses: bytes, routes: bytes, cut: int) -> None:
    good = link(2, "eth0")
    too_long = struct.pack("=BBBBBBBBI", 2, 255, 0, 0, 254, 0, 0, 1, 0)
    whole = [
        good + message(16, links) + links,
        address(2, "10.0.0.1/8")[:cut] + message(20, addresses),
        route("0.0.0.0/0", 2, hops=[2])[:cut] + message(24, routes) + message(24, too_long + routes),
    ]
    facts = report(Path("/nonexistent"), *whole)
    json.dumps(facts)
    assert "eth0" in [one["name"] for one in facts["interfaces"]]


# Ports.

IDLE = "00000000:00000000 00:00000000 00000000     0        0"

PROCESSES = {
    "0::/system.slice/ssh.service": "ssh.service",
    "1:name=systemd:/docker/abc/system.slice/ollama.service\n0::/": "ollama.service",
    "0::/system.slice/docker-0a1b.scope": "docker-0a1b.scope",
    "0::/user.slice/user-0.slice/session-3.scope": "session-3.scope",
    "12:cpu:/x.service\n0::/": None,
}


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """Five processes, each with one listening socket (port 1000 + pid)."""
    lines = ["  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"]
    order = "<" if sys.byteorder == "little" else ">"
    local = f"{struct.unpack(order + 'I', socket.inet_aton('127.0.0.1'))[0]:08X}"
    for pid, groups in enumerate(PROCESSES, 1):
        folder = tmp_path / "proc" / str(pid)
        (folder / "fd").mkdir(parents=True)
        (folder / "fd/0").symlink_to("/dev/null")
        (folder / "fd/7").symlink_to(f"socket:[{5000 + pid}]")
        (folder / "comm").write_text("systemd-resolve\n" if pid == 2 else f"server{pid}\n")
        (folder / "cmdline").write_text("/usr/lib/systemd/systemd-resolved\0--x\0")
        (folder / "cgroup").write_text(groups + "\n")
        lines.append(f"   {pid}: {local}:{1000 + pid:04X} 00000000:0000 0A {IDLE} {5000 + pid} 1 x 100")
    worker = tmp_path / "proc/4711/fd"
    worker.mkdir(parents=True)
    (worker / "3").symlink_to("socket:[5001]")  # forked by process 1
    lines.append(f"   7: {local}:0016 {local}:ABCD 01 {IDLE} 5999 1 x 100")
    lines.append(f"   8: {local}:0801 00000000:0000 0A {IDLE} 0 1 x 100")
    (tmp_path / "proc/net").mkdir()
    (tmp_path / "proc/net/tcp").write_text("\n".join(lines) + "\n")
    (tmp_path / "proc/sys/net/ipv4").mkdir(parents=True)
    (tmp_path / "proc/sys/net/ipv4/ip_local_port_range").write_text("32768\t60999\n")
    (tmp_path / "proc/sys/net/ipv4/ip_local_reserved_ports").write_text("8080,9000-9100\n")
    return tmp_path


@pytest.mark.requirement("1.2.6", part="parser")
def test_listeners_with_process_and_unit(proc: Path) -> None:
    facts = ports.main({"root": str(proc)})
    found = {one["port"]: one for one in facts["listeners"]}
    assert [found[1000 + pid]["unit"] for pid in range(1, 6)] == list(PROCESSES.values())
    assert found[1001] == {"protocol": "tcp", "address": "127.0.0.1", "port": 1001, "pid": 1, "program": "server1", "unit": "ssh.service"}
    assert found[1002]["program"] == "systemd-resolved"
    assert (found[2049]["pid"], found[2049]["program"]) == (None, None)  # the kernel's own
    assert 22 not in found  # a connection
    assert (facts["ephemeral"], facts["reserved"]) == ({"first": 32768, "last": 60999}, ["8080", "9000-9100"])


@pytest.mark.requirement("1.2.6", part="parser")
@pytest.mark.parametrize(
    ("family", "kind", "where"),
    [
        (socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1"),
        (socket.AF_INET, socket.SOCK_DGRAM, "127.0.0.1"),
        (socket.AF_INET6, socket.SOCK_STREAM, "::1"),
    ],
)
def test_a_real_listener_is_found(family: int, kind: int, where: str) -> None:
    with socket.socket(family, kind) as listening, socket.socket(family, kind) as not_listening:
        listening.bind((where, 0))
        not_listening.bind((where, 0))
        if kind == socket.SOCK_STREAM:
            listening.listen()
        port = listening.getsockname()[1]
        found = [one for one in ports.main({})["listeners"] if one["port"] == port and one["pid"] == os.getpid()]
        assert [(one["protocol"], one["address"]) for one in found] == [("tcp" if kind == socket.SOCK_STREAM else "udp", where)]
        assert found[0]["program"]
        if kind == socket.SOCK_STREAM:
            assert not_listening.getsockname()[1] not in [one["port"] for one in ports.main({})["listeners"]]


@pytest.mark.requirement("1.2.6", part="parser")
@given(st.text() | st.lists(st.text("0123456789ABCDEF: x", min_size=1), min_size=10).map(" ".join).map(lambda line: f"head\n{line}"))
@example("head\n 0: 0100007F:0016 00000000:0000 0A x x x x x 77")
@example("head\n 0: 0100007:0016 00000000:0000 0A x x x x x 77\n 0: :0016 00000000:0000 0A x x x x x 77")
def test_any_socket_table(said: str) -> None:
    for address_, port, _ in ports.sockets(said, "0A"):
        ipaddress.ip_address(address_)
        assert 0 <= port <= 65535


@pytest.mark.requirement("2.2.3", part="which ports are ours")
@pytest.mark.parametrize(
    ("main", "other", "ours", "expected"),
    [
        ("", "", "Port 22\nPort 2222\n", [2222]),
        ("# Port 2222\nport=22\n", "Port 2200", "Port 22\nPort 2200\nPort 2222\n", [2222]),
        ("", "  Port\t2222", "Port 22\nPort 2222\n", [22]),
        ("Port 22", "", "AuthorizedKeysFile x\n", []),
        ("Port 2022", "", "", []),
    ],
)
def test_ports_that_sshd_has_by_our_file_alone(tmp_path: Path, main: str, other: str, ours: str, expected: list[int]) -> None:
    (tmp_path / "etc/ssh/sshd_config.d").mkdir(parents=True)
    (tmp_path / "etc/ssh/sshd_config").write_text(main)
    for name, text in (("10-other.conf", other), ("20-bzzz.conf", ours), ("30-old.conf.bak", "Port 2222")):
        (tmp_path / "etc/ssh/sshd_config.d" / name).write_text(text)
    assert ports.sshd_ours(Machine({"root": str(tmp_path)})) == expected
