# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which machines there are: those that are listed, that DNS names, that announce themselves by mDNS, or whose SSH servers answer.

Nothing is sent but questions and the beginning of TCP connections. What is found is what the network says: only a host
key that somebody has looked at tells whether a machine is the one it claims to be.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import ipaddress
import re
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, Optional

from .addresses import AddressError, address_of, expand_nodes, is_host_name, parse_network, short_names
from .problems import Problem, errors, problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Sequence

# The ways, the one whose word counts first being first.
LIST, DNS, MDNS, SWEEP = WAYS = ("list", "dns", "mdns", "sweep")
# The service whose announced port is sshd's; that of any other says nothing about SSH.
SSH_SERVICE = "_ssh._tcp"
SWEEP_MAX = 1024
AT_ONCE = 256


@dataclass(frozen=True)
class Search:
    """What to look for: the options of inventory plugin bzzz.cluster.discovery, under the same names."""

    nodes: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    mdns: bool = False
    mdns_interfaces: tuple[str, ...] = ()
    services: tuple[str, ...] = ("_bzzz._tcp", SSH_SERVICE)
    subnets: tuple[str, ...] = ()
    large_sweep: bool = False
    domain: Optional[str] = None
    name_servers: tuple[str, ...] = ()
    port: int = 22
    timeout_seconds: float = 30
    probe_timeout_seconds: float = 3


@dataclass(frozen=True)
class Find:
    """A machine as one way shows it. `port` is SSH's, None where this way doesn't know it.

    `name` is a host name or, of a machine that is known by its address only, empty.
    """

    way: str
    name: str = ""
    addresses: tuple[str, ...] = ()
    port: Optional[int] = None

    @property
    def keys(self) -> tuple[str, ...]:
        """Two finds that have one in common are the same machine."""
        return (*self.addresses, *([self.name.lower()] if self.name else []))


@dataclass(frozen=True)
class Machine:
    """`host` is what to connect to, `name` a host name or empty, `known_as` all addresses and names of it, long and short."""

    host: str
    port: int
    name: str
    discovered_by: tuple[str, ...]
    known_as: frozenset[str]


@dataclass
class _Found:
    """What a way has brought about so far; it stays when time runs out."""

    finds: list[Find] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def discover(search: Search, on_knock: Callable[[], None] = lambda: None) -> tuple[list[Machine], list[Problem]]:
    """The machines and, errors and warnings alike, what there is to say about them. With an error the machines are not to be relied upon.

    Takes `timeout_seconds` at most. `on_knock` is called once for each address that the sweep has tried.
    """
    problems = check(search)
    if errors(problems):
        return [], problems
    found = asyncio.run(_look(search, on_knock))
    excluded = {word.lower() for word in expand_nodes(", ".join(search.exclude))}
    machines = [machine for machine in merge(found.finds, search.port) if not machine.known_as & excluded]
    problems += found.problems
    if not machines and not errors(problems):
        remedy = "Check what is asked for, the network between, and whether the machines are switched on; or list them under nodes."
        problems.append(problem(_options(search)[0], f"No machine was found by {', '.join(_options(search))}.", remedy))
    return machines, problems


def to_sweep(search: Search) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """The networks whose addresses are tried, once each: the subnets and, as in any list of nodes, those among the nodes."""
    networks = [parse_network(text) for text in (*search.subnets, *_split(search.nodes)[0])]
    return [
        *ipaddress.collapse_addresses(network for network in networks if isinstance(network, ipaddress.IPv4Network)),
        *ipaddress.collapse_addresses(network for network in networks if isinstance(network, ipaddress.IPv6Network)),
    ]


