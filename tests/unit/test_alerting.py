# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Alerts: what channels may be, what is an alert, and what an Alertmanager is told of it."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import socket
import ssl
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from declarations import cluster_of, facts_of, judge, judge_on, listener
from hypothesis import given
from hypothesis import strategies as st
from stand_ins import certificate, https, key_pem, pem
from test_model_server import declared
from test_node_parts import right as right  # noqa: PLC0414 - a fixture
from typer.testing import CliRunner

from bzzz_setup import cli
from bzzz_setup.node import alerting, config
from bzzz_setup.node.alerting import LOST_SECONDS, SILENT_SECONDS, Absent, alerts
from bzzz_setup.node.checks import FAIL, PASS, WARN, Check, publish
from bzzz_setup.node.events import Seen
from bzzz_setup.node.service import Service

MAIL = {"alerting_email_to": ["ops@example.com"], "alerting_email_from": "bzzz@example.com", "alerting_smtp_server": "mail.example.com:587"}


def refused(given: dict[str, Any]) -> list[tuple[str, str]]:
    return [(one["option"], one["message"]) for one in judge(given) if one["severity"] == "error"]


@pytest.mark.parametrize(
    ("given", "option", "words"),
    [
        ({**MAIL, "alerting_email_to": ["ops"]}, "alerting_email_to", "is no e-mail address"),
        ({**MAIL, "alerting_email_to": ["a@b, c@d"]}, "alerting_email_to", "is no e-mail address"),
        *(
            ({**MAIL, "alerting_email_to": [wrong]}, "alerting_email_to", "is no e-mail address")
            for wrong in ("a@b.c;", "a..b@c.d", "{{ x }}@b", "(a)@b")
        ),
        ({**MAIL, "alerting_email_from": "Ops <a@b>"}, "alerting_email_from", "is no e-mail address"),
        ({**MAIL, "alerting_smtp_server": "mail.example.com"}, "alerting_smtp_server", "is no server and port"),
        ({**MAIL, "alerting_smtp_server": "mail.example.com:99999"}, "alerting_smtp_server", "is no server and port"),
        ({**MAIL, "alerting_smtp_server": None}, "alerting_smtp_server", "is missing"),
        ({"alerting_email_to": ["a@b"], "alerting_smtp_server": "m:25"}, "alerting_email_from", "is missing"),
        ({**MAIL, "alerting_smtp_user": "u"}, "alerting_smtp_password", "is missing"),
        ({**MAIL, "alerting_smtp_password": "p"}, "alerting_smtp_user", "is missing"),
        (
            {**MAIL, "alerting_smtp_user": "u", "alerting_smtp_password": "p", "alerting_smtp_tls": False},
            "alerting_smtp_tls",
            "see the password",
        ),
        ({"alerting_webhook_urls": ["hooks.example.com"]}, "alerting_webhook_urls", "'hooks.example.com' is no URL"),
        ({"alerting_webhook_urls": ["https://u:secret@h/x"]}, "alerting_webhook_urls", "has no place"),
        ({"alerting_webhook_urls": ["http://h/x"], "alerting_webhook_token": "abc"}, "alerting_webhook_urls", "see alerting_webhook_token"),
        ({"alerting_slack_url": "hooks.slack.com/x"}, "alerting_slack_url", "not an incoming webhook"),
        ({**MAIL, "alerting_port": 9100}, "metrics_node_exporter_port", "9100 is also"),
        ({**MAIL, "alerting_repeat_hours": 0}, "alerting_repeat_hours", "at least"),
    ],
)
def test_channels_that_cannot_work_are_refused(given: dict[str, Any], option: str, words: str) -> None:
    found = refused(given)
    assert any(name in (option, "alerting_port") and words in message for name, message in found), found
    assert "secret" not in str(judge(given))


def test_channels_that_can_are_not_and_without_any_no_port_is_taken() -> None:
    signed_in = {"alerting_smtp_user": "bzzz", "alerting_smtp_password": "a b"}
    hooks = {"alerting_webhook_urls": ["https://hooks.example.com:8443/a?b=c", "http://[fd00::1]:9000/x"]}
    assert refused({**MAIL, **signed_in, **hooks, "alerting_slack_url": "https://hooks.slack.com/services/T0/B0/x"}) == []
    assert refused({"alerting_port": 9100}) == []
    server = {"alerting_smtp_server": "mail.example.com:25"}
    (warned,) = (one for one in judge(server, cluster_of(1)) if one["option"] == "alerting_smtp_server")
    assert warned["severity"] == "warning" and "nobody is to get one" in warned["message"]


