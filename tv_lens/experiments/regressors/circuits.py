"""The circuit of each latent task of a regressor: the edges that answer its episodes, and the overlap between tasks."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from tv_lens.circuits import EAPIG, Circuit, Comparison, EdgeScores, compare, discover, faithfulness
from tv_lens.circuits.method import EdgeMethod
from tv_lens.errors import InvalidArgument, MisalignedPrompts
from tv_lens.experiments.records import limits_text
from tv_lens.experiments.regressors.contrasts import LatentContrast, Twin
from tv_lens.experiments.regressors.loss_changes import described, family_of
from tv_lens.kinds import checks_kinds
from tv_lens.lab.latent_task import LatentTask, latent_tasks
from tv_lens.lab.regressor import Regressor
from tv_lens.method_value import takes_method
from tv_lens.metrics import Answers, metric, squared_error
from tv_lens.model.verb import verb
from tv_lens.renamed import renamed_keywords
from tv_lens.results.concatenation import concat
from tv_lens.results.recovery import may_be_zero
from tv_lens.results.sweep import Sweep
from tv_lens.storage.output_folder import file_name
from tv_lens.storage.run_folder import FolderLike, inside
from tv_lens.tasks.prompts import PromptPairs, Prompts

_ENDS = {"mean": "", "low": "_low", "high": "_high"}


@metric(
    units="squared units of y", sign="higher is better; 0: the prediction is the answer", name="negative squared error"
)
def negative_squared_error(logits: Float[Tensor, "batch d_vocab"], answers: Answers) -> Float[Tensor, "batch"]:
    """Squared error with its sign turned, so that an edge that helps has a positive score."""
    return -squared_error(logits, answers)


@dataclass(frozen=True, eq=False, repr=False)
class LatentCircuits:
    """The circuits of a regressor's latent tasks, at one step of its training.

    Args:
        scores: the edges of each task, scored on dev episodes; `provenance["recheck"]` compares estimates with exact
            effects.
        circuits: the strongest of them, pruned; `circuit.requested` is the number before pruning.
        curves: a Sweep over task, kind ("circuit", "random", "degree-matched") and size, on test episodes; its clean
            run has the own task's answers or vector, its corrupted run another task's.
        comparison: the overlap of the tasks' strongest edges, beside the overlap that noise leaves; None for one task.
        settings: the arguments of `latent_circuits`, and the network.
    """

    scores: Mapping[str, EdgeScores]
    circuits: Mapping[str, Circuit]
    curves: Sweep
    comparison: Comparison | None
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def edges(self) -> int:
        """The number of edges of each circuit before pruning."""
        return int(self.settings["edges"])

    def gaps(self) -> Sweep:
        """The gap that edges carry: the metric of the clean run less that of the corrupted one, a Sweep over task."""
        curves = self.curves
        values = curves.clean - curves.corrupted
        if "task" not in values.dims:  # of a single task
            values = values.expand_dims(task=curves.values["task"].values)
        values = values.transpose("example", "task")
        return replace(
            curves,
            values=values,
            clean=None,
            corrupted=None,
            metric=f"gap of {curves.metric}",
            zero=0.0,
            sign="above 0: the network does better with what is the task's own than with another task's",
            name="What the circuits have to carry",
        )

    def table(self, level: float = 0.95) -> pd.DataFrame:
        """One row per task: the gap, and the share of it that circuits and random circuits carry on test episodes.

        Where the t limits of the gap contain 0 there may be nothing to carry, and no share is given.
        """
        gaps, rows = self.gaps().interval(level), []
        for task in self.curves.values["task"].values.tolist():
            low, high = (float(gaps[end].sel(task=task)) for end in ("low", "high"))
            row = {
                "task": task,
                "gap": float(gaps["mean"].sel(task=task)),
                "gap_low": low,
                "gap_high": high,
                "edges": self.edges,
                "effective": len(self.circuits[task]),
            }
            at = self.curves.sel(task=task, size=self.edges)
            recovery = None if may_be_zero(at.clean - at.corrupted, level) else at.recovery().interval(level)
            for kind, end, name in (
                ("circuit", "mean", "recovered"),
                ("circuit", "low", "recovered_low"),
                ("circuit", "high", "recovered_high"),
                ("random", "mean", "random"),
                ("degree-matched", "mean", "degree_matched"),
            ):
                row[name] = float("nan") if recovery is None else float(recovery[end].sel(kind=kind))
            rows.append({**row, "edges_for_80": self._enough(task, 0.8) if recovery is not None else None})
        return pd.DataFrame(rows).astype({"edges_for_80": "Int64"})

    def _enough(self, task: str, share: float) -> int | None:
        """The smallest circuit on the grid of sizes from which on all of them carry the share."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the gap's own interval is in the table
            recovery = self.curves.sel(task=task, kind="circuit").recovery().mean()
        below = np.flatnonzero(recovery.values < share)
        after = 0 if not len(below) else below[-1] + 1
        return int(recovery["size"].values[after]) if after < len(recovery) else None

    def __repr__(self) -> str:
        lines = [
            f"LatentCircuits of {self.settings['model']} at step {self.settings['step']}: "
            f"{len(self.scores)} tasks, {len(next(iter(self.scores.values())).graph):,} edges; "
            f"{self.settings['contrast']}"
        ]
        for row in self.table().to_dict(orient="records"):
            shares = (
                "no gap between the two runs"
                if np.isnan(row["recovered"])
                else (
                    f"{row['edges']} edges carry "
                    f"{limits_text({end: row[f'recovered{part}'] for end, part in _ENDS.items()})} "
                    f"of the gap {row['gap']:.2f}; random {row['random']:.2f}"
                )
            )
            lines.append(f"  {row['task']:<14}{shares}")
        return "\n".join(lines)


