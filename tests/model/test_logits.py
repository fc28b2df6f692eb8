"""Logits in batches: what a budget splits is what one pass gives, and what it cannot split is refused."""

from __future__ import annotations

import pytest
import torch

import tiny
import tv_lens as tv
from hooked_cases import ROWS, TOKENS, close
from tv_lens.errors import BudgetTooSmall
from tv_lens.intervention import Replace, Resample, Zero
from tv_lens.model.capture import bytes_per_prompt


def batches(model, monkeypatch):
    """The number of prompts in every pass from now on."""
    sizes, forward = [], model.forward
    monkeypatch.setattr(model, "forward", lambda batch, *a, **k: (sizes.append(len(batch)), forward(batch, *a, **k))[1])
    return sizes


@pytest.mark.parametrize("logits", ["last", "all"])
def test_a_run_is_split_to_fit_the_budget_and_gives_what_it_gives_whole(llama, logits, monkeypatch):
    prompts = tv.tasks.TokenBatch.from_lists(ROWS * 5)
    whole, edit = llama.run(prompts, logits=logits), Zero("z[1]@-1")
    edited = llama.run(prompts, edit, logits=logits)
    each = bytes_per_prompt(llama.shape, 6, 1 if logits == "last" else 6)
    sizes = batches(llama, monkeypatch)
    split = llama.run(prompts, logits=logits, memory_budget=3 * each + 1)
    assert sizes == [3] * 6 + [2] and split.shape == whole.shape and close(split, whole)
    assert close(llama.run(prompts, edit, logits=logits, memory_budget=7 * each), edited) and sizes[7:] == [7, 7, 6]
    monkeypatch.setattr(llama, "memory_budget", 4 * each)
    del sizes[:]
    assert close(llama.run(prompts, logits=logits), whole) and sizes == [4] * 5  # the model's own budget


def test_a_run_that_the_budget_does_not_hold_is_refused(llama):
    each = bytes_per_prompt(llama.shape, 7)
    with pytest.raises(BudgetTooSmall, match=f"of 7 tokens.\n  got:     1,000 bytes\n  .*{each:,}"):
        llama.run(TOKENS, memory_budget=1000)
    assert llama.run(TOKENS, memory_budget=each).shape == (5, tiny.VOCAB)
    per_prompt = Replace("resid_post[1]@-1", torch.ones(5, tiny.D_MODEL))
    for edit in (Resample("z[1]"), per_prompt):
        with pytest.raises(BudgetTooSmall, match="needs all prompts in one batch, and the memory budget splits them"):
            llama.run(TOKENS, edit, memory_budget=4 * each)
        with llama.intervene(edit), pytest.raises(BudgetTooSmall, match="needs all prompts in one batch"):
            llama.run(TOKENS, memory_budget=4 * each)
        with llama.intervene(edit), pytest.raises(BudgetTooSmall, match="needs all prompts in one batch"):
            llama.capture(TOKENS, "z[2]", memory_budget=each + 10_000)
        assert close(llama.run(TOKENS, edit, memory_budget=5 * each), llama.run(TOKENS, edit))
