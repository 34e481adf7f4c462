# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Step 4 in a browser: lists and dicts are typed, problems stand at their fields, and its tests ask whom is typed.

Who is asked is OpenAI's stand-in on loopback; for an endpoint elsewhere it is the declared proxy, too.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import pytest
from front import Front
from gateway import StandIn
from openai_standin import KEY
from wizard import PASSWORD, Screen, Server, own_home

from bzzz_setup import init
from bzzz_setup.declaration import HOSTS, dump


@pytest.fixture(scope="module")
def standin() -> Iterator[StandIn]:
    with contextlib.ExitStack() as stack:
        started = StandIn()
        stack.callback(started.stop)
        yield started


@pytest.fixture(scope="module")
def page(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Step 4, of whoever has just made the first account."""
    base = tmp_path_factory.mktemp("ai")
    front = Front(base)
    (front.inventory / HOSTS).write_text(dump(init.hosts({"n1": "192.0.2.1", "n2": "192.0.2.2"}, ["n1"], {})))
    server = Server(front.inventory, own_home(base))
    server.start()
    with contextlib.ExitStack() as stack:
        stack.callback(server.stop)
        own = stack.enter_context(contextlib.closing(browser.new_context(viewport={"width": 1280, "height": 900})))
        own.set_default_timeout(30_000)
        page = own.new_page()
        screen = Screen(page)
        page.on("pageerror", lambda error: screen.complaints.append(str(error)))
        page.goto(server.link)
        page.get_by_label("User").fill("anna")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Make the account").click()
        page.get_by_role("link", name="4. AI integration").click()
        page.get_by_role("button", name="Next").wait_for()
        yield page
        assert screen.complaints == []


def card(page: Any, role: str) -> Any:
    return page.locator(f"section[aria-labelledby=role-{role}]")


def group(where: Any, name: str) -> Any:
    return where.get_by_role("group", name=name, exact=True).first


@contextlib.contextmanager
def kept(page: Any, option: str, value: Any) -> Iterator[None]:
    """What is done within has the server keep this value, be it after others."""

    def is_it(answer: Any) -> bool:
        return answer.request.method == "PATCH" and answer.request.post_data_json["changes"].get(f"options/{option}", _NOTHING) == value

    with page.expect_response(is_it) as answered:
        yield
    assert answered.value.status == 200


_NOTHING = object()


@pytest.mark.requirement("F4", "T1", part="a list of models is typed, put in order and taken back, in a browser")
def test_entries_are_added_ordered_and_taken_away(page: Any) -> None:
    wanted = group(card(page, "models"), "Wanted")
    with kept(page, "models_wanted", [{"name": "no name"}]):
        wanted.get_by_role("button", name="Add: Wanted").click()
        page.keyboard.type("no name", delay=20)  # the focus is there already
    name = wanted.get_by_label("Name").first
    page.wait_for_function("() => document.activeElement.getAttribute('aria-invalid') === 'true'")
    told = page.locator(f"#{name.get_attribute('id')}__error")
    assert "'no name' is no name of a model." in told.inner_text() and name.input_value() == "no name"
    with kept(page, "models_wanted", [{"name": "qwen3:8b"}]):
        name.fill("qwen3:8b")
    told.wait_for(state="detached")
    wanted.get_by_role("button", name="Add: Wanted").click()
    two = group(wanted, "Entry 2")
    with kept(page, "models_wanted", [{"name": "qwen3:8b"}, {"name": "llama3.2:3b", "gpu": "never", "nodes": ["n1", "n2"]}]):
        two.get_by_label("Name").fill("llama3.2:3b")
        two.get_by_label("Nodes").fill("n1\nn2")
        two.get_by_role("button", name="more settings").click()
        two.get_by_label("GPU").click()
        page.get_by_role("option", name="never").click()
    with kept(page, "models_wanted", [{"name": "llama3.2:3b", "gpu": "never", "nodes": ["n1", "n2"]}, {"name": "qwen3:8b"}]):
        two.get_by_role("button", name="Up: Entry 2").click()
    page.reload()
    assert group(wanted, "Entry 1").get_by_label("Name").input_value() == "llama3.2:3b"
    with kept(page, "models_wanted", [{"name": "qwen3:8b"}]):
        group(wanted, "Entry 1").get_by_role("button", name="Remove: Entry 1").click()
    assert page.evaluate("document.activeElement.id") == "root_models_wanted", "the focus stays at the list"
    with kept(page, "models_wanted", None):
        wanted.get_by_role("button", name="Remove: Entry 1").click()


@pytest.mark.requirement("F4", "F5", "T1", part="budgets and the gateway's tasks by name, in a browser")
def test_values_by_name_are_typed_renamed_and_judged(page: Any) -> None:
    budgets = card(page, "cost")
    projects = group(budgets, "Projects")
    with kept(page, "cost_projects", {"search": {"day_usd": 5, "user_shares": {"anna": 120}}}):
        projects.get_by_role("button", name="Add: Projects").click()
        page.keyboard.type("search")
        projects.get_by_label("Day (USD)").fill("5")
        projects.get_by_role("button", name="Add: User shares").click()
        page.keyboard.type("anna")
        page.keyboard.press("Tab")
        page.keyboard.type("120")
    shares = group(projects, "User shares")
    told = projects.get_by_text("user_shares are no shares.")
    told.wait_for()
    assert told.count() == 1, "it is said once, where it is typed"
    with kept(page, "cost_projects", {"search": {"day_usd": 5, "user_shares": {"anna": 20}}}):
        shares.get_by_label("Percent").fill("20")
    with kept(page, "cost_projects", {"web": {"day_usd": 5, "user_shares": {"anna": 20}}}):
        projects.get_by_label("Project", exact=True).fill("web")
        page.keyboard.press("Enter")
    page.reload()
    assert shares.get_by_label("Percent").input_value() == "20"
    with kept(page, "cost_projects", None):
        projects.get_by_role("button", name="Remove: web").click()

    gateway = card(page, "gateway")
    gateway.get_by_role("button", name="more settings").click()
    tasks = group(gateway, "Tasks")
    with kept(page, "gateway_tasks", {"coding": "gpt-5"}):
        tasks.get_by_role("button", name="Add: Tasks").click()
        page.keyboard.type("coding")
        tasks.get_by_label("Model").fill("gpt-5")
    tasks.get_by_role("button", name="Add: Tasks").click()
    page.keyboard.type("coding")
    tasks.get_by_text("This name is there already.").first.wait_for()
    tasks.get_by_role("button", name="Remove: coding").last.click()
    with kept(page, "gateway_tasks", None):
        tasks.get_by_role("button", name="Remove: coding").click()


@pytest.mark.requirement("3.1.2", "F4", part="in a browser, against a stand-in: a wrong key, a good one")
def test_the_key_is_tried_as_it_is_typed(page: Any, standin: StandIn) -> None:
    openai = card(page, "openai")
    test = openai.get_by_role("button", name="Test OpenAI key")
    test.click()
    openai.get_by_role("alert").filter(has_text="openai_api_key: There is no key. Fill in").wait_for()
    openai.get_by_role("button", name="more settings").click()
    openai.get_by_label("Base URL").fill(f"{standin.url}/v1")
    # Pressed at once: what was typed goes first.
    openai.get_by_label("API key", exact=True).fill("sk-of-somebody-else-0000")
    test.click()
    openai.get_by_role("alert").filter(has_text="it does not take the key (401 invalid_api_key). Put a key").wait_for()
    openai.get_by_label("API key", exact=True).fill(KEY)
    test.click()
    # gpt-5 is what a gateway would call.
    openai.get_by_text("takes the key, which has 4 models; gpt-5 may be called.").wait_for()
    gateway = card(page, "gateway")
    gateway.get_by_role("button", name="more settings").click()
    gateway.get_by_label("Default model").fill("gpt-0")
    test.click()
    openai.get_by_role("alert").filter(has_text="it has no model gpt-0").wait_for()
    assert KEY not in page.content()


@pytest.mark.requirement("3.4.2", "F4", part="in a browser, against a stand-in: wrong address, no key, a good one")
def test_endpoints_are_tried_as_they_are_typed(page: Any, standin: StandIn) -> None:
    gateway = card(page, "gateway")
    test = gateway.get_by_role("button", name="Test endpoints")
    test.click()
    gateway.get_by_role("alert").filter(has_text="gateway_endpoints: No endpoint is declared.").wait_for()
    endpoints = group(gateway, "Endpoints")
    endpoints.get_by_role("button", name="Add: Endpoints").click()
    page.keyboard.type("box")
    url = endpoints.get_by_label("URL")
    url.fill("gpu9")
    test.click()
    gateway.get_by_role("alert").filter(has_text="This is no base URL. Write for example").wait_for()
    page.get_by_role("link", name="2. Network").click()
    downloads = card(page, "downloads")
    downloads.get_by_label("HTTP proxy").fill(standin.url)
    page.get_by_role("link", name="4. AI integration").click()
    url.fill("http://gpu9.example.com/v1")
    test.click()
    gateway.get_by_role("alert").filter(has_text="box: http://gpu9.example.com/v1: it wants a key, and there is none").wait_for()
    gateway.get_by_label("Endpoint keys").fill(f"box={KEY}")
    test.click()
    gateway.get_by_role("alert").filter(has_text="box: http://gpu9.example.com/v1 takes the key, which has 4 models.").wait_for()
    assert KEY not in page.content()


@pytest.mark.requirement("T1", part="step 4 for screen readers, light and dark, at 400 pixels, with entries in it")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_stands_in_nobodys_way(page: Any, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page.set_viewport_size({"width": 400, "height": 900})
    page.emulate_media(color_scheme=scheme)
    page.wait_for_selector(f"html[data-scheme={scheme}]")
    wanted = group(card(page, "models"), "Wanted")
    if not wanted.get_by_label("Name").count():
        wanted.get_by_role("button", name="Add: Wanted").click()
        page.keyboard.type("qwen3:8b")
    folds = page.get_by_role("button", name=re.compile("more settings?,"), expanded=False)
    while folds.count():
        folds.first.click()
    page.evaluate("Promise.allSettled(document.getAnimations().map((one) => one.finished))")
    found = Axe().run(page).response["violations"]
    assert not found, f"{scheme}: {[(one['id'], one['nodes'][0]['html'][:300]) for one in found]}"
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


@pytest.mark.requirement("T1", "4.1.4", part="channels for alerts are judged at their fields, and a secret is taken away again")
def test_channels_for_alerts_are_judged_where_they_are_typed(page: Any) -> None:
    def typed() -> str:
        told = page.get_by_role("complementary").inner_text()
        found = re.search(r"(\d+) values? (is|are) typed", told)
        return found[1] if found else "0"

    page.get_by_role("link", name="5. Resources").click()
    page.get_by_role("button", name="Next").wait_for()
    before = typed()
    alerts = card(page, "alerting")
    alerts.get_by_label("Webhook URLs").fill("https://hooks.example.com/a\nnonsense")
    alerts.get_by_text("'nonsense' is no URL.").wait_for()
    assert alerts.get_by_label("Webhook URLs").get_attribute("aria-invalid") == "true"
    alerts.get_by_label("Webhook URLs").fill("")
    alerts.get_by_text("'nonsense' is no URL.").wait_for(state="detached")
    alerts.get_by_label("E-mail to").fill("ops@example.com")
    alerts.get_by_label("SMTP server").fill("mail.example.com")
    alerts.get_by_text("'mail.example.com' is no server and port").wait_for()
    alerts.get_by_label("E-mail from").and_(page.locator("[aria-invalid=true]")).wait_for()
    alerts.get_by_label("E-mail to").fill("")
    alerts.get_by_label("SMTP server").fill("")

    alerts.get_by_role("button", name=re.compile("more settings")).click()
    slack = alerts.get_by_label("Slack URL", exact=True)
    slack.fill("nonsense")
    slack.blur()
    alerts.get_by_text("It is not an incoming webhook's URL.").wait_for()
    slack.fill("https://hooks.example.com/x")
    slack.blur()
    alerts.get_by_role("button", name="Remove Slack URL").click()
    alerts.get_by_role("button", name="Remove Slack URL").wait_for(state="detached")
    assert typed() == before, "what was thought better of is no value that is typed"

    alerts.get_by_role("button", name="Send a trial alert").click()
    alerts.get_by_role("alert").filter(has_text="Nobody is to get alerts. Fill in alerting_email_to").wait_for()
    alerts.get_by_label("Webhook URLs").fill("http://127.0.0.1:9/hook")
    alerts.get_by_role("button", name="Send a trial alert").click()
    alerts.get_by_role("alert").filter(has_text="the webhook at 127.0.0.1: 127.0.0.1:9 refuses the connection").wait_for()
    alerts.get_by_label("Webhook URLs").fill("")
