# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Models on nodes: pulled once, copied to the other node, refused, removed, and gone on with after a kill.

Ollama and registry are stand-ins with a real store and real digests: see ollama_store.py.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ollama
import ollama_store
import pki
import pytest
from conftest import Tools
from cryptography import x509
from trouble import eventually

from bzzz_setup.declaration import HOSTS, VAULT, dump, load, write
from bzzz_setup.events import Refusal
from bzzz_setup.lab import Lab

pytestmark = pytest.mark.alone
FIRST, SECOND = "bzzz-node1", "bzzz-node2"
STORE = "/var/lib/bzzz-ollama/models"
GEOMETRY = {"layers": 1, "embedding": 64, "heads": 4, "heads_kv": 4}
HUGE = 1 << 50
MODELS = {"slow": ollama_store.model(random.Random("slow").randbytes(4 << 20), "slow")}
with tempfile.TemporaryDirectory() as _folder:
    ollama.model(Path(_folder))
    _file = Path(_folder, "tiny.gguf").read_bytes()
# A real header, and more weights than it tells of.
MODELS["tiny"] = ollama_store.model(_file + random.Random("tiny").randbytes((6 << 20) - len(_file)), "tiny")
# Whose manifest alone is ever asked for.
MODELS["huge"] = ollama_store.model(b"", "huge", HUGE)


# Opens the node's Ollama to everybody at an address.
FORWARD = """
import asyncio, sys
async def pipe(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
async def serve(reader, writer):
    there, back = await asyncio.open_connection("127.0.0.1", 11434)
    await asyncio.gather(pipe(reader, back), pipe(there, writer))
async def main():
    await (await asyncio.start_server(serve, sys.argv[1], 11434)).serve_forever()
asyncio.run(main())
"""


@pytest.fixture(scope="module")
def bzzz(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tools]:
    lab = Lab("pull")
    kept = os.environ.get("BZZZ_TEST_LAB") == "pull"
    try:
        if not (kept and lab.nodes):
            lab.down()  # what a killed run left
            lab.up(2)
    except Refusal as reason:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(reason))
    try:
        registry(lab, FIRST, MODELS)
        certificates(lab)
        yield Tools(lab, tmp_path_factory.mktemp("home"))
    finally:
        if not kept:
            lab.down()


def newer() -> ollama_store.Model:
    """Another one by the name of tiny."""
    return ollama_store.model(max(MODELS["tiny"].blobs.values(), key=len) + bytes(1 << 20), "tiny")


def registry(lab: Lab, node: str, models: dict[str, ollama_store.Model]) -> None:
    """Serve the models on a node's port 5000, their blobs by another name of it."""
    (address,) = (one.address for one in lab.nodes if one.name == node)
    for one in lab.nodes:
        lab.exec(one.name, ["sh", "-c", f"grep -q blobs.example /etc/hosts || echo {address} blobs.example >> /etc/hosts"])
    lab.exec(node, ["mkdir", "-p", "/srv/registry"])
    for model in models.values():
        for digest, content in model.blobs.items():
            lab.exec(node, ["sh", "-c", f"base64 -d > /srv/registry/{digest}"], stdin=base64.b64encode(content).decode())
    listed = {f"tests/{name}:latest": base64.b64encode(model.manifest).decode() for name, model in models.items()}
    lab.exec(node, ["tee", "/srv/registry/models.json"], stdin=json.dumps(listed))
    lab.exec(
        node, ["sh", "-c", "systemctl stop registry; rm -f /srv/registry/asked /srv/registry/described /srv/registry/fast"], check=False
    )
    lab.exec(node, ["systemd-run", "--unit=registry", "python3", "-c", ollama_store.REGISTRY])


def certificates(lab: Lab) -> None:
    """What step 3 leaves on the nodes; test_with_firewall_and_certificates has it make them."""
    authority = pki.issue("authority")
    for node in (FIRST, SECOND):
        usage = [x509.ExtendedKeyUsageOID.SERVER_AUTH, x509.ExtendedKeyUsageOID.CLIENT_AUTH]
        mine = pki.issue(node, authority, node, "localhost", usage=usage)
        files = {"ca.crt": authority.pem, "node.crt": mine.pem, "node.key": mine.key_pem()}
        for name, content in files.items():
            lab.exec(node, ["sh", "-c", f"mkdir -p /etc/bzzz/tls; cat > /etc/bzzz/tls/{name}"], stdin=content)


