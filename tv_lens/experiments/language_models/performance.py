"""How well tasks are answered by greedy exact match, over tasks and numbers of demonstrations."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from tv_lens.metrics import exact_match, info_of
from tv_lens.model.hooked_model import HookedModel
from tv_lens.model.verb import verb
from tv_lens.patching.scoring import score
from tv_lens.progress import Bar
from tv_lens.renamed import renamed_keywords
from tv_lens.results.sweep import Sweep
from tv_lens.storage.configuration import origin
from tv_lens.storage.run_folder import FolderLike
from tv_lens.storage.runner import Piece, Work
from tv_lens.task_vectors.representations import Tasks, classes_of
from tv_lens.tasks.definition import Task
from tv_lens.tasks.templates import Template
from tv_lens.tasks.words import as_task


def tasks_of(tasks: Tasks) -> list[Task]:
    """The tasks themselves, from tasks, their names or files."""
    if isinstance(tasks, (Task, str, os.PathLike)):
        tasks = [tasks]
    if not isinstance(tasks, Mapping) and len(tasks) == 1:
        return [as_task(one) for one in tasks]
    return list(classes_of(tasks, null=False)[0].values())


@renamed_keywords(run="folder=")
@verb
def accuracies(
    model: HookedModel,
    tasks: Tasks,
    *,
    shots: int | Sequence[int] = (1, 4, 10),
    queries: int = 100,
    seed: int = 0,
    split: str = "test",
    template: Template | None = None,
    folder: FolderLike = None,
    progress: bool = True,
) -> Sweep:
    """A Sweep `example x task x shots` of greedy exact match of whole answers.

    Args:
        model: the model that answers.
        tasks: tasks, their names or files.
        shots: demonstrations per prompt.
        queries: prompts per task and shot count. If the split has fewer queries, they recur with other demonstrations;
            without demonstrations, each occurs once.
        seed: fixes the draw.
        split: the split of the queries.
        template: the text around inputs and answers, instead of the tasks' own.
        folder: a folder that keeps each task's answers, so that a killed measurement continues there.
        progress: Show a progress bar (only on a terminal or in a notebook).

    Example:
        >>> from tv_lens.circuits.truth import switch_tasks, task_switch
        >>> accuracies(task_switch(n=2).model, switch_tasks(), shots=(1, 2), queries=2, progress=False).axes
        ('task', 'shots')
    """
    shots, members = ((shots,) if isinstance(shots, int) else tuple(shots)), tasks_of(tasks)
    n = min(queries, *(len(one.split(split)) for one in members)) if 0 in shots else queries
    cells = [(one, count) for one in members for count in shots]
    config = {
        "tasks": {one.name: one.fingerprint for one in members},
        "shots": shots,
        "n": n,
        "seed": seed,
        "split": split,
        "template": [(template or one.template).to_dict() for one in members],
    }

    def answered(cell: tuple[Task, int], bar: Bar) -> Piece:
        one, count = cell
        prompts = one.prompts(count, n, seed=seed, split=split, template=template)
        return {"exact": score(model, prompts, progress=False).exact_match}

    finished = Work.on(model, "accuracies", config, folder, progress).run(
        answered, cells, label="accuracy", unit="cells"
    )
    columns = np.stack([cell["exact"] for cell in finished], axis=1).reshape(n, len(members), len(shots))
    values = xr.DataArray(
        columns.astype(float),
        dims=("example", "task", "shots"),
        coords={"task": [one.name for one in members], "shots": list(shots)},
    )
    provenance = {
        "verb": "accuracies",
        **origin(model),
        "split": split,
        "seed": seed,
        "tasks": {one.name: one.fingerprint for one in members},
        "measure": "greedy exact match",
        "majority": {one.name: round(_majority(one), 4) for one in members},
        **finished.provenance,
    }
    return Sweep(
        values,
        "accuracy",
        info_of(exact_match).units,
        "higher is better; 1: every whole answer right",
        name="exact match by task and shots",
        provenance=provenance,
    )


def _majority(task: Task) -> float:
    """The accuracy of always giving the task's most common answer."""
    outputs = [pair.output for pair in task]
    return max(map(outputs.count, set(outputs))) / len(outputs)
