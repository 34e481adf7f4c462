# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What calls through the AI gateway have cost."""

from __future__ import annotations

import datetime
import threading
import time
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query

from bzzz_setup.events import Refusal
from bzzz_setup.web import answers
from bzzz_setup.web.answers import bad
from bzzz_setup.web.draft import machines
from bzzz_setup.web.shapes import API, Viewer
from bzzz_setup.web.wizard import Wizard

# Of an answer, after which the ledger is asked again: that takes a run of Ansible, and a page is looked at more than once.
FRESH_SECONDS = 20
# By hours there are more columns than a chart can show.
HOURS_UP_TO = datetime.timedelta(days=2)
SWITCH = "gateway_enabled"

Day = Annotated[datetime.date | None, Query(description="A day in the gateway's time zone.")]


def routes(app: FastAPI, wizard: Wizard) -> None:
    """Add them to the application."""
    asking = threading.Lock()
    known: dict[tuple[str, ...], tuple[float, dict[str, Any]]] = {}

    @app.get(
        f"{API}/cost",
        tags=["cluster"],
        response_model=None,
        responses={200: {"model": answers.Cost}, **bad(_502="The gateway's node could not be asked")},
    )
    def spent(
        _who: Viewer, by: Literal["model", "task", "project", "user"] = "model", since: Day = None, until: Day = None
    ) -> dict[str, Any]:
        """Calls, tokens and cost by day (by hour for up to two days), from `since`, this month's first, to before `until`, now."""
        if since and until and since >= until:
            raise Refusal("there is nothing between these days", "Give until a later day than since.", option="until")
        if not _has_gateway(wizard):
            raise Refusal("there is no gateway, and so no call was counted", f"Turn {SWITCH} on in step 4, and apply.", option=SWITCH)
        first = since or datetime.date.today().replace(day=1)
        per = "hour" if (until or datetime.date.today() + datetime.timedelta(days=1)) - first <= HOURS_UP_TO else "day"
        days = [word for name, day in (("since", since), ("until", until)) if day for word in (f"--{name}", day.isoformat())]
        arguments = ("--by", by, "--per", per, *days)
        with asking:  # whoever waited gets what the one before has got
            if arguments not in known or time.monotonic() - known[arguments][0] > FRESH_SECONDS:
                known.clear()
                known[arguments] = time.monotonic(), {**wizard.runs.spent(*arguments), "by": by, "per": per}
            return known[arguments][1]


def _has_gateway(wizard: Wizard) -> bool:
    """Whether one may have been applied: that much is known without asking a machine."""
    declaration = wizard.draft.declaration()
    given = [declaration.options, *(node["options"] for node in machines(declaration).values())]
    return SWITCH in wizard.draft.view()["elsewhere"] or any(options.get(SWITCH, False) is not False for options in given)
