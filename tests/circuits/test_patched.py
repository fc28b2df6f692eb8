"""Circuits run: the full circuit is the clean run, the empty one the corrupted run, on every architecture."""

from __future__ import annotations

import pytest
import torch

from circuit_cases import CASES, passes
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
