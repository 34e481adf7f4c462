# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is generated from the roles' argument specs: defaults, the JSON Schema of a declaration, the reference of options.

`python -m bzzz_setup.schema --write` writes all of it, `--check` exits with 1 where a file in the checkout is not up to date.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.bzzz.cluster.plugins.module_utils.declaration import Spec, Specs, load_specs
from ansible_collections.bzzz.cluster.plugins.module_utils.rules.ranges import FORMS, LENGTHS, limits

CHECKOUT = Path(__file__).resolve().parent.parent
GENERATED = "Generated from argument specs by `python -m bzzz_setup.schema --write`; do not edit."
_TYPES = {"str": "string", "path": "string", "int": "integer", "float": "number", "bool": "boolean", "list": "array", "dict": "object"}
_AMOUNTS: Spec = {
    "day_usd": {"type": "float", "description": "Most that a day may cost, in dollars."},
    "month_usd": {"type": "float", "description": "Most that a month may cost, in dollars."},
}
_PROJECTS: Spec = {
    "description": "Part of each project, in percent.",
    "names": "project",
    "type": "dict",
    "each": {"type": "float"},
    "values": "percent",
}
_USERS: Spec = {
    "description": "Part of each user, in percent.",
    "names": "user",
    "type": "dict",
    "each": {"type": "float"},
    "values": "percent",
}
# Dicts of which an argument spec can tell no more: what their names are, and what each value is. The rules judge them.
DICTS: dict[tuple[str, str], Spec] = {
    ("openai", "projects"): {"names": "project", "values": "OpenAI's project", "each": {"type": "str"}},
    ("gateway", "tasks"): {"names": "task", "values": "model", "each": {"type": "str"}},
    ("gateway", "fallbacks"): {"names": "model", "values": "models to try", "each": {"type": "list", "elements": "str"}},
    ("gateway", "members"): {"names": "user", "values": "projects", "each": {"type": "list", "elements": "str"}},
    ("gateway", "parameters"): {"names": "parameter", "values": "value", "each": {"type": "raw"}},
    ("cost", "all"): {"options": {**_AMOUNTS, "project_shares": _PROJECTS, "user_shares": _USERS}},
    ("cost", "projects"): {"names": "project", "values": "", "each": {"type": "dict", "options": {**_AMOUNTS, "user_shares": _USERS}}},
    ("cost", "users"): {"names": "user", "values": "", "each": {"type": "dict", "options": _AMOUNTS}},
}
_STEPS = re.compile(r"Step (\d+)")


def json_schema(specs: Specs | None = None) -> dict[str, Any]:
    """JSON Schema of a declaration (the variables of group bzzz), with one definition per role for a form's sections.

    Variables that no role declares are the operator's own and pass.
    """
    roles = _in_order(specs or load_specs())
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$comment": GENERATED,
        "title": "Declaration of a BZZZ cluster",
        "allOf": [{"$ref": f"#/$defs/{role}"} for role in roles],
        "$defs": {
            role: {
                "type": "object",
                "title": plain(description["short_description"]),
                "description": _text(description),
                "properties": {name: _property(role, name, spec) for name, spec in description["options"].items()},
                "required": [name for name, spec in description["options"].items() if spec.get("required")],
            }
            for role, description in roles.items()
        },
    }


def _property(role: str, name: str, spec: Spec) -> dict[str, Any]:
    spec = {**spec, **DICTS.get((role, name.removeprefix(f"{role}_")), {})}
    kind = spec.get("type", "str")
    found: dict[str, Any] = {"type": _TYPES[kind], "description": _text(spec)} if kind != "raw" else {"description": _text(spec)}
    if spec.get("default") is not None:
        found["default"] = spec["default"]
    if spec.get("choices"):
        found["enum"] = spec["choices"]
    if spec.get("no_log"):
        found.update(format="password", writeOnly=True)
    if kind == "list":
        found["items"] = {"type": _TYPES[spec.get("elements", "str")]}
        if "enum" in found:
            found["items"]["enum"] = found.pop("enum")
    bounds = limits(role, name.removeprefix(f"{role}_"))
    if bounds:
        found["minimum"] = bounds[0]
        if bounds[1] is not None:
            found["maximum"] = bounds[1]
    if (role, name.removeprefix(f"{role}_")) in LENGTHS:
        found["minLength"] = LENGTHS[role, name.removeprefix(f"{role}_")][0]
    if (role, name.removeprefix(f"{role}_")) in FORMS:
        found["pattern"] = f"^{FORMS[role, name.removeprefix(f'{role}_')][0].pattern}$"
    if spec.get("options"):
        inner = {
            "type": "object",
            "properties": {key: _property(role, key, entry) for key, entry in spec["options"].items()},
            "required": [key for key, entry in spec["options"].items() if entry.get("required")],
            "additionalProperties": False,
        }
        found.update({"items": inner} if kind == "list" else inner)
    if "each" in spec:
        found["propertyNames"] = {"title": spec["names"].capitalize()}
        found["additionalProperties"] = {**_property(role, "", spec["each"]), "title": spec["values"][:1].upper() + spec["values"][1:]}
    return found


