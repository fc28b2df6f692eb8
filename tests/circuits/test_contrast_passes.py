"""The clean and the corrupted pass: writers add up to the stream, and searches without a difference are refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import tv_lens as tv
from circuit_cases import contrast, passes, tokens, vector
from tv_lens.errors import InvalidArgument


def test_a_source_that_never_reaches_the_target_is_refused(tiny_model):
    model = tiny_model("llama")
    late, early = tv.Replace("resid_post[1]@-1", vector()), tv.circuits.Projection("resid_post[0]@-1", vector())
    with pytest.raises(InvalidArgument, match="never reaches the target"):
        tv.discover(model, contrast(), source=late, target=early)
    with pytest.raises(InvalidArgument, match="no such position"):
        tv.discover(
            model,
            contrast(),
            source=tv.Replace("resid_post[0]@4", vector()),
            target=tv.circuits.Projection("resid_post[1]@2", vector()),
        )


def test_runs_without_a_gap_are_refused(tiny_model):
    same = replace(contrast(), corrupted=contrast().clean)
    with pytest.raises(InvalidArgument, match="do not differ on average"):
        tv.discover(tiny_model("llama"), same)


@pytest.mark.parametrize("family", ["gpt2", "llama", "phi"])
def test_writers_add_up_to_the_stream_at_the_end(tiny_model, family):
    made = passes(tiny_model(family), "pairs")
    for chunk in made.chunks():
        written = made.writes(chunk.clean).sum(2)
        torch.testing.assert_close(written, chunk.clean.post.float(), atol=1e-4, rtol=1e-4)


def test_the_numbers_at_the_end_are_those_of_the_models_own_runs(tiny_model):
    model, made = tiny_model("qwen2"), passes(tiny_model("qwen2"), "pairs")
    for number, side in zip(made.baselines, (made.contrast.clean, made.contrast.corrupted)):
        torch.testing.assert_close(number, tv.metrics.logit_diff(model.run(side), made.answers), atol=1e-5, rtol=1e-5)


def test_chunks_of_a_small_budget_hold_the_same_traces(tiny_model):
    model = tiny_model("llama")
    whole = list(passes(model, "pairs").chunks())
    before, model.memory_budget = model.memory_budget, 2**15
    try:
        parts = list(passes(model, "pairs").chunks())
    finally:
        model.memory_budget = before
    assert len(whole) == 1 and len(parts) == 3
    torch.testing.assert_close(
        torch.cat([part.clean.post for part in parts]), whole[0].clean.post, atol=1e-5, rtol=1e-5
    )


def test_a_metric_that_needs_a_reference_gets_the_clean_logits(tiny_model):
    model = tiny_model("gpt2")
    question = tv.circuits.CircuitQuestion(metric=tv.metrics.kl, pos="all")
    made = tv.circuits.contrast_passes.make_passes(model, contrast(2, pairs=True), question)
    torch.testing.assert_close(made.reference, model.run(tokens(2, 6, 0)).cpu())
    assert float(made.baselines[0].abs().max()) < 1e-5 < float(made.baselines[1].abs().min())
