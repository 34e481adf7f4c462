# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Two AI gateways and their common ledger in PostgreSQL on real nodes, before stand-ins for OpenAI's servers, one on each node."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import leaks
import pytest
import requests
from conftest import Tools
from rest import Api, wait_for

from bzzz_setup import release
from bzzz_setup.declaration import VAULT, dump, write
from bzzz_setup.lab import CHECKOUT

pytestmark = pytest.mark.slow
KEY = "sk-stand-in-0123456789abcdef"  # the stand-in's
BERTA = "lab-berta"
LIMIT_USD = "0.0001"
ASK = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:4999/stand-in').read().decode())"
OPTIONS: dict[str, Any] = {
    "gateway_enabled": True,
    "gateway_release_index": "releases/index.json",
    "gateway_default_model": "gpt-4o-mini",
    "gateway_members": {BERTA: ["search"]},
    "openai_test_call": False,  # every call that the stand-ins count is Berta's
    "openai_base_url": "http://127.0.0.1:4999/v1",
    "cost_time_zone": "Europe/Berlin",
    "cost_users": {BERTA: {"day_usd": LIMIT_USD}},
}
# What PostgreSQL says to a gateway that comes otherwise than it should: with `more` in its URL, as `user`, to `database`.
INTRUDE = """
import json, sys
sys.path.insert(0, "/opt/bzzz/gateway/current/lib")
import psycopg
url = json.load(open("/etc/bzzz/gateway/gateway.yaml"))["ledger"].replace("+psycopg", "")
for user, database, more in json.loads(sys.argv[1]):
    try:
        psycopg.connect(url.replace("bzzz-gateway@", user + "@").replace("/ledger?", f"/{database}?") + more, connect_timeout=5)
        print("let in")
    except psycopg.OperationalError as error:
        print(" ".join(str(error).split()))
"""
METRICS = """
import ssl, sys, urllib.request
context = ssl.create_default_context(cafile="/etc/bzzz/tls/ca.crt")
context.load_cert_chain("/etc/bzzz/tls/node.crt", "/etc/bzzz/tls/node.key")
print(urllib.request.urlopen(f"https://{sys.argv[1]}:4001/metrics", context=context).read().decode())
"""
# A PostgreSQL of the operator's own, which lets in by a password over TLS, and shows a certificate of a company's authority.
THEIRS = """
set -e
DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends postgresql >/dev/null
cd /etc/postgresql/*/main
install -o postgres -m 600 /run/company.key /run/company.crt .
rm /run/company.key /run/company.crt
cat >conf.d/lab.conf <<END
listen_addresses = '*'
ssl_cert_file = '$PWD/company.crt'
ssl_key_file = '$PWD/company.key'
END
echo "hostssl ledger gateway 0.0.0.0/0 scram-sha-256" >pg_hba.conf.new
cat pg_hba.conf >>pg_hba.conf.new
cat pg_hba.conf.new >pg_hba.conf
systemctl restart postgresql
printf "CREATE ROLE gateway LOGIN PASSWORD '%s';\nCREATE DATABASE ledger OWNER gateway;\n" "$(cat)" | runuser -u postgres -- psql -X -q
"""
NOT_THEIRS = """
DEBIAN_FRONTEND=noninteractive apt-get -qq purge -y postgresql 'postgresql-*' >/dev/null 2>&1
rm -rf /etc/postgresql /var/lib/postgresql
"""
CARLA, PASSWORD = "lab-carla", "their-secret-0123456789"
REACH = "import socket, sys; socket.create_connection((sys.argv[1], 5432), 3)"


