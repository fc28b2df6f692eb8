"""Logits of any number of prompts, in batches that fit a memory budget."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from tv_lens.batch import TokenBatch
from tv_lens.errors import NonFiniteActivation
from tv_lens.intervention import Intervention
from tv_lens.model.capture import bytes_per_prompt, prompts_per_batch, too_small
from tv_lens.model.hooked_bridge import HookedBridge
from tv_lens.model.passes import in_batches, needs_whole_batch, prompts_at_once


def logits_of(
    model: HookedBridge,
    batch: TokenBatch,
    edits: Sequence[Intervention],
    last: bool,
    allow_nonfinite: bool,
    budget: int,
) -> Float[Tensor, "batch d_vocab"] | Float[Tensor, "batch pos d_vocab"]:
    """The logits after each prompt's last token, or after every token; see `HookedModel.run`."""
    n, width = len(batch), batch.width
    size, together = batch_size(model, n, width, 1 if last else width, [*edits, *model.registry.edits_around()], budget)
    work = partial(_part, model, batch, edits, last, allow_nonfinite)
    out: Tensor | None = None
    for rows, part in in_batches(model, n, size, width, work, who="model.run", together=together):
        if len(part) == n:
            return part  # logits are large: a single part is not copied, and several are never there twice
        out = part.new_empty(n, *part.shape[1:]) if out is None else out
        out[rows] = part
    return cast(Tensor, out)


def batch_size(
    model: HookedBridge, n: int, width: int, n_logits: int, edits: Sequence[Intervention], budget: int, kept: int = 0
) -> tuple[int, str | None]:
    """How many of `n` prompts to run at once, and the label of an edit that needs all of them in one batch.

    Args:
        model: the model that runs.
        n: how many prompts there are.
        width: the longest one's tokens.
        n_logits: how many positions of each prompt need logits.
        edits: all that act on the pass.
        budget: bytes for one batch.
        kept: bytes of each prompt that stay beside its pass.

    Raises:
        BudgetTooSmall: the budget does not hold one prompt, or not all that must stay together.
    """
    per_prompt = bytes_per_prompt(model.shape, width, n_logits, model.dtype.itemsize, kept)
    fitting = min(n, prompts_per_batch(budget, per_prompt, f"{width} tokens"))
    together = needs_whole_batch(edits, n)
    if together is not None and fitting < n:
        raise too_small(together, budget, n * per_prompt)
    # an edit may hold a value for each prompt of the batch
    return fitting if edits else min(fitting, prompts_at_once(model, width)), together


def _part(
    model: HookedBridge,
    batch: TokenBatch,
    edits: Sequence[Intervention],
    last: bool,
    allow_nonfinite: bool,
    rows: slice,
) -> Tensor:
    """The logits of some rows of a batch, which keeps its width."""
    part = batch.rows_at(rows)
    out, _ = model.forward(part, edits, logits_at=part.last[:, None] if last else None, who="model.run")
    logits = cast(Tensor, out)
    if not allow_nonfinite:
        refuse_nonfinite_logits(logits, model, rows.start, "model.run")
    return logits[:, 0] if last else logits


def refuse_nonfinite_logits(logits: Float[Tensor, "batch *axes"], model: HookedBridge, first: int, who: str) -> None:
    """Raises `NonFiniteActivation` if a logit is NaN or plus infinity; `first` is the number of its first prompt."""
    usable = logits < torch.inf  # minus infinity is a token that is never predicted
    if bool(usable.all()):
        return
    prompt = int((~usable).flatten(1).any(1).nonzero()[0])
    raise NonFiniteActivation(
        "The model's logits are NaN or infinite.",
        got=f"first for prompt {first + prompt}" + ("" if who == "model.run" else f", in {who}"),
        do=f"an activation leaves the range of {str(model.dtype).removeprefix('torch.')}: load the model in "
        "float32 or bfloat16, look at what is attached to it, or read them: model.run(..., allow_nonfinite=True).",
    )
