# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""People of an OpenID Connect provider and of a directory sign in to the wizard in a browser, with what is declared for the nodes."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

import pytest
import requests
from front import Front
from node_cluster import Authority, free_ports
from people import BASE, BIND_DN, BIND_PASSWORD, CLIENT, CLIENT_SECRET, Directory, Provider, group_dn
from test_wizard import PASSWORD, Screen, Server, own_home

from bzzz_setup import init
from bzzz_setup.declaration import Declaration


def _tries_both(page: Any, directory: Directory, provider: Provider) -> None:
    """Step 6's buttons, with what is declared, with a wrong base as it is typed, and with the right one again."""
    page.get_by_role("link", name="6. Services").click()
    card = page.locator("section[aria-labelledby=role-auth]")
    card.get_by_role("button", name="Test OpenID Connect").click()
    card.get_by_text(f"{provider.issuer} answers.").wait_for()
    test = card.get_by_role("button", name="Test LDAP")
    right = card.get_by_text(f"{', '.join(directory.urls)} answers.")
    test.click()
    right.wait_for()
    card.get_by_role("button", name="more settings").click()
    base = card.get_by_label("LDAP user base")
    base.fill("ou=nobody,dc=example,dc=org")
    test.click()
    card.get_by_role("alert").filter(has_text="user_base").first.wait_for()
    base.fill(f"ou=people,{BASE}")
    test.click()
    right.wait_for()
    page.get_by_role("link", name="1. Detection").click()


@pytest.mark.requirement("2.4.2", part="at the wizard's sign-in, in a browser")
@pytest.mark.requirement("2.4.3", part="at the wizard's sign-in, in a browser")
def test_people_sign_in_to_the_wizard(browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from axe_playwright_python.sync_playwright import Axe

    front, authority, (port,) = Front(tmp_path), Authority(tmp_path), free_ports(1)
    home, groups = f"http://127.0.0.1:{port}/", {"anna": ["ops"], "carl": ["visitors"]}
    with contextlib.ExitStack() as stack:
        callback = f"{home}api/v1/sign-in/oidc/callback"
        provider = stack.enter_context(contextlib.closing(Provider(tmp_path / "provider", authority, groups, [callback])))
        people, teams = {"dora": "canary of dora"}, {"staff": ["uid:dora"]}
        directory = stack.enter_context(contextlib.closing(Directory(tmp_path / "ldap", authority, people, teams)))
        oidc = {"issuer": provider.issuer, "client_id": CLIENT, "title": "Example & Co", "role_groups": {"admin": ["ops"]}}
        ldap = {"urls": directory.urls, "bind_dn": BIND_DN, "role_groups": {"viewer": [group_dn("staff")]}}
        ldap |= {"user_base": f"ou=people,{BASE}", "group_base": f"ou=groups,{BASE}"}
        options: dict[str, Any] = {"declaration_cluster_name": "trial"}
        for kind, given in (("oidc", oidc), ("ldap", ldap)):
            options |= {f"auth_{kind}_{name}": value for name, value in {**given, "ca_file": str(authority.ca)}.items()}
        secrets = {"auth_oidc_client_secret": CLIENT_SECRET, "auth_ldap_bind_password": BIND_PASSWORD}
        monkeypatch.setenv("HOME", str(own_home(tmp_path)))
        monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
        hosts = init.hosts({"n1": "192.0.2.1"}, ["n1"], {})
        Declaration(front.inventory, hosts, options, secrets=secrets).create(force=True)

        server = Server(front.inventory, front.home)
        server.start(port)
        stack.callback(server.stop)
        claim = {"token": server.link.partition("#claim=")[2], "name": "local", "password": PASSWORD}
        assert requests.post(f"{home}api/v1/claim", json=claim, timeout=10).status_code == 201

        own = stack.enter_context(contextlib.closing(browser.new_context(ignore_https_errors=True)))
        own.set_default_timeout(20_000)
        screen = Screen(own.new_page())
        page = screen.page
        page.on("pageerror", lambda error: screen.complaints.append(str(error)))
        for account in ("carl", "anna"):
            page.goto(home)
            page.get_by_role("link", name="Sign in with Example & Co").click()
            page.locator("input[name=login]").fill(account)
            page.locator("input[name=password]").fill("any")
            page.get_by_role("button", name="Sign-in").click()
            page.get_by_role("button", name="Continue").click()
            if account == "carl":
                page.get_by_role("alert").filter(has_text="none of the groups has a role").wait_for()
                assert page.url == home and Axe().run(page).response["violations"] == []
                own.clear_cookies(name=re.compile("_.*"))  # the provider's, which would not ask again who this is
        screen.heading("Step 1 of 8")
        assert page.url == home
        page.get_by_text("anna@example.com", exact=True).wait_for()
        page.get_by_role("link", name="People").wait_for()  # as an administrator sees it
        _tries_both(page, directory, provider)
        page.get_by_role("button", name="Sign out").click()
        screen.heading("Sign in")
        assert page.get_by_role("alert").count() == 0
        page.get_by_label("User").fill("dora")
        page.get_by_label("Password").fill(people["dora"])
        page.get_by_role("button", name="Sign in", exact=True).click()
        screen.heading("Step 1 of 8")
        page.get_by_text("dora", exact=True).wait_for()
        assert page.get_by_role("link", name="People").count() == 0 and screen.complaints == []


@pytest.mark.requirement("2.4.0", part="the wizard for others than this host: HTTPS, by its own names only")
def test_it_is_served_to_others_by_its_certificate(browser: Any, tmp_path: Path) -> None:
    front, authority, (port,) = Front(tmp_path), Authority(tmp_path), free_ports(1)
    certificate, key = authority.leaf("setup.example.com")
    server = Server(front.inventory, own_home(tmp_path))
    server.start()
    claim = {"token": server.link.partition("#claim=")[2], "name": "anna", "password": PASSWORD}
    assert requests.post(f"{server.address}/api/v1/claim", json=claim, timeout=10).status_code == 201
    server.stop()
    server.said.clear()
    server.arguments = ("--host", "0.0.0.0", "--port", str(port), "--certificate", str(certificate), "--key", str(key))
    server.arguments += ("--name", "setup.example.com", "--name", "127.0.0.1")
    server.start()
    with contextlib.ExitStack() as stack:
        stack.callback(server.stop)
        assert server.address == f"https://setup.example.com:{port}"
        home = f"https://127.0.0.1:{port}"
        assert requests.get(home, verify=str(authority.ca), timeout=10).status_code == 200
        named = {"Host": f"elsewhere.example.com:{port}"}
        assert requests.get(f"{home}/api/v1/welcome", verify=str(authority.ca), headers=named, timeout=10).status_code >= 400
        with pytest.raises(requests.ConnectionError):
            requests.get(f"http://127.0.0.1:{port}", timeout=10)
        own = stack.enter_context(contextlib.closing(browser.new_context(ignore_https_errors=True)))
        own.set_default_timeout(20_000)
        screen = Screen(own.new_page())
        screen.page.goto(home)
        screen.heading("Sign in")
        screen.page.get_by_label("User").fill("anna")
        screen.page.get_by_label("Password").fill(PASSWORD)
        screen.page.get_by_role("button", name="Sign in", exact=True).click()
        screen.heading("Step 1 of 8")
        (cookie,) = own.cookies()
        assert cookie["secure"] and cookie["httpOnly"] and cookie["name"].startswith("__Host-")
