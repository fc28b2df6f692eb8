"""The engine "rows": many edited copies of a prompt's last tokens walk through the model's own blocks together.

A causal transformer allows exact savings. An edit at position p changes nothing before p, so a row recomputes only
the tokens from p on and attends to the base run's keys and values for the rest; an edit at layer l changes nothing
below l, so a row joins the walk at its entry layer, the first that it edits; and only the last token's logits are read.

Two layouts, one walk. Rows that edit the last token alone are single tokens: all rows of a prompt stand side by side
as one sequence, each seeing the shared prefix and itself. Longer rows stand in the batch, one row per entry. In both,
the model's own forward pass builds positions, masks and norms; only its blocks are called with fewer rows.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from einops import repeat
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache

from tv_lens.batch import TokenBatch
from tv_lens.model.attachment import Attachment
from tv_lens.model.editing import Edit
from tv_lens.model.hooked_model import HookedModel
from tv_lens.model.stepping import Arguments, BlockSteps, OneBlock, additive_mask, future, returned_by, with_hidden
from tv_lens.rows.base_run import BaseRun, base_run
from tv_lens.site import Site

__all__ = ["BaseRun", "PrefixCache", "Walk", "base_run"]


class PrefixCache(DynamicCache):
    """The base run's keys and values before the rows: seen by every row and never grown.

    Args:
        base: the base run.
        length: how many of its tokens the rows see.
        owners: for rows in the batch, the prompt that each is a copy of; None where the batch is the prompts.
    """

    def __init__(self, base: BaseRun, length: int, owners: Int[Tensor, "row"] | None):
        super().__init__()
        self._owners = owners
        for layer, (keys, values) in enumerate(zip(base.keys, base.values)):
            DynamicCache.update(self, keys[:, :, :length], values[:, :, :length], layer)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        prefix = self.layers[layer_idx]
        keys, values = prefix.keys, prefix.values
        if self._owners is not None:
            rows = self._owners[: len(key_states)].to(keys.device)
            keys, values = keys[rows], values[rows]
        return torch.cat([keys, key_states], dim=-2), torch.cat([values, value_states], dim=-2)


@dataclass(frozen=True, eq=False)
class Walk:
    """Rows on their way through the blocks, sorted by the layer at which they enter.

    Args:
        base: the run they are copies of.
        entry_layers: the layer at which each row enters, ascending.
        axis: 1 where rows are tokens of one sequence, 0 where they are entries of the batch.
        start: the first position that the rows recompute; with axis 1 and prompts of several lengths, of the longest.
        owners: with axis 0, the prompt of each row.
    """

    base: BaseRun
    entry_layers: tuple[int, ...]
    axis: int
    start: int
    owners: Int[Tensor, "row"] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Batch entries and tokens of the walk."""
        prompts, tokens = len(self.base.stream[0]), self.base.length - self.start
        return (prompts, len(self.entry_layers)) if self.axis == 1 else (len(self.entry_layers), tokens)

    def active_rows(self, layer: int) -> int:
        """How many rows have entered by a layer; they come first, since rows are sorted by their entry layer."""
        return bisect_right(self.entry_layers, layer)

    def run(
        self, model: HookedModel, edits: Sequence[Edit], columns: Int[Tensor, "batch n k"] | None, who: str
    ) -> Float[Tensor, "batch n columns"]:
        """The logits after each row's last token."""
        n_batch, n_tokens = self.shape
        device = self.base.stream[0].device
        ids = torch.zeros((n_batch, n_tokens), dtype=torch.long, device=device)
        if self.axis == 1:
            last = self.base.last if self.base.lengths else (self.start,)
            positions = torch.tensor(last, device=device, dtype=torch.long)[:, None].repeat(1, n_tokens)
            at = torch.arange(n_tokens, device="cpu").expand(n_batch, -1)
        else:
            positions = torch.arange(self.start, self.base.length, device=device)[None]
            at = torch.tensor(self.base.last, dtype=torch.long, device="cpu")[self.owners][:, None] - self.start
        steps = _Entering(self, returned_by(model))
        logits, _ = model.forward(
            TokenBatch(ids, torch.ones_like(ids, dtype=torch.bool)),
            edits,
            logits_at=at,
            logit_columns=columns,
            block_call=steps,
            past_key_values=PrefixCache(self.base, self.start, self.owners),
            use_cache=True,
            position_ids=positions,
            attention_mask=self.mask(0, len(self.entry_layers), steps.masks),
            who=who,
        )
        return logits

    def step(
        self, model: HookedModel, layer: int, edits: Sequence[Edit], reads: Sequence[Site], who: str
    ) -> Attachment:
        """One block alone, on rows whose stream is zero: for callers whose edits say what its parts hold."""
        n_batch, n_tokens = self.shape
        stream = self.base.stream[layer].new_zeros(n_batch, n_tokens, self.base.stream[layer].shape[-1])
        ids = torch.zeros((n_batch, n_tokens), dtype=torch.long, device=stream.device)
        positions = torch.arange(self.start, self.base.length, device=stream.device)[None]

        one = torch.zeros((n_batch, 1), dtype=torch.long, device=stream.device)
        _, attachment = model.forward(
            TokenBatch(ids, torch.ones_like(ids, dtype=torch.bool)),
            edits,
            reads,
            logits_at=one,
            stop_after=layer,
            logit_columns=one[:, None] if model.registry.can_narrow else None,
            block_call=OneBlock(stream, layer, returned_by(model), self.mask(layer, n_batch, {})),
            use_cache=True,
            past_key_values=PrefixCache(self.base, self.start, self.owners),
            position_ids=positions,
            attention_mask=self.mask(0, n_batch, {}),
            who=who,
        )
        return attachment

    def rows_entering(self, layer: int, first: int, end: int, device: torch.device) -> Tensor:
        """The base run's stream into a layer, for the rows that enter there: rows `first` to `end` of the walk."""
        stream = self.base.stream[layer].to(device)
        if self.axis == 1:
            own = self._at_last(stream) if self.base.lengths else stream[:, self.start]
            return repeat(own, "prompt d -> prompt row d", row=end - first)
        return stream[self.owners[first:end].to(device), self.start :]

    def _at_last(self, x: Float[Tensor, "prompt pos *axes"]) -> Float[Tensor, "prompt *axes"]:
        """What stands at each prompt's last token, which rows side by side recompute, where lengths differ."""
        last = torch.tensor(self.base.last, dtype=torch.long, device=x.device)
        return x[torch.arange(len(last), device=x.device), last]

    def cut(self, value: Any, n: int) -> Any:
        """An argument of a block for its first n rows: positions and rotations stand along the walk's axis."""
        n_batch, n_tokens = self.shape
        if isinstance(value, (tuple, list)):
            return type(value)(self.cut(part, n) for part in value)
        if not isinstance(value, Tensor) or value.ndim == 0:
            return value
        if self.axis == 0:
            return value[:n] if len(value) == n_batch else value
        axis = 0 if value.ndim == 1 else 1
        return value.narrow(axis, 0, n) if value.shape[axis] == n_tokens else value

    def mask(self, layer: int, n: int, made: dict[int, Tensor]) -> Tensor:
        """What n rows may see: of the base run's tokens what its own last token saw; of the rows, each itself only."""
        seen = self.base.masks[layer]
        if seen is None:
            seen = _causal(self.base.length, self.base.stream[layer])
        if self.axis == 0:
            mask = seen[..., self.start :, : self.base.length]
            return mask if len(mask) == 1 else mask[self.owners[:n].to(mask.device)]
        key = id(self.base.masks[layer])
        if key not in made:
            own = self._seen_by_last(seen) if self.base.lengths else seen
            made[key] = _beside(own, self.start, len(self.entry_layers))
        return made[key][..., :n, : self.start + n]

    def _seen_by_last(self, seen: Tensor) -> Tensor:
        """The same mask where lengths differ: query `start` is each prompt's last token, which does not see itself."""
        rows = self._at_last(seen.expand(len(self.base.last), *seen.shape[1:]).transpose(1, 2))  # prompt head key
        columns = torch.arange(rows.shape[-1], device=seen.device)
        last = torch.tensor(self.base.last, dtype=torch.long, device=seen.device)
        hidden = with_hidden(rows[:, :, None], (columns >= last[:, None])[:, None, None])
        return hidden.expand(-1, -1, self.start + 1, -1)


