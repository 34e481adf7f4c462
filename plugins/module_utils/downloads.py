# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The way of downloads: which hosts go by a proxy, and downloading that way on the admin host."""

from __future__ import annotations

import os
import ssl
import urllib.request
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional
from urllib.parse import quote, urlsplit

from .addresses import address_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .cluster import Node

# Always reached without a proxy.
LOCAL = ("localhost", "127.0.0.0/8", "::1")
# Programs differ in which of these they heed; a site sets the ones that its programs want.
BUNDLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def goes_direct(host: str, no_proxy: Iterable[str]) -> bool:
    """Whether a host (name or address) is one of these hosts, in one of these domains or networks. A domain holds itself; `*` is all."""
    host = host.strip("[]").lower().rstrip(".")
    address = address_of(host)
    for entry in no_proxy:
        if entry == "*":
            return True
        if address is not None:
            try:
                if address in ip_network(entry, strict=False):
                    return True
            except (ValueError, TypeError):
                continue
        else:
            domain = entry.lower().removeprefix("*").strip(".")
            if domain and (host == domain or host.endswith(f".{domain}")):
                return True
    return False


def without_proxy(declared: Sequence[str], nodes: Iterable[Node] = (), subnet: str | None = None) -> list[str]:
    """All that is reached without a proxy: what is declared, the cluster's own nodes and subnet, and this machine itself."""
    own = [name for node in nodes for name in (node["name"], node["address"]) if name]
    return list(dict.fromkeys([*declared, *own, *([subnet] if subnet else []), *LOCAL]))


def direct_hosts(urls: Iterable[str], no_proxy: Sequence[str]) -> list[str]:
    """The hosts that apt must be told of. It knows no domains and networks, and its configuration has another use for colons."""
    hosts = [entry.lower() for entry in no_proxy if not entry.startswith((".", "*")) and not {"/", ":"} & set(entry)]
    return sorted({*hosts, *(host for url in urls if (host := urlsplit(url).hostname) and ":" not in host and goes_direct(host, no_proxy))})


@dataclass(frozen=True)
class Way:
    """How the admin host downloads. Proxies are URLs with user and password in them; `certificates` is PEM text."""

    http: Optional[str] = field(default=None, repr=False)
    https: Optional[str] = field(default=None, repr=False)
    no_proxy: tuple[str, ...] = ()
    certificates: str = ""

    def proxies(self, url: str) -> dict[str, str] | None:
        """Proxies by scheme for this URL; None where the environment decides."""
        if not (self.http or self.https):
            return None
        if goes_direct(urlsplit(url).hostname or "", self.no_proxy):
            return {}
        return {scheme: proxy for scheme, proxy in (("http", self.http), ("https", self.https)) if proxy}


def login(credentials: str) -> str:
    """User and password as they stand before a proxy's host; empty for none."""
    user, _colon, password = str(credentials or "").partition(":")
    return f"{quote(user, safe='')}:{quote(password, safe='')}@" if credentials else ""


def way(options: Mapping[str, Any], credentials: str, folder: Path, no_proxy: Sequence[str] = ()) -> Way:
    """The way that the options of role downloads declare. Paths start in `folder`; OSError where a file cannot be read."""
    if not options.get("on_admin_host", True):
        return Way()
    before = f"//{login(credentials)}"
    http, https = (url.replace("//", before, 1) if url else None for url in (options.get("http_proxy"), options.get("https_proxy")))
    files = [(folder / Path(name).expanduser()).read_text(encoding="utf-8") for name in options.get("ca_files") or ()]
    return Way(http, https or http, tuple(no_proxy), "\n".join(files))


def trust(certificates: str = "") -> ssl.SSLContext:
    """What TLS is trusted by: the system's or the environment's authorities, and these."""
    context = ssl.create_default_context()
    for name in BUNDLES:
        if (file := os.environ.get(name)) and Path(file).is_file():
            context.load_verify_locations(file)
    if certificates:
        context.load_verify_locations(cadata=certificates)
    return context


class _NoDowngrade(urllib.request.HTTPRedirectHandler):
    """What was asked for over TLS is not fetched without it after all."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            raise OSError(f"it redirects to {newurl}, which is not HTTPS")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(url: str, by: Way, timeout: float = 60) -> Any:
    """The open answer, to be read and closed. OSError tells why there is none; it never quotes a password."""
    # An explicit handler keeps urllib from reading no_proxy of the environment into a declared way.
    proxies = urllib.request.ProxyHandler(by.proxies(url))
    secure = urllib.request.HTTPSHandler(context=trust(by.certificates))
    opener = urllib.request.build_opener(proxies, secure, _NoDowngrade())
    return opener.open(url, timeout=timeout)
