"""A family's latent task as a `Task`, for `tv.patch`, `tv.extract`, `tv.decodability` and `tv.discover`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from os import PathLike
from typing import Any

import torch

from tv_lens.errors import EmptySelection, InvalidArgument, unknown
from tv_lens.kinds import checks_kinds, checks_methods
from tv_lens.lab.families import Episodes, Family
from tv_lens.lab.vector_tokenizer import x_text, y_text
from tv_lens.tasks.definition import Task
from tv_lens.tasks.drawing import SPLITS
from tv_lens.tasks.prompt import Prompt
from tv_lens.tasks.prompts import PromptPairs, Prompts
from tv_lens.tasks.templates import Pair, Template

EPISODE = Template("episode", demo="{x}", answer="={y}", between=" ", bos="never")
_SHOWN = 10  # pairs that represent the task where a `Task` lists pairs; prompts are drawn from the family


@checks_methods
class LatentTask(Task):
    """One latent task of a family; a prompt is an episode, and its demonstrations are the examples before the last.

    Unlike with pairs of words, the demonstrations of each prompt follow a function of their own: the prompts of a task
    share the kind of function (the basis), which decodability and task vectors are about here.

    Args:
        family: the family that episodes are drawn from.
        task: the number of the latent task, from 0.

    Example:
        >>> from tv_lens.lab.families import SparseMixture
        >>> task = LatentTask(SparseMixture.disjoint(2, rank=1, points=5), 1)
        >>> task.name, task.prompts(shots=4, n=3).shots
        ('basis 1', 4)
    """

    family: Family
    label: int

    def __init__(self, family: Family, task: int):
        if not 0 <= task < family.n_tasks:
            raise InvalidArgument(
                "The family has no such latent task.", got=f"task={task}", allowed=f"0 to {family.n_tasks - 1}"
            )
        drawn = family.sample(_SHOWN, (0, 0x5A), task)
        super().__init__(
            family.task_names[task],
            list(dict.fromkeys(_pairs(drawn.x[:, 0].tolist(), drawn.y[:, 0].tolist()))),
            EPISODE,
            description=f"latent task {task} of a {family.kind}",
            source="drawn",
        )
        object.__setattr__(self, "family", family)
        object.__setattr__(self, "label", task)

    @cached_property
    def lookup(self) -> dict[str, str]:
        """Empty: no input has an answer of its own, so every latent task has the same inputs."""
        return {}

    @cached_property
    def fingerprint(self) -> str:
        identity = json.dumps([self.family.to_json(), self.label], sort_keys=True)
        return hashlib.sha256(identity.encode()).hexdigest()[:16]

    def episodes(self, n: int, seed: int = 0, split: str = "test") -> Episodes:
        """`n` episodes of this latent task; no two splits share one."""
        if split not in SPLITS:
            raise unknown("split", split, SPLITS)
        return self.family.sample(n, (seed, 1 + SPLITS.index(split), self.label), self.label)

    def prompts(
        self,
        shots: int,
        n: int | None = None,
        seed: int = 0,
        split: str = "test",
        template: Template | str | None = None,
        foils: bool = False,
    ) -> Prompts:
        """Episodes of `shots` examples and a query; 100 if `n` is None. Numbers have one template and no foils."""
        n = 100 if n is None else n
        self._check(shots, template)
        return self._prompts(self.episodes(n, seed, split), shots, dict(shots=shots, n=n, seed=seed, split=split))

    def pairs(
        self,
        shots: int,
        n: int | None = None,
        corrupt: str = "other_task",
        other: Task | str | PathLike[str] | None = None,
        seed: int = 0,
        split: str = "test",
        template: Template | str | None = None,
    ) -> PromptPairs:
        """Episodes, each beside a twin with the same inputs and a function of another latent task.

        Args:
            shots: examples before the query.
            n: how many pairs; 100 if None.
            corrupt: "other_task", the only one.
            other: the other latent task, a `LatentTask` of the same family; the next one if None.
            seed: fixes the draw.
            split: "train", "dev" or "test"; no two share an episode.
            template: None; numbers have one template.
        """
        if corrupt != "other_task":
            raise unknown("corruption of episodes", corrupt, ("other_task",))
        if other is None:
            other = LatentTask(self.family, (self.label + 1) % self.family.n_tasks)
        if not isinstance(other, LatentTask) or other.family != self.family or other.label == self.label:
            raise InvalidArgument(
                "The other task must be another latent task of the same family.",
                got=repr(other),
                do="LatentTask(family, k)",
            )
        n = 100 if n is None else n
        self._check(shots, template)
        clean = self.episodes(n, seed, split)
        twin = self.family.again(clean, other.label, (seed, 0x07, other.label))
        twin = Episodes(twin.x, torch.cat([twin.y[:, :shots], clean.y[:, shots:]], 1), twin.task, twin.weights)
        drawn = dict(shots=shots, n=n, seed=seed, split=split)
        return PromptPairs(
            self._prompts(clean, shots, drawn),
            self._prompts(twin, shots, {**drawn, "functions": other.name}),
            corrupt="other_task",
        )

    def _check(self, shots: int, template: Template | str | None) -> None:
        if template is not None and template != EPISODE:
            raise InvalidArgument(
                "Episodes have one template.", got=getattr(template, "name", template), allowed=EPISODE.name
            )
        if not 0 <= shots < self.family.points:
            raise EmptySelection(
                "An episode does not have so many examples before its last.",
                got=f"shots={shots}",
                allowed=f"0 to {self.family.points - 1}",
            )

    def _prompts(self, episodes: Episodes, shots: int, drawn: dict[str, Any]) -> Prompts:
        return prompts_of(
            episodes, shots, self.name, {**self.recipe(template=EPISODE, **drawn), "family": self.family.to_json()}
        )

    def replace(self, **changes: Any) -> Task:
        """The same latent task under another name; nothing else can be changed.

        Raises:
            InvalidArgument: something other than the name is to change.
        """
        if set(changes) - {"name"}:
            raise InvalidArgument(
                "A latent task has a name of its own and nothing else.", got=", ".join(sorted(changes)), allowed="name"
            )
        renamed = LatentTask(self.family, self.label)
        object.__setattr__(renamed, "name", changes.get("name", self.name))
        return renamed

    def __repr__(self) -> str:
        return f"LatentTask({self.name!r} of a {self.family.kind})"


@checks_kinds
def latent_tasks(family: Family) -> list[LatentTask]:
    """Every latent task of a family, in the order of their labels, as `tv.decodability` takes them.

    Example:
        >>> import tv_lens as tv
        >>> [task.name for task in latent_tasks(tv.lab.load("bases4").family)]
        ['basis 0', 'basis 1', 'basis 2', 'basis 3']
    """
    return [LatentTask(family, task) for task in range(family.n_tasks)]


@checks_kinds
def prompts_of(episodes: Episodes, shots: int, name: str = "episodes", recipe: dict[str, Any] | None = None) -> Prompts:
    """Episodes as prompts: `shots` examples, and the next one's x as the query.

    Example:
        >>> import tv_lens as tv
        >>> episodes = tv.lab.load("bases4").family.sample(2, seed=0)
        >>> prompts_of(episodes, shots=3)
        Prompts(2 of 'episodes', 3 shots, template 'episode')
    """
    items = []
    for x, y in zip(episodes.x.tolist(), episodes.y.tolist()):
        pairs = _pairs(x[: shots + 1], y[: shots + 1])
        items.append(Prompt.build(EPISODE, pairs[:shots], pairs[shots]))
    return Prompts(tuple(items), task=name, template=EPISODE, recipe=recipe or {"task": name, "shots": shots})


def _pairs(x: Sequence[Sequence[float]], y: Sequence[float]) -> list[Pair]:
    return [Pair(x_text(one), y_text(other)) for one, other in zip(x, y)]
