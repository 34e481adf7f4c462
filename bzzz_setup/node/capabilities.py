# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What this node can do, seen live by the collection's own node programs."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .detect import PROGRAMS

log = logging.getLogger(__name__)

Facts = dict[str, Any]
# A tool that hangs is given up by the programs themselves; this is for a process that the kernel holds.
TIMEOUT_SECONDS = 60


def detect(ollama_ports: Sequence[int] = ()) -> tuple[Facts, str | None]:
    """Facts by program, see ``detect.py``; when there are none, one problem in their place, and the reason."""
    script = Path(__file__).with_name("detect.py")
    try:
        argv = [sys.executable, "-IB", str(script), *map(str, ollama_ports)]
        done = subprocess.run(argv, capture_output=True, timeout=TIMEOUT_SECONDS, check=True)
        facts: Facts = json.loads(done.stdout)
        return facts, None
    except subprocess.TimeoutExpired:
        reason = f"it took more than {TIMEOUT_SECONDS} seconds"
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip()[-500:]
        reason = f"exit code {error.returncode}: {said}" if error.returncode > 0 else _killed(-error.returncode)
    except (OSError, ValueError) as error:
        reason = str(error)
    return {PROGRAMS[-1]: {"problems": [{"message": f"detection failed: {reason}", "remedy": "see the service's log"}]}}, reason


def _killed(number: int) -> str:
    hint = ": the unit's SystemCallFilter forbids a call" if number == signal.SIGSYS else ""
    return f"killed by {signal.Signals(number).name}{hint}"


def _pick(given: Any, *keys: str) -> dict[str, Any]:
    return {key: given[key] for key in keys if isinstance(given, Mapping) and given.get(key) is not None}


def summary(facts: Facts) -> dict[str, Any]:
    """The published part: what schedulers and people choose by, and nothing that changes by the second."""
    gpu, system = facts.get("gpu") or {}, facts.get("system") or {}
    ollama = system.get("ollama") or {}
    return {
        "os": _pick(system.get("os"), "id", "version", "architecture"),
        "cpu": _pick(system.get("cpu"), "model", "sockets", "cores", "threads", "flags"),
        "memory_total_mib": (system.get("memory") or {}).get("total_mib"),
        "gpus": [
            _pick(device, "index", "uuid", "vendor", "model", "memory_total_mib", "driver_version", "runtime_version", "health")
            for device in gpu.get("devices") or []
        ],
        "container_engine": _pick(system.get("container_engine"), "name", "version"),
        "ollama": {
            **_pick(ollama, "version", "endpoint"),
            "models": sorted(str(model["name"]) for model in ollama.get("models") or []),
        }
        if ollama
        else {},
        "problems": sum(len((facts.get(name) or {}).get("problems") or []) for name in PROGRAMS),
    }


class Detector:
    """Looks at once and then every ``interval`` seconds, in a thread of its own."""

    def __init__(self, ollama_ports: Sequence[int] = (), interval: float = 30.0) -> None:
        self._ollama_ports = ollama_ports
        self._interval = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="detection", daemon=True)
        self.facts: Facts = {}
        self.summary: dict[str, Any] = {}
        self.seconds = 0.0
        self._reason: str | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            begin = time.monotonic()
            try:
                facts, reason = detect(self._ollama_ports)
                found = summary(facts)
            except Exception:
                # Another release's facts may have another shape: detection must go on, and say so.
                log.exception("detection failed")
            else:
                if reason and reason != self._reason:
                    log.error("detection failed: %s", reason)
                self._reason = reason
                if self.summary and found != self.summary:
                    log.info("capabilities have changed")
                self.facts, self.summary = facts, found
            self.seconds = time.monotonic() - begin
            self._stop.wait(self._interval)
