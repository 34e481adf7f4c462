# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The cluster's own Ollama on nodes: installed, changed, upgraded, put back, and in the place of another one.

What is installed is a stand-in: a small program that answers as Ollama does, and can be broken; test_ollama_real.py installs a real one.
Of GPUs there is nvidia-smi's stand-in.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Tools
from rest import wait_for

from bzzz_setup.events import Refusal
from bzzz_setup.lab import Lab

pytestmark = pytest.mark.alone
OWN, FOREIGN = "bzzz-node1", "bzzz-node2"
CAPTURE = Path(__file__).parents[1] / "fixtures/gpu/nvidia-smi-q-x.tesla-t4.xml"
MODELS = "/usr/share/ollama/.ollama/models"
STAND_IN = """\
#!/usr/bin/python3 -I
import http.server, json, os, sys
VERSION = "{version}"
if "broken" in VERSION:
    sys.exit("stand-in: broken on purpose")
class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        names = sorted(os.listdir(os.environ["OLLAMA_MODELS"])) if os.path.isdir(os.environ["OLLAMA_MODELS"]) else []
        said = {{"/api/version": {{"version": VERSION}}, "/api/tags": {{"models": [{{"name": name}} for name in names]}}}}[self.path]
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
host, _, port = os.environ["OLLAMA_HOST"].rpartition(":")
http.server.HTTPServer((host, int(port)), Answers).serve_forever()
"""
UNIT = f"""\
[Service]
ExecStart=/usr/local/bin/ollama serve
User=ollama
Restart=always
Environment=OLLAMA_HOST=127.0.0.1:11434 OLLAMA_MODELS={MODELS}
[Install]
WantedBy=multi-user.target
"""


@contextlib.contextmanager
def two_nodes(name: str, home: Path) -> Iterator[Tools]:
    lab = Lab(name)
    try:
        lab.down()  # what a killed run left
        lab.up(2)
    except Refusal as reason:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(reason))
    try:
        yield Tools(lab, home)
    finally:
        lab.down()


@pytest.fixture(scope="module")
def bzzz(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tools]:
    with two_nodes("install", tmp_path_factory.mktemp("home")) as bzzz:
        yield bzzz


def declared(bzzz: Tools, folder: Path, version: str, program: bytes = b"", **options: Any) -> Path:
    """An inventory folder that wants this version, with its archive in it."""
    wanted, archive = archived(version, program or STAND_IN.format(version=version).encode())
    bzzz.declare(folder, {**wanted, **options})
    (folder / wanted["ollama_archive_amd64"]).write_bytes(archive)
    return folder


def archived(version: str, program: bytes) -> tuple[dict[str, Any], bytes]:
    """What is to be declared of such a release, and its archive."""
    member = tarfile.TarInfo("bin/ollama")
    member.size, member.mode = len(program), 0o755
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.addfile(member, io.BytesIO(program))
    wanted = {"ollama_manage": "install", "ollama_version": version, "ollama_archive_amd64": f"ollama-{version}.tgz"}
    return {**wanted, "ollama_sha256_amd64": hashlib.sha256(packed.getvalue()).hexdigest()}, packed.getvalue()


def apply(bzzz: Tools, folder: Path, node: str, code: int = 0) -> dict[str, Any]:
    return bzzz.document("apply", "--only", "4", "--limit", node, folder=folder, code=code)


def ask(bzzz: Tools, node: str, path: str = "/api/version", port: int = 11434) -> Any:
    code = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())"
    return json.loads(bzzz.lab.exec(node, ["python3", "-c", code, f"http://127.0.0.1:{port}{path}"]).stdout)


def shell(bzzz: Tools, node: str, script: str) -> str:
    return bzzz.lab.exec(node, ["sh", "-c", script], check=False).stdout


def gpus(bzzz: Tools, node: str = OWN) -> tuple[str, str]:
    """Give the node nvidia-smi's stand-in, which tells what `tell` has left: at first two cards. Returns the text of one, and of two."""
    one = CAPTURE.read_text(encoding="utf-8")
    (card,) = re.findall(r"^ *<gpu id=.*?^ *</gpu>\n", one, re.DOTALL | re.MULTILINE)
    other = card.replace("GPU-d37e67a5", "GPU-00000000").replace("00000000:00:1E.0", "00000000:01:1E.0")
    two = one.replace(card, card + other).replace("<attached_gpus>1<", "<attached_gpus>2<")
    tell(bzzz, two, node)
    tool = "#!/bin/sh\ncase $1 in -q) cat /usr/local/share/gpus.xml;; esac\n"
    bzzz.lab.exec(node, ["sh", "-c", "cat > /usr/local/bin/nvidia-smi; chmod 755 /usr/local/bin/nvidia-smi"], stdin=tool)
    return one, two


