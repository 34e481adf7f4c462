# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a step's test button tries: whether others answer whom the declaration names, before anything is applied."""

from __future__ import annotations

from pathlib import Path

from bzzz_setup.declaration import Declaration
from bzzz_setup.events import ExitCode, Refusal
from bzzz_setup.node.auth.directory import Directory
from bzzz_setup.node.auth.outside import Away
from bzzz_setup.web.outside import WAYS, declared

# Role -> what can be tried of it.
OF_ROLE = {"auth": sorted(WAYS)}


def outside(folder: Path, kind: str, directory: Directory) -> str:
    """Ask the directory or provider of an inventory folder, from this host; returns what is well. Raises Refusal where it is not."""
    title, switch, _secret = WAYS[kind]
    option = f"auth_{switch}"
    way = declared(Declaration.read(folder), kind)
    if way is None:
        raise Refusal(f"no {title} is declared", f"Fill in {option} first.", option=option)
    authority = way.authority(directory)
    try:
        authority.look()
    except Away as away:
        raise Refusal(
            f"{authority.address}: {away}",
            "Correct what is typed, or see that it answers this host; the nodes ask it the same way.",
            ExitCode.NODES_FAILED,
            option=option,
        ) from None
    return f"{authority.address} answers."
