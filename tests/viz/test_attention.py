"""Attention patterns drawn by circuitsvis."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tiny_figures import TOKENS, drawn
from tv_lens.errors import InvalidArgument, NonFiniteMetric, ShapeMismatch
from tv_lens.model.attention_patterns import AttentionPatterns, attention
from tv_lens.viz import plot


def test_attention_is_drawn_by_circuitsvis_with_its_tokens_as_they_are(patterns):
    figure = plot(patterns)
    assert figure.library == "circuitsvis" and figure.plotly is None
    content = drawn(figure)
    assert content["component"] == "AttentionHeads"
    assert content["props"]["tokens"] == ["<bos>", "</script>", "<b>", " go", "⏎", "<!--"]
    assert np.array(content["props"]["attention"]).shape == (2, 6, 6)


def test_attention_patterns_are_checked(patterns):
    with pytest.raises(ShapeMismatch, match="do not fit"):
        AttentionPatterns(TOKENS[:2], patterns.patterns, layer=0)
    with pytest.raises(NonFiniteMetric):
        AttentionPatterns(TOKENS, patterns.patterns * np.nan, layer=0)
    half = AttentionPatterns(["a"], torch.ones(2, 1, 1, dtype=torch.bfloat16, requires_grad=True), layer=0)
    assert plot(half).props["attention"] == [[[1.0]], [[1.0]]]
    assert repr(half) == "AttentionPatterns(layer=0, heads=2, tokens=1)"


@pytest.mark.slow
def test_attention_of_the_real_model(smollm2, tiny_model):
    patterns = attention(smollm2, "Q: go\nA: went", layer=5)
    assert patterns.tokens[0] == "Q" and "\n" in patterns.tokens
    np.testing.assert_allclose(patterns.patterns.sum(-1), 1.0, atol=1e-4)
    with pytest.raises(InvalidArgument, match="a model with a tokenizer"):
        attention(tiny_model("llama"), "x", layer=0)
