# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The audit log: one JSON object a line on standard error, and so in the journal, whatever the log's level and form.

    {"audit": "sign_in", "time": "2026-01-31T12:00:00.000Z", "node": "node1", "who": "user:anna", "from": "192.0.2.7", "outcome": "ok", …}

``who`` is a known principal or null: what a stranger typed for a name may be a password.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import Any

from ..events import utc
from .principals import Principal

log = logging.getLogger("bzzz.audit")


def configure() -> None:
    """Write to standard error, beside the log; in the journal as notice."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("<5>%(message)s" if os.environ.get("JOURNAL_STREAM") else "%(message)s"))
    log.handlers[:] = [handler]
    log.propagate = False
    log.setLevel(logging.INFO)


class Audit:
    """What happened on this node."""

    def __init__(self, node: str = "") -> None:
        self.node = node

    def __call__(self, what: str, who: Principal | None, source: str, outcome: str = "ok", **more: Any) -> None:
        """``source``: the address it came from; more: what was changed, never a secret."""
        line = {"audit": what, "time": utc(), "node": self.node, "who": str(who) if who else None, "from": source, "outcome": outcome}
        log.info("%s", json.dumps({**line, **more}, ensure_ascii=True))
