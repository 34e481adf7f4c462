# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Users, tokens, roles and lock-outs: the rules by themselves, and on node services with a real etcd, all on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from node_cluster import PASSWORD, TOKEN, Cluster, Node, add_user, audit, call, etcd_program, issue, sign_in, wait_for
from websockets.exceptions import ConnectionClosed, InvalidStatus

from bzzz_setup import release
from bzzz_setup.node.auth import passwords, records
from bzzz_setup.node.auth.gate import Throttle
from bzzz_setup.node.auth.principals import ADMIN, OPERATOR, ROLES, SCOPES, VIEWER, Principal

LOCKOUT = 12

# --- rules ---


def test_a_role_may_what_the_ones_below_may_and_scopes_only_take_away() -> None:
    for scope, least in SCOPES.items():
        for role in ROLES:
            whole, none, one = (Principal("token", "t", role, scopes) for scopes in ((), ("unknown",), (scope,)))
            assert whole.may(scope) == one.may(scope) == (ROLES.index(role) >= ROLES.index(least))
            assert not none.may(scope)
    assert not Principal("ldap", "x", "root").may("api"), "an unknown role is none"
    assert not Principal("user", "anna", OPERATOR).may("auth") and Principal("user", "anna", ADMIN).may("auth")


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
_fields = st.dictionaries(st.sampled_from(["name", "role", "password", "scopes", "days", "locked", "id", "other"]), _json)


@pytest.mark.requirement("L7", part="users and tokens")
@given(st.binary(max_size=60) | st.builds(lambda fields: json.dumps(fields).encode(), _fields | _json))
def test_any_body_gives_fields_or_problems_that_repeat_nothing(body: bytes) -> None:
    for parsers in (records.NEW_USER, records.CHANGED_USER, records.NEW_TOKEN):
        try:
            found = records.asked(
                body, parsers, records.TOKEN_DEFAULTS if parsers is records.NEW_TOKEN else None, partly="locked" in parsers
            )
        except records.Invalid as invalid:
            assert invalid.problems and all(each.key and each.message and each.remedy for each in invalid.problems)
        else:
            assert found.keys() <= parsers.keys()


def test_a_wrong_body_names_each_field_and_never_the_password() -> None:
    for body in (b"", b"[]", b"[" * 4000, b"\xff"):
        with pytest.raises(records.Invalid, match="JSON object"):
            records.asked(body, records.NEW_USER)
    with pytest.raises(records.Invalid) as caught:
        records.asked(b'{"name": "A b", "role": "root", "password": "canary", "more": 1}', records.NEW_USER)
    assert {each.key for each in caught.value.problems} == {"body", "name", "role", "password"} and "canary" not in str(caught.value)
    for days in (0, -1, True, "7", 1e400, 4000):
        with pytest.raises(records.Invalid):
            records.asked(json.dumps({"name": "t", "days": days}).encode(), records.NEW_TOKEN, records.TOKEN_DEFAULTS)


@given(st.binary(max_size=60) | st.builds(lambda fields: json.dumps(fields).encode(), _fields))
def test_no_record_of_another_shape_becomes_a_user_or_token(value: bytes) -> None:
    assert records.load_user("anna", value, 1) is None
    assert records.load_token("0123456789abcdef", value, 1) is None


@given(st.sampled_from(ROLES), st.lists(st.sampled_from([*SCOPES, "of another release"]), unique=True), st.integers(0, 2**40))
def test_records_come_back_as_they_were(role: str, scopes: list[str], moment: int) -> None:
    user = records.User("anna", role, "hash", moment, moment, "cluster", 7)
    assert records.load_user("anna", records.dump(user).encode(), 7) == user
    assert records.load_user("berta", records.dump(user).encode(), 7) is None, "a record copied to another name"
    token = records.Token("0123456789abcdef", "t", role, tuple(scopes), "sha", moment, moment, "user:anna", 7)
    assert records.load_token(token.id, records.dump(token).encode(), 7) == token


@given(st.text(max_size=80))
def test_only_our_own_tokens_have_an_id(text: str) -> None:
    secret = "a" * 43
    assert records.token_id(text) is None
    assert records.token_id(f"bzzz_0123456789abcdef_{secret}") == "0123456789abcdef"
    assert records.token_id(f"bzzz_0123456789abcdef_{secret}{text}") is None or not text


