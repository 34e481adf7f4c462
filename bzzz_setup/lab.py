# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Lab nodes for demo and tests: containers that boot systemd and sshd, made by playbooks/lab.yml.

Everything is named after the checkout and the lab, so checkouts don't meet, and what a killed run left is found again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import ipaddress
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from bzzz_setup import machine, paths, run, terminal
from bzzz_setup.declaration import HOSTS, KNOWN_HOSTS, MAIN, dump, load, write
from bzzz_setup.events import ExitCode, Refusal

CHECKOUT = Path(__file__).resolve().parent.parent
DEMO = "demo"
WIZARD_PORT, WIZARD_SECONDS = 8088, 240
USER = "operator"
POOL = ipaddress.IPv4Network("10.199.0.0/16")
NODES_MAX = 200
# Debian's releases by what is asked for; nodes take them in turn.
SYSTEMS = {"bookworm": ("bookworm",), "trixie": ("trixie",), "mixed": ("bookworm", "trixie")}
# Where the first one names only systemd-resolved on the loopback, the second has those behind it.
RESOLVERS = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
READY_SECONDS = 90

Say = Callable[[str], None]


def quiet(_: str) -> None:
    pass


def tool(name: str) -> str:
    """A program of this Python environment."""
    return str(Path(sys.executable).with_name(name))


@dataclass(frozen=True)
class Node:
    """`os` is the release of Debian that the node was made from."""

    name: str
    address: str
    os: str = "bookworm"


