"""Where decodability turns, and the halves of episodes on which a layer is chosen and reported."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tiny_emergence import STEPS
from tv_lens.experiments.training.causal import every_second, patched_layer, turning_points


def test_turning_points_need_a_rise(result):
    assert turning_points(result) == {"last": 40} or set(turning_points(result)) == {"before", "middle", "last"}
    risen = result.td.values.copy(deep=True)
    risen[:] = False
    risen[:, 2:] = True
    steps = turning_points(replace(result, td=replace(result.td, values=risen)))
    assert steps == {"before": result.steps[1], "middle": result.steps[2], "last": result.steps[-1]}


def test_halves_of_episodes_have_nothing_in_common(run):
    matrix = run.patch_matrices[STEPS[-1]]
    first, second = (every_second(matrix, start).values.values for start in (0, 1))
    assert len(first) == len(second) == 30
    assert np.array_equal(first[1], matrix.values.values[2]) and np.array_equal(second[0], matrix.values.values[1])
    alone = matrix.isel(example=slice(0, 1))
    assert every_second(alone, 1).n == 1


def test_the_layer_is_where_own_and_other_representations_differ_most(run):
    matrix = run.patch_matrices[STEPS[-1]]
    values = matrix.values.copy(deep=True)
    difference = dict(mode="add-difference", position="y", scored="sequence")
    values.loc[dict(layer=1, source="basis 0", target="basis 1", **difference)] += 9
    assert patched_layer(replace(matrix, values=values)) == 1
    values.loc[dict(layer=0, source="basis 0", target="basis 1", **difference)] += 99
    assert patched_layer(replace(matrix, values=values)) == 0
