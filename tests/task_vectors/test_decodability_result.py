"""The result of decodability: chance, the best layer, tables and pairs."""

from __future__ import annotations

import numpy as np
import pytest

import tiny_characters
from tv_lens.results.sweep import Sweep
from tv_lens.task_vectors.decodability import decodability
from tv_lens.task_vectors.decodability_result import CONTROLS, Decodability


def test_the_chance_band_is_wider_than_independent_points_would_make_it(found):
    band = found.chance_band()
    assert band["low"].dims == ("layer", "task", "shots")
    assert bool((band["low"] < 0.25).all()) and bool((band["high"] > 0.25).all())
    assert float((band["high"] - band["low"]).mean()) > 4 * (0.25 * 0.75 / 30) ** 0.5
    assert float(found.over_tasks().mean().sel(layer=0, shots=4)) > float(band["high"].sel(layer=0, shots=4).mean())


def test_best_layer_leaves_null_out(found):
    means = found.mean().sel(task=["tells-0", "tells-1", "tells-2"]).mean("task")
    assert found.best_layer() == int(means.mean("shots").values.argmax())
    assert found.best_layer(shots=4) == int(means.sel(shots=4).values.argmax())
    assert found.tasks == ("tells-0", "tells-1", "tells-2")


def test_summary_puts_the_controls_beside(found):
    table = found.summary(layer=2)
    numbers = ["mean", "low", "high", "chance low", "chance high", *CONTROLS]
    assert list(table.columns) == ["task", "shots", "layer", *numbers]
    assert len(table) == 12
    row = table[(table.task == "tells-1") & (table.shots == 4)].iloc[0]
    assert row["mean"] == float(found.mean().sel(layer=2, task="tells-1", shots=4))
    assert row["surface tokens"] == float(found.controls.mean().sel(control="surface tokens", task="tells-1", shots=4))
    assert row["low"] <= row["mean"] <= row["high"] and row["layer"] == 2
    assert set(found.summary()["layer"]) == {found.best_layer()}


def test_pairwise_is_decodability_of_two(model, found):
    table = found.pairwise(layer=1)
    assert list(table.index) == list(table.columns) == list(found.classes)
    assert np.isnan(np.diag(table.values)).all() and not np.isnan(table.values).all()
    alone = decodability(model, tiny_characters.telling(3)[:2], shots=4, n=30, k=5, null=False, layers=1)
    for task, other in (("tells-0", "tells-1"), ("tells-1", "tells-0")):
        assert table.loc[task, other] == pytest.approx(float(alone.mean().sel(task=task, layer=1, shots=4)))
    assert found.pairwise(shots=0).shape == (4, 4)


def test_its_sweeps_are_saved_and_loaded(found, tmp_path):
    for part in (found.sweep, found.controls, found.pairs, found.shuffles):
        again = Sweep.load(part.save(tmp_path / "sweep"))
        assert again.values.equals(part.values) and again.provenance == part.provenance


def test_it_is_saved_and_loaded_whole(found, tmp_path):
    again = Decodability.load(found.save(tmp_path / "new" / "file"))
    for name in ("sweep", "controls", "pairs", "shuffles"):
        one, other = getattr(found, name), getattr(again, name)
        assert other.values.identical(one.values) and other.provenance == one.provenance and other.name == one.name
    assert repr(again) == repr(found) and again.summary().equals(found.summary())


def test_repr(found):
    text = repr(found)
    assert text.startswith(
        "Decodability of 3 tasks and Null: 5 nearest of 4 x 30 points, euclidean distance, chance 0.250\n"
    )
    assert "  4 shots, layer " in text and "surface tokens 0.99" in text and "different inputs" not in text
