# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From inventory variables to the effective declaration of a node, with everything that is wrong with them.

The roles' argument specs are the only place where options are declared. Ansible's own validator is too lenient for them
(`[1, 2]` passes as a string, `true` as a number) and prints wrong-typed secrets, so scalars and lists are read here;
dict options, with their dependent choices, go through it.
"""

from __future__ import annotations

import copy
import functools
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.validation import (
    check_type_bool,
    check_type_dict,
    check_type_float,
    check_type_int,
)

from .problems import Problem, nearest, problem
from .rules.ranges import unfit
from .rules.ssh import holds_private_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ROLES = Path(__file__).resolve().parents[2] / "roles"
MASK = "********"

Spec = dict[str, Any]
# role -> {"short_description", "description", "options": {full option name: spec}}
Specs = dict[str, dict[str, Any]]
# role -> option without the role's prefix -> value
Declared = dict[str, dict[str, Any]]


@functools.cache
def load_specs(roles: Path = ROLES) -> Specs:
    """The argument spec of every role (of its only entry point), by role. The result is shared: do not change it."""
    import yaml  # noqa: PLC0415 - controllers have it; a node that this file may be sent to need not

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found: Specs = {}
    for path in sorted(roles.glob("*/meta/argument_specs.yml")):
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)  # noqa: S506 - a safe loader
        (spec,) = content["argument_specs"].values()
        found[path.parent.parent.name] = {"options": {}, **spec}
    return found


def options_of(specs: Specs) -> dict[str, Spec]:
    """Every option by its full name."""
    return {name: spec for role in specs.values() for name, spec in role["options"].items()}


def unknown(specs: Specs, names: Iterable[str], node: str) -> list[Problem]:
    """Variables that look like options and are none: refused where a role's prefix claims them, else only pointed out."""
    known = options_of(specs)
    prefixes = tuple(f"{role}_" for role in specs)
    found = []
    for name in names:
        # Ansible's own variables; a dunder-like name is a role's internal one.
        if name in known or name.startswith(("ansible_", "_")):
            continue
        claimed = name.startswith(prefixes)
        if claimed:
            role, _line, rest = name.partition("_")
            own = specs[role]["options"]
            # The role's name, which all of them have, makes no two alike.
            like = nearest(rest, [one[len(role) + 1 :] for one in own])
            others = f"Write one of {', '.join(own)}" if own else "This role has no options"
            remedy = f"Write {role}_{like}." if like else f"{others}, or remove it; docs/options.md says what they are."
            found.append(problem(name, "There is no such option.", remedy, node=node))
            continue
        # Like an option, or one without its role, as cluster_name is; a single word could be anything.
        without = (one for one in known if "_" in name and one.endswith(f"_{name}"))
        if like := nearest(name, known, 0.9) or next(without, None):
            message = f"This is no option of the collection, but looks like {like}."
            found.append(problem(name, message, f"Write {like}, or choose a name that is less like it.", node=node, severity="warning"))
    return found


def declare(specs: Specs, given: Mapping[str, Callable[[], Any]], node: str) -> tuple[Declared, list[Problem]]:
    """The node's effective options, defaults filled in, secrets masked, and what is wrong with the ones given.

    `given` maps variables to functions that return their value or raise what kept it from being known (a template that
    fails). An option that is wrong counts as not given, so that the rules can judge the rest.
    """
    declared: Declared = {}
    problems: list[Problem] = []
    for role, description in specs.items():
        options = declared[role] = {}
        for name, spec in description["options"].items():
            value, found = _read(name, spec, given[name], node) if name in given else (None, None)
            option = name[len(role) + 1 :]
            if value is not None and spec.get("no_log") and (found := unfit(role, option, value, node)):
                value = None
            if found:
                problems.append(found)
            if value is None:
                value = copy.deepcopy(spec.get("default"))
                if spec.get("required") and value is None and not found:
                    message = f"This option is required: {_first(spec)}"
                    problems.append(problem(name, message, f"Set {name} in group_vars/bzzz/main.yml.", node=node))
            options[option] = masked(spec, value)
    return declared, problems


def masked(spec: Spec, value: Any) -> Any:
    """`value` without the secrets in it."""
    if value is None:
        return None
    if spec.get("no_log"):
        return MASK
    inner: dict[str, Spec] = spec.get("options", {})
    if inner and isinstance(value, list):
        return [masked({"options": inner}, entry) for entry in value]
    if inner and isinstance(value, dict):
        return {key: masked(inner.get(key, {}), entry) for key, entry in value.items()}
    return value


