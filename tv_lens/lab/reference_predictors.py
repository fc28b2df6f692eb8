"""Reference predictors of the same episodes: from predicting zero to the Bayes-optimal mixture.

Each predicts every y_i from the examples before it and x_i, in float64 and for all prefixes at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tv_lens.errors import InvalidArgument, ShapeMismatch
from tv_lens.kinds import checks_kinds
from tv_lens.lab.families import Episodes, Family, FiniteTasks, SparseMixture

_CHUNK = 2**23  # numbers in the largest tensor of one chunk of episodes


class Reference(ABC):
    """A predictor that a trained network is compared with; tables show its `name`."""

    name: str

    @abstractmethod
    def predict(self, x: Float[Tensor, "n K D"], y: Float[Tensor, "n K"]) -> Float[Tensor, "n K"]:
        """The prediction of every y_i from the examples before it and x_i."""


class InChunks(Reference):
    """A predictor that needs nothing of an episode but its examples, and takes some episodes at a time."""

    def predict(self, x: Float[Tensor, "n K D"], y: Float[Tensor, "n K"]) -> Float[Tensor, "n K"]:
        """The prediction of every y_i from the examples before it and x_i."""
        if x.shape[:2] != y.shape:
            raise ShapeMismatch("Every input needs one answer.", got=f"x {list(x.shape)}, y {list(y.shape)}")
        _n, points, dim = x.shape
        size = max(1, _CHUNK // (points * dim * max(dim, points)))
        parts = zip(x.double().split(size), y.double().split(size))
        return torch.cat([self._predict(one, other) for one, other in parts])

    @abstractmethod
    def _predict(self, x: Float[Tensor, "n K D"], y: Float[Tensor, "n K"]) -> Float[Tensor, "n K"]: ...


class Posterior(InChunks):
    """A predictor that weighs latent tasks."""

    @abstractmethod
    def posterior(self, x: Float[Tensor, "n K D"], y: Float[Tensor, "n K"]) -> Float[Tensor, "n prefix task"]:
        """The probability of each latent task after 0, 1, ..., K examples: K + 1 prefixes."""

    @abstractmethod
    def components(
        self, x: Float[Tensor, "n K D"], y: Float[Tensor, "n K"]
    ) -> tuple[Float[Tensor, "n K task"], Float[Tensor, "n K task"], Float[Tensor, "n K task"]]:
        """The distribution of y_i, given the examples before it and x_i: each task's probability, mean and variance."""