def check(search: Search) -> list[Problem]:
    """What is wrong with the options, before anything is sent."""
    problems = []

    def wrong(option: str, value: Any, message: str, remedy: str) -> None:
        problems.append(problem(option, message, remedy, value=value))

    swept, listed = _split(search.nodes)
    lists = "Write it like 10.0.0.10-20, gpu1, 10.0.1.0/28; 1024 nodes at most."
    for option, parse, texts, otherwise in (
        ("nodes", expand_nodes, [listed], lists),
        ("nodes", parse_network, swept, lists),
        ("exclude", expand_nodes, [", ".join(search.exclude)], lists),
        ("subnets", parse_network, search.subnets, "Give networks in CIDR notation, such as 10.0.0.0/24."),
    ):
        for text in texts:
            try:
                parse(text)
            except AddressError as error:
                wrong(option, text.strip(), str(error), f"Did you mean {error.correct}?" if error.correct else otherwise)
    for server in search.name_servers:
        if address_of(server) is None:
            wrong("name_servers", server, f"'{server}' is no IPv4 or IPv6 address.", "Give the addresses of DNS servers, not their names.")
    for service in search.services:
        if not re.fullmatch(r"_[A-Za-z0-9-]{1,15}\._(tcp|udp)", service):
            wrong("services", service, f"'{service}' is no DNS-SD service type.", "Write it like _ssh._tcp.")
    if search.domain is not None and not is_host_name(search.domain.rstrip(".")):
        wrong("domain", search.domain, f"'{search.domain}' is no DNS name.", "Give a domain such as cluster.example.com.")
    if not 1 <= search.port <= 65535:
        wrong("port", search.port, f"{search.port} is no port.", "Give SSH's port, 1 to 65535.")
    for option in ("timeout_seconds", "probe_timeout_seconds"):
        if not 0 < getattr(search, option) <= 86400:
            wrong(option, getattr(search, option), "This is no time that can be waited for.", "Give seconds, more than 0.")
    if not search.services and (search.mdns or search.domain):
        wrong("services", [], "There is no service to look for.", "Leave the option out: _bzzz._tcp and _ssh._tcp are looked for then.")
    if not _options(search):
        wrong("mdns", None, "Nothing says how machines are to be found.", "Set mdns: true, or give subnets, a domain or nodes.")
    if not problems:
        networks = to_sweep(search)
        count = sum(network.num_addresses for network in networks)
        if count > SWEEP_MAX and not search.large_sweep:
            wrong(
                "subnets" if search.subnets else "nodes",
                ", ".join(map(str, networks)),
                f"These are {count} addresses; trying more than {SWEEP_MAX} (a /22) takes long and looks like an attack.",
                "Name smaller networks, or find machines by mdns or domain. If you insist on it, set large_sweep, and timeout_seconds "
                f"to {_sweep_seconds(count, search):.0f} at least.",
            )
    return problems


def merge(finds: Iterable[Find], port: int) -> list[Machine]:
    """One machine for all finds that share an address or a name: listed ones first, in their order, then by address.

    `port` is that of machines of which no find tells another.
    """
    groups: dict[str, list[Find]] = {}
    for find in sorted(_unambiguous(list(finds)), key=lambda find: WAYS.index(find.way)):
        group = [find]
        for known in {id(groups[key]): groups[key] for key in find.keys if key in groups}.values():
            group = known + group
        groups.update((key, group) for one in group for key in one.keys)
    machines = [_machine(group, port) for group in {id(group): group for group in groups.values()}.values()]
    return sorted(machines, key=lambda machine: (LIST not in machine.discovered_by, *_order(machine)))


def names(machines: Sequence[Machine]) -> list[str]:
    """A name of each machine's own that doesn't depend on which others were found, as far as that can be.

    The first label of its host name, the whole name where another machine has that label, too; node-10-0-0-11 of a machine without name.
    """
    short = short_names([machine.name or f"node-{re.sub('[.:]', '-', _exploded(machine.host))}" for machine in machines])
    count = collections.Counter(short)
    # A machine may be called as another one's address is written here.
    return [name if count[name] == 1 else machine.host for machine, name in zip(machines, short)]


async def sweep(addresses: Iterable[str], port: int, seconds: float, on_knock: Callable[[], None], found: list[str]) -> None:
    """Adds to `found` the addresses on whose port an SSH server greets within so many seconds. Nothing is said to it."""
    left = iter(addresses)

    async def knock() -> None:
        for address in left:
            # ValueError: a line longer than any greeting.
            with contextlib.suppress(OSError, ValueError, asyncio.TimeoutError):
                if await asyncio.wait_for(_greets(address, port), seconds):
                    found.append(address)
            on_knock()

    await asyncio.gather(*(knock() for _worker in range(AT_ONCE)))


async def _greets(address: str, port: int) -> bool:
    reader, writer = await asyncio.open_connection(address, port, limit=1024)
    try:
        async for line in reader:  # others may come before the version (RFC 4253)
            if line.startswith(b"SSH-"):
                return True
        return False
    finally:
        writer.close()


