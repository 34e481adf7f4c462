# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a model is made of: the header of its GGUF file, or what Ollama tells of it.

The format is https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. A file comes from strangers: every length is bounded
before anything is read, long arrays are passed over and not kept, and what is wrong raises `GgufError`.
"""

from __future__ import annotations

import io
import math
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeGuard

MAX_HEADER = 1 << 28  # the largest tokenizers are some 20 MiB
MAX_STRING = 1 << 24
MAX_KEY = 65535  # the specification's
MAX_ENTRIES = 1 << 16
MAX_TENSORS = 1 << 18
MAX_NESTING = 4
KEPT = 4096  # elements of an array; vocabularies are longer, and only their length is of interest
MOST = (1 << 63) - 1

# ggml's type -> name, elements of a block, bytes of a block; held to the gguf package by the unit tests.
TENSOR_TYPES = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    4: ("MXFP4", 32, 17),  # as Ollama's own files have it, in the place of a type that ggml has given up
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
}

# What files do not tell, and Ollama (fs/ggml/ggml.go, GraphSize) and llama.cpp know of an architecture: every how many layers one looks
# further back than the window, or has attention at all; the least cells of a window; and which have no flash attention.
FULL_WINDOW_EVERY = {"gemma3": 6, "gptoss": 2, "gpt-oss": 2}
FULL_ATTENTION_EVERY = {"qwen3next": 4, "qwen35": 4, "qwen35moe": 4}
LEAST_WINDOW = {"gptoss": 4096, "gpt-oss": 4096}
NO_FLASH = ("gemma2", "grok")

# Value type -> struct's letter.
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9


class GgufError(ValueError):
    """The file is no GGUF file, is broken, or is of a kind that is not read."""


@dataclass(frozen=True)
class Passed:
    """A long array that was passed over."""

    length: int


@dataclass(frozen=True)
class Tensor:
    """One tensor: its place in the model is in its name."""

    name: str
    shape: tuple[int, ...]
    type: str
    bytes: int
    offset: int


@dataclass(frozen=True)
class Header:
    """A GGUF file's header."""

    version: int
    metadata: dict[str, Any]
    tensors: tuple[Tensor, ...]
    data_offset: int


@dataclass(frozen=True)
class Geometry:
    """What of a model decides about the memory it takes."""

    architecture: str
    weights_bytes: int
    file_bytes: int
    block_count: int
    context_length: int | None
    embedding_length: int
    head_count: int
    head_count_kv: tuple[int, ...]  # of each layer; 0 where a layer keeps no keys and values
    key_length: int
    value_length: int
    sliding_window: int | None = None
    sliding: tuple[bool, ...] = ()  # which layers look no further back than that; empty where nothing tells
    vocabulary: int = 0
    state_bytes: int = 0  # of each layer without keys and values, for each request
    flash: bool = True  # whether Ollama computes it with flash attention where that is on
    quantization: str | None = None
    parameters: int | None = None
    digest: str | None = None
    layer_bytes: tuple[int, ...] = field(default=(), repr=False)  # weights of each layer; empty where only the sum is known


