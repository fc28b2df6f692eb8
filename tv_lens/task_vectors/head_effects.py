"""What heads write on average, and what these mean outputs do where demonstrations have shuffled labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import einops
import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from tv_lens.errors import SiteError
from tv_lens.intervention import Replace
from tv_lens.metrics import Readout, info_of, prob
from tv_lens.model.hooked_model import HookedModel
from tv_lens.model.verb import verb
from tv_lens.results.sweep import Sweep
from tv_lens.rows.engine import PlacedEdit, Row
from tv_lens.rows.sharding import run_sharded
from tv_lens.site import Site
from tv_lens.storage.configuration import origin
from tv_lens.storage.run_folder import FolderLike
from tv_lens.storage.runner import Work
from tv_lens.task_vectors.ranking import split_half
from tv_lens.tasks.prompts import PromptPairs


def head_outputs(model: HookedModel, means: Float[Tensor, "layer head d_head"]) -> Float[Tensor, "layer head d_model"]:
    """What heads add to the output of their attention, from their outputs before its projection; without the bias.

    Where the model has `result` sites, this is what they would hold. A norm that a model applies after attention
    (Gemma-2, OLMo-2) is not linear and cannot be divided among heads, so it is left out.
    """
    written = []
    for layer, mean in enumerate(means):
        weight = model.tl.blocks[layer].attn.W_O.detach()
        if tuple(weight.shape) != (*mean.shape, model.shape.d_model):
            raise SiteError(
                "This model's output projection cannot be split by head.",
                got=list(weight.shape),
                allowed=[*mean.shape, model.shape.d_model],
            )
        written.append(einops.einsum(mean, weight.float().cpu(), "head d_head, head d_head d_model -> head d_model"))
    return torch.stack(written)


@verb
def head_effects(
    model: HookedModel,
    pairs: PromptPairs,
    means: Float[Tensor, "layer head d_head"],
    *,
    seed: int,
    method: Mapping[str, Any],
    progress: bool,
    folder: FolderLike,
) -> Sweep:
    """The causal indirect effect of every head on every corrupted prompt: a Sweep `example x layer x head`.

    Args:
        model: the model that is run.
        pairs: prompts beside prompts with shuffled labels; the latter are run.
        means: each head's mean output before its projection, put in the place of its output at the last token.
        seed: the halvings of the split-half correlation.
        method: the description of the method, for the provenance.
        progress: Show a progress bar (only on a terminal or in a notebook).
        folder: a folder that keeps finished shards.
    """
    tokens = pairs.tokenize(model)
    base = model.tokens(tokens.corrupted.tokens)
    n, (layers, heads) = len(pairs), means.shape[:2]
    last = [int(length) - 1 for length in base.lengths]
    edits = [Replace(Site("z", layer, head), means[layer, head]) for layer in range(layers) for head in range(heads)]
    rows = [Row(i) for i in range(n)]
    rows += [Row(i, (PlacedEdit(edit, (last[i],)),)) for edit in edits for i in range(n)]
    owners = torch.arange(n, device="cpu").repeat(1 + len(edits))
    config = {"prompts": pairs.recipe, "answers": tokens.answers, "means": means}
    work = Work.on(model, "effects", config, folder, progress)
    readout = Readout(prob, tokens.answers, owners)
    result = run_sharded(work, model, base, rows, readout, who=f"{pairs.task}: effects of heads")
    plain, edited = result.values[:n].double(), result.values[n:].double()
    by_head = einops.rearrange(edited, "(layer head n) -> n layer head", layer=layers, head=heads)
    provenance = {
        "verb": "effects",
        **origin(model),
        "task": pairs.task,
        "method": dict(method),
        "seed": seed,
        "prompts": pairs.recipe,
        "shuffled_prob": float(plain.mean()),
        **result.provenance,
    }
    sweep = _labelled(by_head - plain[:, None, None], pairs, provenance)
    return replace(sweep, provenance={**provenance, "split_half": split_half(sweep, seed=seed)})


def _labelled(effects: Float[Tensor, "example layer head"], pairs: PromptPairs, provenance: dict[str, Any]) -> Sweep:
    """The effects as a Sweep in which the prompts of one query are a group: a repeated query is no new evidence."""
    groups = np.unique(pairs.clean.inputs, return_inverse=True)[1]
    _, layers, heads = effects.shape
    return Sweep(
        xr.DataArray(
            effects.numpy(),
            dims=("example", "layer", "head"),
            coords={"layer": range(layers), "head": range(heads), "group": ("example", groups)},
        ),
        metric="indirect_effect",
        units=info_of(prob).units,
        zero=0.0,
        sign="above 0: the head's mean output makes the right answer more probable; 0: no effect",
        name=f"{pairs.task}: causal indirect effect of every head",
        provenance=provenance,
    )
