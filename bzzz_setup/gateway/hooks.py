# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What LiteLLM's proxy calls: ``general_settings.custom_auth: bzzz_setup.gateway.hooks.authenticate`` and
``litellm_settings.callbacks: [bzzz_setup.gateway.hooks.accounting]``.

A call is held, on disk, before it leaves, and settled when its client has the answer.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import math
import os
import re
import sys
import time
import uuid
from collections.abc import AsyncGenerator, Iterator, Mapping
from concurrent.futures import Future
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import litellm
from fastapi import Request
from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy._types import LitellmUserRoles, ProxyException, UserAPIKeyAuth
from litellm.proxy.common_utils.http_parsing_utils import _read_request_body
from litellm.types.router import Deployment as LiteLLMDeployment
from litellm.types.router import RouterRateLimitError
from sqlalchemy.exc import SQLAlchemyError

from . import alerts
from .budgets import NANO, Invalid, nano, refusal
from .health import Health
from .ledger import Call, Ledger, Outcome, Refused, Warned, Writer
from .measured import Measures
from .places import Places
from .settings import Settings, read
from .tokens import Identity, Unsure

log = logging.getLogger("bzzz.gateway")
T = TypeVar("T")

TASK_HEADER, PROJECT_HEADER = "x-bzzz-task", "x-bzzz-project"
# The only ones whose calls are counted; LiteLLM has many more, which would spend without a trace.
PATHS = frozenset(f"{root}{path}" for root in ("", "/v1") for path in ("/chat/completions", "/embeddings", "/models"))
PATHS_BELOW = ("/v1/models/", "/models/")
COUNTED = {"completion", "acompletion", "embeddings", "aembedding", "embedding"}
# What a call's body may have. LiteLLM takes much more, by which it would be routed, priced, bounded or billed otherwise.
_CHAT = """
    model messages stream stream_options n max_tokens max_completion_tokens temperature top_p frequency_penalty presence_penalty seed stop
    logit_bias logprobs top_logprobs response_format tools tool_choice parallel_tool_calls functions function_call reasoning_effort
    verbosity user safety_identifier prompt_cache_key metadata store service_tier top_k min_p repetition_penalty
"""
_EMBEDDINGS = "model input encoding_format dimensions user"
PASSED = {"chat": frozenset(_CHAT.split()), "embeddings": frozenset(_EMBEDDINGS.split())}
# How many tokens may come of it, and the most that each may be: OpenAI's own of answers to one call.
_BOUNDS = ("max_tokens", "max_completion_tokens")
_COUNTS = {**dict.fromkeys(_BOUNDS, 10_000_000), "n": 128}
# What runs at the client. LiteLLM or the provider would run any other tool, with calls of models that nobody counts.
_TOOLS = ("function", "custom")
# What LiteLLM makes of a call's headers, and what it would have OpenAI bill otherwise.
_OURS = frozenset(
    (
        "extra_headers",
        "headers",
        "organization",
        "api_base",
        "base_url",
        "api_key",
        "api_version",
        "custom_llm_provider",
        "base_model",
        "model_info",
        "model_list",
        "mock_response",
        "mock_tool_calls",
        "mock_testing_fallbacks",
        "fallbacks",
        "context_window_fallbacks",
        "content_policy_fallbacks",
        "num_retries",
        "max_retries",
        "no-log",
        "extra_body",
        "extra_query",
        "router_settings_override",
        "user_config",
        "drop_params",
        "additional_drop_params",
        "allowed_openai_params",
        "service_tier",
        "timeout",
        "stream_timeout",
        "request_timeout",
        "client_side_timeout",
        "keepalive_seconds",
    )
)
_KEY = "bzzz_call"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@/:-]{0,127}")
FREE_PROVIDERS = {"ollama", "ollama_chat"}
# More than any image is known to count for; what one really does is in the answer's usage. A file may fill all that a model reads.
PART_TOKENS = 50_000
SWEEP_SECONDS = 60
WRITTEN_SECONDS = 3


