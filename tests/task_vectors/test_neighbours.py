"""Leave-one-out neighbours: by hand, against scikit-learn, and where nothing but ties decides."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from tv_lens.errors import InvalidArgument, ShapeMismatch, UnknownName
from tv_lens.task_vectors import neighbours as nb
from tv_lens.task_vectors.neighbours import distances, leave_one_out, neighbours, prepared, vote


def noise(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def shares(points: torch.Tensor, n_classes: int, k: int = 10, seed: int = 0) -> torch.Tensor:
    """The share of rightly named points of each class, classes standing one after another."""
    labels = torch.arange(n_classes).repeat_interleave(len(points) // n_classes)
    return (leave_one_out(points, labels, k, seed=seed) == labels).float().view(n_classes, -1).mean(dim=1)


def test_a_plane_by_hand():
    points = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [10.0, 0.0], [11.0, 0.0], [9.0, 1.0], [1.0, 1.0]])
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 1])  # the last one stands among the others' class
    index, far = neighbours(points, k=3)
    assert index[3].tolist()[0] == 4 and set(index[0].tolist()) == {1, 2, 6}
    assert far[0].tolist() == [1.0, 1.0, pytest.approx(2**0.5)]
    assert leave_one_out(points, labels, k=3).tolist() == [0, 0, 0, 1, 1, 1, 0]


def test_equal_votes_go_to_the_nearer_class():
    labels = torch.tensor([0, 0, 1, 1, 2])
    index = torch.tensor([[0, 1, 2, 3]])
    assert vote(labels, index, torch.tensor([[1.0, 4.0, 2.0, 2.5]])).tolist() == [1]
    assert vote(labels, index, torch.tensor([[1.0, 3.0, 2.0, 2.5]])).tolist() == [0]
    # One vote very near does not outweigh two: distance decides between equal votes only.
    assert vote(labels, torch.tensor([[4, 2, 3]]), torch.tensor([[0.0, 5.0, 6.0]])).tolist() == [1]


@pytest.mark.parametrize("distance, metric", [("euclidean", "euclidean"), ("cosine", "cosine"), ("standardised", None)])
def test_the_same_neighbours_and_votes_as_scikit_learn(distance, metric):
    points = noise(120, 8) * torch.arange(1.0, 9.0) + 3
    labels = torch.arange(120) % 2  # two classes and an odd k: votes cannot tie
    points[labels == 1] += 1.5
    theirs = points.numpy().astype(np.float64)
    if distance == "standardised":
        theirs, metric = (theirs - theirs.mean(0)) / theirs.std(0), "euclidean"
    ours, _ = neighbours(prepared(points, distance), k=9)
    oracle = NearestNeighbors(n_neighbors=9, metric=metric).fit(theirs).kneighbors(return_distance=False)
    np.testing.assert_array_equal(ours.numpy(), oracle)
    named = []
    for i in range(120):
        rest = np.arange(120) != i
        model = KNeighborsClassifier(9, metric=metric).fit(theirs[rest], labels.numpy()[rest])
        named.append(int(model.predict(theirs[i : i + 1])[0]))
    assert leave_one_out(points, labels, k=9, distance=distance).tolist() == named


def test_clusters_are_told_apart_and_noise_is_not():
    points = noise(400, 16)
    assert shares(points, 4) == pytest.approx(torch.full((4,), 0.25), abs=0.13)  # 3 standard errors of 100 points
    points += 20 * torch.eye(4, 16).repeat_interleave(100, dim=0)
    assert shares(points, 4).tolist() == [1.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("points", [torch.zeros(400, 5), torch.full((400, 5), 3.7)], ids=["zero", "one place"])
def test_points_that_all_coincide_score_chance_in_every_class(points):
    found = shares(points, 4)
    assert found == pytest.approx(torch.full((4,), 0.25), abs=0.13)


def test_points_in_few_places_score_chance_in_every_class():
    places = noise(7, 3)[torch.randint(7, (4000,), generator=torch.Generator().manual_seed(1))].view(10, 400, 3)
    found = torch.stack([shares(points, 4, seed=seed) for seed, points in enumerate(places)])
    assert found.mean(dim=0) == pytest.approx(torch.full((4,), 0.25), abs=0.06)


def test_noise_scores_chance_in_every_class_on_average():
    """Index order would favour the first class: 0.30, 0.33, 0.38, 0.08 was once measured for an argmax over votes."""
    found = torch.stack([shares(noise(400, 8, seed), 4, seed=seed) for seed in range(20)])
    assert found.mean(dim=0) == pytest.approx(torch.full((4,), 0.25), abs=0.03)


def test_ties_follow_the_seed_alone():
    points, labels = torch.zeros(60, 2), torch.arange(3).repeat_interleave(20)
    first, again, other = (leave_one_out(points, labels, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_blocks_of_rows_change_nothing(monkeypatch):
    points = noise(90, 4).round()  # many equal distances
    whole = neighbours(points, 7, seed=3)
    monkeypatch.setattr(nb, "_BLOCK", 90 * 11)
    parts = neighbours(points, 7, seed=3)
    assert all(torch.equal(one, other) for one, other in zip(whole, parts))


def test_distances_are_exact_where_points_are_equal_or_symmetric():
    points = noise(300, 700) * 1000
    points[150:] = points[:150]
    table = distances(points, points)
    assert bool((table.diagonal() == 0).all()) and bool((table.diagonal(150) == 0).all())
    assert torch.equal(table, table.T)
    assert torch.equal(table[:, :150], table[:, 150:])  # twins are equally far from everybody
    theirs = torch.cdist(points[:3].double(), points.double()).float()
    torch.testing.assert_close(table[:3], theirs, atol=1e-2, rtol=1e-6)


def test_what_rounding_of_a_pass_can_do_is_no_distance():
    points = noise(50, 64).repeat(2, 1)
    points[50:] *= 1 + 3e-7 * noise(50, 64, seed=1)
    assert bool((distances(points[:50], points[50:]).diagonal() == 0).all())


def test_cosine_forgets_length_and_standardised_forgets_scale():
    points = noise(40, 6)
    index = neighbours(prepared(points, "cosine"), 5)[0]
    assert torch.equal(index, neighbours(prepared(points * (1 + torch.arange(40.0))[:, None], "cosine"), 5)[0])
    index = neighbours(prepared(points, "standardised"), 5)[0]
    scaled = points * torch.tensor([1.0, 10, 100, 0.1, 7, 1]) + 5
    assert torch.equal(index, neighbours(prepared(scaled, "standardised"), 5)[0])
    assert bool((prepared(torch.full((9, 2), 3.1), "standardised") == 0).all())
    assert bool((prepared(torch.zeros(9, 2), "cosine") == 0).all())


def test_bad_arguments():
    with pytest.raises(InvalidArgument) as error:
        neighbours(torch.zeros(4, 2), k=4)
    assert str(error.value) == (
        "There must be more points than neighbours.\n  got:     k=4, 4 points\n  allowed: k from 1 to 3"
    )
    with pytest.raises((ShapeMismatch, TypeError)):  # TypeError where the tests check every annotation
        leave_one_out(torch.zeros(4, 2), torch.zeros(3, dtype=torch.long), k=1)
    with pytest.raises(UnknownName, match="did you mean 'euclidean'"):
        prepared(torch.zeros(4, 2), "euclidian")
    with pytest.raises(InvalidArgument, match="2 of 5 points, the first is 1"):
        prepared(torch.tensor([[0.0], [torch.nan], [1.0], [torch.inf], [2.0]]))
