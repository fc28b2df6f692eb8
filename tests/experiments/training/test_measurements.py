"""What follows from the measurements alone: means, places, chance and its band."""

from __future__ import annotations

import numpy as np
import pytest

import tiny_emergence
from tiny_emergence import BAYES, BLIND, LAYERS, STEPS
from tv_lens.errors import InvalidArgument, UnknownName


def test_the_extra_nats_vanish_for_the_bayesian_and_floor_is_nothing_of_the_network(result):
    excess = result.loss.mean().isel(step=0) - result.references.sel(reference="Bayes mixture").mean()
    assert float(excess.mean()) > 0 and float(result.kl.mean().isel(step=0).mean()) > 0
    assert float(result.kl.values.min()) >= 0 and result.kl_floor.axes == ("shots", "task")
    assert result.kl.axes == ("step", "shots", "task")


def test_labels_and_references_of_a_run_set_by_hand(run):
    assert (run.steps, run.shots, run.name) == (STEPS, 4, "disjoint-0") and run.tasks == run.family.task_names
    assert (run.blind, run.bayes) == ("blind ridge", "Bayes mixture")
    functions = tiny_emergence.emergence("functions")
    assert functions.bayes is None and functions.blind is None and functions.mean_ceiling() is None
    assert run.chance() == 0.25 and run.mean_ceiling() == 1.0


def test_the_best_place_is_the_last_layer_and_may_be_asked_for_at_a_token(run):
    assert run.best()["layer"] == LAYERS[-1] and run.best("x") == {"token": "x", "layer": LAYERS[-1]}
    curve = run.td_curve("x", layer=0, shots=2)
    assert curve.axes == ("step", "task")
    np.testing.assert_array_equal(curve.values, run.td.sel(token="x", layer=0, shots=2).values)


def test_the_nearest_reference_before_and_after(run):
    nearest = run.resembles().query("nearest").set_index("step").reference
    assert nearest[0] == "zero" and nearest[STEPS[1]] == "blind ridge" and nearest[STEPS[-1]] == "Bayes mixture"
    mse = run.mse().mean()
    assert float(mse.sel(step=STEPS[1]).mean()) == pytest.approx(1.02 * BLIND, rel=0.05)
    assert float(mse.sel(step=STEPS[-1]).mean()) == pytest.approx(1.05 * BAYES, rel=0.05)
    relative = run.mse(relative=True)
    assert relative.units == "share of the answers' power" and relative.metric == "relative squared error"


def test_the_band_of_chance_holds_its_share_of_shuffles(run):
    band, shuffled = run.chance_band(0.9), run.td_chance.values
    inside = ((shuffled >= band["low"]) & (shuffled <= band["high"])).mean("example")
    assert float(inside.min()) >= 0.85 and float(inside.max()) <= 0.95


def test_levels_that_are_not_there_are_refused(run):
    with pytest.raises(UnknownName, match="within"):
        run.decodability("withn")
    with pytest.raises(UnknownName, match="group"):
        run.chance("groups")
    with pytest.raises(InvalidArgument, match="no groups"):
        run.decodability("group")
    assert tiny_emergence.emergence("overlapping").decodability("group").axes == run.td.axes
