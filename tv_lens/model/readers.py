"""What a reader computes if another residual stream enters it: every edge of a circuit is measured with this.

An edge from a writer into a reader is measured by changing the stream that this one reader sees. That needs, of any
layer, the queries, keys, values and MLP output that follow from a stream X, and the other way round what each head adds
to the stream. Both are computed with the model's own modules (its norm, its projections), and checked once per model
against a plain forward pass. Where they disagree, or an architecture hides its modules, the block itself is run on
sequences of one token, which is slower and right by construction; `Readers.computed_by` says which.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import ref

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from tv_lens.batch import TokenBatch
from tv_lens.errors import SiteAbsent, unknown
from tv_lens.intervention import Zero
from tv_lens.model.editing import Edit
from tv_lens.model.grad_mode import without_gradients
from tv_lens.model.hooked_model import HookedModel
from tv_lens.model.stepping import OneBlock, is_close, returned_by, trial_batch
from tv_lens.site import Site

HELD, RECOMPUTED = "held", "recomputed"
NORMS = (HELD, RECOMPUTED)
PARTS = ("q", "k", "v", "mlp")
SITES = {"q": "q", "k": "k", "v": "v", "mlp": "mlp_out"}  # the component that is each part's value


@dataclass(frozen=True)
class Affine:
    """`x @ weight + bias`: a projection, however the model stores it."""

    weight: Float[Tensor, "d_in *out"]
    bias: Float[Tensor, "*out"] | None

    @classmethod
    def of(cls, module: nn.Module, d_in: int, like: Tensor) -> Affine:
        """The map of a module; if it is neither a Linear nor a Conv1D, computed from its outputs on a basis."""
        if type(module) is nn.Linear and module.weight.device.type != "meta":
            return cls(module.weight.T, module.bias)
        if type(module) is Conv1D and module.weight.device.type != "meta":
            return cls(module.weight, module.bias)
        zero = module(torch.zeros(1, d_in, dtype=like.dtype, device=like.device))[0]
        rows = module(torch.eye(d_in, dtype=like.dtype, device=like.device)) - zero
        return cls(rows, zero if bool(zero.any()) else None)

    def heads(self, n: int) -> Affine:
        """The same map with the output's heads apart: weight `d_in head d_head`."""
        bias = None if self.bias is None else self.bias.unflatten(0, (n, -1))
        return Affine(self.weight.unflatten(1, (n, -1)), bias)


def readers_of(model: HookedModel) -> Readers:
    """The model's readers and writers, made and checked once for the model as it is."""
    return model.facts.find("readers", lambda: Readers(model))


