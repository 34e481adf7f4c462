# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""``bzzz-node --config /etc/bzzz/config.yaml``: run the node service. ``bzzz-node users|tokens|watch|live …``: see
``accounts``, ``watching`` and ``liveness``.

Exit codes: 0 stopped as asked, 1 failed, 78 wrong configuration (systemd: RestartPreventExitStatus=78).
SIGTERM sends the clients of events away, leaves the cluster, finishes what is under way and stops, all within
server.LEAVING_SECONDS and server.FINISHING_SECONDS; SIGHUP reads log level, token hashes and certificates again.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

from . import accounts, liveness, systemd, watching
from .config import ConfigError, load
from .tls import tls_context

log = logging.getLogger("bzzz.node")

EX_CONFIG = 78


def main(argv: list[str] | None = None, version: str = "unknown") -> int:
    parser = argparse.ArgumentParser(prog="bzzz-node", description="The BZZZ node service.")
    parser.add_argument("--config", type=Path, default=Path("/etc/bzzz/config.yaml"), help="default: %(default)s")
    parser.add_argument("--check", action="store_true", help="only check the configuration")
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(dest="command", metavar="users|tokens|watch|live")
    accounts.add_to(commands)
    watching.add_to(commands)
    liveness.add_to(commands)
    arguments = parser.parse_args(argv)
    try:
        settings = load(arguments.config, os.environ)
        if arguments.command == "watch":
            return watching.run(settings, arguments)
        if arguments.command == "live":
            return liveness.run(settings)
        if arguments.command:
            return accounts.run(settings, arguments)
        systemd.configure_logging(settings.logging.level, settings.logging.format)
        tls = tls_context(settings)
        for warning in settings.warnings:
            log.warning("%s: %s", arguments.config, warning)
        if arguments.check:
            return 0
    except ConfigError as error:
        print(error, file=sys.stderr)
        return EX_CONFIG
    # What serves takes a second to import, and a check is made on every node by every run.
    from . import server  # noqa: PLC0415

    try:
        sockets = server.listeners(settings)
    except server.NotListening as error:
        log.error("%s", error)
        return 1
    if not settings.auth.token_sha256:
        log.warning("auth.token_sha256 is empty: nobody gets in while etcd is away")
    asked = server.run(settings, version, tls, sockets, arguments.config)
    log.info("stopped")
    return 0 if asked else 1
