"""Automatic circuit discovery: prune, from the end to the start, the edges whose removal changes the metric little."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tv_lens.circuits.contrast_passes import ContrastPasses
from tv_lens.circuits.graph import Graph
from tv_lens.circuits.method import EdgeMethod, Scored
from tv_lens.circuits.patched import run_circuits
from tv_lens.errors import InvalidArgument
from tv_lens.kinds import checks_kinds
from tv_lens.progress import Bar
from tv_lens.renamed import renamed_attributes
from tv_lens.storage.runner import Piece, Work
from tv_lens.storage.shard_file import Shard


@checks_kinds
@final
@dataclass(frozen=True)
class ACDC(EdgeMethod):
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

    Example:
        >>> from tv_lens.circuits.discovery import discover
        >>> from tv_lens.circuits.truth import induction
        >>> known = induction(n=2)
        >>> discover(known.model, known.prompts, method=ACDC(threshold=1.0), progress=False).top(1).names
        ['a2.h1->logits@query']
    """

    threshold: float

    __getattr__ = renamed_attributes(sweep="acdc.score_edges(...)")

    def __post_init__(self) -> None:
        if not (math.isfinite(self.threshold) and self.threshold >= 0):
            raise InvalidArgument("A threshold is a finite number, 0 or more.", got=f"threshold={self.threshold}")

    def score_edges(self, passes: ContrastPasses, work: Work, *, seed: int = 0) -> Scored:
        """What each edge's removal cost when it was tried, and how many edges are left."""
        graph = passes.graph
        times = sorted(set(graph.read_times[graph.edges[:, 2]].tolist()), reverse=True)
        tried = [(graph.read_times[graph.edges[:, 2]] == time).nonzero()[:, 0] for time in times]

        def round_of(at: int, bar: Bar, before: Sequence[Shard]) -> Piece:
            """The removal of each edge into one stream time, on top of all removals downstream."""
            remaining = self._remaining(graph, tried, before)
            layer = min(times[at] // 2, graph.shape.n_layers - 1)
            current = torch.from_numpy(before[-1]["metric"]) if before else passes.baselines[0][:, None]
            effects = current - self._without_each(passes, remaining, tried[at], layer)
            remaining[tried[at]] = self._kept(effects)
            return {
                "effects": effects,
                "metric": run_circuits(passes, remaining[None], first_layer=layer, progress=False),
            }

        steps = [len(edges) for edges in tried]
        rounds = work.run_in_order(round_of, range(len(times)), label="ACDC", unit="edges", steps=steps)
        effects = torch.zeros(len(passes.contrast), len(graph), dtype=torch.float32, device="cpu")
        for edges, shard in zip(tried, rounds):
            effects[:, edges] = torch.from_numpy(shard["effects"])
        remaining = self._remaining(graph, tried, rounds.shards)
        summary = {
            "kept": int(remaining.sum()),
            "effective": int(_on_paths(graph, remaining).sum()),
            "metric_left": float(torch.from_numpy(rounds[-1]["metric"]).mean()),
        }
        return effects, {"acdc": summary, **rounds.provenance}

    def own_choice(self, mean: Float[Tensor, "edge"]) -> Bool[Tensor, "edge"] | None:
        return mean.abs() >= self.threshold

    def _kept(self, effects: Float[Tensor, "example m"]) -> Bool[Tensor, "m"]:
        return effects.double().mean(0).abs() >= self.threshold

    def _remaining(self, graph: Graph, tried: Sequence[Tensor], before: Sequence[Shard]) -> Bool[Tensor, "edge"]:
        """The edges that are left after these rounds."""
        remaining = torch.ones(len(graph), dtype=torch.bool, device="cpu")
        for edges, shard in zip(tried, before):
            remaining[edges] = self._kept(torch.from_numpy(shard["effects"]))
        return remaining

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
