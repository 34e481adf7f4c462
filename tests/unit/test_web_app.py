# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The wizard's REST interface: who may do what, what it refuses, and runs followed to their end."""

from __future__ import annotations

import asyncio
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.bzzz.cluster.plugins.module_utils import discovery
from front import Front
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect
from wizard import canary

from bzzz_setup import host_keys, init
from bzzz_setup.declaration import HOSTS, dump
from bzzz_setup.node.auth.passwords import hashed
from bzzz_setup.node.auth.records import User
from bzzz_setup.web import command, guard, watching
from bzzz_setup.web.app import build
from bzzz_setup.web.shapes import API
from bzzz_setup.web.wizard import Wizard

PASSWORD = "correct horse battery"
ORIGIN = {"Origin": "http://testserver"}


@pytest.fixture
def front(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Front:
    front = Front(tmp_path)
    hosts = init.hosts({"n1": "192.0.2.1", "n2": "192.0.2.2"}, ["n1"], {})
    (front.inventory / HOSTS).write_text(dump(hosts))
    for name, value in front.environment.items():
        monkeypatch.setenv(name, value)
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    return front


@pytest.fixture
def wizard(front: Front) -> Iterator[Wizard]:
    wizard = command._wizard(front.inventory)
    yield wizard
    assert wizard.gate.directory
    wizard.gate.directory.stop()


@pytest.fixture
def page(tmp_path: Path) -> Path:
    folder = tmp_path / "page"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text('<meta property="csp-nonce" nonce="NONCE">')
    (folder / "sw.js").write_text("self")
    (folder / "assets/index.js").write_text("page")
    return folder


@pytest.fixture
def client(wizard: Wizard, page: Path) -> Iterator[TestClient]:
    with TestClient(build(wizard, frozenset({"testserver"}), page)) as client:
        yield client


@pytest.fixture
def admin(client: TestClient, wizard: Wizard) -> TestClient:
    done = client.post(f"{API}/claim", json={"token": wizard.claim.token, "name": "anna", "password": PASSWORD}, headers=ORIGIN)
    assert done.status_code == 201, done.text
    client.headers.update(ORIGIN)
    return client


def refused(answer: Any, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    assert found["status"] == status and found["detail"]
    return found


@pytest.mark.requirement("T1", part="the first account is made with a token that the terminal shows, once")
def test_the_first_account_is_made_once_by_whoever_has_the_token(
    client: TestClient, wizard: Wizard, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "bzzz.audit")
    before = {"claimed": False, "me": None, "ways": ["password"], "provider": None, "refused": None}
    assert client.get(f"{API}/welcome").json() == before
    body = {"token": wizard.claim.token, "name": "anna", "password": PASSWORD}
    refused(client.post(f"{API}/claim", json={**body, "token": "another"}), 401)
    short = refused(client.post(f"{API}/claim", json={**body, "password": "short"}), 422)
    assert short["problems"][0]["option"] == "password" and "short" not in json.dumps(short).replace("shorter", "")
    refused(client.post(f"{API}/claim", json=body, headers={"Origin": "http://evil.example"}), 403)
    done = client.post(f"{API}/claim", json=body, headers=ORIGIN)
    assert done.status_code == 201 and (done.json()["name"], done.json()["role"]) == ("anna", "admin")
    cookie = done.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and "Path=/" in cookie
    assert client.get(f"{API}/welcome").json()["claimed"] and client.get(f"{API}/welcome").json()["me"]["name"] == "anna"
    refused(client.post(f"{API}/claim", json={**body, "name": "bert"}), 409)
    # So it is for the next process, which knows her, too.
    again = command._wizard(wizard.draft.source)
    assert not again.claim.open
    again.gate.directory.stop()
    assert client.delete(f"{API}/session", headers=ORIGIN).status_code == 204
    refused(client.get(f"{API}/draft"), 401)
    refused(client.post(f"{API}/session", json={"user": "anna", "password": "not this one"}), 401)
    assert client.post(f"{API}/session", json={"user": "anna", "password": PASSWORD}).status_code == 201
    assert client.get(f"{API}/draft").status_code == 200
    said = [json.loads(record.message) for record in caplog.records]
    assert [(one["audit"], one["outcome"]) for one in said] == [
        ("sign_in", "refused"),
        ("user.add", "ok"),
        ("sign_in", "refused"),
        ("sign_in", "ok"),
    ]
    assert wizard.claim.token not in caplog.text and PASSWORD not in caplog.text


@pytest.mark.requirement("2.4.4", part="the wizard locks out who guesses")
def test_who_guesses_has_to_wait(client: TestClient, wizard: Wizard) -> None:
    tries = [client.post(f"{API}/claim", json={"token": f"guess{number}", "name": "eve", "password": PASSWORD}) for number in range(30)]
    assert (
        [one.status_code for one in tries[:5]] == [401] * 5 and tries[-1].status_code == 429 and int(tries[-1].headers["retry-after"]) > 0
    )
    refused(client.post(f"{API}/claim", json={"token": wizard.claim.token, "name": "eve", "password": PASSWORD}), 429)


@pytest.mark.requirement("2.4.0", part="the wizard")
def test_nothing_is_told_or_done_without_a_right_to_it(client: TestClient, admin: TestClient, wizard: Wizard) -> None:
    described = admin.get(f"{API}/openapi.json").json()["paths"]
    open_ones = {("get", f"{API}/welcome"), ("post", f"{API}/claim"), ("post", f"{API}/session"), ("delete", f"{API}/session")}
    open_ones |= {("get", f"{API}/sign-in/oidc"), ("get", f"{API}/sign-in/oidc/callback"), ("post", f"{API}/sessions")}
    known = {(method, path) for path, methods in described.items() for method in methods}
    assert open_ones < known and len(known) >= 14
    assert wizard.gate.directory
    now = int(time.time())
    wizard.gate.directory.write(None, User("vera", "viewer", hashed(PASSWORD), now, now, "test"))
    viewer = TestClient(client.app, headers=ORIGIN)
    assert viewer.post(f"{API}/session", json={"user": "vera", "password": PASSWORD}).status_code == 201
    stranger = TestClient(client.app, headers=ORIGIN)
    for method, path in sorted(known - open_ones):
        url = path.replace("{name}", "x")
        refused(stranger.request(method, url), 401)
        if method != "get":
            if (method, path) != ("patch", f"{API}/me"):  # anybody's own password
                assert "asks for the scope" in refused(viewer.request(method, url), 403)["detail"]
            for origin in ("http://evil.example", "null", "http://testserver.evil.example", "https://other"):
                assert "own page" in refused(admin.request(method, url, headers={"Origin": origin}), 403)["detail"]
    assert viewer.get(f"{API}/draft").status_code == 200
    with pytest.raises(WebSocketDisconnect), stranger.websocket_connect(f"{API}/runs/x/socket"):
        pass


def test_who_still_writes_hears_why_it_is_refused() -> None:
    """The node service hands requests on: had the wizard closed before it had all, it would answer 502."""
    pieces, said = [b"x", b"y", b""], []

    async def receive() -> dict[str, Any]:
        piece = pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    async def send(message: dict[str, Any]) -> None:
        said.append((message.get("status"), len(pieces)))

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"host", b"elsewhere.example")], "client": ("192.0.2.1", 1)}
    asyncio.run(guard.Guard(None, frozenset({"here"}))(scope, receive, send))  # type: ignore[arg-type]
    assert said[0] == (403, 0)


