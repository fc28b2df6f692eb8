"""Curves: bands, baselines, marks, panels, and axes of training steps."""

from __future__ import annotations

import numpy as np
import pytest

from tiny_figures import sweep
from tv_lens.errors import UnknownName
from tv_lens.viz import plot


def test_one_layer_axis_is_a_line_with_band_baselines_and_mark():
    hits = sweep(5, dims=("layer",), share=True, clean=np.ones(12), corrupted=np.zeros(12), provenance={"chance": 0.1})
    figure = plot(hits, mark=3, mark_label="chosen")
    band, line = figure.plotly.data
    assert band.fill == "toself" and len(band.x) == 10
    np.testing.assert_allclose(line.y, hits.mean().values, atol=1e-6)
    texts = [note.text for note in figure.plotly.layout.annotations]
    assert texts == ["chosen", "clean run 1.00", "corrupted run 0", "chance 0.10"]
    assert len(figure.plotly.layout.shapes) == 4
    assert tuple(figure.plotly.layout.yaxis.range) == (-0.02, 1.04)  # a share is shown on the whole of 0 to 1
    with pytest.raises(UnknownName):
        plot(hits, mark=9)


def test_curves_have_one_line_a_task_and_one_panel_a_shot_count(curves):
    figure = plot(curves)
    lines = [trace for trace in figure.plotly.data if trace.fill is None]
    assert len(lines) == 6
    assert [trace.name for trace in lines if trace.showlegend] == ["present-past", "a &amp; &lt;b&gt;"]
    assert [note.text for note in figure.plotly.layout.annotations[:3]] == ["shots 1", "shots 4", "shots 10"]
    assert figure.plotly.layout.annotations[-1].text == "chance 0.50"


def test_steps_stand_on_a_logarithmic_axis_with_zero_before_the_first(run):
    figure = plot(run.mse())
    axis = figure.plotly.layout.xaxis
    assert axis.type == "log" and axis.ticktext[0] == "0" and axis.tickvals[0] == 5.0
    curve = figure.plotly.data[1]
    assert list(curve.x) == [5.0, 10.0, 20.0, 40.0, 80.0, 160.0] and curve.customdata[0][3] == "0"
    marked = plot(run.mse(), mark=40).plotly
    assert marked.layout.shapes[-1].x0 == 40 and marked.layout.annotations[-1].x == pytest.approx(np.log10(40))
