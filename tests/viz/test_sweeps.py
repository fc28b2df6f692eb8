"""The kind of figure that a sweep becomes."""

from __future__ import annotations

import pytest

from tiny_figures import TASKS, sweep
from tv_lens.errors import InvalidArgument
from tv_lens.viz import plot
from tv_lens.viz.sweeps import default_kind


def test_every_axis_count_up_to_three_has_a_picture_and_more_is_an_error(by_token):
    assert plot(by_token.sel(layer=1, pos=2)).plotly.data[0].type == "bar"
    assert plot(by_token.sel(layer=1)).plotly.data[1].mode == "lines+markers"
    with pytest.raises(InvalidArgument, match="at most three axes"):
        plot(sweep(2, 2, 2, 2, dims=("layer", "pos", "head", "task")))
    with pytest.raises(InvalidArgument, match="no such picture"):
        plot(by_token, kind="pie")
    with pytest.raises(InvalidArgument, match="needs two axes"):
        plot(by_token.sel(layer=1), kind="heatmap")


@pytest.mark.parametrize(
    "shape, dims, kind",
    [
        ((3, 2), ("layer", "head"), "heatmap"),
        ((3, 2), ("layer", "task"), "lines"),
        ((2, 3), ("task", "condition"), "bars"),
        ((2, 2), ("task", "source"), "heatmap"),
        ((2,), ("task",), "bars"),
        ((), (), "bars"),
    ],
)
def test_the_axes_decide_the_kind(shape, dims, kind):
    labels = {"task": TASKS, "source": TASKS, "condition": ["zero-shot", "vector", "random"], "layer": range(3)}
    coords = {dim: labels.get(dim, range(n)) for dim, n in zip(dims, shape, strict=True)}
    assert default_kind(sweep(*shape, dims=dims, coords=coords)) == kind
