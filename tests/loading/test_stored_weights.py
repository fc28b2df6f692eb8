"""A model's full name says how its file quantised it, for any GGUF."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import gguf
import pytest
import torch

import tiny_gguf
from tv_lens.loading.gguf import unpack
from tv_lens.loading.hugging_face import load_local
from tv_lens.loading.stored_weights import full_name


def quantised(source: Path, path: Path, kind: str) -> None:
    """A copy of a GGUF file whose matrices have another type."""
    reader, wanted = gguf.GGUFReader(source), gguf.GGMLQuantizationType[kind]
    out = gguf.GGUFWriter(str(path), "llama")
    for key, field in reader.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            out.add_key_value(key, field.contents(), field.types[0], field.types[-1] if len(field.types) > 1 else None)
    for tensor in reader.tensors:
        if tensor.data.ndim == 2:
            out.add_tensor(tensor.name, gguf.quants.quantize(tensor.data, wanted), raw_dtype=wanted)
        else:
            out.add_tensor(tensor.name, tensor.data)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


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
    quantised(tmp_path / "plain.gguf", tmp_path / "x.gguf", kind)
    (tmp_path / "folder").mkdir()
    unpack(tmp_path / "x.gguf", tmp_path / "folder", "x", progress=False)
    model = load_local(tmp_path / "folder")[0]
    assert full_name(model) == expected
    assert model.config.stored_weights["tensors"].keys() == {kind, "F32"}


def test_the_dtype_is_the_one_that_the_model_has_now(tmp_path):
    tiny_gguf.write(tmp_path / "plain.gguf", keys={"general.name": None})
    quantised(tmp_path / "plain.gguf", tmp_path / "nameless.gguf", "Q4_0")
    (tmp_path / "folder").mkdir()
    unpack(tmp_path / "nameless.gguf", tmp_path / "folder", "x", progress=False)
    model = load_local(tmp_path / "folder", dtype=torch.bfloat16)[0]
    assert full_name(model) == "nameless, 4-bit (Q4_0), dequantised to bfloat16"


@pytest.mark.parametrize("config", [None, {}, SimpleNamespace(stored_weights="x"), SimpleNamespace(stored_weights={})])
def test_a_model_from_elsewhere_has_no_full_name(config):
    model = torch.nn.Linear(1, 1)
    model.config = config
    assert full_name(model) == ""
