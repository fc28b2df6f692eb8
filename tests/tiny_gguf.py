"""Tiny models written as a GGUF with a byte-level vocabulary: small, and every weight known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from einops import rearrange

LAYERS, HEADS, KV_HEADS, VOCAB = 2, 4, 2, 300


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
    return drawn(config, seed)


def drawn(config: Any, seed: int = 0) -> torch.nn.Module:
    """A model of that config with weights away from their initial values, so that each of them shows in the logits."""
    import transformers as hf

    torch.manual_seed(seed)
    model = hf.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.2)
    return model


def write(
    path: Path,
    seed: int = 0,
    leave_out: str | None = None,
    architecture: str = "llama",
    keys: Mapping[str, Any] | None = None,
    tensors: Mapping[str, Sequence[float]] | None = None,
) -> torch.nn.Module:
    """The model that was written to `path`, in float32 tensors and without the one named `leave_out`.

    `keys` are more metadata under their whole names, or other values of what is written anyway (None leaves one
    out), and `tensors` are more tensors.
    """
    model = llama(seed)
    write_model(path, model, architecture, keys, tensors, leave_out)
    return model


def write_model(
    path: Path,
    model: torch.nn.Module,
    architecture: str,
    keys: Mapping[str, Any] | None = None,
    tensors: Mapping[str, Sequence[float]] | None = None,
    leave_out: str | None = None,
) -> None:
    """Writes a Hugging Face model (Llama, Qwen, Gemma, Phi-3, GPT-2, StarCoder2) as llama.cpp's converter would."""
    out = gguf.GGUFWriter(str(path), architecture)
    if architecture == "llama" and "llama.rope.freq_base" not in (keys or {}):
        out.add_rope_freq_base(10000.0)
    for key, value in (_metadata(model.config, architecture) | _tokenizer() | dict(keys or {})).items():
        if isinstance(value, bool):
            out.add_bool(key, value)
        elif isinstance(value, int):
            out.add_uint32(key, value)
        elif isinstance(value, float):
            out.add_float32(key, value)
        elif isinstance(value, str):
            out.add_string(key, value)
        elif value is not None:
            out.add_array(key, value)
    for name, weight in model.named_parameters():
        if (there := _gguf_name(name, architecture)) != leave_out:
            out.add_tensor(there, _as_stored(there, weight.detach(), model.config).contiguous().numpy())
    for name, values in (tensors or {}).items():
        out.add_tensor(name, np.array(values, dtype=np.float32))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def write_quantised(source: Path, path: Path, kind: str) -> None:
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


def _metadata(config: Any, architecture: str) -> dict[str, Any]:
    gemma_or_llama = hasattr(config, "rms_norm_eps")
    eps = config.rms_norm_eps if gemma_or_llama else getattr(config, "norm_epsilon", None) or config.layer_norm_epsilon
    said = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None),
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": getattr(config, "num_key_value_heads", None),
        f"attention.layer_norm_{'rms_' if gemma_or_llama else ''}epsilon": eps,
        "vocab_size": config.vocab_size,
    }
    if architecture == "llama":
        said |= {"rope.dimension_count": config.head_dim}
    return {"general.name": "tiny"} | {f"{architecture}.{key}": value for key, value in said.items()}


def _tokenizer() -> dict[str, Any]:
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    tokens = [*bytes_to_unicode().values(), "<|endoftext|>", "<|start|>", "th", "the", "Ġthe", "ĠĠ"]
    tokens += [f"<unused{i}>" for i in range(VOCAB - len(tokens))]
    said = {
        "model": "gpt2",
        "pre": "smollm",
        "tokens": tokens,
        "token_type": [1] * 256 + [3, 3] + [1] * (VOCAB - 258),
        "merges": ["t h", "th e", "Ġ the", "Ġ Ġ"],
        "bos_token_id": 257,
        "eos_token_id": 256,
        "padding_token_id": 256,
        "unknown_token_id": 256,
        "add_bos_token": False,
    }
    return {f"tokenizer.ggml.{key}": value for key, value in said.items()}


def _gguf_name(name: str, architecture: str) -> str:
    base, suffix = name.rsplit(".", 1)
    kinds = {called: kind for kind, called in gguf.MODEL_ARCH_NAMES.items()}
    kind = kinds.get(architecture, gguf.MODEL_ARCH.LLAMA)
    return f"{gguf.get_tensor_name_map(kind, LAYERS).get_name(base)}.{suffix}"


def _as_stored(name: str, weight: torch.Tensor, config: Any) -> torch.Tensor:
    """A weight as the converter changes it.

    A Llama interleaves the two rotary halves of each query and key head, a Gemma adds one to the gains of its norms,
    and GPT-2's matrices are the other way round.
    """
    if config.model_type == "llama" and (".attn_q." in name or ".attn_k." in name):
        heads = config.num_attention_heads if ".attn_q." in name else config.num_key_value_heads
        return rearrange(weight, "(head half d) ... -> (head d half) ...", head=heads, half=2)
    if config.model_type.startswith("gemma") and "norm.weight" in name:
        return weight + 1
    if config.model_type == "gpt2" and weight.ndim == 2 and name.startswith("blk."):
        return weight.T
    return weight
