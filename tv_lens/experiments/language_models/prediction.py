"""Figures 4, 21 and 22: whether the tasks that are encoded well are also answered well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from tv_lens.errors import InvalidArgument, unknown
from tv_lens.experiments.language_models.performance import accuracies, tasks_of
from tv_lens.kinds import checks_kinds
from tv_lens.model.hooked_model import HookedModel
from tv_lens.model.verb import verb
from tv_lens.renamed import renamed_keywords
from tv_lens.results.correlations import jackknife_limits, resampled_limits, squared
from tv_lens.results.sweep import Sweep
from tv_lens.storage.run_folder import FolderLike, inside
from tv_lens.task_vectors.decodability import decodability
from tv_lens.task_vectors.decodability_result import CHARACTERS, TOKENS, Decodability
from tv_lens.task_vectors.representations import Tasks
from tv_lens.tasks.templates import Template
from tv_lens.viz.dispatch import plot
from tv_lens.viz.figure import Figure
from tv_lens.viz.scatter import scatter

CONTROLLED_FOR = (TOKENS, CHARACTERS)
Points = Float[np.ndarray, "cell"]
_Sides = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Fit:
    """Accuracy against decodability over tasks x shots.

    Args:
        n: the number of points: tasks times shot counts.
        slope: accuracy gained per unit of decodability.
        intercept: accuracy at decodability 0.
        r2: share of the accuracies' variance that the line explains.
        r2_low, r2_high: limits over prompts: what R2 may be on other prompts of the same number (`resampled_limits`).
        r2_tasks_low, r2_tasks_high: limits over tasks, by a jackknife: what R2 may be on other tasks.
        rank: Spearman's rank correlation.
        rank_low, rank_high: its limits over prompts.
        slope_low, slope_high: limits of the slope over prompts.

    Limits are NaN for fewer than 30 prompts behind each point, and for fewer than four tasks.
    """

    n: int
    slope: float
    intercept: float
    r2: float
    r2_low: float
    r2_high: float
    r2_tasks_low: float
    r2_tasks_high: float
    rank: float
    rank_low: float
    rank_high: float
    slope_low: float
    slope_high: float

    def __repr__(self) -> str:
        return (
            f"Fit over {self.n} points: R2 {self.r2:.2f} {self.words('r2')} over prompts, "
            f"{self.words('r2_tasks')} over tasks; slope {self.slope:.2f} {self.words('slope')}; "
            f"rank correlation {self.rank:.2f} {self.words('rank')}"
        )

    def words(self, name: str) -> str:
        """The limits of "r2", "r2_tasks", "slope" or "rank" in brackets, or that there are too few points for any."""
        low, high = getattr(self, f"{name}_low"), getattr(self, f"{name}_high")
        few = f"too few {'tasks' if name == 'r2_tasks' else 'prompts'}"
        return f"[{few}]" if low != low else f"[{low:.2f}, {high:.2f}]"


@dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """Decodability and accuracy of the same tasks at the same shot counts.

    Args:
        decodability: at every layer that was read, with its controls.
        accuracy: greedy exact match, `example task shots`.
        layer: the layer whose decodability stands beside the accuracy.
    """

    decodability: Decodability
    accuracy: Sweep
    layer: int

    def points(self, level: float = 0.95) -> pd.DataFrame:
        """One row per task and shot count: decodability, accuracy, their limits, and the surface controls."""
        return (self._points if level == 0.95 else self._table(level)).copy()

    @cached_property
    def _points(self) -> pd.DataFrame:
        return self._table(0.95)

    def _table(self, level: float) -> pd.DataFrame:
        labels = ["task", "shots"]
        here = self.decodability.sel(layer=self.layer, task=self._tasks)
        td = here.to_frame(level).rename(columns=dict(mean="TD", low="TD low", high="TD high"))[
            [*labels, "TD", "TD low", "TD high"]
        ]
        names = dict(mean="accuracy", low="accuracy low", high="accuracy high")
        acc = self.accuracy.to_frame(level).rename(columns=names)[[*labels, *names.values()]]
        table = td.merge(acc, on=labels, validate="one_to_one")
        control = (
            self.decodability.controls.mean().to_dataframe(name="mean")["mean"].unstack("control")[list(CONTROLLED_FOR)]
        )
        return table.merge(control.reset_index(), on=labels, validate="one_to_one")

    def at_shots(self, *shots: int) -> Prediction:
        """The part of the result at these shot counts, with its own best layer."""
        part = self.decodability.at_shots(*shots)
        return Prediction(part, self.accuracy.sel(shots=list(shots)), part.best_layer())

    @property
    def _tasks(self) -> list[str]:
        return list(self.accuracy.values["task"].values.tolist())

    def fit(
        self,
        *,
        controlled: bool = False,
        within_shots: bool = False,
        level: float = 0.95,
        n_boot: int = 2000,
        seed: int = 0,
    ) -> Fit:
        """The straight line through the points, with its intervals.

        Args:
            controlled: first remove what the surface controls explain from both sides (a partial correlation).
            within_shots: first remove the mean of each shot count from both sides: more demonstrations raise both.
            level: the level of the intervals.
            n_boot: how many resamples.
            seed: fixes the resamples.
        """
        key = (controlled, within_shots, level, n_boot, seed)
        if key not in self._fits:
            self._fits[key] = self._fit(*key)
        return self._fits[key]

    @cached_property
    def _fits(self) -> dict[tuple[bool, bool, float, int, int], Fit]:
        return {}

    def _fit(self, controlled: bool, within_shots: bool, level: float, n_boot: int, seed: int) -> Fit:
        td, acc, surface, n = self._cells()
        random = np.random.default_rng(seed)

        def drawn(shares: Points, n: int) -> np.ndarray:  # a bootstrap of hits is a binomial draw
            return random.binomial(n, np.clip(shares, 0, 1), size=(n_boot, len(shares))) / n

        tallies = [drawn(td, n[0]), drawn(acc, n[1]), *(drawn(one, n[0]) for one in surface if controlled)]
        sides = [td, acc, *(one for one in surface if controlled)]
        at_shots = self._indicators() if within_shots else []
        resampled = _sides([*tallies, *(np.broadcast_to(one, (n_boot, len(td))) for one in at_shots)])
        exact = _sides([one[None] for one in (*sides, *at_shots)])
        one_less = self._without_each_task([*sides, *at_shots])
        if controlled or within_shots:
            resampled, exact, one_less = _without(*resampled), _without(*exact), _without(*one_less)
        draws = _line(*resampled[:2])
        slope, correlation, rank = (float(one[0]) for one in _line(*exact[:2]))
        known: dict[str, Any] = dict(n_points=len(td), n_examples=min(n), level=level)
        of_slope = resampled_limits(slope, draws[0], **known, correlation=False)
        of_r2, of_rank = resampled_limits(correlation, draws[1], **known), resampled_limits(rank, draws[2], **known)
        over_tasks = jackknife_limits(correlation, _line(*one_less[:2])[1], level)
        intercept = float(exact[1].mean() - slope * exact[0].mean())
        return Fit(
            len(td), slope, intercept, correlation**2, *squared(of_r2), *squared(over_tasks), rank, *of_rank, *of_slope
        )

    def _cells(self) -> tuple[Points, Points, list[Points], tuple[int, int]]:
        table = self.points()
        surface = [table[name].to_numpy(float) for name in CONTROLLED_FOR]
        return (
            table["TD"].to_numpy(float),
            table["accuracy"].to_numpy(float),
            surface,
            (self.decodability.sweep.n, self.accuracy.n),
        )

    def _indicators(self) -> list[Points]:
        """Of all shot counts but one, 1 at the points of this count and 0 at the others."""
        shots = self.points()["shots"].to_numpy()
        return [(shots == one).astype(float) for one in np.unique(shots)[1:]]

    def _without_each_task(self, sides: list[Points]) -> _Sides:
        """The points of all tasks but one, for each task."""
        names = self.points()["task"].to_numpy()
        rest = np.stack([np.flatnonzero(names != name) for name in self._tasks])
        return _sides([one[rest] for one in sides])

    def __repr__(self) -> str:
        made = self.decodability.sweep.provenance
        model = made.get("full_name", made["model"])
        return (
            f"Prediction of {len(self._tasks)} tasks on {model} at layer {self.layer}\n  {self.fit()!r}\n"
            f"  beyond the surface controls: {self.fit(controlled=True)!r}"
        )


@renamed_keywords(run="folder=")
@verb
def encoding_against_accuracy(
    model: HookedModel,
    tasks: Tasks,
    *,
    shots: Sequence[int] = (1, 4, 10),
    n: int = 100,
    queries: int = 100,
    k: int = 10,
    layer: int | None = None,
    layers: Sequence[int] | None = None,
    seed: int = 0,
    template: Template | None = None,
    found: Decodability | None = None,
    folder: FolderLike = None,
    progress: bool = True,
) -> Prediction:
    """A `Prediction`: decodability at one layer beside greedy exact match, over tasks and shot counts.

    Args:
        model: the model that is read and that answers.
        tasks: a family.
        shots: demonstrations per prompt.
        n: prompts per task for decodability.
        queries: test prompts per task and shot count that are answered.
        k: neighbours that vote.
        layer: the layer whose decodability is used; the one with the largest mean over tasks and shots if None.
        layers: the layers to choose from; all if None.
        seed: fixes every draw.
        template: the text around inputs and answers, instead of the tasks' own.
        found: decodability that was measured already, with these tasks and shots.
        folder: a folder that keeps finished work.
        progress: Show a progress bar (only on a terminal or in a notebook).

    Source:
        Han et al. 2025 (arXiv 2412.12276), figures 4, 21 and 22: 18 points per family. The intervals, the rank
        correlation and the fit beyond the surface controls are ours: answers alone distinguish some tasks.
    """
    members = tasks_of(tasks)
    if len(members) * len(shots) < 4:
        raise InvalidArgument(
            "A line through tasks x shots needs more points.",
            got=f"{len(members)} tasks x {len(shots)}",
            allowed="4 or more",
        )
    wanted = layers if layer is None else [layer]
    if found is None:
        found = decodability(
            model,
            members,
            shots=tuple(shots),
            n=n,
            k=k,
            layers=wanted,
            seed=seed,
            template=template,
            folder=inside(folder, "decodability"),
            progress=progress,
        )
    known = found.sweep.values["layer"].values.tolist()
    if layer is not None and layer not in known:
        raise unknown("layer that was read", layer, known)
    answered = accuracies(
        model,
        members,
        shots=tuple(shots),
        queries=queries,
        seed=seed,
        template=template,
        folder=inside(folder, "accuracy"),
        progress=progress,
    )
    return Prediction(found, answered, found.best_layer() if layer is None else layer)


@plot.register(Prediction)
@checks_kinds
def plot_prediction(result: Prediction, *, title: str | None = None, height: int = 480) -> Figure:
    """A `Figure` of accuracy over decodability, one point per task and shot count, with the line through them."""
    fit = result.fit()
    subtitle = f"R² {fit.r2:.2f} {fit.words('r2')} over prompts, {fit.n} points, layer {result.layer}"
    return scatter(
        result.points(),
        "TD",
        "accuracy",
        colour="task",
        symbol="shots",
        line=(fit.intercept, fit.slope),
        title=title or f"Decodability explains {fit.r2:.0%} of the variance of accuracy",
        subtitle=subtitle,
        height=height,
        note="Bars are 95% intervals over prompts.",
    )


# ------------------------------------------------------------------------------------------------------- statistics


def _line(
    x: Float[np.ndarray, "draws cell"], y: Float[np.ndarray, "draws cell"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Slope, correlation and rank correlation of each draw; NaN where one side does not vary."""
    correlation, slope = _correlation(x, y)
    return slope, correlation, _correlation(_ranks(x), _ranks(y))[0]


