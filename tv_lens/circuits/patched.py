"""A model that runs only a circuit: its edges carry what their writers write in this run, all others corrupted values.

Many circuits run side by side, a row for each example and circuit. Per layer the stream that each reader would see is
put together from the writers upstream, the reader's own value follows from it (`model/readers.py`), the model's own
block turns queries, keys and values into head outputs (`attention_alone.py`), and so on to the end. The model's own
stream is not used. Edges that lie on no path change nothing and are left out first; a layer's attention or MLP is then
computed for those circuits alone that use it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tv_lens.circuits.attention_alone import AttentionAlone
from tv_lens.circuits.contrast_passes import ContrastPasses
from tv_lens.circuits.traces import Chunk
from tv_lens.model.passes import tokens_at_once
from tv_lens.model.readers import HELD
from tv_lens.progress import progress as progress_bar
from tv_lens.rows import trial
from tv_lens.rows.edits import Row
from tv_lens.rows.walk import BaseRun, base_run
from tv_lens.site import Site

MASKS_AT_ONCE = 1 << 24  # bytes of the tables of circuits that are put on paths at once
HOST_BYTES, HOST_TOKENS = 40 << 20, 128  # what keeps one core busy: more rows would take more memory and no less time


def run_circuits(
    passes: ContrastPasses, masks: Bool[Tensor, "circuit edge"], *, first_layer: int = 0, progress: bool = True
) -> Float[Tensor, "example circuit"]:
    """The number at the end of every example under every circuit.

    Args:
        passes: the clean and the corrupted pass.
        masks: the circuits, over `passes.graph.edges`.
        first_layer: below it every circuit holds all edges, so their writers do what they do in the clean run.
        progress: show a progress bar on a terminal or in a notebook.

    Source:
        Conmy et al. 2023 (arXiv 2304.14997), section 2: edges outside the circuit carry the corrupted run's values.
    """
    out = torch.zeros(len(passes.contrast), len(masks), dtype=torch.float32, device="cpu")
    circuits, which = _distinct(passes, masks)
    with progress_bar("circuits", out.numel(), "runs", progress) as bar:
        for length in sorted(set(passes.contrast.clean.lengths.tolist())):
            rows = (passes.contrast.clean.lengths == length).nonzero()[:, 0].tolist()
            for chunk in passes.chunks(rows=rows):
                patched = _Patched(passes, chunk, first_layer)
                for examples, some in patched.batches(len(circuits)):
                    metrics = patched.run(examples, passes.graph.dense(circuits[some.start : some.stop]))
                    columns = ((which >= some.start) & (which < some.stop)).nonzero()[:, 0]
                    numbers = chunk.rows[examples.start : examples.stop]
                    out[numbers[:, None], columns[None]] = metrics[:, which[columns] - some.start]
                    bar.advance(len(numbers) * len(columns))
    return out


def _distinct(
    passes: ContrastPasses, masks: Bool[Tensor, "circuit edge"]
) -> tuple[Bool[Tensor, "distinct edge"], Int[Tensor, "circuit"]]:
    """The circuits that differ once edges on no path are left out; and which of them each circuit is.

    Where a norm stands after attention, a head that leads nowhere still moves the scale of the others: edges stay.
    """
    graph, known, which = passes.graph, {}, []
    distinct: list[Tensor] = []
    for part in masks.split(max(1, MASKS_AT_ONCE // graph.valid.numel())):
        for pruned in part if passes.readers.post_norm else graph.pruned(part):
            digest = hashlib.blake2b(np.packbits(pruned.numpy()).data, digest_size=16).digest()
            if digest not in known:
                known[digest] = len(distinct)
                distinct.append(pruned)
            which.append(known[digest])
    found, of_each = torch.stack(distinct), torch.tensor(which, dtype=torch.long, device="cpu")
    order = found.sum(1).argsort(stable=True)  # small ones first: those that use a layer then stand side by side
    return found[order], order.argsort()[of_each]


@dataclass(frozen=True, eq=False)
class _Patched:
    """Circuits on a chunk of examples of one length."""

    passes: ContrastPasses
    chunk: Chunk
    first_layer: int

    @cached_property
    def layers(self) -> range:
        """The layers in which something can differ from both the clean and the corrupted run."""
        graph = self.passes.graph
        first, last = self.first_layer, graph.shape.n_layers
        if graph.source is not None:
            first = max(first, int(graph.source.layer) + (graph.source.component == "resid_post"))
        if graph.target is not None:
            last = int(graph.target.layer) + (graph.target.component != "resid_pre")
        return range(first, last)

    @cached_property
    def known_writers(self) -> tuple[slice, ...]:
        """The writers that no circuit can change, as slices: from where all starts, and below the first layer."""
        graph = self.passes.graph
        first = 0 if graph.source is None else int(graph.source.layer) + (graph.source.component == "resid_post")
        below = slice(graph.head_writer(first, 0), graph.head_writer(self.layers.start, 0))
        start = 0 if graph.source is None else graph.source_writer
        return (slice(start, start + 1), *([below] if below.start < below.stop else []))

    @cached_property
    def attention(self) -> AttentionAlone:
        """The attention of each layer on copies of the chunk's prompts."""
        passes, model = self.passes, self.passes.model
        width = int(passes.contrast.clean.lengths[self.chunk.rows[0]])
        columns = torch.tensor([slot % width for slot in passes.slots], dtype=torch.long, device="cpu")
        start, columns = int(columns.min()), columns.to(model.device)
        wants = passes.readers.post_norm
        if trial.why_not(model, [Row(0)]):
            prompts = passes.tokens("corrupted", self.chunk.rows.tolist())
            return AttentionAlone(model, None, 0, columns, prompts, self._corrupted_streams, wants)
        return AttentionAlone(model, self._base, start, columns, wants_attn_out=wants)

    @property
    def _base(self) -> BaseRun:
        """The prompts' corrupted run without its edits: rows use it before the first token that differs."""
        if "base run" not in self.chunk.derived:
            tokens = self.passes.tokens("corrupted", self.chunk.rows.tolist())
            self.chunk.derived["base run"] = base_run(self.passes.model, tokens)
        return self.chunk.derived["base run"]

    @property
    def _corrupted_streams(self) -> dict[int, Float[Tensor, "example pos d_model"]]:
        """The stream into each layer at every token, for models whose rows cannot share a prefix."""
        model, sites = self.passes.model, {layer: Site("resid_pre", layer) for layer in self.layers}
        with model.intervene(*self.passes.corrupted_edits):
            captured = model.capture(self.passes.tokens("corrupted", self.chunk.rows.tolist()), list(sites.values()))
        return {layer: captured[site].to(model.device, model.dtype) for layer, site in sites.items()}

    def batches(self, n_circuits: int) -> Iterator[tuple[range, range]]:
        """Examples of the chunk and circuits: as many rows as a quarter of the budget holds, and as keep it busy."""
        graph, model = self.passes.graph, self.passes.model
        shape, slots = model.shape, len(self.passes.slots)
        writers, readers = len(self.layers) * (shape.n_heads + 1), graph.readers_per_layer + shape.n_heads
        row = 4 * slots * (shape.d_model * (writers + 2 * readers + 8) + 3 * shape.d_mlp)
        size = max(1, min(model.memory_budget // 4 // row, tokens_at_once(model.device) // slots))
        if model.device.type == "cpu":  # more would be no faster
            size = max(1, min(size, max(HOST_BYTES // row, HOST_TOKENS // slots)))
        per = max(1, min(n_circuits, size))
        n = max(1, size // per)
        for start in range(0, len(self.chunk.rows), n):
            for first in range(0, n_circuits, per):
                yield (range(start, min(start + n, len(self.chunk.rows))), range(first, min(first + per, n_circuits)))

    def run(
        self, examples: range, tables: Bool[Tensor, "circuit position writer reader"]
    ) -> Float[Tensor, "example circuit"]:
        """The number at the end under each circuit."""
        graph, passes, some = self.passes.graph, self.passes, _Batch(self, examples, tables)
        for layer in self.layers:
            some.attend(layer)
            some.think(layer)
        base = passes.end_stream(self.chunk.corrupted)[examples.start : examples.stop].float()
        readers = range(graph.end_reader, graph.end_reader + 1)
        change = some.change(readers, graph.head_writer(self.layers.stop, 0), slice(0, len(tables)), passes.end_slot)
        owners = self.chunk.rows[examples.start : examples.stop].repeat(len(tables))
        return passes.result((base + change[:, :, 0, 0]).flatten(0, 1), owners).view(len(tables), -1).T


class _Batch:
    """Some circuits on some examples, layer by layer: what their writers wrote so far, less the corrupted run's.

    Args:
        patched: the examples.
        examples: which of them.
        tables: the circuits, without edges that lie on no path.
    """

    def __init__(self, patched: _Patched, examples: range, tables: Bool[Tensor, "circuit position writer reader"]):
        self.patched, self.passes, self.graph = patched, patched.passes, patched.passes.graph
        self.chunk, self.examples = patched.chunk, slice(examples.start, examples.stop)
        model, slots = self.passes.model, len(self.passes.slots)
        self.users = {layer: self._users_of(layer, tables) for layer in patched.layers}  # on the host, before all else
        self.tables = tables.to(model.device)
        self.places = self.passes.slot_place.to(model.device)
        difference = self.passes.difference(self.chunk)[self.examples]
        self.known = [(writers, -difference[:, :, writers]) for writers in patched.known_writers]
        self.first = self.graph.head_writer(patched.layers.start, 0)
        shape = (len(tables), len(examples), slots, len(patched.layers) * (self.graph.shape.n_heads + 1))
        self.own = torch.zeros(*shape, self.graph.shape.d_model, dtype=model.dtype, device=model.device)

    def _users_of(self, layer: int, tables: Bool[Tensor, "circuit position writer reader"]) -> tuple[slice, slice]:
        """The circuits from the first to the last with an edge into a layer's attention, and into its MLP."""
        queries, mlp = self.graph.readers_of(layer, "q"), self.graph.readers_of(layer, "mlp")
        spans = (range(queries.start, mlp.start), mlp)
        used = [tables[..., span.start : span.stop].flatten(1).any(1).nonzero()[:, 0].tolist() for span in spans]
        attend, think = (slice(which[0], which[-1] + 1) if which else slice(0, 0) for which in used)
        return attend, think

    def change(
        self, readers: range, upto: int, users: slice, slot: int | None = None
    ) -> Float[Tensor, "c n slot reader d_model"]:
        """By how much the streams that these readers see differ from the corrupted run's, under some circuits.

        Args:
            readers: the readers.
            upto: the writers before this one are upstream.
            users: which circuits.
            slot: one slot; all if None.
        """
        slots = slice(None) if slot is None else slice(slot, slot + 1)
        table = self.tables[users, :, :, readers.start : readers.stop]
        chosen = table[:, self.places[slots]].transpose(-1, -2).to(self.own.dtype)  # c slot reader writer
        out = None
        for writers, difference in self.known:  # the same for all circuits: one product of them all per slot
            shared = chosen[..., writers].transpose(0, 1).flatten(1, 2)  # slot c*reader writer
            added = torch.matmul(shared, difference[:, slots]).unflatten(2, (-1, len(readers)))
            out = added.permute(2, 0, 1, 3, 4) if out is None else out.add_(added.permute(2, 0, 1, 3, 4))
        if upto > self.first:
            own = self.own[users, :, slots, : upto - self.first]
            out = torch.matmul(chosen[:, None, :, :, self.first : upto], own).add_(out)
        return out

    def _only_slot(self, layer: int) -> int | None:
        """The one slot where what a layer writes is read, in the last layer; None elsewhere."""
        return self.passes.end_slot if layer == self.patched.layers[-1] else None

    def attend(self, layer: int) -> None:
        """What the heads of a layer write."""
        users, passes = self.users[layer][0], self.passes
        if users.start == users.stop:
            return
        trace, graph, only = self.chunk.corrupted, self.graph, self._only_slot(layer)
        first, before = graph.head_writer(layer, 0), trace.pre[layer][self.examples]
        keys = range(graph.readers_of(layer, "k").start, graph.readers_of(layer, "v").stop)
        values = {}
        for readers, parts, slot in ((graph.readers_of(layer, "q"), "q", only), (keys, "kv", None)):
            seen = self.change(readers, first, users, slot)
            seen += before[:, slice(None) if slot is None else slice(slot, slot + 1), None]
            for part, one in zip(parts, seen.chunk(len(parts), dim=3)):
                value = passes.readers.value_each(layer, part, one.flatten(0, 2))
                values[part] = value.unflatten(0, (-1, seen.shape[2]))  # row slot head d_head
        if only is not None:  # the other queries' heads write where nothing reads
            query = values["q"]
            values["q"] = query.new_zeros(len(query), before.shape[1], *query.shape[2:])
            values["q"][:, only] = query[:, 0]
        self._write_heads(layer, users, values)

    def _write_heads(self, layer: int, users: slice, values: Mapping[str, Tensor]) -> None:
        """What heads with these queries, keys and values write."""
        trace, passes, first = self.chunk.corrupted, self.passes, self.graph.head_writer(layer, 0)
        only, c = self._only_slot(layer), users.stop - users.start
        slots = slice(None) if only is None else slice(only, only + 1)
        n = self.examples.stop - self.examples.start
        owners = torch.arange(self.examples.start, self.examples.stop, device=passes.device).repeat(c)
        found = self.patched.attention.heads(layer, owners, values)
        z = found.z[:, slots].unflatten(0, (c, n))
        attn = trace.attn[layer][self.examples, slots].expand(c, -1, -1, -1)
        now = attn if found.attn_out is None else found.attn_out[:, slots].unflatten(0, (c, n))
        before = trace.z[layer][self.examples, slots].expand_as(z)
        writes = passes.readers.exchanged(layer, before, z, attn, now, HELD)
        self.own[users, :, slots, first - self.first : first - self.first + writes.shape[-2]] = writes

    def think(self, layer: int) -> None:
        """What the MLP of a layer writes."""
        users, passes, mlp = self.users[layer][1], self.passes, self.graph.mlp_writer(layer)
        if users.start == users.stop:
            return
        trace, only = self.chunk.corrupted, self._only_slot(layer)
        slots = slice(None) if only is None else slice(only, only + 1)
        upto = self.graph.head_writer(layer, 0) if self.graph.parallel else mlp
        seen = self.change(self.graph.readers_of(layer, "mlp"), upto, users, only)[:, :, :, 0]
        seen += trace.read_by(layer, "mlp")[self.examples, slots]
        out = passes.readers.value(layer, "mlp", seen.flatten(0, 2)).unflatten(0, seen.shape[:3])
        self.own[users, :, slots, mlp - self.first] = out - trace.mlp[layer][self.examples, slots]
