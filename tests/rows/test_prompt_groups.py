"""Prompts of several lengths side by side, and alone where a model cannot mix them."""

from __future__ import annotations

import torch

import tiny
import tv_lens as tv
from row_cases import LENGTHS, batch, both, two_logits
from tv_lens.intervention import Zero
from tv_lens.rows.engine import PlacedEdit, Row, run_rows
from tv_lens.rows.prompt_groups import lengths_mix
from tv_lens.rows.walk import Walk
from tv_lens.site import Site


def test_prompts_of_several_lengths_walk_together(family, tiny_model):
    """Rows of the last token and earlier ones, of prompts of 9, 5, 9 and 7 tokens, in two walks after one base run."""
    model = tiny_model(family)
    assert lengths_mix(model), model.facts
    rows = [
        Row(i, (PlacedEdit(Zero(Site("mlp_out", layer)), (at,)),))
        for layer in range(3)
        for i, length in enumerate(LENGTHS)
        for at in (length - 1, 2)
    ]
    by_rows, by_passes = both(model, model.tokens(batch()), rows)
    torch.testing.assert_close(by_rows, by_passes, atol=1e-5, rtol=0)
    about = run_rows(model, model.tokens(batch()), rows, two_logits).provenance
    assert (about["base_runs"], about["walks"]) == (1, 2)


def test_where_they_cannot_each_length_walks_alone(monkeypatch):
    model = tv.load(tiny.hugging_face_model("llama", seed=5))
    monkeypatch.setattr(Walk, "_seen_by_last", lambda walk, seen: seen)  # rows of shorter prompts see themselves twice
    assert not lengths_mix(model)
    rows = [Row(i, (PlacedEdit(Zero(Site("z", layer)), (n - 1,)),)) for layer in (0, 1) for i, n in enumerate(LENGTHS)]
    by_rows, by_passes = both(model, model.tokens(batch()), rows)
    torch.testing.assert_close(by_rows, by_passes, atol=1e-5, rtol=0)
    assert run_rows(model, model.tokens(batch()), rows, two_logits).provenance["base_runs"] == 3


def test_a_prompts_only_row_is_one_whole_pass(tiny_model):
    model = tiny_model("llama")
    rows = [Row(i, (PlacedEdit(Zero(Site("z", i % 3)), (1, 2)),)) for i in range(4)]
    by_rows, by_passes = both(model, model.tokens(batch()), rows)
    torch.testing.assert_close(by_rows, by_passes, atol=1e-5, rtol=0)
    about = run_rows(model, model.tokens(batch()), rows, two_logits).provenance
    assert (about["passes"], about["base_runs"], about["walks"]) == (1, 0, 0)
