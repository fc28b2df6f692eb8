"""What a model writes while interventions stay in place."""

from __future__ import annotations

import pytest
import torch

import tv_lens as tv
from tv_lens.errors import InvalidArgument
from tv_lens.experiments.language_models.generation import written_answers
from tv_lens.tasks import task


def test_what_is_written_is_what_exact_match_counts(model):
    """Greedy decoding by a plain loop over whole texts of tokens, without and with an intervention that is held."""
    prompts = task("present-past").prompts(1, 4, seed=1)
    edit = tv.Replace("resid_post[1]@-1", torch.linspace(-2, 2, 32))
    tokens = prompts.tokenize(model).tokens.rows()
    for edits in ((), edit):
        written = written_answers(model, prompts, edits, tokens=4, stop=None)
        for row, text in zip(tokens, written):
            ids = list(row)
            for _ in range(4):
                held = [tv.Replace(f"resid_post[1]@{len(row) - 1}", edit.value)] if edits else []
                ids.append(int(model.run(torch.tensor(ids), held).argmax()))
            assert text == model.tokenizer.decode(ids[len(row) :], skip_special_tokens=True)
    with pytest.raises(InvalidArgument, match="at least one token"):
        written_answers(model, prompts, tokens=0)


def test_an_answer_ends_where_it_is_told_to(model):
    prompts = task("present-past").prompts(1, 3, seed=1)
    whole = written_answers(model, prompts, tokens=6, stop=None)
    stop = whole[0][2]
    assert written_answers(model, prompts, tokens=6, stop=stop) == [text.partition(stop)[0] for text in whole]
