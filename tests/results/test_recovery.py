"""Recovery: the ratio of means from the corrupted run (0) to the clean run (1), and when there is none."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import xarray as xr

from toy_sweeps import make
from tv_lens.errors import InvalidArgument
from tv_lens.results.recovery import baseline_gap


def test_recovery_is_the_ratio_of_means():
    sweep = make()
    found = sweep.recovery()
    expected = (sweep.mean() - sweep.corrupted.mean()) / (sweep.clean.mean() - sweep.corrupted.mean())
    np.testing.assert_allclose(found.mean().values, expected.values)
    assert (found.metric, found.zero) == ("recovery of logit_diff", 0.0)
    assert found.recovery() is found
    part = found.isel(example=slice(0, 7))
    np.testing.assert_allclose(part.mean().values, sweep.isel(example=slice(0, 7)).recovery().mean().values)


def test_recovery_resamples_numerator_and_denominator_together():
    sweep = make()
    best = sweep.sel(layer=3, pos=5).recovery().interval()  # this cell is the clean run itself
    np.testing.assert_allclose([float(best["low"]), float(best["high"])], 1.0)
    first = sweep.sel(layer=0, pos=0).recovery().interval()
    np.testing.assert_allclose([float(first["low"]), float(first["high"])], 0.0, atol=1e-12)
    clean = sweep.recovery().baselines()["clean"]
    np.testing.assert_allclose([float(clean["low"]), float(clean["high"])], 1.0)


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
