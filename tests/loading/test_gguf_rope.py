"""Rotary positions of a GGUF file: logits equal those of the Hugging Face model that carries the same scaling."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

import tiny_gguf
from tv_lens.errors import ModelLoadError
from tv_lens.loading.gguf import unpack
from tv_lens.loading.hugging_face import load_local

IDS = torch.arange(3, 60)[None]
SCALING = "llama.rope.scaling."
PLAIN = 1 / 10000.0 ** (torch.arange(0, 8, 2) / 8)  # the unscaled frequencies of a head of eight dimensions


def unpacked(tmp_path: Path, model: Any, architecture: str, keys: Any = None, tensors: Any = None) -> torch.nn.Module:
    path, folder = tmp_path / "model.gguf", tmp_path / "folder"
    tiny_gguf.write_model(path, model, architecture, keys, tensors)
    folder.mkdir()
    unpack(path, folder, "tiny", progress=False)
    return load_local(folder)[0]


def with_rope(model: Any, **rope: Any) -> Any:
    """The same weights in a model whose config states a scaling."""
    config = type(model.config)(**{**model.config.to_dict(), "rope_parameters": {"rope_theta": 10000.0, **rope}})
    config._attn_implementation = "eager"
    other = type(model)(config).eval()
    other.load_state_dict(model.state_dict())
    return other


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


def assert_same(model: Any, expected: Any, unscaled: Any) -> None:
    torch.testing.assert_close(logits(model), logits(expected), atol=2e-6, rtol=0)
    assert (logits(expected) - logits(unscaled)).abs().max() > 0.1  # so that a scaling left out would show


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
CASES = {
    "linear": ({"type": "linear", "factor": 4.0}, {"rope_type": "linear", "factor": 4.0}),
    "a factor alone is linear": ({"factor": 3.0}, {"rope_type": "linear", "factor": 3.0}),
    "yarn": ({"type": "yarn", "factor": 4.0, "original_context_length": 16}, YARN),
    "yarn with other turns": (
        {
            "type": "yarn",
            "factor": 4.0,
            "original_context_length": 16,
            "yarn_beta_fast": 4.0,
            "yarn_beta_slow": 0.25,
            "attn_factor": 1.5,
            "yarn_attn_factor": 0.5,
        },
        {**YARN, "beta_fast": 4.0, "beta_slow": 0.25, "attention_factor": 0.75 * (1 + 0.1 * math.log(4.0))},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_scaling_of_the_metadata_is_that_of_the_model(tmp_path, case):
    keys, rope = CASES[case]
    plain = tiny_gguf.llama()
    model = unpacked(tmp_path, plain, "llama", {SCALING + key: value for key, value in keys.items()})
    assert_same(model, with_rope(plain, **rope), plain)


def test_the_old_key_of_linear_scaling(tmp_path):
    plain = tiny_gguf.llama()
    model = unpacked(tmp_path, plain, "llama", {"llama.rope.scale_linear": 2.0})
    assert_same(model, with_rope(plain, rope_type="linear", factor=2.0), plain)


@pytest.mark.parametrize(("kind", "factor"), [("none", 4.0), ("linear", 1.0)])
def test_a_scaling_that_does_nothing_is_none(tmp_path, kind, factor):
    plain = tiny_gguf.llama()
    model = unpacked(tmp_path, plain, "llama", {SCALING + "type": kind, SCALING + "factor": factor})
    assert torch.equal(logits(model), logits(plain))


@pytest.mark.parametrize("base", [500.0, None])
def test_another_base_and_no_base(tmp_path, base):
    plain = tiny_gguf.llama()
    model = unpacked(tmp_path, plain, "llama", {"llama.rope.freq_base": base})
    assert torch.equal(logits(model), logits(with_rope(plain, rope_theta=base or 10000.0)))


# ---- tables of divisors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("factor", "original"), [(8.0, 16), (32.0, 200), (4.0, 1000)])
def test_rope_freqs_of_a_converted_llama_3(tmp_path, factor, original):
    plain, rope = tiny_gguf.llama(), {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    expected = with_rope(plain, **rope, factor=factor, original_max_position_embeddings=original)
    divisors = (PLAIN / expected.model.rotary_emb.inv_freq).tolist()  # what the converter stores
    model = unpacked(tmp_path, plain, "llama", None, {"rope_freqs.weight": divisors})
    torch.testing.assert_close(logits(model), logits(expected), atol=2e-6, rtol=0)
    assert (divisors[-1], model.config.rope_parameters["rope_type"]) == (factor, "llama3")
    assert model.config.rope_parameters["original_max_position_embeddings"] == original


def test_divisors_of_no_known_scaling_are_used_as_they_are(tmp_path):
    plain, divisors = tiny_gguf.llama(), [1.0, 3.0, 2.0, 5.0]
    model = unpacked(tmp_path, plain, "llama", {SCALING + "factor": 2.0}, {"rope_freqs.weight": divisors})
    plain.model.rotary_emb.inv_freq = PLAIN / torch.tensor(divisors) / 2  # the independent way: the buffer itself
    torch.testing.assert_close(logits(model), logits(plain), atol=2e-6, rtol=0)


def phi3(**more: Any) -> Any:
    return tiny_gguf.drawn(
        hf.Phi3Config(
            vocab_size=300,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            bos_token_id=257,
            eos_token_id=256,
            pad_token_id=256,
            **more,
        )
    )


def test_longrope_of_a_phi_3_for_short_and_for_long_texts(tmp_path):
    short, long = [1.0, 1.1, 1.2, 1.3], [1.0, 2.0, 4.0, 8.0]
    rope = dict(rope_type="longrope", short_factor=short, long_factor=long, rope_theta=10000.0)
    expected = phi3(original_max_position_embeddings=32, rope_parameters=rope)
    keys = {
        "phi3.rope.scaling.original_context_length": 32,
        "phi3.rope.scaling.attn_factor": math.sqrt(1 + math.log(2) / math.log(32)),
        "phi3.rope.dimension_count": 8,
    }
    tensors = {"rope_factors_short.weight": short, "rope_factors_long.weight": long}
    model = unpacked(tmp_path, expected, "phi3", keys, tensors)
    for ids in (IDS[:, :20], IDS):
        with torch.no_grad():
            torch.testing.assert_close(model(ids).logits, expected(ids).logits, atol=2e-6, rtol=0)


def test_a_phi_3_that_rotates_half_of_each_head(tmp_path):
    expected = phi3(partial_rotary_factor=0.5)
    model = unpacked(tmp_path, expected, "phi3", {"phi3.rope.dimension_count": 4})
    assert torch.equal(logits(model), logits(expected))


def test_only_the_full_layers_of_a_gemma_3_are_scaled(tmp_path):
    rope = {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 100000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 3000.0},
    }
    config = hf.Gemma3TextConfig(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=64,
        sliding_window=6,
        query_pre_attn_scalar=16,
        layer_types=["full_attention", "sliding_attention"],
        rope_parameters=rope,
    )
    expected = tiny_gguf.drawn(config)
    said = {
        "attention.key_length": 16,
        "attention.value_length": 16,
        "attention.sliding_window": 6,
        "attention.sliding_window_pattern": [False, True],
        "rope.freq_base": 100000.0,
        "rope.freq_base_swa": 3000.0,
        "rope.scaling.type": "linear",
        "rope.scaling.factor": 8.0,
    }
    model = unpacked(tmp_path, expected, "gemma3", {f"gemma3.{key}": value for key, value in said.items()})
    assert torch.equal(logits(model), logits(expected))


REFUSED = {
    "an unknown type": ({"type": "dynamic", "factor": 2.0}, {}, "llama.rope.scaling.type = 'dynamic'"),
    "an extrapolation of half": ({"type": "yarn", "factor": 2.0, "yarn_ext_factor": 0.5}, {}, "yarn_ext_factor = 0.5"),
    "alpha": ({"alpha": 100.0}, {}, "llama.rope.scaling.alpha = 100"),
    "a multiplier of the logarithm": ({"yarn_log_multiplier": 0.1}, {}, "llama.rope.scaling.yarn_log_multiplier = 0.1"),
    "louder linear": ({"type": "linear", "factor": 2.0, "attn_factor": 1.5}, {}, "rope.scaling.attn_factor = 1.5"),
    "longrope without tables": ({"type": "longrope"}, {}, "rope.scaling.type = 'longrope' without"),
    "one table of two": ({}, {"rope_factors_long.weight": [1.0] * 4}, "rope_factors_long.weight without"),
    "a table of another size": ({}, {"rope_freqs.weight": [1.0] * 3}, "rope_freqs.weight with 3 factors for 4"),
    "a part of each head": ({"/llama.rope.dimension_count": 4}, {}, "llama.rope.dimension_count = 4"),
    "another base for windows": ({"/llama.rope.freq_base_swa": 5.0}, {}, "llama.rope.freq_base_swa = 5"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_scaling_of_the_model_computes_is_refused_by_name(tmp_path, case):
    said, tensors, name = REFUSED[case]
    keys = {key[1:] if key.startswith("/") else SCALING + key: value for key, value in said.items()}
    with pytest.raises(ModelLoadError, match="has no place for") as caught:
        unpacked(tmp_path, tiny_gguf.llama(), "llama", keys, tensors)
    assert name in str(caught.value)


def test_a_model_without_rotary_positions_refuses_them(tmp_path):
    config = hf.GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=4, n_positions=64, n_inner=64)
    with pytest.raises(ModelLoadError, match=r"gpt2\.rope\.freq_base \(the model has no rotary positions\)"):
        unpacked(tmp_path, tiny_gguf.drawn(config), "gpt2", {"gpt2.rope.freq_base": 10000.0})
