"""What one pass over some examples wrote to the residual stream and read from it, kept on the model's device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tv_lens.batch import TokenBatch
from tv_lens.intervention import Intervention
from tv_lens.model.capture import batch_size, bytes_per_prompt, floats_of, refuse_nonfinite
from tv_lens.model.editing import Edit
from tv_lens.model.hooked_model import HookedModel
from tv_lens.model.passes import in_batches
from tv_lens.site import Site


@dataclass(frozen=True, eq=False)
class Trace:
    """The activations of one pass at the graph's tokens ("slots"), by layer; on the model's device and in its dtype.

    Only layers between the source and the target are there: what lies outside is the same in both runs, or is not read.
    """

    pre: dict[int, Float[Tensor, "example slot d_model"]]
    attn: dict[int, Float[Tensor, "example slot d_model"]]
    mlp: dict[int, Float[Tensor, "example slot d_model"]]
    z: dict[int, Float[Tensor, "example slot head d_head"]]
    post: Float[Tensor, "example slot d_model"]  # the stream after the last of these layers
    parallel: bool = False

    def at(self, site: Site) -> Float[Tensor, "example slot d_model"]:
        """The activations at a place in the stream."""
        layer = int(site.layer)
        if site.component in ("attn_out", "mlp_out"):
            return (self.attn if site.component == "attn_out" else self.mlp)[layer]
        if site.component == "resid_mid":
            return self.read_by(layer, "mlp")
        if site.component == "resid_pre":
            return self.pre[layer]
        return self.pre.get(layer + 1, self.post)

    def part(self, chosen: slice | Int[Tensor, "n"]) -> Trace:
        """The same for some of the examples; a slice of them is a view."""
        pre, attn, mlp, z = ({i: x[chosen] for i, x in one.items()} for one in (self.pre, self.attn, self.mlp, self.z))
        return Trace(pre, attn, mlp, z, self.post[chosen], self.parallel)

    def read_by(self, layer: int, part: str) -> Float[Tensor, "example slot d_model"]:
        """The stream that a part of a layer reads."""
        before = self.pre[layer]
        return before + self.attn[layer] if part == "mlp" and not self.parallel else before


@dataclass(frozen=True, eq=False)
class Chunk:
    """Some examples with both of their traces."""

    rows: Int[Tensor, "example"]
    clean: Trace
    corrupted: Trace
    derived: dict[object, Any] = field(default_factory=dict)  # intermediate results that several methods use

    def of(self, rows: Sequence[int]) -> Chunk:
        """The chunk of some of its examples, which are named by their numbers among all."""
        places = {row: place for place, row in enumerate(self.rows.tolist())}
        device = self.clean.post.device
        chosen = torch.tensor([places[row] for row in rows], dtype=torch.long, device=device)
        numbers = torch.tensor(list(rows), dtype=torch.long, device="cpu")
        return Chunk(numbers, self.clean.part(chosen), self.corrupted.part(chosen))


def traced(
    model: HookedModel,
    tokens: TokenBatch,
    edits: Sequence[Intervention | Edit],
    layers: range,
    slots: tuple[int, ...],
    parallel: bool = False,
) -> Trace:
    """The activations of a pass over these prompts, in as many batches as the memory budget requires.

    Args:
        model: the model that runs.
        tokens: the prompts.
        edits: the interventions of the pass, or edits placed on rows of one batch.
        layers: the layers that are read; later ones do not run.
        slots: the positions that are read.
        parallel: attention and MLP of a layer read the same stream.

    Raises:
        NonFiniteActivation: an activation is NaN or infinite.
    """
    names, last = ("resid_pre", "attn_out", "mlp_out", "z"), Site("resid_post", layers[-1], pos=slots)
    sites = [*(Site(name, layer, pos=slots) for name in names for layer in layers), last]
    itemsize = model.dtype.itemsize
    read_bytes = itemsize * sum(floats_of(site, tokens.width, model.shape) for site in sites)
    needed = bytes_per_prompt(model.shape, tokens.width, 1, itemsize, read_bytes)
    plain = [edit for edit in edits if isinstance(edit, Intervention)]
    size, together = batch_size(model, len(tokens), tokens.width, needed, plain, max(model.memory_budget, needed))
    if len(plain) < len(edits):  # they are placed on rows of this one batch
        size, together = len(tokens), "an edit of one side"

    def read(some: slice) -> dict[Site, Tensor]:
        batch = tokens.select(some)
        _, attachment = model.forward(
            batch, edits, sites, logits_at=batch.last[:, None], stop_after=layers[-1], who="circuits"
        )
        return attachment.values

    batches = in_batches(model, len(tokens), size, tokens.width, read, who="circuits", together=together)
    parts = [values for _, values in batches]
    values = parts[0] if len(parts) == 1 else {site: torch.cat([part[site] for part in parts]) for site in sites}
    _refuse_nonfinite(values, model.dtype)
    pre, attn, mlp, z = ({layer: values[Site(name, layer, pos=slots)] for layer in layers} for name in names)
    return Trace(pre, attn, mlp, z, values[last], parallel)


def _refuse_nonfinite(values: Mapping[Site, Tensor], dtype: torch.dtype) -> None:
    """Raises `NonFiniteActivation` if an activation is NaN or infinite; the host waits for the device once."""
    if not bool(torch.stack([torch.isfinite(value).all() for value in values.values()]).all()):
        for site, value in values.items():
            refuse_nonfinite(value, site, dtype)
