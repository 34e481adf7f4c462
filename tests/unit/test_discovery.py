# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Finding machines: what is refused, what is the same machine, what counts as an SSH server. Networks answer in tests/cluster."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.bzzz.cluster.plugins.module_utils.addresses import is_host_name
from ansible_collections.bzzz.cluster.plugins.module_utils.discovery import WAYS, Find, Machine, Search, check, discover, merge, names
from hypothesis import given
from hypothesis import strategies as st

NETWORK = "127.77.6"
SSH, WORDY, WEB, SILENT, ENDLESS = (f"{NETWORK}.{last}" for last in (1, 2, 3, 4, 5))
GREETINGS = {
    SSH: b"SSH-2.0-OpenSSH_9.2p1\r\n",
    WORDY: b"Welcome.\r\nNo trespassing.\r\nSSH-2.0-x\r\n",
    WEB: b"HTTP/1.0 400 Bad Request\r\nServer: SSH-2.0\r\n\r\n",
    SILENT: b"",
    ENDLESS: b"x" * 100_000,
}


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Where servers of several kinds listen; the one that greets and says no more stays open until the end."""
    stay: list[socket.socket] = []
    found, listeners = 0, []

    def serve(listener: socket.socket, greeting: bytes) -> None:
        while True:
            try:
                connection, _ = listener.accept()
                connection.sendall(greeting)
            except OSError:
                return
            stay.append(connection)
            if greeting == GREETINGS[WEB]:
                stay.pop().close()

    for address, greeting in GREETINGS.items():
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, found))
        found = listener.getsockname()[1]
        listener.listen(16)
        listeners.append(listener)
        threading.Thread(target=serve, args=(listener, greeting), daemon=True).start()
    yield found
    for one in [*listeners, *stay]:
        one.close()


@pytest.mark.requirement("1.1.5", part="sweep")
def test_only_what_greets_as_an_ssh_server_is_found(port: int) -> None:
    knocks: list[None] = []
    search = Search(subnets=(f"{NETWORK}.0/28", f"{NETWORK}.0/29"), port=port, probe_timeout_seconds=0.7)
    machines, problems = discover(search, lambda: knocks.append(None))
    assert (problems, len(knocks)) == ([], 14)  # each address once
    assert [(one.host, one.port, one.name, one.discovered_by) for one in machines] == [
        (SSH, port, "", ("sweep",)),
        (WORDY, port, "", ("sweep",)),
    ]


@pytest.mark.requirement("1.1.5", part="bounded in time and size")
def test_time_is_bounded(port: int) -> None:
    listener = socket.create_server(("0.0.0.0", 0), backlog=4096)  # says nothing at all
    with listener:
        silent = listener.getsockname()[1]
        began = time.monotonic()
        _, problems = discover(Search(subnets=("127.77.8.0/22",), port=silent, timeout_seconds=1, probe_timeout_seconds=20))
        assert time.monotonic() - began < 6
    assert [(one["option"], one["value"], one["severity"]) for one in problems if one["severity"] == "error"] == [
        ("timeout_seconds", 1, "error")
    ]
    assert "81 s or more" in problems[-1]["remedy"]


@pytest.mark.requirement("1.1.5", part="bounded in time and size")
@pytest.mark.parametrize(
    ("given", "count"),
    [
        ({"subnets": ("10.0.0.0/16",)}, 65536),
        ({"subnets": ("10.0.0.0/22", "10.0.4.0/24")}, 1280),
        ({"nodes": ("gpu1, 10.0.0.0/21",)}, 2048),
        ({"subnets": ("fd00::/64",)}, 2**64),
    ],
)
def test_a_large_sweep_is_refused_unless_insisted_on(given: dict[str, Any], count: int) -> None:
    (refused,) = check(Search(**given))
    assert refused["option"] == ("subnets" if "subnets" in given else "nodes")
    assert f"{count} addresses" in refused["message"] and "large_sweep" in refused["remedy"]
    assert check(Search(**given, large_sweep=True)) == []
    assert check(Search(subnets=("10.0.0.0/23", "10.0.2.0/23", "10.0.1.0/24"))) == []


@pytest.mark.requirement("1.1.6", part="inventory plugin")
@pytest.mark.parametrize(
    ("given", "option", "value", "remedy"),
    [
        ({}, "mdns", None, "mdns: true"),
        ({"nodes": ("10.0.0.20-10",)}, "nodes", "10.0.0.20-10", "10.0.0.10-10.0.0.20"),
        ({"nodes": ("gpu_1",)}, "nodes", "gpu_1", "10.0.0.10-20"),
        ({"nodes": ("gpu1, 10.0.0.1/24",)}, "nodes", "10.0.0.1/24", "10.0.0.0/24"),
        ({"nodes": ("10.0.0.0-10.0.9.0",)}, "nodes", "10.0.0.0-10.0.9.0", "1024"),
        ({"nodes": ("gpu1",), "exclude": ("10.0.0.300",)}, "exclude", "10.0.0.300", "10.0.0.10-20"),
        ({"subnets": ("10.0.0.1",)}, "subnets", "10.0.0.1", "10.0.0.1/32"),
        ({"domain": "a_b.example.com"}, "domain", "a_b.example.com", "cluster.example.com"),
        ({"domain": "example.com", "name_servers": ("ns1",)}, "name_servers", "ns1", "addresses"),
        ({"mdns": True, "services": ("ssh",)}, "services", "ssh", "_ssh._tcp"),
        ({"mdns": True, "services": ()}, "services", [], "_ssh._tcp"),
        ({"mdns": True, "port": 0}, "port", 0, "65535"),
        ({"mdns": True, "timeout_seconds": 0}, "timeout_seconds", 0, "more than 0"),
        ({"mdns": True, "probe_timeout_seconds": float("nan")}, "probe_timeout_seconds", None, "more than 0"),
    ],
)
def test_wrong_options(given: dict[str, Any], option: str, value: Any, remedy: str) -> None:
    (wrong,) = check(Search(**given))
    assert (wrong["option"], wrong["severity"]) == (option, "error")
    assert remedy in wrong["remedy"]
    assert value is None or wrong["value"] == value


texts = st.lists(st.text(max_size=12), max_size=3).map(tuple)


@given(
    st.builds(
        Search,
        nodes=texts,
        exclude=texts,
        mdns=st.just(True),
        services=texts,
        subnets=texts,
        domain=st.none() | st.text(max_size=12),
        name_servers=texts,
        port=st.integers(),
        timeout_seconds=st.floats(),
    )
)
def test_no_option_brings_about_anything_but_problems(search: Search) -> None:
    for found in check(search):
        assert found["message"] and found["remedy"]


def test_what_finds_nothing_is_an_error_with_its_reasons() -> None:
    machines, problems = discover(Search(subnets=("127.77.9.0/30",), port=1))
    assert machines == []
    assert [(one["severity"], one["option"]) for one in problems] == [("warning", "subnets"), ("error", "subnets")]
    assert "port 1 of 127.77.9.0/30" in problems[0]["message"]


def test_an_interface_that_is_none_of_this_hosts() -> None:
    _, problems = discover(Search(mdns=True, mdns_interfaces=("nonesuch0",), nodes=("127.0.0.1",)))
    assert [(one["option"], one["value"]) for one in problems] == [("mdns_interfaces", ["nonesuch0"])]
    assert "ip -4 address" in problems[0]["remedy"]


@pytest.mark.parametrize(("given", "library"), [({"mdns": True}, "zeroconf"), ({"domain": "example.test"}, "dnspython")])
def test_a_library_that_is_not_there(monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], library: str) -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] in ("dns", "zeroconf")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "zeroconf" if "mdns" in given else "dns", None)
    _, (problem,) = discover(Search(**given))
    assert f"pip install {library}" in problem["remedy"] and problem["option"] in given


@pytest.mark.requirement("1.1.5", "1.1.7", part="one machine, however often it is found")
def test_what_is_the_same_machine() -> None:
    finds = [
        Find("sweep", "", ("10.0.0.11",), 22),
        Find("mdns", "gpu1.local", ("10.0.0.11", "10.1.0.11", "172.17.0.1"), 2222),
        Find("mdns", "gpu1.local", ("10.0.0.11",), None),  # another service of it
        Find("mdns", "gpu2.local", ("10.0.0.12", "172.17.0.1"), 2222),  # each has a container bridge
        Find("sweep", "", ("10.1.0.11",), 22),
        Find("dns", "gpu2.example.com", ("10.0.0.12", "fd00::12"), None),
        Find("list", "GPU3.example.com", ("10.0.0.13",), None),
        Find("sweep", "", ("10.0.0.13",), 22),
        Find("list", "gone", (), None),
        Find("sweep", "", ("10.0.0.9",), 22),
        Find("list", "", ("10.0.0.20",), None),
    ]
    found = merge(finds, 23)
    assert [(one.host, one.port, one.discovered_by) for one in found] == [
        ("GPU3.example.com", 22, ("list", "sweep")),
        ("gone", 23, ("list",)),
        ("10.0.0.20", 23, ("list",)),
        ("10.0.0.9", 22, ("sweep",)),
        ("10.0.0.11", 22, ("mdns", "sweep")),
        ("10.0.0.12", 2222, ("dns", "mdns")),
    ]
    assert names(found) == ["gpu3", "gone", "node-10-0-0-20", "node-10-0-0-9", "gpu1", "gpu2"]


def test_names_do_not_change_when_others_come() -> None:
    first = [Find("sweep", "", ("10.0.0.12",), 22), Find("mdns", "gpu1.local", ("10.0.0.14",), 22)]
    more = [*first, Find("sweep", "", ("10.0.0.11",), 22), Find("dns", "gpu0.example.com", ("10.0.0.1",), None)]
    assert set(names(merge(first, 22))) < set(names(merge(more, 22)))


address = st.sampled_from([*(f"10.0.0.{last}" for last in range(1, 13)), "fd00::1", "fd00::2", "fd00::3"])
addresses = st.lists(address, max_size=3)
words = st.sampled_from(["", "a", "a.local", "b.local", "B.local", "a.example.com", "node-10-0-0-1", "node-10-0-0-2.local", "fd00"])
finds = st.builds(Find, st.sampled_from(WAYS), words, addresses.map(tuple), st.none() | st.integers(1, 65535)).filter(
    lambda find: find.keys if find.way == "list" else find.addresses
)


@given(st.lists(finds, max_size=12))
def test_every_machine_is_one_host_with_a_name_of_its_own(found: list[Find]) -> None:
    machines: list[Machine] = merge(found, 22)
    called = names(machines)
    assert len({name.lower() for name in called}) == len(called) == len({machine.host for machine in machines})
    assert all(is_host_name(name) or name == machine.host for name, machine in zip(called, machines, strict=True))
    known = [key for machine in machines for key in machine.known_as if {".", ":"} & set(key)]
    assert len(known) == len(set(known))
    for find in found:
        if find.way != "mdns":  # an address that several announce is left out
            assert any(set(find.keys) <= machine.known_as and find.way in machine.discovered_by for machine in machines)


def listing(folder: Path, options: dict[str, Any], code: int = 0) -> tuple[dict[str, Any], str]:
    """What `ansible-inventory` makes of a discovery.yml, as AWX calls it, and its complaints."""
    (folder / "discovery.yml").write_text(yaml.safe_dump({"plugin": "bzzz.cluster.discovery", **options}))
    done = subprocess.run(
        [sys.executable, "-m", "ansible", "inventory", "-i", str(folder / "discovery.yml"), "--list", "--export"],
        env={**os.environ, "ANSIBLE_INVENTORY_UNPARSED_FAILED": "True"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert bool(done.returncode) == bool(code), done.stdout + done.stderr
    return json.loads(done.stdout or "{}"), done.stderr


@pytest.mark.requirement("1.1.6", "1.1.8", part="inventory plugin")
def test_an_inventory_of_what_was_found(port: int, tmp_path: Path) -> None:
    options = {
        "nodes": ["192.0.2.10-12", f"{NETWORK}.0/29"],
        "exclude": ["192.0.2.11"],
        "port": port,
        "probe_timeout_seconds": 0.7,
        "coordinators": ["192.0.2.10", "node-127-77-6-1"],
        "keyed_groups": [{"key": "bzzz_discovered_by", "prefix": "by"}],
        "compose": {"rack": "ansible_host.split('.')[0]"},
    }
    found, said = listing(tmp_path, options)
    assert set(found["bzzz"]["hosts"]) == {"node-192-0-2-10", "node-192-0-2-12", "node-127-77-6-1", "node-127-77-6-2"}
    assert set(found["workers"]["hosts"]) == set(found["bzzz"]["hosts"])
    assert set(found["coordinators"]["hosts"]) == {"node-192-0-2-10", "node-127-77-6-1"}
    assert set(found["by_sweep"]["hosts"]) == {"node-127-77-6-1", "node-127-77-6-2"}
    told = json.dumps(found["_meta"]["hostvars"]["node-192-0-2-12"])
    assert "192.0.2.12" in told and str(port) in told and "list" in told and '"192"' in told
    assert "WARNING" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["discovery.yml"]


@pytest.mark.requirement("1.1.8", part="inventory plugin")
def test_what_fails_fails_the_inventory_with_a_remedy(tmp_path: Path) -> None:
    _, said = listing(tmp_path, {"nodes": ["192.0.2.10"], "coordinators": ["gpu1"]}, code=1)
    assert 'coordinators = ["gpu1"]: Not found: gpu1. Found were: node-192-0-2-10. Remedy: ' in said
    _, said = listing(tmp_path, {"nodes": ["192.0.2.10"], "subnets": ["10.0.0.0/16"]}, code=1)
    assert "65536 addresses" in said and "Remedy: Name smaller networks" in said