@pytest.mark.requirement("T2", part="requests are bounded, and from this server's own page only")
def test_what_stands_before_every_request(client: TestClient, wizard: Wizard, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "testserver" in refused(client.get(f"{API}/welcome", headers={"Host": "evil.example"}), 403)["hosts"]
    refused(client.post(f"{API}/claim", content=b"x" * (guard.BODY_BYTES + 1)), 413)

    def pieces() -> Iterator[bytes]:
        for _ in range(5):
            yield b"x" * (guard.BODY_BYTES // 2)

    refused(client.post(f"{API}/claim", content=pieces()), 400)
    shell = client.get("/step/3")
    policy = shell.headers["content-security-policy"]
    nonce = policy.split("'nonce-")[1].split("'")[0]
    assert "default-src 'none'" in policy and "unsafe" not in policy and f'nonce="{nonce}"' in shell.text
    assert client.get("/step/3").headers["content-security-policy"] != policy and shell.headers["x-frame-options"] == "DENY"
    assert client.get("/sw.js").text == "self" and client.get("/assets/index.js").text == "page"
    refused(client.get(f"{API}/nothing"), 404)
    monkeypatch.setattr(guard, "PER_SECOND", 0)
    answers = [client.get(f"{API}/welcome").status_code for _ in range(guard.BURST + 5)]
    assert answers[0] == 200 and answers[-1] == 429


@pytest.mark.requirement("T2", part="bad input is refused with its remedy")
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", "/draft", {"base": 0, "changes": {"options/service_prot": 1}}),
        ("PATCH", "/draft", {"base": -1, "changes": {"options/service_port": 1}}),
        ("PATCH", "/draft", {"base": 0, "changes": {}}),
        ("PATCH", "/draft", {"base": 0, "changes": {"nodes/n3": {"address": "192.0.2.1", "groups": ["kings"]}}}),
        ("PATCH", "/draft", {"base": 0, "changes": {"options/service_port": 1}, "also": 1}),
        ("POST", "/runs", {"command": "destroy"}),
        ("POST", "/runs", {"command": "plan", "steps": [9]}),
        ("POST", "/runs", {"command": "plan", "limit": "n1; id"}),
        ("POST", "/runs", "{"),
    ],
)
def test_what_is_wrong_is_refused_and_changes_nothing(admin: TestClient, wizard: Wizard, method: str, path: str, body: Any) -> None:
    content = body if isinstance(body, str) else json.dumps(body)
    found = refused(admin.request(method, API + path, content=content, headers={"Content-Type": "application/json"}), 422)
    assert found["problems"] and all(one["message"] and one["remedy"] for one in found["problems"])
    assert wizard.draft.revision == 0 and wizard.runs.folders() == []


