"""Several sweeps as one."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from toy_sweeps import make
from tv_lens.errors import EmptySelection, InvalidArgument
from tv_lens.results.concatenation import concat


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
