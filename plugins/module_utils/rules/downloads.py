# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Downloads: addresses that are some, passwords in their place, certificates that are valid."""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from ..addresses import AddressError, address_of, is_host_name, parse_network
from ..problems import Problem, problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..cluster import Cluster
    from ..declaration import Declared

SOON_DAYS = 30
DISTRIBUTIONS = ("debian", "ubuntu")
# Whatever else could end a value, or begin another, in a configuration file or a shell.
_STRANGE = re.compile(r"[^A-Za-z0-9._~:/?#\[\]@!&()*+,;=%-]")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9./~+-]*")
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def literal(declared: Mapping[str, Declared], cluster: Cluster) -> Iterator[Problem]:
    """Everything about downloads that neither a node nor a file need be asked for."""
    for node, roles in declared.items():
        given = roles["downloads"]
        for option in ("http_proxy", "https_proxy"):
            if given[option]:
                yield from _address(option, given[option], node, proxy=True)
        for option in ("apt_mirror", "apt_security_mirror"):
            if given[option]:
                yield from _address(option, given[option], node, proxy=False)
        for entry in given["no_proxy"]:
            if message := _no_host(entry):
                remedy = "Write names (mirror.example.com), domains (.example.com), addresses or networks (10.0.0.0/8)."
                yield problem("downloads_no_proxy", message, remedy, value=_hidden(entry), node=node)
        for option in ("apt_suites", "apt_components"):
            for word in given[option]:
                if not _WORD.fullmatch(word):
                    message = f"'{word}' is no name that a package source could have."
                    yield problem(f"downloads_{option}", message, "Write for example bookworm, main.", value=word, node=node)
        yield from _idle(given, node)


def _idle(given: Mapping[str, Any], node: str) -> Iterator[Problem]:
    """Options that do nothing without another."""
    proxy = given["http_proxy"] or given["https_proxy"]
    needs = dict.fromkeys(("proxy_credentials", "no_proxy"), (proxy, "downloads_http_proxy"))
    needs |= dict.fromkeys(
        ("apt_security_mirror", "apt_suites", "apt_components", "apt_key_file"), (given["apt_mirror"], "downloads_apt_mirror")
    )
    for option, (needed, other) in needs.items():
        if given[option] and not needed:
            message = f"This has no effect without {other}."
            yield problem(f"downloads_{option}", message, f"Set {other}, or remove this.", node=node, severity="warning")


def _address(option: str, url: str, node: str, *, proxy: bool) -> Iterator[Problem]:
    example = "http://proxy.example.com:3128" if proxy else "https://mirror.example.com/debian"

    def wrong(message: str, remedy: str) -> Problem:
        return problem(f"downloads_{option}", message, remedy, value=_hidden(url), node=node)

    try:
        parts = urlsplit(url)
        _port = parts.port
    except ValueError:
        yield wrong("This is no address (URL).", f"Write for example {example}.")
        return
    if parts.username is not None or "@" in parts.netloc:
        where = "put user:password into downloads_proxy_credentials in the vault file" if proxy else "let the nodes read the mirror without"
        yield wrong("It holds a password, or a user, which would be readable in files and logs.", f"Take it out, and {where}.")
    elif _STRANGE.search(url):
        yield wrong("It holds characters that no address has.", f"Write for example {example}; encode others, such as %20 for a space.")
    elif proxy and parts.scheme != "http":
        yield wrong(_scheme_of(parts, url), f"Write {_as_proxy(parts, url) or example}.")
    elif not proxy and parts.scheme not in ("http", "https"):
        yield wrong("A mirror's address begins with https:// or http://.", f"Write for example {example}.")
    elif not (parts.hostname and (address_of(parts.hostname) or is_host_name(parts.hostname))):
        yield wrong("It names no host.", f"Write for example {example}.")
    elif parts.query or parts.fragment or (proxy and parts.path not in ("", "/")):
        yield wrong("It goes on after the place that it is to name.", f"Write for example {example}.")


def _scheme_of(parts: SplitResult, url: str) -> str:
    if "//" not in url:
        return "A proxy's address begins with http://."
    if parts.scheme == "https":
        return "The proxy itself is spoken to in plain HTTP, also for https:// addresses."
    return f"'{parts.scheme}' proxies are not supported."


def _as_proxy(parts: SplitResult, url: str) -> str | None:
    """The address that was probably meant: `proxy:3128`, or `https://` for what is fetched through it."""
    if parts.scheme == "https" and parts.hostname:
        return f"http://{parts.netloc}"
    host, _colon, port = url.partition(":")
    return f"http://{url}" if is_host_name(host) and (not port or port.isdecimal()) else None


