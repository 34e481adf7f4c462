# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""People whom an OpenID Connect provider knows: authorisation code flow with PKCE, and the provider's JWTs as bearers.

What the provider says of itself and its keys are asked for every ``outside.PERIOD``, and at once when a token names a key that
is not known, though not more often than ``REFETCH``: a withdrawn key does not last, and nobody can have us flood the provider.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import requests
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.requests_client import OAuth2Session
from authlib.oidc.core import CodeIDToken
from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from ..config import Oidc as Settings
from .gate import FLOW_SECONDS
from .outside import TIMEOUT, Away, Outside
from .principals import OIDC, Principal, highest

REFETCH = 20.0
LEEWAY_SECONDS = 30
# What a key of the provider's verifies; no secret that is shared, and never "none".
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
SYSTEM_CA = "/etc/ssl/certs/ca-certificates.crt"
NEEDED = ("authorization_endpoint", "token_endpoint", "jwks_uri")


class Refused(Exception):
    """This is nobody's sign-in; the message is for the audit log and the person."""


@dataclasses.dataclass(frozen=True)
class Flow:
    """What a browser keeps between leaving for the provider and coming back. until: by the clock of ``Oidc``."""

    state: str
    nonce: str
    verifier: str
    redirect_uri: str
    until: float


class Oidc(Outside):
    """``begin``, ``finish`` and ``look`` block; ``bearer`` does not. secret: the client's, where no file has it."""

    def __init__(self, settings: Settings, now: Callable[[], float] = time.monotonic, secret: str | None = None) -> None:
        assert settings.issuer
        super().__init__(OIDC, settings.issuer)
        self._secret = secret
        self.settings, self.issuer = settings, settings.issuer
        self._now = now
        self._lock = threading.Lock()
        self._provider: dict[str, str] = {}
        self._keys: KeySet | None = None
        self._fetched = -REFETCH
        self._refusal: str | None = None

    # --- the provider ---

    def look(self) -> None:
        with self._lock:
            self._fetch()
        if self._refusal:
            raise Away(self._refusal)

    def _fetch(self) -> None:
        self._fetched = self._now()
        found = self._get(f"{self.issuer.rstrip('/')}/.well-known/openid-configuration")
        if found.get("issuer") != self.issuer:
            raise Away(f"it calls itself {str(found.get('issuer'))[:200]!r}, which issuer must be to the letter")
        for key in NEEDED:
            if urlsplit(str(found.get(key))).scheme != "https":
                raise Away(f"its {key} is no https:// address")
        keys = self._get(str(found["jwks_uri"]))
        try:
            self._keys = KeySet.import_key_set(keys)  # type: ignore[arg-type]
        except (JoseError, ValueError, KeyError, TypeError):
            raise Away("its keys (jwks_uri) were not understood") from None
        self._provider = {key: str(value) for key, value in found.items() if isinstance(value, str)}

    def _ready(self) -> dict[str, str]:
        with self._lock:
            if not self._keys:
                self._fetch()
            return self._provider

    def _session(self, redirect_uri: str = "") -> OAuth2Session:
        secret, file = self._secret, self.settings.client_secret_file
        if file:
            try:
                secret = file.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise Away(f"the client's secret cannot be read ({error})") from None
        session = OAuth2Session(
            self.settings.client_id,
            secret,
            token_endpoint_auth_method="client_secret_basic" if secret else "none",
            scope=" ".join(self.settings.scopes),
            redirect_uri=redirect_uri,
            code_challenge_method="S256",
            default_timeout=TIMEOUT,
        )
        session.trust_env = False
        session.verify = str(self.settings.ca or SYSTEM_CA)
        session.max_redirects = 0
        return session

    @contextlib.contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except requests.exceptions.SSLError as error:
            why = re.search(r"certificate verify failed: ([^(\]]+)", str(error))
            raise Away(f"its certificate is not trusted ({why[1].strip()})" if why else "no TLS") from None
        except requests.exceptions.JSONDecodeError:
            raise Away("its answer is no JSON") from None
        except (requests.RequestException, OSError) as error:
            raise Away(f"no answer ({type(error).__name__})") from None

    def _get(self, url: str, session: OAuth2Session | None = None) -> dict[str, Any]:
        """A JSON object; raises Away."""
        with self._reaching():
            answer = (session or self._session()).get(url, withhold_token=session is None, headers={"Accept": "application/json"})
            if answer.status_code != requests.codes.ok:
                raise Away(f"{urlsplit(url).path} is answered with status {answer.status_code}")
            document = answer.json()
        if not isinstance(document, dict):
            raise Away(f"{urlsplit(url).path} is no JSON object")
        return document

    # --- the flow ---

    def begin(self, redirect_uri: str) -> tuple[str, Flow]:
        """Where the browser goes; raises Away."""
        with self.telling():
            provider = self._ready()
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        flow = Flow(state, nonce, verifier, redirect_uri, self._now() + FLOW_SECONDS)
        url, _ = self._session(redirect_uri).create_authorization_url(
            provider["authorization_endpoint"], state=state, code_verifier=verifier, nonce=nonce
        )
        return str(url), flow

    def finish(self, flow: Flow, query: Mapping[str, str]) -> Principal:
        """Who has come back; raises Refused or Away."""
        if not secrets.compare_digest(query.get("state", "").encode(), flow.state.encode()):
            raise Refused("the state is another than this browser left with")
        if self._now() >= flow.until:
            raise Refused("it took too long")
        if "iss" in query and query["iss"] != self.issuer:
            raise Refused("the answer is another provider's")
        if error := query.get("error", ""):
            raise Refused(f"the provider says {error}" if re.fullmatch(r"[a-z_]{1,60}", error) else "the provider says no")
        with self.telling():
            return self._principal(self._redeemed(flow, query.get("code", "")))

    def _redeemed(self, flow: Flow, code: str) -> dict[str, Any]:
        """The claims that a code is worth."""
        provider, session = self._ready(), self._session(flow.redirect_uri)
        try:
            with self._reaching():
                token = session.fetch_token(
                    provider["token_endpoint"], grant_type="authorization_code", code=code, code_verifier=flow.verifier
                )
        except AuthlibBaseError as error:
            why = str(vars(error).get("error"))[:60]
            if why in ("invalid_client", "unauthorized_client"):
                # Nothing but a sign-in finds out.
                self._refusal = f"it refuses this client ({why}): compare client_id and its secret"
                raise Away(self._refusal) from None
            raise Refused(f"the provider does not take the code ({why})") from None
        self._refusal = None
        claims = self._claims(str(token.get("id_token", "")), flow.nonce, str(token.get("access_token", "")))
        if self.settings.groups_claim not in claims and (endpoint := provider.get("userinfo_endpoint")):
            more = self._get(endpoint, session)
            if more.get("sub") != claims["sub"]:
                raise Refused("the provider tells of somebody else")
            claims = {**more, **claims}
        return claims

    def _claims(self, text: str, nonce: str, access_token: str) -> dict[str, Any]:
        if self._stale(text):
            with self._lock:
                if self._refetch():
                    self._fetch()
        try:
            return self._checked(text, nonce, access_token)
        except (JoseError, ValueError, TypeError) as error:
            raise Refused(
                f"its ID token does not hold ({getattr(error, 'claim', None) or getattr(error, 'error', None) or error})"
            ) from None

    # --- tokens ---

    def bearer(self, text: str) -> Principal | None:
        """Whom a JWT of the provider's is for; None when it does not hold. Raises Away when its key may be a new one."""
        if self._stale(text) and self._refetch():
            self.soon()
            raise Away("its keys are asked for again")
        try:
            return self._principal(self._checked(text))
        except (JoseError, ValueError, TypeError, Refused):
            return None

    def _stale(self, text: str) -> bool:
        """Whether a token names a key that we do not have."""
        try:
            kid = jws.extract_compact(text.encode()).protected.get("kid")
        except (JoseError, ValueError, TypeError):
            return False
        return kid is not None and not (self._keys and any(key.kid == kid for key in self._keys.keys))

    def _refetch(self) -> bool:
        return self._now() - self._fetched >= REFETCH

    def _checked(self, text: str, nonce: str = "", access_token: str = "") -> dict[str, Any]:
        if not self._keys:
            raise ValueError("no keys")
        token = jwt.decode(text, self._keys, algorithms=ALGORITHMS)
        if str(token.header.get("typ", "JWT")).lower().removeprefix("application/") not in ("jwt", "at+jwt"):
            raise ValueError("typ")
        claims = CodeIDToken(
            token.claims,
            token.header,
            {"iss": {"essential": True, "value": self.issuer}, "aud": {"essential": True, "value": self.settings.client_id}},
            {"nonce": nonce, "access_token": access_token, "client_id": self.settings.client_id},
        )
        claims.validate(leeway=LEEWAY_SECONDS)
        return dict(claims)

    def _principal(self, claims: Mapping[str, Any]) -> Principal:
        name = str(claims.get(self.settings.name_claim) or claims["sub"])
        if not (name.isprintable() and len(name) <= 200):
            raise Refused("its name is none that could be shown")
        told = claims.get(self.settings.groups_claim)
        groups = {group for group in (told if isinstance(told, list) else [told]) if isinstance(group, str)}
        role = highest(role for role, mapped in self.settings.role_groups.items() if groups.intersection(mapped))
        return Principal(OIDC, name, role)
