# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is needed outside, on the loopback: servers, a proxy that wants a password, and stand-ins for apt and the time services."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.bzzz.cluster.plugins.module_utils import probe
from ansible_collections.bzzz.cluster.plugins.module_utils.node import egress, probes
from stand_ins import ELSEWHERE, Proxy, certificate, https, pem

PASSWORD = "canary-5d0e"
Put = Callable[[str, str], None]


def look(kind: str, args: Any) -> dict[str, Any]:
    """A check, as the controller makes it of the node's answer."""
    entry = probe.understand("test", {"id": "x", "title": "x", "remedy": "<target>: <remedy>.", kind: args})
    (found,) = probe.judge("me", [entry], probes.main(probe.question("me", [entry]))["outcomes"])
    assert PASSWORD not in json.dumps(found)
    return found


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Put:
    """Put an executable before all others on PATH. apt has neither configuration nor sources unless a test says so."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "apt/auth.conf.d").mkdir(parents=True)
    (tmp_path / "resolv.conf").write_text("search corp.test\nnameserver 192.0.2.53\nnameserver 192.0.2.54\n")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setattr(egress, "APT", str(tmp_path / "apt"))
    monkeypatch.setattr(egress, "RESOLVERS", str(tmp_path / "resolv.conf"))

    def put(name: str, out: str) -> None:
        path = tmp_path / "bin" / name
        path.write_text(f"#!/bin/sh\ncat <<'OUT'\n{out}\nOUT\n")
        path.chmod(0o755)

    put("apt-config", "")
    put("apt-get", "")
    return put


def go_by(put: Put, folder: Path, proxy: str, login: str = "") -> None:
    put("apt-config", f'Acquire::http::Proxy "{proxy}";\nAcquire::http::Proxy::127.0.0.9 "DIRECT";\nAcquire::Retries "3";')
    user, _, password = login.partition(":")
    (folder / "apt/auth.conf.d/bzzz-proxy.conf").write_text(f"# ours\nmachine {proxy} login {user} password {password}\n" if login else "")


@contextlib.contextmanager
def answering(status: int, **headers: str) -> Iterator[str]:
    """A server, or a proxy, that answers so whatever it is asked."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, text in headers.items():
                self.send_header(name.replace("_", "-"), text)
            self.end_headers()

        do_CONNECT = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@contextlib.contextmanager
