"""Recovery: the ratio of means from the corrupted run (0) to the clean run (1), and when there is none."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from toy_sweeps import make
from tv_lens.errors import InvalidArgument
from tv_lens.results.limits import SMALL_GAP
from tv_lens.results.recovery import baseline_gap, may_be_zero
from tv_lens.results.sweep import Sweep


def test_recovery_is_the_ratio_of_means():
    sweep = make()
    found = sweep.recovery()
    expected = (sweep.mean() - sweep.corrupted.mean()) / (sweep.clean.mean() - sweep.corrupted.mean())
    np.testing.assert_allclose(found.mean().values, expected.values)
    assert (found.metric, found.zero) == ("recovery of logit_diff", 0.0)
    assert found.recovery() is found
    part = found.isel(example=slice(0, 7))
    np.testing.assert_allclose(part.mean().values, sweep.isel(example=slice(0, 7)).recovery().mean().values)


def test_a_recovery_that_is_the_same_for_every_example_has_no_spread_to_give_limits():
    sweep = make()
    for cell, value in (
        (dict(layer=3, pos=5), 1.0),
        (dict(layer=0, pos=0), 0.0),
    ):  # the clean run itself, and the other
        limits = sweep.sel(**cell).recovery().interval()
        assert float(limits["mean"]) == pytest.approx(value) and np.isnan(limits["low"]) and np.isnan(limits["high"])
        assert limits["why"].item() == "no spread: all 20 examples have the same value"
    assert np.isnan(sweep.recovery().baselines()["clean"]["low"])


def test_recovery_takes_numerator_and_denominator_of_the_same_examples():
    gap = np.random.default_rng(0).lognormal(0, 1, 60)  # the gap varies much, the share of it little
    share = np.random.default_rng(1).normal(0.7, 0.05, 60)
    values = xr.DataArray(share * gap, dims=("example",))
    sweep = Sweep(values, "m", "u", "s", clean=gap, corrupted=np.zeros(60))
    limits, raw = sweep.recovery().interval(), sweep.interval()
    assert float(limits["low"]) < 0.7 < float(limits["high"])
    relative = float((raw["high"] - raw["low"]) / raw["mean"])
    assert float(limits["high"] - limits["low"]) / 0.7 < 0.2 * relative


def test_a_recovery_of_a_gap_that_may_be_zero_has_no_limits():
    clean = np.random.default_rng(0).normal(0.05, 1, 20)
    sweep = Sweep(xr.DataArray(clean + 0.1, dims=("example",)), "m", "u", "s", clean=clean, corrupted=np.zeros(20))
    with pytest.warns(UserWarning, match="poorly determined"):
        limits = sweep.recovery().interval()
    assert np.isnan(limits["low"]) and limits["why"].item() == SMALL_GAP


def test_recovery_needs_two_different_baselines():
    with pytest.raises(InvalidArgument, match="no corrupted baseline"):
        make(corrupted=None).recovery()
    sweep = make()
    with pytest.raises(InvalidArgument, match="do not differ on average"):
        dataclasses.replace(sweep, corrupted=sweep.clean).recovery()
    noisy = dataclasses.replace(sweep, corrupted=sweep.clean + np.where(np.arange(20) % 2, 1.0, -1.1))
    with pytest.warns(UserWarning, match="poorly determined"):
        noisy.recovery()


def test_noising_is_centred_on_the_clean_run():
    assert make(provenance={"direction": "noising"}).recovery().zero == 1.0


def test_missing_values_leave_both_halves_of_a_recovery():
    sweep = make()
    values = sweep.values.copy()
    values[0, 3, 5] = np.nan
    found = dataclasses.replace(sweep, values=values, allow_missing=True).recovery().interval()
    np.testing.assert_allclose(float(found["mean"].sel(layer=3, pos=5)), 1.0)


def run(*values: float) -> xr.DataArray:
    return xr.DataArray(list(values), dims=("example",))


def test_the_gap_is_clean_minus_corrupted():
    assert baseline_gap(run(3.0, 2.0), run(1.0, 5.0)).values.tolist() == [2.0, -3.0]


def test_the_gap_says_what_is_missing():
    with pytest.raises(InvalidArgument) as caught:
        baseline_gap(None, None)
    assert str(caught.value) == (
        "Recovery needs the clean and the corrupted run.\n"
        "  got:     no clean and no corrupted baseline\n"
        "  do:      use a sweep made by tv.patch, or pass clean= and corrupted="
    )
    with pytest.raises(InvalidArgument, match="no clean baseline"):
        baseline_gap(None, run(1.0))
    with pytest.raises(InvalidArgument) as caught:
        baseline_gap(run(1.0, 3.0), run(3.0, 1.0))
    assert str(caught.value) == (
        "Recovery is undefined: clean and corrupted runs do not differ on average.\n"
        "  got:     mean clean 2, mean corrupted 2\n"
        "  do:      read the sweep in its own units, or choose a corruption that changes the metric"
    )


@pytest.mark.parametrize("values, uncertain", [([1.0, 2.0, 1.5], False), ([1.0, -2.0, 1.5], True), ([5.0], False)])
def test_a_gap_may_be_zero_where_its_t_limits_include_zero(values, uncertain):
    low, high = (np.nan, np.nan) if len(values) < 2 else stats.ttest_1samp(values, 0.0).confidence_interval()
    assert may_be_zero(run(*values)) == uncertain == bool(low <= 0 <= high)
