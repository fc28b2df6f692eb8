"""Greedy exact match over tasks and shots."""

from __future__ import annotations

import numpy as np

import tv_lens as tv
from tv_lens.experiments.language_models.performance import _majority, accuracies, tasks_of
from tv_lens.tasks import family


def test_accuracies_are_scores_cell_by_cell(model, bits):
    found = accuracies(model, bits, shots=(1, 2), queries=5, progress=False)
    assert found.values.dims == ("example", "task", "shots") and found.values.shape == (5, 3, 2)
    one = tv.score(model, bits[1].prompts(2, 5, seed=0), progress=False).exact_match
    np.testing.assert_array_equal(found.sel(task="NAND", shots=2).values.values, one.numpy())
    assert found.provenance["majority"]["AND"] == 9 / 16


def test_without_demonstrations_each_query_is_asked_once(model):
    tasks = family("bitwise", width=2)[:2]
    assert accuracies(model, tasks, shots=(0, 1), queries=50, progress=False).n == len(tasks[0].split("test"))


def test_tasks_from_names_tasks_and_lists(bits):
    assert [one.name for one in tasks_of("antonym")] == ["antonym"] and tasks_of(bits[0]) == [bits[0]]
    assert [one.name for one in tasks_of(["antonym", bits[0]])] == ["antonym", "AND"]


def test_the_most_common_answer_scores_its_share():
    own = tv.Task("own", [("a", "x"), ("b", "x"), ("c", "y"), ("d", "x"), ("e", "z")])
    assert _majority(own) == 3 / 5
