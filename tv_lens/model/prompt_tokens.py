"""Whatever a caller gives as prompts, as one batch of tokens, or refused: texts, ids, or what a tokenizer returned."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Shaped
from torch import Tensor

from tv_lens.batch import TokenBatch
from tv_lens.errors import InvalidArgument, PromptError, ShapeMismatch
from tv_lens.model.text_ids import pad_id, text_ids


@runtime_checkable
class Tokenizable(Protocol):
    """Prompts under one template, which know how they are tokenized; `tv.tasks.Prompts` is such a set."""

    @property
    def template(self) -> Any: ...
    @property
    def texts(self) -> tuple[str, ...]: ...
    def tokenize(self, model_or_tokenizer: Any) -> Any: ...


@runtime_checkable
class Tokenized(Protocol):
    """Prompts that have been tokenized; `Prompts.tokenize` returns such a set."""

    @property
    def tokens(self) -> TokenBatch: ...
    @property
    def prompts(self) -> Any: ...


@runtime_checkable
class Encoded(Protocol):
    """One text as the library `tokenizers` returns it."""

    @property
    def ids(self) -> list[int]: ...
    @property
    def attention_mask(self) -> list[int]: ...


# What `model.tokens` reads. Of iterables: texts, ids, a tokenizer's output; all others are refused there.
Tokens = str | Iterable[Any] | TokenBatch | Tokenizable | Tokenized | Encoded
ALLOWED = (
    "a text, texts, prompts of a task, token ids (one prompt or several), what a tokenizer returns (input_ids with its "
    "attention_mask), TokenBatch"
)
NESTED = (list, tuple, range, Tensor, np.ndarray)


def prompt_tokens(prompts: Any, tokenizer: Any, name: str = "") -> TokenBatch:
    """The tokens of prompts in any form that `model.tokens` reads, on whichever side they are padded.

    Args:
        prompts: see `HookedModel.tokens`.
        tokenizer: the model's own, or None.
        name: the model's, for errors.

    Raises:
        InvalidArgument: they are of no such form.
        PromptError: texts without a tokenizer, or ids that begin or end with the pad token and have no mask.
    """
    if isinstance(prompts, TokenBatch):
        return prompts
    if isinstance(prompts, Tokenizable) and not callable(prompts):
        prompts = prompts.tokenize(having(tokenizer, name))
    if isinstance(prompts, Tokenized) and isinstance(prompts.tokens, TokenBatch):
        return prompts.tokens
    if hasattr(prompts, "clean") and hasattr(prompts, "corrupted"):
        raise _refused(prompts, do="give one side of the pairs: pairs.clean or pairs.corrupted")
    if (output := _output(prompts)) is not None:
        return _masked(*output, tokenizer)
    if isinstance(prompts, str):
        prompts = [prompts]
    if isinstance(prompts, Tensor) or (isinstance(prompts, np.ndarray) and prompts.dtype.kind in "biufc"):
        return _masked(prompts, None, tokenizer)
    return _of_items(prompts, _items(prompts), tokenizer, name)


def _items(prompts: Any) -> list[Any]:
    """What stands in a list, a column of a table or a generator; the latter is read once."""
    if isinstance(prompts, (Sequence, Iterator)) and not isinstance(prompts, (bytes, bytearray, memoryview)):
        return list(prompts)
    if hasattr(prompts, "tolist") and getattr(prompts, "ndim", None) == 1:  # a column of pandas, an array of texts
        return list(prompts.tolist())
    raise _refused(prompts)


def _of_items(prompts: Any, items: list[Any], tokenizer: Any, name: str) -> TokenBatch:
    if not items:
        return TokenBatch.from_lists([])  # which says what is wrong
    if all(isinstance(item, str) for item in items):
        encoded = text_ids(having(tokenizer, name), items)
        return TokenBatch.from_lists([one.ids for one in encoded], pad_id(tokenizer))
    if all(_is_id(item) for item in items):
        return _masked(items, None, tokenizer)
    if isinstance(prompts, tuple) and len(items) == 2 and _is_mask(*items):
        return _masked(items[0], items[1], tokenizer)
    outputs = [_output(item) for item in items]
    if all(output is not None for output in outputs):
        batches = [_masked(output[0], output[1], tokenizer) for output in outputs if output is not None]
        return TokenBatch.from_lists([row for batch in batches for row in batch.rows()])
    if all(isinstance(item, NESTED) for item in items):
        rows = [_row(item) for item in items]
        if all(_is_id(token) for row in rows for token in row):
            return _masked(rows, None, tokenizer)
    kinds = " and ".join(dict.fromkeys(type(item).__name__ for item in items))
    texts = all(hasattr(item, "text") for item in items)
    raise _refused(
        prompts, f"{type(prompts).__name__} of {kinds}", "[prompt.text for prompt in prompts]" if texts else None
    )


def _output(given: Any) -> tuple[Any, Any] | None:
    """Ids and mask of what a tokenizer returned for one text or several; None if it is something else."""
    if isinstance(given, Mapping):
        if "input_ids" not in given:
            keys = ", ".join(repr(key) for key in list(given)[:5])
            raise _refused(given, f"{type(given).__name__} with the keys {keys or '(none)'}")
        return given["input_ids"], given.get("attention_mask")
    if isinstance(given, Encoded):
        return given.ids, given.attention_mask
    return None


def _masked(ids: Any, mask: Any, tokenizer: Any) -> TokenBatch:
    """Ids with the mask that came with them; without one, all of them are real tokens."""
    tensor, given = _rectangle(ids)
    if tensor.ndim != 2:
        raise ShapeMismatch(
            "Token ids are one prompt or several.", got=f"ids {list(tensor.shape)}", allowed="[pos] or [batch, pos]"
        )
    if tensor.dtype != torch.long:
        raise InvalidArgument("Token ids are whole numbers.", got=str(tensor.dtype), allowed="torch.int64")
    if mask is None:
        batch = TokenBatch(tensor, given)
        _refuse_padding(batch, tokenizer)
        return batch
    kept, named = _rectangle(mask)
    if kept.shape != tensor.shape or not torch.equal(named, given):
        raise ShapeMismatch(
            "An attention mask has one entry per token.",
            got=f"ids {list(tensor.shape)}, mask {list(kept.shape)}",
            allowed="two rectangles of one shape",
        )
    if not bool(((kept == 0) | (kept == 1)).all()):
        raise InvalidArgument(
            "An attention mask holds 1 for real tokens and 0 for padding.", got=str(kept.unique().tolist()[:5])
        )
    return TokenBatch(tensor, (kept == 1).to(tensor.device) & given)


def _rectangle(values: Any) -> tuple[Shaped[Tensor, "*shape"], Bool[Tensor, "*shape"]]:
    """Ids or a mask as a tensor, and where it was not filled up; one prompt becomes a batch of one."""
    if isinstance(values, np.ndarray):
        values = torch.from_numpy(values.copy()) if values.dtype.kind in "biufc" else values.tolist()
    if isinstance(values, Tensor):
        tensor = values[None] if values.ndim == 1 else values
        narrow = not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)
        return (tensor.long() if narrow else tensor), torch.ones_like(tensor, dtype=torch.bool)
    if not isinstance(values, NESTED):
        raise _refused(values)
    nested = len(values) > 0 and isinstance(values[0], NESTED)
    rows = [_row(item) for item in values] if nested else [list(values)]
    if not all(_is_id(token) or isinstance(token, bool) for row in rows for token in row):
        raise _refused(values, f"{type(values).__name__} that holds something else than whole numbers")
    filled = TokenBatch.from_lists([list(map(int, row)) for row in rows])
    return filled.ids, filled.mask


def _row(item: Any) -> list[Any]:
    """One prompt's ids as a list, also of a tensor of one row."""
    if not isinstance(item, NESTED):
        raise _refused(item)
    if isinstance(item, (Tensor, np.ndarray)):
        flat = item[0] if item.ndim == 2 and len(item) == 1 else item
        return flat.tolist() if flat.ndim == 1 else [flat]
    return list(item)


