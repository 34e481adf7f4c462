# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""An Ollama that is on a node before the product: found, told of, and left exactly as it is. Two nodes, one with a real Ollama."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import ollama
import pytest
import yaml
from conftest import Tools

from bzzz_setup.declaration import MAIN, write
from bzzz_setup.events import Refusal
from bzzz_setup.lab import Lab

# Compiling Ollama takes minutes of both cores.
pytestmark = [pytest.mark.alone, pytest.mark.slow]
WITH, WITHOUT = "bzzz-node1", "bzzz-node2"
LOCAL = "http://127.0.0.1:11434"
CHECK = "ollama-answers"
# Everything that Ollama's installer and its service left, by content, owner, mode and time of the last change.
FILES = f"""
places="{ollama.PROGRAM} {ollama.HOME} {ollama.UNIT} {ollama.UNIT}.d /etc/systemd/system/*.wants/ollama.service /root/.ollama"
find $places 2>/dev/null | sort > /tmp/paths
xargs -d '\\n' stat --format '%n %F %U:%G %a %s %Y' < /tmp/paths
xargs -d '\\n' sha256sum < /tmp/paths 2>/dev/null
id ollama
getent passwd ollama
"""
PROPERTIES = "MainPID,NRestarts,ExecMainStartTimestampMonotonic,ActiveState,UnitFileState,DropInPaths"


@pytest.fixture(scope="module")
def bzzz(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tools]:
    lab = Lab("ollama")
    try:
        program = ollama.binary()
        lab.down()  # what a killed run left
        lab.up(2)
    except (ollama.Unbuildable, Refusal) as reason:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(reason))
    try:
        # For the one test that asks from another node: a firewall shuts what was open until then.
        write(lab.inventory / MAIN, yaml.safe_dump({"declaration_cluster_name": lab.id, "firewall_open_ports": ["11600/tcp"]}))
        ollama.install(lab, WITH, program)
        yield Tools(lab, tmp_path_factory.mktemp("home"))
    finally:
        lab.down()


def ask(lab: Lab, path: str, url: str = LOCAL, **body: Any) -> Any:
    """What Ollama's API answers on its node; a POST where there is a body."""
    code = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], sys.argv[2].encode() or None).read().decode())"
    return json.loads(lab.exec(WITH, ["python3", "-c", code, url + path, json.dumps(body) if body else ""]).stdout)


def state(lab: Lab) -> dict[str, str]:
    """What would tell that somebody touched the Ollama."""
    return {
        "files": lab.exec(WITH, ["sh", "-c", FILES], check=False).stdout,
        "service": lab.exec(WITH, ["systemctl", "show", "ollama.service", f"--property={PROPERTIES}"]).stdout,
    }


def detected(bzzz: Tools, node: str) -> tuple[dict[str, Any] | None, list[dict[str, str]]]:
    """`bzzz_system.ollama` of a node, and the problems that name Ollama, by `bzzz-setup detect`."""
    system = bzzz.document("detect")["nodes"][node]["bzzz_system"]
    return system["ollama"], [problem for problem in system["problems"] if "Ollama" in problem["message"]]


def checks(bzzz: Tools) -> dict[str, dict[str, dict[str, Any]]]:
    """The checks of step 4 by node and id; the step changes nothing."""
    report = bzzz.document("apply", "--only", "4")
    assert report["changes"] == []
    return {node: {check["id"]: check for check in report["checks"] if check["node"] == node} for node in (WITH, WITHOUT)}


@pytest.mark.requirement("3.3.3")
def test_an_ollama_is_adopted_and_not_overwritten(bzzz: Tools) -> None:
    """All of the product's first four steps pass over it: same program, unit, models, user and process."""
    [tiny] = ask(bzzz.lab, "/api/tags")["models"]
    before = state(bzzz.lab)
    assert f"  {ollama.PROGRAM}\n" in before["files"] and "/models/blobs/sha256-" in before["files"]  # the hashes are there
    assert tiny["digest"] and "ActiveState=active" in before["service"]

    bzzz.setup("apply", "--only", "1", "--only", "2", "--only", "3", "--only", "4")
    found, problems = detected(bzzz, WITH)

    assert problems == [] and found == {
        "binary": ollama.PROGRAM,
        "unit": "ollama.service",
        "version": ollama.VERSION,
        "endpoint": LOCAL,
        "endpoints": [LOCAL],
        "listens_on": ["127.0.0.1"],
        "models": [
            {
                "name": "tiny:latest",
                "digest": tiny["digest"],
                "size_mib": tiny["size"] >> 20,
                "parameters": tiny["details"]["parameter_size"],
                "quantization": tiny["details"]["quantization_level"],
            }
        ],
    }
    assert tiny["size"] >> 20 == 3
    told = checks(bzzz)[WITH]
    assert {check["status"] for check in told.values()} == {"pass"}
    assert told["ollama-found"]["requirement"] == "3.3.3"
    assert told["ollama-found"]["seen"] == f"version {ollama.VERSION}, unit ollama.service, endpoint {LOCAL}, models tiny:latest"
    assert f'version = "{ollama.VERSION}"' in told[CHECK]["seen"]
    assert state(bzzz.lab) == before


