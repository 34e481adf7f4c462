# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is wrong in the cluster, for this node's Alertmanager, which tells people.

Each coordinator tells its own one of everything, and the Alertmanagers agree which of them tells it on: Prometheus does it so, too.
An alert has the labels ``alertname`` (``Check``, ``Budget``, ``NodeLost``), ``cluster``, ``node``, ``severity`` (``warning``,
``critical``), ``check`` where it is one, and ``once`` where it is told a single time. It ends when it is not told any more.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .checks import FAIL, PASS, WARN, Check, published
from .events import Seen, look

if TYPE_CHECKING:
    from .service import Service

log = logging.getLogger("bzzz.node.alerting")

# How often everything is looked at, and how often it is told though nothing has changed.
PERIOD, AGAIN = 2.0, 30.0
# An alert ends when nobody tells of it for so long: this service may have ended, too.
LASTS = 180.0
# A node that is away for longer is lost; one that starts anew is back before.
LOST_SECONDS = 60.0
# After a day somebody has taken it out of the cluster.
FORGET_SECONDS = 86400.0
BUDGET = "budget "
Alert = dict[str, Any]


def alerts(seen: Seen, lost: Iterable[str], cluster: str) -> dict[str, Alert]:
    """All that is wrong now, each by its labels as text."""
    found: dict[str, Alert] = {}

    def add(name: str, node: str, severity: str, summary: str, **labels: str) -> None:
        labels = {"alertname": name, "cluster": cluster, "node": node, "severity": severity, **labels}
        found[json.dumps(labels, sort_keys=True)] = {"labels": labels, "annotations": {"summary": summary}}

    for node in lost:
        add("NodeLost", node, "critical", f"{node} has not been heard of for more than {LOST_SECONDS:.0f} s")
    checks = {name: published(record) for name, record in (seen.members or {}).items()}
    checks[seen.node] = dict(seen.own)
    for node, those in sorted(checks.items()):
        for check in those.values():
            if check.status == PASS:
                continue
            summary = f"{node}: {check.name}: {check.message}"
            if check.name.startswith(BUDGET):
                add("Budget", node, "warning", check.message, check=check.name, once="yes")
            else:
                add("Check", node, "critical" if check.status == FAIL else "warning", summary, check=check.name)
    return found


class Absent:
    """Members that were there and are not."""

    def __init__(self) -> None:
        self._gone: dict[str, float] = {}
        self._known: set[str] = set()

    def lost(self, members: Iterable[str] | None, now: float) -> list[str]:
        """Those that are away for longer than a start takes."""
        if members is None:
            return []
        there = set(members)
        self._gone = {name: since for name, since in self._gone.items() if name not in there and now - since < FORGET_SECONDS}
        self._gone |= {name: now for name in self._known - there if name not in self._gone}
        self._known = there
        return sorted(name for name, since in self._gone.items() if now - since >= LOST_SECONDS)


class Alerting:
    """Tells until cancelled; `check` is whether anybody hears."""

    def __init__(self, service: Service, url: str) -> None:
        self.service, self.url = service, url
        self._problem: str | None = None
        self._told: dict[str, Alert] = {}
        self._at = 0.0
        self._absent = Absent()

    def check(self) -> Check:
        if self._problem:
            return Check("alerting", WARN, f"Alertmanager does not take alerts, so nobody is told: {self._problem}", ready=False)
        return Check("alerting", PASS, "Alertmanager takes alerts", ready=False, done=bool(self._at))

    async def watch(self) -> None:
        while True:
            try:
                await self.tell()
            except Exception:
                # A record of another release may have any shape; the next one may be fine.
                log.exception("what is wrong was not understood")
            await asyncio.sleep(PERIOD)

    async def tell(self) -> None:
        """Once, where anything has changed, or a while has passed."""
        seen, now = look(self.service), time.monotonic()
        found = alerts(seen, self._absent.lost(seen.members, now), self.service.settings.cluster.name)
        if found.keys() == self._told.keys() and self._at and now - self._at < AGAIN:
            return
        ended = {key: alert for key, alert in self._told.items() if key not in found}
        at = time.time()
        body = [{**alert, "endsAt": _time(at + LASTS)} for alert in found.values()] + [
            {**alert, "endsAt": _time(at)} for alert in ended.values()
        ]
        problem = await asyncio.to_thread(self._post, body)
        if problem and problem != self._problem:
            log.warning("Alertmanager does not take alerts: %s", problem)
        self._problem, self._at = problem, now
        if not problem:
            self._told = found

    def _post(self, body: list[Alert]) -> str | None:
        """Why it was not taken; None where it was."""
        tls = self.service.settings.tls
        try:
            # Made anew, since certificates are.
            context = ssl.create_default_context(cafile=str(tls.ca))
            context.load_cert_chain(tls.certificate, tls.key)
            request = urllib.request.Request(  # noqa: S310 - the scheme is https
                f"{self.url}/api/v2/alerts", json.dumps(body).encode(), {"Content-Type": "application/json"}
            )
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
            with opener.open(request, timeout=10):
                return None
        except urllib.error.HTTPError as error:
            return f"{error.code} {error.read(300).decode(errors='replace').strip()}"
        except (OSError, ValueError) as error:
            return str(getattr(error, "reason", error))


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