def tell(bzzz: Tools, cards: str, node: str = OWN) -> None:
    bzzz.lab.exec(node, ["sh", "-c", "cat > /usr/local/share/gpus.xml"], stdin=cards)


@pytest.mark.requirement("3.3.1", "3.3.4", "3.5.3", "3.5.4", part="with a stand-in for Ollama")
def test_installed_changed_upgraded_and_put_back(bzzz: Tools, tmp_path: Path) -> None:
    first = declared(bzzz, tmp_path / "1", "1.0.0")
    bzzz.setup("plan", "--only", "4", "--limit", OWN, folder=first)  # check mode and diff on a fresh node
    assert shell(bzzz, OWN, "ls /opt/bzzz/ollama 2>/dev/null") == ""
    apply(bzzz, first, OWN)
    assert ask(bzzz, OWN) == {"version": "1.0.0"}
    shell(bzzz, OWN, "install -D -o ollama /dev/null /var/lib/bzzz-ollama/models/tiny")
    assert apply(bzzz, first, OWN)["changes"] == []

    better = {"ollama_num_parallel": 3, "ollama_gpu_overhead_mib": 512, "ollama_keep_alive": "1h", "ollama_memory_max_mib": 256}
    second = declared(bzzz, tmp_path / "2", "1.1.0", **better)
    report = apply(bzzz, second, OWN)
    assert ask(bzzz, OWN) == {"version": "1.1.0"} and {check["status"] for check in report["checks"]} <= {"pass", "skip"}
    environment = shell(bzzz, OWN, "tr '\\0' '\\n' </proc/$(systemctl show -P MainPID bzzz-ollama@0)/environ").splitlines()
    assert {"OLLAMA_NUM_PARALLEL=3", "OLLAMA_GPU_OVERHEAD=536870912", "OLLAMA_KEEP_ALIVE=1h"} <= set(environment)
    assert shell(bzzz, OWN, "systemd-analyze verify bzzz-ollama@0.service 2>&1 | grep ollama") == ""

    broken = apply(bzzz, declared(bzzz, tmp_path / "3", "1.2.0-broken"), OWN, code=3)
    told = json.dumps(broken["failures"])
    assert "broken on purpose" in told and "correct ollama_version" in told and "as it was before" in told, told
    assert ask(bzzz, OWN) == {"version": "1.1.0"} and ask(bzzz, OWN, "/api/tags") == {"models": [{"name": "tiny"}]}
    assert shell(bzzz, OWN, "systemctl is-enabled bzzz-ollama@0").strip() == "enabled"
    assert apply(bzzz, second, OWN)["failures"] == [] and ask(bzzz, OWN) == {"version": "1.1.0"}


@pytest.mark.requirement("3.3.2")
def test_parallama_is_asked_for_takes_over_and_is_put_back(bzzz: Tools, tmp_path: Path) -> None:
    """Nobody has published it, so the archive is the stand-in's: that it is asked for and what the role does with it is what is tested."""
    nothing = bzzz.declare(tmp_path / "0", {"ollama_manage": "install", "ollama_version": "1.0.0", "ollama_flavor": "parallama"})
    problems = bzzz.document("check", folder=nothing, code=2)["problems"]
    assert [(one["value"], one["remedy"]) for one in problems if one["option"] == "ollama_flavor"] == [
        ("parallama", "Set ollama_archive_amd64 to your archive, and ollama_sha256_amd64.")
    ], problems

    def running() -> str:
        return shell(bzzz, OWN, "readlink /opt/bzzz/ollama/current; cut -d/ -f6 /proc/$(systemctl show -P MainPID bzzz-ollama@0)/cmdline")

    plain = declared(bzzz, tmp_path / "1", "1.1.0")
    apply(bzzz, plain, OWN)
    shell(bzzz, OWN, "install -D -o ollama /dev/null /var/lib/bzzz-ollama/models/mine")
    apply(bzzz, declared(bzzz, tmp_path / "2", "1.1.1-broken", ollama_flavor="parallama"), OWN, code=3)
    assert "/ollama-1.1.0-" in running() and ask(bzzz, OWN) == {"version": "1.1.0"}
    forked = declared(bzzz, tmp_path / "3", "1.1.1", ollama_flavor="parallama")
    apply(bzzz, forked, OWN)
    assert "/parallama-1.1.1-" in running() and ask(bzzz, OWN) == {"version": "1.1.1"}
    assert apply(bzzz, forked, OWN)["changes"] == []
    apply(bzzz, plain, OWN)
    assert "/ollama-1.1.0-" in running() and {"name": "mine"} in ask(bzzz, OWN, "/api/tags")["models"]


