# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Events of runs on clusters that no lab has: GPUs by recordings of real tools read by the product's own parsers, up to 200 nodes."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from ansible_collections.bzzz.cluster.plugins.module_utils.benchmark import checks as benchmark_checks
from ansible_collections.bzzz.cluster.plugins.module_utils.node import gpu_amd, gpu_nvidia
from ansible_collections.bzzz.cluster.plugins.module_utils.problems import problem

from bzzz_setup.events import Event, Message, RunFinished, RunStarted, StepStarted, TaskFinished, TaskStarted
from bzzz_setup.steps import steps

FIXTURES = Path(__file__).parent / "fixtures/gpu"
STARTED = 1_795_000_000.0
TITLES = (
    "The operating system is one of those supported", "systemd runs the node", "CPU threads", "Memory in MiB", "The SSH user is there",
    "Every other node answers on its SSH port", "The firewall comes back after a reboot", "sudoers is valid as a whole",
    "Every port that the cluster needs is open on every peer", "Exactly the declared keys may log in as the SSH user",
    "The node's certificate is issued by the cluster's authority", "The data path is there and belongs to the services",
)  # fmt: skip
DISK_FULL = problem(
    "resources_models_path", "/srv, where /srv/models is, has 912 MiB free; 1024 are wanted.", "Make room there (df -h /srv)."
)

FULL = {
    "seen": "912 MiB free",
    "expected": "at least 1024 MiB",
    "remedy": "Free space there: du -xhd1 /srv. Else choose another resources_models_path.",
}


def a100s(number: int = 8) -> dict[str, Any]:
    """One recorded A100 as often as a machine has it, on two NUMA nodes, every two joined by 12 NVLinks."""
    (device,), _ = gpu_nvidia.parse_nvidia_smi((FIXTURES / "nvidia-smi-q-x.a100-sxm4-v12.xml").read_text(encoding="utf-8"))
    head = "\t" + "\t".join(f"GPU{index}" for index in range(number))
    rows = [f"GPU{a}\t" + "\t".join("X" if a == b else "NV12" for b in range(number)) for a in range(number)]
    devices = [
        {
            **device,
            "index": index,
            "numa_node": index * 2 // number,
            "pci_address": f"0000:{index * 16 + 7:02x}:00.0",
            "uuid": f"{device['uuid'][:-2]}{index:02x}",
            "memory_used_mib": 1024 + 9000 * index,
            "pcie_gts": 16.0,
            "pcie_width": 16,
        }
        for index in range(number)
    ]
    links = gpu_nvidia.parse_nvidia_topology("\n".join([head, *rows]))
    return {"devices": devices, "links": [{"vendor": "nvidia", **one} for one in links], "problems": []}


