# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Compile a template once a run.

Ansible compiles it anew wherever it is named, in a process of its own for each task and node: a third of what a run costs the
admin host when nothing is to be changed. What is kept is Jinja's code, never a result; others see it as little as the run's other
temporary files, with which it goes. The idea is that of https://github.com/ansible/ansible/pull/82224.
"""

from __future__ import annotations

import contextlib
import hashlib
import marshal
import os
from pathlib import Path
from types import CodeType
from typing import Any

from ansible import constants
from jinja2 import Environment, nodes

# What a template's text means depends on these alone: Ansible's environments are else alike.
SETTINGS = (
    "block_start_string",
    "block_end_string",
    "variable_start_string",
    "variable_end_string",
    "comment_start_string",
    "comment_end_string",
    "line_statement_prefix",
    "line_comment_prefix",
    "trim_blocks",
    "lstrip_blocks",
    "newline_sequence",
    "keep_trailing_newline",
)


def keep() -> None:
    """Have Ansible's templates compiled once. Where Ansible has moved what this needs, or does it itself, nothing is done."""
    try:
        from ansible._internal._templating import _jinja_bits as internal  # noqa: PLC0415 - may be elsewhere

        environment, escaping = internal.AnsibleEnvironment, internal._TemplateCompileContext.current
    except (ImportError, AttributeError):
        return
    if "compile" in vars(environment):
        return
    known: dict[str, CodeType] = {}
    folder = Path(constants.DEFAULT_LOCAL_TMP) / "templates"

    def compile_once(self: Environment, source: str | nodes.Template, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(source, str) or args or kwargs or self._debuggable_template_source:  # type: ignore[attr-defined]
            return Environment.compile(self, source, *args, **kwargs)
        context = escaping(optional=True)
        meaning = (bool(context and context.escape_backslashes), *(getattr(self, name) for name in SETTINGS), str(source))
        key = hashlib.sha256(repr(meaning).encode()).hexdigest()
        if key not in known:
            with contextlib.suppress(OSError, EOFError, ValueError, TypeError):
                known[key] = marshal.loads((folder / key).read_bytes())  # noqa: S302 - ours alone
        if key not in known:
            known[key] = Environment.compile(self, source)
            with contextlib.suppress(OSError):  # a full disk costs time only
                folder.mkdir(mode=0o700, exist_ok=True)
                part = folder / f"{key}.{os.getpid()}"
                part.write_bytes(marshal.dumps(known[key]))
                part.replace(folder / key)
        return known[key]

    environment.compile = compile_once
