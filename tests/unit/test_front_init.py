# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""`bzzz-setup init` against real SSH servers on loopback addresses."""

from __future__ import annotations

import functools
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pexpect
import pytest
import yaml
from ansible_collections.bzzz.cluster.plugins.module_utils.addresses import is_host_name
from hypothesis import given
from hypothesis import strategies as st

from bzzz_setup import declaration, init
from bzzz_setup.events import Refusal

NETWORK = "127.77.4"


class Servers:
    """SSH servers that show their host key and let nobody in."""

    def __init__(self) -> None:
        self.sockets: list[socket.socket] = []
        self.keys: dict[str, paramiko.PKey] = {}
        self.port = 0

    def add(self, address: str) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, self.port))
        self.port = listener.getsockname()[1]
        listener.listen(16)
        self.sockets.append(listener)
        self.keys[address] = paramiko.ECDSAKey.generate()
        threading.Thread(target=self._serve, args=(listener, self.keys[address]), daemon=True).start()

    def _serve(self, listener: socket.socket, key: paramiko.PKey) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(connection, key), daemon=True).start()

    @staticmethod
    def _talk(connection: socket.socket, key: paramiko.PKey) -> None:
        transport = paramiko.Transport(connection)
        transport.add_server_key(key)
        try:
            transport.start_server(server=paramiko.ServerInterface())
        except (paramiko.SSHException, EOFError, OSError):
            transport.close()  # ssh-keyscan hangs up as soon as it has the key

    def line(self, address: str) -> str:
        key = self.keys[address]
        return f"{address} {key.get_name()} {key.get_base64()}\n"


@pytest.fixture
def servers() -> Iterator[Servers]:
    made = Servers()
    yield made
    for listener in made.sockets:
        listener.close()


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "home").mkdir()
    (tmp_path / "work").mkdir()
    return {"HOME": str(tmp_path / "home"), "PATH": os.environ["PATH"], "LANG": "C.UTF-8", "USER": "someone", "LOGNAME": "someone"}