def _read(name: str, spec: Spec, value: Callable[[], Any], node: str) -> tuple[Any, Problem | None]:
    secret = _secret(spec)
    try:
        # Only plain data: Ansible's values carry tags, and a template may have made anything.
        raw = json.loads(json.dumps(value(), default=str))
    except Exception as error:
        # Whatever a template or a decryption throws, with no limit on kind. Its text may quote the value.
        why = "" if secret else f": {str(error).strip().rstrip('.')}"
        return None, problem(
            name,
            f"Its value cannot be worked out{why}.",
            "Correct the template, or the vault password. The declaration is read before any node is asked, so it cannot use facts.",
            node=node,
        )
    if raw is None:
        return None, None
    if not secret and holds_private_key(json.dumps(raw)):
        message = "This is a private key. It is not kept, but whoever could read the inventory has seen it."
        return None, problem(name, message, "Replace the key pair, and give the public key (the line in the .pub file).", node=node)
    try:
        return coerce(name, spec, raw), None
    except Misfit as misfit:
        return None, problem(name, str(misfit), misfit.remedy, value=None if secret else misfit.value, node=node)
    except ValueError as error:
        message = str(error)
        like = None
        if spec.get("choices") and isinstance(raw, str) and not secret:
            like = nearest(raw, [str(choice) for choice in spec["choices"]])
        remedy = f"Write {name}: {like}." if like else f"Set {name} to {_wanted(spec)}{_example(spec)}, or remove it."
        return None, problem(name, message, remedy, value=None if secret else raw, node=node)


class Misfit(ValueError):
    """An entry or field that does not fit its form. value: what is wrong, where it may be shown."""

    def __init__(self, message: str, remedy: str, value: Any) -> None:
        super().__init__(message)
        self.remedy, self.value = remedy, value


def _fit(spec: Spec, value: Any, before: str = "") -> None:
    """Raises Misfit for the first entry or field that is unknown, missing, or not what it must be: Ansible tells no remedy for these.

    before: what a message about a field begins with, which is where the value is.
    """
    options: dict[str, Spec] = spec.get("options", {})
    needed = [key for key, field in options.items() if field.get("required")]
    subject = before.removesuffix(": ") or "This"
    if spec.get("type") == "list":
        odd = [entry for entry in value if not isinstance(entry, dict)] if isinstance(value, list) else [value]
        if odd:
            what = "Each entry must be a dictionary" if isinstance(value, list) else f"{subject} must be a list of dictionaries"
            raise Misfit(f"{what}{_but(spec, odd[0])}.", f"Write [{_sample(spec, needed, odd[0])}, …].", value)
        for place, entry in enumerate(value, 1):
            called = entry.get(needed[0]) if needed and not options[needed[0]].get("no_log") else None
            _fit(
                {**spec, "type": "dict"}, entry, f"Entry {place} ({called}): " if called and isinstance(called, str) else f"Entry {place}: "
            )
        return
    try:
        entry = check_type_dict(value)  # it reads JSON and key=value, too
    except TypeError as error:
        raise Misfit(f"{subject} must be a dictionary{_but(spec, value)}.", f"Write {_sample(spec, needed, value)}.", value) from error
    for key, inner in entry.items() if options else ():
        if key not in options:
            like = nearest(str(key), options)
            missing = "".join(f" {one} is required." for one in needed if entry.get(one) is None)
            remedy = f"Write {like}." if like else f"Write one of {', '.join(options)}, or leave it out.{missing}"
            raise Misfit(f"{before}there is no {key}.", remedy, None)  # nobody knows whether its value is a secret
        field = options[key]
        if inner is None:
            continue
        if field.get("choices") and isinstance(inner, str) and inner not in field["choices"] and not field.get("no_log"):
            raise Misfit(f"{before}{key} cannot be {inner}.", f"Write one of {', '.join(map(str, field['choices']))}.", inner)
        if _nested(field):
            _fit(field, inner, f"{before}{key}: ")
            continue
        try:
            coerce(key, field, inner, f"{before}{key}")
        except ValueError as error:
            example = _example(field) or {"int": ", for example 5000", "float": ", for example 1.5", "str": ", in quotes"}.get(
                field.get("type", "str"), ""
            )
            raise Misfit(str(error), f"Write {_wanted(field)}{example}.", inner) from error
    for key in needed:
        if entry.get(key) is None:
            raise Misfit(f"{before}{key} is missing.", f"Set {key}.", None)


