"""The envelope: opened without this library, every bit kept, every changed one noticed, sizes checked first."""

from __future__ import annotations

import hashlib
import json
import os
import random
import struct
import tracemalloc
from importlib.metadata import version

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors import safe_open

from tv_lens.errors import FormatError, InvalidArgument, MissingFile, StorageError
from tv_lens.storage import envelope
from tv_lens.storage.envelope import Kind, opened, packed, write

KIND = Kind("number", "Number.save(path)", 2)
LABELS = {"name": "é\ud800", "axes": [1, None, 2.5, float("inf")], "of": {"deep": [True]}}
TENSORS = {
    "odd": torch.tensor([0.1, -0.0, 1e-45, float("inf"), float("nan")]),
    "half": torch.tensor([[0.1], [2.0]], dtype=torch.bfloat16),
    "mask": torch.tensor([True, False, True]),
    "alone": torch.tensor(7, dtype=torch.int16),
    "none": torch.empty(0, 3, dtype=torch.float64),
}


def same(found, expected) -> bool:
    return found.keys() == expected.keys() and all(
        found[name].dtype == one.dtype
        and found[name].shape == one.shape
        and envelope.bits_of(found[name]).tobytes() == envelope.bits_of(one).tobytes()
        for name, one in expected.items()
    )


def read(source):
    with opened(source, KIND) as file:
        return dict(file), file.labels


def test_everything_comes_back_to_the_last_bit(tmp_path):
    path = write(tmp_path / "new" / "file", KIND, TENSORS, LABELS, "0123")
    tensors, labels = read(path)
    assert same(tensors, TENSORS) and labels == LABELS and os.listdir(path.parent) == ["file"]
    with opened(path, KIND) as file:
        assert (file.about["kind"], file.about["version"], file.about["configuration"]) == ("number", "2", "0123")
        assert json.loads(file.about["libraries"])["torch"] == version("torch")
        assert file.about["date"].endswith("+00:00")


def test_it_opens_with_safetensors_and_json_alone_and_the_checksums_are_what_the_page_says(tmp_path):
    path = write(tmp_path / "file", KIND, TENSORS, LABELS)
    with safe_open(path, framework="pt") as file:
        about = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    assert same(tensors, TENSORS) and json.loads(about["labels"]) == LABELS
    checksums = {name: hashlib.sha256(envelope.bits_of(one).tobytes()).hexdigest() for name, one in tensors.items()}
    assert json.loads(about["checksums"]) == checksums
    names = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "I16": torch.int16, "BOOL": torch.bool}
    codes = {dtype: code for code, dtype in names.items()}
    sealed = [
        {name: text for name, text in about.items() if name != "sha256"},
        {name: [codes[one.dtype], list(one.shape)] for name, one in tensors.items()},
    ]
    assert about["sha256"] == hashlib.sha256(json.dumps(sealed, sort_keys=True).encode()).hexdigest()


def test_arrays_of_numpy_are_taken_as_they_are():
    arrays = {
        "big endian": np.arange(3, dtype=">i4"),
        "columns": np.arange(6.0).reshape(2, 3).T,
        "backwards": np.arange(4, dtype=np.uint16)[::-1],
        "one": np.float16(0.1),
    }
    found, _ = read(packed(KIND, arrays, {}))
    for name, array in arrays.items():
        assert found[name].numpy().tolist() == np.asarray(array).tolist() and found[name].shape == np.shape(array)


@pytest.mark.parametrize("value", [np.array(["a"]), np.array([object()]), np.longdouble(1), torch.ones(1) * 1j])
def test_what_no_file_can_hold_is_refused_by_name(value):
    with pytest.raises(InvalidArgument, match="strange"):
        packed(KIND, {"strange": value}, {})


