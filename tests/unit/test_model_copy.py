# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Copies of models over mutual TLS on the loopback: who is served what, and what is put in place."""

from __future__ import annotations

import contextlib
import hashlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pki
import pytest
from ansible_collections.bzzz.cluster.plugins.module_utils.node import model_copy, models
from cryptography import x509

WEIGHTS, CONFIG = bytes(range(256)) * 20000, b"{}"
USAGE = [x509.ExtendedKeyUsageOID.SERVER_AUTH, x509.ExtendedKeyUsageOID.CLIENT_AUTH]
AUTHORITY, STRANGER = pki.issue("authority"), pki.issue("another")


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def manifest() -> bytes:
    config, layer = ({"mediaType": "x", "digest": digest(content), "size": len(content)} for content in (CONFIG, WEIGHTS))
    return json.dumps({"schemaVersion": 2, "mediaType": "m", "config": config, "layers": [layer]}).encode()


class Silent(models.Progress):
    def __init__(self) -> None:
        self.far: list[int] = []

    def tell(self, *, now: bool = False, **what: Any) -> None:
        self.far.append(what["done_bytes"])


Identity = Callable[[str, pki.Issued], None]


@pytest.fixture
def identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Identity:
    """Makes this process the node of this name, by a certificate of this authority."""
    for name in ("CA", "CERTIFICATE", "KEY"):
        monkeypatch.setattr(model_copy, name, str(tmp_path / name))
    (tmp_path / "CA").write_text(AUTHORITY.pem)

    def become(name: str, authority: pki.Issued) -> None:
        mine = pki.issue(name, authority, name, "localhost", usage=USAGE)
        (tmp_path / "CERTIFICATE").write_text(mine.pem)
        (tmp_path / "KEY").write_text(mine.key_pem())

    return become


@pytest.fixture
def served(identity: Identity, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Node n1 has two models, and serves one of them to n2; what n2 is to ask for."""
    identity("n1", AUTHORITY)
    store = tmp_path / "n1"
    for name in ("tiny", "other"):
        path = Path(models.manifest_path(str(store), name))
        path.parent.mkdir(parents=True)
        path.write_bytes(manifest() if name == "tiny" else manifest() + b" ")
    (store / "blobs").mkdir()
    for content in (CONFIG, WEIGHTS, b"a secret of another model"):
        Path(models.blob_path(str(store), digest(content))).write_bytes(content)
    server = model_copy._Server(0, model_copy.server_way(), str(store), ["tiny:latest"], ["n2"])
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    where = {"name": "n1", "address": "127.0.0.1", "port": server.socket.getsockname()[1]}
    yield {"name": "tiny", "digest": digest(manifest()).partition(":")[2], "from": where}
    server.shutdown()
    server.server_close()


def take(store: Path, one: dict[str, Any]) -> Silent:
    store.mkdir(exist_ok=True)
    progress = Silent()
    model_copy.take(str(store), one, progress, model_copy.client_way())
    return progress


@pytest.mark.requirement("3.6.3", part="copies over mutual TLS")
def test_a_copy_is_whole_and_goes_on_from_where_it_was(served: dict[str, Any], identity: Identity, tmp_path: Path) -> None:
    identity("n2", AUTHORITY)
    store = tmp_path / "n2"
    half = Path(models.blob_path(str(store), digest(WEIGHTS)) + ".bzzz")
    half.parent.mkdir(parents=True)
    half.write_bytes(WEIGHTS[:3000000])
    progress = take(store, served)
    assert next(far for far in progress.far if far > len(CONFIG)) > 3000000 and progress.far[-1] == len(CONFIG) + len(WEIGHTS)
    assert Path(models.manifest_path(str(store), "tiny")).read_bytes() == manifest()
    assert sorted(path.read_bytes() for path in half.parent.iterdir()) == sorted((CONFIG, WEIGHTS))
    take(tmp_path / "another", {**served, "name": "Tiny"})
    path = Path(models.manifest_path(str(tmp_path / "another"), "tiny"))
    assert path.parent.name == "Tiny" and path.read_bytes() == manifest(), "names are alike in any case, and stay as they are declared"


@pytest.mark.requirement("3.6.3", part="copies over mutual TLS")
def test_what_is_not_what_its_name_says_is_not_put_in_place(served: dict[str, Any], identity: Identity, tmp_path: Path) -> None:
    identity("n2", AUTHORITY)
    there = Path(models.blob_path(str(tmp_path / "n1"), digest(WEIGHTS)))
    there.write_bytes(WEIGHTS[:-1] + b"x")
    with pytest.raises(models.Refused, match="checksum"):
        take(tmp_path / "n2", served)
    assert [path.name for path in (tmp_path / "n2/blobs").iterdir()] == [digest(CONFIG).replace(":", "-")]
    assert not (tmp_path / "n2/manifests").exists()
    with pytest.raises(models.Refused, match="another digest"):
        take(tmp_path / "n2", {**served, "digest": "0" * 64})


@pytest.mark.requirement("3.6.3", part="copies over mutual TLS")
def test_strangers_are_served_nothing_and_peers_what_was_named(served: dict[str, Any], identity: Identity, tmp_path: Path) -> None:
    for name, authority in (("n3", AUTHORITY), ("n2", STRANGER)):
        identity(name, authority)
        with pytest.raises((OSError, HTTPException)):
            take(tmp_path / "n2", served)
    identity("n2", AUTHORITY)
    with pytest.raises(ssl.SSLCertVerificationError):
        take(tmp_path / "n2", {**served, "from": {**served["from"], "name": "n4"}})
    blobs = [f"/blobs/{digest(content)}" for content in (b"a secret of another model", WEIGHTS)]
    for path in ("/manifests/other:latest", *blobs, "/blobs/../../CA"):
        peer = model_copy._Peer("n1", "127.0.0.1", served["from"]["port"], ssl_of(model_copy.client_way()))
        with contextlib.closing(peer), pytest.raises(models.Refused, match="404"):
            peer.get(path)
    (tmp_path / "CERTIFICATE").unlink()
    with pytest.raises(models.Refused, match="no certificate of the cluster"):
        take(tmp_path / "n2", served)


def ssl_of(way: ssl.SSLContext | str) -> ssl.SSLContext:
    assert isinstance(way, ssl.SSLContext)
    return way
