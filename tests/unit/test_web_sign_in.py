# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""People of a provider and of a directory at the wizard's sign-in, with the real ones on loopback."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import requests
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible_collections.bzzz.cluster.plugins.module_utils.declaration import ROLES, declare, load_specs
from front import Front
from node_cluster import Authority
from people import BASE, BIND_DN, BIND_PASSWORD, CLIENT, CLIENT_SECRET, Directory, Provider, group_dn
from starlette.testclient import TestClient

from bzzz_setup import init
from bzzz_setup.declaration import HOSTS, MAIN, VAULT, Declaration, dump, encrypted, typed
from bzzz_setup.events import Refusal
from bzzz_setup.node import config
from bzzz_setup.node.auth.gate import COOKIE
from bzzz_setup.web import command
from bzzz_setup.web.app import build
from bzzz_setup.web.outside import declared
from bzzz_setup.web.shapes import API
from bzzz_setup.web.wizard import Wizard

PASSWORD = "correct horse battery"
ORIGIN = {"Origin": "http://testserver"}
CLUSTER = {"declaration_cluster_name": "trial"}
BACK = "http://testserver/api/v1/sign-in/oidc/callback"
OIDC: dict[str, Any] = {
    "auth_oidc_issuer": "https://127.0.0.1:9",
    "auth_oidc_client_id": CLIENT,
    "auth_oidc_title": "Example & Co",
    "auth_oidc_role_groups": {"admin": ["ops"], "viewer": []},
}
LDAP: dict[str, Any] = {
    "auth_ldap_urls": ["ldaps://127.0.0.1:9"],
    "auth_ldap_bind_dn": BIND_DN,
    "auth_ldap_user_base": f"ou=people,{BASE}",
    "auth_ldap_group_base": f"ou=groups,{BASE}",
    "auth_ldap_role_groups": {"operator": [group_dn("staff")]},
}
LDAP_SECRET = {"auth_ldap_bind_password": BIND_PASSWORD}


