"""Draws: an interval holds single draws, and more of them make it no narrower."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from tv_lens.errors import InvalidArgument
from tv_lens.results.draws import Draws
from tv_lens.results.sweep import Sweep


def draws(values) -> Draws:
    return Draws(xr.DataArray(values, dims=("example", "layer")), "m", "u", "s", allow_missing=True)


def test_the_limits_are_quantiles_of_the_draws_and_nothing_is_resampled():
    found = draws(np.arange(101.0)[:, None] * [1.0, 2.0]).interval(level=0.9)
    assert found["mean"].values.tolist() == [50.0, 100.0]
    np.testing.assert_allclose([found["low"], found["high"]], [[5.0, 10.0], [95.0, 190.0]])
    assert found["n"].values.tolist() == [101, 101]
    assert found.equals(draws(np.arange(101.0)[:, None] * [1.0, 2.0]).interval(level=0.9, n_boot=3, seed=7))


def test_more_draws_leave_the_spread_and_narrow_the_doubt_about_the_mean():
    values = np.random.default_rng(0).normal(size=(400, 1))
    wide = [float((d["high"] - d["low"])[0]) for d in (draws(values[:100]).interval(), draws(values).interval())]
    assert wide[1] == pytest.approx(wide[0], rel=0.2)
    mean = Sweep(draws(values).values, "m", "u", "s").interval()
    assert float((mean["high"] - mean["low"])[0]) < 0.1 * wide[1]


def test_draws_that_are_missing_are_left_out():
    found = draws([[1.0, np.nan], [3.0, np.nan], [np.nan, np.nan]]).interval(level=0.5)
    assert (float(found["mean"][0]), float(found["low"][0]), float(found["high"][0])) == (2.0, 1.5, 2.5)
    assert np.isnan(found["low"][1]) and found["n"].values.tolist() == [2, 0]


def test_a_level_is_a_share():
    with pytest.raises(InvalidArgument, match="An interval's level is a share"):
        draws([[1.0]]).interval(level=95.0)


def test_draws_survive_selection_and_a_file(tmp_path):
    found = draws(np.arange(8.0).reshape(4, 2))
    assert type(found.sel(layer=1)) is Draws
    again = Draws.load(found.save(tmp_path / "draws.tv"))
    assert again.interval().equals(found.interval())
