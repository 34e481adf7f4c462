# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Models of a node's Ollama: what it holds, what a pull would take, and pulls that tell how far they are.

Pulls are Ollama's own (``/api/pull``). A detached process follows them one after the other and writes down how far it is; who asks
(``wait``) keeps it going. When nobody has asked for a minute, the run that wanted it is gone: it ends, and Ollama keeps what it has for
the next time. Standard library only, and no sibling is imported before it is needed: the node keeps a copy of this file for its
timer and its probe.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import fcntl
import glob
import hashlib
import importlib
import ipaddress
import json
import os
import re
import signal
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from typing import Any, Callable, Optional

REGISTRY, NAMESPACE, TAG = "registry.ollama.ai", "library", "latest"
MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
MANIFEST_BYTES = 4 << 20
# What the halves of blobs are called: Ollama's own, and those of copies. Neither way goes on with the other's.
PULLED, COPIED = "-partial", ".bzzz"
WEIGHTS_TYPE = "application/vnd.ollama.image.model"
# Longer values are none that memory is reckoned from: the longest are numbers of each layer.
LONG = 1 << 16
# Of a header that is read: so many at a time, and for so long. Vocabularies make it some 10 MiB.
HEADER_BYTES, DESCRIBED_SECONDS = 4 << 20, 120.0
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# What is known of the running pulls, and who follows them; root's own.
STATE, LOCK, ASKED = "/run/bzzz-models.json", "/run/bzzz-models.lock", "/run/bzzz-models.asked"
LEASE_SECONDS = 60.0
# Ollama says nothing while it looks through a large model's files.
SILENT_SECONDS = 1800.0
TOLD_SECONDS = 0.5
# The node's own list, made by role models.
HELD_HERE = "/etc/bzzz/models/models.json"


class Refused(Exception):
    """A model that cannot be had; says why."""


# --- names and manifests


def split(name: str) -> tuple[str, str, str, str]:
    """Host, namespace, model and tag of a name, as Ollama completes it."""
    path, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        path, tag = name, TAG
    *before, model = path.split("/")
    if len(before) > 1:
        return before[0], "/".join(before[1:]), model, tag
    return REGISTRY, (before or [NAMESPACE])[0], model, tag


def listed(name: str) -> str:
    """A name as Ollama lists it: with its tag, and without what every name has."""
    host, namespace, model, tag = split(name)
    return "/".join(
        [*([host] if host != REGISTRY else []), *([namespace] if (host, namespace) != (REGISTRY, NAMESPACE) else []), f"{model}:{tag}"]
    )


def short(name: str) -> str:
    """By what names are compared: Ollama takes them in any case."""
    return listed(name.lower())


def blobs(manifest: bytes) -> dict[str, int]:
    """Digest -> bytes of everything that a manifest names. Raises Refused for what is no manifest."""
    try:
        document = json.loads(manifest)
        parts = [document["config"], *document["layers"]]
        found = {str(part["digest"]).replace("sha256-", "sha256:"): int(part["size"]) for part in parts}
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(f"its manifest cannot be read ({type(error).__name__}: {error})") from error
    if not all(DIGEST.fullmatch(digest) and size >= 0 for digest, size in found.items()):
        raise Refused("its manifest names blobs that have no SHA-256 digest")
    return found


def _layer(part: dict[str, Any]) -> dict[str, Any]:
    return {key: part[key] for key in ("mediaType", "digest", "size", "from") if part.get(key) not in (None, "")}


def digests(manifest: bytes) -> list[str]:
    """The digests that a model of this manifest may have at Ollama: of the manifest as it is, and as some releases write it anew."""
    kept = [hashlib.sha256(manifest).hexdigest()]
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
        document = json.loads(manifest)
        anew = {
            "schemaVersion": document.get("schemaVersion", 0),
            "mediaType": document.get("mediaType", ""),
            "config": _layer(document["config"]),
            "layers": [_layer(part) for part in document["layers"]],
        }
        kept.append(hashlib.sha256(json.dumps(anew, separators=(",", ":")).encode()).hexdigest())
    return list(dict.fromkeys(kept))


