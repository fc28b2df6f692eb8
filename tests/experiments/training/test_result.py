"""The result: when curves change, its table, its numbers as JSON, and its files."""

from __future__ import annotations

import json

import numpy as np
import pytest

import tiny_emergence
from tiny_emergence import STEPS
from tv_lens.errors import InvalidArgument, RenamedError
from tv_lens.experiments.training.result import Emergence, coupling


def test_change_points_are_where_they_were_put(run):
    points = run.change_points(n_boot=50)
    steps = points.table().query("curve == 'loss'").set_index("task").step
    # task k changes between the checkpoints 1 + k % 3 and 2 + k % 3
    for task, before in zip(run.tasks, (10, 20, 40, 10), strict=True):
        assert before < steps[task] < 2 * before
    token = run.best()["token"]
    assert points.definition == "half-way"
    assert points.curves.place == f"the {token}-token, layer 2, after 4 examples"
    assert tiny_emergence.emergence("functions").change_points(n_boot=10).definition == "fit"


def test_coupling_of_one_network_is_that_of_a_list_of_one(run):
    alone, listed = run.coupling(n_boot=50), coupling([run], n_boot=50)
    assert (alone.lag, alone.low, alone.high) == (listed.lag, listed.low, listed.high)
    assert alone.n_changed == 4 and alone.runs_low is None
    with pytest.raises(InvalidArgument, match="different definitions"):
        coupling([run, tiny_emergence.emergence("functions")], n_boot=10)


def test_the_table_is_of_any_step(run):
    first, last = run.table(STEPS[0]), run.table()
    assert first["MSE"].tolist() == pytest.approx(run.mse().sel(step=0).mean().values.tolist())
    np.testing.assert_allclose(last["MSE / Bayes"], last["MSE"] / last["Bayes mixture"])
    assert {"TD x", "TD y", "layer y", "chance y high", "read-out R2 y", "TD ceiling"} <= set(last.columns)


def test_saved_numbers_are_the_summary(run, tmp_path):
    path = run.save(tmp_path / "deep")
    numbers = json.loads(path.read_text())
    assert path.name == "emergence.json" and numbers["format"] == "tv_lens.emergence/1"
    assert numbers["steps"] == list(STEPS) and numbers["coupling"]["sentence"] == run.coupling().sentence()
    assert [row["task"] for row in numbers["by_step"][-1]["tasks"]] == list(run.tasks)
    assert isinstance(run, Emergence) and repr(run).startswith("Emergence of disjoint-0: 4 tasks of a sparse")
    with pytest.raises(RenamedError, match="tv.report"):
        run.page()
