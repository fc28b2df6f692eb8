"""The scrubber: every notch shows the numbers of its checkpoint, on axes that do not move."""

from __future__ import annotations

import json
import re

import numpy as np

from tiny_emergence import LAYERS, STEPS
from tiny_figures import notch
from tv_lens.experiments.training.figures import training_view
from tv_lens.viz import plot, theme
from tv_lens.viz.training_view import TrainingView


def test_every_notch_shows_the_numbers_of_its_checkpoint(run):
    figure = plot(run)
    traces, notches = figure.plotly.data, figure.plotly.layout.sliders[0].steps
    assert [notch.label for notch in notches] == [str(step) for step in STEPS]
    assert {notch.method for notch in notches} == {"restyle"}
    td, mse = run.td.sel(shots=run.shots), run.mse()
    bounds = td.interval()
    for i, step in enumerate(STEPS):
        shown = notch(figure, i)
        lines = [(j, traces[j]) for j in shown]
        (cursor,) = [j for j, trace in lines if trace.mode == "lines" and trace.fill is None]
        assert shown[cursor]["x"] == [theme.step_places(STEPS)[i]] * 2
        (dots,) = [j for j, trace in lines if trace.mode == "markers" and trace.name is None]
        np.testing.assert_allclose(shown[dots]["y"], mse.sel(step=step).mean().values, atol=1e-4)
        for token, axis in (("x", "x3"), ("y", "x4")):
            for task in run.tasks:
                (curve,) = [j for j, t in lines if t.name == task and t.mode == "lines+markers" and t.xaxis == axis]
                assert shown[curve]["x"] == list(LAYERS)
                np.testing.assert_allclose(
                    shown[curve]["y"], td.sel(step=step, token=token, task=task).mean().values, atol=1e-4
                )
                (band,) = [j for j, t in lines if t.name == task and t.fill == "toself" and t.xaxis == axis]
                here = bounds.sel(step=step, token=token, task=task)
                np.testing.assert_allclose(
                    shown[band]["y"], [*here["high"].values, *here["low"].values[::-1]], atol=1e-4
                )
        for kind, axis in (("pca", "x2"), ("class means", "x5")):
            points = run.maps[kind].points.sel(step=step)
            for task in run.tasks:
                (cloud,) = [j for j, t in lines if t.name == task and t.mode == "markers" and t.xaxis == axis]
                mine = points[{"point": points["task"].values == task}]
                np.testing.assert_allclose(np.stack([shown[cloud]["x"], shown[cloud]["y"]], -1), mine.values, atol=5e-4)


def test_it_opens_at_the_last_checkpoint_with_fixed_axes_and_one_legend(run):
    figure = plot(run)
    last = notch(figure, len(STEPS) - 1)
    for trace, shown in last.items():
        for axis in "xy":
            np.testing.assert_allclose(np.array(figure.plotly.data[trace][axis], float), shown[axis])
    assert figure.plotly.layout.sliders[0].active == len(STEPS) - 1
    for name in ("xaxis", "xaxis2", "xaxis3", "xaxis4", "xaxis5"):
        assert figure.plotly.layout[name].range is not None and figure.plotly.layout["y" + name[1:]].range is not None
    for kind, axis in (("pca", "axis2"), ("class means", "axis5")):
        points = run.maps[kind].points.values
        for i, which in enumerate("xy"):
            low, high = figure.plotly.layout[which + axis].range
            assert low < points[..., i].min() and high > points[..., i].max()
    legend = [trace.name for trace in figure.plotly.data if trace.showlegend is not False]
    assert legend == list(run.tasks)
    texts = [note.text for note in figure.plotly.layout.annotations]
    assert {"Map: PCA of all checkpoints", "Decodability at the y-token"} <= set(texts)
    for name in ("zero", "blind ridge", "Bayes mixture", "oracle basis", "chance 0.25", "ceiling 1.00"):
        assert any(text.startswith(name) for text in texts), name


def test_the_whole_figure_is_light_and_knows_the_dark(run):
    figure = plot(run)
    payload = figure.payload()
    assert len(payload) < 200_000 and "bdata" not in json.dumps(json.loads(payload)["layout"])
    colours = set(re.findall(r"#[0-9a-f]{6}|rgba\([^)]*[1-9]\)", payload))
    assert colours and colours <= set(theme.swap_table())


def test_a_view_without_maps_or_ceiling_and_with_one(run):
    view = training_view(run)
    bare = TrainingView("bare", view.loss, view.td, view.chance)
    drawn = plot(bare).plotly
    assert "xaxis4" not in drawn.layout and len(drawn.data) == 2 * 4 + 2 + 2 * 2 * 4
    assert not any("ceiling" in note.text for note in drawn.layout.annotations)
    alone = TrainingView("alone", view.loss, view.td, view.chance, maps=dict(list(view.maps.items())[:1]))
    assert plot(alone).plotly.layout.sliders[0].active == len(view.steps) - 1 and "alone" in repr(alone)
