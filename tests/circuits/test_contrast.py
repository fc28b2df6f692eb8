"""The two sides of a search: what must line up, and where edges live."""

from __future__ import annotations

import pytest
import torch

import tiny_characters
import tv_lens as tv
from circuit_cases import answers, contrast, tokens, vector
from tv_lens.circuits.contrast import contrast_of, positions_for
from tv_lens.circuits.nodes import Position
from tv_lens.errors import InvalidArgument, MisalignedPrompts, PositionError, ShapeMismatch
from tv_lens.tasks.tokenized import TokenSpan


def test_real_prompts_get_places_by_their_spans(smollm2):
    task = tv.task("present-past")
    pairs = task.pairs(shots=2, n=2, seed=0).uniform(smollm2)
    made = contrast_of(smollm2, pairs, None)
    labels = {fold: [p.label for p in positions_for(made, None, fold)] for fold in ("all", "spans", "kinds", "sum")}
    assert (labels["sum"] == ["all"] and labels["spans"][:3] == ["x0", "sep0", "y0"]) or "prefix" in labels["spans"][0]
    assert "x" in labels["kinds"] and "sep" in labels["kinds"] and "query" in labels["kinds"]
    assert len(labels["all"]) == int(made.clean.lengths[0]) == len(set(labels["all"]))


def test_prompts_of_unequal_structure_are_refused_where_positions_matter(tiny_model):
    model = tiny_model("llama")
    ragged = tv.tasks.TokenBatch.from_lists([[5, 6, 7, 8], [5, 6, 7]])
    twin = tv.tasks.TokenBatch.from_lists([[9, 6, 7, 8], [9, 6, 7]])
    with pytest.raises(MisalignedPrompts, match="differ in structure"):
        tv.discover(model, tv.circuits.Contrast(ragged, twin, answers(2, 0)))
    with pytest.raises(MisalignedPrompts, match="do not line up"):
        tv.circuits.Contrast(ragged, tv.tasks.TokenBatch.from_lists([[9, 6, 7], [9, 6, 7]]), answers(2, 0))
    with pytest.raises(PositionError):
        tv.discover(
            model, tv.circuits.Contrast(ragged, ragged, answers(2, 0)), source=tv.Replace("resid_post[0]@-9", vector())
        )
    at_last = tv.discover(
        model, tv.circuits.Contrast(ragged, ragged, answers(2, 0)), source=tv.Replace("resid_post[0]@-1", vector())
    )
    alone = tv.tasks.TokenBatch.from_lists([[5, 6, 7]])
    one = tv.discover(
        model,
        tv.circuits.Contrast(alone, alone, answers(2, 0).select([1])),
        source=tv.Replace("resid_post[0]@-1", vector()),
    )
    torch.testing.assert_close(at_last.values[1:], one.values, atol=2e-5, rtol=1e-4)  # lengths do not mix


def test_prompts_alone_and_pairs_with_a_source_say_too_little_or_too_much(tiny_model):
    model = tiny_characters.model("llama")
    texts = tv.tasks.Prompts.from_texts(["abc"], [" d"], foils=[" e"])
    with pytest.raises(InvalidArgument, match="Prompts alone"):
        tv.discover(model, texts)
    pairs = tv.tasks.PromptPairs.from_texts(["abc"], ["abd"], [" d"], foils=[" e"])
    with pytest.raises(InvalidArgument, match="second difference"):
        tv.discover(model, pairs, source=tv.Replace("resid_post[0]@-1", vector()))


def test_places_by_hand():
    """Two demonstrations of one token each, of which the second starts where the source stands, and a query of two."""
    spans = (TokenSpan("x", 0, 0, 1), TokenSpan("x", 1, 1, 2), TokenSpan("query", None, 2, 4))
    made = tv.circuits.Contrast(tokens(1, 4, 0), tokens(1, 4, 1), answers(1, 0), [spans])
    assert positions_for(made, None, "all") == (
        Position("x0", (0,)),
        Position("x1", (1,)),
        Position("query.0", (2,)),
        Position("query.1", (3,)),
    )
    assert positions_for(made, None, "kinds") == (Position("x", (0, 1)), Position("query", (2, 3)))
    assert positions_for(made, tv.Site("resid_pre", 0, pos=1), None) == (
        Position("x1", (1,)),
        Position("query", (2, 3)),
    )
    assert positions_for(made, tv.Site("resid_pre", 0, pos=-1), "all") == (Position("last", (-1,)),)


def test_the_three_parts_of_a_contrast_are_equally_many():
    with pytest.raises(ShapeMismatch) as caught:
        tv.circuits.Contrast(tokens(2, 4, 0), tokens(2, 4, 1), answers(3, 0))
    assert str(caught.value) == "Clean prompts, corrupted prompts and answers must be equally many.\n  got:     2, 2, 3"
    assert len(contrast(3)) == 3 and contrast(3).is_uniform


def test_a_projection_is_one_for_its_own_direction():
    direction = torch.tensor([3.0, 0.0, 4.0])
    projection = tv.circuits.Projection("resid_post[1]@-1", direction)
    streams = torch.stack([direction, -2 * direction, torch.tensor([0.0, 5.0, 0.0])])
    assert projection.read(streams).tolist() == [1.0, -2.0, 0.0]
    with pytest.raises(InvalidArgument, match="finite direction that is not zero"):
        tv.circuits.Projection("resid_post[1]@-1", torch.zeros(3))


def test_a_baseline_needs_a_source():
    with pytest.raises(InvalidArgument, match="acts at the source's site"):
        tv.circuits.CircuitQuestion(against=tv.Replace("resid_post[0]@-1", vector()))
