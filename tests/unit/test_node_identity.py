# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Signing in by OpenID Connect and LDAP: node services with a real etcd, provider and directory, all on loopback."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx2
import pytest
import requests
from joserfc.jwk import ECKey, OctKey
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from node_cluster import (
    PASSWORD,
    TOKEN,
    Authority,
    Cluster,
    Node,
    add_user,
    audit,
    call,
    etcd_program,
    free_ports,
    issue,
    sign_in,
    wait_for,
)
from people import BASE, BIND_PASSWORD, CLIENT, CLIENT_SECRET, Directory, Provider, group_dn, user_dn

from bzzz_setup import release
from bzzz_setup.node import config
from bzzz_setup.node.auth.outside import Away
from bzzz_setup.node.auth.principals import ADMIN, OPERATOR, ROLES, SCOPES, VIEWER

GROUPS = {"anna": ["staff", "ops"], "berta": ["boards, all of them"], "carl": ["visitors"]}
ROLE_GROUPS = {ADMIN: ["ops"], OPERATOR: ["boards, all of them"], VIEWER: ["staff"]}
LDAP_PEOPLE = {name: f"canary of {name}" for name in ("dora", "emil", "fritz", "gerd", "hans", "ida", "jana")}
LDAP_GROUPS = {
    "ops": ["uid:dora", "cn:inner"],
    "inner": ["cn:innermost"],
    "innermost": ["uid:emil", "cn:ops"],  # and round again
    "staff": ["uid:hans"],
    # More than the directory gives in one answer; what counts is beyond one of them.
    **{f"team-{number}": ["uid:fritz"] for number in range(1100)},
    "boards": ["cn:team-1042"],
}
EITHER = "(|(uid={name})(mail={name}))"
LDAP_ROLE_GROUPS = {ADMIN: [group_dn("ops")], OPERATOR: ["CN=Boards, OU=groups," + BASE], VIEWER: [group_dn("staff")]}
LOCKOUT = 10


class World:
    """Two node services of one cluster that know the same provider and the same directory, by ldaps:// and by StartTLS."""

    def __init__(self, folder: Path) -> None:
        self.cluster = Cluster(folder, release.build(), 3, etcd_program())
        self.stack = contextlib.ExitStack()
        self.stack.callback(self.cluster.close)
        try:
            self.nodes = [Node(self.cluster, name, ["coordinator"], None, self.cluster.etcd.endpoints) for name in ("node1", "node2")]
            uris = [f"https://127.0.0.1:{node.port}/sign-in/oidc/callback" for node in self.nodes]
            authority = self.cluster.authority
            self.provider = self.stack.enter_context(contextlib.closing(Provider(folder / "provider", authority, GROUPS, uris)))
            self.directory = self.stack.enter_context(contextlib.closing(Directory(folder / "ldap", authority, LDAP_PEOPLE, LDAP_GROUPS)))
            self.secret = folder / "client_secret"
            self.secret.write_text(CLIENT_SECRET + "\n")
            urls = [self.directory.urls[0], f"ldap://127.0.0.1:{self.directory.ldap_port}"]
            for node, failures, url in zip(self.nodes, (4, 40), urls):
                node.settings["auth"] |= {"lockout_failures": failures, "lockout_seconds": LOCKOUT}
                node.settings["oidc"] = self.oidc(title="Example & Co")
                # Two names for one entry, as "sam account or mail" elsewhere.
                node.settings["ldap"] = self.directory.settings(urls=[url], user_filter=EITHER, role_groups=LDAP_ROLE_GROUPS)
                self.cluster.nodes[node.name] = node
                node.start()
            wait_for(lambda: all(node.ready() and len(node.members()) == 2 for node in self.nodes), 60, "the nodes are there")
        except BaseException:
            self.stack.close()
            raise

    def oidc(self, **more: Any) -> dict[str, Any]:
        ours = {"issuer": self.provider.issuer, "client_id": CLIENT, "client_secret_file": str(self.secret)}
        return {**ours, "ca": str(self.cluster.authority.ca), "role_groups": ROLE_GROUPS, **more}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("identity"))
    yield made
    made.stack.close()


