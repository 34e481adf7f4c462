# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Passwords of local users: argon2id as RFC 9106 recommends it for little memory (64 MiB)."""

from __future__ import annotations

import base64
import secrets
import unicodedata

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

_hasher = PasswordHasher()


def _well_formed() -> str:
    """The hash of nobody's password, with the cost of any."""
    salt, digest = (base64.b64encode(secrets.token_bytes(n)).decode().rstrip("=") for n in (_hasher.salt_len, _hasher.hash_len))
    return f"$argon2id$v=19$m={_hasher.memory_cost},t={_hasher.time_cost},p={_hasher.parallelism}${salt}${digest}"


NOBODYS = _well_formed()


def _bytes(password: str) -> bytes:
    return unicodedata.normalize("NFKC", password).encode(errors="surrogatepass")


def hashed(password: str) -> str:
    """What is kept of a password."""
    return _hasher.hash(_bytes(password))


def fits(password: str, kept: str | None) -> bool:
    """Whether this is the password; as slow where there is none to compare with."""
    try:
        return _hasher.verify(kept or NOBODYS, _bytes(password)) and kept is not None
    except InvalidHashError:
        return fits(password, None)
    except VerificationError:
        return False


def renewed(password: str, kept: str) -> str | None:
    """The hash of a password that fits, when what is kept was made with other parameters than today's."""
    return hashed(password) if _hasher.check_needs_rehash(kept) else None