async def _look(search: Search, on_knock: Callable[[], None]) -> _Found:
    found = _Found()
    ways: dict[str, Awaitable[None]] = {}
    if search.nodes:
        ways["nodes"] = _listed(search, found)
    if search.domain:
        ways["domain"] = _dns(search, found)
    if search.mdns:
        ways["mdns"] = _mdns(search, found)
    networks = to_sweep(search)
    if networks:
        ways["subnets"] = _swept(search, networks, found, on_knock)
    for option, end in zip(ways, await asyncio.gather(*(_bounded(search, way) for way in ways.values()))):
        if not end:
            seconds = _sweep_seconds(sum(network.num_addresses for network in networks), search)
            message = f"Time was up before {option} had been looked at to the end."
            remedy = f"Give more time{f', {seconds:.0f} s or more' if option == 'subnets' else ''}; or ask for less."
            found.problems.append(problem("timeout_seconds", message, remedy, value=search.timeout_seconds))
    return found


async def _bounded(search: Search, way: Awaitable[None]) -> bool:
    """Whether it came to its end in time."""
    try:
        await asyncio.wait_for(way, search.timeout_seconds)
    except asyncio.TimeoutError:
        return False
    return True


async def _listed(search: Search, found: _Found) -> None:
    """What is listed is there, whether it answers or not; names are looked up, to know such a machine when it is found in another way."""
    entries = expand_nodes(_split(search.nodes)[1])
    addresses = await asyncio.gather(*(_resolved(entry, search.probe_timeout_seconds) for entry in entries))
    for entry, known in zip(entries, addresses):
        found.finds.append(Find(LIST, "" if address_of(entry) else entry, known or ()))
        if known is None:
            message = f"The name '{entry}' is not known to this host."
            remedy = "Correct it, or let the name be known by DNS or /etc/hosts, or give the address."
            found.problems.append(problem("nodes", message, remedy, value=entry, severity="warning"))


async def _resolved(name: str, seconds: float) -> tuple[str, ...] | None:
    """What the system's own resolver says, as ssh asks it; None where it says nothing."""
    if address_of(name):
        return (name,)
    with contextlib.suppress(OSError, UnicodeError, asyncio.TimeoutError):
        said = await asyncio.wait_for(asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM), seconds)
        return _usable(str(entry[4][0]) for entry in said)
    return None


async def _swept(search: Search, networks: Sequence[Any], found: _Found, on_knock: Callable[[], None]) -> None:
    there: list[str] = []
    try:
        addresses = (str(address) for network in networks for address in network.hosts())
        await sweep(addresses, search.port, search.probe_timeout_seconds, on_knock, there)
    finally:
        found.finds.extend(Find(SWEEP, "", (address,), search.port) for address in there)
    if not there:
        message = f"No SSH server answers on port {search.port} of {', '.join(map(str, networks))}."
        remedy = "Check the networks and port, that the machines are switched on, and that no firewall is between."
        found.problems.append(problem("subnets" if search.subnets else "nodes", message, remedy, severity="warning"))


