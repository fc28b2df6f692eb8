"""Percentile bootstrap over examples, vectorised and bounded in memory.

The statistic is a ratio of sums, `sum(numerator) / sum(denominator)`. For a plain mean every example's denominator
is 1. For a recovery it is the example's gap between clean and corrupted, so that numerator and denominator are
resampled together.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

_CHUNK = 4_000_000  # float64 numbers in the largest temporary array, about 32 MB


def ratio_interval(
    numerator: Float[np.ndarray, "example cell"],
    denominator: Float[np.ndarray, "example cell_or_one"],
    *,
    group: Int[np.ndarray, "example"] | None = None,
    level: float = 0.95,
    n_boot: int = 1000,
    seed: int = 0,
) -> tuple[Float[np.ndarray, "cell"], Float[np.ndarray, "cell"]]:
    """Low and high percentile limits of `sum(numerator) / sum(denominator)` per cell.

    Every cell sees the same resamples, so limits of different cells are comparable.

    Args:
        numerator: per example; 0 where an example is missing.
        denominator: per example; 0 where an example is missing. One column serves all cells.
        group: examples with the same number are drawn together (cluster bootstrap).
        level: the share of resamples between the limits.
        n_boot: resamples.
        seed: fixes the resamples.

    Source: Efron & Tibshirani 1993, chapters 13 (percentile interval) and 8 (clusters).

    Example:
        >>> low, high = ratio_interval(np.array([[0.0], [1.0]] * 50), np.ones((100, 1)))
        >>> bool(0.38 < low[0] < 0.45) and bool(0.55 < high[0] < 0.62)
        True
    """
    if group is not None:
        numerator, denominator = _by_group(numerator, group), _by_group(denominator, group)
    n_draws, n_cells = numerator.shape
    tails = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.empty(n_cells), np.empty(n_cells)
    width = max(1, _CHUNK // n_boot)
    for start in range(0, n_cells, width):
        cells = slice(start, start + width)
        below = denominator if denominator.shape[1] == 1 else denominator[:, cells]
        ratios = _resampled(numerator[:, cells], below, n_draws, n_boot, seed)
        low[cells], high[cells] = _quantiles(ratios, tails)
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
    return _resampled(np.asarray(values, np.float64), np.ones((len(values), 1)), len(values), n_boot, seed)


def _quantiles(ratios: np.ndarray, tails: list[float]) -> np.ndarray:
    """The quantiles of each column without its NaN; NaN for a column of nothing else."""
    holes = np.isnan(ratios).any(axis=0)
    if not holes.any():
        return np.quantile(ratios, tails, axis=0)
    quantiles = np.full((len(tails), ratios.shape[1]), np.nan)
    some = holes & ~np.isnan(ratios).all(axis=0)
    quantiles[:, ~holes] = np.quantile(ratios[:, ~holes], tails, axis=0)
    quantiles[:, some] = np.nanquantile(ratios[:, some], tails, axis=0)
    return quantiles


def _by_group(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    _, index = np.unique(group, return_inverse=True)
    sums = np.zeros((index.max() + 1, values.shape[1]))
    np.add.at(sums, index, values)
    return sums


def _resampled(above: np.ndarray, below: np.ndarray, n_draws: int, n_boot: int, seed: int) -> np.ndarray:
    """Float["boot cell"]: the ratio in each resample; NaN where a resample holds no example of a cell."""
    # The generator starts afresh for every block of cells, so all blocks share their resamples.
    random = np.random.default_rng(seed)
    rows = max(1, _CHUNK // n_draws)
    share = np.full(n_draws, 1 / n_draws)
    blocks = []
    for start in range(0, n_boot, rows):
        # Instead of the draws, how often each example is drawn: then one matrix product sums all resamples.
        times = random.multinomial(n_draws, share, size=min(rows, n_boot - start)).astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            blocks.append((times @ above) / (times @ below))
    return np.concatenate(blocks)
