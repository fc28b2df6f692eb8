"""The slider over checkpoints, and the points of a map that it moves."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from tv_lens.viz.slider import map_ranges, map_traces, rounded, slider


@pytest.fixture
def points() -> xr.DataArray:
    """Two points of task a and one of task b, at two steps."""
    values = np.array([[[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]], [[1.0, 1.0], [1.0, 1.0], [9.0, -1.0]]])
    return xr.DataArray(values, dims=("step", "point", "axis"), coords={"task": ("point", ["a", "a", "b"])})


def test_every_notch_sets_the_moving_traces(points):
    _, states, _ = map_traces(points, ["a", "b"])
    made = slider([0, 8], states, fixed=3)
    assert [step["label"] for step in made["steps"]] == ["0", "8"] and made["active"] == 1
    first, second = (step["args"] for step in made["steps"])
    assert first == [{"x": [[0.0, 2.0], [4.0]], "y": [[1.0, 3.0], [5.0]]}, [3, 4]]
    assert second == [{"x": [[1.0, 1.0], [9.0]], "y": [[1.0, 1.0], [-1.0]]}, [3, 4]]


def test_traces_show_the_last_step_in_ranges_that_hold_all(points):
    (a, b), _, ranges = map_traces(points, ["a", "b"], in_legend=True)
    assert (list(a.x), list(b.y), a.name, a.showlegend) == ([1.0, 1.0], [-1.0], "a", True)
    assert a.marker.symbol != b.marker.symbol and a.marker.color != b.marker.color
    assert ranges == map_ranges(points)
    np.testing.assert_allclose(ranges, [[-0.54, 9.54], [-1.36, 5.36]])


def test_numbers_are_rounded():
    assert rounded(np.array([0.12345, 2]), 2) == [0.12, 2.0]
