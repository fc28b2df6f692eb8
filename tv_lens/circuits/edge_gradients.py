"""The gradient of the number at the end at every reader's input, somewhere between the clean and the corrupted run.

That input never exists as a tensor of its own: one stream feeds all readers of a layer. The gradient at q, k and v is
taken, and pulled back through the projections and the norm's Jacobian, reader by reader; that of an MLP is taken on the
branch of the stream that leads into it. Nothing is split by head for autograd to keep.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tv_lens.circuits.contrast_passes import ContrastPasses
from tv_lens.circuits.traces import Chunk
from tv_lens.intervention import Intervention, Replace
from tv_lens.metrics import checked
from tv_lens.model.editing import Edit
from tv_lens.model.grad_mode import GradMode
from tv_lens.model.readers import Readers
from tv_lens.site import Site

PARTS = ("attention", "mlp")


@dataclass(frozen=True, eq=False)
class PointOnPath:
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
        unmoved = not bool(alphas.any())
        before: list[Edit | Intervention] = list(passes.clean_edits) if keeps_source else []
        site = self._site(moved[0])
        chosen, alphas = rows.to(passes.device), alphas.to(passes.device)
        clean, corrupted = (side.at(site)[chosen] for side in (self.chunk.clean, self.chunk.corrupted))
        slots = [passes.start_slot] if moved[0] == start and graph.source is not None else range(len(passes.slots))
        value = clean + alphas[:, None, None] * (corrupted.float() - clean.float())
        columns = passes.columns(self.chunk.rows[rows].tolist())[:, list(slots)]
        if site.component == "resid_pre" and site.layer == 0 and graph.source is None and unmoved:
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


def readers_and_writers(passes: ContrastPasses, layer: int, part: str) -> tuple[range, int]:
    """The readers of a part, and the writer before which all that are upstream of them stand."""
    graph = passes.graph
    if part == "end":
        return range(graph.end_reader, graph.n_readers), graph.head_writer(passes.layers.stop, 0)
    if part == "mlp":
        upto = graph.head_writer(layer, 0) if graph.parallel else graph.mlp_writer(layer)
        return graph.readers_of(layer, "mlp"), upto
    return range(graph.readers_of(layer, "q").start, graph.readers_of(layer, "v").stop), graph.head_writer(layer, 0)


class Gradients:
    """One hooked pass with its gradient, for each of some examples at each of some points of the path.

    Attributes:
        parts: what has readers with edges: (layer, "attention"), (layer, "mlp"), and the end.
    """

    def __init__(self, passes: ContrastPasses, point: PointOnPath, rows: range, alphas: tuple[float, ...]):
        self.passes, self.n, self.steps = passes, len(rows), len(alphas)
        graph, model = passes.graph, passes.model
        live = graph.valid.any(1).any(0)  # readers with any edge
        spans = {(i, part): readers_and_writers(passes, i, part)[0] for i in passes.layers for part in PARTS}
        self.parts = [which for which, span in spans.items() if bool(live[span.start : span.stop].any())]
        self.parts.append((graph.shape.n_layers, "end"))
        which = torch.arange(rows.start, rows.stop, device="cpu").repeat_interleave(len(alphas))
        examples = point.chunk.rows[which]
        batch = passes.tokens("clean", examples.tolist())
        last = Site("resid_post", graph.shape.n_layers - 1)
        self.end = (last if passes.target is None else passes.target.site).tensor
        branches = [] if graph.parallel else [Site("resid_mid", layer) for layer, part in self.parts if part == "mlp"]
        sites = [Site(name, layer) for layer, part in self.parts if part == "attention" for name in "qkv"]
        sites += [Site("mlp_out", layer) for layer, part in self.parts if part == "mlp" and graph.parallel]
        streams = dict.fromkeys(
            Site("resid_pre", layer, pos=passes.slots)
            for layer, part in self.parts
            if part == "attention" or (part == "mlp" and graph.parallel)
        )
        _, gradients, attachment = model.gradients(
            batch,
            [*sites, self.end],
            lambda out: _scored(passes, out, examples),
            point.edits(which, torch.tensor(alphas, dtype=torch.float32, device="cpu").repeat(self.n)),
            list(streams),
            at=None if passes.target is None else self.end,
            who="edge attribution",
            branches=branches,
        )
        columns = passes.columns(examples.tolist()).to(passes.device)
        each = torch.arange(len(which), device=passes.device)[:, None]
        self.streams = {site.layer: value for site, value in attachment.values.items()}
        self.at_end = gradients.pop(self.end)[each[:, 0], columns[:, passes.end_slot]]
        self.gradients = {site: gradient[each, columns] for site, gradient in gradients.items()}

    def at_readers(self, layer: int, part: str) -> Float[Tensor, "n slot d_model reader"]:
        """The gradient at each reader's own input, summed over the points of the path."""
        if part == "end":
            out = self.at_end.new_zeros(self.n, len(self.passes.slots), self.at_end.shape[-1], 1, dtype=torch.float32)
            out[:, self.passes.end_slot, :, 0] = self.at_end.float().unflatten(0, (self.n, -1)).sum(1)
            return out
        if part == "attention":
            gradients = {name: self.gradients[Site(name, layer)] for name in "qkv"}
            pulled = pulled_back_through_attention(self.passes.readers, layer, self.streams[layer], gradients)
        elif self.passes.graph.parallel:
            gradient = self.gradients[Site("mlp_out", layer)]
            pulled = pulled_back(self.passes.readers, layer, "mlp", self.streams[layer], gradient).permute(2, 0, 1, 3)
        else:
            pulled = self.gradients[Site("resid_mid", layer)][None].float()
        pulled = pulled.unflatten(1, (self.n, self.steps))  # reader n step slot d_model
        summed = pulled[:, :, 0] if self.steps == 1 else pulled.sum(2)
        return summed.permute(1, 2, 3, 0)


def _scored(passes: ContrastPasses, out: Tensor, examples: Int[Tensor, "row"]) -> Float[Tensor, "row"]:
    """The number at the end of each row, as autograd can follow it."""
    if passes.target is not None:
        columns = passes.columns(examples.tolist())[:, passes.end_slot].to(out.device)
        return passes.target.read(out[torch.arange(len(out), device=out.device), columns])
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
    if part != "mlp":
        return pulled_back_through_attention(readers, layer, stream, {part: gradient}).permute(1, 2, 0, 3)
    with GradMode(True):
        x = stream.to(gradient.device, gradient.dtype).detach().requires_grad_()
        (pulled,) = torch.autograd.grad(readers.mlp(layer, x), x, gradient)
    return pulled[:, :, None].float()


def pulled_back_through_attention(
    readers: Readers, layer: int, stream: Float[Tensor, "n slot d_model"], gradients: Mapping[str, Tensor]
) -> Float[Tensor, "reader n slot d_model"]:
    """The gradient at the input of each query, key and value, from the gradients at their outputs.

    All of them read one stream through one norm, so the norm runs once and its Jacobian takes all gradients together.

    Args:
        readers: the model's readers.
        layer: the layer of the readers.
        stream: the stream that they read.
        gradients: by part, `n slot head d_head`.
    """
    normed = torch.cat(
        [
            torch.einsum("nshk,dhk->hnsd", gradient, readers.weights(layer, part).weight.detach())
            for part, gradient in gradients.items()
        ]
    )
    with GradMode(True):
        x = stream.to(normed.device, normed.dtype).detach().clone().requires_grad_()
        out = readers.norm(layer, x)
        if out is x:
            return normed.float()
        (pulled,) = torch.autograd.grad(out, x, normed, is_grads_batched=True)
    return pulled.float()
