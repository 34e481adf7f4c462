# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The node service's artifact, its index, and choosing from one."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import tomllib
import yaml
from ansible_collections.bzzz.cluster.plugins.module_utils.releases import ReleaseError, choose, entries
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from bzzz_setup import release


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of this checkout's releases, one for each Python, the first."""
    release.build_all()
    return Path(shutil.copytree(release.OUTPUT, tmp_path_factory.mktemp("built") / "releases")) / release.build().name


@pytest.mark.requirement("F6", part="release artifact")
@pytest.mark.requirement("6.3.1", part="index")
def test_the_index_describes_the_artifact(built: Path) -> None:
    index = json.loads((built.parent / "index.json").read_text())
    (entry,) = (entry for entry in index["releases"] if entry["url"] == built.name)
    assert entry["sha256"] == hashlib.sha256(built.read_bytes()).hexdigest()
    assert entry["size"] == built.stat().st_size < 12_000_000
    assert choose(index, "3.11.2", os.uname().machine) == entry
    galaxy = yaml.safe_load((release.ROOT / "galaxy.yml").read_text())
    assert entry["version"] == release.version() == galaxy["version"]


@pytest.mark.slow
@pytest.mark.requirement("F6", part="release artifact")
def test_the_same_inputs_give_the_same_bytes_and_are_built_once(built: Path, tmp_path: Path) -> None:
    again = release.build(tmp_path / "other")
    assert again.read_bytes() == built.read_bytes()
    moment = again.stat().st_mtime_ns
    assert release.build(tmp_path / "other").stat().st_mtime_ns == moment
    again.write_bytes(b"damaged")
    assert release.build(tmp_path / "other").read_bytes() == built.read_bytes()
    assert not list(again.parent.glob(".*")), "nothing half-made is left"
    release.build(tmp_path / "other", channel="beta")
    index = json.loads((again.parent / "index.json").read_text())
    assert sorted(entry["channel"] for entry in index["releases"]) == ["beta", "stable"]


@pytest.mark.requirement("F6", part="release artifact")
def test_the_artifact_holds_plain_files_of_root_and_lists_its_packages(built: Path, tmp_path: Path) -> None:
    with tarfile.open(built) as tar:
        members = tar.getmembers()
        tar.extractall(tmp_path)
    names = [member.name for member in members]
    assert names == sorted(names, key=lambda name: Path(name).parts)
    assert all((member.isfile() or member.isdir()) and (member.uid, member.gid) == (0, 0) for member in members)
    assert not [name for name in names if name.endswith((".pyc", "RECORD")) or name.startswith("lib/setuptools")]
    assert {"bin/bzzz-node", "VERSION", "sbom.json", "lib/bzzz_node/gpu.py", "lib/bzzz_setup/node/page.css"} <= set(names)
    assert not [
        name
        for name in names
        if name.startswith("lib/bzzz_setup/") and not name.startswith(("lib/bzzz_setup/node", "lib/bzzz_setup/__init__"))
    ]
    listed = {
        (part["name"].lower().replace("_", "-"), part["version"]) for part in json.loads((tmp_path / "sbom.json").read_text())["components"]
    }
    locked = {tuple(line.split(" ")[0].split("==")) for line in release.LOCK.read_text().splitlines() if "==" in line}
    assert listed == locked


