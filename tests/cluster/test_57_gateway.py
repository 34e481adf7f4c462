# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The AI gateway on a real coordinator, with LiteLLM from its release; by --all with the other nodes' real Ollamas behind it.

OpenAI's servers are stood in for, by a program on this host, which nodes reach by the lab's network.
"""

from __future__ import annotations

import collections
import contextlib
import csv
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import gateway
import leaks
import ollama
import openai_standin
import pytest
import requests
import test_50_services
import test_ollama_install
from ansible_collections.bzzz.cluster.plugins.module_utils import forecast
from conftest import Tools
from gateway import StandIn
from openai_standin import KEY
from rest import Api, wait_for
from wizard import PASSWORD, Server, chromium, with_npm

from bzzz_setup import release
from bzzz_setup.declaration import VAULT

# Of different limits: by day, of a project by day, by month, of a project by month, and of a share of all.
ANNA, BERTA, CARLA, DORA, EVI = "lab-anna", "lab-berta", "lab-carla", "lab-dora", "lab-evi"
FREE, GUS, HAL = "lab-fay", f"lab-gus-{os.getpid()}", "lab-hal"  # none, less than two calls, and a project's share
IVO = f"lab-ivo-{os.getpid()}"  # as GUS
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
# Servers of models with TLS, on the gateway's node: by a certificate of the cluster's authority, and by one of nobody's.
BOXES = {"box": 4998, "forged": 4999}
ENDPOINT_KEYS = f"nowhere=sk-of-nowhere-0123456789,box={KEY},forged={KEY}"
BOX = """
set -e
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /run/forged.key -out /run/forged.crt \\
    -subj /CN=forged -addext "subjectAltName=IP:$0" 2>/dev/null
systemd-run --unit=box python3 /opt/openai_standin.py 4998 $0 /etc/bzzz/tls/node.crt /etc/bzzz/tls/node.key
systemd-run --unit=forged python3 /opt/openai_standin.py 4999 $0 /run/forged.crt /run/forged.key
"""
# A real mail server, which asks who comes, and a server that takes webhooks; Slack's is stood in for by the latter. They show a certificate
# of a company's authority.
MAIL_USER, MAIL_PASSWORD, HOOK_TOKEN, SLACK_PATH = (
    "bzzz",
    "mail-secret-0123456789",
    "hook-secret-0123456789",
    "/services/T0/B0/slack-secret-0123456789",
)
RECEIVERS = """
set -e
DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends opensmtpd >/dev/null
echo "$0 $(smtpctl encrypt "$1")" >/etc/lab-mail-users
cat >/etc/smtpd.conf <<END
pki lab cert "/etc/lab-mail.crt"
pki lab key "/etc/lab-mail.key"
table people file:/etc/lab-mail-users
listen on 0.0.0.0 port 2525 tls-require pki lab auth <people>
action "keep" maildir
match from any auth for domain "lab.example" action "keep"
END
systemctl restart opensmtpd
systemd-run --unit=hooks python3 /opt/hooks.py
"""
HOOKS = """
import http.server, json, ssl
class Hook(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with open("/run/hooks", "a") as file:
            file.write(json.dumps({"path": self.path, "authorization": self.headers["authorization"], "body": body}) + "\\n")
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"ok")  # else it is an error, as Slack has it
server = http.server.ThreadingHTTPServer(("0.0.0.0", 9443), Hook)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/etc/lab-mail.crt", "/etc/lab-mail.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""
OPTIONS: dict[str, Any] = {
    "gateway_enabled": True,
    "gateway_release_index": "releases/index.json",
    "gateway_models": [
        {"name": "gpt-4o-mini", "model": "gpt-4o-mini"},
        {"name": "away", "model": "gpt-4o-mini", "endpoint": "nowhere"},
        {"name": "brief", "model": "gpt-4o-mini", "parameters": {"max_tokens": 5, "temperature": 0.25}},
        {"name": "hasty", "model": "gpt-4o-mini", "parameters": {"timeout": 1}},
        {"name": "local", "model": "tiny", "endpoint": "cluster"},
        {"name": "boxed", "model": "gpt-4o-mini", "endpoint": "box"},
        {"name": "faked", "model": "gpt-4o-mini", "endpoint": "forged"},
    ],
    "gateway_fallbacks": {"away": ["gpt-4o-mini"], "local": ["gpt-4o-mini"]},
    "gateway_tasks": {"coding": "gpt-4o-mini", "essay": "gpt-5"},
    "gateway_members": {ANNA: ["search"], BERTA: ["tight"], DORA: ["long"], HAL: ["shared"]},
    "openai_organization": "org-lab",
    "openai_projects": {"search": "proj_lab"},
    "cost_time_zone": "Europe/Berlin",
}


# So little that nobody's first call is within it, but for all's.
LITTLE = "0.000001"
LIMITS: dict[str, Any] = {
    "cost_users": {ANNA: {"day_usd": LITTLE}, CARLA: {"month_usd": LITTLE}, GUS: {"day_usd": "0.000024"}, IVO: {"day_usd": "0.000024"}},
    "cost_projects": {"tight": {"day_usd": LITTLE}, "long": {"month_usd": LITTLE}},
    "cost_all": {"day_usd": "0.05", "month_usd": "0.03", "user_shares": {EVI: 10}, "project_shares": {"shared": 5}},
    "cost_warn_percent": [50, 100],
    "cost_expected": [{"model": "gpt-5", "calls_per_day": 1000.0, "tokens_in": 1000, "tokens_out": 100}],
}


