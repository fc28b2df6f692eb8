"""What all families share: seeds, episodes, JSON, and refusals."""

from __future__ import annotations

import json

import pytest
import torch

import tv_lens as tv
from tv_lens.errors import FormatError, InvalidArgument, UnknownName
from tv_lens.lab import FunctionMixture, NoisyLinear, SparseMixture
from tv_lens.lab.family import Family, generator_of

SAMPLES = [
    SparseMixture.disjoint(4, rank=2, points=10),
    SparseMixture.overlapping(groups=2, each=4, size=8, rank=4, points=20),
    FunctionMixture(dim=6, points=8, rank=2),
    NoisyLinear(dim=4, points=6, levels=(0.0, 1.0)),
    tv.lab.FiniteTasks(dim=4, points=6, n_vectors=5),
    tv.lab.FixedRepresentation(dim=4, points=6, features=6, representations=3),
]
by_kind = pytest.mark.parametrize("family", SAMPLES, ids=lambda family: family.kind)


@by_kind
def test_json_and_back(family):
    assert Family.from_json(json.loads(json.dumps(family.to_json()))) == family


def test_files_of_other_families_are_refused():
    with pytest.raises(UnknownName, match="sparse mixtur"):
        Family.from_json({"family": "sparse mixtur"})
    with pytest.raises(FormatError, match="not the fields"):
        Family.from_json({**SAMPLES[0].to_json(), "colour": 3})


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: SparseMixture.disjoint(2, rank=2, points=0), "at least one example"),
        (lambda: SparseMixture.disjoint(2, rank=2, points=5, noise=-1.0), "standard deviation"),
        (lambda: SAMPLES[0].sample(3, 0, task=4), "no such latent task"),
        (lambda: SAMPLES[0].sample(0), "at least one episode"),
    ],
)
def test_what_no_family_can_draw_is_refused(make, said):
    with pytest.raises((InvalidArgument, UnknownName)) as caught:
        make()
    assert said in str(caught.value)


def test_generators_of_different_seeds_differ_and_numbers_are_those_of_tuples():
    one, same, other = (torch.rand(4, generator=generator_of(*seed)) for seed in ((0, 12), (0, 12), (1, 11)))
    assert torch.equal(one, same) and not torch.equal(one, other)
    family = SAMPLES[0]
    assert torch.equal(family.sample(3, 5).x, family.sample(3, (5,)).x)


def test_episodes_selected_and_cut_off():
    drawn = SAMPLES[0].sample(5, 0)
    some = drawn.select([3, 1]).first(4)
    assert torch.equal(some.x, drawn.x[[3, 1], :4]) and torch.equal(some.y, drawn.y[[3, 1], :4])
    assert torch.equal(some.task, drawn.task[[3, 1]]) and torch.equal(some.weights, drawn.weights[[3, 1]])
    assert len(some) == 2 and repr(some).startswith("Episodes(2 of 4 examples in 8 dimensions")


def test_episodes_of_every_task_are_those_of_each_task_alone():
    family = SAMPLES[0]
    whole = family.sample_each(6, (1, 2))
    assert whole.task.tolist() == [task for task in range(4) for _ in range(6)]
    assert torch.equal(whole.x[12:18], family.sample(6, (1, 2, 3), 2).x)
