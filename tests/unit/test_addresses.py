# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Addresses, networks, ports and node lists as people type them."""

from __future__ import annotations

import ipaddress

import pytest
from ansible_collections.bzzz.cluster.plugins.module_utils.addresses import AddressError, expand_nodes, parse_network, parse_ports
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.requirement("1.1.6", part="list")
@pytest.mark.parametrize(
    ("text", "nodes"),
    [
        ("10.0.0.10-12", ["10.0.0.10", "10.0.0.11", "10.0.0.12"]),
        ("10.0.0.254-10.0.1.1", ["10.0.0.254", "10.0.0.255", "10.0.1.0", "10.0.1.1"]),
        ("10.0.0.10 - 11, host1", ["10.0.0.10", "10.0.0.11", "host1"]),
        ("10.0.0.0/30", ["10.0.0.1", "10.0.0.2"]),
        ("10.0.0.4/31", ["10.0.0.4", "10.0.0.5"]),
        ("fd00::1-3", ["fd00::1", "fd00::2", "fd00::3"]),
        ("fd00::/126", ["fd00::1", "fd00::2", "fd00::3"]),
        ("fd00::9-fd00::a", ["fd00::9", "fd00::a"]),
        ("gpu-1,gpu-2.example.com\n gpu-1", ["gpu-1", "gpu-2.example.com"]),
        ("10.0.0.1,10.0.0.1-2", ["10.0.0.1", "10.0.0.2"]),
        ("", []),
    ],
)
def test_node_lists(text: str, nodes: list[str]) -> None:
    assert expand_nodes(text) == nodes


@pytest.mark.requirement("1.1.6", part="list")
@pytest.mark.parametrize(
    ("text", "says", "correct"),
    [
        ("10.0.0.20-10", "backwards", "10.0.0.10-10.0.0.20"),
        ("10.0.0.10-300", "'300' is no end", None),
        ("10.0.0.10-fd00::1", "no end", None),
        ("10.0.0", "'10.0.0' is no address", None),
        ("10.0.0.256", "no address", None),
        ("host_1", "no address", None),
        ("10.0.0.5/24", "host bits", "10.0.0.0/24"),
        ("10.0.0.0/16", "more than 1024", None),
        ("fd00::/64", "more than 1024", None),
        ("0.0.0.0-255.255.255.255", "more than 1024", None),
    ],
)
def test_wrong_node_lists(text: str, says: str, correct: str | None) -> None:
    with pytest.raises(AddressError, match=says) as caught:
        expand_nodes(text)
    assert caught.value.correct == correct


def test_limit_counts_all_entries() -> None:
    assert len(expand_nodes("10.0.0.0/22")) == 1022
    with pytest.raises(AddressError, match=r"10\.0\.5\.0/30"):
        expand_nodes("10.0.0.0/22, 10.0.4.0/30, 10.0.5.0/30")


@given(st.text(alphabet="0123456789abf.:-/,% \n", max_size=30))
def test_any_node_list_is_read_or_explained(text: str) -> None:
    try:
        nodes = expand_nodes(text)
    except AddressError as error:
        assert str(error)
    else:
        assert len(set(nodes)) == len(nodes)
        assert expand_nodes(",".join(nodes)) == nodes


@pytest.mark.requirement("1.1.3")
@pytest.mark.parametrize(
    ("text", "says", "correct"),
    [
        ("10.0.0.5/24", "host bits are set", "10.0.0.0/24"),
        ("fd00::5/64", "host bits are set", "fd00::/64"),
        ("10.0.0.0/33", "IPv4 networks have /0 to /32", None),
        ("fd00::/129", "IPv6 networks have /0 to /128", None),
        ("10.0.0.0/255.255.255.0", "not possible", "10.0.0.0/24"),
        ("10.0.0.7/255.255.0.0", "not possible", "10.0.0.0/16"),
        ("10.0.0.0/-1", "not possible", None),
        ("10.0.0.0/", "not possible", None),
        ("10.0.0.0/²", "not possible", None),
        ("10.0.0.1", "without a prefix length", "10.0.0.1/32"),
        ("10.0.1.0", "without a prefix length", "10.0.1.0/24"),
        ("abc", "'abc' is no IPv4 or IPv6 address", None),
        ("10.0.0/24", "'10.0.0' is no IPv4 or IPv6 address", None),
        ("fe80::1%eth0/64", "no IPv4 or IPv6 address", None),
        ("", "no IPv4 or IPv6 address", None),
    ],
)
def test_each_wrong_network_has_its_own_message(text: str, says: str, correct: str | None) -> None:
    with pytest.raises(AddressError, match=says) as caught:
        parse_network(text)
    assert caught.value.correct == correct


@pytest.mark.requirement("1.1.2", part="form")
@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)), st.integers(0, 128))
def test_any_network_is_accepted(address: ipaddress.IPv4Address | ipaddress.IPv6Address, prefix: int) -> None:
    network = ipaddress.ip_network(f"{address}/{min(prefix, address.max_prefixlen)}", strict=False)
    assert parse_network(f" {network} ") == network


@given(st.text(max_size=40))
def test_any_text_is_a_network_or_explained_and_corrections_are_right(text: str) -> None:
    try:
        parse_network(text)
    except AddressError as error:
        if error.correct is not None:
            parse_network(error.correct)


@given(st.text(max_size=20))
def test_any_text_is_ports_or_explained(text: str) -> None:
    try:
        ports = parse_ports(text)
    except AddressError as error:
        assert str(error)
    else:
        assert 1 <= ports[0] <= ports[-1] <= 65535


@pytest.mark.requirement("1.2.5", part="form of ranges")
def test_ports() -> None:
    assert parse_ports("6000") == range(6000, 6001)
    assert parse_ports(" 6000 - 6100 ") == range(6000, 6101)
    for wrong in ("6100-6000", "0", "65536", "70000-80000", "http", "-5", "1-", "1.5"):
        with pytest.raises(AddressError):
            parse_ports(wrong)
