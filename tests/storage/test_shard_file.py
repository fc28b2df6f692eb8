"""Shards on disk: every bit comes back, every changed one is noticed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from squares import files, square
from tv_lens.errors import FormatError, InvalidArgument
from tv_lens.storage.run_folder import shards
from tv_lens.storage.shard_file import Shard, packed, unpacked


def test_no_changed_bit_gets_through_and_none_breaks_the_reader(tmp_path):
    """Every byte changed in turn: the shard is refused, or says what it said."""
    square(tmp_path)
    content = files(tmp_path)[3]
    refused = 0
    for at in range(len(content)):
        changed = bytearray(content)
        changed[at] ^= 1 << (at % 8)
        try:
            found = unpacked(bytes(changed), 3)
        except FormatError:
            refused += 1
        else:
            assert found["square"].tobytes() == np.float32(9).tobytes() and found.about == {"i": 3}, at
    assert refused > 0.5 * len(content)


def test_every_bit_of_a_float_is_kept(tmp_path):
    odd = torch.tensor([0.1, -0.0, 1e-45, float("inf"), float("nan"), 3.4e38])
    with shards(tmp_path, verb="odd", config={}, total=1) as work:
        for i in work.pending():
            work.put(i, {"float32": odd, "float64": odd.double() / 3, "text": ["a", "béta"], "flag": True})
    with shards(tmp_path, verb="odd", config={}, total=1) as again:
        found = again.get(0)
    assert found["float32"].tobytes() == odd.numpy().tobytes() and found["float32"].dtype == np.float32
    assert found["float64"].tobytes() == (odd.double() / 3).numpy().tobytes()
    assert found["text"].tolist() == ["a", "béta"] and found["flag"].item() is True


def test_what_is_put_is_a_copy():
    values = np.zeros(3)
    with shards(None, verb="copies", config={}, total=1) as work:
        for i in work.pending():
            work.put(i, {"values": values})
        values += 1
        assert work.get(0)["values"].tolist() == [0, 0, 0]


def test_a_shard_comes_back_as_it_was_packed():
    shard = Shard.of({"a": torch.arange(3), "b": np.float16(0.1), "c": 2.5}, {"layers": (1, 2), "name": "é"})
    again = unpacked(packed(shard, 7), 7)
    assert {name: (array.dtype.str, array.tolist()) for name, array in again.arrays.items()} == {
        "a": ("<i8", [0, 1, 2]),
        "b": ("<f2", np.float16(0.1)),
        "c": ("<f8", 2.5),
    }
    assert again.about == {"layers": [1, 2], "name": "é"}


def test_texts_keep_their_shape():
    texts = {"none": np.empty((0, 3), "U4"), "one": np.array("é"), "table": np.array([["a", "bc"], ["", "d"]])}
    again = unpacked(packed(Shard.of(texts, {}), 0), 0)
    assert all(again[name].shape == one.shape and again[name].tolist() == one.tolist() for name, one in texts.items())


def test_a_shard_says_what_it_is_of_and_the_checksum_covers_it():
    shard = Shard.of({"a": np.zeros(2)}, {}, "0123abcd")
    content = packed(shard, 7)
    assert unpacked(content, 7).configuration == "0123abcd"
    with pytest.raises(FormatError, match="the checksum of its header does not fit"):
        unpacked(content.replace(b"0123abcd", b"0123abce"), 7)
    assert unpacked(packed(Shard.of({"a": np.zeros(2)}, {}), 7), 7).configuration is None, "as in files of format 1"


def test_another_shard_and_another_file_are_refused():
    content = packed(Shard.of({"a": np.zeros(2)}, {}), 7)
    with pytest.raises(FormatError) as caught:
        unpacked(content, 8)
    assert str(caught.value) == "This shard is damaged.\n  got:     it is shard 7"
    with pytest.raises(FormatError, match="This shard is damaged"):
        unpacked(b"hello", 7)


def test_what_no_file_can_hold_is_refused_by_name():
    with pytest.raises(InvalidArgument) as caught:
        Shard.of({"good": 1, "things": [object()], "header": 2}, {})
    assert caught.value.got == "things, header"
    with pytest.raises(InvalidArgument, match="wide"):
        Shard.of({"wide": np.zeros(2, complex)}, {})
    with pytest.raises(TypeError):
        Shard.of({}, {"model": object()})
