# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Secrets of an inventory folder that is there already: `bzzz-setup secret`, and vault files that are not encrypted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_model_server import declared
from typer.testing import CliRunner

from bzzz_setup import cli
from bzzz_setup.declaration import VAULT, Declaration, decrypted, dump, write
from bzzz_setup.web.outside import vault

KEY = "sk-canary-0123456789"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return declared(tmp_path / "inventory", {"gateway_enabled": True}, {})


def secret(folder: Path, *arguments: str, given: str = "") -> tuple[int, dict[str, Any]]:
    done = CliRunner().invoke(cli.app, ["--json", "secret", *arguments, "-i", str(folder)], input=given)
    assert KEY not in done.output
    return done.exit_code, json.loads(done.stdout)


@pytest.mark.requirement("3.1.1", part="into an inventory that is there, by the terminal")
def test_a_secret_is_set_replaced_and_taken_away(folder: Path) -> None:
    file = folder / VAULT
    for value in ("sk-another-0123456789", KEY):
        assert secret(folder, "openai_api_key", given=f"{value}\n")[0] == 0
        assert file.read_text().startswith("$ANSIBLE_VAULT") and file.stat().st_mode & 0o777 == 0o600
        assert vault(Declaration.read(folder)) == {"openai_api_key": value}
    assert secret(folder, "ansible_become_password", given="x\n")[0] == 0
    assert set(vault(Declaration.read(folder))) == {"openai_api_key", "ansible_become_password"}
    assert secret(folder, "openai_api_key", "--remove")[0] == 0
    assert set(vault(Declaration.read(folder))) == {"ansible_become_password"}


@pytest.mark.parametrize(
    ("option", "given", "said"),
    [
        ("openai_base_url", "x", "is no secret option"),
        ("openai_api_keys", "x", "Name one of"),
        ("openai_api_key", "", "nothing was given"),
        ("alerting_slack_url", "nonsense", "not an incoming webhook"),
    ],
)
def test_what_is_no_secret_or_cannot_be_it_is_refused(folder: Path, option: str, given: str, said: str) -> None:
    code, found = secret(folder, option, given=f"{given}\n")
    assert code == 2 and said in json.dumps(found) and found["problems"][0]["remedy"]
    assert not (folder / VAULT).exists()


def test_a_vault_file_in_the_clear_is_read_and_encrypted_with_the_next_secret(folder: Path) -> None:
    write(folder / VAULT, dump({"openai_api_key": KEY}), 0o600)
    assert vault(Declaration.read(folder)) == {"openai_api_key": KEY}
    assert Declaration.read(folder).secrets_set() == {"openai_api_key"}
    assert secret(folder, "alerting_webhook_token", given="abc\n")[0] == 0
    text = (folder / VAULT).read_text()
    assert KEY not in text and set(decrypted(text, "trial") or {}) == {"openai_api_key", "alerting_webhook_token"}


def test_anothers_vault_is_left_as_it_is(folder: Path) -> None:
    write(folder / VAULT, before := "$ANSIBLE_VAULT;1.1;AES256\n6162\n", 0o600)
    code, found = secret(folder, "openai_api_key", given=f"{KEY}\n")
    assert code == 2 and "does not open" in found["problems"][0]["message"] and (folder / VAULT).read_text() == before
