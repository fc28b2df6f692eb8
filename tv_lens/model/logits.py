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
from tv_lens.model.capture import batch_size, bytes_per_prompt
from tv_lens.model.hooked_bridge import HookedBridge
from tv_lens.model.passes import in_batches


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
    per_prompt = bytes_per_prompt(model.shape, width, 1 if last else width, model.dtype.itemsize)
    around = [*edits, *model.registry.edits_around()]
    size, together = batch_size(model, n, width, per_prompt, around, budget)
    work = partial(_part, model, batch, edits, last, allow_nonfinite)
    out: Tensor | None = None
    for rows, part in in_batches(model, n, size, width, work, who="model.run", together=together):
        if len(part) == n:
            return part  # logits are large: a single part is not copied, and several are never there twice
        out = part.new_empty(n, *part.shape[1:]) if out is None else out
        out[rows] = part
    return cast(Tensor, out)


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
