"""Edge attribution patching: every edge's effect estimated from one gradient, or from a path of them.

The effect of writing the corrupted run's value into one edge of the clean run is, to first order, the change of what
the writer wrote times the gradient at the reader's input. That input never exists as a tensor of its own (one stream
feeds all readers), and it need not: the gradient at q, k, v and at the MLP's output is taken, and pulled back through
the projection and the norm's Jacobian, reader by reader. Nothing is split by head for autograd to keep.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tv_lens.circuits.contrast_passes import ContrastPasses
from tv_lens.circuits.edge_gradients import Gradients, PointOnPath, pulled_back, readers_and_writers
from tv_lens.circuits.estimate import Estimate, finite
from tv_lens.circuits.method import Scored
from tv_lens.errors import InvalidArgument, unknown
from tv_lens.kinds import checks_kinds
from tv_lens.model.capture import bytes_per_prompt
from tv_lens.progress import Bar
from tv_lens.renamed import renamed_attributes, renamed_keywords
from tv_lens.storage.runner import Piece, Work

__all__ = ["EAP", "EAPIG", "pulled_back"]

TOKENS_A_SHARD = 4096  # in all points of the path; as many as one batch of gradients holds at most


@final
@renamed_keywords(grad_at="gradient_at=")
@checks_kinds
@dataclass(frozen=True)
class EAP(Estimate):
    """Edge attribution patching: one forward and one backward pass, all edges at once.

    Args:
        gradient_at: the run whose gradient is taken: "clean" (or with the source) or "corrupted" (or without it).
        recheck: how many of the best edges to measure exactly afterwards, and as many random ones of the rest; 0 for
            none.

    Source:
        Syed, Rager and Conmy 2023 (arXiv 2310.10348), with the sign of the effect: positive helps.
        Deviations: per example; positions kept; keys and values per key-value head.
    """

    gradient_at: str = "clean"
    recheck: int = 50

    __getattr__ = renamed_attributes(grad_at="method.gradient_at")

    def __post_init__(self) -> None:
        if self.gradient_at not in ("clean", "corrupted"):
            raise unknown("run", self.gradient_at, ("clean", "corrupted"))

    @property
    def gradient_taken(self) -> str | None:
        return self.gradient_at

    def estimated(self, passes: ContrastPasses, work: Work) -> Scored:
        """The effect of every edge from one gradient."""
        return _estimated(passes, ({"clean": 0.0, "corrupted": 1.0}[self.gradient_at],), [None], work)


@checks_kinds
@final
@dataclass(frozen=True)
class EAPIG(Estimate):
    """EAP with the gradient averaged along a straight path from the clean to the corrupted run.

    Args:
        steps: points on the path, at the midpoints of as many equal parts.
        where: "inputs" moves what the runs differ in (the embedding, or the injected vector) and lets the model follow;
            "activations" moves one layer's attention or MLP output at a time and leaves the rest of the
            clean run, which is `2 layers + 1` times the work.
        recheck: as in `EAP`.

    Source:
        Hanna, Pezzelle and Belinkov 2024 (arXiv 2403.17806, "inputs"); "activations" after Marks et al.
        2024 (arXiv 2403.19647). Deviation: midpoints instead of right ends of the steps.
    """

    steps: int = 5
    where: str = "inputs"
    recheck: int = 50

    def __post_init__(self) -> None:
        if self.where not in ("inputs", "activations"):
            raise unknown("path", self.where, ("inputs", "activations"))
        if self.steps < 1:
            raise InvalidArgument("A path needs at least one step.", got=f"steps={self.steps}")

    @property
    def gradient_taken(self) -> str | None:
        return "path"

    def estimated(self, passes: ContrastPasses, work: Work) -> Scored:
        """The effect of every edge from the mean gradient along the path, which all writers move, or each group."""
        alphas = tuple((step + 0.5) / self.steps for step in range(self.steps))
        groups = [None] if self.where == "inputs" else [tuple(group) for group in _groups_of_writers(passes)]
        return _estimated(passes, alphas, groups, work)


def _groups_of_writers(passes: ContrastPasses) -> list[list[int]]:
    """Writers that are moved together: the input, each layer's heads, each MLP, the source."""
    graph = passes.graph
    groups = [[0]]
    for layer in range(graph.shape.n_layers):
        groups += [list(range(graph.head_writer(layer, 0), graph.mlp_writer(layer))), [graph.mlp_writer(layer)]]
    return groups + ([] if graph.source is None else [[graph.source_writer]])


# ---- scores from gradients ----------------------------------------------------------------------------------------