def mixed() -> dict[str, Any]:
    """Three NVIDIA cards as the hand-made topology joins them, and four recorded MI100."""
    (device,), _ = gpu_nvidia.parse_nvidia_smi((FIXTURES / "nvidia-smi-q-x.rtx-4000-sff-ada-v13.xml").read_text(encoding="utf-8"))
    nvidia = [{**device, "index": index, "numa_node": index // 2} for index in range(3)]
    links = gpu_nvidia.parse_nvidia_topology((FIXTURES / "nvidia-smi-topo-m.txt").read_text(encoding="utf-8"))
    links += [{**links[0], "between": [0, 1], "path": "PIX", "kind": "pcie"}]
    told = (FIXTURES / "rocm-smi.mi100_rocm602.json").read_text(encoding="utf-8")
    amd, joined = gpu_amd.parse_rocm_smi(told)
    amd = [
        {**card, "vendor": "amd", "numa_node": card["numa_node"] if card["numa_node"] is not None else index // 2}
        for index, card in enumerate(amd)
    ]
    told_links = [{"vendor": "nvidia", **one} for one in links] + [{"vendor": "amd", **one} for one in joined]
    return {"devices": [*nvidia, *amd], "links": told_links, "problems": []}


def facts(number: int, name: str, gpus: dict[str, Any]) -> dict[str, Any]:
    address = {"address": f"10.20.{number // 250}.{number % 250 + 1}", "prefix": 16, "scope": "global"}
    return {
        "bzzz_gpu": gpus,
        "bzzz_network": {
            "interfaces": [
                {
                    "name": "eno1", "kind": "physical", "state": "up", "up": True, "carrier": True, "speed_mbps": 25000, "mtu": 9000,
                    "mac": f"02:00:00:00:{number // 256:02x}:{number % 256:02x}", "driver": "mlx5_core", "addresses": [address],
                }
            ],
            "primary_interface": "eno1",
            "problems": [],
        },
        "bzzz_system": {
            "os": {
                "name": "Debian GNU/Linux 12 (bookworm)", "architecture": "x86_64", "kernel": "6.1.0-28-amd64", "hostname": name,
                "python_version": "3.11.2", "hardware": "Supermicro AS-4124GO-NART", "container": None,
            },
            "cpu": {
                "model": "AMD EPYC 7763 64-Core Processor", "sockets": 2, "cores": 128, "threads": 256, "flags": ["avx2", "f16c", "fma"],
                "governor": "performance",
                "numa": [{"node": node, "cpus": f"{node * 64}-{node * 64 + 63}", "memory_total_mib": 515_000} for node in (0, 1)],
            },
            "memory": {
                "total_mib": 1_031_000, "available_mib": 900_000 - 20_000 * (number % 9), "swap_total_mib": 8192, "swap_free_mib": 8192,
            },
            "disks": [
                {"name": "nvme0n1", "size_mib": 7_325_000, "model": "SAMSUNG MZQL27T6HBLA", "rotational": False},
                {"name": "sda", "size_mib": 457_000, "model": "INTEL SSDSC2KB48", "rotational": False},
            ],
            "mounts": [
                {"path": "/", "device": "/dev/sda2", "type": "ext4", "read_only": False, "total_mib": 448_000, "available_mib": 391_000},
                {"path": "/srv", "device": "/dev/nvme0n1p1", "type": "xfs", "read_only": False, "total_mib": 7_300_000,
                 "available_mib": 390_000 if number % 3 == 1 else 5_900_000},
            ],
            "problems": [],
        },
    }  # fmt: skip


def check(node: str, identity: str, title: str, status: str = "pass", **more: Any) -> dict[str, Any]:
    return {
        "id": identity, "node": node, "title": title, "status": status, "role": "resources", "requirement": "5.3.1", "seen": "as declared",
        "expected": "as declared", "remedy": "Run step 5 again: bzzz-setup apply --only 5.", "data": {}, **more,
    }  # fmt: skip


def diff(node: str, path: str, before: str, after: str) -> dict[str, Any]:
    return {"node": node, "before_header": path, "after_header": path, "before": before, "after": after}


def rows(names: list[str], node: str, chance: random.Random, cut: tuple[str, str] | None = None) -> list[dict[str, Any]]:
    """This node's ways to all others, as kind `peers` tells them."""
    at = {name: index for index, name in enumerate(names)}
    told = []
    for peer in names:
        gone = (node, peer) == cut
        far = at[node] // 8 != at[peer] // 8
        address = f"10.20.0.{at[peer] + 1}"
        row = {"peer": peer, "address": address, "reachable": not gone, "why": "no answer in 2 s" if gone else "connected"}
        row["latency_ms"] = None if gone else round(chance.uniform(0.04, 0.09) * (7 if far else 1), 3)
        row |= {"mtu": 1500 if (node, peer) == (names[-1], names[0]) else 9000, "resolves": [address], "sent": 20, "lost": 0}
        told += [row] if peer != node else []
    return told


def run(
    nodes: int = 4,
    checks: int = 24,
    command: str = "apply",
    broken: bool = True,
    changes: int = 6,
    name: str = "gpu{:02}",
) -> list[Event]:
    """A run of all steps. `broken`: one node's disk is full, another's way is cut, and one is not reached in the end."""
    chance = random.Random(7)
    names = [name.format(number) for number in range(1, nodes + 1)]
    kinds = [a100s(), mixed(), {"devices": [], "links": [], "problems": []}]
    at = STARTED
    events: list[Event] = [
        RunStarted(
            at=at,
            run="20261118-120000-1-apply",
            command=command,
            cluster="atlas",
            inventory="/srv/inventories/atlas",
            steps=list(range(1, 9)),
        )
    ]
    cluster = {
        "name": "atlas",
        "coordinators": names[:3],
        "nodes": [
            {"name": one, "address": f"10.20.0.{number}", "groups": ["bzzz", "workers", *(["coordinators"] if number <= 3 else [])]}
            for number, one in enumerate(names, 1)
        ],
    }
    lost = names[-1] if broken and nodes > 2 else None

    def done(step: int, node: str, **more: Any) -> None:
        events.append(TaskStarted(at=at, step=step, node=node, role="resources", task="Land"))
        events.append(
            TaskFinished(
                **{"at": at, "step": step, "node": node, "role": "resources", "task": "Land", "status": "ok", "seconds": 1.0, **more}
            )
        )

    for step in steps():
        events.append(StepStarted(at=at, step=step.number))
        for number, node in enumerate(names):
            if lost == node and step.number > 5:
                continue
            told: dict[str, Any] = {"seconds": round(chance.uniform(2, 4) * (3 if number == 1 else 1), 2)}
            if step.number == 1:
                told["facts"] = facts(number, node, kinds[number % len(kinds)])
                if number == 0:
                    told["facts"]["bzzz_cluster"] = cluster
                    told["problems"] = [{**DISK_FULL, "node": names[1], "severity": "warning"}] if broken and nodes > 1 else []
            if step.number in (2, 3, 5, 6) and changes:
                told["status"] = "changed" if command in ("apply", "plan") else "ok"
                told["changes"] = [{"kind": "file", "name": f"/etc/bzzz/part-{one}.conf", "what": "change"} for one in range(changes)]
                told["diff"] = [
                    diff(
                        node,
                        f"/etc/bzzz/part-{one}.conf",
                        "# managed\nport = 8080\nlimit = 4\n",
                        "# managed\nport = 8080\nlimit = 8\n" + ("" if one else f"address = {node}\n"),
                    )
                    for one in range(changes)
                ]
            if step.number == 5 and lost == node:
                told |= {"status": "unreachable", "message": "Connection timed out during banner exchange", "changes": [], "diff": []}
            if step.number == 8:
                told["checks"] = [
                    check(
                        node,
                        f"c{one}",
                        f"{TITLES[one % len(TITLES)]}{f' ({one})' if one >= len(TITLES) else ''}",
                        "skip" if one == checks - 1 else "pass",
                    )
                    for one in range(checks)
                ]
                told["checks"].append(check(node, "peers", "Every other node answers", requirement="1.3.4", role="network", data={
                    "rows": rows(names, node, chance, (names[0], names[-1]) if broken else None),
                    "clock": {"offset_seconds": round(chance.uniform(-0.02, 0.02), 4), "uncertainty_seconds": 0.001},
                }))  # fmt: skip
                if broken and number == 1:
                    told["checks"][0] = check(node, "models-space", "Free space for models", "fail", **FULL)
                    told["status"] = "failed"
                figures = {
                    "disk": {"mib": 64, "mib_per_second": round(chance.uniform(900, 1900), 1)},
                    "http": {"requests": 20, "median_ms": round(chance.uniform(9, 16), 2), "slowest_ms": 31.0},
                }
                told["checks"] += benchmark_checks(node, "validation", figures, {"disk": 0, "http": 0})
            done(step.number, node, **told)
        at += chance.uniform(5, 60)
    if broken:
        events.append(Message(at=at, level="warning", text="Could not match supplied host pattern, ignoring: storage"))
    failed = [names[1]] if broken and nodes > 1 else []
    events.append(RunFinished(at=at, returncode=2 if broken else 0, failed=failed, unreachable=[lost] if lost else []))
    return events
