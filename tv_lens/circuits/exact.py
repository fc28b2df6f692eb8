"""The effect of an edge, measured: the clean run with this one edge carrying its writer's corrupted output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tv_lens.circuits.contrast_passes import ContrastPasses
from tv_lens.circuits.traces import Chunk
from tv_lens.intervention import Replace
from tv_lens.metrics import Readout
from tv_lens.model.capture import on_host
from tv_lens.model.readers import HELD, PARTS, SITES
from tv_lens.progress import Bar
from tv_lens.progress import progress as progress_bar
from tv_lens.rows.edits import PlacedEdit, Row, batch_entries
from tv_lens.rows.engine import run_rows
from tv_lens.site import Site
from tv_lens.storage.runner import Piece, Work

ROWS_AT_ONCE = 40_000  # each row is a few Python objects; beyond this number they need noticeable memory


@dataclass(frozen=True)
class _Reading:
    """The measured edges into one part of one layer at one place."""

    layer: int
    part: str
    place: int
    columns: Int[Tensor, "m"]  # which of the requested edges
    writers: Int[Tensor, "m"]
    heads: Int[Tensor, "m"]


def effects_in_shards(
    passes: ContrastPasses, edges: Int[Tensor, "m"], work: Work, norm: str = HELD
) -> tuple[Float[Tensor, "example m"], dict[str, Any]]:
    """The measured effect of these edges in every example, some per shard; and the provenance of the folder."""
    examples = list(range(len(passes.contrast)))
    size = max(1, ROWS_AT_ONCE // max(1, len(edges)))
    groups = [examples[start : start + size] for start in range(0, len(examples), size)]

    def effects(rows: list[int], bar: Bar) -> Piece:
        return {"effects": measured_effects(passes, edges, rows, norm=norm, bar=bar)}

    work = replace(work, config={**work.config, "edges": edges})
    steps = [len(rows) * len(edges) for rows in groups]
    finished = work.run(effects, groups, label="exact edges", unit="edges", steps=steps)
    return torch.cat([torch.from_numpy(shard["effects"]) for shard in finished]), finished.provenance


def measured_effects(
    passes: ContrastPasses,
    edges: Int[Tensor, "m"],
    examples: Sequence[int] | None = None,
    *,
    norm: str = HELD,
    progress: bool = True,
    bar: Bar | None = None,
) -> Float[Tensor, "example m"]:
    """The measured effect of each of these edges: the clean metric less that with the edge corrupted, per example.

    Args:
        passes: the clean and the corrupted pass.
        edges: which of the graph's edges.
        examples: on which examples; all if None.
        norm: as in `ExactEdges`.
        progress: show a progress bar on a terminal or in a notebook.
        bar: a bar that is shown already, to advance by one step per edge and example instead.

    Source:
        Wang et al. 2022 (arXiv 2211.00593) and Goldowsky-Dill et al. 2023 (arXiv 2304.05969), path patching of one
        edge: only the named reader sees the change directly, everything downstream is recomputed.
    """
    chosen = list(range(len(passes.contrast)) if examples is None else examples)
    place = {example: i for i, example in enumerate(chosen)}
    out = torch.full((len(chosen), len(edges)), float("nan"), dtype=torch.float32, device="cpu")
    readings, ends = _readings(passes, edges)
    group = max(1, ROWS_AT_ONCE // max(1, len(edges)))
    clean = passes.baselines[0]
    with progress_bar("exact edges", len(chosen) * len(edges), "edges", progress and bar is None) as own:
        for start in range(0, len(chosen), group):
            for chunk in passes.chunks(rows=chosen[start : start + group]):
                where = torch.tensor([place[row] for row in chunk.rows.tolist()], dtype=torch.long, device="cpu")
                difference, baseline = passes.difference(chunk, norm), clean[chunk.rows]
                columns, writers = ends
                if len(writers):
                    at_end = difference[:, passes.end_slot]
                    changed = passes.end_stream(chunk.clean)[:, None] + at_end[:, writers.to(at_end.device)]
                    numbers = passes.result(changed.flatten(0, 1), chunk.rows.repeat_interleave(len(writers)))
                    out[where[:, None], columns] = baseline[:, None] - numbers.view(len(where), -1)
                for some in _in_parts(readings, ROWS_AT_ONCE // len(where)):
                    columns, values = _measured(passes, chunk, difference, some)
                    out[where[:, None], columns[None]] = baseline[:, None] - values
                (bar or own).advance(len(where) * len(edges))
    return out


def _readings(
    passes: ContrastPasses, edges: Int[Tensor, "m"]
) -> tuple[list[_Reading], tuple[Int[Tensor, "e"], Int[Tensor, "e"]]]:
    """The edges by what reads them, and the columns and writers of those into the end."""
    graph = passes.graph
    p, w, r = graph.edges[edges].T
    readings = []
    for layer in range(graph.shape.n_layers):
        for part in PARTS:
            span = graph.readers_of(layer, part)
            inside = (r >= span.start) & (r < span.stop)
            for place in p[inside].unique().tolist():
                columns = (inside & (p == place)).nonzero()[:, 0]
                readings.append(_Reading(layer, part, place, columns, w[columns], r[columns] - span.start))
    ends = (r == graph.end_reader).nonzero()[:, 0]
    return readings, (ends, w[ends])


def _in_parts(readings: Sequence[_Reading], size: int) -> Iterator[list[_Reading]]:
    """The readings in parts of at most `size` edges, or of one reading."""
    part: list[_Reading] = []
    for reading in readings:
        if part and sum(len(one.columns) for one in part) + len(reading.columns) > size:
            yield part
            part = []
        part.append(reading)
    if part:
        yield part


def _measured(
    passes: ContrastPasses,
    chunk: Chunk,
    difference: Float[Tensor, "example slot writer d_model"],
    readings: Sequence[_Reading],
) -> tuple[Int[Tensor, "m"], Float[Tensor, "example m"]]:
    """The metric under each edge's corruption, all readers' edges in one batch of rows; and which edges these are."""
    by_reading = {at: _values(passes, chunk, difference, reading) for at, reading in enumerate(readings)}
    values = on_host(by_reading).values()
    before = _before(passes, chunk)
    rows = [row for reading, value in zip(readings, values) for row in _rows(passes, chunk, reading, value, before)]
    columns = torch.cat([reading.columns for reading in readings])
    owners = torch.tensor([row.prompt for row in rows], dtype=torch.long, device="cpu")
    if passes.target is not None:
        return columns, _at_target(passes, chunk, rows).view(-1, len(chunk.rows)).T
    readout = Readout(passes.metric, passes.answers, chunk.rows[owners])
    metrics = run_rows(
        passes.model, passes.tokens("clean", chunk.rows.tolist()), rows, readout, who="exact edges", progress=False
    )
    return columns, metrics.values.view(-1, len(chunk.rows)).T


def _values(
    passes: ContrastPasses, chunk: Chunk, difference: Float[Tensor, "example slot writer d_model"], reading: _Reading
) -> Float[Tensor, "example here some *heads d"]:
    """What the reader's part computes once one writer's part of its stream is exchanged, on the model's device."""
    layer, part = reading.layer, reading.part
    slots, writers = (passes.slot_place == reading.place).nonzero()[:, 0].tolist(), reading.writers.unique()
    first, end = int(writers[0]), int(writers[-1]) + 1
    changes = difference[:, :, first:end]  # writers that stand side by side, at tokens that do, are a view
    if end - first != len(writers):
        changes = changes[:, :, (writers - first).to(passes.device)]
    stream = chunk.clean.read_by(layer, part)
    here = slice(slots[0], slots[-1] + 1)
    if here.stop - here.start != len(slots):
        here = torch.tensor(slots, dtype=torch.long, device=passes.device)
    changed = stream[:, here, None] + changes[:, here]  # example slot writer d_model
    return passes.readers.value(layer, part, changed.flatten(0, 2)).unflatten(0, changed.shape[:3])


