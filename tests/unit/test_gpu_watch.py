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
    return {"devices": [{"uuid": uuid.replace("_", "-"), "health": state} for uuid, state in health.items()]}


def test_gone_and_sick_are_failing() -> None:
    bad = gpu_watch.failing(WANTED, seen(GPU_a="ok", GPU_b="degraded"))
    assert set(bad) == {"GPU-b", "0xc0ffee"} and "not well" in bad["GPU-b"] and "does not answer" in bad["0xc0ffee"]
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
    lost: dict[str, str] = {}
    counts: dict[str, int] = {}
    row, held = 0, False
    for bad in looks:
        lost, counts = gpu_watch.judge(lost, counts, {"GPU-a": "gone"} if bad else {}, WANTED[:1])
        row = row + 1 if bad != held else 0
        if row >= (2 if bad else 4):
            held, row = bad, 0
        assert bool(lost) == held


@pytest.mark.requirement("3.5.5", part="kills in between")
def test_an_instance_is_restarted_once_and_again_when_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gpus.json").write_text(json.dumps({"instances": {"0": WANTED[:2], "1": WANTED[1:2]}}))
    state = tmp_path / "state"
    state.mkdir()
    done: list[tuple[str, str]] = []
    works = True

    def systemctl(verb: str, unit: str) -> bool:
        done.append((verb, unit.removeprefix("bzzz-ollama@").removesuffix(".service")))
        return works

    now = seen(GPU_a="ok", GPU_b="ok")
    monkeypatch.setattr(gpu_watch, "_systemctl", systemctl)
    monkeypatch.setattr(gpu_watch, "look", lambda _: now)

    def run() -> list[tuple[str, str]]:
        done.clear()
        gpu_watch.main([str(tmp_path / "gpus.json"), str(state)])
        return list(done)

    assert run() == run() == []
    now = seen(GPU_a="ok")
    works = False
    assert run() == [] and run() == [("restart", "0"), ("stop", "1")]
    assert "GPU-b" in (state / "lost").read_text()
    works = True
    assert run() == [("restart", "0"), ("stop", "1")], "what failed is done again"
    assert (state / "0.env").read_text() == "CUDA_VISIBLE_DEVICES=GPU-a\n"
    assert run() == [("stop", "1")], "started meanwhile, it would work on the processor"
    now = seen(GPU_a="ok", GPU_b="ok")
    assert [run() for _ in range(3)] == [[("stop", "1")]] * 3
    assert run() == [("restart", "0"), ("restart", "1")] and (state / "lost").read_text() == (state / "0.env").read_text() == ""
    assert run() == []
