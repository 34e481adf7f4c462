# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Users and tokens on real nodes: made on one, at work on another, kept by the next apply, and in the journal."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests
from conftest import Tools
from rest import Api, wait_for

NAME, PASSWORD = "lab-anna", "canary horse battery staple"


@pytest.fixture(scope="module")
def api(cluster: Tools, tmp_path_factory: pytest.TempPathFactory) -> Api:
    return Api(cluster, tmp_path_factory.mktemp("api"))


def audit(cluster: Tools, node: str) -> list[dict[str, Any]]:
    lines = cluster.lab.exec(node, ["journalctl", "-u", "bzzz.service", "-o", "cat", "-g", '^{"audit"']).stdout.splitlines()
    return [json.loads(line) for line in lines]


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
