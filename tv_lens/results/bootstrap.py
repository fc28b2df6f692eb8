"""Limits of means and of ratios: t and bootstrap-t, vectorised and bounded in memory.

The statistic is a ratio of sums, `sum(numerator) / sum(denominator)`. For a plain mean every unit's denominator is 1.
For a recovery it is the unit's gap between clean and corrupted, so that numerator and denominator are resampled
together.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

_CHUNK = 4_000_000  # float64 numbers in the largest temporary array, about 32 MB
_ROUNDING = 1e-6  # of the largest number: what single precision leaves of values that are equal
_STILL = 1e-9  # of the largest residual: a resample of equal residuals


class Ratio(NamedTuple):
    """A ratio of sums per cell, and how exactly it is known.

    Args:
        value: the ratio.
        residual: numerator minus ratio times denominator, per unit; 0 where a unit is missing.
        total: the sum of the denominators.
        n: the number of units.
        error: the standard error, by linearisation; 0 where no residual differs from 0 by more than rounding.
    """

    value: Float[np.ndarray, "cell"]
    residual: Float[np.ndarray, "unit cell"]
    total: Float[np.ndarray, "cell"]
    n: Float[np.ndarray, "cell"]
    error: Float[np.ndarray, "cell"]


def ratio_of(
    numerator: Float[np.ndarray, "unit cell"],
    denominator: Float[np.ndarray, "unit cell_or_one"],
    n: Float[np.ndarray, "cell"],
) -> Ratio:
    """The `Ratio` of sums over units.

    Args:
        numerator: per unit; 0 where a unit is missing.
        denominator: per unit; 0 where a unit is missing. One column serves all cells.
        n: how many units each cell has.

    Source: Cochran 1977, "Sampling Techniques", section 6.4: the variance of a ratio estimate.
    """
    total = np.broadcast_to(denominator.sum(0), numerator.shape[1:])
    with np.errstate(divide="ignore", invalid="ignore"):
        value = numerator.sum(0) / total
        residual = numerator - value * denominator
        error = np.sqrt(n / (n - 1) * (residual**2).sum(0)) / np.abs(total)
    still = np.abs(residual).max(0) <= _ROUNDING * np.abs(numerator).max(0)
    return Ratio(value, residual, total, n, np.where(still, 0.0, error))


def t_limits(ratio: Ratio, level: float) -> tuple[Float[np.ndarray, "cell"], Float[np.ndarray, "cell"]]:
    """Low and high limits by Student's t with one degree of freedom fewer than there are units."""
    with np.errstate(invalid="ignore"):
        half = stats.t.ppf((1 + level) / 2, ratio.n - 1) * ratio.error
    return ratio.value - half, ratio.value + half


def ratio_limits(
    ratio: Ratio, denominator: Float[np.ndarray, "unit cell_or_one"], *, level: float, n_boot: int, seed: int
) -> tuple[Float[np.ndarray, "cell"], Float[np.ndarray, "cell"]]:
    """On each side the wider of the t and the bootstrap-t limit; infinite where resamples have no spread.

    t limits hold for skewed data only from about 25 units on, bootstrap-t limits are short for heavy tails and where a
    denominator varies much; together they cover from 6 units on (`benchmarks/coverage.py`). Every cell sees the same
    resamples, so limits of different cells are comparable.

    Args:
        ratio: what `ratio_of` returned.
        denominator: per unit, as it was given there.
        level: nominal coverage.
        n_boot: resamples.
        seed: fixes the resamples.

    Source: Efron & Tibshirani 1993, section 12.5 (bootstrap-t) and chapter 8 (clusters as units).
    """
    low, high = t_limits(ratio, level)
    n_cells = len(low)
    low, high = low.copy(), high.copy()
    rank = min(max(int((n_boot + 1) * (1 - level) / 2), 1), (n_boot + 1) // 2) - 1
    width = max(1, _CHUNK // n_boot)
    for start in range(0, n_cells, width):
        cells = slice(start, start + width)
        below = denominator if denominator.shape[1] == 1 else denominator[:, cells]
        shifts = _studentized(ratio.residual[:, cells], below, n_boot, seed)
        ends = (rank, n_boot - 1 - rank)
        shifts.partition(ends, axis=1)
        with np.errstate(invalid="ignore"):
            low[cells] = np.minimum(low[cells], ratio.value[cells] - shifts[:, ends[1]] * ratio.error[cells])
            high[cells] = np.maximum(high[cells], ratio.value[cells] - shifts[:, ends[0]] * ratio.error[cells])
    return low, high


def resampled_means(
    values: Float[np.ndarray, "example cell"], n_boot: int = 1000, seed: int = 0
) -> Float[np.ndarray, "boot cell"]:
    """The mean over examples in each resample, for statistics that are functions of means.

    The same seed and number of examples give the same resamples, so statistics of several arrays are paired.

    Example:
        >>> resampled_means(np.eye(2), n_boot=3).sum(axis=1).tolist()
        [1.0, 1.0, 1.0]
    """
    values = np.asarray(values, np.float64)
    return np.concatenate([times @ values for times in _times(len(values), n_boot, seed)]) / len(values)


def sums_by_group(values: Float[np.ndarray, "example cell"], group: np.ndarray) -> Float[np.ndarray, "group cell"]:
    """The sum over the examples of each group, in the order of the sorted groups."""
    _, index = np.unique(group, return_inverse=True)
    sums = np.zeros((index.max() + 1, values.shape[1]))
    np.add.at(sums, index, values)
    return sums


def _studentized(residual: np.ndarray, below: np.ndarray, n_boot: int, seed: int) -> Float[np.ndarray, "cell boot"]:
    """How many of its own standard errors each resample's ratio is from the ratio of all units."""
    n_units = len(residual)
    squares, plain = residual**2, bool((below == 1).all())
    smallest, rounding = _STILL * squares.max(0)[:, None], _STILL * np.abs(residual).max(0)[:, None]
    shifts = np.empty((residual.shape[1], n_boot))
    start = 0
    for times in _times(n_units, n_boot, seed):
        counts, shift = times.T, residual.T @ times.T
        spread = squares.T @ counts
        if plain:  # one product less, and most numbers are means
            total: float | np.ndarray = float(n_units)
            shift /= total
            spread -= n_units * shift**2
        else:
            total = below.T @ counts
            with np.errstate(divide="ignore", invalid="ignore"):
                shift /= total
                spread += shift**2 * ((below**2).T @ counts) - 2 * shift * ((residual * below).T @ counts)
        still = ~(spread > smallest)
        if still.any():
            away = np.where(np.abs(shift) > rounding, np.copysign(np.inf, shift), 0.0)
            shift, spread = np.where(still, away, shift), np.where(still, 1.0, spread)
        scale = np.sqrt(spread, out=spread)
        shift *= np.abs(total)
        shifts[:, start : start + len(times)] = np.divide(shift, scale, out=shift)
        start += len(times)
    return shifts * np.sqrt((n_units - 1) / n_units)


def _times(n_units: int, n_boot: int, seed: int) -> list[Float[np.ndarray, "boot unit"]]:
    """How often each unit is drawn in each resample, in blocks of resamples."""
    # Instead of the draws their counts: then one matrix product sums all resamples. The generator starts afresh at
    # every call, so all blocks of cells share their resamples.
    random = np.random.default_rng(seed)
    rows, share = max(1, _CHUNK // n_units), np.full(n_units, 1 / n_units)
    return [
        random.multinomial(n_units, share, size=min(rows, n_boot - start)).astype(np.float64)
        for start in range(0, n_boot, rows)
    ]