@dataclass(eq=False)
class _Entering(BlockSteps):
    """Each block runs with the rows that have entered by then; the others wait behind them.

    Args:
        walk: the rows.
        returns: what each block returns.
    """

    walk: Walk
    returns: tuple[int | None, ...]
    masks: dict[int, Tensor] = field(default_factory=dict)  # layers of one kind share a mask

    def enters(self, layer: int, x: Tensor) -> Tensor | None:
        walk, n, before = self.walk, self.walk.active_rows(layer), self.walk.active_rows(layer - 1)
        if n == 0:
            return None
        entering = walk.rows_entering(layer, before, n, x.device)
        return torch.cat([x.narrow(walk.axis, 0, before), entering], walk.axis)

    def arguments(self, layer: int, stream: Tensor, given: Arguments) -> Arguments:
        n = self.walk.active_rows(layer)
        cut = {name: self.walk.cut(value, n) for name, value in given.items()}
        return {**cut, "attention_mask": self.walk.mask(layer, n, self.masks)}

    def leaves(self, layer: int, x: Tensor, y: Tensor | None) -> Tensor:
        if y is None:
            return x
        axis, n = self.walk.axis, self.walk.active_rows(layer)
        return torch.cat([y, x.narrow(axis, n, x.shape[axis] - n)], axis)


def _causal(length: int, like: Tensor) -> Float[Tensor, "1 1 query key"]:
    return additive_mask(future(length, like.device), like.dtype)[None, None]


def _beside(seen: Tensor, start: int, n: int) -> Tensor:
    """The mask of n single-token rows at position `start`, side by side after the prefix."""
    itself = torch.eye(n, dtype=torch.bool, device=seen.device)
    if seen.dtype != torch.bool:
        itself = additive_mask(~itself, seen.dtype)
    prefix = seen[:, :, start : start + 1, :start].expand(-1, -1, n, -1)
    return torch.cat([prefix, itself.expand(len(seen), seen.shape[1], n, n)], dim=-1)