def setup(environment: dict[str, str], *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bzzz_setup", *arguments]
    cwd = Path(environment["HOME"]).parent / "work"
    return subprocess.run(command, env=environment, cwd=cwd, input=given, capture_output=True, text=True, timeout=120, check=False)


def listed(folder: Path) -> dict[str, dict[str, object]]:
    """Each node's variables, as Ansible reads them."""
    said = subprocess.run(
        [sys.executable, "-m", "ansible", "inventory", "-i", str(folder / "hosts.yml"), "--list"],
        capture_output=True,
        text=True,
        check=True,
    )
    hosts = json.loads(said.stdout)["_meta"]["hostvars"]
    return {
        host: {
            name: value["__ansible_unsafe"] if isinstance(value, dict) and "__ansible_unsafe" in value else value
            for name, value in given.items()
        }
        for host, given in hosts.items()
    }


def collection(folder: Path, environment: dict[str, str], play: dict[str, object]) -> None:
    """Puts a collection in force, whose step 1 is this play."""
    playbooks = folder / "collections/ansible_collections/bzzz/cluster/playbooks"
    playbooks.mkdir(parents=True)
    head = {"name": "Step 1 of 8: detection", "hosts": "bzzz", "gather_facts": False}
    (playbooks / "step_1_detection.yml").write_text(yaml.safe_dump([{**head, **play}]))
    (playbooks / "step_2_network.yml").write_text(yaml.safe_dump([{**head, "name": "Step 2 of 8: network"}]))
    environment["ANSIBLE_COLLECTIONS_PATH"] = str(folder / "collections")


@pytest.mark.requirement("1.1.6", part="init")
def test_a_network_becomes_an_inventory_of_those_that_answer(servers: Servers, environment: dict[str, str], tmp_path: Path) -> None:
    for last in (2, 5, 9):
        servers.add(f"{NETWORK}.{last}")
    folder = tmp_path / "new/mine"
    done = setup(
        environment,
        *("init", "-i", str(folder), "--nodes", f"{NETWORK}.9, {NETWORK}.0/29", "--port", str(servers.port)),
        *("--user", "root", "--name", "lab-1", "--accept-host-keys"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    nodes = listed(folder)
    assert {name: given["ansible_host"] for name, given in nodes.items()} == {
        "node1": f"{NETWORK}.9",
        "node2": f"{NETWORK}.2",
        "node3": f"{NETWORK}.5",
    }
    common = {
        "ansible_port": servers.port,
        "ansible_user": "root",
        "ansible_become": True,
        "ansible_host_key_checking": True,
        "ansible_python_interpreter": "/usr/bin/python3",
        "declaration_cluster_name": "lab-1",
    }
    assert all(common.items() <= given.items() for given in nodes.values())
    assert (folder / "known_hosts.txt").read_text() == "".join(sorted(servers.line(f"{NETWORK}.{last}") for last in (2, 5, 9)))
    groups = yaml.safe_load((folder / "hosts.yml").read_text().replace("!unsafe", ""))["bzzz"]["children"]
    assert {name: list(group["hosts"]) for name, group in groups.items()} == {
        "coordinators": ["node1", "node2", "node3"],
        "workers": ["node1", "node2", "node3"],
        "storage": [],
    }
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) == [
        "group_vars",
        "group_vars/bzzz",
        "group_vars/bzzz/main.yml",
        "host_vars",
        "hosts.yml",
        "known_hosts.txt",
    ]
    assert [path.name for path in folder.parent.iterdir()] == ["mine"]


@pytest.mark.requirement("F3", part="host keys pinned")
def test_host_keys_are_shown_and_not_accepted_unasked(servers: Servers, environment: dict[str, str], tmp_path: Path) -> None:
    address = f"{NETWORK}.2"
    servers.add(address)
    folder = tmp_path / "mine"
    done = setup(environment, "init", "-i", str(folder), "--nodes", address, "--port", str(servers.port))
    assert done.returncode == 2
    known = subprocess.run(
        ["ssh-keygen", "-lf", "-"], input=servers.line(address), capture_output=True, text=True, check=True
    ).stdout.split()[1]
    assert known in done.stdout
    assert "Remedy:" in done.stderr
    assert not folder.exists()


@pytest.mark.requirement("F3", part="host keys pinned")
def test_only_the_pinned_key_lets_a_run_through(servers: Servers, environment: dict[str, str], tmp_path: Path) -> None:
    """In a folder whose path needs quoting. The servers let nobody in: with the right key, SSH gets as far as being told so."""
    address, other = f"{NETWORK}.2", f"{NETWORK}.3"
    servers.add(address)
    servers.add(other)
    folder = tmp_path / "my inventories" / "it's one"
    folder.parent.mkdir()
    collection(tmp_path, environment, {"tasks": [{"ansible.builtin.ping": {}}]})
    arguments = ["--nodes", address, "--port", str(servers.port), "--user", "root", "--known-hosts", str(tmp_path / "given")]
    # Given, not asked for: whether ssh-keyscan gets its answer in time is another test's matter.
    (tmp_path / "given").write_text(servers.line(address).replace(address, f"[{address}]:{servers.port}"))
    assert setup(environment, "init", "-i", str(folder), *arguments).returncode == 0

    def said() -> str:
        done = setup(environment, "detect", "-i", str(folder), "--json")
        assert done.returncode == 3, done.stdout + done.stderr
        document = json.loads(done.stdout)
        assert [failure["kind"] for failure in document["failures"]] == ["unreachable"]
        return str(document["failures"][0]["message"])

    assert "Permission denied" in said()
    (folder / "known_hosts.txt").write_text(servers.line(other).replace(other, address))
    assert "Host key verification failed" in said()
    environment["ANSIBLE_HOST_KEY_CHECKING"] = "False"
    assert "Host key verification failed" in said()


@pytest.mark.requirement("F3", part="host keys pinned")
@pytest.mark.parametrize("hashed", [False, True])
def test_known_hosts_given_out_of_band(environment: dict[str, str], tmp_path: Path, hashed: bool) -> None:
    """No machine is asked; only the nodes' own lines are taken."""
    given = tmp_path / "given"
    key = paramiko.ECDSAKey.generate()
    lines = [f"{host} {key.get_name()} {key.get_base64()}\n" for host in ("gpu1.example.test", "stranger")]
    given.write_text("".join(lines))
    if hashed:
        subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(given)], check=True, capture_output=True)
    arguments = ["--known-hosts", str(given), "--json"]
    missing = setup(environment, "init", "-i", str(tmp_path / "a"), "--nodes", "gpu1.example.test gpu2", *arguments)
    assert missing.returncode == 2
    assert "holds no key of gpu2" in json.loads(missing.stdout)["problems"][0]["message"]
    done = setup(environment, "init", "-i", str(tmp_path / "b"), "--nodes", "gpu1.example.test", *arguments)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["nodes"] == {"gpu1": "gpu1.example.test"}
    pinned = (tmp_path / "b/known_hosts.txt").read_text()
    assert len(pinned.splitlines()) == 1
    assert hashed or pinned == lines[0]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "no nodes are named"),
        (["--nodes", "10.0.0.0/21"], 2, "trying more than 1024"),
        (["--nodes", "10.0.0.5/24"], 2, "Did you mean 10.0.0.0/24?"),
        (["--nodes", "127.0.0.1", "--name", "../x"], 2, "no cluster name"),
        (["--nodes", "127.0.0.1", "--user", "{{ x }}"], 2, "no user name"),
        (["--nodes", "127.0.0.1", "--ssh-key", "/nonexistent"], 2, "no private key at /nonexistent"),
        (["--nodes", "127.0.0.1", "--port", "1", "--coordinators", "2"], 2, "2 coordinators of 1 nodes"),
        (["--nodes", "127.0.0.1", "--port", "1", "--coordinators", "n9"], 2, "'n9' is none of the nodes"),
        (["--nodes", "127.0.0.1", "--port", "1"], 3, "no SSH server answers on port 1 of 127.0.0.1"),
        (["--nodes", "127.77.9.0/30", "--port", "1"], 3, "No SSH server answers on port 1"),
    ],
)
def test_what_init_refuses(environment: dict[str, str], tmp_path: Path, arguments: list[str], code: int, said: str) -> None:
    folder = tmp_path / "mine"
    done = setup(environment, "init", "-i", str(folder), *arguments, "--json")
    document = json.loads(done.stdout)
    assert (done.returncode, document["exit_code"]) == (code, code)
    assert said in document["problems"][0]["message"] + document["problems"][0]["remedy"]
    assert document["problems"][0]["remedy"]
    assert not folder.exists()