class Lab:
    """One lab. The machine is prepared by `up`; all else expects Docker to answer."""

    def __init__(self, name: str = DEMO, say: Say = quiet) -> None:
        if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?", name):
            raise Refusal(
                f"'{name}' is no name for a lab", "Use at most 20 lower-case letters, digits and hyphens, for example lab-1.", option="name"
            )
        self.name = name
        self.id = f"bzzz-{name}-{hashlib.sha256(str(CHECKOUT).encode()).hexdigest()[:6]}"
        self.directory = paths.state("labs") / self.id
        self.inventory = CHECKOUT / "inventories/lab" if name == DEMO else self.directory / "inventory"
        self.key = self.directory / "id_ed25519"
        self._say = say

    @property
    def nodes(self) -> list[Node]:
        """The nodes as Docker knows them, running or not, in order of their numbers."""
        names = _docker("ps", "--all", "--filter", f"label=bzzz.lab={self.id}", "--format", "{{.Names}}").split()
        found = []
        for container in json.loads(_docker("inspect", *names)) if names else []:
            endpoint = container["NetworkSettings"]["Networks"].get(self.id) or {}
            address = (endpoint.get("IPAMConfig") or {}).get("IPv4Address") or endpoint.get("IPAddress") or ""
            release = container["Config"]["Image"].partition(":")[2].partition("-")[0]
            found.append(Node(container["Name"].removeprefix(f"/{self.id}-"), address, release))
        return sorted(found, key=lambda node: (len(node.name), node.name))

    @property
    def subnet(self) -> ipaddress.IPv4Network | None:
        try:
            return ipaddress.IPv4Network(_docker("network", "inspect", "--format", "{{(index .IPAM.Config 0).Subnet}}", self.id).strip())
        except subprocess.CalledProcessError:
            return None

    def up(self, nodes: int = 3, *, system: str | None = None, storage: bool = False) -> list[Node]:
        """Have exactly so many nodes, ready for SSH. Those that are there already keep their state.

        `system` is a key of SYSTEMS; None means bookworm, for new nodes.
        """
        if system not in (None, *SYSTEMS):
            raise Refusal(f"'{system}' is no system for lab nodes", f"Choose one of: {', '.join(SYSTEMS)}.", option="os")
        if not 1 <= nodes <= NODES_MAX:
            raise Refusal(
                f"a lab has 1 to {NODES_MAX} nodes, not {nodes}", "Choose a number in between, for example --nodes 3.", option="nodes"
            )
        machine.prepare(self._say)
        with self._lock() as lock:
            if not self.key.exists():
                self._remove()  # Nobody could log in to nodes that another home directory's key belongs to.
            subnet = self.subnet or free_subnet(self.id, taken_networks())
            wanted = self._wanted(nodes, subnet, system)
            self._seed(wanted)
            self._playbook(
                {
                    "lab_id": self.id,
                    "lab_subnet": str(subnet),
                    "lab_nodes": [vars(node) for node in wanted],
                    "lab_seed": str(self.directory / "seed"),
                    "lab_work": str(paths.state("labs")),
                },
                lock,
            )
            self._say("waiting for systemd and sshd on each node…")
            for node in wanted:
                self.wait(node.name)
                self.exec(node.name, ["/usr/local/sbin/lab-node"])  # older nodes learn the names of new ones
            self._write_inventory(wanted, storage=storage)
        return wanted

    def _wanted(self, count: int, subnet: ipaddress.IPv4Network, system: str | None) -> list[Node]:
        there = {node.name: node for node in self.nodes}
        releases = itertools.cycle(SYSTEMS[system or "bookworm"])
        wanted = [Node(f"bzzz-node{number}", str(subnet[10 + number]), next(releases)) for number in range(1, count + 1)]
        if other := [there[node.name] for node in wanted if system and there.get(node.name, node).os != node.os]:
            raise Refusal(
                f"lab {self.name} has nodes of another system: " + ", ".join(f"{node.name} is {node.os}" for node in other),
                f"Remove it first (./bzzz lab down --name {self.name}), or leave --os out to keep them.",
                option="os",
            )
        return [replace(node, os=there.get(node.name, node).os) for node in wanted]

    def down(self) -> None:
        """Remove nodes, network, volumes, key and inventory, whatever there is of them."""
        machine.prepare(self._say)
        with self._lock():
            self._remove()
            shutil.rmtree(self.inventory, ignore_errors=True)
            shutil.rmtree(self.directory, ignore_errors=True)

    def exec(self, node: str, argv: list[str], *, stdin: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command as root on a node, beside SSH. Raises CalledProcessError if it fails and `check` is set."""
        command = ["docker", "exec", *(["-i"] if stdin is not None else []), self.container(node), *argv]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, check=check)

    def ssh(self, node: str, command: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a shell command as the operator on a node, on an SSH connection of its own."""
        address = next(n.address for n in self.nodes if n.name == node)
        argv = ["ssh", "-F", "none", "-i", str(self.key), *self._ssh_options(), "-o", "BatchMode=yes", "-o", "ControlPath=none"]
        return subprocess.run([*argv, f"{USER}@{address}", command], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=check)

    def kill(self, node: str) -> None:
        """Cut a node's power."""
        _docker("kill", self.container(node))

    def start(self, node: str) -> None:
        """Switch a node on and wait until it is ready."""
        _docker("start", self.container(node))
        self.wait(node)

    def container(self, node: str) -> str:
        return f"{self.id}-{node}"

    def wait(self, node: str) -> None:
        """Wait until systemd has finished booting and sshd greets. A unit that failed ends the wait as well: it is the node's state."""
        address = next(n.address for n in self.nodes if n.name == node)
        deadline = time.monotonic() + READY_SECONDS
        state = ""
        while state not in ("running", "degraded") or not _greets(address):
            if time.monotonic() > deadline:
                failed = self.exec(node, ["systemctl", "--failed", "--plain", "--no-legend"], check=False)
                raise Refusal(
                    f"{node} is not ready after {READY_SECONDS} s: systemd says '{state}'\n{failed.stdout}{failed.stderr}".strip(),
                    f"Look around in it: docker exec -it {self.container(node)} bash",
                    ExitCode.NODES_FAILED,
                    node=node,
                )
            state = self.exec(node, ["systemctl", "is-system-running", "--wait"], check=False).stdout.strip()
            time.sleep(0.1)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[int]:
        folder = paths.state("labs")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (folder / "lock").open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield stream.fileno()

    def _remove(self) -> None:
        """By Docker's own word, not by what a file says was made."""
        if containers := _docker("ps", "--all", "--quiet", "--filter", f"label=bzzz.lab={self.id}").split():
            _docker("rm", "--force", "--volumes", *containers)
        if networks := _docker("network", "ls", "--quiet", "--filter", f"label=bzzz.lab={self.id}").split():
            _docker("network", "rm", *networks)

    def _seed(self, nodes: list[Node]) -> None:
        """The key, and the directory that every node sees at /media/lab."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self.key.exists():
            with tempfile.TemporaryDirectory(dir=self.directory) as folder:
                new = Path(folder, "key")
                subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", self.id, "-f", str(new)], check=True)
                new.with_suffix(".pub").replace(self.key.with_suffix(".pub"))
                new.replace(self.key)
        seed = self.directory / "seed"
        write(seed / "authorized_keys", self.key.with_suffix(".pub").read_text(encoding="utf-8"))
        write(seed / "hosts", "".join(f"{node.address} {node.name}\n" for node in nodes))
        write(seed / "resolv.conf", "".join(f"nameserver {server}\n" for server in name_servers()))

    def _playbook(self, variables: dict[str, Any], lock: int) -> None:
        log = self.directory / "up.log"
        command = [
            tool("ansible-playbook"),
            "-i",
            "localhost,",
            "-e",
            json.dumps(variables),
            str(CHECKOUT / "playbooks/lab.yml"),
        ]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")} | {"ANSIBLE_NOCOLOR": "1"}
        # Into a file, not a pipe: if we are killed, it ends in peace, and holds the lock until then.
        with log.open("w", encoding="utf-8") as stream:
            process = subprocess.Popen(
                command, cwd=CHECKOUT, env=environment, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, pass_fds=[lock]
            )
        with log.open(encoding="utf-8") as stream:
            ended = False
            while not ended:
                ended = process.poll() is not None  # before reading, so that the last lines are read, too
                for line in stream:
                    if task := re.match(r"TASK \[(Make .+|Start .+)\]", line):
                        self._say(f"{task[1][:1].lower()}{task[1][1:]}…")
                time.sleep(0 if ended else 0.1)
        if process.returncode:
            said = log.read_text(encoding="utf-8").strip().splitlines()[-25:]
            raise Refusal(
                "the lab could not be made:\n" + "\n".join(said),
                f"The whole log is in {log}. To begin anew: ./bzzz lab down",
                ExitCode.NODES_FAILED,
            )

    def _ssh_options(self) -> list[str]:
        return ["-o", f"UserKnownHostsFile={self.inventory / KNOWN_HOSTS}", "-o", "StrictHostKeyChecking=yes", "-o", "IdentitiesOnly=yes"]

    def _write_inventory(self, nodes: list[Node], *, storage: bool) -> None:
        """hosts.yml and known_hosts.txt are ours; options in group_vars are the operator's once they are there."""
        names = [node.name for node in nodes]
        coordinators = names[:3] if len(names) >= 3 else names[:1]
        write(
            self.inventory / HOSTS,
            dump(
                {
                    "bzzz": {
                        "children": {
                            "coordinators": {"hosts": {name: {} for name in coordinators}},
                            "workers": {"hosts": {node.name: {"ansible_host": node.address} for node in nodes}},
                            "storage": {"hosts": {name: {} for name in (names if storage else [])}},
                        },
                        "vars": {
                            "ansible_user": USER,
                            "ansible_ssh_private_key_file": str(self.key),
                            "ansible_host_key_checking": True,
                            "ansible_ssh_common_args": " ".join([*self._ssh_options(), "-o", "HostKeyAlias={{ ansible_host }}"]),
                            "ansible_become": True,
                            "ansible_python_interpreter": "/usr/bin/python3",
                        },
                    }
                }
            ),
        )
        if not (self.inventory / MAIN).exists():
            write(self.inventory / MAIN, dump({"declaration_cluster_name": self.id}))
        # Read beside SSH, so that there is no first connection to be trusted blindly.
        keys = {node: self.exec(node.name, ["sh", "-c", "cat /etc/ssh/ssh_host_*_key.pub"]).stdout.splitlines() for node in nodes}
        lines = [f"{node.name},{node.address} {' '.join(key.split()[:2])}\n" for node, found in keys.items() for key in found]
        write(self.inventory / KNOWN_HOSTS, "".join(lines))


def free_subnet(seed: str, taken: Iterable[ipaddress.IPv4Network]) -> ipaddress.IPv4Network:
    """A /24 of POOL that overlaps nothing taken; where the search begins depends on the seed, so that labs seldom meet."""
    in_use = list(taken)
    candidates = list(POOL.subnets(new_prefix=24))
    first = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:4], "big") % len(candidates)
    for candidate in candidates[first:] + candidates[:first]:
        if not any(candidate.overlaps(network) for network in in_use):
            return candidate
    raise Refusal(
        f"every network of {POOL} is in use on this machine", "Remove labs that are no longer needed: ./bzzz lab down --name NAME"
    )