def named(bzzz: Tools, name: str) -> str:
    (address,) = (node.address for node in bzzz.lab.nodes if node.name == FIRST)
    return f"{address}:5000/tests/{name}:latest"


def wanted(bzzz: Tools, name: str, **wishes: Any) -> dict[str, Any]:
    return {"name": named(bzzz, name), "insecure": True, "gpu": "never", **wishes}


def declared(bzzz: Tools, folder: Path, models: list[dict[str, Any]], program: bytes | None = None, **more: Any) -> Path:
    """An inventory folder that wants these models, and the stand-in for Ollama, or the real one."""
    archive = ollama_store.archive(program) if program else ollama_store.archive()
    options = {
        "ollama_manage": "install",
        "ollama_version": ollama.VERSION if program else "1.0.0",
        "ollama_archive_amd64": "ollama.tgz",
        "ollama_sha256_amd64": hashlib.sha256(archive).hexdigest(),
        "firewall_open_ports": ["5000/tcp"],
        "network_egress": [],
        "models_ram_reserve_mib": 0,
        "models_wanted": models,
        **more,
    }
    bzzz.declare(folder, options)
    (folder / "ollama.tgz").write_bytes(archive)
    return folder


def without(part: Any, name: str) -> Any:
    """An inventory without a node."""
    return {key: without(value, name) for key, value in part.items() if key != name} if isinstance(part, dict) else part


def asked(bzzz: Tools) -> list[list[str]]:
    """Blobs that the registry was asked for, from where on, and by whom."""
    said = bzzz.lab.exec(FIRST, ["cat", "/srv/registry/asked"], check=False).stdout
    return [line.split() for line in said.splitlines()]


def changes(report: dict[str, Any]) -> dict[tuple[str, str], str]:
    return {(one["node"], one["name"].partition("/tests/")[2]): one["what"] for one in report["models"]}


def pulled_and_copied(bzzz: Tools) -> None:
    """One node has pulled, and the other has copied."""
    assert sorted(digest for digest, _start, _who in asked(bzzz)) == sorted(MODELS["tiny"].blobs), "one download for two nodes"
    for node in (FIRST, SECOND):
        there = bzzz.lab.exec(node, ["sh", "-c", f"cd {STORE}/blobs && stat -c '%U %n' * && sha256sum *"]).stdout
        for digest in MODELS["tiny"].blobs:
            assert f"ollama {digest.replace(':', '-')}" in there and digest.partition(":")[2] + "  " in there, there
        assert ".bzzz" not in there
        listening = bzzz.lab.exec(node, ["ss", "-Hltn", "sport = 8085"]).stdout
        assert listening == "", "nothing is served any more"


