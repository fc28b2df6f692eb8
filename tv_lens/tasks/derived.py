"""Tasks that a rule makes of the common words, the alphabet and lists of three: capitals, letters and places."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable

from tv_lens.tasks.drawing import rng_of, take
from tv_lens.tasks.wordlists import common_words, words_of


def _of_words(rule: Callable[[str], str]) -> Callable[[], Iterable[tuple[str, str]]]:
    return lambda: [(word, rule(word)) for word in common_words()]


def _along_alphabet(step: int) -> Callable[[], Iterable[tuple[str, str]]]:
    def build() -> Iterable[tuple[str, str]]:
        for alphabet in (string.ascii_lowercase, string.ascii_uppercase):
            pairs = zip(alphabet, alphabet[1:])
            yield from pairs if step > 0 else ((after, before) for before, after in pairs)

    return build


def _of_three(place: int, n: int = 300) -> Callable[[], Iterable[tuple[str, str]]]:
    """Lists of three common words, the same for every place: only the answers distinguish the tasks."""

    def build() -> Iterable[tuple[str, str]]:
        lists = [take(common_words(), 3, rng_of("of-three", i)) for i in range(n)]
        return [(", ".join(words), words[place]) for words in lists]

    return build


def _animal_of_three(n: int = 300) -> Iterable[tuple[str, str]]:
    for i in range(n):
        rng = rng_of("animal-of-three", i)
        animal = rng.choice(words_of("animals"))
        words = take([*take(words_of("objects"), 2, rng), animal], 3, rng)
        yield ", ".join(words), animal


# name of the task -> (what makes its pairs, its description)
DERIVED: dict[str, tuple[Callable[[], Iterable[tuple[str, str]]], str]] = {
    "capitalize": (_of_words(str.capitalize), "word -> the same word with a capital letter"),
    "uppercase": (_of_words(str.upper), "word -> the same word in capital letters"),
    "first-letter": (_of_words(lambda word: word[0]), "word -> its first letter"),
    "last-letter": (_of_words(lambda word: word[-1]), "word -> its last letter"),
    "next-letter": (_along_alphabet(1), "letter -> the next one in the alphabet, in both cases"),
    "previous-letter": (_along_alphabet(-1), "letter -> the one before it in the alphabet, in both cases"),
    "first-of-three": (_of_three(0), "three words -> the first of them"),
    "second-of-three": (_of_three(1), "three words -> the second of them"),
    "last-of-three": (_of_three(2), "three words -> the last of them"),
    "animal-of-three": (_animal_of_three, "one animal and two objects -> the animal"),
}
