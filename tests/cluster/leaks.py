# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Look for secrets where they must not be: on the admin host while the product runs, on a node afterwards."""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from bzzz_setup.lab import Lab

PASS_SECONDS = 0.05

# Reads {name: secret} from stdin's second line on. Packages' own trees were there before any secret.
_SEARCH = """
import json, os, stat, subprocess, sys
secrets = {name: secret.encode() for name, secret in json.loads(SECRETS).items()}
left_out = {"/proc", "/sys", "/usr/lib", "/usr/share", "/usr/bin", "/usr/sbin", "/media/lab"}
found = []
for folder, folders, files in os.walk("/"):
    folders[:] = [name for name in folders if os.path.join(folder, name) not in left_out]
    for name in files:
        path = os.path.join(folder, name)
        try:
            seen = os.lstat(path)
            if not stat.S_ISREG(seen.st_mode):
                continue
            with open(path, "rb") as file:
                content = file.read()
        except OSError:
            continue
        found += [(secret, path, oct(seen.st_mode & 0o7777), seen.st_uid) for secret, text in secrets.items() if text in content]
journal = subprocess.run(["journalctl", "--no-pager", "--all", "-o", "export"], stdout=subprocess.PIPE, check=True).stdout
found += [(secret, "journal", "", 0) for secret, text in secrets.items() if text in journal]
print(json.dumps({"found": found, "journal": len(journal)}))
"""


def on_node(lab: Lab, node: str, secrets: dict[str, str]) -> dict[str, set[str]]:
    """{name: paths} of the secrets in the node's files, or "journal" in its journal. No path may be readable by others than root."""
    script = f"SECRETS = {json.dumps(json.dumps(secrets))}\n{_SEARCH}"
    answer = json.loads(lab.exec(node, ["python3", "-"], stdin=script).stdout)
    assert answer["journal"] > 10_000, "the journal was not read"
    places: dict[str, set[str]] = {name: set() for name in secrets}
    for name, path, mode, owner in answer["found"]:
        assert path == "journal" or (mode in ("0o600", "0o640") and owner == 0), f"{name} can be read by others on {node}: {path} {mode}"
        places[name].add(path)
    return places


def in_files(roots: Iterable[Path], secrets: dict[str, str]) -> set[tuple[str, str]]:
    """(name, path) of each file below the roots that holds a secret now."""
    found = set()
    for root in roots:
        for folder, _folders, files in os.walk(root):
            for name in files:
                path = os.path.join(folder, name)
                try:
                    if not stat.S_ISREG(os.lstat(path).st_mode):
                        continue
                    content = Path(path).read_bytes()
                except OSError:
                    continue  # gone already
                found |= {(secret, path) for secret, text in secrets.items() if text.encode() in content}
    return found


class Watch:
    """While entered, looks again and again for secrets in every process's arguments and environment and in files below `roots`.

    Lab nodes are containers, so their processes are among those seen here. `found` holds (name, place), `programs` which ran.
    """

    def __init__(self, secrets: dict[str, str], *roots: Path) -> None:
        self.found: set[tuple[str, str]] = set()
        self.programs: set[str] = set()
        self._secrets = secrets
        self._roots = roots
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(PASS_SECONDS):
            for process in filter(str.isdigit, os.listdir("/proc")):
                for part in ("cmdline", "environ"):
                    try:
                        content = Path("/proc", process, part).read_bytes()
                    except OSError:
                        continue
                    if part == "cmdline":
                        self.programs.add(content.replace(b"\0", b" ").decode(errors="replace"))
                    self.found |= {
                        (name, f"{part} of {content[:200]!r}") for name, text in self._secrets.items() if text.encode() in content
                    }
            self.found |= in_files(self._roots, self._secrets)
