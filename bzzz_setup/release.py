# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Build the release artifacts of the node service and of the AI gateway, their indexes, and the collection that carries the former.

An artifact is one Python version's and architecture's tree, complete and relocatable, so that nodes need neither pip
nor a package index:

    bin/bzzz-node   the program: python3 -sE bin/bzzz-node --config FILE
    lib/            bzzz_setup.node, bzzz_node (detection), and the third-party packages of node/requirements.txt
    VERSION         the release
    sbom.json       every third-party package with version and licence (CycloneDX)

The same inputs give the same bytes. ``index.json`` beside the artifacts lists them:
``{"releases": [{version, channel, platform, architecture, python, url, sha256, size, built, inputs}]}``; ``url`` is
relative to the index, ``built`` is the inputs' commit time, ``inputs`` their hash.

The gateway's is the same with ``bin/bzzz-gateway``, which is LiteLLM's proxy, bzzz_setup.gateway and the packages of
gateway/requirements.txt. It is large, and so no part of the collection.

    python -m bzzz_setup.release [--product gateway] [--output DIR] [--python 3.11 …] [--collection] [--lock]
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import fcntl
import gzip
import hashlib
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from email import message_from_string
from pathlib import Path
from typing import Any

import tomllib
from ansible_collections.bzzz.cluster.plugins.plugin_utils.question import sources

from .node.detect import PROGRAMS

ROOT = Path(__file__).resolve().parent.parent
NODE = ROOT / "bzzz_setup" / "node"
GATEWAY = ROOT / "bzzz_setup" / "gateway"
LOCK = NODE / "requirements.txt"
OUTPUT = ROOT / "roles" / "service" / "files" / "releases"
INDEX = "index.json"
# Of Debian 12, Ubuntu 24.04 and Debian 13; what the lock file's hashes cover.
PYTHONS = ("3.11", "3.12", "3.13")
ARCHITECTURES = ("x86_64", "aarch64")
# Debian 12's and Ubuntu 22.04's C library is newer than either.
PLATFORMS = ("manylinux_2_28", "manylinux2014")
# The time of every file in an artifact, so that its bytes depend on its content only: 1980, which every tool can take.
OLD = 315532800

PROGRAM = '''\
#!/usr/bin/env python3
"""The BZZZ node service, from its release artifact."""
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if sys.version_info[:2] != {python!r}:
    here = "%d.%d" % sys.version_info[:2]
    print(f"this release is for Python {dotted}, not {{here}}. Remedy: install the one for Python {{here}}.", file=sys.stderr)
    sys.exit(78)
# The tree is root's and stays as it was released.
sys.dont_write_bytecode = True
sys.path[0] = str(ROOT / "lib")

from bzzz_setup.node.main import main

sys.exit(main(version={version!r}))
'''

GATEWAY_PROGRAM = '''\
#!/usr/bin/env python3
"""The BZZZ AI gateway, from its release artifact: LiteLLM's proxy."""
import os
import secrets
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if sys.version_info[:2] != {python!r}:
    here = "%d.%d" % sys.version_info[:2]
    print(f"this release is for Python {dotted}, not {{here}}. Remedy: install the one for Python {{here}}.", file=sys.stderr)
    sys.exit(78)
sys.dont_write_bytecode = True
sys.path[0] = str(ROOT / "lib")
# LiteLLM insists on one. It opens nothing here, so nobody knows it and it is another at each start.
os.environ["LITELLM_MASTER_KEY"] = "sk-" + secrets.token_urlsafe(32)

if sys.argv[1:] == ["ledger"]:
    from bzzz_setup.gateway.asked import main

    sys.exit(main())

from litellm import run_server

sys.exit(run_server())
'''


@dataclasses.dataclass(frozen=True)
class Product:
    """What artifacts are made of. left_out: packages that others ask for and that do not run here."""

    name: str
    what: str
    extra: str
    sources: Path
    output: Path
    program: str
    left_out: frozenset[str]

    @property
    def lock(self) -> Path:
        return self.sources / "requirements.txt"


