# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A real Ollama for lab nodes: its program, a tiny model, and its service as Ollama's own installer leaves it.

Built by `go install` with cgo, so for the CPU only and without instruction sets beyond the platform's baseline; no file
beside the program is needed. Found to work with the tiny model: version, create, list, show, tags, generate, chat and
embed (a model of 0.8 million parameters answers eight tokens in well under a second; what it says is noise). Once a
model is loaded, a second process named ollama listens on a port of its own: the runner, which has no /api.

Built from nothing it takes two minutes of processor time; `python tests/cluster/ollama.py` does so beforehand.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np

from bzzz_setup.lab import Lab

# Not the newest on purpose: the Go module of later releases lacks the C++ headers in llama/llama.cpp/vendor, since Go
# leaves directories of that name out of modules; so this is the last that `go install` can build.
VERSION = "0.11.4"
PACKAGE = "github.com/ollama/ollama"
PROGRAM = "/usr/local/bin/ollama"
UNIT = "/etc/systemd/system/ollama.service"
HOME = "/usr/share/ollama"
# What install.sh of this release writes.
UNIT_TEXT = f"""\
[Unit]
Description=Ollama Service
After=network-online.target

[Service]
ExecStart={PROGRAM} serve
User=ollama
Group=ollama
Restart=always
RestartSec=3
Environment="PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

[Install]
WantedBy=default.target
"""


class Unbuildable(Exception):
    """There is no Ollama here and none can be made; says why."""


def binary(say: Callable[[str], None] = print) -> Path:
    """Ollama's program, built once for this home directory. Raises Unbuildable."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "bzzz/lab")
    program = cache / f"ollama-{VERSION}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "ollama.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            _build(program, say)
    return program


def _build(program: Path, say: Callable[[str], None]) -> None:
    missing = [tool for tool in ("go", "gcc", "g++") if not shutil.which(tool)]
    if missing:
        raise Unbuildable(
            f"Ollama {VERSION} is built from source, and {', '.join(missing)} is missing. "
            "Install g++ from the distribution, and Go 1.24 or newer from https://go.dev/dl/ (Debian 12's golang is too old)."
        )
    say(f"building Ollama {VERSION} (once, some minutes)…")
    began = time.monotonic()
    folder = program.with_suffix(".build")
    shutil.rmtree(folder, ignore_errors=True)  # left by one that was killed
    folder.mkdir()
    environment = os.environ | {
        "GOPATH": f"{folder}/path",
        "GOCACHE": f"{folder}/cache",
        "GOMODCACHE": f"{folder}/modules",
        "GOFLAGS": "-modcacherw",  # else the folder could not be removed
        "CGO_ENABLED": "1",
        # The compiler's time counts here, not the model's.
        "CGO_CFLAGS": "-O0",
        "CGO_CXXFLAGS": "-O0",
    }
    command = ["nice", "-n", "19", "go", "install", "-trimpath", f"-ldflags=-s -w -X={PACKAGE}/version.Version={VERSION}"]
    try:
        done = subprocess.run(
            [*command, f"{PACKAGE}@v{VERSION}"],
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise Unbuildable(f"Ollama {VERSION} could not be built:\n" + "\n".join(done.stderr.splitlines()[-15:]))
        (folder / "path/bin/ollama").replace(program)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    say(f"built {program} in {time.monotonic() - began:.0f} s")


def model(folder: Path, template: str = "") -> Path:
    """Write tiny.gguf (3 MiB; a Llama of one layer with random weights, whose tokens are single bytes) and a Modelfile; return that.

    template: of its prompts, in Ollama's words.
    """
    width, feed_forward, heads, context = 256, 512, 4, 256
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    kinds = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL, *[gguf.TokenType.BYTE] * 256]
    shapes = {
        "token_embd": (len(tokens), width),
        "output": (len(tokens), width),
        **{f"blk.0.attn_{part}": (width, width) for part in ("q", "k", "v", "output")},
        "blk.0.ffn_gate": (feed_forward, width),
        "blk.0.ffn_up": (feed_forward, width),
        "blk.0.ffn_down": (width, feed_forward),
    }
    writer = gguf.GGUFWriter(folder / "tiny.gguf", "llama")
    writer.add_name("tiny")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(feed_forward)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_rope_dimension_count(width // heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    random = np.random.default_rng(0)
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", (random.standard_normal(shape) / 16).astype(np.float32))
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(width, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    modelfile = folder / "Modelfile"
    prompts = f'TEMPLATE """{template}"""\n' if template else ""
    modelfile.write_text(f"FROM ./tiny.gguf\nPARAMETER num_predict 8\n{prompts}", encoding="utf-8")
    return modelfile


def install(lab: Lab, node: str, program: Path, template: str = "") -> None:
    """Do on a node what Ollama's installer does, and give it the model `tiny`."""
    lab.exec(node, ["useradd", "-r", "-s", "/bin/false", "-U", "-m", "-d", HOME, "ollama"])
    copy(lab, node, program, PROGRAM)
    lab.exec(node, ["tee", UNIT], stdin=UNIT_TEXT)
    lab.exec(node, ["systemctl", "enable", "--now", "--quiet", "ollama.service"])
    wait(lab, node)
    with tempfile.TemporaryDirectory() as folder:
        model(Path(folder), template)
        copy(lab, node, Path(folder), "/root/tiny")
    lab.exec(node, ["ollama", "create", "tiny", "-f", "/root/tiny/Modelfile"])


def remove(lab: Lab, node: str) -> None:
    """Undo install."""
    lab.exec(node, ["sh", "-c", f"systemctl disable --now ollama; rm -rf {UNIT} {PROGRAM} /root/tiny; userdel -r ollama"], check=False)


def copy(lab: Lab, node: str, source: Path, target: str) -> None:
    subprocess.run(["docker", "cp", str(source), f"{lab.container(node)}:{target}"], capture_output=True, check=True)


def wait(lab: Lab, node: str, address: str = "127.0.0.1:11434") -> None:
    """Until the server answers. Raises TimeoutError after 30 seconds, with the unit's journal."""
    deadline = time.monotonic() + 30
    while (asked := lab.exec(node, ["env", f"OLLAMA_HOST={address}", "ollama", "list"], check=False)).returncode:
        if time.monotonic() > deadline:
            journal = lab.exec(node, ["journalctl", "--unit=ollama", "--lines=10", "--no-pager"], check=False)
            raise TimeoutError(f"Ollama on {node} does not answer on {address}: {asked.stderr}\n{journal.stdout}")
        time.sleep(0.2)


if __name__ == "__main__":
    print(binary())
