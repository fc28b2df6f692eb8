"""The fingerprint that identifies a model in everything that is saved: of its architecture and every weight.

Every bit of every parameter is read. So a fine-tuned copy, a copy without one head or a copy in bfloat16 is another
model, while the same weights have the same fingerprint however they were loaded.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger(__name__)

# The entries of a Hugging Face config that change what the same weights compute. The others (cache and output
# switches, paths, versions, token ids) depend on how a model was loaded and are left out.
_ESSENTIALS = frozenset(
    """
    model_type hidden_size n_embd d_model num_hidden_layers n_layer num_layers num_attention_heads n_head
    num_heads num_key_value_heads multi_query head_dim kv_channels intermediate_size n_inner ffn_dim d_ff
    word_embed_proj_dim vocab_size max_position_embeddings n_positions hidden_act activation_function
    hidden_activation rms_norm_eps norm_eps layer_norm_eps layer_norm_epsilon norm_epsilon
    rope_parameters rope_theta rope_scaling partial_rotary_factor rotary_pct rotary_dim
    position_embedding_type alibi no_rope_layers sliding_window layer_types max_window_layers
    use_sliding_window attention_layers attention_types window_size attn_logit_softcapping
    final_logit_softcapping query_pre_attn_scalar attention_multiplier embedding_multiplier
    residual_multiplier logits_scaling logit_scale scale_attn_weights scale_attn_by_inverse_layer_idx
    reorder_and_upcast_attn use_parallel_residual parallel_attn do_layer_norm_before clip_qkv
    num_local_experts num_experts num_experts_per_tok norm_topk_prob tie_word_embeddings
    """.split()
)
_BRIDGED = "_original_component."  # TransformerLens wraps submodules in place, which adds this to their names


def fingerprint(hf_model: torch.nn.Module) -> str:
    """The 16 hex digits that identify a Hugging Face model: its architecture, dimensions, dtype and weights.

    Compute it before the model is bridged: TransformerLens splits the joint query-key-value weights of some
    architectures (GPT-2, GPT-NeoX), so that the tensors are others afterwards. Where it only wraps modules (Llama,
    Gemma, Phi, OPT) the fingerprint stays the same.
    """
    config = getattr(hf_model, "config", None)
    if hasattr(config, "get_text_config"):  # of a model for images and text, the text part
        config = config.get_text_config()
    entries = config.to_dict() if hasattr(config, "to_dict") else dict(getattr(config, "__dict__", {}))
    return fingerprint_of(entries | {"architectures": [type(hf_model).__name__]}, _tensors(hf_model))


def fingerprint_of(config: Mapping[str, Any], tensors: Iterable[tuple[str, Tensor]]) -> str:
    """The same fingerprint from a config's dictionary and the named weights, in any order.

    Args:
        config: a Hugging Face config as a dictionary; only the entries that change the computation are read.
        tensors: names and weights. With `tie_word_embeddings` an unembedding that equals the embedding counts once,
            whether it is listed or left out, shared or copied.

    Example:
        >>> weights = {"a": torch.zeros(2, 3), "b": torch.ones(4)}
        >>> first = fingerprint_of({"model_type": "toy"}, weights.items())
        >>> weights["b"][3] = 1.0000001
        >>> len(first), first == fingerprint_of({"model_type": "toy"}, weights.items())
        (16, False)
    """
    essentials = {key: value for key, value in config.items() if key in _ESSENTIALS and value is not None}
    architecture = (config.get("architectures") or [None])[0]
    whole = hashlib.sha256(json.dumps([architecture, essentials], sort_keys=True, default=str).encode())
    vocab, tied = config.get("vocab_size"), bool(config.get("tie_word_embeddings"))
    for entry in sorted(set(_entries(tensors, vocab, tied))):
        whole.update("\0".join(entry).encode() + b"\n")
    return whole.hexdigest()[:16]


def _entries(tensors: Iterable[tuple[str, Tensor]], vocab: Any, tied: bool) -> Iterator[tuple[str, str, str, str]]:
    """One (name, dtype, shape, digest) per tensor; tied embeddings share a name, so that equal ones merge."""
    for name, tensor in tensors:
        if tensor.shape == (vocab,) and not tensor.is_meta and not tensor.any():
            continue  # TransformerLens gives every unembedding a bias of zeros
        name = name.replace(_BRIDGED, "")
        if tied and tensor.ndim == 2 and tensor.shape[0] == vocab:
            name = "(tied embedding)"
        yield name, str(tensor.dtype), str(tuple(tensor.shape)), _digest(name, tensor)


def _digest(name: str, tensor: Tensor) -> str:
    if tensor.is_meta:
        log.warning("%s is offloaded, so its values are not part of the model's fingerprint.", name)
        return "offloaded"
    bits = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)  # numpy has no bfloat16
    return hashlib.sha256(bits.numpy()).hexdigest()


def _tensors(hf_model: torch.nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The parameters, and the buffers that belong to a checkpoint (some routers keep weights in buffers)."""
    saved = hf_model.state_dict(keep_vars=True).keys()
    yield from hf_model.named_parameters()
    yield from ((name, buffer) for name, buffer in hf_model.named_buffers() if name in saved)
