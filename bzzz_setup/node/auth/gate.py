# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who may come in: bearers of a token, browsers that have signed in, and those who try to."""

from __future__ import annotations

import asyncio
import base64
import collections
import dataclasses
import hashlib
import hmac
import ipaddress
import json
import secrets
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from ..config import Auth
from ..store import Unavailable
from .audit import Audit
from .directory import Directory
from .outside import Away, Locked
from .principals import ADMIN, CLUSTER, LDAP, OIDC, ROLES, TOKEN, USER, Principal
from .records import PASSWORD_LENGTHS, account, token_id

if TYPE_CHECKING:
    from .oidc import Oidc

# The prefix makes browsers insist on Secure, the path / and this very host.
COOKIE = "__Host-bzzz"
# What is sealed for one use is none for the other.
SESSION, FLOW = "session", "flow"
# How long a browser may be away at the provider's.
FLOW_SECONDS = 600
# Where one address tries many names; several people may be behind it.
SOURCE_FACTOR = 4
SOURCES = 4096
# Each password takes 64 MiB for a moment: one at a time, and so many wait.
WAITING = 16
# Of the threads for what blocks, so many may wait for an authority outside of the cluster.
OUTSIDE = 3
AWAY = "Who signs in cannot be looked up now: another server does not answer. This does not count as a failure; try again later."
UNSURE = "Users and tokens cannot be looked up now: etcd does not answer. The cluster's own token works."


class Backend(Protocol):
    """Something that knows passwords."""

    def verify(self, name: str, password: str) -> Principal | None:
        """Blocking. Who this is; None, and as slowly, when name or password is wrong. Raises Away, Locked or etcd's Unavailable."""


class Local:
    """The users that the directory has; a ``Backend``."""

    def __init__(self, directory: Directory) -> None:
        self.directory = directory

    def verify(self, name: str, password: str) -> Principal | None:
        from .passwords import fits, renewed  # noqa: PLC0415 - not before somebody signs in

        view = self.directory.view
        user = view.users.get(account(name)) if view else None
        right = fits(password, user.password if user else None)
        if not user or not right:
            return None
        if better := renewed(password, user.password):
            # Somebody else's change has precedence.
            self.directory.write(user, dataclasses.replace(user, password=better))
            view = self.directory.view
            user = view.users.get(user.name, user) if view else user
        return Principal(USER, user.name, user.role, since=str(user.revision))


class Throttle:
    """Failures of each source address (an IPv6 network of 64 bits counts as one) within the last ``seconds``."""

    def __init__(self, most: int, seconds: float, now: Callable[[], float]) -> None:
        self._most, self._seconds, self._now = most, seconds, now
        self._failures: collections.OrderedDict[str, collections.deque[float]] = collections.OrderedDict()

    @staticmethod
    def _source(address: str) -> str:
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return address
        if isinstance(found, ipaddress.IPv6Address):
            return str(found.ipv4_mapped or ipaddress.ip_network((int(found), 64), strict=False))
        return str(found)

    def failed(self, address: str) -> None:
        times = self._failures.setdefault(source := self._source(address), collections.deque(maxlen=self._most))
        times.append(self._now())
        self._failures.move_to_end(source)
        if len(self._failures) > SOURCES:
            self._failures.popitem(last=False)

    def seconds(self, address: str) -> float:
        """How long this address has to wait."""
        times = self._failures.get(self._source(address))
        return max(0.0, times[0] + self._seconds - self._now()) if times and len(times) == self._most else 0.0


