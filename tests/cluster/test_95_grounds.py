# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""An admin host of Debian 13 (Python 3.13, ansible-core 2.21), from a checkout on: it sets up itself, and another machine over SSH."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import KEPT
from rest import wait_for
from wizard import PASSWORD, Screen, chromium

from bzzz_setup.lab import CHECKOUT, USER, Lab, Node
from bzzz_setup.machine import prepare

# Minutes each, on machines of their own.
pytestmark = [pytest.mark.alone, pytest.mark.slow]
# How this machine gets at a package index holds for the admin host inside the lab as well.
PASSED = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
TRUSTED = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")


@dataclass
class Admin:
    """A node of a lab, with a checkout; ``OTHER`` is a machine to set up."""

    lab: Lab
    node: Node
    other: Node
    environment: dict[str, str]

    @classmethod
    def made(cls, lab: Lab, node: Node, other: Node) -> Admin:
        """The key to the lab's nodes is in it, and what this machine gets at packages with."""
        files = subprocess.run(["git", "ls-files", "-z"], cwd=CHECKOUT, capture_output=True, check=True).stdout
        packed = subprocess.run(["tar", "-c", "--null", "-T", "-"], cwd=CHECKOUT, input=files, capture_output=True, check=True).stdout
        lab.exec(node.name, ["mkdir", "/root/bzzz"])
        subprocess.run(["docker", "exec", "-i", lab.container(node.name), "tar", "-x", "-C", "/root/bzzz"], input=packed, check=True)
        admin = cls(lab, node, other, {name: os.environ[name] for name in PASSED if name in os.environ})
        admin.put("/root/key", lab.key)
        bundle = next((os.environ[name] for name in TRUSTED if Path(os.environ.get(name, "")).is_file()), None)
        if bundle:
            admin.put("/root/ca.crt", Path(bundle))
            admin.environment |= dict.fromkeys(TRUSTED, "/root/ca.crt")
        if (npmrc := Path.home() / ".npmrc").is_file():
            admin.put("/root/.npmrc", npmrc)
        return admin

    def put(self, path: str, source: Path) -> None:
        self.lab.exec(self.node.name, ["sh", "-c", 'umask 077; cat >"$0"', path], stdin=source.read_text())

    def run(self, line: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        settings = [word for name, value in {**self.environment, "OTHER": self.other.address}.items() for word in ("-e", f"{name}={value}")]
        argv = ["docker", "exec", "-w", "/root/bzzz", *settings, self.lab.container(self.node.name), "sh", "-ec", line]
        done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=900, check=False)
        assert code is None or done.returncode == code, f"{line}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def document(self, line: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run(line).stdout)
        return found


@pytest.fixture(scope="module")
def admin() -> Iterator[Admin]:
    lab = Lab(f"{KEPT or 'tests'}-admin")
    try:
        prepare(print)
        lab.down()
        node, other, _third = lab.up(3, system="trixie")
        yield Admin.made(lab, node, other)
    finally:
        lab.down()


@pytest.mark.requirement("F1", "F2", "F3", "F5", "F6", "F7", part="a cluster of one, without SSH, from an admin host of Debian 13")
def test_it_sets_itself_up_from_a_checkout_alone(admin: Admin) -> None:
    """The launcher installs what it needs, the missing venv module too."""
    first = admin.document("./bzzz --json apply -i inventories/single")
    assert {check["status"] for check in first["checks"]} <= {"pass", "skip"} and first["changes"]
    assert admin.run(".venv/bin/python --version").stdout.startswith("Python 3.13")
    assert "[core 2.21." in admin.run(".venv/bin/ansible --version").stdout
    assert list(first["nodes"]) == ["node1"] and "Debian 13" in first["nodes"]["node1"]["hardware"]
    assert admin.document("./bzzz --json apply -i inventories/single")["changes"] == []
    assert admin.run("systemctl is-active bzzz.service bzzz-etcd.service").stdout.split() == ["active", "active"]


@pytest.mark.requirement("F1", "F2", "F3", "F5", "F6", "F7", part="from an admin host of Debian 13")
def test_it_sets_another_machine_up(admin: Admin) -> None:
    admin.run(f"./bzzz init -i /root/other --name other --nodes $OTHER --user {USER} --ssh-key /root/key --accept-host-keys")
    first = admin.document("./bzzz --json apply -i /root/other")
    assert {check["status"] for check in first["checks"]} <= {"pass", "skip"} and first["changes"] and first["messages"] == []
    assert admin.document("./bzzz --json apply -i /root/other")["changes"] == []


@pytest.mark.requirement("T1", "F1", "F2", "F3", "F5", "F6", "F7", part="run by a coordinator under /setup: its cluster grows by a machine")
def test_the_wizard_of_a_coordinator_sets_up_another_machine(admin: Admin) -> None:
    """The one that was set up above is given a checkout and its inventory folder; all else is done in a browser, by its own address."""
    coordinator = Admin.made(admin.lab, admin.other, admin.lab.nodes[2])
    packed = admin.run("tar -c -C /root other | base64").stdout
    admin.lab.exec(coordinator.node.name, ["sh", "-c", "base64 -d | tar -x -C /root"], stdin=packed)
    settings = " ".join(f"-E {name}" for name in coordinator.environment)
    # As docs/wizard.md tells it.
    coordinator.run(f"systemd-run --unit bzzz-setup-web -E HOME=/root {settings} /root/bzzz/bzzz web --coordinator -i /root/other")

    def link() -> str:
        said = coordinator.run("journalctl -u bzzz-setup-web -o cat").stdout
        assert "code=exited" not in said, said
        return next(iter(re.findall(r"https://\S+#claim=\S+", said)), "")

    address = re.sub("//[^:/]+", f"//{coordinator.node.address}", wait_for("the wizard's link", link, 400))
    with chromium() as browser:
        page = browser.new_page(ignore_https_errors=True, viewport={"width": 1400, "height": 900})
        page.set_default_timeout(60_000)
        screen = Screen(page)
        page.goto(address)
        screen.heading("Make the first account")
        page.get_by_label("User").fill("anna")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Make the account").click()
        screen.heading("Step 1 of 8")
        page.get_by_role("textbox", name="Machines").fill(coordinator.other.address)
        page.get_by_role("button", name="Find them").click()
        page.get_by_role("button", name="It is; take this machine").click()
        page.get_by_role("row", name=re.compile(rf"{re.escape(coordinator.other.address)} 22 workers")).wait_for()
        page.get_by_role("link", name="Review and apply").click()
        page.get_by_role("button", name="Apply", exact=True).click()
        screen.heading("Apply ·", 120)
        screen.ended(600)
        page.get_by_role("button", name="See the cluster").click()
        screen.heading("Cluster")
        cards = page.get_by_role("listitem").filter(has=page.get_by_role("heading", level=3))
        cards.nth(1).filter(has_text="Well:").wait_for()
        assert [cards.nth(place).get_by_role("heading").inner_text() for place in range(2)] == ["node1", "node2"]
        assert "primary" in cards.nth(0).inner_text() and "Debian" in cards.nth(1).inner_text().title()
        assert page.get_by_role("link", name=re.compile("in place, as it was checked last")).count() >= 5
        page.get_by_role("row", name=re.compile(r"validation \d+ pass \d+ pass")).wait_for()
    again = coordinator.document("./bzzz --json apply -i /root/other")
    assert again["changes"] == [] and len(again["nodes"]) == 2
    assert {check["status"] for check in again["checks"]} <= {"pass", "skip"}
