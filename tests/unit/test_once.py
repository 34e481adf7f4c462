# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Templates are compiled once a run, and mean what they mean without that."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

# Tells of each compilation, in whatever process, then plays.
PLAY = """\
import os, sys
from jinja2 import Environment
compiled = Environment._compile
def telling(self, source, filename):
    with open(os.environ["TOLD"], "a") as told:
        told.write(f"{hash(source)}\\n")
    return compiled(self, source, filename)
Environment._compile = telling
from ansible_collections.bzzz.cluster.plugins.plugin_utils import once as ours
if os.environ["KEEP"] == "yes":
    ours.keep()
    ours.keep()
from ansible.cli.playbook import main
sys.argv = ["ansible-playbook", "-i", "one,two,three,", "-c", "local", os.environ["PLAY"]]
main()
"""
TASKS = r"""
- hosts: all
  gather_facts: false
  vars:
    name: "{{ inventory_hostname }}"
    twice: "{{ name ~ name }}"
    where: "{{ lookup('template', '%s') }}"
  tasks:
    - debug: {msg: '{{ twice }} {{ where }} {{ "a.c" | regex_replace("\.", "/") }}'}
    - debug: {msg: '{{ twice }} {{ where }} {{ "a.c" | regex_replace("\.", "/") }}'}
    - debug: {msg: "{{ no syntax }"}
      ignore_errors: true
"""
OTHER = """#jinja2: variable_start_string: '[[', variable_end_string: ']]'
[[ name ]] {{ name }} [[ 'a\\tb' ]]"""


def played(keep: str, folder: Path) -> tuple[str, int]:
    """What is said, and how often the template that was compiled most was."""
    told = folder / f"told-{keep}"
    own = {"TOLD": str(told), "PLAY": str(folder / "play.yml"), "KEEP": keep, "ANSIBLE_LOCAL_TEMP": str(folder / "temporary")}
    done = subprocess.run(
        [sys.executable, "-c", PLAY],
        env={**os.environ, **own, "PYTHONHASHSEED": "0", "ANSIBLE_FORKS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert not list((folder / "temporary").rglob("templates")), "they go with the run"
    return done.stdout + done.stderr, max(Counter(told.read_text().split()).values())


def test_each_template_is_compiled_once_and_means_the_same(tmp_path: Path) -> None:
    (tmp_path / "other.j2").write_text(OTHER)
    (tmp_path / "play.yml").write_text(TASKS % (tmp_path / "other.j2"))
    (once, most), (anew, more) = played("yes", tmp_path), played("no", tmp_path)
    assert once == anew and once.count("oneone one {{ name }} a\\tb a/c") == 2 and once.count("Syntax error in template") >= 3
    assert most == 1 and more >= 6


def test_what_ansible_offers_is_still_there() -> None:
    """Nothing is done where it is not, and nobody would see it but by the time that a run takes."""
    names = "from ansible._internal._templating import _jinja_bits, _jinja_plugins\n"
    names += "before = _jinja_plugins.JinjaPluginIntercept.__getitem__\n"
    names += "from ansible_collections.bzzz.cluster.plugins.plugin_utils import once\n"
    names += "once.keep()\n"
    names += "from ansible.template import Templar\n"
    names += "once.settle(Templar(variables={'a': 1}))\n"
    names += "print(_jinja_plugins.JinjaPluginIntercept.__getitem__ is not before, len(once.SETTLED))\n"
    done = subprocess.run([sys.executable, "-c", names], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["True", "1"], done.stderr


SETTLED = r"""
import copy
from ansible.template import Templar, trust_as_template as trust
from ansible_collections.bzzz.cluster.plugins.plugin_utils import once
once.keep()
variables = {"number": trust("{{ range(1000000000) | random }}"), "twice": trust("{{ number }} {{ number }}")}
texts = [trust("{{ number }} {{ twice }}"), trust("{{ [3, 1] | sort | first }} {{ twice | length > 1 and x is undefined }}")]
for templar in (once.settle(Templar(variables=variables)), Templar(variables=dict(variables))):
    numbers, rest = templar.template(texts)
    print(len(set(numbers.split())), rest)
# Lookups are given the variables, and Ansible's own for templates copies them deeply.
print(copy.deepcopy(once.settle(Templar(variables={"a": 7})).available_variables)["a"])
"""


def test_a_variable_is_worked_out_once_where_that_is_wanted() -> None:
    done = subprocess.run([sys.executable, "-c", SETTLED], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == ["1 1 True", "2 1 True", "7"], done.stderr


ARGUMENTS = r"""
from ansible.template import Templar, trust_as_template as trust
from ansible_collections.bzzz.cluster.plugins.plugin_utils import once
once.keep()
variables = {"item": "first", "name": trust("{{ item }}")}
for each in ("first", "second"):
    variables["item"] = each
    templar = Templar(variables=variables)._engine
    with once.Settled.get_finalize_task_args_context() as context:
        settled = once.Settled.finalize_task_arg("name", trust("{{ name }}"), templar, context)
    print(settled, templar.template(trust("{{ name }}")), len(once.SETTLED))
variables["item"] = "third"
print(templar.template(trust("{{ name }}")))
"""


def test_what_is_settled_for_a_tasks_arguments_ends_with_them() -> None:
    """Loops put each item into variables that may be the same."""
    done = subprocess.run([sys.executable, "-c", ARGUMENTS], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == ["first first 0", "second second 0", "third"], done.stderr


OWN = r"""
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.vars.manager import VariableManager
from ansible_collections.bzzz.cluster.plugins.action import declaration
loader = DataLoader()
inventory = InventoryManager(loader, sources=["one,two,"])
manager = VariableManager(loader, inventory)
# As ansible-core 2.21 does for a task with run_once.
of_all, registered = {"of_all": 1}, {"said": 1}
for host in ("one", "two"):
    manager.set_host_facts(host, of_all)
    manager.set_nonpersistent_facts(host, registered)
manager.set_host_facts("one", {"called": "one"})
manager.set_host_facts("two", {"called": "two"})
manager.set_nonpersistent_facts("one", {"mine": "one"})
for host in ("one", "two"):
    seen = manager.get_vars(host=inventory.get_host(host), include_hostvars=False)
    print(seen["ansible_facts"], seen["said"], seen.get("mine"))
"""


def test_each_node_has_variables_of_its_own() -> None:
    done = subprocess.run([sys.executable, "-c", OWN], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == ["{'of_all': 1, 'called': 'one'} 1 one", "{'of_all': 1, 'called': 'two'} 1 None"], done.stderr
