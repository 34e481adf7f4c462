# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Certificates that the operator brings: each fault in its own words, with option and remedy, and never a secret or a traceback."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleLookupError
from ansible_collections.bzzz.cluster.plugins.lookup.private_key import LookupModule
from ansible_collections.bzzz.cluster.plugins.module_utils.problems import Problem
from ansible_collections.bzzz.cluster.plugins.module_utils.rules import tls
from ansible_collections.bzzz.cluster.plugins.module_utils.uploaded import Upload, covers, judge
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from declarations import about, cluster_of, declared_of
from declarations import judge as judge_declaration
from hypothesis import given, settings
from hypothesis import strategies as st
from pki import NOW, Issued, issue

PASSPHRASE = "c4nary passphrase"
NAME = "n1.corp.test"
ROOT = issue("Corp Root")
MIDDLE = issue("Corp Issuing CA", ROOT)
LEAF = issue("n1", MIDDLE, NAME, "*.lab.test", "192.0.2.1")
OTHER = issue("n1", MIDDLE, NAME)


@dataclass
class Case:
    """The files as they should be, and what differs."""

    certificate: str = LEAF.pem + MIDDLE.pem
    key: str = LEAF.key_pem()
    ca: str | None = ROOT.pem
    passphrase: str | None = None
    names: list[str] = field(default_factory=lambda: [NAME])

    def problems(self, folder: Path) -> list[Problem]:
        options: dict[str, Any] = {"tls_mode": "uploaded", "tls_certificate_file": "tls.pem", "tls_key_file": "tls.key"}
        (folder / "tls.pem").write_text(self.certificate)
        (folder / "tls.key").write_text(self.key)
        (folder / "tls.key").chmod(0o600)
        if self.ca is not None:
            (folder / "ca.pem").write_text(self.ca)
            options["tls_ca_file"] = "ca.pem"
        if self.passphrase:
            options["tls_key_passphrase"] = self.passphrase
        declared, wrong = declared_of(cluster_of(1), {**options, "tls_extra_names": self.names})
        assert not wrong
        return list(tls.files(declared, {"n1": folder}, {"n1": self.passphrase}, NOW))


def of(leaf: Issued, *chain: Issued, **more: Any) -> Case:
    return Case("".join(one.pem for one in (leaf, *chain)), leaf.key_pem(), **more)


def server(**how: Any) -> Issued:
    return issue("n1", MIDDLE, NAME, **how)


def request() -> str:
    made = x509.CertificateSigningRequestBuilder(x509.Name([])).sign(LEAF.key, SHA256())
    return made.public_bytes(Encoding.PEM).decode()


def for_ssh() -> str:
    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()


def traditional() -> str:
    return "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n" + str(
        LEAF.key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()
    )


