"""Do two tasks use the same edges? Overlap and agreement of scores, beside what chance and noise would give."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tv_lens.circuits.circuit import Circuit, EdgeScores
from tv_lens.circuits.edge_table import check_same_graph, size_key
from tv_lens.errors import EmptySelection, InvalidArgument
from tv_lens.results.sweep import Sweep


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """How alike the edges of several tasks are.

    The diagonal of both sweeps compares a task with itself, on the other half of its prompts: the agreement that noise
    leaves between two equal tasks. Their "example" axis is the draw of the halves.

    Args:
        overlap: the Jaccard index of the tasks' top edges, task x task.
        correlation: the correlation of the tasks' mean effects over edges.
        shared: the chance of an overlap this large if the edges of every reader were shuffled.
        specific: the chance of an agreement this low if both tasks had the same effects (their prompts mixed).
        size: how many top edges were compared.
        scores: the tasks' scores.
    """

    overlap: Sweep
    correlation: Sweep
    shared: xr.DataArray
    specific: xr.DataArray
    size: int
    scores: Mapping[str, EdgeScores]

    def common(self, *tasks: str) -> Circuit:
        """The edges that are among the top ones of all these tasks, or of all tasks."""
        chosen = [self.scores[task] for task in (tasks or self.scores)]
        circuit = chosen[0].top(self.size)
        for scores in chosen[1:]:
            circuit = circuit & scores.top(self.size)
        return circuit

    def only(self, task: str) -> Circuit:
        """The top edges of one task that are among no other task's."""
        circuit = self.scores[task].top(self.size)
        for name, scores in self.scores.items():
            circuit = circuit if name == task else circuit - scores.top(self.size)
        return circuit

    def __repr__(self) -> str:
        mean, names = self.overlap.mean(), list(self.scores)
        lines = [f"Comparison of {len(names)} tasks by their top {self.size} edges: Jaccard overlap of halves"]
        for one in names:
            cells = "  ".join(f"{float(mean.sel(task=one, other=other)):.2f}" for other in names)
            lines.append(f"  {one:<24}{cells}")
        return "\n".join(lines)


def compare(
    scores: Mapping[str, EdgeScores],
    *,
    size: int = 100,
    by: str = "magnitude",
    splits: int = 20,
    permutations: int = 200,
    seed: int = 0,
) -> Comparison:
    """How alike the edges of several tasks are: overlap and correlation per pair of tasks, against noise and chance.

    Args:
        scores: by the tasks' names; of one graph.
        size: top edges of each task.
        by: how they are ranked.
        splits: how often every task's prompts are split into two halves.
        permutations: how many permutations each of the two tests draws.
        seed: fixes all draws.

    Raises:
        InvalidArgument: the scores belong to different graphs, or a task has fewer than four prompts.
    """
    names, each_scores = list(scores), list(scores.values())
    edges = _compared_edges(scores, size)
    values = [one.values[:, edges].double() for one in each_scores]
    rng = np.random.default_rng(seed)
    overlap, correlation = _between_halves(values, size, by, splits, rng)
    graph = each_scores[0].graph
    into = graph.edges[edges, 0] * graph.n_readers + graph.edges[edges, 2]
    shared = _pairwise(names, lambda i, j: _chance_of_overlap(values[i], values[j], into, size, by, permutations, rng))
    specific = _pairwise(names, lambda i, j: _chance_of_difference(values[i], values[j], permutations, rng))
    provenance = {
        "verb": "compare",
        "size": size,
        "by": by,
        "splits": splits,
        "permutations": permutations,
        "seed": seed,
        "n": [one.n for one in each_scores],
        "fingerprint": each_scores[0].provenance.get("fingerprint", ""),
    }
    return Comparison(
        _sweep(overlap, names, "overlap", "Jaccard index", provenance),
        _sweep(correlation, names, "correlation", "Pearson's r", provenance),
        shared,
        specific,
        size,
        dict(scores),
    )


def _compared_edges(scores: Mapping[str, EdgeScores], size: int) -> Int[Tensor, "m"]:
    """The edges that were measured in every task, after a check that the tasks can be compared."""
    if len(scores) < 2:
        raise EmptySelection("A comparison needs at least two tasks.", got=", ".join(scores) or "none")
    each_scores = list(scores.values())
    for one in each_scores:
        check_same_graph(each_scores[0].graph, one.graph)
        if one.n < 4:
            raise InvalidArgument("Halves of fewer than four prompts say nothing.", got=f"{one.n} prompts")
    measured = torch.stack([~one.values.isnan().any(0) for one in each_scores]).all(0)
    edges = measured.nonzero()[:, 0]
    if not 1 <= size <= len(edges):
        raise EmptySelection("There are not that many edges.", got=f"size={size}", allowed=f"1 to {len(edges):,}")
    return edges


