# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where models would go, drawn in a browser: by the real command over a playbook that stands in for the collection's."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Any

import pytest
import sights
from front import Front
from wizard import PASSWORD, Screen, Server, own_home

from bzzz_setup import init
from bzzz_setup.declaration import HOSTS, dump


@pytest.mark.requirement("3.6.2", "3.6.4", "F4", "T1", part="the fit of models as a picture, in the wizard")
def test_the_fit_of_models_is_drawn(browser: Any, tmp_path: Path) -> None:
    from axe_playwright_python.sync_playwright import Axe

    front, plan = Front(tmp_path), sights.fit()
    (front.inventory / HOSTS).write_text(dump(init.hosts({"n1": "192.0.2.1", "n2": "192.0.2.2"}, ["n1"], {})))
    told = {"bzzz.cluster.answer": {"result": {"ansible_facts": {"bzzz_models": plan}}}, "run_once": True}
    front.playbook("models_plan", [{"name": "Plan the models", "hosts": "bzzz", "gather_facts": False, "tasks": [told]}])
    server = Server(front.inventory, own_home(tmp_path), {"ANSIBLE_COLLECTIONS_PATH": front.environment["ANSIBLE_COLLECTIONS_PATH"]})
    server.start()
    with contextlib.ExitStack() as stack:
        stack.callback(server.stop)
        own = stack.enter_context(contextlib.closing(browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")))
        own.set_default_timeout(60_000)
        page = own.new_page()
        screen = Screen(page)
        page.on("pageerror", lambda error: screen.complaints.append(str(error)))
        page.goto(server.link)
        page.get_by_label("User").fill("anna")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Make the account").click()
        screen.heading("Step 1 of 8")
        page.goto(f"{server.address}/step/4")
        fit = page.get_by_role("region", name="Where the models would go")
        ask = fit.get_by_role("button", name="Show where they fit")
        fit.get_by_text("Add a model to Wanted first.").wait_for()
        assert ask.is_disabled()
        page.get_by_role("button", name="Add: Wanted").click()
        page.keyboard.type("qwen3:32b")
        ask.click()
        fit.get_by_text("The machines are asked…").wait_for()
        fit.get_by_role("button", name="Ask again").wait_for()

        # What the picture says is what the plan says.
        gpus = fit.get_by_role("group", name="n1").get_by_role("img")
        assert gpus.count() == len(plan["nodes"]["n1"]["gpus"])
        for at, gpu in enumerate(plan["nodes"]["n1"]["gpus"]):
            said = gpus.nth(at).get_attribute("aria-label")
            parts = [gpu[f"{part}_bytes"] for part in ("weights", "cache", "overhead", "reserved", "free")]
            assert len(re.findall(r"[\d.]+ [GM]iB", said)) == sum(part > 0 for part in parts), said
            widths = gpus.nth(at).locator("rect").evaluate_all("all => all.map((one) => one.getBoundingClientRect().width)")
            whole = sum(widths)
            assert widths == pytest.approx([whole * part / gpu["total_bytes"] for part in parts if part > 0], abs=1)
        (refused, unknown) = plan["refused"][0], plan["unknown"][0]
        alert = fit.get_by_role("alert").filter(has_text="1 replica fits nowhere.")
        assert refused["why"] in alert.inner_text() and refused["remedy"] in alert.inner_text()
        assert unknown["why"] in fit.get_by_role("alert").filter(has_text="too little is known").inner_text()
        if kept := os.environ.get("BZZZ_PICTURES"):  # for the docs
            page.set_viewport_size({"width": 1280, "height": 1500})
            fit.screenshot(path=Path(kept) / "wizard-fit.png")
        fit.get_by_text("As a table").click()
        placed = plan["placed"][0]
        fit.get_by_role("row", name=re.compile(rf"^n1 .*{re.escape(plan['nodes']['n1']['gpus'][0]['models'][0])}$")).first.wait_for()
        fit.get_by_role("listitem").filter(has_text=placed["why"]).wait_for()

        page.get_by_label("Name").first.fill("qwen3:14b")
        fit.get_by_text("The declaration has changed since; ask again.").wait_for()
        page.get_by_role("link", name="5. Resources").click()
        screen.heading("Step 5 of 8")
        page.go_back()
        gpus.first.wait_for()  # it stays while one looks elsewhere
        for scheme, width in (("light", 1280), ("dark", 400)):
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme=scheme)
            page.wait_for_selector(f"html[data-scheme={scheme}]")
            page.evaluate("Promise.allSettled(document.getAnimations().map((one) => one.finished))")
            found = Axe().run(page).response["violations"]
            assert not found, f"{scheme}: {[(one['id'], one['nodes'][0]['html'][:300]) for one in found]}"
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert screen.complaints == []
