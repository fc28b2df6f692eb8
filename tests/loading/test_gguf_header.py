"""The header of a GGUF file as the gguf package reads it, and the name of its quantisation."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path

import gguf
import numpy as np
import pytest

import tiny_gguf
from tv_lens.loading.gguf_header import read_header


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    keys = {"llama.a": True, "llama.b": 1.5, "llama.c": "word", "llama.d": [1, 2, 3], "llama.e": ["x", "yz"]}
    tiny_gguf.write(path, keys=keys, tensors={"extra.weight": [1.0, 2.5, -3.0]})
    return path


def test_keys_and_tensors_are_those_that_the_gguf_package_reads(source):
    header, reader = read_header(source), gguf.GGUFReader(source)
    expected = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    assert dict(header.metadata) == expected
    assert header.architecture == "llama" and header.of_architecture("c") == "word"
    assert {name: tensor.start for name, tensor in header.tensors.items()} == {
        tensor.name: tensor.data_offset for tensor in reader.tensors
    }
    assert header.tensors["token_embd.weight"].shape == (300, 32)
    assert header.numbers("extra.weight") == [1.0, 2.5, -3.0]


def stored(path: Path, kinds: dict[str, str]) -> Path:
    """A file of tensors alone, each of its type."""
    out = gguf.GGUFWriter(str(path), "llama")
    for name, kind in kinds.items():
        numbers = np.linspace(-1, 1, 512, dtype=np.float32).reshape(2, 256)
        quantised = gguf.GGMLQuantizationType[kind]
        out.add_tensor(name, gguf.quants.quantize(numbers, quantised), raw_dtype=quantised)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path


@pytest.mark.parametrize(
    ("kinds", "name"),
    [
        ({"a": "Q4_1", "b": "Q4_1", "c": "Q8_0", "d": "F32"}, "Q4_1"),
        ({"a": "F32", "b": "F32", "c": "Q8_0"}, "Q8_0"),
        ({"a": "F32", "b": "F16", "c": "BF16"}, ""),
    ],
)
def test_the_quantisation_is_the_type_that_holds_most_numbers_in_blocks(tmp_path, kinds, name):
    header = read_header(stored(tmp_path / "x.gguf", kinds))
    assert header.quantisation == name
    assert header.kinds == {kind: list(kinds.values()).count(kind) for kind in kinds.values()}


def test_a_tensor_of_blocks_is_not_read_as_numbers(tmp_path):
    with pytest.raises(ValueError, match="a is stored as Q8_0, not as plain numbers"):
        read_header(stored(tmp_path / "x.gguf", {"a": "Q8_0"})).numbers("a")


@pytest.mark.parametrize("size", [3, 20, 200, 5000])
def test_a_file_that_is_cut_short_is_said_so(source, tmp_path, size):
    (tmp_path / "cut.gguf").write_bytes(source.read_bytes()[:size])
    with pytest.raises(ValueError, match="the header ends too early"):
        read_header(tmp_path / "cut.gguf")


def test_another_version_is_refused(source, tmp_path):
    (tmp_path / "old.gguf").write_bytes(b"GGUF\x01" + source.read_bytes()[5:])
    with pytest.raises(ValueError, match="version 1, instead of b'GGUF' and 2 or 3"):
        read_header(tmp_path / "old.gguf")


def begun(n_tensors: int = 0, n_keys: int = 0) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, n_tensors, n_keys)


def text(word: str) -> bytes:
    return struct.pack("<Q", len(word)) + word.encode()


HUGE = 2**61
DAMAGED = {
    "keys": (begun(0, HUGE), "ends too early"),
    "tensors": (begun(HUGE), "ends too early"),
    "a text": (begun(0, 1) + struct.pack("<Q", HUGE) + b"a", "ends too early"),
    "a list of numbers": (begun(0, 1) + text("a") + struct.pack("<IIQ", 9, 4, HUGE), "ends too early"),
    "a list of texts": (begun(0, 1) + text("a") + struct.pack("<IIQ", 9, 8, HUGE), "ends too early"),
    "lists in lists": (begun(0, 1) + text("a") + struct.pack("<I", 9) + 5000 * struct.pack("<IQ", 9, 1), "without end"),
    "dimensions": (begun(1) + text("a") + struct.pack("<I", 2**32 - 1), "ends too early"),
    "a tensor": (begun(1) + text("a") + struct.pack("<IQQIQ", 2, HUGE, 2**20, 0, 0), "a of sizes .* ends behind"),
    "a place": (begun(1) + text("a") + struct.pack("<IQIQ", 1, 1, 0, HUGE), "a of sizes .* ends behind"),
    "no alignment": (begun(0, 1) + text("general.alignment") + struct.pack("<II", 4, 0), "general.alignment is 0"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_sizes_are_checked_before_memory_is_taken(tmp_path, name):
    content, said = DAMAGED[name]
    (tmp_path / "small.gguf").write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=said):
            read_header(tmp_path / "small.gguf")
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def test_tensors_that_share_their_bytes_are_refused(tmp_path):
    """A thousand tensors of one place would take a thousand times the file's size."""
    one = struct.pack("<IQIQ", 1, 2**16, 0, 0)
    content = begun(10) + b"".join(text(f"t{i}") + one for i in range(10))
    (tmp_path / "small.gguf").write_bytes(content + bytes(2**18 + 64))
    with pytest.raises(ValueError, match="lie over one another"):
        read_header(tmp_path / "small.gguf")
