"""The families beside the sparse mixture: what they draw and what they refuse; and what every family does."""

from __future__ import annotations

import pytest
import torch

import tv_lens as tv
from tv_lens.errors import InvalidArgument, UnknownName
from tv_lens.lab import FAMILIES, FunctionMixture, NoisyLinear, SparseMixture

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
def test_the_same_inputs_again_under_another_function(family):
    drawn = family.sample(50, 0, task=0)
    again = family.again(drawn, family.n_tasks - 1, 5)
    assert torch.equal(drawn.x, again.x) and not torch.allclose(drawn.y, again.y)
    assert again.task.unique().tolist() == [family.n_tasks - 1]


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
        (lambda: FunctionMixture(dim=4, points=5, rank=5), "above the dimension"),
        (lambda: FunctionMixture(dim=4, points=5, functions=("cubic",)), "cubic"),
        (lambda: NoisyLinear(dim=4, points=5, levels=()), "Noise levels"),
    ],
)
def test_impossible_families_are_refused(make, said):
    with pytest.raises((InvalidArgument, UnknownName)) as caught:
        make()
    assert said in str(caught.value)


def test_finite_tasks_and_representations_are_fixed_by_their_seeds():
    finite = tv.lab.FiniteTasks(dim=4, points=6, n_vectors=3, noise=0.0)
    drawn = finite.sample(30, 0)
    torch.testing.assert_close(drawn.weights, finite.vectors[drawn.task])
    torch.testing.assert_close(drawn.y, torch.einsum("nkd,nd->nk", drawn.x, drawn.weights))
    assert not torch.equal(finite.vectors, tv.lab.FiniteTasks(dim=4, points=6, n_vectors=3, vectors_seed=1).vectors)
    fixed = tv.lab.FixedRepresentation(dim=4, points=6, noise=0.0)
    drawn = fixed.sample(30, 0)
    features = fixed.represent(drawn.x, drawn.task)
    torch.testing.assert_close(drawn.y, torch.einsum("nkf,nf->nk", features, drawn.weights))


def test_the_noise_of_a_noisy_family_is_its_latent_task():
    family = NoisyLinear(dim=3, points=50, levels=(0.0, 2.0))
    drawn = family.sample(400, 0)
    noise = drawn.y - torch.einsum("nkd,nd->nk", drawn.x, drawn.weights)
    assert float(noise[drawn.task == 0].abs().max()) < 1e-5
    assert float(noise[drawn.task == 1].std()) == pytest.approx(2, rel=0.05)
    assert "noise" not in family.to_json() and family.task_names == ("noise 0", "noise 2")
