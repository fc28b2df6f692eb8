"""What rows take of the memory budget: the base run that is held while they walk, and the walk itself."""

from __future__ import annotations

from collections.abc import Sequence

from tv_lens.model.capture import bytes_per_prompt, prompts_per_batch
from tv_lens.model.hooked_model import HookedModel

TOKENS_PER_WALK = 768  # rows side by side also compute scores of each other's masked keys: beyond this that costs more


def needed(model: HookedModel, width: int, starts: Sequence[int]) -> int:
    """The smallest budget that holds a prompt's base run, and beside it the pass that makes it or any one of its rows.

    Args:
        model: the model that runs.
        width: the prompt's tokens.
        starts: the first position that each of its rows edits.
    """
    beside = [bytes_per_prompt(model.shape, width, 1, model.dtype.itemsize)]
    if width - 1 in starts:
        beside.append(per_row(model, 1, width + TOKENS_PER_WALK))
    if min(starts) < width - 1:
        beside.append(per_row(model, width - min(starts), width, own_prefix=True))
    return held(model, width) + max(beside)


def held(model: HookedModel, width: int) -> int:
    """The bytes of one prompt's base run, which are held while its rows walk."""
    shape = model.shape
    return model.n_layers * width * (2 * shape.n_kv_heads * shape.d_head + shape.d_model) * model.dtype.itemsize


def rows_at_once(
    model: HookedModel, n_prompts: int, n_tokens: int, seen: int, budget: int, *, own_prefix: bool = False
) -> int:
    """How many rows of `n_tokens` tokens, each attending to `seen` keys, a budget holds."""
    what = f"{n_tokens} tokens in each of {n_prompts} prompts"
    return prompts_per_batch(budget, n_prompts * per_row(model, n_tokens, seen, own_prefix=own_prefix), what)


def per_row(model: HookedModel, n_tokens: int, seen: int, *, own_prefix: bool = False) -> int:
    """The bytes of one row of a walk: its pass, its scores, and where the keys and values before it are its own.

    Those are gathered, joined with the row's, and repeated for the heads that share them.
    """
    shape, itemsize = model.shape, model.dtype.itemsize
    prefix = 2 * shape.d_head * (2 * shape.n_kv_heads + shape.n_heads) * seen * itemsize if own_prefix else 0
    return bytes_per_prompt(shape, n_tokens, 1, itemsize) + 12 * shape.n_heads * n_tokens * seen + prefix