@pytest.mark.requirement("2.4.4", part="argon2id")
def test_a_password_is_kept_as_argon2id_and_nobodys_is_as_dear() -> None:
    kept = passwords.hashed("pässwörd of twelve")
    assert kept.startswith("$argon2id$v=19$m=65536,t=3,p=4$") and kept.rpartition("$")[0].count("$") == passwords.NOBODYS.count("$") - 1
    assert kept.split("$")[3] == passwords.NOBODYS.split("$")[3] and len(kept) == len(passwords.NOBODYS)
    assert passwords.fits("pa\u0308sswo\u0308rd of twelve", kept), "however the letters are composed"
    assert not passwords.fits("pässwörd of twelv", kept) and not passwords.fits("x", None) and not passwords.fits("x", "no hash")
    assert not passwords.fits("\ud800", kept)


def test_an_address_that_fails_often_waits_and_others_do_not() -> None:
    now = [0.0]
    throttle = Throttle(3, 10, lambda: now[0])
    for _ in range(3):
        assert not throttle.seconds("2001:db8::1")
        throttle.failed("2001:db8::2")
        now[0] += 1
    assert throttle.seconds("2001:db8::ffff") == 7, "an IPv6 network is one source"
    assert not throttle.seconds("2001:db8:0:1::1") and not throttle.seconds("192.0.2.1")
    now[0] = 10
    assert not throttle.seconds("2001:db8::1")
    for number in range(10_000):
        throttle.failed(f"10.0.{number // 256}.{number % 256}")
    assert len(throttle._failures) <= 4096


# --- on node services ---


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with contextlib.closing(Cluster(tmp_path_factory.mktemp("auth"), release.build(), 3, etcd_program())) as made:
        yield made


@pytest.fixture(scope="module")
def nodes(cluster: Cluster) -> list[Node]:
    """Three nodes whose lock-outs are short; the third one's need many failures."""
    nodes = cluster.form("node1", "node2", "node3")
    for node, failures in zip(nodes, (3, 3, 30)):
        node.settings["auth"] |= {"lockout_failures": failures, "lockout_seconds": LOCKOUT}
        assert node.stop() == 0
        node.start()
    wait_for(lambda: all(node.ready() and len(node.members()) == 3 for node in nodes), 20, "all are back")
    return nodes


@pytest.mark.requirement("2.4.1")
@pytest.mark.requirement("2.4.0", part="REST API, events and MCP of the node service")
def test_a_token_is_issued_works_everywhere_within_its_scopes_and_is_revoked_within_seconds(cluster: Cluster, nodes: list[Node]) -> None:
    one, two, _ = nodes
    whole, scraper = issue(one, "whole"), issue(one, "prometheus", scopes=["metrics"])
    secret = whole["token"]
    wait_for(lambda: call(two, "GET", "/api/v1/cluster", secret)[0] == 200, 3, "it works on another node")
    assert call(two, "GET", "/api/v1/me", secret)[1] == {
        **{"kind": "token", "name": f"whole/{whole['id']}", "role": VIEWER},
        "scopes": ["api", "events", "mcp", "metrics", "models"],
    }
    wait_for(lambda: two.request("/metrics", token=scraper["token"])[0] == 200, 3, "so does the other")

    # Scopes, on every port.
    assert two.request("/api/v1/node", token=scraper["token"])[0] == 403
    assert two.request("/events", token=scraper["token"], port=two.events_port)[0] == 403
    assert two.request("/mcp", token=scraper["token"], port=two.mcp_port, body=b"{}")[0] == 403
    with pytest.raises(InvalidStatus, match="403"), two.events(token=scraper["token"]):
        pass
    # A viewer changes nothing, and does not even see users.
    for method, path in (
        ("GET", "/users"),
        ("POST", "/users"),
        ("GET", "/tokens"),
        ("POST", "/tokens"),
        ("DELETE", f"/tokens/{whole['id']}"),
    ):
        assert call(two, method, f"/api/v1{path}", secret, {"name": "x"} if method == "POST" else None)[0] == 403

    # Listed, without the secret; and nowhere but as a hash.
    listed = {token["id"]: token for token in call(two, "GET", "/api/v1/tokens")[1]["tokens"]}
    assert listed[whole["id"]] == {key: value for key, value in whole.items() if key != "token"} and not listed[whole["id"]]["expired"]
    held = cluster.etcd.ctl("get", "--prefix", "/").stdout
    assert f"/bzzz-auth/test/tokens/{whole['id']}" in held
    word = secret.split("_", 2)[2]  # of letters, digits, - and _
    assert len(word) == 43 and word not in held and word not in "".join(node.log.read_text() for node in nodes)

    # MCP by the official client, and events, until it is revoked on another node.
    async def ask() -> Any:
        async with (
            httpx2.AsyncClient(verify=two.tls(), headers={"Authorization": f"Bearer {secret}"}, trust_env=False, timeout=30) as http,
            Client(streamable_http_client(f"https://127.0.0.1:{two.mcp_port}/mcp", http_client=http)) as client,
        ):
            return (await client.call_tool("cluster_status", {})).structured_content

    assert asyncio.run(ask())["nodes"] == 3
    with two.events(token=secret) as client:
        assert json.loads(client.recv(10))["type"] == "snapshot"
        assert call(one, "DELETE", f"/api/v1/tokens/{whole['id']}")[0] == 204
        began = time.monotonic()
        with pytest.raises(ConnectionClosed) as caught:
            while True:
                client.recv(10)
    assert caught.value.rcvd and caught.value.rcvd.code == 1008
    wait_for(lambda: {call(node, "GET", "/api/v1/cluster", secret)[0] for node in nodes} == {401}, 3, "refused everywhere")
    assert time.monotonic() - began < 3
    assert call(one, "DELETE", f"/api/v1/tokens/{whole['id']}")[0] == 404
    assert whole["id"] not in cluster.etcd.ctl("get", "--prefix", "/bzzz-auth/").stdout

    # Who, what, from where, when.
    (issued,) = audit(one, audit="token.issue", id=whole["id"])
    assert (issued["who"], issued["from"], issued["role"], issued["node"]) == ("cluster", "127.0.0.1", VIEWER, "node1")
    assert issued["time"].startswith(time.strftime("%Y-%m", time.gmtime()))
    assert len(audit(one, audit="token.revoke", id=whole["id"])) == 1
    assert len(audit(two, audit="bearer", who=f"token:whole/{whole['id']}", outcome="ok")) == 1, "once, not with each request"
    assert audit(two, audit="request", outcome="refused", scope="events")


