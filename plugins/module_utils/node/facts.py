# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""All facts of a machine in one look."""

from __future__ import annotations

from typing import Any

from .gpu import main as gpu
from .network import main as network
from .ports import main as ports
from .system import main as system


def main(payload: dict[str, Any]) -> dict[str, Any]:
    """``{bzzz_gpu, bzzz_network, bzzz_ports, bzzz_system}``; for payload and shapes see those programs."""
    listening = ports(payload)
    return {
        "bzzz_gpu": gpu(payload),
        "bzzz_network": network(payload),
        "bzzz_ports": listening,
        "bzzz_system": system(payload, listening["listeners"]),
    }
