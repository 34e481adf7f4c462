# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A stand-in for Ollama that has a real store and pulls from a registry, and a small registry of images for it; both run on lab nodes.

Store, manifests, digests and the stream of a pull are as Ollama's; there is nothing that answers a prompt.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import dataclass

OLLAMA = """\
#!/usr/bin/python3 -I
import hashlib, http.server, json, os, sys, urllib.request
STORE = os.environ["OLLAMA_MODELS"]
os.makedirs(STORE + "/blobs", exist_ok=True)
os.makedirs(STORE + "/manifests", exist_ok=True)
def parts(name):
    path, _, tag = name.rpartition(":")
    host, space, model = path.split("/")
    return host, space, model, tag
def blob(digest):
    return STORE + "/blobs/" + digest.replace(":", "-")
def listed():
    for folder, _, tags in os.walk(STORE + "/manifests"):
        for tag in tags:
            raw = open(os.path.join(folder, tag), "rb").read()
            found = json.loads(raw)
            sizes = [part["size"] for part in [found["config"], *found["layers"]]]
            name = os.path.relpath(folder, STORE + "/manifests") + ":" + tag
            yield {"name": name, "model": name, "digest": hashlib.sha256(raw).hexdigest(), "size": sum(sizes)}
class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        said = {"/api/version": {"version": "1.0.0"}, "/api/tags": {"models": list(listed())}, "/api/ps": {"models": []}}[self.path]
        self.answer(200, said)
    def do_POST(self):
        wanted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/api/pull":
            return self.answer(404, {"error": "model not found"})
        host, space, model, tag = parts(wanted["model"])
        registry = "%s://%s/v2/%s/%s/" % ("http" if wanted.get("insecure") else "https", host, space, model)
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.end_headers()
        try:
            self.tell(status="pulling manifest")
            raw = urllib.request.urlopen(registry + "manifests/" + tag).read()
            found = json.loads(raw)
            for part in [*found["layers"], found["config"]]:
                self.blob(registry, part["digest"], part["size"])
            self.tell(status="writing manifest")
            path = "/".join([STORE, "manifests", host, space, model])
            os.makedirs(path, exist_ok=True)
            open(path + "/" + tag, "wb").write(raw)
            self.tell(status="success")
        except urllib.error.URLError as error:
            self.tell(error="pull model manifest: " + str(error))
    def blob(self, registry, digest, size):
        if os.path.exists(blob(digest)):
            return self.tell(status="pulling", digest=digest, total=size, completed=size)
        with open(blob(digest) + "-partial", "ab") as half:
            done = half.tell()
            asked = urllib.request.Request(registry + "blobs/" + digest, headers={"Range": "bytes=%d-" % done})
            answer = urllib.request.urlopen(asked)
            while block := answer.read(65536):
                half.write(block)
                half.flush()
                done += len(block)
                self.tell(status="pulling", digest=digest, total=size, completed=done)
        os.rename(blob(digest) + "-partial", blob(digest))
    def do_DELETE(self):
        wanted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["model"]
        os.unlink("/".join([STORE, "manifests", *parts(wanted)]))
        self.answer(200, {})
    def tell(self, **said):
        self.wfile.write(json.dumps(said).encode() + b"\\n")
        self.wfile.flush()
    def answer(self, status, said):
        body = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
host, _, port = os.environ["OLLAMA_HOST"].rpartition(":")
http.server.ThreadingHTTPServer((host, int(port)), Answers).serve_forever()
"""
# Serves the models of models.json, and writes down each request for a blob, with the place that it begins at.
REGISTRY = """\
import base64, http.server, json, os, time
MODELS = {name: base64.b64decode(text) for name, text in json.load(open("/srv/registry/models.json")).items()}
BLOBS = {}
for manifest in MODELS.values():
    found = json.loads(manifest)
    BLOBS.update((part["digest"], part) for part in [found["config"], *found["layers"]])
class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        _, v2, space, model, kind, what = self.path.split("/")
        if kind == "manifests" and "%s/%s:%s" % (space, model, what) in MODELS:
            return self.answer(200, MODELS["%s/%s:%s" % (space, model, what)], 0)
        if kind != "blobs" or what not in BLOBS:
            return self.answer(404, b"", 0)
        if not self.headers["Host"].startswith("blobs."):
            # Ollama wants to be sent to another host for blobs, as public registries do.
            self.send_response(307)
            self.send_header("Location", "http://blobs.example:5000" + self.path)
            self.send_header("Content-Length", "%d" % (BLOBS[what]["size"] if self.command == "HEAD" else 0))
            return self.end_headers()
        content = open("/srv/registry/" + what, "rb").read()
        start, end = (self.headers.get("Range") or "bytes=0-")[6:].split("-")
        start, end = int(start), int(end or len(content) - 1)
        if self.command == "GET":
            # The header of the file alone is read by who plans.
            with open("/srv/registry/" + ("described" if end == 4194303 < len(content) - 1 else "asked"), "a") as asked:
                print(what, start, self.client_address[0], file=asked)
        self.answer(206 if self.headers.get("Range") else 200, content[start:end + 1], 0.2 if model == "slow" else 0)
    do_HEAD = do_GET
    def answer(self, status, body, wait):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        for at in range(0, len(body) if self.command == "GET" else 0, 65536):
            self.wfile.write(body[at:at + 65536])
            time.sleep(0 if os.path.exists("/srv/registry/fast") else wait)
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("", 5000), Answers).serve_forever()
"""
# A proxy for http addresses that lets in who knows user and password, and writes down what is asked for.
PROXY = """\
import base64, http.server, sys, urllib.request
LOGIN = "Basic " + base64.b64encode(sys.argv[1].encode()).decode()
class Still(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None
ASK = urllib.request.build_opener(urllib.request.ProxyHandler({}), Still())
class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.headers.get("Proxy-Authorization") != LOGIN:
            self.send_response(407)
            return self.end_headers()
        with open("/srv/registry/proxied", "a") as asked:
            print(self.path, file=asked)
        kept = {name: value for name, value in self.headers.items() if name.lower() in ("range", "accept")}
        try:
            answer = ASK.open(urllib.request.Request(self.path, headers=kept, method=self.command))
        except urllib.error.HTTPError as error:
            answer = error
        self.send_response(answer.status)
        for name in ("Content-Length", "Location"):
            if answer.headers.get(name):
                self.send_header(name, answer.headers[name])
        self.end_headers()
        self.wfile.write(answer.read())
    do_HEAD = do_GET
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("", 3128), Answers).serve_forever()
"""


