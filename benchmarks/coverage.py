"""How often limits hold the truth, for every kind of number that the library shows with limits.

    python benchmarks/coverage.py                          # every kind: about ten minutes of one core
    python benchmarks/coverage.py --only mean recovery     # some kinds
    python benchmarks/coverage.py --simulations 200 --sizes 6 12 --only rate
    python benchmarks/coverage.py --tests                  # calibration and power of tests
    python benchmarks/coverage.py --speed                  # an interval on 3,000 cells x 100 examples

Data are drawn with a known truth and go through the library's own functions; nominal coverage is 0.95. A cell of the
table is the share of samples whose limits hold the truth, among those that have limits. Where less than all have some
("too few", no spread, a gap that may be 0) the share that does stands in brackets, and "–" where none has.

A kind of number is a function of `(random, distribution, n, simulations)` that returns low and high limits of each
simulated sample, and the truth: register it with `@kind("its name")`. A test is a function of `random` that returns a
p-value, on data of its null and on data of an alternative: register it with `@test("its name")`.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import xarray as xr
from scipy import stats

from tv_lens.circuits.permutation_tests import chance_of_difference, chance_of_overlap
from tv_lens.experiments.training.timing import ChangePoints, Curves
from tv_lens.lab.co_movement import pairing_test, shift_test
from tv_lens.results.bootstrap import resampled_means
from tv_lens.results.correlations import jackknife_limits, resampled_limits, squared
from tv_lens.results.differences import difference
from tv_lens.results.draw_limits import LEAST_EPISODES
from tv_lens.results.limits import difference_of_means
from tv_lens.results.sweep import Sweep
from tv_lens.results.vote_limits import SHARE as POINTS
from tv_lens.task_vectors.decodability_result import METRIC
from tv_lens.task_vectors.half_votes import contributions
from tv_lens.task_vectors.neighbours import neighbours, prepared, vote
from tv_lens.task_vectors.ranking import head_ranking

SIZES = (6, 10, 12, 20, 50)
SHARE = "share of examples"
BATCH = 250  # simulated samples that share the resamples of one bootstrap


class Distribution(NamedTuple):
    """Draws of known mean and standard deviation; `rate` is the rate of a Bernoulli distribution, else None."""

    draw: Callable[..., np.ndarray]
    mean: float
    sd: float
    rate: float | None = None


def bernoulli(rate: float) -> Distribution:
    draw = lambda random, size: (random.random(size) < rate).astype(float)  # noqa: E731
    return Distribution(draw, rate, float(np.sqrt(rate * (1 - rate))), rate)


_SQUARE = np.exp(0.25)  # of a log-normal distribution with sigma 0.5
DISTRIBUTIONS = {
    "normal": Distribution(lambda random, size: random.normal(size=size), 0.0, 1.0),
    "Bernoulli .05": bernoulli(0.05),
    "Bernoulli .5": bernoulli(0.5),
    "Bernoulli .8": bernoulli(0.8),
    "t, 3 df": Distribution(lambda random, size: random.standard_t(3, size=size), 0.0, float(np.sqrt(3))),
    "log-normal .5": Distribution(
        lambda random, size: random.lognormal(0, 0.5, size),
        float(np.exp(0.125)),
        float(np.sqrt(_SQUARE * (_SQUARE - 1))),
    ),
}


class Limits(NamedTuple):
    """Limits of simulated samples, NaN where a sample has none, and the truth they should hold."""

    low: np.ndarray
    high: np.ndarray
    truth: float


Kind = Callable[[np.random.Generator, Distribution, int, int], Limits | None]
Test = Callable[[np.random.Generator, bool], float]
KINDS: dict[str, Kind] = {}
TESTS: dict[str, Test] = {}


def kind(name: str) -> Callable[[Kind], Kind]:
    """Registers a kind of number; it returns None for a distribution that it cannot have."""

    def register(function: Kind) -> Kind:
        KINDS[name] = function
        return function

    return register


def test(name: str) -> Callable[[Test], Test]:
    """Registers a test: a function of a generator and of whether its null holds, which returns a p-value."""

    def register(function: Test) -> Test:
        TESTS[name] = function
        return function

    return register


def sweep(
    values: np.ndarray,
    units: str = "u",
    group: np.ndarray | None = None,
    context: np.ndarray | None = None,
    **more: object,
) -> Sweep:
    """A sweep with one cell per simulated sample."""
    labels = {name: ("example", one) for name, one in (("group", group), ("context", context)) if one is not None}
    array = xr.DataArray(values, dims=("example", "sample"), coords=labels)
    named = {name: None if one is None else xr.DataArray(one, dims=("example", "sample")) for name, one in more.items()}
    return Sweep(array, "m", units, "s", **named)


def limits(one: Sweep, truth: float, **options: object) -> Limits:
    found = one.interval(**options)
    return Limits(found["low"].values, found["high"].values, truth)


# ---- rates, means, differences --------------------------------------------------------------------------------------


@kind("rate")
def rate(random: np.random.Generator, one: Distribution, n: int, simulations: int) -> Limits | None:
    """The share of n examples that are right."""
    return None if one.rate is None else limits(sweep(one.draw(random, (n, simulations)), SHARE), one.rate)


@kind("rate over groups")
def rate_over_groups(random: np.random.Generator, one: Distribution, n: int, simulations: int) -> Limits | None:
    """The share right among n groups of four examples that are alike: in each group three of four follow its own."""
    if one.rate is None:
        return None
    shared, own = one.draw(random, (n, 1, simulations)), one.draw(random, (n, 4, simulations))
    bits = np.where(random.random(own.shape) < 0.75, shared, own).reshape(4 * n, simulations)
    return limits(sweep(bits, SHARE, np.repeat(np.arange(n), 4)), one.rate)


@kind("mean of rates")
def mean_of_rates(random: np.random.Generator, one: Distribution, n: int, simulations: int) -> Limits | None:
    """An accuracy averaged over six tasks, example by example."""
    if one.rate is None:
        return None
    return limits(sweep(one.draw(random, (n, 6, simulations)).mean(1), SHARE), one.rate)


@kind("difference of two rates, paired")
def difference_of_rates(random: np.random.Generator, one: Distribution, n: int, simulations: int) -> Limits | None:
    """An accuracy less another on the same examples, which is half as large."""
    if one.rate is None:
        return None
    right = one.draw(random, (n, simulations))
    other = right * (random.random(right.shape) < 0.4) + (1 - right) * (random.random(right.shape) < 0.05)
    truth = one.rate - (0.4 * one.rate + 0.05 * (1 - one.rate))
    return limits(sweep(right - other, SHARE), truth, method="difference of rates")


@kind("mean")
def mean(random: np.random.Generator, one: Distribution, n: int, simulations: int) -> Limits | None:
    return None if one.rate is not None else limits(sweep(one.draw(random, (n, simulations))), one.mean)


@kind("mean over groups")
def mean_over_groups(random: np.random.Generator, one: Distribution, n: int, simulations: int) -> Limits | None:
    """The mean over n groups of one to three examples that are alike."""
    if one.rate is not None:
        return None
    group = np.repeat(np.arange(n), 1 + np.arange(n) % 3)
    values = one.draw(random, (n, simulations))[group] + 0.3 * random.normal(size=(len(group), simulations))
    return limits(sweep(values, group=group), one.mean)


@kind("difference of two means, paired")
def paired(random: np.random.Generator, one: Distribution, n: int, simulations: int) -> Limits | None:
    if one.rate is not None:
        return None
    level, gain = random.normal(0, 2, (n, simulations)), one.draw(random, (n, simulations))
    return limits(sweep((level + gain) - level), one.mean)


@kind("difference of two means, two groups")
def two_groups(random: np.random.Generator, one: Distribution, n: int, simulations: int) -> Limits:
    """Of shares averaged over six tasks where the distribution is a rate, as for accuracies of two sets of prompts."""
    shape = (n, 6, simulations) if one.rate is not None else (n, 1, simulations)
    first, second = one.draw(random, shape).mean(1), one.draw(random, shape).mean(1)
    found = [difference_of_means(first[:, i], second[:, i])[:2] for i in range(simulations)]
    low, high = np.array(found).T
    return Limits(low, high, 0.0)


_CONTEXTS = 6  # with which queries are crossed


def _crossed(random: np.random.Generator, one: Distribution, n: int, simulations: int) -> tuple[np.ndarray, ...]:
    """n queries, each in the same contexts: effects of queries, of contexts and of pairs, in shares .4, .4 and .2."""
    labels = np.repeat(np.arange(n), _CONTEXTS), np.tile(np.arange(_CONTEXTS), n)
    one_of = one if one.rate is None else DISTRIBUTIONS["normal"]  # a rate: how often a sum is below its threshold
    shapes = ((n, 1, simulations), (1, _CONTEXTS, simulations), (n, _CONTEXTS, simulations))
    parts = [(one_of.draw(random, shape) - one_of.mean) / one_of.sd for shape in shapes]
    values = sum(np.sqrt(share) * part for share, part in zip((0.4, 0.4, 0.2), parts)).reshape(-1, simulations)
    return (values if one.rate is None else (values < stats.norm.ppf(one.rate)).astype(float), *labels)


@kind("mean over queries and contexts")
def crossed_mean(random: np.random.Generator, one: Distribution, n: int, simulations: int) -> Limits | None:
    """The mean over n queries that are crossed with six contexts."""
    if one.rate is not None:
        return None
    values, query, context = _crossed(random, one, n, simulations)
    return limits(sweep(values, group=query, context=context), 0.0)


@kind("rate over queries and contexts")
def crossed_rate(random: np.random.Generator, one: Distribution, n: int, simulations: int) -> Limits | None:
    if one.rate is None:
        return None
    values, query, context = _crossed(random, one, n, simulations)
    return limits(sweep(values, SHARE, query, context), one.rate)


# ---- shares of a gap ------------------------------------------------------------------------------------------------


def _gaps(random: np.random.Generator, n: int, simulations: int) -> np.ndarray:
    return random.lognormal(0, 0.5, (n, simulations))


@kind("recovery")
def recovery(random: np.random.Generator, one: Distribution, n: int, simulations: int) -> Limits:
    """0.7 of a log-normal gap, with noise of the distribution; of a rate: bits that are recovered at that rate."""
    if one.rate is not None:
        clean = (random.random((n, simulations)) < 0.9).astype(float)
        corrupted = clean * (random.random(clean.shape) < 0.1)
        values, truth = corrupted + one.draw(random, clean.shape) * (clean - corrupted), one.rate
        made = sweep(values, SHARE, clean=clean, corrupted=corrupted)
    else:
        gap, truth = _gaps(random, n, simulations), 0.7
        noise = 0.3 * (one.draw(random, gap.shape) - one.mean) / one.sd
        made = sweep(0.7 * gap + noise, "logits", clean=gap, corrupted=np.zeros_like(gap))
    return limits(made.recovery(), truth)


@kind("faithfulness")
def faithfulness(random: np.random.Generator, one: Distribution, n: int, simulations: int) -> Limits | None:
    """A circuit that carries a share of each example's gap: 0.8 on average, with the spread of the distribution."""
    if one.rate is not None:
        return None
    gap, base = _gaps(random, n, simulations), random.normal(0, 1, (n, simulations))
    share = 0.8 + 0.2 * (one.draw(random, gap.shape) - one.mean) / one.sd
    made = sweep(base + share * gap, "logits", clean=base + gap, corrupted=base)
    return limits(made.recovery(), 0.8)


