# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Endpoints that do not answer, in a real LiteLLM: calls go by others, or to the fallback, without waiting for them."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import pytest
from gateway import Gateway, StandIn
from node_cluster import wait_for
from openai_standin import KEY

from bzzz_setup.gateway.health import DUE_SECONDS, place
from bzzz_setup.gateway.ledger import SPENT


def test_where_an_endpoint_is_asked() -> None:
    box = {"model_info": {"endpoint": "box"}, "litellm_params": {"model": "openai/m", "api_base": "http://box/v1/", "api_key": "k"}}
    assert place(box) == ("http://box/v1/models", "k")
    ollama = {"model_info": {"endpoint": "box"}, "litellm_params": {"model": "ollama_chat/m", "api_base": "http://box:11434"}}
    assert place(ollama) == ("http://box:11434/api/version", "")
    for endpoint in (None, "", "cluster"):
        assert place({**box, "model_info": {"endpoint": endpoint}}) is None


@pytest.mark.requirement("3.4.2", part="one that is silent is called no more until it answers, in a real LiteLLM")
@pytest.mark.requirement("3.2.4", part="taken without waiting for an endpoint that is silent, in a real LiteLLM")
def test_a_silent_endpoint_is_left_for_others_and_taken_again(tmp_path: Path) -> None:
    """It takes connections and says nothing, as a machine that hangs does."""
    upstream, other = StandIn(), StandIn()
    with socket.create_server(("127.0.0.1", 0), backlog=64) as mute:
        gateway = Gateway(tmp_path / "gateway", upstream)
        config = json.loads((tmp_path / "gateway/litellm.yaml").read_text())

        def model(name: str, url: str, endpoint: str) -> dict[str, object]:
            params = {"model": "openai/gpt-4o-mini", "api_base": f"{url}/v1", "api_key": KEY, "timeout": 60}
            return {"model_name": name, "litellm_params": params, "model_info": {"endpoint": endpoint}}

        silent = f"http://127.0.0.1:{mute.getsockname()[1]}"
        config["model_list"] += [model("shared", silent, "mute"), model("shared", other.url, "other")]
        config["model_list"] += [model("lone", silent, "mute"), model("alone", silent, "mute")]
        config["router_settings"]["fallbacks"] = [{"lone": ["cheap"]}]
        (tmp_path / "gateway/litellm.yaml").write_text(json.dumps(config))
        gateway.start()
        try:
            assert gateway.chat(model="cheap").status_code == 200  # has it look
            wait_for(lambda: "does not answer" in gateway.log.read_text(), 20, "the gateway sees that one is silent")
            began = time.monotonic()
            assert all(gateway.chat(model="shared").status_code == 200 for _ in range(8))
            assert gateway.chat(model="lone").status_code == 200, "the fallback answers"
            alone = gateway.chat(model="alone")
            assert alone.status_code == 503 and "No endpoint of alone answers now" in alone.text, "nobody else is there"
            assert time.monotonic() - began < 20
            wait_for(lambda: [row["state"] for row in gateway.rows()] == [SPENT] * 10, 10, "what was called is counted")
            assert {row["provider"] for row in gateway.rows() if row["model"] == "shared"} == {"other"}

            # The other goes, too, and is back: by its port, since that is what is declared.
            other.stop()
            time.sleep(DUE_SECONDS)
            gateway.chat(model="cheap")
            wait_for(lambda: gateway.log.read_text().count("does not answer") == 2, 20, "the gateway sees that the other is gone")
            assert gateway.chat(model="shared").status_code == 503
            other.start()
            time.sleep(DUE_SECONDS)
            gateway.chat(model="cheap")
            wait_for(lambda: gateway.chat(model="shared").status_code == 200, 20, "it is called again")
            assert "answers again" in gateway.log.read_text() and KEY not in gateway.log.read_text()
        finally:
            gateway.kill()
            upstream.stop()
            other.stop()
