# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""An admin host of Debian 13 (Python 3.13, ansible-core 2.21), from a checkout on: it sets up itself, and another machine over SSH."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import KEPT

from bzzz_setup.lab import CHECKOUT, USER, Lab
from bzzz_setup.machine import prepare

# Minutes each, on machines of their own.
pytestmark = [pytest.mark.beside, pytest.mark.slow]
# How this machine gets at a package index holds for the admin host inside the lab as well.
PASSED = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
TRUSTED = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")


@dataclass
class Admin:
    """The first node of a lab, with a checkout; the second is a machine to set up."""

    lab: Lab
    environment: dict[str, str]

    def run(self, line: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        node, other = self.lab.nodes
        settings = [word for name, value in {**self.environment, "OTHER": other.address}.items() for word in ("-e", f"{name}={value}")]
        argv = ["docker", "exec", "-w", "/root/bzzz", *settings, self.lab.container(node.name), "sh", "-ec", line]
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
        node, _other = lab.up(2, system="trixie")
        files = subprocess.run(["git", "ls-files", "-z"], cwd=CHECKOUT, capture_output=True, check=True).stdout
        packed = subprocess.run(["tar", "-c", "--null", "-T", "-"], cwd=CHECKOUT, input=files, capture_output=True, check=True).stdout
        lab.exec(node.name, ["mkdir", "/root/bzzz"])
        subprocess.run(["docker", "exec", "-i", lab.container(node.name), "tar", "-x", "-C", "/root/bzzz"], input=packed, check=True)
        lab.exec(node.name, ["sh", "-c", "umask 077; cat >/root/key"], stdin=lab.key.read_text())
        environment = {name: os.environ[name] for name in PASSED if name in os.environ}
        bundle = next((os.environ[name] for name in TRUSTED if Path(os.environ.get(name, "")).is_file()), None)
        if bundle:
            lab.exec(node.name, ["sh", "-c", "cat >/root/ca.crt"], stdin=Path(bundle).read_text())
            environment |= dict.fromkeys(TRUSTED, "/root/ca.crt")
        yield Admin(lab, environment)
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