@pytest.mark.requirement("F6", part="release artifact")
def test_the_lock_holds_what_pyproject_pins() -> None:
    extra = tomllib.loads((release.ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["node"]
    lock = release.LOCK.read_text()
    assert all(f"\n{pin} \\" in f"\n{lock}" for pin in extra), "run: python -m bzzz_setup.release --lock"


@pytest.mark.requirement("F6", part="release artifact")
def test_it_runs_from_anywhere_without_the_builders_packages_and_leaves_no_trace(built: Path, tmp_path: Path) -> None:
    tree = tmp_path / "some where"
    with tarfile.open(built) as tar:
        tar.extractall(tree)
    before = sorted(tree.rglob("*"))
    python = "/usr/bin/python3" if _is_311("/usr/bin/python3") else sys.executable
    command = [python, "-sE", str(tree / "bin" / "bzzz-node")]
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True, cwd="/", env={"PATH": "/usr/bin:/bin"})
    assert done.stdout.strip() == release.version()
    done = subprocess.run([*command, "--config", "/nowhere"], capture_output=True, text=True, check=False)
    assert done.returncode == 78 and "Remedy" in done.stderr
    # Its own detection, with nothing but the artifact.
    detect = [python, "-IB", str(tree / "lib/bzzz_setup/node/detect.py")]
    facts = json.loads(subprocess.run(detect, capture_output=True, check=True, cwd="/").stdout)
    assert facts["system"]["cpu"]["threads"] == os.cpu_count()
    assert sorted(tree.rglob("*")) == before


def _is_311(python: str) -> bool:
    done = subprocess.run([python, "-c", "import sys; print(sys.version_info[:2])"], capture_output=True, text=True, check=False)
    return done.stdout.strip() == "(3, 11)"


@pytest.mark.requirement("F6", part="release artifact for Debian 13")
def test_several_pythons_share_one_index_and_each_refuses_the_wrong_one(built: Path, tmp_path: Path) -> None:
    index = json.loads((built.parent / "index.json").read_text())
    assert [entry["python"] for entry in index["releases"]] == list(release.PYTHONS)
    newer = built.parent / choose(index, "3.13", os.uname().machine)["url"]
    with tarfile.open(newer) as tar:
        assert any("cpython-313" in name for name in tar.getnames())
        tar.extractall(tmp_path / "tree")
    done = subprocess.run([sys.executable, "-sE", str(tmp_path / "tree/bin/bzzz-node")], capture_output=True, text=True, check=False)
    if sys.version_info[:2] == (3, 11):
        assert done.returncode == 78 and "install the one for Python 3.11" in done.stderr


@pytest.mark.requirement("L7", part="release")
def test_what_cannot_be_built_is_refused_with_a_remedy(tmp_path: Path) -> None:
    for python, architecture in (("2.7", "x86_64"), ("3.11", "sparc"), ("../3.11", "x86_64")):
        with pytest.raises(release.ReleaseError, match="Remedy"):
            release.build(tmp_path, python=python, architecture=architecture)
    lock = tmp_path / "requirements.txt"
    lock.write_text(release.LOCK.read_text().replace("--hash=sha256:", "--hash=sha256:0000")[:-1])
    with pytest.raises(release.ReleaseError, match="Remedy"):
        release.build(tmp_path / "out", product=dataclasses.replace(release.SERVICE, sources=tmp_path))
    assert not list((tmp_path / "out").iterdir()), "a bad package leaves nothing behind"


@pytest.mark.requirement("F6", part="collection carries the releases")
def test_the_collection_carries_the_releases(tmp_path: Path) -> None:
    tarball = release.build_collection(tmp_path)
    with tarfile.open(tarball) as tar:
        names = set(tar.getnames())
        index = json.load(tar.extractfile("roles/service/files/releases/index.json"))  # type: ignore[arg-type]
    assert all(f"roles/service/files/releases/{entry['url']}" in names for entry in index["releases"])
    assert "plugins/module_utils/releases.py" in names
    assert not [
        name for name in names if name.startswith(("tests/unit", "tests/cluster", "bzzz_setup", ".venv", ".git/", "roles/gateway/files"))
    ]


def entry(
    version: str = "1.0.0", channel: str = "stable", python: str | None = "3.11", architecture: str = "x86_64", **more: Any
) -> dict[str, Any]:
    found = {"version": version, "channel": channel, "platform": "linux", "architecture": architecture, "python": python}
    return {**found, "url": f"bzzz-node-{version}-py{python}-{architecture}.tar.gz", "sha256": "0" * 64, "size": 1, **more}


INDEX = {
    "releases": [
        entry("1.9.0"),
        entry("1.10.0"),
        entry("1.10.0", architecture="aarch64"),
        entry("2.0.0", python="3.13"),
        entry("1.11.0rc1", channel="beta"),
        entry("3.0", python=None, architecture="arm64", url="https://example.com/upstream.tar.gz"),
    ]
}


@pytest.mark.requirement("6.3.1", part="index")
def test_the_newest_of_the_channel_for_this_node_is_chosen() -> None:
    assert choose(INDEX, "3.11.2", "x86_64")["version"] == "1.10.0"
    assert choose(INDEX, "3.11", "amd64", channel="beta")["version"] == "1.11.0rc1"
    assert choose(INDEX, "3.13", "x86_64")["version"] == "2.0.0"
    assert choose(INDEX, "3.11", "x86_64", version="1.9")["version"] == "1.9.0"
    assert choose(INDEX, "3.12", "aarch64")["version"] == "3.0", "no Python at all will do"


@pytest.mark.requirement("L7", part="release index")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"python": "3.9"}, "linux x86_64 Python 3.11"),
        ({"architecture": "riscv64"}, "nothing for linux riscv64"),
        ({"channel": "development"}, "it has beta, stable"),
        ({"version": "1.8.0"}, "it has 1.10.0, 1.9.0"),
        ({"version": "1.11.0rc1"}, "set service_release_channel to beta"),
        ({"version": "latest"}, "'latest' is no version"),
    ],
)
def test_what_is_not_there_is_told_with_what_is(arguments: dict[str, str], said: str) -> None:
    with pytest.raises(ReleaseError) as caught:
        choose(INDEX, **{"python": "3.11", "architecture": "x86_64", **arguments})
    assert said in str(caught.value) and "Remedy" in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "../x"},
        {"url": "/etc/x"},
        {"url": "http://example.com/x"},
        {"url": "//host/x"},
        {"sha256": "abc"},
        {"version": "one"},
        {"channel": None},
    ],
)
def test_a_wrong_entry_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ReleaseError, match=r"release 2 of the index.*Remedy"):
        entries({"releases": [entry(), entry(**wrong)]})


@given(
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["releases", *entry()]), inner),
    )
)
def test_any_index_gives_an_entry_or_an_explanation(index: Any) -> None:
    with pytest.raises(ReleaseError, match="Remedy"):
        choose(index, "3.11", "x86_64")


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(0, 20)), min_size=1))
def test_newest_is_by_number_and_not_by_letter(numbers: list[tuple[int, int, int]]) -> None:
    versions = [".".join(map(str, number)) for number in numbers]
    chosen = choose({"releases": [entry(version) for version in versions]}, "3.11", "x86_64")
    assert Version(chosen["version"]) == max(map(Version, versions))
