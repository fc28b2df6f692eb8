"""Sums of activations over prompts, read in batches that a run keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tv_lens.batch import TokenBatch
from tv_lens.model.hooked_model import HookedModel
from tv_lens.progress import progress as progress_bar
from tv_lens.site import Site
from tv_lens.storage.configuration import model_described
from tv_lens.storage.run_folder import FolderLike, shards

TOKENS_A_BATCH = 4096  # sums are taken batch by batch, so that many prompts need no more memory


def mean_at(
    model: HookedModel,
    tokens: TokenBatch,
    sites: Sequence[Site],
    *,
    who: str,
    progress: bool,
    folder: FolderLike = None,
    config: Mapping[str, Any] | None = None,
) -> Float[Tensor, "site *axes"]:
    """The mean over prompts of what each site, which names one position, holds there.

    Args:
        model: to be read.
        tokens: the prompts.
        sites: of one shape.
        who: what the bar says.
        progress: Show a progress bar (only on a terminal or in a notebook).
        folder: a folder that keeps the sums of finished batches.
        config: what the run is told beside model, prompts and sites.
    """
    batch = model.tokens(tokens)
    step = max(1, TOKENS_A_BATCH // batch.width)
    parts = [slice(start, min(start + step, len(batch))) for start in range(0, len(batch), step)]
    config = {
        "model": model_described(model),
        **(config or {}),
        "tokens": batch,
        "sites": [str(site) for site in sites],
        "memory_budget": model.memory_budget,
        "batch": step,
    }
    with shards(folder, verb="contexts", config=config, total=len(parts)) as kept:
        done = sum(parts[i].stop - parts[i].start for i in kept.done)
        with progress_bar(who, len(batch), "prompts", progress, done) as bar:
            for i in kept.pending():
                part = batch.select(parts[i])
                held = model.capture(part, sites)
                kept.put(i, {"sum": torch.stack([held[site].double().sum(0) for site in sites])})
                bar.advance(len(part))
        total = sum(torch.from_numpy(one["sum"]) for one in kept.all())
    return (total / len(batch)).float()
