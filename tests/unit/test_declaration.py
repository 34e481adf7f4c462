# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From variables to the effective declaration: coercion, names, secrets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.bzzz.cluster.plugins.module_utils.declaration import MASK, coerce, declare, load_specs, masked, options_of, unknown
from ansible_collections.bzzz.cluster.plugins.module_utils.problems import Problem, errors, merged, nearest, problem, readable
from declarations import about, cluster_of, declared_of, judge
from hypothesis import given, settings
from hypothesis import strategies as st

SPECS = load_specs()
OPTIONS = options_of(SPECS)


def read(**given: Any) -> tuple[dict[str, Any], list[Problem]]:
    return declare(SPECS, {name: (lambda value=value: value) for name, value in given.items()}, "n1")


@pytest.mark.requirement("L5", part="Ansible's validation")
def test_every_option_of_every_role_has_its_default() -> None:
    declared, problems = read()
    assert not problems
    assert set(declared) == {path.parent.parent.name for path in Path("roles").glob("*/meta/argument_specs.yml")}
    for name, spec in OPTIONS.items():
        role = name.partition("_")[0]
        assert declared[role][name[len(role) + 1 :]] == spec.get("default"), name


def test_options_are_named_after_their_role() -> None:
    for role, description in SPECS.items():
        assert all(name.startswith(f"{role}_") for name in description["options"])


def test_defaults_are_not_shared_between_nodes() -> None:
    first, _ = read()
    first["network"]["reserved_ports"].append("1-2")
    assert read()[0]["network"]["reserved_ports"] == []


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("validation_benchmark", "no", False),
        ("validation_benchmark", "Yes", True),
        ("validation_benchmark", 0, False),
        ("service_port", "9000", 9000),
        ("service_port", 9000.0, 9000),
        ("network_latency_max_ms", "2.5", 2.5),
        ("service_version", "1.10", "1.10"),
        ("service_version", 2, "2"),
        ("firewall_mode", False, "off"),
        ("network_reserved_ports", "6000, 6001-6100,", ["6000", "6001-6100"]),
        ("network_reserved_ports", 6000, ["6000"]),
        ("network_reserved_ports", [6000, "6001-6100"], ["6000", "6001-6100"]),
        ("resources_data_path", "~/data", "~/data"),
        ("firewall_ssh_sources", ["10.0.0.0/8\n", " fd00::/8"], ["10.0.0.0/8", "fd00::/8"]),
    ],
)
def test_values_are_coerced(name: str, given: Any, value: Any) -> None:
    role, _, option = name.partition("_")
    declared, problems = read(**{name: given})
    assert not problems
    assert declared[role][option] == value
    assert type(declared[role][option]) is type(value)


@pytest.mark.parametrize(
    ("name", "given", "says", "remedy"),
    [
        ("service_port", "abc", "whole number", "3000"),
        ("service_port", 80.5, "whole number", "8080"),
        ("service_port", True, "not true or false", "8080"),
        ("service_port", [8080], "not a list", "8080"),
        ("service_port", "", "not empty", "8080"),
        ("network_latency_max_ms", float("nan"), "must be a number", "50"),
        ("network_latency_max_ms", "inf", "must be a number", "50"),
        ("validation_benchmark", "maybe", "true or false", "true"),
        ("service_version", 1.10, "in quotes", "text"),
        ("service_version", ["1.0"], "not a list", "text"),
        ("service_version", {"a": 1}, "not a dictionary", "text"),
        ("firewall_mode", "atuo", "one of auto, manual, off", "firewall_mode: auto"),
        ("firewall_mode", True, "one of auto, manual, off", "auto, manual, off"),
        ("network_reserved_ports", {"a": 1}, "a list of texts", "a list"),
        ("network_reserved_ports", ["1", ["2"]], "Entry 2 must be text", "a list"),
        ("network_reserved_ports", ["1", None], "Entry 2 must be text", "a list"),
    ],
)
def test_wrong_values_are_refused_with_a_remedy(name: str, given: Any, says: str, remedy: str) -> None:
    if name == "service_port" and remedy == "3000":
        name = "service_mcp_port"
    declared, problems = read(**{name: given})
    (found,) = problems
    assert (found["option"], found["node"], found["severity"]) == (name, "n1", "error")
    assert says in found["message"]
    assert remedy in found["remedy"]
    role, _, option = name.partition("_")
    assert declared[role][option] == OPTIONS[name].get("default"), "the rules go on with the default"


