"""Which limits a number gets: one place decides by the kind of number, and says in words where there are none.

Every interval of the library comes from here. `benchmarks/coverage.py` measures how often each kind holds the truth;
`docs/statistics.md` has its table.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

from tv_lens.errors import InvalidArgument, unknown
from tv_lens.results.bootstrap import Ratio, ratio_limits, ratio_of, sums_by_group, t_limits
from tv_lens.results.rates import difference_limits, rate_limits, share_limits

AUTO, RATE, DIFFERENCE, MEAN = METHODS = ("auto", "rate", "difference of rates", "mean")
"""How limits are computed: by the values themselves ("auto"), or as those of the named kind of number."""

LEAST = {RATE: 3, "mean of rates": 6, DIFFERENCE: 6, MEAN: 6}
"""From how many units on the limits of each kind hold the truth in at least 0.93 of samples."""

SMALL_GAP = "the gap that it is a share of is not certain to differ from 0"
_SHARES = ("share", "share of examples", "share of points", "share of prompts", "share of queries", "share of episodes")
_MEAN_OF_RATES = "mean of rates"
_CHANGES = ("change", "difference", "effect", "gap", "lift", "loss of")  # names of metrics: one run less another


class Limits(NamedTuple):
    """Limits per cell, NaN where there are none, and why there are none ("" where there are)."""

    low: Float[np.ndarray, "cell"]
    high: Float[np.ndarray, "cell"]
    why: np.ndarray


def check_options(level: float, n_boot: int, method: str = AUTO) -> None:
    """Raises `InvalidArgument` for a level that is no share or a bootstrap without resamples; names unknown methods."""
    if not 0 < level < 1:
        raise InvalidArgument("An interval's level is a share.", got=level, allowed="between 0 and 1")
    if n_boot < 1:
        raise InvalidArgument("A bootstrap needs resamples.", got=n_boot, allowed="1 or more")
    if method not in METHODS:
        raise unknown("method of limits", method, METHODS)


def kind_of(values: np.ndarray, units: str = "") -> str:
    """Whether numbers are a rate, differences of two rates, or anything else, whose mean gets limits ("mean").

    Values that are all 0 or 1 are a rate, unless all are equal and the units are not a share: an effect that is 0 on
    every example is no rate of 0. Of units that are a share, means between 0 and 1 are rates, too.
    """
    known = values[~np.isnan(values)]
    if not known.size:
        return MEAN
    least, most = float(known.min()), float(known.max())
    whole, share = bool((known == np.round(known)).all()), units in _SHARES
    if least >= 0 and most <= 1 and (share or (whole and least < most)):
        return RATE
    if least >= -1 and most <= 1 and whole and (share or least < most):
        return DIFFERENCE
    return MEAN


def limits_of(
    values: Float[np.ndarray, "example cell"],
    below: Float[np.ndarray, "example cell_or_one"] | None = None,
    *,
    group: np.ndarray | None = None,
    units: str = "",
    method: str = AUTO,
    level: float = 0.95,
    n_boot: int = 1000,
    seed: int = 0,
    unit: str = "example",
    metric: str = "",
) -> Limits:
    """Limits of the mean over examples, or of `sum(values) / sum(below)`, in every cell.

    The unit is the independent draw: an example, or a group of examples. Where a cell has fewer than `LEAST` units, no
    spread, or a denominator that may be 0, limits are NaN, and `why` says so.

    Args:
        values: NaN means "not measured".
        below: denominators, for a ratio of sums; one column serves all cells.
        group: examples with the same label are one unit.
        units: of the values, which say whether they are shares.
        method: "auto" decides by the values (`kind_of`): "rate" is Wilson's score with continuity correction (Korn and
            Graubard's for means of rates and for groups), "difference of rates" Newcombe's for paired ones, "mean" the
            wider of t and bootstrap-t, which also serves ratios.
        level: nominal coverage.
        n_boot: resamples of the bootstrap-t.
        seed: fixes them.
        unit: what an example is, for the words.
        metric: a change, difference or effect is no rate, also where no value is negative.

    Example:
        >>> low, high, why = limits_of(np.array([[0.0], [1.0]] * 50))
        >>> round(float(low[0]), 2), round(float(high[0]), 2)
        (0.4, 0.6)
        >>> limits_of(np.array([[0.31], [0.25]])).why[0]
        'too few: 2 examples, at least 6 are needed'
    """
    check_options(level, n_boot, method)
    values = np.asarray(values, np.float64)
    kind = MEAN if below is not None else chosen_kind(values, units, method, metric, group is not None)
    missing = np.isnan(values)
    above, weights, present = values, np.ones((len(values), 1)) if below is None else below, (~missing).astype(float)
    if missing.any():
        above, weights = np.where(missing, 0.0, values), np.where(missing, 0.0, weights)
    if group is not None:
        above, weights, present = (sums_by_group(one, group) for one in (above, weights, present))
        unit = "group"
    n = (present > 0).sum(0).astype(np.float64)
    ratio = ratio_of(above, weights, n)
    if kind == MEAN:
        low, high = ratio_limits(ratio, weights, level=level, n_boot=n_boot, seed=seed)
        ones = np.ones((len(weights), 1))
        gaps = None if below is None else t_limits(ratio_of(weights, ones, n[: weights.shape[1]]), level)
        why = _why_no_mean(ratio, low, high, gaps, unit)
        if below is None and units in _SHARES:
            low, high = np.maximum(low, -1.0), np.minimum(high, 1.0)
    elif kind == DIFFERENCE:
        low, high = difference_limits((above > 0).sum(0).astype(float), (above < 0).sum(0).astype(float), n, level)
        why = _why_too_few(n, LEAST[kind], unit)
    else:
        bits = ((above == 0) | (above == 1)).all(0) & (group is None)
        low, high = share_limits(ratio, level)
        low[bits], high[bits] = rate_limits(above.sum(0)[bits], n[bits], level)
        why = np.where(bits, _why_too_few(n, LEAST[RATE], unit), _why_too_few(n, LEAST[_MEAN_OF_RATES], unit))
    none = why != ""
    return Limits(np.where(none, np.nan, low), np.where(none, np.nan, high), why)


def difference_of_means(one: np.ndarray, other: np.ndarray, level: float = 0.95) -> tuple[float, float, str]:
    """Welch's t limits of the difference of two means of independent units, and why there are none.

    Source: Welch 1947, Biometrika 34:28 (`scipy.stats.ttest_ind`).
    """
    check_options(level, 1)
    smaller = min(len(one), len(other))
    if smaller < LEAST[MEAN]:
        return np.nan, np.nan, too_few(smaller, LEAST[MEAN])
    if np.ptp(one) == 0 and np.ptp(other) == 0:
        return np.nan, np.nan, "no spread: the values of each group are all equal"
    low, high = stats.ttest_ind(one, other, equal_var=False).confidence_interval(level)
    return float(low), float(high), ""


def too_few(n: int, least: int, unit: str = "example") -> str:
    """The words in the place of limits where there are too few units.

    Example:
        >>> too_few(5, 8, "prompt")
        'too few: 5 prompts, at least 8 are needed'
    """
    return f"too few: {n} {unit}{'' if n == 1 else 's'}, at least {least} are needed" if n else "not measured"


def no_spread(n: int, unit: str = "example") -> str:
    """The words in the place of limits where all values are equal.

    Example:
        >>> no_spread(12)
        'no spread: all 12 examples have the same value'
    """
    return f"no spread: all {n} {unit}s have the same value"


def chosen_kind(values: np.ndarray, units: str, method: str, metric: str, grouped: bool) -> str:
    """The kind of limits that numbers get: the one that is named, or by the values, the units and the metric."""
    kind = kind_of(values, units) if method == AUTO else method
    kind = DIFFERENCE if method == AUTO and kind == RATE and metric.startswith(_CHANGES) else kind
    known = values[~np.isnan(values)]
    if kind in (RATE, DIFFERENCE) and known.size and (known.max() > 1 or known.min() < (0 if kind == RATE else -1)):
        raise InvalidArgument(
            f"These values are no {kind}.",
            got=f"values from {known.min():.4g} to {known.max():.4g}",
            allowed="0 to 1" if kind == RATE else "-1 to 1",
            do='leave method="auto", or name "mean"',
        )
    if kind == DIFFERENCE and (grouped or not bool((known == np.round(known)).all())):
        return MEAN  # of groups, or of means of several rates
    return kind


def _why_too_few(n: Float[np.ndarray, "cell"], least: int, unit: str) -> np.ndarray:
    words = {count: too_few(int(count), least, unit) if count < least else "" for count in np.unique(n)}
    return np.array([words[count] for count in n], dtype=object)


def _why_no_mean(
    ratio: Ratio,
    low: Float[np.ndarray, "cell"],
    high: Float[np.ndarray, "cell"],
    gaps: tuple[np.ndarray, np.ndarray] | None,
    unit: str,
) -> np.ndarray:
    """Why a mean or a ratio has no limits; `gaps` are the limits of the denominators' mean."""
    why = _why_too_few(ratio.n, LEAST[MEAN], unit)
    if gaps is not None:
        why[(why == "") & np.broadcast_to((gaps[0] <= 0) & (gaps[1] >= 0), why.shape)] = SMALL_GAP
    for cell in np.flatnonzero((why == "") & (ratio.error == 0)):
        why[cell] = no_spread(int(ratio.n[cell]), unit)
    why[(why == "") & ~(np.isfinite(low) & np.isfinite(high))] = f"too few {unit}s differ from the others"
    return why
