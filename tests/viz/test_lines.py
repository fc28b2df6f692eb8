"""Curves: bands, baselines, marks, panels, and axes of training steps."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import xarray as xr

from tiny_figures import sweep
from tv_lens.errors import UnknownName
from tv_lens.results.sweep import Sweep
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
    marked = plot(
        curves, mark=curves.values["layer"].values[0], mark_label="best: here"
    )  # panels have names above them
    assert "dotted line: best: here" in marked.subtitle
    assert "best: here" not in [note.text for note in marked.plotly.layout.annotations]


def test_steps_stand_on_a_logarithmic_axis_with_zero_before_the_first(run):
    figure = plot(run.mse())
    axis = figure.plotly.layout.xaxis
    assert axis.type == "log" and axis.ticktext[0] == "0" and axis.tickvals[0] == 5.0
    curve = figure.plotly.data[1]
    assert list(curve.x) == [5.0, *run.loss.values["step"].values[1:]] and curve.customdata[0][3] == "0"
    marked = plot(run.mse(), mark=40).plotly
    assert marked.layout.shapes[-1].x0 == 40 and marked.layout.annotations[-1].x == pytest.approx(np.log10(40))


def test_bands_of_a_patched_run_are_those_of_the_paired_difference():
    random = np.random.default_rng(0)
    corrupted = random.normal(5, 4, size=30)  # prompts differ by far more than patching changes any of them
    values = corrupted[:, None] + np.array([0.0, 1.0, 2.0]) + random.normal(0, 0.1, size=(30, 3))
    ends = {"corrupted": xr.DataArray(corrupted, dims="example")}
    sweep = Sweep(xr.DataArray(values, dims=("example", "layer")), "logit_diff", "logits", "up", name="a",
                  provenance={"direction": "denoising"}, **ends)  # fmt: skip
    figure = plot(sweep, kind="lines")
    line = figure.plotly.data[1]
    np.testing.assert_allclose(line.y, values.mean(0), atol=1e-5)
    change = values - corrupted[:, None]
    for (low, high, *_), mean, sd in zip(line.customdata, change.mean(0), change.std(0, ddof=1), strict=True):
        # The limits of a mean, by the t distribution.
        half = scipy.stats.t.ppf(0.975, 29) * sd / np.sqrt(30)
        np.testing.assert_allclose([low, high], corrupted.mean() + mean + np.array([-half, half]), atol=0.01)
    assert "paired difference from the corrupted run" in figure.subtitle