def test_an_existing_inventory_is_replaced_only_by_force(servers: Servers, environment: dict[str, str], tmp_path: Path) -> None:
    servers.add(f"{NETWORK}.2")
    folder = tmp_path / "work/inventories/mine"
    folder.mkdir(parents=True)
    (folder / "hosts.yml").write_text("precious")
    arguments = ["--nodes", f"{NETWORK}.2", "--port", str(servers.port), "--accept-host-keys"]
    refused = setup(environment, "init", *arguments)
    assert refused.returncode == 2
    assert "exists already" in refused.stderr
    assert (folder / "hosts.yml").read_text() == "precious"
    assert setup(environment, "init", *arguments, "--force").returncode == 0
    assert list(listed(folder)) == ["node1"]
    aside = [path for path in folder.parent.iterdir() if path != folder]
    assert [(path / "hosts.yml").read_text() for path in aside] == ["precious"]
    # What was put aside, and what ships with the collection, are not meant by default.
    (folder.parent / "example").mkdir()
    (folder.parent / "example/hosts.yml").write_text("")
    assert json.loads(setup(environment, "status", "--json").stdout)["cluster"] == "bzzz"
    (folder.parent / "other").mkdir()
    (folder.parent / "other/hosts.yml").write_text("")
    ambiguous = setup(environment, "status")
    assert ambiguous.returncode == 2
    assert "more than one inventory: inventories/mine, inventories/other" in ambiguous.stderr
    environment["BZZZ_INVENTORY"] = "inventories/mine"
    assert setup(environment, "status").returncode == 0


