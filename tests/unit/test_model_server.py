# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is wrong with OpenAI's key or an endpoint is told apart: before the stand-in for OpenAI's servers, a proxy and TLS, on loopback."""

from __future__ import annotations

import json
import shutil
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.bzzz.cluster.plugins.module_utils import probe
from ansible_collections.bzzz.cluster.plugins.module_utils.node import model_server, probes
from gateway import StandIn
from hypothesis import given
from hypothesis import strategies as st
from openai_standin import KEY
from stand_ins import Proxy, certificate, https, pem
from typer.testing import CliRunner

from bzzz_setup import cli
from bzzz_setup.declaration import Declaration
from bzzz_setup.events import Refusal
from bzzz_setup.web import trying

WRONG = "sk-canary-of-a-wrong-key"


@pytest.fixture(scope="module")
def openai() -> Iterator[StandIn]:
    standin = StandIn()
    yield standin
    standin.stop()


def look(args: dict[str, Any]) -> dict[str, Any]:
    """A check, as the controller makes it of the node's answer."""
    entry = probe.understand("openai", {"id": "x", "title": "x", "remedy": "<remedy>.", "model_server": args})
    (found,) = probe.judge("me", [entry], probes.main(probe.question("me", [entry]))["outcomes"])
    assert KEY not in json.dumps(found) and WRONG not in json.dumps(found)
    return found


def key_file(folder: Path, url: str, key: str, root: str = "v1") -> str:
    deployments = [{"model_name": "m", "litellm_params": {"api_base": f"{url}/{root}", "api_key": key}}]
    (folder / "litellm.yaml").write_text(json.dumps({"model_list": deployments}))
    return str(folder / "litellm.yaml")


@pytest.mark.requirement("3.1.2", part="the node's check, before a stand-in for OpenAI")
@pytest.mark.parametrize(
    ("mode", "status", "seen", "remedy"),
    [
        ("fine", "pass", "takes the key, which has 4 models; gpt-4o-mini may be called", ""),
        ("no_quota", "fail", "there is no quota", "add credit"),
        ("rate_limit", "warn", "called too often", "try again in a minute"),
        ("error", "warn", "in trouble itself (500 server_error)", "status.openai.com"),
        ("wrong_organization", "fail", "not of the organisation org-1 (401 mismatched_organization)", "correct openai_organization"),
        ("wrong_project", "fail", "may not be used for the project proj_1", "openai_project"),
        ("no_permission", "fail", "not permitted to do this", "give the key permission"),
    ],
)
def test_each_cause_is_told_apart(openai: StandIn, tmp_path: Path, mode: str, status: str, seen: str, remedy: str) -> None:
    openai.mode(mode)
    file = key_file(tmp_path, openai.url, KEY)
    args = {"url": f"{openai.url}/v1", "key_file": file, "organization": "org-1", "projects": ["proj_1"], "models": ["gpt-4o-mini"]}
    found = look({**args, "call": "gpt-4o-mini"})
    assert found["status"] == status, found
    assert seen in found["seen"] and (not remedy or remedy in found["remedy"]), found


@pytest.mark.requirement("3.1.2", part="a wrong key, none, a model that is not there, and no way, told apart")
def test_a_wrong_key_and_a_lost_way_are_told_apart(openai: StandIn, tmp_path: Path) -> None:
    openai.mode()
    url = f"{openai.url}/v1"
    wrong = look({"url": url, "key_file": key_file(tmp_path, openai.url, WRONG)})
    assert wrong["status"] == "fail" and "does not take the key (401 invalid_api_key)" in wrong["seen"]
    assert "openai_api_key" in wrong["remedy"] and "vault" in wrong["remedy"]
    assert "it wants a key, and there is none" in look({"url": url})["seen"]
    file = key_file(tmp_path, openai.url, KEY)
    gone = look({"url": url, "key_file": file, "call": "gpt-9"})
    assert gone["status"] == "fail" and "it has no model gpt-9 (404 model_not_found)" in gone["seen"]
    unlisted = look({"url": url, "key_file": file, "models": ["gpt-9", "gpt-4o"]})
    assert unlisted["status"] == "warn" and "does not list gpt-9" in unlisted["seen"]
    assert "no such interface" in look({"url": f"{openai.url}/v2", "key_file": key_file(tmp_path, openai.url, KEY, "v2")})["seen"]
    assert "refuses the connection" in look({"url": "http://127.0.0.1:9/v1"})["seen"]
    nowhere = look({"url": "https://gone.invalid/v1"})
    assert nowhere["status"] == "fail" and ("is not known to" in nowhere["seen"] or "gave no answer" in nowhere["seen"])
    unread = look({"url": url, "key_file": str(tmp_path / "none")})
    assert unread["status"] == "fail" and "cannot be read" in unread["seen"]


