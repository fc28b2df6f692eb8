"""Mean activations: the mean over prompts of what chosen sites hold, summed in batches that a folder keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tv_lens.batch import TokenBatch
from tv_lens.model.hooked_model import HookedModel
from tv_lens.model.verb import verb
from tv_lens.progress import progress as progress_bar
from tv_lens.site import Site
from tv_lens.storage.configuration import model_described
from tv_lens.storage.run_folder import FolderLike, shards

TOKENS_A_BATCH = 4096  # sums are taken batch by batch, so that many prompts need no more memory


@verb
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
    """The mean over prompts of what each site holds at its one position.

    Args:
        model: the model that is run.
        tokens: the prompts.
        sites: sites of one shape, each with one position.
        who: the label of the progress bar.
        progress: Show a progress bar (only on a terminal or in a notebook).
        folder: a folder that keeps the sums of finished batches.
        config: what else the folder records, beside model, prompts and sites.
    """
    batch = model.tokens(tokens)
    step = max(1, TOKENS_A_BATCH // batch.width)
    batches = [slice(start, min(start + step, len(batch))) for start in range(0, len(batch), step)]
    config = {
        "model": model_described(model),
        **(config or {}),
        "tokens": batch,
        "sites": [str(site) for site in sites],
        "memory_budget": model.memory_budget,
        "batch": step,
    }
    with shards(folder, verb="contexts", config=config, total=len(batches)) as pieces:
        done = sum(batches[i].stop - batches[i].start for i in pieces.done)
        with progress_bar(who, len(batch), "prompts", progress, done) as bar:
            for i in pieces.pending():
                part = batch.select(batches[i])
                values = model.capture(part, sites)
                pieces.put(i, {"sum": torch.stack([values[site].double().sum(0) for site in sites])})
                bar.advance(len(part))
        total = sum(torch.from_numpy(one["sum"]) for one in pieces.all())
    return (total / len(batch)).float()
