# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""`ansible-test sanity`, every test of it, on the collection as it is published. Arguments go on to it.

Its environments stay in .cache/sanity, so the first run takes longer.
"""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from bzzz_setup.lab import CHECKOUT, tool
from bzzz_setup.release import build_collection

HOME = CHECKOUT / ".cache/sanity"
# ansible-test fetches pip's installer from a site of its own; where only a package index is in reach, this does the same.
GET_PIP = """\
import ensurepip, pathlib, runpy, sys

(wheel,) = pathlib.Path(ensurepip.__file__).parent.glob("_bundled/pip-*.whl")
sys.path.insert(0, str(wheel))
sys.argv[1:] = ["install", *(word for word in sys.argv[1:] if word not in ("--no-setuptools", "--no-wheel"))]
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""


def _keep_pip_settings() -> None:
    """ansible-test passes on no environment and no other home; the way to the package index may be told by either."""
    said = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True).stdout
    settings = {"global": {"progress-bar": "off", "quiet": "1"}}
    if proxy := os.environ.get("https_proxy"):
        settings["global"]["proxy"] = proxy
    for name, value in re.findall(r"^(\S+)='(.*)'$", said, re.MULTILINE):
        section, _, key = name.rpartition(".")
        settings.setdefault(section if section != ":env:" else "global", {})[key] = value
    config = configparser.RawConfigParser()
    config.read_dict(settings)
    file = HOME / ".config/pip/pip.conf"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch(0o600)  # a proxy's or an index's address may hold a password
    with file.open("w", encoding="utf-8") as stream:
        config.write(stream)


def main(arguments: list[str]) -> int:
    _keep_pip_settings()
    environment = os.environ | {"HOME": str(HOME), "LC_ALL": "C.UTF-8"}
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    command = [tool("ansible-test"), "sanity", "--local", "--python", python]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "ansible_collections/bzzz/cluster")
        root.mkdir(parents=True)
        with tarfile.open(build_collection(Path(folder), [])) as tarball:
            tarball.extractall(root, filter="data")
        # The smallest of its environments, to see whether it can make them.
        first = subprocess.run(
            [*command, "--test", "yamllint", "meta/runtime.yml"], cwd=root, env=environment, capture_output=True, text=True, check=False
        )
        if missing := re.search(r"manually downloaded and saved to: (.+\.py)", first.stdout + first.stderr):
            Path(missing[1]).write_text(GET_PIP, encoding="utf-8")
        return subprocess.run([*command, *arguments], cwd=root, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
