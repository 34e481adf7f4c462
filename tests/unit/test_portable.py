# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A declaration as one file and back: the same declaration, without its secrets; and what it makes of nodes that nobody asks."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import sights
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bzzz_setup.declaration import HOSTS, KNOWN_HOSTS, MAIN, VAULT, Declaration, Unsafe, dump, load, write
from bzzz_setup.events import Refusal
from bzzz_setup.portable import declaration_of, document, text_of

CANARY = "c4nary-0f-a-secret"
EXAMPLE = Path(__file__).parents[2] / "inventories/example"

text = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=20)
# What a person typed, a template that an operator wrote, and what YAML could read as something else.
words = (
    text
    | text.map(Unsafe)
    | st.sampled_from(["{{ 1 + 1 }}", Unsafe("{{ lookup('pipe', 'id') }}"), "yes", "1e3", "0o7", "~", "null", "- a: b", "#"])
)
values = st.recursive(
    words | st.integers() | st.booleans() | st.none() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)
names = st.from_regex(r"[a-z][a-z0-9_-]{0,12}", fullmatch=True)
variables = st.dictionaries(names.map(lambda name: f"x_{name}") | st.sampled_from(["service_port", "ssh_public_keys"]), values, max_size=4)
hosts = st.dictionaries(names, variables | st.none(), max_size=3)


@st.composite
def inventories(draw: Any) -> dict[str, Any]:
    """Files of an inventory folder by path."""
    group = {"children": {name: {"hosts": draw(hosts), "vars": draw(variables)} for name in ("coordinators", draw(names))}}
    files = {HOSTS: {"bzzz": group}, MAIN: {**draw(variables), "declaration_cluster_name": "trial"}}
    files |= {f"host_vars/{name}.yml": draw(variables) for name in draw(st.sets(names, max_size=2))}
    files |= {f"group_vars/{name}/b.yml": draw(variables) for name in draw(st.sets(names, max_size=2))}
    files |= {f"group_vars/{name}/a.yaml": draw(variables) for name in draw(st.sets(names, max_size=1))}
    return files


