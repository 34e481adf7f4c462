# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the roles gateway, openai and cost make of a declaration, and which declarations are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from declarations import cluster_of, facts_of, judge, judge_on, listener
from hypothesis import given, settings
from hypothesis import strategies as st
from test_portable import front

from bzzz_setup.declaration import Declaration
from bzzz_setup.gateway.budgets import Invalid, Scope, load
from bzzz_setup.gateway.settings import parse

KEY = "sk-c4nary-0f-a-key"
ON: dict[str, Any] = {"gateway_enabled": True, "openai_api_key": KEY}
DATABASE = f"postgresql://gateway:{KEY}@db.example.com/ledger"
LOCAL = {"name": "here", "kind": "ollama", "url": "http://127.0.0.1:11434"}


def refused(given: dict[str, Any]) -> list[tuple[str | None, str]]:
    assert KEY not in repr(judge(given))
    return [(each["option"], each["message"]) for each in judge(given, cluster_of(1))]


@pytest.mark.requirement("3.1.3", part="roles")
@pytest.mark.requirement("3.2.1", part="roles")
@pytest.mark.requirement("3.2.3", part="roles")
@pytest.mark.requirement("3.2.4", part="roles")
@pytest.mark.requirement("3.4.2", part="roles")
@pytest.mark.requirement("3.1.4", part="roles: metrics")
@pytest.mark.requirement("3.4.1", part="roles: the cluster's own nodes")
@pytest.mark.requirement("3.4.4", part="roles: weights and strategy")
@pytest.mark.requirement("4.1.2", part="roles")
@pytest.mark.requirement("4.1.3", part="roles")
@pytest.mark.requirement("4.2.1", part="roles")
def test_the_files_are_what_the_gateway_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "releases").mkdir()
    options = {
        "declaration_cluster_name": "trial",
        "gateway_enabled": True,
        "gateway_models": [
            {"name": "mixed", "model": "gpt-5-mini", "weight": 2, "parameters": {"temperature": 0.2, "timeout": 30}},
            {"name": "mixed", "model": "llama3.2:3b", "endpoint": "here", "weight": 3},
            {"name": "far", "endpoint": "away", "input_usd_per_million": 2.0, "output_usd_per_million": 8.0},
            {"name": "own", "model": "tiny", "endpoint": "cluster", "weight": 2},
        ],
        "gateway_endpoints": [{**LOCAL, "weight": 24}, {"name": "away", "url": "https://gpu9.example.com/v1/"}],
        "gateway_balancing": "least_busy",
        "gateway_fallbacks": {"mixed": ["gpt-5", "far"]},
        "gateway_tasks": {"coding": "gpt-5"},
        "gateway_members": {"anna": ["search"]},
        "openai_organization": "org-1",
        "openai_projects": {"search": "proj_1"},
        "cost_time_zone": "Europe/Berlin",
        "cost_all": {"day_usd": 50, "month_usd": 1000, "project_shares": {"search": 60}},
        "cost_projects": {"search": {"day_usd": 25, "user_shares": {"anna": 50}}},
        "cost_users": {"*": {"day_usd": "2.50"}},
        "cost_warn_percent": [80],
        "downloads_http_proxy": "http://proxy.example.com:3128",
        "downloads_no_proxy": [".example.com"],
    }
    hosts = {"bzzz": {"children": {"coordinators": {"hosts": {"n1": {"ansible_host": "10.0.0.11"}, "n2": {"ansible_host": "10.0.0.12"}}}}}}
    secrets = {"openai_api_key": KEY, "gateway_endpoint_keys": f"away={KEY}-2", "downloads_proxy_credentials": f"bzzz:{KEY}"}
    Declaration(tmp_path / "inventory", hosts, options, "", secrets).create()
    shown = front("--json", "export", "all", "-i", str(tmp_path / "inventory"))
    assert KEY not in shown
    nodes = json.loads(shown)["nodes"]
    files = {item["path"]: item["content"] for item in nodes["n1"]["files"]}
    assert not any("gateway" in item["path"] for item in nodes["n2"]["files"])
    unit = files["/etc/systemd/system/bzzz-gateway.service"]
    assert "bin/bzzz-gateway" in unit and "EnvironmentFile=/etc/bzzz/gateway/proxy.env" in unit
    proxied = files["/etc/bzzz/gateway/proxy.env"]
    assert "HTTPS_PROXY=http://@@proxy_login@@proxy.example.com:3128\n" in proxied.replace("'", "")
    direct = proxied.partition("NO_PROXY=")[2].strip().strip("'").split(",")
    assert {"gpu9.example.com", "127.0.0.1", "10.0.0.11"} <= set(direct) and "api.openai.com" not in direct

    gateway = json.loads(files["/etc/bzzz/gateway/gateway.yaml"])
    assert gateway["tokens"] == {"node": "https://127.0.0.1:8080", "ca": "/etc/bzzz/tls/service-ca.crt"}
    read = parse({**gateway, "tokens": {"file": "tokens.json"}})  # there is no such authority here
    assert (read.default_model, read.tasks, read.openai.organization) == ("gpt-5", {"coding": "gpt-5"}, "org-1")
    assert read.openai.project_of("search") == "proj_1" and str(read.budgets.zone) == "Europe/Berlin"
    amounts = {(str(scope), period): nano / 10**9 for (scope, period), nano in read.budgets.limits.items()}
    assert amounts["the whole cluster", "month"] == 1000 and amounts[str(Scope("project", "search")), "day"] == 25
    assert amounts["user anna in project search", "day"] == 12.5 and amounts["user *", "day"] == 2.5

    assert read.shared and [(each["name"], each["model"], each["weight"]) for each in read.shared.models] == [("own", "tiny", 2)]
    assert files["/etc/bzzz/ollama-token"] == "@@ollama_token@@\n" and read.shared.token_file == "/etc/bzzz/ollama-token"
    other = {item["path"]: item["content"] for item in nodes["n2"]["files"]}
    assert "ollama:\n  ports: [11434]\n" in other["/etc/bzzz/config.yaml"]
    assert "/etc/bzzz/ollama-token" not in other and "SHA-256 of a token" in other["/etc/bzzz/config.yaml"].partition("ollama:")[2]
    assert read.metrics and (read.metrics.port, read.metrics.client_ca) == (4001, "/etc/bzzz/tls/ca.crt")
    litellm = json.loads(files["/etc/bzzz/gateway/litellm.yaml"])
    mini, local, far, default = litellm["model_list"]
    assert mini["litellm_params"] == {
        **{"model": "openai/gpt-5-mini", "api_base": "https://api.openai.com/v1", "max_retries": 0, "weight": 2},
        **{"temperature": 0.2, "timeout": 30, "api_key": mini["litellm_params"]["api_key"]},
    }
    assert local["litellm_params"] == {
        **{"model": "ollama_chat/llama3.2:3b", "api_base": "http://127.0.0.1:11434", "max_retries": 0, "weight": 72},
    }
    assert far["model_info"] == {"endpoint": "away", "input_cost_per_token": 2e-06, "output_cost_per_token": 8e-06}
    assert mini["model_info"] == {} and local["model_info"] == {"endpoint": "here"}
    assert default["model_name"] == "gpt-5" and default["litellm_params"]["model"] == "openai/gpt-5"
    router = {"num_retries": 0, "routing_strategy": "least-busy", "fallbacks": [{"mixed": ["gpt-5", "far"]}]}
    assert litellm["router_settings"] == router and litellm["litellm_settings"]["num_retries"] == 0


