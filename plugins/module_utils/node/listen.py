# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Listen for a short while on ports that have no service yet, so that peers can test the way to them.

A detached process greets whoever connects, swallows what it is sent and, when the sender is done, answers with the
number of bytes (8 bytes, network order). It ends by its own time-out or when told to: nothing is left behind. One at
a time: a new one ends the one before it, so a killed run is never in the way.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import stat
import struct
import time
from typing import Any

GREETING = b"bzzz-listen\n"
LONGEST_SECONDS = 120.0
# By it the listener is told to end. In a directory where only root can make it: any user could hold a name without a file.
CONTROL = "/run/bzzz-listen"


def stop() -> bool:
    """End the running listener and wait until its ports are free; False where there is none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as control:
        control.settimeout(5)
        try:
            control.connect(CONTROL)
            control.recv(1)  # returns when the other side is gone
        except (ConnectionError, FileNotFoundError):
            return False
    return True


def _control() -> socket.socket:
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(CONTROL)  # of one that was killed
    control.bind(CONTROL)
    os.chmod(CONTROL, stat.S_IRUSR | stat.S_IWUSR)
    control.listen(4)
    return control


def _bound(port: int) -> socket.socket:
    """A socket that listens on every address; OSError where something else does already."""
    try:
        bound = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        anywhere = "::"
    except OSError:  # no IPv6 in this kernel
        bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        anywhere = ""
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((anywhere, port))
        bound.listen(256)
    except OSError:
        bound.close()
        raise
    return bound


def _serve(ports: list[socket.socket], control: socket.socket, seconds: float) -> None:
    until = time.monotonic() + seconds
    block = bytearray(1 << 20)
    swallowed: dict[socket.socket, int] = {}
    selector = selectors.DefaultSelector()
    for one in [*ports, control]:
        one.setblocking(False)
        selector.register(one, selectors.EVENT_READ)
    asked: socket.socket | None = None
    while asked is None and (left := until - time.monotonic()) > 0:
        for key, _events in selector.select(left):
            ready: socket.socket = key.fileobj  # type: ignore[assignment]
            if ready is control:
                asked, _address = control.accept()
            elif ready in swallowed:
                try:
                    count = ready.recv_into(block)
                    swallowed[ready] += count
                    if count:
                        continue
                    ready.send(struct.pack("!Q", swallowed[ready]))
                except BlockingIOError:
                    continue
                except OSError:
                    pass
                selector.unregister(ready)
                del swallowed[ready]
                ready.close()
            else:
                with contextlib.suppress(OSError):  # the peer has gone again, or too many at once
                    caller, _address = ready.accept()
                    caller.setblocking(False)
                    caller.send(GREETING)
                    swallowed[caller] = 0
                    selector.register(caller, selectors.EVENT_READ)
    for one in ports:
        one.close()
    os.unlink(CONTROL)  # before whoever asked may go on, and make it anew
    control.close()
    if asked:
        asked.close()


def detach(keep: set[int]) -> None:
    """Let go of the session and of everything inherited, so that the connection that started this can end."""
    os.setsid()
    os.chdir("/")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    for inherited in map(int, os.listdir("/proc/self/fd")):
        if inherited > 2 and inherited not in keep:
            with contextlib.suppress(OSError):
                os.close(inherited)
    with contextlib.suppress(OSError), open("/proc/self/comm", "w", encoding="ascii") as name:
        name.write("bzzz-listen")


def main(payload: dict[str, Any]) -> dict[str, Any]:
    """``{ports, seconds}`` -> ``{listening: [port], taken: {port: why}}``; without ports, the running listener is ended."""
    stop()
    opened: dict[int, socket.socket] = {}
    taken: dict[str, str] = {}
    for port in dict.fromkeys(payload.get("ports", [])):
        try:
            opened[port] = _bound(port)
        except OSError as error:
            taken[str(port)] = error.strerror or str(error)
    if opened:
        with _control() as control:
            if os.fork() == 0:
                try:
                    detach({control.fileno(), *(one.fileno() for one in opened.values())})
                    _serve(list(opened.values()), control, min(float(payload.get("seconds", 30)), LONGEST_SECONDS))
                finally:
                    os._exit(0)
    for one in opened.values():
        one.close()
    return {"listening": list(opened), "taken": taken}
