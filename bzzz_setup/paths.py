# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where things live on the admin host."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import stat
import sys
from pathlib import Path

from bzzz_setup.events import Refusal

# Documentation and trial inventories that ship with the collection: never what a command means by default.
SHIPPED = {"example", "single"}
# Names the folder that commands in remedies are for, where a run is over a passing copy of it.
TOLD_INVENTORY = "BZZZ_TOLD_INVENTORY"


def _base(variable: str, default: str) -> Path:
    named = os.environ.get(variable, "")
    return (Path(named) if named.startswith("/") else Path.home() / default) / "bzzz"


def config(cluster: str) -> Path:
    """Keys of one cluster, kept private."""
    return _base("XDG_CONFIG_HOME", ".config") / cluster


def state(cluster: str) -> Path:
    """Runs of one cluster, kept private."""
    return _base("XDG_STATE_HOME", ".local/state") / cluster


def vault_key(cluster: str) -> Path:
    return config(cluster) / "vault-key"


def control_sockets(cluster: str) -> Path:
    """A private directory for SSH's control sockets; short, since a socket's path may have 104 characters only.

    Raises Refusal when somebody else has made it.
    """
    folder = Path(os.environ.get("XDG_RUNTIME_DIR") or "/tmp") / f"bzzz-{os.getuid()}"  # noqa: S108 - checked below
    for part in (folder, folder / hashlib.sha256(str(state(cluster)).encode()).hexdigest()[:8]):
        part.mkdir(mode=0o700, exist_ok=True)
        seen = part.lstat()
        if seen.st_uid != os.getuid() or stat.S_IMODE(seen.st_mode) != 0o700 or not stat.S_ISDIR(seen.st_mode):
            raise Refusal(
                f"{part} is not a private directory of this user", f"Look at who made it, remove it (rm -r {part}) and try again."
            )
    return part


def collection() -> Path:
    """The root of the collection bzzz.cluster, as Ansible will find it."""
    search = os.environ.get("ANSIBLE_COLLECTIONS_PATH", "").split(":") + sys.path
    for base in filter(None, search):
        found = Path(base).expanduser() / "ansible_collections/bzzz/cluster"
        if (found / "playbooks").is_dir():
            return found
    raise Refusal(
        "the collection bzzz.cluster is not installed",
        "Start with ./bzzz in the checkout, or: ansible-galaxy collection install bzzz.cluster",
    )


def inventories() -> list[Path]:
    """The inventory folders that a command may mean where none is named."""
    found = [
        f.parent
        for f in Path("inventories").glob("*/hosts.yml")
        if f.parent.name not in SHIPPED and not re.match(r"\.|.*\.bak$", f.parent.name)
    ]
    found += [f.parent for f in config("*").parent.glob("*/inventory/hosts.yml")]
    return found


def inventory(named: Path | None) -> Path:
    """The inventory a command means: the one named, else the only one there is.

    Looked for are inventories/*/hosts.yml in the working directory, but for those that ship with the collection,
    and ~/.config/bzzz/*/inventory/hosts.yml. Raises Refusal when there is none, or more than one.
    """
    if named is not None:
        if not named.exists():
            raise Refusal(f"there is no inventory at {named}", f"Make one with: bzzz-setup init -i {named}", option="inventory")
        return named.resolve()
    found = inventories()
    if len(found) == 1:
        return found[0].resolve()
    if not found:
        raise Refusal("there is no inventory yet", "Make one with: bzzz-setup init", option="inventory")
    listed = ", ".join(str(f) for f in sorted(found))
    raise Refusal(f"there is more than one inventory: {listed}", "Say which with -i FOLDER, or set BZZZ_INVENTORY.", option="inventory")


def inventory_option(folder: str) -> str:
    """` -i FOLDER`, as a command for this inventory needs it here; nothing where it would be found without."""
    try:
        found = inventory(Path(os.environ["BZZZ_INVENTORY"]) if os.environ.get("BZZZ_INVENTORY") else None)
    except Refusal:
        found = None
    return "" if found == Path(folder) else f" -i {shlex.quote(folder)}"


def new_inventory(cluster: str) -> Path:
    """Where `init` puts an inventory when it is not told."""
    return Path("inventories/mine") if Path("inventories").is_dir() else config(cluster) / "inventory"
