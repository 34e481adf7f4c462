# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""GGUF headers: held to the gguf package, and to what strangers may put into a file."""

from __future__ import annotations

import io
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import gguf as reference
import numpy as np
import pytest
from ansible_collections.bzzz.cluster.plugins.module_utils.node.gguf import (
    TENSOR_TYPES,
    Geometry,
    GgufError,
    Passed,
    from_ollama,
    geometry,
    read_header,
    read_metadata,
)
from hypothesis import given, settings
from hypothesis import strategies as st


def written(path: Path, *, layers: int = 3, kv: int | list[int] = 2, extra: dict[str, Any] | None = None) -> Path:
    """A tiny llama, by the reference's own writer."""
    writer = reference.GGUFWriter(path, "llama")
    writer.add_block_count(layers)
    writer.add_context_length(4096)
    writer.add_embedding_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(kv)
    writer.add_token_list([f"t{number}" for number in range(5000)])
    for key, value in (extra or {}).items():
        writer.add_key_value(key, value, reference.GGUFValueType.get_type(value))
    writer.add_tensor("token_embd.weight", np.zeros((10, 64), dtype=np.float32))
    for layer in range(layers):
        block = reference.quants.quantize(np.zeros((8, 64), dtype=np.float32), reference.GGMLQuantizationType.Q8_0)
        writer.add_tensor(f"blk.{layer}.attn_q.weight", block, raw_dtype=reference.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def head(tensors: int, entries: int, body: bytes = b"", version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, entries) + body


def entry(key: bytes, kind: int, value: bytes) -> bytes:
    return string(key) + struct.pack("<I", kind) + value


def read(data: bytes) -> Any:
    return read_header(io.BytesIO(data))


@pytest.mark.requirement("3.6.2", part="geometry")
def test_block_sizes_are_the_reference_s() -> None:
    known = {kind.value: (kind.name, *reference.GGML_QUANT_SIZES[kind]) for kind in reference.GGMLQuantizationType}
    # Ollama's files have this one by another number as well.
    known[4] = known[reference.GGMLQuantizationType.MXFP4]
    assert {kind: known[kind] for kind in TENSOR_TYPES} == TENSOR_TYPES


@pytest.mark.requirement("3.6.2", part="geometry")
def test_a_file_of_the_reference_s_writer(tmp_path: Path) -> None:
    path = written(tmp_path / "tiny.gguf")
    with path.open("rb") as file:
        header = read_header(file)
    seen, theirs = geometry(header), reference.GGUFReader(path)
    assert seen.weights_bytes == sum(int(tensor.n_bytes) for tensor in theirs.tensors)
    assert header.data_offset == theirs.data_offset
    assert seen.parameters == sum(int(tensor.n_elements) for tensor in theirs.tensors)
    assert path.stat().st_size - 32 < seen.file_bytes <= path.stat().st_size
    assert seen.layer_bytes == (8 * 64 // 32 * 34,) * 3
    assert header.metadata["tokenizer.ggml.tokens"] == Passed(5000)
    assert (seen.architecture, seen.block_count, seen.context_length, seen.embedding_length) == ("llama", 3, 4096, 64)
    assert (seen.head_count, seen.head_count_kv, seen.key_length, seen.value_length) == (4, (2, 2, 2), 16, 16)
    assert (seen.vocabulary, seen.quantization) == (5000, "F32")


def test_heads_of_each_layer_and_sliding_windows(tmp_path: Path) -> None:
    extra = {
        "llama.attention.sliding_window": 512,
        "llama.attention.sliding_window_pattern": [True, False, True],
        "llama.attention.key_length": 32,
    }
    with written(tmp_path / "tiny.gguf", kv=[2, 0, 4], extra=extra).open("rb") as file:
        seen = geometry(read_header(file))
    assert (seen.head_count_kv, seen.sliding_window, seen.sliding) == ((2, 0, 4), 512, (True, False, True))
    assert (seen.key_length, seen.value_length) == (32, 16)


@pytest.mark.requirement("3.6.2", part="geometry")
def test_ranges_read_the_metadata_alone(tmp_path: Path) -> None:
    data = written(tmp_path / "tiny.gguf").read_bytes()
    asked: list[tuple[int, int]] = []

    def fetch(offset: int, length: int) -> bytes:
        asked.append((offset, length))
        return data[offset : offset + length]

    assert read_metadata(fetch, chunk=4096) == read(data).metadata
    assert max(offset for offset, _ in asked) <= read(data).data_offset
    new = head(1, 1, entry(b"a", 0, b"1") + string(b"t") + struct.pack("<IQIQ", 1, 8, 777, 0))
    assert read_metadata(lambda offset, length: new[offset : offset + length]) == {"a": 49}, "a quantization that is not known here"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "ends at byte 0"),
        (b"PK\x03\x04", "no GGUF file"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
        (head(0, 0, version=1), "version 1"),
        (head(0, 0, version=4), "version 4"),
        (head(1 << 40, 0), "number of tensors is 1099511627776"),
        (head(0, 1 << 40), "number of metadata entries"),
        (head(0, 1, string(b"a") + struct.pack("<I", 99)), "type 99"),
        (head(0, 1, struct.pack("<Q", 1 << 60)), "length of a metadata key"),
        (head(0, 1, entry(b"a", 8, struct.pack("<Q", 1 << 23))), "ends at byte"),
        (head(0, 1, entry(b"a", 7, b"\x02")), "neither true nor false"),
        (head(0, 1, entry(b"a", 9, struct.pack("<IQ", 4, 1 << 50))), "length of a"),
        (head(0, 1, entry(b"a", 9, struct.pack("<IQ", 10, 1 << 27))), "ends at byte|longer than"),
        (head(0, 1, entry(b"a", 9, struct.pack("<IQ", 9, 1) * 9)), "within more than 4 arrays"),
        (head(0, 2, entry(b"a", 0, b"1") * 2), "names a twice"),
        (head(0, 1, entry(b"general.alignment", 4, struct.pack("<I", 3))), "no power of two"),
        (head(1, 0, string(b"t") + struct.pack("<I", 5)), "5 dimensions"),
        (head(1, 0, string(b"t") + struct.pack("<IQIQ", 1, 8, 777, 0)), "type 777"),
        (head(1, 0, string(b"t") + struct.pack("<IQIQ", 1, 8, 2, 0)), "no whole blocks of 32"),
        (head(1, 0, string(b"t") + struct.pack("<IQQIQ", 2, 1 << 62, 1 << 62, 0, 0)), "would have"),
    ],
)
def test_what_is_wrong_is_told(data: bytes, says: str) -> None:
    with pytest.raises(GgufError, match=says):
        read(data)


