"""Limits of means and ratios against scipy, against a loop over indices, and against themselves cut into pieces."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tv_lens.results import bootstrap
from tv_lens.results.bootstrap import ratio_limits, ratio_of, resampled_means, sums_by_group, t_limits

RANDOM = np.random.default_rng(0)


def of(above: np.ndarray, below: np.ndarray | None = None):
    """The ratio of two sums, and its denominators."""
    below = np.ones((len(above), 1)) if below is None else below
    return ratio_of(above, below, np.full(above.shape[1], float(len(above)))), below


def test_t_limits_of_a_mean_are_those_of_scipy():
    values = RANDOM.lognormal(0, 1, (9, 4))
    low, high = t_limits(of(values)[0], 0.9)
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.9)
    np.testing.assert_allclose([low, high], [expected.low, expected.high])


def test_the_error_of_a_ratio_is_that_of_the_jackknife():
    above, below = RANDOM.normal(2, 1, (200, 2)), RANDOM.normal(5, 1, (200, 1))
    ratio, _ = of(above, below)
    without = (above.sum(0) - above) / (below.sum(0) - below)
    jackknife = np.sqrt(199 / 200 * ((without - without.mean(0)) ** 2).sum(0))
    np.testing.assert_allclose(ratio.error, jackknife, rtol=0.01)
    np.testing.assert_allclose(ratio.value, above.mean(0) / below.mean(0))


@pytest.mark.parametrize("is_ratio", [False, True])
def test_bootstrap_t_is_the_loop_over_indices(is_ratio):
    above = RANDOM.lognormal(0, 1, (15, 2))
    below = RANDOM.lognormal(0, 0.3, (15, 2)) if is_ratio else np.ones((15, 1))
    ratio, _ = of(above, below)
    low, high = ratio_limits(ratio, below, level=0.9, n_boot=4000, seed=0)
    draws = np.random.default_rng(1).integers(15, size=(4000, 15))
    for cell in range(2):
        shifts = []
        for draw in draws:
            one, weights = above[draw, cell], below[draw, cell if is_ratio else 0]
            value = one.sum() / weights.sum()
            error = np.sqrt(15 / 14 * ((one - value * weights) ** 2).sum()) / weights.sum()
            shifts.append((value - ratio.value[cell]) / error)
        ends = np.quantile(shifts, [0.95, 0.05])
        student = t_limits(ratio, 0.9)
        expected = ratio.value[cell] - ends * ratio.error[cell]
        np.testing.assert_allclose(low[cell], min(expected[0], student[0][cell]), atol=0.2 * ratio.error[cell])
        np.testing.assert_allclose(high[cell], max(expected[1], student[1][cell]), rtol=0.15)
        assert high[cell] > student[1][cell]  # skewed to the right: t alone ends too early


def test_limits_do_not_depend_on_how_the_work_is_cut(monkeypatch):
    above, below = RANDOM.normal(2, 1, (12, 7)), RANDOM.normal(5, 1, (12, 7))
    ratio, _ = of(above, below)
    whole = ratio_limits(ratio, below, level=0.95, n_boot=200, seed=3)
    monkeypatch.setattr(bootstrap, "_CHUNK", 500)
    np.testing.assert_allclose(ratio_limits(ratio, below, level=0.95, n_boot=200, seed=3), whole)


def test_a_resample_without_spread_makes_a_side_infinite():
    values = np.zeros((8, 1))
    values[0] = 1.0  # a third of all resamples miss it
    ratio, below = of(values)
    low, high = ratio_limits(ratio, below, level=0.95, n_boot=500, seed=0)
    assert np.isfinite(low[0]) and high[0] == np.inf


@pytest.mark.parametrize("noise, error_is_zero", [(0.0, True), (1e-8, True), (1e-3, False)])
def test_values_that_differ_by_rounding_have_no_spread(noise, error_is_zero):
    values = np.full((8, 1), 1.1) + noise * RANDOM.normal(size=(8, 1))
    assert bool(of(values)[0].error[0] == 0) == error_is_zero


def test_sums_by_group_are_those_of_a_loop():
    values, group = RANDOM.normal(size=(7, 2)), np.array(list("abacbab"))
    expected = [values[group == name].sum(0) for name in "abc"]
    np.testing.assert_allclose(sums_by_group(values, group), expected)


def test_resampled_means_are_paired_by_seed_and_do_not_depend_on_the_cut(monkeypatch):
    values = np.random.default_rng(0).normal(size=(9, 2))
    means = resampled_means(values, n_boot=40, seed=3)
    assert means.shape == (40, 2)
    np.testing.assert_allclose(resampled_means(2 * values + 1, n_boot=40, seed=3), 2 * means + 1)
    assert not np.array_equal(means, resampled_means(values, n_boot=40, seed=4))
    monkeypatch.setattr(bootstrap, "_CHUNK", 90)
    np.testing.assert_allclose(resampled_means(values, n_boot=40, seed=3), means)