# ---- correlations, over n tasks or over n prompts behind each of 18 points ------------------------------------------


def _pairs(random: np.random.Generator, one: Distribution, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Two columns whose correlation is 0.8."""
    x, other = one.draw(random, shape), one.draw(random, shape)
    return x, 0.8 * x + 0.6 * other


@kind("R² over tasks")
def r2_over_tasks(random: np.random.Generator, one: Distribution, n: int, simulations: int) -> Limits | None:
    """Of n points; 0.64 in truth."""
    if one.rate is not None:
        return None
    found = []
    for _ in range(simulations):
        x, y = _pairs(random, one, (n,))
        without = [np.corrcoef(np.delete(x, i), np.delete(y, i))[0, 1] for i in range(n)]
        found.append(squared(jackknife_limits(np.corrcoef(x, y)[0, 1], np.array(without))))
    low, high = np.array(found).T
    return Limits(low, high, 0.64)


def _over_prompts(statistic: Callable[[np.ndarray, np.ndarray], np.ndarray], is_correlation: bool) -> Kind:
    """A statistic of 18 points, each the mean of n examples; the truth is its mean over other draws of n examples."""

    def covered(random: np.random.Generator, one: Distribution, n: int, simulations: int) -> Limits:
        spread = 0.2 if one.rate is None else min(0.2, one.rate / 3, (1 - one.rate) / 3)
        places = np.stack(_pairs(random, DISTRIBUTIONS["normal"], (18,)))
        places = spread * (places - places.mean(1, keepdims=True)) / places.std(1, keepdims=True)

        def measured(truth: np.ndarray, count: int) -> np.ndarray:  # the means of n examples at each point
            if one.rate is not None:
                return random.binomial(n, np.clip(truth, 0.001, 0.999), (count, *truth.shape)) / n
            noise = one.draw(random, (count, n, *truth.shape)).mean(1) - one.mean
            return truth + 0.5 * noise

        truth = places + (one.rate if one.rate is not None else 0.0)
        many = statistic(*np.moveaxis(measured(truth, 3000), 1, 0))
        fisher = np.arctanh if is_correlation else np.asarray
        back = np.tanh if is_correlation else float
        expected = float(back(np.nanmean(fisher(many))))
        found = []
        for sample in measured(truth, simulations):
            if one.rate is not None:
                draws = random.binomial(n, sample, (400, *sample.shape)) / n
            else:
                draws = sample + 0.5 * one.sd / np.sqrt(n) * random.normal(size=(400, *sample.shape))
            value = float(statistic(*sample[:, None])[0])
            drawn = statistic(*np.moveaxis(draws, 1, 0))
            found.append(resampled_limits(value, drawn, 18, n, correlation=is_correlation))
        low, high = np.array(found).T
        return Limits(low, high, expected)

    return covered


def _correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, y = x - x.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (x * y).sum(-1) / np.sqrt((x * x).sum(-1) * (y * y).sum(-1))


def _slope(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return _correlation(x, y) * y.std(-1) / x.std(-1)


def _rank_correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return _correlation(stats.rankdata(x, axis=-1), stats.rankdata(y, axis=-1))


kind("correlation (R²) over prompts")(_over_prompts(_correlation, True))
kind("rank correlation over prompts")(_over_prompts(_rank_correlation, True))
kind("slope over prompts")(_over_prompts(_slope, False))


# ---- kinds of decodability and change points: registered below this line ---------------------------------------------

_VOTERS, _CLASSES, _TRUTHS = 5, 4, 400  # neighbours that vote, classes, and draws behind each truth


def decodability(points: np.ndarray, k: int = _VOTERS) -> Sweep:
    """`example task`: decodability of points `task example d`, as `tv.decodability` measures it."""
    placed = prepared(torch.from_numpy(points.reshape(-1, points.shape[-1])))
    labels = torch.arange(len(points)).repeat_interleave(points.shape[1])
    hits = (vote(labels, *neighbours(placed, k)) == labels).view(len(points), -1).T.numpy()
    votes = contributions(placed, labels, hits, k=k)
    dims = ("example", "task")
    return Sweep(xr.DataArray(hits.astype(float), dims=dims), METRIC, POINTS, "s", votes=xr.DataArray(votes, dims=dims))


def _decoded(of: Callable[[Sweep, Sweep], Sweep]) -> Kind:
    """Limits of a number of decodability; the truth is its mean over many more draws of as many points.

    Two layers hold the same points; in the second the classes are farther from each other, and noise is partly new.
    """

    def covered(random: np.random.Generator, one: Distribution, n: int, simulations: int) -> Limits | None:
        if one.rate is not None or n < 6:
            return None
        means = np.random.default_rng(7).normal(size=(_CLASSES, 1, 20))

        def layers(rng: np.random.Generator) -> tuple[Sweep, Sweep]:
            own, new = (one.draw(rng, (2, _CLASSES, n, 20)) - one.mean) / one.sd
            return decodability(own + 0.35 * means), decodability(0.6 * own + 0.8 * new + 0.5 * means)

        many = _drawn(layers, one.sd, np.random.default_rng(11), n, _TRUTHS)
        truth = float(np.mean([float(of(*pair).mean()) for pair in many]))
        found = [of(*pair).interval() for pair in _drawn(layers, one.sd, random, n, simulations)]
        low, high = (np.array([float(each[end]) for each in found]) for end in ("low", "high"))
        return Limits(low, high, truth)

    return covered


_DRAWN: dict[tuple[object, ...], list] = {}


def _drawn(draw: Callable, sd: float, random: np.random.Generator, n: int, count: int) -> list:
    """So many draws; kinds that look at the same ones share them."""
    key = (draw.__qualname__, sd, n, count, random.bit_generator.state["state"]["state"])
    if key not in _DRAWN:
        _DRAWN[key] = [draw(random) for _ in range(count)]
    return _DRAWN[key]


def _a_class(one: Sweep, other: Sweep) -> Sweep:
    return one.sel(task=0)


def _mean_of_classes(one: Sweep, other: Sweep) -> Sweep:
    return one.mean("task")


def _two_classes(one: Sweep, other: Sweep) -> Sweep:
    return difference(one.sel(task=0), one.sel(task=1))


def _two_layers(one: Sweep, other: Sweep) -> Sweep:
    return difference(other.mean("task"), one.mean("task"))


kind("decodability of a class")(_decoded(_a_class))
kind("decodability, mean over classes")(_decoded(_mean_of_classes))
kind("difference of two classes' decodability")(_decoded(_two_classes))
kind("difference of two layers' decodability")(_decoded(_two_layers))


def _curves(random: np.random.Generator, one: Distribution, n: int) -> Curves:
    """Loss and decodability of four classes that move away from one another, at step 13 or 20, over checkpoints."""
    steps = (0, *(2**i for i in range(9)))
    means = np.random.default_rng(7).normal(size=(_CLASSES, 1, 20))
    own = (one.draw(random, (_CLASSES, n, 20)) - one.mean) / one.sd
    at = np.log2([13, 20, 13, 20])
    votes, losses = [], []
    for i in range(len(steps)):
        moved = 1 / (1 + np.exp(-(i - 1 - at) / 0.7))
        found = decodability(own + 1.0 * moved[:, None, None] * means)
        votes.append(found.votes.values)
        losses.append(1 - 0.9 * moved + 0.3 * own[:, :, 0].T)
    td, loss = np.stack(votes, axis=1), np.stack(losses, axis=1)  # example step task
    blind = np.ones((n, _CLASSES))
    names = tuple(map(str, range(_CLASSES)))
    return Curves("simulated", names, steps, loss, td, blind, 0.1 * blind, blind, 0.25, "layer 1")


def _changes(of: Callable[[ChangePoints], tuple[float, float, float]]) -> Kind:
    """Limits of where curves change; the truth is the mean over many more draws of as many points."""

    def covered(random: np.random.Generator, one: Distribution, n: int, simulations: int) -> Limits | None:
        if one.rate is not None or n < LEAST_EPISODES:
            return None

        def points(rng: np.random.Generator) -> ChangePoints:
            return ChangePoints.of(_curves(rng, one, n), n_boot=400)

        many = _drawn(points, one.sd, np.random.default_rng(11), n, _TRUTHS // 4)
        found = [of(each) for each in _drawn(points, one.sd, random, n, simulations)]
        _, low, high = np.array(found).T
        return Limits(low, high, float(np.nanmean([of(each)[0] for each in many])))

    return covered


def _of_decodability(points: ChangePoints) -> tuple[float, float, float]:
    row = points.table().set_index(["curve", "task"]).loc["TD", "0"]
    return tuple(np.log2([row.step, row.low, row.high]))


def _of_lag(points: ChangePoints) -> tuple[float, float, float]:
    row = points.lags().iloc[0]
    return row.lag, row.low, row.high


def _of_stagger(points: ChangePoints) -> tuple[float, float, float]:
    rows = points.stagger(1 - 0.05 * 6)  # one of six pairs at its own level
    row = rows[rows.curve == "TD"].iloc[0]
    return tuple(np.log2([row.factor, row.low, row.high]))


kind("step at which decodability rises")(_changes(_of_decodability))
kind("factor between two such steps")(_changes(_of_stagger))
kind("factor between its step and the loss's")(_changes(_of_lag))


# ---- tests ----------------------------------------------------------------------------------------------------------


@test("pairing of curves (lab)")
def pairing(random: np.random.Generator, null: bool) -> float:
    """Two sets of four curves on three networks, whose times of change are independent, or the same."""
    ones, others = [], []
    for _ in range(3):
        times = random.uniform(5, 35, 4)
        also = random.uniform(5, 35, 4) if null else times + random.normal(0, 2, 4)
        step = np.arange(40)[:, None]
        ones.append(1 / (1 + np.exp(times - step)))
        others.append(1 / (1 + np.exp(also - step)))
    return pairing_test(ones, others).p


@test("shift of curves (lab)")
def shift(random: np.random.Generator, null: bool) -> float:
    """Two sets of four curves on three networks, whose changes are independent noise, or partly the same."""
    ones, others = [], []
    for _ in range(3):
        changes, more = random.normal(size=(2, 60, 4))
        ones.append(np.cumsum(changes, axis=0))
        others.append(np.cumsum(more if null else 0.3 * changes + more, axis=0))
    return shift_test(ones, others).p


# ---- tests of circuits ----------------------------------------------------------------------------------------------

_WRITERS, _READERS, _TOP = 12, 20, 40
_WRITER, _READER = (one.ravel() for one in np.mgrid[:_WRITERS, :_READERS])


@test("specific (tv.circuits.compare)")
def specific(random: np.random.Generator, null: bool) -> float:
    """One circuit, of which the second task has twice the strength, other noise and a number of prompts of its own."""
    effects = random.normal(size=_WRITER.size)
    other = effects if null else np.where(random.random(effects.size) < 0.2, random.normal(size=effects.size), effects)
    one = effects + random.normal(size=(20, effects.size))
    two = 2 * other + 1.5 * random.normal(size=(14, effects.size))
    return chance_of_difference(one, two, 199, random)[0]


@test("shared (tv.circuits.compare)")
def shared(random: np.random.Generator, null: bool) -> float:
    """Two tasks whose writers differ in size alike; their effects are independent, or correlate by 0.8."""
    loud = np.exp(random.normal(size=_WRITERS))[_WRITER]
    one, two, both = random.normal(size=(3, _WRITER.size))
    sizes = [np.abs(loud * (each if null else 0.5 * each + both)) for each in (one, two)]
    tops = [each >= np.sort(each)[-_TOP] for each in sizes]
    return chance_of_overlap(sizes[0], tops[0], tops[1], _WRITER, _READER, 199, random)[0]


# ---- printing -------------------------------------------------------------------------------------------------------


def coverage(name: str, distribution: str, n: int, simulations: int, seed: int = 0) -> tuple[float, float]:
    """The share of samples whose limits hold the truth, among those that have limits; and the share that has some."""
    held, shown, total = 0, 0, 0
    for start in range(0, simulations, BATCH):
        random = np.random.default_rng([seed, n, start])
        size = min(BATCH, simulations - start)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about gaps that may be 0: those samples have no limits
            found = KINDS[name](random, DISTRIBUTIONS[distribution], n, size)
        if found is None:
            return float("nan"), float("nan")
        there = np.isfinite(found.low)
        slack = 1e-9
        held += int(((found.low - slack <= found.truth) & (found.truth <= found.high + slack))[there].sum())
        shown, total = shown + int(there.sum()), total + size
    return (held / shown if shown else float("nan")), shown / total


def table(name: str, sizes: Sequence[int], simulations: int) -> pd.DataFrame:
    """One row per distribution, one column per number of units."""
    rows = {}
    for distribution in DISTRIBUTIONS:
        cells = [coverage(name, distribution, n, simulations) for n in sizes]
        if any(share == share for _, share in cells):
            rows[distribution] = [_cell(*cell) for cell in cells]
    return pd.DataFrame.from_dict(rows, orient="index", columns=[f"n = {n}" for n in sizes])


def _cell(held: float, share: float) -> str:
    if not share > 0:
        return "–"
    return f"{held:.3f}" + (f" ({share:.0%})" if share < 0.995 else "")


def calibration(name: str, simulations: int, seed: int = 0) -> dict[str, float]:
    """A test under its null (Kolmogorov-Smirnov's p against uniform, the share of p <= .05) and its power."""
    random = np.random.default_rng(seed)
    null, power = ([TESTS[name](random, holds) for _ in range(simulations)] for holds in (True, False))
    return {
        "KS p": float(stats.kstest(null, "uniform").pvalue),
        "rejected under the null": float(np.mean(np.array(null) <= 0.05)),
        "power": float(np.mean(np.array(power) <= 0.05)),
    }


def selection(sizes: Sequence[int], simulations: int, seed: int = 0) -> pd.DataFrame:
    """How often a head that is selected in a share of resamples is selected in another sample of as many prompts."""
    effects, edges = np.linspace(0, 1, 30) ** 3, [0, 0.2, 0.4, 0.6, 0.8, 1.000001]
    rows = {}
    for n in sizes:
        random, said, again = np.random.default_rng([seed, n]), [], []
        for _ in range(simulations):
            first, second = (effects + random.normal(0, 0.5, (n, 30)) for _ in range(2))
            values = xr.DataArray(first.reshape(n, 5, 6), dims=("example", "layer", "head"))
            ranking = head_ranking(Sweep(values, "m", "u", "s"), top=5, n_boot=200)
            said += ranking["selected"].tolist()
            top = np.argsort(-second.mean(0))[:5]
            again += np.isin(ranking["layer"] * 6 + ranking["head"], top).tolist()
        bins = np.digitize(said, edges) - 1
        rows[f"n = {n}"] = [
            f"{np.mean(np.array(again)[bins == i]):.2f}" if (bins == i).any() else "–" for i in range(5)
        ]
    names = [f"{low:.1f} to {min(1.0, high):.1f}" for low, high in zip(edges, edges[1:])]
    return pd.DataFrame(rows, index=names)


def speed() -> dict[str, float]:
    """Processor seconds of one interval, 3,000 cells x 100 examples, and of the percentile bootstrap of version 0.1."""
    random = np.random.default_rng(0)
    values, gap = random.normal(size=(100, 3000)), random.lognormal(0, 0.5, (100, 3000))
    made = {
        "mean": sweep(values),
        "rate": sweep((values > 1).astype(float), SHARE),
        "recovery": sweep(0.7 * gap + values, clean=gap, corrupted=np.zeros_like(gap)).recovery(),
    }
    seconds = {}
    for name, one in made.items():
        start = time.process_time()
        one.interval()
        seconds[name] = time.process_time() - start
    start = time.process_time()
    np.quantile(resampled_means(values), [0.025, 0.975], axis=0)
    return seconds | {"mean, percentile bootstrap": time.process_time() - start}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(KINDS), help="kinds of numbers; all if left out")
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES)
    parser.add_argument("--simulations", type=int, default=2000)
    parser.add_argument("--tests", action="store_true", help="calibration and power of tests instead")
    parser.add_argument("--selection", action="store_true", help="selection frequencies instead")
    parser.add_argument("--speed", action="store_true", help="processor seconds of one interval instead")
    options = parser.parse_args()
    if options.tests:
        rows = {name: calibration(name, min(options.simulations, 200)) for name in TESTS}
        print(pd.DataFrame.from_dict(rows, orient="index").round(3).to_string())
    elif options.selection:
        print(selection(options.sizes, min(options.simulations, 200)).to_string())
    elif options.speed:
        print("\n".join(f"{name}: {seconds:.2f} s" for name, seconds in speed().items()))
    else:
        for name in options.only or KINDS:
            found = table(name, options.sizes, options.simulations).to_string()
            print(f"{name}, {options.simulations} samples\n{found}\n")


if __name__ == "__main__":
    main()