@pytest.mark.requirement("T3", part="YAML: export and import are each other's inverse")
@settings(max_examples=30)
@given(inventories(), text)
@example({HOSTS: {"bzzz": {}}, MAIN: {"declaration_cluster_name": "trial"}}, "a\x85b")
def test_what_is_imported_is_what_was_exported(files: dict[str, Any], known_hosts: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        there, back = Path(folder, "there"), Path(folder, "back")
        for name, content in files.items():
            write(there / name, dump(content))
        write(there / KNOWN_HOSTS, known_hosts)
        first = document(there)
        exported = text_of(first, "trial")
        declaration, lost = declaration_of(exported, back)
        declaration.create()
        assert lost == {}
        # As text, since a tagged string equals one that is none.
        assert dump(document(back)) == dump(first)
        assert dump(load((back / MAIN).read_text())) == dump(files[MAIN]) or "group_vars/bzzz/b.yml" in files
        assert Declaration.read(back).hosts == Declaration.read(there).hosts


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An inventory with a secret in every place where one can be."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    options = {"declaration_cluster_name": "trial", "service_port": 9001, "ssh_key_passphrase": CANARY, "ansible_become_password": CANARY}
    hosts = {"bzzz": {"vars": {"ansible_ssh_pass": CANARY}, "children": {"coordinators": {"hosts": {"n1": {"ansible_password": CANARY}}}}}}
    Declaration(tmp_path / "inventory", hosts, options, "n1 ssh-ed25519 AAAA\n", {"service_token": CANARY * 3}).create()
    return tmp_path / "inventory"


@pytest.mark.requirement("T3", part="YAML: secrets stay where they are, and are named")
def test_no_secret_is_in_it_and_each_is_named(folder: Path) -> None:
    assert (folder / VAULT).read_text().startswith("$ANSIBLE_VAULT")
    (folder / "host_vars/n1.yml").write_text("service_token: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  6163\nother: [1]\n")
    exported = text_of(document(folder), "trial")
    assert CANARY not in exported and "$ANSIBLE_VAULT" not in exported
    found = yaml.safe_load(exported)
    assert found["secrets"] == {
        "group_vars/bzzz": {
            "auth_ldap_bind_password": "not set",
            "alerting_slack_url": "not set",
            "alerting_smtp_password": "not set",
            "alerting_webhook_token": "not set",
            "auth_oidc_client_secret": "not set",
            "downloads_proxy_credentials": "not set",
            "cost_database_url": "not set",
            "gateway_endpoint_keys": "not set",
            "openai_admin_key": "not set",
            "openai_api_key": "not set",
            "service_token": "set",
            "ssh_key_passphrase": "set",
            "tls_acme_dns_key": "not set",
            "tls_acme_eab_key": "not set",
            "tls_key_passphrase": "not set",
            "ansible_become_password": "set",
        },
        "host_vars/n1": {"service_token": "set"},
        "hosts/bzzz": {"ansible_ssh_pass": "set"},
        "hosts/n1": {"ansible_password": "set"},
    }
    assert found["group_vars"]["bzzz"]["service_port"] == 9001 and found["host_vars"]["n1"] == {"other": [1]}
    _, lost = declaration_of(exported, folder, {"service_token": "x", "ssh_key_passphrase": "y"})
    assert lost == {"group_vars/bzzz": {"ansible_become_password": "set"}, **{key: lost[key] for key in ("hosts/bzzz", "hosts/n1")}}


def test_a_vault_file_with_another_key_is_told_of(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config/bzzz/trial/vault-key").write_text("another\n")
    assert "(vault.yml, encrypted with another key)" in document(folder)["secrets"]["group_vars/bzzz"]


REFUSED = {
    "a list": ("- 1\n", "mapping"),
    "no YAML": ("a: [\n", "not YAML"),
    "something else": ("hosts: {}\n", "format 1"),
    "a later format": ("bzzz_declaration: 2\n", "format 1"),
    "a strange key": ("bzzz_declaration: 1\nhost: {}\n", "'host'"),
    "a way out": ("bzzz_declaration: 1\nhost_vars: {../../x: {a: 1}}\n", "no file's name"),
    "a hidden file": ("bzzz_declaration: 1\nhost_vars: {.x: {a: 1}}\n", "no file's name"),
    "hosts as list": ("bzzz_declaration: 1\nhosts: [n1]\n", "'hosts'"),
    "variables as text": ("bzzz_declaration: 1\ngroup_vars: {bzzz: x}\n", "'group_vars'"),
    "keys as list": ("bzzz_declaration: 1\nknown_hosts: [x]\n", "known_hosts"),
    "an object": ("bzzz_declaration: 1\nhosts: !!python/object/apply:os.system [id]\n", "not YAML"),
}


@pytest.mark.requirement("T4", part="an imported declaration")
@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_exported_declaration_is_refused(case: str, tmp_path: Path) -> None:
    content, message = REFUSED[case]
    with pytest.raises(Refusal, match=message) as refused:
        declaration_of(content, tmp_path / "new")
    assert refused.value.problems[0]["remedy"]


def front(*arguments: str, stdin: str = "", code: int = 0) -> str:
    done = subprocess.run([sys.executable, "-m", "bzzz_setup", *arguments], input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


@pytest.mark.requirement("T3", part="YAML: by the command line")
def test_the_command_line_takes_a_declaration_there_and_back(folder: Path, tmp_path: Path) -> None:
    printed = front("export", "yaml", "-i", str(folder))
    assert CANARY not in printed
    listed = json.loads(front("export", "yaml", "-i", str(folder), "-o", str(tmp_path / "out"), "--json"))
    assert Path(listed["file"]).read_text() == printed and listed["secrets"]["group_vars/bzzz"]["service_token"] == "set"
    assert "not empty" in front("export", "yaml", "-i", str(folder), "-o", str(tmp_path / "out"), code=2)
    told = front("import", listed["file"], "-i", str(tmp_path / "new"), "--secret", "service_token", stdin="t" * 40 + "\n")
    assert "ansible_become_password" in told and "service_token" not in told
    assert front("export", "yaml", "-i", str(tmp_path / "new")).split("secrets:")[0] == printed.split("secrets:")[0]
    assert (tmp_path / "new" / VAULT).read_text().startswith("$ANSIBLE_VAULT")
    assert "exists already" in front("import", "-", "-i", str(tmp_path / "new"), stdin=printed, code=2)


@pytest.mark.requirement("T3", part="files of nodes, without asking them")
def test_files_of_nodes_that_nobody_has_asked_yet(tmp_path: Path) -> None:
    found = json.loads(front("--json", "export", "systemd", "-i", str(EXAMPLE), "--node", "node1,gpu1"))
    files = {name: {item["path"]: item for item in node["files"]} for name, node in found["nodes"].items()}
    assert set(files) == {"node1", "gpu1"} and all(path.startswith("/etc/systemd/system/") for path in files["node1"])
    assert set(files["node1"]) - set(files["gpu1"]) == {"/etc/systemd/system/bzzz-etcd.service"}
    assert "ExecStart=" in files["gpu1"]["/etc/systemd/system/bzzz.service"]["content"]
    assert {"name": "bzzz.service", "enabled": True, "active": True} in found["nodes"]["node1"]["units"]
    # What only the nodes know is said, and how to learn it.
    (problem,) = found["problems"]
    assert found["facts"] is None and "firewall" in problem["message"] and "bzzz-setup detect" in problem["remedy"]
    front("export", "env", "-i", str(EXAMPLE), "--node", "gpu1", "-o", str(tmp_path / "out"))
    written = tmp_path / "out/gpu1/etc/bzzz/bzzz.env"
    assert written.read_text().splitlines()[1:] == ["BZZZ_LOG_LEVEL=info"] and written.stat().st_mode & 0o777 == 0o600


@pytest.mark.requirement("T3", part="Docker Compose: the options' words, and what only the node knows")
def test_a_compose_file_says_what_the_unit_says(folder: Path, tmp_path: Path) -> None:
    options = load((folder / MAIN).read_text())
    limits = {"resources_service_memory_max_mib": 700, "resources_service_cpu_quota_percent": 150, "resources_data_path": "/srv/own"}
    write(folder / MAIN, dump({**options, **limits, "service_mcp_port": 443}))
    write(folder / "host_vars/n1.yml", dump({"network_address": "192.0.2.1"}))

    def exported(**ids: int | None) -> tuple[str, Any]:
        seen = sights.machine(1)
        seen["bzzz_system"] |= {"ids": ids}
        sights.detected(folder, tmp_path / "state/bzzz/trial", {"n1": seen})
        told = json.loads(front("--json", "export", "compose", "-i", str(folder)))
        (file,) = told["nodes"]["n1"]["files"]
        assert (file["path"], file["mode"]) == ("/etc/bzzz/compose.yaml", "0644") and not told["problems"]
        return file["content"], yaml.safe_load(file["content"])["services"]["bzzz"]

    content, service = exported(user=998, group=997, tls_group=996)
    assert (service["user"], service["group_add"]) == ("998:997", ["996"])
    assert (service["mem_limit"], service["cpus"], service["pids_limit"]) == ("700m", 1.5, 256)
    assert service["image"] == "${BZZZ_IMAGE:-python:3.11-slim}" and "ip_unprivileged_port_start=443" in content
    assert service["working_dir"] == "/srv/own" and "${BZZZ_ROOT:-}/srv/own:/srv/own" in service["volumes"]
    assert "/run/bzzz-setup" in content, "n1 is a coordinator"
    # Where no run has seen it after it was set up, who starts it says the numbers.
    content, service = exported(user=None, group=None, tls_group=None)
    assert all(f"${{{name}:?" in content for name in ("BZZZ_UID", "BZZZ_GID", "BZZZ_TLS_GID"))


def test_a_declaration_that_is_wrong_is_refused_instead(tmp_path: Path) -> None:
    Declaration(tmp_path / "inventory", {"bzzz": {"hosts": {"n1": {}}}}, {"service_prot": 1}).create()
    assert "service_port" in front("export", "env", "-i", str(tmp_path / "inventory"), code=2)
    assert "no export of" in front("export", "toml", "-i", str(tmp_path / "inventory"), code=2)


def test_a_declaration_without_yaml_hosts_is_told(tmp_path: Path) -> None:
    (tmp_path / "hosts.ini").write_text("[bzzz]\nn1\n")
    assert "hosts.yml" in front("export", "yaml", "-i", str(tmp_path), code=2)
