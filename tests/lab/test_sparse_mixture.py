"""Mixtures of sparse regressions: bases, groups, and weights on the right coordinates."""

from __future__ import annotations

import pytest
import torch

from tv_lens.errors import InvalidArgument
from tv_lens.lab import SparseMixture


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


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: SparseMixture.disjoint(4, rank=4, points=10, dim=8), "The bases do not fit."),
        (lambda: SparseMixture(dim=2, points=4, bases=((0, 1, 1),)), "rank above the dimension"),
        (lambda: SparseMixture(dim=4, points=4, bases=((0, 4),)), "does not fit into 4 dimensions"),
        (lambda: SparseMixture(dim=4, points=4, bases=((0, 1), (1, 0))), "Two bases are the same"),
        (lambda: SparseMixture(dim=4, points=4, bases=()), "at least one basis"),
        (lambda: SparseMixture.overlapping(size=4, rank=5, points=5), "does not fit into its group"),
        (lambda: SparseMixture.overlapping(each=9, size=4, rank=4, points=5), "not so many different bases"),
    ],
)
def test_impossible_bases_are_refused(make, said):
    with pytest.raises(InvalidArgument) as caught:
        make()
    assert said in str(caught.value)


def test_groups_are_the_bases_that_are_linked_by_common_coordinates():
    family = SparseMixture(dim=7, points=3, bases=((0, 1), (3,), (1, 2), (2, 4), (5, 6)))
    assert family.groups == (0, 1, 0, 0, 2) and family.rank == pytest.approx(9 / 5)
    assert family.masks[2].tolist() == [0, 1, 1, 0, 0, 0, 0]