@pytest.fixture(scope="module")
def folder(cluster: Tools, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An inventory folder with one gateway; the release is made once a checkout and Python, which takes minutes."""
    both = cluster.nodes[:2]
    folder = cluster.declare(tmp_path_factory.mktemp("gateways") / "inventory", {**OPTIONS, "gateway_nodes": both[:1]})
    for node in both:
        python = cluster.lab.exec(node, ["python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]).stdout.strip()
        made = release.build(python=python, product=release.GATEWAY_PRODUCT)
        shutil.copytree(made.parent, folder / "releases", dirs_exist_ok=True)
        cluster.lab.exec(node, ["tee", "/opt/openai_standin.py"], stdin=(CHECKOUT / "tests/openai_standin.py").read_text())
        cluster.lab.exec(node, ["chmod", "600", "/opt/openai_standin.py"])  # it knows the key
        cluster.lab.exec(node, ["systemd-run", "--unit=openai-standin", "python3", "/opt/openai_standin.py", "4999"])
    write(folder / VAULT, dump({"openai_api_key": KEY}), 0o600)
    yield folder
    for node in both:
        cluster.lab.exec(node, ["sh", "-c", "systemctl stop openai-standin; rm /opt/openai_standin.py"])
    cluster.setup("apply", "--only", "2,4,6")
    for node in both:  # another run begins at nothing
        cluster.lab.exec(node, ["sh", "-c", "rm -rf /var/lib/bzzz-ledger/data /var/lib/bzzz-gateway/ledger.*"])


def several(
    cluster: Tools, folder: Path, place: Path, options: dict[str, Any] | None = None, secrets: dict[str, str] | None = None
) -> Path:
    """The same with two gateways."""
    found = cluster.declare(place, {**OPTIONS, "gateway_nodes": cluster.nodes[:2], **(options or {})})
    shutil.copytree(folder / "releases", found / "releases")
    write(found / VAULT, dump({"openai_api_key": KEY, **(secrets or {})}), 0o600)
    return found


def called(api: Api, node: str, token: str) -> requests.Response:
    url = f"https://{api.addresses[node]}:4000/v1/chat/completions"
    body = {"messages": [{"role": "user", "content": "How are you?"}], "max_tokens": 20}
    return requests.post(url, json=body, headers={"Authorization": f"Bearer {token}"}, verify=str(api.ca), timeout=60)


@contextlib.contextmanager
def issued(api: Api, node: str, name: str) -> Iterator[str]:
    """A token of the cluster, for a while."""
    there = {"headers": {"Authorization": f"Bearer {api.token}"}, "verify": str(api.ca), "timeout": 10}
    url = f"https://{api.addresses[node]}:8080/api/v1/tokens"
    made = requests.post(url, json={"name": name, "days": 1}, **there).json()  # type: ignore[arg-type]
    try:
        yield made["token"]
    finally:
        requests.delete(f"{url}/{made['id']}", **there)  # type: ignore[arg-type]


def counted(
    cluster: Tools, node: str, user: str = BERTA, *, owner: str = "bzzz-ledger", at: str = "/run/bzzz-ledger"
) -> list[dict[str, Any]]:
    """A user's calls in PostgreSQL, oldest first."""
    query = f"SELECT coalesce(json_agg(c ORDER BY at_ms), '[]') FROM calls c WHERE \"user\" = '{user}'"
    psql = ["runuser", "-u", owner, "--", "psql", "-X", "-At", "-h", at, "-c", query, "ledger"]
    found: list[dict[str, Any]] = json.loads(cluster.lab.exec(node, psql).stdout)
    return found


def answered(cluster: Tools) -> list[dict[str, Any]]:
    """What the stand-ins have answered, by their own count."""
    found = [json.loads(cluster.lab.exec(node, ["python3", "-c", ASK]).stdout)["answers"] for node in cluster.nodes[:2]]
    return [each for answers in found for each in answers]


@pytest.fixture
def theirs(cluster: Tools, tmp_path: Path) -> Iterator[str]:
    """The node that has it. Who is to trust it is given company.crt of `tmp_path`."""
    node = cluster.lab.nodes[-1]
    key, certificate = tmp_path / "company.key", tmp_path / "company.crt"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(certificate)]
    made += ["-subj", "/CN=company", "-addext", f"subjectAltName=IP:{node.address}"]
    subprocess.run(made, check=True, capture_output=True)
    for file in (key, certificate):
        cluster.lab.exec(node.name, ["sh", "-c", f"umask 077; cat >/run/{file.name}"], stdin=file.read_text())
    cluster.lab.exec(node.name, ["sh", "-c", THEIRS], stdin=PASSWORD)
    yield node.name
    cluster.lab.exec(node.name, ["sh", "-c", NOT_THEIRS])


