"""The unedited run that rows inherit from; prompts that begin alike are prefilled once and branch.

Many queries after one context share all but their last tokens. The context then runs once, alone, and the rest of each
prompt continues from its keys and values, which gives the same values as a run of each whole prompt. Whether a model
can be continued in this way is tried once per model, on a few tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache

from tv_lens.batch import TokenBatch
from tv_lens.model.hooked_model import HookedModel
from tv_lens.model.length_tables import length_class
from tv_lens.model.stepping import Recording, additive_mask, disagreement, future, lowest, shown, trial_batch

WORTH_BRANCHING = 16  # tokens in common, below which the additional pass costs as much as it saves


@dataclass(frozen=True, eq=False)
class BaseRun:
    """What rows inherit from the unedited run of prompts of one length, per layer."""

    length: int
    keys: list[Float[Tensor, "prompt kv_head pos d_head"]]
    values: list[Float[Tensor, "prompt kv_head pos d_head"]]
    stream: list[Float[Tensor, "prompt pos d_model"]]  # what enters each block
    masks: list[Tensor | None]  # the mask that each block was given: additive, boolean, or none
    branched_at: int = 0  # how many tokens were run once for all prompts

    def of(self, prompt: int) -> BaseRun:
        """The run of one of its prompts."""
        one = slice(prompt, prompt + 1)
        return BaseRun(
            self.length,
            [k[one] for k in self.keys],
            [v[one] for v in self.values],
            [x[one] for x in self.stream],
            [m if m is None or len(m) == 1 else m[one] for m in self.masks],
        )

    def tensors(self) -> dict[str, Tensor]:
        """All that it holds, by name, with each mask as the keys that it shows: two ways of running give the same."""
        by_name = {}
        for layer in range(len(self.stream)):
            by_name[f"keys[{layer}]"], by_name[f"values[{layer}]"] = self.keys[layer], self.values[layer]
            by_name[f"resid_pre[{layer}]"] = self.stream[layer]
            if (mask := self.masks[layer]) is not None:
                by_name[f"mask[{layer}]"] = shown(mask).float()
        return by_name


def base_run(model: HookedModel, batch: TokenBatch) -> BaseRun:
    """The unedited run, keeping keys, values and the stream into every block."""
    shared = common_start(batch.ids)
    if len(batch) > 1 and shared >= WORTH_BRANCHING and prefix_sharing_is_exact(model):
        shared = min(shared, batch.width - 1)
        if length_class(model.tl, shared) == length_class(model.tl, batch.width):
            return _branched(model, batch, shared)
    return _whole(model, batch)


def common_start(ids: Int[Tensor, "batch pos"]) -> int:
    """How many first tokens all rows have in common."""
    same = (ids == ids[:1]).all(dim=0)
    return int(same.int().cumprod(0).sum())


def together(ids: Sequence[Sequence[int]], prompts: Sequence[int], size: int) -> Iterator[list[int]]:
    """Prompts of one length in groups of at most `size`; those that begin alike are in groups of their own.

    Args:
        ids: the tokens of every prompt.
        prompts: the prompts to group, by number.
        size: how many one group may have.
    """

    def shared(one: int, other: int) -> int:
        return next((i for i, (a, b) in enumerate(zip(ids[one], ids[other])) if a != b), len(ids[one]))

    group: list[int] = []
    branching = False
    for prompt in sorted(prompts, key=lambda prompt: (list(ids[prompt]), prompt)):
        alike = bool(group) and shared(group[-1], prompt) >= WORTH_BRANCHING
        if len(group) == size or (branching and not alike):
            yield group
            group, branching = [], False
        elif alike and not branching and len(group) > 1:  # the last of a mixed group begins one of its own
            yield group[:-1]
            group = group[-1:]
        branching = bool(group) and alike
        group.append(prompt)
    if group:
        yield group


def prefix_sharing_is_exact(model: HookedModel) -> bool:
    """Whether a run that continues a prefix computes what a whole run computes; tried once for the model as it is."""
    return model.facts.find("prefix sharing is exact", lambda: _disagreement(model)) is None


def _disagreement(model: HookedModel) -> str | None:
    if model.shape.n_ctx < 11:
        return "the context is too short to try a shared prefix in"
    batch = trial_batch(model, 2, 11)
    batch.ids[1, :8] = batch.ids[0, :8]
    try:
        whole = _whole(model, batch).tensors()
    except Exception as error:  # whatever an unknown architecture raises when it is given a cache
        return f"this architecture cannot be given a cache ({type(error).__name__})"
    return disagreement(model, lambda: _branched(model, batch, 8).tensors(), whole)


@dataclass(frozen=True, eq=False)
class _Part:
    """The record of a run of some of a prompt's tokens: the cache grown by them, and what entered each block."""

    cache: DynamicCache
    stream: list[Tensor]
    masks: list[Tensor | None]

    @property
    def keys(self) -> list[Tensor]:
        return [layer.keys for layer in self.cache.layers]

    @property
    def values(self) -> list[Tensor]:
        return [layer.values for layer in self.cache.layers]


def _whole(model: HookedModel, batch: TokenBatch) -> BaseRun:
    part = _recorded(model, batch, DynamicCache())
    return BaseRun(batch.width, part.keys, part.values, part.stream, part.masks)


def _recorded(model: HookedModel, batch: TokenBatch, cache: DynamicCache, **arguments: Any) -> _Part:
    """A run of these tokens after what the cache holds."""
    record = Recording()
    model.forward(
        batch,
        logits_at=batch.last[:, None],
        block_call=record,
        past_key_values=cache,
        use_cache=True,
        who="rows: base run",
        **arguments,
    )
    return _Part(cache, record.streams, [given.get("attention_mask") for given in record.given])


def _branched(model: HookedModel, batch: TokenBatch, shared: int) -> BaseRun:
    """The first tokens once, the rest of every prompt from there on."""
    ids, n, width = batch.ids, len(batch), batch.width
    first = TokenBatch(ids[:1, :shared], batch.mask[:1, :shared])
    prefix, cache = _recorded(model, first, DynamicCache()), DynamicCache()
    for layer, (keys, values) in enumerate(zip(prefix.keys, prefix.values)):
        cache.update(keys.expand(n, -1, -1, -1), values.expand(n, -1, -1, -1), layer)
    rest = TokenBatch(ids[:, shared:], batch.mask[:, shared:])
    positions = torch.arange(shared, width, device=ids.device)[None]
    suffix = _recorded(model, rest, cache, position_ids=positions)
    return BaseRun(
        width,
        suffix.keys,
        suffix.values,
        [torch.cat([one.expand(n, -1, -1), two], dim=1) for one, two in zip(prefix.stream, suffix.stream)],
        [_joined(one, two) for one, two in zip(prefix.masks, suffix.masks)],
        shared,
    )


def _joined(one: Tensor | None, two: Tensor | None) -> Tensor | None:
    """The mask of the whole prompt from those of its two parts: the first sees nothing of the second."""
    if one is None and two is None:
        return None
    if one is None:  # a model that hides the future by itself in a run from the beginning
        length = two.shape[-1] - two.shape[-2]
        hidden = future(length, two.device)[None, None]
        one = ~hidden if two.dtype == torch.bool else additive_mask(hidden, two.dtype)
    blocked = False if two.dtype == torch.bool else lowest(two.dtype)
    above = torch.full((*one.shape[:-1], two.shape[-1]), blocked, dtype=two.dtype, device=two.device)
    above[..., : one.shape[-1]] = one
    above = above.expand(len(two), -1, -1, -1) if len(above) == 1 else above
    return torch.cat([above, two], dim=-2)
