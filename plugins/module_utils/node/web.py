# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Probes of HTTP, TLS and certificates. No proxy is asked and no redirection followed: a probe means the server it names."""

from __future__ import annotations

import functools
import ipaddress
import json as json_
import os
import pwd
import re
import socket
import ssl
import stat
import time
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

from .probes import Node, Outcome, outcome, run

BODY_BYTES = 1 << 20
VERSIONS = {
    "TLSv1": ssl.TLSVersion.TLSv1,
    "TLSv1.1": ssl.TLSVersion.TLSv1_1,
    "TLSv1.2": ssl.TLSVersion.TLSv1_2,
    "TLSv1.3": ssl.TLSVersion.TLSv1_3,
}


def fetch(
    url: str,
    timeout: float = 5,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    ca: str | None = None,
    certificate: str | None = None,
    key: str | None = None,
    server_name: str | None = None,
) -> tuple[int, bytes, float]:
    """Status, up to 1 MiB of body, and seconds from connecting to the last byte. Raises OSError or HTTPException."""
    parts = urlsplit(url)
    host, secure = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    began = time.monotonic()
    connection = HTTPConnection(host, port, timeout=timeout)
    connection.sock = socket.create_connection((host, port), timeout)
    try:
        if secure:
            context = ssl.create_default_context(cafile=ca)
            if certificate:
                context.load_cert_chain(certificate, key)
            connection.sock = context.wrap_socket(connection.sock, server_hostname=server_name or host)
        target = (parts.path or "/") + ("?" + parts.query if parts.query else "")
        connection.request(method, target, headers={"Host": parts.netloc.rpartition("@")[2], **(headers or {})})
        answer = connection.getresponse()
        return answer.status, answer.read(BODY_BYTES), time.monotonic() - began
    finally:
        connection.close()


def authorised(headers: dict[str, str] | None, token_file: str | None) -> dict[str, str]:
    """The headers, with the bearer token that `token_file` on this node holds. ValueError where one cannot be sent."""
    found = {str(name): str(text) for name, text in (headers or {}).items()}
    if token_file:
        with open(token_file, encoding="utf-8") as source:
            found["Authorization"] = "Bearer " + source.read().strip()
    for name, text in found.items():
        if not text.isprintable():  # http.client's own refusal would quote it
            raise ValueError(f"the value of header {name} holds control characters")
    return found


def http(
    _node: Node,
    *,
    url: str,
    status: int = 200,
    json: dict[str, Any] | None = None,
    body: str | None = None,
    headers: dict[str, str] | None = None,
    token_file: str | None = None,
    method: str = "GET",
    ca: str | None = None,
    certificate: str | None = None,
    key: str | None = None,
    server_name: str | None = None,
    timeout: float = 5,
    latency_max_ms: float | None = None,
) -> Outcome:
    """`json` maps dotted paths to values (``members.#`` is a list's length), `body` is a regular expression."""
    wanted = [f"status {status}"] + [f"{path} = {json_.dumps(want)}" for path, want in (json or {}).items()]
    wanted += [f"body like {body}"] if body is not None else []
    wanted += [f"within {latency_max_ms:g} ms"] if latency_max_ms is not None else []
    sent = authorised(headers, token_file)
    secrets = [part for text in sent.values() for part in (text, text.rpartition(" ")[2]) if part]
    try:
        code, raw, seconds = fetch(url, timeout, method, sent, ca, certificate, key, server_name)
    except Exception as error:
        return outcome(False, _masked(f"no answer: {type(error).__name__}: {error}", secrets), ", ".join(wanted))
    milliseconds = round(seconds * 1000, 1)
    text = raw.decode(errors="replace")
    seen, wrong = [f"status {code} in {milliseconds:g} ms"], code != status
    if json:
        document = _document(text)
        found = {path: _at(document, path) for path in json}
        seen += [f"{path} = {json_.dumps(found[path])}" for path in json]
        wrong = wrong or any(found[path] != want for path, want in json.items())
    if body is not None and not re.search(body, text, re.MULTILINE):
        wrong = True
    if wrong:
        seen.append("body: " + " ".join(text[:300].split()))
    slow = latency_max_ms is not None and milliseconds > latency_max_ms
    return outcome(not wrong and not slow, _masked(", ".join(seen), secrets), ", ".join(wanted), data={"latency_ms": milliseconds})


def _masked(text: str, secrets: list[str]) -> str:
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "********")
    return text


def _document(text: str) -> Any:
    try:
        return json_.loads(text)
    except ValueError:
        return None


def _at(document: Any, path: str) -> Any:
    """The value at a dotted path of keys and list positions; None where there is none."""
    for step in path.split("."):
        if isinstance(document, list) and step == "#":
            document = len(document)
        elif isinstance(document, list) and step.isdecimal() and int(step) < len(document):
            document = document[int(step)]
        elif isinstance(document, dict):
            document = document.get(step)
        else:
            return None
    return document