def price(fresh: float, out: float) -> dict[str, float]:
    return {"input_usd_per_million": fresh, "output_usd_per_million": out}


@pytest.mark.requirement("3.1.1", part="a missing key")
@pytest.mark.requirement("4.2.1", part="sums are checked")
@pytest.mark.parametrize(
    ("given", "option", "words"),
    [
        ({"cost_all": {"day_usd": 5}}, "gateway_enabled", "without the AI gateway nothing is held"),
        ({"gateway_enabled": True}, "openai_api_key", "no key for them"),
        ({**ON, "gateway_nodes": ["n1", "n1"]}, "gateway_nodes", "one gateway"),
        ({**ON, "gateway_nodes": ["n1"], "cost_database_node": "n9"}, "cost_database_node", "n9 is none"),
        ({**ON, "cost_database_node": "n1", "cost_database_url": DATABASE}, "cost_database_node", "in one place"),
        ({**ON, "cost_database_url": "db.example.com"}, "cost_database_url", "not a PostgreSQL's URL"),
        ({**ON, "cost_database_url": f"mysql://u:{KEY}@h/l"}, "cost_database_url", "not a PostgreSQL's URL"),
        ({**ON, "cost_database_node": "n1", "cost_database_port": 2379}, "cost_database_port", "2379 is also"),
        ({**ON, "gateway_nodes": ["n9"]}, "gateway_nodes", "n9 is none"),
        ({**ON, "gateway_port": 8080}, "service_port", "8080 is also"),
        ({**ON, "gateway_metrics_port": 9100}, "metrics_node_exporter_port", "9100 is also"),
        ({**ON, "gateway_models": [{"name": "x", "endpoint": "gone"}]}, "gateway_models", "not declared"),
        ({**ON, "gateway_models": [{"name": "x,y"}]}, "gateway_models", "a comma has no place"),
        ({**ON, "gateway_default_model": "x,y"}, "gateway_default_model", "a comma has no place"),
        ({**ON, "gateway_models": [{"name": "x", "parameters": {"api_base": "http://x"}}]}, "gateway_models", "api_base is no parameter"),
        ({**ON, "gateway_models": [{"name": "x", "parameters": {"silent_model": "y"}}]}, "gateway_models", "cost more than is counted"),
        ({**ON, "gateway_models": [{"name": "x", "output_usd_per_million": 8}]}, "gateway_models", "half a price"),
        ({**ON, "gateway_models": [{"name": "x", **price(-1, 2)}]}, "gateway_models", "input_usd_per_million must be 0 to"),
        ({**ON, "gateway_models": [{"name": "x", **price(1, float("nan"))}]}, "gateway_models", "must be a number, not nan"),
        ({**ON, "gateway_models": [{"name": "gpt-5-mini", **price(0, 0)}]}, "gateway_models", "no budget holds its calls"),
        ({**ON, "gateway_models": [{"name": "x", "model": "gpt5-mini"}]}, "gateway_models", "Nobody knows what gpt5-mini costs"),
        ({**ON, "gateway_default_model": "gtp-5"}, "gateway_default_model", "Nobody knows what gtp-5 costs"),
        ({**ON, "gateway_default_model": ""}, "gateway_default_model", "no model of this name"),
        ({**ON, "gateway_default_model": "review", "gateway_tasks": {"review": "gpt-5"}}, "gateway_default_model", "This is a task"),
        ({**ON, "gateway_models": [{"name": "x", "parameters": {"temperature": "hot"}}]}, "gateway_models", "temperature must be a number"),
        ({**ON, "gateway_models": [{"name": "x", "parameters": {"temprature": 0.2}}]}, "gateway_models", "temprature is no parameter"),
        ({**ON, "gateway_endpoints": [{**LOCAL, "url": "http://gpu9:11434/v1"}]}, "gateway_endpoints", "not below /v1"),
        ({**ON, "gateway_endpoints": [LOCAL, LOCAL]}, "gateway_endpoints", "Two endpoints"),
        ({**ON, "gateway_endpoints": [{**LOCAL, "url": "gpu9"}]}, "gateway_endpoints", "no base URL"),
        ({**ON, "gateway_endpoints": [{**LOCAL, "url": f"http://u:{KEY}@h"}]}, "gateway_endpoints", "readable by everybody"),
        ({**ON, "gateway_tasks": {"coding": "gpt-6"}}, "gateway_tasks", "coding"),
        (
            {**ON, "gateway_tasks": {"gpt-5-mini": "gpt-5"}, "gateway_models": [{"name": "gpt-5-mini"}]},
            "gateway_tasks",
            "A task and a model",
        ),
        ({**ON, "gateway_fallbacks": {"gpt-5": ["gpt-5"]}}, "gateway_fallbacks", "gpt-5 falls back to itself"),
        ({**ON, "gateway_fallbacks": {"gpt-5": ["smal"]}}, "gateway_fallbacks", "smal, to which gpt-5 falls back, is no model"),
        ({**ON, "gateway_fallbacks": {"gpt-5": ["t"]}, "gateway_tasks": {"t": "gpt-5"}}, "gateway_fallbacks", "falls back, is a task"),
        ({**ON, "gateway_fallbacks": {"gpt-5": []}}, "gateway_fallbacks", "no list of models, each once"),
        ({**ON, "gateway_members": {"anna": "search"}}, "gateway_members", "anna"),
        ({**ON, "cost_time_zone": "Europe/Atlantis"}, "cost_time_zone", "no such time zone"),
        ({**ON, "cost_all": {"day_usd": 5, "project_shares": {"a": 60, "b": 50}}}, "cost_all", "sum to 110 percent"),
        ({**ON, "cost_all": {"project_shares": {"a": 60}}}, "cost_all", "no limit"),
        ({**ON, "cost_users": {"anna": {"daily": 5}}}, "cost_users", "no daily"),
        ({**ON, "cost_warn_percent": [0]}, "cost_warn_percent", "no part"),
        ({**ON, "gateway_members": {"a": ["search"]}, "cost_projects": {"serch": {"day_usd": 1}}}, "cost_projects", "project of no member"),
        ({**ON, "cost_users": {"anna": {}}}, "cost_users", "anna has a budget without a limit"),
        ({**ON, "cost_expected": [{"model": "gpt-6", "calls_per_day": 1}]}, "cost_expected", "No call could name"),
        ({**ON, "cost_all": {"day_usd": 5}, "cost_users": {"anna": {"day_usd": 6}}}, "cost_users", "anna: day_usd is more than all"),
        ({**ON, "cost_projects": {"*": {"day_usd": 6, "month_usd": 5}}}, "cost_projects", "A day may have more than its month"),
    ],
)
def test_what_cannot_work_is_refused(given: dict[str, Any], option: str, words: str) -> None:
    assert any(found in (option, "gateway_port", "gateway_metrics_port") and words in message for found, message in refused(given)), (
        refused(given)
    )


