# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Thresholds of budgets that calls through this gateway have reached, in a file: the node service makes alerts of its lines.

A line is JSON: ``{"name", "message", "until"}``, until when the period lasts, in seconds since 1970. It outlives the gateway, so that
nobody is alerted anew when it is started again.
"""

from __future__ import annotations

import contextlib
import grp
import json
import logging
import os
import time
from collections.abc import Iterable
from pathlib import Path

from .budgets import dollars
from .ledger import Warned
from .settings import Alerts

log = logging.getLogger("bzzz.gateway")
# They are in the node's record, which every coordinator keeps.
KEPT = 100


def tell(where: Alerts | None, reached: Iterable[Warned]) -> None:
    """Log them, and write them where this is wanted. One thread only: the ledger's."""
    lines = []
    for each in reached:
        limit = each.limit
        log.warning("%s has spent %s percent of its limit for this %s", limit.scope, each.percent, limit.period)
        message = (
            f"{limit.scope} has spent {dollars(each.spent)} of {dollars(limit.nano)} for this {limit.period}: {each.percent} % is reached"
        )
        name = " ".join(filter(None, ["budget", limit.scope.kind, limit.scope.name, limit.period, str(each.percent)]))
        lines.append(json.dumps({"name": name, "message": message, "until": each.period.end.timestamp()}))
    if not where or not lines:
        return
    path = Path(where.file)
    new = path.with_name(f".{path.name}")
    try:
        with contextlib.suppress(FileNotFoundError):
            lines[:0] = [line for line in path.read_text(encoding="utf-8").splitlines() if json.loads(line)["until"] > time.time()]
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640), "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o640)
            os.fchown(file.fileno(), -1, grp.getgrnam(where.group).gr_gid)
            file.write("".join(f"{line}\n" for line in lines[-KEPT:]))
        new.replace(path)
    except (OSError, KeyError, ValueError) as error:  # calls go on
        log.error("an alert cannot be told: %s: %s", path, error)
