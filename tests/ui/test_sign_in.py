# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A person signs in at an OpenID Connect provider in a browser, as far as the status page and out again."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from node_cluster import Cluster, Node, etcd_program, wait_for
from people import CLIENT, CLIENT_SECRET, Provider

from bzzz_setup import release


@pytest.mark.requirement("2.4.2", part="in a browser")
def test_a_person_signs_in_at_the_provider_and_out_again(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(CLIENT_SECRET)
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(contextlib.closing(Cluster(tmp_path / "cluster", release.build(), etcd=etcd_program())))
        node = Node(cluster, "node1", ["coordinator"], None, cluster.etcd.endpoints)
        home, groups = f"https://127.0.0.1:{node.port}/", {"anna": ["ops"], "carl": ["visitors"]}
        provider = Provider(tmp_path / "provider", cluster.authority, groups, [f"{home}sign-in/oidc/callback"])
        stack.enter_context(contextlib.closing(provider))
        node.settings["oidc"] = {
            **{"issuer": provider.issuer, "client_id": CLIENT, "client_secret_file": str(tmp_path / "secret"), "title": "Example & Co"},
            **{"ca": str(cluster.authority.ca), "role_groups": {"admin": ["ops"]}},
        }
        cluster.nodes[node.name] = node
        node.start()
        wait_for(node.ready, 30, "the node is ready")
        for account, name in (("carl", ""), ("anna", "anna@example.com")):
            page = browser.new_page(ignore_https_errors=True)
            page.goto(home)
            page.get_by_role("link", name="Sign in with Example & Co").click()
            page.locator("input[name=login]").fill(account)
            page.locator("input[name=password]").fill("any")
            page.get_by_role("button", name="Sign-in").click()
            page.get_by_role("button", name="Continue").click()
            if name:
                page.get_by_role("heading", name="Checks of node1").wait_for()
                assert page.url == home and page.evaluate("fetch('/api/v1/me').then(said => said.json())")["name"] == name
                page.get_by_role("button", name="Sign out").click()
                page.get_by_role("link", name="Sign in with Example & Co").wait_for()
            assert page.evaluate("fetch('/api/v1/me').then(said => said.status)") == 401, f"{account} is in, but should not be"
            page.context.close()