@pytest.mark.requirement("F3", part="typed text is data, secrets in the vault")
def test_what_is_typed_is_data_and_secrets_are_encrypted(servers: Servers, environment: dict[str, str], tmp_path: Path) -> None:
    servers.add(f"{NETWORK}.2")
    trap, folder, canary = tmp_path / "trap", tmp_path / "mine", "canary-{{ 1 + 1 }}-c09f"
    # A path that would run a command on the admin host, were it a template.
    key = tmp_path / ("{{ lookup('pipe', 'touch " + str(trap).replace("/", "$SLASH") + "') }}")
    key.write_text("")
    done = setup(
        environment,
        *("init", "-i", str(folder), "--nodes", f"{NETWORK}.2", "--port", str(servers.port), "--accept-host-keys"),
        *("--ssh-key", str(key), "--secret", "service_token", "--secret", "ansible_become_password"),
        given=f"{canary}\nother\n",
    )
    assert done.returncode == 0, done.stderr
    assert declaration.Declaration.read(folder).options["ansible_ssh_private_key_file"] == str(key)
    key_file = Path(environment["HOME"]) / ".config/bzzz/bzzz/vault-key"
    assert key_file.stat().st_mode & 0o777 == 0o600
    assert key_file.parent.stat().st_mode & 0o777 == 0o700
    for file in [*folder.rglob("*"), *Path(environment["HOME"]).rglob("*")]:
        assert not file.is_file() or canary not in file.read_text()
    assert (folder / "group_vars/bzzz/vault.yml").read_text().startswith("$ANSIBLE_VAULT;")
    assert canary not in done.stdout + done.stderr
    # Ansible sees both as they were typed.
    proof = tmp_path / "proof"
    collection(
        tmp_path,
        environment,
        {
            "vars": {"ansible_become": False, "ansible_connection": "local", "ansible_python_interpreter": sys.executable},
            "tasks": [
                {
                    "ansible.builtin.copy": {
                        "content": "{{ [service_token, ansible_ssh_private_key_file] | to_json }}",
                        "dest": str(proof),
                    },
                    "no_log": True,
                }
            ],
        },
    )
    ran = setup(environment, "detect", "-i", str(folder), "--json")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert json.loads(proof.read_text()) == [canary, str(key)]
    assert not trap.exists()


@pytest.mark.requirement("1.1.6", part="init asks in a terminal")
def test_init_asks_in_a_terminal(servers: Servers, environment: dict[str, str], tmp_path: Path) -> None:
    servers.add(f"{NETWORK}.2")
    folder = tmp_path / "mine"
    command = ["-m", "bzzz_setup", "init", "-i", str(folder), "--port", str(servers.port), "--secret", "service_token"]
    child = pexpect.spawn(sys.executable, command, env={**environment, "TERM": "xterm"}, encoding="utf-8", timeout=60)
    child.expect("Machines")
    child.sendline(f"{NETWORK}.2")
    child.expect("User to log in as")
    child.sendline("admin")
    child.expect("SHA256:")
    child.expect("own host keys")
    child.sendline("y")
    child.expect("service_token:")
    child.sendline("canary-typed")
    rest = child.read()
    child.close()
    assert child.exitstatus == 0, rest
    assert "canary-typed" not in rest
    assert declaration.Declaration.read(folder).options["ansible_user"] == "admin"


def test_control_c_at_a_question_is_130(environment: dict[str, str], tmp_path: Path) -> None:
    command = ["-m", "bzzz_setup", "init", "-i", str(tmp_path / "mine")]
    # Whoever started the tests in the background had them, and all that they start, ignore it.
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    environment = {**environment, "TERM": "xterm"}
    child = pexpect.spawn(sys.executable, command, env=environment, encoding="utf-8", timeout=60, preexec_fn=heed)
    child.expect("Machines")
    child.sendintr()
    child.read()
    child.close()
    assert child.exitstatus == 130


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc"))),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.from_regex(r"[a-z_]{1,9}", fullmatch=True), inner, max_size=3),
    max_leaves=10,
)


