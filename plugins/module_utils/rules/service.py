# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The node service: where its releases come from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..problems import Problem, problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..cluster import Cluster
    from ..declaration import Declared


def literal(declared: Mapping[str, Declared], cluster: Cluster) -> Iterator[Problem]:
    """A release index that anybody on the way could replace: its checksums are what the releases are trusted by."""
    for node, roles in declared.items():
        index = roles["service"]["release_index"]
        if index and "://" in index and not index.startswith("https://"):
            message = "The release index holds the checksums by which releases are trusted, so it has to come over HTTPS or from a file."
            yield problem(
                "service_release_index", message, "Write an https:// URL, or the path of a copy on the admin host.", value=index, node=node
            )