@pytest.mark.requirement("T2", part="secrets are in no answer")
def test_a_canary_in_every_secret_field_is_in_no_answer(
    admin: TestClient, wizard: Wizard, front: Front, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    secrets = list(admin.get(f"{API}/draft").json()["secrets"])
    assert len(secrets) >= 8
    canaries = {name: canary(name, number) for number, name in enumerate(secrets)}
    wrong = admin.patch(f"{API}/draft", json={"base": 0, "changes": {"secrets/alerting_slack_url": "c4nary of no URL"}})
    assert wrong.status_code == 422 and wrong.json()["problems"][0]["option"] == "alerting_slack_url"
    told = [wrong.text]
    told += [
        admin.patch(f"{API}/draft", json={"base": 0, "changes": {f"secrets/{name}": canary}}).text for name, canary in canaries.items()
    ]
    told.append(admin.patch(f"{API}/draft", json={"base": 0, "changes": {f"secrets/{secrets[0]}": "other-c4nary"}}).text)
    told += [admin.get(API + path).text for path in ("/draft", "/schema", "/export", "/runs", "/nodes", "/openapi.json")]
    assert '"revision":' in told[1] and all(admin.get(f"{API}/draft").json()["secrets"].values())
    assert "c4nary" not in "".join(told) + caplog.text
    files = [path for path in front.home.rglob("*") if path.is_file()]
    assert files and not any(b"c4nary" in path.read_bytes() for path in files)


@pytest.mark.requirement("T2", part="no path is made of a cluster's name that is none")
@pytest.mark.parametrize("name", ["../../../elsewhere", {"a": 1}, 7.5, ""])
def test_a_clusters_name_that_is_none_leads_nowhere(admin: TestClient, front: Front, name: Any) -> None:
    before = {path for path in front.home.parent.rglob("*") if path.name in ("lock", "elsewhere")}
    answer = admin.patch(f"{API}/draft", json={"base": 0, "changes": {"options/declaration_cluster_name": name}}).json()
    assert answer["cluster"] == "trial" and any(one["option"] == "declaration_cluster_name" for one in answer["problems"])
    assert admin.get(f"{API}/runs").status_code == 200
    after = {path for path in front.home.parent.rglob("*") if path.name in ("lock", "elsewhere")}
    assert after - before <= {front.state / "lock"}


@pytest.mark.requirement("T2", part="somebody else's change is not overwritten")
def test_the_last_writer_is_told_who_was_first(admin: TestClient) -> None:
    assert admin.patch(f"{API}/draft", json={"base": 0, "changes": {"options/service_port": 9090}}).status_code == 200
    found = refused(admin.patch(f"{API}/draft", json={"base": 0, "changes": {"options/service_port": 9191}}), 409)
    assert found["changes"]["options/service_port"]["by"] == "user:anna" and found["changes"]["options/service_port"]["value"] == 9090
    refused(admin.post(f"{API}/runs", json={"command": "apply", "base": 0}), 409)
    refused(admin.delete(f"{API}/draft", params={"base": 0}), 409)
    assert admin.delete(f"{API}/draft", params={"base": 1}).json()["changed"] == {}


def ended(client: TestClient, name: str) -> dict[str, Any]:
    """The run when it is over."""
    until = time.monotonic() + 60
    while (found := client.get(f"{API}/runs/{name}").json())["running"] or found["seconds"] == 0:
        assert time.monotonic() < until
        time.sleep(0.1)
    return found


def until(come: Callable[[], Any], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not come():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.requirement("T1", part="apply, watched from the first event to the last, again from any, and the draft in the inventory")
def test_a_run_is_followed_from_its_first_event_to_its_last(admin: TestClient, wizard: Wizard, front: Front) -> None:
    admin.patch(f"{API}/draft", json={"base": 0, "changes": {"options/service_port": 9090}})
    front.step(
        2, [{"bzzz.cluster.answer": {"result": {"changed": True, "changes": [{"kind": "file", "name": "/etc/x", "what": "create"}]}}}]
    )
    plan = admin.post(f"{API}/runs", json={"command": "plan", "base": 1})
    assert plan.status_code == 202, plan.text
    planned = ended(admin, plan.json()["run"])
    assert planned["inventory"] == str(front.inventory), "remedies name the folder that stays"
    assert planned["changes"] and "service_port" not in (front.inventory / "group_vars/bzzz/main.yml").read_text()
    name = admin.post(f"{API}/runs", json={"command": "apply", "steps": [2, 3], "base": 1}).json()["run"]
    assert "service_port: 9090" in (front.inventory / "group_vars/bzzz/main.yml").read_text()
    with admin.websocket_connect(f"{API}/runs/{name}/socket?after=0") as socket:
        events = []
        while not events or events[-1]["event"] != "RunFinished":
            events.append(socket.receive_json())
    assert [event["id"] for event in events] == list(range(1, len(events) + 1))
    assert events[0]["event"] == "RunStarted" and [event["step"] for event in events if event["event"] == "StepStarted"] == [2, 3]
    assert not any("facts" in event or "diff" in event for event in events)
    with admin.websocket_connect(f"{API}/runs/{name}/socket?after={events[-3]['id']}") as socket:
        assert [socket.receive_json() for _ in range(2)] == events[-2:]
    run = ended(admin, name)
    assert (run["exit_code"], run["last"], [step["state"] for step in run["steps"]]) == (0, len(events), ["done", "done"])
    assert admin.get(f"{API}/runs/{name}/events?after=1&most=2").json()["events"] == events[1:3]
    until(lambda: admin.get(f"{API}/runs").json()["running"] is None)  # the report is written after the last event
    assert [one["command"] for one in admin.get(f"{API}/runs").json()["runs"]] == ["apply", "plan"]
    page = admin.get(f"{API}/runs/{name}/report")
    assert page.status_code == 200 and "sandbox" in page.headers["content-security-policy"] and "trial" in page.text
    refused(admin.get(f"{API}/runs/nothing"), 404)


@pytest.mark.requirement("T1", part="a run is stopped, and another is not begun beside it")
def test_a_run_is_stopped_and_holds_the_cluster_until_then(admin: TestClient, front: Front, tmp_path: Path) -> None:
    marker = tmp_path / "began"
    front.step(1, [{"ansible.builtin.command": {"argv": ["/bin/sh", "-c", f"echo > {marker}; exec sleep 300"]}}])
    name = admin.post(f"{API}/runs", json={"command": "detect"}).json()["run"]
    until(marker.exists)
    busy = refused(admin.post(f"{API}/runs", json={"command": "verify"}), 409)
    assert busy["problems"][0]["remedy"]
    assert admin.get(f"{API}/runs").json()["running"]["command"] == "detect"
    assert admin.delete(f"{API}/runs/{name}").json() == {"asked": True}
    assert ended(admin, name)["outcome"] == "interrupted"


@pytest.mark.requirement("T1", "T2", part="a run waits between two steps, and goes on")
def test_a_run_waits_between_two_steps_when_it_is_asked_to(admin: TestClient, front: Front, tmp_path: Path) -> None:
    gate, done = tmp_path / "gate", tmp_path / "done"
    front.step(2, [{"ansible.builtin.wait_for": {"path": str(gate), "timeout": 60, "sleep": 0}}])
    front.step(3, [{"ansible.builtin.file": {"path": str(done), "state": "touch"}}])
    name = admin.post(f"{API}/runs", json={"command": "apply"}).json()["run"]

    def told(kind: str) -> list[dict[str, Any]]:
        return [one for one in admin.get(f"{API}/runs/{name}/events").json()["events"] if one["event"] == kind]

    until(lambda: any(one["step"] == 2 for one in told("TaskStarted")))
    assert admin.put(f"{API}/runs/{name}/pause", json={"pausing": True}).json() == {"pausing": True}
    assert admin.get(f"{API}/runs/{name}").json()["pausing"]
    gate.touch()
    until(lambda: told("Paused"))
    seen = admin.get(f"{API}/runs/{name}").json()
    assert (seen["paused"], seen["running"]) == (3, True)
    assert [step["state"] for step in seen["steps"]][:4] == ["done", "done", "waiting", "waiting"]
    time.sleep(1)
    assert not done.exists() and not told("RunFinished")
    assert subprocess.run(front.command("resume", "-i", str(front.inventory)), check=False).returncode == 0
    until(lambda: told("RunFinished"))
    ended = admin.get(f"{API}/runs/{name}").json()
    assert done.exists() and ended["exit_code"] == 0 and ended["paused"] is None and len(told("Resumed")) == 1
    assert [step["state"] for step in ended["steps"]] == ["done"] * 8
    # One that is over waits for nothing.
    assert admin.put(f"{API}/runs/{name}/pause", json={"pausing": True}).json() == {"pausing": False}
    refused(admin.put(f"{API}/runs/another/pause", json={"pausing": True}), 404)
    again = subprocess.run(front.command("pause", "-i", str(front.inventory)), capture_output=True, text=True, check=False)
    assert again.returncode == 2 and "no run of cluster trial is going on" in again.stderr + again.stdout


@pytest.mark.requirement("L2", part="a run that waits between two steps can be stopped")
def test_a_run_that_waits_can_be_stopped(admin: TestClient) -> None:
    name = admin.post(f"{API}/runs", json={"command": "apply"}).json()["run"]
    admin.put(f"{API}/runs/{name}/pause", json={"pausing": True})
    until(lambda: admin.get(f"{API}/runs/{name}").json()["paused"])
    assert admin.delete(f"{API}/runs/{name}").json() == {"asked": True}
    until(lambda: not admin.get(f"{API}/runs/{name}").json()["running"])
    assert admin.get(f"{API}/runs/{name}").json()["outcome"] == "interrupted"


WATCH = """\
printf '%s\\n' '{"id": "a-1", "time": "2026-11-27T12:00:00Z", "type": "snapshot", "data": {"cluster": {"members": [{"name": "n1"}]}}}' \\
  '{"id": "a-2", "time": "2026-11-27T12:00:01Z", "type": "cluster", "event": "member_left", "node": "n2", "data": {}}' >> {{ watch_feed }}
exec sleep 300
"""


@pytest.mark.requirement("T1", "T2", part="the cluster as it is, for as long as somebody looks")
def test_the_cluster_is_watched_for_as_long_as_somebody_looks(
    admin: TestClient, wizard: Wizard, front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "LINGER_SECONDS", 1)
    task = {"ansible.builtin.shell": {"cmd": WATCH}, "run_once": True}
    front.playbook("watch", [{"hosts": "coordinators", "gather_facts": False, "tasks": [task]}])
    with admin.websocket_connect(f"{API}/cluster/socket") as one:
        assert [one.receive_json()["type"] for _ in range(2)] == ["snapshot", "cluster"]
        with admin.websocket_connect(f"{API}/cluster/socket") as other:
            # Who comes later is told what was, and what is.
            assert [other.receive_json()["id"] for _ in range(2)] == ["a-2", "a-1"]
        watched = subprocess.run(["pgrep", "-f", "bzzz_setup watch --json"], capture_output=True, text=True, check=False).stdout.split()
        assert watched, "one process for both"
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in watched))
    # A run goes on beside it: it does not hold the cluster.
    assert admin.get(f"{API}/runs").json() == {"running": None, "runs": []}
    front.playbook(
        "watch", [{"hosts": "coordinators", "gather_facts": False, "tasks": [{"ansible.builtin.fail": {"msg": "nobody there"}}]}]
    )
    with admin.websocket_connect(f"{API}/cluster/socket") as one:
        was, away = one.receive_json(), one.receive_json()
        assert (was["id"], away["type"]) == ("a-2", "away") and "nobody there" in away["data"]["message"]
    with (
        pytest.raises(WebSocketDisconnect),
        admin.websocket_connect(f"{API}/cluster/socket", headers={"Origin": "http://evil.example"}) as bad,
    ):
        bad.receive_json()