@takes_method(EdgeMethod)
@takes_method(LatentContrast, "contrast")
@renamed_keywords(random="n_random=", positions="pos=")
@verb
def latent_circuits(
    regressor: Regressor,
    *,
    contrast: LatentContrast = Twin(),
    tasks: Sequence[int] | None = None,
    shots: int | None = None,
    edges: int | None = None,
    n: int = 64,
    held_out: int = 64,
    method: EdgeMethod | None = None,
    pos: str = "kinds",
    sizes: Sequence[int] | None = None,
    n_random: int = 3,
    seed: int = 0,
    folder: FolderLike = None,
    progress: bool = True,
) -> LatentCircuits:
    """The circuit of each latent task, measured on dev episodes and evaluated on test episodes.

    In the clean run an episode goes with its own task, in the corrupted run with another latent task (the next one);
    the score of an edge is how much the last prediction needs the clean run's value of it. With `Twin()`, the other
    task answers the corrupted run's episode: the circuit infers the task and uses it. With `Injected(layer)`, both runs
    read the same episode, and a task vector is added: the circuit *decodes* the vector.

    Args:
        regressor: a network with its family of two latent tasks or more.
        contrast: the difference between the two runs: `Twin()` or `Injected(layer)`.
        tasks: labels of the latent tasks; all of them if None.
        shots: examples before the query; the contrast's own choice if None.
        edges: how many of the strongest edges make a circuit; the contrast's own choice if None.
        n: dev episodes per task that the edges are measured on.
        held_out: test episodes per task that circuits are evaluated on.
        method: `EAPIG(recheck=20)` if None: squared errors have heavy tails, so that many episodes with an estimate
            rank edges better than few with `ExactEdges()` in the same time.
        pos: the positions at which edges are distinguished; "kinds" is inputs, answers, and the query.
        sizes: numbers of edges of the curves, beside `edges` and all of them; the contrast's own choice if None.
        n_random: random circuits per size and kind.
        seed: of every draw.
        folder: a folder that keeps finished edges and circuits, so that a killed call continues there.
        progress: show a progress bar on a terminal or in a notebook.

    Source:
        `tv.discover` and `tv.circuits.faithfulness`, with their sources. The paper dissects single heads only
        (figures 17, 18).

    Example:
        >>> import tv_lens as tv
        >>> options = dict(tasks=(0, 1), n=4, held_out=4, edges=5, sizes=(1, 5), n_random=1)
        >>> latent_circuits(tv.lab.load("bases4"), **options, progress=False)
        LatentCircuits of bases4-0 at step 36000: 2 tasks, 1,227 edges; an episode against its twin, ...
          basis 0 ...
    """
    everyone = latent_tasks(family_of(regressor))
    members = _chosen(everyone, tasks)
    shots = contrast.shots(everyone[0].family.points) if shots is None else shots
    method = EAPIG(recheck=20) if method is None else method
    edits = contrast.edits(regressor, everyone, shots, seed)
    options: dict[str, Any] = dict(seed=seed, progress=progress)

    # 1. every edge's effect on dev episodes
    scores: dict[str, EdgeScores] = {}
    for task in members:
        scores[task.name] = discover(
            regressor,
            contrast.prompts(task, shots, n, seed, "dev"),
            **edits[task.label],
            metric=negative_squared_error,
            method=method,
            pos=pos,
            folder=inside(folder, f"{file_name(task.name)} edges"),
            **options,
        )
    most = min(len(one.measured) for one in scores.values())
    # Of few edges, half: all of them would carry everything and say nothing.
    edges = min(contrast.edges, max(1, most // 2)) if edges is None else min(edges, most)

    # 2. circuits of the strongest edges, on test episodes
    grid = sorted({edges, most} | {size for size in (contrast.sizes if sizes is None else sizes) if size <= most})
    prompts = {task.name: contrast.prompts(task, shots, held_out, seed, "test") for task in members}
    curves = _curves(regressor, scores, prompts, folder, sizes=grid, n_random=n_random, **options)

    # 3. what the tasks share
    comparison = compare(scores, size=edges, seed=seed) if len(scores) > 1 and n >= 4 else None
    settings = dict(
        contrast=contrast.description,
        edges=edges,
        shots=shots,
        n=n,
        held_out=held_out,
        pos=pos,
        n_random=n_random,
        seed=seed,
    )
    circuits = {name: one.top(edges).prune() for name, one in scores.items()}
    return LatentCircuits(scores, circuits, curves, comparison, {**described(regressor), **settings})


def _chosen(everyone: Sequence[LatentTask], labels: Sequence[int] | None) -> list[LatentTask]:
    """The latent tasks of these labels; all of them for None."""
    members = [task for task in everyone if labels is None or task.label in labels]
    if len(everyone) < 2 or not members or (labels is not None and len(members) < len(set(labels))):
        raise InvalidArgument(
            "A circuit needs an episode, and what is another latent task's.",
            got=f"tasks={labels} of {len(everyone)}",
            allowed=f"labels from 0 to {len(everyone) - 1} of two tasks or more",
        )
    return members


def _curves(
    regressor: Regressor,
    scores: Mapping[str, EdgeScores],
    prompts: Mapping[str, Prompts | PromptPairs],
    folder: FolderLike,
    **options: Any,
) -> Sweep:
    """What the circuits of each task and size carry on its prompts: a Sweep over task, kind and size."""
    curves = []
    for name, one in scores.items():
        sweep = faithfulness(
            regressor, one, prompts[name], folder=inside(folder, f"{file_name(name)} circuits"), **options
        )
        curves.append(replace(sweep, values=sweep.values.drop_vars("effective")))
    joined = concat(curves, "task", list(scores), name="What circuits of each size carry")
    return replace(joined, values=joined.values.assign_coords(task=np.array(list(scores))))


@checks_kinds
def circuits_before_after(before: LatentCircuits, after: LatentCircuits) -> pd.DataFrame:
    """Two checkpoints side by side, one row per task: gaps, shares carried, and the overlap of the strongest edges.

    `overlap` is the Jaccard index of the two checkpoints' `edges` strongest edges; `overlap_after` is the overlap
    between the two halves of the later one's own episodes: the value to expect if nothing had changed.

    Raises:
        MisalignedPrompts: the two differ in their tasks, sizes or edges.
    """
    same = list(before.scores) == list(after.scores) and before.edges == after.edges
    graphs = [[one.graph for one in result.scores.values()] for result in (before, after)]
    if not same or any(not torch.equal(one.edges, other.edges) for one, other in zip(*graphs)):
        raise MisalignedPrompts(
            "These circuits are not those of one network at two steps.",
            got=f"{before!r}\n{after!r}",
            allowed="the same tasks, edges and positions",
        )
    first, second = (result.table().set_index("task") for result in (before, after))
    rows = []
    for task in before.scores:
        masks = [result.scores[task].top(result.edges).mask for result in (before, after)]
        row: dict[str, Any] = {"task": task}
        for name in ("gap", "recovered", "edges_for_80"):
            row |= {f"{name}_before": first.loc[task, name], f"{name}_after": second.loc[task, name]}
        row["overlap"] = float((masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum())
        row["overlap_after"] = (
            float("nan")
            if after.comparison is None
            else float(after.comparison.overlap.mean().sel(task=task, other=task))
        )
        rows.append(row)
    return pd.DataFrame(rows)
