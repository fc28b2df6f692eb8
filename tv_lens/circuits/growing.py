"""The best edges that are connected: a circuit grown from the end, one edge at a time."""

from __future__ import annotations

import heapq

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tv_lens.circuits.graph import Graph


def grown(graph: Graph, value: Float[Tensor, "edge"], n: int) -> Bool[Tensor, "edge"]:
    """A mask of up to `n` edges: always the best edge into a node that is connected already, never one of NaN.

    Only the best edges into each node wait, so that nothing is as long as the list of all edges.

    Source:
        Hanna et al. 2024 (arXiv 2403.17806), the greedy search of section 3, on edges into readers.
    """
    mask = torch.zeros(len(graph), dtype=torch.bool, device="cpu")
    values, waiting, entered, chosen = value.numpy(), [], set(), 0

    def enter(place: int, reader: int) -> None:
        if (place, reader) in entered:
            return
        entered.add((place, reader))
        edges = graph.into(range(reader, reader + 1), place).numpy()
        edges = edges[~np.isnan(values[edges])]
        if len(edges) > n - chosen:  # more will not be taken; of equal values the first in the graph's order
            edges = edges[best_of(values[edges], n - chosen)]
        for edge in edges.tolist():
            heapq.heappush(waiting, (-float(values[edge]), edge))

    enter(graph.end, graph.end_reader)
    while waiting and chosen < n:
        _, edge = heapq.heappop(waiting)
        mask[edge] = True
        chosen += 1
        place, writer, _ = graph.edges[edge].tolist()
        for where, reader in graph.readers_for(place, writer):
            enter(where, reader)
    return mask


def best_of(values: Float[np.ndarray, "n"], k: int) -> np.ndarray:
    """Where the k largest values stand, of equal ones the first, largest first; only those are sorted.

    Example:
        >>> best_of(np.array([1.0, 3.0, 2.0, 3.0]), 3).tolist()
        [1, 3, 2]
    """
    if k < len(values):
        least = np.partition(values, len(values) - k)[len(values) - k] if k else np.inf
        above, equal = np.flatnonzero(values > least), np.flatnonzero(values == least)
        found = np.sort(np.concatenate([above, equal[: k - len(above)]]))
    else:
        found = np.arange(len(values))
    return found[np.argsort(-values[found], kind="stable")]