def _sample(spec: Spec, needed: list[str], given: Any) -> str:
    """How an entry is written, with the text that was given in place of one."""
    text = given.partition(",")[0].strip() if isinstance(given, str) and not _secret(spec) else ""
    options = spec.get("options", {})
    fields = dict.fromkeys(needed or [*options][:1] or ["name"], "…")
    if text and needed and options[needed[0]].get("type", "str") == "str":
        fields[needed[0]] = json.dumps(text, ensure_ascii=False)
    return f"{{{', '.join(f'{key}: {value}' for key, value in fields.items())}}}"


def _nested(spec: Spec) -> bool:
    return spec.get("type") == "dict" or spec.get("elements") == "dict"


def coerce(name: str, spec: Spec, value: Any, subject: str = "This") -> Any:
    """`value` in the option's type; ValueError says what it should be, and quotes no secret."""
    kind = spec.get("type", "str")
    if _nested(spec):
        return _coerce_dict(name, spec, value)
    if kind == "list":
        if isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
        elif isinstance(value, (int, float)):
            value = [value]
        if not isinstance(value, list):
            raise ValueError(f"{subject} must be {_wanted(spec)}{_but(spec, value)}.")
        at = "Entry" if subject == "This" else f"{subject}, entry"
        return [_scalar(spec, spec.get("elements", "str"), entry, f"{at} {place}") for place, entry in enumerate(value, 1)]
    return _scalar(spec, kind, value, subject)


def _scalar(spec: Spec, kind: str, value: Any, subject: str) -> Any:
    wrong = ValueError(f"{subject} must be {_wanted({**spec, 'type': kind})}{_but(spec, value)}.")
    choices = spec.get("choices")
    if isinstance(value, bool) and choices:
        # YAML reads a bare `off` as false. Where one choice only can have been meant, it was.
        meant = [choice for choice in choices if str(choice).lower() in (("on", "yes", "true") if value else ("off", "no", "false"))]
        value = meant[0] if len(meant) == 1 else value
    try:
        if isinstance(value, (list, dict)) or value is None:
            raise wrong
        if kind in ("str", "path"):
            if isinstance(value, bool):
                raise wrong
            if isinstance(value, float):
                raise ValueError(f"{subject} was read as a number, which may have lost digits; put it in quotes.")
            # White space around it would pass the rules, and then end a line in a configuration file. A secret's may be meant.
            result: Any = str(value) if spec.get("no_log") else str(value).strip()
        elif kind in ("int", "float"):
            if isinstance(value, bool):
                raise wrong
            result = check_type_int(value) if kind == "int" else check_type_float(value)
            if not math.isfinite(result):
                raise wrong
        elif kind == "bool":
            result = check_type_bool(value)
        else:
            result = value
    except (TypeError, OverflowError) as error:
        raise wrong from error
    if choices and result not in choices:
        raise wrong
    return result


def _coerce_dict(name: str, spec: Spec, value: Any) -> Any:
    _fit(spec, value)
    try:
        result = ArgumentSpecValidator({name: spec}).validate({name: value})
    except (TypeError, AttributeError) as error:  # it looks into what it has just found to be no dictionary
        raise ValueError(f"This must be {_wanted(spec)}{_but(spec, value)}.") from error
    if result.error_messages:
        raise ValueError("Its entries do not fit their form." if _secret(spec) else "; ".join(map(str, result.error_messages)))
    return result.validated_parameters[name]


def _secret(spec: Spec) -> bool:
    return bool(spec.get("no_log")) or any(_secret(inner) for inner in spec.get("options", {}).values())


def _but(spec: Spec, value: Any) -> str:
    """What was given, in words, without giving it away."""
    if spec.get("choices") and isinstance(value, str):
        return ""
    if isinstance(value, float) and not math.isfinite(value):
        return f", not {value}"
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "a dictionary"}
    return ", not empty" if value is None or value == "" else f", not {names.get(type(value), 'something else')}"


def _wanted(spec: Spec) -> str:
    if spec.get("choices"):
        return "one of " + ", ".join(map(str, spec["choices"]))
    if spec.get("type") == "list":
        return "a list of " + {"int": "whole numbers", "dict": "dictionaries", "path": "paths"}.get(spec.get("elements", "str"), "texts")
    names = {"int": "a whole number", "float": "a number", "bool": "true or false", "path": "a path", "dict": "a dictionary"}
    return names.get(spec.get("type", "str"), "text")


def _example(spec: Spec) -> str:
    default = spec.get("default")
    return "" if default in (None, [], "") or spec.get("choices") else f", for example {json.dumps(default)}"


def _first(spec: Spec) -> str:
    description = spec.get("description", "")
    return str(description[0] if isinstance(description, list) and description else description)