class Readers:
    """How a model's layers read the residual stream, and how they write to it.

    Attributes:
        parallel: attention and MLP of a layer read the same stream.
        computed_by: by part, "modules" (its norm and projection are called) or "blocks" (the whole block is run).
        post_norm: a norm stands between the heads and the stream.

    Example:
        >>> readers = readers_of(model)  # doctest: +SKIP
        >>> readers.value(5, "q", stream).shape  # of a stream `n d_model`  # doctest: +SKIP
        torch.Size([7, 9, 64])
    """

    def __init__(self, model: HookedModel):
        self._model, self._tl, self._shape = ref(model), model.tl, model.shape  # weak: the model's facts keep this
        self._device, self._dtype = model.device, model.dtype
        self.computed_by = dict.fromkeys(PARTS, "modules")
        self.parallel = not model.registry.support(Site("resid_mid", 0)).read
        self.post_norm = any(self._child(layer, "ln1_post") is not None for layer in range(self._shape.n_layers))
        self._check(model)

    # ---- reading ------------------------------------------------------------------------------------------------

    @without_gradients
    def value(self, layer: int, part: str, stream: Float[Tensor, "n d_model"]) -> Float[Tensor, "n *heads d"]:
        """The value of a part of a layer if this stream enters it: that of the part's site, before rotation.

        Args:
            layer: the layer.
            part: "q", "k", "v" (all heads: `n head d_head`) or "mlp" (what it adds to the stream: `n d_model`).
            stream: the stream that the part reads: before the layer, or after attention for a sequential block's MLP.
        """
        if part not in PARTS:
            raise unknown("reader", part, PARTS)
        if self.computed_by[part] == "blocks":
            return self._by_block(layer, part, stream)
        stream = self._own(stream)
        if part == "mlp":
            return self.mlp(layer, stream).to(torch.float32)
        values = self._projection(layer, part)(self.norm(layer, stream))
        return values.unflatten(-1, (self.n_heads(part), -1)).to(torch.float32)

    @without_gradients
    def value_each(
        self, layer: int, part: str, streams: Float[Tensor, "n head d_model"]
    ) -> Float[Tensor, "n head d_head"]:
        """Each head's "q", "k" or "v" if a stream of its own enters every head."""
        if self.computed_by[part] == "blocks":
            n = len(streams)
            flat = self._by_block(layer, part, streams.flatten(0, 1)).unflatten(0, (n, -1))
            return torch.diagonal(flat, dim1=1, dim2=2).transpose(1, 2)
        affine = self.weights(layer, part)
        wide = torch.promote_types(self._dtype, torch.float32)
        normed = self.norm(layer, self._own(streams)).to(wide)
        values = torch.einsum("nhd,dhk->nhk", normed, affine.weight.to(wide))
        return (values if affine.bias is None else values + affine.bias).to(torch.float32)

    def n_heads(self, part: str) -> int:
        return self._shape.n_heads if part == "q" else self._shape.n_kv_heads

    def norm(self, layer: int, stream: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n d_model"]:
        """The stream after the norm before attention; as it is where there is none (OLMo-2)."""
        return self._through(self._child(layer, "ln1"), stream)

    def weights(self, layer: int, part: str) -> Affine:
        """The projection of a part with its heads apart: weight `d_model head d_head`."""
        return Affine.of(self._projection(layer, part), self._shape.d_model, self._like).heads(self.n_heads(part))

    def mlp(self, layer: int, stream: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n d_model"]:
        """What the MLP adds to the stream that it reads, through its norms before and after."""
        before = self._child(layer, "ln2") or (self._child(layer, "ln1") if self.parallel else None)
        out = self._mlp_module(layer)(self._through(before, stream))
        out = out[0] if isinstance(out, tuple) else out
        return self._through(self._child(layer, "ln2_post"), out)

    # ---- writing ------------------------------------------------------------------------------------------------

    @without_gradients
    def head_writes(
        self, layer: int, z: Float[Tensor, "*n head d_head"], attn_out: Float[Tensor, "*n d_model"] | None = None
    ) -> Float[Tensor, "*n head d_model"]:
        """What each head adds to the stream; over heads it sums to `attn_out`.

        The projection's bias is divided evenly among the heads. Where a norm stands after attention, its scale is fixed
        at that of this run, which makes the heads' parts additive: exact for the sum of this run, and a linearisation
        of the norm where one head alone is exchanged.

        Args:
            layer: the layer.
            z: the heads' outputs before the output projection.
            attn_out: what attention added; needed where a norm stands after it.
        """
        affine = Affine.of(self._part(layer, "o"), self._shape.n_heads * self._shape.d_head, self._like)
        writes = self._per_head(z, affine)
        if affine.bias is not None:
            writes = writes + affine.bias.to(torch.float32) / self._shape.n_heads
        if attn_out is None or not self.post_norm:
            return writes
        total = writes.sum(-2)
        scale = torch.where(total == 0, 0.0, attn_out.to(total.device, torch.float32) / total)
        return writes * scale[..., None, :]

    @without_gradients
    def exchanged(
        self,
        layer: int,
        z: Float[Tensor, "*n head d_head"],
        other: Float[Tensor, "*n head d_head"],
        attn_out: Float[Tensor, "*n d_model"],
        other_attn_out: Float[Tensor, "*n d_model"],
        norm: str,
    ) -> Float[Tensor, "*n head d_model"]:
        """By how much attention's output changes if one head's output is that of another run, head by head.

        Args:
            layer: the layer.
            z, other: the heads' outputs before the output projection, of this run and of the other.
            attn_out, other_attn_out: what attention added in each.
            norm: one of `NORMS`, where a norm stands after attention; elsewhere both are the same. "held": each run's
                heads at the scale that the norm has in that run, so that heads' parts add up. "recomputed": the norm of
                the sum in which this one head is exchanged, as a run with this one change has it.
        """
        if norm not in NORMS:
            raise unknown("treatment of the norm after attention", norm, NORMS)
        if not self.post_norm:  # the heads' parts are linear, and the bias is the same in both
            affine = Affine.of(self._part(layer, "o"), self._shape.n_heads * self._shape.d_head, self._like)
            return self._per_head(other.to(torch.float32) - z.to(torch.float32), affine)
        if norm == HELD:
            return self.head_writes(layer, other, other_attn_out) - self.head_writes(layer, z, attn_out)
        own, its = self.head_writes(layer, z, None), self.head_writes(layer, other, None)
        total = own.sum(-2, keepdim=True)
        after = self._child(layer, "ln1_post")
        return (self._through(after, self._own(total - own + its)) - self._through(after, self._own(total))).float()

    def _per_head(self, z: Float[Tensor, "*n head d_head"], affine: Affine) -> Float[Tensor, "*n head d_model"]:
        """Each head's part of the output projection, without its bias, in float32."""
        weight = affine.weight.to(torch.float32).unflatten(0, (self._shape.n_heads, -1))
        return torch.einsum("...hk,hkd->...hd", z.to(weight.device, torch.float32), weight)

    # ---- the model's own modules ----------------------------------------------------------------------------------

    @property
    def _like(self) -> Tensor:
        return torch.empty(0, dtype=self._dtype, device=self._device)

    def _own(self, stream: Tensor) -> Tensor:
        return stream.to(self._device, self._dtype)

    def _child(self, layer: int, name: str) -> nn.Module | None:
        child = dict(self._tl.blocks[layer].named_children()).get(name)
        return None if child is None else _bare(child)

    def _part(self, layer: int, name: str) -> nn.Module:
        return _bare(dict(self._tl.blocks[layer].attn.named_children())[name])

    _projection = _part

    def _through(self, module: nn.Module | None, x: Tensor) -> Tensor:
        return x if module is None else module(x)

    def _mlp_module(self, layer: int) -> Callable[[Tensor], Any]:
        block = self._tl.blocks[layer]
        if block.mlp.name is not None:
            return _bare(block.mlp)
        # OPT keeps its two maps on the block itself, and TransformerLens only groups them by name.
        original, first, second = block.original_component, _bare(getattr(block.mlp, "in")), _bare(block.mlp.out)
        return lambda x: second(original.activation_fn(first(x)))

    def passing(self, stream: Float[Tensor, "n pos d_model"], layer: int | None = None) -> OneBlock:
        """A `block_call` under which one block alone runs, on this stream; if `layer` is None, no block runs."""
        return OneBlock(self._own(stream), layer, self._returns)

    # ---- the block itself -----------------------------------------------------------------------------------------

    def _by_block(self, layer: int, part: str, stream: Float[Tensor, "n d_model"]) -> Tensor:
        """The part's value in a run of its block alone, on sequences of one token each."""
        ids = torch.zeros((len(stream), 1), dtype=torch.long, device=self._device)
        site = Site(SITES[part], layer)
        # A sequential block's MLP reads the stream after attention: with attention's output at zero, the one given.
        edits = [Edit(Zero(Site("attn_out", layer)))] if part == "mlp" and not self.parallel else []
        call = self.passing(stream[:, None], layer)
        _, attachment = self._model().forward(
            TokenBatch(ids, torch.ones_like(ids, dtype=torch.bool)),
            edits,
            [site],
            stop_after=layer,
            block_call=call,
            who="readers",
        )
        return attachment.values[site][:, 0].to(torch.float32)

    # ---- the check --------------------------------------------------------------------------------------------------

    def _check(self, model: HookedModel) -> None:
        """Compares every part of every layer with a plain pass; a part that differs is read through its block.

        Raises:
            SiteAbsent: what heads and MLPs write does not add up to the stream, so this model has no edges.
        """
        names = ("resid_pre", "q", "k", "v", "z", "attn_out", "mlp_out", "resid_post")
        layers = range(self._shape.n_layers)
        self._returns = returned_by(model)
        values = model.capture(trial_batch(model, 2, 5), [Site(name, layer) for layer in layers for name in names])
        for layer in layers:
            x, attn, mlp = (values[Site(name, layer)] for name in ("resid_pre", "attn_out", "mlp_out"))
            x, attn, mlp = x.flatten(0, 1), attn.flatten(0, 1), mlp.flatten(0, 1)
            self._must_agree(x + attn + mlp, values[Site("resid_post", layer)].flatten(0, 1), layer, "The writes")
            z = values[Site("z", layer)].flatten(0, 1)
            writes = self._tried(lambda: self.head_writes(layer, z, attn).sum(-2))
            self._must_agree(writes, attn, layer, "The heads' writes")
            for part in ("q", "k", "v"):
                expected = values[Site(part, layer)].flatten(0, 1)
                if not self._close(self._tried(lambda: self.value(layer, part, x)), expected):
                    self.computed_by[part] = "blocks"
            middle = x if self.parallel else x + attn
            if not self._close(self._tried(lambda: self.value(layer, "mlp", middle)), mlp):
                self.computed_by["mlp"] = "blocks"
        if self.parallel and "blocks" in self.computed_by.values():
            self._must_agree(
                self._by_block(0, "mlp", values[Site("resid_pre", 0)].flatten(0, 1)),
                values[Site("mlp_out", 0)].flatten(0, 1),
                0,
                "Parallel attention and MLP",
            )

    def _tried(self, compute: Callable[[], Tensor]) -> Tensor | None:
        try:
            return compute()
        except Exception:  # whatever an unknown architecture's modules raise when they are called alone
            return None

    def _close(self, computed: Tensor | None, expected: Tensor) -> bool:
        return computed is not None and is_close(computed, expected, self._dtype)

    def _must_agree(self, computed: Tensor | None, expected: Tensor, layer: int, what: str) -> None:
        if not self._close(computed, expected):
            raise SiteAbsent(
                f"{what} of layer {layer} do not add up to what enters the residual stream, so this "
                "architecture has no edges between them.",
                got=type(self._tl.original_model).__name__,
                do="use a model whose blocks add attention and MLP to the stream.",
            )


def _bare(module: nn.Module) -> nn.Module:
    """The model's own module inside TransformerLens's, so that no hook sees calls that are no pass of the model."""
    return getattr(module, "original_component", None) or module
