"""The bootstrap against the binomial, against a loop, and against itself cut into pieces."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from toy_sweeps import make
from tv_lens.results import bootstrap
from tv_lens.results.bootstrap import ratio_interval, resampled_means
from tv_lens.results.sweep import Sweep


def test_interval_of_a_share_matches_the_binomial():
    hits = xr.DataArray(np.arange(400) % 4 == 0, dims=("example",))
    found = Sweep(hits, "exact_match", "share", "up").interval(n_boot=4000)
    half = 1.96 * np.sqrt(0.25 * 0.75 / 400)
    assert float(found["mean"]) == 0.25
    limits = [float(found["low"]), float(found["high"])]
    np.testing.assert_allclose(limits, [0.25 - half, 0.25 + half], atol=0.006)


def test_interval_does_not_depend_on_how_the_work_is_cut(monkeypatch):
    sweep = make()
    whole = sweep.interval(n_boot=200)
    monkeypatch.setattr("tv_lens.results.bootstrap._CHUNK", 500)
    cut = sweep.interval(n_boot=200)
    np.testing.assert_allclose(whole["low"].values, cut["low"].values)
    np.testing.assert_allclose(whole["high"].values, cut["high"].values)


def test_interval_resamples_groups_together():
    values = np.repeat(np.random.default_rng(0).normal(size=10), 10)
    array = xr.DataArray(values, dims=("example",))
    alone = Sweep(array, "m", "u", "s").interval()
    clusters = array.assign_coords(group=("example", np.repeat(list("abcdefghij"), 10)))
    grouped = Sweep(clusters, "m", "u", "s").interval()
    assert float(grouped["high"] - grouped["low"]) > 2 * float(alone["high"] - alone["low"])
    assert float(grouped["mean"]) == float(alone["mean"])


def test_ratio_interval_equals_the_loop_over_indices():
    random = np.random.default_rng(0)
    above, below = random.normal(2, 1, (30, 3)), random.normal(5, 1, (30, 1))
    low, high = ratio_interval(above, below, n_boot=3000)
    draws = np.random.default_rng(1).integers(30, size=(3000, 30))
    ratios = above[draws].sum(1) / below[draws].sum(1)
    np.testing.assert_allclose(low, np.quantile(ratios, 0.025, axis=0), atol=0.02)
    np.testing.assert_allclose(high, np.quantile(ratios, 0.975, axis=0), atol=0.02)


def test_examples_that_are_all_equal_leave_no_doubt():
    low, high = ratio_interval(np.full((7, 2), 3.0), np.full((7, 1), 2.0), n_boot=50)
    assert low.tolist() == high.tolist() == [1.5, 1.5]


def test_one_group_is_always_drawn_whole():
    values = np.array([[1.0], [5.0], [9.0]])
    low, high = ratio_interval(values, np.ones((3, 1)), group=np.zeros(3, int), n_boot=50)
    assert low.tolist() == high.tolist() == [5.0]


def test_a_cell_without_examples_has_no_limits_and_a_sparse_one_has():
    above, below = np.array([[0.0, 4.0], [0.0, 0.0]]), np.array([[0.0, 1.0], [0.0, 0.0]])  # the second: one example
    low, high = ratio_interval(above, below, n_boot=200)
    assert np.isnan([low[0], high[0]]).all() and (low[1], high[1]) == (4.0, 4.0)


def test_resampled_means_are_paired_by_seed_and_do_not_depend_on_the_cut(monkeypatch):
    values = np.random.default_rng(0).normal(size=(9, 2))
    means = resampled_means(values, n_boot=40, seed=3)
    assert means.shape == (40, 2)
    np.testing.assert_allclose(resampled_means(2 * values + 1, n_boot=40, seed=3), 2 * means + 1)
    assert not np.array_equal(means, resampled_means(values, n_boot=40, seed=4))
    monkeypatch.setattr(bootstrap, "_CHUNK", 90)
    np.testing.assert_allclose(resampled_means(values, n_boot=40, seed=3), means)


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_the_limits_are_the_quantiles_of_the_resampled_means(level):
    values = np.random.default_rng(0).normal(size=(9, 2))
    low, high = ratio_interval(values, np.ones((9, 1)), level=level, n_boot=300, seed=1)
    means = resampled_means(values, n_boot=300, seed=1)
    np.testing.assert_allclose([low, high], np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0))