def test_a_gateway_that_is_off_takes_no_port() -> None:
    assert refused({"gateway_port": 8080}) == [] and refused(ON) == []
    # Nor does a database that is not there.
    assert refused({**ON, "cost_database_port": 8080}) == [] and refused({**ON, "cost_database_url": DATABASE}) == []


@pytest.mark.requirement("4.2.3", part="a ledger is not left behind")
def test_a_ledger_that_would_be_left_behind_is_told() -> None:
    three = cluster_of(3, coordinators=3)
    runs = facts_of(listeners=(listener(5432, "postgres", unit="bzzz-ledger.service", where="10.0.0.11"),))
    facts = {"n1": runs, "n2": facts_of(), "n3": facts_of()}

    def told(**more: Any) -> list[Any]:
        return [each["message"] for each in judge_on(facts, {**ON, **more}, three) if each["option"].startswith("cost_database")]

    assert told(gateway_nodes=["n1", "n2"]) == told(gateway_nodes=["n2", "n3"], cost_database_node="n1") == []
    for more in ({"gateway_nodes": ["n1"]}, {"gateway_nodes": ["n2", "n1"]}, {"cost_database_url": DATABASE}):
        (message,) = told(**more)
        assert "is in PostgreSQL on n1 and would be left there" in message
    # Somebody else's PostgreSQL keeps the port; where ours does not come, it is in nobody's way.
    foreign = facts_of(listeners=(listener(5432, "postgres", unit="postgresql@15-main.service", where="127.0.0.1"),))
    facts = {"n1": facts_of(), "n2": foreign, "n3": facts_of()}
    assert told(gateway_nodes=["n1", "n2"]) == []
    (message,) = told(gateway_nodes=["n2", "n1"])
    assert "Port 5432 is taken by postgres" in message


