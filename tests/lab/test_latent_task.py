"""Latent tasks as tasks: their splits, their pairs, and prompts that are their episodes bit by bit."""

from __future__ import annotations

import pytest
import torch

import tv_lens as tv
from tv_lens.errors import InvalidArgument, UnknownName
from tv_lens.lab import LatentTask, NetworkConfig, Regressor, SparseMixture, build_network, latent_tasks, prompts_of

FAMILY = SparseMixture.disjoint(3, rank=2, points=6)
CONFIG = NetworkConfig(dim=6, points=6, n_layers=3, n_heads=2, d_model=16, init=0.3)


@pytest.fixture(scope="module")
def regressor():
    return Regressor(build_network(CONFIG, seed=1), CONFIG, family=FAMILY, name="tiny")


@pytest.fixture(scope="module")
def episodes():
    return FAMILY.sample(7, 0)


def test_text_is_numbers_bit_by_bit(regressor, episodes):
    prompts = prompts_of(episodes, shots=5)
    tokens = prompts.tokenize(regressor)
    assert (
        tokens.is_uniform and tokens.token_labels()[:3] == ["x0", "y0", "x1"] and tokens.token_labels()[-1] == "query"
    )
    assert torch.equal(regressor.vectors_of(tokens.tokens), regressor.vectors_of(regressor.encode(episodes)))
    assert torch.equal(tokens.answers.number, episodes.y[:, -1])
    by_hand = regressor.run("(1 0 0 0 0 0) =0.5 (0 1, 0 0 0 0)")
    assert by_hand.shape == (1, 1)
    assert prompts.tokenize(regressor).tokens.ids.equal(tokens.tokens.ids)


def test_latent_tasks_draw_apart_and_pair_up():
    one, other = latent_tasks(FAMILY)[:2]
    train, test = one.episodes(4, 0, "train"), one.episodes(4, 0, "test")
    assert not torch.equal(train.x, test.x) and train.task.tolist() == [0] * 4
    pairs = one.pairs(shots=5, n=4, other=other)
    clean, corrupted = pairs[0]
    assert clean.input == corrupted.input and clean.answer == corrupted.answer
    assert [p.input for p in clean.demonstrations] == [p.input for p in corrupted.demonstrations]
    assert all(a.output != b.output for a, b in zip(clean.demonstrations, corrupted.demonstrations))
    with pytest.raises(UnknownName, match="shuffle_labels"):
        one.pairs(5, 3, corrupt="shuffle_labels")
    with pytest.raises(InvalidArgument, match="another latent task"):
        one.pairs(5, 3, other=one)
    with pytest.raises(tv.errors.EmptySelection, match="shots=6"):
        one.prompts(6, 3)
    with pytest.raises(InvalidArgument, match="no such latent task"):
        LatentTask(FAMILY, 3)
    renamed = one.rename("first")
    assert renamed.name == "first" and torch.equal(renamed.episodes(3).x, one.episodes(3).x)
    with pytest.raises(InvalidArgument, match="nothing else"):
        one.restricted(["(1 2)"])


def test_a_latent_tasks_identity_is_its_family_and_label():
    one, other = latent_tasks(FAMILY)[:2]
    assert one.fingerprint == LatentTask(FAMILY, 0).fingerprint != other.fingerprint
    assert LatentTask(SparseMixture.disjoint(3, rank=2, points=7), 0).fingerprint != one.fingerprint
    assert one.lookup == {} and repr(other) == "LatentTask('basis 1' of a sparse mixture)"
