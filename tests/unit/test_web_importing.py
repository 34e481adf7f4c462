# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Declarations that come as one file: into the draft, into an inventory folder of their own, and straight to the machines."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
from front import Front
from starlette.testclient import TestClient

from bzzz_setup import init, portable
from bzzz_setup.declaration import HOSTS, KNOWN_HOSTS, MAIN, VAULT, Declaration, dump, load
from bzzz_setup.events import Refusal
from bzzz_setup.web import command, importing
from bzzz_setup.web.app import build
from bzzz_setup.web.draft import Conflict, Draft
from bzzz_setup.web.shapes import API

EXAMPLE = Path(__file__).parents[2] / "inventories/example"
MAIN_TEXT = "# ours\ndeclaration_cluster_name: trial  # the name\nservice_port: 8080\nansible_connection: local\n"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPPm"


@pytest.fixture
def front(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Front:
    front = Front(tmp_path)
    (front.inventory / HOSTS).write_text(dump(init.hosts({"n1": "192.0.2.1", "n2": "192.0.2.2"}, ["n1"], {})))
    interpreter = load((front.inventory / MAIN).read_text())["ansible_python_interpreter"]
    (front.inventory / MAIN).write_text(f"{MAIN_TEXT}ansible_python_interpreter: {interpreter}\n")
    for name, value in front.environment.items():
        monkeypatch.setenv(name, value)
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    return front


@pytest.fixture
def draft(front: Front, tmp_path: Path) -> Draft:
    return Draft(front.inventory, tmp_path / "draft/draft.json")


def exported(folder: Path) -> dict[str, Any]:
    return load(portable.text_of(portable.document(folder), "trial"))


@pytest.mark.requirement("T3", part="YAML: what is exported changes nothing where it is taken in, and what differs becomes the draft's")
def test_what_differs_becomes_the_drafts_and_nothing_else(front: Front, draft: Draft) -> None:
    found = exported(front.inventory)
    assert importing.take(draft, dump(found), 0, "anna", {}) == importing.Taken([], [], [])
    assert draft.changes == {}
    main = found["group_vars"]["bzzz"]
    del main["service_port"]
    main |= {"service_mcp_port": 3001, "network_domain": "{{ domain }}", "ansible_user": "root"}
    found["hosts"]["bzzz"]["hosts"]["n3"] = {"ansible_host": "192.0.2.3"}
    found["hosts"]["bzzz"]["children"]["workers"]["hosts"]["n3"] = {}
    for where in ("hosts", "children"):
        for content in (found["hosts"]["bzzz"], *found["hosts"]["bzzz"]["children"].values()):
            content.get(where if where == "hosts" else "nothing", {}).pop("n2", None)
    found["host_vars"] = {"n1": {"network_address": "192.0.2.77"}}
    found["group_vars"]["racks"] = {"place": "cellar"}
    found["known_hosts"] = f"192.0.2.3 {KEY}\n192.0.2.1 {KEY}\n"
    found["secrets"]["group_vars/bzzz"]["auth_ldap_bind_password"] = "set"
    taken = importing.take(draft, dump(found), draft.revision, "anna", {})
    assert taken.secrets_missing == ["auth_ldap_bind_password"]
    assert set(taken.left) == {"options/network_domain", "options/ansible_user", "group_vars/racks.yml"}
    assert {path: change.value for path, change in draft.changes.items()} == {
        "options/service_port": None,
        "options/service_mcp_port": 3001,
        "nodes/n1/network_address": "192.0.2.77",
        "nodes/n2": None,
        "nodes/n3": {"address": "192.0.2.3", "port": 22, "groups": ["workers"]},
        f"{KNOWN_HOSTS}/192.0.2.3": f"192.0.2.3 {KEY}",
    }
    draft.publish()
    text = (front.inventory / MAIN).read_text()
    assert "# ours" in text and "# the name" in text and "service_mcp_port: 3001" in text and "service_port" not in text.splitlines()[2]


@pytest.mark.requirement("T3", part="YAML: another cluster's is not taken for this one's, and nobody's newer value is lost")
def test_what_does_not_fit_is_refused(front: Front, draft: Draft) -> None:
    found = exported(front.inventory)
    other = {**found, "group_vars": {"bzzz": {**found["group_vars"]["bzzz"], "declaration_cluster_name": "other"}}}
    with pytest.raises(Refusal, match="of cluster other, and here is trial"):
        importing.take(draft, dump(other), 0, "anna", {})
    draft.change(0, {"options/service_port": 9090}, "bert")
    found["group_vars"]["bzzz"]["service_port"] = 9091
    with pytest.raises(Conflict):
        importing.take(draft, dump(found), 0, "anna", {})
    assert draft.changes["options/service_port"].value == 9090


@pytest.mark.requirement("T2", "T3", part="export, import, and the check of what only Ansible can tell, over HTTP")
def test_over_http_it_goes_out_and_comes_in(front: Front, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The collection itself makes the files.
    monkeypatch.delenv("ANSIBLE_COLLECTIONS_PATH")
    folder = tmp_path / "example"
    shutil.copytree(EXAMPLE, folder)
    wizard = command._wizard(folder)
    with TestClient(build(wizard, frozenset({"testserver"}))) as client:
        client.headers["Origin"] = "http://testserver"
        body = {"token": wizard.claim.token, "name": "anna", "password": "correct horse battery"}
        assert client.post(f"{API}/claim", json=body).status_code == 201
        base = client.patch(f"{API}/draft", json={"base": 0, "changes": {"options/service_log_level": "debug"}}).json()["revision"]
        assert client.post(f"{API}/check").json() == {"problems": []}
        shared = "{{ 3000 }}"  # only Ansible can tell that it is another option's
        (folder / MAIN).write_text((folder / MAIN).read_text() + f"service_port: '{shared}'\n")
        (found, *_) = client.post(f"{API}/check").json()["problems"]
        assert "3000" in found["message"] and found["remedy"] and found["step"] == 6
        (folder / MAIN).write_text((folder / MAIN).read_text().replace(f"service_port: '{shared}'\n", ""))
        files = client.get(f"{API}/export?kind=env")
        assert files.headers["content-type"] == "application/zip", files.text
        with zipfile.ZipFile(io.BytesIO(files.content)) as archive:
            names = {name for name in archive.namelist() if not name.endswith(".json")}
            assert "gpu1/etc/bzzz/bzzz.env" in names and not any(name.endswith(".service") for name in names)
            assert b"BZZZ_LOG_LEVEL=debug" in archive.read("gpu1/etc/bzzz/bzzz.env"), "of the draft, not of the folder"
        text = client.get(f"{API}/export").text
        assert client.delete(f"{API}/draft?base={base}").json()["changed"] == {}
        back = client.post(f"{API}/import", json={"base": base + 1, "declaration": text})
        assert back.status_code == 200, back.text
        assert back.json() == {"changed": ["options/service_log_level"], "left": [], "secrets_missing": []}
        assert client.get(f"{API}/draft").json()["options"]["service_log_level"] == "debug"
        wrong = client.post(f"{API}/import", json={"base": base + 2, "declaration": "a: b"})
        assert wrong.status_code == 422 and wrong.json()["problems"][0]["remedy"]
    assert wizard.gate.directory
    wizard.gate.directory.stop()


def web(front: Front, folder: Path, file: Path, *more: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        front.command("web", "--answers", str(file), "-i", str(folder), *more),
        env=front.environment,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.requirement("T1", part="an answer file instead of a browser")
def test_an_answer_file_does_it_without_a_browser(front: Front, tmp_path: Path) -> None:
    found, file, folder = exported(front.inventory), tmp_path / "answers.yml", tmp_path / "fresh"
    main = found["group_vars"]["bzzz"]
    main["service_port"] = 3000  # which is another option's
    file.write_text(dump(found))
    wrong = web(front, folder, file, "--json")
    assert wrong.returncode == 2 and not folder.exists(), wrong.stderr
    assert "Port 3000" in wrong.stdout and not (front.state / "runs").exists()
    main["service_port"] = 9090
    file.write_text(dump(found))
    done = web(front, folder, file, "--json", "--secret", "auth_ldap_bind_password", stdin="s3cr3t-canary\n")
    assert done.returncode == 0, done.stderr
    assert front.ran(json.loads(done.stdout)) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert "service_port: 9090" in (folder / MAIN).read_text() and "s3cr3t-canary" not in (folder / VAULT).read_text() + done.stdout
    assert "auth_ldap_bind_password" in Declaration.read(folder).secrets_set()
    # Again, what has changed in the file changes in the folder, where somebody has written a comment, and nothing else does.
    (folder / MAIN).write_text("# kept\n" + (folder / MAIN).read_text().removeprefix("---\n"))
    before = (folder / MAIN).read_text()
    main["service_port"] = 9091
    file.write_text(dump(found))
    assert web(front, folder, file).returncode == 0
    assert (folder / MAIN).read_text() == before.replace("9090", "9091")
    refused = web(front, folder, tmp_path / "none.yml")
    assert refused.returncode == 2 and "none.yml cannot be read" in " ".join(refused.stderr.split())


@pytest.mark.requirement("T1", part="an answer file does not step over what somebody has typed")
def test_an_answer_file_leaves_what_is_typed_alone(front: Front, tmp_path: Path) -> None:
    command._draft(front.inventory).change(0, {"options/service_port": 9090}, "anna")
    file = tmp_path / "answers.yml"
    file.write_text(dump(exported(front.inventory)))
    done = web(front, front.inventory, file)
    assert done.returncode == 2 and "anna has typed" in " ".join(done.stderr.split())
    assert command._draft(front.inventory).changes
