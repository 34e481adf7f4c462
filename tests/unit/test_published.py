# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The collection as those see it who install it: its reference, its action group, its execution environment."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.bzzz.cluster.plugins.module_utils.declaration import load_specs
from packaging.requirements import Requirement

from bzzz_setup.lab import CHECKOUT, tool
from bzzz_setup.release import build_collection

MODULES = sorted(path.stem for path in (CHECKOUT / "plugins/modules").glob("*.py"))
PROJECT = CHECKOUT / "pyproject.toml"


def run(*command: str | Path, cwd: Path = CHECKOUT) -> str:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the collection's tarball in dist/, and the collection installed from it in ansible_collections/."""
    folder = tmp_path_factory.mktemp("published")
    tarball = build_collection(folder / "dist", [])
    installed = folder / "ansible_collections/bzzz/cluster"
    installed.mkdir(parents=True)
    with tarfile.open(tarball) as packed:
        packed.extractall(installed, filter="data")
    return folder


@pytest.fixture(scope="module")
def documented() -> dict[str, Any]:
    names = [f"bzzz.cluster.{name}" for name in MODULES]
    return dict(json.loads(run(tool("ansible-doc"), "--type", "module", "--json", *names)))


@pytest.mark.parametrize("name", MODULES)
def test_a_module_is_documented_whole(documented: dict[str, Any], name: str) -> None:
    found = documented[f"bzzz.cluster.{name}"]
    attributes = found["doc"]["attributes"]
    assert {"check_mode", "diff_mode", "idempotent"} <= set(attributes)
    assert all(entry["description"] and entry["support"] in ("full", "partial", "none", "N/A") for entry in attributes.values())
    (task, *_more) = yaml.safe_load(found["examples"])
    assert f"bzzz.cluster.{name}" in task
    assert found["return"] or name == "declaration"


def test_every_module_takes_module_defaults_and_none_is_invented() -> None:
    runtime = yaml.safe_load((CHECKOUT / "meta/runtime.yml").read_text(encoding="utf-8"))
    assert runtime["action_groups"] == {"all": MODULES}
    assert {path.stem for path in (CHECKOUT / "plugins/action").glob("*.py")} <= set(MODULES)


@pytest.mark.requirement("L5", part="reference documentation")
def test_the_rendered_reference_has_every_plugin_and_every_option(tmp_path: Path) -> None:
    command = ["antsibull-docs", "collection", "--use-current", "--squash-hierarchy", "--fail-on-error", "--dest-dir", tmp_path]
    run(tool(command[0]), *command[1:], "bzzz.cluster")
    pages = {path.stem: path.read_text(encoding="utf-8") for path in tmp_path.glob("*.rst")}
    assert {f"{name}_module" for name in MODULES} | {"release_filter"} <= set(pages)
    for role, spec in load_specs().items():
        for option, details in spec["options"].items():
            assert option in pages[f"{role}_role"], option
            if details.get("default") is not None and details.get("type") in ("int", "float"):
                assert str(details["default"]) in pages[f"{role}_role"]


def test_the_tarball_holds_what_runs_on_a_controller_and_nothing_else(published: Path) -> None:
    top = {path.name for path in (published / "ansible_collections/bzzz/cluster").iterdir()}
    made = {"MANIFEST.json", "FILES.json"}
    wanted = {"CONTRIBUTING.md", "LICENSE", "README.md", "changelogs", "docs", "meta", "playbooks", "plugins", "pyproject.toml", "roles"}
    assert top - made == wanted | {"tests"}
    tests = published / "ansible_collections/bzzz/cluster/tests"
    assert {path.relative_to(tests).parts[0] for path in tests.rglob("*")} == {"config.yml", "sanity"}


def test_the_execution_environment_gets_what_the_collection_says_it_needs(published: Path) -> None:
    """What ansible-builder finds in the installed collection, and that our own pins satisfy it."""
    found = yaml.safe_load(run(tool("ansible-builder"), "introspect", published))
    python = {(need := Requirement(line.partition("#")[0].strip())).name: need for line in found["python"]}
    assert set(python) == {"cryptography", "dnspython", "netaddr", "zeroconf"}
    pins = dict(
        line.strip(' ",').split("==") for line in PROJECT.read_text(encoding="utf-8").splitlines() if "==" in line and ";" not in line
    )
    assert all(need.specifier.contains(pins[name]) for name, need in python.items())
    assert any(line.startswith("openssh-clients [platform:rpm]") for line in found["system"])


def test_the_execution_environments_definition_makes_a_build_context(published: Path) -> None:
    """Its form, and that the collection's tarball is where the definition looks for it. Making the image takes a registry."""
    shutil.copy(CHECKOUT / "execution-environment.yml", published)
    run(tool("ansible-builder"), "create", "--context", published / "context", cwd=published)
    (collection,) = yaml.safe_load((published / "context/_build/requirements.yml").read_text(encoding="utf-8"))["collections"]
    assert tarfile.is_tarfile(published / "context/_build" / collection["name"])
    assert any(path.name in ("Containerfile", "Dockerfile") for path in (published / "context").iterdir())