def silent() -> Iterator[str]:
    """Takes connections, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.requirement("1.3.4", part="what is needed outside")
def test_what_answers_is_reached(tools: Put) -> None:
    with answering(401) as url, silent() as port:
        found = look("egress", {"targets": [f"{url}/v1/models", port]})
    assert found["status"] == "pass" and found["seen"] == f"{url}/v1/models answers; {port} answers"


@pytest.mark.requirement("1.3.4", part="what is needed outside and does not answer: where its way ends")
def test_each_end_of_a_way_is_told_apart(tools: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    def known(host: str, *rest: Any, **more: Any) -> Any:
        if host == "mute.test":
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        if host == "slow.test":
            time.sleep(5)
        return real("127.0.0.1" if host == ELSEWHERE else host, *rest, **more)

    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", known)
    began = time.monotonic()
    with answering(503) as broken, silent() as port:
        targets = ["gone.invalid:25", "mute.test:25", "slow.test:25", "127.0.0.1:1", f"http://{port}/", broken]
        found = look("egress", {"targets": targets, "timeout": 1})
    assert time.monotonic() - began < 2, "one waited for the other"
    said = found["seen"].split("; ")
    resolvers = "the node's resolvers (192.0.2.53, 192.0.2.54)"
    assert said == [
        f"gone.invalid:25: the name gone.invalid is not known to {resolvers}",
        f"mute.test:25: {resolvers} gave no answer about mute.test",
        f"slow.test:25: {resolvers} gave no answer about slow.test",
        "127.0.0.1:1: 127.0.0.1:1 refuses the connection",
        f"http://{port}/: {port} gave no answer within 1 s",
        f"{broken}: it answers 503 Service Unavailable",
    ]
    assert found["status"] == "fail" and found["remedy"].count("; ") == 5
    assert f"http://{port}/: let the node's way out (firewalls, routes) reach {port}, or declare the proxy" in found["remedy"]


@pytest.mark.requirement("1.3.4", part="what is needed outside, by proxy and private certificate")
def test_addresses_go_the_way_of_downloads(tools: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = certificate()
    with https(tmp_path, authority, {}) as url, Proxy(f"builder:{PASSWORD}").running() as proxy:
        target = f"https://{ELSEWHERE}:{url.rpartition(':')[2]}/v1"  # which only the proxy knows
        go_by(tools, tmp_path, proxy.url, "builder:wrong")
        refused = look("egress", {"targets": [target]})
        go_by(tools, tmp_path, proxy.url, f"builder:{PASSWORD}")
        (tmp_path / "others.pem").write_text(pem(certificate()[0]))
        monkeypatch.setattr(egress, "AUTHORITIES", str(tmp_path / "others.pem"))
        foreign = look("egress", {"targets": [target]})
        monkeypatch.setattr(egress, "AUTHORITIES", os.devnull)
        nobody = look("egress", {"targets": [target]})
        (tmp_path / "ca.pem").write_text(pem(authority[0]))
        monkeypatch.setattr(egress, "AUTHORITIES", str(tmp_path / "ca.pem"))
        reached = look("egress", {"targets": [target]})
        direct = look("egress", {"targets": [f"{url}/v1"], "direct": ["localhost"]})
    where = proxy.url.removeprefix("http://")
    assert refused["seen"] == f"{target}: the proxy {where} wants another user or password (407)"
    assert "downloads_proxy_credentials" in refused["remedy"]
    assert (
        foreign["seen"].startswith(f"{target}: the certificate of {ELSEWHERE} is not trusted: ")
        and "downloads_ca_files" in foreign["remedy"]
    )
    assert nobody["seen"] == f"{target}: the certificate of {ELSEWHERE} is not trusted: /dev/null holds no authority's certificate"
    assert (reached["status"], reached["seen"]) == ("pass", f"{target} answers by the proxy {where}")
    assert (direct["status"], direct["seen"]) == ("pass", f"{url}/v1 answers") and len(proxy.asked) == 4


@pytest.mark.parametrize(
    ("status", "headers", "target", "seen"),
    [
        (403, {}, "https://there.test/", "does not let this through: 403 Forbidden"),
        (503, {}, "https://there.test/", "does not get there: 503 Service Unavailable"),
        (504, {}, "http://there.test/", "does not get there: 504 Gateway Timeout"),
        (503, {"X_Squid_Error": "ERR_DNS_FAIL 0"}, "http://there.test/", "does not get there: 503 Service Unavailable (ERR_DNS_FAIL 0)"),
        (403, {"X_Squid_Error": "ERR_ACCESS_DENIED 0"}, "http://there.test/", "through: 403 Forbidden (ERR_ACCESS_DENIED 0)"),
        (407, {}, "http://there.test/", "wants another user or password (407)"),
        (403, {}, "http://there.test/", None),  # said by the server itself
    ],
)
def test_what_a_proxy_says(tools: Put, tmp_path: Path, status: int, headers: dict[str, str], target: str, seen: str | None) -> None:
    with answering(status, **headers) as proxy:
        go_by(tools, tmp_path, proxy)
        found = look("egress", {"targets": [target]})
    assert found["status"] == "fail" and seen in found["seen"] if seen else found["status"] == "pass"


def test_a_proxy_that_waits_in_vain(tools: Put, tmp_path: Path) -> None:
    with silent() as port:
        go_by(tools, tmp_path, f"http://{port}")
        found = look("egress", {"targets": ["https://there.test/"], "timeout": 0.3})
    assert found["seen"] == f"https://there.test/: the proxy {port} does not get there: no answer within 0.3 s"


def uris(*mirrors: str) -> str:
    """As `apt-get update --print-uris` tells of them."""
    suites = [f"{mirror}/dists/{suite}" for mirror in mirrors for suite in ("bookworm", "bookworm-updates")]
    return "\n".join(f"'{one}/InRelease' x_InRelease 0 \n'{one}/main/binary-amd64/Packages.xz' x_Packages 0 " for one in suites)


@pytest.mark.requirement("1.3.4", part="package sources")
def test_each_mirror_of_the_package_sources_is_asked_once(tools: Put, tmp_path: Path) -> None:
    with answering(200) as there, answering(404) as empty:
        tools("apt-get", uris(f"{there}/debian", f"{there.replace('//', f'//me:{PASSWORD}@')}/own", "file:///srv/mirror"))
        good = look("egress", {"sources": True})
        tools("apt-get", uris(f"{there}/debian", f"{empty}/debian"))
        bad = look("egress", {"sources": True})
    assert good["status"] == "pass"
    assert good["seen"] == f"{there}/debian answers; {there}/own answers; file:///srv/mirror was not tried, since no HTTP leads there"
    assert (bad["status"], bad["seen"]) == ("fail", f"{empty}/debian: it answers 404 Not Found")
    tools("apt-get", "")
    assert "downloads_apt_mirror" in look("egress", {"sources": True})["remedy"]
    tools("apt-get", uris("http://192.0.2.1"))
    tools("apt-config", 'Acquire::http::Proxy-Auto-Detect "/usr/bin/find-proxy";')
    assert look("egress", {"sources": True})["status"] == "skip"


CHRONY = "^,*,a.test,2,6,{},5,0.1,0.1,0.2\n^,?,b.test,0,6,0,4294967295,0.0,0.0,0.0"
NTPQ = """     remote           refid      st t when poll reach   delay   offset  jitter
==============================================================================
 0.debian.pool.n .POOL.          16 p    -   64    0    0.000    0.000   0.002
