"""What a sweep accepts: labelled, finite, with baselines that fit and a provenance that JSON can hold."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from toy_sweeps import make
from tv_lens.errors import EmptySelection, InvalidArgument, NonFiniteMetric, ShapeMismatch
from tv_lens.results.sweep import Sweep
from tv_lens.results.sweep_parts import baseline, labelled, plain, summary


def test_example_is_moved_to_the_front_and_axes_get_labels():
    sweep = Sweep(xr.DataArray(np.zeros((2, 5)), dims=("layer", "example")), "prob", "probability", "up")
    assert sweep.values.dims == ("example", "layer")
    assert sweep.values["layer"].values.tolist() == [0, 1]


def test_missing_values_are_an_error_unless_allowed():
    values = make().values.copy()
    values[0, 1, 2] = np.nan
    with pytest.raises(NonFiniteMetric) as raised:
        Sweep(values, "logit_diff", "logits", "up")
    assert "nan at example=0, layer=1, pos=2" in str(raised.value)
    sweep = Sweep(values, "logit_diff", "logits", "up", allow_missing=True)
    assert int(sweep.interval()["n"].sel(layer=1, pos=2)) == 19
    np.testing.assert_allclose(sweep.mean().values, np.nanmean(values.values, axis=0))
    values[0, 1, 2] = np.inf
    with pytest.raises(NonFiniteMetric):
        Sweep(values, "logit_diff", "logits", "up", allow_missing=True)


def test_construction_is_checked():
    with pytest.raises((InvalidArgument, TypeError)):  # TypeError where the tests check every annotation
        Sweep(np.zeros((2, 2)), "m", "u", "s")
    with pytest.raises(InvalidArgument, match="no such axis"):
        Sweep(xr.DataArray(np.zeros(3), dims=("layer",)), "m", "u", "s")
    with pytest.raises(EmptySelection):
        Sweep(xr.DataArray(np.zeros((0, 3)), dims=("example", "layer")), "m", "u", "s")
    with pytest.raises(InvalidArgument, match="same label twice"):
        twice = xr.DataArray(np.zeros((2, 2)), dims=("example", "pos"), coords={"pos": ["a", "a"]})
        Sweep(twice, "m", "u", "s")
    with pytest.raises(ShapeMismatch, match="differ along 'example'"):
        make(clean=np.zeros(3))
    with pytest.raises(NonFiniteMetric):
        make(clean=np.full(20, np.nan))
    with pytest.raises(InvalidArgument, match="cannot be saved"):
        make(provenance={"model": object()})
    assert make(provenance={"seed": np.int64(3), "shots": (1, 4)}).provenance == {"seed": 3, "shots": [1, 4]}


def test_labelled_keeps_labels_and_refuses_what_is_no_number_per_example():
    array = xr.DataArray(np.zeros((2, 1)), dims=("layer", "example"), coords={"layer": [4, 7]})
    assert labelled(array).dims == ("example", "layer") and labelled(array)["layer"].values.tolist() == [4, 7]
    with pytest.raises(InvalidArgument, match="A Sweep holds real numbers"):
        labelled(xr.DataArray(["a"], dims=("example",)))
    with pytest.raises(InvalidArgument, match="which examples belong together"):
        labelled(array.assign_coords(group=("layer", ["a", "b"])))


def test_a_baseline_has_one_number_per_example_and_axes_of_the_values():
    values = labelled(xr.DataArray(np.zeros((2, 3)), dims=("example", "layer")))
    found = baseline("clean", [1, 2], values)
    assert found.dims == ("example",) and found.dtype == np.float64
    by_layer = xr.DataArray(np.arange(6.0).reshape(3, 2), dims=("layer", "example"))
    assert baseline("clean", by_layer, values).dims == ("example", "layer")
    with pytest.raises(ShapeMismatch) as caught:
        baseline("clean", np.zeros((2, 3)), values)
    assert str(caught.value) == (
        "The clean baseline has one number per example.\n"
        "  got:     [2, 3]\n"
        "  allowed: [2]\n"
        "  do:      for one that differs along an axis, pass an xarray.DataArray"
    )
    with pytest.raises(ShapeMismatch, match="axes are not among those of the values"):
        baseline("clean", xr.DataArray(np.zeros((2, 1)), dims=("example", "head")), values)


def test_plain_values_are_those_of_json():
    assert plain({"a": (1, np.float32(0.5)), 3: {"c", "b"}, "path": Path("x"), "array": np.arange(2)}, "p") == {
        "a": [1, 0.5],
        "3": ["b", "c"],
        "path": "x",
        "array": [0, 1],
    }
    assert plain([math.nan, -math.inf], "p") == ["nan", "-inf"]
    with pytest.raises(InvalidArgument) as caught:
        plain({"models": [1, object()]}, "provenance")
    assert str(caught.value) == (
        "provenance['models'][1] cannot be saved.\n"
        "  got:     object\n"
        "  allowed: numbers, strings, lists and dictionaries of them\n"
        "  do:      pass str(value)"
    )


def test_a_summary_counts_what_is_missing():
    array = xr.DataArray([[np.nan, 2.0], [np.nan, 4.0]], dims=("example", "layer"))
    lines = dict(summary(Sweep(array, "m", "u", "s", allow_missing=True)))
    assert lines["missing"] == "2 of 4 values" and lines["largest"].startswith("3 [") and "layer=1" in lines["largest"]
    nothing = dict(summary(Sweep(array * np.nan, "m", "u", "s", allow_missing=True)))
    assert nothing["missing"] == "4 of 4 values" and "largest" not in nothing
