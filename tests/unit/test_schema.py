# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is generated from argument specs is complete, valid and up to date."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ansible_collections.bzzz.cluster.plugins.module_utils.declaration import load_specs, options_of
from ansible_collections.bzzz.cluster.plugins.module_utils.problems import errors
from declarations import cluster_of, judge

from bzzz_setup import schema

SPECS = load_specs()
OPTIONS = options_of(SPECS)
VALIDATOR = jsonschema.Draft202012Validator(schema.json_schema())


@pytest.mark.requirement("L5", part="forms")
def test_the_schema_is_valid_and_has_every_option() -> None:
    VALIDATOR.check_schema(VALIDATOR.schema)
    properties = {name: entry for role in VALIDATOR.schema["$defs"].values() for name, entry in role["properties"].items()}
    assert set(properties) == set(OPTIONS)
    for name, entry in properties.items():
        assert entry["description"], name
        assert entry.get("default") == OPTIONS[name].get("default"), name
        assert entry.get("writeOnly", False) == bool(OPTIONS[name].get("no_log")), name
    assert next(iter(VALIDATOR.schema["$defs"])) == "declaration"
    assert list(VALIDATOR.schema["$defs"])[-1] == "validation", "in the order of the steps"


@pytest.mark.requirement("L5", part="forms")
@pytest.mark.parametrize(
    ("option", "good", "bad"),
    [
        ("service_port", 8443, 0),
        ("service_port", 65535, 65536),
        ("service_port", 80, "80"),
        ("firewall_mode", "off", "of"),
        ("validation_benchmark", False, "no"),
        ("network_reserved_ports", ["6000-6100"], "6000-6100"),
        ("network_latency_max_ms", 0.5, 0),
        ("service_token", "x" * 32, 1),
        ("service_token", "x" * 32, "x" * 31),
        ("gateway_tasks", {"coding": "gpt-5"}, {"coding": ["gpt-5"]}),
        ("gateway_fallbacks", {}, {"gpt-5": "local"}),
        ("gateway_endpoints", [{"name": "a", "url": "http://a/v1"}], [{"name": "a"}]),
        ("gateway_models", [{"name": "a", "parameters": {"n": 0.2, "stop": ["y"]}}], [{"name": "a", "parameters": 1}]),
        ("cost_all", {}, {"year_usd": 1}),
        ("cost_projects", {}, {"search": {"user_shares": {"anna": "half"}}}),
    ],
)
def test_the_schema_says_what_the_declaration_says(option: str, good: object, bad: object) -> None:
    assert VALIDATOR.is_valid({option: good, "my_own": 1})
    assert not VALIDATOR.is_valid({option: bad})
    assert not errors(judge({option: good}, cluster_of(1)))


def test_all_defaults_together_are_valid() -> None:
    VALIDATOR.validate({name: spec["default"] for name, spec in OPTIONS.items() if spec.get("default") is not None})


@pytest.mark.requirement("L5", part="generated files")
def test_defaults_files_hold_the_defaults_and_name_the_others() -> None:
    for role, description in SPECS.items():
        text = schema.defaults(role, description)
        expected = {name: spec["default"] for name, spec in description["options"].items() if spec.get("default") is not None}
        assert (yaml.safe_load(text) or {}) == expected
        assert all(f"{name}:" in text for name in description["options"])
        assert max(map(len, text.splitlines())) <= 120


@pytest.mark.requirement("L5", part="docs")
def test_the_reference_has_a_row_for_every_option() -> None:
    text = schema.reference(SPECS)
    assert all(f"| `{name}` |" in text for name in OPTIONS)
    assert all(row.replace("\\|", "").count("|") == 5 for row in text.splitlines() if row.startswith("| `"))


@pytest.mark.requirement("L5", part="generated files")
def test_the_check_command_notices_a_stale_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for role in SPECS:
        target = tmp_path / "roles" / role / "meta" / "argument_specs.yml"
        target.parent.mkdir(parents=True)
        target.write_text((schema.CHECKOUT / "roles" / role / "meta" / "argument_specs.yml").read_text())
    files = schema.generated(tmp_path)
    monkeypatch.setattr(schema, "CHECKOUT", tmp_path)
    monkeypatch.setattr(schema, "generated", lambda: dict(files))
    assert schema.main(["--check"]) == 1
    assert "not up to date: docs/options.md" in capsys.readouterr().out
    assert schema.main(["--write"]) == 0
    assert (tmp_path / "build" / "schema.json").exists()
    assert schema.main(["--check"]) == 0
    (tmp_path / "roles" / "ssh" / "defaults" / "main.yml").write_text("ssh_user: somebody\n")
    assert schema.main(["--check"]) == 1


@pytest.mark.requirement("L5", part="generated files")
def test_the_checkout_is_up_to_date() -> None:
    assert schema.main(["--check"]) == 0


def test_no_secret_is_a_part_of_an_option_that_is_none() -> None:
    """Forms, drafts and exports tell secrets by their option: one within it would be shown, and written where others read."""

    def hides(spec: dict[str, Any]) -> bool:
        return any(inner.get("no_log") or hides(inner) for inner in spec.get("options", {}).values())

    assert [name for name, spec in options_of(load_specs()).items() if hides(dict(spec)) and not spec.get("no_log")] == []