def tls(
    _node: Node,
    *,
    port: int,
    host: str = "127.0.0.1",
    ca: str | None = None,
    server_name: str | None = None,
    sans: list[str] | None = None,
    min_days_left: float = 0,
    min_version: str = "TLSv1.2",
    timeout: float = 5,
) -> Outcome:
    """The chain holds for `server_name` (or `host`), and nothing older than `min_version` is spoken."""
    context = ssl.create_default_context(cafile=ca)
    name = server_name or host
    expected = f"a valid certificate for {name}, {min_version} or newer, {min_days_left:g} days left"
    try:
        with socket.create_connection((host, port), timeout) as plain, context.wrap_socket(plain, server_hostname=name) as wrapped:
            version = wrapped.version() or "nothing"
            shown: Any = wrapped.getpeercert() or {}
    except (OSError, ValueError) as error:
        return outcome(False, f"{type(error).__name__}: {error}", expected)
    days = (ssl.cert_time_to_seconds(shown["notAfter"]) - time.time()) / 86400
    names = {_plain(found) for _kind, found in shown.get("subjectAltName", ())}
    older = [old for old in list(VERSIONS)[: list(VERSIONS).index(min_version)] if _speaks(host, port, name, old, timeout)]
    wrong = [f"also speaks {old}" for old in older] + _shortcomings(days, min_days_left, names, sans)
    return outcome(not wrong, ", ".join([version, f"{days:.0f} days left", *wrong]), expected, data={"days_left": round(days, 1)})


def _speaks(host: str, port: int, name: str, version: str, timeout: float) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # only whether it answers at all
    context.set_ciphers("ALL:@SECLEVEL=0")  # old versions need hashes that today's default level refuses
    context.minimum_version = context.maximum_version = VERSIONS[version]
    try:
        with socket.create_connection((host, port), timeout) as plain, context.wrap_socket(plain, server_hostname=name):
            return True
    except OSError:
        return False


def _shortcomings(days: float, min_days: float, names: set[str], sans: list[str] | None) -> list[str]:
    missing = [name for name in sans or () if _plain(name) not in names]
    return ([f"fewer than {min_days:g} days left"] if days < min_days else []) + (["not for " + ", ".join(missing)] if missing else [])


def _plain(name: str) -> str:
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name.lower()


def certificate(
    _node: Node,
    *,
    path: str,
    ca: str | None = None,
    key: str | None = None,
    sans: list[str] | None = None,
    min_days_left: float = 0,
    owner: str | None = None,
) -> Outcome:
    """A certificate in a file: issued by `ca`, its `key` beside it, private and owned by `owner`."""
    expected = f"{min_days_left:g} days left" + (f", issued by {ca}" if ca else "") + (f", key {key}" if key else "")
    code, text, err = _x509(path)
    end = re.search(r"^notAfter=(.*)$", text, re.MULTILINE)
    if code or not end:
        return outcome(False, err.strip().splitlines()[0] if err.strip() else f"openssl: exit code {code}", expected)
    days = (ssl.cert_time_to_seconds(end[1]) - time.time()) / 86400
    names = {_plain(found.strip()) for found in re.findall(r"(?:DNS|IP Address):([^,\n]+)", text)}
    wrong = _shortcomings(days, min_days_left, names, sans)
    if ca:
        # What follows the certificate in its file are its intermediates.
        code, out, err = run(["openssl", "verify", "-CAfile", ca, "-untrusted", path, path])
        wrong += [] if code == 0 else ["not valid under its CA: " + " ".join((out + err).split())[-200:]]
    if key:
        wrong += _key_faults(key, text, owner)
    return outcome(not wrong, ", ".join([f"{days:.0f} days left", *wrong]), expected, data={"days_left": round(days, 1)})


@functools.cache
def _x509(path: str) -> tuple[int, str, str]:
    """Read once for all probes of this question that look at it."""
    return run(["openssl", "x509", "-in", path, "-noout", "-enddate", "-pubkey", "-ext", "subjectAltName"])


def _key_faults(key: str, certificate_text: str, owner: str | None) -> list[str]:
    try:
        found = os.stat(key)
    except OSError as error:
        return [f"key: {error.strerror}"]
    wrong = ["the key can be read by anyone"] if found.st_mode & (stat.S_IROTH | stat.S_IWOTH) else []
    if owner is not None and found.st_uid != pwd.getpwnam(owner).pw_uid:
        wrong.append(f"the key isn't owned by {owner}")
    code, public, _err = run(["openssl", "pkey", "-in", key, "-pubout", "-passin", "pass:"])
    return wrong if code == 0 and public.strip() in certificate_text else [*wrong, "the key isn't this certificate's"]


KINDS = {"http": http, "tls": tls, "certificate": certificate}
