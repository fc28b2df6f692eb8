"""Corrupted twins: what each corruption changes, and pairs of one token shape."""

from __future__ import annotations

import pytest

from tiny_tokenizers import byte_level
from tv_lens.errors import EmptySelection, InvalidArgument, MisalignedPrompts, PromptError, UnknownName
from tv_lens.tasks import PromptPairs, Task, task

PAST = task("present-past")


NUMBERS = Task("successor", [(str(i), str(i + 1)) for i in range(50)])


WORDS = tuple(word for pair in PAST.items[::2] for word in (pair.input, pair.output))


@pytest.fixture(scope="module")
def tokenizer():
    """Half of the verbs are single tokens, the others take several."""
    return byte_level(words=WORDS, size=1500)


CORRUPTIONS = [
    ("shuffle_labels", None),
    ("other_task", "present-gerund"),
    ("other_task", "antonym"),
    ("random_words", None),
]


# Corruptions
def test_shuffled_labels_leave_their_place():
    for prompt, twin in NUMBERS.pairs(shots=8, n=20):
        assert prompt.input == twin.input and (prompt.answer, prompt.foil) == (twin.answer, twin.foil)
        clean, corrupted = prompt.demonstrations, twin.demonstrations
        assert [pair.input for pair in clean] == [pair.input for pair in corrupted]
        assert sorted(pair.output for pair in clean) == sorted(pair.output for pair in corrupted)
        assert all(a.output != b.output for a, b in zip(clean, corrupted))


def test_another_task_answers_the_same_inputs():
    gerund = task("present-gerund")
    for prompt, twin in PAST.pairs(shots=5, n=10, corrupt="other_task", other="present-gerund"):
        assert [pair.input for pair in twin.demonstrations] == [pair.input for pair in prompt.demonstrations]
        assert all(gerund.lookup[pair.input] == pair.output for pair in twin.demonstrations)
        assert prompt.foil == " " + gerund.lookup[prompt.input]


def test_a_task_over_other_inputs_lends_whole_demonstrations():
    capitals = task("country-capital")
    pairs = PAST.pairs(shots=5, n=10, corrupt="other_task", other=capitals)
    for prompt, twin in pairs:
        assert set(twin.demonstrations) <= set(capitals.split("train")) and twin.input == prompt.input
        assert prompt.foil[1:] in capitals.labels
    lent = {"task": "country-capital", "fingerprint": capitals.fingerprint}
    assert pairs.recipe["corrupted"]["other"] == lent


def test_queries_on_which_two_tasks_agree_are_left_out():
    pairs = [(str(i), str(i + 1)) for i in range(50)]
    other = Task("mostly", [(x, y if int(x) % 2 else "0") for x, y in pairs])
    for prompt in Task("t", pairs).pairs(3, 20, corrupt="other_task", other=other).clean:
        assert int(prompt.input) % 2 == 0 and prompt.foil == " 0"


def test_random_words_and_no_demonstrations():
    for _, twin in PAST.pairs(shots=5, n=10, corrupt="random_words"):
        words = [pair.output for pair in twin.demonstrations]
        assert len(set(words)) == 5 and not set(words) & set(PAST.labels)
    for prompt, twin in PAST.pairs(shots=5, n=10, corrupt="no_demonstrations"):
        assert twin.text == f"Q: {prompt.input}\nA:" and len(prompt.demonstrations) == 5


def test_a_corruption_must_exist_and_fit():
    with pytest.raises(UnknownName, match="did you mean 'shuffle_labels'"):
        PAST.pairs(2, 2, corrupt="shuffle_label")
    with pytest.raises(InvalidArgument, match="raise shots, or use corrupt='random_words'"):
        PAST.pairs(1, 2)
    with pytest.raises(InvalidArgument, match="'no_demonstrations' needs more demonstrations"):
        PAST.pairs(0, 2, corrupt="no_demonstrations")
    with pytest.raises(InvalidArgument, match=r"corrupt='other_task', other=None"):
        PAST.pairs(2, 2, corrupt="other_task")
    with pytest.raises(InvalidArgument, match=r"corrupt='shuffle_labels', other='antonym'"):
        PAST.pairs(2, 2, other="antonym")
    with pytest.raises(PromptError, match="no second answer"):
        Task("same", [(str(i), "x") for i in range(20)]).pairs(2, 2)


@pytest.mark.parametrize("corrupt, other", CORRUPTIONS)
def test_uniform_pairs_line_up_token_by_token(corrupt, other):
    words = tuple(pair.input for pair in task("antonym")) + WORDS + tuple(task("present-gerund").labels)[::2]
    tokenizer = byte_level(words=words + tuple(task("capitalize").lookup)[::2], size=3000)
    pairs = PAST.pairs(4, 12, corrupt=corrupt, other=other)
    tokens = pairs.uniform(tokenizer).tokenize(tokenizer)
    assert tokens.is_uniform and tokens.is_aligned and len(tokens) == 12
    tokens.check_aligned()
    labels = tokens.token_labels()
    assert len(labels) == tokens.clean.tokens.width and "y3" in labels and labels[-1] == ":"
    assert pairs.uniform(tokenizer).clean.texts == tokens.clean.prompts.texts


def test_without_demonstrations_each_side_is_uniform(tokenizer):
    tokens = PAST.pairs(4, 12, corrupt="no_demonstrations").uniform(tokenizer).tokenize(tokenizer)
    assert tokens.clean.is_uniform and tokens.corrupted.is_uniform and not tokens.is_aligned
    with pytest.raises(MisalignedPrompts, match="Clean and corrupted do not line up in pair 0"):
        tokens.token_labels()


def test_uniform_says_what_there_is_room_for(tokenizer):
    with pytest.raises(EmptySelection, match=r"allowed: at most \d+ shots"):
        PAST.pairs(110, 2).uniform(tokenizer)
    with pytest.raises(PromptError, match="written by hand cannot be drawn again"):
        PromptPairs.from_texts(["a"], ["b"], [" c"]).uniform(tokenizer)