class NoCounts:
    """A directory of failures that lets everybody try."""

    def attempt(self, _name: str) -> bool:
        return True

    def forgive(self, _name: str) -> None:
        pass

    excuse = forgive


def ldap_of(settings: dict[str, Any]) -> Any:
    from bzzz_setup.node.auth.ldap import Ldap

    return Ldap(parsed("ldap", settings).ldap, NoCounts())  # type: ignore[arg-type]


def oidc_of(settings: dict[str, Any]) -> Any:
    from bzzz_setup.node.auth.oidc import Oidc

    return Oidc(parsed("oidc", settings).oidc)


def parsed(section: str, settings: dict[str, Any]) -> config.Settings:
    """As the service reads it."""
    some = settings["ca"]
    node = {"name": "n1", "address": "127.0.0.1", "roles": ["worker"]}
    return config.parse(
        {"node": node, "cluster": {"name": "test"}, "tls": {"certificate": some, "key": some, "ca": some}, section: settings}, {}
    )


class Browser(requests.Session):
    """A browser at one node, from an address of its own."""

    def __init__(self, world: World, node: Node) -> None:
        super().__init__()
        self.trust_env, self.verify = False, str(world.cluster.authority.ca)
        self.world, self.node, self.home = world, node, f"https://127.0.0.1:{node.port}"

    def leave(self) -> str:
        answer = self.get(f"{self.home}/sign-in/oidc", allow_redirects=False, timeout=10)
        assert answer.status_code == 302, answer.text
        return answer.headers["location"]

    def go(self, account: str) -> str:
        """To the provider and back: the address that the provider sends us to."""
        return self.world.provider.signs_in(self, self.leave(), account)

    def arrive(self, url: str) -> requests.Response:
        return self.get(url, allow_redirects=False, timeout=15)

    def cookie(self) -> str:
        return f"__Host-bzzz={self.cookies['__Host-bzzz']}"


def health(node: Node, name: str) -> tuple[str, str]:
    found = {check["name"]: (check["status"], check["message"]) for check in (node.get("/health") or {}).get("checks", [])}
    return found.get(name, ("", ""))


def metric(node: Node, method: str, outcome: str) -> float:
    text = node.request("/metrics")[2].decode()
    lines = [line for line in text.splitlines() if line.startswith(f'bzzz_sign_ins_total{{method="{method}",outcome="{outcome}"}}')]
    return float(lines[0].split()[-1]) if lines else 0.0


# --- OpenID Connect ---


