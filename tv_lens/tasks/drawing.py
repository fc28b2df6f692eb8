"""Which pairs a prompt shows and asks: seeded draws that are the same in every process.

Draws are nested. With one seed, the first queries of a larger `n` are those of a smaller one, and the first
demonstrations of more shots are those of fewer, so that prompts that are compared differ in nothing else. Tasks
over the same inputs draw the same inputs.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

from tv_lens.errors import EmptySelection, InvalidArgument
from tv_lens.tasks.templates import Pair

T = TypeVar("T")
SPLITS = ("train", "dev", "test")
FOILS = 24  # how many foils a prompt carries for tokenizers to choose from


class Draw(NamedTuple):
    """What one prompt shows and asks."""

    demonstrations: tuple[Pair, ...]
    query: Pair


def rng_of(*key: Any) -> random.Random:
    """A generator seeded by a key alone (not by `hash`, which changes from process to process)."""
    return random.Random("tv_lens|" + "|".join(str(part) for part in key))


def take(items: Sequence[T], k: int, rng: random.Random) -> list[T]:
    """The first `k` items of a random order; the list for a smaller `k` begins the list for a larger one."""
    deck = list(items)
    for i in range(min(k, len(deck))):
        j = rng.randrange(i, len(deck))
        deck[i], deck[j] = deck[j], deck[i]
    return deck[:k]


def draw(
    shown: Sequence[Pair], queries: Sequence[Pair], *, shots: int, n: int | None, seed: int, split: str, task: str
) -> list[Draw]:
    """The demonstrations and the query of each prompt.

    Args:
        shown: pairs to take demonstrations from.
        queries: pairs to take queries from.
        shots: demonstrations per prompt, without replacement and never the query's own pair.
        n: number of prompts; None asks every pair once. If there are fewer pairs, queries are repeated with other
            demonstrations.
        seed: the draw.
        split: the name of the split that queries are from, for messages.
        task: the task's name, for messages.
    """
    check_counts(shots, n)
    if not queries:
        raise EmptySelection(
            f"The {split} split of {task!r} has no pairs to ask.",
            got=f"{len(shown)} pairs to show, 0 to ask",
            do="give the task more pairs (five at least), or choose another split",
        )
    n = len(queries) if n is None else n
    if n > len(queries) and shots == 0:
        raise EmptySelection(
            f"The {split} split of {task!r} has fewer pairs than were asked for.",
            got=f"n={n} without demonstrations",
            allowed=f"at most {len(queries)}",
            do=f"n={len(queries)} asks each pair once; with shots, queries may come round again",
        )
    order = take(queries, len(queries), rng_of(seed, split, "queries"))
    draws = []
    for i in range(n):
        query = order[i % len(order)]
        deck = [pair for pair in shown if pair.input != query.input]
        if shots > len(deck):
            raise EmptySelection(
                f"{task!r} has too few pairs for so many demonstrations.",
                got=f"shots={shots}",
                allowed=f"at most {len(deck)}; demonstrations come from train and never repeat the query",
            )
        draws.append(Draw(tuple(take(deck, shots, rng_of(seed, split, "shown", i))), query))
    return draws


def check_counts(shots: int, n: int | None) -> None:
    """Raises `InvalidArgument` where a count is too small."""
    if shots < 0:
        raise InvalidArgument(
            "A prompt cannot show fewer than no demonstrations.", got=f"shots={shots}", allowed="0 or more"
        )
    if n is not None and n < 1:
        raise InvalidArgument(
            "At least one prompt must be asked for.", got=f"n={n}", allowed="1 or more, or None for all"
        )


def other_labels(labels: Sequence[str], right: str, rng: random.Random) -> tuple[str, ...]:
    """Labels that differ from the right one, in random order."""
    return tuple(take([label for label in labels if label != right], FOILS, rng))


def shuffled_labels(pairs: Sequence[Pair], rng: random.Random) -> tuple[Pair, ...]:
    """The same inputs with the same labels, shuffled so that as few labels as possible stay with their input.

    The pairs are put in a random order in which equal labels stand side by side, and every label moves on by the size
    of the largest group: no input keeps its label unless one label fills more than half of the places.
    """
    if not pairs:
        return ()
    groups: dict[str, list[int]] = {}
    for i in take(range(len(pairs)), len(pairs), rng):
        groups.setdefault(pairs[i].output, []).append(i)
    order = [i for members in groups.values() for i in members]
    step = max(len(members) for members in groups.values())
    moved = {order[k]: pairs[order[(k + step) % len(order)]].output for k in range(len(order))}
    return tuple(Pair(pair.input, moved[i]) for i, pair in enumerate(pairs))
