"""Circuits run: the full circuit is the clean run, the empty one the corrupted run, on every architecture."""

from __future__ import annotations

import pytest
import torch

from circuit_cases import CASES, passes
from tv_lens.circuits import patched
from tv_lens.circuits.patched import run_circuits
from tv_lens.rows import trial


@pytest.mark.parametrize("case", CASES)
def test_the_full_circuit_is_the_clean_run_and_the_empty_one_the_corrupted_run(tiny_model, family, case):
    made = passes(tiny_model(family), case)
    clean, corrupted = made.baselines
    found = run_circuits(made, torch.tensor([[True], [False]]).expand(2, len(made.graph)))
    torch.testing.assert_close(found[:, 0], clean, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[:, 1], corrupted, atol=1e-6, rtol=1e-6)
    assert (clean - corrupted).abs().min() > 1e-3  # there was something to restore


def test_whole_passes_run_the_same_circuits_as_shared_prefixes(tiny_model, monkeypatch):
    model = tiny_model("mistral")
    for case in CASES:
        made = passes(model, case)
        masks = torch.rand(4, len(made.graph), generator=torch.Generator().manual_seed(0)) < 0.6
        shared = run_circuits(made, masks)
        with monkeypatch.context() as patch:
            patch.setattr(trial, "why_not", lambda *_: "a test")
            torch.testing.assert_close(run_circuits(made, masks), shared, atol=1e-5, rtol=1e-4)


def test_a_circuit_run_may_begin_where_circuits_first_differ(tiny_model):
    for family in ("llama", "phi"):
        made = passes(tiny_model(family), "pairs")
        late = made.graph.read_times[made.graph.edges[:, 2]] >= 4  # into the last layer and the logits
        drawn = torch.rand(5, len(made.graph), generator=torch.Generator().manual_seed(0)) < 0.5
        masks = ~late | drawn
        torch.testing.assert_close(
            run_circuits(made, masks, first_layer=2), run_circuits(made, masks), atol=1e-5, rtol=1e-4
        )


@pytest.mark.parametrize("family", ["llama", "phi", "gemma2", "olmo2"])
def test_a_head_that_leads_nowhere_matters_only_to_a_norm_of_all_heads(tiny_model, family):
    """Without its edges out, a head's edges in change nothing, except where a norm stands after attention."""
    made = passes(tiny_model(family), "pairs")
    graph = made.graph
    out_of = torch.tensor([graph.writers[w] == "a1.h0" for w in graph.edges[:, 1].tolist()])
    into = torch.tensor([graph.readers[r] == "a1.h0<q>" for r in graph.edges[:, 2].tolist()])
    drawn = torch.rand(len(graph), generator=torch.Generator().manual_seed(0)) < 0.7
    both = run_circuits(made, torch.stack([drawn & ~out_of | into & ~out_of, drawn & ~out_of & ~into]))
    gap = float((both[:, 0] - both[:, 1]).abs().max())
    assert gap > 1e-6 if made.readers.post_norm else gap == 0


def test_equal_circuits_run_once_and_each_gets_its_number(tiny_model):
    made = passes(tiny_model("llama"), "pairs")
    masks = torch.rand(4, len(made.graph), generator=torch.Generator().manual_seed(0)) < 0.6
    many = masks[[2, 0, 3, 0, 1, 2]]
    torch.testing.assert_close(run_circuits(made, many), run_circuits(made, masks)[:, [2, 0, 3, 0, 1, 2]])
    assert len(patched._distinct(made, many)[0]) == 4
