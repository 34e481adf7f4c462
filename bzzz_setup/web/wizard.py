# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Everything that the routes share."""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Any

from fastapi import Response
from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse

from bzzz_setup import portable
from bzzz_setup.node.auth.gate import Gate
from bzzz_setup.web.accounts import Claim
from bzzz_setup.web.draft import Conflict, Draft
from bzzz_setup.web.outside import Authorities
from bzzz_setup.web.runs import Runs
from bzzz_setup.web.watching import Watching

# That are kept for the next who asks the same.
ANSWERS = 32


class Wizard:
    """One wizard, over one inventory folder."""

    def __init__(self, draft: Draft, gate: Gate, claim: Claim, authorities: Authorities) -> None:
        self.draft, self.gate, self.claim, self.authorities = draft, gate, claim, authorities
        self.runs = Runs(draft.source, lambda: str(draft.view()["cluster"]))
        self.watching = Watching(draft.source)
        self._answers: collections.OrderedDict[str, tuple[Any, bytes]] = collections.OrderedDict()

    def facts(self) -> tuple[dict[str, dict[str, Any]], float | None]:
        """What the last runs have seen of each node, and when."""
        return portable.remembered_facts(self.runs.reports())

    def answer(self, what: str, stamp: Any, make: Callable[[], dict[str, Any]]) -> Response:
        """An answer, made anew when what it is made of is no longer as stamped: with a hundred machines that takes its time."""
        known = self._answers.get(what)
        if known is None or known[0] != stamp:
            known = stamp, bytes(JSONResponse(jsonable_encoder(make())).body)
            self._answers[what] = known
            while len(self._answers) > ANSWERS:
                self._answers.popitem(last=False)
        return Response(known[1], media_type="application/json")

    def unchanged(self, base: int | None) -> None:
        """Raises Conflict where the draft is of another revision than somebody has seen."""
        if base is not None and base != self.draft.revision:
            raise Conflict({path: change for path, change in self.draft.changes.items() if change.revision > base})