def taken_networks() -> list[ipaddress.IPv4Network]:
    """Networks that this machine has routes to, that Docker has given out, and its name servers' addresses."""
    routes = json.loads(
        subprocess.run(["ip", "-json", "-4", "route", "show", "table", "all"], capture_output=True, text=True, check=True).stdout
    )
    found = [route["dst"] for route in routes if route["dst"] != "default"]
    if networks := _docker("network", "ls", "--quiet").split():
        found += [
            config["Subnet"]
            for network in json.loads(_docker("network", "inspect", *networks))
            for config in network["IPAM"]["Config"] or []
        ]
    found += name_servers()
    return [ipaddress.IPv4Network(network, strict=False) for network in found if ":" not in network]


def name_servers() -> list[str]:
    """IPv4 name servers that a node can reach. None when this machine only has one on its loopback; nodes then keep Docker's."""
    for file in RESOLVERS:
        text = file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
        found = re.findall(r"^nameserver\s+(\d+\.\d+\.\d+\.\d+)\s*$", text, re.MULTILINE)
        if reachable := [server for server in found if not ipaddress.IPv4Address(server).is_loopback]:
            return reachable
    return []


def _docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout


def _greets(address: str) -> bool:
    try:
        with socket.create_connection((address, 22), timeout=2) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


