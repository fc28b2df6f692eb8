"""The method that measures: which edges it takes, and what it keeps in a folder."""

from __future__ import annotations

import pytest
import torch

import tv_lens as tv
from circuit_cases import passes
from tv_lens.circuits.exact import measured_effects
from tv_lens.errors import InvalidArgument
from tv_lens.storage.run_folder import RunFolder
from tv_lens.storage.runner import Work


def test_at_least_one_edge_is_measured():
    with pytest.raises(InvalidArgument) as caught:
        tv.circuits.ExactEdges(screen=0)
    assert str(caught.value) == "At least one edge must be measured.\n  got:     screen=0"


def test_a_screening_is_kept_beside_the_effects_of_the_edges_that_it_chose(tiny_model, tmp_path):
    made = passes(tiny_model("llama"), "vector at the last token")
    values, about = tv.circuits.ExactEdges(screen=7).score_edges(made, Work("discover", {}, tmp_path))
    measured = (~values.isnan().any(0)).nonzero()[:, 0]
    guess = tv.circuits.EAP().estimate(made).mean(0).abs()
    assert sorted(measured.tolist()) == sorted(guess.topk(7).indices.tolist())
    torch.testing.assert_close(values[:, measured], measured_effects(made, measured), atol=2e-5, rtol=1e-4)
    assert about == {"folder": str(tmp_path)} and [part.verb for part in RunFolder(tmp_path).parts] == ["screen"]
