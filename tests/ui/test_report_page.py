# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The report in a browser: for everybody, at every width, light and dark, by keyboard, on paper, without JavaScript."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import report_events
import sights
import spending
from ansible_collections.bzzz.cluster.plugins.module_utils.forecast import usd

from bzzz_setup import reports
from bzzz_setup.cost import DIMENSIONS
from bzzz_setup.gateway.asked import answer
from bzzz_setup.report import Report
from bzzz_setup.reports import figures

WIDTHS = (375, 820, 1440)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    kinds: dict[str, dict[str, Any]] = {
        "broken": {"nodes": 3, "checks": 8, "changes": 2},
        "fine": {"nodes": 3, "broken": False},
        "many": {"nodes": 200, "checks": 60},
    }
    written = {}
    for kind, more in kinds.items():
        written[kind] = folder / f"{kind}.html"
        written[kind].write_text(reports.html(Report.of(report_events.run(**more))), encoding="utf-8")
    spent = json.loads(json.dumps(answer(spending.made(folder), {"kind": "report", "by": list(DIMENSIONS), "per": "day"})))
    for kind, told in {"costs": figures.spending("trial", spent, usd), "fit": figures.fit("trial", sights.fit())}.items():
        written[kind] = folder / f"{kind}.html"
        written[kind].write_text(reports.charts(told), encoding="utf-8")
    return written


@contextmanager
def opened(browser: Any, file: Path, width: int = 1440, **options: Any) -> Iterator[Any]:
    """The page; it may ask for nothing, complain of nothing and open no dialogue."""
    context = browser.new_context(viewport={"width": width, "height": 900}, **options)
    page = context.new_page()
    wrong: list[str] = []
    page.on("request", lambda request: wrong.append(request.url) if request.url != file.as_uri() else None)
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    page.goto(file.as_uri())
    yield page
    context.close()
    assert not wrong


def unfold(page: Any) -> None:
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")


@pytest.mark.requirement("4.3.2", "4.3.3", "3.6.2", part="charts as pages, for everybody")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", ["costs", "fit"])
def test_charts_stand_in_nobodys_way(browser: Any, files: dict[str, Path], kind: str, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    for width in WIDTHS:
        with opened(browser, files[kind], width, color_scheme=scheme) as page:
            found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
            assert not found, "\n".join(f"{one['id']}: {one['help']}: {one['nodes'][0]['html'][:300]}" for one in found)
            assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0


@pytest.mark.requirement("F8", part="a report a person can read")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_stands_in_anybodys_way(browser: Any, files: dict[str, Path], scheme: str, width: int) -> None:
    from axe_playwright_python.sync_playwright import Axe

    with opened(browser, files["broken"], width, color_scheme=scheme) as page:
        for state in ("folded", "unfolded"):
            if state == "unfolded":
                unfold(page)
            # What takes longest, and for all that was folded away is the same at every width.
            contrast = {"color-contrast": {"enabled": state == "folded" or width == WIDTHS[-1]}}
            found = Axe().run(page, options={"resultTypes": ["violations"], "rules": contrast}).response["violations"]
            assert not found, "\n".join(f"{one['id']}: {one['help']}: {one['nodes'][0]['html'][:300]}" for one in found)
            wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert wide == 0, f"{state}, the page itself scrolls sideways by {wide} px"


def test_light_and_dark_differ(browser: Any, files: dict[str, Path]) -> None:
    shades = []
    for scheme in ("light", "dark"):
        with opened(browser, files["fine"], color_scheme=scheme) as page:
            colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
            shades.append(sum(map(int, re.findall(r"\d+", colour)[:3])))
    assert shades[0] > 600 and shades[1] < 150


def test_checks_are_filtered(browser: Any, files: dict[str, Path]) -> None:
    with opened(browser, files["broken"]) as page:
        rows = "details.checks tbody tr:not([hidden])"
        everything = page.locator(rows).count()
        page.get_by_role("checkbox", name="passed").uncheck()
        page.get_by_role("checkbox", name="skipped").uncheck()
        assert page.locator(rows).count() == 1 and page.locator(rows).is_visible()
        assert page.locator("output").inner_text() == "1 shown"
        page.get_by_role("checkbox", name="passed").check()
        page.get_by_role("searchbox").fill("fast validation")
        assert page.locator(rows).count() == 4
        page.locator("select[name=node]").select_option(label="gpu01")
        assert page.locator(rows).count() == 2
        page.locator("select[name=node]").select_option("")
        page.get_by_role("searchbox").fill("")
        page.get_by_role("checkbox", name="skipped").check()
        assert page.locator(rows).count() == everything > 20


@pytest.mark.requirement("L7", part="the command can be copied")
def test_a_remedys_command_is_copied_as_it_stands(browser: Any, files: dict[str, Path]) -> None:
    with opened(browser, files["broken"]) as page:
        page.get_by_role("button", name="Copy du -xhd1 /srv").first.click()
        page.get_by_text("Copied").wait_for()
        page.get_by_role("searchbox").focus()
        page.keyboard.press("Control+V")
        assert page.get_by_role("searchbox").input_value() == "du -xhd1 /srv"


def test_everything_is_reached_by_keyboard(browser: Any, files: dict[str, Path]) -> None:
    with opened(browser, files["fine"]) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the report"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
        page.locator("details.machine summary").first.focus()
        page.keyboard.press("Enter")
        assert page.locator("details.machine").first.get_attribute("open") is not None
        buttons = page.get_by_role("button", name="Fold all", exact=True)
        buttons.focus()
        page.keyboard.press("Enter")
        assert page.locator("main details[open]").count() == 0


def test_without_javascript_all_is_there(browser: Any, files: dict[str, Path]) -> None:
    with opened(browser, files["broken"], java_script_enabled=False) as page:
        assert not page.locator("form.filters").is_visible() and not page.locator(".tools").is_visible()
        assert page.get_by_role("heading", level=2).count() == 8
        machine = page.locator("details.machine").first
        machine.locator("summary").click()
        assert machine.get_by_text("EPYC").is_visible()


@pytest.mark.requirement("F8", part="a report on paper")
def test_paper_shows_what_is_folded_away(browser: Any, files: dict[str, Path]) -> None:
    """Also without JavaScript; and light, whatever the screen is."""
    with opened(browser, files["broken"], java_script_enabled=False, color_scheme="dark") as page:
        hidden = page.locator("details.machine .gpus tbody tr")
        folded = page.locator("details.checks:not([open]) tbody tr").last
        assert not hidden.first.is_visible()
        page.emulate_media(media="print")
        assert hidden.first.bounding_box()["height"] > 10 and folded.bounding_box()["height"] > 5
        assert not page.locator("nav").is_visible()
        paper = page.pdf(prefer_css_page_size=True, print_background=True)
    assert paper.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", paper)) >= 5


@pytest.mark.requirement("F8", part="a report on 200 nodes")
def test_two_hundred_nodes_open_and_filter_quickly(browser: Any, files: dict[str, Path]) -> None:
    began = time.monotonic()
    with opened(browser, files["many"]) as page:
        page.get_by_role("heading", name="What changed").wait_for(state="attached")
        loaded = time.monotonic() - began
        began = time.monotonic()
        page.get_by_role("checkbox", name="passed").uncheck()
        page.wait_for_function("() => document.querySelector('output').value !== ''")
        filtered = time.monotonic() - began
    assert loaded < 15 and filtered < 5
