# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A trial alert to everybody who is to get alerts, from this host: what Alertmanager sends, before anything is applied."""

from __future__ import annotations

import datetime
import json
import smtplib
import ssl
from collections.abc import Callable, Iterator, Mapping
from email.message import EmailMessage
from http.client import HTTPResponse
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.bzzz.cluster.plugins.module_utils.node.egress import Attempt, Ended, Way

# Whether it was taken, what was seen, a remedy, and the option that it is about.
Told = tuple[str, str, str, str]
SECRETS = ("smtp_password", "webhook_token", "slack_url")
SUMMARY = "A trial by the BZZZ cluster setup: nothing is wrong."


def send(way: Way, cluster: str, alerting: Mapping[str, Any], seconds: float) -> list[Told]:
    """What became of each channel of these options of role `alerting`, its secrets among them."""
    told = []
    if alerting["email_to"]:
        told += list(_mail(way.trusting, cluster, alerting, seconds))
    posts = [(f"the webhook at {urlsplit(url).hostname}", url, "alerting_webhook_urls") for url in alerting["webhook_urls"]]
    bearer = {"Authorization": f"Bearer {alerting['webhook_token']}"} if alerting["webhook_token"] else {}
    waiting = [(_Post(way, url, name, _webhook(cluster), bearer, seconds), name, option) for name, url, option in posts]
    if url := alerting["slack_url"]:
        name, text = "Slack's webhook", {"text": f"{cluster}: {SUMMARY}"}
        if alerting["slack_channel"]:
            text["channel"] = alerting["slack_channel"]
        waiting.append((_Post(way, url, name, text, {}, seconds), name, "alerting_slack_url"))
    for post, name, option in waiting:
        post.thread.join(seconds)
        seen, remedy = post.told()
        told.append(("fail", seen, remedy, option) if seen else ("pass", f"{name} took a trial alert", "", option))
    return told


def _webhook(cluster: str) -> dict[str, Any]:
    """As Alertmanager has it."""
    labels = {"alertname": "Trial", "cluster": cluster, "severity": "none"}
    about = {"labels": labels, "annotations": {"summary": SUMMARY}}
    began = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    alert = {**about, "status": "firing", "startsAt": began, "endsAt": "0001-01-01T00:00:00Z", "generatorURL": "", "fingerprint": ""}
    common = {"groupLabels": labels, "commonLabels": labels, "commonAnnotations": about["annotations"]}
    whole = {"version": "4", "groupKey": "trial", "truncatedAlerts": 0, "receiver": "trial", "externalURL": "", **common}
    return {**whole, "status": "firing", "alerts": [alert]}


class _Post(Attempt):  # type: ignore[misc]
    def __init__(self, way: Way, url: str, shown: str, document: Mapping[str, Any], headers: Mapping[str, str], seconds: float) -> None:
        self.body = json.dumps(document).encode()
        super().__init__(url, way, seconds, shown, {"Content-Type": "application/json", **headers})

    def judge(self, answer: HTTPResponse, through: bool = False) -> None:
        super().judge(answer, through)
        if answer.status >= 300:  # Alertmanager does not follow it
            raise Ended("status", f"{answer.status} {answer.reason}")


def _mail(trusting: Callable[[], ssl.SSLContext], cluster: str, alerting: Mapping[str, Any], seconds: float) -> Iterator[Told]:
    server, user = alerting["smtp_server"], alerting["smtp_user"]
    host, _colon, port = server.rpartition(":")
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = f"[{cluster}] Trial", alerting["email_from"], ", ".join(alerting["email_to"])
    message["Date"] = datetime.datetime.now(datetime.UTC)
    message.set_content(f"{SUMMARY}\n")
    at = {"host": host.strip("[]"), "port": int(port), "timeout": seconds}
    try:
        with smtplib.SMTP_SSL(**at, context=trusting()) if port == "465" else smtplib.SMTP(**at) as way:
            way.ehlo_or_helo_if_needed()
            if port != "465" and (alerting["smtp_tls"] or way.has_extn("starttls")):
                way.starttls(context=trusting())
            if user:
                way.login(user, alerting["smtp_password"])
            refused = way.send_message(message)
    except UnicodeEncodeError:
        remedy = "use a user and password of ASCII, or see whether the first real alert arrives"
        yield "fail", "user or password have letters beyond ASCII, which this trial cannot send", remedy, "alerting_smtp_password"
    except smtplib.SMTPAuthenticationError as error:
        yield "fail", f"{server} does not let {user} in: {_said(error.smtp_error)}", "correct user and password", "alerting_smtp_password"
    except smtplib.SMTPSenderRefused as error:
        remedy = "name a sender that it takes, or sign in"
        yield "fail", f"{server} takes no mail from {alerting['email_from']}: {_said(error.smtp_error)}", remedy, "alerting_email_from"
    except smtplib.SMTPRecipientsRefused as error:
        yield from _refused(server, error.recipients)
    except smtplib.SMTPNotSupportedError as error:
        what, remedy = ("sign-in", "leave alerting_smtp_user away") if "AUTH" in str(error) else ("TLS", "turn alerting_smtp_tls off")
        yield "fail", f"{server} offers no {what}", f"use another port or server, or {remedy}", "alerting_smtp_server"
    except ssl.SSLCertVerificationError as error:
        remedy = "add the authority that vouches for it to downloads_ca_files, or correct the name"
        yield "fail", f"{server}: its certificate is not trusted: {error.verify_message}", remedy, "alerting_smtp_server"
    except smtplib.SMTPResponseException as error:
        yield "fail", f"{server} takes no mail: {error.smtp_code} {_said(error.smtp_error)}", "see its log", "alerting_smtp_server"
    except (OSError, smtplib.SMTPException) as error:
        remedy = "correct host and port, or let this host, and the coordinators, reach it"
        yield "fail", f"{server}: {error or 'no answer'}", remedy, "alerting_smtp_server"
    else:
        yield from _refused(server, refused)
        if taken := [each for each in alerting["email_to"] if each not in refused]:
            yield "pass", f"{server} took a trial alert to {', '.join(taken)}", "", "alerting_email_to"


def _refused(server: str, recipients: Mapping[str, tuple[int, bytes]]) -> Iterator[Told]:
    for name, (_code, said) in recipients.items():
        yield "fail", f"{server} takes no mail to {name}: {_said(said)}", "correct it", "alerting_email_to"


def _said(text: bytes | str) -> str:
    return " ".join((text.decode(errors="replace") if isinstance(text, bytes) else text).split())[:200]