@pytest.mark.requirement("4.2.3", part="roles: one ledger of several gateways")
def test_several_gateways_share_a_ledger_in_postgresql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    nodes = {"n1": {"ansible_host": "10.0.0.11"}, "n2": {"ansible_host": "10.0.0.12"}, "n3": {"ansible_host": "10.0.0.13"}}
    hosts = {"bzzz": {"children": {"coordinators": {"hosts": nodes}}}}

    def files(name: str, secrets: dict[str, str], **more: Any) -> dict[str, dict[str, str]]:
        options = {"declaration_cluster_name": name, "gateway_enabled": True, **more}
        Declaration(tmp_path / name, hosts, options, "", {"openai_api_key": KEY, **secrets}).create()
        shown = front("--json", "export", "all", "-i", str(tmp_path / name))
        assert KEY not in shown
        found = json.loads(shown)["nodes"]
        return {node: {item["path"]: item["content"] for item in found[node]["files"]} for node in nodes}

    found = files("own", {}, gateway_nodes=["n2", "n3"])
    assert not any("gateway" in path or "ledger" in path for path in found["n1"])
    assert not any("ledger" in path for path in found["n3"])
    server = found["n2"]
    allowed = [line for line in server["/etc/bzzz/ledger/pg_hba.conf"].splitlines() if not line.startswith("#")]
    assert allowed == [
        "local all bzzz-ledger peer",
        "hostssl ledger bzzz-gateway 10.0.0.12/32 cert map=gateways",
        "hostssl ledger bzzz-gateway 10.0.0.13/32 cert map=gateways",
    ]
    known = server["/etc/bzzz/ledger/pg_ident.conf"].splitlines()[2:]
    assert known == ['gateways "n2" bzzz-gateway', 'gateways "n3" bzzz-gateway']
    assert "listen_addresses = '10.0.0.12'" in server["/etc/bzzz/ledger/postgresql.conf"]
    for node in ("n2", "n3"):
        gateway = json.loads(found[node]["/etc/bzzz/gateway/gateway.yaml"])
        read = parse({**gateway, "tokens": {"file": "tokens.json"}})
        assert read.ledger == (
            "postgresql+psycopg://bzzz-gateway@10.0.0.12:5432/ledger"
            "?sslrootcert=/etc/bzzz/tls/ca.crt&sslcert=/etc/bzzz/tls/node.crt&sslkey=/etc/bzzz/tls/node.key"
        )
        assert read.former_ledger == "/var/lib/bzzz-gateway/ledger.sqlite" and read.gateway == node
    given = files("given", {"cost_database_url": DATABASE}, gateway_nodes=["n1", "n2"])
    for node in ("n1", "n2"):
        assert given[node]["/etc/bzzz/gateway/ledger-url"] == "@@ledger_url@@\n"
        assert json.loads(given[node]["/etc/bzzz/gateway/gateway.yaml"])["ledger_file"] == "/etc/bzzz/gateway/ledger-url"
        assert not any(path.startswith("/etc/bzzz/ledger") for path in given[node])


amounts = st.sampled_from([0, 1, "2.50", 1e9, 2e9, -1, "x", True, None, [], 1.5])
shares = st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from([0, 50, 60, "50", 100, 101, -1, "x", True, None]), max_size=2)
budgets = st.fixed_dictionaries({}, optional={"day_usd": amounts, "month_usd": amounts})


@pytest.mark.requirement("4.2.1", part="sums are checked")
@settings(max_examples=150)
@given(st.fixed_dictionaries({}, optional={"day_usd": amounts, "project_shares": shares}), st.dictionaries(st.just("a"), budgets))
def test_the_rules_let_nothing_through_that_the_gateway_refuses(everyone: dict[str, Any], users: dict[str, Any]) -> None:
    try:
        load({"all": everyone, "users": users})
    except Invalid:
        assert refused({**ON, "cost_all": everyone, "cost_users": users})
