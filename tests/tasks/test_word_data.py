"""The built-in word files keep their form: shape, clean text, and the inputs that tasks share. No model."""

from __future__ import annotations

import unicodedata
from collections import Counter
from importlib.resources import files

import pytest

PAIR_FILES = (
    "adjective-adverb",
    "antonym",
    "category",
    "comparative",
    "country-capital",
    "country-demonym",
    "country-language",
    "english-french",
    "english-spanish",
    "noun-adjective",
    "present-gerund",
    "present-past",
    "present-third",
    "singular-plural",
    "superlative",
    "verb-agent",
    "verb-noun",
)
LIST_FILES = {"animals": 100, "objects": 100, "words": 300}

# In these many inputs share an answer by design; everywhere else the inverse task must be a function too.
MANY_TO_ONE = ("antonym", "category", "country-language")


def lines(name: str) -> list[str]:
    text = (files("tv_lens.tasks") / "data" / f"{name}.tsv").read_bytes().decode("utf-8")
    assert text.endswith("\n") and "\r" not in text and not text.startswith("\ufeff")
    return text[:-1].split("\n")


def rows(name: str) -> list[tuple[str, ...]]:
    return [tuple(line.split("\t")) for line in lines(name)[1:]]


@pytest.mark.parametrize("name", (*PAIR_FILES, *LIST_FILES))
def test_first_line_describes_the_file(name: str) -> None:
    prefix = "# description: "
    head = lines(name)[0]
    assert head.startswith(prefix)
    assert head[len(prefix) :] == head[len(prefix) :].strip() != ""


@pytest.mark.parametrize("name", (*PAIR_FILES, *LIST_FILES))
def test_every_cell_is_clean_text(name: str) -> None:
    columns = 1 if name in LIST_FILES else 2
    for row in rows(name):
        assert len(row) == columns, row
        for cell in row:
            assert cell and " ".join(cell.split()) == cell, row
            assert unicodedata.normalize("NFC", cell) == cell, row
            assert all(ch.isalpha() or ch in " '-" for ch in cell), row


@pytest.mark.parametrize("name", (*PAIR_FILES, *LIST_FILES))
def test_no_input_comes_twice(name: str) -> None:
    counts = Counter(row[0].lower() for row in rows(name))
    assert [word for word, n in counts.items() if n > 1] == []


@pytest.mark.parametrize("name", PAIR_FILES)
def test_at_least_120_pairs_and_none_copies_its_input(name: str) -> None:
    pairs = rows(name)
    assert len(pairs) >= 120
    assert [(x, y) for x, y in pairs if x.lower() == y.lower()] == []


@pytest.mark.parametrize("name", [name for name in PAIR_FILES if name not in MANY_TO_ONE])
def test_answers_are_unique_so_the_inverse_task_is_defined(name: str) -> None:
    counts = Counter(y for _, y in rows(name))
    assert [word for word, n in counts.items() if n > 1] == []


def test_verb_forms_share_their_verbs() -> None:
    past, gerund, third = (dict(rows(name)) for name in ("present-past", "present-gerund", "present-third"))
    assert set(past) == set(gerund) == set(third)
    assert len(past) >= 120
    regular = sum(form.endswith("ed") and len(form) > len(verb) for verb, form in past.items())
    assert 0.4 <= regular / len(past) <= 0.6
    assert all(form.endswith("ing") for form in gerund.values())
    assert all(form.endswith("s") for form in third.values())


def test_degrees_share_their_adjectives() -> None:
    comparative, superlative = dict(rows("comparative")), dict(rows("superlative"))
    assert set(comparative) == set(superlative)
    suppletive = {"bad": ("worse", "worst"), "good": ("better", "best"), "much": ("more", "most")}
    for word in comparative:
        if word in suppletive:
            assert (comparative[word], superlative[word]) == suppletive[word]
        else:
            assert comparative[word].endswith("er")
            assert superlative[word] == comparative[word][:-2] + "est"


def test_antonyms_never_contradict_each_other() -> None:
    opposite = dict(rows("antonym"))
    assert [(x, y) for x, y in opposite.items() if opposite.get(y, x) != x] == []


def test_categories_are_balanced() -> None:
    counts = Counter(kind for _, kind in rows("category"))
    assert len(counts) == 12
    assert set(counts.values()) == {15}


@pytest.mark.parametrize(("name", "least"), LIST_FILES.items())
def test_word_lists_are_long_enough_and_lower_case(name: str, least: int) -> None:
    words = [word for (word,) in rows(name)]
    assert len(words) >= least
    assert [word for word in words if not (word.isascii() and word.isalpha() and word.islower())] == []


def test_words_are_short_and_spread_over_the_alphabet() -> None:
    words = [word for (word,) in rows("words")]
    assert [word for word in words if not 3 <= len(word) <= 7] == []
    first = Counter(word[0] for word in words)
    assert max(first.values()) <= 0.1 * len(words)
    assert len(first) >= 24
    assert max(Counter(word[-1] for word in words).values()) <= 0.2 * len(words)


def test_no_animal_is_an_object() -> None:
    animals = {word for (word,) in rows("animals")}
    assert animals.isdisjoint(word for (word,) in rows("objects"))
    assert {thing for thing, kind in rows("category") if kind == "animal"} <= animals
