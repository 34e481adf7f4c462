# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A real Ollama as the cluster's own, without GPUs: installed, changed, upgraded, put back, and in the place of another one."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ollama
import pytest
from conftest import Tools
from rest import wait_for
from test_ollama_install import FOREIGN, MODELS, OWN, apply, ask, declared, gpus, shell, tell, two_nodes

pytestmark = [pytest.mark.alone, pytest.mark.slow]
GENERATE = """
import sys, urllib.request
print(urllib.request.urlopen("http://127.0.0.1:11434/api/generate", sys.stdin.buffer.read()).read().decode())
"""


@pytest.fixture(scope="module")
def bzzz(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tools]:
    with two_nodes("real", tmp_path_factory.mktemp("home")) as bzzz:
        yield bzzz


@pytest.mark.requirement("3.3.1", "3.3.4", "3.5.4")
def test_a_real_ollama_is_installed_upgraded_put_back_and_takes_anothers_place(bzzz: Tools, tmp_path: Path) -> None:
    try:
        program = ollama.binary()
    except ollama.Unbuildable as reason:
        pytest.skip(str(reason))
    new, broken = program.read_bytes(), b"#!/bin/sh\nexit 1\n"
    # The same program, which tells another version.
    old = new.replace(ollama.VERSION.encode(), (before := f"{ollama.VERSION[:-1]}0").encode())
    options: dict[str, Any] = {"ollama_start_timeout_seconds": 20, "ollama_migrate": False}

    def says(node: str, model: str = "tiny") -> dict[str, Any]:
        body = {"model": model, "prompt": "How are you?", "stream": False}
        said: dict[str, Any] = json.loads(bzzz.lab.exec(node, ["python3", "-c", GENERATE], stdin=json.dumps(body)).stdout)
        assert said["done"] and said["eval_count"] > 0, said
        return said

    def create(node: str) -> None:
        ollama.model(tmp_path)
        shell(bzzz, node, "mkdir -p /root/made")
        for name in ("tiny.gguf", "Modelfile"):
            ollama.copy(bzzz.lab, node, tmp_path / name, "/root/made")
        bzzz.lab.exec(node, ["/opt/bzzz/ollama/current/bin/ollama", "create", "tiny", "-f", "/root/made/Modelfile"])

    # Another sum is told before anything of it runs.
    forged = declared(bzzz, tmp_path / "0", ollama.VERSION, new, ollama_sha256_amd64="0" * 64, **options)
    refused = bzzz.setup("apply", "--only", "4", "--limit", OWN, folder=forged, code=None)
    assert refused.returncode in (2, 3) and "0" * 64 in re.sub(r"\s", "", refused.stdout + refused.stderr)

    first = declared(bzzz, tmp_path / "1", before, old, **options)
    apply(bzzz, first, OWN)
    assert ask(bzzz, OWN) == {"version": before}
    create(OWN)
    says(OWN)
    assert apply(bzzz, first, OWN)["changes"] == []
    listening = shell(bzzz, OWN, "ss -Hltnp | grep '\"ollama\"'").splitlines()
    assert listening and all(line.split()[3].startswith("127.0.0.1:") for line in listening), "the node alone may call it"
    exposure = shell(bzzz, OWN, "systemd-analyze security bzzz-ollama@0 --no-pager | tail -1")
    assert float(re.findall(r"[\d.]+", exposure)[0]) < 4, exposure

    settings = {
        **{"ollama_num_parallel": 2, "ollama_max_loaded_models": 3, "ollama_max_queue": 9, "ollama_context_length": 128},
        **{"ollama_flash_attention": True, "ollama_kv_cache_type": "q8_0", "ollama_keep_alive": "-1", "ollama_load_timeout": "2m"},
    }
    second = declared(bzzz, tmp_path / "2", ollama.VERSION, new, **options, **settings)
    report = apply(bzzz, second, OWN)
    assert ask(bzzz, OWN) == {"version": ollama.VERSION} and {check["status"] for check in report["checks"]} <= {"pass", "skip"}
    says(OWN)
    # As it has understood them, and what comes of them.
    told = shell(bzzz, OWN, "journalctl -u bzzz-ollama@0 -o cat | grep 'server config' | tail -1")
    for setting in (
        "NUM_PARALLEL:2",
        "MAX_LOADED_MODELS:3",
        "MAX_QUEUE:9",
        "CONTEXT_LENGTH:128",
        "FLASH_ATTENTION:true",
        "KV_CACHE_TYPE:q8_0",
    ):
        assert f"OLLAMA_{setting} " in told, told
    assert "OLLAMA_LOAD_TIMEOUT:2m0s" in told
    (loaded,) = ask(bzzz, OWN, "/api/ps")["models"]
    assert loaded["context_length"] == 128 and loaded["expires_at"] > "2100", loaded
    assert apply(bzzz, second, OWN)["changes"] == []

    broke = apply(bzzz, declared(bzzz, tmp_path / "3", "9.9.9", broken, **options, **settings), OWN, code=3)
    assert "as it was before" in json.dumps(broke["failures"])
    assert ask(bzzz, OWN) == {"version": ollama.VERSION}
    says(OWN)

    ollama.install(bzzz.lab, FOREIGN, program)
    try:
        migrate = {**options, "ollama_migrate": True, "ollama_models_path": MODELS}
        apply(bzzz, declared(bzzz, tmp_path / "4", "9.9.9", broken, **migrate), FOREIGN, code=3)
        assert shell(bzzz, FOREIGN, "systemctl is-active ollama bzzz-ollama@0").split()[0] == "active"
        says(FOREIGN)
        apply(bzzz, taken := declared(bzzz, tmp_path / "5", before, old, **migrate), FOREIGN)
        assert ask(bzzz, FOREIGN) == {"version": before}
        assert shell(bzzz, FOREIGN, "systemctl is-active ollama; systemctl is-enabled ollama").split() == ["inactive", "disabled"]
        says(FOREIGN)
        assert apply(bzzz, taken, FOREIGN)["changes"] == []
    finally:
        shell(bzzz, FOREIGN, "systemctl disable --now bzzz-ollama@0")
        ollama.remove(bzzz.lab, FOREIGN)


