# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""``bzzz-node live``: whether this node's own service lives; exit code 0 or 1. For who has to ask by a command, as Docker has."""

from __future__ import annotations

import sys
import urllib.request
from typing import Any

from .config import Settings
from .own import way

# Less than the time that Compose files give it (roles/service/templates/compose.yaml.j2).
SECONDS = 5


def add_to(commands: Any) -> None:
    """The sub-command of bzzz-node's parser."""
    commands.add_parser("live", help="whether the service lives", description=__doc__)


def run(settings: Settings) -> int:
    """Ask /health/live, which tells by its status."""
    host, context = way(settings)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(f"https://{host}:{settings.listen.port}/health/live", timeout=SECONDS):
            return 0
    except OSError as error:
        print(f"The node service does not live: {error}", file=sys.stderr)
        return 1
