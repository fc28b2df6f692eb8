"""Bars: one per condition with its interval, and a panel per label of another axis."""

from __future__ import annotations

import numpy as np

from tiny_figures import TASKS, sweep
from tv_lens.viz import plot, theme


def test_conditions_are_bars_with_intervals():
    names = ["zero-shot", "vector", "Null vector"]
    hits = sweep(3, dims=("condition",), share=True, coords={"condition": names})
    figure = plot(hits)
    bars = figure.plotly.data[0]
    interval = hits.interval()
    assert bars.type == "bar" and list(bars.y) == names
    np.testing.assert_allclose(bars.error_x.array, (interval["high"] - interval["mean"]).values, atol=1e-6)
    assert list(bars.marker.color) == [theme.MUTED, theme.ACCENT, theme.MUTED]
    assert next(iter(plot(hits, strong=["zero-shot"]).plotly.data[0].marker.color)) == theme.ACCENT


def test_equal_tokens_are_bars_of_their_own():
    coords = {"pos": range(4), "token": ("pos", ["Q", ":", " go", ":"])}
    values = sweep(4, dims=("pos",), coords=coords)
    figure = plot(values, kind="bars")
    bars = figure.plotly.data[0]
    assert len(set(bars.y)) == 4
    np.testing.assert_allclose(bars.x, values.mean().values, atol=1e-6)
    axis = figure.plotly.layout.yaxis
    assert dict(zip(axis.tickvals, axis.ticktext, strict=True)) == {0: "Q", 1: ":", 2: "␣go", 3: ":"}
    assert list(bars.text)[1] == "1 “:”" and list(bars.text)[3] == "3 “:”"


def test_bars_have_a_panel_for_another_axis():
    coords = {"task": TASKS, "condition": ["zero-shot", "vector", "random"]}
    figure = plot(sweep(2, 3, dims=("task", "condition"), share=True, coords=coords))
    assert sum(trace.type == "bar" for trace in figure.plotly.data) == 2
