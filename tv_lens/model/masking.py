"""Tokens that later ones may not attend to: a block's own mask with more hidden.

Each block is run with the mask that the model gave it, in which more is blocked. Whether a model honours that is tried
once per model: a change of a hidden token must change nothing for the tokens that may not see it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from tv_lens.batch import TokenBatch
from tv_lens.model.hooked_model import HookedModel
from tv_lens.model.stepping import Arguments, BlockSteps, additive_mask, future, trial_ids, with_hidden


@dataclass(frozen=True, eq=False)
class Hiding(BlockSteps):
    """Runs every block with these keys hidden from these queries, beside what its own mask hides."""

    hidden: Bool[Tensor, "batch query key"]

    def arguments(self, layer: int, stream: Tensor, given: Arguments) -> Arguments:
        hidden, mask = self.hidden[:, None].to(stream.device), given.get("attention_mask")
        if mask is None:  # the block would mask the future by itself, but perhaps not once it is given a mask
            mask = additive_mask(hidden | future(hidden.shape[-1], stream.device), stream.dtype)
        return {**given, "attention_mask": with_hidden(mask, hidden)}


def supports_masking(model: HookedModel) -> bool:
    """Whether the model's attention honours `Hiding`; tried on prompts that differ only in hidden tokens."""
    return model.facts.find("masking is honoured", lambda: _is_honoured(model))


def _is_honoured(model: HookedModel) -> bool:
    ids = trial_ids(model, 1, 7).repeat(3, 1)
    ids[1:, 2:4] = (ids[1:, 2:4] + 1) % model.n_ids
    blocked = torch.zeros(3, 7, 7, dtype=torch.bool, device="cpu")
    blocked[:2, 4:, 2:4] = True
    batch = TokenBatch(ids, torch.ones_like(ids, dtype=torch.bool)).to(model.device)
    logits, _ = model.forward(batch, logits_at=batch.last[:, None], block_call=Hiding(blocked), who="masking: a trial")
    same, other = ((logits[0] - logits[i]).abs().max() for i in (1, 2))
    return bool(same <= 1e-3 * other)
