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

from tv_lens.circuits.contrast_passes import Chunk, ContrastPasses
from tv_lens.circuits.estimate import Estimate, finite
from tv_lens.circuits.method import Scored
from tv_lens.errors import InvalidArgument, unknown
from tv_lens.intervention import Intervention, Replace
from tv_lens.kinds import checks_kinds
from tv_lens.metrics import checked
from tv_lens.model.capture import bytes_per_prompt
from tv_lens.model.editing import Edit
from tv_lens.model.grad_mode import GradMode
from tv_lens.model.readers import PARTS, SITES, Readers
from tv_lens.progress import Bar
from tv_lens.renamed import renamed_attributes, renamed_keywords
from tv_lens.site import Site
from tv_lens.storage.runner import Piece, Work

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


@dataclass(frozen=True, eq=False)
class _PointOnPath:
    """Where the gradient is taken: for each example a row per alpha, between the clean (0) and the corrupted run (1).

    Args:
        passes: the clean and the corrupted pass.
        chunk: the examples.
        alphas: the points; 0 is the clean run, 1 the corrupted one.
        writers: move only these writers' outputs (one layer's attention, one MLP, the input or the source).
    """

    passes: ContrastPasses
    chunk: Chunk
    alphas: tuple[float, ...]
    writers: tuple[int, ...] | None = None

    def edits(self, rows: Int[Tensor, "row"], alphas: Float[Tensor, "row"]) -> list[Edit | Intervention]:
        """What puts each row (an example of the chunk) where it belongs on the path; alpha 0 is the clean run."""
        passes, graph = self.passes, self.passes.graph
        start = graph.source_writer if graph.source is not None else 0
        moved = (start,) if self.writers is None else self.writers
        keeps_source = start not in moved or graph.source is None
        before: list[Edit | Intervention] = list(passes.clean_edits) if keeps_source else []
        site = self._site(moved[0])
        clean, corrupted = self.chunk.clean.at(site)[rows], self.chunk.corrupted.at(site)[rows]
        slots = [passes.start_slot] if moved[0] == start and graph.source is not None else range(len(passes.slots))
        value = clean + alphas[:, None, None] * (corrupted - clean)
        lengths = passes.contrast.clean.lengths[self.chunk.rows[rows]].tolist()
        columns = torch.tensor(
            [[passes.slots[slot] % length for slot in slots] for length in lengths], dtype=torch.long, device="cpu"
        )
        if site.component == "resid_pre" and site.layer == 0 and graph.source is None and not bool(alphas.any()):
            return before
        at = torch.arange(len(rows), device="cpu")[:, None].expand_as(columns)
        return [*before, Edit(Replace(site, value[:, list(slots)].flatten(0, 1)), at.flatten(), columns.flatten())]

    def _site(self, writer: int) -> Site:
        graph = self.passes.graph
        if writer == 0:
            return Site("resid_pre", 0)
        if writer == graph.source_writer:
            return graph.source.at(None)
        layer, place = divmod(writer - 1, graph.shape.n_heads + 1)
        return Site("mlp_out" if place == graph.shape.n_heads else "attn_out", layer)


# ---- scores from gradients ----------------------------------------------------------------------------------------


