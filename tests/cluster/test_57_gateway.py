# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The AI gateway on a real coordinator, with LiteLLM from its release and the other nodes' real Ollamas behind it.

OpenAI's servers are stood in for, by a program on the node.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gateway
import leaks
import ollama
import pytest
import requests
from conftest import Tools
from rest import Api, wait_for

from bzzz_setup import release
from bzzz_setup.declaration import VAULT, dump, write
from bzzz_setup.lab import CHECKOUT

pytestmark = pytest.mark.slow
# The stand-in's; a key of its own would be refused there.
KEY = "sk-stand-in-0123456789abcdef"
ANNA = "lab-anna"
# What the stand-in has answered, by its own count.
ASK = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:4999/stand-in').read().decode())"
# With it the tiny model is one that takes tools; their description would be more than it can hold.
TEMPLATE = "{{ if .Tools }}t{{ end }}{{ range .Messages }}{{ .Content }}{{ end }}"
# OpenAI's own client.
CLIENT = """
import json, sys
import httpx, openai
url, token, ca = sys.argv[1:]
client = openai.OpenAI(base_url=url, api_key=token, max_retries=0, timeout=120, http_client=httpx.Client(verify=ca, trust_env=False))
ask = {"model": "local", "messages": [{"role": "user", "content": "How are you?"}], "max_tokens": 5}
plain = client.chat.completions.create(**ask)
pieces = list(client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}
tools = client.chat.completions.create(**ask, tools=[tool])
vectors = client.embeddings.create(model="local", input=["a", "b"])
print(json.dumps({
    "plain": plain.usage.completion_tokens, "pieces": len([piece for piece in pieces if piece.choices]),
    "stream": [piece.usage.completion_tokens for piece in pieces if piece.usage], "tools": tools.usage.completion_tokens,
    "vectors": [len(each.embedding) for each in vectors.data], "vector_tokens": vectors.usage.prompt_tokens,
}))
"""
METRICS = """
import ssl, sys, urllib.request
context = ssl.create_default_context(cafile="/etc/bzzz/tls/ca.crt")
context.load_cert_chain("/etc/bzzz/tls/node.crt", "/etc/bzzz/tls/node.key")
print(urllib.request.urlopen(f"https://{sys.argv[1]}:4001/metrics", context=context).read().decode())
"""
OPTIONS: dict[str, Any] = {
    "gateway_enabled": True,
    "gateway_release_index": "releases/index.json",
    "gateway_default_model": "gpt-4o-mini",
    "gateway_models": [
        {"name": "away", "model": "gpt-4o-mini", "endpoint": "nowhere"},
        {"name": "brief", "model": "gpt-4o-mini", "parameters": {"max_tokens": 5, "timeout": 30}},
        {"name": "local", "model": "tiny", "endpoint": "cluster"},
    ],
    "gateway_endpoints": [{"name": "nowhere", "url": "http://127.0.0.1:9/v1"}],
    "gateway_fallbacks": {"away": ["gpt-4o-mini"], "local": ["gpt-4o-mini"]},
    "gateway_tasks": {"coding": "gpt-4o-mini"},
    "gateway_members": {ANNA: ["search"]},
    "openai_base_url": "http://127.0.0.1:4999/v1",
    "openai_organization": "org-lab",
    "openai_projects": {"search": "proj_lab"},
    "cost_time_zone": "Europe/Berlin",
}