@dataclasses.dataclass(frozen=True)
class Deployment:
    """Where calls go. ``provider``: as LiteLLM speaks to it; ``endpoint``: the name of one that is not the provider's own; ``node``: which
    of the cluster's own.

    ``price``: nano-USD a token: in, in from the provider's cache, out; None where LiteLLM has to work it out. ``most``: the tokens that
    it can answer with; ``declared``: those that it is to answer with at most, where a call does not say; ``reads``: those that it can
    be asked with.
    """

    model: str = ""
    provider: str = ""
    endpoint: str = ""
    price: tuple[Decimal, Decimal, Decimal] | None = None
    most: int | None = None
    declared: int | None = None
    reads: int | None = None
    node: str = ""

    @property
    def name(self) -> str:
        """As the ledger has it."""
        return f"{self.model}@{self.node}" if self.node else self.model

    @property
    def whose(self) -> str:
        """Who serves it."""
        return self.endpoint or self.provider

    @property
    def costs(self) -> bool:
        """Whether calls of it cost anything."""
        return self.price is None or any(self.price)


@dataclasses.dataclass
class _Open:
    """A call under way: of its attempts, which fallbacks make, the last one. ``deployment``: where that went; ``bounds``: which of _BOUNDS
    the call has."""

    key: str
    call: Call
    started: float
    bounds: frozenset[str] = frozenset()
    deployment: Deployment | None = None
    attempt: tuple[Any, ...] = ()
    failed: Exception | None = None
    told: bool = True  # whether its client wants the usage of a stream
    ended: bool = False
    openai_project: str = ""
    organization: str = ""


