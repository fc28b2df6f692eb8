"""Whole figures by matplotlib: panels that fit the width, legends, colour bars."""

from __future__ import annotations

import matplotlib
import pytest

from tiny_figures import sweep
from tv_lens.viz import plot
from tv_lens.viz.static_plot import plot_canvas
from tv_lens.viz.static_style import StaticStyle


def canvas_of(figure, **style):
    style = StaticStyle(**{"width": 6.75, **style})
    with matplotlib.rc_context(style.settings):
        return plot_canvas(figure.data(), style, figure.title, figure.subtitle)


@pytest.mark.parametrize(("width", "columns"), [(6.75, 3), (3.25, 2), (1.6, 1)])
def test_panels_are_set_into_as_many_columns_as_fit(width, columns, curves):
    panels = canvas_of(plot(curves), width=width).axes
    assert len({round(one.get_position().x0, 2) for one in panels}) == columns and len(panels) == 3
    boxes = [one.get_window_extent() for one in panels]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])


def test_a_legend_names_the_series_once_and_a_bar_the_units(curves, by_token):
    canvas = canvas_of(plot(curves))
    (legend,) = canvas.legends
    assert [one.get_text() for one in legend.get_texts()] == ["present-past", "a & <b>"]
    canvas.draw_without_rendering()
    under = legend.get_window_extent()
    assert all(not under.overlaps(axes.get_tightbbox()) for axes in canvas.axes)
    assert canvas_of(plot(by_token)).axes[-1].get_ylabel() == "logit diff [logits]"


def test_the_height_follows_what_is_drawn():
    few, many = (
        canvas_of(plot(sweep(n, dims=("condition",), coords={"condition": [f"c{i}" for i in range(n)]})))
        for n in (3, 30)
    )
    assert few.get_figheight() < 2.2 < 4 < many.get_figheight()
    assert canvas_of(plot(sweep(4, dims=("layer",))), height=2.0).get_figheight() == 2.0
