"""Contributions to a share of votes: their mean, their variance, and limits that hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tv_lens.results.vote_limits import splits, vote_limits
from tv_lens.task_vectors.half_votes import contributions
from tv_lens.task_vectors.neighbours import leave_one_out, prepared


def drawn(n_classes: int, n: int, d: int, apart: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    means = np.random.default_rng(99).normal(size=(n_classes, 1, d))
    points = np.random.default_rng(seed).normal(size=(n_classes, n, d)) + apart * means
    return torch.tensor(points.reshape(-1, d)), torch.arange(n_classes).repeat_interleave(n)


def measured(points: torch.Tensor, labels: torch.Tensor, n_classes: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    hits = (leave_one_out(points, labels, k) == labels).view(n_classes, -1).T.numpy()
    return hits, contributions(prepared(points), labels, hits, k=k)


@pytest.mark.parametrize("n", [9, 20])
def test_the_mean_is_that_of_hits_and_the_variance_that_of_halves_voting_apart(n):
    points, labels = drawn(3, n, 5, 0.8, 0)
    hits, made = measured(points, labels, 3, 4)
    np.testing.assert_allclose(made.mean(0), hits.mean(0))
    gaps = []
    for sign in splits(n).T:  # the definition: two halves, each by a vote of its own
        shares = []
        for side in (1, -1):
            inside = torch.tensor(np.tile(sign == side, 3))
            right = leave_one_out(points[inside], labels[inside], 4) == labels[inside]
            shares.append(right.view(3, -1).double().mean(1).numpy())
        gaps.append((shares[0] - shares[1]) / 2 * np.sqrt(2 * (n // 2) / n))
    gaps = np.array(gaps)
    for weights in np.array([[1, 0, 0], [1, 1, 1], [1, -1, 0], [0.2, 0.5, -3]]):
        assert (made @ weights).var(ddof=1) / n == pytest.approx(((gaps @ weights) ** 2).mean())


def test_limits_hold_the_truth_where_independent_hits_would_not():
    n_classes, n, k, draws = 5, 40, 10, 60
    hits, low, high, spread = [], [], [], []
    for seed in range(draws):
        mine, made = measured(*drawn(n_classes, n, 30, 0.3, seed), n_classes, k)
        ends = vote_limits(mine.mean(0), made, True, 0.95)
        hits.append(mine.mean(0))
        low.append(ends[0])
        high.append(ends[1])
        spread.append(mine.std(0, ddof=1) / n**0.5)
    hits, truth = np.array(hits), np.mean(hits, axis=0)
    held = np.mean((np.array(low) <= truth) & (truth <= np.array(high)))
    before = np.mean(np.abs(hits - truth) <= 1.96 * np.array(spread))
    assert held >= 0.93 and before < 0.88, (held, before)


def test_points_that_coincide_do_not_favour_a_class():
    """All at one place: every half names classes at random, so the shares of halves differ around 0."""
    labels = torch.arange(4).repeat_interleave(20)
    _, made = measured(torch.zeros(80, 2), labels, 4, 5)
    assert np.isfinite(made).all() and (made.std(0) > 0.1).all()


def test_the_seed_fixes_ties_and_nothing_else():
    points, labels = drawn(3, 12, 4, 0.5, 1)
    hits = (leave_one_out(points, labels, 3) == labels).view(3, -1).T.numpy()
    made = [contributions(points, labels, hits, k=3, seed=seed) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(made[0], made[1])
    np.testing.assert_array_equal(made[0], made[2])  # no ties among these
