# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""SSH, sudo, certificates and secrets on the finished cluster.

The declarations tried, one after the other: `secret` (a new key with a passphrase, a declared token), `varied` (another
user and other sudo rights on each node, a second key, longer certificates), `named` (more names in the certificates), and
at the end the lab's own again.
"""

from __future__ import annotations

import datetime
import http.client
import ipaddress
import os
import re
import secrets as randomness
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import leaks
import pytest
import requests
from conftest import Tools
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key, load_ssh_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID
from rest import Api

from bzzz_setup.declaration import KNOWN_HOSTS, VAULT, dump, write

ADMIN = "bzzz-admin"
TLS_PORTS = {"service": 8080, "etcd": 2379, "node_exporter": 9100}
MUTUAL = {"etcd": "/health", "node_exporter": "/metrics"}
CA_KEY = "/var/lib/bzzz/ca/ca.key"


def encrypt(tools: Tools, folder: Path, secrets: dict[str, Any]) -> str:
    """Put secrets into the folder's vault file; returns the vault's key, which lies where the front looks for it."""
    key = tools.home / ".config/bzzz" / tools.lab.id / "vault-key"
    if not key.exists():
        write(key, randomness.token_urlsafe(32), 0o600)
    write(folder / VAULT, dump(secrets), 0o600)
    subprocess.run(
        ["ansible-vault", "encrypt", "--vault-password-file", key, folder / VAULT], env=tools.environment(), capture_output=True, check=True
    )
    return key.read_text()


def address(cluster: Tools, node: str) -> str:
    return next(found.address for found in cluster.lab.nodes if found.name == node)


def login(cluster: Tools, node: str, user: str, key: Path, command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a user on a node, on a new connection with this key only, and only if the node shows its pinned host key."""
    options = {
        "UserKnownHostsFile": cluster.folder / KNOWN_HOSTS,
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        "IdentitiesOnly": "yes",
        "PreferredAuthentications": "publickey",
        "ControlPath": "none",
    }
    argv = ["ssh", "-F", "none", "-i", str(key), *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]
    return subprocess.run(
        [*argv, f"{user}@{address(cluster, node)}", command],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def key_line(pem: str) -> str:
    """A line in the middle of a private key, by which it is recognised wherever it lies. Behind it comes what its certificate has, too."""
    lines = [line for line in pem.splitlines() if line and not line.startswith("-----")]
    return lines[(len(lines) - 1) // 2]


def read(cluster: Tools, node: str, path: str) -> str:
    return cluster.lab.exec(node, ["cat", path]).stdout


def certificate(cluster: Tools, node: str, path: str = "/etc/bzzz/tls/node.crt") -> x509.Certificate:
    return x509.load_pem_x509_certificate(read(cluster, node, path).encode())


def presented(cluster: Tools, node: str, port: int) -> x509.Certificate:
    """What a TLS client is shown that trusts the cluster's authority only, and wants the node's address in the certificate."""
    context = ssl.create_default_context(cadata=read(cluster, node, "/etc/bzzz/tls/ca.crt"))
    connection = http.client.HTTPSConnection(address(cluster, node), port, context=context, timeout=20)
    connection.connect()
    shown = connection.sock.getpeercert(binary_form=True)
    connection.close()
    return x509.load_der_x509_certificate(shown)


def get_with_certificate(cluster: Tools, node: str, port: int, path: str) -> int:
    """HTTP status, asked on the node with its own certificate."""
    script = f"""
import ssl, urllib.request
context = ssl.create_default_context(cafile="/etc/bzzz/tls/ca.crt")
context.load_cert_chain("/etc/bzzz/tls/node.crt", "/etc/bzzz/tls/node.key")
print(urllib.request.urlopen("https://{address(cluster, node)}:{port}{path}", context=context, timeout=20).status)
"""
    return int(cluster.lab.exec(node, ["python3", "-"], stdin=script).stdout)


def names_of(found: x509.Certificate) -> set[str]:
    return {str(name.value) for name in found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value}


def days_left(found: x509.Certificate) -> float:
    return (found.not_valid_after_utc - datetime.datetime.now(datetime.UTC)) / datetime.timedelta(days=1)


def changed(document: dict[str, Any]) -> set[tuple[str, str]]:
    return {(change["role"], change["node"]) for change in document["changes"]}


@pytest.fixture(scope="module")
def api(cluster: Tools, tmp_path_factory: pytest.TempPathFactory) -> Api:
    return Api(cluster, tmp_path_factory.mktemp("api"))


# -- secrets ---------------------------------------------------------------------------------------------------------


@dataclass
class Secret:
    """A run with secrets in the vault. `tools` has a home directory of its own, whose key is new."""

    tools: Tools
    folder: Path
    secrets: dict[str, str]
    key: Path
    said: dict[str, str]
    watch: leaks.Watch
    allowed: set[tuple[str, str]]


def generated(cluster: Tools) -> dict[str, str]:
    """What the first set-up made: the keys of nodes, authority and administrator, and the token."""
    found = {f"key of {node}": key_line(read(cluster, node, "/etc/bzzz/tls/node.key")) for node in cluster.nodes}
    found["key of the authority"] = key_line(read(cluster, cluster.nodes[0], CA_KEY))
    found["first token"] = read(cluster, cluster.nodes[0], "/var/lib/bzzz/secrets/service_token").strip()
    found["administrator's key"] = key_line((cluster.home / ".config/bzzz" / cluster.lab.id / "id_ed25519").read_text())
    return found


@pytest.fixture(scope="module")
def secret(cluster: Tools, tmp_path_factory: pytest.TempPathFactory) -> Secret:
    """`plan --diff` and `apply` by the front, then steps 3 and 6 by Ansible alone as talkative as can be; all of them change secrets."""
    base = tmp_path_factory.mktemp("secret")
    tools = Tools(cluster.lab, base / "home")
    temporary = base / "tmp"
    temporary.mkdir()
    folder = cluster.declare(base / "inventory")
    secrets = generated(cluster) | {"passphrase": randomness.token_urlsafe(24), "token": randomness.token_urlsafe(32)}
    secrets["vault key"] = encrypt(
        tools, folder, {"ssh_key_passphrase": secrets["passphrase"], "service_token": secrets["token"], "ssh_public_keys": []}
    )
    key = tools.home / ".config/bzzz" / cluster.lab.id / "id_ed25519"
    environment = {"TMPDIR": str(temporary), "ANSIBLE_VAULT_PASSWORD_FILE": str(key.with_name("vault-key"))}
    said = {}
    with leaks.Watch(secrets, tools.home, temporary) as watch:
        for name, arguments in {"plan": ["plan", "--diff"], "apply": ["apply"]}.items():
            done = tools.setup(*arguments, folder=folder, **environment)
            said[name] = done.stdout + done.stderr
        key.unlink()
        encrypt(tools, folder, {"ssh_key_passphrase": secrets["passphrase"], "service_token": secrets["token"] + "2"})
        steps = ["bzzz.cluster.step_3_security", "bzzz.cluster.step_6_services"]
        done = tools.playbook("-vvv", "--diff", *steps, folder=folder, **environment)
        said["ansible-playbook"] = done.stdout + done.stderr
    secrets["key with a passphrase"] = key_line(key.read_text())
    allowed = {("vault key", str(key.with_name("vault-key")))}
    return Secret(tools, folder, secrets, key, said, watch, allowed)


@pytest.mark.requirement("2.1.1")
def test_the_generated_key_is_protected_by_its_passphrase(cluster: Tools, secret: Secret, tmp_path: Path) -> None:
    for key, passphrase in (
        (cluster.home / ".config/bzzz" / cluster.lab.id / "id_ed25519", None),
        (secret.key, secret.secrets["passphrase"]),
    ):
        assert key.stat().st_mode & 0o7777 == 0o600 and key.parent.stat().st_mode & 0o7777 == 0o700
        loaded = load_ssh_private_key(key.read_bytes(), passphrase.encode() if passphrase else None)
        assert isinstance(loaded, Ed25519PrivateKey)
        public = loaded.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
        assert key.with_suffix(".pub").read_text().split()[:2] == public.split()
    for wrong in (None, b"wrong"):
        with pytest.raises((TypeError, ValueError)):
            load_ssh_private_key(secret.key.read_bytes(), wrong)
    answer = tmp_path / "answer"
    write(answer, '#!/bin/sh\nprintf %s "$BZZZ_ANSWER"\n', 0o700)
    ask = {"SSH_ASKPASS": str(answer), "SSH_ASKPASS_REQUIRE": "force"}
    for node in cluster.nodes:
        assert login(cluster, node, ADMIN, secret.key, "id -un", **ask, BZZZ_ANSWER=secret.secrets["passphrase"]).stdout == f"{ADMIN}\n"
    assert login(cluster, node, ADMIN, secret.key, "id -un", **ask, BZZZ_ANSWER="wrong").returncode == 255


@pytest.mark.requirement("2.1.1", "F3", part="secrets on the admin host")
def test_no_secret_shows_in_output_processes_or_files_of_the_admin_host(cluster: Tools, secret: Secret) -> None:
    for name, said in secret.said.items():
        assert len(said) > 1000
        assert not [shown for shown, text in secret.secrets.items() if text in said], f"in the output of {name}"
    for program in ("bzzz-setup", "ansible-playbook", "/usr/bin/python3 -sE -", "sshd: operator"):
        assert any(program in seen for seen in secret.watch.programs), f"the watch has not seen {program}"
    assert secret.watch.found == secret.allowed
    kept = leaks.in_files([secret.tools.home, cluster.home, secret.folder, cluster.lab.directory], secret.secrets)
    private = {("key with a passphrase", str(secret.key))}
    private |= {("administrator's key", str(cluster.home / ".config/bzzz" / cluster.lab.id / "id_ed25519"))}
    assert kept == secret.allowed | private
    assert list(secret.tools.home.rglob("events.jsonl")), "there was no journal to look into"


@pytest.mark.requirement("F3", part="what differs is shown, secrets are not")
def test_the_plan_tells_that_secrets_change(secret: Secret) -> None:
    assert "not shown: it may hold secrets" in secret.said["plan"]
    assert re.search(r"\+\s+token_sha256", secret.said["plan"])
    assert re.search(r"\+\s+token_sha256", secret.said["ansible-playbook"])


@pytest.mark.requirement("F3", "2.3.1", part="secrets on the nodes")
def test_on_the_nodes_secrets_lie_where_they_belong_only(cluster: Tools, api: Api, secret: Secret) -> None:
    token = {"/var/lib/bzzz/secrets/service_token", "/var/lib/bzzz/sets/service/generations/*"}
    for node in cluster.nodes:
        found = {
            name: {re.sub(r"/generations/\d+/(previous-)?\d+$", "/generations/*", path) for path in paths}
            for name, paths in leaks.on_node(cluster.lab, node, secret.secrets).items()
        }
        assert found.pop(f"key of {node}") == {"/etc/bzzz/tls/node.key"}
        assert found.pop("key of the authority") == {CA_KEY, "/var/lib/bzzz/sets/tls-authority/generations/*"}
        assert found.pop("token") == token
        assert found.pop("first token") <= token  # earlier generations
        assert not any(found.values()), found
    for node in cluster.nodes:
        assert api.get(node, "/api/v1/cluster", token=secret.secrets["token"] + "2").status_code == 200
        assert api.get(node, "/api/v1/cluster", token=secret.secrets["token"]).status_code == 401


@pytest.mark.requirement("F3", part="wrong-typed secrets")
def test_a_secret_of_the_wrong_type_is_refused_unseen(cluster: Tools, tmp_path: Path) -> None:
    canary = randomness.token_urlsafe(24)
    tools = Tools(cluster.lab, tmp_path / "home")
    options = {"ssh_key_passphrase": {"a": canary}, "service_token": f"{{{{ '{canary}' | no_such_filter }}}}"}
    folder = cluster.declare(tmp_path / "inventory", options)
    with leaks.Watch({"canary": canary}, tools.home) as watch:
        for arguments in (["check"], ["plan", "--diff"], ["--json", "apply"]):
            done = tools.setup(*arguments, folder=folder, code=2)
            assert all(name in done.stdout + done.stderr for name in options)
            assert canary not in done.stdout + done.stderr
        done = tools.playbook("-vvv", "bzzz.cluster.step_3_security", folder=folder, code=2)
        assert "ssh_key_passphrase" in done.stdout and canary not in done.stdout + done.stderr
    assert watch.found == set()
    assert leaks.in_files([tools.home], {"canary": canary}) == set()
    assert all(not any(leaks.on_node(cluster.lab, node, {"canary": canary}).values()) for node in cluster.nodes)


# -- certificates ----------------------------------------------------------------------------------------------------


@pytest.mark.requirement("2.3.1")
def test_each_node_has_a_leaf_of_the_clusters_own_authority(cluster: Tools) -> None:
    authorities = {read(cluster, node, "/etc/bzzz/tls/ca.crt") for node in cluster.nodes}
    assert len(authorities) == 1
    authority = x509.load_pem_x509_certificate(authorities.pop().encode())
    constraints = authority.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical and constraints.value.ca and constraints.value.path_length == 0
    assert authority.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    assert 3649 < days_left(authority) < 3650.1
    for node in cluster.nodes:
        leaf = certificate(cluster, node)
        leaf.verify_directly_issued_by(authority)
        assert names_of(leaf) == {node, "localhost", "127.0.0.1", "::1", address(cluster, node)}
        assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert set(usage) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
        assert leaf.public_key() == load_pem_public_key(public_key(cluster, node).encode())
        for name in (f"-verify_ip {address(cluster, node)}", f"-verify_hostname {node}"):
            cluster.lab.exec(node, ["sh", "-c", f"cd /etc/bzzz/tls && openssl verify -x509_strict -CAfile ca.crt {name} node.crt"])
        key, ca_key, kept = (cluster.host(node).file(path) for path in ("/etc/bzzz/tls/node.key", CA_KEY, "/var/lib/bzzz/ca"))
        assert (key.mode, key.user, key.group) == (0o640, "root", "bzzz-tls")
        assert (ca_key.mode, ca_key.user, kept.mode) == (0o600, "root", 0o700)
    assert len({public_key(cluster, node) for node in cluster.nodes}) == len(cluster.nodes)
    assert len({read(cluster, node, CA_KEY) for node in cluster.nodes}) == 1


@pytest.mark.requirement("2.3.1")
def test_services_show_the_leaf_and_ask_for_one_where_they_must(cluster: Tools, api: Api) -> None:
    for node in cluster.nodes:
        for port in TLS_PORTS.values():
            assert presented(cluster, node, port) == certificate(cluster, node)
        assert api.get(node, "/health/live", token="").status_code == 200
        with pytest.raises(requests.exceptions.SSLError):  # the world's authorities don't vouch for it
            requests.get(f"https://{address(cluster, node)}:8080/health/live", timeout=20)
        for name, path in MUTUAL.items():
            with pytest.raises(requests.ConnectionError, match=r"(?i)certificate|reset|closed|aborted"):
                api.get(node, path, port=TLS_PORTS[name])
            assert get_with_certificate(cluster, node, TLS_PORTS[name], path) == 200


# -- users, keys, sudo -----------------------------------------------------------------------------------------------


@dataclass
class Varied:
    folder: Path
    first: dict[str, Any]
    again: dict[str, Any]
    second_key: Path
    before: dict[str, x509.Certificate]
    public_keys: dict[str, str]

    def key(self, cluster: Tools) -> Path:
        return cluster.home / ".config/bzzz" / cluster.lab.id / "id_ed25519"


def public_key(cluster: Tools, node: str) -> str:
    return cluster.lab.exec(node, ["openssl", "pkey", "-in", "/etc/bzzz/tls/node.key", "-pubout"]).stdout


@pytest.fixture(scope="module")
def varied(cluster: Tools, secret: Secret, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Varied]:
    """Another SSH user on two nodes, one that exists and one that does not; sudo none, password, commands; a second key;
    certificates that live longer and are renewed earlier."""
    base = tmp_path_factory.mktemp("varied")
    second = base / "second"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", second], check=True)
    one, two, three = cluster.nodes
    cluster.lab.exec(one, ["useradd", "--uid", "4242", "--comment", "Keeper of keys", "--shell", "/bin/sh", "--create-home", "keeper"])
    cluster.lab.exec(one, ["sh", "-c", "echo mine > /home/keeper/mine"])
    folder = cluster.declare(
        base / "inventory",
        {
            "ssh_public_keys": [second.with_suffix(".pub").read_text().strip()],
            "tls_leaf_valid_days": 1000,
            "tls_renew_before_days": 500,
        },
        {
            one: {"ssh_user": "keeper", "ssh_sudo": "none"},
            two: {"ssh_user": "newcomer", "ssh_sudo": "password"},
            three: {"ssh_sudo": "commands", "ssh_sudo_commands": ["/usr/bin/id -u", "/usr/bin/systemctl is-active bzzz.service"]},
        },
    )
    before = {node: presented(cluster, node, TLS_PORTS["service"]) for node in cluster.nodes}
    public_keys = {node: public_key(cluster, node) for node in cluster.nodes}
    first = cluster.document("apply", "--only", "3", folder=folder)
    yield Varied(folder, first, cluster.document("apply", "--only", "3", folder=folder), second, before, public_keys)
    for node, user in ((one, "keeper"), (two, "newcomer")):
        cluster.lab.exec(node, ["userdel", "--force", "--remove", user], check=False)


@pytest.mark.requirement("2.1.4", "2.3.1", part="idempotent")
def test_a_second_run_changes_no_key_user_or_certificate(cluster: Tools, varied: Varied) -> None:
    assert changed(varied.first) == {(role, node) for role in ("ssh", "tls") for node in cluster.nodes}
    assert varied.again["changes"] == []


@pytest.mark.requirement("2.2.1")
def test_the_ssh_user_is_made_where_missing_and_kept_where_there(cluster: Tools, varied: Varied) -> None:
    one, two, three = cluster.nodes
    keeper, newcomer, admin = (cluster.host(node).user(name) for node, name in ((one, "keeper"), (two, "newcomer"), (three, ADMIN)))
    assert (keeper.uid, keeper.gecos, keeper.shell) == (4242, "Keeper of keys", "/bin/sh")
    assert read(cluster, one, "/home/keeper/mine") == "mine\n"
    for user, node in ((newcomer, two), (admin, three)):
        assert user.shell == "/bin/bash" and user.password == "*"
        home = cluster.host(node).file(user.home)
        assert home.is_directory and home.user == user.name
    for node, name in ((one, "keeper"), (two, "newcomer"), (three, ADMIN)):
        assert login(cluster, node, name, varied.key(cluster), "id -un").stdout == f"{name}\n"
    assert not cluster.host(one).user("newcomer").exists and not cluster.host(two).user("keeper").exists


@pytest.mark.requirement("2.2.2")
def test_each_choice_of_sudo_gives_exactly_these_rights(cluster: Tools, varied: Varied) -> None:
    one, two, three = cluster.nodes

    def sudo(node: str, user: str, arguments: str) -> subprocess.CompletedProcess[str]:
        return login(cluster, node, user, varied.key(cluster), f"LC_ALL=C {arguments}")

    assert "not allowed to run sudo" in cluster.lab.exec(one, ["sudo", "-l", "-U", "keeper"]).stdout
    assert sudo(one, "keeper", "sudo -n true").returncode == 1

    cluster.lab.exec(two, ["chpasswd"], stdin="newcomer:her-own-password\n")
    assert "a password is required" in sudo(two, "newcomer", "sudo -n true").stderr
    assert sudo(two, "newcomer", "echo her-own-password | sudo -S -p '' id -u").stdout == "0\n"
    assert sudo(two, "newcomer", "echo wrong | sudo -S -p '' id -u").returncode == 1

    assert sudo(three, ADMIN, "sudo -n id -u").stdout == "0\n"
    assert sudo(three, ADMIN, "sudo -n systemctl is-active bzzz.service").stdout == "active\n"
    for other in ("true", "id", "id -u root", "systemctl stop bzzz.service", "-u nobody id -u", "-s"):
        assert "password is required" in sudo(three, ADMIN, f"sudo -n {other}").stderr, other
    listed = sudo(three, ADMIN, "sudo -n -l").stdout
    assert listed.rstrip().splitlines()[-1].strip() == "(root) NOPASSWD: /usr/bin/id -u, /usr/bin/systemctl is-active bzzz.service"


@pytest.mark.requirement("2.2.2")
def test_a_command_list_that_visudo_refuses_changes_nothing(cluster: Tools, varied: Varied, tmp_path: Path) -> None:
    node = cluster.nodes[2]
    shutil.copytree(varied.folder, tmp_path / "inventory")
    commands = ["/usr/bin/id -u", "/usr/bin/id :"]
    write(tmp_path / f"inventory/host_vars/{node}.yml", dump({"ssh_sudo": "commands", "ssh_sudo_commands": commands}))
    paths = ["/etc/sudoers.d/bzzz", "/var/lib/bzzz/sets/ssh/state.json"]
    before = [read(cluster, node, path) for path in paths]
    refused = cluster.document("apply", "--only", "3", "--limit", node, folder=tmp_path / "inventory", code=3)
    assert refused["changes"] == []
    assert re.search(r"visudo -c .*refuses.*nothing was changed.*syntax error", refused["failures"][0]["message"], re.DOTALL)
    assert [read(cluster, node, path) for path in paths] == before
    assert cluster.lab.exec(node, ["sh", "-c", "visudo -c && ls /etc/sudoers.d"]).returncode == 0


@dataclass
class Named:
    """After `varied`: more names in the certificates, and one coordinator has lost its copy of the authority."""

    second_key_logged_in: dict[str, str]
    renewed: dict[str, dict[str, x509.Certificate]]
    document: dict[str, Any]
    watch: leaks.Watch
    authority: str


@pytest.fixture(scope="module")
def named(cluster: Tools, secret: Secret, varied: Varied, tmp_path_factory: pytest.TempPathFactory) -> Named:
    users = dict(zip(cluster.nodes, ("keeper", "newcomer", ADMIN), strict=True))
    logged_in = {node: login(cluster, node, user, varied.second_key, "id -un").stdout for node, user in users.items()}
    renewed = {node: {name: presented(cluster, node, port) for name, port in TLS_PORTS.items()} for node in cluster.nodes}
    authority = read(cluster, cluster.nodes[0], CA_KEY)
    folder = cluster.declare(
        tmp_path_factory.mktemp("named") / "inventory", {"tls_extra_names": ["api.bzzz.example", "192.0.2.7", "2001:db8::7"]}
    )
    cluster.lab.exec(cluster.nodes[1], ["rm", "-r", "/var/lib/bzzz/ca"])
    with leaks.Watch(secret.secrets, secret.tools.home) as watch:
        document = cluster.document("apply", "--only", "3", folder=folder)
    return Named(logged_in, renewed, document, watch, authority)


@pytest.mark.requirement("2.1.4")
def test_declared_keys_log_in_and_revoked_ones_do_not(cluster: Tools, secret: Secret, varied: Varied, named: Named) -> None:
    """`named` has come after `varied` and no longer lists the second key; the key of `secret` was replaced by both."""
    one, two, three = cluster.nodes
    assert named.second_key_logged_in == {one: "keeper\n", two: "newcomer\n", three: f"{ADMIN}\n"}
    for node in cluster.nodes:
        assert login(cluster, node, ADMIN, varied.key(cluster), "sudo -n id -u").stdout == "0\n"
        for user in (ADMIN, "keeper", "newcomer"):
            refused = login(cluster, node, user, varied.second_key, "true")
            assert refused.returncode == 255 and "Permission denied (publickey" in refused.stderr
    assert login(cluster, one, "keeper", varied.key(cluster), "true").returncode == 255, "the former SSH user's key is left"
    assert read(cluster, one, f"/etc/ssh/authorized_keys.d/{ADMIN}").count("ssh-ed25519") == 1


@pytest.mark.requirement("2.2.2")
def test_passwordless_sudo(cluster: Tools, varied: Varied, named: Named) -> None:
    for node in cluster.nodes:
        assert login(cluster, node, ADMIN, varied.key(cluster), "sudo -n true").returncode == 0
        listed = login(cluster, node, ADMIN, varied.key(cluster), "sudo -n -l").stdout
        assert listed.rstrip().splitlines()[-1].strip() == "(ALL : ALL) NOPASSWD: ALL"


@pytest.mark.requirement("2.1.4")
def test_a_node_whose_host_key_is_not_the_pinned_one_gets_nothing(cluster: Tools, tmp_path: Path) -> None:
    """One node shows a new key, of another none is pinned; neither the front nor Ansible alone talks to them, even where the
    environment switches the check off, as AWX does."""
    one, changed_key, unknown = cluster.nodes
    folder = cluster.declare(tmp_path / "inventory")
    hosts = folder / "hosts.yml"
    hosts.write_text(hosts.read_text().replace(str(cluster.folder), str(folder)))
    pinned = [line for line in (folder / KNOWN_HOSTS).read_text().splitlines() if not line.startswith(f"{unknown},")]
    (folder / KNOWN_HOSTS).write_text("\n".join(pinned) + "\n")
    lab = cluster.lab
    lab.exec(changed_key, ["sh", "-ec", "mkdir /root/pinned; mv /etc/ssh/ssh_host_* /root/pinned; ssh-keygen -A; systemctl restart ssh"])
    try:
        lab.wait(changed_key)
        document = cluster.document("detect", folder=folder, code=3)
        alone = [
            cluster.playbook(
                "bzzz.cluster.step_1_detection",
                folder=folder,
                code=4,
                ANSIBLE_HOST_KEY_CHECKING=check,
                ANSIBLE_SSH_ARGS="-o ControlPath=none",  # the host key of a connection that is still open is not asked for again
            )
            for check in ("True", "False")
        ]
    finally:
        lab.exec(changed_key, ["sh", "-ec", "mv /root/pinned/* /etc/ssh/; rmdir /root/pinned; systemctl restart ssh"])
        lab.wait(changed_key)
    failures = {failure["node"]: failure for failure in document["failures"]}
    assert set(failures) == {changed_key, unknown} and {failure["kind"] for failure in failures.values()} == {"unreachable"}
    assert "HOST IDENTIFICATION HAS CHANGED" in failures[changed_key]["message"]
    assert all("known_hosts.txt" in failure["remedy"] for failure in failures.values())
    assert document["nodes"][one]["bzzz_system"] and not document["nodes"].get(changed_key) and not document["nodes"].get(unknown)
    for done in alone:
        counted = dict(re.findall(r"^(\S+)\s+: .*unreachable=(\d)", done.stdout, re.MULTILINE))
        assert counted == {one: "0", changed_key: "1", unknown: "1"}
    assert (folder / KNOWN_HOSTS).read_text() == "\n".join(pinned) + "\n"
    assert not list(tmp_path.rglob("known_hosts")) and not list(cluster.home.rglob("known_hosts"))


@pytest.mark.requirement("2.3.1", part="renewal")
def test_a_certificate_near_its_end_is_renewed_and_shown_by_the_services(cluster: Tools, varied: Varied, named: Named) -> None:
    """397 days were left, fewer than `varied` wants; it is now read by TLS clients, not from files."""
    for node in cluster.nodes:
        before, shown = varied.before[node], named.renewed[node]
        assert 396 < days_left(before) < 397.1
        for name in TLS_PORTS:
            assert shown[name].serial_number != before.serial_number, f"{name} on {node} shows the old certificate"
            assert 999 < days_left(shown[name]) < 1000.1
        assert shown["service"].public_key() == before.public_key() == load_pem_public_key(varied.public_keys[node].encode())


@pytest.mark.requirement("2.3.1", part="names")
def test_changed_names_reissue_the_certificate(cluster: Tools, varied: Varied, named: Named) -> None:
    for node in cluster.nodes:
        own = {node, "localhost", "127.0.0.1", "::1", address(cluster, node)}
        for port in TLS_PORTS.values():
            shown = presented(cluster, node, port)
            assert names_of(shown) == own | {"api.bzzz.example", "192.0.2.7", "2001:db8::7"}
            assert 396 < days_left(shown) < 397.1
        assert public_key(cluster, node) == varied.public_keys[node]
    assert ipaddress.ip_address("2001:db8::7") in [
        name.value for name in shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    ]


@pytest.mark.requirement("2.3.1", part="authority on each coordinator")
def test_a_coordinator_that_lost_the_authority_gets_it_back(cluster: Tools, secret: Secret, named: Named) -> None:
    lost = cluster.nodes[1]
    assert read(cluster, lost, CA_KEY) == named.authority
    key, kept = cluster.host(lost).file(CA_KEY), cluster.host(lost).file("/var/lib/bzzz/ca")
    assert (key.mode, key.user, kept.mode) == (0o600, "root", 0o700)
    assert certificate(cluster, lost, "/var/lib/bzzz/ca/ca.crt") == certificate(cluster, lost, "/etc/bzzz/tls/ca.crt")
    # On its way from one coordinator to the other it passes through the admin host's memory only.
    private = {("key with a passphrase", str(secret.key))}
    assert named.watch.found == secret.allowed | private
    assert "key of the authority" not in {name for name, _path in leaks.in_files([cluster.home], secret.secrets)}


def test_the_labs_own_declaration_again(cluster: Tools, named: Named) -> None:
    """And so it is as the other tests expect it."""
    document = cluster.document("apply")
    assert changed(document) == {("tls", node) for node in cluster.nodes}
    assert {check["status"] for check in document["checks"]} <= {"pass", "skip"}
    assert "api.bzzz.example" not in names_of(presented(cluster, cluster.nodes[0], TLS_PORTS["service"]))