class Accounting(CustomLogger):  # type: ignore[misc, unused-ignore]
    """The hooks. A file or a ledger that is wrong lets LiteLLM not start."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.ledger = Ledger(settings.ledger, settings.budgets, settings.gateway)
        if lost := self.ledger.start():
            log.warning("%s calls were under way when the gateway died: their outcome is unknown until the provider has told", lost)
        if settings.former_ledger and (taken := self.ledger.take_over(Path(settings.former_ledger))):
            log.warning("%s calls of %s are in the ledger now that the gateways share", taken, settings.former_ledger)
        self.writer = Writer(self.ledger)
        # The ledger's thread would wait 5 ms for its turn whenever LiteLLM is busy.
        sys.setswitchinterval(0.0005)
        self.measures = Measures()
        self.measures.serve(self.ledger, settings.metrics)
        self._open: dict[str, _Open] = {}
        self._known: dict[str, tuple[float, dict[str, Deployment]]] = {}
        self._swept = 0.0
        self._last: dict[str, str] = {}
        self._health = Health()
        self._places = Places(settings.shared, lambda about: LiteLLMDeployment(**about)) if settings.shared else None

    # --- before ---

    async def authenticate(self, request: Request, api_key: str | None) -> UserAPIKeyAuth:
        """LiteLLM's ``custom_auth``."""
        path = request.url.path.rstrip("/")
        if path not in PATHS and not path.startswith(PATHS_BELOW):
            raise _error(403, "not_served", f"This gateway serves {', '.join(sorted(PATHS))} only: elsewhere costs are not counted.")
        token = (api_key or "").removeprefix("Bearer ").strip()
        try:
            tokens = self.settings.tokens
            # A thread is started only where somebody has to be asked.
            known = tokens.known(token) if token else (None,)
            identity = known[0] if known else await asyncio.to_thread(tokens.find, token)
        except Unsure as unsure:
            log.warning("%s", unsure)
            raise _error(503, "unavailable", "Tokens cannot be looked up at the moment. Try again soon.") from None
        if identity is None:
            raise _error(
                401, "invalid_api_key", "This token is unknown, expired or revoked. Send one of the cluster's as 'Authorization: Bearer …'."
            )
        project = _project(identity, request.headers.get(PROJECT_HEADER))
        task = request.headers.get(TASK_HEADER, "")
        if task and not _NAME.fullmatch(task):
            raise _error(400, "invalid_task", f"{TASK_HEADER} is no name: use letters, digits and . _ @ / : -")
        if request.method == "POST":
            _judge(await _read_request_body(request), "embeddings" if path.endswith("/embeddings") else "chat")
        return UserAPIKeyAuth(
            api_key=f"user:{identity.user}",  # never the token: LiteLLM logs and keeps this
            user_id=identity.user,
            user_role=LitellmUserRoles.INTERNAL_USER,
            # Ours alone: LiteLLM fills its own fields of who calls from more places than the token.
            metadata={"bzzz_user": identity.user, "bzzz_project": project, "bzzz_task": task},
        )

    async def async_pre_call_hook(self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: str) -> dict[str, Any]:
        if call_type not in COUNTED:
            raise _error(403, "not_served", "This gateway does not count such calls, and so does not make them.")
        for name in [name for name in data if name in _OURS or "_cost_per_" in name]:
            del data[name]
        who = user_api_key_dict.metadata
        user, project, task = who["bzzz_user"], who["bzzz_project"], who["bzzz_task"]
        chat = "embed" not in call_type
        if chat and not data.get("model") and task not in self.settings.tasks:
            data["model"] = self.settings.default_model
        asked = str(data.get("model") or task)
        if asked in self.settings.tasks:
            task = task or asked
            data["model"] = self.settings.tasks[asked]
        model = str(data.get("model") or "")
        if self._places:
            model = data["model"] = await self._placed(model)
        self._declared(model)
        told = True
        if chat:
            if not (data.get("max_tokens") or data.get("max_completion_tokens")):
                data["max_tokens"] = self._most(model)
            if data.get("stream"):
                options = data.get("stream_options") if isinstance(data.get("stream_options"), dict) else {}
                told = bool((options or {}).get("include_usage"))
                data["stream_options"] = {**(options or {}), "include_usage": True}
        identifier = uuid.uuid4().hex
        estimate = self._estimate(model, data, chat, exact=False)
        likely = next(iter(self._deployments(model).values()), Deployment())
        call = Call(identifier, user, project, task, model, estimate, likely.whose, likely.model)
        refused = await self._reserve(call)
        if refused:  # tokens are counted where it matters
            call = dataclasses.replace(call, estimate_nano=self._estimate(model, data, chat, exact=True))
            refused = await self._reserve(call)
        if refused:
            raise self._refusal(call, refused)
        bounds = frozenset(name for name in _BOUNDS if data.get(name))
        self._open[identifier] = _Open(identifier, call, time.monotonic(), bounds, told=told)
        data.setdefault("metadata", {})[_KEY] = identifier
        self._sweep()
        return data

    async def _placed(self, model: str) -> str:
        """The model; its first fallback where no node of the cluster holds it now."""
        from litellm.proxy.proxy_server import llm_router  # noqa: PLC0415 - made after the hooks

        assert self._places
        if llm_router is None:
            return model
        if await self._places.fresh(llm_router):
            self._known.clear()
        if model not in self._places.names:
            return model
        for name in (model, *_fallbacks(llm_router, model)):
            if llm_router.get_model_list(model_name=name):
                return name
        raise _error(503, "no_place", f"No node of the cluster holds {model} now, and it has no fallback. Try again later.")

    def _declared(self, model: str) -> None:
        """LiteLLM also calls several models at once, and what it knows of by other names: none of that has a price here."""
        from litellm.proxy.proxy_server import llm_router  # noqa: PLC0415 - made after the hooks

        if llm_router:
            self._health.look(llm_router.model_list)
        names = set(llm_router.get_model_names()) if llm_router else set()
        if model not in names or not self._deployments(model):
            few = ", ".join(sorted(names | set(self.settings.tasks))[:20])
            raise _error(404, "model_not_found", f"There is no model {model[:100]} here. Name one of {few}.")
        if self._health.dead:
            there = [each for name in (model, *_fallbacks(llm_router, model)) for each in llm_router.get_model_list(model_name=name) or []]
            if not self._health.alive(there):
                raise _error(503, "unavailable", f"No endpoint of {model} answers now, and it has no fallback that does. Try again later.")

    def _refusal(self, call: Call, refused: Refused) -> ProxyException:
        self.measures.refused(call)
        message = refusal(refused.limit, refused.used, call.estimate_nano, refused.period.end, self.settings.budgets.zone)
        return _error(429, "budget_exceeded", message, refused.period.end)

    async def _reserve(self, call: Call) -> Refused | None:
        waiting = self.writer.ask(lambda connection: self.ledger.reserve(connection, call))
        waiting.add_done_callback(self._warn_refused)
        try:
            return await _answer(waiting)
        except asyncio.CancelledError:  # its client has gone meanwhile: the call is not made
            self.writer.ask(lambda connection: self.ledger.release(connection, call.id, Outcome(status="hung up")), lasting=True)
            raise
        except Exception:
            log.exception("the ledger could not be written: no call is made that could not be counted")
            raise _error(503, "unavailable", "The gateway's ledger cannot be written. Try again soon.") from None

    async def async_filter_deployments(
        self, model: str, healthy_deployments: list[dict[str, Any]], messages: Any, request_kwargs: Any = None, parent_otel_span: Any = None
    ) -> list[dict[str, Any]]:
        """Those that answer; in turn, the one behind the one before among them: LiteLLM itself only draws lots."""
        healthy_deployments = self._health.alive(healthy_deployments)
        if not self.settings.in_turn or len(healthy_deployments) < 2:
            return healthy_deployments
        there = {str((each.get("model_info") or {}).get("id")): each for each in healthy_deployments}
        names, last = sorted(there), self._last.get(model, "")
        chosen = self._last[model] = next((name for name in names if name > last), names[0])
        return [there[chosen]]

    async def async_pre_call_deployment_hook(self, kwargs: dict[str, Any], call_type: Any) -> dict[str, Any]:
        """Where the call goes is known now: tell OpenAI whom to bill, and by what id to find it."""
        opened, about = self._opened(kwargs), kwargs.get("metadata") or {}
        if opened is None:
            if _KEY in about:  # it was given up meanwhile
                raise _error(503, "unavailable", "This call has taken too long. Try again.")
            return kwargs
        attempt = about.get("model_group"), about.get("attempted_fallbacks")
        if opened.attempt not in ((), attempt):
            await self._again(opened)
        opened.attempt, opened.failed = attempt, None
        opened.organization = opened.openai_project = ""
        info = kwargs.get("model_info") or about.get("model_info") or {}
        known = self._deployments(opened.call.model).get(str(info.get("id")))
        opened.deployment = known or _deployment(str(kwargs.get("model") or ""), info)
        # A declared bound is for calls that state none: beside another it would let the answer be longer than what is held for it.
        for name in set(_BOUNDS) - opened.bounds:
            kwargs.pop(name, None)
        if opened.deployment.provider in FREE_PROVIDERS and "embed" in str(getattr(call_type, "value", call_type)):
            return _as_openai(kwargs)
        if opened.deployment.whose != "openai":
            return kwargs
        openai = self.settings.openai
        opened.organization, opened.openai_project = openai.organization, openai.project_of(opened.call.project)
        headers = {**(kwargs.get("extra_headers") or {}), "X-Client-Request-Id": opened.call.id}
        headers |= {"OpenAI-Organization": openai.organization} if openai.organization else {}
        headers |= {"OpenAI-Project": opened.openai_project} if opened.openai_project else {}
        kwargs["extra_headers"] = headers
        return kwargs

    async def _again(self, opened: _Open) -> None:
        """The call goes to a fallback. What the attempt before may have cost stays held, and the next one is held beside it."""
        if opened.ended:  # its limit did not let the one before be made
            raise _error(429, "budget_exceeded", "A limit does not let this call go on to its fallbacks.")
        before = opened.deployment or Deployment()
        if not before.costs or (opened.failed and _answered(opened.failed)):
            return
        status = f"{type(opened.failed).__name__ if opened.failed else 'broken off'}, then a fallback"
        self._lose(opened, status)
        self._open[opened.key] = opened
        call = dataclasses.replace(opened.call, id=uuid.uuid4().hex)
        if refused := await self._reserve(call):
            raise self._refusal(call, refused)
        opened.call, opened.started, opened.ended = call, time.monotonic(), False

    # --- after ---

    async def async_post_call_failure_deployment_hook(
        self, request_data: Mapping[str, Any], exception: Exception, call_type: Any, fallback_depth: int | None = None
    ) -> None:
        """How an attempt has failed; a fallback may follow."""
        opened = self._opened(request_data)
        if opened is not None:
            opened.failed = exception

    async def async_post_call_success_hook(self, data: dict[str, Any], user_api_key_dict: Any, response: Any) -> Any:
        opened = self._opened(data)
        if opened is not None and not opened.ended:
            usage, cached = getattr(response, "usage", None), _is_cached(response)
            if any(_tokens(usage)) or cached or not (opened.deployment or Deployment()).costs:
                self._settle(opened, usage, cached)
            else:
                self._lose(opened, "no usage told")
        return response

    async def async_post_call_streaming_iterator_hook(
        self, user_api_key_dict: Any, response: Any, request_data: dict[str, Any]
    ) -> AsyncGenerator[Any, None]:
        opened = self._opened(request_data)
        if opened is None:
            async for chunk in response:
                yield chunk
            return
        usage, reckoned, status, cached = None, None, "stream cut", False
        try:
            async for chunk in response:
                usage = getattr(chunk, "usage", None) or usage
                reckoned = (getattr(chunk, "_hidden_params", None) or {}).get("usage") or reckoned
                cached = cached or _is_cached(chunk)
                if usage is not None and not opened.ended and (any(_tokens(usage)) or cached):
                    self._settle(opened, usage, cached)
                if getattr(chunk, "usage", None) is not None and not opened.told:
                    if not chunk.choices:
                        continue
                    del chunk.usage
                yield chunk
            # Ollama's usage LiteLLM keeps to itself. What costs nothing may be counted by it.
            if not opened.ended and opened.deployment and opened.deployment.provider in FREE_PROVIDERS:
                self._settle(opened, reckoned, cached)
        except (asyncio.CancelledError, GeneratorExit):
            status = "hung up"
            raise
        finally:
            # OpenAI tells what a stream has cost in its last piece, which did not come: what it has cost is not known.
            if not opened.ended:
                self._lose(opened, status)

    async def async_post_call_failure_hook(
        self, request_data: dict[str, Any], original_exception: Exception, user_api_key_dict: Any, traceback_str: str | None = None
    ) -> None:
        opened = self._opened(request_data)
        if opened is None or opened.ended:
            self._open.pop(opened.key if opened else "", None)
            return
        # Where fallbacks fail as well, LiteLLM tells the first one's error; what is open is the last one's.
        error = opened.failed or original_exception
        status = f"{type(error).__name__} {getattr(error, 'status_code', '')}".strip()
        if _answered(error):
            self._close(opened)
            self.measures.ended(opened.call, Outcome(status=status), time.monotonic() - opened.started)
            call, outcome = opened.call, self._outcome(opened, None, status)
            await _written(self.writer.ask(lambda connection: self.ledger.release(connection, call.id, outcome), lasting=True))
        else:
            await _written(self._lose(opened, status))

    def _settle(self, opened: _Open, usage: Any, cached: bool) -> None:
        if opened.ended:
            return
        try:
            outcome = self._outcome(opened, usage, "cached" if cached else "ok")
        except Unpriced:
            self._lose(opened, "price unknown")
            return
        self._close(opened)
        self.measures.ended(opened.call, outcome, time.monotonic() - opened.started)
        call = opened.call
        # Nobody waits for it: a call that is not settled when the gateway dies stays held, and so is not lost.
        self.writer.ask(lambda connection: self.ledger.settle(connection, call, outcome), lasting=True).add_done_callback(self._warn)

    def _warn(self, done: Future[list[Warned]]) -> None:
        if done.cancelled() or done.exception():
            log.error("a call's cost could not be written; it stays reserved")
        else:
            alerts.tell(self.settings.alerts, done.result())

    def _warn_refused(self, done: Future[Any]) -> None:
        """Where a limit was lowered below what is spent, no call is settled any more that would tell."""
        if not done.cancelled() and not done.exception() and done.result():
            alerts.tell(self.settings.alerts, done.result().warned)

    def _lose(self, opened: _Open, status: str) -> Future[bool]:
        self._close(opened)
        call, outcome = opened.call, self._outcome(opened, None, status)
        self.measures.ended(call, outcome, time.monotonic() - opened.started)
        return self.writer.ask(lambda connection: self.ledger.lose(connection, call.id, status, outcome), lasting=True)

    def _close(self, opened: _Open) -> None:
        opened.ended = True
        self._open.pop(opened.key, None)

    def _opened(self, data: Mapping[str, Any]) -> _Open | None:
        metadata = data.get("metadata")
        return self._open.get(str(metadata.get(_KEY))) if isinstance(metadata, dict) else None

    def _sweep(self) -> None:
        now = time.monotonic()
        if now - self._swept > SWEEP_SECONDS:
            self._swept, seconds = now, self.settings.call_seconds
            self.writer.ask(lambda connection: self.ledger.sweep(connection, seconds))
            for each in [each for each in list(self._open.values()) if now - each.started > seconds]:
                self._close(each)

    # --- costs ---

    def _outcome(self, opened: _Open, usage: Any, status: str) -> Outcome:
        tokens = _tokens(usage)
        cost = 0
        if usage is not None and status != "cached":
            went = [opened.deployment] if opened.deployment else self._deployments(opened.call.model).values()
            cost = max((_cost(each, *tokens) for each in went), default=0)
        to = opened.deployment or Deployment()
        return Outcome(
            cost_nano=cost,
            tokens_in=tokens[0],
            tokens_out=tokens[1],
            tokens_cached=tokens[2],
            latency_ms=round((time.monotonic() - opened.started) * 1000),
            status=status,
            provider=to.whose,
            deployment=to.name,
            organization=opened.organization,
            openai_project=opened.openai_project,
        )

    def _deployments(self, model: str) -> dict[str, Deployment]:
        """Where a model's calls may go, its fallbacks among them, by LiteLLM's ids."""
        until, known = self._known.get(model, (0.0, {}))
        if time.monotonic() < until:
            return known
        from litellm.proxy.proxy_server import llm_router  # noqa: PLC0415 - made after the hooks

        found: dict[str, Deployment] = {}
        for name in [model, *_fallbacks(llm_router, model)]:
            for each in (llm_router.get_model_list(model_name=name) or []) if llm_router else []:
                params, info = each.get("litellm_params") or {}, each.get("model_info") or {}
                made = _deployment(str(params.get("model") or ""), {**params, **info})
                if name == model:  # a fallback's parameters are not for the calls that it has no part in
                    declared = params.get("max_completion_tokens") or params.get("max_tokens")
                    made = dataclasses.replace(made, declared=declared if isinstance(declared, int) else None)
                found[str(info.get("id"))] = made
        if len(self._known) > 1000:
            self._known.clear()
        self._known[model] = (time.monotonic() + 10, found)
        return found

    def _most(self, model: str) -> int:
        """What a call is given that states no most of its own: without one, what it may cost would have no bound."""
        known = self._deployments(model).values()
        return min([self.settings.max_tokens, *(most for each in known for most in (each.most, each.declared) if most)])

    def _estimate(self, model: str, data: dict[str, Any], chat: bool, exact: bool) -> int:
        """The most that the call can cost, at its dearest deployment."""
        deployments = self._deployments(model).values()
        spent, files = _prompt_tokens(data, exact)
        out = answers = 0
        if chat:
            asked = [data.get(name) for name in _BOUNDS]
            out = max((each for each in asked if isinstance(each, int)), default=self.settings.max_tokens)
            answers = data["n"] if isinstance(data.get("n"), int) and data["n"] > 1 else 1

        def most(each: Deployment) -> int:
            # No answer is longer than what the model can answer with, whatever is asked for.
            return _cost(each, spent + files * (each.reads or PART_TOKENS), max(0, min(out, each.most or out)) * answers, 0)

        try:
            return max(map(most, deployments), default=0)
        except Unpriced as unpriced:
            raise _error(400, "price_unknown", str(unpriced)) from None


