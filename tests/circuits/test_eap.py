"""Edge attribution patching: which gradients it takes, and along which path."""

from __future__ import annotations

import pytest
import torch

import tv_lens as tv
from circuit_cases import contrast, passes
from tv_lens.circuits.contrast_passes import make_passes
from tv_lens.circuits.eap import _groups_of_writers, pulled_back
from tv_lens.errors import InvalidArgument, NonFiniteMetric, UnknownName


def test_a_path_of_many_points_is_complete_and_one_end_of_it_is_not(tiny_model):
    """The scores out of the source integrate the gradient times the whole change: they add up to the gap."""
    made = passes(tiny_model("llama"), "vector at the last token")
    start = made.graph.edges[:, 1] == made.graph.source_writer
    gap = made.baselines[0] - made.baselines[1]
    along, at_the_end = (method.estimate(made, progress=False) for method in (tv.circuits.EAPIG(40), tv.circuits.EAP()))
    torch.testing.assert_close(along[:, start].sum(1), gap, atol=2e-2, rtol=2e-2)
    assert (at_the_end[:, start].sum(1) - gap).abs().max() > (along[:, start].sum(1) - gap).abs().max()


def test_every_writer_moves_with_one_group(tiny_model):
    made = passes(tiny_model("qwen2"), "vector inside the prompt")
    groups = _groups_of_writers(made)
    assert sorted(writer for group in groups for writer in group) == list(range(made.graph.n_writers))
    assert groups[0] == [0] and groups[1] == [1, 2, 3, 4] and groups[-1] == [made.graph.source_writer]


def test_gradients_are_pulled_back_as_autograd_does(tiny_model):
    """One query head of one layer, through norm and projection in one go."""
    made = passes(tiny_model("llama"), "pairs", n=2)
    stream = next(iter(made.chunks())).clean.pre[1]
    gradient = torch.randn(*stream.shape[:2], 4, 8, generator=torch.Generator().manual_seed(0))
    found = pulled_back(made.readers, 1, "q", stream, gradient)
    x = stream.clone().requires_grad_()
    weight = made.readers.weights(1, "q").weight.detach()
    with torch.enable_grad():
        head = torch.einsum("nsd,dk->nsk", made.readers.norm(1, x), weight[:, 2])
        (expected,) = torch.autograd.grad(head, x, gradient[:, :, 2])
    torch.testing.assert_close(found[:, :, 2], expected, atol=1e-5, rtol=1e-4)


def test_runs_paths_and_steps_that_do_not_exist():
    with pytest.raises(UnknownName, match="corrupted"):
        tv.circuits.EAP(gradient_at="corrupt")
    with pytest.raises(UnknownName, match="activations"):
        tv.circuits.EAPIG(where="activation")
    with pytest.raises(InvalidArgument) as caught:
        tv.circuits.EAPIG(steps=0)
    assert str(caught.value) == "A path needs at least one step.\n  got:     steps=0"


def test_a_gradient_that_overflows_is_an_error_and_no_missing_score(tiny_model):
    """NaN in a table of scores means that an edge was not measured."""

    @tv.metrics.metric(units="", sign="")
    def kink(logits, answers):  # finite, and its slope at zero is not
        return (logits[:, 0] - logits[:, 0]).sqrt()

    asked = tv.circuits.CircuitQuestion(metric=kink, pos="all")
    made = make_passes(tiny_model("llama"), contrast(pairs=True), asked)
    with pytest.raises(NonFiniteMetric, match="gradient"):
        tv.circuits.EAP(recheck=0).estimate(made, progress=False)
