"""Limits of a statistic that is no mean, such as the place of a change, from its value in each of many resamples."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

from tv_lens.results.limits import too_few

LEAST_EPISODES = 20
"""From how many episodes per task on limits of change points hold the truth in at least 0.93 of samples."""

LEAST_NETWORKS = 2
"""From how many networks on limits of their mean lag do; of two they are six times as wide as of four."""


class DrawLimits(NamedTuple):
    """A statistic with its limits, NaN where there are none, and why there are none ("" where there are)."""

    value: float
    low: float
    high: float
    why: str = ""


def draw_limits(
    draws: Float[np.ndarray, " draw"], n: int, level: float, *, least: int = LEAST_EPISODES, unit: str = "episode"
) -> DrawLimits:
    """Limits over resamples of n units: on each side the wider of their quantile and of Student's t with their spread.

    Args:
        draws: the statistic of all units first, then of each resample; NaN where it is undefined.
        n: how many units were resampled.
        level: nominal coverage.
        least: how many units are needed.
        unit: what a unit is, for the words.

    Source: Efron & Tibshirani 1993, chapters 12 and 13.

    Example:
        >>> draw_limits(np.array([1.0, 0.9, 1.1]), 12, 0.95).why
        'too few: 12 episodes, at least 20 are needed'
    """
    value, others = float(draws[0]), draws[1:][np.isfinite(draws[1:])]
    why = "not measured" if not np.isfinite(value) else too_few(n, least, unit) if n < least else ""
    if not why and len(others) < 2:
        why = "not known: no two resamples have it"
    if why:
        return DrawLimits(value, np.nan, np.nan, why)
    # Resamples of n units spread less than n units do, by this root.
    half = stats.t.ppf((1 + level) / 2, n - 1) * others.std(ddof=1) * np.sqrt(n / (n - 1))
    low, high = np.quantile(others, [(1 - level) / 2, (1 + level) / 2])
    return DrawLimits(value, min(float(low), float(value - half)), max(float(high), float(value + half)))
