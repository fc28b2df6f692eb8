"""Mean activations: the mean of a capture, whatever the batches, and continued in a folder."""

from __future__ import annotations

import pytest
import torch

import tiny_characters
from tv_lens.site import Site
from tv_lens.task_vectors import mean_activations
from tv_lens.task_vectors.mean_activations import mean_at

SITES = [Site("resid_post", layer, pos=-1) for layer in (0, 2)]


@pytest.fixture(scope="module")
def model():
    return tiny_characters.model("llama")


@pytest.fixture(scope="module")
def tokens(model):
    return tiny_characters.pairings(1)[0].prompts(2, 7).tokenize(model).tokens


def test_the_mean_is_that_of_a_capture(model, tokens):
    means = mean_at(model, tokens, SITES, who="means", progress=False)
    values = model.capture(tokens, SITES)
    assert means.shape == (2, model.shape.d_model) and means.dtype == torch.float32
    for mean, site in zip(means, SITES):
        torch.testing.assert_close(mean, values[site].double().mean(0).float(), atol=1e-6, rtol=1e-5)


def test_heads_keep_their_axis(model, tokens):
    means = mean_at(model, tokens, [Site("z", 1, pos=-1)], who="means", progress=False)
    assert means.shape == (1, model.shape.n_heads, model.shape.d_head)


def test_small_batches_are_summed_and_kept_in_the_folder(model, tokens, tmp_path, monkeypatch):
    whole = mean_at(model, tokens, SITES, who="means", progress=False)
    monkeypatch.setattr(mean_activations, "TOKENS_A_BATCH", 2 * tokens.width)
    split = mean_at(model, tokens, SITES, who="means", progress=False, folder=tmp_path / "means")
    torch.testing.assert_close(split, whole, atol=1e-6, rtol=1e-5)
    monkeypatch.setattr(model, "capture", None)  # nothing is left to run
    assert torch.equal(split, mean_at(model, tokens, SITES, who="means", progress=False, folder=tmp_path / "means"))