def _judge(body: Mapping[str, Any], kind: str) -> None:
    """Refuse what could make a call cost more than it is held for."""
    for name in body:
        if name not in PASSED[kind]:
            raise _error(400, "unknown_parameter", f"{name[:100]} is no parameter that this gateway passes on. Leave it out.")
    if not isinstance(body.get("model", ""), str):
        raise _error(400, "invalid_model", "model is no text. Name one.")
    for name, highest in _COUNTS.items():
        value = body.get(name)
        if value is not None and (type(value) is not int or not 1 <= value <= highest):
            raise _error(400, "invalid_parameter", f"{name} is no whole number from 1 to {highest}. Correct it, or leave it out.")
    tools = body.get("tools")
    if tools and not (isinstance(tools, list) and all(isinstance(each, dict) and each.get("type") in _TOOLS for each in tools)):
        raise _error(
            400, "invalid_tools", f"tools has another type than {' and '.join(_TOOLS)}: those alone run at the client. Leave it out."
        )
    if any("://" in str(dict(part["file"]).get("file_id")) for part in _parts(body) if isinstance(part.get("file"), dict)):
        raise _error(400, "invalid_file", "file_id is an address, which this gateway does not fetch from. Send the file as file_data.")


def _as_openai(kwargs: dict[str, Any]) -> dict[str, Any]:
    """A call for embeddings by Ollama's OpenAI-compatible way: by its own, LiteLLM sends no key, and knows none for ollama_chat."""
    provider, _, model = str(kwargs["model"]).partition("/")
    place = str(kwargs.get("api_base") or "").rstrip("/")
    named = model if provider in FREE_PROVIDERS else kwargs["model"]
    return {**kwargs, "model": f"openai/{named}", "api_base": f"{place}/v1", "api_key": kwargs.get("api_key") or "none"}