@pytest.mark.requirement("2.4.1", part="expiry")
def test_a_token_expires(nodes: list[Node]) -> None:
    token = issue(nodes[0], "short", days=3 / 86400)
    assert call(nodes[0], "GET", "/api/v1/cluster", token["token"])[0] == 200
    wait_for(lambda: call(nodes[0], "GET", "/api/v1/cluster", token["token"])[0] == 401, 6, "its end")
    assert [each["expired"] for each in call(nodes[0], "GET", "/api/v1/tokens")[1]["tokens"] if each["id"] == token["id"]] == [True]
    assert call(nodes[0], "DELETE", f"/api/v1/tokens/{token['id']}")[0] == 204


@pytest.mark.requirement("2.4.4")
def test_a_user_signs_in_on_any_node_with_a_role_and_is_out_when_it_is_changed(cluster: Cluster, nodes: list[Node]) -> None:
    one, two, three = nodes
    add_user(one, "anna")
    assert call(one, "POST", "/api/v1/users", body={"name": "anna", "role": ADMIN, "password": PASSWORD})[0] == 409
    status, problem = call(one, "POST", "/api/v1/users", body={"name": "Eve!", "role": "root", "password": "short"})
    assert status == 422 and "short" not in problem["detail"]
    assert {each["option"] for each in problem["problems"]} == {"name", "role", "password"}

    def session(node: Node) -> str:
        return wait_for(lambda: sign_in(node, "anna")[1], 3, "she signs in")  # type: ignore[no-any-return]

    cookie = session(two)
    assert b"Primary coordinator" in two.request("/", token=None, Cookie=cookie)[2]
    assert call(two, "GET", "/api/v1/me", None, Cookie=cookie)[1]["role"] == VIEWER
    assert call(two, "GET", "/api/v1/users", None, Cookie=cookie)[0] == 403
    assert call(three, "GET", "/api/v1/me", None, Cookie=cookie)[0] == 401, "a session is one node's"

    # Another role: the session ends, and the next one has it. A browser changes something from the node's own page only.
    assert call(one, "PATCH", "/api/v1/users/anna", body={"role": ADMIN})[1]["role"] == ADMIN
    wait_for(lambda: call(two, "GET", "/api/v1/me", None, Cookie=cookie)[0] == 401, 3, "the session's end")
    cookie = session(two)
    body = {"name": "berta", "role": OPERATOR, "password": PASSWORD}
    for origin in (None, "https://evil.example", f"https://127.0.0.1:{two.events_port}"):
        more = {"Origin": origin} if origin else {}
        assert call(two, "POST", "/api/v1/users", None, body, Cookie=cookie, **more)[0] == 403
    assert call(two, "POST", "/api/v1/users", None, body, Cookie=cookie, Origin=f"https://127.0.0.1:{two.port}")[0] == 201
    (line,) = audit(two, audit="user.add")
    assert (line["who"], line["user"], line["role"], line["from"]) == ("user:anna", "berta", OPERATOR, "127.0.0.1")

    listed = call(three, "GET", "/api/v1/users")[1]["users"]
    assert [(user["name"], user["role"]) for user in listed] == [("anna", ADMIN), ("berta", OPERATOR)] and "password" not in listed[0]
    held = cluster.etcd.ctl("get", "--prefix", "/").stdout
    assert "$argon2id$v=19$" in held and PASSWORD not in held and PASSWORD not in "".join(node.log.read_text() for node in nodes)

    # Another password, and none any more.
    assert call(one, "PATCH", "/api/v1/users/anna", body={"password": PASSWORD + "!"})[0] == 200
    wait_for(lambda: call(two, "GET", "/api/v1/me", None, Cookie=cookie)[0] == 401, 3, "the session's end")
    assert sign_in(three, "anna", PASSWORD)[0] == 401 and sign_in(three, " Anna", PASSWORD + "!")[0] == 303
    for name in ("anna", "berta"):
        assert call(one, "DELETE", f"/api/v1/users/{name}")[0] == 204
    wait_for(lambda: sign_in(three, "anna", PASSWORD + "!")[0] == 401, 3, "she is gone")
    assert call(one, "DELETE", "/api/v1/users/anna")[0] == call(one, "PATCH", "/api/v1/users/anna", body={"role": VIEWER})[0] == 404
    assert audit(three, audit="sign_in", who="user:anna", outcome="ok") and audit(three, audit="sign_in", who=None, outcome="refused")


