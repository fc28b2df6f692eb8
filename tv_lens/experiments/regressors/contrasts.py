"""The differences between the clean and the corrupted run of an episode, for the circuit of a latent task."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from tv_lens.errors import InvalidArgument, unknown
from tv_lens.experiments.regressors.patches import class_means
from tv_lens.intervention import Add, Intervention
from tv_lens.kinds import checks_kinds
from tv_lens.lab.latent_task import LatentTask
from tv_lens.lab.regressor import Regressor
from tv_lens.method_value import MethodValue
from tv_lens.site import Site
from tv_lens.tasks.prompts import PromptPairs, Prompts


class LatentContrast(MethodValue):
    """How the clean and the corrupted run of an episode differ.

    Attributes:
        description: the difference, in words.
        edges: how many of the strongest edges make a circuit, by default.
        sizes: numbers of edges of the curves, by default.
    """

    purpose: ClassVar[str] = "setting two episodes against each other"
    examples: ClassVar[str] = "Twin(), Injected(layer=1)"
    description: ClassVar[str]
    edges: ClassVar[int]
    sizes: ClassVar[tuple[int, ...]]

    @abstractmethod
    def shots(self, points: int) -> int:
        """How many examples come before the query by default, in episodes of so many points."""

    @abstractmethod
    def prompts(self, task: LatentTask, shots: int, n: int, seed: int, split: str) -> Prompts | PromptPairs:
        """The episodes of both runs."""

    def edits(
        self, regressor: Regressor, tasks: Sequence[LatentTask], shots: int, seed: int
    ) -> list[dict[str, Intervention]]:
        """The interventions that `discover` injects, by latent task: `source` and `against`, or nothing."""
        return [{} for _ in tasks]


@final
@dataclass(frozen=True)
class Twin(LatentContrast):
    """An episode against its twin: the same inputs, answered by a function of the next latent task.

    Everything that depends on the answers differs, from the first layer on: the circuit both infers the task and uses
    it.

    Example:
        >>> Twin()
        Twin()
    """

    description: ClassVar[str] = "an episode against its twin, the same inputs answered by another task"
    edges: ClassVar[int] = 200
    sizes: ClassVar[tuple[int, ...]] = (20, 50, 100, 200, 400, 600)

    def shots(self, points: int) -> int:
        return points - 1

    def prompts(self, task: LatentTask, shots: int, n: int, seed: int, split: str) -> PromptPairs:
        return task.pairs(shots, n, seed=seed, split=split)


@checks_kinds
@final
@dataclass(frozen=True)
class Injected(LatentContrast):
    """The own task's vector in an episode against the next task's: the *decoding* circuit is what lies downstream.

    The vector of a task is its mean representation less the mean over all tasks, at the last answer before the query.
    It is added to the stream there: in the clean run the own task's vector, in the corrupted run the next task's. Both
    runs read the same episode.

    Args:
        layer: the layer after which the vector is added; not the last one, after which nothing reads it.
        scale: the factor of the vector.
        contexts: episodes per task behind the means, of the split "train".

    Example:
        >>> Injected(layer=1)
        Injected(layer=1, scale=1.0, contexts=500)
    """

    layer: int
    scale: float = 1.0
    contexts: int = 500
    description: ClassVar[str] = "the own task's vector, added at the last answer, against the next task's"
    edges: ClassVar[int] = 50
    sizes: ClassVar[tuple[int, ...]] = (5, 10, 20, 50, 100)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale) or self.contexts < 1:
            raise InvalidArgument(
                "A vector is a mean over episodes, some of which is added.",
                got=f"scale={self.scale}, contexts={self.contexts}",
                allowed="a finite scale that is not 0, and contexts from 1 on",
            )

    def shots(self, points: int) -> int:
        """Two, or all if there are fewer: later the examples themselves show the task, and a vector adds nothing."""
        return min(2, points - 1)

    def prompts(self, task: LatentTask, shots: int, n: int, seed: int, split: str) -> Prompts:
        return task.prompts(shots, n, seed=seed, split=split)

    def edits(
        self, regressor: Regressor, tasks: Sequence[LatentTask], shots: int, seed: int
    ) -> list[dict[str, Intervention]]:
        if not 0 <= self.layer < regressor.n_layers - 1:
            raise unknown("layer that later ones read", self.layer, tuple(range(regressor.n_layers - 1)))
        if shots < 1:
            raise InvalidArgument(
                "A vector is added at an answer, so there must be one.", got=f"shots={shots}", allowed="1 or more"
            )
        # x_1, y_1, ..., x_shots, y_shots, x: the answer before the query
        site, at = Site("resid_post", self.layer, pos=-2), 2 * shots - 1
        means = class_means(regressor, tasks, [self.layer], self.contexts, seed)[0, :, at]
        added = [Add(site, vector, self.scale) for vector in means - means.mean(0)]
        return [{"source": added[i], "against": added[(i + 1) % len(added)]} for i in range(len(added))]