@pytest.mark.requirement("3.4.5", "3.5.2", "3.5.5", part="with stand-ins for Ollama and nvidia-smi")
def test_one_instance_per_gpu_and_one_that_fails(bzzz: Tools, tmp_path: Path) -> None:
    one, two = gpus(bzzz)
    folder = declared(bzzz, tmp_path / "gpus", "1.1.0", ollama_instances="per_gpu", ollama_gpu_check_seconds=1)
    report = apply(bzzz, folder, OWN)
    assert {check["status"] for check in report["checks"]} <= {"pass", "skip"}
    for number, uuid in enumerate(("GPU-d37e67a5", "GPU-00000000")):
        assert ask(bzzz, OWN, port=11434 + number) == {"version": "1.1.0"}
        environment = shell(bzzz, OWN, f"tr '\\0' '\\n' </proc/$(systemctl show -P MainPID bzzz-ollama@{number})/environ")
        assert f"CUDA_VISIBLE_DEVICES={uuid}" in environment

    # One falls off the bus, and is put back.
    def states() -> str:
        return shell(bzzz, OWN, "systemctl is-active bzzz-ollama@0 bzzz-ollama@1; systemctl show -P MainPID bzzz-ollama@0")

    well = states()
    tell(bzzz, one)
    wait_for("stop of its instance", lambda: states().split()[1] == "inactive", seconds=60)
    assert states().split()[2] == well.split()[2], "the other instance goes on"
    assert "GPU-00000000" in shell(bzzz, OWN, "journalctl -p crit -u bzzz-ollama-gpus --no-pager")
    # The declaration counts what is there: the failed one is told by the check.
    told = bzzz.document("verify", "--limit", OWN, folder=folder, code=None)
    (check,) = [check for check in told["checks"] if check["id"] == "ollama-gpus"]
    assert check["status"] == "fail" and "GPU-00000000" in check["seen"] and "dmesg" in check["remedy"], check
    tell(bzzz, two)
    wait_for("start of its instance", lambda: states() == well, seconds=60)
    assert apply(bzzz, folder, OWN)["changes"] == []

    # One instance that has all of them goes on with the rest.
    apply(bzzz, declared(bzzz, tmp_path / "one", "1.1.0", ollama_gpu_check_seconds=1), OWN)
    tell(bzzz, one)
    visible = "tr '\\0' '\\n' </proc/$(systemctl show -P MainPID bzzz-ollama@0)/environ | grep VISIBLE"
    wait_for("restart with the rest", lambda: shell(bzzz, OWN, visible).startswith("CUDA_VISIBLE_DEVICES=GPU-d37e67a5"), seconds=60)
    assert ask(bzzz, OWN) == {"version": "1.1.0"}


@pytest.mark.requirement("3.3.3", "3.3.4", part="migration, with a stand-in for Ollama")
def test_another_ones_place_is_taken_only_when_asked(bzzz: Tools, tmp_path: Path) -> None:
    program = STAND_IN.format(version="0.9.0")
    bzzz.lab.exec(FOREIGN, ["sh", "-c", "cat > /usr/local/bin/ollama; chmod 755 /usr/local/bin/ollama"], stdin=program)
    bzzz.lab.exec(FOREIGN, ["sh", "-c", "cat > /etc/systemd/system/ollama.service"], stdin=UNIT)
    shell(bzzz, FOREIGN, f"useradd -r -s /bin/false -U -d /usr/share/ollama ollama; install -D /dev/null {MODELS}/theirs")
    shell(bzzz, FOREIGN, "chown -R ollama: /usr/share/ollama; systemctl enable --now ollama")

    refused = bzzz.setup("apply", "--only", "4", "--limit", FOREIGN, folder=declared(bzzz, tmp_path / "1", "1.0.0"), code=2)
    assert "ollama_migrate: true" in re.sub(r"\s+", " ", refused.stdout + refused.stderr)
    assert ask(bzzz, FOREIGN) == {"version": "0.9.0"}

    migrate = {"ollama_migrate": True, "ollama_models_path": MODELS}
    apply(bzzz, declared(bzzz, tmp_path / "2", "1.0.0-broken", **migrate), FOREIGN, code=3)
    assert shell(bzzz, FOREIGN, "systemctl is-active ollama; systemctl is-enabled ollama").split() == ["active", "enabled"]
    assert ask(bzzz, FOREIGN) == {"version": "0.9.0"}

    good = declared(bzzz, tmp_path / "3", "1.0.0", **migrate)
    apply(bzzz, good, FOREIGN)
    assert ask(bzzz, FOREIGN) == {"version": "1.0.0"} and ask(bzzz, FOREIGN, "/api/tags") == {"models": [{"name": "theirs"}]}
    assert shell(bzzz, FOREIGN, "systemctl is-active ollama; systemctl is-enabled ollama").split() == ["inactive", "disabled"]
    assert apply(bzzz, good, FOREIGN)["changes"] == []
