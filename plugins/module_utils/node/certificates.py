# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""State of a node's certificate and of the authority kept on a coordinator, read by ``openssl``."""

from __future__ import annotations

import base64
import calendar
import contextlib
import hashlib
import ipaddress
import os
import re
import time
from typing import Any

from .state import attributes, run

KEY_ATTRIBUTES = {"owner": "root", "group": "bzzz-tls", "mode": "0640"}


def _openssl(*arguments: str, stdin: str | None = None) -> str:
    """Its answer; empty where it refused."""
    code, out, _error = run(["openssl", *arguments], timeout=20, stdin=stdin)
    return out if code == 0 else ""


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return None


def fingerprints(path: str) -> dict[str, str]:
    """The certificates of a PEM file by their SHA-256 fingerprints, as openssl writes these."""
    found = {}
    for pem in re.findall("-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----", _read(path) or ""):
        with contextlib.suppress(ValueError):
            digest = hashlib.sha256(base64.b64decode(pem.split("-----")[2])).hexdigest().upper()
            found[":".join(re.findall("..", digest))] = pem + "\n"
    return found


def kept(directory: str, name: str) -> dict[str, str] | None:
    """An authority that a coordinator keeps; it needs both halves."""
    for mark, pem in fingerprints(f"{directory}/{name}.crt").items() if os.path.exists(f"{directory}/{name}.key") else ():
        return {"certificate": pem, "fingerprint": mark}
    return None


def issuer(leaf: str, trusted: dict[str, str]) -> str | None:
    """Which of the trusted authorities has issued a certificate, by its fingerprint. What the system trusts has no say."""
    for mark, pem in trusted.items():
        code, _out, _error = run(["openssl", "verify", "-no-CApath", "-no-CAstore", "-CAfile", "/dev/stdin", leaf], timeout=20, stdin=pem)
        if code == 0:
            return mark
    return None


def _ends(said: str) -> float:
    """Of a certificate that openssl has told the end of; without one, never."""
    end = re.search("^notAfter=(.*) GMT$", said, re.MULTILINE)
    return calendar.timegm(time.strptime(end[1], "%b %d %H:%M:%S %Y")) if end else float("inf")


def _plain(name: str) -> str:
    """Addresses as openssl prints them (0:0:…:1) and as people write them (::1) must compare alike."""
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name.lower()


def leaf_problems(directory: str, names: list[str], renew_before_days: int, authority: str | None) -> list[str]:
    """Why the node needs a new certificate, in words; nothing where it is good. `authority` is the PEM of the one that issued it."""
    key, leaf = (f"{directory}/{name}" for name in ("node.key", "node.crt"))
    if not os.path.exists(leaf) or not os.path.exists(key):
        return ["there is none"]
    # One call for all that is asked of the certificate; its exit code answers -checkend.
    asked = ["-pubkey", "-ext", "subjectAltName", "-enddate", "-checkend", str(renew_before_days * 86400)]
    code, said, _error = run(["openssl", "x509", "-in", leaf, "-noout", *asked], timeout=20)
    public = re.search("-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", said, re.DOTALL)
    if not public:
        return ["it cannot be read"]
    problems = []
    if public[0] != _openssl("pkey", "-in", key, "-pubout").strip():
        problems.append("it does not belong to the node's key")
    if not authority:
        problems.append("it was not issued by the cluster's authority")
    # Issuing makes them right.
    problems += [f"its key's {wrong}" for wrong in attributes(key, KEY_ATTRIBUTES)]
    # One that ends with its authority would be no better for being issued again.
    if code and not (authority and _ends(said) >= _ends(_openssl("x509", "-noout", "-enddate", stdin=authority))):
        problems.append(f"it has fewer than {renew_before_days} days left")
    if sorted({_plain(name) for name in re.findall(r"(?:DNS|IP Address):([^,\s]+)", said)}) != sorted({_plain(name) for name in names}):
        problems.append("its names have changed")
    return problems


def main(payload: dict[str, Any]) -> dict[str, Any]:
    """payload: tls_directory, ca_directory, names, renew_before_days. Returns {authority, next, held, leaf}, certificates as PEM."""
    ca, tls = payload["ca_directory"], payload["tls_directory"]
    trusted = fingerprints(f"{tls}/ca.crt")
    by = issuer(f"{tls}/node.crt", trusted)
    return {
        "authority": kept(ca, "ca"),
        "next": kept(ca, "next"),
        "held": os.path.exists(f"{ca}/next.held"),
        "leaf": {
            "certificate": _read(f"{tls}/node.crt"),
            "issuer": by,
            "trusted": list(trusted),
            "problems": leaf_problems(tls, payload["names"], payload["renew_before_days"], trusted[by] if by else None),
        },
    }
