# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""SSH: keys that are keys, users that can still get in, sudo rights that Ansible can still use."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..problems import Problem, problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..cluster import Cluster, Node
    from ..declaration import Declared

# Accounts that services run as: a key and sudo would make a hole in the service a way to root.
SERVICES = ("bzzz", "etcd", "prometheus")
USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
RSA_BITS = 3072
_PRIVATE_KEY = ("PRIVATE KEY-----", "b3BlbnNzaC1rZXktdjE", "PuTTY-User-Key-File")


def holds_private_key(text: str) -> bool:
    """Whether a private key was pasted there, whole or in part."""
    plain = text.replace("\0", "")  # a file in UTF-16 that was read as another text
    return any(mark in plain for mark in _PRIVATE_KEY)


def files(declared: Mapping[str, Declared]) -> list[Problem]:
    """Puts the keys of files in the files' place in ssh_public_keys; returns what is wrong with those files, of which nothing is quoted."""
    found = []
    for node, roles in declared.items():
        keys: list[str] = []
        for entry in roles["ssh"]["public_keys"]:
            if not entry.startswith(("/", "~")):
                keys.append(entry)
                continue
            remedy = "Name the .pub file, or another file of lines such as: ssh-ed25519 AAAA... name"
            try:
                text = Path(entry).expanduser().read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError, RuntimeError) as error:  # the last: ~ of a user who does not exist
                why = getattr(error, "strerror", None) or "it is not text"
                found.append(problem("ssh_public_keys", f"{entry} cannot be read on this admin host: {why}.", remedy, node=node))
                continue
            lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
            if holds_private_key(text):
                message = "The file holds a private key. It is not kept, and was given to nobody."
                found.append(problem("ssh_public_keys", message, remedy, value=entry, node=node))
            elif not lines:
                found.append(problem("ssh_public_keys", "The file holds no key.", remedy, value=entry, node=node))
            else:
                keys += lines
        roles["ssh"]["public_keys"] = keys
    return found


def literal(declared: Mapping[str, Declared], cluster: Cluster) -> Iterator[Problem]:
    """Everything about SSH that a node need not be asked about."""
    nodes = {node["name"]: node for node in cluster["nodes"]}
    for name, roles in declared.items():
        ssh = roles["ssh"]
        yield from _keys(ssh, name)
        yield from _sudo(ssh, nodes[name])
        yield from _users(ssh, nodes[name])
        yield from _way_in(ssh, nodes[name])


