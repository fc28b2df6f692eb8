"""Families of tasks whose answers give nothing away: places of lists, orders along the alphabet, steps along cycles.

Within each split, each answer comes equally often under every task, Null included. Demonstrations are drawn from a
split at random, so the shown answers have the same distribution under all tasks, whatever is counted of them: words,
tokens, characters or lengths. Only which answer stands beside which input distinguishes the tasks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, count
from math import comb

from tv_lens.errors import InvalidArgument
from tv_lens.tasks.definition import Task
from tv_lens.tasks.drawing import rng_of, take
from tv_lens.tasks.templates import QA, Template
from tv_lens.tasks.twins import Groups
from tv_lens.tasks.wordlists import common_words

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
BETWEEN = ", "
RINGS = 5  # three for train, one for dev, one for test
Words = tuple[str, ...]

# Closed sets with a cyclic order. All words are one token after a space in the embedded model and in GPT-2.
CYCLES: dict[str, Words] = {
    name: tuple(words.split())
    for name, words in {
        "letters": "a b c d e f g h i j k l m n o p q r s t u v w x y z",
        "weekdays": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
        "months": "January February March April May June July August September October November December",
        "numbers": "one two three four five six seven eight nine ten eleven twelve",
        "ordinals": "first second third fourth fifth sixth seventh eighth ninth tenth",
        "seasons": "spring summer autumn winter",
        "directions": "north east south west",
        "planets": "Mercury Venus Earth Mars Jupiter Saturn Uranus Neptune",
        "colors": "red orange yellow green blue violet",
        "times": "morning noon evening night",
        "greek": "alpha beta gamma delta epsilon",
        "ages": "baby child adult elder",
    }.items()
}
STEPS = {"next": 1, "previous": -1, "next-but-one": 2}


@dataclass(frozen=True)
class RotatedWord:
    """The Null rule of lists: a word of the list, so drawn that over the rotations of a list each word comes once."""

    description: str = "a random word of the list, each once over the rotations of a list"
    instruction: str = "Write a random word of the list.\n\n"

    def __call__(self, source: str, seed: int) -> str:
        words = source.split(BETWEEN)
        start = words.index(min(words))
        begun = words[start:] + words[:start]  # the same for all rotations
        return take(begun, len(begun), rng_of("null", seed, BETWEEN.join(begun)))[start]


@dataclass(frozen=True)
class ShuffledCycle:
    """The Null rule of cycles: the words of each cycle in a random order in which none stays where it was."""

    description: str = "a random other word of the same cycle, each once"
    instruction: str = "Write a random word of the same kind.\n\n"

    def __call__(self, source: str, seed: int) -> str:
        name, words = next((name, words) for name, words in CYCLES.items() if source in words)
        rng, shuffled = rng_of("null", seed, name), list(words)
        while any(one == other for one, other in zip(words, shuffled)):
            shuffled = take(words, len(words), rng)
        return shuffled[words.index(source)]


def positions_family(
    length: int = 3, *, n: int = 120, vocabulary: Sequence[str] | None = None, template: Template = QA, seed: int = 0
) -> tuple[Task, ...]:
    """The first, second, third ... word of the same lists; all rotations of a list are there, and lie in one split.

    Args:
        length: words per list, from 2 to 8.
        n: lists, before they are rotated.
        vocabulary: what the lists are made of; common words if None, nearly all of which are one token.
        template: the text around lists and words.
        seed: the draw of the lists, and how they are split.

    Raises:
        InvalidArgument: the words are too few for so many lists.

    Example:
        >>> first, second, third = positions_family()
        >>> source = first.items[0].input
        >>> [one.lookup[source] for one in (first, second, third)] == source.split(", ")
        True
    """
    words = _checked(length, vocabulary)
    most = comb(len(words), length)
    if most < 5:
        raise InvalidArgument(
            "Too few words for lists: each split needs lists of its own.",
            got=f"{len(words)} words for lists of {length}",
            allowed=f"{next(size for size in count(length) if comb(size, length) >= 5)} words or more",
        )
    if not 5 <= n <= most:
        raise InvalidArgument(
            f"So many lists of {length} words cannot be drawn.",
            got=f"n={n} from {len(words)} words",
            allowed=f"5 to {most}",
            do="change n=, or give a larger vocabulary=",
        )
    orbits = [rotations(drawn) for drawn in _lists(words, length, n, seed)]
    together = tuple(tuple(map(BETWEEN.join, orbit)) for orbit in orbits)
    lists = [drawn for orbit in orbits for drawn in orbit]
    return _places(lists, length, together, template, seed)


def orders_family(
    length: int = 3, *, vocabulary: Sequence[str] | None = None, template: Template = QA, seed: int = 0
) -> tuple[Task, ...]:
    """The places of lists, and which of their words comes first, and last, along the alphabet.

    No finite set of words can have each of them as often first as last in alphabetical order: the very first word is
    never last. Here the alphabet is a circle that goes on with "a" after "z", the words of a list are near one
    another on it, and every word begins as many lists as it ends: "zoo, able" begins with "zoo". One list in about ten
    reaches over the end. The circle is divided into five of every fifth word, each of which lies in one split.

    Args:
        length: words per list, from 2 to 8.
        vocabulary: what the lists are made of; common words if None.
        template: the text around lists and words.
        seed: the order of the words in each list, and how the circles are split.

    Raises:
        InvalidArgument: the words are too few.

    Example:
        >>> [member.name for member in orders_family()]
        ['first', 'second', 'third', 'alphabetically-first', 'alphabetically-last']
    """
    words = sorted(_checked(length, vocabulary))
    steps = [2 * i + i // 2 for i in range(length)]  # 0, 2, 5, 7, ...: not evenly, so that lists overlap in few words
    least = RINGS * (2 * steps[-1] + 1)
    if len(words) < least:
        raise InvalidArgument(
            "Too few words for lists along the alphabet.", got=f"{len(words)} words", allowed=f"{least} or more"
        )
    ends: dict[str, tuple[str, str]] = {}
    together, lists = [], []
    for ring in (words[i::RINGS] for i in range(RINGS)):
        drawn = [tuple(ring[(i + step) % len(ring)] for step in steps) for i in range(len(ring))]
        orbits = [rotations(take(one, length, rng_of("orders", seed, *one))) for one in drawn]
        lists += [turned for orbit in orbits for turned in orbit]
        ends |= {BETWEEN.join(turned): (one[0], one[-1]) for one, orbit in zip(drawn, orbits) for turned in orbit}
        together.append(tuple(BETWEEN.join(turned) for orbit in orbits for turned in orbit))
    members = _places(lists, length, tuple(together), template, seed)
    more = [
        _task(
            f"alphabetically-{end}",
            [(source, both[place]) for source, both in ends.items()],
            f"{length} words -> the one that comes {end} along the alphabet, which goes on with a after z",
            f"Find the word that comes {end} in the alphabet.\n\n",
            members[0].twins,
            template,
            seed,
            RotatedWord(),
        )
        for place, end in enumerate(("first", "last"))
    ]
    return (*members, *more)


def mappings_family(*, template: Template = QA, seed: int = 0) -> tuple[Task, ...]:
    """The next word of a cycle, the previous one, and the next but one: permutations of the same closed sets.

    The cycles (weekdays, months, letters and others) close: Monday follows Sunday. Each cycle lies in one split.

    Args:
        template: the text around words.
        seed: which cycles are in train, dev and test.

    Example:
        >>> [member.lookup["Sunday"] for member in mappings_family()]
        ['Monday', 'Saturday', 'Tuesday']
    """
    return tuple(
        _task(
            name,
            [(word, words[(i + step) % len(words)]) for words in CYCLES.values() for i, word in enumerate(words)],
            f"word of a closed cycle (weekdays, months, letters, ...) -> the {name.replace('-', ' ')} one",
            f"Write the {name.replace('-', ' ')} word.\n\n",
            tuple(CYCLES.values()),
            template,
            seed,
            ShuffledCycle(),
        )
        for name, step in STEPS.items()
    )


def rotations(words: Sequence[str]) -> list[Words]:
    """A list begun at each of its words.

    Example:
        >>> rotations(["a", "b", "c"])
        [('a', 'b', 'c'), ('b', 'c', 'a'), ('c', 'a', 'b')]
    """
    return [(*words[i:], *words[:i]) for i in range(len(words))]


def _places(lists: Sequence[Words], length: int, together: Groups, template: Template, seed: int) -> tuple[Task, ...]:
    return tuple(
        _task(
            ORDINALS[place],
            [(BETWEEN.join(words), words[place]) for words in lists],
            f"{length} words -> the {ORDINALS[place]} of them",
            f"Find the {ORDINALS[place]} word.\n\n",
            together,
            template,
            seed,
            RotatedWord(),
        )
        for place in range(length)
    )


def _task(
    name: str,
    pairs: Iterable[tuple[str, str]],
    description: str,
    instruction: str,
    together: Groups | None,
    template: Template,
    seed: int,
    null_rule: RotatedWord | ShuffledCycle,
) -> Task:
    return Task(
        name,
        pairs,
        template=template,
        description=description,
        source="tv_lens",
        seed=seed,
        instruction=instruction,
        null_rule=null_rule,
        twins=together,
    )


def _checked(length: int, vocabulary: Sequence[str] | None) -> Words:
    """The vocabulary, each word once; of common words if None."""
    if not 2 <= length <= len(ORDINALS):
        raise InvalidArgument("A list of so many words has no task.", got=f"length={length}", allowed="2 to 8")
    words = tuple(dict.fromkeys(common_words() if vocabulary is None else vocabulary))
    broken = [word for word in words if "," in word or word != word.strip() or not word]
    if broken:
        raise InvalidArgument(
            "A word of a list has a comma or a space around it, so that its list cannot be read back.",
            got=", ".join(map(repr, broken[:3])),
            allowed="words without commas",
        )
    return words


def _lists(words: Words, length: int, n: int, seed: int) -> list[Words]:
    """Random lists, of which no two have the same words."""
    if comb(len(words), length) <= 4 * n:
        sets = take(list(combinations(words, length)), n, rng_of("positions", length, seed))
        return [tuple(take(one, length, rng_of("positions", seed, *one))) for one in sets]
    lists: dict[frozenset[str], Words] = {}
    rng = rng_of("positions", length, seed)
    while len(lists) < n:
        drawn = tuple(take(words, length, rng))
        lists.setdefault(frozenset(drawn), drawn)
    return list(lists.values())
