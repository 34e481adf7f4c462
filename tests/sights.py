# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a detection has seen of machines that no lab has, and the journal that a wizard finds it in."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

from ansible_collections.bzzz.cluster.plugins.module_utils.declaration import declare, load_specs
from ansible_collections.bzzz.cluster.plugins.module_utils.models import wanted
from report_events import STARTED, a100s, check, facts, mixed, rows

from bzzz_setup.events import Event, RunFinished, RunStarted, TaskFinished


def _interface(name: str, address: str, **changes: Any) -> dict[str, Any]:
    own, _, network = address.partition(" ")
    addresses = [{"address": own, "prefix": int(network.partition("/")[2]), "network": network, "family": 4, "scope": "global"}]
    plain = {"kind": "physical", "state": "up", "up": True, "carrier": True, "speed_mbps": 1000, "mtu": 1500, "mac": None, "driver": None}
    return {"name": name, **plain, "addresses": addresses, **changes}


def machine(number: int, gpus: dict[str, Any] | None = None) -> dict[str, Any]:
    """Its facts: two interfaces that the cluster could use, and Docker's bridge."""
    found = facts(number, f"n{number}", gpus or {"devices": [], "links": [], "problems": []})
    found["bzzz_network"] |= {
        "interfaces": [
            _interface("docker0", "172.17.0.1 172.17.0.0/16", kind="bridge", speed_mbps=None, mac="02:42:00:00:00:01"),
            _interface("eno1", f"192.0.2.{number} 192.0.2.0/24", mac=f"02:00:00:00:00:{number:02x}", driver="igb"),
            _interface("ib0", f"10.9.0.{number} 10.9.0.0/16", kind="infiniband", speed_mbps=200000, mtu=4092, driver="mlx5_core"),
            {**_interface("lo", "127.0.0.1 127.0.0.0/8", kind="loopback"), "state": "unknown"},
        ],
        "routes": [],
    }
    found["bzzz_ports"] = {"listeners": [], "reserved": [], "ephemeral": {"first": 32768, "last": 60999}, "problems": []}
    return found


def machines() -> dict[str, dict[str, Any]]:
    """n1 has four A100, a web server where the node service is to be, and a bridge in the cluster's network.

    n2 has GPUs of two vendors, and a node service.
    """
    one, two = machine(1, a100s(4)), machine(2, mixed())
    one["bzzz_network"]["interfaces"].append(_interface("br-lab", "192.0.2.129 192.0.2.128/25", kind="bridge", speed_mbps=None))
    one["bzzz_ports"]["listeners"] = [
        {"protocol": "tcp", "address": address, "port": 8080, "pid": 4711, "program": "nginx", "unit": "nginx.service"}
        for address in ("0.0.0.0", "::")
    ]
    own = {"protocol": "tcp", "address": "192.0.2.2", "port": 3000, "pid": 9, "program": "python3", "unit": "bzzz-node.service"}
    two["bzzz_ports"]["listeners"] = [own]
    return {"n1": one, "n2": two}


def detected(inventory: Path, state: Path, seen: dict[str, dict[str, Any]]) -> None:
    """Leave the journal of a run that has seen this. `state`: where the cluster's runs are kept."""
    _ran(inventory, state, "20261118-120000-1-detect", 1, [_look(node, facts=found) for node, found in seen.items()])


def tried(inventory: Path, state: Path, names: list[str]) -> str:
    """Leave the journal of a test of connections, in which the first machine's way to the last is cut; returns the run's name."""
    name, chance = "20261118-120500-1-plan", random.Random(7)
    ways = {node: rows(names, node, chance, (names[0], names[-1])) for node in names}
    checks = [
        check(node, "peers", "Peers answer", "fail" if node == names[0] else "pass", role="network", data={"rows": ways[node]})
        for node in names
    ]
    _ran(inventory, state, name, 2, [_look(one["node"], checks=[one]) for one in checks])
    return name


def _look(node: str, **found: Any) -> TaskFinished:
    return TaskFinished(at=STARTED, step=0, node=node, role="detection", task="Look", status="ok", seconds=1.0, **found)


def _ran(inventory: Path, state: Path, name: str, step: int, looks: list[TaskFinished]) -> None:
    command = name.rpartition("-")[2]
    events: list[Event] = [
        RunStarted(at=STARTED, run=name, command=command, cluster="trial", inventory=str(inventory), steps=[step]),
        *(dataclasses.replace(look, step=step) for look in looks),
        RunFinished(at=STARTED, returncode=0, failed=[], unreachable=[]),
    ]
    folder = state / "runs" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "events.jsonl").write_text("".join(f"{event.to_json()}\n" for event in events), encoding="utf-8")


GEOMETRY = {"layers": 64, "embedding": 5120, "heads": 40, "heads_kv": 8, "head_length": 128, "vocabulary": 151936}
WANTED: list[dict[str, Any]] = [
    {"name": "qwen3:32b", "size_mib": 19300, "context": 32768, "replicas": 2, "overhead_mib": 1200, "geometry": GEOMETRY},
    {"name": "coder:123b", "size_mib": 120000, "context": 16384, "overhead_mib": 2000, "geometry": GEOMETRY},
    {"name": "small:3b", "size_mib": 2000, "gpu": "never", "overhead_mib": 300, "geometry": {**GEOMETRY, "layers": 28, "embedding": 3072}},
    {"name": "giant:671b", "size_mib": 700000, "gpu": "required", "overhead_mib": 2000, "geometry": GEOMETRY},
    {"name": "unheard-of"},
]


def fit() -> dict[str, Any]:
    """Where these models would go on `machines`, with more disk than those have: what `bzzz-setup models plan` works out."""
    seen, specs = machines(), load_specs()
    for number, facts_ in enumerate(seen.values()):
        facts_["bzzz_system"]["mounts"] = [{"path": "/", "available_mib": 1_000_000}]
        for at, device in enumerate(facts_["bzzz_gpu"]["devices"]):  # recordings are of the same device more than once
            device |= {"uuid": device.get("uuid") and f"GPU-{number}{at}", "mig": None}
    readers = {"models_wanted": lambda: WANTED}
    declared = {name: declare(specs, readers, name)[0] for name in seen}
    found: dict[str, Any] = wanted.told(wanted.outlook(declared, seen), declared, seen)
    return found
