# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The certificate and key that the service shows to its clients."""

from __future__ import annotations

import ssl

from .config import ConfigError, Problem, Settings


def tls_context(settings: Settings) -> ssl.SSLContext:
    """The server's TLS; raises ConfigError when certificate and key do not fit."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_ciphers(settings.tls.ciphers)
    load_certificate(context, settings)
    return context


def load_certificate(context: ssl.SSLContext, settings: Settings) -> None:
    certificate, key = settings.tls.shown
    try:
        context.load_cert_chain(certificate, key)
    except (ssl.SSLError, OSError) as error:
        fit = f"{certificate} and {key} cannot be used together ({error})"
        name = "tls.server_certificate" if settings.tls.server_certificate else "tls.certificate"
        raise ConfigError([Problem(name, fit, "write a PEM certificate and its own key")]) from None
