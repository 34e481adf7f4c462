# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The node service's event and MCP ports on real nodes, with a real WebSocket client and the official MCP client."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
import requests
import sockets
from conftest import Tools
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from rest import Api, wait_for
from websockets.exceptions import ConnectionClosed, InvalidStatus

EVENTS, MCP = 8081, 3000
SERVICE = "bzzz.service"


@pytest.fixture(scope="module")
def api(cluster: Tools, tmp_path_factory: pytest.TempPathFactory) -> Api:
    return Api(cluster, tmp_path_factory.mktemp("api"))


def subscribe(api: Api, node: str, last: str = "", token: str | None = None) -> sockets.Client:
    url = f"wss://{api.addresses[node]}:{EVENTS}/events?last={last}"
    headers = {"Authorization": f"Bearer {api.token if token is None else token}"}
    return sockets.Client(url, ssl=ssl.create_default_context(cafile=str(api.ca)), additional_headers=headers)


def until(client: sockets.Client, what: str, is_it: Callable[[dict[str, Any]], bool], seconds: float = 60) -> list[dict[str, Any]]:
    """Every message up to this one."""
    heard: list[dict[str, Any]] = []
    deadline = time.monotonic() + seconds
    while not heard or not is_it(heard[-1]):
        try:
            heard.append(json.loads(client.recv(max(0.0, deadline - time.monotonic()))))
        except TimeoutError:
            pytest.fail(f"no {what} within {seconds:g} s; heard {[(one.get('event'), one.get('node')) for one in heard]}")
    return heard


def event(name: str, node: str | None = None, **data: Any) -> Callable[[dict[str, Any]], bool]:
    return lambda one: one.get("event") == name and node in (None, one["node"]) and data.items() <= one["data"].items()


def without_gap(first: dict[str, Any], heard: list[dict[str, Any]]) -> bool:
    life, _, number = first["id"].partition("-")
    return [one["id"] for one in heard] == [f"{life}-{int(number) + 1 + index}" for index in range(len(heard))]