def wanted(cluster: Tools, openai: StandIn, **more: Any) -> dict[str, Any]:
    urls = {
        "nowhere": "http://127.0.0.1:9/v1",
        **{name: f"https://{cluster.lab.nodes[0].address}:{port}/v1" for name, port in BOXES.items()},
    }
    endpoints = [{"name": name, "url": url} for name, url in urls.items()]
    return {**OPTIONS, "openai_base_url": f"{openai.url}/v1", "gateway_endpoints": endpoints, **more}


@pytest.fixture(scope="module")
def openai(cluster: Tools) -> Iterator[StandIn]:
    subnet = cluster.lab.subnet
    assert subnet
    standin = StandIn(str(subnet[1]))
    yield standin
    standin.stop()


@pytest.fixture(scope="module")
def folder(cluster: Tools, openai: StandIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An inventory folder with the gateway on; the release is made once a checkout, which takes minutes."""
    node = cluster.nodes[0]
    python = cluster.lab.exec(node, ["python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]).stdout.strip()
    made = release.build(python=python, product=release.GATEWAY_PRODUCT)
    base = tmp_path_factory.mktemp("gateway")
    folder = base / "inventory"
    declared = cluster.declare(base / "declared", wanted(cluster, openai))
    shutil.copytree(made.parent, declared / "releases")
    file = cluster.document("export", "yaml", "-o", str(base / "exported"), folder=declared)["file"]
    # As an operator enters keys where there is no terminal: a line each, which goes into an encrypted file.
    secrets = [("openai_api_key", KEY), ("openai_admin_key", KEY), ("gateway_endpoint_keys", ENDPOINT_KEYS)]
    with leaks.Watch({"key": KEY}, cluster.home, folder) as watch:
        said = cluster.setup(
            "import", file, *(f"--secret={name}" for name, _ in secrets), folder=folder, given="".join(f"{text}\n" for _, text in secrets)
        )
    assert KEY not in said.stdout + said.stderr and not watch.found and any("import" in program for program in watch.programs)
    assert (folder / VAULT).read_text().startswith("$ANSIBLE_VAULT;")
    shutil.copytree(made.parent, folder / "releases")
    cluster.lab.exec(node, ["sh", "-c", "umask 077; cat >/opt/openai_standin.py"], stdin=Path(openai_standin.__file__).read_text())
    cluster.lab.exec(node, ["sh", "-c", BOX, cluster.lab.nodes[0].address])
    yield folder
    cluster.lab.exec(node, ["sh", "-c", "systemctl stop box forged; rm /opt/openai_standin.py"])
    cluster.setup("apply", "--only", "2,4,5,6")
    cluster.lab.exec(node, ["sh", "-c", "rm -f /var/lib/bzzz-gateway/ledger.sqlite*"])


@pytest.fixture
def ollamas(cluster: Tools) -> Iterator[None]:
    """A real one on each node but the gateway's."""
    try:
        program = ollama.binary()
    except ollama.Unbuildable as reason:
        pytest.skip(str(reason))
    for other in cluster.nodes[1:]:
        ollama.install(cluster.lab, other, program, TEMPLATE)
    yield
    for other in cluster.nodes[1:]:
        ollama.remove(cluster.lab, other)


class Service:
    """The node service of the gateway's node, where tokens are made."""

    def __init__(self, api: Api, node: str) -> None:
        self.api, self.node = api, node
        self.made: list[str] = []

    def _ask(self, method: str, path: str, **more: Any) -> requests.Response:
        there = f"https://{self.api.addresses[self.node]}:8080/api/v1/tokens{path}"
        headers = {"Authorization": f"Bearer {self.api.token}"}
        return requests.request(method, there, headers=headers, verify=str(self.api.ca), timeout=10, **more)

    def token(self, name: str) -> str:
        made = self._ask("POST", "", json={"name": name, "days": 1}).json()
        self.made.append(made["id"])
        return str(made["token"])

    def revoke(self) -> None:
        while self.made:
            self._ask("DELETE", f"/{self.made.pop()}")


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


@pytest.fixture
def api(cluster: Tools, tmp_path: Path) -> Api:
    return Api(cluster, tmp_path)


@pytest.fixture
def service(cluster: Tools, api: Api) -> Iterator[Service]:
    service = Service(api, cluster.nodes[0])
    yield service
    service.revoke()


def called(cluster: Tools, api: Api, token: str, **body: Any) -> requests.Response:
    """A call's answer. A field that is None is left out."""
    body = {"messages": [{"role": "user", "content": "How are you?"}], "max_tokens": 20, **body}
    url = f"https://{api.addresses[cluster.nodes[0]]}:4000/v1/chat/completions"
    body = {name: value for name, value in body.items() if value is not None}
    return requests.post(url, json=body, headers={"Authorization": f"Bearer {token}"}, verify=str(api.ca), timeout=60)


@pytest.mark.requirement("3.1.1")
@pytest.mark.requirement("3.1.3")
@pytest.mark.requirement("3.1.4", part="in Prometheus' words, by the role")
@pytest.mark.requirement("3.2.1")
@pytest.mark.requirement("3.2.2")
@pytest.mark.requirement("3.2.3")
@pytest.mark.requirement("3.2.4", part="by the role: an endpoint that is down")
@pytest.mark.requirement("3.4.2")
@pytest.mark.requirement("4.2.3")
@pytest.mark.requirement("4.3.1")
@pytest.mark.requirement("4.3.2", part="from the ledger on the gateway's node")
def test_the_gateway_answers_and_counts(cluster: Tools, openai: StandIn, folder: Path, tmp_path: Path, api: Api, service: Service) -> None:
    node, home = cluster.nodes[0], cluster.home
    with leaks.Watch({"key": KEY}, home, folder / "group_vars") as watch:
        done = cluster.document("apply", "--only", "2,4,6", folder=folder)
    status = {check["id"]: check["status"] for check in done["checks"]}
    assert status.pop("gateway-endpoint-nowhere") == "warn", "nothing listens there"
    assert status.pop("gateway-endpoint-forged") == "warn", "nobody vouches for it"
    assert set(status.values()) <= {"pass", "skip"}
    assert {"gateway-unit", "gateway-token", "gateway-key", "gateway-metrics", "openai-key"} <= set(status)
    assert KEY not in json.dumps(done) and not watch.found
    assert any("bzzz-gateway" in program for program in watch.programs)

    token = service.token(ANNA)
    wait_for("the token", lambda: called(cluster, api, token).status_code != 401, 30)
    assert called(cluster, api, "bzzz_wrong").status_code == 401
    before, answered = len(rows(cluster, node)), len(openai.answers)
    for body in ({}, {"model": "coding"}, {"model": "away"}, {"model": "brief", "max_tokens": None}):
        answer = called(cluster, api, token, **body)
        assert answer.status_code == 200, answer.text
    wait_for("settled calls", lambda: [row["state"] for row in rows(cluster, node)[before:]] == ["spent"] * 4, 10)
    counted = rows(cluster, node)[before:]
    assert {(row["user"], row["project"]) for row in counted} == {(ANNA, "search")}
    assert [row["task"] for row in counted] == ["", "coding", "", ""] and all(row["cost_nano"] > 0 for row in counted)
    assert max(row["settled_ms"] - row["at_ms"] - row["latency_ms"] for row in counted) < 1000, "seen within a second"
    seen = openai.answers[answered:]
    assert {(each["organization"], each["project"]) for each in seen} == {("org-lab", "proj_lab")}
    assert [each["model"] for each in seen] == ["gpt-5", *["gpt-4o-mini"] * 3], "the default model, a task's, and a fallback"
    assert (seen[3]["temperature"], seen[3]["output_tokens"]) == (0.25, 5) and seen[1]["temperature"] is None
    assert [each["nano"] for each in seen] == [row["cost_nano"] for row in counted]
    # With TLS and a key, there where the authority vouches for it alone; what cannot be trusted is not called.
    boxed = called(cluster, api, token, model="boxed")
    assert boxed.status_code == 200 and boxed.json()["usage"]["completion_tokens"] == 20, boxed.text
    faked = called(cluster, api, token, model="faked")
    assert faked.status_code >= 500, faked.text
    assert openai.answers[answered:] == seen, "neither was asked of OpenAI"
    openai.mode("fine", 4)
    slow = called(cluster, api, token, model="hasty")
    openai.mode()
    assert slow.status_code in (408, 504) and slow.elapsed.total_seconds() < 4, slow.text

    # What Prometheus reads, and what is told on the admin host.
    metrics = cluster.lab.exec(node, ["python3", "-c", METRICS, api.addresses[node]]).stdout
    who = f'model="gpt-4o-mini",project="search",task="coding",user="{ANNA}"'
    assert f"bzzz_ai_latency_seconds_count{{{who}}} 1.0" in metrics and f'bzzz_ai_tokens_total{{kind="in",{who}}}' in metrics
    (cost,) = [line for line in metrics.splitlines() if line.startswith(f"bzzz_ai_cost_usd_total{{{who}}}")]
    assert round(float(cost.split()[-1]) * 1e9) == counted[1]["cost_nano"]
    told = cluster.document("cost", "report", "--by", "user,project,model,task", "--per", "hour", folder=folder)
    assert told["nano"] == sum(row["cost_nano"] for row in rows(cluster, node)), told
    expected = {"user": ANNA, "project": "search", "model": "gpt-4o-mini", "task": "coding"}
    (mine,) = [row for row in told["rows"] if expected.items() <= row.items()]
    assert mine["cost_nano"] == mine["calls"] * counted[1]["cost_nano"]
    cluster.setup("cost", "export", "-o", str(tmp_path / "calls.csv"), folder=folder)
    assert len((tmp_path / "calls.csv").read_text().splitlines()) == told["calls"] + 1
    refused = requests.post(f"https://{api.addresses[cluster.nodes[-1]]}:8080/ollama/api/tags", verify=str(api.ca), timeout=10)
    assert refused.status_code == 401

    assert cluster.document("apply", "--only", "2,4,6", folder=folder)["changes"] == []
    # Root's own copies of former configurations aside.
    kept = {path for path in leaks.on_node(cluster.lab, node, {"key": KEY})["key"] if not path.startswith("/var/lib/bzzz/sets/gateway/")}
    assert kept == {"/etc/bzzz/gateway/litellm.yaml", "/opt/openai_standin.py"}
    service.revoke()
    wait_for("revocation", lambda: called(cluster, api, token).status_code == 401, 15)


@pytest.mark.requirement("3.1.4", "4.3.2", "4.3.3")
def test_what_was_spent_is_drawn_in_a_browser(cluster: Tools, folder: Path) -> None:
    """From the gateway's node to the page: by model and task, over a range with and without calls."""
    counted = rows(cluster, cluster.nodes[0])
    assert len({row["model"] for row in counted}) > 1 and {row["task"] for row in counted} >= {"", "coding"}
    server = Server(folder, with_npm(cluster.home))  # where the vault's key is
    with contextlib.ExitStack() as stack:
        server.start()
        stack.callback(server.stop)
        page = stack.enter_context(chromium()).new_page()
        page.set_default_timeout(90_000)
        page.goto(server.link)
        page.get_by_label("User").fill("anna")
        page.get_by_label("Password").fill(PASSWORD)
        # A lab that is kept has the account already.
        page.get_by_role("button", name=re.compile("Make the account|^Sign in$")).click()
        page.get_by_role("link", name="Cost").click()
        for what in ("model", "task", "project", "user"):
            page.get_by_label("By", exact=True).select_option(what)
            table = page.get_by_role("region", name=f"By {what}").get_by_role("row")
            table.nth(1).wait_for()
            shown = {cells[0]: cells[1:] for cells in (text.split() for text in table.all_inner_texts()[1:])}
            expected: dict[str, list[dict[str, Any]]] = {}
            for row in counted:
                expected.setdefault(row[what] or "(none)", []).append(row)
            assert shown.keys() == expected.keys()
            for name, mine in expected.items():
                spent, tokens = (sum(row[key] or 0 for row in mine) for key in ("cost_nano", "tokens_out"))
                tokens += sum(row["tokens_in"] or 0 for row in mine)
                usd, _, calls, all_tokens, latency, _ = shown[name]
                assert (float(usd), int(calls), int(all_tokens)) == (pytest.approx(spent / 1e9, rel=0.06), len(mine), tokens), name
                assert float(latency) == pytest.approx(sum(row["latency_ms"] for row in mine) / len(mine) / 1000, abs=0.011), name
        page.get_by_label("Range").select_option("7")
        chart = page.get_by_role("region", name="By day")
        chart.get_by_text("As a table").click()
        days = chart.get_by_role("row").all_inner_texts()
        assert float(days[-1].split()[-2]) == pytest.approx(sum(row["cost_nano"] for row in counted) / 1e9, rel=0.06), days
    today = datetime.now(ZoneInfo(OPTIONS["cost_time_zone"])).date()
    for since, until, calls in ((today, today + timedelta(1), len(counted)), (today - timedelta(9), today, 0)):
        told = cluster.document("cost", "report", "--since", str(since), "--until", str(until), folder=folder)
        assert told["calls"] == calls


@pytest.mark.requirement("4.3.4")
def test_what_could_be_better_is_told(cluster: Tools, folder: Path, api: Api, service: Service) -> None:
    """From the node's ledger: what a task would cost elsewhere, what came from caches, and a GPU (nvidia-smi's stand-in) without calls."""
    node, idle = cluster.nodes[0], cluster.nodes[2]
    token = service.token(ANNA)
    wait_for("the token", lambda: called(cluster, api, token, max_tokens=10**7).status_code != 401, 30)
    before = len(rows(cluster, node))
    story = [{"role": "user", "content": "a long story " * 6200}]  # what is saved is told from a cent on
    assert called(cluster, api, token, model="essay", messages=story).status_code == 200
    wait_for("a settled call", lambda: [row["state"] for row in rows(cluster, node)[before:]] == ["spent"], 10)
    (essay,) = rows(cluster, node)[before:]
    with test_50_services.gpu(cluster, idle):
        cluster.setup("detect", folder=folder)
        told = cluster.document("cost", "report", folder=folder)
        shown = " ".join(cluster.setup("cost", "report", folder=folder, COLUMNS="160").stdout.split())
    (found,) = (each for each in told["recommendations"] if each["task"] == "essay")
    assert (found["model"], found["cost_nano"], found["other"], found["other_nano"]) == ("gpt-5", essay["cost_nano"], "local", 0), found
    assert told["caching"]["tokens_cached"] == sum(row["tokens_cached"] for row in rows(cluster, node)) >= essay["tokens_cached"] > 0
    assert told["idle"] == [{"node": idle, "gpus": "Tesla T4 15 GiB"}], told["idle"]
    usd = forecast.amount(essay["cost_nano"])
    assert f"essay on gpt-5 has cost {usd} USD; the same tokens on local cost 0" in shown, shown
    assert f"{idle} (Tesla T4 15 GiB) has had no call in this time." in shown


@pytest.mark.requirement("4.2.4", part="exports of a node's ledger; the bill of a day that is not over is not asked for")
def test_calls_are_exported_to_the_nano_dollar(cluster: Tools, folder: Path, tmp_path: Path) -> None:
    counted = sum(row["cost_nano"] for row in rows(cluster, cluster.nodes[0]))
    for form, column in (("csv", "cost_usd"), ("focus", "BilledCost")):
        cluster.setup("cost", "export", "--format", form, "-o", str(tmp_path / form), folder=folder)
        with (tmp_path / form).open(newline="") as file:
            assert sum(Decimal(line[column]) for line in csv.DictReader(file)) * 10**9 == counted > 0
    tomorrow = datetime.now(UTC).date() + timedelta(1)
    (problem,) = cluster.document("cost", "reconcile", "--until", str(tomorrow), folder=folder, code=2)["problems"]
    assert problem["option"] == "until" and "is not over yet" in problem["message"] and problem["remedy"]


@pytest.mark.requirement("4.2.4")
def test_a_nodes_ledger_is_held_against_the_bill(cluster: Tools, openai: StandIn, folder: Path, tmp_path: Path) -> None:
    """A day must be over, and by some hours, before it is billed: both sides are set back by two. OpenAI is a stand-in."""
    node, days = cluster.nodes[0], 48 * 3600
    back = f"""
import os, sqlite3
file = "/var/lib/bzzz-gateway/ledger.sqlite"
owner = os.stat(file)
os.setegid(owner.st_gid)
os.seteuid(owner.st_uid)
with sqlite3.connect(file, timeout=30) as ledger:
    ledger.execute("update calls set at_ms = at_ms - {days * 1000}")
"""
    cluster.lab.exec(node, ["python3", "-"], stdin=back)
    openai.mode(back=days)
    billed: collections.Counter[str] = collections.Counter()
    for each in openai.answers:
        billed[datetime.fromtimestamp(each["at"], UTC).date().isoformat()] += each["nano"]
    today = datetime.now(UTC).date()
    of = ("cost", "reconcile", "--since", str(today - timedelta(4)), "--until", str(today - timedelta(1)))
    found = cluster.document(*of, folder=folder)
    assert {one["day"]: one["provider_nano"] for one in found["days"] if one["provider_nano"]} == billed and len(openai.answers) > 5
    counted = sum(row["cost_nano"] for row in rows(cluster, node) if row["provider"] == "openai" and row["state"] == "spent")
    assert sum(one["ledger_nano"] for one in found["days"]) == counted > 0
    assert all(one["explained"] for one in found["days"]), found

    # Somebody uses the key, and not by way of the gateway.
    body = {"model": "gpt-5", "messages": [{"role": "user", "content": "a long story " * 6200}]}
    requests.post(f"{openai.url}/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {KEY}"}, timeout=30).raise_for_status()
    past = openai.answers[-1]["nano"]
    openai.mode(back=days)
    other = cluster.document(*of, folder=folder, code=1)
    (wrong,) = (one for one in other["days"] if not one["explained"])
    before = next(one["difference_nano"] for one in found["days"] if one["day"] == wrong["day"])
    assert wrong["difference_nano"] == before + past
    shown = cluster.setup(*of, folder=folder, code=1)
    assert "billed more than the gateway has counted. Remedy:" in shown.stdout
    assert KEY not in shown.stdout + shown.stderr + json.dumps(other)
    whole = sum(row["cost_nano"] for row in rows(cluster, node))
    for form, column in (("csv", "cost_usd"), ("focus", "BilledCost")):
        cluster.setup("cost", "export", "--format", form, "--since", str(today - timedelta(4)), "-o", str(tmp_path / form), folder=folder)
        with (tmp_path / form).open(newline="") as file:
            assert sum(Decimal(line[column]) for line in csv.DictReader(file)) * 10**9 == whole > 0


