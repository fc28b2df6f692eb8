"""The gradient at each reader's input: the MLP's branch alone, and points between the two runs."""

from __future__ import annotations

import pytest
import torch

import tv_lens as tv
from circuit_cases import passes
from tv_lens.circuits.edge_gradients import Gradients, PointOnPath
from tv_lens.model.readers import readers_of
from tv_lens.site import Site


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "olmo2", "opt"])
def test_the_branch_into_an_mlp_has_the_gradient_that_the_mlp_pulls_back(tiny_model, family):
    """Against autograd through the MLP's own modules; past the MLP the stream has another gradient."""
    model, made = tiny_model(family), passes(tiny_model(family), "pairs", n=2)
    batch = made.tokens("clean", [0, 1])
    score = lambda logits: tv.metrics.logit_diff(logits, made.answers.select([0, 1]))  # noqa: E731
    middle, out = Site("resid_mid", 1), Site("mlp_out", 1)
    _, (branch), attachment = model.gradients(batch, [out], score, (), [middle], branches=[middle])
    with torch.enable_grad():
        x = attachment.values[middle].clone().requires_grad_()
        (expected,) = torch.autograd.grad(readers_of(model).mlp(1, x), x, branch[out])
    torch.testing.assert_close(branch[middle], expected, atol=1e-6, rtol=1e-4)
    _, whole, _ = model.gradients(batch, [middle], score)
    assert (whole[middle] - branch[middle]).abs().max() > 1e-3


def test_points_in_one_pass_are_points_in_several(tiny_model):
    made, alphas = passes(tiny_model("llama"), "pairs", n=2), (0.25, 0.75)
    (chunk,) = made.chunks()
    point = PointOnPath(made, chunk, alphas)
    both = Gradients(made, point, range(2), alphas)
    each = [Gradients(made, point, range(2), (alpha,)) for alpha in alphas]
    assert both.parts[-1] == (made.graph.shape.n_layers, "end")
    for layer, part in both.parts:
        summed = sum(one.at_readers(layer, part) for one in each)
        torch.testing.assert_close(both.at_readers(layer, part), summed, atol=1e-5, rtol=1e-4)