@pytest.mark.requirement("2.4.2")
def test_a_person_signs_in_at_the_provider_with_the_role_of_a_group(world: World) -> None:
    one, _ = world.nodes
    wait_for(lambda: health(one, "oidc")[0] == "pass", 10, "the provider is looked at")
    browser = Browser(world, one)
    assert 'href="/sign-in/oidc">Sign in with Example &amp; Co</a>' in browser.get(browser.home, timeout=10).text
    url = browser.leave()
    asked = dict(parse_qsl(urlsplit(url).query))
    assert asked["response_type"] == "code" and asked["code_challenge_method"] == "S256" and len(asked["code_challenge"]) == 43
    assert asked["scope"].split()[0] == "openid" and len(asked["state"]) == len(asked["nonce"]) == 43
    shown = browser.arrive(world.provider.signs_in(browser, url, "anna"))
    assert shown.status_code == 200 and "Signed in." in shown.text and 'content="0;url=/"' in shown.text
    assert "__Host-bzzz-oidc" not in browser.cookies, "what was for the way is gone"
    session = next(each for each in shown.headers["set-cookie"].split(", ") if each.startswith("__Host-bzzz="))
    assert "SameSite=strict" in session and "HttpOnly" in session and "Secure" in session and "Path=/" in session

    assert "Primary coordinator" in browser.get(browser.home, timeout=10).text
    me = browser.get(f"{browser.home}/api/v1/me", timeout=10).json()
    assert me == {"kind": "oidc", "name": "anna@example.com", "role": ADMIN, "scopes": sorted(SCOPES, key=list(SCOPES).index)}
    headers = {"Origin": browser.home}
    added = browser.post(f"{browser.home}/api/v1/tokens", json={"name": "hers"}, headers=headers, timeout=10)
    assert added.status_code == 201 and added.json()["by"] == "oidc:anna@example.com"
    browser.post(f"{browser.home}/sign-out", timeout=10)
    assert browser.get(f"{browser.home}/api/v1/me", timeout=10).status_code == 401

    (line,) = audit(one, audit="sign_in", who="oidc:anna@example.com")
    assert (line["outcome"], line["by"], line["from"]) == ("ok", "oidc", "127.0.0.1") and metric(one, "oidc", "ok") == 1
    # A group whose name has a comma in it; and on the other node.
    other = Browser(world, world.nodes[1])
    assert other.arrive(other.go("berta")).status_code == 200
    assert other.get(f"{other.home}/api/v1/me", timeout=10).json()["role"] == OPERATOR
    told = "".join(node.log.read_text() for node in world.nodes)
    assert CLIENT_SECRET not in told and asked["state"] not in told and CLIENT_SECRET not in one.config.read_text()


@pytest.mark.requirement("2.4.2", part="a group without a role gets nobody in")
def test_whose_groups_have_no_role_is_refused_and_written_down(world: World) -> None:
    one, _ = world.nodes
    browser = Browser(world, one)
    shown = browser.arrive(browser.go("carl"))
    assert shown.status_code == 403 and "none of the groups has a role" in shown.text and "__Host-bzzz" not in browser.cookies
    (line,) = audit(one, audit="sign_in", outcome="no_role")
    assert line["who"] == "oidc:carl@example.com" and metric(one, "oidc", "no_role") == 1


@pytest.mark.requirement("2.4.2", part="wrong state, replayed code, another browser")
def test_what_comes_back_must_have_left_from_this_browser_and_once(world: World) -> None:
    one, two = world.nodes
    for change in ({"state": "x" * 43}, {"state": ""}, {"iss": "https://evil.example"}, {"code": "x"}, {"code": ""}):
        browser = Browser(world, one)
        url = browser.go("anna")
        query = {**dict(parse_qsl(urlsplit(url).query)), **change}
        shown = browser.arrive(f"{browser.home}/sign-in/oidc/callback?{urlencode(query)}")
        assert shown.status_code == 401 and "__Host-bzzz" not in browser.cookies, change
    # One that was shown another's answer, and one whose flow was begun at another node.
    assert Browser(world, one).arrive(Browser(world, one).go("anna")).status_code == 401
    stranger = Browser(world, two)
    stranger.leave()
    assert stranger.arrive(Browser(world, one).go("anna").replace(f":{one.port}/", f":{two.port}/")).status_code == 401
    # The same answer again, with everything that the browser had: the provider takes a code once.
    browser = Browser(world, one)
    url = browser.go("anna")
    kept = browser.cookies["__Host-bzzz-oidc"]
    assert browser.arrive(url).status_code == 200
    again = requests.get(url, cookies={"__Host-bzzz-oidc": kept}, verify=browser.verify, timeout=10)
    assert again.status_code == 401 and "invalid_grant" in again.text and "__Host-bzzz=" not in again.headers.get("set-cookie", "")
    # What is sealed for the way is no session, and the other way round.
    assert call(one, "GET", "/api/v1/me", None, Cookie=f"__Host-bzzz={kept}")[0] == 401 == call(one, "GET", "/api/v1/me", kept)[0]
    mixed = requests.get(url, cookies={"__Host-bzzz-oidc": browser.cookies["__Host-bzzz"]}, verify=browser.verify, timeout=10)
    assert mixed.status_code == 401
    # Who says no there is told so, and nothing that was in the address is on the page.
    browser = Browser(world, one)
    state = dict(parse_qsl(urlsplit(browser.leave()).query))["state"]
    answer = urlencode({"state": state, "error": "access_denied", "error_description": "<b>canary</b>"})
    denied = browser.arrive(f"{browser.home}/sign-in/oidc/callback?{answer}")
    assert denied.status_code == 401 and "access_denied" in denied.text and "canary" not in denied.text
    assert {line["why"] for line in audit(one, audit="sign_in", outcome="refused", by="oidc")} >= {"no flow"}


