"""Seeded draws: nested, the same in every process, and refused where pairs are too few."""

from __future__ import annotations

import hashlib

import pytest

from tv_lens.errors import EmptySelection, InvalidArgument
from tv_lens.tasks import Pair, Task, null
from tv_lens.tasks.drawing import rng_of, shuffled_labels

NUMBERS = Task("successor", [(str(i), str(i + 1)) for i in range(50)])


def test_draws_are_the_same_in_another_process():
    # Python seeds `hash` anew in every process: a draw that leaned on it could not come out as pinned here.
    pairs = NUMBERS.pairs(3, 5, seed=7)
    drawn = [pairs.clean.texts, pairs.corrupted.texts, [prompt.foil for prompt in pairs.clean]]
    assert hashlib.sha256(repr(drawn).encode()).hexdigest()[:16] == "39a94500dd182a06"
    assert null(NUMBERS).fingerprint == "e01a529165b520d5"


def test_demonstrations_come_from_train_and_never_show_the_query():
    train = set(NUMBERS.split("train"))
    for split in ("train", "dev", "test"):
        for prompt in NUMBERS.prompts(shots=6, n=40, split=split):
            shown = prompt.demonstrations
            assert len(set(shown)) == 6 and set(shown) <= train
            assert prompt.input not in {pair.input for pair in shown}
            assert Pair(prompt.input, prompt.output) in NUMBERS.split(split)


def test_more_shots_and_prompts_only_add():
    few, many = NUMBERS.prompts(2, 5, seed=3), NUMBERS.prompts(7, 10, seed=3)
    for small, large in zip(few, many):
        assert small.input == large.input and small.demonstrations == large.demonstrations[:2]
    assert NUMBERS.prompts(2, 5, seed=4).texts != few.texts


def test_queries_come_round_again_only_with_demonstrations():
    prompts = NUMBERS.prompts(shots=3, n=25)
    assert len(set(prompts.inputs)) == 10 and len(set(prompts.texts)) == 25
    assert len(NUMBERS.queries()) == 10
    with pytest.raises(EmptySelection) as error:
        NUMBERS.queries(n=11)
    assert str(error.value) == (
        "The test split of 'successor' has fewer pairs than were asked for.\n"
        "  got:     n=11 without demonstrations\n"
        "  allowed: at most 10\n"
        "  do:      n=10 asks each pair once; with shots, queries may come round again"
    )


def test_impossible_counts_are_refused():
    with pytest.raises(EmptySelection, match="at most 30; demonstrations come from train"):
        NUMBERS.prompts(shots=31, n=1)
    with pytest.raises(InvalidArgument, match="shots=-1"):
        NUMBERS.prompts(shots=-1, n=1)
    with pytest.raises(InvalidArgument, match="n=0"):
        NUMBERS.pairs(shots=2, n=0)
    with pytest.raises(EmptySelection, match="0 to ask"):
        Task("t", [("a", "b")]).queries()


@pytest.mark.parametrize("labels, stay", [("aabbcc", 0), ("aaabbc", 0), ("aaaab", 3), ("aa", 2), ("ab", 0)])
def test_as_few_labels_stay_as_can_be(labels, stay):
    pairs = [Pair(str(i), label) for i, label in enumerate(labels)]
    for seed in range(5):
        moved = shuffled_labels(pairs, rng_of(seed))
        assert sum(a == b for a, b in zip(pairs, moved)) == stay