def _fallbacks(router: Any, model: str) -> list[str]:
    """As LiteLLM tries them: each one's own before the next one."""
    found: list[str] = []

    def follow(name: str) -> None:
        for each in (getattr(router, "fallbacks", None) or []) if router else []:
            for other in each.get(name) or each.get("*") or []:
                if isinstance(other, str) and other not in (model, *found):
                    found.append(other)
                    follow(other)

    follow(model)
    return found


class Unpriced(Exception):
    """A deployment whose costs cannot be told."""


def _deployment(model: str, own: Mapping[str, Any]) -> Deployment:
    """own: its ``model_info``, whose prices go before those of LiteLLM's list."""
    provider, info = "", {}
    try:
        provider = str(litellm.get_llm_provider(model=model)[1])
        # Of Ollama's it would ask the one of this node, and everybody would wait.
        info = {} if provider in FREE_PROVIDERS else dict(litellm.get_model_info(model=model))
    except Exception:  # LiteLLM has no other for what it does not know
        provider = provider or model.partition("/")[0]
    most, reads = info.get("max_output_tokens"), info.get("max_input_tokens")
    if own.get("input_cost_per_token") is not None:
        info = dict(own)
    elif provider in FREE_PROVIDERS:
        info = {"input_cost_per_token": 0}
    price = None
    # Prices that rise with a call's length are LiteLLM's to work out.
    if info.get("input_cost_per_token") is not None and not any("_above_" in name and value for name, value in info.items()):
        fresh, out = (Decimal(str(info.get(name) or 0)) for name in ("input_cost_per_token", "output_cost_per_token"))
        cached = info.get("cache_read_input_token_cost")
        price = fresh * NANO, (fresh if cached is None else Decimal(str(cached))) * NANO, out * NANO
    most, reads = (int(each) if each else None for each in (most, reads))
    return Deployment(model, provider, str(own.get("endpoint") or ""), price, most, reads=reads, node=str(own.get("node") or ""))