@pytest.mark.requirement("4.1.1", part="by calls through two gateways together")
@pytest.mark.requirement("4.2.3", part="two gateways, one ledger, on nodes")
@pytest.mark.requirement("4.3.2", part="from the ledger of several gateways")
def test_two_gateways_count_into_one_ledger(cluster: Tools, folder: Path, tmp_path: Path) -> None:
    api, lab = Api(cluster, tmp_path), cluster.lab
    first, second = both = cluster.nodes[:2]
    third = cluster.nodes[-1]

    def call(node: str) -> requests.Response:
        return called(api, node, token)

    cluster.setup("apply", "--only", "2,4,6", folder=folder)
    with issued(api, first, BERTA) as token:
        wait_for("the first call", lambda: call(first).status_code == 200, 20)

        # From one to two: what was spent is not forgotten.
        two = several(cluster, folder, tmp_path / "two")
        done = cluster.document("apply", "--only", "2,4,6", folder=two)
        status = {check["id"]: check["status"] for check in done["checks"]}
        assert set(status.values()) <= {"pass", "skip"}, status
        assert {"ledger-unit", "ledger-listens", "gateway-ledger", "gateway-unit"} <= set(status)
        assert [row["gateway"].split()[0] for row in counted(cluster, first)] == [first]
        assert lab.exec(first, ["ls", "/var/lib/bzzz-gateway"]).stdout.split() == ["ledger.sqlite.moved"]
        for node in both:
            wait_for(f"a call through {node}", lambda node=node: call(node).status_code == 200, 20)  # type: ignore[misc]
        assert cluster.document("apply", "--only", "2,4,6", folder=two)["changes"] == []

        # Who else comes to the database is not let in, and nothing is in the clear.
        listening = lab.exec(first, ["ss", "-Hltn", "sport", "=", ":5432"]).stdout.split()
        assert listening.count(f"{api.addresses[first]}:5432") == 1 and len(listening) == 5, "nowhere else"
        assert lab.exec(first, ["sh", "-c", "ls /etc/postgresql 2>/dev/null; true"]).stdout.split() == [], "no other PostgreSQL was made"
        assert (
            lab.exec(first, ["stat", "-c", "%a %U", "/var/lib/bzzz-ledger", "/run/bzzz-ledger"]).stdout.split()
            == ["700", "bzzz-ledger"] * 2
        )
        assert lab.exec(third, ["python3", "-c", REACH, api.addresses[first]], check=False).returncode != 0
        ways = [
            ["bzzz-gateway", "ledger", ""],
            ["bzzz-gateway", "postgres", ""],
            ["bzzz-ledger", "ledger", ""],
            ["bzzz-gateway", "ledger", "&sslmode=disable"],
            ["bzzz-gateway", "ledger", "&sslcert=/nowhere&sslkey=/nowhere"],
        ]
        said = lab.exec(second, ["python3", "-sE", "-c", INTRUDE, json.dumps(ways)]).stdout.splitlines()
        assert said[0] == "let in" and all("no pg_hba.conf entry" in each for each in said[1:4]), said
        assert "certificate" in said[4]

        # Without its ledger no gateway calls anybody.
        reached = len(answered(cluster))
        lab.exec(first, ["systemctl", "stop", "bzzz-ledger"])
        for node in both:
            refused = call(node)
            assert refused.status_code == 503 and "ledger cannot be written" in refused.text, refused.text
        assert len(answered(cluster)) == reached > 0
        assert "bzzz_ledger_up 0.0" in lab.exec(second, ["python3", "-c", METRICS, api.addresses[second]]).stdout
        lab.exec(first, ["systemctl", "start", "bzzz-ledger"])
        for node in both:
            assert call(node).status_code == 200, "at once"

        # The day's limit is reached by both together.
        for turn in range(40):
            if (over := call(both[turn % 2])).status_code != 200:
                break
        for node in both:
            over = call(node)
            assert over.status_code == 429 and over.json()["error"]["type"] == "budget_exceeded", over.text
            assert f"daily limit of user {BERTA}" in over.text
        wait_for("settled calls", lambda: {row["state"] for row in counted(cluster, first)} == {"spent"}, 10)
        rows = counted(cluster, first)
        spent = {node: sum(row["cost_nano"] for row in rows if row["gateway"].split()[0] == node) for node in both}
        limit = float(LIMIT_USD) * 1e9
        estimate = max(row["estimate_nano"] for row in rows)
        assert all(each + estimate < limit for each in spent.values()), "neither had used it up alone"
        assert limit - estimate < sum(spent.values()) <= limit
        answers = answered(cluster)
        assert (len(rows), sum(spent.values())) == (len(answers), sum(each["nano"] for each in answers))
        told = cluster.document("cost", "report", "--by", "user", folder=two)
        mine = next(row for row in told["rows"] if row["user"] == BERTA)
        assert (mine["calls"], mine["cost_nano"]) == (len(rows), sum(spent.values()))

        for node in both:
            found = leaks.on_node(lab, node, {"key": KEY})["key"]
            kept = {path for path in found if not path.startswith("/var/lib/bzzz/sets/gateway/")}
            assert kept == {"/etc/bzzz/gateway/litellm.yaml", "/opt/openai_standin.py"}