Name = Annotated[str, typer.Option(help="Name of the lab.")]
Nodes = Annotated[int, typer.Option(min=1, max=NODES_MAX, help="How many nodes.")]
System = Annotated[str | None, typer.Option("--os", help=f"Debian release of new nodes: {', '.join(SYSTEMS)}.", show_default="bookworm")]
app = typer.Typer(help="Lab nodes: containers that boot systemd and sshd.", no_args_is_help=True)
demo = typer.Typer(help="A working cluster on lab nodes, from nothing.", invoke_without_command=True)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Refusals become output and exit code."""
    try:
        yield
    except Refusal as refused:
        terminal.show_problems(terminal.console(stderr=True), refused.problems)
        raise typer.Exit(refused.code) from None


@app.command()
def up(nodes: Nodes = 3, name: Name = DEMO, system: System = None) -> None:
    """Have so many nodes running; those that are there keep their state."""
    with _told():
        lab = Lab(name, typer.echo)
        for node in lab.up(nodes, system=system):
            typer.echo(f"{node.name}  {node.address}  {node.os}")
        typer.echo(f"inventory: {lab.inventory}")


@app.command()
def down(name: Name = DEMO) -> None:
    """Remove nodes, network, volumes, key and inventory."""
    with _told():
        Lab(name, typer.echo).down()
        typer.echo(f"lab {name} is gone")


@app.command()
def status(name: Name = DEMO) -> None:
    """Show the lab's nodes."""
    with _told():
        lab = Lab(name)
        machine.prepare(typer.echo)
        nodes = lab.nodes
        for node in nodes:
            running = _docker("inspect", "--format", "{{.State.Status}}", lab.container(node.name)).strip()
            typer.echo(f"{node.name}  {node.address}  {node.os}  {running}")
        typer.echo(f"inventory: {lab.inventory}" if nodes else f"there is no lab {name}; make it with: ./bzzz lab up --name {name}")


@app.command()
def shell(node: str, name: Name = DEMO) -> None:
    """Open a root shell on a node, beside SSH."""
    with _told():
        os.execvp("docker", ["docker", "exec", "-it", Lab(name).container(node), "bash"])  # noqa: S606


