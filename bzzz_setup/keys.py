# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""SSH keys that this admin host has already: those of a running ssh-agent and of ~/.ssh, and public keys that are given.

Private keys are never read here beyond what ssh-keygen says of them.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from ansible_collections.bzzz.cluster.plugins.module_utils.rules.ssh import holds_private_key, judge_key

from bzzz_setup import paths
from bzzz_setup.declaration import write
from bzzz_setup.events import Refusal

LOAD = (
    "Load it into an agent (eval $(ssh-agent); ssh-add {file}), or have its passphrase kept: --secret ansible_ssh_private_key_passphrase."
)


@dataclass(frozen=True)
class Key:
    """`file` is the private key's, None where only the agent holds it; `public` is the one-line form; `locked`: it wants a passphrase."""

    public: str
    bits: str
    kind: str
    fingerprint: str
    comment: str
    file: Path | None = None
    agent: bool = False
    locked: bool = False

    @property
    def name(self) -> str:
        return str(self.file) if self.file else "ssh-agent"

    def as_dict(self) -> dict[str, str | bool]:
        parts = ("name", "kind", "bits", "comment", "fingerprint", "agent", "locked")
        return {part: getattr(self, part) for part in parts}


def offered() -> list[Key]:
    """The agent's keys and those of ~/.ssh, each once. No agent, or none of either, is an empty list."""
    said = subprocess.run(["ssh-add", "-L"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    agents = [key for line in said.stdout.splitlines() if said.returncode == 0 and (key := _described(line))]
    found = {key.fingerprint: replace(key, agent=True) for key in agents}
    folder = Path.home() / ".ssh"
    for public in sorted(folder.glob("*.pub")) if folder.is_dir() else ():
        file = public.with_suffix("")
        key = _described(_text(public)) if file.is_file() else None
        if key:
            agent = key.fingerprint in found
            found[key.fingerprint] = replace(key, file=file, agent=agent, locked=is_locked(file))
    return list(found.values())


def _file(named: str) -> Path | None:
    """The file of this name; None where there is none, or can be none."""
    try:
        file = Path(named).expanduser().absolute()
        return file if file.is_file() else None
    except (OSError, RuntimeError):  # a name too long; ~ of a user who is unknown
        return None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _described(line: str) -> Key | None:
    """What ssh-keygen says of a public key in its one-line form; None where it is none, or a certificate."""
    if "-cert-" in line.partition(" ")[0]:
        return None
    said = subprocess.run(["ssh-keygen", "-lf", "-"], input=line.strip() + "\n", capture_output=True, text=True, check=False)
    match = re.fullmatch(r"(\d+) (\S+) (.*) \(([^()]+)\)", said.stdout.strip())
    return Key(line.strip(), match[1], match[4], match[2], match[3]) if said.returncode == 0 and match else None


def is_locked(file: Path) -> bool:
    """Whether a private key wants a passphrase."""
    said = subprocess.run(
        ["ssh-keygen", "-y", "-P", "", "-f", str(file)], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    return said.returncode != 0 and "passphrase" in said.stderr


def opens(file: Path, passphrase: str) -> bool:
    """Whether the passphrase is this private key's."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key  # noqa: PLC0415 - seldom needed

    data = file.read_bytes()
    try:
        (load_ssh_private_key if b"OPENSSH" in data else load_pem_private_key)(data, passphrase.encode())
    except (ValueError, TypeError):
        return False
    return True


def chosen(wanted: str) -> Key:
    """The key that --ssh-key means: a private key's file, or one that the agent holds by its fingerprint or public file. Raises Refusal."""
    if wanted.startswith("SHA256:"):
        for key in offered():
            if key.fingerprint == wanted:
                return key
        raise Refusal(f"neither ssh-agent nor ~/.ssh has the key {wanted}", "bzzz-setup keys shows those that there are.", option="ssh_key")
    file = _file(wanted)
    if not file:
        raise Refusal(
            f"there is no private key at {wanted}",
            "Give the path of the key that gets in, for example --ssh-key ~/.ssh/id_ed25519; bzzz-setup keys shows those that there are.",
            option="ssh_key",
        )
    public = _described(_text(file)) if file.suffix == ".pub" else None
    if public:
        for key in offered():
            if key.fingerprint == public.fingerprint and key.agent:
                return replace(key, file=None)
        raise Refusal(
            f"{file} is a public key, and ssh-agent does not hold its private one",
            f"Name the private key's file, or load it: ssh-add {file.with_suffix('')}.",
            option="ssh_key",
        )
    known = _described(_text(file.with_name(file.name + ".pub")))
    agent = bool(known) and any(key.agent and known and key.fingerprint == known.fingerprint for key in offered())
    return Key("", "", "", "", "", file=file, agent=agent, locked=is_locked(file))


def identity(key: Key, cluster: str) -> Path:
    """The file that ssh is named for this key: the private key or, where only an agent has that, the public one, which `keep` writes."""
    return key.file or paths.config(cluster) / "login_key.pub"


def keep(key: Key, file: Path) -> None:
    """Have the file that `identity` names."""
    if not key.file:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # ssh takes it for a private key, and warns of one that others can read, whenever the agent does not have it.
        write(file, key.public + "\n", 0o600)


def public_keys(given: list[str]) -> list[str]:
    """Public keys in their one-line form, of texts or files. Raises Refusal for what is none, or weak; a private key is never repeated."""
    found: list[str] = []
    for number, entry in enumerate(given, 1):
        if holds_private_key(entry):
            _private("what was given")
        file = _file(entry) if "\n" not in entry and " " not in entry.strip() else None
        text = _text(file) if file else entry
        if holds_private_key(text):
            _private(str(file))
        source = str(file) if file else f"public key {number}"
        lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        for key in lines or [""]:
            if wrong := judge_key(key):
                raise Refusal(f"{source}: {wrong[0]}", wrong[1], option="public_key")
            found.append(key)
    return list(dict.fromkeys(found))


def _private(what: str) -> None:
    raise Refusal(
        f"{what} is a private key; it was not kept, but whoever can read this terminal or its history may have seen it",
        "Give the public key (the one line of the .pub file). If the private key was pasted, replace the pair.",
        option="public_key",
    )
