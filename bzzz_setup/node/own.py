# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How root on a coordinator asks this node's own service: with the cluster's own token, of nobody but that service."""

from __future__ import annotations

import ssl
from pathlib import Path

from .config import Settings

SECRET = Path("/var/lib/bzzz/secrets/service_token")


class Failed(Exception):
    """The message tells why, and what to do."""


class Own:
    """`host` is as URLs have it; `context` trusts the very certificate that the service shows, whoever has signed it."""

    def __init__(self, settings: Settings, token_file: Path) -> None:
        try:
            self.token = token_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise Failed(
                f"{token_file} cannot be read ({error.strerror}). Remedy: run this as root on a coordinator, or name a token's file."
            ) from None
        self.host, self.context = way(settings)


def way(settings: Settings) -> tuple[str, ssl.SSLContext]:
    """Host and trust for a connection to this node's own service; see Own."""
    listen = settings.listen.address
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(settings.tls.shown[0])
    return {"::": "127.0.0.1", "0.0.0.0": "127.0.0.1"}.get(listen, f"[{listen}]" if ":" in listen else listen), context
