"""The families of the laboratory: sparse mixtures, and the others of the literature on in-context regression."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tv_lens.errors import InvalidArgument, unknown
from tv_lens.lab.family import FAMILIES, Episodes, Family, at_least_one, generator_of

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


@dataclass(frozen=True, kw_only=True)
class SparseMixture(Family):
    """Mixture of sparse linear regressions: y = w·x, with w ~ N(0, I) on the coordinates of one of several bases.

    Args:
        bases: the coordinates of each basis. `disjoint` and `overlapping` make the usual ones.

    Source:
        Han et al. 2025 (arXiv 2412.12276), section 3: D = 16, four bases of four coordinates, K = 20, noise variance
        0.01; appendix E for six bases and for eight overlapping ones.

    Example:
        >>> family = SparseMixture.disjoint(4, rank=2, points=10)
        >>> family.bases, family.sample(3, seed=0)
        (((0, 1), (2, 3), (4, 5), (6, 7)), Episodes(3 of 10 examples in 8 dimensions, 2 latent tasks))
    """

    kind = "sparse mixture"
    bases: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.bases:
            raise InvalidArgument("A mixture needs at least one basis.", got="bases=()")
        for number, basis in enumerate(self.bases):
            if len(basis) > self.dim:
                raise InvalidArgument(
                    f"Basis {number} has a rank above the dimension.",
                    got=f"rank {len(basis)}",
                    allowed=f"1 to {self.dim}",
                )
            if not basis or len(set(basis)) < len(basis) or min(basis) < 0 or max(basis) >= self.dim:
                raise InvalidArgument(
                    f"Basis {number} does not fit into {self.dim} dimensions.",
                    got=f"coordinates {basis}",
                    allowed=f"different coordinates from 0 to {self.dim - 1}, at least one",
                )
        if len(set(map(frozenset, self.bases))) < len(self.bases):
            raise InvalidArgument(
                "Two bases are the same.", got=f"{self.bases}", do="a latent task must differ from the others."
            )

    @classmethod
    def disjoint(cls, n: int, *, rank: int, points: int, noise: float = 0.1, dim: int | None = None) -> SparseMixture:
        """`n` bases without a common coordinate: basis k is the coordinates r*k to r*(k+1)-1.

        Args:
            n: how many bases.
            rank: r, the coordinates of each.
            points: K, the examples of an episode.
            noise: standard deviation of the noise.
            dim: D; n*r if None. Coordinates beyond the bases have no effect.
        """
        at_least_one("n", n, "basis")
        at_least_one("rank", rank, "coordinate in a basis")
        dim = n * rank if dim is None else dim
        if n * rank > dim:
            raise InvalidArgument(
                "The bases do not fit.",
                got=f"{n} bases of rank {rank} in {dim} dimensions",
                allowed=f"at most {dim // rank} of them, or at least {n * rank} dimensions",
            )
        bases = tuple(tuple(range(rank * k, rank * (k + 1))) for k in range(n))
        return cls(dim=dim, points=points, noise=noise, bases=bases)

    @classmethod
    def overlapping(
        cls,
        *,
        groups: int = 2,
        each: int = 4,
        size: int = 8,
        rank: int = 4,
        points: int,
        noise: float = 0.1,
        seed: int = 0,
    ) -> SparseMixture:
        """Bases that overlap within a group and share nothing across groups.

        Args:
            groups: how many groups, each over `size` coordinates of its own.
            each: bases in a group.
            size: coordinates of a group.
            rank: coordinates of a basis.
            points: K, the examples of an episode.
            noise: standard deviation of the noise.
            seed: fixes the subsets; all coordinates of a group are used as equally often as possible.

        Source:
            Han et al. 2025, appendix E: eight bases in 16 dimensions, four in each half; subsets not stated there.
        """
        if rank > size:
            raise InvalidArgument(
                "A basis does not fit into its group.", got=f"rank {rank} of {size} coordinates", allowed=f"1 to {size}"
            )
        random, bases = np.random.default_rng(seed), []
        for group in range(groups):
            used = np.zeros(size)
            group_bases: list[tuple[int, ...]] = []
            for _ in range(1000 * each):  # few subsets exist if the rank is near the size: try, then refuse
                if len(group_bases) == each:
                    break
                chosen = np.lexsort((random.random(size), used))[:rank]
                basis = tuple(sorted(int(c) + group * size for c in chosen))
                used[chosen] += 1
                if basis not in group_bases:
                    group_bases.append(basis)
            if len(group_bases) < each:
                raise InvalidArgument(
                    "There are not so many different bases.", got=f"each={each}, rank={rank}, size={size}"
                )
            bases += group_bases
        return cls(dim=groups * size, points=points, noise=noise, bases=tuple(bases))

    @property
    def task_names(self) -> tuple[str, ...]:
        return tuple(f"basis {k}" for k in range(len(self.bases)))

    @property
    def groups(self) -> tuple[int, ...]:
        owner = list(range(len(self.bases)))
        for i, one in enumerate(self.bases):
            for j in range(i):
                if set(one) & set(self.bases[j]):
                    owner = [owner[j] if o == owner[i] else o for o in owner]
        names = {o: place for place, o in enumerate(dict.fromkeys(owner))}
        return tuple(names[o] for o in owner)

    @property
    def rank(self) -> float:
        """Mean number of coordinates of a basis."""
        return sum(map(len, self.bases)) / len(self.bases)

    @property
    def power(self) -> float:
        return self.rank

    @property
    def masks(self) -> Float[Tensor, "task D"]:
        """1 at the coordinates of each basis."""
        masks = torch.zeros(len(self.bases), self.dim)
        for k, basis in enumerate(self.bases):
            masks[k, list(basis)] = 1.0
        return masks

    def _answers(self, x: Tensor, task: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        weights = torch.randn(len(x), self.dim, generator=generator) * self.masks[task]
        return torch.einsum("nkd,nd->nk", x, weights), weights


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
        weights = torch.randn(len(x), self.dim, generator=generator)
        order = torch.rand(len(x), self.dim, generator=generator).argsort(1)
        named = [self.functions[k] for k in task.tolist()]
        sparse = torch.tensor([name == "sparse linear" for name in named])[:, None]
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
        weights = torch.randn(len(x), self.dim, generator=generator)
        return torch.einsum("nkd,nd->nk", x, weights), weights

    def _spread(self, task: Tensor) -> Tensor:
        return torch.tensor(self.levels)[task][:, None]


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
        return torch.randn(self.n_vectors, self.dim, generator=generator_of(self.vectors_seed, 0xF1))

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
        layer = torch.randn(shape, generator=generator_of(self.features_seed, 0xFE))
        layer = layer / layer.norm(dim=-1, keepdim=True)
        return torch.nn.functional.leaky_relu(torch.einsum("nkd,nfd->nkf", x, layer[task]), _SLOPE)

    def _answers(self, x: Tensor, task: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        weights = torch.randn(len(x), self.features, generator=generator)
        weights = weights * (self.size / self.features / ((1 + _SLOPE**2) / 2)) ** 0.5
        return torch.einsum("nkf,nf->nk", self.represent(x, task), weights), weights
