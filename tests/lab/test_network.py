"""The network: its sizes, its vectors, and weights that depend on the seed alone."""

from __future__ import annotations

import pytest
import torch

from tv_lens.errors import InvalidArgument, UnknownName
from tv_lens.lab import NetworkConfig, build_network
from tv_lens.lab.network import N_TRIAL_VECTORS, VectorTable, interleaved, predictions

CONFIG = NetworkConfig(dim=3, points=4, n_layers=2, n_heads=2, d_model=8)


@pytest.mark.parametrize("answers", ["apart", "first"])
def test_parameters_are_counted_without_building(answers):
    config = NetworkConfig(dim=3, points=4, n_layers=2, n_heads=2, d_model=8, answers=answers)
    built = sum(weight.numel() for weight in build_network(config).parameters())
    assert built == config.n_parameters
    assert (config.width, config.answer_at) == ((4, 3) if answers == "apart" else (3, 0))


def test_weights_depend_on_the_seed_and_leave_the_random_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, same, other = (build_network(CONFIG, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["lm_head.weight"], other["lm_head.weight"])
    assert "transformer.wte.vectors" not in one  # the table of vectors is no weight


def test_vectors_are_entered_and_removed():
    table = VectorTable(CONFIG)
    assert table.enter(torch.ones(2, 4)) == N_TRIAL_VECTORS and len(table.vectors) == N_TRIAL_VECTORS + 2
    ids = torch.tensor([[N_TRIAL_VECTORS, N_TRIAL_VECTORS + 1]])
    torch.testing.assert_close(table(ids)[0, 0], table.read_in(torch.ones(4)))
    assert torch.equal(table.weight[ids[0]], table(ids)[0])
    table.shorten(N_TRIAL_VECTORS)
    assert len(table.vectors) == N_TRIAL_VECTORS


def test_answers_may_stand_in_the_first_coordinate():
    x, y = torch.tensor([[[1.0, 2.0]]]), torch.tensor([[5.0]])
    assert interleaved(x, y, 2, 0).tolist() == [[[1, 2], [5, 0]]]


def test_the_last_answer_is_never_read():
    network, generator = build_network(CONFIG), torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 4, 3, generator=generator), torch.randn(2, 4, generator=generator)
    changed = y.clone()
    changed[:, -1] += 9
    assert torch.equal(predictions(network, x, y), predictions(network, x, changed))


def test_impossible_sizes_are_refused():
    with pytest.raises(InvalidArgument, match="heads do not divide"):
        NetworkConfig(dim=2, points=3, d_model=10, n_heads=4)
    with pytest.raises(InvalidArgument, match="n_layers must be at least 1"):
        NetworkConfig(dim=2, points=3, n_layers=0)
    with pytest.raises(UnknownName, match="apart"):
        NetworkConfig(dim=2, points=3, answers="last")
