"""The result of decodability: chance, the best layer, tables and pairs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tiny_characters
from tv_lens.results.sweep import Sweep
from tv_lens.task_vectors.decodability import decodability
from tv_lens.task_vectors.decodability_result import (
    CONTROLS,
    FORMATS,
    METRIC,
    PLACES,
    STRONG,
    TAKEN_OUT,
    UNTRAINED,
    WITHOUT_NETWORK,
    Decodability,
)
from tv_lens.task_vectors.decodability_votes import Votes


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
    numbers = ["mean", "low", "high", "chance low", "chance high", *CONTROLS, *FORMATS]
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
    for name in ("sweep", "controls", "pairs", "shuffles", "formats", "untrained"):
        one, other = getattr(found, name), getattr(again, name)
        assert other.values.identical(one.values) and other.provenance == one.provenance and other.name == one.name
    assert repr(again) == repr(found) and again.summary().equals(found.summary())


def test_a_file_of_an_earlier_version_has_fewer_controls(found, tmp_path):
    known = [name for name in CONTROLS if name not in (PLACES, UNTRAINED)]
    earlier = Decodability(found.sweep, found.controls.sel(control=known), found.pairs, found.shuffles)
    again = Decodability.load(earlier.save(tmp_path / "file"))
    assert again.formats is None and again.untrained is None and again.measured_controls == tuple(known)
    assert set(known) <= set(again.summary().columns) and "untrained network:" in repr(again)
    assert again.beside().values["curve"].values.tolist() == [METRIC, "surface tokens", "surface characters"]


def test_votes_in_a_folder_of_an_earlier_version():
    shares = torch.rand(9, 2, 3, generator=torch.Generator().manual_seed(0))
    old = {"hits": shares > 0.5, "pairs": shares[..., None], "controls": torch.rand(9, 4, 3), "shuffles": shares}
    votes = Votes.stored(old)
    assert votes.controls.shape == (9, len(WITHOUT_NETWORK), 3)
    assert torch.equal(votes.controls[:, :4], old["controls"]) and torch.isnan(votes.controls[:, 4]).all()
    assert all(torch.isnan(one).all() for one in (votes.spread, votes.controls_spread, votes.formats))


def test_the_strongest_control_is_the_one_that_names_most_tasks(found):
    for shots in (1, 4):
        means = found.controls.sel(shots=shots, task=list(found.tasks)).mean().mean("task")
        name, votes = found.strongest_control(shots)
        assert float(means.sel(control=name)) == max(float(means.sel(control=one)) for one in STRONG)
        assert float(votes.mean()) == pytest.approx(float(means.sel(control=name)))


def test_controls_stand_beside_decodability_by_layer(found):
    beside, tasks = found.beside(), list(found.tasks)
    assert beside.axes == ("layer", "curve", "shots")
    assert beside.values["curve"].values.tolist() == [METRIC, TAKEN_OUT, *STRONG]
    np.testing.assert_allclose(beside.sel(curve=METRIC).mean().values, found.over_tasks().mean().values)
    own = found.untrained.sel(task=tasks).mean().mean("task")
    np.testing.assert_allclose(beside.sel(curve=UNTRAINED).mean().values, own.values)
    flat = beside.sel(curve="surface tokens", shots=4).mean().values
    assert (flat == flat[0]).all() and not np.isnan(beside.interval()["low"].sel(curve=UNTRAINED)).any()
    every = found.with_controls()
    assert every.values["task"].values.tolist()[:4] == list(found.classes)
    assert every.values["task"].values.tolist()[-1] == f"{UNTRAINED}, mean of tasks"


def test_any_class_may_be_lucky(found):
    band = found.chance_band().sel(layer=1, shots=4)
    assert found.widest_band(1, 4) == (float(band["low"].min()), float(band["high"].max()))
    assert "by chance a class scores 0." in repr(found)


def test_repr(found):
    text = repr(found)
    assert text.startswith(
        "Decodability of 3 tasks and Null: 5 nearest of 4 x 30 points, euclidean distance, chance 0.250\n"
    )
    assert "  4 shots, layer " in text and "surface tokens 0.99" in text and "different inputs" not in text
