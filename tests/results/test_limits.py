"""Which limits a number gets: by its kind, never false where there are too few examples, no spread or no gap."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from tv_lens.errors import InvalidArgument, UnknownName
from tv_lens.results.bootstrap import ratio_of
from tv_lens.results.limits import (
    DIFFERENCE,
    LEAST,
    MEAN,
    RATE,
    SMALL_GAP,
    difference_of_means,
    kind_of,
    limits_of,
    no_spread,
    too_few,
)
from tv_lens.results.rates import difference_limits, rate_limits, share_limits
from tv_lens.results.sweep import Sweep

SHARE = "share of examples"


def column(*values: float) -> np.ndarray:
    return np.array(values, float)[:, None]


@pytest.mark.parametrize(
    "values, units, kind",
    [
        ([0, 1, 1], "logits", RATE),
        ([0, 0, 0], SHARE, RATE),
        ([0, 0, 0], "logits", MEAN),  # an effect of exactly 0 on every example is no rate of 0
        ([1, 1, 1], "nats", MEAN),
        ([0, 1 / 3, 1], SHARE, RATE),
        ([0, 1 / 3, 1], "nats", MEAN),
        ([-1, 0, 1], SHARE, DIFFERENCE),
        ([-1, 0, 0], "u", DIFFERENCE),
        ([-1, -1, -1], "u", MEAN),
        ([-1, 0, 2], SHARE, MEAN),
        ([-0.5, 0.5], SHARE, MEAN),
        ([np.nan, 0, 1], "u", RATE),
        ([np.nan], SHARE, MEAN),
    ],
)
def test_the_kind_is_told_by_values_and_units(values, units, kind):
    assert kind_of(column(*values), units) == kind


def test_rates_get_the_score_interval_and_are_never_of_no_width():
    bits = np.stack([np.zeros(12), np.ones(12), np.arange(12) % 2], axis=1)
    found = limits_of(bits, units=SHARE)
    low, high = rate_limits(bits.sum(0), np.full(3, 12.0), 0.95)
    np.testing.assert_allclose([found.low, found.high], [low, high])
    assert (found.high - found.low > 0.2).all() and (found.why == "").all()


def test_differences_of_bits_get_the_limits_of_paired_rates():
    values = column(*[1] * 5 + [-1] * 2 + [0] * 9)
    found = limits_of(values, units=SHARE)
    expected = difference_limits(np.array([5.0]), np.array([2.0]), np.array([16.0]), 0.95)
    np.testing.assert_allclose([found.low, found.high], expected)
    for options in (dict(method=DIFFERENCE), dict(metric="change in accuracy")):
        assert limits_of(np.zeros((12, 1)), units=SHARE, **options).low[0] < 0  # not [0, 0.3], as of a rate


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_means_are_at_least_as_wide_as_t(level):
    values = np.random.default_rng(0).lognormal(0, 0.5, (8, 20))
    found, student = limits_of(values, level=level), stats.ttest_1samp(values, 0.0).confidence_interval(level)
    assert (found.low <= student.low + 1e-12).all() and (found.high >= student.high - 1e-12).all()
    assert np.median((found.high - found.low) / (student.high - student.low)) < 1.5


def test_groups_are_the_units():
    random = np.random.default_rng(0)
    values, group = np.repeat(random.normal(size=(10, 1)), 10, axis=0), np.repeat(list("abcdefghij"), 10)
    grouped, of_means = limits_of(values, group=group), limits_of(values[::10])
    np.testing.assert_allclose([grouped.low, grouped.high], [of_means.low, of_means.high])
    bits = np.repeat(column(*np.arange(10) % 2), 10, axis=0)
    found = limits_of(bits, group=group, units=SHARE)
    ratio = ratio_of(column(*np.arange(10) % 2), np.ones((10, 1)), np.array([10.0]))
    np.testing.assert_allclose([found.low, found.high], share_limits(ratio, 0.95))
    few = limits_of(values[:50], group=group[:50])
    assert few.why[0] == "too few: 5 groups, at least 6 are needed" and np.isnan(few.low[0])


@pytest.mark.parametrize("kind, values", [(MEAN, [0.3, 0.1, 0.7, 0.2]), (RATE, [0, 1, 1, 0]), (DIFFERENCE, [0, 1, -1])])
def test_too_few_is_said_in_words(kind, values):
    least = LEAST[kind]
    many = np.tile(column(*values), (least, 1))
    assert np.isfinite(limits_of(many[:least], method=kind).low).all()
    for n in range(1, least):
        found = limits_of(many[:n], method=kind)
        assert np.isnan(found.low[0]) and np.isnan(found.high[0])
        assert found.why[0] == f"too few: {n} example{'s' if n > 1 else ''}, at least {least} are needed"


def test_values_that_are_all_equal_have_no_limits_and_say_so():
    found = limits_of(np.full((12, 2), [0.0, 0.1]))
    assert np.isnan(found.low).all() and set(found.why) == {no_spread(12)}


def test_one_outlier_among_equal_values_is_too_little_to_tell():
    found = limits_of(column(*[0.0] * 11 + [0.7]))
    assert np.isnan(found.low[0]) and found.why[0] == "too few examples differ from the others"


def test_missing_values_are_left_out_of_each_cell():
    random = np.random.default_rng(0)
    values = random.normal(size=(30, 3))
    values[20:, 1], values[:, 2] = np.nan, np.nan
    found = limits_of(values)
    student = stats.ttest_1samp(values[:20, 1], 0.0).confidence_interval()
    assert found.low[1] <= student.low + 1e-12 and found.low[1] > student.low - 0.2
    assert found.why.tolist() == ["", "", "not measured"] and np.isnan(found.high[2])
    bits = np.where(np.isnan(values), np.nan, values > 0)
    rates = limits_of(bits)
    expected = rate_limits(np.nansum(bits[:, :2], axis=0), np.array([30.0, 20.0]), 0.95)
    np.testing.assert_allclose([rates.low[:2], rates.high[:2]], expected)


def test_a_ratio_has_limits_only_where_its_denominator_is_not_zero():
    random = np.random.default_rng(0)
    gaps = np.stack([random.normal(2, 0.5, 20), random.normal(0.1, 1, 20)], axis=1)
    found = limits_of(0.5 * gaps + random.normal(0, 0.1, gaps.shape), gaps)
    assert found.low[0] < 0.5 < found.high[0] and found.why.tolist() == ["", SMALL_GAP]


def test_shares_stay_within_their_bounds():
    values = column(*[1 / 3, -1 / 3, 1.0, 1.0, 2 / 3, 1.0, 1.0])
    found = limits_of(values, units=SHARE)
    assert found.low[0] >= -1 and found.high[0] <= 1


def test_nonsense_is_refused():
    values = column(0.0, 1.0, 3.0)
    with pytest.raises(InvalidArgument, match="These values are no rate"):
        limits_of(values, method=RATE)
    with pytest.raises(UnknownName, match="method of limits"):
        limits_of(values, method="meen")
    for options in (dict(level=1.0), dict(n_boot=0)):
        with pytest.raises(InvalidArgument):
            limits_of(values, **options)


def test_the_difference_of_two_groups_is_welchs():
    random = np.random.default_rng(0)
    one, other = random.normal(1, 1, 12), random.normal(0, 3, 30)
    low, high, why = difference_of_means(one, other, 0.9)
    expected = stats.ttest_ind(one, other, equal_var=False).confidence_interval(0.9)
    assert (low, high, why) == (pytest.approx(expected.low), pytest.approx(expected.high), "")
    assert difference_of_means(one[:4], other)[2] == too_few(4, 6)
    same = difference_of_means(np.ones(9), np.zeros(9))
    assert np.isnan(same[0]) and same[2].startswith("no spread")


def test_a_sweep_says_why_a_cell_has_no_limits():
    random = np.random.default_rng(0)
    grid = xr.DataArray(np.stack([random.normal(size=9), np.full(9, 2.0)], 1), dims=("example", "layer"))
    sweep = Sweep(grid, "m", "nats", "s")
    limits = sweep.interval()
    assert limits["why"].values.tolist() == ["", "no spread: all 9 examples have the same value"]
    assert sweep.to_frame()["why"].tolist() == limits["why"].values.tolist()
    assert "why" not in sweep.sel(layer=[0]).to_frame()
    few = sweep.isel(example=slice(0, 5)).interval()
    assert set(few["why"].values.tolist()) == {"too few: 5 examples, at least 6 are needed"}
    forced = Sweep(grid * 0 + 1, "m", SHARE, "s").interval(method=MEAN)
    assert np.isnan(forced["low"]).all()
