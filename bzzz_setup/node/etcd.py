# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The few etcd operations that membership and authentication need, over etcd's JSON gateway and mutual TLS, with failover.

Blocking, and for one thread: each operation tries every endpoint once, the last good one first, and raises Unavailable
when none serves it. An operation that timed out may still be carried out later; callers are written for that.
"""

from __future__ import annotations

import base64
import dataclasses
import logging
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from etcd3gw import Etcd3Client
from etcd3gw.exceptions import Etcd3Exception

from .store import Entry, Unavailable

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Identity:
    """PEM files shown to etcd, and the authority that must have signed etcd's own certificate."""

    certificate: Path
    key: Path
    ca: Path


def _b64(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


def _range_end(prefix: str) -> bytes:
    data = prefix.encode()
    return data[:-1] + bytes([data[-1] + 1])


class Store:
    """Keys below ``prefix`` (which ends in ``/``), named without it.

    timeout: seconds to connect, and to wait for an answer, for each endpoint.
    """

    def __init__(self, endpoints: tuple[str, ...], identity: Identity, prefix: str, timeout: float) -> None:
        self._endpoints = endpoints
        self._identity = identity
        self._prefix = prefix
        self._timeout = timeout
        self._clients: list[Etcd3Client] = []
        self._seen: dict[str, Entry] = {}
        self._revision = 0
        self.connect()

    def connect(self) -> None:
        """Forget open connections, so that renewed certificates are used."""
        self._clients = [self._client(endpoint) for endpoint in self._endpoints]

    def _client(self, endpoint: str) -> Etcd3Client:
        session = requests.Session()
        # Neither proxies nor CA bundles of the environment have a say between coordinators.
        session.trust_env = False
        session.verify = str(self._identity.ca)
        session.cert = (str(self._identity.certificate), str(self._identity.key))
        parts = urlsplit(endpoint)
        return Etcd3Client(
            parts.hostname or "", parts.port or 2379, protocol="https", timeout=self._timeout, api_path="/v3/", session=session
        )

    def _call(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        reasons = []
        for client in list(self._clients):
            try:
                answer = client.post(client.get_url(path), json=body)
                if isinstance(answer, dict) and "error" not in answer:
                    return answer
                reason = f"answered {str(answer)[:200]}"
            except (Etcd3Exception, requests.RequestException, OSError, ValueError) as error:
                reason = _reason(error)
            log.debug("%s%s: %s", client.base_url, path, reason)
            reasons.append(reason)
            # The next operation starts with the next endpoint.
            self._clients.append(self._clients.pop(0))
        # An endpoint that answers knows more than one that is silent.
        told = sorted(reasons, key=lambda reason: reason.startswith("no connection"))
        raise Unavailable(f"none of {len(reasons)} etcd endpoints serves the cluster: {told[0] if told else 'none is configured'}")

    def grant(self, seconds: int) -> int:
        """A new lease's id."""
        return int(self._call("/lease/grant", {"TTL": seconds, "ID": 0})["ID"])

    def keep_alive(self, lease: int) -> bool:
        """Renew the lease; False when etcd no longer knows it."""
        result = self._call("/lease/keepalive", {"ID": lease}).get("result") or {}
        return int(result.get("TTL", 0)) > 0

    def revoke(self, lease: int) -> None:
        """End the lease; its keys vanish."""
        self._call("/lease/revoke", {"ID": lease})

    def put(self, key: str, value: str, lease: int) -> None:
        self._call("/kv/put", {"key": _b64(self._prefix + key), "value": _b64(value), "lease": lease})

    def create(self, key: str, value: str, lease: int) -> None:
        """Write the key if it does not exist. Who won is for the next read to say."""
        name = _b64(self._prefix + key)
        self._call(
            "/kv/txn",
            {
                "compare": [{"key": name, "target": "CREATE", "result": "EQUAL", "create_revision": 0}],
                "success": [{"request_put": {"key": name, "value": _b64(value), "lease": lease}}],
            },
        )

    def delete(self, key: str, created: int) -> None:
        """Delete the key if it is still the one created at this revision."""
        name = _b64(self._prefix + key)
        self._call(
            "/kv/txn",
            {
                "compare": [{"key": name, "target": "CREATE", "result": "EQUAL", "create_revision": created}],
                "success": [{"request_delete_range": {"key": name}}],
            },
        )

    def swap(self, key: str, value: str | None, modified: int, lease: int = 0) -> bool:
        """Write the key, or delete it with None, if it was last modified at this revision (0: does not exist); whether it was."""
        name = _b64(self._prefix + key)
        put = {"request_put": {"key": name, "value": _b64(value or ""), "lease": lease}}
        answer = self._call(
            "/kv/txn",
            {
                "compare": [{"key": name, "target": "MOD", "result": "EQUAL", "mod_revision": modified}],
                "success": [{"request_delete_range": {"key": name}} if value is None else put],
            },
        )
        return bool(answer.get("succeeded"))

    def read(self) -> dict[str, Entry]:
        """Every key as of one moment, confirmed by the majority; only values changed since the last read are sent."""
        entries = self._read(self._revision)
        if entries is None:
            # Restored from a snapshot, or made anew: what was seen before says nothing.
            self._seen = {}
            entries = self._read(0)
        if entries is None:
            raise Unavailable("etcd's answers do not fit together")
        self._seen = entries
        return dict(entries)

    def _read(self, since: int) -> dict[str, Entry] | None:
        everything = {"key": _b64(self._prefix), "range_end": _b64(_range_end(self._prefix))}
        answer = self._call(
            "/kv/txn",
            {
                "success": [
                    {"request_range": {**everything, "keys_only": True}},
                    {"request_range": {**everything, "min_mod_revision": since + 1}},
                ]
            },
        )
        try:
            names, changed = (part["response_range"].get("kvs", []) for part in answer["responses"])
            known = dict(self._seen)
            known.update((self._name(item), self._entry(item)) for item in changed)
            entries = {self._name(item): known.get(self._name(item)) for item in names}
            revision = int(answer["header"]["revision"])
            stale = [
                name
                for item in names
                if (entry := entries[name := self._name(item)]) is None or entry.modified != int(item["mod_revision"])
            ]
        except (KeyError, ValueError, TypeError) as error:
            raise Unavailable(f"etcd's answer was not understood ({error!r})") from None
        if stale or revision < since:
            return None
        self._revision = revision
        return {name: entry for name, entry in entries.items() if entry is not None}

    def _name(self, item: dict[str, Any]) -> str:
        return base64.b64decode(item["key"]).decode(errors="replace")[len(self._prefix) :]

    @staticmethod
    def _entry(item: dict[str, Any]) -> Entry:
        value = base64.b64decode(item.get("value", ""))
        return Entry(value, int(item["create_revision"]), int(item["mod_revision"]), int(item.get("lease", 0)))


def _reason(error: Exception) -> str:
    text = f"{getattr(error, 'detail_text', '') or ''} {error}"
    if "no leader" in text or "etcdserver: request timed out" in text or "timed out, possibly due to" in text:
        return "the majority of coordinators is lost: etcd has no leader"
    if "certificate" in text.lower() or "SSLError" in text:
        return f"TLS: {text.strip()[-200:]}"
    if "Read timed out" in text:
        return "no answer in time: the majority of coordinators is lost, or etcd is overloaded"
    if any(sign in text for sign in ("Connection refused", "timed out", "No route", "unreachable", "Connection aborted", "reset by peer")):
        return "no connection (refused or unreachable)"
    return text.strip()[:200] or type(error).__name__