def test_an_empty_value_is_one_not_given() -> None:
    declared, problems = read(service_port=None, service_version=None)
    assert not problems
    assert declared["service"]["port"] == 8080
    assert declared["service"]["version"] is None


@pytest.mark.requirement("L5", part="unknown and misspelt options")
@pytest.mark.parametrize(
    ("name", "like"),
    [
        ("service_prot", "service_port"),
        ("network_subnett", "network_subnet"),
        ("ssh_publik_keys", "ssh_public_keys"),
        ("service_mcpport", "service_mcp_port"),
    ],
)
def test_misspelt_options_are_refused_with_the_nearest_name(name: str, like: str) -> None:
    (found,) = unknown(SPECS, [name], "n1")
    assert found["severity"] == "error"
    assert found["remedy"] == f"Write {like}."


def test_names_that_are_nobodys_mistake_pass() -> None:
    own = [
        "ansible_ssh_args",
        "ansible_user",
        "inventory_hostname",
        "group_names",
        "groups",
        "__service_state",
        "my_network",
        "backup_port",
        "servicex",
        *OPTIONS,
    ]
    assert unknown(SPECS, own, "n1") == []


@pytest.mark.parametrize(("name", "like"), [("servce_port", "service_port"), ("cluster_name", "declaration_cluster_name")])
def test_a_name_that_only_looks_like_an_option_is_pointed_out(name: str, like: str) -> None:
    (found,) = unknown(SPECS, [name], "n1")
    assert found["severity"] == "warning"
    assert like in found["remedy"]


@pytest.mark.parametrize("name", ["cost_budget", "ollama_zzzzzzzzzzzzzzzzzzzz"])
def test_an_unknown_name_like_nothing_is_refused_all_the_same_with_its_roles_options(name: str) -> None:
    (found,) = unknown(SPECS, [name], "n1")
    role = name.partition("_")[0]
    assert found["severity"] == "error"
    assert f"Write one of {', '.join(SPECS[role]['options'])}, or remove it" in found["remedy"]


@pytest.mark.parametrize(
    ("name", "given", "says", "remedy", "value"),
    [
        (
            "models_wanted",
            [{"name": "qwen3:8b", "size_mib": "5 GB"}],
            "Entry 1 (qwen3:8b): size_mib must be a whole number, not text.",
            "Write a whole number, for example 5000.",
            "5 GB",
        ),
        (
            "models_wanted",
            [{"name": "a"}, {"name": "b", "context": "8k"}],
            "Entry 2 (b): context must be a whole number, not text.",
            "Write a whole number, for example 4096.",
            "8k",
        ),
        (
            "gateway_models",
            [{"name": "a", "input_usd_per_million": "1,5"}],
            "Entry 1 (a): input_usd_per_million must be a number, not text.",
            "Write a number, for example 1.5.",
            "1,5",
        ),
        ("models_wanted", [{"name": "a", "split": 7}], "Entry 1 (a): split must be true or false, not a number.", "Write true or false", 7),
        (
            "models_wanted",
            [{"name": "a", "nodes": ["b", None]}],
            "Entry 1 (a): nodes, entry 2 must be text, not empty.",
            "Write a list of texts.",
            ["b", None],
        ),
        ("models_wanted", [{"name": 0.11}], "Entry 1: name was read as a number", "Write text, in quotes.", 0.11),
        (
            "models_wanted",
            [{"name": "a", "geometry": {"layers": "many"}}],
            "Entry 1 (a): geometry: layers must be a whole number, not text.",
            "Write a whole number, for example 5000.",
            "many",
        ),
        (
            "models_wanted",
            [{"name": "a", "geometry": "8k"}],
            "Entry 1 (a): geometry must be a dictionary, not text.",
            "Write {layers: …, embedding: …, heads: …, heads_kv: …}.",
            "8k",
        ),
        (
            "gateway_models",
            [{"name": "a", "parameters": [1]}],
            "Entry 1 (a): parameters must be a dictionary, not a list.",
            "Write {name: …}.",
            [1],
        ),
        (
            "models_wanted",
            ["qwen3:8b", "llama3.2:3b"],
            "Each entry must be a dictionary, not text.",
            'Write [{name: "qwen3:8b"}, …].',
            ["qwen3:8b", "llama3.2:3b"],
        ),
        (
            "models_wanted",
            "qwen3:8b, llama3.2:3b",
            "This must be a list of dictionaries, not text.",
            'Write [{name: "qwen3:8b"}, …].',
            "qwen3:8b, llama3.2:3b",
        ),
        (
            "models_wanted",
            {"name": "a"},
            "This must be a list of dictionaries, not a dictionary.",
            "Write [{name: …}, …].",
            {"name": "a"},
        ),
        ("models_wanted", [{"model": "qwen3:8b"}], "Entry 1: there is no model.", "name is required.", None),
        ("gateway_tasks", [1], "This must be a dictionary, not a list.", "Write {name: …}.", [1]),
        ("gateway_tasks", "fast", "This must be a dictionary, not text.", "Write {name: …}.", "fast"),
    ],
)
def test_a_field_that_does_not_fit_is_told_with_its_entry_its_value_and_what_to_write(
    name: str, given: Any, says: str, remedy: str, value: Any
) -> None:
    (found,) = read(**{name: given})[1]
    assert says in found["message"] and remedy in found["remedy"]
    assert found["value"] == value
    assert "nodes." not in found["remedy"]


