# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Certificates that the operator brings: is the chain one that clients accept, for these names, and is the key its own?

Each fault has words of its own; what they leave open, OpenSSL is asked for, by a handshake in memory.
"""

from __future__ import annotations

import contextlib
import datetime
import re
import ssl
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

from .addresses import address_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SOON_DAYS = 30
_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.+?-----END \1-----", re.DOTALL)


class Fault(NamedTuple):
    """`option` is without the role's prefix."""

    option: str
    message: str
    remedy: str
    severity: str = "error"


class Upload(NamedTuple):
    """Texts of the operator's files; `authorities` is None where the system's own are meant."""

    certificate: str
    key: str
    passphrase: str | None
    authorities: str | None
    names: list[str]


def judge(given: Upload, now: datetime.datetime) -> Iterator[Fault]:
    """What is wrong with certificate and key as far as it can be told without OpenSSL's word; see also `handshake`."""
    chain, faults = _chain(given.certificate)
    key, more = _key(given)
    yield from (*faults, *more)
    if chain:
        if key:
            yield from _match(chain, key)
        yield from _dates(chain, now)
        yield from _names(chain[0], given.names)
        yield from _issuers(chain, _authorities(given.authorities))


def _blocks(text: str) -> list[tuple[str, str]]:
    """(kind, PEM) of everything in a PEM file."""
    return [(found[1], found[0]) for found in _BLOCK.finditer(text)]


def _chain(text: str) -> tuple[list[Any], list[Fault]]:
    from cryptography import x509  # noqa: PLC0415 - controllers have it; a node that this file may be sent to need not

    option, kinds = "certificate_file", [kind for kind, _pem in _blocks(text)]
    if any("PRIVATE KEY" in kind for kind in kinds):
        remedy = "Give the certificate and its intermediates in this file, and the key in tls_key_file."
        return [], [Fault(option, "It holds a private key, where only certificates belong.", remedy)]
    if "CERTIFICATE" not in kinds:
        if any("REQUEST" in kind for kind in kinds):
            message = "It holds a request for a certificate (CSR), which nobody has signed yet."
            return [], [Fault(option, message, "Hand it to an authority, and give what comes back.")]
        remedy = "Give text that has -----BEGIN CERTIFICATE----- in it; from PKCS #12: openssl pkcs12 -in FILE -nokeys -out FILE.pem."
        return [], [Fault(option, "It holds no certificate in PEM form.", remedy)]
    found, faults = [], []
    for place, pem in enumerate((pem for kind, pem in _blocks(text) if kind == "CERTIFICATE"), 1):
        try:
            certificate = x509.load_pem_x509_certificate(pem.encode())
            # These are read late, and fail late.
            _read = (
                certificate.extensions,
                certificate.subject.rfc4514_string(),
                certificate.issuer.rfc4514_string(),
                certificate.public_key(),
            )
        except Exception:  # a parser's whatever: ValueError for damage, others for what it does not know
            faults.append(Fault(option, f"Certificate {place} is damaged, cut off or of an unknown kind.", "Copy the file anew."))
        else:
            found.append(certificate)
    return ([] if faults else found), faults


def open_key(text: str, passphrase: str | None) -> Any:
    """The private key in a PEM file. ValueError says what is wrong with it, and quotes none of it."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    pem = next((pem for kind, pem in _blocks(text) if kind.endswith("PRIVATE KEY")), None)
    if not pem:
        raise ValueError("It holds no private key in PEM form.")
    # A key that is not encrypted must not be given a passphrase.
    encrypted = is_encrypted(pem)
    try:
        return load_pem_private_key(pem.encode(), (passphrase or "").encode() if encrypted else None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        told = "It cannot be opened with this passphrase." if encrypted else "It is damaged, cut off or of an unknown kind."
        raise ValueError(told) from None


def plain_key(text: str, passphrase: str | None) -> str:
    """The private key in a PEM file as PKCS #8 without encryption; ValueError as from `open_key`."""
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat  # noqa: PLC0415

    return str(open_key(text, passphrase).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())


