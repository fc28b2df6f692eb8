"""Points with intervals in both directions, and the line through them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tv_lens.viz import theme
from tv_lens.viz.scatter import scatter


@pytest.fixture
def table() -> pd.DataFrame:
    columns = {"x": [1.0, 2.0, 4.0], "y": [2.0, 1.0, 4.0], "y low": [1.5, 0.5, 3.0], "y high": [3.0, 1.25, 5.0]}
    return pd.DataFrame({**columns, "task": ["a<b>", "c", "a<b>"], "model": ["u", "v", "v"]})


def test_a_trace_per_colour_with_symbols_limits_and_a_line(table):
    figure = scatter(table, "x", "y", colour="task", symbol="model", line=(1.0, 0.5), note="Read it so.")
    first, second, line = figure.plotly.data
    assert (first.name, second.name) == ("a&lt;b&gt;", "c") and list(first.x) == [1.0, 4.0]
    assert list(first.text) == ["a&lt;b&gt;, model u", "a&lt;b&gt;, model v"]
    assert list(first.marker.symbol) == list(theme.SYMBOLS[:2]) and list(second.marker.symbol) == [theme.SYMBOLS[1]]
    np.testing.assert_allclose(first.error_y.array, [1.0, 1.0])
    np.testing.assert_allclose(first.error_y.arrayminus, [0.5, 1.0])
    assert first.error_x.array is None and list(line.y) == [1.5, 3.0]
    assert figure.note == "Read it so. circle: model u; diamond: model v."


def test_without_symbol_or_line_points_are_circles(table):
    figure = scatter(table, "x", "y", colour="task", title="T")
    assert [trace.marker.symbol for trace in figure.plotly.data] == ["circle", "circle"] and figure.note == ""
    assert figure.title == "T" and list(figure.plotly.data[0].text) == ["a&lt;b&gt;"] * 2


def test_points_at_one_place_stand_side_by_side_and_keep_their_numbers():
    table = pd.DataFrame({"TD": [0.4, 0.4, 0.9], "accuracy": [0.2, 0.2, 0.5], "task": ["noun", "pronoun", "verb"]})
    figure = scatter(table, "TD", "accuracy", colour="task")
    noun, pronoun, verb = figure.plotly.data
    assert abs(noun.x[0] - pronoun.x[0]) + abs(noun.y[0] - pronoun.y[0]) > 0.005
    assert noun.customdata[0] == pronoun.customdata[0] == [0.4, 0.2] and verb.x[0] == 0.9 and verb.y[0] == 0.5
    assert "Points that coincide stand side by side" in figure.note