SECRETS = [name for name, spec in OPTIONS.items() if spec.get("no_log")]


@pytest.mark.parametrize("name", SECRETS)
def test_secrets_are_masked(name: str) -> None:
    role, _, option = name.partition("_")
    forms = {"cost_database_url": "postgresql://user:{}@db/ledger", "alerting_slack_url": "https://hooks.example.com/{}"}
    declared, problems = read(**{name: forms.get(name, "user:{}").format("CANARY" * 6)})
    assert declared[role][option] == MASK and not problems
    assert "CANARY" not in json.dumps([declared, problems])
    assert read()[0][role][option] is None


@pytest.mark.parametrize("token", ["", "CANARY", "CANARY".ljust(31, "x"), "  " + "CANARY".ljust(31, "x") + "  "])
def test_a_short_token_is_refused_and_never_shown(token: str) -> None:
    declared, problems = read(service_token=token)
    (found,) = errors(problems)
    assert (found["option"], found["value"], found["node"]) == ("service_token", None, "n1")
    assert "fewer than 32" in found["message"] and "openssl rand" in found["remedy"] and "vault file" in found["remedy"]
    assert "CANARY" not in json.dumps([declared, problems]) and declared["service"]["token"] is None
    assert read(service_token="CANARY".ljust(32, "x"))[1] == []


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("value", [["CANARY"], {"CANARY": 1}, True, 1.5, {"a": ["CANARY"]}])
def test_a_wrong_typed_secret_is_refused_and_never_shown(name: str, value: Any) -> None:
    declared, problems = read(**{name: value})
    (found,) = problems
    assert (found["option"], found["value"]) == (name, None)
    assert "CANARY" not in json.dumps([declared, problems])


def test_a_secret_whose_template_fails_is_not_quoted() -> None:
    def fails() -> str:
        raise ValueError("CANARY")

    declared, problems = declare(SPECS, {"service_token": fails, "service_version": fails}, "n1")
    by_name = {found["option"]: found for found in problems}
    assert "CANARY" not in json.dumps([declared, by_name["service_token"]])
    assert "CANARY" in by_name["service_version"]["message"]
    assert "facts" in by_name["service_version"]["remedy"]


@pytest.mark.requirement("2.1.2", part="a private key is refused")
@pytest.mark.parametrize(
    "value",
    [
        "-----BEGIN OPENSSH PRIVATE KEY-----\nCANARY\n-----END OPENSSH PRIVATE KEY-----",
        "-----BEGIN RSA PRIVATE KEY----- CANARY",
        "b3BlbnNzaC1rZXktdjEAAAAACANARY",
        "PuTTY-User-Key-File-3: ssh-ed25519 CANARY",
    ],
)
@pytest.mark.parametrize("name", ["ssh_public_keys", "ssh_key_file", "ollama_endpoints", "service_version"])
def test_a_private_key_is_refused_wherever_it_is_pasted(name: str, value: str) -> None:
    given = [value] if OPTIONS[name]["type"] == "list" else value
    problems = judge({name: given})
    assert [found["value"] for found in about(problems, name)] == [None] * 3
    assert "private key" in about(problems, name)[0]["message"]
    declared, _ = declared_of(cluster_of(), {name: given})
    assert "CANARY" not in json.dumps([problems, declared])


