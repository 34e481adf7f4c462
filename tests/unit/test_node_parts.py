# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Parts of the node service by themselves: settings, sessions, pages, published capabilities, what systemd hears."""

from __future__ import annotations

import grp
import hashlib
import html.parser
import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from node_cluster import wait_for
from ollama_standin import StandIn
from starlette.requests import Request

from bzzz_setup.gateway import alerts
from bzzz_setup.gateway.budgets import NANO, Limit, Period, Scope
from bzzz_setup.gateway.ledger import Warned
from bzzz_setup.gateway.settings import Alerts
from bzzz_setup.node import capabilities, checks, config, page, systemd
from bzzz_setup.node.auth.gate import COOKIE, Gate
from bzzz_setup.node.events import Journal, Seen, changes
from bzzz_setup.node.membership import View, clock
from bzzz_setup.node.service import Service


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("tls")
    for name in ("node.crt", "node.key", "ca.crt"):
        (folder / name).write_text("PEM")
    return {
        "node": {"name": "node1", "address": "192.0.2.11", "roles": ["coordinator", "worker"], "labels": {"rack": "a"}},
        "cluster": {"name": "bzzz"},
        "tls": {"certificate": str(folder / "node.crt"), "key": str(folder / "node.key"), "ca": str(folder / "ca.crt")},
    }


def problems(document: Any, **environ: str) -> dict[str, config.Problem]:
    with pytest.raises(config.ConfigError) as caught:
        config.parse(document, environ)
    return {problem.key: problem for problem in caught.value.problems}


@pytest.mark.requirement("F6", part="configuration")
def test_defaults_are_the_documented_ones(right: dict[str, Any]) -> None:
    found = config.parse(right, {})
    documented = yaml.safe_load("\n".join(line[4:] for line in (config.__doc__ or "").splitlines() if line.startswith("    ")))
    for section in ("listen", "logging", "paths"):
        for key, value in documented[section].items():
            assert str(getattr(getattr(found, section), key)) == str(value), f"{section}.{key}"
    assert found.etcd.lease_seconds == documented["etcd"]["lease_seconds"]
    assert set(documented) == set(config.SECTIONS)
    assert all(set(documented[name]) == set(cls.__dataclass_fields__) for name, cls in config.SECTIONS.items())


@pytest.mark.requirement("F6", part="configuration")
def test_the_environment_overrides_the_file(right: dict[str, Any]) -> None:
    environ = {
        "BZZZ_NODE_ROLES": "worker, storage",
        "BZZZ_NODE_LABELS": "rack=b,gpu=yes",
        "BZZZ_LISTEN_PORT": "18080",
        "BZZZ_ETCD_ENDPOINTS": "https://192.0.2.1:2379,https://[2001:db8::1]:2379",
        "BZZZ_LOG_LEVEL": "debug",
        "BZZZ_CLUSTER_NAME": "",
    }
    found = config.parse(right, environ)
    assert found.node.roles == ("worker", "storage")
    assert found.node.labels == {"rack": "b", "gpu": "yes"}
    assert found.listen.port == 18080
    assert found.etcd.endpoints == ("https://192.0.2.1:2379", "https://[2001:db8::1]:2379")
    assert found.logging.level == "debug"
    assert found.cluster.name == "bzzz", "an empty value is no value"
    assert found.revision != config.parse(right, {}).revision
    assert found.revision == config.parse(right, environ).revision


@pytest.mark.requirement("L7", part="node configuration")
def test_every_problem_comes_at_once_with_key_and_remedy() -> None:
    document = {
        "node": {"name": "Node_1", "address": "node1", "roles": []},
        "cluster": "bzzz",
        "listen": {"port": 70000, "web_port": True},
        "tls": {"certificate": "node.crt", "key": "/nowhere/node.key"},
        "etcd": {"endpoints": ["http://192.0.2.1:2379"], "lease_seconds": 1},
        "logging": {"level": "inf"},
    }
    found = problems(document)
    assert set(found) == {
        *("node.name", "node.address", "node.roles", "cluster", "cluster.name", "listen.port", "listen.web_port"),
        *("tls.certificate", "tls.key", "tls.ca", "etcd.endpoints", "etcd.lease_seconds", "logging.level"),
    }
    assert all(problem.remedy and problem.message for problem in found.values())
    assert found["logging.level"].remedy == "write info"
    assert "BZZZ_TLS_CA" in found["tls.ca"].remedy


