# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Probes of what a node needs outside of the cluster: the way there, which is that of its downloads, and its time source.

All targets are tried at once. One that is not reached is told by where its way ends, and what is to be done there.
"""

from __future__ import annotations

import base64
import functools
import glob
import re
import socket
import ssl
import threading
import time
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any, Callable
from urllib.parse import SplitResult, unquote, urlsplit

from .probes import Node, Outcome, outcome, run

APT = "/etc/apt"
RESOLVERS = "/etc/resolv.conf"
AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"  # those of downloads_ca_files are among them
PORTS = {"http": 80, "https": 443}
# End of a way -> what was seen, and a remedy.
ENDS = {
    "unknown": ("the name {host} is not known to {resolvers}", "let these know {host}, or correct the name"),
    "mute": (
        "{resolvers} gave no answer about {host}",
        "name DNS servers in /etc/resolv.conf that answer this node (port 53)",
    ),
    "refused": ("{at} refuses the connection", "see that {at} is right, and that what is to listen there runs"),
    "silent": ("{at} gave no answer within {seconds:g} s", "let the node's way out (firewalls, routes) reach {at}"),
    "nowhere": ("there is no way to {at}: {said}", "give the node a route there: ip route"),
    "untrusted": (
        "the certificate of {host} is not trusted: {said}",
        "add the certificate of the authority that vouches for {host} to downloads_ca_files, or correct the name or the node's clock",
    ),
    "cut": ("{at} ends the conversation: {said}", "see what stands at {at}, or between it and the node, that does not speak as expected"),
    "password": (
        "the proxy {at} wants another user or password (407)",
        "put the user:password that the proxy wants into downloads_proxy_credentials (vault file)",
    ),
    "denied": ("the proxy {at} does not let this through: {said}", "let the proxy's rules let this node through to it"),
    "beyond": ("the proxy {at} does not get there: {said}", "see whether the proxy itself reaches it"),
    "status": ("it answers {said}", "correct the address"),
}
NO_SOURCES = "declare a mirror (downloads_apt_mirror), or name one in /etc/apt/sources.list"
PROXY_REMEDY = ", or declare the proxy that leads out (downloads_http_proxy)"


class Ended(Exception):
    """The way ends here: a key of ENDS, and what there is to say."""

    def __init__(self, end: str, said: object = "") -> None:
        super().__init__(end)
        self.end, self.said = end, str(said).strip()


class Way:
    """How apt downloads here: declared proxies and passwords are in its configuration, and so are the node's own."""

    def __init__(self, direct: list[str]) -> None:
        self.direct = direct
        _code, out, _err = run(["apt-config", "dump"])
        self.options = {key.lower(): text for key, text in re.findall(r'^Acquire::(\S+) "(.+)";$', out, re.MULTILINE)}
        self.authorities = self.options.get("https::cainfo", AUTHORITIES)
        self.program = next((self.options[key] for key in self.options if re.fullmatch(r"https?::proxy-?auto-?detect", key)), None)

    def proxy(self, to: SplitResult) -> SplitResult | None:
        host = to.hostname or ""
        names = (to.scheme, "http")  # what is said of http holds for https, unless that says otherwise
        keys = [f"{scheme}::proxy::{host}" for scheme in names] + [f"{scheme}::proxy" for scheme in names]
        found = next((self.options[key] for key in keys if key in self.options), "DIRECT")
        return None if host in self.direct or found == "DIRECT" else urlsplit(found)

    def trusting(self) -> ssl.SSLContext:
        return _trusting(self.authorities)

    def login(self, to: SplitResult) -> str | None:
        """`user:password` from the address itself or apt's auth.conf, where one without scheme means https."""
        if to.username is not None:
            return f"{unquote(to.username)}:{unquote(to.password or '')}"
        for path in sorted(glob.glob(f"{APT}/auth.conf") + glob.glob(f"{APT}/auth.conf.d/*.conf")):
            with open(path, encoding="utf-8", errors="replace") as source:
                words = " ".join(line for line in source if not line.startswith("#")).split()
            for at in [at for at, word in enumerate(words) if word == "machine"]:
                entry = dict(zip(words[at : at + 6 : 2], words[at + 1 : at + 6 : 2]))
                machine = entry.get("machine", "")
                its = urlsplit(machine if "://" in machine else f"https://{machine}")
                same = (its.scheme, its.hostname) == (to.scheme, to.hostname) and its.port in (None, to.port)
                if same and to.path.startswith(its.path.rstrip("/")) and "login" in entry:
                    return f"{entry['login']}:{entry.get('password', '')}"
        return None


