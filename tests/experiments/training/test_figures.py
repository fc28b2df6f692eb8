"""Figures of an `Emergence`: what is drawn is what the sweeps hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import tiny_emergence
from tiny_emergence import STEPS
from tiny_figures import notch
from tv_lens.errors import InvalidArgument
from tv_lens.experiments.training.figures import by_layer, clipped, gains, levels, over_runs
from tv_lens.viz import plot


def test_a_map_alone_has_its_slider(run):
    one = run.maps["pca"]
    figure = plot(one)
    for i, step in enumerate(STEPS):
        shown = notch(figure, i)
        points = one.points.sel(step=step)
        for j, task in enumerate(run.tasks):
            mine = points[{"point": points["task"].values == task}].values
            np.testing.assert_allclose(np.stack([shown[j]["x"], shown[j]["y"]], -1), mine, atol=5e-4)
    assert "80% of the variance" in figure.subtitle


def test_gains_are_zero_without_telling_tasks_apart_and_one_as_the_bayesian(run):
    sweep = gains(run)
    loss, references = run.mse().mean(), run.references.mean("shots").mean()
    blind, bayes = (references.sel(reference=name).values for name in ("blind ridge", "Bayes mixture"))
    np.testing.assert_allclose(
        sweep.mean().sel(curve="loss").values, (blind - loss.values) / (blind - bayes), rtol=1e-6
    )
    td = run.td_curve(**run.best()).mean()
    np.testing.assert_allclose(sweep.mean().sel(curve="decodability").values, (td.values - 0.25) / 0.75, atol=1e-6)
    with pytest.raises(InvalidArgument, match="best possible loss"):
        gains(tiny_emergence.emergence("functions"))


def test_decodability_by_layer_has_a_panel_a_task_and_a_curve_a_checkpoint(run):
    figure = plot(by_layer(run, [0, 160], "y"))
    named = [trace for trace in figure.plotly.data if trace.mode == "lines+markers"]
    assert len(named) == 2 * len(run.tasks) and named[0].name == "training step 0"
    shares = run.td.sel(step=160, shots=4, token="y", task="basis 0").mean().values
    np.testing.assert_allclose(named[1].y, shares, atol=1e-6)
    assert [note.text for note in figure.plotly.layout.annotations[:4]] == list(run.tasks)


def test_seeds_side_by_side_only_at_the_same_checkpoints(run):
    other = tiny_emergence.emergence(seed=1)
    sweep = over_runs([run, other], "loss")
    assert sweep.values.sizes["seed"] == 2 and sweep.values["seed"].values.tolist() == [0, 1]
    np.testing.assert_allclose(sweep.sel(seed=1).mean().values, other.mse().mean().values)
    panels = plot(sweep).plotly.layout.annotations[:2]
    assert [note.text for note in panels] == ["seed 0", "seed 1"]
    shorter = replace(other, loss=other.loss.isel(step=slice(0, 4)))
    assert over_runs([run, shorter], "loss") is None


def test_levels_are_the_references_to_compare_with(run):
    assert list(levels(run)) == ["zero", "blind ridge", "Bayes mixture", "oracle basis"]
    assert list(levels(tiny_emergence.emergence("functions"))) == ["zero", "ridge"]


def test_a_clipped_figure_has_the_range_that_is_given(run):
    assert tuple(clipped(plot(run.mse()), -0.5, 1.5).plotly.layout.yaxis.range) == (-0.5, 1.5)