@pytest.mark.requirement("3.1.2")
@pytest.mark.requirement("F8", part="the AI gateway's latency")
def test_a_wrong_key_no_quota_and_no_way_are_told_apart(cluster: Tools, openai: StandIn, folder: Path) -> None:
    def told() -> dict[str, Any]:
        checks = cluster.document("verify", "--limit", cluster.nodes[0], folder=folder, code=None)["checks"]
        latency = next(check for check in checks if check["id"] == "bench_gateway")
        assert latency["status"] == "pass" and re.fullmatch(r"[\d.]+ ms", latency["seen"])
        found: dict[str, Any] = next(check for check in checks if check["id"] == "openai-key")
        return found

    try:
        for mode, message, remedy in (
            ("wrong_key", "does not take the key (401 invalid_api_key)", "openai_api_key"),
            ("no_quota", "the key is good, but there is no quota", "add credit"),
        ):
            openai.mode(mode)
            check = told()
            assert check["status"] == "fail" and message in check["seen"] and remedy in check["remedy"], check
        openai.stop()
        check = told()
        assert check["status"] == "fail" and "refuses the connection" in check["seen"], check
    finally:
        openai.mode() if openai.process.poll() is None else openai.start()


@pytest.mark.requirement("4.1.1")
@pytest.mark.requirement("4.1.2")
@pytest.mark.requirement("4.1.3")
@pytest.mark.requirement("4.1.4", part="a check of the gateway's node, told by another coordinator")
@pytest.mark.requirement("4.2.1")
@pytest.mark.requirement("L8")
def test_what_is_over_a_limit_is_refused_until_it_is_reset(
    cluster: Tools, openai: StandIn, folder: Path, tmp_path: Path, api: Api, service: Service
) -> None:
    uneven = cluster.declare(tmp_path / "uneven", wanted(cluster, openai, cost_all={"month_usd": 100, "user_shares": {ANNA: 60, EVI: 50}}))
    shutil.copytree(folder / "releases", uneven / "releases")
    shutil.copy(folder / VAULT, uneven / VAULT)
    wrong = cluster.document("check", folder=uneven, code=2)["problems"]
    wrong = [each for each in wrong if each["severity"] == "error"]
    assert [(each["option"], "110" in each["message"]) for each in wrong] == [("cost_all", True)], wrong

    limited = cluster.declare(tmp_path / "limited", wanted(cluster, openai, **LIMITS))
    shutil.copytree(folder / "releases", limited / "releases")
    shutil.copy(folder / VAULT, limited / VAULT)
    # Before anything is applied: 1000 calls a day of 1000 tokens in at 1.25 USD a million, and 100 out at 10 USD.
    expected = forecast.amount(round((1000 * 1250 + 100 * 10_000) * 1000 * forecast.DAYS))
    planned = " ".join(cluster.document("plan", "--only", "4", "--limit", cluster.nodes[0], folder=limited)["forecast"])
    assert f"A month would cost about {expected} USD" in planned and "The limit of 0.03 USD a month is enough for 0 percent" in planned, (
        planned
    )
    cluster.setup("apply", "--only", "4", folder=limited)
    before = len(openai.answers)
    for user, tokens, whose in (
        (ANNA, 20, f"daily limit of user {ANNA}"),
        (BERTA, 20, "daily limit of project tight"),
        (CARLA, 20, f"monthly limit of user {CARLA}"),
        (DORA, 20, "monthly limit of project long"),
        # By what it may cost: shares of 10 and 5 %, all's month, all's day.
        (EVI, 6_000, f"monthly limit of user {EVI}"),
        (HAL, 3_000, "monthly limit of project shared"),
        (FREE, 3_200, "monthly limit of the whole cluster"),
        (FREE, 5_400, "daily limit of the whole cluster"),
    ):
        # The small one's longest answer costs less than all may spend.
        model = "gpt-5" if user == FREE else "gpt-4o-mini"
        token = service.token(user)
        wait_for("the token", lambda token=token: called(cluster, api, token, max_tokens=10**7).status_code != 401, 30)
        over = called(cluster, api, token, model=model, max_tokens=tokens)
        assert over.status_code == 429 and over.json()["error"]["type"] == "budget_exceeded", over.text
        assert f"The {whose} is" in over.text and "(Europe/Berlin)" in over.text and int(over.headers["retry-after"]) > 0, over.text
        if user in (EVI, HAL, FREE):
            assert called(cluster, api, token, model="gpt-4o-mini").status_code == 200
    assert len(openai.answers) == before + 4, "what is refused does not leave"

    token, node = service.token(GUS), cluster.nodes[0]
    wait_for("the token", lambda: called(cluster, api, token, max_tokens=10**7).status_code != 401, 30)

    def alerts() -> list[str]:
        """As another coordinator tells."""
        told = api.member(node, cluster.nodes[-1]) or {"checks": []}
        return [check["message"] for check in told["checks"] if check["name"] == f"budget user {GUS} day 50"]

    assert alerts() == []
    assert called(cluster, api, token, model="gpt-4o-mini").status_code == 200
    wait_for("an alert", alerts, 20)
    assert f"user {GUS} has spent" in alerts()[0] and "50 % is reached" in alerts()[0]
    assert GUS not in api.get(node, "/health", token="").text, "strangers are told nothing of it"


