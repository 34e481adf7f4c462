# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Users and tokens: as they lie in etcd, and what may be asked for. Nothing here is trusted: both come from outside."""

from __future__ import annotations

import dataclasses
import json
import re
import time
import unicodedata
from collections.abc import Callable
from typing import Any

from ..config import Problem
from .principals import ROLES, SCOPES, VIEWER

DAY = 24 * 3600
LONGEST_DAYS = 5 * 366
PASSWORD_LENGTHS = (12, 256)
NAME = re.compile(r"[a-z0-9](?:[a-z0-9._@-]{0,62}[a-z0-9])?")
_ID = re.compile(r"[0-9a-f]{16}")
_SECRET = re.compile(r"bzzz_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")


class Invalid(Exception):
    """Every problem of what was asked for."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


@dataclasses.dataclass(frozen=True)
class User:
    """password: its argon2id hash; revision: when etcd last changed the record; times in seconds since the epoch."""

    name: str
    role: str
    password: str
    created: int
    changed: int
    by: str
    revision: int = 0


@dataclasses.dataclass(frozen=True)
class Token:
    """sha256: of the whole token, hexadecimal; scopes: empty for all of the role's."""

    id: str
    name: str
    role: str
    scopes: tuple[str, ...]
    sha256: str
    created: int
    expires: int
    by: str
    revision: int = 0

    @property
    def expired(self) -> bool:
        return time.time() >= self.expires


def token_id(secret: str) -> str | None:
    """The id within a token of ours; None when it is none."""
    found = _SECRET.fullmatch(secret)
    return found[1] if found else None


def account(name: str) -> str:
    """A name as accounts are told apart by it."""
    return unicodedata.normalize("NFKC", name).strip().casefold()


def dump(record: User | Token) -> str:
    fields = dataclasses.asdict(record)
    del fields["revision"]
    return json.dumps(fields, sort_keys=True)


def load_user(key: str, value: bytes, revision: int) -> User | None:
    """The user that etcd has at this key; None when that is no record of this release."""
    fields = _fields(value, name=str, role=str, password=str, created=int, changed=int, by=str)
    return User(**fields, revision=revision) if fields and fields["name"] == key and fields["role"] in ROLES else None


def load_token(key: str, value: bytes, revision: int) -> Token | None:
    """As ``load_user``. A scope unknown to this release stays: without it the token would have more than it was given."""
    fields = _fields(value, id=str, name=str, role=str, scopes=list, sha256=str, created=int, expires=int, by=str)
    if not fields or fields["id"] != key or fields["role"] not in ROLES:
        return None
    scopes = tuple(str(scope) for scope in fields.pop("scopes"))
    return Token(**fields, scopes=scopes, revision=revision)


def _fields(value: bytes, **types: type) -> dict[str, Any] | None:
    try:
        document = json.loads(value)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or not all(type(document.get(name)) is kind for name, kind in types.items()):
        return None
    return {name: document[name] for name in types}


# --- what clients ask for ---


def _name(key: str, value: Any) -> str:
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise Invalid(Problem(key, "this is no name", "use lower-case letters, digits, '.', '_', '@' and '-', at most 64"))
    return value


def _role(key: str, value: Any) -> str:
    if value not in ROLES:
        raise Invalid(Problem(key, "this is no role", f"write {', '.join(ROLES[:-1])} or {ROLES[-1]}"))
    return str(value)


def _password(key: str, value: Any) -> str:
    least, most = PASSWORD_LENGTHS
    if not isinstance(value, str) or not least <= len(value) <= most:
        raise Invalid(Problem(key, f"a password has {least} to {most} characters", "choose another; several words make a good one"))
    return value


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise Invalid(Problem(key, "this is no text", "write it in quotes"))
    return value


def _scopes(key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(scope, str) and scope in SCOPES for scope in value):
        raise Invalid(Problem(key, "this is no list of scopes", f"write some of {', '.join(SCOPES)}, or none for all that the role has"))
    return tuple(sorted(set(value)))


def _days(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= LONGEST_DAYS:
        raise Invalid(Problem(key, "this is no time to live", f"write days, more than 0 and at most {LONGEST_DAYS}"))
    return float(value)


def _unlocked(key: str, value: Any) -> bool:
    if value is not False:
        raise Invalid(Problem(key, "an account locks by itself", "write false to unlock it"))
    return False


_Parser = Callable[[str, Any], Any]
NEW_USER: dict[str, _Parser] = {"name": _name, "role": _role, "password": _password}
CHANGED_USER: dict[str, _Parser] = {"role": _role, "password": _password, "locked": _unlocked}
OWN_PASSWORD: dict[str, _Parser] = {"old": _text, "password": _password}
SESSION: dict[str, _Parser] = {"user": _text, "password": _text}
NEW_TOKEN: dict[str, _Parser] = {"name": _name, "role": _role, "scopes": _scopes, "days": _days}
TOKEN_DEFAULTS: dict[str, Any] = {"role": VIEWER, "scopes": [], "days": 90}


def asked(body: bytes, parsers: dict[str, _Parser], defaults: dict[str, Any] | None = None, partly: bool = False) -> dict[str, Any]:
    """The fields of a JSON body; raises Invalid with every problem. partly: what is not given is not in the answer."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise Invalid(Problem("body", "this is no JSON object", f"send an object with {', '.join(parsers)}"))
    document = {**(defaults or {}), **document}
    problems = [Problem("body", "there is a field too many", f"send only {', '.join(parsers)}")] if document.keys() - parsers.keys() else []
    found = {}
    for key, parse in parsers.items():
        try:
            if key in document:
                found[key] = parse(key, document[key])
            elif not partly:
                problems.append(Problem(key, "this is missing", "send it"))
        except Invalid as invalid:
            problems += invalid.problems
    if problems:
        raise Invalid(*problems)
    return found
