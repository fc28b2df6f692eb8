"""The exact effect of an edge: predicted by rows, it is what a circuit without that edge alone loses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import tv_lens as tv
from circuit_cases import CASES, contrast, passes
from tv_lens.circuits import exact
from tv_lens.circuits.contrast_passes import make_passes
from tv_lens.circuits.exact import measured_effects
from tv_lens.circuits.patched import run_circuits
from tv_lens.tasks.tokenized import TokenSpan


def some_edges(made, n: int = 12, seed: int = 0) -> torch.Tensor:
    return torch.randperm(len(made.graph), generator=torch.Generator().manual_seed(seed))[:n]


@pytest.mark.parametrize("case", ["vector at the last token", "pairs"])
def test_the_predicted_effect_of_an_edge_is_its_intervened_effect(tiny_model, family, case):
    """One edge measured by rows against a whole circuit run that lacks this edge alone: two ways that share no step."""
    made = passes(tiny_model(family), case, n=2)
    edges = some_edges(made)
    predicted = measured_effects(made, edges)
    masks = torch.ones(len(edges), len(made.graph), dtype=torch.bool)
    masks[torch.arange(len(edges)), edges] = False
    intervened = made.baselines[0][:, None] - run_circuits(made, masks)
    torch.testing.assert_close(predicted, intervened, atol=2e-5, rtol=1e-4)
    assert predicted.abs().max() > 1e-3


@pytest.mark.parametrize("case", CASES[2:])
def test_predicted_is_intervened_with_a_target_and_with_a_vector_inside_the_prompt(tiny_model, case):
    made = passes(tiny_model("gemma2"), case, n=2)
    edges = some_edges(made, 40)
    masks = torch.ones(len(edges), len(made.graph), dtype=torch.bool)
    masks[torch.arange(len(edges)), edges] = False
    intervened = made.baselines[0][:, None] - run_circuits(made, masks)
    torch.testing.assert_close(measured_effects(made, edges), intervened, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("fold, places", [("all", 6), ("spans", 4), ("kinds", 3), ("sum", 1)])
def test_places_of_several_tokens_are_corrupted_together(tiny_model, fold, places):
    """Spans of one and two tokens; an edge of a span is the edge at all its tokens."""
    model, plain = tiny_model("qwen2"), contrast(2, pairs=True)
    spans = (
        TokenSpan("x", 0, 0, 2),
        TokenSpan("y", 0, 2, 3),
        TokenSpan("x", 1, 3, 5),
        TokenSpan("query_x", None, 5, 6),
    )
    made = make_passes(model, replace(plain, spans=[spans, spans]), tv.circuits.CircuitQuestion(pos=fold))
    assert len(made.graph.positions) == places
    edges = some_edges(made, 15)
    masks = torch.ones(len(edges) + 2, len(made.graph), dtype=torch.bool)
    masks[torch.arange(len(edges)), edges] = False
    masks[-1] = False
    found = run_circuits(made, masks)
    clean, corrupted = made.baselines
    torch.testing.assert_close(measured_effects(made, edges), clean[:, None] - found[:, :-2], atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(found[:, -2:], torch.stack([clean, corrupted], dim=1), atol=1e-5, rtol=1e-5)
    if fold == "sum":
        every = make_passes(model, plain, tv.circuits.CircuitQuestion(pos="all"))
        assert set(made.graph.names()) == {name.split("@")[0] for name in every.graph.names()}


def test_examples_are_measured_alone_as_together(tiny_model):
    made = passes(tiny_model("llama"), "pairs", n=3)
    edges = some_edges(made)
    both = measured_effects(made, edges)
    torch.testing.assert_close(measured_effects(made, edges, [2, 0]), both[[2, 0]], atol=1e-6, rtol=1e-5)


def test_edges_that_are_measured_in_parts_have_the_same_effects(tiny_model, monkeypatch):
    made = passes(tiny_model("llama"), "vector at the last token", n=2)
    edges = torch.arange(len(made.graph))
    whole = exact.measured_effects(made, edges, progress=False)
    monkeypatch.setattr(exact, "ROWS_AT_ONCE", 30)
    parts = list(exact._in_parts(exact._readings(made, edges)[0], 15))
    assert len(parts) > 3 and all(len(one) == 1 or sum(len(r.columns) for r in one) <= 15 for one in parts)
    torch.testing.assert_close(exact.measured_effects(made, edges, progress=False), whole, atol=1e-5, rtol=1e-4)
