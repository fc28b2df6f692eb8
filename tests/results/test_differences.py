"""Differences of sweeps are paired, also where examples vote on one another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import xarray as xr

from toy_sweeps import make
from tv_lens.results.concatenation import concat
from tv_lens.results.differences import difference, independent
from tv_lens.results.sweep import Sweep
from tv_lens.results.vote_limits import DIFFERENCE, SHARE


def voted(n: int = 40, seed: int = 0) -> Sweep:
    random = np.random.default_rng(seed)
    hits = (random.random((n, 3)) < (0.3, 0.5, 0.9)).astype(float)
    spread = random.normal(size=hits.shape)
    dims, coords = ("example", "task"), {"task": list("abc")}
    return Sweep(
        xr.DataArray(hits, dims=dims, coords=coords),
        metric="task decodability",
        units=SHARE,
        sign="higher",
        votes=xr.DataArray(hits.mean(0) + spread - spread.mean(0), dims=dims),
    )


def test_a_difference_is_that_of_every_example():
    sweep = make()
    gap = difference(sweep.sel(layer=3), sweep.sel(layer=0))
    np.testing.assert_allclose(gap.values, sweep.values.sel(layer=3).values - sweep.values.sel(layer=0).values)
    assert gap.clean is None and gap.zero == 0 and gap.units == sweep.units


def test_votes_go_with_the_sweep_wherever_it_goes(tmp_path):
    sweep = voted()
    limits = sweep.interval()
    part = sweep.sel(task="b").interval()
    for end in ("mean", "low", "high"):
        assert float(part[end]) == float(limits[end].sel(task="b"))
    loaded = Sweep.load(sweep.save(tmp_path / "sweep")).interval()
    assert loaded.equals(limits)
    joined = concat([sweep.sel(task="a"), sweep.sel(task="b")], "task")
    np.testing.assert_allclose(joined.interval()["low"].values, limits["low"].values[:2])
    alone = replace(sweep, votes=None)
    assert float(limits["low"].sel(task="b")) < float(alone.interval()["low"].sel(task="b"))


def test_the_mean_and_the_difference_of_tasks_have_the_variance_of_the_same_sum_of_votes():
    sweep = voted()
    votes = sweep.votes.values
    gap = difference(sweep.sel(task="c"), sweep.sel(task="a"))
    assert gap.units == DIFFERENCE
    np.testing.assert_allclose(gap.votes.values, votes[:, 2] - votes[:, 0])
    np.testing.assert_allclose(sweep.mean("task").votes.values, votes.mean(1))
    same = difference(sweep.sel(task="a"), sweep.sel(task="a")).interval()
    assert float(same["low"]) < 0 < float(same["high"])  # no difference seen is not certainly none


def test_a_part_of_the_voters_has_no_limits():
    limits = voted().isel(example=range(20)).interval()
    assert "not all examples" in limits["why"].values[0]
    assert np.isnan(limits["low"]).all() and np.isfinite(limits["mean"]).all()


def test_what_can_be_resampled():
    sweep = voted()
    assert independent(make()) is not None and independent(replace(sweep, votes=None)).equals(sweep.values)
    found = independent(sweep)
    assert found.dims == sweep.values.dims and found["task"].values.tolist() == list("abc")
    np.testing.assert_allclose(found.mean("example"), sweep.mean())