async def _dns(search: Search, found: _Found) -> None:
    """SRV records of the first service that has some; where none has, the domain's own addresses, each a machine."""
    try:
        import dns.asyncresolver  # noqa: PLC0415 - only admin hosts have it, and only where DNS is asked
        import dns.exception  # noqa: PLC0415
        import dns.resolver  # noqa: PLC0415
    except ImportError:
        found.problems.append(_missing("domain", search.domain, "dnspython"))
        return
    domain = (search.domain or "").rstrip(".")
    try:
        resolver = dns.asyncresolver.Resolver(configure=not search.name_servers)
    except dns.resolver.NoResolverConfiguration:
        message = "This host has no DNS server of its own to ask."
        found.problems.append(problem("name_servers", message, "Give the addresses of DNS servers."))
        return
    if search.name_servers:
        resolver.nameservers = list(search.name_servers)
    asked = ", ".join(map(str, resolver.nameservers))
    gone = (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer)

    async def servers(service: str) -> list[tuple[str, int]]:
        with contextlib.suppress(*gone):
            answer = await resolver.resolve(f"{service}.{domain}.", "SRV", lifetime=search.probe_timeout_seconds)
            # The root as target says that the service is not to be had there (RFC 2782).
            return sorted({(name, record.port) for record in answer if (name := record.target.to_text(omit_final_dot=True)) != "."})
        return []

    async def addresses(name: str) -> tuple[str, ...]:
        # Twice: one for A, one for AAAA, side by side.
        return _usable((await resolver.resolve_name(f"{name}.", lifetime=search.probe_timeout_seconds)).addresses())

    try:
        for service in search.services:
            records = await servers(service)
            told = await asyncio.gather(*(_suppressed(addresses(name), gone) for name, _port in records))
            for (name, port), known in zip(records, told):
                if not known:
                    message = f"The SRV records of {service}.{domain} name {name}, which has no address that can be used from here."
                    remedy = f"Let {name} have an A or AAAA record, or take it out of the SRV records."
                    found.problems.append(problem("domain", message, remedy, value=search.domain))
                else:
                    ssh_port = port if service == SSH_SERVICE else None
                    found.finds.append(Find(DNS, name if is_host_name(name) else "", known, ssh_port))
            if records:
                return
        known = await addresses(domain)
        # Which of the A and AAAA records belong to the same machine, nobody can tell.
        version4 = [address for address in known if ":" not in address]
        found.finds.extend(Find(DNS, "", (address,)) for address in version4 or known)
    except dns.resolver.NXDOMAIN:
        message = f"There is no such domain, says the DNS server asked ({asked})."
        remedy = "Correct the domain, or ask the server that knows it: name_servers."
        found.problems.append(problem("domain", message, remedy, value=search.domain))
    except dns.resolver.NoAnswer:
        tried = " and ".join(f"{service}.{domain}" for service in search.services)
        message = f"The domain exists, but there are neither SRV records of {tried} nor A or AAAA records of {domain} itself."
        remedy = f"Add SRV records, such as: _ssh._tcp.{domain}. SRV 0 0 22 gpu1.{domain}. - or give another domain."
        found.problems.append(problem("domain", message, remedy, value=search.domain))
    except dns.exception.Timeout:
        message = f"The DNS server ({asked}) gave no answer within {search.probe_timeout_seconds:g} s."
        found.problems.append(problem("name_servers", message, _unreached(search), value=list(search.name_servers) or None))
    except (dns.exception.DNSException, OSError) as error:
        message = f"The DNS server ({asked}) cannot answer: {error}"
        found.problems.append(problem("name_servers", message, _unreached(search), value=list(search.name_servers) or None))


def _unreached(search: Search) -> str:
    otherwise = "correct name_servers, or leave it out to ask this host's own" if search.name_servers else "or give name_servers"
    return f"Check that this host reaches its port 53, UDP and TCP, and that it serves this domain; {otherwise}."


async def _mdns(search: Search, found: _Found) -> None:
    """Listens for as long as a probe may take; what was heard of is asked for its address."""
    try:
        from zeroconf import IPVersion, ServiceStateChange  # noqa: PLC0415 - only admin hosts have it, and only where mDNS is asked
        from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf  # noqa: PLC0415
    except ImportError:
        found.problems.append(_missing("mdns", True, "zeroconf"))
        return
    try:
        own = _interfaces(search.mdns_interfaces)
    except LookupError as error:
        remedy = "Name interfaces of this host that have an IPv4 address, or such addresses: see ip -4 address."
        found.problems.append(problem("mdns_interfaces", f"'{error.args[0]}' is none.", remedy, value=list(search.mdns_interfaces)))
        return
    try:
        node = AsyncZeroconf(interfaces=own, ip_version=IPVersion.V4Only)
    except (OSError, RuntimeError) as error:
        message = f"mDNS cannot be listened to: {error}."
        remedy = "Let programs of this host share UDP port 5353, or name another interface."
        found.problems.append(problem("mdns_interfaces", message, remedy, value=list(search.mdns_interfaces) or None))
        return
    heard: dict[tuple[str, str], asyncio.Task[None]] = {}

    async def ask(kind: str, name: str) -> None:
        info = AsyncServiceInfo(kind, name)
        if await info.async_request(node.zeroconf, search.probe_timeout_seconds * 1000) and info.server:
            host = info.server.rstrip(".")
            ssh_port = info.port if kind.startswith(f"{SSH_SERVICE}.") else None
            known = _usable(info.parsed_addresses(IPVersion.All))
            if known:
                # Anybody may announce anything.
                found.finds.append(Find(MDNS, host if is_host_name(host) and host != "localhost" else "", known, ssh_port or None))

    def hear(zeroconf: Any, service_type: str, name: str, state_change: Any) -> None:
        key = (service_type, name)
        if state_change is ServiceStateChange.Added and key not in heard:
            heard[key] = asyncio.get_running_loop().create_task(ask(*key))

    try:
        browser = AsyncServiceBrowser(node.zeroconf, [f"{service}.local." for service in search.services], handlers=[hear])
        await asyncio.sleep(search.probe_timeout_seconds)
        await browser.async_cancel()
        await asyncio.gather(*heard.values())
    finally:
        for task in heard.values():
            task.cancel()
        await node.async_close()
    if not any(find.way == MDNS for find in found.finds):
        message = f"No machine was heard to announce {' or '.join(search.services)}."
        remedy = "mDNS ends at the router: name subnets for machines beyond, and for those that announce nothing. Let UDP port 5353 in."
        found.problems.append(problem("mdns", message, remedy, value=True, severity="warning"))


