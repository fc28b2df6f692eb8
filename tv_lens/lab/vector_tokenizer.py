"""Vectors as text and as token ids, so that a regressor takes prompts as a language model does.

An input is written "(0.5 -1.25)" and an answer "=0.75"; an episode is a text of these. Numbers are written with as many
digits as float32 needs to keep every bit, and each different vector gets an id when it first occurs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tv_lens.errors import PromptError
from tv_lens.lab.network import VectorTable

_TOKEN = re.compile(r"\(([^()]*)\)|=\s*([^\s()=]+)")


def x_text(x: Sequence[float]) -> str:
    """An input as text.

    Example:
        >>> x_text([0.5, -1.25])
        '(0.5 -1.25)'
    """
    return "(" + " ".join(_digits(value) for value in x) + ")"


def y_text(y: float) -> str:
    """An answer as text, without its "=".

    Example:
        >>> y_text(0.75)
        '0.75'
    """
    return _digits(y)


def _digits(value: float) -> str:
    return str(np.float32(value))


class VectorTokenizer:
    """The tokenizer of a regressor, with the part of the `transformers` interface that this library uses.

    Args:
        table: the table that gives vectors their ids.
    """

    is_fast = True
    bos_token_id = pad_token_id = eos_token_id = None

    def __init__(self, table: VectorTable):
        self._table = table
        self._ids: dict[str, int] = {}
        self._texts: dict[int, str] = {}

    def __call__(self, texts: str | Sequence[str], **options: Any) -> Any:
        """Ids of each text; with `return_offsets_mapping`, the characters that each covers."""
        if isinstance(texts, str):
            return SimpleNamespace(input_ids=self._encoded(texts)[0])
        encoded = [self._encoded(text) for text in texts]
        return {"input_ids": [ids for ids, _ in encoded], "offset_mapping": [offsets for _, offsets in encoded]}

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(self._texts.get(int(token), f"<{int(token)}>") for token in ids)

    def batch_decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        return [self.decode(row) for row in rows]

    def get_vocab(self) -> dict[str, int]:
        """Empty: ids are given to vectors as they occur, and are no property of the model."""
        return {}

    def numbers(self, ids: Sequence[int]) -> Float[Tensor, " n"]:
        """The values of answers, by their ids."""
        rows = torch.tensor(list(ids), dtype=torch.long, device="cpu")
        return self._table.vectors[rows, self._table.answer_at].float().cpu()

    def _encoded(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        matches, end = [], 0
        for match in _TOKEN.finditer(text):
            if text[end : match.start()].strip():
                break
            matches.append(match)
            end = match.end()
        if text[end:].strip():
            raise PromptError(
                "This is not an episode.",
                got=repr(text[end:].strip()[:40]),
                allowed='inputs such as "(0.5 -1.25)" and answers such as "=0.75"',
            )
        return self._numbered(matches), [match.span() for match in matches]

    def _numbered(self, matches: Sequence[re.Match[str]]) -> list[int]:
        texts = [match.group().replace("= ", "=") for match in matches]
        new = dict.fromkeys(text for text in texts if text not in self._ids)
        if new:
            first = self._table.enter(torch.stack([self._vector(text) for text in new]))
            for number, text in enumerate(new, start=first):
                self._ids[text], self._texts[number] = number, text
        return [self._ids[text] for text in texts]

    def _vector(self, text: str) -> Float[Tensor, " width"]:
        is_answer = text.startswith("=")
        parts = [text[1:]] if is_answer else text[1:-1].replace(",", " ").split()
        n_numbers = 1 if is_answer else self._table.dim
        try:
            values = [float(part) for part in parts]
        except ValueError as error:
            raise PromptError("A coordinate is not a number.", got=repr(text)) from error
        if len(values) != n_numbers:
            raise PromptError(
                "An input has another number of coordinates than the network reads.",
                got=f"{len(values)} in {text!r}",
                allowed=str(n_numbers),
            )
        first = self._table.answer_at if is_answer else 0
        vector = torch.zeros(self._table.vectors.shape[1], dtype=torch.float32, device="cpu")
        vector[first : first + n_numbers] = torch.tensor(values, dtype=torch.float32, device="cpu")
        return vector