@pytest.fixture(scope="module")
def folder(cluster: Tools, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An inventory folder with the gateway on; the release is made once a checkout, which takes minutes."""
    node = cluster.nodes[0]
    python = cluster.lab.exec(node, ["python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]).stdout.strip()
    made = release.build(python=python, product=release.GATEWAY_PRODUCT)
    folder = cluster.declare(tmp_path_factory.mktemp("gateway") / "inventory", OPTIONS)
    shutil.copytree(made.parent, folder / "releases")
    write(folder / VAULT, dump({"openai_api_key": KEY, "gateway_endpoint_keys": "nowhere=sk-of-nowhere-0123456789"}), 0o600)
    cluster.lab.exec(node, ["tee", "/opt/openai_standin.py"], stdin=(CHECKOUT / "tests/openai_standin.py").read_text())
    cluster.lab.exec(node, ["chmod", "600", "/opt/openai_standin.py"])  # it knows the key
    cluster.lab.exec(node, ["systemd-run", "--unit=openai-standin", "python3", "/opt/openai_standin.py", "4999"])
    try:
        program = ollama.binary()
    except ollama.Unbuildable as reason:
        pytest.skip(str(reason))
    for other in cluster.nodes[1:]:
        ollama.install(cluster.lab, other, program, TEMPLATE)
    yield folder
    for other in cluster.nodes[1:]:
        ollama.remove(cluster.lab, other)
    cluster.lab.exec(node, ["sh", "-c", "systemctl stop openai-standin; rm /opt/openai_standin.py"])
    cluster.setup("apply", "--only", "2,4,6")


def rows(cluster: Tools, node: str) -> list[dict[str, Any]]:
    """The ledger's, oldest first."""
    script = """
import json, sqlite3
found = sqlite3.connect("/var/lib/bzzz-gateway/ledger.sqlite")
found.row_factory = sqlite3.Row
print(json.dumps([dict(row) for row in found.execute("select * from calls order by rowid")], default=str))
"""
    answer: list[dict[str, Any]] = json.loads(cluster.lab.exec(node, ["python3", "-"], stdin=script).stdout)
    return answer


@pytest.mark.requirement("3.1.1", part="from the vault to one file of the gateway's node")
@pytest.mark.requirement("3.1.2", part="by step 4 on the gateway's node, before a stand-in for OpenAI")
@pytest.mark.requirement("3.1.4", part="in Prometheus' words, by the role")
@pytest.mark.requirement("4.3.2", part="from the ledger on the gateway's node")
@pytest.mark.requirement("3.1.3", part="by the role, before a stand-in for OpenAI")
@pytest.mark.requirement("3.2.1", part="by the role, before a stand-in for OpenAI; with another default model")
@pytest.mark.requirement("3.2.2", part="by the role, before a stand-in for OpenAI")
@pytest.mark.requirement("3.2.3", part="by the role: most tokens")
@pytest.mark.requirement("3.2.4", part="by the role: an endpoint that is down")
@pytest.mark.requirement("3.4.2", part="by the role: URL and key")
@pytest.mark.requirement("4.1.1", part="by the role, before a stand-in for OpenAI")
def test_the_gateway_answers_counts_and_refuses(cluster: Tools, folder: Path, tmp_path: Path) -> None:
    node, api = cluster.nodes[0], Api(cluster, tmp_path)
    home = cluster.home
    with leaks.Watch({"key": KEY}, home) as watch:
        done = cluster.document("apply", "--only", "2,4,6", folder=folder)
    status = {check["id"]: check["status"] for check in done["checks"]}
    assert status.pop("gateway-endpoint-nowhere") == "warn", "nothing listens there"
    assert set(status.values()) <= {"pass", "skip"}
    assert {"gateway-unit", "gateway-token", "gateway-key", "gateway-metrics", "openai-key"} <= set(status)
    assert KEY not in json.dumps(done) and not watch.found
    assert any("bzzz-gateway" in program for program in watch.programs)

    url = f"https://{api.addresses[node]}:4000/v1/chat/completions"

    def call(token: str, **body: Any) -> requests.Response:
        body = {"messages": [{"role": "user", "content": "How are you?"}], "max_tokens": 20, **body}
        return requests.post(url, json=body, headers={"Authorization": f"Bearer {token}"}, verify=str(api.ca), timeout=60)

    def node_service(method: str, path: str, **more: Any) -> requests.Response:
        there = f"https://{api.addresses[node]}:8080{path}"
        return requests.request(method, there, headers={"Authorization": f"Bearer {api.token}"}, verify=str(api.ca), timeout=10, **more)

    made = node_service("POST", "/api/v1/tokens", json={"name": ANNA, "days": 1}).json()
    try:
        token = made["token"]
        wait_for("the token", lambda: call(token).status_code != 401, 10)
        assert call("bzzz_wrong").status_code == 401
        before = len(rows(cluster, node))
        for body in ({}, {"model": "coding"}, {"model": "away"}):
            answer = call(token, **body)
            assert answer.status_code == 200, answer.text
        del body
        short = requests.post(
            url,
            json={"model": "brief", "messages": [{"role": "user", "content": "How are you?"}]},
            headers={"Authorization": f"Bearer {token}"},
            verify=str(api.ca),
            timeout=60,
        )
        assert short.status_code == 200, short.text
        wait_for("settled calls", lambda: [row["state"] for row in rows(cluster, node)[before:]] == ["spent"] * 4, 10)
        counted = rows(cluster, node)[before:]
        assert {(row["user"], row["project"]) for row in counted} == {(ANNA, "search")}
        assert [row["task"] for row in counted] == ["", "coding", "", ""] and all(row["cost_nano"] > 0 for row in counted)
        seen = json.loads(cluster.lab.exec(node, ["python3", "-c", ASK]).stdout)["answers"]
        assert {(each["organization"], each["project"]) for each in seen} == {("org-lab", "proj_lab")}
        assert sum(each["nano"] for each in seen[-4:]) == sum(row["cost_nano"] for row in counted)

        # What Prometheus reads, and what is told on the admin host.
        metrics = cluster.lab.exec(node, ["python3", "-c", METRICS, api.addresses[node]]).stdout
        who = f'model="gpt-4o-mini",project="search",task="coding",user="{ANNA}"'
        assert f"bzzz_ai_latency_seconds_count{{{who}}} 1.0" in metrics and f'bzzz_ai_tokens_total{{kind="in",{who}}}' in metrics
        (cost,) = [line for line in metrics.splitlines() if line.startswith(f"bzzz_ai_cost_usd_total{{{who}}}")]
        assert round(float(cost.split()[-1]) * 1e9) == counted[1]["cost_nano"]
        told = cluster.document("cost", "report", "--by", "user,task", folder=folder)
        assert told["nano"] == sum(row["cost_nano"] for row in rows(cluster, node)), told
        assert {"user": ANNA, "task": "coding"}.items() <= next(row for row in told["rows"] if row["task"]).items()
        cluster.setup("cost", "export", "-o", str(tmp_path / "calls.csv"), folder=folder)
        assert len((tmp_path / "calls.csv").read_text().splitlines()) == told["calls"] + 1
        refused = requests.post(f"https://{api.addresses[cluster.nodes[-1]]}:8080/ollama/api/tags", verify=str(api.ca), timeout=10)
        assert refused.status_code == 401

        assert cluster.document("apply", "--only", "2,4,6", folder=folder)["changes"] == []
        # Root's own copies of former configurations aside.
        kept = {
            path for path in leaks.on_node(cluster.lab, node, {"key": KEY})["key"] if not path.startswith("/var/lib/bzzz/sets/gateway/")
        }
        assert kept == {"/etc/bzzz/gateway/litellm.yaml", "/opt/openai_standin.py"}

        limited = cluster.declare(tmp_path / "limited", {**OPTIONS, "cost_users": {ANNA: {"day_usd": "0.000001"}}})
        shutil.copytree(folder / "releases", limited / "releases")
        shutil.copy(folder / VAULT, limited / VAULT)
        cluster.setup("apply", "--only", "4", folder=limited)
        over = call(token)
        assert over.status_code == 429 and over.json()["error"]["type"] == "budget_exceeded", over.text
        assert f"daily limit of user {ANNA}" in over.text and "(Europe/Berlin)" in over.text and int(over.headers["retry-after"]) > 0
    finally:
        node_service("DELETE", f"/api/v1/tokens/{made['id']}")
    wait_for("revocation", lambda: call(token).status_code == 401, 15)


@pytest.mark.requirement("3.4.1", "3.4.3", "3.4.4", part="real Ollamas of two nodes behind the gateway")
@pytest.mark.requirement("3.2.4", part="local to local to cloud, real Ollamas taken down, before a stand-in for OpenAI")
def test_real_ollamas_serve_openais_own_client_and_may_die(cluster: Tools, folder: Path, tmp_path: Path) -> None:
    node, api = cluster.nodes[0], Api(cluster, tmp_path)
    cluster.setup("apply", "--only", "2,4,6", folder=folder)
    service = f"https://{api.addresses[node]}:8080/api/v1/tokens"
    more: Any = {"headers": {"Authorization": f"Bearer {api.token}"}, "verify": str(api.ca), "timeout": 10}
    made = requests.post(service, json={"name": ANNA, "days": 1}, **more).json()
    url = f"https://{api.addresses[node]}:4000/v1"

    def calls() -> list[dict[str, Any]]:
        return rows(cluster, node)

    def call() -> str:
        """Who has served it."""
        body = {"model": "local", "messages": [{"role": "user", "content": "How are you?"}], "max_tokens": 5}
        head = {"Authorization": f"Bearer {made['token']}"}
        before = len(calls())
        answer = requests.post(f"{url}/chat/completions", json=body, headers=head, verify=str(api.ca), timeout=120)
        assert answer.status_code == 200, answer.text
        (row,) = wait_for("the call in the ledger", lambda: [row for row in calls()[before:] if row["state"] == "spent"], 10)
        assert row["tokens_in"] > 0 and row["tokens_out"] > 0
        assert (row["cost_nano"] == 0) == (row["provider"] == "cluster"), row
        return str(row["provider"])

    def asked(other: str) -> int:
        said = cluster.lab.exec(other, ["sh", "-c", "journalctl -u ollama -o cat | grep -c 'POST.*/api/chat' || true"]).stdout
        return int(said)

    try:
        wait_for("calls to both nodes' Ollamas", lambda: call() == "cluster" and all(map(asked, cluster.nodes[1:])), 120)
        before = len(calls())
        program = [str(gateway.python()), "-c", CLIENT, url, made["token"], str(api.ca)]
        done = subprocess.run(program, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
        seen = json.loads(done.stdout)
        width = seen["vectors"][0]
        assert width > 0 and seen == {**seen, "plain": 5, "stream": [5], "tools": 5, "vectors": [width, width]} and seen["pieces"] >= 2
        wait_for("settled calls", lambda: [row["state"] for row in calls()[before:]] == ["spent"] * 4, 10)
        counted = calls()[before:]
        assert {(row["provider"], row["cost_nano"]) for row in counted} == {("cluster", 0)}
        assert [row["tokens_out"] for row in counted] == [5, 5, 5, 0] and counted[3]["tokens_in"] == seen["vector_tokens"] > 0

        first, second = cluster.nodes[1:]
        cluster.lab.exec(first, ["systemctl", "kill", "-s", "KILL", "ollama"])
        cluster.lab.exec(first, ["systemctl", "stop", "ollama"])
        had = asked(second)
        # The very next ones, before the gateway can have been told.
        assert {call() for _ in range(6)} <= {"cluster", "openai"} and asked(second) > had
        wait_for("none but the second's", lambda: {call() for _ in range(3)} == {"cluster"}, 60)
        cluster.lab.exec(second, ["systemctl", "stop", "ollama"])
        assert call() == "openai", "where no Ollama answers, the cloud does"
        for other in (first, second):
            cluster.lab.exec(other, ["systemctl", "start", "ollama"])
        wait_for("an Ollama again", lambda: call() == "cluster", 120)
    finally:
        requests.delete(f"{service}/{made['id']}", **more)