GOOD: dict[str, Callable[[], Case]] = {
    "a chain": Case,
    "Windows line ends and words between": lambda: Case((LEAF.pem + "Bag Attributes\n" + MIDDLE.pem).replace("\n", "\r\n")),
    "the root in the file as well": lambda: of(LEAF, MIDDLE, ROOT),
    "an encrypted key": lambda: Case(key=LEAF.key_pem(PASSPHRASE), passphrase=PASSPHRASE),
    "a key in the old form": lambda: Case(key=traditional()),
    "a wildcard": lambda: Case(names=["n1.lab.test", "*.lab.test"]),
    "an address": lambda: Case(names=["192.0.2.1", NAME]),
    "intermediates in any order": lambda: of(issue("n1", below := issue("Below", MIDDLE), NAME), MIDDLE, below),
    "RSA": lambda: of(server(key=rsa.generate_private_key(65537, 2048)), MIDDLE),
}
# The files; the option that is to be named, and words of the message and of the remedy.
WRONG: dict[str, tuple[Callable[[], Case], str, str, str]] = {
    "another's key": (lambda: Case(key=OTHER.key_pem()), "key_file", "not the key of the certificate (CN=n1)", "requested with"),
    "expired": (lambda: of(server(begins=-9, ends=-1), MIDDLE), "certificate_file", "CN=n1 has expired on", "renewed"),
    "an expired intermediate": (
        lambda: of(issue("n1", late := issue("Late CA", ROOT, begins=-9, ends=-1), NAME), late),
        "certificate_file",
        "CN=Late CA has expired on",
        "renewed",
    ),
    "not valid yet": (lambda: of(server(begins=2), MIDDLE), "certificate_file", "not valid before", "clock"),
    "other names": (lambda: Case(names=[NAME, "other.corp.test"]), "certificate_file", "not for other.corp.test", "tls_extra_names"),
    "a wildcard two labels deep": (lambda: Case(names=["a.b.lab.test"]), "certificate_file", "not for a.b.lab.test", "tls_extra_names"),
    "the node's name, where none is declared": (lambda: Case(names=[]), "certificate_file", "but not for n1.", "tls_extra_names"),
    "no names": (lambda: of(issue("n1", MIDDLE), MIDDLE), "certificate_file", "no names (subjectAltName)", f"Request one for {NAME}"),
    "no intermediate": (lambda: of(LEAF), "certificate_file", "was issued by CN=Corp Issuing CA, which is neither", "Append"),
    "another intermediate of the same name": (
        lambda: of(LEAF, issue("Corp Issuing CA", ROOT)),
        "certificate_file",
        "was not signed with that one's key",
        "did sign it",
    ),
    "another root": (lambda: Case(ca=issue("Other Root").pem), "certificate_file", "was issued by CN=Corp Root", "tls_ca_file"),
    "no root of the system's": (lambda: Case(ca=None), "certificate_file", "was issued by CN=Corp Root", "tls_ca_file"),
    "signed by itself": (lambda: of(issue("n1", None, NAME)), "certificate_file", "signed itself", "tls_ca_file"),
    "the wrong order": (lambda: Case(MIDDLE.pem + LEAF.pem), "certificate_file", "stands at place 2", "first"),
    "no passphrase": (lambda: Case(key=LEAF.key_pem(PASSPHRASE)), "key_passphrase", "no passphrase is given", "vault"),
    "a wrong passphrase": (
        lambda: Case(key=LEAF.key_pem("another"), passphrase=PASSPHRASE),
        "key_passphrase",
        "does not open the private key",
        "openssl pkey",
    ),
    "the key in the certificate's place": (lambda: Case(LEAF.key_pem()), "certificate_file", "private key, where only", "tls_key_file"),
    "both in one file": (lambda: Case(LEAF.pem + LEAF.key_pem()), "certificate_file", "private key, where only", "tls_key_file"),
    "the certificate in the key's place": (lambda: Case(key=LEAF.pem), "key_file", "a certificate, where the private", "made for"),
    "a request": (lambda: Case(request()), "certificate_file", "request", "authority"),
    "no PEM": (lambda: Case("hello"), "certificate_file", "no certificate in PEM form", "pkcs12"),
    "no PEM key": (lambda: Case(key="hello"), "key_file", "no private key in PEM form", "pkcs12"),
    "a damaged certificate": (lambda: Case(LEAF.pem.replace("\n", "\nAAAA", 2)), "certificate_file", "Certificate 1 is damaged", "anew"),
    "a damaged key": (lambda: Case(key=LEAF.key_pem().replace("\n", "\nAAAA", 2)), "key_file", "damaged", "anew"),
    "a key for SSH": (lambda: Case(key=for_ssh()), "key_file", "for SSH", "made for"),
    "a damaged root": (lambda: Case(ca=ROOT.pem.replace("\n", "\nAAAA", 2)), "ca_file", "damaged", "anew"),
    "a key in the authority's place": (lambda: Case(ca=ROOT.key_pem()), "ca_file", "private key", "certificates only"),
    "for clients only": (
        lambda: of(server(usage=ExtendedKeyUsageOID.CLIENT_AUTH), MIDDLE),
        "certificate_file",
        "Clients would refuse it: unsuitable certificate purpose",
        "servers can use",
    ),
    "too weak a key": (
        lambda: of(server(key=rsa.generate_private_key(65537, 1024)), MIDDLE),
        "certificate_file",
        "KEY_TOO_SMALL",
        "servers",
    ),
    "an intermediate for a root": (lambda: of(LEAF, ca=MIDDLE.pem), "certificate_file", "Clients would refuse it", "servers"),
}


@pytest.mark.requirement("2.3.2", part="good chains and keys")
@pytest.mark.parametrize("case", GOOD)
def test_what_clients_accept_passes(case: str, tmp_path: Path) -> None:
    assert GOOD[case]().problems(tmp_path) == []


@pytest.mark.requirement("2.3.2", part="every fault in its own words")
@pytest.mark.parametrize("case", WRONG)
def test_each_fault_is_told_in_its_own_words(case: str, tmp_path: Path) -> None:
    make, option, message, remedy = WRONG[case]
    given = make()
    (problem,) = given.problems(tmp_path)
    assert (problem["severity"], problem["option"]) == ("error", f"tls_{option}")
    assert message in problem["message"] and remedy in problem["remedy"]
    told = json.dumps(problem)
    assert PASSPHRASE not in told and not any(line in told for line in given.key.splitlines() if not line.startswith("-"))