@demo.callback()
def demo_up(context: typer.Context, nodes: Nodes = 3, system: System = None) -> None:
    """Make lab nodes, run all eight steps on them, and leave the cluster and the wizard up."""
    if context.invoked_subcommand:
        return
    lab = Lab(DEMO, typer.echo)
    try:
        first = lab.up(nodes, system=system)[0]
    except Refusal as refused:
        terminal.show_problems(terminal.console(stderr=True), refused.problems)
        if refused.code == ExitCode.NODES_FAILED:
            _look_here()
        raise typer.Exit(refused.code) from None
    folder = os.path.relpath(lab.inventory)
    wizard = _Wizard(lab)
    wizard.start()  # its page is built meanwhile
    code = subprocess.run([tool("bzzz-setup"), "apply", "-i", str(lab.inventory)], check=False).returncode
    inside = f"docker exec {lab.container(first.name)} cat"
    lines = {
        "Wizard": wizard.link(),
        "Status page": f"https://{first.address}:8080/",
        "Its token": f"{inside} /var/lib/bzzz/secrets/service_token",
        "Its CA": f"{inside} /etc/bzzz/tls/ca.crt",
        "Verify": f"./bzzz verify -i {folder}",
    }
    if code:
        lines = {"Not complete": f"the run ended with exit code {code}; to go on from there: ./bzzz apply -i {folder}"}
        lines |= {"Wizard": wizard.link()}
    lines |= {"Look inside": f"./bzzz lab shell {first.name}", "Remove": "./bzzz demo down"}
    typer.echo("\n" + "\n".join(f"{title + ':':<14}{text}" for title, text in lines.items()))
    raise typer.Exit(code)


def _look_here() -> None:
    """Where no lab can be had: what the product finds on this machine, and would do to it."""
    typer.echo("\nWithout lab nodes there is this machine to look at; nothing is changed on it.")
    with tempfile.TemporaryDirectory(prefix="bzzz-here-") as parent:
        folder = shutil.copytree(CHECKOUT / "inventories/single", Path(parent, "inventory"))
        # Neither sudo nor its password may be there; what only root can see is told as such.
        write(folder / MAIN, dump({**load((folder / MAIN).read_text(encoding="utf-8")), "ansible_become": False}))
        for command in ("detect", "plan"):
            typer.echo(f"\n== {command}")
            subprocess.run([tool("bzzz-setup"), command, "-i", str(folder)], check=False)
    typer.echo("\nTo set this machine up as a cluster of one: sudo ./bzzz apply -i inventories/single")


@demo.command("down")
def demo_down() -> None:
    """Remove the demo's cluster and its nodes, and end its wizard."""
    lab = Lab(DEMO)
    _Wizard(lab).stop()
    down(DEMO)
    if reports := run.runs(lab.id):
        typer.echo(f"the reports of its runs stay: {reports[0].parent}")


class _Wizard:
    """`bzzz-setup web` over a lab's inventory, which goes on when the command that has started it has ended."""

    def __init__(self, lab: Lab) -> None:
        self._lab, self._log, self._pid = lab, lab.directory / "wizard.log", lab.directory / "wizard.pid"

    def start(self) -> None:
        """Nothing, where it is there already."""
        if self._process():
            return
        with socket.socket() as trial:
            taken = trial.connect_ex(("127.0.0.1", WIZARD_PORT)) == 0
        command = [tool("bzzz-setup"), "web", "-i", str(self._lab.inventory), "--port", "0" if taken else str(WIZARD_PORT)]
        with os.fdopen(os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        write(self._pid, str(process.pid))

    def link(self) -> str:
        """Its address, with the token for the first account where there is none yet; or why there is none."""
        until = time.monotonic() + WIZARD_SECONDS
        told = False
        while time.monotonic() < until and self._process():
            if found := re.search(r"The wizard is at (\S+)", self._log.read_text(encoding="utf-8")):
                return found[1]
            if not told:
                typer.echo("the wizard's page is being built…")
                told = True
            time.sleep(0.2)
        return f"it is not up, see {self._log}; start it by hand: ./bzzz web -i {os.path.relpath(self._lab.inventory)}"

    def _process(self) -> int | None:
        """Its pid, if it is alive; a pid may have become another's."""
        with contextlib.suppress(OSError, ValueError):
            pid = int(self._pid.read_text(encoding="ascii"))
            if str(self._lab.inventory).encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                return pid
        return None

    def stop(self) -> None:
        if pid := self._process():
            os.kill(pid, signal.SIGTERM)
        self._pid.unlink(missing_ok=True)
