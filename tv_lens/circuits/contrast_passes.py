"""The clean and the corrupted pass of every example, what every writer wrote in each, and the metric at the end.

The clean pass holds what is traced and the corrupted pass lacks it (`contrast.py` says what that is).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tv_lens.batch import TokenBatch
from tv_lens.circuits.contrast import CircuitQuestion, Contrast, Projection, contrast_of, positions_for
from tv_lens.circuits.graph import Graph
from tv_lens.errors import InvalidArgument
from tv_lens.intervention import Intervention
from tv_lens.metrics import Answers, Metric, MetricInfo, Readout, as_metric, info_of, log_prob, logit_diff
from tv_lens.model.hooked_model import HookedModel
from tv_lens.model.readers import HELD, Readers, readers_of
from tv_lens.site import Site
from tv_lens.tasks.prompts import PromptPairs, Prompts


@dataclass(frozen=True, eq=False)
class Trace:
    """The activations of one pass at the graph's tokens ("slots"), per layer."""

    pre: Float[Tensor, "layer example slot d_model"]
    attn: Float[Tensor, "layer example slot d_model"]
    mid: Float[Tensor, "layer example slot d_model"]  # what the MLP reads
    mlp: Float[Tensor, "layer example slot d_model"]
    z: Float[Tensor, "layer example slot head d_head"]
    post: Float[Tensor, "example slot d_model"]

    def at(self, site: Site) -> Float[Tensor, "example slot d_model"]:
        """The activations at a place in the stream."""
        layer = int(site.layer)
        if site.component in ("attn_out", "mlp_out", "resid_pre", "resid_mid"):
            by_component = {"attn_out": self.attn, "mlp_out": self.mlp, "resid_pre": self.pre, "resid_mid": self.mid}
            return by_component[site.component][layer]
        return self.post if layer == len(self.pre) - 1 else self.pre[layer + 1]

    def of(self, places: Sequence[int]) -> Trace:
        """The same for some of the examples."""
        chosen = torch.tensor(list(places), dtype=torch.long, device="cpu")
        by_layer = (getattr(self, name)[:, chosen] for name in ("pre", "attn", "mid", "mlp", "z"))
        return Trace(*by_layer, self.post[chosen])

    def read_by(self, layer: int, part: str) -> Float[Tensor, "example slot d_model"]:
        """The stream that a part of a layer reads."""
        return self.mid[layer] if part == "mlp" else self.pre[layer]


