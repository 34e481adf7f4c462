# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What becomes of an instance of Ollama whose GPUs fail and come back, by the node program alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.bzzz.cluster.plugins.module_utils.node import gpu_watch
from hypothesis import given
from hypothesis import strategies as st

WANTED = [{"uuid": "GPU-a", "vendor": "nvidia"}, {"uuid": "GPU-b", "vendor": "nvidia"}, {"uuid": "0xc0ffee", "vendor": "amd"}]


def seen(**health: str) -> dict[str, list[dict[str, str]]]:
    about = {"vendor": "nvidia", "source": "nvidia-smi"}
    return {"devices": [{**about, "uuid": uuid.replace("_", "-"), "health": state} for uuid, state in health.items()]}


def test_gone_and_sick_are_failing() -> None:
    bad = gpu_watch.failing(WANTED, seen(GPU_a="degraded", GPU_b="failed"))
    assert set(bad) == {"GPU-b", "0xc0ffee"} and "must be reset" in bad["GPU-b"] and "does not answer" in bad["0xc0ffee"]
    # A source that does not tell of health tells that it is there.
    assert gpu_watch.failing(WANTED[:1], {"devices": [{"uuid": "GPU-a", "health": None}, {"uuid": None}]}) == {}


def test_what_an_instance_is_left_with() -> None:
    assert gpu_watch.environment(WANTED, {}) == {}
    left = gpu_watch.environment(WANTED, {"GPU-a": "gone"})
    assert left == {"CUDA_VISIBLE_DEVICES": "GPU-b", "ROCR_VISIBLE_DEVICES": "GPU-c0ffee"}
    left = gpu_watch.environment(WANTED, {"GPU-a": "gone", "GPU-b": "gone"})
    assert left == {"CUDA_VISIBLE_DEVICES": "-1", "ROCR_VISIBLE_DEVICES": "GPU-c0ffee"}
    assert gpu_watch.environment(WANTED, dict.fromkeys(["GPU-a", "GPU-b", "0xc0ffee"], "gone")) is None


@given(st.lists(st.booleans(), max_size=40))
def test_it_is_lost_after_two_bad_looks_and_back_after_four_good_ones(looks: list[bool]) -> None:
    state: dict[str, gpu_watch.Held] = {}
    row, held = 0, False
    for number, bad in enumerate(looks):
        # Losses that are hours apart are each the first.
        state = gpu_watch.judge(state, {"GPU-a": "gone"} if bad else {}, WANTED[:1], number * 3600.0)
        row = row + 1 if bad != held else 0
        if row >= (2 if bad else 4):
            held, row = bad, 0
        assert bool(state["GPU-a"].why) == held


def looks_until(state: dict[str, gpu_watch.Held], bad: bool, now: float) -> tuple[dict[str, gpu_watch.Held], int]:
    """Look the same until the first GPU is held to be so; and how often that took."""
    for number in range(1, 1000):
        state = gpu_watch.judge(state, {"GPU-a": "gone"} if bad else {}, WANTED[:1], now)
        if bool(state["GPU-a"].why) == bad:
            return state, number
    raise AssertionError("it stays as it is")


def test_each_loss_within_an_hour_doubles_what_it_takes_to_come_back() -> None:
    state: dict[str, gpu_watch.Held] = {}
    took = []
    for loss in range(8):
        state, bad = looks_until(state, True, loss * 600.0)
        state, good = looks_until(state, False, loss * 600.0 + 300)
        took.append((bad, good))
    assert took == [(2, 4), (2, 8), (2, 16), (2, 32), (2, 64), (2, 128), (2, 128), (2, 128)]
    state, _ = looks_until(state, True, 7 * 600.0 + 3600)
    assert looks_until(state, False, 0)[1] == 4


class Node:
    """The watch with two instances, GPU-a and GPU-b for the first and GPU-b for the second; systemd is a stand-in."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.state, self.config = folder / "state", folder / "gpus.json"
        self.config.write_text(json.dumps({"instances": {"0": WANTED[:2], "1": WANTED[1:2]}}))
        self.state.mkdir()
        self.done: list[tuple[str, str]] = []
        self.broken: set[str] = set()
        self.now = seen(GPU_a="ok", GPU_b="ok")
        monkeypatch.setattr(gpu_watch, "_systemctl", self.systemctl)
        monkeypatch.setattr(gpu_watch, "look", lambda _: self.now)

    def systemctl(self, verb: str, unit: str) -> bool:
        number = unit.removeprefix("bzzz-ollama@").removesuffix(".service")
        self.done.append((verb, number))
        return number not in self.broken

    def run(self) -> list[tuple[str, str]]:
        self.done.clear()
        gpu_watch.main([str(self.config), str(self.state)])
        return list(self.done)

    def lost(self) -> str:
        return (self.state / "lost").read_text()


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    return Node(tmp_path, monkeypatch)


@pytest.mark.requirement("3.5.5", part="kills in between")
def test_an_instance_is_restarted_once_and_again_when_that_failed(node: Node) -> None:
    run, state = node.run, node.state
    assert run() == run() == []
    node.now = seen(GPU_a="ok")
    node.broken = {"0", "1"}
    assert run() == [] and run() == [("restart", "0"), ("stop", "1")]
    assert "GPU-b" in node.lost()
    node.broken = set()
    assert run() == [("restart", "0"), ("stop", "1")], "what failed is done again"
    assert (state / "0.env").read_text() == "CUDA_VISIBLE_DEVICES=GPU-a\n"
    assert run() == [("stop", "1")], "started meanwhile, it would work on the processor"
    node.now = seen(GPU_a="ok", GPU_b="ok")
    assert [run() for _ in range(3)] == [[("stop", "1")]] * 3
    assert run() == [("restart", "0"), ("restart", "1")] and (state / "lost").read_text() == (state / "0.env").read_text() == ""
    assert run() == []


@pytest.mark.requirement("3.5.5", part="an instance that does not start holds up no other")
def test_what_is_seen_is_kept_while_an_instance_does_not_restart(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    node.broken = {"0"}
    node.now = seen(GPU_a="ok")
    assert node.run() == [] and node.run() == node.run() == [("restart", "0"), ("stop", "1")]
    assert capsys.readouterr().out.count("is taken out") == 1, "it is told once"
    node.now = seen(GPU_a="ok", GPU_b="ok")
    assert [node.run() for _ in range(4)][-1] == [("restart", "0"), ("restart", "1")], "the other one comes back all the same"
    node.broken = set()
    assert node.run() == [("restart", "0")] and node.run() == []


@pytest.mark.requirement("3.5.5", part="a tool that does not answer stops nothing")
@pytest.mark.parametrize("source", ["pci", "the driver in /proc", None])
def test_nothing_changes_while_the_tool_tells_of_nothing(node: Node, capsys: pytest.CaptureFixture[str], source: str | None) -> None:
    nothing = {"devices": [{"vendor": "nvidia", "uuid": None, "source": source}] if source else []}
    node.now = nothing
    assert [node.run() for _ in range(5)] == [[]] * 5
    said = capsys.readouterr().out
    assert said.count("<4>") == 1 and "nvidia GPUs" in said and "nvidia GPUs" in node.lost()
    node.now = seen(GPU_a="ok")
    assert node.run() == [] and node.lost() == ""
    assert node.run() == [("restart", "0"), ("stop", "1")]
    node.now = nothing
    assert node.run() == [("stop", "1")] and "nvidia GPUs" not in node.lost(), "one look may be wrong"
    assert [node.run() for _ in range(4)] == [[("stop", "1")]] * 4 and "GPU-b" in node.lost(), "nor is one held to be back"
