"""Heads that matter in many tasks: effects averaged over tasks, by which Todd et al. choose theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from tv_lens.errors import InvalidArgument
from tv_lens.kinds import checks_methods
from tv_lens.model.hooked_model import HookedModel
from tv_lens.model.verb import verb
from tv_lens.renamed import renamed_keywords
from tv_lens.results import sweep_group
from tv_lens.results.sweep import Sweep
from tv_lens.storage import envelope
from tv_lens.storage.configuration import digest, origin
from tv_lens.storage.output_folder import file_name
from tv_lens.storage.run_folder import FolderLike, inside
from tv_lens.task_vectors.function_vector import FunctionVector
from tv_lens.task_vectors.ranking import head_ranking, ranked_heads
from tv_lens.tasks.words import TaskLike, as_task

KIND = envelope.Kind("universal_heads", "UniversalHeads.save(path)")


@checks_methods
@dataclass(frozen=True, eq=False, repr=False)
class UniversalHeads:
    """The effects of every head in several tasks, and the heads that lead on average.

    Attributes:
        by_task: what `FunctionVector.effects` returns for each task.
        over_tasks: a Sweep `example x layer x head` in which an example is the mean effects of one task, so that its
            limits resample tasks.
        measured_with: the method.

    Example:
        >>> from tv_lens.circuits.truth import switch_tasks, task_switch
        >>> from tv_lens.task_vectors.function_vector import FunctionVector
        >>> method = FunctionVector(layer=1, heads=2, shots=2, contexts=4, prompts=6)
        >>> found = universal_heads(task_switch(n=2).model, switch_tasks(), method=method, progress=False)
        >>> sorted(found.by_task)
        ['switch-a', 'switch-b']
    """

    by_task: dict[str, Sweep]
    over_tasks: Sweep
    measured_with: FunctionVector

    def heads(self, top: int = 10) -> list[tuple[int, int]]:
        """(layer, head) of the largest mean effects over tasks, all tasks with equal weight."""
        ranked = ranked_heads(self.over_tasks)
        if not 1 <= top <= len(ranked):
            raise InvalidArgument("So many heads cannot be chosen.", got=f"top={top}", allowed=f"1 to {len(ranked)}")
        return ranked[:top]

    def method(self, top: int = 10, layer: int | None = None) -> FunctionVector:
        """The method that sums these heads, for `tv.extract` on any task."""
        return replace(self.measured_with, heads=self.heads(top), layer=layer)

    def ranking(self, *, top: int = 10, level: float = 0.95, n_boot: int = 1000, seed: int = 0) -> pd.DataFrame:
        """`head_ranking` over tasks, with a column "tasks": in how many the head is among the first `top`."""
        table = head_ranking(self.over_tasks, top=top, level=level, n_boot=n_boot, seed=seed)
        firsts = [set(ranked_heads(effects)[:top]) for effects in self.by_task.values()]
        return table.assign(
            tasks=[
                sum((layer, head) in first for first in firsts) for layer, head in zip(table["layer"], table["head"])
            ]
        )

    def save(self, path: str | Path) -> Path:
        """Writes the effects and their method to one safetensors file, whole or not at all, and returns its path."""
        numbers, labels = sweep_group.packed({"over_tasks": self.over_tasks, **_named(self.by_task)})
        about = {"sweeps": labels, "tasks": list(self.by_task), "method": self.measured_with.to_dict()}
        return envelope.write(path, KIND, numbers, about, digest(self.over_tasks.provenance))

    @classmethod
    def load(cls, path: str | Path) -> UniversalHeads:
        """The effects that `save` wrote.

        Raises:
            FormatError: the file is damaged or is something else.
            MissingFile: there is no such file.
        """
        with envelope.opened(path, KIND) as file:
            names = _named(dict.fromkeys(file.labels["tasks"]))
            sweeps = sweep_group.unpacked(file, file.labels["sweeps"], ["over_tasks", *names])
            by_task = {task: sweeps[name] for task, name in zip(file.labels["tasks"], names, strict=True)}
            method = FunctionVector.from_dict(file.labels["method"])
            return cls(by_task, sweeps["over_tasks"], method)  # type: ignore[arg-type]

    def __repr__(self) -> str:
        shown = ", ".join(f"{layer}.{head}" for layer, head in self.heads(min(5, self.over_tasks.values[0].size)))
        return f"UniversalHeads(of {len(self.by_task)} tasks: {', '.join(self.by_task)}; first {shown})"


@renamed_keywords(run="folder=")
@verb
def universal_heads(
    model: HookedModel,
    tasks: Sequence[TaskLike],
    *,
    method: FunctionVector = FunctionVector(),
    seed: int = 0,
    folder: FolderLike = None,
    progress: bool = True,
) -> UniversalHeads:
    """The heads whose mean outputs cause the right answers of several tasks.

    Args:
        model: the model that is run.
        tasks: two or more; tasks, built-in names or paths.
        method: how effects are measured: its shots, contexts, prompts and template.
        seed: the draw of prompts.
        folder: a folder that keeps finished shards.
        progress: Show a progress bar (only on a terminal or in a notebook).

    Source:
        Todd et al. 2024 (arXiv 2310.15213), section 2.3: the mean of the causal indirect effects over tasks, ten heads
        (more in larger models), from 100 clean and 25 shuffled ten-shot prompts per task, which are the defaults here.

    Example:
        >>> from tv_lens.circuits.truth import switch_tasks, task_switch
        >>> method = FunctionVector(layer=1, heads=2, shots=2, contexts=4, prompts=6)
        >>> found = universal_heads(task_switch(n=2).model, switch_tasks(), method=method, progress=False)
        >>> len(found.heads(2))
        2
    """
    members = [as_task(one) for one in tasks]
    names = [task.name for task in members]
    if len(members) < 2 or len(set(names)) < len(names):
        raise InvalidArgument("A universal set of heads needs different tasks, two at least.", got=names)
    by_task = {
        task.name: method.effects(
            model, task, seed=seed, folder=inside(folder, file_name(task.name)), progress=progress
        )
        for task in members
    }
    means = np.stack([effects.mean().values for effects in by_task.values()])
    first = next(iter(by_task.values()))
    over_tasks = Sweep(
        xr.DataArray(
            means,
            dims=("example", "layer", "head"),
            coords={"layer": first.values["layer"].values, "head": first.values["head"].values},
        ),
        metric=first.metric,
        units=first.units,
        sign=first.sign,
        zero=0.0,
        name=f"mean indirect effect of every head over {len(names)} tasks",
        provenance={
            "verb": "universal_heads",
            **origin(model),
            "tasks": names,
            "method": method.to_dict(),
            "seed": seed,
            "split_half": {name: effects.provenance["split_half"] for name, effects in by_task.items()},
        },
    )
    return UniversalHeads(by_task, over_tasks, method)


def _named(by_task: Mapping[str, Any]) -> dict[str, Any]:
    """What there is of each task under the name that it has in a file."""
    return {f"by_task/{i}": one for i, one in enumerate(by_task.values())}
