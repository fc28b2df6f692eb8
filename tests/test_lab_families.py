"""Families of regression tasks: what they draw, that seeds mean what they say, and what they refuse."""

from __future__ import annotations

import json

import pytest
import torch

import tv_lens as tv
from tv_lens.errors import FormatError, InvalidArgument, UnknownName
from tv_lens.lab import FAMILIES, FunctionMixture, NoisyLinear, SparseMixture
from tv_lens.lab.family import Family

SAMPLES = [
    SparseMixture.disjoint(4, rank=2, points=10),
    SparseMixture.overlapping(groups=2, each=4, size=8, rank=4, points=20),
    FunctionMixture(dim=6, points=8, rank=2),
    NoisyLinear(dim=4, points=6, levels=(0.0, 1.0)),
    tv.lab.FiniteTasks(dim=4, points=6, n_vectors=5),
    tv.lab.FixedRepresentation(dim=4, points=6, features=6, representations=3),
]
by_kind = pytest.mark.parametrize("family", SAMPLES, ids=lambda family: family.kind)


def test_every_family_is_sampled_here():
    assert {family.kind for family in SAMPLES} == set(FAMILIES)


@by_kind
def test_sizes_seeds_and_labels(family):
    drawn = family.sample(200, (3, 4))
    assert drawn.x.shape == (200, family.points, family.dim) and drawn.y.shape == (200, family.points)
    assert set(drawn.task.tolist()) == set(range(family.n_tasks)) == set(range(len(family.task_names)))
    again, other = family.sample(200, (3, 4)), family.sample(200, (4, 3))
    assert torch.equal(drawn.x, again.x) and torch.equal(drawn.y, again.y) and torch.equal(drawn.task, again.task)
    assert not torch.equal(drawn.x, other.x)
    assert family.sample(5, 0, task=family.n_tasks - 1).task.tolist() == [family.n_tasks - 1] * 5


@by_kind
def test_the_expected_square_of_an_answer_is_what_the_family_says(family):
    drawn = family.sample(20000, 1)
    noise = (
        sum(level**2 for level in family.levels) / family.n_tasks
        if isinstance(family, NoisyLinear)
        else family.noise**2
    )
    assert float(drawn.y.square().mean()) == pytest.approx(family.power + noise, rel=0.08)


@by_kind
def test_json_and_back(family):
    assert Family.from_json(json.loads(json.dumps(family.to_json()))) == family


@by_kind
def test_the_same_inputs_again_under_another_function(family):
    drawn = family.sample(50, 0, task=0)
    again = family.again(drawn, family.n_tasks - 1, 5)
    assert torch.equal(drawn.x, again.x) and not torch.allclose(drawn.y, again.y)
    assert again.task.unique().tolist() == [family.n_tasks - 1]


def test_basis_k_is_the_coordinates_from_rk():
    family = SparseMixture.disjoint(3, rank=2, points=5, dim=7, noise=0.0)
    assert family.bases == ((0, 1), (2, 3), (4, 5)) and family.groups == (0, 1, 2)
    drawn = family.sample(64, 0)
    on = drawn.weights != 0
    assert torch.equal(on, family.masks[drawn.task].bool())
    torch.testing.assert_close(drawn.y, torch.einsum("nkd,nd->nk", drawn.x, drawn.weights))


def test_overlapping_bases_share_coordinates_in_their_group_only():
    family = SparseMixture.overlapping(groups=2, each=4, size=8, rank=4, points=20)
    assert family.groups == (0, 0, 0, 0, 1, 1, 1, 1)
    used = torch.stack([family.masks[k] for k in range(8)])
    assert used[:4, 8:].sum() == used[4:, :8].sum() == 0
    assert (used[:4, :8].sum(0) == 2).all() and (used.sum(1) == 4).all()


def test_families_of_functions_are_the_functions_they_name():
    family = FunctionMixture(dim=5, points=7, rank=2, noise=0.0)
    drawn = family.sample(400, 0)
    linear = torch.einsum("nkd,nd->nk", drawn.x, drawn.weights)
    for k, name in enumerate(family.functions):
        mine = drawn.task == k
        if name == "quadratic":
            expected = torch.einsum("nkd,nd->nk", drawn.x**2, drawn.weights)[mine] / 3**0.5
        elif name == "leaky relu":
            expected = torch.where(linear > 0, linear, 0.5 * linear)[mine] / 0.625**0.5
        else:
            expected = linear[mine]
        torch.testing.assert_close(drawn.y[mine], expected)
        assert (drawn.weights[mine] != 0).sum(1).unique().tolist() == [2 if name == "sparse linear" else 5]


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: SparseMixture.disjoint(4, rank=4, points=10, dim=8), "The bases do not fit."),
        (lambda: SparseMixture(dim=2, points=4, bases=((0, 1, 1),)), "rank above the dimension"),
        (lambda: SparseMixture(dim=4, points=4, bases=((0, 4),)), "does not fit into 4 dimensions"),
        (lambda: SparseMixture(dim=4, points=4, bases=((0, 1), (1, 0))), "Two bases are the same"),
        (lambda: SparseMixture(dim=4, points=4, bases=()), "at least one basis"),
        (lambda: SparseMixture.disjoint(2, rank=2, points=0), "at least one example"),
        (lambda: SparseMixture.disjoint(2, rank=2, points=5, noise=-1.0), "standard deviation"),
        (lambda: SparseMixture.overlapping(size=4, rank=5, points=5), "does not fit into its group"),
        (lambda: SparseMixture.overlapping(each=9, size=4, rank=4, points=5), "not so many different bases"),
        (lambda: FunctionMixture(dim=4, points=5, rank=5), "above the dimension"),
        (lambda: FunctionMixture(dim=4, points=5, functions=("cubic",)), "cubic"),
        (lambda: NoisyLinear(dim=4, points=5, levels=()), "Noise levels"),
        (lambda: SAMPLES[0].sample(3, 0, task=4), "no such latent task"),
        (lambda: SAMPLES[0].sample(0), "at least one episode"),
    ],
)
def test_impossible_families_are_refused(make, said):
    with pytest.raises((InvalidArgument, UnknownName)) as caught:
        make()
    assert said in str(caught.value)


def test_files_of_other_families_are_refused():
    with pytest.raises(UnknownName, match="sparse mixtur"):
        Family.from_json({"family": "sparse mixtur"})
    with pytest.raises(FormatError, match="not the fields"):
        Family.from_json({**SAMPLES[0].to_json(), "colour": 3})
