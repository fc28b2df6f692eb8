"""Estimates: how far they can be trusted is measured, and with a folder the measuring is kept, too."""

from __future__ import annotations

import pytest
import torch

import tv_lens as tv
from circuit_cases import passes
from tv_lens.circuits.estimate import Estimate, rechecked, spearman
from tv_lens.circuits.exact import measured_effects
from tv_lens.storage.runner import Work


class Doubled(Estimate):
    """Twice the exact effects: an estimate whose ranks are right and whose sizes are not."""

    recheck = 5

    def estimated(self, passes, work):
        return 2 * measured_effects(passes, torch.arange(len(passes.graph)), progress=False), {}


def test_an_estimate_of_ones_own_is_rechecked_like_any_other(tiny_model):
    made = passes(tiny_model("llama"), "vector at the last token")
    values, about = Doubled().score_edges(made, Work("discover", {}))
    torch.testing.assert_close(values, Doubled().estimate(made))
    recheck = about["recheck"]
    assert recheck["n"] == recheck["left_out_n"] == 5 and recheck["spearman"] == pytest.approx(1)
    assert recheck["mean_error"] == pytest.approx(recheck["mean_size"], rel=1e-3)
    assert Doubled.approximate and not tv.circuits.ACDC(0.1).approximate


def test_the_left_out_edges_follow_the_seed(tiny_model):
    made = passes(tiny_model("llama"), "vector at the last token")
    values = Doubled().estimate(made)
    drawn = [rechecked(made, values, 5, seed, Work("recheck", {}))["left_out_mean"] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert set(rechecked(made, values, 0, 0, Work("recheck", {}))) == {"completeness_gap"}


def test_the_rank_correlation_is_that_of_ranks_and_has_none_of_constants():
    one = torch.tensor([1.0, 2.0, 30.0, 4.0])
    assert spearman(one, torch.tensor([0.1, 0.2, 9.0, 0.3])) == pytest.approx(1)
    assert spearman(one, -one) == pytest.approx(-1)
    assert torch.isnan(torch.tensor(spearman(one, torch.ones(4))))
