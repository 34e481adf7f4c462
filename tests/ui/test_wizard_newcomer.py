# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Somebody who has never seen it, with defaults only: from the link that `./bzzz demo` shows to the validated cluster, on lab nodes."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import labs
import pytest
from wizard import PASSWORD, Screen, own_home

from bzzz_setup import lab as lab_module
from bzzz_setup.lab import Lab

CLICKS, TYPED = 2, 1  # on each page
# What a person does, by page; a run's page is one whatever the run is called.
COUNT = """for (const kind of ["click", "change"])
  window.addEventListener(kind, ({isTrusted}) => {
    if (!isTrusted) return;
    const done = JSON.parse(sessionStorage.done ?? "{}");
    const place = `${kind} ${location.pathname.replace(/\\/run\\/.*-/, "/run/")}`;
    sessionStorage.done = JSON.stringify({...done, [place]: (done[place] ?? 0) + 1});
  }, true);
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with labs.three_nodes("newcomer", "mixed") as lab:
        yield lab


def picture(page: Any, name: str) -> None:
    """For the docs."""
    if kept := os.environ.get("BZZZ_PICTURES"):
        page.wait_for_load_state("networkidle")
        page.screenshot(path=Path(kept) / f"wizard-{name}.png", full_page=True)


@pytest.mark.timeout(1500)
@pytest.mark.requirement("1.1.12", part="the machines try each other by a button, before anything is applied")
@pytest.mark.requirement("F1", "F2", "F3", "F5", "F6", "F7", "F8", part="in a browser, with defaults")
@pytest.mark.requirement(
    "T1", part="a newcomer's path: one typed value and two clicks a page at most, from the demo's link to the validated cluster"
)
def test_a_newcomer_gets_there_with_defaults(browser: Any, lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(own_home(tmp_path)))
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    shown = lab_module._Wizard(lab)
    with contextlib.ExitStack() as stack:
        stack.callback(shown.stop)
        shown.start()
        own = stack.enter_context(contextlib.closing(browser.new_context(viewport={"width": 1400, "height": 900})))
        own.set_default_timeout(60_000)
        own.add_init_script(COUNT)
        screen = Screen(own.new_page())
        page = screen.page
        page.on("pageerror", lambda error: screen.complaints.append(str(error)))
        page.goto(shown.link())
        screen.heading("Make the first account")
        picture(page, "claim")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Make the account").click()

        screen.heading("Step 1 of 8")
        page.get_by_role("button", name="Detect").click()
        screen.heading("Detection ·")
        screen.ended(240)
        page.get_by_role("button", name="See the machines").click()
        page.get_by_text(re.compile(r"Debian 1[23].*threads")).first.wait_for()
        for number in range(1, 9):
            screen.heading(f"Step {number} of 8")
            top = page.get_by_role("heading", level=1).bounding_box()["y"]
            assert top >= page.get_by_role("banner").bounding_box()["height"], "it is in sight"
            if number == 2:
                page.get_by_role("button", name="Test connections").click()
                screen.heading("Test of connections ·")
                screen.ended(240)
                page.get_by_role("region", name="From each machine to each other").get_by_text("6 of 6 ways").wait_for()
                picture(page, "connections")
                page.get_by_role("button", name="Back to step 2").click()
                screen.heading("Step 2 of 8")
            onward = page.get_by_role("button", name="Review" if number == 8 else "Next")
            onward.wait_for()
            picture(page, f"step-{number}")
            onward.click()
        screen.heading("Review and apply")
        page.get_by_role("button", name="Show what would change").click()
        screen.heading("Plan ·")
        screen.ended(300)
        picture(page, "plan")
        page.get_by_role("button", name="Review and apply").click()
        page.get_by_role("heading", level=2, name=re.compile(r"\d\d+ changes")).wait_for()
        page.get_by_role("button", name="Apply", exact=True).click()
        screen.heading("Apply ·")
        page.get_by_role("columnheader", name=re.compile("3. Security")).wait_for()
        page.get_by_text("— step 3 —").wait_for(timeout=120_000)
        picture(page, "run")
        screen.ended(900)
        page.get_by_role("button", name="See the cluster").click()
        screen.heading("Cluster")
        page.get_by_role("heading", level=3, name=lab.nodes[0].name).wait_for(timeout=120_000)
        beside = page.get_by_role("complementary").get_by_role("link")
        beside.filter(has_text="well").filter(has_text="now").nth(2).wait_for(timeout=120_000)
        assert beside.filter(has_text="primary").count() == 1
        picture(page, "cluster")
        done = json.loads(page.evaluate("sessionStorage.done"))
        print(done)
        assert screen.complaints == []
    # A click on a button of a form counts as the form's, too, but only once.
    clicks = {place: count for place, count in done.items() if place.startswith("click")}
    typed = {place: count for place, count in done.items() if place.startswith("change")}
    assert len(clicks) > 8 and max(clicks.values()) <= CLICKS and max(typed.values()) <= TYPED, done
