"""Limits of correlations, of their squares, and of slopes, from resamples or from leaving out one group at a time."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import stats

LEAST_GROUPS = 4
"""From how many groups (such as tasks) on jackknife limits hold the truth in at least 0.93 of samples."""

LEAST_EXAMPLES = 30
"""From how many examples behind each point on the limits over resampled examples do."""

_WIDER = 1.06  # by simulation: without it limits of skewed points cover 0.925
_NEAREST = 1 - 1e-9  # Fisher's z of a correlation of 1 is infinite

Ends = tuple[float, float]
NONE: Ends = (float("nan"), float("nan"))


def jackknife_limits(
    value: float, without: Float[np.ndarray, "group"], level: float = 0.95, *, correlation: bool = True
) -> Ends:
    """Limits of a statistic over groups, by Student's t and the jackknife; NaN for fewer than `LEAST_GROUPS` groups.

    Args:
        value: of all groups.
        without: of all groups but one, for each group.
        level: nominal coverage.
        correlation: the statistic is a correlation, whose limits are those of Fisher's z.

    Source: Efron & Tibshirani 1993, chapter 11; Fisher's z makes the error of a correlation nearly normal.

    Example:
        >>> low, high = jackknife_limits(0.8, np.array([0.75, 0.8, 0.85, 0.8, 0.82]))
        >>> round(low, 2), round(high, 2)
        (0.51, 0.93)
    """
    n = len(without)
    if n < LEAST_GROUPS or not (np.isfinite(value) and np.isfinite(without).all()):
        return NONE
    centre, others = (_fisher(value), _fisher(without)) if correlation else (value, without)
    error = np.sqrt((n - 1) / n * ((others - others.mean()) ** 2).sum())
    return _around(centre, _WIDER * stats.t.ppf((1 + level) / 2, n - 1) * error, correlation)


def resampled_limits(
    value: float,
    draws: Float[np.ndarray, "draw"],
    n_points: int,
    n_examples: int,
    level: float = 0.95,
    *,
    correlation: bool = True,
) -> Ends:
    """Limits of a statistic of `n_points` noisy points, for other examples of the same number behind each point.

    They are for what the statistic is on average at this number of examples: noise makes a correlation smaller than
    that of the true points, and limits do not undo it.

    Args:
        value: of the points as they are.
        draws: of points that are resampled, NaN where it is undefined.
        n_points: how many points there are.
        n_examples: behind each point; NaN for fewer than `LEAST_EXAMPLES`.
        level: nominal coverage.
        correlation: the statistic is a correlation, whose limits are those of Fisher's z.
    """
    draws = draws[np.isfinite(draws)]
    if n_examples < LEAST_EXAMPLES or n_points < 3 or len(draws) < 2 or not np.isfinite(value):
        return NONE
    centre, others = (_fisher(value), _fisher(draws)) if correlation else (value, draws)
    low, high = _around(centre, stats.t.ppf((1 + level) / 2, n_points - 2) * others.std(ddof=1), correlation)
    # Points that happen to lie on a line are no certain line: resampled ones leave it, and their quantiles say how far.
    least, most = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return min(low, float(least)), max(high, float(most))


def squared(ends: Ends) -> Ends:
    """Limits of the square of a number with these limits: from 0 on where they include 0.

    Example:
        >>> squared((-0.5, 0.25)), squared((-0.5, -0.25))
        ((0.0, 0.25), (0.0625, 0.25))
    """
    low, high = sorted((ends[0] ** 2, ends[1] ** 2))
    return (0.0, high) if ends[0] <= 0 <= ends[1] else (low, high)


def _fisher(correlation: float | np.ndarray) -> np.ndarray:
    return np.asarray(np.arctanh(np.clip(correlation, -_NEAREST, _NEAREST)))


def _around(centre: float | np.ndarray, half: float, correlation: bool) -> Ends:
    low, high = float(centre - half), float(centre + half)
    return (float(np.tanh(low)), float(np.tanh(high))) if correlation else (low, high)
