"""Automatic circuit discovery: prune, from the end to the start, the edges whose removal changes the metric little."""

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
    """Prune from the end: an edge is left out if removing it, on top of earlier ones, changes the metric too little.

    All edges into the readers of one stream time (a layer's queries, keys and values; its MLP; the end) are tried in
    one batch, each on top of what was pruned downstream, and are removed together. The score of an edge is the change
    that its removal made when it was tried, so `scores.above(other)` gives the circuit of another threshold from the
    same discovery; at a threshold above this one it holds the edges whose removal changed the metric more.

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
        """What each edge's removal cost when it was tried, and how many edges are left."""
        graph = passes.graph
        effects = torch.zeros(len(passes.contrast), len(graph), dtype=torch.float32, device="cpu")
        remaining = torch.ones(len(graph), dtype=torch.bool, device="cpu")
        current = passes.baselines[0][:, None]
        with progress_bar("ACDC", len(graph), "edges", progress) as bar:
            for time in sorted(set(graph.read_times.tolist()), reverse=True):
                tried = (graph.read_times[graph.edges[:, 2]] == time).nonzero()[:, 0]
                if not len(tried):
                    continue
                layer = min(time // 2, graph.shape.n_layers - 1)
                effects[:, tried] = current - self._without_each(passes, remaining, tried, layer)
                remaining[tried] = effects[:, tried].double().mean(0).abs() >= self.threshold
                current = run_circuits(passes, remaining[None], first_layer=layer, progress=False)
                bar.advance(len(tried))
        summary = {
            "kept": int(remaining.sum()),
            "effective": int(_on_paths(graph, remaining).sum()),
            "metric_left": float(current.mean()),
        }
        return effects, {"acdc": summary}

    def _without_each(
        self, passes: ContrastPasses, remaining: Bool[Tensor, "edge"], tried: Int[Tensor, "m"], layer: int
    ) -> Float[Tensor, "example m"]:
        """The metric with each of these edges left out beside what is left out already."""
        metrics = []
        for part in tried.split(256):
            masks = remaining.repeat(len(part), 1)
            masks[torch.arange(len(part), device="cpu"), part] = False
            metrics.append(run_circuits(passes, masks, first_layer=layer, progress=False))
        return torch.cat(metrics, dim=1)


def _on_paths(graph: Graph, remaining: Bool[Tensor, "edge"]) -> Bool[Tensor, "edge"]:
    return graph.sparse(graph.on_paths(graph.dense(remaining)))