@given(values)
def test_a_declaration_reads_back_what_was_typed(value: object) -> None:
    text = declaration.dump({"option": declaration.typed(value)})
    assert declaration.load(text) == {"option": value}
    assert "{{" not in text or "!unsafe" in text


@given(
    st.lists(
        st.ip_addresses().map(str) | st.from_regex(r"[a-z][a-z0-9]{0,5}(\.[a-c]{1,2})?", fullmatch=True).filter(is_host_name),
        min_size=1,
        unique=True,
    )
)
def test_every_node_has_a_name_of_its_own(addresses: list[str]) -> None:
    nodes = init.named(addresses)
    assert list(nodes.values()) == addresses
    assert all(is_host_name(name) for name in nodes)


@given(st.integers(1, 9), st.none() | st.integers(0, 12).map(str))
def test_coordinators_are_nodes(count: int, wanted: str | None) -> None:
    nodes = {f"n{number}": f"10.0.0.{number}" for number in range(count)}
    try:
        chosen = init.choose_coordinators(wanted, nodes)
    except Refusal:
        assert wanted is not None
        assert not 1 <= int(wanted) <= count
    else:
        assert set(chosen) <= set(nodes)
        assert len(chosen) == (int(wanted) if wanted else 3 if count >= 3 else 1)


def test_shell_quoting_of_the_next_command(servers: Servers, environment: dict[str, str], tmp_path: Path) -> None:
    servers.add(f"{NETWORK}.2")
    folder = tmp_path / "a b"
    done = setup(environment, "init", "-i", str(folder), "--nodes", f"{NETWORK}.2", "--port", str(servers.port), "--accept-host-keys")
    assert f"bzzz-setup detect -i {shlex.quote(str(folder))}" in done.stdout


# --- SSH keys ---


@pytest.fixture
def agent(environment: dict[str, str], tmp_path: Path) -> Iterator[Path]:
    """A real ssh-agent, in `environment`; ~/.ssh has a key, one with a passphrase, and one that only the agent has. Returns ~/.ssh."""
    folder = Path(environment["HOME"]) / ".ssh"
    folder.mkdir(mode=0o700)
    for name, kind, passphrase, comment in (
        ("id_rsa", "rsa", "", "old (work)"),
        ("locked", "ed25519", SECRET, "locked"),
        ("away", "ed25519", "", ""),
    ):
        subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", comment, "-f", folder / name], check=True)
    (folder / "broken.pub").write_text("gibberish")
    (folder / "alone.pub").write_bytes((folder / "id_rsa.pub").read_bytes())
    socket_file = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket_file)], stdout=subprocess.DEVNULL)
    try:
        environment["SSH_AUTH_SOCK"] = str(socket_file)
        for _ in range(100):
            if subprocess.run(["ssh-add", "-q", folder / "away"], env=environment, capture_output=True, check=False).returncode == 0:
                break
            time.sleep(0.1)
        (folder / "away").unlink()
        (folder / "away.pub").rename(tmp_path / "away.pub")
        yield folder
    finally:
        process.terminate()
        process.wait()


SECRET = "canary-Passphrase-77f1"


def fingerprint(public: Path) -> str:
    return subprocess.run(["ssh-keygen", "-lf", public], capture_output=True, text=True, check=True).stdout.split()[1]


@pytest.mark.requirement("2.1.3", part="keys that there are")
def test_keys_of_agent_and_home_are_listed(environment: dict[str, str], agent: Path, tmp_path: Path) -> None:
    found = {key["name"]: key for key in json.loads(setup(environment, "keys", "--json").stdout)["keys"]}
    assert set(found) == {"ssh-agent", str(agent / "id_rsa"), str(agent / "locked")}
    assert found["ssh-agent"]["fingerprint"] == fingerprint(tmp_path / "away.pub")
    rsa, locked = found[str(agent / "id_rsa")], found[str(agent / "locked")]
    assert (rsa["kind"], rsa["bits"], rsa["comment"], rsa["locked"], rsa["agent"]) == ("RSA", "3072", "old (work)", False, False)
    assert (locked["kind"], locked["locked"], locked["agent"]) == ("ED25519", True, False)
    assert "old (work)" in setup({**environment, "COLUMNS": "160"}, "keys").stdout
    del environment["SSH_AUTH_SOCK"]
    assert len(json.loads(setup(environment, "keys", "--json").stdout)["keys"]) == 2


