"""Many circuits in shards that a folder keeps: what `patched.run_circuits` gives, some circuits at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tv_lens.circuits.contrast_passes import ContrastPasses
from tv_lens.circuits.patched import run_circuits
from tv_lens.progress import Bar
from tv_lens.storage.runner import Piece, Work

TOKENS_A_SHARD = 16384  # of all examples and circuits of a shard


def circuits_in_shards(
    passes: ContrastPasses, masks: Bool[Tensor, "circuit edge"], work: Work
) -> tuple[Float[Tensor, "example circuit"], dict[str, Any]]:
    """The number at the end of every example under every circuit, and the folder's provenance.

    Args:
        passes: the clean and the corrupted pass.
        masks: the circuits, over `passes.graph.edges`.
        work: the verb and its folder; the circuits are added to what the numbers depend on.
    """
    n = len(passes.contrast)
    parts = masks.split(max(1, TOKENS_A_SHARD // (n * len(passes.slots))))

    def metrics(part: Bool[Tensor, "circuit edge"], bar: Bar) -> Piece:
        return {"metrics": run_circuits(passes, part, progress=False)}

    work = replace(work, config={**work.config, "circuits": masks})
    steps = [n * len(part) for part in parts]
    finished = work.run(metrics, parts, label="circuits", unit="runs", steps=steps)
    return torch.cat([torch.from_numpy(shard["metrics"]) for shard in finished], dim=1), finished.provenance
