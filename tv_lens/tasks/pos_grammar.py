"""Sentences of a grammar: the part of speech of every word is known, and none has a typical place in the sentence.

A pattern is a row of slots; each slot is filled with a word of its list. How many sentences each pattern makes is
chosen so that the first noun stands at the first word as often as the first verb, at the second as often, and so on for
all six parts of speech: the place of the answer does not reveal the task (tests/tasks/test_pos_grammar.py counts it).
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from tv_lens.tasks.conllu_files import TaggedSentence
from tv_lens.tasks.drawing import rng_of

# The universal tag of the words of each slot.
TAGS = {
    "person": "NOUN", "thing": "NOUN", "place": "NOUN", "adjective": "ADJ", "mood": "ADJ", "acted": "VERB",
    "handled": "VERB", "order": "VERB", "seemed": "VERB", "adverb": "ADV", "around": "ADP", "towards": "ADP",
    "subject": "PRON", "object": "PRON", "the": "DET", "this": "DET",
}  # fmt: skip


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
def grammar_sentences() -> tuple[TaggedSentence, ...]:
    """The sentences, the same in every process, no two alike."""
    sentences: dict[str, TaggedSentence] = {}
    for number, (count, pattern) in enumerate(patterns()):
        made = tried = 0
        while made < count:
            sentence = _filled(pattern, f"{number}|{tried}")
            tried += 1
            if sentence.text not in sentences:
                sentences[sentence.text] = sentence
                made += 1
    return tuple(sentences.values())


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