def test_somebody_elses_alertmanager_is_not_taken_over() -> None:
    theirs = facts_of(listeners=(listener(9093, "prometheus-alertmanager", unit="prometheus-alertmanager.service"),))
    facts = {"n1": theirs, "n2": facts_of(), "n3": facts_of()}
    (found,) = (one for one in judge_on(facts, MAIL) if "alertmanager" in one["message"])
    assert found["node"] == "n1" and "stop and disable" in found["message"] and "systemctl disable" in found["remedy"]
    assert not [one for one in judge_on(facts, {}) if "stop and disable" in one["message"]]


def told(node: str, *checks: Check) -> dict[str, Any]:
    return {"name": node, "checks": publish(checks), "healthy": True}


@pytest.mark.requirement("4.1.4", part="what is an alert, and which is told once")
def test_what_is_wrong_is_an_alert_each() -> None:
    members = {
        "n1": told("n1", Check("storage", FAIL, "stale")),
        "n2": told("n2", Check("gpus", WARN, "GPU 0 is lost"), Check("storage", PASS, "")),
        "n3": told("n3", Check("budget user anna day 50", WARN, "user anna has spent 5 of 10 USD")),
    }
    own = {"coordination": Check("coordination", FAIL, "no majority"), "storage": Check("storage", PASS, "")}
    found = alerts(Seen("n1", members, "n1", 1, None, own), ["n4"], "lab").values()
    assert [(one["labels"]["alertname"], one["labels"]["node"], one["labels"]["severity"]) for one in found] == [
        ("NodeLost", "n4", "critical"),
        ("Check", "n1", "critical"),
        ("Check", "n2", "warning"),
        ("Budget", "n3", "warning"),
    ]
    assert [one["labels"].get("once") for one in found] == [None, None, None, "yes"]
    assert [one["annotations"]["summary"] for one in found][1:3] == ["n1: coordination: no majority", "n2: gpus: GPU 0 is lost"]


