"""Traces drawn by matplotlib: each artist against the numbers of its trace."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure as Canvas

from tv_lens.viz import theme
from tv_lens.viz.static_traces import Pen, colour


@pytest.fixture
def pen():
    return Pen(Canvas().add_subplot(), 0.6)


def test_bars_have_the_lengths_and_colours_of_the_trace_and_its_limits(pen):
    error = dict(array=[0.1, None], arrayminus=[0.2, None], color=theme.INK, thickness=1, width=4)
    bar = dict(type="bar", orientation="h", x=[0.5, -1.0], y=["a", "b"], marker={"color": ["#0072b2", "#d55e00"]})
    drawn = pen.draw({**bar, "error_x": error})
    assert [one.get_width() for one in drawn] == [0.5, -1.0]
    assert [to_hex(one.get_facecolor()) for one in drawn] == ["#0072b2", "#d55e00"]
    (limits,) = [c for c in pen.axes.collections if len(c.get_segments())]
    np.testing.assert_allclose(limits.get_segments()[0][:, 0], [0.3, 0.6])
    assert pen.names["y"] == ["a", "b"]


def test_cells_show_their_numbers_in_a_colour_that_can_be_read(pen):
    cells = dict(type="heatmap", z=[[0.0, 1.0], [None, 0.7]], zmin=0, zmax=1, texttemplate="%{z:.2f}")
    mesh = pen.draw({**cells, "colorscale": theme.colourscale(theme.SEQUENTIAL)})
    np.testing.assert_array_equal(np.ma.getmaskarray(mesh.get_array()).ravel(), [False, False, True, False])
    assert {t.get_text(): t.get_color() for t in pen.axes.texts} == {
        "0.00": theme.INK,
        "1.00": theme.PAPER,
        "0.70": theme.PAPER,
    }


def test_a_band_with_a_gap_is_two_pieces(pen):
    x = [0, 1, 1, 0, None, 3, 4, 4, 3]
    y = [1, 1, 0, 0, None, 1, 1, 0, 0]
    pen.draw(dict(type="scatter", x=x, y=y, fill="toself", fillcolor=theme.faded("#0072b2"), mode="lines"))
    assert [patch.get_xy()[:, 0].min() for patch in pen.axes.patches] == [0, 3]


def test_every_symbol_and_dash_of_the_theme_is_drawn(pen):
    for symbol in (*theme.SYMBOLS, "circle-open"):
        pen.draw(dict(type="scatter", x=[0], y=[1], mode="markers", marker={"symbol": symbol, "color": "#0072b2"}))
    for dash in theme.DASHES:
        pen.draw(dict(type="scatter", x=[0, 1], y=[1, 2], mode="lines", line={"dash": dash}))
    assert len(pen.axes.collections) == len(theme.SYMBOLS) + 1 and len(pen.axes.lines) == len(theme.DASHES)


def test_colours_of_plotly_are_read():
    assert colour("rgba(0,255,0,0.5)") == (0.0, 1.0, 0.0, 0.5) and colour("#d55e00") == "#d55e00"