@pytest.fixture
def receivers(cluster: Tools, tmp_path: Path) -> Iterator[str]:
    """The node on which alerts arrive. Who is to trust it is given company.crt of `tmp_path`."""
    node = next((node for node in cluster.lab.nodes if node.os == "trixie"), None)
    if node is None:
        pytest.skip("OpenSMTPD of Debian 12 speaks no TLS with its OpenSSL; use --os mixed or trixie")
    key, certificate = tmp_path / "company.key", tmp_path / "company.crt"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(certificate)]
    made += ["-subj", "/CN=company", "-addext", f"subjectAltName=IP:{node.address}"]
    subprocess.run(made, check=True, capture_output=True)
    for file in (key, certificate):
        cluster.lab.exec(node.name, ["sh", "-c", f"umask 077; cat >/etc/lab-mail{file.suffix}"], stdin=file.read_text())
    cluster.lab.exec(node.name, ["tee", "/opt/hooks.py"], stdin=HOOKS)
    cluster.lab.exec(node.name, ["sh", "-c", RECEIVERS, MAIL_USER, MAIL_PASSWORD])
    yield node.name
    cluster.lab.exec(node.name, ["sh", "-c", "systemctl stop hooks; apt-get -qq purge -y opensmtpd >/dev/null"])
    left = ["/run/hooks", "/opt/hooks.py", "/etc/lab-mail-users", "/etc/lab-mail.key", "/etc/lab-mail.crt", "/home/operator/Maildir"]
    cluster.lab.exec(node.name, ["rm", "-rf", *left])


