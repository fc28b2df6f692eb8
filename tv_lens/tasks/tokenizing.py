"""What prompts with answers need of a tokenizer: characters of tokens, answers that do not merge; errors otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tv_lens.errors import InvalidArgument, PromptError
from tv_lens.model.text_ids import Ids, text_ids


def tokenizer_of(model_or_tokenizer: Any) -> Any:
    """The tokenizer of a model, or the tokenizer itself; refused if it cannot say which characters a token covers."""
    tokenizer = getattr(model_or_tokenizer, "tokenizer", model_or_tokenizer)
    if tokenizer is None:
        raise PromptError(
            "This model has no tokenizer.",
            got=type(model_or_tokenizer).__name__,
            allowed="a model with its tokenizer, or a Hugging Face tokenizer",
            do="load it with tv.load(model, tokenizer=...)",
        )
    if not callable(tokenizer) or not hasattr(tokenizer, "decode"):
        raise InvalidArgument(
            "Prompts are tokenized by a tokenizer or by a model that has one.",
            got=type(model_or_tokenizer).__name__,
            allowed="a HookedModel, or a Hugging Face tokenizer",
        )
    if not getattr(tokenizer, "is_fast", False):
        raise InvalidArgument(
            "This tokenizer cannot say which characters a token covers.",
            got=type(tokenizer).__name__,
            allowed="a fast Hugging Face tokenizer (tokenizer.is_fast)",
            do="load it with AutoTokenizer.from_pretrained(name, use_fast=True)",
        )
    return tokenizer


def continuations(tokenizer: Any, texts: Sequence[str], ids: Sequence[Ids], answers: Sequence[str]) -> list[Ids]:
    """The tokens that each answer adds to its prompt.

    Raises:
        PromptError: an answer is empty, or the tokenizer merges the end of a prompt with its answer's start.
    """
    for row, answer in enumerate(answers):
        if not answer.strip():
            raise PromptError(
                f"The answer of prompt {row} is empty.",
                got=f"{answer!r} after {_tail(texts[row])!r}",
                allowed="an answer with at least one visible character",
            )
    whole = [one.plain for one in text_ids(tokenizer, [text + answer for text, answer in zip(texts, answers)], "never")]
    for row, (prompt, both) in enumerate(zip(ids, whole)):
        if both[: len(prompt)] != prompt or len(both) == len(prompt):
            raise PromptError(
                f"The answer of prompt {row} merges with the end of the prompt into one token.",
                got=f"prompt ending {_tail(texts[row])!r}, answer {answers[row]!r}",
                allowed="a prompt that keeps its tokens when the answer is appended",
                do="move the space at the prompt's end into the template's answer, as in answer=' {y}'",
            )
    return [both[len(prompt) :] for prompt, both in zip(ids, whole)]


def _tail(text: str, most: int = 40) -> str:
    return text if len(text) <= most else "..." + text[-most:]