class _Reader:
    """Reads exactly what is asked for, or says where the file ends."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream, self.offset = stream, 0

    def take(self, count: int, what: str) -> bytes:
        if count > MAX_HEADER - self.offset:
            raise GgufError(f"The header is longer than {MAX_HEADER >> 20} MiB at {what}.")
        parts, left = [], count
        while left:
            part = self.stream.read(min(left, 1 << 20))  # never trusts a length with memory before the bytes are there
            if not part:
                raise GgufError(f"The file ends at byte {self.offset + count - left}, within {what}.")
            parts.append(part)
            left -= len(part)
        self.offset += count
        return b"".join(parts)

    def skip(self, count: int, what: str) -> None:
        while count:
            step = min(count, 1 << 20)
            self.take(step, what)
            count -= step

    def number(self, letter: str, what: str) -> Any:
        raw = self.take(struct.calcsize("<" + letter), what)
        if letter == "?" and raw not in (b"\x00", b"\x01"):
            raise GgufError(f"{what} is neither true nor false: byte {raw[0]}.")
        return struct.unpack("<" + letter, raw)[0]

    def bounded(self, most: int, what: str) -> int:
        count: int = self.number("Q", what)
        if count > most:
            raise GgufError(f"{what} is {count}; more than {most} is not believed.")
        return count

    def string(self, what: str, most: int = MAX_STRING) -> str:
        raw = self.take(self.bounded(most, f"the length of {what}"), what)
        # Tokens of some models are no whole characters.
        return raw.decode("utf-8", "replace")

    def value(self, kind: int, what: str, depth: int = 0) -> Any:
        if kind in NUMBERS:
            return self.number(NUMBERS[kind], what)
        if kind == STRING:
            return self.string(what)
        if kind != ARRAY:
            raise GgufError(f"{what} is of the type {kind}, which does not exist.")
        if depth >= MAX_NESTING:
            raise GgufError(f"{what} is an array within more than {MAX_NESTING} arrays.")
        inner, length = self.number("I", what), self.bounded(MAX_HEADER, f"the length of {what}")
        if inner not in NUMBERS and inner not in (STRING, ARRAY):
            raise GgufError(f"{what} is an array of the type {inner}, which does not exist.")
        if length <= KEPT:
            return [self.value(inner, what, depth + 1) for _each in range(length)]
        if inner in NUMBERS:
            self.skip(length * struct.calcsize("<" + NUMBERS[inner]), what)
        elif inner == STRING:
            for _each in range(length):
                self.skip(self.bounded(MAX_STRING, f"the length of a string of {what}"), what)
        else:
            for _each in range(length):
                self.value(inner, what, depth + 1)
        return Passed(length)


class _Ranges(io.RawIOBase):
    """A stream over something that is read in ranges."""

    def __init__(self, fetch: Callable[[int, int], bytes]) -> None:
        self.fetch, self.at = fetch, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.fetch(self.at, len(buffer))[: len(buffer)]
        buffer[: len(data)] = data
        self.at += len(data)
        return len(data)


def read_metadata(fetch: Callable[[int, int], bytes], chunk: int = 1 << 20) -> dict[str, Any]:
    """The metadata of a file of which `fetch(offset, length)` returns bytes; fewer than asked for only at its end.

    Of the tensors nothing is read: a quantization that is new here is no obstacle.
    """
    return _begin(_Reader(io.BufferedReader(_Ranges(fetch), chunk)))[2]


def read_header(stream: BinaryIO) -> Header:
    """The header at the beginning of a binary stream; nothing of the weights is read."""
    reader = _Reader(stream)
    version, count, metadata = _begin(reader)
    tensors: dict[str, Tensor] = {}
    for _each in range(count):
        tensor = _tensor(reader)
        if tensor.name in tensors:
            raise GgufError(f"There are two tensors named {tensor.name}.")
        tensors[tensor.name] = tensor
    alignment = metadata.get("general.alignment", 32)
    if not _is_count(alignment) or alignment < 1 or alignment & (alignment - 1):
        raise GgufError(f"general.alignment is {alignment!r}, which is no power of two.")
    return Header(version, metadata, tuple(tensors.values()), -(-reader.offset // alignment) * alignment)


def _begin(reader: _Reader) -> tuple[int, int, dict[str, Any]]:
    """Version, number of tensors, and metadata."""
    magic = reader.take(4, "the magic")
    if magic != b"GGUF":
        raise GgufError(f"This is no GGUF file: it begins with {magic!r}, not with b'GGUF'.")
    version = reader.number("I", "the version")
    if version and not version & 0xFFFF:
        raise GgufError("The file is big-endian; only little-endian GGUF files are read.")
    if version not in (2, 3):
        raise GgufError(f"The file is GGUF version {version}; 2 and 3 are read.")
    count = reader.bounded(MAX_TENSORS, "the number of tensors")
    entries = reader.bounded(MAX_ENTRIES, "the number of metadata entries")
    metadata: dict[str, Any] = {}
    for _each in range(entries):
        key = reader.string("a metadata key", MAX_KEY)
        if key in metadata:
            raise GgufError(f"The metadata names {key} twice.")
        metadata[key] = reader.value(reader.number("I", f"the type of {key}"), key)
    return version, count, metadata


def _tensor(reader: _Reader) -> Tensor:
    name = reader.string("a tensor's name", MAX_KEY)
    what = f"tensor {name[:80]}"
    dimensions = reader.number("I", what)
    if dimensions > 4:
        raise GgufError(f"{what} has {dimensions} dimensions; ggml knows 4.")
    shape = tuple(reader.number("Q", what) for _each in range(dimensions))
    kind, offset = reader.number("I", what), reader.bounded(MOST, f"the offset of {what}")
    if kind not in TENSOR_TYPES:
        raise GgufError(f"{what} is of ggml's type {kind}, whose size is not known here.")
    label, block, size = TENSOR_TYPES[kind]
    elements = math.prod(shape)
    if elements > MOST // size:
        raise GgufError(f"{what} would have {elements} elements.")
    if (shape[0] if shape else 1) % block:
        raise GgufError(f"{what} has rows of {shape[0] if shape else 1}, which are no whole blocks of {block} ({label}).")
    return Tensor(name, shape, label, elements // block * size, offset)


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def geometry(header: Header) -> Geometry:
    """What of a file's header decides about memory."""
    weights = sum(tensor.bytes for tensor in header.tensors)
    blocks = header.metadata.get(f"{header.metadata.get('general.architecture')}.block_count")
    layers = [0] * (blocks if _is_count(blocks) and blocks <= KEPT else 0)
    types: dict[str, int] = {}
    for tensor in header.tensors:
        types[tensor.type] = types.get(tensor.type, 0) + tensor.bytes
        parts = tensor.name.split(".")
        if parts[0] == "blk" and len(parts) > 2 and parts[1].isascii() and parts[1].isdigit() and int(parts[1]) < len(layers):
            layers[int(parts[1])] += tensor.bytes
    ends = (tensor.offset + tensor.bytes for tensor in header.tensors)
    return _geometry(
        header.metadata,
        weights=weights,
        size=header.data_offset + max(ends, default=0),
        # What most of the bytes are in: the file's own general.file_type is a number whose meaning has changed.
        quantization=max(sorted(types), key=lambda name: types[name], default=None),
        parameters=sum(math.prod(tensor.shape) for tensor in header.tensors),
        layers=tuple(layers),
    )