# pbr asks for setuptools to build packages with, not to run.
SERVICE = Product("bzzz-node", "node service", "node", NODE, OUTPUT, PROGRAM, frozenset({"setuptools"}))
# Of LiteLLM's extra `proxy`: stores, clouds, servers and consoles that the gateway does not use.
GATEWAY_PRODUCT = Product(
    "bzzz-gateway",
    "AI gateway",
    "gateway",
    GATEWAY,
    ROOT / "roles" / "gateway" / "files" / "releases",
    GATEWAY_PROGRAM,
    frozenset(
        {
            "azure-core",
            "azure-identity",
            "azure-storage-blob",
            "boto3",
            "botocore",
            "granian",
            "inquirerpy",
            "isodate",
            "litellm-enterprise",
            "msal",
            "msal-extensions",
            "pfzy",
            "polars",
            "polars-runtime-32",
            "prompt-toolkit",
            "pyroscope-io",
            "rq",
            "s3transfer",
            "setuptools",
            "wcwidth",
        }
    ),
)
PRODUCTS = {"node": SERVICE, "gateway": GATEWAY_PRODUCT}


class ReleaseError(Exception):
    """A release cannot be built; the message says why and what to do."""


def version() -> str:
    """The product's version, from its one place."""
    return str(_project()["version"])


def _project() -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project


def _own_files(product: Product) -> dict[str, bytes]:
    """Our part of ``lib``, by path: the product, and the node programs that the service detects with."""
    own = (path for path in product.sources.rglob("*") if path.suffix in (".py", ".css", ".js"))
    files = {str(path.relative_to(ROOT)): path.read_bytes() for path in own}
    files["bzzz_setup/__init__.py"] = b""
    for program in PROGRAMS if product is SERVICE else ():
        files |= {f"bzzz_node/{name}.py": text.encode() for name, text in sources(program).items()}
    return dict(sorted(files.items()))


def _inputs(product: Product, python: str, architecture: str) -> str:
    digest = hashlib.sha256(f"{version()} {python} {architecture}\n".encode())
    for name, content in {
        **_own_files(product),
        product.lock.name: product.lock.read_bytes(),
        "builder": Path(__file__).read_bytes(),
    }.items():
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _built(product: Product) -> int:
    """Seconds since the epoch: SOURCE_DATE_EPOCH, else when the sources were last committed."""
    if epoch := os.environ.get("SOURCE_DATE_EPOCH", ""):
        return int(epoch)
    paths = [product.sources, __file__, ROOT / "plugins" / "module_utils" / "node", ROOT / "pyproject.toml"]
    with contextlib.suppress(OSError, ValueError, subprocess.CalledProcessError):
        done = subprocess.run(
            ["git", "-C", ROOT, "log", "-1", "--format=%ct", "--", *map(str, paths)], capture_output=True, text=True, check=True
        )
        return int(done.stdout)
    return OLD


def _pip(product: Product, *arguments: str | Path, python: str, architecture: str) -> None:
    target = ["--only-binary=:all:", "--implementation", "cp", "--python-version", python]
    target += [word for name in PLATFORMS for word in ("--platform", f"{name}_{architecture}")]
    command: list[str | Path] = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "install", *target, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ReleaseError(
            f"pip could not get the {product.what}'s packages for Python {python}, {architecture}:\n{done.stderr.strip()[-2000:]}\n"
            "Remedy: check the way to the package index (proxy, CA bundle, pip.conf); after a change of pins, "
            f"run `python -m bzzz_setup.release --product {product.extra} --lock`."
        )


