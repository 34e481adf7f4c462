# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The set-up as AWX runs it: nothing but the collection's tarball, a read-only project with an inventory, a machine
credential, and a process with an empty home directory for each step. On fresh nodes it makes what the front makes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import leaks
import pytest
from conftest import BIN, KEPT, SYSTEM, Tools
from rest import Api

from bzzz_setup import init, release, steps
from bzzz_setup.declaration import KNOWN_HOSTS, MAIN, Declaration, dump, load, write
from bzzz_setup.lab import CHECKOUT, USER, Lab
from bzzz_setup.machine import prepare

# Minutes each, on machines of their own.
pytestmark = [pytest.mark.alone, pytest.mark.slow]
COLLECTION = "ansible_collections/bzzz/cluster"
PLAYBOOKS = [step.playbook for step in steps.steps()]
# In a mount namespace of its own: nothing of the checkout can be seen, and the project cannot be written to.
CONTAINED = """
set -e
empty=$1; shift
for folder in {hidden}; do mount --bind "$empty" "$folder"; done
for folder in {read_only}; do mount --bind "$folder" "$folder"; mount -o remount,bind,ro "$folder"; done
cd {project}
exec "$@"
"""


@dataclass
class Controller:
    """`said` is what each process printed, in order."""

    base: Path
    lab: Lab
    said: list[str] = field(default_factory=list)

    @property
    def project(self) -> Path:
        return self.base / "project"

    @property
    def collections(self) -> Path:
        return self.base / "collections"

    def run(self, *command: str, code: int = 0) -> str:
        """Run one program as a job of its own; returns what it printed."""
        home = self.base / f"home{len(self.said)}"
        home.mkdir()
        (self.base / "empty").mkdir(exist_ok=True)
        hidden = [CHECKOUT / name for name in ("bzzz_setup", "playbooks", "plugins", "roles", "inventories")]
        hidden += [Path(sysconfig.get_path("purelib"), COLLECTION).parent]
        read_only = f"{self.project} {self.collections}"
        script = CONTAINED.format(hidden=" ".join(map(str, hidden)), read_only=read_only, project=self.project)
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script, "sh", str(self.base / "empty"), str(BIN / command[0]), *command[1:]],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(home),
                "LANG": "C.UTF-8",
                "ANSIBLE_COLLECTIONS_PATH": str(self.collections),
                "ANSIBLE_HOST_KEY_CHECKING": "False",  # AWX's default
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        self.said.append(done.stdout + done.stderr)
        assert done.returncode == code, f"{' '.join(command)}: exit code {done.returncode}\n{self.said[-1]}"
        return self.said[-1]

    def step(self, playbook: str) -> dict[str, int]:
        """{node: changed} of one step, with the machine credential."""
        said = self.run("ansible-playbook", "-i", "inventory", "-u", USER, "--private-key", str(self.lab.key), playbook)
        return {node: int(count) for node, count in re.findall(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)", said, re.MULTILINE)}


@pytest.fixture(scope="module")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    """Fresh nodes, set up step by step."""
    lab = Lab(f"{KEPT or 'tests'}-awx")
    base = tmp_path_factory.mktemp("awx")
    try:
        prepare(print)
        lab.down()
        nodes = {node.name: node.address for node in lab.up(3, system=SYSTEM)}
        made = Controller(base, lab)
        options = init.options(lab.id, USER, None, [], passphrase=False) | {
            "ssh_key_source": "provided",
            "ssh_public_keys": [lab.key.with_suffix(".pub").read_text().strip()],
        }
        known_hosts = (lab.inventory / KNOWN_HOSTS).read_text()
        Declaration(made.project / "inventory", init.hosts(nodes, list(nodes), {}), options, known_hosts).create()
        made.collections.mkdir()
        tarball = release.build_collection(base / "built")
        install = ["ansible-galaxy", "collection", "install", "--offline", "--force", "-p", str(made.collections), str(tarball)]
        subprocess.run([BIN / install[0], *install[1:]], env=os.environ | {"HOME": str(base)}, capture_output=True, check=True)
        yield made
    finally:
        lab.down()


@pytest.fixture(scope="module")
def first(controller: Controller) -> list[dict[str, int]]:
    return [controller.step(playbook) for playbook in PLAYBOOKS]


@pytest.mark.requirement("F6", part="as AWX runs it")
def test_only_the_installed_tarball_is_there(controller: Controller) -> None:
    listed = json.loads(controller.run("ansible-galaxy", "collection", "list", "bzzz.cluster", "--format", "json").partition("\n[")[0])
    assert list(listed) == [str(controller.collections / "ansible_collections")]
    controller.run("python", "-c", "import bzzz_setup.cli", code=1)
    assert "ModuleNotFoundError" in controller.said[-1]
    assert not (controller.collections / COLLECTION / "bzzz_setup").exists()
    read_only = controller.run("python", "-c", "open('inventory/new', 'w')", code=1)
    assert "Read-only file system" in read_only


@pytest.mark.requirement("F3", "F4", "F5", "F6", "F7", "F8", part="as AWX runs it")
def test_one_process_for_each_step_sets_the_cluster_up(controller: Controller, first: list[dict[str, int]]) -> None:
    nodes = {node.name for node in controller.lab.nodes}
    assert all(set(step) == nodes for step in first) and len(first) == 8
    # Looking, validating and adopting change nothing; every other step does.
    assert [all(step.values()) for step in first] == [number in (2, 3, 5, 6, 7) for number in range(1, 9)]
    api = Api(Tools(controller.lab, controller.base), controller.base)
    assert api.agreed()["primary"] in nodes
    assert all(api.get(node, "/health/ready", token="").status_code == 200 for node in nodes)


@pytest.mark.requirement("F6", part="as AWX runs it")
def test_the_front_finds_its_own_cluster(controller: Controller, first: list[dict[str, int]], tmp_path: Path) -> None:
    """By the questions of every role, which see all that the front would set up."""
    folder = tmp_path / "inventory"
    shutil.copytree(controller.project / "inventory", folder)
    key = {"ansible_user": USER, "ansible_ssh_private_key_file": str(controller.lab.key)}
    write(folder / MAIN, dump({**load((folder / MAIN).read_text()), **key}))
    document = Tools(controller.lab, tmp_path).document("apply", folder=folder)
    assert document["changes"] == [] and {check["status"] for check in document["checks"]} <= {"pass", "skip"}


@pytest.mark.requirement("L2", part="second run changes nothing, as AWX runs it")
def test_all_eight_again_change_nothing(controller: Controller, first: list[dict[str, int]]) -> None:
    again = [controller.step(playbook) for playbook in PLAYBOOKS]
    assert again == [dict.fromkeys(step, 0) for step in first]


@pytest.mark.requirement("F3", part="secrets stay on the nodes, as AWX runs it")
def test_the_controller_keeps_nothing(controller: Controller, first: list[dict[str, int]]) -> None:
    lab = controller.lab
    names = [node.name for node in lab.nodes]
    secrets = {
        path: lab.exec(names[0], ["cat", path]).stdout.splitlines()[line]
        for path, line in {"/var/lib/bzzz/secrets/service_token": 0, "/var/lib/bzzz/ca/ca.key": 2, "/etc/bzzz/tls/node.key": 2}.items()
    }
    assert not leaks.in_files([controller.base], secrets)
    assert not [path for path, secret in secrets.items() if secret in "".join(controller.said)]
    for node in names:
        for path, places in leaks.on_node(lab, node, secrets).items():
            set_of = {"/var/lib/bzzz/secrets/service_token": "service", "/var/lib/bzzz/ca/ca.key": "tls-authority"}.get(path, "")
            kept = {place for place in places if not place.startswith(f"/var/lib/bzzz/sets/{set_of}/generations/")}
            assert kept == ({path} if set_of or node == names[0] else set())


def test_no_job_warns(controller: Controller, first: list[dict[str, int]]) -> None:
    assert not re.findall(r"^.*(?:WARNING|DEPRECAT).*$", "".join(controller.said), re.MULTILINE)
