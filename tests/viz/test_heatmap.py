"""Heatmaps: axes as rows, columns and menu, colours around zero, and holes."""

from __future__ import annotations

import numpy as np
import pytest

from tiny_figures import TASKS, drawn, sweep
from tv_lens.results.sweep import Sweep
from tv_lens.viz import plot


def test_layer_by_position_is_a_heatmap_with_tokens_as_ticks(by_token):
    figure = plot(by_token)
    (cells,) = figure.plotly.data
    assert cells.type == "heatmap"
    np.testing.assert_allclose(np.array(cells.z), by_token.mean().values, atol=1e-6)
    assert list(figure.plotly.layout.xaxis.ticktext) == [
        "&lt;bos&gt;",
        "&lt;/script&gt;",
        "&lt;b&gt;",
        "␣go",
        "⏎",
        "&lt;!--",
    ]
    assert cells.zmin == -cells.zmax  # diverging around the sign's zero
    shown = by_token.interval().sel(layer=2, pos=3)
    np.testing.assert_allclose(cells.customdata[2][3], [shown["low"], shown["high"], 12], atol=1e-6)
    assert cells.hovertext[2][3] == "2" and cells.text[2][3] == "3 “␣go”"
    assert "logit diff [logits]" in figure.subtitle and "n = 12" in figure.subtitle
    assert "clean run 4.00" in figure.subtitle and "corrupted run −3.00" in figure.subtitle


def test_center_moves_the_neutral_colour(by_token):
    cells = plot(by_token, center=-3.0).plotly.data[0]
    assert (cells.zmin + cells.zmax) / 2 == pytest.approx(-3.0)


def test_layer_by_head_is_a_heatmap_and_a_third_axis_a_menu():
    figure = plot(sweep(4, 3, 2, dims=("layer", "head", "component"), coords={"component": ["q", "z"]}))
    assert [trace.type for trace in figure.plotly.data] == ["heatmap", "heatmap"]
    assert [trace.visible for trace in figure.plotly.data] == [True, False]
    buttons = figure.plotly.layout.updatemenus[0].buttons
    assert [button.label for button in buttons] == ["component: q", "component: z"]


def test_two_named_axes_are_a_matrix():
    figure = plot(sweep(2, 2, dims=("task", "source"), share=True, coords={"task": TASKS, "source": TASKS}))
    cells = figure.plotly.data[0]
    assert (cells.zmin, cells.zmax) == (0.0, 1.0)
    assert list(figure.plotly.layout.yaxis.ticktext) == ["present-past", "a &amp; &lt;b&gt;"]


def test_missing_values_and_single_cells_are_drawn(by_token):
    values = by_token.values.copy()
    values[:, 1, 2] = np.nan
    holes = Sweep(values, "logit_diff", "logits", "up", allow_missing=True)
    assert np.isnan(plot(holes).plotly.data[0].z[1][2])
    assert drawn(plot(holes))["data"][0]["type"] == "heatmap"
    plot(sweep(1, 1, dims=("layer", "pos"))).payload()
    plot(sweep(1, dims=("layer",))).payload()


def test_cells_without_limits_say_why_and_the_subtitle_too(by_token):
    few = by_token.isel(example=slice(0, 4))
    figure = plot(few)
    (cells,) = [trace for trace in figure.plotly.data if trace.type == "heatmap"]
    assert cells.customdata[0][0][3] == "no interval: too few: 4 examples, at least 6 are needed"
    assert "%{customdata[3]}" in cells.hovertemplate and "no interval: too few: 4 examples" in figure.subtitle
    assert "no interval" not in plot(by_token).subtitle