class Attempt:
    """One way to one target. `ended` is where it ends if time runs out now; None once it was reached."""

    # What is posted; without, the address is got.
    body = b""

    def __init__(self, target: str, way: Way, seconds: float, shown: str = "", headers: dict[str, str] | None = None) -> None:
        self.headers = headers or {}
        self.to = urlsplit(target if "://" in target else f"tcp://{target}")
        self.way, self.seconds, self.strict = way, seconds, bool(shown)
        self.proxy = way.proxy(self.to) if self.to.scheme in PORTS else None
        self.shown = _without_login(shown or target)
        first = self.proxy or self.to
        self.first = (first.hostname or "", first.port or PORTS.get(first.scheme, 0))
        self.ended: Ended | None = Ended("mute")
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()

    def work(self) -> None:
        try:
            with self.connected() as way:
                self.ended = Ended("beyond" if self.proxy else "silent", f"no answer within {self.seconds:g} s")
                if self.to.scheme in PORTS:
                    self.speak(way)
            self.ended = None
        except Ended as ended:
            self.ended = ended
        except ssl.SSLCertVerificationError as error:
            self.ended = Ended("untrusted", error.verify_message)
        except (TimeoutError, socket.timeout):
            pass
        except (OSError, HTTPException, ValueError) as error:
            self.ended = Ended("cut", error)

    def connected(self) -> socket.socket:
        host, port = self.first
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise Ended("mute" if error.errno == socket.EAI_AGAIN else "unknown", error.strerror) from None
        self.ended = ended = Ended("silent")
        for family, kind, protocol, _name, endpoint in found:
            way = socket.socket(family, kind, protocol)
            way.settimeout(self.seconds / len(found))
            try:
                way.connect(endpoint)
            except ConnectionRefusedError:
                ended = Ended("refused")
            except (TimeoutError, socket.timeout):
                ended = Ended("silent")
            except OSError as error:
                ended = Ended("nowhere", error.strerror)
            else:
                way.settimeout(self.seconds)
                return way
            way.close()
        raise ended

    def speak(self, way: socket.socket) -> None:
        host, port = self.to.hostname or "", self.to.port or PORTS[self.to.scheme]
        secure, at = self.to.scheme == "https", f"[{host}]" if ":" in host else host
        login = self.way.login(self.proxy) if self.proxy else None
        to_proxy = {"Proxy-Authorization": _basic(login)} if login else {}
        if self.proxy and secure:
            self.judge(_ask(way, "CONNECT", f"{at}:{port}", {"Host": f"{at}:{port}", **to_proxy}), through=True)
        if secure:
            way = self.way.trusting().wrap_socket(way, server_hostname=host)
        with way:
            place = at if self.to.port is None else f"{at}:{port}"
            target = (self.to.path or "/") + (f"?{self.to.query}" if self.to.query else "")
            own = self.way.login(self.to)
            headers = {"Host": place, "User-Agent": "bzzz", "Connection": "close", **({"Authorization": _basic(own)} if own else {})}
            headers.update(self.headers)
            if self.proxy and not secure:
                target, headers = f"http://{place}{target}", {**headers, **to_proxy}
            answer = _ask(way, "POST" if self.body else "GET", target, headers, self.body)
            self.judge(answer)
            self.take(answer)

    def take(self, answer: HTTPResponse) -> None:
        """What is read of an answer beyond its head: nothing."""

    def judge(self, answer: HTTPResponse, through: bool = False) -> None:
        """`through`: what answers is surely the proxy, which was to let this through."""
        said, code = f"{answer.status} {answer.reason}", answer.status
        if through and code < 300:
            return
        if self.proxy and code == 407:
            raise Ended("password")
        own = answer.getheader("X-Squid-Error")
        if through or (self.proxy and (own or code in (502, 503, 504))):
            raise Ended("beyond" if code >= 500 else "denied", f"{said} ({own})" if own else said)
        if code >= (400 if self.strict else 500):
            raise Ended("status", said)

    def told(self) -> tuple[str, str]:
        """What was seen, and a remedy; both empty where it was reached."""
        ended = self.ended
        if ended is None:
            return "", ""
        host, port = self.first
        words = {
            "host": self.to.hostname if ended.end == "untrusted" else host,
            "at": f"{f'[{host}]' if ':' in host else host}:{port}",
            "said": ended.said,
            "seconds": self.seconds,
            "resolvers": _resolvers(),
        }
        seen, remedy = (text.format(**words) for text in ENDS[ended.end])
        direct = self.proxy is None and self.to.scheme in PORTS and ended.end in ("unknown", "mute", "silent", "nowhere")
        return f"{self.shown}: {seen}", remedy + (PROXY_REMEDY if direct else "")


