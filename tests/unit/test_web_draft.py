# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is typed in a browser and not applied yet: kept, shown, never lost, and put into the operator's own files."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from bzzz_setup import init
from bzzz_setup.declaration import HOSTS, MAIN, VAULT, Declaration, Unsafe, decrypted, dump, load, write
from bzzz_setup.events import Refusal
from bzzz_setup.web import form
from bzzz_setup.web.draft import Conflict, Draft

CANARY = "c4nary-0f-a-secret"
NODES = {"node1": "192.0.2.1", "node2": "192.0.2.2", "node3": "192.0.2.3"}


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "inventory"
    options = init.options("lab", "root", None, [], passphrase=False)
    Declaration(
        folder, init.hosts(NODES, ["node1"], {"192.0.2.3": 2222}), options, "192.0.2.1 ssh-ed25519 AAAA\n", {"service_token": "t" * 40}
    ).create()
    main = folder / MAIN
    main.write_text(main.read_text() + "# A note of ours.\nservice_log_level: warn\n")
    return folder


@pytest.fixture
def draft(source: Path, tmp_path: Path) -> Draft:
    return Draft(source, tmp_path / "state/draft.json")


@pytest.mark.requirement("T1", part="the draft: what is typed stands beside the inventory until it is applied")
def test_what_is_typed_is_shown_and_kept_and_reaches_no_file_before_it_is_applied(draft: Draft, source: Path) -> None:
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    assert draft.view()["nodes"]["node3"] == {"address": "192.0.2.3", "port": 2222, "groups": ["workers"], "options": {}}
    draft.change(0, {"options/service_port": 9090, "nodes/node2/network_address": "192.0.2.22"}, "user:anna")
    draft.change(1, {"options/service_log_level": None, "options/firewall_open_ports": ["443/tcp"]}, "user:anna")
    again = Draft(source, draft.file)  # another process, later
    view = again.view()
    assert view == draft.view() and view["revision"] == 2
    assert view["options"] == {"declaration_cluster_name": "lab", "service_port": 9090, "firewall_open_ports": ["443/tcp"]}
    assert view["nodes"]["node2"]["options"] == {"network_address": "192.0.2.22"}
    assert {path: path.read_bytes() for path in source.rglob("*") if path.is_file()} == before
    with again.folder() as folder:
        assert folder != source and load((folder / MAIN).read_text())["service_port"] == 9090
        assert load((folder / "host_vars/node2.yml").read_text()) == {"network_address": "192.0.2.22"}
    assert not folder.exists()
    assert again.publish() == [MAIN, "host_vars/node2.yml"]
    text = (source / MAIN).read_text()
    assert "# A note of ours." in text and "service_log_level" not in text and load(text)["service_port"] == 9090
    assert again.view()["changed"] == {} and again.files() == {}
    (kept,) = draft.file.with_name("replaced").iterdir()
    assert (kept / MAIN).read_bytes() == before[source / MAIN]


@pytest.mark.requirement("T1", part="two browsers at once: the last writer is told")
def test_who_has_not_seen_a_change_does_not_overwrite_it(draft: Draft) -> None:
    draft.change(0, {"options/service_port": 9090}, "user:anna")
    assert draft.change(0, {"options/service_mcp_port": 3001}, "user:bert") == 2  # something else: both stand
    with pytest.raises(Conflict) as conflict:
        draft.change(0, {"options/service_port": 9191, "options/service_web_port": 9191}, "user:bert")
    assert [(path, change.by, change.value) for path, change in conflict.value.changes.items()] == [
        ("options/service_port", "user:anna", 9090)
    ]
    assert draft.view()["options"]["service_port"] == 9090 and "service_web_port" not in draft.view()["options"]
    draft.change(0, {"options/service_port": 9090}, "user:bert")  # the same value is no quarrel
    draft.change(draft.revision, {"options/service_port": 9191}, "user:bert")
    assert draft.view()["options"]["service_port"] == 9191
    draft.discard()
    assert draft.view()["changed"] == {}


@pytest.mark.requirement("T2", part="secrets are stored encrypted and never returned")
def test_a_secret_goes_in_and_never_comes_out(draft: Draft, source: Path) -> None:
    assert draft.view()["secrets"]["service_token"] and not draft.view()["secrets"]["tls_key_passphrase"]
    draft.change(0, {"secrets/tls_key_passphrase": CANARY, "secrets/service_token": None}, "user:anna")
    view = draft.view()
    assert view["secrets"]["tls_key_passphrase"] and not view["secrets"]["service_token"]
    assert CANARY not in str(view) and CANARY not in draft.file.read_text()
    assert stat.S_IMODE(draft.file.stat().st_mode) == 0o600
    with draft.folder() as folder:
        assert not any(CANARY in path.read_text() for path in folder.rglob("*") if path.is_file())
    draft.publish()
    assert stat.S_IMODE((source / VAULT).stat().st_mode) == 0o600
    assert decrypted((source / VAULT).read_text(), "lab") == {"tls_key_passphrase": CANARY}


