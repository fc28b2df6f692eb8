"""A tiny Llama written as a GGUF with a byte-level vocabulary: small, and every weight known."""

from __future__ import annotations

from pathlib import Path

import torch
from einops import rearrange

LAYERS, HEADS, KV_HEADS, VOCAB = 2, 4, 2, 300
_PARTS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def llama(seed: int = 0) -> torch.nn.Module:
    """The Hugging Face model that `write` writes."""
    import transformers as hf

    torch.manual_seed(seed)
    config = hf.LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        rms_norm_eps=1e-6,
        bos_token_id=257,
        eos_token_id=256,
        pad_token_id=256,
    )
    model = hf.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.2)
    return model


def write(path: Path, seed: int = 0, leave_out: str | None = None, architecture: str = "llama") -> torch.nn.Module:
    """The model that was written to `path`, in float32 tensors and without the one named `leave_out`."""
    import gguf
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    tokens = [*bytes_to_unicode().values(), "<|endoftext|>", "<|start|>", "th", "the", "Ġthe", "ĠĠ"]
    tokens += [f"<unused{i}>" for i in range(VOCAB - len(tokens))]
    out = gguf.GGUFWriter(str(path), architecture)
    out.add_name("tiny")
    out.add_block_count(LAYERS)
    out.add_context_length(64)
    out.add_embedding_length(32)
    out.add_feed_forward_length(64)
    out.add_head_count(HEADS)
    out.add_head_count_kv(KV_HEADS)
    out.add_layer_norm_rms_eps(1e-6)
    out.add_rope_freq_base(10000.0)
    out.add_rope_dimension_count(8)
    out.add_vocab_size(VOCAB)
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("smollm")
    out.add_token_list(tokens)
    out.add_token_types([1] * 256 + [3, 3] + [1] * (VOCAB - 258))
    out.add_token_merges(["t h", "th e", "Ġ the", "Ġ Ġ"])
    out.add_bos_token_id(257)
    out.add_eos_token_id(256)
    out.add_pad_token_id(256)
    out.add_unk_token_id(256)
    out.add_add_bos_token(False)
    model = llama(seed)
    for name, weight in model.named_parameters():
        if (there := _gguf_name(name)) != leave_out:
            out.add_tensor(there, _as_stored(there, weight.detach()).contiguous().numpy())
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return model


def _gguf_name(name: str) -> str:
    if not name.startswith("model.layers."):
        return {"embed_tokens": "token_embd", "norm": "output_norm"}[name.split(".")[1]] + ".weight"
    layer, part = name.removeprefix("model.layers.").removesuffix(".weight").split(".", 1)
    return f"blk.{layer}.{_PARTS[part]}.weight"


def _as_stored(name: str, weight: torch.Tensor) -> torch.Tensor:
    """A GGUF of a Llama interleaves the two rotary halves of each query and key head."""
    heads = HEADS if "attn_q." in name else KV_HEADS if "attn_k." in name else None
    if heads is None:
        return weight
    return rearrange(weight, "(head half d) m -> (head d half) m", head=heads, half=2)
