# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Accounts and tokens of the wizard, keys from files, what is taken along from it and into it, and its colours, in a real browser."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from front import Front
from wizard import PASSWORD, Screen, Server, own_home

from bzzz_setup import init
from bzzz_setup.declaration import HOSTS, dump

OTHER = "horse battery correct"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("people")
    front = Front(folder)
    (front.inventory / HOSTS).write_text(dump(init.hosts({"n1": "192.0.2.1"}, ["n1"], {})))
    collections = {"ANSIBLE_COLLECTIONS_PATH": front.environment["ANSIBLE_COLLECTIONS_PATH"]}
    server = Server(front.inventory, own_home(folder), collections)
    server.start()
    claim = {"token": server.link.partition("#claim=")[2], "name": "anna", "password": PASSWORD}
    assert requests.post(f"{server.address}/api/v1/claim", json=claim, timeout=10).status_code == 201
    yield server
    server.stop()


@pytest.fixture
def screen(browser: Any, server: Server) -> Iterator[Screen]:
    with contextlib.closing(browser.new_context(viewport={"width": 1400, "height": 900}, color_scheme="light")) as own:
        own.set_default_timeout(20_000)
        screen = Screen(own.new_page())
        screen.page.on("pageerror", lambda error: screen.complaints.append(str(error)))
        screen.page.goto(server.address)
        yield screen
        assert screen.complaints == []


def sign_in(screen: Screen, user: str, password: str) -> None:
    screen.heading("Sign in")
    screen.page.get_by_label("User").fill(user)
    screen.page.get_by_label("Password").fill(password)
    screen.page.get_by_role("button", name="Sign in", exact=True).click()


@pytest.mark.requirement("2.4.1", part="in the wizard: issued, listed, signed in with, revoked, in a browser")
@pytest.mark.requirement("2.4.4", part="in the wizard: added, given a role and a password, changed by themselves, removed, in a browser")
def test_an_administrator_lets_people_and_programs_in_and_out(screen: Screen, server: Server) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = screen.page
    sign_in(screen, "anna", PASSWORD)
    page.get_by_role("link", name="People").click()
    page.get_by_role("row", name="anna admin").wait_for()

    adding = page.get_by_role("region", name="Add a user")
    adding.get_by_label("User").fill("vera")
    adding.get_by_label("Password").fill("short")
    adding.get_by_role("button", name="Add a user").click()
    adding.get_by_text("A password has 12 to 256 characters").wait_for()
    adding.get_by_role("button", name="Show what is typed").click()
    assert adding.get_by_label("Password").get_attribute("type") == "text"
    adding.get_by_role("button", name="Show what is typed").click()
    assert adding.get_by_label("Password").get_attribute("type") == "password"
    assert page.get_by_role("alert").count() == page.get_by_role("button", name="Remove anna").count() == 0
    adding.get_by_label("Password").fill(OTHER)
    adding.get_by_role("button", name="Add a user").click()
    page.get_by_role("row", name="vera").wait_for()
    page.get_by_label("Role of vera").locator("..").get_by_role("combobox").click()
    page.get_by_role("option", name="admin").click()
    page.get_by_role("row", name="vera").get_by_role("combobox").filter(has_text="admin").wait_for()
    page.get_by_role("button", name="New password for vera").click()
    setting = page.get_by_role("region", name="New password for vera")
    setting.get_by_label("New password").fill(PASSWORD)
    setting.get_by_role("button", name="Set it").click()
    setting.wait_for(state="detached")

    page.get_by_text("No token has been issued.").wait_for()
    issuing = page.get_by_role("region", name="Issue a token")
    issuing.get_by_label("Name").fill("Nightly run")
    issuing.get_by_label("Days").fill("0")
    issuing.get_by_role("button").click()
    issuing.get_by_text("This is no name").wait_for()
    issuing.get_by_text("This is no time to live").wait_for()
    issuing.get_by_label("Name").fill("nightly")
    issuing.get_by_label("Days").fill("30")
    issuing.get_by_role("button").click()
    issued = page.get_by_role("alert")
    secret = issued.locator("code").inner_text()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    issued.get_by_role("button", name="Copy").click()
    issued.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == secret
    page.get_by_role("row", name="nightly viewer").wait_for()
    page.evaluate("Promise.allSettled(document.getAnimations().map((one) => one.finished))")  # colours fade over
    found = Axe().run(page).response["violations"]
    assert not found, [(one["id"], one["nodes"][0]["html"][:300]) for one in found]
    if kept := os.environ.get("BZZZ_PICTURES"):  # for the docs, where no token is to be read
        page.locator("code").evaluate("shown => { shown.textContent = 'bzzz_' + '…'; }")
        page.screenshot(path=Path(kept) / "wizard-people.png", full_page=True)
    me = requests.get(f"{server.address}/api/v1/me", headers={"Authorization": f"Bearer {secret}"}, timeout=10).json()
    assert (me["kind"], me["role"]) == ("token", "viewer")
    page.reload()
    page.get_by_role("row", name="nightly viewer").wait_for()
    assert secret not in page.content()

    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("button", name="Sign in with a token").click()
    for given in ("bzzz_wrong", secret):
        page.get_by_label("Token").fill(given)
        page.get_by_role("button", name="Sign in", exact=True).click()
        if given != secret:
            page.get_by_role("alert").filter(has_text="That is no token of this cluster").wait_for()
    page.get_by_role("banner").get_by_text("nightly/").wait_for()
    assert page.get_by_role("link", name="People").count() == 0, "its role is viewer"
    page.get_by_role("button", name="Sign out").click()

    sign_in(screen, "vera", PASSWORD)
    page.get_by_role("link", name="People").click()
    screen.surely("Revoke nightly")
    page.get_by_text("No token has been issued.").wait_for()
    assert requests.get(f"{server.address}/api/v1/me", headers={"Authorization": f"Bearer {secret}"}, timeout=10).status_code == 401
    own = page.get_by_role("region", name="Your password")
    own.get_by_label("Old password").fill("that is not it at all")
    own.get_by_label("New password").fill(OTHER)
    own.get_by_role("button", name="Change it").click()
    page.get_by_role("alert").filter(has_text="User or password is wrong").wait_for()
    own.get_by_label("Old password").fill(PASSWORD)
    own.get_by_role("button", name="Change it").click()
    sign_in(screen, "vera", OTHER)

    page.get_by_role("link", name="vera").click()
    page.get_by_role("row", name="anna").wait_for()
    assert page.get_by_role("button", name="Remove vera").count() == 0, "nobody by a slip shuts themselves out"
    page.get_by_role("button", name="Sign out").click()
    sign_in(screen, "anna", PASSWORD)
    page.get_by_role("link", name="People").click()
    screen.surely("Remove vera")
    page.get_by_role("row", name="vera").wait_for(state="detached")
    me, own = f"{server.address}/api/v1/users/anna", {"Origin": server.address}
    cookies = {one["name"]: one["value"] for one in page.context.cookies()}
    for refused in (
        requests.delete(me, cookies=cookies, headers=own, timeout=10),
        requests.patch(me, json={"role": "viewer"}, cookies=cookies, headers=own, timeout=10),
    ):
        assert refused.status_code == 409 and "only administrator" in refused.text, refused.text


