# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Probe of who listens on a port of this node, by the same eyes as the port facts."""

from __future__ import annotations

from .ports import main as ports
from .probes import Node, Outcome, outcome


def listener(
    node: Node, *, port: int, protocol: str = "tcp", address: str | None = None, program: str | None = None, unit: str | None = None
) -> Outcome:
    """`address` is the one it must be bound to, exactly."""
    found = [one for one in node.once("ports", lambda: ports({}))["listeners"] if (one["protocol"], one["port"]) == (protocol, port)]
    wanted = {key: value for key, value in (("address", address), ("program", program), ("unit", unit)) if value is not None}
    expected = " ".join([f"{protocol} port {port}", *(f"{key} {value}" for key, value in wanted.items())])
    seen = ", ".join(f"{one['program'] or 'unknown program'} of {one['unit'] or 'no unit'} on {one['address']}" for one in found)
    held = bool(found) and all(one[key] == value for one in found for key, value in wanted.items())
    return outcome(held, seen or "nothing listens there", expected)


KINDS = {"listener": listener}