def _way(proxies: Optional[dict[str, str]]) -> urllib.request.OpenerDirector:
    """By these proxies, by scheme, with their logins; None: by those of the environment."""
    opener = urllib.request.build_opener(*([] if proxies is None else [urllib.request.ProxyHandler(proxies)]))
    # Some of the networks before registries refuse Python's own name.
    opener.addheaders = [("User-Agent", "bzzz-cluster")]
    return opener


def offered(name: str, insecure: bool = False, proxies: Optional[dict[str, str]] = None, timeout: float = 20) -> bytes:
    """The manifest that the name's registry offers. Raises Refused."""
    host, namespace, model, tag = split(name)
    scheme = "http" if insecure else "https"
    url = f"{scheme}://{host}/v2/{namespace}/{model}/manifests/{tag}"
    try:
        asked = urllib.request.Request(url, headers={"Accept": MANIFEST_TYPE})
        with _way(proxies).open(asked, timeout=timeout) as answer:
            return bytes(answer.read(MANIFEST_BYTES))
    except urllib.error.HTTPError as error:
        raise Refused(f"{host} answers {error.code} {error.reason} for {namespace}/{model}:{tag}") from error
    except (OSError, HTTPException, ValueError) as error:
        raise Refused(f"{url} does not answer: {getattr(error, 'reason', error)}") from error


def described(name: str, insecure: bool = False, proxies: Optional[dict[str, str]] = None, timeout: float = 20) -> dict[str, Any]:
    """What its memory is reckoned from, as the metadata of its GGUF file at the registry tell: ``{size, model_info}``, as /api/show has it.

    size: bytes of everything that its manifest names. Raises Refused.
    """
    # The node's own copy of this file has no siblings, and few questions want this one: it comes where the payload names it.
    gguf: Any = importlib.import_module(f"{__package__}.gguf")
    manifest = offered(name, insecure, proxies, timeout)
    size = sum(blobs(manifest).values())
    weights = [str(part["digest"]) for part in json.loads(manifest)["layers"] if part.get("mediaType") == WEIGHTS_TYPE]
    if not weights:
        raise Refused("it has no GGUF file")
    host, namespace, model, _tag = split(name)
    url = f"{'http' if insecure else 'https'}://{host}/v2/{namespace}/{model}/blobs/{weights[0].replace('sha256-', 'sha256:')}"
    until = time.monotonic() + DESCRIBED_SECONDS

    def part(offset: int, length: int) -> bytes:
        if time.monotonic() > until:
            raise Refused(f"{host} takes more than {DESCRIBED_SECONDS:g} s for the header of its file")
        asked = urllib.request.Request(url, headers={"Range": f"bytes={offset}-{offset + length - 1}"})
        with _way(proxies).open(asked, timeout=timeout) as answer:
            if answer.status != 206 and offset:
                raise Refused(f"{host} serves no parts of files")
            return bytes(answer.read(length))

    try:
        metadata: dict[str, Any] = gguf.read_metadata(part, HEADER_BYTES)
    except gguf.GgufError as error:
        raise Refused(f"the header of its file cannot be read: {error}") from error
    except (OSError, HTTPException, ValueError) as error:
        raise Refused(f"{host} does not hand out its file: {getattr(error, 'reason', error)}") from error
    return {"size": size, "model_info": _needed(metadata)}


def _needed(metadata: dict[str, Any]) -> dict[str, Any]:
    """What of a model's metadata its memory is reckoned from. Of vocabularies, which are long, the number of tokens."""
    architecture = metadata.get("general.architecture")
    keys = {"general.architecture", "general.parameter_count"}
    told = {key: value for key, value in metadata.items() if key in keys or key.startswith(f"{architecture}.")}
    told = {key: value for key, value in told.items() if isinstance(value, (str, int, list)) and len(str(value)) < LONG}
    tokens = metadata.get("tokenizer.ggml.tokens")
    if tokens:
        told.setdefault(f"{architecture}.vocab_size", getattr(tokens, "length", None) or len(tokens))
    return told


def describe(payload: dict[str, Any]) -> dict[str, Any]:
    """What registries tell of models before they are fetched.

    ``{models: [{name, insecure, proxies}]}`` -> ``{models: {name: what described returns, or {error}}}``.
    """
    found: dict[str, Any] = {}
    for one in payload["models"]:
        try:
            found[one["name"]] = described(one["name"], bool(one.get("insecure")), one.get("proxies"))
        except Refused as error:
            found[one["name"]] = {"error": str(error)}
    return {"models": found}


