"""Splits: disjoint, alike over the same inputs, as even as small tasks allow."""

from __future__ import annotations

import pytest

from tv_lens.tasks import Task, family
from tv_lens.tasks.drawing import SPLITS

NUMBERS = Task("successor", [(str(i), str(i + 1)) for i in range(50)])


def test_splits_share_neither_pair_nor_input():
    parts = [NUMBERS.split(which) for which in SPLITS]
    assert [len(part) for part in parts] == [30, 10, 10]
    assert sorted(pair.input for part in parts for pair in part) == sorted(NUMBERS.lookup)
    assert Task("other", NUMBERS.items, seed=1).split("test") != NUMBERS.split("test")


def test_tasks_over_the_same_inputs_are_split_alike():
    for which in SPLITS:
        inputs = [{pair.input for pair in one.split(which)} for one in family("verbs")]
        assert inputs[0] == inputs[1] == inputs[2]


@pytest.mark.parametrize("n, sizes", [(1, [1, 0, 0]), (2, [2, 0, 0]), (3, [1, 1, 1]), (5, [3, 1, 1]), (10, [6, 2, 2])])
def test_small_tasks_are_split_as_far_as_they_go(n, sizes):
    small = Task("t", [(str(i), str(i)) for i in range(n)])
    assert [len(small.split(which)) for which in SPLITS] == sizes