@functools.cache
def _trusting(authorities: str) -> ssl.SSLContext:
    """By these alone, as apt does. Reading them takes its time."""
    try:
        return ssl.create_default_context(cafile=authorities)
    except OSError:  # as is ssl.SSLError
        raise Ended("untrusted", f"{authorities} holds no authority's certificate") from None


def _without_login(url: str) -> str:
    return re.sub(r"//[^/]*@", "//", url)


def _basic(login: str) -> str:
    return "Basic " + base64.b64encode(login.encode()).decode()


def _ask(way: socket.socket, method: str, target: str, headers: dict[str, str], body: bytes = b"") -> HTTPResponse:
    """The head of the answer; of a body nothing is read."""
    connection = HTTPConnection("unused")
    connection.sock = way
    connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
    for name, text in headers.items():
        connection.putheader(name, text)
    if body:
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body or None)
    answer = HTTPResponse(way, method=method)
    answer.begin()
    return answer


def _resolvers() -> str:
    try:
        with open(RESOLVERS, encoding="utf-8", errors="replace") as source:
            named = re.findall(r"^\s*nameserver\s+(\S+)", source.read(), re.MULTILINE)
    except OSError:
        named = []
    return f"the node's resolvers ({', '.join(named)})" if named else "the node, which has no resolvers"


def _sources() -> tuple[dict[str, str], list[str]]:
    """Mirrors of this node's package sources, each with an address that apt asks there; and those that no HTTP leads to."""
    _code, out, _err = run(["apt-get", "update", "--print-uris"])
    mirrors = {url.rpartition("/dists/")[0] or url: url for url in re.findall(r"^'([^']*/InRelease)' ", out, re.MULTILINE)}
    web = {mirror: url for mirror, url in mirrors.items() if urlsplit(url).scheme in PORTS}
    return web, sorted(set(mirrors) - set(web))


