"""The attention of one layer alone: from queries, keys and values to the heads' outputs, by the model's own block.

The block is run with these queries, keys and values put in place of its own, on a stream of zeros. It is left as soon
as the heads' outputs are there, so its output projection and its MLP do not run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tv_lens.batch import TokenBatch
from tv_lens.errors import SiteNotReached
from tv_lens.intervention import Intervention
from tv_lens.model.editing import Edit
from tv_lens.model.hooked_model import HookedModel
from tv_lens.model.stepping import OneBlock, returned_by
from tv_lens.rows.walk import BaseRun, PrefixCache, Walk
from tv_lens.site import Site


@dataclass(frozen=True, eq=False)
class Heads:
    """What attention gives at the slots.

    Attributes:
        z: the heads' outputs before the output projection.
        attn_out: what attention adds to the stream; None unless it was wanted.
    """

    z: Float[Tensor, "row slot head d_head"]
    attn_out: Float[Tensor, "row slot d_model"] | None


class _Left(Exception):
    """The block was left at a site, with what the site holds."""

    def __init__(self, value: Tensor):
        super().__init__("a block was left before its end")
        self.value = value


@dataclass(frozen=True, eq=False, repr=False)
class _Leaving(Intervention):
    """Nothing after this site is computed."""

    def edit(self, x: Float[Tensor, "batch *axes"]) -> Float[Tensor, "batch *axes"]:
        raise _Left(x)


@dataclass(frozen=True, eq=False, repr=False)
class _Noting(Intervention):
    """The site's value is kept as it passes."""

    values: list[Tensor] = field(default_factory=list)

    def edit(self, x: Float[Tensor, "batch *axes"]) -> Float[Tensor, "batch *axes"]:
        self.values.append(x)
        return x


@dataclass(frozen=True, eq=False, repr=False)
class _Given(Intervention):
    """The site holds a value of its own shape and dtype, which is not looked at: that would make the host wait."""

    value: Float[Tensor, "row *axes"]

    def edit(self, x: Float[Tensor, "row *axes"]) -> Float[Tensor, "row *axes"]:
        return self.value.to(x.dtype)


class _Prefix(PrefixCache):
    """The keys and values before the first token that differs, made once; which prompt each row has changes."""

    def __init__(self, base: BaseRun, length: int):
        super().__init__(base, length, None)

    def of(self, owners: Int[Tensor, "row"]) -> _Prefix:
        self._owners = owners
        return self


def unpadded(ids: Int[Tensor, "row pos"]) -> TokenBatch:
    """A batch of prompts of one length; its mask stays on the host, where looking at it waits for nothing."""
    return TokenBatch(ids, torch.ones(ids.shape, dtype=torch.bool, device="cpu"))


@dataclass(frozen=True, eq=False)
class AttentionAlone:
    """The attention of any layer on rows that are copies of some prompts.

    Args:
        model: the model.
        base: the unedited run of the prompts, whose keys and values stand before the first token that differs; None
            where rows cannot share them, and whole prompts are run.
        start: the first token that rows compute.
        columns: the token of each slot, counted from the prompt's first.
        prompts: where whole prompts are run, the prompts.
        streams: likewise, the stream into each layer; the slots' queries, keys and values are not made from it.
        wants_attn_out: whether what attention adds to the stream is needed beside the heads' outputs.
    """

    model: HookedModel
    base: BaseRun | None
    start: int
    columns: Int[Tensor, "slot"]
    prompts: TokenBatch | None = None
    streams: Mapping[int, Float[Tensor, "prompt pos d_model"]] = field(default_factory=dict)
    wants_attn_out: bool = False

    @cached_property
    def _prefix(self) -> _Prefix | None:
        return None if self.base is None else _Prefix(self.base, self.start)

    @cached_property
    def _returns(self) -> tuple[int | None, ...]:
        return returned_by(self.model)

    def heads(self, layer: int, owners: Int[Tensor, "row"], inputs: Mapping[str, Tensor]) -> Heads:
        """The heads' outputs of a layer.

        Args:
            layer: the layer.
            owners: the prompt of each row.
            inputs: "q", "k" and "v" at the slots, each `row slot head d_head`.
        """
        places = self.columns - self.start
        rows = torch.arange(len(owners), device=places.device)[:, None].expand(-1, len(places))
        edits = [
            Edit(_Given(Site(part, layer), value), rows, places.expand(len(owners), -1))
            for part, value in inputs.items()
        ]
        if not self.model.registry.support(Site("z", layer)).write:  # then the block cannot be left there
            reads = [Site("z", layer), Site("attn_out", layer)]
            z, attn = (self._run(layer, owners, edits, reads)[site] for site in reads)
        elif self.wants_attn_out:
            noted = _Noting(Site("z", layer))
            attn = self._until(Site("attn_out", layer), owners, [*edits, Edit(noted)])
            z = noted.values[0]
        else:
            z, attn = self._until(Site("z", layer), owners, edits), None
        return Heads(z[:, places], attn[:, places] if self.wants_attn_out else None)

    def _until(self, site: Site, owners: Int[Tensor, "row"], edits: Sequence[Edit]) -> Tensor:
        """What the site holds, after which the block is left."""
        try:
            self._run(site.layer, owners, [*edits, Edit(_Leaving(site))])
        except _Left as left:
            return left.value
        raise SiteNotReached("A block ended without passing through a site of its own.", got=str(site))

    def _run(
        self, layer: int, owners: Int[Tensor, "row"], edits: Sequence[Edit], reads: Sequence[Site] = ()
    ) -> dict[Site, Tensor]:
        one = torch.zeros((len(owners), 1), dtype=torch.long, device=owners.device)
        batch, stream, arguments = self._entered(layer, owners)
        _, attachment = self.model.forward(
            batch,
            edits,
            reads,
            logits_at=one,
            stop_after=layer,
            logit_columns=one[:, None] if self.model.registry.can_narrow else None,
            block_call=OneBlock(stream, layer, self._returns, arguments.pop("mask", None)),
            who="circuits",
            **arguments,
        )
        return attachment.values

    def _entered(self, layer: int, owners: Int[Tensor, "row"]) -> tuple[TokenBatch, Tensor, dict[str, Any]]:
        """The tokens, the stream that enters the block, and the pass's other arguments."""
        if self.base is None:
            return unpadded(self.prompts.ids[owners]), self.streams[layer][owners], {}
        walk, n = Walk(self.base, (0,) * len(owners), 0, self.start, owners), len(owners)
        length, d_model = self.base.length - self.start, self.base.stream[layer].shape[-1]
        ids = torch.zeros((n, length), dtype=torch.long, device=owners.device)
        arguments = {
            "mask": walk.mask(layer, n, {}),
            "use_cache": True,
            "past_key_values": self._prefix.of(owners),
            "position_ids": torch.arange(self.start, self.base.length, device=owners.device)[None],
            "attention_mask": walk.mask(0, n, {}),
        }
        stream = self.base.stream[layer].new_zeros(n, length, d_model)
        return unpadded(ids), stream, arguments
