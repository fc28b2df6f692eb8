"""A linear read-out of the posterior over latent tasks from a representation: multinomial logistic regression."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from tv_lens.errors import InvalidArgument, ShapeMismatch
from tv_lens.model.grad_mode import GradMode
from tv_lens.storage import envelope

KIND = envelope.Kind("posterior_probe", "PosteriorProbe.save(path)")
_AXES = {"centre": ["d"], "whitening": ["d", "direction"], "weights": ["direction", "task"], "bias": ["task"]}
_ITERATIONS = 100
_FLAT = 1e-8  # a direction with less than this share of the largest variance is rounding error


@dataclass(frozen=True, eq=False)
class PosteriorProbe:
    """log p(task | episode) as a linear function of a representation, up to a constant.

    The log of a posterior is additive in the evidence of each example, so a linear map into its logits is the natural
    read-out: a network may need no more than one matrix and a softmax to use it.

    Args:
        centre: the mean of the points that it was fitted on.
        whitening: from centred points to coordinates that are uncorrelated and of variance 1 over them.
        weights: one column per task, on those coordinates.
        bias: one number per task.

    Source:
        Alain & Bengio 2016 (arXiv 1610.01644) for linear probes. Fitted to the posterior itself and not to the drawn
        task: with soft targets, it is not fitted to more certainty than the episodes support. Whitened, so that a probe
        cannot gain or lose by an invertible linear map of the representation; the penalty is on the logits' variance.
    """

    centre: Float[Tensor, " d"]
    whitening: Float[Tensor, "d direction"]
    weights: Float[Tensor, "direction task"]
    bias: Float[Tensor, " task"]

    @classmethod
    def fit(
        cls, points: Float[Tensor, "n d"], targets: Float[Tensor, "n task"], penalty: float = 10.0
    ) -> PosteriorProbe:
        """The probe with the smallest summed cross-entropy plus penalty/2 times the weights' squares.

        Args:
            points: representations.
            targets: the probability of each task at each point; rows sum to 1. Drawn tasks are rows with a single 1.
            penalty: as 1/C of scikit-learn's LogisticRegression on whitened points.
        """
        if len(points) != len(targets):
            raise ShapeMismatch("Every point has its own targets.", got=f"{len(points)} points, {len(targets)} targets")
        if not penalty > 0:
            raise InvalidArgument(
                "The penalty is positive.",
                got=f"penalty={penalty}",
                do="separable points have no best probe without one.",
            )
        points, targets = points.double(), targets.double()
        centre = points.mean(0)
        variance, directions = torch.linalg.eigh((points - centre).mT @ (points - centre) / len(points))
        varies = variance > _FLAT * variance.max().clamp(min=1e-300)
        whitening = directions[:, varies] / variance[varies].sqrt()
        weights, bias = _descended((points - centre) @ whitening, targets, penalty)
        return cls(centre, whitening, weights, bias)

    def log_probabilities(self, points: Float[Tensor, "n d"]) -> Float[Tensor, "n task"]:
        """The log of each task's probability as the probe reads it."""
        return ((points.double() - self.centre) @ self.whitening @ self.weights + self.bias).log_softmax(-1)

    def save(self, path: str | Path) -> Path:
        """Writes the probe to one safetensors file, whole or not at all, and returns its path."""
        return envelope.write(path, KIND, {name: getattr(self, name) for name in _AXES}, {"axes": _AXES})

    @classmethod
    def load(cls, path: str | Path) -> PosteriorProbe:
        """The probe that `save` wrote.

        Raises:
            FormatError: the file is damaged or is something else.
            MissingFile: there is no such file.
        """
        with envelope.opened(path, KIND) as file:
            return cls(**{name: file[name] for name in _AXES})


def _descended(placed: Tensor, targets: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """Weights and biases at the minimum, by L-BFGS; the gradient is written out, since probes are many."""
    n = len(placed)
    weights = torch.zeros(placed.shape[1], targets.shape[1], dtype=torch.float64, requires_grad=True, device="cpu")
    bias = targets.mean(0).clamp(min=1e-9).log().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weights, bias],
        max_iter=_ITERATIONS,
        history_size=10,
        line_search_fn="strong_wolfe",
        tolerance_grad=1e-6,
        tolerance_change=1e-9,
    )

    def closure() -> Tensor:
        predicted = (placed @ weights + bias).log_softmax(-1)
        residual = (predicted.exp() - targets) / n
        weights.grad, bias.grad = placed.mT @ residual + penalty / n * weights, residual.sum(0)
        return -(targets * predicted).sum() / n + 0.5 * penalty / n * weights.square().sum()

    with GradMode(False):
        optimizer.step(closure)
    return weights.detach(), bias.detach()


def kl_divergence(target: Float[Tensor, "n task"], predicted: Float[Tensor, "n task"]) -> Float[Tensor, " n"]:
    """KL(target || predicted) of each point, in nats.

    Args:
        target: probabilities.
        predicted: log-probabilities.
    """
    return (torch.special.xlogy(target, target) - target * predicted).sum(-1).clamp(min=0)