@pytest.mark.requirement("2.4.2", part="the provider's own tokens: audience, end, issuer, algorithm, key")
def test_a_token_of_the_provider_works_when_it_is_for_us_and_holds(world: World) -> None:
    one, provider = world.nodes[0], world.provider
    assert call(one, "GET", "/api/v1/me", provider.token())[1] == {
        **{"kind": "oidc", "name": "anna", "role": ADMIN},
        "scopes": list(SCOPES),
    }
    now, secret = int(time.time()), OctKey.import_key(CLIENT_SECRET.encode())
    forged = ECKey.generate_key("P-256", {"kid": provider.key.kid, "alg": "ES256"})
    public = base64.urlsafe_b64encode(json.dumps({"alg": "none", "kid": provider.key.kid}).encode()).decode().rstrip("=")
    _, claims, _ = provider.token().split(".")
    wrong = {
        "for another": provider.token(aud="another"),
        "for another, though asked for by us": provider.token(aud="another", azp=CLIENT),
        "for nobody": provider.token(aud=None),
        "for several, and not asked for by us": provider.token(aud=[CLIENT, "another"], azp="another"),
        "at its end": provider.token(exp=now - 60),
        "without end": provider.token(exp=None),
        "from the future": provider.token(nbf=now + 600),
        "another's": provider.token(iss="https://evil.example"),
        "another's in all but the address": provider.token(iss=provider.issuer + "/"),
        "nobody's": provider.token(sub=None),
        "signed with another key": provider.token(forged),
        "signed by nobody": f"{public}.{claims}.",
        "a log-out token": provider.token(header={"typ": "logout+jwt"}),
        "none": "a.b.c",
    }
    for what, token in wrong.items():
        assert call(one, "GET", "/api/v1/me", token)[0] == 401, what
    from joserfc import jwt

    shared = jwt.encode({"alg": "HS256", "kid": provider.key.kid}, {"iss": provider.issuer, "sub": "x", "aud": CLIENT}, secret)
    assert call(one, "GET", "/api/v1/me", shared)[0] == 401, "signed with a secret"
    assert call(one, "GET", "/api/v1/me", provider.token(groups=["visitors"]))[1]["role"] == ""
    assert call(one, "GET", "/api/v1/node", provider.token(groups=["visitors"]))[0] == 403
    assert audit(one, audit="bearer", who="oidc:anna", outcome="ok")


@pytest.mark.requirement("2.4.2", part="keys that change")
def test_new_keys_are_asked_for_once_and_old_ones_hold_no_more(world: World) -> None:
    one, provider = world.nodes[0], world.provider
    assert call(one, "GET", "/api/v1/me", provider.token())[0] == 200
    old = provider.key
    provider.rotate("second")
    # The old key is the one that was known when it was last asked; the new one is asked for at once, by a sign-in and by a token.
    wait_for(lambda: call(one, "GET", "/api/v1/me", provider.token())[0] == 200, 30, "the new key is known")
    browser = Browser(world, one)
    assert browser.arrive(browser.go("anna")).status_code == 200
    assert call(one, "GET", "/api/v1/me", provider.token(old))[0] in (401, 503), "the old one is gone"
    # Whoever makes keys up has us ask no more often than that.
    before = provider.asked("/jwks")
    for number in range(60):
        made_up = ECKey.generate_key("P-256", {"kid": f"made-up-{number}"})
        assert call(one, "GET", "/api/v1/me", provider.token(made_up))[0] in (401, 503)
    assert provider.asked("/jwks") - before <= 2


