# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a node may have signed, and when an authority or a token may be made: the roles' own assertions over other facts."""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

ROLES = Path(__file__).parents[2] / "roles"
NAMES = ["n1", "localhost", "10.0.0.11", "fd00::11"]


def asserted(role: str, file: str, name: str, cases: list[dict[str, Any]], folder: Path) -> list[str]:
    """What the role's assertion says of host n1 with each case's variables; nothing where it holds."""
    (task,) = [task for task in yaml.safe_load((ROLES / role / "tasks" / file).read_text()) if task["name"] == name]
    own = yaml.safe_load((ROLES / role / "vars/main.yml").read_text())
    tasks = [{**task, "ignore_errors": True, "vars": {**own, **task.get("vars", {}), **variables}} for variables in cases]
    (folder / "play.yml").write_text(yaml.safe_dump([{"hosts": "n1", "gather_facts": False, "tasks": tasks}]))
    done = subprocess.run(
        [Path(sys.executable).parent / "ansible-playbook", "-i", "n1,n2,n3,", folder / "play.yml"],
        env={**os.environ, "ANSIBLE_LOCAL_TEMP": str(folder / "tmp"), "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = [one["hosts"]["n1"] for one in json.loads(done.stdout)["plays"][0]["tasks"]]
    assert all(one.get("failed", False) == ("assertion" in one) for one in found), found
    return [one["msg"] if one.get("failed") else "" for one in found]


def request(names: list[str], common_name: str = "n1", ca: bool = False) -> str:
    found = [x509.IPAddress(ipaddress.ip_address(name)) if ":" in name or name[0].isdigit() else x509.DNSName(name) for name in names]
    builder = x509.CertificateSigningRequestBuilder(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)]))
    builder = builder.add_extension(x509.SubjectAlternativeName(found), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    return builder.sign(ec.generate_private_key(ec.SECP256R1()), SHA256()).public_bytes(Encoding.PEM).decode()


@pytest.mark.requirement("2.3.1", part="nothing but the node's own names is signed")
def test_only_the_nodes_own_names_are_signed(tmp_path: Path) -> None:
    good = [request(NAMES), request(NAMES[::-1])]
    forged = [request([*NAMES, "n2"]), request(["n2", *NAMES[1:]]), request(NAMES, common_name="n2"), request(NAMES, ca=True)]
    cases = [{"__tls_request": {"csr": csr}, "__tls_names": NAMES} for csr in good + forged]
    said = asserted("tls", "leaf.yml", "The request is for this node and nobody else", cases, tmp_path)
    assert said[:2] == ["", ""]
    assert all("may have been broken into" in one for one in said[2:])


@pytest.mark.requirement("2.3.1", part="never a second authority")
def test_an_authority_is_made_by_a_majority_only(tmp_path: Path) -> None:
    def case(present: list[str], keepers: list[str]) -> dict[str, Any]:
        return {
            "bzzz_cluster": {"coordinators": ["n1", "n2", "n3"]},
            "__tls_ca": {"coordinators": present, "keepers": keepers, "differ": []},
        }

    good = [case(["n1", "n2", "n3"], []), case(["n1", "n2"], []), case(["n3"], ["n3"])]
    said = asserted("tls", "main.yml", "A coordinator to sign, and one authority only", [*good, case(["n3"], []), case([], [])], tmp_path)
    assert said[:3] == ["", "", ""]
    assert "majority" in said[3] and "--limit" in said[4]


@pytest.mark.requirement("2.3.1", part="rotation: with all coordinators, and one authority only")
def test_a_rotation_wants_all_coordinators(tmp_path: Path) -> None:
    def case(missing: list[str], keepers: list[str], differ: list[str]) -> dict[str, Any]:
        return {"__tls_ca": {"missing": missing, "keepers": keepers, "differ": differ}}

    cases = [case([], ["n1"], []), case(["n2", "n3"], ["n1"], []), case([], [], []), case([], ["n1"], ["AA", "BB"])]
    said = asserted("tls", "rotate.yml", "All coordinators are here, with their authority", cases, tmp_path)
    assert said[0] == ""
    assert "n2, n3 cannot be reached" in said[1] and "--limit" in said[1] and "Nothing was changed" in said[1]
    assert "apply --only 3" in said[2] and "different certificate authorities (AA, BB)" in said[3]


@pytest.mark.requirement("F7", part="a formed cluster keeps its coordinators")
def test_a_limited_run_makes_no_second_cluster(tmp_path: Path) -> None:
    def case(here: list[str], new: list[str]) -> dict[str, Any]:
        return {"bzzz_cluster": {"coordinators": ["n1", "n2", "n3"]}, "__coordination_here": here, "__coordination_new": new}

    good = [case(["n1", "n2", "n3"], ["n1", "n2", "n3"]), case(["n1", "n2"], ["n1", "n2"]), case(["n3"], []), case([], [])]
    bad = [case(["n3"], ["n3"])]
    said = asserted("coordination", "main.yml", "A majority of the coordinators, where one is to begin", [*good, *bad], tmp_path)
    assert said[:4] == [""] * 4
    assert "n3 has no data of etcd yet" in said[4] and "only 1 of 3" in said[4]
    assert "--limit, or mend them: " in said[4] and {"n1", "n2"} == set(said[4].rpartition(": ")[2].rstrip(".").split(", "))


def test_a_limited_run_makes_no_second_token(tmp_path: Path) -> None:
    def case(present: list[str], kept: str = "", declared: str | None = None) -> dict[str, Any]:
        return {
            "bzzz_cluster": {"coordinators": ["n1", "n2", "n3"]},
            "__service_coordinators": present,
            "declared": {"service": {"token": declared}},
            "__service_token_kept": kept,
        }

    good = [case(["n1", "n2", "n3"]), case(["n1", "n2"]), case(["n3"], kept="x"), case([], declared="********")]
    name = "A token that is known, or a majority that may make one"
    said = asserted("service", "main.yml", name, [*good, case([]), case(["n3"])], tmp_path)
    assert said[:4] == [""] * 4
    assert all("n1, n2, n3" in one and "--limit" in one for one in said[4:])
