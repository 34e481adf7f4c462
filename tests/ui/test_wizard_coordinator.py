# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The wizard under /setup of a coordinator: behind the node service, both as processes of their own."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from front import Front
from node_cluster import TOKEN, Authority, Node, wait_for
from wizard import PASSWORD, Screen, Server, own_home

from bzzz_setup import init, release
from bzzz_setup.declaration import HOSTS, dump


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A coordinator's service, of a cluster that is not formed yet."""
    folder = tmp_path_factory.mktemp("node")
    with tarfile.open(release.build()) as tar:
        tar.extractall(folder / "current")
    around: Any = SimpleNamespace(folder=folder, artifact=folder / "current", authority=Authority(folder), lease_seconds=3)
    node = Node(around, "node1", ["coordinator"], None, [])
    node.settings["paths"]["wizard"] = str(folder / "run/wizard.sock")
    node.start()
    wait_for(lambda: node.get("/health/live"), 20, "the service answers")
    yield node
    node.kill()


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Front:
    front = Front(tmp_path_factory.mktemp("wizard"))
    (front.inventory / HOSTS).write_text(dump(init.hosts({"n1": "192.0.2.1", "n2": "192.0.2.2"}, ["n1"], {})))
    own_home(front.home.parent)
    return front


@pytest.fixture(scope="module")
def server(front: Front, node: Node) -> Iterator[Server]:
    status, _headers, page = node.request("/setup/", token=None)
    assert status == 503 and b"bzzz-setup web --coordinator" in page, "it is not there yet"
    more = {"ANSIBLE_COLLECTIONS_PATH": front.environment["ANSIBLE_COLLECTIONS_PATH"]}
    server = Server(front.inventory, front.home, more, ("--coordinator", "--node-config", str(node.config), "--name", "127.0.0.1"))
    server.start()
    yield server
    server.stop()
    assert node.request("/setup/", token=None)[0] == 503 and node.get("/health/live"), "it takes the service with it"


@pytest.mark.requirement("T1", part="under /setup of a coordinator, from the link to the end of a run")
def test_the_wizard_is_where_the_cluster_is(server: Server, node: Node, browser: Any) -> None:
    assert server.address == f"https://127.0.0.1:{node.port}/setup"
    with contextlib.closing(browser.new_context(ignore_https_errors=True, viewport={"width": 1400, "height": 900})) as context:
        page = context.new_page()
        wrong: list[str] = []
        page.on("request", lambda request: None if request.url.startswith((server.address, "data:")) else wrong.append(request.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda told: wrong.append(told.text) if "ontent Security Policy" in told.text else None)
        screen = Screen(page)
        page.goto(server.link)
        screen.heading("Make the first account")
        page.get_by_label("User").fill("anna")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Make the account").click()
        screen.heading("Step 1 of 8")
        (cookie,) = [one for one in context.cookies() if one["value"]]
        assert (cookie["path"], cookie["secure"], cookie["httpOnly"], cookie["sameSite"]) == ("/setup", True, True, "Strict")
        page.get_by_role("button", name="Next").click()
        screen.heading("Step 2 of 8")
        assert page.url == f"{server.address}/step/2"
        page.reload()
        screen.heading("Step 2 of 8")
        page.goto(f"{server.address}/review")
        page.get_by_role("button", name="Apply", exact=True).click()
        screen.heading("Apply ·", 120)
        screen.ended()
        assert page.url.startswith(f"{server.address}/run/")
        page.goto(f"{server.address}/cluster")
        page.get_by_role("heading", level=1).wait_for()
        assert wrong == []


def request(node: Node, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, str]:
    """As no client would send it: the path stays as it is."""
    command = [
        "curl",
        "-sS",
        "--path-as-is",
        "--max-time",
        "30",
        "--cacert",
        str(node.cluster.authority.ca),
        "-X",
        method,
        "--data-binary",
        "@-",
    ]
    command += [word for name, value in headers.items() for word in ("-H", f"{name.replace('_', '-')}: {value}")]
    command += ["-w", "\n%{http_code}", f"https://127.0.0.1:{node.port}{path}"]
    done = subprocess.run(command, input=body, capture_output=True, timeout=60, check=True)
    text, _, code = done.stdout.decode().rpartition("\n")
    return int(code), text


@pytest.mark.requirement("T2", part="under /setup of a coordinator: who asks is known, sizes are bounded, nothing else is reached")
def test_what_comes_through_is_judged_by_the_wizard(server: Server, node: Node) -> None:
    own = {"Origin": f"https://127.0.0.1:{node.port}", "Content-Type": "application/json"}
    wrong = json.dumps({"user": "anna", "password": "not it, not at all"}).encode()
    told = {"X_Forwarded_For": "198.51.100.7", "Forwarded": "for=198.51.100.7", "X_Forwarded_Proto": "http"}
    assert request(node, "POST", "/setup/api/v1/session", wrong, **own, **told)[0] == 401
    wait_for(lambda: any('"sign_in"' in line for line in server.said), 10, "it is in the audit log")
    audited = "".join(server.said)
    assert '"from": "127.0.0.1"' in audited and "198.51.100.7" not in audited
    assert request(node, "POST", "/setup/api/v1/session", wrong, **{**own, "Origin": "https://elsewhere.example"})[0] == 403
    assert request(node, "POST", "/setup/api/v1/session", wrong, **own, Host="elsewhere.example")[0] == 403
    assert request(node, "PATCH", "/setup/api/v1/draft", b"x" * 3_000_000, **own)[0] == 413
    # The wizard's own 401 for its draft; the service's token is none of the wizard's.
    assert request(node, "GET", "/setup/api/v1/draft", Authorization=f"Bearer {TOKEN}")[0] == 401
    assert request(node, "GET", "/api/v1/node", Authorization=f"Bearer {TOKEN}")[0] == 200
    # Below /setup there is the wizard only, whatever the path says.
    for path in ("/setup/../api/v1/node", "/setup/%2e%2e/api/v1/node", "/setup//api/v1/node"):
        code, text = request(node, "GET", path, Authorization=f"Bearer {TOKEN}")
        assert "uptime_seconds" not in text and code in (200, 404), path
    assert request(node, "GET", "/setupped")[0] == 404


@pytest.mark.requirement("F8", part="bzzz-setup web --coordinator where it cannot be")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--node-config", "/nowhere/config.yaml"], "this host is no node of a cluster"),
        (["--node-config", "{config}", "--host", "0.0.0.0"], "the node's own Web UI has address, port and certificate"),
        (["--node-config", "{config}"], "a wizard serves this node's /setup already"),
    ],
)
def test_where_it_cannot_be_it_says_why(server: Server, node: Node, front: Front, arguments: list[str], said: str) -> None:
    command = [sys.executable, "-m", "bzzz_setup", "--json", "web", "-i", str(front.inventory), "--coordinator"]
    command += [argument.format(config=node.config) for argument in arguments]
    done = subprocess.run(command, env=front.environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (2, 4) and said in done.stdout, done.stdout + done.stderr
    assert Path(node.settings["paths"]["wizard"]).stat().st_mode & 0o777 == 0o660
