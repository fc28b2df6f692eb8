"""The header of a GGUF file: metadata, tensors with their types, small tensors' values; and damaged ones."""

from __future__ import annotations

import numpy as np
import pytest

import tiny_gguf
from tv_lens.loading.gguf_header import read_header


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("header") / "model.gguf"
    tiny_gguf.write(path, keys={"general.name": "Tiny"}, tensors={"rope_freqs.weight": [1.0, 2.0, 4.0, 8.0]})
    return path


def test_metadata_and_tensors_are_those_that_were_written(path):
    header = read_header(path)
    assert header.architecture == "llama" and header.metadata["general.name"] == "Tiny"
    assert header.of_architecture("block_count") == 2 and header.of_architecture("no.such.key", 7) == 7
    assert header.tensors["rope_freqs.weight"].shape == (4,) and header.numbers("rope_freqs.weight") == [1, 2, 4, 8]
    assert set(header.kinds) == {"F32"} and header.quantisation == ""


def test_the_gguf_package_reads_the_same(path):
    gguf = pytest.importorskip("gguf")
    theirs, ours = gguf.GGUFReader(str(path)), read_header(path)
    assert {tensor.name for tensor in theirs.tensors} == set(ours.tensors)
    for tensor in theirs.tensors:
        assert tuple(reversed(tensor.shape.tolist())) == ours.tensors[tensor.name].shape
        if tensor.tensor_type.name == "F32" and tensor.n_elements < 100:
            assert np.allclose(ours.numbers(tensor.name), np.array(tensor.data).ravel())


@pytest.mark.parametrize("length", [0, 3, 10, 40, 200])
def test_a_file_cut_short_is_a_plain_error(path, tmp_path, length):
    (tmp_path / "cut.gguf").write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError):
        read_header(tmp_path / "cut.gguf")