def _estimated(
    passes: ContrastPasses, alphas: tuple[float, ...], groups: Sequence[tuple[int, ...] | None], work: Work
) -> Scored:
    """The estimate of every edge; a shard moves one group of writers in some examples, and None moves the start."""
    if "blocks" in passes.readers.computed_by.values():
        raise InvalidArgument(
            "This architecture's modules cannot be called alone, so gradients cannot be pulled back through them.",
            got=str(passes.readers.computed_by),
            do="use tv.circuits.ExactEdges(): it measures.",
        )
    size = max(1, TOKENS_A_SHARD // (passes.contrast.clean.width * len(alphas)))
    examples = list(range(len(passes.contrast)))
    parts = [examples[start : start + size] for start in range(0, len(examples), size)]
    cells = [(group, rows) for group in groups if len(_edges_of(passes, group)) for rows in parts]

    def scores(cell: tuple[tuple[int, ...] | None, list[int]], bar: Bar) -> Piece:
        group, rows = cell
        return {"scores": _of_examples(passes, alphas, group, rows, bar)[:, _edges_of(passes, group)]}

    steps = [len(rows) for _, rows in cells]
    finished = work.run(scores, cells, label="edge attribution", unit="prompts", steps=steps)
    out = torch.zeros(len(examples), len(passes.graph), dtype=torch.float32, device="cpu")
    for (group, rows), shard in zip(cells, finished):
        out[torch.tensor(rows, dtype=torch.long, device="cpu")[:, None], _edges_of(passes, group)[None]] = (
            torch.from_numpy(shard["scores"])
        )
    return out, finished.provenance


def _edges_of(passes: ContrastPasses, group: tuple[int, ...] | None) -> Int[Tensor, "m"]:
    """The edges out of a group of writers; all edges for None."""
    writers = passes.graph.edges[:, 1]
    if group is None:
        return torch.arange(len(writers), device="cpu")
    return torch.isin(writers, torch.tensor(group, dtype=torch.long, device="cpu")).nonzero()[:, 0]


def _of_examples(
    passes: ContrastPasses, alphas: tuple[float, ...], group: tuple[int, ...] | None, examples: list[int], bar: Bar
) -> Float[Tensor, "example edge"]:
    """The estimates in some examples."""
    out = torch.zeros(len(examples), len(passes.graph), dtype=torch.float32, device="cpu")
    place = {example: i for i, example in enumerate(examples)}
    for chunk in passes.chunks(rows=examples):
        point = PointOnPath(passes, chunk, alphas, group)
        size = max(1, _rows_at_once(passes) // len(alphas))
        for start in range(0, len(chunk.rows), size):
            rows = range(start, min(start + size, len(chunk.rows)))
            scores = _of_rows(passes, point, rows)
            out[[place[row] for row in chunk.rows[start : rows.stop].tolist()]] = scores
            bar.advance(len(rows))
    return finite(out, examples)


def _rows_at_once(passes: ContrastPasses) -> int:
    """How many rows' gradients fit into a quarter of the memory budget; more than 4096 tokens at once gain nothing."""
    width, shape = passes.contrast.clean.width, passes.model.shape
    per_row = bytes_per_prompt(shape, width, 1, passes.model.dtype.itemsize) * shape.n_layers
    return max(1, min(passes.model.memory_budget // 4 // per_row, 4096 // width))


def _of_rows(passes: ContrastPasses, point: PointOnPath, rows: range) -> Float[Tensor, "n edge"]:
    """The estimates in some examples of the chunk: gradients are summed along the path, then meet the writers once."""
    graph, alphas, at_once = passes.graph, point.alphas, max(1, _rows_at_once(passes) // len(rows))
    parts = [alphas[first : first + at_once] for first in range(0, len(alphas), at_once)]
    gradients = [Gradients(passes, point, rows, part) for part in parts]
    difference = passes.difference(point.chunk)[rows.start : rows.stop]
    writers = (0, graph.n_writers) if point.writers is None else (min(point.writers), max(point.writers) + 1)
    table = torch.zeros(
        len(rows), *graph.valid.shape, dtype=torch.float32, device=passes.device
    )  # one number for each writer and reader, edge or not: `valid` picks the edges in their order at the end
    for layer, part in gradients[0].parts:
        mean = sum(each.at_readers(layer, part) for each in gradients) / len(alphas)  # n slot d_model reader
        readers, upto = readers_and_writers(passes, layer, part)
        for first, end in _upstream(passes, upto, writers):
            scores = difference[:, :, first:end] @ mean.to(difference.dtype)  # n slot writer reader
            _subtract_at_places(passes, table[:, :, first:end, readers.start : readers.stop], scores.float())
    return table.cpu()[:, graph.valid]


def _upstream(passes: ContrastPasses, upto: int, writers: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """The upstream writers among those that are wanted, as slices: a prefix, and the source after all others."""
    graph = passes.graph
    first = 0 if graph.source is None else graph.head_writer(passes.layers.start, 0)
    first, end = max(first, writers[0]), min(upto, writers[1])
    if first < end:
        yield first, end
    if graph.source is not None and writers[1] == graph.n_writers:
        yield graph.source_writer, graph.n_writers


def _subtract_at_places(
    passes: ContrastPasses, table: Float[Tensor, "n position w r"], scores: Float[Tensor, "n slot w r"]
) -> None:
    """Takes each token's scores away at its place."""
    if passes.places_are_slots:
        table -= scores
    else:
        table.index_add_(1, passes.slot_place.to(table.device), scores, alpha=-1)
