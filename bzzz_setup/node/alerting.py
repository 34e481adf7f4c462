# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is wrong in the cluster, for this node's Alertmanager, which tells people.

Each coordinator tells its own one of everything, and the Alertmanagers agree which of them tells it on: Prometheus does it so, too.
An alert has the labels ``alertname`` (``Check``, ``Budget``, ``NodeLost``), ``cluster``, ``node``, ``severity`` (``warning``,
``critical``), ``check`` where it is one, and ``once`` where it is told a single time. It ends when it is not told any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import logging
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
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
# So long an alert stays whose node tells of its check no more: it has just started, or looks at it no longer.
SILENT_SECONDS = 300.0
LOST, BUDGET = "NodeLost", "Budget"
Alert = dict[str, Any]


def alerts(seen: Seen, lost: Iterable[str], cluster: str) -> dict[str, Alert]:
    """All that is wrong now, each by its labels as text."""
    found: dict[str, Alert] = {}

    def add(name: str, node: str, severity: str, summary: str, **labels: str) -> None:
        labels = {"alertname": name, "cluster": cluster, "node": node, "severity": severity, **labels}
        found[json.dumps(labels, sort_keys=True)] = {"labels": labels, "annotations": {"summary": summary}}

    for node in lost:
        add(LOST, node, "critical", f"{node} has not been heard of for more than {LOST_SECONDS:.0f} s")
    for node, those in sorted(_checks(seen).items()):
        for check in those.values():
            if check.status == PASS:
                continue
            if check.name.startswith("budget "):
                add(BUDGET, node, "warning", check.message, check=check.name, once="yes")
            else:
                severity = "critical" if check.status == FAIL else "warning"
                add("Check", node, severity, f"{node}: {check.name}: {check.message}", check=check.name)
    return found


def _checks(seen: Seen) -> dict[str, Mapping[str, Check]]:
    """Of each node that is there."""
    found: dict[str, Mapping[str, Check]] = {name: published(record) for name, record in (seen.members or {}).items()}
    return {**found, seen.node: seen.own}


class Absent:
    """Members that were there and are not; times are seconds since 1970, since it is kept over a restart of the service."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known: set[str] = set()
        self.gone: dict[str, float] = {}
        try:
            kept = json.loads(file.read_text(encoding="utf-8"))
            self._known, self.gone = set(map(str, kept["known"])), {str(name): float(since) for name, since in kept["gone"].items()}
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("%s cannot be read: %s", file, error)

    def lost(self, members: Iterable[str] | None, now: float) -> list[str]:
        """Those that are away for longer than a start takes."""
        if members is None:
            return []
        there = set(members)
        gone = {name: since for name, since in self.gone.items() if name not in there and now - since < FORGET_SECONDS}
        gone |= {name: now for name in self._known - there if name not in self.gone}
        if (gone, there) != (self.gone, self._known):
            self.gone, self._known = gone, there
            self._keep()
        return sorted(name for name, since in gone.items() if now - since >= LOST_SECONDS)

    def _keep(self) -> None:
        new = self._file.with_name(f".{self._file.name}")
        try:
            new.write_text(json.dumps({"known": sorted(self._known), "gone": self.gone}), encoding="utf-8")
            new.replace(self._file)
        except OSError as error:  # it is known as long as this service lives
            log.warning("%s cannot be written: %s", self._file, error)


class Alerting:
    """Tells until cancelled; `check` is whether anybody hears."""

    def __init__(self, service: Service, url: str) -> None:
        self.service, self.url = service, url
        self._problem: str | None = None
        self._told: dict[str, Alert] = {}
        self._silent: dict[str, float] = {}
        self._at = 0.0
        self._absent = Absent(Path(service.settings.paths.data) / "absent.json")

    def check(self) -> Check:
        if self._problem:
            return Check("alerting", WARN, f"Alertmanager does not take alerts, so nobody is told: {self._problem}", ready=False)
        return Check("alerting", PASS, "Alertmanager takes alerts", ready=False, done=bool(self._at))

    async def watch(self) -> None:
        while True:
            try:
                await self.tell()
            except Exception as error:
                # A record of another release may have any shape; the next one may be fine.
                if self._problem != (problem := f"what is wrong was not understood ({type(error).__name__}), see this service's journal"):
                    log.exception("what is wrong was not understood")
                self._problem = problem
            await asyncio.sleep(PERIOD)

    async def tell(self) -> None:
        """Once, where anything has changed, or a while has passed."""
        seen, now, at = look(self.service), time.monotonic(), time.time()
        found = alerts(seen, self._absent.lost(seen.members, at), self.service.settings.cluster.name)
        found |= self._unsure(seen, found, now)
        if found.keys() == self._told.keys() and self._at and now - self._at < AGAIN:
            return
        for key, alert in found.items():
            alert["startsAt"] = self._told.get(key, {}).get("startsAt") or _time(at)
        ended = {key: alert for key, alert in self._told.items() if key not in found}
        body = [{**alert, "endsAt": _time(at + LASTS)} for alert in found.values()] + [
            {**alert, "endsAt": _time(at)} for alert in ended.values()
        ]
        problem = await _apart(lambda: self._post(body))
        if problem and problem != self._problem:
            log.warning("Alertmanager does not take alerts: %s", problem)
        self._problem, self._at = problem, now
        if not problem:
            self._told = found

    def _unsure(self, seen: Seen, found: Mapping[str, Alert], now: float) -> dict[str, Alert]:
        """Of what was told, that of which nobody says that it is over: its node is away, or is back and has not looked yet."""
        checks, kept = _checks(seen), {}
        for key, alert in self._told.items():
            labels = alert["labels"]
            those = checks.get(labels["node"])
            if key in found or labels["alertname"] == LOST:
                continue
            if those is None:
                if labels["node"] in self._absent.gone:
                    kept[key] = alert
            elif (
                labels["alertname"] != BUDGET and labels["check"] not in those and now - self._silent.setdefault(key, now) < SILENT_SECONDS
            ):
                kept[key] = alert
        self._silent = {key: since for key, since in self._silent.items() if key in kept}
        return kept

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
            with contextlib.suppress(OSError, http.client.HTTPException):
                return f"{error.code} {error.read(300).decode(errors='replace').strip()}"
            return str(error.code)
        except (OSError, ValueError, http.client.HTTPException) as error:
            return str(getattr(error, "reason", "") or error or type(error).__name__)


async def _apart(work: Callable[[], str | None]) -> str | None:
    """What it returns, from a thread that nobody waits for when the service ends."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[str | None] = loop.create_future()

    def end(result: str | None) -> None:
        if not done.done():
            done.set_result(result)

    def run() -> None:
        result = work()
        with contextlib.suppress(RuntimeError):  # the loop is gone
            loop.call_soon_threadsafe(end, result)

    threading.Thread(target=run, name="alerting", daemon=True).start()
    return await done


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
