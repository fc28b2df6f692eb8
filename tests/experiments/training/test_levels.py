"""Chance at every level of decodability, by hand."""

from __future__ import annotations

from tv_lens.experiments.training.levels import GROUP, TASK, WITHIN, chances
from tv_lens.lab import SparseMixture


def test_chance_counts_tasks_groups_and_tasks_of_a_group():
    assert chances(SparseMixture.overlapping(groups=2, each=3, size=3, rank=2, points=5)) == {
        TASK: 1 / 6,
        GROUP: 1 / 2,
        WITHIN: 1 / 3,
    }
    assert chances(SparseMixture.disjoint(4, rank=1, points=5)) == {TASK: 0.25, GROUP: 0.25, WITHIN: 1.0}