def effective(declared: Mapping[str, Declared], cluster: Cluster, facts: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    """An SSH server whose port is not its own to choose."""
    for node, seen in facts.items():
        port = declared[node]["ssh"]["port"]
        listeners = (seen.get("bzzz_ports") or {}).get("listeners") or []
        if port and any(one.get("unit") in ("ssh.socket", "sshd.socket") for one in listeners):
            message = "systemd listens in sshd's place here (ssh.socket), so that sshd's own Port has no effect."
            remedy = "On the node: systemctl disable --now ssh.socket && systemctl enable --now ssh.service. Or remove ssh_port."
            yield problem("ssh_port", message, remedy, value=port, node=node)


def _way_in(ssh: Mapping[str, Any], node: Node) -> Iterator[Problem]:
    port, old = ssh["port"], node["ssh_port"]
    if port and port != old and 1 <= port <= 65535:
        message = f"sshd will listen on {port} and, since Ansible comes in by it, on {old}."
        remedy = f"When this run has ended well, set ansible_port to {port} and apply again: that run closes {old}."
        yield problem("ssh_port", message, remedy, value=port, node=node["name"], severity="warning")
    if ssh["key_only"] and node["ssh_password"]:
        message = f"Ansible itself logs in as {node['ssh_user']} with a password: no run could follow."
        remedy = (
            "Apply without it first. Then log in with a key that step 3 has brought to the nodes: set ansible_user to "
            f"{ssh['user']} and ansible_ssh_private_key_file to the cluster's key, and take the password away."
        )
        yield problem("ssh_key_only", message, remedy, value=True, node=node["name"])


def _keys(ssh: Mapping[str, Any], node: str) -> Iterator[Problem]:
    keys = ssh["public_keys"]
    if ssh["key_source"] == "provided" and not keys:
        message = "ssh_key_source is 'provided', but no key is."
        yield problem("ssh_public_keys", message, "List the public keys, or set ssh_key_source to generate.", node=node)
    for place, key in enumerate(keys, 1):
        # Without its value, here and below: what is no public key may be a part of a private one.
        if wrong := judge_key(key):
            yield problem("ssh_public_keys", f"Key {place}: {wrong[0]}", wrong[1], node=node)
        if key in keys[: place - 1]:
            message = f"Key {place} is listed before."
            yield problem("ssh_public_keys", message, "Remove one of the two.", node=node, severity="warning")


def judge_key(key: str) -> tuple[str, str] | None:
    """What is wrong with a public key in OpenSSH's one-line form, and the remedy; None where nothing is."""
    # Here, since controllers have it, and a node that this file may be sent to need not.
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_ssh_public_key  # noqa: PLC0415

    make = "Make one with: ssh-keygen -t ed25519"
    form = "Paste the one line of the .pub file: type, base64 text, comment (ssh-ed25519 AAAA... name)."
    kind = key.split(maxsplit=1)[0] if key.strip() else ""
    if len(key.strip().splitlines()) > 1:
        return "It is longer than one line.", form
    if kind.startswith("----"):
        return "It is not in OpenSSH's one-line form.", "Convert it with: ssh-keygen -i -f FILE"
    if "-cert-" in kind:
        return "It is a certificate, not a key.", "Give the public key that the certificate is for."
    if kind == "ssh-dss":
        return "DSA keys are broken, and OpenSSH refuses them.", make
    try:
        loaded = load_ssh_public_key(key.strip().encode())
    except (ValueError, UnsupportedAlgorithm):
        return "It is no public key: type and base64 text do not fit together, or are cut off.", form
    if isinstance(loaded, rsa.RSAPublicKey) and loaded.key_size < RSA_BITS:
        return f"An RSA key of {loaded.key_size} bits is too weak: {RSA_BITS} are the least by today's advice.", make
    return None


def _sudo(ssh: Mapping[str, Any], node: Node) -> Iterator[Problem]:
    name, mode, commands = node["name"], ssh["sudo"], ssh["sudo_commands"]
    if not USER.fullmatch(ssh["user"]):
        message = "A user's name begins with a lower-case letter and goes on with lower-case letters, digits, _ and -, 32 in all."
        yield problem("ssh_user", message, "Write for example bzzz-admin.", value=ssh["user"], node=name)
    elif ssh["user"] in SERVICES:
        message = f"The cluster's services run as {ssh['user']}: a hole in one of them would be a way to root."
        yield problem("ssh_user", message, "Choose another user, for example bzzz-admin.", value=ssh["user"], node=name)
    if mode == "commands" and not commands:
        message = "ssh_sudo is 'commands', but no command is listed."
        yield problem("ssh_sudo_commands", message, "List absolute commands, or choose another ssh_sudo.", node=name)
    elif mode != "commands" and commands:
        message = f"This has no effect while ssh_sudo is '{mode}'."
        yield problem(
            "ssh_sudo_commands", message, "Set ssh_sudo to commands, or remove the list.", value=commands, node=name, severity="warning"
        )
    for command in commands:
        if not command.startswith("/") or re.search(r"[\x00-\x1f]", command):
            message = f"'{command}' is not an absolute command, so sudo would take whatever comes first in the path."
            yield problem(
                "ssh_sudo_commands",
                message,
                "Write the whole path, for example /usr/bin/systemctl restart bzzz.service.",
                value=command,
                node=name,
            )
        elif re.search(r"#|(?<!\\),", command):
            message = f"In '{command}' sudo takes a comma for the end of the command, and # for the end of the line."
            remedy = "List each command as an entry of its own; write a comma that belongs to it as \\,."
            yield problem("ssh_sudo_commands", message, remedy, value=command, node=name)
    if node["become"] and node["ssh_user"] == ssh["user"] and ssh["user"] != "root":
        without = {"none": "none at all", "commands": "only for the listed commands", "password": "only with a password"}.get(mode)
        if without and not (mode == "password" and node["become_password"]):
            message = f"Ansible itself logs in as {ssh['user']} and needs sudo, but would have it {without}: no run could follow."
            remedy = "Set ssh_sudo to passwordless, let ssh_user be another user"
            remedy += ", or give ansible_become_password in the vault file." if mode == "password" else "."
            yield problem("ssh_sudo", message, remedy, value=mode, node=name)


def _users(ssh: Mapping[str, Any], node: Node) -> Iterator[Problem]:
    allowed = ssh["allow_users"]
    if not allowed:
        return
    for user in allowed:
        if re.search(r"[\s\"'#\x00-\x1f]", user) or not user:
            message = f"'{user}' is no user name that sshd could allow."
            yield problem("ssh_allow_users", message, "List user names, for example bzzz-admin.", value=user, node=node["name"])
    for user, why in ((node["ssh_user"], "Ansible itself logs in as"), (ssh["user"], "the cluster's key logs in as")):
        if user and not any(fnmatch.fnmatchcase(user, entry.partition("@")[0]) for entry in allowed):
            message = f"The list leaves out {user}, whom {why}: nobody could log in to correct it."
            yield problem("ssh_allow_users", message, f"Add {user} to the list.", value=allowed, node=node["name"])
