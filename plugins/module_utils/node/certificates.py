# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""State of a node's certificate and of the authority kept on a coordinator, read by ``openssl``."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import os
import re
from typing import Any

from .state import attributes, run

KEY_ATTRIBUTES = {"owner": "root", "group": "bzzz-tls", "mode": "0640"}


def _openssl(*arguments: str) -> str:
    """Its answer; empty where it refused."""
    code, out, _error = run(["openssl", *arguments], timeout=20)
    return out if code == 0 else ""


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return None


def fingerprint(path: str) -> str | None:
    """SHA-256 fingerprint of the first certificate in a PEM file, as openssl writes it."""
    found = re.search("-----BEGIN CERTIFICATE-----([^-]+)-----END", _read(path) or "")
    if not found:
        return None
    try:
        digest = hashlib.sha256(base64.b64decode(found[1])).hexdigest().upper()
    except ValueError:
        return None
    return ":".join(re.findall("..", digest))


def _plain(name: str) -> str:
    """Addresses as openssl prints them (0:0:…:1) and as people write them (::1) must compare alike."""
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name.lower()


def leaf_problems(directory: str, names: list[str], renew_before_days: int) -> list[str]:
    """Why the node needs a new certificate, in words; nothing where it is good."""
    key, leaf, authority = (f"{directory}/{name}" for name in ("node.key", "node.crt", "ca.crt"))
    if not os.path.exists(leaf) or not os.path.exists(key):
        return ["there is none"]
    # One call for all that is asked of the certificate; its exit code answers -checkend.
    code, said, _error = run(
        ["openssl", "x509", "-in", leaf, "-noout", "-pubkey", "-ext", "subjectAltName", "-checkend", str(renew_before_days * 86400)],
        timeout=20,
    )
    public = re.search("-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", said, re.DOTALL)
    if not public:
        return ["it cannot be read"]
    problems = []
    if public[0] != _openssl("pkey", "-in", key, "-pubout").strip():
        problems.append("it does not belong to the node's key")
    if not _openssl("verify", "-CAfile", authority, leaf):
        problems.append("it was not issued by the cluster's authority")
    # Issuing makes them right.
    problems += [f"its key's {wrong}" for wrong in attributes(key, KEY_ATTRIBUTES)]
    if code:
        problems.append(f"it has fewer than {renew_before_days} days left")
    if sorted({_plain(name) for name in re.findall(r"(?:DNS|IP Address):([^,\s]+)", said)}) != sorted({_plain(name) for name in names}):
        problems.append("its names have changed")
    return problems


def main(payload: dict[str, Any]) -> dict[str, Any]:
    """payload: tls_directory, ca_directory, names, renew_before_days. Returns {authority, leaf}, certificates as PEM."""
    ca, tls = payload["ca_directory"], payload["tls_directory"]
    return {
        "authority": {
            "certificate": _read(f"{ca}/ca.crt"),
            "fingerprint": fingerprint(f"{ca}/ca.crt"),
            "has_key": os.path.exists(f"{ca}/ca.key"),
        },
        "leaf": {
            "certificate": _read(f"{tls}/node.crt"),
            "authority_fingerprint": fingerprint(f"{tls}/ca.crt"),
            "problems": leaf_problems(tls, payload["names"], payload["renew_before_days"]),
        },
    }
