"""The predictive distribution: mixtures of Gaussians by hand, and divergences by sampling."""

from __future__ import annotations

import pytest
import torch

import tv_lens as tv
from tv_lens.lab import SparseMixture
from tv_lens.lab.predictive import Predictive


def test_extra_nats_are_those_of_the_bayes_predictive():
    """KL(p || N(prediction, v)) by sampling is the gap and the extra together."""
    family = SparseMixture.disjoint(3, rank=1, points=4)
    predictive = Predictive.of(tv.lab.BayesMixture(family), family.sample(3, seed=4))
    wrong = predictive.mean + 0.7
    whole = predictive.gaussian_gap() + predictive.extra_nats(wrong)
    random = torch.Generator().manual_seed(0)
    weights, means, spreads = predictive.weights, predictive.means, predictive.variances.sqrt()
    picked = torch.multinomial(weights.flatten(0, 1), 200_000, replacement=True, generator=random)
    weights, means, spreads = (one.flatten(0, 1) for one in (weights, means, spreads))
    noise = torch.randn(picked.shape, generator=random, dtype=torch.float64)
    y = means.gather(1, picked) + spreads.gather(1, picked) * noise
    parts = torch.distributions.Normal(means[:, None], spreads[:, None]).log_prob(y[..., None])
    inside = torch.logsumexp(parts + weights[:, None].log(), -1)
    told = torch.distributions.Normal(wrong.flatten()[:, None], predictive.variance.flatten().sqrt()[:, None])
    outside = told.log_prob(y)
    torch.testing.assert_close(whole.flatten(), (inside - outside).mean(1), atol=0.02, rtol=0.02)
    assert float(predictive.extra_nats(predictive.mean).max()) == 0


def test_mean_and_variance_of_a_mixture_by_hand():
    parts = (torch.tensor([[[0.25, 0.75]]]), torch.tensor([[[4.0, 0.0]]]), torch.tensor([[[1.0, 2.0]]]))
    predictive = Predictive(*(part.double() for part in parts))
    assert predictive.mean.item() == 1.0
    assert predictive.variance.item() == pytest.approx(0.25 * (1 + 9) + 0.75 * (2 + 1))
    assert predictive.extra_nats(torch.tensor([[3.0]]).double()).item() == pytest.approx(4 / (2 * 4.75))


def test_one_gaussian_has_no_gap():
    one = torch.ones(2, 3, 1, dtype=torch.float64)
    assert float(Predictive(one, 5 * one, 0.3 * one).gaussian_gap().max()) == pytest.approx(0, abs=1e-9)
