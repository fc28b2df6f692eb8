"""Limits of rates: shares of units that are 0 or 1, means of such shares, and differences of two paired rates."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import stats

from tv_lens.results.bootstrap import Ratio

Ends = tuple[Float[np.ndarray, "cell"], Float[np.ndarray, "cell"]]


def rate_limits(hits: Float[np.ndarray, "cell"], n: Float[np.ndarray, "cell"], level: float) -> Ends:
    """Wilson's score limits with continuity correction, of `hits` among `n` independent units.

    Without the correction coverage falls to 0.83 at rates near 0 or 1; exact (Clopper-Pearson) limits reach 0.998.

    Source: Newcombe 1998, Statistics in Medicine 17:857, method 4 (`scipy.stats.binomtest`).

    Example:
        >>> low, high = rate_limits(np.array([0.0]), np.array([12.0]), 0.95)
        >>> float(low[0]), round(float(high[0]), 2)
        (0.0, 0.3)
    """
    pairs, place = np.unique(np.stack([hits, n], axis=1), axis=0, return_inverse=True)
    known = [
        stats.binomtest(round(k), round(of)).proportion_ci(level, "wilsoncc") if of else (np.nan, np.nan)
        for k, of in pairs.tolist()
    ]
    low, high = np.array(known, np.float64).reshape(-1, 2)[place.reshape(-1)].T
    return low, high


def share_limits(ratio: Ratio, level: float) -> Ends:
    """Limits of a mean of shares between 0 and 1, or of a rate whose units are groups of examples.

    They are exact limits for as many independent units as would vary as much as these do.

    Source: Korn & Graubard 1998, Survey Methodology 24:193.
    """
    p, n = ratio.value, ratio.n
    with np.errstate(divide="ignore", invalid="ignore"):
        effective = np.where(ratio.error > 0, p * (1 - p) / ratio.error**2, n)
        effective *= (stats.norm.ppf((1 + level) / 2) / stats.t.ppf((1 + level) / 2, n - 1)) ** 2
        hits, misses = p * effective, (1 - p) * effective
        low = stats.beta.ppf((1 - level) / 2, hits, misses + 1)
        high = stats.beta.ppf((1 + level) / 2, hits + 1, misses)
    return np.where(p <= 0, 0.0, low), np.where(p >= 1, 1.0, high)


def difference_limits(
    gains: Float[np.ndarray, "cell"], losses: Float[np.ndarray, "cell"], n: Float[np.ndarray, "cell"], level: float
) -> Ends:
    """Limits of the difference of two rates of the same units, from how many gained and how many lost.

    The limits of the two shares are combined (MOVER), with the correlation that two cells of one multinomial have.

    Source: Newcombe 1998, Statistics in Medicine 17:2635; Zou & Donner 2008, Statistics in Medicine 27:1693.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        plus, minus = gains / n, losses / n
        together = -np.sqrt(plus * minus / ((1 - plus) * (1 - minus)))
    together = np.where(np.isfinite(together), np.clip(together, -1.0, 0.0), 0.0)
    (plus_low, plus_high), (minus_low, minus_high) = rate_limits(gains, n, level), rate_limits(losses, n, level)

    def half(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return np.sqrt(one**2 - 2 * together * one * other + other**2)

    low = plus - minus - half(plus - plus_low, minus_high - minus)
    high = plus - minus + half(plus_high - plus, minus - minus_low)
    return np.maximum(low, -1.0), np.minimum(high, 1.0)
