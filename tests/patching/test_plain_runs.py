"""The runs without a patch: which is patched, and the metric of both, as plain passes give them; no pass runs twice."""

from __future__ import annotations

import pytest
import torch

import tiny_characters
import tv_lens as tv
from tv_lens.errors import NonFiniteMetric
from tv_lens.model.hooked_bridge import HookedBridge
from tv_lens.patching.plain_runs import Contrast, last_logits


@pytest.fixture(scope="module")
def model():
    return tiny_characters.model("llama")


@pytest.fixture(scope="module")
def tokens(model):
    return tiny_characters.pairings(1)[0].pairs(2, 3, corrupt="shuffle_labels", seed=0).tokenize(model)


def contrast(model, tokens, metric=tv.metrics.logit_diff, direction="denoising", engine="auto"):
    return Contrast.of(model, tokens, metric, direction, engine, None)


def test_denoising_patches_the_corrupted_prompts_and_noising_the_clean_ones(model, tokens):
    clean, corrupted = tokens.clean.tokens.rows(), tokens.corrupted.tokens.rows()
    one, other = contrast(model, tokens), contrast(model, tokens, direction="noising")
    assert (one.base.rows(), one.source.rows()) == (corrupted, clean)
    assert (other.base.rows(), other.source.rows()) == (clean, corrupted)


@pytest.mark.parametrize("direction", ["denoising", "noising"])
def test_a_source_run_gives_activations_and_metric_of_one_plain_pass(model, tokens, direction):
    clean, corrupted = (model.run(side.tokens) for side in (tokens.clean, tokens.corrupted))
    source, logits = (tokens.clean, clean) if direction == "denoising" else (tokens.corrupted, corrupted)
    examples, sites = [2, 0], [tv.Site("resid_post", 1)]
    capture, answers, values = contrast(model, tokens, direction=direction).source_run(examples, sites)
    assert torch.equal(capture[sites[0]], model.capture(source.tokens.select(examples), sites)[sites[0]])
    expected = tv.metrics.logit_diff(logits[examples], tokens.answers.select(examples))
    torch.testing.assert_close(values, expected, atol=1e-5, rtol=0)
    assert answers.reference is None  # logit_diff compares with no other run
    _, answers, values = contrast(model, tokens, tv.metrics.kl, direction).source_run(examples, [])
    torch.testing.assert_close(answers.reference, clean[examples], atol=1e-5, rtol=0)
    torch.testing.assert_close(values, tv.metrics.kl(logits[examples], answers), atol=1e-5, rtol=0)


def whole_passes(width, monkeypatch, work) -> int:
    """How many passes over prompts of this width some work runs once the model is known."""
    work()
    counted, own = [], HookedBridge._pass

    def counting(self, batch, arguments):
        counted.append(batch.width)
        return own(self, batch, arguments)

    monkeypatch.setattr(HookedBridge, "_pass", counting)
    work()
    monkeypatch.undo()
    return counted.count(width)


def test_no_pass_runs_twice(model, monkeypatch):
    """The source run is the pass that is captured, and the base run the one that rows inherit from."""
    pairs = tiny_characters.pairings(1)[0].pairs(4, 1, corrupt="shuffle_labels", seed=0)
    last = dict(sites=tv.sites("z", pos=-1), over=("layer", "head"), progress=False)

    width = pairs.tokenize(model).clean.tokens.width

    def count(verb, **arguments):
        return whole_passes(width, monkeypatch, lambda: verb(model, pairs, **arguments))

    assert count(tv.patch, **last) == 2
    assert count(tv.patch, **last, metric=tv.metrics.log_prob, direction="noising") == 2
    assert count(tv.patch, **last, metric=tv.metrics.kl) == 2
    assert (
        count(tv.patch, **last, metric=tv.metrics.kl, direction="noising") == 3
    )  # the clean run is compared with every row
    assert count(tv.node_effects, progress=False) == 2
    assert count(tv.path_effects, progress=False) == 3  # the base run is captured, too


def test_last_logits_are_the_models_own_whatever_the_padding(model):
    batch = tv.tasks.TokenBatch.from_lists([[5, 6, 7, 8], [9, 10]])
    torch.testing.assert_close(last_logits(model, batch), model.run(batch), atol=1e-5, rtol=0)
    tight = last_logits(model, batch, budget=100_000)
    torch.testing.assert_close(tight, model.run(batch), atol=1e-5, rtol=0)


def test_a_metric_that_fails_names_the_run(model, tokens):
    def fails(logits, answers):
        return logits[:, 0] * torch.nan

    for direction, name in (("denoising", "clean"), ("noising", "corrupted")):
        with pytest.raises(NonFiniteMetric, match=f"the {name} run"):
            contrast(model, tokens, fails, direction).source_run([0], [])
