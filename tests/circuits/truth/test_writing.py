"""Weights written by hand: subspaces that do not mix, vectors that balance, lookups that look up."""

from __future__ import annotations

import math

import pytest
import torch

from tv_lens.circuits.truth import writing


def test_a_stream_is_cut_into_its_subspaces():
    stream = writing.Stream(12, dict(token=3, out=4), balanced=True)
    assert (stream["token"], stream["out"], stream["junk"]) == (slice(0, 3), slice(3, 7), slice(7, 10))
    assert stream.constant == 10 and stream.at("out", 2) == 5
    assert writing.Stream(12, dict(token=3), balanced=False).constant == 11


def test_balanced_vectors_have_a_sum_of_zero_and_a_norm_that_leaves_them_alone():
    stream = writing.Stream(12, dict(token=3), balanced=True)
    table = stream.embedding({1: {stream.at("token", 1): 1.0}}, 2)
    assert table.sum(-1).tolist() == [0, 0] and table[1, 1] == 1
    weight = torch.full((12,), stream.gain)
    normed = torch.nn.functional.layer_norm(table, (12,), weight)
    assert float(normed[1, 1]) == pytest.approx(1, abs=1 / writing.CONSTANT)
    plain = writing.Stream(12, dict(token=3), balanced=False)
    rows = plain.embedding({0: {2: -3.0}}, 1)
    assert rows[0].tolist() == [0, 0, -3] + [0] * 8 + [writing.CONSTANT]
    normed = plain.gain * rows / rows.square().mean(-1, keepdim=True).sqrt()
    assert float(normed[0, 2]) == pytest.approx(-3, abs=1e-3)


def test_readers_and_writers_touch_what_they_name():
    stream = writing.Stream(8, dict(token=2), balanced=False)
    assert stream.reader(2, {(1, 0): 5.0}).nonzero().tolist() == [[1, 0]]
    assert stream.writer(2, {(1, 0): 5.0}).nonzero().tolist() == [[1, 0]]
    generator = torch.Generator().manual_seed(0)
    assert stream.random(3, generator)[stream.constant :].abs().sum() == 0
    assert (
        stream.junk(3, generator)[:, :2].abs().sum() == 0 == stream.junk(3, generator)[:, stream.constant].abs().sum()
    )
    assert stream.bias(600.0) == 600.0 / writing.CONSTANT and math.isfinite(stream.gain)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_lookup_writes_where_its_key_is_one(kind):
    stream = writing.Stream(32, dict(key=2, value=2), balanced=kind == "gpt2")
    table = {stream.at("key", 0): stream.at("value", 1), stream.at("key", 1): stream.at("value", 0)}
    if kind == "gpt2":
        model = writing.gpt2(stream, 5, 4, 1, 2, 8, seed=0)
        writing.gpt2_lookup(model, 0, stream, table)
        block = model.transformer.h[0]
        norm, mlp = block.ln_2, block.mlp
    else:
        model = writing.llama(stream, 5, 4, 1, 2, 1, 16, 8, 1e4, seed=0)
        writing.llama_lookup(model, 0, stream, table)
        block = model.model.layers[0]
        norm, mlp = block.post_attention_layernorm, block.mlp
    inputs = stream.embedding({0: {stream.at("key", 0): 1.0}, 1: {stream.at("key", 1): 1.0}}, 3)
    with torch.no_grad():
        out = mlp(norm(inputs))[:, stream["value"]]
    torch.testing.assert_close(out, torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]]), atol=1e-2, rtol=0)


def test_words_are_tokens():
    tokenizer = writing.tokenizer(("<s>", "one", "two"))
    assert tokenizer("two one")["input_ids"] == [2, 1] and tokenizer.bos_token == "<s>"