@pytest.mark.requirement("4.1.4")
@pytest.mark.requirement("7.4.2", part="e-mail, webhook and what takes Slack's, each on a lab node")
def test_a_threshold_is_told_once_by_every_channel(
    cluster: Tools, openai: StandIn, folder: Path, tmp_path: Path, api: Api, service: Service, receivers: str
) -> None:
    """Three coordinators see it, and agree on who tells. The mail server is real; Slack's is stood in for."""
    there = f"https://{api.addresses[receivers]}:9443"
    channels = {
        "alerting_email_to": ["operator@lab.example"],
        "alerting_email_from": "bzzz@lab.example",
        "alerting_smtp_server": f"{api.addresses[receivers]}:2525",
        "alerting_smtp_user": MAIL_USER,
        "alerting_smtp_password": MAIL_PASSWORD,
        "alerting_webhook_urls": [f"{there}/hook"],
        "alerting_webhook_token": HOOK_TOKEN,
        "alerting_slack_url": there + SLACK_PATH,
        "firewall_open_ports": ["9443/tcp", "2525/tcp"],
        "downloads_ca_files": [str(tmp_path / "company.crt")],
    }
    alerting = cluster.declare(tmp_path / "alerting", wanted(cluster, openai, **LIMITS, **channels))
    shutil.copytree(folder / "releases", alerting / "releases")
    shutil.copy(folder / VAULT, alerting / VAULT)
    hidden = {"mail": MAIL_PASSWORD, "hook": HOOK_TOKEN, "slack": SLACK_PATH}
    with leaks.Watch(hidden, cluster.home) as watch:
        done = cluster.document("apply", "--only", "2,4,5,6", folder=alerting)
        again = cluster.document("apply", "--only", "5", folder=alerting)
    failed = [check for check in done["checks"] if check["status"] == "fail"]
    told = {check["id"] for check in done["checks"] if check["status"] == "pass"}
    assert not failed and {"alerting-unit", "alerting-ready", "alerting-secrets"} <= told and again["changes"] == []
    assert not watch.found and not any(secret in json.dumps([done, again]) for secret in hidden.values())

    def arrived(path: str) -> list[dict[str, Any]]:
        lines = cluster.lab.exec(receivers, ["sh", "-c", "cat /run/hooks || true"]).stdout.splitlines()
        return [each for each in map(json.loads, lines) if each["path"] == path and IVO in json.dumps(each["body"])]

    def mails() -> int:
        return int(cluster.lab.exec(receivers, ["sh", "-c", f"grep -l {IVO} /home/operator/Maildir/new/* 2>/dev/null | wc -l"]).stdout)

    assert cluster.setup("try", "alerts", folder=alerting).stdout.count("took a trial alert") == 3
    wait_for("a trial", lambda: "Trial" in cluster.lab.exec(receivers, ["sh", "-c", "cat /run/hooks"]).stdout, 5)

    token, node = service.token(IVO), cluster.nodes[0]
    wait_for("the token", lambda: called(cluster, api, token, max_tokens=10**7).status_code != 401, 30)
    assert called(cluster, api, token, model="gpt-4o-mini").status_code == 200
    wait_for("a webhook", lambda: arrived("/hook"), 60)
    wait_for("Slack's", lambda: arrived(SLACK_PATH), 30)
    wait_for("an e-mail", mails, 30)
    (hook,), (slack,) = arrived("/hook"), arrived(SLACK_PATH)
    assert hook["authorization"] == f"Bearer {HOOK_TOKEN}" and slack["authorization"] is None
    (alert,) = hook["body"]["alerts"]
    assert alert["labels"]["check"] == f"budget user {IVO} day 50" and "50 % is reached" in alert["annotations"]["summary"]
    assert "50 % is reached" in slack["body"]["attachments"][0]["text"]
    # All three tell it to their Alertmanagers again and again; nobody else does.
    time.sleep(45)
    assert (len(arrived("/hook")), len(arrived(SLACK_PATH)), mails()) == (1, 1, 1)
    heard = {check["name"]: check["status"] for name in cluster.nodes for check in (api.member(node, name) or {"checks": []})["checks"]}
    assert heard["alerting"] == "pass"


