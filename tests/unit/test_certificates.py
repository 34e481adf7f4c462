# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""When a node needs a new certificate, and by whom."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.bzzz.cluster.plugins.module_utils.authority import judge
from ansible_collections.bzzz.cluster.plugins.module_utils.node import certificates

NAMES = ["n1", "10.0.0.11", "::1"]


@pytest.fixture
def issued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A key, and a certificate of 90 days that an authority has issued for it."""
    monkeypatch.setattr(certificates, "KEY_ATTRIBUTES", {"owner": "root", "group": "root", "mode": "0640"})
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days"]
    names = "subjectAltName=DNS:n1,IP:10.0.0.11,IP:::1"

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=tmp_path, check=True, capture_output=True)

    openssl("req", "-x509", *key, "99", "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=authority")
    openssl("req", "-x509", *key, "99", "-keyout", "next.key", "-out", "next.crt", "-subj", "/CN=authority")
    leaf = ["-keyout", "node.key", "-out", "node.crt", "-subj", "/CN=n1", "-CA", "ca.crt", "-CAkey", "ca.key"]
    openssl("req", "-x509", *key, "90", *leaf, "-addext", "basicConstraints=critical,CA:FALSE", "-addext", names)
    (tmp_path / "node.key").chmod(0o640)
    return tmp_path


def look(folder: Path, names: list[str] | None = None, days: int = 30) -> dict[str, Any]:
    asked = {"tls_directory": str(folder), "ca_directory": str(folder), "names": names or NAMES, "renew_before_days": days}
    return certificates.main(asked)


def problems(folder: Path, names: list[str] | None = None, days: int = 30) -> list[str]:
    found: list[str] = look(folder, names, days)["leaf"]["problems"]
    return found


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


@pytest.mark.requirement("2.3.1", part="rotation: which authority a certificate is by")
def test_who_issued_it_while_two_are_trusted(issued: Path) -> None:
    own, following = (look(issued)[which] for which in ("authority", "next"))
    assert own["certificate"] == (issued / "ca.crt").read_text() and following["fingerprint"] != own["fingerprint"]
    for bundle in ([own, following], [following, own]):
        (issued / "ca.crt").write_text("".join(one["certificate"] for one in bundle))
        leaf = look(issued)["leaf"]
        assert leaf["issuer"] == own["fingerprint"] and leaf["trusted"] == [one["fingerprint"] for one in bundle] and not leaf["problems"]
    (issued / "ca.crt").write_text(following["certificate"])
    leaf = look(issued)["leaf"]
    assert leaf["issuer"] is None and leaf["problems"] == ["it was not issued by the cluster's authority"]
    # An authority without its key is none.
    (issued / "next.key").unlink()
    assert look(issued)["next"] is None


@pytest.mark.requirement("2.3.4", part="a certificate that ends with its authority")
def test_one_that_ends_with_its_authority_is_not_issued_again_and_again(issued: Path) -> None:
    assert problems(issued, days=95) == ["it has fewer than 95 days left"]
    shutil.copy(issued / "ca.crt", issued / "node.crt")
    assert problems(issued, days=100) == ["it does not belong to the node's key", "its names have changed"]


def node(kept: str, issuer: str = "A", trusted: str = "A", held: bool = False) -> dict[str, Any]:
    """What is found there; `kept`: an authority by its letter, and the next one after it."""
    own, following = ({"fingerprint": one, "certificate": one} if one != "-" else None for one in kept.ljust(2, "-"))
    return {"authority": own, "next": following, "held": held, "leaf": {"issuer": issuer, "trusted": list(trusted)}}


# What three coordinators keep -> the authority that signs, the one to follow, whether some lack what others have, and which differ.
KEPT = {
    ("A", "A", "A"): ("A", "", False, []),
    ("-", "-", "-"): ("", "", True, []),
    ("A", "-", "A"): ("A", "", True, []),
    ("AB", "A", "A"): ("A", "B", True, []),
    ("A", "AB", "AB"): ("A", "B", True, []),
    ("AB", "AB", "AB"): ("A", "B", False, []),
    ("B", "AB", "AB"): ("B", "", True, []),
    ("AB", "AB", "B"): ("B", "", True, []),
    ("B", "-", "AB"): ("B", "", True, []),
    ("A", "B", "A"): ("A", "", False, ["A", "B"]),
    ("AB", "AC", "A"): ("A", "B", True, ["A", "B", "C"]),
    ("B", "AC", "AC"): ("B", "C", True, ["A", "B", "C"]),
}


@pytest.mark.requirement("2.3.1", part="rotation: what killed runs leave")
@pytest.mark.parametrize("kept", KEPT)
def test_who_follows_whom_in_a_rotation_cut_short(kept: tuple[str, ...]) -> None:
    names = ["n1", "n2", "n3"]
    seen = judge(dict(zip(names, map(node, kept), strict=True)), names, names)
    assert seen["trusted"][0] == judge({"n1": node(KEPT[kept][0] or "-")}, ["n1"], ["n1"])["trusted"][0]
    assert (seen["next"].get("fingerprint", ""), seen["copies_missing"], seen["differ"]) == KEPT[kept][1:]
    assert [one["fingerprint"] for one in seen["trusted"]] == [KEPT[kept][0], *KEPT[kept][1]]
    assert seen["differ"] or all(kept[names.index(name)][0] == KEPT[kept][0] for name in seen["keepers"])


@pytest.mark.requirement("2.3.1", part="rotation: each part waits for all nodes")
def test_each_part_of_a_rotation_waits_for_all_nodes() -> None:
    def seen(worker: dict[str, Any] | None, held: bool = False) -> tuple[bool, ...]:
        found = {"n1": node("AB", "B", "AB", held), "n2": node("AB", "B", "AB")} | ({"w": worker} if worker else {})
        told = judge(found, ["n1", "n2"], ["n1", "n2", "w"])
        return told["next_trusted"], told["next_used"], told["unfinished"]

    assert seen(node("-", "A", "A")) == (False, False, True)
    assert seen(node("-", "A", "AB")) == (True, False, True)
    assert seen(node("-", "B", "AB")) == (True, True, True)
    assert seen(None) == (False, False, True)
    assert seen(node("-", "B", "AB"), held=True) == (False, False, True)
    # Its end was cut short: one still trusts the old one.
    ends = {"n1": node("B", "B", "B"), "n2": node("B", "B", "AB")}
    assert judge(ends, ["n1", "n2"], ["n1", "n2"])["unfinished"] and not judge(ends, ["n1"], ["n1", "n2"])["unfinished"]
    fresh = node("-", "", "")
    assert not judge({"n1": node("B", "B", "B"), "w": fresh}, ["n1"], ["n1", "w"])["unfinished"]
    assert judge({"w": fresh}, ["n1"], ["w"])["missing"] == ["n1"]