@dataclass(frozen=True, eq=False)
class Chunk:
    """Some examples with both of their traces."""

    rows: Int[Tensor, "example"]
    clean: Trace
    corrupted: Trace
    derived: dict[object, Any] = field(default_factory=dict)  # intermediate results that several methods use

    def of(self, rows: Sequence[int]) -> Chunk:
        """The chunk of some of its examples, which are named by their numbers among all."""
        places = {row: place for place, row in enumerate(self.rows.tolist())}
        chosen = [places[row] for row in rows]
        return Chunk(
            torch.tensor(list(rows), dtype=torch.long, device="cpu"), self.clean.of(chosen), self.corrupted.of(chosen)
        )


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
        shape, slots = self.model.shape, len(self.slots)
        table = slots * self.graph.n_writers * shape.d_model * 4
        traces = 2 * slots * shape.n_layers * (4 * shape.d_model + shape.n_heads * shape.d_head) * 4
        size = max(1, self.model.memory_budget // 4 // (table * (copies + 2) + traces))
        rows = list(range(len(self.contrast)) if rows is None else rows)
        for start in range(0, len(rows), size):
            part = tuple(rows[start : start + size])
            if part not in self._last_chunk:  # if all examples fit into one chunk, they are traced once
                around = [chunk for held, chunk in self._last_chunk.items() if set(part) <= set(held)]
                if around:
                    yield around[0].of(part)
                    continue
                self._last_chunk.clear()
                self._last_chunk[part] = Chunk(
                    torch.tensor(part, dtype=torch.long, device="cpu"),
                    self.trace("clean", part),
                    self.trace("corrupted", part),
                )
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
        layers = range(self.model.n_layers)
        names = ["resid_pre", "attn_out", "mlp_out", "z"] + ([] if self.graph.parallel else ["resid_mid"])
        last = Site("resid_post", self.model.n_layers - 1, pos=self.slots)
        sites = [Site(name, layer, pos=self.slots) for name in names for layer in layers]
        with self.model.intervene(*self.edits(side)):
            captured = self.model.capture(self.tokens(side, rows), [*sites, last])
        stacks = {
            name: torch.stack([captured[Site(name, layer, pos=self.slots)] for layer in layers]) for name in names
        }
        pre = stacks["resid_pre"]
        return Trace(
            pre, stacks["attn_out"], stacks.get("resid_mid", pre), stacks["mlp_out"], stacks["z"], captured[last]
        )

    # ---- writers ----------------------------------------------------------------------------------------------------

    @cached_property
    def _live(self) -> Float[Tensor, "slot writer"]:
        """1 where a writer has edges at a slot, and 0 where the source cuts it off."""
        return self.graph.valid.any(2)[self.slot_place].float()

    def difference(self, chunk: Chunk, norm: str = HELD) -> Float[Tensor, "example slot writer d_model"]:
        """What each writer wrote in the corrupted pass less what it wrote in the clean one; zero without edges.

        Args:
            chunk: the examples.
            norm: how a norm after attention goes with one head's change; see `Readers.exchanged`.
        """
        if norm != HELD and self.readers.post_norm:
            return self._exchanged(chunk, norm)
        if "difference" not in chunk.derived:
            difference = self.writes(chunk.corrupted).sub_(self.writes(chunk.clean)).mul_(self._live[..., None])
            chunk.derived["difference"] = difference
        return chunk.derived["difference"]

    def _exchanged(self, chunk: Chunk, norm: str) -> Float[Tensor, "example slot writer d_model"]:
        """The same where a norm after attention is recomputed for each head."""
        if norm not in chunk.derived:
            changes, clean, corrupted = self.difference(chunk).clone(), chunk.clean, chunk.corrupted
            for layer in range(self.model.shape.n_layers):
                heads = slice(self.graph.head_writer(layer, 0), self.graph.mlp_writer(layer))
                sides = clean.z[layer], corrupted.z[layer], clean.attn[layer], corrupted.attn[layer]
                changes[:, :, heads] = self.readers.exchanged(layer, *sides, norm).cpu()
            chunk.derived[norm] = changes.mul_(self._live[..., None])
        return chunk.derived[norm]

    def writes(self, trace: Trace) -> Float[Tensor, "example slot writer d_model"]:
        """What every writer wrote to the stream."""
        graph, shape = self.graph, self.model.shape
        n, slots = trace.post.shape[:2]
        out = torch.zeros(n, slots, graph.n_writers, shape.d_model, dtype=torch.float32, device="cpu")
        out[:, :, 0] = trace.pre[0]
        for layer in range(shape.n_layers):
            first, mlp = graph.head_writer(layer, 0), graph.mlp_writer(layer)
            out[:, :, first:mlp] = self.readers.head_writes(layer, trace.z[layer], trace.attn[layer]).cpu()
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
            return self.target.read(streams)
        readout, narrow = Readout(self.metric, self.answers, owners), self.model.registry.can_narrow
        size = max(1, self.model.memory_budget // 8 // (self.model.shape.d_vocab * 8))
        numbers = []
        for start in range(0, len(streams), size):
            rows = torch.arange(start, min(start + size, len(streams)), device="cpu")
            columns = readout.columns(rows) if narrow else None
            logits = self._logits(streams[rows], columns)
            if columns is None and (answer_columns := readout.columns(rows)) is not None:
                logits = logits.gather(1, answer_columns.to(logits.device))
            numbers.append(readout(logits, rows).float().cpu())
        return torch.cat(numbers)

    def _logits(self, streams: Float[Tensor, "n d_model"], columns: Int[Tensor, "n k"] | None) -> Tensor:
        """The logits of final streams, through the model's own last norm and unembedding."""
        ids = torch.zeros((len(streams), 1), dtype=torch.long, device=self.model.device)
        inputs = streams.to(self.model.device, self.model.dtype)[:, None]
        logits, _ = self.model.forward(
            TokenBatch(ids, torch.ones_like(ids, dtype=torch.bool)),
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