@pytest.mark.requirement("2.4.4", part="lock-out and its end, on every node")
def test_failures_lock_an_account_on_every_node_until_the_lockout_ends(nodes: list[Node]) -> None:
    one, two, _ = nodes
    add_user(one, "carla")
    # Known or not, on whichever node: the third failure locks, and the answers are the same.
    for name in ("carla", "nobody"):
        assert [sign_in(node, name, "wrong")[0] for node in (one, two, one, two, two)] == [401, 401, 401, 429, 429]
    assert sign_in(two, "carla")[0] == 429, "the right password does not help, nor does it tell"
    (user,) = (user for user in call(two, "GET", "/api/v1/users")[1]["users"] if user["name"] == "carla")
    assert user["locked"]
    (line, *_) = audit(two, audit="sign_in", outcome="locked")
    assert line["who"] is None and line["name"] == "carla", "of known accounts only"
    assert not [line for node in nodes for line in audit(node) if line.get("name") == "nobody"]
    wait_for(lambda: sign_in(one, "carla")[0] == 303, LOCKOUT + 8, "the lock-out ends by itself")
    # A success in between begins anew; an administrator unlocks.
    assert [sign_in(one, "carla", "wrong")[0] for _ in range(2)] == [401, 401] and sign_in(one, "carla")[0] == 303
    assert [sign_in(one, "carla", "wrong")[0] for _ in range(4)] == [401, 401, 401, 429]
    assert call(two, "PATCH", "/api/v1/users/carla", body={"locked": False})[1]["locked"] is False
    assert sign_in(two, "carla")[0] == 303
    # One address that tries many names has to wait, whatever the name; its tokens go on working.
    tried = [sign_in(one, f"x{number}", "wrong", "127.0.0.9")[0] for number in range(13)]
    assert tried == [401] * 12 + [429] and sign_in(one, "carla", source="127.0.0.9")[0] == 429
    assert audit(one, audit="sign_in", outcome="throttled", **{"from": "127.0.0.9"})
    assert sign_in(one, "carla")[0] == 303 and one.request("/api/v1/node")[0] == 200
    assert call(one, "DELETE", "/api/v1/users/carla")[0] == 204