def defaults(role: str, description: dict[str, Any]) -> str:
    """Text of `roles/<role>/defaults/main.yml`; options without a default are named in comments."""
    lines = ["---", f"# {GENERATED}", "# For readers, and for use of the role alone: the roles themselves read `declared`."]
    for name, spec in description["options"].items():
        lines += ["", *textwrap.wrap(plain(_text(spec)), 118, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)]
        default = spec.get("default")
        # JSON is YAML too, and keeps a list on its line.
        text = json.dumps(default) if isinstance(default, (list, dict)) else yaml.safe_dump(default, width=1000).split("\n")[0]
        lines.append(f"# {name}:" if default is None else f"{name}: {text}")
    return "\n".join(lines) + "\n"


def reference(specs: Specs) -> str:
    """Text of `docs/options.md`."""
    lines = ["# Options", "", f"<!-- {GENERATED} -->", ""]
    lines += ["Set them in `group_vars/bzzz/main.yml` of the inventory folder, or per node in `host_vars/<node>.yml`."]
    lines += ["Secrets belong into `group_vars/bzzz/vault.yml`, where `bzzz-setup secret OPTION` puts them."]
    lines += ["`option[].field` is a field of each entry of a list."]
    for role, description in _in_order(specs).items():
        lines += ["", f"## {role}", "", f"**{description['short_description']}.** {_text(description)}", ""]
        lines += ["| option | type | default | meaning |", "|---|---|---|---|"]
        lines += [row for name, spec in description["options"].items() for row in _rows(role, name, spec)]
    return "\n".join(lines) + "\n"


def _rows(role: str, name: str, spec: Spec) -> list[str]:
    """An option's row, and one for each field that it, or an entry of it, has."""
    within = f"{name}[]." if spec.get("type") == "list" else f"{name}."
    fields = spec.get("options", {}).items()
    return [_row(role, name, spec), *(row for key, inner in fields for row in _rows(role, f"{within}{key}", inner))]


def _row(role: str, name: str, spec: Spec) -> str:
    kind = spec.get("type", "str")
    kind = f"list of {spec.get('elements', 'str')}" if kind == "list" else kind
    if spec.get("choices"):
        kind = "one of " + ", ".join(f"`{choice}`" for choice in spec["choices"])
    bounds = limits(role, name.removeprefix(f"{role}_"))
    if bounds:
        kind += f", {bounds[0]:g} to {bounds[1]:g}" if bounds[1] is not None else f", from {bounds[0]:g}"
    kind += ", secret" if spec.get("no_log") else ""
    default = "required" if spec.get("required") else "" if spec.get("default") is None else f"`{json.dumps(spec['default'])}`"
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in (f"`{name}`", kind, default, _text(spec))) + " |"


def _in_order(specs: Specs) -> Specs:
    """Roles by step, those of no step first."""

    def step(role: str) -> tuple[int, str]:
        found = _STEPS.match(specs[role]["short_description"])
        return (int(found[1]) if found else 0, role)

    return {role: specs[role] for role in sorted(specs, key=step)}


def _text(spec: Spec) -> str:
    """A description as Markdown: C(x), V(x) and the like become `x`."""
    description = spec.get("description", [])
    joined = " ".join([description] if isinstance(description, str) else description)
    return re.sub(r"\b[BCIOVM]\(([^)]*)\)", r"`\1`", joined)


def plain(text: str) -> str:
    """Markdown's quoting taken away."""
    return text.replace("`", "")


def generated(checkout: Path = CHECKOUT) -> dict[Path, str]:
    """Every generated file that is kept in the checkout, with the text it should have."""
    specs = load_specs(checkout / "roles")
    files = {checkout / "roles" / role / "defaults" / "main.yml": defaults(role, description) for role, description in specs.items()}
    files[checkout / "docs" / "options.md"] = reference(specs)
    return files


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bzzz_setup.schema", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", action="store_true", help="write the generated files, and build/schema.json")
    what.add_argument("--check", action="store_true", help="exit with 1 where a generated file is not up to date")
    chosen = parser.parse_args(arguments)
    files = generated()
    if chosen.write:
        files[CHECKOUT / "build" / "schema.json"] = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    stale = [path for path, text in files.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        if chosen.write:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files[path], encoding="utf-8")
        print(f"{'written' if chosen.write else 'not up to date'}: {path.relative_to(CHECKOUT)}")
    if chosen.check and stale:
        print("Remedy: python -m bzzz_setup.schema --write")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
