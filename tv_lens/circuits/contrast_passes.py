"""The clean and the corrupted pass of every example, what every writer wrote in each, and the metric at the end.

The clean pass holds what is traced and the corrupted pass lacks it (`contrast.py` says what that is).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tv_lens.batch import TokenBatch
from tv_lens.circuits.attention_alone import unpadded
from tv_lens.circuits.contrast import CircuitQuestion, Contrast, Projection, contrast_of, positions_for
from tv_lens.circuits.graph import Graph
from tv_lens.circuits.traces import Chunk, Trace, traced
from tv_lens.errors import InvalidArgument, OutOfMemory
from tv_lens.intervention import Intervention
from tv_lens.metrics import Answers, Metric, MetricInfo, Readout, as_metric, info_of, log_prob, logit_diff
from tv_lens.model.editing import placed_within
from tv_lens.model.hooked_model import HookedModel
from tv_lens.model.passes import tokens_at_once
from tv_lens.model.readers import HELD, Readers, readers_of
from tv_lens.tasks.prompts import PromptPairs, Prompts


@dataclass(frozen=True, eq=False)
class ContrastPasses:
    """The clean and the corrupted pass of every example: prompts, interventions, graph, and what is read at the end.

    Attributes:
        slots: the token positions at which edges live.
        slot_place: for each of them, its place among the graph's positions.
    """

    model: HookedModel
    graph: Graph
    contrast: Contrast
    clean_edits: tuple[Intervention, ...]
    corrupted_edits: tuple[Intervention, ...]
    metric: Metric
    target: Projection | None
    reference: Float[Tensor, "example d_vocab"] | None = None

    @property
    def readers(self) -> Readers:
        return readers_of(self.model)

    @cached_property
    def slots(self) -> tuple[int, ...]:
        return tuple(sorted(m for p in self.graph.positions for m in p.members))

    @cached_property
    def slot_place(self) -> Int[Tensor, "slot"]:
        place = {m: i for i, p in enumerate(self.graph.positions) for m in p.members}
        return torch.tensor([place[slot] for slot in self.slots], dtype=torch.long, device="cpu")

    @cached_property
    def places_are_slots(self) -> bool:
        """Whether every place among the graph's positions is one token, in the same order."""
        return [position.members for position in self.graph.positions] == [(slot,) for slot in self.slots]

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def layers(self) -> range:
        """The layers between the source and the target, with theirs."""
        first = 0 if self.graph.source is None else int(self.graph.source.layer)
        return range(first, self.model.n_layers if self.target is None else int(self.target.site.layer) + 1)

    def columns(self, rows: Sequence[int]) -> Int[Tensor, "row slot"]:
        """The token of each slot in each of these examples."""
        slots = torch.tensor(self.slots, dtype=torch.long, device="cpu")
        lengths = self.contrast.clean.lengths[torch.tensor(list(rows), dtype=torch.long, device="cpu")]
        return slots[None] % lengths[:, None].to("cpu")

    def _slot_of(self, pos: int) -> int:
        width = int(self.contrast.clean.lengths[0])
        return self.slots.index(pos if pos in self.slots else pos % width)

    @cached_property
    def start_slot(self) -> int | None:
        return None if self.graph.source is None else self._slot_of(int(self.graph.source.pos))

    @cached_property
    def end_slot(self) -> int:
        return self._slot_of(-1 if self.target is None else int(self.target.site.pos))

    @property
    def info(self) -> MetricInfo:
        """What the number at the end means."""
        if self.target is None:
            return info_of(self.metric)
        return MetricInfo(
            f"projection at {self.target.site}", "lengths of the direction", "higher: further along it", 0.0
        )

    @cached_property
    def _last_chunk(self) -> dict[tuple[int, ...], Chunk]:
        """The chunk that was traced last, by its examples."""
        return {}

    # ---- tracing --------------------------------------------------------------------------------------------------

    def chunks(self, copies: int = 1, rows: Sequence[int] | None = None) -> Iterator[Chunk]:
        """Examples with their traces, as many at once as a quarter of the memory budget holds.

        Args:
            copies: how many tables `slot writer d_model` the caller keeps per example.
            rows: the examples; all if None.
        """
        shape, slots, itemsize = self.model.shape, len(self.slots), self.model.dtype.itemsize
        table = slots * self.graph.n_writers * shape.d_model * itemsize
        traces = 2 * slots * len(self.layers) * (3 * shape.d_model + shape.n_heads * shape.d_head) * itemsize
        size = max(1, self.model.memory_budget // 4 // (table * (copies + 1) + traces))
        rows = list(range(len(self.contrast)) if rows is None else rows)
        for start in range(0, len(rows), size):
            part = tuple(rows[start : start + size])
            if part not in self._last_chunk:  # if all examples fit into one chunk, they are traced once
                around = [chunk for held, chunk in self._last_chunk.items() if set(part) <= set(held)]
                if around:
                    yield around[0].of(part)
                    continue
                self._last_chunk.clear()
                self._last_chunk[part] = Chunk(torch.tensor(part, dtype=torch.long, device="cpu"), *self._traces(part))
            yield self._last_chunk[part]

    def tokens(self, side: str, rows: Sequence[int]) -> TokenBatch:
        """What the "clean" or the "corrupted" pass reads in some examples."""
        tokens = self.contrast.clean if side == "clean" else self.contrast.corrupted
        return self.model.tokens(tokens.select(list(rows)))

    def edits(self, side: str) -> tuple[Intervention, ...]:
        """The interventions of the "clean" or the "corrupted" pass."""
        return self.clean_edits if side == "clean" else self.corrupted_edits

    def trace(self, side: str, rows: Sequence[int]) -> Trace:
        """The activations of the "clean" or the "corrupted" pass in some examples."""
        tokens, edits = self.tokens(side, rows), self.edits(side)
        return traced(self.model, tokens, edits, self.layers, self.slots, self.graph.parallel)

    def _traces(self, rows: Sequence[int]) -> tuple[Trace, Trace]:
        """The activations of the clean and of the corrupted pass; of one pass over both where one batch holds both."""
        clean, corrupted = self.tokens("clean", rows), self.tokens("corrupted", rows)
        if clean.ids.shape == corrupted.ids.shape and 2 * len(clean) * clean.width <= tokens_at_once(self.device):
            with contextlib.suppress(OutOfMemory):  # then one after the other
                return self._trace_together(clean, corrupted)
        return self.trace("clean", rows), self.trace("corrupted", rows)

    def _trace_together(self, clean: TokenBatch, corrupted: TokenBatch) -> tuple[Trace, Trace]:
        tokens = TokenBatch(torch.cat([clean.ids, corrupted.ids]), torch.cat([clean.mask, corrupted.mask]))
        edits = [placed_within(edit, clean) for edit in self.clean_edits]
        later = [placed_within(edit, corrupted) for edit in self.corrupted_edits]
        edits += [replace(edit, rows=edit.rows + len(clean)) for edit in later]
        trace = traced(self.model, tokens, edits, self.layers, self.slots, self.graph.parallel)
        return trace.part(slice(0, len(clean))), trace.part(slice(len(clean), None))

    # ---- writers ----------------------------------------------------------------------------------------------------

    @cached_property
    def _live(self) -> Float[Tensor, "slot writer 1"]:
        """1 where a writer has edges at a slot, and 0 where the source cuts it off."""
        live = self.graph.valid.any(2)[self.slot_place].to(self.model.dtype)
        return live[..., None].to(self.device)

    def difference(self, chunk: Chunk, norm: str = HELD) -> Float[Tensor, "example slot writer d_model"]:
        """What each writer wrote in the corrupted pass less what it wrote in the clean one; zero without edges.

        On the model's device and in its dtype.

        Args:
            chunk: the examples.
            norm: how a norm after attention goes with one head's change; see `Readers.exchanged`.
        """
        if not self.readers.post_norm:
            norm = HELD
        if norm not in chunk.derived:
            chunk.derived[norm] = self._difference(chunk, norm).mul_(self._live)
        return chunk.derived[norm]

    def _difference(self, chunk: Chunk, norm: str) -> Float[Tensor, "example slot writer d_model"]:
        graph, clean, corrupted = self.graph, chunk.clean, chunk.corrupted
        out = self._empty_table(clean)
        if 0 in clean.pre:
            torch.sub(corrupted.pre[0], clean.pre[0], out=out[:, :, 0])
        for layer in self.layers:
            heads, mlp = slice(graph.head_writer(layer, 0), graph.mlp_writer(layer)), graph.mlp_writer(layer)
            sides = clean.z[layer], corrupted.z[layer], clean.attn[layer], corrupted.attn[layer]
            out[:, :, heads] = self.readers.exchanged(layer, *sides, norm)
            out[:, :, mlp] = corrupted.mlp[layer] - clean.mlp[layer]
        if self.start_slot is not None:
            at = (side.at(self.graph.source)[:, self.start_slot] for side in (corrupted, clean))
            out[:, self.start_slot, -1] = next(at) - next(at)
        return out

    def _empty_table(self, trace: Trace) -> Float[Tensor, "example slot writer d_model"]:
        """Zeros where no layer of the trace writes; the rest is to be filled."""
        n, slots, d_model = trace.post.shape
        out = trace.post.new_empty(n, slots, self.graph.n_writers, d_model)
        out[:, :, : self.graph.head_writer(self.layers.start, 0)] = 0
        out[:, :, self.graph.head_writer(self.layers.stop, 0) :] = 0
        return out

    def writes(self, trace: Trace) -> Float[Tensor, "example slot writer d_model"]:
        """What every writer between the source and the target wrote to the stream."""
        graph, out = self.graph, self._empty_table(trace)
        if 0 in trace.pre:
            out[:, :, 0] = trace.pre[0]
        for layer in self.layers:
            first, mlp = graph.head_writer(layer, 0), graph.mlp_writer(layer)
            out[:, :, first:mlp] = self.readers.head_writes(layer, trace.z[layer], trace.attn[layer])
            out[:, :, mlp] = trace.mlp[layer]
        if self.start_slot is not None:
            out[:, self.start_slot, -1] = trace.at(self.graph.source)[:, self.start_slot]
        return out

    # ---- the end ----------------------------------------------------------------------------------------------------

    def end_stream(self, trace: Trace) -> Float[Tensor, "example d_model"]:
        """The stream where the result is read."""
        stream = trace.post if self.target is None else trace.at(self.target.site)
        return stream[:, self.end_slot]

    @property
    def answers(self) -> Answers:
        answers = self.contrast.answers
        return answers if self.reference is None else replace(answers, reference=self.reference)

    def result(self, streams: Float[Tensor, "n d_model"], owners: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
        """The number at the end that follows from each stream there; `owners` are its examples."""
        if self.target is not None:
            return self.target.read(streams.float()).cpu()
        readout, narrow = Readout(self.metric, self.answers, owners), self.model.registry.can_narrow
        size = max(1, self.model.memory_budget // 8 // (self.model.shape.d_vocab * 8))
        numbers = []
        for start in range(0, len(streams), size):
            rows = torch.arange(start, min(start + size, len(streams)), device="cpu")
            columns = readout.columns(rows) if narrow else None
            logits = self._logits(streams[start : start + size], columns)
            if columns is None and (answer_columns := readout.columns(rows)) is not None:
                logits = logits.gather(1, answer_columns.to(logits.device))
            numbers.append(readout(logits, rows).float().cpu())
        return torch.cat(numbers)

    def _logits(self, streams: Float[Tensor, "n d_model"], columns: Int[Tensor, "n k"] | None) -> Tensor:
        """The logits of final streams, through the model's own last norm and unembedding."""
        ids = torch.zeros((len(streams), 1), dtype=torch.long, device=self.model.device)
        inputs = streams.to(self.model.device, self.model.dtype)[:, None]
        logits, _ = self.model.forward(
            unpadded(ids),
            logits_at=ids,
            block_call=self.readers.passing(inputs),
            logit_columns=None if columns is None else columns[:, None],
            who="circuits",
        )
        return logits[:, 0]

    @cached_property
    def baselines(self) -> tuple[Float[Tensor, "example"], Float[Tensor, "example"]]:
        """The number at the end of the clean and of the corrupted pass, per example."""
        clean, corrupted = [], []
        for chunk in self.chunks():
            clean.append(self.result(self.end_stream(chunk.clean), chunk.rows))
            corrupted.append(self.result(self.end_stream(chunk.corrupted), chunk.rows))
        return torch.cat(clean), torch.cat(corrupted)

    def check_gap(self) -> None:
        """Raises `InvalidArgument` where the passes do not differ in what is read at the end."""
        clean, corrupted = (metric.double().mean() for metric in self.baselines)
        if abs(clean - corrupted) <= 1e-6 * max(abs(clean), abs(corrupted), 1e-12):
            means = f"mean {self.info.name} {float(clean):.4g} clean, {float(corrupted):.4g} corrupted"
            raise InvalidArgument(
                "There is nothing to explain: the clean and the corrupted run do not differ on average.",
                got=means,
                do="choose a source, a corruption or a metric that makes a difference.",
            )

    def with_reference(self) -> ContrastPasses:
        """The same passes with the clean logits as the reference that `kl` needs; unchanged where nothing reads it."""
        if self.target is not None or info_of(self.metric).answers_only:
            return self
        rows, parts = list(range(len(self.contrast))), []
        size = max(1, self.model.memory_budget // 4 // (self.model.shape.d_vocab * 16))
        for start in range(0, len(rows), size):
            parts.append(self.model.run(self.tokens("clean", rows[start : start + size]), self.clean_edits).cpu())
        return replace(self, reference=torch.cat(parts))


def make_passes(
    model: HookedModel, prompts: Prompts | PromptPairs | Contrast, question: CircuitQuestion
) -> ContrastPasses:
    """The clean and the corrupted pass of a search.

    Raises:
        InvalidArgument: something is attached to the model, or the source never reaches the target.
        MisalignedPrompts: the prompts' structure does not fit the requested positions.
    """
    if model.registry.attached_here:
        raise InvalidArgument(
            "Circuits are measured on the model as it is, and something is attached to it.",
            got=model.registry.attached_here[0].who,
            do="leave the model.intervene(...) context first.",
        )
    contrast = contrast_of(model, prompts, question.source)
    site = None if question.source is None else question.source.site
    target = None if question.target is None else question.target.site
    graph = Graph(model.shape, readers_of(model).parallel, positions_for(contrast, site, question.pos), site, target)
    if len(graph) == 0:
        raise InvalidArgument(
            "The source never reaches the target: no edge leads from one to the other.",
            got=f"source {site}, target {target or 'logits'}",
            do="choose a source before the target, in layer and in position.",
        )
    metric = logit_diff if contrast.answers.wrong is not None else log_prob
    if question.metric is not None:
        metric = as_metric(question.metric)
    clean_edits = () if question.source is None else (question.source,)
    corrupted_edits = () if question.against is None else (question.against,)
    return ContrastPasses(
        model, graph, contrast, clean_edits, corrupted_edits, metric, question.target
    ).with_reference()
