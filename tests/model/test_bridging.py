"""What becomes a bridge, and what is refused: folded weights, a model that is bridged already, other modules."""

from __future__ import annotations

import pytest
import torch
import transformers as hf
from transformer_lens.model_bridge.sources import build_bridge_from_module

import tiny
import tv_lens as tv
from hooked_cases import TOKENS
from tv_lens.errors import ModelLoadError
from tv_lens.intervention import Zero


def test_a_bridge_in_compatibility_mode_is_refused():
    original = tiny.hugging_face_model("llama")
    bridge = build_bridge_from_module(original, "LlamaForCausalLM", hf_config=original.config)
    bridge.enable_compatibility_mode()
    with pytest.raises(ModelLoadError) as caught:
        tv.load(bridge)
    assert str(caught.value) == (
        "The TransformerBridge is in compatibility mode: its weights are folded and centred.\n"
        "  do:      load the model anew without enable_compatibility_mode(); tv_lens works on raw weights."
    )


def test_a_hugging_face_model_loaded_twice_is_refused_and_the_first_stays_whole():
    original = tiny.hugging_face_model("llama")
    first = tv.load(original)
    edited = first.run(TOKENS, Zero("attn_out[1]"))
    with pytest.raises(ModelLoadError) as caught:
        tv.load(original)
    assert str(caught.value) == (
        "This Hugging Face model is inside a TransformerBridge already.\n"
        "  got:     LlamaForCausalLM\n"
        "  do:      use the HookedModel made of it, or load the Hugging Face model anew."
    )
    assert torch.equal(first.run(TOKENS, Zero("attn_out[1]")), edited)


def test_what_is_no_language_model_is_refused():
    with pytest.raises(ModelLoadError, match="This module is not a Hugging Face model"):
        tv.load(torch.nn.Linear(3, 3))
    config = hf.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    with pytest.raises(tv.TVLensError):
        tv.load(hf.BertForSequenceClassification(config))