def _rows(
    passes: ContrastPasses,
    chunk: Chunk,
    reading: _Reading,
    values: Float[Tensor, "example here some *heads d"],
    before: Sequence[Sequence[tuple[PlacedEdit, ...]]],
) -> list[Row]:
    """One row per edge and example, edges first: the reader's value once the one writer's part is exchanged."""
    layer, part, n = reading.layer, reading.part, len(chunk.rows)
    slots, which = (passes.slot_place == reading.place).nonzero()[:, 0], reading.writers.unique(return_inverse=True)[1]
    sites = [
        Site(SITES[part], layer, head=head)
        for head in (range(passes.readers.n_heads(part)) if part != "mlp" else [None])
    ]
    widths = passes.contrast.clean.lengths[chunk.rows].tolist()
    places = [tuple(passes.slots[slot] % width for slot in slots.tolist()) for width in widths]
    rows = []
    for writer, head in zip(which.tolist(), reading.heads.tolist()):
        value = values[:, :, writer] if part == "mlp" else values[:, :, writer, head]
        site = sites[0] if part == "mlp" else sites[head]
        rows += [Row(i, (*before[layer][i], PlacedEdit(Replace(site, value[i]), places[i]))) for i in range(n)]
    return rows


def _before(passes: ContrastPasses, chunk: Chunk) -> list[list[tuple[PlacedEdit, ...]]]:
    """The edits that make a row the clean run, apart from its own edit, by layer and example.

    At the last token nothing but its own stream distinguishes the clean from the corrupted run, so a row can enter at
    the reader's layer with the clean stream instead of at the source's layer with the source.
    """
    widths, layers = passes.contrast.clean.lengths[chunk.rows].tolist(), range(passes.model.n_layers)
    if passes.slots != (-1,):
        edits = [tuple(PlacedEdit(one, (int(one.site.pos) % width,)) for one in passes.clean_edits) for width in widths]
        return [edits for _ in layers]
    streams = dict(zip(chunk.clean.pre, torch.stack(list(chunk.clean.pre.values())).cpu()))
    return [
        [
            (PlacedEdit(Replace(Site("resid_pre", layer), stream), (width - 1,)),)
            for stream, width in zip(streams.get(layer, ()), widths)
        ]
        for layer in layers
    ]


def _at_target(passes: ContrastPasses, chunk: Chunk, rows: Sequence[Row]) -> Float[Tensor, "row"]:
    """What is read at the target under each row's edits, by whole passes up to its layer."""
    base, site, numbers = passes.tokens("clean", chunk.rows.tolist()), passes.target.site, []
    size = max(1, min(512, 4096 // base.width))
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        batch = base.select([row.prompt for row in part])
        edits = batch_entries(part)
        _, attachment = passes.model.forward(batch, edits, [site], stop_after=site.layer, who="exact edges")
        numbers.append(passes.target.read(attachment.values[site].float().cpu()))
    return torch.cat(numbers)