@dataclass(frozen=True)
class Model:
    """A model of the registry: its manifest, and its blobs by their digests."""

    manifest: bytes
    blobs: dict[str, bytes]

    @property
    def digest(self) -> str:
        """As Ollama tells it."""
        return hashlib.sha256(self.manifest).hexdigest()


def model(weights: bytes, name: str, size: int | None = None) -> Model:
    """A model that is made of these bytes; its manifest may tell another size of them."""
    told = {"model_format": "gguf", "model_family": "llama", "model_families": ["llama"], "model_type": "1M", "file_type": "F32"}
    config = json.dumps({**told, "name": name, "rootfs": {"type": "layers", "diff_ids": []}}).encode()
    digests = {f"sha256:{hashlib.sha256(content).hexdigest()}": content for content in (config, weights)}
    kinds = ("application/vnd.docker.container.image.v1+json", "application/vnd.ollama.image.model")
    first, second = (
        {"mediaType": kind, "digest": digest, "size": len(content)} for kind, (digest, content) in zip(kinds, digests.items(), strict=True)
    )
    second["size"] = len(weights) if size is None else size
    document = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": first,
        "layers": [second],
    }
    return Model(json.dumps(document, separators=(",", ":")).encode(), digests)


def archive(program: bytes = OLLAMA.encode()) -> bytes:
    """The stand-in, or another program, packed as a release of Ollama is."""
    member = tarfile.TarInfo("bin/ollama")
    member.size, member.mode = len(program), 0o755
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as tar:
        tar.addfile(member, io.BytesIO(program))
    return packed.getvalue()
