"""The findings on one network that several claims and figures share: change points, coupling, patches, heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from tv_lens.experiments.claims import Claim
from tv_lens.experiments.records import Interval, interval_of
from tv_lens.experiments.regressors.heads import head_ties
from tv_lens.experiments.regressors.signs import sign_verdicts
from tv_lens.experiments.training.causal import every_second, patched_layer, turning_points
from tv_lens.experiments.training.result import Emergence
from tv_lens.experiments.training.timing import LOSS, ChangePoints, Coupling, pooled
from tv_lens.lab.change_points import LEAST_CHECKPOINTS
from tv_lens.lab.families import FunctionMixture
from tv_lens.lab.sparse_mixture import SparseMixture
from tv_lens.results.differences import difference
from tv_lens.results.limits import too_few
from tv_lens.results.sweep import Sweep
from tv_lens.viz.theme import interval_text, number

DISJOINT, MORE, OVERLAPPING, FUNCTIONS, OTHER = "disjoint", "more bases", "overlapping", "functions", "other"
UNLEARNT = "quadratic"  # the kind of function that the paper's network does not learn

# Which figure of the paper shows what, by kind of family; each stands for one section of the page.
_MAIN = {
    "training": "Fig. 2",
    "seeds": "Fig. 8",
    "timing": "Fig. 9",
    "layers": "Figs. 10, 11",
    "patching": "Fig. 7",
    "heads": "Fig. 17",
}
_AS_MAIN = {section: f"as {figure}" for section, figure in _MAIN.items()}
FIGURES = {
    DISJOINT: _MAIN,
    OTHER: _AS_MAIN,
    MORE: {**_AS_MAIN, "training": "Fig. 12", "timing": "Fig. 13", "layers": "Fig. 13, by layer"},
    OVERLAPPING: {**_AS_MAIN, "training": "Fig. 14", "timing": "Fig. 15, over training", "layers": "Fig. 15"},
    FUNCTIONS: {
        **_AS_MAIN,
        "training": "Fig. 16",
        "timing": "Fig. 16, decodability",
        "layers": "Fig. 16, by layer",
        "heads": "Fig. 18",
    },
}


def kind_of(result: Emergence) -> str:
    """Which of the paper's experiments a training repeats."""
    family = result.family
    if isinstance(family, FunctionMixture):
        return FUNCTIONS
    if not isinstance(family, SparseMixture):
        return OTHER
    if result.td_group is not None:
        return OVERLAPPING
    return DISJOINT if family.n_tasks <= 4 else MORE


Intervals = Mapping[str, Interval | Sequence[Interval]]


class Nearest(NamedTuple):
    """The reference predictor that is nearest to a network's predictions at a step.

    Args:
        reference: its name.
        bayes: the distance to the Bayes-optimal reference.
        blind: the distance to the nearest reference that does not infer the task.
        nearer: how much nearer the Bayes-optimal reference is, with limits.
    """

    reference: str
    bayes: float
    blind: float
    nearer: Interval


