# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""An ACME authority on a lab node, Debian's pebble, and the name server that it asks, Debian's knot, which takes signed updates."""

from __future__ import annotations

import base64
import json
import secrets
from pathlib import Path

from conftest import Tools
from pki import issue
from rest import wait_for

PORT, MANAGEMENT, DNS = 14000, 15000, 53
DOMAIN = "lab.test"
ACCOUNT = "kid-lab"
KNOT = """
server:
    listen: [0.0.0.0@53]
    user: knot:knot
database:
    storage: /var/lib/knot
key:
  - id: lab
    algorithm: hmac-sha256
    secret: {key}
acl:
  - id: signed
    key: lab
    action: update
zone:
  - domain: {domain}
    storage: /var/lib/knot
    file: {domain}.zone
    acl: signed
    zonefile-sync: -1
    zonefile-load: whole
"""


class Authority:
    """Of its own root, made anew at each start, and for the nodes' names only: `<node>.lab.test`."""

    def __init__(self, cluster: Tools, folder: Path) -> None:
        self.cluster, self.host = cluster, cluster.lab.nodes[0]
        self.dns_key = base64.b64encode(secrets.token_bytes(32)).decode()
        self.account_key = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")
        own = issue("Lab Directory CA")
        server = issue("pebble", own, self.host.address)
        self.ca_file = folder / "directory-ca.pem"
        self.ca_file.write_text(own.pem)
        self._exec("DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends pebble knot")
        self._put("/etc/lab-acme/server.pem", server.pem)
        self._put("/etc/lab-acme/server.key", server.key_pem())
        settings = {
            "listenAddress": f"0.0.0.0:{PORT}",
            "managementListenAddress": f"0.0.0.0:{MANAGEMENT}",
            "certificate": "/etc/lab-acme/server.pem",
            "privateKey": "/etc/lab-acme/server.key",
            "httpPort": 80,
            "tlsPort": 443,
            "externalAccountBindingRequired": True,
            "externalAccountMACKeys": {ACCOUNT: self.account_key},
        }
        self._put("/etc/lab-acme/pebble.json", json.dumps({"pebble": settings}))
        records = [f"{node.name} A {node.address}" for node in cluster.lab.nodes]
        zone = [f"$ORIGIN {DOMAIN}.", "$TTL 5", "@ SOA ns hostmaster 1 3600 600 86400 5", "@ NS ns", f"ns A {self.host.address}", *records]
        self._put(f"/var/lib/knot/{DOMAIN}.zone", "\n".join(zone) + "\n")
        self._put("/etc/knot/knot.conf", KNOT.format(key=self.dns_key, domain=DOMAIN))
        self._exec("chown -R knot:knot /var/lib/knot; chgrp knot /etc/knot/knot.conf; systemctl restart knot.service")
        self.start()

    @property
    def directory(self) -> str:
        return f"https://{self.host.address}:{PORT}/dir"

    def start(self) -> None:
        # Each name is really looked at, and at once. Nonces are not refused at random: certbot tries a second time only.
        how = "-E PEBBLE_VA_NOSLEEP=1 -E PEBBLE_AUTHZREUSE=0 -E PEBBLE_WFE_NONCEREJECT=0"
        self.stop()
        self._exec(f"systemd-run -q --collect --unit lab-pebble {how} pebble -config /etc/lab-acme/pebble.json -dnsserver 127.0.0.1:{DNS}")
        # By the node itself: its firewall lets nobody in yet.
        self.root = wait_for("authority's root", lambda: self._exec(f"{self._fetch('roots/0')} || true"), 20)

    def _fetch(self, path: str) -> str:
        program = (
            "import ssl, urllib.request as u; "
            f"print(u.urlopen('https://127.0.0.1:{MANAGEMENT}/{path}', context=ssl._create_unverified_context()).read().decode())"
        )
        return f'python3 -c "{program}" 2>/dev/null'

    def stop(self) -> None:
        self._exec("systemctl stop lab-pebble.service 2>/dev/null; true")

    def remove(self) -> None:
        self.stop()
        self._exec("systemctl disable -q --now knot.service; rm -rf /etc/lab-acme")

    def _put(self, path: str, text: str) -> None:
        self._exec(f"umask 077; mkdir -p {Path(path).parent}; cat >{path}", text)

    def _exec(self, script: str, stdin: str | None = None) -> str:
        return self.cluster.lab.exec(self.host.name, ["sh", "-c", script], stdin=stdin).stdout