def test_a_watch_ends_when_nobody_reads_it_any_more(front: Front) -> None:
    again = """while true; do echo '{"id": "a-1", "type": "quiet"}' >> {{ watch_feed }}; sleep 0.2; done"""
    front.playbook("watch", [{"hosts": "coordinators", "gather_facts": False, "tasks": [{"ansible.builtin.shell": {"cmd": again}}]}])
    process = front.start("watch", "--json")
    assert process.stdout and process.stderr
    assert json.loads(process.stdout.readline())["type"] == "quiet"
    process.stdout.close()
    process.stderr.close()
    try:
        process.wait(30)
    finally:
        process.kill()


def test_only_so_much_is_worked_out_at_a_time(admin: TestClient, wizard: Wizard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wizard.runs, "_turns", threading.BoundedSemaphore(1))
    with wizard.runs._turns:
        for method, path in (("POST", "/check"), ("GET", "/export?kind=env")):
            busy = refused(admin.request(method, f"{API}{path}"), 409)
            assert busy["problems"][0]["remedy"]


@pytest.mark.requirement("T2", part="the last answer to each check")
def test_the_last_checks_are_told(admin: TestClient, front: Front) -> None:
    assert admin.get(f"{API}/checks").json() == {"run": None, "at": None, "checks": []}
    check = {"id": "port", "title": "It listens", "status": "fail", "role": "service", "remedy": "systemctl restart bzzz"}
    front.step(8, [{"bzzz.cluster.answer": {"result": {"checks": [check]}}}])
    name = admin.post(f"{API}/runs", json={"command": "verify"}).json()["run"]
    assert ended(admin, name)["exit_code"] == 1
    told = admin.get(f"{API}/checks").json()
    assert told["run"] == name and {(one["node"], one["status"], one["role"]) for one in told["checks"]} == {
        ("n1", "fail", "service"),
        ("n2", "fail", "service"),
    }