# --- Ollama


@contextlib.contextmanager
def _asked(endpoint: str, method: str, path: str, body: Optional[dict[str, Any]] = None, timeout: float = 10) -> Iterator[Any]:
    """Ollama's answer. No proxy is asked: it is on this node, or named by its address. Raises Refused with what it says."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(endpoint.rstrip("/") + path, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=timeout) as answer:
            yield answer
    except urllib.error.HTTPError as error:
        said = error.read(2000).decode(errors="replace")
        with contextlib.suppress(ValueError, KeyError, TypeError):
            said = str(json.loads(said)["error"])
        raise Refused(f"Ollama says {error.code}: {said or error.reason}") from error
    except (OSError, HTTPException) as error:
        raise Refused(f"Ollama at {endpoint} does not answer: {getattr(error, 'reason', error)}") from error


def _json(endpoint: str, path: str, body: Optional[dict[str, Any]] = None) -> dict[str, Any]:
    with _asked(endpoint, "GET" if body is None else "POST", path, body) as answer:
        try:
            found = json.load(answer)
        except ValueError as error:
            raise Refused(f"what Ollama at {endpoint} answers to {path} is no JSON") from error
    return found if isinstance(found, dict) else {}


def held(endpoint: str, store: Optional[str] = None) -> dict[str, dict[str, Any]]:
    """Name by which it is compared -> ``{name, digest, bytes, loaded_bytes, parts}`` of the models that an Ollama holds.

    loaded_bytes is None of those that are not loaded; parts, digest -> bytes, are their blobs, as far as the store's manifests tell.
    """
    running = {short(str(one.get("name"))): one for one in _json(endpoint, "/api/ps").get("models") or [] if isinstance(one, dict)}
    found = {}
    for one in _json(endpoint, "/api/tags").get("models") or []:
        if isinstance(one, dict) and one.get("name"):
            name = short(str(one["name"]))
            loaded = running.get(name)
            found[name] = {
                "name": listed(str(one["name"])),
                "digest": str(one.get("digest") or "").replace("sha256:", ""),
                "bytes": int(one.get("size") or 0),
                "loaded_bytes": None if loaded is None else int(loaded.get("size") or 0),
                "parts": parts_of(store, name) if store else {},
            }
    return found


def look(payload: dict[str, Any]) -> dict[str, Any]:
    """What each endpoint holds.

    ``{endpoints, store, show}`` -> ``{endpoints: {url: {models} or {error}}, shown}``. `show` names models of which the first
    that answers is asked for what their memory is reckoned from, ``{model_info, num_ctx}``; `store` is where the endpoints have their
    models.
    """
    found: dict[str, Any] = {}
    for url in payload["endpoints"]:
        try:
            found[url] = {"models": held(url, payload.get("store"))}
        except Refused as error:
            found[url] = {"error": str(error)}
    first = next((url for url in payload["endpoints"] if "models" in found[url]), "")
    shown = {}
    for name in payload.get("show", []):
        if name in found.get(first, {}).get("models", {}):
            with contextlib.suppress(Refused):
                # Without verbose, Ollama leaves out what is told of each layer.
                told = _json(first, "/api/show", {"model": name, "verbose": True})
                context = re.search(r"^num_ctx\s+(\d{1,9})\s*$", str(told.get("parameters")), re.MULTILINE)
                info = told.get("model_info")
                shown[name] = {
                    "model_info": _needed(info) if isinstance(info, dict) else None,
                    "num_ctx": int(context[1]) if context else None,
                }
    return {"endpoints": found, "shown": shown}


def sweep(payload: dict[str, Any]) -> dict[str, Any]:
    """Ollamas that answer in networks: ``{networks, port, except}`` -> ``{found: {url: {version, models}}}``.

    A connection is tried to each address but those of ``except``, a second each, and whoever takes it is asked whether it is an Ollama.
    """
    hosts = [address for network in payload["networks"] for address in ipaddress.ip_network(network).hosts()]
    left = [str(address) for address in hosts if str(address) not in set(payload["except"])]

    def ask(host: str) -> Optional[tuple[str, dict[str, Any]]]:
        try:
            socket.create_connection((host, payload["port"]), 1).close()
        except OSError:
            return None
        url = f"http://{f'[{host}]' if ':' in host else host}:{payload['port']}"
        try:
            version = _json(url, "/api/version").get("version")
            return (url, {"version": str(version)[:60], "models": held(url)}) if version else None
        except (Refused, ValueError):
            return None

    with concurrent.futures.ThreadPoolExecutor(128) as pool:
        return {"found": dict(found for found in pool.map(ask, left) if found)}


# --- the store: manifests/<host>/<namespace>/<model>/<tag> and blobs/sha256-<digest>


def manifest_path(store: str, name: str) -> str:
    """Where a manifest lies, or is to: what is there in another case is what is meant, as Ollama has it."""
    path = os.path.join(store, "manifests")
    for part in split(name):
        there = os.listdir(path) if os.path.isdir(path) else []
        alike = [one for one in there if one.lower() == part.lower()]
        path = os.path.join(path, part if part in there or not alike else alike[0])
    return path


def blob_path(store: str, digest: str) -> str:
    """Where a blob lies."""
    return os.path.join(store, "blobs", digest.replace(":", "-"))


def _free(store: str) -> int:
    found = os.statvfs(store)
    return found.f_bavail * found.f_frsize


def _taken(path: str) -> int:
    """Bytes on the disk; Ollama makes a half as long as the whole, and fills it bit by bit."""
    with contextlib.suppress(OSError):
        found = os.stat(path)
        return min(found.st_size, found.st_blocks * 512)
    return 0


def missing(store: Optional[str], wanted: dict[str, int], half: str = PULLED) -> int:
    """Bytes that are still to come of these blobs; there already is what this way of fetching goes on with."""
    lacking = 0
    for digest, size in wanted.items():
        path = blob_path(store, digest) if store else ""
        lacking += 0 if path and os.path.exists(path) else max(size - (_taken(path + half) if path else 0), 0)
    return lacking


def parts_of(store: str, name: str) -> dict[str, int]:
    """What a manifest of this store names; nothing where it cannot be read."""
    with contextlib.suppress(OSError, Refused), open(manifest_path(store, name), "rb") as file:
        return blobs(file.read(MANIFEST_BYTES))
    return {}


def _alone(store: str, names: list[str]) -> set[str]:
    """The blobs that nothing but these models names: Ollama removes them with the models."""
    named: dict[bool, set[str]] = {True: set(), False: set()}
    for path in glob.glob(os.path.join(glob.escape(store), "manifests", "*", "*", "*", "*")):
        *before, tag = os.path.relpath(path, os.path.join(store, "manifests")).split(os.sep)
        name = short(f"{'/'.join(before)}:{tag}")
        named[name in names].update(parts_of(store, name))
    return named[True] - named[False]


def room(payload: dict[str, Any]) -> dict[str, Any]:
    """What models would take, before anything is removed or fetched.

    ``{store, models: [{name, insecure, proxies, digest, bytes, parts, from}], remove: [names]}`` ->
    ``{models: {name: {bytes, lacking_bytes, digests, parts} or {error}}, free_bytes, freed_bytes}``.
    Of one that is to be copied (`from`) nobody is asked: its parts are known, or its bytes; of any other the registry is, and the bytes
    that are declared count where that does not answer. `freed_bytes` come by what is removed, and by halves of copies that are pulled.
    """
    store = payload["store"] if payload.get("store") and os.path.isdir(payload["store"]) else None
    gone = _alone(store, payload["remove"]) if store and payload.get("remove") else set()
    freed = sum(_taken(blob_path(store, digest)) for digest in gone) if store else 0
    found: dict[str, Any] = {}
    counted: set[str] = set()
    for one in payload["models"]:
        declared, parts = one.get("bytes"), one.get("parts") or {}
        half, told = COPIED, [one.get("digest")]
        try:
            if not one.get("from"):
                manifest = offered(one["name"], bool(one.get("insecure")), one.get("proxies"))
                half, told, parts = PULLED, digests(manifest), blobs(manifest)
        except Refused as error:
            if not declared:
                found[one["name"]] = {"error": str(error)}
                continue
            told, parts = [], {}
        # What two models share is fetched once; what goes with a model that is removed, anew.
        fresh = {digest: size for digest, size in parts.items() if digest not in counted}
        lacking = missing(store, {digest: size for digest, size in fresh.items() if digest not in gone}, half)
        lacking += sum(size for digest, size in fresh.items() if digest in gone)
        if half == PULLED and store:
            freed += sum(_taken(blob_path(store, digest) + COPIED) for digest in fresh)
        counted.update(parts)
        found[one["name"]] = {
            "bytes": sum(parts.values()) if parts else declared,
            "lacking_bytes": lacking if parts else declared,
            "digests": told,
            "parts": parts,
        }
    # Where the store is not there yet, it comes on the file system of the directory above it.
    above = payload.get("store") or "/"
    while not os.path.isdir(above):
        above = os.path.dirname(above)
    return {"models": found, "free_bytes": _free(above), "freed_bytes": freed}


# --- pulls


class Progress:
    """How far the pulls are, in a file that ``wait`` reads. It is opened once: who writes gives up being root."""

    def __init__(self, path: str = STATE) -> None:
        self.file, self._written = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), 0.0
        self.state: dict[str, Any] = {"model": None, "doing": "", "done_bytes": 0, "total_bytes": 0, "results": {}, "ended": False}

    def tell(self, *, now: bool = False, **what: Any) -> None:
        """Takes in what is new; written a few times a second at most."""
        self.state.update(what)
        if now or time.monotonic() - self._written > TOLD_SECONDS:
            self._written = time.monotonic()
            said = json.dumps(self.state).encode()
            os.pwrite(self.file, said, 0)
            os.ftruncate(self.file, len(said))


def _state() -> dict[str, Any]:
    """What the file tells; it may be read while it is written."""
    for _attempt in range(50):
        with open(STATE, encoding="utf-8") as file, contextlib.suppress(ValueError):
            found: dict[str, Any] = json.load(file)
            return found
        time.sleep(0.02)
    raise Refused(f"{STATE} cannot be read")


def pull(endpoint: str, one: dict[str, Any], progress: Progress) -> None:
    """Have Ollama pull a model. Raises Refused."""
    sizes: dict[str, tuple[int, int]] = {}
    whole = int(one.get("bytes") or 0)
    ended = False
    body = {"model": one["name"], "insecure": bool(one.get("insecure")), "stream": True}
    with _asked(endpoint, "POST", "/api/pull", body, SILENT_SECONDS) as answer:
        for line in answer:
            try:
                said = json.loads(line)
            except ValueError:
                continue
            if said.get("error"):
                raise Refused(f"Ollama says: {said['error']}")
            if said.get("digest") and said.get("total"):
                sizes[said["digest"]] = (int(said.get("completed") or 0), int(said["total"]))
            ended = ended or said.get("status") == "success"
            done = sum(completed for completed, _total in sizes.values())
            total = max(whole, sum(total for _completed, total in sizes.values()))
            doing = str(said.get("status") or "") if not said.get("digest") else ""
            progress.tell(done_bytes=done, total_bytes=total, doing=doing)
    if not ended:
        raise Refused("Ollama ended the pull before it was done. 'journalctl -u bzzz-ollama@0', or of its own unit, says why")


def fetch(endpoint: str, store: Optional[str], one: dict[str, Any], progress: Progress, way: Any = None) -> dict[str, Any]:
    """Copy a model from a peer, else pull it. ``{how, from, note, digest, bytes}``; raises Refused."""
    name, before = short(one["name"]), held(endpoint).get(short(one["name"]))
    how, note = "pulled", ""
    if one.get("from") and store and way:
        from . import model_copy  # noqa: PLC0415 - the node's own copy of this file has no siblings

        try:
            model_copy.take(store, one, progress, way)
            if held(endpoint).get(name, {}).get("digest") != one["digest"]:
                raise Refused(f"Ollama does not see what was put into {store}")
            how = "copied"
        except (Refused, OSError, HTTPException) as error:
            note = f"it could not be copied from {one['from']['name']} ({error})"
            progress.tell(done_bytes=0, doing="", now=True)
    if how == "pulled":
        # Nothing goes on with them, and the room that was judged counts on theirs.
        for digest in (one.get("parts") or {}) if store else ():
            with contextlib.suppress(OSError):
                os.unlink(blob_path(str(store), digest) + COPIED)
        try:
            pull(endpoint, one, progress)
        except Refused as error:
            raise Refused(f"{error}; {note}" if note else str(error)) from error
    after = held(endpoint, store).get(name)
    if after is None:
        raise Refused("Ollama says that it has pulled the model, and does not list it")
    pin = one.get("pin")
    if pin and after["digest"] != pin:
        if before is None:
            _delete(endpoint, name)
        raise Refused(f"its digest is {after['digest']}, and {pin} is declared")
    return {"how": how, "from": one["from"]["name"] if how == "copied" else None, "note": note, **after}


def _follow(payload: dict[str, Any], progress: Progress, way: Any) -> None:
    """One model after the other; what fails is written down, and the next one follows."""
    results: dict[str, Any] = progress.state["results"]
    what, first = "waits until bzzz-models-update is done", payload["models"][0]["name"]
    only_here(payload.get("store"), lambda: progress.tell(model=first, doing=what, now=True))
    for one in payload["models"]:
        progress.tell(model=one["name"], doing="", done_bytes=0, total_bytes=int(one.get("bytes") or 0), now=True)
        try:
            results[one["name"]] = fetch(payload["endpoint"], payload.get("store"), one, progress, way)
        except Exception as error:
            results[one["name"]] = {"error": str(error) if isinstance(error, Refused) else f"{type(error).__name__}: {error}"}
        progress.tell(results=results, now=True)
    progress.tell(ended=True, now=True)


def only_here(store: Optional[str], waits: Callable[[], Any]) -> None:
    """Wait until nobody else fetches models into a store, and keep others waiting as long as this process lasts.

    A run and the update timer's service share no lock of root's, but they share the store; where it cannot be read, nobody waits.
    """
    with contextlib.suppress(OSError):
        opened = os.open(store or "", os.O_RDONLY)
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waits()
            fcntl.flock(opened, fcntl.LOCK_EX)


def take_turn(path: str) -> int:
    """A lock whose holder is written in it; whoever has it is ended first. Ends with the process, however that ends."""
    for _attempt in range(100):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            return descriptor
        except BlockingIOError:
            end_turn(path)
            os.close(descriptor)
            time.sleep(0.1)
    raise Refused(f"the process that holds {path} does not end")


def end_turn(path: str) -> None:
    """Tell the holder of a lock, if there is one, to end."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with contextlib.suppress(ValueError, ProcessLookupError):
            os.kill(int(os.pread(descriptor, 20, 0)), signal.SIGTERM)
    finally:
        os.close(descriptor)