@pytest.mark.requirement("T2", "8.2.4", part="live status by SSH, and another coordinator tells when one cannot")
def test_the_cluster_is_watched_by_way_of_its_coordinators(cluster: Tools, api: Api) -> None:
    command = [sys.executable, "-m", "bzzz_setup", "watch", "--json", "-i", str(cluster.folder)]
    process = subprocess.Popen(command, env=cluster.environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    stopped = None
    patience = threading.Timer(180, process.kill)
    patience.start()
    try:
        assert process.stdout
        lines = (json.loads(line) for line in process.stdout)
        first = next(lines)
        assert first["type"] == "snapshot" and [one["name"] for one in first["data"]["cluster"]["members"]] == sorted(cluster.nodes)
        telling = first["data"]["node"]
        other = next(node for node in cluster.nodes if node != telling)
        # Stopped and started, as who comes back within a second may never be seen away.
        stopped = other
        cluster.lab.exec(other, ["systemctl", "stop", SERVICE])
        next(one for one in lines if event("member_left", other)(one))
        cluster.lab.exec(other, ["systemctl", "start", SERVICE])
        next(one for one in lines if event("member_joined", other)(one))
        stopped = telling
        cluster.lab.exec(telling, ["systemctl", "stop", SERVICE])
        instead = next(one for one in lines if one["type"] == "snapshot" and one["data"]["node"] != telling)
        assert instead["data"]["node"] in cluster.nodes
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        patience.cancel()
        process.kill()
        if stopped:
            cluster.lab.exec(stopped, ["systemctl", "start", SERVICE])
            wait_for(f"return of {stopped}", lambda: api.member(stopped, other))
    # The token that was used is on the coordinators only.
    assert not any(api.token in file.read_text(errors="replace") for file in cluster.home.rglob("*") if file.is_file())


@pytest.mark.requirement("1.2.4", part="events over TLS, resumed by id, on real nodes")
@pytest.mark.requirement("8.2.4", part="events of a lost worker")
def test_a_stopped_service_is_told_of_elsewhere_and_who_comes_back_misses_nothing(cluster: Tools, api: Api) -> None:
    primary = api.agreed()["primary"]
    watcher, other = (node for node in cluster.nodes if node != primary)
    try:
        with subscribe(api, watcher) as client:
            first = json.loads(client.recv(10))
            assert (first["type"], first["reason"], first["data"]["cluster"]["primary"]) == ("snapshot", "new", primary)
            cluster.lab.exec(other, ["systemctl", "stop", SERVICE])
            heard = until(client, f"end of {other}", event("member_left", other))
        cluster.lab.exec(other, ["systemctl", "start", SERVICE])
        wait_for(f"return of {other}", lambda: api.member(other, watcher))
        with subscribe(api, watcher, heard[-1]["id"]) as client:
            assert json.loads(client.recv(10))["type"] == "resumed"
            heard += until(client, f"return of {other}", event("member_joined", other))
            heard += until(client, f"hardware of {other}", event("capabilities_changed", other, first=True))
    finally:
        cluster.lab.exec(other, ["systemctl", "start", SERVICE])
    assert without_gap(first, heard)
    with subscribe(api, other, heard[-1]["id"]) as client:
        assert json.loads(client.recv(10))["reason"] == "other_life"


@pytest.mark.requirement("8.1.2", part="events of a killed primary")
def test_a_killed_primary_is_an_event_and_so_is_its_successor(cluster: Tools, api: Api) -> None:
    primary = api.agreed()["primary"]
    watcher = next(node for node in cluster.nodes if node != primary)
    with subscribe(api, watcher) as client:
        first = json.loads(client.recv(10))
        # Frozen, so that systemd does not restart it at once; then killed.
        cluster.lab.exec(primary, ["systemctl", "kill", "-s", "STOP", SERVICE])
        try:
            heard = until(client, "another primary", lambda one: one.get("event") == "primary_changed" and one["data"]["to"] is not None)
        finally:
            cluster.lab.exec(primary, ["systemctl", "kill", "-s", "KILL", SERVICE])
        heard += until(client, f"return of {primary}", event("member_joined", primary))
    assert without_gap(first, heard)
    changes = [one["data"] for one in heard if one["event"] == "primary_changed"]
    assert changes[0]["from"] == primary and changes[-1]["to"] != primary
    assert any(event("member_left", primary)(one) for one in heard)
    assert api.agreed()["primary"] == changes[-1]["to"]


@pytest.mark.requirement("1.2.4", part="alert events")
def test_a_check_that_fails_is_an_alert_until_it_passes_again(cluster: Tools, api: Api) -> None:
    node, watcher = cluster.nodes[1], cluster.nodes[0]
    api.agreed()
    data = "/srv/bzzz/data"
    with subscribe(api, watcher) as client:
        client.recv(10)
        cluster.lab.exec(node, ["chown", "root", data])
        try:
            (*_, began) = until(client, "alert", event("began", node, check="storage"))
            assert began["type"] == "alert" and began["data"]["status"] == "fail" and data in began["data"]["message"]
        finally:
            cluster.lab.exec(node, ["chown", "bzzz", data])
        until(client, "end of the alert", event("ended", node, check="storage"))


@pytest.mark.requirement("F8", part="a run is recorded in the cluster")
def test_a_validated_run_is_an_event_with_its_checks(cluster: Tools, api: Api) -> None:
    with subscribe(api, cluster.nodes[2]) as client:
        client.recv(10)
        document = cluster.document("verify")
        (*_, heard) = until(client, "record of the run", event("recorded"), 10)
    record, statuses = heard["data"], [check["status"] for check in document["checks"]]
    assert (record["outcome"], record["nodes"], record["lost"]) == ("passed", cluster.nodes, [])
    assert record["checks"] == {status: statuses.count(status) for status in ("pass", "warn", "fail", "skip")}
    for node in cluster.nodes:  # each looks about once a second
        wait_for(f"the record on {node}", lambda node=node: api.cluster(node)["last_run"] == record, 10)
    assert document["changes"] == []


@pytest.mark.requirement("1.2.2", part="MCP by the official client, on real nodes")
def test_the_official_mcp_client_gets_what_the_api_tells(cluster: Tools, api: Api) -> None:
    told = api.agreed()
    node = cluster.nodes[1]

    async def ask() -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {api.token}"}
        url = f"https://{api.addresses[node]}:{MCP}/mcp"
        context = ssl.create_default_context(cafile=str(api.ca))
        async with (
            httpx2.AsyncClient(verify=context, headers=headers, trust_env=False, timeout=60) as http,
            Client(streamable_http_client(url, http_client=http)) as client,
        ):
            tools = (await client.list_tools()).tools
            assert all(tool.annotations and tool.annotations.read_only_hint and tool.output_schema for tool in tools)
            return {tool.name: (await client.call_tool(tool.name, {})).structured_content for tool in tools}

    answers = asyncio.run(ask())
    status = answers["cluster_status"]
    assert {key: status[key] for key in ("primary", "term", "coordinators", "current")} == {
        key: told[key] for key in ("primary", "term", "coordinators", "current")
    }
    assert status["asked_node"] == node and status["nodes"] == len(cluster.nodes)
    assert [one["name"] for one in answers["nodes"]["nodes"]] == cluster.nodes
    assert answers["models"]["models"] == []
    assert {(one["node"], one["name"]) for one in answers["checks"]["checks"]} >= {(name, "storage") for name in cluster.nodes}
    metrics = api.get(node, "/metrics").text
    assert re.search(r'^bzzz_mcp_calls_total\{outcome="ok",tool="nodes"\} [1-9]', metrics, re.MULTILINE)
    # With the SDK loaded, and within the unit's limits.
    pid = cluster.lab.exec(node, ["systemctl", "show", "--value", "-p", "MainPID", SERVICE]).stdout.strip()
    (resident,) = re.findall(r"VmRSS:\s+(\d+) kB", cluster.lab.exec(node, ["cat", f"/proc/{pid}/status"]).stdout)
    assert int(resident) < 128 * 1024


@pytest.mark.requirement("1.2.2", part="only with the token")
@pytest.mark.requirement("1.2.4", part="only with the token")
def test_both_ports_refuse_a_wrong_token_and_tell_nothing(cluster: Tools, api: Api) -> None:
    node = cluster.nodes[0]
    for wrong in ("", "wrong", api.token[:-1]):
        with pytest.raises(InvalidStatus) as caught, subscribe(api, node, token=wrong):
            pass
        assert caught.value.response.status_code == 401
        for port, path in ((EVENTS, "/events"), (MCP, "/mcp")):
            answer = api.get(node, path, token=wrong, port=port)
            assert answer.status_code == 401 and answer.headers["www-authenticate"].startswith("Bearer")
            assert answer.headers["content-security-policy"].startswith("default-src 'none'")
            assert answer.headers["x-content-type-options"] == "nosniff" and not answer.headers.get("server")
            assert not any(name in answer.text for name in cluster.nodes)
    for port in (EVENTS, MCP):
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(f"https://{api.addresses[node]}:{port}/", timeout=5)
        with pytest.raises(requests.RequestException):
            requests.get(f"http://{api.addresses[node]}:{port}/", timeout=5).raise_for_status()


@pytest.mark.requirement("1.2.3", part="the page may talk to its node's event port only")
def test_the_page_is_allowed_its_own_event_port_and_a_session_opens_it(cluster: Tools, api: Api) -> None:
    address = api.addresses[cluster.nodes[0]]
    browser = requests.Session()
    browser.trust_env, browser.verify = False, str(api.ca)
    shown = browser.post(f"https://{address}:8080/sign-in", data={"token": api.token}, timeout=5)
    assert f"connect-src 'self' wss://{address}:{EVENTS};" in shown.headers["content-security-policy"]
    assert f'data-events-port="{EVENTS}"' in shown.text
    cookie = "; ".join(f"{one.name}={one.value}" for one in browser.cookies)
    context = ssl.create_default_context(cafile=str(api.ca))
    for origin, status in ((f"https://{address}:8080", 101), ("https://evil.example", 403)):
        try:
            headers = {"Cookie": cookie, "Origin": origin}
            with sockets.Client(f"wss://{address}:{EVENTS}/events", ssl=context, additional_headers=headers) as client:
                assert json.loads(client.recv(10))["type"] == "snapshot" and status == 101
        except InvalidStatus as refused:
            assert refused.response.status_code == status


@pytest.mark.requirement("F6", part="orderly stop")
def test_a_stop_sends_clients_away_and_ends_well_within_its_time(cluster: Tools, api: Api) -> None:
    node = cluster.nodes[2]
    api.agreed()
    try:
        with subscribe(api, node) as client:
            client.recv(10)
            began = time.monotonic()
            cluster.lab.exec(node, ["systemctl", "stop", SERVICE])
            took = time.monotonic() - began
            with pytest.raises(ConnectionClosed) as caught:
                while True:
                    client.recv(10)
        assert caught.value.rcvd and caught.value.rcvd.code == 1001
        assert took < 20 and cluster.lab.exec(node, ["systemctl", "show", "--value", "-p", "Result", SERVICE]).stdout.strip() == "success"
    finally:
        cluster.lab.exec(node, ["systemctl", "start", SERVICE])
    api.agreed()
