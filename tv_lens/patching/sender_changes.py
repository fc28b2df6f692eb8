"""By how much attention's output changes if one head's output is exchanged: the first half of a path between heads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from tv_lens.batch import TokenBatch
from tv_lens.intervention import Replace
from tv_lens.model.capture import Capture
from tv_lens.model.editing import Edit
from tv_lens.model.hooked_model import HookedModel
from tv_lens.model.readers import HELD, readers_of
from tv_lens.site import Site


def sender_changes(
    model: HookedModel, base: Capture, source: Capture, senders: Sequence[tuple[int, int]], norm: str
) -> Float[Tensor, "example sender d_model"]:
    """By how much the stream of the base run changes if one sender's output is that of the source run.

    Args:
        model: the model.
        base, source: the heads' outputs at the last token; for a norm that is held, attention's output, too.
        senders: the heads.
        norm: a norm after attention is "recomputed" or "held" (`Readers.exchanged`).
    """
    return (_held if norm == HELD else _recomputed)(model, base, source, senders)


def _recomputed(
    model: HookedModel, base: Capture, source: Capture, senders: Sequence[tuple[int, int]]
) -> Float[Tensor, "example sender d_model"]:
    """By how much the stream changes if one sender's output is exchanged, through the model's own projection.

    Attention's output follows from its heads' outputs alone, so its layer is run on sequences of one token whose heads'
    outputs are all given. So a norm after attention (Gemma-2, OLMo-2) is exact, too.
    """
    changes: dict[tuple[int, int], Tensor] = {}
    for layer in sorted({layer for layer, _ in senders}):
        site, heads = Site("z", layer, pos=-1), [head for at, head in senders if at == layer]
        z = base[site][None].repeat(1 + len(heads), 1, 1, 1)  # the untouched outputs first
        for at, head in enumerate(heads, start=1):
            z[at, :, head] = source[site][:, head]
        written = _attention_out(model, layer, z.flatten(0, 1)).unflatten(0, z.shape[:2])
        changes |= {(layer, head): written[at] - written[0] for at, head in enumerate(heads, start=1)}
    return torch.stack([changes[head] for head in senders], dim=1)


def _held(
    model: HookedModel, base: Capture, source: Capture, senders: Sequence[tuple[int, int]]
) -> Float[Tensor, "example sender d_model"]:
    """The same with a norm after attention at the scale that it has in each of the two runs."""
    changes = {}
    for layer in sorted({layer for layer, _ in senders}):
        z, out = Site("z", layer, pos=-1), Site("attn_out", layer, pos=-1)
        changes[layer] = readers_of(model).exchanged(layer, base[z], source[z], base[out], source[out], HELD)
    return torch.stack([changes[layer][:, head].cpu() for layer, head in senders], dim=1)


def _attention_out(model: HookedModel, layer: int, z: Float[Tensor, "n head d_head"]) -> Float[Tensor, "n d_model"]:
    """What a layer's attention adds to the stream, from its heads' outputs."""
    ids = torch.zeros((len(z), 1), dtype=torch.long, device=model.device)
    site = Site("attn_out", layer)
    stream = torch.zeros((len(z), 1, model.shape.d_model), dtype=model.dtype, device=model.device)
    _, attachment = model.forward(
        TokenBatch(ids, torch.ones_like(ids, dtype=torch.bool)),
        [Edit(Replace(Site("z", layer), z[:, None]))],
        [site],
        stop_after=layer,
        block_call=readers_of(model).passing(stream, layer),
        who="tv.path_effects: a sender's output",
    )
    return attachment.values[site][:, 0].float().cpu()
