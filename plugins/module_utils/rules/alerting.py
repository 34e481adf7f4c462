# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Alerts: that channels can be what is written, and are whole."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..problems import Problem, problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..cluster import Cluster
    from ..declaration import Declared

# What a mail server takes without quotes; of several in one line, one that is wrong would stop all.
ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`|~-]+"
ADDRESS = re.compile(rf"{ATOM}(\.{ATOM})*@[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")
SERVER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):([0-9]{1,5})")


def literal(declared: Mapping[str, Declared], cluster: Cluster) -> Iterator[Problem]:
    """What is written, and what it lacks."""
    for node in cluster["coordinators"]:
        alerting = declared[node]["alerting"]
        yield from _mail(alerting, node)
        for url in alerting["webhook_urls"]:
            yield from _webhook(url, bool(alerting["webhook_token"]), node)


def _mail(alerting: Mapping[str, Any], node: str) -> Iterator[Problem]:
    senders = [("email_from", alerting["email_from"])] if alerting["email_from"] else []
    for option, text in [("email_to", each) for each in alerting["email_to"]] + senders:
        if not ADDRESS.fullmatch(text):
            yield problem(f"alerting_{option}", f"'{text}' is no e-mail address.", "Write it as ops@example.com.", value=text, node=node)
    server = alerting["smtp_server"]
    match = SERVER.fullmatch(server) if server else None
    if server and not (match and 1 <= int(match[2]) <= 65535):
        message = f"'{server}' is no server and port (1 to 65535)."
        yield problem("alerting_smtp_server", message, "Write host:port, such as mail.example.com:587.", value=server, node=node)
    for option in ("smtp_server", "email_from"):
        if alerting["email_to"] and not alerting[option]:
            message = "Alerts are to go by e-mail, and this is missing."
            yield problem(f"alerting_{option}", message, "Set it, or take alerting_email_to away.", node=node)
    if server and not alerting["email_to"]:
        message = "No alert goes there: nobody is to get one."
        yield problem("alerting_smtp_server", message, "Set alerting_email_to.", value=server, node=node, severity="warning")
    if bool(alerting["smtp_user"]) != bool(alerting["smtp_password"]):
        missing = "smtp_user" if alerting["smtp_password"] else "smtp_password"
        message = "Of the mail server's user and password, this one is missing."
        yield problem(f"alerting_{missing}", message, "Set both, or neither.", node=node)
    if alerting["smtp_password"] and not alerting["smtp_tls"]:
        message = "Without TLS, the network would see the password."
        yield problem("alerting_smtp_tls", message, "Leave it on, or sign in as nobody.", value=False, node=node)


def _webhook(url: str, token: bool, node: str) -> Iterator[Problem]:
    # What may hold a password is not repeated.
    parts, wrong = None, "This is no URL." if "@" in url else f"'{url}' is no URL."
    try:
        parts = urlsplit(url)
        _port = parts.port
        if "@" in parts.netloc:
            parts, wrong = None, "A password has no place in it, which anybody may read here."
        elif parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"[\s\x00-\x1f]", url):
            parts = None
    except ValueError:
        parts = None
    if parts is None:
        remedy = "Write it as https://host/path."
        yield problem("alerting_webhook_urls", wrong, remedy, value=None if "@" in url else url, node=node)
    elif token and parts.scheme == "http":
        yield problem(
            "alerting_webhook_urls", "Without TLS, the network would see alerting_webhook_token.", "Write https://…", value=url, node=node
        )