def _cost(deployment: Deployment, spent: int, out: int, cached: int) -> int:
    """Nano-USD, rounded up; never by what a client says."""
    if deployment.price:
        fresh, of_cache, told = deployment.price
        return math.ceil((spent - cached) * fresh + cached * of_cache + out * told)
    try:
        both = litellm.cost_per_token(
            model=deployment.model,
            prompt_tokens=spent,
            completion_tokens=out,
            cache_read_input_tokens=cached,
            custom_llm_provider=deployment.provider,
        )
    except Exception as error:
        raise Unpriced(
            f"What {deployment.model} costs is not known, so it cannot be called: set input_cost_per_token and output_cost_per_token of "
            "its model_info, 0 for free."
        ) from error
    return nano(both[0] + both[1])


def _parts(data: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What messages have beside text."""
    messages = data.get("messages")
    for message in messages if isinstance(messages, list) else []:
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else []:
            if isinstance(part, dict) and part.get("type") != "text":
                yield part


def _prompt_tokens(data: Mapping[str, Any], exact: bool) -> tuple[int, int]:
    """No fewer than the provider will count: a token is a byte or more; or, exact, as a tokenizer counts, and a tenth. And the files,
    which may fill all that a model reads."""
    asked = data.get("messages") if "messages" in data else data.get("input")
    parts = [str(part.get("type")) for part in _parts(data)]
    rest = [data.get(name) for name in ("tools", "functions", "response_format") if data.get(name)]
    if exact and not parts:
        try:
            text = {"messages": asked} if "messages" in data else {"text": json.dumps(asked)}
            counted = int(litellm.token_counter(model=str(data.get("model")), **text))
            return round(counted * 1.1) + 16 + sum(len(json.dumps(each)) for each in rest), 0
        except Exception:
            log.debug("tokens could not be counted", exc_info=True)
    whole = len(json.dumps([asked, *rest], ensure_ascii=False, default=str).encode(errors="surrogatepass"))
    files = parts.count("file")
    return whole + PART_TOKENS * (len(parts) - files) + (16 * len(asked) if isinstance(asked, list) else 16), files


def _tokens(usage: Any) -> tuple[int, int, int]:
    """In, out and, of those in, cached; what makes no sense counts in the provider's favour."""
    details = getattr(usage, "prompt_tokens_details", None)
    asked, answered, whole = (max(0, getattr(usage, name, None) or 0) for name in ("prompt_tokens", "completion_tokens", "total_tokens"))
    # Some tell what was thought in the total alone.
    return asked, max(answered, whole - asked), min(asked, max(0, getattr(details, "cached_tokens", None) or 0))


def _is_cached(response: Any) -> bool:
    """Whether LiteLLM had the answer already."""
    hidden = getattr(response, "_hidden_params", None)
    return bool(isinstance(hidden, dict) and hidden.get("cache_hit"))


def _answered(error: Exception) -> bool:
    """Whether a call was refused, by the provider or before; after a time-out or a broken line it may have been answered and billed."""
    if isinstance(error, RouterRateLimitError):  # no deployment was left to call
        return True
    if isinstance(error, (litellm.exceptions.Timeout, litellm.exceptions.APIConnectionError)):
        return False
    status = str(getattr(error, "status_code", None) or getattr(error, "code", None))
    if status in ("408", "502", "504"):  # of something between, which did not wait
        return False
    broken = "connection" in str(error).lower() or "disconnected" in str(error).lower()
    return status.isdecimal() and not (broken and status.startswith("5"))


def _project(identity: Identity, asked: str | None) -> str:
    if asked is None:
        return identity.projects[0] if identity.projects else ""
    if asked not in identity.projects:
        raise _error(403, "wrong_project", f"{PROJECT_HEADER} names a project that this token may not spend for.")
    return asked


def _error(status: int, kind: str, message: str, again: datetime | None = None) -> ProxyException:
    """As OpenAI's clients read it. They are not to try again what will be refused again."""
    headers = {"x-should-retry": "true" if status == 503 else "false"}
    if again:
        headers["retry-after"] = str(max(1, int(again.timestamp() - time.time())))
    return ProxyException(message=message, type=kind, param=None, code=status, headers=headers)


async def _answer(waiting: Future[T]) -> T:
    """Who gives up waiting does not take back what was asked for."""
    return await asyncio.shield(asyncio.wrap_future(waiting))


async def _written(waiting: Future[Any]) -> None:
    """A client that is told of a failure has what was held for it back, but does not wait for a database that is away."""
    await asyncio.wait([asyncio.wrap_future(waiting)], timeout=WRITTEN_SECONDS)


def _begin() -> Accounting:
    """LiteLLM would bury what is wrong under a stack and a text of its own."""
    try:
        settings = read()
        try:
            return Accounting(settings)
        except SQLAlchemyError as error:
            said = " ".join(str(getattr(error, "orig", None) or error).split())
            remedy = "See that it runs and lets this node in, or correct cost_database_url." if "postgresql" in settings.ledger else ""
            print(f"The gateway cannot open its ledger: {said}. {remedy}", file=sys.stderr)
    except Invalid as invalid:
        print(f"The gateway cannot start: {invalid}", file=sys.stderr)
    sys.stderr.flush()
    os._exit(1)


accounting = _begin()
authenticate = accounting.authenticate
