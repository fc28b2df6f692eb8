"""Pictures of experiments' results, against the numbers of their tables."""

from __future__ import annotations

import pandas as pd
import pytest

import tiny_emergence
from made_up import decodability, prediction
from tv_lens.experiments import Comparison, Encoding, Finetuning, Instruction
from tv_lens.viz import plot

BEFORE, AFTER = ({1: 0.3, 4: 0.5}, {1: 0.2, 4: 0.3}), ({1: 0.5, 4: 0.7}, {1: 0.4, 4: 0.6})


def test_an_encoding_is_decodability_by_layer():
    found = decodability({1: 0.4, 4: 0.8}, seed=0)
    figure = plot(Encoding(found, {}, 1))
    best = float(found.over_tasks().sel(layer=1, shots=4).mean())
    assert f"{best:.2f} at layer 1" in figure.title
    assert any(note.text == "layer 1" for note in figure.plotly.layout.annotations)


def test_an_instruction_is_two_clouds_of_points():
    one = Instruction(prediction(*BEFORE, seed=0), prediction(*AFTER, seed=1))
    figure = plot(one)
    assert [trace.name for trace in figure.plotly.data] == ["without instruction", "with instruction"]
    means = [part.points()["accuracy"].mean() for part in (one.plain, one.told)]
    assert f"from {means[0]:.2f} to {means[1]:.2f}" in figure.title


def test_finetuning_is_a_point_per_variant():
    parts = {"pretrained": prediction(*BEFORE, seed=0), "last 2 layers": prediction(*AFTER, seed=1)}
    one = Finetuning(parts, {"last 2 layers": [1.0, 0.5]}, {"last 2 layers": [1, 2]})
    figure = plot(one)
    assert [trace.name for trace in figure.plotly.data] == list(parts)
    numbers = [trace.customdata[0][1] for trace in figure.plotly.data]
    assert numbers == pytest.approx(one.table()["accuracy"].tolist(), abs=1e-6)


def test_models_are_points_by_source():
    sources = {f"step{i}": {"pos": prediction(*one, seed=i)} for i, one in enumerate((BEFORE, AFTER))}
    figure = plot(Comparison(sources))
    assert [trace.name for trace in figure.plotly.data] == ["step0", "step1"]
    assert sum(len(trace.x) for trace in figure.plotly.data) == len(Comparison(sources).table())


def test_changes_of_one_training_are_steps_over_steps():
    run = tiny_emergence.emergence()
    points = run.change_points()
    figure = plot(points)
    both = points.lags().dropna(subset=["lag"])
    named = {trace.name: trace.customdata[0] for trace in figure.plotly.data if trace.name}
    assert set(named) == set(both["task"])
    for row in both.to_dict("records"):
        steps = [value for name, value in row.items() if name.endswith(" step")]
        assert sorted(named[row["task"]]) == pytest.approx(sorted(steps))
    coupled = plot(run.coupling())
    assert {trace.name for trace in coupled.plotly.data if trace.name} == set(named)
    assert isinstance(run.coupling().lags, pd.DataFrame) and coupled.title == run.coupling().sentence()