def is_encrypted(text: str) -> bool:
    return "BEGIN ENCRYPTED PRIVATE KEY" in text or "Proc-Type: 4,ENCRYPTED" in text


def _key(given: Upload) -> tuple[Any, list[Fault]]:
    option, kinds = "key_file", [kind for kind, _pem in _blocks(given.key)]
    keys = [kind for kind in kinds if kind.endswith("PRIVATE KEY")]
    if not keys and "CERTIFICATE" in kinds:
        return None, [
            Fault(option, "It holds a certificate, where the private key belongs.", "Give the key that was made for the certificate.")
        ]
    if "OPENSSH PRIVATE KEY" in keys:
        return None, [Fault(option, "It is a key for SSH.", "Give the key that was made for the certificate.")]
    if not keys:
        remedy = "Give text that has -----BEGIN PRIVATE KEY----- in it; from PKCS #12: openssl pkcs12 -in FILE -nocerts -out FILE.pem."
        return None, [Fault(option, "It holds no private key in PEM form.", remedy)]
    encrypted = is_encrypted(given.key)
    if encrypted and not given.passphrase:
        remedy = "Put the passphrase into the vault file as tls_key_passphrase, or give the key without one."
        return None, [Fault("key_passphrase", "The private key is encrypted, and no passphrase is given.", remedy)]
    try:
        key = open_key(given.key, given.passphrase)
    except ValueError as error:
        if encrypted:
            message = "The passphrase does not open the private key."
            return None, [Fault("key_passphrase", message, "Try it with: openssl pkey -noout -in FILE. Correct it in the vault file.")]
        return None, [Fault(option, str(error), "Copy the file anew.")]
    if given.passphrase and not encrypted:
        message = "The private key is not encrypted, so this has no effect."
        return key, [Fault("key_passphrase", message, "Remove it, or encrypt the key: openssl pkey -aes256 -in FILE -out NEW.", "warning")]
    return key, []


def _match(chain: list[Any], key: Any) -> Iterator[Fault]:
    place = next((place for place, certificate in enumerate(chain) if certificate.public_key() == key.public_key()), None)
    if place is None:
        message = f"It is not the key of the certificate ({_subject(chain[0])})."
        yield Fault("key_file", message, "Give the key that the certificate was requested with, or request a certificate for this one.")
    elif place:
        message = (
            f"The certificate of the key ({_subject(chain[place])}) stands at place {place + 1}; clients take the first for the server's."
        )
        yield Fault("certificate_file", message, "Put the server's certificate first, then its intermediates.")
        chain.insert(0, chain.pop(place))  # the rest is judged as if it stood there


def _dates(chain: list[Any], now: datetime.datetime) -> Iterator[Fault]:
    for certificate in chain:
        who, ends, begins = _subject(certificate), certificate.not_valid_after_utc, certificate.not_valid_before_utc
        if ends <= now:
            yield Fault(
                "certificate_file", f"The certificate of {who} has expired on {ends:%Y-%m-%d}.", "Have it renewed, and give the new one."
            )
        elif begins > now:
            message = f"The certificate of {who} is not valid before {begins:%Y-%m-%d %H:%M} UTC."
            yield Fault("certificate_file", message, "Wait until then, set this admin host's clock, or give one that is valid now.")
        elif ends <= now + datetime.timedelta(days=SOON_DAYS):
            message = f"The certificate of {who} expires on {ends:%Y-%m-%d}."
            yield Fault("certificate_file", message, "Have it renewed, and give the new one.", "warning")


def _names(leaf: Any, wanted: list[str]) -> Iterator[Fault]:
    from cryptography import x509  # noqa: PLC0415

    try:
        alternative = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        message = "The certificate has no names (subjectAltName), and clients look at nothing else."
        yield Fault("certificate_file", message, f"Request one for {', '.join(wanted)}.")
        return
    names = [str(name).lower() for name in alternative.get_values_for_type(x509.DNSName)]
    names += [str(address) for address in alternative.get_values_for_type(x509.IPAddress)]
    if missing := [name for name in wanted if not covers(names, name)]:
        message = f"The certificate is for {', '.join(names) or 'nothing'}, but not for {', '.join(missing)}."
        yield Fault(
            "certificate_file", message, "Request one for these names, too, or declare in tls_extra_names by which names clients come."
        )


