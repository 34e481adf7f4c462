# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The AI gateway for real: LiteLLM's proxy with our hooks, before the stand-in for OpenAI's servers, all on loopback."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import requests
from node_cluster import free_ports, wait_for
from openai_standin import KEY

from bzzz_setup import release
from bzzz_setup.gateway.budgets import load
from bzzz_setup.gateway.ledger import Ledger
from bzzz_setup.lab import CHECKOUT

# What Python asks for the time is as far ahead as a file says, at every question; LiteLLM and the hooks are loaded after it.
CLOCK = """
import time
time.time = lambda real=time.time: real() + float(open({file!r}).read())
"""
PLACE = CHECKOUT / ".cache/litellm"
MODELS = {"cheap": "openai/gpt-4o-mini", "good": "openai/gpt-4o", "vectors": "openai/text-embedding-3-small"}


def python() -> Path:
    """A Python that has what the gateway's release has: made once a checkout."""
    lock = release.GATEWAY_PRODUCT.lock.read_text(encoding="utf-8")
    PLACE.mkdir(parents=True, exist_ok=True)
    done = PLACE / "lock"
    with (PLACE / ".lock").open("w") as alone:
        fcntl.flock(alone, fcntl.LOCK_EX)
        if not done.exists() or done.read_text() != lock:
            try:
                made = release.build(python=f"3.{sys.version_info[1]}", product=release.GATEWAY_PRODUCT)
            except release.ReleaseError as error:
                pytest.fail(str(error))
            subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", PLACE / "venv"], check=True)
            with tarfile.open(made) as packed:
                packed.extractall(PLACE / "venv", filter="data")
            (site,) = (PLACE / "venv/lib").glob("python*/site-packages")
            (site / "release.pth").write_text(f"{PLACE / 'venv/lib'}\n")
            done.write_text(lock)
    return PLACE / "venv/bin/python"


def token(user: str) -> str:
    return f"bzzz_{hashlib.sha256(user.encode()).hexdigest()[:16]}_{'x' * 43}"


class StandIn:
    """OpenAI's servers, as far as they are stood in for."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.port, self.address = free_ports(1)[0], address
        self.url = f"http://{address}:{self.port}"
        self.start()

    def start(self) -> None:
        """It has answered nothing yet then."""
        self.process = subprocess.Popen([sys.executable, str(CHECKOUT / "tests/openai_standin.py"), str(self.port), self.address])
        wait_for(lambda: _answers(f"{self.url}/stand-in"), 20, "the stand-in answers")

    def mode(self, mode: str = "fine", seconds: float = 0, back: int = 0) -> None:
        given = {"mode": mode, "seconds": seconds, "back": back}
        requests.put(f"{self.url}/stand-in", json=given, timeout=10).raise_for_status()

    @property
    def answers(self) -> list[dict[str, Any]]:
        answers: list[dict[str, Any]] = requests.get(f"{self.url}/stand-in", timeout=30).json()["answers"]
        return answers

    def asked(self, path: str, **query: Any) -> dict[str, Any]:
        """As an administrator's key may ask."""
        answer = requests.get(self.url + path, params=query, headers={"Authorization": f"Bearer {KEY}"}, timeout=30)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


class Gateway:
    """``settings`` are of the gateway's file; plain: LiteLLM without the hooks, to compare; clocked: ``at`` sets its clock; more: models
    beside MODELS, as LiteLLM has them; elsewhere: whose they are."""

    def __init__(
        self,
        folder: Path,
        upstream: StandIn,
        settings: dict[str, Any] | None = None,
        users: Iterable[str] = ("anna", "bert"),
        plain: bool = False,
        clocked: bool = False,
        elsewhere: Iterable[StandIn] = (),
        more: Iterable[dict[str, Any]] = (),
        fallbacks: Iterable[dict[str, list[str]]] = (),
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.plain, self.clocked = folder, plain, clocked
        self.upstreams = [upstream, *elsewhere]
        self.port, self.metrics = free_ports(2)
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "gateway.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.database = f"sqlite:///{folder / 'ledger.sqlite'}"
        self.settings = {
            "gateway": "test",
            "ledger": self.database,
            "tokens": {"file": str(folder / "tokens.json")},
            "metrics": {"port": self.metrics},
            **(settings or {}),
        }
        self.database = self.settings["ledger"]
        tokens = [
            {"sha256": hashlib.sha256(token(user).encode()).hexdigest(), "user": user, "projects": ["search", "web"]} for user in users
        ]
        (folder / "tokens.json").write_text(json.dumps({"tokens": tokens}))
        (folder / "gateway.yaml").write_text(json.dumps(self.settings))
        models = [
            {"model_name": name, "litellm_params": {"model": model, "api_base": f"{upstream.url}/v1", "api_key": KEY}}
            for name, model in MODELS.items()
        ]
        hooks = {"custom_auth": "bzzz_setup.gateway.hooks.authenticate"} if not plain else {}
        config = {
            "model_list": [*models, *more],
            "general_settings": {"master_key": "sk-a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6", **hooks},
            "litellm_settings": {
                "num_retries": 0,
                "telemetry": False,
                **({} if plain else {"callbacks": ["bzzz_setup.gateway.hooks.accounting"]}),
            },
            "router_settings": {"num_retries": 0, "disable_cooldowns": True, "fallbacks": list(fallbacks)},
        }
        (folder / "litellm.yaml").write_text(json.dumps(config))

    def start(self) -> None:
        self.launch()
        try:
            wait_for(lambda: _answers(f"{self.url}/health/liveliness"), 120, "the gateway answers")
        except BaseException:
            print(self.log.read_text()[-4000:])
            raise

    def launch(self) -> subprocess.Popen[bytes]:
        environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        environment |= {
            "PYTHONPATH": str(CHECKOUT),
            "BZZZ_GATEWAY_CONFIG": str(self.folder / "gateway.yaml"),
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_LOG": "ERROR",
        }
        command = [
            str(python()),
            "-c",
            (CLOCK.format(file=str(self.folder / "clock")) if self.clocked else "") + "import litellm; litellm.run_server()",
            "--config",
            str(self.folder / "litellm.yaml"),
            "--host",
            "127.0.0.1",
        ]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--port", str(self.port), "--telemetry", "False"],
                env=environment,
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self.process

    def at(self, moment: datetime) -> None:
        new = self.folder / "clock.new"
        new.write_text(str(moment.timestamp() - time.time()))
        new.replace(self.folder / "clock")

    def kill(self) -> None:
        """As a power cut to the process."""
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def client(self, user: str = "anna", **more: Any) -> dict[str, str]:
        return {"Authorization": f"Bearer {token(user) if not self.plain else 'sk-a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6'}", **more}

    def chat(
        self,
        user: str = "anna",
        model: str = "cheap",
        headers: dict[str, str] | None = None,
        body: dict[str, Any] | None = None,
        stream: bool = False,
    ) -> requests.Response:
        body = {
            "model": model,
            "messages": [{"role": "user", "content": "How are you?"}],
            "max_tokens": 50,
            "stream": stream,
            **(body or {}),
        }
        return requests.post(f"{self.url}/v1/chat/completions", json=body, headers=self.client(user, **(headers or {})), timeout=120)

    def ledger(self) -> Ledger:
        return Ledger(self.database, load(self.settings.get("budgets"), self.settings.get("time_zone", "UTC")), "reader")

    def rows(self) -> list[dict[str, Any]]:
        return self.ledger().rows()


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False


def clocked(act: Any) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start
