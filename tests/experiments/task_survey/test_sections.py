"""The findings of a survey as parts of its page, on small sweeps whose numbers are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import xarray as xr

from made_up import decodability
from tiny_folder import TASKS
from tv_lens.experiments.task_survey.sections import (
    _beside,
    _input_caution,
    _joined,
    _passage,
    _surface_alone,
    _visible,
    circuit_sections,
    controls_parts,
)
from tv_lens.results.sweep import Sweep
from tv_lens.viz.html import Table


def sweep_of(values: np.ndarray, **axes: list) -> Sweep:
    array = xr.DataArray(values, dims=("example", *axes), coords=axes)
    return Sweep(array, "m", "share", "up", zero=0.0, allow_missing=bool(np.isnan(values).any()))


def test_tasks_of_different_sizes_stand_in_one_sweep_with_gaps():
    long = sweep_of(np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 0.0]]), layer=[2, 5])
    short = sweep_of(np.array([[0.0, 1.0], [0.0, 0.0]]), layer=[2, 5])
    both = _joined({"long": long, "short": short}, "layer", "joined")
    assert both.values.dims == ("example", "layer", "task") and both.values["layer"].values.tolist() == [2, 5]
    np.testing.assert_array_equal(both.values.sel(task="long").values, long.values.values)
    np.testing.assert_array_equal(both.values.sel(task="short").values[:2], short.values.values)
    assert np.isnan(both.values.sel(task="short").values[2]).all() and both.allow_missing
    assert not _joined({"one": short, "two": short}, "layer", "joined").allow_missing


def test_where_the_task_is_before_and_after_it_arrives():
    cells = np.zeros((2, 3, 3))  # example layer pos
    cells[:, 1, 0] = 0.6
    cells[:, 2, 2] = 0.5
    text = _passage(sweep_of(cells, layer=[0, 1, 2], pos=[-3, -2, -1]))
    assert text.startswith(
        "Before the last token, the strongest cell is position -3 at layer 1: it alone brings back 0.6 of the "
    )
    assert "From layer 2 on, the last token alone brings back half or more" in text
    cells[:, 2, 2] = 0.25
    assert "From layer" not in _passage(sweep_of(cells, layer=[0, 1, 2], pos=[-3, -2, -1]))


def test_white_space_in_a_token_is_seen():
    assert _visible(" a\nb") == "␣a⏎b"


def test_different_inputs_are_a_caution_and_the_same_inputs_are_not(result):
    assert "different inputs" in _input_caution(result.decodability) and _input_caution(result.matched) == ""


def test_the_controls_table_has_a_row_per_task_and_condition(result):
    table = next(part for part in controls_parts(result) if isinstance(part, Table))
    conditions = result.evaluations[TASKS[0]].values["condition"].values.tolist()
    assert table.frame["task and condition"].tolist() == [f"{name}: {one}" for name in TASKS for one in conditions]
    cell = result.accuracy(TASKS[1], "few-shot")
    row = table.frame[table.frame["task and condition"] == f"{TASKS[1]}: few-shot"].iloc[0]
    assert row["n"] == cell["n"] and row["first token [95% interval]"].startswith(f"{cell['mean']:.2f} [")


def test_without_a_circuit_there_is_no_section_of_it(result):
    assert result.circuit is None and circuit_sections(result) == []


def test_every_control_stands_beside_decodability(result):
    table = _beside(result.decodability)
    shown = ["embedding", "answer tokens", "answer characters", "place and length", "untrained"]
    assert table.frame.columns.tolist()[3:] == [*shown, "in halves: as they are, without format"]
    summary = result.decodability.summary(result.decodability.best_layer())
    row = summary[summary["shots"] == summary["shots"].max()].iloc[0]
    assert table.frame.iloc[0]["untrained"] == f"{row['untrained network']:.2f}"
    without = replace(
        result.decodability,
        controls=replace(
            result.decodability.controls,
            values=result.decodability.controls.values.where(
                result.decodability.controls.values["control"] != "untrained network"
            ),
            allow_missing=True,
        ),
        untrained=None,
    )
    assert _beside(without).frame.iloc[0]["untrained"] == "not measured"


def test_what_spelling_alone_reaches_stands_before_any_inference():
    """Version 0.1 called a rise "the model's own inference" where counting characters reaches 0.93 to 1.00."""
    same = decodability({1: 0.5, 4: 0.95}, seed=1, surface={1: 0.5, 4: 0.97})
    assert "need not be inference" in _surface_alone(same) and "the tokens of the shown answers alone" in (
        _surface_alone(same)
    )
    above = _surface_alone(decodability({1: 0.5, 4: 0.95}, seed=1, surface={1: 0.2, 4: 0.3}))
    assert "not in the answers' spelling" in above and "inference" not in above