def from_ollama(show: Mapping[str, Any], tag: Mapping[str, Any]) -> Geometry:
    """The same from Ollama's /api/show of a model and its entry in /api/tags. The whole model's size counts as weights: rather too many."""
    metadata, details, size = show.get("model_info"), show.get("details"), tag.get("size")
    if not isinstance(metadata, dict):
        raise GgufError("Ollama's answer has no model_info; it has it since 0.1.45.")
    if not _is_count(size) or not size:
        raise GgufError(f"Ollama tells no size of the model, but {size!r}.")
    details = details if isinstance(details, dict) else {}
    parameters, digest = metadata.get("general.parameter_count"), tag.get("digest")
    return _geometry(
        metadata,
        weights=size,
        size=size,
        quantization=str(details["quantization_level"]) if details.get("quantization_level") else None,
        parameters=parameters if _is_count(parameters) else None,
        digest=str(digest) if digest else None,
    )


def _geometry(
    metadata: Mapping[str, Any],
    *,
    weights: int,
    size: int,
    quantization: str | None,
    parameters: int | None,
    digest: str | None = None,
    layers: tuple[int, ...] = (),
) -> Geometry:
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str) or not architecture:
        raise GgufError("The metadata does not tell general.architecture.")

    def number(key: str, default: int | None = None) -> int:
        value = metadata.get(f"{architecture}.{key}", default)
        if value is None:
            raise GgufError(f"The metadata does not tell {architecture}.{key}.")
        if not _is_count(value) or not 0 < value <= 1 << 32:
            raise GgufError(f"{architecture}.{key} is {value!r}; a number from 1 on is wanted.")
        return int(value)

    blocks = number("block_count")
    if blocks > KEPT:
        raise GgufError(f"{architecture}.block_count is {blocks}; more than {KEPT} layers are not believed.")
    embedding = number("embedding_length")
    heads = _each(metadata.get(f"{architecture}.attention.head_count"), blocks, f"{architecture}.attention.head_count")
    if heads is None:
        raise GgufError(f"The metadata does not tell {architecture}.attention.head_count.")
    kv = _each(metadata.get(f"{architecture}.attention.head_count_kv"), blocks, f"{architecture}.attention.head_count_kv")
    most = max(heads)
    # A layer without heads, or between those with full attention, is recurrent.
    interval = metadata.get(f"{architecture}.full_attention_interval", FULL_ATTENTION_EVERY.get(architecture))
    every = interval if _is_count(interval) and interval else 1
    kept = tuple(
        (own if kv is None else kv[layer]) if own and not (layer + 1) % every else 0  # as llama.cpp, the last of each
        for layer, own in enumerate(heads)
    )
    window = metadata.get(f"{architecture}.attention.sliding_window")
    pattern = metadata.get(f"{architecture}.attention.sliding_window_pattern")
    sliding: tuple[bool, ...] = ()
    # Only what is told layer by layer is used: what a number means differs from architecture to architecture.
    if isinstance(pattern, list) and len(pattern) == blocks and all(isinstance(layer, bool) for layer in pattern):
        sliding = tuple(pattern)
    elif architecture in FULL_WINDOW_EVERY:
        sliding = tuple(bool((layer + 1) % FULL_WINDOW_EVERY[architecture]) for layer in range(blocks))
    window = max(window, LEAST_WINDOW.get(architecture, 0)) if _is_count(window) and window else None
    head = max(embedding // max(most, 1), 1)
    key_length, value_length = number("attention.key_length", head), number("attention.value_length", head)
    tokens = metadata.get("tokenizer.ggml.tokens")
    vocabulary = metadata.get(f"{architecture}.vocab_size")
    if not _is_count(vocabulary):
        vocabulary = tokens.length if isinstance(tokens, Passed) else len(tokens) if isinstance(tokens, list) else 0
    context = metadata.get(f"{architecture}.context_length")
    return Geometry(
        architecture=architecture,
        weights_bytes=weights,
        file_bytes=size,
        block_count=blocks,
        context_length=int(context) if _is_count(context) and context else None,
        embedding_length=embedding,
        head_count=most,
        head_count_kv=kept,
        key_length=key_length,
        value_length=value_length,
        sliding_window=window,
        sliding=sliding,
        vocabulary=vocabulary,
        state_bytes=_state(metadata, architecture),
        flash=key_length == value_length and architecture not in NO_FLASH and f"{architecture}.pooling_type" not in metadata,
        quantization=quantization,
        parameters=parameters,
        digest=digest,
        layer_bytes=layers,
    )


def _state(metadata: Mapping[str, Any], architecture: str) -> int:
    """What a recurrent layer keeps instead of keys and values, in numbers of four bytes; as Ollama's GraphSize has it."""
    told = (metadata.get(f"{architecture}.ssm.{key}") for key in ("conv_kernel", "state_size", "inner_size", "group_count"))
    kernel, state, inner, groups = (value if _is_count(value) and value <= 1 << 20 else 0 for value in told)
    return 4 * (max(kernel - 1, 0) * (inner + 2 * groups * state) + state * inner)


def _each(value: Any, blocks: int, key: str) -> tuple[int, ...] | None:
    """One number of each layer, of a number for all or of a list."""
    if value is None:
        return None
    values = value if isinstance(value, list) else [value] * blocks
    if len(values) != blocks or not all(_is_count(each) and each <= 1 << 20 for each in values):
        raise GgufError(f"{key} is {str(value)[:80]}; a number, or one for each of {blocks} layers, is wanted.")
    return tuple(values)