@pytest.mark.requirement("2.4.4", part="no user is found by timing")
def test_an_unknown_user_takes_as_long_as_a_known_one(nodes: list[Node]) -> None:
    node = nodes[2]
    add_user(node, "dora")
    took: dict[str, list[float]] = {"dora": [], "nobody": []}
    for _ in range(9):
        for name, times in took.items():
            began = time.perf_counter()
            assert sign_in(node, name, "wrong password")[0] == 401
            times.append(time.perf_counter() - began)
    known, unknown = (statistics.median(times) for times in took.values())
    assert abs(known - unknown) < 0.3 * max(known, unknown), took
    assert call(node, "DELETE", "/api/v1/users/dora")[0] == 204


@pytest.mark.requirement("2.4.1", part="the cluster's own token needs no etcd")
def test_without_etcd_only_the_clusters_own_token_works(cluster: Cluster, nodes: list[Node]) -> None:
    node = nodes[1]
    add_user(node, "emma")
    token = issue(node, "away")["token"]
    cookie = wait_for(lambda: sign_in(node, "emma")[1], LOCKOUT + 8, "she signs in")
    for index in (0, 1):
        cluster.etcd.kill(index)
    try:
        assert call(node, "GET", "/api/v1/cluster", token)[0] == 200, "a moment without etcd is no reason"
        wait_for(lambda: call(node, "GET", "/api/v1/cluster", token)[0] == 503, 25, "what cannot be confirmed does not hold for ever")
        assert call(node, "GET", "/api/v1/me", None, Cookie=cookie)[0] == 503 and sign_in(node, "emma")[0] == 503
        assert call(node, "GET", "/api/v1/me")[1]["role"] == ADMIN and node.request("/api/v1/node", token="wrong")[0] == 401
        assert call(node, "POST", "/api/v1/tokens", body={"name": "x"})[0] == 503
    finally:
        for index in (0, 1):
            cluster.etcd.start(index)
    wait_for(lambda: call(node, "GET", "/api/v1/cluster", token)[0] == 200, 30, "it holds again")


def test_the_principal_of_another_way_to_sign_in_needs_no_record(tmp_path: Path) -> None:
    """What OpenID Connect and LDAP will hand over."""
    from starlette.requests import Request

    from bzzz_setup.node.auth.gate import COOKIE, Gate
    from bzzz_setup.node.config import Auth

    gate, who = Gate(Auth()), Principal("oidc", "anna@example.org", OPERATOR, ("api",))
    request = Request({"type": "http", "headers": [(b"cookie", f"{COOKIE}={gate.session(who)}".encode())]})
    assert gate.identify(request) == who and gate.allows(request, "api") and not gate.allows(request, "events")
    assert dataclasses.replace(who, role=ADMIN) != gate.identify(request)


# --- one's own password, better hashes, and the command on coordinators ---


@pytest.mark.requirement("2.4.4", part="users change their own password")
def test_a_user_changes_the_own_password_and_nobody_elses(nodes: list[Node]) -> None:
    node = nodes[2]  # where it takes many failures
    add_user(node, "gina")
    cookie = wait_for(lambda: sign_in(node, "gina")[1], 5, "she signs in")
    here = {"Cookie": cookie, "Origin": f"https://127.0.0.1:{node.port}"}
    new = PASSWORD + " anew"
    assert call(node, "PATCH", "/api/v1/me", None, {"old": PASSWORD, "password": new}, Cookie=cookie)[0] == 403, "from elsewhere"
    assert call(node, "PATCH", "/api/v1/me", None, {"old": "wrong", "password": new}, **here)[0] == 401
    assert call(node, "PATCH", "/api/v1/me", None, {"old": PASSWORD, "password": "short"}, **here)[0] == 422
    assert call(node, "PATCH", "/api/v1/me", None, {"password": new}, **here)[0] == 422
    assert call(node, "PATCH", "/api/v1/me", TOKEN, {"old": PASSWORD, "password": new})[0] == 409, "a token has none"
    assert call(node, "PATCH", "/api/v1/me", None, {"old": PASSWORD, "password": new}, **here)[0] == 200
    wait_for(lambda: call(node, "GET", "/api/v1/me", None, Cookie=cookie)[0] == 401, 3, "sessions of the old one end")
    assert sign_in(node, "gina")[0] == 401 and sign_in(node, "gina", new)[0] == 303
    (line,) = audit(node, audit="user.change", user="gina")
    assert line["who"] == "user:gina" and line["fields"] == ["password"]
    assert call(node, "DELETE", "/api/v1/users/gina")[0] == 204


