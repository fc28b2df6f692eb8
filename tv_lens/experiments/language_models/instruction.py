"""Figures 25 and 26 and a row of table 1: what an instruction in the prompt does to decodability and accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from tv_lens.experiments.language_models.performance import tasks_of
from tv_lens.experiments.language_models.prediction import Prediction, encoding_against_accuracy
from tv_lens.model.hooked_model import HookedModel
from tv_lens.model.verb import verb
from tv_lens.renamed import renamed_keywords
from tv_lens.results.concatenation import concat
from tv_lens.results.sweep import Sweep
from tv_lens.storage.run_folder import FolderLike, inside
from tv_lens.task_vectors.representations import Tasks
from tv_lens.tasks.definition import Task
from tv_lens.tasks.templates import Template

CONDITIONS = ("demonstrations", "instruction")


@dataclass(frozen=True, eq=False, repr=False)
class Instruction:
    """The same prompts without and with a sentence that states the task.

    Args:
        plain: decodability and accuracy of the prompts as they are.
        told: the same with the instruction before them.
    """

    plain: Prediction
    told: Prediction

    @property
    def accuracy(self) -> Sweep:
        """Exact match, `example condition task shots`."""
        return concat([self.plain.accuracy, self.told.accuracy], "condition", list(CONDITIONS))

    def table(self, level: float = 0.95) -> pd.DataFrame:
        """One row per condition and shot count: accuracy, decodability over tasks, and decodability at the first layer.

        "TD at layer 0" is the control: the inputs differ, so decodability that is high there need not be inferred. The
        last columns name the strongest control beside each decodability (`Decodability.strongest_control`).
        """
        rows = []
        for name, one in zip(CONDITIONS, (self.plain, self.told)):
            tasks, layers = list(one.decodability.tasks), one.decodability.sweep.values["layer"].values.tolist()
            for shots in one.accuracy.values["shots"].values.tolist():
                td = one.decodability.sel(layer=one.layer, shots=shots, task=tasks).mean("task").interval(level)
                acc = one.accuracy.sel(shots=shots).mean("task").interval(level)
                strongest, votes = one.decodability.strongest_control(shots)
                first = float(one.decodability.sel(layer=layers[0], shots=shots, task=tasks).mean().mean())
                rows.append(
                    {
                        "condition": name,
                        "shots": shots,
                        "layer": one.layer,
                        "TD": float(td["mean"]),
                        "TD low": float(td["low"]),
                        "TD high": float(td["high"]),
                        f"TD at layer {layers[0]}": first,
                        "accuracy": float(acc["mean"]),
                        "accuracy low": float(acc["low"]),
                        "accuracy high": float(acc["high"]),
                        "strongest control": strongest,
                        "TD of it": float(votes.mean()),
                    }
                )
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        return f"Instruction\n{self.table().round(3).to_string(index=False)}"


@renamed_keywords(run="folder=")
@verb
def with_instruction(
    model: HookedModel,
    tasks: Tasks,
    *,
    shots: Sequence[int] = (1, 4),
    n: int = 100,
    queries: int = 100,
    k: int = 10,
    layers: Sequence[int] | None = None,
    seed: int = 0,
    plain: Prediction | None = None,
    folder: FolderLike = None,
    progress: bool = True,
) -> Instruction:
    """An `Instruction`: decodability by layer and accuracy, with and without the tasks' instructions.

    Args:
        model: the model.
        tasks: a family whose tasks have instructions ("pos" and "bitwise" do; `task.instructed("...")` gives one).
        shots: demonstrations per prompt.
        n: prompts per task for decodability.
        queries: test prompts per task and shot count.
        k: neighbours that vote.
        layers: the layers that are read; all if None. Layer 0 is always read, as the control.
        seed: fixes every draw.
        plain: the prediction of the prompts without instruction, if it was measured already with the same arguments.
        folder: a folder that keeps finished work.
        progress: Show a progress bar (only on a terminal or in a notebook).

    Raises:
        InvalidArgument: a task has no instruction.

    Source:
        Han et al. 2025 (arXiv 2412.12276), appendix I. The Null task's instruction is to answer at random, so that the
        presence of an instruction does not distinguish it. The control at the first layer answers the authors' caution.
    """
    members = tasks_of(tasks)
    instructed = [one.instructed() if not _told(one) else one for one in members]
    bare = [one.replace(template=_bare(one)) for one in members]
    layers = None if layers is None else sorted({0, *layers})
    options = dict(shots=tuple(shots), n=n, queries=queries, k=k, layers=layers, seed=seed, progress=progress)
    if plain is None:
        plain = encoding_against_accuracy(model, bare, folder=inside(folder, CONDITIONS[0]), **options)
    return Instruction(
        plain, encoding_against_accuracy(model, instructed, folder=inside(folder, CONDITIONS[1]), **options)
    )


def _told(task: Task) -> bool:
    return bool(task.instruction) and task.template.prefix.startswith(task.instruction)


def _bare(task: Task) -> Template:
    return (
        replace(task.template, prefix=task.template.prefix[len(task.instruction) :]) if _told(task) else task.template
    )
