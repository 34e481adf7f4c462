# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Roles, scopes, and who has them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

VIEWER, OPERATOR, ADMIN = "viewer", "operator", "admin"
# Each may do what those before it may.
ROLES = (VIEWER, OPERATOR, ADMIN)
# What an endpoint asks for, and the least role that has it.
SCOPES = {"api": VIEWER, "events": VIEWER, "mcp": VIEWER, "metrics": VIEWER, "models": VIEWER, "setup": OPERATOR, "auth": ADMIN}

CLUSTER, TOKEN, USER, LDAP, OIDC = "cluster", "token", "user", "ldap", "oidc"


def highest(roles: Iterable[str]) -> str:
    """The one that may the most; empty where there is none."""
    return max(roles, key=ROLES.index, default="")


@dataclasses.dataclass(frozen=True)
class Principal:
    """Who asks. ``kind``: cluster (its own token), token, user, ldap, oidc. ``role``: empty for none.

    scopes: empty for all that the role has. since: what the session ends with when it changes, such as the revision of the user's record.
    """

    kind: str
    name: str
    role: str
    scopes: tuple[str, ...] = ()
    since: str = ""

    def may(self, scope: str) -> bool:
        enough = self.role in ROLES and ROLES.index(self.role) >= ROLES.index(SCOPES[scope])
        return enough and (not self.scopes or scope in self.scopes)

    def __str__(self) -> str:
        return self.kind if self.kind == CLUSTER else f"{self.kind}:{self.name}"