def _watch() -> None:
    """End this process once nobody has asked for long."""
    while True:
        time.sleep(5)
        try:
            unasked = time.time() - os.stat(ASKED).st_mtime
        except OSError:
            unasked = LEASE_SECONDS + 1
        if unasked > LEASE_SECONDS:
            os._exit(1)


def start(payload: dict[str, Any]) -> dict[str, Any]:
    """Begin to fetch ``{endpoint, store, models}`` in the background. One at a time: a new one ends the one before it."""
    from .listen import detach  # noqa: PLC0415

    way = None
    if any(one.get("from") for one in payload["models"]):
        from . import model_copy  # noqa: PLC0415

        way = model_copy.client_way()
    lock = take_turn(LOCK)
    _touch()
    progress = Progress()
    progress.tell(now=True)
    if os.fork() == 0:
        try:
            os.pwrite(lock, str(os.getpid()).encode(), 0)
            detach({lock, progress.file})
            become_owner(payload.get("store"))
            threading.Thread(target=_watch, daemon=True).start()
            _follow(payload, progress, way)
        finally:
            os._exit(0)
    os.close(lock)
    return {"started": True}


def become_owner(store: Optional[str]) -> None:
    """Give up being root for being whom the store belongs to, who makes there what Ollama would make."""
    owner = os.stat(store) if store and os.path.isdir(store) else None
    if owner and owner.st_uid != os.geteuid():
        os.setgroups([])
        os.setgid(owner.st_gid)
        os.setuid(owner.st_uid)
        os.umask(0o022)