@pytest.mark.requirement("2.1.2", part="uploaded in a browser; a private key by mistake, which does not leave it")
def test_a_public_key_is_uploaded_and_a_private_one_is_not(screen: Screen, server: Server, tmp_path: Path) -> None:
    page, sent = screen.page, []
    page.on("request", lambda request: sent.append(request.post_data or ""))
    private = tmp_path / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "anna@laptop", "-f", private], check=True)
    weak = tmp_path / "weak.pub"
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-b", "1024", "-N", "", "-f", weak.with_suffix("")], check=True)
    sign_in(screen, "anna", PASSWORD)
    page.get_by_role("link", name="3. Security").click()
    card = page.locator("section[aria-labelledby=role-ssh]")
    field, given = card.get_by_label("Public keys"), card.get_by_label("Add from a file", exact=True).and_(page.locator("input"))
    given.set_input_files(private)
    card.get_by_role("alert").filter(has_text="id_ed25519 holds other lines than public keys").wait_for()
    given.set_input_files(private.with_suffix(".pub"))
    key = private.with_suffix(".pub").read_text().strip()
    page.get_by_role("link", name="3. Security 1 value is typed").wait_for()
    assert field.input_value() == key and card.get_by_role("alert").count() == 0
    given.set_input_files(weak)
    card.get_by_text("bits").first.wait_for()
    assert field.input_value().splitlines() == [key, weak.read_text().strip()]
    secret = private.read_text().splitlines()[2]
    assert not any(secret in body for body in sent)

    # Pasted instead, it is refused by the server and kept by nobody.
    page.get_by_role("link", name="Review and apply").click()
    screen.surely("Discard them")
    page.get_by_text("is typed and not applied").first.wait_for(state="detached")
    page.get_by_role("link", name="3. Security").click()
    field.fill(private.read_text())
    page.get_by_role("alert").filter(has_text="This is a private key. It is not kept").wait_for()
    page.reload()
    screen.heading("Step 3 of 8")
    assert field.input_value() == ""


@pytest.mark.requirement("T3", part="export and import in a browser")
@pytest.mark.requirement("T1", part="the page's colours are chosen")
def test_a_declaration_is_taken_along_and_taken_in(screen: Screen, tmp_path: Path) -> None:
    page = screen.page
    sign_in(screen, "anna", PASSWORD)
    page.get_by_role("link", name="Cluster", exact=True).click()
    page.get_by_role("button", name="Export").click()
    with page.expect_download() as coming:
        page.get_by_role("menuitem", name="The declaration (YAML)").click()
    file = tmp_path / "declaration.yml"
    coming.value.save_as(file)
    text = file.read_text()
    assert "declaration_cluster_name: trial" in text

    given = page.locator("input[type=file]")
    for other, told in (
        ("declaration_cluster_name: [", "is not YAML"),
        (text.replace("192.0.2.1", "192.0.2.9"), "1 value differs"),
    ):
        file.write_text(other)
        given.set_input_files(file)
        page.get_by_role("alert").filter(has_text=told).wait_for()
    page.get_by_role("link", name="1. Detection").click()
    page.get_by_role("row", name="n1 192.0.2.9").wait_for()
    page.get_by_role("link", name="Review and apply").click()
    screen.surely("Discard them")
    page.get_by_text("is typed and not applied").first.wait_for(state="detached")

    shade = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(shade)
    page.get_by_label("Colours").locator("..").get_by_role("combobox").click()
    page.get_by_role("option", name="Dark").click()
    page.wait_for_function(f"{shade} !== {light!r}")
    page.reload()
    screen.heading("Review")
    assert page.evaluate(shade) != light, "it is kept"
