"""The unedited run that rows inherit from; prompts that begin alike are prefilled once and branch.

Many queries after one context share all but their last tokens. The context then runs once, alone, and the rest of each
prompt continues from its keys and values, which gives the same values as a run of each whole prompt. Whether a model
can be continued in this way is tried once per model, on a few tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache

from tv_lens.batch import TokenBatch
from tv_lens.model.hooked_model import HookedModel
from tv_lens.model.length_tables import length_class
from tv_lens.model.stepping import Recording, additive_mask, disagreement, future, shown, trial_batch

WORTH_BRANCHING = 16  # tokens in common, below which the additional pass costs as much as it saves


@dataclass(frozen=True, eq=False)
class BaseRun:
    """What rows inherit from the unedited run of some prompts, per layer.

    Attributes:
        length: the columns of the batch: the length of its longest prompt.
        logits: after each prompt's last token, of the columns that were asked for.
        lengths: of each prompt; empty where all are as long as the batch is wide.
    """

    length: int
    keys: list[Float[Tensor, "prompt kv_head pos d_head"]]
    values: list[Float[Tensor, "prompt kv_head pos d_head"]]
    stream: list[Float[Tensor, "prompt pos d_model"]]  # what enters each block
    masks: list[Tensor | None]  # the mask that each block was given: additive, boolean, or none
    branched_at: int = 0  # how many tokens were run once for all prompts
    logits: Float[Tensor, "prompt columns"] | None = None
    lengths: tuple[int, ...] = ()

    @property
    def last(self) -> tuple[int, ...]:
        """The column of each prompt's last token."""
        return tuple(length - 1 for length in self.lengths) or (self.length - 1,) * len(self.stream[0])

    def of(self, prompts: Sequence[int]) -> BaseRun:
        """The run of some of its prompts."""
        one = slice(prompts[0], prompts[0] + 1)  # a view
        some = one if len(prompts) == 1 else torch.tensor(list(prompts), dtype=torch.long, device="cpu")
        return BaseRun(
            self.length,
            [k[some] for k in self.keys],
            [v[some] for v in self.values],
            [x[some] for x in self.stream],
            _of_prompts(self.masks, some),
            lengths=tuple(self.lengths[prompt] for prompt in prompts) if self.lengths else (),
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


def base_run(
    model: HookedModel, batch: TokenBatch, columns: Int[Tensor, "prompt k"] | None = None, shared: int | None = None
) -> BaseRun:
    """The unedited run, keeping keys, values and the stream into every block.

    Args:
        model: the model that runs.
        batch: right-padded prompts, whose lengths differ only where one table of positions serves them all.
        columns: the only tokens whose logits are wanted; all if None.
        shared: how many first tokens run once for all prompts, if that is known already (`branches_at`).
    """
    shared = branches_at(model, batch) if shared is None else shared
    run = _branched(model, batch, shared, columns) if shared else _whole(model, batch, columns)
    return replace(run, lengths=tuple(batch.lengths.tolist())) if batch.is_padded else run


def branches_at(model: HookedModel, batch: TokenBatch) -> int:
    """How many first tokens run once for all prompts; 0 where each prompt runs whole."""
    if len(batch) == 1:
        return 0
    lengths = batch.lengths.tolist()
    same = (batch.ids == batch.ids[:1]).all(dim=0)
    shared = min(int(same.int().cumprod(0).sum()), min(lengths) - 1)
    if shared < WORTH_BRANCHING or not prefix_sharing_is_exact(model):
        return 0
    return shared if len({length_class(model.tl, length) for length in {shared, *lengths}}) == 1 else 0


def together(ids: Sequence[Sequence[int]], prompts: Sequence[int], size: int) -> Iterator[list[int]]:
    """Prompts in groups of at most `size`; those that begin alike are in groups of their own.

    Args:
        ids: the tokens of every prompt.
        prompts: the prompts to group, by number.
        size: how many one group may have.
    """

    group: list[int] = []
    branching = False
    for prompt in sorted(prompts, key=lambda prompt: (list(ids[prompt]), prompt)):
        begins = ids[prompt][:WORTH_BRANCHING]
        alike = bool(group) and len(begins) == WORTH_BRANCHING and ids[group[-1]][:WORTH_BRANCHING] == begins
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

    keys: list[Tensor]
    values: list[Tensor]
    stream: list[Tensor]
    masks: list[Tensor | None]
    logits: Float[Tensor, "prompt columns"]


def _whole(model: HookedModel, batch: TokenBatch, columns: Int[Tensor, "prompt k"] | None = None) -> BaseRun:
    part = _recorded(model, batch, DynamicCache(), columns)
    return BaseRun(batch.width, part.keys, part.values, part.stream, part.masks, logits=part.logits)


def _recorded(
    model: HookedModel,
    batch: TokenBatch,
    cache: DynamicCache,
    columns: Int[Tensor, "prompt k"] | None,
    **arguments: Any,
) -> _Part:
    """A run of these tokens after what the cache holds."""
    record = Recording()
    logits, _ = model.forward(
        batch,
        logits_at=batch.last[:, None],
        logit_columns=None if columns is None else columns[:, None],
        block_call=record,
        past_key_values=cache,
        use_cache=True,
        who="rows: base run",
        **arguments,
    )
    keys: list[Any] = [layer.keys for layer in cache.layers]
    values: list[Any] = [layer.values for layer in cache.layers]
    return _Part(keys, values, record.streams, [given.get("attention_mask") for given in record.given], logits[:, 0])


def _branched(
    model: HookedModel, batch: TokenBatch, shared: int, columns: Int[Tensor, "prompt k"] | None = None
) -> BaseRun:
    """The first tokens once, the rest of every prompt from there on."""
    ids, n, width = batch.ids, len(batch), batch.width
    first = TokenBatch(ids[:1, :shared], batch.mask[:1, :shared])
    no_logits = torch.zeros((1, 1), dtype=torch.long, device="cpu") if model.registry.can_narrow else None
    prefix, cache = _recorded(model, first, DynamicCache(), no_logits), DynamicCache()
    for layer, (keys, values) in enumerate(zip(prefix.keys, prefix.values)):
        cache.update(keys.expand(n, -1, -1, -1), values.expand(n, -1, -1, -1), layer)
    rest = TokenBatch(ids[:, shared:], batch.mask[:, shared:])
    positions = torch.arange(shared, width, device=ids.device)[None]
    suffix = _recorded(model, rest, cache, columns, position_ids=positions)
    return BaseRun(
        width,
        suffix.keys,
        suffix.values,
        [torch.cat([one.expand(n, -1, -1), two], dim=1) for one, two in zip(prefix.stream, suffix.stream)],
        [_joined(one, two) for one, two in zip(prefix.masks, suffix.masks)],
        shared,
        suffix.logits,
    )


def _of_prompts(masks: Sequence[Tensor | None], prompts: slice | Int[Tensor, "some"]) -> list[Tensor | None]:
    """The masks of some prompts; layers of one kind go on sharing theirs."""
    chosen = {id(mask): mask if mask is None or len(mask) == 1 else mask[prompts] for mask in masks}
    return [chosen[id(mask)] for mask in masks]


def _joined(one: Tensor | None, two: Tensor | None) -> Tensor | None:
    """The mask of the whole prompt from those of its two parts: the first sees nothing of the second."""
    if one is None and two is None:
        return None
    if one is None:  # a model that hides the future by itself in a run from the beginning
        length = two.shape[-1] - two.shape[-2]
        hidden = future(length, two.device)[None, None]
        one = ~hidden if two.dtype == torch.bool else additive_mask(hidden, two.dtype)
    blocked = False if two.dtype == torch.bool else torch.finfo(two.dtype).min
    above = torch.full((*one.shape[:-1], two.shape[-1]), blocked, dtype=two.dtype, device=two.device)
    above[..., : one.shape[-1]] = one
    above = above.expand(len(two), -1, -1, -1) if len(above) == 1 else above
    return torch.cat([above, two], dim=-2)