def egress(
    _node: Node, *, targets: list[str] | None = None, sources: bool = False, direct: list[str] | None = None, timeout: float = 4
) -> Outcome:
    """URLs answer by the way that downloads go, `host:port` takes a connection; with `sources`, each mirror has what apt asks for.

    Hosts in `direct` are reached without the proxy. A remedy may say ``<target>`` and ``<remedy>``.
    """
    way = Way(direct or [])
    mirrors, others = _sources() if sources else ({}, [])
    if sources and way.program:
        return outcome("skip", f"apt finds its proxy by a program ({way.program}), which is not asked")
    if sources and not mirrors and not others:
        return outcome(False, "apt knows no source of packages here", "each answers", about=[{"target": "apt", "remedy": NO_SOURCES}])
    until = time.monotonic() + timeout
    attempts = [Attempt(url, way, timeout, mirror) for mirror, url in mirrors.items()]
    attempts += [Attempt(target, way, timeout) for target in targets or ()]
    for one in attempts:
        one.thread.join(max(0.0, until - time.monotonic()))
    told = [(one.shown, *one.told()) for one in attempts]
    lost = [{"target": shown, "remedy": remedy} for shown, seen, remedy in told if seen]
    by = {one.shown: f" by the proxy {one.first[0]}:{one.first[1]}" if one.proxy else "" for one in attempts}
    said = [seen for _shown, seen, _remedy in told if seen] or [f"{shown} answers{by[shown]}" for shown, _seen, _remedy in told]
    said += [f"{other} was not tried, since no HTTP leads there" for other in others]
    return outcome(not lost, "; ".join(said), "each answers", about=lost)


def _chrony() -> tuple[list[str], list[str]]:
    code, out, err = run(["chronyc", "-c", "-N", "sources", "-a"], 5)
    if code:
        raise OSError((out or err).strip())
    rows = [line.split(",") for line in out.splitlines() if line.count(",") >= 5]
    return [row[2] for row in rows if row[5] != "0"], [row[2] for row in rows if row[5] == "0"]


def _timesyncd() -> tuple[list[str], list[str]]:
    code, out, err = run(["timedatectl", "show-timesync"], 5)
    if code:
        raise OSError(err.strip())
    found = dict(line.split("=", 1) for line in out.splitlines() if "=" in line)
    name, address = found.get("ServerName", ""), found.get("ServerAddress", "")
    shown = " ".join(filter(None, (name, f"({address})" if address and address != name else "" if address else "(not resolved)")))
    return ([shown], []) if found.get("NTPMessage") else ([], [shown] if name else [])


def _ntpd() -> tuple[list[str], list[str]]:
    code, out, err = run(["ntpq", "-p", "-n"], 5)
    if code:
        raise OSError(err.strip())
    rows = [line[1:].split() for line in out.partition("=\n")[2].splitlines()]
    peers = [row for row in rows if len(row) >= 7 and row[1] != ".POOL."]
    return [row[0] for row in peers if row[6] != "0"], [row[0] for row in peers if row[6] == "0"]


# Time service -> sources that answer, and those that do not.
TIME_SERVICES: dict[str, Callable[[], tuple[list[str], list[str]]]] = {
    "chrony": _chrony,
    "systemd-timesyncd": _timesyncd,
    "ntpsec": _ntpd,
}


def time_source(_node: Node, *, synchronised: bool | None = None, services: list[str] | None = None) -> Outcome:
    """The kernel holds the clock for synchronised, or a source of the time service that runs answers; both as facts tell."""
    expected = "a synchronised clock, or a time source that answers"
    by = f"by {services[0]}" if services else "by no service of this node"
    if synchronised:
        return outcome(True, f"the clock is synchronised, {by}", expected)
    if not services:
        return outcome(False, "the clock is not synchronised, and no time service runs", expected)
    if services[0] not in TIME_SERVICES:
        return outcome(False, f"{services[0]} runs, but the clock is not synchronised", expected)
    try:
        answering, silent = TIME_SERVICES[services[0]]()
    except OSError as error:
        return outcome(False, f"{services[0]} runs, but does not tell of its sources: {error}", expected)
    if answering:
        return outcome(True, f"{services[0]} has an answer from {', '.join(answering)}", expected)
    return outcome(
        False, f"{services[0]} has no answer from " + (", ".join(silent) or "any source: none is configured or resolved"), expected
    )


KINDS: dict[str, Callable[..., Any]] = {"egress": egress, "time_source": time_source}
