# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the wizard shows of machines that were looked at: interfaces, networks, ports, GPUs. They are made up, their GPUs recorded."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Any

import pytest
import sights
import spending
from front import Front
from wizard import PASSWORD, Screen, Server, own_home

from bzzz_setup import init
from bzzz_setup.declaration import HOSTS, dump
from bzzz_setup.gateway.asked import answer


@pytest.mark.requirement("4.3.2", "4.3.3", part="charts in the wizard, of a ledger's answer")
@pytest.mark.requirement("1.1.4", "1.1.9", "1.1.10", "1.1.11", "1.2.6", "5.4.1", "5.4.2", "5.4.4", part="in the wizard")
def test_what_was_seen_can_be_looked_at_and_chosen(browser: Any, tmp_path: Path) -> None:
    from axe_playwright_python.sync_playwright import Axe

    front = Front(tmp_path)
    (front.inventory / HOSTS).write_text(dump(init.hosts({"n1": "192.0.2.1", "n2": "192.0.2.2"}, ["n1"], {})))
    sights.detected(front.inventory, front.state, sights.machines())
    sights.tried(front.inventory, front.state, ["n1", "n2", "n3"])
    server = Server(front.inventory, own_home(tmp_path))
    server.start()
    with contextlib.ExitStack() as stack:
        stack.callback(server.stop)
        own = stack.enter_context(contextlib.closing(browser.new_context(viewport={"width": 1400, "height": 900}, color_scheme="light")))
        own.set_default_timeout(20_000)
        page = own.new_page()
        screen = Screen(page)
        page.on("pageerror", lambda error: screen.complaints.append(str(error)))
        page.on("console", lambda said: screen.complaints.append(said.text) if said.type == "error" else None)

        def clean() -> None:
            # In the dark only the colours are others.
            for scheme, options in (("light", None), ("dark", {"runOnly": ["color-contrast"]})):
                page.emulate_media(color_scheme=scheme)
                page.wait_for_selector(f"html[data-scheme={scheme}]")
                page.evaluate("Promise.allSettled(document.getAnimations().map((one) => one.finished))")  # colours fade over
                found = Axe().run(page, options=options).response["violations"]
                assert not found, f"{page.url} {scheme}: {[(one['id'], one['nodes'][0]['html'][:300]) for one in found]}"

        page.goto(server.link)
        page.get_by_label("User").fill("anna")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Make the account").click()
        screen.heading("Step 1 of 8")

        page.get_by_role("link", name="2. Network").click()
        interfaces = page.get_by_role("region", name="Network interfaces")
        interfaces.get_by_role("row", name="n1 eno1 primary 02:00:00:00:00:01 192.0.2.1/24 up 1 Gb/s 1500 physical, igb").wait_for()
        assert interfaces.get_by_role("row").count() == 8, "a heading, four of n1, three of n2"
        networks = page.get_by_role("region", name="Networks beside the cluster's")
        networks.get_by_role("row", name="192.0.2.128/25 ⚠ overlaps, hides addresses br-lab (bridge) n1").wait_for()
        networks.get_by_role("row", name="172.17.0.0/16 apart docker0 (bridge) all machines").wait_for()
        field = page.get_by_role("combobox", name="Interface", exact=True)
        assert field.get_attribute("placeholder") == "eno1"
        page.get_by_text("Detected: eno1", exact=True).wait_for()
        field.click()
        page.get_by_role("option", name=re.compile("eno1 primary on 2 machines on all machines")).wait_for()
        clean()
        page.keyboard.press("Escape")
        page.get_by_label("Values for").click()
        page.get_by_role("option", name="only n1").click()
        field.click()
        with page.expect_response(lambda answer: answer.request.method == "PATCH"):
            page.get_by_role("option", name="ib0 10.9.0.1/16 · up · 200 Gb/s · MTU 4092 · infiniband").click()
        page.reload()
        page.get_by_label("Values for").click()
        page.get_by_role("option", name="only n1").click()
        assert field.input_value() == "ib0", "what was chosen is kept"
        with page.expect_response(lambda answer: answer.request.method == "PATCH") as answered:
            field.fill("bond0.7")
        assert answered.value.request.post_data_json["changes"] == {"nodes/n1/network_interface": "bond0.7"}, "any name can be typed"
        with page.expect_response(lambda answer: answer.request.method == "PATCH"):
            field.fill("")

        page.get_by_role("link", name="6. Services").click()
        row = page.get_by_role("region", name="Ports").get_by_role("row", name=re.compile("8080 tcp conflict service_port"))
        said = row.inner_text()
        assert "nginx, nginx.service (pid 4711) on n1" in said and "is free" in said
        clean()
        row.get_by_role("link", name="service_port").click()
        assert page.evaluate("document.activeElement.id") == "root_service_port"
        page.keyboard.type("9090")
        page.get_by_role("region", name="Ports").get_by_role("row", name="9090 tcp no conflict service_port all machines").wait_for()
        page.get_by_role("row", name="3000 tcp the cluster's own service_mcp_port all machines the cluster itself, on n2").wait_for()
        page.get_by_role("link", name="coordination_peer_port").click()
        screen.heading("Step 7 of 8")
        page.wait_for_function("() => document.activeElement.id == 'root_coordination_peer_port'")

        page.get_by_role("link", name="5. Resources").click()
        gpus = page.get_by_role("region", name="GPUs and their memory")
        gpus.get_by_role("listitem").filter(has_text="nvidia 1").filter(has_text="9.8 GiB of 80 GiB used").first.wait_for()
        assert gpus.get_by_role("listitem").count() == 11
        page.get_by_role("img", name=re.compile("GPUs of n1 in their NUMA nodes")).get_by_text("NV12 between every two").wait_for()
        page.get_by_role("button", name="Links as a table").last.click()
        page.get_by_role("row", name="nvidia 0 nvidia 1 PIX: one PCIe switch").wait_for()
        clean()

        page.get_by_role("complementary").get_by_role("link", name="Test of connections").click()
        screen.heading("Test of connections ·")
        assert page.get_by_role("navigation").get_by_role("link", name="2. Network").get_attribute("aria-current") == "step"
        between = page.get_by_role("region", name="From each machine to each other")
        assert re.fullmatch(r"n1 - 0\.0\d ✗", between.get_by_role("row").nth(1).inner_text().replace("\t", " ").replace("\n", " "))
        between.get_by_label("What is shown").select_option("mtu")
        between.get_by_role("row", name="n3 1500 9000 -").wait_for()
        between.get_by_role("alert").filter(has_text="n1 → n3: no answer in 2 s").wait_for()
        clean()

        # What a ledger answers; asking it on its node is of other tests.
        question = {"kind": "report", "by": ["model"], "per": "day", "since": "2026-11-01", "prices": {"phi4": ["0", "0", "0"]}}
        spent = answer(spending.made(tmp_path), question)
        page.route(
            re.compile("/api/v1/cost"),
            lambda route: route.fulfill(
                json={**spent, "by": "model", "per": "day", "idle": [{"node": "n1", "gpus": "8 x NVIDIA A100 80 GiB"}]}
            ),
        )
        page.get_by_role("link", name="Cost").click()
        screen.heading("Cost")
        days = page.get_by_role("region", name="By day")
        days.locator("svg g").nth(spending.DAYS - 1).wait_for(state="attached")  # the heading is there before the ledger's answer
        assert days.locator("svg g").count() == spending.DAYS and days.get_by_role("listitem").count() == 6
        if kept := os.environ.get("BZZZ_PICTURES"):  # for the docs
            page.screenshot(path=Path(kept) / "wizard-cost.png", full_page=True)
        days.get_by_text("As a table").click()
        assert days.get_by_role("row").count() == spending.DAYS + 1
        first = sum(row["cost_nano"] for row in spent["rows"] if row["start"].startswith("2026-11-01"))
        days.get_by_role("row", name=re.compile(rf"^2026-11-01 .* {first / 1e9:.2f} USD$")).wait_for()
        most = max(spending.MODELS, key=lambda model: sum(row["cost_nano"] for row in spent["rows"] if row["model"] == model))
        amount = sum(row["cost_nano"] for row in spent["rows"] if row["model"] == most) / 1e9
        by_model = page.get_by_role("region", name="By model").get_by_role("row").nth(1)
        assert by_model.inner_text().split() == [most, f"{amount:.2f}", "USD", "12", "14,400", "1.20", "s"]
        page.get_by_role("region", name="What could be better").get_by_text("n1 (8 x NVIDIA A100 80 GiB) has had no call").wait_for()
        page.get_by_role("region", name="Budgets").get_by_role("row", name=re.compile("the whole cluster month 5.00 USD")).wait_for()
        clean()
        assert screen.complaints == []