def _no_host(entry: str) -> str | None:
    """What is wrong with an entry of no_proxy."""
    if "//" in entry or "@" in entry:
        return "This is an address (URL), not a host."
    if "/" in entry:
        try:
            parse_network(entry)
        except AddressError as error:
            return str(error)
        return None
    if entry == "*" or address_of(entry) or is_host_name(entry.removeprefix("*").removeprefix(".")):
        return None
    return f"'{entry}' is no host, domain, address or network."


def _hidden(url: str) -> str:
    """Without what may be a password."""
    return re.sub(r"[^/@]*@|(?<=//).*@", "********@", url)


def files(declared: Mapping[str, Declared], folders: Mapping[str, Path], now: datetime.datetime) -> Iterator[Problem]:
    """What is wrong with the operator's files, which start in the node's inventory folder. `tls` and `auth` read some, too."""
    for node, roles in declared.items():
        given = roles["downloads"]
        for name in given["ca_files"]:
            text, why = text_of(folders[node] / Path(name).expanduser())
            judged = judge_certificates(text, now) if text is not None else [("error", why, "Name a PEM file that this user can read.")]
            for severity, message, remedy in judged:
                yield problem("downloads_ca_files", message, remedy, value=name, node=node, severity=severity)  # type: ignore[arg-type]
        if name := given["apt_key_file"]:
            text, why = text_of(folders[node] / Path(name).expanduser())
            message = why if text is None else _key_fault(text)
            if message:
                remedy = "Export the mirror's public key: gpg --armor --export KEY > FILE."
                yield problem("downloads_apt_key_file", message, remedy, value=name, node=node)


def text_of(path: Path) -> tuple[str | None, str]:
    """A file's text, or why there is none."""
    try:
        return path.read_text(encoding="utf-8"), ""
    except UnicodeDecodeError:
        return None, f"{path} is binary, not text (PEM). If it is in DER form: openssl x509 -inform der -in FILE -out FILE.pem."
    except OSError as error:
        return None, f"{path} cannot be read on this admin host: {error.strerror}."


def _key_fault(text: str) -> str:
    if "PRIVATE KEY BLOCK" in text:
        return "It holds a private key; whoever could read it can sign packages that the nodes install."
    return "" if "-----BEGIN PGP PUBLIC KEY BLOCK-----" in text else "It is no ASCII-armoured OpenPGP public key."


def judge_certificates(text: str, now: datetime.datetime) -> Iterator[tuple[str, str, str]]:
    """(severity, message, remedy) for what is wrong with a file of authorities' certificates."""
    # Here, since controllers have it, and a node that this file may be sent to need not.
    from cryptography import x509  # noqa: PLC0415

    if "PRIVATE KEY-----" in text:
        yield "error", "It holds a private key, which has no business here.", "Give a file with certificates only."
        return
    found = _CERTIFICATE.findall(text)
    if not found:
        yield "error", "It holds no certificate in PEM form.", "Give text that has -----BEGIN CERTIFICATE----- in it."
    for place, pem in enumerate(found, 1):
        try:
            certificate = x509.load_pem_x509_certificate(pem.encode())
            subject = certificate.subject.rfc4514_string()
            extension = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
            authority = extension.value.ca
        except x509.ExtensionNotFound:
            authority = certificate.version is x509.Version.v1
        except ValueError:
            yield "error", f"Certificate {place} is none: it is damaged or cut off.", "Copy the file anew."
            continue
        ends, begins = certificate.not_valid_after_utc, certificate.not_valid_before_utc
        if ends <= now:
            yield "error", f"Certificate {place} ({subject}) has expired on {ends:%Y-%m-%d}.", "Get its successor from whoever issues it."
        elif begins > now:
            remedy = "Set this admin host's clock, or give the certificate that is valid now."
            yield "error", f"Certificate {place} ({subject}) is valid from {begins:%Y-%m-%d} on only.", remedy
        elif ends <= now + datetime.timedelta(days=SOON_DAYS):
            yield "warning", f"Certificate {place} ({subject}) expires on {ends:%Y-%m-%d}.", "Add its successor."
        if not authority:
            remedy = "Give the certificate of the authority that has issued it, unless only that one server is meant."
            yield "warning", f"Certificate {place} ({subject}) is no authority's.", remedy


def effective(declared: Mapping[str, Declared], cluster: Cluster, facts: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    """A mirror for nodes of a distribution that we cannot write the sources of."""
    for node, seen in facts.items():
        name = seen.get("bzzz_system", {}).get("os", {}).get("id")
        mirror = declared[node]["downloads"]["apt_mirror"]
        if mirror and name not in DISTRIBUTIONS:
            message = f"Mirrors are set up on Debian and Ubuntu, and this node runs {name}."
            yield problem("downloads_apt_mirror", message, "Remove it for this node (host_vars).", value=mirror, node=node)
