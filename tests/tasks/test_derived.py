"""Tasks made by a rule: each answer is what the rule says, worked out here by another way."""

from __future__ import annotations

from tv_lens.tasks.derived import DERIVED
from tv_lens.tasks.wordlists import common_words, words_of


def pairs(name):
    build, description = DERIVED[name]
    assert "->" in description
    return list(build())


def test_capitals_and_letters_of_every_common_word():
    words = list(common_words())
    assert [x for x, _ in pairs("capitalize")] == words == [x for x, _ in pairs("last-letter")]
    assert all(y[0] == x[0].upper() and y[1:] == x[1:] for x, y in pairs("capitalize"))
    assert all(x == y.swapcase() for x, y in pairs("uppercase"))
    assert all(x.startswith(y) and len(y) == 1 for x, y in pairs("first-letter"))
    assert all(x.endswith(y) and len(y) == 1 for x, y in pairs("last-letter"))


def test_neighbours_in_the_alphabet():
    forward, back = dict(pairs("next-letter")), dict(pairs("previous-letter"))
    assert len(forward) == len(back) == 50 and all(ord(y) - ord(x) == 1 for x, y in forward.items())
    assert {y: x for x, y in forward.items()} == back


def test_lists_of_three():
    lists = [pairs(f"{place}-of-three") for place in ("first", "second", "last")]
    for three in zip(*lists):
        assert len({source for source, _ in three}) == 1
        assert [answer for _, answer in three] == three[0][0].split(", ")
    animals = set(words_of("animals"))
    for source, animal in pairs("animal-of-three"):
        assert animal in animals and animal in source.split(", ")