@pytest.mark.requirement("2.4.4", part="hashes made with other parameters are renewed")
def test_a_hash_of_other_parameters_is_renewed_at_sign_in(cluster: Cluster, nodes: list[Node]) -> None:
    from argon2 import PasswordHasher

    node = nodes[2]
    weak = PasswordHasher(time_cost=1, memory_cost=8192, parallelism=1).hash(PASSWORD.encode())
    assert passwords.renewed(PASSWORD, weak) and passwords.renewed(PASSWORD, passwords.hashed(PASSWORD)) is None
    user = records.User("hanna", VIEWER, weak, 1, 1, "cluster")
    assert cluster.etcd.ctl("put", "/bzzz-auth/test/users/hanna", records.dump(user)).returncode == 0
    cookie = wait_for(lambda: sign_in(node, "hanna")[1], 5, "she signs in")
    kept = json.loads(cluster.etcd.ctl("get", "--print-value-only", "/bzzz-auth/test/users/hanna").stdout)["password"]
    assert kept.startswith("$argon2id$v=19$m=65536,t=3,p=4$") and sign_in(node, "hanna")[0] == 303
    assert call(node, "GET", "/api/v1/me", None, Cookie=cookie)[0] == 200, "and her session goes on"
    assert call(node, "DELETE", "/api/v1/users/hanna")[0] == 204


@pytest.mark.requirement("2.4.4", part="by command, for the first administrator")
@pytest.mark.requirement("2.4.1", part="by command")
def test_the_command_manages_users_and_tokens_without_a_secret_in_its_arguments(nodes: list[Node], tmp_path: Path) -> None:
    node = nodes[0]
    (secret := tmp_path / "token").write_text(TOKEN + "\n")

    def command(*words: str, stdin: str = "", code: int = 0) -> str:
        program = [sys.executable, "-sE", str(node.cluster.artifact / "bin/bzzz-node"), "--config", str(node.config), *words]
        program[-len(words) + 1 : -len(words) + 1] = ["--token-file", str(secret)]
        done = subprocess.run(program, input=stdin, capture_output=True, text=True, check=False, timeout=30)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr and not (stdin and stdin.strip() in done.stdout + done.stderr)
        return done.stdout if code == 0 else done.stderr

    assert "role: admin" in command("users", "add", "ines", "--role", "admin", stdin=PASSWORD + "\n")
    assert "There is a user ines already" in command("users", "add", "ines", "--role", "viewer", stdin=PASSWORD + "\n", code=1)
    assert "12 to 256" in command("users", "add", "jo", "--role", "viewer", stdin="short\n", code=1)
    wait_for(lambda: sign_in(node, "ines")[0] == 303, 3, "she signs in")
    head, *lines = command("users", "list").splitlines()
    assert head.split()[:2] == ["name", "role"] and any(line.split()[:2] == ["ines", "admin"] for line in lines)
    command("users", "role", "ines", "--role", "operator")
    command("users", "password", "ines", stdin=PASSWORD + " two\n")
    assert sign_in(node, "ines", PASSWORD + " two")[0] == 303
    assert [sign_in(node, "ines", "wrong")[0] for _ in range(4)] == [401] * 3 + [429]
    assert "locked: no" in command("users", "unlock", "ines")
    assert sign_in(node, "ines", PASSWORD + " two")[0] == 303
    token = json.loads(command("tokens", "--json", "issue", "ci", "--scope", "metrics", "--days", "1"))
    assert token["scopes"] == ["metrics"] and call(node, "GET", "/api/v1/me", token["token"])[1]["role"] == VIEWER
    assert token["id"] in command("tokens", "list") and token["token"] not in command("tokens", "list")
    command("tokens", "revoke", token["id"])
    assert "no such token" in command("tokens", "revoke", token["id"], code=1)
    command("users", "remove", "ines")
    assert "no such user" in command("users", "remove", "ines", code=1)
    # Whether it lives is asked without a token, as Docker does it.
    alive = [sys.executable, "-sE", str(node.cluster.artifact / "bin/bzzz-node"), "--config", str(node.config), "live"]
    assert subprocess.run(alive, check=False, timeout=30).returncode == 0
    # Another's certificate on that port is not taken for ours, and who has no token is told where it is.
    secret.unlink()
    assert "as root on a coordinator" in command("users", "list", code=1)
    secret.write_text("another\n")
    assert "needs a token" in command("users", "list", code=1)
    assert {line["who"] for line in audit(node, user="ines")} == {"cluster"}
