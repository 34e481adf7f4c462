# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The node services of a lab's cluster as their clients see them, and waiting for what they say."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import requests
from conftest import Tools

T = TypeVar("T")


def wait_for(what: str, look: Callable[[], T], seconds: float = 60) -> T:
    """The first answer of `look` that is true. An exception of requests is no answer yet."""
    deadline = time.monotonic() + seconds
    last: Any = None
    while True:
        try:
            last = look()
            if last:
                return last
        except requests.RequestException as error:
            last = error
        assert time.monotonic() < deadline, f"no {what} within {seconds:g} s; at last: {last}"
        time.sleep(0.1)


class Api:
    """The REST API of every node, over TLS that the cluster's own authority vouches for."""

    def __init__(self, tools: Tools, folder: Path) -> None:
        self.tools = tools
        first = tools.nodes[0]
        self.ca = folder / "cluster-ca.crt"
        self.ca.write_text(tools.lab.exec(first, ["cat", "/etc/bzzz/tls/ca.crt"]).stdout)
        self.token = tools.lab.exec(first, ["cat", "/var/lib/bzzz/secrets/service_token"]).stdout.strip()
        self.addresses = {node.name: node.address for node in tools.lab.nodes}

    def get(self, node: str, path: str, *, token: str | None = None, port: int = 8080, timeout: float = 5) -> requests.Response:
        """An answer, whatever its status; `token`: another than the cluster's, or none with an empty one."""
        given = self.token if token is None else token
        headers = {"Authorization": f"Bearer {given}"} if given else {}
        return requests.get(f"https://{self.addresses[node]}:{port}{path}", headers=headers, verify=str(self.ca), timeout=timeout)

    def cluster(self, node: str, **more: Any) -> dict[str, Any]:
        answer = self.get(node, "/api/v1/cluster", **more)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def member(self, node: str, seen_from: str) -> dict[str, Any] | None:
        return next((member for member in self.cluster(seen_from)["members"] if member["name"] == node), None)

    def agreed(self, *nodes: str) -> dict[str, Any]:
        """What all these nodes (default: every one) tell of the cluster, once they tell the same and it has a primary."""
        names = nodes or tuple(self.addresses)

        def same() -> dict[str, Any] | None:
            told = [self.cluster(node) for node in names]
            for one in told:
                one.pop("age_seconds")
            first = told[0]
            agree = all(one == first for one in told) and first["current"] and first["primary"]
            return first if agree and {member["name"] for member in first["members"]} == set(names) else None

        return wait_for(f"agreement of {', '.join(names)}", same)
