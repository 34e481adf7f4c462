# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Run the collection's node programs once and print their facts as JSON: ``{gpu: …, network: …, system: …}``.

Arguments are the ports on which an Ollama is looked for: a service that is not root does not see who listens.

A script of its own, since a process of its own can be killed when a driver hangs, gives its memory back, and may fork.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

PROGRAMS = ("gpu", "network", "system")
# In the artifact, and in a checkout that is linked as a collection.
PACKAGES = ("bzzz_node", "ansible_collections.bzzz.cluster.plugins.module_utils.node")


def package() -> str:
    """The one of PACKAGES that can be imported."""
    for name in PACKAGES:
        try:
            importlib.import_module(f"{name}.{PROGRAMS[0]}")
            return name
        except ModuleNotFoundError:
            continue
    raise ModuleNotFoundError(f"none of {', '.join(PACKAGES)} can be imported")


def facts(payload: dict[str, Any]) -> dict[str, Any]:
    """Facts by program. One that fails leaves a problem, and never a gap in the others."""
    source = package()
    found: dict[str, Any] = {}
    for name in PROGRAMS:
        try:
            found[name] = importlib.import_module(f"{source}.{name}").main(payload)
        except Exception as error:
            found[name] = {"problems": [{"message": f"detection of {name} failed: {error!r}", "remedy": "report it, with this message"}]}
    return found


if __name__ == "__main__":
    # Beside bzzz_setup lies bzzz_node. Run isolated (-I), so that this script's own directory hides no other module.
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    json.dump(facts({"ollama_ports": [int(port) for port in sys.argv[1:]]}), sys.stdout)
