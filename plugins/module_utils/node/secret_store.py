# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Secrets that the cluster keeps on its coordinators, root-only: one file each."""

from __future__ import annotations

from typing import Any


def main(payload: dict[str, Any]) -> dict[str, Any]:
    """payload: paths. Returns {secrets: {path: content without the final newline}} of those that exist."""
    found = {}
    for path in payload["paths"]:
        try:
            with open(path, encoding="utf-8") as file:
                found[path] = file.read().rstrip("\n")
        except FileNotFoundError:
            continue
    return {"secrets": found}
