"""The best edges that are connected: a circuit grown from the end, one edge at a time."""

from __future__ import annotations

import heapq

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tv_lens.circuits.graph import Graph


def grown(graph: Graph, value: Float[Tensor, "edge"], n: int) -> Bool[Tensor, "edge"]:
    """A mask of up to `n` edges: always the best edge into a node that is connected already, never one of NaN.

    Source:
        Hanna et al. 2024 (arXiv 2403.17806), the greedy search of section 3, on edges into readers.
    """
    entering: dict[tuple[int, int], list[int]] = {}
    for edge, (place, _, reader) in enumerate(graph.edges.tolist()):
        entering.setdefault((place, reader), []).append(edge)
    mask, waiting = torch.zeros(len(graph), dtype=torch.bool, device="cpu"), []
    values, chosen, entered = value.tolist(), set(), set()

    def enter(place: int, reader: int) -> None:
        if (place, reader) not in entered:
            entered.add((place, reader))
            for edge in entering.get((place, reader), ()):
                if values[edge] == values[edge]:
                    heapq.heappush(waiting, (-values[edge], edge))  # of equal values the first in the graph's order

    enter(graph.end, graph.end_reader)
    while waiting and len(chosen) < n:
        _, edge = heapq.heappop(waiting)
        chosen.add(edge)
        place, writer, _ = graph.edges[edge].tolist()
        for where, reader in graph.readers_for(place, writer):
            enter(where, reader)
    mask[list(chosen)] = True
    return mask
