# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A company's certificates, as a careful authority makes them: root, intermediate, servers'."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

NOW = datetime.datetime.now(datetime.timezone.utc)


@dataclass
class Issued:
    certificate: x509.Certificate
    key: Any

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()

    def key_pem(self, passphrase: str = "") -> str:
        how = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
        return str(self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how).decode())


def issue(
    name: str,
    issuer: Issued | None = None,
    *names: str,
    begins: float = -1,
    ends: float = 365,
    key: Any = None,
    usage: x509.ObjectIdentifier | list[x509.ObjectIdentifier] = x509.ExtendedKeyUsageOID.SERVER_AUTH,
) -> Issued:
    """A certificate of a server with these names, or without any, of an authority; `begins` and `ends` in days from now."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    signer = issuer.key if issuer else key
    authority = not names
    used = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only", "decipher_only"), False
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + datetime.timedelta(days=begins))
        .not_valid_after(NOW + datetime.timedelta(days=ends))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .add_extension(x509.KeyUsage(digital_signature=True, key_cert_sign=authority, crl_sign=authority, **used), critical=True)
    )
    if names:
        found = [x509.IPAddress(ipaddress.ip_address(one)) if one[0].isdigit() or ":" in one else x509.DNSName(one) for one in names]
        builder = builder.add_extension(x509.SubjectAlternativeName(found), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage(usage if isinstance(usage, list) else [usage]), critical=False)
    return Issued(builder.sign(signer, SHA256()), key)
