# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Run a node program with one SSH round trip, without sending a module.

A module costs a node about 0.17 s, nearly all of it importing Ansible's module code. A node program is plain
standard-library Python from ``module_utils/node``; this sends its source over stdin to the node's own interpreter,
so neither source nor payload is ever in argv or on the node's disk.
"""

from __future__ import annotations

import base64
import functools
import json
import re
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible.errors import AnsibleActionFail

from . import once

if TYPE_CHECKING:
    from ansible.plugins.action import ActionBase

once.keep()  # Ansible loads what asks before it begins the processes that work
NODE_PACKAGE = Path(__file__).resolve().parent.parent / "module_utils" / "node"
ANSWER = "bzzz-answer:"
_IMPORT = re.compile(r"^\s*from \.(\w+) import|^\s*from \. import (\w+)", re.MULTILINE)

# Registers the sources as package `bzzz_node`, so that relative imports mean the same here and in a module. Each import is paid for
# by every question: importlib.abc alone takes as long as starting Python.
_BOOTSTRAP = """\
import base64, importlib.machinery, json, sys, zlib
bundle = json.loads(zlib.decompress(base64.b64decode({bundle!r})))
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "bzzz_node" or name.startswith("bzzz_node.") and name[10:] in bundle["sources"]:
            return importlib.machinery.ModuleSpec(name, self, is_package=name == "bzzz_node")
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        if module.__name__ != "bzzz_node":
            name = module.__name__[10:]
            module.__source__ = bundle["sources"][name]
            exec(compile(module.__source__, name + ".py", "exec"), module.__dict__)
sys.meta_path.insert(0, Finder())
answer = importlib.import_module("bzzz_node." + bundle["program"]).main(bundle["payload"])
print({answer!r} + base64.b64encode(json.dumps(answer).encode()).decode())
"""


@functools.cache
def sources(program: str) -> dict[str, str]:
    """The source of a node program and of every sibling it imports, by module name."""
    found: dict[str, str] = {}
    wanted = [program]
    while wanted:
        name = wanted.pop()
        if name not in found:
            found[name] = (NODE_PACKAGE / f"{name}.py").read_text(encoding="utf-8")
            wanted += [a or b for a, b in _IMPORT.findall(found[name])]
    return found


def script(program: str, payload: dict[str, Any]) -> str:
    """The whole text that the node's interpreter reads from stdin.

    Siblings that the program needs for this payload only are named in the payload's list ``modules``.
    """
    needed = {name: text for module in (program, *payload.get("modules", ())) for name, text in sources(module).items()}
    bundle = json.dumps({"program": program, "sources": needed, "payload": payload})
    packed = base64.b64encode(zlib.compress(bundle.encode(), 1)).decode()
    return _BOOTSTRAP.format(bundle=packed, answer=ANSWER)


def interpreter(task_vars: dict[str, Any]) -> str:
    """The Python to use on the node: the inventory's, if it names one, else the system's."""
    named = str(task_vars.get("ansible_python_interpreter") or "auto")
    return "/usr/bin/python3" if named.startswith("auto") else named


def ask(action: ActionBase, program: str, payload: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
    """Run ``module_utils/node/<program>.py``'s ``main(payload)`` on the task's node and return its answer.

    The answer may be a hostile node's: take what is wanted of it by name, since a task's result can set any host's variables.
    Connection loss raises AnsibleConnectionFailure (the node becomes unreachable, as with any module);
    a missing interpreter or a crash of the program raises AnsibleActionFail with the remedy.
    """
    name = "ansible_python_interpreter"
    python = interpreter({name: action._templar.template(task_vars.get(name))})  # often "{{ ansible_playbook_python }}"
    result = action._low_level_execute_command(f"{python} -sE -", sudoable=True, in_data=script(program, payload).encode())
    for line in reversed(result.get("stdout_lines", [])):
        if line.startswith(ANSWER):
            answer: dict[str, Any] = json.loads(base64.b64decode(line[len(ANSWER) :]))
            return answer
    said = (result.get("stderr") or result.get("stdout") or "").strip()
    if result.get("rc") == 127 or ("No such file" in said and python in said):
        raise AnsibleActionFail(
            f"{python} was not found on this node. Remedy: install it there (apt-get install python3), "
            "or set ansible_python_interpreter for the node in the inventory."
        )
    raise AnsibleActionFail(f"the node program '{program}' gave no answer (exit code {result.get('rc')}): {said[-2000:]}")
