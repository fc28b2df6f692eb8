"""The families of the laboratory: sparse mixtures (`sparse_mixture.py`), and others of in-context regression."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tv_lens.errors import InvalidArgument, unknown
from tv_lens.lab.family import FAMILIES, Episodes, Family, at_least_one, generator_of
from tv_lens.lab.sparse_mixture import SparseMixture

__all__ = [
    "FAMILIES",
    "FUNCTIONS",
    "Episodes",
    "Family",
    "FiniteTasks",
    "FixedRepresentation",
    "FunctionMixture",
    "NoisyLinear",
    "SparseMixture",
    "generator_of",
]


FUNCTIONS = ("linear", "sparse linear", "leaky relu", "quadratic")
_SLOPE = 0.5


@dataclass(frozen=True, kw_only=True)
class FunctionMixture(Family):
    """Mixture of regression families: linear, sparse linear, leaky ReLU and quadratic functions of x.

    The answers of every family have the same expected square, so that none weighs more in the loss. The coordinates
    of a sparse function are drawn anew for each episode.

    Args:
        functions: the regression families, from `FUNCTIONS`.
        rank: coordinates of a sparse function.
        size: expected square of an answer without noise.

    Source:
        Han et al. 2025, figure 16; Garg et al. 2022 (arXiv 2208.01066): 3 of 20 coordinates, quadratic
        sum_j w_j x_j^2 / sqrt(3); leaky ReLU with slope 0.5. Han et al. state no scales; these are ours.
    """

    kind = "function mixture"
    functions: tuple[str, ...] = FUNCTIONS
    rank: int = 2
    size: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.functions:
            if name not in FUNCTIONS:
                raise unknown("regression family", name, FUNCTIONS)
        if not self.functions or len(set(self.functions)) < len(self.functions):
            raise InvalidArgument("Regression families are named once each.", got=f"functions={self.functions}")
        if not 1 <= self.rank <= self.dim:
            raise InvalidArgument(
                "The rank of a sparse function is above the dimension.",
                got=f"rank={self.rank}",
                allowed=f"1 to {self.dim}",
            )
        if not self.size > 0:
            raise InvalidArgument("The expected square of an answer is positive.", got=f"size={self.size}")

    @property
    def task_names(self) -> tuple[str, ...]:
        return self.functions

    @property
    def power(self) -> float:
        return self.size

    def _answers(self, x: Tensor, task: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        weights = torch.randn(len(x), self.dim, generator=generator, dtype=torch.float32, device="cpu")
        order = torch.rand(len(x), self.dim, generator=generator, dtype=torch.float32, device="cpu").argsort(1)
        named = [self.functions[k] for k in task.tolist()]
        sparse = torch.tensor([name == "sparse linear" for name in named], dtype=torch.bool, device="cpu")[:, None]
        # rank coordinates with weights larger by sqrt(D/r): the same expected square as all of them
        weights = torch.where(sparse, weights * (order < self.rank) * (self.dim / self.rank) ** 0.5, weights)
        weights = weights * (self.size / self.dim) ** 0.5
        linear = torch.einsum("nkd,nd->nk", x, weights)
        curved = {
            "leaky relu": torch.nn.functional.leaky_relu(linear, _SLOPE) / ((1 + _SLOPE**2) / 2) ** 0.5,
            "quadratic": torch.einsum("nkd,nd->nk", x**2, weights) / 3**0.5,
        }
        y = torch.stack([curved.get(name, linear)[i] for i, name in enumerate(named)])
        return y, weights


@dataclass(frozen=True, kw_only=True)
class NoisyLinear(Family):
    """Linear regression with noise of several levels: the latent task is how noisy an episode is.

    Args:
        levels: standard deviations; each is one latent task. `noise` is not used.
    """

    kind = "noisy linear"
    levels: tuple[float, ...] = (0.0, 0.5, 1.0)
    noise: float = field(default=0.0, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.levels or min(self.levels) < 0 or len(set(self.levels)) < len(self.levels):
            raise InvalidArgument("Noise levels are different standard deviations.", got=f"levels={self.levels}")

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in super().to_json().items() if name != "noise"}

    @property
    def task_names(self) -> tuple[str, ...]:
        return tuple(f"noise {level:g}" for level in self.levels)

    @property
    def power(self) -> float:
        return float(self.dim)

    def _answers(self, x: Tensor, task: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        weights = torch.randn(len(x), self.dim, generator=generator, dtype=torch.float32, device="cpu")
        return torch.einsum("nkd,nd->nk", x, weights), weights

    def _spread(self, task: Tensor) -> Tensor:
        return torch.tensor(self.levels, dtype=torch.float32, device="cpu")[task][:, None]


@dataclass(frozen=True, kw_only=True)
class FiniteTasks(Family):
    """Linear regression with one of M fixed vectors: how many tasks a network was trained on (task diversity).

    Args:
        n_vectors: M, each a latent task.
        vectors_seed: fixes the M vectors.

    Source:
        Raventos et al. 2023 (arXiv 2306.15063).
    """

    kind = "finite tasks"
    n_vectors: int
    vectors_seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least_one("n_vectors", self.n_vectors, "regression vector")

    @property
    def task_names(self) -> tuple[str, ...]:
        return tuple(f"vector {k}" for k in range(self.n_vectors))

    @property
    def power(self) -> float:
        return float(self.vectors.pow(2).sum(1).mean())

    @property
    def vectors(self) -> Float[Tensor, "task D"]:
        return torch.randn(
            self.n_vectors, self.dim, generator=generator_of(self.vectors_seed, 0xF1), dtype=torch.float32, device="cpu"
        )

    def _answers(self, x: Tensor, task: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        weights = self.vectors[task]
        return torch.einsum("nkd,nd->nk", x, weights), weights


@dataclass(frozen=True, kw_only=True)
class FixedRepresentation(Family):
    """Linear regression on fixed random features of x: y = w·phi(x), with w ~ N(0, I) anew for each episode.

    Args:
        features: F, how many features; y has expected square `size`.
        representations: how many different phi there are; each is one latent task.
        size: expected square of an answer without noise.
        features_seed: fixes the phi.

    Source:
        Guo et al. 2023 (arXiv 2310.10616): phi a fixed random network, here of one layer with leaky ReLU.
    """

    kind = "fixed representation"
    features: int = 8
    representations: int = 2
    size: float = 1.0
    features_seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least_one("features", self.features, "feature")
        at_least_one("representations", self.representations, "representation")

    @property
    def task_names(self) -> tuple[str, ...]:
        return tuple(f"representation {k}" for k in range(self.representations))

    @property
    def power(self) -> float:
        return self.size

    def represent(self, x: Float[Tensor, "n K D"], task: Int[Tensor, " n"]) -> Float[Tensor, "n K F"]:
        """phi(x) of each episode's latent task."""
        shape = self.representations, self.features, self.dim
        layer = torch.randn(shape, generator=generator_of(self.features_seed, 0xFE), dtype=torch.float32, device="cpu")
        layer = layer / layer.norm(dim=-1, keepdim=True)
        return torch.nn.functional.leaky_relu(torch.einsum("nkd,nfd->nkf", x, layer[task]), _SLOPE)

    def _answers(self, x: Tensor, task: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        weights = torch.randn(len(x), self.features, generator=generator, dtype=torch.float32, device="cpu")
        weights = weights * (self.size / self.features / ((1 + _SLOPE**2) / 2)) ** 0.5
        return torch.einsum("nkf,nf->nk", self.represent(x, task), weights), weights
