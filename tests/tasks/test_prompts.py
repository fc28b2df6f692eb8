"""Sets of prompts and of pairs: sequences with a recipe, drawn or written by hand."""

from __future__ import annotations

import pickle

import pytest

from tiny_tokenizers import byte_level
from tv_lens.errors import PromptError, RenamedError
from tv_lens.tasks import IO, PromptPairs, Prompts, Task, task

PAST = task("present-past")


NUMBERS = Task("successor", [(str(i), str(i + 1)) for i in range(50)])


WORDS = tuple(word for pair in PAST.items[::2] for word in (pair.input, pair.output))


@pytest.fixture(scope="module")
def tokenizer():
    """Half of the verbs are single tokens, the others take several."""
    return byte_level(words=WORDS, size=1500)


def test_prompts_are_a_sequence_with_a_recipe():
    prompts = NUMBERS.prompts(2, 5, template=IO)
    assert repr(prompts) == "Prompts(5 of 'successor', 2 shots, template 'io')"
    assert prompts[1:3].texts == prompts.texts[1:3] and len(list(prompts)) == 5
    assert prompts.recipe == {
        "task": "successor",
        "fingerprint": NUMBERS.fingerprint,
        "shots": 2,
        "n": 5,
        "seed": 0,
        "split": "test",
        "template": IO.to_dict(),
    }
    assert prompts[0].foil is None and NUMBERS.queries(5, foils=True)[0].foil not in (None, prompts[0].answer)


def test_pairs_know_what_draws_them_again_under_its_new_name_alone():
    drawn, by_hand = PAST.pairs(shots=2, n=3), PromptPairs.from_texts(["one"], ["two"], [" three"])
    assert drawn.drawn_by is not None and by_hand.drawn_by is None
    with pytest.raises(RenamedError, match="PromptPairs.plan has another name"):
        drawn.plan  # noqa: B018
    with pytest.raises(RenamedError, match="use drawn_by="):
        PromptPairs(drawn.clean, drawn.corrupted, plan=None)
    again = pickle.loads(pickle.dumps(drawn))
    assert again == drawn and again.drawn_by.draw() == drawn


def test_prompts_can_be_exchanged_under_the_same_recipe():
    drawn = PAST.prompts(shots=2, n=3)
    fewer = drawn.with_items(drawn[:2])
    assert fewer == drawn[:2] and fewer.recipe == drawn.recipe and isinstance(fewer, Prompts)


def test_texts_by_hand_need_one_of_each(tokenizer):
    with pytest.raises(PromptError, match="got:     2 clean, 1 corrupted, 2 answers"):
        PromptPairs.from_texts(["a", "b"], ["c"], [" d", " e"])
    tokens = PromptPairs.from_texts(["The cat"], ["The dog"], [" sat"], foils=[" ran"]).tokenize(tokenizer)
    assert tokens.clean.prompts[0].output == "sat" and len(tokens.answers) == 1
    assert PromptPairs.from_texts(["a"], ["b"], [" c"]).tokenize(tokenizer).answers.wrong is None