NESTED = {
    "type": "dict",
    "options": {
        "kind": {"type": "str", "choices": ["file", "http"], "default": "file"},
        "url": {"type": "str"},
        "password": {"type": "str", "no_log": True},
    },
    "required_if": [("kind", "http", ["url"])],
}


def test_dependent_choices_go_through_ansibles_validator() -> None:
    assert coerce("x_store", NESTED, {"kind": "http", "url": "u"})["url"] == "u"
    with pytest.raises(ValueError, match="do not fit") as caught:
        coerce("x_store", NESTED, {"kind": "http", "password": "CANARY"})
    assert "CANARY" not in str(caught.value)
    open_spec = {**NESTED, "options": {key: spec for key, spec in NESTED["options"].items() if key != "password"}}  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="url"):
        coerce("x_store", open_spec, {"kind": "http"})
    with pytest.raises(ValueError, match="other"):
        coerce("x_store", open_spec, {"other": 1})


def test_secrets_inside_of_options_are_masked() -> None:
    value = {"kind": "http", "password": "CANARY", "url": None}
    assert masked(NESTED, value) == {"kind": "http", "password": MASK, "url": None}
    assert masked({**NESTED, "type": "list", "elements": "dict"}, [value])[0]["password"] == MASK


def test_a_required_option_is_asked_for_once() -> None:
    specs = {"x": {"short_description": "", "options": {"x_name": {"type": "str", "required": True, "description": ["Its name."]}}}}
    (found,) = declare(specs, {}, "n1")[1]
    assert found["option"] == "x_name"
    (wrong,) = declare(specs, {"x_name": lambda: [1]}, "n1")[1]
    assert "not a list" in wrong["message"]


def test_the_same_problem_on_several_nodes_is_told_once() -> None:
    found = [problem("a", "m", "r", node=node, value=1) for node in ("n1", "n2", "n3")]
    warned = problem("b", "m", "r", severity="warning")
    assert [one["node"] for one in merged([warned, *found], ["n1", "n2", "n3"])] == [None, None]
    assert [one["option"] for one in merged([warned, *found], ["n1", "n2", "n3"])] == ["a", "b"], "errors first"
    assert [one["node"] for one in merged(found[:2], ["n1", "n2", "n3"])] == ["n1, n2"]
    assert [one["node"] for one in merged(found[:1], ["n1"])] == ["n1"]
    assert found[0]["node"] == "n1", "what was given is left as it is"
    assert errors(merged([warned, *found], [])) == [{**found[0], "node": "n1, n2, n3"}]


def test_problems_read_well() -> None:
    assert readable([problem("service_port", "Too high.", "Set it lower.", value=70000, node="n1")]) == (
        "error: service_port = 70000 (n1): Too high. Remedy: Set it lower."
    )
    assert nearest("", ["a"]) is None


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=30)
    | st.sampled_from(["10.0.0.5/24", "443/tcp", "ssh-ed25519 AAAA", "/srv"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.requirement("L7", part="declaration")
@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(OPTIONS)), anything, max_size=12), st.integers(0, 4), st.integers(0, 4))
def test_any_declaration_is_judged_and_every_problem_has_option_and_remedy(given: dict[str, Any], count: int, heads: int) -> None:
    cluster = cluster_of(count, coordinators=min(heads, count))
    problems = judge(given, cluster)
    known = {*OPTIONS, "bzzz", "coordinators", "inventory_hostname", "ansible_port"}
    for found in problems:
        assert found["option"] in known
        assert found["message"].strip() and found["remedy"].strip()
        assert found["severity"] in ("error", "warning")
    json.dumps(problems)
    assert readable(merged(problems, [node["name"] for node in cluster["nodes"]])).count("\n") < 400


@pytest.mark.requirement("L7", part="declaration")
@settings(max_examples=10, deadline=None)
@given(
    st.text(st.characters(exclude_categories=("Cs",)), max_size=30)
    | st.sampled_from(
        ["", " ", "~", "/", "..", "-", "{{ 1/0 }}", "x\ny", "\0", "²", "9" * 5000, "a" * 5000, "::/0", "1-0", "65536", "%s", "nan"]
    )
)
def test_any_text_for_any_option_alone_is_judged(text: str) -> None:
    for option in sorted(OPTIONS):
        for value in (text, [text]):
            for found in judge({option: value}):
                assert found["message"].strip() and found["remedy"].strip() and found["option"] in {*OPTIONS, "ansible_port"}, option
                json.dumps(found)
