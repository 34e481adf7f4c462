# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""People in an LDAP directory or Active Directory: found as the service account, known by a bind of their own.

TLS always, and checked, before any password is sent: ``ldaps://``, or ``ldap://`` with StartTLS. Groups are walked from the
user up, so that nested ones count on any server.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import ssl
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

from ldap3 import NONE, SIMPLE, SUBTREE, Connection, Server, Tls
from ldap3.core.exceptions import LDAPException, LDAPInvalidDnError, LDAPStartTLSError
from ldap3.utils.conv import escape_filter_chars
from ldap3.utils.dn import parse_dn

from ..config import Ldap as Settings
from .directory import Directory
from .outside import TIMEOUT, Away, Locked, Outside
from .principals import LDAP, Principal, highest
from .records import account

log = logging.getLogger(__name__)

NO_ATTRIBUTES = ["1.1"]
SUCCESS, SIZE_LIMIT_EXCEEDED, NO_SUCH_OBJECT = 0, 4, 32
PAGE, PAGED = 500, "1.2.840.113556.1.4.319"
# Of one person, and how deep groups are in each other; beyond, nobody has meant it.
GROUPS, DEPTH = 5000, 16
# Groups that one search asks for.
AT_ONCE = 50


class _Checked(Tls):  # type: ignore[misc]
    """TLS by Python's own checks of certificate and name; ldap3's know no addresses, and its errors do not tell what failed."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(validate=ssl.CERT_REQUIRED)
        self.context = context
        self.fault: str | None = None

    def wrap_socket(self, connection: Any, do_handshake: bool = False) -> None:
        try:
            connection.socket = self.context.wrap_socket(connection.socket, server_hostname=connection.server.host)
        except ssl.SSLCertVerificationError as error:
            self.fault = f"its certificate is not trusted ({error.verify_message})"
            raise
        except (ssl.SSLError, OSError) as error:
            self.fault = f"no TLS ({getattr(error, 'reason', None) or error})"
            raise


def _normal(dn: str) -> str:
    """A DN as two that mean the same are written alike."""
    try:
        return ",".join(f"{kind.strip()}={value.strip()}" for kind, value, _ in parse_dn(dn, strip=True)).casefold()
    except LDAPInvalidDnError:
        return dn.casefold()


class Ldap(Outside):
    """A ``gate.Backend``; ``verify`` may raise Away, Locked or etcd's Unavailable. password: where no file has the service account's."""

    def __init__(self, settings: Settings, directory: Directory, password: str = "") -> None:
        super().__init__(LDAP, ", ".join(settings.urls))
        self._password = password
        self.settings, self.directory = settings, directory
        self._role_groups = {role: {_normal(group) for group in groups} for role, groups in settings.role_groups.items()}

    def look(self) -> None:
        with self._service() as service:
            for key, base in (("user_base", self.settings.user_base), ("group_base", self.settings.group_base)):
                service.search(base, "(objectClass=*)", "BASE", attributes=NO_ATTRIBUTES)
                self._judge(service, key)

    def verify(self, name: str, password: str) -> Principal | None:
        with self.telling(), self._service() as service:
            dn = self._find(service, name)
            # Servers take more than one spelling for the same name, so the entry is counted, too; and what is none, as slowly.
            counted = f"ldap {_normal(dn) if dn else name}"
            if not self.directory.attempt(counted):
                raise Locked
            try:
                right = self._binds(dn or f"cn={secrets.token_hex(8)},{self.settings.user_base}", password)
                if not dn or not right:
                    return None
                groups = self._groups(service, dn)
            except Away:
                self.directory.excuse(counted)
                raise
        self.directory.forgive(counted)
        role = highest(role for role, mapped in self._role_groups.items() if mapped & groups)
        return Principal(LDAP, account(name), role)

    # --- connections ---

    @contextlib.contextmanager
    def _service(self) -> Iterator[Connection]:
        """A connection bound as the service account."""
        password, file = self._password, self.settings.bind_password_file
        try:
            if file:  # read each time: it may have been changed
                password = file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise Away(f"the service account's password cannot be read ({error})") from None
        with self._connected() as connection:
            if not self._bound(connection, self.settings.bind_dn, password):
                raise Away("it refuses the service account (bind_dn and its password)")
            yield connection

    def _binds(self, dn: str, password: str) -> bool:
        with self._connected() as connection:
            return self._bound(connection, dn, password)

    def _bound(self, connection: Connection, dn: str, password: str) -> bool:
        # A bind without a password succeeds, as nobody.
        if not password or (not connection.tls_started and not connection.server.ssl):
            return False
        connection.rebind(dn, password, SIMPLE)
        if connection.result["result"] == SUCCESS:
            return True
        # Of a user: also locked, expired, or gone (noSuchObject, unwillingToPerform …); none of it is a sign-in.
        log.debug("bind: %s", connection.result["description"])
        return False

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Connection]:
        """A connection under TLS to the first server that answers; nobody is bound to it yet."""
        with contextlib.ExitStack() as stack:
            try:
                context = ssl.create_default_context(cafile=str(self.settings.ca) if self.settings.ca else None)
            except (OSError, ssl.SSLError) as error:
                raise Away(f"its authority's file {self.settings.ca} cannot be used ({error})") from None
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            reasons = []
            for url in self.settings.urls:
                try:
                    connection = self._open(url, context)
                except Away as away:
                    reasons.append(str(away) if len(self.settings.urls) == 1 else f"{url}: {away}")
                    continue
                stack.callback(connection.unbind)
                break
            else:
                raise Away("; ".join(reasons))
            try:
                yield connection
            except LDAPException as error:
                raise Away(f"the connection failed ({type(error).__name__})") from None

    def _open(self, url: str, context: ssl.SSLContext) -> Connection:
        parts, tls = urlsplit(url), _Checked(context)
        secure = parts.scheme == "ldaps"
        server = Server(parts.hostname, parts.port or (636 if secure else 389), secure, tls=tls, get_info=NONE, connect_timeout=TIMEOUT)
        # Nobody's password follows a referral.
        connection = Connection(server, auto_referrals=False, check_names=False, receive_timeout=TIMEOUT)
        try:
            connection.open(read_server_info=False)
            if not secure and not connection.start_tls(read_server_info=False):
                raise LDAPStartTLSError
        except (LDAPException, OSError) as error:
            with contextlib.suppress(LDAPException, OSError):
                connection.unbind()
            if isinstance(error, LDAPStartTLSError) and not tls.fault:
                raise Away("it offers no StartTLS, and plain LDAP would show passwords to the network") from None
            raise Away(tls.fault or "no connection (refused, unreachable or unknown)") from None
        return connection

    # --- searches ---

    def _judge(self, connection: Connection, key: str) -> None:
        code = connection.result["result"]
        if code == NO_SUCH_OBJECT:
            raise Away(f"there is no entry {key} ({getattr(self.settings, key)}) that the service account may see")
        if code != SUCCESS:
            raise Away(f"a search below {key} is refused ({connection.result['description']})")

    def _find(self, service: Connection, name: str) -> str | None:
        """The DN of the one entry of this name."""
        text = self.settings.user_filter.replace("{name}", escape_filter_chars(account(name)))
        service.search(self.settings.user_base, text, SUBTREE, attributes=NO_ATTRIBUTES, size_limit=2)
        if service.result["result"] != SIZE_LIMIT_EXCEEDED:
            self._judge(service, "user_base")
        found = _names(service.response)
        if len(found) > 1:
            log.warning("ldap: user_filter finds more than one entry for a name, so nobody signs in by it")
        return found[0] if len(found) == 1 else None

    def _groups(self, service: Connection, dn: str) -> set[str]:
        """The (normal) DNs of all groups that the entry is in, by way of other groups, too."""
        seen: set[str] = set()
        level = [dn]
        for _ in range(DEPTH):
            found = {_normal(group): group for group in self._holding(service, level)}
            level = [found[normal] for normal in found.keys() - seen]
            seen |= found.keys()
            if not level:
                return seen
            if len(seen) > GROUPS:
                break
        log.warning("ldap: somebody is in more than %d groups, or in groups more than %d deep: the rest is not looked at", GROUPS, DEPTH)
        return seen

    def _holding(self, service: Connection, members: list[str]) -> Iterator[str]:
        """The groups that have one of these as their member, page by page."""
        for first in range(0, len(members), AT_ONCE):
            some = [self.settings.group_filter.replace("{dn}", escape_filter_chars(member)) for member in members[first : first + AT_ONCE]]
            text, cookie = f"(|{''.join(some)})", None
            while cookie != b"":
                service.search(self.settings.group_base, text, SUBTREE, attributes=NO_ATTRIBUTES, paged_size=PAGE, paged_cookie=cookie)
                self._judge(service, "group_base")
                yield from _names(service.response)
                controls = service.result.get("controls") or {}
                cookie = controls.get(PAGED, {}).get("value", {}).get("cookie") or b""


def _names(response: Iterable[dict[str, Any]]) -> list[str]:
    return [entry["dn"] for entry in response if entry["type"] == "searchResEntry"]
