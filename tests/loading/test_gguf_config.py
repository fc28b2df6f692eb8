"""Every metadata key and tensor of a GGUF file is applied, changes nothing, or is refused by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
import transformers as hf

import tiny_gguf
from tv_lens.errors import ModelLoadError
from tv_lens.loading import gguf_config
from tv_lens.loading.gguf import unpack
from tv_lens.loading.gguf_rope import ROPE_KEYS
from tv_lens.loading.gguf_tokenizer import TOKENIZER_KEYS
from tv_lens.loading.hugging_face import load_local

IDS = torch.arange(3, 60)[None]
SIZES = dict(
    vocab_size=300,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    bos_token_id=257,
    eos_token_id=256,
    pad_token_id=256,
)


def unpacked(tmp_path: Path, model: Any, architecture: str, keys: Any = None, tensors: Any = None) -> torch.nn.Module:
    path, folder = tmp_path / "model.gguf", tmp_path / "folder"
    tiny_gguf.write_model(path, model, architecture, keys, tensors)
    folder.mkdir()
    unpack(path, folder, "tiny", progress=False)
    return load_local(folder)[0]


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


# Models whose config differs from the class's defaults in what the keys say, which transformers passes over.
APPLIED = {
    "heads wider than d_model / heads": (
        "qwen3",
        lambda: hf.Qwen3Config(**SIZES, head_dim=16, rms_norm_eps=1e-5, rope_theta=1e6),
        {"attention.key_length": 16, "attention.value_length": 16, "rope.freq_base": 1e6},
    ),
    "soft caps": (
        "gemma2",
        lambda: hf.Gemma2Config(
            **SIZES,
            head_dim=16,
            sliding_window=6,
            query_pre_attn_scalar=16,
            attn_logit_softcapping=1.0,
            final_logit_softcapping=0.5,
        ),
        {
            "attention.key_length": 16,
            "attention.sliding_window": 6,
            "attn_logit_softcapping": 1.0,
            "final_logit_softcapping": 0.5,
        },
    ),
    "no soft caps": (
        "gemma2",
        lambda: hf.Gemma2Config(
            **SIZES,
            head_dim=16,
            sliding_window=6,
            query_pre_attn_scalar=16,
            attn_logit_softcapping=None,
            final_logit_softcapping=None,
        ),
        {
            "attention.key_length": 16,
            "attention.sliding_window": 6,
            "attn_logit_softcapping": 0.0,
            "final_logit_softcapping": 0.0,
        },
    ),
    "an attention scale": (
        "gemma2",
        lambda: hf.Gemma2Config(**SIZES, head_dim=16, sliding_window=6, query_pre_attn_scalar=100),
        {"attention.key_length": 16, "attention.sliding_window": 6, "attention.scale": 0.1},
    ),
    "a window of every layer": (
        "starcoder2",
        lambda: hf.Starcoder2Config(**SIZES, rope_theta=1e5, sliding_window=9, norm_epsilon=1e-3),
        {"rope.freq_base": 1e5, "attention.sliding_window": 9},
    ),
    "an inner width and a context": (
        "gpt2",
        lambda: hf.GPT2Config(
            vocab_size=300, n_embd=32, n_layer=2, n_head=4, n_positions=64, n_inner=48, layer_norm_epsilon=1e-2
        ),
        {"attention.head_count_kv": 4},
    ),
    "biases": ("llama", lambda: hf.LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True), {}),
    "no key-value heads named": ("qwen2", lambda: hf.Qwen2Config(**{**SIZES, "num_key_value_heads": 4}), {}),
    "an unembedding of its own": ("llama", lambda: hf.LlamaConfig(**SIZES, tie_word_embeddings=False), {}),
}


@pytest.mark.parametrize("case", APPLIED)
def test_what_the_file_says_is_what_the_model_computes(tmp_path, case):
    architecture, config, said = APPLIED[case]
    expected = tiny_gguf.drawn(config())
    keys = {f"{architecture}.{key}": value for key, value in said.items()}
    if case.startswith("no key-value"):
        keys[f"{architecture}.attention.head_count_kv"] = None
    model = unpacked(tmp_path, expected, architecture, keys)
    torch.testing.assert_close(logits(model), logits(expected), atol=2e-6, rtol=0)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("attention.sliding_window", 8),
        ("attention.scale", 0.5),
        ("attention.value_length", 4),
        ("attention.causal", False),
        ("attention.clamp_kqv", 8.0),
        ("attention.max_alibi_bias", 8.0),
        ("attention.head_count_kv", [2, 4]),
        ("attention.temperature_scale", 0.1),
        ("attn_logit_softcapping", 50.0),
        ("final_logit_softcapping", 30.0),
        ("logit_scale", 0.25),
        ("residual_scale", 0.5),
        ("embedding_scale", 12.0),
        ("expert_count", 8),
        ("expert_used_count", 2),
        ("pooling_type", 1),
        ("feed_forward_length", [48, 64]),
        ("of_next_year", "something"),
    ],
)
def test_what_the_model_has_no_place_for_is_refused_by_name(tmp_path, key, value):
    with pytest.raises(ModelLoadError) as caught:
        unpacked(tmp_path, tiny_gguf.llama(), "llama", {f"llama.{key}": value})
    shown = f"{value:g}" if isinstance(value, float) else repr(value)
    assert str(caught.value) == (
        "The GGUF file holds what transformers has no place for in a llama model.\n"
        f"  got:     model.gguf: llama.{key} = {shown}\n"
        "  do:      load the model's original Hugging Face folder; without these the model would be another one"
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [("general.type", "adapter"), ("adapter.lora.alpha", 16.0), ("split.count", 3), ("clip.use_gelu", True), ("x", 1)],
)
def test_files_that_hold_something_else_are_refused(tmp_path, key, value):
    with pytest.raises(ModelLoadError, match="has no place for") as caught:
        unpacked(tmp_path, tiny_gguf.llama(), "llama", {key: value})
    assert key in str(caught.value)


@pytest.mark.parametrize("name", ["blk.0.attn_q_norm.weight", "blk.1.attn_q.bias", "blk.2.ffn_up.weight", "rope_long"])
def test_a_tensor_that_the_model_does_not_take_is_refused_by_name(tmp_path, name):
    with pytest.raises(ModelLoadError, match="has no place for") as caught:
        unpacked(tmp_path, tiny_gguf.llama(), "llama", None, {name: [1.0] * 32})
    assert f"the tensor {name}" in str(caught.value)


def test_values_that_change_nothing_and_keys_that_are_no_computation_are_taken(tmp_path):
    model = tiny_gguf.llama()
    said = {
        "llama.attention.scale": 8**-0.5,
        "llama.attention.causal": True,
        "llama.attention.key_length": 8,
        "llama.attention.value_length": 8,
        "llama.attention.sliding_window": 64,  # as long as the context
        "llama.logit_scale": 1.0,
        "llama.expert_count": 0,
        "llama.rope.scaling.finetuned": True,
        "llama.tensor_data_layout": "Meta AI original pth",
        "general.type": "model",
        "general.author": "nobody",
        "general.quantization_version": 2,
        "general.tags": ["a", "b"],
        "quantize.imatrix.file": "x",
        "split.count": 1,
        "tokenizer.chat_template": "{{ messages }}",
        "tokenizer.ggml.eot_token_id": 256,
        "tokenizer.ggml.fim_pre_token_id": 5,
    }
    assert torch.equal(logits(unpacked(tmp_path, model, "llama", said)), logits(model))


def test_every_key_that_gguf_names_is_known_or_refused():
    """No key of the format is passed over: those of a whole file by pattern, those of an architecture one by one."""
    general = [key.replace("{id}", "0").replace("{name}", "x") for key in _strings(gguf.Keys.General)]
    assert all(_is_no_computation(key) for key in general if key != "general.type")
    of_tokenizers = [key for key in _strings(gguf.Keys.Tokenizer) if "chat_template" not in key]
    unknown = {key for key in of_tokenizers if key not in TOKENIZER_KEYS and not _is_no_computation(key)}
    assert unknown == {"tokenizer.rwkv.world"}
    of_architecture = [key.removeprefix("{arch}.") for key in _strings(gguf.Keys.LLM)]
    assert len(of_architecture) > 40
    assert [key for key in of_architecture if _is_no_computation(f"llama.{key}")] == ["tensor_data_layout"]
    assert {key.removeprefix("{arch}.") for key in _strings(gguf.Keys.Rope)} >= ROPE_KEYS - {"rope.scale_linear"}


def _strings(keys: type) -> list[str]:
    return [value for name, value in vars(keys).items() if name.isupper() and isinstance(value, str)]


def _is_no_computation(key: str) -> bool:
    return any(gguf_config.re.fullmatch(pattern, key) for pattern in gguf_config._NO_COMPUTATION)


def test_more_layers_than_the_file_holds_are_refused_before_they_are_built(tmp_path):
    model = hf.AutoModelForCausalLM.from_config(hf.LlamaConfig(**SIZES))
    with pytest.raises(ModelLoadError, match="llama.block_count = 1000000000 .there are tensors of 2 blocks"):
        unpacked(tmp_path, model, "llama", keys={"llama.block_count": 10**9})
