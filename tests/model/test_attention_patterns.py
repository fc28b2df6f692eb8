"""Attention patterns of a layer: those that the model captures, with tokens that fit them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tv_lens.errors import InvalidArgument, NonFiniteMetric, ShapeMismatch
from tv_lens.model.attention_patterns import AttentionPatterns, attention


def test_they_are_the_captured_patterns_with_their_tokens(speaking):
    shown = attention(speaking, "w5 w6 w7", 1)
    assert (list(shown.tokens), shown.layer, shown.name) == (["w5", "w6", "w7"], 1, "speaking")
    np.testing.assert_array_equal(shown.patterns, speaking.capture("w5 w6 w7", "pattern[1]")["pattern[1]"][0])
    np.testing.assert_allclose(shown.patterns.sum(-1), 1, atol=1e-6)
    assert repr(shown) == "AttentionPatterns(layer=1, heads=4, tokens=3)"


def test_a_tensor_is_kept_as_a_float32_array():
    shown = AttentionPatterns(["a"], torch.ones(2, 1, 1, dtype=torch.bfloat16), 0)
    assert isinstance(shown.patterns, np.ndarray) and shown.patterns.dtype == np.float32


def test_patterns_that_do_not_fit_the_tokens_are_refused():
    with pytest.raises(ShapeMismatch) as caught:
        AttentionPatterns(["a", "b"], np.ones((4, 3, 3), np.float32), 0)
    assert str(caught.value) == (
        "Attention patterns and tokens do not fit.\n  got:     [4, 3, 3]\n  allowed: [head, 2, 2]"
    )
    with pytest.raises(NonFiniteMetric, match="layer 5"):
        AttentionPatterns(["a"], np.full((1, 1, 1), np.nan, np.float32), 5)


def test_one_prompt_of_a_model_with_a_tokenizer_is_shown(speaking, llama):
    with pytest.raises(InvalidArgument, match="by a model with a tokenizer") as caught:
        attention(llama, "w5", 0)
    assert caught.value.got == "llama"
    assert attention(speaking, "w5 w6", 0).patterns.shape == (4, 2, 2)


def test_saved_patterns_come_back(tmp_path):
    made = AttentionPatterns([" a", "é"], np.float32([[[1, 0], [0.25, 0.75]]]), 3, "name")
    again = AttentionPatterns.load(made.save(tmp_path / "patterns"))
    assert (list(again.tokens), again.layer, again.name) == ([" a", "é"], 3, "name")
    np.testing.assert_array_equal(again.patterns, made.patterns)
