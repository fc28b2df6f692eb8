"""Limits of a share of votes: it lies between 0 and 1, and the points that vote are not independent of one another."""

from __future__ import annotations

from functools import cache

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from tv_lens.results.limits import Limits, too_few

SHARE, DIFFERENCE = "share of points", "difference of shares"
LEAST = 8  # examples; with fewer, halves of them are too small to show how much a share varies
_MOST_SPLITS, _CANDIDATES = 48, 400
_WIDER = 1.1  # of differences, by simulation: without it those of two classes of heavy-tailed points cover 0.91 to 0.94
_NONE = 1e-9  # an error below it is rounding
_NO_VARIATION = 2.0  # where no half differs: so many points count as one, as they do next to such a share


@cache
def splits(n: int) -> Int[np.ndarray, "example split"]:
    """1 and -1 for the two halves of every split of n examples, 0 for the one that an odd number leaves out.

    Of some random splits, always the one is taken that is most nearly orthogonal to those before: they then say more
    together. In experimental design these are balanced half-samples (McCarthy 1969).
    """
    random, half = np.random.default_rng([n, 4]), n // 2
    signs = np.zeros((n, min(n - 1, _MOST_SPLITS)), dtype=np.int64)
    for split in range(signs.shape[1]):
        place = random.random((_CANDIDATES, n)).argsort(axis=1).argsort(axis=1)
        drawn = (place < half).astype(np.int64) - ((place >= half) & (place < 2 * half))
        alike = (drawn @ signs[:, :split]) ** 2
        signs[:, split] = drawn[alike.sum(axis=1).argmin()]
    return signs


@cache
def freedom(n: int) -> float:
    """The degrees of freedom of a variance estimated by these splits: n - 1 if all were orthogonal, fewer otherwise.

    Source: Satterthwaite 1946 (Biometrics Bulletin 2).
    """
    products = splits(n).T @ splits(n)
    return float(np.trace(products) ** 2 / (products**2).sum())


def vote_limits(
    mean: Float[np.ndarray, " cell"], votes: Float[np.ndarray, "example cell"], bounded: bool, level: float
) -> Limits:
    """Limits of a share of votes, or of a difference of two, in every cell; NaN where there are none, and why.

    Args:
        mean: the share, or the difference.
        votes: per example a number whose spread says how much the mean varies; see `half_votes.contributions`.
        bounded: whether the mean is a share; a difference is not.
        level: the share of draws whose limits hold the truth.

    Source:
        Shares: Jeffreys's limits at the effective number of points, that of as many independent ones as would vary as
        much (Franco, Little, Louis & Slud 2019, Journal of Survey Statistics and Methodology 7; Korn & Graubard 1998,
        Survey Methodology 24). Differences: Student's t.

    Example:
        >>> low, high, why = vote_limits(np.array([0.5]), np.array([[0.0], [1.0]] * 20), True, 0.95)
        >>> round(float(low[0]), 2), round(float(high[0]), 2)
        (0.34, 0.66)
        >>> low, high, why = vote_limits(np.array([1.0]), np.ones((40, 1)), True, 0.95)
        >>> 0.87 < float(low[0]) < 0.89, float(high[0])
        (True, 1.0)
    """
    n, tail = len(votes), (1 - level) / 2
    if n < LEAST:
        none = np.full(mean.shape, np.nan)
        return Limits(none, none.copy(), np.full(mean.shape, too_few(n, LEAST), dtype=object))
    error = votes.std(axis=0, ddof=1) / np.sqrt(n)
    student = stats.t.ppf(1 - tail, freedom(n))
    low, high = (_of_shares if bounded else _of_differences)(mean, error, student, n, tail)
    why = np.full(mean.shape, "", dtype=object)
    why[np.abs(votes.mean(axis=0) - mean) > 1e-5] = "not known: these are not all examples that voted"
    why[~np.isfinite(error)] = "not known: no halves of the examples voted apart"
    none = why != ""
    return Limits(np.where(none, np.nan, low), np.where(none, np.nan, high), why)


Ends = tuple[Float[np.ndarray, " cell"], Float[np.ndarray, " cell"]]


def _of_shares(
    mean: Float[np.ndarray, " cell"], error: Float[np.ndarray, " cell"], student: float, n: int, tail: float
) -> Ends:
    share = np.clip(mean, 0.0, 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        effective = share * (1 - share) / error**2
    at_end = (error < _NONE) | (share == 0) | (share == 1)
    effective = np.where(at_end, n / _NO_VARIATION, effective) * (stats.norm.ppf(1 - tail) / student) ** 2
    right, wrong = share * effective + 0.5, (1 - share) * effective + 0.5
    low, high = (stats.beta.ppf(end, right, wrong) for end in (tail, 1 - tail))
    return np.where(share == 0, 0.0, low), np.where(share == 1, 1.0, high)


def _of_differences(
    mean: Float[np.ndarray, " cell"], error: Float[np.ndarray, " cell"], student: float, n: int, tail: float
) -> Ends:
    least = 1 - stats.beta.ppf(tail, n / _NO_VARIATION + 0.5, 0.5)  # what may hide behind no difference at all
    half = np.where(error < _NONE, least, _WIDER * student * error)
    return np.maximum(mean - half, -1.0), np.minimum(mean + half, 1.0)