@pytest.fixture
def front(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Front:
    front = Front(tmp_path)
    (front.inventory / HOSTS).write_text(dump(init.hosts({"n1": "192.0.2.1"}, ["n1"], {})))
    for name, value in front.environment.items():
        monkeypatch.setenv(name, value)
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    return front


def declares(front: Front, options: dict[str, Any], secrets: dict[str, str]) -> None:
    (front.inventory / MAIN).write_text(dump(typed({**CLUSTER, **options})))
    (front.inventory / VAULT).write_text(encrypted(dump(typed(secrets)), "trial"))


@contextlib.contextmanager
def served(front: Front) -> Iterator[tuple[TestClient, Wizard]]:
    """The wizard, and its administrator."""
    wizard = command._wizard(front.inventory)
    with TestClient(build(wizard, frozenset({"testserver"})), headers=ORIGIN, follow_redirects=False) as client:
        done = client.post(f"{API}/claim", json={"token": wizard.claim.token, "name": "anna", "password": PASSWORD})
        assert done.status_code == 201, done.text
        yield client, wizard
    assert wizard.gate.directory
    wizard.gate.directory.stop()
    wizard.authorities.stop()


def signs_in(client: TestClient, user: str, password: str) -> tuple[int, Any]:
    stranger = TestClient(client.app, headers=ORIGIN)
    status = stranger.post(f"{API}/session", json={"user": user, "password": password}).status_code
    return status, stranger.get(f"{API}/welcome").json()["me"]


@pytest.mark.requirement("2.4.3", part="at the wizard's sign-in")
def test_people_of_the_directory_sign_in_once_it_is_applied(front: Front, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path)
    people = {"dora": "canary of dora", "carl": "canary of carl"}
    with contextlib.closing(Directory(tmp_path / "ldap", authority, people, {"staff": ["uid:dora"]})) as directory:
        (front.inventory / "ldap.crt").write_bytes(authority.ca.read_bytes())
        wanted = {**LDAP, "auth_ldap_urls": directory.urls, "auth_ldap_ca_file": "ldap.crt"}
        with served(front) as (admin, wizard):
            changes = {f"options/{name}": value for name, value in wanted.items()}
            changes |= {f"secrets/{name}": value for name, value in LDAP_SECRET.items()}
            assert admin.patch(f"{API}/draft", json={"base": 0, "changes": changes}).status_code == 200
            assert signs_in(admin, "dora", people["dora"]) == (401, None), "what is typed and not applied counts for nothing"
            tried = admin.post(f"{API}/tests/ldap")
            assert (tried.status_code, tried.json()) == (200, {"told": f"{', '.join(directory.urls)} answers."}), "it can be tried at once"
            wrong = {"options/auth_ldap_user_base": "ou=nobody,dc=example,dc=org"}
            admin.patch(f"{API}/draft", json={"base": 1, "changes": wrong})
            (problem,) = admin.post(f"{API}/tests/ldap").json()["problems"]
            assert problem["option"] == "auth_ldap_urls" and "user_base" in problem["message"] and problem["remedy"]
            unset = admin.post(f"{API}/tests/oidc")
            assert unset.status_code == 422 and unset.json()["problems"][0]["option"] == "auth_oidc_issuer"
            admin.patch(f"{API}/draft", json={"base": 2, "changes": {"options/auth_ldap_user_base": wanted["auth_ldap_user_base"]}})
            monkeypatch.setattr(wizard.runs, "start", lambda *_: "a run")
            done = admin.post(f"{API}/runs", json={"command": "apply"})
            assert done.status_code == 202, done.text
            status, me = signs_in(admin, "dora", people["dora"])
            assert (status, me["kind"], me["name"], me["role"]) == (201, "ldap", "dora", "operator")
            assert signs_in(admin, "dora", "not hers")[0] == 401 and signs_in(admin, "carl", people["carl"])[0] == 403
            stays = TestClient(admin.app, headers=ORIGIN)
            stays.post(f"{API}/session", json={"user": "dora", "password": people["dora"]})
            assert stays.get(f"{API}/draft").status_code == 200
            directory.close()
            assert signs_in(admin, "dora", people["dora"])[0] == 503
            assert signs_in(admin, "anna", PASSWORD)[0] == 201, "users of the wizard's own need no directory"
            # Where others are asked from now on, who was let in by the earlier ones is not any more.
            declares(front, {}, {})
            wizard.authorities.refresh()
            assert stays.get(f"{API}/draft").status_code == 401 and admin.get(f"{API}/draft").status_code == 200
            assert signs_in(admin, "dora", people["dora"])[0] == 401
            kept = "".join(file.read_text() for file in front.home.rglob("*") if file.is_file())
            assert BIND_PASSWORD not in kept, "the secret is in no file"


@pytest.mark.requirement("2.4.2", part="at the wizard's sign-in: there, back, and what is refused")
def test_people_of_the_provider_come_back_signed_in(front: Front, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "bzzz.audit")
    authority = Authority(tmp_path)
    groups = {"anna": ["ops"], "carl": ["visitors"]}
    with contextlib.closing(Provider(tmp_path / "provider", authority, groups, [BACK])) as provider:
        ca = {"auth_oidc_ca_file": str(authority.ca)}
        declares(front, {**OIDC, **ca, "auth_oidc_issuer": provider.issuer}, {"auth_oidc_client_secret": CLIENT_SECRET})
        with served(front) as (admin, _):

            def leaves() -> tuple[TestClient, str]:
                browser = TestClient(admin.app, follow_redirects=False)
                left = browser.get(f"{API}/sign-in/oidc")
                assert left.status_code == 302 and "SameSite=lax" in left.headers["set-cookie"], left.text
                return browser, left.headers["location"]

            def goes(account: str) -> tuple[TestClient, str]:
                browser, url = leaves()
                asked = dict(parse_qsl(urlsplit(url).query))
                assert asked["redirect_uri"] == BACK and asked["code_challenge_method"] == "S256"
                with requests.Session() as there:
                    there.trust_env, there.verify = False, str(authority.ca)
                    return browser, provider.signs_in(there, url, account)

            def told(browser: TestClient) -> Any:
                return browser.get(f"{API}/welcome").json()["refused"]

            browser, url = goes("anna")
            welcome = browser.get(f"{API}/welcome").json()
            assert (welcome["ways"], welcome["provider"], welcome["me"]) == (["password", "oidc"], "Example & Co", None)
            back = browser.get(url)
            assert (back.status_code, back.headers["location"]) == (303, "/")
            session = next(one for one in back.headers.get_list("set-cookie") if "-oidc=" not in one)
            assert "SameSite=strict" in session and "HttpOnly" in session
            me = browser.get(f"{API}/welcome").json()["me"]
            assert (me["kind"], me["name"], me["role"]) == ("oidc", "anna@example.com", "admin")
            assert browser.get(f"{API}/users").status_code == 200 and not any(name.endswith("-oidc") for name in browser.cookies)

            # Each of these is told in words, on the page, and signs nobody in.
            refused, url = goes("carl")
            assert refused.get(url).headers["location"] == "/" and "none of the groups has a role" in told(refused)
            denied, url = leaves()
            state = dict(parse_qsl(urlsplit(url).query))["state"]
            denied.get(f"{API}/sign-in/oidc/callback", params={"error": "access_denied", "state": state})
            assert told(denied) == "Nobody was signed in: the provider says access_denied."
            other, _ = leaves()
            assert other.get(goes("anna")[1]).status_code == 303 and "the state is another" in told(other)
            stranger = TestClient(admin.app, follow_redirects=False)
            stranger.cookies.set(next(iter(other.cookies)), json.dumps("Call this number"))
            assert told(stranger) is None, "nobody else's words get onto the page"
            assert [one.get(f"{API}/draft").status_code for one in (refused, denied, other, stranger)] == [401] * 4
            # A wrong host goes nowhere.
            assert stranger.get(f"{API}/sign-in/oidc", headers={"Host": "evil@testserver"}).status_code == 400
            assert stranger.get(f"{API}/sign-in/oidc", headers={"Host": "evil.example"}).status_code == 403
            assert CLIENT_SECRET not in caplog.text and '"who": "oidc:anna@example.com"' in caplog.text


@pytest.mark.requirement("2.4.2", part="at the wizard's sign-in: a provider that is away")
def test_a_provider_that_is_away_keeps_nobody_else_out(front: Front) -> None:
    declares(front, OIDC, {})
    with served(front) as (admin, _):
        browser = TestClient(admin.app, follow_redirects=False)
        left = browser.get(f"{API}/sign-in/oidc")
        assert left.headers["location"] == "/" and "does not answer" in browser.get(f"{API}/welcome").json()["refused"]
        assert browser.post(f"{API}/session", json={"user": "anna", "password": PASSWORD}).status_code == 201
        assert browser.get(f"{API}/welcome").json()["refused"] is None


@pytest.mark.requirement("2.4.0", part="the wizard: cookies under HTTPS")
def test_sign_out_takes_the_session_away_under_https(front: Front) -> None:
    wizard = command._wizard(front.inventory, COOKIE)
    with TestClient(build(wizard, frozenset({"testserver"})), base_url="https://testserver") as client:
        body = {"token": wizard.claim.token, "name": "anna", "password": PASSWORD}
        assert client.post(f"{API}/claim", json=body).status_code == 201
        # Browsers heed no cookie of this prefix without it, not even one that ends it.
        gone = client.delete(f"{API}/session").headers["set-cookie"]
        assert gone.startswith('__Host-bzzz="";') and "Secure" in gone and "Max-Age=0" in gone
    assert wizard.gate.directory
    wizard.gate.directory.stop()


@pytest.mark.requirement("2.4.2", part="at the wizard's sign-in: what cannot be had")
@pytest.mark.requirement("2.4.3", part="at the wizard's sign-in: what cannot be had")
@pytest.mark.parametrize(
    ("options", "secrets", "said"),
    [
        ({**OIDC, "auth_oidc_issuer": "{{ idp }}"}, {}, "OpenID Connect. auth_oidc_issuer: Only Ansible can work this out."),
        (LDAP, {"auth_ldap_bind_password": "{{ lookup('env', 'X') }}"}, "LDAP. auth_ldap_bind_password: Only Ansible"),
        (LDAP, {}, "LDAP. auth_ldap_bind_password: auth_ldap_urls needs it."),
        ({**OIDC, "auth_oidc_issuer": "http://id.example.com"}, {}, "plain HTTP"),
        ({**OIDC, "auth_oidc_ca_file": "absent.crt"}, {}, "auth_oidc_ca_file"),
    ],
)
def test_a_way_that_cannot_be_had_is_told_and_left_out(
    front: Front, capsys: pytest.CaptureFixture[str], options: dict[str, Any], secrets: dict[str, str], said: str
) -> None:
    declares(front, {}, secrets)
    (front.inventory / MAIN).write_text(dump({**CLUSTER, **options}))
    (front.inventory / VAULT).write_text(encrypted(dump(secrets), "trial"))
    with served(front) as (admin, wizard):
        told = capsys.readouterr().err
        assert told.startswith("Nobody signs in here by ") and said in told and "canary" not in told
        assert wizard.gate.ldap is None and wizard.gate.oidc is None
        assert admin.get(f"{API}/welcome").json()["ways"] == ["password"]


def test_a_vault_by_another_key_and_a_missing_library_are_told(
    front: Front, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    declares(front, {**OIDC, **LDAP}, LDAP_SECRET)
    for module in [name for name in sys.modules if name.startswith(("ldap3", "bzzz_setup.node.auth.ldap"))]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "ldap3", None)
    with served(front) as (admin, wizard):
        told = capsys.readouterr().err
        assert "The Python package ldap3 is not here. Install it, pip install 'bzzz-setup[node]'" in told and "OpenID" not in told
        assert wizard.gate.ldap is None and wizard.gate.oidc is not None
        key = next(front.home.rglob("*vault*key*"))
        key.write_text("another\n")
        wizard.authorities.refresh()
        assert "The cluster's key on this host does not open" in capsys.readouterr().err
        assert admin.get(f"{API}/welcome").json()["ways"] == ["password"]


@pytest.mark.requirement("2.4.2", part="at the wizard's sign-in: the nodes' settings")
@pytest.mark.requirement("2.4.3", part="at the wizard's sign-in: the nodes' settings")
def test_the_settings_are_those_that_the_role_gives_to_the_nodes(front: Front, tmp_path: Path) -> None:
    ca = Authority(tmp_path).ca
    more = {"auth_oidc_scopes": "openid, groups", "auth_oidc_groups_claim": "roles", "auth_ldap_user_filter": "(mail={name})"}
    options = {**OIDC, **LDAP, **more, "auth_oidc_ca_file": str(ca), "auth_ldap_ca_file": str(ca)}
    declares(front, options, LDAP_SECRET)
    readers = {name: lambda value=value: value for name, value in {**options, **LDAP_SECRET}.items()}
    effective, problems = declare({"auth": load_specs()["auth"]}, readers, "n1")
    assert problems == []
    loader = DataLoader()
    variables = loader.load_from_file(str(ROLES / "auth/vars/main.yml"), trusted_as_template=True)
    given = Templar(loader, variables={**variables, "declared": effective}).template(variables["__auth_config"])
    assert {len(given["oidc"]), len(given["ldap"])} == {9}
    for kind in ("oidc", "ldap"):
        way = declared(Declaration.read(front.inventory), kind)
        assert way
        of_nodes = {key: value for key, value in given[kind].items() if not key.endswith("_file")}
        assert way.settings == config.parse_section(kind, {**of_nodes, "ca": str(ca)}, {})
    with pytest.raises(Refusal):
        declared(Declaration(front.inventory, options={**CLUSTER, **OIDC, "auth_oidc_scopes": {"a": 1}}), "oidc")
