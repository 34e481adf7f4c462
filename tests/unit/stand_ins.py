# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Certificates made for a test, an HTTPS server that has one, and a proxy that wants a password; all on the loopback."""

from __future__ import annotations

import base64
import contextlib
import datetime
import http.server
import select
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

# A host that only the proxy knows the way to.
ELSEWHERE = "index.corp.test"
NOW = datetime.datetime.now(datetime.timezone.utc)


def certificate(
    name: str = "Test CA", *, ca: bool = True, begins: float = -1, ends: float = 365, issuer: tuple[Any, Any] | None = None
) -> tuple[x509.Certificate, Any]:
    """A certificate and its key; `begins` and `ends` in days from now; `issuer` signs, or it signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + datetime.timedelta(days=begins))
        .not_valid_after(NOW + datetime.timedelta(days=ends))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in ("localhost", ELSEWHERE)]), critical=False)
    )
    return builder.sign(issuer[1] if issuer else key, SHA256()), key


def pem(made: x509.Certificate) -> str:
    return made.public_bytes(Encoding.PEM).decode()


def key_pem(key: Any) -> str:
    return str(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())


@contextlib.contextmanager
def https(
    folder: Path, authority: tuple[Any, Any], content: dict[str, bytes], posted: list[tuple[str, str | None, bytes]] | None = None
) -> Iterator[str]:
    """A server at https://localhost:PORT whose certificate the authority has issued; a value that begins with http is a redirection.

    posted: gets path, Authorization and body of each POST, which is answered as a GET.
    """
    made, key = certificate("localhost", ca=False, issuer=authority)
    (folder / "server.pem").write_text(pem(made) + key_pem(key))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = content.get(self.path)
            self.send_response(404 if body is None else 302 if body.startswith(b"http") else 200)
            if body and body.startswith(b"http"):
                self.send_header("Location", body.decode())
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if posted is not None:
                posted.append((self.path, self.headers["Authorization"], body))
            self.do_GET()

        def log_message(self, *_: Any) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    with _serving(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler), context) as port:
        yield f"https://localhost:{port}"


class Proxy:
    """A proxy for https addresses that lets in who knows the password. `asked` holds what it was asked for and by whom."""

    def __init__(self, login: str) -> None:
        self.asked: list[tuple[str, str]] = []
        self.login = login
        self.url = ""

    @contextlib.contextmanager
    def running(self) -> Iterator[Proxy]:
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_CONNECT(self) -> None:
                given = base64.b64decode(self.headers.get("Proxy-Authorization", " ").partition(" ")[2]).decode()
                proxy.asked.append((self.path, given))
                if given != proxy.login:
                    self.send_response(407)
                    self.send_header("Proxy-Authenticate", 'Basic realm="test"')
                    self.end_headers()
                    return
                host, _, port = self.path.rpartition(":")
                with socket.create_connection(("localhost" if host == ELSEWHERE else host, int(port)), timeout=10) as there:
                    self.send_response(200)
                    self.end_headers()
                    both = {self.connection: there, there: self.connection}
                    while ready := select.select(list(both), [], [], 10)[0]:
                        for one in ready:
                            if not (data := one.recv(1 << 16)):
                                return
                            both[one].sendall(data)

            def log_message(self, *_: Any) -> None:
                pass

        with _serving(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as port:
            self.url = f"http://127.0.0.1:{port}"
            yield self


@contextlib.contextmanager
def _serving(server: http.server.ThreadingHTTPServer, context: ssl.SSLContext | None = None) -> Iterator[int]:
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
