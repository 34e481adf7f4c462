# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""When a node needs a new certificate."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from ansible_collections.bzzz.cluster.plugins.module_utils.node import certificates

NAMES = ["n1", "10.0.0.11", "::1"]


@pytest.fixture
def issued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A key, and a certificate of 90 days that an authority has issued for it."""
    monkeypatch.setattr(certificates, "KEY_ATTRIBUTES", {"owner": "root", "group": "root", "mode": "0640"})
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", "90"]
    names = "subjectAltName=DNS:n1,IP:10.0.0.11,IP:::1"

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=tmp_path, check=True, capture_output=True)

    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=authority")
    leaf = ["-keyout", "node.key", "-out", "node.crt", "-subj", "/CN=n1", "-CA", "ca.crt", "-CAkey", "ca.key"]
    openssl("req", "-x509", *key, *leaf, "-addext", "basicConstraints=critical,CA:FALSE", "-addext", names)
    (tmp_path / "node.key").chmod(0o640)
    return tmp_path


def problems(folder: Path, names: list[str] | None = None, days: int = 30) -> list[str]:
    return certificates.leaf_problems(str(folder), names or NAMES, days)


@pytest.mark.requirement("2.3.1", part="when a certificate is renewed")
def test_what_is_wrong_with_a_certificate(issued: Path) -> None:
    assert problems(issued) == []
    assert problems(issued, ["N1", "10.0.0.11", "0:0:0:0:0:0:0:1"]) == []
    assert problems(issued, [*NAMES, "n2"]) == ["its names have changed"]
    assert problems(issued, days=91) == ["it has fewer than 91 days left"]
    (issued / "node.key").chmod(0o644)
    assert problems(issued) == ["its key's mode 0644 to 0640"]
    (issued / "node.key").chmod(0o640)
    (issued / "node.key").write_bytes((issued / "ca.key").read_bytes())
    assert problems(issued) == ["it does not belong to the node's key"]
    (issued / "node.key").unlink()
    assert problems(issued) == ["there is none"]


@pytest.mark.requirement("2.3.1", part="when a certificate is renewed")
def test_a_certificate_of_another_authority(issued: Path) -> None:
    shutil.copy(issued / "node.crt", issued / "ca.crt")
    assert problems(issued) == ["it was not issued by the cluster's authority"]
    (issued / "node.crt").write_text("nonsense")
    assert problems(issued) == ["it cannot be read"]