def _is_id(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, (bool, np.bool_))


def _is_mask(ids: Any, mask: Any) -> bool:
    """Whether the second of two tensors is the mask of the first."""
    arrays = (Tensor, np.ndarray)
    if not (isinstance(ids, arrays) and isinstance(mask, arrays) and ids.shape == mask.shape):
        return False
    values = mask if isinstance(mask, Tensor) else torch.from_numpy(mask.copy())
    return values.dtype == torch.bool or (values.ndim == 2 and bool(((values == 0) | (values == 1)).all()))


def _refuse_padding(batch: TokenBatch, tokenizer: Any) -> None:
    """Raises `PromptError` for ids without a mask of which some row begins or ends with the pad token."""
    pad = getattr(tokenizer, "pad_token_id", None)
    if pad is None:
        return
    is_pad = (batch.ids == pad) & batch.mask
    begins = is_pad.int().cumprod(1).sum(1)
    if pad == getattr(tokenizer, "bos_token_id", None) and bool((begins == 1).any()) and bool((begins > 0).all()):
        begins = begins - 1  # every row begins with it, and one with it alone: it is BOS there
    ends = is_pad[torch.arange(len(batch), device=batch.ids.device), batch.last]
    rows = torch.nonzero((begins > 0) | ends).flatten().tolist()
    if rows:
        row = rows[0]
        where = "begins" if begins[row] > 0 else "ends"
        raise PromptError(
            f"Row {row} of the token ids {where} with the pad token, and nothing says which tokens are real.",
            got=f"pad token {pad} ({tokenizer.decode([pad])!r}), no attention mask",
            allowed="ids without padding, or with their mask",
            do="give all that the tokenizer returned, tokenizer(texts, padding=True, return_tensors='pt'), or the "
            "texts; where that token is meant, TokenBatch.from_lists(rows).",
        )


def having(tokenizer: Any, name: str) -> Any:
    """The tokenizer of a model, which has one.

    Raises:
        PromptError: it has none.
    """
    if tokenizer is None:
        raise PromptError(
            "This model has no tokenizer.", got=name, do="pass token ids, or tv.load(model, tokenizer=...)."
        )
    return tokenizer


def _refused(given: Any, got: str | None = None, do: str | None = None) -> InvalidArgument:
    return InvalidArgument("Prompts are texts or token ids.", got=got or type(given).__name__, allowed=ALLOWED, do=do)
