# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The report as a page: whole and well-formed, whatever a node says; what is shown of it, and what never is."""

from __future__ import annotations

import base64
import copy
import hashlib
import io
import json
import re
import time
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import report_events
from ansible_collections.bzzz.cluster.plugins.module_utils.node.gpu_device import link
from ansible_collections.bzzz.cluster.plugins.module_utils.problems import problem
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from bzzz_setup import reports, terminal
from bzzz_setup.events import Event, RunFinished, RunStarted, StepStarted, TaskFinished
from bzzz_setup.report import Report
from bzzz_setup.reports import machines
from bzzz_setup.reports.network import MATRIX_NODES, network
from bzzz_setup.reports.topology import topology
from bzzz_setup.reports.view import DIFF_LINES, VARIANTS, remedy, view

VOID = {"meta", "input", "br", "hr", "img", "link"}
OPTIONAL = {"td", "th", "tr", "tbody", "thead", "li", "p", "dt", "dd", "option"}
SELF_CLOSING = {"rect", "path"}


class Page(HTMLParser):
    """Elements and texts; `wrong` is what a validator would say."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.wrong: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        self.wrong += [f"<{tag}> is never closed" for tag in self._open if tag not in OPTIONAL]
        self.ids = [attributes["id"] for _, attributes in self.tags if "id" in attributes]
        self.wrong += [f"id {one} twice" for one in set(self.ids) if self.ids.count(one) > 1]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if len(dict(attrs)) < len(attrs):
            self.wrong.append(f"<{tag}> has an attribute twice")
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in SELF_CLOSING:
            self.wrong.append(f"<{tag}/> is not closed by that")

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open[-1] != tag and self._open[-1] in OPTIONAL:
            self._open.pop()
        if not self._open or self._open.pop() != tag:
            self.wrong.append(f"</{tag}> closes nothing at {self.getpos()}")

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] not in ("style", "script"):
            self.texts.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts).split())

    @property
    def shape(self) -> list[tuple[str, tuple[str, ...]]]:
        return [(tag, tuple(attributes)) for tag, attributes in self.tags]


def page(events: list[Event]) -> Page:
    return Page(reports.html(Report.of(events)))


@pytest.fixture(scope="module")
def rich() -> Page:
    return page(report_events.run(6))


@pytest.mark.requirement("F8", part="a report a person can read")
@pytest.mark.parametrize(
    "more", [{}, {"broken": False}, {"nodes": 1, "broken": False}, {"command": "plan"}, {"nodes": MATRIX_NODES + 5}], ids=str
)
def test_the_page_is_well_formed_and_needs_nothing_else(more: dict[str, Any]) -> None:
    found = page(report_events.run(**{"nodes": 6, **more}))
    assert not found.wrong
    for tag, attributes in found.tags:
        assert tag not in ("link", "img", "iframe", "object", "base", "audio", "video"), tag
        assert not {name for name in attributes if name.startswith("on") or name in ("src", "style", "srcset", "action")}, (tag, attributes)
        assert (attributes.get("href") or "#").startswith("#")
    anchors = {str(attributes["href"])[1:] for attributes in found.of("a")}
    assert anchors <= set(found.ids)


def test_only_the_pages_own_style_and_script_may_run() -> None:
    text = reports.html(Report.of(report_events.run(2)))
    (policy,) = [one["content"] for one in Page(text).of("meta") if one.get("http-equiv") == "Content-Security-Policy"]
    for kind in ("style", "script"):
        (inside,) = re.findall(rf"<{kind}>(.*?)</{kind}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in str(policy)
    assert str(policy).startswith("default-src 'none';") and "unsafe" not in str(policy)


@pytest.mark.requirement("F8", part="a report a person can read")
def test_every_node_step_check_and_figure_is_there(rich: Page) -> None:
    report = Report.of(report_events.run(6))
    for node in report.nodes:
        assert node in rich.text
    for step in report.steps.values():
        assert f"{step.number} {step.title}" in rich.text
    for check in report.checks:
        assert check["title"] in rich.text
    assert "8 x NVIDIA A100-SXM4-80GB 80 GiB" in rich.text and "Instinct MI100" in rich.text
    assert "129 of 130 checks passed" in rich.text and "gpu02, gpu06 did not get through" in rich.text
    assert rich.text.count("MiB/s") >= 5


def test_a_run_of_some_steps_says_which() -> None:
    whole = Report.of(report_events.run(3))
    assert view(whole)["part"] == "" and "report of <b>apply</b></p>" in reports.html(whole)
    for kept, said in (([2, 3], "steps 2, 3"), ([2], "step 2")):
        part = Report.of(report_events.run(3))
        part.steps = {number: part.steps[number] for number in kept}
        assert view(part)["part"] == said and f"report of <b>apply</b>, {said}</p>" in reports.html(part)


@pytest.mark.requirement("L7", part="the report says what, where, why and the command")
def test_what_is_wrong_stands_first_with_the_command_that_mends_it() -> None:
    found = view(Report.of(report_events.run(6)))
    assert [one["status"] for one in found["attention"]] == ["fail", "fail", "warn"]
    lost, full, declared = found["attention"]
    assert (lost["kind"], lost["where"]) == ("Not reached", "gpu06") and "ping" in str(lost["remedy"])
    assert (full["title"], full["where"], full["seen"]) == ("Free space for models", "gpu02", "912 MiB free")
    assert {"text": "du -xhd1 /srv", "command": True} in full["remedy"]
    assert declared["title"] == "resources_models_path"
    assert found["checks"][0]["name"] == "gpu02" and found["checks"][0]["rows"][0]["status"] == "fail"
    assert found["resume"] == "bzzz-setup apply -i /srv/inventories/atlas --from 5"


def ended(folder: Path, status: str, severity: Any = "warning", returncode: int = 0) -> Report:
    """An apply that ends in step 5, with one check and one problem."""
    check = {"id": "c", "status": status, "remedy": "Run step 5 again: bzzz-setup apply --only 5."}
    wrong = problem("gpu_x", "Odd.", "See bzzz-setup plan.", severity=severity)
    failed = "failed" if returncode else "ok"
    return Report.of(
        [
            RunStarted(run="r", command="apply", cluster="c", inventory=str(folder), steps=[5, 8]),
            StepStarted(step=5),
            TaskFinished(step=5, node="n1", role="resources", task="t", status=failed, checks=[check], problems=[wrong]),
            RunFinished(returncode=returncode, failed=["n1"] if returncode else []),
        ]
    )


@pytest.mark.requirement("L7", part="a remedy's command as it must be typed")
def test_commands_name_the_inventory_where_they_must(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BZZZ_INVENTORY", raising=False)
    report = ended(tmp_path, "fail", returncode=2)
    assert report.checks[0]["remedy"] == f"Run step 5 again: bzzz-setup apply -i {tmp_path} --only 5."
    assert (
        report.problems[0]["remedy"] == f"See bzzz-setup plan -i {tmp_path}."
        and report.resume() == f"bzzz-setup apply -i {tmp_path} --from 5"
    )
    monkeypatch.setenv("BZZZ_INVENTORY", str(tmp_path))
    found = ended(tmp_path, "fail", returncode=2)
    assert "bzzz-setup apply --only 5" in found.checks[0]["remedy"] and found.resume() == "bzzz-setup apply --from 5"


@pytest.mark.parametrize("command", ["rotate-ca", "rotate-key"])
def test_a_rotation_that_was_interrupted_says_how_to_go_on(command: str) -> None:
    begun = RunStarted(run="r", command=command, cluster="c", inventory="", steps=[])
    assert Report.of([begun, RunFinished(returncode=-1, interrupted=True)]).resume() == f"bzzz-setup {command}"
    task = TaskFinished(step=0, node="n1", role="tls", task="t", status="ok")
    assert Report.of([begun, task, RunFinished(returncode=0)]).resume() == ""


def test_the_last_line_counts_warnings_and_a_refusal_begins_anew(tmp_path: Path) -> None:
    def said(report: Report) -> str:
        out = Console(record=True, width=200, file=io.StringIO())
        terminal.show_report(out, report)
        return out.export_text()

    assert "Fine, with 2 warnings. apply of cluster c" in said(ended(tmp_path, "warn"))
    refused = said(ended(tmp_path, "pass", "error", 2))
    assert "Refused: the declaration needs correcting. apply" in refused and "Go on with" not in refused


@pytest.mark.parametrize(
    ("said", "commands"),
    [
        ("Run step 7 again: bzzz-setup apply --only 7. If it fails again, 'journalctl -u bzzz-etcd' on the node says why.",
         ["bzzz-setup apply --only 7", "journalctl -u bzzz-etcd"]),
        ("On the node: chown root:bzzz-tls /etc/bzzz/tls/node.key; chmod 0640 /etc/bzzz/tls/node.key.",
         ["chown root:bzzz-tls /etc/bzzz/tls/node.key", "chmod 0640 /etc/bzzz/tls/node.key"]),
        ("Install one (apt-get install systemd-timesyncd or chrony), or synchronise the host.", ["apt-get install systemd-timesyncd"]),
        ("Bring its server back, or unmount it: umount -l '/srv/a, b'", ["umount -l '/srv/a, b'"]),
        ("On the coordinators: journalctl -u bzzz says why none is elected.", ["journalctl -u bzzz"]),
        ("Start that server, or take it out of ollama_endpoints.", []),
        ("", []),
    ],
)  # fmt: skip
def test_commands_are_found_in_remedies(said: str, commands: list[str]) -> None:
    pieces = remedy(said)
    assert [piece["text"] for piece in pieces if piece["command"]] == commands
    assert "".join(piece["text"] for piece in pieces) == said


@given(st.text())
def test_no_word_of_a_remedy_is_lost(said: str) -> None:
    assert "".join(piece["text"] for piece in remedy(said)) == said


# -- hostile words ---------------------------------------------------------------------------------------------------

HOSTILE = [
    "<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "'><svg/onload=alert(1)>",
    "</style><script>x</script>", "]]>-->{{ 7*7 }}",
    "</title><base href=//evil>", "&lt;b&gt;", "{% raw %}", "javascript:alert(1)", "\u202etxt.exe\x00\x1b[31m", "</textarea></pre></table>",
]  # fmt: skip


def spoilt(value: Any, text: str) -> Any:
    """Every text in it, but for what names a kind of thing, replaced."""
    if isinstance(value, dict):
        kept = ("status", "severity", "kind", "id", "step", "index", "between", "name", "peer", "vendor", "node", "coordinators")
        return {key: one if key in kept else spoilt(one, text) for key, one in value.items()}
    if isinstance(value, list):
        return [spoilt(one, text) for one in value]
    return text if isinstance(value, str) else value


def hostile(text: str) -> list[Event]:
    """A run in which every string that comes from outside is this text, and a node is called so."""
    events = report_events.run(3)
    for event in events:
        if isinstance(event, RunStarted):
            event.cluster = event.inventory = event.run = text
        if isinstance(event, TaskFinished):
            for part in ("message", "task", "role"):
                setattr(event, part, text)
            for part in ("changes", "diff", "checks", "problems", "facts"):
                setattr(event, part, spoilt(copy.deepcopy(getattr(event, part)), text))
        if isinstance(event, TaskFinished) and event.node == "gpu01":
            event.node = f"a{text}"  # sorts before the others, whatever it is
    return events


def check_hostile(text: str) -> None:
    calm, found = page(hostile("calm")), page(hostile(text))
    assert not found.wrong
    # As many elements with the same attributes as with a harmless word: nothing of the text became one.
    assert found.shape == calm.shape


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_words_stay_text(text: str) -> None:
    check_hostile(text)


@settings(max_examples=20)
@given(st.text(min_size=1, max_size=30).filter(lambda text: text.strip() and not text.isspace()))
def test_any_words_stay_text(text: str) -> None:
    found = page(hostile(f"x{text}"))
    assert not found.wrong
    assert {tag for tag, _ in found.shape} <= {tag for tag, _ in page(hostile("calm")).shape}
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\u202a-\u202e\u2066-\u2069]", "".join(found.texts))


def test_hostile_words_are_still_read() -> None:
    said = "<script>alert(1)</script>"
    assert page(hostile(said)).text.count(said) > 20


leaf = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=True)
    | st.text(max_size=8)
    | st.just([])
    | st.just({})
    | st.just([None])
)


@settings(max_examples=60)
@given(st.data())
def test_facts_of_any_shape_make_a_page(data: st.DataObject) -> None:
    """A node may answer anything, so a part of its facts is replaced by something else, or is not there."""
    facts = report_events.facts(0, "n1", report_events.a100s(2))
    for _ in range(data.draw(st.integers(1, 4))):
        at: Any = facts["bzzz_" + data.draw(st.sampled_from(["gpu", "network", "system"]))]
        for _ in range(data.draw(st.integers(0, 4))):
            inner = list(at.values()) if isinstance(at, dict) else at
            inner = [one for one in inner if isinstance(one, (dict, list)) and one]
            if not inner:
                break
            at = data.draw(st.sampled_from(inner))
        key = data.draw(st.sampled_from(list(at) if isinstance(at, dict) else list(range(len(at)))))
        at[key] = data.draw(leaf)
    told: list[Event] = [
        RunStarted(at=1.0, run="r", command="apply", cluster="c", inventory="/i", steps=[1]),
        StepStarted(at=2.0, step=1),
        TaskFinished(at=3.0, step=1, node="n1", role="r", task="t", status="ok", facts=facts),
        RunFinished(at=4.0, returncode=0),
    ]
    assert not page(told).wrong


# -- secrets ---------------------------------------------------------------------------------------------------------


def test_what_is_not_meant_to_be_shown_is_not_shown() -> None:
    """Facts hold more than is shown: the declaration, what a node adds of its own. Values of secret options are no part of a problem."""
    events = report_events.run(3)
    canary = "canary-4711"
    for event in events:
        if isinstance(event, TaskFinished) and event.facts:
            event.facts["bzzz_declared"] = {"gpu01": {"service": {"token": canary}}}
            event.facts["bzzz_ports"] = {"listeners": [{"program": canary}]}
            event.facts["bzzz_system"] |= {"environment": canary, "dependencies": {"curl": {"path": canary}}}
            event.facts["bzzz_system"]["memory"]["password"] = canary
            event.facts["bzzz_gpu"]["secret"] = canary
        if isinstance(event, TaskFinished):
            for check in event.checks:
                check["data"]["token"] = canary
            event.problems += [problem("service_token", "This is too short.", "Choose a longer one.")] if event.step == 1 else []
    text = reports.html(Report.of(events))
    assert canary not in text
    assert "service_token" in text and "service_token =" not in text


# -- pictures and sums -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("health", "status"), [("ok", "pass"), ("degraded", "warn"), ("failed", "fail"), (None, "skip")])
def test_a_gpu_that_works_has_not_failed(health: str | None, status: str) -> None:
    assert machines._gpu({"health": health})["status"] == status


@pytest.mark.requirement("3.5.1", part="links as a picture")
def test_gpus_that_are_all_joined_alike_are_one_fabric() -> None:
    gpus = report_events.a100s(8)
    drawn = topology(gpus["devices"], gpus["links"], [{"node": 0, "cpus": "0-63"}, {"node": 1, "cpus": "64-127"}])
    assert drawn
    assert [fabric["label"] for fabric in drawn["fabrics"]] == ["NV12 between every two (NVLink, 12 bonded)"]
    assert [domain["label"] for domain in drawn["domains"]] == ["NUMA 0 · CPUs 0-63", "NUMA 1 · CPUs 64-127"]
    assert not drawn["arcs"] and len(drawn["links"]) == 28 and len(drawn["gpus"]) == 8
    for box in drawn["gpus"]:
        assert sum(domain["x"] <= box["x"] and box["x"] + box["width"] <= domain["x"] + domain["width"] for domain in drawn["domains"]) == 1
    assert all(a["x"] + a["width"] < b["x"] for a, b in zip(drawn["gpus"], drawn["gpus"][1:], strict=False))


@pytest.mark.requirement("3.5.1", part="links as a picture")
def test_gpus_of_two_vendors_keep_their_links_apart() -> None:
    gpus = report_events.mixed()
    drawn = topology(gpus["devices"], gpus["links"], [])
    assert drawn
    assert [box["name"] for box in drawn["gpus"]][:3] == ["nvidia 0", "nvidia 1", "nvidia 2"] and len(drawn["gpus"]) == 7
    assert {(one["a"], one["b"]) for one in drawn["links"]} >= {("nvidia 0", "nvidia 2"), ("amd 0", "amd 1")}
    assert [switch["label"] for switch in drawn["switches"]] == ["PCIe switch"]


def test_single_fast_links_are_lines_with_their_names() -> None:
    devices = [{"vendor": "nvidia", "index": index, "numa_node": 0, "model": "X", "memory_total_mib": 1024} for index in range(3)]
    drawn = topology(devices, [{"vendor": "nvidia", **link(0, 2, "NV4")}, {"vendor": "nvidia", **link(0, 9, "NV4")}], [])
    assert drawn and [arc["label"] for arc in drawn["arcs"]] == ["NV4"] and len(drawn["links"]) == 1
    assert topology(devices[:1], [], []) is None


@pytest.mark.requirement("1.3.4", part="as a picture")
def test_the_matrix_shows_every_way_and_how_slow_it_is() -> None:
    found = view(Report.of(report_events.run(6)))["matrix"]
    latency = found["layers"][0]
    assert found["labels"] == [f"gpu0{number}" for number in range(1, 7)] and found["size"] == 1
    assert latency["rows"][0]["cells"][5] == {"text": "✗", "heat": "gone"} and latency["rows"][2]["cells"][2]["heat"] == "self"
    assert all(re.fullmatch(r"\d\.\d\d", cell["text"]) and cell["heat"] == 0 for cell in latency["rows"][1]["cells"][2:])
    assert [layer["name"] for layer in found["layers"]] == ["latency", "mtu", "clock", "lost"]
    assert found["odd"][0] == {"status": "fail", "node": "gpu01", "peer": "gpu06", "why": "no answer in 2 s"}
    fine = view(Report.of(report_events.run(12, broken=False)))["matrix"]
    near, far = fine["layers"][0]["rows"][0]["cells"][1]["heat"], fine["layers"][0]["rows"][0]["cells"][11]["heat"]
    assert near == 0 < far
    assert any(way["why"].startswith("MTU 1500, elsewhere 9000") for way in fine["odd"])


@pytest.mark.requirement("1.3.4", part="loss and packets that are too large, as a picture")
def test_the_matrix_shows_loss_and_what_is_swallowed() -> None:
    cells = {
        node: {peer: {"reachable": True, "mtu": 9000, "interface_mtu": 9000, "sent": 20, "lost": 0} for peer in "abc"} for node in "abc"
    }
    cells["a"]["b"]["lost"], cells["b"]["c"]["mtu_arrives"] = 7, 1500
    found = network(cells)
    assert found
    layers = {layer["name"]: layer for layer in found["layers"]}
    assert layers["lost"]["rows"][0]["cells"][1]["text"] == "35" and layers["lost"]["same"] == "0 to 35"
    assert layers["mtu"]["rows"][1]["cells"][2]["text"] == "1500"
    assert [(way["node"], way["peer"], way["status"], way["why"]) for way in found["odd"]] == [
        ("b", "c", "warn", "sends packets of up to 9000 bytes, of which those over 1500 are lost"),
        ("a", "b", "warn", "35 % of packets lost"),
    ]


@pytest.mark.requirement("1.3.4", part="as a picture")
def test_the_matrix_of_many_nodes_shows_blocks_and_the_worst_in_them() -> None:
    found = view(Report.of(report_events.run(200, checks=1, changes=0)))["matrix"]
    assert found["size"] == 10 and len(found["labels"]) == 20 and found["labels"][0] == "gpu01 … gpu10"
    assert found["layers"][0]["rows"][0]["cells"][19] == {"text": "1 ✗", "heat": "gone"}
    assert found["odd"][0]["status"] == "fail" and found["odd"][0]["node"] == "gpu01"


def test_a_run_that_was_killed_says_so() -> None:
    events = [event for event in report_events.run(3, broken=False) if not isinstance(event, RunFinished) and getattr(event, "step", 0) < 6]
    found = view(Report.of(events))
    assert found["outcome"]["word"] == "Not ended" and "5 of 8 steps" not in found["outcome"]["sentence"]
    assert [step["word"] for step in found["steps"]] == ["done"] * 4 + ["not ended"] + ["not reached"] * 3
    assert not page(events).wrong


def test_a_refused_declaration_calls_no_node_fine() -> None:
    told: list[Event] = [
        RunStarted(run="r", command="apply", cluster="c", inventory="/i", steps=[1]),
        TaskFinished(step=1, node="n1", role="r", task="t", status="failed", problems=[problem("network_subnet", "no", "yes", value="x")]),
        RunFinished(returncode=2, failed=["n1"]),
    ]
    found = view(Report.of(told))
    assert found["outcome"]["word"] == "Refused" and [node["word"] for node in found["nodes"]] == ["not set up"]
    assert "network_subnet = 'x'" in page(told).text
    assert page([]).wrong == []


def test_the_same_change_is_told_once_and_what_differs_in_a_few_variants() -> None:
    found = view(Report.of(report_events.run(20, broken=False, changes=2)))["changes"]
    assert [step["number"] for step in found] == [2, 3, 5, 6]
    own, common = found[0]["rows"]
    assert own["where"] == common["where"] == "all 20 nodes"
    assert len(own["diffs"]["shown"]) == VARIANTS and own["diffs"]["more"] == 20 - VARIANTS
    (one,) = common["diffs"]["shown"]
    assert [line for line in one["lines"] if line["kind"] in ("add", "del")] == [
        {"kind": "del", "text": "-limit = 4"},
        {"kind": "add", "text": "+limit = 8"},
    ]


def test_a_long_difference_is_cut_and_says_so() -> None:
    events = report_events.run(1, broken=False, changes=1)
    for event in events:
        if isinstance(event, TaskFinished) and event.diff:
            event.diff[0]["after"] = "\n".join(map(str, range(5000)))
    lines = view(Report.of(events))["changes"][0]["rows"][0]["diffs"]["shown"][0]["lines"]
    assert len(lines) == DIFF_LINES + 1 and "plan --diff" in lines[-1]["text"]


def test_the_view_is_plain_data() -> None:
    found = view(Report.of(report_events.run(6)))
    assert json.loads(json.dumps(found)) == found


@pytest.mark.requirement("F8", part="a report on 200 nodes")
def test_two_hundred_nodes_make_a_page_that_a_browser_opens() -> None:
    report = Report.of(report_events.run(200, checks=60, changes=30))
    began = time.process_time()
    text = reports.html(report)
    assert time.process_time() - began < 20
    assert len(text) < 6_000_000
    assert text.count('<tr data-s="') == len(report.checks) > 12_000


def test_templates_travel_with_the_package() -> None:
    """pyproject names them, since setuptools takes Python files only."""
    from pathlib import Path

    import tomllib

    names = {file.name for file in (resources.files("bzzz_setup.reports") / "templates").iterdir()}
    assert names == {"report.html.j2", "figures.html.j2", "report.css", "report.js"}
    project = tomllib.loads((Path(reports.__file__).parents[2] / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["package-data"]["bzzz_setup.reports"] == ["templates/*"]