def _touch() -> None:
    with open(os.open(ASKED, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="ascii"):
        os.utime(ASKED)


def wait(payload: dict[str, Any]) -> dict[str, Any]:
    """How far it is, once that differs from what the asker has seen by a tenth, a model or the end; after ``seconds`` in any case."""
    until = time.monotonic() + float(payload.get("seconds", 8))
    seen = payload.get("seen") or {}
    while True:
        _touch()
        runs, state = _runs(), _state()
        if not state["ended"] and not runs:
            raise Refused("what followed the pull on this node has ended before its time")
        further = _percent(state) - _percent(seen) >= 10 or state["model"] != seen.get("model")
        if state["ended"] or further or time.monotonic() > until:
            return state
        time.sleep(0.25)


def _percent(state: dict[str, Any]) -> int:
    total = state.get("total_bytes") or 0
    return int(100 * min(state.get("done_bytes") or 0, total) / total) if total else 0


def _runs() -> bool:
    with open(LOCK, "rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _delete(endpoint: str, name: str) -> None:
    with _asked(endpoint, "DELETE", "/api/delete", {"model": name, "name": name}, 60):
        pass


def remove(payload: dict[str, Any]) -> dict[str, Any]:
    """Remove models: ``{endpoint, names}``."""
    for name in payload["names"]:
        _delete(payload["endpoint"], name)
    return {"removed": payload["names"]}


# --- on the node itself


def _first(endpoints: list[str]) -> tuple[str, dict[str, dict[str, Any]]]:
    """Of Ollamas that share a store, one that answers, and what it holds."""
    said = []
    for url in endpoints:
        try:
            return url, held(url)
        except Refused as error:
            said.append(str(error))
    raise Refused("; ".join(said))


def here(argv: list[str]) -> int:
    """``there`` tells what is missing of the node's own list; ``update`` pulls anew what is to be kept up to date."""
    with open(HELD_HERE, encoding="utf-8") as file:
        kept = json.load(file)
    if argv == ["there"]:
        try:
            _url, found = _first(kept["endpoints"])
        except Refused as error:
            sys.stdout.write(f"{error}\n")
            return 1
        for one in kept["models"]:
            name, pin = short(one["name"]), one.get("pin")
            if name not in found:
                sys.stdout.write(f"{name} is not there\n")
            elif pin and found[name]["digest"] != pin:
                sys.stdout.write(f"{name} has digest {found[name]['digest']}, and {pin} is declared\n")
        return 0
    failed = 0
    only_here(kept["store"], lambda: sys.stdout.write("waits until a run has fetched its models\n"))
    for one in kept["models"]:
        if one.get("update") != "schedule":
            continue
        try:
            endpoint, there = _first(kept["endpoints"])
            before = there.get(short(one["name"]), {}).get("digest")
            found = room({"store": kept["store"], "models": [one]})
            need, free = found["models"][one["name"]], found["free_bytes"] - kept["free_min_bytes"]
            if "error" in need:
                raise Refused(need["error"])
            if before in need["digests"]:
                sys.stdout.write(f"{one['name']}: as it was, {before}\n")
                continue
            if need["lacking_bytes"] > free:
                raise Refused(f"it needs {need['lacking_bytes']} bytes, and {max(free, 0)} are free at {kept['store']}")
            pull(endpoint, one, _Silent())
            sys.stdout.write(f"{one['name']}: {held(endpoint)[short(one['name'])]['digest']}, was {before}\n")
        except Refused as error:
            failed = 1
            sys.stderr.write(f"{one['name']}: {error}\n")
    return failed


class _Silent(Progress):
    """Where nobody follows, and the file of those who do is not to be had."""

    def __init__(self) -> None:
        self.state = {}

    def tell(self, *, now: bool = False, **what: Any) -> None:
        """Nothing is written down."""


def main(payload: dict[str, Any]) -> dict[str, Any]:
    """``do`` names what is to be done, the functions above or serve and stop. What is refused is told as ``{error}``."""
    doing: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
        "look": look,
        "room": room,
        "describe": describe,
        "sweep": sweep,
        "start": start,
        "wait": wait,
        "remove": remove,
    }
    if payload["do"] in ("serve", "stop"):
        from . import model_copy  # noqa: PLC0415

        doing = {"serve": model_copy.serve, "stop": model_copy.stop}
    try:
        return doing[payload["do"]](payload)
    except Refused as error:
        return {"error": str(error)}


if __name__ == "__main__":
    raise SystemExit(here(sys.argv[1:]))
