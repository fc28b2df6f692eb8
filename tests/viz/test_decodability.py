"""Decodability as curves with chance as a dashed line."""

from __future__ import annotations

import numpy as np

from made_up import decodability
from tiny_figures import TASKS, sweep
from tv_lens.task_vectors.decodability_result import Decodability
from tv_lens.viz import plot


def test_a_result_is_drawn_by_its_own_sweep_with_chance():
    labels = {"layer": range(3), "task": TASKS}
    shares = sweep(3, 2, dims=("layer", "task"), share=True, coords=labels, provenance={"null": None, "chance": 0.5})
    figure = plot(Decodability(shares, shares, shares, shares), title="mine")
    curves = [trace for trace in figure.plotly.data if trace.fill is None]
    np.testing.assert_allclose(curves[0].y, shares.mean().sel(task=TASKS[0]).values, atol=1e-6)
    assert figure.title == "mine" and figure.plotly.layout.annotations[-1].text == "chance 0.50"


def test_controls_are_drawn_among_the_tasks():
    result = decodability({1: 0.5, 4: 0.9}, seed=0, surface={1: 0.3, 4: 0.8})
    names = [trace.name for trace in plot(result).plotly.data if trace.fill is None and trace.showlegend]
    assert names[:6] == list(result.classes) and names[6:] == ["surface tokens, mean of tasks"]
    drawn = next(trace for trace in plot(result).plotly.data if trace.fill is None and trace.name == names[6])
    expected = result.controls.sel(control="surface tokens", shots=1).mean().mean("task")
    np.testing.assert_allclose(drawn.y, float(expected), atol=1e-6)
