# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""An exported Compose file takes the place of a node's unit: Docker Compose runs the same service, in the node's own network."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Tools
from rest import Api, wait_for

from bzzz_setup import machine

# What the file takes of a node; the wizard's socket is not there, and its folder is made.
PLACES = ("/opt/bzzz", "/etc/bzzz", "/etc/ssl/certs", "/usr/lib/os-release", "/srv/bzzz/data", "/var/log/bzzz")
PROJECT = "bzzz-test"


@pytest.fixture
def node(cluster: Tools) -> Iterator[str]:
    """One whose service stands still meanwhile, since both would listen on the same ports."""
    name = cluster.nodes[1]
    cluster.lab.exec(name, ["systemctl", "stop", "bzzz"])
    yield name
    cluster.lab.exec(name, ["systemctl", "start", "bzzz"])


@pytest.fixture
def root(cluster: Tools, node: str, tmp_path: Path) -> Path:
    """A copy of the node's files, with their owners."""
    folder = tmp_path / "root"
    folder.mkdir()
    # Docker makes what is mounted from the way to it: nobody but root need pass the folders above.
    pack = ["docker", "exec", cluster.lab.container(node), "tar", "--create", "--numeric-owner", *PLACES]
    unpack = ["tar", "--extract", "--numeric-owner", "--same-owner", "--preserve-permissions", "--directory", str(folder)]
    with subprocess.Popen(pack, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as packing:
        subprocess.run(unpack, stdin=packing.stdout, check=True)
    assert packing.returncode == 0
    return folder


@pytest.fixture
def compose(cluster: Tools, node: str, root: Path, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Docker Compose on what is exported, with the node's own image and in its network instead of this machine's."""
    program = machine.compose(print)
    cluster.setup("export", "compose", "--node", node, "-o", str(tmp_path / "out"))
    (file,) = (path for path in (tmp_path / "out").rglob("*") if path.suffix == ".yaml")
    assert file == tmp_path / "out" / node / "etc/bzzz/compose.yaml"
    container = cluster.lab.container(node)
    here = tmp_path / "here.yaml"
    here.write_text(yaml.safe_dump({"services": {"bzzz": {"network_mode": f"container:{container}"}}}))
    # Told by the file itself, where a run has seen the node after it was set up.
    ids = {"BZZZ_UID": "id -u bzzz", "BZZZ_GID": "id -g bzzz", "BZZZ_TLS_GID": "getent group bzzz-tls | cut -d: -f3"}
    numbers = {name: cluster.lab.exec(node, ["sh", "-c", command]).stdout.strip() for name, command in ids.items()}
    image = subprocess.run(
        ["docker", "inspect", "--format", "{{.Config.Image}}", container], capture_output=True, text=True, check=True
    ).stdout.strip()

    def run(*arguments: str) -> str:
        argv = [*program, "--project-name", PROJECT, "--file", str(file), "--file", str(here), *arguments]
        environment = {**os.environ, "BZZZ_IMAGE": image, "BZZZ_ROOT": str(root), **numbers}
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    yield run
    run("down", "--timeout", "20")
    for left in Path("/sys/fs/cgroup").glob("**/bzzz.slice"):
        # Made by Docker where it has no systemd to ask for it.
        with contextlib.suppress(OSError):
            left.rmdir()


@pytest.mark.requirement("T3", part="Docker Compose: the service runs by it")
def test_compose_runs_the_service_in_place_of_the_unit(cluster: Tools, node: str, compose: Callable[..., str], tmp_path: Path) -> None:
    told = yaml.safe_load(compose("config"))["services"]["bzzz"]
    assert told["environment"] == {"BZZZ_LOG_LEVEL": "info"}
    user, group = (cluster.lab.exec(node, ["id", option, "bzzz"]).stdout.strip() for option in ("-u", "-g"))
    assert told["user"] == f"{user}:{group}"
    api = Api(cluster, tmp_path)
    compose("up", "--detach")
    # Over TLS, by the cluster's authority, and as the member that it is.
    wait_for("the service to live", lambda: api.get(node, "/health/live").status_code == 200)
    assert cluster.lab.exec(node, ["systemctl", "is-active", "bzzz"], check=False).stdout.strip() == "inactive"
    wait_for("membership", lambda: api.member(node, cluster.nodes[0]))
    checks = {check["name"]: check["status"] for check in api.get(node, "/health").json()["checks"]}
    assert (checks["coordination"], checks["storage"]) == ("pass", "pass")
    release = cluster.lab.exec(node, ["sh", "-c", ". /etc/os-release; echo $VERSION_ID"]).stdout.strip()
    wait_for("what the node can do", lambda: api.get(node, "/api/v1/node").json()["capabilities"].get("os", {}).get("version") == release)

    container = compose("ps", "--quiet").strip()
    (found,) = json.loads(subprocess.run(["docker", "inspect", container], capture_output=True, text=True, check=True).stdout)
    held: dict[str, Any] = found["HostConfig"]
    assert held["ReadonlyRootfs"] and held["CapDrop"] == ["ALL"] and "no-new-privileges:true" in held["SecurityOpt"]
    assert (held["Memory"], held["PidsLimit"], held["RestartPolicy"]["Name"]) == (512 << 20, 256, "unless-stopped")
    assert {mount["Destination"] for mount in found["Mounts"] if mount["RW"]} == {"/srv/bzzz/data", "/var/log/bzzz"}

    def inside(*argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["docker", "exec", container, *argv], capture_output=True, text=True, check=False)

    (said,) = (line for line in inside("cat", "/proc/1/status").stdout.splitlines() if line.startswith("CapBnd"))
    assert int(said.split()[1], 16) == 0
    assert "Read-only" in inside("touch", "/etc/bzzz/x").stderr and inside("touch", "/srv/bzzz/data/x").returncode == 0
    # What Docker asks for its health.
    assert inside(*found["Config"]["Healthcheck"]["Test"][1:]).returncode == 0
    compose("kill", "-s", "STOP")
    stopped = inside(*found["Config"]["Healthcheck"]["Test"][1:])
    assert stopped.returncode == 1 and "does not live" in stopped.stderr
    compose("kill", "-s", "CONT")
    # As systemctl reload and stop do.
    compose("kill", "-s", "HUP")
    wait_for("what it says of a reload", lambda: "were read again" in compose("logs"))
    compose("stop")
    assert "bzzz.node: stopped" in compose("logs")
    wait_for("end of its membership", lambda: not api.member(node, cluster.nodes[0]), 5)
