"""Do two tasks use the same edges? Overlap and agreement of scores, beside what chance and noise would give."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tv_lens.circuits import scores_file
from tv_lens.circuits.circuit import Circuit, EdgeScores
from tv_lens.circuits.edge_table import check_same_graph, size_key
from tv_lens.circuits.growing import best_of
from tv_lens.circuits.permutation_tests import SHARED, SPECIFIC, chance_of_difference, chance_of_overlap, holm
from tv_lens.errors import EmptySelection, InvalidArgument
from tv_lens.kinds import checks_kinds
from tv_lens.results import sweep_group
from tv_lens.results.sweep import Sweep
from tv_lens.results.sweep_file import labelled, labels_of
from tv_lens.storage import envelope

KIND = envelope.Kind("comparison", "Comparison.save(path)")


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """How alike the edges of several tasks are.

    The diagonal of both sweeps compares a task with itself, on the other half of its prompts: the agreement that noise
    leaves between two equal tasks. Their "example" axis is the draw of the halves.

    Args:
        overlap: the Jaccard index of the tasks' top edges, task x task.
        correlation: the correlation of the tasks' mean effects over edges.
        shared: p of as large an overlap under `permutation_tests.SHARED`: more than chance, given which writers and
            readers are loud in each task.
        specific: p of as large a difference under `permutation_tests.SPECIFIC`: the tasks have other edges, or the same
            ones in other proportions; that one is stronger or noisier is no difference.
        size: how many top edges were compared.
        scores: the tasks' scores.
        smallest: by test, the smallest p that its permutations can give for each pair.
    """

    overlap: Sweep
    correlation: Sweep
    shared: xr.DataArray
    specific: xr.DataArray
    size: int
    scores: Mapping[str, EdgeScores]
    smallest: Mapping[str, xr.DataArray]

    def tests(self) -> pd.DataFrame:
        """One row per test and pair of tasks: p, p corrected for all pairs (Holm), the smallest p, and the null."""
        rows = []
        for test, table, null in (("shared", self.shared, SHARED), ("specific", self.specific, SPECIFIC)):
            pairs = list(itertools.combinations(self.scores, 2))
            p = np.array([float(table.sel(task=task, other=other)) for task, other in pairs])
            for (task, other), raw, corrected in zip(pairs, p, holm(p), strict=True):
                least = float(self.smallest[test].sel(task=task, other=other))
                rows.append((test, task, other, raw, corrected, least, null))
        return pd.DataFrame(rows, columns=["test", "task", "other", "p", "corrected", "smallest", "null"])

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

    def save(self, path: str | Path) -> Path:
        """Writes it, with the scores that were compared, to one safetensors file, whole or not at all.

        Returns its path.
        """
        numbers, sweeps = sweep_group.packed({"overlap": self.overlap, "correlation": self.correlation})
        tables = {"shared": self.shared, "specific": self.specific}
        tables |= {f"smallest.{test}": table for test, table in self.smallest.items()}
        tensors: dict[str, Any] = {**numbers, **{name: table.values for name, table in tables.items()}}
        for i, one in enumerate(self.scores.values()):
            tensors |= {f"scores/{i}/{name}": value for name, value in one._numbers().items()}
        labels = {
            "sweeps": sweeps,
            "tables": {name: labels_of(table) for name, table in tables.items()},
            "size": self.size,
            "scores": {task: one._texts() for task, one in self.scores.items()},
        }
        return scores_file.write(Path(path), KIND, next(iter(self.scores.values())).graph, tensors, labels)

    @classmethod
    def load(cls, path: str | Path) -> Comparison:
        """The comparison that `save` wrote.

        Raises:
            FormatError: the file is damaged or is something else.
            MissingFile: there is no such file.
        """
        with scores_file.opened(Path(path), KIND) as (graph, numbers, labels):
            scores = {}
            for i, (task, about) in enumerate(labels["scores"].items()):
                mine = {
                    name.rpartition("/")[2]: one for name, one in numbers.items() if name.startswith(f"scores/{i}/")
                }
                scores[task] = EdgeScores(graph, **mine, **about)
            tables = {name: labelled(numbers[name].numpy(), axes) for name, axes in labels["tables"].items()}
            smallest = {name.partition(".")[2]: table for name, table in tables.items() if name.startswith("smallest.")}
            sweeps = sweep_group.unpacked(numbers, labels["sweeps"], ("overlap", "correlation"))
            shared, specific = tables["shared"], tables["specific"]
            return cls(
                **sweeps, shared=shared, specific=specific, size=labels["size"], scores=scores, smallest=smallest
            )

    def __repr__(self) -> str:
        mean, names = self.overlap.mean(), list(self.scores)
        lines = [f"Comparison of {len(names)} tasks by their top {self.size} edges: Jaccard overlap of halves"]
        for one in names:
            cells = "  ".join(f"{float(mean.sel(task=one, other=other)):.2f}" for other in names)
            lines.append(f"  {one:<24}{cells}")
        for test, rows in self.tests().groupby("test", sort=False):
            cells = "; ".join(
                f"{row.task} and {row.other} {row.corrected:.3g} (p {row.p:.3g}, smallest {row.smallest:.2g})"
                for row in rows.itertuples()
            )
            lines.append(f"  {test}, corrected for {len(rows)} pairs: {cells}")
            lines.append(f"    null: {rows.null.iloc[0]}")
        return "\n".join(lines)


@checks_kinds
def compare(
    scores: Mapping[str, EdgeScores],
    *,
    size: int = 100,
    by: str = "magnitude",
    splits: int = 20,
    permutations: int = 2000,
    seed: int = 0,
) -> Comparison:
    """How alike the edges of several tasks are: overlap and correlation per pair of tasks, against noise and chance.

    Args:
        scores: by the tasks' names; of one graph.
        size: top edges of each task.
        by: how they are ranked.
        splits: how often every task's prompts are split into two halves.
        permutations: how many permutations each of the two tests draws. With up to twelve prompts, `specific` tries all
            signs instead: six prompts cannot give less than p = 1/32.
        seed: fixes all draws.

    Raises:
        InvalidArgument: the scores belong to different graphs, or a task has fewer than four different prompts.

    Example:
        >>> from tv_lens.circuits.discovery import discover
        >>> from tv_lens.circuits.truth import induction
        >>> known = induction(n=4)
        >>> scores = discover(known.model, known.prompts, progress=False)
        >>> found = compare({"one": scores, "again": scores}, size=5, splits=4, permutations=50)
        >>> isinstance(found, Comparison), len(found.common()), len(found.only("one"))
        (True, 5, 0)
    """
    names, each_scores = list(scores), list(scores.values())
    edges = _compared_edges(scores, size)
    values = [one.values[:, edges].double() for one in each_scores]
    _check_different(dict(zip(names, values, strict=True)))
    rng = np.random.default_rng(seed)
    overlap, correlation = _between_halves(values, size, by, splits, rng)
    graph = each_scores[0].graph
    place, writer, reader = (one.numpy() for one in graph.edges[edges].T)
    writer, reader = place * graph.n_writers + writer, place * graph.n_readers + reader
    means = [each.mean(0) for each in values]
    tops = [_top(mean, size, by).numpy() for mean in means]

    def overlapping(i: int, j: int) -> tuple[float, float]:
        return chance_of_overlap(size_key(means[i], by).numpy(), tops[i], tops[j], writer, reader, permutations, rng)

    def differing(i: int, j: int) -> tuple[float, float]:
        return chance_of_difference(values[i].numpy(), values[j].numpy(), permutations, rng)

    shared, least_shared = _pairwise(names, overlapping)
    specific, least_specific = _pairwise(names, differing)
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
        {"shared": least_shared, "specific": least_specific},
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


def _check_different(values: Mapping[str, Float[Tensor, "_example edge"]]) -> None:
    for name, each in values.items():
        if (different := len(each.unique(dim=0))) < 4:
            raise InvalidArgument(
                "Prompts with the same effects do not show how much effects vary.",
                got=f"{different} different of {len(each)} prompts of {name}",
                allowed="four or more",
                do="measure the scores on other prompts",
            )


def _between_halves(
    values: Sequence[Float[Tensor, "_example edge"]], size: int, by: str, splits: int, rng: np.random.Generator
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
    order = torch.from_numpy(rng.permutation(len(values)))
    middle = len(values) // 2
    return values[order[:middle]].mean(0), values[order[middle:]].mean(0)


def _top(mean: Float[Tensor, "edge"], size: int, by: str) -> Bool[Tensor, "edge"]:
    mask = torch.zeros(len(mean), dtype=torch.bool, device=mean.device)
    mask[torch.from_numpy(best_of(size_key(mean, by).numpy(), size))] = True
    return mask


def _jaccard(one: Bool[Tensor, "edge"], other: Bool[Tensor, "edge"]) -> float:
    return float((one & other).sum() / (one | other).sum())


def _correlation(one: Float[Tensor, "edge"], other: Float[Tensor, "edge"]) -> float:
    one, other = one - one.mean(), other - other.mean()
    size = float(one.norm() * other.norm())
    return float(one @ other) / size if size > 0 else 0.0


def _pairwise(names: list[str], chance: Callable[[int, int], tuple[float, float]]) -> tuple[xr.DataArray, xr.DataArray]:
    """p of every pair of tasks and the smallest that it could be; NaN on the diagonal."""
    tables = np.full((2, len(names), len(names)), np.nan)
    for i in range(len(names)):
        for j in range(i):
            tables[:, i, j] = tables[:, j, i] = chance(i, j)
    p, smallest = (
        xr.DataArray(table, dims=("task", "other"), coords={"task": names, "other": names}, name="p")
        for table in tables
    )
    return p, smallest
