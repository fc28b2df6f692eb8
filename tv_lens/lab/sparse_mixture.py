"""Mixtures of sparse linear regressions: the family of the paper, whose latent task is the basis of the weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tv_lens.errors import InvalidArgument
from tv_lens.lab.family import Family, at_least_one


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
        masks = torch.zeros(len(self.bases), self.dim, dtype=torch.float32, device="cpu")
        for k, basis in enumerate(self.bases):
            masks[k, list(basis)] = 1.0
        return masks

    def _answers(self, x: Tensor, task: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        weights = torch.randn(len(x), self.dim, generator=generator, dtype=torch.float32, device="cpu")
        weights = weights * self.masks[task]
        return torch.einsum("nkd,nd->nk", x, weights), weights