@pytest.mark.requirement("3.6.3", "3.6.1", "3.6.5", "3.4.3", part="with a stand-in for Ollama")
@pytest.mark.requirement("3.6.2", part="planned by what the registry tells, on nodes")
def test_pulled_once_and_copied(bzzz: Tools, tmp_path: Path) -> None:
    # Nothing is declared of what it is made of: the registry tells.
    folder = declared(bzzz, tmp_path / "tiny", [wanted(bzzz, "tiny", replicas=2, update="schedule")])
    outlook = bzzz.document("models", "plan", folder=folder)
    assert outlook["unknown"] == [] and [placed["model"] for placed in outlook["placed"]] == [named(bzzz, "tiny")] * 2
    # 256 tokens, which is all that it can read, of one layer: keys and values of 256 numbers of two bytes each; its files are 6 MiB and
    # a few hundred bytes.
    assert {node["memory"]["cache_bytes"] for node in outlook["nodes"].values()} == {256 * 2 * 256 * 2}
    assert 6 << 20 <= outlook["placed"][0]["disk_bytes"] < (6 << 20) + 1000
    planned = [one["what"] for one in bzzz.document("plan", "--only", "4", folder=folder)["changes"] if one["kind"] == "model"]
    assert sorted(what[: len("would be copied from bzzz")] for what in planned) == ["would be copied from bzzz", "would be pulled, 6.0 MiB"]
    bzzz.setup("apply", "--only", "4", folder=folder)
    pulled_and_copied(bzzz)
    described = bzzz.lab.exec(FIRST, ["cat", "/srv/registry/described"]).stdout.splitlines()
    assert len(described) == 3, "one node asks once in each run that has to know: plan of models, plan, apply"
    again = bzzz.document("models", "pull", folder=folder)
    assert again["models"] == [] and {check["status"] for check in again["checks"]} == {"pass"}, again["checks"]

    found = bzzz.document("models", "list", folder=folder)
    assert found["discovered"] == found["looked_in"] == [], "nobody is sought unasked"
    name, digest = named(bzzz, "tiny"), MODELS["tiny"].digest
    assert [(one["node"], one["model"], one["digest"], one["loaded_bytes"]) for one in found["models"]] == [
        (node, name, digest, None) for node in (FIRST, SECOND)
    ]
    update = "systemctl start bzzz-models-update && journalctl -u bzzz-models-update -o cat"
    for before, said in (("true", f"as it was, {digest}"), (f"rm -r {STORE}/manifests/*", f"{digest}, was None")):
        updated = bzzz.lab.exec(SECOND, ["sh", "-c", f"{before} && {update}"]).stdout
        assert f"{name}: {said}" in updated, updated
    for now, before in ((newer(), MODELS["tiny"]), (MODELS["tiny"], newer())):
        registry(bzzz.lab, FIRST, {**MODELS, "tiny": now})
        updated = bzzz.lab.exec(SECOND, ["sh", "-c", update]).stdout
        assert f"{name}: {now.digest}, was {before.digest}" in updated, updated
        assert {one["node"]: one["digest"] for one in bzzz.document("models", "list", folder=folder)["models"]}[SECOND] == now.digest
    assert len(bzzz.document("models", "list", folder=folder)["models"]) == 2, "pulled anew, by the timer's service"
    assert "bzzz-models-update.timer" in bzzz.lab.exec(SECOND, ["systemctl", "list-timers"]).stdout


def found_on_the_subnet(bzzz: Tools, folder: Path, model: str) -> Path:
    """Have the second node's Ollama, of a node that is not declared and with an address of its own, be found; returns the declaration."""
    bzzz.declare(folder, {"network_egress": [], "network_subnet": str(bzzz.lab.subnet)})
    write(folder / HOSTS, dump(without(load((folder / HOSTS).read_text(encoding="utf-8")), SECOND)))
    (folder / f"host_vars/{SECOND}.yml").unlink(missing_ok=True)
    (address,) = (node.address for node in bzzz.lab.nodes if node.name == SECOND)
    bzzz.lab.exec(SECOND, ["systemd-run", "--unit=open", "python3", "-c", FORWARD, address])
    eventually("it is open", lambda: bzzz.lab.exec(SECOND, ["ss", "-Hltn", "src", f"{address}:11434"]).stdout, 20)
    try:
        found = bzzz.document("models", "list", "--discover", folder=folder)
        assert [one["endpoint"] for one in found["discovered"]] == [f"http://{address}:11434"], found
        assert model in found["discovered"][0]["models"] and found["looked_in"] == [str(bzzz.lab.subnet)]
    finally:
        bzzz.lab.exec(SECOND, ["systemctl", "stop", "open"])
    return folder


@pytest.mark.requirement("3.4.1", part="on the cluster's subnet, from a node, with a stand-in for Ollama")
def test_an_ollama_of_nobody_is_found_on_the_subnet(bzzz: Tools, tmp_path: Path) -> None:
    folder = found_on_the_subnet(bzzz, tmp_path / "alone", named(bzzz, "tiny"))
    wide = bzzz.document("models", "list", "--discover", "--subnet", "10.0.0.0/8", folder=folder, code=3)
    assert "16777216 addresses" in wide["failures"][0]["message"]


