"""Automatic circuit discovery by pruning: from the end to the start, edges that are not missed are left out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tv_lens.circuits.contrast_passes import ContrastPasses
from tv_lens.circuits.graph import Graph
from tv_lens.circuits.patched import run_circuits
from tv_lens.errors import InvalidArgument
from tv_lens.progress import progress as progress_bar
from tv_lens.renamed import renamed_attributes


@dataclass(frozen=True)
class ACDC:
    """Prune from the end: an edge goes whose removal, beside all earlier ones, changes the metric too little.

    All edges into the readers of one stream time (a layer's queries, keys and values; its MLP; the end) are tried in
    one batch, each on top of what was pruned downstream, and leave together. The change that each edge's removal made
    when its turn came is its score, so `scores.above(other)` reads off the circuits of other thresholds from one
    discovery; at thresholds above this one they are the edges that were missed more.

    Args:
        threshold: in the metric's units, of the mean change.

    Source:
        Conmy et al. 2023 (arXiv 2304.14997), algorithm 1. Deviations: the metric's own change instead of a KL
        divergence; the edges of one stream time are tried together, so that nothing depends on the order within it.
    """

    threshold: float

    __getattr__ = renamed_attributes(sweep="acdc.score_edges(...)")

    def __post_init__(self) -> None:
        if not (math.isfinite(self.threshold) and self.threshold >= 0):
            raise InvalidArgument("A threshold is a finite number, 0 or more.", got=f"threshold={self.threshold}")

    def score_edges(
        self, passes: ContrastPasses, progress: bool = True
    ) -> tuple[Float[Tensor, "example edge"], dict[str, Any]]:
        """What each edge's removal cost when its turn came, and how many edges are left."""
        graph = passes.graph
        values = torch.zeros(len(passes.contrast), len(graph))
        kept = torch.ones(len(graph), dtype=torch.bool)
        current = passes.baselines[0][:, None]
        with progress_bar("ACDC", len(graph), "edges", progress) as bar:
            for time in sorted(set(graph.read_times.tolist()), reverse=True):
                tried = (graph.read_times[graph.edges[:, 2]] == time).nonzero()[:, 0]
                if not len(tried):
                    continue
                layer = min(time // 2, graph.shape.n_layers - 1)
                values[:, tried] = current - self._without_each(passes, kept, tried, layer)
                kept[tried] = values[:, tried].double().mean(0).abs() >= self.threshold
                current = run_circuits(passes, kept[None], first_layer=layer, progress=False)
                bar.advance(len(tried))
        about = {
            "kept": int(kept.sum()),
            "effective": int(_on_paths(graph, kept).sum()),
            "metric_left": float(current.mean()),
        }
        return values, {"acdc": about}

    def _without_each(
        self, passes: ContrastPasses, kept: Bool[Tensor, "edge"], tried: Int[Tensor, "m"], layer: int
    ) -> Float[Tensor, "example m"]:
        """The metric with each of these edges left out beside what is left out already."""
        metrics = []
        for part in tried.split(256):
            masks = kept.repeat(len(part), 1)
            masks[torch.arange(len(part)), part] = False
            metrics.append(run_circuits(passes, masks, first_layer=layer, progress=False))
        return torch.cat(metrics, dim=1)


def _on_paths(graph: Graph, kept: Bool[Tensor, "edge"]) -> Bool[Tensor, "edge"]:
    return graph.sparse(graph.on_paths(graph.dense(kept)))