@pytest.mark.requirement("2.1.3", part="the one chosen")
def test_the_chosen_key_and_no_other_is_what_ansible_logs_in_with(
    servers: Servers, environment: dict[str, str], agent: Path, tmp_path: Path
) -> None:
    servers.add(f"{NETWORK}.2")
    reach = ["--nodes", f"{NETWORK}.2", "--port", str(servers.port), "--accept-host-keys"]
    away = tmp_path / "away.pub"
    ways = {
        "agent": (["--ssh-key", fingerprint(away)], away.read_text()),
        "public": (["--ssh-key", str(away)], away.read_text()),
        "home": (["--ssh-key", fingerprint(agent / "id_rsa.pub")], None),
        "file": (["--ssh-key", "~/.ssh/id_rsa"], None),
    }
    for name, (way, public) in ways.items():
        done = setup(environment, "init", "-i", str(tmp_path / f"by-{name}"), *reach, *way)
        assert done.returncode == 0, done.stderr
        options = declaration.Declaration.read(tmp_path / f"by-{name}").options
        file = Path(options["ansible_ssh_private_key_file"])
        assert file == agent / "id_rsa" if public is None else file.read_text().split()[:2] == public.split()[:2]
        assert options["ansible_ssh_common_args"].endswith("-o IdentitiesOnly=yes") and "ansible_ssh_private_key" not in options
    for wrong, says in (("SHA256:none", "bzzz-setup keys"), (str(agent / "locked.pub"), "ssh-add"), (str(agent / "locked"), "passphrase")):
        done = setup(environment, "init", "-i", str(tmp_path / "wrong"), *reach, "--ssh-key", wrong)
        assert done.returncode == 2 and says in done.stderr, done.stderr
    kept = ["--ssh-key", str(agent / "locked"), "--secret", "ansible_ssh_private_key_passphrase"]
    assert "does not open" in setup(environment, "init", "-i", str(tmp_path / "wrong"), *reach, *kept, given="no\n").stderr
    done = setup(environment, "init", "-i", str(tmp_path / "kept"), *reach, *kept, given=f"{SECRET}\n")
    assert done.returncode == 0, done.stderr
    assert SECRET not in done.stdout + done.stderr + "".join(file.read_text() for file in (tmp_path / "kept").rglob("*") if file.is_file())
    assert not (tmp_path / "wrong").exists()


@pytest.mark.requirement("2.1.3", part="offered in a terminal")
def test_init_offers_the_keys_in_a_terminal(servers: Servers, environment: dict[str, str], agent: Path, tmp_path: Path) -> None:
    servers.add(f"{NETWORK}.2")
    command = ["-m", "bzzz_setup", "init", "-i", str(tmp_path / "mine"), "--nodes", f"{NETWORK}.2", "--port", str(servers.port)]
    child = pexpect.spawn(
        sys.executable, [*command, "--user", "root"], env={**environment, "TERM": "xterm", "COLUMNS": "160"}, encoding="utf-8", timeout=60
    )
    child.setwinsize(50, 160)
    child.expect("locked.*wants a passphrase")
    child.expect("Key to log in with")
    child.sendline("3")
    child.expect("kept in the vault")
    child.expect("own host keys")
    child.sendline("y")
    child.expect("ansible_ssh_private_key_passphrase:")
    child.sendline(SECRET)
    rest = child.read()
    child.close()
    assert child.exitstatus == 0, rest
    made = declaration.Declaration.read(tmp_path / "mine")
    assert made.options["ansible_ssh_private_key_file"] == str(agent / "locked") and SECRET not in rest
    assert "ansible_ssh_private_key" in made.options


