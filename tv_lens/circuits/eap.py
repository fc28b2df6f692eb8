"""Edge attribution patching: every edge's effect estimated from one gradient, or from a path of them.

The effect of writing B's value into one edge of run A is, to first order, the change of what the writer wrote times the
gradient at the reader's input. That input never exists as a tensor of its own (one stream feeds all readers), and it
need not: the gradient at q, k, v and at the MLP's output is taken, and pulled back through the projection and the
norm's Jacobian, reader by reader. Nothing is split by head for autograd to keep.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tv_lens.circuits.runs import Chunk, Runs
from tv_lens.errors import InvalidArgument, unknown
from tv_lens.intervention import Intervention, Replace
from tv_lens.metrics import checked
from tv_lens.model.capture import bytes_per_prompt
from tv_lens.model.editing import Edit
from tv_lens.model.readers import PARTS, SITES, Readers
from tv_lens.progress import progress as progress_bar
from tv_lens.site import Site


@dataclass(frozen=True)
class EAP:
    """Edge attribution patching: one forward and one backward pass, all edges at once.

    Args:
        grad_at: the run whose gradient is taken: "a" (clean, or with the source) or "b".
        recheck: how many of the best edges to measure exactly afterwards, and as many random ones of the rest; 0 for
            none.

    Source:
        Syed, Rager and Conmy 2023 (arXiv 2310.10348), with the sign of the effect: positive helps.
        Deviations: per example; positions kept; keys and values per key-value head.
    """

    grad_at: str = "a"
    recheck: int = 50

    def __post_init__(self) -> None:
        if self.grad_at not in ("a", "b"):
            raise unknown("run", self.grad_at, ("a", "b"))

    def estimate(self, runs: Runs, show_progress: bool = True) -> Float[Tensor, "example edge"]:
        """The estimated effects."""
        along = {"a": 0.0, "b": 1.0}[self.grad_at]
        return _estimated(runs, lambda chunk: _PointOnPath(runs, chunk, (along,)), show_progress)


@dataclass(frozen=True)
class EAPIG:
    """EAP with the gradient averaged along a straight path from run A to run B.

    Args:
        steps: points on the path, at the midpoints of as many equal parts.
        where: "inputs" moves what the runs differ in (the embedding, or the injected vector) and lets the model follow;
            "activations" moves one layer's attention or MLP output at a time and leaves the rest of run A, which is
            `2 layers + 1` times the work.
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

    def estimate(self, runs: Runs, show_progress: bool = True) -> Float[Tensor, "example edge"]:
        """The estimated effects."""
        alphas = tuple((step + 0.5) / self.steps for step in range(self.steps))
        if self.where == "inputs":
            return _estimated(runs, lambda chunk: _PointOnPath(runs, chunk, alphas), show_progress)
        graph, total = runs.graph, torch.zeros(len(runs.contrast), len(runs.graph))
        for writers in _groups_of_writers(runs):
            chosen = torch.isin(graph.edges[:, 1], torch.tensor(writers))
            if bool(chosen.any()):
                found = _estimated(runs, lambda chunk: _PointOnPath(runs, chunk, alphas, tuple(writers)), show_progress)
                total[:, chosen] = found[:, chosen]
        return total


def _groups_of_writers(runs: Runs) -> list[list[int]]:
    """Writers that are moved together: the input, each layer's heads, each MLP, the source."""
    graph = runs.graph
    groups = [[0]]
    for layer in range(graph.shape.n_layers):
        groups += [list(range(graph.head_writer(layer, 0), graph.mlp_writer(layer))), [graph.mlp_writer(layer)]]
    return groups + ([] if graph.source is None else [[graph.source_writer]])


