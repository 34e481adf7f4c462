# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Do once a run what Ansible does anew in a process of its own for each task and node: a third of what a run costs the admin
host when nothing is to be changed.

- A template is compiled once. What is kept is Jinja's code, never a result; others see it as little as the run's other temporary
  files, with which it goes. The idea is that of https://github.com/ansible/ansible/pull/82224.
- Jinja's own filters and tests, which Ansible looks for among its plugins first, are looked for once.
- Variables that are templates are worked out once a task, not for each template that names them: `settle`.
- A process that ends with its task does not collect garbage, which would copy the memory that it shares with the first.

Beside that, each node gets variables of its own: ansible-core 2.21 gives all nodes the same ones where a task with `run_once` sets the
first, and what is found out about one node is then taken for all (https://github.com/ansible/ansible/issues/87148).

Where Ansible has moved what this needs, or does it itself, nothing is done.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import hashlib
import marshal
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import CodeType
from typing import Any

from ansible import constants
from ansible.plugins.action import ActionBase
from jinja2 import Environment, nodes

# Seconds between two looks whether a task has ended, Ansible's and ours; a thousand looks a second are work of their own.
ANSIBLES_POLL, POLL = 0.001, 0.004
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


@functools.cache
def keep() -> None:
    """To be called in the first process, before it begins others."""
    with contextlib.suppress(ImportError, AttributeError):
        _templates()
    with contextlib.suppress(ImportError, AttributeError):
        _names()
    with contextlib.suppress(ImportError, AttributeError):
        _variables()
    with contextlib.suppress(ImportError, AttributeError):
        _own()
    gc.freeze()
    os.register_at_fork(after_in_child=gc.disable)
    if getattr(constants, "DEFAULT_INTERNAL_POLL_INTERVAL", None) == ANSIBLES_POLL:
        constants.DEFAULT_INTERNAL_POLL_INTERVAL = POLL


def _templates() -> None:
    from ansible._internal._templating import _jinja_bits as internal  # noqa: PLC0415 - may be elsewhere

    environment, escaping = internal.AnsibleEnvironment, internal._TemplateCompileContext.current
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


def _names() -> None:
    from ansible._internal._templating import _jinja_bits as internal  # noqa: PLC0415 - may be elsewhere
    from ansible._internal._templating._jinja_plugins import JinjaPluginIntercept as Names  # noqa: PLC0415

    of_jinja: dict[str, set[str]] = {}
    environment = internal.AnsibleEnvironment()
    for names in (environment.filters, environment.tests):
        loader = names._plugin_loader
        with contextlib.suppress(KeyError):
            loader.get("length")  # has it load all that have no collection's name
        of_jinja[loader.type] = set(names._jinja_builtins) - set(loader._cached_non_collection_wrappers)
    looked_for = Names.__getitem__

    def known(self: Names, name: str) -> Callable[..., Any]:
        if name in of_jinja[self._plugin_loader.type] and name not in self._wrapped_funcs:
            self._wrap_and_set_func(self._jinja_builtins[name])
        return looked_for(self, name)

    Names.__getitem__ = known


def _variables() -> None:
    from ansible._internal._templating import _jinja_bits as internal  # noqa: PLC0415 - may be elsewhere

    layers = internal._flatten_and_lazify_vars

    def with_settled(mapping: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        variables, lazy = SETTLED.get(id(mapping), (None, None))
        return iter([lazy]) if lazy is not None and variables is mapping else layers(mapping)

    internal._flatten_and_lazify_vars = with_settled


def _own() -> None:
    from ansible.vars.manager import VariableManager  # noqa: PLC0415 - may be elsewhere

    def copied(given: Callable[..., Any]) -> Callable[..., Any]:
        return lambda self, host, facts: given(self, host, facts.copy() if isinstance(facts, dict) else facts)

    for name in ("set_host_facts", "set_nonpersistent_facts"):
        setattr(VariableManager, name, copied(getattr(VariableManager, name)))


# id -> (variables, the same as Ansible works them out, each at first need)
SETTLED: dict[int, tuple[Mapping[str, Any], Mapping[str, Any]]] = {}


def settle(templar: Any) -> Any:
    """`templar`, which works out each of its variables once, not anew for each template that names it. They must stay as they are."""
    with contextlib.suppress(ImportError, AttributeError, TypeError):
        from ansible._internal._templating._engine import TemplateContext, TemplateOptions  # noqa: PLC0415 - may be elsewhere
        from ansible._internal._templating._lazy_containers import _AnsibleLazyTemplateMixin as Lazy  # noqa: PLC0415

        engine = getattr(templar, "_engine", templar)
        variables = engine.available_variables
        with TemplateContext(template_value=None, templar=engine, options=TemplateOptions.DEFAULT):
            SETTLED[id(variables)] = variables, Lazy._try_create(variables)
    return templar


class Settled(ActionBase):
    """An action whose arguments are worked out with settled variables, where Ansible offers that (2.19 and later do)."""

    @classmethod
    @contextlib.contextmanager
    def get_finalize_task_args_context(cls) -> Iterator[dict[str, Any]]:
        context: dict[str, Any] = {}
        try:
            yield context
        finally:
            # In a loop the next item is put into the same variables.
            if "templar" in context:
                SETTLED.pop(id(context["templar"].available_variables), None)

    @classmethod
    def finalize_task_arg(cls, name: str, value: Any, templar: Any, context: dict[str, Any]) -> Any:
        if "templar" not in context:
            context["templar"] = settle(templar.copy())
        return context["templar"].template(value)