@pytest.mark.requirement("2.4.2", part="a provider that is away, not trusted, or does not know us")
def test_why_nobody_can_sign_in_at_the_provider_is_told(world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cases = [
        ({"ca": str(Authority(tmp_path).ca)}, "its certificate is not trusted"),
        ({"issuer": f"https://127.0.0.1:{free_ports(1)[0]}"}, "no answer"),
        ({"issuer": world.provider.issuer + "/"}, "to the letter"),
        ({"issuer": world.provider.issuer + "/nothing"}, "status 404"),
        ({"issuer": f"https://127.0.0.1:{world.directory.ldap_port}"}, "no TLS"),
    ]
    for keys, reason in cases:
        oidc = oidc_of(world.oidc(**keys))
        for ask in (oidc.look, lambda oidc=oidc: oidc.begin("https://x/")):
            with pytest.raises(Away, match=reason):
                ask()
        assert oidc.check().status == "warn" and reason in oidc.check().message and not oidc.check().ready
        assert reason in caplog.text
    # What only a sign-in finds out, on the running service.
    one = world.nodes[0]
    world.secret.write_text("wrong-secret\n")
    try:
        browser = Browser(world, one)
        assert browser.arrive(browser.go("anna")).status_code == 503
        assert "refuses this client" in health(one, "oidc")[1] and health(one, "oidc")[0] == "warn"
        assert one.ready() and "refuses this client" in one.log.read_text()
    finally:
        world.secret.write_text(CLIENT_SECRET)
    browser = Browser(world, one)
    assert browser.arrive(browser.go("anna")).status_code == 200
    # A public client has PKCE alone.
    from bzzz_setup.node.auth.oidc import Refused

    public = oidc_of(world.oidc(client_id="public", client_secret_file=None))
    redirect = f"https://127.0.0.1:{one.port}/sign-in/oidc/callback"
    for verifier in ("", "x" * 43):
        url, flow = public.begin(redirect)
        query = dict(parse_qsl(urlsplit(world.provider.signs_in(Browser(world, one), url, "anna")).query))
        if verifier:
            with pytest.raises(Refused, match="invalid_grant"):
                public.finish(dataclasses.replace(flow, verifier=verifier), query)
        else:
            assert public.finish(flow, query).role == ADMIN


# --- LDAP ---


@pytest.mark.requirement("2.4.3")
def test_a_person_of_the_directory_signs_in_with_the_role_of_a_group(world: World) -> None:
    for node in world.nodes:
        wait_for(lambda node=node: health(node, "ldap")[0] == "pass", 10, "the directory is looked at")
        # Directly, through nested groups that go round, and beyond a thousand of them; in any spelling.
        for name, role in (("dora", ADMIN), ("emil", ADMIN), ("fritz", OPERATOR), ("hans", VIEWER), ("DORA ", ADMIN)):
            account = name.strip().lower()
            status, cookie = sign_in(node, name, LDAP_PEOPLE[account])
            assert status == 303, name
            me = call(node, "GET", "/api/v1/me", None, Cookie=cookie)[1]
            assert (me["kind"], me["name"], me["role"]) == ("ldap", account, role)
        assert sign_in(node, "gerd", LDAP_PEOPLE["gerd"])[0] == 403, "known, without a role"
        for name, outcome in (("gerd", "no_role"), ("dora", "ok")):
            assert audit(node, audit="sign_in", who=f"ldap:{name}", outcome=outcome)
        assert metric(node, "ldap", "ok") == 5 and metric(node, "ldap", "no_role") == 1
    said = (world.directory.folder / "log").read_text()
    assert "STARTTLS" in said and said.index("STARTTLS") < said.rindex("TLS established")
    told = "".join(node.log.read_text() for node in world.nodes) + said
    assert not [word for word in [BIND_PASSWORD, *LDAP_PEOPLE.values()] if word in told]


@pytest.mark.requirement("2.4.3", part="no filter is written by who signs in")
def test_a_name_is_never_a_filter(world: World) -> None:
    two = world.nodes[1]
    word = LDAP_PEOPLE["dora"]
    for name in ("*", "d*", "dora)(uid=*", "*)(|(uid=*", "dora\x00", "\\2a", "(uid=dora)", user_dn("dora"), "{dn}"):
        assert sign_in(two, name, word)[0] in (401, 429), name
    for password in ("", " ", "*", BIND_PASSWORD):
        assert sign_in(two, "ida", password)[0] in (401, 429)
    assert sign_in(two, "cn=bzzz", BIND_PASSWORD)[0] == 401, "the service account is nobody here"
    assert sign_in(two, "dora", word)[0] == 303


@pytest.mark.requirement("2.4.3", part="throttled as any other, however the name is spelt")
def test_failures_lock_an_entry_whatever_it_is_called(world: World) -> None:
    one, two = world.nodes
    names = ("jana", "jana@example.com", "jana", "JANA@example.com")
    assert [sign_in(node, name, "wrong")[0] for node, name in zip((one, two, one, two), names)] == [401] * 4
    for name in ("jana", "jana@example.com"):
        assert sign_in(one, name, LDAP_PEOPLE["jana"])[0] == 429, "the right password does not help"
    assert metric(one, "password", "locked") == 2
    # An unknown name is locked just so.
    assert [sign_in(one, "nobody-at-all", "wrong")[0] for _ in range(5)] == [401] * 4 + [429]
    wait_for(lambda: sign_in(one, "jana@example.com", LDAP_PEOPLE["jana"])[0] == 403, LOCKOUT + 20, "the lock-out ends by itself")


@pytest.mark.requirement("2.4.3", part="nobody is found by timing")
def test_an_unknown_entry_takes_as_long_as_a_known_one(world: World) -> None:
    node = world.nodes[1]
    took: dict[str, list[float]] = {"dora": [], "nobody": []}
    for _ in range(9):
        for name, times in took.items():
            began = time.perf_counter()
            assert sign_in(node, name, "wrong password")[0] == 401
            times.append(time.perf_counter() - began)
    known, unknown = (statistics.median(times) for times in took.values())
    assert abs(known - unknown) < 0.3 * max(known, unknown), took
    assert sign_in(node, "dora", LDAP_PEOPLE["dora"])[0] == 303


@pytest.mark.requirement("2.4.3", part="a directory that is away, not trusted, plain, or does not know us; local users get in")
def test_why_nobody_can_sign_in_at_the_directory_is_told_and_local_users_get_in(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = world.directory
    (wrong := tmp_path / "wrong_password").write_text("wrong\n")
    plain = Directory(tmp_path / "plain", world.cluster.authority, {"dora": LDAP_PEOPLE["dora"]}, {}, tls=False)
    cases = [
        ({"ca": str(Authority(tmp_path).ca)}, "its certificate is not trusted"),
        ({"urls": [f"ldaps://localhost:{directory.ldaps_port}"]}, "its certificate is not trusted"),
        ({"urls": [f"ldap://127.0.0.1:{plain.ldap_port}"]}, "no StartTLS"),
        ({"urls": [f"ldaps://127.0.0.1:{directory.ldap_port}"]}, "no TLS"),
        ({"urls": [f"ldaps://127.0.0.1:{free_ports(1)[0]}"]}, "no connection"),
        ({"bind_password_file": str(wrong)}, "refuses the service account"),
        ({"bind_dn": user_dn("nobody")}, "refuses the service account"),
        ({"user_base": f"ou=nowhere,{BASE}"}, "there is no entry user_base"),
    ]
    with contextlib.closing(plain):
        for keys, reason in cases:
            ldap = ldap_of(directory.settings(role_groups=LDAP_ROLE_GROUPS, **keys))
            for ask in (ldap.look, lambda ldap=ldap: ldap.verify("dora", LDAP_PEOPLE["dora"])):
                with pytest.raises(Away, match=reason):
                    ask()
            assert ldap.check().status == "warn" and reason in ldap.check().message and not ldap.check().ready
            assert reason in caplog.text and "wrong" not in caplog.text
        said = (plain.folder / "log").read_text()
        assert "oid=1.3.6.1.4.1.1466.20037" in said and " BIND dn=" not in said, "StartTLS was asked for, no password was sent"
    # The next one serves where one is away.
    two = [f"ldaps://127.0.0.1:{free_ports(1)[0]}", *directory.urls]
    assert ldap_of(directory.settings(urls=two, role_groups=LDAP_ROLE_GROUPS)).verify("dora", LDAP_PEOPLE["dora"]).role == ADMIN

    # It goes away while the service runs, and comes back.
    one = world.nodes[0]
    add_user(one, "paula")
    wait_for(lambda: sign_in(one, "paula")[0] == 303, 5, "she is known")
    directory.close()
    try:
        assert sign_in(one, "dora", LDAP_PEOPLE["dora"])[0] == 503 and sign_in(one, "paula")[0] == 303
        # It locks nobody out, nor the address, which has 16 failures.
        before = metric(one, "ldap", "away"), metric(one, "password", "refused")
        assert [sign_in(one, "hans", LDAP_PEOPLE["hans"], "127.0.0.9")[0] for _ in range(17)] == [503] * 17
        # Who is known here and who is not gets the same answer, and no more guesses than at any time.
        for name in ("paula", "stranger"):
            assert [sign_in(one, name, f"wrong {number}")[0] for number in range(6)] == [503] * 6
        assert sign_in(one, " PAULA")[0] == 503, "guessed at without end"
        assert (metric(one, "ldap", "away"), metric(one, "password", "refused")) == (before[0] + 30, before[1])
        status, body = call(one, "POST", "/api/v1/sessions", None, {"user": "hans", "password": LDAP_PEOPLE["hans"]})
        assert status == 503 and "does not answer" in body["detail"] and "does not count" in body["detail"]
        assert audit(one, audit="sign_in", outcome="away", by="ldap")
        assert health(one, "ldap")[0] == "warn" and one.ready() and "no connection" in one.log.read_text()
    finally:
        directory.start()
    for name in ("dora", "hans"):
        assert sign_in(one, name, LDAP_PEOPLE[name])[0] == 303
    assert sign_in(one, "paula")[0] == 429, "what was guessed at is locked, and told"
    assert call(one, "PATCH", "/api/v1/users/paula", TOKEN, {"locked": False})[0] == 200 and sign_in(one, "paula")[0] == 303
    wait_for(lambda: health(one, "ldap")[0] == "pass", 30, "health tells")
    assert call(one, "DELETE", "/api/v1/users/paula")[0] == 204


# --- one identity ---


def reached(world: World, node: Node, headers: dict[str, str]) -> dict[str, int]:
    """The status of each scope's place: REST, events, MCP, metrics, users."""
    found = {
        "api": node.request("/api/v1/cluster", token=None, **headers)[0],
        "metrics": node.request("/metrics", token=None, **headers)[0],
        "auth": node.request("/api/v1/users", token=None, **headers)[0],
    }
    # Whom it lets in is told to come as a WebSocket.
    status = node.request("/events", token=None, port=node.events_port, **headers)[0]
    found["events"] = 200 if status == 426 else status

    async def ask() -> bool:
        async with (
            httpx2.AsyncClient(verify=node.tls(), headers=headers, trust_env=False, timeout=30) as http,
            Client(streamable_http_client(f"https://127.0.0.1:{node.mcp_port}/mcp", http_client=http)) as client,
        ):
            return bool((await client.call_tool("cluster_status", {})).structured_content)

    # The first one has the SDK loaded.
    status = node.request("/mcp", token=None, port=node.mcp_port, body=b"{}", timeout=30, **headers)[0]
    found["mcp"] = status if status in (401, 403) else 200 if asyncio.run(ask()) else 500
    return found


@pytest.mark.requirement("2.4.0", part="node service: every method, every port, every role")
def test_every_way_to_sign_in_gives_the_same_rights_everywhere(world: World) -> None:
    one, _ = world.nodes
    add_user(one, "olga", OPERATOR)
    bearers: dict[str, tuple[str, str]] = {"the cluster's token": (TOKEN, ADMIN)}
    for role in ROLES:
        bearers[f"a token, {role}"] = issue(one, f"as-{role}", role=role)["token"], role
    bearers["a provider's token"] = world.provider.token(groups=["staff"]), VIEWER
    bearers["a provider's token without role"] = world.provider.token(groups=[]), ""
    cookies: dict[str, tuple[str, str]] = {}
    for name, password, role in (("olga", PASSWORD, OPERATOR), ("dora", LDAP_PEOPLE["dora"], ADMIN), ("hans", LDAP_PEOPLE["hans"], VIEWER)):
        wait_for(lambda name=name, password=password: sign_in(one, name, password)[0] == 303, 5, "known")
        cookies[f"{name}'s session"] = sign_in(one, name, password)[1], role
        status, session = call(one, "POST", "/api/v1/sessions", None, {"user": name, "password": password})
        assert status == 201 and session["role"] == role and session["expires"]
        bearers[f"{name}'s session for programs"] = session["token"], role
    browser = Browser(world, one)
    browser.arrive(browser.go("berta"))
    cookies["berta's session"] = browser.cookie(), OPERATOR

    here = SCOPES.keys() - {"setup", "models"}  # which are the wizard's and the AI gateway's

    def may(role: str, scope: str) -> int:
        return 200 if role and ROLES.index(role) >= ROLES.index(SCOPES[scope]) else 403

    for what, (token, role) in bearers.items():
        assert reached(world, one, {"Authorization": f"Bearer {token}"}) == {scope: may(role, scope) for scope in here}, what
    for what, (cookie, role) in cookies.items():
        # A browser's session does not count for MCP: any site could have it sent along.
        assert reached(world, one, {"Cookie": cookie}) == {**{scope: may(role, scope) for scope in here}, "mcp": 401}, what
        assert b"Primary coordinator" in one.request("/", token=None, Cookie=cookie)[2], what
    with one.events(token=bearers["dora's session for programs"][0]) as client:
        assert json.loads(client.recv(10))["type"] == "snapshot"
    assert call(one, "POST", "/api/v1/sessions", None, {"user": "olga", "password": "wrong"})[0] == 401
    assert call(one, "POST", "/api/v1/sessions", None, {"user": 1})[0] == 422
    # What ends is no way to a session that ends later.
    for token in (world.provider.token(), bearers["dora's session for programs"][0]):
        assert (
            requests.post(
                f"https://127.0.0.1:{one.port}/sign-in", data={"token": token}, verify=str(one.cluster.authority.ca), timeout=10
            ).status_code
            == 401
        )
    # Who is gone has none of it any more.
    assert call(one, "DELETE", "/api/v1/users/olga")[0] == 204
    gone = {"Authorization": "Bearer " + bearers["olga's session for programs"][0]}
    wait_for(lambda: set(reached(world, one, gone).values()) == {401}, 5, "olga's sessions end")