# ---- points on the path between the runs --------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _PointOnPath:
    """Where the gradient is taken: for each example a row per alpha, between run A (0) and run B (1).

    Args:
        runs: the runs.
        chunk: the examples.
        alphas: the points.
        writers: move only these writers' outputs (one layer's attention, one MLP, the input or the source).
    """

    runs: Runs
    chunk: Chunk
    alphas: tuple[float, ...]
    writers: tuple[int, ...] | None = None

    def edits(self, rows: Int[Tensor, "row"], alphas: Float[Tensor, "row"]) -> list[Edit | Intervention]:
        """What puts each row (an example of the chunk) where it belongs on the path; alpha 0 is run A itself."""
        runs, graph = self.runs, self.runs.graph
        start = graph.source_writer if graph.source is not None else 0
        moved = (start,) if self.writers is None else self.writers
        kept: list[Edit | Intervention] = list(runs.edits_a) if start not in moved or graph.source is None else []
        site = self._site(moved[0])
        a, b = self.chunk.a.at(site)[rows], self.chunk.b.at(site)[rows]
        slots = [runs.start_slot] if moved[0] == start and graph.source is not None else range(len(runs.slots))
        value = a + alphas[:, None, None] * (b - a)
        lengths = runs.contrast.tokens_a.lengths[self.chunk.rows[rows]].tolist()
        columns = torch.tensor([[runs.slots[slot] % length for slot in slots] for length in lengths])
        if site.component == "resid_pre" and site.layer == 0 and graph.source is None and not bool(alphas.any()):
            return kept
        at = torch.arange(len(rows))[:, None].expand_as(columns)
        return [*kept, Edit(Replace(site, value[:, list(slots)].flatten(0, 1)), at.flatten(), columns.flatten())]

    def _site(self, writer: int) -> Site:
        graph = self.runs.graph
        if writer == 0:
            return Site("resid_pre", 0)
        if writer == graph.source_writer:
            return graph.source.at(None)
        layer, place = divmod(writer - 1, graph.shape.n_heads + 1)
        return Site("mlp_out" if place == graph.shape.n_heads else "attn_out", layer)


# ---- scores from gradients ----------------------------------------------------------------------------------------