class Gate:
    """Who asks, and whether they may. One thread only: the event loop's.

    A session is signed with a key that lives as long as the process, and holds a principal that is looked at again with each request:
    neither a token nor anything that outlives the service lies in a browser, and who is gone or changed has no session.
    """

    def __init__(
        self,
        auth: Auth,
        directory: Directory | None = None,
        cluster: str = "bzzz",
        audit: Audit | None = None,
        now: Callable[[], float] = time.monotonic,
        ldap: Backend | None = None,
        oidc: Oidc | None = None,
        cookie: str = COOKIE,
    ) -> None:
        self.cookie = cookie
        self.token_sha256 = auth.token_sha256
        self.session_seconds = auth.session_seconds
        self.directory = directory
        self.consult(ldap, oidc)
        self.audit = audit or Audit()
        # How sign-ins ended, by method and outcome.
        self.sign_ins: collections.Counter[tuple[str, str]] = collections.Counter()
        self._cluster = cluster
        self._key = secrets.token_bytes(32)
        self._now = now
        self._lockout_seconds = auth.lockout_seconds
        most = SOURCE_FACTOR * auth.lockout_failures
        self._sources = Throttle(most, auth.lockout_seconds, now)
        self._lines = Throttle(most, auth.lockout_seconds, now)  # of the audit log
        self._bearers: collections.OrderedDict[tuple[Principal, str], float] = collections.OrderedDict()
        self._turn, self._outside = asyncio.Lock(), asyncio.Semaphore(OUTSIDE)
        self._waiting = 0

    def consult(self, ldap: Backend | None, oidc: Oidc | None) -> None:
        """From now on these are asked; who was let in by what was asked before signs in anew."""
        self.ldap, self.oidc = ldap, oidc
        self._consulted = secrets.token_hex(8)

    # --- who asks ---

    def by_token(self, token: str) -> Principal | None:
        """Whose token this is; raises 503 when it may be one and nobody can tell."""
        given = hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()
        # Every hash is compared, so that the time tells nothing.
        if sum(hmac.compare_digest(given, known) for known in self.token_sha256):
            return Principal(CLUSTER, CLUSTER, ADMIN, since=given)
        if not self.directory or not (number := token_id(token)):
            return None
        if not (view := self.directory.view):
            raise HTTPException(503, UNSURE, {"Retry-After": "5"})
        known = view.tokens.get(number)
        # What is kept is compared as a whole, whatever the id: 256 bits are not to be guessed.
        if known is None or not hmac.compare_digest(given, known.sha256) or known.expired:
            return None
        return Principal(TOKEN, f"{known.name}/{known.id}", known.role, known.scopes, given)

    def _by_bearer(self, text: str) -> Principal | None:
        """Whose token, session or provider's JWT this is. Only a token is good for signing in: the others would outlive their end."""
        if who := self.by_token(text):
            return who
        if text.count(".") == 1:
            return self._by_session(text)
        if text.count(".") == 2 and self.oidc:
            try:
                return self.oidc.bearer(text)
            except Away as away:
                raise HTTPException(503, f"OpenID Connect: {away}", {"Retry-After": "2"}) from None
        return None

    def _still(self, principal: Principal) -> bool:
        """Whether who signed in as this is still the same."""
        if principal.kind == CLUSTER:
            return sum(hmac.compare_digest(principal.since, known) for known in self.token_sha256) > 0
        if principal.kind not in (TOKEN, USER):
            return True
        if not self.directory or not (view := self.directory.view):
            raise HTTPException(503, UNSURE, {"Retry-After": "5"})
        if principal.kind == USER:
            user = view.users.get(principal.name)
            return user is not None and str(user.revision) == principal.since
        token = view.tokens.get(principal.name.rpartition("/")[2])
        return token is not None and token.sha256 == principal.since and not token.expired

    def session(self, principal: Principal) -> str:
        """A browser's session, as the cookie's value."""
        fields = [
            int(self._now()) + self.session_seconds,
            principal.kind,
            principal.name,
            principal.role,
            principal.scopes,
            principal.since,
            self._consulted,
        ]
        return self.seal(SESSION, fields)

    def seal(self, use: str, fields: Any) -> str:
        """Plain data as a text that nobody else can make, for one use."""
        text = base64.urlsafe_b64encode(json.dumps(fields).encode()).decode().rstrip("=")
        return f"{text}.{self._sign(use, text)}"

    def unseal(self, use: str, sealed: str) -> Any:
        """What was sealed for this use; None when that is not so."""
        text, _, signature = sealed.partition(".")
        if not hmac.compare_digest(signature.encode(errors="surrogateescape"), self._sign(use, text).encode()):
            return None
        return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))

    def _sign(self, use: str, text: str) -> str:
        return hmac.new(self._key, f"{use} {text}".encode(errors="surrogateescape"), "sha256").hexdigest()

    def _by_session(self, cookie: str) -> Principal | None:
        if (fields := self.unseal(SESSION, cookie)) is None:
            return None
        until, kind, name, role, scopes, since, consulted = fields
        if self._now() >= until or (kind in (LDAP, OIDC) and consulted != self._consulted):
            return None
        principal = Principal(kind, name, role, tuple(scopes), since)
        return principal if self._still(principal) else None

    def bears(self, connection: HTTPConnection) -> bool:
        """Whether it shows a token, which no browser sends by itself."""
        return connection.headers.get("authorization", "").partition(" ")[0].lower() == "bearer"

    def identify(self, connection: HTTPConnection, cookies: bool = True) -> Principal | None:
        """Who asks. cookies: whether a session counts."""
        if self.bears(connection):
            return self._by_bearer(connection.headers["authorization"].partition(" ")[2].strip())
        return self._by_session(connection.cookies.get(self.cookie, "")) if cookies else None

    # --- whether they may ---

    def allows(self, connection: HTTPConnection, scope: str) -> bool:
        try:
            who = self.identify(connection)
        except HTTPException:
            return False
        return who is not None and who.may(scope)

    def require(self, connection: HTTPConnection, scope: str, cookies: bool = True) -> Principal:
        """Who asks, if they may; raises 401, 403 or 503."""
        source = address(connection)
        who = self.identify(connection, cookies)
        if who is None:
            if self.bears(connection):
                self._refused("bearer", source)
            challenge = {"WWW-Authenticate": f'Bearer realm="{self._cluster}"'}
            raise HTTPException(401, "This needs a token of the cluster: Authorization: Bearer <token>", challenge)
        if self.bears(connection):
            self._bearer(who, source)
        if not who.may(scope):
            self.audit("request", who, source, "refused", scope=scope, path=connection.url.path)
            has = f"its role is {who.role}" + (f", its scopes are {', '.join(who.scopes)}" if who.scopes else "")
            raise HTTPException(403, f"This asks for the scope {scope}; {who} has it not: {has}")
        return who

    def _refused(self, what: str, source: str, outcome: str = "refused", **more: str | None) -> None:
        """Write down who was refused, but let nobody fill the log."""
        if not self._lines.seconds(source):
            self._lines.failed(source)
            self.audit(what, None, source, outcome, **more)

    def _bearer(self, who: Principal, source: str) -> None:
        """Bearers never sign in: their first request from an address, and one again after a session's length, counts as that."""
        now = self._now()
        if now >= self._bearers.get((who, source), 0.0):
            self._bearers[who, source] = now + self.session_seconds
            self._bearers.move_to_end((who, source))
            if len(self._bearers) > SOURCES:
                self._bearers.popitem(last=False)
            self.audit("bearer", who, source)

    # --- who signs in ---

    async def sign_in(self, source: str, name: str, password: str, token: str = "") -> Principal:
        """By token, or by name and password; raises 401, 403, 429 or 503."""
        method = TOKEN if token else "password"
        self._not_throttled(source, method)
        who = self.by_token(token) if token else await self._by_password(source, name, password)
        if who is None:
            raise self._failed(source, method, "That is no token of this cluster." if token else "User or password is wrong.", name)
        return self._admitted(who, source, method)

    async def leave(self, source: str, redirect_uri: str) -> tuple[str, str]:
        """Where a browser goes to sign in by OpenID Connect, and what it keeps meanwhile; raises 404, 429 or 503."""
        oidc = self._provider()
        self._not_throttled(source, OIDC)
        url, flow = await self._asked(OIDC, source, oidc.begin, redirect_uri)
        return url, self.seal(FLOW, dataclasses.astuple(flow))

    async def come_back(self, source: str, kept: str, query: Mapping[str, str]) -> Principal:
        """Who returns from the provider; raises 401, 403, 404, 429 or 503."""
        from .oidc import Flow, Refused  # noqa: PLC0415 - not before it is needed

        oidc = self._provider()
        self._not_throttled(source, OIDC)
        if (fields := self.unseal(FLOW, kept)) is None:
            raise self._failed(source, OIDC, "This browser has not left from here to sign in, or long ago: begin again.", why="no flow")
        try:
            who = await self._asked(OIDC, source, oidc.finish, Flow(*fields), query)
        except Refused as refused:
            raise self._failed(source, OIDC, f"Nobody was signed in: {refused}.", why=str(refused)) from None
        return self._admitted(who, source, OIDC)

    def attempt_claim(self, source: str, right: bool) -> None:
        """Who shows the token for a first account; raises 401 or 429."""
        self._not_throttled(source, "claim")
        if not right:
            raise self._failed(source, "claim", "That is not the token that the terminal showed.")

    def _provider(self) -> Oidc:
        if self.oidc is None:
            raise HTTPException(404, "There is no OpenID Connect provider to sign in with.")
        return self.oidc

    async def _asked(self, method: str, source: str, ask: Callable[..., Any], *arguments: Any) -> Any:
        """The answer of an authority outside of the cluster; raises 503."""
        if self._waiting >= WAITING:
            raise HTTPException(503, "Too many sign in at this moment.", {"Retry-After": "5"})
        self._waiting += 1
        try:
            async with self._outside:
                return await asyncio.to_thread(ask, *arguments)
        except Away:
            # Nobody's failure.
            self.sign_ins[method, "away"] += 1
            self._refused("sign_in", source, "away", by=method)
            # Why, health and the journal tell: here it would say who is known there.
            raise HTTPException(503, AWAY, {"Retry-After": "15"}) from None
        finally:
            self._waiting -= 1

    def _not_throttled(self, source: str, method: str) -> None:
        if wait := self._sources.seconds(source):
            self.sign_ins[method, "throttled"] += 1
            self._refused("sign_in", source, "throttled")
            raise self._later(wait)

    def _failed(self, source: str, method: str, message: str, name: str = "", **more: str) -> HTTPException:
        self._sources.failed(source)
        self.sign_ins[method, "refused"] += 1
        self.audit("sign_in", None, source, "refused", name=self._known(name), by=method, **more)
        return HTTPException(401, message)

    def _admitted(self, who: Principal, source: str, method: str) -> Principal:
        outcome = "ok" if who.role in ROLES else "no_role"
        self.sign_ins[method if who.kind in (OIDC, CLUSTER, TOKEN) else who.kind, outcome] += 1
        self.audit("sign_in", who, source, outcome, by=method)
        if outcome != "ok":
            self._sources.failed(source)
            raise HTTPException(403, f"{who} is known, but none of the groups has a role here. An administrator can map one.")
        return who

    async def _by_password(self, source: str, name: str, password: str) -> Principal | None:
        directory = self.directory
        if not directory or self._waiting >= WAITING:
            raise HTTPException(503, UNSURE if not directory else "Too many sign in at this moment.", {"Retry-After": "5"})
        if not name or len(name) > PASSWORD_LENGTHS[1] or not password or len(password) > PASSWORD_LENGTHS[1]:
            return None
        try:
            self._waiting += 1
            try:
                async with self._turn:
                    if not (view := directory.view):
                        raise HTTPException(503, UNSURE, {"Retry-After": "5"})
                    if not await asyncio.to_thread(directory.attempt, name):
                        raise Locked
                    # Who could not be looked up elsewhere is not locked out, but has no more guesses at a password that is kept here.
                    guessed = directory.guessed(name, directory.view or view)
                    who = None if guessed else await asyncio.to_thread(Local(directory).verify, name, password)
            finally:
                self._waiting -= 1
            if who is None and self.ldap:
                try:
                    who = await self._asked(LDAP, source, self.ldap.verify, name, password)
                except HTTPException:
                    await asyncio.to_thread(directory.excuse, name)
                    raise
            if who is None and guessed:
                raise Locked
            if who:
                await asyncio.to_thread(directory.forgive, name)
            return who
        except Locked:
            self._sources.failed(source)
            self.sign_ins["password", "locked"] += 1
            self.audit("sign_in", None, source, "locked", name=self._known(name), by="password")
            raise self._later(self._lockout_seconds) from None
        except Unavailable:
            raise HTTPException(503, UNSURE, {"Retry-After": "5"}) from None

    def _known(self, name: str) -> str | None:
        view = self.directory.view if self.directory else None
        return account(name) if view and account(name) in view.users else None

    @staticmethod
    def _later(seconds: float) -> HTTPException:
        minutes = max(1, -(-int(seconds) // 60))
        wait = f"Too many failures: try again in {minutes} minute{'s' * (minutes > 1)}."
        return HTTPException(429, wait, {"Retry-After": str(max(1, int(seconds)))})


def address(connection: HTTPConnection) -> str:
    """Where it comes from: no proxy is believed."""
    return connection.client.host if connection.client else ""