def test_every_flipped_bit_is_an_error_or_changes_nothing():
    """All bits of all bytes: of the length, the header, its padding and the numbers."""
    whole = packed(KIND, TENSORS, {"name": "é"})
    refused = 0
    for at in range(8 * len(whole)):
        changed = bytearray(whole)
        changed[at // 8] ^= 1 << at % 8
        try:
            tensors, labels = read(bytes(changed))
        except FormatError:
            refused += 1
        else:
            assert same(tensors, TENSORS) and labels == {"name": "é"}, at
    assert refused > 0.99 * 8 * len(whole)


def test_every_cut_and_every_longer_file_is_an_error():
    whole = packed(KIND, TENSORS, LABELS)
    for length in range(0, len(whole), 3):
        with pytest.raises(FormatError, match="damaged"):
            read(whole[:length])
    for more in (b"\0", whole):
        with pytest.raises(FormatError, match="damaged"):
            read(whole + more)


def test_random_damage_is_never_another_number():
    whole, draw = packed(KIND, TENSORS, LABELS), random.Random(0)
    for _ in range(500):
        changed = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            at, how = draw.randrange(len(changed)), draw.randrange(4)
            if how == 0:
                changed[at] = draw.randrange(256)
            elif how == 1:
                del changed[at : at + draw.randrange(9)]
            elif how == 2:
                changed[at:at] = changed[: draw.randrange(40)]
            else:
                changed[at : at + 8] = bytes(8)
        try:
            tensors, labels = read(bytes(changed))
        except FormatError:
            continue
        assert same(tensors, TENSORS) and labels == LABELS


def swapped(whole: bytes, old: str, new: str) -> bytes:
    """The file with another header, whose length is given anew."""
    (length,) = struct.unpack("<Q", whole[:8])
    text = whole[8 : 8 + length].decode().replace(old, new)
    return struct.pack("<Q", len(text)) + text.encode() + whole[8 + length :]


def test_declared_sizes_are_checked_before_memory_is_taken():
    whole = packed(KIND, {"a": torch.zeros(3)}, {})
    bombs = [
        swapped(whole, "[3]", "[300000000000]"),
        swapped(swapped(whole, "[3]", "[300000000000]"), "[0, 12]", "[0, 1200000000000]"),
        swapped(whole, "[3]", "[-3]"),
        swapped(whole, "[3]", "[3.0]"),
        swapped(whole, "[3]", "[true, 3]"),
        struct.pack("<Q", 1 << 62) + whole[8:],
        struct.pack("<Q", 90_000_000) + whole[8:],
        struct.pack("<Q", 100_000) + b"[" * 100_000,
    ]
    tracemalloc.start()
    for bomb in bombs:
        with pytest.raises(FormatError):
            read(bomb)
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


def test_what_was_written_by_others_or_later_says_so(tmp_path, monkeypatch):
    path = tmp_path / "file"
    safetensors.torch.save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(FormatError) as caught:
        read(path)
    assert str(caught.value) == (
        "This safetensors file holds no number of tv_lens.\n"
        f"  got:     {path} (format None)\n  allowed: a file written by Number.save(path)"
    )
    with pytest.raises(FormatError, match="holds no number.\n.*kind 'other thing'"):
        read(packed(Kind("other thing", "Other.save(path)"), {}, {}))
    with pytest.raises(FormatError, match="later tv_lens.\n.*version 3 of number"):
        read(packed(Kind("number", "Number.save(path)", 3), {}, {}))
    monkeypatch.setattr(envelope, "VERSION", 2)
    later = packed(KIND, {}, {})
    monkeypatch.setattr(envelope, "VERSION", 1)
    with pytest.raises(FormatError, match="later tv_lens"):
        read(later)
    with pytest.raises(MissingFile):
        read(tmp_path / "absent")
    with pytest.raises(FormatError, match="damaged"):
        read(tmp_path)  # a folder


def test_what_the_labels_lack_is_damage_and_what_memory_lacks_is_not():
    with pytest.raises(FormatError, match="'missing'"), opened(packed(KIND, {}, {}), KIND) as file:
        file.labels["missing"]
    with pytest.raises(MemoryError), opened(packed(KIND, {}, {}), KIND):
        raise MemoryError


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    path = write(tmp_path / "file", KIND, TENSORS, LABELS)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StorageError):
        write(path, KIND, {}, {})
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["file"]


def test_labels_that_no_reader_opens_are_refused(monkeypatch):
    monkeypatch.setattr(envelope, "_LONGEST", 1000)
    with pytest.raises(InvalidArgument, match="too large"):
        packed(KIND, {}, {"text": "a" * 1000})
