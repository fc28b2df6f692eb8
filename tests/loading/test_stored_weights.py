"""A model's full name says how its file quantised it, for any GGUF."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

import tiny_gguf
from tv_lens.loading.gguf import unpack
from tv_lens.loading.hugging_face import load_local
from tv_lens.loading.stored_weights import full_name


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("Q4_1", "tiny, 4-bit (Q4_1), dequantised to float32"),
        ("Q8_0", "tiny, 8-bit (Q8_0), dequantised to float32"),
        ("Q5_0", "tiny, 5-bit (Q5_0), dequantised to float32"),
        ("F16", "tiny"),
    ],
)
def test_every_quantised_file_is_called_so(tmp_path, kind, expected):
    tiny_gguf.write(tmp_path / "plain.gguf")
    tiny_gguf.write_quantised(tmp_path / "plain.gguf", tmp_path / "x.gguf", kind)
    (tmp_path / "folder").mkdir()
    unpack(tmp_path / "x.gguf", tmp_path / "folder", "x", progress=False)
    model = load_local(tmp_path / "folder")[0]
    assert full_name(model) == expected
    assert model.config.stored_weights["tensors"].keys() == {kind, "F32"}


def test_the_dtype_is_the_one_that_the_model_has_now(tmp_path):
    tiny_gguf.write(tmp_path / "plain.gguf", keys={"general.name": None})
    tiny_gguf.write_quantised(tmp_path / "plain.gguf", tmp_path / "nameless.gguf", "Q4_0")
    (tmp_path / "folder").mkdir()
    unpack(tmp_path / "nameless.gguf", tmp_path / "folder", "x", progress=False)
    model = load_local(tmp_path / "folder", dtype=torch.bfloat16)[0]
    assert full_name(model) == "nameless, 4-bit (Q4_0), dequantised to bfloat16"


@pytest.mark.parametrize("config", [None, {}, SimpleNamespace(stored_weights="x"), SimpleNamespace(stored_weights={})])
def test_a_model_from_elsewhere_has_no_full_name(config):
    model = torch.nn.Linear(1, 1)
    model.config = config
    assert full_name(model) == ""
