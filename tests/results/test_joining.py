"""Values, baselines and provenance of several sweeps, joined."""

from __future__ import annotations

import pytest
import xarray as xr

from tv_lens.errors import InvalidArgument
from tv_lens.results.joining import common, join, join_baselines, same


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
