"""Sentences of a grammar: the part of speech of every word is known, and no place in a sentence is typical of one.

A pattern is a row of slots; each slot is filled with a word of its list. How many sentences each pattern makes is
chosen so that, among the sentences of eight words and among those of nine, the first noun stands at the first word as
often as the first verb, at the second as often, and so on for all six parts of speech. So neither the answer's place,
counted from the beginning or from the end, nor the sentence's length, nor both together reveal the task. This holds in
each of five blocks, and a block lies in one split, so it holds in train, dev and test, too
(tests/tasks/test_pos_grammar.py counts it).
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from tv_lens.tasks.conllu_files import TaggedSentence
from tv_lens.tasks.drawing import rng_of

# The universal tag of the words of each slot.
TAGS = {
    "person": "NOUN", "thing": "NOUN", "place": "NOUN", "adjective": "ADJ", "mood": "ADJ", "acted": "VERB",
    "handled": "VERB", "order": "VERB", "seemed": "VERB", "walk": "VERB", "adverb": "ADV", "around": "ADP",
    "towards": "ADP", "subject": "PRON", "object": "PRON", "the": "DET", "this": "DET",
}  # fmt: skip
BLOCKS = 5  # three for train, one for dev, one for test


@cache
def slots() -> dict[str, tuple[str, ...]]:
    """The words of each slot."""
    words: dict[str, list[str]] = {}
    for slot, word in _rows("words"):
        words.setdefault(slot, []).append(word)
    return {slot: tuple(fillers) for slot, fillers in words.items()}


@cache
def patterns() -> tuple[tuple[int, tuple[str, ...]], ...]:
    """Each pattern: how many sentences it makes, and its slots."""
    return tuple((int(count), tuple(pattern.split())) for count, pattern in _rows("patterns"))


@cache
def grammar_blocks() -> tuple[tuple[TaggedSentence, ...], ...]:
    """The sentences in five blocks of equal patterns, the same in every process, no two alike."""
    blocks: tuple[list[TaggedSentence], ...] = tuple([] for _ in range(BLOCKS))
    texts: set[str] = set()
    for number, (count, pattern) in enumerate(patterns()):
        made = tried = 0
        while made < count:
            sentence = _filled(pattern, f"{number}|{tried}")
            tried += 1
            if sentence.text not in texts:
                texts.add(sentence.text)
                blocks[made % BLOCKS].append(sentence)
                made += 1
    return tuple(tuple(block) for block in blocks)


def grammar_sentences() -> tuple[TaggedSentence, ...]:
    """The sentences of all blocks."""
    return tuple(sentence for block in grammar_blocks() for sentence in block)


def _filled(pattern: tuple[str, ...], key: str) -> TaggedSentence:
    rng, words, tags, text = rng_of("pos", key), [], [], ""
    for slot in pattern:
        if slot == ",":
            text += ","
            continue
        word = rng.choice([word for word in slots()[slot] if word not in words])
        words.append(word)
        tags.append(TAGS[slot])
        text += " " * bool(text) + word
    words[0] = words[0][0].upper() + words[0][1:]
    text = text[0].upper() + text[1:] + "."
    return TaggedSentence(text, tuple(words), tuple(tags), ("_",) * len(tags))


def _rows(name: str) -> list[list[str]]:
    text = (files("tv_lens.tasks") / "data" / "pos" / f"{name}.tsv").read_text(encoding="utf-8")
    return [line.split("\t") for line in text.splitlines() if line and not line.startswith("#")]
