# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whose certificate authority signs, and how far its rotation has come: told by what lies on the nodes, and by nothing else.

A coordinator keeps an authority, and while that is rotated the next one beside it. All nodes trust both, until each has a certificate
by the next one; then that is the authority.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

NONE = {"certificate": "", "fingerprint": ""}


def judge(found: Mapping[str, Any], coordinators: list[str], nodes: list[str]) -> dict[str, Any]:
    """`found`: what node program `certificates` tells, by node of this run; the others are the cluster's. See filter `authority`."""
    here = [node for node in coordinators if node in found]
    own = {node: found[node]["authority"] or NONE for node in here}
    following = {node: found[node]["next"] or NONE for node in here}
    marks = {one["fingerprint"] for one in own.values()} - {""}
    # What some still keep as the next has followed already where others have it as theirs.
    marks = marks & {one["fingerprint"] for one in following.values()} or marks
    nexts = [node for node in here if following[node]["fingerprint"] not in {"", *marks}]
    keepers = [node for node in here if own[node]["fingerprint"] in marks]
    signs = next(iter(keepers + here), "")
    next_keeper = next(iter(nexts), "")
    trusted = [dict(one) for one in (own.get(signs, NONE), following.get(next_keeper)) if one]
    kinds = {following[node]["fingerprint"] for node in nexts}
    held = any(found[node]["held"] for node in nexts)
    # A node that is not in this run may have missed what the others have done.
    leaves = [one["leaf"] for one in found.values()]
    goes_on = bool(nexts) and not held and set(nodes) <= set(found)
    return {
        "coordinators": here,
        "missing": [node for node in coordinators if node not in found],
        "keepers": keepers,
        "signs": signs,
        "trusted": trusted,
        "next": trusted[1] if nexts else {},
        "next_keeper": next_keeper,
        "held": held,
        "copies_missing": len(keepers) < len(here) or len({one["fingerprint"] for one in following.values()}) > 1,
        "differ": sorted(marks | kinds) if len(marks) > 1 or len(kinds) > 1 else [],
        "next_trusted": goes_on and all(kinds <= set(leaf["trusted"]) for leaf in leaves),
        "next_used": goes_on and all(leaf["issuer"] in kinds for leaf in leaves),
        # By the coordinators' word: a node that has been broken into could keep a new one from being made.
        "unfinished": bool(nexts) or any(set(found[node]["leaf"]["trusted"]) - marks for node in here),
    }