def _estimated(
    passes: ContrastPasses, alphas: tuple[float, ...], groups: Sequence[tuple[int, ...] | None], work: Work
) -> Scored:
    """The estimate of every edge; a shard moves one group of writers in some examples, and None moves the start."""
    if "blocks" in passes.readers.computed_by.values():
        raise InvalidArgument(
            "This architecture's modules cannot be called alone, so gradients cannot be pulled back through them.",
            got=str(passes.readers.computed_by),
            do="use tv.ExactEdges(): it measures.",
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
    out = torch.zeros(len(passes.contrast), len(passes.graph), dtype=torch.float32, device="cpu")
    for chunk in passes.chunks(rows=examples):
        point, difference = _PointOnPath(passes, chunk, alphas, group), passes.difference(chunk)
        at_once = _rows_at_once(passes)
        size = max(1, at_once // len(alphas))
        for start in range(0, len(chunk.rows), size):
            rows = torch.arange(start, min(start + size, len(chunk.rows)), device="cpu")
            for first in range(0, len(alphas), max(1, at_once // len(rows))):
                some = alphas[first : first + max(1, at_once // len(rows))]
                _add_scores(passes, point, rows, some, difference[rows], out)
            bar.advance(len(rows))
    return finite(out[examples], examples)


def _rows_at_once(passes: ContrastPasses) -> int:
    """How many rows' gradients fit into a quarter of the memory budget; more than 4096 tokens at once gain nothing."""
    width, shape = passes.contrast.clean.width, passes.model.shape
    per_row = bytes_per_prompt(shape, width, 1, passes.model.dtype.itemsize) * shape.n_layers
    return max(1, min(passes.model.memory_budget // 4 // per_row, 4096 // width))


def _add_scores(
    passes: ContrastPasses,
    point: _PointOnPath,
    rows: Int[Tensor, "n"],
    alphas: tuple[float, ...],
    difference: Float[Tensor, "n slot writer d_model"],
    out: Float[Tensor, "example edge"],
) -> None:
    """Adds what these points of the path contribute to the examples' scores, one part of one layer at a time."""
    which, n, steps = rows.repeat_interleave(len(alphas)), len(rows), len(point.alphas)
    examples = point.chunk.rows[rows]
    shares = torch.tensor(alphas, dtype=torch.float32, device="cpu").repeat(n)
    for layer, part, table in _reader_gradients(passes, point, which, shares):
        gradient = table.unflatten(0, (n, len(alphas))).sum(1) / steps
        edges, scores = _scores(passes, difference, layer, part, gradient)
        out[examples[:, None], edges[None]] += scores


def _reader_gradients(
    passes: ContrastPasses, point: _PointOnPath, rows: Int[Tensor, "row"], alphas: Float[Tensor, "row"]
) -> Iterator[tuple[int, str, Float[Tensor, "row slot reader d_model"]]]:
    """One hooked pass and its gradient, pulled back to each reader's input: layer, part, and its readers' gradients."""
    graph, model = passes.graph, passes.model
    examples = point.chunk.rows[rows]
    batch = passes.tokens("clean", examples.tolist())
    live = graph.valid.any(1).any(0)  # readers with any edge
    parts = [
        (layer, part)
        for layer in range(graph.shape.n_layers)
        for part in PARTS
        if bool(live[graph.readers_of(layer, part).start : graph.readers_of(layer, part).stop].any())
    ]
    end = (Site("resid_post", graph.shape.n_layers - 1) if passes.target is None else passes.target.site).tensor
    sites = [Site(SITES[part], layer) for layer, part in parts]
    streams = dict.fromkeys(Site(_read(passes, part), layer, pos=passes.slots) for layer, part in parts)
    _, gradients, attachment = model.gradients(
        batch,
        [*sites, end],
        lambda out: _scored(passes, out, examples),
        point.edits(rows, alphas),
        list(streams),
        at=None if passes.target is None else end,
        who="edge attribution",
    )
    columns = torch.tensor(
        [[slot % length for slot in passes.slots] for length in batch.lengths.tolist()], dtype=torch.long, device="cpu"
    )
    each = torch.arange(len(rows), device="cpu")[:, None]
    for (layer, part), site in zip(parts, sites):
        stream = attachment.values[Site(_read(passes, part), layer, pos=passes.slots)]
        yield layer, part, pulled_back(passes.readers, layer, part, stream, gradients[site][each, columns]).cpu()
    at_end = torch.zeros(len(rows), len(passes.slots), 1, graph.shape.d_model, dtype=torch.float32, device="cpu")
    at_end[:, passes.end_slot, 0] = gradients[end][each[:, 0], columns[:, passes.end_slot]].float().cpu()
    yield graph.shape.n_layers, "end", at_end


def _read(passes: ContrastPasses, part: str) -> str:
    return "resid_mid" if part == "mlp" and not passes.graph.parallel else "resid_pre"


def _scored(passes: ContrastPasses, out: Tensor, examples: Int[Tensor, "row"]) -> Float[Tensor, "row"]:
    """The number at the end of each row, as autograd can follow it."""
    if passes.target is not None:
        lengths = passes.contrast.clean.lengths[examples].tolist()
        columns = torch.tensor(
            [int(passes.target.site.pos) % length for length in lengths], dtype=torch.long, device="cpu"
        )
        return passes.target.read(out[torch.arange(len(out), device="cpu"), columns])
    return checked(passes.metric, out, passes.answers.select(examples).to(out.device), "a gradient's run")


def pulled_back(
    readers: Readers, layer: int, part: str, stream: Float[Tensor, "n slot d_model"], gradient: Tensor
) -> Float[Tensor, "n slot reader d_model"]:
    """The gradient at each reader's own input, from the gradient at its output.

    Args:
        readers: the model's readers.
        layer: the layer of the readers.
        part: "q", "k", "v" (a reader per head) or "mlp".
        stream: the stream that they read.
        gradient: the gradient at the part's site, `n slot head d_head` or `n slot d_model`.
    """
    stream = stream.to(gradient.device, gradient.dtype)
    if part == "mlp":
        with GradMode(True):
            x = stream.detach().requires_grad_()
            (pulled,) = torch.autograd.grad(readers.mlp(layer, x), x, gradient)
        return pulled[:, :, None].float()
    weight = readers.weights(layer, part).weight.detach()
    normed = torch.einsum("nshk,dhk->nshd", gradient, weight)
    with GradMode(True):
        x = stream.detach()[:, :, None].expand(normed.shape).contiguous().requires_grad_()
        out = readers.norm(layer, x)
        if out is x:
            return normed.float()
        (pulled,) = torch.autograd.grad(out, x, normed)
    return pulled.float()


def _scores(
    passes: ContrastPasses,
    difference: Float[Tensor, "n slot writer d_model"],
    layer: int,
    part: str,
    gradient: Float[Tensor, "n slot reader d_model"],
) -> tuple[Int[Tensor, "m"], Float[Tensor, "n m"]]:
    """The edges into these readers, and minus each writer's change times the gradient, summed over a place's tokens."""
    graph = passes.graph
    span = range(graph.end_reader, graph.n_readers) if part == "end" else graph.readers_of(layer, part)
    edges = graph.into(span)
    p, w, r = graph.edges[edges].T.contiguous()
    writers = w.unique()
    table = -torch.matmul(difference[:, :, writers], gradient.transpose(-1, -2))  # n slot writer reader
    if passes.slot_place.tolist() != list(range(len(graph.positions))):  # places of several tokens
        summed = torch.zeros(len(table), len(graph.positions), *table.shape[2:], dtype=torch.float32, device="cpu")
        table = summed.index_add_(1, passes.slot_place, table)
    return edges, table[:, p, torch.searchsorted(writers, w), r - span.start]
