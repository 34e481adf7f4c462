# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ollamas of the cluster's nodes: the node service tells which of them hold a model, and LiteLLM's router is told of changes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from .settings import Shared

log = logging.getLogger(__name__)
# After so long another look is due; after so much longer, a call waits for it.
DUE_SECONDS, OLD_SECONDS = 5.0, 60.0
MIB_PER_GIB = 1024


class Router(Protocol):
    """What is asked of LiteLLM's."""

    def upsert_deployment(self, deployment: Any) -> Any: ...
    def delete_deployment(self, id: str) -> Any: ...


def deployments(models: Iterable[Mapping[str, Any]], places: Iterable[Mapping[str, Any]], token: str) -> dict[str, dict[str, Any]]:
    """What LiteLLM is to have, by id: one for each model and node that holds it.

    Weights are the model's times the node's VRAM in GiB, 1 at least.
    """
    places, found = list(places), {}
    for number, model in enumerate(models):
        name = str(model.get("model") or model["name"])
        for place in places:
            if name not in place["models"] and f"{name}:latest" not in place["models"]:
                continue
            host = f"[{place['address']}]" if ":" in place["address"] else place["address"]
            identifier = f"{model['name']}/{number}@{place['node']}"
            found[identifier] = {
                "model_name": str(model["name"]),
                "litellm_params": {
                    **(model.get("parameters") or {}),
                    "model": f"ollama_chat/{name}",
                    "api_base": f"https://{host}:{place['port']}/ollama",
                    "api_key": token,
                    "max_retries": 0,
                    "weight": int(model.get("weight") or 1) * max(1, int(place.get("vram_mib") or 0) // MIB_PER_GIB),
                },
                "model_info": {"id": identifier, "endpoint": "cluster", "node": place["node"], **_price(model)},
            }
    return found


def _price(model: Mapping[str, Any]) -> dict[str, float]:
    """USD a token, where the declaration has a price; else it is free."""
    told = [model.get(name) for name in ("input_usd_per_million", "output_usd_per_million")]
    if told == [None, None]:
        return {}
    return {f"{name}_cost_per_token": float(usd or 0) / 1e6 for name, usd in zip(("input", "output"), told, strict=True)}


class Places:
    """Keeps a router as the cluster is. ``made``: what the router takes a deployment as. One event loop only."""

    def __init__(self, settings: Shared, made: Callable[[dict[str, Any]], Any]) -> None:
        import httpx  # noqa: PLC0415 - comes with LiteLLM

        from .tokens import _context  # noqa: PLC0415

        self.settings, self.made = settings, made
        self._client = httpx.AsyncClient(verify=_context(settings.ca), timeout=3, trust_env=False)
        self._told: dict[str, dict[str, Any]] = {}
        self._at = -OLD_SECONDS
        self._looking: asyncio.Task[bool] | None = None

    @property
    def names(self) -> set[str]:
        return {str(model["name"]) for model in self.settings.models}

    async def fresh(self, router: Router) -> bool:
        """See that the router is told of changes; whether there were some. Waits for nobody unless what is known is old."""
        age = time.monotonic() - self._at
        if age < DUE_SECONDS:
            return False
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(router))
        if age >= OLD_SECONDS:
            return await asyncio.shield(self._looking)
        return False

    async def _look(self, router: Router) -> bool:
        try:
            token = Path(self.settings.token_file).read_text(encoding="utf-8").strip()
            answer = await self._client.get(self.settings.url.rstrip("/") + "/ollama/places", headers={"Authorization": f"Bearer {token}"})
            answer.raise_for_status()
            wanted = deployments(self.settings.models, answer.json()["places"], token)
        except Exception as error:  # whatever it is: the message of a client may tell what was sent
            log.warning("which nodes hold which models cannot be asked: %s", type(error).__name__)
            # Where it was never told, the next call asks again.
            self._at = time.monotonic() - (OLD_SECONDS if not self._told else 0)
            return False
        self._at = time.monotonic()
        if wanted == self._told:
            return False
        for identifier in self._told.keys() - wanted.keys():
            router.delete_deployment(id=identifier)
        for identifier, deployment in wanted.items():
            if deployment != self._told.get(identifier):
                router.upsert_deployment(self.made(deployment))
        log.info("models of the cluster's nodes: %s", ", ".join(sorted(wanted)) or "none")
        self._told = wanted
        return True
