"""Several sweeps as one: values, baselines and provenance."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import xarray as xr

from toy_sweeps import make
from tv_lens.errors import EmptySelection, InvalidArgument
from tv_lens.results.joining import common, join, join_baselines, same
from tv_lens.results.sweep import concat


def test_concat_on_a_new_axis_keeps_each_baseline():
    one, two = make(seed=0), make(seed=1)
    both = concat([one, two], "task", ["a", "b"], name="two tasks")
    assert both.values.dims == ("example", "task", "layer", "pos")
    assert both.clean.dims == ("example", "task")
    np.testing.assert_allclose(both.recovery().sel(task="b").mean().values, two.recovery().mean().values)
    ratios = concat([one.recovery(), two.recovery()], "task", ["a", "b"])
    assert ratios.interval().equals(both.recovery().interval())


def test_concat_keeps_a_common_baseline_once_and_the_differing_provenance():
    one, two = make(), make(provenance={"task": "toy", "seed": 1})
    both = concat([one, two], "seed", [0, 1])
    assert both.clean.dims == ("example",)
    assert both.provenance["task"] == "toy"
    assert both.provenance["parts"] == [{"seed": 0, "engine": "passes"}, {"seed": 1}]
    assert both.name == "toy"


def test_concat_along_an_existing_axis_and_along_examples():
    sweep = make()
    halves = [sweep.sel(layer=slice(0, 1)), sweep.sel(layer=slice(2, 3))]
    assert concat(halves, "layer").interval().equals(sweep.interval())
    rows = concat([sweep.isel(example=slice(0, 5)), sweep.isel(example=slice(5, 20))], "example")
    assert rows.interval().equals(sweep.interval())
    assert rows.clean.values.tolist() == sweep.clean.values.tolist()
    picked = concat([sweep.sel(layer=0), sweep.sel(layer=3)], "layer")
    assert picked.values["layer"].values.tolist() == [0, 3]


def test_concat_refuses_what_does_not_fit():
    sweep = make()
    with pytest.raises(InvalidArgument, match="different metric"):
        concat([sweep, dataclasses.replace(sweep, metric="prob")], "task", ["a", "b"])
    with pytest.raises(InvalidArgument, match="needs one label per sweep"):
        concat([sweep, sweep], "task")
    with pytest.raises(InvalidArgument, match="other axes or coordinates differ"):
        concat([sweep, make(n=7)], "task", ["a", "b"])
    with pytest.raises(InvalidArgument, match="some have none"):
        concat([sweep, make(clean=None, corrupted=None)], "task", ["a", "b"])
    with pytest.raises(InvalidArgument, match="different units"):
        concat([sweep.recovery(), sweep.recovery()], "example")
    with pytest.raises(EmptySelection):
        concat([], "task")


def row(*values: float, **coords) -> xr.DataArray:
    return xr.DataArray(list(values), dims=("example",), coords=coords)


def test_join_makes_a_new_axis_or_lengthens_one():
    new = join([row(1.0, 2.0), row(3.0, 4.0)], "task", ["a", "b"])
    assert new.sel(task="b").values.tolist() == [3.0, 4.0] and new.sizes == {"task": 2, "example": 2}
    assert join([row(1.0), row(2.0)], "example", None).values.tolist() == [1.0, 2.0]


def test_same_compares_axes_and_numbers():
    assert same([row(1.0, 2.0), row(1.0, 2.0)]) and not same([row(1.0, 2.0), row(1.0, 3.0)])
    assert not same([row(1.0), row(1.0).rename(example="pos")])


def test_baselines_are_kept_once_where_they_agree_and_per_label_where_they_differ():
    values = [row(0.0, 0.0), row(0.0, 0.0)]
    assert join_baselines("clean", [None, None], values, "task", ["a", "b"]) is None
    once = join_baselines("clean", [row(1.0, 2.0), row(1.0, 2.0)], values, "task", ["a", "b"])
    assert once.dims == ("example",) and once.values.tolist() == [1.0, 2.0]
    each = join_baselines("clean", [row(1.0, 2.0), row(3.0, 4.0)], values, "task", ["a", "b"])
    assert each.sel(task="b").values.tolist() == [3.0, 4.0]
    with pytest.raises(InvalidArgument) as caught:
        join_baselines("clean", [row(1.0, 2.0), None], values, "task", ["a", "b"])
    assert str(caught.value) == (
        "Some of these sweeps have a clean baseline and some have none.\n  do:      give it to all of them, or to none"
    )


def test_a_baseline_without_an_axis_along_which_sweeps_are_joined_is_the_same_all_along_it():
    halves = [row(0.0).expand_dims(layer=[0, 1]), row(0.0).expand_dims(layer=[2])]
    joined = join_baselines("clean", [row(1.0), row(5.0)], halves, "layer", None)
    assert joined.transpose("layer", "example").values.tolist() == [[1.0], [1.0], [5.0]]


def test_common_provenance_stands_once_and_the_rest_by_part():
    assert common([{"task": "a", "n": 3}, {"task": "a", "n": 3}], "seed", [0, 1]) == {"task": "a", "n": 3}
    assert common([{"task": "a", "n": 3}, {"task": "b", "n": 3, "cut": True}], "seed", [0, 1]) == {
        "n": 3,
        "parts": [{"seed": 0, "task": "a"}, {"seed": 1, "task": "b", "cut": True}],
    }