@given(
    st.lists(st.tuples(st.sets(st.sampled_from(["n1", "n2", "n3"])), st.booleans()), min_size=1, max_size=20), st.sampled_from([1.0, 70.0])
)
def test_only_who_was_there_and_stays_away_is_lost(views: list[tuple[set[str], bool]], step: float) -> None:
    """Also where the service has started anew meanwhile."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "absent.json"
        absent, last = Absent(file), dict[str, float]()
        for number, (members, anew) in enumerate(views):
            now = number * step
            absent = Absent(file) if anew else absent
            lost = absent.lost(members, now)
            last |= dict.fromkeys(members, now)
            # Noticed at the next look at the earliest.
            assert set(lost) == {name for name, at in last.items() if name not in members and now - (at + step) >= LOST_SECONDS}
        assert absent.lost(None, 1e6) == []


def test_a_file_of_absent_nodes_that_is_broken_or_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "absent.json").write_text("[]")
    assert Absent(tmp_path / "absent.json").lost({"n1"}, 0) == []
    absent = Absent(tmp_path / "none/absent.json")
    assert [absent.lost(members, at) for members, at in (({"n1"}, 0), (set(), 1), (set(), 70))] == [[], [], ["n1"]]


@pytest.mark.requirement("4.1.4", part="told when it begins, goes on and ends; an Alertmanager that is away is a check")
def test_an_alertmanager_is_told_of_beginnings_and_ends(right: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service(config.parse({**right, "alerting": {"url": "https://192.0.2.11:9093/"}}, {}), "1.0")
    telling, bodies = service.alerting, list[list[dict[str, Any]]]()
    assert telling and telling.url == "https://192.0.2.11:9093"
    problem, own, members, clock = None, dict[str, Check](), dict[str, Any](), [1000.0]

    def post(body: list[dict[str, Any]]) -> str | None:
        bodies.append(copy.deepcopy(body))
        return problem

    monkeypatch.setattr(telling, "_post", post)
    monkeypatch.setattr(alerting, "look", lambda _: Seen("node1", members, None, None, None, own))
    monkeypatch.setattr(alerting.time, "monotonic", lambda: clock[0])

    def tell(seconds: float) -> list[list[str]]:
        """What was told: of each alert its check, with "over" where it ends at once."""
        before, clock[0] = len(bodies), clock[0] + seconds
        asyncio.run(telling.tell())
        now = alerting._time(alerting.time.time())
        assert all(one["startsAt"] <= min(now, one["endsAt"]) for body in bodies[before:] for one in body)
        return [[one["labels"]["check"] + (" over" if one["endsAt"] <= now else "") for one in body] for body in bodies[before:]]

    assert tell(2) == [[]] and tell(2) == []
    assert telling.check().status == PASS
    own = {"gpus": Check("gpus", WARN, "GPU 0 is lost")}
    assert tell(2) == [["gpus"]] and tell(2) == [] and tell(30) == [["gpus"]]
    problem = "Connection refused"
    own = {"gpus": Check("gpus", PASS, "")}
    assert tell(2) == [["gpus over"]] and telling.check().status == WARN and "Connection refused" in telling.check().message
    problem = None
    assert tell(2) == [["gpus over"]], "an end that was not heard is told again"
    assert tell(2) == [] and telling.check().status == PASS

    # A node that goes takes its alerts with it as little as one that comes back and has not looked yet.
    threshold = Check("budget user anna day 50", WARN, "user anna has spent 5 of 10 USD")
    members = {"node2": told("node2", Check("gpus", WARN, "GPU 0 is lost"), threshold)}
    assert tell(2) == [["gpus", threshold.name]]
    members = {}
    assert tell(2) == [] and tell(30) == [["gpus", threshold.name]]
    members = {"node2": told("node2")}
    assert tell(2) == [["gpus", f"{threshold.name} over"]], "the gateway's file would have it"
    assert tell(30) == [["gpus"]] and tell(SILENT_SECONDS) == [["gpus over"]]
    members = {"node2": told("node2", threshold)}
    assert tell(2) == [[threshold.name]]
    members = {"node2": told("node2", Check("gpus", FAIL, "all are lost"))}
    assert tell(2) == [["gpus", f"{threshold.name} over"]]
    members = {"node2": told("node2", Check("gpus", WARN, "GPU 0 is lost"))}
    assert tell(2) == [["gpus", "gpus over"]], "of another severity it is another alert"


@pytest.mark.parametrize("answer", [b"no HTTP\r\n\r\n", b"HTTP/1.1 400 Bad Request\r\nContent-Length: 9\r\n\r\nno alerts", b""])
def test_an_alertmanager_that_talks_nonsense_is_told(right: dict[str, Any], answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without TLS, which is not what this is about."""
    service = Service(config.parse({**right, "alerting": {"url": "https://192.0.2.11:9093"}}, {}), "1.0")
    assert service.alerting
    with socket.create_server(("127.0.0.1", 0)) as server:
        service.alerting.url = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(alerting.ssl, "create_default_context", lambda **_: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", lambda *_: None)

        def talk() -> None:
            with server.accept()[0] as there:
                there.recv(65536)
                there.sendall(answer)

        thread = threading.Thread(target=talk)
        thread.start()
        asyncio.run(service.alerting.tell())
        thread.join()
    assert service.alerting.check().status == WARN
    assert ("400 no alerts" in service.alerting.check().message) == (b"400" in answer)


def test_without_an_alertmanager_nobody_is_told(right: dict[str, Any]) -> None:
    service = Service(config.parse(right, {}), "1.0")
    assert service.alerting is None and "alerting" not in {check.name for check in service.local_checks()}
    with pytest.raises(config.ConfigError, match=r"alerting\.url"):
        config.parse({**right, "alerting": {"url": "http://192.0.2.11:9093"}}, {})


class Mail:
    """Takes mail for everybody but `gone`, from everybody but `nobody`."""

    def __init__(self) -> None:
        self.taken: list[Any] = []

    async def handle_MAIL(self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any) -> str:
        envelope.mail_from = address
        return "553 sender unknown" if address.startswith("nobody") else "250 OK"

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any) -> str:
        if address.startswith("gone"):
            return "550 no such user here"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:
        self.taken.append(envelope)
        return "250 OK"

    @contextlib.contextmanager
    def running(self, **how: Any) -> Iterator[str]:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        controller = Controller(self, hostname="127.0.0.1", port=port, server_hostname="localhost", **how)
        controller.start()
        try:
            yield f"localhost:{port}"
        finally:
            controller.stop()


