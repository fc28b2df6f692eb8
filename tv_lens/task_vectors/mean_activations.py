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
from tv_lens.progress import Bar
from tv_lens.site import Site
from tv_lens.storage.run_folder import FolderLike
from tv_lens.storage.runner import Piece, Work

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
        **(config or {}),
        "tokens": batch,
        "sites": [str(site) for site in sites],
        "memory_budget": model.memory_budget,
        "batch": step,
    }

    def summed(rows: slice, bar: Bar) -> Piece:
        values = model.capture(batch.select(rows), sites)
        return {"sum": torch.stack([values[site].double().sum(0) for site in sites])}

    work = Work.on(model, "contexts", config, folder, progress)
    sizes = [rows.stop - rows.start for rows in batches]
    finished = work.run(summed, batches, label=who, unit="prompts", steps=sizes)
    total = sum(torch.from_numpy(one["sum"]) for one in finished)
    return (total / len(batch)).float()
