"""The Bayesian predictive distribution of the next answer, and what a point prediction loses against it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tv_lens.errors import ShapeMismatch
from tv_lens.lab.families import Episodes
from tv_lens.lab.reference_predictors import Posterior

_NODES = 256  # of the quadrature: close enough to resolve a component of variance 0.01 inside one of variance 4
_CHUNK = 2**23  # numbers in the largest tensor


@dataclass(frozen=True, eq=False)
class Predictive:
    """A mixture of Gaussians for every y_i, given the examples before it and x_i.

    Args:
        weights: the posterior over latent tasks.
        means: the mean of y_i under each task.
        variances: the variance of y_i under each task, its noise included.

    Example:
        >>> from tv_lens.lab.families import SparseMixture
        >>> from tv_lens.lab.reference_predictors import BayesMixture
        >>> family = SparseMixture.disjoint(2, rank=1, points=5)
        >>> predictive = Predictive.of(BayesMixture(family), family.sample(3))
        >>> predictive.mean.shape, float(predictive.extra_nats(predictive.mean).max())
        (torch.Size([3, 5]), 0.0)
    """

    weights: Float[Tensor, "n K task"]
    means: Float[Tensor, "n K task"]
    variances: Float[Tensor, "n K task"]

    @classmethod
    def of(cls, reference: Posterior, episodes: Episodes) -> Predictive:
        """The predictive distribution of every answer of these episodes, by a reference with a posterior over tasks."""
        return cls(*reference.components(episodes.x, episodes.y))

    @property
    def mean(self) -> Float[Tensor, "n K"]:
        """The best point prediction under squared error."""
        return (self.weights * self.means).sum(-1)

    @property
    def variance(self) -> Float[Tensor, "n K"]:
        return (self.weights * (self.variances + (self.means - self.mean[..., None]) ** 2)).sum(-1)

    def extra_nats(self, prediction: Float[Tensor, "n K"]) -> Float[Tensor, "n K"]:
        """What a wrong mean adds to the KL divergence from this distribution to a Gaussian, in nats.

        It is (prediction - mean)^2 / (2 variance).

        A point prediction has no spread, so it is given the right one: KL(p || N(prediction, v)) with v the variance of
        p. Since the expectation under p of (y - prediction)^2 is v + (mean - prediction)^2, this is exactly the sum of
        KL(p || N(mean, v)), which `gaussian_gap` returns and no point prediction can avoid, and the term returned here.

        Sign:
            Zero: the prediction is the Bayesian mean. It is never negative.
        """
        if prediction.shape != self.mean.shape:
            raise ShapeMismatch(
                "Every answer has one prediction.", got=list(prediction.shape), allowed=list(self.mean.shape)
            )
        return (prediction - self.mean) ** 2 / (2 * self.variance)

    def gaussian_gap(self) -> Float[Tensor, "n K"]:
        """KL(p || N(mean, variance)) in nats: what the best Gaussian misses of the mixture.

        Each component is represented by equally likely places, so that a narrow one within a wide one is not missed.
        """
        share = (torch.arange(_NODES, dtype=torch.float64, device="cpu") + 0.5) / _NODES
        places = torch.special.ndtri(share)
        places = places / places.square().mean().sqrt()  # so that quadratic functions are integrated exactly
        size = max(1, _CHUNK // (_NODES * self.weights.shape[1] * self.weights.shape[2]))
        parts = zip(*(one.split(size) for one in (self.weights, self.means, self.variances)))
        return torch.cat([_gap(*part, places) for part in parts])


def _gap(weights: Tensor, means: Tensor, variances: Tensor, places: Tensor) -> Float[Tensor, "n K"]:
    whole = Predictive(weights, means, variances)
    mean, variance, logs = whole.mean[..., None], whole.variance[..., None], weights.log()[..., None, :]
    gap = torch.zeros_like(whole.mean)
    for task in range(weights.shape[-1]):
        y = means[..., task, None] + variances[..., task, None].sqrt() * places  # n K node
        each = logs + _log_normal(y[..., None], means[..., None, :], variances[..., None, :])
        outside = _log_normal(y, mean, variance)
        gap += weights[..., task] * (torch.logsumexp(each, -1) - outside).mean(-1)
    return gap.clamp(min=0)


def _log_normal(y: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    return -0.5 * ((y - mean) ** 2 / variance + variance.log() + math.log(2 * math.pi))
