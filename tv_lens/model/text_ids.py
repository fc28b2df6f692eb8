"""Texts to token ids: the one way in which every verb reads a text.

The policy for special tokens: what a tokenizer puts before a text by itself (BOS, a prefix of several tokens) is kept,
what it puts behind a text (EOS) is no part of a prompt, and a text that already begins with what the tokenizer would
put there does not get it twice. So `@-1` is a text's last token, whichever tokenizer it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

from tv_lens.errors import PromptError

Ids = list[int]
Offsets = list[tuple[int, int]]
SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")
TRIED = 1000  # entries of the vocabulary, until one is a plain token


class TextIds(NamedTuple):
    """One text as a model reads it.

    Attributes:
        special: what stands before the text.
        text: the tokens of the text, without what it repeats of `special`.
        plain: the tokens of the text alone, as the tokenizer gives them without special tokens.
        offsets: the characters that each of `text` covers; empty where nobody asked.
    """

    special: Ids
    text: Ids
    plain: Ids
    offsets: Offsets

    @property
    def ids(self) -> Ids:
        """What the model reads."""
        return self.special + self.text


def text_ids(tokenizer: Any, texts: Sequence[str], bos: str = "model", offsets: bool = False) -> list[TextIds]:
    """The token ids of each text.

    Args:
        tokenizer: a tokenizer of transformers; a fast one where offsets are wanted.
        texts: the texts.
        bos: what stands before them: what the tokenizer puts there by itself ("model"), that with BOS ("always"), or
            nothing ("never").
        offsets: whether to say which characters each token covers.

    Raises:
        PromptError: a text is not Unicode, or BOS is asked of a tokenizer that has none.
    """
    for row, text in enumerate(texts):
        _check_unicode(row, text)
    special = _before(tokenizer, bos)
    plain, covered = _plain(tokenizer, texts, offsets)
    encoded = []
    for ids, characters in zip(plain, covered):
        n = _repeated(special, ids)
        encoded.append(TextIds(special, ids[n:], ids, characters[n:]))
    return encoded


def special_ids(tokenizer: Any) -> tuple[Ids, Ids]:
    """What a tokenizer puts before and behind a text by itself.

    Example:
        >>> special_ids(model.tokenizer)  # doctest: +SKIP
        ([], [])
    """
    named = getattr(tokenizer, "all_special_ids", None)
    known = set(named) if named is not None else {getattr(tokenizer, name, None) for name in SPECIAL}
    if not known - {None}:
        return [], []
    some = (tokenizer.decode([token]) for token in range(min(TRIED, getattr(tokenizer, "vocab_size", TRIED))))
    for text in chain(("x", "a", "0"), some):
        plain, whole = _plain(tokenizer, [text])[0][0], list(_input_ids(tokenizer(text)))
        if plain and known.isdisjoint(plain):
            at = next((i for i in range(len(whole)) if whole[i : i + len(plain)] == plain), None)
            if at is not None:
                return whole[:at], whole[at + len(plain) :]
    return [], []


def pad_id(tokenizer: Any) -> int:
    """The id that padding is written with."""
    return next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0)


def _before(tokenizer: Any, bos: str) -> Ids:
    """What stands before every text under a BOS policy."""
    if bos == "never":
        return []
    before, _ = special_ids(tokenizer)
    if bos == "model" or tokenizer.bos_token_id in before:
        return before
    if tokenizer.bos_token_id is None:
        raise PromptError(
            "The template asks for a beginning-of-sequence token and the tokenizer has none.",
            got="bos='always'",
            allowed="'model' or 'never' with this tokenizer",
        )
    return [tokenizer.bos_token_id, *before]


def _repeated(special: Ids, ids: Ids) -> int:
    """How many of a text's first tokens say what stands before it anyway: all of it, its first or its last tokens."""
    for n in range(min(len(special), len(ids)), 0, -1):
        if ids[:n] in (special[:n], special[-n:]):
            return n
    return 0


def _plain(tokenizer: Any, texts: Sequence[str], offsets: bool = False) -> tuple[list[Ids], list[Offsets]]:
    """The token ids of each text without special tokens, and the characters that each token covers."""
    wanted = {"return_offsets_mapping": True} if offsets else {}
    out = tokenizer(
        list(texts),
        add_special_tokens=False,
        return_attention_mask=False,
        padding=False,
        truncation=False,
        verbose=False,
        **wanted,
    )
    rows = [list(row) for row in _input_ids(out)]
    return rows, out["offset_mapping"] if offsets else [[] for _ in rows]


def _input_ids(out: Any) -> Any:
    return out["input_ids"] if hasattr(out, "__getitem__") else out.input_ids


def _check_unicode(row: int, text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise PromptError(
            f"Prompt {row} is not Unicode text: it holds half of a surrogate pair.",
            got=f"{text[error.start]!r} at character {error.start}",
            do="decode the file as UTF-8 or UTF-16 when it is read; text.encode('utf-16', 'surrogatepass')"
            ".decode('utf-16') joins halves that stand side by side.",
        ) from error
