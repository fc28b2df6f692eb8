"""A model that runs only a circuit: its edges carry what their writers write in this run, all others corrupted values.

Many circuits run side by side, a row for each example and circuit. Per layer the stream that each reader would see is
put together from the writers upstream, the reader's own value follows from it (`model/readers.py`), the model's own
block turns queries, keys and values into head outputs, and so on to the end. The model's own stream is not used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tv_lens.batch import TokenBatch
from tv_lens.circuits.contrast_passes import Chunk, ContrastPasses
from tv_lens.intervention import Replace
from tv_lens.model.editing import Edit
from tv_lens.progress import progress as progress_bar
from tv_lens.rows import trial
from tv_lens.rows.edits import Row
from tv_lens.rows.walk import Walk, base_run
from tv_lens.site import Site


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
    with progress_bar("circuits", out.numel(), "runs", progress) as bar:
        for length in sorted(set(passes.contrast.clean.lengths.tolist())):
            rows = (passes.contrast.clean.lengths == length).nonzero()[:, 0].tolist()
            for chunk in passes.chunks(rows=rows):
                patched = _Patched(passes, chunk, first_layer)
                for examples, circuits in patched.batches(len(masks)):
                    metrics = patched.run(examples, masks[circuits])
                    columns = torch.tensor(circuits, dtype=torch.long, device="cpu")
                    out[chunk.rows[examples][:, None], columns[None]] = metrics
                    bar.advance(metrics.numel())
    return out


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
    def start(self) -> int:
        """The writer from which everything starts."""
        return 0 if self.passes.graph.source is None else self.passes.graph.source_writer

    @cached_property
    def known(self) -> Float[Tensor, "example slot known d_model"]:
        """What writers that no circuit can change wrote in the clean run, less what they wrote in the corrupted run."""
        return -self.passes.difference(self.chunk)[:, :, self.known_writers]

    @cached_property
    def known_writers(self) -> list[int]:
        graph = self.passes.graph
        return [self.start, *(range(1, graph.head_writer(self.layers.start, 0)) if self.first_layer else [])]

    @property
    def walk(self) -> Walk | None:
        """The prompts' run before the first token that differs; None where rows cannot share it (`rows.trial`)."""
        if trial.why_not(self.passes.model, [Row(0)]):
            return None
        if "walk" not in self.chunk.derived:
            tokens = self.passes.tokens("corrupted", self.chunk.rows.tolist())
            start = min(slot % tokens.width for slot in self.passes.slots)
            self.chunk.derived["walk"] = Walk(
                base_run(self.passes.model, tokens), (), 0, start, torch.zeros(0, dtype=torch.long, device="cpu")
            )
        return self.chunk.derived["walk"]

    def batches(self, n_circuits: int) -> Iterator[tuple[list[int], list[int]]]:
        """Examples of the chunk and circuits, as many rows at once as a quarter of the memory budget holds."""
        graph, shape = self.passes.graph, self.passes.model.shape
        writers = len(self.known_writers) + len(self.layers) * (shape.n_heads + 1)
        readers = graph.readers_per_layer + shape.n_heads
        row = 4 * len(self.passes.slots) * shape.d_model * (writers + 2 * readers + 8)
        size = max(1, min(self.passes.model.memory_budget // 4 // row, 8192 // len(self.passes.slots)))
        per = max(1, min(n_circuits, size))
        n = max(1, size // per)
        for start in range(0, len(self.chunk.rows), n):
            for first in range(0, n_circuits, per):
                yield (
                    list(range(start, min(start + n, len(self.chunk.rows)))),
                    list(range(first, min(first + per, n_circuits))),
                )

    def run(self, examples: Sequence[int], masks: Bool[Tensor, "circuit edge"]) -> Float[Tensor, "example circuit"]:
        """The number at the end under each circuit."""
        graph, passes, corrupted = self.passes.graph, self.passes, self.chunk.corrupted
        heads, n, c = graph.shape.n_heads, len(examples), len(masks)
        in_layers = range(graph.head_writer(self.layers.start, 0), 1 + graph.shape.n_layers * (heads + 1))
        local = [*self.known_writers, *in_layers]
        table = torch.stack([graph.dense(mask) for mask in masks])[:, :, local].float()[:, passes.slot_place]
        filled = len(self.known_writers)
        shape = (n, c, len(passes.slots), filled + len(self.layers) * (heads + 1), graph.shape.d_model)
        now = torch.zeros(shape, dtype=torch.float32, device="cpu")
        now[:, :, :, :filled] = self.known[list(examples)][:, None]

        def stream(base: Tensor, readers: range, upto: int) -> Float[Tensor, "n c slot reader d_model"]:
            chosen = table[:, :, :upto, readers.start : readers.stop].transpose(-1, -2)
            return base[list(examples)][:, None, :, None] + chosen @ now[:, :, :, :upto]

        for layer in self.layers:
            inputs = {}
            for part in "qkv":
                seen = stream(corrupted.pre[layer], graph.readers_of(layer, part), filled)
                inputs[part] = passes.readers.value_each(layer, part, seen.flatten(0, 2))
            z, attn = self._attention(layer, examples, c, inputs)
            written = (
                passes.readers.head_writes(layer, z, attn).cpu() - self._corrupted_heads(layer)[list(examples)][:, None]
            )
            now[:, :, :, filled : filled + heads] = written
            upto = filled if graph.parallel else filled + heads
            seen = stream(corrupted.read_by(layer, "mlp"), graph.readers_of(layer, "mlp"), upto)
            out = passes.readers.value(layer, "mlp", seen.flatten(0, 3)).cpu().unflatten(0, seen.shape[:3])
            now[:, :, :, filled + heads] = out - corrupted.mlp[layer][list(examples)][:, None]
            filled += heads + 1
        end = passes.end_stream(corrupted)[list(examples)][:, None] + (
            table[:, passes.end_slot, :filled, graph.end_reader][:, None] @ now[:, :, passes.end_slot, :filled]
        ).squeeze(2)
        return passes.result(end.flatten(0, 1), self.chunk.rows[list(examples)].repeat_interleave(c)).view(n, c)

    def _corrupted_heads(self, layer: int) -> Float[Tensor, "example slot head d_model"]:
        """What the heads write in the corrupted run, computed once for all circuits."""
        if ("corrupted heads", layer) not in self.chunk.derived:
            trace = self.chunk.corrupted
            self.chunk.derived["corrupted heads", layer] = self.passes.readers.head_writes(
                layer, trace.z[layer], trace.attn[layer]
            ).cpu()
        return self.chunk.derived["corrupted heads", layer]

    def _attention(
        self, layer: int, examples: Sequence[int], c: int, inputs: dict[str, Tensor]
    ) -> tuple[Float[Tensor, "n c slot head d_head"], Float[Tensor, "n c slot d_model"]]:
        """The heads' outputs and their sum, from queries, keys and values, through the model's own block."""
        passes, n_slots = self.passes, len(self.passes.slots)
        owners = torch.tensor(list(examples), dtype=torch.long, device="cpu").repeat_interleave(c)
        width = int(passes.contrast.clean.lengths[self.chunk.rows[0]])
        start = 0 if self.walk is None else self.walk.start
        columns = torch.tensor([slot % width - start for slot in passes.slots], dtype=torch.long, device="cpu")
        at = torch.arange(len(owners), device="cpu").repeat_interleave(n_slots)
        edits = [
            Edit(Replace(Site(part, layer), value), at, columns.repeat(len(owners))) for part, value in inputs.items()
        ]
        reads = [Site("z", layer), Site("attn_out", layer)]
        if self.walk is not None:
            walk = Walk(self.walk.base, (0,) * len(owners), 0, start, owners)
            values = walk.step(passes.model, layer, edits, reads, "circuits").values
        else:
            batch = passes.tokens("corrupted", self.chunk.rows[owners].tolist())
            values = self._whole(layer, batch, owners, edits, reads)
        z, attn = (values[site][:, columns].float().cpu() for site in reads)
        return z.unflatten(0, (len(examples), c)), attn.unflatten(0, (len(examples), c))

    def _whole(
        self, layer: int, batch: TokenBatch, owners: Tensor, edits: Sequence[Edit], reads: Sequence[Site]
    ) -> dict[Site, Tensor]:
        """The block on whole prompts; tokens before the first one that differs hold the corrupted stream."""
        streams = self._corrupted_stream[layer][owners]
        first = torch.zeros((len(batch), 1, 1), dtype=torch.long, device="cpu")
        columns = first if self.passes.model.registry.can_narrow else None
        _, attachment = self.passes.model.forward(
            batch,
            edits,
            reads,
            logits_at=batch.last[:, None],
            logit_columns=columns,
            stop_after=layer,
            block_call=self.passes.readers.passing(streams, layer),
            who="circuits",
        )
        return attachment.values

    @cached_property
    def _corrupted_stream(self) -> dict[int, Float[Tensor, "example pos d_model"]]:
        sites = {layer: Site("resid_pre", layer) for layer in self.layers}
        with self.passes.model.intervene(*self.passes.corrupted_edits):
            captured = self.passes.model.capture(
                self.passes.tokens("corrupted", self.chunk.rows.tolist()), list(sites.values())
            )
        return {layer: captured[site] for layer, site in sites.items()}
