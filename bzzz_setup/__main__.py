# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Starts `bzzz-setup` where the collection can be imported: in a checkout, or where `ansible-galaxy` has installed it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# Ansible's own default of collections_paths.
PLACES = "~/.ansible/collections:/usr/share/ansible/collections"


def main() -> None:
    places = [*sys.path, *map(os.path.expanduser, os.environ.get("ANSIBLE_COLLECTIONS_PATH", PLACES).split(":"))]
    found = next((place for place in places if (Path(place) / "ansible_collections/bzzz/cluster/plugins").is_dir()), None)
    if found is None:
        print(
            "bzzz-setup: the collection bzzz.cluster is not installed.\n"
            "  Remedy: ansible-galaxy collection install bzzz-cluster-*.tar.gz, or start ./bzzz in a checkout.",
            file=sys.stderr,
        )
        sys.exit(2)
    if found not in sys.path:
        sys.path.append(found)
    from bzzz_setup.cli import main as start  # noqa: PLC0415 - not before it can be

    start()


if __name__ == "__main__":
    main()