def _between_halves(
    values: Sequence[Float[Tensor, "example edge"]], size: int, by: str, splits: int, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "split task other"], Float[np.ndarray, "split task other"]]:
    """Overlap and correlation of one half of each task's prompts with the other half of each task's."""
    n_tasks = len(values)
    overlap, correlation = np.zeros((2, splits, n_tasks, n_tasks))
    for split in range(splits):
        halves = [_halves(each, rng) for each in values]
        for i in range(n_tasks):
            for j in range(n_tasks):
                one, other = halves[i][0], halves[j][1]
                overlap[split, i, j] = _jaccard(_top(one, size, by), _top(other, size, by))
                correlation[split, i, j] = _correlation(one, other)
    return overlap, correlation


def _sweep(
    values: Float[np.ndarray, "split task other"],
    names: list[str],
    metric: str,
    units: str,
    provenance: Mapping[str, Any],
) -> Sweep:
    labelled = xr.DataArray(values, dims=("example", "task", "other"), coords={"task": names, "other": names})
    return Sweep(
        labelled,
        metric=metric,
        units=units,
        sign="higher: more alike; the diagonal is what noise leaves",
        name=f"{metric} between tasks",
        provenance=dict(provenance),
        zero=0.0,
    )


def _halves(values: Float[Tensor, "example edge"], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    order = torch.tensor(rng.permutation(len(values)), dtype=torch.long, device="cpu")
    middle = len(values) // 2
    return values[order[:middle]].mean(0), values[order[middle:]].mean(0)


def _top(mean: Float[Tensor, "edge"], size: int, by: str) -> Bool[Tensor, "edge"]:
    mask = torch.zeros(len(mean), dtype=torch.bool, device="cpu")
    mask[torch.sort(size_key(mean, by), descending=True, stable=True).indices[:size]] = True
    return mask


def _jaccard(one: Bool[Tensor, "edge"], other: Bool[Tensor, "edge"]) -> float:
    return float((one & other).sum() / (one | other).sum())


def _correlation(one: Float[Tensor, "edge"], other: Float[Tensor, "edge"]) -> float:
    one, other = one - one.mean(), other - other.mean()
    size = float(one.norm() * other.norm())
    return float(one @ other) / size if size > 0 else 0.0


def _pairwise(names: list[str], chance: Callable[[int, int], float]) -> xr.DataArray:
    """The p-value of every pair of tasks; NaN on the diagonal."""
    table = np.full((len(names), len(names)), np.nan)
    for i in range(len(names)):
        for j in range(i):
            table[i, j] = table[j, i] = chance(i, j)
    return xr.DataArray(table, dims=("task", "other"), coords={"task": names, "other": names}, name="p")


def _chance_of_overlap(
    one: Float[Tensor, "n edge"],
    other: Float[Tensor, "m edge"],
    into: Int[Tensor, "edge"],
    size: int,
    by: str,
    permutations: int,
    rng: np.random.Generator,
) -> float:
    """How often an overlap this large comes about if the other task's edges are permuted within every reader."""
    a, b = _top(one.mean(0), size, by), _top(other.mean(0), size, by)
    observed, hits = _jaccard(a, b), 0
    order = torch.sort(into, stable=True).indices
    for _ in range(permutations):
        # A random key within readers: sorting by (reader, key) permutes the edges of every reader among themselves.
        shuffled = torch.tensor(rng.permutation(len(into)), dtype=torch.long, device="cpu")
        within = shuffled[torch.sort(into[shuffled], stable=True).indices]
        moved = torch.zeros_like(b)
        moved[order] = b[within]
        hits += _jaccard(a, moved) >= observed
    return (1 + hits) / (1 + permutations)


def _chance_of_difference(
    one: Float[Tensor, "n edge"], other: Float[Tensor, "m edge"], permutations: int, rng: np.random.Generator
) -> float:
    """How often a correlation this low comes about if the two tasks' prompts are mixed and divided again."""
    both, observed, hits = torch.cat([one, other]), _correlation(one.mean(0), other.mean(0)), 0
    for _ in range(permutations):
        order = torch.tensor(rng.permutation(len(both)), dtype=torch.long, device="cpu")
        hits += _correlation(both[order[: len(one)]].mean(0), both[order[len(one) :]].mean(0)) <= observed
    return (1 + hits) / (1 + permutations)
