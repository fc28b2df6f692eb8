"""Near-duplicates among the pairs of a task: where one is shown, the answer to the other is given away."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from tv_lens.tasks.templates import Pair

CASE, ORDER, REVERSED, STEM = "case or accents", "another order", "reversed pair", "shared stem"
KINDS = (CASE, ORDER, REVERSED, STEM)
Groups = tuple[tuple[str, ...], ...]
LEAST_STEM = 3  # letters; shorter words are found inside others by accident
_DIACRITICS = re.compile("[\u0300-\u036f]")  # of Latin, Greek and Cyrillic letters; in other scripts marks are letters
_PART = re.compile(r"\w+|[^\w\s]")
_BETWEEN = re.compile(r"[,;()\[\]{}]")
_LETTERS = re.compile(r"[^\W\d_]+(?:[ '’\-][^\W\d_]+)*")


def near_duplicates(pairs: Sequence[Pair]) -> dict[str, Groups]:
    """Groups of two inputs or more that are near-duplicates of one another, by kind.

    "case or accents": inputs that differ only in capital letters, diacritics, white space or their last full stop.
    "another order": the same parts in another order, such as `10 01` and `01 10`, or the rotations of a list.
    "reversed pair": hot -> cold and cold -> hot. "shared stem": one input begins (or ends) with another, and so do
    their answers, as in understand -> understood and stand -> stood.

    Example:
        >>> near_duplicates([Pair("hot", "cold"), Pair("Cold", "hot"), Pair("up", "down")])["reversed pair"]
        (('Cold', 'hot'),)
    """
    return {
        CASE: _alike((pair.input, plain(pair.input)) for pair in pairs),
        ORDER: _orders(pairs),
        REVERSED: _reversed(pairs),
        STEM: _stems(pairs),
    }


def kept_together(pairs: Sequence[Pair], found: dict[str, Groups] | None = None) -> Groups:
    """The inputs that lie in one split: near-duplicates, and near-duplicates of those.

    A kind by which a fifth of all inputs would be one group (at least seven inputs), or fewer than three groups would
    remain, is left out: there it describes the task's inputs as a whole, and nothing could be held out.
    """
    found = near_duplicates(pairs) if found is None else found
    inputs = [pair.input for pair in pairs]
    most = max(6, len(inputs) // 5)
    together: Groups = ()
    for kind in KINDS:
        groups = merged(inputs, (*together, *found[kind]))
        n_units = len(inputs) - sum(len(group) - 1 for group in groups)
        if max(map(len, groups), default=1) <= most and n_units >= 3:
            together = groups
    return together


def merged(inputs: Iterable[str], groups: Iterable[Sequence[str]]) -> Groups:
    """The groups, without inputs that are not there, and those that share an input made one; none of a single input."""
    numbers = {text: number for number, text in enumerate(inputs)}
    present = [[numbers[text] for text in group if text in numbers] for group in groups]
    links = np.array([(one, other) for group in present for one, other in zip(group, group[1:])]).reshape(-1, 2).T
    matrix = coo_array((np.ones(links.shape[1]), (links[0], links[1])), shape=(len(numbers), len(numbers)))
    _, component = connected_components(matrix, directed=False)
    members: dict[int, list[str]] = {}
    for text, number in numbers.items():
        members.setdefault(int(component[number]), []).append(text)
    return tuple(tuple(group) for group in members.values() if len(group) > 1)


def plain(text: str) -> str:
    """The text in lower case, without diacritics, repeated spaces, and marks that end a sentence.

    Example:
        >>> plain("  École  Normale."), plain("?")
        ('ecole normale', '?')
    """
    folded = _DIACRITICS.sub("", unicodedata.normalize("NFKD", text.casefold()))
    spaced = " ".join(unicodedata.normalize("NFC", folded).split())
    return spaced.rstrip(" .?!…") or spaced


def _alike(keyed: Iterable[tuple[str, object]]) -> Groups:
    groups: dict[object, list[str]] = {}
    for text, key in keyed:
        groups.setdefault(key, []).append(text)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def _orders(pairs: Sequence[Pair]) -> Groups:
    """Inputs of the same parts: words, numbers and signs; where commas stand, what is between commas and brackets."""

    def parts(text: str) -> tuple[str, ...]:
        if "," in text or ";" in text:
            return tuple(sorted(part.strip() for part in _BETWEEN.split(text)))
        return tuple(sorted(_PART.findall(text)))

    groups = _alike((pair.input, parts(plain(pair.input))) for pair in pairs)
    return tuple(group for group in groups if len(set(map(plain, group))) > 1)


def _reversed(pairs: Sequence[Pair]) -> Groups:
    by_form: dict[tuple[str, str], list[str]] = {}
    for pair in pairs:
        by_form.setdefault((plain(pair.input), plain(pair.output)), []).append(pair.input)
    return tuple(
        (text, other)
        for (source, answer), texts in by_form.items()
        if source < answer
        for text in texts
        for other in by_form.get((answer, source), ())
    )


def _stems(pairs: Sequence[Pair]) -> Groups:
    """Pairs of inputs of which one begins with the other, as their answers do; or ends with it, as their answers do."""
    words = [pair for pair in pairs if _LETTERS.fullmatch(pair.input) and _LETTERS.fullmatch(pair.output)]
    answers = {pair.input: pair.output for pair in words if len(pair.output) >= LEAST_STEM}
    found: dict[tuple[str, str], None] = {}
    for text, answer in answers.items():
        for cut in range(LEAST_STEM, len(text)):
            begin, end = text[:cut], text[-cut:]
            if begin in answers and answer.startswith(answers[begin]):
                found[begin, text] = None
            if end in answers and answer.endswith(answers[end]):
                found[end, text] = None
    return tuple(found)
