# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ollama endpoints: base URLs and nothing more."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..addresses import address_of, is_host_name
from ..problems import Problem, problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..cluster import Cluster
    from ..declaration import Declared


def literal(declared: Mapping[str, Declared], cluster: Cluster) -> Iterator[Problem]:
    """Endpoints that are no base URL; one that carries a password is not repeated."""
    for node, roles in declared.items():
        for url in roles["ollama"]["endpoints"]:
            message, correct = _wrong(url)
            if message:
                remedy = f"Write {correct}." if correct else "Write a base URL such as https://gpu9.example.com:11434."
                yield problem("ollama_endpoints", message, remedy, value=None if "@" in url else url, node=node)


def _wrong(url: str) -> tuple[str | None, str | None]:
    """What is wrong with the URL, and how it was probably meant."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "This is no URL.", None
    if "@" in parts.netloc:
        return "An address with user or password in it would be readable by everybody who sees the configuration.", None
    if parts.scheme not in ("http", "https"):
        bare = url.partition("://")[2] if "://" in url else url
        host = bare.partition(":")[0].partition("/")[0]
        return "The URL does not begin with http:// or https://.", f"http://{bare}" if is_host_name(host) or address_of(host) else None
    if not (is_host_name(host) or address_of(host)):
        return "The URL names no host.", None
    if parts.path.startswith(("/api", "/v1")) or parts.query or parts.fragment:
        return "Only the base URL is wanted, without the API's path and without a query.", f"{parts.scheme}://{parts.netloc}"
    if port == 0:
        return "Port 0 does not exist.", None
    return None, None