*192.0.2.1       .GPS.            1 u   12   64  {}    0.200    0.010   0.004"""


@pytest.mark.requirement("1.3.4", part="time source")
@pytest.mark.parametrize(
    ("service", "tool", "says", "status", "seen"),
    [
        ("chrony", "chronyc", CHRONY.format("377"), "pass", "chrony has an answer from a.test"),
        ("chrony", "chronyc", CHRONY.format("0"), "fail", "chrony has no answer from a.test, b.test"),
        ("chrony", "chronyc", "", "fail", "chrony has no answer from any source"),
        (
            "systemd-timesyncd",
            "timedatectl",
            "ServerName=a.test\nServerAddress=192.0.2.1\nNTPMessage={ Leap=0 }",
            "pass",
            "a.test (192.0.2.1)",
        ),
        ("systemd-timesyncd", "timedatectl", "ServerName=a.test\nServerAddress=192.0.2.1", "fail", "no answer from a.test (192.0.2.1)"),
        ("systemd-timesyncd", "timedatectl", "ServerName=a.test", "fail", "no answer from a.test (not resolved)"),
        ("ntpsec", "ntpq", NTPQ.format("377"), "pass", "ntpsec has an answer from 192.0.2.1"),
        ("ntpsec", "ntpq", NTPQ.format("  0"), "fail", "ntpsec has no answer from 192.0.2.1"),
        ("openntpd", "ntpctl", "", "fail", "openntpd runs, but the clock is not synchronised"),
    ],
)
def test_a_time_service_tells_whether_it_has_an_answer(tools: Put, service: str, tool: str, says: str, status: str, seen: str) -> None:
    tools(tool, says)
    found = look("time_source", {"synchronised": False, "services": [service]})
    assert found["status"] == status and seen in found["seen"], found["seen"]


def test_a_clock_that_is_synchronised_is_enough(tools: Put) -> None:
    assert look("time_source", {"synchronised": True, "services": []})["status"] == "pass"
    assert "no time service runs" in look("time_source", {"synchronised": False, "services": []})["seen"]
    assert look("time_source", {"synchronised": None, "services": []})["status"] == "fail"
