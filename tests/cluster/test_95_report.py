# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The page that an apply of the real cluster leaves: all that happened is in it, and no secret."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import leaks
import pytest
from conftest import Tools


@pytest.fixture(scope="module")
def applied(cluster: Tools) -> tuple[Path, str, dict[str, Any]]:
    """The page of an apply, its words, and the same run's report for programs. One file is changed beforehand, so that lines differ."""
    cluster.lab.exec(cluster.nodes[0], ["sh", "-c", "echo '# a stranger was here' >> /etc/bzzz/config.yaml"])
    said = cluster.setup("apply").stdout
    page = Path(said.strip().splitlines()[-1].removeprefix("Report: "))
    words = re.sub(r"<(style|script)>.*?</\1>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    words = " ".join(html.unescape(re.sub(r"<[^>]*>", " ", words)).split())
    return page, words, json.loads(page.with_name("report.json").read_text(encoding="utf-8"))


@pytest.mark.requirement("F8", part="a report a person can read, of a real cluster")
@pytest.mark.requirement("1.3.4", part="as a picture")
def test_the_page_tells_every_node_step_and_check(cluster: Tools, applied: tuple[Path, str, dict[str, Any]]) -> None:
    page, words, report = applied
    assert page.stat().st_mode & 0o777 == 0o600 and page.parent.stat().st_mode & 0o777 == 0o700
    for node in cluster.nodes:
        assert node in words
    assert len(report["steps"]) == 8 and all(f"{step['number']} {step['title']} ✓ done" in words for step in report["steps"])
    for check in report["checks"]:
        assert check["title"] in words, check
    ways = len(cluster.nodes) * (len(cluster.nodes) - 1)
    assert f"{ways} of {ways} ways between {len(cluster.nodes)} nodes answer" in words
    assert re.search(r"[\d.]+ MiB/s", words) and re.search(r"Debian 1\d", words)
    assert re.search(r"Packets lost, in per cent: 0 everywhere", words)


@pytest.mark.requirement("L1", part="what an apply changed, line by line")
def test_what_was_changed_is_told_line_by_line(applied: tuple[Path, str, dict[str, Any]]) -> None:
    _, words, report = applied
    assert {change["name"] for change in report["changes"]} >= {"/etc/bzzz/config.yaml"}
    assert "-# a stranger was here" in words


@pytest.mark.requirement("F3", part="no secret in the report")
def test_no_secret_is_in_the_page(cluster: Tools, applied: tuple[Path, str, dict[str, Any]]) -> None:
    """Neither in this one nor in that of the first apply, which made them all."""
    files = "/var/lib/bzzz/secrets/service_token /etc/bzzz/tls/node.key /var/lib/bzzz/ca/ca.key"
    secrets = {}
    for node in cluster.nodes:
        for file in files.split():
            lines = cluster.lab.exec(node, ["cat", file]).stdout.strip().splitlines()
            secrets[f"{file} of {node}"] = max((line for line in lines if "-----" not in line), key=len)
    assert all(len(secret) > 20 for secret in secrets.values())
    kept = applied[0].parents[1]
    assert list(kept.glob("*/report.html"))
    assert leaks.in_files([kept], secrets) == set()