def lock(product: Product = SERVICE) -> None:
    """Write the product's requirements.txt: its extra in pyproject with all it needs, and the hash of every wheel."""
    found: dict[str, set[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        for python in PYTHONS:
            for architecture in ARCHITECTURES:
                pins = _project()["optional-dependencies"][product.extra]
                pins += [pin for pin in _project()["dependencies"] if product is SERVICE and pin.startswith("pyyaml==")]
                _pip(
                    product,
                    *("--dry-run", "--ignore-installed", "--quiet", "--target", folder, "--report", report, *pins),
                    python=python,
                    architecture=architecture,
                )
                for item in json.loads(report.read_text(encoding="utf-8"))["install"]:
                    name = item["metadata"]["name"].lower().replace("_", "-")
                    if name not in product.left_out:
                        pin = f"{name}=={item['metadata']['version']}"
                        found.setdefault(pin, set()).add(item["download_info"]["archive_info"]["hashes"]["sha256"])
    more = "" if product is SERVICE else f" --product {product.extra}"
    head = (
        f"# Written by `python -m bzzz_setup.release{more} --lock` from pyproject.toml: what the {product.what}'s artifact is built from.\n"
    )
    lines = [" \\\n".join([pin, *(f"    --hash=sha256:{each}" for each in sorted(hashes))]) for pin, hashes in sorted(found.items())]
    product.lock.write_text(head + "\n".join(lines) + "\n", encoding="utf-8")


def _tree(product: Product, root: Path, python: str, architecture: str) -> None:
    """Make the artifact's tree below ``root``."""
    lib = root / "lib"
    arguments = ("--require-hashes", "--no-deps", "--no-compile", "--quiet", "--target", lib, "-r", product.lock)
    _pip(product, *arguments, python=python, architecture=architecture)
    components = []
    for folder in sorted(lib.glob("*.dist-info")):
        components.append(_component((folder / "METADATA").read_text(encoding="utf-8", errors="replace")))
        # What installers note about themselves; licences and metadata stay.
        for name in ("RECORD", "INSTALLER", "REQUESTED", "WHEEL", "direct_url.json", "pbr.json"):
            (folder / name).unlink(missing_ok=True)
    shutil.rmtree(lib / "bin", ignore_errors=True)
    for path in sorted(lib.rglob("*"), reverse=True):
        if path.name in ("tests", "testing", "__pycache__") and path.is_dir():
            shutil.rmtree(path)
        elif path.suffix in (".pyi", ".pyx", ".pxd", ".c", ".h", ".pyc") and path.is_file():
            path.unlink()
    for name, content in _own_files(product).items():
        path = lib / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (root / "VERSION").write_text(version() + "\n", encoding="utf-8")
    sbom = {"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1, "components": components}
    (root / "sbom.json").write_text(json.dumps(sbom, indent=1) + "\n", encoding="utf-8")
    program = root / "bin" / product.name
    program.parent.mkdir()
    major, minor = (int(part) for part in python.split("."))
    program.write_text(product.program.format(python=(major, minor), dotted=python, version=version()), encoding="utf-8")


def _component(metadata: str) -> dict[str, Any]:
    about = message_from_string(metadata)
    name, number = about["Name"], about["Version"]
    licence = (
        about["License-Expression"]
        or about["License"]
        or "; ".join(each.rpartition(" :: ")[2] for each in about.get_all("Classifier", []) if each.startswith("License ::"))
    )
    return {
        "type": "library",
        "name": name,
        "version": number,
        "purl": f"pkg:pypi/{name.lower().replace('_', '-')}@{number}",
        "licenses": [{"license": {"name": licence.splitlines()[0] if licence else "unknown"}}],
    }


def _pack(root: Path, artifact: Path) -> None:
    """Write the tree as a tar.gz that depends on nothing but its content."""
    buffer = io.BytesIO()
    # The best packing takes three times as long, for one part in a hundred.
    with (
        gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=buffer, mtime=OLD) as packed,
        tarfile.open(fileobj=packed, mode="w") as tar,
    ):
        for path in sorted(root.rglob("*")):
            member = tar.gettarinfo(path, str(path.relative_to(root)))
            member.uid = member.gid = 0
            member.uname = member.gname = "root"
            member.mtime = OLD
            member.mode = 0o755 if path.is_dir() or path.parent == root / "bin" else 0o644
            if path.is_dir():
                tar.addfile(member)
            else:
                with path.open("rb") as file:
                    tar.addfile(member, file)
    _write(artifact, buffer.getvalue())


def _write(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(content)
    partial.chmod(0o644)
    partial.replace(path)


def _entries(output: Path) -> list[dict[str, Any]]:
    """The index's entries whose artifact is there."""
    try:
        entries = json.loads((output / INDEX).read_text(encoding="utf-8"))["releases"]
    except (OSError, ValueError, KeyError):
        return []
    return [entry for entry in entries if (output / entry["url"]).is_file()]


def build(
    output: Path | None = None,
    channel: str = "stable",
    python: str = PYTHONS[0],
    architecture: str = platform.machine(),
    product: Product = SERVICE,
) -> Path:
    """Build the artifact into ``output`` and enter it into the index there; returns the artifact.

    Nothing is built when the index has one of the same inputs. Raises ReleaseError.
    """
    if not re.fullmatch(r"3\.\d{1,2}", python) or architecture not in ARCHITECTURES:
        raise ReleaseError(
            f"no release can be built for Python {python} on {architecture}. Remedy: choose 3.x and {' or '.join(ARCHITECTURES)}."
        )
    output = output or product.output
    output.mkdir(parents=True, exist_ok=True)
    with _alone(output):
        return _build(product, output, channel, python, architecture)


def build_all(output: Path | None = None, pythons: Sequence[str] = PYTHONS, product: Product = SERVICE) -> None:
    """Build what nodes of every supported system need, for this machine's architecture. Raises ReleaseError."""
    for python in pythons:
        build(output, python=python, product=product)


def is_built(product: Product, pythons: Sequence[str] = PYTHONS, architecture: str = platform.machine()) -> bool:
    """Whether ``build_all`` would find all of it made."""
    made = {entry["inputs"] for entry in _entries(product.output)}
    return all(_inputs(product, python, architecture) in made for python in pythons)


@contextlib.contextmanager
def _alone(output: Path) -> Iterator[None]:
    """One build at a time in a directory: the index is read and written."""
    descriptor = os.open(output, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _build(product: Product, output: Path, channel: str, python: str, architecture: str) -> Path:
    inputs = _inputs(product, python, architecture)
    entries = _entries(output)
    artifact = output / f"{product.name}-{version()}-py{python}-{architecture}.tar.gz"
    same = [entry for entry in entries if entry["inputs"] == inputs and entry["url"] == artifact.name]
    there = bool(same) and hashlib.sha256(artifact.read_bytes()).hexdigest() == same[0]["sha256"]
    if there and any(entry["channel"] == channel for entry in same):
        return artifact
    if not there:
        with tempfile.TemporaryDirectory(prefix="bzzz-release-") as folder:
            root = Path(folder) / "tree"
            _tree(product, root, python, architecture)
            _pack(root, artifact)
    content = artifact.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    entry = {
        "version": version(),
        "channel": channel,
        "platform": "linux",
        "architecture": architecture,
        "python": python,
        "url": artifact.name,
        "sha256": sha256,
        "size": len(content),
        "built": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(_built(product))),
        "inputs": inputs,
    }
    # The same artifact may be in several channels; what this one replaces is in none any more.
    entries = [other for other in entries if other["url"] != artifact.name or (other["sha256"] == sha256 and other["channel"] != channel)]
    entries = sorted([*entries, entry], key=lambda other: (other["url"], other["channel"]))
    _write(output / INDEX, (json.dumps({"releases": entries}, indent=1) + "\n").encode())
    return artifact


def build_collection(output: Path, pythons: Sequence[str] = PYTHONS) -> Path:
    """Build the collection's tarball, with the node service's releases in it, into ``output``; returns the tarball."""
    build_all(pythons=pythons)
    output.mkdir(parents=True, exist_ok=True)
    galaxy = Path(sys.executable).with_name("ansible-galaxy")
    command: list[str | Path] = [galaxy, "collection", "build", "--force", "--output-path", output, ROOT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ReleaseError(f"ansible-galaxy could not build the collection:\n{(done.stderr or done.stdout).strip()[-2000:]}")
    return output / f"bzzz-cluster-{version()}.tar.gz"


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bzzz_setup.release", description="Build release artifacts.")
    parser.add_argument("--product", choices=list(PRODUCTS), default="node")
    parser.add_argument("--output", type=Path, help="directory of the artifacts and their index")
    parser.add_argument("--channel", choices=["stable", "beta", "development"], default="stable")
    parser.add_argument("--python", nargs="+", default=list(PYTHONS), metavar="3.N", help="Python versions of the nodes")
    parser.add_argument("--architecture", nargs="+", choices=ARCHITECTURES, default=[platform.machine()])
    parser.add_argument("--collection", type=Path, metavar="DIR", help="build the collection's tarball into DIR instead")
    parser.add_argument("--lock", action="store_true", help="first write the product's requirements.txt from pyproject.toml")
    return parser.parse_args(argv)


def _do(arguments: argparse.Namespace) -> Iterator[Path]:
    product = PRODUCTS[arguments.product]
    if arguments.lock:
        lock(product)
        yield product.lock
    if arguments.collection:
        yield build_collection(arguments.collection, arguments.python)
        return
    for python in arguments.python:
        for architecture in arguments.architecture:
            yield build(arguments.output, arguments.channel, python, architecture, product)


def main(argv: Sequence[str] | None = None) -> int:
    try:
        for made in _do(_arguments(argv)):
            print(made)
    except ReleaseError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
