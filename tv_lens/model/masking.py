"""Tokens that later ones may not attend to: a block's own mask with more hidden.

Each block is run with the mask that the model gave it, in which more is blocked. Whether a model honours that is tried
once per model: a change of a hidden token must change nothing for the tokens that may not see it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool
from torch import Tensor

from tv_lens.batch import TokenBatch
from tv_lens.model.hooked_model import HookedModel
from tv_lens.model.rerouting import BlockCall

_verdicts: WeakKeyDictionary[HookedModel, bool] = WeakKeyDictionary()


def hiding(blocked: Bool[Tensor, "batch query key"]) -> BlockCall:
    """Runs every block with these keys hidden from these queries, beside what its own mask hides."""
    return _Hiding(blocked)


@dataclass(frozen=True, eq=False)
class _Hiding:
    blocked: Bool[Tensor, "batch query key"]

    def __call__(self, layer: int, own: Callable[..., Any], x: Tensor, arguments: dict[str, Any]) -> Any:
        blocked = self.blocked[:, None].to(x.device)
        mask = arguments.get("attention_mask")
        if mask is None:  # the block would mask the future by itself, but perhaps not once it is given a mask
            blocked = blocked | torch.ones_like(blocked[:1]).triu(1)
            mask = torch.zeros(blocked.shape, dtype=x.dtype, device=x.device)
        mask = mask & ~blocked if mask.dtype == torch.bool else mask.masked_fill(blocked, torch.finfo(mask.dtype).min)
        return own(x, **{**arguments, "attention_mask": mask})


def supports_masking(model: HookedModel) -> bool:
    """Whether the model's attention honours `hiding`; tried on prompts that differ only in hidden tokens."""
    if model not in _verdicts:
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(3, model.shape.d_vocab, (1, 7), generator=generator, device="cpu").repeat(3, 1)
        ids[1:, 2:4] = (ids[1:, 2:4] + 1) % model.shape.d_vocab
        blocked = torch.zeros(3, 7, 7, dtype=torch.bool, device="cpu")
        blocked[:2, 4:, 2:4] = True
        batch = TokenBatch(ids, torch.ones_like(ids, dtype=torch.bool)).to(model.device)
        call = hiding(blocked)
        logits, _ = model.forward(batch, logits_at=batch.last[:, None], block_call=call, who="hiding: a trial")
        same, other = ((logits[0] - logits[i]).abs().max() for i in (1, 2))
        _verdicts[model] = bool(same <= 1e-3 * other)
    return _verdicts[model]
