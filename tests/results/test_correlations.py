"""Limits of correlations against Fisher's z, by coverage, and none where there are too few tasks or prompts."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tv_lens.results import correlations
from tv_lens.results.correlations import LEAST_EXAMPLES, LEAST_GROUPS, jackknife_limits, resampled_limits, squared


def without_each(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    keep = ~np.eye(len(x), dtype=bool)
    return np.array([np.corrcoef(x[one], y[one])[0, 1] for one in keep])


def test_the_jackknife_of_many_points_is_fishers_interval():
    random = np.random.default_rng(0)
    x = random.normal(size=400)
    y = 0.6 * x + random.normal(size=400)
    found = jackknife_limits(np.corrcoef(x, y)[0, 1], without_each(x, y))
    np.testing.assert_allclose(found, stats.pearsonr(x, y).confidence_interval(), atol=0.02)


def test_the_jackknife_of_a_mean_is_t():
    values = np.random.default_rng(0).normal(size=9)
    without = (values.sum() - values) / 8
    found = jackknife_limits(float(values.mean()), without, 0.9, correlation=False)
    half = (found[1] - found[0]) / 2 / correlations._WIDER
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.9)
    np.testing.assert_allclose([values.mean() - half, values.mean() + half], expected)


@pytest.mark.parametrize("n, truth", [(6, 0.0), (6, 0.8), (12, 0.5)])
def test_jackknife_limits_cover(n, truth):
    random, inside = np.random.default_rng(0), []
    for _ in range(400):
        x = random.normal(size=n)
        y = truth * x + np.sqrt(1 - truth**2) * random.normal(size=n)
        low, high = jackknife_limits(np.corrcoef(x, y)[0, 1], without_each(x, y))
        inside.append(low <= truth <= high)
    assert np.mean(inside) > 0.92


def test_resampled_limits_are_as_wide_as_the_spread_of_the_draws():
    draws = np.random.default_rng(0).normal(2.0, 0.3, 4000)
    low, high = resampled_limits(2.0, draws, 12, 50, correlation=False)
    half = stats.t.ppf(0.975, 10) * 0.3
    np.testing.assert_allclose([low, high], [2.0 - half, 2.0 + half], atol=0.03)
    low, high = resampled_limits(0.9, np.tanh(np.arctanh(0.9) + (draws - 2.0)), 12, 50)
    np.testing.assert_allclose(np.arctanh([low, high]), np.arctanh(0.9) + np.array([-half, half]), atol=0.03)


def test_points_that_happen_to_lie_on_a_line_are_no_certain_line():
    draws = np.random.default_rng(0).normal(0.9, 0.02, 500).clip(-1, 1)
    low, high = resampled_limits(1.0, draws, 12, 50)
    assert low <= np.quantile(draws, 0.025) and high == pytest.approx(1.0)


@pytest.mark.parametrize(
    "found",
    [
        jackknife_limits(0.5, np.full(LEAST_GROUPS - 1, 0.5)),
        jackknife_limits(np.nan, np.full(9, 0.5)),
        jackknife_limits(0.5, np.array([0.5, np.nan, 0.4, 0.6])),
        resampled_limits(0.5, np.linspace(0, 1, 50), 12, LEAST_EXAMPLES - 1),
        resampled_limits(0.5, np.full(50, np.nan), 12, 100),
        resampled_limits(np.nan, np.linspace(0, 1, 50), 12, 100),
    ],
)
def test_there_are_no_limits_of_too_little(found):
    assert np.isnan(found).all() and np.isnan(squared(found)).all()


@pytest.mark.parametrize("ends", [(-0.4, 0.2), (0.2, 0.4), (-0.4, -0.2)])
def test_squared_limits_are_the_range_of_the_squares(ends):
    squares = np.linspace(*ends, 1001) ** 2
    np.testing.assert_allclose(squared(ends), [squares.min(), squares.max()], atol=1e-6)
