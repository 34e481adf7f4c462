# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The wizard where things go wrong: runs as a person watches and steers them, and what was typed without a connection, in a real
browser, over playbooks that stand in for the collection's."""

from __future__ import annotations

import collections
import contextlib
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.bzzz.cluster.plugins.module_utils.problems import problem
from front import Front
from wizard import PASSWORD, Screen, Server, own_home

from bzzz_setup import init
from bzzz_setup.declaration import HOSTS, dump

LOG = 'ol[aria-labelledby="log"] > li'


def say(text: str, **task: Any) -> dict[str, Any]:
    """A task that changes something, whose name is in the log."""
    return {"name": text, "bzzz.cluster.answer": {"result": {"changed": True}}, **task}


def until(found: Callable[[], Any], seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while not (seen := found()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return seen


class Watched:
    """A cluster's wizard, the page it is looked at with, and gates at which runs wait for the test."""

    def __init__(self, folder: Path) -> None:
        self.front = Front(folder)
        (self.front.inventory / HOSTS).write_text(dump(init.hosts({"n1": "192.0.2.1", "n2": "192.0.2.2"}, ["n1"], {})))
        self.gates = folder
        self.server = Server(
            self.front.inventory, own_home(folder), {"ANSIBLE_COLLECTIONS_PATH": self.front.environment["ANSIBLE_COLLECTIONS_PATH"]}
        )
        self.sockets: list[Any] = []
        self.screen: Screen
        self.page: Any

    def gate(self, name: str) -> dict[str, Any]:
        command = ["sh", "-c", f"until [ -e {self.gates / name} ]; do sleep 0.1; done"]
        return {"name": f"wait for {name}", "ansible.builtin.command": {"argv": command}, "changed_when": False}

    def open(self, name: str) -> None:
        (self.gates / name).touch()

    def show(self, context: Any) -> None:
        self.page = context.new_page()
        self.screen = Screen(self.page)
        self.page.on("pageerror", lambda error: self.screen.complaints.append(str(error)))

        def through(socket: Any) -> None:
            socket.connect_to_server()
            self.sockets.append(socket)

        self.page.route_web_socket(re.compile(r"/runs/.*/socket"), through)
        self.page.goto(self.server.link)
        self.page.get_by_label("User").fill("anna")
        self.page.get_by_label("Password").fill(PASSWORD)
        self.page.get_by_role("button", name="Make the account").click()
        self.screen.heading("Step 1 of 8")

    def events(self) -> list[dict[str, Any]]:
        """Of the run that is shown."""
        journal = self.front.state / "runs" / self.page.url.rpartition("/")[2] / "events.jsonl"
        return [json.loads(line) for line in journal.read_text().splitlines()]

    def did(self, kind: str, **wanted: Any) -> bool:
        return any(event["event"] == kind and wanted.items() <= event.items() for event in self.events())

    def log(self) -> list[str]:
        """The lines that the page shows, without the time."""
        return [line.split("M ", 1)[-1].strip() for line in self.page.locator(LOG).all_inner_texts()]


@pytest.fixture(scope="module")
def watched(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    watched = Watched(tmp_path_factory.mktemp("runs"))
    watched.server.start()
    try:
        with contextlib.closing(browser.new_context(viewport={"width": 1400, "height": 900}, locale="en-US")) as context:
            context.set_default_timeout(30_000)
            watched.show(context)
            yield watched
            assert watched.screen.complaints == []
    finally:
        watched.server.stop()


@pytest.mark.requirement("T1", part="failures with their remedy at once; the log is whole after a broken connection and at the end")
def test_a_run_is_watched_from_the_first_line_to_the_last(watched: Watched) -> None:
    page, front = watched.page, watched.front
    front.step(1, [say("the very first")])
    broken = {"name": "look at the bridge", "ansible.builtin.fail": {"msg": "There is no bridge. Remedy: Make one, then bzzz-setup apply."}}
    gap = [say(f"in the gap {number}") for number in range(3)]
    front.step(2, [{**broken, "when": "inventory_hostname == 'n1'"}, watched.gate("gap"), *gap, watched.gate("end")])
    front.step(8, [say("the very last")])
    page.goto(f"{watched.server.address}/review")
    page.get_by_role("button", name="Apply", exact=True).click()
    watched.screen.heading("Apply ·", 120)

    told = page.get_by_role("alert").filter(has_text="There is no bridge.")
    told.wait_for()
    assert page.get_by_role("button", name="Stop").is_visible(), "while the run goes on"
    assert f"Remedy: Make one, then bzzz-setup apply -i {front.inventory}" in told.inner_text()
    until(lambda: watched.did("TaskStarted", task="wait for gap"))
    assert not watched.did("RunFinished")

    # No connection, with the page left open.
    page.route("**/api/v1/runs/*", lambda route: route.abort())
    watched.sockets[-1].close(code=3001)
    page.get_by_text("No connection to the wizard").wait_for()
    watched.open("gap")
    until(lambda: watched.did("TaskStarted", task="wait for end"))
    assert not any("in the gap" in line for line in watched.log())
    page.unroute("**/api/v1/runs/*")
    page.locator(LOG).filter(has_text="in the gap 2").wait_for()
    page.get_by_text("No connection to the wizard").wait_for(state="detached")
    watched.open("end")
    page.get_by_text("Nodes failed", exact=True).wait_for()

    shown = collections.Counter(re.sub(r"[ :]? *(\S+: )?(?=the very|in the gap)", " ", line) for line in watched.log())
    ended = [event for event in watched.events() if event["event"] == "TaskFinished" and event["status"] != "skipped"]
    for task in ("the very first", *(f"in the gap {number}" for number in range(3)), "the very last"):
        nodes = {event["node"] for event in ended if event["task"] == task}
        lines = {line: count for line, count in shown.items() if task in line}
        assert nodes and len(lines) == len(nodes) and set(lines.values()) == {1}, (task, shown)
    assert "— step 1 —" in watched.log()[0] and watched.log()[-1].endswith("ended")
    assert told.count() == 1


@pytest.mark.requirement("T1", part="go on from the step that failed, pause before a step, go on, stop")
def test_a_run_goes_on_from_where_it_failed_and_waits_and_stops_as_asked(watched: Watched) -> None:
    page, front = watched.page, watched.front
    front.step(2, [watched.gate("asked")])
    front.step(3, [say("the third"), watched.gate("never")])
    page.get_by_role("button", name="Go on from step 2").click()
    page.get_by_role("button", name="Stop").wait_for()
    until(lambda: watched.did("TaskStarted", task="wait for asked"))
    assert not watched.did("StepStarted", step=1), "what has been done is not done again"

    page.get_by_role("button", name="Pause after this step").click()
    page.get_by_role("button", name="Pauses after this step; do not").wait_for()
    watched.open("asked")
    page.get_by_role("alert").filter(has_text="The run waits before step 3").wait_for()
    assert watched.did("Paused", step=3) and not watched.did("TaskStarted", step=3)

    page.get_by_role("button", name="Go on", exact=True).click()
    page.locator(LOG).filter(has_text="the third").first.wait_for()
    page.get_by_role("alert").filter(has_text="The run waits").wait_for(state="detached")

    until(lambda: watched.did("TaskStarted", task="wait for never"))
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("button", name="Stopping").wait_for()
    watched.open("never")
    page.get_by_text("Interrupted", exact=True).wait_for()
    assert not watched.did("StepStarted", step=4)
    page.get_by_role("button", name="Go on from step 3").wait_for()


@pytest.mark.requirement("T1", part="the button that checks")
def test_check_tells_what_ansible_finds(watched: Watched) -> None:
    """The rules that the page applies itself find nothing in it."""
    page, front = watched.page, watched.front
    found = problem("network_subnet", "It is too small.", "Widen it.")
    play = {"name": "Check", "hosts": "bzzz", "gather_facts": False}
    refused = {"failed": True, "msg": "no", "problems": [found]}
    front.playbook("check", [{**play, "tasks": [{"bzzz.cluster.answer": {"result": refused}}]}])
    page.goto(f"{watched.server.address}/step/2")
    page.get_by_role("button", name="Check", exact=True).click()
    told = page.get_by_role("alert").filter(has_text="It is too small. Widen it.")
    told.wait_for()
    front.playbook("check", [{**play, "tasks": [{"bzzz.cluster.answer": {"result": {}}}]}])
    page.get_by_role("button", name="Check", exact=True).click()
    page.get_by_role("alert").filter(has_text="nothing is wrong with it").wait_for()
    assert told.count() == 0


@pytest.mark.requirement("T1", part="what was typed without a connection, or beside what somebody else has changed, is kept and sent")
def test_what_was_typed_is_sent_when_somebody_is_there_to_have_it(watched: Watched) -> None:
    page = watched.page
    port, mcp = page.get_by_label("Port", exact=True), page.get_by_label("MCP port", exact=True)
    draft = f"{watched.server.address}/api/v1/draft"
    unsent = page.get_by_role("alert").filter(has_text="could not be sent to the wizard yet")
    page.goto(f"{watched.server.address}/step/6")
    mcp.wait_for()
    page.route(draft, lambda route: route.abort())
    mcp.fill("3001")
    unsent.filter(has_text="1 value ").wait_for()
    # What is told meanwhile moves the buttons, from under a mouse that is slow.
    page.get_by_role("button", name="Back").press("Enter")
    watched.screen.heading("Step 5 of 8")
    page.get_by_role("button", name="Next").press("Enter")
    watched.screen.heading("Step 6 of 8")
    assert mcp.input_value() == "3001"
    page.unroute(draft)
    unsent.wait_for(state="detached")
    assert page.request.get(draft).json()["options"]["service_mcp_port"] == 3001

    # Of two values typed together somebody else has changed one.
    page.route(draft, lambda route: route.abort())
    mcp.fill("3002")
    port.fill("5000")
    unsent.filter(has_text="2 values ").wait_for()
    seen = page.request.get(draft).json()["revision"]
    theirs = page.request.patch(
        draft, data={"base": seen, "changes": {"options/service_port": 4000}}, headers={"Origin": watched.server.address}
    )
    assert theirs.ok, theirs.text()
    page.unroute(draft)
    told = page.get_by_role("alert").filter(has_text="anna has changed this meanwhile: service_port.")
    told.wait_for()
    unsent.wait_for(state="detached")
    assert (port.input_value(), mcp.input_value()) == ("4000", "3002")
    options = until(lambda: (found := page.request.get(draft).json()["options"])["service_mcp_port"] == 3002 and found)
    assert options["service_port"] == 4000
    port.fill("5000")
    told.wait_for(state="detached")
    until(lambda: page.request.get(draft).json()["options"]["service_port"] == 5000)
    assert (port.input_value(), mcp.input_value()) == ("5000", "3002")