class Findings:
    """One network, with the numbers that several of the paper's claims about its kind of family need.

    Args:
        result: the measurements over its training.
    """

    def __init__(self, result: Emergence) -> None:
        self.result, self.kind = result, kind_of(result)
        self.figures = FIGURES[self.kind]

    @cached_property
    def points(self) -> ChangePoints:
        return self.result.change_points()

    @cached_property
    def coupling(self) -> Coupling:
        return pooled([self.points])

    @cached_property
    def stages(self) -> dict[str, int]:
        """Checkpoints to examine: "before", "middle", "last"; the first and the last where nothing is encoded."""
        stages = turning_points(self.result)
        return {"before": self.result.steps[0]} | stages if len(stages) == 1 else stages

    @cached_property
    def place(self) -> dict[str, Any]:
        return self.result.best()

    def measured(self, statement: Claim, ours: str = "", intervals: Intervals | None = None, **named: str) -> Claim:
        """A claim of the paper with this network's numbers; its `figure` is a key of `FIGURES`."""
        return statement.measured(self.result.name, ours, intervals, figure=self.figures[statement.figure], **named)

    @property
    def too_few_checkpoints(self) -> str:
        """Why the order of two changes cannot be tested, in words; "" where it can."""
        n = len(self.result.steps)
        return "" if n >= LEAST_CHECKPOINTS else too_few(n, LEAST_CHECKPOINTS, "checkpoint")

    def ratio(self, reference: str) -> Sweep:
        """`example task`: the last loss as a multiple of a reference's."""
        last = self.result.mse().isel(step=-1)
        below = self.result.references.sel(reference=reference).mean("shots").values.drop_vars("reference")
        return replace(
            last, values=last.values.drop_vars("step"), denominator=below, units="times the reference's", zero=1.0
        )

    def nearest(self, step: int, inferring: Sequence[str]) -> Nearest:
        """The reference nearest to the predictions at a step, compared with the Bayes-optimal one.

        Args:
            step: the checkpoint.
            inferring: the references that infer the task, the Bayes-optimal one first.
        """
        distance = self.result.distance.sel(step=step).mean("shots", "task")
        means = distance.mean().to_series()
        blind = means[[name for name in means.index if name not in inferring]].idxmin()
        gap = distance.sel(reference=str(blind)).values - distance.sel(reference=inferring[0]).values
        nearer = limits(replace(distance, values=gap.reset_coords(drop=True), zero=0.0))
        return Nearest(str(means.idxmin()), float(means[inferring[0]]), float(means[blind]), nearer)

    def intervals(self, cells: xr.Dataset | Sweep) -> list[Interval]:
        """Mean, low and high of each task, labelled."""
        cells = cells.interval() if isinstance(cells, Sweep) else cells
        return [{"task": str(task), **interval_of(cells.sel(task=task))} for task in cells["task"].values.tolist()]

    def ceiling(self) -> str:
        """The ceiling of decodability in words, empty where it is not known."""
        ceiling = self.result.mean_ceiling()
        return "" if ceiling is None else f"ceiling {number(ceiling)}, "

    def surface(self) -> float:
        """The best decodability without the network, at the token that is read."""
        return float(self.result.td_controls.sel(token=self.place["token"]).mean("task").mean().max())

    def level(self, level: str) -> tuple[Interval, dict[str, object]]:
        """Decodability of the task's group, or within it, at the last step, with its limits; and where it was read."""
        place = self.result.best(level=level)
        return limits(self.result.td_curve(**place, level=level).isel(step=-1).mean("task")), place

    def loss_share(self) -> xr.Dataset:
        """The last loss as a share of the loss of predicting zero, by task."""
        return self.ratio("zero").interval()

    def best_known(self, tasks: Sequence[str]) -> str:
        """In words: the share of the loss of predicting zero that the best reference leaves on these tasks."""
        means = self.result.references.mean("shots").mean().sel(task=list(tasks)).mean("task")
        share = (means / means.sel(reference="zero")).drop_sel(reference="zero")
        best = str(share["reference"].values[int(share.values.argmin())])
        return f"the best reference, {best}, leaves {number(float(share.min()))}"

    @cached_property
    def patched_layer(self) -> int:
        """The layer after which patches of answers are reported, chosen on half of the last matrix's episodes."""
        return patched_layer(self.result.patch_matrices[max(self.result.patch_matrices)])

    def clusters(self, step: int) -> list[int] | None:
        """The cluster of each task at a step: one per task that its loss already distinguishes, and 0 for all others.

        None where all tasks are distinguished, or none; and at the last step, where the paper expects all to be.
        """
        distinguished = self.distinguished(step)
        if step == self.result.steps[-1] or all(distinguished) or not any(distinguished):
            return None
        return [1 + i if one else 0 for i, one in enumerate(distinguished)]

    def distinguished(self, step: int) -> list[bool]:
        """Whether the loss of each task has dropped by a step."""
        changed, places = self.points.changed[LOSS], self.points.places[LOSS][0]
        return [bool(there and 2**place <= step) for there, place in zip(changed, places, strict=True)]

    def patched(self, step: int) -> Sweep:
        """The patch matrix at a step, at the layer that is reported, of the episodes that did not choose it."""
        return every_second(self.result.patch_matrices[step].sel(layer=self.patched_layer), 0)

    def ways(self, step: int) -> int:
        """How many ways of patching there are: positions, modes and losses."""
        return int(np.prod([self.patched(step).values.sizes[axis] for axis in ("position", "mode", "scored")]))

    def verdicts(self, step: int) -> pd.DataFrame:
        """The sign pattern at a step, one row per way of patching; limits hold for all ways at once."""
        return sign_verdicts(self.patched(step), self.clusters(step), 1 - 0.05 / self.ways(step))

    @cached_property
    def ties(self) -> pd.DataFrame | None:
        """Which head serves which task at the end, with limits for all heads at once."""
        ablation = self.result.ablations.get(self.result.steps[-1])
        if ablation is None or ablation.n < 4:  # chosen on half of the episodes, reported on the other half
            return None
        heads = ablation.values.sizes["layer"] * ablation.values.sizes["head"]
        return head_ties(ablation, how="mean", level=1 - 0.05 / heads, n_boot=4000)


def limits(sweep: Sweep) -> Interval:
    """Mean, low and high of a sweep without axes; NaN and `why` in words where there are no limits."""
    return interval_of(sweep)


def less(more: Sweep, less: Sweep) -> Interval:
    """The difference of two means over the same episodes."""
    return limits(difference(more, less))


def text_of(ends: Interval) -> str:
    """`0.75 [0.62, 0.86]`, from mean, low and high."""
    return interval_text(ends["mean"], ends["low"], ends["high"], why=ends.get("why", ""))


class Alike(NamedTuple):
    """The mean correlation among some rows, their mean correlation with another row, and the difference."""

    among: float
    beyond: float
    gap: float


def alike(correlations: np.ndarray, mine: Sequence[int], its: int) -> Alike:
    """How alike some rows of a table of correlations are, beside another row."""
    among = float(np.mean([correlations[a, b] for i, a in enumerate(mine) for b in mine[i + 1 :]]))
    beyond = float(np.mean([correlations[a, its] for a in mine]))
    return Alike(among, beyond, among - beyond)
