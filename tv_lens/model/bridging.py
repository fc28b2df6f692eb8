"""From a Hugging Face module to a TransformerBridge and its sizes, or the reason why not."""

from __future__ import annotations

import copy
import re
import traceback
from typing import Any

import torch
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.sources import build_bridge_from_module
from transformers import PreTrainedTokenizerBase

from tv_lens.errors import ModelLoadError, SiteAbsent
from tv_lens.model.text_ids import special_ids
from tv_lens.site import ModelShape


def shape_of(bridge: TransformerBridge) -> ModelShape:
    """The sizes of a bridge that has raw weights and a stack of blocks.

    Raises:
        ModelLoadError: its weights are folded.
        SiteAbsent: it has no blocks.
    """
    if getattr(bridge, "compatibility_mode", False):
        raise ModelLoadError(
            "The TransformerBridge is in compatibility mode: its weights are folded and centred.",
            do="load the model anew without enable_compatibility_mode(); tv_lens works on raw weights.",
        )
    if not hasattr(bridge, "blocks"):
        raise SiteAbsent(
            "This architecture has no stack of blocks in TransformerLens.",
            got=type(bridge.original_model).__name__,
            do="use a decoder-only language model.",
        )
    cfg = bridge.cfg
    return ModelShape(
        n_layers=len(bridge.blocks),
        n_heads=cfg.n_heads,
        n_kv_heads=cfg.n_key_value_heads or cfg.n_heads,
        d_model=cfg.d_model,
        d_head=cfg.d_head,
        d_mlp=cfg.d_mlp or 0,
        d_vocab=cfg.d_vocab,
        n_ctx=cfg.n_ctx,
    )


def check_unbridged(model: torch.nn.Module) -> None:
    """Raises `ModelLoadError` where `bridge_of` cannot take a module: it has no config, or is bridged already."""
    if not hasattr(model, "config"):
        raise ModelLoadError(
            "This module is not a Hugging Face model.",
            got=type(model).__name__,
            allowed="a transformers model with its config, or a TransformerBridge",
        )
    if any(name.endswith("_original_component") for name, _ in model.named_modules()):
        # A second bridge would take the parts out of the first one, which then misses hooks.
        raise ModelLoadError(
            "This Hugging Face model is inside a TransformerBridge already.",
            got=type(model).__name__,
            do="use the HookedModel made of it, or load the Hugging Face model anew.",
        )


def bridge_of(model: torch.nn.Module, label: str) -> TransformerBridge:
    """The TransformerBridge of a Hugging Face model, which is consumed: its parts are put in place of the model's own.

    Raises:
        ModelLoadError: TransformerLens does not know the architecture.
    """
    architecture = type(model).__name__
    model.eval()
    model.config._attn_implementation = "eager"
    try:
        return build_bridge_from_module(model, architecture, hf_config=model.config, model_name=label)
    except Exception as error:
        raise ModelLoadError(
            "TransformerLens could not bridge this model.",
            got=f"{architecture}: {_in_words(error)}",
            do="see transformer_lens.supported_models for the architectures it knows.",
        ) from error


def _in_words(error: Exception) -> str:
    """What went wrong; of an error without a message, the line that raised it and what it found."""
    if str(error):
        return str(error)
    frames = list(traceback.walk_tb(error.__traceback__))
    line = traceback.extract_tb(error.__traceback__)[-1].line or type(error).__name__
    checked = re.fullmatch(r"assert isinstance\((\w+), ([\w.]+)\)", line)
    if frames and checked and checked[1] in (known := frames[-1][0].f_locals):
        found = known[checked[1]]
        is_what = "absent" if found is None else f"a {type(found).__name__}"
        return f"it needs a {checked[2].rpartition('.')[2].lower()} {checked[1]}, which is {is_what} here"
    return f"it does not hold that `{line.removeprefix('assert ')}`" if line.startswith("assert ") else line


def give_tokenizer(bridge: TransformerBridge, tokenizer: Any) -> None:
    """Sets the tokenizer of a bridge, so that it takes text, and reads a text as `model.run` does.

    TransformerLens would put BOS before every text by default; here it comes where the tokenizer itself puts it. A
    tokenizer without a pad token is copied, and the copy pads with EOS: TransformerLens pads every text.
    """
    if not isinstance(tokenizer, PreTrainedTokenizerBase) or tokenizer is bridge.tokenizer:
        return
    before, behind = special_ids(tokenizer)
    begins, ends = before[:1] == [tokenizer.bos_token_id], behind[-1:] == [tokenizer.eos_token_id]
    if tokenizer.pad_token_id is None:
        tokenizer = copy.deepcopy(tokenizer)
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.bos_token or tokenizer.convert_ids_to_tokens(0)
    bridge.tokenizer = None  # replacing one makes TransformerLens take the vocabulary's size from the new one
    bridge.tokenizer = tokenizer
    cfg = bridge.cfg
    cfg.tokenizer_prepends_bos = cfg.default_prepend_bos = begins
    cfg.tokenizer_appends_eos = ends
