"""Part-of-speech tasks: a sentence -> its first noun, adjective, verb, adverb, preposition or pronoun."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from tv_lens.errors import EmptySelection, InvalidArgument, unknown
from tv_lens.tasks.conllu_files import TaggedSentence, is_conllu, read_conllu, treebank_sample
from tv_lens.tasks.definition import Task
from tv_lens.tasks.drawing import rng_of
from tv_lens.tasks.pos_grammar import grammar_blocks, grammar_sentences
from tv_lens.tasks.templates import IO, Template

CLASSES = ("noun", "adjective", "verb", "adverb", "preposition", "pronoun")
# Treebank tags are matched by their beginning; IN includes subordinators ("because"), which ADP does not, and VB
# includes auxiliaries.
TAGS = {
    "upos": {"noun": ("NOUN", "PROPN"), "adjective": ("ADJ",), "verb": ("VERB",), "adverb": ("ADV",),
             "preposition": ("ADP",), "pronoun": ("PRON",)},
    "xpos": {"noun": ("NN",), "adjective": ("JJ",), "verb": ("VB",), "adverb": ("RB",), "preposition": ("IN",),
             "pronoun": ("PRP",)},
}  # fmt: skip
WORDS = (5, 20)  # the fewest and the most words of a sentence from a file
# A word with the marks inside it: "well-known", "U.S", "n't"; commas, quotes and full stops are not part of it.
_WORD = re.compile(r"\w+(?:['’.\-]\w+)*")


@dataclass(frozen=True)
class RandomWord:
    """The Null rule of sentences: a random word, which may be the answer of one of the tasks."""

    description: str = "a random word of the sentence"
    instruction: str = "Find a random word in the sentence.\n\n"

    def __call__(self, source: str, seed: int) -> str:
        return rng_of("null", seed, source).choice(_WORD.findall(source) or source.split())


def pos_family(
    source: str | os.PathLike[str] | None = None,
    *,
    words: tuple[int, int] = WORDS,
    tags: str | None = None,
    template: Template = IO,
    seed: int = 0,
) -> tuple[Task, ...]:
    """The six tasks over the sentences that have all six parts of speech.

    Args:
        source: a CoNLL-U file, plain or gzipped; "ptb" for NLTK's Penn Treebank sample; None for the sentences of the
            library's own grammar, in which neither the place of an answer nor the sentence's length reveals its part
            of speech.
        words: the fewest and the most words of a sentence from a file, punctuation included.
        tags: "upos" or "xpos" (Penn tags); those that the source has if None.
        template: the text around sentences and words.
        seed: how the sentences are split.

    Raises:
        EmptySelection: too few sentences have all six; the message says how many have each.

    Source:
        Han et al. 2025 (arXiv 2412.12276), section 4: sentences with all six tags; Null is a random word.
    """
    sentences, kind = _sentences(source, words, tags)
    usable = {one.text: one for one in sentences if all(_first(one, kind, name) for name in CLASSES)}
    if len(usable) < 5:
        having = {name: sum(_first(one, kind, name) is not None for one in sentences) for name in CLASSES}
        counts = ", ".join(f"{n} {name}" for name, n in having.items())
        raise EmptySelection(
            "Too few sentences have all six parts of speech.",
            got=f"{len(usable)} of {len(sentences)} of {words[0]} to {words[1]} words; with one: {counts}",
            allowed="5 or more",
            do=f"raise words=, or choose other tags (now {kind}: upos or xpos).",
        )
    return tuple(_task(name, name, list(usable.values()), kind, source, template, seed) for name in CLASSES)


def pos_task(
    name: str, word_class: str, source: str | os.PathLike[str] | None = None, *, template: Template = IO, seed: int = 0
) -> Task:
    """One of the six tasks, over all sentences of a source that have its part of speech.

    Args:
        name: what results call it.
        word_class: "noun", "adjective", "verb", "adverb", "preposition" or "pronoun".
        source: as in `pos_family`.
        template: the text around sentences and words.
        seed: how the sentences are split.

    Raises:
        UnknownName: there is no such part of speech.
        EmptySelection: no sentence has it.
    """
    if word_class not in CLASSES:
        raise unknown("part of speech", word_class, CLASSES)
    sentences, kind = _sentences(source, WORDS, None)
    usable = {one.text: one for one in sentences if _first(one, kind, word_class)}
    if not usable:
        raise EmptySelection(
            f"No sentence has a word of the class {word_class!r}.",
            got=f"{len(sentences)} sentences",
            allowed=f"{kind} tags {', '.join(TAGS[kind][word_class])}",
        )
    return _task(name, word_class, list(usable.values()), kind, source, template, seed)


def _sentences(
    source: str | os.PathLike[str] | None, words: tuple[int, int], tags: str | None
) -> tuple[list[TaggedSentence], str]:
    """The sentences of a source within the range of lengths, and the tags to look at."""
    if tags is not None and tags not in TAGS:
        raise unknown("set of tags", tags, TAGS)
    least, most = words
    if not 1 <= least <= most:
        raise InvalidArgument(
            "A range of lengths has its smaller number first.", got=f"words={words}", allowed="(5, 20)"
        )
    if source is None:
        if tags == "xpos":
            raise InvalidArgument("The library's own sentences have universal tags.", got="tags='xpos'", allowed="upos")
        return list(grammar_sentences()), "upos"
    if source == "ptb":
        if tags == "upos":
            raise InvalidArgument("The Penn Treebank has its own tags.", got="tags='upos'", allowed="xpos")
        sentences, kind = treebank_sample(), "xpos"
    elif is_conllu(source):
        sentences = read_conllu(source)
        universal = any(tag != "_" for one in sentences for tag in one.upos)
        kind = tags or ("upos" if universal else "xpos")
    else:
        raise InvalidArgument(
            "Sentences with parts of speech come from CoNLL-U files.",
            got=repr(str(source)),
            allowed="a .conllu or .conllu.gz file, 'ptb', or None",
        )
    return [one for one in sentences if least <= len(one.words) <= most], kind


def _first(sentence: TaggedSentence, kind: str, word_class: str) -> str | None:
    """The first word of the class; None if the sentence has none."""
    wanted = TAGS[kind][word_class]
    for word, tag in zip(sentence.words, getattr(sentence, kind)):
        if tag in wanted or (kind == "xpos" and tag.startswith(wanted)):
            return word
    return None


def _task(
    name: str,
    word_class: str,
    sentences: Sequence[TaggedSentence],
    kind: str,
    source: str | os.PathLike[str] | None,
    template: Template,
    seed: int,
) -> Task:
    pairs = [(one.text, cast(str, _first(one, kind, word_class))) for one in sentences]
    origin = "tv_lens" if source is None else "Penn Treebank sample (NLTK)" if source == "ptb" else Path(source).name
    instruction = f"Find the first {word_class} in the sentence.\n\n"
    return Task(
        name,
        pairs,
        template=template,
        description=f"sentence -> its first {word_class}",
        source=origin,
        seed=seed,
        instruction=instruction,
        null_rule=RandomWord(),
        twins=None if source is not None else [[one.text for one in block] for block in grammar_blocks()],
    )
