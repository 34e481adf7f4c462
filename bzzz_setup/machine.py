# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the lab needs of the machine it runs on, and the only place where it is set up as root."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bzzz_setup.events import ExitCode, Refusal

TOOLS = {
    "docker": "docker.io",
    "mmdebstrap": "mmdebstrap",
    "ssh": "openssh-client",
    "ip": "iproute2",
}
APT = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300"]
DOCKERD_LOG = Path("/var/log/bzzz-dockerd.log")
START_SECONDS = 120
SBIN = "/usr/local/sbin:/usr/sbin:/sbin"  # an ordinary user's PATH lacks them


def prepare(say: Callable[[str], None]) -> None:
    """Install what is missing and start Docker, as root on Debian or Ubuntu; elsewhere raise Refusal with what to do."""
    missing = {package for tool, package in TOOLS.items() if not shutil.which(tool)}
    silent = _docker_says() is not None
    if not missing and not silent:
        return
    if silent and not _found("dockerd") and not os.environ.get("DOCKER_HOST"):
        missing.add(TOOLS["docker"])  # a client alone, as many a machine has for another's daemon
    packages = sorted(missing)
    if silent and os.environ.get("DOCKER_HOST"):
        raise _not_answering("Start the daemon that DOCKER_HOST names, or unset it.")
    if os.geteuid() != 0:
        if packages:
            raise _refusal(f"the lab needs {', '.join(packages)}", f"Run: sudo apt-get install {' '.join(packages)} - or run this as root.")
        raise _not_answering("Start it (sudo systemctl start docker), join the group docker, or run this as root.")
    with Path("/run/bzzz-machine.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if packages:
            _install(packages, say)
        if _docker_says() is not None:
            _start_docker(say)


def browser(say: Callable[[str], None]) -> str:
    """The path of a Chromium, installed where it is missing, as root on Debian; elsewhere raise Refusal with what to do."""
    names = ("chromium", "chromium-browser", "google-chrome")
    if not any(map(shutil.which, names)):
        if os.geteuid() != 0:
            raise _refusal("these tests need a browser", "Run: sudo apt-get install chromium - or run this as root.")
        with Path("/run/bzzz-machine.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            _install(["chromium", "fonts-dejavu-core"], say)
    return next(found for name in names if (found := shutil.which(name)))


def database(say: Callable[[str], None]) -> None:
    """Have PostgreSQL's programs, installed by apt where they are missing; tests start one of their own. Raises Refusal."""
    if not any(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        if os.geteuid() != 0:
            raise _refusal("these tests need PostgreSQL", "Run: sudo apt-get install postgresql - or run this as root.")
        _install(["postgresql"], say)


def compose(say: Callable[[str], None]) -> list[str]:
    """Docker Compose as it is called here: Docker's plugin, or else the program, installed by apt where it is missing. Raises Refusal."""
    plugin = ["docker", "compose"]
    if subprocess.run([*plugin, "version"], capture_output=True, check=False).returncode == 0:
        return plugin
    if not shutil.which("docker-compose"):
        if os.geteuid() != 0:
            raise _refusal("these tests need Docker Compose", "Run: sudo apt-get install docker-compose - or run this as root.")
        _install(["docker-compose"], say)
    return ["docker-compose"]


def _not_answering(remedy: str) -> Refusal:
    return _refusal(f"Docker does not answer: {_docker_says()}", remedy)


def _refusal(message: str, remedy: str) -> Refusal:
    return Refusal(message, remedy, ExitCode.NODES_FAILED)


def _found(program: str) -> str | None:
    return shutil.which(program) or shutil.which(program, path=SBIN)


def _install(packages: list[str], say: Callable[[str], None]) -> None:
    if not shutil.which("apt-get"):
        raise _refusal(
            f"the lab needs {', '.join(packages)}", "Install what these Debian packages hold with this system's package manager."
        )
    say(f"installing {', '.join(packages)} (apt)…")
    _run([*APT, "update"])
    _run([*APT, "install", "-y", "--no-install-recommends", *packages])


def _run(command: list[str], cwd: Path | None = None) -> None:
    done = subprocess.run(
        command, cwd=cwd, env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = done.stderr.strip() or done.stdout.strip()
        raise _refusal(f"'{' '.join(command)}' failed: {said}", "Run it by hand to see more.")


def places(folder: Path) -> list[Path]:
    """Where the programs are that are unpacked below a folder."""
    return [folder / "usr/bin", folder / "usr/sbin"]


def unpacked(tools: dict[str, str], folder: Path, say: Callable[[str], None]) -> None:
    """Have programs (name to Debian packages) below a folder, beside the system: no service of theirs is started.

    They are only those that the system has not. Raises Refusal where apt cannot fetch them.
    """
    here = os.pathsep.join(map(str, [*places(folder), os.environ["PATH"], SBIN]))
    packages = sorted({package for tool, names in tools.items() if not shutil.which(tool, path=here) for package in names.split()})
    if packages:
        if not shutil.which("apt-get"):
            raise _refusal(f"the tests need {', '.join(tools)}", "Install them with this system's package manager.")
        say(f"fetching {', '.join(packages)} (apt)…")
        if os.geteuid() == 0:
            _run([*APT, "update"])
        with tempfile.TemporaryDirectory() as fetched:
            _run([*APT, "download", *packages], Path(fetched))
            for package in Path(fetched).glob("*.deb"):
                _run(["dpkg-deb", "--extract", str(package), str(folder)])


def _docker_says() -> str | None:
    """None when the Docker daemon answers, else its client's complaint."""
    if not shutil.which("docker"):
        return "docker is not installed"
    done = subprocess.run(["docker", "version", "--format", "{{.Server.Version}}"], capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else done.stderr.strip()


def _start_docker(say: Callable[[str], None]) -> None:
    if Path("/run/systemd/system").is_dir():
        say("starting docker.service…")
        done = subprocess.run(["systemctl", "start", "docker"], capture_output=True, text=True, check=False)
        if done.returncode:
            raise _refusal(f"docker.service does not start: {done.stderr.strip()}", "Its reasons are in: journalctl -u docker")
        return
    # A killed daemon leaves its process ID behind; a stranger that has it by now would be taken for the daemon.
    for program, pid_file in (("dockerd", Path("/run/docker.pid")), ("containerd", Path("/run/docker/containerd/containerd.pid"))):
        if pid_file.exists() and _program_of(pid_file) != program:
            pid_file.unlink()
    say(f"starting dockerd, since no service manager runs here; it goes on running afterwards (log: {DOCKERD_LOG})…")
    with DOCKERD_LOG.open("ab") as log:
        start = log.tell()
        daemon = subprocess.Popen(["dockerd"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/")
    deadline = time.monotonic() + START_SECONDS
    while _docker_says() is not None:
        if daemon.poll() is not None or time.monotonic() > deadline:
            said = DOCKERD_LOG.read_bytes()[start:].decode(errors="replace").strip().splitlines()[-15:]
            raise _refusal("dockerd does not start:\n" + "\n".join(said), f"The whole log is in {DOCKERD_LOG}.")
        time.sleep(0.2)


def _program_of(pid_file: Path) -> str | None:
    try:
        return Path("/proc", pid_file.read_text().strip(), "comm").read_text().strip()
    except OSError:
        return None
