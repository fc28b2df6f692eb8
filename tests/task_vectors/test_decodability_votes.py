"""Votes at one shot count, on points made by hand."""

from __future__ import annotations

import pytest
import torch

from tv_lens.site import Site
from tv_lens.task_vectors import decodability_votes
from tv_lens.task_vectors.decodability_result import WITHOUT_NETWORK
from tv_lens.task_vectors.decodability_votes import VoteRule, votes_of
from tv_lens.task_vectors.representations import Points

SITE, ENTRY = Site("resid_post", 0), Site("resid_pre", 0)
N = 4


@pytest.fixture
def votes(monkeypatch):
    """Three classes of four points: two in places of their own, the third spread over both."""
    monkeypatch.setattr(decodability_votes, "_N_SHUFFLES", 5)
    points = Points(
        classes=("left", "right", "both"),
        labels=torch.arange(3).repeat_interleave(N),
        rows=[[0]] * (3 * N),
        texts=[""] * (3 * N),
        shown_tokens=[[0]] * N + [[1]] * N + [[2]] * N,
        shown_text=["a"] * (3 * N),
    )
    places = torch.tensor([0.0, 0.1, 0.2, 0.3, 9.0, 9.1, 9.2, 9.3, 0.15, 0.151, 9.15, 9.151])
    table = {SITE: places[:, None], ENTRY: torch.zeros(3 * N, 1)}
    return votes_of(table, [SITE], ENTRY, points, VoteRule(k=3, distance="euclidean", seed=0))


def test_hits_by_hand(votes):
    assert votes.hits.shape == (N, 1, 3)
    # At 0.0 the neighbours are 0.1, 0.15 and 0.151; at 0.1 they are 0.15, 0.151 and one of 0.0 and 0.2.
    assert votes.hits[:2, 0, 0].tolist() == [False, False] and not votes.hits[:, 0, 2].any()


def test_pairs_leave_the_third_class_out(votes):
    pairs = votes.pairs[:, 0]
    assert pairs.shape == (N, 3, 3)
    assert (pairs[:, 0, 1] == 1).all() and (pairs[:, 1, 0] == 1).all()  # far apart without the third
    assert torch.isnan(torch.diagonal(pairs, dim1=1, dim2=2)).all() and int(torch.isnan(pairs).sum()) == 3 * N


def test_controls_without_the_model(votes):
    assert votes.controls.shape == (N, len(WITHOUT_NETWORK), 3)
    surface = dict(zip(WITHOUT_NETWORK, votes.controls.unbind(1)))
    assert (surface["surface tokens"] == 1).all()  # every class shows a token of its own
    assert surface["embedding"].sum() < 3 * N and surface["surface characters"].sum() < 3 * N  # all points coincide


def test_shuffles_are_shares_of_a_class(votes):
    assert votes.shuffles.shape == (5, 1, 3)
    assert (votes.shuffles * N == (votes.shuffles * N).round()).all() and float(votes.shuffles.mean()) < 0.8
    torch.testing.assert_close(votes.controls[:, 0].mean(0), votes.shuffles[:, 0].mean(0))
