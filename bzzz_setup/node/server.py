# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Serve every port until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import uvicorn

from . import app, mcp_server, stream, systemd
from .auth import audit
from .auth.gate import Gate
from .config import ConfigError, Problem, Settings, load
from .mcp_server import McpServer
from .service import Service
from .stream import Stream
from .tls import load_certificate
from .web import ByPort

log = logging.getLogger("bzzz.node")

# Together less than the unit's TimeoutStopSec.
LEAVING_SECONDS, FINISHING_SECONDS = 12, 5
# Clients of events say nothing, so that what they send may be short.
MESSAGE_BYTES = 4096


class NotListening(Exception):
    """A port could not be taken: unlike a wrong configuration, this may pass."""


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn's own would raise the signal again after shutting down; ours are set in `serve`.
        yield


def listeners(settings: Settings) -> list[socket.socket]:
    """Bound sockets, one for each port."""
    listen = settings.listen
    family = socket.AF_INET6 if ":" in listen.address else socket.AF_INET
    bound: list[socket.socket] = []
    for number, name in listen.by_port().items():
        try:
            # "::" serves IPv4 too, except where the kernel has no IPv6 at all.
            if listen.address == "::" and not socket.has_dualstack_ipv6():
                bound.append(socket.create_server(("0.0.0.0", number), backlog=512))
            else:
                bound.append(
                    socket.create_server((listen.address, number), family=family, backlog=512, dualstack_ipv6=listen.address == "::")
                )
        except OSError as error:
            remedy = f"free the port (ss -ltnp 'sport = :{number}' names who holds it), or choose another"
            raise NotListening(Problem(f"listen.{name}", f"{listen.address} port {number}: {error.strerror}", remedy)) from None
    return bound


def run(settings: Settings, version: str, tls: ssl.SSLContext, sockets: list[socket.socket], config: Path) -> bool:
    """Serve until SIGTERM or SIGINT; False when that was not the reason to end."""
    service = Service(settings, version)
    service.start()
    return asyncio.run(_serve(service, tls, sockets, config))


async def _serve(service: Service, tls: ssl.SSLContext, sockets: list[socket.socket], config: Path) -> bool:
    settings = service.settings
    audit.configure()
    gate = Gate(
        settings.auth,
        service.directory,
        settings.cluster.name,
        audit.Audit(settings.node.name),
        ldap=service.ldap,
        oidc=service.oidc,
    )
    listen = settings.listen
    events, mcp = Stream(service, gate), McpServer(service, gate)
    api = app.build(gate, events, mcp)
    apps = {listen.port: api, listen.web_port: api, listen.websocket_port: stream.build(events), listen.mcp_port: mcp_server.build(mcp)}
    server = _Server(
        uvicorn.Config(
            ByPort(apps),
            ssl_context_factory=lambda _config, _default: tls,
            http="h11",
            loop="asyncio",
            ws="websockets-sansio",
            ws_max_size=MESSAGE_BYTES,
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=FINISHING_SECONDS,
        )
    )

    def reload() -> None:
        try:
            new = load(config, os.environ)
            load_certificate(tls, new)
        except ConfigError as error:
            log.error("the configuration was not read again: %s", error)
            return
        gate.token_sha256 = new.auth.token_sha256
        systemd.configure_logging(new.logging.level, new.logging.format)
        if service.store:
            service.store.connect()
        if service.directory:
            service.directory.connect()
        events.wake()  # who came with a token that is gone, goes
        log.info("log level, token hashes and certificates were read again; other settings need a restart")

    leaving = asyncio.Event()
    loop = asyncio.get_running_loop()

    def revoked() -> None:
        loop.call_soon_threadsafe(events.wake)

    if service.directory:
        service.directory.changed = revoked
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, leaving.set)
    loop.add_signal_handler(signal.SIGHUP, reload)

    alerting = [service.alerting.watch()] if service.alerting else []
    parts = [asyncio.create_task(each) for each in (events.watch(), mcp.run(), _watchdog(service), *alerting)]
    running = asyncio.create_task(server.serve(sockets))
    while not server.started and not running.done():
        await asyncio.sleep(0.01)
    if not running.done():
        log.info("serving on port %s", ", ".join(str(each.getsockname()[1]) for each in sockets))
        systemd.notify("READY=1")
        await asyncio.wait([running, asyncio.create_task(leaving.wait())], return_when=asyncio.FIRST_COMPLETED)
        systemd.notify("STOPPING=1")
        # First out of the cluster, then out of reach.
        events.close()
        await _leave(service)
        server.should_exit = True
    await running
    for part in parts:
        part.cancel()
    await asyncio.gather(*parts, return_exceptions=True)
    return leaving.is_set()


async def _leave(service: Service) -> None:
    """Leave the cluster, if etcd lets us within LEAVING_SECONDS; else the lease runs out by itself."""
    left, loop = asyncio.Event(), asyncio.get_running_loop()

    def stop() -> None:
        service.stop()
        loop.call_soon_threadsafe(left.set)

    # Unlike the loop's own threads, this one is not waited for at exit.
    threading.Thread(target=stop, name="leaving", daemon=True).start()
    try:
        await asyncio.wait_for(left.wait(), LEAVING_SECONDS)
    except (TimeoutError, asyncio.TimeoutError):
        log.warning("the cluster was not left in time: the lease will run out")


async def _watchdog(service: Service) -> None:
    while (seconds := systemd.watchdog_seconds()) is not None:
        if service.alive:
            systemd.notify("WATCHDOG=1")
        await asyncio.sleep(seconds)
