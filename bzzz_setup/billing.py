# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What OpenAI says it has billed and counted, asked from this host by a key of an administrator, which no node ever has.

Its interfaces: platform.openai.com/docs/api-reference/usage.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from ansible_collections.bzzz.cluster.plugins.module_utils.node.model_server import Asked

from bzzz_setup import downloading
from bzzz_setup.declaration import Declaration
from bzzz_setup.events import ExitCode, Refusal
from bzzz_setup.web.trying import Here, options_of, well_formed

KEY = "openai_admin_key"
KEYS = "platform.openai.com/settings/organization/admin-keys"
SECONDS = 30.0
# Days on a page at most, by OpenAI's word; and pages, so that an answer without end has one.
COST_DAYS, USAGE_DAYS, MOST_PAGES = 180, 31, 100
REFUSALS = {
    401: ("it does not take the key", f"Put a key of an administrator, made at {KEYS}, into {KEY} (vault file)."),
    403: ("the key may not read costs and usage", f"Use a key of an administrator, made at {KEYS}; a project's own may not."),
    404: ("there is no such interface", "Correct openai_base_url, or ask OpenAI itself: what stands between may not have it."),
    429: ("it was asked too often", "Try again in a minute."),
}


@dataclasses.dataclass(frozen=True)
class Bill:
    """OpenAI's pages of costs and of usage by model; ``project``: the only one they are of, None for the whole organisation's."""

    costs: list[dict[str, Any]]
    usage: list[dict[str, Any]]
    project: str | None


def asked(folder: Path, since: datetime, until: datetime, *, usage: bool) -> Bill:
    """Of whole days in UTC, for an inventory folder's key. Raises Refusal with what is to be done."""
    declaration = Declaration.read(folder)
    options, secrets = options_of(declaration, "openai", "gateway")
    about = options["openai"]
    key = str(secrets.get(KEY) or "").strip()
    if not key:
        raise Refusal("there is no key that may ask what OpenAI has billed", REFUSALS[401][1], option=KEY)
    base = str(about["base_url"]).rstrip("/")
    well_formed("openai_base_url", base)
    # Every project's calls have to be known by their project: those of others with the key's own have none in the ledger.
    project = None if about["projects"] else about["project"] or None
    headers = {"Accept": "application/json", "Authorization": f"Bearer {key}"}
    if about["organization"]:
        headers["OpenAI-Organization"] = about["organization"]
    way = Here(downloading.declared(declaration))

    def pages(path: str, **query: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        query |= {"start_time": int(since.timestamp()), "end_time": int(until.timestamp()), "bucket_width": "1d"}
        query |= {"project_ids": [project]} if project else {}
        for _ in range(MOST_PAGES):
            answer = Asked(f"{base}/organization/{path}?{urlencode(query, doseq=True)}", way, SECONDS, headers)
            found.append(_page(base, answer))
            if not found[-1].get("has_more") or not found[-1].get("next_page"):
                break
            query["page"] = found[-1]["next_page"]
        return found

    costs = pages("costs", limit=COST_DAYS)
    counted = []
    if usage:
        for kind in ("completions", "embeddings"):
            counted += pages(f"usage/{kind}", limit=USAGE_DAYS, group_by=["model"])
    return Bill(costs, counted, project)


def _page(base: str, answer: Asked) -> dict[str, Any]:
    if answer.ended is not None:
        seen, remedy = answer.told()
        raise Refusal(seen, f"{remedy[:1].upper()}{remedy[1:]}.", ExitCode.NODES_FAILED, option="openai_base_url")
    if answer.status == 200 and isinstance(answer.document, dict) and isinstance(answer.document.get("data"), list):
        page: dict[str, Any] = answer.document
        return page
    trouble = "it is in trouble itself", "Wait until it has recovered; OpenAI's state: status.openai.com."
    other = trouble if answer.status >= 500 else ("it does not answer as OpenAI does", "See what stands at openai_base_url.")
    said, remedy = REFUSALS.get(answer.status, other)
    option = KEY if answer.status in (401, 403) else "openai_base_url"
    raise Refusal(f"{base}: {said} ({answer.status}).", remedy, ExitCode.NODES_FAILED, option=option)
