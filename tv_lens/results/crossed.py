"""Limits where every query is asked in every context: both are draws, so both are resampled."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from tv_lens.results.bootstrap import Ratio, ratio_of, sums_by_group
from tv_lens.results.limits import AUTO, MEAN, RATE, Limits, chosen_kind, limits_of, too_few
from tv_lens.results.rates import share_limits

_RARE = 4  # at most so many independent examples per unit where the rarer outcome was met in few units

LEAST = 6
"""From how many queries and how many contexts on limits of crossed draws hold the truth in at least 0.93 of samples."""


def crossed_limits(
    values: Float[np.ndarray, "example cell"],
    below: Float[np.ndarray, "example cell_or_one"] | None,
    *,
    group: np.ndarray,
    context: np.ndarray,
    level: float = 0.95,
    units: str = "",
    method: str = AUTO,
    metric: str = "",
    **options: Any,
) -> Limits:
    """Limits of a mean, a rate or a ratio of sums over queries and contexts that are crossed.

    On each side the widest of the limits over queries alone, over contexts alone, and of Student's t with the variance
    of both and one degree of freedom fewer than there are of the rarer kind.

    Args:
        values: NaN means "not measured".
        below: denominators, for a ratio of sums.
        group: the query of each example.
        context: the context of each example.
        level: nominal coverage.
        units: of the values.
        method, metric: as in `limits_of`.
        options: further options of `limits_of`.

    Source:
        Cameron, Gelbach & Miller 2011, Journal of Business & Economic Statistics 29:238 (two-way clusters); Owen 2007,
        Annals of Applied Statistics 1:386 (the pigeonhole bootstrap, whose variance is about the sum of both).

    Example:
        >>> query, context = np.repeat(np.arange(20), 3), np.tile(np.arange(3), 20)
        >>> crossed_limits(np.arange(60.0)[:, None], None, group=query, context=context).why[0]
        'too few: 3 contexts, at least 6 are needed'
    """
    values = np.asarray(values, np.float64)
    options |= {"level": level, "units": units, "metric": metric}
    rate = below is None and chosen_kind(values, units, method, metric, True) == RATE
    methods = (method, MEAN) if rate else (method,)  # the mean's bootstrap-t holds a rate near 0 of unlike contexts
    sides = [
        limits_of(values, below, group=one, method=name, **options) for name in methods for one in (group, context)
    ]
    ratio = _crossed(values, below, group, context)
    if rate:
        ratio = _cautious(ratio, values, group, context, level)
        sides.append(Limits(*share_limits(ratio, level), np.full(len(ratio.value), "", dtype=object)))
    else:
        half = stats.t.ppf((1 + level) / 2, np.maximum(ratio.n - 1, 1)) * ratio.error
        sides.append(Limits(ratio.value - half, ratio.value + half, np.full(len(half), "", dtype=object)))
    low = np.fmin.reduce([one.low for one in sides])
    high = np.fmax.reduce([one.high for one in sides])
    if rate:
        low, high = np.maximum(low, 0.0), np.minimum(high, 1.0)
    why = _why(values, group, context, sides)
    none = why != ""
    return Limits(np.where(none, np.nan, low), np.where(none, np.nan, high), why)


def _crossed(values: np.ndarray, below: np.ndarray | None, group: np.ndarray, context: np.ndarray) -> Ratio:
    """The ratio of sums with the standard error of crossed draws; `n` is the number of the rarer kind."""
    missing = np.isnan(values)
    above = np.where(missing, 0.0, values)
    weights = np.where(missing, 0.0, np.ones_like(values) if below is None else below)
    counts = [_units(missing, one) for one in (group, context)]
    ratio = ratio_of(above, weights, (~missing).sum(0).astype(np.float64))
    with np.errstate(divide="ignore", invalid="ignore"):
        variances = [
            n / (n - 1) * (sums_by_group(ratio.residual, one) ** 2).sum(0)
            for n, one in zip(counts, (group, context), strict=True)
        ]
        both = variances[0] + variances[1] - (ratio.residual**2).sum(0)
        error = np.sqrt(np.maximum.reduce([both, *variances])) / np.abs(ratio.total)
    return ratio._replace(n=np.minimum(*counts), error=np.where(ratio.error == 0, 0.0, error))


def _cautious(ratio: Ratio, values: np.ndarray, group: np.ndarray, context: np.ndarray, level: float) -> Ratio:
    """A larger error where fewer than `LEAST` queries or contexts show the rarer outcome: the next may be another."""
    known = ~np.isnan(values)
    rarer = np.where(known & (ratio.value < 0.5), values, np.where(known, 1 - values, 0.0))
    met = np.minimum(*((sums_by_group(rarer, one) > 0).sum(0) for one in (group, context)))
    freedom = np.maximum(ratio.n - 1, 1)
    student = (stats.norm.ppf((1 + level) / 2) / stats.t.ppf((1 + level) / 2, freedom)) ** 2
    least = np.sqrt(ratio.value * (1 - ratio.value) * student / (_RARE * np.maximum(ratio.n, 1)))
    return ratio._replace(
        error=np.where((met < LEAST) & (ratio.error > 0), np.maximum(ratio.error, least), ratio.error)
    )


def limits_over(
    values: Float[np.ndarray, "example cell"],
    below: Float[np.ndarray, "example cell_or_one"] | None = None,
    *,
    group: np.ndarray | None = None,
    context: np.ndarray | None = None,
    **options: Any,
) -> Limits:
    """`crossed_limits` where examples have a query and a context, else `limits_of`."""
    if group is None or context is None:
        return limits_of(values, below, group=group, **options)
    return crossed_limits(values, below, group=group, context=context, **options)


def _units(missing: np.ndarray, labels: np.ndarray) -> Float[np.ndarray, " cell"]:
    """How many groups of examples have a value, in every cell."""
    return (sums_by_group((~missing).astype(np.float64), labels) > 0).sum(0).astype(np.float64)


def _why(values: np.ndarray, group: np.ndarray, context: np.ndarray, sides: list[Limits]) -> np.ndarray:
    """Why a cell has no limits: too few queries or contexts, or what the limits over each alone say."""
    why = np.full(values.shape[1], "", dtype=object)
    for labels, unit in ((group, "query"), (context, "context")):
        counts = _units(np.isnan(values), labels)
        for n in np.unique(counts[counts < LEAST]):
            words = too_few(int(n), LEAST, unit).replace("querys", "queries")
            why[(why == "") & (counts == n)] = words
    for cell in np.flatnonzero(why == ""):
        if all(one.why[cell] for one in sides[:2]):
            why[cell] = sides[0].why[cell]
    return why
