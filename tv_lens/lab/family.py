"""Families of in-context regression tasks: what an episode is drawn from, with the latent task as its label.

An episode is K examples (x_i, y_i) of one function. The function is drawn anew for each episode; the *kind* of function
is the episode's latent task, and the family says how many there are.
"""

from __future__ import annotations

import dataclasses
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tv_lens.errors import FormatError, InvalidArgument, unknown
from tv_lens.kinds import checks_methods


@dataclass(frozen=True, eq=False)
class Episodes:
    """Episodes of a family, with their latent tasks.

    Args:
        x: inputs.
        y: answers, noise included.
        task: the latent task of each, from 0.
        weights: the coefficients of each episode's function, if it has any.
    """

    x: Float[Tensor, "n K D"]
    y: Float[Tensor, "n K"]
    task: Int[Tensor, " n"]
    weights: Float[Tensor, "n F"] | None = None

    def __len__(self) -> int:
        return len(self.x)

    def select(self, rows: Sequence[int] | slice | Tensor) -> Episodes:
        """The episodes of these rows, in this order."""
        if not isinstance(rows, (slice, Tensor)):
            rows = torch.tensor(list(rows), dtype=torch.long, device="cpu")
        return Episodes(
            self.x[rows], self.y[rows], self.task[rows], None if self.weights is None else self.weights[rows]
        )

    def first(self, points: int) -> Episodes:
        """The same episodes, cut off after `points` examples."""
        return Episodes(self.x[:, :points], self.y[:, :points], self.task, self.weights)

    def __repr__(self) -> str:
        n, points, dim = self.x.shape
        return f"Episodes({n} of {points} examples in {dim} dimensions, {len(self.task.unique())} latent tasks)"


def generator_of(*seed: int) -> torch.Generator:
    """A random generator for a tuple of seeds; different tuples, such as (0, 12) and (1, 11), give independent ones."""
    state = np.random.SeedSequence([part & 0xFFFFFFFFFFFFFFFF for part in seed]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


FAMILIES: dict[str, type[Family]] = {}


@checks_methods
@dataclass(frozen=True, kw_only=True)
class Family(ABC):
    """What episodes are drawn from: x ~ N(0, I), y = f(x) + noise, with f of one of `n_tasks` kinds.

    Args:
        dim: D, the coordinates of x.
        points: K, the examples of an episode.
        noise: standard deviation of the noise that is added to every answer.

    Example:
        >>> sorted(kind.__name__ for kind in FAMILIES.values())
        ['FiniteTasks', 'FixedRepresentation', 'FunctionMixture', 'NoisyLinear', 'SparseMixture']
    """

    dim: int
    points: int
    noise: float = 0.1
    kind: ClassVar[str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        FAMILIES[cls.kind] = cls

    def __post_init__(self) -> None:
        at_least_one("dim", self.dim, "dimension")
        at_least_one("points", self.points, "example in an episode")
        if not self.noise >= 0:
            raise InvalidArgument("The noise is a standard deviation.", got=f"noise={self.noise}", allowed="0 or more")

    # ---- the latent tasks ---------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def task_names(self) -> tuple[str, ...]:
        """The latent tasks by name, in the order of their labels."""

    @property
    def n_tasks(self) -> int:
        return len(self.task_names)

    @property
    def groups(self) -> tuple[int, ...]:
        """The group of each latent task; tasks without a common coordinate are in different groups."""
        return tuple(range(self.n_tasks))

    @property
    @abstractmethod
    def power(self) -> float:
        """The expected square of an answer without its noise: the loss of predicting zero."""

    # ---- drawing ------------------------------------------------------------------------------------------------

    def sample(self, n: int, seed: int | Sequence[int] = 0, task: int | None = None) -> Episodes:
        """`n` episodes; the same seeds give the same ones, on any device and in any process.

        Args:
            n: how many episodes.
            seed: a number, or several (a seed and a step).
            task: the latent task of all of them; drawn uniformly if None.
        """
        at_least_one("n", n, "episode")
        if task is not None and not 0 <= task < self.n_tasks:
            raise InvalidArgument(
                "The family has no such latent task.",
                got=f"task={task}",
                allowed=f"0 to {self.n_tasks - 1} ({', '.join(self.task_names[:8])})",
            )
        generator = generator_of(*((seed,) if isinstance(seed, int) else seed))
        labels = torch.randint(self.n_tasks, (n,), generator=generator, device="cpu")
        if task is not None:  # the labels are drawn nevertheless, so that all later draws are the same
            labels = torch.full((n,), task, dtype=torch.long, device="cpu")
        x = torch.randn(n, self.points, self.dim, generator=generator, dtype=torch.float32, device="cpu")
        clean, weights = self._answers(x, labels, generator)
        noise = torch.randn(n, self.points, generator=generator, dtype=torch.float32, device="cpu")
        noise = noise * self._spread(labels)
        return Episodes(x, clean + noise, labels, weights)

    def sample_each(self, n: int, seed: int | Sequence[int] = 0) -> Episodes:
        """`n` episodes of every latent task, task after task, each drawn on its own."""
        parts = [
            self.sample(n, (*((seed,) if isinstance(seed, int) else seed), 1 + task), task)
            for task in range(self.n_tasks)
        ]
        weights = None if parts[0].weights is None else torch.cat([p.weights for p in parts])
        return Episodes(*(torch.cat([getattr(p, name) for p in parts]) for name in ("x", "y", "task")), weights)

    def again(self, episodes: Episodes, task: int, seed: int | Sequence[int] = 0) -> Episodes:
        """The same inputs with answers of newly drawn functions of one latent task."""
        generator = generator_of(*((seed,) if isinstance(seed, int) else seed))
        labels = torch.full((len(episodes),), task, dtype=torch.long, device="cpu")
        clean, weights = self._answers(episodes.x, labels, generator)
        noise = torch.randn(clean.shape, generator=generator, dtype=torch.float32, device="cpu") * self._spread(labels)
        return Episodes(episodes.x, clean + noise, labels, weights)

    @abstractmethod
    def _answers(
        self, x: Float[Tensor, "n K D"], task: Int[Tensor, " n"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "n K"], Float[Tensor, "n F"] | None]:
        """The answers without noise, of functions drawn for each episode, and the functions' coefficients."""

    def _spread(self, task: Int[Tensor, " n"]) -> Float[Tensor, "n 1"]:
        return torch.full((len(task), 1), self.noise, dtype=torch.float32, device="cpu")

    # ---- files --------------------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """The family as values that JSON can hold; `Family.from_json` reads them."""
        fields = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        return {"family": self.kind, **json.loads(json.dumps(fields))}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Family:
        """The family that `to_json` wrote.

        Raises:
            UnknownName: there is no family of that kind.
            FormatError: the fields are not those of the family.
        """
        kind = data.get("family")
        if kind not in FAMILIES:
            raise unknown("family of regression tasks", kind, FAMILIES)
        try:
            return FAMILIES[kind](**{name: _tuples(value) for name, value in data.items() if name != "family"})
        except TypeError as error:
            raise FormatError(f"These are not the fields of a {kind!r} family.", got=str(error)) from error


def _tuples(value: Any) -> Any:
    return tuple(_tuples(part) for part in value) if isinstance(value, list) else value


def at_least_one(name: str, value: int, what: str) -> None:
    """Raises `InvalidArgument` if there is none."""
    if value < 1:
        raise InvalidArgument(f"There must be at least one {what}.", got=f"{name}={value}", allowed="1 or more")