@pytest.mark.requirement("1.2.2", part="a port of its own")
@pytest.mark.requirement("1.2.4", part="a port of its own")
def test_only_api_and_page_may_share_a_port(right: dict[str, Any]) -> None:
    assert config.parse({**right, "listen": {"port": 9000, "web_port": 9000}}, {}).listen.by_port() == {
        9000: "port",
        8081: "websocket_port",
        3000: "mcp_port",
    }
    found = problems({**right, "listen": {"port": 9000, "web_port": 9001, "websocket_port": 9001, "mcp_port": 9000}})
    assert set(found) == {"listen.websocket_port", "listen.mcp_port"}
    assert "listen.web_port" in found["listen.websocket_port"].message and found["listen.mcp_port"].remedy


@pytest.mark.requirement("F6", part="configuration")
def test_a_token_written_in_place_of_its_hash_is_not_repeated(right: dict[str, Any]) -> None:
    for value in ("canary-secret", hashlib.sha256(b"").hexdigest()):
        found = problems({**right, "auth": {"token_sha256": [value]}})
        assert set(found) == {"auth.token_sha256"}
        assert "canary" not in str(found["auth.token_sha256"])


def test_unknown_keys_warn_with_the_nearest_right_one_and_upstreams_do_not(right: dict[str, Any]) -> None:
    document = {**right, "listen": {"prot": 1, "mcp_port": 3000, "websocket_port": 8081}, "hive_api": {"base_url": "x"}, "lgging": {}}
    found = config.parse(document, {}).warnings
    assert len(found) == 2
    assert "listen.prot" in found[1] and "listen.port" in found[1]
    assert "lgging" in found[0] and "logging" in found[0]


@pytest.mark.parametrize("text", ["a: [canary", "\tcanary", "- canary", "canary", "\0"])
def test_an_unreadable_file_is_refused_without_quoting_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    for candidate in (path, tmp_path / "absent.yaml"):
        with pytest.raises(config.ConfigError) as caught:
            config.load(candidate, {})
        assert "Remedy" in str(caught.value) and "canary" not in str(caught.value)


@pytest.mark.requirement("2.4.2", part="the service's settings")
@pytest.mark.requirement("2.4.3", part="the service's settings")
def test_settings_of_a_provider_and_a_directory(right: dict[str, Any]) -> None:
    file = right["tls"]["ca"]
    oidc = {"issuer": "https://id.example.com", "client_id": "bzzz", "role_groups": {"admin": "a, b", "viewer": ["c"]}}
    ldap: dict[str, Any] = {"urls": ["ldaps://dc1:636/", "ldap://dc2"], "bind_dn": "cn=x", "bind_password_file": file}
    ldap |= {"user_base": "ou=p", "group_base": "ou=g", "role_groups": {"operator": ["cn=a,b"]}}
    found = config.parse({**right, "oidc": oidc, "ldap": ldap}, {"BZZZ_OIDC_SCOPES": "openid,groups"})
    assert found.oidc.role_groups == {"admin": ("a, b",), "viewer": ("c",)} and found.oidc.scopes == ("openid", "groups")
    assert found.ldap.urls == ("ldaps://dc1:636", "ldap://dc2") and found.ldap.role_groups == {"operator": ("cn=a,b",)}
    for section, wrong in (
        ("oidc", {"issuer": "http://id.example.com"}),
        ("oidc", {"client_id": None}),
        ("oidc", {"role_groups": {"root": ["a"]}}),
        ("oidc", {"role_groups": {"admin": []}}),
        ("oidc", {"client_secret_file": "/no/such/file"}),
        ("ldap", {"urls": ["http://dc1"]}),
        ("ldap", {"user_filter": "(uid=x)"}),
        ("ldap", {"group_filter": "(member={dn}"}),
        *(("ldap", {key: None}) for key in ldap if key != "urls"),
    ):
        whole = {**right, section: {**(oidc if section == "oidc" else ldap), **wrong}}
        (key, problem), *_ = problems(whole).items()
        assert key == f"{section}.{next(iter(wrong))}" and problem.remedy, wrong


