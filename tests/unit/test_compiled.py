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
from ansible_collections.bzzz.cluster.plugins.plugin_utils import compiled as ours
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