@pytest.mark.requirement("2.1.2", part="given to init")
def test_a_public_key_is_given_to_init_and_a_private_one_refused(
    servers: Servers, environment: dict[str, str], agent: Path, tmp_path: Path
) -> None:
    servers.add(f"{NETWORK}.2")
    reach = ["--nodes", f"{NETWORK}.2", "--port", str(servers.port), "--accept-host-keys"]
    text, file = (tmp_path / "away.pub").read_text().strip(), agent / "locked.pub"
    done = setup(environment, "init", "-i", str(tmp_path / "mine"), *reach, "--public-key", text, "--public-key", str(file))
    assert done.returncode == 0, done.stderr
    options = declaration.Declaration.read(tmp_path / "mine").options
    assert options["ssh_public_keys"] == [text, file.read_text().strip()] and options["ssh_key_source"] == "provided"
    assert set(listed(tmp_path / "mine")) == {"node1"}, "Ansible does not read it"

    private = (agent / "id_rsa").read_text()
    part = private.splitlines()[10]
    weak = tmp_path / "weak"
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", weak], check=True)
    for pasted, says in (
        (private, "private key"),
        (str(agent / "id_rsa"), "private key"),
        (part, "no public key"),
        (str(weak.with_suffix(".pub")), "2048 bits is too weak"),
        (str(tmp_path / "none.pub"), "no public key"),
    ):
        done = setup(environment, "init", "-i", str(tmp_path / "refused"), *reach, "--public-key", pasted, "--json")
        (told,) = json.loads(done.stdout)["problems"]
        assert done.returncode == 2 and says in told["message"] and told["remedy"], told
        assert part not in done.stdout + done.stderr and not (tmp_path / "refused").exists()
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and part in path.read_text()]
    assert kept == [agent / "id_rsa"]


@pytest.mark.requirement("2.1.4", part="a changed host key is looked at, and accepted by its fingerprint")
def test_a_changed_host_key_is_told_and_accepted_by_fingerprint(servers: Servers, environment: dict[str, str], tmp_path: Path) -> None:
    for last in (2, 3):
        servers.add(f"{NETWORK}.{last}")
    folder = tmp_path / "mine"
    arguments = ["--nodes", f"{NETWORK}.2-3", "--port", str(servers.port), "--accept-host-keys", "--secret", "service_token"]
    assert setup(environment, "init", "-i", str(folder), *arguments, given="some token\n").returncode == 0

    def looked(*more: str) -> tuple[int, dict[str, dict[str, object]]]:
        done = setup(environment, "host-keys", "-i", str(folder), "--json", *more)
        return done.returncode, json.loads(done.stdout).get("nodes", {})

    code, nodes = looked()
    assert code == 0 and {name: node["trusted"] for name, node in nodes.items()} == {"node1": True, "node2": True}
    known_hosts, former = folder / "known_hosts.txt", paramiko.ECDSAKey.generate()
    pinned = f"{NETWORK}.3 {former.get_name()} {former.get_base64()}\n"
    known_hosts.write_text(servers.line(f"{NETWORK}.2") + pinned)
    code, nodes = looked()
    assert code == 1 and {name: node["trusted"] for name, node in nodes.items()} == {"node1": True, "node2": False}
    assert "changed" in setup({**environment, "COLUMNS": "160"}, "host-keys", "-i", str(folder)).stdout
    presented, before = nodes["node2"]["presented"], known_hosts.read_text()
    assert isinstance(presented, dict)
    # Neither for all at once, nor unseen, nor another's.
    for refused in (["--accept", presented["ECDSA"]], ["node2", "--accept", "SHA256:other"], ["node1", "--accept", presented["ECDSA"]]):
        assert looked(*refused)[0] in (2, 3) and known_hosts.read_text() == before
    code, nodes = looked("node2", "--accept", presented["ECDSA"])
    assert code == 0 and nodes["node2"]["trusted"]
    assert known_hosts.read_text() == servers.line(f"{NETWORK}.2") + servers.line(f"{NETWORK}.3")
    assert sorted(path.name for path in folder.iterdir()) == ["group_vars", "host_vars", "hosts.yml", "known_hosts.txt"]
