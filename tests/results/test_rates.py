"""Limits of rates against scipy and against their exact coverage, which a sum over all outcomes gives."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tv_lens.results.bootstrap import ratio_of
from tv_lens.results.rates import difference_limits, rate_limits, share_limits


def test_rate_limits_are_those_of_scipy():
    hits, n = np.array([0.0, 3.0, 12.0, 3.0]), np.array([12.0, 12.0, 12.0, 40.0])
    low, high = rate_limits(hits, n, 0.9)
    for i, (k, of) in enumerate(zip(hits, n, strict=True)):
        expected = stats.binomtest(int(k), int(of)).proportion_ci(0.9, "wilsoncc")
        assert (low[i], high[i]) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("n", [3, 6, 10, 12, 20, 50])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_rate_limits_cover_at_every_rate(n, level):
    hits, rates = np.arange(n + 1.0), np.linspace(0.005, 0.995, 199)
    low, high = rate_limits(hits, np.full(n + 1, float(n)), level)
    inside = (low[:, None] <= rates) & (rates <= high[:, None])
    coverage = (stats.binom.pmf(hits[:, None], n, rates) * inside).sum(0)
    assert coverage.min() > level - 0.02


@pytest.mark.parametrize("n", [6, 12, 30])
@pytest.mark.parametrize("gains, losses", [(0.05, 0.0), (0.05, 0.05), (0.3, 0.1), (0.5, 0.3), (0.8, 0.1)])
def test_difference_limits_cover(n, gains, losses):
    outcomes = np.array([(a, b) for a in range(n + 1) for b in range(n + 1 - a)], float)
    chances = stats.multinomial.pmf(
        np.column_stack([outcomes, n - outcomes.sum(1)]).astype(int), n, [gains, losses, 1 - gains - losses]
    )
    low, high = difference_limits(*outcomes.T, np.full(len(outcomes), float(n)), 0.95)
    inside = (low <= gains - losses + 1e-12) & (gains - losses <= high + 1e-12)
    assert (chances * inside).sum() > 0.95
    assert (low >= -1).all() and (high <= 1).all() and (low <= high).all()


def test_nothing_gained_and_nothing_lost_still_leaves_doubt():
    low, high = difference_limits(np.zeros(1), np.zeros(1), np.array([12.0]), 0.95)
    assert low[0] == pytest.approx(-high[0]) and 0.2 < high[0] < 0.35


def test_share_limits_are_exact_limits_of_the_effective_number():
    bits = np.repeat(np.eye(2)[np.arange(40) % 2][:, :1], 1, axis=1)  # half of 40 units
    ratio = ratio_of(bits, np.ones((40, 1)), np.array([40.0]))
    effective = 39 * (stats.norm.ppf(0.975) / stats.t.ppf(0.975, 39)) ** 2
    expected = stats.beta.ppf([0.025, 0.975], [effective / 2, effective / 2 + 1], [effective / 2 + 1, effective / 2])
    np.testing.assert_allclose(np.ravel(share_limits(ratio, 0.95)), expected)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.5])
def test_equal_shares_have_the_limits_of_as_many_units(value):
    ratio = ratio_of(np.full((10, 1), value), np.ones((10, 1)), np.array([10.0]))
    low, high = share_limits(ratio, 0.95)
    assert low[0] <= value <= high[0] and high[0] - low[0] > 0.3
    assert (low[0] == 0) == (value == 0) and (high[0] == 1) == (value == 1)