def let_in(_server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
    return AuthResult(success=(data.login, data.password) == (b"bzzz", b"right one"), handled=False)


@pytest.mark.requirement(
    "7.4.2", part="a trial alert from the admin host, each channel and what may be wrong with it; Slack's is stood in for"
)
def test_a_trial_alert_by_every_channel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    authority, posted, mail = certificate(), list[tuple[str, str | None, bytes]](), Mail()
    made, key = certificate("localhost", ca=False, issuer=authority)
    (tmp_path / "mail.pem").write_text(pem(made) + key_pem(key))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "mail.pem")
    (tmp_path / "ca.crt").write_text(pem(authority[0]))
    secrets = {"alerting_smtp_password": "right one", "alerting_webhook_token": "hook-token", "alerting_slack_url": ""}
    tls = {"tls_context": context, "require_starttls": True, "auth_required": True, "authenticator": let_in}
    content = {"/hook": b"ok", "/slack/hidden": b"ok", "/moved": b"https://localhost/"}
    with https(tmp_path, authority, content, posted) as url, mail.running(**tls) as server, mail.running() as plain:
        options = {
            "downloads_ca_files": [str(tmp_path / "ca.crt")],
            **MAIL,
            "alerting_email_to": ["ops@example.com", "you@example.com"],
            "alerting_smtp_server": server,
            "alerting_smtp_user": "bzzz",
            "alerting_webhook_urls": [f"{url}/hook"],
            "alerting_slack_channel": "#ops",
        }
        secrets["alerting_slack_url"] = f"{url}/slack/hidden"

        def tried(changed: dict[str, Any] | None = None, **hidden: str) -> list[tuple[str, str]]:
            """What is wrong: the option, and what is said of it."""
            given = {name: value for name, value in {**secrets, **hidden}.items() if value}
            folder = declared(tmp_path / "inventory", {**options, **(changed or {})}, given)
            done = CliRunner().invoke(cli.app, ["--json", "try", "alerts", "-i", str(folder)])
            assert not [value for value in given.values() if value in done.output]
            found = json.loads(done.stdout)
            assert done.exit_code == found["exit_code"] and all(one["remedy"] for one in found["problems"])
            assert bool(found["problems"]) == bool(done.exit_code)
            return [(one["option"], one["message"]) for one in found["problems"]]

        assert tried() == []
        (letter,) = mail.taken
        assert letter.mail_from == "bzzz@example.com" and letter.rcpt_tos == ["ops@example.com", "you@example.com"]
        assert b"Subject: [trial] Trial" in letter.content and b"nothing is wrong" in letter.content
        (hook, slack) = sorted(posted)
        assert hook[:2] == ("/hook", "Bearer hook-token") and slack[:2] == ("/slack/hidden", None)
        (alert,) = json.loads(hook[2])["alerts"]
        assert alert["labels"] == {"alertname": "Trial", "cluster": "trial", "severity": "none"} and "nothing is wrong" in str(alert)
        assert json.loads(slack[2])["channel"] == "#ops"

        def one_wrong(option: str, words: str, changed: dict[str, Any] | None = None, **hidden: str) -> None:
            ((name, message),) = tried(changed, **hidden)
            assert name == f"alerting_{option}" and words in message, (name, message)

        one_wrong("smtp_password", f"{server} does not let bzzz in", alerting_smtp_password="another one")
        one_wrong("smtp_password", "letters beyond ASCII", alerting_smtp_password="größer")
        one_wrong("email_from", "takes no mail from nobody@example.com: sender unknown", {"alerting_email_from": "nobody@example.com"})
        one_wrong("email_to", "gone@example.com: no such user here", {"alerting_email_to": ["gone@example.com"]})
        before = len(mail.taken)
        one_wrong("email_to", "no such user here", {"alerting_email_to": ["gone@example.com", "ops@example.com"]})
        assert len(mail.taken) == before + 1, "the other gets it"
        one_wrong("smtp_server", "offers no TLS", {"alerting_smtp_server": plain})
        one_wrong("smtp_server", "refused", {"alerting_smtp_server": "localhost:9"})
        one_wrong("smtp_server", "is not trusted", {"downloads_ca_files": [], "alerting_webhook_urls": []}, alerting_slack_url="")
        one_wrong("webhook_urls", "answers 404", {"alerting_webhook_urls": [f"{url}/none"]})
        one_wrong("webhook_urls", "answers 302", {"alerting_webhook_urls": [f"{url}/moved"]})
        one_wrong("slack_url", "Slack's webhook: it answers 404", alerting_slack_url=f"{url}/slack/another-secret")
        one_wrong("smtp_server", "is missing", {"alerting_smtp_server": None})
        nobody = {"alerting_email_to": [], "alerting_webhook_urls": []}
        assert tried(nobody, alerting_slack_url="")[0][1] == "Nobody is to get alerts."
