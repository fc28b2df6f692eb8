"""A model read from a file is called what the file's weights are, quantisation and all."""

from __future__ import annotations

import pytest
import torch

import tiny_gguf
import tv_lens as tv
from tv_lens.loading.gguf_header import read_header
from tv_lens.loading.stored_weights import full_name, stored_weights


def test_the_name_is_the_one_given_or_the_files(tmp_path):
    tiny_gguf.write(tmp_path / "m.gguf", keys={"general.name": "Tiny Llama"})
    header = read_header(tmp_path / "m.gguf")
    assert stored_weights(header)["name"] == "Tiny Llama" and stored_weights(header, "Given")["name"] == "Given"
    assert stored_weights(header)["quantisation"] == ""


@pytest.mark.parametrize(
    "kind, expected",
    [("Q4_1", "X, 4-bit (Q4_1), dequantised to bfloat16"), ("IQ2_XS", "X, 2-bit (IQ2_XS), dequantised to bfloat16"),
     ("MXFP4", "X, MXFP4, dequantised to bfloat16"), ("", "X")],
)  # fmt: skip
def test_quantised_weights_say_how_and_into_which_dtype(kind, expected):
    model = torch.nn.Linear(1, 1, dtype=torch.bfloat16)
    model.config = {"stored_weights": {"name": "X", "quantisation": kind}}
    assert full_name(model) == expected
    assert full_name(torch.nn.Linear(1, 1)) == ""


def test_the_embedded_model_is_called_what_it_is(smollm2):
    assert smollm2.full_name == "smollm2-135m (SmolLM2-135M-Instruct, 4-bit (Q4_1), dequantised to float32)"
    assert repr(smollm2).startswith(
        "HookedModel smollm2-135m (SmolLM2-135M-Instruct, 4-bit (Q4_1), dequantised to float32, LlamaForCausalLM)\n"
    )
    assert tv.load("smollm2-135m").full_name == smollm2.full_name
