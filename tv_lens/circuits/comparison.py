"""Do two tasks use the same edges? Overlap and agreement of scores, beside what chance and noise would give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tv_lens.circuits.circuit import Circuit, EdgeScores
from tv_lens.circuits.edge_table import check_same_graph
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
    if len(scores) < 2:
        raise EmptySelection("A comparison needs at least two tasks.", got=", ".join(scores) or "none")
    names, each_scores = list(scores), list(scores.values())
    for one in each_scores:
        check_same_graph(each_scores[0].graph, one.graph)
        if one.n < 4:
            raise InvalidArgument("Halves of fewer than four prompts say nothing.", got=f"{one.n} prompts")
    edges = _measured_by_all(each_scores)
    if not 1 <= size <= len(edges):
        raise EmptySelection("There are not that many edges.", got=f"size={size}", allowed=f"1 to {len(edges):,}")
    values = [one.values[:, edges].double() for one in each_scores]
    rng = np.random.default_rng(seed)
    overlap, correlation = np.zeros((2, splits, len(names), len(names)))
    for split in range(splits):
        halves = [_halves(each, rng) for each in values]
        for i in range(len(names)):
            for j in range(len(names)):
                one, other = halves[i][0], halves[j][1]
                overlap[split, i, j] = _jaccard(_top(one, size, by), _top(other, size, by))
                correlation[split, i, j] = _correlation(one, other)
    into = each_scores[0].graph.edges[edges, 0] * each_scores[0].graph.n_readers + each_scores[0].graph.edges[edges, 2]
    shared = _pairwise(names, lambda i, j: _chance_of_overlap(values[i], values[j], into, size, by, permutations, rng))
    specific = _pairwise(names, lambda i, j: _chance_of_difference(values[i], values[j], permutations, rng))
    about = {
        "verb": "compare",
        "size": size,
        "by": by,
        "splits": splits,
        "permutations": permutations,
        "seed": seed,
        "n": [one.n for one in each_scores],
        "fingerprint": each_scores[0].provenance.get("fingerprint", ""),
    }

    def sweep(array: np.ndarray, metric: str, units: str) -> Sweep:
        labelled = xr.DataArray(array, dims=("example", "task", "other"), coords={"task": names, "other": names})
        return Sweep(
            labelled,
            metric=metric,
            units=units,
            sign="higher: more alike; the diagonal is what noise leaves",
            name=f"{metric} between tasks",
            provenance=about,
            zero=0.0,
        )

    return Comparison(
        sweep(overlap, "overlap", "Jaccard index"),
        sweep(correlation, "correlation", "Pearson's r"),
        shared,
        specific,
        size,
        dict(scores),
    )


def _measured_by_all(each_scores: list[EdgeScores]) -> Int[Tensor, "m"]:
    some = torch.stack([~one.values.isnan().any(0) for one in each_scores]).all(0)
    return some.nonzero()[:, 0]


def _halves(values: Float[Tensor, "example edge"], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    order = torch.tensor(rng.permutation(len(values)))
    middle = len(values) // 2
    return values[order[:middle]].mean(0), values[order[middle:]].mean(0)


def _top(mean: Float[Tensor, "edge"], size: int, by: str) -> Bool[Tensor, "edge"]:
    key = mean.abs() if by == "magnitude" else mean if by == "helpful" else -mean
    mask = torch.zeros(len(mean), dtype=torch.bool)
    mask[torch.sort(key, descending=True, stable=True).indices[:size]] = True
    return mask


def _jaccard(one: Bool[Tensor, "edge"], other: Bool[Tensor, "edge"]) -> float:
    return float((one & other).sum() / (one | other).sum())


def _correlation(one: Float[Tensor, "edge"], other: Float[Tensor, "edge"]) -> float:
    one, other = one - one.mean(), other - other.mean()
    size = float(one.norm() * other.norm())
    return float(one @ other) / size if size > 0 else 0.0


def _pairwise(names: list[str], chance) -> xr.DataArray:
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
        shuffled = torch.tensor(rng.permutation(len(into)))
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
        order = torch.tensor(rng.permutation(len(both)))
        hits += _correlation(both[order[: len(one)]].mean(0), both[order[len(one) :]].mean(0)) <= observed
    return (1 + hits) / (1 + permutations)
