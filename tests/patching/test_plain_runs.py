"""The runs without a patch: which is patched, and the metric of both, as plain passes give them."""

from __future__ import annotations

import pytest
import torch

import tiny_characters
import tv_lens as tv
from tv_lens.errors import NonFiniteMetric
from tv_lens.patching.plain_runs import PlainRuns, base_and_source, last_logits


@pytest.fixture(scope="module")
def model():
    return tiny_characters.model("llama")


@pytest.fixture(scope="module")
def tokens(model):
    return tiny_characters.pairings(1)[0].pairs(2, 3, corrupt="shuffle_labels", seed=0).tokenize(model)


def test_denoising_patches_the_corrupted_prompts_and_noising_the_clean_ones(model, tokens):
    base, source = base_and_source(model, tokens, "denoising")
    assert base.rows() == tokens.corrupted.tokens.rows() and source.rows() == tokens.clean.tokens.rows()
    swapped = base_and_source(model, tokens, "noising")
    assert swapped[0].rows() == source.rows() and swapped[1].rows() == base.rows()


def test_the_metric_of_each_run_is_that_of_a_plain_pass(model, tokens):
    plain = PlainRuns.of(model, tokens, tv.logit_diff, None, "test")
    for values, side in ((plain.clean, tokens.clean), (plain.corrupted, tokens.corrupted)):
        expected = tv.logit_diff(model.run(side.tokens), tokens.answers)
        torch.testing.assert_close(values, expected, atol=1e-5, rtol=0)
    assert torch.equal(plain.answers.reference, last_logits(model, tokens.clean.tokens))
    assert PlainRuns.of(model, tokens, tv.kl, None, "test").clean.abs().max() < 1e-6  # the clean run is the reference


def test_last_logits_are_the_models_own_whatever_the_padding(model):
    batch = tv.TokenBatch.from_lists([[5, 6, 7, 8], [9, 10]])
    torch.testing.assert_close(last_logits(model, batch), model.run(batch), atol=1e-5, rtol=0)
    tight = last_logits(model, batch, budget=100_000)
    torch.testing.assert_close(tight, model.run(batch), atol=1e-5, rtol=0)


def test_a_metric_that_fails_names_the_run(model, tokens):
    def fails(logits, answers):
        return logits[:, 0] * torch.nan

    with pytest.raises(NonFiniteMetric, match="the clean run"):
        PlainRuns.of(model, tokens, fails, None, "test")
