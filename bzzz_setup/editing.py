# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Changes of single values in an operator's own YAML files: comments, order and everything else stay as they are."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, TaggedScalar
from ruamel.yaml.error import YAMLError

from bzzz_setup.declaration import Unsafe, Vaulted, typed
from bzzz_setup.events import Refusal

REMOVED = None
Path = tuple[str, ...]


def edited(text: str, changes: Mapping[Path, Any], file: object = "the file") -> str:
    """The text of a YAML mapping with other values at these paths; REMOVED takes a key away, and mappings on the way are made.

    What is given is data that a person typed, never a template. Raises Refusal where the text is no mapping.
    """
    yaml = YAML()
    yaml.width, yaml.preserve_quotes, yaml.explicit_start = 1000, True, text.lstrip().startswith("---") or not text.strip()
    try:
        found = yaml.load(text)
    except YAMLError as error:
        raise Refusal(f"{file} is not YAML: {error}", "Correct the file at the place named.") from error
    document = CommentedMap() if found is None else found
    if not isinstance(document, dict):
        raise Refusal(f"{file} is to be a mapping of names to values", "Correct the file.")
    for path, value in changes.items():
        _set(document, path, value, file)
    if not document:
        return "---\n"
    out = io.StringIO()
    yaml.dump(document, out)
    return out.getvalue()


def _set(document: Any, path: Path, value: Any, file: object) -> None:
    *way, last = path
    for key in way:
        if document.get(key) is None:
            if value is REMOVED:
                return
            document[key] = CommentedMap()
        document = document[key]
        if not isinstance(document, dict):
            raise Refusal(f"{file}: '{key}' is to be a mapping of names to values", "Correct the file.")
    if value is REMOVED:
        document.pop(last, None)
    else:
        document[last] = _written(typed(value))


def _written(value: Any) -> Any:
    if isinstance(value, dict):
        return CommentedMap({key: _written(inner) for key, inner in value.items()})
    if isinstance(value, list):
        return [_written(inner) for inner in value]
    if isinstance(value, (Unsafe, Vaulted)):
        tag, style = ("!unsafe", '"') if isinstance(value, Unsafe) else ("!vault", "|")
        return TaggedScalar(str(value), style=style, tag=tag)
    return value