def test_a_secret_is_taken_away_wherever_an_operator_keeps_it(draft: Draft, source: Path) -> None:
    main = source / MAIN
    main.write_text(f"{main.read_text()}alerting_webhook_token: plain\n")
    draft.change(draft.revision, {"secrets/alerting_slack_url": "https://hooks.example.com/x"}, "anna")
    assert draft.view()["secrets"]["alerting_webhook_token"] and draft.view()["secrets"]["alerting_slack_url"]
    draft.change(draft.revision, {"secrets/alerting_webhook_token": None, "secrets/alerting_slack_url": None}, "anna")
    # The one that was thought better of is no change.
    assert list(draft.view()["changed"]) == ["secrets/alerting_webhook_token"]
    draft.publish()
    assert "plain" not in main.read_text() and not draft.view()["secrets"]["alerting_webhook_token"]
    with pytest.raises(Refusal, match="not an incoming webhook"):
        draft.change(draft.revision, {"secrets/alerting_slack_url": "nonsense"}, "anna")
    assert draft.changes == {}


def test_machines_come_and_go(draft: Draft, source: Path) -> None:
    added = {"address": "192.0.2.4", "port": 2200, "groups": ["coordinators", "storage"]}
    draft.change(0, {"nodes/node4": added, "nodes/node2": None, "known_hosts.txt/192.0.2.4": "192.0.2.4 ssh-ed25519 BBBB"}, "user:anna")
    nodes = draft.view()["nodes"]
    assert list(nodes) == ["node1", "node3", "node4"] and nodes["node4"] == {**added, "options": {}}
    draft.publish()
    hosts = load((source / HOSTS).read_text())["bzzz"]
    assert hosts["hosts"]["node4"] == {"ansible_host": "192.0.2.4", "ansible_port": 2200} and "node2" not in hosts["hosts"]
    assert {group: list(found["hosts"]) for group, found in hosts["children"].items()} == {
        "coordinators": ["node1", "node4"],
        "workers": ["node1", "node3"],
        "storage": ["node4"],
    }
    assert (source / "known_hosts.txt").read_text().endswith("192.0.2.4 ssh-ed25519 BBBB\n")
    assert draft.view()["nodes"] == nodes


def test_machines_are_found_wherever_an_operator_has_put_them(draft: Draft, source: Path) -> None:
    groups = {
        "workers": {"hosts": {"w1": {"ansible_host": "192.0.2.8", "network_interface": "eth1"}, "c1": {"ansible_host": "192.0.2.9"}}},
        "coordinators": {"hosts": {"c1": None}},
        "rack": {"children": {"left": {"hosts": {"w1": {"ansible_port": 2022}}}}},
    }
    (source / HOSTS).write_text(dump({"bzzz": {"children": groups}}))
    assert draft.view()["nodes"] == {
        "w1": {"address": "192.0.2.8", "port": 2022, "groups": ["workers"], "options": {"network_interface": "eth1"}},
        "c1": {"address": "192.0.2.9", "port": 22, "groups": ["coordinators", "workers"], "options": {}},
    }
    changed = {"address": "192.0.2.10", "port": 22, "groups": ["workers"]}
    draft.change(0, {"nodes/w1": None, "nodes/c1": changed}, "user:anna")
    draft.publish()
    assert draft.view()["nodes"] == {"c1": {**changed, "options": {}}}


@pytest.mark.requirement("T1", part="every typed value is stored as data")
def test_what_is_typed_is_no_template_and_a_template_of_the_operators_is_told(draft: Draft, source: Path) -> None:
    (source / MAIN).write_text((source / MAIN).read_text() + 'service_version: "{{ wanted }}"\n')
    draft.change(0, {"options/network_interface": "{{ lookup('pipe', 'id') }}"}, "user:anna")
    view = draft.view()
    assert view["templates"] == ["options/service_version"]
    assert [one["option"] for one in form.judged(view)["problems"]] == ["network_interface"]
    draft.publish()
    assert isinstance(load((source / MAIN).read_text())["network_interface"], Unsafe)
    draft.change(draft.revision, {"secrets/service_token": "a{{ 1 + 1 }}b-and-more-than-that"}, "user:anna")
    draft.publish()
    secrets = decrypted((source / VAULT).read_text(), draft.declaration().cluster)
    assert secrets and isinstance(secrets["service_token"], Unsafe) and secrets["service_token"] == "a{{ 1 + 1 }}b-and-more-than-that"


