"""Sweeps: axes, means, intervals, the best cell, tables and what they print."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import xarray as xr

from toy_sweeps import TOKENS, make
from tv_lens.errors import InvalidArgument, RenamedError, UnknownName
from tv_lens.results.sweep import Sweep


def test_axes_n_and_zero():
    sweep = make()
    assert (sweep.axes, sweep.n, len(sweep), sweep.zero) == (("layer", "pos"), 20, 20, 0.0)


def test_mean_is_over_examples():
    sweep = make()
    np.testing.assert_allclose(sweep.mean().values, sweep.values.values.mean(0))
    assert sweep.mean().dims == ("layer", "pos")


def test_interval_is_fixed_by_its_seed_and_holds_the_mean():
    sweep = make()
    one, two, other = sweep.interval(seed=1), sweep.interval(seed=1), sweep.interval(seed=2)
    assert one.equals(two) and not one.equals(other)
    assert bool((one["low"] <= one["mean"]).all()) and bool((one["mean"] <= one["high"]).all())
    assert (one["n"] == 20).all()
    wide, narrow = sweep.interval(level=0.99), sweep.interval(level=0.5)
    assert float((wide["high"] - wide["low"]).min()) > float((narrow["high"] - narrow["low"]).min())


def test_interval_refuses_nonsense():
    with pytest.raises(InvalidArgument):
        make().interval(level=95.0)
    with pytest.raises(InvalidArgument):
        make().interval(n_boot=0)


def test_best_over_all_and_over_one_axis():
    sweep = make()
    assert sweep.best() == {"layer": 3, "pos": 5}
    assert sweep.best("layer") == {"layer": 3}
    assert sweep.best("pos", "layer") == {"pos": 5, "layer": 3}
    assert sweep.best("layer", lowest=True) == {"layer": 0}
    assert sweep.sel(**sweep.best()).axes == ()
    flat = dataclasses.replace(sweep, values=sweep.values * 0)
    assert flat.best() == {"layer": 0, "pos": 0}
    with pytest.raises(UnknownName):
        sweep.best("layr")


def test_the_mean_over_an_axis_is_a_sweep_and_paired_by_example():
    sweep = make().mean("pos")
    assert sweep.axes == ("layer",)
    np.testing.assert_allclose(sweep.values.values, make().values.values.mean(2))
    assert sweep.recovery().mean().dims == ("layer",) and sweep.data is sweep.values
    assert make().mean("layer", "pos").axes == ()
    with pytest.raises(UnknownName, match="layer"):
        make().mean("layr")
    with pytest.raises(RenamedError, match=r'use sweep.mean\("layer"\)'):
        make().average("layer")


def test_to_frame_is_tidy():
    table = make().to_frame()
    assert list(table.columns) == ["layer", "pos", "token", "mean", "low", "high", "n"]
    assert len(table) == 24 and (table["n"] == 20).all()
    assert list(table["token"][:6]) == TOKENS
    assert list(make().sel(layer=1, pos=2).to_frame()["token"]) == [" go"]


def test_repr_tells_the_result_at_a_glance():
    values = xr.DataArray(np.array([[1.0, 2.0], [1.0, 4.0]]), dims=("example", "layer"))
    sweep = Sweep(
        values,
        "logit_diff",
        "logits",
        "higher: clean",
        clean=np.array([5.0, 5.0]),
        provenance={"engine": "passes"},
        name="toy",
    )
    assert repr(sweep) == (
        "Sweep 'toy'\n"
        "  axes      layer 2 (0 … 1)\n"
        "  metric    logit_diff [logits]\n"
        "  sign      higher: clean\n"
        "  n         2 examples\n"
        "  largest   3 [too few: 2 examples, at least 6 are needed] at layer=1\n"
        "  clean     5\n"
        "  engine    passes"
    )
    assert "<b>toy</b>" in sweep._repr_html_()
    assert "&lt;b&gt;" in dataclasses.replace(sweep, name="<b>")._repr_html_()