@pytest.mark.requirement("3.6.4", "3.6.5", part="with a stand-in for Ollama")
def test_refused_before_anything_is_pulled(bzzz: Tools, tmp_path: Path) -> None:
    models = [wanted(bzzz, "slow", nodes=[FIRST], digest="0" * 64), wanted(bzzz, "huge", nodes=[SECOND])]
    refused = bzzz.document("models", "pull", folder=declared(bzzz, tmp_path / "no", models), code=3)
    said = {failure["node"]: failure["message"] for failure in refused["failures"]}
    assert "0" * 64 in said[FIRST] and MODELS["slow"].digest in said[FIRST], said
    assert re.search(r"1048576\.0 GiB are needed .*, and \d+\.\d GiB are free in /var/lib/bzzz-ollama/models", said[SECOND]), said
    assert not any(digest in MODELS[name].blobs for digest, _start, _who in asked(bzzz) for name in ("slow", "huge")), "nothing was pulled"


@pytest.mark.requirement("3.6.3", part="progress, and killed half-way, with a stand-in for Ollama")
def test_killed_and_gone_on_with(bzzz: Tools, tmp_path: Path) -> None:
    folder = declared(bzzz, tmp_path / "slow", [wanted(bzzz, "slow", nodes=[FIRST], digest=MODELS["slow"].digest)])
    argv = ["bzzz-setup", "-i", str(folder), "models", "pull"]
    told = tmp_path / "told"
    with told.open("w") as out:
        environment = bzzz.environment(PYTHONUNBUFFERED="1")
        running = subprocess.Popen(argv, env=environment, start_new_session=True, stdout=out, stderr=subprocess.STDOUT)
    weights = next(digest for digest, content in MODELS["slow"].blobs.items() if len(content) > 1 << 20)
    until = time.monotonic() + 60
    while bzzz.lab.exec(FIRST, ["sh", "-c", f"test $(stat -c %s {STORE}/blobs/*-partial) -gt 500000"], check=False).returncode:
        assert time.monotonic() < until and running.poll() is None, told.read_text()
        time.sleep(0.2)
    while not re.search(r"… bzzz-node\d: \S+tests/slow:latest \d+ % of 4.0 MiB", told.read_text()):
        assert time.monotonic() < until and running.poll() is None, told.read_text()
        time.sleep(0.2)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    bzzz.lab.exec(FIRST, ["systemctl", "restart", "bzzz-ollama@0"])
    bzzz.lab.exec(FIRST, ["touch", "/srv/registry/fast"])
    done = bzzz.document("models", "pull", folder=folder)
    assert changes(done) == {(FIRST, "slow:latest"): "pulled, 4.0 MiB"}
    starts = [int(start) for digest, start, _who in asked(bzzz) if digest == weights]
    assert len(starts) == 2 and starts[1] >= 500000, "it went on from where it was"
    assert "slow" in bzzz.lab.exec(FIRST, ["cat", "/etc/bzzz/models/models.json"]).stdout


@pytest.mark.requirement("3.6.5", part="prune, with a stand-in for Ollama")
def test_removed_by_choice_only(bzzz: Tools, tmp_path: Path) -> None:
    slow = wanted(bzzz, "slow", nodes=[FIRST])
    folder = declared(bzzz, tmp_path / "prune", [slow], models_prune=True)
    would = changes(bzzz.document("models", "pull", "--check", folder=folder))
    assert would == {(node, "tiny:latest"): "removed, 6.0 MiB" for node in (FIRST, SECOND)}
    assert changes(bzzz.document("models", "pull", folder=folder)) == would
    assert [one["model"] for one in bzzz.document("models", "list", folder=folder)["models"]] == [named(bzzz, "slow")]


