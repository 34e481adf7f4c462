# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The wizard in a real browser, on lab nodes: from the link that the terminal shows to a validated cluster."""

from __future__ import annotations

import contextlib
import re
import shutil
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import labs
import pytest
from front import Front
from wizard import PASSWORD, Screen, Server, own_home

from bzzz_setup import init
from bzzz_setup import lab as lab_module
from bzzz_setup.declaration import HOSTS, MAIN, dump
from bzzz_setup.lab import Lab

WIDTHS = (375, 900, 1400)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with labs.three_nodes("wizard", "mixed") as lab:
        yield lab


@pytest.fixture(scope="module")
def server(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    base = tmp_path_factory.mktemp("wizard")
    shutil.copytree(lab.inventory, base / "inventory")
    server = Server(base / "inventory", own_home(base))
    server.start()
    yield server
    server.stop()


@pytest.mark.requirement("T1", part="in a browser, over playbooks that stand in for the collection's")
def test_the_way_through(browser: Any, tmp_path: Path) -> None:
    """The link, an account, a problem and its end, the plan, the run; the whole of it, on lab nodes, is slow and below."""
    from axe_playwright_python.sync_playwright import Axe

    front = Front(tmp_path)
    (front.inventory / HOSTS).write_text(dump(init.hosts({"n1": "192.0.2.1", "n2": "192.0.2.2"}, ["n1"], {})))
    changed = {"changed": True, "changes": [{"kind": "file", "name": "/etc/x", "what": "create"}]}
    changed |= {"diff": {"before": "", "after": "a line of it\n", "before_header": "/etc/x", "after_header": "/etc/x"}}
    changed |= {"ansible_facts": {"bzzz_cost_forecast": {"told": ["A month would cost 12 USD."]}}}
    front.step(3, [{"bzzz.cluster.answer": {"result": changed}}])
    server = Server(front.inventory, own_home(tmp_path), {"ANSIBLE_COLLECTIONS_PATH": front.environment["ANSIBLE_COLLECTIONS_PATH"]})
    server.start()
    try:
        with contextlib.closing(browser.new_context(viewport={"width": 1400, "height": 900})) as own:
            own.set_default_timeout(30_000)
            screen = Screen(own.new_page())
            page = screen.page
            page.on("pageerror", lambda error: screen.complaints.append(str(error)))
            page.goto(server.link)
            screen.heading("Make the first account")
            assert "claim=" not in page.url and Axe().run(page).response["violations"] == []
            page.get_by_label("User").fill("anna")
            page.get_by_label("Password").fill(PASSWORD)
            page.get_by_role("button", name="Make the account").click()
            screen.heading("Step 1 of 8")
            page.get_by_role("row", name="n1 192.0.2.1 22 coordinator, worker").wait_for()
            page.get_by_role("link", name="6. Services").click()
            port = page.get_by_label("Port", exact=True)
            port.fill("3000")
            told = page.get_by_role("alert").filter(has_text="Port 3000 is also service_port").first
            told.wait_for()
            page.reload()
            screen.heading("Step 6 of 8")
            assert port.input_value() == "3000", "nothing that was typed is lost"
            port.fill("9090")
            told.wait_for(state="detached")
            page.get_by_role("link", name="6. Services 1 value is typed and not applied").wait_for()
            page.get_by_role("link", name="Review and apply").click()
            page.get_by_role("button", name="Show what would change").click()
            screen.heading("Plan ·")
            screen.ended()
            assert "service_port" not in (front.inventory / MAIN).read_text()
            page.get_by_role("button", name="Review and apply").click()
            page.get_by_role("heading", level=2, name="2 changes").wait_for()
            page.get_by_role("alert").filter(has_text="A month would cost 12 USD.").wait_for()
            page.get_by_role("button", name="n2: 1 change").click()
            page.get_by_role("button", name="/etc/x").click()
            page.get_by_text("+ a line of it").wait_for()
            page.get_by_role("button", name="Apply", exact=True).click()
            screen.heading("Apply ·")
            screen.ended()
            assert "service_port: 9090" in (front.inventory / MAIN).read_text()
            page.get_by_role("link", name="6. Services", exact=True).wait_for()
            page.get_by_role("button", name="See the cluster").click()
            screen.heading("Cluster")
            for path in (*(f"/step/{number}" for number in range(1, 9)), "/review", "/cluster", "/people"):
                page.goto(server.address + path)
                page.get_by_role("heading", level=1).wait_for()
                page.wait_for_load_state("networkidle")
                found = Axe().run(page).response["violations"]
                assert not found, f"{path}: {[(one['id'], one['nodes'][0]['html'][:200]) for one in found]}"
            assert screen.complaints == []
    finally:
        server.stop()


@pytest.fixture(scope="module")
def context(browser: Any, server: Server) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    context.set_default_timeout(20_000)
    yield context
    context.close()


@pytest.fixture
def screen(context: Any, server: Server) -> Iterator[Screen]:
    shown = Screen(context.new_page())
    shown.page.on("console", lambda said: shown.complaints.append(said.text) if said.type == "error" else None)
    shown.page.on("pageerror", lambda error: shown.complaints.append(str(error)))
    yield shown
    shown.page.close()
    assert [one for one in shown.complaints if "401" not in one and "409" not in one] == []


@pytest.mark.slow
@pytest.mark.requirement("T1", "F1", part="in a browser: the link of the terminal, the first account, the machines")
def test_the_link_makes_the_first_account_and_shows_the_machines(screen: Screen, server: Server, lab: Lab) -> None:
    """One name and one password are typed, nothing else."""
    screen.page.goto(server.link)
    screen.heading("Make the first account")
    assert "claim=" not in screen.page.url
    screen.page.get_by_label("User").fill("anna")
    screen.page.get_by_label("Password").fill(PASSWORD)
    screen.page.get_by_role("button", name="Make the account").click()
    screen.heading("Step 1 of 8: Detection")
    for node in lab.nodes:
        screen.page.get_by_role("row", name=re.compile(rf"{node.name} {re.escape(node.address)} 22")).wait_for()
    screen.page.get_by_role("button", name="Detect").click()
    screen.heading("Detection ·")
    screen.ended(120)
    screen.page.get_by_role("link", name="1. Detection").click()
    screen.page.get_by_text(re.compile(r"Debian 1[23].*threads")).first.wait_for()


@pytest.mark.slow
@pytest.mark.requirement("T1", part="the eight steps by one click each, problems where they are, values kept")
def test_eight_steps_take_a_click_each_and_problems_are_told_where_they_are(screen: Screen, server: Server, lab: Lab) -> None:
    screen.page.goto(server.address)
    for number in range(1, 9):
        screen.heading(f"Step {number} of 8")
        assert screen.page.locator("[aria-current=step]").inner_text().startswith(f"{number}.")
        if number == 2:
            # What was detected stands where nothing is typed.
            subnet = screen.page.get_by_label("Subnet", exact=True)
            assert subnet.get_attribute("placeholder") == str(lab.subnet)
        if number == 6:
            port = screen.page.get_by_label("Port", exact=True)
            began = time.monotonic()
            port.fill("3000")
            screen.page.get_by_role("alert").filter(has_text="Port 3000 is also service_port").first.wait_for()
            assert time.monotonic() - began < 10
            assert screen.page.get_by_label("1 problem").is_visible()
            screen.page.reload()
            screen.heading("Step 6 of 8")
            assert port.input_value() == "3000", "nothing that was typed is lost"
            port.fill("")
            screen.page.get_by_role("alert").filter(has_text="Port 3000 is also service_port").first.wait_for(state="detached")
            assert port.get_attribute("placeholder") == "8080"
        screen.page.get_by_role("button", name="Review" if number == 8 else "Next").click()
    screen.heading("Review and apply")
    screen.page.go_back()
    screen.heading("Step 8 of 8")


@pytest.mark.slow
@pytest.mark.requirement("T1", "F2", "F3", "F5", "F6", "F7", "F8", part="in a browser, from the plan to the validated cluster")
def test_what_is_planned_is_applied_and_watched_through_a_reload(screen: Screen, server: Server, lab: Lab, context: Any) -> None:
    screen.page.goto(f"{server.address}/review")
    screen.page.get_by_role("button", name="Show what would change").click()
    screen.heading("Plan ·")
    screen.ended(180)
    screen.page.get_by_role("link", name="Review and apply").click()
    screen.page.get_by_role("heading", level=2, name=re.compile(r"\d\d+ changes")).wait_for()
    screen.page.get_by_role("button", name="Apply", exact=True).click()
    screen.heading("Apply ·")
    screen.page.get_by_role("columnheader", name=re.compile("2. Network")).wait_for()
    screen.page.get_by_text(re.compile("changes$")).first.wait_for(timeout=120_000)
    # The laptop closes, and opens again; the wizard itself is started anew meanwhile.
    url = screen.page.url
    screen.page.goto("about:blank")
    server.stop()
    server.said.clear()
    server.start(int(url.split("/")[2].rpartition(":")[2]))
    screen.page.goto(url)
    screen.heading("Sign in")
    screen.page.get_by_label("User").fill("anna")
    screen.page.get_by_label("Password").fill(PASSWORD)
    screen.page.get_by_role("button", name="Sign in", exact=True).click()
    screen.heading("Apply ·")
    screen.ended()
    checks = screen.page.get_by_role("heading", level=2, name=re.compile("Checks:")).inner_text()
    passed, asked = re.findall(r"\d+", checks)
    assert int(passed) > 100 and int(asked) - int(passed) < 10, checks  # the others were not asked for
    with context.expect_page() as opened:
        screen.page.get_by_role("link", name="Report").click()
    opened.value.get_by_role("heading", level=1).wait_for()
    assert all(node.name in opened.value.content() for node in lab.nodes)
    opened.value.close()


@pytest.mark.slow
@pytest.mark.requirement("T1", part="two browsers at once")
def test_two_windows_at_once_lose_nothing(screen: Screen, server: Server, context: Any) -> None:
    other = context.new_page()
    for page in (screen.page, other):
        page.goto(f"{server.address}/step/6")
        page.get_by_label("MCP port", exact=True).wait_for()
    # The other window does not hear of it before it sends its own.
    other.route("**/api/v1/draft", lambda route: route.abort() if route.request.method == "GET" else route.continue_())
    with screen.page.expect_response(lambda answer: answer.request.method == "PATCH"):
        screen.page.get_by_label("MCP port", exact=True).fill("3001")
    with other.expect_response(lambda answer: answer.request.method == "PATCH") as answered:
        other.get_by_label("MCP port", exact=True).fill("3002")
    assert answered.value.status == 409
    other.get_by_text("has changed this meanwhile").wait_for()
    other.unroute("**/api/v1/draft")
    other.close()
    screen.page.get_by_role("link", name="Review and apply").click()
    screen.heading("Review and apply")
    screen.page.get_by_text("service_mcp_port").wait_for()
    screen.page.get_by_role("button", name="Discard them").click()
    screen.page.get_by_role("button", name="Cancel").click()
    screen.page.get_by_role("alertdialog").wait_for(state="detached")
    screen.page.get_by_text("service_mcp_port").wait_for()
    screen.surely("Discard them")
    screen.page.get_by_text("service_mcp_port").wait_for(state="detached")


@pytest.mark.slow
@pytest.mark.requirement("T1", part="by keyboard alone")
def test_everything_is_reached_by_keyboard(screen: Screen, server: Server) -> None:
    page = screen.page
    page.goto(f"{server.address}/step/3")
    screen.heading("Step 3 of 8")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    for _ in range(200):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "Next":
            break
    page.keyboard.press("Enter")
    screen.heading("Step 4 of 8")
    assert page.evaluate("document.activeElement.id") == "content", "the focus goes along"


@pytest.mark.slow
@pytest.mark.requirement("T1", part="screen readers, light and dark, at three widths")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_stands_in_anybodys_way(browser: Any, server: Server, context: Any, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    own = browser.new_context(color_scheme=scheme, storage_state=context.storage_state())
    with contextlib.closing(own):
        page = own.new_page()
        page.goto(f"{server.address}/cluster")
        page.get_by_role("link", name="Apply").first.wait_for()
        paths = [
            *(f"/step/{number}" for number in range(1, 9)),
            "/review",
            "/cluster",
            page.get_by_role("link", name="Apply").first.get_attribute("href"),
        ]
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            for path in paths:
                page.goto(server.address + path)
                page.get_by_role("heading", level=1).wait_for()
                page.wait_for_load_state("networkidle")
                found = Axe().run(page).response["violations"]
                assert not found, f"{path} {width} {scheme}: " + "; ".join(
                    f"{one['id']}: {one['nodes'][0]['html'][:300]} {one['nodes'][0].get('failureSummary', '')}" for one in found
                )
                assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{path} is wider than {width}"


@pytest.mark.requirement("T1", part="the demo leaves it running")
def test_the_demo_leaves_it_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = own_home(tmp_path)
    monkeypatch.setenv("HOME", str(home))
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "front").mkdir()
    front = Front(tmp_path / "front")
    shown = lab_module._Wizard(SimpleNamespace(directory=tmp_path, inventory=front.inventory))
    shown.start()
    try:
        link = shown.link()
        with urllib.request.urlopen(link, timeout=10) as answer:
            assert answer.status == 200 and b"<title>" in answer.read()
        assert "#claim=" in link
        again = lab_module._Wizard(SimpleNamespace(directory=tmp_path, inventory=front.inventory))
        again.start()
        assert again.link() == link, "one is enough"
    finally:
        shown.stop()
    until = time.monotonic() + 20
    while shown._process():
        assert time.monotonic() < until
        time.sleep(0.1)
    assert "it is not up" in shown.link()