def test_a_loaded_model_confuses_nobody(bzzz: Tools) -> None:
    """Its runner is a process named ollama, too, which listens on a port of its own; and it stays loaded."""
    said = ask(bzzz.lab, "/api/generate", model="tiny", prompt="hello", stream=False, options={"num_predict": 4})
    assert said["done"] and said["eval_count"] > 0
    chat = ask(bzzz.lab, "/api/chat", model="tiny", messages=[{"role": "user", "content": "hello"}], stream=False)
    assert chat["done"] and chat["message"]["role"] == "assistant"
    assert len(ask(bzzz.lab, "/api/embed", model="tiny", input="hello")["embeddings"][0]) == 256
    loaded = ask(bzzz.lab, "/api/ps")["models"]
    listeners = bzzz.document("detect")["nodes"][WITH]["bzzz_ports"]["listeners"]
    assert len([one for one in listeners if one["program"] == "ollama"]) == 2
    found, problems = detected(bzzz, WITH)
    assert found is not None and (found["endpoints"], problems) == ([LOCAL], [])
    assert [model["name"] for model in ask(bzzz.lab, "/api/ps")["models"]] == [model["name"] for model in loaded] == ["tiny:latest"]


@pytest.mark.requirement("3.3.3", part="a node without one")
def test_a_node_without_ollama_reports_none(bzzz: Tools) -> None:
    assert detected(bzzz, WITHOUT) == (None, [])
    assert {(check["status"], check["seen"]) for check in checks(bzzz)[WITHOUT].values()} == {("skip", "there is no Ollama on this node")}


@pytest.mark.requirement("3.3.3", part="another server on its port")
def test_another_server_on_its_port_is_no_ollama(bzzz: Tools) -> None:
    bzzz.lab.exec(WITHOUT, ["systemd-run", "--quiet", "--unit=other", "python3", "-m", "http.server", "11434"])
    try:
        assert detected(bzzz, WITHOUT) == (None, [])
    finally:
        bzzz.lab.exec(WITHOUT, ["systemctl", "stop", "other"])


@pytest.mark.requirement("3.3.3", part="one that is stopped")
def test_a_stopped_ollama_is_told_of_and_left_stopped(bzzz: Tools) -> None:
    bzzz.lab.exec(WITH, ["systemctl", "stop", "ollama"])
    try:
        before = state(bzzz.lab)
        found, problems = detected(bzzz, WITH)
        assert found is not None and (found["unit"], found["version"]) == ("ollama.service", ollama.VERSION)
        assert (found["endpoint"], found["endpoints"], found["models"]) == (None, [], [])
        assert len(problems) == 1 and "systemctl start ollama" in problems[0]["remedy"]
        told = checks(bzzz)[WITH][CHECK]
        assert told["status"] == "warn" and "refused" in told["seen"] and "systemctl start ollama.service" in told["remedy"]
        assert state(bzzz.lab) == before and "ActiveState=inactive" in before["service"]
    finally:
        bzzz.lab.exec(WITH, ["systemctl", "start", "ollama"])
        ollama.wait(bzzz.lab, WITH)


@pytest.fixture
def elsewhere(bzzz: Tools, request: pytest.FixtureRequest) -> Iterator[str]:
    """Ollama listens on this address instead, as its documentation says to do that: by a drop-in of its unit."""
    drop_in = f"{ollama.UNIT}.d/override.conf"
    bzzz.lab.exec(WITH, ["install", "-D", "/dev/stdin", drop_in], stdin=f'[Service]\nEnvironment="OLLAMA_HOST={request.param}"\n')
    _restart(bzzz.lab, request.param.replace("0.0.0.0", "127.0.0.1"))
    yield request.param
    bzzz.lab.exec(WITH, ["rm", "-r", f"{ollama.UNIT}.d"])
    _restart(bzzz.lab)


def _restart(lab: Lab, address: str = "127.0.0.1:11434") -> None:
    lab.exec(WITH, ["systemctl", "daemon-reload"])
    lab.exec(WITH, ["systemctl", "restart", "ollama"])
    ollama.wait(lab, WITH, address)


@pytest.mark.requirement("3.3.3", part="one that listens elsewhere")
@pytest.mark.parametrize("elsewhere", ["127.0.0.1:11500"], indirect=True)
def test_one_that_listens_elsewhere_is_found_by_its_listener(bzzz: Tools, elsewhere: str) -> None:
    before = state(bzzz.lab)
    found, problems = detected(bzzz, WITH)
    assert found is not None and problems == []
    assert (found["endpoints"], found["unit"], found["listens_on"]) == ([f"http://{elsewhere}"], "ollama.service", ["127.0.0.1"])
    assert [model["name"] for model in found["models"]] == ["tiny:latest"]
    assert checks(bzzz)[WITH][CHECK]["status"] == "pass"
    assert state(bzzz.lab) == before


@pytest.mark.requirement("F4", part="Ollama endpoints tested from each node")
@pytest.mark.parametrize("elsewhere", ["0.0.0.0:11600"], indirect=True)
def test_declared_endpoints_are_asked_by_each_node(bzzz: Tools, elsewhere: str) -> None:
    address = next(node.address for node in bzzz.lab.nodes if node.name == WITH)
    good, bad = f"http://{address}:11600/", f"http://{address}:11601"
    options = bzzz.folder / MAIN
    declared = yaml.safe_load(options.read_text(encoding="utf-8"))
    write(options, yaml.safe_dump({**declared, "ollama_endpoints": [good, bad]}))
    for told in checks(bzzz).values():
        assert told[f"ollama-endpoint-{good}"]["status"] == "pass"
        assert told[f"ollama-endpoint-{bad}"]["status"] == "warn" and bad in told[f"ollama-endpoint-{bad}"]["title"]