@pytest.mark.slow
@pytest.mark.requirement("3.4.1", "3.4.3", "3.4.4", part="real Ollamas of two nodes behind the gateway")
@pytest.mark.requirement("3.2.4", "F4")
def test_real_ollamas_serve_openais_own_client_and_may_die(cluster: Tools, folder: Path, ollamas: None, api: Api, service: Service) -> None:
    node = cluster.nodes[0]
    cluster.setup("apply", "--only", "2,4,6", folder=folder)
    token = service.token(ANNA)
    url = f"https://{api.addresses[node]}:4000/v1"

    def calls() -> list[dict[str, Any]]:
        return rows(cluster, node)

    def call() -> str:
        """Who has served it."""
        before = len(calls())
        answer = called(cluster, api, token, model="local", max_tokens=5)
        assert answer.status_code == 200, answer.text
        (row,) = wait_for("the call in the ledger", lambda: [row for row in calls()[before:] if row["state"] == "spent"], 10)
        assert row["tokens_in"] > 0 and row["tokens_out"] > 0
        assert (row["cost_nano"] == 0) == (row["provider"] == "cluster"), row
        return str(row["provider"])

    def asked(other: str) -> int:
        said = cluster.lab.exec(other, ["sh", "-c", "journalctl -u ollama -o cat | grep -c 'POST.*/api/chat' || true"]).stdout
        return int(said)

    wait_for("calls to both nodes' Ollamas", lambda: call() == "cluster" and all(map(asked, cluster.nodes[1:])), 120)
    before = len(calls())
    program = [str(gateway.python()), "-c", CLIENT, url, token, str(api.ca)]
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


