"""Branches: each is the run with its edit alone, in any order and budget."""

from __future__ import annotations

import pytest
import torch

import tv_lens as tv
from tv_lens.errors import BudgetTooSmall, InvalidArgument
from tv_lens.lab import NetworkConfig, Regressor, SparseMixture, build_network
from tv_lens.lab.branches import Branch, branched_predictions

FAMILY = SparseMixture.disjoint(3, rank=1, points=4)
CONFIG = NetworkConfig(dim=3, points=4, n_layers=3, n_heads=2, d_model=8, init=0.4)
SLOPE = torch.linspace(-1, 1, 8)  # not constant: a norm takes out what all coordinates share


@pytest.fixture(scope="module")
def regressor():
    return Regressor(build_network(CONFIG, seed=3), CONFIG, family=FAMILY)


def test_branches_are_runs_of_their_own_in_any_order_and_budget(regressor):
    episodes, everywhere = FAMILY.sample(5, 1), tuple(range(7))
    branches = [
        Branch(tv.Zero("z[2].h0"), everywhere),
        Branch(tv.Add("resid_pre[1]", SLOPE), (1, 3)),
        Branch(tv.Replace("resid_post[0]", torch.stack([SLOPE, SLOPE**2])), (0, 4)),
        Branch(tv.Zero("mlp_out[1]"), everywhere),
        Branch(tv.Add("resid_pre[1]", SLOPE, 2.0), (1, 3)),
    ]
    found = branched_predictions(regressor, episodes, branches)
    assert found.shape == (6, 5, 4)
    torch.testing.assert_close(found[0], regressor.predict(episodes.x, episodes.y))
    for branch, ours in zip(branches, found[1:]):
        edit = type(branch.edit)(**{**vars(branch.edit), "site": branch.edit.site.at(branch.columns)})
        with regressor.intervene(edit):
            alone = regressor.predict(episodes.x, episodes.y)
        torch.testing.assert_close(ours, alone, atol=1e-5, rtol=1e-5)
        assert (ours - found[0]).abs().max() > 1e-3
    least = 2 * 7 * (10 * 8 + 4 * 32) * 4 + 10_000
    torch.testing.assert_close(
        branched_predictions(regressor, episodes, branches, memory_budget=least), found, atol=1e-6, rtol=1e-6
    )
    assert branched_predictions(regressor, episodes, []).shape == (1, 5, 4)
    with pytest.raises(BudgetTooSmall):
        branched_predictions(regressor, episodes, branches, memory_budget=1000)


@pytest.mark.parametrize("edit", [tv.Zero("embed"), tv.Zero("z[0]@2"), tv.Mean("z[0]")], ids=lambda edit: edit.label)
def test_a_branch_edits_a_layer_at_its_own_columns(edit):
    with pytest.raises(InvalidArgument, match="columns of its own"):
        Branch(edit, (0, 1))


def test_a_branch_enters_at_the_layer_of_its_edit(regressor):
    assert Branch(tv.Zero("mlp_out[2]"), (0,)).entry_layer == 2
    branched_predictions(regressor, FAMILY.sample(2, 0), [Branch(tv.Zero("z[1]"), (0, 2))])
    assert regressor.registry.attached == () and regressor.registry.foreign_hooks() == []
