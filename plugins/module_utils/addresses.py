# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Addresses, networks and node lists as people type them."""

from __future__ import annotations

import collections
import ipaddress
import itertools
import re
from typing import TYPE_CHECKING, Union

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]
Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]

MAX_NODES = 1024
_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)", re.IGNORECASE)


class AddressError(ValueError):
    """What was typed is not what it should be; `correct` is the form that was probably meant, where there is one."""

    def __init__(self, message: str, correct: str | None = None) -> None:
        super().__init__(message)
        self.correct = correct


def address_of(text: str) -> Address | None:
    """The address that `text` is a literal of, or None (a host name, a network, nonsense)."""
    try:
        # A zone (fe80::1%eth0) means something on one machine only.
        return None if "%" in text else ipaddress.ip_address(text.strip())
    except ValueError:
        return None


def is_host_name(text: str) -> bool:
    """Whether `text` is a DNS host name (RFC 1123); `10.0.0` is none: a last label of digits only is an address gone wrong."""
    labels = text.split(".")
    return len(text) <= 253 and all(_LABEL.fullmatch(label) for label in labels) and not labels[-1].isdigit()


def short_names(names: Sequence[str]) -> list[str]:
    """These host names in lower case, each by its first label where no other has the same."""
    labels = [name.partition(".")[0].lower() for name in names]
    count = collections.Counter(labels)
    return [label if count[label] == 1 else name.lower() for name, label in zip(names, labels)]


def parse_network(text: str) -> Network:
    """A network in CIDR notation, IPv4 or IPv6; AddressError says which part is wrong."""
    base, slash, prefix = text.strip().partition("/")
    address = address_of(base)
    if address is None:
        raise AddressError(f"'{text}' is no network in CIDR notation: '{base}' is no IPv4 or IPv6 address.")
    longest = address.max_prefixlen
    if not slash:
        # What ends in .0 was hardly meant to be one machine.
        whole = 24 if address.version == 4 and str(address).endswith(".0") else longest
        raise AddressError(f"'{text}' is an address without a prefix length (the /24 of 192.168.1.0/24).", f"{address}/{whole}")
    if not re.fullmatch("[0-9]{1,3}", prefix) or int(prefix) > longest:
        mask = _mask_length(prefix) if address.version == 4 else None
        correct = None if mask is None else str(ipaddress.ip_network(f"{address}/{mask}", strict=False))
        raise AddressError(f"The prefix length '/{prefix}' is not possible: IPv{address.version} networks have /0 to /{longest}.", correct)
    network = ipaddress.ip_network(f"{address}/{int(prefix)}", strict=False)
    if network.network_address != address:
        raise AddressError(f"'{text}' is the address of one host in a network, not a network: host bits are set.", str(network))
    return network


def _mask_length(mask: str) -> int | None:
    """Prefix length of a dotted mask such as 255.255.255.0."""
    try:
        return ipaddress.IPv4Network(f"0.0.0.0/{mask}").prefixlen
    except ValueError:
        return None


def parse_ports(text: str) -> range:
    """`6000` or `6000-6100` (both ends included) as a range of port numbers."""
    match = re.fullmatch(r"\s*([0-9]{1,9})\s*(?:-\s*([0-9]{1,9})\s*)?", text)
    if not match:
        raise AddressError(f"'{text}' is neither a port nor a range of ports.")
    first, last = int(match[1]), int(match[2] or match[1])
    if first > last:
        raise AddressError(f"The range '{text}' runs backwards.", f"{last}-{first}")
    if first < 1 or last > 65535:
        raise AddressError(f"'{text}' leaves the ports that exist, 1 to 65535.")
    return range(first, last + 1)


def expand_nodes(text: str, limit: int = MAX_NODES) -> list[str]:
    """Every node that a list names, in order and once: addresses, ranges, networks (their host addresses), host names.

    `10.0.0.10-20, gpu1, 10.0.1.0/28, fd00::1-fd00::8`; separated by commas or white space. AddressError names the entry
    at fault; more than `limit` nodes are refused.
    """
    found: dict[str, None] = {}
    for entry in re.split(r"[,\s]+", re.sub(r"\s*-\s+|\s+-\s*", "-", text.strip())):
        for node in itertools.islice(_expand(entry), limit + 1) if entry else ():
            found[node] = None
        if len(found) > limit:
            raise AddressError(f"'{entry}' makes more than {limit} nodes.")
    return list(found)


def _expand(entry: str) -> Iterator[str]:
    if "/" in entry:
        network = parse_network(entry)
        return map(str, network.hosts())
    address = address_of(entry)
    if address is not None:
        return iter([str(address)])
    start, dash, end = entry.partition("-")
    first = address_of(start)
    if dash and first is not None:
        return _range(entry, first, end)
    if is_host_name(entry):
        return iter([entry])
    raise AddressError(f"'{entry}' is no address, range (10.0.0.10-20), network (10.0.0.0/28) or host name.")


def _range(entry: str, first: Address, end: str) -> Iterator[str]:
    """Addresses from `first` to `end`, which is an address or, as people write, only its last part."""
    separator = "." if first.version == 4 else ":"
    last = address_of(end) or address_of(str(first.exploded).rpartition(separator)[0] + separator + end)
    if last is None or last.version != first.version:
        raise AddressError(f"'{end}' is no end for the range '{entry}': 10.0.0.10-20 and 10.0.0.10-10.0.0.20 are ranges.")
    if int(last) < int(first):
        raise AddressError(f"The range '{entry}' runs backwards.", f"{last}-{first}")
    return (str(first + offset) for offset in range(int(last) - int(first) + 1))
