# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Choosing a release of the node service from an index. Pure: whoever calls has read the index.

An index is ``{"releases": [entry, …]}``, an entry ``{version, channel, platform, architecture, python, url, sha256,
size, built}``; ``url`` is relative to the index, or absolute (https). ``python`` may be null: any will do.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from packaging.version import Version

CHANNELS = ("stable", "beta", "development")
_TEXTS = ("version", "channel", "platform", "architecture", "url", "sha256")
# uname -m says one thing, packagers another.
_ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}


class ReleaseError(ValueError):
    """No release can be chosen; the message says what was looked for, what is there, and what to do."""


def entries(index: Any) -> list[dict[str, Any]]:
    """The index's releases, checked; raises ReleaseError naming the entry and key that is wrong."""
    releases = index.get("releases") if isinstance(index, dict) else None
    if not isinstance(releases, list):
        raise ReleaseError("the release index has no list 'releases'. Remedy: check that service_release_index names an index.json.")
    for number, entry in enumerate(releases, 1):
        if problem := _problem(entry):
            raise ReleaseError(f"release {number} of the index: {problem}. Remedy: have whoever publishes the index correct it.")
    return releases


def _problem(entry: Any) -> str | None:
    if not isinstance(entry, dict):
        return "it is no map"
    for key in _TEXTS:
        if not isinstance(entry.get(key), str) or not entry[key]:
            return f"'{key}' is missing or no text"
    if not re.fullmatch(r"[0-9a-f]{64}", entry["sha256"]):
        return "'sha256' is no checksum of 64 hexadecimal digits"
    try:
        _version(entry["version"])
        url = urlsplit(entry["url"])
    except ValueError as error:
        return str(error)
    if url.scheme not in ("", "https") or (not url.scheme and (url.netloc or url.path.startswith("/") or ".." in url.path.split("/"))):
        return f"'url' is {entry['url']!r}: neither a path below the index nor an https URL"
    return None


def choose(
    index: Any, python: str, architecture: str, channel: str = "stable", version: str | None = None, platform: str = "linux"
) -> dict[str, Any]:
    """The entry to install: the newest of the channel, or the given version, for this node.

    python: ``3.11``, or longer; architecture: as ``uname -m`` says it. Raises ReleaseError.
    """
    python = ".".join(python.split(".")[:2])
    architecture = _ARCHITECTURES.get(architecture, architecture)
    releases = entries(index)
    fitting = [
        entry
        for entry in releases
        if entry["platform"] == platform
        and _ARCHITECTURES.get(entry["architecture"], entry["architecture"]) == architecture
        and entry.get("python") in (python, None)
    ]
    if not fitting:
        there = _told({f"{entry['platform']} {entry['architecture']} Python {entry.get('python') or 'any'}" for entry in releases})
        raise ReleaseError(
            f"the release index has nothing for {platform} {architecture} with Python {python}; it has {there}. "
            f"Remedy: build one (python -m bzzz_setup.release --python {python}), or set service_release_index."
        )
    of_channel = [entry for entry in fitting if entry["channel"] == channel]
    if not of_channel:
        there = _told({entry["channel"] for entry in fitting})
        raise ReleaseError(
            f"the release index has nothing in channel '{channel}' for this node; it has {there}. Remedy: set service_release_channel."
        )
    if version is None:
        return max(of_channel, key=lambda entry: _version(entry["version"]))
    try:
        wanted = _version(version)
    except ValueError:
        raise ReleaseError(f"'{version}' is no version. Remedy: set service_version to one such as 1.2.3.") from None
    for entry in of_channel:
        if _version(entry["version"]) == wanted:
            return entry
    there = _told({entry["version"] for entry in of_channel})
    elsewhere = sorted({entry["channel"] for entry in fitting if _version(entry["version"]) == wanted})
    hint = f"set service_release_channel to {elsewhere[0]}" if elsewhere else "set service_version to one of them"
    raise ReleaseError(f"version {version} is not in channel '{channel}' for this node; it has {there}. Remedy: {hint}.")


def _version(text: str) -> Version:
    """To be compared; raises ValueError."""
    from packaging.version import Version  # noqa: PLC0415 - controllers have it; a node that this file may be sent to need not

    return Version(text)


def _told(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "no release at all"