def test_messages_differ() -> None:
    assert len({words for _make, _option, words, _remedy in WRONG.values()}) > len(WRONG) - 7


@pytest.mark.parametrize(
    ("make", "option", "message"),
    [
        (lambda: of(server(ends=9), MIDDLE), "tls_certificate_file", "expires on"),
        (lambda: Case(passphrase=PASSPHRASE), "tls_key_passphrase", "has no effect"),
        (lambda: of(own := issue("n1", None, NAME), ca=own.pem), "tls_ca_file", "no authority's"),
    ],
)
def test_doubts_are_warnings(make: Callable[[], Case], option: str, message: str, tmp_path: Path) -> None:
    (problem,) = make().problems(tmp_path)
    assert (problem["severity"], problem["option"]) == ("warning", option) and message in problem["message"]


def test_a_key_that_others_can_read_is_pointed_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "chmod", lambda *_: None)
    (problem,) = Case().problems(tmp_path)
    assert (problem["severity"], problem["option"]) == ("warning", "tls_key_file") and "chmod 0600" in problem["remedy"]


@pytest.mark.requirement("2.3.2", part="an authority of the system's")
def test_without_a_declared_authority_the_systems_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "system.pem").write_text(ROOT.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "system.pem"))
    assert Case(ca=None).problems(tmp_path) == []


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    options = {"tls_mode": "uploaded", "tls_certificate_file": "gone.pem", "tls_key_file": "key.der", "tls_ca_file": "/nowhere/ca.pem"}
    (tmp_path / "key.der").write_bytes(LEAF.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
    declared, _ = declared_of(cluster_of(1), options)
    found = {problem["option"]: problem for problem in tls.files(declared, {"n1": tmp_path}, {}, NOW)}
    assert set(found) == {"tls_certificate_file", "tls_key_file", "tls_ca_file"}
    assert "No such file" in found["tls_certificate_file"]["message"] and "binary" in found["tls_key_file"]["message"]


def test_options_need_each_other() -> None:
    half = judge_declaration({"tls_mode": "uploaded", "tls_certificate_file": "tls.pem"})
    assert [problem["severity"] for problem in about(half, "tls_key_file")] == ["error"] * 3
    idle = judge_declaration({"tls_key_file": "tls.key", "tls_key_passphrase": PASSPHRASE})
    assert {(problem["option"], problem["severity"]) for problem in idle} == {
        ("tls_key_file", "warning"),
        ("tls_key_passphrase", "warning"),
    }


@pytest.mark.parametrize(
    ("name", "held"),
    [
        ("a.example.com", True),
        ("A.example.com", True),
        ("example.com", False),
        ("a.b.example.com", False),
        ("com", False),
        ("fd00::1", True),
    ],
)
def test_names_are_compared_as_clients_do(name: str, held: bool) -> None:
    assert covers(["*.example.com", "fd00::1"], name) is held


def spoilt(text: str) -> st.SearchStrategy[str]:
    """A file that somebody has cut, doubled or edited."""
    cut = st.tuples(st.integers(0, len(text)), st.integers(0, len(text)), st.text(max_size=9))
    return cut.map(lambda how: text[: how[0]] + how[2] + text[how[1] :]) | st.text() | st.just(text)


@pytest.mark.requirement("2.3.2", part="no input makes a traceback")
@settings(max_examples=200, deadline=None)
@given(
    certificate=spoilt(LEAF.pem + MIDDLE.pem),
    key=spoilt(LEAF.key_pem()),
    authorities=st.none() | spoilt(ROOT.pem),
    passphrase=st.none() | st.text(),
    names=st.lists(st.text(min_size=1), min_size=1, max_size=3),
)
def test_whatever_is_in_the_files_is_judged(
    certificate: str, key: str, authorities: str | None, passphrase: str | None, names: list[str]
) -> None:
    for fault in judge(Upload(certificate, key, passphrase, authorities, names), NOW):
        assert fault.message and fault.remedy and fault.severity in ("error", "warning")


@pytest.mark.requirement("2.3.2", part="the key is decrypted in memory")
def test_the_lookup_decrypts_and_quotes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "tls.key"
    path.write_text(LEAF.key_pem(PASSPHRASE))
    look = LookupModule()
    assert look.run([str(path)], {}, passphrase=PASSPHRASE) == [LEAF.key_pem()]
    path.write_text(LEAF.key_pem())
    assert look.run([str(path)], {}) == [LEAF.key_pem()]
    path.write_text(LEAF.key_pem("another"))
    with pytest.raises(AnsibleLookupError, match="cannot be opened with this passphrase") as refused:
        look.run([str(path)], {}, passphrase=PASSPHRASE)
    assert PASSPHRASE not in str(refused.value)
