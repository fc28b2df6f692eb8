"""A model that runs only a circuit: every edge in it carries what its writer writes now, every other one run B's value.

Many circuits run side by side, a row for each example and circuit. Per layer the stream that each reader would see is
put together from the writers upstream, the reader's own value follows from it (readers.py), the model's own block
turns queries, keys and values into head outputs, and so on to the end. The stream inside the model plays no part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tv_lens.batch import TokenBatch
from tv_lens.circuits.runs import Chunk, Runs
from tv_lens.intervention import Replace
from tv_lens.model.editing import Edit
from tv_lens.progress import progress as progress_bar
from tv_lens.rows import trial
from tv_lens.rows.edits import Row
from tv_lens.rows.walk import Walk, base_run
from tv_lens.site import Site


def run_circuits(
    runs: Runs, masks: Bool[Tensor, "circuit edge"], *, first_layer: int = 0, show_progress: bool = True
) -> Float[Tensor, "example circuit"]:
    """The number at the end of every example under every circuit.

    Args:
        runs: the two runs.
        masks: the circuits, over `runs.graph.edges`.
        first_layer: below it every circuit holds all edges, so its writers write what they do in run A.
        show_progress: show a bar where somebody looks.

    Source:
        Conmy et al. 2023 (arXiv 2304.14997), section 2: edges outside the circuit are set to the corrupted run's values.
    """
    out = torch.zeros(len(runs.contrast), len(masks))
    with progress_bar("circuits", out.numel(), "runs", show_progress) as bar:
        for length in sorted(set(runs.contrast.tokens_a.lengths.tolist())):
            rows = (runs.contrast.tokens_a.lengths == length).nonzero()[:, 0].tolist()
            for chunk in runs.chunks(rows=rows):
                made = _Patched(runs, chunk, first_layer)
                for examples, circuits in made.batches(len(masks)):
                    found = made.run(examples, masks[circuits])
                    out[chunk.rows[examples][:, None], torch.tensor(circuits)[None]] = found
                    bar.advance(found.numel())
    return out


@dataclass(frozen=True, eq=False)
class _Patched:
    """Circuits on a chunk of examples of one length."""

    runs: Runs
    chunk: Chunk
    first_layer: int

    @cached_property
    def layers(self) -> range:
        """The layers in which something can differ from both runs."""
        graph = self.runs.graph
        first, last = self.first_layer, graph.shape.n_layers
        if graph.source is not None:
            first = max(first, int(graph.source.layer) + (graph.source.component == "resid_post"))
        if graph.target is not None:
            last = int(graph.target.layer) + (graph.target.component != "resid_pre")
        return range(first, last)

    @cached_property
    def start(self) -> int:
        """The writer from which everything starts."""
        return 0 if self.runs.graph.source is None else self.runs.graph.source_writer

    @cached_property
    def known(self) -> Float[Tensor, "example slot known d_model"]:
        """What writers that no circuit can change wrote in run A, less what they wrote in run B."""
        return -self.runs.difference(self.chunk)[:, :, self.known_writers]

    @cached_property
    def known_writers(self) -> list[int]:
        graph = self.runs.graph
        return [self.start, *(range(1, graph.head_writer(self.layers.start, 0)) if self.first_layer else [])]

    @property
    def walk(self) -> Walk | None:
        """The prompts' run before the first token that differs; None where rows cannot share it (`row_plan`)."""
        if trial.why_not(self.runs.model, [Row(0)]):
            return None
        if "walk" not in self.chunk.made:
            tokens = self.runs.tokens("b", self.chunk.rows.tolist())
            start = min(slot % tokens.width for slot in self.runs.slots)
            self.chunk.made["walk"] = Walk(base_run(self.runs.model, tokens), (), 0, start, torch.zeros(0, dtype=torch.long))
        return self.chunk.made["walk"]

    def batches(self, n_circuits: int) -> Iterator[tuple[list[int], list[int]]]:
        """Examples of the chunk and circuits, as many rows at once as a quarter of the memory budget holds."""
        graph, shape = self.runs.graph, self.runs.model.shape
        writers = len(self.known_writers) + len(self.layers) * (shape.n_heads + 1)
        readers = graph.readers_per_layer + shape.n_heads
        row = 4 * len(self.runs.slots) * shape.d_model * (writers + 2 * readers + 8)
        size = max(1, min(self.runs.model.memory_budget // 4 // row, 8192 // len(self.runs.slots)))
        per = max(1, min(n_circuits, size))
        n = max(1, size // per)
        for start in range(0, len(self.chunk.rows), n):
            for first in range(0, n_circuits, per):
                yield (list(range(start, min(start + n, len(self.chunk.rows)))),
                       list(range(first, min(first + per, n_circuits))))  # fmt: skip

    def run(self, examples: Sequence[int], masks: Bool[Tensor, "circuit edge"]) -> Float[Tensor, "example circuit"]:
        """The number at the end under each circuit."""
        graph, runs, b = self.runs.graph, self.runs, self.chunk.b
        heads, n, c = graph.shape.n_heads, len(examples), len(masks)
        in_layers = range(graph.head_writer(self.layers.start, 0), 1 + graph.shape.n_layers * (heads + 1))
        local = [*self.known_writers, *in_layers]
        table = torch.stack([graph.dense(mask) for mask in masks])[:, :, local].float()[:, runs.slot_place]
        filled = len(self.known_writers)
        now = torch.zeros(n, c, len(runs.slots), filled + len(self.layers) * (heads + 1), graph.shape.d_model)
        now[:, :, :, :filled] = self.known[list(examples)][:, None]

        def stream(base: Tensor, readers: range, upto: int) -> Float[Tensor, "n c slot reader d_model"]:
            chosen = table[:, :, :upto, readers.start : readers.stop].transpose(-1, -2)
            return base[list(examples)][:, None, :, None] + chosen @ now[:, :, :, :upto]

        for layer in self.layers:
            held = {part: runs.readers.value_each(layer, part, stream(b.pre[layer], graph.readers_of(layer, part), filled)
                                                  .flatten(0, 2)) for part in "qkv"}  # fmt: skip
            z, attn = self._attention(layer, examples, c, held)
            written = runs.readers.head_writes(layer, z, attn).cpu() - self._b_heads(layer)[list(examples)][:, None]
            now[:, :, :, filled : filled + heads] = written
            upto = filled if graph.parallel else filled + heads
            seen = stream(b.read_by(layer, "mlp"), graph.readers_of(layer, "mlp"), upto)
            out = runs.readers.value(layer, "mlp", seen.flatten(0, 3)).cpu().unflatten(0, seen.shape[:3])
            now[:, :, :, filled + heads] = out - b.mlp[layer][list(examples)][:, None]
            filled += heads + 1
        end = runs.end_stream(b)[list(examples)][:, None] + (
            table[:, runs.end_slot, :filled, graph.end_reader][:, None] @ now[:, :, runs.end_slot, :filled]
        ).squeeze(2)
        return runs.result(end.flatten(0, 1), self.chunk.rows[list(examples)].repeat_interleave(c)).view(n, c)

    def _b_heads(self, layer: int) -> Float[Tensor, "example slot head d_model"]:
        """What the heads write in run B, worked out once for all circuits."""
        if ("b heads", layer) not in self.chunk.made:
            b = self.chunk.b
            self.chunk.made["b heads", layer] = self.runs.readers.head_writes(layer, b.z[layer], b.attn[layer]).cpu()
        return self.chunk.made["b heads", layer]

    def _attention(
        self, layer: int, examples: Sequence[int], c: int, held: dict[str, Tensor]
    ) -> tuple[Float[Tensor, "n c slot head d_head"], Float[Tensor, "n c slot d_model"]]:
        """The heads' outputs and their sum, from queries, keys and values, through the model's own block."""
        runs, n_slots = self.runs, len(self.runs.slots)
        owners = torch.tensor(list(examples)).repeat_interleave(c)
        width = int(runs.contrast.tokens_a.lengths[self.chunk.rows[0]])
        start = 0 if self.walk is None else self.walk.start
        columns = torch.tensor([slot % width - start for slot in runs.slots])
        at = torch.arange(len(owners)).repeat_interleave(n_slots)
        edits = [Edit(Replace(Site(part, layer), value), at, columns.repeat(len(owners))) for part, value in held.items()]
        reads = [Site("z", layer), Site("attn_out", layer)]
        if self.walk is not None:
            walk = Walk(self.walk.base, (0,) * len(owners), 0, start, owners)
            values = walk.step(runs.model, layer, edits, reads, "circuits").values
        else:
            batch = runs.tokens("b", self.chunk.rows[owners].tolist())
            values = self._whole(layer, batch, owners, edits, reads)
        z, attn = (values[site][:, columns].float().cpu() for site in reads)
        return z.unflatten(0, (len(examples), c)), attn.unflatten(0, (len(examples), c))

    def _whole(
        self, layer: int, batch: TokenBatch, owners: Tensor, edits: Sequence[Edit], reads: Sequence[Site]
    ) -> dict[Site, Tensor]:
        """The block on whole prompts; tokens before the first one that differs hold run B's stream."""
        held = self._stream_b[layer][owners]
        columns = None if not self.runs.model.registry.can_narrow else torch.zeros((len(batch), 1, 1), dtype=torch.long)
        _, attachment = self.runs.model.forward(
            batch, edits, reads, logits_at=batch.last[:, None], logit_columns=columns, stop_after=layer,
            block_call=self.runs.readers.passing(held, layer), who="circuits",
        )  # fmt: skip
        return attachment.values

    @cached_property
    def _stream_b(self) -> dict[int, Float[Tensor, "example pos d_model"]]:
        sites = {layer: Site("resid_pre", layer) for layer in self.layers}
        with self.runs.model.intervene(*self.runs.edits_b):
            held = self.runs.model.capture(self.runs.tokens("b", self.chunk.rows.tolist()), list(sites.values()))
        return {layer: held[site] for layer, site in sites.items()}
