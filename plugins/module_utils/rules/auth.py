# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who signs in: a provider and directory that are asked over TLS only, and groups that have a role."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from ..addresses import address_of, is_host_name
from ..problems import Problem, problem
from .downloads import judge_certificates, text_of

if TYPE_CHECKING:
    import datetime
    from collections.abc import Iterator, Mapping

    from ..cluster import Cluster
    from ..declaration import Declared

# What a way to sign in needs, after the option that turns it on, and what is of use only with it.
OIDC = ("oidc_issuer", ("oidc_client_id", "oidc_role_groups"), ("oidc_client_secret", "oidc_ca_file"))
LDAP = (
    "ldap_urls",
    ("ldap_bind_dn", "ldap_bind_password", "ldap_user_base", "ldap_group_base", "ldap_role_groups"),
    ("ldap_ca_file",),
)
EXAMPLES = {
    "oidc_client_id": "the name that the cluster has at the provider",
    "oidc_role_groups": "groups of the provider's with their role, such as {admin: [ops]}",
    "ldap_bind_dn": "the service account, such as cn=bzzz,dc=example,dc=com",
    "ldap_bind_password": "its password, in the vault file",
    "ldap_user_base": "the DN below which people are, such as ou=people,dc=example,dc=com",
    "ldap_group_base": "the DN below which groups are, such as ou=groups,dc=example,dc=com",
    "ldap_role_groups": "DNs of groups with their role, such as {admin: ['cn=ops,ou=groups,dc=example,dc=com']}",
}
_DN = re.compile(r"\s*[A-Za-z][A-Za-z0-9.-]*\s*=.+")
_SCOPE = re.compile(r"[!#-\[\]-~]+")


def literal(declared: Mapping[str, Declared], cluster: Cluster) -> Iterator[Problem]:
    """Addresses that would be asked in plain text, options that need each other, filters and DNs that are none."""
    for node, roles in declared.items():
        auth = roles["auth"]
        yield from _together(auth, node)
        yield from _issuer(auth["oidc_issuer"], node)
        for url in auth["ldap_urls"]:
            yield from _directory(url, node)
        for option, word in (("ldap_user_filter", "{name}"), ("ldap_group_filter", "{dn}")):
            if message := _no_filter(auth[option], word):
                remedy = f"Write one in parentheses with {word} in it, such as ({'uid' if word == '{name}' else 'member'}={word})."
                yield problem(f"auth_{option}", message, remedy, value=auth[option], node=node)
        for option in ("ldap_user_base", "ldap_group_base"):
            if auth[option] and not _DN.fullmatch(auth[option]):
                yield problem(
                    f"auth_{option}", "This is no DN.", f"Set auth_{option} to {EXAMPLES[option]}.", value=auth[option], node=node
                )
        for group in (group for groups in (auth["ldap_role_groups"] or {}).values() for group in groups or []):
            if not _DN.fullmatch(group):
                message = f"'{group}' is no DN, and a group's name alone may be another's in the same directory."
                remedy = "Write the whole DN, such as cn=ops,ou=groups,dc=example,dc=com, as a list entry of its own."
                yield problem("auth_ldap_role_groups", message, remedy, value=group, node=node)
        for scope in auth["oidc_scopes"]:
            if not _SCOPE.fullmatch(scope):
                yield problem("auth_oidc_scopes", f"'{scope}' is no scope.", "Write for example openid, profile.", value=scope, node=node)
        if auth["oidc_issuer"] and "openid" not in auth["oidc_scopes"]:
            message = "Without the scope openid the provider tells nobody who has signed in."
            yield problem("auth_oidc_scopes", message, "Add openid to it.", value=auth["oidc_scopes"], node=node)


def _together(auth: Mapping[str, Any], node: str) -> Iterator[Problem]:
    for switch, needed, idle in (OIDC, LDAP):
        if auth[switch]:
            for option in needed:
                value = auth[option]
                if not (any(value.values()) if isinstance(value, dict) else value):
                    yield problem(f"auth_{option}", f"auth_{switch} needs it.", f"Set it to {EXAMPLES[option]}.", node=node)
        else:
            for option in (*needed, *idle):
                if auth[option]:
                    remedy = f"Set auth_{switch}, or remove this."
                    yield problem(f"auth_{option}", f"This has no effect without auth_{switch}.", remedy, node=node, severity="warning")


def _parts(url: str) -> SplitResult | None:
    """An address's parts; None where it names no host, or has a user, a password or another thing that does not belong there."""
    try:
        parts = urlsplit(url)
        _port = parts.port
    except ValueError:
        return None
    host = parts.hostname or ""
    plain = "@" not in parts.netloc and not parts.query and not parts.fragment and not re.search(r"\s", url)
    return parts if plain and (address_of(host) or is_host_name(host)) else None


def _issuer(url: str | None, node: str) -> Iterator[Problem]:
    if not url:
        return
    parts = _parts(url)
    remedy = "Write it as the provider does in its discovery document, such as https://id.example.com/realms/main."
    if parts and parts.scheme == "http":
        message = "Over plain HTTP anybody on the way could say who has signed in."
        yield problem("auth_oidc_issuer", message, "Have the provider serve HTTPS, and write its https:// URL.", value=url, node=node)
    elif not parts or parts.scheme != "https":
        yield problem("auth_oidc_issuer", "This is no https:// URL of a provider.", remedy, value=_hidden(url), node=node)
    elif parts.path.endswith("/.well-known/openid-configuration"):
        message = "This is the address of the provider's discovery document, which follows from the issuer."
        short = url.removesuffix("/.well-known/openid-configuration")
        yield problem("auth_oidc_issuer", message, f"Write {short}.", value=url, node=node)


def _directory(url: str, node: str) -> Iterator[Problem]:
    parts = _parts(url)
    if not parts or parts.scheme not in ("ldaps", "ldap") or parts.path not in ("", "/"):
        remedy = "Write ldaps://HOST, or ldap://HOST for StartTLS, with :PORT where it is another than usual."
        yield problem("auth_ldap_urls", "This is no address of a directory server.", remedy, value=_hidden(url), node=node)


def _no_filter(text: str, word: str) -> str:
    depth = 0
    for place, letter in enumerate(text.strip()):
        depth += (letter == "(") - (letter == ")")
        if depth < 1 and place < len(text.strip()) - 1:
            return "This is no LDAP filter: it begins or ends before its last parenthesis."
    if depth or not text.strip():
        return "This is no LDAP filter: its parentheses do not match."
    return "" if word in text else f"Without {word} in it, everybody would be the same entry."


def _hidden(url: str) -> str:
    """Without what may be a password."""
    return re.sub(r"[^/@]*@|(?<=//).*@", "********@", url)


def files(declared: Mapping[str, Declared], folders: Mapping[str, Path], now: datetime.datetime) -> Iterator[Problem]:
    """What is wrong with the authorities' certificates on the admin host, which start in the node's inventory folder."""
    for node, roles in declared.items():
        for option, switch in (("oidc_ca_file", "oidc_issuer"), ("ldap_ca_file", "ldap_urls")):
            name = roles["auth"][option]
            if not name or not roles["auth"][switch]:
                continue
            text, why = text_of(folders[node] / Path(name).expanduser())
            judged = judge_certificates(text, now) if text is not None else [("error", why, "Name a PEM file that this user can read.")]
            for severity, message, remedy in judged:
                yield problem(f"auth_{option}", message, remedy, value=name, node=node, severity=severity)  # type: ignore[arg-type]