def test_what_other_files_of_the_folder_set_is_told(draft: Draft, source: Path) -> None:
    hosts = load((source / HOSTS).read_text())
    hosts["bzzz"].setdefault("children", {})["special"] = {"hosts": {}, "vars": {"service_port": 8090, "ansible_user": "anna"}}
    write(source / HOSTS, dump(hosts))
    write(source / "group_vars/workers.yml", "service_log_level: warn\nservice_token: hidden-from-everybody\n")
    write(source / "group_vars/broken.yml", "a: [")
    write(source / "host_vars/node1/ports.yaml", "service_port: 8091\n")
    view = draft.view()
    assert view["elsewhere"] == {
        "service_port": [{"file": HOSTS, "value": 8090}, {"file": "host_vars/node1/ports.yaml", "value": 8091}],
        "service_log_level": [{"file": "group_vars/workers.yml", "value": "warn"}],
        "service_token": [{"file": "group_vars/workers.yml", "value": None}],
    }


@pytest.mark.parametrize(
    "path",
    [
        "options/no_such",
        "options/service_token",
        "secrets/service_port",
        "nodes/",
        "nodes/node1/no_such",
        "elsewhere/x",
        "options",
        "",
        "known_hosts.txt/",
        "known_hosts.txt/192.0.2.9",
        "nodes/..",
        "nodes/a b",
    ],
)
def test_a_path_that_leads_nowhere_is_refused(draft: Draft, path: str) -> None:
    with pytest.raises(Refusal) as refused:
        draft.change(0, {path: 1}, "user:anna")
    assert refused.value.problems[0]["remedy"] and draft.revision == 0


@pytest.mark.requirement("2.1.2", part="a private key given to the wizard is refused and never stored")
def test_a_private_key_is_refused_and_not_kept(draft: Draft) -> None:
    draft.change(0, {"options/service_port": 9090}, "user:anna")
    for path, value in (
        ("options/ssh_public_keys", ["ssh-ed25519 AAAA anna", "-----BEGIN OPENSSH PRIVATE KEY-----", f"b3BlbnNzaC1rZXktdjE{CANARY}"]),
        ("options/ssh_public_keys", ["\0".join(f"-----BEGIN PRIVATE KEY-----{CANARY}")]),  # UTF-16, read as another text
        ("nodes/node2/network_address", f"-----BEGIN RSA PRIVATE KEY-----\n{CANARY}"),
    ):
        with pytest.raises(Refusal, match="this is a private key") as refused:
            draft.change(1, {path: value, "options/service_log_level": "warn"}, "user:anna")
        assert refused.value.problems[0]["option"] == path.rpartition("/")[2] and CANARY not in repr(refused.value.problems)
    assert draft.revision == 1 and CANARY not in draft.file.read_text()


@pytest.mark.requirement("T1", "1.2.6", part="problems are told as one types, with the step to mend them in")
def test_rules_judge_what_is_typed(draft: Draft) -> None:
    assert form.judged(draft.view())["problems"] == []
    draft.change(
        0, {"options/service_port": 3000, "options/network_subnet": "10.0.0.0/33", "options/service_log_level": "loud"}, "user:anna"
    )
    found = {one["option"]: one for one in form.judged(draft.view())["problems"]}
    assert {option: one["step"] for option, one in found.items()} == {"network_subnet": 2, "service_log_level": 6, "service_mcp_port": 6}
    assert "3000 is also service_port" in found["service_mcp_port"]["message"] and all(one["remedy"] for one in found.values())


@pytest.mark.requirement("L5", part="the wizard's forms")
def test_every_option_of_every_role_is_in_the_form() -> None:
    from ansible_collections.bzzz.cluster.plugins.module_utils.declaration import load_specs

    steps = form.form()["steps"]
    assert [step["number"] for step in steps] == list(range(1, 9))
    shown = {option for step in steps for role in step["roles"] for option in role["schema"]["properties"]}
    assert shown == {option for role in load_specs().values() for option in role["options"]}
    assert all(set(role["essential"]) <= set(role["schema"]["properties"]) for step in steps for role in step["roles"])
    assert [step["slug"] for step in steps if any(role["name"] == "tls" for role in step["roles"])] == ["security"]


@pytest.mark.requirement("T1", part="of a step, what others build upon comes first")
def test_the_form_begins_with_what_others_build_upon() -> None:
    names = {step["number"]: [role["name"] for role in step["roles"]] for step in form.form()["steps"]}
    assert names[1] == ["declaration", "detection"]
    assert names[4] == ["ollama", "models", "openai", "gateway", "cost"]
    assert names[2][0] == "network" and names[6][0] == "service"
    of = {role["name"]: role["essential"] for step in form.form()["steps"] for role in step["roles"]}
    assert "openai_api_key" in of["openai"] and {"gateway_models", "gateway_endpoints", "gateway_endpoint_keys"} <= set(of["gateway"])