def covers(names: list[str], wanted: str) -> bool:
    """Whether a client that asks for `wanted` accepts one of the certificate's names; `*` stands for one label, the first."""
    name = wanted.lower()
    if address_of(name):
        return str(address_of(name)) in names
    return name in names or (not name.startswith("*.") and "." in name and f"*.{name.partition('.')[2]}" in names)


def _authorities(text: str | None) -> list[Any]:
    from cryptography import x509  # noqa: PLC0415

    if text is None:
        found = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some of the system's are old, which is not the operator's to mend
            for der in ssl.create_default_context().get_ca_certs(binary_form=True):
                with contextlib.suppress(ValueError):
                    found.append(x509.load_der_x509_certificate(der))
        return found
    # Their own faults are told by rules.downloads.judge_certificates.
    return _chain(text)[0]


def _issuers(chain: list[Any], authorities: list[Any]) -> Iterator[Fault]:
    """Each certificate's issuer must be at hand, until one is trusted."""
    current, rest = chain[0], chain[1:]
    while not any(_issued(current, authority) for authority in authorities):
        issuer = next((other for other in rest if _issued(current, other)), None)
        if issuer is None:
            yield _broken(current, [*rest, *authorities])
            return
        rest.remove(issuer)
        current = issuer


def _broken(last: Any, known: list[Any]) -> Fault:
    who, by = _subject(last), last.issuer.rfc4514_string()
    if last.issuer == last.subject:
        message = f"The chain ends with {who}, which has signed itself and is trusted by nobody."
        return Fault("certificate_file", message, "Give the authority's own certificate as tls_ca_file, if clients have it, too.")
    if any(other.subject == last.issuer for other in known):
        message = f"The chain is broken: {who} names {by} as its issuer, but was not signed with that one's key."
        return Fault("certificate_file", message, f"Get the certificate of the {by} that did sign it, and put it below.")
    message = f"The chain is not complete: {who} was issued by {by}, which is neither in the file nor trusted."
    remedy = (
        "Append that certificate (an intermediate, from whoever issued yours) to the file; or, if it is the root, name it in tls_ca_file."
    )
    return Fault("certificate_file", message, remedy)


def _issued(certificate: Any, issuer: Any) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except Exception:  # names that differ, a signature that does not hold, a key or hash that is not known: all are a no
        return False
    return True


def _subject(certificate: Any) -> str:
    return str(certificate.subject.rfc4514_string()) or f"serial number {certificate.serial_number:x}"


def handshake(certificate: Path, key: Path, passphrase: str | None, authorities: str | None, name: str) -> str:
    """Why a client that trusts `authorities` (None: the system's) and asks for `name` would go away again; empty where it stays."""
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without a passphrase OpenSSL would ask at the terminal.
        server_side.load_cert_chain(certificate, key, password=passphrase or "")
        client_side = ssl.create_default_context(cadata=authorities and "\n".join(pem for _kind, pem in _blocks(authorities)))
        client_side.verify_flags |= ssl.VERIFY_X509_STRICT  # as newer Pythons do by themselves, those of some nodes among them
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = client_side.wrap_bio(to_client, to_server, server_hostname=name.replace("*", "any"))
        server = server_side.wrap_bio(to_server, to_client, server_side=True)
        for _turn in range(10):
            waiting = False
            for side in (client, server):
                try:
                    side.do_handshake()
                except ssl.SSLWantReadError:
                    waiting = True
            if not waiting:
                return ""
    except ssl.SSLCertVerificationError as error:
        return str(error.verify_message)
    except (OSError, ValueError) as error:  # SSLError is an OSError
        return str(getattr(error, "reason", None) or error)
    return "the handshake does not end"