_any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.sampled_from(["port", "roles", "name"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from([*config.SECTIONS, "other"]), _any) | _any)
def test_any_document_gives_settings_or_problems(document: Any) -> None:
    try:
        config.parse(document, {})
    except config.ConfigError as error:
        assert all(problem.key and problem.message and problem.remedy for problem in error.problems)


def request(**headers: str) -> Request:
    return Request({"type": "http", "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]})


def gate_of(*tokens: str, now: Callable[[], float] = time.monotonic) -> Gate:
    return Gate(config.Auth(tuple(hashlib.sha256(token.encode()).hexdigest() for token in tokens)), now=now)


def test_sessions_end_cannot_be_forged_and_die_with_the_process() -> None:
    now = [1000.0]
    gate = gate_of("token", now=lambda: now[0])
    who = gate.by_token("token")
    assert who
    session = gate.session(who)
    assert gate.identify(request(cookie=f"{COOKIE}={session}")) == who
    fields, _, signature = session.partition(".")
    assert not gate.identify(request(cookie=f"{COOKIE}={fields[:-1]}A.{signature}"))
    assert not gate.identify(request(cookie=f"other={session}"))
    assert not gate_of("token", now=lambda: now[0]).identify(request(cookie=f"{COOKIE}={session}"))
    kept, gate.token_sha256 = gate.token_sha256, ()
    assert not gate.identify(request(cookie=f"{COOKIE}={session}")), "the token is gone, and so is who signed in with it"
    gate.token_sha256 = kept
    now[0] += gate.session_seconds
    assert not gate.identify(request(cookie=f"{COOKIE}={session}"))


@given(st.text(st.characters(min_codepoint=32, max_codepoint=255)), st.text(st.characters(min_codepoint=32, max_codepoint=255)))
def test_no_header_lets_a_stranger_in(authorization: str, cookie: str) -> None:
    gate = gate_of("a token that hypothesis does not know")
    assert not gate.identify(request(authorization=authorization))
    assert not gate.identify(request(authorization=f"Bearer {authorization}"))
    assert not gate.identify(request(cookie=cookie))
    assert not gate.identify(request(cookie=f"{COOKIE}={cookie}"))
    assert not gate_of().identify(request(authorization=f"Bearer {authorization}"))


class Tags(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not any(name.startswith("on") for name, _ in attrs)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=30), _any)
def test_no_record_can_put_markup_into_the_page(right: dict[str, Any], text: str, value: Any) -> None:
    service = Service(config.parse({**right, "etcd": {"endpoints": ["https://192.0.2.1:2379"]}}, {}), "1.0")
    evil = f"<script>{text}</script><img src=x onerror=alert(1)>\"'&"
    assert service.membership

    def tags(word: Any, labels: Any) -> list[str]:
        record = {"address": word, "roles": ["worker", word], "labels": labels, "version": word, "started": word, "healthy": value}
        record["capabilities"] = {"gpus": [{"model": word}], "ollama": {"version": word}, "cpu": {"threads": word}}
        service.membership._view = View({"node2": record}, str(word), 1, clock())  # type: ignore[union-attr]
        parser = Tags()
        parser.feed(page.status(service, Journal()))
        return parser.tags

    assert tags(evil, {evil: evil}) == tags("plain", {"plain": "plain"})
    assert evil not in page.sign_in(evil, evil, evil)


@pytest.mark.requirement("8.2.1", part="from the node programs")
def test_capabilities_come_from_the_collections_node_programs() -> None:
    facts, reason = capabilities.detect()
    assert reason is None
    found = capabilities.summary(facts)
    assert found["os"]["architecture"] == os.uname().machine
    assert found["cpu"]["threads"] == os.cpu_count()
    assert found["memory_total_mib"] == facts["system"]["memory"]["total_mib"]
    assert facts["network"]["interfaces"]
    assert json.loads(json.dumps(found)) == found, "it is compared with what etcd gives back"


@pytest.mark.requirement("3.5.2", part="each of a node's instances is found by its node service")
def test_detection_looks_for_ollama_where_the_configuration_says(right: dict[str, Any]) -> None:
    ollama = StandIn("tiny:latest")
    ports = [9, int(ollama.url.rpartition(":")[2])]
    detector = Service(config.parse({**right, "ollama": {"ports": ports}}, {}), "1.0").detector
    try:
        detector.start()
        wait_for(lambda: detector.summary, 60, "detection has finished")
        assert detector.summary["ollama"] == {"version": "0.0.0-stand-in", "endpoint": ollama.url, "models": ["tiny:latest"]}
    finally:
        detector.stop()
        ollama.close()
    assert config.parse(right, {}).ollama.ports == (11434,)


@pytest.mark.requirement("8.2.1", part="GPU and models")
def test_capabilities_hold_gpus_and_models_but_nothing_that_changes_by_the_second() -> None:
    device = {"index": 0, "uuid": "GPU-1", "vendor": "nvidia", "model": "A100", "memory_total_mib": 81920, "driver_version": "550"}

    def facts(used: int, temperature: int) -> dict[str, Any]:
        return {
            "gpu": {"devices": [{**device, "memory_used_mib": used, "temperature_c": temperature}], "problems": []},
            "system": {
                "memory": {"total_mib": 1024, "available_mib": used},
                "ollama": {"version": "0.5", "endpoint": "http://127.0.0.1:11434", "models": [{"name": "z"}, {"name": "a"}]},
                "problems": [{"message": "m", "remedy": "r"}],
            },
        }

    found = capabilities.summary(facts(1, 30))
    assert found["gpus"] == [device]
    assert found["ollama"]["models"] == ["a", "z"]
    assert found["problems"] == 1
    assert found == capabilities.summary(facts(2, 31))


def test_a_hung_or_broken_detection_becomes_a_finding(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def hang(*_arguments: Any, **_options: Any) -> None:
        raise subprocess.TimeoutExpired("detect", 60)

    monkeypatch.setattr(subprocess, "run", hang)
    facts, reason = capabilities.detect()
    assert reason and "60 seconds" in reason and reason in facts["system"]["problems"][0]["message"]
    assert capabilities.summary(facts)["problems"] == 1
    monkeypatch.undo()

    interpreter = tmp_path / "python"
    interpreter.write_text('#!/bin/sh\neval "$DO"\n')
    interpreter.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(interpreter))
    for deed, said in (
        ("kill -SYS $$", "SystemCallFilter"),
        ("echo Traceback >&2; exit 1", "exit code 1: Traceback"),
        ("echo no JSON", ""),
    ):
        monkeypatch.setenv("DO", deed)
        facts, reason = capabilities.detect()
        assert reason and said in reason
        assert capabilities.summary(facts)["problems"] == 1
    monkeypatch.setattr(sys, "executable", str(tmp_path / "absent"))
    assert capabilities.detect()[1]


def test_systemd_hears_what_it_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        systemd.notify("READY=1")
        assert channel.recv(100) == b"READY=1"
    systemd.notify("WATCHDOG=1")  # nobody listens any more: no error
    monkeypatch.setenv("WATCHDOG_USEC", "10000000")
    assert systemd.watchdog_seconds() == 5
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert systemd.watchdog_seconds() is None


@pytest.mark.requirement("7.1.1", part="node service")
@pytest.mark.parametrize(("level", "seen"), [("debug", 4), ("info", 3), ("warn", 2), ("error", 1)])
@pytest.mark.parametrize("form", ["text", "json"])
def test_one_level_and_form_for_the_whole_log(
    level: str, seen: int, form: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    handlers, before = root.handlers[:], root.level
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    try:
        systemd.configure_logging(level, form)
        log = logging.getLogger("bzzz.test")
        for method in (log.error, log.warning, log.info, log.debug):
            method("one\ntwo")
        lines = capfd.readouterr().err.splitlines()
    finally:
        root.handlers[:] = handlers
        root.setLevel(before)
    if form == "json":
        assert [json.loads(line)["level"] for line in lines] == ["error", "warning", "info", "debug"][:seen]
    else:
        assert [line[:3] for line in lines] == [prefix for prefix in ("<3>", "<4>", "<6>", "<7>")[:seen] for _ in range(2)]


@pytest.mark.requirement("3.5.5", part="alert")
def test_a_gpu_that_is_lost_is_an_alert(right: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is that of role ollama's watch."""
    lost = tmp_path / "lost"
    monkeypatch.setattr("bzzz_setup.node.service.LOST_GPUS", lost)
    service = Service(config.parse(right, {}), "1.0")

    def own() -> dict[str, checks.Check]:
        return {check.name: check for check in service.local_checks()}

    def seen() -> Seen:
        return Seen("node1", None, None, None, None, own())

    assert "gpus" not in own(), "nobody watches"
    lost.write_text("")
    well = seen()
    assert well.own["gpus"].status == checks.PASS
    lost.write_text("nvidia GPU GPU-a does not answer any more\n")
    worse = seen()
    assert [(kind, event, data["check"], data["status"]) for kind, event, _, data in changes(well, worse)] == [
        ("alert", "began", "gpus", "warn")
    ]
    assert "GPU-a" in worse.own["gpus"].message
    assert [event for _, event, _, _ in changes(worse, well)] == ["ended"]


@pytest.mark.requirement("4.1.4", part="an alert of the node service")
def test_a_budgets_threshold_is_one_alert_and_told_to_nobody_unknown(
    right: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the file that the gateway writes."""
    file = tmp_path / "reached"
    monkeypatch.setattr("bzzz_setup.node.service.REACHED", file)
    service, where = Service(config.parse(right, {}), "1.0"), Alerts(str(file), grp.getgrgid(os.getgid()).gr_name)
    now = datetime.now(UTC)

    def reached(user: str, percent: int, until: datetime) -> Warned:
        return Warned(Limit(Scope("user", user), "day", 10 * NANO), percent, 8_040_000_000, Period("day", now, until))

    def alerted() -> list[tuple[str, str]]:
        seen.append(Seen("node1", None, None, None, None, {check.name: check for check in service.local_checks()}))
        return [(event, data["message"]) for _, event, _, data in changes(*seen[-2:])]

    seen = [Seen("node1", None, None, None, None, {check.name: check for check in service.local_checks()})]
    alerts.tell(where, [])
    assert not file.exists() and alerted() == []
    alerts.tell(where, [reached("anna", 50, now + timedelta(hours=1)), reached("anna", 80, now + timedelta(hours=1))])
    assert file.stat().st_mode & 0o777 == 0o640
    told = "user anna has spent 8.04 USD of 10.00 USD for this day: "
    assert alerted() == [("began", f"{told}50 % is reached"), ("began", f"{told}80 % is reached")]
    assert alerted() == []
    alerts.tell(where, [reached("bert", 50, now + timedelta(seconds=-1))])
    assert alerted() == [] and "anna" not in json.dumps(service.health()) and "anna" in json.dumps(service.health(known=True))
    alerts.tell(where, [reached("carla", 50, now + timedelta(hours=1))])
    assert [message.partition(" has")[0] for _, message in alerted()] == ["user carla"]
    assert [json.loads(line)["name"] for line in file.read_text().splitlines()][-1] == "budget user carla day 50"
    assert "bert" not in file.read_text(), "what is over is forgotten"
    monkeypatch.setattr(alerts, "KEPT", 2)
    alerts.tell(where, [reached("dora", 50, now + timedelta(hours=1))])
    assert len(file.read_text().splitlines()) == 2
    file.write_text("not JSON\n")
    assert ["cannot be read" in message for _, message in alerted()] == [True]
    alerts.tell(Alerts(str(tmp_path / "none/reached"), "nogroup"), [reached("anna", 50, now)])  # calls go on