@pytest.mark.requirement("4.1.1", part="by calls through two gateways together, counted in the operator's PostgreSQL")
@pytest.mark.requirement("4.2.3", part="two gateways, the operator's PostgreSQL, on nodes")
def test_the_ledger_is_in_the_operators_postgresql(cluster: Tools, folder: Path, tmp_path: Path, theirs: str) -> None:
    api, lab = Api(cluster, tmp_path), cluster.lab
    first, second = both = cluster.nodes[:2]
    options = {
        "downloads_ca_files": [str(tmp_path / "company.crt")],
        "firewall_open_ports": ["5432/tcp"],
        "cost_users": {CARLA: {"day_usd": LIMIT_USD}},
    }
    there = f"postgresql://gateway:{{}}@{api.addresses[theirs]}:5432/ledger"
    given = {"url": PASSWORD, "wrong": "another-secret-0123456789"}
    cluster.setup("apply", "--only", "2,4,6")  # nothing is left of the test before
    with leaks.Watch(given, cluster.home) as watch:
        wrong = several(cluster, folder, tmp_path / "wrong", options, {"cost_database_url": there.format(given["wrong"])})
        failures = cluster.document("apply", "--only", "2,4,6", folder=wrong, code=3)["failures"]
        assert {failure["node"] for failure in failures} == set(both)
        assert all(
            "password authentication failed" in each["message"] and "correct cost_database_url" in each["message"] for each in failures
        )
        right = several(cluster, folder, tmp_path / "right", options, {"cost_database_url": there.format(PASSWORD)})
        done = cluster.document("apply", "--only", "2,4,6", folder=right)
        again = cluster.document("apply", "--only", "2,4,6", folder=right)
    status = {check["id"]: check["status"] for check in done["checks"]}
    assert set(status.values()) <= {"pass", "skip"} and status["gateway-ledger"] == "pass", status
    assert again["changes"] == [] and not watch.found
    assert not any(secret in json.dumps([done, again]) for secret in given.values())
    with issued(api, first, CARLA) as token:
        for node in both:
            wait_for(f"a call through {node}", lambda node=node: called(api, node, token).status_code == 200, 20)  # type: ignore[misc]
        for turn in range(40):
            if called(api, both[turn % 2], token).status_code != 200:
                break
        for node in both:
            assert called(api, node, token).status_code == 429

        def rows() -> list[dict[str, Any]]:
            return counted(cluster, theirs, CARLA, owner="postgres", at="/run/postgresql")

        wait_for("settled calls", lambda: {row["state"] for row in rows()} == {"spent"}, 10)
        assert {row["gateway"].split()[0] for row in rows()} == set(both)
        assert 0.9 * float(LIMIT_USD) * 1e9 < sum(row["cost_nano"] for row in rows()) <= float(LIMIT_USD) * 1e9
        told = cluster.document("cost", "report", "--by", "user", folder=right)
        assert next(row for row in told["rows"] if row["user"] == CARLA)["calls"] == len(rows())
        lab.exec(theirs, ["systemctl", "stop", "postgresql"])
        assert called(api, second, token).status_code == 503
        lab.exec(theirs, ["systemctl", "start", "postgresql"])
        wait_for("the ledger", lambda: called(api, second, token).status_code == 429, 30)
    for node in both:
        kept = {path for path in leaks.on_node(lab, node, given)["url"] if not path.startswith("/var/lib/bzzz/sets/gateway/")}
        assert kept == {"/etc/bzzz/gateway/ledger-url"}