@pytest.mark.requirement("3.1.2", part="by the declared proxy and authorities")
def test_the_way_there_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = certificate()
    body = json.dumps({"data": [{"id": "small"}]}).encode()
    with https(tmp_path, authority, {"/v1/models": body}) as url, Proxy("anna:secret").running() as proxy:
        untrusted = look({"url": f"{url}/v1", "timeout": 5})
        assert "is not trusted" in untrusted["seen"] and "downloads_ca_files" in untrusted["remedy"]
        context = ssl.create_default_context(cadata=pem(authority[0]))
        monkeypatch.setattr(model_server.Declared, "trusting", lambda _self: context)
        assert look({"url": f"{url}/v1"})["seen"].endswith("answers, and has 1 model")
        refused = look({"url": f"{url}/v1", "proxy": proxy.url})
        assert "wants another user or password" in refused["seen"] and "downloads_proxy_credentials" in refused["remedy"]
        let_in = look({"url": f"{url}/v1", "proxy": proxy.url.replace("//", "//anna:secret@")})
        assert let_in["status"] == "pass", let_in
    assert [login for _path, login in proxy.asked] == ["", "anna:secret"]


@given(st.integers(300, 599), st.dictionaries(st.sampled_from(["code", "type", "message"]), st.text() | st.none()), st.booleans())
def test_every_answer_has_a_cause_with_a_remedy(status: int, error: dict[str, Any], key: bool) -> None:
    _status, seen, remedy = model_server.CAUSES[model_server.cause(status, error, key)]
    words = dict.fromkeys(("host", "option", "organization", "project", "model", "path", "said"), "x")
    assert seen.format(**words) and remedy.format(**words)


def declared(folder: Path, options: dict[str, Any], secrets: dict[str, str]) -> Path:
    hosts = {"bzzz": {"children": {"coordinators": {"hosts": {"n1": {"ansible_host": "10.0.0.11"}}}}}}
    shutil.rmtree(folder, ignore_errors=True)
    Declaration(folder, hosts, {"declaration_cluster_name": "trial", **options}, "", secrets).create()
    return folder


@pytest.mark.requirement("3.1.2", part="from the admin host: terminal and wizard, before a stand-in for OpenAI")
def test_the_admin_host_asks_before_anything_is_applied(openai: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    openai.mode()
    options = {"gateway_enabled": True, "openai_base_url": f"{openai.url}/v1", "gateway_default_model": "gpt-4o-mini"}
    options["openai_projects"] = {"search": "proj_1"}
    folder = declared(tmp_path / "inventory", options, {"openai_api_key": KEY})
    before = len(openai.answers)
    assert trying.out(folder, "openai").endswith("takes the key, which has 4 models; gpt-4o-mini may be called.")
    (called,) = openai.answers[before:]
    assert called["project"] == "proj_1" and called["output_tokens"] == 1
    done = CliRunner().invoke(cli.app, ["try", "openai", "-i", str(folder)])
    assert done.exit_code == 0 and KEY not in done.output
    openai.mode("no_quota")
    done = CliRunner().invoke(cli.app, ["--json", "try", "openai", "-i", str(folder)])
    (problem,) = json.loads(done.stdout)["problems"]
    assert done.exit_code == 3 and problem["option"] == "openai_api_key" and "no quota" in problem["message"]
    declared(folder, {**options, "openai_test_call": False}, {"openai_api_key": KEY})
    assert trying.out(folder, "openai").endswith("which has 4 models."), "without a call no quota shows"
    declared(folder, options, {})
    with pytest.raises(Refusal, match="There is no key"):
        trying.out(folder, "openai")


@pytest.mark.requirement("3.4.2", part="endpoints are tried from the admin host")
def test_endpoints_are_tried_with_their_own_keys(openai: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(trying, "address_of", lambda host: None)  # all is on loopback here
    openai.mode()
    there = {"name": "there", "url": f"{openai.url}/v1"}
    options: dict[str, Any] = {
        "gateway_endpoints": [there],
        "gateway_models": [{"name": "m", "model": "gpt-4o", "endpoint": "there"}, {"name": "n", "endpoint": "there"}],
    }
    folder = declared(tmp_path / "inventory", options, {"gateway_endpoint_keys": f"there={KEY}"})
    told = trying.out(folder, "endpoints")
    assert "takes the key" in told and "does not list n" in told and "gateway_models" in told
    options["gateway_endpoints"] = [there, {"name": "ours", "url": "http://127.0.0.1:9", "kind": "ollama"}]
    declared(folder, options, {"gateway_endpoint_keys": f"there={WRONG}"})
    with pytest.raises(Refusal) as refused:
        trying.out(folder, "endpoints")
    assert ["does not take the key" in each["message"] for each in refused.value.problems] == [True, False]
    assert WRONG not in json.dumps(refused.value.problems)
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert "gateway's own node" in trying.out(folder, "endpoints"), "loopback is another's there"
