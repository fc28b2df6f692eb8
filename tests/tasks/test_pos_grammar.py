"""The sentences of the grammar: gold answers, and no place that gives a part of speech away."""

from __future__ import annotations

from collections import Counter

from tv_lens.tasks import family, null
from tv_lens.tasks.pos import CLASSES, TAGS
from tv_lens.tasks.pos_grammar import grammar_sentences, patterns, slots


def places(name: str) -> list[int]:
    """Where the answer stands, in words."""
    found = {sentence.text: sentence for sentence in grammar_sentences()}
    return [found[pair.input].words.index(pair.output) for pair in {one.name: one for one in family("pos")}[name]]


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


def test_where_the_answer_stands_gives_no_class_away():
    """The best guess of the class from the place alone; Null's places are those of all words."""
    tables = {name: Counter(places(name)) for name in CLASSES}
    for place in range(7):
        counts = [tables[name][place] for name in CLASSES]
        assert max(counts) - min(counts) <= 3, (place, counts)
    guess = sum(max(tables[name][place] for name in CLASSES) for place in range(10)) / 3600
    assert guess < 1 / 6 + 0.003
    nothing, found = null(family("pos")), {sentence.text: sentence for sentence in grammar_sentences()}
    tables["null"] = Counter(found[pair.input].words.index(pair.output) for pair in nothing)
    guess = sum(max(table[place] for table in tables.values()) for place in range(10)) / 4200
    assert guess < 1 / 7 + 0.02


def test_the_guess_by_place_would_find_a_bias():
    """On sentences of one pattern the place is the class: the measure above can fail."""
    tables = [Counter({i: 100}) for i in range(6)]
    assert sum(max(table[place] for table in tables) for place in range(6)) / 600 == 1.0


def test_neither_half_of_the_sentences_is_of_one_kind():
    assert len(patterns()) >= 60 and max(count for count, _ in patterns()) <= 0.06 * 600
    assert sum(count for count, _ in patterns()) == len(grammar_sentences()) == 600