def _correlation(
    x: Float[np.ndarray, "draws cell"], y: Float[np.ndarray, "draws cell"]
) -> tuple[np.ndarray, np.ndarray]:
    x, y = x - x.mean(axis=-1, keepdims=True), y - y.mean(axis=-1, keepdims=True)
    xx, yy, xy = (x * x).sum(axis=-1), (y * y).sum(axis=-1), (x * y).sum(axis=-1)
    still = (xx < 1e-12) | (yy < 1e-12)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(still, np.nan, xy / np.sqrt(xx * yy)), np.where(xx < 1e-12, np.nan, xy / xx)


def _ranks(values: Float[np.ndarray, "draws cell"]) -> Float[np.ndarray, "draws cell"]:
    """Ranks with ties at their mean."""
    below = (values[..., None, :] < values[..., :, None]).sum(axis=-1)
    same = (values[..., None, :] == values[..., :, None]).sum(axis=-1)
    return below + (same + 1) / 2


def _sides(parts: Sequence[np.ndarray]) -> _Sides:
    """Decodability, accuracy, and what is to be taken out of both, of each draw."""
    td, acc, *controls = parts
    return td, acc, np.stack(controls, axis=-1) if controls else td[..., None][..., :0]


def _without(
    x: Float[np.ndarray, "draws cell"],
    y: Float[np.ndarray, "draws cell"],
    controls: Float[np.ndarray, "draws cell control"],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both sides minus what a linear fit of the controls explains of them."""
    design = np.concatenate([np.ones_like(x)[..., None], controls], axis=-1)
    hat = design @ np.linalg.pinv(design)
    return x - (hat @ x[..., None])[..., 0], y - (hat @ y[..., None])[..., 0], controls