def test_a_length_alone_takes_no_memory() -> None:
    tracemalloc.start()
    with pytest.raises(GgufError):
        read(head(0, 1, entry(b"a", 9, struct.pack("<IQ", 0, 1 << 27))))
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


@settings(deadline=None)
@given(st.binary(max_size=300), st.integers(0, 3))
def test_noise_is_an_error_of_ours_or_a_header(noise: bytes, entries: int) -> None:
    for data in (noise, head(entries, entries, noise)):
        try:
            geometry(read(data))
        except GgufError:
            continue


def test_every_truncation_is_told(tmp_path: Path) -> None:
    data = written(tmp_path / "tiny.gguf").read_bytes()
    end = read(data).data_offset
    for length in [*range(200), *range(200, end - 32, 997)]:
        with pytest.raises(GgufError, match="ends at byte"):
            read(data[:length])


VALUES = st.one_of(
    st.tuples(st.just(10), st.integers(0, (1 << 64) - 1)).map(lambda pair: (pair[0], struct.pack("<Q", pair[1]), pair[1])),
    st.tuples(st.just(11), st.integers(-(1 << 63), (1 << 63) - 1)).map(lambda pair: (pair[0], struct.pack("<q", pair[1]), pair[1])),
    st.tuples(st.just(12), st.floats(allow_nan=False)).map(lambda pair: (pair[0], struct.pack("<d", pair[1]), pair[1])),
    st.booleans().map(lambda value: (7, bytes([value]), value)),
    st.text(max_size=20).map(lambda value: (8, string(value.encode()), value)),
    st.lists(st.integers(-128, 127), max_size=9).map(lambda v: (9, struct.pack(f"<IQ{len(v)}b", 1, len(v), *v), v)),
    st.lists(st.text(max_size=5), max_size=9).map(
        lambda v: (9, struct.pack("<IQ", 8, len(v)) + b"".join(string(text.encode()) for text in v), v)
    ),
)


@given(st.dictionaries(st.text(max_size=9).filter(lambda key: key != "general.alignment"), VALUES, max_size=6), st.sampled_from([2, 3]))
def test_round_trips(entries: dict[str, tuple[int, bytes, Any]], version: int) -> None:
    body = b"".join(entry(key.encode(), kind, raw) for key, (kind, raw, _) in entries.items())
    assert read(head(0, len(entries), body, version)).metadata == {key: value for key, (_, _, value) in entries.items()}


