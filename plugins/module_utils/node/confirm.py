# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Disarm a configuration set's revert timer, asked over a new connection."""

from __future__ import annotations

from typing import Any

from . import config_set


def main(payload: dict[str, Any]) -> dict[str, Any]:
    """payload: name, change. Returns {reverted}: the node has put back what was there before that change."""
    return dict(config_set.confirm(payload["name"], payload["change"]))
