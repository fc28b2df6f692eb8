"""Tiny random models of every architecture family that the tests run on, built in code: no download, no file.

Each has three layers (two would hide an off-by-one between "this layer" and "the next"), four heads, and weights
scaled up from the usual initialisation so that an edit anywhere moves the logits well above rounding.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import transformers as hf

VOCAB, D_MODEL, D_MLP, LAYERS, HEADS, KV_HEADS, CONTEXT = 96, 32, 64, 3, 4, 2, 64
_BLOCK = dict(
    vocab_size=VOCAB,
    hidden_size=D_MODEL,
    intermediate_size=D_MLP,
    num_hidden_layers=LAYERS,
    num_attention_heads=HEADS,
    max_position_embeddings=CONTEXT,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)
_GROUPED = dict(_BLOCK, num_key_value_heads=KV_HEADS)

FAMILIES: dict[str, Callable[[], hf.PretrainedConfig]] = {
    "gpt2": lambda: hf.GPT2Config(
        vocab_size=VOCAB,
        n_embd=D_MODEL,
        n_layer=LAYERS,
        n_head=HEADS,
        n_positions=CONTEXT,
        bos_token_id=1,
        eos_token_id=2,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    ),
    "gpt_neox": lambda: hf.GPTNeoXConfig(**_BLOCK),
    "gptj": lambda: hf.GPTJConfig(
        vocab_size=VOCAB,
        n_embd=D_MODEL,
        n_layer=LAYERS,
        n_head=HEADS,
        n_positions=CONTEXT,
        rotary_dim=4,
        bos_token_id=1,
        eos_token_id=2,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    ),
    "opt": lambda: hf.OPTConfig(
        vocab_size=VOCAB,
        hidden_size=D_MODEL,
        ffn_dim=D_MLP,
        num_hidden_layers=LAYERS,
        word_embed_proj_dim=D_MODEL,
        num_attention_heads=HEADS,
        max_position_embeddings=CONTEXT,
        dropout=0.0,
        attention_dropout=0.0,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    ),
    "llama": lambda: hf.LlamaConfig(**_GROUPED),
    "mistral": lambda: hf.MistralConfig(**_GROUPED, sliding_window=6),
    "qwen2": lambda: hf.Qwen2Config(**_GROUPED),
    "qwen3": lambda: hf.Qwen3Config(**_GROUPED, head_dim=8),
    "gemma2": lambda: hf.Gemma2Config(**_GROUPED, head_dim=8, sliding_window=6, query_pre_attn_scalar=8),
    "gemma3": lambda: hf.Gemma3TextConfig(
        **_GROUPED,
        head_dim=8,
        sliding_window=6,
        query_pre_attn_scalar=8,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    ),
    "phi": lambda: hf.PhiConfig(**_BLOCK),
    "olmo2": lambda: hf.Olmo2Config(**_GROUPED),
}

# Its attention cuts a window out of a buffer of its own, whatever mask it is given: rows cannot stand side by side.
WHOLE_PASSES_ONLY: dict[str, Callable[[], hf.PretrainedConfig]] = {
    "gpt_neo": lambda: hf.GPTNeoConfig(
        vocab_size=VOCAB,
        hidden_size=D_MODEL,
        intermediate_size=D_MLP,
        num_layers=LAYERS,
        num_heads=HEADS,
        max_position_embeddings=CONTEXT,
        attention_types=[[["global", "local"], 1], [["global"], 1]],
        window_size=6,
        resid_dropout=0.0,
        embed_dropout=0.0,
        attention_dropout=0.0,
        bos_token_id=1,
        eos_token_id=2,
    )
}

# Rotary tables that depend on the length of the prompt: with another one beyond SWITCH tokens.
SWITCH = 16
_LONG = dict(
    rope_type="longrope",
    rope_theta=10000.0,
    short_factor=[1.0] * (D_MODEL // HEADS // 2),
    long_factor=[4.0, 5.0, 6.0, 7.0],
    original_max_position_embeddings=SWITCH,
)
LENGTH_DEPENDENT: dict[str, Callable[[], hf.PretrainedConfig]] = {
    "longrope_phi3": lambda: hf.Phi3Config(
        **_GROUPED, original_max_position_embeddings=SWITCH, rope_parameters=dict(_LONG)
    ),
    "longrope_llama": lambda: hf.LlamaConfig(**_GROUPED, rope_parameters=dict(_LONG)),
    # One table for each length beyond the context, so that its prompts go past tv_lens's own limit.
    "dynamic_llama": lambda: hf.LlamaConfig(
        **{**_GROUPED, "max_position_embeddings": SWITCH},
        rope_parameters=dict(rope_type="dynamic", rope_theta=10000.0, factor=4.0),
    ),
}


def hugging_face_model(family: str, seed: int = 0, vocab_size: int = VOCAB) -> hf.PreTrainedModel:
    """A random model of the family in evaluation mode, its weights drawn from the seed."""
    torch.manual_seed(seed)
    config = {**FAMILIES, **WHOLE_PASSES_ONLY, **LENGTH_DEPENDENT}[family]()
    config.vocab_size = vocab_size
    config._attn_implementation = "eager"
    model = hf.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim >= 2:
                weight.copy_(torch.randn(weight.shape, generator=generator) * (0.8 / weight.shape[-1] ** 0.5))
            elif name.endswith("bias"):
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1)
            else:  # norm gains away from one, so that a gain left out shows
                weight.add_(torch.randn(weight.shape, generator=generator) * 0.2)
    return model