@pytest.mark.requirement("T2", part="a declaration with problems is not applied")
def test_a_declaration_with_problems_is_not_applied(admin: TestClient, wizard: Wizard) -> None:
    admin.patch(f"{API}/draft", json={"base": 0, "changes": {"options/service_port": 3000}})
    found = refused(admin.post(f"{API}/runs", json={"command": "apply"}), 422)
    assert [one["option"] for one in found["problems"]] == ["service_mcp_port"] and found["problems"][0]["remedy"]
    assert wizard.draft.view()["changed"] and wizard.runs.folders() == []


@pytest.mark.requirement("T1", part="the first machines make the inventory, more go into the draft, and host keys are compared")
def test_machines_that_are_found_are_taken(
    admin: TestClient, wizard: Wizard, front: Front, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Found by a search that stands in; on lab nodes it is tests/cluster's, by the same functions."""
    keys = {
        address: f"{address} {(tmp_path / name).with_suffix('.pub').read_text().strip()}\n" for name, address in made_keys(tmp_path).items()
    }
    answering = list(keys)
    monkeypatch.setattr(init, "found", lambda search, knock: ([machine(address) for address in answering], []))
    monkeypatch.setattr(host_keys, "known_hosts", lambda ports, file: "".join(keys[address] for address in ports))
    source = wizard.draft.source
    source.rename(source.with_name("away"))
    assert admin.get(f"{API}/draft").json()["nodes"] == {}
    answering.remove("192.0.2.9")
    found = admin.post(f"{API}/find", json={"nodes": "192.0.2.7-8"}).json()
    told = [(one["name"], one["address"], len(one["keys"])) for one in found["machines"]]
    assert told == [
        ("node1", "192.0.2.7", 1),
        ("node2", "192.0.2.8", 1),
    ]
    take = {"machines": [{key: one[key] for key in ("name", "address", "port")} for one in found["machines"]], "cluster": "lab"}
    assert "192.0.2.7" in refused(admin.post(f"{API}/machines", json={**take, "known_hosts": ""}), 422)["detail"] and not source.exists()
    done = admin.post(f"{API}/machines", json={**take, "known_hosts": found["known_hosts"], "user": "operator"})
    assert done.status_code == 201, done.text
    assert (source / "known_hosts.txt").read_text() == found["known_hosts"]
    nodes = admin.get(f"{API}/draft").json()["nodes"]
    assert {name: node["groups"] for name, node in nodes.items()} == {"node1": ["coordinators", "workers"], "node2": ["workers"]}
    answering.append("192.0.2.9")
    more = admin.post(f"{API}/find", json={"nodes": "192.0.2.7-9"}).json()
    assert (more["known"], [one["name"] for one in more["machines"]]) == (2, ["node3"])
    third = {"machines": [{"name": "node3", "address": "192.0.2.9"}], "known_hosts": more["known_hosts"]}
    assert admin.post(f"{API}/machines", json=third).status_code == 201
    # Somebody else has looked at the same time, and found another one.
    third["machines"][0]["address"] = "192.0.2.8"
    assert "node3" in refused(admin.post(f"{API}/machines", json={**third, "known_hosts": found["known_hosts"]}), 422)["detail"]
    assert "192.0.2.9" not in (source / "known_hosts.txt").read_text() and "node3" in admin.get(f"{API}/draft").json()["nodes"]
    wizard.draft.publish()
    assert (source / "known_hosts.txt").read_text() == found["known_hosts"] + more["known_hosts"]


def machine(address: str) -> discovery.Machine:
    return discovery.Machine(address, 22, "", ("list",), frozenset({address}))


def made_keys(folder: Path) -> dict[str, str]:
    """Key files, and the machines whose they are."""
    machines = {f"key{number}": f"192.0.2.{number}" for number in (7, 8, 9)}
    for name in machines:
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", folder / name], check=True)
    return machines


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["--host", "0.0.0.0"], "host"),
        (["--certificate", "CERT"], "certificate"),
        (["--host", "0.0.0.0", "--certificate", "CERT", "--key", "CERT"], "host"),
        (["--port", "TAKEN"], "port"),
    ],
)
@pytest.mark.requirement("T1", part="loopback only unless there are TLS and an account")
def test_nobody_listens_in_or_comes_first(
    front: Front, tmp_path: Path, arguments: list[str], option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    from typer.testing import CliRunner

    from bzzz_setup import cli
    from bzzz_setup.web import frontend

    monkeypatch.setattr(frontend, "built", lambda say: tmp_path)
    certificate = tmp_path / "cert.pem"
    certificate.write_text("x")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        words = {"CERT": str(certificate), "TAKEN": str(taken.getsockname()[1])}
        done = CliRunner().invoke(cli.app, ["web", "-i", str(front.inventory), *(words.get(word, word) for word in arguments)])
    assert done.exit_code == 2 and option in done.output, done.output