SHOW = {
    "details": {"quantization_level": "Q4_K_M"},
    "model_info": {
        "general.architecture": "qwen3", "general.parameter_count": 8190735360, "qwen3.block_count": 36, "qwen3.context_length": 40960,
        "qwen3.embedding_length": 4096, "qwen3.attention.head_count": 32, "qwen3.attention.head_count_kv": 8,
        "qwen3.attention.key_length": 128, "qwen3.attention.value_length": 128, "tokenizer.ggml.tokens": None,
    },
}  # fmt: skip


def test_what_ollama_tells() -> None:
    seen = from_ollama(SHOW, {"size": 5225388164, "digest": "500a1f067a9f"})
    assert isinstance(seen, Geometry)
    assert (seen.weights_bytes, seen.quantization, seen.digest, seen.parameters) == (5225388164, "Q4_K_M", "500a1f067a9f", 8190735360)
    assert (seen.block_count, seen.head_count_kv[0], seen.key_length) == (36, 8, 128)


def told(architecture: str, layers: int, **values: Any) -> Geometry:
    """What Ollama tells of such a model."""
    info = {"block_count": layers, "embedding_length": 64, "attention.head_count": 4, "attention.head_count_kv": 2}
    info |= {key.replace("__", "."): value for key, value in values.items()}
    shown = {"general.architecture": architecture, **{f"{architecture}.{key}": value for key, value in info.items()}}
    return from_ollama({"model_info": shown}, {"size": 1})


@pytest.mark.requirement("3.6.2", part="geometry")
def test_what_of_a_layer_files_do_not_tell() -> None:
    gemma = told("gemma3", 7, attention__sliding_window=1024)
    assert (gemma.sliding_window, gemma.sliding) == (1024, (True,) * 5 + (False, True))
    assert told("gemma3", 2, attention__sliding_window=1024, attention__sliding_window_pattern=[False, True]).sliding == (False, True)
    # Ollama keeps more of it than the model's window of 128.
    assert [told(name, 4, attention__sliding_window=128).sliding_window for name in ("gptoss", "gpt-oss", "llama")] == [4096, 4096, 128]
    assert told("gptoss", 4, attention__sliding_window=128).sliding == (True, False) * 2
    assert told("gemma2", 4, attention__sliding_window=128).sliding == ()
    assert told("qwen3next", 8).head_count_kv == (0, 0, 0, 2) * 2
    assert told("qwen3next", 4, full_attention_interval=2).head_count_kv == (0, 2, 0, 2)
    assert told("llama", 3, attention__head_count=[4, 0, 4], attention__head_count_kv=[2, 2, 0]).head_count_kv == (2, 0, 0)
    ssm = {"ssm__conv_kernel": 4, "ssm__state_size": 16, "ssm__inner_size": 5120}
    mamba = told("mamba", 3, attention__head_count=0, attention__head_count_kv=None, **ssm)
    assert (mamba.head_count_kv, mamba.state_bytes) == ((0, 0, 0), 4 * (3 * 5120 + 16 * 5120))


@pytest.mark.requirement("3.6.2", part="geometry")
def test_what_has_no_flash_attention() -> None:
    assert told("llama", 2).flash
    assert not told("gemma2", 2).flash and not told("grok", 2).flash and not told("bert", 2, pooling_type=1).flash
    assert not told("deepseek2", 2, attention__key_length=192, attention__value_length=128).flash


@pytest.mark.parametrize(
    ("show", "tag", "says"),
    [
        ({}, {"size": 1}, "no model_info"),
        (SHOW, {}, "no size"),
        ({"model_info": {}}, {"size": 1}, "general.architecture"),
        ({"model_info": {"general.architecture": "x"}}, {"size": 1}, "x.block_count"),
        ({"model_info": {**SHOW["model_info"], "qwen3.attention.head_count": [1, 2]}}, {"size": 1}, "one for each of 36"),
        ({"model_info": {**SHOW["model_info"], "qwen3.block_count": "36"}}, {"size": 1}, "'36'"),
        ({"model_info": {**SHOW["model_info"], "qwen3.block_count": 1 << 31}}, {"size": 1}, "not believed"),
    ],
)
def test_what_ollama_does_not_tell(show: dict[str, Any], tag: dict[str, Any], says: str) -> None:
    with pytest.raises(GgufError, match=says):
        from_ollama(show, tag)