def _interfaces(wanted: Sequence[str]) -> Any:
    """As zeroconf wants them. LookupError names what is none of this host's."""
    import ifaddr  # noqa: PLC0415 - comes with zeroconf
    from zeroconf import InterfaceChoice  # noqa: PLC0415

    addresses = {str(ip.ip): name for adapter in ifaddr.get_adapters() for ip in adapter.ips if ip.is_IPv4 for name in [adapter.nice_name]}
    for one in wanted:
        if one not in addresses and one not in addresses.values():
            raise LookupError(one)
    chosen = [address for address, name in addresses.items() if address in wanted or name in wanted]
    return chosen if wanted else InterfaceChoice.All


async def _suppressed(asked: Awaitable[tuple[str, ...]], errors: tuple[type[Exception], ...]) -> tuple[str, ...]:
    with contextlib.suppress(*errors):
        return await asked
    return ()


def _unambiguous(finds: list[Find]) -> list[Find]:
    """An address that several names claim by mDNS (that of each one's container bridge) tells no machine from another."""
    claims = collections.defaultdict(set)
    for find in finds:
        if find.way == MDNS:
            for address in find.addresses:
                claims[address].add(find.name.lower())
    kept = []
    for find in finds:
        if find.way == MDNS:
            own = tuple(address for address in find.addresses if len(claims[address]) == 1)
            kept.extend([Find(find.way, find.name, own, find.port)] if own else [])
        else:
            kept.append(find)
    return kept


def _machine(group: Sequence[Find], port: int) -> Machine:
    listed = next((find for find in group if find.way == LIST), None)
    name = next((find.name for find in group if find.name), "")
    # Where somebody has seen it answer, then IPv4.
    candidates = [address for find in group if find.way == SWEEP for address in find.addresses]
    candidates += sorted({address for find in group for address in find.addresses}, key=_number)
    host = (listed.name or listed.addresses[0]) if listed else candidates[0]
    # The sweep has seen SSH there; an announcement only says so.
    by_evidence = sorted(group, key=lambda find: find.way != SWEEP)
    return Machine(
        host,
        next((find.port for find in by_evidence if find.port), port),
        name,
        tuple(way for way in WAYS if any(find.way == way for find in group)),
        frozenset(key for find in group for key in (*find.keys, *short_names([find.name] if find.name else []))),
    )


def _usable(addresses: Iterable[str]) -> tuple[str, ...]:
    """Those that mean the same machine on others, too, each once."""
    found = (address_of(text) for text in addresses)
    return tuple(
        dict.fromkeys(
            str(one) for one in found if one and not (one.is_loopback or one.is_link_local or one.is_unspecified or one.is_multicast)
        )
    )


def _options(search: Search) -> list[str]:
    """The options that say how machines are to be found."""
    return [option for option in ("mdns", "subnets", "domain", "nodes") if getattr(search, option)]


def _split(nodes: Sequence[str]) -> tuple[list[str], str]:
    """The networks in lists of nodes, and the lists without them."""
    text = ", ".join(nodes)
    return re.findall(r"[^,\s]*/[^,\s]*", text), re.sub(r"[^,\s]*/[^,\s]*", "", text)


def _sweep_seconds(addresses: int, search: Search) -> float:
    """How long a sweep takes at most."""
    return -(-addresses // AT_ONCE) * search.probe_timeout_seconds + 1


def _missing(option: str, value: Any, library: str) -> Problem:
    message = f"The Python library {library} is not installed where Ansible runs."
    return problem(option, message, f"Install it there: python3 -m pip install {library} - or don't use {option}.", value=value)


def _exploded(host: str) -> str:
    address = address_of(host)
    return address.exploded if address else host


def _number(text: str) -> tuple[int, int]:
    address = address_of(text)
    return (address.version, int(address)) if address else (0, 0)


def _order(machine: Machine) -> tuple[Any, ...]:
    # Listed ones stay as they are: sorting is stable.
    return () if LIST in machine.discovered_by else _number(machine.host)