@pytest.mark.slow
@pytest.mark.requirement("3.5.5")
def test_a_gpu_that_fails_is_taken_out_and_calls_go_on(
    cluster: Tools, openai: StandIn, folder: Path, tmp_path: Path, api: Api, service: Service
) -> None:
    """A real Ollama has an instance for each of two cards, which are nvidia-smi's stand-in's; one falls off the bus, and comes back."""
    try:
        program = ollama.binary().read_bytes()
    except ollama.Unbuildable as reason:
        pytest.skip(str(reason))
    node, other = cluster.nodes[0], cluster.nodes[1]
    release_wanted, archive = test_ollama_install.archived(ollama.VERSION, program)
    mine = {**release_wanted, "ollama_gpu_check_seconds": 1}
    carded, single = (
        cluster.declare(tmp_path / instances, wanted(cluster, openai), {other: {**mine, "ollama_instances": instances}})
        for instances in ("per_gpu", "one")
    )
    for place in (carded, single):
        shutil.copytree(folder / "releases", place / "releases")
        shutil.copy(folder / VAULT, place / VAULT)
        (place / release_wanted["ollama_archive_amd64"]).write_bytes(archive)
    one, two = test_ollama_install.gpus(cluster, other)
    token = service.token(ANNA)

    def calls(count: int) -> set[str]:
        """Whose they were."""
        before = len(rows(cluster, node))
        answers = [called(cluster, api, token, model="local", max_tokens=5) for _ in range(count)]
        assert {answer.status_code for answer in answers} == {200}, [answer.text for answer in answers]
        wait_for("the calls in the ledger", lambda: [row["state"] for row in rows(cluster, node)[before:]] == ["spent"] * count, 10)
        return {row["deployment"] if row["provider"] == "cluster" else row["provider"] for row in rows(cluster, node)[before:]}

    def asked(number: int) -> int:
        said = cluster.lab.exec(
            other, ["sh", "-c", f"journalctl -u bzzz-ollama@{number} -o cat | grep -c 'POST.*/api/chat' || true"]
        ).stdout
        return int(said)

    def alerts() -> list[str]:
        """Of the other node, as the gateway's tells."""
        told = api.member(other, node) or {"checks": []}
        return [check["message"] for check in told["checks"] if check["name"] == "gpus" and check["status"] == "warn"]

    def active(number: int) -> str:
        return cluster.lab.exec(other, ["systemctl", "is-active", f"bzzz-ollama@{number}"], check=False).stdout.strip()

    try:
        cluster.setup("apply", "--only", "2,4,6", folder=carded)
        ollama.model(tmp_path)
        cluster.lab.exec(other, ["mkdir", "-p", "/root/made"])
        for name in ("tiny.gguf", "Modelfile"):
            ollama.copy(cluster.lab, other, tmp_path / name, "/root/made")
        cluster.lab.exec(other, ["/opt/bzzz/ollama/current/bin/ollama", "create", "tiny", "-f", "/root/made/Modelfile"])
        wait_for("the token", lambda: called(cluster, api, token).status_code != 401, 30)
        whole = {f"ollama_chat/tiny@{other}"}
        wait_for("calls to the node", lambda: calls(4) == whole and asked(0) and asked(1), 120)
        assert alerts() == []

        test_ollama_install.tell(cluster, one, other)
        # None of them is lost meanwhile, and none has to go to the cloud.
        wait_for("its instance's end", lambda: calls(2) == whole and active(1) == "inactive", 60)
        assert active(0) == "active" and "GPU-00000000" in wait_for("an alert", alerts, 30)[0]
        before = asked(0), asked(1)
        assert calls(4) == whole and (asked(0), asked(1)) == (before[0] + 4, before[1])

        test_ollama_install.tell(cluster, two, other)
        wait_for("its instance again", lambda: active(1) == "active" and not alerts(), 60)
        wait_for("calls to it", lambda: calls(4) == whole and asked(1) > before[1], 60)

        # One instance that has both begins anew with the one that is left.
        cluster.setup("apply", "--only", "4", folder=single)
        wait_for("calls to the one", lambda: calls(2) == whole, 60)
        visible = "tr '\\0' '\\n' </proc/$(systemctl show -P MainPID bzzz-ollama@0)/environ | grep VISIBLE || true"
        assert "GPU-d37e67a5" not in cluster.lab.exec(other, ["sh", "-c", visible]).stdout
        test_ollama_install.tell(cluster, one, other)
        wait_for(
            "its restart", lambda: cluster.lab.exec(other, ["sh", "-c", visible]).stdout.startswith("CUDA_VISIBLE_DEVICES=GPU-d37e67a5"), 60
        )
        assert "GPU-00000000" in wait_for("an alert", alerts, 30)[0]
        wait_for("calls to it again", lambda: calls(2) == whole, 60)
    finally:
        cluster.lab.exec(
            other, ["sh", "-c", "rm -f /usr/local/bin/nvidia-smi; systemctl disable --now 'bzzz-ollama@*' bzzz-ollama-gpus.timer"]
        )