@pytest.mark.requirement("3.6.3", part="by the declared proxy and its password, with a stand-in for Ollama")
def test_pulled_by_the_declared_proxy(bzzz: Tools, tmp_path: Path) -> None:
    """Only the proxy knows where the registry is."""
    login = "anna:p@ss-canary"
    bzzz.lab.exec(FIRST, ["sh", "-c", "grep -q registry.example /etc/hosts || echo 127.0.0.1 registry.example >> /etc/hosts"])
    bzzz.lab.exec(FIRST, ["systemd-run", "--unit=proxy", "python3", "-c", ollama_store.PROXY, login])
    (address,) = (node.address for node in bzzz.lab.nodes if node.name == FIRST)
    name = "registry.example:5000/tests/slow:latest"
    one = {"name": name, "insecure": True, "gpu": "never", "nodes": [SECOND]}
    proxy = {"downloads_http_proxy": f"http://{address}:3128", "downloads_on_admin_host": False}
    folder = declared(bzzz, tmp_path / "proxied", [one], **proxy)
    write(folder / VAULT, dump({"downloads_proxy_credentials": login}), 0o600)
    try:
        bzzz.setup("apply", "--only", "4", folder=folder)
        assert name in [found["model"] for found in bzzz.document("models", "list", folder=folder)["models"]]
        seen = bzzz.lab.exec(FIRST, ["cat", "/srv/registry/proxied"]).stdout
        assert "registry.example:5000/v2/tests/slow/manifests/latest" in seen and "blobs.example:5000/v2/tests/slow/blobs/" in seen, seen
        assert bzzz.lab.exec(SECOND, ["stat", "-c", "%a %U", "/etc/bzzz/ollama/proxy.env"]).stdout == "600 root\n"
        assert "canary" not in bzzz.lab.exec(SECOND, ["sh", "-c", "systemctl cat 'bzzz-ollama@0'; cat /etc/bzzz/models/*"]).stdout
        assert bzzz.document("apply", "--only", "4", folder=folder)["changes"] == []
    finally:
        bzzz.lab.exec(FIRST, ["systemctl", "stop", "proxy"])


