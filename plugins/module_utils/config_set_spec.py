# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The arguments of ``config_set``, shared by its action and its module."""

from __future__ import annotations

from typing import Any


def _list(**options: Any) -> dict[str, Any]:
    return {"type": "list", "elements": "dict", "default": [], "options": options}


def _words() -> dict[str, Any]:
    return {"type": "list", "elements": "str", "default": []}


_PATH = {"type": "path", "required": True}
_NAME = {"type": "str", "required": True}
_ARGV = {"type": "list", "elements": "str", "required": True}
_OWNER = {
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str", "default": "root"},
}

ARGUMENTS: dict[str, Any] = {
    "name": _NAME,
    "packages": _words(),
    "groups": _words(),
    "users": _list(
        name=_NAME,
        groups=_words(),
        system={"type": "bool", "default": False},
        home={"type": "path"},
        create_home={"type": "bool", "default": False},
        shell={"type": "path"},
        comment={"type": "str", "default": ""},
    ),
    "directories": _list(path=_PATH, mode={"type": "str", "default": "0755"}, notify=_words(), **_OWNER),
    "archives": _list(
        path=_PATH,
        within={"type": "str", "default": ""},
        src={"type": "path"},
        sha256={"type": "str", "required": True},
        uploaded={"type": "path"},
        keep={"type": "int", "default": 0},
        notify=_words(),
    ),
    "files": _list(
        path=_PATH,
        content={"type": "str", "required": True},
        sha256={"type": "str"},
        mode={"type": "str", "default": "0644"},
        notify=_words(),
        **_OWNER,
    ),
    "links": _list(path=_PATH, target={"type": "str", "required": True}, notify=_words()),
    "absent": _list(path=_PATH, notify=_words()),
    "validators": _list(argv=_ARGV),
    "commands": _list(name=_NAME, argv=_ARGV),
    "loaded": _list(name=_NAME, query=_ARGV, apply=_ARGV, undo=_ARGV),
    "units": _list(name=_NAME, enabled={"type": "bool"}, active={"type": "bool"}),
    "secrets": {"type": "dict", "default": {}, "no_log": True},
    "keep": {"type": "int", "default": 5},
    "one_at_a_time": {"type": "bool", "default": False},
    "revert_seconds": {"type": "int", "default": 0},
    "change": {"type": "str"},
}
