"""What rows take of a budget: everything that is held counts, and an error says the smallest that works."""

from __future__ import annotations

import re

import numpy as np
import pytest

import tiny_characters
import tv_lens as tv
from row_cases import ids
from tv_lens.errors import BudgetTooSmall
from tv_lens.model.capture import bytes_per_prompt
from tv_lens.rows.base_run import base_run
from tv_lens.rows.memory import held, needed, per_row, rows_at_once


@pytest.fixture(scope="module")
def characters_model() -> tv.HookedModel:
    return tiny_characters.model("llama")


def test_what_a_base_run_holds_is_what_its_tensors_take(tiny_model):
    model = tiny_model("llama")
    run = base_run(model, model.tokens(ids(1, n=2)))
    parts = [*run.keys, *run.values, *run.stream]
    assert 2 * held(model, 12) == sum(part.numel() * part.element_size() for part in parts)


def test_a_row_with_a_prefix_of_its_own_takes_that_too(tiny_model):
    model = tiny_model("llama")  # 4 heads that share 2 keys, of 8 numbers
    assert per_row(model, 1, 12, own_prefix=True) - per_row(model, 1, 12) == 4 * 12 * 2 * 8 * (2 + 2 + 4)
    budget = 10 * per_row(model, 3, 12, own_prefix=True)
    assert rows_at_once(model, 1, 3, 12, budget, own_prefix=True) == 10
    assert rows_at_once(model, 5, 3, 12, budget, own_prefix=True) == 2
    alone = held(model, 12) + bytes_per_prompt(model.shape, 12)
    assert needed(model, 12, [11]) > alone and needed(model, 12, [0]) > alone


@pytest.mark.parametrize("engine", ["rows", "passes"])
@pytest.mark.parametrize("verb", ["patch", "node_effects", "path_effects", "vector_sweep"])
def test_a_verb_says_the_smallest_budget_that_works(verb, engine, characters_model):
    model, task = characters_model, tiny_characters.pairings(1)[0]
    pairs = task.pairs(shots=2, n=2, corrupt="shuffle_labels", seed=0)
    vector = tv.extract(model, task, method=tv.methods.ResidualMean(layer=1, shots=2, contexts=2), progress=False)
    run = {
        "patch": lambda **o: tv.patch(model, pairs, tv.sites("z"), over=("layer", "pos"), **o),
        "node_effects": lambda **o: tv.node_effects(model, pairs, **o),
        "path_effects": lambda **o: tv.path_effects(model, pairs, senders=[(0, 1)], receivers=[(2, 1)], **o),
        "vector_sweep": lambda memory_budget, **o: swept(memory_budget, **o),
    }[verb]

    def swept(memory_budget, **o):
        before, model.memory_budget = model.memory_budget, memory_budget
        try:
            return tv.vector_sweep(model, vector, task, n=2, shots=2, **o)
        finally:
            model.memory_budget = before

    roomy = run(engine=engine, progress=False, memory_budget=2**30)
    with pytest.raises(BudgetTooSmall) as caught:
        run(engine=engine, progress=False, memory_budget=10)
    least = int(re.search(r"at least ([\d,]+) bytes", caught.value.allowed).group(1).replace(",", ""))
    tight = run(engine=engine, progress=False, memory_budget=least)
    np.testing.assert_allclose(tight.values.values, roomy.values.values, atol=2e-5)