def _estimated(
    runs: Runs, point_of: Callable[[Chunk], _PointOnPath], show_progress: bool
) -> Float[Tensor, "example edge"]:
    out = torch.zeros(len(runs.contrast), len(runs.graph))
    if "blocks" in runs.readers.plan.values():
        raise InvalidArgument("This architecture's modules cannot be called alone, so gradients cannot be pulled back "
                              "through them.", got=str(runs.readers.plan), do="use tv.ExactEdges(): it measures.")  # fmt: skip
    with progress_bar("edge attribution", len(runs.contrast), "prompts", show_progress) as bar:
        for chunk in runs.chunks():
            point, difference = point_of(chunk), runs.difference(chunk)
            at_once = _rows_at_once(runs)
            steps, size = len(point.alphas), max(1, at_once // len(point.alphas))
            for start in range(0, len(chunk.rows), size):
                rows = torch.arange(start, min(start + size, len(chunk.rows)))
                for first in range(0, steps, max(1, at_once // len(rows))):
                    alphas = point.alphas[first : first + max(1, at_once // len(rows))]
                    _add_scores(runs, point, rows, alphas, difference[rows], out)
                bar.advance(len(rows))
    return out


def _rows_at_once(runs: Runs) -> int:
    """How many graphs fit into a quarter of the memory budget; more than some thousand tokens gain nothing."""
    width, shape = runs.contrast.tokens_a.width, runs.model.shape
    per_row = bytes_per_prompt(shape, width, 1, runs.model.dtype.itemsize) * shape.n_layers
    return max(1, min(runs.model.memory_budget // 4 // per_row, 4096 // width))


def _add_scores(
    runs: Runs, point: _PointOnPath, rows: Int[Tensor, "n"], alphas: tuple[float, ...],
    difference: Float[Tensor, "n slot writer d_model"], out: Float[Tensor, "example edge"],
) -> None:  # fmt: skip
    """Adds what these points of the path contribute to the examples' scores, one part of one layer at a time."""
    which, n, steps = rows.repeat_interleave(len(alphas)), len(rows), len(point.alphas)
    examples = point.chunk.rows[rows]
    for layer, part, table in _reader_gradients(runs, point, which, torch.tensor(alphas).repeat(n)):
        gradient = table.unflatten(0, (n, len(alphas))).sum(1) / steps
        edges, scores = _scores(runs, difference, layer, part, gradient)
        out[examples[:, None], edges[None]] += scores


def _reader_gradients(
    runs: Runs, point: _PointOnPath, rows: Int[Tensor, "row"], alphas: Float[Tensor, "row"]
) -> Iterator[tuple[int, str, Float[Tensor, "row slot reader d_model"]]]:
    """One hooked pass and its gradient, pulled back to each reader's input: layer, part, and its readers' gradients."""
    graph, model = runs.graph, runs.model
    examples = point.chunk.rows[rows]
    batch = runs.tokens("a", examples.tolist())
    live = graph.valid.any(1).any(0)  # readers with any edge
    parts = [(layer, part) for layer in range(graph.shape.n_layers) for part in PARTS
             if bool(live[graph.readers_of(layer, part).start : graph.readers_of(layer, part).stop].any())]  # fmt: skip
    end = (Site("resid_post", graph.shape.n_layers - 1) if runs.target is None else runs.target.site).tensor
    sites = [Site(SITES[part], layer) for layer, part in parts]
    streams = dict.fromkeys(Site(_read(runs, part), layer, pos=runs.slots) for layer, part in parts)
    _, gradients, attachment = model.gradients(
        batch, [*sites, end], lambda out: _scored(runs, out, examples), point.edits(rows, alphas), list(streams),
        at=None if runs.target is None else end, who="edge attribution",
    )  # fmt: skip
    columns = torch.tensor([[slot % length for slot in runs.slots] for length in batch.lengths.tolist()])
    each = torch.arange(len(rows))[:, None]
    for (layer, part), site in zip(parts, sites):
        stream = attachment.values[Site(_read(runs, part), layer, pos=runs.slots)]
        yield layer, part, pulled_back(runs.readers, layer, part, stream, gradients[site][each, columns]).cpu()
    at_end = torch.zeros(len(rows), len(runs.slots), 1, graph.shape.d_model)
    at_end[:, runs.end_slot, 0] = gradients[end][torch.arange(len(rows)), columns[:, runs.end_slot]].float().cpu()
    yield graph.shape.n_layers, "end", at_end


def _read(runs: Runs, part: str) -> str:
    return "resid_mid" if part == "mlp" and not runs.graph.parallel else "resid_pre"


def _scored(runs: Runs, out: Tensor, examples: Int[Tensor, "row"]) -> Float[Tensor, "row"]:
    """The number at the end of each row, as autograd can follow it."""
    if runs.target is not None:
        lengths = runs.contrast.tokens_a.lengths[examples].tolist()
        columns = torch.tensor([int(runs.target.site.pos) % length for length in lengths])
        return runs.target.read(out[torch.arange(len(out)), columns])
    return checked(runs.metric, out, runs.answers.select(examples).to(out.device), "a gradient's run")


def pulled_back(
    readers: Readers, layer: int, part: str, stream: Float[Tensor, "n slot d_model"], gradient: Tensor
) -> Float[Tensor, "n slot reader d_model"]:
    """The gradient at each reader's own input, from that at what it computes.

    Args:
        readers: the model's.
        layer: of the readers.
        part: "q", "k", "v" (a reader per head) or "mlp".
        stream: what they read.
        gradient: at the part's site, `n slot head d_head` or `n slot d_model`.
    """
    stream = stream.to(gradient.device, gradient.dtype)
    if part == "mlp":
        with torch.enable_grad():
            x = stream.detach().requires_grad_()
            (found,) = torch.autograd.grad(readers.mlp(layer, x), x, gradient)
        return found[:, :, None].float()
    weight = readers.weights(layer, part).weight.detach()
    normed = torch.einsum("nshk,dhk->nshd", gradient, weight)
    with torch.enable_grad():
        x = stream.detach()[:, :, None].expand(normed.shape).contiguous().requires_grad_()
        out = readers.norm(layer, x)
        if out is x:
            return normed.float()
        (found,) = torch.autograd.grad(out, x, normed)
    return found.float()


def _scores(
    runs: Runs, difference: Float[Tensor, "n slot writer d_model"], layer: int, part: str,
    gradient: Float[Tensor, "n slot reader d_model"],
) -> tuple[Int[Tensor, "m"], Float[Tensor, "n m"]]:  # fmt: skip
    """The edges into these readers, and minus each writer's change times the gradient, summed over a place's tokens."""
    graph = runs.graph
    span = range(graph.end_reader, graph.n_readers) if part == "end" else graph.readers_of(layer, part)
    edges = graph.into(span)
    p, w, r = graph.edges[edges].T.contiguous()
    writers = w.unique()
    table = -torch.matmul(difference[:, :, writers], gradient.transpose(-1, -2))  # n slot writer reader
    if runs.slot_place.tolist() != list(range(len(graph.positions))):  # places of several tokens
        summed = torch.zeros(len(table), len(graph.positions), *table.shape[2:])
        table = summed.index_add_(1, runs.slot_place, table)
    return edges, table[:, p, torch.searchsorted(writers, w), r - span.start]
