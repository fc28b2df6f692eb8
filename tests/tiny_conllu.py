"""A few tagged sentences as the text of a CoNLL-U file."""

from __future__ import annotations

UPOS = {
    "The": "DET",
    "old": "ADJ",
    "man": "NOUN",
    "he": "PRON",
    "slept": "VERB",
    "quietly": "ADV",
    "in": "ADP",
    ".": "PUNCT",
}


def conllu(*sentences: str) -> str:
    def row(i, word):
        return f"{i}\t{word}\t_\t{UPOS.get(word, 'X')}\t_\t_\t_\t_\t_\t_"

    return "".join("\n".join(row(i, word) for i, word in enumerate(one.split(), 1)) + "\n\n" for one in sentences)


WHOLE = [f"The old man he slept quietly in {'x' * i} ." for i in range(1, 9)]
