# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One node's service as a whole: its parts, and what it knows of itself and the cluster."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .alerting import Alerting
from .auth.directory import Directory
from .capabilities import Detector
from .checks import FAIL, PASS, WARN, Check, health, publish, worst
from .config import Settings
from .etcd import Identity, Store
from .membership import NOT_ASKED, Membership, clock

if TYPE_CHECKING:
    from .auth.ldap import Ldap
    from .auth.oidc import Oidc


# See plugins/module_utils/node/gpu_watch.py.
LOST_GPUS = Path("/run/bzzz-ollama/lost")
# See bzzz_setup/gateway/alerts.py.
REACHED = Path("/run/bzzz-gateway/reached")


class Service:
    """membership is None while no etcd endpoint is configured: the cluster is not formed yet."""

    def __init__(self, settings: Settings, version: str) -> None:
        self.settings = settings
        self.version = version
        self.started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._began = clock()
        self.detector = Detector(settings.ollama.ports)
        self.store: Store | None = None
        self.membership: Membership | None = None
        self.directory: Directory | None = None
        self.ldap: Ldap | None = None
        self.oidc: Oidc | None = None
        etcd = settings.etcd
        if etcd.endpoints:
            tls = settings.tls
            identity = Identity(tls.certificate, tls.key, tls.ca)
            timeout = min(2.0, max(0.5, etcd.lease_seconds / 6))
            self.store = Store(etcd.endpoints, identity, f"/bzzz/{settings.cluster.name}/", timeout)
            # Apart from what membership reads each second, and with connections of its own.
            accounts = Store(etcd.endpoints, identity, f"/bzzz-auth/{settings.cluster.name}/", timeout)
            self.directory = Directory(accounts, settings.auth.lockout_failures, settings.auth.lockout_seconds)
            self.membership = Membership(self.store, settings.node.name, etcd.lease_seconds, etcd.primary, self.record)
        # Their libraries are loaded where they are wanted only.
        if settings.ldap.urls and self.directory:
            from .auth.ldap import Ldap  # noqa: PLC0415

            self.ldap = Ldap(settings.ldap, self.directory)
        if settings.oidc.issuer:
            from .auth.oidc import Oidc  # noqa: PLC0415

            self.oidc = Oidc(settings.oidc)
        self.outside = [each for each in (self.ldap, self.oidc) if each]
        self.alerting = Alerting(self, settings.alerting.url.rstrip("/")) if settings.alerting.url else None

    def start(self) -> None:
        self.detector.start()
        if self.membership:
            self.membership.start()
        if self.directory:
            self.directory.start()
        for each in self.outside:
            each.start()

    def stop(self) -> None:
        """Leave the cluster; peers see it at once."""
        self.detector.stop()
        for each in self.outside:
            each.stop()
        if self.directory:
            self.directory.stop()
        if self.membership:
            self.membership.stop()

    @property
    def uptime_seconds(self) -> float:
        return clock() - self._began

    @property
    def alive(self) -> bool:
        """Whether membership's thread still makes rounds: one may take as long as every endpoint's time-outs."""
        return self.membership is None or clock() - self.membership.last_step < 60

    def local_checks(self) -> list[Check]:
        """What this node finds out by itself."""
        data = self.settings.paths.data
        try:
            space = os.statvfs(data)
            free = space.f_bavail / max(1, space.f_blocks)
            if not os.access(data, os.W_OK):
                storage = Check("storage", FAIL, f"{data} is not writable for the service")
            elif free < 0.05:
                storage = Check("storage", WARN, f"{data} has {free:.0%} of its space left")
            else:
                storage = Check("storage", PASS, f"{data} has {free:.0%} of its space left")
        except OSError as error:
            storage = Check("storage", FAIL, f"{data}: {error.strerror}")
        problems = self.detector.summary.get("problems")
        if problems is None:
            detection = Check("detection", WARN, "detection has not finished yet", ready=False, done=False)
        elif problems:
            detection = Check("detection", WARN, f"findings of detection: {problems}, see /api/v1/node", ready=False)
        else:
            detection = Check("detection", PASS, "no findings", ready=False)
        told = [self.alerting.check()] if self.alerting else []
        return [storage, detection, *_gpus(), *_budgets(), *told, *(each.check() for each in self.outside)]

    def checks(self) -> list[Check]:
        if self.membership is None:
            coordination = Check("coordination", WARN, "the cluster is not formed yet: no etcd endpoint is configured")
        elif reason := self.membership.reason:
            coordination = Check("coordination", FAIL, reason, done=reason != NOT_ASKED)
        else:
            coordination = Check("coordination", PASS, f"member of the cluster; {self.role}")
        return [coordination, *self.local_checks()]

    @property
    def role(self) -> str:
        return "primary coordinator" if self.membership and self.membership.term is not None else ", ".join(self.settings.node.roles)

    def record(self) -> dict[str, Any]:
        """What is published under this node's lease."""
        node, checks = self.settings.node, self.local_checks()
        return {
            "name": node.name,
            "address": node.address,
            "port": self.settings.listen.port,
            "roles": list(node.roles),
            "labels": node.labels,
            "version": self.version,
            "revision": self.settings.revision,
            "started": self.started,
            "healthy": all(check.status != FAIL for check in checks),
            "checks": publish(checks),
            "capabilities": self.detector.summary,
        }

    def health(self, known: bool = False) -> dict[str, Any]:
        """``status`` is the worst of the checks'. known: whether who asks has signed in."""
        checks = [check for check in self.checks() if known or check.public]
        return {
            "status": worst(check.status for check in checks),
            "checks": [{"name": check.name, "status": check.status, "message": check.message} for check in checks],
        }

    def unready(self) -> list[str]:
        """The reasons not to send work here; none when ready."""
        return [f"{check.name}: {check.message}" for check in self.checks() if check.ready and check.status == FAIL]

    def node(self) -> dict[str, Any]:
        """This node, with its facts as last seen."""
        return {
            **self.record(),
            "cluster": self.settings.cluster.name,
            "primary": self.membership is not None and self.membership.term is not None,
            "term": self.membership.term if self.membership else None,
            "uptime_seconds": round(self.uptime_seconds, 1),
            "health": self.health(known=True),
            "facts": self.detector.facts,
        }

    def cluster(self) -> dict[str, Any]:
        """The cluster as this node sees it. ``current`` is false when etcd cannot confirm it now; ``reason`` says why."""
        membership, view = self.membership, self.membership.view if self.membership else None
        reason = "the cluster is not formed yet" if membership is None else membership.reason
        members = [] if view is None else [{**view.members[name], "name": name} for name in sorted(view.members)]
        primary = view.primary if view else None
        if view and primary == self.settings.node.name and membership and membership.term is None:
            primary = None  # the key is ours still, the claim has lapsed
        return {
            "name": self.settings.cluster.name,
            "current": reason is None,
            "reason": reason,
            "age_seconds": round(clock() - view.at, 1) if view else None,
            "primary": primary,
            "term": view.term if view and primary else None,
            "preferred_primary": self.settings.etcd.primary,
            "coordinators": [member["name"] for member in members if "coordinator" in member.get("roles", ())],
            "last_run": view.run if view else None,
            "members": [{**member, "health": health(member), "primary": member["name"] == primary} for member in members],
        }


def _gpus() -> list[Check]:
    """What role ollama's own watch tells, where it runs; the node goes on with the GPUs that are left."""
    try:
        lost = LOST_GPUS.read_text(encoding="utf-8").split("\n")[:-1]
    except OSError:
        return []
    return [Check("gpus", WARN, "; ".join(lost), ready=False) if lost else Check("gpus", PASS, "all GPUs are well", ready=False)]


def _budgets() -> list[Check]:
    """The thresholds that were reached in the current days and months, as the gateway on this node tells them."""
    try:
        lines = [json.loads(line) for line in REACHED.read_text(encoding="utf-8").splitlines()]
        return [Check(each["name"], WARN, each["message"], ready=False, public=False) for each in lines if each["until"] > time.time()]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [Check("budgets", WARN, f"{REACHED} cannot be read: {error}", ready=False)]
