"""Heatmaps: axes as rows, columns and menu, colours around zero, and holes."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from tiny_figures import TASKS, drawn, sweep
from tv_lens.results.sweep import Sweep
from tv_lens.viz import plot, theme


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


def raw(direction: str | None) -> Sweep:
    """A sweep that hardly moves any cell from the run that it patches: 5.8 corrupted, 7.8 clean."""
    base = {"denoising": 5.8, "noising": 7.8, None: 5.8}[direction]
    values = np.random.default_rng(1).normal(base, 0.05, size=(12, 3, 4))
    values[:, 1, 2] = 5.8 + 7.8 - base
    dims = ("example", "layer", "head")
    about = {} if direction is None else {"direction": direction}
    ends = {"clean": np.full(12, 7.8), "corrupted": np.full(12, 5.8)}
    given = {name: xr.DataArray(one, dims="example") for name, one in ends.items()}
    return Sweep(xr.DataArray(values, dims=dims), "logit_diff", "logits", "up", provenance=about, name="raw", **given)


@pytest.mark.parametrize(
    ("direction", "middle", "name"),
    [("denoising", 5.8, "corrupted"), ("noising", 7.8, "clean"), (None, 5.8, "corrupted")],
)
def test_a_raw_sweep_is_neutral_where_patching_does_nothing(direction, middle, name):
    figure = plot(raw(direction))
    cells = figure.plotly.data[0]
    assert (cells.zmin + cells.zmax) / 2 == pytest.approx(middle)
    assert cells.zmax - middle == pytest.approx(2.0, abs=0.3)  # the one cell that changes has the deepest colour
    assert f"neutral colour at the {name} run, {middle:.2f}" in figure.subtitle
    assert plot(raw(direction), center=0.0).plotly.data[0].zmin < 0  # as asked


def test_figures_to_compare_have_one_scale_and_blue_is_what_helps():
    values = sweep(3, 4, dims=("layer", "head"))
    cells = plot(values, reach=2.5, lower_helps=True).plotly.data[0]
    assert (cells.zmin, cells.zmax) == (-2.5, 2.5)
    assert cells.colorscale[0][1] == theme.DIVERGING[-1] and cells.colorscale[-1][1] == theme.DIVERGING[0]


def test_a_small_map_shows_its_numbers_and_a_large_one_does_not(by_token):
    assert plot(by_token).plotly.data[0].texttemplate == "%{z:.2f}"
    assert plot(sweep(12, 12, dims=("layer", "head"))).plotly.data[0].texttemplate is None


def test_an_overlap_has_the_whole_scale():
    overlap = sweep(2, 2, dims=("task", "other"), share=True, units="Jaccard index", zero=None)
    assert (plot(overlap, kind="heatmap").plotly.data[0].zmin, plot(overlap, kind="heatmap").plotly.data[0].zmax) == (
        0,
        1,
    )