@pytest.mark.slow
@pytest.mark.requirement("3.4.1", "3.4.3", "3.6.1", "3.6.3", "3.6.4", "3.6.5")
@pytest.mark.requirement("F8", part="tokens a second of a real Ollama's model")
def test_a_real_ollama(bzzz: Tools, tmp_path: Path) -> None:
    """All of it with Ollama itself: refused with figures, planned, pulled once with progress, copied, updated, listed and removed."""
    try:
        program = ollama.binary().read_bytes()
    except ollama.Unbuildable as reason:
        pytest.skip(str(reason))
    for node in (FIRST, SECOND):
        bzzz.lab.exec(node, ["sh", "-c", f"systemctl stop 'bzzz-ollama@*'; rm -rf {STORE}/blobs/* {STORE}/manifests/*"])
    ollama.model(tmp_path)
    weights = (tmp_path / "tiny.gguf").read_bytes()
    real = ollama_store.model(weights + bytes((5 << 20) - len(weights)), "slow")  # more than is read by who plans
    registry(bzzz.lab, FIRST, {"slow": real, "huge": MODELS["huge"]})

    # Declared for nodes, and refused before anything is fetched: another digest, and what there is no room for.
    wishes = [wanted(bzzz, "slow", nodes=[FIRST], digest="0" * 64), wanted(bzzz, "huge", nodes=[SECOND])]
    folder = declared(bzzz, tmp_path / "refused", wishes, program)
    said = {one["node"]: one["message"] for one in bzzz.document("apply", "--only", "4", folder=folder, code=3)["failures"]}
    assert "0" * 64 in said[FIRST] and real.digest in said[FIRST], said
    assert re.search(r"1048576\.0 GiB are needed .*, and \d+\.\d GiB are free in /var/lib/bzzz-ollama/models", said[SECOND]), said
    assert asked(bzzz) == []

    # Planned for both, by what the registry tells; pulled by one of them, with progress, and copied to the other.
    one = wanted(bzzz, "slow", replicas=2, update="schedule")
    folder = declared(bzzz, tmp_path / "real", [one], program)
    assert {placed["node"] for placed in bzzz.document("models", "plan", folder=folder)["placed"]} == {FIRST, SECOND}
    pulled = bzzz.setup("models", "pull", folder=folder).stdout
    assert re.search(r"… bzzz-node\d: \S+tests/slow:latest \d+ % of \d\.\d MiB", pulled), pulled
    assert len({who for _digest, _start, who in asked(bzzz)}) == 1 and pulled.count("copied from bzzz-node") == 1, pulled
    assert bzzz.document("models", "pull", folder=folder)["models"] == []

    found = bzzz.document("models", "list", folder=folder)["models"]
    assert [(item["node"], item["digest"], item["loaded_bytes"]) for item in found] == [
        (node, real.digest, None) for node in (FIRST, SECOND)
    ]
    body = json.dumps({"model": named(bzzz, "slow"), "prompt": "a", "stream": False})
    code = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], sys.stdin.buffer.read()).read().decode())"
    for node in (FIRST, SECOND):
        answer = json.loads(bzzz.lab.exec(node, ["python3", "-c", code, "http://127.0.0.1:11434/api/generate"], stdin=body).stdout)
        assert answer["done"] and answer["eval_count"] > 0, answer
    assert all(item["loaded_bytes"] for item in bzzz.document("models", "list", folder=folder)["models"])
    updated = bzzz.lab.exec(SECOND, ["sh", "-c", "systemctl start bzzz-models-update && journalctl -u bzzz-models-update -o cat"]).stdout
    assert f"{named(bzzz, 'slow')}: as it was, {real.digest}" in updated, updated
    moved = ollama_store.model(weights + bytes((6 << 20) - len(weights)), "slow")
    registry(bzzz.lab, FIRST, {"slow": moved, "huge": MODELS["huge"]})
    updated = bzzz.lab.exec(SECOND, ["sh", "-c", "systemctl start bzzz-models-update && journalctl -u bzzz-models-update -o cat"]).stdout
    assert f"{named(bzzz, 'slow')}: {moved.digest}, was {real.digest}" in updated, updated
    listed = {item["node"]: item["digest"] for item in bzzz.document("models", "list", folder=folder)["models"]}
    assert listed == {FIRST: real.digest, SECOND: moved.digest}, "each node at its own time"

    # Measured where a minimum is declared; what was not loaded is not afterwards. Other checks fail: nothing else of a cluster is here.
    for node in (FIRST, SECOND):
        bzzz.lab.exec(node, ["sh", "-c", "systemctl restart 'bzzz-ollama@0'"])
    fast = declared(bzzz, tmp_path / "fast", [one], program, validation_model_min_tokens_per_second=0.01)
    rates = {check["node"]: check for check in bzzz.document("verify", folder=fast, code=1)["checks"] if check["id"] == "bench_models"}
    assert {node: check["status"] for node, check in rates.items()} == {FIRST: "pass", SECOND: "pass"}, rates
    assert all(f"({named(bzzz, 'slow')} " in check["seen"] for check in rates.values())
    eventually(
        "unloaded models",
        lambda: not any(item["loaded_bytes"] for item in bzzz.document("models", "list", folder=folder)["models"]),
        30,
    )

    found_on_the_subnet(bzzz, tmp_path / "alone", named(bzzz, "slow"))

    # Only by choice.
    kept = bzzz.document("models", "pull", folder=declared(bzzz, tmp_path / "kept", [], program))
    assert kept["models"] == []
    gone = bzzz.document("models", "pull", folder=declared(bzzz, tmp_path / "gone", [], program, models_prune=True))
    assert [one["what"].partition(",")[0] for one in gone["models"]] == ["removed", "removed"]
    assert bzzz.lab.exec(SECOND, ["sh", "-c", f"ls {STORE}/blobs"]).stdout == "", "Ollama has removed its blobs"


@pytest.mark.slow
@pytest.mark.requirement("3.6.3", part="through the firewall, with the cluster's certificates and a stand-in for Ollama")
def test_with_firewall_and_certificates(bzzz: Tools, tmp_path: Path) -> None:
    """The last: what is looked for on the subnet is behind the firewall then."""
    for node in (FIRST, SECOND):
        bzzz.lab.exec(node, ["sh", "-c", f"rm -rf /etc/bzzz/tls /srv/registry/asked; cd {STORE} && rm -rf blobs/* manifests/*"])
    tiny = wanted(bzzz, "tiny", replicas=2, size_mib=7, geometry=GEOMETRY, overhead_mib=0)
    folder = declared(bzzz, tmp_path / "all", [tiny])
    bzzz.setup("apply", "--only", "2", "--only", "3", "--only", "4", folder=folder)
    pulled_and_copied(bzzz)
    assert "8085" in bzzz.lab.exec(SECOND, ["nft", "list", "table", "inet", "bzzz"]).stdout