@pytest.mark.requirement("3.4.5", "3.5.2", "3.5.3")
def test_gpus_are_assigned_by_uuid_and_shared_out(bzzz: Tools, tmp_path: Path) -> None:
    """The cards are nvidia-smi's stand-in's: what each instance is told of them is what can be seen here."""
    try:
        program = ollama.binary().read_bytes()
    except ollama.Unbuildable as reason:
        pytest.skip(str(reason))
    _one, two = gpus(bzzz)
    uuids = re.findall(r"<uuid>(GPU-[^<]+)<", two)
    assert len(set(uuids)) == 2

    def told(number: int) -> str:
        """What the instance's process has of GPUs, and what Ollama says that it has understood."""
        environment = shell(bzzz, OWN, f"tr '\\0' '\\n' </proc/$(systemctl show -P MainPID bzzz-ollama@{number})/environ | grep VISIBLE")
        said = shell(bzzz, OWN, f"journalctl -u bzzz-ollama@{number} -o cat | grep 'server config' | tail -1")
        return environment + said

    options: dict[str, Any] = {"ollama_gpu_overhead_mib": 700, "ollama_memory_max_mib": 900}
    each = declared(bzzz, tmp_path / "each", ollama.VERSION, program, ollama_instances="per_gpu", **options)
    report = apply(bzzz, each, OWN)
    assert {check["status"] for check in report["checks"]} <= {"pass", "skip"}
    for number, uuid in enumerate(uuids):
        assert ask(bzzz, OWN, port=11434 + number) == {"version": ollama.VERSION}
        assert f"CUDA_VISIBLE_DEVICES={uuid}\n" in told(number) and f"OLLAMA_GPU_OVERHEAD:{700 << 20} " in told(number), told(number)
        assert shell(bzzz, OWN, f"systemctl show -P MemoryMax bzzz-ollama@{number}").strip() == str(900 << 20)

    # After a boot the driver counts them the other way round.
    cards = re.findall(r"^ *<gpu id=.*?^ *</gpu>\n", two, re.DOTALL | re.MULTILINE)
    tell(bzzz, two.replace("".join(cards), "".join(reversed(cards))))
    bzzz.lab.kill(OWN)
    subprocess.run(["docker", "start", bzzz.lab.container(OWN)], check=True, capture_output=True)
    bzzz.lab.wait(OWN)
    for number, uuid in enumerate(uuids):
        wait_for("the instance", lambda number=number: "VISIBLE" in told(number), 60)
        assert f"CUDA_VISIBLE_DEVICES={uuid}\n" in told(number)
    assert apply(bzzz, each, OWN)["changes"] == []

    whole = declared(bzzz, tmp_path / "whole", ollama.VERSION, program, ollama_spread=True, **options)
    apply(bzzz, whole, OWN)
    assert shell(bzzz, OWN, "systemctl is-active bzzz-ollama@0 bzzz-ollama@1").split() == ["active", "inactive"]
    assert "VISIBLE" not in told(0).partition("server config")[0] and "OLLAMA_SCHED_SPREAD:true " in told(0), told(0)
