"""The sentences of the grammar: gold answers; neither a place nor a length gives a part of speech away."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.ensemble import RandomForestClassifier

from tv_lens.tasks import Task, family, null, task
from tv_lens.tasks.drawing import SPLITS, rng_of
from tv_lens.tasks.pos import CLASSES, TAGS
from tv_lens.tasks.pos_grammar import BLOCKS, grammar_blocks, grammar_sentences, patterns, slots


def test_answers_are_gold_by_the_slots():
    members = {one.name: one for one in family("pos")}
    assert tuple(members) == CLASSES and all(len(one) == 600 for one in members.values())
    for sentence in grammar_sentences():
        assert len({word.lower() for word in sentence.words}) == len(sentence.words)
        for name, one in members.items():
            tags = [tag in TAGS["upos"][name] for tag in sentence.upos]
            assert one.lookup[sentence.text] == sentence.words[tags.index(True)]


def test_a_word_does_not_tell_its_part_of_speech():
    """Many words stand under several, as in English: "water" is carried, and plants are watered."""
    from tv_lens.tasks.pos_grammar import TAGS as of_slot

    classes: dict[str, set[str]] = {}
    for slot, words in slots().items():
        assert len(set(words)) == len(words) >= 5, slot
        for word in words:
            classes.setdefault(word, set()).add(of_slot[slot])
    several = {word for word, found in classes.items() if len(found) > 1}
    assert len(several) >= 30 and {"water", "light", "fast", "outside", "that"} <= several
    assert {slot for _, pattern in patterns() for slot in pattern} - {","} == set(slots()) == set(of_slot)


def where(one: Task, split: str) -> list[tuple[int, int]]:
    """Where each answer of a split stands, in words from the beginning and from the end."""
    found = {sentence.text: sentence.words for sentence in grammar_sentences()}
    answers = [(found[pair.input], pair.output) for pair in one.split(split)]
    return [(words.index(answer), len(words) - words.index(answer)) for words, answer in answers]


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("split", SPLITS)
def test_where_the_answer_stands_gives_no_class_away(split, seed):
    """Exactly: from the beginning, from the end, and together with the sentence's length."""
    tables = [Counter(where(one, split)) for one in family("pos", seed=seed)]
    assert len(tables) == 6 and all(table == tables[0] for table in tables) and len(tables[0]) == 17
    for end in (0, 1):
        assert len({tuple(sorted(Counter(place[end] for place in table.elements()).items())) for table in tables}) == 1


def places_shown(members: list[Task], shots: int, n: int) -> np.ndarray:
    """How often the shown answers of each prompt stand at each place, with the sentence's length."""
    found = {sentence.text: sentence.words for sentence in grammar_sentences()}
    rows = []
    for one in members:
        for i in range(n):
            prompt = one.prompts(shots, 1, seed=rng_of(one.name, i).getrandbits(31), split="train")[0]
            shown = [(found[pair.input], pair.output) for pair in prompt.demonstrations]
            rows.append(Counter((words.index(answer), len(words)) for words, answer in shown))
    columns = sorted(set().union(*rows))
    return np.array([[row[column] for column in columns] for row in rows])


def accuracy_of_places(members: list[Task], shots: int, n: int = 100) -> float:
    labels = np.arange(len(members)).repeat(n)
    table, learnt, tested = places_shown(members, shots, n), slice(0, None, 2), slice(1, None, 2)
    forest = RandomForestClassifier(30, random_state=0).fit(table[learnt], labels[learnt])
    return float((forest.predict(table[tested]) == labels[tested]).mean())


@pytest.mark.parametrize("shots", [1, 4, 10])
def test_a_classifier_of_place_and_length_is_at_chance(shots):
    assert accuracy_of_places(list(family("pos")), shots) <= binom.ppf(0.999, 300, 1 / 6) / 300


def test_that_classifier_would_find_a_class_that_stands_late():
    """Sentences of which the first verb, or else the first noun, is in the second half: the measure above can fail."""
    noun, _, verb, *_ = family("pos")
    found = {sentence.text: sentence.words for sentence in grammar_sentences()}
    late = [pair for pair in verb if found[pair.input].index(pair.output) > 3]
    early = [pair for pair in noun if found[pair.input].index(pair.output) < 3]
    biased = [verb.replace(pairs=late, twins=()), noun.replace(pairs=early, twins=())]
    assert accuracy_of_places(biased, 1) > 0.95


def test_null_stands_nearly_where_the_others_do():
    """Null's places are those of all words, which reach further back."""
    nothing = null(family("pos"))
    tables = [Counter(where(one, "train")) for one in (*family("pos"), nothing)]
    guess = sum(max(table[place] for table in tables) for place in set().union(*tables)) / (7 * 360)
    assert 1 / 7 < guess < 1 / 7 + 0.05


def test_every_block_holds_each_pattern_equally_often():
    sizes = [len(block) for block in grammar_blocks()]
    assert sizes == [120] * BLOCKS and all(count % BLOCKS == 0 for count, _ in patterns())
    assert sorted({len(sentence.words) for sentence in grammar_sentences()}) == [8, 9]
    for name in ("first-noun", "first-verb"):
        one = task(name)
        assert [len(one.split(which)) for which in SPLITS] == [360, 120, 120]
        where_from = {pair.input: which for which in SPLITS for pair in one.split(which)}
        assert all(len({where_from[sentence.text] for sentence in block}) == 1 for block in grammar_blocks())


def test_neither_half_of_the_sentences_is_of_one_kind():
    assert len(patterns()) >= 60 and max(count for count, _ in patterns()) <= 0.06 * 600
    assert sum(count for count, _ in patterns()) == len(grammar_sentences()) == 600
