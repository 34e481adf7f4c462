# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whatever text is given for an option of `init`: an inventory or one plain refusal, never a traceback, and nothing half done."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import paramiko
import pytest
from ansible_collections.bzzz.cluster.plugins.module_utils.discovery import Machine, Search
from ansible_collections.bzzz.cluster.plugins.module_utils.discovery import check as check_search
from ansible_collections.bzzz.cluster.plugins.module_utils.problems import Problem
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bzzz_setup import cli, declaration

ADDRESS = "192.0.2.7"
# What a shell can hand over: any bytes but NUL; those that are no UTF-8 come as lone surrogates.
characters = st.characters(exclude_categories=("Cs",), exclude_characters="\0") | st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF)
NASTY = [
    *("", " ", ",", "-", "--", "~", "~nosuchuser/x", "/", "/dev/null", "/dev/null/x", "/proc/x", "²", "1e5", "9" * 5000, "a" * 5000),
    *("[/]", "[bold]", "{{ 1/0 }}", "{{ lookup('pipe','id') }}", "x\ny", "x: y", "\x1b[31m", "\udcff", "class", "None", "SHA256:x", "::1"),
    *("10.0.0.0/0", "10.0.0.20-10", "0.0.0.0", "nan", "inf", "-1", "0", "65536", "ssh-ed25519 AAAA", "::/0", "fe80::1%eth0", "[::1]:22"),
]
# All that take a text.
OPTIONS = (
    *("interface", "subnet", "domain", "name_server", "exclude", "timeout_seconds", "name", "user", "ssh_key"),
    *("public_key", "port", "coordinators", "secret", "known_hosts", "inventory", "nodes"),
)


def discovered(search: Search, _on_knock: Callable[[], None]) -> tuple[list[Machine], list[Problem]]:
    """As on a network where one machine answers, but without one."""
    problems = check_search(search)
    return ([] if problems else [Machine(ADDRESS, 22, "", ("list",), frozenset([ADDRESS]))]), problems


class Desk:
    """A home directory and a working directory with nothing in them but one file of host keys."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home, self.work = folder, folder / "home", folder / "home/work"
        self.work.mkdir(parents=True)
        key = paramiko.ECDSAKey.generate()
        self.known_hosts = self.home / "known_hosts"
        self.line = f"{ADDRESS} {key.get_name()} {key.get_base64()}\n"
        self.known_hosts.write_text(self.line)

    def files(self) -> set[str]:
        return {str(path) for path in self.folder.rglob("*")}

    def init(self, *arguments: str, given: str = "") -> tuple[int, str, str]:
        """Exit code, output and errors of `bzzz-setup init …`, run in this process. What it raises is a traceback."""
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors=errors) for errors in ("strict", "backslashreplace"))
        before = Path.cwd()
        os.chdir(self.work)
        try:
            with (
                mock.patch.multiple(sys, argv=["bzzz-setup", "init", *arguments], stdin=io.StringIO(given), stdout=out, stderr=err),
                mock.patch.dict(os.environ, {"HOME": str(self.home), "COLUMNS": "200"}),
                mock.patch.object(cli.new, "discover", discovered),
                mock.patch.object(cli, "given", cli.Settings()),
                pytest.raises(SystemExit) as ended,
            ):
                cli.main()
        finally:
            os.chdir(before)
        for stream in (out, err):
            stream.flush()
        told, said = (stream.buffer.getvalue().decode(errors="replace") for stream in (out, err))  # type: ignore[attr-defined]
        return int(ended.value.code or 0), told, said

    def clear(self) -> None:
        """Take away what an `init` has made."""
        shutil.rmtree(self.home)
        self.work.mkdir(parents=True)
        self.known_hosts.write_text(self.line)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with mock.patch.dict(os.environ, {"SSH_AUTH_SOCK": ""}):
        yield Desk(tmp_path_factory.mktemp("desk"))


def arguments_for(desk: Desk, option: str, text: str) -> list[str]:
    given = {"nodes": ADDRESS, "known_hosts": str(desk.known_hosts), "inventory": str(desk.work / "mine"), "user": "root"}
    if option == "inventory":  # below the working directory, wherever it points
        text = f"{desk.work}/{text.replace('..', '')}"
    given[option] = text
    if option in ("subnet", "interface", "domain", "name_server"):
        del given["nodes"]
        given |= {"domain": "example.com"} if option == "name_server" else {"subnet": "192.0.2.0/28", **given}
    return [f"--{name.replace('_', '-')}={value}" for name, value in given.items()] + (["--discover"] if option == "interface" else [])


def no_harm(desk: Desk, option: str, text: str, as_json: bool) -> None:
    before = desk.files()
    code, out, err = desk.init(*arguments_for(desk, option, text), *(["--json"] if as_json else []), given="a secret\n")
    assert "Traceback" not in out + err
    if code == 0:
        new = [declaration.Declaration.read(file.parent) for file in desk.folder.rglob("hosts.yml")]
        assert [one.hosts["bzzz"]["hosts"]["node1"] for one in new] == [{"ansible_host": ADDRESS}]
        desk.clear()
        return
    assert code == 2, (code, out, err)
    assert desk.files() == before, "something was written"
    if err.startswith("Usage:"):  # refused by the command line's own reader, which knows types only
        assert f"'--{option.replace('_', '-')}'" in err or f"'--{option.replace('_', '-')}' / '-i'" in err, err
    elif as_json:
        for told in json.loads(out)["problems"]:
            assert told["option"] == option and told["message"] and told["remedy"], told
    else:
        assert option in err and "Remedy:" in err, err


@pytest.mark.requirement("L7", part="any text for any option of init")
@pytest.mark.parametrize("option", OPTIONS)
def test_nasty_texts(desk: Desk, option: str) -> None:
    for number, text in enumerate(NASTY):
        no_harm(desk, option, text, bool(number % 2))


@pytest.mark.requirement("L7", part="any text for any option of init")
@pytest.mark.parametrize("option", OPTIONS)
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(characters, max_size=40))
def test_any_text(desk: Desk, option: str, text: str) -> None:
    no_harm(desk, option, text, True)
