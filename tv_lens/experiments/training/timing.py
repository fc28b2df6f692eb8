"""When each latent task's loss drops and its decodability rises, how far apart, and whether the two go together."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from jaxtyping import Float

from tv_lens.errors import EmptySelection, InvalidArgument, unknown
from tv_lens.lab.change_points import LEAST_CHECKPOINTS, crossings, log_steps, two_levels
from tv_lens.lab.co_movement import PermutationTest, pairing_test, shift_test
from tv_lens.results.bootstrap import resampled_means
from tv_lens.results.draw_limits import LEAST_NETWORKS, DrawLimits, draw_limits

LOSS, TD = "loss", "TD"
DEFINITIONS = HALF_WAY, FIT = "half-way", "fit"
_LEAST = 0.25  # of what there is to gain: a smaller jump of the two-level fit is no change
_SURE = 0.95  # the share of resamples that must show a change
_NO_CHANGE = DrawLimits(np.nan, np.nan, np.nan, "no change")


@dataclass(frozen=True, eq=False, repr=False)
class Curves:
    """The losses and decodabilities of one network, episode by episode, with their bounds.

    Args:
        name: of the network.
        tasks: the latent tasks.
        steps: the checkpoints.
        loss: mean squared error of each episode.
        td: per episode numbers with the mean of decodability, whose spread shows how much it varies: hits depend on
            one another, so these are `results.differences.independent` of a sweep of hits.
        blind: the loss of each episode under the reference that does not infer the task; None where it is not known.
        bayes: the same under the Bayes-optimal predictor.
        ceiling: 1 where the largest entry of the true posterior is right.
        chance: decodability without any information.
        place: where decodability was read, in words.
    """

    name: str
    tasks: tuple[str, ...]
    steps: tuple[int, ...]
    loss: Float[np.ndarray, "example step task"]
    td: Float[np.ndarray, "example step task"]
    blind: Float[np.ndarray, "example task"] | None
    bayes: Float[np.ndarray, "example task"] | None
    ceiling: Float[np.ndarray, "example task"] | None
    chance: float
    place: str

    def moving(self) -> tuple[Float[np.ndarray, "step task"], Float[np.ndarray, "step task"]]:
        """The mean curves that are tested for coupling, both rising; the loss is cut to that of the blind reference."""
        loss = self.loss.mean(0)
        return -(loss if self.blind is None else np.minimum(loss, self.blind.mean(0))), self.td.mean(0)

    def resampled(self, n_boot: int, seed: int) -> dict[str, np.ndarray]:
        """Means of every array, `draw ...`: over all episodes first, then over resamples, which all arrays share."""
        arrays = {name: getattr(self, name) for name in ("loss", "td", "blind", "bayes", "ceiling")}
        arrays = {name: np.asarray(array, np.float64) for name, array in arrays.items() if array is not None}
        means = {}
        for name, array in arrays.items():
            resampled = resampled_means(array.reshape(len(array), -1), n_boot, seed).reshape(-1, *array.shape[1:])
            means[name] = np.concatenate([array.mean(0)[None], resampled])
        return means


@dataclass(frozen=True, eq=False, repr=False)
class ChangePoints:
    """The steps at which loss and decodability change, with limits over resampled episodes.

    The limits say how precisely these episodes place the changes of this network; another seed of training is another
    network.

    Args:
        curves: the curves in which the changes were found.
        definition: "half-way" or "fit".
        places: by curve, log2 of the step, `draw task`, NaN for no change; the first draw is of all episodes.
        before, after: the mean before and after the change, by curve.
        thresholds: the level that is crossed, or the smallest jump that counts; by curve.
    """

    curves: Curves
    definition: str
    places: dict[str, Float[np.ndarray, "draw task"]]
    before: dict[str, Float[np.ndarray, " task"]]
    after: dict[str, Float[np.ndarray, " task"]]
    thresholds: dict[str, Float[np.ndarray, " task"]]

    @classmethod
    def of(cls, curves: Curves, definition: str = HALF_WAY, *, n_boot: int = 1000, seed: int = 0) -> ChangePoints:
        """The change points of the curves of a network.

        Args:
            curves: of the network.
            definition: "half-way": the loss falls below the middle between the reference that does not infer the task
                and the Bayes-optimal one, and decodability rises above the middle between chance and its ceiling;
                both middles are known before training. "fit": the best fit by two constants, of the loss (cut to the
                blind reference's where it is above) and of decodability; a jump under a quarter of the possible gain is
                no change.
            n_boot: resamples.
            seed: fixes them.
        """
        if definition not in DEFINITIONS:
            raise unknown("definition of a change point", definition, DEFINITIONS)
        means = curves.resampled(n_boot, seed)
        loss, td = np.moveaxis(means["loss"], 1, -1), np.moveaxis(means["td"], 1, -1)  # draw task step
        known = "bayes" in means and "blind" in means and "ceiling" in means
        if definition == HALF_WAY:
            if not known:
                raise InvalidArgument(
                    "The best predictor of this family is not known, so there is no half-way.",
                    got=f"definition={definition!r}",
                    allowed=repr(FIT),
                )
            levels = {LOSS: (means["blind"] + means["bayes"]) / 2, TD: (curves.chance + means["ceiling"]) / 2}
            changes = {
                LOSS: crossings(loss, curves.steps, levels[LOSS], rising=False),
                TD: crossings(td, curves.steps, levels[TD]),
            }
        else:
            loss = np.minimum(loss, means["blind"][..., None]) if known else loss
            gain = means["blind"] - means["bayes"] if known else loss[..., 0]
            levels = {LOSS: -_LEAST * gain, TD: _LEAST * (means.get("ceiling", np.ones_like(gain)) - curves.chance)}
            changes = {LOSS: two_levels(loss, curves.steps, levels[LOSS]), TD: two_levels(td, curves.steps, levels[TD])}
        return cls(
            curves,
            definition,
            {name: one.place for name, one in changes.items()},
            {name: one.before[0] for name, one in changes.items()},
            {name: one.after[0] for name, one in changes.items()},
            {name: one[0] for name, one in levels.items()},
        )

    @property
    def n(self) -> int:
        """Episodes per task."""
        return len(self.curves.loss)

    @cached_property
    def changed(self) -> dict[str, np.ndarray]:
        """Whether each task's curve changes: in all episodes together, and in 95 % of the resamples."""
        there = {name: np.isfinite(places) for name, places in self.places.items()}
        return {name: draws[0] & (draws[1:].mean(0) >= _SURE) for name, draws in there.items()}

    def table(self, level: float = 0.95) -> pd.DataFrame:
        """One row per task and curve: the step with its limits (NaN: no change), and the share of resamples that do.

        Where there are no limits, `why` says so.
        """
        rows = []
        for name, places in self.places.items():
            for k, task in enumerate(self.curves.tasks):
                changed = bool(self.changed[name][k])
                step, low, high, why = draw_limits(places[:, k], self.n, level) if changed else _NO_CHANGE
                rows.append(
                    {
                        "task": task,
                        "curve": name,
                        "step": 2**step,
                        "low": 2**low,
                        "high": 2**high,
                        "why": why,
                        "changed": changed,
                        "share": float(np.isfinite(places[1:, k]).mean()),
                        "before": float(self.before[name][k]),
                        "after": float(self.after[name][k]),
                        "threshold": float(self.thresholds[name][k]),
                    }
                )
        return pd.DataFrame(rows)

    def lags(self, level: float = 0.95) -> pd.DataFrame:
        """One row per task: log2 of (TD's step / the loss's step), positive where decodability is later.

        NaN where one of the two does not change; where there are no limits, `why` says so.
        """
        rows = []
        for k, task in enumerate(self.curves.tasks):
            changed = bool(self.changed[LOSS][k] and self.changed[TD][k])
            lag, low, high, why = draw_limits(self.lag_draws[:, k], self.n, level) if changed else _NO_CHANGE
            steps = {
                f"{name} step": float(2 ** places[0, k]) if self.changed[name][k] else np.nan
                for name, places in self.places.items()
            }
            rows.append(
                {
                    "run": self.curves.name,
                    "task": task,
                    **steps,
                    "lag": lag,
                    "low": low,
                    "high": high,
                    "factor": 2**lag,
                    "factor low": 2**low,
                    "factor high": 2**high,
                    "why": why,
                }
            )
        return pd.DataFrame(rows)

    @cached_property
    def lag_draws(self) -> Float[np.ndarray, "draw task"]:
        """log2 of (TD's step / the loss's step) in each resample; NaN for a task where one of the two is constant."""
        both = self.changed[LOSS] & self.changed[TD]
        return np.where(both, self.places[TD] - self.places[LOSS], np.nan)

    def stagger(self, level: float = 0.95) -> pd.DataFrame:
        """One row per curve and pair of tasks: the factor between the steps of their changes, and whether they differ.

        A factor above 1: the second task changes later. Limits hold for all pairs of a curve at once (Bonferroni). In
        a resample without a change, a task counts as changing at the last checkpoint: where its change is not sure,
        differences are lower bounds, and `censored` says so. Without limits, no two are apart and `why` says why.
        """
        end, rows = log_steps(self.curves.steps)[-1], []
        pairs = list(itertools.combinations(range(len(self.curves.tasks)), 2))
        for name, places in self.places.items():
            bounded = np.where(np.isfinite(places), places, end)
            for a, b in pairs:
                distance = bounded[:, b] - bounded[:, a]
                gap, low, high, why = draw_limits(distance, self.n, 1 - (1 - level) / len(pairs))
                rows.append(
                    {
                        "curve": name,
                        "task": self.curves.tasks[a],
                        "other": self.curves.tasks[b],
                        "factor": 2**gap,
                        "low": 2**low,
                        "high": 2**high,
                        "why": why,
                        "apart": bool(low > 0 or high < 0),
                        "censored": bool(not (self.changed[name][a] and self.changed[name][b])),
                    }
                )
        return pd.DataFrame(rows)

    def is_staggered(self, curve: str = LOSS) -> bool:
        """Whether the changes of two tasks differ, with limits for all pairs at once."""
        if curve not in self.places:
            raise unknown("curve", curve, tuple(self.places))
        table = self.stagger()
        return bool(table[table.curve == curve].apart.any())

    def __repr__(self) -> str:
        lines = [f"ChangePoints of {self.curves.name}, by {self.definition}; decodability at {self.curves.place}"]
        for row in self.table().itertuples():
            step = f"step {row.step:.0f} [{row.why or f'{row.low:.0f}, {row.high:.0f}'}]"
            change = step if row.changed else f"no change ({row.share:.0%} of resamples)"
            lines.append(f"  {row.task} {row.curve}: {change}")
        return "\n".join(lines)


@dataclass(frozen=True, eq=False, repr=False)
class Coupling:
    """The lag between the two changes of each task, and whether its decodability goes with its own loss.

    Args:
        lag: mean of log2 (TD's step / the loss's) over tasks and networks in which both change; NaN without any.
        low, high: limits over resampled episodes, for these networks.
        runs_low, runs_high: limits over resampled networks, and tasks within them; None for one network.
        lags: one row per network and task.
        n_changed: the number of tasks in which both change, over networks.
        n_curves: the number of tasks, over networks.
        definition: of a change point.
        pairing: whether each task's decodability goes with its own loss rather than with another task's.
        shift: whether both change at the same checkpoints.
        n_checkpoints: of the network with fewest.
        why, runs_why: why there are no limits over episodes, or over networks.

    Sign:
        Positive: decodability rises after the loss drops; 1 is a doubling of the step.
    """

    lag: float
    low: float
    high: float
    runs_low: float | None
    runs_high: float | None
    lags: pd.DataFrame
    n_changed: int
    n_curves: int
    definition: str
    pairing: PermutationTest
    shift: PermutationTest
    n_checkpoints: int
    why: str = ""
    runs_why: str = ""

    def sentence(self) -> str:
        """The finding in one sentence."""
        if self.n_checkpoints < LEAST_CHECKPOINTS:
            return f"{self.n_checkpoints} checkpoints cannot order two changes, at least {LEAST_CHECKPOINTS} are needed"
        if not self.n_changed:
            return "no task shows both a drop of its loss and a rise of its decodability, so there is no lag to tell"
        late = "after" if self.low > 0 else "before" if self.high < 0 else "before or after"
        factor = f"at {2**self.lag:.2f} times its step [{self.why or f'{2**self.low:.2f}, {2**self.high:.2f}'}]"
        ends = [f"{2**one:.2f}" for one in (self.runs_low, self.runs_high) if one is not None]
        over_runs = f"; [{self.runs_why or ', '.join(ends)}] over runs and tasks" if ends else ""
        return (
            f"decodability rises {late} the loss drops, {factor} over episodes{over_runs} "
            f"({self.n_changed} of {self.n_curves} tasks); own partner against another's: "
            f"r {self.pairing.statistic:.2f}, p {self.pairing.p:.3g} (smallest {self.pairing.smallest:.2g}); "
            f"at the same checkpoints: r {self.shift.statistic:.2f}, {self.shift.verdict()}"
        )

    def __repr__(self) -> str:
        return f"Coupling: {self.sentence()}"


def pooled(points: Sequence[ChangePoints], level: float = 0.95, n_boot: int = 1000, seed: int = 0) -> Coupling:
    """The coupling over networks, from the change points of each."""
    if not points:
        raise EmptySelection("There is no run to look at.", got="0 runs")
    draws = [one.lag_draws for one in points]  # draw task
    every = np.concatenate(draws, axis=1)
    over_episodes = draw_limits(_mean(every), min(one.n for one in points), level)
    over_runs: tuple[float | None, float | None, str] = (None, None, "")
    if len(points) > 1:
        random, means = np.random.default_rng(seed), [over_episodes.value]
        for _ in range(n_boot):
            runs = random.integers(len(points), size=len(points))
            tasks = [draws[run][0][random.integers(draws[run].shape[1], size=draws[run].shape[1])] for run in runs]
            means.append(_mean(np.concatenate(tasks)[None])[0])
        over_runs = draw_limits(np.array(means), len(points), level, least=LEAST_NETWORKS, unit="network")[1:]
    moving = [one.curves.moving() for one in points]
    losses, tds = [one for one, _ in moving], [other for _, other in moving]
    return Coupling(
        *over_episodes[:3],
        *over_runs[:2],
        pd.concat([one.lags(level) for one in points], ignore_index=True),
        int(np.isfinite(every[0]).sum()),
        every.shape[1],
        points[0].definition,
        pairing_test(losses, tds, seed),
        shift_test(losses, tds, seed),
        min(len(one.curves.steps) for one in points),
        over_episodes.why,
        over_runs[2],
    )


def _mean(values: np.ndarray) -> np.ndarray:
    """The mean over the last axis of what is finite; NaN where nothing is."""
    there = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.where(there, values, 0.0).sum(-1) / np.where(there.any(-1), there.sum(-1), np.nan)
