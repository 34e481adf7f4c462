# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who signs in on real nodes: users and tokens, and people of a provider and a directory that run beside the lab."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
import requests
from conftest import Tools
from node_cluster import Authority
from people import BASE, BIND_DN, BIND_PASSWORD, CLIENT, CLIENT_SECRET, Directory, Provider, group_dn
from rest import Api, wait_for

from bzzz_setup.declaration import VAULT, dump, write

NAME, PASSWORD = "lab-anna", "canary horse battery staple"


@pytest.fixture(scope="module")
def api(cluster: Tools, tmp_path_factory: pytest.TempPathFactory) -> Api:
    return Api(cluster, tmp_path_factory.mktemp("api"))


def audit(cluster: Tools, node: str) -> list[dict[str, Any]]:
    lines = cluster.lab.exec(node, ["journalctl", "-u", "bzzz.service", "-o", "cat", "-g", '^{"audit"']).stdout.splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.requirement("F3")
@pytest.mark.requirement("2.4.1", part="on real nodes, kept by the next apply")
@pytest.mark.requirement("2.4.4", part="on real nodes, kept by the next apply")
def test_users_and_tokens_hold_on_every_node_and_the_next_apply_leaves_them(cluster: Tools, api: Api) -> None:
    one, two, three = cluster.nodes

    def call(method: str, node: str, path: str, token: str = "", **more: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {token or api.token}"}
        return requests.request(
            method, f"https://{api.addresses[node]}:8080{path}", headers=headers, verify=str(api.ca), timeout=10, **more
        )

    def signs_in(node: str) -> bool:
        browser = requests.Session()
        browser.trust_env, browser.verify = False, str(api.ca)
        shown = browser.post(f"https://{api.addresses[node]}:8080/sign-in", data={"user": NAME, "password": PASSWORD}, timeout=10)
        return shown.status_code == 200 and "Primary coordinator" in shown.text

    try:
        assert call("POST", one, "/api/v1/users", json={"name": NAME, "role": "viewer", "password": PASSWORD}).status_code == 201
        token = call("POST", one, "/api/v1/tokens", json={"name": "lab", "days": 1}).json()
        wait_for("sign-in elsewhere", lambda: signs_in(two), 5)
        wait_for("token elsewhere", lambda: call("GET", three, "/api/v1/cluster", token["token"]).ok, 5)
        assert call("POST", three, "/api/v1/tokens", token["token"], json={"name": "more"}).status_code == 403

        done = cluster.document("apply", "--only", "6")
        assert done["changes"] == [] and {check["status"] for check in done["checks"]} <= {"pass", "skip"}
        assert signs_in(three) and call("GET", two, "/api/v1/cluster", token["token"]).ok

        assert call("DELETE", two, f"/api/v1/tokens/{token['id']}").status_code == 204
        wait_for(
            "revocation", lambda: all(call("GET", node, "/api/v1/node", token["token"]).status_code == 401 for node in cluster.nodes), 5
        )
    finally:
        call("DELETE", one, f"/api/v1/users/{NAME}")
    wait_for("end of the user", lambda: not signs_in(two), 5)

    (added,) = (line for line in audit(cluster, one) if line["audit"] == "user.add" and line["user"] == NAME)
    assert (added["who"], added["node"], added["role"]) == ("cluster", one, "viewer") and added["from"] and added["time"]
    assert any(line["audit"] == "sign_in" and line["who"] == f"user:{NAME}" and line["outcome"] == "ok" for line in audit(cluster, two))
    for node in cluster.nodes:
        journal = cluster.lab.exec(node, ["journalctl", "-u", "bzzz.service", "-o", "cat"]).stdout
        assert not any(secret in journal for secret in (PASSWORD, token["token"], api.token))


@pytest.mark.requirement("F3")
@pytest.mark.requirement("2.4.2", part="declared, on real nodes")
@pytest.mark.requirement("2.4.3", part="declared, on real nodes")
def test_people_of_a_provider_and_a_directory_sign_in_on_every_node(cluster: Tools, api: Api, tmp_path: Path) -> None:
    one, two, three = cluster.nodes
    here = str(cluster.lab.subnet[1])  # this machine, as the nodes reach it
    authority, password = Authority(tmp_path), "canary horse of the directory"
    uris = [f"https://{address}:8080/sign-in/oidc/callback" for address in api.addresses.values()]
    with (
        contextlib.closing(Provider(tmp_path / "provider", authority, {"lab-otto": ["ops"]}, uris, address=here)) as provider,
        contextlib.closing(
            Directory(tmp_path / "ldap", authority, {"lab-dora": password}, {"staff": ["cn:team"], "team": ["uid:lab-dora"]}, address=here)
        ) as directory,
    ):
        options = {
            "auth_oidc_issuer": provider.issuer,
            "auth_oidc_client_id": CLIENT,
            "auth_oidc_role_groups": {"operator": ["ops"]},
            "auth_oidc_ca_file": "authority.crt",
            "auth_ldap_urls": directory.urls,
            "auth_ldap_bind_dn": BIND_DN,
            "auth_ldap_user_base": f"ou=people,{BASE}",
            "auth_ldap_group_base": f"ou=groups,{BASE}",
            "auth_ldap_role_groups": {"viewer": [group_dn("staff")]},
            "auth_ldap_ca_file": "authority.crt",
        }
        folder = cluster.declare(tmp_path / "inventory", options)
        (folder / "authority.crt").write_bytes(authority.ca.read_bytes())
        write(folder / VAULT, dump({"auth_oidc_client_secret": CLIENT_SECRET, "auth_ldap_bind_password": BIND_PASSWORD}), 0o600)
        done = cluster.document("apply", "--only", "6", folder=folder)
        try:
            seen = {(check["node"], check["id"]): (check["status"], check["seen"]) for check in done["checks"]}
            looked = {(node, check): seen[node, check] for node in cluster.nodes for check in ("oidc-provider", "ldap-servers")}
            assert {status for status, _ in looked.values()} == {"pass"}, looked
            text = json.dumps(done)
            assert CLIENT_SECRET not in text and BIND_PASSWORD not in text
            for node in (one, three):
                for name in ("oidc_client_secret", "ldap_bind_password"):
                    kept = cluster.host(node).file(f"/etc/bzzz/auth/{name}")
                    assert (kept.mode, kept.user, kept.group) == (0o640, "root", "bzzz")

            browser = requests.Session()
            browser.trust_env, home = False, f"https://{api.addresses[two]}:8080"
            # The provider's and the cluster's authorities, as a browser would trust both.
            browser.verify = str(tmp_path / "both.crt")
            (tmp_path / "both.crt").write_bytes(authority.ca.read_bytes() + api.ca.read_bytes())
            assert "Sign in with OpenID Connect" in browser.get(home, timeout=10).text
            away = browser.get(f"{home}/sign-in/oidc", allow_redirects=False, timeout=10).headers["location"]
            assert browser.get(provider.signs_in(browser, away, "lab-otto"), timeout=10).status_code == 200
            me = browser.get(f"{home}/api/v1/me", timeout=10).json()
            assert (me["kind"], me["name"], me["role"]) == ("oidc", "lab-otto@example.com", "operator")

            for node in cluster.nodes:
                body = {"user": "lab-dora", "password": password}
                session = requests.post(f"https://{api.addresses[node]}:8080/api/v1/sessions", json=body, verify=str(api.ca), timeout=15)
                assert session.status_code == 201, session.text
                assert api.get(node, "/api/v1/me", token=session.json()["token"]).json()["role"] == "viewer"
            (line,) = (line for line in audit(cluster, two) if line["who"] == "oidc:lab-otto@example.com" and line["audit"] == "sign_in")
            assert line["outcome"] == "ok"
            for node in cluster.nodes:
                journal = cluster.lab.exec(node, ["journalctl", "-b", "-o", "cat"]).stdout
                assert not any(secret in journal for secret in (password, CLIENT_SECRET, BIND_PASSWORD))
        finally:
            gone = cluster.document("apply", "--only", "6")
        assert gone["changes"] and not cluster.host(one).file("/etc/bzzz/auth/oidc_client_secret").exists
