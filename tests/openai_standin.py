# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A stand-in for OpenAI's servers: ``python openai_standin.py PORT [ADDRESS [CERTIFICATE KEY]]``. It makes up its
answers, and counts them.

Served as OpenAI describes it: chat completions (plain, streamed, tools), embeddings, models, the organization's costs and usage. Beside
it: ``GET /stand-in`` tells every answer, ``PUT /stand-in`` sets ``{"mode": …, "seconds": …}`` with a mode of ``MODES`` and how long an
answer takes; ``"back"`` has what was answered in the last so many seconds be as much older. What it counts is kept for as long as it
runs. Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import socketserver
import ssl
import sys
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

KEY = "sk-stand-in-0123456789abcdef"
MODES = (
    *("fine", "wrong_key", "no_quota", "rate_limit", "error", "wrong_organization", "wrong_project", "no_permission", "cut", "silent"),
    *("untold", "odd"),  # no usage, as some servers that are called like OpenAI's answer; and one that cannot be
)
# Nano-USD a token: input, cached input, output. As LiteLLM's own list of prices has them.
PRICES = {
    "gpt-5": (1250, 125, 10000),
    "gpt-4o-mini": (150, 75, 600),
    "gpt-4o": (2500, 1250, 10000),
    "text-embedding-3-small": (20, 20, 0),
}
ERRORS = {
    "no_quota": (429, "insufficient_quota", "You exceeded your current quota, please check your plan and billing details."),
    "rate_limit": (429, "rate_limit_exceeded", "Rate limit reached for requests"),
    "error": (500, "server_error", "The server had an error while processing your request."),
}
# What already the list of models is refused with.
REFUSALS = {
    "wrong_key": (401, "invalid_api_key", "Incorrect API key provided."),
    "wrong_organization": (401, "mismatched_organization", "OpenAI-Organization header should match organization for API key"),
    "wrong_project": (401, "mismatched_project", "OpenAI-Project header should match project for API key"),
    "no_permission": (
        403,
        "insufficient_permissions",
        "You have insufficient permissions for this operation. Missing scopes.",
    ),
}
ERRORS |= REFUSALS


class State:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.mode, self.seconds = "fine", 0.0
        self.answers: list[dict[str, Any]] = []
        self.refused = 0

    def count(self, headers: Any, body: dict[str, Any], tokens: tuple[int, int, int]) -> None:
        model = body["model"]
        price = PRICES[model]
        spent, cached, out = tokens
        cost = (spent - cached) * price[0] + cached * price[1] + out * price[2]
        about = {"id": headers.get("X-Client-Request-Id"), "organization": headers.get("OpenAI-Organization")}
        about |= {"project": headers.get("OpenAI-Project"), "model": model, "input_tokens": spent, "cached": cached, "output_tokens": out}
        about |= {"temperature": body.get("temperature")}
        with self.lock:
            self.answers.append({**about, "nano": cost, "at": time.time()})