@dataclass(frozen=True)
class Zero(InChunks):
    """Always zero: its loss is the answers' power."""

    name: str = "zero"

    def _predict(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.zeros_like(y)


@dataclass(frozen=True)
class Averaging(InChunks):
    """w is the mean of y_j x_j: one step of gradient descent from zero, on white inputs."""

    name: str = "averaging"

    def _predict(self, x: Tensor, y: Tensor) -> Tensor:
        seen = torch.arange(y.shape[1], dtype=torch.float64, device="cpu").clamp(min=1)
        return torch.einsum("nkd,nkd->nk", _before(x * y[..., None]) / seen[:, None], x)


@dataclass(frozen=True)
class OLS(InChunks):
    """Least squares, of minimum norm where examples are fewer than dimensions."""

    name: str = "least squares"

    def _predict(self, x: Tensor, y: Tensor) -> Tensor:
        _n, points, _dim = x.shape
        earlier = torch.ones(points, points, dtype=torch.float64, device="cpu").tril(-1)
        seen = x[:, None] * earlier[None, :, :, None]  # n prefix example dim
        weights = torch.linalg.pinv(seen) @ (y[:, None] * earlier)[..., None]
        return torch.einsum("nkd,nkd->nk", weights[..., 0], x)


@dataclass(frozen=True)
class Ridge(InChunks):
    """Ridge regression: Bayes-optimal for w ~ N(0, noise^2 / penalty) in every coordinate.

    Args:
        penalty: the number added to the diagonal of the inputs' second moments, summed over examples.
    """

    penalty: float
    name: str = "ridge"

    def __post_init__(self) -> None:
        if not self.penalty > 0:
            raise InvalidArgument(
                "The penalty of ridge regression is positive.",
                got=f"penalty={self.penalty}",
                do="OLS() is the limit of no penalty.",
            )

    @classmethod
    def blind(cls, family: SparseMixture) -> Ridge:
        """Ridge over all coordinates, which knows the size of the weights but not the bases."""
        spread = family.rank / family.dim
        return cls(_variance(family) / spread, "blind ridge")

    def _predict(self, x: Tensor, y: Tensor) -> Tensor:
        mean, _ = _ridge(x, y, torch.ones(x.shape[2], dtype=torch.float64, device="cpu"), self.penalty)
        return mean


@dataclass(frozen=True)
class Lasso(InChunks):
    """Least squares with a penalty on the sum of absolute weights, without intercept: (1/2n)|y - Xw|^2 + weight |w|.

    Args:
        weight: the weight of the penalty. `best` tries several, as Garg et al. do.
        rounds: how many rounds of coordinate descent.
    """

    weight: float = 0.01
    rounds: int = 100
    name: str = "lasso"

    @classmethod
    def best(cls, episodes: Episodes, weights: Sequence[float] = (1.0, 0.1, 0.01, 1e-3, 1e-4)) -> Lasso:
        """The one of several weights with the smallest error on these episodes.

        Source:
            Garg et al. 2022 (arXiv 2208.01066): 1, 0.1, 0.01, 0.001, 0.0001.
        """
        return min((cls(weight) for weight in weights), key=lambda one: float(_mse(one, episodes)))

    def _predict(self, x: Tensor, y: Tensor) -> Tensor:
        _n, points, dim = x.shape
        seen = torch.arange(points, dtype=torch.float64, device="cpu").clamp(min=1)[:, None]
        moments = _before(x[..., :, None] * x[..., None, :]) / seen[..., None]
        linear = _before(x * y[..., None]) / seen
        size = moments.diagonal(dim1=-2, dim2=-1).clamp(min=1e-12)
        weights = torch.zeros_like(linear)
        for _ in range(self.rounds):
            for j in range(dim):
                rest = linear[..., j] - (moments[..., j, :] * weights).sum(-1) + moments[..., j, j] * weights[..., j]
                weights[..., j] = torch.sign(rest) * (rest.abs() - self.weight).clamp(min=0) / size[..., j]
        return (weights * x).sum(-1)


@dataclass(frozen=True)
class NearestNeighbours(InChunks):
    """The mean answer of the k nearest earlier examples; of all of them if there are fewer; zero if there are none."""

    k: int = 3
    name: str = "nearest neighbours"

    def _predict(self, x: Tensor, y: Tensor) -> Tensor:
        points = y.shape[1]
        unseen = torch.ones(points, points, dtype=torch.bool, device="cpu").triu()
        far = torch.cdist(x, x).masked_fill(unseen, torch.inf)
        k = min(self.k, points)
        distance, index = far.topk(k, dim=-1, largest=False)
        answers = y[:, None].expand(-1, points, -1).gather(2, index)
        counted = distance.isfinite()
        return answers.masked_fill(~counted, 0.0).sum(-1) / counted.sum(-1).clamp(min=1)


@dataclass(frozen=True)
class OracleRidge(Reference):
    """Ridge on the coordinates of the right basis: the least loss of a predictor that knows the latent task.

    Args:
        family: the mixture.
        task: the right basis of each episode that will be predicted.
    """

    family: SparseMixture
    task: Int[Tensor, " n"]
    name: str = "oracle basis"

    def predict(self, x: Float[Tensor, "n K D"], y: Float[Tensor, "n K"]) -> Float[Tensor, "n K"]:
        if len(self.task) != len(x):
            raise ShapeMismatch("The oracle was told other episodes.", got=f"{len(x)} episodes, {len(self.task)} tasks")
        out = torch.zeros(y.shape, dtype=torch.float64, device="cpu")
        for k, mask in enumerate(self.family.masks.double()):
            mine = self.task == k
            if bool(mine.any()):
                out[mine] = _ridge(x[mine].double(), y[mine].double(), mask, _variance(self.family))[0]
        return out


@dataclass(frozen=True)
class BayesMixture(Posterior):
    """Bayes-optimal on a mixture of sparse regressions: each basis's ridge, weighted by the basis's posterior.

    Source:
        y given X is Gaussian under each basis: log p(y | X, B_k) = log N(y; 0, X_k X_k^T + noise^2 I), here as the sum
        of one-step-ahead predictions, which come with the ridge estimates.
    """

    family: SparseMixture
    name: str = "Bayes mixture"

    def posterior(self, x: Float[Tensor, "n K D"], y: Float[Tensor, "n K"]) -> Float[Tensor, "n prefix task"]:
        return torch.cat([self._all(*part)[0] for part in zip(x.double().split(4096), y.double().split(4096))])

    def components(
        self, x: Float[Tensor, "n K D"], y: Float[Tensor, "n K"]
    ) -> tuple[Float[Tensor, "n K task"], Float[Tensor, "n K task"], Float[Tensor, "n K task"]]:
        parts = [self._all(*part) for part in zip(x.double().split(4096), y.double().split(4096))]
        posterior, means, spreads = (torch.cat(one) for one in zip(*parts))
        return posterior[:, :-1], means, spreads

    def _all(
        self, x: Tensor, y: Tensor
    ) -> tuple[Float[Tensor, "n prefix task"], Float[Tensor, "n K task"], Float[Tensor, "n K task"]]:
        """The posterior after each prefix, and each basis's own prediction with its variance."""
        variance, means, spreads, surprise = _variance(self.family), [], [], []
        for mask in self.family.masks.double():
            mean, spread = _ridge(x, y, mask, variance)
            means.append(mean)
            spreads.append(spread)
            surprise.append(-0.5 * ((y - mean) ** 2 / spread + spread.log()))
        evidence = torch.stack(surprise, -1).cumsum(1)
        evidence = torch.cat([torch.zeros_like(evidence[:, :1]), evidence], 1)
        return evidence.softmax(-1), torch.stack(means, -1), torch.stack(spreads, -1)

    def _predict(self, x: Tensor, y: Tensor) -> Tensor:
        posterior, means, _ = self._all(x, y)
        return (posterior[:, :-1] * means).sum(-1)


@dataclass(frozen=True)
class DiscretePrior(Posterior):
    """Bayes-optimal if w is one of finitely many vectors: their mean under the posterior.

    Source:
        Raventos et al. 2023 (arXiv 2306.15063), the discrete minimum-mean-squared-error estimator.
    """

    family: FiniteTasks
    name: str = "discrete prior"

    def posterior(self, x: Float[Tensor, "n K D"], y: Float[Tensor, "n K"]) -> Float[Tensor, "n prefix task"]:
        x, y = x.double(), y.double()
        predicted = torch.einsum("nkd,td->nkt", x, self.family.vectors.double())
        evidence = (-0.5 * (y[..., None] - predicted) ** 2 / _variance(self.family)).cumsum(1)
        return torch.cat([torch.zeros_like(evidence[:, :1]), evidence], 1).softmax(-1)

    def components(
        self, x: Float[Tensor, "n K D"], y: Float[Tensor, "n K"]
    ) -> tuple[Float[Tensor, "n K task"], Float[Tensor, "n K task"], Float[Tensor, "n K task"]]:
        predicted = torch.einsum("nkd,td->nkt", x.double(), self.family.vectors.double())
        return self.posterior(x, y)[:, :-1], predicted, torch.full_like(predicted, _variance(self.family))

    def _predict(self, x: Tensor, y: Tensor) -> Tensor:
        predicted = torch.einsum("nkd,td->nkt", x, self.family.vectors.double())
        return (self.posterior(x, y)[:, :-1] * predicted).sum(-1)


@checks_kinds
def references(episodes: Episodes, family: Family) -> dict[str, Reference]:
    """Every reference that makes sense for a family, by name, usually from the worst to the best.

    Example:
        >>> import tv_lens as tv
        >>> family = tv.lab.load("bases4").family
        >>> " ".join(type(one).__name__ for one in references(family.sample(2, seed=0), family).values())
        'Zero Averaging NearestNeighbours OLS Lasso Ridge BayesMixture OracleRidge'
    """
    predictors: list[Reference] = [
        Zero(),
        Averaging(),
        NearestNeighbours(),
        OLS(),
        Lasso.best(episodes.select(slice(0, 200))),
    ]
    if isinstance(family, SparseMixture):
        predictors += [Ridge.blind(family), BayesMixture(family), OracleRidge(family, episodes.task)]
    elif isinstance(family, FiniteTasks):
        predictors += [Ridge(_variance(family)), DiscretePrior(family)]
    else:
        predictors.append(Ridge(max(_variance(family), 0.01)))
    return {one.name: one for one in predictors}


def _mse(reference: Reference, episodes: Episodes) -> Tensor:
    return (reference.predict(episodes.x, episodes.y) - episodes.y).square().mean()


def _variance(family: Family) -> float:
    """The variance of the noise, kept above zero, where the predictors are not defined."""
    return max(family.noise**2, 1e-8)


def _before(values: Float[Tensor, "n K *rest"]) -> Float[Tensor, "n K *rest"]:
    """Sums over the examples before each one."""
    return torch.cat([torch.zeros_like(values[:, :1]), values[:, :-1].cumsum(1)], 1)


def _ridge(
    x: Float[Tensor, "n K D"], y: Float[Tensor, "n K"], mask: Float[Tensor, " D"], penalty: float
) -> tuple[Float[Tensor, "n K"], Float[Tensor, "n K"]]:
    """Ridge predictions from the examples before each one, on the mask's coordinates, and their variances.

    The variance is that of y_i under w ~ N(0, I) and noise of variance `penalty`.
    """
    x = x[..., mask.bool()]
    moments = _before(x[..., :, None] * x[..., None, :])
    moments = moments + penalty * torch.eye(x.shape[-1], dtype=x.dtype, device="cpu")
    solved = torch.linalg.solve(moments, torch.stack([_before(x * y[..., None]), x], -1))
    return (solved[..., 0] * x).sum(-1), penalty * (1 + (solved[..., 1] * x).sum(-1))
