# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether declared endpoints answer, so that calls go by those that do: LiteLLM itself finds out by calls that fail."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from typing import Any

log = logging.getLogger("bzzz.gateway")
# How often they are looked at while calls come, and how long one may take to answer.
DUE_SECONDS, ANSWER_SECONDS = 10.0, 3.0


def place(deployment: Mapping[str, Any]) -> tuple[str, str] | None:
    """Where an endpoint of a deployment of LiteLLM's is asked, and its key; None for OpenAI's own and the cluster's nodes."""
    params, info = deployment.get("litellm_params") or {}, deployment.get("model_info") or {}
    base = str(params.get("api_base") or "").rstrip("/")
    if not base or info.get("endpoint") in (None, "", "cluster"):
        return None
    ollama = str(params.get("model") or "").startswith("ollama")
    return base + ("/api/version" if ollama else "/models"), str(params.get("api_key") or "")


class Health:
    """Looks while calls come, and keeps none of them waiting. One event loop only."""

    def __init__(self) -> None:
        import httpx  # noqa: PLC0415 - comes with LiteLLM

        self._client = httpx.AsyncClient(timeout=ANSWER_SECONDS, follow_redirects=False)
        # Where those that do not answer are asked.
        self.dead: set[str] = set()
        self._at = -DUE_SECONDS
        self._looking: asyncio.Task[None] | None = None

    def look(self, deployments: Iterable[Mapping[str, Any]]) -> None:
        if time.monotonic() - self._at >= DUE_SECONDS and (self._looking is None or self._looking.done()):
            if places := {found[0]: found[1] for each in deployments if (found := place(each))}:
                self._looking = asyncio.create_task(self._look(places))
            self._at = time.monotonic()

    def alive(self, deployments: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Those whose endpoints answer; none where none does, and then LiteLLM takes the fallbacks."""
        return [each for each in deployments if not (found := place(each)) or found[0] not in self.dead] if self.dead else deployments

    async def _look(self, places: Mapping[str, str]) -> None:
        answers = await asyncio.gather(*(self._answers(url, key) for url, key in places.items()))
        dead = {url for url, answers_ in zip(places, answers, strict=True) if not answers_}
        for url in sorted(dead - self.dead):
            log.warning("%s does not answer: it is called no more until it does", url)
        for url in sorted(self.dead - dead):
            log.warning("%s answers again", url)
        self.dead = dead

    async def _answers(self, url: str, key: str) -> bool:
        try:
            # Whatever it says, but that it is in trouble: what the key may do is seen by the checks of steps 4 and 8.
            return (await self._client.get(url, headers={"Authorization": f"Bearer {key}"} if key else {})).status_code < 500
        except Exception as error:  # whatever it is: a client's message may tell what was sent
            log.debug("%s: %s", url, type(error).__name__)
            return False