STATE = State()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: Any) -> None:
        pass

    def _send(self, status: int, document: Any) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _error(self, status: int, code: str, message: str) -> None:
        with STATE.lock:
            STATE.refused += 1
        self._send(status, {"error": {"message": message, "type": code, "param": None, "code": code}})

    def _body(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        return document

    def do_PUT(self) -> None:
        fields = self._body()
        with STATE.lock:
            STATE.mode, STATE.seconds = fields.get("mode", "fine"), float(fields.get("seconds", 0))
            back = fields.get("back", 0)
            for each in STATE.answers:
                each["at"] -= back if each["at"] > time.time() - back else 0
        self._send(200, {})

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        if url.path == "/stand-in":
            with STATE.lock:
                return self._send(200, {"answers": STATE.answers, "refused": STATE.refused})
        if self.headers.get("Authorization") != f"Bearer {KEY}":
            return self._error(401, "invalid_api_key", "Incorrect API key provided.")
        if STATE.mode in REFUSALS:
            return self._error(*REFUSALS[STATE.mode])
        if url.path == "/v1/models":
            return self._send(200, {"object": "list", "data": [{"id": each, "object": "model", "owned_by": "stand-in"} for each in PRICES]})
        if url.path == "/v1/organization/costs":
            return self._buckets(query, 86400, "organization.costs.result")
        if url.path in ("/v1/organization/usage/completions", "/v1/organization/usage/embeddings"):
            width = {"1m": 60, "1h": 3600, "1d": 86400}[query.get("bucket_width", "1d")]
            return self._buckets(query, width, f"organization.usage.{url.path.rpartition('/')[2]}.result")
        return self._error(404, "not_found", "There is nothing here.")

    def _buckets(self, query: dict[str, str], width: int, kind: str) -> None:
        since, until = int(query["start_time"]) // width * width, float(query.get("end_time", time.time() + 1))
        found: dict[int, dict[str, list[dict[str, Any]]]] = {}
        with STATE.lock:
            for each in STATE.answers:
                counted = kind.endswith("costs.result") or ("embedding" in each["model"]) == ("embedding" in kind)
                if since <= each["at"] < until and counted:
                    found.setdefault(int(each["at"]) // width * width, {}).setdefault(each["model"], []).append(each)
        data = []
        for start, models in sorted(found.items()):
            results = []
            for model, answers in models.items():
                result = {"object": kind, "project_id": None}
                if kind == "organization.costs.result":
                    amount = sum(each["nano"] for each in answers) / 1e9
                    result |= {"amount": {"value": amount, "currency": "usd"}, "line_item": model}
                else:
                    tokens = {name: sum(each[name] for each in answers) for name in ("input_tokens", "output_tokens")}
                    result |= {**tokens, "input_cached_tokens": sum(each["cached"] for each in answers)}
                    result |= {"num_model_requests": len(answers), "model": model}
                results.append(result)
            data.append({"object": "bucket", "start_time": start, "end_time": start + width, "results": results})
        self._send(200, {"object": "page", "data": data, "has_more": False, "next_page": None})

    def do_POST(self) -> None:
        body, mode = self._body(), STATE.mode
        if self.headers.get("Authorization") != f"Bearer {KEY}":
            return self._error(401, "invalid_api_key", "Incorrect API key provided.")
        if mode in ERRORS:
            return self._error(*ERRORS[mode])
        model = body.get("model", "")
        if model not in PRICES:
            return self._error(404, "model_not_found", f"The model {model} does not exist")
        if self.path == "/v1/embeddings":
            texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
            tokens = max(1, len(json.dumps(texts)) // 4)
            time.sleep(STATE.seconds)
            STATE.count(self.headers, body, (tokens, 0, 0))
            data = [{"object": "embedding", "index": number, "embedding": [0.25, 0.5]} for number, _ in enumerate(texts)]
            return self._send(
                200, {"object": "list", "model": model, "data": data, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}
            )
        if self.path != "/v1/chat/completions":
            return self._error(404, "not_found", "There is nothing here.")
        return self._chat(body, model, mode)

    def _chat(self, body: dict[str, Any], model: str, mode: str) -> None:
        if body.get("max_tokens") and body.get("max_completion_tokens"):
            return self._error(400, "invalid_request_error", "Setting 'max_tokens' and 'max_completion_tokens' at once is not supported.")
        spent = max(1, len(json.dumps(body["messages"])) // 4)
        cached = spent // 2 if spent > 200 else 0
        out = min(20, body.get("max_tokens") or body.get("max_completion_tokens") or 20)
        usage = {
            "prompt_tokens": spent,
            "completion_tokens": out,
            "total_tokens": spent + out,
            "prompt_tokens_details": {"cached_tokens": cached},
        }
        about = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}
        if body.get("stream"):
            return self._stream(about, body, usage, (spent, cached, out), mode)
        time.sleep(STATE.seconds)
        STATE.count(self.headers, body, (spent, cached, out))
        if mode == "silent":  # answered, and the line broke
            self.close_connection = True
            return None
        message: dict[str, Any] = {"role": "assistant", "content": "word " * out}
        finish = "stop"
        if body.get("tools"):
            function = {"name": body["tools"][0]["function"]["name"], "arguments": '{"city": "Bern"}'}
            message = {"role": "assistant", "content": None, "tool_calls": [{"id": "call_1", "type": "function", "function": function}]}
            finish = "tool_calls"
        choice = {"index": 0, "message": message, "finish_reason": finish}
        usage |= {"completion_tokens": -500} if mode == "odd" else {}
        if mode == "untold":
            return self._send(200, {**about, "object": "chat.completion", "choices": [choice]})
        return self._send(200, {**about, "object": "chat.completion", "choices": [choice], "usage": usage})

    def _stream(self, about: dict[str, Any], body: dict[str, Any], usage: dict[str, Any], tokens: tuple[int, int, int], mode: str) -> None:
        """The whole is counted, however much of it is read: that is the worst for whoever pays."""
        STATE.count(self.headers, body, tokens)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

        def send(document: Any) -> None:
            line = b"data: " + (document if isinstance(document, bytes) else json.dumps(document).encode()) + b"\n\n"
            self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
            self.wfile.flush()

        chunk = {**about, "object": "chat.completion.chunk"}
        for number in range(tokens[2]):
            time.sleep(STATE.seconds / tokens[2])
            if mode == "cut" and number == tokens[2] // 2:
                self.close_connection = True
                return
            send({**chunk, "choices": [{"index": 0, "delta": {"role": "assistant", "content": "word "}, "finish_reason": None}]})
        send({**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        if (body.get("stream_options") or {}).get("include_usage"):
            send({**chunk, "choices": [], "usage": usage})
        send(b"[DONE]")
        self.wfile.write(b"0\r\n\r\n")


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # who hangs up is part of what is tested


def main() -> None:
    socketserver.TCPServer.allow_reuse_address = True
    port, address, *pair = sys.argv[1:] if sys.argv[2:] else (sys.argv[1], "127.0.0.1")
    with Server((address, int(port)), Handler) as server, contextlib.suppress(KeyboardInterrupt):
        if pair:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*pair)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
