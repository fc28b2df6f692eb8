"""Limits of shares of votes and of their differences, against scipy, and at their ends."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tv_lens.results.vote_limits import LEAST, freedom, splits, vote_limits


@pytest.mark.parametrize("n", [8, 9, 12, 31, 60, 150])
def test_splits_are_halves_without_a_repetition(n):
    signs = splits(n)
    assert (signs.sum(0) == 0).all() and ((signs != 0).sum(0) == n - n % 2).all()
    assert len(np.unique(np.c_[signs, -signs].T, axis=0)) == 2 * signs.shape[1]
    assert splits(n) is signs  # the same for every sweep of so many examples


def test_the_degrees_of_freedom_are_those_of_the_variance_that_splits_estimate():
    """For independent numbers the estimate is a multiple of a chi-square with about so many degrees of freedom."""
    n = 30
    numbers = np.random.default_rng(0).normal(size=(n, 20_000))
    variance = ((splits(n).T @ numbers / n) ** 2).mean(0)
    assert variance.mean() == pytest.approx(1 / n, rel=0.02)
    assert freedom(n) == pytest.approx(2 * variance.mean() ** 2 / variance.var(), rel=0.1)
    assert 0.6 * (n - 1) < freedom(n) <= n - 1


def test_a_share_of_independent_points_has_jeffreys_limits_of_as_many():
    votes = np.repeat([0.0, 1.0], [30, 90])
    low, high, why = vote_limits(votes.mean(keepdims=True), votes[:, None], True, 0.95)
    assert why[0] == ""
    error = votes.std(ddof=1) / np.sqrt(120)
    effective = 0.25 * 0.75 / error**2 * (stats.norm.ppf(0.975) / stats.t.ppf(0.975, freedom(120))) ** 2
    expected = stats.beta.ppf([0.025, 0.975], 0.75 * effective + 0.5, 0.25 * effective + 0.5)
    np.testing.assert_allclose([low[0], high[0]], expected)
    assert low < stats.beta.ppf(0.025, 90.5, 30.5) and high > stats.beta.ppf(0.975, 90.5, 30.5)


def test_a_difference_has_students_limits_and_a_tenth():
    votes = 0.5 * np.random.default_rng(0).normal(size=(40, 3))
    low, high, _ = vote_limits(votes.mean(0), votes, False, 0.9)
    half = 1.1 * stats.t.ppf(0.95, freedom(40)) * stats.sem(votes, axis=0)  # heavy tails need the tenth
    np.testing.assert_allclose(high - votes.mean(0), half)
    np.testing.assert_allclose(votes.mean(0) - low, half)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_all_or_none_is_not_certain(share):
    low, high, why = vote_limits(np.array([share]), np.full((20, 1), share), True, 0.95)
    assert high - low > 0.1 and (low == 0 if share == 0 else high == 1) and why[0] == ""
    low, high, _ = vote_limits(np.zeros(1), np.zeros((20, 1)), False, 0.95)
    assert low == -high < -0.1


def test_too_few_or_unknown_have_no_limits_but_words():
    for few in (1, 2, LEAST - 1):
        low, high, why = vote_limits(np.full(1, 0.5), np.linspace(0, 1, few)[:, None], True, 0.95)
        assert np.isnan([low, high]).all() and why[0].startswith(f"too few: {few} example")
    for bounded in (True, False):
        for mean in (0.0, 0.5, 1.0):
            low, high, why = vote_limits(np.full(1, mean), np.full((20, 1), np.nan), bounded, 0.95)
            assert np.isnan([low, high]).all() and "no halves" in why[0]
            low, high, why = vote_limits(np.full(1, mean), np.full((20, 1), mean + 0.1), bounded, 0.95)
            assert np.isnan([low, high]).all() and "not all examples" in why[0]
